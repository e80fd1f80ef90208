"""Reads recordings of gestures, and checks them before any is used.

  utd_mhad_skeletons, utd_mhad_depth
              UTD-MHAD (Chen, Jafari and Kehtarnavaz 2015), by subject
  fingertips  tracks of a fingertip in a CSV, in contiguous blocks

Axes: T time, H height, W width, D features.
"""

import csv
import dataclasses
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from video import sources

UTD_MHAD_SUBJECTS = {'train': (1, 3, 5, 7), 'test': (2, 4, 6, 8)}
# By number, from 1; the short names of the data set's authors.
UTD_MHAD_ACTIONS = (
  'swipe left',
  'swipe right',
  'wave',
  'clap',
  'throw',
  'cross arms',
  'basketball shoot',
  'draw X',
  'draw circle clockwise',
  'draw circle counter-clockwise',
  'draw triangle',
  'bowling',
  'boxing',
  'baseball swing',
  'tennis swing',
  'arm curl',
  'tennis serve',
  'push',
  'knock',
  'catch',
  'pick up and throw',
  'jog',
  'walk',
  'sit to stand',
  'stand to sit',
  'lunge',
  'squat',
)


@dataclasses.dataclass(frozen=True)
class Features:
  """A sequence of vectors, with a class."""

  id: str
  split: str
  features: np.ndarray  # f32[T, D].
  label: str
  group: str = ''


def utd_mhad_skeletons(
  directory: str | os.PathLike, *, validation_subject: int = 7
) -> list[Features]:
  """UTD-MHAD's 20 joints x (x, y, z), in metres as recorded: f32[T, 60].

  Trained on subjects 1, 3, 5 and 7, tested on 2, 4, 6 and 8, as published.

  Args:
    directory: of skeleton.npz, with `joints` f32[sum of T, 20, 3] and, for each
      recording, `lengths`, `action` (1 to 27), `subject` and `trial`.
    validation_subject: one of those that are trained on, held out of it.
  """
  path = pathlib.Path(directory) / 'skeleton.npz'
  return [
    Features(
      features=np.ascontiguousarray(joints.reshape(len(joints), -1)), **says
    )
    for joints, says in _utd_mhad(path, 'joints', validation_subject)
  ]


def utd_mhad_depth(
  directory: str | os.PathLike, *, validation_subject: int = 7
) -> list[sources.Clip]:
  """UTD-MHAD's depth, near is bright, 0 is no reading: uint8[T, 48, 64, 1].

  As `utd_mhad_skeletons`, from `frames` uint8[sum of T, 48, 64] in
  depth_48x64.npz.
  """
  path = pathlib.Path(directory) / 'depth_48x64.npz'
  return [
    sources.Clip(frames=depth[..., np.newaxis], **says)
    for depth, says in _utd_mhad(path, 'frames', validation_subject)
  ]


def _utd_mhad(path, name, validation_subject):
  """The arrays of the recordings, and what else is known of each."""
  if validation_subject not in UTD_MHAD_SUBJECTS['train']:
    raise ValueError(
      f'validation_subject={validation_subject} must be one that is trained '
      f'on: {UTD_MHAD_SUBJECTS["train"]}'
    )
  try:
    with np.load(path, allow_pickle=False) as file:
      values = file[name]
      lengths, actions, subjects, trials = (
        file[key] for key in ('lengths', 'action', 'subject', 'trial')
      )
  except (ValueError, KeyError, OSError) as error:
    raise ValueError(
      f'cannot read {path}: {error}. It must hold {name}, lengths, action, '
      'subject and trial'
    ) from error
  if (
    lengths.min() < 1
    or lengths.sum() != len(values)
    or not len(lengths) == len(actions) == len(subjects) == len(trials)
    or not np.isin(actions, 1 + np.arange(len(UTD_MHAD_ACTIONS))).all()
    or not np.isin(subjects, np.arange(1, 9)).all()
    or not np.isfinite(values).all()
  ):
    raise ValueError(
      f'{path} is damaged: its lengths, actions (1 to 27), subjects (1 to 8) '
      f'and {name} do not fit together'
    )
  parts = np.split(values, np.cumsum(lengths)[:-1])
  recordings = []
  for part, action, subject, trial in zip(
    parts, actions, subjects, trials, strict=True
  ):
    split = 'train' if subject in UTD_MHAD_SUBJECTS['train'] else 'test'
    if subject == validation_subject:
      split = 'validation'
    says = {
      'id': f'a{action}_s{subject}_t{trial}',
      'split': split,
      'label': UTD_MHAD_ACTIONS[action - 1],
      'group': f's{subject}',
    }
    recordings.append((action, part, says))
  # By action, whose order is that of the classes.
  recordings.sort(key=lambda recording: recording[0])
  return [(part, says) for _, part, says in recordings]


def fingertips(
  path: str | os.PathLike,
  *,
  names: Sequence[str] | None = None,
  gap: int = 16,
) -> list[Features]:
  """Tracks of a fingertip, a class and then (dx, dy) in each row: f32[T, 2].

  The rows are windows over one long recording of each class, and neighbours
  overlap. So of each class, in the order of the rows, the first 60 % are for
  training, the next 10 % for validation and the last 30 % for testing, without
  the first `gap` rows of the two latter. People are not separated.

  Args:
    path: of the CSV.
    names: of the classes 0, 1, ...; None reads them from
      point_history_classifier_label.csv beside it.
    gap: at least as many rows as a window has points.
  """
  path = pathlib.Path(path)
  if names is None:
    beside = path.with_name('point_history_classifier_label.csv')
    names = sources.lines(beside)
  with open(path, newline='', encoding='utf-8-sig') as file:
    rows = [row for row in csv.reader(file) if row]
  if len({len(row) for row in rows}) != 1 or len(rows[0]) % 2 != 1:
    raise ValueError(
      f'{path}: every row must hold a class and equally many pairs of numbers'
    )
  try:
    values = np.array(rows, np.float32)
  except ValueError as error:
    raise ValueError(f'{path} must hold numbers only: {error}') from error
  labels = values[:, 0].astype(np.int32)
  if (
    not np.isfinite(values).all()
    or (labels != values[:, 0]).any()
    or not np.isin(labels, np.arange(len(names))).all()
  ):
    raise ValueError(
      f'{path}: the first number of each row must be a class, 0 to '
      f'{len(names) - 1}, and all must be finite'
    )
  points = values[:, 1:].reshape(len(rows), -1, 2)
  if gap < points.shape[1]:
    raise ValueError(
      f'gap={gap} must be at least {points.shape[1]}, the points of a row: '
      'neighbouring rows overlap'
    )
  tracks = []
  for label, name in enumerate(names):
    of_class = np.flatnonzero(labels == label)
    first, second = (len(of_class) * share // 10 for share in (6, 7))
    blocks = (
      of_class[:first],
      of_class[first + gap : second],
      of_class[second + gap :],
    )
    for split, block in zip(sources.SPLITS, blocks, strict=True):
      if not len(block):
        raise ValueError(
          f'{path}: {name!r} has {len(of_class)} rows, too few for three '
          f'blocks with {gap} rows between them'
        )
      tracks += [
        Features(f'row{row:05d}', split, points[row], name) for row in block
      ]
  return tracks
