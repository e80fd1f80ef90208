"""Reads files of drawings, and checks every drawing.

  .npz     the published format: arrays `train`, `valid` (or `validation`,
           `val`) and `test` of stroke-3 drawings, int16[n, 3] each. There may
           be `words`, too, and `label_train` and so on, the number of a word
           for each drawing.
  .ndjson  QuickDraw's, one drawing a line: simplified (lines [[x...], [y...]],
           taken as they are) or raw ([[x...], [y...], [t...]], brought to 256
           pixels, resampled and simplified as QuickDraw does it).
  .svg     one drawing: paths and shapes, brought to 256 pixels and simplified.
  .json    one drawing: lines [[[x, y], ...], ...] taken as they are, or the
           list of lines that QuickDraw calls `drawing`.

Of .npz files the category of a drawing is its word, or the file's stem; of
.ndjson files its word; of the others the name of their directory.
"""

import codecs
import dataclasses
import itertools
import os
import pathlib
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import logging

from sketch_rnn import arrays
from sketch_rnn import strokes as strokes_lib
from sketch_rnn import svg
from training import directories
from training import text_files

SUFFIXES = ('.npz', '.ndjson', '.svg', '.json')
# The names of the published files -> ours.
_SPLITS = {
  'train': 'train',
  'valid': 'validation',
  'validation': 'validation',
  'val': 'validation',
  'test': 'test',
}
# Arrays beside them that published files have, by their beginnings.
_OTHERS = ('words', 'label_', 'png_', 'std_', 'mean_')
# Offsets become single precision, whose squares are finite up to here.
_MAX_COORDINATE = 1e15
_MAX_LISTED = 20


@dataclasses.dataclass(frozen=True, eq=False)
class Sketch:
  """A drawing of a file."""

  id: str
  strokes: np.ndarray  # f32[N, 3]; see strokes.py.
  category: str
  split: str | None = None  # 'train', 'validation' or 'test'; None: unknown.


def read(path: str | os.PathLike, *, skip_bad: bool = False) -> list[Sketch]:
  """Reads the drawings of a file.

  Raises:
    ValueError: the file cannot be read, or no drawing is left, or (unless
      `skip_bad`) some are malformed; the message lists these.
  """
  sketches, problems = scan(path)
  if problems and not skip_bad:
    raise ValueError(
      f'{os.fspath(path)}: {len(problems)} malformed drawings:\n'
      f'{describe(problems)}'
    )
  if not sketches:
    raise ValueError(
      f'{os.fspath(path)}: no drawing in it\n{describe(problems)}'.strip()
    )
  return sketches


def scan(path: str | os.PathLike) -> tuple[list[Sketch], list[str]]:
  """The well-formed drawings of a file, and the errors of the others.

  Raises:
    ValueError: the file as a whole cannot be read.
  """
  path = pathlib.Path(path)
  readers = {
    '.npz': _read_npz,
    '.ndjson': _read_ndjson,
    '.svg': _read_svg,
    '.json': _read_json,
  }
  suffix = path.suffix.lower()
  if suffix not in readers:
    raise ValueError(
      f'{path} is not a file of drawings: pass one of {", ".join(readers)}'
    )
  sketches, problems = [], []
  for where, sketch in readers[suffix](path):
    try:
      if isinstance(sketch, str):  # The error of a malformed drawing.
        raise ValueError(sketch)
      strokes_lib.check(sketch.strokes)
    except ValueError as error:
      problems.append(f'{path}: {where}: {error}')
    else:
      strokes = np.asarray(sketch.strokes, np.float32)
      sketches.append(dataclasses.replace(sketch, strokes=strokes))
  return sketches, problems


def load(
  inputs: Iterable[str | os.PathLike], *, skip_bad: bool = False
) -> tuple[list[Sketch], str]:
  """All well-formed drawings of files, and a report on the others.

  Args:
    inputs: files of drawings, or directories that contain some.
    skip_bad: leave malformed drawings out; otherwise they are an error.

  Raises:
    ValueError: the message lists every problem.
  """
  sketches, problems, seen = [], [], set()
  for path in _paths(inputs):
    try:
      found, wrong = scan(path)
    except ValueError as error:
      problems.append(str(error))
      continue
    problems += wrong
    for sketch in found:
      if sketch.id in seen:
        problems.append(f'{path}: id {sketch.id!r} occurs twice')
      else:
        seen.add(sketch.id)
        sketches.append(sketch)
  report = describe(problems)
  if problems and not skip_bad:
    raise ValueError(
      'correct the files, or leave these drawings out with --skip_bad. '
      f'{len(problems)} problems:\n{report}'
    )
  if not sketches:
    raise ValueError(f'no drawing is left.\n{report}')
  return sketches, report


