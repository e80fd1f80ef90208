"""The captioners are the papers' equations, however they are run."""

import functools
import inspect

import captioners
import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest
from captioners import MODELS
from captioners import T
from captioners import V

from captioning import inference
from captioning import losses
from captioning import model
from captioning import vocabulary
from recurrent import decoder
from recurrent import search
from training import parallel

FORBID = (vocabulary.PAD_ID, vocabulary.BOS_ID, vocabulary.UNK_ID)
LOCATIONS = np.array([2, 4, 3, 1], np.int32)


@pytest.fixture
def features():
  return captioners.make_features()


@pytest.fixture
def tokens():
  return captioners.make_tokens()


def teacher_forced(captioner, variables, features, tokens, num_locations=None):
  """Logits f32[B, K, T, V], and attention f32[B, K, T, L] or None."""
  logits, y = captioners.apply(
    captioner, variables, features, tokens, num_locations, train=False
  )
  return logits, y.get('attention')


def garbage_after(features, num_locations):
  """The same, with large numbers where there is no location."""
  padding = np.arange(features.shape[1]) >= num_locations[:, None]
  return np.where(padding[..., None], np.float32(1e6), features)


# The papers' equations, for one caption of one picture, in float64.


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def relu(x):
  return np.maximum(x, 0)


def softmax(x):
  x = np.exp(x - x.max())
  return x / x.sum()


def dense(p, x):
  return x @ p['kernel'] + p.get('bias', 0)


def zeros(p):
  """h or c before the first step of a cell."""
  return np.zeros(p['recurrent']['kernel'].shape[0])


def lstm(p, c, h, projected):
  gates = projected + h @ p['recurrent']['kernel']
  i, f, g, o = np.split(gates, 4)
  c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
  return c, sigmoid(o) * np.tanh(c)


def maxout_lstm(p, c, h, projected):
  gates = projected + h @ p['recurrent']['kernel']
  i, f, o, *candidates = np.split(gates, 5)
  c = sigmoid(f + 1) * c + sigmoid(i) * np.maximum(*candidates)
  return c, sigmoid(o) * np.tanh(c)


def gru(p, c, h, projected):
  r, z, n = np.split(projected, 3)
  of_r, of_z, of_n = np.split(h @ p['recurrent']['kernel'], 3)
  z = sigmoid(z + of_z)
  n = np.tanh(n + sigmoid(r + of_r) * (of_n + p['candidate_bias']))
  return c, (1 - z) * n + z * h


