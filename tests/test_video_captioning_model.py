"""The video captioners are the papers' equations, however they are run."""

import functools

import captioners
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from captioning import vocabulary
from configs import event_captions as event_config
from recurrent import search
from training import parallel
from video import caption
from video.captioning import examples
from video.captioning import inference
from video.captioning import losses
from video.captioning import model
from video.synthetic import event_captions

V, L, D, T = captioners.V, 5, 3, captioners.T
LENGTHS = np.array([2, 5, 3, 1], np.int32)
FORBID = (vocabulary.PAD_ID, vocabulary.BOS_ID, vocabulary.UNK_ID)

# Name -> the key of `DECODERS`, and arguments of its decoder.
CAPTIONERS = {
  'temporal_attention': ('temporal_attention', {}),
  'both_ways': ('temporal_attention', dict(bidirectional=True)),
  's2vt': ('s2vt', {}),
  'mean_pool': ('mean_pool', {}),
}
# With these, captions of clips differ, some end and some do not.
SEEDS = dict(temporal_attention=4, both_ways=2, s2vt=2, mean_pool=1)


def small_config(name, **changes):
  config = event_config.get_config()
  config.model, special = CAPTIONERS[name]
  sizes = dict(features=5, embedding=7, dropout_rate=0.0)
  if config.model == 'temporal_attention':
    sizes |= dict(attention=6, encoder_features=4)
  with config.unlocked():
    config.decoder = {**sizes, **special}
  config.encoder = dict(channels=(2, 3), features=D)
  config.cache_features = True
  config.difference = 0.0
  config.frame_labels = 0
  config.decoding.max_length = T
  config.update(changes)
  return config


def create(name, config=None):
  """The captioner of features, and variables far from their symmetry."""
  captioner = model.create(config or small_config(name), V)
  shapes = jax.eval_shape(
    lambda: captioner.init(
      jax.random.key(0),
      jnp.zeros((1, L, D)),
      jnp.ones((1, 1, 2), jnp.int32),
      jnp.ones(1, jnp.int32),
      train=False,
    )
  )
  rng = np.random.default_rng(SEEDS[name])
  return captioner, jax.tree.map(
    lambda x: (1.2 * rng.normal(size=x.shape)).astype(np.float32), shapes
  )


@pytest.fixture
def clips():
  """f32[4, L, D]."""
  shape = (4, L, D)
  return np.random.default_rng(2).normal(size=shape).astype(np.float32)


@pytest.fixture
def tokens():
  return captioners.make_tokens()


def garbage_after(clips, lengths):
  """The same, with large numbers where there is no frame."""
  padding = np.arange(clips.shape[1]) >= lengths[:, None]
  padding = padding.reshape(*padding.shape, *[1] * (clips.ndim - 2))
  return np.where(padding, clips.dtype.type(200), clips)


@functools.partial(
  jax.jit, static_argnums=0, static_argnames=('method', 'train')
)
def apply(captioner, variables, *args, **kwargs):
  """Compiled once for equal captioners."""
  return captioner.apply(variables, *args, **kwargs)


def teacher_forced(captioner, variables, clips, tokens, lengths):
  logits, y = apply(captioner, variables, clips, tokens, lengths, train=False)
  return logits, y.get('attention')


# The equations, for one caption of one clip, in float64.


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def softmax(x):
  x = np.exp(x - x.max())
  return x / x.sum()


def dense(p, x):
  return x @ p['kernel'] + p.get('bias', 0)


def lstm(p, c, h, projected):
  i, f, g, o = np.split(projected + h @ p['recurrent']['kernel'], 4)
  c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
  return c, sigmoid(o) * np.tanh(c)


def zeros(p):
  return np.zeros(p['recurrent']['kernel'].shape[0])


def encode(p, frames):
  """Every h, f64[L, H], and the last one."""
  c = h = zeros(p)
  states = []
  for frame in frames:
    c, h = lstm(p, c, h, dense(p['input'], frame))
    states.append(h)
  return np.stack(states), h


def temporal_attention(p, frames, words):
  v, end = encode(p['forward_cell'], frames)
  if 'backward_cell' in p:
    back, start = encode(p['backward_cell'], frames[::-1])
    v = np.concatenate([v, back[::-1]], axis=-1)
    end = np.concatenate([end, start])
  c, h = np.split(np.tanh(dense(p['init_state'], end)), 2)
  logits, alphas = [], []
  for word in words:
    e = dense(p['attend']['key_layers_0'], v)
    e = np.tanh(e + h @ p['attend']['query']['kernel'])
    alpha = softmax((e @ p['attend']['score']['kernel'])[:, 0])
    phi, y = alpha @ v, p['words']['embedding'][word]
    projected = dense(p['cell']['input'], y) + dense(p['context_gates'], phi)
    c, h = lstm(p['cell'], c, h, projected)
    deep = dense(p['output_hidden'], h) + dense(p['output_context'], phi)
    deep = np.tanh(deep + dense(p['output_word'], y))
    logits.append(dense(p['output'], deep))
    alphas.append(alpha)
  return np.stack(logits), np.stack(alphas)


