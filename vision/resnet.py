"""ResNet-18/34/50/101/152 (He et al. 2016): images to maps of features.

The layout is torchvision's, so that weights published for it give the same
numbers here: explicit symmetric padding, and in the bottleneck the stride is in
the 3x3 convolution. The tree of variables has torchvision's names too. The
layout 'caffe' is that of the authors' own networks.

Axes: B batch, H height, W width, C channels, L = H * W locations of the final
map, D its features.
"""

import functools
from collections.abc import Callable
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

# Depth -> (is the block a bottleneck, blocks in layer1 ... layer4).
LAYOUTS = {
  10: (False, (1, 1, 1, 1)),
  18: (False, (2, 2, 2, 2)),
  34: (False, (3, 4, 6, 3)),
  50: (True, (3, 4, 6, 3)),
  101: (True, (3, 4, 23, 3)),
  152: (True, (3, 8, 36, 3)),
}


LAYOUT_NAMES = ('torchvision', 'caffe')
# Name of a stem -> (size, stride) of its convolutions.
_STEMS = {
  'published': ((7, 2),),
  'strided': ((3, 2), (3, 2)),
  'whole': ((3, 1),),
}


def adaptive_average_pool(features: jax.Array, size: int) -> jax.Array:
  """Averages H x W locations to S x S: f[B, H, W, D] -> f[B, S, S, D].

  Location i averages the rows floor(i H / S) to ceil((i + 1) H / S), as
  PyTorch's `adaptive_avg_pool2d` does. If S exceeds H, rows repeat.
  """
  rows = _averages(features.shape[1], size).astype(features.dtype)
  columns = _averages(features.shape[2], size).astype(features.dtype)
  return jnp.einsum(
    'sh,tw,bhwd->bstd',
    rows,
    columns,
    features,
    precision=jax.lax.Precision.HIGHEST,
  )


