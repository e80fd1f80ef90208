import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate
from scipy import special
from scipy import stats

from sketch_rnn import losses
from sketch_rnn import mixture as mixture_lib

BATCH, TIME, COMPONENTS = 4, 6, 2


@pytest.fixture(scope='module')
def batch():
  """Mixtures, and drawings of 6, 4, 1 and 0 points with their end rows."""
  keys = jax.random.split(jax.random.key(0), 3)
  raw = jax.random.normal(keys[0], (BATCH, TIME, 6 * COMPONENTS + 3))
  offsets = np.array(jax.random.normal(keys[1], (BATCH, TIME, 2)))
  pen = np.array(jax.random.randint(keys[2], (BATCH, TIME), 0, 2))
  for row, length in enumerate((6, 4, 1, 0)):
    pen[row, length:] = 2
    offsets[row, length:] = 0
  targets = np.concatenate([offsets, np.eye(3)[pen]], -1)
  return mixture_lib.parameters(raw), targets.astype(np.float32)


def test_offset_loss_in_the_space_of_probabilities(batch):
  """As the published code computes it: -log(density + 1e-6)."""
  mixture, targets = batch
  result = losses.offset_loss(mixture, targets)
  for index in np.ndindex(BATCH, TIME):
    one = jax.tree.map(
      lambda x, index=index: np.asarray(x[index], np.float64), mixture
    )
    density = 1e-6
    for k in range(COMPONENTS):
      x, y = np.exp(one.log_sigma_x[k]), np.exp(one.log_sigma_y[k])
      xy = np.tanh(one.atanh_rho[k]) * x * y
      density += np.exp(one.log_weights[k]) * stats.multivariate_normal.pdf(
        targets[index][:2],
        [one.mean_x[k], one.mean_y[k]],
        [[x * x, xy], [xy, y * y]],
      )
    expected = -np.log(density) * (targets[index][4] == 0)
    np.testing.assert_allclose(result[index], expected, rtol=1e-5, atol=1e-5)


def test_offset_loss_is_bounded():
  raw = jnp.zeros((1, 1, 9)).at[..., 4].set(1e5)
  mixture = mixture_lib.parameters(raw)
  targets = jnp.array([[[0, 0, 1, 0, 0]]], jnp.float32)
  np.testing.assert_allclose(
    losses.offset_loss(mixture, targets), [[-np.log(1e-6)]], rtol=1e-6
  )
  gradient = jax.grad(
    lambda raw: losses.offset_loss(mixture_lib.parameters(raw), targets).sum()
  )(raw)
  np.testing.assert_array_equal(gradient, np.zeros_like(raw))


@pytest.mark.parametrize('masked', [False, True])
def test_pen_loss(batch, masked):
  mixture, targets = batch
  logits = np.asarray(mixture.pen_logits, np.float64)
  expected = -(special.log_softmax(logits, -1) * targets[..., 2:]).sum(-1)
  if masked:
    expected = expected * (targets[..., 4] == 0)
  np.testing.assert_allclose(
    losses.pen_loss(mixture, targets, masked=masked), expected, rtol=1e-5
  )


def test_kl_divergence_is_the_integral():
  mean = np.array([[0.5, -1.0, 0.0], [2.0, 0.0, 0.1]], np.float32)
  presigma = np.array([[0.2, -1.5, 0.0], [1.0, -3.0, 0.4]], np.float32)

  def divergence(mean, presigma):
    q = stats.norm(mean, np.exp(presigma / 2))
    p = stats.norm()
    return integrate.quad(
      lambda x: q.pdf(x) * (q.logpdf(x) - p.logpdf(x)), -20, 20, points=[mean]
    )[0]

  np.testing.assert_allclose(
    losses.kl_divergence(mean, presigma),
    np.vectorize(divergence)(mean, presigma).mean(-1),
    rtol=1e-5,
  )


def test_kl_weight_of_the_published_code(golden_file):
  with np.load(golden_file('sketch_rnn/tf1_formulas.npz')) as golden:
    for step, expected in zip(
      golden['sched/step'], golden['sched/kl'], strict=True
    ):
      actual = losses.kl_weight(
        int(step), weight=0.5, start=0.01, decay=0.99995, form='tf1'
      )
      np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_kl_weight_of_the_paper():
  arguments = dict(weight=0.5, start=0.01, decay=0.99999)
  steps = np.array([0, 1, 1000, 100_000, 10_000_000])
  eta = 1 - (1 - 0.01) * 0.99999 ** steps.astype(np.float64)
  np.testing.assert_allclose(
    losses.kl_weight(jnp.asarray(steps), **arguments), 0.5 * eta, rtol=1e-5
  )
  with pytest.raises(ValueError, match="form='linear' is none of paper, tf1"):
    losses.kl_weight(0, **arguments, form='linear')
