"""Examples equal the published code's; batches depend on seed and step."""

import json

import jax
import ml_collections
import numpy as np
import pytest

from sketch_rnn import builders
from sketch_rnn import examples as examples_lib
from sketch_rnn import file_formats
from sketch_rnn import strokes
from training import buckets as buckets_lib

BUCKETS = (6, 10, 99)


def make_config(**fields):
  config = dict(
    name='sketches/mine',
    categories=(),
    data_dir='',
    max_length=250,
    limit=1000.0,
    random_scale=0.15,
    drop_probability=0.10,
  )
  return ml_collections.ConfigDict({**config, **fields})


def records(count, *, seed=0, category='cat', longest=14):
  """Drawings of 2 to `longest` points; one of them has exactly that many."""
  rng = np.random.default_rng(seed)
  made = []
  for i in range(count):
    n = longest if i == 0 else rng.integers(2, longest + 1)
    rows = rng.normal(0, 30, size=(n, 3)).astype(np.float32)
    rows[:, 2] = 0
    rows[-1, 2] = 1
    made.append({'id': f'{i:03d}', 'strokes': rows, 'category': category})
  return made


def build(train, config=None, **splits):
  splits = {'train': train, **splits}
  return examples_lib.Examples.build(config or make_config(), splits)


@pytest.fixture(scope='module')
def prepared(shared, tmp_path_factory):
  """Real drawings as data sets; the directory that they are in."""
  directory = tmp_path_factory.mktemp('data')
  for name in ('aaron_sheep', 'short_kanji'):
    sketches, _ = file_formats.load([shared / f'data/sketches/{name}.npz'])
    builders.prepare(name, sketches, directory)
  return directory


# What is measured.


@pytest.mark.parametrize(
  ('name', 'counts'),
  [('aaron_sheep', (7400, 300, 300)), ('short_kanji', (10000, 600, 500))],
)
def test_scale_and_length_equal_the_published_codes(
  prepared, golden_file, name, counts
):
  examples, splits = examples_lib.load(
    make_config(name=f'sketches/{name}', data_dir=str(prepared))
  )
  assert tuple(map(len, splits.values())) == counts
  with np.load(golden_file('sketch_rnn/tf1_formulas.npz')) as golden:
    np.testing.assert_allclose(
      examples.scale, golden[f'norm/{name}'], rtol=1e-6
    )
    assert examples.length == golden[f'maxlen/{name}']
  assert examples.categories == (name,)


def test_examples_equal_the_published_codes(prepared, golden_file):
  """The recorded drawings are those of 20, 30, 58, 106 and 250 points."""
  examples, splits = examples_lib.load(
    make_config(name='sketches/aaron_sheep', data_dir=str(prepared))
  )
  with np.load(golden_file('sketch_rnn/tf1_utils.npz')) as golden:
    for expected, length in zip(
      golden['pad_batch'], golden['pad_lengths'], strict=True
    ):
      train = splits['train']
      found = [
        examples.evaluation(train[int(i)])['strokes']
        for i in np.flatnonzero(train.lengths == length)
      ]
      errors = [np.abs(strokes - expected).max() for strokes in found]
      assert min(errors) < 1e-5


def test_what_is_too_long_is_left_out():
  train, validation = records(40), records(9, seed=1)
  config = make_config(max_length=8)
  examples, splits = build(train, config, validation=validation)
  for made, split in ((train, 'train'), (validation, 'validation')):
    kept = [r for r in made if len(r['strokes']) <= 8]
    assert 0 < len(kept) < len(made)
    assert [r['id'] for r in splits[split]] == [r['id'] for r in kept]
    np.testing.assert_array_equal(
      splits[split].lengths, [len(r['strokes']) for r in kept]
    )
    again = examples.select(made)  # As for a checkpoint.
    assert [r['id'] for r in again] == [r['id'] for r in kept]
  assert examples.length == 8
  offsets = np.concatenate(
    [r['strokes'][:, :2] for r in train if len(r['strokes']) <= 8]
  )
  assert examples.scale == pytest.approx(np.std(offsets), rel=1e-5)
  with pytest.raises(ValueError, match="'train' has at most 1 points: pass"):
    build(train, make_config(max_length=1))


