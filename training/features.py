"""A store of features that are computed once and read many times.

The features of a frozen encoder have the same number of locations in every
record; the regions of a detector, or the frames of a clip, vary in number.

A store is a directory of ArrayRecord shards, in the order of the records, and
`features.json`, which is written last. The names of the shards differ by
encoder, data and size, so that they are never mixed.

Axes: B batch, L locations, N locations of one record where they vary in
number, D features.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import time
import uuid
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np
from array_record.python import array_record_data_source
from array_record.python import array_record_module

from training import console
from training import text_files

_INDEX = 'features.json'
_DTYPE = np.dtype('<f2')
_AGAIN = (
  'Run the command again, it writes this shard again and keeps the others'
)
_AGAIN_INDEX = 'delete it, and run the command that writes it again'
# Seconds since the last record, after which its writer is no more.
_LEFT_OVER = 3600
# One record is read at a time. Uncompressed, reading takes a quarter of the
# time; features of a ReLU would shrink by 40 %.
_WRITER_OPTIONS = 'group_size:1,uncompressed'


class Features:
  """Random access to a complete cache; threads and processes may share it."""

  def __init__(
    self,
    paths: Sequence[str],
    shape: tuple[int | None, int],
    max_locations: int | None = None,
  ):
    """Opens the shards.

    Args:
      paths: of the shards, in order.
      shape: (L, D), or (None, D) where the number of locations varies.
      max_locations: the maximum number where it varies; otherwise None.
    """
    self._paths = [pathlib.Path(path) for path in paths]
    try:
      self._source = array_record_data_source.ArrayRecordDataSource(paths)
    except RuntimeError as error:
      path = next((p for p in self._paths if not _count(p)), self._paths[-1])
      raise ValueError(
        f'{path} is damaged ({error}): {_set_aside(path)}. {_AGAIN}'
      ) from error
    self.shape = shape
    self.max_locations = max_locations
    locations, width = shape
    self._rows = (-1 if locations is None else locations, width)

  def __len__(self) -> int:
    """The number of records."""
    return len(self._source)

  def __getitem__(self, index: int) -> np.ndarray:
    """The features of record `index`: f16[L, D] or [N, D], read-only.

    Raises:
      ValueError: its shard is damaged. It was moved aside, so that `write`
        writes it again, and it alone.
    """
    if not 0 <= index < len(self):
      raise IndexError(index)  # It ends a loop over all records.
    try:
      return np.frombuffer(self._source[index], _DTYPE).reshape(self._rows)
    except (RuntimeError, ValueError) as error:
      path = self._shard_of(index)
      raise ValueError(
        f'{path} is damaged ({error}): {_set_aside(path)}. {_AGAIN}'
      ) from error

  def _shard_of(self, index: int) -> pathlib.Path:
    for path in self._paths[:-1]:
      count = _count(path)
      if index < count or not count:
        return path
      index -= count
    return self._paths[-1]


def write(
  source: Sequence[Any],
  encode: Callable[[list[Any]], Sequence[np.ndarray]],
  directory: str | os.PathLike,
  *,
  batch_size: int,
  fingerprint: str,
  max_locations: int | None = None,
  shard_size: int = 256,
  process_index: int = 0,
  process_count: int = 1,
):
  """Encodes all of `source` into `directory`; continues where it was stopped.

  Each of several processes writes its share of the shards, and the last one
  completes the cache: wait for all of them before opening it.

  Args:
    source: records in the order in which the features will be read.
    encode: list of at most `batch_size` records -> f16 or f32[B, L, D], or with
      `max_locations` a list of B arrays f[N, D].
    directory: of this cache alone.
    batch_size: the number of records to encode at once.
    fingerprint: identifies the encoder and the data.
    max_locations: the maximum number of locations of a record, where it varies.
      By default all records have the same number.
    shard_size: the number of records in a shard. At most these are lost when
      the process is stopped.
    process_index: number of this process.
    process_count: number of processes.

  Raises:
    ValueError: the directory holds other features, or `encode` returns wrong
      shapes or numbers that are not finite in half precision.
  """
  directory = pathlib.Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  shards = _shards(directory, len(source), shard_size, fingerprint)
  others = set(directory.glob('*.array_record')) - set(shards)
  if others:
    raise ValueError(
      f'{directory} holds features of another encoder, other data or another '
      f'shard_size ({min(others).name}): delete it, or choose another '
      'directory'
    )
  if _complete(directory, fingerprint):
    return
  _remove_left_over(directory)
  mine = list(shards.items())[process_index::process_count]
  shape = None
  count = sum(map(len, dict(mine).values()))
  with console.progress('Encoding', total=count, unit='records') as update:
    for path, records in mine:
      if _count(path) == len(records):
        update(len(records))
        continue
      with _replacing(path) as partial:
        writer = array_record_module.ArrayRecordWriter(
          str(partial), _WRITER_OPTIONS
        )
        for start in range(records.start, records.stop, batch_size):
          stop = min(start + batch_size, records.stop)
          batch, batch_shape = _encode(
            encode, [source[i] for i in range(start, stop)], max_locations
          )
          if shape not in (None, batch_shape):
            raise ValueError(
              f'encode returned {batch_shape} for some records and {shape} for '
              'others: give all images one size'
            )
          shape = batch_shape
          for rows in batch:
            writer.write(rows.tobytes())
          update(len(batch))
        writer.close()
  if any(_count(path) != len(records) for path, records in shards.items()):
    return  # Another process still writes.
  if shape is None:
    if _complete(directory, fingerprint):
      return  # The other process has completed it.
    _, shape = _encode(encode, [source[0]], max_locations)
  index = {
    'fingerprint': fingerprint,
    'dtype': _DTYPE.str,
    'shape': list(shape),
    'max_locations': max_locations,
    'count': len(source),
    'shards': {path.name: path.stat().st_size for path in shards},
  }
  index['digest'] = _digest(index)
  with _replacing(directory / _INDEX) as partial:
    partial.write_text(json.dumps(index, indent=2))


def _complete(directory: pathlib.Path, fingerprint: str) -> bool:
  """Checks whether the cache is complete and undamaged."""
  try:
    open_features(directory, fingerprint=fingerprint)
  except (FileNotFoundError, ValueError):
    return False
  return True


def open_features(
  directory: str | os.PathLike, *, fingerprint: str
) -> Features:
  """Opens a cache that `write` has completed.

  Raises:
    ValueError: it is incomplete, damaged, or of another encoder or data set.
  """
  directory = pathlib.Path(directory)
  path = directory / _INDEX
  if not path.exists():
    raise ValueError(
      f'{directory} is not a complete cache of features ({_INDEX} is '
      'missing): run the command that writes it again, it continues'
    )
  index = _read_index(path)
  for field, wanted in (('fingerprint', fingerprint), ('dtype', _DTYPE.str)):
    if index[field] != wanted:
      raise ValueError(
        f'{directory} holds features of {field} {index[field]}, not {wanted}: '
        'delete it, or choose another directory'
      )
  paths = [directory / name for name in index['shards']]
  for path, size in zip(paths, index['shards'].values(), strict=True):
    if not path.exists() or path.stat().st_size != size:
      raise ValueError(
        f'{path} is missing or not the {size} bytes that were written: run '
        'the command that writes it again, it keeps the other shards'
      )
  return Features(
    [str(path) for path in paths],
    tuple(index['shape']),
    # Earlier names: `most_locations`, or no field where the number is constant.
    index.get('max_locations', index.get('most_locations')),
  )


def _set_aside(path: pathlib.Path) -> str:
  """Renames a damaged shard; returns the rest of the message."""
  aside = path.with_name(path.name + '.damaged')
  try:
    path.rename(aside)
  except FileNotFoundError:  # Another thread or process was faster.
    pass
  except OSError as error:
    return f'delete it ({error})'
  return f'it was moved to {aside.name}'


def _read_index(path: pathlib.Path) -> dict[str, Any]:
  index = text_files.read_json(path)
  fields = {'fingerprint': str, 'dtype': str, 'shape': list, 'shards': dict}
  is_whole = isinstance(index, dict) and all(
    isinstance(index.get(name), kind) for name, kind in fields.items()
  )
  if is_whole and 'digest' in index:  # Earlier versions wrote none.
    is_whole = index.pop('digest') == _digest(index)
  if not is_whole:
    raise ValueError(f'{path} is damaged: {_AGAIN_INDEX}')
  return index


def _digest(index: dict[str, Any]) -> str:
  # The order of the shards is that of their records.
  return hashlib.sha256(json.dumps(index).encode()).hexdigest()


def to_half(features: np.ndarray) -> np.ndarray:
  """Converts to half precision: f[...] -> f16[...].

  Raises:
    ValueError: the result is not finite.
  """
  with np.errstate(over='ignore'):  # The error below is clearer.
    half = features.astype(_DTYPE)
  if not np.isfinite(half).all():
    raise ValueError(
      'features are not finite in half precision (the largest is '
      f'{np.abs(features).max()}): scale them down'
    )
  return half


def _shards(directory, count, shard_size, fingerprint) -> dict:
  """Maps the path of each shard to the range of its records."""
  if not count:
    raise ValueError('there are no records to encode')
  key = f'{fingerprint} {count} {shard_size}'
  key = hashlib.sha256(key.encode()).hexdigest()[:8]
  starts = range(0, count, shard_size)
  return {
    directory / f'features-{key}-{i:05d}-of-{len(starts):05d}.array_record': (
      range(start, min(start + shard_size, count))
    )
    for i, start in enumerate(starts)
  }


def _remove_left_over(directory: pathlib.Path):
  """Removes the unfinished files of processes that were killed."""
  for path in directory.glob('*.tmp'):
    with contextlib.suppress(FileNotFoundError):  # Its writer has finished it.
      if time.time() - path.stat().st_mtime > _LEFT_OVER:
        path.unlink()


@contextlib.contextmanager
def _replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a temporary path, whose file replaces `path` at the end.

  Its name is unique, since two runs may write the same cache at once.
  """
  partial = path.with_name(f'{path.name}.{uuid.uuid4().hex}.tmp')
  try:
    yield partial
    partial.replace(path)
  finally:
    partial.unlink(missing_ok=True)


