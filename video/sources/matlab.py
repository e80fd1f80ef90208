"""Reads an array of numbers from a MATLAB file, version 5 to 7.

SciPy's reader ends the process on some damaged files. This one reads what
MATLAB's documentation of the format calls numeric arrays, and nothing else.
"""

import os
import pathlib
import struct
import zlib
from collections.abc import Iterator

import numpy as np

# Of a file, and inflated: 240 x 320 depths of 16 bits are 150 kB a frame.
_MAX_BYTES = 2**30
_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_INT8, _INT32, _UINT32 = 1, 5, 6
# Types of the stored numbers.
_STORED = {
  1: 'i1',
  2: 'u1',
  3: 'i2',
  4: 'u2',
  5: 'i4',
  6: 'u4',
  7: 'f4',
  9: 'f8',
  12: 'i8',
  13: 'u8',
}
# Classes of arrays -> the types of their values.
_CLASSES = {
  6: 'f8',
  7: 'f4',
  8: 'i1',
  9: 'u1',
  10: 'i2',
  11: 'u2',
  12: 'i4',
  13: 'u4',
  14: 'i8',
  15: 'u8',
}
_COMPLEX = 0x0800


def read(path: str | os.PathLike, name: str) -> np.ndarray | None:
  """The array of a variable; None if there is no such variable.

  Raises:
    OSError: the file cannot be opened.
    ValueError: it is no such file, or damaged; or the variable is something
      else than real numbers.
  """
  for found, order in _matrices(path):
    if found[2] == (_INT8, name.encode()):
      return _array(found, order)
  return None


def read_only(path: str | os.PathLike) -> np.ndarray:
  """The only array of real numbers in a file.

  Raises:
    OSError: the file cannot be opened.
    ValueError: it is no such file, or damaged; or it has none, or several.
  """
  arrays = {}
  for found, order in _matrices(path):
    try:
      arrays[found[2][1].decode('ascii', 'replace')] = _array(found, order)
    except ValueError:  # Text, a structure, or damaged.
      continue
  if len(arrays) != 1:
    names = ', '.join(list(arrays)[:20]) or 'none'
    raise ValueError(
      f'it must have one variable of real numbers, and has {names}'
    )
  (array,) = arrays.values()
  return array


def _matrices(
  path: str | os.PathLike,
) -> Iterator[tuple[list[tuple[int, bytes]], str]]:
  """The elements of each matrix with a name, and the order of its bytes."""
  with pathlib.Path(path).open('rb') as file:
    contents = file.read(_MAX_BYTES + 1)
  if len(contents) > _MAX_BYTES:
    raise ValueError(f'it is larger than {_MAX_BYTES} bytes')
  mark = contents[_HEADER - 2 : _HEADER]
  if mark not in (b'IM', b'MI'):
    raise ValueError('it is not a MATLAB file of version 5 to 7')
  order = '<' if mark == b'IM' else '>'
  for kind, body in _elements(contents[_HEADER:], order):
    if kind == _COMPRESSED:
      inflater = zlib.decompressobj()
      try:
        body = inflater.decompress(body, _MAX_BYTES)
      except zlib.error as error:
        raise ValueError(f'it is damaged: {error}') from error
      if inflater.unconsumed_tail:
        raise ValueError(f'it inflates to more than {_MAX_BYTES} bytes')
      kind, body = next(_elements(body, order), (0, b''))
    if kind == _MATRIX:
      found = list(_elements(body, order))
      if len(found) > 2:
        yield found, order


def _elements(contents: bytes, order: str) -> Iterator[tuple[int, bytes]]:
  """The type and the contents of each element; these are padded to 8 bytes."""
  position = 0
  while position < len(contents):
    if position + 8 > len(contents):
      raise ValueError('it is cut off')
    kind, size = struct.unpack_from(order + 'II', contents, position)
    start, padded = position + 8, True
    if kind >> 16:  # At most four bytes are stored in the tag.
      kind, size, start = kind & 0xFFFF, kind >> 16, position + 4
      if size > 4:
        raise ValueError('it is damaged')
      position += 8
    else:
      # Compressed elements are not padded.
      padded = kind != _COMPRESSED
      position = start + (-(-size // 8) * 8 if padded else size)
    if start + size > len(contents):
      raise ValueError('it is cut off')
    yield kind, contents[start : start + size]


def _array(found: list[tuple[int, bytes]], order: str) -> np.ndarray:
  """The values of a matrix: flags, dimensions, name and real part."""
  if len(found) < 4 or found[0][0] != _UINT32 or len(found[0][1]) != 8:
    raise ValueError('the variable is damaged')
  (flags,) = struct.unpack_from(order + 'I', found[0][1])
  kind, stored = flags & 0xFF, _STORED.get(found[3][0])
  if kind not in _CLASSES or flags & _COMPLEX or stored is None:
    raise ValueError('the variable is something else than real numbers')
  if found[1][0] != _INT32 or len(found[1][1]) % 4:
    raise ValueError('the variable has no dimensions')
  shape = np.frombuffer(found[1][1], order + 'i4').tolist()
  try:
    values = np.frombuffer(found[3][1], order + stored)
    values = values.reshape(shape, order='F') if min(shape) > 0 else None
  except ValueError as error:
    raise ValueError(f'the variable is damaged: {error}') from error
  if values is None:
    raise ValueError(f'the variable is empty: {shape}')
  return values.astype(_CLASSES[kind])
