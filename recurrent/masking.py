"""Lengths as masks, and means that leave the padding out.

Axes: B batch, T time.
"""

import jax
import jax.numpy as jnp


def lengths_to_mask(lengths: jax.Array, num_steps: int) -> jax.Array:
  """True where a step is real: i32[..., B], T -> bool[..., B, T]."""
  return jnp.arange(num_steps) < lengths[..., None]


def mask_to_lengths(mask: jax.Array | None) -> jax.Array | None:
  """The number of real steps: bool[..., T] -> i32[...]; None stays None."""
  return None if mask is None else jnp.sum(mask, axis=-1)


def share_of_mean(
  values: jax.Array, mask: jax.Array, count: jax.Array
) -> jax.Array:
  """This part's share of the mean over real values: f32[...] -> f32[].

  Args:
    values: f32[...], for example one loss for each token.
    mask: bool or f32 that broadcasts to `values`; zero on padding.
    count: number of real values in all parts together (devices and
      micro-batches), so that the shares and their gradients add up to those of
      the mean, however the batch is split.

  Returns:
    The share, 0 when nothing is real.
  """
  # where, not a product: a NaN under the padding must not survive.
  total = jnp.sum(jnp.where(mask != 0, values * mask, 0))
  return total / jnp.maximum(count, 1)
