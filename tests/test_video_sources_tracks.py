import numpy as np
import pytest
from PIL import Image

from video.sources import tracks


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
  found, report = tracks.read(tmp_path)
  assert not report and [t.id for t in found] == ['A', 'B', 'C', 'D']
  for track in found:
    # Pixels are counted from 0.
    np.testing.assert_array_equal(track.boxes, np.array(boxes) - [1, 1, 0, 0])
    assert track.boxes.dtype == np.float32 and not track.hidden.any()
    assert [p.name for p in track.paths] == [
      '0001.jpg',
      '0002.jpg',
      '0003.jpg',
    ]
    assert track.split == 'test'
  one, _ = tracks.read(tmp_path / 'B', split='train')
  assert [(t.id, t.split) for t in one] == [('B', 'train')]


def test_otb_has_folders_of_two_tracks_and_of_a_part(tmp_path):
  for number in (1, 2):
    save_track(
      tmp_path / 'Jogging',
      [f'{number},1,2,2'] * 3,
      name=f'groundtruth_rect.{number}.txt',
    )
  save_track(tmp_path / 'Football1', ['1,1,2,2'] * 74, count=76)
  found, _ = tracks.read(tmp_path)
  assert [t.id for t in found] == ['Football1', 'Jogging-1', 'Jogging-2']
  assert len(found[0].paths) == 74
  assert found[0].paths[-1].name == '0074.jpg'
  assert [t.boxes[0, 0] for t in found[1:]] == [0, 1]


@pytest.mark.parametrize('count', [349, 354])
def test_otb_evaluates_tiger1_from_its_sixth_image(tmp_path, count):
  lines = [f'{number / 100},1,2,2' for number in range(355 - count, 355)]
  save_track(tmp_path / 'Tiger1', lines, count=354)
  (track,), _ = tracks.read(tmp_path)
  assert len(track.paths) == len(track.boxes) == 349
  assert track.paths[0].name == '0006.jpg'
  assert track.paths[-1].name == '0354.jpg'
  np.testing.assert_allclose(track.boxes[[0, -1], 0], [-0.94, 2.54], atol=1e-6)


def test_boxes_that_are_empty_say_that_nothing_is_seen(tmp_path):
  save_track(tmp_path / 'A', ['1,1,2,2', '0,0,0,0', 'NaN,NaN,NaN,NaN'])
  (track,), _ = tracks.read(tmp_path)
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
    tracks.read(tmp_path)
  truth = 'groundtruth_rect.txt'
  for problem in (
    f'no {truth} or groundtruth.txt (1):\n  {tmp_path / "empty"}',
    'do not fit together (4):',
    f'{tmp_path / "few" / truth}: 2 boxes for 3 images',
    f'{tmp_path / "three" / truth}: line 1 does not hold four numbers',
    f'{tmp_path / "word" / truth}: line 1: could not convert',
    f'{tmp_path / "late" / truth}: the first frame has no box',
    'cannot be decoded (2):',
    f'cannot decode {tmp_path / "broken" / "img" / "0002.jpg"}',
    'the images of sizes differ in size: [(5, 5, 3), (10, 20, 3)]',
  ):
    assert problem in str(error.value)
  found, _ = tracks.read(tmp_path, skip_bad=True)
  assert [t.id for t in found] == ['good']


def test_real_tracks(shared):
  found, report = tracks.read(shared / 'data' / 'otb')
  assert not report
  assert {t.id: len(t.boxes) for t in found} == {'Crossing': 120, 'Skiing': 81}
  np.testing.assert_array_equal(
    [t.boxes[0] for t in found], [[204, 150, 17, 50], [445, 180, 29, 26]]
  )


def save_frames(folder, count=3):
  folder.mkdir(parents=True, exist_ok=True)
  for i in range(1, count + 1):
    Image.new('RGB', (20, 10), (i, 0, 0)).save(folder / f'{i:08d}.jpg')


def test_a_folder_without_images_is_one_problem(tmp_path):
  save_track(tmp_path / 'a', ['1,1,2,2'] * 3)
  (tmp_path / 'b').mkdir()
  (tmp_path / 'b' / 'groundtruth_rect.txt').write_text('1,1,2,2\n' * 3)
  with pytest.raises(ValueError, match=f'{tmp_path / "b"} has no images'):
    tracks.read(tmp_path)
  found, report = tracks.read(tmp_path, skip_bad=True)
  assert [t.id for t in found] == ['a'] and 'no images' in report


