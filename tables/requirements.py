"""Missing requirements of runs, and how to get them."""

import functools
import pathlib
import subprocess
import sys

import huggingface_hub
import ml_collections
import tensorflow_datasets as tfds

from captioning import data as captions_lib
from captioning import regions as regions_lib
from sketch_rnn import builders as builders_lib
from sketch_rnn import examples
from tables import runs as runs_lib
from video import builders
from video import data as video_lib

_WEIGHTS = 'pass --set encoder_weights=FILE.safetensors'


@functools.cache
def accelerated() -> bool:
  """Returns True if JAX finds a GPU or a TPU.

  Another process looks: this one would keep the memory of the device.
  """
  code = 'import jax; print(jax.default_backend())'
  found = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  return found.stdout.split()[-1] != 'cpu'


def missing(table_runs: runs_lib.TableRuns, row: runs_lib.Row) -> list[str]:
  """Returns what a row needs and does not find here, and how to get it."""
  config = runs_lib.load_config(table_runs.arguments(row, 0))
  found = []
  if row.data.accelerator and not accelerated():
    found.append(
      f'{row.data.label} needs a GPU or a TPU, and JAX finds none here'
    )
  try:
    match table_runs.table.module:
      case 'captioning.main':
        found += _missing_features(config)
        size = _captions(config)
      case 'sketch_rnn.main':
        size = _sketches(config)
      case 'video.track':
        found += _missing_sequences(config, row)
        size = _tracks(config)
      case _:
        found += _missing_weights(config)
        size = _clips(config, row)
  except (FileNotFoundError, ValueError) as error:
    return [*found, str(error)]
  if size < row.data.train:
    found.append(
      f'{config.data.name} is a subset of {row.data.label}: {size:,} of '
      f'{row.data.train:,} training examples; prepare all of them'
    )
  return found


def _missing_weights(config: ml_collections.ConfigDict) -> list[str]:
  """The pretrained weights of the encoder."""
  weights = config.encoder_weights
  if weights.startswith('hf://'):
    owner, name, *file = weights.removeprefix('hf://').split('/', 2)
    repository, (file,) = f'{owner}/{name}', file or ['model.safetensors']
    cached = huggingface_hub.try_to_load_from_cache(repository, file)
    if not isinstance(cached, str):
      return [
        f'{weights} is not in the cache of the Hugging Face hub: {_WEIGHTS}, '
        f'or fetch it with\n  hf download {repository} {file}'
      ]
  elif weights and not pathlib.Path(weights).exists():
    return [f'encoder_weights={weights} does not exist: {_WEIGHTS}']
  elif not weights and 'cache_features' in config and config.cache_features:
    return [f'the encoder is frozen and has no weights: {_WEIGHTS}']
  return []


def _missing_features(config: ml_collections.ConfigDict) -> list[str]:
  """The pretrained weights, or the imported region features."""
  if not config.regions:
    return _missing_weights(config)
  name, data_dir = config.data.name, config.data.data_dir
  regions_lib.open_split(name, config.regions, 'train', data_dir)
  return []


def _missing_sequences(
  config: ml_collections.ConfigDict, row: runs_lib.Row
) -> list[str]:
  """The real sequences on which a tracker is scored."""
  if row.found_at[0] != 'sequences':
    return []
  advice = (
    "pass --set sequences=DIRECTORY, in OTB's layout, and, to train on images "
    'instead of SYNTHETIC textures, data.images=DIRECTORY'
  )
  if not config.sequences:
    return [f'no sequences are given: {advice}']
  paths = {
    'sequences': config.sequences,
    'data.images': config.data.images,
    'data.tracks': config.data.tracks,
  }
  return [
    f'{name}={path} is no directory: {advice}'
    for name, path in paths.items()
    if path and not pathlib.Path(path).is_dir()
  ]


# The number of training examples; an error if there are none.


def _captions(config: ml_collections.ConfigDict) -> int:
  name, data_dir = config.data.name, config.data.data_dir
  return len(captions_lib.open_split(name, 'train', data_dir))


def _sketches(config: ml_collections.ConfigDict) -> int:
  """Missing data sets are not downloaded."""
  name, data_dir = config.data.name, config.data.data_dir
  parts = [name]
  if name == 'quickdraw_sketches':
    parts = [f'{name}/{category}' for category in config.data.categories]
  for part in parts:
    builder = builders_lib.QuickdrawSketches(
      config=tfds.core.BuilderConfig(name=part.partition('/')[2]),
      data_dir=data_dir,
    )
    if not builder.data_path.exists():
      raise FileNotFoundError(
        f'{part} is not in {builder.data_dir_root}: download it with\n'
        '  python -c "from sketch_rnn import builders; '
        f"builders.open_builder('{part}', {data_dir!r})\"\n"
        'or, if you have its file, prepare it with\n'
        '  python scripts/prepare_sketches.py --name=quickdraw_sketches '
        '--input=...'
      )
  return len(
    examples.open_split(name, 'train', data_dir, config.data.categories)
  )


def _tracks(config: ml_collections.ConfigDict) -> int:
  if config.data.name == 'photo_track':  # Generated while it is read.
    return config.data.sequences.train
  return _synthetic(config.data.name)


def _synthetic(name: str) -> int:
  """The count of a SYNTHETIC data set, without generating it."""
  return builders.SYNTHETIC[name].module.SIZES['train']


def _clips(config: ml_collections.ConfigDict, row: runs_lib.Row) -> int:
  name, data_dir = config.data.name, config.data.data_dir
  if name in builders.SYNTHETIC:
    return _synthetic(name)
  # Data sets published without a validation split: it is a part of their
  # training split.
  lends = 'train_split' in config.data
  try:
    return len(
      video_lib.open_split(
        name, 'train+validation' if lends else 'train', data_dir
      )
    )
  except FileNotFoundError as error:
    absent = str(error).splitlines()[0]
    where = f' --data_dir={data_dir}' if data_dir else ''
    prepare = row.data.prepare
    if '--name=' not in prepare:  # Folds are prepared together.
      prepare = f'--name={name} {prepare}'
    command, _, rest = prepare.partition(' ')
    raise FileNotFoundError(
      f'{absent}\n  python scripts/prepare_clips.py {command}{where} {rest}'
    ) from error
