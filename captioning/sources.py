"""Reads directories of captioned images, and checks all before any is used.

These files of captions are known:

  dataset_*.json      of Karpathy, who names the split of each image
  captions_*.json     of COCO
  results.csv         of Flickr30k: `name.jpg| k| caption`
  captions.txt, .csv  of Kaggle: `image,caption`
  *.token.txt         of Flickr8k and Flickr30k: `name.jpg#k<TAB>caption`

All but the first need lists of the splits, or shares of the images for each.
"""

import collections
import dataclasses
import hashlib
import os
import pathlib
import re
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

from captioning import tokenizer
from training import directories
from training import problems as problems_lib
from training import text_files
from vision import images as images_lib

SPLITS = ('train', 'validation', 'test')
# Karpathy's splits: the rest of COCO's validation images is trained on too.
_SPLITS = {
  'train': 'train',
  'restval': 'train',
  'val': 'validation',
  'test': 'test',
}
_LISTS = {'train': 'train', 'dev': 'validation', 'test': 'test'}
# Characters of a caption. People's have up to some hundreds.
_MAX_CAPTION = 10_000


@dataclasses.dataclass(frozen=True)
class CaptionedFile:
  """An image file and its human captions."""

  id: str
  path: pathlib.Path
  split: str  # 'train', 'validation' or 'test'.
  captions: list[str]


@dataclasses.dataclass
class _Captioned:
  """An image that a file of captions names, which has no splits.

  Attributes:
    id: of the image; its name where there is no other.
    captions: of the image.
  """

  id: str
  captions: list[str] = dataclasses.field(default_factory=list)


def load(
  images: str | os.PathLike,
  captions: str | os.PathLike,
  *,
  splits: str | os.PathLike | Sequence[float] | None = None,
  skip_bad: bool = False,
) -> tuple[list[CaptionedFile], str]:
  """Returns all good files, and a text that lists the problems of the others.

  Every image is decoded once.

  Args:
    images: directory of the images.
    captions: one of the files above.
    splits: directory of the three lists that go with captions without splits;
      or three shares that sum to 1, for training, validation and testing, by
      the hash of the name of each image.
    skip_bad: leave out files with problems. Otherwise each is an error.

  Raises:
    OSError: the file of captions cannot be opened.
    ValueError: lists all problems.
  """
  images, captions = pathlib.Path(images), pathlib.Path(captions)
  if not images.is_dir():
    raise ValueError(f'{images} is not a directory: pass that of the images')
  problems = problems_lib.Problems()
  karpathy = None
  if captions.suffix.lower() == '.json':
    content = text_files.read_json(captions)
    karpathy = _karpathy(captions, content)
  if karpathy is not None:
    candidates = _read_karpathy(karpathy, images, problems)
  else:
    if splits is None:
      raise ValueError(
        f'{captions} does not say which image is in which split: pass the '
        'directory of the lists (*trainImages.txt, ...) as splits, or shares '
        'such as 0.8,0.1,0.1; or a dataset_*.json'
      )
    if captions.suffix.lower() == '.json':
      named = _read_coco(captions, content, problems)
    else:
      named = _read_table(captions, problems)
    candidates = _in_splits(named, images, splits, problems)
  files = _check(candidates, problems)
  report = problems.raise_unless_skipped(
    captions, len(files), skip_bad=skip_bad
  )
  return files, report


def parse_splits(text: str) -> str | tuple[float, ...]:
  """The shares in a text such as '0.8,0.1,0.1'; other texts as they are.

  Raises:
    ValueError: they are not three that sum to 1.
  """
  if os.path.isdir(text) or not re.fullmatch(r'[\d.,\s]+', text, re.ASCII):
    return text
  return _shares([text_files.number(part.strip()) for part in text.split(',')])


def _shares(given: Sequence[float]) -> tuple[float, ...]:
  if len(given) != 3 or min(given) < 0 or abs(sum(given) - 1) > 1e-6:
    raise ValueError(
      f'{list(given)} must be three shares that sum to 1: for training, '
      'validation and testing'
    )
  return tuple(given)


# Karpathy's JSON.


