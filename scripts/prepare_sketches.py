"""Checks files of drawings and prepares them for training.

  python scripts/prepare_sketches.py --name=sheep --input=aaron_sheep.npz
  python scripts/prepare_sketches.py --name=mine --input=drawings/ more.ndjson
  python scripts/prepare_sketches.py --name=quickdraw_sketches --input=npz/

The data set is then named 'sketches/NAME'. If NAME is 'quickdraw_sketches',
each category becomes a data set of its own, 'quickdraw_sketches/CATEGORY',
which would be downloaded otherwise.

In some files, such as the strokes of MNIST and short_kanji, the first row leads
from the corner of the image to the first point, without ink; with
--first_row_moves the drawings begin at that point.

Files are .npz (as published), .ndjson (QuickDraw's, simplified or raw), .svg or
.json (a list of lines). Drawings of files without splits are split by the hash
of their id, 80 / 10 / 10.
"""

from sketch_rnn import builders
from sketch_rnn import examples
from sketch_rnn import file_formats
from training import app
from training import errors
from training import paths


def main():
  """Runs the command; checks everything before it writes."""
  parser = errors.Parser(description=__doc__)
  parser.add_argument('--name', required=True, help='name of the data set')
  parser.add_argument(
    '--input', required=True, nargs='+', help='files, or directories of files'
  )
  parser.add_argument(
    '--data_dir', help='root of the data sets; default: that of TFDS'
  )
  parser.add_argument(
    '--skip_bad', action='store_true', help='leave out drawings that are wrong'
  )
  parser.add_argument(
    '--first_row_moves', action='store_true', help='the first row has no ink'
  )
  args = parser.parse_args(paths.arguments(parser))
  app.set_up_logging()
  try:
    sketches, skipped = file_formats.load(args.input, skip_bad=args.skip_bad)
    if args.first_row_moves:
      sketches = [file_formats.without_first_move(x) for x in sketches]
    names = builders.prepare(args.name, sketches, args.data_dir)
  except (ValueError, OSError) as error:
    errors.fail(str(error), max_lines=None)
  if skipped:
    print(f'Left out:\n{skipped}')
  for name in names:
    counts = [
      f'{split} {len(examples.open_split(name, split, args.data_dir))}'
      for split in builders.open_builder(name, args.data_dir).info.splits
    ]
    fingerprint = builders.fingerprint(name, args.data_dir)
    print(f'{name}: {", ".join(counts)}, fingerprint {fingerprint}')


if __name__ == '__main__':
  errors.run(main)
