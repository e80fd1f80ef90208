"""Cases, their outcomes, and the table of both."""

import collections
import dataclasses
import pathlib
import zlib
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence

import numpy as np

# right   what is promised
# silent  another result than it should be, without an error
# wrong   an error, but not the one that is promised, or no end
# missed  nothing was tried: the run was over before
KINDS = ('right', 'silent', 'wrong', 'missed')


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What came of one attempt.

  Attributes:
    check: a row of the table.
    kind: one of `KINDS`.
    count: number of attempts that came out alike.
    text: what was seen, unless it was right.
  """

  check: str
  kind: str
  count: int = 1
  text: str = ''


@dataclasses.dataclass(frozen=True)
class Case:
  """Some attempts that are repeated together.

  Attributes:
    name: identifies it, and its random numbers.
    run: given an empty directory, the directory that all cases share, and
      random numbers, it returns the outcomes.
  """

  name: str
  run: Callable[
    [pathlib.Path, pathlib.Path, np.random.Generator], Iterable[Outcome]
  ]


@dataclasses.dataclass(frozen=True)
class Result:
  """The outcomes of a case."""

  name: str
  outcomes: Sequence[Outcome]
  seconds: float


def generator(seed: int, name: str) -> np.random.Generator:
  """The random numbers of a case, whichever others there are."""
  return np.random.default_rng([seed, zlib.crc32(name.encode())])


def how_to_repeat(seed: int, name: str) -> str:
  return f"make torture TORTURE='--seed={seed} --case={name}'"


def rows(results: Iterable[Result]) -> list[dict]:
  """The counts of each check, in the order of their first outcomes."""
  counts = collections.defaultdict(lambda: dict.fromkeys(KINDS, 0))
  for result in results:
    for outcome in result.outcomes:
      counts[outcome.check][outcome.kind] += outcome.count
  return [
    {'check': check, 'tried': sum(n.values()) - n['missed'], **n}
    for check, n in counts.items()
  ]


def failures(results: Iterable[Result], seed: int) -> list[dict]:
  """What was not right, and how to repeat it."""
  return [
    {
      'case': result.name,
      'check': outcome.check,
      'kind': outcome.kind,
      'count': outcome.count,
      'text': outcome.text,
      'repeat': how_to_repeat(seed, result.name),
    }
    for result in results
    for outcome in result.outcomes
    if outcome.kind in ('silent', 'wrong')
  ]


def markdown(table: Sequence[dict]) -> str:
  """The rows as a table, and their sum."""
  names = ('tried', 'right', 'silent', 'wrong')
  total = {name: sum(row[name] for row in table) for name in names}
  lines = [
    '| check | tried | right | silent | wrong |',
    '|---|---|---|---|---|',
  ]
  for row in (*table, {'check': 'all', **total}):
    cells = (row['check'], *(f'{row[name]:,}' for name in names))
    lines.append(f'| {" | ".join(cells)} |')
  return '\n'.join(lines)
