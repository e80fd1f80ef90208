"""From a config to an optimiser: schedule, clipping, weight decay, freezing."""

import re
from collections.abc import Mapping
from typing import Any

import flax
import ml_collections
import optax

# Paths such as 'encoder/stage1/conv1/kernel' -> array.
FlatParams = Mapping[str, Any]


def schedule(
  config: ml_collections.ConfigDict, num_steps: int
) -> optax.Schedule:
  """Learning rate by step: linear warm-up, then the schedule of that name.

  Args:
    config: `learning_rate`, `warmup_steps` and `schedule`: 'constant',
      'cosine' (to zero at num_steps) or 'staircase' (times `decay_rate` every
      `decay_steps`).
    num_steps: of the whole run.

  Raises:
    ValueError: an unknown schedule.
  """
  peak = config.learning_rate
  after = num_steps - config.warmup_steps
  schedules = {
    'constant': lambda: optax.constant_schedule(peak),
    'cosine': lambda: optax.cosine_decay_schedule(peak, max(after, 1)),
    'staircase': lambda: optax.exponential_decay(
      peak, config.decay_steps, config.decay_rate, staircase=True
    ),
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


def create(
  config: ml_collections.ConfigDict, num_steps: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """Adam with decoupled weight decay, the gradient clipped before.

  Args:
    config: what `schedule` reads, `b1`, `b2`, `weight_decay`, `clip_norm`
      (global norm; 0 for none) and `clip_value` (per element; 0 for none).
    num_steps: of the whole run.

  Returns:
    The transformation, and its learning rate by step for the reports.
  """
  learning_rate = schedule(config, num_steps)
  steps = []
  if config.clip_value:
    steps.append(optax.clip(config.clip_value))
  if config.clip_norm:
    steps.append(optax.clip_by_global_norm(config.clip_norm))
  steps.append(
    optax.adamw(
      learning_rate,
      b1=config.b1,
      b2=config.b2,
      weight_decay=config.weight_decay,
    )
  )
  return optax.chain(*steps), learning_rate


def partition(
  params: Any, frozen: tuple[str, ...]
) -> tuple[FlatParams, FlatParams]:
  """Splits nested parameters into (trained, frozen), both flat by path.

  Args:
    params: nested dicts of arrays.
    frozen: regular expressions; a path that one of them matches from its
      beginning ('encoder/') is frozen.

  Raises:
    ValueError: an expression matches nothing (a typing error, surely).
  """
  flat = flax.traverse_util.flatten_dict(params, sep='/')
  for pattern in frozen:
    if not any(re.match(pattern, path) for path in flat):
      raise ValueError(
        f'frozen={pattern!r} matches no parameter; there are: '
        f'{", ".join(sorted(flat))}'
      )
  stays = {p for p in flat if any(re.match(f, p) for f in frozen)}
  trained = {p: x for p, x in flat.items() if p not in stays}
  return trained, {p: flat[p] for p in stays}


def merge(trained: FlatParams, frozen: FlatParams) -> Any:
  """The nested parameters that `partition` split."""
  return flax.traverse_util.unflatten_dict({**trained, **frozen}, sep='/')
