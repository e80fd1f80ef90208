"""Damaged files for every reader."""

import functools
import pathlib
import resource
from collections.abc import Iterator

import numpy as np
import test_readers

from torture import table

_SHOWN = 3  # Failures of one reader.
_CHECK = 'a damaged file'
_MAX_GIGABYTES = 2.0  # Of all files of a reader, at any time.


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
  right, wrong, before = 0, 0, _peak()
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
  if _peak() > before + _MAX_GIGABYTES:
    text = f'the memory grew from {before:.1f} to {_peak():.1f} GB'
    yield table.Outcome(_CHECK, 'wrong', text=text)
  if wrong > _SHOWN:
    text = f'{wrong - _SHOWN} more'
    yield table.Outcome(_CHECK, 'wrong', wrong - _SHOWN, text)


def _peak():
  """The largest memory of this process so far, in GB."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def cases(*, quick: bool) -> list[table.Case]:
  """Ten thousand files for each reader."""
  count = 25 if quick else 10_000
  return [
    table.Case(f'readers/{name}', functools.partial(damage, name, count))
    for name in test_readers.READERS
  ]
