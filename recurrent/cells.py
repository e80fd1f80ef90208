"""Recurrent cells: one step of time, with the input projected beforehand.

Every cell follows one protocol, so that whatever unrolls one unrolls all:

  carry = cell.start(batch_shape)
  projected = cell.project(inputs)               # One product for all of time.
  carry, output = cell.step(carry, projected)    # Then one call for each step.

`project` does not depend on the carry, therefore it stays outside the scan.
`step` takes the sum of whatever drives the gates: a decoder with attention adds
the projection of its context to `projected` before it calls `step`, one with
inputs that are constant in time adds what `drive` made of them once.

Axes: B batch (any number of leading axes), D inputs, W the projection's width
(G * H but for HyperLSTM), H units, G gates.
Parameters and carries are float32; `dtype` is the type of the products.
"""

import math
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

  Drawn in one call for all of time (f32[T, B, H]) and scanned over: cheaper
  than a draw inside each step. Two units share 32 random bits, which halves
  the cost again; `rate` is thereby rounded to a multiple of 2^-16.
  """
  keep = 1.0 - rate
  size = math.prod(shape)
  pairs = jax.random.bits(key, (-(-size // 2),), jnp.uint32)
  halves = jax.lax.bitcast_convert_type(pairs, jnp.uint16).reshape(-1)
  kept = halves[:size].reshape(shape) < round(keep * 2**16)
  return kept / jnp.float32(keep)


def _first_rows(
  initializer: Callable[..., jax.Array], rows: int | None
) -> Callable[..., jax.Array]:
  """Initialises a kernel as a part of a larger one, of so many rows."""
  if rows is None:
    return initializer

  def init(key, shape, dtype=jnp.float32):
    return initializer(key, (rows, *shape[1:]), dtype)[: shape[0]]

  return init


def _side_by_side(
  left: Callable[..., jax.Array], right: Callable[..., jax.Array], columns: int
) -> Callable[..., jax.Array]:
  """Initialises the first `columns` of a kernel by `left`."""

  def init(key, shape, dtype=jnp.float32):
    keys = jax.random.split(key)
    parts = (
      left(keys[0], (shape[0], columns), dtype),
      right(keys[1], (shape[0], shape[1] - columns), dtype),
    )
    return jnp.concatenate(parts, axis=-1)

  return init


class Cell(nn.Module):
  """What the cells share: the two products and the zero state.

  Attributes:
    features: the number of units, H.
    kernel_init: initialiser of the input kernel f32[D, G * H].
    recurrent_init: initialiser of the recurrent kernel f32[H, G * H].
    dtype: type of the products' operands and results.
    fan_in: how many inputs `project` and `drive` have together, so that their
      kernels start as the rows of one; by default each has its own.
  """

  features: int
  kernel_init: Callable[..., jax.Array] = nn.initializers.glorot_uniform()
  recurrent_init: Callable[..., jax.Array] = orthogonal_per_gate
  dtype: Any = jnp.float32
  fan_in: int | None = None

  num_gates: ClassVar[int]
  input_bias: ClassVar[bool] = True

  @property
  def width(self) -> int:
    """The last axis of what `project` and `drive` return, W."""
    return self.num_gates * self.features

  def setup(self):
    """Declares the products; their parameters appear on the first use."""
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
    """Of the kernels f32[D, W] and of the recurrent kernel f32[H, W]."""
    return _first_rows(self.kernel_init, self.fan_in), self.recurrent_init

  def project(self, inputs: jax.Array) -> jax.Array:
    """The inputs' part of the gates, bias included: [..., D] -> [..., W].

    All of time at once.
    """
    return self.input(inputs)

  def drive(self, inputs: jax.Array) -> jax.Array:
    """The part of inputs that are constant in time: [B, D] -> [B, W].

    Through a kernel of their own, once; add it to what `project` returns.
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
      carry: the state, as `start` makes it.
      projected: [B, W], the gates' input: `project`, plus anything else.
      recurrent_mask: f32[B, H] or None, a step of `dropout_masks`.

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
    """What remains of a step after its large product.

    Args:
      carry: the state, as `start` makes it.
      projected: [B, W], see `step`.
      product: [B, W], `operand` times the recurrent kernel.
      recurrent_mask: see `step`.
    """
    raise NotImplementedError

  @nn.nowrap
  def operand(
    self, carry: Carry, recurrent_mask: jax.Array | None
  ) -> jax.Array:
    """What the recurrent kernel is multiplied with: f32[B, H]."""
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
  recurrent mask falls on h where it enters the product.
  """

  num_gates = 1

  def update(self, carry, projected, product, recurrent_mask=None):
    """[B, H], [B, H] -> f32[B, H], f32[B, H]; see `Cell.update`."""
    del carry, recurrent_mask
    hidden = jnp.tanh((projected + product).astype(jnp.float32))
    return hidden, hidden

  @nn.nowrap
  def operand(self, carry, recurrent_mask):
    """h, of which the mask drops units."""
    return carry if recurrent_mask is None else carry * recurrent_mask


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

  def update(self, carry, projected, product, recurrent_mask=None):
    """(c, h), [B, 4 * H] twice -> (c, h), f32[B, H]; see `Cell.update`."""
    memory, _ = carry
    gates = (projected + product).astype(jnp.float32)
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


class MaxoutLSTM(LSTM):
  """LSTM whose candidate is a maxout, as in Att2in (Rennie et al. 2017).

    i, f, o, g, g' = split(W x + U h + b)            (gates in this order)
    c' = sigmoid(f + forget_bias) c + sigmoid(i) max(g, g')
    h' = sigmoid(o) tanh(c')

  The carry is (c, h), both f32[B, H]. The recurrent mask falls on the candidate
  alone.
  """

  num_gates = 5

  def update(self, carry, projected, product, recurrent_mask=None):
    """(c, h), [B, 5 * H] twice -> (c, h), f32[B, H]; see `Cell.update`."""
    gates = (projected + product).astype(jnp.float32)
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
    """(c, h, s), [B, 5 * H] twice -> (c, h, s), f32[B, H]."""
    width = 4 * self.features
    (memory, hidden), _ = super().update(
      carry[:2], projected[..., :width], product[..., :width], recurrent_mask
    )
    gate = (projected[..., width:] + product[..., width:]).astype(jnp.float32)
    sentinel = nn.sigmoid(gate) * jnp.tanh(memory)
    return (memory, hidden, sentinel), hidden

  @nn.nowrap
  def start(self, batch_shape):
    """The zero state (c, h, s), each f32[batch_shape, H]."""
    memory, hidden = super().start(batch_shape)
    return memory, hidden, jnp.zeros_like(hidden)


def _layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
  """Layer normalisation over the last axis (Ba et al. 2016), eps 1e-3.

  f32[..., H] -> f32[..., H]; scale and bias broadcast to it.
  """
  centred = x - jnp.mean(x, axis=-1, keepdims=True)
  variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
  return centred * jax.lax.rsqrt(variance + 1e-3) * scale + bias


def _per_gate(x: jax.Array, ndim: int) -> jax.Array:
  """f32[G, H] -> f32[G, 1, ..., 1, H], to go with f32[G, B, H]."""
  return x.reshape(x.shape[0], *(1,) * (ndim - 2), x.shape[1])


class LayerNormLSTM(LSTM):
  """LSTM with layer normalisation (Ba et al. 2016), as in Sketch-RNN's code.

    i, f, g, o = LN(split(W x + U h))                (gates in this order)
    c' = sigmoid(f + forget_bias) c + sigmoid(i) tanh(g)
    h' = sigmoid(o) tanh(LN(c'))

  Each gate is normalised by itself, over its H units, with the biased variance
  and eps 1e-3; the shift of LN takes the place of the bias. The memory that is
  carried on is not normalised. The carry is (c, h), both f32[B, H].

  The recurrent mask falls on the candidate tanh(g) alone.
  """

  input_bias = False

  def setup(self):
    """Adds the scales and shifts of the gates and of the memory."""
    super().setup()
    ones, zeros = nn.initializers.ones, nn.initializers.zeros
    gates, units = (self.num_gates, self.features), (self.features,)
    self.gates_scale = self.param('gates_scale', ones, gates)
    self.gates_bias = self.param('gates_bias', zeros, gates)
    self.memory_scale = self.param('memory_scale', ones, units)
    self.memory_bias = self.param('memory_bias', zeros, units)

  def update(self, carry, projected, product, recurrent_mask=None):
    """(c, h), [B, 4 * H] twice -> (c, h), f32[B, H]; see `Cell.update`."""
    gates = self._by_gate(projected + product)
    return self._gated(carry[0], gates, recurrent_mask)

  @nn.nowrap
  def _by_gate(self, gates):
    """[B, 4 * H] -> f32[4, B, H]."""
    shape = (*gates.shape[:-1], self.num_gates, self.features)
    return jnp.moveaxis(gates.astype(jnp.float32).reshape(shape), -2, 0)

  @nn.nowrap
  def _gated(self, memory, gates, recurrent_mask):
    """The elementwise part: f32[B, H], f32[4, B, H] -> (c, h), f32[B, H]."""
    i, f, g, o = _layer_norm(
      gates,
      _per_gate(self.gates_scale, gates.ndim),
      _per_gate(self.gates_bias, gates.ndim),
    )
    candidate = jnp.tanh(g)
    if recurrent_mask is not None:
      candidate = candidate * recurrent_mask
    memory = nn.sigmoid(f + self.forget_bias) * memory
    memory = memory + nn.sigmoid(i) * candidate
    normalized = _layer_norm(memory, self.memory_scale, self.memory_bias)
    hidden = nn.sigmoid(o) * jnp.tanh(normalized)
    return (memory, hidden), hidden


def _expand(embedded: jax.Array, kernel: jax.Array) -> jax.Array:
  """A product for each gate: f32[G, B, E], f32[G, E, H] -> f32[G, B, H]."""
  expanded = jnp.einsum('g...e,geh->g...h', embedded, kernel)
  return expanded.astype(jnp.float32)


class HyperLSTM(LayerNormLSTM):
  """A layer-norm LSTM whose weights a small one scales (Ha et al. 2017).

  The small LSTM of A units reads the inputs and h, and makes u. From u each
  gate gets factors of its two products and a shift, through E numbers each:

    s_k = (P_k u + p_k) A_k     t_k = (Q_k u + q_k) B_k     d_k = (R_k u) C_k
    k   = LN(s_k * W_k x + t_k * U_k h + d_k + b_k)         for k in i, f, g, o

  and the rest is that of `LayerNormLSTM`. (The dynamic hypernetwork of
  "HyperNetworks", in the form of Sketch-RNN's published code.)

  The carry is ((c, h), (c, h) of the small LSTM). What `project` and `drive`
  return holds the gates of both, [..., 4 * H + 4 * A]. The recurrent mask falls
  on the candidate of the main LSTM; the small one is left alone.

  Attributes:
    hyper_features: units of the small LSTM, A.
    embedding: how many numbers stand between u and what a gate gets, E.
  """

  hyper_features: int = 256
  embedding: int = 32

  @property
  def width(self) -> int:
    """The gates of the main LSTM and then those of the small one."""
    return self.num_gates * (self.features + self.hyper_features)

  def setup(self):
    """Adds the small LSTM, and what leads from it to the gates."""
    super().setup()
    self.hyper = LayerNormLSTM(
      self.hyper_features,
      recurrent_init=self.recurrent_init,
      dtype=self.dtype,
      forget_bias=self.forget_bias,
    )
    zeros, size = nn.initializers.zeros, self.embedding
    # Factors of W x for each gate, then those of U h, then the shifts.
    num_factors, num_shifts = 2 * self.num_gates, self.num_gates
    self.embed = nn.Dense(
      (num_factors + num_shifts) * size,
      use_bias=False,
      dtype=self.dtype,
      kernel_init=_side_by_side(
        zeros, nn.initializers.normal(0.01), num_factors * size
      ),
    )
    self.factors_bias = self.param(
      'factors_bias', nn.initializers.ones, (num_factors, size)
    )
    self.factors_kernel = self.param(
      'factors_kernel',
      nn.initializers.constant(0.1 / size),
      (num_factors, size, self.features),
    )
    self.shifts_kernel = self.param(
      'shifts_kernel', zeros, (num_shifts, size, self.features)
    )
    self.bias = self.param('bias', zeros, (self.num_gates, self.features))

  @nn.nowrap
  def _initializers(self):
    """The small LSTM's kernel is one, over the inputs and h."""
    rows = self.fan_in and self.fan_in + self.features
    small = _first_rows(self.kernel_init, rows)
    main, recurrent = super()._initializers()
    columns = self.num_gates * self.features
    return (
      _side_by_side(main, small, columns),
      _side_by_side(recurrent, small, columns),
    )

  def update(self, carry, projected, product, recurrent_mask=None):
    """See `Cell.update`; [B, 4 * H + 4 * A] twice -> f32[B, H]."""
    (memory, _), small_carry = carry
    columns = self.num_gates * self.features
    small_carry, u = self.hyper.step(
      small_carry, projected[..., columns:] + product[..., columns:]
    )
    embedded = self.embed(u).reshape(*u.shape[:-1], -1, self.embedding)
    # Gates first: a product for each, of matrices that lie in memory whole.
    embedded = jnp.moveaxis(embedded, -2, 0)
    factors, shifts = jnp.split(embedded, [2 * self.num_gates])
    factors = factors + _per_gate(self.factors_bias, factors.ndim)
    factors = _expand(
      factors.astype(self.dtype), self.factors_kernel.astype(self.dtype)
    )
    shifts = _expand(shifts, self.shifts_kernel.astype(self.dtype))
    of_inputs, of_hidden = jnp.split(factors, 2)
    gates = of_inputs * self._by_gate(projected[..., :columns])
    gates = gates + of_hidden * self._by_gate(product[..., :columns])
    gates = gates + shifts + _per_gate(self.bias, gates.ndim)
    carry, output = self._gated(memory, gates, recurrent_mask)
    return (carry, small_carry), output

  @nn.nowrap
  def start(self, batch_shape):
    """The zero state of both LSTMs."""
    small = jnp.zeros((*batch_shape, self.hyper_features))
    return super().start(batch_shape), (small, small)

  @nn.nowrap
  def hidden(self, carry):
    """h of the main LSTM."""
    return super().hidden(carry[0])


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

  def update(self, carry, projected, product, recurrent_mask=None):
    """f32[B, H], [B, 3 * H] twice -> f32[B, H], f32[B, H]; see `Cell`."""
    product = product.astype(jnp.float32)
    reset_x, update_x, candidate_x = jnp.split(projected, 3, axis=-1)
    reset_h, update_h, candidate_h = jnp.split(product, 3, axis=-1)
    reset = nn.sigmoid(reset_x + reset_h)
    update = nn.sigmoid(update_x + update_h)
    candidate = jnp.tanh(
      candidate_x + reset * (candidate_h + self.candidate_bias)
    )
    if recurrent_mask is not None:
      candidate = candidate * recurrent_mask
    hidden = (1 - update) * candidate + update * carry
    return hidden, hidden
