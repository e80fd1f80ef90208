r"""Checks video files, frames or sequences and prepares them for training.

  python scripts/prepare_clips.py --name=clips/mine --input=mine/
  python scripts/prepare_clips.py --name=clips/ucf101 --layout=ucf101 \
      --input=UCF-101 --lists=ucfTrainTestlist --resize=256 --rate=12
  python scripts/prepare_clips.py --name=captioned_clips/msrvtt \
      --input=videos --captions train_val_videodatainfo.json \
      test_videodatainfo.json --resize=256 --rate=3
  python scripts/prepare_clips.py --name=captioned_clips/msvd \
      --input=YouTubeClips --captions AllVideoDescriptions.txt --lists=lists \
      --resize=256 --rate=3
  python scripts/prepare_clips.py --name=skeletons/utd_mhad \
      --layout=utd_mhad --input=UTD-MHAD
  python scripts/prepare_clips.py --name=clips/utd_mhad_depth \
      --layout=utd_mhad --input=UTD-MHAD
  python scripts/prepare_clips.py --name=skeletons/sbu_kinect \
      --layout=sbu_kinect --input=sbu_kinect.npz
  python scripts/prepare_clips.py --name=skeletons/mine --input=mine/
  python scripts/prepare_clips.py --name=skeletons/hand_gestures \
      --input=hand_gestures/point_history.csv
  python scripts/prepare_clips.py --name=tracks/otb --input=OTB100
  python scripts/prepare_clips.py --name=occlusion_track/textured \
      --images=flickr8k/images

Clips and skeletons are a directory per class, of files or of directories of
frames, unless --layout is passed; see video/sources/. The data set is then
named as --name, with _FOLD for each fold of skeletons.
"""

import argparse

from training import app
from training import errors
from training import paths
from video import data
from video.sources import clips
from video.sources import fingertips
from video.sources import kinect
from video.sources import skeletons
from video.sources import tracks
from video.sources import utd_mhad


def read(args: argparse.Namespace) -> tuple[list, str]:
  """Returns the items, or name -> items, and the problems of the others."""
  kind = args.name.partition('/')[0]
  skip = {'skip_bad': args.skip_bad}
  if kind == 'tracks':
    return tracks.read(args.input, **skip)
  if kind == 'captioned_clips':
    return clips.captioned(args.input, args.captions, splits=args.lists, **skip)
  if kind == 'skeletons' and (args.layout or args.input.endswith('.npz')):
    layout = args.layout or 'npz'
    return kinect.divisions(layout, args.input, args.lists, **skip)
  if kind == 'skeletons' and args.input.endswith('.csv'):
    return fingertips.fingertips(args.input), ''
  if kind == 'skeletons':
    return skeletons.read(args.input, args.lists, **skip)
  if args.layout == 'utd_mhad':
    return utd_mhad.depth(args.input, **skip)
  if args.layout == 'ucf101':
    return clips.ucf101(args.input, args.lists, number=args.number, **skip)
  return clips.classes(args.input, **skip)


def main():
  """Runs the command; checks everything before it writes."""
  parser = errors.Parser(description=__doc__)
  parser.add_argument(
    '--name', required=True, help='name of the data set, KIND/NAME'
  )
  parser.add_argument('--input', help='directory or file to read')
  parser.add_argument(
    '--layout',
    choices=('ucf101', 'utd_mhad', 'sbu_kinect', 'msr_action3d'),
    help='layout of a published data set',
  )
  parser.add_argument(
    '--captions',
    nargs='+',
    help='files of captions: .json or AllVideoDescriptions.txt',
  )
  parser.add_argument('--lists', help='directory of the lists of the splits')
  parser.add_argument(
    '--number', type=int, default=1, help="number of UCF101's official split"
  )
  parser.add_argument(
    '--images', help='directory of images that texture a SYNTHETIC data set'
  )
  parser.add_argument(
    '--resize', type=int, help='short side of the stored frames, in pixels'
  )
  parser.add_argument(
    '--rate',
    type=float,
    help='frames per second that are stored of video files',
  )
  parser.add_argument(
    '--data_dir', help='root of the data sets; default: that of TFDS'
  )
  parser.add_argument(
    '--skip_bad', action='store_true', help='leave out items that are wrong'
  )
  args = parser.parse_args(paths.arguments(parser))
  if (args.input is None) == (args.images is None):
    parser.error('pass --input, or --images for a SYNTHETIC data set')
  if args.name.startswith('captioned_clips/') and args.captions is None:
    parser.error('pass --captions')
  if args.layout == 'ucf101' and args.lists is None:
    parser.error('pass --lists')
  app.set_up_logging()
  skipped, names = '', [args.name]
  try:
    if args.images is not None:
      data.prepare_synthetic(args.name, args.images, args.data_dir)
    else:
      items, skipped = read(args)
      options = {'resize': args.resize, 'rate': args.rate}
      names = data.prepare(args.name, items, args.data_dir, **options)
  except (ValueError, OSError) as error:
    errors.fail(str(error), max_lines=None)
  if skipped:
    print(f'Left out:\n{skipped}')
  for name in names:
    for split in data.splits(name, args.data_dir):
      print(f'{split}: {len(data.open_split(name, split, args.data_dir))}')
    print(f'{name}, fingerprint {data.fingerprint(name, args.data_dir)}')


if __name__ == '__main__':
  errors.run(main)
