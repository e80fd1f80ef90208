"""Scores of a tracker and of baselines that learn nothing.

Axes: B sequences, T frames.
"""

import pathlib
import time
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from training import batching
from training import console
from training import parallel
from training import prediction
from training import released
from training import results
from video import figures
from video import metrics
from video.tracking import baselines
from video.tracking import correlation
from video.tracking import examples
from video.tracking import inference
from video.tracking import losses

TRACKER = 'tracker'  # Name of the trained tracker in tables and figures.
_SHOWN = 4  # Number of sequences in a figure.
_BLACK = 10  # A frame with a smaller mean is black.

# Scores of one pass.
METRICS = ('success_auc', 'mean_overlap', 'success_rate_50', 'precision_20px')
# Metrics that can rank checkpoints.
RANKING = (*METRICS, 'certainty/auroc')


def check_metric(name: str):
  """Raises a ValueError unless checkpoints can be ranked by this metric."""
  if name not in RANKING:
    raise ValueError(f'best_metric={name!r} is none of {", ".join(RANKING)}')


def scores(
  boxes: Sequence[np.ndarray],
  truths: Sequence[np.ndarray],
  hidden: Sequence[np.ndarray],
  brightness: Sequence[np.ndarray],
) -> dict[str, float]:
  """Scores of one pass, over all frames and over parts of them.

  The parts are the frames before, while ('hidden') and after the target is
  hidden. Those after it are scored by the kind of occlusion too: 'blackout' if
  the hidden frames are black, else 'screen'.

  Args:
    boxes: for each sequence f32[T, 4], the boxes of the tracker.
    truths: for each sequence f32[T, 4], the true boxes.
    hidden: for each sequence bool[T].
    brightness: for each sequence f32[T], the means of the frames, 0 to 255.
  """
  found = metrics.one_pass(boxes, truths).numbers()
  parts = {
    'before': [~np.logical_or.accumulate(mask) for mask in hidden],
    'hidden': hidden,
    'after': [metrics.after_hidden(mask) for mask in hidden],
  }
  black = [
    (means[mask] < _BLACK).all()
    for means, mask in zip(brightness, hidden, strict=True)
  ]
  for name, kind in (('blackout', True), ('screen', False)):
    parts[name] = [
      mask & (is_black == kind)
      for mask, is_black in zip(parts['after'], black, strict=True)
    ]
  for name, counted in parts.items():
    if any(mask[1:].any() for mask in counted):
      part = metrics.one_pass(boxes, truths, counted=counted).numbers()
      found |= {f'{name}/{metric}': value for metric, value in part.items()}
  return found


class Evaluator:
  """Scores variables on one split; compiles once."""

  def __init__(
    self,
    source: batching.Source,
    tracker: inference.Network,
    *,
    batch_size: int,
  ):
    """Prepares the batches.

    Args:
      source: from `examples.open_split`.
      tracker: the network.
      batch_size: over all hosts.
    """
    self._batches = batching.evaluation_batches(
      source, examples.evaluation, batch_size=batch_size
    )
    self._step = parallel.predict_step(
      lambda variables, batch: {
        **follow(tracker, variables, batch['frames'], batch['boxes'][:, 0]),
        'truth': batch['boxes'],
        'hidden': batch['hidden'],
        'brightness': batch['frames'].mean(axis=(2, 3, 4)),
      }
    )

  def __call__(
    self, variables: Any
  ) -> tuple[dict[str, float], list[np.ndarray]]:
    """The scores of the whole split, and the boxes f32[T, 4] of each sequence.

    Raises:
      Stopped: the process received SIGTERM.
    """
    found = list(
      prediction.predict(self._step, variables, batching.read(self._batches))
    )
    boxes, *known = (
      [record[name] for record in found]
      for name in ('boxes', 'truth', 'hidden', 'brightness')
    )
    all_scores = scores(boxes, *known)
    if 'logits' in found[0]:
      truths, hidden, _ = known
      all_scores |= metrics.certainty_scores(
        [_probability(record['logits']) for record in found],
        [metrics.overlap(*pair) for pair in zip(boxes, truths, strict=True)],
        hidden,
        losses.ON_TARGET,
      )
    # JSON has no NaN.
    return {k: v for k, v in all_scores.items() if not np.isnan(v)}, boxes


def follow(
  tracker: inference.Network, variables: Any, frames: jax.Array, box: jax.Array
) -> dict[str, jax.Array]:
  """The `boxes` of a network, and the `logits` of its certainty if it has any.

  uint8[B, T, H, W, 3], f32[B, 4] -> f32[B, T, 4] and f32[B, T].
  """
  if isinstance(tracker, correlation.Tracker):
    found = tracker.apply(variables, frames, box)
    return dict(zip(('boxes', 'logits'), found, strict=True))
  return {'boxes': tracker.apply(variables, frames, box, method='follow')}


def _probability(logits: np.ndarray) -> np.ndarray:
  return 1 / (1 + np.exp(-logits.astype(float)))


