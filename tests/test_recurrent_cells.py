import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from recurrent import cells
from recurrent import modulated_cells
from recurrent import unroll

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


def small_hyper(features, **kwargs):
  return modulated_cells.HyperLSTM(
    features, hyper_features=3, embedding=2, **kwargs
  )


ALL = [
  cells.RNN,
  cells.LSTM,
  cells.GRU,
  modulated_cells.LayerNormLSTM,
  small_hyper,
  cells.MaxoutLSTM,
  cells.SentinelLSTM,
  cells.MaxoutSentinelLSTM,
]


@pytest.mark.parametrize('make', ALL)
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


@pytest.mark.parametrize('make', ALL)
def test_what_drives_is_more_of_the_inputs(make):
  """Two kernels, one under the other, are one kernel for both inputs."""
  cell = make(UNITS)
  inputs = jax.random.normal(jax.random.key(0), (6, BATCH, INPUTS))
  constant = jax.random.normal(jax.random.key(1), (BATCH, 2))
  carry = cell.start((BATCH,))

  def both(cell, carry, inputs, constant):
    projected = cell.project(inputs) + cell.project_constant(constant)
    assert projected.shape[-1] == cell.width
    return cell.step(carry, projected)

  variables = cell.init(
    jax.random.key(2), carry, inputs[0], constant, method=both
  )
  variables = noisy(variables)
  params = dict(variables['params'])
  kernels = params['input']['kernel'], params.pop('constant_input')['kernel']
  params['input'] = {**params['input'], 'kernel': jnp.concatenate(kernels)}
  expected = carry
  for x in inputs:
    carry, output = cell.apply(variables, carry, x, constant, method=both)
    joined = jnp.concatenate([x, constant], axis=-1)
    expected, expected_output = cell.apply({'params': params}, expected, joined)
    np.testing.assert_allclose(output, expected_output, atol=1e-6)
    np.testing.assert_array_equal(output, cell.hidden(carry))


def layer_norm_lstm_by_flax(params, carry, inputs, mask):
  """The equations of Ba et al. (2016), normalised by flax."""
  memory, hidden = carry

  def normalize(x, scale, bias):
    return nn.LayerNorm(epsilon=1e-3).apply(
      {'params': {'scale': scale, 'bias': bias}}, x
    )

  gates = inputs @ params['input']['kernel']
  gates = gates + hidden @ params['recurrent']['kernel']
  i, f, g, o = (
    normalize(gate, params['gates_scale'][k], params['gates_bias'][k])
    for k, gate in enumerate(np.split(gates, 4, -1))
  )
  memory = special.expit(f + 1) * memory
  memory = memory + special.expit(i) * (mask * np.tanh(g))
  normalized = normalize(memory, params['memory_scale'], params['memory_bias'])
  return memory, special.expit(o) * np.tanh(normalized)


def run(cell, variables, inputs, masks, carry=None):
  carry = cell.start((BATCH,)) if carry is None else carry
  for x, mask in zip(inputs, masks, strict=True):
    projected = cell.apply(variables, x, method='project')
    carry, output = cell.apply(variables, carry, projected, mask, method='step')
  return carry, output


def test_layer_norm_lstm_is_flax_normalised():
  cell = modulated_cells.LayerNormLSTM(UNITS)
  inputs = jax.random.normal(jax.random.key(0), (6, BATCH, INPUTS))
  masks = cells.dropout_masks(jax.random.key(3), 0.4, (6, BATCH, UNITS))
  start = cell.start((BATCH,))
  variables = noisy(cell.init(jax.random.key(1), start, inputs[0]))
  carry, _ = run(cell, variables, inputs, masks)
  expected = start
  for x, mask in zip(inputs, masks, strict=True):
    expected = layer_norm_lstm_by_flax(variables['params'], expected, x, mask)
  np.testing.assert_allclose(carry[0], expected[0], atol=1e-5)
  np.testing.assert_allclose(carry[1], expected[1], atol=1e-5)


