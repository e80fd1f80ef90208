r"""Samples from a trained Sketch-RNN; writes NAME.svg and NAME.png.

  python -m sketch_rnn.sample MODE [INPUT...] --workdir=runs/cat --output=NAME

  sample                    from the prior, or from a decoder-only model
  reconstruct INPUT...      encodes drawings and decodes samples of z
  denoise INPUT...          encodes drawings and decodes the mean of z
  interpolate A B           a path from A to B
  interpolate A B C D       a grid between four corners, in reading order
  analogy A B C             A - B + C
  complete INPUT...         several completions of each beginning
  predict INPUT             the distribution of the next point; NAME.npz has
                            that of every point
  encode INPUT...           latent vectors of drawings, in NAME.npz
  decode LATENT...          drawings of latent vectors

An INPUT is a drawing of the run's data (test:12, or test:0-7), or a file:
drawing.svg, drawing.json, cat.ndjson:3, cat.npz:0-7. Numbers count from 0;
without one, all drawings of the file are taken. A LATENT is z.npz or z.npz:3,
as encode writes them; interpolate and analogy take them in place of drawings.

  python -m sketch_rnn.sample sample --workdir=runs/cat --output=cats \
      --count=20 --temperature=0.1,0.4,0.8
  python -m sketch_rnn.sample sample --pretrained=kanji --output=kanji
  python -m sketch_rnn.sample complete head.svg --workdir=runs/cat --output=ends
"""

import argparse
import dataclasses
import pathlib

import numpy as np

from configs import schema
from sketch_rnn import generation
from sketch_rnn import inference
from sketch_rnn import inputs
from sketch_rnn import latent
from sketch_rnn import mixture
from sketch_rnn import rendering
from sketch_rnn import sheets
from training import app
from training import compilation
from training import errors
from training import paths
from training import released

# Mode -> (default temperature, default count).
_MODES = {
  'sample': (0.4, 10),
  'reconstruct': (0.4, 4),
  'denoise': (0.1, 1),
  'interpolate': (0.1, 10),
  'analogy': (0.1, 5),
  'complete': (0.4, 10),
  'predict': (1.0, 12),
  'encode': (1.0, 1),
  'decode': (0.1, 1),
}
_MAX_INPUTS = 100  # Of one sheet.


def _parser() -> argparse.ArgumentParser:
  parser = errors.Parser(description=__doc__)
  parser.add_argument('mode', choices=_MODES)
  parser.add_argument('inputs', nargs='*', metavar='INPUT')
  model = parser.add_mutually_exclusive_group(required=True)
  model.add_argument(
    '--workdir', type=pathlib.Path, help='workdir of a trained model'
  )
  model.add_argument(
    '--pretrained',
    metavar='NAME',
    choices=released.names(),
    help=released.help_text(),
  )
  parser.add_argument(
    '--output',
    required=True,
    metavar='NAME',
    help='files to write, without a suffix',
  )
  parser.add_argument(
    '--seed', type=int, default=0, help='random seed of the samples'
  )
  parser.add_argument(
    '--temperature',
    metavar='T[,T...]',
    help='sampling temperature, less random below 1; one section for each',
  )
  parser.add_argument(
    '--greedy',
    action='store_true',
    help='take the most probable component and pen',
  )
  parser.add_argument(
    '--sigma',
    choices=mixture.SIGMAS,
    default='paper',
    help='the temperature multiplies the variance (paper) or the standard '
    'deviation (tf1, as the published TensorFlow code)',
  )
  parser.add_argument(
    '--choices',
    choices=generation.CHOICES,
    default='paper',
    help='the temperature of component and pen: the same (paper), or half-way '
    "to 1 (js, as on the authors' page)",
  )
  parser.add_argument(
    '--count',
    type=int,
    help='number of drawings of each input or class, of points of predict, of '
    'steps of interpolate',
  )
  parser.add_argument(
    '--category', help='class to sample, of a model with classes'
  )
  parser.add_argument(
    '--data_dir', help='directory of the data, in place of that of the config'
  )
  parser.add_argument(
    '--method',
    choices=latent.INTERPOLATIONS,
    default='spherical',
    help='how to interpolate',
  )
  parser.add_argument(
    '--points', type=int, help='complete: length of the beginning, in points'
  )
  parser.add_argument(
    '--pen_down',
    action='store_true',
    help='complete: do not lift the pen after the beginning',
  )
  return parser


