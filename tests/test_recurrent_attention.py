import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from recurrent import attention

B, K, L, D, H, A = 2, 3, 5, 4, 6, 7


def problem(**kwargs):
  keys = jax.random.split(jax.random.key(0), 3)
  query = jax.random.normal(keys[0], (B, K, H))
  annotations = jax.random.normal(keys[1], (B, L, D))
  module = attention.AdditiveAttention(A, **kwargs)
  variables = module.init(keys[2], query, annotations, method=attend)
  # Biases start at zero: move them, so that they count.
  params = jax.tree.map(lambda leaf: leaf + 0.1, variables['params'])
  return module, {'params': params}, query, annotations


def attend(module, query, annotations, mask=None):
  return module(query, module.project(annotations), annotations, mask)


def by_hand(params, query, annotations, layers):
  context, weights = np.zeros((B, K, D)), np.zeros((B, K, L))
  for b in range(B):
    for k in range(K):
      scores = []
      for location in annotations[b]:
        key = location @ params['key_layers_0']['kernel']
        key = key + params['key_layers_0'].get('bias', 0)
        for layer in range(1, layers):
          dense = params[f'key_layers_{layer}']
          key = np.tanh(key @ dense['kernel'] + dense['bias'])
        hidden = np.tanh(key + query[b, k] @ params['query']['kernel'])
        scores.append(hidden @ params['score']['kernel'][:, 0])
      weights[b, k] = special.softmax(scores)
      context[b, k] = weights[b, k] @ annotations[b]
  return context, weights


@pytest.mark.parametrize(
  'kwargs', [{}, {'layers': 2}, {'use_bias': False}], ids=str
)
def test_attention_equals_the_equations(kwargs):
  module, variables, query, annotations = problem(**kwargs)
  context, weights = module.apply(variables, query, annotations, method=attend)
  params = jax.tree.map(np.asarray, variables['params'])
  assert ('bias' in params['key_layers_0']) == kwargs.get('use_bias', True)
  expected = by_hand(
    params,
    np.asarray(query),
    np.asarray(annotations),
    kwargs.get('layers', 1),
  )
  np.testing.assert_allclose(context, expected[0], atol=1e-5)
  np.testing.assert_allclose(weights, expected[1], atol=1e-5)


def test_mask_is_as_good_as_fewer_locations():
  module, variables, query, annotations = problem()
  lengths = [3, 5]
  mask = jnp.arange(L) < jnp.array(lengths)[:, None]
  context, weights = module.apply(
    variables, query, annotations, mask, method=attend
  )
  for b, length in enumerate(lengths):
    expected_context, expected = module.apply(
      variables,
      query[b : b + 1],
      annotations[b : b + 1, :length],
      method=attend,
    )
    np.testing.assert_allclose(context[b], expected_context[0], atol=1e-6)
    np.testing.assert_allclose(weights[b, :, :length], expected[0], atol=1e-6)
    np.testing.assert_array_equal(weights[b, :, length:], 0)


def test_no_location_at_all_is_zero_and_so_is_its_gradient():
  module, variables, query, annotations = problem()
  mask = jnp.array([[False] * L, [True] * L])

  def total(annotations):
    context, weights = module.apply(
      variables, query, annotations, mask, method=attend
    )
    return jnp.sum(context**2), (context, weights)

  gradient, (context, weights) = jax.grad(total, has_aux=True)(annotations)
  np.testing.assert_array_equal(context[0], 0)
  np.testing.assert_array_equal(weights[0], 0)
  np.testing.assert_array_equal(gradient[0], 0)
  assert np.all(np.isfinite(gradient)) and np.any(gradient[1] != 0)


def test_softmax_survives_scores_below_the_floor_of_half_precision():
  scores = jnp.array([[-1e30, -1e30, 5.0]])
  mask = jnp.array([[True, True, False]])
  weights = attention.masked_softmax(scores, mask)
  np.testing.assert_allclose(weights, [[0.5, 0.5, 0]])


def test_sequences_of_one_set_do_not_see_each_other():
  module, variables, query, annotations = problem()
  context, _ = module.apply(variables, query, annotations, method=attend)
  for k in range(K):
    alone, _ = module.apply(
      variables, query[:, k : k + 1], annotations, method=attend
    )
    np.testing.assert_allclose(context[:, k : k + 1], alone, atol=1e-6)


def test_half_precision_is_close_and_its_weights_are_float32():
  exact, variables, query, annotations = problem()
  half = attention.AdditiveAttention(A, dtype=jnp.bfloat16)
  context, weights = half.apply(variables, query, annotations, method=attend)
  expected, _ = exact.apply(variables, query, annotations, method=attend)
  assert weights.dtype == jnp.float32
  np.testing.assert_allclose(context, expected, atol=0.05)
