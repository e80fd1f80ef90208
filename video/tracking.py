"""A tracker that regresses boxes and remembers, after Re3 (Gordon et al. 2018).

At each frame two crops, of the frame before and of this one, both around the
box that was found before, go through one convolutional network. An LSTM whose
state is carried from frame to frame reads their features and tells where the
box is now: it can follow what is hidden for a while, and know it again.

A box is x, y, w, h in pixels: its upper left corner, its width and its height,
where pixel i reaches from i to i + 1.

Axes: B sequences, N pairs of frames, T time, H height, W width, S side of a
crop, D features of a pair.
"""

import functools
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from recurrent import cells
from recurrent import unroll
from vision import images

# Name -> what is carried from frame to frame.
CELLS = {'lstm': cells.LSTM, 'peephole': cells.PeepholeLSTM, 'none': None}
# No offset that is learnt or followed is larger: two boxes aside, or e^2 as
# wide. What is further away is lost in any case.
FARTHEST = 2.0
_SMALLEST = 2.0  # Pixels, of a box that is followed.


# Boxes.


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


# Crops.


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


# The network.


@flax.struct.dataclass
class State:
  """What a tracker carries from frame to frame."""

  carry: Any  # Of each layer.
  first: Any  # The carry after the first frame.
  frame: jax.Array  # uint8[B, H, W, 3], the frame before.
  box: jax.Array  # f32[B, 4], in that frame.
  count: jax.Array  # i32[]: frames since the first.


