"""Measures of generated drawings, on sets where the answer is known."""

import dataclasses

import numpy as np
import pytest
import scipy.linalg

from sketch_rnn import features as features_lib
from sketch_rnn import quality
from sketch_rnn import strokes

SIZE = 400


def gaussian(seed, count=SIZE, mean=0.0, size=6):
  return np.random.default_rng(seed).normal(mean, 1, (count, size))


# Sets of features.


def test_distances_equal_those_of_differences():
  a, b = gaussian(0, 7), gaussian(1, 5)
  expected = np.sum((a[:, None] - b) ** 2, axis=-1)
  np.testing.assert_allclose(quality.squared_distances(a, b), expected)


def brute_precision(real, generated, neighbours):
  """Equation 1 of Kynkaanniemi et al., in loops."""
  inside = 0
  for point in generated:
    for i, member in enumerate(real):
      others = np.delete(real, i, axis=0)
      radius = np.sort(np.linalg.norm(others - member, axis=1))[neighbours - 1]
      if np.linalg.norm(point - member) <= radius:
        inside += 1
        break
  return inside / len(generated)


def test_precision_and_recall_follow_the_paper():
  real, generated = gaussian(0, 40, size=2), gaussian(1, 30, 0.8, size=2)
  found = quality.precision_and_recall(real, generated, 3)
  expected = (
    brute_precision(real, generated, 3),
    brute_precision(generated, real, 3),
  )
  assert found == pytest.approx(expected)
  assert 0.1 < found[0] < 1 and 0.1 < found[1] < 1


def test_a_copied_set_is_precise_and_complete():
  real = gaussian(0)
  assert quality.precision_and_recall(real, real) == (1, 1)
  assert quality.coverage(real, real) == 1
  assert quality.frechet_distance(real, real) == pytest.approx(0, abs=1e-9)
  assert quality.copying(real, gaussian(2), real) == pytest.approx((0, 1))


def test_a_far_set_is_neither():
  real, far = gaussian(0), gaussian(1, mean=50)
  assert quality.precision_and_recall(real, far) == (0, 0)
  assert quality.coverage(real, far) == 0
  assert quality.two_sample_test(real, far).accuracy == 1
  distance, copies = quality.copying(far, gaussian(2), real)
  assert distance > 20
  assert copies == 0


def test_one_mode_of_two_is_precise_and_incomplete():
  modes = np.concatenate([gaussian(0), gaussian(1, mean=50)])
  precision, recall = quality.precision_and_recall(modes, gaussian(2))
  assert precision > 0.9
  assert 0.4 < recall < 0.5
  assert quality.coverage(modes, gaussian(2)) < 0.5


def test_scattered_noise_has_recall_but_no_coverage():
  """Which is why coverage stands beside it."""
  real, noise = gaussian(0), 20 * gaussian(1)
  precision, recall = quality.precision_and_recall(real, noise)
  assert precision < 0.05
  assert recall > 0.9
  assert quality.coverage(real, noise) < 0.05


def test_too_few_drawings_are_refused():
  with pytest.raises(ValueError, match='3 drawings have no 3 neighbours'):
    quality.precision_and_recall(gaussian(0, 3), gaussian(1, 3))


def test_the_same_distribution_cannot_be_told_apart():
  """Within three standard errors, and not by chance of one seed."""
  for seed in range(5):
    found = quality.two_sample_test(gaussian(seed), gaussian(seed + 10))
    assert found.standard_error == pytest.approx(0.5 / np.sqrt(2 * SIZE))
    assert abs(found.accuracy - 0.5) < 3 * found.standard_error


@pytest.mark.parametrize(
  ('other', 'accuracy'),
  [
    # Of the best classifier: the normal distribution function at 1.
    (lambda: gaussian(1) + [2, 0, 0, 0, 0, 0], 0.841),
    # Only the variance differs: |x| below 1.359 or above it.
    (lambda: gaussian(1) * [2, 1, 1, 1, 1, 1], 0.661),
  ],
)
def test_accuracy_is_that_of_the_best_classifier(other, accuracy):
  found = quality.two_sample_test(gaussian(0), other())
  assert found.accuracy == pytest.approx(accuracy, abs=0.04)


def test_frechet_distance_equals_its_definition():
  rng = np.random.default_rng(0)
  a = gaussian(0) @ rng.normal(size=(6, 6))
  b = gaussian(1, 300, 0.5) @ rng.normal(size=(6, 6))
  covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
  root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
  expected = np.sum((a.mean(0) - b.mean(0)) ** 2)
  expected += np.trace(covariances[0] + covariances[1] - 2 * root)
  assert quality.frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_new_drawings_are_no_copies():
  training = gaussian(0, 2000)
  distance, copies = quality.copying(gaussian(1), gaussian(2), training)
  assert distance == pytest.approx(1, abs=0.1)
  assert copies < 0.05


