"""The likelihood of tokens under a model: cross-entropy and its metrics.

Axes: T tokens, V vocabulary, after any leading axes.
"""

import clu.metrics
import flax
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class TokenMetrics(clu.metrics.Collection):
  """Means over the tokens that are not padding, EOS included."""

  loss: clu.metrics.Average.from_output('loss')
  accuracy: clu.metrics.Average.from_output('correct')


@flax.struct.dataclass
class SequenceAverage(clu.metrics.Average):
  """The mean over sequences of the mean loss of their tokens."""

  @classmethod
  def from_model_output(cls, *, loss, mask, **_):
    """f32[..., T], bool[..., T]; a sequence of padding alone is left out."""
    count = jnp.sum(mask, axis=-1)
    means = jnp.sum(loss, axis=-1, where=mask) / jnp.maximum(count, 1)
    return super().from_model_output(means, mask=count > 0)


@flax.struct.dataclass
class SequenceMetrics(clu.metrics.Collection):
  """The means of `TokenMetrics`, and the mean over sequences of their loss."""

  loss: clu.metrics.Average.from_output('loss')
  accuracy: clu.metrics.Average.from_output('correct')
  sequence_loss: SequenceAverage


def token_metrics(
  losses: jax.Array,
  logits: jax.Array,
  tokens: jax.Array,
  mask: jax.Array,
  kind: type[clu.metrics.Collection] = TokenMetrics,
) -> clu.metrics.Collection:
  """f32[..., T], f32[..., T, V], i32[..., T], bool[..., T] -> metrics.

  Args:
    losses: of each token.
    logits: of the whole vocabulary.
    tokens: those that occurred.
    mask: False on padding.
    kind: `TokenMetrics` or `SequenceMetrics`.
  """
  return kind.single_from_model_output(
    loss=losses,
    correct=jnp.max(logits, -1) == _score(logits, tokens),
    mask=mask,
  )


def _score(logits: jax.Array, tokens: jax.Array) -> jax.Array:
  return jnp.take_along_axis(logits, tokens[..., None], -1)[..., 0]


def cross_entropy(
  logits: jax.Array, tokens: jax.Array, *, smoothing: float = 0.0
) -> jax.Array:
  """-log p(token), in nats: f32[..., T, V], i32[..., T] -> f32[..., T].

  With label smoothing (Szegedy et al. 2016, section 7) the target is the token
  with probability 1 - smoothing, and any word with smoothing.
  """
  normalizer = jax.nn.logsumexp(logits, -1)
  target = _score(logits, tokens)
  if smoothing:
    target = (1 - smoothing) * target + smoothing * jnp.mean(logits, -1)
  return normalizer - target
