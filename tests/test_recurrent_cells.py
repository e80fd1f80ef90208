import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from recurrent import cells

BATCH, INPUTS, UNITS = 3, 5, 4


def noisy(params):
  """Parameters none of which is zero, so that every one of them counts."""
  leaves, treedef = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(7), len(leaves))
  leaves = [
    leaf + 0.3 * jax.random.normal(key, leaf.shape)
    for key, leaf in zip(keys, leaves, strict=True)
  ]
  return jax.tree.unflatten(treedef, leaves)


def from_optimized_lstm(params, forget_bias):
  def side(letter, name):
    return jnp.concatenate([params[letter + g][name] for g in 'ifgo'], -1)

  shift = np.repeat([0, forget_bias, 0, 0], UNITS)
  return {
    'input': {'kernel': side('i', 'kernel'), 'bias': side('h', 'bias') - shift},
    'recurrent': {'kernel': side('h', 'kernel')},
  }


def from_gru(params):
  def side(letter, name):
    return jnp.concatenate([params[letter + g][name] for g in 'rzn'], -1)

  return {
    'input': {'kernel': side('i', 'kernel'), 'bias': side('i', 'bias')},
    'recurrent': {'kernel': side('h', 'kernel')},
    'candidate_bias': params['hn']['bias'],
  }


def from_simple(params):
  return {
    'input': params['i'],
    'recurrent': {'kernel': params['h']['kernel']},
  }


@pytest.mark.parametrize(
  'cell, theirs, mapping',
  [
    (cells.RNN(UNITS), nn.SimpleCell(UNITS), from_simple),
    (cells.GRU(UNITS), nn.GRUCell(UNITS), from_gru),
    (
      cells.LSTM(UNITS, forget_bias=0.0),
      nn.OptimizedLSTMCell(UNITS),
      lambda params: from_optimized_lstm(params, 0.0),
    ),
    (
      cells.LSTM(UNITS),
      nn.OptimizedLSTMCell(UNITS),
      lambda params: from_optimized_lstm(params, 1.0),
    ),
  ],
)
def test_cells_equal_flax(cell, theirs, mapping):
  inputs = jax.random.normal(jax.random.key(0), (6, BATCH, INPUTS))
  carry = theirs.initialize_carry(jax.random.key(1), inputs[0].shape)
  params = noisy(theirs.init(jax.random.key(2), carry, inputs[0])['params'])
  variables = {'params': mapping(params)}
  ours = cell.start((BATCH,))
  for x in inputs:
    carry, expected = theirs.apply({'params': params}, carry, x)
    ours, output = cell.apply(variables, ours, x)
    np.testing.assert_allclose(output, expected, atol=1e-6)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours, carry
  )


def lstm_by_hand(params, carry, inputs, mask, forget_bias):
  """The equations of Semeniuta et al. (2016) in numpy."""
  memory, hidden = carry
  gates = inputs @ params['input']['kernel'] + params['input']['bias']
  gates = gates + hidden @ params['recurrent']['kernel']
  i, f, g, o = np.split(gates, 4, -1)
  memory = special.expit(f + forget_bias) * memory
  memory = memory + special.expit(i) * (mask * np.tanh(g))
  return (memory, special.expit(o) * np.tanh(memory))


def test_lstm_recurrent_dropout_keeps_the_memory():
  cell = cells.LSTM(UNITS, forget_bias=0.5)
  inputs = jax.random.normal(jax.random.key(0), (6, BATCH, INPUTS))
  masks = cells.dropout_masks(jax.random.key(3), 0.4, (6, BATCH, UNITS))
  carry = cell.start((BATCH,))
  variables = noisy(cell.init(jax.random.key(1), carry, inputs[0]))
  expected = carry
  for x, mask in zip(inputs, masks, strict=True):
    projected = cell.apply(variables, x, method='project')
    carry, _ = cell.apply(variables, carry, projected, mask, method='step')
    expected = lstm_by_hand(
      jax.tree.map(np.asarray, variables['params']), expected, x, mask, 0.5
    )
    np.testing.assert_allclose(carry[0], expected[0], atol=1e-6)
    np.testing.assert_allclose(carry[1], expected[1], atol=1e-6)


def test_gru_with_everything_dropped_only_decays():
  cell = cells.GRU(UNITS)
  inputs = jax.random.normal(jax.random.key(0), (BATCH, INPUTS))
  carry = jax.random.normal(jax.random.key(1), (BATCH, UNITS))
  variables = noisy(cell.init(jax.random.key(2), carry, inputs))
  projected = cell.apply(variables, inputs, method='project')
  dropped, _ = cell.apply(
    variables, carry, projected, jnp.zeros_like(carry), method='step'
  )
  params = variables['params']
  update = np.split(projected + carry @ params['recurrent']['kernel'], 3, -1)
  np.testing.assert_allclose(
    dropped, special.expit(update[1]) * carry, atol=1e-6
  )


def test_rnn_with_everything_dropped_forgets():
  cell = cells.RNN(UNITS)
  inputs = jax.random.normal(jax.random.key(0), (BATCH, INPUTS))
  carry = jax.random.normal(jax.random.key(1), (BATCH, UNITS))
  variables = noisy(cell.init(jax.random.key(2), carry, inputs))
  projected = cell.apply(variables, inputs, method='project')
  dropped, _ = cell.apply(
    variables, carry, projected, jnp.zeros_like(carry), method='step'
  )
  np.testing.assert_allclose(dropped, np.tanh(projected), atol=1e-6)


def test_dropout_masks_keep_the_mean():
  masks = np.asarray(cells.dropout_masks(jax.random.key(0), 0.25, (100, 400)))
  np.testing.assert_allclose(np.unique(masks), [0, 1 / 0.75], rtol=1e-6)
  # 40,000 draws: four standard errors are 0.0116.
  np.testing.assert_allclose(masks.mean(), 1, atol=0.0116)
  assert masks.dtype == np.float32


def test_recurrent_kernel_is_orthogonal_gate_by_gate():
  kernel = cells.orthogonal_per_gate(jax.random.key(0), (UNITS, 4 * UNITS))
  blocks = np.split(np.asarray(kernel), 4, -1)
  for block in blocks:
    np.testing.assert_allclose(block @ block.T, np.eye(UNITS), atol=1e-6)
  assert not np.allclose(blocks[0], blocks[1])


@pytest.mark.parametrize('make', [cells.RNN, cells.LSTM, cells.GRU])
def test_half_precision_keeps_parameters_and_state_in_float32(make):
  inputs = jax.random.normal(jax.random.key(0), (BATCH, INPUTS))
  exact, half = make(UNITS), make(UNITS, dtype=jnp.bfloat16)
  start = half.start((BATCH,))
  variables = half.init(jax.random.key(1), start, inputs)
  carry, output = half.apply(variables, start, inputs)
  for leaf in jax.tree.leaves((variables, carry, output)):
    assert leaf.dtype == jnp.float32
  expected = exact.apply(variables, exact.start((BATCH,)), inputs)[1]
  np.testing.assert_allclose(output, expected, atol=0.02)
  assert not np.array_equal(output, expected)
