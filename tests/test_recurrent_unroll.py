import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recurrent import cells
from recurrent import masking
from recurrent import modulated_cells
from recurrent import unroll

BATCH, TIME, INPUTS, UNITS = 4, 6, 3, 5
LENGTHS = np.array([6, 1, 0, 4])

make_cells = pytest.mark.parametrize('make', [cells.RNN, cells.LSTM, cells.GRU])


def inputs():
  return jax.random.normal(jax.random.key(0), (BATCH, TIME, INPUTS))


def variables_of(cell):
  carry = cell.start((1,))
  return cell.init(jax.random.key(1), carry, jnp.zeros((1, INPUTS)))


def unrolled(cell, variables, *args, **kwargs):
  return cell.apply(
    variables, *args, method=lambda *a: unroll.unroll(*a, **kwargs)
  )


def stepped(cell, variables, x):
  """One row [T, D] by hand, step after step: the carry and outputs [T, H]."""
  carry, outputs = cell.start((1,)), []
  for step in x:
    carry, output = cell.apply(variables, carry, step[None])
    outputs.append(output[0])
  return carry, np.reshape(outputs, (len(x), cell.features))


def assert_row(carry, row, expected):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a[row], b[0], atol=1e-6),
    carry,
    expected,
  )


@make_cells
@pytest.mark.parametrize('reverse', [False, True])
def test_unrolled_is_every_row_stepped_alone_at_its_length(make, reverse):
  cell = make(UNITS)
  variables = variables_of(cell)
  # Padding that would poison whatever read it.
  real = masking.lengths_to_mask(jnp.asarray(LENGTHS), TIME)
  x = jnp.where(real[..., None], inputs(), 1e6)
  carry, outputs = unrolled(
    cell, variables, x, None, jnp.asarray(LENGTHS), reverse=reverse
  )
  for row, length in enumerate(LENGTHS):
    steps = x[row, :length]
    expected_carry, expected = stepped(
      cell, variables, steps[::-1] if reverse else steps
    )
    if reverse:
      expected = expected[::-1]
    np.testing.assert_allclose(outputs[row, :length], expected, atol=1e-6)
    np.testing.assert_array_equal(outputs[row, length:], 0)
    assert_row(carry, row, expected_carry)


@make_cells
def test_reverse_is_forward_on_reversed_inputs(make):
  cell = make(UNITS)
  variables = variables_of(cell)
  carry, outputs = unrolled(cell, variables, inputs(), reverse=True)
  expected_carry, expected = unrolled(cell, variables, inputs()[:, ::-1])
  np.testing.assert_allclose(outputs, expected[:, ::-1], atol=1e-6)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
    carry,
    expected_carry,
  )


def test_two_halves_with_the_carry_between_are_the_whole():
  cell = cells.LSTM(UNITS)
  variables = variables_of(cell)
  whole_carry, whole = unrolled(cell, variables, inputs())
  carry, first = unrolled(cell, variables, inputs()[:, :2])
  carry, second = unrolled(cell, variables, inputs()[:, 2:], carry)
  np.testing.assert_allclose(
    np.concatenate([first, second], 1), whole, atol=1e-6
  )
  np.testing.assert_allclose(carry[0], whole_carry[0], atol=1e-6)


def test_recurrent_masks_are_read_step_by_step():
  cell = cells.LSTM(UNITS)
  variables = variables_of(cell)
  masks = cells.dropout_masks(jax.random.key(5), 0.5, (TIME, BATCH, UNITS))
  _, outputs = unrolled(cell, variables, inputs(), recurrent_masks=masks)
  carry = cell.start((BATCH,))
  projected = cell.apply(variables, inputs(), method='project')
  for t in range(TIME):
    carry, output = cell.apply(
      variables, carry, projected[:, t], masks[t], method='step'
    )
    np.testing.assert_allclose(outputs[:, t], output, atol=1e-6)


class Bidirectional(nn.Module):
  def setup(self):
    self.forward = cells.LSTM(UNITS)
    self.backward = cells.GRU(UNITS + 1)

  def __call__(self, x, lengths):
    return unroll.bidirectional(self.forward, self.backward, x, lengths)


