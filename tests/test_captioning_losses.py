"""The losses are their papers' equations; estimators have the right mean."""

import functools
import itertools

import captioners
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats
from captioners import MODELS
from captioners import V

from captioning import losses
from captioning import model
from captioning import show_attend_tell
from captioning import vocabulary
from recurrent import likelihood

BOS, EOS, PAD = vocabulary.BOS_ID, vocabulary.EOS_ID, vocabulary.PAD_ID


@pytest.fixture
def features():
  return captioners.make_features()


@pytest.fixture
def tokens():
  return captioners.make_tokens()


def loss_of(captioner, config):
  """What one device computes of a batch, compiled.

  A function that returns the loss f32[], the gradient of the parameters, the
  metrics and the statistics.
  """
  loss_fn = losses.create(captioner, config.loss)

  @jax.jit
  def value_and_grad(variables, batch, step, key):
    def loss(params):
      return loss_fn(
        {**variables, 'params': params},
        batch,
        losses.counts(batch),
        step,
        key,
      )

    return jax.value_and_grad(loss, has_aux=True)(variables['params'])

  def run(variables, features, tokens, step=0, key=0, **batch):
    batch = {'features': features, 'tokens': tokens, **batch}
    (loss, (metrics, initial_model_state)), gradient = value_and_grad(
      variables, batch, step, jax.random.key(key)
    )
    return loss, gradient, metrics.compute(), initial_model_state

  return run


def run(captioner, config, *args, **kwargs):
  """`loss_of`, once."""
  return loss_of(captioner, config)(*args, **kwargs)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'per': 'word'}, "per='word' must be 'caption' or 'token'"),
    ({'penalty_reduction': 'max'}, "reduction='max' is none of sum, mean"),
  ],
)
def test_unknown_options_are_errors(options, message):
  config = captioners.small_config()
  config.loss.update(options)
  with pytest.raises(ValueError, match=message):
    losses.create(model.create(config, V), config.loss)


# Label smoothing, and weights of captions.


@pytest.mark.parametrize('smoothing', [0.0, 0.1, 1.0])
def test_cross_entropy_equals_optax(smoothing, tokens):
  logits = 3 * jax.random.normal(jax.random.key(0), (*tokens.shape, V))
  targets = optax.smooth_labels(jax.nn.one_hot(tokens, V), smoothing)
  np.testing.assert_allclose(
    likelihood.cross_entropy(logits, tokens, smoothing=smoothing),
    optax.softmax_cross_entropy(logits, targets),
    rtol=1e-5,
    atol=1e-6,
  )


def test_label_smoothing_mixes_the_losses_of_all_words(features, tokens):
  """And the metrics stay those of the words."""
  config = captioners.small_config('show_and_tell')
  captioner, variables = captioners.create(config)
  plain, _, metrics, _ = run(captioner, config, variables, features, tokens)
  config.loss.label_smoothing = 0.2
  loss, _, smoothed, _ = run(captioner, config, variables, features, tokens)
  logits, _ = captioners.apply(
    captioner, variables, features, tokens, train=False
  )
  mask = tokens != PAD
  uniform = np.mean(-jax.nn.log_softmax(logits), -1)[mask].mean()
  np.testing.assert_allclose(loss, 0.8 * plain + 0.2 * uniform, rtol=1e-5)
  assert smoothed == metrics
  np.testing.assert_allclose(metrics['loss'], plain, rtol=1e-5)


def test_an_advantage_weights_the_captions(features, tokens):
  """Loss and gradient are linear in it; the metrics leave it out."""
  config = captioners.small_config('att2in')
  config.loss.attention_penalty = 0.0
  captioner, variables = captioners.create(config)
  advantage = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
  weighted = loss_of(captioner, config)
  loss, gradient, metrics, _ = weighted(
    variables, features, tokens, advantage=advantage
  )
  wanted_loss, wanted = 0.0, jax.tree.map(jnp.zeros_like, gradient)
  for b, k in np.ndindex(4, 2):
    chosen = np.zeros((4, 2), np.float32)
    chosen[b, k] = 1
    alone, of_one, own, _ = weighted(
      variables, features, tokens, advantage=chosen
    )
    wanted_loss += advantage[b, k] * alone
    wanted = jax.tree.map(
      lambda x, y, a=advantage[b, k]: x + a * y, wanted, of_one
    )
    assert own == metrics
  np.testing.assert_allclose(loss, wanted_loss, rtol=1e-4)
  captioners.assert_trees_close(gradient, wanted, rtol=1e-3)


