r"""Checks region features of images and writes them beside a data set.

  python scripts/import_regions.py --name=coco_captions --regions=bottom_up \
      --input karpathy_*_resnet101_faster_rcnn_genome.tsv*
  python scripts/import_regions.py --name=captioned_images/ucm \
      --regions=bottom_up --input cocobu_att

The input is any number of `.tsv` files as the authors of bottom-up attention
published them, or directories of ID.npz (an array `feat`) or ID.npy. ID is the
id of the image in the data set. Then train with --config.regions=NAME.
"""

from captioning import regions
from training import app
from training import errors
from training import paths


def main():
  """Runs the command; checks everything before it writes."""
  parser = errors.Parser(description=__doc__)
  parser.add_argument('--name', required=True, help='name of the data set')
  parser.add_argument('--regions', required=True, help='name of the features')
  parser.add_argument(
    '--input', required=True, nargs='+', help='.tsv files or directories'
  )
  parser.add_argument(
    '--data_dir', help='root of the data sets; default: that of TFDS'
  )
  args = parser.parse_args(paths.arguments(parser))
  app.set_up_logging()
  try:
    directory = regions.prepare(
      args.name, args.regions, args.input, args.data_dir
    )
    splits = {
      split: regions.open_split(args.name, args.regions, split, args.data_dir)
      for split in regions.SPLITS
    }
  except (ValueError, OSError) as error:
    errors.fail(str(error), max_lines=None)
  for split, features in splits.items():
    print(f'{split}: {len(features)}')
  print(
    f'At most {features.max_locations} regions of {features.shape[1]} '
    f'features: {directory}'
  )


if __name__ == '__main__':
  errors.run(main)
