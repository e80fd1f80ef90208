"""Sets of skeletons in one file, as recordings and lists of `skeletons`.

  sbu_kinect    SBU Kinect Interaction (Yun et al. 2012): two persons, eight
                interactions; the five folds of the data set
  msr_action3d  MSR Action3D (Li et al. 2010): 20 actions, the 557 recordings
                that papers use; all of them, and the action sets AS1 to AS3
  utd_mhad      UTD-MHAD (Chen et al. 2015): see `utd_mhad`
  npz           any other set

All but UTD-MHAD are read from an .npz of all recordings, concatenated in time:
`joints` f32[sum of T, P, J, D] or [sum of T, J, D] with, for each recording,
`lengths`, `action` (a number from 1), `trial`, and `pair` ('s01s02') or
`subject` (a number); of MSR Action3D also `in_cvpr12_list`. Of other sets
`trial` and the persons may be absent, and `action` may be a text, or a number
with the names of all actions in `action_names`.

Axes: T time, P persons, J joints.
"""

import os
import pathlib
import re
import tempfile
from collections.abc import Mapping

import numpy as np

from training import array_files
from video.sources import fingertips
from video.sources import skeletons
from video.sources import utd_mhad

Set = tuple[list[skeletons.Recording], dict[str, skeletons.Division]]

_SBU_ACTIONS = (
  'approaching',
  'departing',
  'kicking',
  'pushing',
  'shaking hands',
  'hugging',
  'exchanging object',
  'punching',
)
# Of the data set: the pairs that each fold tests.
SBU_FOLDS = (
  ('s01s02', 's03s04', 's05s02', 's06s04'),
  ('s02s03', 's02s07', 's03s05', 's05s03'),
  ('s01s03', 's01s07', 's07s01', 's07s03'),
  ('s02s01', 's02s06', 's03s02', 's03s06'),
  ('s04s02', 's04s03', 's04s06', 's06s02', 's06s03'),
)
_MSR_ACTIONS = (
  'high arm wave',
  'horizontal arm wave',
  'hammer',
  'hand catch',
  'forward punch',
  'high throw',
  'draw X',
  'draw tick',
  'draw circle',
  'hand clap',
  'two hand wave',
  'side boxing',
  'bend',
  'forward kick',
  'side kick',
  'jogging',
  'tennis swing',
  'tennis serve',
  'golf swing',
  'pickup and throw',
)
# The cross-subject test: odd subjects train. Subject 9 is held out.
_MSR_SUBJECTS = {
  **dict.fromkeys((1, 3, 5, 7), 'train'),
  9: 'validation',
  **dict.fromkeys((2, 4, 6, 8, 10), 'test'),
}
MSR_SETS = {
  'all': tuple(range(1, 21)),
  'as1': (2, 3, 5, 6, 10, 13, 18, 20),
  'as2': (1, 4, 7, 8, 9, 11, 12, 14),
  'as3': (6, 14, 15, 16, 17, 18, 19, 20),
}


def divisions(
  layout: str,
  path: str | os.PathLike,
  lists: str | os.PathLike | None = None,
  *,
  skip_bad: bool = False,
) -> tuple[dict[str, list[fingertips.Features]], str]:
  """Writes a set as a folder per class and reads it; see `skeletons.read`.

  Arguments and errors are those of `read`; `lists` are used in place of those
  of the set.
  """
  (recordings, own), left_out = read(layout, path, skip_bad=skip_bad)
  with tempfile.TemporaryDirectory() as directory:
    skeletons.write(directory, recordings, own)
    return skeletons.read(directory, lists)[0], left_out


def read(
  layout: str, path: str | os.PathLike, *, skip_bad: bool = False
) -> tuple[Set, str]:
  """Reads a published set, and returns the problems of what was left out.

  Args:
    layout: 'sbu_kinect', 'msr_action3d', 'utd_mhad' or 'npz'.
    path: the .npz, or its directory; of UTD-MHAD its directory.
    skip_bad: leave out bad recordings of UTD-MHAD's files.

  Raises:
    ValueError: the files are not those of the set.
  """
  if layout == 'utd_mhad':
    return _utd_mhad(path, skip_bad)
  path = pathlib.Path(path)
  if path.is_dir():
    path = path / f'{layout}.npz'
  readers = {'sbu_kinect': _sbu, 'msr_action3d': _msr, 'npz': _any}
  return readers[layout](path), ''


def _sbu(path: pathlib.Path) -> Set:
  """In each fold the pairs of the next one are for validation.

  Coordinates are made metric by the equations of the data set, divided by 1000
  as in the code of DeepGRU.
  """
  arrays, parts = _read_npz(path, ('pair',), len(_SBU_ACTIONS), (2, 15, 3))
  recordings = []
  for points, action, pair, trial in zip(
    parts, arrays['action'], arrays['pair'], arrays['trial'], strict=True
  ):
    x, y, z = np.moveaxis(points, -1, 0)
    metric = np.stack([1.28 - 2.56 * x, 0.96 - 1.92 * y, 1.28 * z], axis=-1)
    label = _SBU_ACTIONS[action - 1]
    name = f'{pair}_a{action}_t{trial}'
    recordings.append(skeletons.Recording(name, label, metric))
  pairs = [str(pair) for pair in arrays['pair']]
  folds = {}
  for index, tested in enumerate(SBU_FOLDS):
    held_out = SBU_FOLDS[(index + 1) % len(SBU_FOLDS)]
    folds[f'fold{index + 1}'] = _divide(
      (recording, _split(pair, tested, held_out))
      for recording, pair in zip(recordings, pairs, strict=True)
    )
  return recordings, folds


