"""The examples of batch number `step`: a function of seed and step alone.

A resumed run needs no data state: it reads batch `state.step`. On several
hosts, host `h` reads block `h` of each global batch and nothing else.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any
from typing import Protocol

import grain
import jax
import numpy as np

from training import parallel

Example = dict[str, Any]


class Source(Protocol):
  """Random access to records."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> Any: ...


def training_batches(
  source: Source,
  to_example: Callable[[Any, np.random.Generator], Example],
  *,
  batch_size: int,
  seed: int,
) -> grain.MapDataset:
  """Returns endless shuffled batches, in a new order every epoch.

  Args:
    source: the records.
    to_example: a record and the random generator of this example (it depends
      on seed and position alone) -> a dict of arrays of fixed shapes.
    batch_size: over all hosts; a multiple of the number of devices.
    seed: random seed of the order and of the augmentation.

  Returns:
    `batches[step]` is this host's share of the global batch `step`.

  Raises:
    ValueError: no records, or a batch that does not divide over the devices.
  """
  if not len(source):
    raise ValueError('the training split is empty: prepare the data set again')
  return (
    grain.MapDataset.source(source)
    .seed(seed)
    .shuffle()
    .repeat()
    .random_map(to_example)
    .batch(parallel.local_batch_size(batch_size))[
      jax.process_index() :: jax.process_count()
    ]
  )


def evaluation_batches(
  source: Source,
  to_example: Callable[[Any], Example],
  *,
  batch_size: int,
) -> grain.MapDataset:
  """Returns every record once, in order; the last batch is padded.

  Args:
    source: the records.
    to_example: a record -> a dict of arrays of fixed shapes.
    batch_size: over all hosts; a multiple of the number of devices.

  Returns:
    `batches[i]` is this host's share, with `mask` bool[B], False on padding
    (copies of the last record). All hosts have the same number of batches.
  """
  size = -(-len(source) // batch_size) * batch_size

  def example(index):
    record = source[min(int(index), len(source) - 1)]
    return {**to_example(record), 'mask': np.array(index < len(source))}

  return (
    grain.MapDataset.range(size)
    .map(example)
    .batch(parallel.local_batch_size(batch_size))[
      jax.process_index() :: jax.process_count()
    ]
  )


def number(batches: Iterable[Example]) -> Iterator[Example]:
  """Adds `index` i32[B], the numbers of the examples, to a host's batches.

  Args:
    batches: of `evaluation_batches`, or all of one size.
  """
  start = 0
  for batch in batches:
    size = len(batch['mask'])
    first = start + jax.process_index() * size
    yield {**batch, 'index': np.arange(first, first + size, dtype=np.int32)}
    start += jax.process_count() * size


def read(
  batches: grain.MapDataset, start: int = 0, *, num_threads: int = 4
) -> Iterator[Example]:
  """Reads batches from number `start` on, in threads that prefetch."""
  options = grain.ReadOptions(
    num_threads=num_threads, prefetch_buffer_size=2 * num_threads
  )
  return iter(batches[start:].to_iter_dataset(options))
