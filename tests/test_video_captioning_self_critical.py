"""Self-critical training of captioners of clips."""

import itertools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from captioning import rewards as rewards_lib
from captioning import self_critical
from captioning import vocabulary as vocabulary_lib
from training import parallel
from video.captioning import losses
from video.captioning import model

L, D, T = 3, 4, 2
PAD, BOS, EOS = (
  vocabulary_lib.PAD_ID,
  vocabulary_lib.BOS_ID,
  vocabulary_lib.EOS_ID,
)
VOCABULARY = vocabulary_lib.Vocabulary([*vocabulary_lib.SPECIAL, 'x', 'y'])
CAPTIONS = [['x y', 'x'], ['y y', 'x']]
ATTENDS = dict(attention=3, encoder_features=4, bidirectional=False)
DECODERS = [('temporal_attention', ATTENDS), ('s2vt', {}), ('mean_pool', {})]


@pytest.fixture
def scorer(tmp_path):
  frequencies = rewards_lib.count_split(
    tmp_path,
    [*CAPTIONS, ['x'], ['y']],
    fingerprint='',
    vocabulary=VOCABULARY,
    max_length=4,
    workdir=tmp_path,
  )
  with rewards_lib.Rewards(frequencies, bleu=0.5) as scorer:
    yield scorer


def make_batch(repeats):
  rng = np.random.default_rng(0)
  tokens = [[VOCABULARY.encode(c, 4) for c in some] for some in CAPTIONS]
  return {
    'frames': rng.normal(size=(2 * repeats, L, D)).astype(np.float32),
    'length': np.array([3, 2] * repeats, np.int32),
    'tokens': np.tile(np.array(tokens), (repeats, 1, 1)),
  }


def create(name, arguments, **fields):
  network = model.Captioner(
    decoder=model.DECODERS[name](
      vocab_size=len(VOCABULARY),
      bos=BOS,
      features=4,
      embedding=3,
      dropout_rate=0.0,
      **arguments,
    ),
    **fields,
  )
  shapes = jax.eval_shape(
    lambda key: network.init(key, *model.inputs(make_batch(1)), train=False),
    jax.random.key(0),
  )
  rng = np.random.default_rng(1)
  return network, jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(np.float32), shapes
  )


def all_captions():
  """Every caption of at most T words: i32[N, T]."""
  words = [vocabulary_lib.UNK_ID, 4, 5]
  captions = [
    [*start, EOS, *[PAD] * (T - n - 1)]
    for n in range(T)
    for start in itertools.product(words, repeat=n)
  ]
  return np.array([*captions, *itertools.product(words, repeat=T)], np.int32)


@pytest.mark.parametrize(('name', 'arguments'), DECODERS)
def test_gradient_of_the_loss_is_that_of_the_expected_reward(
  name, arguments, scorer
):
  """Over all captions, each with its probability in place of samples."""
  network, variables = create(name, arguments)
  batch = make_batch(1)
  captions = np.broadcast_to(all_captions(), (2, 13, T))
  rewards = scorer.submit(captions, batch['tokens']).result()
  everything = {**batch, 'tokens': captions}

  def probabilities(variables):
    logits, _ = network.apply(variables, *model.inputs(everything), train=False)
    # The words that samples hold.
    logits = jax.nn.log_softmax(logits[..., 2:])
    chosen = jnp.take_along_axis(
      logits, jnp.maximum(captions - 2, 0)[..., None], -1
    )[..., 0]
    return jnp.exp(jnp.sum(jnp.where(captions != PAD, chosen, 0), -1))

  p = jax.jit(probabilities)(variables)
  np.testing.assert_allclose(jnp.sum(p, -1), 1, rtol=1e-5)
  everything['advantage'] = 13 * p * rewards
  loss = losses.create(
    network, ml_collections.ConfigDict(dict(label_smoothing=0.1))
  )
  gradient = jax.grad(
    lambda variables: loss(
      variables, everything, losses.counts(everything), 0, jax.random.key(0)
    )[0]
  )
  exact = jax.grad(
    lambda variables: -jnp.mean(jnp.sum(probabilities(variables) * rewards, -1))
  )
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-6),
    jax.jit(gradient)(variables),
    jax.jit(exact)(variables),
  )


@pytest.mark.parametrize('baseline', self_critical.BASELINES)
def test_samples_are_rewarded_as_those_of_their_clip(scorer, baseline):
  network, variables = create(*DECODERS[0])
  batch = make_batch(4)
  batch['frame_labels'] = np.arange(8 * L, dtype=np.int32).reshape(8, L)
  sample = self_critical.SelfCritical(
    network,
    scorer,
    fields=model.CLIP_FIELDS,
    inputs=model.clip_inputs,
    num_samples=3,
    baseline=baseline,
    max_length=T,
    key=jax.random.key(7),
  )
  sharded, means = sample(
    parallel.replicate(variables), batch, parallel.shard(batch), 0
  )
  made = {k: np.asarray(x).reshape(8, *x.shape[2:]) for k, x in sharded.items()}
  for name in model.CLIP_FIELDS:
    np.testing.assert_array_equal(made[name], batch[name])
  assert made.keys() == {*model.CLIP_FIELDS, 'tokens', 'advantage'}
  rewards = scorer.submit(made['tokens'], batch['tokens']).result()
  if baseline == 'greedy':
    offsets = rewards - made['advantage']
    np.testing.assert_allclose(
      offsets, offsets[:, :1].repeat(3, axis=1), rtol=1e-5, atol=1e-5
    )
  else:
    np.testing.assert_array_equal(
      made['advantage'], self_critical.advantages(rewards, None)
    )
  assert means['reward'] == pytest.approx(rewards.mean())
