"""Scores of a tracker, beside those of trackers that learn nothing.

Axes: B sequences, T frames.
"""

import pathlib
import time
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging

from training import batching
from training import parallel
from training import prediction
from training import results
from video import data
from video import figures
from video import metrics
from video.synthetic import photo_track
from video.tracking import baselines
from video.tracking import inference
from video.tracking import model

TRACKER = 'tracker'  # The trained one, among others.
_SHOWN = 4  # Sequences, in pictures.
_BLACK = 10  # The mean of a frame in which nothing can be seen is below.

# By what a checkpoint can be the best.
METRICS = ('success_auc', 'success_rate_50', 'precision_20px')


def check_metric(name: str):
  """Raises a ValueError unless checkpoints can be ranked by this metric."""
  if name not in METRICS:
    raise ValueError(f'best_metric={name!r} is none of {", ".join(METRICS)}')


def open_split(config: ml_collections.ConfigDict, split: str):
  """The sequences of a split, all of one length and size.

  Raises:
    ValueError: no such data set, or one that cannot be drawn.
  """
  fields = config.data
  if fields.name == 'photo_track':
    return photo_track.PhotoTrack(
      split,
      count=fields.sequences[split],
      num_frames=fields.num_frames,
      height=fields.height,
      width=fields.width,
      images=fields.images,
    )
  if fields.name.partition('/')[0] == 'occlusion_track':
    return data.open_split(fields.name, split, fields.data_dir)
  raise ValueError(
    f'data.name={fields.name!r} must be occlusion_track, '
    'occlusion_track/NAME or photo_track'
  )


def fingerprint(config: ml_collections.ConfigDict) -> str:
  """Sixteen letters and digits that say which contents a data set has."""
  if config.data.name == 'photo_track':
    return photo_track.fingerprint(
      *(open_split(config, split) for split in photo_track.SPLITS)
    )
  return data.fingerprint(config.data.name, config.data.data_dir)


def example(record: dict[str, Any]) -> batching.Example:
  """What a batch holds of a record, as it is."""
  return {
    'id': record['id'],
    'frames': np.asarray(record['frames']),
    'boxes': np.asarray(record['boxes'], np.float32),
    'hidden': np.asarray(record['hidden'], bool),
  }


def scores(
  boxes: Sequence[np.ndarray],
  truths: Sequence[np.ndarray],
  hidden: Sequence[np.ndarray],
  brightness: Sequence[np.ndarray],
) -> dict[str, float]:
  """One pass: of all frames, of those before, while and after it is hidden.

  Of those after it there are, besides, 'blackout', of the sequences in which
  all is black meanwhile, and 'screen', of those in which something is before
  it.

  Args:
    boxes: for each sequence f32[T, 4], what was found.
    truths: likewise, what is true.
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
  """Follows what is to be followed in one split; compiles once."""

  def __init__(
    self,
    source: batching.Source,
    tracker: model.Tracker,
    *,
    batch_size: int,
  ):
    """Prepares the batches.

    Args:
      source: of `open_split`.
      tracker: the network.
      batch_size: over all hosts.
    """
    self._batches = batching.evaluation_batches(
      source, example, batch_size=batch_size
    )
    step = parallel.predict_step(
      lambda variables, batch: {
        'boxes': tracker.apply(
          variables, batch['frames'], batch['boxes'][:, 0], method='follow'
        ),
        'truth': batch['boxes'],
        'hidden': batch['hidden'],
        'brightness': batch['frames'].mean(axis=(2, 3, 4)),
      }
    )
    self._step = step

  def __call__(
    self, variables: Any
  ) -> tuple[dict[str, float], list[np.ndarray]]:
    """The scores of the whole split, and the boxes f32[T, 4] of each sequence.

    Raises:
      Stopped: SIGTERM came.
    """
    found = list(
      prediction.predict(self._step, variables, batching.read(self._batches))
    )
    boxes, *known = (
      [record[name] for record in found]
      for name in ('boxes', 'truth', 'hidden', 'brightness')
    )
    return scores(boxes, *known), boxes


def show(
  source: Sequence[dict[str, Any]], boxes: Sequence[np.ndarray]
) -> np.ndarray:
  """Strips of the first sequences, what is true and what was found.

  Args:
    source: of `open_split`.
    boxes: of each of its sequences f32[T, 4].

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
  """As `scores`, of a tracker that learns nothing, on all of a split."""
  boxes, truths, hidden, brightness = [], [], [], []
  for i in range(len(source)):
    record = example(source[i])
    first = record['boxes'][0]
    boxes.append(baselines.follow(baseline, record['frames'], first))
    truths.append(record['boxes'])
    hidden.append(record['hidden'])
    brightness.append(record['frames'].mean(axis=(1, 2, 3)))
  return scores(boxes, truths, hidden, brightness)


def evaluate_best(workdir: pathlib.Path, split: str) -> dict[str, Any]:
  """Scores the best checkpoint of a run on a split; writes `results.json`.

  The same weights with a state that is forgotten at each frame, and the
  trackers that learn nothing, stand beside it.

  Args:
    workdir: of the run; nothing else is needed.
    split: 'validation' or 'test'.

  Returns:
    The entry of `results.json`.
  """
  trained = inference.load(workdir)
  config = trained.config
  source = open_split(config, split)
  variables = parallel.replicate(trained.variables)
  since = time.monotonic()
  trackers = {TRACKER: trained.tracker}
  if trained.tracker.cell != 'none':
    trackers['state_zeroed'] = trained.tracker.clone(zero_state=True)
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
    **run_of(workdir, trained),
    'evaluation_seconds': round(time.monotonic() - since, 1),
  }
  if jax.process_index() == 0:
    (workdir / 'results').mkdir(exist_ok=True)
    picture = show(source, boxes[TRACKER])
    figures.save(picture, workdir / 'results' / f'{split}.png')
  results.add(workdir, split, entry)
  table = {TRACKER: entry['scores'], **found}
  log_table(f'{split}: {len(source)} sequences, step {trained.step}', table)
  return entry


def run_of(workdir: pathlib.Path, trained: inference.Trained) -> dict[str, Any]:
  """What an entry of `results.json` says of the run."""
  return {
    **results.from_run(workdir, trained.config, trained.step),
    'data': {
      'name': trained.config.data.name,
      'fingerprint': trained.fingerprint,
    },
  }


def log_table(heading: str, table: Mapping[str, Mapping[str, Any]]):
  """The scores of each tracker in a column."""
  lines = [heading, ' ' * 24 + ''.join(f'{name:>19}' for name in table)]
  rows = dict.fromkeys(
    metric
    for found in table.values()
    for metric, x in found.items()
    if isinstance(x, float)
  )
  for metric in rows:
    numbers = (found.get(metric, float('nan')) for found in table.values())
    lines.append(f'{metric:24}' + ''.join(f'{x:19.3f}' for x in numbers))
  logging.info('%s', '\n'.join(lines))
