"""The gradient is that of the expected reward, over all possible captions."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from captioning import model
from captioning import rewards as rewards_lib
from captioning import self_critical
from captioning import show_and_tell
from captioning import show_attend_tell
from captioning import vocabulary as vocabulary_lib
from recurrent import search
from training import parallel

L, D, T = 4, 3, 3
PAD, EOS = vocabulary_lib.PAD_ID, vocabulary_lib.EOS_ID
VOCABULARY = vocabulary_lib.Vocabulary([*vocabulary_lib.SPECIAL, 'x', 'y'])
V = len(VOCABULARY)
# Two images, again and again; the captions of four weigh the words.
CAPTIONS = [['x y', 'x'], ['y y', 'z']] * 2 + [['x'], ['y']]
SIZES = dict(vocab_size=V, features=4, embedding=3)


def encode(captions):
  return np.array(
    [[VOCABULARY.encode(c, 4) for c in some] for some in captions]
  )


@pytest.fixture
def scorer(tmp_path):
  frequencies = rewards_lib.count(
    tmp_path / 'frequencies.npz',
    CAPTIONS,
    fingerprint='',
    vocabulary=VOCABULARY,
    max_length=4,
  )
  with rewards_lib.Rewards(frequencies, cider=1.0, bleu=0.5) as scorer:
    yield scorer


def make_batch(repeats, **more):
  rng = np.random.default_rng(0)
  return {
    'features': np.tile(
      rng.normal(size=(2, L, D)).astype(np.float32), (repeats, 1, 1)
    ),
    'tokens': np.tile(encode(CAPTIONS[:2]), (repeats, 1, 1)),
    **more,
  }


def initialize(captioner, batch):
  """Variables far from their initial symmetry."""
  shapes = jax.eval_shape(
    lambda key: captioner.init(
      key, batch['features'][:2], batch['tokens'][:2], train=False
    ),
    jax.random.key(0),
  )
  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(np.float32), shapes
  )


def log_probs(captioner, variables, batch, tokens):
  """Of whole captions, under what is sampled: f32[B, K]."""
  logits, _ = captioner.apply(
    variables,
    batch['features'],
    tokens,
    batch.get('num_locations'),
    train=False,
  )
  logits = jax.nn.log_softmax(self_critical.policy(logits))
  chosen = jnp.take_along_axis(logits, tokens[..., None], -1)[..., 0]
  return jnp.sum(jnp.where(tokens != PAD, chosen, 0), axis=-1)


def create(captioner, scorer, **changes):
  arguments = dict(
    fields=model.IMAGE_FIELDS,
    inputs=model.image_inputs,
    num_samples=4,
    baseline='leave_one_out',
    max_length=T,
    key=jax.random.key(7),
  )
  return self_critical.SelfCritical(
    captioner, scorer, **{**arguments, **changes}
  )


def run(sample, variables, batch, step=0):
  """The training batch as one: [B, ...], and the means."""
  sharded, means = sample(
    parallel.replicate(variables), batch, parallel.shard(batch), step
  )
  devices = jax.local_device_count()
  assert {x.shape[0] for x in sharded.values()} == {devices}
  joined = jax.tree.map(
    lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), sharded
  )
  return joined, means


def all_captions():
  """Every caption of at most T words: i32[N, T]."""
  words = [EOS, vocabulary_lib.UNK_ID, 4, 5]
  captions = []
  for n in range(T):
    captions += [[*s, EOS] for s in itertools.product(words[1:], repeat=n)]
  captions += list(itertools.product(words[1:], repeat=T))
  return np.array([[*s, *[PAD] * (T - len(s))] for s in captions], np.int32)


@pytest.mark.parametrize('baseline', self_critical.BASELINES)
def test_gradient_is_that_of_the_expected_reward(scorer, baseline):
  captioner = model.Captioner(
    decoder=show_and_tell.ShowAndTell(**SIZES, dropout_rate=0.0)
  )
  batch = make_batch(32)
  variables = initialize(captioner, batch)

  captions = all_captions()
  assert len(captions) == 1 + 3 + 9 + 27
  everything = np.broadcast_to(captions, (2, *captions.shape))
  two = {name: x[:2] for name, x in batch.items()}
  rewards = scorer.submit(everything, two['tokens']).result()

  @jax.jit
  def expected_reward(variables):
    probs = jnp.exp(log_probs(captioner, variables, two, everything))
    return jnp.mean(jnp.sum(probs * rewards, -1)), jnp.sum(probs, -1)

  @jax.jit
  def loss(variables, batch):
    """As in training: advantage * cross-entropy, over the captions."""
    costs = -log_probs(captioner, variables, batch, batch['tokens'])
    return jnp.sum(batch['advantage'] * costs) / costs.size

  def flat(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])

  exact, sums = jax.grad(expected_reward, has_aux=True)(variables)
  np.testing.assert_allclose(sums, 1, rtol=1e-5)
  exact = flat(exact)
  gradient = jax.jit(jax.grad(loss))
  sample = create(captioner, scorer, baseline=baseline)
  estimates = np.stack(
    [
      -flat(gradient(variables, run(sample, variables, batch, step)[0]))
      for step in range(60)
    ]
  )
  # Along the gradient: within three standard errors, and these are small.
  length = np.linalg.norm(exact)
  along = estimates @ exact / length
  error = along.std(ddof=1) / np.sqrt(len(along))
  assert abs(along.mean() - length) < 3 * error
  assert error < 0.04 * length
  # In all directions: squares of normal variables, whose mean is one.
  moves = estimates.std(axis=0) > 1e-9
  errors = estimates.std(axis=0, ddof=1)[moves] / np.sqrt(len(estimates))
  z = (estimates.mean(axis=0) - exact)[moves] / errors
  assert np.mean(z**2) < 2
  np.testing.assert_allclose(exact[~moves], 0, atol=1e-6)


class Constant:
  """Every caption is worth the same."""

  def submit(self, samples, references):
    self.rewards = np.full(samples.shape[:2], 0.1, np.float32)
    return self

  def result(self):
    return self.rewards


@pytest.mark.parametrize('baseline', self_critical.BASELINES)
def test_equal_rewards_change_nothing(baseline):
  captioner = model.Captioner(
    decoder=show_and_tell.ShowAndTell(**SIZES, dropout_rate=0.0)
  )
  batch = make_batch(2)
  variables = initialize(captioner, batch)
  sample = create(captioner, Constant(), num_samples=3, baseline=baseline)
  samples, means = run(sample, variables, batch)
  np.testing.assert_array_equal(samples['advantage'], 0)
  assert means['reward'] == means['baseline'] == np.float32(0.1)

  @jax.jit
  @jax.grad
  def gradient(variables):
    costs = -log_probs(captioner, variables, samples, samples['tokens'])
    return jnp.sum(samples['advantage'] * costs)

  for x in jax.tree.leaves(gradient(variables)):
    np.testing.assert_array_equal(x, 0)


def test_advantages_by_hand():
  rewards = np.array([[1.0, 2.0, 6.0], [0.1, 0.1, 0.1]], np.float32)
  np.testing.assert_allclose(
    self_critical.advantages(rewards, None)[0], [-3, -1.5, 4.5]
  )
  np.testing.assert_array_equal(self_critical.advantages(rewards, None)[1], 0)
  np.testing.assert_allclose(
    self_critical.advantages(rewards, np.array([2.0, 0.1], np.float32)),
    [[-1, 0, 4], [0, 0, 0]],
  )


@pytest.mark.parametrize('baseline', self_critical.BASELINES)
def test_parts_and_devices_keep_the_order(scorer, baseline):
  """Each caption is rewarded as one of its own image, on any device."""
  captioner = model.Captioner(
    decoder=show_attend_tell.ShowAttendTell(
      **SIZES, attention=3, dropout_rate=0.0
    )
  )
  batch = make_batch(6, num_locations=np.array([4, 1, 2] * 4, np.int32))
  batch['features'] *= np.arange(1, 13, dtype=np.float32)[:, None, None]
  batch['tokens'] = encode([CAPTIONS[i % 2][::-1] for i in range(12)])
  batch['tokens'][3:5] = encode([['y y y', 'y']] * 2)
  variables = initialize(captioner, batch)

  def greedy(variables, batch):
    inputs = batch['features'], batch['num_locations']
    carry, context = captioner.apply(variables, *inputs, method='begin')
    return search.greedy(
      lambda carry, tokens: captioner.apply(
        variables, carry, tokens, context, method='step'
      ),
      carry,
      bos=vocabulary_lib.BOS_ID,
      eos=EOS,
      max_length=T,
      constraints=search.Constraints(forbidden=(PAD, vocabulary_lib.BOS_ID)),
    ).tokens

  likeliest = jax.jit(greedy)(variables, batch)
  of_greedy = scorer.submit(np.asarray(likeliest), batch['tokens']).result()
  assert of_greedy.std() > 0.01
  for parts in (1, 2) if baseline == 'greedy' else (3,):
    sample = create(captioner, scorer, baseline=baseline, parts=parts)
    samples, means = run(sample, variables, batch)
    assert set(samples) == {'features', 'num_locations', 'tokens', 'advantage'}
    np.testing.assert_array_equal(samples['features'], batch['features'])
    np.testing.assert_array_equal(
      samples['num_locations'], batch['num_locations']
    )
    rewards = scorer.submit(samples['tokens'], batch['tokens']).result()
    greedy = of_greedy[:, 0] if baseline == 'greedy' else None
    np.testing.assert_array_equal(
      samples['advantage'], self_critical.advantages(rewards, greedy)
    )
    base = rewards if greedy is None else greedy
    lengths = (samples['tokens'] != PAD).sum(-1)
    assert means == {
      'reward': pytest.approx(rewards.mean()),
      'baseline': pytest.approx(base.mean()),
      'length': pytest.approx(lengths.mean()),
    }


def test_samples_depend_on_step_device_and_part_and_on_nothing_else(scorer):
  captioner = model.Captioner(
    decoder=show_and_tell.ShowAndTell(**SIZES, dropout_rate=0.5)
  )
  batch = make_batch(8)
  # One image, so that only the samples differ.
  batch['features'][:] = batch['features'][0]
  variables = initialize(captioner, batch)
  sample = create(captioner, scorer)
  samples = [
    run(sample, variables, batch, step)[0]['tokens'] for step in (3, 4)
  ]
  parts = np.stack(samples).reshape(2 * 2 * 2, -1)
  assert len(np.unique(parts, axis=0)) == len(parts)
  assert not np.isin(parts, [vocabulary_lib.BOS_ID]).any()
  resumed, _ = run(create(captioner, scorer), variables, batch, 4)
  np.testing.assert_array_equal(resumed['tokens'], samples[1])


def test_hard_attention_and_dropout_have_their_keys(scorer):
  def samples(**options):
    captioner = model.Captioner(
      decoder=show_attend_tell.ShowAttendTell(**SIZES, attention=3, **options)
    )
    batch = make_batch(4)
    variables = initialize(captioner, batch)
    return run(create(captioner, scorer), variables, batch)[0]['tokens']

  plain = samples(dropout_rate=0.0)
  assert (samples(dropout_rate=0.9) != plain).any()
  assert (samples(dropout_rate=0.0, hard=True) != plain).any()


class Dice(nn.Module):
  """Says what its dropout key says, the same in all captions."""

  def begin(self, images, num_locations=None, *, train):
    del num_locations, train
    return jnp.zeros((len(images), 1, 1)), None

  def step(self, carry, tokens, context, *, train):
    del context
    logits = jnp.zeros(5)
    if train:
      logits = jax.random.permutation(
        self.make_rng('dropout'), 1e3 * jnp.eye(5)[0]
      )
    # Neither EOS nor what is never sampled.
    return carry, jnp.broadcast_to(
      jnp.concatenate([jnp.full(3, -1e9), logits]), (*tokens.shape, 8)
    )


def test_every_word_drops_out_other_units():
  batch = make_batch(2)
  sample = create(Dice(), Constant(), max_length=12)
  tokens = run(sample, {}, batch)[0]['tokens']
  # All captions of a device's part are alike, their words are not.
  parts = tokens.reshape(4, -1, 12)
  assert (parts == parts[:, :1]).all()
  assert len(np.unique(parts[:, 0], axis=0)) == 4
  assert all(len(set(words)) > 2 for words in parts[:, 0].tolist())


@pytest.mark.parametrize(
  'changes, message',
  [
    (dict(baseline='mean'), "'mean' is none of leave_one_out, greedy"),
    (dict(num_samples=1), 'num_samples=1 must be at least 2'),
    (dict(num_samples=0, baseline='greedy'), 'must be at least 1'),
  ],
)
def test_bad_options_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    create(None, None, **changes)
