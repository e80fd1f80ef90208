"""The processes of a run on several hosts watch one another.

Without it one that dies leaves the others in a collective operation, until JAX
aborts them with pages of text. Here each keeps a connection to process 0, which
tells all of them when one has ended. They say so in one sentence, which names
the process and its host, and exit with status `LOST`. A signal to one that
works by itself, before or after the steps of training, stops all of them.
"""

import atexit
import contextlib
import ctypes
import json
import os
import re
import secrets
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator

import jax
from absl import app
from absl import logging
from jax._src import distributed  # The public API has no address.

from training import console
from training import errors
from training import parallel

# Of a process that another one has left: EX_TEMPFAIL, the run can be resumed.
LOST = 75
# Seconds for all processes to start, those between two messages of a process,
# and those after which one without messages is lost.
START, _EVERY, _PATIENCE = 300, 5, 40
# Seconds for a process to end by itself: all may have failed alike.
_GRACE = 5
_CONNECTS = 30  # Seconds.
STOPPED = 'Stopped by %s; run the same command again to resume.'
# Errors of the runtime begin with the name of a status: 'UNAVAILABLE: '.
_STATUS = re.compile('[A-Z_]+: ')


@contextlib.contextmanager
def starting(address: str) -> Iterator[None]:
  """Ends this process with a sentence if the others do not start in time.

  JAX would abort it a little later.
  """
  done = threading.Event()

  def wait():
    if not done.wait(START):
      _leave(
        f'waited {START} seconds at {address} for the other processes: start '
        'the same command on every host, with the same '
        '--coordinator_address and --num_processes, and every --process_id '
        'from 0 once'
      )

  threading.Thread(target=wait, daemon=True).start()
  try:
    yield
  finally:
    done.set()


def on_sigterm(act: Callable[[], None]):
  """Acts at SIGTERM in the main thread, after JAX, which tells the others."""
  libc = _libc()
  address = libc.signal(signal.SIGTERM, int(signal.SIG_IGN))
  notify = ctypes.CFUNCTYPE(None, ctypes.c_int)(address or 0)

  def handle(number, _):
    if notify:  # JAX listens unless it was told not to.
      notify(number)
    act()

  signal.signal(signal.SIGTERM, handle)


def _libc() -> ctypes.CDLL:
  libc = ctypes.CDLL(None)
  libc.signal.argtypes = ctypes.c_int, ctypes.c_void_p
  libc.signal.restype = ctypes.c_void_p
  return libc


@contextlib.contextmanager
def watching(
  is_alone: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
  """A context that ends this process if another one dies or fails.

  All processes enter it together, and leave it together unless one fails.

  Args:
    is_alone: whether a signal may end this process whatever the others do. If
      its main thread has not ended it after some seconds, in an operation of
      all of them perhaps, it is ended.
  """
  if jax.process_count() == 1:
    yield
    return
  sockets, names = _connect()
  if not sockets:
    yield
    return
  global _watch
  _watch = _Watch(sockets, names, is_alone)
  _delay_abort()
  with noticing():
    yield
  _watch.finish()


@contextlib.contextmanager
def noticing() -> Iterator[None]:
  """Tells the others of an error, or of one of theirs that has caused it."""
  try:
    yield
  except BaseException as error:
    if _watch is not None:
      _watch.fail(error)
    raise


def stop_others(status: int):
  """Stops the other processes; this one is about to exit with `status`."""
  if _watch is not None:
    _watch.stop(status)


def _delay_abort():
  """Gives the watch some time before JAX, which notices too, ends the process.

  The thread that aborts gets a handler that sleeps for as many seconds as the
  number of the signal says: 6.
  """
  libc = _libc()
  libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))


