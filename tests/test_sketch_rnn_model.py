import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sketch_rnn import losses
from sketch_rnn import model

BATCH, TIME, LATENT, CLASSES = 3, 6, 4, 3
SMALL = dict(encoder_features=5, decoder_features=6, latent=LATENT, mixtures=2)
KEYS = {
  name: jax.random.key(index)
  for index, name in enumerate(('params', 'latent', 'dropout'))
}


@pytest.fixture(scope='module')
def batch():
  """Strokes with their start row, and lengths."""
  keys = jax.random.split(jax.random.key(5))
  offsets = np.array(jax.random.normal(keys[0], (BATCH, TIME + 1, 2)))
  pen = np.array(jax.random.randint(keys[1], (BATCH, TIME + 1), 0, 2))
  lengths = np.array([6, 4, 2])
  for row, length in enumerate(lengths):
    pen[row, length + 1 :] = 2
    offsets[row, length + 1 :] = 0
  offsets[:, 0], pen[:, 0] = 0, 0
  strokes = np.concatenate([offsets, np.eye(3)[pen]], -1).astype(np.float32)
  return strokes, lengths


def noisy(variables):
  """None of the parameters is zero, so that every one of them counts."""
  rng = np.random.default_rng(7)
  return jax.tree.map(
    lambda x: (x + 0.3 * rng.normal(size=x.shape)).astype(np.float32),
    jax.device_get(variables),
  )


@functools.partial(
  jax.jit, static_argnums=0, static_argnames=('method', 'train')
)
def apply(network, variables, *args, **kwargs):
  """Compiled once for equal networks."""
  return network.apply(variables, *args, **kwargs)


def make(batch, labels=None, **arguments):
  network = model.SketchRNN(**{**SMALL, **arguments})
  variables = jax.jit(network.init)(KEYS, *batch, labels)
  return network, noisy(variables)


@pytest.mark.parametrize('conditional', [True, False])
@pytest.mark.parametrize('decoder', model.CELLS)
def test_decoding_is_stepping(batch, decoder, conditional):
  strokes = batch[0][:, :-1]
  network, variables = make(batch, decoder=decoder, conditional=conditional)
  z = None
  if conditional:
    z = jax.random.normal(jax.random.key(1), (BATCH, LATENT))
  decoded = apply(network, variables, strokes, z, method='decode')
  carry, projected_constant = network.apply(
    variables, z, None, (BATCH,), method='start'
  )
  assert (projected_constant is None) == (not conditional)
  for time in range(TIME):
    carry, raw = apply(
      network,
      variables,
      carry,
      strokes[:, time],
      projected_constant,
      method='step',
    )
    np.testing.assert_allclose(raw, decoded[:, time], atol=1e-5)


@pytest.mark.parametrize('encoder', model.CELLS)
def test_the_encoder_sees_the_points_alone(batch, encoder):
  strokes, lengths = batch
  network, variables = make(batch, encoder=encoder)
  encode = functools.partial(apply, network, variables, method='encode')
  expected = encode(strokes[:, 1:], lengths)
  changed = strokes.copy()
  for row, length in enumerate(lengths):
    changed[row, length + 1 :] = 100
  for actual in (
    encode(changed[:, 1:], lengths),
    jax.tree.map(
      lambda *rows: jnp.concatenate(rows),
      *(
        encode(strokes[row : row + 1, 1 : length + 1], lengths[row : row + 1])
        for row, length in enumerate(lengths)
      ),
    ),
  ):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), actual, expected
    )


def test_the_encoder_reads_both_ways(batch):
  """A drawing read backwards swaps what the two directions end with."""
  strokes, lengths = batch[0][:, 1:], np.full(BATCH, TIME)
  network, variables = make(batch)
  params = dict(variables['params'])
  mean = apply(network, variables, strokes, lengths, method='encode')[0]
  params['forward_cell'], params['backward_cell'] = (
    params['backward_cell'],
    params['forward_cell'],
  )
  for name in ('mean', 'presigma'):
    upper, lower = jnp.split(params[name]['kernel'], 2)
    params[name] = {**params[name], 'kernel': jnp.concatenate([lower, upper])}
  swapped = apply(
    network, {'params': params}, strokes[:, ::-1], lengths, method='encode'
  )[0]
  np.testing.assert_allclose(swapped, mean, atol=1e-6)


def test_z_is_drawn_from_what_the_encoder_says(batch, monkeypatch):
  strokes, lengths = batch
  network, variables = make(batch)
  noise = jnp.linspace(-1, 1, BATCH * LATENT).reshape(BATCH, LATENT)
  monkeypatch.setattr(jax.random, 'normal', lambda key, shape: noise)
  raw, mean, presigma = network.apply(
    variables, strokes, lengths, rngs={'latent': KEYS['latent']}
  )
  z = mean + jnp.exp(presigma / 2) * noise
  expected = apply(network, variables, strokes[:, :-1], z, method='decode')
  np.testing.assert_allclose(raw, expected, atol=1e-6)


