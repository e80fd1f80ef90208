"""Reads PyTorch's checkpoints without PyTorch, and without running any of them.

A checkpoint is a pickle: a program that may call any function. Here a machine
of our own executes its instructions, and it has no calls. Dictionaries, lists,
tensors and storages become what they are; every other object is a `Record` of
the name and the arguments that the file gives. Nothing is imported.

Read are the zip files of PyTorch from 1.6 on, the files before (five pickles,
then the storages), and plain pickles. Whole modules are records, whose
tensors `tensors` collects. Storages are read when an array is asked for: what a
file has besides, such as the moments of an optimizer, costs nothing.
"""

import dataclasses
import math
import mmap
import os
import pathlib
import pickletools
import zipfile
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

# Infos of COCO, with the numbers of all images, have about 700,000.
_MAX_OPCODES = 10_000_000
_MAX_PICKLE_BYTES = 2**28
_MAX_MEMBERS = 100_000  # Modules and tensors; known checkpoints have 2,000.
_MAX_AXES = 8
_MAX_NAME = 500  # Characters.
_MAX_ARGUMENTS = 1000
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_TYPES = {
  'Double': np.dtype('<f8'),
  'Float': np.dtype('<f4'),
  'Half': np.dtype('<f2'),
  'BFloat16': np.dtype(jnp.bfloat16),
  'Long': np.dtype('<i8'),
  'Int': np.dtype('<i4'),
  'Short': np.dtype('<i2'),
  'Char': np.dtype('i1'),
  'Byte': np.dtype('u1'),
  'Bool': np.dtype('?'),
}
_TENSOR = ('torch._utils._rebuild_tensor', 'torch._utils._rebuild_tensor_v2')
_PARAMETER = (
  'torch._utils._rebuild_parameter',
  'torch._utils._rebuild_parameter_with_state',
  'torch.nn.parameter.Parameter',
  'torch.autograd.variable.Variable',
)
_OBJECT = ('copy_reg._reconstructor', 'copyreg._reconstructor')
_NEW = ('copy_reg.__newobj__', 'copyreg.__newobj__')


@dataclasses.dataclass(eq=False)
class Record:
  """Stands for an object of a class, or for the result of a function.

  Attributes:
    name: of the class or function, with its module.
    arguments: of the call.
    state: the attributes of the object, as far as the file sets them.
    elements: appended to the object, if it is a list.
    items: set in the object, if it is a dictionary.
  """

  name: str
  arguments: tuple = ()
  state: Any = None
  elements: list = dataclasses.field(default_factory=list)
  items: dict = dataclasses.field(default_factory=dict)

  def __repr__(self):
    """The name alone: a record may hold itself."""
    return f'<{self.name}>'


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class _Global:
  """A class or function that is named, but not called."""

  name: str


@dataclasses.dataclass(eq=False, repr=False)
class Storage:
  """Numbers of one type, which tensors share.

  Attributes:
    dtype: their type.
    size: their number.
    read: returns them, f[size].
  """

  dtype: np.dtype
  size: int
  read: Callable[[], np.ndarray] | None = None


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Tensor:
  """A part of a storage.

  Attributes:
    storage: with the numbers.
    offset: of the first.
    shape: of the tensor.
    strides: in numbers.
  """

  storage: Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]

  def array(self) -> np.ndarray:
    """Reads the numbers; read-only."""
    numbers = self.storage.read()[self.offset :]
    item = numbers.itemsize
    return np.lib.stride_tricks.as_strided(
      numbers, self.shape, [item * n for n in self.strides], writeable=False
    )


def load(path: str | os.PathLike) -> Any:
  """The contents of a checkpoint or of a pickle.

  Raises:
    OSError: the file cannot be opened.
    ValueError: it is damaged or has another format; the message says which.
  """
  path = pathlib.Path(path)
  with path.open('rb') as file:
    if not path.stat().st_size:
      raise ValueError(f'{path} is empty: download it again')
    contents = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
  try:
    if contents[:2] == b'PK':
      return _load_zip(path)
    return _load_pickles(contents)
  # What a damaged file leads to may be almost anything.
  except Exception as error:
    reason = str(error) if type(error) is ValueError else repr(error)
    raise ValueError(
      f'{path} is not a checkpoint of PyTorch or a pickle, or damaged: {reason}'
    ) from error


