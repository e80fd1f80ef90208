"""Constraints on decoded sequences.

Axes: B items, K sequences of an item, T time, V vocabulary.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

# Every requirement doubles the number of beams.
MAX_REQUIREMENTS = 6


@dataclasses.dataclass(frozen=True)
class Constraints:
  """Constraints on decoded sequences; none by default.

  A sequence that is cut at the maximum length has not ended: `min_length` and
  `bad_endings` do not apply to it.

  Attributes:
    forbidden: tokens that are never produced.
    min_length: minimum number of tokens before EOS.
    no_repeat_ngram: n; no n-gram occurs twice in a sequence. 3 is trigram
      blocking (Paulus et al. 2018), 0 allows repetition.
    bad_endings: tokens that EOS may not follow. With BOS among them, no
      sequence is empty.
    required: groups of tokens (a word and its alternatives). At least one token
      of each group occurs in the sequence. For beam search only.
    ngram_penalty: in nats; n-grams of `no_repeat_ngram` may then repeat, at
      this cost for each time that they have occurred (soft blocking,
      Melas-Kyriazi et al. 2018). 0 forbids it.
    no_repeat_last: no token twice in a row.
    repeatable: tokens that may occur more than once, all others may not; None
      for no such constraint.
  """

  forbidden: tuple[int, ...] = ()
  min_length: int = 0
  no_repeat_ngram: int = 0
  bad_endings: tuple[int, ...] = ()
  required: tuple[tuple[int, ...], ...] = ()
  ngram_penalty: float = 0.0
  no_repeat_last: bool = False
  repeatable: tuple[int, ...] | None = None

  def __post_init__(self):
    if self.min_length < 0 or self.no_repeat_ngram < 0:
      raise ValueError(
        f'min_length={self.min_length} and no_repeat_ngram='
        f'{self.no_repeat_ngram} must not be negative: pass 0 for no constraint'
      )
    if self.ngram_penalty < 0 or (
      self.ngram_penalty and not self.no_repeat_ngram
    ):
      raise ValueError(
        f'ngram_penalty={self.ngram_penalty} is the cost of repeating an n-gram'
        f': it must not be negative, and n is no_repeat_ngram='
        f'{self.no_repeat_ngram}; pass that too'
      )
    if len(self.required) > MAX_REQUIREMENTS:
      raise ValueError(
        f'{len(self.required)} requirements need 2**{len(self.required)} sets '
        f'of beams: require at most {MAX_REQUIREMENTS}'
      )
    for group in self.required:
      if not set(group) - set(self.forbidden):
        raise ValueError(
          f'all of the required tokens {group} are forbidden: name at least '
          'one that is not forbidden'
        )

  @property
  def required_tokens(self) -> tuple[int, ...]:
    """All tokens of `required` that are not forbidden, each once."""
    tokens = {token for group in self.required for token in group}
    return tuple(sorted(tokens - set(self.forbidden)))

  @property
  def meets(self) -> np.ndarray:
    """The set of requirements that each of the `required_tokens` meets.

    A set is an integer: bit i is group i. i32[len(required_tokens)].
    """
    return np.array(
      [
        sum((token in group) << i for i, group in enumerate(self.required))
        for token in self.required_tokens
      ],
      np.int32,
    )

  def check(self, eos: int, max_length: int):
    """Raises a ValueError if no sequence of `max_length` tokens can comply."""
    if self.min_length > max_length:
      raise ValueError(
        f'no sequence has min_length={self.min_length} tokens, at '
        f'max_length={max_length}: raise max_length'
      )
    if eos in self.required_tokens:
      raise ValueError(f'EOS ({eos}) cannot be required: leave it out')
    # One token may meet several requirements.
    met, needed = {0}, 0
    while 2 ** len(self.required) - 1 not in met:
      met = {old | int(new) for old in met for new in self.meets}
      needed += 1
    if needed > max_length:
      raise ValueError(
        f'the {len(self.required)} requirements take {needed} tokens, more '
        f'than max_length={max_length}: raise max_length'
      )

  def mask_logits(
    self,
    logits: jax.Array,
    tokens: jax.Array,
    last: jax.Array,
    time: jax.Array,
    eos: int,
    *,
    unmet: np.ndarray | bool = False,
  ) -> jax.Array:
    """Masks disallowed next tokens with -inf.

    Args:
      logits: f32[B, K, V] of the next token.
      tokens: i32[B, K, T], the sequences; shorter ones have ended.
      last: i32[B, K], the last token of each sequence.
      time: i32[], number of tokens so far.
      eos: the token that ends a sequence.
      unmet: bool[K], the sequences that lack a required token: EOS is masked.

    Returns:
      f32[B, K, V], -inf at disallowed tokens.
    """
    size = logits.shape[-1]
    if not all(0 <= token < size for token in self.required_tokens):
      raise ValueError(
        f'the required tokens {self.required_tokens} are not all in the '
        f'vocabulary of {size}: require words that the model knows'
      )
    token = np.arange(size)
    if self.forbidden:
      logits = jnp.where(np.isin(token, self.forbidden), -jnp.inf, logits)
    if self.min_length or self.bad_endings or self.required:
      bad = [last == ending for ending in self.bad_endings]
      bad = functools.reduce(jnp.logical_or, bad, time < self.min_length)
      may_not_end = jnp.broadcast_to(bad | unmet, last.shape)
      banned = (token == eos) & may_not_end[..., None]
      logits = jnp.where(banned, -jnp.inf, logits)
    if self.no_repeat_last:
      again = (token == last[..., None]) & (time > 0)
      logits = jnp.where(again, -jnp.inf, logits)
    if self.repeatable is not None:
      once = jnp.asarray(~np.isin(token, self.repeatable))
      used = (jnp.arange(tokens.shape[-1]) < time) & once[tokens]
      logits = _at(logits, tokens).min(jnp.where(used, -jnp.inf, jnp.inf))
    if self._blocks(tokens) and not self.ngram_penalty:
      # Scatters to few tokens: cheaper than a mask over the vocabulary.
      repeated, nexts = self._repeats(tokens, time)
      logits = _at(logits, nexts).min(jnp.where(repeated, -jnp.inf, jnp.inf))
    return logits

  def penalties(
    self, tokens: jax.Array, time: jax.Array, size: int
  ) -> jax.Array | None:
    """The costs of next tokens, in nats: f32[B, K, V], or None for none.

    Args:
      tokens: see `mask_logits`.
      time: see `mask_logits`.
      size: V.
    """
    if not (self.ngram_penalty and self._blocks(tokens)):
      return None
    repeated, nexts = self._repeats(tokens, time)
    costs = jnp.zeros((*tokens.shape[:2], size))
    return _at(costs, nexts).add(self.ngram_penalty * repeated)

  def _blocks(self, tokens):
    """True if n-grams matter in sequences as long as `tokens`."""
    return 0 < self.no_repeat_ngram < tokens.shape[-1]

  def _repeats(self, tokens, time):
    """The tokens that would complete an n-gram again.

    Returns:
      bool[B, K, N] and the tokens i32[B, K, N]; one may occur several times.
    """
    num_items, num_sequences, max_length = tokens.shape
    before = self.no_repeat_ngram - 1  # Tokens of the n-gram so far.
    starts = max_length - before
    repeated = jnp.arange(starts) + before < time
    # With fewer tokens than `before` the slice is clamped, but then there is no
    # n-gram to repeat either.
    suffix = jax.lax.dynamic_slice_in_dim(tokens, time - before, before, axis=2)
    for i in range(before):
      same = tokens[:, :, i : i + starts] == suffix[:, :, i : i + 1]
      repeated = repeated & same
    shape = (num_items, num_sequences, starts)
    return jnp.broadcast_to(repeated, shape), tokens[:, :, before:]


def _at(x, tokens):
  """Updates of f32[B, K, V] at the tokens i32[B, K, N]."""
  num_items, num_sequences = tokens.shape[:2]
  return x.at[
    jnp.arange(num_items)[:, None, None],
    jnp.arange(num_sequences)[:, None],
    tokens,
  ]
