"""Batches of sequences of similar lengths, so that little padding is computed.

A batch is cut to its bucket; all of its sequences fit. Sequences that are
longer than all buckets are in batches of full length. Every epoch has its own
order of records and of buckets, and each length of a batch is compiled once.
"""

import functools
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import grain
import jax
import numpy as np

from training import batching
from training import parallel


def training_batches(
  source: batching.Source,
  to_example: Callable[[Any, np.random.Generator], batching.Example],
  cut: Callable[[batching.Example, int], batching.Example],
  order: 'Order',
  *,
  batch_size: int,
  seed: int,
) -> grain.MapDataset:
  """Endless batches in a given order; see `batching.training_batches`.

  Args:
    source: the records: `source[epoch, index]`.
    to_example: takes a record and a random generator; returns a dict of arrays.
    cut: takes an example and its bucket; returns the shorter example.
    order: the records of each batch.
    batch_size: that of the order.
    seed: random seed of the augmentation.
  """

  def pick(position, unused):
    del unused
    step, slot = divmod(position, batch_size)
    epoch, indices, bucket = order.batch(step)
    return source[epoch, int(indices[slot])], bucket

  def cut_example(record_and_bucket, rng):
    record, bucket = record_and_bucket
    return cut(to_example(record, rng), bucket)

  return (
    grain.MapDataset.range(1)
    .seed(seed)
    .repeat()
    .map_with_index(pick)
    .random_map(cut_example)
    .batch(parallel.local_batch_size(batch_size))[
      jax.process_index() :: jax.process_count()
    ]
  )


class Order:
  """The records of batch number `step`, and its length.

  Records that do not fill a batch of their bucket go to the next longer one, so
  that an epoch leaves out less than one batch in all.
  """

  def __init__(
    self,
    lengths: Callable[[int], np.ndarray],
    buckets: Sequence[int],
    longest: int,
    batch_size: int,
    seed: int,
  ):
    """Takes what every epoch is made of.

    Args:
      lengths: epoch -> i32[N], the length of each record in it.
      buckets: lengths of batches, all but the longest.
      longest: length of the longest batches; all records fit into them.
      batch_size: over all hosts.
      seed: random seed of the order.

    Raises:
      ValueError: all records together do not fill one batch.
    """
    self._lengths = lengths
    self._buckets = [*sorted({b for b in buckets if b < longest}), longest]
    self._batch_size = batch_size
    self._seed = seed
    count = len(lengths(0))
    self._batches_per_epoch = count // batch_size
    if not self._batches_per_epoch:
      raise ValueError(
        f'{count} records do not fill a batch of {batch_size}: pass a '
        'smaller --config.batch_size, or no --config.buckets'
      )
    self._epoch = functools.lru_cache(maxsize=4)(self._make_epoch)

  def batch(self, step: int) -> tuple[int, np.ndarray, int]:
    """The global batch `step`: its epoch, indices i64[B], and its bucket."""
    epoch, number = divmod(int(step), self._batches_per_epoch)
    return epoch, *self._epoch(epoch)[number]

  def _make_epoch(self, epoch: int) -> list[tuple[np.ndarray, int]]:
    rng = np.random.default_rng((self._seed, epoch))
    buckets = np.searchsorted(self._buckets[:-1], self._lengths(epoch))
    made, left = [], np.zeros(0, np.int64)
    for i, bucket in enumerate(self._buckets):
      members = np.flatnonzero(buckets == i)
      pool = rng.permutation(np.concatenate([left, members]))
      count = len(pool) // self._batch_size
      filled, left = np.split(pool, [count * self._batch_size])
      made += [
        (indices, bucket) for indices in filled.reshape(count, self._batch_size)
      ]
    return [made[i] for i in rng.permutation(len(made))]