def tensors(contents: Any) -> dict[str, Tensor]:
  """The tensors of a state dict, or of a whole module, by their names.

  A name has the names of the modules in it: 'layer1.0.conv1.weight'. A prefix
  'module.' of all, which training on several devices adds, is left out.

  Raises:
    ValueError: the contents are neither.
  """
  if isinstance(contents, dict) and isinstance(
    contents.get('state_dict'), dict
  ):
    contents = contents['state_dict']
  found = {}
  if isinstance(contents, Record):
    found = dict(_of_module(contents))
  elif isinstance(contents, dict):
    found = {
      name: x
      for name, x in contents.items()
      if isinstance(name, str) and isinstance(x, Tensor)
    }
  if not found:
    raise ValueError(
      'no tensors: use a state dict, or a module that was saved whole'
    )
  if all(name.startswith('module.') for name in found):
    found = {name.removeprefix('module.'): x for name, x in found.items()}
  return found


def _of_module(module: Record) -> Iterator[tuple[str, Tensor]]:
  """Yields the parameters and buffers of a module and of those in it."""
  waiting, count = [('', module)], 0
  while waiting:
    prefix, module = waiting.pop()
    state = module.state
    if not isinstance(state, dict):
      continue
    for name, x in _members(state):
      count += 1  # One module may be in many.
      if count > _MAX_MEMBERS or len(prefix) > _MAX_NAME:
        raise ValueError('it has too many modules, or one is in itself')
      if isinstance(x, Tensor):
        yield f'{prefix}{name}', x
      elif isinstance(x, Record):
        waiting.append((f'{prefix}{name}.', x))


def _members(state: dict) -> Iterator[tuple[str, Any]]:
  for group in ('_parameters', '_buffers', '_modules'):
    members = state.get(group)
    if isinstance(members, dict):
      for name, x in members.items():
        if isinstance(name, str) and len(name) <= _MAX_NAME:
          yield name, x


# Files.


def _load_zip(path: pathlib.Path) -> Any:
  """`ARCHIVE/data.pkl`, and `ARCHIVE/data/KEY` for each storage."""
  with zipfile.ZipFile(path) as archive:
    infos = {info.filename: info for info in archive.infolist()}
    names = [name for name in infos if name.count('/') == 1]
    names = [name for name in names if name.endswith('/data.pkl')]
    if len(names) != 1:
      raise ValueError(
        'a zip file without data.pkl: use the file that torch.save wrote'
      )
    if any(info.compress_type != zipfile.ZIP_STORED for info in infos.values()):
      raise ValueError(
        'its members are compressed, which torch.save never does'
      )
    root = names[0].removesuffix('data.pkl')
    order = infos.get(f'{root}byteorder')
    if order and order.file_size < 10 and archive.read(order) == b'big':
      raise ValueError('its numbers are big-endian: save it on another machine')
    if infos[names[0]].file_size > _MAX_PICKLE_BYTES:
      raise ValueError('its pickle is too large')
    pickled = archive.read(names[0])

  def find(key: str, storage: Storage):
    info = infos.get(f'{root}data/{key}')
    size = storage.size * storage.dtype.itemsize
    if info is None or info.file_size != size:
      raise ValueError(
        f'storage {key} has {info.file_size if info else 0} bytes instead of '
        f'{size}: download the file again'
      )

    def read():
      with zipfile.ZipFile(path) as again, again.open(info) as file:
        contents = file.read(size)
      if len(contents) != size:
        raise ValueError(f'{path}: storage {key} is cut off')
      return np.frombuffer(contents, storage.dtype)

    storage.read = read

  machine = _Machine()
  contents = machine.run(_Text(pickled))
  for key, storage in machine.storages.items():
    find(key, storage)
  return contents


def _load_pickles(contents: mmap.mmap) -> Any:
  """A plain pickle, or PyTorch's five and the storages behind them."""
  machine = _Machine()
  first = machine.run(contents)
  if first != _MAGIC:
    if contents.tell() != len(contents) and contents.read(1).strip():
      raise ValueError('something follows the pickle')
    if machine.storages:
      raise ValueError('a pickle of tensors without their storages')
    return first
  if machine.run(contents) != _PROTOCOL:
    raise ValueError('an unknown version of the format')
  system = machine.run(contents)
  if isinstance(system, dict) and system.get('little_endian') is False:
    raise ValueError('its numbers are big-endian: save it on another machine')
  result = machine.run(contents)
  keys = machine.run(contents)
  if not isinstance(keys, list) or {*keys} != machine.storages.keys():
    raise ValueError('its list of storages is not that of its tensors')
  position = contents.tell()
  for key in keys:
    storage = machine.storages[key]
    count = int.from_bytes(contents[position : position + 8], 'little')
    position += 8
    end = position + count * storage.dtype.itemsize
    if count != storage.size or end > len(contents):
      raise ValueError(
        f'storage {key} has {count} numbers instead of {storage.size}, or is '
        'cut off: download the file again'
      )
    storage.read = lambda start=position, storage=storage: np.frombuffer(
      contents, storage.dtype, storage.size, start
    )
    position = end
  return result


