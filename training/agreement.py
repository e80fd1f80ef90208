"""Values that the hosts of a run, and a run that is resumed, must share."""

import json
import pathlib
import socket
from collections.abc import Collection
from collections.abc import Iterator
from typing import Any

import ml_collections
from absl import logging

from training import parallel
from training import progress
from training import renamed

# The names that `--allow_change` takes. `vocabulary` is of the words,
# `data` of all else that depends on the data set.
KINDS = ('config', 'data', 'vocabulary')
# They change nothing that is trained.
FREE = {
  'config.checkpoint_every',
  'config.data.data_dir',
  'config.eval_batch_size',
  'config.eval_every',
  'config.log_every',
}


def check_hosts(values: dict[str, Any]):
  """Compares JSON values on all hosts, but for where each has its data.

  Raises:
    ValueError: on every host; it names the differences.
  """
  own = {'host': socket.gethostname(), 'values': values}
  first, *others = map(json.loads, parallel.gather_texts(json.dumps(own)))
  wrong = [
    f'{name} is {old} in process 0 ({first["host"]}), {new} in process '
    f'{process} ({other["host"]})'
    for process, other in enumerate(others, 1)
    for name, old, new in _differences(first['values'], other['values'])
    if name != 'config.data.data_dir'
  ]
  if wrong:
    raise ValueError(
      f'the processes of a run must agree: {"; ".join(wrong)}. Start the same '
      'command, of the same commit, on every host'
    )


def check_resumed(
  saved: dict[str, Any],
  extras: dict[str, Any],
  path: pathlib.Path,
  allowed: Collection[str] = (),
):
  """Compares the extras of a run with those of its checkpoint.

  Args:
    saved: of the checkpoint; earlier versions saved fewer, and a config with
      fewer fields.
    extras: of the run; with `config`, `fingerprint` and `commit`.
    path: of the checkpoint.
    allowed: of `KINDS`, those that may differ.

  Raises:
    ValueError: it names each field, both values, and the flag.
  """
  extras = json.loads(json.dumps(extras))
  saved, extras = _with_added_fields(saved), _with_added_fields(extras)
  shared = saved.keys() & extras.keys()
  found = _differences(
    {name: saved[name] for name in shared},
    {name: extras[name] for name in shared},
  )
  free = FREE
  if progress.is_kept(extras.get('config', {})):
    free = FREE - {'config.eval_every'}  # Training depends on the scores.
  wrong, kinds = [], set()
  for name, old, new in found:
    text = f'{name} is {old} there, {new} here'
    kind = name.partition('.')[0].partition('[')[0]
    kind = kind if kind in KINDS else 'data'
    if name in free or name == 'commit' or kind in allowed:
      logging.info('%s: %s', path, text)
    else:
      wrong.append(text)
      kinds.add(kind)
  if wrong:
    flag = ' '.join(f'--allow_change={kind}' for kind in sorted(kinds))
    raise ValueError(
      f'{path} is of another run: {"; ".join(wrong)}. Choose another --workdir '
      f'or go back to what it had; to go on with the change: {flag}'
    )


def _with_added_fields(extras: dict[str, Any]) -> dict[str, Any]:
  """The extras with the fields that the config of an earlier version lacks."""
  if 'config' not in extras:
    return extras
  config = ml_collections.ConfigDict(extras['config'])
  renamed.add_fields(config)
  return {**extras, 'config': json.loads(config.to_json())}


def _differences(
  old: Any, new: Any, name: str = ''
) -> Iterator[tuple[str, str, str]]:
  """Yields names and values that differ in JSON; of a list the first item."""
  if isinstance(old, dict) and isinstance(new, dict):
    for key in sorted(old.keys() | new.keys()):
      yield from _differences(
        old.get(key, _ABSENT),
        new.get(key, _ABSENT),
        f'{name}.{key}' if name else key,
      )
  elif isinstance(old, list) and isinstance(new, list):
    if len(old) != len(new):
      yield name, f'of {len(old)} items', f'of {len(new)}'
    for index, (x, y) in enumerate(zip(old, new, strict=False)):
      if x != y:
        yield from _differences(x, y, f'{name}[{index}]')
        break
  elif old != new:
    yield name, _show(old), _show(new)


_ABSENT = object()


def _show(value: Any) -> str:
  return 'absent' if value is _ABSENT else repr(value)[:200]
