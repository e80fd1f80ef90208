"""Paths on the command line: `~` is expanded, remote ones are refused.

A shell expands `~/data` but not `--data_dir=~/data`.
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence

_FLAG = re.compile(r'(--?[\w.]+=)?(.*)', re.DOTALL)
# Published weights are downloaded from the Hugging Face hub.
_HUB, _HUB_FLAG = 'hf://', re.compile(r'--?([\w.]*[._])?weights=?')
_REMOTE = re.compile(r'[a-z][a-z0-9+.-]*://', re.IGNORECASE)


def expand(arguments: Sequence[str]) -> list[str]:
  """Expands `~` where an argument, or the value of a flag, begins with it.

  Raises:
    ValueError: a value is remote, such as gs://bucket/run.
  """
  found, before = [], ''
  for argument in arguments:
    flag, value = _FLAG.fullmatch(argument).groups()
    from_hub = value.startswith(_HUB) and _HUB_FLAG.fullmatch(flag or before)
    before = argument
    if _REMOTE.match(value) and not from_hub:
      raise ValueError(
        f'{argument}: only paths of this machine can be read and written; '
        'mount the remote directory, or copy it'
      )
    if value.startswith('~'):
      argument = (flag or '') + os.path.expanduser(value)
    found.append(argument)
  return found


def arguments(
  parser: argparse.ArgumentParser, given: Sequence[str] | None = None
) -> list[str]:
  """The arguments for a parser, by default those of the process, expanded."""
  try:
    return expand(sys.argv[1:] if given is None else given)
  except ValueError as error:
    parser.error(str(error))
