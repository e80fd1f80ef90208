import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from recurrent import search

BOS, EOS, PAD = 1, 2, 0


def model(num_words, units=6, scale=2.0):
  """A random recurrent network: `step`, and its log-probabilities in numpy."""
  keys = jax.random.split(jax.random.key(num_words), 3)
  embedding = jax.random.normal(keys[0], (num_words, units))
  recurrent = jax.random.normal(keys[1], (units, units))
  readout = scale * jax.random.normal(keys[2], (units, num_words))
  weights = [np.float64(x) for x in (recurrent, embedding, readout)]

  def step(carry, tokens):
    hidden = jnp.tanh(carry['hidden'] @ recurrent + embedding[tokens])
    return {'hidden': hidden}, hidden @ readout

  def log_probs_of(hidden, tokens):
    """Of each token of one sequence, teacher forced."""
    result, last = [], BOS
    for token in tokens:
      hidden = np.tanh(hidden @ weights[0] + weights[1][last])
      logits = hidden @ weights[2]
      result.append(logits[token] - np.logaddexp.reduce(logits))
      last = token
    return np.array(result)

  return step, log_probs_of


def start(num_items, num_sequences=1, units=6):
  hidden = jax.random.normal(jax.random.key(9), (num_items, 1, units))
  hidden = jnp.broadcast_to(hidden, (num_items, num_sequences, units))
  return {'hidden': hidden}


def options(**kwargs):
  return {'bos': BOS, 'eos': EOS, 'pad': PAD, **kwargs}


def sequences_of(num_words, max_length, forbid):
  """All sequences that end with EOS, or that are full without it."""
  words = [w for w in range(num_words) if w != EOS and w not in forbid]
  for length in range(max_length):
    for prefix in itertools.product(words, repeat=length):
      yield (*prefix, EOS)
  yield from itertools.product(words, repeat=max_length)


def check(found, log_probs_of, carry, length_penalty=0.0):
  """Lengths, padding and log-probabilities agree with the tokens."""
  tokens, lengths = np.asarray(found.tokens), np.asarray(found.lengths)
  hidden = np.asarray(carry['hidden'])
  for b, k in np.ndindex(lengths.shape):
    length = lengths[b, k]
    real = tokens[b, k, :length]
    assert EOS not in real[:-1]
    assert length == tokens.shape[-1] or real[-1] == EOS
    np.testing.assert_array_equal(tokens[b, k, length:], PAD)
    expected = log_probs_of(hidden[b, 0], real).sum()
    np.testing.assert_allclose(found.log_probs[b, k], expected, rtol=1e-4)
    np.testing.assert_allclose(
      found.scores[b, k], expected / length**length_penalty, rtol=1e-4
    )


@pytest.mark.parametrize(
  'length_penalty, forbid', [(0.0, ()), (0.7, ()), (1.0, (PAD, BOS))]
)
def test_a_wide_beam_finds_every_sequence_in_order(length_penalty, forbid):
  num_words, max_length = 4, 3
  step, log_probs_of = model(num_words)
  carry = start(2)
  universe = list(sequences_of(num_words, max_length, forbid))
  found = search.beam_search(
    step,
    carry,
    **options(max_length=max_length, forbid=forbid),
    beam_size=len(universe) + 2,
    length_penalty=length_penalty,
  )
  hidden = np.asarray(carry['hidden'])
  for b in range(2):
    scores = {
      tokens: log_probs_of(hidden[b, 0], tokens).sum()
      / len(tokens) ** length_penalty
      for tokens in universe
    }
    expected = sorted(universe, key=scores.get, reverse=True)
    actual = [
      tuple(tokens[:length])
      for tokens, length in zip(
        found.tokens[b].tolist(), found.lengths[b].tolist(), strict=True
      )
    ]
    # Two beams more than there are sequences: those do not exist.
    assert actual == [*expected, (), ()]
    np.testing.assert_allclose(
      found.scores[b, :-2], [scores[s] for s in expected], rtol=1e-4
    )
    np.testing.assert_array_equal(found.log_probs[b, -2:], -np.inf)
    np.testing.assert_array_equal(found.tokens[b, -2:], PAD)
  # Finished and unfinished sequences both took part.
  ended = [EOS in sequence for sequence in actual[:-2]]
  assert any(ended) and not all(ended)


