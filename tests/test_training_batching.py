"""Batch `step` depends on seed and step alone; evaluation sees all once."""

import numpy as np
import pytest

from training import batching


def example(record, rng):
  return {'id': record, 'noise': rng.random(3)}


def make(seed=0, batch_size=4):
  return batching.training_batches(
    range(10), example, batch_size=batch_size, seed=seed
  )


def equal(x, y):
  return all(np.array_equal(x[name], y[name]) for name in x)


def test_reading_from_the_middle_equals_reading_from_the_start():
  all_batches = batching.read(make())
  for _ in range(7):
    next(all_batches)
  resumed = batching.read(make(), 7)
  for step in range(7, 12):
    a, b = next(all_batches), next(resumed)
    assert equal(a, b)
    assert equal(a, make()[step])


def test_an_epoch_has_every_record_once_and_the_next_another_order():
  batches = make(batch_size=2)
  epochs = [
    np.concatenate([batches[e * 5 + i]['id'] for i in range(5)])
    for e in range(3)
  ]
  for epoch in epochs:
    assert sorted(epoch) == list(range(10))
  assert not np.array_equal(epochs[0], epochs[1])
  assert not np.array_equal(epochs[1], epochs[2])


def test_augmentation_differs_by_epoch_and_seed():
  batches = make(batch_size=2)
  noise = np.concatenate([batches[i]['noise'] for i in range(20)])
  assert len(np.unique(noise[:, 0])) == 40
  assert not equal(make(seed=0)[0], make(seed=1)[0])


def test_no_records_is_an_error():
  with pytest.raises(ValueError, match='training split is empty'):
    batching.training_batches([], example, batch_size=2, seed=0)


@pytest.mark.parametrize('size', [1, 4, 6, 8])
def test_evaluation_has_every_record_once(size):
  batches = batching.evaluation_batches(
    [f'r{i}' for i in range(size)], lambda r: {'id': r}, batch_size=4
  )
  read = list(batching.read(batches))
  assert all(len(batch['id']) == 4 for batch in read)
  ids = np.concatenate([batch['id'] for batch in read])
  mask = np.concatenate([batch['mask'] for batch in read])
  assert list(ids[mask]) == [f'r{i}' for i in range(size)]
