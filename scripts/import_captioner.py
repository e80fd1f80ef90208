r"""Writes the workdir of a published captioner, for captioning and training.

  python scripts/import_captioner.py --weights=BEST_checkpoint_coco.pth.tar \
      --words=WORDMAP_coco.json --workdir=runs/tutorial_published
  python scripts/import_captioner.py --weights=model-best.pth \
      --words=infos_fc-best.pkl --encoder=resnet101.pth --workdir=runs/fc

The files are those of a-PyTorch-Tutorial-to-Image-Captioning, or of
self-critical.pytorch. Nothing that is in them is run. A decoder of region
features needs --regions and no encoder.
"""

import pathlib

from captioning import importing
from configs import adaptive_coco
from configs import att2in_coco
from configs import coco
from configs import show_and_tell_coco
from configs import up_down_coco
from training import app
from training import errors
from training import paths

CONFIGS = {
  'adaptive': adaptive_coco.get_config(),
  'att2in': att2in_coco.get_config(),
  'show_and_tell': show_and_tell_coco.get_config(),
  'show_attend_tell': coco.get_config('tutorial'),
  'up_down': up_down_coco.get_config(),
}


def main():
  """Runs the command."""
  parser = errors.Parser(description=__doc__)
  parser.add_argument('--weights', required=True, help='.pth or .pth.tar file')
  parser.add_argument(
    '--words', required=True, help='word map (.json), or infos_*.pkl'
  )
  parser.add_argument('--encoder', help='weights of the ResNet')
  parser.add_argument(
    '--regions', default='', help='name of imported region features'
  )
  parser.add_argument(
    '--name', default='coco_captions', help='name of the data set'
  )
  parser.add_argument('--workdir', required=True, help='workdir to write')
  args = parser.parse_args(paths.arguments(parser))
  app.set_up_logging()
  workdir = pathlib.Path(args.workdir).absolute()
  imported = importing.load(
    args.weights,
    args.words,
    CONFIGS,
    encoder=args.encoder,
    regions=args.regions,
    name=args.name,
  )
  importing.write(workdir, imported)
  print(f'{imported.layout}, {len(imported.words)} words: {workdir}')


if __name__ == '__main__':
  errors.run(main)
