"""Reads tracking sequences: frames, and the box of one target in each.

The layout of a folder is known by its files:

  OTB      img/, and groundtruth_rect.txt or groundtruth_rect.1.txt, ...
  LaSOT    img/, and groundtruth.txt (Fan et al. 2019)
  GOT-10k  frames, groundtruth.txt and meta_info.ini (Huang et al. 2019)
  VOT      color/ or frames, and groundtruth.txt of boxes or of corners (Kristan
           et al. 2016)

Axes: T time.
"""

import dataclasses
import os
import pathlib
import re

import numpy as np

from training import directories
from training import problems as problems_lib
from training import text_files
from video import frames as frames_lib
from video.sources import clips
from vision import images

# Sequences of which OTB annotates a part: its first and its last frame.
_PARTS = {
  'david': (300, 770),
  'diving': (1, 215),
  'football1': (1, 74),
  'freeman3': (1, 460),
  'freeman4': (1, 283),
  'tiger1': (6, 354),
}
# Folders of GOT-10k's sequences -> their split.
_SPLITS = {'train': 'train', 'val': 'validation', 'test': 'test'}
_MAX_DEPTH = 3  # Of a sequence below the directory: LaSOT's have a class.


@dataclasses.dataclass(frozen=True)
class Track:
  """A sequence of frames with the box of one target in each."""

  id: str
  split: str
  paths: tuple[pathlib.Path, ...]  # Of the frames.
  boxes: np.ndarray  # f32[T, 4]: x, y of the upper left corner, w, h; pixels.
  hidden: np.ndarray  # bool[T]: the target is annotated as not visible.


def read(
  directory: str | os.PathLike, *, split: str = 'test', skip_bad: bool = False
) -> tuple[list[Track], str]:
  """Reads sequences in one of the layouts above.

  Numbers may be separated by commas, tabs or spaces. A sequence of OTB with two
  targets (groundtruth_rect.1.txt, groundtruth_rect.2.txt) makes two tracks. OTB
  counts pixels from 1, a track from 0; the boxes of others are taken as they
  are. Corners become the box around them. The target is hidden where its box is
  empty or NaN or outside of the frame, or where full_occlusion.txt and
  out_of_view.txt (LaSOT) or absence.label (GOT-10k) say so.

  Args:
    directory: of the sequences, of folders of them, or of one of them.
    split: the split of all tracks, but for those of GOT-10k in folders `train`,
      `val` and `test`, and those of LaSOT if there is a testing_set.txt.
    skip_bad: leave out bad sequences instead of raising an error.

  Returns:
    The good tracks, and a text that lists the problems of the others.

  Raises:
    ValueError: it lists all problems, unless `skip_bad`.
  """
  directory = clips.check_directory(directory, 'of the sequences')
  problems = problems_lib.Problems()
  testing = directory / 'testing_set.txt'
  listed = None
  if testing.is_file():
    listed = {name for _, name in text_files.lines(testing)}
  tracks = []
  for folder in _sequences(directory, problems):
    for path in _truths(folder):
      number = re.sub(r'^groundtruth(_rect)?|\.txt$', '', path.name)
      name = folder.name + number.replace('.', '-')
      its_split = _SPLITS.get(folder.parent.name, split)
      if listed is not None:
        its_split = 'test' if folder.name in listed else 'train'
      try:
        tracks.append(_read_track(path, name, its_split))
      except (ValueError, OSError) as error:
        problems['boxes or images that do not fit together'].append(str(error))
  unique, seen = [], set()
  for track in tracks:
    if track.id in seen:
      problems['name of another sequence'].append(track.id)
    else:
      seen.add(track.id)
      unique.append(track)
  sizes = {}

  def error_of(track: Track) -> str | None:
    try:
      sizes[track.id] = _size(track)
    except (ValueError, OSError) as error:
      return str(error)
    return None

  errors = problems_lib.find(error_of, unique, unit='sequences')
  problems['image that cannot be decoded'] += filter(None, errors)
  good = []
  for track in unique:
    if track.id in sizes:
      try:
        good.append(_within(track, *sizes[track.id]))
      except ValueError as error:
        problems['first box outside of the frame'].append(str(error))
  return good, problems.raise_unless_skipped(
    directory, len(good), skip_bad=skip_bad
  )


def _truths(folder: pathlib.Path) -> list[pathlib.Path]:
  """The files of boxes of a sequence."""
  found = directories.matching(folder, 'groundtruth_rect*.txt')
  return found or directories.matching(folder, 'groundtruth.txt')


