import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from recurrent import search

Constraints = search.Constraints

BOS, EOS, PAD = 1, 2, 0

# These tests spend their time compiling: this takes half of it.
jit = functools.partial(
  jax.jit, compiler_options={'xla_backend_optimization_level': 0}
)


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


def obeys(sequence, constraints):
  """Whether a whole sequence does what the rules say, in plain words."""
  *words, last = sequence
  once = [
    token
    for token in sequence
    if constraints.repeatable is not None
    and token not in constraints.repeatable
  ]
  before = words[-1] if words else BOS
  n = constraints.no_repeat_ngram
  ngrams = [sequence[i : i + n] for i in range(len(sequence) - n + 1)]
  return (
    not set(sequence) & set(constraints.forbidden)
    and (n == 0 or constraints.ngram_penalty or len(set(ngrams)) == len(ngrams))
    and len(set(once)) == len(once)
    and not (
      constraints.no_repeat_last
      and any(a == b for a, b in itertools.pairwise(sequence))
    )
    and all(set(sequence) & set(group) for group in constraints.required)
    and (last != EOS or len(words) >= constraints.min_length)
    and (last != EOS or before not in constraints.bad_endings)
  )


def sequences_of(num_words, max_length, constraints):
  """All sequences that end with EOS, or that are full without it."""
  words = [w for w in range(num_words) if w != EOS]
  sequences = [
    (*prefix, EOS)
    for length in range(max_length)
    for prefix in itertools.product(words, repeat=length)
  ]
  sequences += itertools.product(words, repeat=max_length)
  return [sequence for sequence in sequences if obeys(sequence, constraints)]


def sequences_in(found, item):
  """The tokens of an item's sequences, without padding."""
  tokens, lengths = found.tokens[item].tolist(), found.lengths[item].tolist()
  return [
    tuple(row[:length]) for row, length in zip(tokens, lengths, strict=True)
  ]


def run_beam(step, carry, **kwargs):
  """Beam search, compiled."""
  arguments = options(max_length=7, length_penalty=0.7) | kwargs
  return jit(lambda carry: search.beam_search(step, carry, **arguments))(carry)


def check(found, log_probs_of, carry, length_penalty=0.0):
  """Lengths, padding and log-probabilities agree with the tokens."""
  tokens, lengths = np.asarray(found.tokens), np.asarray(found.lengths)
  hidden = np.asarray(carry['hidden'])
  for b, k in np.ndindex(lengths.shape):
    length = lengths[b, k]
    real = tokens[b, k, :length]
    np.testing.assert_array_equal(tokens[b, k, length:], PAD)
    if length == 0:
      assert found.log_probs[b, k] == found.scores[b, k] == -np.inf
      continue
    assert EOS not in real[:-1]
    assert length == tokens.shape[-1] or real[-1] == EOS
    expected = log_probs_of(hidden[b, 0], real).sum()
    np.testing.assert_allclose(found.log_probs[b, k], expected, rtol=1e-4)
    np.testing.assert_allclose(
      found.scores[b, k], expected / length**length_penalty, rtol=1e-4
    )


# Each by itself, and in company. In one nothing but dead ends: of two words
# there are not three that differ.
RULES = (
  Constraints(),
  Constraints(forbidden=(PAD, BOS)),
  Constraints(min_length=3),
  Constraints(min_length=4),
  Constraints(no_repeat_ngram=1),
  Constraints(no_repeat_ngram=2),
  Constraints(no_repeat_ngram=3),
  Constraints(bad_endings=(BOS, 3)),
  Constraints(required=((3,),)),
  Constraints(required=((PAD, 3), (3, BOS))),
  Constraints(required=((PAD,), (BOS,), (3,))),
  Constraints(
    forbidden=(PAD,), min_length=1, no_repeat_ngram=2, bad_endings=(3,)
  ),
  Constraints(forbidden=(PAD,), min_length=3, no_repeat_ngram=1),
  Constraints(no_repeat_last=True),
  Constraints(repeatable=(3,)),
  Constraints(repeatable=()),
  Constraints(no_repeat_ngram=2, ngram_penalty=0.7),
  Constraints(no_repeat_last=True, repeatable=(BOS, 3), min_length=3),
  Constraints(bad_endings=(3,), required=((3,),)),
  Constraints(
    forbidden=(BOS,),
    min_length=3,
    no_repeat_ngram=2,
    bad_endings=(BOS,),
    required=((3, BOS),),
  ),
)


