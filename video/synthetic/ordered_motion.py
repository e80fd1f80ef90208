"""`ordered_motion`: SYNTHETIC clips of a digit that moves one way, then on.

The class says both ways, which are perpendicular: 'left then up' and seven
more. Frames of 32 x 32 pixels show the digit on a texture that stands still;
the digit, its place and the texture say nothing of the class.

Only memory does. Played backwards, a clip of (first, second) is one of
(opposite of second, opposite of first), which is another class, and just as
likely: the turn is at one of four frames, so that the phases of (6, 9), (7, 8),
(8, 7) and (9, 6) moves are exchangeable. Both clips have the same frames, in
another order. Whoever sees the frames as a bag is therefore right about at most
half of the clips: `tests/test_video_ordered_motion.py` counts them all.

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
TURNS = (7, 8, 9, 10)  # The first frame after the second phase has begun.
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

_LEFT_RIGHT = {'left': 'right', 'right': 'left', 'up': 'up', 'down': 'down'}
_UP_DOWN = {'left': 'left', 'right': 'right', 'up': 'down', 'down': 'up'}
_OPPOSITE = {'left': 'right', 'right': 'left', 'up': 'down', 'down': 'up'}

# Label -> the label of the clip mirrored left to right, upside down, and
# played backwards: int32[8] each.
MIRRORED = np.array(
  [WAYS.index((_LEFT_RIGHT[a], _LEFT_RIGHT[b])) for a, b in WAYS], np.int32
)
UPSIDE_DOWN = np.array(
  [WAYS.index((_UP_DOWN[a], _UP_DOWN[b])) for a, b in WAYS], np.int32
)
REVERSED = np.array(
  [WAYS.index((_OPPOSITE[b], _OPPOSITE[a])) for a, b in WAYS], np.int32
)


def example(
  split: str, index: int, *, images: str | os.PathLike | None = None
) -> dict[str, Any]:
  """Clip `index` of a split, which depends on the two alone.

  Args:
    split: 'train', 'validation' or 'test'.
    index: from 0; may exceed what `SIZES` says.
    images: a directory of pictures to cut the backgrounds out of; None
      draws them.

  Returns:
    'id' str, 'frames' uint8[16, 32, 32, 3], 'label' int.
  """
  rng = np.random.default_rng((list(SIZES).index(split), index))
  label = int(rng.integers(len(CLASSES)))
  turn = TURNS[rng.integers(len(TURNS))]
  speed = SPEEDS[rng.integers(len(SPEEDS))]
  choices = starts(label, turn, speed)
  where = path(label, turn, speed, choices[rng.integers(len(choices))])

  ground = textures.texture(split, images)(rng, SIDE, SIDE) * 0.6
  line, half_width = _pen(rng)
  ink = rng.uniform(190, 255, size=3)
  points = sprites.grid(DIGIT, DIGIT)
  digit = sprites.stroke(points, line + DIGIT / 2, half_width)
  frames = np.repeat(ground[None].astype(np.float32), LENGTH, axis=0)
  for frame, (x, y) in zip(frames, where, strict=True):
    sprites.paint(frame[y : y + DIGIT, x : x + DIGIT], digit, ink)
  return {
    'id': f'{split}-{index:05d}',
    'frames': sprites.to_pixels(frames, rng, rng.uniform(2, 6)),
    'label': label,
  }


def starts(label: int, turn: int, speed: int) -> np.ndarray:
  """The upper left corners from which a path stays inside: int[N, 2].

  As many as of the path backwards, which keeps the two equally likely.
  """
  offsets = path(label, turn, speed, np.zeros(2, int))
  low = -offsets.min(axis=0)
  high = SIDE - DIGIT - offsets.max(axis=0)
  x, y = (np.arange(low[i], high[i] + 1) for i in (0, 1))
  return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def path(label: int, turn: int, speed: int, start: np.ndarray) -> np.ndarray:
  """Where the upper left corner of the digit's square is: int[T, 2]."""
  first, second = (DIRECTIONS[way] for way in WAYS[label])
  moves = [first] * (turn - 1) + [second] * (LENGTH - turn)
  steps = speed * np.cumsum(moves, axis=0)
  return start + np.concatenate([np.zeros((1, 2), int), steps])


def flip(record: dict[str, Any], *, vertical: bool = False) -> dict[str, Any]:
  """Mirrors a clip left to right, or upside down, and says what it is then."""
  table, axis = (UPSIDE_DOWN, 1) if vertical else (MIRRORED, 2)
  return {
    **record,
    'frames': np.flip(record['frames'], axis),
    'label': int(table[record['label']]),
  }


def reverse(record: dict[str, Any]) -> dict[str, Any]:
  """Plays a clip backwards, and says what it is then."""
  return {
    **record,
    'frames': record['frames'][::-1],
    'label': int(REVERSED[record['label']]),
  }


# Digits, as a pen writes them.


def _arc(x, y, radius_x, radius_y, start, stop) -> list[tuple[float, float]]:
  """Part of an ellipse; degrees, clockwise from the right."""
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
  """A digit in somebody's hand, around (0, 0): f32[N, 2], and half a width."""
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