def _connect() -> tuple[dict[int, socket.socket], list[str]]:
  """Connects all processes with process 0.

  Returns:
    Process -> the connection to it: to all in process 0, elsewhere to that;
    and the names of the processes. Without connections none is watched.
  """
  index, count = jax.process_index(), jax.process_count()
  with contextlib.ExitStack() as stack:
    own = {'host': socket.gethostname(), 'port': None, 'token': None}
    if index == 0:
      listening = stack.enter_context(_listen())
      own['port'] = listening.getsockname()[1]
      own['token'] = secrets.token_hex(16)
    everyone = [json.loads(text) for text in parallel.gather_texts(_json(own))]
    names = [f'process {i} ({x["host"]})' for i, x in enumerate(everyone)]
    token = everyone[0]['token'].encode()
    sockets, problem = {}, ''
    try:
      if index == 0:
        sockets = _accept(listening, token, count - 1)
      else:
        host = distributed.global_state.coordinator_address.rpartition(':')[0]
        address = host.strip('[]'), everyone[0]['port']
        sockets[0] = socket.create_connection(address, _CONNECTS)
        sockets[0].sendall(token + f'{index:08d}'.encode())
    except OSError as error:
      problem = f'{names[index]}: {error}'
    problem = next(filter(None, parallel.gather_texts(problem)), '')
    if problem:
      logging.warning(
        'The processes cannot watch one another (%s): if one dies, JAX ends '
        'the others',
        problem,
      )
      for connection in sockets.values():
        connection.close()
      return {}, names
  return sockets, names


def _listen() -> socket.socket:
  if socket.has_dualstack_ipv6():
    return socket.create_server(
      ('', 0), family=socket.AF_INET6, dualstack_ipv6=True
    )
  return socket.create_server(('', 0))


def _accept(
  listening: socket.socket, token: bytes, count: int
) -> dict[int, socket.socket]:
  """Waits for the connections of the other processes, which know the token."""
  sockets, deadline = {}, time.monotonic() + _CONNECTS
  while len(sockets) < count:
    listening.settimeout(max(deadline - time.monotonic(), 0.01))
    connection, _ = listening.accept()
    connection.settimeout(_EVERY)
    try:
      hello = connection.recv(len(token) + 8, socket.MSG_WAITALL)
    except OSError:
      hello = b''
    if secrets.compare_digest(hello[:-8], token):
      sockets[int(hello[-8:])] = connection
    else:
      connection.close()
  return sockets


def _json(value: dict) -> str:
  return json.dumps(value, sort_keys=True)


