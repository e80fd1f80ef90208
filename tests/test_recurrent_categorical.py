import jax.numpy as jnp

from recurrent import categorical


def test_zero_probability_is_never_drawn_at_either_end():
  probs = jnp.array([0.0, 0.0, 1e-30, 0.0, 1.0, 0.0, 0.0])
  for uniform in (0.0, 1e-7, 0.5, 1 - 2**-24):
    drawn = categorical._inverse_cdf(probs, jnp.float32(uniform))
    assert drawn in (2, 4)


def test_the_first_hit():
  hits = jnp.array([[True, True, False], [False, False, True]])
  assert categorical.first(hits).tolist() == [0, 2]
