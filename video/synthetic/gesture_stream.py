"""`gesture_stream`: SYNTHETIC streams of a fingertip that draws in the air.

Each of 48 frames of 24 x 24 grey pixels shows the fingertip, a bright blob, and
no trace of where it was. It makes three of eight gestures, moves fast from the
end of one to the start of the next, and rests before and after.

The gestures are four and the same four backwards: whatever one of them shows,
the other shows too, in the opposite order. What says which gesture it was is
not in any frame.

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
# Label -> the label of the stream turned by half a turn, and of the gesture
# backwards: int32[9] each.
TURNED = np.array([0, 1, 2, 4, 3, 6, 5, 8, 7], np.int32)
REVERSED = np.array([0, 2, 1, 4, 3, 6, 5, 8, 7], np.int32)

_STRAIGHT = ('left', 'right', 'up', 'down')
_MARGIN = 2.5  # How close the fingertip comes to the edge, in pixels.


def example(
  split: str, index: int, *, images: str | os.PathLike | None = None
) -> dict[str, Any]:
  """Stream `index` of a split, which depends on the two alone.

  Args:
    split: 'train', 'validation' or 'test'.
    index: from 0; may exceed what `SIZES` says.
    images: a directory of pictures to cut the backgrounds out of; None
      draws them.

  Returns:
    'id' str, 'frames' uint8[48, 24, 24, 1], 'labels' list of 3 ints in the
    order of the gestures, 'framewise' int32[48]: the label in the second half
    of each gesture, when it can be known, and 0 elsewhere.
  """
  rng = np.random.default_rng((list(SIZES).index(split), index))
  labels = [int(n) for n in rng.integers(1, len(CLASSES), size=GESTURES)]
  where, framewise = _stream(rng, labels)

  ground = textures.texture(split, images)(rng, SIDE, SIDE)
  ground = ground.mean(axis=-1, keepdims=True) * 0.3
  ink, radius = rng.uniform(190, 255), rng.uniform(1.3, 2.0)
  points = sprites.grid(SIDE, SIDE)
  squares = ((points - where[:, None, None]) ** 2).sum(axis=-1)
  blob = np.exp(-squares / (2 * radius**2))[..., None]
  frames = ground + blob * (ink - ground)
  return {
    'id': f'{split}-{index:05d}',
    'frames': sprites.to_pixels(frames, rng, rng.uniform(2, 6)),
    'labels': labels,
    'framewise': framewise,
  }


def flip(record: dict[str, Any]) -> dict[str, Any]:
  """Turns a stream by half a turn, and says what it is then.

  Not in a mirror: a mirrored Z is none of the gestures.
  """
  return {
    **record,
    'frames': record['frames'][:, ::-1, ::-1],
    'labels': [int(TURNED[label]) for label in record['labels']],
    'framewise': TURNED[record['framewise']],
  }


def trace(label: int, moves: int) -> np.ndarray:
  """Where a gesture is after each of `moves` equal moves: f64[moves + 1, 2].

  In the square from (-1, -1) to (1, 1), x to the right and y downwards. That of
  the reversed gesture is the same, backwards.
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
  """Where the fingertip is, f64[T, 2], and the label of each frame, i32[T]."""
  moves = [
    int(rng.integers(*((7, 10) if CLASSES[label] in _STRAIGHT else (10, 13))))
    for label in labels
  ]
  between = rng.integers(3, 6, size=len(labels) - 1)
  rest = LENGTH - 1 - sum(moves) - int(between.sum())
  before = int(rng.integers(1, rest + 1))

  where, framewise = [], []
  for i, (label, count) in enumerate(zip(labels, moves, strict=True)):
    line = _place(rng, trace(label, count))
    if i == 0:
      where += [line[0]] * before
    else:
      way = np.linspace(0, 1, between[i - 1] + 1)[1:-1, None]
      where += list(where[-1] + way * (line[0] - where[-1]))
    framewise += [0] * (len(where) - len(framewise))
    where += list(line)
    half = (count + 1) // 2
    framewise += [0] * half + [label] * (count + 1 - half)
  where += [where[-1]] * (LENGTH - len(where))
  framewise += [0] * (LENGTH - len(framewise))
  # A hand is never quite where it should be.
  where = np.array(where) + rng.normal(0, 0.15, size=(LENGTH, 2))
  return where, np.array(framewise, np.int32)


def _place(rng, line: np.ndarray) -> np.ndarray:
  """Somewhere in the frame, larger or smaller, wider or taller, a bit turned.

  The turn, up to 0.2 radians, takes no gesture for another.
  """
  size = rng.uniform(4.5, 6.5) * rng.uniform(0.9, 1.1, size=2)
  turn = rng.uniform(-0.2, 0.2)
  cos, sin = math.cos(turn), math.sin(turn)
  line = line * size @ np.array([[cos, sin], [-sin, cos]])
  low = _MARGIN - line.min(axis=0)
  high = SIDE - _MARGIN - line.max(axis=0)
  return line + rng.uniform(low, high)
