"""The loss of Sketch-RNN, section 3.3 of Ha and Eck (2017).

  L_R = L_s + L_p                                                (equation 9)
  L_s = -1 / N_max sum_t log(sum_k w_k N(dx, dy | mu_k, Sigma_k))
  L_p = -1 / N_max sum_t sum_k p_k log q_k
  L_KL = -1 / (2 Z) sum (1 + presigma - mean^2 - exp(presigma))  (equation 10)
  L = L_R + w L_KL                                               (equation 11)

L_s is the loss of the offsets, L_p that of the pen, and L_KL the divergence of
z from the prior. The log of sum_k w_k N is `mixture.log_prob` (equation 1). In
training the weight w is annealed with the step, and L_KL has a floor; see
`create`.

Axes: B drawings, T points (N_max as published), Z latent, M mixtures.
"""

import functools
import math

import clu.metrics
import flax
import jax
import jax.numpy as jnp
import ml_collections
import optax

from recurrent import masking
from sketch_rnn import mixture as mixture_lib
from sketch_rnn import model as model_lib
from training import parallel

KL_WEIGHTS = ('paper', 'tf1')

# Added to the density by the authors' code, so that the loss of a point is
# never above 13.8.
_MIN_DENSITY = 1e-6


@flax.struct.dataclass
class Metrics(clu.metrics.Collection):
  """Means over the drawings of the training batches."""

  reconstruction: clu.metrics.Average.from_output('reconstruction')
  offset: clu.metrics.Average.from_output('offset')
  pen: clu.metrics.Average.from_output('pen')
  kl: clu.metrics.Average.from_output('kl')
  kl_weight: clu.metrics.Average.from_output('kl_weight')


def counts(batch: dict[str, jax.Array]) -> jax.Array:
  """The number of drawings, by which the means of the loss divide."""
  return jnp.asarray(len(batch['strokes']))


def create(
  model: model_lib.SketchRNN, config: ml_collections.ConfigDict, length: int
):
  """Creates the loss that training minimises, for `parallel.train_step`.

    L = L_R + kl_weight(step) max(L_KL, KL_min)

  L_R and L_KL are means over the drawings of the whole batch. The floor KL_min
  applies to the mean: below it L_KL has no gradient. A model that is not
  conditional has L = L_R.

  Args:
    model: the network.
    config: `kl_weight`, `kl_start`, `kl_decay` and `kl_form` (see the function
      `kl_weight`), and `kl_floor`, KL_min.
    length: N_max; see `drawing_losses`.

  Raises:
    ValueError: unknown `kl_form`.
  """
  weight_at = functools.partial(
    kl_weight,
    weight=config.kl_weight,
    start=config.kl_start,
    decay=config.kl_decay,
    form=config.kl_form,
  )
  weight_at(0)  # An unknown form is an error now, not in the first step.

  def loss_fn(variables, batch, counts, step, key):
    strokes = batch['strokes']
    latent_key, dropout_key = jax.random.split(key)
    raw, mean, presigma = model.apply(
      variables,
      strokes,
      batch['length'],
      batch['label'] if model.num_classes else None,
      train=True,
      rngs={'latent': latent_key, 'dropout': dropout_key},
    )
    parts = drawing_losses(raw, mean, presigma, strokes, length)
    parts['reconstruction'] = parts['offset'] + parts['pen']
    every = jnp.ones(len(strokes), bool)
    loss = masking.share_of_mean(parts['reconstruction'], every, counts)
    weight = weight_at(step)
    if model.conditional:
      kl = masking.share_of_mean(parts['kl'], every, counts)
      floor = config.kl_floor * len(strokes) / counts
      above = parallel.total(kl) > config.kl_floor
      loss += weight * jnp.where(above, kl, floor)
    metrics = Metrics.single_from_model_output(
      **parts, kl_weight=jnp.broadcast_to(weight, every.shape)
    )
    return loss, (metrics, {})

  return loss_fn


