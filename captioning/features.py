"""Grids of features of a frozen encoder, computed once and read many times.

A cache is a directory of ArrayRecord shards, record by record in the order of
the pictures, and `features.json`, which is written last. Shards of another
encoder, of other data or of another size have other names and are never mixed.

Axes: B batch, L locations, D features.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import uuid
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np
import tqdm
from array_record.python import array_record_data_source
from array_record.python import array_record_module

_INDEX = 'features.json'
_DTYPE = np.dtype('<f2')
# One record is read at a time. Uncompressed, reading takes a quarter of the
# time; features of a ReLU would shrink by 40 %.
_WRITER_OPTIONS = 'group_size:1,uncompressed'


class Features:
  """Random access to a complete cache; threads and processes may share it."""

  def __init__(self, paths: Sequence[str], shape: tuple[int, int]):
    """Takes the shards in order and the shape (L, D) of every record."""
    self._source = array_record_data_source.ArrayRecordDataSource(paths)
    self.shape = shape

  def __len__(self) -> int:
    """The number of pictures."""
    return len(self._source)

  def __getitem__(self, index: int) -> np.ndarray:
    """The features of picture `index`: f16[L, D], read-only."""
    if not 0 <= index < len(self):
      raise IndexError(index)  # Which ends a loop over all.
    return np.frombuffer(self._source[index], _DTYPE).reshape(self.shape)


def write(
  source: Sequence[Any],
  encode: Callable[[list[Any]], np.ndarray],
  directory: str | os.PathLike,
  *,
  batch_size: int,
  fingerprint: str,
  shard_size: int = 256,
  process_index: int = 0,
  process_count: int = 1,
):
  """Encodes all of `source` into `directory`; continues where it was stopped.

  Of several processes each writes its share of the shards, and the one that
  finishes last completes the cache: wait for all of them before it is opened.

  Args:
    source: records in the order in which the features will be read.
    encode: list of at most `batch_size` records -> f16 or f32[B, L, D].
    directory: of this cache alone.
    batch_size: the number of records to encode at once.
    fingerprint: says which encoder and which data the features come from.
    shard_size: the number of records in a shard, and what is lost at most when
      the process is stopped.
    process_index: number of this process.
    process_count: number of processes.

  Raises:
    ValueError: the directory holds features of something else, or `encode`
      returns other shapes or what is not finite in half precision.
  """
  directory = pathlib.Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  shards = _shards(directory, len(source), shard_size, fingerprint)
  strangers = set(directory.glob('*.array_record')) - set(shards)
  if strangers:
    raise ValueError(
      f'{directory} holds features of another encoder, other data or another '
      f'shard_size ({min(strangers).name}): delete it, or choose another '
      'directory'
    )
  if _complete(directory, fingerprint):
    return
  mine = list(shards.items())[process_index::process_count]
  shape = None
  with tqdm.tqdm(
    total=sum(map(len, dict(mine).values())), desc='Encoding', unit=' pictures'
  ) as progress:
    for path, records in mine:
      if _count(path) == len(records):
        progress.update(len(records))
        continue
      with _replacing(path) as beside:
        writer = array_record_module.ArrayRecordWriter(
          str(beside), _WRITER_OPTIONS
        )
        for start in range(records.start, records.stop, batch_size):
          stop = min(start + batch_size, records.stop)
          batch = _encode(encode, [source[i] for i in range(start, stop)])
          if shape not in (None, batch.shape[1:]):
            raise ValueError(
              f'encode made {batch.shape[1:]} of some records and {shape} of '
              'others: give all pictures one size'
            )
          shape = batch.shape[1:]
          for grid in batch:
            writer.write(grid.tobytes())
          progress.update(len(batch))
        writer.close()
  if any(_count(path) != len(records) for path, records in shards.items()):
    return  # Another process still writes.
  if shape is None:
    if (directory / _INDEX).exists():
      return
    shape = _encode(encode, [source[0]]).shape[1:]
  index = {
    'fingerprint': fingerprint,
    'dtype': _DTYPE.str,
    'shape': list(shape),
    'count': len(source),
    'shards': {path.name: path.stat().st_size for path in shards},
  }
  with _replacing(directory / _INDEX) as beside:
    beside.write_text(json.dumps(index, indent=2))


def _complete(directory: pathlib.Path, fingerprint: str) -> bool:
  """Whether an undamaged cache of these features is there."""
  try:
    open_features(directory, fingerprint=fingerprint)
  except (FileNotFoundError, ValueError):
    return False
  return True


def open_features(
  directory: str | os.PathLike, *, fingerprint: str
) -> Features:
  """Opens what `write` completed with the same fingerprint.

  Raises:
    ValueError: it is not complete, not of this encoder and data, or damaged.
  """
  directory = pathlib.Path(directory)
  path = directory / _INDEX
  if not path.exists():
    raise ValueError(
      f'{directory} is not a complete cache of features ({_INDEX} is '
      'missing): run the command that writes it again, it continues'
    )
  index = json.loads(path.read_text())
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
  return Features([str(path) for path in paths], tuple(index['shape']))


def _shards(directory, count, shard_size, fingerprint) -> dict:
  """Path -> range of the records in it."""
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


@contextlib.contextmanager
def _replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """A file beside `path` that takes its place when it is complete.

  It has a name of its own: two runs may write the same cache at once.
  """
  beside = path.with_name(f'{path.name}.{uuid.uuid4().hex}.tmp')
  try:
    yield beside
    beside.replace(path)
  finally:
    beside.unlink(missing_ok=True)


def _count(path: pathlib.Path) -> int:
  """The number of records in a shard, 0 if it is missing or damaged."""
  if not path.exists():
    return 0
  try:
    reader = array_record_module.ArrayRecordReader(str(path))
    count = reader.num_records()
    reader.close()  # This is what raises on a truncated file.
  except RuntimeError:
    return 0
  return count


def _encode(encode, records) -> np.ndarray:
  features = np.asarray(encode(records))
  if features.ndim != 3 or len(features) != len(records):
    raise ValueError(
      f'encode made {features.shape} of {len(records)} records: it must '
      'return one row of [L, D] for each'
    )
  with np.errstate(over='ignore'):  # Said more clearly below.
    half = features.astype(_DTYPE)
  if not np.isfinite(half).all():
    raise ValueError(
      'features are not finite in half precision (the largest is '
      f'{np.abs(features).max()}): scale them down'
    )
  return half