def _samplings(arguments) -> list[generation.Sampling]:
  """One way of sampling for each temperature.

  Raises:
    ValueError: a temperature is not a number above 0.
  """
  text = arguments.temperature or str(_MODES[arguments.mode][0])
  temperatures = [float(number) for number in text.split(',')]
  if arguments.greedy:
    temperatures = temperatures[:1]
  return [
    generation.Sampling(
      temperature, arguments.greedy, arguments.sigma, arguments.choices
    )
    for temperature in temperatures
  ]


def _output(name: str) -> pathlib.Path:
  """The path of the files to write, without a suffix.

  Raises:
    ValueError: its directory does not exist.
  """
  path = pathlib.Path(name).absolute()
  if path.suffix in ('.svg', '.png', '.npz'):
    path = path.with_suffix('')
  if not path.parent.is_dir():
    raise ValueError(f'--output={name}: its directory does not exist')
  return path


def run(arguments: argparse.Namespace) -> list[pathlib.Path]:
  """Runs a mode; returns the paths of the files that it has written.

  Raises:
    OSError: a file cannot be read or written.
    ValueError: the arguments do not fit each other, or the model.
  """
  mode = arguments.mode
  # Checked before the work.
  output = _output(arguments.output)
  samplings = _samplings(arguments)
  count = _MODES[mode][1] if arguments.count is None else arguments.count
  if count < 1 or (mode == 'interpolate' and count < 2):
    raise ValueError(f'--count={count} is too few for {mode}')
  if arguments.points is not None and arguments.points < 1:
    raise ValueError(f'--points={arguments.points}: pass 1 or more')
  if mode == 'sample' and arguments.inputs:
    raise ValueError('sample takes no input')
  if mode != 'sample' and not arguments.inputs:
    raise ValueError(f'{mode} needs an input, such as test:12 or drawing.svg')

  workdir = arguments.workdir or released.path(arguments.pretrained)
  workdir = workdir.absolute()
  maker = sheets.SheetMaker(
    inference.load(workdir),
    samplings,
    seed=arguments.seed,
    category=arguments.category,
  )
  config = app.read_config(workdir, schema.SKETCH_RNN)
  given = [
    one
    for text in arguments.inputs
    for one in inputs.read(text, config.data, arguments.data_dir)
  ]
  if len(given) > _MAX_INPUTS and mode != 'encode':
    raise ValueError(
      f'{len(given)} inputs do not fit into one sheet: choose '
      f'{_MAX_INPUTS} at most, as in {arguments.inputs[0]}:0-9'
    )

  numbers = output.with_name(f'{output.name}.npz')
  if mode == 'encode':
    latent.save(numbers, maker.encode(given))
    return [numbers]
  written = []
  if mode == 'sample':
    sections = maker.sample(count)
  elif mode == 'reconstruct':
    sections = maker.reconstruct(given, count)
  elif mode == 'denoise':
    sections = maker.reconstruct(given, from_mean=True)
  elif mode == 'interpolate':
    sections = maker.interpolate(given, arguments.method, count)
  elif mode == 'analogy':
    sections = maker.analogy(given, count)
  elif mode == 'complete':
    sections = maker.complete(
      given, count, arguments.points, pen_down=arguments.pen_down
    )
  elif mode == 'predict':
    sections, prediction = maker.predict(given, count)
    arrays = dataclasses.asdict(prediction)
    rendering.write_file(numbers, lambda file: np.savez(file, **arrays))
    written.append(numbers)
  else:
    sections = maker.decode(given)
  return [*rendering.write(output, sections), *written]


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns the exit status."""
  parser = _parser()
  arguments = parser.parse_intermixed_args(paths.arguments(parser, argv))
  app.set_up_logging()
  compilation.keep_programs()
  try:
    written = run(arguments)
  except (OSError, ValueError) as error:
    parser.error(str(error))
  for path in written:
    print(path)
  return 0


if __name__ == '__main__':
  errors.run(main)
