"""A bounded queue, and a thread that computes what waits in it.

The server's loop submits jobs; a thread for each model takes all that wait at
once, so that its engine can make batches of them. What it says of a job is told
from the thread, in order, and ends with a `Done` or a `Failed`.
"""

import asyncio
import dataclasses
import threading
from collections.abc import Callable
from typing import Any
from typing import Protocol

from absl import logging

MOST = 512  # Jobs that wait or are being worked on; beyond it: busy.


class Busy(RuntimeError):
  """There is more to do than is taken on."""


@dataclasses.dataclass(frozen=True)
class Done:
  """The last that is told of a job that went well."""

  value: Any = None


@dataclasses.dataclass(frozen=True)
class Failed:
  """The last that is told of a job that did not."""

  error: Exception


class Request:
  """A job, and what becomes of it.

  Attributes:
    job: what the engine understands.
  """

  def __init__(
    self,
    job: Any,
    tell: Callable[[Any], None],
    end: Callable[['Request'], None],
  ):
    """Takes the job, who is told, and who wants to know that it has ended."""
    self.job = job
    self._tell = tell
    self._end = end
    self._cancelled = threading.Event()
    self._ended = False

  @property
  def cancelled(self) -> bool:
    """Whether nobody waits for it any more."""
    return self._cancelled.is_set()

  def cancel(self):
    """Nothing more is told; the engine may leave the rest. Any thread."""
    self._cancelled.set()

  def answer(self, value: Any):
    """Tells a part of the answer. The engine's thread alone."""
    if not self._ended and not self.cancelled:
      self._tell(value)

  def finish(self, value: Any = None):
    """Tells `Done`, once."""
    self._close(Done(value))

  def fail(self, error: Exception):
    """Tells `Failed`, once."""
    self._close(Failed(error))

  def _close(self, last: Done | Failed):
    if self._ended:
      return
    self._ended = True
    self._end(self)
    if not self.cancelled:
      self._tell(last)


class Engine(Protocol):
  """What a model does with requests, a little at a time."""

  def accept(self, requests: list[Request]):
    """Takes requests on, without computing."""

  def advance(self) -> bool:
    """Does a part of the work; whether there is more."""

  def clear(self):
    """Forgets all requests."""


class Worker:
  """One thread, one engine and the queue before it."""

  def __init__(self, engine: Engine, *, name: str, most: int = MOST):
    """Starts the thread.

    Args:
      engine: is used by this thread alone.
      name: of the thread.
      most: how many requests may be there, waiting or being worked on.
    """
    self._engine = engine
    self._most = most
    self._changed = threading.Condition()
    self._waiting: list[Request] = []
    self._open: set[Request] = set()
    self._stopped = False
    self._thread = threading.Thread(target=self._run, name=name, daemon=True)
    self._thread.start()

  def submit(self, job: Any, tell: Callable[[Any], None]) -> Request:
    """Puts a job into the queue; any thread.

    Args:
      job: what the engine understands.
      tell: is called in the worker's thread, and must not block.

    Raises:
      Busy: the queue is full.
    """
    with self._changed:
      if self._stopped or len(self._open) >= self._most:
        raise Busy(
          f'{len(self._open)} requests are waiting already: try again in a '
          'moment'
        )
      request = Request(job, tell, self._forget)
      self._open.add(request)
      self._waiting.append(request)
      self._changed.notify()
    return request

  async def ask(self, job: Any) -> Any:
    """The answer to a job that has only one; who stops waiting cancels it.

    Raises:
      Busy: the queue is full.
    """
    loop = asyncio.get_running_loop()
    future = loop.create_future()

    def hear(last):
      if future.done():
        return
      if isinstance(last, Failed):
        future.set_exception(last.error)
      else:
        future.set_result(last.value)

    request = self.submit(
      job, lambda last: loop.call_soon_threadsafe(hear, last)
    )
    try:
      return await future
    finally:
      request.cancel()

  def stop(self):
    """Ends the thread after the step that it is at; what is left fails."""
    with self._changed:
      self._stopped = True
      for request in self._open:
        request.cancel()
      self._changed.notify()
    self._thread.join()

  def _forget(self, request: Request):
    with self._changed:
      self._open.discard(request)

  def _take(self, *, wait: bool) -> list[Request] | None:
    with self._changed:
      while wait and not self._waiting and not self._stopped:
        self._changed.wait()
      if self._stopped:
        return None
      taken, self._waiting = self._waiting, []
      return taken

  def _run(self):
    more = False
    while (taken := self._take(wait=not more)) is not None:
      try:
        self._engine.accept(taken)
        more = self._engine.advance()
      except Exception as error:  # The thread goes on for those who come next.
        logging.exception('A request failed')
        more = False
        self._engine.clear()
        with self._changed:
          broken = self._open - set(self._waiting)
        for request in broken:
          request.fail(error)


class InBatches:
  """An engine for jobs that are answered at once, a few at a time."""

  def __init__(self, compute: Callable[[list[Any]], list[Any]], most: int):
    """Says how.

    Args:
      compute: from jobs to their answers.
      most: jobs of one call.
    """
    self._compute = compute
    self._most = most
    self._waiting: list[Request] = []

  def accept(self, requests: list[Request]):
    """See `Engine`."""
    self._waiting += requests

  def advance(self) -> bool:
    """See `Engine`."""
    chosen: list[Request] = []
    while self._waiting and len(chosen) < self._most:
      request = self._waiting.pop(0)
      if request.cancelled:
        request.finish()
      else:
        chosen.append(request)
    if chosen:
      answers = self._compute([request.job for request in chosen])
      for request, answer in zip(chosen, answers, strict=True):
        request.finish(answer)
    return bool(self._waiting)

  def clear(self):
    """See `Engine`."""
    self._waiting.clear()
