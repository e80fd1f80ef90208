"""Times several sides in alternation, each a process of its own.

Run as a side, a script creates its `Side` and calls `work`. Otherwise it calls
`workers`, `measure` and `finish`. The sides alternate, so that the other work
of the machine slows all of them down.
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

# PyTorch's side runs the scripts and this module too, in an environment without
# the rest of the project: libraries are imported where they are used.

ROOT = pathlib.Path(__file__).resolve().parent.parent
OURS = 'ours'


@dataclasses.dataclass(frozen=True)
class Side:
  """The cases of one side.

  Attributes:
    cases: name -> function to time, called repeatedly.
    compilations: returns the number of compilations so far.
    facts: further JSON values for the report.
  """

  cases: dict[str, Callable[[], None]]
  compilations: Callable[[], int] = lambda: 0
  facts: dict[str, Any] = dataclasses.field(default_factory=dict)


def count_compilations() -> Callable[[], int]:
  """Starts to count compilations; returns a function that returns the count."""
  import jax

  compilations = []

  def listen(event, duration, **kwargs):
    del kwargs
    if event == '/jax/core/compile/backend_compile_duration':
      compilations.append(duration)

  jax.monitoring.register_event_duration_secs_listener(listen)
  return lambda: len(compilations)


def on_first_call(make: Callable[[], Callable[[], None]]) -> Callable[[], None]:
  """Creates a case lazily, at its first run.

  Cases that are not measured then cost nothing.
  """
  made = functools.cache(make)
  return lambda: made()()


def work(make: Callable[[], Side]):
  """Reads names of cases from stdin; answers with the times of one run."""
  # Libraries print, but only answers may go to the real stdout.
  answers = sys.stdout
  with contextlib.redirect_stdout(sys.stderr):
    side = make()
    hello = {'cases': list(side.cases), 'facts': side.facts}
    print(json.dumps(hello), file=answers, flush=True)
    for line in sys.stdin:
      run = side.cases[line.strip()]
      before = side.compilations()
      wall, cpu = time.perf_counter(), time.process_time()
      run()
      answer = {
        'cpu': time.process_time() - cpu,
        'wall': time.perf_counter() - wall,
        'compilations': side.compilations() - before,
      }
      print(json.dumps(answer), file=answers, flush=True)


class Worker:
  """The process of one side."""

  def __init__(
    self,
    python: str,
    script: str,
    side: str,
    cores: set[int],
  ):
    """Starts the process, restricted to some cores.

    Libraries start one thread per core that they see.
    """
    self._process = subprocess.Popen(
      [python, script, f'--side={side}'],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      env={
        # Large buffers in huge pages, for all sides alike: page faults take
        # much of a step without them.
        'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1',
        **os.environ,
        'OMP_NUM_THREADS': str(len(cores)),
        'PYTHONPATH': str(ROOT),
      },
      preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    hello = self._answer()
    self.cases, self.facts = hello['cases'], hello['facts']

  def _answer(self):
    line = self._process.stdout.readline()
    if not line:
      raise RuntimeError('a worker failed: see its message above')
    return json.loads(line)

  def run(self, case: str) -> dict:
    """Runs a case once; returns CPU and wall seconds, and compilations."""
    print(case, file=self._process.stdin, flush=True)
    return self._answer()

  def close(self):
    """Ends the process."""
    self._process.stdin.close()
    self._process.wait()


@contextlib.contextmanager
def workers(
  pythons: dict[str, str],
  script: str,
  cores: set[int],
) -> Iterator[dict[str, Worker]]:
  """Starts the workers of all sides, on the same cores.

  Args:
    pythons: side -> interpreter; see `find_pythons`.
    script: script to run, which calls `work`.
    cores: cores of all workers.
  """
  with contextlib.ExitStack() as stack:
    started = {}
    for side, python in pythons.items():
      started[side] = Worker(python, script, side, cores)
      stack.callback(started[side].close)
    yield started


def measure(
  workers: dict[str, Worker],
  groups: Sequence[Sequence[str]],
  rounds: int,
  warmup: int,
  in_a_row: int = 1,
) -> tuple[dict, int]:
  """Runs the sides in alternation: {case: {side: runs}}, our compilations.

  Args:
    workers: side -> worker.
    groups: groups of cases; the cases of a group alternate, too.
    rounds: number of rounds that count.
    warmup: rounds before these; the first run may compile.
    in_a_row: number of runs of a side in a round; the last one counts.
  """
  runs, compilations = {}, 0
  for cases in groups:
    for number in range(warmup + rounds):
      for case in cases:
        for side, worker in workers.items():
          if case not in worker.cases:
            continue
          for i in range(in_a_row):
            run = worker.run(case)
            if number or i:
              compilations += run['compilations']
          if number >= warmup:
            runs.setdefault(case, {}).setdefault(side, []).append(run)
  return runs, compilations


def summarize(runs: dict, clock: str = 'cpu') -> dict:
  """Summarises runs: {case: {side: runs}} -> {case: {side: summary}}.

  Args:
    runs: result of `measure`.
    clock: 'cpu' or 'wall': clock of the median, minimum and maximum.
  """

  def sum_up(runs):
    seconds = [run[clock] for run in runs]
    return {
      'median': statistics.median(seconds),
      'min': min(seconds),
      'max': max(seconds),
      'cpu_median': statistics.median(run['cpu'] for run in runs),
      'wall_median': statistics.median(run['wall'] for run in runs),
      'runs': len(seconds),
    }

  return {
    case: {side: sum_up(runs) for side, runs in sides.items()}
    for case, sides in runs.items()
  }


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """Makes a table in Markdown."""
  lines = ['| ' + ' | '.join(row) + ' |' for row in (head, *rows)]
  lines.insert(1, '|' + '---|' * len(head))
  return '\n'.join(lines)


def parse(description: str, cases: Sequence[str] = ()) -> argparse.Namespace:
  """Reads the command line.

  Args:
    description: the docstring of the script.
    cases: names for --cases; see `choose`.
  """
  parser = argparse.ArgumentParser(
    description=description,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  default = os.environ.get('TORCH_PYTHON', ROOT / '.venv-torch/bin/python')
  parser.add_argument(
    '--torch_python',
    default=default,
    metavar='PATH',
    help='Python interpreter with PyTorch',
  )
  parser.add_argument(
    '--rounds', type=int, default=5, help='number of rounds (default: 5)'
  )
  parser.add_argument(
    '--warmup',
    type=int,
    default=2,
    help='rounds before those that count (default: 2)',
  )
  parser.add_argument(
    '--output', type=pathlib.Path, metavar='F.json', help='file to write'
  )
  parser.add_argument('--side', help=argparse.SUPPRESS)
  if cases:
    parser.add_argument(
      '--cases',
      type=lambda part: choose(cases, part),
      default=list(cases),
      metavar='PART',
      help='run the cases whose name contains PART: ' + '; '.join(cases),
    )
  return parser.parse_args()


def choose(cases: Sequence[str], part: str) -> list[str]:
  """Returns the cases whose name contains `part`."""
  chosen = [case for case in cases if part in case]
  if not chosen:
    raise argparse.ArgumentTypeError(
      f'{part!r} is in none of the names {"; ".join(cases)}'
    )
  return chosen


def find_pythons(
  args: argparse.Namespace, torch_sides: Sequence[str]
) -> dict[str, str]:
  """Returns the interpreter of each side; reports a missing PyTorch."""
  pythons = {OURS: sys.executable}
  if pathlib.Path(args.torch_python).exists():
    pythons.update(dict.fromkeys(torch_sides, args.torch_python))
  else:
    print(
      f'Only our side runs: {args.torch_python} does not exist. To compare:\n'
      '  python3 -m venv .venv-torch && .venv-torch/bin/pip install torch\n'
      'or pass --torch_python=PATH.\n'
    )
  return pythons


def finish(output: pathlib.Path | None, figures: dict, compilations: int):
  """Writes the JSON; ends with an error if anything was compiled again.

  Args:
    output: file to write, or None.
    figures: results.
    compilations: number of compilations after the first step.
  """
  print(f'\nCompilations after the first step: {compilations}')
  print(f'Load of the machine: {os.getloadavg()[0]:.1f}')
  if output:
    output.parent.mkdir(parents=True, exist_ok=True)
    result = {
      **figures,
      'compilations_after_first': compilations,
      'machine': platform.machine(),
      'load': os.getloadavg(),
    }
    output.write_text(json.dumps(result, indent=2) + '\n')
  if compilations:
    raise SystemExit('something was compiled again: see above')
