"""Reads directories of captioned images, and checks all before any is used.

Two layouts are known: one JSON file in the manner of Karpathy
(`dataset_coco.json`, `dataset_flickr8k.json`, `dataset_flickr30k.json`,
`dataset_ucm.json`), and Flickr8k's `Flickr8k.token.txt` with its split lists.
"""

import collections
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator

from captioning import tokenizer
from training import problems as problems_lib
from vision import images as images_lib

# Karpathy's splits: the rest of COCO's validation images is trained on too.
_SPLITS = {
  'train': 'train',
  'restval': 'train',
  'val': 'validation',
  'test': 'test',
}
_LISTS = {'train': 'train', 'dev': 'validation', 'test': 'test'}


@dataclasses.dataclass(frozen=True)
class CaptionedFile:
  """An image file and its human captions."""

  id: str
  path: pathlib.Path
  split: str  # 'train', 'validation' or 'test'.
  captions: list[str]


def load(
  images: str | os.PathLike,
  captions: str | os.PathLike,
  *,
  splits: str | os.PathLike | None = None,
  skip_bad: bool = False,
) -> tuple[list[CaptionedFile], str]:
  """Returns all good files, and a text that lists the problems of the others.

  Every image is decoded once.

  Args:
    images: directory of the images.
    captions: Karpathy's JSON, or lines of `name.jpg#k<TAB>caption`.
    splits: directory of the three lists that go with such lines.
    skip_bad: leave out files with problems. Otherwise each is an error.

  Raises:
    ValueError: lists all problems.
  """
  images, captions = pathlib.Path(images), pathlib.Path(captions)
  if not images.is_dir():
    raise ValueError(f'{images} is not a directory: pass that of the images')
  problems = problems_lib.Problems()
  if captions.suffix == '.json':
    candidates = _read_json(captions, images, problems)
  elif splits is None:
    raise ValueError(
      f'{captions} does not say which image is in which split: pass the '
      'directory of the lists (*trainImages.txt, ...) as splits, or a '
      'dataset_*.json'
    )
  else:
    candidates = _read_lines(
      captions, images, _read_lists(pathlib.Path(splits)), problems
    )
  files = _check(candidates, problems)
  report = problems.raise_unless_skipped(
    captions, len(files), skip_bad=skip_bad
  )
  return files, report


def _read_json(path, images, problems) -> Iterator[CaptionedFile]:
  try:
    records = list(json.loads(path.read_text(encoding='utf-8'))['images'])
  except (ValueError, TypeError, KeyError) as error:
    raise ValueError(
      f'{path} is not a JSON object with a list `images`: {error!r}'
    ) from error
  for i, record in enumerate(records):
    try:
      name, split = record['filename'], record['split']
      file = images / record.get('filepath', '') / name
      captions = [
        str.strip(sentence['raw']) for sentence in record['sentences']
      ]
    except (TypeError, KeyError) as error:
      problems['no such field, or of another type'].append(
        f'images[{i}]: {error}'
      )
      continue
    if split not in _SPLITS:
      problems['unknown split'].append(f'images[{i}], {name}: {split!r}')
      continue
    yield CaptionedFile(
      id=str(record.get('cocoid', record.get('imgid', name))),
      path=file,
      split=_SPLITS[split],
      captions=captions,
    )


def _read_lists(directory: pathlib.Path) -> dict[str, list[str]]:
  """Split -> names of its images."""
  names = {}
  for word, split in _LISTS.items():
    found = sorted(directory.glob(f'*{word}Images.txt'))
    if len(found) != 1:
      raise ValueError(
        f'{directory} must hold one file *{word}Images.txt, not {len(found)}'
      )
    names[split] = found[0].read_text(encoding='utf-8').split()
  return names


def _read_lines(path, images, lists, problems) -> Iterator[CaptionedFile]:
  captions = collections.defaultdict(list)
  # Unlike `splitlines` this leaves odd characters inside captions alone.
  lines = path.read_text(encoding='utf-8').rstrip('\n').split('\n')
  for number, line in enumerate(lines, start=1):
    name, tab, caption = line.partition('\t')
    if not tab or '#' not in name:
      problems['not of the form name.jpg#k<TAB>caption'].append(
        f'line {number}: {line[:60]!r}'
      )
      continue
    captions[name.rpartition('#')[0]].append(caption)
  files = {file.name for file in images.iterdir()}
  listed = {name for names in lists.values() for name in names}
  problems['in a split list, but no such image'] += sorted(listed - files)
  problems['an image in no split list'] += sorted(files - listed)
  problems['captions, but no such image'] += sorted(set(captions) - files)
  for split, names in lists.items():
    for name in names:
      if name in files:
        yield CaptionedFile(name, images / name, split, captions.get(name, []))


def _check(candidates, problems) -> list[CaptionedFile]:
  """The files without problems, with their good captions."""
  seen, files, remaining = set(), set(), []
  for item in candidates:
    name = f'{item.path.name} (id {item.id})'
    if item.id in seen or item.path in files:
      problems['image or id that was there before'].append(name)
      continue
    seen.add(item.id)
    files.add(item.path)
    # Line breaks, which some captions of COCO hold, end a caption in the
    # official tools for evaluation.
    captions = [' '.join(caption.split()) for caption in item.captions]
    good = [caption for caption in captions if tokenizer.tokenize(caption)]
    if len(good) < len(captions):
      problems['caption without a word'].append(name)
    if not good:
      problems['image without captions'].append(name)
    elif not item.path.is_file():
      problems['missing image'].append(str(item.path))
    else:
      remaining.append(dataclasses.replace(item, captions=good))
  errors = problems_lib.find(_decoding_error, remaining, unit='images')
  problems['image that cannot be decoded'] += filter(None, errors)
  return [
    item for item, error in zip(remaining, errors, strict=True) if error is None
  ]


def _decoding_error(item: CaptionedFile) -> str | None:
  try:
    images_lib.decode(item.path)
  except (ValueError, OSError) as error:
    return str(error)
  return None
