"""Checkpoints of PyTorch, read without it and without running them."""

import argparse
import pathlib
import pickle
import pickletools
import struct
import time
import zipfile

import numpy as np
import pytest
import torch_checkpoints

from vision import torch_files

Name, Call = torch_checkpoints.Name, torch_checkpoints.Call
ARRAYS = {
  'conv.weight': np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
  'conv.bias': np.array([0.5, -1], np.float32),
  'half': np.array([[1, 2]], np.float16),
  'double': np.array(3.0),
  'empty': np.zeros((0, 3), np.float32),
  'bn.running_mean': np.array([7, 8], np.float32),
  'bn.num_batches_tracked': np.array(9, np.int64),
}


def read(path):
  tensors = torch_files.tensors(torch_files.load(path))
  return {name: x.array() for name, x in tensors.items()}


def assert_arrays_equal(found, expected):
  assert found.keys() == expected.keys()
  for name, x in expected.items():
    np.testing.assert_array_equal(found[name], x, strict=True)


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
@pytest.mark.parametrize('kind', ['state_dict', 'module', 'nested', 'parallel'])
def test_arrays_are_those_that_were_saved(tmp_path, kind, legacy):
  value = torch_checkpoints.state_dict(ARRAYS)
  if kind == 'module':
    value = torch_checkpoints.module(ARRAYS)
  elif kind == 'nested':
    value = {'epoch': 3, 'state_dict': value, 'optimizer': {0: Name('a b')}}
  elif kind == 'parallel':
    value = torch_checkpoints.state_dict(
      {f'module.{name}': x for name, x in ARRAYS.items()}
    )
  path = tmp_path / 'model.pth.tar'
  torch_checkpoints.save(path, value, legacy=legacy)
  assert_arrays_equal(read(path), ARRAYS)


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
def test_tensors_share_storages_and_may_be_transposed(tmp_path, legacy):
  numbers = np.arange(12, dtype=np.float32)
  storage = torch_checkpoints.Storage(numbers)

  def view(*arguments):
    name = Name('torch._utils _rebuild_tensor_v2')
    return Call(name, (storage, *arguments, False, {}))

  path = tmp_path / 'model.pth'
  value = {'a': view(2, (3, 2), (1, 3)), 'b': view(11, (), ())}
  torch_checkpoints.save(path, value, legacy=legacy)
  assert_arrays_equal(
    read(path), {'a': numbers[2:8].reshape(2, 3).T, 'b': np.float32(11)}
  )


@pytest.mark.parametrize('protocol', [0, 1, 2, 3, 4, 5])
def test_plain_pickles_of_every_protocol(tmp_path, protocol):
  """Python's own; with a namespace, as infos of captioners have."""
  value = {
    'vocab': {'1': 'a', '2': 'naïve'},
    'opt': argparse.Namespace(rnn_size=512, split=(1, 2, 3, 4), none=None),
    'history': {100: -1.5, 2**70: True, (1, 2): [b'x', [2.5], 300, 70_000, -1]},
    'set': {1},
  }
  path = tmp_path / 'infos.pkl'
  path.write_bytes(pickle.dumps(value, protocol))
  found = torch_files.load(path)
  assert found['vocab'] == value['vocab']
  assert found['opt'].name == 'argparse.Namespace'
  assert found['opt'].state == vars(value['opt'])
  history = list(found['history'].values())
  assert history[:2] == [-1.5, True]
  assert history[2][1:] == [[2.5], 300, 70_000, -1]


class _Runs:
  """Runs a function of any module when it is unpickled."""

  def __init__(self, function, *arguments):
    self.call = function, arguments

  def __reduce__(self):
    return self.call


def _touch(path):
  pathlib.Path(path).touch()


@pytest.mark.parametrize('protocol', [0, 2, 4])
def test_a_malicious_file_runs_nothing(tmp_path, protocol):
  """The control: Python's own reader runs it."""
  mark = tmp_path / 'mark'
  evil = [
    _Runs(_touch, str(mark)),
    _Runs(eval, f'__import__("pathlib").Path({str(mark)!r}).touch()'),
    _Runs(exec, f'import pathlib; pathlib.Path({str(mark)!r}).touch()'),
    _Runs(getattr, mark, 'touch'),
  ]
  contents = pickle.dumps(evil, protocol)
  path = tmp_path / 'infos.pkl'
  path.write_bytes(contents)
  found = torch_files.load(path)
  assert [type(x) for x in found] == [torch_files.Record] * 4
  assert not mark.exists()
  pickle.loads(contents)
  assert mark.exists()


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
def test_a_malicious_checkpoint_is_read_and_runs_nothing(tmp_path, legacy):
  mark = tmp_path / 'mark'
  path = tmp_path / 'model.pth'
  value = torch_checkpoints.module(ARRAYS)
  value.state['hook'] = Call(Name('os system'), (f'touch {mark}',))
  value.state['chain'] = Call(Name('builtins getattr'), (Name('os x'), 'y'))
  torch_checkpoints.save(path, value, legacy=legacy)
  assert_arrays_equal(read(path), ARRAYS)
  assert not mark.exists()


def test_instructions_that_name_attributes_of_classes(tmp_path):
  """INST, OBJ, NEWOBJ_EX, STACK_GLOBAL, and BUILD on a class."""
  path = tmp_path / 'infos.pkl'
  mark = tmp_path / 'mark'
  command = f'touch {mark}'
  text = b'X' + struct.pack('<I', len(command)) + command.encode()
  for contents in (
    b'(' + text + b'ios\nsystem\n.',
    b'(cos\nsystem\n' + text + b'o.',
    b'\x80\x04\x8c\x02os\x8c\x06system\x93' + text + b'\x85}\x92.',
    b'cbuiltins\nint\n}' + text + b'K\x01sb.',
  ):
    list(pickletools.genops(contents))
    path.write_bytes(contents)
    torch_files.load(path)
  assert not mark.exists()


