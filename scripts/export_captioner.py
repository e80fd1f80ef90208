r"""Exports a captioner for other programs: safetensors, JSON and StableHLO.

  python scripts/export_captioner.py --workdir=runs/coco --output=exported

The files, and how to run them, are described in captioning/export.py.
"""

import pathlib

from captioning import export
from training import app
from training import errors
from training import paths


def main():
  """Runs the command."""
  parser = errors.Parser(description=__doc__)
  parser.add_argument(
    '--workdir', required=True, help='workdir, or name of a released model'
  )
  parser.add_argument('--output', required=True, help='directory to write')
  parser.add_argument(
    '--sides', nargs=2, type=int, help='height and width of whole images'
  )
  args = parser.parse_args(paths.arguments(parser))
  app.set_up_logging()
  output = pathlib.Path(args.output)
  export.export(args.workdir, output, sides=args.sides)
  for path in sorted(output.iterdir()):
    print(path)


if __name__ == '__main__':
  errors.run(main)
