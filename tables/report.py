"""Reports measured and published scores as Markdown, JSON and a plot."""

import collections
import dataclasses
import json
import pathlib
import shlex
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import figure
from matplotlib.backends import backend_agg

from tables import confusions
from tables import rows as rows_lib
from tables import runs as runs_lib

Row, Table, TableRuns = rows_lib.Row, rows_lib.Table, runs_lib.TableRuns
Reasons = runs_lib.Reasons

_OURS, _PUBLISHED, _AIM = '#d1495b', '#8d95a5', '#30638e'
_MARK = '†'
# Fields in which a run may differ from its row without a note.
_FREE = (
  'seed',
  'start_from',
  'data.data_dir',
  'encoder_weights',
  'log_every',
  'checkpoint_every',
  'sequences',
  'data.images',
  'data.tracks',
)
# Names of the number of test examples in `results.json`.
_COUNTS = (
  'num_images',
  'num_drawings',
  'num_recordings',
  'num_clips',
  'num_sequences',
)


@dataclasses.dataclass(frozen=True)
class Measured:
  """Scores of the runs of a row.

  Attributes:
    row: the row.
    seeds: seeds of the runs that have ended.
    mean: score -> mean, in the table's scale, for scores that all runs have.
    std: score -> sample standard deviation, if there are several runs.
    seconds: training time of each run; None if it was not recorded. Empty for a
      row that is not trained.
    cpu_seconds: CPU time of each run's training, likewise.
    runs: workdir, commit, hardware, step and scores of each run; empty for a
      mean of other rows.
    notes: a difference of runs from the row -> their seeds. Runs that several
      rows share are noted at one of them.
  """

  row: Row
  seeds: tuple[int, ...]
  mean: Mapping[str, float]
  std: Mapping[str, float]
  seconds: tuple[float | None, ...]
  cpu_seconds: tuple[float | None, ...]
  runs: tuple[Mapping[str, Any], ...]
  notes: Mapping[str, tuple[str, ...]]

  def judged(self) -> dict[str, bool | None]:
    """Score -> True if its aim is met, None if it was not measured."""
    return {
      score: aim.is_met(self.mean[score]) if score in self.mean else None
      for score, aim in self.row.aims.items()
    }


def measure(table_runs: TableRuns, row: Row, seeds: Sequence[int]) -> Measured:
  """Reads the results of a row's runs."""
  entries = table_runs.entries(row, seeds)
  mean, std = {}, {}
  for name in table_runs.table.columns.values():
    if entries and all(name in entry['scores'] for entry in entries.values()):
      scores = [entry['scores'][name] for entry in entries.values()]
      scores = table_runs.table.scale_of(name) * np.array(scores)
      mean[name] = float(np.mean(scores))
      if len(scores) > 1:
        std[name] = float(np.std(scores, ddof=1))
  notes = collections.defaultdict(list)
  trained = entries if row in table_runs.table.trained else {}
  for seed, entry in trained.items():
    for note in _differences(table_runs, row, seed, entry):
      notes[note].append(str(seed))
  kept = ('step', 'seed', 'commit', 'hardware', 'data', 'scores')
  return Measured(
    row,
    tuple(entries),
    mean,
    std,
    tuple(entry.get('training_seconds') for entry in trained.values()),
    tuple(entry.get('cpu_seconds') for entry in trained.values()),
    tuple(
      {
        'workdir': str(table_runs.workdir(row, seed)),
        **{name: entry[name] for name in kept if name in entry},
      }
      for seed, entry in (() if row.mean_of else entries.items())
    ),
    {note: tuple(where) for note, where in notes.items()},
  )


def _differences(
  table_runs: TableRuns, row: Row, seed: int, entry: dict
) -> list[str]:
  """Differences between a run and its row."""
  found = []
  count = next((entry[name] for name in _COUNTS if name in entry), None)
  if count is not None and count < row.data.test:
    found.append(
      f'a subset: {count:,} of the {row.data.test:,} test examples of '
      f'{row.data.label}'
    )
  stored = entry.get('config')
  path = table_runs.workdir(row, seed) / 'config.json'
  if stored is None and path.exists():
    stored = json.loads(path.read_text())
  if stored is None:
    return [*found, 'the config of the run is not known']
  was = _flat(stored)
  if was.get('data.images', '') is None:
    found.append('trained on SYNTHETIC textures instead of images')
  own = dataclasses.replace(table_runs, settings=())
  expected = _flat(runs_lib.load_config(own.arguments(row, seed)).to_dict())
  return found + [
    f'{name}={was[name]} instead of {expected[name]}'
    for name in expected
    if name in was and was[name] != expected[name] and name not in _FREE
  ]


