r"""Prints the captions that the runs of a table gave to the same test images.

  python -m tables.captions --table=flickr8k --count=12
  python -m tables.captions --table=ucm --rows=soft,hard --seed=2 --first=5

Images are chosen by number: COUNT at equal distances in the order of the split,
from number FIRST on. Captions are those that a run wrote when it ended,
results/test.captions.json in its workdir. Rows that were not run are left out.
"""

import json
import pathlib
from collections.abc import Sequence

from tables import published
from tables import runs as runs_lib
from training import errors
from training import paths

_FILE = 'results/test.captions.json'


def read(
  table_runs: runs_lib.TableRuns, names: Sequence[str], seed: int
) -> dict[str, dict[str, str]]:
  """The label of each row that was run -> image -> caption.

  Args:
    table_runs: of the table.
    names: of rows; none for all.
    seed: of the runs.

  Raises:
    ValueError: no such row was run, or runs have captions of other images.
  """
  found = {}
  for _, row in runs_lib.select([table_runs], names):
    path = table_runs.workdir(row, seed) / _FILE
    if path.exists() and not row.trained_as:
      found[row.label] = {
        str(line['image_id']): line['caption']
        for line in json.loads(path.read_text())
      }
  if not found:
    raise ValueError(
      f'no row of {table_runs.table.name} was run with seed {seed} in '
      f'{table_runs.workdirs}: python -m tables --table='
      f'{table_runs.table.name} --run'
    )
  first = next(iter(found))
  for label, captions in found.items():
    if captions.keys() != found[first].keys():
      raise ValueError(f'{label} and {first} have captions of other images')
  return found


def markdown(
  found: dict[str, dict[str, str]], *, count: int, first: int = 0
) -> str:
  """A table for each image: the models, those with one caption together."""
  images = list(next(iter(found.values())))
  size = len(images)
  chosen = [images[(first + n * size // count) % size] for n in range(count)]
  lines = ['| image | caption | by |', '|---|---|---|']
  for image in chosen:
    by = {}
    for label, captions in found.items():
      by.setdefault(captions[image], []).append(label)
    for n, (caption, labels) in enumerate(by.items()):
      name = '' if n else f'`{image}`'
      lines.append(f'| {name} | {caption} | {"; ".join(labels)} |')
  return '\n'.join(lines)


def main(argv: Sequence[str] | None = None):
  """Runs the command."""
  parser = errors.Parser(description=__doc__)
  parser.add_argument('--table', required=True, help='name of the table')
  parser.add_argument(
    '--rows',
    default='',
    help='names of rows, separated by commas; default: all',
  )
  parser.add_argument('--seed', type=int, default=0, help='of the runs')
  parser.add_argument(
    '--count', type=int, default=12, help='number of images (default: 12)'
  )
  parser.add_argument(
    '--first', type=int, default=0, help='number of the first (default: 0)'
  )
  parser.add_argument(
    '--workdirs',
    type=pathlib.Path,
    default=pathlib.Path('runs/tables'),
    help='directory of the workdirs (default: runs/tables)',
  )
  args = parser.parse_args(paths.arguments(parser, argv))
  try:
    if args.table not in published.TABLES:
      known = ', '.join(published.TABLES)
      raise ValueError(f'--table={args.table}: there are only {known}')
    table_runs = runs_lib.TableRuns(published.TABLES[args.table], args.workdirs)
    names = [name for name in args.rows.split(',') if name]
    found = read(table_runs, names, args.seed)
  except ValueError as error:
    parser.error(str(error))
  print(markdown(found, count=args.count, first=args.first))


if __name__ == '__main__':
  errors.run(main)
