"""The runs of tables: their commands, and running those that are missing.

A run is one seed of a row, in the workdir WORKDIRS/TABLE/ROW_SEED. It has ended
when its `results.json` has all scores that the table needs.
"""

import concurrent.futures
import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import flax
import ml_collections
from absl import flags
from ml_collections import config_flags

from tables import rows as rows_lib

Row, Table = rows_lib.Row, rows_lib.Table
# (Name of a table, name of a row) -> reasons why it was not run here.
Reasons = Mapping[tuple[str, str], Sequence[str]]

# Exit statuses of a run that a signal has stopped: a `main` turns SIGTERM into
# 143 and Ctrl-C into 130; before that it ends by the signal.
_STOPPED = (143, 130, -signal.SIGTERM, -signal.SIGINT)

# Stands for the seed in a command that is printed for several seeds.
_SEED = '@SEED@'


@dataclasses.dataclass(frozen=True)
class TableRuns:
  """The runs of a table: their workdirs, and changes to its configs.

  Attributes:
    table: the table.
    workdirs: the directory of all tables.
    settings: arguments NAME=VALUE for the configs of all rows.
  """

  table: Table
  workdirs: pathlib.Path
  settings: tuple[str, ...] = ()

  def workdir(self, row: Row, seed: int | str) -> pathlib.Path:
    """The workdir of a run."""
    name = row.trained_as or row.name
    return self.workdirs / self.table.name / f'{name}_{seed}'

  def arguments(self, row: Row, seed: int | str) -> list[str]:
    """The command of a run, after `python`."""
    changed = [f'{name}={value}' for name, value in row.overrides.items()]
    if row.start_from:
      start = self.workdir(self.table.row(row.start_from), seed)
      changed.append(f'start_from={start}')
    return [
      '-m',
      self.table.module,
      f'--config={row.config}',
      f'--workdir={self.workdir(row, seed)}',
      f'--config.seed={seed}',
      *(f'--config.{change}' for change in (*changed, *self.settings)),
    ]

  def entry(self, row: Row, seed: int) -> dict[str, Any] | None:
    """The entry of a run in `results.json`, with this row's scores, or None."""
    if row.mean_of:
      return self._mean(row, seed)
    path = self.workdir(row, seed) / 'results.json'
    if not path.exists():
      return None
    results = scores = json.loads(path.read_text())
    for name in row.found_at:
      scores = scores.get(name)
      if scores is None:
        return None
    return {**results[row.found_at[0]], 'scores': scores}

  def _mean(self, row: Row, seed: int) -> dict[str, Any] | None:
    """The means over other rows, or None unless all of them have entries."""
    parts = [self.entry(self.table.row(name), seed) for name in row.mean_of]
    if None in parts:
      return None
    names = set.intersection(*(set(part['scores']) for part in parts))
    scores = {
      name: sum(part['scores'][name] for part in parts) / len(parts)
      for name in names
    }
    return {'seed': seed, 'scores': scores}

  def ended(self, row: Row, seed: int) -> bool:
    """Returns True if a run has the scores of all rows that share it."""
    return all(
      self.entry(other, seed) is not None
      for other in self.table.rows
      if row.name in (other.name, other.trained_as)
    )

  def entries(self, row: Row, seeds: Sequence[int]) -> dict[int, dict]:
    """Seed -> entry, for the runs that have one."""
    found = {seed: self.entry(row, seed) for seed in seeds}
    return {seed: entry for seed, entry in found.items() if entry is not None}

  def command(self, row: Row, seeds: Sequence[int]) -> str:
    """The shell command of a row for these seeds."""
    if len(seeds) == 1:
      return shlex.join(['python', *self.arguments(row, seeds[0])])
    words = [
      '"$S"'.join(shlex.quote(part) if part else '' for part in parts)
      for parts in (
        word.split(_SEED) for word in ['python', *self.arguments(row, _SEED)]
      )
    ]
    numbers = ' '.join(str(seed) for seed in seeds)
    return f'for S in {numbers}; do {" ".join(words)}; done'