def test_a_learned_prior_changes_the_divergence_alone(batch):
  """The decoder is given the same, and L_KL is that from the learned prior."""
  network, variables = make(batch, learned_prior=True)
  params = dict(variables['params'])
  prior_mean, log_deviation = (
    params.pop(name) for name in ('prior_mean', 'prior_log_deviation')
  )
  fixed = model.SketchRNN(**SMALL)
  raw, mean, presigma = network.apply(variables, *batch, rngs=KEYS)
  expected, wide_mean, wide_presigma = fixed.apply(
    {'params': params}, *batch, rngs=KEYS
  )
  np.testing.assert_allclose(raw, expected, atol=1e-5)
  # The divergence of two Gaussians, from its definition.
  variance = np.exp(wide_presigma)
  terms = (variance + (wide_mean - prior_mean) ** 2) / np.exp(2 * log_deviation)
  terms = terms - 1 + 2 * log_deviation - wide_presigma
  np.testing.assert_allclose(
    losses.kl_divergence(mean, presigma),
    np.mean(terms, axis=-1) / 2,
    rtol=1e-5,
  )
  assert np.max(np.abs(mean - wide_mean)) > 0.1


def test_a_learned_prior_is_the_fixed_one_at_first(batch):
  network = model.SketchRNN(**SMALL, learned_prior=True)
  variables = network.init(KEYS, *batch)
  added = {
    name: variables['params'].pop(name)
    for name in ('prior_mean', 'prior_log_deviation')
  }
  fixed = model.SketchRNN(**SMALL)
  jax.tree.map(
    np.testing.assert_array_equal, variables, fixed.init(KEYS, *batch)
  )
  for found, expected in zip(
    network.apply(
      {'params': {**variables['params'], **added}}, *batch, rngs=KEYS
    ),
    fixed.apply(variables, *batch, rngs=KEYS),
    strict=True,
  ):
    np.testing.assert_array_equal(found, expected)


def test_the_best_prior_has_the_moments_of_z(batch):
  """Mean and variance of all samples of z; every other prior is farther."""
  network, variables = make(batch, learned_prior=True)

  def divergence(prior_mean, log_deviation):
    params = {
      **variables['params'],
      'prior_mean': prior_mean,
      'prior_log_deviation': log_deviation,
    }
    mean, presigma = network.apply(
      {'params': params}, batch[0][:, 1:], batch[1], method='encode'
    )
    return jnp.mean(losses.kl_divergence(mean, presigma)), mean, presigma

  zeros = jnp.zeros(LATENT)
  _, mean, presigma = divergence(zeros, zeros)
  best = (
    mean.mean(0),
    jnp.log(mean.var(0) + jnp.exp(presigma).mean(0)) / 2,
  )
  gradient = jax.grad(lambda *prior: divergence(*prior)[0], (0, 1))
  for found, other in zip(gradient(*best), gradient(zeros, zeros), strict=True):
    np.testing.assert_allclose(found, 0, atol=1e-6)
    assert np.max(np.abs(other)) > 1e-3


def test_a_label_is_more_of_z(batch):
  """One-hot beside z: the model without classes of a z that much longer."""
  labels = np.array([2, 0, 1])
  network, variables = make(batch, labels, num_classes=CLASSES)
  longer = model.SketchRNN(**{**SMALL, 'latent': LATENT + CLASSES})
  z = jax.random.normal(jax.random.key(1), (BATCH, LATENT))
  inputs = batch[0][:, :-1]
  actual = apply(network, variables, inputs, z, labels, method='decode')
  joined = np.concatenate([z, np.eye(CLASSES)[labels]], -1)
  expected = apply(longer, variables, inputs, joined, method='decode')
  np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_a_label_alone_shifts_the_gates(batch):
  labels = np.array([2, 0, 1])
  network, variables = make(
    batch, labels, num_classes=CLASSES, conditional=False
  )
  plain = model.SketchRNN(**SMALL, conditional=False)
  inputs = batch[0][:, :-1]
  actual = apply(network, variables, inputs, None, labels, method='decode')
  cell = variables['params']['decoder_cell']
  for row, label in enumerate(labels):
    bias = cell['input']['bias'] + cell['constant_input']['kernel'][label]
    shifted = {
      'params': {
        'output': variables['params']['output'],
        'decoder_cell': {
          'recurrent': cell['recurrent'],
          'input': {**cell['input'], 'bias': bias},
        },
      }
    }
    expected = apply(plain, shifted, inputs[row : row + 1], method='decode')
    np.testing.assert_allclose(actual[row], expected[0], atol=1e-6)


def test_dropout_in_training_alone(batch):
  network, variables = make(batch, recurrent_dropout=0.5)
  without = model.SketchRNN(**SMALL, recurrent_dropout=0.0)
  apply = [
    jax.jit(n.apply, static_argnames='train') for n in (network, without)
  ]
  rngs = {name: KEYS[name] for name in ('latent', 'dropout')}
  evaluated = apply[0](variables, *batch, rngs=rngs)
  trained = apply[0](variables, *batch, train=True, rngs=rngs)
  for actual, expected in zip(
    apply[1](variables, *batch, train=True, rngs=rngs), evaluated, strict=True
  ):
    np.testing.assert_array_equal(actual, expected)
  # In the encoder as well as in the decoder.
  for actual, expected in zip(trained, evaluated, strict=True):
    assert not np.allclose(actual, expected, atol=1e-3)