def test_boxes_outside_of_the_frame(tmp_path):
  save_track(tmp_path / 'a', ['1,1,2,2', '99,1,5,5', '-9,1,9,5'])
  save_track(tmp_path / 'b', ['99,1,5,5', '1,1,2,2', '1,1,2,2'])
  with pytest.raises(ValueError, match=r'first box .*\n  b: the centre of'):
    tracks.read(tmp_path)
  (track,), _ = tracks.read(tmp_path, skip_bad=True)
  np.testing.assert_array_equal(track.hidden, [False, True, True])


def test_lasot(tmp_path):
  """Classes of sequences, with flags of what is hidden, and a list."""
  for i in (1, 2):
    folder = tmp_path / 'cat' / f'cat-{i}'
    save_frames(folder / 'img')
    (folder / 'groundtruth.txt').write_text('2,3,5,4\n' * 3)
    (folder / 'full_occlusion.txt').write_text('0,1,0')
    (folder / 'out_of_view.txt').write_text('0,0,0\n')
    (folder / 'nlp.txt').write_text('a cat')
  found, report = tracks.read(tmp_path)
  assert not report
  assert [(t.id, t.split) for t in found] == [
    ('cat-1', 'test'),
    ('cat-2', 'test'),
  ]
  np.testing.assert_array_equal(found[0].boxes[::2], [[2, 3, 5, 4]] * 2)
  np.testing.assert_array_equal(found[0].hidden, [False, True, False])
  (tmp_path / 'testing_set.txt').write_text('cat-2\r\n')
  found, _ = tracks.read(tmp_path)
  assert [t.split for t in found] == ['train', 'test']
  (folder / 'out_of_view.txt').write_text('0,2,0')
  with pytest.raises(ValueError, match='does not hold 3 flags 0 or 1'):
    tracks.read(tmp_path)


def test_got_10k(tmp_path):
  """Frames beside the boxes; the folders are the splits."""
  for split in ('train', 'val', 'test'):
    folder = tmp_path / split / f'GOT-10k_{split}_000001'
    save_frames(folder)
    boxes = ['2.5000,3.0000,5.0000,4.0000'] * 3
    (folder / 'groundtruth.txt').write_text('\n'.join(boxes))
    (folder / 'absence.label').write_text('0\n0\n1\n')
    (folder / 'cover.label').write_text('8\n8\n0\n')
    (folder / 'meta_info.ini').write_text('[METAINFO]\n')
    (tmp_path / split / 'list.txt').write_text(folder.name)
  found, report = tracks.read(tmp_path)
  assert not report
  assert {t.id: t.split for t in found} == {
    'GOT-10k_train_000001': 'train',
    'GOT-10k_val_000001': 'validation',
    'GOT-10k_test_000001': 'test',
  }
  np.testing.assert_array_equal(found[0].hidden, [False, False, True])
  np.testing.assert_array_equal(found[0].boxes[0], [2.5, 3, 5, 4])
  (folder / 'groundtruth.txt').write_text(boxes[0])
  with pytest.raises(ValueError, match='boxes of test sets are not published'):
    tracks.read(tmp_path)


def test_vot(tmp_path):
  """Corners, boxes, and frames in color/."""
  save_frames(tmp_path / 'old')
  corners = '2,3,7,3,7,7,2,7'
  (tmp_path / 'old' / 'groundtruth.txt').write_text(f'{corners}\n' * 3)
  save_frames(tmp_path / 'new' / 'color')
  rows = ['2,3,5,4', 'nan,nan,nan,nan', '2.0\t3\t5\t4']
  (tmp_path / 'new' / 'groundtruth.txt').write_text('\n'.join(rows))
  (tmp_path / 'list.txt').write_text('old\nnew\n')
  found, report = tracks.read(tmp_path)
  assert not report and [t.id for t in found] == ['new', 'old']
  np.testing.assert_array_equal(found[0].hidden, [False, True, False])
  for track in found:
    np.testing.assert_array_equal(track.boxes[::2], [[2, 3, 5, 4]] * 2)
