"""Measures generated drawings against real ones.

The measures compare two sets of features (features.py), one of real and one of
generated drawings:

- precision, the share of the generated that lie among real ones, and recall,
  the share of the real that lie among generated ones (Kynkaanniemi et al. 2019,
  "Improved Precision and Recall Metric for Assessing Generative Models");
- coverage, the share of the real that have a generated one nearby (Naeem et al.
  2020, "Reliable Fidelity and Diversity Metrics for Generative Models"), since
  recall is high for scattered noise, too;
- the accuracy of a classifier that is to tell the sets apart, on drawings that
  it was not fitted to (Lopez-Paz and Oquab 2017, "Revisiting Classifier
  Two-Sample Tests"): 0.5 if it cannot;
- the distance of the Gaussians fitted to both (Frechet; Heusel et al. 2017);
- the distance to the nearest drawing of the training split: do samples copy?
- of several categories, the share that the network takes for the category which
  they were made as.

Axes: n real, m generated drawings, D features, K neighbours.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging

from sketch_rnn import examples as examples_lib
from sketch_rnn import features as features_lib
from sketch_rnn import generation
from sketch_rnn import inference
from sketch_rnn import latent
from training import app
from training import batching

# Of Kynkaanniemi et al.
_NEIGHBOURS = 3
# L2 penalty of the classifier's weights, times the number of drawings.
_PENALTY = 0.01
# Share of new real drawings that count as copies of the training split.
_COPIES = 0.01
# Drawings of the training split that the features are trained on.
_MAX_TRAINING = 20_000


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Squared Euclidean distances: f[n, D], f[m, D] -> f64[n, m]."""
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  norms = np.sum(a**2, axis=1)[:, None] + np.sum(b**2, axis=1)
  return np.maximum(norms - 2 * a @ b.T, 0)


def precision_and_recall(
  real: np.ndarray, generated: np.ndarray, neighbours: int = _NEIGHBOURS
) -> tuple[float, float]:
  """Precision and recall of Kynkaanniemi et al. (2019).

  A point lies among a set if it is no farther from a member than this is from
  its K-th nearest neighbour in the set. Precision is the share of the generated
  points among the real ones, recall the share of the real among the generated.

  Args:
    real: f[n, D].
    generated: f[m, D]; n = m makes precision and recall comparable.
    neighbours: K.

  Raises:
    ValueError: a set has no K neighbours.
  """
  return _share_among(generated, real, neighbours), _share_among(
    real, generated, neighbours
  )


def _share_among(
  points: np.ndarray, members: np.ndarray, neighbours: int
) -> float:
  """The share of the points that lie among the members."""
  inside = squared_distances(points, members) <= _radii(members, neighbours)
  return float(np.mean(np.any(inside, axis=1)))


def _radii(members: np.ndarray, neighbours: int) -> np.ndarray:
  """Squared distance of each to its K-th nearest neighbour: f64[n]."""
  if len(members) <= neighbours:
    raise ValueError(
      f'{len(members)} drawings have no {neighbours} neighbours each: '
      'measure more'
    )
  own = squared_distances(members, members)
  # Column 0 is the distance to itself.
  return np.partition(own, neighbours, axis=1)[:, neighbours]


def coverage(
  real: np.ndarray, generated: np.ndarray, neighbours: int = _NEIGHBOURS
) -> float:
  """The share of the real points that have a generated one nearby.

  Nearby is no farther than the K-th nearest real neighbour (Naeem et al. 2020).
  The arguments are those of `precision_and_recall`.
  """
  radii = _radii(real, neighbours)
  nearby = squared_distances(real, generated) <= radii[:, None]
  return float(np.mean(np.any(nearby, axis=1)))


def frechet_distance(real: np.ndarray, generated: np.ndarray) -> float:
  """Frechet distance of the Gaussians fitted to two sets: f[n, D], f[m, D].

  |mu - mu'|^2 + tr(C + C' - 2 (C^1/2 C' C^1/2)^1/2)
  """
  real, generated = np.float64(real), np.float64(generated)
  means = real.mean(axis=0) - generated.mean(axis=0)
  first, second = (np.cov(x, rowvar=False) for x in (real, generated))
  values, vectors = np.linalg.eigh(first)
  root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
  both = np.linalg.eigvalsh(root @ second @ root)
  trace = np.trace(first) + np.trace(second)
  trace -= 2 * np.sum(np.sqrt(np.maximum(both, 0)))
  return float(means @ means + trace)


