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


def attend(module, query, annotations, mask=None, **options):
  """The context and the weights."""
  keys = module.project(annotations)
  context, weights, _ = module(query, keys, annotations, mask, **options)
  return context, weights


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


def test_weights_average_as_they_are_unless_selected():
  module, variables, query, annotations = problem()
  mask = jnp.arange(L) < jnp.array([3, 5])[:, None]

  def run(**options):
    return module.apply(
      variables,
      query,
      annotations,
      method=lambda module, query, annotations: module(
        query, module.project(annotations), annotations, mask, **options
      ),
    )

  context, weights, selected = run()
  np.testing.assert_array_equal(weights, selected)
  hard, same, selected = run(select=attention.likeliest)
  np.testing.assert_array_equal(same, weights)
  best = np.argmax(weights, -1)
  np.testing.assert_array_equal(selected, np.eye(L)[best])
  wanted = np.take_along_axis(np.asarray(annotations), best[..., None], 1)
  np.testing.assert_allclose(hard, wanted, rtol=1e-6)
  assert np.abs(hard - context).max() > 0.1


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('masked', [False, True])
def test_an_extra_location_is_the_first_of_each_sequence(masked, train):
  """As if it were among the locations, whose key is given rather than made."""
  module, variables, query, annotations = problem()
  sentinel_key = jax.random.normal(jax.random.key(5), (B, K, A))
  sentinel_value = jax.random.normal(jax.random.key(6), (B, K, D))
  mask = jnp.arange(L) < jnp.array([3, 5])[:, None] if masked else None

  def project(module, annotations):
    return module.project(annotations, train=train)

  keys = module.apply(variables, annotations, method=project)
  got = module.apply(
    variables,
    query,
    keys,
    annotations,
    mask,
    sentinel=(sentinel_key, sentinel_value),
    train=train,
  )
  for k in range(K):
    longer = [
      jnp.concatenate([sentinel[:, k : k + 1], own], axis=1)
      for sentinel, own in ((sentinel_key, keys), (sentinel_value, annotations))
    ]
    wanted = module.apply(
      variables,
      query[:, k : k + 1],
      *longer,
      None
      if mask is None
      else jnp.pad(mask, [(0, 0), (1, 0)], constant_values=True),
      train=train,
    )
    for x, y in zip(got, wanted, strict=True):
      np.testing.assert_allclose(x[:, k : k + 1], y, atol=1e-6)
  np.testing.assert_allclose(got[1].sum(-1), 1, rtol=1e-6)


@pytest.mark.parametrize('select', [None, attention.likeliest])
def test_item_by_item_is_all_at_once(select):
  """What a CPU does without a reverse pass, and with one."""
  module, variables, query, annotations = problem(layers=2)
  mask = jnp.arange(L) < jnp.array([3, 5])[:, None]

  def run(module, *, train):
    keys = module.project(annotations, train=train)
    return module(query, keys, annotations, mask, select=select, train=train)

  one, all_ = (
    module.apply(variables, method=run, train=train) for train in (False, True)
  )
  for x, y in zip(one, all_, strict=True):
    np.testing.assert_allclose(x, y, atol=1e-6)


def test_likeliest_is_one_hot_at_the_first_maximum():
  weights = jax.random.uniform(jax.random.key(0), (50, 3, L))
  weights = jnp.round(weights, 1)  # Many equals.
  np.testing.assert_array_equal(
    attention.likeliest(weights), np.eye(L)[np.argmax(weights, -1)]
  )


def test_draws_have_the_weights_as_frequencies():
  """Exactly, where the random numbers are spread evenly."""
  weights = jax.nn.softmax(2 * jax.random.normal(jax.random.key(0), (3, L)))
  size = 10_000
  uniform = (jnp.arange(size) + 0.5) / size
  drawn = attention.sample(
    weights[:, None], jnp.broadcast_to(uniform, (3, size))
  )
  np.testing.assert_array_equal(np.unique(drawn), [0, 1])
  np.testing.assert_array_equal(drawn.sum(-1), 1)
  np.testing.assert_allclose(drawn.mean(1), weights, atol=1.5 / size)


def test_a_location_without_weight_is_never_drawn():
  weights = jnp.array([0.0, 0.3, 0.0, 0.7, 0.0])
  uniform = jnp.array([0, 1e-7, 0.2999, 0.3001, 0.5, 1 - 2**-24])
  drawn = attention.sample(jnp.broadcast_to(weights, (6, 5)), uniform)
  np.testing.assert_array_equal(np.argmax(drawn, -1), [1, 1, 1, 3, 3, 3])
  np.testing.assert_array_equal(drawn.sum(-1), 1)
