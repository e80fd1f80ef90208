import numpy as np
import pytest

from video.tracking import baselines

BOX = np.array([5, 6, 7, 5], np.float32)


def assert_close(actual, expected, tolerance=1e-4):
  np.testing.assert_allclose(
    actual, expected, rtol=tolerance, atol=10 * tolerance
  )


def noise(*shape, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, shape).astype(np.uint8)


FRAMES = noise(8, 20, 24, 3)


def test_the_still_box_stays():
  boxes = baselines.follow(baselines.StillBox(), FRAMES, BOX)
  np.testing.assert_array_equal(boxes, np.tile(BOX, (len(FRAMES), 1)))


def test_cross_correlation_is_pearsons_coefficient():
  image = noise(13, 11, seed=1).astype(np.float32)
  template = noise(4, 5, seed=2).astype(np.float32)
  found = baselines.correlate(image, template)
  expected = [
    [
      np.corrcoef(image[y : y + 4, x : x + 5].ravel(), template.ravel())[0, 1]
      for x in range(7)
    ]
    for y in range(10)
  ]
  assert_close(found, expected, 1e-5)
  image[:6] = 7  # Flat: like nothing.
  flat = baselines.correlate(image, template)
  assert np.all(flat[:3] == 0)
  assert_close(flat[6:], np.array(expected)[6:], 1e-4)


def test_cross_correlation_finds_what_moves():
  """Brighter, over another ground, and through a black frame."""
  ground, thing = noise(40, 50, 3, seed=3), noise(8, 6, 3, seed=4) // 2
  corners = [(10, 12), (13, 10), (17, 9), (17, 9), (22, 8), (27, 3)]
  frames = np.stack([ground] * len(corners))
  for t, (x, y) in enumerate(corners):
    frames[t, y : y + 8, x : x + 6] = thing + 10 * t
  frames[3] = 0
  box = np.array([10.25, 11.75, 6, 8], np.float32)
  boxes = baselines.follow(baselines.CrossCorrelation(), frames, box)
  expected = np.concatenate(
    [np.array(corners) + (0.25, -0.25), np.tile([6, 8], (6, 1))], axis=1
  )
  assert_close(boxes, expected, 1e-6)


def test_cross_correlation_stays_in_the_frame():
  """Whatever the frames: here each is another noise."""
  boxes = baselines.follow(
    baselines.CrossCorrelation(),
    FRAMES,
    np.array([-3, 15, 9, 8], np.float32),
  )
  assert np.all(np.isfinite(boxes))
  with pytest.raises(ValueError, match='lies outside of the first frame'):
    baselines.CrossCorrelation().start(FRAMES[0], BOX + 90)
