"""Boxes: encoding, jitter and crops.

A box is x, y, w, h in pixels: its upper left corner, its width and its height,
where pixel i reaches from i to i + 1.

Axes: B sequences, N frames, T time, H height, W width, S side of a crop, C
channels.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Limit of an encoded offset: two boxes aside, or e^2 times as wide. A target
# that is further away is lost in any case.
MAX_OFFSET = 2.0
_MIN_SIDE = 2.0  # Of a tracked box, in pixels.


def encode(box: jax.Array, search: jax.Array) -> jax.Array:
  """Encodes a box relative to its search box: f32[..., 4] each.

  The offset of the centre in widths and heights of `search`, and the logarithms
  of the ratios of the widths and of the heights.
  """
  offset = box[..., :2] + box[..., 2:] / 2
  offset -= search[..., :2] + search[..., 2:] / 2
  scale = jnp.log(box[..., 2:] / search[..., 2:])
  return jnp.concatenate([offset / search[..., 2:], scale], axis=-1)


def decode(code: jax.Array, search: jax.Array) -> jax.Array:
  """The inverse of `encode`, with clipping: f32[..., 4] each."""
  code = jnp.clip(code, -MAX_OFFSET, MAX_OFFSET)
  centre = search[..., :2] + search[..., 2:] / 2
  centre += code[..., :2] * search[..., 2:]
  size = search[..., 2:] * jnp.exp(code[..., 2:])
  return jnp.concatenate([centre - size / 2, size], axis=-1)


def keep_inside(box: jax.Array, height: int, width: int) -> jax.Array:
  """Moves a box into the frame: f32[..., 4].

  Its centre is clipped to the frame, its sides to those of the frame.
  """
  frame = jnp.array([width, height], jnp.float32)
  size = jnp.clip(box[..., 2:], _MIN_SIDE, frame)
  centre = jnp.clip(box[..., :2] + box[..., 2:] / 2, 0.0, frame)
  return jnp.concatenate([centre - size / 2, size], axis=-1)


def overlap(first: jax.Array, second: jax.Array) -> jax.Array:
  """Intersection over union: f32[..., 4] twice -> f32[...]; 0 if empty."""
  low = jnp.maximum(first[..., :2], second[..., :2])
  high = jnp.minimum(
    first[..., :2] + first[..., 2:], second[..., :2] + second[..., 2:]
  )
  common = jnp.prod(jnp.maximum(high - low, 0.0), axis=-1)
  areas = [jnp.prod(box[..., 2:], axis=-1) for box in (first, second)]
  return common / jnp.maximum(sum(areas) - common, 1e-6)


def search_boxes(boxes: jax.Array) -> jax.Array:
  """The search box of each frame: f32[B, T, 4] -> f32[B, T, 4].

  The box in the previous frame; in the first frame its own box.
  """
  return jnp.concatenate([boxes[:, :1], boxes[:, :-1]], axis=1)


def jitter(
  key: jax.Array,
  boxes: jax.Array,
  *,
  correlation: float,
  centre: float,
  size: float,
) -> jax.Array:
  """Adds errors that are correlated in time, as those of a tracker.

  Args:
    key: random key of the errors.
    boxes: f32[B, T, 4].
    correlation: correlation of the errors in successive frames.
    centre: standard deviation of the centre, in widths and heights.
    size: standard deviation of the logarithms of the sides.

  Returns:
    f32[B, T, 4], with the first box unchanged.
  """
  count = boxes.shape[1]
  ages = jnp.arange(count)[:, None] - jnp.arange(count)
  weights = jnp.where(ages >= 0, correlation ** jnp.maximum(ages, 0), 0.0)
  # All frames but the first get the same standard deviation.
  weights = weights.at[:, 0].set(0.0)
  weights /= jnp.maximum(jnp.linalg.norm(weights, axis=1, keepdims=True), 1e-6)
  noise = jnp.einsum(
    'ts,bsk->btk', weights, jax.random.normal(key, boxes.shape)
  )
  return decode(noise * jnp.array([centre, centre, size, size]), boxes)


def check_box(box: Any, height: int, width: int) -> np.ndarray:
  """Returns the box as f32[4].

  Raises:
    ValueError: it is not a box, or its centre is outside of the frame.
  """
  box = np.asarray(box, np.float32)
  if box.shape != (4,) or not np.all(np.isfinite(box)) or np.any(box[2:] <= 0):
    raise ValueError(
      f'box={box.tolist()}: pass x, y, width and height in pixels, the last '
      'two above zero'
    )
  centre = box[:2] + box[2:] / 2
  if np.any(centre < 0) or np.any(centre > (width, height)):
    raise ValueError(
      f'box={box.tolist()}: its centre lies outside of the frame, which is '
      f'{width} wide and {height} high; pass x, y, width and height in pixels'
    )
  return box


def _coverage(
  centre: jax.Array,
  extent: jax.Array,
  size: int,
  length: int,
  *,
  repeat_edge: bool = False,
) -> jax.Array:
  """The weight of each pixel in each sample: f32[N, size, length].

  A sample is the mean over an interval, as wide as the distance of the samples
  but at least one pixel. Where a crop is enlarged this is bilinear
  interpolation; where it is reduced, every pixel counts.

  Args:
    centre: f32[N], centres of the crops, in pixels.
    extent: f32[N], sides of the crops, in pixels.
    size: number of samples.
    length: number of pixels in the frame.
    repeat_edge: samples outside of the frame are its outermost pixels, instead
      of having no weight.
  """
  positions = (jnp.arange(size) + 0.5) / size - 0.5
  positions = centre[:, None] + extent[:, None] * positions
  if repeat_edge:
    positions = jnp.clip(positions, 0.5, length - 0.5)
  width = jnp.maximum(extent / size, 1.0)[:, None, None]
  positions, pixels = positions[..., None], jnp.arange(length)
  above = jnp.minimum(positions + width / 2, pixels + 1)
  below = jnp.maximum(positions - width / 2, pixels)
  weights = jnp.maximum(above - below, 0.0)
  if repeat_edge:
    return weights / weights.sum(axis=-1, keepdims=True)
  return weights / width


def crop(
  frames: jax.Array,
  boxes: jax.Array,
  size: int,
  context: float,
  *,
  repeat_edge: bool = False,
) -> jax.Array:
  """Crops the surroundings of boxes, resized to S x S: f32[N, S, S, C].

  Two products with matrices of bilinear weights instead of a gather. Pixels
  outside of the frame are zero, or with `repeat_edge` those of its edge.

  Args:
    frames: f32[N, H, W, C].
    boxes: f32[N, 4].
    size: S.
    context: width and height of the crop, as a multiple of those of the box.
    repeat_edge: see `_coverage`.
  """
  centre = boxes[:, :2] + boxes[:, 2:] / 2
  extent = boxes[:, 2:] * context
  cover = functools.partial(_coverage, size=size, repeat_edge=repeat_edge)
  rows = cover(centre[:, 1], extent[:, 1], length=frames.shape[1])
  columns = cover(centre[:, 0], extent[:, 0], length=frames.shape[2])
  frames = jnp.einsum('nsh,nhwc->nswc', rows, frames)
  return jnp.einsum('ntw,nswc->nstc', columns, frames)


def crop_many(frame: jax.Array, boxes: jax.Array, size: int) -> jax.Array:
  """Crops many boxes of one frame, with its edge repeated.

  f32[H, W, C], f32[N, 4] -> f32[N, S, S, C].
  """
  centre = boxes[:, :2] + boxes[:, 2:] / 2
  cover = functools.partial(_coverage, size=size, repeat_edge=True)
  rows = cover(centre[:, 1], boxes[:, 3], length=frame.shape[0])
  columns = cover(centre[:, 0], boxes[:, 2], length=frame.shape[1])
  lines = jnp.einsum('nsh,hwc->nswc', rows, frame)
  return jnp.einsum('ntw,nswc->nstc', columns, lines)
