"""Reads tracking sequences in the layout of OTB.

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

# Sequences of which OTB annotates a part: its first and its last frame.
_PARTS = {
  'david': (300, 770),
  'diving': (1, 215),
  'football1': (1, 74),
  'freeman3': (1, 460),
  'freeman4': (1, 283),
}


@dataclasses.dataclass(frozen=True)
class Track:
  """A sequence of frames with the box of one target in each."""

  id: str
  split: str
  paths: tuple[pathlib.Path, ...]  # Of the frames.
  boxes: np.ndarray  # f32[T, 4]: x, y of the upper left corner, w, h; pixels.
  hidden: np.ndarray  # bool[T]: the target is annotated as not visible.


def otb(
  directory: str | os.PathLike, *, split: str = 'test', skip_bad: bool = False
) -> tuple[list[Track], str]:
  """Reads OTB's sequences: folders with img/ and groundtruth_rect.txt.

  Numbers may be separated by commas, tabs or spaces. A sequence with two
  targets (groundtruth_rect.1.txt, groundtruth_rect.2.txt) makes two tracks.
  OTB counts pixels from 1, a track from 0. An empty box or NaN means that the
  target is hidden.

  Args:
    directory: of the sequences, or of one of them.
    split: the split of all tracks.
    skip_bad: leave out bad sequences instead of raising an error.

  Returns:
    The good tracks, and a text that lists the problems of the others.

  Raises:
    ValueError: it lists all problems, unless `skip_bad`.
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
        problems['boxes or images that do not fit together'].append(str(error))
        continue
      tracks.append(
        dataclasses.replace(track, id=folder.name + number.replace('.', '-'))
      )
  errors = problems_lib.find(_decoding_error, tracks, unit='sequences')
  problems['image that cannot be decoded'] += filter(None, errors)
  good = [t for t, e in zip(tracks, errors, strict=True) if e is None]
  return good, problems.raise_unless_skipped(
    directory, len(good), skip_bad=skip_bad
  )


def _read_track(path: pathlib.Path, split: str) -> Track:
  paths = frames_lib.image_paths(path.parent / 'img')
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
    raise ValueError(f'{path}: {len(boxes)} boxes for {len(paths)} images')
  hidden = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] <= 0).any(axis=1)
  if hidden[0]:
    raise ValueError(f'{path}: the first frame has no box')
  boxes[hidden] = 0
  boxes[~hidden, :2] -= 1
  return Track(path.parent.name, split, tuple(paths), boxes, hidden)


def _decoding_error(track: Track) -> str | None:
  try:
    sizes = {images.decode(path).shape for path in track.paths}
  except (ValueError, OSError) as error:
    return str(error)
  if len(sizes) > 1:
    return f'the images of {track.id} differ in size: {sorted(sizes)}'
  return None