def _karpathy(path: pathlib.Path, content: Any) -> list | None:
  """The list of images; None if the file is COCO's."""
  if not isinstance(content, dict) or not isinstance(
    content.get('images'), list
  ):
    raise ValueError(f'{path} is not a JSON object with a list `images`')
  return None if 'annotations' in content else content['images']


def _read_karpathy(records, images, problems) -> Iterator[CaptionedFile]:
  files = directories.Files(images)
  names = collections.Counter(
    record['filename']
    for record in records
    if isinstance(record, dict) and isinstance(record.get('filename'), str)
  )
  for i, record in enumerate(records):
    where = f'images[{i}]'
    try:
      name, split = _text(record, 'filename'), record['split']
      folder = record.get('filepath') or ''
      captions = _captions(record['sentences'])
      image_id = _id(record, 'cocoid', _id(record, 'imgid', None))
    except (TypeError, KeyError) as error:
      problems['no such field, or of another type'].append(f'{where}: {error}')
      continue
    if not isinstance(split, str) or split not in _SPLITS:
      problems['unknown split'].append(
        f'{where}, {name}: {text_files.shown(split)}'
      )
      continue
    try:
      path = files.find(folder, name)
    except ValueError as error:
      problems['file that is not in the directory of the images'].append(
        f'{where}: {error}'
      )
      continue
    if image_id is None:  # The same name may be in many folders.
      image_id = f'{folder}/{name}' if names[name] > 1 and folder else name
    yield CaptionedFile(image_id, path, _SPLITS[split], captions)


def _captions(sentences: Any) -> list[str]:
  if not isinstance(sentences, list):
    raise TypeError(f'sentences is {text_files.shown(sentences)}, not a list')
  return [_text(sentence, 'raw').strip() for sentence in sentences]


def _text(record: Any, field: str) -> str:
  """A field that is text. Raises a KeyError or a TypeError."""
  if not isinstance(record, dict):
    raise TypeError(f'{text_files.shown(record)} is no object')
  value = record[field]
  if not isinstance(value, str):
    raise TypeError(f'{field} is {text_files.shown(value)}, not text')
  return value


def _id(record: dict, field: str, default: str | None) -> str | None:
  """An id as text; the default if it is absent or null."""
  value = record.get(field)
  if value is None:
    return default
  if isinstance(value, bool) or not isinstance(value, str | int):
    raise TypeError(f'{field} is {text_files.shown(value)}, not a number')
  return str(value)


# Files without splits: name of the image -> its captions.


def _read_coco(path, content, problems) -> dict[str, _Captioned]:
  if not isinstance(content['annotations'], list):
    raise ValueError(f'{path}: `annotations` is not a list')
  by_id, named = {}, {}
  for i, record in enumerate(content['images']):
    try:
      image_id, name = _id(record, 'id', ''), _text(record, 'file_name')
    except (AttributeError, TypeError, KeyError) as error:
      problems['no such field, or of another type'].append(
        f'images[{i}]: {error}'
      )
      continue
    if image_id in by_id or name in named:
      problems['image or id that was there before'].append(
        f'images[{i}]: {name} (id {image_id})'
      )
      continue
    by_id[image_id] = named[name] = _Captioned(image_id)
  for i, record in enumerate(content['annotations']):
    try:
      image_id, caption = _id(record, 'image_id', ''), _text(record, 'caption')
      by_id[image_id].captions.append(caption.strip())
    except (AttributeError, TypeError, KeyError) as error:
      problems['no such field, or of another type'].append(
        f'annotations[{i}]: {error}'
      )
  return named


def _read_table(path, problems) -> dict[str, _Captioned]:
  """The table of Kaggle, of Flickr30k, or the lines of Flickr8k."""
  text = text_files.read(path)
  first = text.partition('\n')[0].lower().replace(' ', '')
  if first.startswith('image_name|'):
    rows, form = _split_lines(text, _bars, skip=1), 'name.jpg| k| caption'
  elif first in ('image,caption', 'image_name,caption', 'filename,caption'):
    rows, form = _kaggle(path), 'name.jpg,caption'
  else:
    rows, form = _split_lines(text, _tabs), 'name.jpg#k<TAB>caption'
  named = {}
  for number, line, found in rows:
    if found is None:
      problems[f'not of the form {form}'].append(
        f'line {number}: {line[:60]!r}'
      )
      continue
    name, caption = found
    named.setdefault(name, _Captioned(name)).captions.append(caption)
  return named


