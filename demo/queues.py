"""A bounded queue of jobs, and a thread that computes them.

The event loop of the server submits jobs. One thread per model takes all
waiting jobs at once, so that its engine can batch them. The thread reports the
results of a job in order; the last one is a `Done` or a `Failed`.
"""

import asyncio
import dataclasses
import threading
from collections.abc import Callable
from typing import Any
from typing import Protocol

from absl import logging

MAX_REQUESTS = 512  # Requests waiting or in progress; beyond: `Busy`.


class Busy(RuntimeError):
  """The queue is full."""


@dataclasses.dataclass(frozen=True)
class Done:
  """The last report of a job that succeeded."""

  value: Any = None


@dataclasses.dataclass(frozen=True)
class Failed:
  """The last report of a job that failed."""

  error: Exception


class Request:
  """A job and the state of its answer.

  Attributes:
    job: input of the engine.
  """

  def __init__(
    self,
    job: Any,
    report: Callable[[Any], None],
    end: Callable[['Request'], None],
  ):
    """Creates a request.

    Args:
      job: input of the engine.
      report: called with each result.
      end: called once, with this request, when it has ended.
    """
    self.job = job
    self._report = report
    self._end = end
    self._cancelled = threading.Event()
    self._ended = False

  @property
  def cancelled(self) -> bool:
    """True if nobody waits for the answer any more."""
    return self._cancelled.is_set()

  def cancel(self):
    """Stops all reports; the engine may skip the rest. Any thread."""
    self._cancelled.set()

  def answer(self, value: Any):
    """Reports a part of the answer. Only from the thread of the engine."""
    if not self._ended and not self.cancelled:
      self._report(value)

  def finish(self, value: Any = None):
    """Reports `Done`, once."""
    self._close(Done(value))

  def fail(self, error: Exception):
    """Reports `Failed`, once."""
    self._close(Failed(error))

  def _close(self, last: Done | Failed):
    if self._ended:
      return
    self._ended = True
    self._end(self)
    if not self.cancelled:
      self._report(last)


class Engine(Protocol):
  """Computes the requests of one model, step by step."""

  def accept(self, requests: list[Request]):
    """Adds requests, without computing."""

  def advance(self) -> bool:
    """Computes one step; returns True if work is left."""

  def clear(self):
    """Drops all requests."""


class Worker:
  """A thread that runs one engine, and its queue."""

  def __init__(
    self, engine: Engine, *, name: str, max_requests: int = MAX_REQUESTS
  ):
    """Starts the thread.

    Args:
      engine: used by this thread alone.
      name: name of the thread.
      max_requests: maximum number of requests, waiting or in progress.
    """
    self._engine = engine
    self._max_requests = max_requests
    self._changed = threading.Condition()
    self._waiting: list[Request] = []
    self._open: set[Request] = set()
    self._stopped = False
    self._thread = threading.Thread(target=self._run, name=name, daemon=True)
    self._thread.start()

  def submit(self, job: Any, report: Callable[[Any], None]) -> Request:
    """Adds a job to the queue; from any thread.

    Args:
      job: input of the engine.
      report: called in the thread of the worker; must not block.

    Raises:
      Busy: the queue is full.
    """
    with self._changed:
      if self._stopped or len(self._open) >= self._max_requests:
        raise Busy(
          f'{len(self._open)} requests are already waiting: try again in a '
          'moment'
        )
      request = Request(job, report, self._forget)
      self._open.add(request)
      self._waiting.append(request)
      self._changed.notify()
    return request

  async def ask(self, job: Any) -> Any:
    """Waits for the answer to a job; if the wait is cancelled, so is the job.

    Raises:
      Busy: the queue is full.
    """
    loop = asyncio.get_running_loop()
    future = loop.create_future()

    def resolve(last):
      if future.done():
        return
      if isinstance(last, Failed):
        future.set_exception(last.error)
      else:
        future.set_result(last.value)

    request = self.submit(
      job, lambda last: loop.call_soon_threadsafe(resolve, last)
    )
    try:
      return await future
    finally:
      request.cancel()

  def stop(self):
    """Ends the thread after its current step; cancels all open requests."""
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
      except Exception as error:  # The thread continues with later requests.
        logging.exception('A request failed')
        more = False
        self._engine.clear()
        with self._changed:
          broken = self._open - set(self._waiting)
        for request in broken:
          request.fail(error)


class BatchEngine:
  """An engine that answers jobs in batches, each in one call."""

  def __init__(
    self, compute: Callable[[list[Any]], list[Any]], max_batch_size: int
  ):
    """Creates an engine.

    Args:
      compute: maps jobs to their answers.
      max_batch_size: maximum number of jobs of one call.
    """
    self._compute = compute
    self._max_batch_size = max_batch_size
    self._waiting: list[Request] = []

  def accept(self, requests: list[Request]):
    """See `Engine`."""
    self._waiting += requests

  def advance(self) -> bool:
    """See `Engine`."""
    chosen: list[Request] = []
    while self._waiting and len(chosen) < self._max_batch_size:
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