def cell_of(p):
  """One of the cells, by the number of its gates."""
  units, width = p['recurrent']['kernel'].shape
  return {3: gru, 4: lstm, 5: maxout_lstm}[width // units]


def layers(p):
  """The parameters of all layers, from the bottom."""
  upper = p.get('upper', {})
  return [p['cell'], *(upper[name] for name in sorted(upper))]


def climb(step, layers, states, projected):
  """One step of all layers: the new states (c, h) of each.

  The first reads `projected`, the others the h below.
  """
  found = []
  for p, state in zip(layers, states, strict=True):
    found.append(step(p, *state, projected))
    if len(found) < len(layers):
      projected = dense(layers[len(found)]['input'], found[-1][1])
  return found


def annotate(p, grid):
  """The annotations that attention sees: f64[L, D]."""
  return relu(dense(p['annotation'], grid)) if 'annotation' in p else grid


def attention(p, annotations, h, activation=np.tanh):
  """Bahdanau's weights of the locations: f64[L, D], f64[H] -> f64[L]."""
  e = np.zeros(len(annotations))
  for i, a in enumerate(annotations):
    key = dense(p['key_layers_0'], a)
    if 'key_layers_1' in p:
      key = np.tanh(dense(p['key_layers_1'], key))
    key = activation(key + h @ p['query']['kernel'])
    e[i] = (key @ p['score']['kernel'])[0]
  return softmax(e)


def show_and_tell(p, grid, words):
  """f64[L, D], the words from BOS on -> f64[T, V], None."""
  stack, cell = layers(p), cell_of(p['cell'])
  image = dense(p['image'], grid.mean(0))
  states = [(zeros(layer), zeros(layer)) for layer in stack]
  states = climb(cell, stack, states, dense(p['cell']['input'], image))
  logits = []
  for word in words:
    x = p['words']['embedding'][word]
    states = climb(cell, stack, states, dense(p['cell']['input'], x))
    logits.append(dense(p['output'], states[-1][1]))
  return np.stack(logits), None


def soft(
  p,
  grid,
  words,
  *,
  hard=False,
  attention_activation='tanh',
  init_tanh=True,
):
  """f64[L, D], the words from BOS on -> f64[T, V], alpha f64[T, L]."""
  grid = annotate(p, grid)
  mean = grid.mean(0)
  for name in sorted(p):
    if name.startswith('init_hidden'):
      mean = relu(dense(p[name], mean))
  init = dense(p['init_state'], mean)
  init = np.tanh(init) if init_tanh else init
  stack, cell = layers(p), cell_of(p['cell'])
  parts = np.split(init, init.size // len(zeros(p['cell'])))
  if len(parts) == len(stack):  # Without c.
    states = [(None, h) for h in parts]
  else:
    states = list(zip(parts[::2], parts[1::2], strict=True))
  activation = {'tanh': np.tanh, 'relu': relu}[attention_activation]
  logits, alphas = [], []
  for word in words:
    _, h = states[0]
    alpha = attention(p['attend'], grid, h, activation)
    z = grid[np.argmax(alpha)] if hard else alpha @ grid
    z = sigmoid(dense(p['beta'], h)) * z
    ey = p['words']['embedding'][word]
    projected = dense(p['cell']['input'], ey) + z @ p['context_gates']['kernel']
    states = climb(cell, stack, states, projected)
    _, out = states[-1]
    if 'output_hidden' in p:
      out = ey + dense(p['output_hidden'], out)
      out = np.tanh(out + z @ p['output_context']['kernel'])
    logits.append(dense(p['output'], out))
    alphas.append(alpha)
  return np.stack(logits), np.stack(alphas)


def hard(p, grid, words):
  """The likeliest location is all that is seen (section 4.1)."""
  return soft(p, grid, words, hard=True)


def adaptive(p, grid, words, *, word_relu=False):
  """Lu et al. 2017; the sentinel is where the published code has layers."""
  cell, attend = p['cell'], p['attend']
  v = relu(dense(p['annotation'], grid))
  v_g = relu(dense(p['picture'], grid.mean(0)))
  top, units = layers(p)[-1], len(zeros(cell))
  # The last gate is that of the sentinel.
  gates = jax.tree.map(lambda x: x[..., :-units], top)
  gate = jax.tree.map(lambda x: x[..., -units:], top)
  stack = [*layers(p)[:-1], gates]
  states = [(zeros(layer), zeros(layer)) for layer in stack]
  logits, alphas = [], []
  for word in words:
    ey = p['words']['embedding'][word]
    x = np.concatenate([relu(ey) if word_relu else ey, v_g])
    kernel = [cell[name]['kernel'] for name in ('input', 'constant_input')]
    pre = x @ np.concatenate(kernel) + cell['input']['bias']
    _, before = states[-1]
    states = climb(
      cell_of(gates), stack, states, pre[: stack[0]['input']['bias'].size]
    )
    c, h = states[-1]
    pre = pre if len(stack) == 1 else dense(top['input'], states[-2][1])
    q = pre[-units:] + before @ gate['recurrent']['kernel']
    s = sigmoid(q) * np.tanh(c)  # Equation 10.
    s = relu(dense(p['sentinel'], s))
    state = np.tanh(dense(p['state'], h))
    of_state = state @ attend['query']['kernel']
    z = dense(attend['key_layers_0'], v) + of_state
    z = np.tanh(z) @ attend['score']['kernel'][:, 0]
    of_sentinel = np.tanh(dense(p['sentinel_key'], s) + of_state)
    of_sentinel = of_sentinel @ attend['score']['kernel'][:, 0]
    alpha = softmax(np.append(z, of_sentinel))  # Equation 12.
    beta = alpha[-1]
    seen = beta * s + (1 - beta) * softmax(z) @ v  # Equations 11 and 6.
    out = np.tanh(dense(p['output_hidden'], seen + state))
    logits.append(dense(p['output'], out))
    alphas.append(alpha[:-1])
  return np.stack(logits), np.stack(alphas)


def att2in(p, grid, words):
  """Rennie et al. 2017, section 3."""
  cell, grid = p['cell'], annotate(p, grid)
  c = h = zeros(cell)
  logits, alphas = [], []
  for word in words:
    x = p['words']['embedding'][word]
    if 'annotation' in p:
      x = relu(x)
    alpha = attention(p['attend'], grid, h)
    pre = dense(cell['input'], x) + h @ cell['recurrent']['kernel']
    i, f, o = np.split(pre[: 3 * len(h)], 3)
    z = pre[3 * len(h) :] + dense(p['context_candidate'], alpha @ grid)
    c = sigmoid(f + 1) * c + sigmoid(i) * np.maximum(*np.split(z, 2))
    h = sigmoid(o) * np.tanh(c)
    logits.append(dense(p['output'], h))
    alphas.append(alpha)
  return np.stack(logits), np.stack(alphas)


def up_down(p, grid, words):
  """Anderson et al. 2018, section 3.2."""
  first, second = p['attention_cell'], p['language_cell']
  cell = cell_of(first)
  mean, v = grid.mean(0), annotate(p, grid)
  if 'picture' in p:
    mean = relu(dense(p['picture'], mean))
  c1 = h1 = c2 = h2 = zeros(first)
  logits, alphas = [], []
  # Equation 2, as one product with [h2, mean v, E w].
  kernel = np.concatenate(
    [
      p['feedback']['kernel'],
      first['constant_input']['kernel'],
      first['input']['kernel'],
    ]
  )
  for word in words:
    x = p['words']['embedding'][word]
    if 'annotation' in p:
      x = relu(x)
    projected = np.concatenate([h2, mean, x]) @ kernel + first['input']['bias']
    c1, h1 = cell(first, c1, h1, projected)
    alpha = attention(p['attend'], v, h1)
    x = np.concatenate([alpha @ v, h1])
    c2, h2 = cell(second, c2, h2, dense(second['input'], x))
    logits.append(dense(p['output'], h2))
    alphas.append(alpha)
  return np.stack(logits), np.stack(alphas)


def luong(p, grid, words):
  """Luong et al. 2015, equations 5 and 6, with input feeding (section 3.3)."""
  cell, v, stack = p['cell'], annotate(p, grid), layers(p)
  states = [(zeros(layer), zeros(layer)) for layer in stack]
  fed = np.zeros(p['feedback']['kernel'].shape[0])
  logits, alphas = [], []
  # The input of the LSTM, as one product with [h~, mean v, E w].
  kernel = np.concatenate(
    [
      p['feedback']['kernel'],
      cell['constant_input']['kernel'],
      cell['input']['kernel'],
    ]
  )
  combine = np.concatenate(
    [p['combine_context']['kernel'], p['combine_hidden']['kernel']]
  )
  for word in words:
    x = np.concatenate([fed, grid.mean(0), p['words']['embedding'][word]])
    projected = x @ kernel + cell['input']['bias']
    states = climb(cell_of(cell), stack, states, projected)
    _, h = states[-1]
    alpha = attention(p['attend'], v, h)
    fed = np.concatenate([alpha @ v, h]) @ combine
    fed = np.tanh(fed + p['combine_hidden']['bias'])
    logits.append(dense(p['output'], fed))
    alphas.append(alpha)
  return np.stack(logits), np.stack(alphas)


def inject_merge(p, grid, words, *, image_input):
  """Tanti et al. 2018, section 3: the image in four places."""
  cell, mean = p['cell'], grid.mean(0)
  v = dense(p['image'], mean / np.sqrt(np.sum(mean**2)))
  h = p['first_state'][0] if 'first_state' in p else zeros(cell)
  if image_input == 'init':
    h = v
  if image_input == 'pre':
    _, h = gru(cell, None, h, dense(cell['input'], v))
  logits = []
  for word in words:
    x, kernel = p['words']['embedding'][word], cell['input']['kernel']
    if image_input == 'par':
      x = np.concatenate([v, x])
      kernel = np.concatenate([cell['constant_input']['kernel'], kernel])
    _, h = gru(cell, None, h, x @ kernel + cell['input']['bias'])
    out = np.concatenate([v, h]) if image_input == 'merge' else h
    logits.append(dense(p['output'], out))
  return np.stack(logits), None


EQUATIONS = {
  'init_inject': inject_merge,
  'pre_inject': inject_merge,
  'par_inject': inject_merge,
  'merge': inject_merge,
  'luong': luong,
  'show_and_tell': show_and_tell,
  'soft': soft,
  'hard': hard,
  'adaptive': adaptive,
  'att2in': att2in,
  'up_down': up_down,
}


def expected(name, variables, features, tokens, num_locations=None):
  """The equations, on the locations that there are.

  f[B, L, D], i32[B, K, T] -> f64[B, K, T, V], f64[B, K, T, L] or None.
  """
  equations = next(EQUATIONS[key] for key in EQUATIONS if name.startswith(key))
  known = inspect.signature(equations).parameters
  options = {
    option: value
    for option, value in captioners.CAPTIONERS[name][1].items()
    if option in known
  }
  p = jax.tree.map(np.float64, variables['params']['decoder'])
  logits = np.zeros((*tokens.shape, V))
  attention = np.zeros((*tokens.shape, features.shape[1]))
  for b, k in np.ndindex(tokens.shape[:2]):
    words = [vocabulary.BOS_ID, *tokens[b, k, :-1]]
    count = features.shape[1] if num_locations is None else num_locations[b]
    grid = features[b, :count].astype(np.float64)
    logits[b, k], attention[b, k, :, :count] = equations(
      p, grid, words, **options
    )
  attends = model.DECODERS[captioners.CAPTIONERS[name][0]].attends
  return logits, attention if attends else None


def log_softmax(x):
  return x - np.log(np.exp(x).sum(-1, keepdims=True))


def expected_losses(name, variables, features, tokens):
  """Cross-entropy, zero on the padding: f64[B, K, T]; and the attention."""
  logits, attention = expected(name, variables, features, tokens)
  chosen = np.take_along_axis(log_softmax(logits), tokens[..., None], -1)
  return -chosen[..., 0] * (tokens != vocabulary.PAD_ID), attention


def expected_loss(name, variables, features, tokens, config):
  """Equation 14 of Xu et al. for a batch: f64[]."""
  costs, attention = expected_losses(name, variables, features, tokens)
  mask = tokens != vocabulary.PAD_ID
  num_captions = tokens.shape[0] * tokens.shape[1]
  per = {'token': mask.sum(), 'caption': num_captions}
  loss = costs.sum() / per[config.loss.per]
  if attention is not None:
    looked = (attention * mask[..., None]).sum(2)
    reduce = {'sum': np.sum, 'mean': np.mean}[config.loss.penalty_reduction]
    penalty = reduce((1 - looked) ** 2, axis=-1)
    loss += config.loss.attention_penalty * penalty.sum() / num_captions
  return loss


def make_loss(captioner, config):
  """variables, batch -> f32[], model_state: `main`'s loss on one device."""
  loss_fn = losses.create(captioner, config)

  def loss(variables, **batch):
    counts = losses.counts(batch)
    value, (_, model_state) = loss_fn(
      variables, batch, counts, 0, jax.random.key(0)
    )
    return value, model_state

  return loss


@functools.partial(jax.jit, static_argnums=(0, 1))
def _value_and_grad(captioner, config, variables, batch):
  loss = make_loss(captioner, config)
  return jax.value_and_grad(loss, has_aux=True)(variables, **batch)


def value_and_grad(captioner, config, variables, **batch):
  """The loss f32[] and model_state, and the gradient of all variables."""
  config = ml_collections.FrozenConfigDict(config.loss)
  return _value_and_grad(captioner, config, variables, batch)


@pytest.mark.parametrize('padded', [False, True])
@pytest.mark.parametrize('name', captioners.CAPTIONERS)
def test_decoders_equal_the_equations(name, padded, features, tokens):
  """Padding is as good as no location, whatever it holds."""
  captioner, variables = captioners.create(captioners.small_config(name))
  num_locations, seen = None, features
  if padded:
    num_locations, seen = LOCATIONS, garbage_after(features, LOCATIONS)
  logits, attention = teacher_forced(
    captioner, variables, seen, tokens, num_locations
  )
  wanted, wanted_attention = expected(
    name, variables, features, tokens, num_locations
  )
  np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-5)
  if wanted_attention is None:
    assert attention is None
  else:
    np.testing.assert_allclose(attention, wanted_attention, 1e-4, 1e-5)
    assert attention.std() > 0.05, 'uniform attention would test nothing'


def test_the_sentinel_takes_what_the_locations_leave(features, tokens):
  captioner, variables = captioners.create(captioners.small_config('adaptive'))
  _, y = captioners.apply(
    captioner, variables, features, tokens, LOCATIONS, train=False
  )
  np.testing.assert_allclose(
    y['attention'].sum(-1) + y['sentinel'], 1, rtol=1e-6
  )
  assert np.std(y['sentinel']) > 0.05


def test_hard_attention_is_not_soft(features, tokens):
  """The same parameters, of which the likeliest locations make more."""
  captioner, variables = captioners.create(captioners.small_config('hard'))
  logits, _ = teacher_forced(captioner, variables, features, tokens)
  softly, _ = expected('soft', variables, features, tokens)
  assert np.abs(logits - softly).max() > 0.1


@pytest.mark.parametrize('name', MODELS)
def test_training_computes_what_decoding_does(name, features, tokens):
  """With and without the loop over items; without dropout they are one."""
  captioner, variables = captioners.create(
    captioners.small_config(name, **({'hard': False} if name == 'hard' else {}))
  )
  logits, attention = teacher_forced(
    captioner, variables, features, tokens, LOCATIONS
  )
  trained, y = captioners.apply(
    captioner, variables, features, tokens, LOCATIONS, train=True
  )
  np.testing.assert_allclose(trained, logits, rtol=1e-4, atol=1e-5)
  if attention is not None:
    np.testing.assert_allclose(y['attention'], attention, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('name', MODELS)
def test_compiled_equals_interpreted(name, features, tokens):
  captioner, variables = captioners.create(captioners.small_config(name))
  compiled, _ = teacher_forced(
    captioner, variables, features, tokens, LOCATIONS
  )
  args = features[:1], tokens[:1, :, :2], LOCATIONS[:1]
  with jax.disable_jit():
    logits, _ = captioner.apply(variables, *args, train=False)
  np.testing.assert_allclose(compiled[:1, :, :2], logits, rtol=1e-4, atol=1e-5)


def assert_steps_equal_unrolled(config, features, tokens):
  captioner, variables = captioners.create(config)
  unrolled, _ = teacher_forced(
    captioner, variables, features, tokens, LOCATIONS
  )
  carry, context = captioners.apply(
    captioner, variables, features, LOCATIONS, method='begin'
  )
  carry = jax.tree.map(lambda x: jnp.repeat(x, tokens.shape[1], 1), carry)
  word = np.full_like(tokens[..., 0], vocabulary.BOS_ID)
  for t in range(T):
    carry, logits = captioners.apply(
      captioner, variables, carry, word, context, method='step'
    )
    np.testing.assert_allclose(logits, unrolled[:, :, t], rtol=1e-4, atol=1e-5)
    word = tokens[..., t]


@pytest.mark.parametrize('name', MODELS + captioners.OPTIONS)
def test_unrolled_equals_stepped(name, features, tokens):
  assert_steps_equal_unrolled(captioners.small_config(name), features, tokens)


@pytest.mark.optimized
@pytest.mark.parametrize('name', MODELS)
def test_captions_of_a_picture_do_not_see_each_other(name, features, tokens):
  captioner, variables = captioners.create(captioners.small_config(name))
  together, _ = teacher_forced(captioner, variables, features, tokens)
  for k in range(tokens.shape[1]):
    alone, _ = teacher_forced(
      captioner, variables, features, tokens[:, k : k + 1]
    )
    np.testing.assert_allclose(together[:, k], alone[:, 0], 1e-5, 1e-6)


def test_given_inputs_take_the_place_of_the_words_before(features, tokens):
  captioner, variables = captioners.create(captioners.small_config())
  inputs = tokens[:, ::-1]

  def apply(tokens, inputs):
    return captioners.apply(
      captioner, variables, features, tokens, inputs=inputs, train=False
    )[0]

  shifted = np.pad(tokens[..., :-1], [(0, 0), (0, 0), (1, 0)])
  shifted[..., 0] = vocabulary.BOS_ID
  own = apply(tokens, None)
  np.testing.assert_array_equal(apply(tokens, shifted), own)
  np.testing.assert_array_equal(apply(inputs, shifted), own)
  assert np.abs(apply(tokens, inputs) - own).max() > 0.1


def decode(captioner, variables, features, config):
  """The search of evaluation: i32[B, K, T], f32[B, K]."""
  step = inference.decode_step([captioner], config.decoding, captioners.WORDS)
  return step(
    (parallel.replicate(variables),), parallel.shard({'features': features})
  )


@pytest.mark.parametrize('name', MODELS)
def test_log_prob_of_a_caption_is_its_cross_entropy(name, features):
  """Of every beam."""
  config = captioners.small_config(name)
  captioner, variables = captioners.create(config)
  tokens, log_probs = decode(captioner, variables, features, config)
  assert np.ptp(log_probs, axis=0).min() > 1e-3, 'pictures matter'
  assert (tokens == vocabulary.EOS_ID).any()
  assert not np.isin(tokens, FORBID[1:]).any()
  costs, _ = expected_losses(name, variables, features, tokens)
  np.testing.assert_allclose(log_probs, -costs.sum(-1), rtol=1e-4)


@pytest.mark.parametrize('name', MODELS)
def test_one_beam_is_greedy(name, features):
  config = captioners.small_config(name)
  captioner, variables = captioners.create(config)
  config.decoding.beam_size = 1
  carry, context = captioners.apply(
    captioner, variables, features, method='begin'
  )
  greedy = jax.jit(
    lambda carry: search.greedy(
      lambda carry, tokens: captioner.apply(
        variables, carry, tokens, context, method='step'
      ),
      carry,
      bos=vocabulary.BOS_ID,
      eos=vocabulary.EOS_ID,
      max_length=T,
      constraints=search.Constraints(forbidden=FORBID),
    )
  )(carry)
  tokens, log_probs = decode(captioner, variables, features, config)
  np.testing.assert_array_equal(tokens, greedy.tokens)
  np.testing.assert_allclose(log_probs, greedy.log_probs, rtol=1e-5)


@pytest.mark.parametrize('name', captioners.DETERMINISTIC)
def test_bfloat16_is_close_and_keeps_float32_parameters(name, features, tokens):
  config = captioners.small_config(name)
  captioner, variables = captioners.create(config)
  config.dtype = 'bfloat16'
  half, own = captioners.create(config)
  assert {x.dtype for x in jax.tree.leaves(own)} == {np.dtype(np.float32)}
  _, gradient = jax.eval_shape(
    lambda: value_and_grad(
      half, config, variables, features=features, tokens=tokens
    )
  )
  assert {x.dtype for x in jax.tree.leaves(gradient)} == {jnp.dtype('float32')}
  exact, _ = teacher_forced(captioner, variables, features, tokens)
  close, _ = teacher_forced(half, variables, features, tokens)
  assert close.dtype == np.float32
  distance = np.abs(close - exact).max()
  assert 0 < distance < 0.05 * np.abs(exact).max()


@pytest.mark.parametrize('per', ['token', 'caption'])
@pytest.mark.parametrize('reduction', ['sum', 'mean'])
def test_loss_equals_the_equation(per, reduction, features, tokens):
  name = 'soft'
  config = captioners.small_config(name)
  config.loss.update(per=per, penalty_reduction=reduction)
  captioner, variables = captioners.create(config)
  loss, _ = jax.jit(make_loss(captioner, config.loss))(
    variables, features=features, tokens=tokens
  )
  np.testing.assert_allclose(
    loss,
    expected_loss(name, variables, features, tokens, config),
    rtol=1e-5,
  )


@pytest.mark.parametrize('name', captioners.DETERMINISTIC)
def test_gradient_equals_finite_differences_of_the_equations(
  name, features, tokens
):
  """Along a random direction of every parameter, penalty included."""
  config = captioners.small_config(name)
  captioner, variables = captioners.create(config)
  (loss, _), gradient = value_and_grad(
    captioner, config, variables, features=features, tokens=tokens
  )
  np.testing.assert_allclose(
    loss, expected_loss(name, variables, features, tokens, config), rtol=1e-5
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
      return expected_loss(name, moved, features, tokens, config)

    slope = (at(1e-5) - at(-1e-5)) / 2e-5
    np.testing.assert_allclose(
      np.sum(got * direction), slope, rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize('name', captioners.DETERMINISTIC)
def test_padding_changes_neither_loss_nor_gradient(name, features, tokens):
  config = captioners.small_config(name)
  captioner, variables = captioners.create(config)
  step = functools.partial(value_and_grad, captioner, config, variables)
  (loss, _), gradient = step(features=features, tokens=tokens)
  longer = np.pad(tokens, ((0, 0), (0, 0), (0, 3)))
  (loss_longer, _), gradient_longer = step(features=features, tokens=longer)
  np.testing.assert_allclose(loss_longer, loss, rtol=1e-6)
  captioners.assert_trees_close(gradient_longer, gradient, atol=1e-6)
  words = gradient['params']['decoder']['words']['embedding']
  np.testing.assert_array_equal(words[vocabulary.PAD_ID], 0)
  assert np.abs(words[vocabulary.BOS_ID]).max() > 0


@pytest.mark.parametrize('name', MODELS)
def test_locations_that_are_none_change_neither_loss_nor_gradient(
  name, features, tokens
):
  """As if they had been cut off, the attention's penalty included."""
  always = dict(expected=1.0) if name == 'hard' else {}
  config = captioners.small_config(name, **always)
  config.loss.penalty_reduction = 'mean'
  captioner, variables = captioners.create(config)
  step = functools.partial(value_and_grad, captioner, config, variables)
  num_locations = np.array([3, 3, 3, 3], np.int32)
  seen = garbage_after(features, num_locations)
  (loss, _), gradient = step(
    features=seen, tokens=tokens, num_locations=num_locations
  )
  (cut_loss, _), cut_gradient = step(features=features[:, :3], tokens=tokens)
  np.testing.assert_allclose(loss, cut_loss, rtol=1e-5)
  captioners.assert_trees_close(gradient, cut_gradient)


@pytest.mark.parametrize('reduction', ['sum', 'mean'])
def test_each_picture_has_a_penalty_for_its_own_locations(
  reduction, features, tokens
):
  config = captioners.small_config('soft')
  config.loss.penalty_reduction = reduction
  captioner, variables = captioners.create(config)
  _, attention = teacher_forced(
    captioner, variables, features, tokens, LOCATIONS
  )
  penalty = 0.0
  for b, k in np.ndindex(tokens.shape[:2]):
    mask = tokens[b, k] != vocabulary.PAD_ID
    looked = attention[b, k][mask, : LOCATIONS[b]].sum(0)
    penalty += {'sum': np.sum, 'mean': np.mean}[reduction]((1 - looked) ** 2)
  losses_ = []
  for weight in (0.0, 0.5):
    config.loss.attention_penalty = weight
    loss, _ = jax.jit(make_loss(captioner, config.loss))(
      variables, features=features, tokens=tokens, num_locations=LOCATIONS
    )
    losses_.append(loss)
  np.testing.assert_allclose(
    losses_[1] - losses_[0], 0.5 * penalty / 8, rtol=1e-4
  )


def test_unknown_model_is_an_error():
  config = captioners.small_config()
  config.model = 'tell'
  with pytest.raises(ValueError, match='none of show_and_tell, show_attend_'):
    model.create(config, V)


@pytest.mark.parametrize(
  ('name', 'change', 'message'),
  [
    ('show_and_tell', dict(cell='lstn'), 'none of lstm, peephole, maxout, '),
    ('show_and_tell', dict(layers=0), 'layers=0 must be at least 1'),
    ('adaptive', dict(cell='gru'), "cell='gru' is none of lstm, maxout"),
    ('soft', dict(gate='matrix'), "'matrix' is none of scalar, vector"),
    ('soft', dict(attention_activation='elu'), "'elu' is none of tanh, relu"),
  ],
)
def test_unknown_options_name_the_known_ones(name, change, message):
  with pytest.raises(ValueError, match=message):
    captioners.create(captioners.small_config(name, **change))


# Equations and published numbers cover the others.
@pytest.mark.parametrize('cell', sorted({*decoder.CELLS} - {'lstm', 'maxout'}))
def test_every_cell_steps_as_it_unrolls(cell, features, tokens):
  config = captioners.small_config('show_and_tell', cell=cell, layers=2)
  assert_steps_equal_unrolled(config, features, tokens)


def test_widths_of_the_annotations(features):
  """The hidden layer of the initial state, and a gate for each feature."""
  config = captioners.small_config('soft', gate='vector')
  _, variables = captioners.create(config)
  p = variables['params']['decoder']
  size = features.shape[-1]
  assert size != config.decoder.features
  assert p['init_hidden_0']['kernel'].shape == (size, size)
  assert p['beta']['kernel'].shape == (config.decoder.features, size)


def test_dropout_falls_between_layers(features, tokens):
  config = captioners.small_config('show_and_tell', layers=2, dropout_rate=0.5)
  captioner, variables = captioners.create(config)

  def upper(train):
    below = jnp.ones((4, 2, config.decoder.features))
    return nn.apply(
      lambda module: module.upper.step(
        module.upper.start((4, 2)), below, train=train
      )[1],
      captioner.decoder,
    )(
      {'params': variables['params']['decoder']},
      rngs={'dropout': jax.random.key(0)},
    )

  dropped, whole = upper(True), upper(False)
  assert len(np.unique(whole[..., 0])) == 1
  assert len(np.unique(dropped[..., 0])) > 4


@pytest.mark.parametrize('cell_dropout', [False, True])
def test_dropout_before_the_layers_of_state_and_sentinel(
  cell_dropout, features, tokens
):
  config = captioners.small_config(
    'adaptive', dropout_rate=0.5, cell_dropout=cell_dropout
  )
  captioner, variables = captioners.create(config)
  zeros = {}

  def record(layer, args, kwargs, call):
    if call.module.name in ('state', 'sentinel'):
      zeros[call.module.name] = np.mean(args[0] == 0)
    return layer(*args, **kwargs)

  carry, context = captioner.apply(variables, features, method='begin')
  with nn.intercept_methods(record):
    captioner.apply(
      variables,
      carry,
      tokens[:, :1, 0],
      context,
      train=True,
      method='step',
      rngs={'dropout': jax.random.key(0)},
    )
  assert zeros.keys() == {'state', 'sentinel'}
  for share in zeros.values():
    assert 0.2 < share < 0.8 if cell_dropout else share == 0


def test_adaptive_attention_adds_vectors_of_one_size():
  config = captioners.small_config('adaptive', annotation_features=8)
  with pytest.raises(ValueError, match='annotation_features=8 must equal'):
    captioners.create(config)


def split(variables):
  model_state = dict(variables)
  return model_state.pop('params'), model_state


def one_device(captioner, config, variables, batch):
  """A step of gradient descent at 0.1: the loss, params, statistics."""
  (loss, model_state), gradient = value_and_grad(
    captioner, config, variables, **batch
  )
  params = jax.tree.map(
    lambda p, g: p - 0.1 * np.asarray(g),
    jax.device_get(variables['params']),
    gradient['params'],
  )
  return loss, params, model_state


def two_devices(captioner, config, variables, batch):
  """The same, through `parallel`: the state and what it reports."""
  assert jax.device_count() == 2
  optimizer = optax.sgd(0.1)
  step = parallel.train_step(
    losses.create(captioner, config.loss), losses.counts, optimizer
  )
  return step(
    parallel.create_state(variables, optimizer),
    parallel.shard(batch),
    parallel.replicate(jax.random.key(0)),
  )


@pytest.mark.parametrize('name', MODELS)
def test_two_devices_train_the_decoder_as_one_does(name, features, tokens):
  """Hard attention where it takes expectations, and its baseline."""
  always = dict(expected=1.0) if name == 'hard' else {}
  config = captioners.small_config(name, **always)
  config.loss.penalty_reduction = 'mean'
  captioner, variables = captioners.create(config)
  batch = {'features': features, 'tokens': tokens, 'num_locations': LOCATIONS}
  loss, params, model_state = one_device(captioner, config, variables, batch)
  state, update = two_devices(captioner, config, variables, batch)
  np.testing.assert_allclose(update.loss, loss, rtol=1e-5)
  captioners.assert_trees_close(state.params, params)
  assert state.model_state.keys() == model_state.keys()
  captioners.assert_trees_close(state.model_state, model_state)


# The whole captioner, encoder included.


def whole(config):
  """The captioner of images, its first variables, and a batch."""
  captioner = model.create(config, V)
  rng = np.random.default_rng(5)
  coarse = rng.integers(0, 256, (4, 4, 4, 3), np.uint8)
  images = coarse.repeat(4, 1).repeat(4, 2)
  tokens = rng.integers(len(vocabulary.SPECIAL), V, (4, 2, 3)).astype(np.int32)
  # The devices have different numbers of words.
  tokens[0, :, 2] = vocabulary.PAD_ID
  variables = jax.device_get(
    captioners.first_variables(captioner, images[0], config)
  )
  batch = {'image': images, 'tokens': tokens}
  return captioner, variables, batch


@pytest.fixture(scope='module')
def trained():
  """What one step on two devices makes; the stem and layer1 are frozen."""
  config = captioners.small_config()
  config.encoder.freeze_at = 2
  captioner, variables, batch = whole(config)
  state, update = two_devices(captioner, config, variables, batch)
  return config, captioner, variables, batch, state, update


def test_two_devices_train_the_encoder_as_one_does(trained):
  """The statistics of a batch are those of all devices together."""
  config, captioner, variables, batch, state, update = trained
  alone = captioner.clone(encoder=captioner.encoder.clone(norm_axis_name=None))
  loss, params, model_state = one_device(alone, config, variables, batch)
  np.testing.assert_allclose(update.loss, loss, rtol=1e-5)
  captioners.assert_trees_close(state.params, params, rtol=1e-3)
  captioners.assert_trees_close(state.model_state, model_state, rtol=1e-3)


def test_the_running_statistics_of_frozen_parts_stay(trained):
  _, _, variables, _, state, _ = trained
  params, model_state = split(variables)
  for before, after in (
    (params['encoder'], state.params['encoder']),
    (
      model_state['batch_stats']['encoder'],
      state.model_state['batch_stats']['encoder'],
    ),
  ):
    same = jax.tree.map(np.array_equal, after, before)
    for part, tree in same.items():
      frozen = part in ('conv1', 'bn1', 'layer1')
      assert set(jax.tree.leaves(tree)) == {frozen}, part


def test_published_statistics_stay_in_training():
  config = captioners.small_config()
  config.train_batch_stats = False
  captioner, variables, batch = whole(config)
  loss_fn = losses.create(captioner, config.loss)
  _, (_, updated) = jax.jit(loss_fn)(
    variables, batch, losses.counts(batch), 0, jax.random.key(0)
  )
  _, model_state = split(variables)
  jax.tree.map(np.testing.assert_array_equal, updated, model_state)