def _split_lines(text: str, split: Callable, *, skip: int = 0) -> Iterator:
  # Unlike `splitlines` this leaves odd characters inside captions alone.
  lines = text.rstrip('\n').split('\n')
  for number, line in enumerate(lines, start=1):
    if number > skip:
      yield number, line, split(line)


def _tabs(line: str) -> tuple[str, str] | None:
  name, tab, caption = line.partition('\t')
  return (name.rpartition('#')[0], caption) if tab and '#' in name else None


def _bars(line: str) -> tuple[str, str] | None:
  # The published file has one line without its second bar.
  match = re.fullmatch(r'\s*([^|]+?)\s*\|\s*(\d+)\s*[|\s](.*)', line)
  return (match[1], match[3].strip()) if match else None


def _kaggle(path: pathlib.Path) -> Iterator:
  for number, row in text_files.rows(path)[1:]:
    # Commas of captions without quotes.
    name, caption = row[0].strip(), ','.join(row[1:]).strip()
    good = (name, caption) if len(row) > 1 and name else None
    yield number, ','.join(row), good


def _in_splits(named, images, splits, problems) -> Iterator[CaptionedFile]:
  if isinstance(splits, str | os.PathLike):
    yield from _listed(
      named, images, _read_lists(pathlib.Path(splits)), problems
    )
    return
  shares, files = _shares(splits), directories.Files(images)
  for name, captioned in named.items():
    try:
      path = files.find(name)
    except ValueError as error:
      problems['file that is not in the directory of the images'].append(
        str(error)
      )
      continue
    yield CaptionedFile(
      captioned.id, path, split_of(name, shares), captioned.captions
    )


def split_of(name: str, shares: Sequence[float]) -> str:
  """The split of an image by the hash of its name."""
  digest = hashlib.sha256(name.encode()).digest()
  position = int.from_bytes(digest[:8], 'big') / 2**64
  if position < shares[0]:
    return 'train'
  return 'validation' if position < shares[0] + shares[1] else 'test'


def _read_lists(directory: pathlib.Path) -> dict[str, list[str]]:
  """Split -> names of its images, one a line; they may have blanks."""
  names = {}
  for word, split in _LISTS.items():
    found = directories.matching(directory, f'*{word}Images.txt')
    if len(found) != 1:
      raise ValueError(
        f'{directory} must hold one file *{word}Images.txt, not {len(found)}'
      )
    names[split] = [name for _, name in text_files.lines(found[0])]
  return names


def _listed(named, images, lists, problems) -> Iterator[CaptionedFile]:
  listed = {name for names in lists.values() for name in names}
  files = directories.Files(images)
  paths = {}
  for name in sorted(listed | set(named)):
    try:
      paths[name] = files.find(name)
    except ValueError as error:
      problems['file that is not in the directory of the images'].append(
        str(error)
      )
  found = {name for name, path in paths.items() if path.is_file()}
  known = {paths[name] for name in listed & found}
  others = [
    path.name
    for path in directories.entries(images)
    if path.suffix.lower() in images_lib.SUFFIXES and path not in known
  ]
  problems['in a split list, but no such image'] += sorted(
    (listed & set(paths)) - found
  )
  problems['an image in no split list'] += others
  problems['captions, but no such image'] += sorted(
    (set(named) & set(paths)) - found
  )
  for split, names in lists.items():
    for name in names:
      if name in found:
        captioned = named.get(name, _Captioned(name))
        yield CaptionedFile(
          captioned.id, paths[name], split, captioned.captions
        )


# All of them.


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
    short = [caption for caption in captions if len(caption) <= _MAX_CAPTION]
    if len(short) < len(captions):
      problems[f'caption of more than {_MAX_CAPTION} characters'].append(name)
    good = [caption for caption in short if tokenizer.tokenize(caption)]
    if len(good) < len(short):
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
