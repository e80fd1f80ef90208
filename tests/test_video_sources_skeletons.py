"""A folder per class with lists, and the published sets through it."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import scipy.io

from video import data
from video.sources import kinect
from video.sources import skeletons

ROOT = pathlib.Path(__file__).parents[1]


def points(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def write_lists(directory, **lists):
  directory.mkdir(parents=True, exist_ok=True)
  for split, files in lists.items():
    (directory / f'{split}.txt').write_text('\n'.join(files) + '\n')


# One recording.


def test_every_form_of_a_recording_is_the_same(tmp_path):
  joints = points(5, 4, 3)
  np.save(tmp_path / 'a.npy', joints)
  np.save(tmp_path / 'flat.npy', joints.reshape(5, 12))
  np.savez(tmp_path / 'a.npz', anything=joints)
  scipy.io.savemat(tmp_path / 'a.mat', {'s': joints, 'note': 'text'})
  # As UTD-MHAD has them.
  scipy.io.savemat(tmp_path / 'b.mat', {'d': np.moveaxis(joints, 0, 2)})
  rows = '\n'.join(','.join(map(str, row)) for row in joints.reshape(5, 12))
  (tmp_path / 'a.csv').write_text(rows)
  names = ','.join(f'{j}{axis}' for j in range(4) for axis in 'xyz')
  (tmp_path / 'named.csv').write_text(f'{names}\n{rows}\n')
  for path in tmp_path.iterdir():
    found = skeletons.read_points(path)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, joints.reshape(5, 12), rtol=1e-6)


def test_points_in_the_plane(tmp_path):
  joints = points(5, 21, 2)
  np.save(tmp_path / 'a.npy', joints)
  np.testing.assert_array_equal(
    skeletons.read_points(tmp_path / 'a.npy'), joints.reshape(5, 42)
  )


def test_unseen_points_are_interpolated(tmp_path):
  joints = np.zeros((5, 2, 3), np.float32)
  joints[:, 0, 0] = [np.nan, 1, np.nan, np.nan, 4]
  joints[:, 1, 2] = np.nan
  np.save(tmp_path / 'a.npy', joints)
  (tmp_path / 'a.csv').write_text(
    '\n'.join(f'{x},0,0,0,0,' for x in ('', '1', 'nan', '', '4'))
  )
  for name in ('a.npy', 'a.csv'):
    found = skeletons.read_points(tmp_path / name).reshape(5, 2, 3)
    np.testing.assert_allclose(found[:, 0, 0], [1, 1, 2, 3, 4])
    np.testing.assert_array_equal(found[:, 1], 0)


@pytest.mark.parametrize('persons', [1, 2, 3])
def test_the_person_that_moves_most_comes_first(tmp_path, persons):
  joints = np.zeros((6, persons, 4, 3), np.float32)
  motion = np.arange(6.0)[:, None, None]
  for person in range(persons):
    joints[:, person] = 10 * person + motion * (person + 1)
  np.save(tmp_path / 'a.npy', joints)
  found = skeletons.read_points(tmp_path / 'a.npy')
  np.testing.assert_array_equal(
    found.reshape(6, persons, 4, 3), joints[:, ::-1]
  )


@pytest.mark.parametrize(
  ('name', 'value', 'message'),
  [
    ('a.npy', np.zeros((4, 5, 6), 'f4'), r'holds \[6, 4, 5\]: a recording is'),
    ('a.npy', np.zeros((0, 5, 3), 'f4'), 'holds float32'),
    ('a.npy', np.array(['a']), 'holds <U1'),
    ('a.csv', '1,2,3\n1,2\n', 'line 2 has 2 numbers, others 3'),
    ('a.csv', '1,2,3\n1,x,2\n', 'line 2 must hold numbers only'),
    ('a.mat', {'a': np.ones(3), 'b': np.ones(3)}, 'one variable .* has a, b'),
    ('a.mat', {'a': 'text'}, 'has none'),
    ('a.txt', '1,2,3\n', 'is none of .npy, .npz, .csv, .mat'),
  ],
)
def test_what_is_no_recording_is_refused(tmp_path, name, value, message):
  path = tmp_path / name
  if isinstance(value, dict):
    scipy.io.savemat(path, value)
  elif isinstance(value, str):
    path.write_text(value)
  else:
    np.save(path, value)
  with pytest.raises(ValueError, match=message):
    skeletons.read_points(path)


# A folder.


@pytest.fixture
def mine(tmp_path):
  """Five persons that make two gestures, twice each."""
  for label in ('clap', 'wave'):
    for person in range(1, 6):
      for take in (1, 2):
        path = tmp_path / 'mine' / label / f's{person}_{take}.npy'
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, points(4 + take, 3, 3, seed=person))
  return tmp_path / 'mine'


def splits(items):
  found = {}
  for item in items:
    found.setdefault(item.split, set()).add(item.group)
  return found


def test_without_lists_no_person_is_in_two_splits(mine):
  divisions, left_out = skeletons.read(mine)
  assert (list(divisions), left_out) == ([''], '')
  items = divisions['']
  assert len({item.id for item in items}) == len(items) == 20
  assert [item.label for item in items] == ['clap'] * 10 + ['wave'] * 10
  found = splits(items)
  assert sum(map(len, found.values())) == 5
  assert set().union(*found.values()) == {f's{i}' for i in range(1, 6)}


def test_lists_say_what_is_trained_on(mine):
  write_lists(
    mine / 'lists',
    train=[f'{c}/s{i}_1' for c in ('wave', 'clap') for i in (1, 2, 3, 4)],
    test=['wave/s5_1.npy', 'clap/s5_2.npy'],
  )
  (items,) = skeletons.read(mine)[0].values()
  # One of the persons in the list for training is for validation.
  assert splits(items) == {
    'train': {'s1', 's2', 's3'},
    'validation': {'s4'},
    'test': {'s5'},
  }
  assert len(items) == 10
  write_lists(mine / 'lists', validation=['wave/s1_2'])
  (items,) = skeletons.read(mine)[0].values()
  assert splits(items)['validation'] == {'s1'}
  assert splits(items)['train'] == {'s1', 's2', 's3', 's4'}


def test_lists_may_name_persons(mine):
  write_lists(
    mine / 'lists', train=['s1', 'S2', 's3'], test=['s5', 'wave/s4_2']
  )
  (items,) = skeletons.read(mine)[0].values()
  assert splits(items) == {
    'train': {'s1', 's2'},
    'validation': {'s3'},
    'test': {'s5', 's4'},
  }
  assert len(items) == 17


def test_folders_of_lists_are_divisions(mine, tmp_path):
  lists = tmp_path / 'elsewhere'
  for fold in (1, 2):
    write_lists(
      lists / f'fold{fold}',
      train=[f'clap/s{i}_1' for i in (3, 4, 5)],
      test=[f'clap/s{fold}_1'],
    )
  divisions, _ = skeletons.read(mine, lists)
  assert list(divisions) == ['fold1', 'fold2']
  for fold, items in divisions.items():
    assert splits(items)['test'] == {f's{fold[-1]}'}
    assert {item.label for item in items} == {'clap'}
  names = data.prepare('skeletons/mine', divisions, tmp_path / 'tfds')
  assert names == ['skeletons/mine_fold1', 'skeletons/mine_fold2']
  for name in names:
    assert data.class_names(name, tmp_path / 'tfds') == ('clap',)
    (record,) = data.open_split(name, 'test', tmp_path / 'tfds')
    np.testing.assert_array_equal(
      record['features'],
      points(5, 3, 3, seed=int(name[-1])).reshape(5, 9),
    )


def test_bad_recordings_and_lists_are_named(mine):
  (mine / 'clap' / 's1_1.npy').write_bytes(b'no')
  np.save(mine / 'clap' / 's2_1.npy', points(4, 2, 3))
  (mine / 'empty').mkdir()
  write_lists(
    mine / 'lists',
    train=['clap/s3_1', 'clap/s3_1', 'clap/s9_1', 'wave/s3_1', 'wave/s4_1'],
    test=['wave/s5_1'],
  )
  with pytest.raises(ValueError) as error:
    skeletons.read(mine)
  divisions, left_out = skeletons.read(mine, skip_bad=True)
  for text in (str(error.value), left_out):
    assert 's1_1.npy' in text
    assert 's2_1.npy: 6 numbers in a frame instead of 9' in text
    assert 'class without recordings (1)' in text
    assert 'listed, and not read (1)' in text and 'clap/s9_1' in text
    assert 'listed twice (1)' in text
  assert len(divisions['']) == 4


def test_what_is_written_is_read(tmp_path):
  recordings = [
    skeletons.Recording(f's{i}', label, points(i + 2, 2, 5, 3, seed=i))
    for label in ('a b', 'c')
    for i in range(3)
  ]
  lists = {'train': ['a b/s0.npy', 'c/s1.npy'], 'test': ['a b/s2.npy']}
  skeletons.write(tmp_path, recordings, {'': lists})
  (items,) = skeletons.read(tmp_path)[0].values()
  assert {item.id for item in items} == set(sum(lists.values(), []))


# Published sets.


def arrays_of(layout):
  """A few recordings, of every person and every action."""
  rng = np.random.default_rng(0)
  sbu = layout == 'sbu_kinect'
  persons = [p for fold in kinect.SBU_FOLDS for p in fold]
  persons = persons if sbu else list(range(1, 11))
  actions = range(1, 9 if sbu else 21)
  known = [(a, p) for a in actions for p in persons]
  lengths = rng.integers(2, 5, len(known))
  shape = (2, 15, 3) if sbu else (20, 3)
  arrays = {
    'joints': rng.normal(size=(lengths.sum(), *shape)).astype(np.float32),
    'lengths': lengths,
    'action': np.array([a for a, _ in known]),
    'trial': np.array(['001'] * len(known))
    if sbu
    else np.ones(len(known), int),
    'pair' if sbu else 'subject': np.array([p for _, p in known]),
  }
  if not sbu:
    arrays['in_cvpr12_list'] = np.arange(len(known)) != 7
  return arrays


def test_folds_of_sbu_test_each_pair_once(tmp_path):
  arrays = arrays_of('sbu_kinect')
  np.savez(tmp_path / 'sbu_kinect.npz', **arrays)
  divisions, _ = kinect.divisions('sbu_kinect', tmp_path)
  assert list(divisions) == [f'fold{i}' for i in range(1, 6)]
  for index, items in enumerate(divisions.values()):
    found = splits(items)
    assert found['test'] == set(kinect.SBU_FOLDS[index])
    assert found['validation'] == set(kinect.SBU_FOLDS[(index + 1) % 5])
    assert sum(map(len, found.values())) == 21
    assert len(items) == len(arrays['lengths'])
    assert len({item.label for item in items}) == 8
  # The equations of the data set, by 1000; the one that moves more is first.
  raw = arrays['joints'][: arrays['lengths'][0]]
  item = next(
    x for x in divisions['fold1'] if x.id.endswith('s01s02_a1_t001.npy')
  )
  metric = np.stack(
    [
      1280 - 2560 * raw[..., 0],
      960 - 1920 * raw[..., 1],
      raw[..., 2] * 10000 / 7.8125,
    ],
    -1,
  )
  seen = item.features.reshape(-1, 2, 15, 3) * 1000
  motion = np.abs(np.diff(seen, axis=0)).sum((0, 2, 3))
  assert motion[0] > motion[1]
  order = [0, 1] if np.allclose(seen[:, 0], metric[:, 0], atol=1) else [1, 0]
  np.testing.assert_allclose(seen, metric[:, order], atol=1e-2)


def test_msr_is_cross_subject_in_its_action_sets(tmp_path):
  arrays = arrays_of('msr_action3d')
  arrays['joints'][1, 4] = 0  # Not seen.
  np.savez(tmp_path / 'msr_action3d.npz', **arrays)
  divisions, _ = kinect.divisions('msr_action3d', tmp_path)
  assert {n: len({i.label for i in x}) for n, x in divisions.items()} == {
    'all': 20,
    'as1': 8,
    'as2': 8,
    'as3': 8,
  }
  for items in divisions.values():
    assert splits(items) == {
      'train': {'s1', 's3', 's5', 's7'},
      'validation': {'s9'},
      'test': {'s2', 's4', 's6', 's8', 's10'},
    }
  assert len(divisions['all']) == len(arrays['lengths']) - 1
  first = next(x for x in divisions['as2'] if x.id.endswith('/a1_s1_t1.npy'))
  joints = arrays['joints'][: arrays['lengths'][0]]
  neighbours = joints[[0, 2]] if len(joints) > 2 else joints[[0]]
  np.testing.assert_allclose(
    first.features.reshape(-1, 20, 3)[1, 4],
    neighbours[:, 4].mean(axis=0),
    rtol=1e-5,
  )


@pytest.mark.parametrize('named', [True, False])
@pytest.mark.parametrize('persons', [(), (2,)])
def test_other_sets_in_one_file(tmp_path, named, persons):
  lengths = np.array([2, 3, 4, 2])
  arrays = {
    'joints': points(11, *persons, 5, 2),
    'lengths': lengths,
    'action': np.array([1, 2, 1, 2]),
    'subject': np.array([1, 1, 2, 2]),
  }
  if named:
    arrays |= {'action_names': np.array(['wave', 'a/b?'])}
  else:
    arrays |= {'trial': np.array([1, 1, 1, 1])}
  np.savez(tmp_path / 'own.npz', **arrays)
  write_lists(tmp_path / 'lists', train=['s1'], test=['s2'])
  found, _ = kinect.divisions('npz', tmp_path / 'own.npz', tmp_path / 'lists')
  (items,) = found.values()
  names = {'wave', 'a_b_'} if named else {'action 01', 'action 02'}
  assert {item.label for item in items} == names
  assert sorted(len(item.features) for item in items) == [2, 2, 3, 4]
  assert {item.group: item.split for item in items} == {
    's1': 'validation',
    's2': 'test',
  }
  arrays['lengths'] = lengths + 1
  np.savez(tmp_path / 'own.npz', **arrays)
  with pytest.raises(ValueError, match='do not fit together'):
    kinect.divisions('npz', tmp_path / 'own.npz')


@pytest.mark.parametrize(
  ('layout', 'field', 'value'),
  [
    ('sbu_kinect', 'action', 9),
    ('msr_action3d', 'lengths', 3000),
    ('msr_action3d', 'subject', 11),
    ('msr_action3d', 'joints', np.inf),
  ],
)
def test_damaged_sets_are_refused(tmp_path, layout, field, value):
  arrays = arrays_of(layout)
  arrays[field][0] = value
  np.savez(tmp_path / f'{layout}.npz', **arrays)
  with pytest.raises(ValueError, match='is damaged|other subjects'):
    kinect.read(layout, tmp_path)
  del arrays[field]
  np.savez(tmp_path / f'{layout}.npz', **arrays)
  with pytest.raises(ValueError, match='It must hold'):
    kinect.read(layout, tmp_path)


def test_the_command_prepares_folds(mine, tmp_path):
  write_lists(
    mine / 'lists' / 'first',
    train=['wave/s1_1', 'clap/s2_1'],
    test=['wave/s3_1'],
  )
  command = [
    sys.executable,
    ROOT / 'scripts' / 'prepare_clips.py',
    '--name=skeletons/mine',
    f'--input={mine}',
    f'--data_dir={tmp_path / "tfds"}',
  ]
  environment = {'PYTHONPATH': str(ROOT), 'PATH': ''}
  done = subprocess.run(
    command, capture_output=True, text=True, env=environment
  )
  assert done.returncode == 0, done.stderr
  assert 'train: 1\nvalidation: 1\ntest: 1\n' in done.stdout
  assert 'skeletons/mine_first, fingerprint' in done.stdout


@pytest.mark.parametrize(
  ('layout', 'division', 'sizes'),
  [
    # Of 282 recordings, and of the 557 of MSR Action3D.
    ('sbu_kinect', 'fold1', (175, 52, 55)),
    ('sbu_kinect', 'fold5', (162, 55, 65)),
    ('msr_action3d', 'all', (227, 57, 273)),
    ('msr_action3d', 'as1', (93, 21, 105)),
  ],
)
def test_the_real_sets(shared, layout, division, sizes):
  divisions, _ = kinect.divisions(layout, shared / 'data' / 'skeletons')
  splits = [item.split for item in divisions[division]]
  assert tuple(map(splits.count, ('train', 'validation', 'test'))) == sizes
