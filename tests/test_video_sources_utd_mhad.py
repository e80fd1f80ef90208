"""UTD-MHAD, as its authors publish it and as one array of all."""

import collections
import dataclasses
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import scipy.io

from video import data
from video.sources import utd_mhad

ROOT = pathlib.Path(__file__).parents[1]
# Subjects 7, 1, 2 and 8; in the order of a reader.
KEYS = [(2, 7, 4), (10, 1, 1), (10, 2, 1), (27, 8, 2)]
LENGTHS = [2, 3, 1, 4]
IDS = ['a2_s7_t4', 'a10_s1_t1', 'a10_s2_t1', 'a27_s8_t2']


def save_array(path, name, values, order=(1, 2, 0, 3), **changes):
  """One array of all recordings, which are in disorder there."""
  action, subject, trial = np.array([KEYS[i] for i in order], np.int32).T
  arrays = {
    name: np.concatenate([values[i] for i in order]),
    'lengths': np.array([len(values[i]) for i in order], np.int32),
    'action': action,
    'subject': subject,
    'trial': trial,
  }
  path.parent.mkdir(exist_ok=True)
  np.savez(path, **arrays | changes)


def save_files(folder, ending, variable, values):
  """The authors' files, of arrays whose last axis is time."""
  folder.mkdir(parents=True)
  for name, value in zip(IDS, values, strict=True):
    path = folder / f'{name}_{ending}.mat'
    scipy.io.savemat(path, {variable: value}, do_compression=True)


def some_joints(lengths=LENGTHS):
  rng = np.random.default_rng(0)
  return [
    rng.normal(size=(length, 20, 3)).astype(np.float32) for length in lengths
  ]


def save_skeletons(directory, joints=None):
  """Numbers as MATLAB has them."""
  # MATLAB has no third axis of length one.
  joints = some_joints([2, 3, 2, 4]) if joints is None else joints
  values = [np.moveaxis(x, 0, 2).astype(np.float64) for x in joints]
  save_files(directory / 'Skeleton', 'skeleton', 'd_skel', values)
  return joints


def some_depth(length, at=2800):
  """Somebody, who is a box, before nothing."""
  depth = np.zeros((240, 320, length), np.uint16)
  for t in range(length):
    depth[60:200, 100 + t : 160 + t, t] = at + 10 * t
  return depth


def save_depth(directory):
  depths = [some_depth(length, 2000 + 300 * length) for length in (4, 5, 2, 3)]
  save_files(directory / 'Depth', 'depth', 'd_depth', depths)
  return depths


def assert_same(found, expected):
  assert len(found) == len(expected)
  for a, b in zip(found, expected, strict=True):
    for field in dataclasses.fields(a):
      np.testing.assert_array_equal(
        getattr(a, field.name), getattr(b, field.name)
      )


def test_recordings_are_split_by_subject(tmp_path):
  joints = some_joints()
  save_array(tmp_path / 'skeleton.npz', 'joints', joints)
  found, left_out = utd_mhad.skeletons(tmp_path)
  assert left_out == ''
  assert [(r.id, r.split, r.label, r.group) for r in found] == [
    ('a2_s7_t4', 'validation', 'swipe right', 's7'),
    ('a10_s1_t1', 'train', 'draw circle counter-clockwise', 's1'),
    ('a10_s2_t1', 'test', 'draw circle counter-clockwise', 's2'),
    ('a27_s8_t2', 'test', 'squat', 's8'),
  ]
  for recording, own in zip(found, joints, strict=True):
    np.testing.assert_array_equal(recording.features, own.reshape(len(own), 60))
  other, _ = utd_mhad.skeletons(tmp_path, validation_subject=1)
  assert [r.split for r in other] == ['train', 'validation', 'test', 'test']
  with pytest.raises(ValueError, match='must be one of the training subjects'):
    utd_mhad.skeletons(tmp_path, validation_subject=2)
  frames = [
    np.random.default_rng(i).integers(0, 256, (length, 6, 8), np.uint8)
    for i, length in enumerate(LENGTHS)
  ]
  save_array(tmp_path / 'depth_48x64.npz', 'frames', frames)
  clips, _ = utd_mhad.depth(tmp_path)
  assert [c.id for c in clips] == [r.id for r in found]
  for clip, own in zip(clips, frames, strict=True):
    np.testing.assert_array_equal(clip.frames, own[..., np.newaxis])