def test_the_largest_gap_of_two_distributions():
  a = np.array([1, 2, 3, 4])
  assert quality.largest_gap(a, a[::-1]) == 0
  assert quality.largest_gap(a, a + 1) == pytest.approx(0.25)
  assert quality.largest_gap(a, a + 10) == 1


# Sets of drawings.


def drawing(rng):
  """Three strokes: a box's left, top and right side, of random size."""
  width, height = rng.uniform(40, 90, 2)
  bend = rng.uniform(-5, 5, 4)
  lines = [
    [[0, 0], [bend[0], height / 2], [0, height]],
    [[0, 0], [width / 2, bend[1]], [width, 0]],
    [[width, 0], [width + bend[2], height / 2], [width, height]],
  ]
  return strokes.from_lines([np.array(line) for line in lines])


def drawings(seed, count):
  rng = np.random.default_rng(seed)
  return [drawing(rng) for _ in range(count)]


def corrupted(kind, seed, count):
  rng = np.random.default_rng(seed)
  return [
    features_lib.corrupt(one, kind, other, rng)
    for one, other in zip(
      drawings(seed, count), drawings(seed + 1, count), strict=True
    )
  ]


SETTINGS = features_lib.Settings(
  scale=30.0, length=20, units=16, size=12, num_steps=200, batch_size=40
)


@pytest.fixture(scope='module')
def reference(tmp_path_factory):
  training = drawings(0, 400)
  features = features_lib.load_or_train(
    tmp_path_factory.mktemp('features'),
    training,
    np.zeros(400, np.int32),
    SETTINGS,
    fingerprint='boxes',
  )
  real = drawings(1, 200)
  return quality.Reference(features, real, features(real), features(training))


def test_real_drawings_are_better_than_corrupted_better_than_noise(reference):
  real = reference.scores(drawings(2, 200))
  assert real['precision'] > 0.9
  assert real['recall'] > 0.9
  assert abs(real['two_sample'] - 0.5) < 3 * real['standard_error']
  assert real['points_gap'] == real['strokes_gap'] == real['empty'] == 0
  assert real['strokes'] == 3
  rng = np.random.default_rng(0)
  noise = [
    np.column_stack([rng.normal(0, 30, (8, 2)), one[:, 2]]).astype(np.float32)
    for one in drawings(3, 200)
  ]
  noise = reference.scores(noise)
  for kind in ('shuffled', 'cut', 'moved'):
    bad = reference.scores(corrupted(kind, 4, 200))
    assert bad['precision'] < real['precision'] - 0.2, kind
    assert bad['two_sample'] > 0.5 + 4 * bad['standard_error'], kind
    assert bad['frechet'] > 3 * real['frechet'], kind
  assert noise['precision'] < 0.1
  assert noise['two_sample'] > 0.95


def test_copies_of_the_training_split_are_found(reference):
  copies = reference.scores(drawings(0, 200))
  assert copies['copies'] == 1
  assert copies['nearest'] == pytest.approx(0, abs=1e-3)
  assert copies['precision'] > 0.9
  assert reference.scores(drawings(2, 200))['copies'] < 0.1


def test_empty_drawings_are_counted_and_not_left_out(reference):
  some = drawings(2, 200)
  some[::4] = [np.zeros((0, 3), np.float32)] * 50
  scores = reference.scores(some)
  assert scores['empty'] == 0.25
  assert scores['precision'] < 0.8
  assert scores['points'] == pytest.approx(0.75 * 8)


def test_strokes_are_counted_with_an_unfinished_one(reference):
  one = drawings(2, 1)[0]
  one[-1, 2] = 0
  scores = reference.scores([one] * 10)
  assert scores['strokes'] == 3
  assert scores['strokes_gap'] == 0


# The features.


def test_a_network_is_trained_once(tmp_path, monkeypatch):
  settings = dataclasses.replace(SETTINGS, num_steps=3)
  arguments = (drawings(0, 20), np.zeros(20, np.int32))

  def load(settings, fingerprint='a'):
    return features_lib.load_or_train(
      tmp_path, *arguments, settings, fingerprint=fingerprint
    )(drawings(1, 5))

  first = load(settings)
  np.testing.assert_array_equal(
    first, features_lib.train(*arguments, settings)(drawings(1, 5))
  )
  others = [
    load(settings, 'b'),
    load(dataclasses.replace(settings, seed=1)),
  ]
  np.testing.assert_array_equal(others[0], first)  # The same drawings.
  assert np.max(np.abs(others[1] - first)) > 1e-3
  assert len(list(tmp_path.iterdir())) == 3
  monkeypatch.setattr(features_lib, 'train', None)
  np.testing.assert_array_equal(load(settings), first)