class _Text:
  """Bytes with the methods of a file that the instructions are read by."""

  def __init__(self, contents: bytes):
    self._contents = contents
    self._position = 0

  def tell(self) -> int:
    return self._position

  def read(self, size: int) -> bytes:
    start = self._position
    self._position = min(start + size, len(self._contents))
    return self._contents[start : self._position]

  def readline(self) -> bytes:
    end = self._contents.find(b'\n', self._position) + 1
    return self.read((end or len(self._contents)) - self._position)


# The machine.

_MARK = object()
_PUSH = (
  *('INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1', 'LONG4', 'STRING'),
  *('BINSTRING', 'SHORT_BINSTRING', 'BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8'),
  *('BYTEARRAY8', 'UNICODE', 'SHORT_BINUNICODE', 'BINUNICODE', 'BINUNICODE8'),
  *('FLOAT', 'BINFLOAT'),
)
_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}
_PUTS = ('PUT', 'BINPUT', 'LONG_BINPUT', 'MEMOIZE')
_GETS = ('GET', 'BINGET', 'LONG_BINGET')
_IGNORED = ('PROTO', 'FRAME')


class _Machine:
  """Executes pickles, each instruction in constant time and memory.

  Attributes:
    storages: by key, of all pickles.
  """

  def __init__(self):
    self.storages: dict[str, Storage] = {}
    self._count = 0

  def run(self, file: Any) -> Any:
    """The object of the pickle that begins at the position of a file."""
    stack, marks, memo = [], [], {}
    start = file.tell()

    def pop():
      if marks and len(stack) <= marks[-1]:
        raise ValueError('a mark is popped')
      return stack.pop()

    def pop_mark():
      begin = marks.pop()
      taken = stack[begin:]
      del stack[begin:]
      return taken

    for opcode, argument, position in pickletools.genops(file):
      name = opcode.name
      self._count += 1
      if (
        self._count > _MAX_OPCODES
        or (position or 0) - start > _MAX_PICKLE_BYTES
      ):
        raise ValueError('its pickle is too long')
      if name in _PUSH:
        stack.append(argument)
      elif name in _PUTS:
        memo[len(memo) if argument is None else argument] = stack[-1]
      elif name in _GETS:
        stack.append(memo[argument])
      elif name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
      elif name == 'MARK':
        marks.append(len(stack))
      elif name in ('EMPTY_LIST', 'EMPTY_SET'):
        stack.append([])
      elif name == 'EMPTY_DICT':
        stack.append({})
      elif name == 'EMPTY_TUPLE':
        stack.append(())
      elif name in ('LIST', 'FROZENSET'):
        stack.append(pop_mark())
      elif name == 'TUPLE':
        stack.append(tuple(pop_mark()))
      elif name in ('TUPLE1', 'TUPLE2', 'TUPLE3'):
        values = [pop() for _ in range(int(name[-1]))]
        stack.append(tuple(values[::-1]))
      elif name == 'DICT':
        values = pop_mark()
        stack.append({})
        _set(stack[-1], values)
      elif name == 'APPEND':
        value = pop()
        _extend(stack[-1], [value])
      elif name in ('APPENDS', 'ADDITEMS'):
        values = pop_mark()
        _extend(stack[-1], values)
      elif name == 'SETITEM':
        value, key = pop(), pop()
        _set(stack[-1], [key, value])
      elif name == 'SETITEMS':
        values = pop_mark()
        _set(stack[-1], values)
      elif name == 'GLOBAL':
        stack.append(_named(*argument.split(' ', 1)))
      elif name == 'STACK_GLOBAL':
        attribute, module = pop(), pop()
        stack.append(_named(module, attribute))
      elif name in ('REDUCE', 'NEWOBJ'):
        arguments, function = pop(), pop()
        if isinstance(arguments, tuple) and arguments:
          if isinstance(arguments[0], list):  # The items of a dictionary.
            self._count += 4 * len(arguments[0])
        stack.append(_make(function, arguments))
      elif name == 'NEWOBJ_EX':
        _, arguments, function = pop(), pop(), pop()
        stack.append(_make(function, arguments))
      elif name == 'OBJ':
        function, *arguments = pop_mark()
        stack.append(_make(function, tuple(arguments)))
      elif name == 'INST':
        function = _named(*argument.split(' ', 1))
        stack.append(_make(function, tuple(pop_mark())))
      elif name == 'BUILD':
        state = pop()
        if isinstance(stack[-1], Record):
          stack[-1].state = state
      elif name == 'BINPERSID':
        stack.append(self._persistent(pop()))
      elif name == 'POP':
        pop()
      elif name == 'POP_MARK':
        pop_mark()
      elif name == 'DUP':
        stack.append(stack[-1])
      elif name == 'STOP':
        return pop()
      elif name not in _IGNORED:
        raise ValueError(
          f'the instruction {name}, which torch.save never writes'
        )
    raise ValueError('the pickle is cut off')

  def _persistent(self, identity: Any) -> Any:
    """The storage, or the class of a module, of a persistent identity."""
    if not isinstance(identity, tuple) or not identity:
      raise ValueError('an object outside of the pickle')
    kind, *rest = identity
    if kind == 'module' and rest and isinstance(rest[0], _Global):
      return rest[0]  # Its source code follows.
    if kind != 'storage' or len(rest) not in (4, 5):
      raise ValueError('an object outside of the pickle')
    cls, key, _, size, *view = rest
    if view and view[0] is not None:
      raise ValueError('a view of a storage: save the file with PyTorch 1.6')
    name = cls.name.removeprefix('torch.').removeprefix('cuda.')
    dtype = _TYPES.get(name.removesuffix('Storage'))
    if dtype is None or not name.endswith('Storage'):
      raise ValueError(f'numbers of type {cls.name}: save it as float32')
    if not isinstance(key, str) or not _is_count(size):
      raise ValueError('a storage without a key or a size')
    known = self.storages.setdefault(key, Storage(dtype, size))
    if (known.dtype, known.size) != (dtype, size):
      raise ValueError(f'storage {key} is of two types or sizes')
    return known