# Scheduled sampling.


def scheduled(**fields):
  config = captioners.small_config().loss
  config.scheduled_sampling.update(fields)
  return config.scheduled_sampling


@pytest.mark.parametrize(
  ('start', 'every', 'step', 'probability'),
  [
    (0, 5, 0, 0.05),
    (0, 5, 4, 0.05),
    (0, 5, 5, 0.1),
    (0, 5, 24, 0.25),
    (0, 5, 1000, 0.25),
    (10, 5, 0, 0),
    (10, 5, 9, 0),
    (10, 5, 10, 0.05),
    (10, 5, 15, 0.1),
    (2, 1, 1, 0),
    (2, 1, 2, 0.05),
    (2, 1, 4, 0.15),
  ],
)
def test_probability_of_scheduled_sampling(start, every, step, probability):
  config = scheduled(
    start=start, every=every, increase=0.05, max_probability=0.25
  )
  np.testing.assert_allclose(
    losses.sampling_probability(config, jnp.int32(step)), probability, rtol=1e-6
  )


@pytest.mark.parametrize('name', ['show_and_tell', 'adaptive'])
def test_scheduled_sampling_before_its_start_is_teacher_forcing(
  name, features, tokens
):
  """With the same dropout."""
  config = captioners.small_config(name, dropout_rate=0.5)
  captioner, variables = captioners.create(config)
  wanted = run(captioner, config, variables, features, tokens, step=9)
  config.loss.scheduled_sampling.update(
    start=10, increase=1.0, max_probability=1.0
  )
  sampled = loss_of(captioner, config)
  got = sampled(variables, features, tokens, step=9)
  captioners.assert_trees_close(got[:2], wanted[:2], rtol=1e-5, atol=1e-6)
  later = sampled(variables, features, tokens, step=10)
  assert abs(later[0] - wanted[0]) > 1e-3


def mix(captioner, variables, features, tokens, probability):
  return captioners.apply(
    captioner,
    variables,
    features,
    tokens,
    None,
    probability,
    jax.random.key(0),
    method='mix',
    rngs=dict(attention=jax.random.key(1)),
  )


def certain(variables):
  """Variables whose decoder hardly draws any word but the likeliest."""
  decoder = variables['params']['decoder']
  output = jax.tree.map(lambda x: 1e4 * x, decoder['output'])
  decoder = {**decoder, 'output': output}
  return {**variables, 'params': {'decoder': decoder}}


def greedy_inputs(captioner, variables, features, shape):
  """BOS and then always the likeliest word: i32[B, K, T]."""
  carry, context = captioners.apply(
    captioner, variables, features, method='begin'
  )
  carry = jax.tree.map(lambda x: jnp.repeat(x, shape[1], 1), carry)
  inputs = [np.full(shape[:2], BOS, np.int32)]
  for _ in range(shape[2] - 1):
    carry, logits = captioners.apply(
      captioner, variables, carry, inputs[-1], context, method='step'
    )
    inputs.append(np.argmax(logits, -1).astype(np.int32))
  return np.stack(inputs, -1)


@pytest.mark.parametrize('name', MODELS)
def test_sampling_with_certainty_is_greedy_decoding(name, features, tokens):
  always = dict(expected=1.0) if name == 'hard' else {}
  config = captioners.small_config(name, **always)
  captioner, variables = captioners.create(config)
  variables = certain(variables)
  soft = captioner
  if name == 'hard':  # Its expectation is soft attention.
    soft = captioner.clone(decoder=captioner.decoder.clone(hard=False))
  wanted = greedy_inputs(soft, variables, features, tokens.shape)
  mixed = mix(captioner, variables, features, tokens, 1.0)
  np.testing.assert_array_equal(mixed, wanted)
  assert len(np.unique(mixed)) > 3, 'BOS and at least three words'
  unmixed = mix(captioner, variables, features, tokens, 0.0)
  np.testing.assert_array_equal(unmixed[..., 1:], tokens[..., :-1])
  np.testing.assert_array_equal(unmixed[..., 0], BOS)