@pytest.mark.parametrize(
  'length_penalty, constraints',
  [(0.0, Constraints()), *((0.7, x) for x in RULES)],
)
def test_a_wide_beam_finds_every_sequence_in_order(length_penalty, constraints):
  """All that obey the rules, against a list of all that there are."""
  num_words, max_length = 4, 4
  step, log_probs_of = model(num_words)
  carry = start(2)
  universe = sequences_of(num_words, max_length, constraints)
  # As wide as that for the beams that do not obey yet.
  width = len(sequences_of(num_words, max_length, Constraints())) + 2
  found = run_beam(
    step,
    carry,
    max_length=max_length,
    constraints=constraints,
    beam_size=width,
    length_penalty=length_penalty,
  )
  check(found, log_probs_of, carry, length_penalty)
  hidden = np.asarray(carry['hidden'])
  for b in range(2):
    scores = {
      tokens: log_probs_of(hidden[b, 0], tokens).sum()
      / len(tokens) ** length_penalty
      for tokens in universe
    }
    expected = sorted(universe, key=scores.get, reverse=True)
    # More beams than there are sequences: those do not exist.
    missing = width - len(universe)
    assert sequences_in(found, b) == [*expected, *[()] * missing]
    np.testing.assert_array_equal(found.log_probs[b, -missing:], -np.inf)


def test_the_list_of_all_sequences_has_the_cases_of_interest():
  sizes = [len(sequences_of(4, 4, constraints)) for constraints in RULES]
  assert sizes.count(0) == 1 and max(sizes) == sizes[0] == 40 + 81
  ended = [
    [EOS in s for s in sequences_of(4, 4, constraints)] for constraints in RULES
  ]
  assert sum(any(x) and not all(x) for x in ended) >= 12


def search_by_definition(
  log_probs_of,
  num_words,
  max_length,
  width,
  score,
  constraints,
  num_groups=1,
  diversity_penalty=0.0,
  shrink_beam=False,
):
  """The sequences that every group sets aside, candidate by candidate.

  A beam is (tokens, its penalties).

  Args:
    log_probs_of: of the tokens of a sequence.
    num_words: V.
    max_length: T.
    width: beams of a group.
    score: of a log-probability and a length.
    constraints: on the sequences.
    num_groups: see `search.beam_search`.
    diversity_penalty: see `search.beam_search`.
    shrink_beam: see `search.beam_search`.

  Returns:
    The sequences of all groups, best first, and how many beams would have been
    displaced by live ones, did those that have ended compete with them.
  """

  def met(tokens):
    return tuple(
      bool(set(tokens) & set(group)) for group in constraints.required
    )

  def rank(beam):
    tokens, paid = beam
    return log_probs_of(tokens).sum() - paid

  def value(beam):
    return score(rank(beam), len(beam[0]))

  def repeats(tokens):
    """How often the last n-gram has occurred before."""
    n = constraints.no_repeat_ngram
    if not constraints.ngram_penalty or len(tokens) < n:
      return 0
    ngrams = [tokens[i : i + n] for i in range(len(tokens) - n + 1)]
    return ngrams[:-1].count(ngrams[-1])

  # Rules of the whole apply to a beginning, but for what must yet come.
  beginning = dataclasses.replace(constraints, required=())
  live = [[((), 0.0)] for _ in range(num_groups)]
  ended = [[] for _ in range(num_groups)]
  num_worse = 0
  for time in range(max_length):
    taken = np.zeros(num_words)
    for group in range(num_groups):
      costs = diversity_penalty * taken
      candidates = []
      for tokens, paid in live[group]:
        for word in range(num_words):
          new = (*tokens, word)
          if obeys(new, constraints if word == EOS else beginning):
            cost = costs[word] + constraints.ngram_penalty * repeats(new)
            candidates.append((new, paid + cost))
      chosen = []
      room = width - shrink_beam * len(ended[group])
      for subset in itertools.product(
        [False, True], repeat=len(constraints.required)
      ):
        fit = [x for x in candidates if met(x[0]) == subset]
        chosen += sorted(fit, key=rank, reverse=True)[:room]
      for tokens, _ in chosen:
        taken[tokens[-1]] += 1
      ended[group] += [x for x in chosen if EOS in x[0]]
      ended[group] = sorted(ended[group], key=value, reverse=True)[:width]
      live[group] = [x for x in chosen if EOS not in x[0]]
      if live[group] and ended[group]:
        best = value(max(live[group], key=rank))
        num_worse += best > value(ended[group][-1])
      if len(ended[group]) == width and live[group]:
        best = rank(max(live[group], key=rank))
        future = range(min(time + 2, max_length), max_length + 1)
        if all(score(best, n) <= value(ended[group][-1]) for n in future):
          live[group] = []
  for group in range(num_groups):
    ended[group] += [x for x in live[group] if obeys(x[0], constraints)]
    ended[group] = sorted(ended[group], key=value, reverse=True)[:width]
  found = [tokens for group in ended for tokens, _ in group]
  found.sort(
    key=lambda tokens: score(log_probs_of(tokens).sum(), len(tokens)),
    reverse=True,
  )
  return found, num_worse


