"""The captioners are the papers' equations, however they are run."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from captioning import inference
from captioning import main
from captioning import model
from captioning import vocabulary
from configs import scenes
from recurrent import search
from training import parallel

V, L, D, T = 11, 4, 3, 6
MODELS = tuple(model.DECODERS)
FORBID = (vocabulary.PAD_ID, vocabulary.BOS_ID, vocabulary.UNK_ID)


def small_config(name='show_attend_tell', **decoder):
  config = scenes.get_config()
  config.model = name
  sizes = dict(features=5, embedding=7, dropout_rate=0.0)
  if name == 'show_attend_tell':
    sizes['attention'] = 6
  with config.unlocked():
    config.decoder = {**sizes, **decoder}
  config.encoder = dict(depth=18, width=2, small_inputs=True)
  config.loss.attention_penalty = 0.3
  config.decoding.max_length = T
  return config


def create(config):
  """The captioner of grids, and variables far from their initial symmetry.

  With this seed, captions differ and some of them end.
  """
  captioner = model.create(config, V, with_encoder=False)
  example = {'picture': np.ones((L, D)), 'tokens': np.ones((1, 2), np.int32)}
  rng = np.random.default_rng(13)
  variables = jax.tree.map(
    lambda x: (1.2 * rng.normal(size=x.shape)).astype(np.float32),
    main.initial_variables(captioner, example, config),
  )
  return captioner, variables


def teacher_forced(captioner, variables, grids, tokens):
  """Logits f32[B, K, T, V] and attention f32[B, K, T, L] or None."""
  return jax.jit(captioner.apply, static_argnames='train')(
    variables, grids, tokens, train=False
  )


@pytest.fixture
def grids():
  shape = (4, L, D)
  return np.random.default_rng(2).normal(size=shape).astype(np.float32)


@pytest.fixture
def tokens():
  """i32[4, 2, T]: words, EOS, padding; lengths differ."""
  rng = np.random.default_rng(3)
  ids = rng.integers(len(vocabulary.SPECIAL), V, (4, 2, T)).astype(np.int32)
  ends = np.array([[1, 5], [3, 2], [4, 0], [2, 5]])[..., None]
  ids[np.arange(T) == ends] = vocabulary.EOS_ID
  ids[np.arange(T) > ends] = vocabulary.PAD_ID
  return ids


# The papers' equations, for one caption of one picture, in float64.


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def softmax(x):
  x = np.exp(x - x.max())
  return x / x.sum()


def dense(p, x):
  return x @ p['kernel'] + p.get('bias', 0)


def lstm(p, c, h, drive):
  gates = drive + h @ p['recurrent']['kernel']
  i, f, g, o = np.split(gates, 4)
  c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
  return c, sigmoid(o) * np.tanh(c)


def show_and_tell(p, grid, words):
  """f64[L, D], the words from BOS on -> f64[T, V], None."""
  zeros = np.zeros(p['cell']['recurrent']['kernel'].shape[0])
  image = grid.mean(0) @ p['image']['kernel']
  c, h = lstm(p['cell'], zeros, zeros, dense(p['cell']['input'], image))
  logits = []
  for word in words:
    x = p['words']['embedding'][word]
    c, h = lstm(p['cell'], c, h, dense(p['cell']['input'], x))
    logits.append(dense(p['output'], h))
  return np.stack(logits), None


def show_attend_tell(p, grid, words):
  """f64[L, D], the words from BOS on -> f64[T, V], alpha f64[T, L]."""
  mean = grid.mean(0)
  layers = [name for name in sorted(p) if name.startswith('init_hidden')]
  for name in layers:
    mean = np.maximum(dense(p[name], mean), 0)
  c, h = np.split(np.tanh(dense(p['init_state'], mean)), 2)
  attend = p['attend']
  logits, attention = [], []
  for word in words:
    e = np.zeros(len(grid))
    for i, a in enumerate(grid):
      key = dense(attend['key_layers_0'], a)
      if 'key_layers_1' in attend:
        key = np.tanh(dense(attend['key_layers_1'], key))
      query = h @ attend['query']['kernel']
      e[i] = (np.tanh(key + query) @ attend['score']['kernel'])[0]
    alpha = softmax(e)
    beta = sigmoid(dense(p['beta'], h))
    z = beta * sum(w * a for w, a in zip(alpha, grid, strict=True))
    ey = p['words']['embedding'][word]
    drive = dense(p['cell']['input'], ey) + z @ p['context_gates']['kernel']
    c, h = lstm(p['cell'], c, h, drive)
    deep = ey + dense(p['output_hidden'], h)
    deep = np.tanh(deep + z @ p['output_context']['kernel'])
    logits.append(dense(p['output'], deep))
    attention.append(alpha)
  return np.stack(logits), np.stack(attention)


EQUATIONS = {
  'show_and_tell': show_and_tell,
  'show_attend_tell': show_attend_tell,
}


def expected(name, variables, grids, tokens):
  """f[B, L, D], i32[B, K, T] -> f64[B, K, T, V], f64[B, K, T, L] or None."""
  p = jax.tree.map(np.float64, variables['params']['decoder'])
  logits = np.zeros((*tokens.shape, V))
  attention = np.zeros((*tokens.shape, L))
  for b, k in np.ndindex(tokens.shape[:2]):
    words = [vocabulary.BOS_ID, *tokens[b, k, :-1]]
    grid = grids[b].astype(np.float64)
    logits[b, k], attention[b, k] = EQUATIONS[name](p, grid, words)
  return logits, attention if name == 'show_attend_tell' else None


def log_softmax(x):
  return x - np.log(np.exp(x).sum(-1, keepdims=True))


def expected_losses(name, variables, grids, tokens):
  """Cross-entropy, zero on the padding: f64[B, K, T]; and the attention."""
  logits, attention = expected(name, variables, grids, tokens)
  chosen = np.take_along_axis(log_softmax(logits), tokens[..., None], -1)
  return -chosen[..., 0] * (tokens != vocabulary.PAD_ID), attention


def expected_loss(variables, grids, tokens, config):
  """Equation 14 of Xu et al. for a batch: f64[]."""
  losses, attention = expected_losses(config.model, variables, grids, tokens)
  mask = tokens != vocabulary.PAD_ID
  num_captions = tokens.shape[0] * tokens.shape[1]
  per = {'token': mask.sum(), 'caption': num_captions}
  loss = losses.sum() / per[config.loss.per]
  if attention is not None:
    looked = (attention * mask[..., None]).sum(2)
    reduce = {'sum': np.sum, 'mean': np.mean}[config.loss.penalty_reduction]
    penalty = reduce((1 - looked) ** 2, axis=-1)
    loss += config.loss.attention_penalty * penalty.sum() / num_captions
  return loss


def make_loss(captioner, config):
  """variables, grids, tokens -> f32[], what `main` minimises on one device."""
  loss_fn = main.make_loss(captioner, config.loss)

  def loss(variables, grids, tokens):
    batch = {'picture': grids, 'tokens': tokens}
    return loss_fn(variables, batch, main.counts(batch), 0, jax.random.key(0))[
      0
    ]

  return loss


@pytest.mark.parametrize(
  ('name', 'decoder'),
  [
    ('show_and_tell', {}),
    ('show_attend_tell', {}),
    ('show_attend_tell', dict(attention_layers=2, init_layers=1)),
  ],
)
def test_decoders_equal_the_equations(name, decoder, grids, tokens):
  captioner, variables = create(small_config(name, **decoder))
  logits, attention = teacher_forced(captioner, variables, grids, tokens)
  wanted, wanted_attention = expected(name, variables, grids, tokens)
  np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-5)
  if wanted_attention is None:
    assert attention is None
  else:
    np.testing.assert_allclose(attention, wanted_attention, 1e-4, 1e-6)
    np.testing.assert_allclose(np.sum(attention, -1), 1, rtol=1e-6)
    assert attention.std() > 0.05, 'uniform attention would test nothing'


@pytest.mark.parametrize('name', MODELS)
def test_unrolled_equals_stepped(name, grids, tokens):
  captioner, variables = create(small_config(name))
  unrolled, _ = teacher_forced(captioner, variables, grids, tokens)
  carry, context = captioner.apply(variables, grids, method='begin')
  carry = jax.tree.map(lambda x: jnp.repeat(x, tokens.shape[1], 1), carry)
  word = np.full_like(tokens[..., 0], vocabulary.BOS_ID)
  step = jax.jit(lambda *args: captioner.apply(variables, *args, method='step'))
  for t in range(T):
    carry, logits = step(carry, word, context)
    np.testing.assert_allclose(logits, unrolled[:, :, t], rtol=1e-4, atol=1e-5)
    word = tokens[..., t]


@pytest.mark.parametrize('name', MODELS)
def test_captions_of_a_picture_do_not_see_each_other(name, grids, tokens):
  captioner, variables = create(small_config(name))
  together, _ = teacher_forced(captioner, variables, grids, tokens)
  for k in range(tokens.shape[1]):
    alone, _ = teacher_forced(captioner, variables, grids, tokens[:, k : k + 1])
    np.testing.assert_allclose(together[:, k], alone[:, 0], rtol=1e-5)


def describe(captioner, variables, grids, config):
  """The search of evaluation: i32[B, T], f32[B]."""
  step = inference.describe_step(captioner, config.decoding)
  return step(parallel.replicate(variables), parallel.shard({'picture': grids}))


@pytest.mark.parametrize('name', MODELS)
def test_log_prob_of_a_caption_is_its_cross_entropy(name, grids):
  config = small_config(name)
  captioner, variables = create(config)
  tokens, log_probs = describe(captioner, variables, grids, config)
  assert len(np.unique(tokens, axis=0)) > 1, 'captions depend on the picture'
  assert (tokens == vocabulary.EOS_ID).any()
  assert not np.isin(tokens, FORBID[1:]).any()
  losses, _ = expected_losses(name, variables, grids, tokens[:, None])
  np.testing.assert_allclose(log_probs, -losses.sum((1, 2)), rtol=1e-4)


@pytest.mark.parametrize('name', MODELS)
def test_one_beam_is_greedy(name, grids):
  config = small_config(name)
  captioner, variables = create(config)
  config.decoding.beam_size = 1
  carry, context = captioner.apply(variables, grids, method='begin')
  greedy = jax.jit(
    lambda carry: search.greedy(
      lambda carry, tokens: captioner.apply(
        variables, carry, tokens, context, method='step'
      ),
      carry,
      bos=vocabulary.BOS_ID,
      eos=vocabulary.EOS_ID,
      max_length=T,
      forbid=FORBID,
    )
  )(carry)
  tokens, log_probs = describe(captioner, variables, grids, config)
  np.testing.assert_array_equal(tokens, greedy.tokens[:, 0])
  np.testing.assert_allclose(log_probs, greedy.log_probs[:, 0], rtol=1e-5)


@pytest.mark.parametrize('name', MODELS)
def test_bfloat16_is_close_and_keeps_float32_parameters(name, grids, tokens):
  config = small_config(name)
  captioner, variables = create(config)
  config.dtype = 'bfloat16'
  half, own = create(config)
  assert {x.dtype for x in jax.tree.leaves(own)} == {np.dtype(np.float32)}
  gradient = jax.jit(jax.grad(make_loss(half, config)))(
    variables, grids, tokens
  )
  assert {x.dtype for x in jax.tree.leaves(gradient)} == {jnp.dtype('float32')}
  exact, _ = teacher_forced(captioner, variables, grids, tokens)
  close, _ = teacher_forced(half, variables, grids, tokens)
  assert close.dtype == np.float32
  distance = np.abs(close - exact).max()
  assert 0 < distance < 0.03 * np.abs(exact).max()


@pytest.mark.parametrize('name', MODELS)
@pytest.mark.parametrize('per', ['token', 'caption'])
@pytest.mark.parametrize('reduction', ['sum', 'mean'])
def test_loss_equals_the_equation(name, per, reduction, grids, tokens):
  config = small_config(name)
  config.loss.update(per=per, penalty_reduction=reduction)
  captioner, variables = create(config)
  np.testing.assert_allclose(
    jax.jit(make_loss(captioner, config))(variables, grids, tokens),
    expected_loss(variables, grids, tokens, config),
    rtol=1e-5,
  )


@pytest.mark.parametrize('name', MODELS)
def test_gradient_equals_finite_differences_of_the_equations(
  name, grids, tokens
):
  """Along a random direction of every parameter, penalty included."""
  config = small_config(name)
  captioner, variables = create(config)
  gradient = jax.jit(jax.grad(make_loss(captioner, config)))(
    variables, grids, tokens
  )
  leaves, tree = jax.tree.flatten(variables)
  rng = np.random.default_rng(4)
  for i, (leaf, got) in enumerate(
    zip(leaves, jax.tree.leaves(gradient), strict=True)
  ):
    direction = rng.normal(size=leaf.shape)

    def at(distance, i=i, leaf=leaf, direction=direction):
      moved = [*leaves]
      moved[i] = leaf + distance * direction
      moved = jax.tree.unflatten(tree, moved)
      return expected_loss(moved, grids, tokens, config)

    slope = (at(1e-5) - at(-1e-5)) / 2e-5
    np.testing.assert_allclose(
      np.sum(got * direction), slope, rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize('name', MODELS)
def test_padding_changes_neither_loss_nor_gradient(name, grids, tokens):
  config = small_config(name)
  captioner, variables = create(config)
  step = jax.jit(jax.value_and_grad(make_loss(captioner, config)))
  loss, gradient = step(variables, grids, tokens)
  longer = np.pad(tokens, ((0, 0), (0, 0), (0, 3)))
  loss_longer, gradient_longer = step(variables, grids, longer)
  np.testing.assert_allclose(loss_longer, loss, rtol=1e-6)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6),
    gradient_longer,
    gradient,
  )
  words = gradient['params']['decoder']['words']['embedding']
  np.testing.assert_array_equal(words[vocabulary.PAD_ID], 0)
  assert np.abs(words[vocabulary.BOS_ID]).max() > 0


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'per': 'word'}, "per='word' must be 'caption' or 'token'"),
    ({'penalty_reduction': 'max'}, "reduction='max' is none of sum, mean"),
  ],
)
def test_unknown_options_of_the_loss_are_errors(options, message):
  config = small_config()
  config.loss.update(options)
  with pytest.raises(ValueError, match=message):
    main.make_loss(model.create(config, V), config.loss)


def test_unknown_model_is_an_error():
  config = small_config()
  config.model = 'tell'
  with pytest.raises(ValueError, match='none of show_and_tell, show_attend_'):
    model.create(config, V)


# The whole captioner, encoder included.


def whole(config):
  """The captioner of pictures, its first variables, and a batch."""
  captioner = model.create(config, V)
  rng = np.random.default_rng(5)
  coarse = rng.integers(0, 256, (4, 4, 4, 3), np.uint8)
  pictures = coarse.repeat(4, 1).repeat(4, 2)
  tokens = rng.integers(len(vocabulary.SPECIAL), V, (4, 2, 3)).astype(np.int32)
  # The devices have different numbers of words.
  tokens[0, :, 2] = vocabulary.PAD_ID
  example = {'picture': pictures[0], 'tokens': tokens[0]}
  variables = main.initial_variables(captioner, example, config)
  batch = {'picture': pictures, 'tokens': tokens}
  return captioner, jax.tree.map(np.asarray, variables), batch


def split(variables):
  statistics = dict(variables)
  return statistics.pop('params'), statistics


@pytest.fixture(scope='module')
def trained():
  """What one step on two devices makes; the stem and layer1 are frozen."""
  assert jax.device_count() == 2
  config = small_config()
  config.encoder.freeze_at = 2
  captioner, variables, batch = whole(config)
  optimizer = optax.sgd(0.1)
  step = parallel.train_step(
    main.make_loss(captioner, config.loss), main.counts, optimizer
  )
  state, update = step(
    parallel.create_state(variables, optimizer),
    parallel.shard(batch),
    parallel.replicate(jax.random.key(0)),
  )
  return config, captioner, variables, batch, state, update


def test_two_devices_train_the_encoder_as_one_does(trained):
  """The statistics of a batch are those of all devices together."""
  config, captioner, variables, batch, state, update = trained
  alone = captioner.clone(encoder=captioner.encoder.clone(norm_axis_name=None))
  loss_fn = main.make_loss(alone, config.loss)

  @jax.jit
  def one_device(params, statistics):
    def loss(params):
      return loss_fn(
        {'params': params, **statistics},
        batch,
        main.counts(batch),
        0,
        jax.random.key(0),
      )

    (value, (_, statistics)), gradient = jax.value_and_grad(loss, has_aux=True)(
      params
    )
    params = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)
    return value, params, statistics

  loss, params, statistics = one_device(*split(variables))
  np.testing.assert_allclose(update.objective, loss, rtol=1e-5)

  def assert_close(path, got, wanted):
    np.testing.assert_allclose(
      got, wanted, rtol=1e-3, atol=1e-5, err_msg=jax.tree_util.keystr(path)
    )

  jax.tree.map_with_path(assert_close, state.params, params)
  jax.tree.map_with_path(assert_close, state.statistics, statistics)


def test_the_running_statistics_of_frozen_parts_stay(trained):
  _, _, variables, _, state, _ = trained
  params, statistics = split(variables)
  for before, after in (
    (params['encoder'], state.params['encoder']),
    (
      statistics['batch_stats']['encoder'],
      state.statistics['batch_stats']['encoder'],
    ),
  ):
    same = jax.tree.map(np.array_equal, after, before)
    for part, tree in same.items():
      frozen = part in ('conv1', 'bn1', 'layer1')
      assert set(jax.tree.leaves(tree)) == {frozen}, part


def test_published_statistics_stay_in_training():
  config = small_config()
  config.train_statistics = False
  captioner, variables, batch = whole(config)
  loss_fn = main.make_loss(captioner, config.loss)
  _, (_, updated) = jax.jit(loss_fn)(
    variables, batch, main.counts(batch), 0, jax.random.key(0)
  )
  _, statistics = split(variables)
  jax.tree.map(np.testing.assert_array_equal, updated, statistics)
