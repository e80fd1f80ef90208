"""Reads sequences of pictures in which one thing is followed, OTB's layout.

Axes: T time.
"""

import dataclasses
import os
import pathlib
import re

import numpy as np

from training import problems as problems_lib
from video import frames as frames_lib
from video.sources import clips
from vision import images

# Where OTB annotates a part of the frames: the first and the last of them.
_PARTS = {
  'david': (300, 770),
  'diving': (1, 215),
  'football1': (1, 74),
  'freeman3': (1, 460),
  'freeman4': (1, 283),
}


@dataclasses.dataclass(frozen=True)
class Track:
  """Frames, and where one thing is in each of them."""

  id: str
  split: str
  pictures: tuple[pathlib.Path, ...]
  boxes: np.ndarray  # f32[T, 4]: x, y of the upper left corner, w, h; pixels.
  hidden: np.ndarray  # bool[T]: the file says that it is not to be seen.


def otb(
  directory: str | os.PathLike, *, split: str = 'test', skip_bad: bool = False
) -> tuple[list[Track], str]:
  """OTB's sequences: folders with img/ and groundtruth_rect.txt.

  Numbers may be separated by commas, tabs or spaces. Where two things are
  followed (groundtruth_rect.1.txt, groundtruth_rect.2.txt) there are two
  tracks. OTB counts pixels from 1; here the first is 0. A box that is empty or
  no number says that the thing is not to be seen.

  Returns:
    The good tracks, and a text that lists what is wrong with the others.
  """
  directory = clips.check_directory(directory, "of OTB's sequences")
  if (directory / 'img').is_dir():
    folders = [directory]
  else:
    folders = clips.folders(directory)
  problems = problems_lib.Problems()
  tracks = []
  for folder in folders:
    found = sorted(folder.glob('groundtruth_rect*.txt'))
    if not found or not (folder / 'img').is_dir():
      problems['no img/ or no groundtruth_rect.txt'].append(str(folder))
    for path in found:
      number = path.name.removeprefix('groundtruth_rect').removesuffix('.txt')
      try:
        track = _read_track(path, split)
      except ValueError as error:
        problems['boxes or pictures that do not fit together'].append(
          str(error)
        )
        continue
      tracks.append(
        dataclasses.replace(track, id=folder.name + number.replace('.', '-'))
      )
  errors = problems_lib.find(_picture_error, tracks, unit='sequences')
  problems['picture that cannot be decoded'] += filter(None, errors)
  good = [t for t, e in zip(tracks, errors, strict=True) if e is None]
  return good, problems.settle(directory, len(good), skip_bad=skip_bad)


def _read_track(path: pathlib.Path, split: str) -> Track:
  paths = frames_lib.pictures(path.parent / 'img')
  part = _PARTS.get(path.parent.name.lower())
  rows = [re.split(r'[,\s]+', line.strip(' ,\t')) for line in clips.lines(path)]
  wrong = [i for i, row in enumerate(rows, start=1) if len(row) != 4]
  try:
    boxes = np.array(rows, np.float32) if not wrong else None
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error
  if boxes is None:
    raise ValueError(
      f'{path}: line {wrong[0]} does not hold four numbers x, y, w, h'
    )
  if part is not None and len(paths) > len(boxes):
    paths = paths[part[0] - 1 : part[1]]
  if len(paths) != len(boxes):
    raise ValueError(f'{path}: {len(boxes)} boxes for {len(paths)} pictures')
  hidden = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] <= 0).any(axis=1)
  if hidden[0]:
    raise ValueError(f'{path}: no box in the first frame to begin with')
  boxes[hidden] = 0
  boxes[~hidden, :2] -= 1
  return Track(path.parent.name, split, tuple(paths), boxes, hidden)


def _picture_error(track: Track) -> str | None:
  try:
    sizes = {images.decode(path).shape for path in track.pictures}
  except (ValueError, OSError) as error:
    return str(error)
  if len(sizes) > 1:
    return f'the pictures of {track.id} differ in size: {sorted(sizes)}'
  return None