def s2vt(p, frames, words):
  """One loop over the two phases, as figure 2 of the paper draws it."""
  lower, upper = p['frame_cell'], p['word_cell']
  kernel = np.concatenate(
    [upper['input']['kernel'], upper['constant_input']['kernel']]
  )
  size = p['words']['embedding'].shape[1]
  frames = [dense(p['frame'], frame) for frame in frames]
  steps = [(frame, np.zeros(size)) for frame in frames]
  steps += [(np.zeros(size), p['words']['embedding'][word]) for word in words]
  c1 = h1 = zeros(lower)
  c2 = h2 = zeros(upper)
  logits = []
  for frame, word in steps:
    c1, h1 = lstm(lower, c1, h1, dense(lower['input'], frame))
    projected = np.concatenate([h1, word]) @ kernel + upper['input']['bias']
    c2, h2 = lstm(upper, c2, h2, projected)
    logits.append(dense(p['output'], h2))
  return np.stack(logits[len(frames) :]), None


def mean_pool(p, frames, words):
  clip = frames.mean(0) @ p['cell']['constant_input']['kernel']
  c = h = zeros(p['cell'])
  logits = []
  for word in words:
    projected = dense(p['cell']['input'], p['words']['embedding'][word])
    c, h = lstm(p['cell'], c, h, projected + clip)
    logits.append(dense(p['output'], h))
  return np.stack(logits), None


EQUATIONS = {
  'temporal_attention': temporal_attention,
  'both_ways': temporal_attention,
  's2vt': s2vt,
  'mean_pool': mean_pool,
}


@pytest.mark.parametrize('name', CAPTIONERS)
def test_captioners_equal_the_equations(name, clips, tokens):
  """Padding frames are as good as none, whatever they hold."""
  captioner, variables = create(name)
  logits, attention = teacher_forced(
    captioner, variables, garbage_after(clips, LENGTHS), tokens, LENGTHS
  )
  p = jax.tree.map(np.float64, variables['params']['decoder'])
  for b, k in np.ndindex(tokens.shape[:2]):
    length = LENGTHS[b]
    wanted, alphas = EQUATIONS[name](
      p,
      clips[b, :length].astype(np.float64),
      [vocabulary.BOS_ID, *tokens[b, k, :-1]],
    )
    np.testing.assert_allclose(logits[b, k], wanted, rtol=1e-4, atol=1e-5)
    if alphas is not None:
      got = attention[b, k]
      np.testing.assert_allclose(got[:, :length], alphas, 1e-4, 1e-5)
      np.testing.assert_array_equal(got[:, length:], 0)
  assert (attention is None) == (not captioner.decoder.attends)


@pytest.mark.parametrize('name', CAPTIONERS)
def test_unrolled_equals_stepped(name, clips, tokens):
  captioner, variables = create(name)
  unrolled, _ = teacher_forced(captioner, variables, clips, tokens, LENGTHS)
  carry, context = apply(captioner, variables, clips, LENGTHS, method='begin')
  carry = jax.tree.map(lambda x: jnp.repeat(x, tokens.shape[1], 1), carry)
  word = np.full_like(tokens[..., 0], vocabulary.BOS_ID)
  for t in range(T):
    carry, logits = apply(
      captioner, variables, carry, word, context, method='step'
    )
    np.testing.assert_allclose(logits, unrolled[:, :, t], rtol=1e-4, atol=1e-5)
    word = tokens[..., t]


@pytest.mark.parametrize('name', CAPTIONERS)
def test_one_beam_is_greedy(name, clips):
  config = small_config(name)
  captioner, variables = create(name, config)
  config.decoding.beam_size = 1
  carry, context = apply(captioner, variables, clips, LENGTHS, method='begin')
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
  step = inference.decode_step(captioner, config.decoding, captioners.WORDS)
  tokens, log_probs = step(
    parallel.replicate(variables),
    parallel.shard({'frames': clips, 'length': LENGTHS}),
  )
  assert len(np.unique(tokens[:, 0], axis=0)) > 1, 'clips matter'
  np.testing.assert_array_equal(tokens, greedy.tokens)
  np.testing.assert_allclose(log_probs, greedy.log_probs, rtol=1e-5)


@pytest.mark.parametrize('name', CAPTIONERS)
def test_only_the_baseline_does_not_see_the_order(name, clips, tokens):
  captioner, variables = create(name)
  every = np.full(len(clips), L, np.int32)
  logits, _ = teacher_forced(captioner, variables, clips, tokens, every)
  turned, _ = teacher_forced(
    captioner, variables, clips[:, ::-1], tokens, every
  )
  distance = np.abs(turned - logits).max()
  assert distance < 1e-4 if name == 'mean_pool' else distance > 0.1


