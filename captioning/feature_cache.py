"""Features of a frozen encoder, computed once for images or clips.

A run keeps its own copy of the encoder. The features lie beside the data set,
for all runs that share the data, the encoder and the preprocessing.
"""

import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from training import batching
from training import features
from training import parallel
from vision import pretrained

# The frozen encoder of a run, beside its checkpoints.
ENCODER_FILE = 'encoder.safetensors'


def save_encoder(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  *,
  earlier: pathlib.Path | None = None,
) -> pathlib.Path:
  """The path of the workdir's own copy of the encoder, written if absent.

  Args:
    config: `encoder_weights`, `encoder`.
    workdir: of the run.
    earlier: the copy of an earlier run, to use in place of `encoder_weights`.

  Raises:
    ValueError: there is no encoder to copy.
  """
  path = workdir / ENCODER_FILE
  if not path.exists():
    if earlier is not None:
      if jax.process_index() == 0:
        # Byte for byte, so that both runs share their features.
        workdir.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix('.partial')
        shutil.copyfile(earlier, partial)
        os.replace(partial, path)
    elif not config.encoder_weights:
      raise ValueError(
        'cache_features needs a published encoder: pass '
        '--config.encoder_weights=FILE.safetensors, or train the encoder '
        'with --config.cache_features=False'
      )
    else:
      variables = pretrained.load_encoder(
        config.encoder_weights, config.encoder
      )
      if jax.process_index() == 0:
        workdir.mkdir(parents=True, exist_ok=True)
        pretrained.save(path, variables)
  # Every process comes here, also one that finds the file written.
  parallel.wait_for_all('encoder')
  return path


def load_encoder(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> Any:
  """The variables of a run's frozen encoder."""
  return pretrained.load_encoder(workdir / ENCODER_FILE, config.encoder)


def key(
  config: ml_collections.ConfigDict,
  encoder_file: pathlib.Path,
  *,
  fingerprint: str,
  fields: Sequence[str],
) -> str:
  """Names features by all that they depend on.

  Args:
    config: `encoder`, `data`.
    encoder_file: the encoder's weights.
    fingerprint: of the data set's contents.
    fields: of `config.data`, those that the features depend on.
  """
  digest = hashlib.sha256(encoder_file.read_bytes())
  description = {
    'data': fingerprint,
    'encoder': config.encoder.to_dict(),
    **{field: config.data[field] for field in fields},
  }
  digest.update(json.dumps(description, sort_keys=True).encode())
  return digest.hexdigest()[:16]


def split_directory(
  data_directory: pathlib.Path, key: str, split: str
) -> pathlib.Path:
  """The directory of the features of one split, beside its data set."""
  return data_directory / f'features-{key}' / split


def write(
  records: batching.Source,
  encode: Callable[[list[Any]], Sequence[np.ndarray]],
  directory: pathlib.Path,
  *,
  key: str,
  batch_size: int,
  shard_size: int,
  max_locations: int | None = None,
) -> features.Features:
  """Computes the features that are not there yet, and opens all of them.

  Every process encodes its share, and waits for the others.

  Args:
    records: of one split.
    encode: see `features.write`.
    directory: of `split_directory`.
    key: the features' name.
    batch_size: over all hosts.
    shard_size: the number of records that are lost at most when the process is
      stopped.
    max_locations: see `features.write`.
  """
  features.write(
    records,
    encode,
    directory,
    batch_size=parallel.local_batch_size(batch_size),
    shard_size=shard_size,
    fingerprint=key,
    max_locations=max_locations,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  parallel.wait_for_all(f'features of {directory.name}')
  return features.open_features(directory, fingerprint=key)
