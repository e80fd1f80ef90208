import csv
import functools
import re

import numpy as np
import pytest

from video import metrics

# Classification.


def test_top_k_counts_the_k_best():
  rng = np.random.default_rng(0)
  scores = rng.normal(size=(50, 6)).astype(np.float32)
  labels = rng.integers(6, size=50)
  for k in range(1, 7):
    right = [
      label in sorted(range(6), key=lambda c, row=row: -row[c])[:k]
      for row, label in zip(scores, labels, strict=True)
    ]
    assert metrics.top_k_accuracy(scores, labels, k) == np.mean(right)
  assert metrics.top_k_accuracy(scores, labels, 6) == 1


def test_equal_scores_count_once():
  """A constant model is right as often as its first class."""
  scores = np.zeros((4, 4), np.float32)
  assert metrics.top_k_accuracy(scores, np.arange(4)) == 0.25
  assert metrics.top_k_accuracy(scores, np.arange(4), 3) == 0.75


def test_top_k_says_what_is_wrong():
  scores, labels = np.zeros((2, 4)), np.zeros(2, int)
  with pytest.raises(ValueError, match='k=5 must be from 1 to 4'):
    metrics.top_k_accuracy(scores, labels, 5)
  with pytest.raises(ValueError, match='lower learning rate'):
    metrics.top_k_accuracy(scores * np.nan, labels)


def test_the_confusion_matrix_counts_every_pair():
  labels = np.array([0, 0, 1, 3, 3, 3])
  predictions = np.array([0, 1, 1, 3, 0, 3])
  matrix = metrics.confusion_matrix(labels, predictions, 4)
  np.testing.assert_array_equal(
    matrix, [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 2]]
  )
  each = metrics.per_class_accuracy(matrix)
  np.testing.assert_allclose(each, [1 / 2, 1, np.nan, 2 / 3])
  assert np.trace(matrix) / matrix.sum() == np.mean(labels == predictions)


# Streams.


@functools.cache
def slow_distance(first, second):
  if not first or not second:
    return len(first) + len(second)
  return min(
    slow_distance(first[1:], second) + 1,
    slow_distance(first, second[1:]) + 1,
    slow_distance(first[1:], second[1:]) + (first[0] != second[0]),
  )


def test_the_edit_distance_is_the_definition():
  rng = np.random.default_rng(0)
  for _ in range(100):
    first, second = (
      tuple(rng.integers(3, size=rng.integers(7)).tolist()) for _ in range(2)
    )
    assert metrics.edit_distance(first, second) == slow_distance(first, second)
  assert metrics.edit_distance('kitten', 'sitting') == 3


def test_stream_scores_weigh_by_gestures():
  scores = metrics.stream_scores(
    [[1, 2, 3], [4], [5, 5]], [[1, 3], [4], [5, 5, 5]]
  )
  assert scores == {'edit_accuracy': 1 - 2 / 6, 'exact': 1 / 3}
  none = metrics.stream_scores([[1, 2, 3]], [[]])
  assert none == {'edit_accuracy': 0, 'exact': 0}
  worse = metrics.stream_scores([[1]], [[2, 3, 4]])
  assert worse['edit_accuracy'] == -2
  with pytest.raises(ValueError, match='no gesture'):
    metrics.stream_scores([[]], [[1]])


# Boxes.


def test_overlap_counts_pixels():
  rng = np.random.default_rng(0)
  y, x = np.mgrid[:20, :20]

  def inside(box):
    left, top, width, height = box
    return (x >= left) & (x < left + width) & (y >= top) & (y < top + height)

  first, second = (
    np.concatenate(
      [rng.integers(10, size=(60, 2)), rng.integers(1, 10, size=(60, 2))], 1
    )
    for _ in range(2)
  )
  expected = [
    (inside(a) & inside(b)).sum() / (inside(a) | inside(b)).sum()
    for a, b in zip(first, second, strict=True)
  ]
  copies = first.copy(), second.copy()
  np.testing.assert_allclose(metrics.overlap(first, second), expected)
  np.testing.assert_array_equal(first, copies[0])
  np.testing.assert_array_equal(second, copies[1])


def test_boxes_that_are_none_do_not_overlap():
  box = np.array([1, 1, 4, 4.0])
  for other in (
    [1, 1, 0, 4],
    [5, 5, -4, -4],
    [np.nan] * 4,
    [np.nan, 1, 4, 4],
    [5, 1, 4, 4],
  ):
    assert metrics.overlap(box, np.array(other)) == 0
    assert metrics.overlap(np.array(other), box) == 0
  assert metrics.overlap(box, box) == 1


def test_the_distance_is_between_centres():
  first, second = np.array([[0, 0, 2, 2.0]]), np.array([[3, 3, 2, 4.0]])
  np.testing.assert_allclose(metrics.centre_distance(first, second), [5])


