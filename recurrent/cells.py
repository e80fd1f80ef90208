"""Recurrent cells: one step of time, with the input projected beforehand.

Every cell follows one protocol, so that the same code unrolls all of them:

  carry = cell.start(batch_shape)
  projected = cell.project(inputs)               # One product for all of time.
  carry, output = cell.step(carry, projected)    # Then one call for each step.

`project` does not depend on the carry, therefore it stays outside the scan.
`step` takes the sum of all inputs of the gates: a decoder with attention adds
the projection of its context to `projected` before it calls `step`, one with
inputs that are constant in time adds the result of `project_constant`.

Axes: B batch (any number of leading axes; for ConvLSTM the last two of them are
rows and columns), D inputs, W the projection's width (G * H but for HyperLSTM),
H units, G gates.
Parameters and carries are float32; `dtype` is the type of the products.
"""

import functools
import math
from collections.abc import Callable
from typing import Any
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import ad_checkpoint

# The name of the values that `saved` marks.
SAVED = 'saved'

Carry = Any  # A pytree of arrays; each cell says which.


def orthogonal_per_gate(
  key: jax.Array, shape: tuple[int, int], dtype: Any = jnp.float32
) -> jax.Array:
  """Samples one orthogonal H x H block for each gate: f32[H, G * H]."""
  units, width = shape
  keys = jax.random.split(key, width // units)
  block = nn.initializers.orthogonal()
  blocks = [block(key, (units, units), dtype) for key in keys]
  return jnp.concatenate(blocks, axis=-1)


def orthogonal_at_centre(
  key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> jax.Array:
  """A kernel that is zero around its centre: f32[K, K, H, G * H].

  The centre is `orthogonal_per_gate`: at first a step sees its own position
  only, where the state keeps its norm.
  """
  rows, columns = shape[:2]
  centre = orthogonal_per_gate(key, shape[2:], dtype)
  return jnp.zeros(shape, dtype).at[rows // 2, columns // 2].set(centre)


def dropout_masks(
  key: jax.Array, rate: float, shape: tuple[int, ...]
) -> jax.Array:
  """Inverted dropout as a factor: f32[shape], 0 or 1 / (1 - rate).

  Sampled in one call for all of time (f32[T, B, H]) and scanned over: cheaper
  than sampling in each step. Two units share 32 random bits, which halves
  the cost again; `rate` is thereby rounded to a multiple of 2^-16.
  """
  keep = 1.0 - rate
  size = math.prod(shape)
  pairs = jax.random.bits(key, (-(-size // 2),), jnp.uint32)
  halves = jax.lax.bitcast_convert_type(pairs, jnp.uint16).reshape(-1)
  kept = halves[:size].reshape(shape) < round(keep * 2**16)
  return kept / jnp.float32(keep)


def first_rows(
  initializer: Callable[..., jax.Array], rows: int | None
) -> Callable[..., jax.Array]:
  """Initialises a kernel as the first rows of a larger one, of `rows` rows."""
  if rows is None:
    return initializer

  def init(key, shape, dtype=jnp.float32):
    *window, own, columns = shape  # Of a convolution, the window comes first.
    whole = initializer(key, (*window, rows, columns), dtype)
    return whole[..., :own, :]

  return init


def saved(x: jax.Array) -> jax.Array:
  """Marks what a step saves for the backward pass; see `unroll.scan`."""
  return ad_checkpoint.checkpoint_name(x, SAVED)


class Cell(nn.Module):
  """Base class of the cells: the products and the zero state.

  Attributes:
    features: the number of units, H.
    kernel_init: initialiser of the input kernel f32[D, G * H].
    recurrent_init: initialiser of the recurrent kernel f32[H, G * H].
    dtype: type of the matrix products.
    fan_in: number of inputs of `project` and `project_constant` together, so
      that their kernels are initialised as the rows of one kernel; by default
      each is initialised by itself.
  """

  features: int
  kernel_init: Callable[..., jax.Array] = nn.initializers.glorot_uniform()
  recurrent_init: Callable[..., jax.Array] = orthogonal_per_gate
  dtype: Any = jnp.float32
  fan_in: int | None = None

  num_gates: ClassVar[int]
  input_bias: ClassVar[bool] = True
  # Whether the recurrent product is a matrix product.
  has_matrix: ClassVar[bool] = True

  @property
  def width(self) -> int:
    """Size of the last axis of the projected inputs, W."""
    return self.num_gates * self.features

  def setup(self):
    """Declares the layers; their parameters are created on first use."""
    kernel_init, recurrent_init = self._initializers()
    self.input = nn.Dense(
      self.width,
      use_bias=self.input_bias,
      dtype=self.dtype,
      kernel_init=kernel_init,
    )
    self.constant_input = nn.Dense(
      self.width,
      use_bias=False,
      dtype=self.dtype,
      kernel_init=kernel_init,
    )
    self.recurrent = nn.Dense(
      self.width,
      use_bias=False,
      dtype=self.dtype,
      kernel_init=recurrent_init,
    )

  @nn.nowrap
  def _initializers(self) -> tuple[Callable[..., jax.Array], ...]:
    """Initialisers of the kernels f32[D, W] and of the recurrent f32[H, W]."""
    return first_rows(self.kernel_init, self.fan_in), self.recurrent_init

  def project(self, inputs: jax.Array) -> jax.Array:
    """Projects the inputs of all steps at once: [..., D] -> [..., W].

    The bias is included.
    """
    return self.input(inputs)

  def project_constant(self, inputs: jax.Array) -> jax.Array:
    """Projects inputs that are constant in time: [B, D] -> [B, W].

    They have a kernel of their own. Add the result to that of `project`.
    """
    return self.constant_input(inputs)

  def step(
    self,
    carry: Carry,
    projected: jax.Array,
    recurrent_mask: jax.Array | None = None,
  ) -> tuple[Carry, jax.Array]:
    """One step of time.

    Args:
      carry: the state, as `start` returns it.
      projected: [B, W], the gates' input: `project`, plus any other inputs.
      recurrent_mask: f32[B, H] or None, one step of `dropout_masks`.

    Returns:
      The new carry and the output f32[B, H].
    """
    product = self.recurrent(self.operand(carry, recurrent_mask))
    return self.update(carry, projected, product, recurrent_mask)

  def update(
    self,
    carry: Carry,
    projected: jax.Array,
    product: jax.Array,
    recurrent_mask: jax.Array | None = None,
  ) -> tuple[Carry, jax.Array]:
    """The rest of a step after its recurrent product.

    Args:
      carry: the state, as `start` returns it.
      projected: [B, W], see `step`.
      product: [B, W], `operand` times the recurrent kernel.
      recurrent_mask: see `step`.
    """
    raise NotImplementedError

  @nn.nowrap
  def operand(
    self, carry: Carry, recurrent_mask: jax.Array | None
  ) -> jax.Array:
    """The factor of the recurrent kernel: f32[B, H]."""
    del recurrent_mask
    return self.hidden(carry)

  @nn.nowrap
  def start(self, batch_shape: tuple[int, ...]) -> Carry:
    """The zero state for a batch: f32[batch_shape, H] in every leaf."""
    return jnp.zeros((*batch_shape, self.features))

  @nn.nowrap
  def hidden(self, carry: Carry) -> jax.Array:
    """The output f32[B, H] of the step that left this carry."""
    return carry

  def __call__(
    self, carry: Carry, inputs: jax.Array
  ) -> tuple[Carry, jax.Array]:
    """One step from unprojected inputs [B, D]."""
    return self.step(carry, self.project(inputs))


class RNN(Cell):
  """The simple recurrent network (Elman 1990): h' = tanh(W x + U h + b).

  The carry is h f32[B, H]. There is no gated update to drop, therefore the
  recurrent mask is applied to h before the product.
  """

  num_gates = 1

  def update(self, carry, projected, product, recurrent_mask=None):
    """[B, H], [B, H] -> f32[B, H], f32[B, H]; see `Cell.update`."""
    del carry, recurrent_mask
    hidden = jnp.tanh(saved(projected + product).astype(jnp.float32))
    return hidden, hidden

  @nn.nowrap
  def operand(self, carry, recurrent_mask):
    """The masked h."""
    return carry if recurrent_mask is None else carry * recurrent_mask


class LSTM(Cell):
  """Long short-term memory with a forget gate (Gers et al. 2000).

    i, f, g, o = split(W x + U h + b)                (gates in this order)
    c' = sigmoid(f + forget_bias) c + sigmoid(i) tanh(g)
    h' = sigmoid(o) tanh(c')

  The carry is (c, h), both f32[B, H].

  The recurrent mask is applied to the candidate tanh(g) only: recurrent dropout
  without memory loss (Semeniuta et al. 2016).

  Attributes:
    forget_bias: added in the step, not stored: the bias itself is zero at
      first.
  """

  forget_bias: float = 1.0

  num_gates = 4

  def update(self, carry, projected, product, recurrent_mask=None):
    """(c, h), [B, 4 * H] twice -> (c, h), f32[B, H]; see `Cell.update`."""
    memory, _ = carry
    gates = saved(projected + product).astype(jnp.float32)
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

  @nn.nowrap
  def hidden(self, carry):
    """h of (c, h)."""
    return carry[1]


class ConvLSTM(LSTM):
  """LSTM whose products are convolutions (Shi et al. 2015, equation 3).

  The equations of `LSTM` hold at every position, where W * x and U * h are
  convolutions, padded with zeros. The paper's peepholes are left out, since
  their weights would tie the cell to one size of image.

  Inputs are [..., rows, columns, D], and `start` is given (B, rows, columns):
  the carry (c, h) and the output are f32[B, rows, columns, H].

  Attributes:
    window: rows and columns of the convolution kernels, K; odd.
  """

  recurrent_init: Callable[..., jax.Array] = orthogonal_at_centre
  window: int = 3

  has_matrix = False

  def setup(self):
    """Declares the layers; their parameters are created on first use."""
    if self.window % 2 == 0:
      raise ValueError(f'window={self.window} must be odd')
    kernel_init, recurrent_init = self._initializers()
    convolution = functools.partial(
      nn.Conv, self.width, (self.window, self.window), dtype=self.dtype
    )
    self.input = convolution(kernel_init=kernel_init)
    self.constant_input = convolution(use_bias=False, kernel_init=kernel_init)
    self.recurrent = convolution(use_bias=False, kernel_init=recurrent_init)


class MaxoutLSTM(LSTM):
  """LSTM whose candidate is a maxout, as in Att2in (Rennie et al. 2017).

    i, f, o, g, g' = split(W x + U h + b)            (gates in this order)
    c' = sigmoid(f + forget_bias) c + sigmoid(i) max(g, g')
    h' = sigmoid(o) tanh(c')

  The carry is (c, h), both f32[B, H]. The recurrent mask is applied to the
  candidate only.
  """

  num_gates = 5

  def update(self, carry, projected, product, recurrent_mask=None):
    """(c, h), [B, 5 * H] twice -> (c, h), f32[B, H]; see `Cell.update`."""
    gates = saved(projected + product).astype(jnp.float32)
    i, f, o, first, second = jnp.split(gates, 5, axis=-1)
    candidate = jnp.maximum(first, second)
    if recurrent_mask is not None:
      candidate = candidate * recurrent_mask
    memory = nn.sigmoid(f + self.forget_bias) * carry[0]
    memory = memory + nn.sigmoid(i) * candidate
    hidden = nn.sigmoid(o) * jnp.tanh(memory)
    return (memory, hidden), hidden


class SentinelLSTM(LSTM):
  """LSTM with a visual sentinel (Lu et al. 2017, equations 9 and 10).

    i, f, g, o, q = split(W x + U h + b)             (gates in this order)
    s' = sigmoid(q) tanh(c')              c' and h' as in `LSTM`

  The carry is (c, h, s), each f32[B, H]: nothing reads s in the next step.
  """

  num_gates = 5

  def update(self, carry, projected, product, recurrent_mask=None):
    """(c, h, s), [B, G * H] twice -> (c, h, s), f32[B, H]."""
    width = self.width - self.features
    (memory, hidden), _ = super().update(
      carry[:2], projected[..., :width], product[..., :width], recurrent_mask
    )
    gate = saved(projected[..., width:] + product[..., width:])
    gate = gate.astype(jnp.float32)
    sentinel = nn.sigmoid(gate) * jnp.tanh(memory)
    return (memory, hidden, sentinel), hidden

  @nn.nowrap
  def start(self, batch_shape):
    """The zero state (c, h, s), each f32[batch_shape, H]."""
    memory, hidden = super().start(batch_shape)
    return memory, hidden, jnp.zeros_like(hidden)


class MaxoutSentinelLSTM(SentinelLSTM, MaxoutLSTM):
  """`MaxoutLSTM` with the visual sentinel of `SentinelLSTM`.

  i, f, o, g, g', q = split(W x + U h + b)         (gates in this order)
  """

  num_gates = 6


class GRU(Cell):
  """Gated recurrent unit (Cho et al. 2014), reset gate after the product.

    r, z, n = split(W x + b) and split(U h), the gates in this order
    n = tanh(n_x + sigmoid(r) (n_h + b_n))
    h' = (1 - sigmoid(z)) n + sigmoid(z) h

  With the reset after the product, as in cuDNN, all of U h is one product.
  The carry is h f32[B, H]. The recurrent mask is applied to the
  candidate n.
  """

  num_gates = 3

  def setup(self):
    """Adds the bias b_n, which the reset gate multiplies."""
    super().setup()
    self.candidate_bias = self.param(
      'candidate_bias', nn.initializers.zeros, (self.features,)
    )

  def update(self, carry, projected, product, recurrent_mask=None):
    """f32[B, H], [B, 3 * H] twice -> f32[B, H], f32[B, H]; see `Cell`."""
    product = product.astype(jnp.float32)
    width = 2 * self.features
    gates = saved(projected[..., :width] + product[..., :width])
    reset, update = jnp.split(nn.sigmoid(gates), 2, axis=-1)
    candidate_x = saved(projected[..., width:])
    candidate_h = saved(product[..., width:])
    candidate = jnp.tanh(
      candidate_x + reset * (candidate_h + self.candidate_bias)
    )
    if recurrent_mask is not None:
      candidate = candidate * recurrent_mask
    hidden = (1 - update) * candidate + update * carry
    return hidden, hidden


class PeepholeLSTM(LSTM):
  """LSTM whose gates see the memory (Gers and Schmidhuber 2000).

    i, f, g, o = split(W x + U h + b)                (gates in this order)
    c' = sigmoid(f + p_f c + forget_bias) c + sigmoid(i + p_i c) tanh(g)
    h' = sigmoid(o + p_o c') tanh(c')

  The carry is (c, h), both f32[B, H]. The recurrent mask is applied to the
  candidate tanh(g) only.
  """

  def setup(self):
    """Adds the peepholes p_i, p_f and p_o, one weight for each unit."""
    super().setup()
    self.peepholes = self.param(
      'peepholes', nn.initializers.zeros, (3, self.features)
    )

  def update(self, carry, projected, product, recurrent_mask=None):
    """(c, h), [B, 4 * H] twice -> (c, h), f32[B, H]; see `Cell.update`."""
    memory, _ = carry
    input_peephole, forget_peephole, output_peephole = self.peepholes
    gates = saved(projected + product).astype(jnp.float32)
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    candidate = jnp.tanh(g)
    if recurrent_mask is not None:
      candidate = candidate * recurrent_mask
    forget = nn.sigmoid(f + forget_peephole * memory + self.forget_bias)
    write = nn.sigmoid(i + input_peephole * memory)
    memory = forget * memory + write * candidate
    hidden = nn.sigmoid(o + output_peephole * memory) * jnp.tanh(memory)
    return (memory, hidden), hidden
