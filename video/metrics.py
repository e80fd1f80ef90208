"""Scores of classification, of gesture streams and of tracking; NumPy only.

Boxes are x, y of the upper left corner, width and height, in pixels.

Axes: N examples, C classes, T frames.
"""

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import numpy as np

OVERLAPS = np.linspace(0, 1, 21)  # Thresholds of the success curve.
DISTANCES = np.arange(51)  # Thresholds of the precision curve, in pixels.
_PRECISION_AT = 20
_SUCCESS_AT = 10  # Index of 0.5 in OVERLAPS.


# Classification.


def top_k_accuracy(scores: np.ndarray, labels: np.ndarray, k: int = 1) -> float:
  """The share of examples whose class is among the k with the best scores.

  Args:
    scores: f32[N, C]. Among equal scores the first class is the best, as for
      `argmax`.
    labels: int[N].
    k: from 1 to C.
  """
  if not np.isfinite(scores).all():
    raise ValueError(
      'some scores are not finite: the model diverged, try a lower learning '
      'rate'
    )
  if not 1 <= k <= scores.shape[1]:
    raise ValueError(f'k={k} must be from 1 to {scores.shape[1]}, the classes')
  order = np.argsort(-scores, axis=1, kind='stable')[:, :k]
  return float((order == labels[:, None]).any(axis=1).mean())


def confusion_matrix(
  labels: np.ndarray, predictions: np.ndarray, num_classes: int
) -> np.ndarray:
  """Number of examples by true (row) and predicted class: int64[C, C]."""
  matrix = np.zeros((num_classes, num_classes), np.int64)
  np.add.at(matrix, (np.asarray(labels), np.asarray(predictions)), 1)
  return matrix


def per_class_accuracy(matrix: np.ndarray) -> np.ndarray:
  """The share of each class that is predicted correctly: f64[C].

  NaN for a class without examples; its `np.nanmean` is the mean class accuracy.

  Args:
    matrix: int[C, C], of `confusion_matrix`.
  """
  counts = matrix.sum(axis=1)
  right = np.diagonal(matrix)
  return np.where(counts > 0, right / np.maximum(counts, 1), np.nan)


# Streams of gestures.


def edit_distance(first: Sequence[Any], second: Sequence[Any]) -> int:
  """Insertions, deletions and replacements between two lists (Levenshtein)."""
  row = list(range(len(second) + 1))
  for i, a in enumerate(first, start=1):
    diagonal, row[0] = row[0], i
    for j, b in enumerate(second, start=1):
      best = min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
      diagonal, row[j] = row[j], best
  return row[-1]


def stream_scores(
  references: Sequence[Sequence[int]], predictions: Sequence[Sequence[int]]
) -> dict[str, float]:
  """Scores of the gestures that are recognised in streams.

  Returns:
    'edit_accuracy': 1 - edit distance / number of true gestures, both summed
      over the streams; negative if there are more errors than gestures.
      'exact': the share of streams without an error.
  """
  pairs = list(zip(references, predictions, strict=True))
  num_gestures = sum(len(reference) for reference, _ in pairs)
  if not num_gestures:
    raise ValueError('the references have no gestures: pass streams with some')
  distances = [edit_distance(*pair) for pair in pairs]
  return {
    'edit_accuracy': 1 - sum(distances) / num_gestures,
    'exact': float(np.mean([distance == 0 for distance in distances])),
  }


# Tracking.


def overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """Intersection over union of boxes: f32[..., 4] twice -> f64[...].

  0 if a box is empty or NaN.
  """
  first, second = np.asarray(first, float), np.asarray(second, float)
  low = np.maximum(first[..., :2], second[..., :2])
  high = np.minimum(
    first[..., :2] + first[..., 2:], second[..., :2] + second[..., 2:]
  )
  common = np.maximum(high - low, 0).prod(axis=-1)
  union = _area(first) + _area(second) - common
  usable = (_area(first) > 0) & (_area(second) > 0)
  return np.where(usable, common, 0) / np.where(usable, union, 1)


def centre_distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """Pixels between the centres of boxes: f32[..., 4] twice -> f64[...]."""
  first, second = np.asarray(first, float), np.asarray(second, float)
  offsets = first[..., :2] - second[..., :2]
  offsets = offsets + (first[..., 2:] - second[..., 2:]) / 2
  return np.sqrt((offsets**2).sum(axis=-1))


