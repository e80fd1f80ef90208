"""Tests of reading .npy and .npz files."""

import io
import zipfile

import numpy as np
import pytest

from training import array_files

ARRAYS = {
  'a': np.arange(6, dtype=np.float32).reshape(2, 3),
  'b': np.asfortranarray(np.arange(6, dtype='>i2').reshape(2, 3)),
  'c': np.array(['x', 'é']),
  'd': np.zeros((0, 3)),
  'e': np.array(True),
}


def _npy(array):
  file = io.BytesIO()
  np.save(file, array)
  return file.getvalue()


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_arrays_equal_numpys(tmp_path, save):
  path = tmp_path / 'a.npz'
  save(path, **ARRAYS)
  read = array_files.read_npz(path)
  assert list(read) == list(ARRAYS)
  for name, array in ARRAYS.items():
    np.testing.assert_array_equal(read[name], array)
    assert read[name].dtype == array.dtype
    np.testing.assert_array_equal(array_files.read(path, name), array)
    beside = tmp_path / 'a.npy'
    np.save(beside, array)
    np.testing.assert_array_equal(array_files.read(beside, 'any'), array)
  assert list(array_files.read_npz(path, ['c', 'missing'])) == ['c']
  with pytest.raises(ValueError, match=r"a\.npz: no array 'x', only a, b"):
    array_files.read(path, 'x')


def test_an_array_that_is_alone_may_have_any_name(tmp_path):
  path = tmp_path / 'a.npz'
  np.savez(path, clip=np.arange(3))
  read = array_files.read(path, 'frames', alone=True)
  np.testing.assert_array_equal(read, np.arange(3))


def test_a_file_that_inflates_beyond_the_limit(tmp_path, monkeypatch):
  monkeypatch.setattr(array_files, 'MAX_BYTES', 1000)
  path = tmp_path / 'a.npz'
  np.savez_compressed(path, a=np.zeros(100), b=np.zeros(100))
  with pytest.raises(ValueError, match=r'a\.npz.*more than 1000 bytes'):
    array_files.read_npz(path)
  np.save(tmp_path / 'a.npy', np.zeros(200))
  with pytest.raises(ValueError, match='larger than 1000 bytes'):
    array_files.read_npy(tmp_path / 'a.npy')


def _replace(old, new):
  contents = _npy(np.zeros((2, 3)))
  assert old in contents
  return contents.replace(old, new)


@pytest.mark.parametrize(
  ('contents', 'message'),
  [
    (b'', 'not a .npy file'),
    (_npy(np.zeros(3))[:-1], 'not the 23 bytes'),
    (_npy(np.zeros(3))[:20], 'not a .npy file'),
    (_replace(b'(2, 3), ', b'(9**99,)'), 'not a .npy file'),
    (_replace(b'(2, 3), }   ', b'(999999999,)'), 'not a .npy file|bytes'),
    (_replace(b"'<f8'", b"'|O' "), 'numbers or texts'),
    (_replace(b"'<f8'", b"'V8' "), 'numbers or texts'),
    (_npy(np.zeros((10_001, 0))), 'empty rows'),
  ],
)
def test_damaged_arrays_are_named(tmp_path, contents, message):
  path = tmp_path / 'a.npz'
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('x.npy', contents)
  with pytest.raises(ValueError, match=message) as raised:
    array_files.read_npz(path)
  assert str(path) in str(raised.value)
  assert "array 'x'" in str(raised.value)
  (tmp_path / 'a.npy').write_bytes(contents)
  with pytest.raises(ValueError, match=message):
    array_files.read_npy(tmp_path / 'a.npy')


@pytest.mark.parametrize(
  'method', [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=['bzip2', 'lzma']
)
def test_methods_that_numpy_does_not_write(tmp_path, method):
  path = tmp_path / 'a.npz'
  with zipfile.ZipFile(path, 'w', method) as archive:
    archive.writestr('x.npy', _npy(np.zeros(3)))
  with pytest.raises(ValueError, match='compressed by method'):
    array_files.read_npz(path)


def test_a_library_that_quotes_all_of_a_file_is_cut_short(tmp_path):
  path = tmp_path / 'a.npz'
  np.savez(path, joints=np.zeros(2000))
  damaged = bytearray(path.read_bytes())
  damaged[26:28] = (2000).to_bytes(2, 'little')  # Length of the name.
  path.write_bytes(damaged)
  with pytest.raises(ValueError, match='a.npz is not an .npz') as error:
    array_files.read_npz(path)
  assert len(str(error.value)) < 500 + len(str(path))
