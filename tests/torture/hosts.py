"""Two hosts, one of which is killed, terminated, or of another run."""

import functools
import pathlib
import signal
import socket
from collections.abc import Iterator

import commands
import numpy as np

from torture import runs
from torture import table
from training import hosts

_PATIENCE = 500  # Seconds until the other host must have ended.


def start(run: runs.Run, other: tuple[str, ...] = ()) -> list[commands.Command]:
  """Starts a run on two processes with a device each.

  Args:
    run: see `runs.create`.
    other: further flags of the second process.
  """
  with socket.socket() as found:
    found.bind(('localhost', 0))
    port = found.getsockname()[1]
  return [
    run.start(
      f'--coordinator_address=localhost:{port}',
      '--num_processes=2',
      f'--process_id={i}',
      *(other if i else ()),
      devices=1,
    )
    for i in range(2)
  ]


def _end(started):
  """Waits for both; returns their statuses and outputs."""
  statuses = [command.process.wait(_PATIENCE) for command in started]
  return statuses, [command.output.read_text() for command in started]


def _said(statuses, texts):
  return '; '.join(
    f'process {i}, status {status}: {text[-700:]}'
    for i, (status, text) in enumerate(zip(statuses, texts, strict=True))
  )


def stop(
  name: str,
  number: signal.Signals,
  moment: str,
  directory: pathlib.Path,
  shared: pathlib.Path,
  rng: np.random.Generator,
) -> Iterator[table.Outcome]:
  """Stops one of two hosts at a random moment, then runs both again.

  They must end where one host with two devices ends.
  """
  run, reference = runs.create(name, directory, shared)
  check = f'two hosts, {number.name} to one, run again'
  happened = runs.condition(run, moment, rng)
  started = start(run)
  chosen = int(rng.integers(2))
  with runs.ending(*started):
    if not runs.send_at(run, started[chosen], happened, moment, number, rng):
      yield table.Outcome(check, 'missed')
      return
    statuses, texts = _end(started)  # The other one ends by itself.
  said = _said(statuses, texts)
  if number == signal.SIGTERM and not all('Stopped by' in t for t in texts):
    kind = 'missed' if statuses == [0, 0] else 'wrong'
    yield table.Outcome(check, kind, text=said)
    return
  wanted = [143, 143]  # Both save.
  if number == signal.SIGKILL:
    wanted = [hosts.LOST, hosts.LOST]
    wanted[chosen] = -number
  if statuses != wanted:
    yield table.Outcome(check, 'wrong', text=said)
    return
  if damaged := runs.damage(run.workdir):
    yield table.Outcome(check, 'wrong', text=damaged)
    return
  started = start(run)
  with runs.ending(*started):
    statuses, texts = _end(started)
  if any(statuses):
    yield table.Outcome(check, 'wrong', text=_said(statuses, texts))
  elif found := runs.difference(run, reference):
    yield table.Outcome(check, 'silent', text=found)
  else:
    yield table.Outcome(check, 'right')


def differ(
  name: str,
  flag: str,
  directory: pathlib.Path,
  shared: pathlib.Path,
  rng: np.random.Generator,
) -> Iterator[table.Outcome]:
  """Both stop, and name the field."""
  del rng
  run, _ = runs.create(name, directory, shared)
  check = 'two hosts that differ'
  started = start(run, (flag,))
  with runs.ending(*started):
    statuses, texts = _end(started)
  field = flag.partition('=')[0].removeprefix('--')
  said = _said(statuses, texts)
  if statuses == [0, 0]:
    yield table.Outcome(check, 'silent', text=said)
  elif statuses == [2, 2] and all(field in text for text in texts):
    yield table.Outcome(check, 'right')
  else:
    yield table.Outcome(check, 'wrong', text=said)


def cases(*, quick: bool) -> list[table.Case]:
  """Ten of one host that is stopped, three of hosts that differ."""
  if quick:
    return []
  made = [
    table.Case(
      f'hosts/{name}/{number.name}-{i}',
      functools.partial(stop, name, number, moment),
    )
    for name in ('captioning.main', 'sketch_rnn.main')
    for number, moments in (
      (signal.SIGKILL, ('step', 'step')),
      (signal.SIGTERM, ('step', 'step', 'evaluation')),
    )
    for i, moment in enumerate(moments)
  ]
  for flag in (
    '--config.seed=7',
    '--config.num_steps=20',
    '--config.optimizer.learning_rate=0.5',
  ):
    name = flag.partition('=')[0].rpartition('.')[2]
    run = functools.partial(differ, 'sketch_rnn.main', flag)
    made.append(table.Case(f'hosts/differ/{name}', run))
  return made
