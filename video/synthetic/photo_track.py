"""`photo_track`: SYNTHETIC sequences over real images, to train trackers.

A crop of one image moves over another one and is to be tracked. The camera
pans, the target rotates, grows and changes its aspect ratio; distractors that
look like it pass behind it, occluders in front of it; light, blur and noise
change. Without images the textures are generated. Unlike in `occlusion_track`,
the frames are large, the motion is irregular, and there are any number of
sequences: they are generated when they are read.

Sequence `index` of a split depends on the split, the index and the images
alone; no image is used by two splits.

Axes: T time, H height, W width.
"""

import dataclasses
import hashlib
import math
import os
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageFilter

from video.synthetic import sprites
from video.synthetic import textures

SPLITS = ('train', 'validation', 'test')

HIDDEN = 0.3  # A target with a smaller visible share is hidden.
_CLEAR_SHARE = 0.85  # Smallest visible share in the first frames.
_CLEAR_FRAMES = 3  # Number of these frames.
_SIDES = (0.1, 0.35)  # Range of target sides, in frame heights.
_MAX_ASPECT = 2.8  # Largest ratio of the sides of a target.
_SPEEDS = (0.02, 0.4)  # Range of speeds, in object sides per frame.


@dataclasses.dataclass(frozen=True)
class MovingObject:
  """A moving object, in all frames.

  Attributes:
    texture: of the object; a square whose side is the diagonal of `size`, so
      that it covers the object at any rotation.
    size: f32[2], width and height of the object in pixels of the texture.
    outline: one of `sprites.SILHOUETTES`.
    boxes: f32[T, 4], x, y, w, h in pixels of the frame.
    angles: f32[T], rotation of the texture, in radians.
  """

  texture: PIL.Image.Image
  size: np.ndarray
  outline: str
  boxes: np.ndarray
  angles: np.ndarray


class PhotoTrack:
  """Random access to the sequences of a split; threads may share it."""

  def __init__(
    self,
    split: str,
    *,
    count: int,
    num_frames: int,
    height: int,
    width: int,
    images: str | os.PathLike | None = None,
  ):
    """Checks the arguments; generates nothing yet.

    Args:
      split: 'train', 'validation' or 'test'.
      count: number of sequences.
      num_frames: T.
      height: H.
      width: W.
      images: directory of images, which the splits share out; None generates
        textures.

    Raises:
      ValueError: there are too few images, or a number is too small.
    """
    if split not in SPLITS:
      raise ValueError(f'split={split!r} must be one of {", ".join(SPLITS)}')
    if min(height, width) < 32 or num_frames <= _CLEAR_FRAMES or count < 1:
      raise ValueError(
        f'count={count}, num_frames={num_frames}, height={height}, '
        f'width={width}: pass at least 1 sequence, {_CLEAR_FRAMES + 1} frames '
        'and 32 x 32 pixels'
      )
    self._split = split
    self._count = count
    self._shape = (num_frames, height, width)
    self._texture = textures.texture(split, images)

  def __len__(self) -> int:
    """The number of sequences."""
    return self._count

  def __getitem__(self, index: int) -> dict[str, Any]:
    """`id`, `frames` uint8[T, H, W, 3], `boxes` f32[T, 4], `hidden` bool[T].

    Boxes hold the whole target, visible or not.
    """
    if not 0 <= index < len(self):
      raise IndexError(index)  # Ends iteration.
    rng = np.random.default_rng((SPLITS.index(self._split), int(index)))
    frames, boxes, hidden = _sequence(rng, self._texture, *self._shape)
    return {
      'id': f'{self._split}-{index:06d}',
      'frames': frames,
      'boxes': boxes,
      'hidden': hidden,
    }


def fingerprint(*splits: PhotoTrack) -> str:
  """A hash of the contents of splits: sixteen hexadecimal digits.

  Covers their sizes and first sequences.
  """
  digest = hashlib.sha256()
  for split in splits:
    digest.update(str(len(split)).encode())
    for index in range(min(len(split), 2)):
      record = split[index]
      for name in ('frames', 'boxes', 'hidden'):
        digest.update(record[name].tobytes())
  return digest.hexdigest()[:16]


# Motion.


