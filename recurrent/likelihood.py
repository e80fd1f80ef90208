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


def token_metrics(
  losses: jax.Array, logits: jax.Array, tokens: jax.Array, mask: jax.Array
) -> TokenMetrics:
  """f32[..., T], f32[..., T, V], i32[..., T], bool[..., T] -> metrics."""
  return TokenMetrics.single_from_model_output(
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
