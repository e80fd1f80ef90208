"""Reads pickled numpy arrays of numbers without running what is in a pickle.

The published .npz files hold arrays of arrays, which numpy can only pickle, and
a pickle may call any function of any module. Here the few names that an array
needs are replaced by inert records of this module; every other name is refused.
The arrays are then made from the recorded bytes, so that nothing in the file
decides how numpy lays out memory either.
"""

import codecs
import dataclasses
import io
import os
import pickle
import re
import zipfile
from typing import Any

import numpy as np

_NUMBERS = re.compile(r'[biuf](1|2|4|8)')  # Types whose bytes are only numbers.
_ARRAY = object()  # Replaces the class numpy.ndarray.


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads the arrays of an .npz file, by name.

  An array of objects stays one; its elements are arrays of numbers, or the
  plain Python objects that were in the file.

  Raises:
    ValueError: the file is no .npz file, or a pickle in it needs more than
      arrays. The message names the file, the array and the name needed.
  """
  try:
    with zipfile.ZipFile(path) as archive:
      members = {name: archive.read(name) for name in archive.namelist()}
  except zipfile.BadZipFile as error:
    raise ValueError(
      f'{os.fspath(path)} is not an .npz file: {error}'
    ) from error
  arrays = {}
  for member, contents in members.items():
    name = member.removesuffix('.npy')
    try:
      arrays[name] = _read_npy(io.BytesIO(contents))
    except Exception as error:  # A broken pickle may raise almost anything.
      raise ValueError(f'{os.fspath(path)}: array {name!r}: {error}') from error
  return arrays


def _read_npy(file: io.BytesIO) -> np.ndarray:
  version = np.lib.format.read_magic(file)
  if version == (1, 0):
    header = np.lib.format.read_array_header_1_0(file)
  else:
    header = np.lib.format.read_array_header_2_0(file)
  shape, _, dtype = header
  if not dtype.hasobject:
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)
  # Files of Python 2 hold bytes as strings.
  pickled = _Unpickler(file, encoding='latin1').load()
  if not isinstance(pickled, _Array):
    raise ValueError(f'a pickled {type(pickled).__name__}, not an array')
  return pickled.value().reshape(shape)


class _Unpickler(pickle.Unpickler):
  """Resolves the names in the pickle of an array, and no others."""

  def find_class(self, module: str, name: str) -> Any:
    """The replacement of `module.name`."""
    if (module, name) == ('numpy', 'ndarray'):
      return _ARRAY
    if (module, name) == ('numpy', 'dtype'):
      return _Dtype
    if (module, name) in (
      ('numpy.core.multiarray', '_reconstruct'),
      ('numpy._core.multiarray', '_reconstruct'),
    ):
      return _reconstruct
    if (module, name) == ('_codecs', 'encode'):
      return _encode
    raise ValueError(
      f'the pickle needs {module}.{name}; only arrays of numbers are read, '
      'because a pickle can run any program. Do not trust this file'
    )


class _Dtype:
  """Replaces a numpy.dtype of numbers or of Python objects."""

  def __init__(self, name: str, align: Any = False, copy: Any = True):
    del align, copy
    if not isinstance(name, str) or not (
      name in ('O', 'O8', 'O4') or _NUMBERS.fullmatch(name)
    ):
      raise ValueError(f'elements of type {name!r}, not numbers')
    self.name = name
    self.order = '='

  def __setstate__(self, state: tuple):
    order = state[1]
    if order not in ('<', '>', '|', '='):
      raise ValueError(f'byte order {order!r}')
    self.order = order

  @property
  def holds_objects(self) -> bool:
    return self.name.startswith('O')


@dataclasses.dataclass
class _Array:
  """Replaces an array until all of the pickle is read."""

  state: tuple | None = None

  def __setstate__(self, state: tuple):
    self.state = state

  def value(self, *, outermost: bool = True) -> np.ndarray:
    """The array that was pickled, and those that are its elements."""
    if self.state is None:
      raise ValueError('an array without contents')
    _, shape, dtype, column_major, contents = self.state
    order = 'F' if column_major else 'C'
    if not isinstance(dtype, _Dtype):
      raise ValueError('an array without a type')
    if not dtype.holds_objects:
      if isinstance(contents, str):
        contents = contents.encode('latin1')
      array = np.frombuffer(contents, np.dtype(dtype.order + dtype.name))
      return array.reshape(shape, order=order)
    array = np.empty(len(contents), object)
    for i, element in enumerate(contents):
      if isinstance(element, _Array):
        if not outermost:
          raise ValueError('arrays within arrays within arrays')
        element = element.value(outermost=False)
      array[i] = element
    return array.reshape(shape, order=order)


def _reconstruct(*arguments) -> _Array:
  if len(arguments) != 3 or arguments[0] is not _ARRAY:
    raise ValueError('an array of an unknown class')
  return _Array()


def _encode(text: str, encoding: str) -> bytes:
  """Replaces codecs.encode, with which protocol 2 stores bytes."""
  if encoding != 'latin1':
    raise ValueError(f'bytes spelled in {encoding!r} instead of latin1')
  return codecs.encode(text, 'latin1')
