r"""Compares captioners image by image, and their confidence with their scores.

  python -m captioning.compare Flickr8k.token.txt \
    --first runs/soft_0/results/test.captions.json \
    --second runs/show_and_tell_0/results/test.captions.json

--first and --second take the captions of several runs each, seeds say. An
image's score is its mean over the runs. The interval of the difference is that
of a paired bootstrap: images are sampled with replacement, the same for both,
so that it holds for other images and not for other seeds; the spread of the
runs is printed beside it.

Where captions have log-probabilities, as those of captioning.evaluate, the
images are sorted by that of a word, and the score of each fifth is printed: is
an improbable caption a worse one?
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from captioning import caption_files
from captioning import metrics
from training import errors
from training import paths

_FIFTHS = 5


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Two groups of runs on the same images.

  Attributes:
    runs: mean score of each run of the two groups.
    difference: mean of the first less that of the second.
    interval: its 95 % interval over images.
    probability: share of the resamples in which the first is not better.
    better, worse: number of images at which the first is.
  """

  runs: tuple[tuple[float, ...], tuple[float, ...]]
  difference: float
  interval: tuple[float, float]
  probability: float
  better: int
  worse: int


def image_scores(
  references: Mapping[str, Sequence[str]],
  candidates: Mapping[str, str],
  metric: str,
) -> np.ndarray:
  """The score of each image, in the order of the references: f64[N]."""
  each = metrics.score(references, candidates)['per_image']
  return np.array([each[image][metric] for image in references])


def paired_bootstrap(
  first: np.ndarray, second: np.ndarray, *, resamples: int, seed: int = 0
) -> Comparison:
  """Compares scores f64[R, N] and f64[S, N] of R and S runs at N images.

  Koehn 2004 (Statistical Significance Tests for Machine Translation
  Evaluation), for a score that is a mean over images.
  """
  differences = np.mean(first, 0) - np.mean(second, 0)
  count = len(differences)
  rng = np.random.default_rng(seed)
  means = np.array(
    [
      np.mean(differences[rng.integers(0, count, count)])
      for _ in range(resamples)
    ]
  )
  low, high = np.quantile(means, [0.025, 0.975])
  return Comparison(
    runs=tuple(tuple(map(float, np.mean(x, 1))) for x in (first, second)),
    difference=float(np.mean(differences)),
    interval=(float(low), float(high)),
    probability=float(np.mean(means <= 0)),
    better=int(np.sum(differences > 0)),
    worse=int(np.sum(differences < 0)),
  )


def fifths(confidence: np.ndarray, scores: np.ndarray) -> list[float]:
  """The mean score of each fifth of the images, the least confident first."""
  order = np.argsort(confidence, kind='stable')
  return [float(np.mean(x)) for x in np.array_split(scores[order], _FIFTHS)]


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
  """Spearman's rho; equal values share the mean of their ranks."""

  def ranks(values):
    _, inverse, counts = np.unique(
      values, return_inverse=True, return_counts=True
    )
    return (np.cumsum(counts) - (counts + 1) / 2)[inverse]

  return float(np.corrcoef(ranks(x), ranks(y))[0, 1])


def log_probs(path: pathlib.Path) -> dict[str, float] | None:
  """Image -> log-probability of a word of its caption; None if unknown."""
  content = json.loads(path.read_text()) if path.suffix == '.json' else None
  if not isinstance(content, list) or not all(
    isinstance(line, dict) and 'log_prob' in line for line in content
  ):
    return None
  # END is a word, too.
  return {
    str(line['image_id']): line['log_prob'] / (len(line['caption'].split()) + 1)
    for line in content
  }


def _read(
  files: Sequence[pathlib.Path], references: Mapping[str, Sequence[str]]
) -> list[dict[str, str]]:
  """The first caption of each image of each file.

  Raises:
    ValueError: the files have captions of other images.
  """
  found = []
  for path in files:
    captions = caption_files.read(path)
    unknown = [image for image in captions if image not in references]
    if unknown:
      raise ValueError(f'{path}: {unknown[0]} has no references')
    if found and captions.keys() != found[0].keys():
      raise ValueError(f'{path} and {files[0]} have captions of other images')
    found.append({image: texts[0] for image, texts in captions.items()})
  return found


def main(argv: Sequence[str] | None = None):
  """Runs the command."""
  parser = errors.Parser(description=__doc__)
  parser.add_argument('references', help='file of the human captions')
  parser.add_argument(
    '--first',
    nargs='+',
    type=pathlib.Path,
    required=True,
    help='files of captions, one for each run',
  )
  parser.add_argument(
    '--second',
    nargs='+',
    type=pathlib.Path,
    default=[],
    help='files of captions of the runs to compare with',
  )
  parser.add_argument(
    '--metric',
    choices=('CIDEr', 'ROUGE-L', 'BLEU-1', 'BLEU-2', 'BLEU-3', 'BLEU-4'),
    default='CIDEr',
    help='score of an image (default: CIDEr)',
  )
  parser.add_argument(
    '--resamples', type=int, default=10_000, help='default: 10,000'
  )
  args = parser.parse_args(paths.arguments(parser, argv))
  files = [*args.first, *args.second]
  try:
    if args.resamples < 1:
      raise ValueError(f'--resamples={args.resamples} must be at least 1')
    references = caption_files.read(args.references)
    captions = _read(files, references)
    references = {image: references[image] for image in captions[0]}
    scores = np.array(
      [image_scores(references, run, args.metric) for run in captions]
    )
    for path, run in zip(files, scores, strict=True):
      print(f'{path}: {args.metric} {np.mean(run):.4f}')
      known = log_probs(path)
      if known is not None and len(run) >= _FIFTHS:
        confidence = np.array([known[image] for image in references])
        means = ', '.join(f'{x:.3f}' for x in fifths(confidence, run))
        rho = rank_correlation(confidence, run)
        print(
          '  by fifths of log-probability a word, the lowest first: '
          f'{means}; rank correlation {rho:.2f}'
        )
  except (OSError, ValueError) as error:
    parser.error(str(error))
  if args.second:
    split = len(args.first)
    found = paired_bootstrap(
      scores[:split], scores[split:], resamples=args.resamples
    )
    low, high = found.interval
    print(
      f'first - second: {found.difference:+.4f}, 95 % of resamples of '
      f'{len(references)} images in [{low:+.4f}, {high:+.4f}], not better in '
      f'{100 * found.probability:.1f} %; better at {found.better}, worse at '
      f'{found.worse}'
    )
    for name, runs in zip(('first', 'second'), found.runs, strict=True):
      if len(runs) > 1:
        print(f'{name}: deviation of runs {np.std(runs, ddof=1):.4f}')


if __name__ == '__main__':
  errors.run(main)
