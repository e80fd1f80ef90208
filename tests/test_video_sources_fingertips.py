import collections

import numpy as np
import pytest

from video.sources import fingertips


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
  tracks = fingertips.fingertips(path, gap=4)
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
    fingertips.fingertips(path, gap=3)
  with pytest.raises(ValueError, match="'Stop' has 40 rows, too few"):
    fingertips.fingertips(path, gap=16)
  with pytest.raises(ValueError, match='must be a class, 0 to 0'):
    fingertips.fingertips(path, names=['Stop'], gap=4)
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
      fingertips.fingertips(path, gap=4)


def test_real_fingertips(shared):
  path = shared / 'data' / 'hand_gestures' / 'point_history.csv'
  tracks = fingertips.fingertips(path)
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


@pytest.mark.parametrize('value', ['x', 'nan', '1e999', '-1', '0.5', '1e30'])
def test_values_that_are_no_classes_or_numbers(tmp_path, value):
  path = save_fingertips(tmp_path / 'point_history.csv', (100, 60))
  lines = path.read_text().splitlines()
  lines[5] = value + lines[5][1:]
  path.write_text('\n'.join(lines))
  with pytest.raises(ValueError, match=f'{path}'):
    fingertips.fingertips(path, gap=4)
