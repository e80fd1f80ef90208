"""Captions photographs with a trained captioner.

  python -m captioning.caption --workdir=runs/coco photo.jpg folder/
  python -m captioning.caption --workdir=runs/coco photo.jpg --json
  python -m captioning.caption --workdir=runs/coco *.jpg --attention=out.png

Prints a line for each picture: path, caption, log-probability. A file that is
no picture gets an error line, the others their captions; the exit status is
then 1. Of a folder all files with the ending of a picture are taken.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Iterator

import jax
import numpy as np
import PIL.Image

from captioning import examples as examples_lib
from captioning import figures
from captioning import inference
from training import app
from training import parallel
from vision import images


def find_files(paths: list[str]) -> list[pathlib.Path]:
  """The files named, and in place of a folder the pictures below it."""
  PIL.Image.init()
  files = []
  for path in map(pathlib.Path, paths):
    if path.is_dir():
      below = sorted(p for p in path.rglob('*') if p.is_file())
      files += [p for p in below if p.suffix.lower() in PIL.Image.EXTENSION]
    else:
      files.append(path)
  return files


class Describer:
  """Captions pictures in batches of one or of many: two shapes, no more."""

  def __init__(self, trained: inference.Trained):
    """Takes what `inference.load` returned."""
    self._trained = trained
    self._examples = examples_lib.Examples(
      trained.vocabulary, trained.config.data
    )
    self._describe = inference.describe_step(
      trained.captioner, trained.config.decoding
    )
    self._attend = inference.attention_step(trained.captioner)

  def picture(self, file: pathlib.Path) -> np.ndarray:
    """Decodes and crops as in evaluation: uint8[H, W, 3].

    Raises:
      ValueError: the file is no picture.
      OSError: it cannot be read.
    """
    return self._examples.crop(images.decode(file))

  def captions(self, pictures: list[np.ndarray]) -> list[inference.Caption]:
    """One caption for each of uint8[H, W, 3]."""
    return [
      caption
      for batch in self._batches(pictures)
      for caption in inference.describe(
        self._describe,
        self._trained.variables,
        [batch],
        self._trained.vocabulary,
      )
    ]

  def attention(
    self, picture: np.ndarray, caption: inference.Caption
  ) -> np.ndarray | None:
    """Where each word looked, f32[T, L]; None if the model does not attend."""
    if not self._trained.captioner.decoder.attends:
      return None
    tokens = self._trained.vocabulary.encode(
      caption.text, self._trained.config.decoding.max_length
    )
    (batch,) = self._batches([picture])
    batch['tokens'] = np.tile(tokens, (len(batch['mask']), 1, 1))
    return self._attend(self._trained.variables, parallel.shard(batch))[0]

  def _batches(self, pictures) -> Iterator[dict[str, np.ndarray]]:
    size = jax.local_device_count()
    if len(pictures) > size:
      size = self._trained.config.eval_batch_size
    for start in range(0, len(pictures), size):
      part = np.stack(pictures[start : start + size])
      padding = [(0, size - len(part))] + [(0, 0)] * 3
      yield {
        'picture': np.pad(part, padding),
        'mask': np.arange(size) < len(part),
      }


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns the exit status."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('paths', nargs='+', help='pictures and folders')
  parser.add_argument('--workdir', required=True, help='of a trained captioner')
  parser.add_argument('--json', action='store_true', help='print JSON')
  parser.add_argument(
    '--attention',
    metavar='OUT.png',
    help='draw the pictures, with where each word looked',
  )
  arguments = parser.parse_args(argv)
  if arguments.attention:
    # Before all the work, rather than after it.
    path = pathlib.Path(arguments.attention)
    PIL.Image.init()
    if PIL.Image.EXTENSION.get(path.suffix.lower()) not in PIL.Image.SAVE:
      parser.error(f'--attention={path}: pass a name that ends in .png')
    if not path.absolute().parent.is_dir():
      parser.error(f'--attention={path}: its folder does not exist')
  app.set_up_logging()
  try:
    trained = inference.load(pathlib.Path(arguments.workdir).absolute())
  except (FileNotFoundError, ValueError) as error:
    parser.error(str(error))
  describer = Describer(trained)

  results = []
  pictures = []
  for file in find_files(arguments.paths):
    result = {'path': str(file)}
    try:
      pictures.append(describer.picture(file))
    except (OSError, ValueError) as error:
      result['error'] = str(error)
    results.append(result)
  if not results:
    parser.error(f'no pictures in {" ".join(arguments.paths)}')

  captions = describer.captions(pictures)
  described = [result for result in results if 'error' not in result]
  for result, caption in zip(described, captions, strict=True):
    result.update(caption=caption.text, log_prob=caption.log_prob)
  if arguments.attention and pictures:
    sheet = [
      figures.caption(
        picture, caption.text, describer.attention(picture, caption)
      )
      for picture, caption in zip(pictures, captions, strict=True)
    ]
    figures.save(figures.stack(sheet), arguments.attention)
  if arguments.json:
    print(json.dumps(results, indent=2, ensure_ascii=False))
  for result in results:
    if 'error' in result:
      print(f'{result["path"]}: error: {result["error"]}', file=sys.stderr)
    elif not arguments.json:
      print(f'{result["path"]}\t{result["caption"]}\t{result["log_prob"]:.2f}')
  return int(any('error' in result for result in results))


if __name__ == '__main__':
  sys.exit(main())