def test_the_loss_feeds_what_was_drawn(features, tokens):
  config = captioners.small_config('up_down')
  config.loss.attention_penalty = 0.0
  captioner, variables = captioners.create(config)
  variables = certain(variables)
  inputs = greedy_inputs(captioner, variables, features, tokens.shape)

  def wanted(params):
    logits, _ = captioner.apply(
      {'params': params}, features, tokens, inputs=inputs, train=False
    )
    costs = likelihood.cross_entropy(logits, tokens)
    return jnp.mean(costs, where=tokens != PAD)

  config.loss.scheduled_sampling.update(increase=1.0, max_probability=1.0)
  loss, gradient, _, _ = run(captioner, config, variables, features, tokens)
  wanted, wanted_gradient = jax.jit(jax.value_and_grad(wanted))(
    variables['params']
  )
  np.testing.assert_allclose(loss, wanted, rtol=1e-4)
  scale = max(np.abs(x).max() for x in jax.tree.leaves(wanted_gradient))
  captioners.assert_trees_close(
    gradient, wanted_gradient, rtol=1e-3, atol=1e-4 * scale
  )


def assert_frequencies(counts, probabilities):
  """Counts of independent draws: none is four standard errors off."""
  total = np.sum(counts)
  error = np.sqrt(probabilities * (1 - probabilities) / total)
  assert (np.abs(counts / total - probabilities) <= 4 * error + 1e-9).all()


def test_words_are_drawn_with_their_probability(features, tokens):
  """Three steps, of which each depends on the words drawn before."""
  captioner, variables = captioners.create(captioners.small_config('soft'))
  decoder = variables['params']['decoder']
  decoder['output'] = jax.tree.map(lambda x: 0.3 * x, decoder['output'])
  probability, size = 0.7, 40_000
  given = tokens[1, 0, :3]
  many = np.broadcast_to(given, (1, size, 3))
  mixed = mix(captioner, variables, features[:1], many, probability)
  assert (mixed[..., 0] == BOS).all()

  def after(words):
    """The mixture's probability of the next word, f[V]."""
    padded = np.array([[[*words, PAD]]], np.int32)
    logits, _ = captioners.apply(
      captioner, variables, features[:1], padded, train=False
    )
    probs = probability * jax.nn.softmax(logits[0, 0, -1].astype(float))
    return np.array(probs) + (1 - probability) * np.eye(V)[given[len(words)]]

  second = np.bincount(mixed[0, :, 1], minlength=V)
  assert_frequencies(second, after([]))
  likely = np.argsort(second)[-3:]
  for word in likely:
    third = mixed[0, mixed[0, :, 1] == word, 2]
    assert_frequencies(np.bincount(third, minlength=V), after([word]))
  with pytest.raises(AssertionError):
    assert_frequencies(second, after([given[0]]))


# Hard attention.


def hard_config(**decoder):
  config = captioners.small_config('hard', **decoder)
  config.loss.update(per='caption', attention_penalty=0.0)
  config.loss.hard_attention.update(
    reinforce=0.0, entropy=0.0, baseline_decay=0.9
  )
  return config


def test_hard_attention_that_takes_expectations_is_soft(features, tokens):
  config = hard_config(expected=1.0)
  config.loss.attention_penalty = 0.3
  config.loss.hard_attention.reinforce = 1.0
  captioner, variables = captioners.create(config)
  hard = run(captioner, config, variables, features, tokens)
  soft = captioner.clone(decoder=captioner.decoder.clone(hard=False))
  wanted = run(soft, config, {'params': variables['params']}, features, tokens)
  np.testing.assert_allclose(hard[0], wanted[0], rtol=1e-6)
  captioners.assert_trees_close(hard[1], wanted[1], rtol=1e-5, atol=1e-6)
  assert hard[2] == wanted[2]
  assert wanted[3] == {}