def test_skeletons_are_equal_from_both_forms(tmp_path):
  joints = save_skeletons(tmp_path / 'files')
  save_array(tmp_path / 'array' / 'skeleton.npz', 'joints', joints)
  files, left_out = utd_mhad.skeletons(tmp_path / 'files')
  array, _ = utd_mhad.skeletons(tmp_path / 'array')
  assert left_out == '' and [r.id for r in files] == IDS
  assert_same(files, array)
  assert files[0].features.dtype == np.float32
  # Prepared they are one and the same.
  prints = set()
  for place, items in (('one', files), ('other', array)):
    data.prepare('skeletons/utd_mhad', items, tmp_path / place)
    prints.add(data.fingerprint('skeletons/utd_mhad', tmp_path / place))
  assert len(prints) == 1


def test_depth_is_equal_from_both_forms(tmp_path):
  depths = save_depth(tmp_path / 'files')
  frames = [utd_mhad.brightness(depth) for depth in depths]
  save_array(tmp_path / 'array' / 'depth_48x64.npz', 'frames', frames)
  files, _ = utd_mhad.depth(tmp_path / 'files')
  array, _ = utd_mhad.depth(tmp_path / 'array')
  assert_same(files, array)
  assert [clip.frames.shape for clip in files] == [
    (length, 48, 64, 1) for length in (2, 3, 1, 2)
  ]


def test_brightness_is_nearness():
  """A pixel at a time, by its definition."""
  rng = np.random.default_rng(0)
  depth = rng.integers(1000, 4500, (240, 320, 3)).astype(np.uint16)
  depth[rng.random(depth.shape) < 0.3] = 0
  found = utd_mhad.brightness(depth)
  assert found.shape == (2, 48, 64) and found.dtype == np.uint8
  for t, row, column in ((0, 0, 0), (1, 47, 63), (0, 20, 31), (1, 5, 60)):
    of = depth[
      5 * row : 5 * row + 5, 5 * column : 5 * column + 5, 2 * t
    ].astype(float)
    nearness = [
      0 if x == 0 else min(max((4000 - x) / 2500, 0), 1) for x in of.ravel()
    ]
    expected = 255 * sum(nearness) / 25
    assert abs(found[t, row, column] - expected) <= 0.5 + 1e-4
  for x, expected in ((0, 0), (1, 255), (1500, 255), (2750, 128), (4000, 0)):
    assert (utd_mhad.brightness(np.full((5, 5, 1), x)) == expected).all()


def test_what_is_damaged_in_an_array_is_refused(tmp_path):
  path = tmp_path / 'skeleton.npz'
  joints = some_joints()
  for changes in (
    {'lengths': np.array([3, 1, 2, 5])},
    {'action': np.array([0, 1, 2, 3])},
    {'subject': np.array([1, 2, 3])},
    {'subject': np.array(3)},
    {'trial': np.array([1, 1, 5, 2])},
    {'joints': np.full((10, 20, 3), np.nan, np.float32)},
  ):
    save_array(path, 'joints', joints, **changes)
    with pytest.raises(ValueError, match='skeleton.npz is damaged'):
      utd_mhad.skeletons(tmp_path)
  # A recording that is there twice.
  save_array(path, 'joints', joints, order=(1, 2, 1, 3))
  with pytest.raises(ValueError, match='skeleton.npz is damaged'):
    utd_mhad.skeletons(tmp_path)
  save_array(path, 'other', joints)
  with pytest.raises(ValueError, match='cannot read .*It must hold joints'):
    utd_mhad.skeletons(tmp_path)


