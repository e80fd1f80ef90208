"""Encoders of single frames, and differences between successive frames.

Axes: B clips, T time, N frames, H x W pixels, C channels, D features.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from training import parallel
from vision import images
from vision import networks


def normalize(frames: jax.Array) -> jax.Array:
  """Normalizes pixels uint8[..., C] -> f32[..., C]; casts features to f32.

  Three channels are normalized as ImageNet's images. In one channel black
  becomes -1 and white 1.
  """
  if frames.dtype != jnp.uint8:
    return frames.astype(jnp.float32)
  if frames.shape[-1] == 3:
    return images.normalize(frames)
  return frames.astype(jnp.float32) / 127.5 - 1


def with_differences(
  x: jax.Array, before: jax.Array, factor: float = 1.0
) -> jax.Array:
  """Appends the difference from the previous frame: [..., D] -> [..., 2 * D].

  Args:
    x: f32[..., D].
    before: f32[..., D], the frame before each.
    factor: scale of the difference, which is small at a high frame rate.
  """
  return jnp.concatenate([x, factor * (x - before)], axis=-1)


def with_distances(x: jax.Array, dimensions: int) -> jax.Array:
  """Appends the distance of each pair of points: [..., D] -> [..., D + pairs].

  Args:
    x: f32[..., D], points one after the other.
    dimensions: of a point.

  Raises:
    ValueError: D is no multiple of `dimensions`.
  """
  if x.shape[-1] % dimensions:
    raise ValueError(
      f'{x.shape[-1]} features are no points of {dimensions} dimensions: pass '
      '--config.model.distances=0'
    )
  points = x.reshape(*x.shape[:-1], -1, dimensions)
  first, second = np.triu_indices(points.shape[-2], k=1)
  offsets = points[..., first, :] - points[..., second, :]
  # The root has no gradient at 0; nothing below the points needs one.
  distances = jnp.sqrt(jnp.sum(offsets**2, axis=-1))
  return jnp.concatenate([x, jax.lax.stop_gradient(distances)], axis=-1)


def one_before(x: jax.Array) -> jax.Array:
  """The frame before each frame, the first before itself: [B, T, ...]."""
  return jnp.concatenate([x[:, :1], x[:, :-1]], axis=1)


class FrameCNN(nn.Module):
  """An encoder of small frames: convolutions and a dense layer.

  Attributes:
    channels: channels of the convolutions, each 3 x 3 with stride 2.
    features: D; 0 returns the map of the last convolution.
    dtype: dtype of the products; parameters are float32.
  """

  channels: tuple[int, ...] = (16, 32, 64)
  features: int = 128
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, frames: jax.Array) -> jax.Array:
    """f32[N, H, W, C] -> f32[N, D], or the map f32[N, H', W', channels]."""
    x = frames
    for channels in self.channels:
      x = nn.relu(nn.Conv(channels, (3, 3), strides=2, dtype=self.dtype)(x))
    if self.features:
      x = x.reshape(x.shape[0], -1)
      x = nn.relu(nn.Dense(self.features, dtype=self.dtype)(x))
    return x.astype(jnp.float32)


def create(
  arguments: ml_collections.ConfigDict, *, train_batch_stats: bool, dtype: Any
) -> FrameCNN | networks.Network | None:
  """The encoder of a config.

  Args:
    arguments: see `networks.create` if there is a `depth`, else those of a
      `FrameCNN`; empty if records hold features.
    train_batch_stats: whether BatchNorm uses the batches of all devices.
    dtype: dtype of the products.
  """
  arguments = arguments.to_dict()
  if not arguments:
    return None
  if 'depth' in arguments:
    return networks.create(
      arguments,
      dtype=dtype,
      norm_axis_name=parallel.AXIS if train_batch_stats else None,
    )
  channels = tuple(arguments.pop('channels'))  # A list in JSON.
  return FrameCNN(channels=channels, **arguments, dtype=dtype)
