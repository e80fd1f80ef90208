"""Schedules and clipping against numbers worked out by hand."""

import jax
import ml_collections
import numpy as np
import optax
import pytest

from training import optimizers

BASE = dict(
  kind='adam',
  learning_rate=0.1,
  schedule='constant',
  warmup_steps=0,
  b1=0.9,
  b2=0.999,
  epsilon_hat=False,
  momentum=0.0,
  nesterov=False,
  rms_decay=0.99,
  epsilon=1e-8,
  weight_decay=0.0,
  clip_norm=0.0,
  clip_value=0.0,
  rates=(),
)


def config(**changes):
  return ml_collections.ConfigDict({**BASE, **changes})


def test_cosine_with_warmup():
  rate = optimizers.schedule(config(schedule='cosine', warmup_steps=10), 110)
  assert rate(0) == 0
  np.testing.assert_allclose(rate(5), 0.05, rtol=1e-6)
  np.testing.assert_allclose(rate(10), 0.1, rtol=1e-6)
  np.testing.assert_allclose(rate(60), 0.05, rtol=1e-5)
  np.testing.assert_allclose(rate(110), 0, atol=1e-8)


def test_staircase():
  rate = optimizers.schedule(
    config(schedule='staircase', decay_rate=0.8, decay_steps=3), 100
  )
  np.testing.assert_allclose(
    [rate(i) for i in (0, 2, 3, 5, 6)],
    [0.1, 0.1, 0.08, 0.08, 0.064],
    rtol=1e-6,
  )


def test_exponential_to_a_floor():
  rate = optimizers.schedule(
    config(schedule='exponential', decay_rate=0.9, final_learning_rate=0.01),
    100,
  )
  np.testing.assert_allclose(
    [rate(i) for i in (0, 1, 2, 1000)],
    [0.1, 0.01 + 0.09 * 0.9, 0.01 + 0.09 * 0.81, 0.01],
    rtol=1e-6,
  )


def test_the_published_schedule_is_that_of_sketch_rnns_code(golden_file):
  rate = optimizers.schedule(
    config(schedule='published', learning_rate=1e-3), 100
  )
  with np.load(golden_file('sketch_rnn/tf1_utils.npz')) as golden:
    np.testing.assert_allclose(
      [rate(step) for step in golden['sched/step']],
      golden['sched/lr'],
      rtol=1e-5,
    )


def test_epsilon_hat():
  """Adam as in the last paragraph of section 2 of its paper, two steps."""
  gradients = [np.array([1e-8, 3e-7, -2.0]), np.array([2e-8, -1e-7, 1.0])]
  optimizer, _ = optimizers.create(config(epsilon_hat=True), 10)
  params = np.zeros(3, np.float32)
  state = optimizer.init(params)
  m = v = 0.0
  for t, gradient in enumerate(gradients, 1):
    m = 0.9 * m + 0.1 * gradient
    v = 0.999 * v + 0.001 * gradient**2
    rate = 0.1 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    update, state = optimizer.update(gradient.astype(np.float32), state, params)
    np.testing.assert_allclose(
      update, -rate * m / (np.sqrt(v) + 1e-8), rtol=1e-4
    )


def torch_sgd(p, g, state, *, lr, momentum, nesterov, weight_decay):
  """torch.optim.SGD: its loop over the parameters, without dampening."""
  g = g + weight_decay * p
  if momentum:
    # The first buffer is the gradient itself.
    state['b'] = momentum * state['b'] + g if 'b' in state else g
    g = g + momentum * state['b'] if nesterov else state['b']
  return p - lr * g


def torch_rmsprop(p, g, state, *, lr, decay, epsilon, momentum, weight_decay):
  """torch.optim.RMSprop, with its `alpha` as the decay."""
  g = g + weight_decay * p
  state['v'] = decay * state.get('v', 0) + (1 - decay) * g**2
  average = np.sqrt(state['v']) + epsilon  # Outside of the root.
  if not momentum:
    return p - lr * g / average
  state['b'] = momentum * state.get('b', 0) + g / average
  return p - lr * state['b']


