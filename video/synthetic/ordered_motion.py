"""`ordered_motion`: SYNTHETIC clips of a digit that moves in two directions.

The class is the pair of directions, which are perpendicular: 'left then up' and
seven more. Frames of 32 x 32 pixels show the digit on a texture that stands
still. The digit, its position and the texture are independent of the class.

Classification needs memory. A clip of (first, second), played backwards, is a
clip of (opposite of second, opposite of first). This is another class, with the
same probability: the direction changes at one of four frames, so that phases of
(6, 9), (7, 8), (8, 7) and (9, 6) moves are equally likely. Both clips have the
same frames in another order. A classifier of bags of frames is therefore right
for at most half of the clips: `tests/test_video_synthetic_ordered_motion.py`
counts them all.

Axes: T frames, H height, W width.
"""

import math
import os
from typing import Any

import numpy as np

from video.synthetic import sprites
from video.synthetic import textures

VERSION = '1.0.0'
SIZES = {'train': 6000, 'validation': 600, 'test': 1200}
LENGTH = 16
SIDE = 32
DIGIT = 10  # The side of the square that holds the digit.
TURNS = (7, 8, 9, 10)  # First frames that show the second direction.
SPEEDS = (1, 2)  # Pixels per frame.

# x to the right, y downwards.
DIRECTIONS = {'left': (-1, 0), 'right': (1, 0), 'up': (0, -1), 'down': (0, 1)}
WAYS = tuple(
  (first, second)
  for first, (x1, y1) in DIRECTIONS.items()
  for second, (x2, y2) in DIRECTIONS.items()
  if x1 * x2 + y1 * y2 == 0
)
CLASSES = tuple(f'{first} then {second}' for first, second in WAYS)


def example(
  split: str, index: int, *, images: str | os.PathLike | None = None
) -> dict[str, Any]:
  """Generates clip `index` of a split; it depends on the arguments alone.

  Args:
    split: 'train', 'validation' or 'test'.
    index: from 0; may exceed `SIZES`.
    images: directory of images to crop the backgrounds from; None generates
      them.

  Returns:
    'id' str, 'frames' uint8[16, 32, 32, 3], 'label' int.
  """
  rng = np.random.default_rng((list(SIZES).index(split), index))
  label = int(rng.integers(len(CLASSES)))
  turn = TURNS[rng.integers(len(TURNS))]
  speed = SPEEDS[rng.integers(len(SPEEDS))]
  choices = starts(label, turn, speed)
  corners = path(label, turn, speed, choices[rng.integers(len(choices))])

  ground = textures.texture(split, images)(rng, SIDE, SIDE) * 0.6
  line, half_width = _pen(rng)
  ink = rng.uniform(190, 255, size=3)
  points = sprites.grid(DIGIT, DIGIT)
  digit = sprites.stroke(points, line + DIGIT / 2, half_width)
  frames = np.repeat(ground[None].astype(np.float32), LENGTH, axis=0)
  for frame, (x, y) in zip(frames, corners, strict=True):
    sprites.paint(frame[y : y + DIGIT, x : x + DIGIT], digit, ink)
  return {
    'id': f'{split}-{index:05d}',
    'frames': sprites.to_pixels(frames, rng, rng.uniform(2, 6)),
    'label': label,
  }


def starts(label: int, turn: int, speed: int) -> np.ndarray:
  """Upper left corners from which a path stays in the frame: int[N, 2].

  The reversed path has as many, which keeps the two equally likely.
  """
  offsets = path(label, turn, speed, np.zeros(2, int))
  low = -offsets.min(axis=0)
  high = SIDE - DIGIT - offsets.max(axis=0)
  x, y = (np.arange(low[i], high[i] + 1) for i in (0, 1))
  return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def path(label: int, turn: int, speed: int, start: np.ndarray) -> np.ndarray:
  """The upper left corner of the digit's square in each frame: int[T, 2]."""
  first, second = (DIRECTIONS[way] for way in WAYS[label])
  moves = [first] * (turn - 1) + [second] * (LENGTH - turn)
  steps = speed * np.cumsum(moves, axis=0)
  return start + np.concatenate([np.zeros((1, 2), int), steps])


# Digits, as strokes of a pen.


def _arc(x, y, radius_x, radius_y, start, stop) -> list[tuple[float, float]]:
  """An arc of an ellipse; degrees, clockwise from the right."""
  angles = np.radians(np.linspace(start, stop, 2 + abs(stop - start) // 30))
  return list(
    zip(
      x + radius_x * np.cos(angles), y + radius_y * np.sin(angles), strict=True
    )
  )


_SIX = _arc(0.45, 0.4, 1, 1.4, 270, 180) + _arc(0, 0.45, 0.55, 0.55, 180, 540)
# In the square from (-1, -1) to (1, 1).
_DIGITS = (
  _arc(0, 0, 0.6, 1, 0, 360),
  [(-0.4, -0.6), (0, -1), (0, 1)],
  [*_arc(0, -0.5, 0.6, 0.5, 180, 380), (-0.6, 1), (0.6, 1)],
  _arc(0, -0.5, 0.55, 0.5, 200, 450) + _arc(0, 0.5, 0.6, 0.5, -90, 160),
  [(0.3, 1), (0.3, -1), (-0.65, 0.4), (0.65, 0.4)],
  [(0.55, -1), (-0.4, -1), (-0.45, -0.1), *_arc(0, 0.4, 0.6, 0.6, 230, 500)],
  _SIX,
  [(-0.6, -1), (0.6, -1), (-0.2, 1)],
  _arc(0, -0.5, 0.5, 0.5, 90, 450) + _arc(0, 0.5, 0.6, 0.5, -90, 270),
  [(-x, -y) for x, y in _SIX],
)


def _pen(rng) -> tuple[np.ndarray, float]:
  """Samples a distorted digit around (0, 0): f32[N, 2], and a half width."""
  line = np.array(_DIGITS[rng.integers(len(_DIGITS))])
  phases = rng.uniform(0, 2 * math.pi, size=2)
  line = line + 0.1 * np.sin(2.5 * line[:, ::-1] + phases)
  turn, slant = rng.normal(0, 0.12), rng.normal(0, 0.2)
  cos, sin = math.cos(turn), math.sin(turn)
  hand = np.array([[cos, -sin], [sin, cos]]) @ [[1, slant], [0, 1]]
  line = line @ hand.T * rng.uniform((0.75, 0.85), (1.1, 1.1))
  half_width = rng.uniform(0.6, 1.0)
  line = (line - (line.max(axis=0) + line.min(axis=0)) / 2).astype(np.float32)
  room = DIGIT / 2 - half_width
  size = rng.uniform(0.85, 1) * room / np.abs(line).max()
  return size * line, half_width
