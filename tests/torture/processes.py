"""Runs cases in forks of one process, which has imported everything.

A case that crashes takes nobody with it; one that hangs is ended.
"""

import contextlib
import dataclasses
import json
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import shutil
import signal
import time
import traceback
from collections.abc import Iterator
from collections.abc import Sequence

from torture import table

PATIENCE = 1200  # Seconds.


def _call(case, seed, directory, shared):
  """The body of a fork: its outcomes are in `outcomes.json`."""
  os.setsid()  # What it has started ends with it.
  output = os.open(directory / 'output.txt', os.O_CREAT | os.O_WRONLY)
  for number in (1, 2):
    os.dup2(output, number)
  work = directory / 'work'
  work.mkdir()
  try:
    rng = table.generator(seed, case.name)
    outcomes = list(case.run(work, shared, rng))
  except BaseException:
    text = traceback.format_exc()
    os.write(2, text.encode())
    text = text[-1000:]
    outcomes = [table.Outcome(case.name, 'wrong', text=text)]
  (directory / 'outcomes.json').write_text(
    json.dumps([dataclasses.asdict(outcome) for outcome in outcomes])
  )
  os._exit(0)


def _outcomes(case, process, directory):
  path = directory / 'outcomes.json'
  if not path.exists():
    text = f'it ended with status {process.exitcode}'
    return [table.Outcome(case.name, 'wrong', text=text)]
  return [table.Outcome(**fields) for fields in json.loads(path.read_text())]


def run(
  cases: Sequence[table.Case], directory: pathlib.Path, *, seed: int, jobs: int
) -> Iterator[table.Result]:
  """Yields the results as they come.

  Args:
    cases: the longest first.
    directory: of their files; those of a case are kept if it went wrong.
    seed: of all random numbers.
    jobs: number of cases at once.
  """
  shared = directory / 'shared'
  shared.mkdir(parents=True, exist_ok=True)
  context = multiprocessing.get_context('fork')
  waiting, running = list(cases), {}
  try:
    while waiting or running:
      while waiting and len(running) < jobs:
        case = waiting.pop(0)
        own = directory / case.name
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir(parents=True)
        process = context.Process(target=_call, args=(case, seed, own, shared))
        process.start()
        running[process.sentinel] = case, process, own, time.monotonic()
      ended = multiprocessing.connection.wait([*running], timeout=1)
      for sentinel, (_, process, _, start) in running.items():
        if sentinel not in ended and time.monotonic() > start + PATIENCE:
          _end(process)
      for sentinel in ended:
        case, process, own, start = running.pop(sentinel)
        process.join()
        _end(process)
        outcomes = _outcomes(case, process, own)
        if all(outcome.kind in ('right', 'missed') for outcome in outcomes):
          shutil.rmtree(own)
        seconds = time.monotonic() - start
        yield table.Result(case.name, outcomes, seconds)
  finally:
    for _, process, _, _ in running.values():
      _end(process)


def _end(process):
  """Ends a case and what it has started."""
  process.kill()
  with contextlib.suppress(ProcessLookupError):
    os.killpg(process.pid, signal.SIGKILL)
