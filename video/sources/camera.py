"""Frames of a camera as they come, or of a file played in real time.

  for moment, frame in camera.frames('0'): ...

A thread reads the camera and keeps its last frame alone: a reader that is slow
misses frames, and is never behind.

Axes: H height, W width.
"""

import contextlib
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator

import av
import numpy as np
from absl import flags

from video import frames as frames_lib

# Platform -> FFmpeg's format of its cameras.
_FORMATS = {
  'linux': 'v4l2',
  'darwin': 'avfoundation',
  'win32': 'dshow',
}
_SIDES = '640x480'
_RATE = '30'


class _CameraFlag(flags.Flag):
  """A text that may be left out: --camera is --camera=0."""

  def __init__(self, *args, **kwargs):
    super().__init__(*args, **kwargs)
    self.boolean = True  # As of flags that need no value.

  def parse(self, argument):
    if argument is not None:
      argument = {'true': '0', 'false': None}.get(argument, argument)
    super().parse(argument)


def define_flag(values: flags.FlagValues = flags.FLAGS) -> flags.FlagHolder:
  """Defines --camera[=N] in place of files."""
  return flags.DEFINE_flag(
    _CameraFlag(
      flags.ArgumentParser(),
      flags.ArgumentSerializer(),
      'camera',
      None,
      'In place of files: number of a camera (0 by itself), until Ctrl-C; or a '
      'video file, in real time.',
    ),
    values,
  )


# Commands that read cameras declare it as a flag of theirs.
FLAG = define_flag()


def frames(
  name: str, *, rate: float | None = None
) -> Iterator[tuple[float, np.ndarray]]:
  """Yields the times in seconds and the frames, uint8[H, W, 3].

  Args:
    name: number of a camera, or a video file, which stands for one. Ctrl-C
      ends its frames; a second one ends the program.
    rate: frames per second at most; None for all.

  Raises:
    ValueError: there is no such camera, or it cannot be read.
  """
  if name.isdigit():
    found = _of_device(int(name))
  elif pathlib.Path(name).is_file():
    found = _of_file(name)
  else:
    raise ValueError(
      f'--camera={name} is neither the number of a camera, such as 0, nor a '
      'video file'
    )
  with _latest(found) as take:
    taken, due = None, -1.0
    while (item := take(taken)) is not None:
      taken, moment, pixels = item
      if rate is not None:
        if moment < due:
          continue
        # A tenth early, since the times of cameras are not exact.
        due = max(due + 1 / rate, moment + 0.9 / rate)
      yield moment, pixels


def _of_file(name: str) -> Iterator[tuple[float, np.ndarray]]:
  """The frames of a file, each at its time."""
  start, rate = time.monotonic(), frames_lib.frame_rate(name)
  for index, pixels in enumerate(frames_lib.stream(name)):
    moment = index / rate
    time.sleep(max(start + moment - time.monotonic(), 0))
    yield moment, pixels


def _of_device(number: int) -> Iterator[tuple[float, np.ndarray]]:
  """The frames of a camera."""
  kind = _FORMATS.get(sys.platform)
  if kind is None:
    raise ValueError(f'cameras cannot be read on {sys.platform}: pass a file')
  # Each system names them in its own way.
  file = f'/dev/video{number}' if kind == 'v4l2' else str(number)
  if kind == 'dshow':
    file = _windows_name(number)
  options = {'video_size': _SIDES, 'framerate': _RATE}
  start = time.monotonic()
  try:
    try:
      container = av.open(file, format=kind, options=options)
    except ValueError:  # Of another size or rate.
      container = av.open(file, format=kind)
    with container:
      for frame in container.decode(video=0):
        yield time.monotonic() - start, frame.to_ndarray(format='rgb24')
  except (av.error.FFmpegError, ValueError, LookupError) as error:
    raise ValueError(
      f'cannot read camera {number} ({kind}, {file}): {error}. Is it in use, '
      'or forbidden to this program?'
    ) from error


def _windows_name(number: int) -> str:
  devices = [
    device.description or device.name
    for device in av.enumerate_input_devices('dshow')
    if 'video' in getattr(device, 'media_types', ('video',))
  ]
  if number >= len(devices):
    raise ValueError(
      f'there is no camera {number}, only {", ".join(devices) or "none"}'
    )
  return f'video={devices[number]}'


@contextlib.contextmanager
def _latest(
  found: Iterator[tuple[float, np.ndarray]],
) -> Iterator[Callable]:
  """Reads in a thread; gives a function that waits for the newest item.

  The function takes the number of the last item that it returned, or None, and
  returns the number, the time and the frame of a newer one, or None at the end
  and after Ctrl-C.
  """
  changed = threading.Condition()
  state = {'item': None, 'ended': False, 'error': None, 'left': False}

  def read():
    error = None
    try:
      for index, (moment, pixels) in enumerate(found):
        with changed:
          if state['left']:
            break
          state['item'] = index, moment, pixels
          changed.notify_all()
    except ValueError as problem:
      error = problem
    finally:
      found.close()
    with changed:
      state.update(ended=True, error=error)
      changed.notify_all()

  def is_new(last):
    return state['item'] is not None and state['item'][0] != last

  def take(last):
    while not interrupted.is_set():
      with changed:
        # A signal does not end a wait.
        changed.wait_for(lambda: state['ended'] or is_new(last), timeout=0.2)
        if is_new(last):
          return state['item']
        if state['error'] is not None:
          raise state['error']
        if state['ended']:
          return None
    return None

  interrupted = threading.Event()
  thread = threading.Thread(target=read, daemon=True)
  thread.start()
  try:
    with _noticing(interrupted):
      yield take
  finally:
    with changed:
      state['left'] = True
    thread.join(timeout=1)


@contextlib.contextmanager
def _noticing(interrupted: threading.Event) -> Iterator[None]:
  """Sets the event at the first Ctrl-C."""
  if threading.current_thread() is not threading.main_thread():
    yield
    return

  def notice(*_):
    interrupted.set()
    signal.signal(signal.SIGINT, before)

  before = signal.signal(signal.SIGINT, notice)
  try:
    yield
  finally:
    signal.signal(signal.SIGINT, before)