def power(exponent):
  return lambda log_prob, length: log_prob / length**exponent


def gnmt(exponent):
  return lambda log_prob, length: log_prob / ((5 + length) / 6) ** exponent


@pytest.mark.parametrize(
  'score, kwargs',
  [
    (power(0.0), {}),
    (power(0.7), {'length_penalty': 0.7}),
    (power(1.0), {'length_penalty': 1.0}),
    (power(-0.5), {'length_penalty': -0.5}),
    (gnmt(0.9), {'length_penalty': 0.9, 'length_penalty_form': 'gnmt'}),
    (power(0.7), {'length_penalty': 0.7, 'shrink_beam': True}),
    (
      power(0.7),
      {
        'length_penalty': 0.7,
        'constraints': Constraints(
          min_length=3, no_repeat_ngram=2, bad_endings=(4, 5)
        ),
      },
    ),
    (
      power(0.0),
      {
        'constraints': Constraints(
          min_length=2, no_repeat_ngram=1, ngram_penalty=0.6
        )
      },
    ),
    (power(0.0), {'constraints': Constraints(required=((7,), (6, 1)))}),
    (
      power(0.7),
      {'length_penalty': 0.7, 'num_groups': 2, 'diversity_penalty': 0.4},
    ),
    (
      power(0.0),
      {
        'num_groups': 3,
        'diversity_penalty': 1.0,
        'constraints': Constraints(
          forbidden=(PAD, BOS),
          no_repeat_ngram=1,
          ngram_penalty=0.3,
        ),
      },
    ),
    (
      power(0.7),
      {
        'length_penalty': 0.7,
        'num_groups': 2,
        'diversity_penalty': 0.4,
        'constraints': Constraints(no_repeat_ngram=1, required=((7,), (6, 1))),
      },
    ),
  ],
)
def test_beam_search_equals_its_definition(score, kwargs):
  """Narrow beams, against the candidates spelled out one by one."""
  num_words, max_length, width = 8, 6, 3
  step, log_probs_of = model(num_words, scale=1.0)
  carry = start(4)
  num_groups = kwargs.get('num_groups', 1)
  arguments = {'length_penalty': 0.0, 'max_length': max_length, **kwargs}
  found = run_beam(step, carry, beam_size=width * num_groups, **arguments)
  hidden = np.asarray(carry['hidden'])
  num_worse = 0
  by_definition = {
    name: value
    for name, value in kwargs.items()
    if not name.startswith('length_penalty')
  }
  by_definition.setdefault('constraints', Constraints())
  for b in range(4):
    cached = functools.cache(
      lambda tokens, first=hidden[b, 0]: log_probs_of(first, tokens)
    )
    expected, worse = search_by_definition(
      cached, num_words, max_length, width, score, **by_definition
    )
    num_worse += worse
    expected += [()] * (width * num_groups - len(expected))
    assert sequences_in(found, b) == expected
    for k, tokens in enumerate(expected):
      if tokens:
        log_prob = cached(tokens).sum()
        np.testing.assert_allclose(found.log_probs[b, k], log_prob, rtol=1e-4)
        np.testing.assert_allclose(
          found.scores[b, k], score(log_prob, len(tokens)), rtol=1e-4
        )
  # The case that is easily wrong: a live beam is better than an ended one.
  assert num_worse > 0


def chain(table):
  """A step whose next token depends on the last one alone: f32[B, V, V]."""

  def step(carry, tokens):
    return carry, jnp.take_along_axis(table, tokens[..., None], axis=1)

  return step


