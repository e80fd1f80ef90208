"""Reads pickled numpy arrays of numbers without running what is in a pickle.

The published .npz files hold arrays of arrays, which numpy can only pickle, and
a pickle may call any function of any module. Here the few names that an array
needs are replaced by inert records of this module; every other name is refused.
The arrays are then made from the recorded bytes, so that nothing in the file
decides how numpy lays out memory either.
"""

import codecs
import io
import math
import os
import pickle
import re
from typing import Any

import numpy as np

from training import array_files

_NUMBERS = re.compile(r'[biuf](1|2|4|8)')  # Types whose bytes are only numbers.
_ARRAY = object()  # Replaces the class numpy.ndarray.
# Elements and bytes of the arrays of a pickle, over its length. They are equal
# but where an array is an element more than once.
_MAX_RATIO = 4
_MIN_BUDGET = 2**24  # For small pickles with one array in many places.


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads the arrays of an .npz file, by name.

  An array of objects stays one; its elements are arrays of numbers, or the
  plain Python objects that were in the file.

  Raises:
    ValueError: the file is no .npz file, or a pickle in it needs more than
      arrays. The message names the file, the array and the name needed.
  """
  arrays = {}
  for name, contents in array_files.members(path).items():
    try:
      arrays[name] = _read_npy(contents)
    except Exception as error:  # A broken pickle may raise almost anything.
      raise ValueError(f'{os.fspath(path)}: array {name!r}: {error}') from error
  return arrays


def _read_npy(contents: bytes) -> np.ndarray:
  shape, _, dtype, start = array_files.header(contents)
  if not dtype.hasobject:
    return array_files.from_npy(contents)
  pickled = contents[start:]
  _check_opcodes(pickled)
  # Files of Python 2 hold bytes as strings.
  array = _Unpickler(io.BytesIO(pickled), encoding='latin1').load()
  if not isinstance(array, _Array):
    raise ValueError(f'a pickled {type(array).__name__}, not an array')
  value = array.value(_Budget(max(_MIN_BUDGET, _MAX_RATIO * len(pickled))))
  if value.size != math.prod(shape):
    raise ValueError(
      f'{value.size} elements, which do not reshape to {list(shape)}'
    )
  array_files.check_axes(shape)
  return value.reshape(shape)


# The bytes of an argument by the opcode. Negative: its length is in so many
# bytes in front of it; 0 for those that have none.
_SIZES = [0] * 256
_LINES = frozenset(b'ILSVFgpP')  # The argument is a line.
_TWO_LINES = frozenset(b'ci')
for _code, _size in {
  'J': 4,
  'K': 1,
  'M': 2,
  '\x8a': -1,
  '\x8b': -4,
  'T': -4,
  'U': -1,
  'B': -4,
  'C': -1,
  '\x8e': -8,
  '\x96': -8,
  '\x8c': -1,
  'X': -4,
  '\x8d': -8,
  'G': 8,
  'h': 1,
  'j': 4,
  'q': 1,
  'r': 4,
  '\x82': 1,
  '\x83': 2,
  '\x84': 4,
  '\x80': 1,
  '\x95': 8,
}.items():
  _SIZES[ord(_code)] = _size
_MEMOIZE, _STOP, _PUT = 0x94, ord('.'), ord('p')
_PUTS = frozenset(b'pqr')


def _check_opcodes(pickled: bytes):
  """Checks the indices of the memo, a list that grows to the largest of them.

  Pickle counts them up: one that is larger than their number so far is forged.

  Raises:
    ValueError: there is such an index, or the pickle is cut off.
  """
  position, count, end = 0, 0, len(pickled)
  while position < end:
    code = pickled[position]
    position += 1
    size = _SIZES[code]
    start = position
    if code in _LINES or code in _TWO_LINES:
      for _ in range(1 + (code in _TWO_LINES)):
        position = pickled.find(b'\n', position) + 1
        if not position:
          raise ValueError('the pickle is cut off')
    elif size < 0:
      length = int.from_bytes(pickled[position : position - size], 'little')
      position += length - size
    else:
      position += size
    if code in _PUTS:
      argument = pickled[start:position]
      index = (
        int(argument) if code == _PUT else int.from_bytes(argument, 'little')
      )
      if not 0 <= index <= count + 1:
        raise ValueError(f'the pickle has a forged index: {index}')
      count += 1
    elif code == _MEMOIZE:
      count += 1
    elif code == _STOP:
      return
  raise ValueError('the pickle is cut off')


class _Budget:
  """Counts the elements and the bytes of arrays, wherever they are used."""

  def __init__(self, size: int):
    """Sets the maximum number of both."""
    self._left = size

  def take(self, size: int):
    """Counts some more."""
    self._left -= size
    if self._left < 0:
      raise ValueError('an array is in it too often')


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
      # A new function each time, since a pickle can change its attributes.
      return lambda *arguments: _reconstruct(*arguments)
    if (module, name) == ('_codecs', 'encode'):
      return lambda *arguments: _encode(*arguments)
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


class _Array:
  """Replaces an array until all of the pickle is read."""

  def __init__(self):
    """Without contents, which `__setstate__` brings."""
    self._state: tuple | None = None
    self._value: np.ndarray | None = None

  def __setstate__(self, state: tuple):
    self._state = state

  def value(self, budget: _Budget, *, outermost: bool = True) -> np.ndarray:
    """The array that was pickled, and those that are its elements."""
    if self._value is None:
      self._value = self._make(budget, outermost)
    else:
      budget.take(self._value.nbytes)
    return self._value

  def _make(self, budget: _Budget, outermost: bool) -> np.ndarray:
    if self._state is None:
      raise ValueError('an array without contents')
    _, shape, dtype, column_major, contents = self._state
    order = 'F' if column_major else 'C'
    if not isinstance(dtype, _Dtype):
      raise ValueError('an array without a type')
    array_files.check_axes(shape)
    budget.take(len(contents))
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
        element = element.value(budget, outermost=False)
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
