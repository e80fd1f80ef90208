import collections

import numpy as np
import pytest

from video import recordings


def save_utd_mhad(path, name, shape, **changes):
  """Four recordings: subjects 1 and 2 and 7 and 8."""
  lengths = np.array([3, 1, 2, 4], np.int32)
  values = np.arange(10 * np.prod(shape)).reshape(10, *shape)
  dtype = np.float32 if name == 'joints' else np.uint8
  arrays = {
    name: values.astype(dtype),
    'lengths': lengths,
    'action': np.array([10, 10, 2, 27], np.int32),
    'subject': np.array([1, 2, 7, 8], np.int32),
    'trial': np.array([1, 1, 4, 2], np.int32),
  }
  np.savez(path, **arrays | changes)
  return arrays[name]


def test_utd_mhad_is_split_by_subject(tmp_path):
  joints = save_utd_mhad(tmp_path / 'skeleton.npz', 'joints', (20, 3))
  found = recordings.utd_mhad_skeletons(tmp_path)
  assert [(r.id, r.split, r.label, r.group) for r in found] == [
    ('a2_s7_t4', 'validation', 'swipe right', 's7'),
    ('a10_s1_t1', 'train', 'draw circle counter-clockwise', 's1'),
    ('a10_s2_t1', 'test', 'draw circle counter-clockwise', 's2'),
    ('a27_s8_t2', 'test', 'squat', 's8'),
  ]
  np.testing.assert_array_equal(found[1].features, joints[:3].reshape(3, 60))
  other = recordings.utd_mhad_skeletons(tmp_path, validation_subject=1)
  assert [r.split for r in other] == ['train', 'validation', 'test', 'test']
  with pytest.raises(ValueError, match='must be one that is trained on'):
    recordings.utd_mhad_skeletons(tmp_path, validation_subject=2)
  depth = save_utd_mhad(tmp_path / 'depth_48x64.npz', 'frames', (6, 8))
  clips = recordings.utd_mhad_depth(tmp_path)
  assert [c.id for c in clips] == [r.id for r in found]
  np.testing.assert_array_equal(clips[0].frames, depth[4:6, ..., np.newaxis])


def test_damaged_files_of_utd_mhad_are_refused(tmp_path):
  path = tmp_path / 'skeleton.npz'
  for changes in (
    {'lengths': np.array([3, 1, 2, 5])},
    {'action': np.array([0, 1, 2, 3])},
    {'subject': np.array([1, 2, 3])},
    {'joints': np.full((10, 20, 3), np.nan, np.float32)},
  ):
    save_utd_mhad(path, 'joints', (20, 3), **changes)
    with pytest.raises(ValueError, match='skeleton.npz is damaged'):
      recordings.utd_mhad_skeletons(tmp_path)
  save_utd_mhad(path, 'other', (20, 3))
  with pytest.raises(ValueError, match='cannot read .*It must hold joints'):
    recordings.utd_mhad_skeletons(tmp_path)
  with pytest.raises(ValueError, match='depth_48x64.npz: .*must hold frames'):
    recordings.utd_mhad_depth(tmp_path)


def save_fingertips(path, counts=(40, 30), points=4):
  rows = []
  for label, count in enumerate(counts):
    for i in range(count):
      rows.append([label, *np.arange(2 * points) + i / 64])
  path.write_text(
    '\ufeff' + '\n'.join(','.join(map(str, row)) for row in rows) + '\n'
  )
  path.with_name('point_history_classifier_label.csv').write_text(
    '\ufeffStop\r\nMove\r\n', newline=''
  )
  return path


def test_fingertips_are_in_blocks_with_gaps(tmp_path):
  counts = (100, 60)
  path = save_fingertips(tmp_path / 'point_history.csv', counts)
  tracks = recordings.fingertips(path, gap=4)
  blocks = collections.defaultdict(list)
  for track in tracks:
    row = int(track.id.removeprefix('row'))
    blocks[track.label, track.split].append(row)
    first = row if track.label == 'Stop' else row - counts[0]
    np.testing.assert_array_equal(
      track.features, np.arange(8).reshape(4, 2) + np.float32(first / 64)
    )
    assert track.features.dtype == np.float32
  assert blocks == {
    ('Stop', 'train'): list(range(60)),
    ('Stop', 'validation'): list(range(64, 70)),
    ('Stop', 'test'): list(range(74, 100)),
    ('Move', 'train'): list(range(100, 136)),
    ('Move', 'validation'): list(range(140, 142)),
    ('Move', 'test'): list(range(146, 160)),
  }


def test_bad_fingertips_are_refused(tmp_path):
  path = save_fingertips(tmp_path / 'point_history.csv')
  with pytest.raises(ValueError, match='must be at least 4, the points'):
    recordings.fingertips(path, gap=3)
  with pytest.raises(ValueError, match="'Stop' has 40 rows, too few"):
    recordings.fingertips(path, gap=16)
  with pytest.raises(ValueError, match='must be a class, 0 to 0'):
    recordings.fingertips(path, names=['Stop'], gap=4)
  for line, problem in (
    ('0,1,2', 'equally many pairs'),
    ('0' + ',1' * 7 + ',x', 'numbers only'),
    ('0' + ',1' * 7 + ',nan', 'must be finite'),
    ('0.5' + ',1' * 8, 'must be a class'),
  ):
    save_fingertips(path)
    with open(path, 'a') as file:
      file.write(line + '\n')
    with pytest.raises(ValueError, match=problem):
      recordings.fingertips(path, gap=4)


def test_real_fingertips(shared):
  path = shared / 'data' / 'hand_gestures' / 'point_history.csv'
  tracks = recordings.fingertips(path)
  counts = collections.Counter(track.split for track in tracks)
  assert counts == {'train': 3176, 'validation': 465, 'test': 1527}
  rows = collections.defaultdict(dict)
  for track in tracks:
    row = int(track.id.removeprefix('row'))
    rows[track.label].setdefault(track.split, []).append(row)
  assert set(rows) == {'Stop', 'Clockwise', 'Counter Clockwise', 'Move'}
  for of_class in rows.values():
    # No point of a row is in a row of another block.
    assert min(of_class['validation']) - max(of_class['train']) > 16
    assert min(of_class['test']) - max(of_class['validation']) > 16


def test_real_utd_mhad(shared):
  skeletons = recordings.utd_mhad_skeletons(shared / 'data' / 'utd_mhad')
  depth = recordings.utd_mhad_depth(shared / 'data' / 'utd_mhad')
  assert [s.id for s in skeletons] == [d.id for d in depth]
  assert len({s.id for s in skeletons}) == 861
  counts = collections.Counter(s.split for s in skeletons)
  assert counts == {'train': 323, 'validation': 108, 'test': 430}
  assert len({s.label for s in skeletons}) == 27
  groups = collections.defaultdict(set)
  for skeleton in skeletons:
    groups[skeleton.split].add(skeleton.group)
  assert groups['test'] == {'s2', 's4', 's6', 's8'}
  assert groups['train'] | groups['validation'] == {'s1', 's3', 's5', 's7'}
  assert not groups['train'] & groups['validation']