def test_a_live_beam_does_not_displace_one_that_has_ended():
  """P(EOS) = .25 and P(3) = .6 at first, then 4 or 5, then EOS with .4."""
  probs = np.full((7, 7), 1e-9)
  probs[BOS, [EOS, 3, PAD]] = 0.25, 0.6, 0.15
  probs[3, [4, 5]] = 0.5
  probs[4:6, EOS] = 0.4
  probs[4:6, [PAD, 3, 6]] = 0.2
  found = run_beam(
    chain(jnp.log(probs)[None]),
    jnp.zeros((1, 1)),
    beam_size=2,
    length_penalty=0.0,
  )
  np.testing.assert_allclose(np.exp(found.log_probs), [[0.25, 0.12]], rtol=1e-4)
  assert sequences_in(found, 0)[0] == (EOS,)


@pytest.mark.parametrize(
  'length_penalty, num_calls', [(0.0, 2), (1.0, 6), (-1.0, 2)]
)
def test_the_search_stops_when_no_live_beam_can_win(length_penalty, num_calls):
  """EOS has .6, two words .2 each: after two steps .6, .12 and .12 have ended.

  The mean over nine tokens of a live beam may be better than that of the two
  in .12, until the beam is down to .2**6.
  """
  probs = np.full((5, 5), 1e-9)
  probs[:, [EOS, 3, 4]] = 0.6, 0.2, 0.2
  inner = chain(jnp.log(probs)[None])
  calls = []

  def step(carry, tokens):
    calls.append(tokens.shape)
    return inner(carry, tokens)

  with jax.disable_jit():
    search.beam_search(
      step,
      jnp.zeros((1, 1)),
      **options(max_length=9),
      beam_size=3,
      length_penalty=length_penalty,
    )
  assert len(calls) == num_calls


# Case of `beam_table.npz` -> our arguments. Theirs of groups lists one group
# after the other, ours the best first.
PUBLISHED = {
  'plain': {},
  'avg': {'length_penalty': 1.0},
  'wu_0.9': {'length_penalty': 0.9, 'length_penalty_form': 'gnmt'},
  'constraint': {'constraints': Constraints(no_repeat_last=True)},
  'bad_endings': {'constraints': Constraints(bad_endings=(7, 11, 13))},
  'no_unk': {'constraints': Constraints(forbidden=(39,))},
  'groups_3_0.5': {'beam_size': 6, 'num_groups': 3, 'diversity_penalty': 0.5},
  'groups_2_0.2': {'beam_size': 4, 'num_groups': 2, 'diversity_penalty': 0.2},
  'groups_5_0.5': {'num_groups': 5, 'diversity_penalty': 0.5},
}


@pytest.mark.parametrize('kind', ['sharp', 'flat'])
@pytest.mark.parametrize('case', PUBLISHED)
def test_beam_search_equals_the_published_code(golden_file, kind, case):
  """Theirs has one number for BOS, EOS and padding."""
  with np.load(golden_file('captioners/beam_table.npz')) as arrays:
    table = jnp.asarray(arrays[f'{kind}/table'])
    tokens, scores, log_probs = (
      arrays[f'{kind}/{case}/{name}'] for name in ('seq', 'p', 'log_prob')
    )
  grouped = case.startswith('groups')
  if grouped:
    order = np.argsort(-log_probs, axis=1, kind='stable')
    tokens = np.take_along_axis(tokens, order[..., None], axis=1)
    log_probs = scores = np.take_along_axis(log_probs, order, axis=1)
  arguments = {
    'beam_size': 5,
    'group_order': 'staggered' if grouped else 'paper',
    **PUBLISHED[case],
  }
  found = jit(
    lambda carry: search.beam_search(
      chain(table), carry, bos=0, eos=0, max_length=16, **arguments
    )
  )(jnp.zeros((20, 1)))
  np.testing.assert_allclose(found.scores, scores, rtol=1e-5)
  np.testing.assert_allclose(found.log_probs, log_probs, rtol=1e-5)
  same = np.all(found.tokens == tokens, axis=-1)
  # The same pairs of words in another order are exactly as probable.
  pairs = [
    [
      sorted(itertools.pairwise([0, *row.tolist()]))
      for row in sequences[~same].reshape(-1, 16)
    ]
    for sequences in (np.asarray(found.tokens), tokens)
  ]
  assert sorted(pairs[0]) == sorted(pairs[1])
  assert (~same).sum() <= 5


