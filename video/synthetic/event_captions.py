"""`event_captions`: SYNTHETIC clips of coloured shapes, with captions.

'the red square moves left then up': a shape appears, moves in one direction and
vanishes; it appears elsewhere, moves in another direction and vanishes. Another
shape stands still. In clips of a pair, 'the red disc moves left then the green
square moves up', two shapes move, one after the other. The captions come from
templates; the background is grey.

The order of events needs memory. Before, between and after the two phases
nothing moves, and these three frames are the same image. So a clip with the
phases exchanged has the same frames, and the same pairs of neighbouring frames.
Clips 2 i and 2 i + 1 are such a pair: a captioner of bags of frames, or of bags
of differences, gives both the same caption, and has the directions in the right
order for at most half of the clips.
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
RADIUS = 4.0  # Half the side of the square around a shape.
VISIBLE = LENGTH - 3  # Frames that show the moving shape.

COLOURS = {
  'red': (225, 40, 40),
  'green': (40, 185, 60),
  'blue': (60, 80, 235),
  'yellow': (240, 220, 40),
}
SHAPES = ('disc', 'square', 'triangle')
DIRECTIONS = ordered_motion.DIRECTIONS

# Frame label -> event between this frame and the previous one.
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
_MIN_GAP = 1.5  # Smallest distance between two shapes, in pixels.


def example(
  split: str,
  index: int,
  *,
  pairs: float = 0.0,
  images: str | os.PathLike | None = None,
) -> dict[str, Any]:
  """Generates clip `index` of a split; it depends on the arguments alone.

  Args:
    split: 'train', 'validation' or 'test'.
    index: from 0; may exceed `SIZES`.
    pairs: share of clips in which two shapes move.
    images: directory of images to crop the backgrounds from, in grey; None
      generates them.

  Returns:
    'id' str, 'frames' uint8[16, 32, 32, 3], 'captions' list of one str,
    'frame_labels' int32[16], by `FRAME_CLASSES`.
  """
  rng = np.random.default_rng((list(SIZES).index(split), index // 2))
  # The shapes that move in the two phases, and the one that stands still.
  first, second, still = _kinds(rng)
  pair = rng.random() < pairs
  movers = (first, second if pair else first)
  ways = ordered_motion.WAYS[rng.integers(len(ordered_motion.WAYS))]
  lengths = rng.permutation((VISIBLE // 2, VISIBLE - VISIBLE // 2))
  position, *paths = _paths(rng, ways, lengths)

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

  frames = [painted((still, position))]
  for mover, path in zip(movers, paths, strict=True):
    frames += [painted((still, position), (mover, centre)) for centre in path]
  frames = sprites.to_pixels(np.stack(frames), rng, rng.uniform(2, 6))

  # The first image serves for all three moments in which nothing moves.
  idle, *parts = np.split(frames, [1, 1 + lengths[0]])
  phases = list(zip(movers, ways, parts, strict=True))
  if index % 2:
    phases.reverse()
  frames, labels, events = [idle], [0], []
  for mover, way, part in phases:
    events.append(f'the {" ".join(mover)} moves {way}')
    frames += [part, idle]
    labels += [0] + [FRAME_CLASSES.index(events[-1])] * (len(part) - 1) + [0]
  caption = f'{events[0]} then {events[1] if pair else phases[1][1]}'
  return {
    'id': f'{split}-{index:05d}',
    'frames': np.concatenate(frames),
    'captions': [caption],
    'frame_labels': np.array(labels, np.int32),
  }


def flip(record: dict[str, Any], *, vertical: bool = False) -> dict[str, Any]:
  """Mirrors a clip left to right or upside down, with its words and labels.

  A triangle upside down is still called a triangle.
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
  """The directions in a caption, in order: ('left', 'up')."""
  return tuple(word for word in caption.split() if word in DIRECTIONS)


def _exchange(text: str, words: dict[str, str]) -> str:
  return re.sub(r'\w+', lambda match: words.get(match[0], match[0]), text)


def _kinds(rng) -> list[tuple[str, str]]:
  """Samples three different pairs of a colour and a shape."""
  every = [(colour, shape) for colour in COLOURS for shape in SHAPES]
  return [every[i] for i in rng.permutation(len(every))[:3]]


def _paths(rng, ways, lengths) -> list[np.ndarray]:
  """Samples centres of the shapes that do not touch.

  Returns:
    f64[2], the centre of the shape that stands still, and for each phase
    f64[length, 2], the centres of the moving one.
  """
  speed = int(rng.choice(ordered_motion.SPEEDS))
  low, high = RADIUS, SIDE - RADIUS
  while True:
    position = rng.uniform(low, high, size=2)
    paths = [position]
    for way, length in zip(ways, lengths, strict=True):
      steps = np.arange(length)[:, None] * speed * np.array(DIRECTIONS[way])
      start = rng.uniform(low - steps.min(axis=0), high - steps.max(axis=0))
      paths.append(start + steps)
    distances = np.abs(np.concatenate(paths[1:]) - position).max(axis=-1)
    if distances.min() >= 2 * RADIUS + _MIN_GAP:
      return paths


def _covered(shape: str, centre: np.ndarray) -> np.ndarray:
  """The share of each pixel that a shape covers: f32[H, W]."""
  points = sprites.grid(SIDE, SIDE)
  if shape == 'triangle':
    corners = np.array([(0, -1), (1, 1), (-1, 1)]) * RADIUS + centre
    return sprites.polygon(points, corners)
  outline = 'rectangle' if shape == 'square' else 'ellipse'
  box = np.array([*(centre - RADIUS), 2 * RADIUS, 2 * RADIUS])
  return sprites.silhouette(points, outline, box)