def show(
  source: Sequence[dict[str, Any]], boxes: Sequence[np.ndarray]
) -> np.ndarray:
  """Strips of the first sequences with true boxes and those of the tracker.

  Args:
    source: from `examples.open_split`.
    boxes: for each of its sequences f32[T, 4].

  Returns:
    uint8[H, W, 3].
  """
  strips = []
  for i in range(min(len(source), len(boxes), _SHOWN)):
    record = source[i]
    tracks = {'truth': record['boxes'], TRACKER: boxes[i]}
    strips.append(figures.overlay_strip(record['frames'], tracks))
  return np.concatenate(strips)


def baseline_scores(
  source: Sequence[dict[str, Any]], baseline: baselines.FollowsFrames
) -> dict[str, float]:
  """The scores of a baseline on a whole split, see `scores`."""
  boxes, truths, hidden, brightness = [], [], [], []
  for i in range(len(source)):
    record = examples.evaluation(source[i])
    first = record['boxes'][0]
    boxes.append(baselines.follow(baseline, record['frames'], first))
    truths.append(record['boxes'])
    hidden.append(record['hidden'])
    brightness.append(record['frames'].mean(axis=(1, 2, 3)))
  return scores(boxes, truths, hidden, brightness)


def without_state(tracker: inference.Network) -> dict[str, inference.Network]:
  """Name -> the network without a part of its state.

  Of a regression the state is zeroed at each frame; correlation filters keep
  what they learned in the first frame.
  """
  if isinstance(tracker, correlation.Tracker):
    return {'first_frame_kept': tracker.clone(rates=(0.0,), size_rate=0.0)}
  if tracker.cell == 'none':
    return {}
  return {'state_zeroed': tracker.clone(zero_state=True)}


def score_records(
  workdir: pathlib.Path, source: batching.Source
) -> dict[str, float]:
  """Scores the best checkpoint of a run on records that are given.

  Args:
    workdir: of the run, or of a released model.
    source: records as those of the run's data set.
  """
  trained = inference.restore(workdir)
  batch_size = trained.config.eval_batch_size
  evaluate = Evaluator(source, trained.network, batch_size=batch_size)
  return evaluate(parallel.replicate(trained.variables))[0]


def evaluate_best(workdir: pathlib.Path, split: str) -> dict[str, Any]:
  """Scores the best checkpoint of a run on a split; writes `results.json`.

  For comparison it also scores the same weights without a part of the state,
  see `without_state`, and the baselines.

  Args:
    workdir: directory of the run; no other config or data is needed.
    split: 'validation' or 'test'.

  Returns:
    The entry of `results.json`.
  """
  output = released.output(workdir)
  console.state(f'scoring {split}')
  trained = inference.restore(workdir)
  config = trained.config
  source = examples.open_split(config, split)
  variables = parallel.replicate(trained.variables)
  since = time.monotonic()
  trackers = {TRACKER: trained.network, **without_state(trained.network)}
  found, boxes = {}, {}
  for name, tracker in trackers.items():
    evaluate = Evaluator(source, tracker, batch_size=config.eval_batch_size)
    found[name], boxes[name] = evaluate(variables)
  for name, make in baselines.BASELINES.items():
    found[name] = baseline_scores(source, make())
  entry = {
    'scores': found.pop(TRACKER),
    'others': found,
    'num_sequences': len(source),
    **run_fields(workdir, trained),
    'evaluation_seconds': round(time.monotonic() - since, 1),
  }
  if jax.process_index() == 0:
    (output / 'results').mkdir(parents=True, exist_ok=True)
    strips = show(source, boxes[TRACKER])
    figures.save(strips, output / 'results' / f'{split}.png')
  results.add(output, split, entry)
  table = {TRACKER: entry['scores'], **found}
  print_table(f'{split}: {len(source)} sequences, step {trained.step}', table)
  return entry


def run_fields(
  workdir: pathlib.Path, trained: inference.Trained
) -> dict[str, Any]:
  """The fields of an entry of `results.json` that identify the run."""
  return {
    **results.from_run(workdir, trained.config, trained.step),
    'data': {
      'name': trained.config.data.name,
      'fingerprint': trained.fingerprint,
    },
  }


def print_table(heading: str, table: Mapping[str, Mapping[str, Any]]):
  """Prints a table with a column of scores for each tracker."""
  widths = {name: max(len(name), 5) + 2 for name in table}
  head = ''.join(f'{name:>{width}}' for name, width in widths.items())
  lines = [heading, ' ' * 24 + head]
  rows = dict.fromkeys(
    metric
    for found in table.values()
    for metric, x in found.items()
    if isinstance(x, float)
  )
  for metric in rows:
    row = f'{metric:24}'
    for name, width in widths.items():
      number = table[name].get(metric)
      row += ' ' * width if number is None else f'{number:{width}.3f}'
    lines.append(row)
  console.result('\n'.join(lines))
