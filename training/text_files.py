"""Reads text and JSON files of any origin: UTF-8, with limits.

A byte-order mark at the beginning is left out, and lines may end as on any
system. A file in another encoding is an error that names the encoding and the
line. Numbers and nesting that no data set has are errors too, since they end in
errors of NumPy or of Python's stack otherwise.
"""

import codecs
import csv
import io
import json
import os
import pathlib
import re
import reprlib
from collections.abc import Iterator
from typing import Any

import numpy as np

# Captions of COCO in Karpathy's format, the largest file known, are 144 MB.
MAX_BYTES = 200_000_000
# Values of a JSON text. That file has 9 million; a value takes up to 100 bytes
# of memory.
MAX_VALUES = 12_000_000
# Lists and objects within others. Known formats have 6.
MAX_NESTING = 50
# The digits of a number. NumPy reads 64 bits, which are 20.
_LONG_NUMBER = re.compile(r'\d{20}')
# Characters above 16 bits are written as two halves of this form.
_HALF = re.compile(r'\\u[dD][89a-fA-F]')
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_CHUNK = 2**20  # Bytes of a JSON text that are scanned at once.
_NESTING = np.zeros(256, np.int8)
_NESTING[[ord('['), ord('{')]] = 1
_NESTING[[ord(']'), ord('}')]] = -1
# Byte-order marks; that of UTF-32 begins like that of UTF-16.
_MARKS = {
  codecs.BOM_UTF32_LE: 'UTF-32',
  codecs.BOM_UTF32_BE: 'UTF-32',
  codecs.BOM_UTF16_LE: 'UTF-16',
  codecs.BOM_UTF16_BE: 'UTF-16',
}
_NAMES = {'UTF-16': 'UTF-16', 'UTF-32': 'UTF-32', 'Windows': 'WINDOWS-1252'}


def read(path: str | os.PathLike, *, max_bytes: int = MAX_BYTES) -> str:
  """The text of a file, with a line feed at the end of lines.

  Raises:
    OSError: the file cannot be opened.
    ValueError: it is too large or not UTF-8.
  """
  text = decode(_contents(path, max_bytes), os.fspath(path))
  return text.replace('\r\n', '\n').replace('\r', '\n')


def decode(contents: bytes, name: str, *, line: int = 1) -> str:
  """Decodes UTF-8 without its mark.

  Args:
    contents: of a file.
    name: of the file, for the error.
    line: number of the first line.

  Raises:
    ValueError: the contents are not UTF-8.
  """
  for mark, encoding in _MARKS.items():
    if contents.startswith(mark):
      raise ValueError(_not_utf8(name, line, encoding, 'byte-order mark'))
  contents = contents.removeprefix(codecs.BOM_UTF8)
  zero = contents.find(b'\0')
  try:
    text = contents.decode('utf-8')
  except UnicodeDecodeError as error:
    if 0 <= zero < 8:
      raise ValueError(_not_utf8(name, line, 'UTF-16', 'zero byte')) from None
    line += contents.count(b'\n', 0, error.start)
    byte = f'byte 0x{contents[error.start]:02x}'
    raise ValueError(_not_utf8(name, line, 'Windows', byte)) from None
  if zero >= 0:
    line += contents.count(b'\n', 0, zero)
    raise ValueError(_not_utf8(name, line, 'UTF-16', 'zero byte'))
  return text


def lines(path: str | os.PathLike) -> list[tuple[int, str]]:
  """The lines of a file that are not blank, with their numbers from 1.

  Blanks at both ends are left out. Raises as `read`.
  """
  split = enumerate(read(path).split('\n'), start=1)
  return [(number, line.strip()) for number, line in split if line.strip()]


def rows(
  path: str | os.PathLike, delimiter: str = ','
) -> list[tuple[int, list[str]]]:
  """The rows of a table with quotes, as CSV, with the numbers of their lines.

  Raises:
    OSError: the file cannot be opened.
    ValueError: it is too large, not UTF-8, or a quote is never closed.
  """
  reader = csv.reader(io.StringIO(read(path)), delimiter=delimiter, strict=True)
  found = []
  number = 1
  try:
    for row in reader:
      if row:
        found.append((number, row))
      number = reader.line_num + 1
  except csv.Error as error:
    raise ValueError(f'{path}: line {number}: {error}') from error
  return found