def _averages(length: int, size: int) -> np.ndarray:
  """The matrix f32[size, length] that averages neighbours."""
  cells = np.arange(size)[:, None]
  starts = cells * length // size
  ends = -(-(cells + 1) * length // size)
  inside = (np.arange(length) >= starts) & (np.arange(length) < ends)
  return (inside / inside.sum(1, keepdims=True)).astype(np.float32)


class Convolution(nn.Module):
  """A convolution without bias, padded by half its size on every side."""

  features: int
  size: int
  stride: int = 1
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """f[B, H, W, C] -> f[B, H / stride, W / stride, features]."""
    kernel = self.param(
      'kernel',
      nn.initializers.variance_scaling(2.0, 'fan_out', 'normal'),
      (self.size, self.size, x.shape[-1], self.features),
    ).astype(self.dtype)
    x = x.astype(self.dtype)
    if self.size == 1:
      # Equal to the convolution; on CPU its gradient is faster.
      return x[:, :: self.stride, :: self.stride] @ kernel[0, 0]
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      window_strides=(self.stride, self.stride),
      padding=[(self.size // 2, self.size // 2)] * 2,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )


class Projection(nn.Module):
  """The shortcut of a block that changes the shape of its input."""

  features: int
  stride: int
  norm: Callable[..., nn.Module]
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """f[B, H, W, C] -> f[B, H / stride, W / stride, features]."""
    x = Convolution(self.features, 1, self.stride, self.dtype, name='0')(x)
    return self.norm(name='1')(x)


class Block(nn.Module):
  """A residual block: 3x3, 3x3; or, as a bottleneck, 1x1, 3x3, 1x1."""

  features: int
  stride: int
  bottleneck: bool
  norm: Callable[..., nn.Module]
  dtype: jnp.dtype
  layout: str = 'torchvision'

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """f[B, H, W, C] -> f[B, H / stride, W / stride, features or 4 times it]."""
    if self.bottleneck:
      first, second = 1, self.stride
      if self.layout == 'caffe':
        first, second = second, first
      # (features, size, stride) of each convolution.
      layers = (
        (self.features, 1, first),
        (self.features, 3, second),
        (self.features * 4, 1, 1),
      )
    else:
      layers = ((self.features, 3, self.stride), (self.features, 3, 1))
    y = x
    for i, layer in enumerate(layers, 1):
      y = Convolution(*layer, self.dtype, name=f'conv{i}')(y)
      y = self.norm(name=f'bn{i}')(y)
      if i < len(layers):
        y = nn.relu(y)
    if x.shape != y.shape:
      x = Projection(
        y.shape[-1], self.stride, self.norm, self.dtype, name='downsample'
      )(x)
    return nn.relu(x + y)


class Stage(nn.Module):
  """Blocks of equal width; the first has the stride."""

  blocks: int
  features: int
  stride: int
  bottleneck: bool
  norm: Callable[..., nn.Module]
  dtype: jnp.dtype
  layout: str = 'torchvision'

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """f[B, H, W, C] -> f[B, H / stride, W / stride, features or 4 times it]."""
    for i in range(self.blocks):
      x = Block(
        self.features,
        self.stride if i == 0 else 1,
        self.bottleneck,
        self.norm,
        self.dtype,
        self.layout,
        name=str(i),
      )(x)
    return x


class ResNet(nn.Module):
  """The network up to its features, without a classifier.

  Attributes:
    depth: 10, 18, 34, 50, 101 or 152. 10, with one block a stage, is not of
      the paper.
    width: channels of the stem; D is 8 times it after four stages, from depth
      50 on 32 times.
    stem: 'published', a 7x7 convolution and pooling that divide the side of the
      image by 4; for small images 'strided', two 3x3 convolutions that divide
      it by 4 too (several times as fast to train as a wider map), or 'whole',
      a 3x3 convolution that keeps it.
    strides: of the stages. Fewer than four leave the last stages out: an image
      of 64 pixels has a map of 8 x 8 locations with (1, 2).
    positions: appends the row and the column of a location, each one-hot, to
      its features: D is larger by the height and the width of the map.
    grid_size: pools the map to grid_size x grid_size locations.
    freeze_at: number of parts (the stem, layer1, ..., layer4) without gradient
      and with fixed running statistics. An optimizer with weight decay must
      leave their parameters out too.
    dtype: dtype of the computation; parameters are float32.
    layout: 'torchvision', or 'caffe': the stride of a bottleneck is in its
      first convolution, and the pooling of the stem has no padding in front and
      keeps the last rows and columns.
    norm_axis_name: pmapped axis over which training averages the statistics of
      a batch.
  """

  depth: int
  width: int = 64
  stem: str = 'published'
  strides: Sequence[int] = (1, 2, 2, 2)
  positions: bool = False
  grid_size: int | None = None
  freeze_at: int = 0
  dtype: jnp.dtype = jnp.float32
  layout: str = 'torchvision'
  norm_axis_name: str | None = None

  @nn.compact
  def __call__(
    self, images: jax.Array, *, train: bool
  ) -> tuple[jax.Array, jax.Array]:
    """f32[B, H, W, 3] -> the map f32[B, L, D] and its mean f32[B, D].

    `images` are normalized. Locations are in row-major order. Without `train`
    batch normalisation uses its running statistics, also recommended for
    fine-tuning a published network on small batches.
    """
    if self.depth not in LAYOUTS:
      raise ValueError(f'depth={self.depth}: choose one of {list(LAYOUTS)}')
    if self.layout not in LAYOUT_NAMES:
      raise ValueError(
        f'layout={self.layout!r}: choose one of {", ".join(LAYOUT_NAMES)}'
      )
    if not jnp.issubdtype(images.dtype, jnp.floating):
      raise ValueError(
        f'images are {images.dtype}: normalize them first, with '
        'vision.images.normalize'
      )
    if not 1 <= len(self.strides) <= 4:
      raise ValueError(f'strides={self.strides}: choose one to four')
    parts = 1 + len(self.strides)
    if not 0 <= self.freeze_at <= parts:
      raise ValueError(f'freeze_at={self.freeze_at}: choose 0 to {parts}')
    bottleneck, blocks = LAYOUTS[self.depth]
    x = images
    for part in range(parts):
      norm = functools.partial(
        nn.BatchNorm,
        use_running_average=not train or part < self.freeze_at,
        momentum=0.9,
        epsilon=1e-5,
        dtype=self.dtype,
        axis_name=self.norm_axis_name,
      )
      if part == 0:
        x = self._stem(x, norm)
      else:
        x = Stage(
          blocks[part - 1],
          self.width * 2 ** (part - 1),
          self.strides[part - 1],
          bottleneck,
          norm,
          self.dtype,
          self.layout,
          name=f'layer{part}',
        )(x)
      if part + 1 == self.freeze_at:
        x = jax.lax.stop_gradient(x)
    x = x.astype(jnp.float32)
    if self.positions:
      x = _append_positions(x)
    pooled = x.mean((1, 2))
    if self.grid_size is not None:
      x = adaptive_average_pool(x, self.grid_size)
    return x.reshape(x.shape[0], -1, x.shape[-1]), pooled

  def _stem(self, x: jax.Array, norm: Callable[..., nn.Module]) -> jax.Array:
    if self.stem not in _STEMS:
      raise ValueError(f'stem={self.stem!r}: choose one of {", ".join(_STEMS)}')
    for i, (size, stride) in enumerate(_STEMS[self.stem], 1):
      x = Convolution(self.width, size, stride, self.dtype, name=f'conv{i}')(x)
      x = nn.relu(norm(name=f'bn{i}')(x))
    if self.stem == 'published':
      padding = ((1, 1), (1, 1))
      if self.layout == 'caffe':  # One more where a window would be cut off.
        padding = tuple((0, (n - 3) % 2) for n in x.shape[1:3])
      x = nn.max_pool(x, (3, 3), (2, 2), padding)
    return x


def _append_positions(x: jax.Array) -> jax.Array:
  """f32[B, H, W, D] -> f32[B, H, W, D + H + W]."""
  size, height, width, _ = x.shape
  rows = jnp.repeat(jnp.eye(height)[:, None], width, axis=1)
  columns = jnp.repeat(jnp.eye(width)[None], height, axis=0)
  positions = jnp.concatenate([rows, columns], axis=-1)
  positions = jnp.broadcast_to(positions, (size, *positions.shape))
  return jnp.concatenate([x, positions], axis=-1)