def drawing_losses(
  raw: jax.Array,
  mean: jax.Array | None,
  presigma: jax.Array | None,
  strokes: jax.Array,
  length: int,
) -> dict[str, jax.Array]:
  """The parts of the loss of each drawing: f32[B] each.

  L_s sums `offset_loss`, L_p sums `pen_loss`. Both are divided by N_max, the
  points of the longest drawing, however short the drawing is. The published
  code does the same.

  Args:
    raw: f32[B, T, 6 * M + 3], the predictions.
    mean: f32[B, Z] of z, or None without an encoder.
    presigma: f32[B, Z], likewise.
    strokes: f32[B, T + 1, 5], the start row first.
    length: N_max. T is smaller where batches are cut to buckets.

  Returns:
    `offset` is L_s. `pen` is L_p with padding counted, as the published code
    has it in training and for the choice of a checkpoint; `pen_masked` is L_p
    without padding. `kl` is L_KL, 0 without an encoder.
  """
  mixture, targets = mixture_lib.parameters(raw), strokes[:, 1:]
  points = {
    'offset': offset_loss(mixture, targets),
    'pen': pen_loss(mixture, targets, masked=False),
    'pen_masked': pen_loss(mixture, targets, masked=True),
  }
  parts = {name: jnp.sum(x, axis=1) / length for name, x in points.items()}
  if mean is None:
    return {**parts, 'kl': jnp.zeros(len(strokes))}
  return {**parts, 'kl': kl_divergence(mean, presigma)}


def offset_loss(mixture: mixture_lib.Mixture, targets: jax.Array) -> jax.Array:
  """Minus log-density of the offsets: f32[B, T, 5] -> f32[B, T].

  The term of L_s, with 1e-6 added to the density, as in the published code. It
  is 0 where the target is the end or padding.

  Args:
    mixture: leaves [B, T, ...].
    targets: stroke-5.
  """
  log_density = mixture_lib.log_prob(mixture, targets[..., 0], targets[..., 1])
  bounded = jnp.logaddexp(log_density, jnp.log(_MIN_DENSITY))
  return -bounded * (1 - targets[..., 4])


def pen_loss(
  mixture: mixture_lib.Mixture, targets: jax.Array, *, masked: bool
) -> jax.Array:
  """Cross-entropy of the pen's state: f32[B, T, 5] -> f32[B, T].

  The term of L_p.

  Args:
    mixture: leaves [B, T, ...].
    targets: stroke-5.
    masked: set the loss of the end and of padding to 0, as the published code
      does in evaluation. In training they count.
  """
  losses = optax.softmax_cross_entropy(mixture.pen_logits, targets[..., 2:])
  return losses * (1 - targets[..., 4]) if masked else losses


def kl_divergence(mean: jax.Array, presigma: jax.Array) -> jax.Array:
  """Divergence of z from N(0, 1), a mean over Z: [B, Z], [B, Z] -> f32[B].

  Equation 10, L_KL; the standard deviation of z is exp(presigma / 2).
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
  """The annealed weight of the KL divergence, rising with the step: f32[].

    paper: w_KL eta,  eta = 1 - (1 - eta_min) R^step
    tf1:   w_KL - (w_KL - eta_min) R^step

  The paper has eta_min = 0.01 and R = 0.99999; the published code, tf1, has
  0.01 and 0.99995.

  Args:
    step: number of completed updates.
    weight: w_KL, the limit.
    start: eta_min. At step 0 the weight is w_KL eta_min (paper) or eta_min
      (tf1).
    decay: R, the factor by which the distance from the limit shrinks in every
      step.
    form: 'paper' or 'tf1'.

  Raises:
    ValueError: unknown form.
  """
  if form not in KL_WEIGHTS:
    raise ValueError(f'form={form!r} is none of {", ".join(KL_WEIGHTS)}')
  # Not decay^step: the float32 next to 0.99999 is another number.
  remaining = jnp.exp(step * math.log(decay))
  if form == 'paper':
    return weight * (1 - (1 - start) * remaining)
  return weight - (weight - start) * remaining
