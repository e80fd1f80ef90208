"""A tracker that regresses boxes and remembers, after Re3 (Gordon et al. 2018).

At each frame two crops, of the frame before and of this one, both around the
box that was found before, go through a convolutional network. An LSTM whose
state is carried from frame to frame reads their features and tells where the
box is now: it can follow what is hidden for a while, and know it again.

Axes: B sequences, N pairs of frames, T time, H height, W width, S side of a
crop, D features of a pair.
"""

import functools
from typing import Any

import flax
import jax
import jax.numpy as jnp
from flax import linen as nn

from recurrent import cells
from recurrent import unroll
from video.tracking import boxes as boxes_lib
from vision import images

# Name -> what is carried from frame to frame.
CELLS = {'lstm': cells.LSTM, 'peephole': cells.PeepholeLSTM, 'none': None}
FUSIONS = ('early', 'late')


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
    fusion: where the two crops meet. 'early': before the convolutions, in their
      channels, and what moves is seen at once. 'late': after them, as in Re3.
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
  fusion: str = 'early'
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
    if self.fusion not in FUSIONS:
      raise ValueError(
        f'fusion={self.fusion!r} is none of {", ".join(FUSIONS)}'
      )
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
    box = boxes_lib.decode(self._offsets(output), state.box)
    box = boxes_lib.keep_inside(box, *frame.shape[1:3])
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
      search: f32[B, T, 4], where each frame is searched; see
        `boxes.search_boxes`.

    Returns:
      f32[B, T - 1, 4], `boxes.encode` of the boxes from the second frame on.
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
    cut = functools.partial(
      boxes_lib.crop, size=self.side, context=self.context
    )
    early = self.fusion == 'early'
    x = jnp.concatenate(
      [cut(images.normalize(part), search) for part in (before, frame)],
      axis=-1 if early else 0,
    )
    parts = []
    for i, convolution in enumerate(self.convolutions):
      x = nn.relu(convolution(x))
      if self.skips and self.skips[i]:
        parts.append(self.slopes[i](self.projections[i](x)))
    parts.append(x)
    flat = jnp.concatenate([x.reshape(len(x), -1) for x in parts], axis=-1)
    if not early:
      flat = jnp.concatenate(jnp.split(flat, 2), axis=-1)
    return nn.relu(self.pair(flat))

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
    for cell, old, gates in zip(self.memory, carry, projected, strict=True):
      if output is not None:
        gates = gates + cell.project_constant(output)
      new, output = cell.step(old, gates)
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
