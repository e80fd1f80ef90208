"""Checkpoints and config of a run in its workdir.

  python -m training.checkpoints verify runs/coco

reads all checkpoints of a workdir and compares them with their digests; the
exit status is 1 if one is damaged. A run reads and writes these:

  config.json            the experiment
  checkpoints/<step>/    Orbax: `model` (all that inference needs), `training`
                         (the rest of the state), `extras` (config, vocabulary),
                         `digests` of all of these, `metrics` if the step was
                         evaluated
  damaged/<step>/        a checkpoint that is not what was saved, moved aside
  metrics.jsonl          see training.report

The latest checkpoint and the best by a named metric are kept. A checkpoint is
written under a temporary name and renamed: one that exists is complete, unless
it was copied in part. Whatever reads one compares it with its digests.
"""

import contextlib
import json
import os
import pathlib
import shutil
import sys
import zlib
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any
from typing import NamedTuple

import flax
import jax
import ml_collections
import numpy as np
import optax
import orbax.checkpoint as ocp
from absl import logging

from training import errors
from training import parallel
from training import paths
from training import progress
from training import released

_ITEMS = ('model', 'training')
# Checkpoints to be deleted are renamed into this directory first, so that
# another process that reads one finds it whole or not at all.
_DELETED = 'deleted'
# Of `_digest`: bytes of a row, and rows that are added.
_ROW, _ROWS = 8192, 64
_CHECKSUM = 'crc32'  # Name of the digest in the JSON that it belongs to.
# Types and shapes of `progress`, to read it where a run does not need it.
_PROGRESS = progress.Progress(
  *(np.zeros((), kind) for kind in (np.float32, np.int32, np.int32, np.float32))
)


