"""`event_captions`: SYNTHETIC clips of coloured shapes, with what happens.

'the red square moves left then up': one shape moves one way, then another, a
different one stands still. In clips of a pair, 'the red disc moves left then
the green square moves up', two shapes move, one after the other. The sentences
are of templates; the ground is grey.

The order of events takes memory. As in `ordered_motion` the ways are
perpendicular and the turn is at one of four frames: the same frames backwards
are as likely, and their caption names the opposite ways in the opposite order.
A bag of frames cannot tell the two apart. This bound holds for frames one by
one: where something moves left, of which two frames tell, may also tell when.

Axes: T frames, H height, W width.
"""

import os
import re
from typing import Any

import numpy as np

from video import ordered_motion
from video import sprites
from video import textures

VERSION = '1.0.0'
SIZES = {'train': 6000, 'validation': 300, 'test': 600}
LENGTH = ordered_motion.LENGTH
SIDE = 32
RADIUS = 3.5  # Of a square around each shape, half the side.

COLOURS = {
  'red': (225, 40, 40),
  'green': (40, 185, 60),
  'blue': (60, 80, 235),
  'yellow': (240, 220, 40),
}
SHAPES = ('disc', 'square', 'triangle')
DIRECTIONS = ordered_motion.DIRECTIONS

# What happens between a frame and the one before, by frame label.
FRAME_CLASSES = (
  'nothing moves',
  *(
    f'the {colour} {shape} moves {way}'
    for colour in COLOURS
    for shape in SHAPES
    for way in DIRECTIONS
  ),
)

_LEFT_RIGHT = {'left': 'right', 'right': 'left'}
_UP_DOWN = {'up': 'down', 'down': 'up'}
_GAP = 1.5  # Between the places of two shapes, in pixels, at least.


def example(
  split: str,
  index: int,
  *,
  pairs: float = 0.0,
  photographs: str | os.PathLike | None = None,
) -> dict[str, Any]:
  """Clip `index` of a split, which depends on the arguments alone.

  Args:
    split: 'train', 'validation' or 'test'.
    index: from 0; may exceed what `SIZES` says.
    pairs: the share of clips in which two shapes move.
    photographs: a directory of pictures to cut the grounds out of, in grey;
      None draws them.

  Returns:
    'id' str, 'frames' uint8[16, 32, 32, 3], 'captions' list of one str,
    'frame_labels' int32[16], by `FRAME_CLASSES`.
  """
  rng = np.random.default_rng((list(SIZES).index(split), index))
  pair = rng.random() < pairs
  ways = ordered_motion.WAYS[rng.integers(len(ordered_motion.WAYS))]
  turn = int(rng.choice(ordered_motion.TURNS))
  # Who moves in the two phases, and who stands still.
  kinds = _kinds(rng, 3 if pair else 2)
  movers = (0, 1) if pair else (0, 0)
  where = _paths(rng, len(kinds), movers, ways, turn)

  ground = textures.texture(split, photographs)(rng, SIDE, SIDE)
  ground = 60 + 0.3 * ground.mean(axis=-1, keepdims=True)
  inks = [
    COLOURS[colour] + rng.integers(-15, 16, size=3) for colour, _ in kinds
  ]
  points = sprites.grid(SIDE, SIDE)
  frames = np.broadcast_to(ground, (LENGTH, SIDE, SIDE, 3)).astype(np.float32)
  # The one that stands still is painted first.
  for i in reversed(range(len(kinds))):
    for frame, centre in zip(frames, where[i], strict=True):
      sprites.paint(frame, _covered(points, kinds[i][1], centre), inks[i])

  first, second = (
    f'the {" ".join(kinds[mover])} moves {way}'
    for mover, way in zip(movers, ways, strict=True)
  )
  labels = [0] + [FRAME_CLASSES.index(first)] * (turn - 1)
  labels += [FRAME_CLASSES.index(second)] * (LENGTH - turn)
  caption = f'{first} then {second if pair else ways[1]}'
  return {
    'id': f'{split}-{index:05d}',
    'frames': sprites.to_pixels(frames, rng, rng.uniform(2, 6)),
    'captions': [caption],
    'frame_labels': np.array(labels, np.int32),
  }


def flip(record: dict[str, Any], *, vertical: bool = False) -> dict[str, Any]:
  """Mirrors a clip left to right, or upside down; its words and labels too.

  A triangle that is upside down is a triangle.
  """
  words, axis = (_UP_DOWN, 1) if vertical else (_LEFT_RIGHT, 2)
  labels = [
    FRAME_CLASSES.index(_exchange(FRAME_CLASSES[label], words))
    for label in record['frame_labels']
  ]
  return {
    **record,
    'frames': np.flip(record['frames'], axis),
    'captions': [_exchange(text, words) for text in record['captions']],
    'frame_labels': np.array(labels, np.int32),
  }


def motions(caption: str) -> tuple[str, ...]:
  """The ways that a caption names, in its order: ('left', 'up')."""
  return tuple(word for word in caption.split() if word in DIRECTIONS)


def _exchange(text: str, words: dict[str, str]) -> str:
  return re.sub(r'\w+', lambda match: words.get(match[0], match[0]), text)


def _kinds(rng, count: int) -> list[tuple[str, str]]:
  """Colours and shapes; no two are the same in both."""
  every = [(colour, shape) for colour in COLOURS for shape in SHAPES]
  return [every[i] for i in rng.permutation(len(every))[:count]]


def _paths(rng, count, movers, ways, turn) -> list[np.ndarray]:
  """The centre of each shape in each frame, f64[T, 2] each.

  What is refused would be refused backwards: both stay equally likely.
  """
  speed = int(rng.integers(1, 3)) if movers == (0, 0) else 1
  phases = (turn - 1, LENGTH - turn)
  while True:
    paths = []
    for i in range(count):
      moves = [
        DIRECTIONS[way] if mover == i else (0, 0)
        for mover, way, phase in zip(movers, ways, phases, strict=True)
        for _ in range(phase)
      ]
      steps = np.concatenate([[(0, 0)], speed * np.cumsum(moves, axis=0)])
      low = RADIUS - steps.min(axis=0)
      high = SIDE - RADIUS - steps.max(axis=0)
      paths.append(steps + rng.uniform(low, high))
    if _apart(paths):
      return paths


def _apart(paths) -> bool:
  """Whether no shape comes to a place where another one ever is."""
  room = 2 * RADIUS + _GAP
  for i, path in enumerate(paths):
    for other in paths[:i]:
      distances = np.abs(path[:, None] - other[None]).max(axis=-1)
      if distances.min() < room:
        return False
  return True


def _covered(points, shape: str, centre: np.ndarray) -> np.ndarray:
  """f32[H, W]; all three are about equally large."""
  if shape == 'triangle':
    corners = np.array([(0, -1), (1, 0.9), (-1, 0.9)]) * RADIUS + centre
    return sprites.polygon(points, corners)
  half = 0.8 * RADIUS if shape == 'square' else 0.95 * RADIUS
  outline = 'rectangle' if shape == 'square' else 'ellipse'
  box = np.array([*(centre - half), 2 * half, 2 * half])
  return sprites.silhouette(points, outline, box)
