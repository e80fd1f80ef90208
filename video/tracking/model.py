"""A recurrent regression tracker, after Re3 (Gordon et al. 2018).

At each frame two crops, of the previous frame and of this one, both around the
previous box, go through a convolutional network. An LSTM reads their features
and regresses the box in this frame. Its state is carried from frame to frame,
so that the tracker can follow a target that is hidden for a while.

Axes: B sequences, N pairs of frames, T time, H height, W width, S side of a
crop, D features of a pair.
"""

import functools
from typing import Any
from typing import ClassVar

import flax
import jax
import jax.numpy as jnp
from flax import linen as nn

from recurrent import cells
from recurrent import unroll
from video.tracking import boxes as boxes_lib
from vision import images

# Name -> the recurrent cell; None is a feed-forward layer.
CELLS = {'lstm': cells.LSTM, 'peephole': cells.PeepholeLSTM, 'none': None}
FUSIONS = ('early', 'late')


@flax.struct.dataclass
class State:
  """State of a tracker after a frame."""

  carry: Any  # The carry of each layer.
  first: Any  # The carry after the first frame.
  frame: jax.Array  # uint8[B, H, W, 3], or a window of the frame.
  box: jax.Array  # f32[B, 4], the box in that frame.
  count: jax.Array  # i32[]: number of frames since the first.


class Tracker(nn.Module):
  """The network: crops, convolutions and recurrent layers.

  Attributes:
    side: side of a crop in pixels, S.
    context: width and height of a crop, as a multiple of those of the box.
    fusion: where the two crops are joined. 'early': in the channels, before the
      convolutions, which then see motion. 'late': after them, as in Re3.
    filters: channels of the convolutions, each 3 x 3 with stride 2.
    skips: channels of a 1 x 1 projection of each convolution's output that the
      dense layer reads too, as in Re3; 0 for none. Empty for none at all.
    dense: features of a pair of crops, D.
    cell: 'lstm', 'peephole', or 'none', a dense layer that sees one pair of
      frames only.
    features: units of each layer.
    layers: number of layers. Each reads the features of the pair, and the
      output of the layer below.
    reset_every: after this number of frames the state is reset to that after
      the first frame, as in Re3's published code, which uses 32; 0 for never.
    zero_state: zeroes the state at each frame; an ablation.
    dtype: dtype of the products; boxes and parameters are float32.
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
  frozen: ClassVar[tuple[str, ...]] = ()  # Parameters that are not trained.

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
    # Small weights: before training the box stays where it was.
    self.offsets = nn.Dense(
      4, kernel_init=nn.initializers.normal(1e-3), dtype=self.dtype
    )

  # One frame.

  def searched(self, box: Any) -> tuple[Any, float]:
    """The box whose surroundings a step reads, and the factor of its sides."""
    return box, self.context

  def start(self, frame: jax.Array, box: jax.Array) -> State:
    """The state after the first frame, in which the box is given.

    uint8[B, H, W, 3], f32[B, 4].
    """
    projected = self._project(self.see(frame, frame, box))
    carry, _ = self._advance(self._initial_carry(len(box)), projected)
    return State(carry, carry, frame, box, jnp.zeros((), jnp.int32))

  def step(
    self,
    state: State,
    frame: jax.Array,
    *,
    corner: jax.Array | tuple[float, float] = (0.0, 0.0),
    size: jax.Array | tuple[int, int] | None = None,
  ) -> tuple[State, jax.Array]:
    """Finds the box in the next frame.

    A window that holds all pixels of the crops gives the same box as the whole
    frame. Boxes are always in pixels of the whole frame.

    Args:
      state: after the frame before.
      frame: uint8[B, H, W, 3]: the next frame, or the window of it that
        `state.frame` is of the frame before.
      corner: f32[2], x and y of the upper left corner of `frame` in the whole
        frame.
      size: i32[2], height and width of the whole frame; by default those of
        `frame`.

    Returns:
      The state after this frame, and the box f32[B, 4] in it.
    """
    offset = jnp.concatenate([jnp.asarray(corner), jnp.zeros(2)])
    seen = self.see(state.frame, frame, state.box - offset)
    carry = self._carried(state.carry, state.first, state.count)
    carry, output = self._advance(carry, self._project(seen))
    box = boxes_lib.decode(self._offsets(output), state.box)
    box = boxes_lib.keep_inside(
      box, *(frame.shape[1:3] if size is None else size)
    )
    return State(carry, state.first, frame, box, state.count + 1), box

  def follow(self, frames: jax.Array, box: jax.Array) -> jax.Array:
    """Tracks from the first box: uint8[B, T, H, W, 3] -> f32[B, T, 4].

    The first of the returned boxes is `box`, f32[B, 4].
    """
    _, boxes = unroll.scan(
      lambda self, state, frame: self.step(state, frame),
      self,
      self.start(frames[:, 0], box),
      frames[:, 1:],
      remat=False,
    )
    return jnp.concatenate([box[:, None], boxes], axis=1)

  # All frames at once.

  def __call__(self, frames: jax.Array, search: jax.Array) -> jax.Array:
    """The encoded boxes that `step` would regress from these search boxes.

    Args:
      frames: uint8[B, T, H, W, 3].
      search: f32[B, T, 4], the box around which each frame is searched; see
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
    first, _ = self._advance(
      self._initial_carry(batch), [x[:, 0] for x in projected]
    )

    def body(self, carry, inputs, first):
      count, projected = inputs
      carry = self._carried(carry, first, count)
      return self._advance(carry, projected)

    rest = [x[:, 1:].swapaxes(0, 1) for x in projected]
    _, outputs = unroll.scan(
      body, self, first, (jnp.arange(time - 1), rest), first, time_axis=0
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

  # The recurrent layers.

  def _project(self, seen: jax.Array) -> list[jax.Array]:
    """The part of each layer's gates that does not depend on the state."""
    if self.cell == 'none':
      return [seen]
    return [cell.project(seen) for cell in self.memory]

  def _advance(
    self, carry: Any, projected: list[jax.Array]
  ) -> tuple[Any, jax.Array]:
    """One step of all layers; returns their carries and f32[B, features]."""
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

  def _initial_carry(self, batch: int) -> Any:
    if self.cell == 'none':
      return ()
    return tuple(cell.start((batch,)) for cell in self.memory)

  def _carried(self, carry: Any, first: Any, count: jax.Array) -> Any:
    """The carry that a step reads: as it is, reset, or zeroed."""
    if self.zero_state:
      return jax.tree.map(jnp.zeros_like, carry)
    if self.reset_every:
      again = (count > 0) & (count % self.reset_every == 0)
      return jax.tree.map(lambda x, y: jnp.where(again, x, y), first, carry)
    return carry
