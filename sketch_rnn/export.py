"""Exports models to the JSON files of the authors' web page.

The inverse of published.py: `NAME.gen.json` of a decoder, `NAME.vae.json` of a
model with an encoder. The page reads LSTMs, 20 components and a prior N(0, 1).
A learned prior, z = mean + deviation * z', is an affine map before layers that
are affine themselves, so that it becomes a part of their weights.

Axes: H units, Z latent.
"""

import base64
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import flax
import jax
import numpy as np

from sketch_rnn import inference
from sketch_rnn import model
from sketch_rnn import published
from sketch_rnn import rendering
from sketch_rnn import variables

# Fields of `model.SketchRNN` that its parameters depend on.
ARGUMENTS = (
  'conditional',
  'encoder',
  'encoder_features',
  'decoder',
  'decoder_features',
  'latent',
  'mixtures',
  'learned_prior',
  'num_classes',
)

_MIXTURES = 20  # A constant of the page.
_VERSION = 6  # Of the page; earlier ones clip z.
_MODES = {'vae': 1, 'gen': 2}


def to_published(
  arguments: Mapping[str, Any], params: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """The inverse of `published.from_published`, for LSTMs: arrays by name.

  Args:
    arguments: of the `model.SketchRNN`.
    params: its parameters.

  Raises:
    ValueError: the authors' code has no such model.
  """
  network = model.SketchRNN(**arguments)
  for name in ('decoder', *(('encoder',) if network.conditional else ())):
    if getattr(network, name) != 'lstm':
      raise ValueError(
        f"{name}={getattr(network, name)!r}: the authors' page reads models of "
        "'lstm' alone; export_page.py makes a page of any other"
      )
  if network.num_classes:
    raise ValueError(
      f'num_classes={network.num_classes}: the authors have no models with '
      'class labels; export_page.py makes a page of one'
    )
  params = jax.tree.map(np.asarray, flax.core.unfreeze(params))
  if network.learned_prior:
    params = _without_prior(params)
  weights = {
    variables.DECODER + 'output_w': params['output']['kernel'],
    variables.DECODER + 'output_b': params['output']['bias'],
    **_cell(variables.DECODER, params['decoder_cell']),
  }
  if network.conditional:
    for scope, cell in (
      (variables.FORWARD, 'forward_cell'),
      (variables.BACKWARD, 'backward_cell'),
    ):
      weights.update(_cell(scope, params[cell]))
    for theirs, layer in (
      ('ENC_RNN_mu', 'mean'),
      ('ENC_RNN_sigma', 'presigma'),
      ('linear', 'initial_state'),
    ):
      linear = f'{variables.ROOT}{theirs}/super_linear_'
      weights[linear + 'w'] = params[layer]['kernel']
      weights[linear + 'b'] = params[layer]['bias']
  variables.arguments(weights)  # All are there, in the shapes of the code.
  return weights


def _without_prior(params: dict[str, Any]) -> dict[str, Any]:
  """The parameters of the same model with the prior N(0, 1)."""
  mean = params.pop('prior_mean')
  log_deviation = params.pop('prior_log_deviation')
  deviation = np.exp(log_deviation)
  cell = dict(params['decoder_cell'])
  constant = cell['constant_input']['kernel']
  cell['constant_input'] = {'kernel': deviation[:, None] * constant}
  cell['input'] = {
    **cell['input'],
    'bias': cell['input']['bias'] + mean @ constant,
  }
  start = params['initial_state']
  return {
    **params,
    'mean': {
      'kernel': params['mean']['kernel'] / deviation,
      'bias': (params['mean']['bias'] - mean) / deviation,
    },
    'presigma': {
      **params['presigma'],
      'bias': params['presigma']['bias'] - 2 * log_deviation,
    },
    'initial_state': {
      'kernel': deviation[:, None] * start['kernel'],
      'bias': start['bias'] + mean @ start['kernel'],
    },
    'decoder_cell': cell,
  }


def _columns(x: np.ndarray) -> np.ndarray:
  """Our columns in the published order: [..., 4 * H] -> [..., 4 * H]."""
  gates = x.reshape(*x.shape[:-1], 4, -1)
  order = [published.GATES.index(gate) for gate in variables.GATES]
  return gates[..., order, :].reshape(x.shape)


def _cell(scope: str, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """The variables of one LSTM."""
  scope += variables.SCOPES['lstm']
  rows = [params['input']['kernel']]
  if 'constant_input' in params:
    rows.append(params['constant_input']['kernel'])
  return {
    scope + 'W_xh': _columns(np.concatenate(rows)),
    scope + 'W_hh': _columns(params['recurrent']['kernel']),
    scope + 'bias': _columns(params['input']['bias']),
  }


def save(
  path: str | os.PathLike,
  arguments: Mapping[str, Any],
  params: Mapping[str, Any],
  *,
  name: str,
  scale: float,
  length: int,
) -> int:
  """Writes a model as the authors' page reads it.

  Numbers are rounded to int16 between -10 and 10, as the authors do; those that
  are outside are clipped.

  Args:
    path: NAME.gen.json or NAME.vae.json.
    arguments: of the `model.SketchRNN`.
    params: its parameters.
    name: of the model, such as the category of its drawings.
    scale: pixels per unit of the network.
    length: maximum number of points.

  Returns:
    The number of numbers that were clipped.

  Raises:
    ValueError: the authors' code has no such model, or the path is of another
      kind.
  """
  path = pathlib.Path(path)
  kind = 'vae' if arguments['conditional'] else 'gen'
  if not path.name.endswith(f'.{kind}.json'):
    raise ValueError(f'{path} must end with .{kind}.json, by which it is known')
  if arguments['mixtures'] != _MIXTURES:
    raise ValueError(
      f"mixtures={arguments['mixtures']}: the authors' page reads {_MIXTURES} "
      'alone'
    )
  weights = to_published(arguments, params)
  names = published.BLOBS[kind]
  info = {
    'mode': _MODES[kind],
    'version': _VERSION,
    'max_seq_len': length,
    'name': name,
    'scale_factor': scale,
  }
  blobs, clipped = [], 0
  for variable in names:
    numbers = np.round(
      np.asarray(weights[variable], np.float64) / published.STEP
    )
    clipped += int(np.sum(np.abs(numbers) > 32767))
    numbers = np.clip(numbers, -32767, 32767).astype('<i2')
    blobs.append(base64.b64encode(numbers.tobytes()).decode())
  contents = [info, [list(weights[x].shape) for x in names], blobs]
  text = json.dumps(contents, separators=(',', ':')).encode()
  path.parent.mkdir(parents=True, exist_ok=True)
  rendering.write_file(path, lambda file: file.write(text))
  return clipped


def save_workdir(
  workdir: str | os.PathLike, path: str | os.PathLike, name: str = ''
) -> int:
  """Writes the best checkpoint of a run, or a released model; see `save`.

  Args:
    workdir: of the run, or the name of a released model.
    path: of the file.
    name: of the model; '': its categories.
  """
  sketcher = inference.load(workdir)
  network, examples = sketcher.model, sketcher.examples
  return save(
    path,
    {field: getattr(network, field) for field in ARGUMENTS},
    sketcher.variables['params'],
    name=name or ', '.join(examples.categories),
    scale=examples.scale,
    length=examples.length,
  )