def test_success_is_strictly_more_and_precision_at_most():
  overlaps = np.array([0.0, 0.5, 0.51, 1.0])
  curve = metrics.success_curve(overlaps)
  assert len(curve) == 21
  assert curve[0] == 3 / 4  # 0 is not more than 0,
  assert curve[10] == 2 / 4  # nor 0.5 more than 0.5.
  assert curve[20] == 0
  assert metrics.success_curve(np.ones(9)).mean() == pytest.approx(20 / 21)
  curve = metrics.precision_curve(np.array([0, 20, 20.01, 100]))
  assert len(curve) == 51
  assert (curve[0], curve[19], curve[20], curve[21]) == (
    1 / 4,
    1 / 4,
    2 / 4,
    0.75,
  )


def track(*lefts):
  """Boxes of 10 x 10 pixels."""
  return np.array([(left, 0, 10, 10) for left in lefts], float)


def test_one_pass_is_the_mean_over_sequences():
  truths = [track(0, 0, 0), track(*[0] * 11)]
  predictions = [track(0, 0, 50), track(*[0] * 11)]
  scores = metrics.one_pass(predictions, truths)
  assert scores.num_sequences == 2
  assert scores.numbers() == pytest.approx(
    {
      'success_auc': (1 / 2 + 1) / 2 * 20 / 21,
      'mean_overlap': (1 / 2 + 1) / 2,
      'success_rate_50': (1 / 2 + 1) / 2,
      'precision_20px': (1 / 2 + 1) / 2,
    }
  )
  published = metrics.one_pass(predictions, truths, count_first=True)
  assert published.numbers()['success_rate_50'] == pytest.approx(
    (2 / 3 + 1) / 2
  )


def test_the_four_numbers_differ():
  """Each is what its name says: IoU is 1/3 at 5 pixels, 3/7 at 4."""
  numbers = metrics.one_pass([track(0, 4, 5)], [track(0, 0, 0)]).numbers()
  assert numbers['precision_20px'] == 1
  assert numbers['success_rate_50'] == 0
  # More than 0, 0.05 .. 0.40, and 0, 0.05 .. 0.30: nine and seven thresholds.
  assert numbers['success_auc'] == pytest.approx((9 + 7) / 2 / 21)
  assert numbers['mean_overlap'] == pytest.approx((3 / 7 + 1 / 3) / 2)


def test_frames_without_truth_do_not_count():
  truth = track(0, 0, 0, 0)
  truth[1], truth[2, 2] = np.nan, 0
  scores = metrics.one_pass([track(0, 90, 90, 0)], [truth])
  assert scores.numbers()['precision_20px'] == 1
  # Nor do sequences that have none that counts.
  scores = metrics.one_pass(
    [track(0, 0), track(0, 90)],
    [track(0, 0), track(0, 0)],
    counted=[np.ones(2, bool), np.zeros(2, bool)],
  )
  assert scores.num_sequences == 1
  assert scores.numbers()['success_rate_50'] == 1
  with pytest.raises(ValueError, match='no frame counts'):
    metrics.one_pass([track(0)], [track(0)])


def test_one_pass_changes_no_mask_and_refuses_what_does_not_fit():
  mask = np.ones(3, bool)
  metrics.one_pass([track(0, 0, 0)], [track(0, 0, 0)], counted=[mask])
  assert mask.all()
  with pytest.raises(ValueError, match='3 true boxes, 2 predicted'):
    metrics.one_pass([track(0, 0)], [track(0, 0, 0)])


def test_a_lost_tracker_is_wrong_where_it_says_nothing():
  lost = track(0, 0, 0)
  lost[1:] = np.nan
  numbers = metrics.one_pass([lost], [track(0, 0, 0)]).numbers()
  assert set(numbers.values()) == {0}


def test_what_comes_after_being_hidden():
  hidden = np.array([0, 0, 1, 1, 0, 0, 1, 0], bool)
  np.testing.assert_array_equal(
    metrics.after_hidden(hidden), np.array([0, 0, 0, 0, 1, 1, 0, 1], bool)
  )
  assert not metrics.after_hidden(np.zeros(3, bool)).any()


# Restarts: a tracker that stays where it was started.


def begin(frame, box):
  assert box.dtype == np.float32
  return box


def step(state, frame):
  return state, state


def test_a_tracker_is_started_again_when_it_is_lost():
  lefts = np.arange(30)  # A box of 10 pixels is left behind after ten steps.
  run = metrics.with_restarts(
    begin, step, np.zeros((30, 1, 1, 3)), track(*lefts)
  )
  assert run.starts == (0, 15)
  assert run.failures == (10, 25)
  expected = [*range(11), *range(11)]
  at = [*range(11), *range(15, 26)]
  overlaps = [(10 - n) / (10 + n) for n in expected]
  np.testing.assert_allclose(run.overlaps[at], overlaps)
  assert np.isnan(np.delete(run.overlaps, at)).all()
  assert np.isnan(run.boxes[26:]).all()
  numbers = run.numbers(burn_in=7)
  kept = overlaps[7:10]
  assert numbers == {'failures': 2, 'accuracy': pytest.approx(np.mean(kept))}
  assert np.isnan(run.numbers()['accuracy'])


