"""Problems of input files: found and listed before any file is used."""

import collections
import concurrent.futures
import os
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

from training import console

_MAX_LISTED = 20


class Problems(collections.defaultdict[str, list[str]]):
  """Kinds of problems -> the files, records or lines that have them."""

  def __init__(self):
    """No problems yet."""
    super().__init__(list)

  def __str__(self) -> str:
    """A list of the problems, with the first items of each kind."""
    lines = []
    for problem, items in self.items():
      if items:
        lines.append(f'{problem} ({len(items)}):')
        lines += [f'  {item}' for item in items[:_MAX_LISTED]]
      if len(items) > _MAX_LISTED:
        lines.append(f'  and {len(items) - _MAX_LISTED} more')
    return '\n'.join(lines)

  def raise_unless_skipped(
    self, path: str | os.PathLike, remaining: int, *, skip_bad: bool
  ) -> str:
    """Returns the list of problems, or raises unless they may be skipped.

    Args:
      path: the file or directory that was read.
      remaining: number of good items.
      skip_bad: whether bad items are skipped, rather than an error.

    Raises:
      ValueError: the message lists the problems.
    """
    report = str(self)
    if report and not skip_bad:
      raise ValueError(
        f'{path}: correct these, or leave them out with skip_bad '
        f'(--skip_bad).\n{report}'
      )
    if not remaining:
      raise ValueError(f'{path}: nothing is left.\n{report}')
    return report


def find(
  error_of: Callable[[Any], str | None], items: Sequence[Any], *, unit: str
) -> list[str | None]:
  """Returns the problem of each of many files, None for good ones.

  Uses threads, since Pillow and FFmpeg decode outside of Python's lock.

  Args:
    error_of: decodes an item, and returns its problem or None.
    items: the items to decode.
    unit: name of the items, for the progress bar.
  """
  found = []
  with (
    concurrent.futures.ThreadPoolExecutor() as pool,
    console.progress('Decoding', total=len(items), unit=unit) as update,
  ):
    for error in pool.map(error_of, items):
      found.append(error)
      update(1)
  return found
