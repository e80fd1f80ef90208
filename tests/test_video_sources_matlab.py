"""Tests of reading MATLAB files, against SciPy."""

import numpy as np
import pytest
import scipy.io

from video.sources import matlab


@pytest.mark.parametrize('compressed', [False, True])
@pytest.mark.parametrize(
  'dtype', ['f8', 'f4', 'i1', 'u1', 'i2', 'u2', 'i4', 'u4', 'i8', 'u8', '>i2']
)
@pytest.mark.parametrize('shape', [(1, 1), (2, 3), (2, 3, 4), (1, 5, 1, 2)])
def test_arrays_equal_scipys(tmp_path, compressed, dtype, shape):
  path = tmp_path / 'a.mat'
  value = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
  variables = {'x': 'text', 'd_skel': value, 'd_skeleton': value + 1}
  scipy.io.savemat(path, variables, do_compression=compressed)
  found = matlab.read(path, 'd_skel')
  np.testing.assert_array_equal(found, scipy.io.loadmat(path)['d_skel'])
  assert found.dtype == value.dtype.newbyteorder('=')
  assert matlab.read(path, 'd_depth') is None


@pytest.mark.parametrize(
  ('value', 'message'),
  [
    ('text', 'something else than real numbers'),
    (np.ones(3) * 1j, 'something else than real numbers'),
    ({'a': 1}, 'something else than real numbers'),
    (np.zeros((0, 3)), 'empty'),
  ],
)
def test_other_variables_are_refused(tmp_path, value, message):
  path = tmp_path / 'a.mat'
  scipy.io.savemat(path, {'x': value})
  with pytest.raises(ValueError, match=message):
    matlab.read(path, 'x')


def test_other_files_are_refused(tmp_path):
  path = tmp_path / 'a.mat'
  scipy.io.savemat(path, {'x': np.ones((20, 30))}, do_compression=True)
  whole = path.read_bytes()
  path.write_bytes(whole[:-9])
  with pytest.raises(ValueError, match='cut off'):
    matlab.read(path, 'x')
  path.write_bytes(b'\x89HDF\r\n\x1a\n' + bytes(600))
  with pytest.raises(ValueError, match='version 5 to 7'):
    matlab.read(path, 'x')
