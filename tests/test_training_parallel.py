"""Two devices give what one computation over the whole batch gives."""

import clu.metrics
import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from recurrent import masking
from training import parallel


@flax.struct.dataclass
class Metrics(clu.metrics.Collection):
  loss: clu.metrics.Average.from_output('loss')


def predict(params, x):
  return jnp.tanh(x @ params['in']['kernel']) @ params['out']['kernel']


def squared_error(params, batch):
  return (predict(params, batch['x'])[..., 0] - batch['y']) ** 2


def count(batch):
  return jnp.sum(batch['mask'])


def loss_fn(variables, batch, counts, step, key):
  del key
  losses = squared_error(variables['params'], batch)
  loss = masking.share_of_mean(losses, batch['mask'], counts)
  metrics = Metrics.single_from_model_output(loss=losses, mask=batch['mask'])
  model_state = {}
  if 'batch_stats' in variables:
    model_state = {'batch_stats': {'mean': batch['x'].mean((0, 1))}}
  return loss, (metrics, model_state)


@pytest.fixture
def batch():
  rng = np.random.default_rng(0)
  return {
    'id': np.array(['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h']),
    'x': rng.normal(size=(8, 5, 3)).astype(np.float32),
    'y': rng.normal(size=(8, 5)).astype(np.float32),
    # Devices and micro-batches hold very different numbers of real steps.
    'mask': np.arange(5) < np.array([5, 5, 5, 4, 1, 1, 2, 0])[:, None],
  }


@pytest.fixture
def params():
  rng = np.random.default_rng(1)
  return {
    'in': {'kernel': rng.normal(size=(3, 4)).astype(np.float32)},
    'out': {'kernel': rng.normal(size=(4, 1)).astype(np.float32)},
  }


def expected_params(params, batch, optimizer, num_steps):
  """The same training without devices, shares or partitions."""

  def mean(params):
    losses = squared_error(params, batch)
    return jnp.sum(losses * batch['mask']) / jnp.sum(batch['mask'])

  opt_state = optimizer.init(params)
  for _ in range(num_steps):
    updates, opt_state = optimizer.update(
      jax.grad(mean)(params), opt_state, params
    )
    params = optax.apply_updates(params, updates)
  return params, mean(params)


def run(params, batch, optimizer, num_steps, variables=None, **kwargs):
  state = parallel.create_state(
    {'params': params, **(variables or {})},
    optimizer,
    frozen=kwargs.get('frozen', ()),
    keep_ema=kwargs.get('ema_decay', 0) > 0,
  )
  step = parallel.train_step(loss_fn, count, optimizer, **kwargs)
  key = parallel.replicate(jax.random.key(0))
  for _ in range(num_steps):
    state, update = step(state, parallel.shard(batch), key)
  return state, update


@pytest.mark.parametrize('microbatches', [1, 2, 4])
def test_sharded_steps_equal_the_whole_batch(params, batch, microbatches):
  assert jax.local_device_count() == 2
  optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.1))
  state, update = run(params, batch, optimizer, 3, microbatches=microbatches)
  expected, _ = expected_params(params, batch, optimizer, 3)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
    state.params,
    expected,
  )
  _, before = expected_params(params, batch, optimizer, 2)
  np.testing.assert_allclose(update.loss, before, rtol=1e-5)
  np.testing.assert_allclose(update.metrics.compute()['loss'], before, 1e-5)
  assert int(state.step) == 3


def test_frozen_parameters_stay_and_have_no_optimizer_state(params, batch):
  optimizer = optax.adamw(0.1, weight_decay=0.1)
  state, update = run(params, batch, optimizer, 2, frozen=('in/',))
  np.testing.assert_array_equal(
    state.params['in']['kernel'], params['in']['kernel']
  )
  assert not np.allclose(state.params['out']['kernel'], params['out']['kernel'])
  assert set(state.opt_state[0].mu) == {'out/kernel'}
  # The norm is that of the trained part alone.
  whole = run(params, batch, optimizer, 1)[1].gradient_norm
  assert 0 < update.gradient_norm < whole


def test_frozen_pattern_without_a_parameter_is_an_error(params):
  with pytest.raises(ValueError, match="'encoder/' matches no parameter"):
    parallel.create_state(
      {'params': params}, optax.sgd(0.1), frozen=('encoder/',)
    )


def test_statistics_are_averaged_over_devices(params, batch):
  start = {'batch_stats': {'mean': np.zeros(3, np.float32)}}
  state, _ = run(params, batch, optax.sgd(0.1), 1, variables=start)
  np.testing.assert_allclose(
    state.model_state['batch_stats']['mean'],
    batch['x'].mean((0, 1)),
    atol=1e-6,
  )


