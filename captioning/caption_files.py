"""Reads captions from files in the formats that people have.

Nothing here may import JAX: `captioning.score` starts in a moment.
"""

import collections
import os
import pathlib
import re
from collections.abc import Iterable
from typing import Any

from training import text_files

# Names of the column of the image, and of the caption, of a table.
_IDS = ('image_id', 'id', 'image', 'image_name', 'file_name', 'filename')
_CAPTIONS = ('caption', 'comment', 'text', 'sentence', 'raw')
# The number of a caption after the name of its image, as Flickr8k has it.
_NUMBER = re.compile(r'#\d+$')


def read(path: str | os.PathLike) -> dict[str, list[str]]:
  """Reads the captions of each image, in the order of the file.

  - JSON: COCO's results `[{"image_id": 1, "caption": "..."}]` or annotations
    `{"annotations": [...]}`; an object `{"1": "..."}` or `{"1": ["..."]}`; a
    list of captions, or of lists of captions, whose images are their positions.
  - .csv, .tsv: a table with a header, such as `image_id,caption`; an image may
    have several rows.
  - .txt: lines `image<TAB>caption` or `image#0<TAB>caption`, or one caption a
    line, whose images are the numbers of their lines from 0.

  Ids are text: 1, 1.0 and "1" are one image.

  Raises:
    OSError: the file cannot be read.
    ValueError: it has another form; the message says which there are.
  """
  path = pathlib.Path(path)
  ending = path.suffix.lower()
  delimiter = {'.csv': ',', '.tsv': '\t'}.get(ending)
  if delimiter:
    pairs = _table(text_files.rows(path, delimiter), delimiter)
  elif ending == '.txt':
    pairs = _lines(text_files.read(path))
  else:
    pairs = _from_json(text_files.read_json(path))
  found = collections.defaultdict(list)
  try:
    for key, caption in pairs:
      found[key].append(caption)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error
  if not found:
    raise ValueError(f'{path} has no captions')
  return dict(found)


def _from_json(content: Any) -> Iterable[tuple[str, str]]:
  if isinstance(content, dict) and isinstance(content.get('annotations'), list):
    content = content['annotations']
  if isinstance(content, list):
    if content and all(isinstance(item, dict) for item in content):
      for item in content:
        yield _field(item, _IDS), _caption(item)
      return
    content = dict(enumerate(content))
  if not isinstance(content, dict):
    raise ValueError(f'captions must be a list or an object; {_FORMS}')
  for key, captions in content.items():
    if isinstance(captions, str | dict):
      captions = [captions]
    if not isinstance(captions, list):
      raise ValueError(f'the captions of {key!r} are {captions!r}; {_FORMS}')
    if not captions:
      raise ValueError(f'image {str(key)!r} has no captions: leave it out')
    for caption in captions:
      yield str(key), _caption(caption)


_FORMS = (
  'the forms are [{"image_id": 1, "caption": "..."}], {"annotations": [...]}, '
  '{"1": ["...", "..."]}, ["..."] and [["...", "..."]]'
)


def _caption(item: Any) -> str:
  caption = _field(item, _CAPTIONS) if isinstance(item, dict) else item
  if not isinstance(caption, str):
    raise ValueError(f'{caption!r} is no caption; {_FORMS}')
  return caption


def _field(item: dict[str, Any], names: Iterable[str]) -> str:
  for name in names:
    value = item.get(name)
    if isinstance(value, float) and value.is_integer():
      value = int(value)  # As some programs write ids.
    if value is not None:
      return str(value)
  raise ValueError(
    f'{item!r} has none of the fields {", ".join(names)}; {_FORMS}'
  )


def _table(
  rows: list[tuple[int, list[str]]], delimiter: str
) -> Iterable[tuple[str, str]]:
  _, header = rows[0] if rows else (1, [])
  names = [name.strip().lower() for name in header]
  columns = []
  for known in (_IDS, _CAPTIONS):
    column = next((name for name in known if name in names), None)
    if column is None:
      raise ValueError(
        f'the first line must name the columns, such as image_id{delimiter}'
        f'caption, one of {", ".join(known)} among them, not '
        f'{", ".join(header)}'
      )
    columns.append(names.index(column))
  for number, row in rows[1:]:
    if len(row) != len(names):
      raise ValueError(
        f'line {number} has {len(row)} columns, not {len(names)}'
        ': put captions with commas between quotes'
      )
    key, caption = (row[column] for column in columns)
    yield _NUMBER.sub('', key.strip()), caption


def _lines(text: str) -> Iterable[tuple[str, str]]:
  # Unlike `splitlines` this leaves odd characters inside captions alone.
  lines = text.removesuffix('\n').split('\n') if text else []
  tabs = {'\t' in line for line in lines if line.strip()}
  if len(tabs) > 1:
    raise ValueError(
      'some lines have a tab between image and caption, and some have none'
    )
  for i, line in enumerate(lines):
    if tabs == {True}:
      if line.strip():
        key, _, caption = line.partition('\t')
        yield _NUMBER.sub('', key), caption
    else:  # An empty line is an empty caption.
      yield str(i), line
