"""Reads skeletons of any sensor: a folder per class, and lists of splits.

  mine/wave/s01_1.npy           one recording, a .npy, .npz, .csv or .mat file
  mine/lists/train.txt          'wave/s01_1.npy' in a line, for each recording,
  mine/lists/test.txt           or 's01' for all recordings of a person
  mine/lists/validation.txt     may be absent

A recording is f32[T, J, D] or, of several persons, f32[T, P, J, D], with D 2 or
3. Also [T, P * J * D], a line of numbers for each frame in a .csv, and
MATLAB's order [J, D, T]. All recordings of a data set have the same joints.

The directory of the lists may have folders instead, each with such lists: the
folds of a cross-validation, or other divisions of the same recordings. Each is
a data set of its own, and recordings that it does not list are left out.

Axes: T time, P persons, J joints, D dimensions, N = P * J * D.
"""

import collections
import dataclasses
import os
import pathlib
import re
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from training import array_files
from training import directories
from training import problems as problems_lib
from training import text_files
from video.sources import clips
from video.sources import fingertips
from video.sources import matlab

LISTS = 'lists'
_ENDINGS = ('.npy', '.npz', '.csv', '.mat')
# Of a person, in the name of a recording: s01s02_1, a1_s3_t2, subject4-b.
_PERSON = re.compile(r'(?:^|[_-])((?:(?:s|p|subject|person)\d+)+)(?=[_-]|$)')
# One group of this many of the training list is for validation.
_HELD_OUT_EVERY = 9


@dataclasses.dataclass(frozen=True)
class Recording:
  """A recording of persons that do one thing."""

  name: str
  label: str
  points: np.ndarray  # f32[T, J, D] or f32[T, P, J, D]; NaN where unseen.

  @property
  def file(self) -> str:
    """Its path below the directory of the classes, as lists have it."""
    return f'{self.label}/{self.name}.npy'


# Of a division: split -> files, as in the lists.
Division = Mapping[str, Sequence[str]]


def write(
  directory: str | os.PathLike,
  recordings: Iterable[Recording],
  divisions: Mapping[str, Division],
):
  """Writes recordings and lists as `read` reads them.

  Args:
    directory: a new one.
    recordings: with unique files.
    divisions: name -> division; the name '' stands for the only one.
  """
  directory = pathlib.Path(directory)
  for recording in recordings:
    path = directory / recording.file
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, recording.points.astype(np.float32))
  for name, division in divisions.items():
    lists = directory / LISTS / name
    lists.mkdir(parents=True, exist_ok=True)
    for split, files in division.items():
      (lists / f'{split}.txt').write_text(''.join(f'{f}\n' for f in files))


def read(
  directory: str | os.PathLike,
  lists: str | os.PathLike | None = None,
  *,
  skip_bad: bool = False,
) -> tuple[dict[str, list[fingertips.Features]], str]:
  """Reads the data sets of a directory, a folder for each class.

  Points that are not finite are interpolated over time; those that are never
  seen become 0. Of several persons the one that moves most is the first, as in
  the code of DeepGRU (Maghoumi and LaViola 2019). Where the name of a file
  names a person (`s3` in `a1_s3_t2`), that is its group.

  Without lists a tenth of the groups each is for validation and for testing, by
  the hash of the group. Without a list for validation, every ninth group of the
  training list is. A group is a recording where no person is named.

  Args:
    directory: directory of the folders.
    lists: directory of the lists; by default `directory`/lists, if it is there.
    skip_bad: leave out bad recordings instead of raising an error.

  Returns:
    Name of the division ('' if there are no folders of lists) -> recordings,
    with features f32[T, N], by class; and a text that lists the problems of
    those left out.

  Raises:
    ValueError: it lists all problems, unless `skip_bad`.
  """
  directory = clips.check_directory(directory, 'of folders, one a class')
  problems = problems_lib.Problems()
  beside = directory / LISTS
  if lists is not None:
    beside = clips.check_directory(lists, 'of train.txt and test.txt')
  found = _read_classes(directory, beside, problems)
  divisions = _read_divisions(beside, found, problems)
  report = problems.raise_unless_skipped(
    directory, len(found), skip_bad=skip_bad
  )
  if not divisions:
    splits = {name: clips.split_of(item.group) for name, item in found.items()}
    divisions = {'': splits}
  return {
    division: [
      dataclasses.replace(item, split=splits[name])
      for name, item in found.items()
      if name in splits
    ]
    for division, splits in divisions.items()
  }, report


def read_points(path: str | os.PathLike) -> np.ndarray:
  """Reads one recording: f32[T, N].

  Raises:
    OSError: the file cannot be opened.
    ValueError: it is damaged, or holds something else.
  """
  path = pathlib.Path(path)
  ending = path.suffix.lower()
  if ending == '.csv':
    points = _read_csv(path)
  elif ending == '.mat':
    try:
      points = matlab.read_only(path)
    except ValueError as error:
      raise ValueError(f'cannot read {path}: {error}') from error
  elif ending in ('.npy', '.npz'):
    points = array_files.read(path, 'features', alone=True)
  else:
    raise ValueError(f'{path} is none of {", ".join(_ENDINGS)}')
  if points.dtype.kind not in 'fiu' or not points.size:
    raise ValueError(f'{path} holds {points.dtype}{list(points.shape)}')
  points = points.astype(np.float32)
  if points.ndim == 3 and points.shape[2] not in (2, 3):
    points = np.moveaxis(points, 2, 0)  # [J, D, T].
  if points.ndim not in (2, 3, 4) or (
    points.ndim > 2 and points.shape[-1] not in (2, 3)
  ):
    raise ValueError(
      f'{path} holds {list(points.shape)}: a recording is [time, joints, 2 or '
      '3], [time, persons, joints, 2 or 3], or [time, numbers]'
    )
  flat = _interpolated(points.reshape(len(points), -1))
  if points.ndim == 4:
    flat = _most_active_first(flat, points.shape[1])
  return flat


