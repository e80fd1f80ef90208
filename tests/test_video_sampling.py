import numpy as np
import pytest

from video import sampling
from vision import images


def random_frames(count, height, width, channels=3):
  rng = np.random.default_rng(0)
  size = (count, height, width, channels)
  return rng.integers(256, size=size, dtype=np.uint8)


def test_spread_takes_the_middles_of_equal_parts():
  np.testing.assert_array_equal(sampling.spread(12, 4), [1, 4, 7, 10])
  np.testing.assert_array_equal(sampling.spread(3, 3), [0, 1, 2])
  np.testing.assert_array_equal(sampling.spread(2, 4), [0, 0, 1, 1])
  rng = np.random.default_rng(0)
  drawn = np.stack([sampling.spread(12, 4, rng) for _ in range(200)])
  for part in range(4):
    assert set(drawn[:, part]) == {3 * part, 3 * part + 1, 3 * part + 2}


def test_windows_are_consecutive_and_inside():
  np.testing.assert_array_equal(sampling.window(10, 4), [3, 4, 5, 6])
  np.testing.assert_array_equal(sampling.window(10, 3, stride=3), [1, 4, 7])
  np.testing.assert_array_equal(sampling.window(2, 4), [0, 1, 1, 1])
  rng = np.random.default_rng(0)
  drawn = np.stack(
    [sampling.window(6, 2, stride=2, rng=rng) for _ in range(99)]
  )
  assert (np.diff(drawn) == 2).all()
  assert set(drawn[:, 0]) == {0, 1, 2, 3}
  np.testing.assert_array_equal(
    sampling.windows(10, 4, 3), [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
  )
  np.testing.assert_array_equal(
    sampling.windows(3, 2, 2, stride=5), [[0, 2]] * 2
  )
  np.testing.assert_array_equal(
    sampling.windows(10, 4, 1, stride=2)[0], sampling.window(10, 4, stride=2)
  )
  for wrong in ((0, 3), (3, 0)):
    with pytest.raises(ValueError, match='must be at least 1'):
      sampling.window(*wrong)
    with pytest.raises(ValueError, match='must be at least 1'):
      sampling.spread(*wrong)


def test_fit_cuts_and_pads():
  values = np.arange(1, 7, dtype=np.float32).reshape(3, 2)
  short, length = sampling.fit(values, 2)
  np.testing.assert_array_equal(short, values[:2])
  assert length == 2
  long, length = sampling.fit(values, 5)
  np.testing.assert_array_equal(long, [*values, [0, 0], [0, 0]])
  assert length == 3 and long.dtype == np.float32


def test_every_frame_is_treated_as_a_picture_would_be():
  pixels = random_frames(3, 20, 30)

  def each(function):
    return np.stack([function(image) for image in pixels])

  np.testing.assert_array_equal(
    sampling.for_evaluation(pixels, resize=12, crop=10),
    each(lambda p: images.for_evaluation(p, resize=12, crop=10)),
  )
  for seed in range(6):  # The same place and the same mirror for all.
    np.testing.assert_array_equal(
      sampling.for_training(
        pixels, np.random.default_rng(seed), resize=12, crop=10, flip=True
      ),
      each(
        lambda p, seed=seed: images.for_training(
          p, np.random.default_rng(seed), resize=12, crop=10
        )
      ),
    )


def test_one_channel_is_treated_as_three_equal_ones():
  grey = random_frames(2, 20, 30, channels=1)
  np.testing.assert_array_equal(
    sampling.for_evaluation(grey, resize=12, crop=10).repeat(3, axis=-1),
    sampling.for_evaluation(grey.repeat(3, axis=-1), resize=12, crop=10),
  )
  np.testing.assert_array_equal(sampling.mirror(sampling.mirror(grey)), grey)
  np.testing.assert_array_equal(sampling.mirror(grey)[1], grey[1, :, ::-1])