class Damaged(ValueError):
  """A checkpoint is not what was saved."""


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

    Moves half-written checkpoints aside, if others are there.

    Raises:
      Damaged: there are checkpoints, but none of them is whole.
      ValueError: an unknown mode, or the directory of a released model.
    """
    if released.is_released(workdir):
      raise ValueError(
        f'{workdir} is a released model, which is not trained on: choose '
        'another --workdir'
      )
    if mode not in ('max', 'min'):
      raise ValueError(f"best_mode={mode!r} must be 'max' or 'min'")
    self._workdir = workdir
    self._best_metric = best_metric
    problem = ''
    if jax.process_index() == 0:
      try:
        self._set_aside_half_written()
      except Damaged as error:
        problem = str(error)
    problem, *_ = parallel.gather_texts(problem)
    if problem:
      raise Damaged(problem)
    policies = ocp.checkpoint_managers
    self._manager = ocp.CheckpointManager(
      _directory(workdir),
      item_handlers={
        'model': ocp.StandardCheckpointHandler(),
        'training': ocp.StandardCheckpointHandler(),
        'extras': ocp.JsonCheckpointHandler(),
        'digests': ocp.JsonCheckpointHandler(),
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
        todelete_subdir=_DELETED,
      ),
    )

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._manager.close()
    self._remove_deleted()

  def _set_aside_half_written(self):
    """Moves checkpoints aside whose JSON is not whole."""
    problems, good = {}, []
    for path in _step_paths(self._workdir):
      try:
        _read_json(path)
        good.append(path)
      except Damaged as error:
        problems[path] = str(error)
    if problems and not good:
      raise Damaged(_none_is_good(problems))
    for path, problem in problems.items():
      self._set_aside(path, problem)

  def _set_aside(self, path: pathlib.Path, problem: str):
    """Moves a damaged checkpoint out of the way."""
    directory = self._workdir / 'damaged'
    directory.mkdir(exist_ok=True)
    target, count = directory / path.name, 0
    while target.exists():
      count += 1
      target = directory / f'{path.name}.{count}'
    path.rename(target)
    logging.warning('%s; moved to %s', problem, target)

  def _remove_deleted(self):
    if jax.process_index() == 0:
      shutil.rmtree(_directory(self._workdir) / _DELETED, ignore_errors=True)

  @property
  def latest_step(self) -> int | None:
    """The step of the newest checkpoint, None where there is none."""
    return self._manager.latest_step()

  @property
  def best_score(self) -> float | None:
    """The score of the best checkpoint; None if none was evaluated."""
    step = self._manager.best_step()
    return None if step is None else self.score(step)

  def evaluated(self, step: int) -> bool:
    """Checks whether the checkpoint of `step` exists and has metrics."""
    return self.score(step) is not None

  def score(self, step: int) -> float | None:
    """The score of the checkpoint of `step`; None if it was not evaluated."""
    if step not in self._manager.all_steps():
      return None
    metrics = self._manager.metrics(step)
    return None if metrics is None else metrics[self._best_metric]

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
    extras = json.loads(json.dumps(extras))  # As it will be read.
    items = {'model': _model(state), 'training': _training(state)}
    digests = {'arrays': _digests(items), 'extras': _checksum(extras)}
    self.wait()  # For the previous one, as the manager does.
    self._remove_deleted()
    self._manager.save(
      step,
      args=ocp.args.Composite(
        **{name: ocp.args.StandardSave(tree) for name, tree in items.items()},
        extras=ocp.args.JsonSave(extras),
        digests=ocp.args.JsonSave(_signed(digests)),
      ),
      metrics=None if metrics is None else _signed(metrics),
    )

  def _add_metrics(self, step: int, metrics: dict[str, float]):
    """Adds metrics to a checkpoint, in the format of the manager."""
    with ocp.Checkpointer(ocp.JsonCheckpointHandler('metrics')) as writer:
      writer.save(
        self._manager.directory / str(step) / 'metrics',
        args=ocp.args.JsonSave(_signed(metrics)),
      )
    self._manager.reload()
    self._delete_others()

  def _delete_others(self):
    """Deletes checkpoints that are neither the latest nor the best.

    The manager does so after a save alone: not when one gets its metrics later,
    nor for a process that was killed before it came to that.
    """
    kept = self._manager.latest_step(), self._manager.best_step()
    for step in self._manager.all_steps():
      if step not in kept:
        self._manager.delete(step)
    self._remove_deleted()

  def restore(
    self,
    state: parallel.TrainState,
    check: Callable[[dict[str, Any], pathlib.Path], None] = lambda *_: None,
  ) -> parallel.TrainState:
    """Returns the newest good checkpoint in the form of `state`.

    Returns `state` itself if there is no checkpoint. Damaged ones are named and
    moved aside, those that are neither the latest nor the best deleted.

    Args:
      state: the state before the first step.
      check: raises if a run with these extras, at this path, is not to be
        resumed; nothing has been moved then.

    Raises:
      Damaged: there are checkpoints, but none of them is good.
      ValueError: the checkpoint is of another model or optimizer; the message
        lists the differences.
    """
    example = jax.device_get(state)
    example = {'model': _model(example), 'training': _training(example)}
    found, problems = None, {}
    for path in reversed(_step_paths(self._workdir)):
      problem = ''
      try:
        # The others are checked as well, while another best can be trained.
        read = _read(path, example if found is None else None)
      except Damaged as error:
        problem = str(error)
      # On several hosts it is good if all of them have read it.
      problem = next(filter(None, parallel.gather_texts(problem)), '')
      if problem:
        problems[path] = problem
      elif found is None:
        found = path, read
    if found is None:
      if problems:
        raise Damaged(_none_is_good(problems))
      return state
    path, (items, extras) = found
    check(extras, path)
    if problems:
      if jax.process_index() == 0:
        for wrong, problem in problems.items():
          self._set_aside(wrong, problem)
      parallel.wait_for_all('damaged checkpoints')
      logging.warning('Going on from step %s, in %s', path.name, path)
      self._manager.reload()
    self._delete_others()
    training = dict(items['training'])
    # A run that began to need it, or no longer does, has another config.
    kept = training.pop('progress', None)
    if state.progress is not None:
      training['progress'] = kept or jax.tree.map(np.array, state.progress)
    return parallel.replicate(parallel.TrainState(**items['model'], **training))

  def last_good(self) -> int | None:
    """The step of the newest checkpoint that is what was saved, if any."""
    self.wait()
    for path in reversed(_step_paths(self._workdir)):
      with contextlib.suppress(Damaged):
        _read(path)
        return int(path.name)
    return None

  def wait(self):
    """Waits until all checkpoints are on disk."""
    self._manager.wait_until_finished()


def load(
  workdir: pathlib.Path, *, best_metric: str, mode: str = 'max'
) -> tuple[dict[str, Any], dict[str, Any], int]:
  """Loads the variables, extras and step of the best checkpoint, for inference.

  If none was evaluated, loads the latest. A damaged one is named, and the next
  best is loaded. A released model has one.

  Raises:
    Damaged: there are checkpoints, but none of them is good.
    FileNotFoundError: the workdir has no checkpoint.
    ValueError: a released model is damaged.
  """
  if released.is_released(workdir):
    return released.load(workdir)
  if not _directory(workdir).is_dir():
    raise FileNotFoundError(
      f'{_directory(workdir)} does not exist: train there first'
    )

  def rank(path):
    if whole[path].metrics is None:
      return False, 0.0, int(path.name)
    score = whole[path].metrics[best_metric]
    return True, score if mode == 'max' else -score, int(path.name)

  problems = {}
  while True:
    # Listed again after each failure: a run may have replaced its checkpoints.
    whole, path = {}, None
    try:
      for path in _step_paths(workdir):
        if path not in problems:
          whole[path] = _read_json(path)
      if not whole:
        break
      path = max(whole, key=rank)
      items, extras = _read(path, names=('model',))
    except Damaged as error:
      if path.is_dir():
        problems[path] = str(error)
      continue
    for problem in problems.values():
      logging.warning('%s; loading %s', problem, path)
    model = items['model']
    params = model['ema_params'] or model['params']
    return {'params': params, **model['model_state']}, extras, int(path.name)
  if problems:
    raise Damaged(_none_is_good(problems))
  raise FileNotFoundError(
    f'{_directory(workdir)} holds no checkpoint: train there first'
  )


# Reading and digests.


class _Json(NamedTuple):
  """The parts of a checkpoint that are not arrays."""

  digests: dict[str, Any] | None  # None: of an earlier version.
  extras: dict[str, Any]
  metrics: dict[str, float] | None


def _step_paths(workdir: pathlib.Path) -> list[pathlib.Path]:
  """The directories of the checkpoints, the newest last."""
  paths = _directory(workdir).glob('*')
  return sorted(
    (path for path in paths if path.name.isdigit() and path.is_dir()),
    key=lambda path: int(path.name),
  )


@contextlib.contextmanager
def _reading(path: pathlib.Path) -> Iterator[None]:
  """Turns what libraries raise for damaged files into `Damaged`."""
  try:
    yield
  except (Damaged, PermissionError):
    raise
  except Exception as error:
    reason = (str(error).splitlines() or [''])[0][:200]
    raise Damaged(
      f'{path} is damaged: {type(error).__name__}: {reason}'
    ) from error


def _read_json(path: pathlib.Path) -> _Json:
  """Reads all of a checkpoint but the arrays.

  Raises:
    Damaged: it is not what was saved.
  """
  with _reading(path):
    extras = json.loads((path / 'extras' / 'metadata').read_text())
    metrics = None
    if (path / 'metrics').exists():
      metrics = json.loads((path / 'metrics' / 'metrics').read_text())
    # Orbax lists the items here.
    listed = json.loads((path / '_CHECKPOINT_METADATA').read_text())
    for name in ('digests', 'metrics'):
      if name in listed['item_handlers'] and not (path / name).exists():
        raise Damaged(f'{path} is damaged: `{name}` is lost')
    if not (path / 'digests').exists():
      return _Json(None, extras, metrics)
    digests = json.loads((path / 'digests' / 'metadata').read_text())
    _check_signed(digests, f'{path}/digests')
    if metrics is not None:
      _check_signed(metrics, f'{path}/metrics')
    if _checksum(extras) != digests['extras']:
      raise Damaged(f'{path} is damaged: `extras` differ from their digest')
    return _Json(digests, extras, metrics)


def _read(
  path: pathlib.Path,
  example: dict[str, Any] | None = None,
  *,
  names: tuple[str, ...] = _ITEMS,
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Returns items of a checkpoint, by name, and its extras.

  Args:
    path: of the checkpoint.
    example: items of the expected structure; None for dicts and lists.
    names: of the items to read.

  Raises:
    Damaged: it is not what was saved.
    ValueError: it is of another model than `example`, or of another version.
  """
  digests, extras, _ = _read_json(path)
  handler = ocp.StandardCheckpointHandler()
  if digests is None:
    with _reading(path):
      trees = {name: handler.metadata(path / name).tree for name in names}
      saved = _types(trees)
    _check_names(trees['model'], path)
    logging.warning(
      '%s is of an earlier version, without digests: damage to it would not be '
      'noticed',
      path,
    )
  else:
    saved = {
      name: text.rpartition(' ')[0]
      for name, text in digests['arrays'].items()
      if name.partition('/')[0] in names
    }
  if example is not None:
    example = _as_saved(example, saved)
    _check_types(saved, _types(example), path)
  with _reading(path):
    items = {
      name: handler.restore(
        path / name,
        args=ocp.args.StandardRestore(example and example[name]),
      )
      for name in names
    }
    found = _digests(items)
  if digests is not None:
    wrong = [
      name
      for name in sorted(found.keys() | saved.keys())
      if found.get(name) != digests['arrays'].get(name)
    ]
    if wrong:
      more = f' and {len(wrong) - 3} more' if len(wrong) > 3 else ''
      raise Damaged(
        f'{path} is damaged: {", ".join(wrong[:3])}{more} differ from their '
        'digests'
      )
  return items, extras


