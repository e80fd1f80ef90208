r"""Checks a directory of captioned images and prepares it for training.

  python scripts/prepare_captions.py --name=ucm --images=ucm/images \
      --captions=ucm/dataset_ucm.json
  python scripts/prepare_captions.py --name=flickr8k --images=flickr8k/images \
      --captions=flickr8k/Flickr8k.token.txt --splits=flickr8k --skip_bad
  python scripts/prepare_captions.py --name=mine --images=images \
      --captions=captions.csv --splits=0.8,0.1,0.1

The data set is then named 'captioned_images/NAME'.
"""

from captioning import data
from captioning import sources
from training import app
from training import errors
from training import paths


def main():
  """Runs the command; checks everything before it writes."""
  parser = errors.Parser(description=__doc__)
  parser.add_argument('--name', required=True, help='name of the data set')
  parser.add_argument('--images', required=True, help='directory of images')
  parser.add_argument(
    '--captions',
    required=True,
    help='file: dataset_*.json, captions_*.json, results.csv, captions.csv '
    'or *.token.txt',
  )
  parser.add_argument(
    '--splits',
    help='directory of *trainImages.txt and the other two lists, or shares '
    'such as 0.8,0.1,0.1',
  )
  parser.add_argument(
    '--data_dir', help='root of the data sets; default: that of TFDS'
  )
  parser.add_argument(
    '--skip_bad', action='store_true', help='leave out images that are wrong'
  )
  args = parser.parse_args(paths.arguments(parser))
  app.set_up_logging()
  try:
    splits = args.splits and sources.parse_splits(args.splits)
    files, skipped = sources.load(
      args.images, args.captions, splits=splits, skip_bad=args.skip_bad
    )
    data.prepare(args.name, files, args.data_dir)
  except (ValueError, OSError) as error:
    errors.fail(str(error), max_lines=None)
  name = f'captioned_images/{args.name}'
  if skipped:
    print(f'Left out:\n{skipped}')
  for split in sorted({file.split for file in files}):
    print(f'{split}: {len(data.open_split(name, split, args.data_dir))}')
  print(f'{name}, fingerprint {data.fingerprint(name, args.data_dir)}')


if __name__ == '__main__':
  errors.run(main)
