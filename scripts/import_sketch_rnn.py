r"""Writes the workdir of a published Sketch-RNN model, for sampling.

  python scripts/import_sketch_rnn.py --weights=dog.gen.json \
      --workdir=runs/published_dog
  python -m sketch_rnn.sample sample --workdir=runs/published_dog \
      --output=dogs --temperature=0.1,0.4,0.8

The weights are a JSON file of the authors' web page (`NAME.gen.json`, or
`NAME.vae.json` with an encoder), or a checkpoint of their TensorFlow code, for
which TensorFlow must be installed:

  python scripts/import_sketch_rnn.py --weights=aaron_sheep/lstm/vector \
      --drawings=aaron_sheep.npz --name=sheep --workdir=runs/published_sheep

Training goes on with --config.start_from=runs/published_sheep.
"""

import pathlib

from sketch_rnn import importing
from training import app
from training import errors
from training import paths


def main():
  """Runs the command."""
  parser = errors.Parser(description=__doc__)
  parser.add_argument(
    '--weights', required=True, help='JSON file, or checkpoint'
  )
  parser.add_argument('--workdir', required=True, help='workdir to write')
  parser.add_argument(
    '--drawings', default='', help='of a checkpoint: its training data'
  )
  parser.add_argument('--name', default='', help='name of the model')
  args = parser.parse_args(paths.arguments(parser))
  app.set_up_logging()
  workdir = pathlib.Path(args.workdir).absolute()
  try:
    imported = importing.load(
      args.weights, name=args.name, drawings=args.drawings
    )
    importing.write(workdir, imported)
  except (ImportError, ValueError, OSError) as error:
    errors.fail(str(error))
  print(
    f'{imported.name}, {imported.arguments["decoder"]} decoder of '
    f'{imported.arguments["decoder_features"]} units, all tensors found: '
    f'{workdir}'
  )


if __name__ == '__main__':
  errors.run(main)
