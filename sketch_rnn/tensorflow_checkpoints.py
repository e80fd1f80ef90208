"""Reads the variables of the authors' TensorFlow checkpoints, by name.

TensorFlow is not a dependency: it is the extra `tensorflow`, and this is the
only module that imports it.
"""

import pathlib
from typing import Any

import numpy as np

from sketch_rnn import variables

# The last words of the names of a model's variables; the moments of Adam, the
# learning rate and the step have others.
_LEAVES = frozenset(
  (
    *('W_xh', 'W_hh', 'bias', 'ln_gamma', 'ln_beta'),
    *('super_linear_w', 'super_linear_b', 'output_w', 'output_b'),
  )
)


def _library() -> Any:
  """TensorFlow.

  Raises:
    ImportError: it is not installed.
  """
  try:
    import tensorflow
  except ImportError as error:
    raise ImportError(
      'checkpoints of TensorFlow are read by TensorFlow: '
      "pip install -e '.[tensorflow]'"
    ) from error
  return tensorflow


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """The variables of the model: arrays by name, `vector_rnn/RNN/output_w`.

  Args:
    path: of a checkpoint, without the suffixes of its files, or of the
      directory, of which the latest is read.

  Raises:
    FileNotFoundError: there is no checkpoint.
    ImportError: TensorFlow is not installed.
    ValueError: it cannot be read.
  """
  tensorflow = _library()
  prefix = str(path)
  if path.is_dir():
    prefix = tensorflow.train.latest_checkpoint(prefix)
  if not prefix or not pathlib.Path(f'{prefix}.index').exists():
    raise FileNotFoundError(
      f'{path} has no checkpoint: pass its directory, or the path of its '
      '.index file without the suffix'
    )
  try:
    reader = tensorflow.train.load_checkpoint(prefix)
    return {
      name: reader.get_tensor(name)
      for name in reader.get_variable_to_shape_map()
      if name.startswith(variables.ROOT) and name.split('/')[-1] in _LEAVES
    }
  except (RuntimeError, tensorflow.errors.OpError) as error:
    raise ValueError(f'{prefix} is damaged: {error}') from error
