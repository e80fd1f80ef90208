"""The records of a run: its data set's splits, with cached grids if wanted."""

import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging

from captioning import data
from captioning import examples as examples_lib
from captioning import features
from captioning import inference
from captioning import vocabulary as vocabulary_lib
from training import app
from training import batching
from training import parallel
from vision import pretrained

_SHARD_SIZE = 512  # Pictures; what is lost at most when caching is stopped.


class WithGrids:
  """Records that carry their cached `grid` f16[L, D] beside the picture."""

  def __init__(self, records: batching.Source, grids: batching.Source):
    """Joins two sources of equal length and order."""
    self._records = records
    self._grids = grids

  def __len__(self) -> int:
    """The number of pictures."""
    return len(self._records)

  def __getitem__(self, index: int) -> dict[str, Any]:
    """The record of picture `index`."""
    return {**self._records[index], 'grid': self._grids[index]}


def open_split(
  config: ml_collections.ConfigDict, workdir: pathlib.Path, split: str
) -> batching.Source:
  """The records of one split; with `cache_features` each has its `grid`.

  Grids that are not there yet are computed now, once for all runs that share
  the data set, the encoder and the preprocessing.
  """
  records = data.open_split(config.data.name, split, config.data.data_dir)
  if not config.cache_features:
    return records
  encoder_file = _encoder_file(config, workdir)
  key = _features_key(config, encoder_file)
  directory = (
    data.directory(config.data.name, config.data.data_dir)
    / f'features-{key}'
    / split
  )
  features.write(
    records,
    _encode(config, encoder_file),
    directory,
    batch_size=parallel.local_batch_size(config.eval_batch_size),
    shard_size=_SHARD_SIZE,
    fingerprint=key,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  parallel.wait_for_all(f'features of {split}')
  return WithGrids(records, features.open_features(directory, fingerprint=key))


def make_examples(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  training: batching.Source,
) -> examples_lib.Examples:
  """With the workdir's vocabulary; at first it is built and stored there."""
  path = workdir / 'vocabulary.json'
  if path.exists():
    vocabulary = vocabulary_lib.Vocabulary.load(path)
  else:
    vocabulary = vocabulary_lib.Vocabulary.build(
      (c for i in range(len(training)) for c in training[i]['captions']),
      threshold=config.data.vocabulary_threshold,
    )
    workdir.mkdir(parents=True, exist_ok=True)
    if jax.process_index() == 0:
      vocabulary.save(path)
  logging.info('A vocabulary of %d words.', len(vocabulary))
  return examples_lib.Examples(vocabulary, config.data)


def _encoder_file(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> pathlib.Path:
  """The workdir's own copy of the frozen encoder."""
  path = workdir / inference.ENCODER_FILE
  if not path.exists():
    if not config.encoder_weights:
      raise ValueError(
        'cache_features needs a published encoder: pass '
        '--config.encoder_weights=FILE.safetensors, or train the encoder '
        'with --config.cache_features=False'
      )
    variables = pretrained.load(config.encoder_weights, config.encoder.depth)
    if jax.process_index() == 0:
      workdir.mkdir(parents=True, exist_ok=True)
      pretrained.save(path, variables)
    parallel.wait_for_all('encoder')
  return path


def _features_key(
  config: ml_collections.ConfigDict, encoder_file: pathlib.Path
) -> str:
  """Names the grids: they differ when any of these does."""
  digest = hashlib.sha256(encoder_file.read_bytes())
  description = {
    'data': data.fingerprint(config.data.name, config.data.data_dir),
    'encoder': config.encoder.to_dict(),
    'resize': config.data.resize,
    'crop': config.data.crop,
  }
  digest.update(json.dumps(description, sort_keys=True).encode())
  return digest.hexdigest()[:16]


def _encode(
  config: ml_collections.ConfigDict, encoder_file: pathlib.Path
) -> Callable[[list[dict[str, Any]]], np.ndarray]:
  """Records -> grids f32[B, L, D], the last batch padded on the device."""
  variables = pretrained.load(encoder_file, config.encoder.depth)
  encode = inference.encode_step(config, variables)
  size = parallel.local_batch_size(config.eval_batch_size)
  examples = examples_lib.Examples(None, config.data)

  def encode_records(records):
    app.raise_if_stopping()
    pictures = np.stack([examples.picture(record) for record in records])
    padding = [(0, size - len(records))] + [(0, 0)] * 3
    return encode(np.pad(pictures, padding))[: len(records)]

  return encode_records
