"""A web page that draws by itself: one folder, no server.

The page completes, samples and interpolates drawings with a trained model. Its
network is JavaScript (`page/network.js`), equal to the one of model.py up to
the rounding of the weights to int16, with one scale for each column. All is in
one file, which loads nothing: a browser does not let a page of a file read its
neighbours.
"""

import base64
import hashlib
import json
import os
import pathlib
from typing import Any

import flax
import jax
import jinja2
import numpy as np

from sketch_rnn import export
from sketch_rnn import inference
from sketch_rnn import rendering
from sketch_rnn import strokes
from training import released

PAGE = 'index.html'
CELLS = ('lstm', 'layer_norm')
_SCRIPTS = ('network.js', 'sketcher.js', 'page.js')
_INT16 = 32767
_NUM_MEASURED = 20  # Drawings that are sampled to measure their size.
_ABOUT = (
  'A neural network, Sketch-RNN (Ha and Eck 2017), draws in your browser. '
  'Nothing leaves this page.'
)


def quantize(x: np.ndarray) -> dict[str, Any]:
  """An array as JSON: int16 in base64, with a scale for each column."""
  x = np.asarray(x, np.float32)
  largest = np.max(np.abs(x.reshape(-1, x.shape[-1])), axis=0)
  scales = np.where(largest > 0, largest, 1) / _INT16
  numbers = np.round(x / scales).astype('<i2')
  return {
    'shape': list(x.shape),
    'scales': [float(scale) for scale in scales],
    'numbers': base64.b64encode(numbers.tobytes()).decode(),
  }


def contents(sketcher: inference.Sketcher, size: int) -> dict[str, Any]:
  """All that the page knows of a model, as JSON.

  Args:
    sketcher: the model.
    size: width and height of a typical drawing, in pixels.

  Raises:
    ValueError: the page has no such network.
  """
  network = sketcher.model
  for name in ('decoder', *(('encoder',) if network.conditional else ())):
    if getattr(network, name) not in CELLS:
      raise ValueError(
        f'{name}={getattr(network, name)!r}: the page computes '
        f'{" and ".join(CELLS)} alone; others are too slow in a browser'
      )
  params = jax.device_get(flax.core.unfreeze(sketcher.variables['params']))
  tensors = flax.traverse_util.flatten_dict(params, sep='/')
  return {
    'arguments': {name: getattr(network, name) for name in export.ARGUMENTS},
    'scale': sketcher.examples.scale,
    'length': sketcher.examples.length,
    'categories': list(sketcher.examples.categories),
    'size': size,
    'tensors': {name: quantize(x) for name, x in sorted(tensors.items())},
  }


def write(
  directory: str | os.PathLike,
  sketcher: inference.Sketcher,
  *,
  size: int,
  title: str,
  about: str = _ABOUT,
) -> pathlib.Path:
  """Writes the page; returns its path.

  Args:
    directory: is made.
    sketcher: the model.
    size: width and height of a typical drawing, in pixels.
    title: of the page.
    about: a sentence or two under the title, such as the licence.

  Raises:
    ValueError: the page has no such network.
  """
  files = pathlib.Path(__file__).parent / 'page'
  scripts = [(files / name).read_text('utf-8') for name in _SCRIPTS]
  model = json.dumps(contents(sketcher, size), separators=(',', ':'))
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(files),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters['integrity'] = _integrity
  text = environment.get_template('index.html.jinja').render(
    title=title,
    about=about,
    conditional=sketcher.model.conditional,
    style=(files / 'style.css').read_text('utf-8'),
    script='\n'.join(scripts),
    model=model.replace('<', '\\u003c'),  # It stands in an element.
  )
  directory = pathlib.Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  rendering.write_file(directory / PAGE, lambda file: file.write(text.encode()))
  return directory / PAGE


def write_workdir(
  directory: str | os.PathLike, workdir: str | os.PathLike, title: str = ''
) -> pathlib.Path:
  """Writes the page of a run's best checkpoint, or of a released model.

  Args:
    directory: is made.
    workdir: of the run, or the name of a released model.
    title: of the page; '': the categories.
  """
  sketcher = inference.load(workdir)
  drawings = sketcher.sample(
    _NUM_MEASURED,
    key=jax.random.key(0),
    temperature=0.5,
    labels=np.arange(_NUM_MEASURED) % len(sketcher.classes)
    if sketcher.classes
    else None,
  )
  path = released.resolve(workdir)
  about = _ABOUT
  if released.is_released(path):
    about += f' The weights: {released.describe(path)["licence"]}.'
  return write(
    directory,
    sketcher,
    size=strokes.typical_size(drawings),
    title=title or f'Draw {", ".join(sketcher.examples.categories[:3])}',
    about=about,
  )


def _integrity(text: str) -> str:
  """The name of an inline style or script in a content security policy."""
  digest = hashlib.sha256(text.encode()).digest()
  return f'sha256-{base64.b64encode(digest).decode()}'
