r"""Runs the tables of the papers and prints them beside what was published.

  python -m tables --table=ucm
  python -m tables --table=ucm --run \
    --set encoder_weights=resnet50.safetensors
  python -m tables --table=ordered_motion,gesture_stream \
    --run --jobs=2

Without --run it reads what there is: every measured number comes from the
`results.json` of a workdir, WORKDIRS/TABLE/ROW_SEED. With --run it first trains
and evaluates the runs that are missing and can be made here, JOBS at once; a
run that was interrupted goes on. What cannot be made here says why, and the
commands of all that is missing are printed.

OUTPUT gets TABLE.md, TABLE.json and TABLE.png.
"""

import argparse
import pathlib
from collections.abc import Sequence

from tables import published as published_lib
from tables import report as report_lib
from tables import requirements
from tables import rows as rows_lib
from tables import runs as runs_lib
from training import app


def main(argv: Sequence[str] | None = None):
  """Runs what is missing if asked to, then reports."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--table',
    required=True,
    help=f'with commas: {", ".join(published_lib.TABLES)}',
  )
  parser.add_argument(
    '--workdirs', type=pathlib.Path, default=pathlib.Path('runs/tables')
  )
  parser.add_argument(
    '--output', type=pathlib.Path, help='the default is WORKDIRS'
  )
  parser.add_argument(
    '--run', action='store_true', help='train and evaluate what is missing'
  )
  parser.add_argument(
    '--rows', default='', help='names, with commas: run these; default all'
  )
  parser.add_argument(
    '--jobs',
    type=int,
    default=1,
    help='runs at once; of several each has a core and a thread of its own',
  )
  parser.add_argument('--seeds', default='0,1,2', help='with commas')
  parser.add_argument(
    '--set',
    nargs='+',
    action='extend',
    default=[],
    metavar='NAME=VALUE',
    help='fields of the configs of all rows',
  )
  args = parser.parse_args(argv)
  app.set_up_logging()
  reasons = {}
  try:
    if args.jobs < 1:
      raise ValueError(f'--jobs={args.jobs} must be at least 1')
    places = [
      runs_lib.Place(_table(name), args.workdirs, tuple(args.set))
      for name in args.table.split(',')
    ]
    seeds = [int(seed) for seed in args.seeds.split(',')]
    names = [name for name in args.rows.split(',') if name]
    rows = runs_lib.select(places, names)
    for place in places:
      for row in place.table.rows:
        runs_lib.load_config(place.arguments(row, 0))  # All, before any runs.
  except ValueError as error:
    parser.error(str(error))
  if args.run:
    reasons = runs_lib.run_missing(
      rows, seeds, jobs=args.jobs, find_obstacles=requirements.find
    )
  for place in places:
    print(
      report_lib.report(place, seeds, args.output or args.workdirs, reasons)
    )


def _table(name: str) -> rows_lib.Table:
  if name not in published_lib.TABLES:
    known = ', '.join(published_lib.TABLES)
    raise ValueError(f'--table={name}: there are only {known}')
  return published_lib.TABLES[name]


if __name__ == '__main__':
  main()
