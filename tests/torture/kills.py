"""SIGKILL, SIGTERM and Ctrl-C at random moments of the five mains."""

import functools
import pathlib
import signal
from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np

from torture import runs
from torture import table

_STATUS = {
  signal.SIGKILL: -signal.SIGKILL,
  signal.SIGTERM: 143,
  signal.SIGINT: 130,
}
_NAMES = {
  signal.SIGKILL: 'kill -9',
  signal.SIGTERM: 'SIGTERM',
  signal.SIGINT: 'Ctrl-C',
}
# Main -> the moments of the kills of each of its runs.
_MOMENTS = (
  ('step', 'save'),
  ('save', 'evaluation'),
  ('evaluation', 'step'),
  ('step', 'evaluation'),
  ('save', 'save'),
)
_FIVE = (
  'captioning.main',
  'sketch_rnn.main',
  'video.classify',
  'video.caption',
  'video.track',
)
_KILLS = {
  'sketch_rnn.main.kanji': [('preparation', 'preparation')] * 2,
  'captioning.main.cached': [('caching', 'caching'), ('caching', 'step')],
  'video.caption.cached': [('caching', 'caching')],
  **{name: _MOMENTS for name in _FIVE},
}


def stop(
  name: str,
  number: signal.Signals,
  moments: Sequence[str],
  directory: pathlib.Path,
  shared: pathlib.Path,
  rng: np.random.Generator,
) -> Iterator[table.Outcome]:
  """Stops a run at each of some moments, and lets it end.

  It must end where one ends that was left alone. An outcome is counted by what
  the run was doing, as is seen from what it left.
  """
  run, reference = runs.create(name, directory, shared)
  checks, problem = [], ''
  for moment in moments:
    witness = runs.Witness(run)
    happened = runs.condition(run, moment, rng)
    command = run.start()
    with runs.ending(command):
      if not runs.send_at(run, command, happened, moment, number, rng):
        status = command.process.returncode
        if status:  # Nobody has stopped it.
          problem = f'status {status}: {command.output.read_text()[-1000:]}'
        break
      status = command.process.wait()
    check = f'{_NAMES[number]} in: {witness.activity()}'
    text = command.output.read_text()
    if status == -signal.SIGTERM and not text:
      break  # It was still importing, and has nothing to save.
    if number != signal.SIGKILL:
      check = f'{_NAMES[number]}, run again'
      if status == 0 and 'Stopped by' not in text:
        break  # It was over.
    checks.append(check)
    if status != _STATUS[number]:
      problem = f'status {status}: {text[-1000:]}'
    elif damaged := runs.damage(run.workdir):
      problem = damaged
    if problem:
      break
  kind = 'wrong'
  if not problem:
    command = run.start()
    with runs.ending(command):
      status = command.process.wait()
    if status:
      problem = f'status {status}: {command.output.read_text()[-1000:]}'
    elif problem := runs.difference(run, reference):
      kind = 'silent'
    else:
      kind = 'right'
  if problem and not checks:
    checks = [f'{_NAMES[number]}, run again']
  for check in checks:
    yield table.Outcome(check, kind, text=problem)
  if len(checks) < len(moments):
    missed = len(moments) - len(checks)
    yield table.Outcome(f'{_NAMES[number]}, run again', 'missed', missed)


def cases(*, quick: bool) -> list[table.Case]:
  """Sixty kills, and twenty signals that ask to stop."""

  def case(name, number, moments, i):
    return table.Case(
      f'kills/{name}/{number.name}-{i}',
      functools.partial(stop, name, number, moments),
    )

  if quick:
    return [case('video.classify', signal.SIGKILL, ('step', 'save'), 0)]
  made = [
    case(name, signal.SIGKILL, moments, i)
    for name, runs_of_it in _KILLS.items()
    for i, moments in enumerate(runs_of_it)
  ]
  for name in _FIVE:
    for i, number in enumerate((signal.SIGTERM, signal.SIGINT)):
      made.append(case(name, number, ('step', 'evaluation'), i))
  return made