def _none_is_good(problems: dict[pathlib.Path, str]) -> str:
  return (
    f'no checkpoint is good: {"; ".join(problems.values())}. Put a copy of one '
    'in its place, or choose another --workdir'
  )


def _digests(tree: Any) -> dict[str, str]:
  """Name -> type, shape and digest of each array, 'float32[3, 4] 0a1b2c3d'."""
  return {
    name: f'{_type(x)} {_digest(x):08x}'
    for name, x in _flatten_arrays(tree, np.asarray).items()
  }


def _digest(x: np.ndarray) -> int:
  """The CRC-32 of an array's bytes, of sums of rows where it is large.

  A fifth of the time of the CRC-32 of all bytes; a damaged word changes a sum.
  """
  data = x.reshape(-1).view(np.uint8)
  rest = len(data) % (_ROWS * _ROW)
  result = zlib.crc32(data[len(data) - rest :])
  words = data[: len(data) - rest].view(np.uint64)
  for block in words.reshape(-1, _ROWS, _ROW // 8):
    result = zlib.crc32(block.sum(axis=0), result)
  return result


def _checksum(value: Any) -> int:
  """The CRC-32 of a JSON value."""
  return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def _signed(values: dict[str, Any]) -> dict[str, Any]:
  """The values and their digest."""
  return {**values, _CHECKSUM: _checksum(values)}


def _check_signed(values: dict[str, Any], name: str):
  rest = {key: x for key, x in values.items() if key != _CHECKSUM}
  if _checksum(rest) != values[_CHECKSUM]:
    raise Damaged(f'{name} is damaged: it differs from its digest')


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
  _check_types(
    _flatten_arrays(saved, lambda x: tuple(x.shape)),
    _flatten_arrays(wanted, lambda x: tuple(x.shape)),
    path,
  )


def _check_types(saved: dict, wanted: dict, path: pathlib.Path):
  """Raises a ValueError that lists the differences of named arrays."""
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


def write_imported(
  workdir: pathlib.Path,
  config: ml_collections.ConfigDict,
  variables: dict[str, Any],
  extras: dict[str, Any],
):
  """Makes a workdir of a model that was trained elsewhere: one checkpoint, 0.

  Raises:
    ValueError: there is a checkpoint already.
  """
  state = parallel.create_state(variables, optax.identity())
  with Checkpoints(
    workdir, best_metric=config.best_metric, mode=config.best_mode
  ) as saved:
    if saved.latest_step is not None:
      raise ValueError(
        f'{workdir} has a checkpoint already: choose another --workdir'
      )
    write_config(workdir, config)
    saved.save(state, extras=extras)


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


def _flatten_arrays(
  tree: Any, of_array: Callable[[Any], Any]
) -> dict[str, Any]:
  """Name -> a property of each array; the same for tuples and for lists."""
  leaves, _ = jax.tree.flatten_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): of_array(x)
    for path, x in leaves
  }