def success_curve(overlaps: np.ndarray) -> np.ndarray:
  """The share of frames that overlap more than `OVERLAPS`: f64[T] -> f64[21].

  Strictly more, as in the OTB toolkits: at a threshold of 1 the share is 0, so
  that a perfect tracker has an area under the curve of 20/21.
  """
  return (np.asarray(overlaps)[:, None] > OVERLAPS).mean(axis=0)


def precision_curve(distances: np.ndarray) -> np.ndarray:
  """The share of frames within `DISTANCES`: f64[T] -> f64[51]."""
  return (np.asarray(distances)[:, None] <= DISTANCES).mean(axis=0)


@dataclasses.dataclass(frozen=True)
class OnePass:
  """Scores of one-pass evaluation: means over sequences (Wu et al. 2013).

  Attributes:
    success: f64[21], the success curve.
    precision: f64[51], the precision curve.
    mean_overlap: the mean overlap, the exact area under a success curve of all
      thresholds. The scores that the benchmark OTB publishes by sequence are
      these, with the first frame counted.
    num_sequences: number of sequences with a frame that counts.
  """

  success: np.ndarray
  precision: np.ndarray
  mean_overlap: float
  num_sequences: int

  def numbers(self) -> dict[str, float]:
    """The area under the success curve, the mean overlap and two values."""
    return {
      'success_auc': float(self.success.mean()),
      'mean_overlap': self.mean_overlap,
      'success_rate_50': float(self.success[_SUCCESS_AT]),
      'precision_20px': float(self.precision[_PRECISION_AT]),
    }


def one_pass(
  predictions: Sequence[np.ndarray],
  truths: Sequence[np.ndarray],
  *,
  counted: Sequence[np.ndarray] | None = None,
  count_first: bool = False,
) -> OnePass:
  """Scores trackers that start once, in the first frame.

  Args:
    predictions: f32[T, 4] for each sequence; T may differ.
    truths: likewise. Frames whose box is empty or NaN do not count.
    counted: bool[T] for each sequence, the frames that count; None is all.
    count_first: count the first frame, in which the box is given. Published
      numbers of OTB count it, which favours short sequences.
  """
  if counted is None:
    counted = [np.ones(len(truth), bool) for truth in truths]
  successes, precisions, means = [], [], []
  for boxes, truth, mask in zip(predictions, truths, counted, strict=True):
    if not len(boxes) == len(truth) == len(mask):
      raise ValueError(
        f'a sequence has {len(truth)} true boxes, {len(boxes)} predicted ones '
        f'and a mask of {len(mask)}: pass one of each per frame'
      )
    mask = mask & (_area(np.asarray(truth, float)) > 0)
    mask[0] &= count_first
    if mask.any():
      overlaps = overlap(boxes, truth)[mask]
      successes.append(success_curve(overlaps))
      means.append(overlaps.mean())
      precisions.append(precision_curve(centre_distance(boxes, truth)[mask]))
  if not successes:
    raise ValueError('no frame counts: pass sequences of at least two frames')
  return OnePass(
    np.mean(successes, axis=0),
    np.mean(precisions, axis=0),
    float(np.mean(means)),
    len(successes),
  )


def after_hidden(hidden: np.ndarray) -> np.ndarray:
  """Frames without occlusion after the first one with it: bool[T] twice."""
  return np.logical_or.accumulate(hidden) & ~hidden


@dataclasses.dataclass(frozen=True)
class Restarted:
  """Results of a tracker that is restarted after each failure.

  Attributes:
    boxes: f64[T, 4]; NaN between a failure and the next start.
    overlaps: f64[T], of the boxes with the truth; NaN likewise.
    starts: frames in which a box is given.
    failures: frames in which the overlap is 0.
  """

  boxes: np.ndarray
  overlaps: np.ndarray
  starts: tuple[int, ...]
  failures: tuple[int, ...]

  def numbers(self, burn_in: int = 10) -> dict[str, float]:
    """The number of 'failures', and 'accuracy', the mean overlap.

    The accuracy leaves out the `burn_in` frames after each start, which are
    easy, and the failures. It is NaN if no frame is left.
    """
    usable = np.isfinite(self.overlaps)
    for start in self.starts:
      usable[start : start + burn_in] = False
    usable[list(self.failures)] = False
    kept = self.overlaps[usable]
    return {
      'failures': float(len(self.failures)),
      'accuracy': float(kept.mean()) if len(kept) else float('nan'),
    }


