import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from scipy import stats

from sketch_rnn import mixture as mixture_lib

COMPONENTS = 3
DRAWS = 20_000


def covariances(mixture):
  """f64[M, 2, 2] of a mixture without other axes."""
  x = np.exp(np.asarray(mixture.log_sigma_x, np.float64))
  y = np.exp(np.asarray(mixture.log_sigma_y, np.float64))
  xy = np.tanh(np.asarray(mixture.atanh_rho, np.float64)) * x * y
  return np.stack([np.stack([x * x, xy]), np.stack([xy, y * y])]).T


def normals(mixture):
  return [
    stats.multivariate_normal(mean, covariance)
    for mean, covariance in zip(
      np.stack([mixture.mean_x, mixture.mean_y], -1),
      covariances(mixture),
      strict=True,
    )
  ]


@pytest.fixture(scope='module')
def mixture():
  raw = jax.random.normal(jax.random.key(3), (6 * COMPONENTS + 3,))
  return mixture_lib.parameters(raw)


def test_parameters_are_in_the_published_order():
  raw = jnp.arange(6 * COMPONENTS + 3, dtype=jnp.float32)
  mixture = mixture_lib.parameters(raw)
  np.testing.assert_array_equal(mixture.pen_logits, [0, 1, 2])
  np.testing.assert_allclose(
    np.exp(mixture.log_weights), np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum()
  )
  np.testing.assert_array_equal(mixture.mean_x, [6, 7, 8])
  np.testing.assert_array_equal(mixture.mean_y, [9, 10, 11])
  np.testing.assert_array_equal(mixture.log_sigma_x, [12, 13, 14])
  np.testing.assert_array_equal(mixture.log_sigma_y, [15, 16, 17])
  np.testing.assert_array_equal(mixture.atanh_rho, [18, 19, 20])


def test_log_prob_is_that_of_scipy():
  keys = jax.random.split(jax.random.key(0))
  raw = 2 * jax.random.normal(keys[0], (4, 50, 6 * COMPONENTS + 3))
  dx, dy = 3 * jax.random.normal(keys[1], (2, 4, 50))
  mixture = mixture_lib.parameters(raw)
  actual = mixture_lib.log_prob(mixture, dx, dy)
  for index in np.ndindex(4, 50):
    one = jax.tree.map(lambda x, index=index: x[index], mixture)
    point = np.array([dx[index], dy[index]])
    logs = [normal.logpdf(point) for normal in normals(one)]
    expected = special.logsumexp(np.float64(one.log_weights) + logs)
    np.testing.assert_allclose(actual[index], expected, rtol=2e-5, atol=2e-5)


@pytest.mark.optimized
def test_log_prob_of_what_is_almost_a_line():
  """rho = 1 - 2e-8: in float32 it is 1, and 1 - rho^2 is 0."""
  raw = jnp.array([0, 0, 0, 0, 0, 0, 0, 0, 9.2], jnp.float32)
  mixture = mixture_lib.parameters(raw)
  assert mixture.rho == 1
  x = np.float32([0, 0.5, -2, 1, 0.25])
  y = x + np.float32([0, 1e-4, 2e-4, -3e-4, 5e-4])
  np.testing.assert_allclose(
    mixture_lib.log_prob(mixture, x, y),
    normals(mixture)[0].logpdf(np.stack([x, y], -1)),
    rtol=1e-5,
  )


# Weights, means of x and y, log sigmas of x and y, atanh of rho; three each.
EXTREMES = [
  [[50, -50, 100], [0] * 3, [0] * 3, [0] * 3, [0] * 3, [0] * 3],
  [[0] * 3, [0] * 3, [0] * 3, [0] * 3, [0] * 3, [90, -90, 50]],
  [[0] * 3, [0] * 3, [0] * 3, [-100, -50, 0], [-100, 0, 90], [9, 0, 0]],
  [[0] * 3, [0] * 3, [0] * 3, [-30] * 3, [-30] * 3, [20, 20, -20]],
  [[0] * 3, [1e4, -1e4, 0], [0] * 3, [100] * 3, [50, 90, 0], [0, 3, -3]],
  [[0] * 3, [1e6] * 3, [1e6] * 3, [-20] * 3, [-20] * 3, [9.9] * 3],
]