def test_nobody_fails_or_starts_where_there_is_no_truth():
  truth = track(0, 0, 50, 0, 50, 50, 50, 50)
  truth[[2, 5]] = np.nan
  run = metrics.with_restarts(
    begin, step, np.zeros((8, 1, 1, 3)), truth, wait=1
  )
  # Lost in 4; frame 5 has no box, so it starts in 6.
  assert run.failures == (4,)
  assert run.starts == (0, 6)
  assert np.isnan(run.overlaps[[2, 5]]).all()
  assert np.isfinite(run.boxes[2]).all()


def test_a_tracker_that_holds_on_is_one_pass():
  truth = track(*range(20))
  boxes = iter(truth[1:])
  run = metrics.with_restarts(
    begin,
    lambda state, frame: (state, next(boxes)),
    np.zeros((20, 1, 1, 3)),
    truth,
  )
  assert run.numbers() == {'failures': 0, 'accuracy': 1}
  np.testing.assert_array_equal(run.boxes, truth)


def test_a_tracker_starts_only_where_it_may():
  truth = np.tile([0.0, 0, 2, 2], (4, 1))
  started = []

  def begin(frame, box):
    started.append(frame)
    return box

  run = metrics.with_restarts(
    begin,
    lambda state, frame: (state, state),
    range(4),
    truth,
    may_start=np.array([False, False, True, True]),
  )
  assert started == [2] and run.starts == (2,)


def test_scores_of_struck_are_those_that_the_benchmark_published(shared):
  """Its own boxes on OTB's sequences; the given first box counts."""
  folder = shared / 'data' / 'tracking'
  if not folder.is_dir():
    pytest.skip(f'{folder} is absent: the boxes of STRUCK are there')
  with (folder / 'published_otb_overlap.csv').open(newline='') as file:
    published = {row['tracker']: row for row in csv.DictReader(file)}
  means = []
  with np.load(folder / 'struck_rectangles.npz') as found:
    # The benchmark scored Tiger1 five frames shifted.
    for name in sorted(set(found.files) - {'Tiger1'}):
      lines = (folder / f'otb/{name}/groundtruth_rect.txt').read_text()
      rows = [re.split(r'[,\s]+', line.strip()) for line in lines.splitlines()]
      truth = np.array(rows, float)
      # STRUCK rounds the first box; the benchmark puts in the given one.
      boxes = np.concatenate([truth[:1], found[name][1:]])
      run = metrics.one_pass([boxes], [truth], count_first=True)
      means.append(run.mean_overlap)
      expected = float(published['STRUCK'][name])
      assert run.mean_overlap == pytest.approx(expected, abs=1e-4), name
  expected = float(published['STRUCK']['these_15_without_Tiger1'])
  assert len(means) == 14
  assert np.mean(means) == pytest.approx(expected, abs=1e-4)


# Certainty of a tracker.


def test_ranking_quality_counts_pairs_in_order():
  scores = [0.1, 0.4, 0.4, 0.8]
  labels = [False, False, True, True]
  # Pairs: (0.4, 0.1), (0.8, 0.1), (0.8, 0.4) in order; (0.4, 0.4) a tie.
  assert metrics.ranking_quality(scores, labels) == 3.5 / 4
  assert metrics.ranking_quality(np.negative(scores), labels) == 0.5 / 4
  assert np.isnan(metrics.ranking_quality(scores, [True] * 4))
  rng = np.random.default_rng(0)
  scores, labels = rng.integers(0, 9, 50), rng.random(50) < 0.4
  pairs = [
    (x > y) + (x == y) / 2 for x in scores[labels] for y in scores[~labels]
  ]
  assert metrics.ranking_quality(scores, labels) == pytest.approx(
    np.mean(pairs)
  )


def test_the_calibration_error_is_a_mean_over_bins():
  stated = [0.05, 0.05, 0.92, 0.98, 1.0]
  labels = [False, True, True, True, False]
  expected = (abs(0.1 - 1) + abs(2.9 - 2)) / 5
  assert metrics.calibration_error(stated, labels) == pytest.approx(expected)
  rng = np.random.default_rng(0)
  stated = rng.random(20_000)
  right = rng.random(20_000) < stated
  assert metrics.calibration_error(stated, right) < 0.02
  assert metrics.calibration_error(stated**4, right) > 0.2


def test_certainty_is_scored_without_the_first_frames():
  stated = [np.array([0.0, 0.9, 0.2]), np.array([0.0, 0.6])]
  overlaps = [np.array([1.0, 0.8, 0.7]), np.array([1.0, 0.1])]
  hidden = [np.array([False, False, True]), np.array([False, False])]
  found = metrics.certainty_scores(stated, overlaps, hidden, 0.3)
  # On the target: 0.9 alone. Visible: 0.9 and 0.6.
  assert found['certainty/auroc'] == 1
  assert found['certainty/auroc_hidden'] == 1
  expected = (0.1**2 + 0.2**2 + 0.6**2) / 3
  assert found['certainty/brier'] == pytest.approx(expected)
