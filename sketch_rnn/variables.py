"""Names and shapes of the variables of the authors' TensorFlow code.

Axes: A and E as in `modulated_cells.HyperLSTM`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from recurrent import modulated_cells
from sketch_rnn import model

# TensorFlow's scopes.
ROOT = 'vector_rnn/'
DECODER = ROOT + 'RNN/'
FORWARD = ROOT + 'ENC_RNN/fw/'
BACKWARD = ROOT + 'ENC_RNN/bw/'
SCOPES = {
  'lstm': 'LSTMCell/',
  'layer_norm': 'LayerNormLSTMCell/',
  'hyper': 'HyperLSTMCell/',
}
GATES = 'ijfo'  # In the order of their columns.
# A and E of the HyperLSTM in a `SketchRNN`.
_SMALL, _EMBEDDING = (
  modulated_cells.HyperLSTM.hyper_features,
  modulated_cells.HyperLSTM.embedding,
)


def arguments(weights: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """The arguments of the `model.SketchRNN` with these variables.

  Args:
    weights: by name, `vector_rnn/RNN/output_w`.

  Raises:
    ValueError: variables are missing, unexpected or of another shape than
      the rest implies; the message names them all.
  """
  conditional = any(name.startswith(ROOT + 'ENC_RNN') for name in weights)
  decoder = _kind(weights, DECODER)
  output = _shape(weights, DECODER + 'output_w')[1]
  if output < 9 or (output - 3) % 6:
    raise ValueError(
      f'{DECODER}output_w has {output} columns: not 6 for each component of '
      'the mixture and 3 for the pen'
    )
  result = {
    'conditional': conditional,
    'decoder': decoder,
    'decoder_features': _units(weights, DECODER, decoder),
    'mixtures': (output - 3) // 6,
  }
  if conditional:
    encoder = _kind(weights, FORWARD)
    linear = ROOT + 'ENC_RNN_mu/super_linear_w'
    result['encoder'] = encoder
    result['encoder_features'] = _units(weights, FORWARD, encoder)
    result['latent'] = _shape(weights, linear)[1]
  _check(weights, _shapes(result))
  return result


def _kind(weights: Mapping[str, np.ndarray], scope: str) -> str:
  """The cell that has variables in this scope."""
  for cell, inner in SCOPES.items():
    if any(name.startswith(scope + inner) for name in weights):
      return cell
  raise ValueError(
    f'no variable begins with {scope} and then one of '
    f"{', '.join(SCOPES.values())}: these are not Sketch-RNN's"
  )


def _units(weights: Mapping[str, np.ndarray], scope: str, cell: str) -> int:
  return _shape(weights, f'{scope}{SCOPES[cell]}W_hh')[0]


def _shape(weights: Mapping[str, np.ndarray], name: str) -> tuple[int, int]:
  """The shape of a kernel, which gives sizes of the model."""
  if name not in weights:
    raise ValueError(f'{name} is missing')
  if weights[name].ndim != 2:
    raise ValueError(f'{name} {weights[name].shape} is not a matrix')
  return weights[name].shape


def _shapes(arguments: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
  """The shape of every variable of the published model."""
  conditional, units = arguments['conditional'], arguments['decoder_features']
  latent = arguments['latent'] if conditional else 0
  cell, inputs = arguments['decoder'], model.POINT + latent
  output = 6 * arguments['mixtures'] + 3
  shapes = {
    DECODER + 'output_w': (units, output),
    DECODER + 'output_b': (output,),
    **_cell_shapes(DECODER, cell, inputs, units),
  }
  if conditional:
    state = 2 * (units + (_SMALL if cell == 'hyper' else 0))
    cell, units = arguments['encoder'], arguments['encoder_features']
    for scope in (FORWARD, BACKWARD):
      shapes.update(_cell_shapes(scope, cell, model.POINT, units))
    for linear, rows, columns in (
      ('ENC_RNN_mu', 2 * units, latent),
      ('ENC_RNN_sigma', 2 * units, latent),
      ('linear', latent, state),
    ):
      shapes[f'{ROOT}{linear}/super_linear_w'] = (rows, columns)
      shapes[f'{ROOT}{linear}/super_linear_b'] = (columns,)
  return shapes


def _cell_shapes(
  scope: str, cell: str, inputs: int, units: int
) -> dict[str, tuple[int, ...]]:
  scope += SCOPES[cell]
  gates = 4 * units
  shapes = {'W_xh': (inputs, gates), 'W_hh': (units, gates)}
  if cell != 'layer_norm':
    shapes['bias'] = (gates,)
  if cell != 'lstm':
    shapes.update(
      {
        'ln_all/ln_gamma': (gates,),
        'ln_all/ln_beta': (gates,),
        'ln_c/ln_gamma': (units,),
        'ln_c/ln_beta': (units,),
      }
    )
  if cell == 'hyper':
    small = _cell_shapes('', 'layer_norm', inputs + units, _SMALL)
    shapes.update(small)
    for gate in GATES:
      for side in 'xh':
        linear = f'hyper_{gate}{side}/'
        shapes[linear + 'zw/super_linear_w'] = (_SMALL, _EMBEDDING)
        shapes[linear + 'zw/super_linear_b'] = (_EMBEDDING,)
        shapes[linear + 'alpha/super_linear_w'] = (_EMBEDDING, units)
      shapes[linear + 'zb/super_linear_w'] = (_SMALL, _EMBEDDING)
      shapes[linear + 'beta/super_linear_w'] = (_EMBEDDING, units)
  return {scope + name: shape for name, shape in shapes.items()}


def _check(
  weights: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]]
):
  """Raises an error that names all missing, unexpected and misshapen ones."""
  misshapen = [
    f'{name} {weights[name].shape} instead of {expected[name]}'
    for name in sorted(weights.keys() & expected.keys())
    if weights[name].shape != expected[name]
  ]
  problems = [
    f'{len(names)} {kind}: {", ".join(names)}'
    for kind, names in (
      ('missing', sorted(expected.keys() - weights.keys())),
      ('unexpected', sorted(weights.keys() - expected.keys())),
      ('of another shape', misshapen),
    )
    if names
  ]
  if problems:
    raise ValueError('; '.join(problems))
