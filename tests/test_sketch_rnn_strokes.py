"""Formats and augmentation equal the published code's, geometry its words."""

import numpy as np
import pytest

from sketch_rnn import strokes

# Two lines of three and two points.
LINES = [
  np.array([[5, 5], [8, 9], [20, 9]], np.float32),
  np.array([[0, 1], [2, 1]], np.float32),
]


@pytest.fixture(scope='module')
def golden(golden_file):
  with np.load(golden_file('sketch_rnn/tf1_utils.npz')) as arrays:
    return dict(arrays)


def test_stroke5_equals_the_published_codes(golden):
  for i in range(5):
    rows = strokes.to_stroke5(golden[f'augment/{i}/in'], 250)
    np.testing.assert_array_equal(rows, golden['pad_batch'][i])
    assert golden['pad_lengths'][i] == len(strokes.to_stroke3(rows[1:]))


def test_stroke3_equals_the_published_codes(golden):
  np.testing.assert_array_equal(
    strokes.to_stroke3(golden['big']), golden['normal_from_big']
  )


def test_lines_equal_the_published_codes(golden):
  lines = np.split(golden['lines_flat'], np.cumsum(golden['lines_len'])[:-1])
  drawing = strokes.from_lines(lines, from_origin=False)
  np.testing.assert_allclose(drawing, golden['lines_to_strokes'], rtol=1e-6)
  for ours, theirs in zip(
    strokes.to_lines(golden['normal_from_big'], from_origin=False),
    lines,
    strict=True,
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('i', range(5))
def test_dropped_points_equal_the_published_codes(golden, i):
  # The recorded runs dropped three of ten.
  dropped = strokes.drop_points(
    golden[f'augment/{i}/in'], golden[f'augment/{i}/u'], 0.3
  )
  expected = golden[f'augment/{i}/out']
  assert dropped.shape == expected.shape
  np.testing.assert_allclose(dropped, expected, rtol=1e-6, atol=1e-6)


def test_dropping_leaves_lines_and_ends_in_place():
  rng = np.random.default_rng(0)
  drawing = rng.normal(size=(200, 3)).astype(np.float32)
  drawing[:, 2] = rng.random(200) < 0.1
  drawing[-1, 2] = 1
  dropped = strokes.drop_points(drawing, rng.random(200), 0.9)
  assert len(dropped) < 150
  before, after = strokes.to_lines(drawing), strokes.to_lines(dropped)
  assert len(before) == len(after)
  for a, b in zip(before, after, strict=True):
    np.testing.assert_allclose(a[[0, -1]], b[[0, -1]], atol=1e-4)


def test_a_drawing_of_full_length_has_no_end():
  drawing = strokes.from_lines(LINES)
  rows = strokes.to_stroke5(drawing, len(drawing))
  np.testing.assert_array_equal(rows[0], strokes.START)
  assert not rows[:, 4].any()
  np.testing.assert_array_equal(strokes.to_stroke3(rows[1:]), drawing)
  padded = strokes.to_stroke5(drawing, len(drawing) + 2)
  np.testing.assert_array_equal(padded[-2:], [strokes.END] * 2)
  with pytest.raises(ValueError, match='4 points does not fit into length=3'):
    strokes.to_stroke5(drawing, 3)


def test_the_two_conventions_of_where_a_drawing_begins():
  """By hand: with QuickDraw's the first point has no row."""
  np.testing.assert_array_equal(
    strokes.from_lines(LINES),
    [[3, 4, 0], [12, 0, 1], [-20, -8, 0], [2, 0, 1]],
  )
  np.testing.assert_array_equal(
    strokes.from_lines(LINES, from_origin=False),
    [[5, 5, 0], [3, 4, 0], [12, 0, 1], [-20, -8, 0], [2, 0, 1]],
  )


@pytest.mark.parametrize('from_origin', [True, False])
@pytest.mark.parametrize(
  'lines', [LINES, [LINES[0][:1], *LINES], [*LINES, LINES[0][:1]]]
)
def test_lines_come_back(lines, from_origin):
  """Dots too; with QuickDraw's convention at (0, 0)."""
  drawing = strokes.from_lines(lines, from_origin=from_origin)
  back = strokes.to_lines(drawing, from_origin=from_origin)
  if from_origin and len(lines[0]) == 1:  # It has a row of its own.
    np.testing.assert_array_equal(back[0], np.zeros((2, 2)))
    back[0] = back[0][:1]
  for a, b in zip(lines, back, strict=True):
    np.testing.assert_array_equal(a - lines[0][0] * from_origin, b)


def test_a_line_that_never_ends_is_a_line():
  """As of a drawing that is not finished."""
  drawing = strokes.from_lines(LINES)[:3]
  assert [len(line) for line in strokes.to_lines(drawing)] == [3, 1]


def test_scale_of_real_data(golden, shared):
  """The published code logs 18.5198 for these drawings."""
  path = shared / 'data/sketches/aaron_sheep.npz'
  with np.load(path, allow_pickle=True, encoding='latin1') as arrays:
    train = arrays['train']
  scale = strokes.scale_factor(strokes.clamp(drawing) for drawing in train)
  np.testing.assert_allclose(scale, golden['norm/aaron_sheep'], rtol=1e-6)


def test_clamping_and_stretching():
  drawing = np.array([[2000, -3, 0], [4, -1500, 1]], np.float32)
  clamped = strokes.clamp(drawing)
  np.testing.assert_array_equal(clamped, [[1000, -3, 0], [4, -1000, 1]])
  rng = np.random.default_rng(0)
  factors = np.array(
    [
      strokes.random_scale(np.ones((1, 3), np.float32), rng, 0.15)[0]
      for _ in range(2000)
    ]
  )
  assert factors.dtype == np.float32
  assert np.all(factors[:, 2] == 1)
  low, high = factors.min(axis=0)[:2], factors.max(axis=0)[:2]
  assert np.all((0.85 <= low) & (low < 0.86) & (1.14 < high) & (high <= 1.15))
  assert abs(np.corrcoef(factors[:, 0], factors[:, 1])[0, 1]) < 0.1


def distances(points, line):
  """From each point to the nearest part of a line."""
  start, along = line[:-1], np.diff(line, axis=0)
  t = np.sum((points[:, None] - start) * along, axis=-1)
  t = np.clip(t / np.sum(along**2, axis=-1), 0, 1)
  nearest = start + t[..., None] * along
  return np.min(np.linalg.norm(points[:, None] - nearest, axis=-1), axis=1)


def test_simplified_lines_stay_within_epsilon():
  t = np.linspace(0, 3, 400)
  line = np.column_stack([80 * t, 50 * np.sin(4 * t)])
  simple = strokes.simplify(line, 2.0)
  np.testing.assert_allclose(simple[[0, -1]], line[[0, -1]], rtol=1e-6)
  assert len(simple) < 30
  assert np.max(distances(line, simple)) <= 2.0
  np.testing.assert_array_equal(strokes.simplify(simple, 2.0), simple)
  # A closed line does not vanish.
  circle = 50 * np.column_stack([np.cos(t * 2.2), np.sin(t * 2.2)])
  assert len(strokes.simplify(circle, 2.0)) > 6


def test_resampled_lines_have_equal_steps():
  line = np.array([[0, 0], [0, 0], [3, 4], [3, 10.5]])
  points = strokes.resample(line)
  np.testing.assert_allclose(points[5], [3, 4], atol=1e-6)
  np.testing.assert_allclose(points[-1], [3, 10.5])
  steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
  np.testing.assert_allclose(steps, [1] * 11 + [0.5], rtol=1e-5)
  dot = strokes.resample(np.array([[2.0, 3.0]]))
  np.testing.assert_array_equal(dot, [[2, 3]])


def test_fitted_lines_fill_the_picture():
  lines = strokes.fit(LINES)
  points = np.concatenate(lines)
  np.testing.assert_allclose(points.min(axis=0), [0, 0])
  np.testing.assert_allclose(points.max(axis=0), [255, 255 * 8 / 20])
  dot = strokes.fit([np.array([[7.0, 7.0]])])
  np.testing.assert_array_equal(dot[0], [[0, 0]])


@pytest.mark.parametrize(
  ('rows', 'message'),
  [
    (np.zeros((3, 2)), r'shape \[3, 2\]'),
    (np.zeros(3), r'shape \[3\]'),
    (np.full((2, 3), 'a'), 'instead of numbers'),
    (np.zeros((0, 3)), 'no points'),
    ([[1, 1, 0], [1, np.nan, 1]], 'NaN or infinity in row 1'),
    ([[np.inf, 1, 1], [1, 1, 1]], 'NaN or infinity in row 0'),
    ([[0, 0, 1]], 'only one point'),
    ([[1, 1, 0], [1, 1, 0]], 'never lifted'),
    ([[1, 1, 0], [1, 1, 0.5]], 'pen state 0.5 in row 1'),
  ],
)
def test_malformed_drawings(rows, message):
  with pytest.raises(ValueError, match=message):
    strokes.check(rows)


def test_good_drawings():
  strokes.check(strokes.from_lines(LINES))
  strokes.check(strokes.from_lines(LINES).astype(np.int16))


def test_one_straight_line_is_a_drawing():
  """Its first point has no row."""
  drawing = strokes.from_lines([np.array([[3, 4], [9, 12]])])
  np.testing.assert_array_equal(drawing, [[6, 8, 1]])
  strokes.check(drawing)


def _zigzag(count):
  """A spiral of corners: each is one more recursion of the simplification."""
  x = np.arange(count, dtype=float)
  return np.stack([x * 250 / count, 100 * (-1.0) ** x * (1 - x / count)], 1)


def test_lines_of_any_length_are_simplified():
  """50,000 corners overflowed the stack of the library."""
  line = _zigzag(25_000)
  simple = strokes.simplify(line)
  assert 2 < len(simple) <= len(line)
  np.testing.assert_array_equal(simple[[0, -1]], line[[0, -1]].astype('f4'))


def test_pieces_of_a_line_stay_within_the_tolerance():
  t = np.linspace(0, 40, 9_000)
  line = np.stack([t * 6, 50 * np.sin(t)], 1)
  simple = strokes.simplify(line)
  assert len(simple) < 200
  start, end = simple[:-1, None], simple[1:, None]
  along = np.sum((line - start) * (end - start), -1)
  along = np.clip(along / np.sum((end - start) ** 2, -1), 0, 1)[..., None]
  distances = np.linalg.norm(start + along * (end - start) - line, axis=-1)
  assert distances.min(axis=0).max() < strokes.EPSILON + 1e-4


def test_a_line_that_resamples_without_end_is_refused():
  with pytest.raises(ValueError, match='at most 100000 points'):
    strokes.resample(np.array([[0, 0], [1e9, 0]]))
