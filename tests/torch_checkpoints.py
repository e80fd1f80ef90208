"""Writes files as torch.save does, without PyTorch."""

import dataclasses
import io
import pickle
import struct
import zipfile
from typing import Any

import numpy as np

_TYPES = {'f4': 'Float', 'f8': 'Double', 'f2': 'Half', 'i8': 'Long'}


@dataclasses.dataclass(frozen=True)
class Name:
  """A class or function, 'module name'."""

  name: str


@dataclasses.dataclass(eq=False)
class Call:
  """What a function returned, and the state that it was given."""

  function: Name
  arguments: tuple = ()
  state: Any = None


@dataclasses.dataclass(eq=False)
class Storage:
  """The numbers of a tensor."""

  array: np.ndarray


class Pickler(pickle._Pickler):
  """Pickles names that cannot be imported, and storages by key."""

  dispatch = dict(pickle._Pickler.dispatch)

  def __init__(self, *args, legacy=False):
    super().__init__(*args)
    self.legacy = legacy
    self.storages = []

  def persistent_id(self, x):
    if not isinstance(x, Storage):
      return None
    if x not in self.storages:
      self.storages.append(x)
    kind = _TYPES[x.array.dtype.str[1:]]
    key = str(self.storages.index(x))
    identity = (
      'storage',
      Name(f'torch {kind}Storage'),
      key,
      'cuda:0',
      x.array.size,
    )
    return (*identity, None) if self.legacy else identity

  def save_name(self, x):
    module, name = x.name.split()
    self.write(f'c{module}\n{name}\n'.encode())
    self.memoize(x)

  def save_call(self, x):
    self.save_reduce(x.function, x.arguments, obj=x)
    if x.state is not None:
      self.save(x.state)
      self.write(pickle.BUILD)

  def save_reduce(self, function, arguments, obj=None):
    """Without the check that the function can be called."""
    self.save(function)
    self.save(arguments)
    self.write(pickle.REDUCE)
    self.memoize(obj)

  dispatch[Name] = save_name
  dispatch[Call] = save_call


def tensor(array, *, offset=0, parameter=False):
  """A tensor of an array; it begins at an offset of its storage."""
  array = np.asarray(array, order='C')
  storage = np.concatenate([np.zeros(offset, array.dtype), array.ravel()])
  strides = tuple(n // array.itemsize for n in array.strides)
  result = Call(
    Name('torch._utils _rebuild_tensor_v2'),
    (Storage(storage), offset, array.shape, strides, False, ordered({})),
  )
  if parameter:
    name = Name('torch._utils _rebuild_parameter')
    result = Call(name, (result, True, ordered({})))
  return result


class _Ordered(dict):
  """Is pickled as an ordered dict."""


def _save_ordered(self, x):
  self.save_reduce(Name('collections OrderedDict'), (), obj=x)
  self._batch_setitems(list(x.items()))
  self.save({'_metadata': ''})
  self.write(pickle.BUILD)


Pickler.dispatch[_Ordered] = _save_ordered


def ordered(items):
  return _Ordered(items)


def state_dict(arrays):
  """The state dict of arrays by name."""
  return ordered({name: tensor(x) for name, x in arrays.items()})


def module(arrays, name='models Net'):
  """A module with these arrays, whole, and the modules that it needs."""
  parameters, children = {}, {}
  for path, x in arrays.items():
    first, _, rest = path.partition('.')
    if rest:
      children.setdefault(first, {})[rest] = x
    else:
      parameters[first] = tensor(x, parameter=True)
  buffers = {}
  for key in ('running_mean', 'running_var', 'num_batches_tracked'):
    if key in parameters:
      buffers[key] = parameters.pop(key).arguments[0]
  return Call(
    Name('copyreg __newobj__'),
    (Name(name),),
    {
      'training': True,
      '_parameters': ordered(parameters),
      '_buffers': ordered(buffers),
      '_modules': ordered({k: module(x) for k, x in children.items()}),
    },
  )


def pickled(value, protocol=2, *, legacy=False):
  """The pickle, and the arrays of its storages."""
  file = io.BytesIO()
  pickler = Pickler(file, protocol, legacy=legacy)
  pickler.dump(value)
  return file.getvalue(), [x.array for x in pickler.storages]


def save(path, value, *, legacy=False):
  """Writes the zip form, or the one before PyTorch 1.6."""
  contents, arrays = pickled(value, legacy=legacy)
  if not legacy:
    with zipfile.ZipFile(path, 'w') as archive:
      archive.writestr('archive/data.pkl', contents)
      archive.writestr('archive/byteorder', 'little')
      for key, array in enumerate(arrays):
        archive.writestr(f'archive/data/{key}', array.tobytes())
      archive.writestr('archive/version', '3\n')
    return
  keys = [str(key) for key in range(len(arrays))]
  head = (
    0x1950A86A20F9469CFC6C,
    1001,
    {'protocol_version': 1001, 'little_endian': True, 'type_sizes': {}},
  )
  with open(path, 'wb') as file:
    for part in head:
      pickle.dump(part, file, 2)
    file.write(contents)
    pickle.dump(keys, file, 2)
    for array in arrays:
      file.write(struct.pack('<q', array.size) + array.tobytes())