# The whole captioner, of frames.


@functools.cache
def whole(name, side=8):
  """A config with everything, the captioner, variables and a batch."""
  config = small_config(
    name, cache_features=False, difference=2.0, frame_labels=4
  )
  config.loss.frame_labels = 0.5
  captioner = model.create(config, V)
  rng = np.random.default_rng(5)
  labels = rng.integers(0, 4, (4, L), np.int32)
  labels[np.arange(L) >= LENGTHS[:, None]] = examples.NO_LABEL
  batch = {
    'frames': rng.integers(0, 256, (4, L, side, side, 3), np.uint8),
    'length': LENGTHS,
    'tokens': captioners.make_tokens(),
    'frame_labels': labels,
  }
  example = {'id': 'a', **jax.tree.map(lambda x: x[0], batch)}
  variables = caption.initial_variables(captioner, example, config)
  return config, captioner, jax.device_get(variables), batch


@functools.cache
def loss_and_gradient(name):
  return run_loss(*whole(name))


def run_loss(config, captioner, variables, batch):
  loss_fn = losses.create(captioner, config.loss)

  @jax.jit
  def run(variables):
    def loss(variables):
      return loss_fn(
        variables, batch, losses.counts(batch), 0, jax.random.key(0)
      )[0]

    return jax.value_and_grad(loss)(variables)

  return run(variables)


@pytest.mark.parametrize('name', ['both_ways', 's2vt', 'mean_pool'])
def test_padding_changes_neither_loss_nor_gradient(name):
  """Neither the content nor the amount, of frames and of words."""
  config, captioner, variables, batch = whole(name)
  loss, gradient = loss_and_gradient(name)
  more = {
    **batch,
    'frames': np.pad(
      garbage_after(batch['frames'], LENGTHS),
      [(0, 0), (0, 2), *[(0, 0)] * 3],
    ),
    'frame_labels': np.pad(
      batch['frame_labels'],
      [(0, 0), (0, 2)],
      constant_values=examples.NO_LABEL,
    ),
    'tokens': np.pad(batch['tokens'], [(0, 0), (0, 0), (0, 3)]),
  }
  padded_loss, padded = run_loss(config, captioner, variables, more)
  np.testing.assert_allclose(padded_loss, loss, rtol=1e-6)
  captioners.assert_trees_close(padded, gradient, atol=1e-6)
  params = gradient['params']
  assert min(np.abs(x).max() for x in jax.tree.leaves(params)) > 0


def test_loss_is_that_of_words_and_of_frames():
  config, captioner, variables, batch = whole('both_ways')
  loss, _ = loss_and_gradient('both_ways')
  logits, y = apply(captioner, variables, *model.inputs(batch), train=False)
  words = optax.softmax_cross_entropy_with_integer_labels(
    logits, batch['tokens']
  )
  words = words[batch['tokens'] != vocabulary.PAD_ID].mean()
  real = batch['frame_labels'] != examples.NO_LABEL
  frames = optax.softmax_cross_entropy_with_integer_labels(
    y['frame_logits'][real], batch['frame_labels'][real]
  ).mean()
  np.testing.assert_allclose(loss, words + 0.5 * frames, rtol=1e-5)


def test_two_devices_train_as_one_does():
  config, captioner, variables, batch = whole('s2vt')
  assert jax.device_count() == 2
  loss, gradient = loss_and_gradient('s2vt')
  optimizer = optax.sgd(0.1)
  step = parallel.train_step(
    losses.create(captioner, config.loss), losses.counts, optimizer
  )
  state, update = step(
    parallel.create_state(variables, optimizer),
    parallel.shard(batch),
    parallel.replicate(jax.random.key(0)),
  )
  np.testing.assert_allclose(update.loss, loss, rtol=1e-5)
  wanted = jax.tree.map(
    lambda p, g: p - 0.1 * g, variables['params'], gradient['params']
  )
  captioners.assert_trees_close(state.params, wanted)


def test_unknown_model_is_an_error():
  config = small_config('s2vt')
  config.model = 'show'
  with pytest.raises(ValueError, match='none of temporal_attention, s2vt'):
    model.create(config, V)


def test_clips_without_labels_of_frames_say_what_to_pass():
  config, captioner, _, batch = whole('s2vt')
  example = {k: x[0] for k, x in batch.items() if k != 'frame_labels'}
  with pytest.raises(ValueError, match='config.frame_labels=0'):
    caption.initial_variables(captioner, example, config)


def test_the_default_labels_what_happens():
  config = event_config.get_config()
  assert config.frame_labels == len(event_captions.FRAME_CLASSES)
