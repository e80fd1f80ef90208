"""Messages of the commands, the log file of a run, and its line on a terminal.

On a terminal a run has one line that redraws, warnings are printed above it,
and all messages go to `log.txt` in the workdir. Elsewhere messages go to stderr
too. Libraries that log every file are left out of both.
"""

import contextlib
import logging as python_logging
import os
import pathlib
import sys
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator

import tqdm
from absl import logging

from training import errors

# Libraries that log every file or device -> the lowest level that is shown, and
# the lowest in the log file.
_MIN_LEVELS = {
  'orbax/': (python_logging.ERROR, python_logging.WARNING),
  'tensorflow_datasets/': (python_logging.ERROR, python_logging.WARNING),
  'jax/_src/': (python_logging.WARNING, python_logging.INFO),
  # Orbax, on a damaged checkpoint, which is named by an error of ours.
  'asyncio/': (python_logging.CRITICAL, python_logging.CRITICAL),
}
_STATE = '{desc}'
_COUNT = '{desc} {n_fmt}/{total_fmt} |{bar:8}| '
_COMPILES = _COUNT + 'compiling'
_STEPS = _COUNT + '{rate_noinv_fmt}, ETA {remaining}{postfix}'
_EVALUATES = _COUNT + 'evaluating{postfix}'
# Of a record: shown on a terminal at every level, or only in the log file.
_SHOWN, _HIDDEN = 'shown', 'hidden'
_SECONDS_BETWEEN_MESSAGES = 60  # Of progress, without a terminal.
_SECONDS_HELD = 30  # Messages of a run that may be refused.
_now = time.monotonic
_STDERR = 2  # The descriptor of the process.


class _Formatter(python_logging.Formatter):
  """The message; from WARNING up its level comes first."""

  def format(self, record: python_logging.LogRecord) -> str:
    text = super().format(record)
    if record.name == 'py.warnings':  # Its second line is source code.
      text = text.partition('\n')[0]
    if record.levelno < python_logging.WARNING:
      return text
    return f'{record.levelname.lower()}: {text}'


class _TimedFormatter(_Formatter):
  """The same after the time."""

  def format(self, record: python_logging.LogRecord) -> str:
    when = self.formatTime(record, '%Y-%m-%d %H:%M:%S')
    return f'{when} {super().format(record)}'


class _Console(python_logging.Handler):
  """Writes to stderr, above the line of a run if there is one."""

  min_level = python_logging.INFO  # That of a run on a terminal is higher.
  held: list[str] | None = None  # Messages of a run that may be refused.

  def emit(self, record: python_logging.LogRecord):
    try:
      kind = getattr(record, 'kind', None)
      if kind == _HIDDEN:
        return
      if record.levelno < self.min_level and kind != _SHOWN:
        return
      text = self.format(record)
      if self.held is not None and record.levelno < python_logging.WARNING:
        self.held.append(text)
      else:
        tqdm.tqdm.write(text, file=sys.stderr)
    except Exception:
      self.handleError(record)

  def show_held(self):
    """Shows the messages that were held."""
    with self.lock:
      held, self.held = self.held, None
      for text in held or ():
        tqdm.tqdm.write(text, file=sys.stderr)


_console = _Console()
_console.setFormatter(_Formatter())
_console.addFilter(lambda record: _is_kept(record, 0))
# What threads of Orbax raise comes to the main thread, too.
_console.addFilter(
  lambda record: not (record.exc_info and 'orbax/' in record.pathname)
)


def _is_kept(record: python_logging.LogRecord, column: int) -> bool:
  return not any(
    name in record.pathname and record.levelno < levels[column]
    for name, levels in _MIN_LEVELS.items()
  )


def set_up():
  """Sends messages from INFO up to stderr, without a prefix."""
  # The only handler: absl has one, and libraries that log while they are
  # imported leave another one.
  root = python_logging.getLogger()
  for handler in list(root.handlers):
    if handler is logging.get_absl_handler() or (
      type(handler) is python_logging.StreamHandler
      and handler.stream is sys.stderr
    ):
      root.removeHandler(handler)
  if _console not in root.handlers:
    root.addHandler(_console)
  root.setLevel(python_logging.INFO)
  logging.set_verbosity(logging.INFO)


def notice(message: str, *arguments: object):
  """Logs a message that a terminal shows too."""
  logging.info(message, *arguments, extra={'kind': _SHOWN})


def show_held():
  """Shows messages that were held, before the process is ended."""
  _console.show_held()


def result(text: str):
  """Prints a text to stdout, below the line of a run, and logs it.

  The first of several processes prints it.
  """
  _end_line()
  if not _process:
    print(text, flush=True)
  logging.info('%s', text, extra={'kind': _HIDDEN})


_process = 0  # Number of this process.
_stepped = False  # True after the first step of the run of this process.


def has_stepped() -> bool:
  """True if the run of this process has begun its steps."""
  return _stepped


# The line of a run on a terminal.

_bar: tqdm.tqdm | None = None
_terminal = _STDERR  # The descriptor of `sys.stderr`.
_title: str | None = None  # None outside of a run on a terminal.


def _end_line():
  global _bar
  if _bar is not None:
    _bar.close()
    _bar = None


def _new_line(**arguments) -> tqdm.tqdm:
  _end_line()
  return tqdm.tqdm(file=sys.stderr, dynamic_ncols=True, **arguments)


def state(text: str):
  """Shows what a run does before and after its steps."""
  global _bar
  if _title is not None:
    desc = f'{_title}: {text}'
    _bar = _new_line(desc=desc, bar_format=_STATE, leave=False)


