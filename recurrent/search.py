"""Decoding: greedy, sampling and beam search, over any step of time.

A step is `(carry, tokens i32[B, K]) -> (carry, logits f[B, K, V])`. Every leaf
of the carry has the leading axes [B, K]. Arrays that all sequences of an item
share (the annotations of an image) are closed over by the step and never tiled.
Everything can be jitted, and stops when every sequence has ended.

Axes: B items, K sequences of an item (samples or beams), T time, V vocabulary;
in beam search G groups, S sets of met requirements, M beams of a group, W beams
with the same set (M = S * W, K = G * M), N candidates.
"""

import functools
import math
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from recurrent import categorical
from recurrent import constraints as constraints_lib

Constraints = constraints_lib.Constraints
UNCONSTRAINED = Constraints()

Step = Callable[[Any, jax.Array], tuple[Any, jax.Array]]

# Nats that a beam loses when it ends, where it goes on nevertheless.
_OVER = 1000.0


@flax.struct.dataclass
class Sequences:
  """The results of a search.

  Attributes:
    tokens: i32[B, K, T] without BOS; EOS included, then padding.
    lengths: i32[B, K], number of tokens with EOS; 0 if there are fewer
      sequences than K.
    log_probs: f32[B, K], log-probability of all tokens under the model.
    scores: f32[B, K], log_probs / lengths**length_penalty.
  """

  tokens: jax.Array
  lengths: jax.Array
  log_probs: jax.Array
  scores: jax.Array


@flax.struct.dataclass
class _State:
  """The state of sampling: f32 or i32 [B, K], except where noted."""

  time: jax.Array  # i32[]
  carry: Any
  last: jax.Array
  tokens: jax.Array  # i32[B, K, T]
  lengths: jax.Array
  log_probs: jax.Array
  ended: jax.Array  # bool[B, K]


def _start(carry: Any, bos: int, pad: int, max_length: int) -> _State:
  """The state before the first token."""
  shape = jax.tree.leaves(carry)[0].shape[:2]
  return _State(
    time=jnp.int32(0),
    carry=carry,
    last=jnp.full(shape, bos, jnp.int32),
    tokens=jnp.full((*shape, max_length), pad, jnp.int32),
    lengths=jnp.zeros(shape, jnp.int32),
    log_probs=jnp.zeros(shape),
    ended=jnp.zeros(shape, bool),
  )


def _run(advance: Callable[[_State], _State], state: _State) -> _State:
  """Advances until every sequence has ended or the tokens are full."""
  max_length = state.tokens.shape[-1]

  def unfinished(state):
    return (state.time < max_length) & ~jnp.all(state.ended)

  return jax.lax.while_loop(unfinished, advance, state)


def ensemble(steps: Sequence[Step]) -> Step:
  """One step of several models, whose probabilities are averaged.

  Args:
    steps: those of the models, which share the vocabulary.

  Returns:
    A step. Its carry is the tuple of the models' carries, its logits are the
    log of the mean of their probabilities, f32[B, K, V].
  """
  if not steps:
    raise ValueError('an ensemble needs at least one step')

  def step(carry, tokens):
    carry, logits = zip(
      *(step(own, tokens) for step, own in zip(steps, carry, strict=True)),
      strict=True,
    )
    return carry, mean_probability(logits)

  return step


def mean_probability(logits: Sequence[jax.Array]) -> jax.Array:
  """Logits of the mean of several models' probabilities: f32[..., V].

  The logits of a single model are returned as they are.
  """
  if len(logits) == 1:
    return logits[0]
  log_probs = [jax.nn.log_softmax(x.astype(jnp.float32)) for x in logits]
  return functools.reduce(jnp.logaddexp, log_probs) - math.log(len(logits))


