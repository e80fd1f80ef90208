import jax
import jax.numpy as jnp
import numpy as np

from recurrent import masking


def test_mask_counts_the_lengths():
  mask = masking.lengths_to_mask(jnp.array([0, 2, 5]), 4)
  np.testing.assert_array_equal(
    mask, [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]
  )
  assert mask.dtype == bool
  np.testing.assert_array_equal(masking.mask_to_lengths(mask), [0, 2, 4])
  assert masking.mask_to_lengths(None) is None


def test_shares_of_uneven_parts_add_up_to_the_mean_over_real_values():
  values = jax.random.normal(jax.random.key(0), (4, 6))
  mask = masking.lengths_to_mask(jnp.array([6, 1, 0, 3]), 6)
  count = jnp.sum(mask)
  shares = [
    masking.share_of_mean(values[part], mask[part], count)
    for part in (slice(0, 1), slice(1, 4))
  ]
  expected = np.mean(np.asarray(values)[np.asarray(mask)])
  np.testing.assert_allclose(sum(shares), expected, rtol=1e-6)


def test_padding_reaches_neither_the_mean_nor_its_gradient():
  values = jnp.array([1.0, 3.0, jnp.nan, jnp.inf])
  mask = jnp.array([1.0, 1.0, 0.0, 0.0])
  mean, gradient = jax.value_and_grad(masking.share_of_mean)(values, mask, 2)
  assert mean == 2.0
  np.testing.assert_array_equal(gradient, [0.5, 0.5, 0, 0])


def test_nothing_real_is_zero():
  share = masking.share_of_mean(jnp.ones(3), jnp.zeros(3, bool), 0)
  assert share == 0.0
