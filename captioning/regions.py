"""Features of regions that a detector found, from the files they come in.

Bottom-up attention (Anderson et al. 2018) describes an image by 10 to 100
regions of 2,048 features each. Two kinds of files hold such features:

  *.tsv            as its authors published them: image_id, image_w, image_h,
                   num_boxes, boxes and features, the last two as base64 of
                   float32
  ID.npz, ID.npy   one file per image, an array `feat` [N, D] or an array

They are checked as a whole, and then written beside the data set, a cache of
`features.py` for each split.

Axes: N regions of one image, D features.
"""

import base64
import collections
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from captioning import data
from training import array_files
from training import checkpoints
from training import console
from training import directories
from training import features
from training import text_files

SPLITS = ('train', 'validation', 'test')

_INDEX = 'regions.json'
_COLUMNS = 6
_SHARD_SIZE = 512  # Images; at most these are lost when writing is stopped.
_MAX_LISTED = 20
# A line of a .tsv: 100 regions of 2048 features in base64 are 1.1 MB.
_MAX_LINE = 100_000_000


def prepare(
  name: str,
  regions: str,
  inputs: Sequence[str | os.PathLike],
  data_dir: str | os.PathLike | None = None,
) -> pathlib.Path:
  """Writes the features of all images of a data set, in its order.

  Every input is read twice, and never more than one image is in memory.
  Regions of images that the data set does not have are left out.

  Args:
    name: of the data set.
    regions: the name that these features get.
    inputs: files `.tsv`, or directories of `ID.npz` and `ID.npy`.
    data_dir: where TFDS keeps its data sets; None is its own default.

  Returns:
    The directory that holds them.

  Raises:
    ValueError: one that lists all that is wrong or missing, or other regions
      have this name.
  """
  directory = _directory(name, regions, data_dir)
  ids = {
    split: [record['id'] for record in data.open_split(name, split, data_dir)]
    for split in SPLITS
  }
  try:
    entries, digest = _check(inputs, ids)
  except ValueError as error:
    raise ValueError(f'{name} gets no regions {regions!r}. {error}') from error
  fingerprint = data.fingerprint(name, data_dir)
  index = {
    'data': fingerprint,
    'fingerprint': hashlib.sha256(
      f'{fingerprint} {digest}'.encode()
    ).hexdigest()[:16],
  }
  path = directory / _INDEX
  if path.exists() and text_files.read_json(path) != index:
    raise ValueError(
      f'{directory} holds other regions, or those of other images: delete '
      'it, or choose another name'
    )
  for split in SPLITS:
    features.write(
      ids[split],
      lambda batch: [entries[i].load() for i in batch],
      directory / split,
      batch_size=1,
      shard_size=_SHARD_SIZE,
      fingerprint=index['fingerprint'],
      max_locations=max(entry.count for entry in entries.values()),
    )
  checkpoints.write_json(path, index)
  return directory


def open_split(
  name: str,
  regions: str,
  split: str,
  data_dir: str | os.PathLike | None = None,
) -> features.Features:
  """The features that `prepare` wrote, in the order of the split.

  Raises:
    ValueError: there are none by this name, or they are of other images.
  """
  directory = _directory(name, regions, data_dir)
  path = directory / _INDEX
  if not path.exists():
    raise ValueError(
      f'{name} has no regions {regions!r}: import them with\n'
      f'  python scripts/import_regions.py --name={name} '
      f'--regions={regions} --input ...'
    )
  index = text_files.read_json(path)
  if index['data'] != data.fingerprint(name, data_dir):
    raise ValueError(
      f'{directory} holds regions of other images than {name} has now: '
      'delete it, and import them again'
    )
  return features.open_features(
    directory / split, fingerprint=index['fingerprint']
  )


def _directory(name: str, regions: str, data_dir) -> pathlib.Path:
  if not re.fullmatch(r'[A-Za-z0-9][\w-]*', regions, re.ASCII):
    raise ValueError(
      f'regions={regions!r} must be letters, digits, underscores and hyphens'
    )
  return data.directory(name, data_dir) / f'regions-{regions}'


@dataclasses.dataclass(frozen=True)
class _Found:
  """The features of one image in a file."""

  id: str
  source: str  # A path, and the line of a .tsv: for errors.
  read: Callable[[], np.ndarray]  # Raises a ValueError.


@dataclasses.dataclass(frozen=True)
class _Entry:
  """Features that were checked."""

  found: _Found
  count: int  # N.
  digest: bytes

  def load(self) -> np.ndarray:
    """f16[N, D]."""
    return features.to_half(self.found.read())