# Of the published code, with points of 5 numbers and 123 outputs.
@pytest.mark.parametrize(
  ('arguments', 'expected'),
  [
    (dict(), 2_186_107),
    (dict(decoder='layer_norm'), 2_189_179),
    (dict(decoder='layer_norm', encoder='layer_norm'), 2_192_251),
    (dict(decoder='hyper'), 3_477_627),
    (dict(conditional=False), 1_123_963),
  ],
)
def test_number_of_parameters(batch, arguments, expected):
  network = model.SketchRNN(**arguments)
  shapes = jax.eval_shape(network.init, KEYS, *batch)
  assert sum(x.size for x in jax.tree.leaves(shapes)) == expected


@pytest.mark.parametrize('decoder', model.CELLS)
def test_initial_parameters(batch, decoder):
  """Section 2.2 of the published code's initialisers, at its sizes."""
  network = model.SketchRNN(decoder=decoder)
  params = jax.jit(network.init)(KEYS, *batch)['params']
  units, latent, outputs, small = 512, 128, 123, 256
  gates = 4 * units

  def assert_uniform(x, limit):
    assert np.abs(x).max() <= limit
    assert np.abs(x).max() >= 0.9 * limit
    tolerance = 5 * limit / np.sqrt(3 * x.size)
    np.testing.assert_allclose(np.mean(x), 0, atol=tolerance)
    np.testing.assert_allclose(np.std(x), limit / 3**0.5, rtol=0.12)

  def assert_normal(x, deviation):
    np.testing.assert_allclose(np.std(x), deviation, rtol=0.02)

  cell = params['decoder_cell']
  joint = np.sqrt(6 / (5 + latent + gates))
  assert_uniform(cell['input']['kernel'][:, :gates], joint)
  assert_uniform(cell['constant_input']['kernel'][:, :gates], joint)
  for block in np.split(cell['recurrent']['kernel'][:, :gates], 4, -1):
    np.testing.assert_allclose(block @ block.T, np.eye(units), atol=1e-5)
  assert_uniform(params['output']['kernel'], np.sqrt(6 / (units + outputs)))
  assert_uniform(params['output']['bias'], np.sqrt(3 / outputs))
  for name in ('mean', 'presigma', 'initial_state'):
    assert_normal(params[name]['kernel'], 0.001)
    assert not params[name]['bias'].any()
  encoder = params['forward_cell']
  assert_uniform(encoder['input']['kernel'], np.sqrt(6 / (5 + 1024)))
  assert not encoder['input']['bias'].any()
  if decoder == 'hyper':
    joint = np.sqrt(6 / (5 + latent + units + 4 * small))
    for name in ('input', 'constant_input', 'recurrent'):
      assert_uniform(cell[name]['kernel'][:, gates:], joint)
    assert_normal(cell['embed']['kernel'][:, 8 * 32 :], 0.01)
    assert not cell['embed']['kernel'][:, : 8 * 32].any()


def test_what_is_missing_is_named(batch):
  strokes = batch[0][:, :-1]
  with pytest.raises(ValueError, match="decoder='gru' is none of lstm, layer"):
    model.SketchRNN(decoder='gru').init(KEYS, *batch)
  network, variables = make(batch)
  with pytest.raises(ValueError, match='conditional=True: pass z'):
    network.apply(variables, strokes, method='decode')
  with pytest.raises(ValueError, match='num_classes=0: pass labels=None'):
    network.init(KEYS, *batch, np.zeros(BATCH, int))
  with pytest.raises(ValueError, match='num_classes=3: pass labels'):
    model.SketchRNN(**SMALL, num_classes=3).init(KEYS, *batch)
  network, variables = make(batch, conditional=False)
  with pytest.raises(ValueError, match='conditional=False: pass z=None'):
    network.apply(variables, strokes, np.zeros((3, 4)), method='decode')


def test_half_precision_by_name(batch):
  """As configs name it: the same loss and gradient, roughly."""
  # So many units that the reverse pass by hand is taken.
  network, variables = make(batch, encoder_features=40, decoder_features=40)
  half = network.clone(dtype='bfloat16')

  def loss(network):
    return lambda variables: jnp.mean(
      network.apply(variables, *batch, rngs={'latent': jax.random.key(0)})[0]
    )

  value, gradient = jax.jit(jax.value_and_grad(loss(network)))(variables)
  rough, rough_gradient = jax.jit(jax.value_and_grad(loss(half)))(variables)
  np.testing.assert_allclose(rough, value, atol=2e-2)
  for a, b in zip(
    jax.tree.leaves(rough_gradient), jax.tree.leaves(gradient), strict=True
  ):
    assert a.dtype == jnp.float32
    np.testing.assert_allclose(a, b, atol=2e-2)
