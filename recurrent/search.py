"""Decoding: greedy, sampling and beam search, over any step of time.

A step is `(carry, tokens i32[B, K]) -> (carry, logits f[B, K, V])`. Every leaf
of the carry has the leading axes [B, K]. What is the same for all sequences of
an item (the annotations of a picture) is closed over by the step and never
tiled. Everything can be jitted, and stops when every sequence has ended.

Axes: B items, K sequences of an item (samples or beams), T time, V vocabulary,
N candidates.
"""

from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

Step = Callable[[Any, jax.Array], tuple[Any, jax.Array]]


@flax.struct.dataclass
class Sequences:
  """What a search found.

  Attributes:
    tokens: i32[B, K, T] without BOS; EOS included, then padding.
    lengths: i32[B, K], tokens with EOS; 0 if there is no such sequence.
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


def _allow(logits: jax.Array, forbid: tuple[int, ...]) -> jax.Array:
  """Puts the forbidden tokens out of reach: f32[..., V] -> f32[..., V]."""
  forbidden = np.isin(np.arange(logits.shape[-1]), forbid)
  return jnp.where(forbidden, -jnp.inf, logits)


def _first(hit: jax.Array) -> jax.Array:
  """Index of the first True on the last axis: bool[..., N] -> i32[...].

  A minimum over an iota is several times as fast on CPU as an argmax.
  """
  size = hit.shape[-1]
  return jnp.min(jnp.where(hit, jnp.arange(size), size - 1), axis=-1)


def _inverse_cdf(probs: jax.Array, uniform: jax.Array) -> jax.Array:
  """Draws indices: unnormalised f32[..., N], f32[...] in [0, 1) -> i32[...]."""
  cumulative = jnp.cumsum(probs, axis=-1)
  # A sum rounded in another order need not be monotone: even then, never
  # choose a probability of zero.
  total = jnp.max(jnp.where(probs > 0, cumulative, 0), axis=-1)
  return _first((probs > 0) & (cumulative > (uniform * total)[..., None]))


def _draw(key: jax.Array, probs: jax.Array) -> jax.Array:
  """Draws from unnormalised probabilities: f32[B, K, V] -> i32[B, K].

  First a block of the vocabulary, then a token in it: two random numbers and
  two short cumulative sums. On CPU that is an order of magnitude faster than
  `jax.random.categorical`, which draws V random numbers.
  """
  size = probs.shape[-1]
  width = int(np.ceil(np.sqrt(size)))
  num_blocks = -(-size // width)
  padding = num_blocks * width - size
  blocks = jnp.pad(probs, ((0, 0), (0, 0), (0, padding)))
  blocks = blocks.reshape(*probs.shape[:2], num_blocks, width)
  uniform = jax.random.uniform(key, (2, *probs.shape[:2]))
  block = _inverse_cdf(jnp.sum(blocks, axis=-1), uniform[0])
  inside = jnp.take_along_axis(blocks, block[..., None, None], axis=2)
  return block * width + _inverse_cdf(inside[:, :, 0], uniform[1])


def _nucleus(probs: jax.Array, top_p: float) -> jax.Array:
  """Zeroes all but the likeliest tokens that hold a share of the mass.

  Halves the interval around the smallest probability that stays: a sort of the
  vocabulary takes ten times as long on CPU.

  Args:
    probs: unnormalised f32[..., V].
    top_p: the share, in (0, 1].

  Returns:
    f32[..., V].
  """
  wanted = top_p * jnp.sum(probs, axis=-1, keepdims=True)

  def halve(_, bounds):
    low, high = bounds
    middle = (low + high) / 2
    mass = jnp.sum(jnp.where(probs >= middle, probs, 0), axis=-1, keepdims=True)
    enough = mass >= wanted
    return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

  high = jnp.max(probs, axis=-1, keepdims=True)
  low, _ = jax.lax.fori_loop(0, 32, halve, (jnp.zeros_like(high), high))
  return jnp.where(probs >= low, probs, 0)


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
  forbid: tuple[int, ...] = (),
) -> Sequences:
  """Draws sequences from the model, token by token.

  Args:
    step: see the module's docstring.
    carry: the state before the first token, leaves [B, K, ...].
    bos: the token fed first.
    eos: the token that ends a sequence.
    max_length: T, the most tokens of a sequence, EOS included.
    key: a random key; not needed at temperature 0.
    temperature: divides the logits; 0 takes the likeliest token (greedy).
    top_k: draw among the k likeliest tokens only (and those that tie).
    top_p: draw among the likeliest tokens that together have this share of the
      probability, after `temperature` and `top_k` (Holtzman et al. 2020).
    pad: fills the tokens after EOS.
    forbid: tokens that are never produced.

  Returns:
    Sequences in no particular order. `log_probs` are the model's own: before
    temperature, truncation and `forbid`. `scores` equal them.
  """
  if temperature > 0 and key is None:
    raise ValueError(
      f'sampling at temperature={temperature} needs a random key: pass '
      'key=jax.random.key(...), or temperature=0.0 for greedy decoding'
    )

  def choose(time, logits):
    highest = jnp.max(logits, axis=-1, keepdims=True)
    if temperature == 0:
      return _first(logits == highest)
    probs = jnp.exp((logits - highest) / temperature)
    if top_k is not None:
      least = jax.lax.top_k(logits, top_k)[0][..., -1:]
      probs = jnp.where(logits >= least, probs, 0)
    if top_p is not None:
      probs = _nucleus(probs, top_p)
    return _draw(jax.random.fold_in(key, time), probs)

  def advance(state):
    carry, logits = step(state.carry, state.last)
    logits = logits.astype(jnp.float32)
    token = choose(state.time, _allow(logits, forbid))
    gained = jnp.take_along_axis(logits, token[..., None], axis=-1)[..., 0]
    gained = gained - jax.nn.logsumexp(logits, axis=-1)
    token = jnp.where(state.ended, pad, token)
    return _State(
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
  forbid: tuple[int, ...] = (),
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
    forbid=forbid,
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
  forbid: tuple[int, ...] = (),
) -> Sequences:
  """Keeps the `beam_size` best sequences, finished or not, at every step.

  The candidates of a step are every extension of every unfinished beam, and
  every finished beam as itself. With one beam this is greedy decoding.

  Args:
    step: see the module's docstring. It is called with [B, 1] tokens once and
      with [B, beam_size] tokens from then on.
    carry: the state before the first token, leaves [B, 1, ...].
    bos: the token fed first.
    eos: the token that ends a sequence.
    beam_size: K.
    max_length: T, the most tokens of a sequence, EOS included.
    length_penalty: 0 ranks by log-probability, 1 by its mean over the tokens.
    pad: fills the tokens after EOS.
    forbid: tokens that are never produced.

  Returns:
    Sequences, K of them, best score first. Where the vocabulary has fewer than
    K sequences, the rest have length 0 and a log-probability of -inf.
  """
  state = _start(carry, bos, pad, max_length)
  num_items, num_sequences = state.last.shape
  if num_sequences != 1:
    raise ValueError(
      f'beam_search starts from one sequence for each item, not from '
      f'{num_sequences}: pass a carry whose leaves have the axes [B, 1, ...]'
    )
  items = jnp.arange(num_items)[:, None]

  def score(log_probs, lengths):
    lengths = jnp.maximum(lengths, 1).astype(jnp.float32)
    return log_probs / lengths**length_penalty

  def advance(state):
    carry, logits = step(state.carry, state.last)
    logits = logits.astype(jnp.float32)

    # The extensions of one beam have one length, therefore the best by logit
    # are the best by score and only they need to be normalised.
    num_extensions = min(beam_size, logits.shape[-1])
    best, tokens = jax.lax.top_k(_allow(logits, forbid), num_extensions)
    gained = best - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    missing = ((0, 0), (0, 0), (0, beam_size - num_extensions))
    gained = jnp.pad(gained, missing, constant_values=-jnp.inf)
    tokens = jnp.pad(tokens, missing, constant_values=pad)

    itself = jnp.where(jnp.arange(beam_size) == 0, 0, -jnp.inf)
    gained = jnp.where(state.ended[..., None], itself, gained)
    tokens = jnp.where(state.ended[..., None], pad, tokens)
    log_probs = state.log_probs[..., None] + gained  # [B, K, N]
    lengths = state.lengths + ~state.ended

    scores = score(log_probs, lengths[..., None]).reshape(num_items, -1)
    _, chosen = jax.lax.top_k(scores, beam_size)  # [B, K] into [B, K * N]
    parents = chosen // beam_size
    log_probs = log_probs.reshape(num_items, -1)[items, chosen]
    token = tokens.reshape(num_items, -1)[items, chosen]
    # Fewer candidates than beams, in a small vocabulary: the rest are no
    # sequences, and nothing may wait for them.
    exists = log_probs > -jnp.inf
    return _State(
      time=state.time + 1,
      carry=jax.tree.map(lambda x: x[items, parents], carry),
      last=token,
      tokens=state.tokens[items, parents].at[:, :, state.time].set(token),
      lengths=jnp.where(exists, lengths[items, parents], 0),
      log_probs=log_probs,
      ended=state.ended[items, parents] | (token == eos) | ~exists,
    )

  # One beam at first: K equal beams would all have the same extensions.
  state = _run(advance, advance(state))
  real = jnp.arange(max_length) < state.lengths[..., None]
  return Sequences(
    tokens=jnp.where(real, state.tokens, pad),
    lengths=state.lengths,
    log_probs=state.log_probs,
    scores=score(state.log_probs, state.lengths),
  )