@dataclasses.dataclass(frozen=True)
class TwoSampleTest:
  """The result of a classifier two-sample test.

  Attributes:
    accuracy: on drawings that the classifier was not fitted to; 0.5 if the sets
      cannot be told apart, 1 if they can.
    standard_error: of the accuracy, if the sets had the same distribution.
  """

  accuracy: float
  standard_error: float


def two_sample_test(
  real: np.ndarray, generated: np.ndarray, seed: int = 0
) -> TwoSampleTest:
  """Tells two sets apart by logistic regression: f[n, D], f[m, D].

  Each set is split into halves at random. The classifier that is fitted to one
  pair of halves is scored on the other, and vice versa. The sets are cut to the
  same size, so that guessing is right in half of the cases.

  Args:
    real: features of real drawings.
    generated: features of generated ones.
    seed: random seed of the halves.
  """
  count = min(len(real), len(generated)) // 2 * 2
  rng = np.random.default_rng(seed)
  sets = [rng.permutation(np.float64(x))[:count] for x in (real, generated)]
  halves = [np.concatenate([part[side::2] for part in sets]) for side in (0, 1)]
  labels = np.repeat([0.0, 1.0], count // 2)
  right = [
    (_fit(halves[side], labels)(halves[1 - side]) > 0) == (labels > 0.5)
    for side in (0, 1)
  ]
  return TwoSampleTest(
    accuracy=float(np.mean(right)),
    standard_error=float(0.5 / np.sqrt(2 * count)),
  )


def _fit(x: np.ndarray, labels: np.ndarray):
  """Fits a logistic regression by Newton's method; returns its logits.

  Its inputs are the standardised features and their squares, so that it sees
  different variances as well as different means.
  """
  mean, deviation = x.mean(axis=0), x.std(axis=0) + 1e-9

  def inputs(x):
    x = np.clip((x - mean) / deviation, -5, 5)
    return np.concatenate([x, x**2 - 1, np.ones((len(x), 1))], axis=1)

  x = inputs(x)
  penalty = np.full(x.shape[1], _PENALTY * len(x))
  penalty[-1] = 0
  weights = np.zeros(x.shape[1])
  for _ in range(20):
    share = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
    gradient = x.T @ (share - labels) + penalty * weights
    curvature = (x.T * (share * (1 - share))) @ x + np.diag(penalty + 1e-6)
    weights = weights - np.linalg.solve(curvature, gradient)
  return lambda x: inputs(x) @ weights


def nearest(points: np.ndarray, members: np.ndarray) -> np.ndarray:
  """Distances to the nearest members: f[n, D], f[m, D] -> f64[n]."""
  return np.sqrt(np.min(squared_distances(points, members), axis=1))


def copying(
  generated: np.ndarray, real: np.ndarray, training: np.ndarray
) -> tuple[float, float]:
  """Compares the distances to the training split with those of new drawings.

  Args:
    generated: f[m, D].
    real: f[n, D], real drawings that are not of the training split.
    training: f[k, D], its features.

  Returns:
    The median distance of the generated drawings to the nearest training
    drawing, divided by that of the real ones: about 1 if they are as new as
    these, 0 if they are copies. And the share of the generated drawings that
    are nearer than the nearest 1 % of the real ones: about 0.01 if they are as
    new as these, 1 if they are copies.
  """
  own, others = nearest(generated, training), nearest(real, training)
  return (
    float(np.median(own) / max(np.median(others), 1e-9)),
    float(np.mean(own < np.quantile(others, _COPIES))),
  )


def largest_gap(a: np.ndarray, b: np.ndarray) -> float:
  """Largest difference of two distribution functions (Kolmogorov, Smirnov)."""
  values = np.concatenate([a, b])
  below = [
    np.searchsorted(np.sort(x), values, side='right') / len(x) for x in (a, b)
  ]
  return float(np.max(np.abs(below[0] - below[1])))


# Sets of drawings.


@dataclasses.dataclass(frozen=True)
class Reference:
  """Real drawings and their features, to which others are compared.

  Attributes:
    features: the trained network.
    drawings: of the split that is measured against, in pixels.
    real: f32[n, D], their features.
    training: f32[k, D], those of the training split.
  """

  features: features_lib.Features
  drawings: Sequence[np.ndarray]
  real: np.ndarray
  training: np.ndarray

  def scores(
    self, drawings: Sequence[np.ndarray], labels: np.ndarray | None = None
  ) -> dict[str, float]:
    """All measures of one set of drawings, empty ones among them.

    Args:
      drawings: of the set.
      labels: i32[n], their categories; None where they have none.

    Returns:
      `precision`, `recall`, `coverage`, `frechet`; `two_sample` with its
      `standard_error`; `nearest` and `copies` of `copying`; `points` and
      `strokes`, means for a drawing; `points_gap` and `strokes_gap`, the
      `largest_gap` to the real ones; `empty`, the share of drawings without a
      line, that is of less than two points; and with labels `accuracy`, the
      share that the network classifies as their label.
    """
    found = self.features(drawings)
    precision, recall = precision_and_recall(self.real, found)
    told_apart = two_sample_test(self.real, found)
    distance, copies = copying(found, self.real, self.training)
    sizes, real_sizes = _sizes(drawings), _sizes(self.drawings)
    recognized = {}
    if labels is not None:
      right = self.features.classify(drawings) == labels
      recognized['accuracy'] = float(np.mean(right))
    return {
      'precision': precision,
      'recall': recall,
      'coverage': coverage(self.real, found),
      'two_sample': told_apart.accuracy,
      'standard_error': told_apart.standard_error,
      'frechet': frechet_distance(self.real, found),
      'nearest': distance,
      'copies': copies,
      'points': float(np.mean(sizes[0])),
      'strokes': float(np.mean(sizes[1])),
      'points_gap': largest_gap(sizes[0], real_sizes[0]),
      'strokes_gap': largest_gap(sizes[1], real_sizes[1]),
      'empty': float(np.mean(sizes[0] < 2)),
      **recognized,
    }


def _sizes(drawings: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
  """The numbers of points and of strokes of each drawing: i64[n] twice.

  A last stroke need not end with a lifted pen.
  """
  points = np.array([len(drawing) for drawing in drawings])
  lines = [
    int(np.sum(drawing[:-1, 2])) + (len(drawing) > 0) for drawing in drawings
  ]
  return points, np.array(lines)


def check(config: ml_collections.ConfigDict):
  """Raises a ValueError if the temperatures of `quality` cannot be sampled."""
  if not config.temperatures:
    raise ValueError('quality.temperatures is empty: pass one at least')
  for temperature in config.temperatures:
    generation.Sampling(temperature)


def measure(
  sketcher: inference.Sketcher,
  config: ml_collections.ConfigDict,
  split: str,
  directory: pathlib.Path,
) -> dict[str, dict[str, float]]:
  """The scores of generated sets of drawings, and of other real ones.

  Args:
    sketcher: the trained model.
    config: of its run: `seed`, `data` and `quality`.
    split: 'validation' or 'test', which is measured against; its size is that
      of the sets, unless `quality.max_drawings` is less.
    directory: for the feature network, which is trained once.

  Returns:
    `Reference.scores` by the name of the set, in the order of the table: real
    drawings of the other split, samples from the prior (or of a model without
    latent vectors) at each temperature and, at the first temperature,
    reconstructions of the split and the drawings half-way between each of its
    drawings and the next. Nothing if the split is too small.

  Raises:
    Stopped: SIGTERM came.
  """
  examples = sketcher.examples
  other = {'test': 'validation', 'validation': 'test'}[split]
  training, real, new = (
    _some(examples_lib.load_split(config.data, name, examples), count)
    for name, count in (
      ('train', _MAX_TRAINING),
      (split, config.quality.max_drawings),
      (other, config.quality.max_drawings),
    )
  )
  if min(len(real), len(new)) <= _NEIGHBOURS:
    logging.warning(
      'no measures of quality: %s and %s drawings are too few',
      len(real),
      len(new),
    )
    return {}
  features = features_lib.load_or_train(
    directory,
    _drawings(training),
    _labels(training, examples),
    features_lib.Settings(
      scale=examples.scale,
      length=examples.length,
      num_classes=len(examples.categories),
      num_steps=config.quality.num_steps,
    ),
    fingerprint=f'{examples_lib.fingerprint(config.data)} {len(training)}',
  )
  reference = Reference(
    features,
    _drawings(real),
    features(_drawings(real)),
    features(_drawings(training)),
  )
  generated = _generated(
    sketcher,
    real,
    jax.random.key(config.seed),
    tuple(config.quality.temperatures),
  )
  several = len(examples.categories) > 1
  found = {
    f'real, {other}': reference.scores(
      _drawings(new), _labels(new, examples) if several else None
    )
  }
  for name, (make, labels) in generated.items():
    app.raise_if_stopping()
    found[name] = reference.scores(make(), labels if several else None)
  return found


def _generated(
  sketcher: inference.Sketcher,
  real: Sequence[dict[str, Any]],
  key: jax.Array,
  temperatures: Sequence[float],
) -> dict[str, tuple[Callable[[], list[np.ndarray]], np.ndarray | None]]:
  """The generated sets by name, each made when it is called, and their labels.

  A model without classes does not know what it samples or what lies between two
  drawings; its reconstructions are of the category of the real drawing.
  """
  shown = _labels(real, sketcher.examples)
  labels = shown if sketcher.classes else None
  sets = {
    f'samples, {temperature:g}': (
      functools.partial(
        sketcher.sample,
        len(real),
        key=key,
        temperature=temperature,
        labels=labels,
      ),
      labels,
    )
    for temperature in temperatures
  }
  if sketcher.model.conditional:
    mean, _ = sketcher.encode(_drawings(real))
    between = [
      latent.slerp(a, b, 0.5)
      for a, b in zip(mean, np.roll(mean, -1, 0), strict=True)
    ]
    for name, z, made_as in (
      ('reconstructions', mean, shown),
      ('interpolations', np.stack(between), labels),
    ):
      sets[f'{name}, {temperatures[0]:g}'] = (
        functools.partial(
          sketcher.decode,
          z,
          key=key,
          temperature=temperatures[0],
          labels=labels,
        ),
        made_as,
      )
  return sets


def _some(source: batching.Source, count: int) -> list[dict[str, Any]]:
  """At most `count` records, evenly spaced."""
  indices = np.linspace(0, len(source) - 1, min(len(source), count))
  return [source[int(i)] for i in indices.round()]


def _drawings(records: Sequence[dict[str, Any]]) -> list[np.ndarray]:
  return [record['strokes'] for record in records]


def _labels(
  records: Sequence[dict[str, Any]], examples: examples_lib.Examples
) -> np.ndarray:
  """The categories of records: i32[n]."""
  return np.array(
    [examples.categories.index(record['category']) for record in records],
    np.int32,
  )


# Columns of the table: the score, its heading and its format.
_COLUMNS = (
  ('precision', 'precision', '.3f'),
  ('recall', 'recall', '.3f'),
  ('coverage', 'coverage', '.3f'),
  ('two_sample', 'told apart', '.3f'),
  ('frechet', 'Frechet', '.3f'),
  ('nearest', 'nearest', '.2f'),
  ('copies', 'copies', '.3f'),
  ('points', 'points', '.1f'),
  ('strokes', 'strokes', '.1f'),
  ('empty', 'empty', '.3f'),
  ('accuracy', 'accuracy', '.3f'),
)


def table(scores: Mapping[str, Mapping[str, float]]) -> str:
  """The scores of `measure` as text, a line for each set.

  Columns that no set has are left out; a set without a score has a dash.
  """
  width = max(map(len, scores))
  columns = [x for x in _COLUMNS if any(x[0] in row for row in scores.values())]
  lines = [' '.join([' ' * width, *(f'{x[1]:>10}' for x in columns)])]
  for name, row in scores.items():
    numbers = [
      f'{format(row[field], form) if field in row else "-":>10}'
      for field, _, form in columns
    ]
    lines.append(' '.join([f'{name:{width}}', *numbers]))
  return '\n'.join(lines)
