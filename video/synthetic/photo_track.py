"""`photo_track`: SYNTHETIC motion over photographs, to learn tracking from.

What is cut out of a photograph moves over another one, and is to be followed.
The camera pans, the target turns, grows and changes its proportions; things
that look like it pass behind it and others in front of it; light, blur and
noise change. Without photographs the textures are drawn. Unlike those of
`occlusion_track` the frames are large, the motion is irregular and the number
of sequences has no end: they are drawn when they are read.

Sequence `index` of a split depends on the split, the index and the photographs
alone; no photograph serves two splits.

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

HIDDEN = 0.3  # A target of which less can be seen is called hidden.
_CLEAR = 0.85  # So much of it is to be seen in the first frames,
_CLEAR_FRAMES = 3  # of which there are so many.
_SIDES = (0.1, 0.35)  # Of a target, in heights of the frame.
_ASPECT = 2.8  # The most that one side of it is longer than the other.
_SPEEDS = (0.02, 0.4)  # In sides of a thing, per frame.


@dataclasses.dataclass(frozen=True)
class Thing:
  """Something that moves, in all frames.

  Attributes:
    picture: what is on it; a square, as large as the diagonal of `size`, so
      that it covers the thing however it is turned.
    size: f32[2], the width and height for which the picture is made.
    outline: one of `sprites.SILHOUETTES`.
    boxes: f32[T, 4], x, y, w, h in pixels of the frame.
    angles: f32[T], by which the picture is turned in it, in radians.
  """

  picture: PIL.Image.Image
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
    """Draws nothing yet.

    Args:
      split: 'train', 'validation' or 'test'.
      count: how many sequences.
      num_frames: of each, T.
      height: of a frame, H.
      width: of a frame, W.
      images: a directory of pictures, of which each split takes its own;
        None for drawn textures.

    Raises:
      ValueError: there are too few pictures, or a number is too small.
    """
    if split not in SPLITS:
      raise ValueError(f'split={split!r} must be one of {", ".join(SPLITS)}')
    if min(height, width) < 32 or num_frames <= _CLEAR_FRAMES or count < 1:
      raise ValueError(
        f'count={count}, num_frames={num_frames}, height={height}, '
        f'width={width}: pass 1 sequence, {_CLEAR_FRAMES + 1} frames and 32 '
        'pixels each way at least'
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

    Boxes are those of the whole target, however much of it can be seen.
    """
    if not 0 <= index < len(self):
      raise IndexError(index)  # Which ends a loop over all.
    rng = np.random.default_rng((SPLITS.index(self._split), int(index)))
    frames, boxes, hidden = _sequence(rng, self._texture, *self._shape)
    return {
      'id': f'{self._split}-{index:06d}',
      'frames': frames,
      'boxes': boxes,
      'hidden': hidden,
    }


def fingerprint(*splits: PhotoTrack) -> str:
  """Sixteen letters and digits that say which contents splits have.

  From their sizes and their first sequences: they have no end.
  """
  digest = hashlib.sha256()
  for split in splits:
    digest.update(str(len(split)).encode())
    for index in range(min(len(split), 2)):
      record = split[index]
      for name in ('frames', 'boxes', 'hidden'):
        digest.update(record[name].tobytes())
  return digest.hexdigest()[:16]


# How things move.