def assert_equal(actual, expected):
  """The same sequences, and the same numbers but for the order of sums."""
  np.testing.assert_array_equal(actual.tokens, expected.tokens)
  np.testing.assert_array_equal(actual.lengths, expected.lengths)
  np.testing.assert_allclose(actual.log_probs, expected.log_probs, rtol=1e-5)
  np.testing.assert_allclose(actual.scores, expected.scores, rtol=1e-5)


def test_one_group_has_nobody_to_differ_from():
  step, _ = model(12)
  plain = run_beam(step, start(8), beam_size=4)
  diverse = run_beam(step, start(8), beam_size=4, diversity_penalty=5.0)
  assert_equal(diverse, plain)


@pytest.mark.parametrize(
  'constraints', [Constraints(), Constraints(required=((5, 6),))]
)
def test_groups_that_may_agree_do(constraints):
  step, _ = model(12)
  one = run_beam(step, start(8), beam_size=2, constraints=constraints)
  three = run_beam(
    step, start(8), beam_size=6, num_groups=3, constraints=constraints
  )
  assert_equal(three, jax.tree.map(lambda x: np.repeat(x, 3, axis=1), one))


def test_groups_differ_more_the_more_it_costs_not_to():
  """One beam a group: at a great price no word is said twice at a time."""
  step, log_probs_of = model(12)
  carry = start(40)
  best = run_beam(step, carry, beam_size=1)
  num_first, mean = [], []
  for diversity_penalty in (0.0, 0.7, 1000.0):
    found = run_beam(
      step,
      carry,
      beam_size=4,
      num_groups=4,
      diversity_penalty=diversity_penalty,
    )
    check(found, log_probs_of, carry, 0.7)
    # The first of the groups is the plain search.
    for b in range(40):
      assert sequences_in(best, b)[0] in sequences_in(found, b)
    num_first.append(sum(len(set(x)) for x in found.tokens[:, :, 0].tolist()))
    mean.append(float(found.log_probs.mean()))
  assert num_first == sorted(set(num_first))
  assert num_first[0] == 40 and num_first[-1] == 4 * 40
  assert mean == sorted(set(mean), reverse=True)
  for b in range(40):
    for words in itertools.zip_longest(*sequences_in(found, b)):
      words = [word for word in words if word is not None]
      assert len(set(words)) == len(words)


def test_scores_descend():
  step, _ = model(30)
  found = run_beam(step, start(4), max_length=8, beam_size=5)
  assert np.all(np.diff(found.scores, axis=1) <= 0)
  assert np.all(np.diff(found.log_probs, axis=1) != 0)


@pytest.mark.parametrize(
  'length_penalty, constraints',
  [
    (0.0, Constraints()),
    (1.0, Constraints(forbidden=(PAD, BOS, 5))),
    (0.7, Constraints(min_length=4, no_repeat_ngram=1, bad_endings=(3, 4))),
  ],
)
def test_a_beam_of_one_is_greedy(length_penalty, constraints):
  step, log_probs_of = model(30, scale=0.5)
  carry = start(16)
  arguments = options(max_length=9, constraints=constraints)
  greedy = jit(lambda carry: search.greedy(step, carry, **arguments))(carry)
  arguments = {'length_penalty': length_penalty, **arguments}
  beam = run_beam(step, carry, beam_size=1, **arguments)
  np.testing.assert_array_equal(beam.tokens, greedy.tokens)
  np.testing.assert_array_equal(beam.lengths, greedy.lengths)
  np.testing.assert_allclose(beam.log_probs, greedy.log_probs, rtol=1e-6)
  check(greedy, log_probs_of, carry)


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
  found = draw(logits, constraints=Constraints(forbidden=(0, 3, 19)))
  kept = ~np.isin(np.arange(20), [0, 3, 19])
  assert_drawn_from(found.tokens, np.exp(logits) * kept)


def test_sampling_needs_a_key():
  with pytest.raises(ValueError, match='key='):
    search.sample(memoryless([0.0, 1.0]), start(1), **options(max_length=1))


def test_beam_search_starts_from_one_sequence():
  step, _ = model(5)
  with pytest.raises(ValueError, match=r'\[B, 1, ...\]'):
    search.beam_search(step, start(2, 3), **options(max_length=4), beam_size=3)


@pytest.mark.parametrize(
  'field', [{'length_penalty_form': 'wu'}, {'group_order': 'first'}]
)
def test_forms_have_names(field):
  step, _ = model(5)
  with pytest.raises(ValueError, match='is none of'):
    run_beam(step, start(2), beam_size=2, **field)


