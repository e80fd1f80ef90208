r"""Captions images with a trained captioner.

  python -m captioning.caption --workdir=runs/coco photo.jpg folder/
  python -m captioning.caption --workdir=runs/coco photo.jpg --json
  python -m captioning.caption --workdir=runs/coco *.jpg --attention=out.png
  python -m captioning.caption --workdir=runs/coco photo.jpg --n_best=5 \
    --decoding="required_words=('dog',)" --decoding=no_repeat_ngram=3
  python -m captioning.caption --workdir=runs/a --workdir=runs/b photo.jpg

Prints a line for each caption: path, caption, log-probability (natural). Files
that cannot be read are reported on stderr and the rest are captioned; the exit
status is then 1. A directory stands for all image files below it. Several
workdirs caption as an ensemble.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Iterator
from collections.abc import Sequence

import jax
import ml_collections
import numpy as np
import PIL.Image

from captioning import examples as examples_lib
from captioning import figures
from captioning import inference
from captioning import vocabulary
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

  def __init__(
    self,
    members: Sequence[inference.Trained],
    decoding: ml_collections.ConfigDict | None = None,
  ):
    """Takes what `inference.load` returned, and how to decode.

    Args:
      members: the captioner, or those of an ensemble.
      decoding: see `inference.describe_step`; by default the first one's.
    """
    inference.check_ensemble(members)
    self._trained = members[0]
    self._variables = [member.variables for member in members]
    self._decoding = decoding or self._trained.config.decoding
    self._examples = examples_lib.Examples(
      self._trained.vocabulary, self._trained.config.data
    )
    self._describe = inference.describe_step(
      [member.captioner for member in members],
      self._decoding,
      self._trained.vocabulary,
    )
    self._attend = inference.attention_step(self._trained.captioner)

  def picture(self, file: pathlib.Path) -> np.ndarray:
    """Decodes and crops as in evaluation: uint8[H, W, 3].

    Raises:
      ValueError: the file is no picture.
      OSError: it cannot be read.
    """
    return self._examples.crop(images.decode(file))

  def captions(
    self, pictures: list[np.ndarray]
  ) -> list[list[vocabulary.Caption]]:
    """The beams for each of uint8[H, W, 3], the best first."""
    return [
      found
      for batch in self._batches(pictures)
      for found in inference.describe(
        self._describe, self._variables, [batch], self._trained.vocabulary
      )
    ]

  def attention(
    self, picture: np.ndarray, caption: vocabulary.Caption
  ) -> np.ndarray | None:
    """Where each word looked, f32[T, L]; None if the model does not attend."""
    if not self._trained.captioner.decoder.attends:
      return None
    tokens = self._trained.vocabulary.encode(
      caption.text, self._decoding.max_length
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
  parser.add_argument(
    'paths', nargs='+', help='images and directories of images'
  )
  parser.add_argument(
    '--workdir',
    required=True,
    action='append',
    help='workdir of a trained captioner; repeat it for an ensemble',
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
    '--json', action='store_true', help='print JSON instead of lines'
  )
  parser.add_argument(
    '--attention',
    metavar='OUT.png',
    help='write the images with the attention at each word',
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
    members = [
      inference.load(pathlib.Path(workdir).absolute())
      for workdir in arguments.workdir
    ]
    decoding = app.change_fields(
      members[0].config.decoding, arguments.decoding, name='decoding'
    )
    if arguments.n_best > decoding.beam_size:
      decoding.beam_size = arguments.n_best
    describer = Describer(members, decoding)
  except (FileNotFoundError, ValueError) as error:
    parser.error(str(error))

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
  for result, found in zip(described, captions, strict=True):
    best = [
      {'caption': caption.text, 'log_prob': caption.log_prob}
      for caption in found[: arguments.n_best]
    ]
    result.update(best[0])
    if arguments.n_best > 1:
      result['n_best'] = best
  if arguments.attention and pictures:
    sheet = [
      figures.caption(
        picture, found[0].text, describer.attention(picture, found[0])
      )
      for picture, found in zip(pictures, captions, strict=True)
    ]
    figures.save(figures.stack(sheet), arguments.attention)
  if arguments.json:
    print(json.dumps(results, indent=2, ensure_ascii=False))
  for result in results:
    if 'error' in result:
      print(f'{result["path"]}: error: {result["error"]}', file=sys.stderr)
    elif not arguments.json:
      for found in result.get('n_best', [result]):
        print(f'{result["path"]}\t{found["caption"]}\t{found["log_prob"]:.2f}')
  return int(any('error' in result for result in results))


if __name__ == '__main__':
  sys.exit(main())