@pytest.mark.parametrize('factor', [0.1, 1.0])
def test_hyper_lstm_without_what_modulates(factor):
  """A layer-norm LSTM of scaled kernels; at first they are a tenth."""
  cell, plain = small_hyper(UNITS), modulated_cells.LayerNormLSTM(UNITS)
  inputs = jax.random.normal(jax.random.key(0), (6, BATCH, INPUTS))
  masks = cells.dropout_masks(jax.random.key(3), 0.4, (6, BATCH, UNITS))
  start = cell.start((BATCH,))
  params = cell.init(jax.random.key(1), start, inputs[0])['params']
  # As initialised, but for the size of the factors.
  params['factors_kernel'] *= factor / 0.1
  main = {
    name: {'kernel': factor * params[name]['kernel'][:, : 4 * UNITS]}
    for name in ('input', 'recurrent')
  }
  main |= {
    name: params[name]
    for name in ('gates_scale', 'gates_bias', 'memory_scale', 'memory_bias')
  }
  (carry, small), output = run(cell, {'params': params}, inputs, masks)
  expected, expected_output = run(plain, {'params': main}, inputs, masks)
  np.testing.assert_allclose(carry[0], expected[0], atol=1e-5)
  np.testing.assert_allclose(output, expected_output, atol=1e-5)
  assert np.abs(small[1]).max() > 0.01


def test_hyper_lstm_modulates_each_product_of_each_gate():
  """One step as the paper writes it, gate by gate, after the small LSTM."""
  cell = small_hyper(UNITS)
  x = jax.random.normal(jax.random.key(0), (BATCH, INPUTS))
  carry = jax.tree.map(
    lambda leaf: 0.5 * jax.random.normal(jax.random.key(4), leaf.shape),
    cell.start((BATCH,)),
  )
  variables = noisy(cell.init(jax.random.key(1), carry, x))
  (_, output), (_, u) = cell.apply(variables, carry, x)[0]
  params = variables['params']
  (memory, hidden), small = carry

  # The small LSTM is a layer-norm LSTM that reads [x; h].
  kernel = [params[name]['kernel'] for name in ('input', 'recurrent')]
  reads = jnp.concatenate(kernel)[:, 4 * UNITS :]
  expected_small = layer_norm_lstm_by_flax(
    {**params['hyper'], 'input': {'kernel': reads}},
    small,
    jnp.concatenate([x, hidden], axis=-1),
    1.0,
  )
  np.testing.assert_allclose(u, expected_small[1], atol=1e-5)

  size, embed = 2, params['embed']['kernel']
  parts = [embed[:, size * k : size * (k + 1)] for k in range(12)]
  pre_activations = []
  for gate in range(4):
    columns = slice(UNITS * gate, UNITS * (gate + 1))
    products = x @ kernel[0][:, columns], hidden @ kernel[1][:, columns]
    total = params['bias'][gate]
    for index, product in zip((gate, 4 + gate), products, strict=True):
      embedded = u @ parts[index] + params['factors_bias'][index]
      total += embedded @ params['factors_kernel'][index] * product
    total += u @ parts[8 + gate] @ params['shifts_kernel'][gate]
    pre_activations.append(total)
  zeros = jnp.zeros((UNITS, 4 * UNITS))
  _, expected = layer_norm_lstm_by_flax(
    {
      **params,
      'input': {'kernel': jnp.eye(4 * UNITS)},
      'recurrent': {'kernel': zeros},
    },
    (memory, hidden),
    jnp.concatenate(pre_activations, axis=-1),
    1.0,
  )
  np.testing.assert_allclose(output, expected, atol=1e-5)


def test_kernels_start_as_the_rows_of_one():
  """The limit is Glorot's for all the inputs, and every row is another."""
  cell = cells.LSTM(64, fan_in=500)
  inputs, constant = jnp.ones((1, 200)), jnp.ones((1, 300))

  def both(cell, inputs, constant):
    return cell.project(inputs) + cell.project_constant(constant)

  params = cell.init(jax.random.key(0), inputs, constant, method=both)['params']
  limit = (6 / (500 + 256)) ** 0.5
  kernels = [params[name]['kernel'] for name in ('input', 'constant_input')]
  for kernel in kernels:
    assert 0.99 * limit < np.abs(kernel).max() <= limit
  assert not np.allclose(kernels[0], kernels[1][:200])


