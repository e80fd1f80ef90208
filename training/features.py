"""Features of pictures, computed once and read many times.

They are grids of a frozen encoder, all of one size, or the regions that a
detector found, some more of them in one picture than in another.

A cache is a directory of ArrayRecord shards, record by record in the order of
the pictures, and `features.json`, which is written last. Shards of another
encoder, of other data or of another size have other names and are never mixed.

Axes: B batch, L locations, N locations of one picture where they vary in
number, D features.
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

  def __init__(
    self,
    paths: Sequence[str],
    shape: tuple[int | None, int],
    max_locations: int | None = None,
  ):
    """Takes the shards in order and what every record is like.

    Args:
      paths: of the shards.
      shape: (L, D), or (None, D) where the number of locations varies.
      max_locations: the largest that may occur then; otherwise None.
    """
    self._source = array_record_data_source.ArrayRecordDataSource(paths)
    self.shape = shape
    self.max_locations = max_locations
    locations, width = shape
    self._rows = (-1 if locations is None else locations, width)

  def __len__(self) -> int:
    """The number of pictures."""
    return len(self._source)

  def __getitem__(self, index: int) -> np.ndarray:
    """The features of picture `index`: f16[L, D] or [N, D], read-only."""
    if not 0 <= index < len(self):
      raise IndexError(index)  # Which ends a loop over all.
    return np.frombuffer(self._source[index], _DTYPE).reshape(self._rows)


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

  Of several processes each writes its share of the shards, and the one that
  finishes last completes the cache: wait for all of them before it is opened.

  Args:
    source: records in the order in which the features will be read.
    encode: list of at most `batch_size` records -> f16 or f32[B, L, D], or with
      `max_locations` a list of B arrays f[N, D].
    directory: of this cache alone.
    batch_size: the number of records to encode at once.
    fingerprint: says which encoder and which data the features come from.
    max_locations: no picture has more, and one may have fewer. By default all
      have equally many.
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
          batch, batch_shape = _encode(
            encode, [source[i] for i in range(start, stop)], max_locations
          )
          if shape not in (None, batch_shape):
            raise ValueError(
              f'encode made {batch_shape} of some records and {shape} of '
              'others: give all pictures one size'
            )
          shape = batch_shape
          for grid in batch:
            writer.write(grid.tobytes())
          progress.update(len(batch))
        writer.close()
  if any(_count(path) != len(records) for path, records in shards.items()):
    return  # Another process still writes.
  if shape is None:
    if (directory / _INDEX).exists():
      return
    _, shape = _encode(encode, [source[0]], max_locations)
  index = {
    'fingerprint': fingerprint,
    'dtype': _DTYPE.str,
    'shape': list(shape),
    'max_locations': max_locations,
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
  return Features(
    [str(path) for path in paths],
    tuple(index['shape']),
    # The oldest indices have no such field, and as many locations for all.
    index.get('max_locations', index.get('most_locations')),
  )


def to_half(features: np.ndarray) -> np.ndarray:
  """f[...] -> f16[...].

  Raises:
    ValueError: what is not finite then.
  """
  with np.errstate(over='ignore'):  # Said more clearly below.
    half = features.astype(_DTYPE)
  if not np.isfinite(half).all():
    raise ValueError(
      'features are not finite in half precision (the largest is '
      f'{np.abs(features).max()}): scale them down'
    )
  return half


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
        f'encode made {shapes} of {len(records)} records: it must return '
        f'[N, D] for each, at most {max_locations} rows of one width'
      )
    (width,) = widths.pop()
    return [to_half(np.asarray(rows)) for rows in features], (None, width)
  features = np.asarray(features)
  if features.ndim != 3 or len(features) != len(records):
    raise ValueError(
      f'encode made {features.shape} of {len(records)} records: it must '
      'return one row of [L, D] for each'
    )
  return to_half(features), features.shape[1:]