class Tracker(nn.Module):
  """The network: crops, convolutions, and what remembers.

  Attributes:
    side: of a crop in pixels, S.
    context: how many times as wide and as high as the box a crop is.
    filters: of the convolutions, each of 3 x 3 and stride 2.
    skips: channels that a product of 1 x 1 makes of each convolution's output
      for the dense layer, 0 for none; empty for none at all. (Re3 has some.)
    dense: features of a pair of crops, D.
    cell: 'lstm', 'peephole', or 'none': a dense layer in its place, which sees
      one pair of frames and no more.
    features: units of each layer of the cell.
    layers: how many; the second one and those after read the features of the
      pair besides the output of the layer below.
    reset_every: after so many frames the state becomes the one after the first
      frame, as in Re3's published code, which uses 32; 0 for never.
    zero_state: whether the state is forgotten at each frame; an ablation.
    dtype: of the products; boxes and parameters are float32.
  """

  side: int = 32
  context: float = 2.0
  filters: tuple[int, ...] = (16, 32, 32)
  skips: tuple[int, ...] = ()
  dense: int = 128
  cell: str = 'lstm'
  features: int = 128
  layers: int = 1
  reset_every: int = 0
  zero_state: bool = False
  dtype: Any = jnp.float32

  def setup(self):
    """Declares the layers."""
    if self.cell not in CELLS:
      raise ValueError(f'cell={self.cell!r} is none of {", ".join(CELLS)}')
    if self.skips and len(self.skips) != len(self.filters):
      raise ValueError(
        f'skips={self.skips} must be empty or have one number for each of '
        f'filters={self.filters}'
      )
    if self.layers < 1:
      raise ValueError(f'layers={self.layers} must be at least 1')
    self.convolutions = [
      nn.Conv(
        filters,
        (3, 3),
        (2, 2),
        dtype=self.dtype,
        kernel_init=nn.initializers.he_normal(),
      )
      for filters in self.filters
    ]
    self.projections = [
      nn.Dense(channels, dtype=self.dtype) if channels else None
      for channels in self.skips
    ]
    self.slopes = [nn.PReLU() if channels else None for channels in self.skips]
    self.pair = nn.Dense(
      self.dense, dtype=self.dtype, kernel_init=nn.initializers.he_normal()
    )
    make = CELLS[self.cell]
    if make is None:
      self.memory = [
        nn.Dense(self.features, dtype=self.dtype) for _ in range(self.layers)
      ]
    else:
      self.memory = [
        make(
          self.features,
          dtype=self.dtype,
          fan_in=self.dense + (self.features if layer else 0),
        )
        for layer in range(self.layers)
      ]
    # At first the box stays where it was.
    self.offsets = nn.Dense(
      4, kernel_init=nn.initializers.normal(1e-3), dtype=self.dtype
    )

  # One frame.

  def begin(self, frame: jax.Array, box: jax.Array) -> State:
    """The state after the first frame, in which the box is given.

    uint8[B, H, W, 3], f32[B, 4].
    """
    projected = self._project(self.see(frame, frame, box))
    carry, _ = self._advance(self._start(len(box)), projected)
    return State(carry, carry, frame, box, jnp.zeros((), jnp.int32))

  def step(self, state: State, frame: jax.Array) -> tuple[State, jax.Array]:
    """One frame later: uint8[B, H, W, 3] -> the box f32[B, 4]."""
    projected = self._project(self.see(state.frame, frame, state.box))
    carry = self._carried(state.carry, state.first, state.count)
    carry, output = self._advance(carry, projected)
    box = decode(self._offsets(output), state.box)
    box = keep_inside(box, *frame.shape[1:3])
    return State(carry, state.first, frame, box, state.count + 1), box

  def follow(self, frames: jax.Array, box: jax.Array) -> jax.Array:
    """One pass from the first box: uint8[B, T, H, W, 3] -> f32[B, T, 4].

    The box f32[B, 4] of the first frame is given, and returned as it is.
    """
    _, boxes = unroll.scan(
      lambda self, state, frame: self.step(state, frame),
      self,
      self.begin(frames[:, 0], box),
      frames[:, 1:],
      remat=False,
    )
    return jnp.concatenate([box[:, None], boxes], axis=1)

  # All of time at once.

  def __call__(self, frames: jax.Array, search: jax.Array) -> jax.Array:
    """What `step` would find, frame by frame, were it searching there.

    Args:
      frames: uint8[B, T, H, W, 3].
      search: f32[B, T, 4], where each frame is searched; see `search_boxes`.

    Returns:
      f32[B, T - 1, 4], `encode` of the boxes from the second frame on.
    """
    batch, time = frames.shape[:2]
    before = jnp.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    seen = self.see(
      *(x.reshape(-1, *x.shape[2:]) for x in (before, frames, search))
    )
    projected = self._project(seen.reshape(batch, time, -1))
    first, _ = self._advance(self._start(batch), [x[:, 0] for x in projected])

    def body(self, carry, inputs):
      count, projected = inputs
      carry = self._carried(carry, first, count)
      return self._advance(carry, projected)

    rest = [x[:, 1:].swapaxes(0, 1) for x in projected]
    _, outputs = unroll.scan(
      body, self, first, (jnp.arange(time - 1), rest), time_axis=0
    )
    return self._offsets(outputs.swapaxes(0, 1))

  def see(
    self, before: jax.Array, frame: jax.Array, search: jax.Array
  ) -> jax.Array:
    """Features of two frames around a box: f32[N, D].

    uint8[N, H, W, 3] twice, f32[N, 4].
    """
    cut = functools.partial(crop, size=self.side, context=self.context)
    x = jnp.concatenate(
      [cut(images.normalize(part), search) for part in (before, frame)]
    )
    parts = []
    for i, convolution in enumerate(self.convolutions):
      x = nn.relu(convolution(x))
      if self.skips and self.skips[i]:
        parts.append(self.slopes[i](self.projections[i](x)))
    parts.append(x)
    flat = [part.reshape(len(part), -1) for part in parts]
    both = jnp.split(jnp.concatenate(flat, axis=-1), 2)
    return nn.relu(self.pair(jnp.concatenate(both, axis=-1)))

  # What remembers.

  def _project(self, seen: jax.Array) -> list[jax.Array]:
    """The share of each layer that does not depend on the state."""
    if self.cell == 'none':
      return [seen]
    return [cell.project(seen) for cell in self.memory]

  def _advance(
    self, carry: Any, projected: list[jax.Array]
  ) -> tuple[Any, jax.Array]:
    """One step of time of all layers: -> their carries, f32[B, features]."""
    if self.cell == 'none':
      (output,) = projected
      for layer in self.memory:
        output = nn.relu(layer(output))
      return carry, output
    carries, output = [], None
    for cell, old, driven in zip(self.memory, carry, projected, strict=True):
      if output is not None:
        driven = driven + cell.drive(output)
      new, output = cell.step(old, driven)
      carries.append(new)
    return tuple(carries), output

  def _offsets(self, output: jax.Array) -> jax.Array:
    return self.offsets(output).astype(jnp.float32)

  def _start(self, batch: int) -> Any:
    if self.cell == 'none':
      return ()
    return tuple(cell.start((batch,)) for cell in self.memory)

  def _carried(self, carry: Any, first: Any, count: jax.Array) -> Any:
    """What of the state before this frame the step is given."""
    if self.zero_state:
      return jax.tree.map(jnp.zeros_like, carry)
    if self.reset_every:
      again = (count > 0) & (count % self.reset_every == 0)
      return jax.tree.map(lambda x, y: jnp.where(again, x, y), first, carry)
    return carry


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
