r"""Searches settings of a row of a table on the validation split.

  python -m tables.search --table=flickr8k --row=soft \
    --try decoder.dropout_rate=0.3,0.5 --try loss.label_smoothing=0.0,0.1 \
    --set num_steps=1125 encoder_weights=resnet50.safetensors

One field after the other: each run changes one field of the best settings so
far, and a better one is kept. A run has a workdir of its own in
WORKDIRS/search/TABLE/ROW, and its score is the best of the config's
`best_metric` that it reached on the validation split; the test split decides
nothing. search.jsonl there has a line for each run in the order of the search,
with its settings, score, step and CPU time. A search that was stopped goes on.
"""

import hashlib
import json
import pathlib
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from tables import published
from tables import rows as rows_lib
from tables import runs as runs_lib
from training import app
from training import errors
from training import paths
from training import report

Settings = Mapping[str, str]
_LOG = 'search.jsonl'


class Search:
  """Runs of one row, and their scores on the validation split."""

  def __init__(
    self,
    table: rows_lib.Table,
    row: rows_lib.Row,
    directory: pathlib.Path,
    *,
    fixed: Settings,
    seed: int = 0,
    run: Callable[[Sequence[str]], int],
  ):
    """Trains nothing yet.

    Args:
      table: of the row.
      row: is not one that starts from another.
      directory: of the workdirs and of the log.
      fixed: settings of all runs: the data, and a shorter training, say.
      seed: of all runs.
      run: runs `python` with these arguments; returns its status.
    """
    if row.start_from:
      raise ValueError(f'{row.name} starts from {row.start_from}: search that')
    self._table = table
    self._row = row
    self._directory = directory
    self._fixed = dict(fixed)
    self._seed = seed
    self._run = run
    config = runs_lib.load_config(self._arguments({}, directory))
    self.metric = config.best_metric
    self._sign = -1 if config.best_mode == 'min' else 1
    self._flat = runs_lib.flat(config)

  def __call__(self, tries: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Searches one field after the other.

    Args:
      tries: field -> its values; fields that matter most come first.

    Returns:
      The best settings, without those that are fixed.

    Raises:
      ValueError: a field or a value does not exist.
      RuntimeError: a run did not end well.
    """
    for field, values in tries.items():
      for value in values:  # All, before any runs.
        self._arguments({field: value}, self._directory, check=True)
    self._directory.mkdir(parents=True, exist_ok=True)
    log = self._directory / _LOG
    log.write_text('')
    best, best_score = {}, self._score({}, log)
    for field, values in tries.items():
      changed = best
      for value in values:
        if str(self._flat[field]) == value:
          continue  # That of the config.
        settings = {**best, field: value}
        score = self._score(settings, log)
        if score > best_score:
          changed, best_score = settings, score
      best = changed
    return best

  def _score(self, settings: Settings, log: pathlib.Path) -> float:
    """The score of settings, larger for better ones; trains if it must."""
    workdir = self._directory / _name(settings)
    done = workdir / 'results.json'
    if not done.exists():
      print(f'{self._row.name}: {_words(settings)}', flush=True)
      status = self._run(self._arguments(settings, workdir))
      if not done.exists():
        raise RuntimeError(
          f'the run in {workdir} ended with {status}; the same command goes on'
        )
    step, score = self._best(workdir)
    line = {
      'settings': dict(settings),
      'fixed': self._fixed,
      self.metric: score,
      'step': step,
      'cpu_seconds': report.cpu_seconds(workdir),
      'workdir': workdir.name,
    }
    with log.open('a') as file:
      file.write(json.dumps(line) + '\n')
    print(f'{self.metric} {score:.4f} at step {step}: {_words(settings)}')
    return self._sign * score

  def _best(self, workdir: pathlib.Path) -> tuple[int, float]:
    """The step and the score of the best evaluation of a run."""
    key = f'validation/{self.metric}'
    lines = (workdir / 'metrics.jsonl').read_text().splitlines()
    scores = {
      values['step']: values[key]
      for values in map(json.loads, lines)
      if key in values
    }
    step = max(scores, key=lambda step: self._sign * scores[step])
    return step, scores[step]

  def _arguments(
    self, settings: Settings, workdir: pathlib.Path, *, check: bool = False
  ) -> list[str]:
    changed = {**self._row.overrides, **self._fixed, **settings}
    arguments = [
      '-m',
      self._table.module,
      f'--config={self._row.config}',
      f'--workdir={workdir}',
      f'--config.seed={self._seed}',
      *(f'--config.{name}={value}' for name, value in changed.items()),
    ]
    if check:
      runs_lib.load_config(arguments)
    return arguments


def _name(settings: Settings) -> str:
  """The name of a workdir: readable, and as different as the settings."""
  if not settings:
    return 'config'
  digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
  last, value = list(settings.items())[-1]
  return f'{last.rpartition(".")[2]}_{value}_{digest.hexdigest()[:6]}'


def _words(settings: Settings) -> str:
  changed = [f'{name}={value}' for name, value in settings.items()]
  return ', '.join(changed) or 'as in the config'


def _pairs(texts: Sequence[str]) -> dict[str, str]:
  """NAME=VALUE as a mapping."""
  pairs = {}
  for text in texts:
    name, equals, value = text.partition('=')
    if not equals:
      raise ValueError(f'{text!r} must be NAME=VALUE')
    pairs[name] = value
  return pairs


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
  """Runs the command; returns the best settings."""
  parser = errors.Parser(description=__doc__)
  parser.add_argument('--table', required=True, help='name of the table')
  parser.add_argument('--row', required=True, help='name of the row')
  parser.add_argument(
    '--try',
    dest='tries',
    action='append',
    required=True,
    metavar='NAME=VALUE,VALUE',
    help='values of a field of the config',
  )
  parser.add_argument(
    '--set',
    nargs='+',
    action='extend',
    default=[],
    metavar='NAME=VALUE',
    help='changes fields of the configs of all runs',
  )
  parser.add_argument('--seed', type=int, default=0, help='of all runs')
  parser.add_argument(
    '--workdirs',
    type=pathlib.Path,
    default=pathlib.Path('runs/tables'),
    help='directory of the workdirs (default: runs/tables)',
  )
  args = parser.parse_args(paths.arguments(parser, argv))
  app.set_up_logging()
  try:
    if args.table not in published.TABLES:
      known = ', '.join(published.TABLES)
      raise ValueError(f'--table={args.table}: there are only {known}')
    table = published.TABLES[args.table]
    if args.row not in [row.name for row in table.rows]:
      known = ', '.join(row.name for row in table.rows)
      raise ValueError(f'--row={args.row}: there are only {known}')
    processes = runs_lib.Processes()
    search = Search(
      table,
      table.row(args.row),
      args.workdirs / 'search' / args.table / args.row,
      fixed=_pairs(args.set),
      seed=args.seed,
      run=processes,
    )
    tries = {
      name: values.split(',') for name, values in _pairs(args.tries).items()
    }
    with processes.listening():
      best = search(tries)
  except (ValueError, RuntimeError) as error:
    errors.fail(str(error), max_lines=None)
  print(f'best: {_words(best)}')
  return best


if __name__ == '__main__':
  errors.run(main)