def test_the_longest_may_be_outside_of_the_training_split():
  examples, _ = build(records(5), test=records(3, longest=20))
  assert examples.length == 20


def test_offsets_are_clamped_before_they_are_measured():
  made = records(4)
  made[0]['strokes'][2, 0] = 5000
  examples, _ = build(made, make_config(limit=100.0))
  clamped = [np.clip(r['strokes'], -100, 100)[:, :2] for r in made]
  expected = np.std(np.concatenate(clamped))
  assert examples.scale == pytest.approx(expected, rel=1e-5)
  rows = examples.evaluation(made[0])['strokes']
  assert rows[3, 0] == pytest.approx(100 / examples.scale, rel=1e-6)


def test_a_checkpoint_brings_them_back():
  examples, _ = build(records(5))
  fields = json.loads(json.dumps(examples.to_dict()))
  assert examples_lib.Examples.from_dict(fields) == examples
  # As of imported models.
  required = {'scale': 2.0, 'length': 9, 'categories': ['dog']}
  assert examples_lib.Examples.from_dict(required).categories == ('dog',)


# Examples.


def test_training_examples_are_augmented_evaluation_examples():
  made = records(3, longest=60)
  config = make_config(drop_probability=0.0)
  examples, _ = build(made, config)
  plain = examples.evaluation(made[0])
  example = examples.training(made[0], np.random.default_rng(3))
  factors = np.random.default_rng(3).uniform(0.85, 1.15, 2)
  np.testing.assert_allclose(
    example['strokes'][:, :2], plain['strokes'][:, :2] * factors, rtol=1e-5
  )
  np.testing.assert_array_equal(
    example['strokes'][:, 2:], plain['strokes'][:, 2:]
  )
  examples, _ = build(made, make_config(drop_probability=0.5))
  example = examples.training(made[0], np.random.default_rng(3))
  length = example['length']
  assert 20 < length < 55
  np.testing.assert_array_equal(
    np.flatnonzero(example['strokes'][:, 4]), np.arange(length + 1, 61)
  )
  np.testing.assert_allclose(
    example['strokes'][:, :2].sum(axis=0),
    plain['strokes'][:, :2].sum(axis=0) * factors,
    rtol=1e-4,
    atol=1e-4,
  )


def test_labels_are_places_among_the_categories():
  made = [*records(2, category='pig'), *records(2, category='cat')]
  examples, _ = build(made)
  assert examples.categories == ('cat', 'pig')
  assert [examples.evaluation(r)['label'] for r in made] == [1, 1, 0, 0]
  examples, _ = build(made, make_config(categories=('pig', 'cat')))
  assert [examples.evaluation(r)['label'] for r in made] == [0, 0, 1, 1]
  # A split may have some that the others do not have.
  examples, _ = build(made, test=records(1, category='ant'))
  assert examples.categories == ('ant', 'cat', 'pig')
  with pytest.raises(ValueError, match="is of 'dog', which is none of"):
    examples.evaluation({**made[0], 'category': 'dog'})


def test_only_some_categories(tmp_path):
  made = [*records(4, category='pig'), *records(3, category='cat', seed=1)]
  builders.prepare(
    'mine',
    [
      file_formats.Sketch(f'{split}{i}', r['strokes'], r['category'], split)
      for split in builders.SPLITS
      for i, r in enumerate(made)
    ],
    tmp_path,
  )
  config = make_config(data_dir=str(tmp_path), categories=('cat',))
  examples, splits = examples_lib.load(config)
  assert examples.categories == ('cat',)
  assert [len(split) for split in splits.values()] == [3, 3, 3]
  assert {r['category'] for r in splits['test']} == {'cat'}
  assert len(examples_lib.load_split(config, 'test', examples)) == 3
  assert examples_lib.fingerprint(config) == builders.fingerprint(
    'sketches/mine', tmp_path
  )
  config.categories = ()
  assert examples_lib.load(config)[0].categories == ('cat', 'pig')
  config.categories = ('cow',)
  with pytest.raises(ValueError, match='no drawing of cow .* only of cat, pig'):
    examples_lib.load(config)


# Batches.


