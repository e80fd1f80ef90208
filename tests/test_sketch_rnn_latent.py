"""Paths in the latent space, and files of latent vectors."""

import zipfile

import numpy as np
import pytest

from sketch_rnn import latent


@pytest.mark.parametrize('name', ['slerp', 'lerp'])
def test_interpolations_are_the_published_ones(golden_file, name):
  golden = np.load(golden_file('sketch_rnn/tf1_formulas.npz'))
  a, b = golden['slerp/p0'], golden['slerp/p1']
  np.testing.assert_allclose(
    [getattr(latent, name)(a, b, share) for share in golden['slerp/t']],
    golden[f'{name}/out'],
    rtol=1e-12,
    atol=1e-12,
  )


@pytest.mark.parametrize(
  ('a', 'b'),
  [
    ([1.0, 2.0], [1.0, 2.0]),
    ([1.0, 2.0], [2.0, 4.0]),
    ([1.0, 2.0], [-1.0, -2.0]),
    ([0.0, 0.0], [1.0, 2.0]),
    ([0.0, 0.0], [0.0, 0.0]),
    # Their cosine rounds to more than 1.
    ([0.1] * 128, [0.3] * 128),
  ],
)
def test_where_there_is_no_arc_there_is_a_line(a, b):
  a, b = np.array(a), np.array(b)
  for share in (0, 0.3, 1):
    np.testing.assert_allclose(
      latent.slerp(a, b, share), latent.lerp(a, b, share), atol=1e-9
    )


def test_an_arc_keeps_the_length():
  a, b = np.random.default_rng(0).normal(size=(2, 9))
  b *= np.linalg.norm(a) / np.linalg.norm(b)
  path = latent.path(a, b, 7)
  np.testing.assert_allclose(
    np.linalg.norm(path, axis=1), np.linalg.norm(a), rtol=1e-6
  )
  # At equal angles.
  cosines = np.sum(path[1:] * path[:-1], axis=1)
  np.testing.assert_allclose(cosines, cosines[0], rtol=1e-5)


def test_small_angles_agree_with_the_line():
  a = np.random.default_rng(1).normal(size=9)
  b = a.copy()
  b[0] += 1e-5
  np.testing.assert_allclose(
    latent.slerp(a, b, 0.25), latent.lerp(a, b, 0.25), rtol=1e-9
  )


@pytest.mark.parametrize('between', latent.INTERPOLATIONS.values())
def test_a_grid_has_the_four_at_its_corners(between):
  corners = np.random.default_rng(2).normal(size=(4, 5)).astype(np.float32)
  grid = latent.grid(corners, 3, between)
  assert grid.shape == (3, 3, 5)
  np.testing.assert_allclose(
    grid[[0, 0, -1, -1], [0, -1, 0, -1]], corners, rtol=1e-6
  )
  for edge, ends in ((grid[0], (0, 1)), (grid[:, 0], (0, 2))):
    np.testing.assert_allclose(
      edge, latent.path(*corners[list(ends)], 3, between), rtol=1e-6
    )
  transposed = latent.grid(corners[[0, 2, 1, 3]], 3, latent.lerp)
  np.testing.assert_allclose(
    latent.grid(corners, 3, latent.lerp).swapaxes(0, 1), transposed, rtol=1e-5
  )


def random_latents(count=3):
  z, mean, sigma = np.random.default_rng(3).normal(size=(3, count, 4))
  return latent.Latents(
    *(x.astype(np.float32) for x in (z, mean, abs(sigma))),
    ids=[f'test:{i}' for i in range(count)],
    categories=['cat', '', '犬'],
  )


def test_a_file_gives_back_what_was_saved(tmp_path):
  saved = random_latents()
  path = tmp_path / 'z.npz'
  latent.save(path, saved)
  assert list(tmp_path.iterdir()) == [path]
  loaded = latent.load(path)
  for name in ('z', 'mean', 'sigma'):
    array = getattr(loaded, name)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, getattr(saved, name))
  assert (loaded.ids, loaded.categories) == (saved.ids, saved.categories)
  assert latent.is_file(path)


def test_a_file_of_z_alone_will_do(tmp_path):
  path = tmp_path / 'z.npz'
  z = np.random.default_rng(4).normal(size=(2, 3))
  np.savez(path, z=z)
  loaded = latent.load(path)
  np.testing.assert_allclose(loaded.z, z, rtol=1e-6)
  np.testing.assert_array_equal(loaded.mean, loaded.z)
  assert not loaded.sigma.any()
  assert loaded.ids == ['0', '1']
  assert loaded.categories == ['', '']


@pytest.mark.parametrize(
  ('arrays', 'message'),
  [
    ({'train': np.zeros(3)}, 'no array `z` of latent vectors, only train'),
    ({'z': np.zeros(3)}, r'`z` is float64\[3\]'),
    ({'z': np.full((1, 3), np.nan)}, 'must be finite'),
    ({'z': np.zeros((2, 3), np.int32)}, r'`z` is int32\[2, 3\]'),
    ({'z': np.zeros((2, 3)), 'mean': np.zeros((2, 4))}, '`mean` is .2, 4.'),
    ({'z': np.zeros((2, 3)), 'ids': np.array(['a'])}, '`ids` is .1., `z`'),
    ({'z': np.array([[{}]])}, 'z.npz is not an .npz of numbers'),
  ],
)
def test_other_files_are_clear_errors(arrays, message, tmp_path):
  path = tmp_path / 'z.npz'
  np.savez(path, **arrays)
  with pytest.raises(ValueError, match=message):
    latent.load(path)


def test_what_is_no_archive_is_a_clear_error(tmp_path):
  path = tmp_path / 'z.npz'
  path.write_bytes(b'PK\x03\x04 nothing more')
  with pytest.raises(ValueError, match='z.npz is not an .npz of numbers'):
    latent.load(path)
  assert not latent.is_file(path)
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('train.npy', b'')
  assert not latent.is_file(path)