def graves(p, g, state, *, lr, decay, epsilon, momentum):
  """`rmsprop` of the published code of Xu et al. 2015."""
  state['m'] = decay * state.get('m', 0) + (1 - decay) * g
  state['n'] = decay * state.get('n', 0) + (1 - decay) * g**2
  direction = g / np.sqrt(state['n'] - state['m'] ** 2 + epsilon)
  state['b'] = momentum * state.get('b', 0) - lr * direction
  return p + state['b']


@pytest.mark.parametrize(
  ('kind', 'equations', 'fields'),
  [
    ('sgd', torch_sgd, dict(momentum=0.0, nesterov=False, weight_decay=0.0)),
    ('sgd', torch_sgd, dict(momentum=0.9, nesterov=False, weight_decay=0.1)),
    ('sgd', torch_sgd, dict(momentum=0.9, nesterov=True, weight_decay=0.1)),
    (
      'rmsprop',
      torch_rmsprop,
      dict(rms_decay=0.9, epsilon=1e-2, momentum=0.0, weight_decay=0.1),
    ),
    (
      'rmsprop',
      torch_rmsprop,
      dict(rms_decay=0.99, epsilon=1e-8, momentum=0.9, weight_decay=0.0),
    ),
    (
      'rmsprop_graves',
      graves,
      dict(rms_decay=0.95, epsilon=1e-4, momentum=0.9),
    ),
  ],
)
def test_five_steps_are_those_of_the_equations(kind, equations, fields):
  """In NumPy and double precision, at a rate that changes with the step."""
  rng = np.random.default_rng(0)
  params, *gradients = rng.normal(size=(6, 4))
  gradients[1][:] = 0.0
  optimizer, rate = optimizers.create(
    config(
      kind=kind, schedule='staircase', decay_rate=0.5, decay_steps=2, **fields
    ),
    10,
  )
  ours = {'a': params.astype(np.float32)}
  opt_state, state = optimizer.init(ours), {}
  for step, gradient in enumerate(gradients):
    arguments = {k.replace('rms_', ''): x for k, x in fields.items()}
    params = equations(
      params, gradient, state, lr=0.1 * 0.5 ** (step // 2), **arguments
    )
    updates, opt_state = optimizer.update(
      {'a': gradient.astype(np.float32)}, opt_state, ours
    )
    ours = optax.apply_updates(ours, updates)
    np.testing.assert_allclose(ours['a'], params, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('hat', [False, True])
def test_epsilon_of_adam(hat):
  optimizer, _ = optimizers.create(config(epsilon=1e-3, epsilon_hat=hat), 10)
  params = {'a': np.zeros(1, np.float32)}
  g = 2e-3
  updates, _ = optimizer.update(
    {'a': np.array([g], np.float32)}, optimizer.init(params), params
  )
  epsilon = 1e-3 / np.sqrt(1 - 0.999) if hat else 1e-3
  np.testing.assert_allclose(updates['a'], -0.1 * g / (g + epsilon), rtol=1e-4)


def test_unknown_kind():
  with pytest.raises(ValueError, match="kind='adagrad' is none of adam, sgd"):
    optimizers.create(config(kind='adagrad'), 10)


def test_unknown_schedule():
  with pytest.raises(ValueError, match="schedule='linear' is none of"):
    optimizers.schedule(config(schedule='linear'), 10)


def adam_first_step(gradient, decay=0.0, param=0.0):
  """-lr (g / (|g| + eps) + decay * param), Kingma and Ba 2015 at t = 1."""
  return -0.1 * (gradient / (np.abs(gradient) + 1e-8) + decay * param)


@pytest.mark.parametrize(
  ('changes', 'scale'),
  [
    ({}, [3e-8, 4e-8]),
    # Clipped to norm 1e-8, which Adam's epsilon makes visible.
    ({'clip_norm': 1e-8}, [0.6e-8, 0.8e-8]),
    ({'clip_value': 3.5e-8}, [3e-8, 3.5e-8]),
  ],
)
def test_first_update(changes, scale):
  optimizer, _ = optimizers.create(config(**changes), 10)
  params = {'a': np.zeros(2, np.float32)}
  gradient = {'a': np.array([3e-8, 4e-8], np.float32)}
  updates, _ = optimizer.update(gradient, optimizer.init(params), params)
  np.testing.assert_allclose(
    updates['a'], adam_first_step(np.array(scale)), rtol=1e-4
  )


def test_weight_decay_is_decoupled():
  optimizer, _ = optimizers.create(config(weight_decay=0.5), 10)
  params = {'a': np.array([2.0], np.float32)}
  updates, _ = optimizer.update(
    {'a': np.array([1.0], np.float32)}, optimizer.init(params), params
  )
  np.testing.assert_allclose(
    updates['a'], adam_first_step(np.array([1.0]), 0.5, 2.0), rtol=1e-5
  )


def test_partition_and_merge():
  params = {'a': {'x': 1, 'y': 2}, 'ab': {'x': 3}}
  trained, frozen = optimizers.partition(params, ('a/', 'ab/x'))
  assert (trained, frozen) == ({}, {'a/x': 1, 'a/y': 2, 'ab/x': 3})
  trained, frozen = optimizers.partition(params, ('.*y',))
  assert frozen == {'a/y': 2}
  assert optimizers.merge(trained, frozen) == params


def run(changes, gradients, params):
  """The parameters after these gradients, flat by path."""
  optimizer, _ = optimizers.create(config(**changes), 10)
  state = optimizer.init(params)
  for gradient in gradients:
    updates, state = optimizer.update(gradient, state, params)
    params = {path: x + updates[path] for path, x in params.items()}
  return params


def test_rates_are_optimizers_of_their_own():
  """Each path has the learning rate that an optimiser for it alone would."""
  rng = np.random.default_rng(0)
  paths = ('encoder/conv1', 'encoder/layer1/conv', 'decoder/encoder/x', 'b')
  params, *gradients = (
    {path: rng.normal(size=3).astype(np.float32) for path in paths}
    for _ in range(5)
  )
  common = dict(weight_decay=0.1, schedule='cosine', warmup_steps=2)
  got = run(
    dict(common, rates=(('encoder/', 0.1), ('.*conv$', 0.5), ('b', 0.0))),
    gradients,
    params,
  )
  factors = dict(zip(paths, (0.1, 0.05, 1.0, 0.0), strict=True))
  for path, factor in factors.items():
    if path == 'encoder/conv1':
      factor = 0.1  # conv1 does not end in conv.
    alone = run(
      dict(common, learning_rate=0.1 * factor),
      [{path: gradient[path]} for gradient in gradients],
      {path: params[path]},
    )
    np.testing.assert_allclose(got[path], alone[path], rtol=1e-5)
  np.testing.assert_array_equal(got['b'], params['b'])


def test_no_rates_are_the_same_optimizer():
  """So that checkpoints of runs without them can be restored."""
  params = {'a': np.zeros(3, np.float32)}
  plain, _ = optimizers.create(config(), 10)
  rated, _ = optimizers.create(config(rates=(('a', 1.0),)), 10)
  leaves = [len(jax.tree.leaves(x.init(params))) for x in (plain, rated)]
  assert leaves[0] == leaves[1]


def test_a_rate_for_nothing_is_an_error():
  with pytest.raises(ValueError, match="rates: 'x' matches no .* are: a, b"):
    run(dict(rates=(('x', 0.1),)), [{'a': 0.0, 'b': 0.0}], {'a': 0.0, 'b': 0.0})
