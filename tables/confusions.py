"""Confusion matrices of the rows of a table, summed over seeds and folds."""

import json
import pathlib
from collections.abc import Sequence

import numpy as np

from tables import rows as rows_lib
from tables import runs as runs_lib
from video import figures


def matrix(
  table_runs: runs_lib.TableRuns, row: rows_lib.Row, seeds: Sequence[int]
) -> tuple[np.ndarray, list[str]] | None:
  """The sum of the matrices of all runs of a row, and the classes.

  Returns:
    int64[C, C], rows are true classes; or None if there is no run, of any fold,
    or if runs differ in their classes, as action sets do.
  """
  parts = [table_runs.table.row(name) for name in row.mean_of] or [row]
  found = []
  for part in parts:
    before = len(found)
    for seed in seeds:
      path = table_runs.workdir(part, seed) / 'results'
      path = path / f'{part.found_at[0]}.confusion.json'
      if path.exists():
        found.append(json.loads(path.read_text()))
    if len(found) == before:
      return None
  if not found or any(x['classes'] != found[0]['classes'] for x in found):
    return None
  total = np.sum([x['rows_are_true'] for x in found], axis=0)
  return total, found[0]['classes']


def write(
  table_runs: runs_lib.TableRuns, seeds: Sequence[int], output: pathlib.Path
):
  """Writes TABLE_ROW_confusion.png for each row that has matrices."""
  for row in table_runs.table.rows:
    summed = matrix(table_runs, row, seeds)
    if summed is not None:
      name = f'{table_runs.table.name}_{row.name}_confusion.png'
      figures.save(figures.confusion_matrix(*summed), output / name)