def load_config(arguments: Sequence[str]) -> ml_collections.ConfigDict:
  """Reads the config of a command line as a `main` does.

  Args:
    arguments: those of a command; only --config and --config.NAME are used.

  Raises:
    ValueError: the config or one of the fields does not exist.
  """
  values = flags.FlagValues()
  known = [word for word in arguments if word.startswith('--config')]
  argv = ['config', *known]
  found = config_flags.DEFINE_config_file(
    'config', None, '', flag_values=values, sys_argv=argv
  )
  try:
    values(argv)
    return found.value
  except (flags.Error, AttributeError, KeyError, OSError) as error:
    raise ValueError(f'{shlex.join(known)}: {error}') from error


def config_arguments(path: str, config: ml_collections.ConfigDict) -> list[str]:
  """The arguments that give a config; the inverse of `load_config`.

  Args:
    path: of the file of configs; it says which fields are changed.
    config: any that has its fields. data.data_dir is left out, as it differs
      between machines.
  """
  arguments = [f'--config={path}']
  default = flat(load_config(arguments))
  for field, value in flat(config).items():
    if field != 'data.data_dir' and default.get(field) != value:
      # JSON has stored a tuple as a list.
      value = tuple(value) if isinstance(value, list) else value
      arguments.append(f'--config.{field}={value}')
  return arguments