def make_batches(made, *, batch_size=4, seed=0, buckets=BUCKETS):
  examples, splits = build(made)
  return examples_lib.training_batches(
    splits['train'],
    examples,
    batch_size=batch_size,
    seed=seed,
    buckets=buckets,
  )


def equal(x, y):
  return all(np.array_equal(x[name], y[name]) for name in x)


@pytest.mark.parametrize('buckets', [(), BUCKETS])
def test_batches_depend_on_seed_and_step_alone(buckets):
  made = records(30)
  first, second = (make_batches(made, buckets=buckets) for _ in range(2))
  forward = [first[step] for step in range(20)]
  for step in reversed(range(20)):  # Another order of asking.
    assert equal(forward[step], second[step])
  other = make_batches(made, buckets=buckets, seed=1)
  assert not equal(forward[0], other[0])


def test_every_drawing_at_most_once_an_epoch():
  """All but those that do not fill one last batch, and in another order."""
  batches = make_batches(records(30))
  epochs = []
  for epoch in range(3):
    ids = np.concatenate([batches[epoch * 7 + i]['id'] for i in range(7)])
    assert len(ids) == len(set(ids)) == 28
    epochs.append(ids)
  assert not np.array_equal(epochs[0], epochs[1])
  # Drawings that were left out are in another epoch.
  assert set(np.concatenate([batches[i]['id'] for i in range(70)])) == {
    f'{i:03d}' for i in range(30)
  }


def test_batches_are_cut_to_buckets_and_nothing_is_lost():
  """Each with room for an end row; the longest are as without buckets."""
  made = records(200)
  by_id = {r['id']: r for r in made}
  batches = make_batches(made)
  widths = []
  for step in range(50):
    batch = batches[step]
    widths.append(batch['strokes'].shape[1] - 1)
    for name, rows, length in zip(
      batch['id'], batch['strokes'], batch['length'], strict=True
    ):
      drawing = by_id[name]['strokes']
      if widths[-1] < 14:
        assert len(drawing) < widths[-1]
        np.testing.assert_array_equal(rows[-1], strokes.END)
      assert 0 < length <= len(drawing)
      assert np.count_nonzero(rows[1:, 4]) == widths[-1] - length
      # The pen is lifted at the end, and what came before is all there.
      assert rows[length, 3] == 1
  lengths = np.array([len(r['strokes']) for r in made])
  short, middle = np.sum(lengths < 6), np.sum(lengths < 10)
  assert widths.count(6) == short // 4
  assert widths.count(10) == (middle - 4 * (short // 4)) // 4
  assert set(widths) == {6, 10, 14}
  assert widths != sorted(widths)


def test_too_few_for_a_bucket_go_to_the_next():
  lengths = np.array([3, 3, 8, 8, 12])
  order = buckets_lib.Order(lambda _: lengths, (5, 9), 12, 4, seed=0)
  epoch, indices, bucket = order.batch(0)
  assert (epoch, bucket) == (0, 9)
  assert sorted(indices) == [0, 1, 2, 3]
  with pytest.raises(ValueError, match='5 records do not fill a batch of 6'):
    buckets_lib.Order(lambda _: lengths, (5, 9), 12, 6, seed=0)


@pytest.mark.parametrize('buckets', [(), BUCKETS])
def test_hosts_read_their_shares_of_the_same_batches(monkeypatch, buckets):
  made = records(30)
  whole = make_batches(made, buckets=buckets)
  expected = [whole[step] for step in range(12)]
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(jax, 'device_count', lambda: 4)
  for host in range(2):
    monkeypatch.setattr(jax, 'process_index', lambda host=host: host)
    share = make_batches(made, buckets=buckets)
    for step, batch in enumerate(expected):
      block = {k: v[2 * host : 2 * host + 2] for k, v in batch.items()}
      assert equal(share[step], block)


def test_augmentation_differs_by_epoch():
  batches = make_batches(records(8, longest=5), batch_size=8)
  first = {
    name: rows
    for name, rows in zip(batches[0]['id'], batches[0]['strokes'], strict=True)
  }
  for name, rows in zip(batches[1]['id'], batches[1]['strokes'], strict=True):
    assert not np.array_equal(first[name], rows)