@pytest.mark.parametrize('num_groups', [0, 2, 4])
def test_groups_are_of_one_size(num_groups):
  step, _ = model(5)
  with pytest.raises(ValueError, match='multiple of num_groups'):
    run_beam(step, start(2), beam_size=3, num_groups=num_groups)


@pytest.mark.parametrize(
  'match, constraints',
  [
    ('negative', {'min_length': -1}),
    ('negative', {'no_repeat_ngram': -1}),
    ('pass that too', {'ngram_penalty': 1.0}),
    ('negative', {'no_repeat_ngram': 2, 'ngram_penalty': -1.0}),
    ('at most 6', {'required': ((3,),) * 7}),
    ('not forbidden', {'forbidden': (3,), 'required': ((3,),)}),
    ('not forbidden', {'required': ((),)}),
    ('raise max_length', {'min_length': 4}),
    ('raise max_length', {'required': ((1,), (3,), (4,), (0,))}),
    ('EOS', {'required': ((EOS, 3),)}),
    ('vocabulary', {'required': ((3,), (4, 5))}),
    ('vocabulary', {'required': ((-1,),)}),
  ],
)
def test_rules_that_cannot_be_kept(match, constraints):
  step, _ = model(5)
  with pytest.raises(ValueError, match=match):
    run_beam(
      step,
      start(1),
      beam_size=2,
      max_length=3,
      constraints=Constraints(**constraints),
    )


def test_one_word_may_meet_two_requirements():
  step, _ = model(5)
  constraints = Constraints(required=((3,), (3, 4), (0, 4)))
  found = run_beam(
    step, start(1), beam_size=3, max_length=2, constraints=constraints
  )
  assert obeys(sequences_in(found, 0)[0], constraints)


@pytest.mark.parametrize('method', [search.greedy, search.sample])
def test_only_beams_can_require(method):
  step, _ = model(5)
  with pytest.raises(ValueError, match='use beam_search'):
    method(
      step,
      start(1),
      **options(max_length=4, constraints=Constraints(required=((3,),))),
      **({} if method is search.greedy else {'key': jax.random.key(0)}),
    )


def beam(step, carry, **kwargs):
  return search.beam_search(
    step, jax.tree.map(lambda x: x[:, :1], carry), beam_size=4, **kwargs
  )


def diverse(step, carry, **kwargs):
  return beam(step, carry, num_groups=2, diversity_penalty=0.5, **kwargs)


def sample(step, carry, **kwargs):
  return search.sample(
    step, carry, key=jax.random.key(1), top_k=5, top_p=0.9, **kwargs
  )


@pytest.mark.parametrize(
  'method, extra',
  [(sample, ()), (diverse, ()), (diverse, ((3, 5), (4, 6), (7, 3)))],
)
def test_every_sequence_obeys_the_rules(method, extra):
  """Of a model from a hundred states; without the rules, many do not."""
  step, log_probs_of = model(9, scale=0.8)
  carry = start(100, 4)

  def run(constraints):
    arguments = options(max_length=8, constraints=constraints)
    return jit(lambda carry: method(step, carry, **arguments))(carry)

  free = run(Constraints())
  free = [x for b in range(100) for x in sequences_in(free, b)]
  for constraints in (
    Constraints(forbidden=(PAD, BOS, 8)),
    Constraints(min_length=5, no_repeat_ngram=1),
    Constraints((PAD, BOS), 4, 3, (3, 4, 5, 6)),
    Constraints(no_repeat_last=True, repeatable=(3, 4, PAD)),
  ):
    constraints = dataclasses.replace(constraints, required=extra)
    found = run(constraints)
    check(found, log_probs_of, carry)
    for b in range(100):
      kept = [x for x in sequences_in(found, b) if x]
      assert kept and all(obeys(x, constraints) for x in kept)
    assert not all(obeys(x, constraints) for x in free)