def _count(path: pathlib.Path) -> int:
  """The number of records in a shard, 0 if it is missing or damaged."""
  if not path.exists():
    return 0
  try:
    reader = array_record_module.ArrayRecordReader(str(path))
    count = reader.num_records()
    reader.close()  # Raises on a truncated file.
  except RuntimeError:
    return 0
  return count


def _encode(
  encode, records, max_locations
) -> tuple[Sequence[np.ndarray], tuple[int | None, int]]:
  """The features of records, f16, and the shape (L or None, D) of each."""
  features = encode(records)
  if max_locations is not None:
    shapes = [np.shape(rows) for rows in features]
    widths = {shape[1:] for shape in shapes}
    if (
      len(shapes) != len(records)
      or len(widths) != 1
      or not all(len(s) == 2 and 1 <= s[0] <= max_locations for s in shapes)
    ):
      raise ValueError(
        f'encode returned {shapes} for {len(records)} records: it must return '
        f'[N, D] for each, at most {max_locations} rows of one width'
      )
    (width,) = widths.pop()
    return [to_half(np.asarray(rows)) for rows in features], (None, width)
  features = np.asarray(features)
  if features.ndim != 3 or len(features) != len(records):
    raise ValueError(
      f'encode returned {features.shape} for {len(records)} records: it must '
      'return [L, D] for each'
    )
  return to_half(features), features.shape[1:]