def numbered(path: str | os.PathLike) -> Iterator[tuple[int, bytes]]:
  """Yields the lines of a file of any size as bytes, with their numbers.

  For files with one record a line, which `decode` and `from_json` then read.

  Raises:
    OSError: the file cannot be opened.
    ValueError: a line is too long.
  """
  with open(path, 'rb') as file:
    number = 0
    while line := file.readline(MAX_BYTES + 1):
      number += 1
      if len(line) > MAX_BYTES:
        raise ValueError(
          f'{path}: line {number} is longer than {MAX_BYTES} bytes'
        )
      yield number, line


def read_json(path: str | os.PathLike) -> Any:
  """The value of a JSON file.

  Raises:
    OSError: the file cannot be opened.
    ValueError: it is too large, not UTF-8, or not JSON within the limits.
  """
  return from_json(_contents(path, MAX_BYTES), os.fspath(path))


def from_json(contents: bytes, name: str, *, line: int = 1) -> Any:
  """The value of a JSON text in UTF-8.

  Args:
    contents: the text.
    name: of the file, for the error.
    line: number of its first line in the file.

  Raises:
    ValueError: it is not UTF-8, or not JSON within the limits.
  """
  values = contents.count(b',') + contents.count(b':')
  if values > MAX_VALUES:
    raise ValueError(f'{name} has more than {MAX_VALUES} values: split it')
  _check_nesting(contents, name, line)
  text = decode(contents, name, line=line)
  del contents
  parse_int = _parse_int if _LONG_NUMBER.search(text) else None
  try:
    value = json.loads(text, parse_int=parse_int)
  except json.JSONDecodeError as error:
    raise ValueError(
      f'{name} is not JSON: line {line + error.lineno - 1}, column '
      f'{error.colno}: {error.msg}'
    ) from None
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{name}: line {line}: {error}') from None
  half = _HALF.search(text)
  if half:
    try:
      json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
      at = line + text.count('\n', 0, half.start())
      raise ValueError(
        f'{name}: line {at} or later has half of a character ({half[0]}..)'
      ) from None
  return value


def shown(value: Any) -> str:
  """A value of a file for a message, shortened if it is long."""
  return reprlib.repr(value)


def reason(error: Exception) -> str:
  """The text of a library's error, shortened: it may quote the whole file."""
  text = str(error)
  return text if len(text) <= 300 else f'{text[:300]} ...'


def number(text: str) -> float:
  """A finite number; `float` also takes infinity, NaN, `1_000` and `१`.

  Raises:
    ValueError: it is none; the message shows it.
  """
  if not re.fullmatch(r'[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?', text, re.ASCII):
    raise ValueError(f'{shown(text)} is not a number')
  value = float(text)
  if not np.isfinite(value):
    raise ValueError(f'{shown(text)} is too large a number')
  return value


def _contents(path: str | os.PathLike, max_bytes: int) -> bytes:
  path = pathlib.Path(path)
  with path.open('rb') as file:
    contents = file.read(max_bytes + 1)
  if len(contents) > max_bytes:
    raise ValueError(f'{path} is larger than {max_bytes} bytes: split it')
  return contents


def _not_utf8(name: str, line: int, encoding: str, byte: str) -> str:
  known = {'Windows': 'perhaps Windows-1252'}.get(encoding, encoding)
  return (
    f'{name}: line {line} is not UTF-8 but {known} ({byte}): convert the file, '
    f'for example with `iconv -f {_NAMES[encoding]} -t UTF-8`'
  )


def _parse_int(digits: str) -> int:
  if len(digits) > 20 or not -(2**63) <= int(digits) < 2**64:
    raise ValueError(f'the number {shown(digits)} does not fit into 64 bits')
  return int(digits)


def _check_nesting(contents: bytes, name: str, line: int):
  for with_strings in (True, False):
    deepest = depth = 0
    for start in range(0, len(contents), _CHUNK):
      part = np.frombuffer(contents[start : start + _CHUNK], np.uint8)
      depths = np.cumsum(_NESTING[part], dtype=np.int32)
      deepest = max(deepest, depth + int(depths.max()))
      depth += int(depths[-1])
    if deepest <= MAX_NESTING:
      return
    if with_strings:  # Brackets in strings do not count.
      contents = _STRING.sub(b'', contents)
  raise ValueError(
    f'{name}: line {line}: lists and objects are nested more than '
    f'{MAX_NESTING} times'
  )
