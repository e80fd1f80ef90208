"""Boxes of what is followed, how one is seen from another, and what they hold.

A box is x, y, w, h in pixels: its upper left corner, its width and its height,
where pixel i reaches from i to i + 1.

Axes: B sequences, N frames, T time, H height, W width, S side of a crop, C
channels.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# No offset that is learnt or followed is larger: two boxes aside, or e^2 as
# wide. What is further away is lost in any case.
FARTHEST = 2.0
_SMALLEST = 2.0  # Pixels, of a box that is followed.


def encode(box: jax.Array, search: jax.Array) -> jax.Array:
  """A box as seen from the one it is searched around: f32[..., 4] each.

  The offset of the centre in widths and heights of `search`, and the logarithms
  of the ratios of the widths and of the heights.
  """
  offset = box[..., :2] + box[..., 2:] / 2
  offset -= search[..., :2] + search[..., 2:] / 2
  scale = jnp.log(box[..., 2:] / search[..., 2:])
  return jnp.concatenate([offset / search[..., 2:], scale], axis=-1)


def decode(code: jax.Array, search: jax.Array) -> jax.Array:
  """The inverse of `encode`: f32[..., 4] each; see `FARTHEST`."""
  code = jnp.clip(code, -FARTHEST, FARTHEST)
  centre = search[..., :2] + search[..., 2:] / 2
  centre += code[..., :2] * search[..., 2:]
  size = search[..., 2:] * jnp.exp(code[..., 2:])
  return jnp.concatenate([centre - size / 2, size], axis=-1)


def keep_inside(box: jax.Array, height: int, width: int) -> jax.Array:
  """Brings a box back to a frame that it has left: f32[..., 4].

  Its centre stays in the frame, and its sides are no longer than those of it.
  """
  frame = jnp.array([width, height], jnp.float32)
  size = jnp.clip(box[..., 2:], _SMALLEST, frame)
  centre = jnp.clip(box[..., :2] + box[..., 2:] / 2, 0.0, frame)
  return jnp.concatenate([centre - size / 2, size], axis=-1)


def search_boxes(boxes: jax.Array) -> jax.Array:
  """Where each frame is searched, if `boxes` were found: f32[B, T, 4].

  The first frame at its own box, every other one at the box before.
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
  """Errors as a tracker makes them, which stay for a while: f32[B, T, 4].

  The first box is given, and stays as it is.

  Args:
    key: of the errors.
    boxes: f32[B, T, 4].
    correlation: of the errors of one frame and the next one.
    centre: their standard deviation, in widths and heights.
    size: the standard deviation of the logarithms of the sides.
  """
  count = boxes.shape[1]
  ages = jnp.arange(count)[:, None] - jnp.arange(count)
  weights = jnp.where(ages >= 0, correlation ** jnp.maximum(ages, 0), 0.0)
  # Whatever their age: all frames but the first have the same deviation.
  weights = weights.at[:, 0].set(0.0)
  weights /= jnp.maximum(jnp.linalg.norm(weights, axis=1, keepdims=True), 1e-6)
  noise = jnp.einsum(
    'ts,bsk->btk', weights, jax.random.normal(key, boxes.shape)
  )
  return decode(noise * jnp.array([centre, centre, size, size]), boxes)


def check_box(box: Any, height: int, width: int) -> np.ndarray:
  """The box as f32[4].

  Raises:
    ValueError: it is no box, or not in a frame of this size.
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
  centre: jax.Array, extent: jax.Array, size: int, length: int
) -> jax.Array:
  """How much of each sample lies on each pixel: f32[N, size, length].

  A sample is a window around its place, as wide as the samples are apart and
  one pixel at least. In the second case its share of two pixels is that of
  bilinear interpolation, and in the first it is their mean: no pixel is missed.

  Args:
    centre: f32[N] of the crop, in pixels.
    extent: f32[N], its side in pixels.
    size: samples of a crop.
    length: pixels of the picture.
  """
  places = (jnp.arange(size) + 0.5) / size - 0.5
  places = centre[:, None] + extent[:, None] * places
  width = jnp.maximum(extent / size, 1.0)[:, None, None]
  places, pixels = places[..., None], jnp.arange(length)
  above = jnp.minimum(places + width / 2, pixels + 1)
  below = jnp.maximum(places - width / 2, pixels)
  return jnp.maximum(above - below, 0.0) / width


def crop(
  frames: jax.Array, boxes: jax.Array, size: int, context: float
) -> jax.Array:
  """What surrounds boxes, each side stretched to S pixels: f32[N, S, S, C].

  Two products with matrices of bilinear weights, and no gather. Outside of the
  frame there are zeros.

  Args:
    frames: f32[N, H, W, C].
    boxes: f32[N, 4].
    size: S.
    context: how many times as wide and as high as the box the crop is.
  """
  centre = boxes[:, :2] + boxes[:, 2:] / 2
  extent = boxes[:, 2:] * context
  rows = _coverage(centre[:, 1], extent[:, 1], size, frames.shape[1])
  columns = _coverage(centre[:, 0], extent[:, 0], size, frames.shape[2])
  frames = jnp.einsum('nsh,nhwc->nswc', rows, frames)
  return jnp.einsum('ntw,nswc->nstc', columns, frames)