def sample(
  step: Step,
  carry: Any,
  *,
  bos: int,
  eos: int,
  max_length: int,
  key: jax.Array | None = None,
  temperature: float = 1.0,
  top_k: int | None = None,
  top_p: float | None = None,
  pad: int = 0,
  constraints: Constraints = UNCONSTRAINED,
) -> Sequences:
  """Samples sequences from the model, token by token.

  Args:
    step: see the module's docstring.
    carry: the state before the first token, leaves [B, K, ...].
    bos: the first input token.
    eos: the token that ends a sequence.
    max_length: T, the maximum number of tokens, EOS included.
    key: a random key, or one for each item, so that the samples of an item do
      not depend on the others. Not needed at temperature 0.
    temperature: divides the logits; 0 takes the likeliest token (greedy).
    top_k: sample among the k likeliest tokens only (and ties).
    top_p: sample among the likeliest tokens that together have this share of
      the probability, after `temperature` and `top_k` (Holtzman et al. 2020).
    pad: fills the tokens after EOS.
    constraints: on the sequences. Where they disallow every token, the
      sequence ends with EOS nevertheless.

  Returns:
    Sequences in no particular order. `log_probs` are the model's own: before
    temperature, truncation and `constraints`. `scores` equal them.
  """
  if temperature > 0 and key is None:
    raise ValueError(
      f'sampling at temperature={temperature} needs a random key: pass '
      'key=jax.random.key(...), or temperature=0.0 for greedy decoding'
    )
  if constraints.required:
    raise ValueError(
      'sampling and greedy decoding cannot guarantee required tokens: use '
      'beam_search, or constraints without `required`'
    )
  constraints.check(eos, max_length)

  def draw(time, probs):
    if key.ndim == 0:
      return categorical.sample(jax.random.fold_in(key, time), probs)
    return jax.vmap(
      lambda key, probs: categorical.sample(
        jax.random.fold_in(key, time), probs[None]
      )[0]
    )(key, probs)

  def choose(time, logits):
    highest = jnp.max(logits, axis=-1, keepdims=True)
    dead_end = highest == -jnp.inf
    if temperature == 0:
      token = categorical.first(logits == highest)
    else:
      highest = jnp.where(dead_end, 0, highest)  # No NaN.
      probs = jnp.exp((logits - highest) / temperature)
      if top_k is not None:
        lowest = jax.lax.top_k(logits, top_k)[0][..., -1:]
        probs = jnp.where(logits >= lowest, probs, 0)
      if top_p is not None:
        probs = categorical.nucleus(probs, top_p)
      token = draw(time, probs)
    return jnp.where(dead_end[..., 0], eos, token)

  def advance(state):
    carry, logits = step(state.carry, state.last)
    logits = logits.astype(jnp.float32)
    allowed = constraints.mask_logits(
      logits, state.tokens, state.last, state.time, eos
    )
    penalties = constraints.penalties(
      state.tokens, state.time, logits.shape[-1]
    )
    if penalties is not None:
      allowed -= penalties
    token = choose(state.time, allowed)
    gained = jnp.take_along_axis(logits, token[..., None], axis=-1)[..., 0]
    gained = gained - jax.nn.logsumexp(logits, axis=-1)
    token = jnp.where(state.ended, pad, token)
    return state.replace(
      time=state.time + 1,
      carry=carry,
      last=token,
      tokens=state.tokens.at[:, :, state.time].set(token),
      lengths=state.lengths + ~state.ended,
      log_probs=state.log_probs + jnp.where(state.ended, 0, gained),
      ended=state.ended | (token == eos),
    )

  state = _run(advance, _start(carry, bos, pad, max_length))
  return Sequences(
    tokens=state.tokens,
    lengths=state.lengths,
    log_probs=state.log_probs,
    scores=state.log_probs,
  )


def greedy(
  step: Step,
  carry: Any,
  *,
  bos: int,
  eos: int,
  max_length: int,
  pad: int = 0,
  constraints: Constraints = UNCONSTRAINED,
) -> Sequences:
  """Takes the likeliest token at every step: `sample` at temperature 0."""
  return sample(
    step,
    carry,
    bos=bos,
    eos=eos,
    max_length=max_length,
    temperature=0.0,
    pad=pad,
    constraints=constraints,
  )