def steps(step: int, num_steps: int):
  """Begins to show the steps of a run that is at `step`."""
  global _bar, _stepped
  _stepped = True
  _console.show_held()
  if _title is not None:
    _bar = _new_line(
      desc=_title,
      initial=step,
      total=num_steps,
      unit=' steps',
      bar_format=_COMPILES,
    )


def advance(step: int):
  """Shows the number of completed steps."""
  if _bar is None:
    return
  if _bar.bar_format == _COMPILES:  # The first step, which is no measure.
    _bar.bar_format = _STEPS
    _bar.initial = _bar.n = step
    _bar.unpause()
  _bar.update(step - _bar.n)


def numbers(values: dict[str, float]):
  """Shows the latest loss and scores, by name."""
  if _bar is not None:
    _bar.set_postfix(values)


@contextlib.contextmanager
def evaluating() -> Iterator[None]:
  """A context that is shown as an evaluation; its time is not the steps'."""
  bar = _bar
  if bar is None:
    yield
    return
  format_before, bar.bar_format = bar.bar_format, _EVALUATES
  bar.refresh()
  try:
    yield
  finally:
    bar.bar_format = format_before
    bar.unpause()
    bar.refresh()


@contextlib.contextmanager
def progress(
  text: str, *, total: int, unit: str
) -> Iterator[Callable[[int], object]]:
  """A context of work on many items, which calls the function for each done.

  A terminal shows a bar, which disappears at the end. Elsewhere there is a
  message every minute.

  Args:
    text: name of the work.
    total: number of items.
    unit: name of the items.
  """
  _console.show_held()
  if is_terminal():
    with _new_line(
      desc=text, total=total, unit=f' {unit}', leave=False
    ) as progress_bar:
      yield progress_bar.update
    return
  done, last = 0, _now()

  def update(count: int):
    nonlocal done, last
    done += count
    if (now := _now()) - last >= _SECONDS_BETWEEN_MESSAGES:
      last = now
      logging.info('%s: %d of %d %s', text, done, total, unit)

  yield update


@contextlib.contextmanager
def run(
  workdir: pathlib.Path, process: int = 0, num_processes: int = 1
) -> Iterator[None]:
  """A context whose messages are appended to the log file of a workdir.

  Other processes than the first one have a file of their own, and show warnings
  alone. Messages are held until the run works, or for half a minute: one that
  is refused before shows its error alone. On a terminal, and on several hosts,
  the file gets what libraries write to the standard error of the process, too:
  JAX writes pages if a host dies.

  Args:
    workdir: of the run.
    process: number of this process.
    num_processes: of the run.
  """
  global _title, _process, _stepped
  _process, _stepped = process, False
  workdir.mkdir(parents=True, exist_ok=True)
  path = workdir / (f'log.{process}.txt' if process else 'log.txt')
  root = python_logging.getLogger()
  with contextlib.ExitStack() as stack:
    file = stack.enter_context(path.open('a', encoding='utf-8'))
    handler = python_logging.StreamHandler(file)
    handler.setFormatter(_TimedFormatter())
    handler.handleError = lambda record: None  # On a disk that is full.
    handler.addFilter(lambda record: _is_kept(record, 1))
    root.addHandler(handler)
    stack.callback(root.removeHandler, handler)
    stack.callback(setattr, sys, 'unraisablehook', sys.unraisablehook)
    sys.unraisablehook = _without_orbax(sys.unraisablehook)
    python_logging.captureWarnings(True)
    stack.callback(python_logging.captureWarnings, False)
    if process or is_terminal():
      _console.min_level = python_logging.WARNING
      stack.callback(setattr, _console, 'min_level', python_logging.INFO)
    if is_terminal() or num_processes > 1:
      stack.enter_context(_stderr_to(file.fileno()))
    if is_terminal() and not process:
      _title = workdir.name
      state(f'starting, log in {path}')
    _console.held = []
    timer = threading.Timer(_SECONDS_HELD, _console.show_held)
    timer.daemon = True
    timer.start()
    try:
      yield
    except Exception as error:
      if errors.sentence(error) is not None:
        _console.held = None
      logging.exception('The run failed', extra={'kind': _HIDDEN})
      raise
    finally:
      timer.cancel()
      _console.show_held()
      _end_line()
      _title, _process = None, 0


def _without_orbax(hook: Callable) -> Callable:
  """Leaves out what threads of Orbax raise after it failed to read a file."""

  def report(unraisable):
    if str(unraisable.exc_value) != 'Event loop is closed':
      hook(unraisable)

  return report


@contextlib.contextmanager
def _stderr_to(descriptor: int) -> Iterator[None]:
  """Sends the standard error of the process to a file, but not `sys.stderr`."""
  global _terminal
  before = sys.stderr
  before.flush()
  _terminal = os.dup(_STDERR)
  with open(_terminal, 'w', buffering=1, encoding=before.encoding) as terminal:
    sys.stderr = terminal
    os.dup2(descriptor, _STDERR)
    try:
      yield
    finally:
      terminal.flush()
      os.dup2(_terminal, _STDERR)
      sys.stderr, _terminal = before, _STDERR


def write_at_once(text: str):
  """Writes to stderr without locks, for handlers of signals."""
  os.write(_terminal, text.encode())


def is_terminal() -> bool:
  """True if stderr is a terminal."""
  return sys.stderr is not None and sys.stderr.isatty()
