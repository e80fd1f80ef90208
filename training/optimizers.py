"""Optimisers from a config: schedule, clipping, weight decay, freezing."""

import math
import re
from collections.abc import Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import ml_collections
import optax

# Final learning rate and decay rate of the code of Ha and Eck (2017).
_PUBLISHED = (1e-5, 0.9999)

# Paths such as 'encoder/stage1/conv1/kernel' -> array.
FlatParams = Mapping[str, Any]


def schedule(
  config: ml_collections.ConfigDict, num_steps: int
) -> optax.Schedule:
  """The learning rate by step: linear warm-up, then the named schedule.

  Args:
    config: `learning_rate`, `warmup_steps` and `schedule`: 'constant',
      'cosine' (to zero at num_steps), 'staircase' (times `decay_rate` every
      `decay_steps`), 'exponential' (the difference to `final_learning_rate` is
      multiplied by `decay_rate` at every step), 'published' (that of
      Sketch-RNN's code: exponential to 1e-5 at 0.9999) or 'plateau' (constant
      here; see progress.py for the factor that follows from the evaluations).
    num_steps: of the whole run.

  Raises:
    ValueError: an unknown schedule.
  """
  peak = config.learning_rate
  after = num_steps - config.warmup_steps
  schedules = {
    'constant': lambda: optax.constant_schedule(peak),
    'plateau': lambda: optax.constant_schedule(peak),
    'cosine': lambda: optax.cosine_decay_schedule(peak, max(after, 1)),
    'staircase': lambda: optax.exponential_decay(
      peak, config.decay_steps, config.decay_rate, staircase=True
    ),
    'exponential': lambda: _exponential(
      peak, config.final_learning_rate, config.decay_rate
    ),
    'published': lambda: _exponential(peak, *_PUBLISHED),
  }
  if config.schedule not in schedules:
    raise ValueError(
      f'optimizer.schedule={config.schedule!r} is none of '
      f'{", ".join(schedules)}'
    )
  main = schedules[config.schedule]()
  if not config.warmup_steps:
    return main
  warmup = optax.linear_schedule(0.0, peak, config.warmup_steps)
  return optax.join_schedules([warmup, main], [config.warmup_steps])


def _exponential(start: float, end: float, rate: float) -> optax.Schedule:
  # Not rate**step: in float32 0.9999 is rounded too much.
  return lambda step: end + (start - end) * jnp.exp(step * math.log(rate))


def scale_by_adam_hat(
  b1: float, b2: float, epsilon: float = 1e-8
) -> optax.GradientTransformation:
  """Adam as TensorFlow computes it.

  The end of section 2 of Kingma and Ba (2015): epsilon-hat is added to the root
  of the second moment before its bias is corrected, while optax and PyTorch
  correct first. They differ where gradients are as small as epsilon.
  """

  def init(params):
    return optax.ScaleByAdamState(
      count=jnp.zeros((), jnp.int32),
      mu=jax.tree.map(jnp.zeros_like, params),
      nu=jax.tree.map(jnp.zeros_like, params),
    )

  def update(gradient, state, params=None):
    del params
    mu = optax.tree.update_moment(gradient, state.mu, b1, 1)
    nu = optax.tree.update_moment(gradient, state.nu, b2, 2)
    count = optax.safe_increment(state.count)
    scale = jnp.sqrt(1 - b2**count) / (1 - b1**count)
    change = jax.tree.map(
      lambda m, v: scale * m / (jnp.sqrt(v) + epsilon), mu, nu
    )
    return change, optax.ScaleByAdamState(count, mu, nu)

  return optax.GradientTransformation(init, update)


def _adam(config, rate) -> list[optax.GradientTransformation]:
  """Adam (Kingma and Ba 2015), the decay decoupled (Loshchilov, Hutter 2019).

  p -= rate * (m / (sqrt(v) + epsilon) + weight_decay * p), for unbiased m, v
  """
  scale = scale_by_adam_hat if config.epsilon_hat else optax.scale_by_adam
  return [
    scale(config.b1, config.b2, config.epsilon),
    optax.add_decayed_weights(config.weight_decay),
    rate,
  ]


def _sgd(config, rate) -> list[optax.GradientTransformation]:
  """Gradient descent, as torch.optim.SGD without dampening.

  g += weight_decay * p
  b = momentum * b + g
  p -= rate * b, with Nesterov's momentum rate * (g + momentum * b)
  """
  return [
    optax.add_decayed_weights(config.weight_decay),
    *_momentum(config),
    rate,
  ]


def _rmsprop(config, rate) -> list[optax.GradientTransformation]:
  """RMSProp, as torch.optim.RMSprop: epsilon is added to the root.

  g += weight_decay * p
  v = rms_decay * v + (1 - rms_decay) * g^2
  b = momentum * b + g / (sqrt(v) + epsilon)
  p -= rate * b
  """
  return [
    optax.add_decayed_weights(config.weight_decay),
    optax.scale_by_rms(config.rms_decay, config.epsilon, eps_in_sqrt=False),
    *_momentum(config),
    rate,
  ]