def _check(
  inputs: Sequence[str | os.PathLike], ids: Mapping[str, Sequence[str]]
) -> tuple[dict[str, _Entry], str]:
  """Reads all inputs once.

  Args:
    inputs: files and directories.
    ids: of the images of each split.

  Returns:
    The features by the id of the image, and a hash of them all.
  """
  wanted = {i for split in ids.values() for i in split}
  problems = collections.defaultdict(list)
  entries, bad, others, width = {}, set(), [], None
  with console.progress('Checking', total=len(wanted), unit='images') as update:
    for found in _found(inputs, problems):
      if found.id not in wanted:
        others.append(found.id)
        continue
      update(1)
      source = f'{found.source} (id {found.id})'
      try:
        rows = features.to_half(found.read())
      except ValueError as error:
        problems['features that cannot be used'].append(f'{source}: {error}')
        bad.add(found.id)
        continue
      width = width or rows.shape[1]
      if rows.shape[1] != width:
        problems[f'not {width} features wide like the first'].append(
          f'{source}: {rows.shape[1]}'
        )
      digest = hashlib.sha256(rows.tobytes()).digest()
      earlier = entries.setdefault(found.id, _Entry(found, len(rows), digest))
      if earlier.digest != digest:
        problems['other features of the same image'].append(
          f'{source}: first in {earlier.found.source}'
        )
  for split, split_ids in ids.items():
    missing = [i for i in split_ids if i not in entries and i not in bad]
    if missing:
      problems[f'images of {split} without features'] = missing
  if problems:
    lines = ['Correct these problems:']
    for problem, items in problems.items():
      lines.append(f'{problem} ({len(items)}):')
      lines += [f'  {item}' for item in items[:_MAX_LISTED]]
      if len(items) > _MAX_LISTED:
        lines.append(f'  and {len(items) - _MAX_LISTED} more')
    if others:  # Then perhaps the ids are of another kind.
      lines.append(
        f'There are features of {len(others)} others, such as '
        f'{", ".join(others[:5])}.'
      )
    raise ValueError('\n'.join(lines))
  digest = hashlib.sha256(json.dumps([*ids.items(), width]).encode())
  for split_ids in ids.values():
    for i in split_ids:
      digest.update(entries[i].digest)
  return entries, digest.hexdigest()


def _found(inputs, problems) -> Iterator[_Found]:
  """All features of all inputs; nothing is decoded yet."""
  for path in map(pathlib.Path, inputs):
    if path.is_dir():
      for file in directories.entries(path):
        if file.suffix in ('.npz', '.npy'):
          read = functools.partial(_read_numpy, file)
          yield _Found(file.stem, str(file), read)
    elif path.is_file():
      yield from _found_lines(path, problems)
    else:
      raise ValueError(
        f'{path} does not exist: pass files .tsv, or a directory of ID.npz'
      )


def _found_lines(path: pathlib.Path, problems) -> Iterator[_Found]:
  """The features of each line, by the position of their bytes."""
  start = number = 0
  with path.open('rb') as file:
    # A megabyte each. Neither numbers nor base64 are ever quoted.
    while line := file.readline(_MAX_LINE + 1):
      number += 1
      if len(line) > _MAX_LINE:
        raise ValueError(
          f'{path}: line {number} is longer than {_MAX_LINE} bytes'
        )
      source = f'{path}, line {number}'
      content = line.rstrip(b'\r\n')
      fields = content.split(b'\t')
      stop = start + len(content)
      if len(fields) == _COLUMNS:
        encoded = fields[-1]
        read = functools.partial(
          _read_line, path, stop - len(encoded), stop, fields[3]
        )
        yield _Found(fields[0].decode(errors='replace'), source, read)
      elif content:
        problems[f'lines that have not {_COLUMNS} columns'].append(
          f'{source}: {len(fields)}'
        )
      start += len(line)


def _read_line(
  path: pathlib.Path, start: int, stop: int, num_boxes: bytes
) -> np.ndarray:
  """f32[N, D] from the bytes of a file that hold them."""
  with path.open('rb') as file:
    file.seek(start)
    encoded = file.read(stop - start)
  flat = np.frombuffer(base64.b64decode(encoded, validate=True), '<f4')
  count = int(num_boxes[:20])
  if count < 1 or not flat.size or flat.size % count:
    raise ValueError(f'{flat.size} features of {count} regions')
  return flat.reshape(count, -1)


def _read_numpy(path: pathlib.Path) -> np.ndarray:
  """f[N, D] of a file that could hold anything."""
  try:
    array = array_files.read(path, 'feat')
  except (OSError, ValueError) as error:
    raise ValueError(str(error).removeprefix(f'{path}: ')) from error
  if array.ndim != 2 or not array.size or array.dtype.kind != 'f':
    raise ValueError(f'{array.dtype}{list(array.shape)} is not float [N, D]')
  return array
