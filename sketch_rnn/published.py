"""Converts published Sketch-RNN models to our parameters.

There are two sources: the JSON files of the authors' web page (`NAME.gen.json`,
and `NAME.vae.json` with an encoder), and the variables of their TensorFlow code
by name. Our parameters differ from them in their layout alone, so that
gradients and the moments of an optimiser are converted by the same functions:

- the gates' columns are i, j, f, o there and i, f, g, o here;
- the rows of one kernel, over [point; z; h], are several kernels here;
- the state of the decoder is packed in another order there.

The forget bias of 1 is stored in neither.

Axes: H units, A units of the small LSTM in a `modulated_cells.HyperLSTM`.
"""

import base64
import binascii
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from sketch_rnn import model
from sketch_rnn import variables
from training import text_files

# The published letters of the gates in our order; g is called j there.
GATES = 'ifjo'

# The blobs of a JSON file, in their order.
_LSTM = ('LSTMCell/W_xh', 'LSTMCell/W_hh', 'LSTMCell/bias')
_OUTPUT = (variables.DECODER + 'output_w', variables.DECODER + 'output_b')
_GEN = (*_OUTPUT, *(variables.DECODER + name for name in _LSTM))
_VAE = (
  *(variables.FORWARD + name for name in _LSTM),
  *(variables.BACKWARD + name for name in _LSTM),
  *(
    f'{variables.ROOT}{linear}/super_linear_{part}'
    for linear in ('ENC_RNN_mu', 'ENC_RNN_sigma', 'linear')
    for part in 'wb'
  ),
  *_GEN,
)
BLOBS = {'gen': _GEN, 'vae': _VAE}
_MAX_LENGTH = 10_000  # Points of a drawing; published models have up to 250.
# Stored as int16 between -10 and 10.
STEP = 10 / 32767


