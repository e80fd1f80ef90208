"""`occlusion_track`: SYNTHETIC clips of a textured target that is occluded.

A patch of texture bounces between the walls of 24 frames of 64 x 64 pixels and
grows and shrinks, over a moving background; one or two others move behind it.
For nominally five to seven frames it is hidden: it passes behind a static
screen, or the frames are black. Meanwhile it moves on without a bounce. So a
tracker that remembers its position and velocity can find it again, and one that
reads single frames cannot.

Boxes are amodal: they hold the whole target, visible or not.

Axes: T frames, H height, W width.
"""

import dataclasses
import math
import os
from typing import Any

import numpy as np

from video.synthetic import sprites
from video.synthetic import textures

VERSION = '1.0.0'
SIZES = {'train': 2000, 'validation': 100, 'test': 300}
LENGTH = 24
SIDE = 64

VISIBLE_FRAMES = 4  # First frames, in which all of the target is visible.
_QUIET = 2  # Frames without a bounce before and after the occlusion.
_HIDDEN = 0.1  # Largest visible share of a hidden target.
_BLACK = 6.0


@dataclasses.dataclass(frozen=True)
class Motion:
  """The motion of an object.

  Attributes:
    boxes: f64[T, 4], x, y of the upper left corner, width, height.
    bounces: bool[T], True if it hit a wall on its way to this frame.
  """

  boxes: np.ndarray
  bounces: np.ndarray


@dataclasses.dataclass(frozen=True)
class Scene:
  """The target and its occlusion.

  Attributes:
    boxes: f64[T, 4] of the target.
    outline: of the target, one of `sprites.SILHOUETTES`.
    black: bool[T], True for black frames.
    screen: f64[4], box that occludes the target, or None.
    visible: f64[T], visible share of the target.
  """

  boxes: np.ndarray
  outline: str
  black: np.ndarray
  screen: np.ndarray | None
  visible: np.ndarray


def example(
  split: str, index: int, *, images: str | os.PathLike | None = None
) -> dict[str, Any]:
  """Generates clip `index` of a split; it depends on the arguments alone.

  Args:
    split: 'train', 'validation' or 'test'.
    index: from 0; may exceed `SIZES`.
    images: directory of images to crop all textures from; None generates them.

  Returns:
    'id' str, 'frames' uint8[24, 64, 64, 3], 'boxes' float32[24, 4] as x, y,
    width, height in pixels, 'hidden' bool[24].
  """
  rng = np.random.default_rng((list(SIZES).index(split), index))
  texture = textures.texture(split, images)
  scene = _scene(rng)
  frames = _background(rng, texture)
  for _ in range(rng.integers(1, 3)):
    outline = sprites.SILHOUETTES[rng.integers(3)]
    _paint(rng, texture, frames, outline, _motion(rng).boxes)
  _paint(rng, texture, frames, scene.outline, scene.boxes)
  if scene.screen is not None:
    still = np.repeat(scene.screen[None], LENGTH, axis=0)
    _paint(rng, texture, frames, 'rectangle', still)
  frames[scene.black] = _BLACK
  return {
    'id': f'{split}-{index:05d}',
    'frames': sprites.to_pixels(frames, rng, rng.uniform(1, 4)),
    'boxes': scene.boxes.astype(np.float32),
    'hidden': scene.visible < _HIDDEN,
  }


def flip(record: dict[str, Any], *, vertical: bool = False) -> dict[str, Any]:
  """Mirrors a clip and its boxes left to right or upside down."""
  axis, corner = (1, 1) if vertical else (2, 0)
  boxes = record['boxes'].copy()
  side = record['frames'].shape[axis]
  boxes[:, corner] = side - boxes[:, corner] - boxes[:, corner + 2]
  return {**record, 'frames': np.flip(record['frames'], axis), 'boxes': boxes}


def _scene(rng: np.random.Generator) -> Scene:
  """Samples scenes until one is as the module describes."""
  outline = sprites.SILHOUETTES[rng.integers(3)]
  all_black = rng.random() < 0.5
  while True:
    motion = _motion(rng)
    count = int(rng.integers(5, 8))
    # A screen hides and reveals the target gradually, which takes time.
    first = int(rng.integers(6, 14) if all_black else rng.integers(8, 13))
    end = first + count
    if motion.bounces[first - _QUIET + 1 : end + _QUIET].any():
      continue
    black, screen = np.zeros(LENGTH, bool), None
    if all_black:
      black[first:end] = True
      return Scene(motion.boxes, outline, black, screen, 1.0 - black)
    screen = _screen(motion.boxes[first:end])
    if _touches(screen, motion.boxes[:VISIBLE_FRAMES]):
      continue
    visible = _visible_share(outline, motion.boxes, screen)
    if _is_valid(visible, motion.bounces):
      return Scene(motion.boxes, outline, black, screen, visible)


