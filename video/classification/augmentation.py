"""Random changes of recordings that keep their class, or map it to another.

NumPy only; all randomness comes from the generators that are passed in.

Axes: T time, H height, W width, C channels, J joints, V classes.
"""

import re
from collections.abc import Sequence

import numpy as np

# Name of a flip -> axes of uint8[T, H, W, C], and the words or whole names of
# classes that it exchanges.
_SIDES, _HEIGHTS = ('left', 'right'), ('up', 'down')
_TURNING = ('clockwise', 'counterclockwise')
_MIRRORED_Z = ('Z', 'mirrored Z')
FLIPS = {
  'left_right': ((2,), (_SIDES, _TURNING, _MIRRORED_Z)),
  'up_down': ((1,), (_HEIGHTS, _TURNING, _MIRRORED_Z)),
  # A Z turned by half a turn is drawn from its end.
  'half_turn': ((1, 2), (_SIDES, _HEIGHTS, ('Z', 'reversed Z'))),
}


def flipped_labels(flip: str, names: Sequence[str]) -> np.ndarray:
  """Label -> label after a flip, from the names of the classes: i32[V].

  Args:
    flip: a key of `FLIPS`.
    names: of the classes, such as 'left then up'.

  Raises:
    ValueError: the flip is unknown, or maps a class to none of `names`.
  """
  if flip not in FLIPS:
    raise ValueError(f'flip {flip!r} is none of {", ".join(FLIPS)}')
  exchanged = {}
  for one, other in FLIPS[flip][1]:
    exchanged |= {one: other, other: one}
  table = []
  for name in names:
    new = exchanged.get(name) or re.sub(
      '[A-Za-z]+', lambda word: exchanged.get(word[0], word[0]), name
    )
    if new not in names:
      raise ValueError(
        f'the flip {flip} makes {name!r} into {new!r}, which is no class: '
        'leave it out of augmentation.flips'
      )
    table.append(names.index(new))
  return np.array(table, np.int32)


def flip_frames(frames: np.ndarray, flip: str) -> np.ndarray:
  """Flips all frames in the same way: uint8[T, H, W, C] -> the same."""
  return np.flip(frames, FLIPS[flip][0])


def random_span(
  length: int, min_span: float, rng: np.random.Generator
) -> tuple[int, int]:
  """Samples the start and stop of a part of a recording.

  Args:
    length: frames of the recording, at least 1.
    min_span: smallest share of the recording, up to 1.
    rng: random generator.
  """
  size = max(1, round(length * rng.uniform(min_span, 1)))
  start = rng.integers(length - size + 1)
  return int(start), int(start + size)


def shift(
  frames: np.ndarray, max_shift: int, rng: np.random.Generator
) -> np.ndarray:
  """Shifts all frames by the same random offset: uint8[T, H, W, C] -> the same.

  Edge pixels are repeated.

  Args:
    frames: uint8[T, H, W, C].
    max_shift: largest offset in each direction, in pixels.
    rng: random generator.
  """
  down, right = rng.integers(-max_shift, max_shift + 1, size=2)
  height, width = frames.shape[1:3]
  rows = np.clip(np.arange(height) - down, 0, height - 1)
  columns = np.clip(np.arange(width) - right, 0, width - 1)
  return frames[:, rows[:, None], columns]


def zoom(frames: np.ndarray, factor: float) -> np.ndarray:
  """Scales around the centre: uint8[T, H, W, C] -> the same.

  Takes the nearest pixel, since a depth between two depths may not exist. Edge
  pixels are repeated.
  """
  indices = []
  for size in frames.shape[1:3]:
    centre = (size - 1) / 2
    nearest = np.rint(centre + (np.arange(size) - centre) / factor)
    indices.append(np.clip(nearest, 0, size - 1).astype(int))
  return frames[:, indices[0][:, None], indices[1]]


def brighten(frames: np.ndarray, change: float) -> np.ndarray:
  """Adds `change` to all pixels but those of 0: uint8 -> uint8.

  In depth images 0 means no reading, and the change is a shift in depth.
  """
  moved = np.clip(frames.astype(np.float32) + change, 1, 255)
  return np.where(frames == 0, 0, np.rint(moved)).astype(np.uint8)


def permute_channels(
  frames: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
  """Permutes the colour channels of all frames alike: uint8[T, H, W, C]."""
  return frames[..., rng.permutation(frames.shape[-1])]


# Points: f32[T, J, D]; skeletons are in metres, with the second axis upwards.


def shuffle_persons(
  points: np.ndarray, persons: int, rng: np.random.Generator
) -> np.ndarray:
  """Permutes persons, in all frames alike: f32[T, J, D] -> the same.

  Args:
    points: f32[T, J, D], the joints of one person after those of another.
    persons: a divisor of J.
    rng: random generator.

  Raises:
    ValueError: J is no multiple of `persons`.
  """
  if points.shape[1] % persons:
    raise ValueError(
      f'{points.shape[1]} joints are not of {persons} persons: pass '
      '--config.augmentation.persons=0'
    )
  parts = points.reshape(len(points), persons, -1, points.shape[2])
  return parts[:, rng.permutation(persons)].reshape(points.shape)


def relative_to(points: np.ndarray, joint: int) -> np.ndarray:
  """Subtracts the position of a joint in the first frame: f32[T, J, D]."""
  return points - points[:1, joint : joint + 1]


def rotate(
  points: np.ndarray, angle: float, axes: tuple[int, int]
) -> np.ndarray:
  """Rotates points around the origin, in the plane of two axes: f32[T, J, D].

  Args:
    points: f32[T, J, D].
    angle: in radians, from the first of the axes to the second.
    axes: (0, 2) rotates about the vertical, (0, 1) in the image plane.
  """
  first, second = axes
  cos, sin = np.cos(angle), np.sin(angle)
  rotated = points.copy()
  rotated[..., first] = cos * points[..., first] - sin * points[..., second]
  rotated[..., second] = sin * points[..., first] + cos * points[..., second]
  return rotated
