"""Cells with normalised gates, or with weights scaled by another cell.

They follow the protocol of `cells`.

Axes: B batch (any number of leading axes), H units, G gates, A units of the
small LSTM in a `HyperLSTM`, E its embedding.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from recurrent import cells


def _side_by_side(
  left: Callable[..., jax.Array], right: Callable[..., jax.Array], columns: int
) -> Callable[..., jax.Array]:
  """Initialises `columns` of a kernel by `left`, the rest by `right`."""

  def init(key, shape, dtype=jnp.float32):
    keys = jax.random.split(key)
    parts = (
      left(keys[0], (shape[0], columns), dtype),
      right(keys[1], (shape[0], shape[1] - columns), dtype),
    )
    return jnp.concatenate(parts, axis=-1)

  return init


def _layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
  """Layer normalisation over the last axis (Ba et al. 2016), eps 1e-3.

  f32[..., H] -> f32[..., H]; scale and bias broadcast to it.
  """
  centred = x - jnp.mean(x, axis=-1, keepdims=True)
  variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
  return centred * jax.lax.rsqrt(variance + 1e-3) * scale + bias


def _per_gate(x: jax.Array, ndim: int) -> jax.Array:
  """f32[G, H] -> f32[G, 1, ..., 1, H], which broadcasts to f32[G, B, H]."""
  return x.reshape(x.shape[0], *(1,) * (ndim - 2), x.shape[1])


class LayerNormLSTM(cells.LSTM):
  """LSTM with layer normalisation (Ba et al. 2016), as in Sketch-RNN's code.

    i, f, g, o = LN(split(W x + U h))                (gates in this order)
    c' = sigmoid(f + forget_bias) c + sigmoid(i) tanh(g)
    h' = sigmoid(o) tanh(LN(c'))

  Each gate is normalised by itself, over its H units, with the biased variance
  and eps 1e-3; the shift of LN replaces the bias. The memory in the carry is
  not normalised. The carry is (c, h), both f32[B, H].

  The recurrent mask is applied to the candidate tanh(g) only.
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
    gates = self._by_gate(cells.saved(projected + product))
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

  The small LSTM of A units reads the inputs and h, and returns u. From u the
  factors of each gate's two products and its shift are computed, through an
  embedding of E numbers each:

    s_k = (P_k u + p_k) A_k     t_k = (Q_k u + q_k) B_k     d_k = (R_k u) C_k
    k   = LN(s_k * W_k x + t_k * U_k h + d_k + b_k)         for k in i, f, g, o

  and the rest is as in `LayerNormLSTM`. (The dynamic hypernetwork of
  "HyperNetworks", in the form of Sketch-RNN's published code.)

  The carry is ((c, h), (c, h) of the small LSTM). `project` and
  `project_constant` return the gates of both, [..., 4 * H + 4 * A]. The
  recurrent mask is applied to the candidate of the main LSTM only.

  Attributes:
    hyper_features: units of the small LSTM, A.
    embedding: size of the embedding of u for each factor and shift, E.
  """

  hyper_features: int = 256
  embedding: int = 32

  @property
  def width(self) -> int:
    """The number of gate inputs of the main and the small LSTM."""
    return self.num_gates * (self.features + self.hyper_features)

  def setup(self):
    """Adds the small LSTM, and the layers from it to the gates."""
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
    """Those of `Cell`; the small LSTM has one kernel for the inputs and h."""
    rows = self.fan_in and self.fan_in + self.features
    small = cells.first_rows(self.kernel_init, rows)
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
    # Gates first: one product for each, of contiguous matrices.
    embedded = jnp.moveaxis(embedded, -2, 0)
    factors, shifts = jnp.split(embedded, [2 * self.num_gates])
    factors = factors + _per_gate(self.factors_bias, factors.ndim)
    factors = _expand(
      factors.astype(self.dtype), self.factors_kernel.astype(self.dtype)
    )
    shifts = _expand(shifts, self.shifts_kernel.astype(self.dtype))
    input_factors, hidden_factors = jnp.split(factors, 2)
    gates = input_factors * self._by_gate(projected[..., :columns])
    gates = gates + hidden_factors * self._by_gate(product[..., :columns])
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