def test_how_often_the_expectation_is_taken(features, tokens):
  """In a part of the batches, then in all of one."""
  captioner, variables = captioners.create(hard_config(expected=0.3))

  @jax.jit
  @jax.vmap
  def log_chosen(key):
    _, y = captioner.apply(
      variables, features, tokens, train=True, rngs={'attention': key}
    )
    return y['log_chosen']

  keys = jax.random.split(jax.random.key(0), 1000)
  zero = np.array(log_chosen(keys)) == 0
  zero = zero.reshape(len(keys), -1)
  share = zero.all(1).mean()
  assert abs(share - 0.3) < 4 * np.sqrt(0.3 * 0.7 / len(keys))
  assert not zero[~zero.all(1)].all(1).any()
  assert zero[~zero.all(1)].mean() < 0.1


@pytest.mark.parametrize('expected', [0.0, 1.0])
def test_the_baseline_follows_the_mean_cost_of_a_word(
  expected, features, tokens
):
  config = hard_config(expected=expected)
  captioner, variables = captioners.create(config)
  variables['baseline']['cost'] = np.float32(3.0)
  compiled = loss_of(captioner, config)
  _, _, _, initial_model_state = compiled(variables, features, tokens, key=4)
  # A caption is one of the batch whatever its length.
  costs = []
  for b, k in np.ndindex(tokens.shape[:2]):
    only = np.where(np.arange(2)[:, None] == k, tokens[b], PAD)
    only = np.where(np.arange(4)[:, None, None] == b, only, PAD)
    _, _, metrics, _ = compiled(variables, features, only, key=4)
    costs.append(metrics['loss'])
  np.testing.assert_allclose(
    initial_model_state['baseline']['cost'],
    0.9 * 3.0 + 0.1 * np.mean(costs),
    rtol=1e-5,
  )
  assert losses.initial_model_state(captioner)['baseline']['cost'] == 0


def test_the_entropy_of_the_weights_is_rewarded(features, tokens):
  """By its own gradient."""
  config = hard_config(expected=1.0)
  captioner, variables = captioners.create(config)
  loss, gradient, _, _ = run(captioner, config, variables, features, tokens)
  config.loss.hard_attention.entropy = 0.7
  more, steeper, _, _ = run(captioner, config, variables, features, tokens)
  soft = captioner.clone(decoder=captioner.decoder.clone(hard=False))

  def entropy(params):
    _, y = soft.apply({'params': params}, features, tokens, train=True)
    summed = jnp.sum(jax.scipy.special.entr(y['attention']), -1)
    return jnp.sum(summed * (tokens != PAD)) / (tokens.shape[0] * 2)

  value, wanted = jax.jit(jax.value_and_grad(entropy))(variables['params'])
  np.testing.assert_allclose(more - loss, -0.7 * value, rtol=1e-4)
  captioners.assert_trees_close(
    jax.tree.map(jnp.subtract, steeper, gradient),
    jax.tree.map(lambda x: -0.7 * x, wanted),
    rtol=1e-3,
  )


# Of one picture, so small that all paths of attention can be listed.

WORDS = np.array([4, 5, EOS, PAD], np.int32)
NUM_WORDS = 3
LOCATIONS = 3


def path_cost(params, grid, path):
  """Xu et al.'s equations with the locations given.

  The decoder's parameters, f32[L, D], one-hot f32[T, L] -> the cost of the
  caption and the log-probability of the path, both f32[].
  """

  def dense(name, x):
    p = params[name]
    return x @ p['kernel'] + p.get('bias', 0)

  attend, cell = params['attend'], params['cell']
  mean = jax.nn.relu(dense('init_hidden_0', grid.mean(0)))
  c, h = jnp.split(jnp.tanh(dense('init_state', mean)), 2)
  keys = grid @ attend['key_layers_0']['kernel']
  keys = keys + attend['key_layers_0']['bias']
  cost = log_prob = 0.0
  for before, word, chosen in zip(
    [BOS, *WORDS], WORDS[:NUM_WORDS], path, strict=False
  ):
    scores = jnp.tanh(keys + h @ attend['query']['kernel'])
    scores = (scores @ attend['score']['kernel'])[:, 0]
    log_prob += chosen @ jax.nn.log_softmax(scores)
    z = jax.nn.sigmoid(dense('beta', h)) * (chosen @ grid)
    x = params['words']['embedding'][before]
    gates = x @ cell['input']['kernel'] + cell['input']['bias']
    gates = gates + h @ cell['recurrent']['kernel'] + dense('context_gates', z)
    i, f, g, o = jnp.split(gates, 4)
    c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    deep = x + dense('output_hidden', h) + dense('output_context', z)
    logits = dense('output', jnp.tanh(deep))
    cost -= jax.nn.log_softmax(logits)[word]
  return cost, log_prob


