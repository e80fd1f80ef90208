"""Locks between processes; a process that dies releases its locks."""

import contextlib
import fcntl
import os
import pathlib
import platform
import time
from collections.abc import Iterator

from absl import logging

_NAME = '.lock'


@contextlib.contextmanager
def waiting(directory: pathlib.Path, name: str = _NAME) -> Iterator[bool]:
  """Lets one process at a time into a directory, which is made if absent.

  Args:
    directory: to be locked.
    name: of the file that is locked there.

  Yields:
    True, or False where the file system has no locks.
  """
  directory.mkdir(parents=True, exist_ok=True)
  with open(directory / name, 'w') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX)
      locked = True
    except OSError as error:
      logging.warning('Cannot lock %s (%s)', directory, error)
      locked = False
    yield locked


@contextlib.contextmanager
def alone(directory: pathlib.Path) -> Iterator[None]:
  """Holds a directory for this process, which is made if absent.

  Raises:
    ValueError: another process holds it; the message names that process.
  """
  directory.mkdir(parents=True, exist_ok=True)
  with open(directory / _NAME, 'a+') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      file.seek(0)
      raise ValueError(
        f'{directory} is in use by {file.read() or "another process"}: wait '
        'for its end, stop it, or choose another --workdir'
      ) from error
    except OSError as error:
      logging.warning(
        'Cannot lock %s (%s): see to it that no other process trains there',
        directory,
        error,
      )
    file.truncate(0)
    since = time.strftime('%Y-%m-%d %H:%M:%S')
    file.write(f'process {os.getpid()} on {platform.node()}, since {since}')
    file.flush()
    yield
