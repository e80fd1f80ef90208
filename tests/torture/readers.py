"""Damaged files for every reader."""

import functools
import pathlib
from collections.abc import Iterator

import numpy as np
import test_readers

from torture import table

_SHOWN = 3  # Failures of one reader.
_CHECK = 'a damaged file'


def damage(
  name: str,
  count: int,
  directory: pathlib.Path,
  shared: pathlib.Path,
  rng: np.random.Generator,
) -> Iterator[table.Outcome]:
  """Each is read, or raises the documented error, which names the file.

  Whether what is read is what was meant is not checked.
  """
  del shared
  right, wrong = 0, 0
  for damaged, problem in test_readers.damaged_reads(
    name, directory, count, rng
  ):
    if not problem:
      right += 1
      continue
    wrong += 1
    kept = directory / f'wrong-{wrong}-{name}'
    kept.write_bytes(damaged)
    if wrong <= _SHOWN:
      text = f'{kept.name}: {problem[:500]}'
      yield table.Outcome(_CHECK, 'wrong', text=text)
  yield table.Outcome(_CHECK, 'right', right)
  if wrong > _SHOWN:
    text = f'{wrong - _SHOWN} more'
    yield table.Outcome(_CHECK, 'wrong', wrong - _SHOWN, text)


def cases(*, quick: bool) -> list[table.Case]:
  """Ten thousand files for each reader."""
  count = 25 if quick else 10_000
  return [
    table.Case(f'readers/{name}', functools.partial(damage, name, count))
    for name in test_readers.READERS
  ]