def _paths(inputs) -> list[pathlib.Path]:
  paths = []
  for path in map(pathlib.Path, inputs):
    if path.is_dir():
      inside = [
        p for p in directories.entries(path) if p.suffix.lower() in SUFFIXES
      ]
      if not inside:
        raise ValueError(
          f'{path} has no files of drawings: {", ".join(SUFFIXES)}'
        )
      paths += inside
    elif path.is_file():
      paths.append(path)
    else:
      raise ValueError(f'{path} is neither a file nor a directory')
  return paths


def describe(problems: list[str]) -> str:
  """Lists the first problems, and counts the rest."""
  lines = problems[:_MAX_LISTED]
  if len(problems) > _MAX_LISTED:
    lines = [*lines, f'and {len(problems) - _MAX_LISTED} more']
  return '\n'.join(lines)


def from_lines(lines: Iterable[np.ndarray]) -> np.ndarray:
  """Converts lines in any units to a drawing like QuickDraw's.

  It is scaled to 256 pixels, and every line is simplified.
  """
  return strokes_lib.from_lines(
    [strokes_lib.simplify(line) for line in strokes_lib.fit(list(lines))]
  )


def without_first_move(sketch: Sketch) -> Sketch:
  """The drawing, whose first row had led to its first point without ink."""
  lines = strokes_lib.to_lines(sketch.strokes, from_origin=False)
  return dataclasses.replace(sketch, strokes=strokes_lib.from_lines(lines))


# Each yields the index of a drawing in the file, and the drawing or an error.
_Found = Iterator[tuple[str, Sketch | str]]


def _read_npz(path: pathlib.Path) -> _Found:
  contents = arrays.read_npz(path)
  present = [name for name in _SPLITS if name in contents]
  if not present:
    raise ValueError(
      f'{path} has none of the arrays train, valid and test, only '
      f'{", ".join(contents) or "nothing"}'
    )
  splits = [_SPLITS[name] for name in present]
  if len(set(splits)) < len(splits):
    raise ValueError(f'{path} has one split twice: {", ".join(present)}')
  unknown = [
    name
    for name in contents
    if name not in present and not name.startswith(_OTHERS)
  ]
  if unknown:
    logging.warning(
      '%s: not read, since no split has this name: %s',
      path,
      ', '.join(unknown[:_MAX_LISTED]),
    )
  words = contents.get('words')
  for name in present:
    drawings = contents[name]
    if drawings.ndim == 0:
      raise ValueError(f'{path}: array {name!r} is no list of drawings')
    categories = [path.stem] * len(drawings)
    if words is not None:
      categories = _categories(path, name, contents, len(drawings))
    for i, (drawing, category) in enumerate(
      zip(drawings, categories, strict=True)
    ):
      where = f'{name}[{i}]'
      if not isinstance(drawing, np.ndarray):
        yield where, f'{type(drawing).__name__} instead of an array [N, 3]'
        continue
      if drawing.dtype == object:  # Arrays of Python's numbers.
        try:
          drawing = drawing.astype(np.float64)
        except (TypeError, ValueError):
          yield where, 'an array of objects instead of numbers'
          continue
      split = _SPLITS[name]
      sketch_id = f'{path.stem}-{split}-{i:05d}'
      yield where, Sketch(sketch_id, drawing, category, split)


def _categories(path, name, contents, count) -> list[str]:
  words, labels = contents['words'], contents.get(f'label_{name}')
  if labels is None or labels.dtype.kind not in 'iu' or len(labels) != count:
    raise ValueError(
      f'{path}: beside `words` there must be label_{name}, one number for '
      f'each of the {count} drawings'
    )
  if len(labels) and not 0 <= labels.min() <= labels.max() < len(words):
    raise ValueError(f'{path}: label_{name} has numbers of no word')
  if words.ndim != 1:
    raise ValueError(f'{path}: `words` is {list(words.shape)}, not a list')
  texts = [str(word) for word in words]
  return [texts[label] for label in labels]