def _is_valid(visible: np.ndarray, bounces: np.ndarray) -> bool:
  """True if the target is hidden once, without a bounce, and reappears."""
  hidden = np.flatnonzero(visible < _HIDDEN)
  first, end = hidden[0], hidden[-1] + 1
  return (
    len(hidden) == end - first
    and not bounces[first - _QUIET + 1 : end + _QUIET].any()
    and (visible[end:] > 0.5).sum() >= 3
  )


def _motion(rng: np.random.Generator) -> Motion:
  base = rng.uniform(11, 16, size=2)
  period, phase = rng.uniform(16, 32), rng.uniform(0, 2 * math.pi)
  time = np.arange(LENGTH)
  scales = np.exp(0.25 * np.sin(2 * math.pi * time / period + phase))
  sizes = base * scales[:, None]
  low = sizes.max(axis=0) / 2
  high = SIDE - low
  angle, speed = rng.uniform(0, 2 * math.pi), rng.uniform(2, 3.2)
  velocity = speed * np.array([math.cos(angle), math.sin(angle)])
  centre = rng.uniform(low, high)
  centres, bounces = [centre], [False]
  for _ in range(LENGTH - 1):
    centre = centre + velocity
    beyond = (centre < low) | (centre > high)
    centre = np.where(
      beyond, 2 * np.where(centre < low, low, high) - centre, centre
    )
    velocity = np.where(beyond, -velocity, velocity)
    centres.append(centre)
    bounces.append(bool(beyond.any()))
  boxes = np.concatenate([np.array(centres) - sizes / 2, sizes], axis=1)
  return Motion(boxes, np.array(bounces))


def _screen(boxes: np.ndarray) -> np.ndarray:
  """The smallest box around some boxes, with a margin: f64[4]."""
  low = boxes[:, :2].min(axis=0) - 0.5
  high = (boxes[:, :2] + boxes[:, 2:]).max(axis=0) + 0.5
  return np.concatenate([low, high - low])


def _touches(screen: np.ndarray, boxes: np.ndarray) -> bool:
  """True if any of the boxes comes within a pixel of the screen."""
  before = boxes[:, :2] + boxes[:, 2:] + 1 < screen[:2]
  behind = boxes[:, :2] - 1 > screen[:2] + screen[2:]
  return not (before | behind).any(axis=1).all()


def _visible_share(outline, boxes, screen) -> np.ndarray:
  """The share of an object outside the screen: f64[T]."""
  points = sprites.grid(SIDE, SIDE)
  free = 1 - sprites.silhouette(points, 'rectangle', screen)
  covered = np.stack(
    [sprites.silhouette(points, outline, box) for box in boxes]
  )
  return (covered * free).sum(axis=(1, 2)) / covered.sum(axis=(1, 2))


def _background(rng, texture) -> np.ndarray:
  """Samples a background that moves steadily: f32[T, H, W, 3]."""
  velocity = rng.uniform(-0.6, 0.6, size=2)
  reach = math.ceil(0.6 * LENGTH)
  ground = texture(rng, SIDE + 2 * reach, SIDE + 2 * reach)
  ground = ground.astype(np.float32)
  pixels = np.arange(SIDE) + 0.5 + reach
  return np.stack(
    [
      sprites.look_up(ground, pixels + time * velocity[0], pixels + y)
      for time, y in enumerate(np.arange(LENGTH) * velocity[1])
    ]
  )


def _paint(rng, texture, frames, outline: str, boxes: np.ndarray):
  """Paints a texture, stretched to the boxes, into all frames in place."""
  width, height = (math.ceil(side) for side in boxes[0, 2:])
  surface = texture(rng, height, width).astype(np.float32)
  points = sprites.grid(SIDE, SIDE)
  for frame, box in zip(frames, boxes, strict=True):
    x, y = np.floor(box[:2]).astype(int).clip(0)
    right, below = np.ceil(box[:2] + box[2:]).astype(int)
    window = np.s_[y:below, x:right]
    part = points[window]
    u = (part[0, :, 0] - box[0]) / box[2] * width
    v = (part[:, 0, 1] - box[1]) / box[3] * height
    colours = sprites.look_up(surface, u, v)
    sprites.paint(
      frame[window], sprites.silhouette(part, outline, box), colours
    )
