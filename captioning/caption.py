r"""Captions images with a trained captioner.

  python -m captioning.caption --workdir=runs/coco photo.jpg folder/
  python -m captioning.caption --pretrained=scenes drawing.png
  python -m captioning.caption --workdir=runs/coco photo.jpg --json
  python -m captioning.caption --workdir=runs/coco *.jpg --attention=out.png
  python -m captioning.caption --workdir=runs/coco photo.jpg --n_best=5 \
    --decoding="required_words=('dog',)" --decoding=no_repeat_ngram=3
  python -m captioning.caption --pretrained=scenes drawing.png --n_best=5 \
    --decoding=temperature=0.7 --decoding=top_p=0.9 --seed=1
  python -m captioning.caption --workdir=runs/a --workdir=runs/b photo.jpg

Prints a line for each caption: path, caption, log-probability (natural). Files
that cannot be read are reported on stderr and the rest are captioned; the exit
status is then 1. A directory stands for all image files below it. Several
workdirs caption as an ensemble.
"""

import json
import pathlib
import sys

import PIL.Image

from captioning import figures
from captioning import inference
from training import app
from training import compilation
from training import directories
from training import errors
from training import paths
from training import released
from vision import images as images_lib


def find_files(paths: list[str]) -> list[pathlib.Path]:
  """The files named, and in place of a folder the images below it."""
  files = []
  for path in map(pathlib.Path, paths):
    if path.is_dir():
      below = directories.below(path)
      files += [p for p in below if p.suffix.lower() in images_lib.SUFFIXES]
    else:
      files.append(path)
  return files


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns the exit status."""
  parser = errors.Parser(description=__doc__)
  parser.add_argument(
    'paths', nargs='+', help='images and directories of images'
  )
  model = parser.add_mutually_exclusive_group(required=True)
  model.add_argument(
    '--workdir',
    action='append',
    type=pathlib.Path,
    help='workdir of a trained captioner; repeat it for an ensemble',
  )
  model.add_argument(
    '--pretrained',
    metavar='NAME',
    choices=released.names(),
    help=released.help_text(),
  )
  parser.add_argument(
    '--n_best',
    type=int,
    default=1,
    help='number of captions per image (default: 1)',
  )
  parser.add_argument(
    '--decoding',
    metavar='FIELD=VALUE',
    action='append',
    default=[],
    help="changes a field of the config's `decoding`; a Python literal, such "
    'as beam_size=5; may be repeated',
  )
  parser.add_argument(
    '--seed',
    type=int,
    help='random seed of samples, that is with --decoding=temperature=1.0 or '
    'another one above 0',
  )
  parser.add_argument(
    '--json', action='store_true', help='print JSON instead of lines'
  )
  parser.add_argument(
    '--attention',
    metavar='OUT.png',
    help='write the images with the attention at each word',
  )
  arguments = parser.parse_args(paths.arguments(parser, argv))
  if arguments.attention:
    # Checked before the work, not after it.
    path = pathlib.Path(arguments.attention)
    PIL.Image.init()
    if PIL.Image.EXTENSION.get(path.suffix.lower()) not in PIL.Image.SAVE:
      parser.error(f'--attention={path}: pass a name that ends in .png')
    if not path.absolute().parent.is_dir():
      parser.error(f'--attention={path}: its folder does not exist')
  app.set_up_logging()
  compilation.keep_programs()
  try:
    captioner = inference.load(
      *(arguments.workdir or [released.path(arguments.pretrained)]),
      decoding=inference.with_seed(arguments.decoding, arguments.seed),
      min_beams=arguments.n_best,
    )
  except (FileNotFoundError, ValueError) as error:
    parser.error(str(error))

  results = []
  images = []
  for file in find_files(arguments.paths):
    result = {'path': str(file)}
    try:
      images.append(captioner.preprocess(captioner.read(file)))
    except (OSError, ValueError) as error:
      result['error'] = str(error)
    results.append(result)
  if not results:
    parser.error(f'no images in {" ".join(arguments.paths)}')

  captions = captioner.caption(images, preprocessed=True)
  captioned = [result for result in results if 'error' not in result]
  for result, beams in zip(captioned, captions, strict=True):
    best = [
      {'caption': caption.text, 'log_prob': caption.log_prob}
      for caption in beams[: arguments.n_best]
    ]
    result.update(best[0])
    if arguments.n_best > 1:
      result['n_best'] = best
  if arguments.attention and images:
    sheet = [
      figures.caption(
        image,
        beams[0].text,
        captioner.attention(image, beams[0], preprocessed=True),
        words=beams[0].words,
      )
      for image, beams in zip(images, captions, strict=True)
    ]
    figures.save(figures.stack(sheet), arguments.attention)
  if arguments.json:
    print(json.dumps(results, indent=2, ensure_ascii=False))
  for result in results:
    if 'error' in result:
      print(f'{result["path"]}: error: {result["error"]}', file=sys.stderr)
    elif not arguments.json:
      for one in result.get('n_best', [result]):
        print(f'{result["path"]}\t{one["caption"]}\t{one["log_prob"]:.2f}')
  return int(any('error' in result for result in results))


if __name__ == '__main__':
  errors.run(main)
