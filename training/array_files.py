"""Reads .npy and .npz files of numbers, with limits on what they inflate to.

NumPy allocates what a header asks for, and inflates whatever a .npz holds; a
file of some kilobytes can take all memory that way. Pickled objects are not
read, but for arrays of arrays; see `sketch_rnn.arrays`.
"""

import io
import math
import os
import pathlib
import zipfile
from collections.abc import Collection

import numpy as np

from training import text_files

# Of one file, inflated. The largest known is 180 MB: the depth of UTD-MHAD.
MAX_BYTES = 2**30
# Arrays in a file. Published ones have up to 500.
_MAX_MEMBERS = 10_000
# The axes of an array without elements; loops run over them.
_MAX_EMPTY = 10_000
# Those that NumPy writes; others are never needed.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_npz(
  path: str | os.PathLike, names: Collection[str] | None = None
) -> dict[str, np.ndarray]:
  """The arrays of an .npz file by name, read-only.

  Args:
    path: of the file.
    names: of the arrays to read, as far as they are there; None for all.

  Raises:
    OSError: the file cannot be opened.
    ValueError: it is damaged or too large, or an array is not of numbers or
      texts. The message names the file and the array.
  """
  arrays = {}
  for name, contents in members(path, names).items():
    try:
      arrays[name] = from_npy(contents)
    except ValueError as error:
      raise ValueError(f'{os.fspath(path)}: array {name!r}: {error}') from error
  return arrays


def read_npy(path: str | os.PathLike) -> np.ndarray:
  """The array of a .npy file, read-only; raises as `read_npz`."""
  path = pathlib.Path(path)
  with path.open('rb') as file:
    contents = file.read(MAX_BYTES + 1)
  if len(contents) > MAX_BYTES:
    raise ValueError(f'{path} is larger than {MAX_BYTES} bytes')
  try:
    return from_npy(contents)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error


def read(
  path: str | os.PathLike, name: str, *, alone: bool = False
) -> np.ndarray:
  """The array of a .npy file, or the array `name` of an .npz file.

  Args:
    path: of the file.
    name: of the array.
    alone: read an array of any name if it is the only one.

  Raises as `read_npz`, and a ValueError if there is no such array.
  """
  with open(path, 'rb') as file:
    zipped = file.read(2) == b'PK'
  if not zipped:
    return read_npy(path)
  present = _names(path)
  if alone and len(present) == 1:
    name = present[0]
  if name not in present:
    raise ValueError(
      f'{os.fspath(path)}: no array {name!r}, only '
      f'{", ".join(present[:20]) or "nothing"}'
    )
  return read_npz(path, (name,))[name]


def members(
  path: str | os.PathLike, names: Collection[str] | None = None
) -> dict[str, bytes]:
  """The contents of the members of an .npz file, by the name of the array.

  Raises as `read_npz`.
  """
  found, left = {}, MAX_BYTES
  try:
    with zipfile.ZipFile(path) as archive:
      for info in _check(archive):
        name = info.filename.removesuffix('.npy')
        if names is not None and name not in names:
          continue
        # The size in the directory of the archive may be false.
        with archive.open(info) as file:
          contents = file.read(left + 1)
        left -= len(contents)
        if left < 0:
          raise ValueError(f'it inflates to more than {MAX_BYTES} bytes')
        found[name] = contents
  except FileNotFoundError:
    raise
  except Exception as error:  # Damaged archives raise almost anything.
    raise ValueError(
      f'{os.fspath(path)} is not an .npz file, or damaged: '
      f'{text_files.reason(error)}'
    ) from error
  return found


def _names(path) -> list[str]:
  try:
    with zipfile.ZipFile(path) as archive:
      return [i.filename.removesuffix('.npy') for i in _check(archive)]
  except Exception as error:
    raise ValueError(
      f'{os.fspath(path)} is not an .npz file, or damaged: '
      f'{text_files.reason(error)}'
    ) from error


def _check(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
  """The members, none of which NumPy could not have written."""
  infos = archive.infolist()
  if len(infos) > _MAX_MEMBERS:
    raise ValueError(f'it has more than {_MAX_MEMBERS} members')
  for info in infos:
    if info.compress_type not in _METHODS:
      raise ValueError(
        f'{info.filename} is compressed by method {info.compress_type}: save '
        'it with numpy.savez or numpy.savez_compressed'
      )
  return infos


def header(contents: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
  """The shape, the order (column-major?), the type and the start of the data.

  Raises:
    ValueError: it is no .npy file.
  """
  file = io.BytesIO(contents)
  try:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
      shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    else:
      shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
  except Exception as error:  # It evaluates a text of the file.
    raise ValueError(f'not a .npy file: {text_files.reason(error)}') from error
  return shape, fortran, dtype, file.tell()


def from_npy(contents: bytes) -> np.ndarray:
  """The array of numbers or texts in the contents of a .npy file, read-only.

  Raises:
    ValueError: it is damaged, or holds something else.
  """
  shape, fortran, dtype, start = header(contents)
  if dtype.kind not in 'biufcUS' or not dtype.itemsize:
    raise ValueError(f'elements of type {dtype} instead of numbers or texts')
  size = math.prod(shape) * dtype.itemsize
  if any(n < 0 for n in shape) or size != len(contents) - start:
    raise ValueError(
      f'its header says {dtype}{list(shape)}, which is not the '
      f'{len(contents) - start} bytes that follow'
    )
  check_axes(shape)
  try:
    array = np.frombuffer(contents, dtype, math.prod(shape), start)
    return array.reshape(shape, order='F' if fortran else 'C')
  except ValueError as error:  # More than 64 axes.
    raise ValueError(f'its header says {dtype}: {error}') from error


def check_axes(shape: tuple[int, ...]):
  """Checks that an array without elements is not a billion empty rows.

  Raises:
    ValueError: it is.
  """
  if 0 in shape and max(shape) > _MAX_EMPTY:
    raise ValueError(f'{list(shape)} is an array of empty rows')
