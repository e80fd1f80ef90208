"""`gesture_stream`: SYNTHETIC streams of a fingertip that draws in the air.

Each of 48 frames of 24 x 24 grey pixels shows the fingertip, a bright blob,
without a trace. It makes three of eight gestures, moves fast from the end of
one to the start of the next, and rests before and after.

The gestures are four and the same four backwards. A gesture and its reverse
have the same frames in the opposite order, so no single frame determines the
gesture.

Axes: T frames, H height, W width, S gestures.
"""

import math
import os
from typing import Any

import numpy as np

from video.synthetic import sprites
from video.synthetic import textures

VERSION = '1.0.0'
SIZES = {'train': 3000, 'validation': 200, 'test': 400}
LENGTH = 48
SIDE = 24
GESTURES = 3  # In a stream.

# Label 0 is no gesture, which is also the blank of CTC.
CLASSES = (
  'none',
  'clockwise',
  'counterclockwise',
  'left',
  'right',
  'up',
  'down',
  'Z',
  'reversed Z',
)
# Label -> label of the reversed gesture: int32[9].
REVERSED = np.array([0, 2, 1, 4, 3, 6, 5, 8, 7], np.int32)

_STRAIGHT = ('left', 'right', 'up', 'down')
_MARGIN = 2.5  # How close the fingertip comes to the edge, in pixels.


def example(
  split: str, index: int, *, images: str | os.PathLike | None = None
) -> dict[str, Any]:
  """Generates stream `index` of a split; it depends on the arguments alone.

  Args:
    split: 'train', 'validation' or 'test'.
    index: from 0; may exceed `SIZES`.
    images: directory of images to crop the backgrounds from; None generates
      them.

  Returns:
    'id' str, 'frames' uint8[48, 24, 24, 1], 'labels' list of 3 ints in the
    order of the gestures, 'framewise' int32[48]: the label in the second half
    of each gesture, where it can be recognised, and 0 elsewhere.
  """
  rng = np.random.default_rng((list(SIZES).index(split), index))
  labels = [int(n) for n in rng.integers(1, len(CLASSES), size=GESTURES)]
  positions, framewise = _stream(rng, labels)

  ground = textures.texture(split, images)(rng, SIDE, SIDE)
  ground = ground.mean(axis=-1, keepdims=True) * 0.3
  ink, radius = rng.uniform(190, 255), rng.uniform(1.3, 2.0)
  points = sprites.grid(SIDE, SIDE)
  squares = ((points - positions[:, None, None]) ** 2).sum(axis=-1)
  blob = np.exp(-squares / (2 * radius**2))[..., None]
  frames = ground + blob * (ink - ground)
  return {
    'id': f'{split}-{index:05d}',
    'frames': sprites.to_pixels(frames, rng, rng.uniform(2, 6)),
    'labels': labels,
    'framewise': framewise,
  }


def trace(label: int, moves: int) -> np.ndarray:
  """Positions of a gesture in `moves` equal moves: f64[moves + 1, 2].

  In the square from (-1, -1) to (1, 1), x to the right and y downwards. The
  reversed gesture has the same positions in reverse order.
  """
  share = np.linspace(0, 1, moves + 1)
  if label != min(label, REVERSED[label]):
    share = share[::-1]
  name = CLASSES[min(label, REVERSED[label])]
  if name == 'clockwise':  # From the top.
    angle = 2 * math.pi * share
    return np.stack([np.sin(angle), -np.cos(angle)], axis=-1)
  corners = {
    'left': [(1, 0), (-1, 0)],
    'up': [(0, 1), (0, -1)],
    'Z': [(-1, -1), (1, -1), (-1, 1), (1, 1)],
  }[name]
  # By thirds: a pen is faster on the long stroke.
  times = np.linspace(0, 1, len(corners))
  columns = zip(*corners, strict=True)
  return np.stack([np.interp(share, times, c) for c in columns], axis=-1)


def _stream(rng, labels) -> tuple[np.ndarray, np.ndarray]:
  """Samples positions f64[T, 2] of the fingertip, and frame labels i32[T]."""
  moves = [
    int(rng.integers(*((7, 10) if CLASSES[label] in _STRAIGHT else (10, 13))))
    for label in labels
  ]
  between = rng.integers(3, 6, size=len(labels) - 1)
  rest = LENGTH - 1 - sum(moves) - int(between.sum())
  before = int(rng.integers(1, rest + 1))

  positions, framewise = [], []
  for i, (label, count) in enumerate(zip(labels, moves, strict=True)):
    line = _position(rng, trace(label, count))
    if i == 0:
      positions += [line[0]] * before
    else:
      way = np.linspace(0, 1, between[i - 1] + 1)[1:-1, None]
      positions += list(positions[-1] + way * (line[0] - positions[-1]))
    framewise += [0] * (len(positions) - len(framewise))
    positions += list(line)
    half = (count + 1) // 2
    framewise += [0] * half + [label] * (count + 1 - half)
  positions += [positions[-1]] * (LENGTH - len(positions))
  framewise += [0] * (LENGTH - len(framewise))
  # Jitter of the hand.
  positions = np.array(positions) + rng.normal(0, 0.15, size=(LENGTH, 2))
  return positions, np.array(framewise, np.int32)


def _position(rng, line: np.ndarray) -> np.ndarray:
  """Scales, stretches, rotates and shifts a gesture at random.

  The rotation, up to 0.2 radians, makes no gesture look like another.
  """
  size = rng.uniform(4.5, 6.5) * rng.uniform(0.9, 1.1, size=2)
  turn = rng.uniform(-0.2, 0.2)
  cos, sin = math.cos(turn), math.sin(turn)
  line = line * size @ np.array([[cos, sin], [-sin, cos]])
  low = _MARGIN - line.min(axis=0)
  high = SIDE - _MARGIN - line.max(axis=0)
  return line + rng.uniform(low, high)
