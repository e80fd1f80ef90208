"""The clips, and how well one could do without memory: by counting."""

import collections
import fractions
import functools

import numpy as np
import pytest

from configs import ordered_motion as motion_config
from video.classification import augmentation
from video.classification import examples as examples_lib
from video.synthetic import ordered_motion

LABELS = range(len(ordered_motion.CLASSES))
# Label -> the label of the clip backwards, as the config names them.
REVERSED = {
  ordered_motion.CLASSES.index(one): ordered_motion.CLASSES.index(other)
  for pair in motion_config.REVERSALS
  for one, other in (pair, pair[::-1])
}


def flip(name, record):
  """A clip flipped as in training, with its label."""
  labels = augmentation.flipped_labels(name, ordered_motion.CLASSES)
  return {
    **record,
    'frames': augmentation.flip_frames(record['frames'], name),
    'label': int(labels[record['label']]),
  }


def reverse(record):
  """A clip played backwards as in evaluation, with its label."""
  config = motion_config.get_config()
  example = examples_lib.Examples(
    config.data, config.augmentation, ordered_motion.CLASSES
  ).evaluation(record, 'reversed')
  return {
    **record,
    'frames': example['frames'][0],
    'label': int(example['label']),
  }


CHANGES = {
  'mirrored': functools.partial(flip, 'left_right'),
  'upside down': functools.partial(flip, 'up_down'),
  'backwards': reverse,
}


def paths():
  """Every path there is: label, its probability, int[T, 2]."""
  for label in LABELS:
    for turn in ordered_motion.TURNS:
      for speed in ordered_motion.SPEEDS:
        starts = ordered_motion.starts(label, turn, speed)
        chance = fractions.Fraction(1, len(ordered_motion.TURNS))
        chance /= len(LABELS) * len(ordered_motion.SPEEDS) * len(starts)
        for start in starts:
          yield label, chance, ordered_motion.path(label, turn, speed, start)


def test_a_bag_of_frames_separates_half_of_the_clips():
  """Frames without noise; all other random numbers are alike in all classes.

  The best guess is the likeliest class of those that have the same frames.
  """
  bags = collections.defaultdict(collections.Counter)
  for label, chance, path in paths():
    bags[tuple(sorted(map(tuple, path.tolist())))][label] += chance
  assert sum(max(bag.values()) for bag in bags.values()) == fractions.Fraction(
    1, 2
  )
  assert all(len(bag) == 2 for bag in bags.values())
  total = sum((bag for bag in bags.values()), collections.Counter())
  assert total == {label: fractions.Fraction(1, 8) for label in LABELS}


def test_the_digit_stays_inside():
  for _, _, path in paths():
    assert path.min() >= 0
    assert path.max() <= ordered_motion.SIDE - ordered_motion.DIGIT


@pytest.mark.parametrize('label', LABELS)
@pytest.mark.parametrize('turn', ordered_motion.TURNS)
def test_a_path_backwards_is_a_path_of_another_class(label, turn):
  path = ordered_motion.path(label, turn, 1, np.array([3, 5]))
  other = REVERSED[label]
  back = ordered_motion.path(other, 17 - turn, 1, path[-1])
  np.testing.assert_array_equal(back, path[::-1])
  assert other != label and REVERSED[other] == label
  assert len(ordered_motion.starts(label, turn, 1)) == len(
    ordered_motion.starts(other, 17 - turn, 1)
  )


def seen(record):
  """The class that the pixels show: where the bright strokes go."""
  frames = record['frames'].astype(float)
  strokes = np.maximum(frames - np.median(frames, axis=0) - 30, 0).sum(axis=-1)
  y, x = np.mgrid[: ordered_motion.SIDE, : ordered_motion.SIDE]
  mass = strokes.sum(axis=(1, 2))
  centres = [(strokes * axis).sum(axis=(1, 2)) / mass for axis in (x, y)]
  centres = np.stack(centres, axis=-1)
  ways = []
  for part in centres[:6], centres[10:]:
    moved = part[-1] - part[0]
    axis = np.abs(moved).argmax()
    ways.append(tuple(np.eye(2, dtype=int)[axis] * int(np.sign(moved[axis]))))
  names = {way: name for name, way in ordered_motion.DIRECTIONS.items()}
  return ordered_motion.CLASSES.index(' then '.join(names[w] for w in ways))


@pytest.mark.parametrize(
  'change',
  [lambda record: record, *CHANGES.values()],
  ids=['as it is', *CHANGES],
)
def test_labels_say_what_the_pixels_show(change):
  for index in range(40):
    record = change(ordered_motion.example('train', index))
    assert seen(record) == record['label']


def test_a_change_made_twice_is_none():
  record = ordered_motion.example('test', 1)
  for change in CHANGES.values():
    assert change(record)['label'] != record['label']
    again = change(change(record))
    np.testing.assert_array_equal(again['frames'], record['frames'])
    assert again['label'] == record['label']


def test_the_ground_stands_still_and_the_digits_differ():
  """Where no digit ever is, frames differ by noise alone."""
  digits = set()
  for index in range(30):
    frames = ordered_motion.example('train', index)['frames'].astype(int)
    spread = frames.max(axis=0) - frames.min(axis=0)
    assert np.median(spread) < 45
    digits.add((frames[0] > 150).tobytes())
  assert len(digits) == 30