def test_average_of_parameters(params, batch):
  optimizer = optax.sgd(0.1)
  state, _ = run(params, batch, optimizer, 3, ema_decay=0.75)
  average = params
  for n in range(1, 4):
    current, _ = expected_params(params, batch, optimizer, n)
    average = jax.tree.map(lambda a, p: 0.75 * a + 0.25 * p, average, current)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
    state.variables['params'],
    average,
  )


def test_nothing_compiles_after_the_first_step(params, batch, caplog):
  optimizer = optax.adam(0.1)
  state = parallel.create_state({'params': params}, optimizer)
  step = parallel.train_step(loss_fn, count, optimizer)
  key = parallel.replicate(jax.random.key(0))
  state, _ = step(state, parallel.shard(batch), key)
  with jax.log_compiles():
    for _ in range(3):
      state, _ = step(state, parallel.shard(batch), key)
  assert [r for r in caplog.records if 'ompil' in r.message] == []


def test_keys_differ_by_step_device_and_microbatch(params, batch):
  seen = []

  def noisy(variables, batch, counts, step, key):
    loss, (metrics, model_state) = loss_fn(variables, batch, counts, step, key)
    jax.debug.callback(lambda x: seen.append(float(x)), jax.random.uniform(key))
    return loss, (metrics, model_state)

  optimizer = optax.sgd(0.1)
  state = parallel.create_state({'params': params}, optimizer)
  step = parallel.train_step(noisy, count, optimizer, microbatches=2)
  key = parallel.replicate(jax.random.key(0))
  for _ in range(2):
    state, update = step(state, parallel.shard(batch), key)
  jax.block_until_ready(update)
  jax.effects_barrier()
  assert len(seen) == len(set(seen)) == 2 * 2 * 2


def test_eval_step_leaves_out_the_padding(params, batch):
  step = parallel.eval_step(
    lambda variables, batch: Metrics.single_from_model_output(
      loss=squared_error(variables['params'], batch), mask=batch['mask']
    )
  )
  metrics = step(parallel.replicate({'params': params}), parallel.shard(batch))
  losses = np.asarray(squared_error(params, batch))
  np.testing.assert_allclose(
    metrics.compute()['loss'], losses[batch['mask']].mean(), rtol=1e-6
  )


def test_predict_step_keeps_the_order(params, batch):
  step = parallel.predict_step(
    lambda variables, batch: predict(variables['params'], batch['x'])
  )
  outputs = step(parallel.replicate({'params': params}), parallel.shard(batch))
  np.testing.assert_allclose(outputs, predict(params, batch['x']), rtol=1e-5)


def test_sample_step_has_a_key_for_each_step_device_and_part(
  params, batch, caplog
):
  step = parallel.sample_step(
    lambda variables, batch, part, key: {
      'noise': jax.random.uniform(key, (1,)),
      'y': predict(variables['params'], batch['x'])[part][None],
    }
  )
  variables = parallel.replicate({'params': params})
  key = parallel.replicate(jax.random.key(0))
  sharded = parallel.shard(batch)

  def run(number, part):
    return jax.device_get(step(variables, sharded, key, number, part))

  first = run(0, 0)
  with jax.log_compiles():
    outputs = {(n, part): run(n, part) for n in range(3) for part in range(2)}
  assert [r for r in caplog.records if 'ompil' in r.message] == []
  noise = np.concatenate([x['noise'] for x in outputs.values()]).ravel()
  assert len(noise) == len(set(noise.tolist())) == 3 * 2 * 2
  np.testing.assert_array_equal(first['noise'], outputs[0, 0]['noise'])
  expected = predict(params, batch['x']).reshape(2, 4, 5, 1)
  for (_, part), output in outputs.items():
    np.testing.assert_allclose(output['y'][:, 0], expected[:, part], rtol=1e-5)


def test_prefetch_gives_every_batch_once_in_order(batch):
  batches = [{'x': np.full((2, 1), i)} for i in range(5)]
  seen = [int(host['x'][0, 0]) for host, _ in parallel.prefetch(batches)]
  assert seen == [0, 1, 2, 3, 4]


def test_microbatches_that_do_not_divide_the_batch(params, batch):
  with pytest.raises(ValueError, match='microbatches=3 do not divide the 4'):
    run(params, batch, optax.sgd(0.1), 1, microbatches=3)


def test_batch_that_cannot_be_shared_out_is_an_error():
  with pytest.raises(ValueError, match='batch_size=3 must be a multiple'):
    parallel.local_batch_size(3)
