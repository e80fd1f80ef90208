"""Inputs of the command `sample`: drawings and latent vectors.

  test:12  test:0-7                from the data that the run was trained on
  drawing.svg  cat.ndjson:3        from a file, as `file_formats` reads it
  z.npz  z.npz:3  z.npz:0-9        latent vectors, written by `latent.save`

Indices count from 0; both ends of a range belong to it.
"""

import dataclasses
import os
import pathlib
import re

import ml_collections
import numpy as np

from sketch_rnn import builders
from sketch_rnn import examples
from sketch_rnn import file_formats
from sketch_rnn import latent

_SPLIT = re.compile(rf'({"|".join(builders.SPLITS)}):(\d+)(?:-(\d+))?')
_FILE = re.compile(r'(.+?)(?::(\d+)(?:-(\d+))?)?')


@dataclasses.dataclass(frozen=True, eq=False)
class Input:
  """A drawing or a latent vector.

  Attributes:
    id: printed above it.
    strokes: f32[N, 3], in pixels; or None.
    category: its class, or ''.
    z: f32[Z]; or None.
  """

  id: str
  strokes: np.ndarray | None
  category: str = ''
  z: np.ndarray | None = None

  def require_strokes(self) -> np.ndarray:
    """The drawing.

    Raises:
      ValueError: there is none.
    """
    if self.strokes is None:
      raise ValueError(f'{self.id} is a latent vector: pass a drawing here')
    return self.strokes

  def require_z(self) -> np.ndarray:
    """The latent vector.

    Raises:
      ValueError: there is none.
    """
    if self.z is None:
      raise ValueError(
        f'{self.id} is a drawing: pass latent vectors here, as `encode` '
        'writes them'
      )
    return self.z


def read(
  text: str, config: ml_collections.ConfigDict, data_dir: str | None = None
) -> list[Input]:
  """Reads the inputs that one argument of the command line names.

  Args:
    text: the argument; see above.
    config: `data` of the run.
    data_dir: directory of the data, in place of that of the config.

  Raises:
    OSError: a file cannot be read.
    ValueError: there is no such drawing, or it is malformed.
  """
  in_split = _SPLIT.fullmatch(text)
  if in_split and not os.path.exists(text):
    split, first, last = in_split.groups()
    records = examples.open_split(
      config.name, split, data_dir or config.data_dir, config.categories
    )
    return [
      Input(f'{split}:{i}', record['strokes'], record['category'])
      for i in _indices(text, first, last, len(records))
      for record in [records[i]]
    ]
  path, first, last = _FILE.fullmatch(text).groups()
  if os.path.exists(text):  # Whatever its name contains.
    path, first, last = text, None, None
  if not os.path.exists(path):
    raise ValueError(
      f'{text} is not a file: pass one, or a drawing of the data, such as '
      'test:12'
    )
  name = pathlib.Path(path).name
  if latent.is_file(path):
    latents = latent.load(path)
    indices = _indices(text, first, last, len(latents.z))
    return [
      Input(f'{name}:{i}', None, latents.categories[i], latents.z[i])
      for i in indices
    ]
  sketches = file_formats.read(path)
  indices = _indices(text, first, last, len(sketches))
  return [
    Input(
      name if len(sketches) == 1 else f'{name}:{i}',
      sketches[i].strokes,
      sketches[i].category,
    )
    for i in indices
  ]


def _indices(
  text: str, first: str | None, last: str | None, count: int
) -> range:
  """The indices from `first` to `last`, or all of `count`."""
  if first is None:
    return range(count)
  start = int(first)
  stop = start if last is None else int(last)
  if not start <= stop < count:
    raise ValueError(f'{text}: there are {count}, from 0 to {count - 1}')
  return range(start, stop + 1)
