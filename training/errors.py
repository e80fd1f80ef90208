"""Errors of the input: at most three lines on stderr, and exit status 2.

Code of ours raises a ValueError for wrong input, an ImportError for a library
that is not installed, and a FloatingPointError for a loss that is not finite.
Those, errors of the operating system (a missing file, a full disk) and a lack
of memory are shown without a traceback. Every other exception is a bug of ours
and keeps it. With --debug all have one.
"""

import argparse
import contextlib
import dis
import errno
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from collections.abc import Iterator
from typing import NoReturn

STATUS = 2
# After Ctrl-C, as a shell gives it.
INTERRUPTED = 128 + signal.SIGINT
# What raises for wrong input.
_PACKAGES = (
  'captioning',
  'configs',
  'demo',
  'recurrent',
  'scripts',
  'sketch_rnn',
  'tables',
  'training',
  'video',
  'vision',
)
_MAX_LINES = 3
_MAX_LENGTH = 1000  # Of a line.
_RAISE = dis.opmap['RAISE_VARARGS']
# Of XLA, and of libraries that write files.
_NO_MEMORY = 'RESOURCE_EXHAUSTED'
_NO_SPACE = 'No space left on device'
_FREE_SPACE = (
  f'{_NO_SPACE}: free some where the workdir and the data sets are, then run '
  'the same command again'
)


def sentence(error: BaseException) -> str | None:
  """The text of an error of the input, or None for a bug."""
  text = str(error)
  if isinstance(error, OSError) and error.errno == errno.ENOSPC:
    where = f' ({error.filename})' if error.filename else ''
    return f'{_FREE_SPACE}{where}'
  if isinstance(error, OSError):
    if error.strerror and error.filename is not None:
      return f'{error.strerror}: {error.filename}'
    return text or type(error).__name__
  if _NO_SPACE in text:  # TensorStore's error names RESOURCE_EXHAUSTED, too.
    return _FREE_SPACE
  if isinstance(error, MemoryError) or _NO_MEMORY in text:
    reason = f' ({text.splitlines()[0]})' if text else ''
    return (
      'out of memory: pass smaller batches (--config.batch_size, '
      f'--config.eval_batch_size) or smaller inputs{reason}'
    )
  kinds = ValueError | ImportError | FloatingPointError
  if isinstance(error, kinds) and _is_raised_by_us(error):
    return text
  return None


def exit_status(error: BaseException) -> int:
  """The exit status after an error: 2 if it is one of the input."""
  # Training that has diverged is explained, but is no error of the input.
  if isinstance(error, FloatingPointError) or sentence(error) is None:
    return 1
  return STATUS


def _is_raised_by_us(error: BaseException) -> bool:
  """True if a `raise` of our code has made the error."""
  trace = error.__traceback__
  if trace is None:
    return False
  while trace.tb_next is not None:
    trace = trace.tb_next
  frame = trace.tb_frame
  module = frame.f_globals.get('__name__', '')
  if module == '__main__':  # One of our commands.
    spec = frame.f_globals.get('__spec__')
    module = spec.name if spec else 'scripts'
  return (
    module.partition('.')[0] in _PACKAGES
    and frame.f_code.co_code[trace.tb_lasti] == _RAISE
  )


def fail(
  text: str, *, status: int = STATUS, max_lines: int | None = _MAX_LINES
) -> NoReturn:
  """Prints an error, after its traceback with --debug, and exits."""
  if debugging() and sys.exc_info()[0] is not None:
    traceback.print_exc()
    max_lines = None
  lines = [line for line in text.splitlines() if line.strip()] or ['failed']
  lines = [
    line if len(line) <= _MAX_LENGTH else f'{line[: _MAX_LENGTH - 4]} ...'
    for line in lines
  ]
  if max_lines is not None and len(lines) > max_lines:
    more = len(lines) - max_lines + 1
    lines = [
      *lines[: max_lines - 1],
      f'... and {more} more lines (--debug shows all)',
    ]
  print('\n'.join([f'error: {lines[0]}', *lines[1:]]), file=sys.stderr)
  sys.exit(status)


def debugging() -> bool:
  """True if the command was called with --debug."""
  return '--debug' in sys.argv


@contextlib.contextmanager
def shown() -> Iterator[None]:
  """A context that exits with status 2 after an error of the input."""
  try:
    yield
  except Exception as error:
    text = sentence(error)
    if text is None:
      raise
    # Threads and `atexit` of libraries may fail for the same reason.
    sys.unraisablehook = threading.excepthook = lambda _: None
    fail(text, status=exit_status(error))


def run(main: Callable[[], int | None]):
  """Runs a command and exits with the status that it returns.

  After Ctrl-C with 130, without a traceback.
  """
  try:
    with shown():
      sys.exit(main())
  except KeyboardInterrupt:
    if debugging():
      raise
    print('Stopped by Ctrl-C.', file=sys.stderr)
    sys.exit(INTERRUPTED)


class Parser(argparse.ArgumentParser):
  """Parses flags; its errors are those of this module. Adds --debug."""

  def __init__(self, **options):
    """See argparse; the description is printed as it is written."""
    options.setdefault('formatter_class', argparse.RawDescriptionHelpFormatter)
    super().__init__(**options)
    self.add_argument(
      '--debug', action='store_true', help='show the traceback of every error'
    )

  def error(self, message: str) -> NoReturn:
    """Prints an error and exits with status 2."""
    fail(message)
