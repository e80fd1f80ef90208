"""The records of a run: the splits of its data set, with cached features.

Axes: L locations, N locations of one image where they vary in number, D
features.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging

from captioning import concepts
from captioning import data
from captioning import earlier
from captioning import examples as examples_lib
from captioning import feature_cache
from captioning import inference
from captioning import regions
from captioning import rewards
from captioning import vocabulary as vocabulary_lib
from training import app
from training import batching
from training import features
from training import parallel

_SHARD_SIZE = 512  # Images; at most these are lost when caching is stopped.


class WithFeatures:
  """Records with their cached `features`, f16[L, D].

  Where locations vary in number it is f16[N, D], and `max_locations` is the
  largest N of the data set.
  """

  def __init__(self, records: batching.Source, cached: features.Features):
    """Joins two sources of equal length and order."""
    self._records = records
    self._features = cached
    self._constant = {}
    if cached.max_locations is not None:
      self._constant['max_locations'] = cached.max_locations

  def __len__(self) -> int:
    """The number of images."""
    return len(self._records)

  def __getitem__(self, index: int) -> dict[str, Any]:
    """The record of image `index`."""
    record = self._records[index]
    return {**record, **self._constant, 'features': self._features[index]}


def open_split(
  config: ml_collections.ConfigDict, workdir: pathlib.Path, split: str
) -> batching.Source:
  """Opens the records of one split, with features if the run reads those.

  With `regions` these are the features that scripts/import_regions.py has
  imported by that name. With `cache_features` missing features are computed
  now, once for all runs that share the data set, the encoder and the
  preprocessing.
  """
  if config.regions and config.cache_features:
    raise ValueError(
      f'regions={config.regions!r} replace the encoder: pass '
      '--config.cache_features=False with them'
    )
  records = data.open_split(config.data.name, split, config.data.data_dir)
  if config.regions:
    cached = regions.open_split(
      config.data.name, config.regions, split, config.data.data_dir
    )
    return WithFeatures(records, cached)
  if not config.cache_features:
    return records
  key = feature_cache.key(
    config,
    earlier.save_encoder(config, workdir),
    fingerprint=data.fingerprint(config.data.name, config.data.data_dir),
    fields=('resize', 'crop'),
  )
  data_directory = data.directory(config.data.name, config.data.data_dir)
  cached = feature_cache.write(
    records,
    _encode(config, workdir),
    feature_cache.split_directory(data_directory, key, split),
    key=key,
    batch_size=config.eval_batch_size,
    shard_size=_SHARD_SIZE,
  )
  return WithFeatures(records, cached)


def make_examples(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  training: batching.Source,
) -> examples_lib.Examples:
  """Creates the examples, with the vocabulary of the workdir.

  A new workdir gets the vocabulary of the run that `start_from` names, or one
  that is built from the training split.
  """
  path = workdir / vocabulary_lib.FILE
  if path.exists():
    vocabulary = vocabulary_lib.Vocabulary.load(path)
  else:
    if config.start_from:
      vocabulary = earlier.load_vocabulary(config)
    else:
      vocabulary = vocabulary_lib.Vocabulary.build(
        (c for i in range(len(training)) for c in training[i]['captions']),
        threshold=config.data.vocabulary_threshold,
        tokenizer=config.data.tokenizer,
      )
    vocabulary_lib.check_tokenizer(vocabulary, config.data.tokenizer)
    workdir.mkdir(parents=True, exist_ok=True)
    if jax.process_index() == 0:
      vocabulary.save(path)
  logging.info('A vocabulary of %d words.', len(vocabulary))
  return examples_lib.Examples(vocabulary, config.data)


def find_concepts(
  training: batching.Source, vocabulary: vocabulary_lib.Vocabulary
) -> np.ndarray:
  """The concepts of the training captions; see concepts.py."""
  captions = (training[i]['captions'] for i in range(len(training)))
  found = concepts.find(captions, vocabulary)
  logging.info('%d visual concepts.', found.max() + 1)
  return found


def count_frequencies(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  training: batching.Source,
  vocabulary: vocabulary_lib.Vocabulary,
) -> rewards.Frequencies:
  """Document frequencies of the training split, counted once for all runs.

  Args:
    config: `data`.
    workdir: for the file where the data set's directory is read-only.
    training: the training split.
    vocabulary: of the captioner.
  """
  return rewards.count_split(
    data.directory(config.data.name, config.data.data_dir),
    (training[i]['captions'] for i in range(len(training))),
    fingerprint=data.fingerprint(config.data.name, config.data.data_dir),
    vocabulary=vocabulary,
    max_length=config.data.max_length,
    workdir=workdir,
  )


def _encode(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> Callable[[list[dict[str, Any]]], np.ndarray]:
  """Returns a function from records to features f32[B, L, D]."""
  variables = feature_cache.load_encoder(config, workdir)
  encode = inference.encode_step(config, variables)
  size = parallel.local_batch_size(config.eval_batch_size)
  examples = examples_lib.Examples(None, config.data)

  def encode_records(records):
    app.raise_if_stopping()
    images = np.stack([examples.image(record) for record in records])
    padding = [(0, size - len(records))] + [(0, 0)] * 3
    return encode(np.pad(images, padding))[: len(records)]

  return encode_records