def _read_csv(path: pathlib.Path) -> np.ndarray:
  """A line of numbers for each frame, after at most one of names."""
  rows = text_files.rows(path)
  values, width = [], None
  for index, (number, row) in enumerate(rows):
    try:
      # Where nothing was seen, the cell is empty.
      values.append([float(cell) if cell.strip() else np.nan for cell in row])
    except ValueError as error:
      if index == 0:  # The names of the columns.
        continue
      raise ValueError(
        f'{path}: line {number} must hold numbers only: '
        f'{text_files.reason(error)}'
      ) from error
    width = width or len(row)
    if len(row) != width:
      raise ValueError(
        f'{path}: line {number} has {len(row)} numbers, others {width}'
      )
  return np.array(values, np.float32)


def _interpolated(points: np.ndarray) -> np.ndarray:
  """Replaces what is not finite by its neighbours in time: f32[T, N]."""
  seen = np.isfinite(points)
  if seen.all():
    return points
  points, times = points.copy(), np.arange(len(points))
  for column in np.flatnonzero(~seen.all(axis=0)):
    known = seen[:, column]
    points[:, column] = (
      np.interp(times, times[known], points[known, column])
      if known.any()
      else 0
    )
  return points


def _most_active_first(points: np.ndarray, persons: int) -> np.ndarray:
  """Sorts persons by the length of the paths of their joints: f32[T, N]."""
  parts = points.reshape(len(points), persons, -1)
  motion = np.abs(np.diff(parts, axis=0)).sum(axis=(0, 2))
  order = np.argsort(-motion, kind='stable')
  return np.ascontiguousarray(parts[:, order].reshape(len(points), -1))


def _read_classes(directory, lists, problems):
  """File of the lists -> recording, for all that can be read."""
  found, paths = {}, {}
  for folder in clips.folders(directory):
    if folder == lists:
      continue
    present = [
      path
      for path in directories.entries(folder)
      if path.suffix.lower() in _ENDINGS
    ]
    if not present:
      problems['class without recordings'].append(str(folder))
    for path in present:
      paths[f'{folder.name}/{path.name}'] = path
  read_by_name = {}

  def error_of(name: str) -> str | None:
    try:
      read_by_name[name] = read_points(paths[name])
    except (ValueError, OSError) as error:
      return str(error)
    return None

  errors = problems_lib.find(error_of, list(paths), unit='recordings')
  problems['recording that cannot be read'] += filter(None, errors)
  widths = collections.Counter(x.shape[1] for x in read_by_name.values())
  usual = widths.most_common(1)[0][0] if widths else 0
  for name in paths:
    points = read_by_name.get(name)
    if points is None:
      continue
    if points.shape[1] != usual:
      problems['not the numbers of the other recordings'].append(
        f'{name}: {points.shape[1]} numbers in a frame instead of {usual}'
      )
      continue
    label, _, file = name.partition('/')
    person = _PERSON.search(pathlib.PurePath(file).stem.lower())
    found[name] = fingertips.Features(
      id=name,
      split='',
      features=points,
      label=label,
      group=person[1] if person else name,
    )
  return found


def _read_divisions(lists, found, problems) -> dict[str, dict[str, str]]:
  """Name of a division -> file -> split; empty without lists."""
  if not lists.is_dir():
    return {}
  named = {folder.name: folder for folder in clips.folders(lists)}
  known = {}  # Without the ending, too.
  for name in found:
    known[name] = known[name.rpartition('.')[0]] = name
  groups = collections.defaultdict(list)
  for name, item in found.items():
    if item.group != name:
      groups[item.group].append(name)
  divisions = {}
  for division, folder in (named or {'': lists}).items():
    if division and not re.fullmatch(r'\w+', division, re.ASCII):
      raise ValueError(
        f'{folder}: name it with letters, digits and underscores only'
      )
    splits = {}
    for split in clips.SPLITS:
      path = folder / f'{split}.txt'
      if split == 'validation' and not path.exists():
        continue
      for number, line in text_files.lines(path):
        line = line.strip().replace('\\', '/')
        names = [known[line]] if line in known else groups.get(line.lower())
        if not names:
          problems['listed, and not read'].append(
            f'{path}: line {number}: {line[:200]}'
          )
          continue
        if not splits.keys().isdisjoint(names):
          problems['listed twice'].append(f'{path}: {line[:200]}')
        for name in names:
          splits.setdefault(name, split)
    if 'validation' not in splits.values():
      _hold_out(splits, found)
    divisions[division] = splits
  return divisions


def _hold_out(splits: dict[str, str], found):
  """Turns some groups of the training split to validation."""
  groups = sorted(
    {found[name].group for name, split in splits.items() if split == 'train'}
  )
  held_out = set(groups[4::_HELD_OUT_EVERY] or groups[-1:])
  for name, split in splits.items():
    if split == 'train' and found[name].group in held_out:
      splits[name] = 'validation'
