"""The embedded data set: Japanese characters, stroke by stroke, from KanjiVG.

KanjiVG is copyright Ulrich Apel, released under the Creative Commons
Attribution-Share Alike 3.0 licence (https://kanjivg.tagaini.net). It comes as
the PyPI package `kanjivg`; what is made from it carries the same licence.
"""

import functools
import importlib.metadata
import pathlib
import re
import unicodedata

import numpy as np

from sketch_rnn import file_formats
from sketch_rnn import strokes
from sketch_rnn import svg

CATEGORY = 'kanji'
_PACKAGE = 'kanjivg'
_BOX = 109  # Width and height of every file.
_TOLERANCE = 0.1  # Of lines from curves, in units of the files.


@functools.cache
def directory() -> pathlib.Path:
  """The directory of the SVG files of the installed package."""
  try:
    listed = importlib.metadata.files(_PACKAGE) or []
  except importlib.metadata.PackageNotFoundError as error:
    raise FileNotFoundError(
      'the Kanji come from the package kanjivg, which is not installed: '
      'pip install kanjivg'
    ) from error
  for file in listed:
    if file.suffix == '.svg':
      return pathlib.Path(file.locate()).parent
  raise FileNotFoundError(
    'the installed package kanjivg has no SVG files: reinstall it'
  )


def paths() -> list[pathlib.Path]:
  """The files of CJK ideographs in their usual form, in order.

  Variants, letters, digits and kana are left out.
  """
  return [
    path
    for path in sorted(directory().iterdir())
    if re.fullmatch(r'[0-9a-f]{5}\.svg', path.name)
    and unicodedata.name(_character(path), '').startswith('CJK UNIFIED')
  ]


def read(path: pathlib.Path) -> file_formats.Sketch:
  """Reads the character of a file; its id is as in Unicode, 'U+4E00'.

  Strokes are in the order in which they are written. The box of a character is
  scaled to 256 pixels, so that all keep their size, and lines are simplified as
  QuickDraw's are.
  """
  lines = [
    strokes.simplify(line.astype(np.float32) * (strokes.SIZE / _BOX))
    for line in svg.read(path, tolerance=_TOLERANCE)
  ]
  return file_formats.Sketch(name(path), strokes.from_lines(lines), CATEGORY)


def name(path: pathlib.Path) -> str:
  """The id of the character of a file, as in Unicode: 'U+4E00'."""
  return f'U+{ord(_character(path)):04X}'


def _character(path: pathlib.Path) -> str:
  return chr(int(path.stem, 16))