@flax.struct.dataclass
class _Ended:
  """Sequences set aside: the best W of each group, best first; [B, G, W]."""

  tokens: jax.Array  # i32[B, G, W, T]
  lengths: jax.Array
  log_probs: jax.Array
  scores: jax.Array  # Less the penalties; -inf where there is none.


@flax.struct.dataclass
class _Beams:
  """The state of beam search: f32 or i32 [B, K], except where noted."""

  time: jax.Array  # i32[], of the first group.
  carry: Any
  last: jax.Array
  tokens: jax.Array  # i32[B, K, T]
  log_probs: jax.Array  # -inf where there is no beam.
  penalties: jax.Array  # Accumulated.
  over: jax.Array  # bool[B, K]: has ended and goes on; staggered groups only.
  finished: jax.Array  # bool[B, G]: no beam can still win.
  ended: _Ended


def beam_search(
  step: Step,
  carry: Any,
  *,
  bos: int,
  eos: int,
  beam_size: int,
  max_length: int,
  length_penalty: float = 0.0,
  length_penalty_form: str = 'power',
  pad: int = 0,
  constraints: Constraints = UNCONSTRAINED,
  num_groups: int = 1,
  diversity_penalty: float = 0.0,
  group_order: str = 'paper',
  shrink_beam: bool = False,
) -> Sequences:
  """Finds likely sequences: the `beam_size` best extensions live at each step.

  The candidates of a step are all extensions of the live beams. Of the best
  `beam_size` of them, those that end are set aside, and the others live. The
  search of an item stops when `beam_size` sequences have ended and no live beam
  can still reach a better score than the worst of these, or when no beam lives.
  With one beam this is greedy decoding.

  Diverse beam search (Vijayakumar et al. 2018): the beams form groups, which
  choose their tokens one group after the other. A candidate is penalised by
  `diversity_penalty` for every beam of an earlier group that has chosen the
  same token at this position (the paper's Hamming diversity). As in the
  authors' code the penalties of a beam accumulate. At a penalty of 0 all groups
  are equal.

  Constrained beam search (Anderson et al. 2017), where tokens are required:
  every set of met requirements has its own beams, the required tokens are
  always among the candidates, and EOS is masked until all requirements are met.
  For R requirements the step sees 2**R times as many beams.

  Args:
    step: see the module's docstring. It is called once with [B, 1] tokens and
      then with [B, beam_size * 2**R] tokens; always with these if groups are
      staggered.
    carry: the state before the first token, leaves [B, 1, ...].
    bos: the first input token.
    eos: the token that ends a sequence.
    beam_size: number of sequences to return, of all groups together.
    max_length: T, the maximum number of tokens, EOS included.
    length_penalty: 0 ranks by log-probability, 1 by its mean over the tokens.
    length_penalty_form: 'power' divides the log-probability of n tokens by
      n**length_penalty, 'gnmt' by ((5 + n) / 6)**length_penalty (Wu et al.
      2016).
    pad: fills the tokens after EOS.
    constraints: on the sequences. A beam is dropped where they disallow every
      token.
    num_groups: G, of beam_size / G beams each.
    diversity_penalty: the penalty, in nats, for each beam of an earlier group
      with the same token.
    group_order: 'paper': at every position, all groups choose one after the
      other, and a group counts no longer once its search has stopped.
      'staggered', as in the published codes: each group is one step behind the
      one before, and is compared with the tokens that the beams of earlier
      groups had at its position, of those beams that still live. A beam that
      has ended goes on from EOS, 1000 nats lower, and counts; all
      `max_length` steps are made.
    shrink_beam: a sequence that ends takes its place of the beam with it, as in
      some tutorials' code: the search is over when `beam_size` have ended.

  Returns:
    `beam_size` sequences of all groups, best score first. A sequence that
    several groups have found is returned several times. Scores and
    log-probabilities are the model's own: before `constraints` and
    `diversity_penalty`. If fewer sequences exist, the rest have length 0 and a
    log-probability of -inf.
  """
  num_items, num_sequences = jax.tree.leaves(carry)[0].shape[:2]
  if num_sequences != 1:
    raise ValueError(
      f'beam_search starts from one sequence for each item, not from '
      f'{num_sequences}: pass a carry whose leaves have the axes [B, 1, ...]'
    )
  if num_groups < 1 or beam_size % num_groups:
    raise ValueError(
      f'beam_size={beam_size} must be a multiple of '
      f'num_groups={num_groups}: every group has the same number of beams'
    )
  for name, value, known in (
    ('length_penalty_form', length_penalty_form, ('power', 'gnmt')),
    ('group_order', group_order, ('paper', 'staggered')),
  ):
    if value not in known:
      raise ValueError(f'{name}={value!r} is none of {", ".join(known)}')
  constraints.check(eos, max_length)
  staggered = group_order == 'staggered'
  width = beam_size // num_groups
  num_sets = 2 ** len(constraints.required)
  required = np.array(constraints.required_tokens, np.int32)
  # The required tokens come after the best of the others.
  meets = np.concatenate([np.zeros(width, np.int32), constraints.meets])
  num_candidates = len(meets)
  items = jnp.arange(num_items)[:, None]
  positions = jnp.arange(max_length)

  def met(num_beams):
    """The sets of requirements that the beams meet, i32[K]."""
    return np.arange(num_beams) // width % num_sets

  def score(log_probs, lengths):
    lengths = jnp.maximum(lengths, 1).astype(jnp.float32)
    if length_penalty_form == 'gnmt':
      lengths = (5 + lengths) / 6
    return log_probs / lengths**length_penalty

  def constrain(state, logits, sets):
    """Logits with -inf at disallowed tokens, and penalties or None."""
    num_beams = logits.shape[1]

    def limit(own, time):
      tokens = state.tokens[:, own]
      masked = constraints.mask_logits(
        logits[:, own],
        tokens,
        state.last[:, own],
        time,
        eos,
        unmet=sets[own] < num_sets - 1,
      )
      return masked, constraints.penalties(tokens, time, logits.shape[-1])

    if not staggered:
      return limit(slice(None), state.time)
    size = num_beams // num_groups
    masked, penalties = zip(
      *(
        limit(
          slice(group * size, (group + 1) * size),
          jnp.clip(state.time - group, 0, max_length - 1),
        )
        for group in range(num_groups)
      ),
      strict=True,
    )
    if penalties[0] is None:
      return jnp.concatenate(masked, axis=1), None
    return jnp.concatenate(masked, axis=1), jnp.concatenate(penalties, axis=1)

  def extend(logits, costs):
    """The candidates of beams.

    Args:
      logits: f32[B, M, V], -inf at disallowed tokens.
      costs: f32[B, 1 or M, V], the penalties of the tokens; None for none.

    Returns:
      tokens i32[B, M, N], their logits and their penalties f32[B, M, N].
    """
    others = logits
    if required.size:
      others = jnp.where(
        np.isin(np.arange(logits.shape[-1]), required), -jnp.inf, logits
      )
    # The extensions of one beam have one length, therefore the best by logit
    # are the best by score and only they need to be normalised.
    num_others = min(width, logits.shape[-1])
    ranks = others if costs is None else others - costs
    _, tokens = jax.lax.top_k(ranks, num_others)
    values = jnp.take_along_axis(others, tokens, axis=-1)
    missing = ((0, 0), (0, 0), (0, width - num_others))
    tokens = jnp.pad(tokens, missing, constant_values=pad)
    values = jnp.pad(values, missing, constant_values=-jnp.inf)
    words = jnp.broadcast_to(required, (*tokens.shape[:2], len(required)))
    tokens = jnp.concatenate([tokens, words], axis=-1)
    values = jnp.concatenate([values, logits[..., required]], axis=-1)
    if costs is None:
      return tokens, values, 0.0
    costs = jnp.broadcast_to(costs, logits.shape)
    return tokens, values, jnp.take_along_axis(costs, tokens, axis=-1)

  def keep(ended, tokens, lengths, log_probs, scores):
    """Adds sequences [B, G, W] to those set aside, and keeps the best W."""
    both = [
      jnp.concatenate(pair, axis=2)
      for pair in (
        (ended.tokens, tokens),
        (ended.lengths, jnp.broadcast_to(lengths, scores.shape)),
        (ended.log_probs, log_probs),
      )
    ]
    scores, order = jax.lax.top_k(
      jnp.concatenate([ended.scores, scores], axis=2), width
    )
    tokens, lengths, log_probs = (
      x[items[..., None], jnp.arange(num_groups)[:, None], order] for x in both
    )
    exists = scores > -jnp.inf
    return _Ended(
      tokens=tokens,
      lengths=jnp.where(exists, lengths, 0),
      log_probs=jnp.where(exists, log_probs, -jnp.inf),
      scores=scores,
    )

  def whole(x):
    """The beams that meet all requirements: [B, K, ...] -> [B, G, W, ...]."""
    x = x.reshape(num_items, num_groups, num_sets * width, *x.shape[2:])
    return x[:, :, -width:]

  def advance(state):
    carry, logits = step(state.carry, state.last)
    logits = logits.astype(jnp.float32)
    normalizer = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    num_beams, num_tokens = logits.shape[1:]
    sets = met(num_beams)
    logits, repeats = constrain(state, logits, sets)
    # The first step has one beam for all groups: equal beams would all have
    # the same extensions.
    size = max(num_beams // num_groups, 1)
    found = []
    for group in range(num_groups):
      start = group * size % num_beams
      own = slice(start, start + size)
      time = state.time - group * staggered
      costs = None if repeats is None else repeats[:, own]
      if diversity_penalty and found:
        # The tokens of earlier groups at this position.
        earlier, exists = (
          jnp.concatenate([other[i] for other in found], axis=1) for i in (2, 3)
        )
        earlier = jnp.take(earlier, jnp.clip(time, 0, max_length - 1), axis=2)
        likeness = jnp.zeros((num_items, num_tokens))
        likeness = likeness.at[items, earlier].add(diversity_penalty * exists)
        costs = (
          likeness[:, None] if costs is None else costs + likeness[:, None]
        )
      tokens, values, paid = extend(logits[:, own], costs)
      log_probs = state.log_probs[:, own, None] + values - normalizer[:, own]
      penalties = state.penalties[:, own, None] + paid  # [B, M, N] or [B, M, 1]
      penalties = jnp.broadcast_to(penalties, log_probs.shape)

      goals = (sets[own, None] | meets).ravel()  # The sets that they meet.
      fits = goals == np.arange(num_sets)[:, None]
      ranks = (log_probs - penalties).reshape(num_items, 1, -1)
      ranks = jnp.where(fits, ranks, -jnp.inf)
      # Prunes: keeps the `width` best candidates of each set, as indices of the
      # M * N.
      ranks, chosen = jax.lax.top_k(ranks, width)
      exists = ranks > -jnp.inf
      if shrink_beam:
        num_ended = jnp.sum(state.ended.scores[:, group] > -jnp.inf, axis=-1)
        exists &= jnp.arange(width) < width - num_ended[:, None, None]
      exists, chosen = (x.reshape(num_items, -1) for x in (exists, chosen))
      parents = start + chosen // num_candidates
      token, log_probs, penalties = (
        x.reshape(num_items, -1)[items, chosen]
        for x in (tokens, log_probs, penalties)
      )
      log_probs = jnp.where(exists, log_probs, -jnp.inf)
      if staggered:  # Groups that have not begun, or that are at the end.
        idle = (time < 0) | (time >= max_length)
        parents, token, exists, log_probs, penalties = (
          jnp.where(idle, old, new)
          for old, new in (
            (jnp.arange(start, start + size), parents),
            (state.last[:, own], token),
            (state.log_probs[:, own] > -jnp.inf, exists),
            (state.log_probs[:, own], log_probs),
            (state.penalties[:, own], penalties),
          )
        )
      history = state.tokens[items, parents]
      history = jnp.where(positions == time, token[..., None], history)
      found.append((parents, token, history, exists, log_probs, penalties))

    parents, token, history, exists, log_probs, penalties = (
      jnp.concatenate(x, axis=1) for x in zip(*found, strict=True)
    )
    carry = jax.tree.map(lambda x: x[items, parents], carry)
    over = state.over[items, parents]
    ends = exists & (token == eos)
    lengths = state.time + 1
    if staggered:
      lengths -= np.arange(token.shape[1]) // (width * num_sets)
      waiting = lengths < 1
      carry = jax.tree.map(
        lambda new, old: jnp.where(
          waiting.reshape(-1, *[1] * (new.ndim - 2)), old, new
        ),
        carry,
        state.carry,
      )
      ends &= ~waiting & (lengths <= max_length)
      lengths = whole(jnp.broadcast_to(lengths, token.shape))
    final = whole(ends & ~over)
    scores = score(whole(log_probs - penalties), lengths)
    ended = keep(
      state.ended,
      whole(history),
      lengths,
      whole(log_probs),
      jnp.where(final, scores, -jnp.inf),
    )
    finished = state.finished
    if staggered:
      penalties += _OVER * ends
      over |= ends
    else:
      log_probs = jnp.where(ends, -jnp.inf, log_probs)
      best = jnp.max(
        (log_probs - penalties).reshape(num_items, num_groups, -1), axis=-1
      )
      # Log-probabilities only fall, and the score is monotone in the length.
      bound = jnp.maximum(score(best, lengths + 1), score(best, max_length))
      finished = bound <= ended.scores[..., -1]
      # An item then no longer depends on the rest of the batch.
      log_probs = jnp.where(
        jnp.repeat(finished, log_probs.shape[1] // num_groups, axis=1),
        -jnp.inf,
        log_probs,
      )
    return _Beams(
      time=state.time + 1,
      carry=carry,
      last=token,
      tokens=history,
      log_probs=log_probs,
      penalties=penalties,
      over=over,
      finished=finished,
      ended=ended,
    )

  num_first = beam_size * num_sets if staggered else 1
  first = jnp.arange(num_first) % (width * num_sets) == 0
  shape = (num_items, num_first)
  nothing = (num_items, num_groups, width)
  state = _Beams(
    time=jnp.int32(0),
    carry=jax.tree.map(lambda x: jnp.repeat(x, num_first, axis=1), carry),
    last=jnp.full(shape, bos, jnp.int32),
    tokens=jnp.full((*shape, max_length), pad, jnp.int32),
    log_probs=jnp.broadcast_to(jnp.where(first, 0.0, -jnp.inf), shape),
    penalties=jnp.zeros(shape),
    over=jnp.zeros(shape, bool),
    finished=jnp.zeros((num_items, num_groups), bool),
    ended=_Ended(
      tokens=jnp.full((*nothing, max_length), pad, jnp.int32),
      lengths=jnp.zeros(nothing, jnp.int32),
      log_probs=jnp.full(nothing, -jnp.inf),
      scores=jnp.full(nothing, -jnp.inf),
    ),
  )
  num_steps = max_length + (num_groups - 1) * staggered
  state = jax.lax.while_loop(
    lambda state: (state.time < num_steps) & ~jnp.all(state.finished),
    advance,
    advance(state),
  )
  # Beams that still live are cut at the maximum length.
  log_probs, penalties = whole(state.log_probs), whole(state.penalties)
  scores = score(log_probs - penalties, max_length)
  ended = keep(
    state.ended,
    whole(state.tokens),
    max_length,
    log_probs,
    jnp.where(whole(state.over), -jnp.inf, scores),
  )
  tokens, lengths, log_probs = (
    x.reshape(num_items, beam_size, *x.shape[3:])
    for x in (ended.tokens, ended.lengths, ended.log_probs)
  )
  scores, order = jax.lax.top_k(score(log_probs, lengths), beam_size)
  lengths = lengths[items, order]
  real = positions < lengths[..., None]
  return Sequences(
    tokens=jnp.where(real, tokens[items, order], pad),
    lengths=lengths,
    log_probs=log_probs[items, order],
    scores=scores,
  )
