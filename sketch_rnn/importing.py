"""Makes workdirs of published models: the authors' JSON files and checkpoints.

A JSON file has all that sampling needs. A checkpoint of the authors' TensorFlow
code has the variables alone: the scale of the drawings is that of the data set
that it was trained on.
"""

import dataclasses
import os
import pathlib
from typing import Any

import ml_collections

from sketch_rnn import file_formats
from sketch_rnn import published
from sketch_rnn import strokes
from sketch_rnn import tensorflow_checkpoints
from training import checkpoints
from training import text_files

_MAX_LENGTH = 250  # Of the authors' code.


@dataclasses.dataclass(frozen=True)
class Imported:
  """A published model.

  Attributes:
    arguments: of `model.SketchRNN`.
    params: its parameters.
    name: of the model, such as the category of its drawings.
    scale: pixels per unit of the network.
    length: maximum number of points.
  """

  arguments: dict[str, Any]
  params: dict[str, Any]
  name: str
  scale: float
  length: int


def load(
  path: str | os.PathLike, *, name: str = '', drawings: str = ''
) -> Imported:
  """Reads NAME.gen.json, NAME.vae.json or a checkpoint.

  Args:
    path: the JSON file; or a checkpoint, `vector-1000`, without the suffixes
      of its files, or the directory, of which the latest is read.
    name: of the model; by default that of the file or of the directory.
    drawings: of a checkpoint, the file of drawings that it was trained on.

  Raises:
    ImportError: a checkpoint needs TensorFlow.
    OSError: a file cannot be read.
    ValueError: this is no such model.
  """
  path = pathlib.Path(path)
  if path.name.endswith('.json'):
    arguments, params, info = published.load(path)
    return Imported(
      arguments,
      params,
      name or info['name'],
      info['scale_factor'],
      info['max_seq_len'],
    )
  if not drawings:
    raise ValueError(
      f'{path} is read as a checkpoint, which does not have the scale of its '
      'drawings: pass --drawings=FILE.npz, those that it was trained on'
    )
  weights = tensorflow_checkpoints.read(path)
  try:
    arguments, params = published.from_published(weights)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error
  directory = path if path.is_dir() else path.parent
  scale, length = _of_drawings(drawings, directory)
  return Imported(arguments, params, name or directory.name, scale, length)


def _of_drawings(drawings: str, directory: pathlib.Path) -> tuple[float, int]:
  """The scale of drawings, and the maximum number of points, as published.

  Args:
    drawings: file of all splits.
    directory: of the checkpoint, with `model_config.json` or not.
  """
  length = _MAX_LENGTH
  config = directory / 'model_config.json'
  if config.exists():
    fields = text_files.read_json(config)
    length = fields.get('max_seq_len') if isinstance(fields, dict) else None
    if not isinstance(length, int) or length < 1:
      raise ValueError(f'{config}: max_seq_len is {length!r}, not a number')
  sketches, _ = file_formats.load([drawings])
  training = [x for x in sketches if x.split in ('train', None)]
  kept = [
    strokes.clamp(x.strokes) for x in training if len(x.strokes) <= length
  ]
  if not kept:
    raise ValueError(f'{drawings} has no drawing of at most {length} points')
  return strokes.scale_factor(kept), length


def write(workdir: pathlib.Path, imported: Imported):
  """Writes a workdir: the config, and a checkpoint at step 0.

  Raises:
    ValueError: it has a checkpoint already.
  """
  config = _config(imported)
  extras = {
    'config': config.to_dict(),
    'drawings': {
      'scale': imported.scale,
      'length': imported.length,
      'categories': [imported.name],
    },
  }
  variables = {'params': imported.params}
  checkpoints.write_imported(workdir, config, variables, extras)


def _config(imported: Imported) -> ml_collections.ConfigDict:
  """The config fields that sampling and evaluation read."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.model = imported.arguments
  config.data = dict(
    name='quickdraw_sketches',
    categories=(imported.name,),
    data_dir=ml_collections.config_dict.placeholder(str),
    max_length=imported.length,
    limit=1000.0,
  )
  config.loss = dict(kl_weight=0.5, kl_floor=0.2)
  config.eval_batch_size = 100
  config.latent_samples = 1
  config.best_metric = 'loss'
  config.best_mode = 'min'
  return config
