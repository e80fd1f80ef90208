r"""Trains the rows of tables and prints them beside the published scores.

  python -m tables --table=ucm
  python -m tables --table=ucm --run \
    --set encoder_weights=resnet50.safetensors
  python -m tables --table=ordered_motion,gesture_stream \
    --run --jobs=2
  python -m tables --table=flickr8k_published \
    --published=where-image2 --references=Flickr8k/Flickr8k.token.txt

Every measured number comes from the `results.json` of a workdir,
WORKDIRS/TABLE/ROW_SEED. --run first trains and evaluates the missing runs, JOBS
at once, and resumes interrupted ones. Runs whose data or weights are missing
are left out, with the reason. The commands of all missing runs are printed.

flickr8k_published scores published captions again; see rescored.py.

The tables are written to OUTPUT as TABLE.md, TABLE.json and TABLE.png.
"""

import pathlib
from collections.abc import Sequence

from tables import published as published_lib
from tables import report as report_lib
from tables import requirements
from tables import rescored
from tables import rows as rows_lib
from tables import runs as runs_lib
from training import app
from training import errors
from training import paths


def main(argv: Sequence[str] | None = None):
  """Runs the command."""
  parser = errors.Parser(description=__doc__)
  parser.add_argument(
    '--table',
    required=True,
    help='names of tables, separated by commas: '
    + ', '.join([*published_lib.TABLES, rescored.NAME]),
  )
  parser.add_argument(
    '--workdirs',
    type=pathlib.Path,
    default=pathlib.Path('runs/tables'),
    help='directory of the workdirs (default: runs/tables)',
  )
  parser.add_argument(
    '--output',
    type=pathlib.Path,
    help='directory of the tables; default: WORKDIRS',
  )
  parser.add_argument(
    '--run', action='store_true', help='train and evaluate missing runs'
  )
  parser.add_argument(
    '--rows', default='', help='rows to run, separated by commas; default: all'
  )
  parser.add_argument(
    '--jobs',
    type=int,
    default=1,
    help='number of runs at once; each of several has one core',
  )
  parser.add_argument(
    '--seeds', default='0,1,2', help='random seeds of each row (default: 0,1,2)'
  )
  parser.add_argument(
    '--set',
    nargs='+',
    action='extend',
    default=[],
    metavar='NAME=VALUE',
    help='changes fields of the configs of all rows',
  )
  parser.add_argument(
    '--published',
    type=pathlib.Path,
    help=f'directory of published captions, for {rescored.NAME}',
  )
  parser.add_argument(
    '--references',
    type=pathlib.Path,
    help=f'file of the human captions, for {rescored.NAME}',
  )
  args = parser.parse_args(paths.arguments(parser, argv))
  app.set_up_logging()
  reasons = {}
  try:
    if args.jobs < 1:
      raise ValueError(f'--jobs={args.jobs} must be at least 1')
    tables = args.table.split(',')
    if rescored.NAME in tables:
      tables.remove(rescored.NAME)
      if args.published is None or args.references is None:
        raise ValueError(f'{rescored.NAME} needs --published and --references')
      print(
        rescored.report(
          args.published, args.references, args.output or args.workdirs
        )
      )
    all_runs = [
      runs_lib.TableRuns(_table(name), args.workdirs, tuple(args.set))
      for name in tables
    ]
    seeds = [int(seed) for seed in args.seeds.split(',')]
    names = [name for name in args.rows.split(',') if name]
    rows = runs_lib.select(all_runs, names)
    for table_runs in all_runs:
      for row in table_runs.table.rows:
        runs_lib.load_config(
          table_runs.arguments(row, 0)
        )  # All, before any runs.
  except ValueError as error:
    parser.error(str(error))
  if args.run:
    reasons = runs_lib.run_missing(
      rows, seeds, jobs=args.jobs, missing_requirements=requirements.missing
    )
  for table_runs in all_runs:
    print(
      report_lib.report(
        table_runs, seeds, args.output or args.workdirs, reasons
      )
    )


def _table(name: str) -> rows_lib.Table:
  if name not in published_lib.TABLES:
    known = ', '.join([*published_lib.TABLES, rescored.NAME])
    raise ValueError(f'--table={name}: there are only {known}')
  return published_lib.TABLES[name]


if __name__ == '__main__':
  errors.run(main)