def with_restarts(
  begin: Callable[[np.ndarray, np.ndarray], Any],
  step: Callable[[Any, np.ndarray], tuple[Any, np.ndarray]],
  frames: Sequence[np.ndarray],
  truth: np.ndarray,
  *,
  wait: int = 5,
  may_start: np.ndarray | None = None,
) -> Restarted:
  """Runs a tracker as the VOT challenge did (Kristan et al. 2016).

  The tracker fails when its box does not overlap the true one, and restarts
  `wait` frames later. The number of failures measures its robustness.

  Args:
    begin: (frame, box f32[4]) -> state.
    step: (state, frame) -> (state, box).
    frames: uint8[T, H, W, 3], or one frame after another.
    truth: f32[T, 4]. In frames whose box is empty or NaN the tracker neither
      fails nor starts.
    wait: frames from a failure to the next start.
    may_start: bool[T], frames in which the tracker may start; None for all.
  """
  truth = np.asarray(truth, float)
  usable = _area(truth) > 0
  boxes = np.full(truth.shape, np.nan)
  overlaps = np.full(len(truth), np.nan)
  starts, failures = [], []
  state, next_start = None, 0
  for t, frame in enumerate(frames):
    if state is None:
      if t < next_start or not usable[t]:
        continue
      if may_start is not None and not may_start[t]:
        continue
      state = begin(frame, truth[t].astype(np.float32))
      boxes[t] = truth[t]
      starts.append(t)
    else:
      state, boxes[t] = step(state, frame)
    if usable[t]:
      overlaps[t] = overlap(boxes[t], truth[t])
      if overlaps[t] == 0:
        failures.append(t)
        state, next_start = None, t + wait
  return Restarted(boxes, overlaps, tuple(starts), tuple(failures))


def ranking_quality(scores: np.ndarray, labels: np.ndarray) -> float:
  """The area under the receiver operating characteristic (AUROC).

  The probability that a random positive has a larger score than a random
  negative; a tie counts half.

  Args:
    scores: f64[N].
    labels: bool[N]. NaN unless there are both kinds.
  """
  scores, labels = np.asarray(scores, float), np.asarray(labels, bool)
  positives, negatives = scores[labels], np.sort(scores[~labels])
  if not len(positives) or not len(negatives):
    return float('nan')
  below = np.searchsorted(negatives, positives, side='left')
  up_to = np.searchsorted(negatives, positives, side='right')
  return float((below + up_to).mean() / 2 / len(negatives))


def calibration_error(
  probabilities: np.ndarray, labels: np.ndarray, bins: int = 10
) -> float:
  """The expected calibration error (Guo et al. 2017), bins of equal width.

  The mean difference between the probability that is stated and the share of
  positives, over the bins, weighted by their number of examples.

  Args:
    probabilities: f64[N], from 0 to 1.
    labels: bool[N].
    bins: number of bins.
  """
  probabilities = np.asarray(probabilities, float)
  index = np.minimum((probabilities * bins).astype(int), bins - 1)
  counts = np.bincount(index, minlength=bins)
  stated = np.bincount(index, probabilities, minlength=bins)
  true = np.bincount(index, np.asarray(labels, float), minlength=bins)
  return float(np.abs(stated - true).sum() / counts.sum())


def certainty_scores(
  probabilities: Sequence[np.ndarray],
  overlaps: Sequence[np.ndarray],
  hidden: Sequence[np.ndarray],
  on_target: float,
) -> dict[str, float]:
  """Scores of the probabilities that boxes are on their targets.

  The first frames, in which the box is given, do not count.

  Args:
    probabilities: for each sequence f64[T].
    overlaps: for each sequence f64[T], of the box with the true one.
    hidden: for each sequence bool[T], the target is not visible.
    on_target: a box with a larger overlap is on a visible target.

  Returns:
    'certainty/auroc' (of boxes on the target), 'certainty/auroc_hidden' (of
    visible targets, wherever the box is), 'certainty/calibration_error' and
    'certainty/brier', the mean squared error.
  """
  stated, overlaps, hidden = (
    np.concatenate([np.asarray(x)[1:] for x in parts])
    for parts in (probabilities, overlaps, hidden)
  )
  right = (overlaps > on_target) & ~hidden
  return {
    'certainty/auroc': ranking_quality(stated, right),
    'certainty/auroc_hidden': ranking_quality(stated, ~hidden),
    'certainty/calibration_error': calibration_error(stated, right),
    'certainty/brier': float(((stated - right) ** 2).mean()),
  }


def _area(boxes: np.ndarray) -> np.ndarray:
  """Areas of boxes f64[..., 4] -> f64[...]; 0 if empty or NaN."""
  sides = np.where(np.isfinite(boxes).all(axis=-1)[..., None], boxes, 0)
  return np.maximum(sides[..., 2:], 0).prod(axis=-1)