def _types(tree: Any) -> dict[str, str]:
  return _flatten_arrays(tree, _type)


def _type(x: Any) -> str:
  """The type and shape of an array, 'float32[3, 4]'."""
  return f'{np.dtype(x.dtype)}{list(x.shape)}'


def _model(state: parallel.TrainState) -> dict[str, Any]:
  return {
    'params': state.params,
    'model_state': state.model_state,
    'ema_params': state.ema_params,
  }


def _training(state: parallel.TrainState) -> dict[str, Any]:
  items = {'step': state.step, 'opt_state': state.opt_state}
  if state.progress is not None:  # Earlier versions do not have it.
    items['progress'] = state.progress
  return items


def _as_saved(example: dict[str, Any], saved: Iterable[str]) -> dict[str, Any]:
  """The expected items, with `progress` if the checkpoint has it."""
  training = dict(example['training'])
  if any(name.startswith('training/progress/') for name in saved):
    training.setdefault('progress', _PROGRESS)
  else:
    training.pop('progress', None)
  return {**example, 'training': training}


# The command.


def verify(workdir: pathlib.Path) -> tuple[list[str], bool]:
  """Reads all checkpoints of a workdir, or a released model.

  Returns:
    A line for each, and True if all are good.

  Raises:
    FileNotFoundError: there is none.
  """
  if released.is_released(workdir):
    try:
      _, _, step = released.load(workdir)
    except ValueError as error:
      return [str(error)], False
    return [f'{workdir}: step {step}, good'], True
  lines, good = [], True
  for path in _step_paths(workdir):
    try:
      items, extras = _read(path)
      digests, _, metrics = _read_json(path)
    except (Damaged, ValueError) as error:
      lines.append(str(error))
      good = False
      continue
    arrays = jax.tree.leaves(items)
    size = sum(x.nbytes for x in arrays) / 1e6
    facts = [
      'good' if digests else 'readable, but without digests',
      f'{len(arrays)} arrays, {size:.1f} MB',
      *(f'{k} {v:.4g}' for k, v in (metrics or {}).items() if k != _CHECKSUM),
      *(f'{k} {extras[k]}' for k in ('fingerprint', 'commit') if k in extras),
    ]
    lines.append(f'{path}: {", ".join(facts)}')
  if not lines:
    raise FileNotFoundError(f'{_directory(workdir)} holds no checkpoint')
  for path in sorted((workdir / 'damaged').glob('*')):
    lines.append(f'{path}: moved aside')
  return lines, good


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns the exit status."""
  parser = errors.Parser(description=__doc__)
  parser.add_argument('action', choices=['verify'], help='what to do')
  parser.add_argument('workdir', help='of a run, or name of a released model')
  args = parser.parse_args(paths.arguments(parser, argv))
  # Threads of Orbax raise after it failed to read a file.
  sys.unraisablehook = lambda _: None
  logging.get_absl_handler().addFilter(lambda record: False)
  lines, good = verify(released.resolve(args.workdir))
  print('\n'.join(lines))
  return 0 if good else 1


if __name__ == '__main__':
  errors.run(main)