class _Watch:
  """Sends and reads messages in a thread.

  A message is a line of JSON: `failed`, the reason; `lost`, a sentence of
  process 0 for all others; `stopped`, after a signal; `done`, at the end of the
  work. Process 0 is the last to say so. An empty line is a sign of life.
  """

  def __init__(
    self,
    sockets: dict[int, socket.socket],
    names: list[str],
    is_alone: Callable[[], bool],
  ):
    """Starts to watch the processes at the other ends of the connections."""
    self._sockets = sockets
    self._names = names
    self._name = names[jax.process_index()]
    self._first = jax.process_index() == 0
    self._heard = dict.fromkeys(sockets, time.monotonic())
    self._done = set()  # Processes at the end of their work.
    self._stopping = set()  # Those that end after a signal: they do not die.
    self._closed = set()
    self._sending = threading.Lock()
    self._known = threading.Event()  # Another one has died or failed.
    self._leaving = False  # The thread ends this process.
    self._finished = threading.Event()  # All are at the end of their work.
    self._failed = False
    self._is_alone = is_alone
    self._stopped = False  # The main thread ends this process after a signal.
    self._told_to_stop = False
    self._signal, self._signalled = None, 0.0  # The last one and its time.
    # Python writes the numbers of signals there, also while the main thread is
    # in a library.
    self._signals, self._written = socket.socketpair()
    self._written.setblocking(False)
    signal.set_wakeup_fd(self._written.fileno(), warn_on_full_buffer=False)
    for connection in sockets.values():
      connection.settimeout(_EVERY)
    threading.Thread(target=self._run, daemon=True).start()

  def finish(self):
    """Waits until all processes are at the end of their work."""
    if not self._first:
      self._send({'done': True})
    self._finished.wait()
    if self._first:
      self._send({'done': True})

  def stop(self, status: int):
    """Stops the others; this process exits with `status`."""
    self._stopped = True
    self._send({'stopped': True})
    # Before JAX waits for the others in vain.
    atexit.register(self._exit, status)

  def fail(self, error: BaseException):
    """Tells the others that this process fails, unless it was left itself."""
    if self._failed:
      return
    if _STATUS.match(str(error)):
      # It may be of a collective operation, and another process have died.
      self._leaving = self._known.wait(2)
    while self._leaving:
      time.sleep(1)
    self._failed = True
    text = (str(error).splitlines() or [''])[0][:300]
    self._send({'failed': f'{type(error).__name__}: {text}'})
    status = errors.exit_status(error)
    if isinstance(error, app.UsageError):
      status = error.exitcode
    elif isinstance(error, SystemExit) and isinstance(error.code, int):
      status = error.code
    # After the error is shown, and before JAX waits for the others in vain.
    atexit.register(self._exit, status)

  def _run(self):
    with selectors.DefaultSelector() as selector:
      for process, connection in self._sockets.items():
        selector.register(connection, selectors.EVENT_READ, process)
      selector.register(self._signals, selectors.EVENT_READ)
      rest = dict.fromkeys(self._sockets, b'')
      sent = time.monotonic()
      while not self._failed:
        for key, _ in selector.select(1):
          process = key.data
          if process is None:
            self._note_signals()
            continue
          try:
            data = key.fileobj.recv(4096)
          except OSError:
            data = b''
          if not data:
            selector.unregister(key.fileobj)
            self._lost(process, 'has died')
            continue
          self._heard[process] = time.monotonic()
          *lines, rest[process] = (rest[process] + data).split(b'\n')
          for line in filter(None, lines):
            self._read(process, json.loads(line))
        now = time.monotonic()
        if now - sent >= _EVERY:
          self._send(None)
          sent = now
        if self._signal is not None and now - self._signalled > _GRACE:
          self._end_alone()
        for process, heard in self._heard.items():
          if now - heard > _PATIENCE:
            self._lost(process, f'has been silent for {_PATIENCE} seconds')

  def _read(self, process: int, message: dict):
    if 'done' in message:
      self._done.add(process)
      if self._done == set(self._sockets):
        self._finished.set()
    elif 'failed' in message:
      # It has said so itself, and this process may be about to do the same.
      self._known.set()
      end = time.monotonic() + _GRACE
      while time.monotonic() < end and not self._leaving:
        if self._failed:
          return
        time.sleep(0.05)
      self._lost(process, f'has failed ({message["failed"]})')
    elif 'stopped' in message:
      self._stopping.add(process)
      self._stop_too()
    elif 'lost' in message:
      self._end(message['lost'])

  def _note_signals(self):
    """Remembers the first signal that asks this process to stop."""
    for number in self._signals.recv(100):
      if number in (signal.SIGTERM, signal.SIGINT) and self._signal is None:
        self._signal = signal.Signals(number)
        self._signalled = time.monotonic()

  def _stop_too(self):
    """Stops as another process does."""
    if self._told_to_stop or self._stopped:
      return
    self._told_to_stop = True
    if self._first:
      self._send({'stopped': True})
    os.kill(os.getpid(), signal.SIGTERM)

  def _end_alone(self):
    """Ends this process if the main thread does not, and need not save."""
    number, self._signal = self._signal, None
    if self._stopped or not self._is_alone():
      return
    self._stopped = True
    name = 'Ctrl-C' if number == signal.SIGINT else number.name
    self._send({'stopped': True})
    self._send({'done': True})
    console.notice(STOPPED, name)
    console.show_held()
    self._exit(128 + number)

  def _lost(self, process: int, reason: str):
    """Ends all processes, unless that one was at its end."""
    self._closed.add(process)
    if process not in self._done | self._stopping:
      self._end(
        f'{self._names[process]} {reason}: all processes stop; start the same '
        'command on every host to resume from the last checkpoint'
      )

  def _end(self, sentence: str):
    if self._failed:
      return
    self._leaving = True
    self._known.set()
    if self._first:
      self._send({'lost': sentence})
    # JAX aborts the others once process 0 is gone.
    _leave(sentence, self._wait_for_others)

  def _exit(self, status: int):
    self._wait_for_others()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)

  def _wait_for_others(self):
    """Waits in process 0 until the others have ended."""
    if not self._first:
      return
    deadline = time.monotonic() + 2 * _GRACE
    for process, connection in self._sockets.items():
      with contextlib.suppress(OSError):
        while process not in self._closed and time.monotonic() < deadline:
          connection.settimeout(max(deadline - time.monotonic(), 0.01))
          if not connection.recv(4096):
            break

  def _send(self, message: dict | None):
    line = (_json(message) if message else '') + '\n'
    for connection in self._sockets.values():
      with self._sending, contextlib.suppress(OSError):
        connection.sendall(line.encode())


_watch: _Watch | None = None  # That of this process.


def _leave(sentence: str, wait=lambda: None):
  """Ends this process from a thread; the main thread is in a library."""
  logging.error('%s', sentence)
  sys.stderr.flush()
  wait()
  os._exit(LOST)