def flat(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """The fields of a config as JSON, by their paths."""
  fields = json.loads(config.to_json())
  return flax.traverse_util.flatten_dict(fields, sep='.')


def select(
  all_runs: Sequence[TableRuns], names: Sequence[str]
) -> list[tuple[TableRuns, Row]]:
  """Selects rows by name, and the rows that they start from.

  Args:
    all_runs: runs of the tables; several may have a row of the same name.
    names: names of rows; none for all.

  Raises:
    ValueError: no table has such a row.
  """
  for name in names:
    known = [
      row.name for table_runs in all_runs for row in table_runs.table.rows
    ]
    if name not in known:
      tables = ' or '.join(table_runs.table.name for table_runs in all_runs)
      raise ValueError(f'{tables} has no row {name!r}, only {", ".join(known)}')
  chosen = []
  for table_runs in all_runs:
    rows = {row.name: row for row in table_runs.table.rows}
    wanted = set()
    for name in names or rows:
      wanted |= _with_earlier(rows, name)
    chosen += [
      (table_runs, row) for name, row in rows.items() if name in wanted
    ]
  return chosen


def _with_earlier(rows: Mapping[str, Row], name: str) -> set[str]:
  """A row, if there is one of this name, and the rows that it needs."""
  if name not in rows:
    return set()
  row = rows[name]
  earlier = (row.trained_as or row.start_from, *row.mean_of)
  return {name}.union(*(_with_earlier(rows, other) for other in earlier))


class Processes:
  """Runs `python`, from several threads at once, and forwards SIGTERM.

  Attributes:
    stopped: True after SIGTERM. Running processes have received it, and new
      ones receive it at once.
  """

  def __init__(self):
    self.stopped = False
    self._running = set()

  @contextlib.contextmanager
  def listening(self) -> Iterator[None]:
    """Forwards SIGTERM in this context, instead of ending this process."""

    def stop(*_):
      self.stopped = True
      for process in list(self._running):
        process.terminate()

    before = signal.signal(signal.SIGTERM, stop)
    try:
      yield
    finally:
      signal.signal(signal.SIGTERM, before)

  def __call__(
    self, words: Sequence[str], log: pathlib.Path | None = None
  ) -> int:
    """Runs `python` with these arguments and returns its status.

    Args:
      words: the arguments.
      log: file for its output; the process then has one thread.
    """
    environment, output = dict(os.environ), None
    with contextlib.ExitStack() as stack:
      if log is not None:
        # For libraries; XLA counts the cores that it may use, if it can.
        environment |= {'NPROC': '1', 'OMP_NUM_THREADS': '1'}
        log.parent.mkdir(parents=True, exist_ok=True)
        output = stack.enter_context(log.open('a'))
      process = stack.enter_context(
        subprocess.Popen(
          [sys.executable, *words],
          env=environment,
          stdout=output,
          stderr=output,
        )
      )
      self._running.add(process)
      if self.stopped:  # Before it was in `_running`.
        process.terminate()
      status = process.wait()
      self._running.remove(process)
    return status


@dataclasses.dataclass(frozen=True)
class Run:
  """One seed of a row."""

  table_runs: TableRuns
  row: Row
  seed: int

  @property
  def key(self) -> tuple[str, str, int]:
    """Identifies the run."""
    return self.table_runs.table.name, self.row.name, self.seed

  @property
  def label(self) -> str:
    """Its printed name."""
    return f'{self.table_runs.table.name}: {self.row.label}, seed {self.seed}'

  def ended(self) -> bool:
    """See `TableRuns.ended`."""
    return self.table_runs.ended(self.row, self.seed)

  def start(self) -> 'Run | None':
    """The run whose checkpoint this one starts from, or None."""
    if not self.row.start_from:
      return None
    row = self.table_runs.table.row(self.row.start_from)
    return dataclasses.replace(self, row=row)


def run_missing(
  rows: Sequence[tuple[TableRuns, Row]],
  seeds: Sequence[int],
  *,
  missing_requirements: Callable[[TableRuns, Row], list[str]],
  jobs: int = 1,
  processes: Processes | None = None,
) -> Reasons:
  """Runs the missing runs whose requirements are met.

  Args:
    rows: result of `select`; rows that others start from come first.
    seeds: all rows of the first, then all rows of the next.
    missing_requirements: returns those of a row; see `requirements.missing`.
    jobs: number of runs at once. Each of several has a core of its own, where
      the system supports it, and writes a log beside its workdir.
    processes: runs the commands.

  Returns:
    Reasons why runs are still missing.
  """
  processes = processes or Processes()
  waiting = {}
  for seed in seeds:
    for table_runs, row in rows:
      run = Run(table_runs, row, seed)
      if row in table_runs.table.trained and not run.ended():
        waiting[run.key] = run
  running, reasons, stopped = {}, {}, False

  def next_run() -> Run | None:
    """Returns the first run that can start; drops those that never can."""
    for key, run in list(waiting.items()):
      row = key[:2]
      if row not in reasons:
        reasons[row] = missing_requirements(run.table_runs, run.row)
      start = run.start()
      coming = {*waiting, *(other.key for other in running.values())}
      if start is not None and start.key in coming:
        continue
      del waiting[key]
      if not reasons[row] and (start is None or start.ended()):
        return run
    return None

  with processes.listening(), _workers(jobs) as pool:
    while True:
      while len(running) < jobs and not (stopped or processes.stopped):
        run = next_run()
        if run is None:
          break
        words = run.table_runs.arguments(run.row, run.seed)
        log = None
        if jobs > 1:
          workdir = run.table_runs.workdir(run.row, run.seed)
          log = workdir.with_name(f'{workdir.name}.log')
        print(run.label, *([f'-> {log}'] if log else []), flush=True)
        running[pool.submit(processes, words, log)] = run
      if not running:
        return reasons
      done, _ = concurrent.futures.wait(
        running, return_when=concurrent.futures.FIRST_COMPLETED
      )
      for future in done:
        run, status = running.pop(future), future.result()
        if run.ended():
          continue
        if status in _STOPPED or processes.stopped:
          # After SIGTERM or Ctrl-C: start no other run.
          stopped = True
          reasons[run.key[:2]].append('stopped; the same command resumes it')
        else:
          reasons[run.key[:2]].append(
            f'the run of seed {run.seed} ended with {status}'
          )


def _workers(jobs: int) -> concurrent.futures.ThreadPoolExecutor:
  """Threads that wait for processes, which inherit the core of a thread."""
  if jobs == 1 or not hasattr(os, 'sched_setaffinity'):
    return concurrent.futures.ThreadPoolExecutor(jobs)
  cores = itertools.cycle(sorted(os.sched_getaffinity(0)))
  return concurrent.futures.ThreadPoolExecutor(
    jobs, initializer=lambda: os.sched_setaffinity(0, {next(cores)})
  )
