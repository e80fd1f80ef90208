"""Reads and checks UTD-MHAD (Chen, Jafari and Kehtarnavaz 2015).

  skeletons  20 joints of a Kinect
  depth      frames of its depth sensor

A directory has the published files, unpacked, one for each recording:
Skeleton/a1_s1_t1_skeleton.mat with `d_skel` [20, 3, T] in metres, and
Depth/a1_s1_t1_depth.mat with `d_depth` [240, 320, T] in millimetres. Or it has
skeleton.npz and depth_48x64.npz with all recordings concatenated in time:
`joints` f32[sum of T, 20, 3] or `frames` uint8[sum of T, 48, 64], and for each
recording `lengths`, `action` (1 to 27), `subject` (1 to 8) and `trial` (1 to
4). The .npz is read if there are both.

Subjects 1, 3, 5 and 7 are for training, 2, 4, 6 and 8 for testing, as
published; one training subject is held out for validation. Three of the
27 x 8 x 4 recordings were not published: absent recordings are a warning, not
an error.

Axes: T time, H height, W width.
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging

from training import array_files
from training import directories
from training import problems as problems_lib
from video.sources import clips as clips_lib
from video.sources import fingertips
from video.sources import matlab

SUBJECTS = {'train': (1, 3, 5, 7), 'test': (2, 4, 6, 8)}
# By number, from 1; the short names of the data set's authors.
ACTIONS = (
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
_NUM_PUBLISHED = 861
NEAR, FAR = 1500, 4000  # Depths in millimetres that become 255 and 0.
_CELL = 5  # Side of one of our pixels, in pixels of the sensor.

# Action, subject and trial.
_Key = tuple[int, int, int]


def skeletons(
  directory: str | os.PathLike,
  *,
  validation_subject: int = 7,
  skip_bad: bool = False,
) -> tuple[list[fingertips.Features], str]:
  """Reads the joints' x, y, z in metres: f32[T, 60].

  Args:
    directory: directory of Skeleton/ or skeleton.npz.
    validation_subject: training subject that is held out for validation.
    skip_bad: leave out bad recordings instead of raising an error.

  Returns:
    The good recordings, by action, subject and trial, and a text that lists
    the problems of the others.

  Raises:
    ValueError: it lists all problems, unless `skip_bad`.
  """
  _check_held_out(validation_subject)
  found, left_out = _read(directory, _SKELETONS, skip_bad)
  features = [
    fingertips.Features(
      features=np.ascontiguousarray(joints.reshape(len(joints), -1)), **fields
    )
    for joints, fields in _split(found, validation_subject)
  ]
  return features, left_out


def depth(
  directory: str | os.PathLike,
  *,
  validation_subject: int = 7,
  skip_bad: bool = False,
) -> tuple[list[clips_lib.Clip], str]:
  """Reads every second depth frame as brightness: uint8[T, 48, 64, 1].

  Near is bright; 0 is no reading. The published files are converted by
  `brightness`. depth_48x64.npz seems to have been made in the same way, but the
  two were not compared.

  Arguments, returns and errors are those of `skeletons`, for Depth/ or
  depth_48x64.npz.
  """
  _check_held_out(validation_subject)
  found, left_out = _read(directory, _DEPTH, skip_bad)
  clips = [
    clips_lib.Clip(frames=frames[..., np.newaxis], **fields)
    for frames, fields in _split(found, validation_subject)
  ]
  return clips, left_out


def brightness(depth: np.ndarray) -> np.ndarray:
  """Depth in mm to brightness: [240, 320, T] -> uint8[(T + 1) // 2, 48, 64].

  Frames 0, 2, 4, ... are kept. The brightness is 255 up to 1.5 m, falls
  linearly to 0 at 4 m, and is 0 without a reading. Each of our pixels is the
  rounded mean over 5 x 5 pixels, so that outlines in front of no reading are
  darker.

  The conversion was inferred from depth_48x64.npz, which is not documented. At
  the joints of skeleton.npz it puts the surface 3 cm (hands) to 17 cm (spine)
  in front of the joint, as expected of a body. A single reading of value v in a
  pixel is v / 25 there, rounded.
  """
  frames = np.moveaxis(depth[..., ::2], 2, 0).astype(np.float32)
  bright = np.clip(255 * (FAR - frames) / (FAR - NEAR), 0, 255)
  bright[frames == 0] = 0
  length, height, width = bright.shape
  cells = bright.reshape(length, height // _CELL, _CELL, width // _CELL, _CELL)
  return np.round(cells.mean(axis=(2, 4))).astype(np.uint8)


def _joints(skeleton: np.ndarray) -> np.ndarray:
  """[20, 3, T] -> f32[T, 20, 3]."""
  return np.moveaxis(skeleton, 2, 0).astype(np.float32)


def _checked_brightness(depth: np.ndarray) -> np.ndarray:
  """Converts by `brightness`; raises a ValueError for implausible depths."""
  readings = depth[depth != 0]
  if not len(readings):
    raise ValueError('there is no reading, only 0')
  if readings.min() < 0 or not NEAR <= np.median(readings) <= FAR:
    raise ValueError(
      f'its readings, {readings.min():g} to {readings.max():g}, are not the '
      f'millimetres to a person, whose median is {NEAR} to {FAR}'
    )
  return brightness(depth)


@dataclasses.dataclass(frozen=True)
class _Kind:
  """A kind of recording, and its files.

  Attributes:
    file: name of the .npz with all recordings.
    array: name of the array in it.
    folder: name of the folder of published files.
    ending: ending of their names.
    variable: name of the variable in them, [*shape, T].
    shape: its shape without the time.
    convert: converts the variable to the values of the array.
  """

  file: str
  array: str
  folder: str
  ending: str
  variable: str
  shape: tuple[int, int]
  convert: Callable[[np.ndarray], np.ndarray]


_SKELETONS = _Kind(
  file='skeleton.npz',
  array='joints',
  folder='Skeleton',
  ending='skeleton.mat',
  variable='d_skel',
  shape=(20, 3),
  convert=_joints,
)
_DEPTH = _Kind(
  file='depth_48x64.npz',
  array='frames',
  folder='Depth',
  ending='depth.mat',
  variable='d_depth',
  shape=(240, 320),
  convert=_checked_brightness,
)


def _read(
  directory: str | os.PathLike, kind: _Kind, skip_bad: bool
) -> tuple[dict[_Key, np.ndarray], str]:
  """The recordings of either layout, and the problems of the others."""
  directory = clips_lib.check_directory(directory, "of UTD-MHAD's files")
  path, folder = directory / kind.file, directory / kind.folder
  if path.exists():
    return _from_array(path, kind), ''
  if folder.is_dir():
    return _from_folder(folder, kind, skip_bad)
  raise ValueError(
    f'{directory} has neither {kind.folder}/, with published files such as '
    f'a1_s1_t1_{kind.ending}, nor {kind.file}: pass the directory of one of '
    'them'
  )


def _from_array(path: pathlib.Path, kind: _Kind) -> dict[_Key, np.ndarray]:
  try:
    names = ('lengths', 'action', 'subject', 'trial')
    file = array_files.read_npz(path, (kind.array, *names))
    values = file[kind.array]
    lengths, *numbers = (file[name] for name in names)
  except (ValueError, KeyError, OSError) as error:
    raise ValueError(
      f'cannot read {path}: {error}. It must hold {kind.array}, lengths, '
      'action, subject and trial'
    ) from error
  fields = (lengths, *numbers)
  whole = len({array.shape for array in fields}) == 1 and all(
    array.ndim == 1 and array.dtype.kind in 'iu' for array in fields
  )
  keys = []
  if whole:
    keys = list(zip(*(array.tolist() for array in numbers), strict=True))
  if (
    not keys
    or values.dtype.kind not in 'iuf'
    or values.ndim != 3
    or lengths.min() < 1
    or sum(lengths.tolist()) != len(values)
    or len(set(keys)) != len(keys)
    or not all(map(_is_known, keys))
    or not np.isfinite(values).all()
  ):
    raise ValueError(
      f'{path} is damaged: its lengths, actions (1 to 27), subjects (1 to 8), '
      f'trials (1 to 4) and {kind.array} do not fit together'
    )
  parts = np.split(values, np.cumsum(lengths)[:-1])
  return dict(zip(keys, parts, strict=True))


def _from_folder(
  folder: pathlib.Path, kind: _Kind, skip_bad: bool
) -> tuple[dict[_Key, np.ndarray], str]:
  problems = problems_lib.Problems()
  pattern = re.compile(rf'a(\d+)_s(\d+)_t(\d+)_{re.escape(kind.ending)}')
  paths, found = {}, {}
  present = directories.matching(folder, '*.mat')
  if not present:
    raise ValueError(
      f'{folder} has no file such as a1_s1_t1_{kind.ending}: unpack the '
      'published files'
    )
  for path in present:
    match = pattern.fullmatch(path.name)
    key = tuple(map(int, match.groups())) if match else ()
    if not _is_known(key):
      problems[
        f'not aACTION_sSUBJECT_tTRIAL_{kind.ending} of actions 1 to 27, '
        'subjects 1 to 8 and trials 1 to 4'
      ].append(str(path))
    elif key in paths:
      problems['duplicate recording'].append(str(path))
    else:
      paths[key] = path

  def error_of(key: _Key) -> str | None:
    try:
      found[key] = _from_file(paths[key], kind)
    except ValueError as error:
      return str(error)
    return None

  errors = problems_lib.find(error_of, sorted(paths), unit='recordings')
  problems['file that cannot be read'] += filter(None, errors)
  left_out = problems.raise_unless_skipped(
    folder, len(found), skip_bad=skip_bad
  )
  if len(found) < _NUM_PUBLISHED:
    logging.warning(
      '%s has %d of the %d recordings that are published',
      folder,
      len(found),
      _NUM_PUBLISHED,
    )
  return found, left_out


def _from_file(path: pathlib.Path, kind: _Kind) -> np.ndarray:
  """Reads a published file, converted to the values of the array.

  Raises:
    ValueError: the file cannot be read, or has other contents.
  """
  try:
    value = matlab.read(path, kind.variable)
  except (ValueError, OSError) as error:
    raise ValueError(f'cannot read {path}: {error}') from error
  if (
    value is None
    or value.ndim != 3
    or value.shape[:2] != kind.shape
    or not value.shape[2]
    or not np.isfinite(value).all()
  ):
    here = 'nothing' if value is None else f'{value.dtype}{list(value.shape)}'
    wanted = ', '.join(map(str, kind.shape))
    raise ValueError(
      f'{path}: {kind.variable} must be finite numbers [{wanted}, T], '
      f'and is {here}'
    )
  try:
    return kind.convert(value)
  except ValueError as error:
    raise ValueError(f'{path}: {kind.variable}: {error}') from error


def _is_known(key: tuple[int, ...]) -> bool:
  """Returns whether the action, the subject and the trial are valid."""
  return len(key) == 3 and all(
    1 <= number <= count
    for number, count in zip(key, (len(ACTIONS), 8, 4), strict=True)
  )


def _check_held_out(subject: int):
  if subject not in SUBJECTS['train']:
    raise ValueError(
      f'validation_subject={subject} must be one of the training subjects: '
      f'{SUBJECTS["train"]}'
    )


def _split(
  found: Mapping[_Key, np.ndarray], validation_subject: int
) -> list[tuple[np.ndarray, dict[str, Any]]]:
  """The recordings in order, with the other fields of their records."""
  parts = []
  # By action: classes are numbered in order of appearance.
  for action, subject, trial in sorted(found):
    split = 'train' if subject in SUBJECTS['train'] else 'test'
    if subject == validation_subject:
      split = 'validation'
    fields = {
      'id': f'a{action}_s{subject}_t{trial}',
      'split': split,
      'label': ACTIONS[action - 1],
      'group': f's{subject}',
    }
    parts.append((found[action, subject, trial], fields))
  return parts