FORGED = {
  'empty': b'',
  'cut off': pickle.dumps(['x' * 100] * 3, 2)[:-40],
  'nothing': b'.',
  'mark popped': b'(0.',
  'unknown opcode': b'\xff.',
  'extension': b'\x82\x01.',
  'text of 2^60 bytes': b'\x8d' + struct.pack('<Q', 2**60) + b'x.',
  'memo': b'h\x07.',
  'named by a number': b'K\x01K\x02\x93.',
  'elements of a number': b'K\x01K\x02a.',
  'outside': b'Vstorage\nQ.',
  'text outside': b'P1\n.',
  'buffer': b'\x97.',
  'long name': b'c' + b'a' * 600 + b'\nb\n.',
  'digits': b'L' + b'9' * 10_000 + b'L\n.',
  'a second pickle': pickle.dumps(1, 2) + pickle.dumps(2, 2),
  'a tensor alone': torch_checkpoints.pickled(
    torch_checkpoints.tensor(np.zeros(3, np.float32))
  )[0],
  'a picture': b'\x89PNG\r\n\x1a\n' + bytes(100),
  'a zip without a pickle': b'PK\x05\x06' + bytes(18),
}


@pytest.mark.parametrize('name', FORGED)
def test_forged_files_are_named(tmp_path, name):
  path = tmp_path / 'model.pth'
  path.write_bytes(FORGED[name])
  with pytest.raises(ValueError, match=r'model\.pth'):
    torch_files.load(path)


def test_forged_pickles_take_no_time(tmp_path, monkeypatch):
  """Deep tuples as keys, large memo indices, and lists of themselves."""
  path = tmp_path / 'model.pth'
  doubled = b')' + b'2\x86' * 5000  # Each tuple holds the last one twice.
  pairs = b'(' + b'K\x01K\x02\x86' * 2000 + b'lq\x000'
  again = b'ccollections\nOrderedDict\nh\x00\x85R0' * 5000
  start = time.monotonic()
  for contents in (
    b'}' + doubled + b'K\x01s.',
    b'}' + b')' + b'\x85' * 50_000 + b'K\x01s.',
    b'Nr' + struct.pack('<I', 2**32 - 1) + b'.',
    b']q\x00h\x00a.',
  ):
    path.write_bytes(contents)
    torch_files.load(path)
  path.write_bytes(pairs + again + b'N.')
  monkeypatch.setattr(torch_files, '_MAX_OPCODES', 100_000)
  with pytest.raises(ValueError, match='too long'):
    torch_files.load(path)
  assert time.monotonic() - start < 60


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ((0, (5,), (1,)), 'beyond its storage'),
    ((1, (4,), (1,)), 'beyond its storage'),
    ((0, (2, 2), (3, 1)), 'beyond its storage'),
    ((0, (100, 100), (0, 0)), 'beyond its storage'),
    ((-1, (2,), (1,)), 'impossible shape'),
    ((0, (2,), (-1,)), 'impossible shape'),
    ((0, (True,), (1,)), 'impossible shape'),
    ((0, (2**62,) * 8, (0,) * 8), 'impossible shape'),
    ((0, (1,) * 40, (1,) * 40), 'impossible shape'),
    ((0, [2], (1,)), 'impossible shape'),
  ],
)
def test_tensors_beyond_their_storage(tmp_path, arguments, message):
  storage = torch_checkpoints.Storage(np.zeros(4, np.float32))
  path = tmp_path / 'model.pth'
  name = Name('torch._utils _rebuild_tensor_v2')
  torch_checkpoints.save(path, {'a': Call(name, (storage, *arguments))})
  with pytest.raises(ValueError, match=message):
    torch_files.load(path)


def test_storages_of_a_wrong_size(tmp_path):
  path, forged = tmp_path / 'model.pth', tmp_path / 'forged.pth'
  torch_checkpoints.save(path, torch_checkpoints.state_dict(ARRAYS))
  with zipfile.ZipFile(path) as old, zipfile.ZipFile(forged, 'w') as new:
    for name in old.namelist():
      contents = old.read(name)
      new.writestr(name, contents[:-1] if name.endswith('data/1') else contents)
  with pytest.raises(ValueError, match='storage 1 has 7 bytes instead of 8'):
    torch_files.load(forged)
  with zipfile.ZipFile(path) as old:
    with zipfile.ZipFile(forged, 'w', zipfile.ZIP_DEFLATED) as new:
      for name in old.namelist():
        new.writestr(name, old.read(name))
  with pytest.raises(ValueError, match='compressed'):
    torch_files.load(forged)
  torch_checkpoints.save(
    path, torch_checkpoints.state_dict(ARRAYS), legacy=True
  )
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(ValueError, match=r'storage \d .* cut off'):
    torch_files.load(path)


def test_modules_in_themselves(tmp_path):
  path = tmp_path / 'model.pth'
  value = torch_checkpoints.module(ARRAYS)
  value.state['_modules']['again'] = value
  torch_checkpoints.save(path, value)
  with pytest.raises(ValueError, match='in itself'):
    torch_files.tensors(torch_files.load(path))


def test_files_without_tensors(tmp_path):
  path = tmp_path / 'model.pth'
  torch_checkpoints.save(path, {'epoch': 3})
  with pytest.raises(ValueError, match='no tensors: use a state dict'):
    torch_files.tensors(torch_files.load(path))