def test_bidirectional_is_both_directions_side_by_side():
  module = Bidirectional()
  lengths = jnp.asarray(LENGTHS)
  variables = module.init(jax.random.key(0), inputs(), lengths)
  (forward, backward), outputs = module.apply(variables, inputs(), lengths)
  params = variables['params']
  expected_forward, left = unrolled(
    cells.LSTM(UNITS), {'params': params['forward']}, inputs(), None, lengths
  )
  expected_backward, right = unrolled(
    cells.GRU(UNITS + 1),
    {'params': params['backward']},
    inputs(),
    None,
    lengths,
    reverse=True,
  )
  np.testing.assert_allclose(outputs, np.concatenate([left, right], -1))
  np.testing.assert_allclose(forward[1], expected_forward[1])
  np.testing.assert_allclose(backward, expected_backward)


class Decoder(nn.Module):
  """A body that has more than a cell: dropout, and a layer on the output."""

  remat: bool

  def setup(self):
    self.cell = cells.LSTM(UNITS)
    self.dropout = nn.Dropout(0.5, deterministic=False)
    self.readout = nn.Dense(2)

  def step(self, carry, projected):
    carry, output = self.cell.step(carry, projected)
    return carry, self.readout(self.dropout(output))

  def __call__(self, x):
    start = self.cell.start(x.shape[:1])
    projected = self.cell.project(x)
    return unroll.scan(Decoder.step, self, start, projected, remat=self.remat)[
      1
    ]


def gradients(remat, variables):
  def loss(variables):
    rngs = {'dropout': jax.random.key(3)}
    return jnp.sum(Decoder(remat).apply(variables, inputs(), rngs=rngs) ** 2)

  return jax.value_and_grad(loss)(variables)


def test_gradients_with_and_without_remat_are_equal():
  rngs = {'params': jax.random.key(0), 'dropout': jax.random.key(1)}
  variables = Decoder(True).init(rngs, inputs())
  plain = Decoder(False).init(rngs, inputs())
  jax.tree.map(np.testing.assert_array_equal, variables, plain)
  value, gradient = gradients(True, variables)
  expected, expected_gradient = gradients(False, variables)
  assert value == pytest.approx(float(expected))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    gradient,
    expected_gradient,
  )
  assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient))


class Noise(nn.Module):
  @nn.compact
  def __call__(self, x):
    def body(module, carry, x):
      return carry, nn.Dropout(0.5, deterministic=False)(x)

    return unroll.scan(body, self, (), x, time_axis=0)[1]


def test_dropout_differs_from_step_to_step():
  kept = Noise().apply(
    {}, jnp.ones((4, 64)), rngs={'dropout': jax.random.key(0)}
  )
  assert len({tuple(row) for row in np.asarray(kept)}) == 4


def test_padding_has_no_gradient():
  cell = cells.LSTM(UNITS)
  variables = variables_of(cell)

  def loss(x):
    carry, outputs = unrolled(cell, variables, x, None, jnp.asarray(LENGTHS))
    return jnp.sum(carry[1]) + jnp.sum(outputs**2)

  gradient = np.asarray(jax.grad(loss)(inputs()))
  real = np.arange(TIME) < LENGTHS[:, None]
  np.testing.assert_array_equal(gradient[~real], 0)
  assert np.all(gradient[real] != 0)


def is_never(*_):
  return False


make_all_cells = pytest.mark.parametrize(
  'cell',
  [
    cells.RNN(24),
    cells.LSTM(24),
    cells.PeepholeLSTM(24),
    cells.MaxoutLSTM(24),
    cells.MaxoutSentinelLSTM(24),
    cells.GRU(24),
    modulated_cells.LayerNormLSTM(24),
    modulated_cells.HyperLSTM(24, hyper_features=16, embedding=4),
  ],
  ids=lambda cell: type(cell).__name__,
)