def test_what_is_missing_is_named(tmp_path):
  with pytest.raises(ValueError, match="none is not a directory: .*UTD-MHAD's"):
    utd_mhad.depth(tmp_path / 'none')
  save_skeletons(tmp_path)
  assert len(utd_mhad.skeletons(tmp_path)[0]) == 4
  with pytest.raises(ValueError) as caught:
    utd_mhad.depth(tmp_path)
  assert str(caught.value) == (
    f'{tmp_path} has neither Depth/, with published files such as '
    'a1_s1_t1_depth.mat, nor depth_48x64.npz: pass the directory of one of '
    'them'
  )
  (tmp_path / 'Depth').mkdir()
  with pytest.raises(ValueError, match='Depth has no file such as a1_s1_t1_de'):
    utd_mhad.depth(tmp_path, skip_bad=True)


def test_files_that_are_damaged_are_named_and_left_out(tmp_path):
  joints = save_skeletons(tmp_path)
  folder = tmp_path / 'Skeleton'
  good = (folder / 'a10_s1_t1_skeleton.mat').read_bytes()
  scipy.io.savemat(folder / 'a1_s1_t1_skeleton.mat', {'skel': joints[0]})
  nan = np.full((20, 3, 2), np.nan)
  for name, value in (
    ('a1_s2_t1', joints[0]),  # Its axes in another order.
    ('a1_s3_t1', nan),
    ('a1_s4_t1', np.zeros((20, 3, 2), complex)),
    ('a1_s5_t1', np.full((20, 3, 2), 'x', object)),
    ('a1_s9_t1', np.zeros((20, 3, 2))),
  ):
    scipy.io.savemat(folder / f'{name}_skeleton.mat', {'d_skel': value})
  for name, content in (
    ('a1_s6_t1', b''),
    ('a1_s7_t1', good[: len(good) // 2]),
    ('a1_s8_t1', good[:150] + b'\xff' * 40 + good[190:]),
    ('a2_s1_t1', b'MATLAB 7.3 MAT-file'.ljust(124) + b'\x00\x02IM' + good),
    ('a2_s1', good),
  ):
    (folder / f'{name}_skeleton.mat').write_bytes(content)
  found, left_out = utd_mhad.skeletons(tmp_path, skip_bad=True)
  assert [recording.id for recording in found] == IDS
  bad = [f'a1_s{subject}_t1' for subject in range(1, 10)]
  for name in (*bad, 'a2_s1_t1', 'a2_s1'):
    assert left_out.count(f'{name}_skeleton.mat') == 1
  assert 'd_skel must be finite numbers [20, 3, T], and is nothing' in left_out
  assert 'and is float32[2, 20, 3]' in left_out
  assert 'file that cannot be read (9):' in left_out
  assert 'trials 1 to 4 (2):' in left_out
  with pytest.raises(
    ValueError, match='leave them out with skip_bad'
  ) as caught:
    utd_mhad.skeletons(tmp_path)
  assert left_out in str(caught.value)


@pytest.mark.parametrize('seed', range(20))
def test_no_damage_goes_beyond_its_file(tmp_path, seed):
  rng = np.random.default_rng(seed)
  save_skeletons(tmp_path)
  path = tmp_path / 'Skeleton' / 'a10_s1_t1_skeleton.mat'
  content = np.frombuffer(path.read_bytes(), np.uint8).copy()
  places = rng.integers(128, len(content), 8)
  content[places] = rng.integers(0, 256, 8)
  path.write_bytes(content[: rng.integers(128, len(content))].tobytes())
  found, left_out = utd_mhad.skeletons(tmp_path, skip_bad=True)
  assert [r.id for r in found] == [IDS[0], *IDS[2:]]
  assert str(path) in left_out


def test_depth_that_is_in_no_millimetres_is_refused(tmp_path):
  depths = save_depth(tmp_path)
  folder = tmp_path / 'Depth'
  for subject, value in enumerate(
    (depths[0] / 1000, depths[0].astype(int) << 3, -depths[0].astype(int))
  ):
    path = folder / f'a1_s{subject + 1}_t1_depth.mat'
    scipy.io.savemat(path, {'d_depth': value}, do_compression=True)
  path = folder / 'a1_s4_t1_depth.mat'
  empty = np.zeros((240, 320, 2), np.uint8)
  scipy.io.savemat(path, {'d_depth': empty}, do_compression=True)
  clips, left_out = utd_mhad.depth(tmp_path, skip_bad=True)
  assert [clip.id for clip in clips] == IDS
  assert left_out.count('are not the millimetres to a person') == 3
  assert left_out.count('there is no reading, only 0') == 1


def test_the_command_prepares_the_authors_files(tmp_path):
  save_skeletons(tmp_path)
  (tmp_path / 'Skeleton' / 'a3_s1_t1_skeleton.mat').write_bytes(b'no')
  command = [
    sys.executable,
    ROOT / 'scripts' / 'prepare_clips.py',
    '--name=skeletons/utd_mhad',
    '--layout=utd_mhad',
    f'--input={tmp_path}',
    f'--data_dir={tmp_path / "tfds"}',
    '--skip_bad',
  ]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert 'train: 1\nvalidation: 1\ntest: 2\n' in done.stdout
  assert 'a3_s1_t1_skeleton.mat' in done.stdout
  assert '4 of the 861 recordings' in done.stderr


@pytest.fixture(scope='module')
def real(shared):
  directory = shared / 'data' / 'utd_mhad'
  return utd_mhad.skeletons(directory)[0], utd_mhad.depth(directory)[0]


def test_real_recordings(real):
  skeletons, depth = real
  assert [s.id for s in skeletons] == [d.id for d in depth]
  assert len({s.id for s in skeletons}) == 861
  for skeleton, clip in zip(skeletons, depth, strict=True):
    # Every second frame, from the first on.
    assert len(clip.frames) == (len(skeleton.features) + 1) // 2
  counts = collections.Counter(s.split for s in skeletons)
  assert counts == {'train': 323, 'validation': 108, 'test': 430}
  assert len({s.label for s in skeletons}) == 27
  groups = collections.defaultdict(set)
  for skeleton in skeletons:
    groups[skeleton.split].add(skeleton.group)
  assert groups['test'] == {'s2', 's4', 's6', 's8'}
  assert groups['train'] | groups['validation'] == {'s1', 's3', 's5', 's7'}
  assert not groups['train'] & groups['validation']


def test_real_depth_is_that_of_the_joints(real):
  """The line of `brightness`: surfaces are a little before their joints."""
  skeletons, depth = real
  before = []
  for skeleton, clip in zip(skeletons, depth, strict=True):
    x, y, z = skeleton.features[0, 6:9]  # The spine.
    # The focal length of the sensor, 285.63 pixels, in ours.
    row, column = int(24 - 57.126 * y / z), int(32 + 57.126 * x / z)
    bright = float(np.median(clip.frames[0, row - 1 : row + 2, column]))
    surface = utd_mhad.FAR - bright / 255 * (utd_mhad.FAR - utd_mhad.NEAR)
    before.append(z - surface / 1000)
  assert 0.1 < np.median(before) < 0.2
  assert np.percentile(np.abs(before - np.median(before)), 90) < 0.05


@pytest.mark.parametrize('seed', range(8))
def test_any_damage_is_an_error_of_the_file(tmp_path, seed):
  path = tmp_path / 'skeleton.npz'
  count = 3
  np.savez_compressed(
    path,
    joints=np.zeros((4 * count, 20, 3), np.float32),
    lengths=np.full(count, 4),
    action=np.arange(count) + 1,
    subject=np.ones(count, int),
    trial=np.ones(count, int),
  )
  whole = np.frombuffer(path.read_bytes(), np.uint8)
  rng = np.random.default_rng(seed)
  for _ in range(10):
    damaged = whole.copy()
    at = rng.integers(len(damaged), size=rng.integers(1, 4))
    damaged[at] = rng.integers(256, size=len(at))
    if rng.random() < 0.3:
      damaged = damaged[: rng.integers(len(damaged))]
    path.write_bytes(damaged.tobytes())
    try:
      utd_mhad.skeletons(tmp_path)
    except ValueError as error:
      assert 'skeleton.npz' in str(error)
