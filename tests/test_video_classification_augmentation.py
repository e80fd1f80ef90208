import numpy as np
import pytest

from video.classification import augmentation
from video.synthetic import gesture_stream
from video.synthetic import ordered_motion


def clip():
  rng = np.random.default_rng(0)
  return rng.integers(1, 255, size=(3, 6, 8, 3), dtype=np.uint8)


def body():
  return np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)


@pytest.mark.parametrize(
  'flip, module, table',
  [
    ('left_right', ordered_motion, [2, 3, 0, 1, 5, 4, 7, 6]),
    ('up_down', ordered_motion, [1, 0, 3, 2, 6, 7, 4, 5]),
    ('half_turn', gesture_stream, [0, 1, 2, 4, 3, 6, 5, 8, 7]),
  ],
)
def test_labels_of_generated_clips_are_flipped(flip, module, table):
  labels = augmentation.flipped_labels(flip, module.CLASSES)
  np.testing.assert_array_equal(labels, table)


def test_flips_reverse_the_axes():
  frames = clip()
  for flip, expected in (
    ('left_right', frames[:, :, ::-1]),
    ('up_down', frames[:, ::-1]),
    ('half_turn', frames[:, ::-1, ::-1]),
  ):
    flipped = augmentation.flip_frames(frames, flip)
    np.testing.assert_array_equal(flipped, expected)


def test_words_inside_of_others_stay():
  names = ['upright', 'swing left', 'swing right', 'Clockwise']
  labels = augmentation.flipped_labels('left_right', names)
  assert list(labels) == [0, 2, 1, 3]


def test_a_flip_that_makes_no_class_is_refused():
  with pytest.raises(ValueError, match="'Z' into 'mirrored Z', which is no"):
    augmentation.flipped_labels('left_right', gesture_stream.CLASSES)
  with pytest.raises(ValueError, match="'go left' into 'go right', which is"):
    augmentation.flipped_labels('left_right', ['go left', 'stay'])
  with pytest.raises(ValueError, match="'sideways' is none of left_right"):
    augmentation.flipped_labels('sideways', ['stay'])


def test_random_spans_have_every_size_and_place():
  rng = np.random.default_rng(0)
  spans = {augmentation.random_span(4, 0.5, rng) for _ in range(300)}
  assert spans == {(0, 2), (1, 3), (2, 4), (0, 3), (1, 4), (0, 4)}
  assert augmentation.random_span(1, 0.1, rng) == (0, 1)
  assert augmentation.random_span(7, 1.0, rng) == (0, 7)


def test_shift_moves_all_frames_alike():
  frames, moves = clip(), set()
  rng = np.random.default_rng(0)
  for _ in range(300):
    shifted = augmentation.shift(frames, 2, rng)
    assert shifted.dtype == np.uint8
    for down in range(-2, 3):
      for right in range(-2, 3):
        padded = np.pad(frames, ((0, 0), (2, 2), (2, 2), (0, 0)), mode='edge')
        part = padded[:, 2 - down :, 2 - right :][:, :6, :8]
        if np.array_equal(shifted, part):
          moves.add((down, right))
  assert len(moves) == 25


def test_zoom_of_one_changes_nothing_and_of_two_doubles():
  frames = clip()
  np.testing.assert_array_equal(augmentation.zoom(frames, 1.0), frames)
  rows = np.arange(8, dtype=np.uint8).reshape(1, 8, 1, 1)
  zoomed = augmentation.zoom(np.broadcast_to(rows, (1, 8, 8, 1)), 2.0)
  assert list(zoomed[0, :, 0, 0]) == [2, 2, 3, 3, 4, 4, 5, 5]


def test_brighten_leaves_what_was_not_read():
  frames = np.array([0, 1, 100, 250], np.uint8).reshape(1, 2, 2, 1)
  assert list(augmentation.brighten(frames, 20).flat) == [0, 21, 120, 255]
  assert list(augmentation.brighten(frames, -20).flat) == [0, 1, 80, 230]


def test_colours_change_in_all_frames_alike():
  frames = clip()
  rng = np.random.default_rng(0)
  orders = set()
  for _ in range(60):
    permuted = augmentation.permute_channels(frames, rng)
    order = [
      next(i for i in range(3) if np.array_equal(frames[..., i], channel))
      for channel in np.moveaxis(permuted, -1, 0)
    ]
    orders.add(tuple(order))
  assert len(orders) == 6


def test_a_body_that_stands_elsewhere_is_the_same():
  points = body()
  moved = points + np.array([1, -2, 3], np.float32)
  seen = augmentation.relative_to(points, 2)
  np.testing.assert_allclose(
    augmentation.relative_to(moved, 2), seen, atol=1e-5
  )
  np.testing.assert_array_equal(seen[0, 2], 0)


def test_turns_keep_distances_and_heights_and_add_up():
  points = body()
  turned = augmentation.rotate(points, 0.3, (0, 2))
  np.testing.assert_array_equal(turned[..., 1], points[..., 1])
  np.testing.assert_allclose(
    np.linalg.norm(turned, axis=-1), np.linalg.norm(points, axis=-1), rtol=1e-5
  )
  again = augmentation.rotate(turned, 0.5, (0, 2))
  np.testing.assert_allclose(
    again, augmentation.rotate(points, 0.8, (0, 2)), atol=1e-6
  )
  quarter = augmentation.rotate(points, np.pi / 2, (0, 2))
  np.testing.assert_allclose(quarter[..., 2], points[..., 0], atol=1e-6)


def test_persons_are_exchanged_as_wholes():
  points = np.random.default_rng(0).normal(size=(4, 6, 3)).astype(np.float32)
  persons = points.reshape(4, 3, 2, 3)
  orders = set()
  for seed in range(40):
    rng = np.random.default_rng(seed)
    found = augmentation.shuffle_persons(points, 3, rng).reshape(4, 3, 2, 3)
    order = tuple(
      next(i for i in range(3) if np.array_equal(found[:, k], persons[:, i]))
      for k in range(3)
    )
    assert sorted(order) == [0, 1, 2]
    orders.add(order)
  assert len(orders) == 6
  with pytest.raises(ValueError, match='6 joints are not of 4 persons'):
    augmentation.shuffle_persons(points, 4, np.random.default_rng(0))
