"""What may be done to a recording without making it one of something else.

Labels follow where a mirror, or time that runs backwards, makes one thing
another. NumPy only; all randomness comes from a generator that is passed in.

Axes: T time, H height, W width, C channels, J joints, V classes.
"""

import re
from collections.abc import Sequence

import numpy as np

# Name of a flip -> axes of uint8[T, H, W, C]; what changes places in the names
# of classes: words, or whole names.
_SIDES, _HEIGHTS = ('left', 'right'), ('up', 'down')
_TURNING = ('clockwise', 'counterclockwise')
_MIRRORED_Z = ('Z', 'mirrored Z')
FLIPS = {
  'left_right': ((2,), (_SIDES, _TURNING, _MIRRORED_Z)),
  'up_down': ((1,), (_HEIGHTS, _TURNING, _MIRRORED_Z)),
  # Which draws a Z from its end.
  'half_turn': ((1, 2), (_SIDES, _HEIGHTS, ('Z', 'reversed Z'))),
}


def flipped_labels(flip: str, names: Sequence[str]) -> np.ndarray:
  """Label -> the label after a flip, by the words of their names: i32[V].

  Args:
    flip: a key of `FLIPS`.
    names: of the classes, such as 'left then up'.

  Raises:
    ValueError: no such flip; or it makes of a class what is none.
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
  """Flips all frames of uint8[T, H, W, C] alike."""
  return np.flip(frames, FLIPS[flip][0])


def random_span(
  length: int, least: float, rng: np.random.Generator
) -> tuple[int, int]:
  """The start and stop of a random part of a recording of `length` frames.

  Args:
    length: at least 1.
    least: the smallest share of it that may be left, up to 1.
    rng: all randomness.
  """
  size = max(1, round(length * rng.uniform(least, 1)))
  start = rng.integers(length - size + 1)
  return int(start), int(start + size)


def shift(
  frames: np.ndarray, most: int, rng: np.random.Generator
) -> np.ndarray:
  """Moves all frames by the same few pixels, up to `most` each way.

  uint8[T, H, W, C] -> the same; what comes in at an edge repeats it.
  """
  down, right = rng.integers(-most, most + 1, size=2)
  height, width = frames.shape[1:3]
  rows = np.clip(np.arange(height) - down, 0, height - 1)
  columns = np.clip(np.arange(width) - right, 0, width - 1)
  return frames[:, rows[:, None], columns]


def zoom(frames: np.ndarray, factor: float) -> np.ndarray:
  """Enlarges around the centre, or shrinks: uint8[T, H, W, C] -> the same.

  By the nearest pixel, which invents no depth between two; what comes in at an
  edge repeats it.
  """
  places = []
  for size in frames.shape[1:3]:
    centre = (size - 1) / 2
    at = np.rint(centre + (np.arange(size) - centre) / factor)
    places.append(np.clip(at, 0, size - 1).astype(int))
  return frames[:, places[0][:, None], places[1]]


def brighten(frames: np.ndarray, change: float) -> np.ndarray:
  """Adds to all pixels but those of 0, no reading: uint8 -> uint8.

  Of depth it is as if all were nearer by so much.
  """
  moved = np.clip(frames.astype(np.float32) + change, 1, 255)
  return np.where(frames == 0, 0, np.rint(moved)).astype(np.uint8)


def permute_channels(
  frames: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
  """Gives all frames other colours, the same: uint8[T, H, W, C]."""
  return frames[..., rng.permutation(frames.shape[-1])]


# Features in space: f32[T, J, 3], metres, the second axis upwards.


def relative_to(points: np.ndarray, joint: int) -> np.ndarray:
  """Seen from where a joint is in the first frame: f32[T, J, D] -> the same."""
  return points - points[:1, joint : joint + 1]


def rotation(
  points: np.ndarray, angle: float, axes: tuple[int, int]
) -> np.ndarray:
  """Turns around the origin, in the plane of two axes: f32[T, J, D].

  Args:
    points: f32[T, J, D].
    angle: in radians, from the first of the axes to the second.
    axes: (0, 2) turns about the vertical, (0, 1) in the picture.
  """
  first, second = axes
  cos, sin = np.cos(angle), np.sin(angle)
  turned = points.copy()
  turned[..., first] = cos * points[..., first] - sin * points[..., second]
  turned[..., second] = sin * points[..., first] + cos * points[..., second]
  return turned
