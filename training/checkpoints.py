"""Checkpoints and config of a run in its workdir.

  config.json            the experiment
  checkpoints/<step>/    Orbax: `model` (all that inference needs), `training`
                         (the rest of the state), `extras` (config, vocabulary),
                         `metrics` if the step was evaluated
  metrics.jsonl          see training.report

The latest checkpoint and the best by a named metric are kept. A checkpoint is
written under a temporary name and renamed: one that exists is complete.
"""

import json
import os
import pathlib
from typing import Any

import flax
import jax
import ml_collections
import orbax.checkpoint as ocp
from absl import logging

from training import parallel
from training import released


class Checkpoints:
  """The checkpoints of one run; a context that waits for writes at its end."""

  def __init__(
    self,
    workdir: pathlib.Path,
    *,
    best_metric: str,
    mode: str = 'max',
  ):
    """Opens or creates `workdir/checkpoints`.

    Args:
      workdir: of the run; absolute.
      best_metric: name of the metric that ranks the checkpoints.
      mode: 'max' or 'min'.

    Raises:
      ValueError: an unknown mode, or the directory of a released model.
    """
    if released.is_released(workdir):
      raise ValueError(
        f'{workdir} is a released model, which is not trained on: choose '
        'another --workdir'
      )
    if mode not in ('max', 'min'):
      raise ValueError(f"best_mode={mode!r} must be 'max' or 'min'")
    self._best_metric = best_metric
    policies = ocp.checkpoint_managers
    self._manager = ocp.CheckpointManager(
      _directory(workdir),
      item_handlers={
        'model': ocp.StandardCheckpointHandler(),
        'training': ocp.StandardCheckpointHandler(),
        'extras': ocp.JsonCheckpointHandler(),
      },
      options=ocp.CheckpointManagerOptions(
        best_fn=lambda metrics: metrics[best_metric],
        best_mode=mode,
        preservation_policy=policies.AnyPreservationPolicy(
          [
            policies.LatestN(1),
            policies.BestN(
              get_metric_fn=lambda metrics: metrics[best_metric],
              reverse=mode == 'min',
              n=1,
              keep_checkpoints_without_metrics=False,
            ),
          ]
        ),
        step_prefix=None,
        cleanup_tmp_directories=True,
      ),
    )

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._manager.close()

  @property
  def latest_step(self) -> int | None:
    """The step of the newest checkpoint, None where there is none."""
    return self._manager.latest_step()

  @property
  def best_score(self) -> float | None:
    """The score of the best checkpoint; None if none was evaluated."""
    step = self._manager.best_step()
    metrics = None if step is None else self._manager.metrics(step)
    return None if metrics is None else metrics[self._best_metric]

  def evaluated(self, step: int) -> bool:
    """Checks whether the checkpoint of `step` exists and has metrics."""
    return (
      step in self._manager.all_steps()
      and self._manager.metrics(step) is not None
    )

  def save(
    self,
    state: parallel.TrainState,
    *,
    extras: dict[str, Any],
    metrics: dict[str, float] | None = None,
  ):
    """Starts writing `state`; returns when it has been copied from the device.

    Args:
      state: saved under its own step.
      extras: JSON values that inference needs in addition to the model.
      metrics: those of this step's evaluation, which rank the checkpoint.
    """
    # Copies to numpy: the next step reuses the state's buffers. On several
    # hosts each has the whole state, and the first host writes it.
    state = jax.device_get(state)
    step = int(state.step)
    if step in self._manager.all_steps():
      self.wait()  # It may be incomplete, without its metrics.
      if metrics is None or self.evaluated(step):
        return
      self._add_metrics(step, metrics)
      return
    self._manager.save(
      step,
      args=ocp.args.Composite(
        model=ocp.args.StandardSave(_model(state)),
        training=ocp.args.StandardSave(_training(state)),
        extras=ocp.args.JsonSave(extras),
      ),
      metrics=metrics,
    )

  def _add_metrics(self, step: int, metrics: dict[str, float]):
    """Adds metrics to a checkpoint, in the format of the manager."""
    with ocp.Checkpointer(ocp.JsonCheckpointHandler('metrics')) as writer:
      writer.save(
        self._manager.directory / str(step) / 'metrics',
        args=ocp.args.JsonSave(metrics),
      )
    self._manager.reload()

  def restore(self, state: parallel.TrainState) -> parallel.TrainState:
    """Returns the latest checkpoint in the form of `state`, or `state` if none.

    Raises:
      ValueError: the checkpoint is of another model; the message lists the
        differences.
    """
    step = self.latest_step
    if step is None:
      return state
    example = jax.device_get(state)
    saved = self._manager.item_metadata(step).model
    _check_names(saved, self._manager.directory / str(step))
    check_shapes(
      saved,
      _model(example),
      self._manager.directory / str(step),
    )
    restored = self._manager.restore(
      step,
      args=ocp.args.Composite(
        model=ocp.args.StandardRestore(_model(example)),
        training=ocp.args.StandardRestore(_training(example)),
      ),
    )
    return parallel.replicate(
      parallel.TrainState(**restored.model, **restored.training)
    )

  def wait(self):
    """Waits until all checkpoints are on disk."""
    self._manager.wait_until_finished()


