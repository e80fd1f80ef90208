"""Batches of drawings of similar lengths, so that little padding is computed.

`strokes` of a batch is f32[B, bucket + 1, 5]; all of its drawings fit, with one
end row each. Drawings that are longer than all buckets are in batches of full
length. Every epoch has its own order of drawings and of buckets.

Axes: B batch, T full length.
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
  order: 'Order',
  *,
  batch_size: int,
  seed: int,
) -> grain.MapDataset:
  """Endless batches in a given order; see `batching.training_batches`.

  Args:
    source: the records.
    to_example: takes a record and a random generator; returns a dict of arrays,
      one of them `strokes` f32[T + 1, 5].
    order: the records of each batch.
    batch_size: that of the order.
    seed: random seed of the augmentation.
  """

  def pick(position, unused):
    del unused
    step, slot = divmod(position, batch_size)
    indices, bucket = order.batch(step)
    return source[int(indices[slot])], bucket

  def cut_example(record_and_bucket, rng):
    record, bucket = record_and_bucket
    example = to_example(record, rng)
    return {**example, 'strokes': example['strokes'][: bucket + 1]}

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
  """The drawings of batch number `step`, and its length.

  Drawings that do not fill a batch of their bucket go to the next longer one,
  so that an epoch leaves out less than one batch in all.
  """

  def __init__(
    self,
    lengths: np.ndarray,
    buckets: Sequence[int],
    longest: int,
    batch_size: int,
    seed: int,
  ):
    """Sorts drawings into buckets.

    Args:
      lengths: i32[], number of points of each drawing.
      buckets: lengths of batches, all but the longest.
      longest: length of the longest batches; all drawings fit into them.
      batch_size: over all hosts.
      seed: random seed of the order.

    Raises:
      ValueError: all drawings together do not fill one batch.
    """
    self._buckets = [*sorted({b for b in buckets if b < longest}), longest]
    # A drawing as long as its bucket would have no end row: it goes to the
    # next one, unless there is none.
    of = np.searchsorted(self._buckets[:-1], lengths, side='right')
    self._members = [np.flatnonzero(of == i) for i in range(len(self._buckets))]
    self._batch_size = batch_size
    self._seed = seed
    self._batches_per_epoch = len(lengths) // batch_size
    if not self._batches_per_epoch:
      raise ValueError(
        f'{len(lengths)} drawings do not fill a batch of {batch_size}: pass a '
        'smaller --config.batch_size, or no --config.buckets'
      )
    self._epoch = functools.lru_cache(maxsize=4)(self._make_epoch)

  def batch(self, step: int) -> tuple[np.ndarray, int]:
    """The global batch `step`: indices i64[B] and its bucket."""
    epoch, number = divmod(int(step), self._batches_per_epoch)
    return self._epoch(epoch)[number]

  def _make_epoch(self, epoch: int) -> list[tuple[np.ndarray, int]]:
    rng = np.random.default_rng((self._seed, epoch))
    made, left = [], np.zeros(0, np.int64)
    for bucket, members in zip(self._buckets, self._members, strict=True):
      pool = rng.permutation(np.concatenate([left, members]))
      count = len(pool) // self._batch_size
      filled, left = np.split(pool, [count * self._batch_size])
      made += [
        (indices, bucket) for indices in filled.reshape(count, self._batch_size)
      ]
    return [made[i] for i in rng.permutation(len(made))]
