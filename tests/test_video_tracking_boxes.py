import jax
import numpy as np
import pytest
import scipy.ndimage

from video.tracking import boxes as boxes_lib

HEIGHT, WIDTH = 20, 24
FRAME = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3))


def assert_close(actual, expected, tolerance=1e-4):
  np.testing.assert_allclose(
    actual, expected, rtol=tolerance, atol=10 * tolerance
  )


def test_decode_is_the_inverse_of_encode():
  rng = np.random.default_rng(0)
  boxes = rng.uniform(5, 15, (2, 30, 4)).astype(np.float32)
  code = boxes_lib.encode(*boxes)
  assert np.abs(code).max() < boxes_lib.MAX_OFFSET
  assert_close(boxes_lib.decode(code, boxes[1]), boxes[0], 1e-5)
  # By hand: the centre moves by half a width, the height doubles.
  moved = boxes_lib.encode(
    np.array([6.0, 8, 4, 20]), np.array([4.0, 13, 4, 10])
  )
  assert_close(moved, [0.5, 0, 0, np.log(2)], 1e-6)


def test_no_box_goes_farther_than_what_is_learnt():
  search = np.array([10.0, 10, 4, 6], np.float32)
  wild = boxes_lib.decode(np.array([9.0, -9, 9, -9]), search)
  assert_close(boxes_lib.encode(wild, search), [2, -2, 2, -2], 1e-5)


@pytest.mark.parametrize(
  ('box', 'expected'),
  [
    ((3, 4, 5, 6), (3, 4, 5, 6)),
    ((-2, 4, 5, 6), (-2, 4, 5, 6)),  # The centre is inside.
    ((-5, 30, 4, 2), (-2, 19, 4, 2)),
    ((0, 0, 100, 0.1), (12, -0.95, 24, 2)),
  ],
)
def test_a_box_that_leaves_the_frame_is_brought_back(box, expected):
  kept = boxes_lib.keep_inside(np.array(box, np.float32), HEIGHT, WIDTH)
  assert_close(kept, expected, 1e-6)


def test_errors_that_stay_for_a_while():
  boxes = np.tile(np.array([10, 10, 8, 4], np.float32), (4000, 6, 1))
  moved = boxes_lib.jitter(
    jax.random.key(0), boxes, correlation=0.7, centre=0.1, size=0.05
  )
  np.testing.assert_array_equal(moved[:, 0], boxes[:, 0])
  code = np.asarray(boxes_lib.encode(moved, boxes))
  assert_close(
    code[:, 1:].std(0), np.tile([0.1, 0.1, 0.05, 0.05], (5, 1)), 5e-3
  )
  assert np.corrcoef(code[:, 4, 0], code[:, 5, 0])[0, 1] == pytest.approx(
    0.7, abs=0.05
  )
  assert np.corrcoef(code[:, 4, 0], code[:, 4, 1])[0, 1] == pytest.approx(
    0, abs=0.05
  )


def test_each_frame_is_searched_where_the_one_before_was_found():
  boxes = np.arange(24, dtype=np.float32).reshape(1, 6, 4)
  search = boxes_lib.search_boxes(boxes)
  np.testing.assert_array_equal(search[:, 0], boxes[:, 0])
  np.testing.assert_array_equal(search[:, 1:], boxes[:, :-1])


@pytest.mark.parametrize(
  ('box', 'message'),
  [
    ((1, 2, 3), 'pass x, y, width and height in pixels'),
    ((1, 2, 0, 3), 'the last two above zero'),
    ((1, 2, 3, np.nan), 'pass x, y, width and height in pixels'),
    ((30, 2, 3, 3), 'which is 24 wide and 20 high'),
  ],
)
def test_wrong_boxes_are_named(box, message):
  with pytest.raises(ValueError, match=message):
    boxes_lib.check_box(box, HEIGHT, WIDTH)


# Crops.


def crop(frame, box, size, context=1.0):
  frames, boxes = np.asarray(frame, np.float32)[None], np.float32(box)[None]
  return np.asarray(boxes_lib.crop(frames, boxes, size, context))[0]


def test_a_crop_of_whole_pixels_is_that_part_of_the_frame():
  frame = FRAME
  assert_close(crop(frame, (3, 2, 8, 8), 8), frame[2:10, 3:11], 1e-5)
  # Context grows to all sides.
  assert_close(crop(frame, (5, 4, 4, 4), 8, 2.0), frame[2:10, 3:11], 1e-5)


def test_a_smaller_crop_is_the_mean_of_what_it_covers():
  frame = FRAME.astype(np.float32)
  expected = frame[2:14, 4:16].reshape(4, 3, 4, 3, 3).mean((1, 3))
  assert_close(crop(frame, (4, 2, 12, 12), 4), expected, 1e-5)
  # And of any ratio: a constant stays one.
  assert_close(crop(np.ones((20, 24, 1)), (2, 1.3, 17, 13), 7), 1.0, 1e-6)


def test_a_larger_crop_is_interpolated_bilinearly():
  frame = FRAME.astype(np.float32)
  x, y, width, height = box = (4.3, 3.1, 9.0, 7.0)
  rows = y + (np.arange(16) + 0.5) / 16 * height - 0.5
  columns = x + (np.arange(16) + 0.5) / 16 * width - 0.5
  positions = np.meshgrid(rows, columns, indexing='ij')
  expected = np.stack(
    [
      scipy.ndimage.map_coordinates(frame[..., c], positions, order=1)
      for c in range(3)
    ],
    axis=-1,
  )
  assert_close(crop(frame, box, 16), expected, 1e-5)


def test_outside_of_the_frame_there_is_nothing():
  found = crop(np.ones((20, 24, 1)), (-4, 14, 8, 8), 8)[..., 0]
  expected = np.zeros((8, 8))
  expected[:6, 4:] = 1
  assert_close(found, expected, 1e-6)
  assert np.all(crop(np.ones((20, 24, 1)), (100, 100, 8, 8), 8) == 0)
