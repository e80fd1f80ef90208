"""What is wrong with files: found and listed before any of them is used."""

import collections
import concurrent.futures
import os
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import tqdm

_MOST_LISTED = 20


class Problems(collections.defaultdict[str, list[str]]):
  """What is wrong -> with which files, records or lines."""

  def __init__(self):
    """Nothing is wrong yet."""
    super().__init__(list)

  def __str__(self) -> str:
    """A text that lists them, the first of each kind by name."""
    lines = []
    for problem, items in self.items():
      if items:
        lines.append(f'{problem} ({len(items)}):')
        lines += [f'  {item}' for item in items[:_MOST_LISTED]]
      if len(items) > _MOST_LISTED:
        lines.append(f'  and {len(items) - _MOST_LISTED} more')
    return '\n'.join(lines)

  def settle(
    self, place: str | os.PathLike, remaining: int, *, skip_bad: bool
  ) -> str:
    """The text; nothing may be wrong, unless it is left out.

    Args:
      place: what was read.
      remaining: how much of it is good.
      skip_bad: leave out what is wrong. Otherwise anything wrong is an error.

    Raises:
      ValueError: it lists all that is wrong.
    """
    report = str(self)
    if report and not skip_bad:
      raise ValueError(
        f'{place}: correct what is wrong, or leave it out with skip_bad '
        f'(--skip_bad).\n{report}'
      )
    if not remaining:
      raise ValueError(f'{place}: nothing is left.\n{report}')
    return report


def find(
  error_of: Callable[[Any], str | None], items: Sequence[Any], *, unit: str
) -> list[str | None]:
  """What is wrong with each of many files, None where nothing is.

  In threads: Pillow and FFmpeg decode outside of Python's lock.

  Args:
    error_of: decodes an item, and says what is wrong with it.
    items: what is to be decoded.
    unit: what they are called, for the progress that is shown.
  """
  with concurrent.futures.ThreadPoolExecutor() as pool:
    return list(
      tqdm.tqdm(
        pool.map(error_of, items),
        total=len(items),
        desc='Decoding',
        unit=f' {unit}',
      )
    )
