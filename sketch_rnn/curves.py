"""Learning curves of runs, over those of the published code.

The published curves are `curve_DECODER_seedN.json`, each with `valid`: rows of
step, L_R, L_KL and L_R without padding.
"""

import json
import pathlib
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

from matplotlib import figure
from matplotlib.backends import backend_agg

# Heading -> the metric of a run, and the column of a published curve.
_PANELS = {
  'L_R, validation': ('validation/reconstruction', 1),
  'L_KL, validation': ('validation/kl', 2),
  'L_R without padding, validation': ('validation/reconstruction_masked', 3),
}
_OURS, _PUBLISHED = '#d1495b', '#8d95a5'


def read_run(workdir: pathlib.Path) -> list[dict[str, float]]:
  """Reads the evaluations of a run, each with its step and its metrics."""
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  return [row for row in rows if 'validation/reconstruction' in row]


def read_published(
  directory: pathlib.Path, decoder: str
) -> list[list[list[float]]]:
  """Reads the curves of a decoder: rows of numbers, for each seed.

  Raises:
    FileNotFoundError: there are none.
  """
  files = sorted(directory.glob(f'curve_{decoder}_seed*.json'))
  if not files:
    raise FileNotFoundError(f'{directory} has no curve_{decoder}_seed*.json')
  return [json.loads(file.read_text())['valid'] for file in files]


def plot(
  path: pathlib.Path,
  runs: Mapping[str, Sequence[list[dict[str, float]]]],
  published: Mapping[str, Sequence[list[list[float]]]],
) -> Iterator[str]:
  """Writes a plot of the curves by decoder; yields a line on each panel.

  Args:
    path: of the PNG file, which is written last.
    runs: results of `read_run` by decoder.
    published: results of `read_published` by decoder.
  """
  sheet = figure.Figure(figsize=(4 * len(_PANELS), 3.2 * len(runs)), dpi=100)
  canvas = backend_agg.FigureCanvasAgg(sheet)
  axes = sheet.subplots(len(runs), len(_PANELS), squeeze=False)
  for row, (decoder, ours) in zip(axes, runs.items(), strict=True):
    theirs = published[decoder]
    for axis, (title, (name, column)) in zip(row, _PANELS.items(), strict=True):
      for i, curve in enumerate(theirs):
        axis.plot(
          [point[0] for point in curve[1:]],
          [point[column] for point in curve[1:]],
          color=_PUBLISHED,
          marker='o',
          label=None if i else 'published code',
        )
      for i, curve in enumerate(ours):
        axis.plot(
          [point['step'] for point in curve],
          [point[name] for point in curve],
          color=_OURS,
          marker='x',
          label=None if i else 'ours',
        )
      axis.set(title=f'{decoder}: {title}', xlabel='step')
      axis.legend()
      last = [f'{curve[-1][name]:.3f}' for curve in ours]
      known = [f'{curve[-1][column]:.3f}' for curve in theirs]
      yield (
        f'{decoder}, {title}, step {ours[0][-1]["step"]}: '
        f'ours {" ".join(last)}; published {" ".join(known)}'
      )
  sheet.tight_layout()
  canvas.print_png(path)