@pytest.mark.parametrize('length_penalty', [0.0, 0.7])
def test_beam_search_equals_its_definition(length_penalty):
  """A narrow beam, against the candidates spelled out one by one."""
  num_words, max_length, beam_size = 8, 7, 3
  step, log_probs_of = model(num_words, scale=1.0)
  carry = start(5)
  found = search.beam_search(
    step,
    carry,
    **options(max_length=max_length),
    beam_size=beam_size,
    length_penalty=length_penalty,
  )
  check(found, log_probs_of, carry, length_penalty)
  hidden = np.asarray(carry['hidden'])
  num_displaced = 0
  for b in range(5):

    def score(tokens, first=hidden[b, 0]):
      return log_probs_of(first, tokens).sum() / len(tokens) ** length_penalty

    beams = [()]
    for _ in range(max_length):
      candidates = []
      for beam in beams:
        if EOS in beam:
          candidates.append(beam)
        else:
          candidates.extend((*beam, word) for word in range(num_words))
      finished = {beam for beam in beams if EOS in beam}
      beams = sorted(candidates, key=score, reverse=True)[:beam_size]
      num_displaced += len(finished - set(beams))
    assert [
      tuple(tokens[:length])
      for tokens, length in zip(
        found.tokens[b].tolist(), found.lengths[b].tolist(), strict=True
      )
    ] == beams
  # The case that is easily wrong: a live beam displaces a finished one.
  assert num_displaced > 0 or length_penalty == 0


def test_scores_descend():
  step, _ = model(30)
  found = search.beam_search(
    step, start(4), **options(max_length=8), beam_size=5, length_penalty=0.7
  )
  assert np.all(np.diff(found.scores, axis=1) <= 0)
  assert np.all(np.diff(found.log_probs, axis=1) != 0)


@pytest.mark.parametrize(
  'length_penalty, forbid', [(0.0, ()), (1.0, (PAD, BOS, 5))]
)
def test_a_beam_of_one_is_greedy(length_penalty, forbid):
  step, log_probs_of = model(30, scale=0.5)
  carry = start(16)
  arguments = options(max_length=9, forbid=forbid)
  greedy = search.greedy(step, carry, **arguments)
  beam = search.beam_search(
    step, carry, **arguments, beam_size=1, length_penalty=length_penalty
  )
  np.testing.assert_array_equal(beam.tokens, greedy.tokens)
  np.testing.assert_array_equal(beam.lengths, greedy.lengths)
  np.testing.assert_allclose(beam.log_probs, greedy.log_probs, rtol=1e-6)
  check(greedy, log_probs_of, carry)
  assert not np.isin(greedy.tokens[:, :, 0], forbid).any()


def test_greedy_is_the_argmax_of_every_step():
  step, _ = model(30)
  carry = start(3)
  found = search.greedy(step, carry, **options(max_length=6))
  last = jnp.full((3, 1), BOS)
  for t in range(6):
    carry, logits = step(carry, last)
    last = jnp.argmax(logits, -1)
    live = np.asarray(found.lengths) > t
    np.testing.assert_array_equal(
      found.tokens[:, :, t], np.where(live, last, PAD)
    )
    last = found.tokens[:, :, t]


def memoryless(logits, ending=None):
  """Equal logits at every step, but only EOS is possible at step `ending`."""

  def step(carry, tokens):
    shape = (*tokens.shape, len(logits))
    values = jnp.broadcast_to(jnp.asarray(logits, jnp.float32), shape)
    if ending is not None:
      end = jnp.where(jnp.arange(len(logits)) == EOS, 0, -jnp.inf)
      values = jnp.where((carry == ending - 1)[..., None], end, values)
    return carry + 1, values

  return step


