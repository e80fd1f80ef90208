"""Scores on real sequences, from a directory or a data set.

Axes: T frames, H height, W width.
"""

import pathlib
import time
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from training import checkpoints
from training import released
from training import results
from video import data
from video import figures
from video import metrics
from video.sources import tracks
from video.tracking import baselines
from video.tracking import evaluation
from video.tracking import inference
from video.tracking import losses
from vision import images

# Data sets of sequences -> the split that is scored.
_SPLITS = {'tracks': 'test', 'davis': 'validation'}


class Frames:
  """The frames of a sequence, each decoded on access."""

  def __init__(self, paths: Sequence[pathlib.Path]):
    """Keeps the paths of the frames, in order."""
    self._paths = paths

  def __len__(self) -> int:
    """The number of frames."""
    return len(self._paths)

  def __getitem__(self, index: int) -> np.ndarray:
    """uint8[H, W, 3]; an IndexError ends a loop over all."""
    return images.decode(self._paths[index])

  def __iter__(self) -> Iterator[np.ndarray]:
    return (images.decode(path) for path in self._paths)


def open_sequences(
  path: str | pathlib.Path,
) -> tuple[Sequence[dict[str, Any]], str]:
  """Opens the sequences of a directory or of a data set.

  Args:
    path: a directory, see `sources.tracks`; or the name of a data set,
      'tracks/NAME' or 'davis', see `video.data`.

  Returns:
    The records, and a text that lists the problems of the others.

  Raises:
    ValueError: every sequence has a problem.
    FileNotFoundError: no such data set.
  """
  kind = str(path).partition('/')[0]
  if kind in _SPLITS and not pathlib.Path(path).is_dir():
    return data.open_split(str(path), _SPLITS[kind]), ''
  found, problems = tracks.read(path)
  records = [
    {
      'id': track.id,
      'frames': Frames(track.paths),
      'boxes': track.boxes,
      'hidden': track.hidden,
    }
    for track in found
  ]
  return records, problems


def evaluate(workdir: pathlib.Path, path: str | pathlib.Path) -> dict[str, Any]:
  """Scores the best checkpoint of a run on real sequences.

  Each tracker runs once from the first box, and once with a restart after each
  failure; the baselines run too. Boxes, plots and strips go to
  `results/sequences`, the scores to `results.json`.

  Args:
    workdir: directory of the run.
    path: see `open_sequences`.

  Returns:
    The entry of `results.json`.

  Raises:
    ValueError: every sequence has a problem.
    FileNotFoundError: no such data set, or nothing was trained in `workdir`.
  """
  source, problems = open_sequences(path)
  output = released.output(workdir)
  trained = inference.restore(workdir)
  since = time.monotonic()
  trackers = {evaluation.TRACKER: inference.Tracker.from_trained(trained)}
  for name, make in baselines.BASELINES.items():
    trackers[name] = make()
  truths, hidden, certainty, steps = {}, {}, {}, Steps()
  boxes = {name: {} for name in trackers}
  restarts = {name: {} for name in trackers}
  for record in source:
    i, frames, truth = record['id'], record['frames'], record['boxes']
    # Trackers start only on a target whose centre is in the frame.
    center = truth[:, :2] + truth[:, 2:] / 2
    size = frames[0].shape[1::-1]
    may_start = np.all((center >= 0) & (center <= size), axis=1)
    truths[i], hidden[i] = truth, record['hidden']
    for name, tracker in trackers.items():
      if name == evaluation.TRACKER:
        boxes[name][i], certainty[i] = steps.follow(tracker, frames, truth[0])
      else:
        boxes[name][i] = baselines.follow(tracker, frames, truth[0])
      run = metrics.with_restarts(
        tracker.start, tracker.step, frames, truth, may_start=may_start
      )
      restarts[name][i] = run.numbers()
    if jax.process_index() == 0:
      _write(
        output / 'results' / 'sequences',
        record,
        {name: found[i] for name, found in boxes.items()},
        certainty[i],
      )
  passes = {name: _one_pass(truths, boxes[name]) for name in trackers}
  totals = {
    name: _total(list(runs.values())) for name, runs in restarts.items()
  }
  entry = {
    'path': str(path),
    'scores': {name: found.numbers() for name, found in passes.items()},
    # The tables of OTB count the given first box too.
    'scores_with_first_frame': {
      name: _one_pass(truths, boxes[name], count_first=True).numbers()
      for name in trackers
    },
    'overlap_with_first_frame': {
      name: {
        i: _one_pass({i: truth}, boxes[name], count_first=True).mean_overlap
        for i, truth in truths.items()
      }
      for name in trackers
    },
    **steps.numbers(),
    **_certainty_fields(certainty, boxes[evaluation.TRACKER], truths, hidden),
    'restarted': {name: _without_nan(found) for name, found in totals.items()},
    'sequences': {
      i: {
        name: {
          **_one_pass({i: truth}, boxes[name]).numbers(),
          'restarted': _without_nan(restarts[name][i]),
        }
        for name in trackers
      }
      for i, truth in truths.items()
    },
    'num_sequences': len(truths),
    'problems': problems,
    **evaluation.run_fields(workdir, trained),
    'evaluation_seconds': round(time.monotonic() - since, 1),
  }
  if jax.process_index() == 0:
    plots = figures.success_and_precision(passes)
    figures.save(
      plots, output / 'results' / 'sequences' / 'success_and_precision.png'
    )
  results.add(output, 'sequences', entry)
  tables = {
    'all': entry['scores'],
    'all, restarted': totals,
    **entry['sequences'],
  }
  for name, table in tables.items():
    evaluation.print_table(f'{name}, step {trained.step}', table)
  return entry