def _drift(rng, count: int, bound: float) -> np.ndarray:
  """Samples a smooth random walk from 0 in [-bound, bound]: f32[T]."""
  knots = rng.uniform(-bound, bound, size=max(2, count // 6) + 1)
  knots[0] = 0.0
  positions = np.linspace(0, len(knots) - 1, count)
  lower = np.minimum(positions.astype(int), len(knots) - 2)
  share = (1 - np.cos(math.pi * (positions - lower))) / 2
  return knots[lower] + share * (knots[lower + 1] - knots[lower])


def _log_uniform(rng, low: float, high: float) -> float:
  return math.exp(rng.uniform(math.log(low), math.log(high)))


def _walk(rng, count: int, speed: float) -> np.ndarray:
  """Samples a path from 0 with autocorrelated velocity: f64[T, 2]."""
  persistence = rng.uniform(0.6, 1.0)
  velocity = rng.normal(0, speed, size=2)
  # Keeps the standard deviation of the velocity at any persistence.
  change = speed * math.sqrt(1 - persistence**2)
  velocities = []
  for _ in range(count - 1):
    velocities.append(velocity)
    velocity = persistence * velocity + rng.normal(0, change, size=2)
  return np.concatenate([np.zeros((1, 2)), np.cumsum(velocities, axis=0)])


def _reflect(path: np.ndarray, low, high) -> np.ndarray:
  """Reflects a path at the bounds [low, high]: f64[T, 2]."""
  span = np.maximum(np.asarray(high, float) - low, 1e-3)
  inside = np.mod(path - low, 2 * span)
  return low + np.minimum(inside, 2 * span - inside)


def _target_boxes(rng, count: int, height: int, width: int) -> np.ndarray:
  """Samples boxes of the target, with centres in the frame: f32[T, 4]."""
  side = _log_uniform(rng, *_SIDES) * height
  stretch = _log_uniform(rng, 1 / _MAX_ASPECT, _MAX_ASPECT)
  size = side * np.array([stretch, 1 / stretch]) ** 0.5
  growth = _drift(rng, count, rng.uniform(0, 0.5))
  stretching = _drift(rng, count, rng.uniform(0, 0.2))
  sizes = size * np.exp(
    np.stack([growth + stretching, growth - stretching], axis=-1)
  )
  frame = np.array([width, height])
  sizes = np.clip(sizes, 6.0, 0.6 * frame)
  walk = _walk(rng, count, _log_uniform(rng, *_SPEEDS) * side)
  margin = sizes[0] / 2
  start = rng.uniform(margin, frame - margin)
  # Later a part of the target may leave the frame.
  margin = 0.6 * margin
  centres = _reflect(start + walk, margin, frame - margin)
  boxes = np.concatenate([centres - sizes / 2, sizes], axis=-1)
  return boxes.astype(np.float32)


def _moving_object(
  rng, texture, outline: str, boxes: np.ndarray
) -> MovingObject:
  # The largest size that is shown, so that no frame enlarges the texture.
  size = boxes[:, 2:].max(axis=0)
  side = math.ceil(math.hypot(*size)) + 2
  angles = _drift(rng, len(boxes), rng.uniform(0, 0.5))
  square = PIL.Image.fromarray(texture(rng, side, side))
  return MovingObject(square, size, outline, boxes, angles)


def _outline(rng) -> str:
  return sprites.SILHOUETTES[rng.integers(len(sprites.SILHOUETTES))]


def _distractor(
  rng, texture, target: MovingObject, pan, height, width
) -> MovingObject:
  """Samples an object behind the target; some look like it or stand still."""
  count = len(pan)
  alike = rng.random() < 0.4
  if alike:
    sizes = target.boxes[:, 2:] * _log_uniform(rng, 0.8, 1.25)
  else:
    side = _log_uniform(rng, *_SIDES) * height
    sizes = np.full((count, 2), side) * rng.uniform(0.6, 1.4, size=2)
  start = rng.uniform((0, 0), (width, height))
  if rng.random() < 0.5:
    centres = start - (pan - pan[0])
  else:
    speed = _log_uniform(rng, *_SPEEDS) * sizes.mean()
    centres = _reflect(
      start + _walk(rng, count, speed), (0, 0), (width, height)
    )
  boxes = np.concatenate([centres - sizes / 2, sizes], axis=-1)
  boxes = boxes.astype(np.float32)
  if alike:
    angles = _drift(rng, count, rng.uniform(0, 0.5))
    return dataclasses.replace(target, boxes=boxes, angles=angles)
  return _moving_object(rng, texture, _outline(rng), boxes)


def _occluder(rng, texture, target: MovingObject, pan) -> MovingObject:
  """Samples an object in front of a later position of the target."""
  count = len(pan)
  moment = int(rng.integers(_CLEAR_FRAMES, count))
  met = target.boxes[moment]
  centre = met[:2] + met[2:] / 2
  size = met[2:] * rng.uniform(0.7, 2.0, size=2)
  if rng.random() < 0.5:
    offsets = pan[moment] - pan
  else:
    frames = rng.uniform(2, 8)  # Approximate duration of the occlusion.
    angle = rng.uniform(0, 2 * math.pi)
    velocity = (size + met[2:]) / frames * (math.cos(angle), math.sin(angle))
    offsets = (np.arange(count) - moment)[:, None] * velocity
  boxes = np.concatenate(
    [centre + offsets - size / 2, np.tile(size, (count, 1))], axis=-1
  )
  boxes = boxes.astype(np.float32)
  outline = sprites.SILHOUETTES[1 + rng.integers(2)]
  return _moving_object(rng, texture, outline, boxes)


# Appearance.


def _sequence(rng, texture, count, height, width):
  """Generates frames uint8[T, H, W, 3], boxes f32[T, 4], hidden bool[T]."""
  # The background is larger than the frame, which moves over it.
  zoom = np.exp(_drift(rng, count, rng.uniform(0, 0.1)))
  wide, tall = math.ceil(1.5 * width), math.ceil(1.5 * height)
  background = PIL.Image.fromarray(texture(rng, tall, wide))
  pan = rng.uniform((0, 0), (0.25 * width, 0.25 * height))
  walk = _walk(rng, count, _log_uniform(rng, 0.05, 3.0))
  pan = _reflect(pan + walk, (0, 0), (0.25 * width, 0.25 * height))

  boxes = _target_boxes(rng, count, height, width)
  target = _moving_object(rng, texture, _outline(rng), boxes)
  below = [
    _distractor(rng, texture, target, pan, height, width)
    for _ in range(rng.integers(4))
  ]
  above = []
  if rng.random() < 0.5:
    occluder = _occluder(rng, texture, target, pan)
    clear = [
      _visible_share(target, [occluder], t, height, width)
      for t in range(_CLEAR_FRAMES)
    ]
    if min(clear) > _CLEAR_SHARE:
      above.append(occluder)

  light = np.exp(_drift(rng, count, rng.uniform(0, 0.25)))
  blur = rng.uniform(-1.0, 0.8) + _drift(rng, count, rng.uniform(0, 0.6))
  frames = np.zeros((count, height, width, 3), np.float32)
  for t in range(count):
    left, top = pan[t]
    corner = (left + 1.25 * width * zoom[t], top + 1.25 * height * zoom[t])
    view = background.resize(
      (width, height),
      PIL.Image.Resampling.BILINEAR,
      box=(left, top, min(corner[0], wide), min(corner[1], tall)),
    )
    frame = np.array(view, np.float32)
    for item in (*below, target, *above):
      _paint(frame, item, t)
    if blur[t] > 0.2:
      image = PIL.Image.fromarray(np.clip(frame, 0, 255).astype(np.uint8))
      kernel = PIL.ImageFilter.GaussianBlur(float(blur[t]))
      frame = np.asarray(image.filter(kernel), np.float32)
    frames[t] = frame * light[t]
  hidden = [
    _visible_share(target, above, t, height, width) < HIDDEN
    for t in range(count)
  ]
  pixels = sprites.to_pixels(frames, rng, noise=rng.uniform(0.5, 6))
  return pixels, target.boxes, np.array(hidden)


def _window(box: np.ndarray) -> tuple[int, int, int, int]:
  """The pixels that a box touches: left, top, right, bottom."""
  left, top = np.floor(box[:2]).astype(int) - 1
  right, bottom = np.ceil(box[:2] + box[2:]).astype(int) + 1
  return int(left), int(top), int(right), int(bottom)


def _points(left: int, top: int, right: int, bottom: int) -> np.ndarray:
  return sprites.grid(bottom - top, right - left) + np.float32((left, top))


def _paint(frame: np.ndarray, item: MovingObject, t: int):
  """Paints an object into f32[H, W, 3], in place."""
  box, angle = item.boxes[t], item.angles[t]
  left, top, right, bottom = _window(box)
  left, top = max(left, 0), max(top, 0)
  right, bottom = min(right, frame.shape[1]), min(bottom, frame.shape[0])
  if left >= right or top >= bottom:
    return
  coverage = sprites.silhouette(
    _points(left, top, right, bottom), item.outline, box
  )
  # From pixels of the window to those of the texture, about the centre.
  turn = np.array(
    [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
  )
  matrix = turn * (item.size / box[2:])
  centre = np.array(item.texture.size) / 2
  shift = centre - matrix @ (box[:2] + box[2:] / 2 - (left, top))
  view = item.texture.transform(
    (right - left, bottom - top),
    PIL.Image.Transform.AFFINE,
    (*matrix[0], shift[0], *matrix[1], shift[1]),
    PIL.Image.Resampling.BILINEAR,
  )
  sprites.paint(
    frame[top:bottom, left:right], coverage, np.asarray(view, np.float32)
  )


def _visible_share(
  target: MovingObject,
  above: list[MovingObject],
  t: int,
  height: int,
  width: int,
) -> float:
  """The share of the target that is visible in frame `t`."""
  window = _window(target.boxes[t])
  points = _points(*window)
  whole = sprites.silhouette(points, target.outline, target.boxes[t])
  visible = whole * np.all((points > 0) & (points < (width, height)), axis=-1)
  for item in above:
    visible = visible * (
      1 - sprites.silhouette(points, item.outline, item.boxes[t])
    )
  return float(visible.sum() / whole.sum())
