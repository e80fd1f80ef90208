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
  """The loop's state: f32 or i32 [B, K], except where noted."""

  time: jax.Array  # i32[]
  carry: Any
  last: jax.Array
  tokens: jax.Array  # i32[B, K, T]
  lengths: jax.Array
  log_probs: jax.Array
  penalties: jax.Array  # Of diversity, accumulated.
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
    penalties=jnp.zeros(shape),
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
    key: a random key; not needed at temperature 0.
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
      token = categorical.sample(jax.random.fold_in(key, time), probs)
    return jnp.where(dead_end[..., 0], eos, token)

  def advance(state):
    carry, logits = step(state.carry, state.last)
    logits = logits.astype(jnp.float32)
    token = choose(
      state.time,
      constraints.mask_logits(
        logits, state.tokens, state.last, state.time, eos
      ),
    )
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


def beam_search(
  step: Step,
  carry: Any,
  *,
  bos: int,
  eos: int,
  beam_size: int,
  max_length: int,
  length_penalty: float = 0.0,
  pad: int = 0,
  constraints: Constraints = UNCONSTRAINED,
  num_groups: int = 1,
  diversity_penalty: float = 0.0,
) -> Sequences:
  """Keeps the `beam_size` best sequences, finished or not, at every step.

  The candidates of a step are all extensions of the unfinished beams, and the
  finished beams unchanged. With one beam this is greedy decoding.

  Diverse beam search (Vijayakumar et al. 2016): the beams form groups, which
  choose their tokens one group after the other. A candidate is penalised by
  `diversity_penalty` for every beam of an earlier group that has chosen the
  same token at this step (the paper's Hamming diversity). As in the authors'
  code the penalties of a beam accumulate. At a penalty of 0 all groups are
  equal.

  Constrained beam search (Anderson et al. 2017), where tokens are required:
  every set of met requirements has its own beams, the required tokens are
  always among the candidates, and EOS is masked until all requirements are met.
  For R requirements the step sees 2**R times as many beams. It is called
  `max_length` times, since beams that lack a required token never end.

  Args:
    step: see the module's docstring. It is called once with [B, 1] tokens and
      then with [B, beam_size * 2**R] tokens.
    carry: the state before the first token, leaves [B, 1, ...].
    bos: the first input token.
    eos: the token that ends a sequence.
    beam_size: number of sequences to return, of all groups together.
    max_length: T, the maximum number of tokens, EOS included.
    length_penalty: 0 ranks by log-probability, 1 by its mean over the tokens.
    pad: fills the tokens after EOS.
    constraints: on the sequences. A beam is dropped where they disallow every
      token.
    num_groups: G, of beam_size / G beams each.
    diversity_penalty: the penalty, in nats, for each beam of an earlier group
      with the same token.

  Returns:
    `beam_size` sequences of all groups, best score first. A sequence that
    several groups have found is returned several times. Scores and
    log-probabilities are the model's own: before `constraints` and
    `diversity_penalty`. If fewer sequences exist, the rest have length 0 and a
    log-probability of -inf.
  """
  state = _start(carry, bos, pad, max_length)
  num_items, num_sequences = state.last.shape
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
  constraints.check(eos, max_length)
  width = beam_size // num_groups
  num_sets = 2 ** len(constraints.required)
  required = np.array(constraints.required_tokens, np.int32)
  # The required tokens come after the best of the others.
  meets = np.concatenate([np.zeros(width, np.int32), constraints.meets])
  num_candidates = len(meets)
  items = jnp.arange(num_items)[:, None]

  def met(num_beams):
    """The sets of requirements that the beams meet, i32[K]."""
    return np.arange(num_beams) // width % num_sets

  def score(log_probs, lengths):
    lengths = jnp.maximum(lengths, 1).astype(jnp.float32)
    return log_probs / lengths**length_penalty

  def extend(logits, costs):
    """The candidates of beams that have not ended.

    Args:
      logits: f32[B, M, V], -inf at disallowed tokens.
      costs: f32[B, V], the penalties of the tokens.

    Returns:
      tokens i32[B, M, N] and their logits f32[B, M, N].
    """
    others = logits
    if required.size:
      others = jnp.where(
        np.isin(np.arange(logits.shape[-1]), required), -jnp.inf, logits
      )
    # The extensions of one beam have one length, therefore the best by logit
    # are the best by score and only they need to be normalised.
    num_others = min(width, logits.shape[-1])
    ranks = others - costs[:, None] if diversity_penalty else others
    _, tokens = jax.lax.top_k(ranks, num_others)
    values = jnp.take_along_axis(others, tokens, axis=-1)
    missing = ((0, 0), (0, 0), (0, width - num_others))
    tokens = jnp.pad(tokens, missing, constant_values=pad)
    values = jnp.pad(values, missing, constant_values=-jnp.inf)
    words = jnp.broadcast_to(required, (*tokens.shape[:2], len(required)))
    tokens = jnp.concatenate([tokens, words], axis=-1)
    values = jnp.concatenate([values, logits[..., required]], axis=-1)
    return tokens, values

  def advance(state):
    carry, logits = step(state.carry, state.last)
    logits = logits.astype(jnp.float32)
    normalizer = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    num_beams, num_tokens = logits.shape[1:]
    sets = met(num_beams)
    logits = constraints.mask_logits(
      logits,
      state.tokens,
      state.last,
      state.time,
      eos,
      unmet=sets < num_sets - 1,
    )
    lengths = state.lengths + ~state.ended
    itself = jnp.where(jnp.arange(num_candidates) == 0, 0, -jnp.inf)
    # The first step has one beam for all groups: equal beams would all have
    # the same extensions.
    size = max(num_beams // num_groups, 1)
    costs = jnp.zeros((num_items, num_tokens))
    found = []
    for group in range(num_groups):
      start = group * size % num_beams
      own = slice(start, start + size)
      ended = state.ended[:, own, None]
      tokens, values = extend(logits[:, own], costs)
      tokens = jnp.where(ended, pad, tokens)
      gained = jnp.where(ended, itself, values - normalizer[:, own])
      log_probs = state.log_probs[:, own, None] + gained  # [B, M, N]
      penalties = jnp.broadcast_to(
        state.penalties[:, own, None], log_probs.shape
      )
      if diversity_penalty:
        penalties += jnp.where(ended, 0, costs[items[..., None], tokens])

      scores = score(log_probs - penalties, lengths[:, own, None])
      goals = (sets[own, None] | meets).ravel()  # The sets that they meet.
      fits = goals == np.arange(num_sets)[:, None]
      scores = jnp.where(fits, scores.reshape(num_items, 1, -1), -jnp.inf)
      # Prunes: keeps the `width` best candidates of each set, as indices of the
      # M * N.
      scores, chosen = jax.lax.top_k(scores, width)
      scores, chosen = (x.reshape(num_items, -1) for x in (scores, chosen))
      parents = start + chosen // num_candidates
      token, log_probs, penalties = (
        x.reshape(num_items, -1)[items, chosen]
        for x in (tokens, log_probs, penalties)
      )
      # A small vocabulary has fewer candidates than beams: the rest are no
      # sequences, and count as ended.
      exists = scores > -jnp.inf
      log_probs = jnp.where(exists, log_probs, -jnp.inf)
      grown = exists & ~state.ended[items, parents]
      costs = costs.at[items, token].add(diversity_penalty * grown)
      found.append((parents, token, exists, log_probs, penalties))

    parents, token, exists, log_probs, penalties = (
      jnp.concatenate(x, axis=1) for x in zip(*found, strict=True)
    )
    return _State(
      time=state.time + 1,
      carry=jax.tree.map(lambda x: x[items, parents], carry),
      last=token,
      tokens=state.tokens[items, parents].at[:, :, state.time].set(token),
      lengths=jnp.where(exists, lengths[items, parents], 0),
      log_probs=log_probs,
      penalties=penalties,
      ended=state.ended[items, parents] | (token == eos) | ~exists,
    )

  state = _run(advance, advance(state))
  whole = np.flatnonzero(met(state.last.shape[1]) == num_sets - 1)
  scores = score(state.log_probs, state.lengths)[:, whole]
  scores, order = jax.lax.top_k(scores, beam_size)
  beams = jnp.asarray(whole)[order]
  lengths = state.lengths[items, beams]
  real = jnp.arange(max_length) < lengths[..., None]
  return Sequences(
    tokens=jnp.where(real, state.tokens[items, beams], pad),
    lengths=lengths,
    log_probs=state.log_probs[items, beams],
    scores=scores,
  )