@pytest.mark.parametrize(
  'padded, reverse', [(False, False), (True, True)], ids=['plain', 'reverse']
)
@make_all_cells
def test_gradients_are_those_of_steps_by_hand(
  cell, padded, reverse, monkeypatch
):
  """Plain autodiff of a Python loop, in all that has a gradient."""
  keys = iter(jax.random.split(jax.random.key(3), 9))
  num_inputs, time = 16, 3
  x = jax.random.normal(next(keys), (BATCH, time, num_inputs))
  carry = cell.start((BATCH,))
  variables = cell.init(next(keys), carry, x[:, 0])
  # Kernels that start at zero would hide what is before them.
  variables = jax.tree.map(lambda x: x + 0.05, variables)
  carry = jax.tree.map(
    lambda x: jax.random.normal(jax.random.key(x.shape[-1]), x.shape), carry
  )
  constant = jax.random.normal(next(keys), (BATCH, cell.width))
  masks = cells.dropout_masks(next(keys), 0.3, (time, BATCH, cell.features))
  weights = jax.random.normal(next(keys), (BATCH, time, cell.features))
  lengths = jnp.array([3, 1, 0, 2] if padded else [3] * BATCH)

  def loss(final, outputs):
    return jnp.sum(weights * outputs) + sum(
      jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(final)
    )

  def at_once(variables, x, carry, constant):
    return loss(
      *unrolled(
        cell,
        variables,
        x,
        carry,
        lengths if padded else None,
        projected_constant=constant,
        recurrent_masks=masks,
        reverse=reverse,
      )
    )

  def by_hand(variables, x, carry, constant):
    outputs = [None] * time
    for t in reversed(range(time)) if reverse else range(time):
      projected = cell.apply(variables, x[:, t], method='project') + constant
      new, output = cell.apply(
        variables, carry, projected, masks[t], method='step'
      )
      real = (lengths > t)[:, None]
      carry = jax.tree.map(
        lambda a, b, real=real: jnp.where(real, a, b), new, carry
      )
      outputs[t] = jnp.where(real, output, 0)
    return loss(carry, jnp.stack(outputs, axis=1))

  arguments = (variables, x, carry, constant)
  expected = jax.jit(jax.value_and_grad(by_hand, range(4)))(*arguments)
  large = []
  is_large = unroll._is_large
  monkeypatch.setattr(
    unroll,
    '_is_large',
    lambda *args: large.append(is_large(*args)) or large[-1],
  )
  for max_cached in (0, unroll._MAX_CACHED):
    # Both ways to project, whatever the machine prefers.
    monkeypatch.setattr(unroll, '_MAX_CACHED', max_cached)
    found = jax.jit(jax.value_and_grad(at_once, range(4)))(*arguments)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
      found,
      expected,
    )
  assert any(large)


def test_gradients_are_equal_without_jit_and_in_half_precision_close():
  cell = cells.LSTM(24)
  x = jax.random.normal(jax.random.key(0), (BATCH, TIME, 16))
  variables = cell.init(jax.random.key(1), cell.start((BATCH,)), x[:, 0])

  def loss(variables, cell=cell):
    return jnp.sum(unrolled(cell, variables, x)[1] ** 2)

  expected = jax.jit(jax.grad(loss))(variables)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    jax.grad(loss)(variables),
    expected,
  )
  half = jax.grad(lambda v: loss(v, cell.clone(dtype=jnp.bfloat16)))(variables)
  for a, b in zip(
    jax.tree.leaves(half), jax.tree.leaves(expected), strict=True
  ):
    assert a.dtype == b.dtype
    np.testing.assert_allclose(a, b, atol=0.03 * float(jnp.max(abs(b))))


class TwoLayers(nn.Module):
  """A body that calls one layer twice, and another inside a loop."""

  def setup(self):
    self.twice = nn.Dense(24)
    self.inner = nn.Dense(24)

  def __call__(self, x):
    def body(self, carry, x, constant):
      carry = jnp.tanh(self.twice(self.twice(carry + x)) + constant)
      loop = nn.scan(
        lambda self, state, row: (jnp.tanh(state + self.inner(row)), None),
        variable_broadcast='params',
        split_rngs={'params': False},
      )
      carry, _ = loop(self, carry, jnp.stack([carry, x]))
      return carry, carry

    start = jnp.zeros((x.shape[0], x.shape[-1]))
    return unroll.scan(body, self, start, x, jnp.ones(x.shape[-1]))[1]


def test_layers_called_twice_or_in_a_loop_have_their_gradients(monkeypatch):
  x = jax.random.normal(jax.random.key(0), (BATCH, TIME, 24))
  module = TwoLayers()
  variables = module.init(jax.random.key(1), x)
  gradient = jax.jit(
    jax.grad(lambda *args: jnp.sum(module.apply(*args) ** 2), (0, 1))
  )
  found = gradient(variables, x)
  monkeypatch.setattr(unroll, '_is_large', is_never)
  jax.clear_caches()
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    found,
    gradient(variables, x),
  )


def test_no_gradient_of_a_large_kernel_is_summed_in_the_backward_scan():
  cell = cells.LSTM(24)
  x = jnp.zeros((BATCH, TIME, 16))
  variables = cell.init(jax.random.key(1), cell.start((BATCH,)), x[:, 0])
  gradient = jax.grad(lambda v: jnp.sum(unrolled(cell, v, x)[1] ** 2))
  text = jax.jit(gradient).lower(variables).compile().as_text()
  assert not re.search(r'f32\[(24|16),96\]\S* add\(', text)