@pytest.fixture(scope='module')
def toy():
  """The captioner, its parameters, the picture, and the exact gradient."""
  captioner = model.Captioner(
    show_attend_tell.ShowAttendTell(
      vocab_size=6,
      features=3,
      embedding=3,
      attention=3,
      dropout_rate=0.0,
      hard=True,
      expected=0.0,
    )
  )
  rng = np.random.default_rng(0)
  grid = rng.normal(size=(LOCATIONS, 2)).astype(np.float32)
  params = jax.eval_shape(
    lambda: captioner.init(
      jax.random.key(0), grid[None], WORDS[None, None], train=False
    )
  )['params']
  params = jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(np.float32), params
  )
  paths = itertools.product(np.eye(LOCATIONS, dtype=np.float32), repeat=3)
  paths = np.stack([np.stack(path) for path in paths])
  assert len(paths) == LOCATIONS**NUM_WORDS

  @jax.jit
  @jax.value_and_grad
  def expected_cost(params):
    cost, log_prob = jax.vmap(
      lambda path: path_cost(params['decoder'], grid, path)
    )(paths)
    return jnp.exp(log_prob) @ cost

  cost, gradient = expected_cost(params)
  return captioner, params, grid, float(cost), gradient


@functools.cache
def estimator(captioner, reinforce, per):
  """Keys, params, f32[L, D], a baseline -> f32[N, parameters], costs f32[N]."""
  config = hard_config().loss
  config.per = per
  config.hard_attention.reinforce = reinforce
  loss_fn = losses.create(captioner, config)

  def estimate(key, params, grid, baseline):
    batch = {'features': grid[None], 'tokens': WORDS[None, None]}

    def loss(params):
      variables = {'params': params, 'baseline': {'cost': baseline}}
      value, (metrics, _) = loss_fn(
        variables, batch, losses.counts(batch), 0, key
      )
      return value, metrics.loss.total

    gradient, cost = jax.grad(loss, has_aux=True)(params)
    return jax.flatten_util.ravel_pytree(gradient)[0], cost

  return jax.jit(jax.vmap(estimate, in_axes=(0, None, None, None)))


def estimates(toy, *, reinforce, baseline=0.0, per='caption'):
  """The loss's gradient with many keys: f64[N, parameters]; and the costs."""
  captioner, params, grid, _, _ = toy
  keys = jax.random.split(jax.random.key(5), 8192)
  gradients, costs = estimator(captioner, reinforce, per)(
    keys, params, grid, baseline
  )
  return np.asarray(gradients, np.float64), np.asarray(costs)


def z_scores(samples, wanted):
  """How many standard errors the mean is off: f[N, P], f[P] -> f[P]."""
  error = samples.std(0) / np.sqrt(len(samples))
  return np.abs(samples.mean(0) - wanted) / np.maximum(error, 1e-6)


def projected(gradients, toy):
  """All parameters and 20 random directions: f[..., P] -> f[..., P + 20]."""
  exact = jax.flatten_util.ravel_pytree(toy[-1])[0]
  directions = np.random.default_rng(1).normal(size=(len(exact), 20))
  directions /= np.sqrt(len(exact))
  return (
    np.concatenate([gradients, gradients @ directions], axis=-1),
    np.concatenate([exact, exact @ directions]),
  )


def test_the_mean_cost_over_drawn_paths_is_the_expected_cost(toy):
  _, costs = estimates(toy, reinforce=0.0)
  assert z_scores(costs[:, None], toy[3]) < 4


