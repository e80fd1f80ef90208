"""Runs all cases, or some, and prints the table; `make torture`.

  make torture
  make torture TORTURE=--quick
  make torture TORTURE='--only=kills --seed=3'
  make torture TORTURE='--case=kills/video.track/SIGKILL-2'

The exit status is 1 if something was silent or wrong. What a case did is in a
directory of its name, which is kept if something was.
"""

import argparse
import json
import os
import pathlib
import sys
import time

# Before jax is imported anywhere: what the runs compile is kept for all.
_PARSER = argparse.ArgumentParser(
  prog='python -m torture',
  description=__doc__,
  formatter_class=argparse.RawDescriptionHelpFormatter,
)
_PARSER.add_argument('--output', default='runs/torture', help='directory')
_PARSER.add_argument('--seed', type=int, default=0, help='of all numbers')
_PARSER.add_argument('--quick', action='store_true', help='about a minute')
_PARSER.add_argument('--only', help='kinds, as in kills,readers')
_PARSER.add_argument('--case', help='one case, by its name')
_PARSER.add_argument('--jobs', type=int, default=2, help='cases at once')
_PARSER.add_argument('--list', action='store_true', help='print the cases')
_ARGUMENTS = _PARSER.parse_args()
_DIRECTORY = pathlib.Path(_ARGUMENTS.output).absolute()
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', f'{_DIRECTORY}/compiled')

import conftest  # noqa: E402, F401

from torture import kinds  # noqa: E402
from torture import processes  # noqa: E402
from torture import table  # noqa: E402
from training import provenance  # noqa: E402


def main() -> int:
  """Returns the exit status."""
  arguments = _ARGUMENTS
  cases = kinds.cases(arguments.only, quick=arguments.quick)
  if arguments.case:
    cases = [case for case in cases if case.name == arguments.case]
    if not cases:
      _PARSER.error(f'--case={arguments.case}: --list prints the names')
  if arguments.list:
    print('\n'.join(case.name for case in cases))
    return 0
  start, results = time.monotonic(), []
  for result in processes.run(
    cases, _DIRECTORY, seed=arguments.seed, jobs=arguments.jobs
  ):
    results.append(result)
    wrong = table.failures([result], arguments.seed)
    state = 'WRONG' if wrong else 'right'
    print(
      f'{len(results)}/{len(cases)} {result.name}: {state}, '
      f'{result.seconds:.0f} s',
      file=sys.stderr,
      flush=True,
    )
  order = [case.name for case in cases]
  results.sort(key=lambda result: order.index(result.name))
  rows, failures = (
    table.rows(results),
    table.failures(results, arguments.seed),
  )
  report = {
    'seed': arguments.seed,
    'quick': arguments.quick,
    'commit': provenance.commit(),
    'seconds': round(time.monotonic() - start),
    'rows': rows,
    'failures': failures,
    'cases': {result.name: round(result.seconds, 1) for result in results},
  }
  (_DIRECTORY / 'torture.json').write_text(json.dumps(report, indent=2) + '\n')
  print(table.markdown(rows))
  print(f'\nseed {arguments.seed}, {report["seconds"]} s', flush=True)
  for one in failures:
    print(
      f'\n{one["kind"]}: {one["check"]}, {one["case"]}\n{one["text"]}\n'
      f'again: {one["repeat"]}'
    )
  return int(bool(failures))


if __name__ == '__main__':
  sys.exit(main())
