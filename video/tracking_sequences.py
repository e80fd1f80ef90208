"""Scores on real sequences, folders of pictures and boxes in OTB's layout.

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
from video import figures
from video import metrics
from video import tracking_baselines
from video import tracking_evaluation
from video import tracking_inference
from video import tracks as tracks_lib
from vision import images


class Pictures:
  """The frames of a sequence, each decoded when it is asked for."""

  def __init__(self, paths: Sequence[pathlib.Path]):
    """Takes the files, in order."""
    self._paths = paths

  def __len__(self) -> int:
    """The number of frames."""
    return len(self._paths)

  def __getitem__(self, index: int) -> np.ndarray:
    """uint8[H, W, 3]; an IndexError ends a loop over all."""
    return images.decode(self._paths[index])

  def __iter__(self) -> Iterator[np.ndarray]:
    return (images.decode(path) for path in self._paths)


def evaluate(
  workdir: pathlib.Path, directory: str | pathlib.Path
) -> dict[str, Any]:
  """Scores the best checkpoint of a run on the sequences of a directory.

  One pass from the first box, and again with a new start after each failure.
  The trackers that learn nothing stand beside it. Boxes, plots and strips go
  to `results/sequences`, the numbers to `results.json`.

  Args:
    workdir: of the run.
    directory: see `tracks_lib.otb`.

  Returns:
    The entry of `results.json`.

  Raises:
    ValueError: something is wrong with the sequences.
  """
  tracks, problems = tracks_lib.otb(directory)
  if not tracks:
    raise ValueError(f'{directory} holds no sequence. {problems}')
  trained = tracking_inference.load(workdir)
  since = time.monotonic()
  trackers = {
    tracking_evaluation.TRACKER: tracking_inference.LiveTracker.of(trained)
  }
  for name, make in tracking_baselines.BASELINES.items():
    trackers[name] = make()
  boxes = {name: {} for name in trackers}
  restarts = {name: {} for name in trackers}
  for track in tracks:
    frames = Pictures(track.pictures)
    for name, tracker in trackers.items():
      boxes[name][track.id] = tracking_baselines.follow(
        tracker, frames, track.boxes[0]
      )
      run = metrics.with_restarts(
        tracker.begin, tracker.step, frames, track.boxes
      )
      restarts[name][track.id] = _without_nan(run.numbers())
  passes = {
    name: metrics.one_pass(
      [boxes[name][track.id] for track in tracks],
      [track.boxes for track in tracks],
    )
    for name in trackers
  }
  entry = {
    'scores': {name: passes[name].numbers() for name in trackers},
    # As the tables of OTB have it, in which the given box counts too.
    'scores_with_first_frame': {
      name: _one_pass(tracks, boxes[name], count_first=True)
      for name in trackers
    },
    'sequences': {
      track.id: {
        name: {
          **_one_pass([track], boxes[name], count_first=False),
          'restarted': restarts[name][track.id],
        }
        for name in trackers
      }
      for track in tracks
    },
    'num_sequences': len(tracks),
    'problems': problems,
    **tracking_evaluation.run_of(workdir, trained),
    'evaluation_seconds': round(time.monotonic() - since, 1),
  }
  if jax.process_index() == 0:
    directory = workdir / 'results' / 'sequences'
    directory.mkdir(parents=True, exist_ok=True)
    for track in tracks:
      _write(directory, track, {name: boxes[name][track.id] for name in boxes})
    plots = figures.success_and_precision(passes)
    figures.save(plots, directory / 'success_and_precision.png')
  tracking_evaluation.write_entry(workdir, 'sequences', entry)
  for name, table in (('all', entry['scores']), *entry['sequences'].items()):
    tracking_evaluation.log_table(f'{name}, step {trained.step}', table)
  return entry


def _one_pass(
  tracks: Sequence[tracks_lib.Track],
  boxes: Mapping[str, np.ndarray],
  *,
  count_first: bool,
) -> dict[str, float]:
  return metrics.one_pass(
    [boxes[track.id] for track in tracks],
    [track.boxes for track in tracks],
    count_first=count_first,
  ).numbers()


def _write(
  directory: pathlib.Path, track: tracks_lib.Track, boxes: dict[str, np.ndarray]
):
  """The boxes f32[T, 4] of each tracker, and a strip that shows them."""
  checkpoints.write_json(
    directory / f'{track.id}.json',
    {name: found.tolist() for name, found in boxes.items()},
  )
  truth = np.where(track.hidden[:, None], np.nan, track.boxes)
  strip = figures.overlay_strip(
    Pictures(track.pictures), {'truth': truth, **boxes}
  )
  figures.save(strip, directory / f'{track.id}.png')


def _without_nan(numbers: dict[str, float]) -> dict[str, float | None]:
  """JSON has no NaN: None is what could not be measured."""
  return {k: None if np.isnan(x) else x for k, x in numbers.items()}