def draw(logits, num_draws=20_000, max_length=1, **kwargs):
  # EOS beyond the vocabulary: no sequence ends, every draw counts.
  arguments = options(max_length=max_length) | {'eos': len(logits)}
  return search.sample(
    memoryless(logits),
    jnp.zeros((2, num_draws // 2), jnp.int32),
    **arguments,
    key=jax.random.key(0),
    **kwargs,
  )


def assert_drawn_from(tokens, probs):
  counts = np.bincount(np.ravel(tokens), minlength=len(probs))
  assert np.all(counts[probs == 0] == 0)
  likely = probs > 0
  if likely.sum() == 1:
    return
  expected = probs[likely] / probs[likely].sum() * counts.sum()
  assert expected.min() > 5  # Or the test of Pearson does not hold.
  assert stats.chisquare(counts[likely], expected).pvalue > 0.01


@pytest.mark.parametrize(
  'num_words, temperature', [(2, 1.0), (23, 1.5), (64, 0.5)]
)
def test_samples_follow_the_distribution(num_words, temperature):
  logits = np.random.default_rng(0).uniform(-1, 1, size=num_words)
  found = draw(logits, temperature=temperature)
  assert_drawn_from(found.tokens, np.exp(logits / temperature))
  # The log-probabilities are the model's, whatever the temperature.
  log_probs = logits - np.logaddexp.reduce(logits)
  np.testing.assert_allclose(
    found.log_probs, log_probs[np.asarray(found.tokens[..., 0])], rtol=1e-4
  )


def test_successive_samples_are_independent():
  logits = np.random.default_rng(1).normal(size=5)
  first, second = np.moveaxis(
    np.asarray(draw(logits, max_length=2).tokens), 2, 0
  )
  probs = np.exp(logits)
  assert_drawn_from(5 * first + second, np.outer(probs, probs).ravel())
  # And so are sequences next to each other.
  assert_drawn_from(
    5 * first[:, ::2] + first[:, 1::2], np.outer(probs, probs).ravel()
  )


def test_top_k_draws_among_the_likeliest_only():
  logits = np.random.default_rng(2).normal(size=20)
  found = draw(logits, top_k=4)
  kept = np.isin(np.arange(20), np.argsort(logits)[-4:])
  assert_drawn_from(found.tokens, np.exp(logits) * kept)


@pytest.mark.parametrize('top_p', [0.05, 0.5, 0.9])
def test_top_p_draws_from_the_nucleus_only(top_p):
  logits = np.random.default_rng(3).normal(size=20)
  found = draw(logits, top_p=top_p, temperature=0.8)
  probs = np.exp(logits / 0.8)
  probs = probs / probs.sum()
  order = np.argsort(-probs)
  size = np.searchsorted(np.cumsum(probs[order]), top_p) + 1
  kept = np.isin(np.arange(20), order[:size])
  assert_drawn_from(found.tokens, probs * kept)


def test_top_p_after_top_k_is_a_share_of_what_is_left():
  probs = np.array([0.05, 0.4, 0.3, 0.25])
  # Of 0.7: 0.4 is 57 %, so the third of them is not needed for 55 %.
  found = draw(np.log(probs), top_k=2, top_p=0.55)
  assert_drawn_from(found.tokens, probs * [0, 1, 0, 0])


def test_forbidden_tokens_are_never_drawn():
  logits = np.random.default_rng(4).normal(size=20)
  logits[3] = 30.0
  found = draw(logits, forbid=(0, 3, 19))
  kept = ~np.isin(np.arange(20), [0, 3, 19])
  assert_drawn_from(found.tokens, np.exp(logits) * kept)


def test_zero_probability_is_never_drawn_at_either_end():
  probs = jnp.array([0.0, 0.0, 1e-30, 0.0, 1.0, 0.0, 0.0])
  for uniform in (0.0, 1e-7, 0.5, 1 - 2**-24):
    assert search._inverse_cdf(probs, jnp.float32(uniform)) in (2, 4)


def test_sampling_needs_a_key():
  with pytest.raises(ValueError, match='key='):
    search.sample(memoryless([0.0, 1.0]), start(1), **options(max_length=1))


def test_beam_search_starts_from_one_sequence():
  step, _ = model(5)
  with pytest.raises(ValueError, match=r'\[B, 1, ...\]'):
    search.beam_search(step, start(2, 3), **options(max_length=4), beam_size=3)


def methods():
  def beam(step, carry, **kwargs):
    return search.beam_search(
      step, jax.tree.map(lambda x: x[:, :1], carry), beam_size=4, **kwargs
    )

  def sample(step, carry, **kwargs):
    return search.sample(
      step, carry, key=jax.random.key(1), top_k=5, top_p=0.9, **kwargs
    )

  return pytest.mark.parametrize('method', [search.greedy, sample, beam])


@methods()
def test_jit_changes_nothing_and_log_probs_are_the_models(method):
  step, log_probs_of = model(12)
  carry = start(3, 4)

  def run(carry):
    return method(step, carry, **options(max_length=6))

  found = run(carry)
  check(found, log_probs_of, carry)
  jitted = jax.jit(run)(carry)
  np.testing.assert_array_equal(jitted.tokens, found.tokens)
  np.testing.assert_allclose(jitted.log_probs, found.log_probs, rtol=1e-5)


@methods()
@pytest.mark.parametrize('batch_endings', [[1, 1], [2, 4], [3, 99]])
def test_the_search_stops_when_all_have_ended(method, batch_endings):
  endings = np.array(batch_endings)
  # No EOS but at its time; every other word equally likely.
  logits = np.array([-50.0, -50.0, -50.0, 0.0, 0.1, 0.2, 0.3, 0.4])
  inner = memoryless(logits, ending=jnp.asarray(endings)[:, None])
  calls = []

  def step(carry, tokens):
    calls.append(tokens.shape)
    return inner(carry, tokens)

  max_length = 6
  with jax.disable_jit():  # A while loop is then one of Python's.
    found = method(
      step,
      jnp.zeros((2, 4), jnp.int32),
      **options(max_length=max_length, forbid=(PAD, BOS)),
    )
  lengths = np.minimum(endings, max_length)
  assert len(calls) == lengths.max()
  # When the end comes first, there is one sequence only, and no second beam.
  exists = np.asarray(found.log_probs) > -np.inf
  np.testing.assert_array_equal(found.lengths, lengths[:, None] * exists)
  assert exists[:, 0].all()
  real = np.arange(max_length) < np.asarray(found.lengths)[..., None]
  np.testing.assert_array_equal(np.asarray(found.tokens)[~real], PAD)