def load(
  path: str | os.PathLike,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
  """Reads a published JSON model.

  Args:
    path: path of `NAME.gen.json` (decoder only) or `NAME.vae.json`.

  Returns:
    The arguments of `model.SketchRNN`, its parameters (f32), and the info of
    the file: `name`, `scale_factor`, `max_seq_len`, ...

  Raises:
    ValueError: the file is not such a model; the message names the wrong blob.
  """
  path = pathlib.Path(path)
  contents = text_files.read_json(path)
  if (
    not isinstance(contents, list)
    or len(contents) != 3
    or not isinstance(contents[0], dict)
    or not all(isinstance(part, list) for part in contents[1:])
  ):
    raise ValueError(
      f'{path} is not [info, dims, blobs]: download NAME.gen.json or '
      'NAME.vae.json of the published models again'
    )
  info, dims, blobs = contents
  for field in ('name', 'scale_factor', 'max_seq_len'):
    if field not in info:
      raise ValueError(f'{path}: info has no {field!r}')
  scale, length = info['scale_factor'], info['max_seq_len']
  if (
    not isinstance(info['name'], str)
    or not isinstance(scale, int | float)
    or not 0 < scale < float('inf')
    or not isinstance(length, int)
    or not 0 < length <= _MAX_LENGTH
  ):
    raise ValueError(
      f'{path}: info has {text_files.shown(info)}; name must be text, '
      'scale_factor and max_seq_len numbers above 0'
    )
  names = {len(x): x for x in BLOBS.values()}.get(len(blobs))
  if names is None or len(dims) != len(blobs):
    raise ValueError(
      f'{path} has {len(dims)} dims and {len(blobs)} blobs; a decoder has '
      f'{len(_GEN)} of each, a model with an encoder {len(_VAE)}'
    )
  weights = {
    name: _decode(blob, shape, f'{path}: blob {index} ({name})')
    for index, (name, shape, blob) in enumerate(
      zip(names, dims, blobs, strict=True)
    )
  }
  try:
    arguments, params = from_published(weights)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error
  return arguments, params, info


def _decode(blob: Any, shape: Any, name: str) -> np.ndarray:
  """The base64 of little-endian int16 in C order -> f32[shape]."""
  try:
    numbers = np.frombuffer(base64.b64decode(blob, validate=True), '<i2')
  except (TypeError, ValueError, binascii.Error) as error:
    raise ValueError(f'{name} is not base64 of int16: {error}') from error
  try:
    return (numbers * STEP).astype(np.float32).reshape(shape)
  except (TypeError, ValueError) as error:
    raise ValueError(
      f'{name} holds {numbers.size} numbers, its dims are {shape}'
    ) from error


def from_published(
  weights: Mapping[str, np.ndarray],
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Converts the variables of the authors' TensorFlow code.

  Args:
    weights: by name, `vector_rnn/RNN/output_w`; or their gradients.

  Returns:
    The arguments of `model.SketchRNN`, and its parameters.

  Raises:
    ValueError: variables are missing, unexpected or of another shape than
      the rest implies; the message names them all.
  """
  arguments = variables.arguments(weights)
  decoder, units = arguments['decoder'], arguments['decoder_features']
  params = {
    'decoder_cell': _cell(weights, variables.DECODER, decoder),
    'output': {
      'kernel': weights[variables.DECODER + 'output_w'],
      'bias': weights[variables.DECODER + 'output_b'],
    },
  }
  if arguments['conditional']:
    for ours, scope in (
      ('forward', variables.FORWARD),
      ('backward', variables.BACKWARD),
    ):
      params[f'{ours}_cell'] = _cell(weights, scope, arguments['encoder'])
    for ours, theirs in (
      ('mean', 'ENC_RNN_mu'),
      ('presigma', 'ENC_RNN_sigma'),
      ('initial_state', 'linear'),
    ):
      linear = f'{variables.ROOT}{theirs}/super_linear_'
      params[ours] = {
        'kernel': weights[linear + 'w'],
        'bias': weights[linear + 'b'],
      }
    state = params['initial_state']
    params['initial_state'] = {
      name: np.concatenate(
        jax.tree.leaves(unpack_state(x, decoder, units)), axis=-1
      )
      for name, x in state.items()
    }
  return arguments, params


def unpack_state(packed: np.ndarray, cell: str, units: int) -> Any:
  """Converts a packed state of the published code to our carry.

  Args:
    packed: [..., 2 * H], or [..., 2 * (H + A)] for 'hyper'.
    cell: a key of `model.CELLS`.
    units: H.
  """
  if cell == 'lstm':
    c, h = np.split(packed, [units], axis=-1)
    return c, h
  if cell == 'layer_norm':
    h, c = np.split(packed, [units], axis=-1)
    return c, h
  hidden, memory = np.split(packed, 2, axis=-1)
  h, small_h = np.split(hidden, [units], axis=-1)
  c, small_c = np.split(memory, [units], axis=-1)
  return (c, h), (small_c, small_h)


def _by_gate(x: np.ndarray) -> np.ndarray:
  """Published columns in our order: [..., 4 * H] -> [..., 4, H]."""
  x = x.reshape(*x.shape[:-1], 4, -1)
  return x[..., [variables.GATES.index(gate) for gate in GATES], :]


def _columns(x: np.ndarray) -> np.ndarray:
  """Published columns in our order: [..., 4 * H] -> [..., 4 * H]."""
  return _by_gate(x).reshape(x.shape)


def _cell(
  weights: Mapping[str, np.ndarray], scope: str, cell: str
) -> dict[str, Any]:
  """The parameters of one cell of `recurrent.cells`."""
  scope += variables.SCOPES[cell]
  kernel = _columns(weights[scope + 'W_xh'])
  recurrent = _columns(weights[scope + 'W_hh'])
  params = {}
  if cell == 'hyper':
    small = scope + variables.SCOPES['layer_norm']
    rows = _columns(weights[small + 'W_xh'])
    inputs = len(kernel)
    kernel = np.concatenate([kernel, rows[:inputs]], axis=-1)
    recurrent = np.concatenate([recurrent, rows[inputs:]], axis=-1)
    params = {
      'hyper': {
        'recurrent': {'kernel': _columns(weights[small + 'W_hh'])},
        **_norms(weights, small),
      },
      **_modulation(weights, scope),
      'bias': _by_gate(weights[scope + 'bias']),
    }
  if cell != 'lstm':
    params.update(_norms(weights, scope))
  params['input'] = {'kernel': kernel[: model.POINT]}
  if cell == 'lstm':
    params['input']['bias'] = _columns(weights[scope + 'bias'])
  if len(kernel) > model.POINT:
    params['constant_input'] = {'kernel': kernel[model.POINT :]}
  params['recurrent'] = {'kernel': recurrent}
  return params


def _norms(
  weights: Mapping[str, np.ndarray], scope: str
) -> dict[str, np.ndarray]:
  """The scales and shifts of a cell's layer normalisations."""
  return {
    'gates_scale': _by_gate(weights[scope + 'ln_all/ln_gamma']),
    'gates_bias': _by_gate(weights[scope + 'ln_all/ln_beta']),
    'memory_scale': weights[scope + 'ln_c/ln_gamma'],
    'memory_bias': weights[scope + 'ln_c/ln_beta'],
  }


def _modulation(
  weights: Mapping[str, np.ndarray], scope: str
) -> dict[str, Any]:
  """The layers from the small LSTM to the gates of a HyperLSTM."""

  def every(inputs, name):
    """The variable of all gates, of the product with x, with h or of both."""
    return [
      weights[f'{scope}hyper_{gate}{side}/{name}']
      for side in inputs
      for gate in GATES
    ]

  embed = every('xh', 'zw/super_linear_w') + every('h', 'zb/super_linear_w')
  return {
    'embed': {'kernel': np.concatenate(embed, axis=-1)},
    'factors_bias': np.stack(every('xh', 'zw/super_linear_b')),
    'factors_kernel': np.stack(every('xh', 'alpha/super_linear_w')),
    'shifts_kernel': np.stack(every('h', 'beta/super_linear_w')),
  }
