"""`event_captions`: SYNTHETIC clips of coloured shapes, with what happens.

'the red square moves left then up': a shape comes in sight, moves one way and
is gone; it appears somewhere else, moves another way and is gone. A different
one stands still. In clips of a pair, 'the red disc moves left then the green
square moves up', two shapes do so, one after the other. The sentences are of
templates; the ground is grey.

The order of events takes memory. Before, between and after the two phases
nothing moves, and these three frames are the same picture; so a clip in which
the phases have changed places is made of the same frames, and of the same pairs
of a frame and the one before. Clips 2 i and 2 i + 1 are such a pair: whoever
sees frames, or what changes from one to the next, as a bag, tells the same of
both, and names the ways of at most half of the clips in their order.
"""

import os
import re
from typing import Any

import numpy as np

from video.synthetic import ordered_motion
from video.synthetic import sprites
from video.synthetic import textures

VERSION = '2.0.0'
SIZES = {'train': 6000, 'validation': 300, 'test': 600}
LENGTH = ordered_motion.LENGTH
SIDE = 32
RADIUS = 4.0  # Of a square around each shape, half the side.
SEEN = LENGTH - 3  # Frames in which a shape moves, or is about to.

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
  images: str | os.PathLike | None = None,
) -> dict[str, Any]:
  """Clip `index` of a split, which depends on the arguments alone.

  Args:
    split: 'train', 'validation' or 'test'.
    index: from 0; may exceed what `SIZES` says.
    pairs: the share of clips in which two shapes move.
    images: a directory of pictures to cut the grounds out of, in grey;
      None draws them.

  Returns:
    'id' str, 'frames' uint8[16, 32, 32, 3], 'captions' list of one str,
    'frame_labels' int32[16], by `FRAME_CLASSES`.
  """
  rng = np.random.default_rng((list(SIZES).index(split), index // 2))
  # Who moves in the two phases, and who stands still.
  first, second, still = _kinds(rng)
  pair = rng.random() < pairs
  movers = (first, second if pair else first)
  ways = ordered_motion.WAYS[rng.integers(len(ordered_motion.WAYS))]
  lengths = rng.permutation((SEEN // 2, SEEN - SEEN // 2))
  place, *paths = _paths(rng, ways, lengths)

  ground = textures.texture(split, images)(rng, SIDE, SIDE)
  ground = 60 + 0.3 * ground.mean(axis=-1, keepdims=True)
  inks = {
    kind: COLOURS[kind[0]] + rng.integers(-15, 16, size=3)
    for kind in (first, second, still)
  }

  def painted(*things):
    frame = np.broadcast_to(ground, (SIDE, SIDE, 3)).astype(np.float32)
    for kind, centre in things:
      sprites.paint(frame, _covered(kind[1], centre), inks[kind])
    return frame

  frames = [painted((still, place))]
  for mover, path in zip(movers, paths, strict=True):
    frames += [painted((still, place), (mover, centre)) for centre in path]
  frames = sprites.to_pixels(np.stack(frames), rng, rng.uniform(2, 6))

  # The first picture is that of all three moments in which nothing moves.
  idle, *parts = np.split(frames, [1, 1 + lengths[0]])
  phases = list(zip(movers, ways, parts, strict=True))
  if index % 2:
    phases.reverse()
  frames, labels, told = [idle], [0], []
  for mover, way, part in phases:
    told.append(f'the {" ".join(mover)} moves {way}')
    frames += [part, idle]
    labels += [0] + [FRAME_CLASSES.index(told[-1])] * (len(part) - 1) + [0]
  caption = f'{told[0]} then {told[1] if pair else phases[1][1]}'
  return {
    'id': f'{split}-{index:05d}',
    'frames': np.concatenate(frames),
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


def _kinds(rng) -> list[tuple[str, str]]:
  """Three colours and shapes; no two are the same in both."""
  every = [(colour, shape) for colour in COLOURS for shape in SHAPES]
  return [every[i] for i in rng.permutation(len(every))[:3]]


def _paths(rng, ways, lengths) -> list[np.ndarray]:
  """Where one stands still, f64[2], and where another is in two phases.

  In each phase at every frame: f64[length, 2].
  """
  speed = int(rng.choice(ordered_motion.SPEEDS))
  low, high = RADIUS, SIDE - RADIUS
  while True:
    place = rng.uniform(low, high, size=2)
    paths = [place]
    for way, length in zip(ways, lengths, strict=True):
      steps = np.arange(length)[:, None] * speed * np.array(DIRECTIONS[way])
      start = rng.uniform(low - steps.min(axis=0), high - steps.max(axis=0))
      paths.append(start + steps)
    distances = np.abs(np.concatenate(paths[1:]) - place).max(axis=-1)
    if distances.min() >= 2 * RADIUS + _GAP:
      return paths


def _covered(shape: str, centre: np.ndarray) -> np.ndarray:
  """f32[H, W]; all three touch the same square, and fill it more or less."""
  points = sprites.grid(SIDE, SIDE)
  if shape == 'triangle':
    corners = np.array([(0, -1), (1, 1), (-1, 1)]) * RADIUS + centre
    return sprites.polygon(points, corners)
  outline = 'rectangle' if shape == 'square' else 'ellipse'
  box = np.array([*(centre - RADIUS), 2 * RADIUS, 2 * RADIUS])
  return sprites.silhouette(points, outline, box)