def load(
  workdir: pathlib.Path, *, best_metric: str, mode: str = 'max'
) -> tuple[dict[str, Any], dict[str, Any], int]:
  """Loads the variables, extras and step of the best checkpoint, for inference.

  If none was evaluated, loads the latest. A released model has one.

  Raises:
    FileNotFoundError: the workdir has no checkpoint.
    ValueError: a released model is damaged.
  """
  if released.is_released(workdir):
    return released.load(workdir)
  if not _directory(workdir).is_dir():
    raise FileNotFoundError(
      f'{_directory(workdir)} does not exist: train there first'
    )
  options = ocp.CheckpointManagerOptions(
    best_fn=lambda metrics: metrics[best_metric],
    best_mode=mode,
    read_only=True,
  )
  with ocp.CheckpointManager(_directory(workdir), options=options) as manager:
    evaluated = [s for s in manager.all_steps() if manager.metrics(s)]
    step = manager.best_step() if evaluated else manager.latest_step()
    if step is None:
      raise FileNotFoundError(
        f'{_directory(workdir)} holds no checkpoint: train there first'
      )
    restored = manager.restore(
      step,
      args=ocp.args.Composite(
        model=ocp.args.StandardRestore(), extras=ocp.args.JsonRestore()
      ),
    )
  model = restored.model
  _check_names(model, _directory(workdir) / str(step))
  params = model['ema_params'] or model['params']
  return {'params': params, **model['model_state']}, restored.extras, step


def _check_names(saved: Any, path: pathlib.Path):
  """Raises a ValueError if a checkpoint was written by an earlier version."""
  if 'statistics' in saved:
    raise ValueError(
      f'{path} was written by an earlier version: its `statistics` and '
      '`average` are `model_state` and `ema_params` now. Train again, or '
      'check out the commit that results.json names'
    )


def check_shapes(saved: Any, wanted: Any, path: pathlib.Path):
  """Raises a ValueError that lists the differences of two trees of arrays.

  Args:
    saved: the arrays of the checkpoint.
    wanted: the expected arrays, or anything with shapes.
    path: of the checkpoint, for the error.
  """
  saved, wanted = _shapes(saved), _shapes(wanted)
  wrong = [
    f'{name} is {saved.get(name, "absent")} there, '
    f'{wanted.get(name, "absent")} here'
    for name in sorted(saved.keys() | wanted.keys())
    if saved.get(name) != wanted.get(name)
  ]
  if wrong:
    raise ValueError(
      f"{path} is of another model: go on with that run's own config "
      '(config.json in the workdir) or choose another --workdir. '
      f'{"; ".join(wrong)}'
    )


def write_config(workdir: pathlib.Path, config: ml_collections.ConfigDict):
  """Stores the config in the workdir; logs changes from the stored one."""
  path = workdir / 'config.json'
  new = json.loads(config.to_json())
  if path.exists():
    old = _flatten(json.loads(path.read_text()))
    for name, value in _flatten(new).items():
      if old.get(name) != value:
        logging.warning(
          'config.%s is %r now, %r in %s', name, value, old.get(name), path
        )
  if jax.process_index() == 0:
    write_json(path, new)


def _flatten(config: dict[str, Any]) -> dict[str, Any]:
  return flax.traverse_util.flatten_dict(config, sep='.')


def write_json(path: pathlib.Path, value: Any):
  """Writes JSON under a temporary name and renames it when complete."""
  path.parent.mkdir(parents=True, exist_ok=True)
  beside = path.with_name(path.name + '.tmp')
  beside.write_text(json.dumps(value, indent=2, sort_keys=True) + '\n')
  os.replace(beside, path)


def _directory(workdir: pathlib.Path) -> pathlib.Path:
  return workdir / 'checkpoints'


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  leaves, _ = jax.tree.flatten_with_path(tree)
  return {jax.tree_util.keystr(path): tuple(x.shape) for path, x in leaves}


def _model(state: parallel.TrainState) -> dict[str, Any]:
  return {
    'params': state.params,
    'model_state': state.model_state,
    'ema_params': state.ema_params,
  }


def _training(state: parallel.TrainState) -> dict[str, Any]:
  return {'step': state.step, 'opt_state': state.opt_state}
