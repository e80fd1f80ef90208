"""Recurrent cells: one step of time, with the input projected beforehand.

Every cell follows one protocol, so that whatever unrolls one unrolls all:

  carry = cell.start(batch_shape)
  projected = cell.project(inputs)               # One product for all of time.
  carry, output = cell.step(carry, projected)    # Then one call for each step.

`project` does not depend on the carry, therefore it stays outside the scan.
`step` takes the sum of whatever drives the gates: a decoder with attention adds
the projection of its context to `projected` before it calls `step`.

Axes: B batch (any number of leading axes), D inputs, H units, G gates.
Parameters and carries are float32; `dtype` is the type of the products.
"""

from collections.abc import Callable
from typing import Any
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

Carry = Any  # A pytree of arrays; each cell says which.


def orthogonal_per_gate(
  key: jax.Array, shape: tuple[int, int], dtype: Any = jnp.float32
) -> jax.Array:
  """Draws one orthogonal H x H block for each gate: f32[H, G * H]."""
  units, width = shape
  keys = jax.random.split(key, width // units)
  block = nn.initializers.orthogonal()
  blocks = [block(key, (units, units), dtype) for key in keys]
  return jnp.concatenate(blocks, axis=-1)


def dropout_masks(
  key: jax.Array, rate: float, shape: tuple[int, ...]
) -> jax.Array:
  """Inverted dropout as a factor: f32[shape], 0 or 1 / (1 - rate).

  Drawn in one call for all of time (f32[B, T, H]) and scanned over: cheaper
  than a draw inside each step.
  """
  keep = 1.0 - rate
  return jax.random.bernoulli(key, keep, shape) / jnp.float32(keep)


class Cell(nn.Module):
  """What the cells share: the two products and the zero state.

  Attributes:
    features: the number of units, H.
    kernel_init: initialiser of the input kernel f32[D, G * H].
    recurrent_init: initialiser of the recurrent kernel f32[H, G * H].
    dtype: type of the products' operands and results.
  """

  features: int
  kernel_init: Callable[..., jax.Array] = nn.initializers.glorot_uniform()
  recurrent_init: Callable[..., jax.Array] = orthogonal_per_gate
  dtype: Any = jnp.float32

  num_gates: ClassVar[int]

  def setup(self):
    """Declares the products; their parameters appear on the first use."""
    width = self.num_gates * self.features
    self.input = nn.Dense(width, dtype=self.dtype, kernel_init=self.kernel_init)
    self.recurrent = nn.Dense(
      width,
      use_bias=False,
      dtype=self.dtype,
      kernel_init=self.recurrent_init,
    )

  def project(self, inputs: jax.Array) -> jax.Array:
    """The inputs' part of the gates, bias included: [..., D] -> [..., G * H].

    All of time at once.
    """
    return self.input(inputs)

  def step(
    self,
    carry: Carry,
    projected: jax.Array,
    recurrent_mask: jax.Array | None = None,
  ) -> tuple[Carry, jax.Array]:
    """One step of time.

    Args:
      carry: the state, as `start` makes it.
      projected: [B, G * H], the gates' input: `project`, plus anything else.
      recurrent_mask: f32[B, H] or None, a step of `dropout_masks`.

    Returns:
      The new carry and the output f32[B, H].
    """
    raise NotImplementedError

  @nn.nowrap
  def start(self, batch_shape: tuple[int, ...]) -> Carry:
    """The zero state for a batch: f32[batch_shape, H] in every leaf."""
    return jnp.zeros((*batch_shape, self.features))

  def __call__(
    self, carry: Carry, inputs: jax.Array
  ) -> tuple[Carry, jax.Array]:
    """One step from unprojected inputs [B, D]."""
    return self.step(carry, self.project(inputs))


class RNN(Cell):
  """The simple recurrent network (Elman 1990): h' = tanh(W x + U h + b).

  The carry is h f32[B, H]. There is no gated update to drop, therefore the
  recurrent mask falls on h where it enters the product.
  """

  num_gates = 1

  def step(self, carry, projected, recurrent_mask=None):
    """f32[B, H], [B, H] -> f32[B, H], f32[B, H]; see `Cell.step`."""
    if recurrent_mask is not None:
      carry = carry * recurrent_mask
    pre_activation = projected + self.recurrent(carry)
    hidden = jnp.tanh(pre_activation.astype(jnp.float32))
    return hidden, hidden


class LSTM(Cell):
  """Long short-term memory with a forget gate (Gers et al. 2000).

    i, f, g, o = split(W x + U h + b)                (gates in this order)
    c' = sigmoid(f + forget_bias) c + sigmoid(i) tanh(g)
    h' = sigmoid(o) tanh(c')

  The carry is (c, h), both f32[B, H].

  The recurrent mask falls on the candidate tanh(g) alone: recurrent dropout
  without memory loss (Semeniuta et al. 2016).

  Attributes:
    forget_bias: added in the step, not stored: the bias itself starts at zero.
  """

  forget_bias: float = 1.0

  num_gates = 4

  def step(self, carry, projected, recurrent_mask=None):
    """(c, h), [B, 4 * H] -> (c, h), f32[B, H]; see `Cell.step`."""
    memory, hidden = carry
    gates = (projected + self.recurrent(hidden)).astype(jnp.float32)
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    candidate = jnp.tanh(g)
    if recurrent_mask is not None:
      candidate = candidate * recurrent_mask
    memory = nn.sigmoid(f + self.forget_bias) * memory
    memory = memory + nn.sigmoid(i) * candidate
    hidden = nn.sigmoid(o) * jnp.tanh(memory)
    return (memory, hidden), hidden

  @nn.nowrap
  def start(self, batch_shape):
    """The zero state (c, h), both f32[batch_shape, H]."""
    zeros = super().start(batch_shape)
    return zeros, zeros


class GRU(Cell):
  """Gated recurrent unit (Cho et al. 2014), reset gate after the product.

    r, z, n = split(W x + b) and split(U h), the gates in this order
    n = tanh(n_x + sigmoid(r) (n_h + b_n))
    h' = (1 - sigmoid(z)) n + sigmoid(z) h

  With the reset after the product, as in cuDNN, all of U h is one product.
  The carry is h f32[B, H]. The recurrent mask falls on the candidate n.
  """

  num_gates = 3

  def setup(self):
    """Adds the bias b_n, which the reset gate multiplies."""
    super().setup()
    self.candidate_bias = self.param(
      'candidate_bias', nn.initializers.zeros, (self.features,)
    )

  def step(self, carry, projected, recurrent_mask=None):
    """f32[B, H], [B, 3 * H] -> f32[B, H], f32[B, H]; see `Cell.step`."""
    recurrent = self.recurrent(carry).astype(jnp.float32)
    reset_x, update_x, candidate_x = jnp.split(projected, 3, axis=-1)
    reset_h, update_h, candidate_h = jnp.split(recurrent, 3, axis=-1)
    reset = nn.sigmoid(reset_x + reset_h)
    update = nn.sigmoid(update_x + update_h)
    candidate = jnp.tanh(
      candidate_x + reset * (candidate_h + self.candidate_bias)
    )
    if recurrent_mask is not None:
      candidate = candidate * recurrent_mask
    hidden = (1 - update) * candidate + update * carry
    return hidden, hidden
