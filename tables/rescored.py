"""Published captions scored again: do the scores of two tables compare?

Tanti, Gatt and Camilleri (2018) published the captions of each of their runs on
Flickr8k, and their scores by the official evaluation. Here `captioning.metrics`
scores the same captions, against the captions of Flickr8k as this repository
reads them. A directory of theirs has

  ARCHITECTURE_RUN.txt   generated_captions.txt of a run: one caption a line
  imgs_flickr8k.txt      the names of the test images, in this order
  results.txt            the published scores
"""

import csv
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from captioning import caption_files
from captioning import metrics

NAME = 'flickr8k_published'
ARCHITECTURES = ('init', 'pre', 'par', 'merge')
RUNS = tuple((name, run) for name in ARCHITECTURES for run in (1, 2, 3))
# Our name of a score -> theirs.
SCORES = {
  **{f'BLEU-{n}': f'Bleu_{n}' for n in range(1, 5)},
  'METEOR': 'METEOR',
  'ROUGE-L': 'ROUGE_L',
  'CIDEr': 'CIDEr',
}
_IMAGES = 'imgs_flickr8k.txt'
_RESULTS = 'results.txt'


def score(
  directory: pathlib.Path,
  references: pathlib.Path,
  *,
  runs: Sequence[tuple[str, int]] = RUNS,
  meteor: bool = True,
) -> list[dict[str, Any]]:
  """Scores the captions of their runs.

  Args:
    directory: see the module.
    references: Flickr8k.token.txt.
    runs: architecture and number of each.
    meteor: compute METEOR too, which takes seconds and needs Java.

  Returns:
    For each run its `name`, and its `measured` and `published` scores; METEOR
    is only measured where there is Java.

  Raises:
    ValueError: a file is missing, or does not fit the others.
  """
  paths = {(name, run): directory / f'{name}_{run}.txt' for name, run in runs}
  needed = [directory / _IMAGES, directory / _RESULTS, *paths.values()]
  absent = [path.name for path in needed if not path.is_file()]
  if absent:
    raise ValueError(
      f'{directory} has no {", ".join(absent)}: pass --published, the '
      'directory of the captions and scores of Tanti et al. 2018'
    )
  human = caption_files.read(references)
  images = (directory / _IMAGES).read_text().split()
  unknown = [image for image in images if image not in human]
  if unknown:
    raise ValueError(
      f'{references} has no captions of {unknown[0]}: pass --references, '
      'Flickr8k.token.txt'
    )
  human = {image: human[image] for image in images}
  with (directory / _RESULTS).open(newline='') as file:
    published = {
      (line['architecture'], int(line['run'])): line
      for line in csv.DictReader(file, delimiter='\t')
      if line['dataset_name'] == 'flickr8k'
    }
  rows = []
  for (name, run), path in paths.items():
    captions = path.read_text().splitlines()
    if len(captions) != len(images):
      raise ValueError(
        f'{path} has {len(captions)} captions for {len(images)} images'
      )
    candidates = dict(zip(images, captions, strict=True))
    line = published[name, run]
    rows.append(
      {
        'name': f'{name} {run}',
        'measured': metrics.score(human, candidates, meteor=meteor)['corpus'],
        'published': {ours: float(line[key]) for ours, key in SCORES.items()},
      }
    )
  return rows


def differences(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
  """The largest difference of each score that was measured."""
  return {
    name: max(
      abs(row['measured'][name] - row['published'][name]) for row in rows
    )
    for name in SCORES
    if all(name in row['measured'] for row in rows)
  }


def markdown(rows: Sequence[dict[str, Any]]) -> str:
  """A table: measured and published scores of each run."""
  lines = [
    '## Published captions of Tanti et al. 2018 on Flickr8k, scored again',
    '',
    'Measured here / published, for each of their runs.',
    '',
    f'| | {" | ".join(SCORES)} |',
    '|---' * (len(SCORES) + 1) + '|',
  ]
  for row in rows:
    cells = [
      (f'{row["measured"][name]:.4f}' if name in row['measured'] else '-')
      + f' / {row["published"][name]:.4f}'
      for name in SCORES
    ]
    lines.append(f'| {row["name"]} | {" | ".join(cells)} |')
  largest = differences(rows)
  cells = [f'{largest[x]:.4f}' if x in largest else '-' for x in SCORES]
  lines.append(f'| largest difference | {" | ".join(cells)} |')
  return '\n'.join(lines) + '\n'


def report(
  directory: pathlib.Path, references: pathlib.Path, output: pathlib.Path
) -> str:
  """Writes the table as Markdown and as JSON; returns the Markdown."""
  rows = score(directory, references)
  text = markdown(rows)
  output.mkdir(parents=True, exist_ok=True)
  (output / f'{NAME}.md').write_text(text)
  (output / f'{NAME}.json').write_text(json.dumps(rows, indent=2) + '\n')
  return text
