"""The losses of section 3.3: offsets, pen, and the latent distribution.

Each is per point or per drawing; what divides their sums is for the caller to
say. As published, reconstruction divides both sums by B * N_max, the longest
drawing's length, however short the drawings are (equation 9).

Axes: B drawings, T points (N_max as published), Z latent.
"""

import math

import jax
import jax.numpy as jnp
import optax

from sketch_rnn import mixture as mixture_lib

KL_WEIGHTS = ('paper', 'tf1')

# Added to the density by the authors' code, so that the loss of a point is
# never above 13.8.
_LEAST_DENSITY = 1e-6


def offset_loss(mixture: mixture_lib.Mixture, targets: jax.Array) -> jax.Array:
  """Minus log-density of the offsets: f32[B, T, 5] -> f32[B, T].

  Zero where the target is the end or padding.
  """
  log_density = mixture_lib.log_prob(mixture, targets[..., 0], targets[..., 1])
  bounded = jnp.logaddexp(log_density, jnp.log(_LEAST_DENSITY))
  return -bounded * (1 - targets[..., 4])


def pen_loss(
  mixture: mixture_lib.Mixture, targets: jax.Array, *, masked: bool
) -> jax.Array:
  """Cross-entropy of the pen's state: f32[B, T, 5] -> f32[B, T].

  Args:
    mixture: leaves [B, T, ...].
    targets: stroke-5.
    masked: whether the end and the padding count nothing, as in the published
      code's evaluation; in training they count.
  """
  losses = optax.softmax_cross_entropy(mixture.pen_logits, targets[..., 2:])
  return losses * (1 - targets[..., 4]) if masked else losses


def kl_divergence(mean: jax.Array, presigma: jax.Array) -> jax.Array:
  """From N(0, 1), the mean over Z: f32[B, Z], f32[B, Z] -> f32[B].

  Equation 10; the standard deviation is exp(presigma / 2).
  """
  terms = 1 + presigma - jnp.square(mean) - jnp.exp(presigma)
  return -jnp.mean(terms, axis=-1) / 2


def kl_weight(
  step: jax.Array | int,
  *,
  weight: float,
  start: float,
  decay: float,
  form: str = 'paper',
) -> jax.Array:
  """What the KL divergence is multiplied by, rising with the step: f32[].

  Args:
    step: how many updates were made.
    weight: w_KL, the limit.
    start: eta_min: the share of `weight` (paper), or the weight (tf1), at 0.
    decay: R, how the distance from the limit shrinks with every step.
    form: 'paper' for weight * (1 - (1 - start) * decay^step), section 3.3, or
      'tf1' for weight - (weight - start) * decay^step.

  Raises:
    ValueError: no such form.
  """
  if form not in KL_WEIGHTS:
    raise ValueError(f'form={form!r} is none of {", ".join(KL_WEIGHTS)}')
  # Not decay^step: the float32 next to 0.99999 is another number.
  remaining = jnp.exp(step * math.log(decay))
  if form == 'paper':
    return weight * (1 - (1 - start) * remaining)
  return weight - (weight - start) * remaining