def _flat(config: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Dotted names -> values as in JSON."""
  found = {}
  for name, value in config.items():
    if isinstance(value, Mapping):
      found.update(_flat(value, f'{prefix}{name}.'))
    else:
      found[f'{prefix}{name}'] = json.loads(json.dumps(value))
  return found


def markdown(
  table_runs: TableRuns,
  measured: Sequence[Measured],
  seeds: Sequence[int],
  reasons: Reasons,
) -> str:
  """Returns the table, its notes and the commands of the missing runs."""
  table = table_runs.table
  names = list(table.columns.values())
  lines = [
    f'## {table.title}',
    '',
    table.about,
    '',
    f'| | {" | ".join(table.columns)} | seeds | training, a run |',
    '|---' * (len(names) + 3) + '|',
  ]
  for found in measured:
    label = f'**{found.row.label}**'
    if found.seeds:
      cells = [_number(found, name, table.decimals) for name in names]
      time = _durations(found.seconds)
      if any(found.cpu_seconds):
        time += f' (CPU {_durations(found.cpu_seconds)})'
      cells += [str(len(found.seeds)), time]
    else:
      cells = ['not run', *([''] * (len(names) + 1))]
    lines.append(f'| {label} | {" | ".join(cells)} |')
    if found.row.aims:
      cells = [str(found.row.aims.get(name, '')) for name in names]
      lines.append(f'| aim | {" | ".join(cells)} |  |  |')
    lines += [
      _published_line(f'published: {row.source}', row, names)
      for row in found.row.published
    ]
  lines += [_published_line(row.source, row, names) for row in table.others]
  lines += ['', *_legend(table, measured), '']
  for found in measured:
    lines += [
      f'- {found.row.label}, seed {", ".join(where)}: {note}.'
      for note, where in found.notes.items()
    ]
  if lines[-1]:
    lines.append('')
  missing = [
    (row, [seed for seed in seeds if not table_runs.ended(row, seed)])
    for row in table.trained
  ]
  missing = [(row, absent) for row, absent in missing if absent]
  if missing:
    lines += ['Not run; the commands, in this order:', '', '```']
    for row, absent in missing:
      lines.append(f'# {row.label}')
      for reason in reasons.get((table.name, row.name), ()):
        first, *more = reason.splitlines()
        lines += [f'# Not here: {first}', *(f'# {line}' for line in more)]
      lines.append(table_runs.command(row, absent))
    lines += ['```', '']
  lines += _judgement(table, measured)
  if table.appendix is not None:
    entries = {row.name: table_runs.entries(row, seeds) for row in table.rows}
    first = {
      name: next(iter(found.values()))
      for name, found in entries.items()
      if found
    }
    lines += ['', *table.appendix(first)]
  return '\n'.join(lines).rstrip() + '\n'


def _published_line(
  label: str, row: rows_lib.Published, names: Sequence[str]
) -> str:
  """A published row as a line of the table."""
  cells = [''] * (len(names) + 2)
  for i, name in enumerate(names):
    if name in row.scores:
      known = row.score_origin(name) != rows_lib.MEMORY
      # 67 -> 67.0, 17.87 -> 17.87
      number = f'{row.scores[name]:.2f}'.removesuffix('0')
      if name in row.std:
        number += f' ± {row.std[name]:.2f}'
      cells[i] = number if known else f'{number}{_MARK}'
  return f'| {label} | {" | ".join(cells)} |'


def _number(found: Measured, name: str, decimals: int) -> str:
  if name not in found.mean:
    return '-'
  text = f'{found.mean[name]:.{decimals}f}'
  if name in found.std:
    text += f' ± {found.std[name]:.{decimals}f}'
  return text


def _durations(seconds: Sequence[float | None]) -> str:
  """'21, 22, 20 min'; '-' where nothing was recorded."""
  known = [x for x in seconds if x is not None]
  if not known:
    return '-'
  unit, name = (60, 'min') if max(known) < 2 * 3600 else (3600, 'h')
  times = ['-' if x is None else f'{x / unit:.3g}' for x in seconds]
  return f'{", ".join(times)} {name}'


def _legend(table: Table, measured: Sequence[Measured]) -> list[str]:
  tested = any(row.found_at[0] == 'test' for row in table.rows)
  split = ' on the test split' if tested else ''
  lines = [f'Measured: the best checkpoint{split}, mean over seeds']
  if any(found.std for found in measured):
    lines[0] += ' ± sample standard deviation'
  lines[0] += ', scores times 100' if table.scale == 100 else ''
  headings = [
    name for name, key in table.columns.items() if key in table.unscaled
  ]
  lines[0] += f', not {", ".join(headings)}.' if headings else '.'
  recalled = any(
    row.score_origin(name) == rows_lib.MEMORY
    for found in measured
    for row in found.row.published
    for name in row.scores
  )
  if recalled:
    lines[0] += '  '  # A line break.
    lines.append(f'{_MARK} From memory of the paper, unconfirmed.')
  return lines


def _judgement(table: Table, measured: Sequence[Measured]) -> list[str]:
  """One line about the aims that are met; empty without aims."""
  headings = {score: heading for heading, score in table.columns.items()}
  said = {True: [], False: [], None: []}
  for found in measured:
    for score, met in found.judged().items():
      text = f'{found.row.label}, {headings[score]}'
      if met is not None:
        # A digit more, as in the table 89.96 reads 90.0.
        text += f' {found.mean[score]:.{table.decimals + 1}f}'
      said[met].append(f'{text} ({found.row.aims[score]})')
  names = {True: 'Met', False: 'Not met', None: 'Not measured'}
  parts = [f'{names[met]}: {"; ".join(said[met])}' for met in said if said[met]]
  if not parts:
    return []
  return [f'Aims, by the means over the seeds. {". ".join(parts)}.']


def to_json(
  table_runs: TableRuns,
  measured: Sequence[Measured],
  seeds: Sequence[int],
  reasons: Reasons,
) -> dict[str, Any]:
  """Returns the contents of the report as JSON values."""
  return {
    'table': table_runs.table.name,
    'title': table_runs.table.title,
    'about': table_runs.table.about,
    'scale': table_runs.table.scale,
    'rows': [
      {
        **dataclasses.asdict(found),
        'aims_met': found.judged(),
        'commands': {
          seed: shlex.join(['python', *table_runs.arguments(found.row, seed)])
          for seed in (() if found.row.mean_of else seeds)
        },
        'not_here': list(
          reasons.get((table_runs.table.name, found.row.name), ())
        ),
      }
      for found in measured
    ],
  }


# Kinds of points in a plot -> their style.
_MARKS = {
  'measured': {'fmt': 'o', 'color': _OURS},
  'published': {'fmt': 'D', 'color': _PUBLISHED},
  'published, from memory': {
    'fmt': 'D',
    'color': _PUBLISHED,
    'fillstyle': 'none',
  },
  'aim, at least': {'fmt': '>', 'color': _AIM, 'fillstyle': 'none'},
  'aim, at most': {'fmt': '<', 'color': _AIM, 'fillstyle': 'none'},
}


def _points(found: Measured) -> Iterator[tuple[str, str, float, float | None]]:
  """Points of a row: score, kind, value, standard deviation."""
  for row in found.row.published:
    for score, value in row.scores.items():
      recalled = row.score_origin(score) == rows_lib.MEMORY
      kind = 'published, from memory' if recalled else 'published'
      yield score, kind, value, row.std.get(score)
  for score, aim in found.row.aims.items():
    if aim.at_least is not None:
      yield score, 'aim, at least', aim.at_least, None
    else:
      yield score, 'aim, at most', aim.at_most, None
  for score, value in found.mean.items():
    yield score, 'measured', value, found.std.get(score)


def plot(table: Table, measured: Sequence[Measured], path: pathlib.Path):
  """Plots measured and published scores and aims, a panel for each score."""
  points = [(y, *x) for y, found in enumerate(measured) for x in _points(found)]
  known = {score for _, score, _, _, _ in points}
  columns = [x for x in table.columns.items() if x[1] in known]
  if not columns:
    return
  size = (3 + 2.4 * len(columns), 1.4 + 0.35 * len(measured))
  sheet = figure.Figure(figsize=size, dpi=100)
  canvas = backend_agg.FigureCanvasAgg(sheet)
  panels = sheet.subplots(1, len(columns), sharey=True, squeeze=False)[0]
  for panel, (heading, score) in zip(panels, columns, strict=True):
    for y, name, kind, value, deviation in points:
      if name == score:
        panel.errorbar(value, y, xerr=deviation, capsize=3, **_MARKS[kind])
    panel.set_title(heading)
    panel.grid(alpha=0.3)
  panels[0].set_yticks(
    range(len(measured)), [found.row.label for found in measured]
  )
  panels[0].set_ylim(len(measured) - 0.5, -0.5)
  kinds = {kind for _, _, kind, _, _ in points}
  handles = [
    panels[0].errorbar([], [], label=kind, **mark)
    for kind, mark in _MARKS.items()
    if kind in kinds
  ]
  sheet.legend(handles=handles, loc='lower right', ncols=len(handles))
  sheet.suptitle(table.title)
  sheet.tight_layout(rect=(0, 0.3 / size[1], 1, 1))
  canvas.print_png(path)


def report(
  table_runs: TableRuns,
  seeds: Sequence[int],
  output: pathlib.Path,
  reasons: Reasons,
) -> str:
  """Writes the Markdown, the JSON and the plots; returns the Markdown."""
  measured = [measure(table_runs, row, seeds) for row in table_runs.table.rows]
  text = markdown(table_runs, measured, seeds, reasons)
  output.mkdir(parents=True, exist_ok=True)
  path = output / table_runs.table.name
  path.with_suffix('.md').write_text(text)
  path.with_suffix('.json').write_text(
    json.dumps(to_json(table_runs, measured, seeds, reasons), indent=2) + '\n'
  )
  plot(table_runs.table, measured, path.with_suffix('.png'))
  if table_runs.table.module == 'video.classify':
    confusions.write(table_runs, seeds, output)
  return text