def _sequences(
  directory: pathlib.Path, problems, depth: int = 0
) -> list[pathlib.Path]:
  """The folders with boxes, at some depth."""
  if _truths(directory):
    return [directory]
  found = []
  if depth < _MAX_DEPTH:
    for folder in clips.folders(directory):
      found += _sequences(folder, problems, depth + 1)
  if not found:
    problems['no groundtruth_rect.txt or groundtruth.txt'].append(
      str(directory)
    )
  return found


def _frames(folder: pathlib.Path) -> list[pathlib.Path]:
  for inside in ('img', 'color'):
    if (folder / inside).is_dir():
      return frames_lib.image_paths(folder / inside)
  return frames_lib.image_paths(folder)


def _read_track(path: pathlib.Path, name: str, split: str) -> Track:
  folder = path.parent
  of_otb = path.name.startswith('groundtruth_rect')
  paths = _frames(folder)
  boxes = _read_boxes(path)
  part = _PARTS.get(folder.name.lower()) if of_otb else None
  if part is not None:
    annotated = slice(part[0] - 1, part[1])
    # Boxes of the part alone, or of all images.
    if len(boxes) == len(paths) >= part[1]:
      boxes = boxes[annotated]
    if len(paths) > len(boxes):
      paths = paths[annotated]
  if len(paths) != len(boxes):
    hint = ''
    if len(boxes) == 1:
      hint = ': the boxes of test sets are not published'
    raise ValueError(
      f'{path}: {len(boxes)} boxes for {len(paths)} images{hint}'
    )
  hidden = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] <= 0).any(axis=1)
  for beside in ('full_occlusion.txt', 'out_of_view.txt', 'absence.label'):
    if (folder / beside).is_file():
      hidden |= _read_flags(folder / beside, len(boxes))
  if hidden[0]:
    raise ValueError(f'{path}: the first frame has no box')
  boxes[hidden] = 0
  if of_otb:
    boxes[~hidden, :2] -= 1
  return Track(name, split, tuple(paths), boxes, hidden)


def _read_boxes(path: pathlib.Path) -> np.ndarray:
  """Boxes x, y, w, h or corners x1, y1, x2, y2, ... -> f32[T, 4]."""
  boxes = []
  for number, line in text_files.lines(path):
    row = re.split(r'[,\s]+', line.strip(' ,\t'))
    if len(row) != 4 and (len(row) < 6 or len(row) % 2 or len(row) > 100):
      raise ValueError(
        f'{path}: line {number} does not hold four numbers x, y, w, h'
      )
    try:
      values = np.array(row, np.float32)
    except ValueError as error:
      raise ValueError(
        f'{path}: line {number}: {text_files.reason(error)}'
      ) from error
    if len(row) != 4:
      corners = values.reshape(-1, 2)
      low, high = corners.min(axis=0), corners.max(axis=0)
      values = np.concatenate([low, high - low])
    boxes.append(values)
  if not boxes:
    raise ValueError(f'{path} is empty')
  return np.stack(boxes)


def _read_flags(path: pathlib.Path, count: int) -> np.ndarray:
  """Flags 0 and 1, separated in any way: bool[count]."""
  flags = re.split(r'[,\s]+', text_files.read(path).strip(' ,\t\n'))
  if len(flags) != count or not set(flags) <= {'0', '1'}:
    raise ValueError(f'{path} does not hold {count} flags 0 or 1')
  return np.array([flag == '1' for flag in flags])


def _size(track: Track) -> tuple[int, int]:
  """The height and the width of all frames.

  Raises:
    ValueError: one cannot be decoded, or they differ.
  """
  sizes = {images.decode(path).shape for path in track.paths}
  if len(sizes) > 1:
    raise ValueError(
      f'the images of {track.id} differ in size: {sorted(sizes)}'
    )
  return sizes.pop()[:2]


def _within(track: Track, height: int, width: int) -> Track:
  """The track, hidden where its box is outside of the frame.

  Raises:
    ValueError: no tracker can start, since the centre of the first is outside.
  """
  corner, size = track.boxes[:, :2], track.boxes[:, 2:]
  center = corner[0] + size[0] / 2
  if np.any(center < 0) or np.any(center > (width, height)):
    raise ValueError(
      f'{track.id}: the centre of {track.boxes[0].tolist()} is outside of '
      f'{width} x {height} pixels'
    )
  outside = np.any((corner + size <= 0) | (corner >= (width, height)), axis=1)
  hidden = track.hidden | outside
  boxes = np.where(hidden[:, None], 0, track.boxes).astype(np.float32)
  return dataclasses.replace(track, boxes=boxes, hidden=hidden)