def _one_pass(
  truths: Mapping[str, np.ndarray],
  boxes: Mapping[str, np.ndarray],
  *,
  count_first: bool = False,
) -> metrics.OnePass:
  return metrics.one_pass(
    [boxes[i] for i in truths], list(truths.values()), count_first=count_first
  )


def _total(runs: Sequence[dict[str, float]]) -> dict[str, float]:
  """The sum of the failures, and the mean accuracy without NaN."""
  accuracies = [run['accuracy'] for run in runs]
  known = [x for x in accuracies if not np.isnan(x)]
  return {
    'failures': sum(run['failures'] for run in runs),
    'accuracy': float(np.mean(known)) if known else float('nan'),
  }


class Steps:
  """Follows targets, and counts the steps and their time."""

  def __init__(self):
    """No steps yet."""
    self._count, self._seconds = 0, 0.0

  def follow(
    self, tracker: inference.Tracker, frames: Frames, box: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray | None]:
    """The boxes f32[T, 4], and the certainty f64[T] if it is known."""
    frames = iter(frames)
    state = tracker.start(next(frames), box)
    boxes, certainty = [np.asarray(box, np.float32)], [state.certainty]
    for frame in frames:
      since = time.process_time()
      state, found = tracker.step(state, frame)
      certainty.append(state.certainty)
      self._seconds += time.process_time() - since
      self._count += 1
      boxes.append(found)
    known = certainty[0] is not None
    return np.stack(boxes), np.array(certainty) if known else None

  def numbers(self) -> dict[str, float]:
    """Frames in a second of the processor, all of its cores together."""
    speed = self._count / max(self._seconds, 1e-9)
    return {'frames_per_cpu_second': round(speed, 1)}


def _certainty_fields(
  certainty: Mapping[str, np.ndarray | None],
  boxes: Mapping[str, np.ndarray],
  truths: Mapping[str, np.ndarray],
  hidden: Mapping[str, np.ndarray],
) -> dict[str, Any]:
  """Scores of the certainty; none of a tracker that states none."""
  if any(found is None for found in certainty.values()):
    return {}
  found = metrics.certainty_scores(
    list(certainty.values()),
    [metrics.overlap(boxes[i], truths[i]) for i in certainty],
    [hidden[i] for i in certainty],
    losses.ON_TARGET,
  )
  return {'certainty': _without_nan(found)}


def _write(
  directory: pathlib.Path,
  record: dict[str, Any],
  boxes: dict[str, np.ndarray],
  certainty: np.ndarray | None,
):
  """Writes the boxes f32[T, 4] of each tracker, and a strip of them."""
  known = {} if certainty is None else {'certainty': certainty.tolist()}
  checkpoints.write_json(
    directory / f'{record["id"]}.json',
    {name: found.tolist() for name, found in boxes.items()} | known,
  )
  truth = np.where(record['hidden'][:, None], np.nan, record['boxes'])
  strip = figures.overlay_strip(
    record['frames'], {'truth': truth, **boxes}, certainty=certainty
  )
  figures.save(strip, directory / f'{record["id"]}.png')


def _without_nan(numbers: dict[str, float]) -> dict[str, float | None]:
  """Replaces NaN, which JSON does not have, by None."""
  return {k: None if np.isnan(x) else x for k, x in numbers.items()}
