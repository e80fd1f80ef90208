import numpy as np
import pytest
from PIL import Image

from video.sources import otb


def save_track(folder, lines, count=3, name='groundtruth_rect.txt'):
  (folder / 'img').mkdir(parents=True, exist_ok=True)
  for i in range(1, count + 1):
    Image.new('RGB', (20, 10), (i, 0, 0)).save(folder / 'img' / f'{i:04d}.jpg')
  (folder / name).write_text(''.join(f'{line}\n' for line in lines))


def test_otb_separates_numbers_in_many_ways(tmp_path):
  boxes = [[2, 3, 5, 4], [3, 3, 5, 4], [4.5, 3, 5, 4]]
  for name, separator in (('A', ','), ('B', '\t'), ('C', '  '), ('D', ', ')):
    lines = [separator.join(map(str, box)) for box in boxes]
    save_track(tmp_path / name, [*lines, ''])
  tracks, report = otb.otb(tmp_path)
  assert not report and [t.id for t in tracks] == ['A', 'B', 'C', 'D']
  for track in tracks:
    # Pixels are counted from 0.
    np.testing.assert_array_equal(track.boxes, np.array(boxes) - [1, 1, 0, 0])
    assert track.boxes.dtype == np.float32 and not track.hidden.any()
    assert [p.name for p in track.paths] == [
      '0001.jpg',
      '0002.jpg',
      '0003.jpg',
    ]
    assert track.split == 'test'
  one, _ = otb.otb(tmp_path / 'B', split='train')
  assert [(t.id, t.split) for t in one] == [('B', 'train')]


def test_otb_has_folders_of_two_tracks_and_of_a_part(tmp_path):
  for number in (1, 2):
    save_track(
      tmp_path / 'Jogging',
      [f'{number},1,2,2'] * 3,
      name=f'groundtruth_rect.{number}.txt',
    )
  save_track(tmp_path / 'Football1', ['1,1,2,2'] * 74, count=76)
  tracks, _ = otb.otb(tmp_path)
  assert [t.id for t in tracks] == ['Football1', 'Jogging-1', 'Jogging-2']
  assert len(tracks[0].paths) == 74
  assert tracks[0].paths[-1].name == '0074.jpg'
  assert [t.boxes[0, 0] for t in tracks[1:]] == [0, 1]


def test_boxes_that_are_empty_say_that_nothing_is_seen(tmp_path):
  save_track(tmp_path / 'A', ['1,1,2,2', '0,0,0,0', 'NaN,NaN,NaN,NaN'])
  (track,), _ = otb.otb(tmp_path)
  np.testing.assert_array_equal(track.hidden, [False, True, True])
  np.testing.assert_array_equal(track.boxes, [[0, 0, 2, 2], [0] * 4, [0] * 4])


def test_all_that_is_wrong_with_tracks_is_in_one_error(tmp_path):
  good = ['1,1,2,2'] * 3
  save_track(tmp_path / 'good', good)
  save_track(tmp_path / 'few', good[:2])
  save_track(tmp_path / 'three', ['1,1,2'] * 3)
  save_track(tmp_path / 'word', ['1,1,2,x'] * 3)
  save_track(tmp_path / 'late', ['0,0,0,0', *good[:2]])
  save_track(tmp_path / 'broken', good)
  (tmp_path / 'broken' / 'img' / '0002.jpg').write_bytes(b'')
  save_track(tmp_path / 'sizes', good)
  Image.new('RGB', (5, 5)).save(tmp_path / 'sizes' / 'img' / '0002.jpg')
  (tmp_path / 'empty').mkdir()
  with pytest.raises(ValueError) as error:
    otb.otb(tmp_path)
  truth = 'groundtruth_rect.txt'
  for problem in (
    f'no img/ or no {truth} (1):\n  {tmp_path / "empty"}',
    'do not fit together (4):',
    f'{tmp_path / "few" / truth}: 2 boxes for 3 images',
    f'{tmp_path / "three" / truth}: line 1 does not hold four numbers',
    f'{tmp_path / "word" / truth}: could not convert',
    f'{tmp_path / "late" / truth}: the first frame has no box',
    'cannot be decoded (2):',
    f'cannot decode {tmp_path / "broken" / "img" / "0002.jpg"}',
    'the images of sizes differ in size: [(5, 5, 3), (10, 20, 3)]',
  ):
    assert problem in str(error.value)
  tracks, _ = otb.otb(tmp_path, skip_bad=True)
  assert [t.id for t in tracks] == ['good']


def test_real_tracks(shared):
  tracks, report = otb.otb(shared / 'data' / 'otb')
  assert not report
  assert {t.id: len(t.boxes) for t in tracks} == {'Crossing': 120, 'Skiing': 81}
  np.testing.assert_array_equal(
    [t.boxes[0] for t in tracks], [[204, 150, 17, 50], [445, 180, 29, 26]]
  )
