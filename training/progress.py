"""Evaluations without a better score: early stopping and the plateau schedule.

Both depend on the scores of all evaluations before. Their summary is a part of
the training state and is saved with it, so that a resumed run stops, and lowers
its learning rate, where an uninterrupted one does.
"""

from typing import Any

import flax
import jax
import ml_collections
import numpy as np


@flax.struct.dataclass
class Progress:
  """A summary of the evaluations of a run."""

  best: jax.Array  # f32[]: the best score; -inf or inf before the first.
  since_best: jax.Array  # i32[]: number of evaluations after that of `best`.
  evaluated: jax.Array  # i32[]: step of the last evaluation.
  scale: jax.Array  # f32[]: factor of the learning rate.


def is_kept(config: Any) -> bool:
  """Checks whether training depends on the scores: of a config, or a dict."""
  optimizer = config.get('optimizer') or {}
  return bool(config.get('patience')) or (
    optimizer.get('schedule') == 'plateau'
  )


def initial(config: ml_collections.ConfigDict) -> Progress:
  """The summary before the first evaluation."""
  worst = np.inf if config.best_mode == 'min' else -np.inf
  return Progress(
    best=np.float32(worst),
    since_best=np.int32(0),
    evaluated=np.int32(0),
    scale=np.float32(1),
  )


def observe(
  progress: Progress,
  score: float,
  step: int,
  config: ml_collections.ConfigDict,
) -> Progress:
  """The summary with the score of one more evaluation.

  Any better score counts, however little; one that is not a number does not.
  With schedule='plateau' the learning rate is multiplied by `decay_rate` after
  every `decay_evaluations` evaluations in a row without one.

  Args:
    progress: that of before.
    score: of `best_metric`.
    step: number of completed updates.
    config: `best_mode` and `optimizer`.
  """
  score = np.float32(score)
  best, scale = np.float32(progress.best), np.float32(progress.scale)
  better = score < best if config.best_mode == 'min' else score > best
  if better:
    best, since_best = score, 0
  else:
    since_best = int(progress.since_best) + 1
    if (
      config.optimizer.schedule == 'plateau'
      and since_best % config.optimizer.decay_evaluations == 0
    ):
      scale *= np.float32(config.optimizer.decay_rate)
  return Progress(best, np.int32(since_best), np.int32(step), scale)


def is_over(
  progress: Progress | None, config: ml_collections.ConfigDict
) -> bool:
  """Checks whether `patience` evaluations in a row were not better."""
  if progress is None or not config.patience:
    return False
  return int(progress.since_best) >= config.patience