def gates_by_hand(params, hidden, x, names):
  """Every gate from the columns that are its own: name -> f[B, H]."""
  gates = {}
  for index, name in enumerate(names):
    columns = slice(UNITS * index, UNITS * (index + 1))
    gates[name] = (
      x @ params['input']['kernel'][:, columns]
      + params['input']['bias'][columns]
      + hidden @ params['recurrent']['kernel'][:, columns]
    )
  return gates


def test_maxout_lstm_takes_the_larger_candidate():
  """Rennie et al. (2017), section 3; recurrent dropout spares the memory."""
  cell = cells.MaxoutLSTM(UNITS, forget_bias=0.5)
  inputs = jax.random.normal(jax.random.key(0), (6, BATCH, INPUTS))
  masks = cells.dropout_masks(jax.random.key(3), 0.4, (6, BATCH, UNITS))
  variables = noisy(
    cell.init(jax.random.key(1), cell.start((BATCH,)), inputs[0])
  )
  carry, output = run(cell, variables, inputs, masks)
  memory, hidden = cell.start((BATCH,))
  for x, mask in zip(inputs, masks, strict=True):
    gates = gates_by_hand(variables['params'], hidden, x, 'ifoab')
    candidate = np.where(gates['a'] > gates['b'], gates['a'], gates['b'])
    memory = special.expit(gates['f'] + 0.5) * memory
    memory = memory + special.expit(gates['i']) * candidate * mask
    hidden = special.expit(gates['o']) * np.tanh(memory)
  np.testing.assert_allclose(carry[0], memory, atol=1e-5)
  np.testing.assert_allclose(output, hidden, atol=1e-5)
  np.testing.assert_array_equal(output, cell.hidden(carry))


def test_sentinel_lstm_is_an_lstm_with_a_gate_more():
  """Lu et al. (2017), equations 9 and 10: m is c after the step."""
  cell, plain = cells.SentinelLSTM(UNITS), cells.LSTM(UNITS)
  inputs = jax.random.normal(jax.random.key(0), (6, BATCH, INPUTS))
  masks = cells.dropout_masks(jax.random.key(3), 0.4, (6, BATCH, UNITS))
  variables = noisy(
    cell.init(jax.random.key(1), cell.start((BATCH,)), inputs[0])
  )
  params = variables['params']
  four = jax.tree.map(lambda x: x[..., : 4 * UNITS], params)
  before, _ = run(plain, {'params': four}, inputs[:-1], masks[:-1])
  wanted, wanted_output = run(plain, {'params': four}, inputs, masks)
  (memory, hidden, sentinel), output = run(cell, variables, inputs, masks)
  np.testing.assert_allclose(memory, wanted[0], atol=1e-6)
  np.testing.assert_allclose(hidden, wanted[1], atol=1e-6)
  np.testing.assert_allclose(output, wanted_output, atol=1e-6)
  gate = gates_by_hand(params, before[1], inputs[-1], 'ifgoq')['q']
  np.testing.assert_allclose(
    sentinel, special.expit(gate) * np.tanh(memory), atol=1e-6
  )


ROWS, COLUMNS = 5, 3


def pictures(*leading):
  shape = (*leading, BATCH, ROWS, COLUMNS, INPUTS)
  return jax.random.normal(jax.random.key(0), shape)


def test_conv_lstm_equals_flax():
  cell = cells.ConvLSTM(UNITS)
  theirs = nn.ConvLSTMCell(UNITS, kernel_size=(3, 3))
  inputs = pictures(4)
  carry = theirs.initialize_carry(jax.random.key(1), inputs[0].shape)
  params = noisy(theirs.init(jax.random.key(2), carry, inputs[0])['params'])

  def in_our_order(x):
    i, g, f, o = jnp.split(x, 4, axis=-1)
    return jnp.concatenate([i, f, g, o], axis=-1)

  ours = jax.tree.map(in_our_order, params)
  variables = {
    'params': {
      'input': {
        'kernel': ours['ih']['kernel'],
        'bias': ours['ih']['bias'] + ours['hh']['bias'],
      },
      'recurrent': {'kernel': ours['hh']['kernel']},
    }
  }
  state = cell.start((BATCH, ROWS, COLUMNS))
  for x in inputs:
    carry, expected = theirs.apply({'params': params}, carry, x)
    state, output = cell.apply(variables, state, x)
    np.testing.assert_allclose(output, expected, atol=1e-5)
  np.testing.assert_allclose(state[0], carry[0], atol=1e-5)