def _read_ndjson(path: pathlib.Path) -> _Found:
  for number, text in text_files.numbered(path):
    where = f'line {number}'
    if number == 1:
      text = text.removeprefix(codecs.BOM_UTF8)
    if not text.strip():
      continue
    try:
      record = text_files.from_json(text, os.fspath(path), line=number)
      strokes = _quickdraw(record['drawing'])
      sketch_id = record.get('key_id', f'{path.stem}-{number:06d}')
      category = record.get('word', path.stem)
      if not isinstance(sketch_id, str | int) or not isinstance(category, str):
        raise TypeError('key_id or word')
    except (KeyError, TypeError, AttributeError) as error:
      yield where, f'no such field, or of another type: {error!r}'
    except ValueError as error:  # JSON's own, too.
      message = str(error).removeprefix(f'{path}').removeprefix(': ').lstrip()
      yield where, message.removeprefix(f'{where}: ')
    else:
      yield where, Sketch(str(sketch_id), strokes, category)


def _quickdraw(drawing: list) -> np.ndarray:
  """`drawing` of a line, simplified or raw -> f32[N, 3]."""
  lines, raw = [], False
  for i, line in enumerate(drawing):
    if len(line) not in (2, 3) or len({len(values) for values in line}) > 1:
      raise ValueError(
        f'drawing[{i}] is not [[x...], [y...]] or [[x...], [y...], [t...]] '
        'with equally many numbers'
      )
    raw = raw or len(line) == 3
    points = _numbers(line[:2], f'drawing[{i}]').T
    if len(points):
      lines.append(points)
  if raw and lines:
    lines = [
      strokes_lib.simplify(strokes_lib.resample(line))
      for line in strokes_lib.fit(lines)
    ]
  return strokes_lib.from_lines(lines)


def _numbers(values: list, name: str) -> np.ndarray:
  """Lists of equally many numbers -> f64[n, m]."""
  for value in itertools.chain.from_iterable(values):
    # A bool is an int, too.
    if not isinstance(value, int | float) or value is True or value is False:
      raise ValueError(
        f'{text_files.shown(value)} instead of a number in {name}'
      )
  numbers = np.array(values, np.float64)
  if not np.all(np.abs(numbers) <= _MAX_COORDINATE):  # NaN, too.
    raise ValueError(
      f'NaN, infinity or a number beyond {_MAX_COORDINATE:g} in {name}'
    )
  return numbers


def _read_svg(path: pathlib.Path) -> _Found:
  strokes = from_lines(svg.read(path))
  yield 'drawing', Sketch(path.stem, strokes, path.resolve().parent.name)


def _read_json(path: pathlib.Path) -> _Found:
  drawing = text_files.read_json(path)
  try:
    strokes = _json_drawing(drawing)
  except ValueError as error:
    raise ValueError(
      f'{path} is not a list of lines [[[x, y], ...], ...]: {error}'
    ) from error
  yield 'drawing', Sketch(path.stem, strokes, path.resolve().parent.name)


def _json_drawing(drawing: Any) -> np.ndarray:
  """Lines of points, or those of QuickDraw -> f32[N, 3].

  A line of points is [[x, y], ...], one of QuickDraw [[x...], [y...]] or
  [[x...], [y...], [t...]]. They differ unless all lists have two numbers; then
  they are points.
  """
  if not isinstance(drawing, list):
    raise ValueError(f'it is {text_files.shown(drawing)}')
  for i, line in enumerate(drawing):
    if not isinstance(line, list) or not all(
      isinstance(values, list) for values in line
    ):
      hint = ''
      if isinstance(line, list) and len(line) in (2, 3):
        hint = '. If it is one line of points, put [ ] around it'
      raise ValueError(f'[{i}] is {text_files.shown(line)}{hint}')
  points = all(len(point) == 2 for line in drawing for point in line)
  transposed = all(
    len(line) in (2, 3) and len({len(values) for values in line}) == 1
    for line in drawing
  )
  if not points and not transposed:
    raise ValueError(
      'its lines are neither of points [x, y] nor, as in QuickDraw, of equally '
      'many x and y'
    )
  if not points:
    return _quickdraw(drawing)
  return strokes_lib.from_lines(
    [_numbers(line, f'[{i}]').reshape(-1, 2) for i, line in enumerate(drawing)]
  )
