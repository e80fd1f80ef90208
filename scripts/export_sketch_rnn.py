r"""Writes a trained model as a JSON file of the authors' web page.

  python scripts/export_sketch_rnn.py --workdir=runs/cat --output=cat.vae.json

See sketch_rnn/export.py for the models that the page can read.
"""

from sketch_rnn import export
from training import app
from training import errors
from training import paths


def main():
  """Runs the command."""
  parser = errors.Parser(description=__doc__)
  parser.add_argument(
    '--workdir', required=True, help='workdir, or name of a released model'
  )
  parser.add_argument(
    '--output', required=True, help='NAME.gen.json or NAME.vae.json'
  )
  parser.add_argument('--name', default='', help='name of the model')
  args = parser.parse_args(paths.arguments(parser))
  app.set_up_logging()
  try:
    clipped = export.save_workdir(args.workdir, args.output, args.name)
  except (ValueError, OSError) as error:
    errors.fail(str(error))
  print(f'{args.output}: {clipped} numbers beyond 10 were clipped')


if __name__ == '__main__':
  errors.run(main)