def _split(pair, tested, held_out) -> str:
  if pair in tested:
    return 'test'
  return 'validation' if pair in held_out else 'train'


def _msr(path: pathlib.Path) -> Set:
  """Joints at the origin were not seen."""
  names = ('subject', 'in_cvpr12_list')
  arrays, parts = _read_npz(path, names, len(_MSR_ACTIONS), (20, 3))
  if not set(arrays['subject'].tolist()) <= set(_MSR_SUBJECTS):
    raise ValueError(f'{path} has other subjects than 1 to 10')
  known = []
  for points, action, subject, trial, used in zip(
    parts,
    *(arrays[name] for name in ('action', 'subject', 'trial')),
    arrays['in_cvpr12_list'],
    strict=True,
  ):
    if not used:
      continue
    unseen = (points == 0).all(axis=-1, keepdims=True)
    recording = skeletons.Recording(
      f'a{action}_s{subject}_t{trial}',
      _MSR_ACTIONS[action - 1],
      np.where(unseen, np.nan, points),
    )
    known.append((recording, int(action), _MSR_SUBJECTS[int(subject)]))
  sets = {
    name: _divide((r, split) for r, action, split in known if action in actions)
    for name, actions in MSR_SETS.items()
  }
  return [recording for recording, _, _ in known], sets


def _any(path: pathlib.Path) -> Set:
  """A set without lists."""
  fields = ('lengths', 'action', 'trial', 'subject', 'pair', 'action_names')
  try:
    arrays = array_files.read_npz(path, ('joints', *fields))
    joints, lengths = arrays['joints'], arrays['lengths']
    labels = arrays['action']
    if labels.dtype.kind in 'iu' and 'action_names' in arrays:
      if labels.size and labels.min() < 1:
        raise ValueError('action must count from 1')
      labels = arrays['action_names'][labels - 1]
  except (ValueError, LookupError, OSError) as error:
    raise ValueError(
      f'cannot read {path}: {error}. It must hold joints, lengths and action'
    ) from error
  # The others are of the recordings.
  names = [x for x in ('trial', 'subject', 'pair') if x in arrays]
  if (
    lengths.ndim != 1
    or lengths.dtype.kind not in 'iu'
    or labels.dtype.kind not in 'iuU'
    or any(arrays[name].shape != lengths.shape for name in (*names, 'action'))
    or not len(lengths)
    or lengths.min() < 1
    or joints.ndim not in (3, 4)
    or sum(lengths.tolist()) != len(joints)
  ):
    raise ValueError(
      f'{path}: its lengths, action and joints [time, joints, 2 or 3] do not '
      'fit together'
    )
  recordings, used = [], set()
  parts = np.split(joints, np.cumsum(lengths)[:-1])
  for index, points in enumerate(parts):
    label = str(labels[index])
    if labels.dtype.kind != 'U':
      label = f'action {int(labels[index]):02d}'
    name = (
      f'r{index:05d}' if 'trial' not in arrays else f't{arrays["trial"][index]}'
    )
    if 'subject' in arrays:
      name = f's{arrays["subject"][index]}_{name}'
    elif 'pair' in arrays:
      name = f'{arrays["pair"][index]}_{name}'
    label = re.sub(r'[^\w ().,+-]', '_', label).strip('. ') or '_'
    name = re.sub(r'[^\w-]', '_', name)
    if (label, name) in used:
      name = f'{name}_{index:05d}'
    used.add((label, name))
    recordings.append(skeletons.Recording(name, label, points))
  return recordings, {}


def _utd_mhad(path: str | os.PathLike, skip_bad: bool) -> tuple[Set, str]:
  items, left_out = utd_mhad.skeletons(path, skip_bad=skip_bad)
  known = [
    (
      skeletons.Recording(
        item.id, item.label, item.features.reshape(len(item.features), -1, 3)
      ),
      item.split,
    )
    for item in items
  ]
  return ([recording for recording, _ in known], {'': _divide(known)}), left_out


def _divide(known) -> skeletons.Division:
  """Pairs of a recording and its split -> the lists."""
  division = {'train': [], 'validation': [], 'test': []}
  for recording, split in known:
    division[split].append(recording.file)
  return division


def _read_npz(
  path: pathlib.Path,
  names: tuple[str, ...],
  num_actions: int,
  shape: tuple[int, ...],
) -> tuple[Mapping[str, np.ndarray], list[np.ndarray]]:
  """The arrays of an .npz, and the joints of each recording."""
  names = ('lengths', 'action', 'trial', *names)
  try:
    arrays = array_files.read_npz(path, ('joints', *names))
    joints, lengths = arrays['joints'], arrays['lengths']
    counts = {len(arrays[name]) for name in names}
  except (ValueError, KeyError, OSError, TypeError) as error:
    raise ValueError(
      f'cannot read {path}: {error}. It must hold joints, {", ".join(names)}'
    ) from error
  if (
    len(counts) != 1
    or any(arrays[name].dtype.kind not in 'iu' for name in names[:2])
    or joints.dtype.kind != 'f'
    or joints.shape[1:] != shape
    or not len(lengths)
    or lengths.min() < 1
    or sum(lengths.tolist()) != len(joints)
    or not np.isfinite(joints).all()
    or arrays['action'].min() < 1
    or arrays['action'].max() > num_actions
  ):
    raise ValueError(
      f'{path} is damaged: its lengths, actions (1 to {num_actions}) and '
      f'joints [time, {", ".join(map(str, shape))}] do not fit together'
    )
  return arrays, np.split(joints, np.cumsum(lengths)[:-1])