def _rmsprop_graves(config, rate) -> list[optax.GradientTransformation]:
  """RMSProp of Graves 2013, equations 38 to 41: epsilon is within the root.

    g += weight_decay * p
    n = rms_decay * n + (1 - rms_decay) * g^2
    m = rms_decay * m + (1 - rms_decay) * g
    b = momentum * b + rate * g / sqrt(n - m^2 + epsilon)
    p -= b

  The code of Xu et al. 2015 has it with rms_decay 0.95, momentum 0.9, and 1e-4
  as both the rate and epsilon.
  """
  return [
    optax.add_decayed_weights(config.weight_decay),
    optax.scale_by_stddev(config.rms_decay, config.epsilon, eps_in_sqrt=True),
    rate,
    *_momentum(config),
  ]


def _momentum(config) -> list[optax.GradientTransformation]:
  if not config.momentum:
    return []
  return [optax.trace(config.momentum, nesterov=config.nesterov)]


# Values of `optimizer.kind`.
OPTIMIZERS = {
  'adam': _adam,
  'sgd': _sgd,
  'rmsprop': _rmsprop,
  'rmsprop_graves': _rmsprop_graves,
}


def create(
  config: ml_collections.ConfigDict, num_steps: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """Creates one of `OPTIMIZERS`, the gradient clipped before.

  Args:
    config: `kind`, the fields of `schedule`, `b1`, `b2` and `epsilon_hat` (Adam
      in TensorFlow's form), `momentum`, `nesterov`, `rms_decay`, `epsilon`,
      `weight_decay`, `clip_norm` (global norm; 0 for none), `clip_value` (per
      element; 0 for none) and `rates`, pairs of a regular expression and a
      factor. The learning rate of the parameters whose path starts with a match
      is multiplied by the factor.
    num_steps: of the whole run.

  Returns:
    The transformation, and its learning rate by step for the reports.

  Raises:
    ValueError: an unknown kind or schedule.
  """
  if config.kind not in OPTIMIZERS:
    raise ValueError(
      f'optimizer.kind={config.kind!r} is none of {", ".join(OPTIMIZERS)}'
    )
  learning_rate = schedule(config, num_steps)
  steps = []
  if config.clip_value:
    steps.append(optax.clip(config.clip_value))
  if config.clip_norm:
    steps.append(optax.clip_by_global_norm(config.clip_norm))
  rate = optax.scale_by_learning_rate(learning_rate)
  steps += [
    *OPTIMIZERS[config.kind](config, rate),
    *(_scale_path(pattern, factor) for pattern, factor in config.rates),
  ]
  return optax.chain(*steps), learning_rate


def _scale_path(pattern: str, factor: float) -> optax.GradientTransformation:
  """Scales the updates of the parameters whose path the pattern matches."""

  def init(params):
    if not any(re.match(pattern, path) for path in params):
      raise ValueError(
        f'optimizer.rates: {pattern!r} matches no trained parameter; there '
        f'are: {_list(params)}'
      )
    return optax.EmptyState()

  def update(updates, state, params=None):
    del params
    scaled = {
      path: factor * x if re.match(pattern, path) else x
      for path, x in updates.items()
    }
    return scaled, state

  return optax.GradientTransformation(init, update)


def _list(params: FlatParams) -> str:
  """Some of the paths of the parameters."""
  paths = sorted(params)
  more = f' and {len(paths) - 8} more' if len(paths) > 8 else ''
  return f'{", ".join(paths[:8])}{more}'


def partition(
  params: Any, frozen: tuple[str, ...]
) -> tuple[FlatParams, FlatParams]:
  """Splits nested parameters into (trained, frozen), both flat by path.

  Args:
    params: nested dicts of arrays.
    frozen: regular expressions; parameters whose path starts with a match, such
      as 'encoder/', are frozen.

  Raises:
    ValueError: an expression matches nothing, probably a typing error.
  """
  flat = flax.traverse_util.flatten_dict(params, sep='/')
  for pattern in frozen:
    if not any(re.match(pattern, path) for path in flat):
      raise ValueError(
        f'frozen={pattern!r} matches no parameter; there are: {_list(flat)}'
      )
  matched = {p for p in flat if any(re.match(f, p) for f in frozen)}
  trained = {p: x for p, x in flat.items() if p not in matched}
  return trained, {p: flat[p] for p in matched}


def merge(trained: FlatParams, frozen: FlatParams) -> Any:
  """Joins the parameters that `partition` has split."""
  return flax.traverse_util.unflatten_dict({**trained, **frozen}, sep='/')