@pytest.mark.parametrize('share_of_cost', [0.0, 1.0])
def test_reinforce_has_the_exact_gradient_as_its_mean(toy, share_of_cost):
  """Whatever the baseline; without the term it is far off.

  The reward is the mean cost of a word, therefore times the number of words.
  """
  baseline = share_of_cost * toy[3] / NUM_WORDS
  gradients, _ = estimates(toy, reinforce=NUM_WORDS, baseline=baseline)
  samples, exact = projected(gradients, toy)
  scores = z_scores(samples, exact)
  assert scores.max() < 4.5, 'of some two hundred numbers'
  assert np.mean(scores**2) < 1.5
  without, _ = estimates(toy, reinforce=0.0)
  samples, exact = projected(without, toy)
  assert z_scores(samples, exact).max() > 20


def test_a_good_baseline_lowers_the_variance(toy):
  mean = toy[3] / NUM_WORDS
  spread = [
    estimates(toy, reinforce=NUM_WORDS, baseline=x)[0].var(0).sum()
    for x in (mean, 0.0, 3 * mean)
  ]
  assert spread[0] < 0.8 * spread[1]
  assert spread[1] < spread[2]


def test_by_token_the_weight_of_reinforce_is_one(toy):
  """The same estimates, divided by the number of words."""
  by_caption, _ = estimates(toy, reinforce=NUM_WORDS, baseline=0.4)
  by_token, _ = estimates(toy, reinforce=1.0, baseline=0.4, per='token')
  np.testing.assert_allclose(
    NUM_WORDS * by_token, by_caption, rtol=1e-4, atol=1e-5
  )


def test_visual_words_are_a_noisy_or_over_the_locations():
  rng = np.random.default_rng(0)
  annotations = rng.normal(size=(3, 4, 5)).astype(np.float32)
  network = model.VisualWords(2)
  variables = network.init(jax.random.key(0), annotations)
  score = jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(np.float32),
    variables['params']['score'],
  )
  variables = {'params': {'score': score}}
  concepts = np.array([-1, -1, -1, -1, 0, -1, 1, 0])
  tokens = np.array(
    [
      [[7, 5, EOS], [5, EOS, PAD]],  # Concept 0 alone.
      [[5, 5, EOS], [5, EOS, PAD]],  # None.
      [[6, 4, EOS], [4, EOS, PAD]],  # Both.
    ]
  )
  present = np.array([[1, 0], [0, 0], [1, 1]])
  logits = annotations.astype(np.float64) @ score['kernel'] + score['bias']
  probability = 1 - np.prod(1 - scipy.special.expit(logits), axis=1)
  expected = -scipy.stats.bernoulli.logpmf(present, probability).sum(-1)
  actual = losses.visual_words_loss(
    network.apply(variables, annotations), tokens, concepts
  )
  np.testing.assert_allclose(actual, expected, rtol=1e-5)
  # Locations that are not there say nothing.
  masked = network.apply(variables, annotations, np.array([4, 2, 3]))
  cut = network.apply(variables, annotations[1:2, :2])
  np.testing.assert_allclose(masked[1:2], cut, rtol=1e-6)


def test_visual_words_add_their_loss_to_that_of_the_words(features, tokens):
  config = captioners.small_config()
  config.loss.visual_words = 0.3
  concepts = np.full(captioners.V, -1)
  concepts[4:6] = 0, 1
  captioner, variables = captioners.create(config)
  plain, *_ = loss_of(captioner, config)(variables, features, tokens)
  detecting = captioner.clone(visual_words=model.VisualWords(2))
  head = {'score': {'kernel': np.ones((captioners.D, 2)), 'bias': np.zeros(2)}}
  variables['params']['visual_words'] = head
  loss_fn = losses.create(detecting, config.loss, concepts)
  batch = {'features': features, 'tokens': tokens}
  both, _ = loss_fn(
    variables, batch, losses.counts(batch), 0, jax.random.key(0)
  )
  log_absent = model.VisualWords(2).apply({'params': head}, features)
  words = losses.visual_words_loss(log_absent, tokens, concepts)
  np.testing.assert_allclose(both, plain + 0.3 * words.mean(), rtol=1e-5)