def test_a_dead_end_is_no_beam_and_ends_a_sample():
  """Three words, no word twice, at least five before EOS."""
  step, log_probs_of = model(4)
  constraints = Constraints(min_length=5, no_repeat_ngram=1)
  found = run_beam(
    step, start(3), max_length=6, constraints=constraints, beam_size=2
  )
  np.testing.assert_array_equal(found.lengths, 0)
  np.testing.assert_array_equal(found.log_probs, -np.inf)
  carry = start(3, 20)
  drawn = search.sample(
    step,
    carry,
    **options(max_length=6, constraints=constraints),
    key=jax.random.key(0),
  )
  check(drawn, log_probs_of, carry)
  assert {
    tuple(sorted(tokens)) for tokens in drawn.tokens.reshape(-1, 6).tolist()
  } == {tuple(sorted((PAD, BOS, 3, EOS, PAD, PAD)))}
  np.testing.assert_array_equal(drawn.lengths, 4)
  greedy = search.greedy(
    step, carry, **options(max_length=6, constraints=constraints)
  )
  np.testing.assert_array_equal(greedy.lengths, 4)


def test_a_cut_sequence_has_not_ended():
  """Neither rule of endings concerns it."""
  step, _ = model(4)
  constraints = Constraints(min_length=3, bad_endings=(PAD, BOS, 3))
  found = run_beam(
    step, start(3), max_length=3, constraints=constraints, beam_size=27
  )
  assert set(sequences_in(found, 0)) == set(
    itertools.product((PAD, BOS, 3), repeat=3)
  )


def test_an_ensemble_of_a_model_with_itself_is_the_model():
  step, log_probs_of = model(12)
  together = search.ensemble([step] * 3)
  carry = start(5)
  one = run_beam(step, carry, beam_size=4)
  three = run_beam(together, (carry,) * 3, beam_size=4)
  assert_equal(three, one)
  check(three, log_probs_of, carry, 0.7)


def test_an_ensemble_has_the_mean_probability():
  step, _ = model(6)
  other, _ = model(6, scale=0.3)
  never = memoryless([0.0, -np.inf, 1.0, 0.0, 0.0, -np.inf])
  carries = (start(2, 3), start(2, 3), jnp.zeros((2, 3), jnp.int32))
  tokens = jnp.array([[0, 1, 2], [3, 4, 5]])
  steps = (step, other, never)
  carry, logits = search.ensemble(steps)(carries, tokens)
  apart = [step(own, tokens) for step, own in zip(steps, carries, strict=True)]
  jax.tree.map(
    np.testing.assert_array_equal, carry, tuple(own for own, _ in apart)
  )
  probs = np.mean([jax.nn.softmax(x, axis=-1) for _, x in apart], axis=0)
  np.testing.assert_allclose(np.exp(logits), probs, rtol=1e-5)
  np.testing.assert_allclose(np.exp(logits).sum(-1), 1, rtol=1e-5)
  # What none of them believes in stays impossible, without a NaN.
  _, logits = search.ensemble([never, never])((carries[2],) * 2, tokens)
  assert np.all(logits[..., 1] == -np.inf)


def test_an_ensemble_has_members_and_their_carries():
  with pytest.raises(ValueError, match='at least one'):
    search.ensemble([])
  step, _ = model(5)
  with pytest.raises(ValueError):
    search.ensemble([step, step])((start(1),), jnp.zeros((1, 1), jnp.int32))


@pytest.mark.parametrize('method', [search.greedy, sample, diverse])
def test_jit_changes_nothing_and_log_probs_are_the_models(method):
  step, log_probs_of = model(12)
  carry = start(3, 4)
  constraints = Constraints((PAD,), 3, 2, (4, 5))
  if method is diverse:
    constraints = dataclasses.replace(constraints, required=((7, 8), (9,)))

  def run(carry):
    return method(step, carry, **options(max_length=6, constraints=constraints))

  found = run(carry)
  check(found, log_probs_of, carry)
  jitted = jax.jit(run)(carry)
  np.testing.assert_array_equal(jitted.tokens, found.tokens)
  np.testing.assert_allclose(jitted.log_probs, found.log_probs, rtol=1e-5)


@pytest.mark.parametrize('method', [search.greedy, sample, beam])
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
      **options(
        max_length=max_length, constraints=Constraints(forbidden=(PAD, BOS))
      ),
    )
  lengths = np.minimum(endings, max_length)
  assert len(calls) == lengths.max()
  # When the end comes first, there is one sequence only, and no second beam.
  exists = np.asarray(found.log_probs) > -np.inf
  np.testing.assert_array_equal(found.lengths, lengths[:, None] * exists)
  assert exists[:, 0].all()
  real = np.arange(max_length) < np.asarray(found.lengths)[..., None]
  np.testing.assert_array_equal(np.asarray(found.tokens)[~real], PAD)