def test_conv_lstm_of_a_window_of_one_is_an_lstm_at_every_place():
  cell, plain = cells.ConvLSTM(UNITS, window=1), cells.LSTM(UNITS)
  inputs = pictures(4)
  state = cell.start((BATCH, ROWS, COLUMNS))
  variables = noisy(cell.init(jax.random.key(1), state, inputs[0]))
  params = {
    name: {**layer, 'kernel': layer['kernel'][0, 0]}
    for name, layer in variables['params'].items()
  }
  expected = plain.start((BATCH * ROWS * COLUMNS,))
  for x in inputs:
    state, output = cell.apply(variables, state, x)
    places = x.reshape(-1, INPUTS)
    expected, of_places = plain.apply({'params': params}, expected, places)
    np.testing.assert_allclose(output.reshape(-1, UNITS), of_places, atol=1e-6)


def test_what_drives_a_conv_lstm_is_more_of_the_inputs():
  cell = cells.ConvLSTM(UNITS, fan_in=INPUTS + 2)
  x = pictures()
  constant = jax.random.normal(jax.random.key(1), (*x.shape[:-1], 2))
  carry = cell.start(x.shape[:-1])

  def both(cell, carry, x, constant):
    return cell.step(carry, cell.project(x) + cell.project_constant(constant))

  variables = cell.init(jax.random.key(2), carry, x, constant, method=both)
  params = dict(noisy(variables)['params'])
  _, output = cell.apply({'params': params}, carry, x, constant, method=both)
  kernels = params['input']['kernel'], params.pop('constant_input')['kernel']
  params['input'] = {
    **params['input'],
    'kernel': jnp.concatenate(kernels, axis=-2),
  }
  joined = jnp.concatenate([x, constant], axis=-1)
  _, expected = cell.apply({'params': params}, carry, joined)
  np.testing.assert_allclose(output, expected, atol=1e-5)


def test_conv_lstm_starts_as_a_memory_of_each_place():
  cell = cells.ConvLSTM(UNITS)
  carry = cell.start((BATCH, ROWS, COLUMNS))
  params = cell.init(jax.random.key(1), carry, pictures())['params']
  kernel = np.array(params['recurrent']['kernel'])
  for block in np.split(kernel[1, 1], 4, -1):
    np.testing.assert_allclose(block @ block.T, np.eye(UNITS), atol=1e-6)
  kernel[1, 1] = 0
  np.testing.assert_array_equal(kernel, 0)


def test_conv_lstm_needs_a_window_with_a_centre():
  cell = cells.ConvLSTM(UNITS, window=2)
  with pytest.raises(ValueError, match='window=2 must be odd'):
    cell.init(jax.random.key(1), cell.start((BATCH, 3, 3)), pictures())


@pytest.mark.parametrize('features', [UNITS, 48])
@pytest.mark.parametrize('reverse', [False, True])
def test_conv_lstm_unrolled_is_every_clip_stepped_alone(features, reverse):
  """Of few inputs too, for which other cells have a reverse pass by hand."""
  cell = cells.ConvLSTM(features)
  lengths = np.array([6, 0, 3])
  x = jnp.moveaxis(pictures(6), 0, 1)
  real = np.arange(6) < lengths[:, None]
  x = jnp.where(real[..., None, None, None], x, 1e6)
  carry = cell.start((1, ROWS, COLUMNS))
  variables = noisy(cell.init(jax.random.key(1), carry, x[:1, 0]))
  final, outputs = cell.apply(
    variables,
    x,
    None,
    jnp.asarray(lengths),
    method=lambda *a: unroll.unroll(*a, reverse=reverse),
  )
  for row, length in enumerate(lengths):
    state = carry
    for i in range(length)[:: -1 if reverse else 1]:
      state, output = cell.apply(variables, state, x[row, i][None])
      np.testing.assert_allclose(outputs[row, i], output[0], atol=1e-5)
    np.testing.assert_array_equal(outputs[row, length:], 0)
    np.testing.assert_allclose(final[0][row], state[0][0], atol=1e-5)