def _drift(rng, count: int, most: float) -> np.ndarray:
  """A smooth random walk from 0 that stays within +-most: f32[T]."""
  knots = rng.uniform(-most, most, size=max(2, count // 6) + 1)
  knots[0] = 0.0
  places = np.linspace(0, len(knots) - 1, count)
  lower = np.minimum(places.astype(int), len(knots) - 2)
  share = (1 - np.cos(math.pi * (places - lower))) / 2
  return knots[lower] + share * (knots[lower + 1] - knots[lower])


def _log_uniform(rng, low: float, high: float) -> float:
  return math.exp(rng.uniform(math.log(low), math.log(high)))


def _walk(rng, count: int, speed: float) -> np.ndarray:
  """A path from 0 whose velocity changes slowly or fast: f64[T, 2]."""
  persistence = rng.uniform(0.6, 1.0)
  velocity = rng.normal(0, speed, size=2)
  # Whatever the persistence, the velocity keeps its deviation.
  change = speed * math.sqrt(1 - persistence**2)
  velocities = []
  for _ in range(count - 1):
    velocities.append(velocity)
    velocity = persistence * velocity + rng.normal(0, change, size=2)
  return np.concatenate([np.zeros((1, 2)), np.cumsum(velocities, axis=0)])


def _reflect(places: np.ndarray, low, high) -> np.ndarray:
  """Turns a path back where it would leave [low, high]: f64[T, 2]."""
  span = np.maximum(np.asarray(high, float) - low, 1e-3)
  inside = np.mod(places - low, 2 * span)
  return low + np.minimum(inside, 2 * span - inside)


def _target_boxes(rng, count: int, height: int, width: int) -> np.ndarray:
  """The target's boxes, whose centres do not leave the frame: f32[T, 4]."""
  side = _log_uniform(rng, *_SIDES) * height
  stretch = _log_uniform(rng, 1 / _ASPECT, _ASPECT)
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
  # Later a part of it may leave the frame.
  margin = 0.6 * margin
  centres = _reflect(start + walk, margin, frame - margin)
  boxes = np.concatenate([centres - sizes / 2, sizes], axis=-1)
  return boxes.astype(np.float32)


def _thing(rng, texture, outline: str, boxes: np.ndarray) -> Thing:
  # As large as it is ever shown: no detail is lost or made.
  size = boxes[:, 2:].max(axis=0)
  side = math.ceil(math.hypot(*size)) + 2
  angles = _drift(rng, len(boxes), rng.uniform(0, 0.5))
  picture = PIL.Image.fromarray(texture(rng, side, side))
  return Thing(picture, size, outline, boxes, angles)


def _outline(rng) -> str:
  return sprites.SILHOUETTES[rng.integers(len(sprites.SILHOUETTES))]


def _distractor(rng, texture, target: Thing, pan, height, width) -> Thing:
  """Passes behind the target; some look like it, some stand still."""
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
  return _thing(rng, texture, _outline(rng), boxes)


def _occluder(rng, texture, target: Thing, pan) -> Thing:
  """Stands where the target will be, or comes to meet it."""
  count = len(pan)
  moment = int(rng.integers(_CLEAR_FRAMES, count))
  met = target.boxes[moment]
  centre = met[:2] + met[2:] / 2
  size = met[2:] * rng.uniform(0.7, 2.0, size=2)
  if rng.random() < 0.5:
    offsets = pan[moment] - pan
  else:
    frames = rng.uniform(2, 8)  # In about so many it passes.
    angle = rng.uniform(0, 2 * math.pi)
    velocity = (size + met[2:]) / frames * (math.cos(angle), math.sin(angle))
    offsets = (np.arange(count) - moment)[:, None] * velocity
  boxes = np.concatenate(
    [centre + offsets - size / 2, np.tile(size, (count, 1))], axis=-1
  )
  boxes = boxes.astype(np.float32)
  outline = sprites.SILHOUETTES[1 + rng.integers(2)]
  return _thing(rng, texture, outline, boxes)


# How it looks.


def _sequence(rng, texture, count, height, width):
  """uint8[T, H, W, 3], f32[T, 4], bool[T]."""
  # The background is larger than the frame, which moves over it.
  zoom = np.exp(_drift(rng, count, rng.uniform(0, 0.1)))
  wide, tall = math.ceil(1.5 * width), math.ceil(1.5 * height)
  background = PIL.Image.fromarray(texture(rng, tall, wide))
  pan = rng.uniform((0, 0), (0.25 * width, 0.25 * height))
  walk = _walk(rng, count, _log_uniform(rng, 0.05, 3.0))
  pan = _reflect(pan + walk, (0, 0), (0.25 * width, 0.25 * height))

  boxes = _target_boxes(rng, count, height, width)
  target = _thing(rng, texture, _outline(rng), boxes)
  below = [
    _distractor(rng, texture, target, pan, height, width)
    for _ in range(rng.integers(4))
  ]
  above = []
  if rng.random() < 0.5:
    occluder = _occluder(rng, texture, target, pan)
    clear = [
      _visible(target, [occluder], t, height, width)
      for t in range(_CLEAR_FRAMES)
    ]
    if min(clear) > _CLEAR:
      above.append(occluder)

  light = np.exp(_drift(rng, count, rng.uniform(0, 0.25)))
  blur = rng.uniform(-1.0, 0.8) + _drift(rng, count, rng.uniform(0, 0.6))
  frames = np.zeros((count, height, width, 3), np.float32)
  for t in range(count):
    left, top = pan[t]
    corner = (left + 1.25 * width * zoom[t], top + 1.25 * height * zoom[t])
    seen = background.resize(
      (width, height),
      PIL.Image.Resampling.BILINEAR,
      box=(left, top, min(corner[0], wide), min(corner[1], tall)),
    )
    frame = np.array(seen, np.float32)
    for thing in (*below, target, *above):
      _paint(frame, thing, t)
    if blur[t] > 0.2:
      picture = PIL.Image.fromarray(np.clip(frame, 0, 255).astype(np.uint8))
      soft = PIL.ImageFilter.GaussianBlur(float(blur[t]))
      frame = np.asarray(picture.filter(soft), np.float32)
    frames[t] = frame * light[t]
  hidden = [
    _visible(target, above, t, height, width) < HIDDEN for t in range(count)
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


def _paint(frame: np.ndarray, thing: Thing, t: int):
  """Paints a thing into f32[H, W, 3], in place."""
  box, angle = thing.boxes[t], thing.angles[t]
  left, top, right, bottom = _window(box)
  left, top = max(left, 0), max(top, 0)
  right, bottom = min(right, frame.shape[1]), min(bottom, frame.shape[0])
  if left >= right or top >= bottom:
    return
  coverage = sprites.silhouette(
    _points(left, top, right, bottom), thing.outline, box
  )
  # From a pixel of the window to one of the picture: turned about the centre.
  turn = np.array(
    [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
  )
  matrix = turn * (thing.size / box[2:])
  centre = np.array(thing.picture.size) / 2
  shift = centre - matrix @ (box[:2] + box[2:] / 2 - (left, top))
  seen = thing.picture.transform(
    (right - left, bottom - top),
    PIL.Image.Transform.AFFINE,
    (*matrix[0], shift[0], *matrix[1], shift[1]),
    PIL.Image.Resampling.BILINEAR,
  )
  sprites.paint(
    frame[top:bottom, left:right], coverage, np.asarray(seen, np.float32)
  )


def _visible(
  target: Thing, above: list[Thing], t: int, height: int, width: int
) -> float:
  """What share of the target can be seen in frame `t`."""
  window = _window(target.boxes[t])
  points = _points(*window)
  whole = sprites.silhouette(points, target.outline, target.boxes[t])
  seen = whole * np.all((points > 0) & (points < (width, height)), axis=-1)
  for thing in above:
    seen = seen * (
      1 - sprites.silhouette(points, thing.outline, thing.boxes[t])
    )
  return float(seen.sum() / whole.sum())