@pytest.mark.parametrize('values', EXTREMES)
@pytest.mark.parametrize('point', [(0.0, 0.0), (1.0, -2.0), (-1000.0, 1000.0)])
def test_nothing_is_infinite(values, point):
  """Issue 1735 of the published code: after 23,000 steps, NaN."""
  raw = jnp.concatenate([jnp.zeros(3), jnp.ravel(jnp.float32(values))])

  def loss(raw):
    mixture = mixture_lib.parameters(raw)
    return mixture_lib.log_prob(mixture, *map(jnp.float32, point))

  value, gradient = jax.jit(jax.value_and_grad(loss))(raw)
  assert np.isfinite(value)
  assert np.isfinite(gradient).all()


def sample_many(mixture, temperature=1.0, **kwargs):
  many = jax.tree.map(lambda x: jnp.broadcast_to(x, (DRAWS, *x.shape)), mixture)
  rows = mixture_lib.sample(many, jax.random.key(1), temperature, **kwargs)
  return np.asarray(rows, np.float64)


def test_samples_have_the_distribution(mixture):
  rows = sample_many(mixture)
  weights = np.exp(np.asarray(mixture.log_weights, np.float64))
  for axis, means, log_sigmas in (
    (0, mixture.mean_x, mixture.log_sigma_x),
    (1, mixture.mean_y, mixture.log_sigma_y),
  ):

    def cdf(x, means=means, log_sigmas=log_sigmas):
      return stats.norm.cdf(x[:, None], means, np.exp(log_sigmas)) @ weights

    assert stats.kstest(rows[:, axis], cdf).pvalue > 0.01
  centred = np.stack([mixture.mean_x, mixture.mean_y], -1)
  expected = np.einsum('m,mij->ij', weights, covariances(mixture)) + np.cov(
    centred.T, aweights=weights, bias=True
  )
  np.testing.assert_allclose(np.cov(rows[:, :2].T), expected, rtol=0.05)
  assert set(np.unique(rows[:, 2:])) == {0, 1}
  np.testing.assert_array_equal(rows[:, 2:].sum(-1), 1)
  pen = special.softmax(np.asarray(mixture.pen_logits, np.float64))
  count = rows[:, 2:].sum(0)
  assert stats.chisquare(count, DRAWS * pen).pvalue > 0.01


@pytest.mark.parametrize(
  ('sigma', 'power'),
  [
    ('paper', 0.5),  # The variance times the temperature, equation 8.
    ('tf1', 1.0),  # Measured on the published code: 0.25 gives 0.246.
  ],
)
def test_temperature_narrows_each_component(mixture, sigma, power):
  one = jax.tree.map(lambda x: x[:1], mixture).replace(
    pen_logits=mixture.pen_logits
  )
  plain, cool = sample_many(one), sample_many(one, 0.25, sigma=sigma)
  mean = np.array([one.mean_x[0], one.mean_y[0]])
  # The same key, so each offset shrinks towards the mean by just this factor.
  np.testing.assert_allclose(
    cool[:, :2] - mean, (plain[:, :2] - mean) * 0.25**power, atol=1e-5
  )


def test_temperature_sharpens_components_and_pen(mixture):
  cool = mixture_lib.tempered(mixture, 0.4)
  weights = np.exp(np.asarray(mixture.log_weights)) ** (1 / 0.4)
  np.testing.assert_allclose(
    np.exp(cool.log_weights), weights / weights.sum(), rtol=1e-5
  )
  pen = np.exp(np.asarray(mixture.pen_logits)) ** (1 / 0.4)
  np.testing.assert_allclose(
    jax.nn.softmax(cool.pen_logits), pen / pen.sum(), rtol=1e-5
  )


def test_every_drawing_may_have_its_temperature(mixture):
  many = jax.tree.map(lambda x: jnp.stack([x, x]), mixture)
  both = mixture_lib.tempered(many, jnp.array([0.3, 1.2]), sigma='tf1')
  for index, temperature in enumerate((0.3, 1.2)):
    one = mixture_lib.tempered(mixture, temperature, sigma='tf1')
    jax.tree.map(
      lambda a, b, index=index: np.testing.assert_allclose(
        a[index], b, atol=1e-6
      ),
      both,
      one,
    )


def test_mode_is_the_limit_of_low_temperatures(mixture):
  greedy = mixture_lib.mode(mixture)
  cold = sample_many(mixture, 1e-6)
  np.testing.assert_allclose(cold, np.tile(greedy, (DRAWS, 1)), atol=0.02)


def test_an_unknown_rule_is_refused(mixture):
  with pytest.raises(ValueError, match="sigma='js' is none of paper, tf1"):
    mixture_lib.sample(mixture, jax.random.key(0), sigma='js')