def test_features_do_not_depend_on_the_batch(reference):
  some = drawings(5, 3)
  together = reference.features(some)
  alone = np.concatenate([reference.features([one]) for one in some])
  np.testing.assert_allclose(together, alone, atol=1e-6)


@pytest.fixture(scope='module')
def sides():
  """Of boxes and mirrored ones: drawings, labels and trained features."""
  made, labels = drawings(0, 400), np.arange(400, dtype=np.int32) % 2
  for one, label in zip(made, labels, strict=True):
    one[:, 0] *= 1 - 2 * label
  settings = dataclasses.replace(SETTINGS, num_classes=2)
  features = features_lib.train(made[:200], labels[:200], settings)
  return made, labels, features


def test_categories_are_learnt(sides):
  made, labels, features = sides
  found = features(made[:200])
  distances = quality.squared_distances(found, found)
  np.fill_diagonal(distances, np.inf)
  nearest = np.argmin(distances, axis=1)
  assert np.mean(labels[nearest] == labels[:200]) > 0.95
  assert np.mean(features.classify(made[200:]) == labels[200:]) > 0.95


def test_accuracy_is_the_share_that_is_recognised(sides):
  """New drawings under their own labels, the other ones, and a quarter each."""
  made, labels, features = sides
  new, labels = made[200:], labels[200:]
  reference = quality.Reference(
    features, made[:200], features(made[:200]), features(made[:200])
  )
  right = reference.scores(new, labels)['accuracy']
  assert right > 0.95
  assert reference.scores(new, 1 - labels)['accuracy'] == pytest.approx(
    1 - right
  )
  mixed = np.where(np.arange(200) < 50, 1 - labels, labels)
  assert reference.scores(new, mixed)['accuracy'] == pytest.approx(
    0.75, abs=0.03
  )
  # A model that draws one of two categories, whatever it is asked for.
  same = [one for one, label in zip(new, labels, strict=True) if label] * 2
  assert reference.scores(same, labels)['accuracy'] == pytest.approx(
    0.5, abs=0.03
  )
  assert 'accuracy' not in reference.scores(new)


def test_one_category_is_not_classified(reference):
  with pytest.raises(ValueError, match='knows one category: train it on sev'):
    reference.features.classify(drawings(1, 2))


@pytest.mark.parametrize('kind', features_lib.KINDS)
def test_corrupted_drawings_are_drawings(kind):
  changed = 0
  for before, after in zip(
    drawings(4, 50), corrupted(kind, 4, 50), strict=True
  ):
    strokes.check(after)
    changed += not np.array_equal(before, after)
  assert changed == 0 if kind == 'real' else changed > 25


def test_shuffled_strokes_are_the_same_strokes():
  (before,) = drawings(4, 1)
  after = features_lib.corrupt(
    before, 'shuffled', before, np.random.default_rng(0)
  )

  def found(drawing):
    lines = strokes.to_lines(drawing)
    low = np.min(np.concatenate(lines), axis=0)
    return sorted((line - low).round(3).tolist() for line in lines)

  assert found(after) == found(before)


def test_unknown_kinds_are_refused():
  (one,) = drawings(0, 1)
  with pytest.raises(ValueError, match="kind='torn' is none of real, shuffled"):
    features_lib.corrupt(one, 'torn', one, np.random.default_rng(0))


def test_the_coarse_image_of_a_corner():
  line = np.array([[0, 0], [0, 100], [100, 100]])
  image = features_lib.coarse_image(strokes.from_lines([line]))
  expected = np.zeros((12, 12))
  expected[:, 0] = expected[-1] = 1
  np.testing.assert_array_equal(image.reshape(12, 12), expected)


def test_the_table_has_a_line_for_each_set(reference):
  scores = {'real': reference.scores(drawings(2, 200))}
  heading, line = quality.table(scores).split('\n')
  assert heading.split()[:3] == ['precision', 'recall', 'coverage']
  assert line.split()[0] == 'real'
  assert len(line) == len(heading)


def test_the_table_has_a_dash_where_a_set_has_no_score(reference):
  scores = reference.scores(drawings(2, 200))
  text = quality.table({'real': {**scores, 'accuracy': 0.5}, 'samples': scores})
  heading, real, samples = text.split('\n')
  assert heading.split()[-1] == 'accuracy'
  assert real.split()[-1] == '0.500'
  assert samples.split()[-1] == '-'
