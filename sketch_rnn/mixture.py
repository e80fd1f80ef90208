"""The distribution of the next point: its offset and the state of the pen.

Offsets follow a mixture of M bivariate normal distributions (Graves 2013), the
pen a categorical distribution over (draws, lifts, ends): section 3.2 of Ha and
Eck (2017).

Axes: M mixtures; ... any axes before it, such as [B, T].
"""

import flax
import jax
import jax.numpy as jnp

SIGMAS = ('paper', 'tf1')

# Beyond these a density or its gradient may leave float32. (The published code
# gives NaN from atanh(rho) = 9 on, where rho is 1 in float32.)
_MIN_LOG_SIGMA = -20.0
_MAX_ATANH_RHO = 10.0
_MAX_DEVIATIONS = 1e6


@flax.struct.dataclass
class Mixture:
  """Parameters; f32[..., M] each, the pen's f32[..., 3].

  Weights and standard deviations are stored as logarithms, the correlation
  before its tanh: 1 - rho^2 in float32 is zero where components are narrow.
  """

  log_weights: jax.Array  # Normalised.
  mean_x: jax.Array
  mean_y: jax.Array
  log_sigma_x: jax.Array
  log_sigma_y: jax.Array
  atanh_rho: jax.Array
  pen_logits: jax.Array  # Not normalised.

  @property
  def rho(self) -> jax.Array:
    """The correlation of dx and dy."""
    return jnp.tanh(self.atanh_rho)


def parameters(raw: jax.Array) -> Mixture:
  """Reads the network's output: f32[..., 6 * M + 3] -> Mixture.

  The published order: 3 of the pen, then M each of weights, means of x and y,
  log sigmas of x and y, correlations (equations 3-5).
  """
  pen_logits, offsets = raw[..., :3], raw[..., 3:]
  weights, *rest = jnp.split(offsets, 6, axis=-1)
  return Mixture(jax.nn.log_softmax(weights), *rest, pen_logits)


def log_prob(mixture: Mixture, dx: jax.Array, dy: jax.Array) -> jax.Array:
  """Log-density of offsets, in nats: f32[...], f32[...] -> f32[...].

  Equation 1. Finite, with a finite gradient, wherever the parameters are.
  """
  log_sigma_x = jnp.maximum(mixture.log_sigma_x, _MIN_LOG_SIGMA)
  log_sigma_y = jnp.maximum(mixture.log_sigma_y, _MIN_LOG_SIGMA)
  r = jnp.clip(mixture.atanh_rho, -_MAX_ATANH_RHO, _MAX_ATANH_RHO)

  def deviations(x, mean, log_sigma):
    return jnp.clip(
      (x[..., None] - mean) * jnp.exp(-log_sigma),
      -_MAX_DEVIATIONS,
      _MAX_DEVIATIONS,
    )

  x = deviations(dx, mixture.mean_x, log_sigma_x)
  y = deviations(dy, mixture.mean_y, log_sigma_y)
  # (x^2 + y^2 - 2 rho x y) / (1 - rho^2) along the axes of the ellipse, where
  # nothing cancels: 1 / (1 + rho) and 1 / (1 - rho) are these exponentials.
  square = (x + y) ** 2 * (1 + jnp.exp(-2 * r))
  square = (square + (x - y) ** 2 * (1 + jnp.exp(2 * r))) / 4
  # log sqrt(1 - rho^2) = -log cosh r
  log_cosh = r + jax.nn.softplus(-2 * r) - jnp.log(2.0)
  log_normals = (
    log_cosh - square / 2 - log_sigma_x - log_sigma_y - jnp.log(2 * jnp.pi)
  )
  return jax.nn.logsumexp(mixture.log_weights + log_normals, axis=-1)


def tempered(
  mixture: Mixture, temperature: jax.Array | float, *, sigma: str = 'paper'
) -> Mixture:
  """Applies a temperature: less random below 1, more above (equation 8).

  Logits of component and pen are divided by the temperature.

  Args:
    mixture: the network's prediction.
    temperature: f32[] or f32[...], above zero; the limit at zero is `mode`.
    sigma: 'paper' multiplies the variance by the temperature, 'tf1' the
      standard deviation, as the authors' TensorFlow code does.

  Raises:
    ValueError: unknown `sigma`.
  """
  if sigma not in SIGMAS:
    raise ValueError(f'sigma={sigma!r} is none of {", ".join(SIGMAS)}')
  temperature = jnp.asarray(temperature)[..., None]
  widen = jnp.log(temperature) * (0.5 if sigma == 'paper' else 1.0)
  return mixture.replace(
    log_weights=jax.nn.log_softmax(mixture.log_weights / temperature),
    log_sigma_x=mixture.log_sigma_x + widen,
    log_sigma_y=mixture.log_sigma_y + widen,
    pen_logits=mixture.pen_logits / temperature,
  )


def sample(
  mixture: Mixture,
  key: jax.Array,
  temperature: jax.Array | float = 1.0,
  *,
  sigma: str = 'paper',
) -> jax.Array:
  """Samples the next point: stroke-5 f32[..., 5].

  Args:
    mixture: the network's prediction.
    key: random key for the whole array.
    temperature: see `tempered`.
    sigma: see `tempered`.
  """
  mixture = tempered(mixture, temperature, sigma=sigma)
  component_key, offset_key, pen_key = jax.random.split(key, 3)
  chosen = jax.random.categorical(component_key, mixture.log_weights)
  pen = jax.random.categorical(pen_key, mixture.pen_logits)
  x, y = jax.random.normal(offset_key, (2, *chosen.shape))
  r = _take(mixture.atanh_rho, chosen)
  # sqrt(1 - rho^2) = 1 / cosh r
  x = x / jnp.cosh(r) + y * jnp.tanh(r)
  dx = _take(mixture.mean_x, chosen)
  dx = dx + x * jnp.exp(_take(mixture.log_sigma_x, chosen))
  dy = _take(mixture.mean_y, chosen)
  dy = dy + y * jnp.exp(_take(mixture.log_sigma_y, chosen))
  return _point(dx, dy, pen)


def mode(mixture: Mixture) -> jax.Array:
  """The greedy choice: stroke-5 f32[..., 5].

  The mean of the component with the largest weight, and the most probable state
  of the pen.
  """
  chosen = jnp.argmax(mixture.log_weights, axis=-1)
  pen = jnp.argmax(mixture.pen_logits, axis=-1)
  return _point(
    _take(mixture.mean_x, chosen), _take(mixture.mean_y, chosen), pen
  )


def _take(x: jax.Array, chosen: jax.Array) -> jax.Array:
  """Takes one component of each: f32[..., M], i32[...] -> f32[...]."""
  return jnp.take_along_axis(x, chosen[..., None], axis=-1)[..., 0]


def _point(dx: jax.Array, dy: jax.Array, pen: jax.Array) -> jax.Array:
  """f32[...], f32[...], i32[...] -> f32[..., 5]."""
  offsets = jnp.stack([dx, dy], axis=-1)
  return jnp.concatenate([offsets, jax.nn.one_hot(pen, 3)], axis=-1)
