"""VGG-16 and VGG-19 (Simonyan and Zisserman 2015): images to maps of features.

The encoders of Show, Attend and Tell and its contemporaries. The layout and the
names of the variables are torchvision's, so that weights published for it give
the same numbers here.

Axes: B batch, H height, W width, C channels, L = H * W locations of the final
map, D its features.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from vision import resnet

# Depth -> convolutions of each block; the network has three dense layers more.
LAYOUTS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_WIDTHS = (1, 2, 4, 8, 8)  # Of the blocks, in the width of the first.
_SIDE = 7  # Of the map that the dense layers read.


def numbers(layout: Sequence[int]) -> list[int]:
  """The convolutions' numbers: of VGG-16 0, 2, 5, 7, 10, ..., 28.

  In torchvision a convolution, a ReLU and a pooling have one each.
  """
  result, number = [], 0
  for count in layout:
    result += range(number, number + 2 * count, 2)
    number += 2 * count + 1
  return result


class Features(nn.Module):
  """Blocks of 3x3 convolutions; pooling halves the map between two blocks."""

  depth: int
  width: int
  freeze_at: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """f[B, H, W, 3] -> f[B, H / 16, W / 16, D], after the last ReLU."""
    layout = LAYOUTS[self.depth]
    names = map(str, numbers(layout))
    for block, count in enumerate(layout):
      if block:
        x = nn.max_pool(x, (2, 2), (2, 2))
      for _ in range(count):
        x = nn.Conv(
          self.width * _WIDTHS[block],
          (3, 3),
          padding=1,
          dtype=self.dtype,
          kernel_init=nn.initializers.variance_scaling(
            2.0, 'fan_out', 'normal'
          ),
          name=next(names),
        )(x)
        x = nn.relu(x)
      if block + 1 == self.freeze_at:
        x = jax.lax.stop_gradient(x)
    return x


class Classifier(nn.Module):
  """The first two dense layers of the classifier, fc6 and fc7."""

  width: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """f[B, 7, 7, C] -> f[B, width], after the ReLU of fc7."""
    # They read channel by channel.
    x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
    for name in ('0', '3'):
      dense = nn.Dense(
        self.width,
        dtype=self.dtype,
        kernel_init=nn.initializers.normal(0.01),
        name=name,
      )
      x = nn.relu(dense(x))
    return x


class VGG(nn.Module):
  """The network up to its last convolution, or up to fc7.

  Attributes:
    depth: 16, which ends with conv5_3, or 19, which ends with conv5_4.
    width: channels of the first block; D is 8 times it.
    fc7: the features are those of fc7, 64 times the width, at one location.
    grid_size: pools the map to grid_size x grid_size locations.
    freeze_at: number of blocks without gradient, up to five. An optimizer with
      weight decay must leave their parameters out too.
    dtype: dtype of the computation; parameters are float32.
  """

  depth: int
  width: int = 64
  fc7: bool = False
  grid_size: int | None = None
  freeze_at: int = 0
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, images: jax.Array, *, train: bool
  ) -> tuple[jax.Array, jax.Array]:
    """f32[B, H, W, 3] -> the map f32[B, L, D] and its mean f32[B, D].

    `images` are normalized. Locations are in row-major order: 14 x 14 of an
    image of 224 x 224. Without dropout, `train` changes nothing.
    """
    if self.depth not in LAYOUTS:
      raise ValueError(f'depth={self.depth}: choose one of {list(LAYOUTS)}')
    if not jnp.issubdtype(images.dtype, jnp.floating):
      raise ValueError(
        f'images are {images.dtype}: normalize them first, with '
        'vision.images.normalize'
      )
    blocks = len(LAYOUTS[self.depth])
    if not 0 <= self.freeze_at <= blocks:
      raise ValueError(f'freeze_at={self.freeze_at}: choose 0 to {blocks}')
    if self.fc7 and self.grid_size is not None:
      raise ValueError('fc7 is at one location: leave out grid_size')
    x = Features(
      self.depth, self.width, self.freeze_at, self.dtype, name='features'
    )(images)
    if self.fc7:
      x = nn.max_pool(x, (2, 2), (2, 2))
      x = resnet.adaptive_average_pool(x, _SIDE)
      x = Classifier(64 * self.width, self.dtype, name='classifier')(x)
      x = x.astype(jnp.float32)
      return x[:, None], x
    x = x.astype(jnp.float32)
    pooled = x.mean((1, 2))
    if self.grid_size is not None:
      x = resnet.adaptive_average_pool(x, self.grid_size)
    return x.reshape(x.shape[0], -1, x.shape[-1]), pooled