def _named(module: Any, attribute: Any) -> _Global:
  """The global of a name; longer ones are no names."""
  for part in (module, attribute):
    if not isinstance(part, str) or len(part) > _MAX_NAME:
      raise ValueError('a class or function without a name')
  return _Global(f'{module}.{attribute}')


def _is_count(x: Any) -> bool:
  return type(x) is int and 0 <= x < 2**48


def _extend(target: Any, values: list):
  if isinstance(target, Record):
    target.elements.extend(values)
  elif isinstance(target, list):
    target.extend(values)
  else:
    raise ValueError('elements of what is no list')


def _set(target: Any, values: list):
  """Sets the keys and values, one after the other, of a dictionary."""
  items = target.items if isinstance(target, Record) else target
  if not isinstance(items, dict) or len(values) % 2:
    raise ValueError('items of what is no dictionary')
  for key, value in zip(values[::2], values[1::2], strict=True):
    # The hash of nested tuples may take any time, and that of large numbers
    # may be the same for all.
    if isinstance(key, tuple | list | dict) or (
      type(key) is int and abs(key) >= 2**60
    ):
      key = Record('key', (key,))
    items[key] = value


def _make(function: Any, arguments: Any) -> Any:
  """Stands in for the result of a call; nothing is called."""
  if not isinstance(arguments, tuple) or len(arguments) > _MAX_ARGUMENTS:
    raise ValueError('arguments that are no tuple, or too many')
  name = function.name if isinstance(function, _Global | Record) else '?'
  if name in _NEW and arguments and isinstance(arguments[0], _Global):
    return _make(arguments[0], arguments[1:])
  if name in _OBJECT and arguments and isinstance(arguments[0], _Global):
    return Record(arguments[0].name)
  if name == 'collections.OrderedDict':
    result = {}
    for pair in arguments[0] if arguments else ():
      if len(pair) != 2:
        raise ValueError('an item that is no pair')
      _set(result, [*pair])
    return result
  if name == 'torch.Size' and arguments and isinstance(arguments[0], tuple):
    return arguments[0]
  if name in _PARAMETER and arguments and isinstance(arguments[0], Tensor):
    return arguments[0]
  if name in _TENSOR:
    return _tensor(*arguments[:4])
  return Record(name, arguments)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
  """A tensor, if all of it is in its storage."""
  if not isinstance(storage, Storage):
    raise ValueError('a tensor without a storage')
  if (
    not isinstance(shape, tuple)
    or not isinstance(strides, tuple)
    or not len(shape) == len(strides) <= _MAX_AXES
    or not all(map(_is_count, (offset, *shape, *strides)))
  ):
    raise ValueError('a tensor of an impossible shape')
  count = math.prod(shape)
  last = offset + sum((n - 1) * m for n, m in zip(shape, strides, strict=True))
  if count > storage.size or (count and last >= storage.size):
    raise ValueError(
      f'a tensor of shape {list(shape)} is beyond its storage of '
      f'{storage.size} numbers'
    )
  return Tensor(storage, offset, shape, strides)
