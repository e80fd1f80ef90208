import dataclasses

import numpy as np
import pytest
from PIL import Image

from video.synthetic import photo_track


def sequences(split='train', **fields):
  shape = dict(count=40, num_frames=8, height=48, width=64)
  return photo_track.PhotoTrack(split, **{**shape, **fields})


def test_a_sequence_depends_on_its_index_and_split_alone():
  record, again = sequences()[3], sequences(count=7)[3]
  assert record['id'] == again['id'] == 'train-000003'
  for name in ('frames', 'boxes', 'hidden'):
    np.testing.assert_array_equal(record[name], again[name])
  others = (sequences()[4], sequences('test')[3])
  for other in others:
    assert np.any(record['frames'] != other['frames'])
  assert len(list(sequences(count=2))) == 2
  assert photo_track.fingerprint(sequences()) == photo_track.fingerprint(
    sequences()
  )
  assert photo_track.fingerprint(sequences()) != photo_track.fingerprint(
    sequences(num_frames=9)
  )


def test_sequences_keep_their_promises():
  found = [sequences()[i] for i in range(40)]
  for record in found:
    assert record['frames'].dtype == np.uint8
    assert record['frames'].shape == (8, 48, 64, 3)
    assert record['boxes'].dtype == np.float32
    centres = record['boxes'][:, :2] + record['boxes'][:, 2:] / 2
    assert np.all((centres > 0) & (centres < (64, 48)))
    assert np.all(record['boxes'][:, 2:] >= 6)
    # In the first frame all of it can be seen.
    assert np.all(record['boxes'][0, :2] >= -1e-3)
    ends = record['boxes'][0, :2] + record['boxes'][0, 2:]
    assert np.all(ends <= np.array((64, 48)) + 1e-3)
    assert not record['hidden'][:3].any()
  assert any(record['hidden'].any() for record in found)


def test_an_object_fills_its_box_and_nothing_else():
  boxes = np.array([[10.25, 6.5, 12, 20]], np.float32)
  target = photo_track.MovingObject(
    texture=Image.new('RGB', (26, 26), 'white'),
    size=np.array([12.0, 20.0]),
    outline='rectangle',
    boxes=boxes,
    angles=np.zeros(1),
  )
  for angle in (0.0, 0.4):
    turned = dataclasses.replace(target, angles=np.array([angle]))
    frame = np.zeros((40, 50, 3), np.float32)
    photo_track._paint(frame, turned, 0)
    covered = frame[..., 0] / 255
    assert covered.sum() == pytest.approx(12 * 20, rel=0.01)
    rows, columns = np.nonzero(covered)
    assert (rows.min(), rows.max()) == (6, 26)
    assert (columns.min(), columns.max()) == (10, 22)
  assert photo_track._visible_share(target, [], 0, 40, 50) == pytest.approx(1)
  # Half of it hidden, by the end of the frame or by another object.
  assert photo_track._visible_share(target, [], 0, 40, 16) == pytest.approx(
    0.479, abs=0.05
  )
  half = boxes * (1, 1, 0.5, 1)
  above = dataclasses.replace(target, boxes=half.astype(np.float32))
  assert photo_track._visible_share(
    target, [above], 0, 40, 50
  ) == pytest.approx(0.5, abs=0.05)
  assert photo_track._visible_share(target, [target], 0, 40, 50) < 0.1


def test_splits_have_their_own_images(tmp_path):
  """Each image has one colour, which identifies it in the frames."""
  for i in range(10):
    image = Image.new('RGB', (70, 60), (25 * i, 255 - 25 * i, 128))
    image.save(tmp_path / f'{i}.png')
  seen = {}
  for split in photo_track.SPLITS:
    source = sequences(split, images=tmp_path, count=6)
    texture = source._texture
    rng = np.random.default_rng(0)
    seen[split] = {tuple(texture(rng, 8, 8)[4, 4].tolist()) for _ in range(40)}
    assert source[0]['frames'].shape == (8, 48, 64, 3)
  assert len(set.union(*seen.values())) == sum(map(len, seen.values()))


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (dict(split='dev'), "split='dev' must be one of train, validation, test"),
    (dict(height=16), '32 x 32 pixels'),
    (dict(num_frames=3), '4 frames'),
    (dict(count=0), 'at least 1 sequence'),
  ],
)
def test_wrong_sequences_are_named(fields, message):
  with pytest.raises(ValueError, match=message):
    sequences(**fields)
