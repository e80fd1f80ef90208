"""Reads and checks recordings of fingertip gestures in a CSV.

Axes: T time, D features.
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from training import text_files
from video.sources import clips


@dataclasses.dataclass(frozen=True)
class Features:
  """A sequence of vectors, with a class."""

  id: str
  split: str
  features: np.ndarray  # f32[T, D].
  label: str
  group: str = ''


def fingertips(
  path: str | os.PathLike,
  *,
  names: Sequence[str] | None = None,
  gap: int = 16,
) -> list[Features]:
  """Reads tracks f32[T, 2]; each row has a class, then (dx, dy) at each time.

  The rows are windows over one long recording of each class, and neighbours
  overlap. The split is by blocks of each class, in the order of the rows: the
  first 60 % for training, the next 10 % for validation and the last 30 % for
  testing. The first `gap` rows of the last two are left out. The split is not
  by person.

  Args:
    path: path of the CSV.
    names: names of the classes 0, 1, ...; None reads them from
      point_history_classifier_label.csv in the same directory.
    gap: number of rows, at least the number of points in a window.

  Raises:
    ValueError: the file is not such a table, or has too few rows.
  """
  path = pathlib.Path(path)
  if names is None:
    beside = path.with_name('point_history_classifier_label.csv')
    names = [name for _, name in text_files.lines(beside)]
  numbered = text_files.rows(path)
  rows = [row for _, row in numbered]
  if len({len(row) for row in rows}) != 1 or len(rows[0]) % 2 != 1:
    raise ValueError(
      f'{path}: every row must hold a class and equally many pairs of numbers'
    )
  values = np.empty((len(rows), len(rows[0])), np.float32)
  for i, (number, row) in enumerate(numbered):
    try:
      values[i] = row
    except ValueError as error:
      raise ValueError(
        f'{path} must hold numbers only: line {number}: '
        f'{text_files.reason(error)}'
      ) from error
  with np.errstate(invalid='ignore'):  # NaN and infinity are found next.
    labels = values[:, 0].astype(np.int32)
  if (
    not np.isfinite(values).all()
    or (labels != values[:, 0]).any()
    or not np.isin(labels, np.arange(len(names))).all()
  ):
    raise ValueError(
      f'{path}: the first number of each row must be a class, 0 to '
      f'{len(names) - 1}, and all must be finite'
    )
  points = values[:, 1:].reshape(len(rows), -1, 2)
  if gap < points.shape[1]:
    raise ValueError(
      f'gap={gap} must be at least {points.shape[1]}, the points of a row: '
      'neighbouring rows overlap'
    )
  tracks = []
  for label, name in enumerate(names):
    of_class = np.flatnonzero(labels == label)
    first, second = (len(of_class) * share // 10 for share in (6, 7))
    blocks = (
      of_class[:first],
      of_class[first + gap : second],
      of_class[second + gap :],
    )
    for split, block in zip(clips.SPLITS, blocks, strict=True):
      if not len(block):
        raise ValueError(
          f'{path}: {name!r} has {len(of_class)} rows, too few for three '
          f'blocks with {gap} rows between them'
        )
      tracks += [
        Features(f'row{row:05d}', split, points[row], name) for row in block
      ]
  return tracks
