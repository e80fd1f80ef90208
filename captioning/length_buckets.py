"""Training batches of captions of similar lengths.

As Xu et al. (2015, section 4.3) have them: most captions are far shorter than
the longest, and the decoder has as many steps as the longest of a batch. An
image counts by the longest of the captions that an epoch shows of it.

Axes: N images, C captions of an image, K captions of an image in a batch.
"""

import functools
import os
import pathlib
from typing import Any

import grain
import jax
import ml_collections
import numpy as np

from captioning import examples as examples_lib
from captioning import vocabulary as vocabulary_lib
from training import array_files
from training import batching
from training import buckets

FILE = 'caption_lengths.npy'


class Captions:
  """The captions of each image that an epoch shows, at random."""

  def __init__(self, lengths: np.ndarray, captions_per_image: int, seed: int):
    """Takes i32[N, C], the words of each caption; 0 where there is none."""
    self._lengths = lengths
    self._count = captions_per_image
    self._seed = seed
    self.chosen = functools.lru_cache(maxsize=4)(self._choose)

  def lengths(self, epoch: int) -> np.ndarray:
    """The longest of the captions that are shown: i32[N]."""
    chosen = self.chosen(epoch)
    return np.take_along_axis(self._lengths, chosen, axis=1).max(axis=1)

  def _choose(self, epoch: int) -> np.ndarray:
    """The numbers of the captions that are shown: i64[N, K].

    They all differ if the image has that many, and otherwise each occurs as
    often as any other or once more.
    """
    rng = np.random.default_rng((self._seed, epoch, 1))
    order = rng.random(self._lengths.shape)
    order = np.argsort(np.where(self._lengths > 0, order, 2), axis=1)
    real = np.count_nonzero(self._lengths, axis=1)[:, None]
    return np.take_along_axis(order, np.arange(self._count) % real, axis=1)


class _Shown:
  """Records with the captions that an epoch shows: `shown[epoch, index]`."""

  def __init__(self, records: batching.Source, captions: Captions):
    """Joins the records and the choice of their captions."""
    self._records = records
    self._captions = captions

  def __getitem__(self, position: tuple[int, int]) -> dict[str, Any]:
    """The record of one image in one epoch."""
    epoch, index = position
    record = self._records[index]
    chosen = self._captions.chosen(epoch)[index]
    return {**record, 'captions': [record['captions'][i] for i in chosen]}


def training_batches(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  training: batching.Source,
  captions: batching.Source,
  examples: examples_lib.Examples,
) -> grain.MapDataset:
  """Endless shuffled batches of the training split.

  Without length buckets if `config.buckets` is empty, in self-critical training
  (which samples captions, and reads these as references alone), and where all
  images do not fill one batch.

  Args:
    config: `buckets`, `batch_size`, `seed`, `data` and `self_critical`.
    workdir: keeps the lengths of the captions.
    training: the records.
    captions: the same without features.
    examples: turns records into examples.
  """
  options = dict(batch_size=config.batch_size, seed=config.seed)
  if (
    not config.buckets
    or config.self_critical.num_samples
    or len(training) < config.batch_size
  ):
    return batching.training_batches(training, examples.training, **options)
  lengths = _lengths(workdir / FILE, captions, examples.vocabulary)
  longest = config.data.max_length
  shown = Captions(
    np.minimum(lengths, longest), config.data.captions_per_image, config.seed
  )
  order = buckets.Order(
    shown.lengths, tuple(config.buckets), longest, **options
  )
  return buckets.training_batches(
    _Shown(training, shown), examples.training, _cut, order, **options
  )


def _cut(example: batching.Example, bucket: int) -> batching.Example:
  return {**example, 'tokens': example['tokens'][:, :bucket]}


def _lengths(
  path: pathlib.Path,
  captions: batching.Source,
  vocabulary: vocabulary_lib.Vocabulary,
) -> np.ndarray:
  """The words of all captions, EOS included: i32[N, C], 0 for no caption.

  They are counted once and kept, since that reads the whole split.
  """
  if path.exists():
    lengths = array_files.read_npy(path)
    if len(lengths) == len(captions):
      return lengths
  counts = [
    [vocabulary.count_words(caption) + 1 for caption in captions[i]['captions']]
    for i in range(len(captions))
  ]
  lengths = np.zeros((len(counts), max(map(len, counts))), np.int32)
  for row, count in zip(lengths, counts, strict=True):
    row[: len(count)] = count
  if jax.process_index() == 0:
    beside = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    with beside.open('wb') as file:
      np.save(file, lengths)
    beside.replace(path)
  return lengths
