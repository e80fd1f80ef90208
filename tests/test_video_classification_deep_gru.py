"""DeepGRU, against numbers of the published code; and its training."""

import functools
import json
import zlib

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import skeletons as skeletons_config
from training import parallel
from video.classification import deep_gru
from video.classification import losses as losses_lib
from video.classification import model as model_lib


def sampled(name, shape):
  """The parameters of the golden numbers, by their published names."""
  x = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)
  if name.endswith('running_var'):
    return np.exp(x)
  return x * (1.5 / np.sqrt(shape[-1]) if len(shape) > 1 else 0.3)


def gru(prefix, layer, at):
  """The parameters of a layer of `nn.GRU`, in a tree like ours."""
  of_input, of_state = (at(f'{prefix}.bias_{s}_l{layer}') for s in ('ih', 'hh'))
  units = len(of_state) // 3
  shared = np.concatenate([of_state[: 2 * units], np.zeros(units)])
  return {
    'input': {
      'kernel': at(f'{prefix}.weight_ih_l{layer}').T,
      'bias': of_input + shared,
    },
    'recurrent': {'kernel': at(f'{prefix}.weight_hh_l{layer}').T},
    'candidate_bias': of_state[2 * units :],
  }


LAYERS = (('gru1', 0), ('gru1', 1), ('gru2', 0), ('gru2', 1), ('gru3', 0))


def variables_of(at):
  """Name -> array, as a tree of ours."""
  params = {
    f'gru{i}': gru(*layer, at) for i, layer in enumerate(LAYERS, start=1)
  }
  params['context'] = gru('attention.gru', 0, at)
  params['key'] = {'kernel': at('attention.w.weight').T}
  state = {}
  for name, norm, dense in (('hidden', 0, 2), ('output', 4, 6)):
    norm, dense = f'classifier.{norm}', f'classifier.{dense}'
    params[f'{name}_norm'] = {
      'scale': at(f'{norm}.weight'),
      'bias': at(f'{norm}.bias'),
    }
    params[name] = {
      'kernel': at(f'{dense}.weight').T,
      'bias': at(f'{dense}.bias'),
    }
    state[f'{name}_norm'] = {
      'mean': at(f'{norm}.running_mean'),
      'var': at(f'{norm}.running_var'),
    }
  tree = {'params': params, 'batch_stats': state}
  return jax.tree.map(functools.partial(jnp.asarray, dtype=jnp.float32), tree)


def test_logits_and_gradients_are_those_of_the_published_code(golden_file):
  golden = json.loads(golden_file('classifiers/deep_gru.json').read_text())
  clips, steps, features, classes = golden['shape']
  variables = variables_of(lambda name: sampled(name, golden['shapes'][name]))
  x = jnp.asarray(sampled('x', (clips, steps, features)), jnp.float32)
  lengths, labels = np.array(golden['lengths']), np.array(golden['labels'])
  network = deep_gru.DeepGRU(classes, dropout_rate=0.0)
  logits, _ = network.apply(variables, x, lengths, train=False)
  np.testing.assert_allclose(logits, golden['eval'], atol=2e-5)

  def loss_fn(params):
    (logits, _), _ = network.apply(
      {**variables, 'params': params},
      x,
      lengths,
      train=True,
      mutable='batch_stats',
    )
    costs = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return costs.mean(), logits

  (loss, logits), gradient = jax.value_and_grad(loss_fn, has_aux=True)(
    variables['params']
  )
  # Batch normalisation of four similar states enlarges rounding errors.
  np.testing.assert_allclose(logits, golden['train'], atol=2e-3)
  np.testing.assert_allclose(loss, golden['loss'], rtol=1e-3)
  # Ours have one bias for the gates r and z, whose gradient is that of both.
  norms = golden['gradient_norms']
  found = variables_of(lambda name: np.zeros(golden['shapes'][name]))['params']
  assert jax.tree.structure(found) == jax.tree.structure(gradient)
  pairs = [
    (gradient[f'gru{i}'], f'{name}.{{}}_l{layer}')
    for i, (name, layer) in enumerate(LAYERS, start=1)
  ]
  for tree, name in (*pairs, (gradient['context'], 'attention.gru.{}_l0')):
    for leaf, of_torch in (
      (tree['input']['kernel'], 'weight_ih'),
      (tree['recurrent']['kernel'], 'weight_hh'),
      (tree['input']['bias'], 'bias_ih'),
    ):
      np.testing.assert_allclose(
        np.linalg.norm(leaf), norms[name.format(of_torch)], rtol=2e-3
      )
  for ours, theirs in (
    (gradient['key']['kernel'], 'attention.w.weight'),
    (gradient['hidden_norm']['scale'], 'classifier.0.weight'),
    (gradient['hidden']['kernel'], 'classifier.2.weight'),
    (gradient['output_norm']['scale'], 'classifier.4.weight'),
    (gradient['output']['kernel'], 'classifier.6.weight'),
  ):
    np.testing.assert_allclose(np.linalg.norm(ours), norms[theirs], rtol=2e-3)


def small(**changes):
  config = skeletons_config.get_config('sbu/deepgru')
  config.model.widths, config.model.hidden = (6, 5), 4
  config.model.update(changes)
  return model_lib.create(config, 3), config


LENGTHS = np.array([4, 1, 3, 2])


@pytest.fixture
def batch():
  rng = np.random.default_rng(0)
  return {
    'features': rng.normal(size=(4, 4, 6)).astype(np.float32),
    'length': LENGTHS.astype(np.int32),
    'label': np.array([0, 2, 1, 1], np.int32),
  }


def test_padding_changes_nothing(batch):
  network, _ = small()
  x = batch['features']
  variables = network.init(jax.random.key(0), x, LENGTHS, train=False)
  real = np.arange(4) < LENGTHS[:, None]
  logits, _ = network.apply(
    variables, np.where(real[..., None], x, 77), LENGTHS, train=False
  )
  for row, length in enumerate(LENGTHS):
    alone, _ = network.apply(
      variables,
      x[row : row + 1, :length],
      LENGTHS[row : row + 1],
      train=False,
    )
    np.testing.assert_allclose(logits[row], alone[0], atol=1e-5)


def test_two_devices_learn_what_one_learns(batch):
  """The statistics of batch normalisation are those of the whole batch."""
  assert jax.device_count() == 2
  network, config = small(dropout_rate=0.0)
  variables = network.init(
    jax.random.key(0), batch['features'], LENGTHS, train=False
  )
  whole = network.clone(norm_axis_name=None)
  loss_fn = losses_lib.create(whole, config.loss)
  counts = losses_lib.counts(batch)

  def total(params):
    args = {**variables, 'params': params}, batch, counts, jnp.zeros((), int)
    loss, (_, state) = loss_fn(*args, jax.random.key(0))
    return loss, state

  (loss, state), gradient = jax.value_and_grad(total, has_aux=True)(
    variables['params']
  )
  optimizer = optax.sgd(1.0)
  step = parallel.train_step(
    losses_lib.create(network, config.loss), losses_lib.counts, optimizer
  )
  after, update = step(
    parallel.create_state(jax.tree.map(np.array, variables), optimizer),
    parallel.shard(batch),
    parallel.replicate(jax.random.key(1)),
  )
  np.testing.assert_allclose(update.loss, loss, rtol=1e-5)
  moved = jax.tree.map(lambda x, g: x - g, variables['params'], gradient)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    (jax.device_get(after.params), jax.device_get(after.model_state)),
    (moved, flax.core.unfreeze(state)),
  )
