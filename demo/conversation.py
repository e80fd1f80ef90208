"""Continues drawings over a WebSocket, point by point.

A client sends {"id": ..., "model": ..., "lines": ...} and gets new points as
they are sampled, [x, y, pen] in pixels, until {"id": ..., "done": true}.
"""

import asyncio
import contextlib
import dataclasses
from typing import Any

import numpy as np
from absl import logging
from starlette import websockets

from demo import messages
from demo import queues
from demo import sketching
from demo import studio as studio_lib


@dataclasses.dataclass(eq=False)
class _Continuation:
  """The continuation of one drawing, and its request once submitted."""

  request: queues.Request | None = None


class Conversation:
  """The requests and answers of one WebSocket."""

  def __init__(
    self,
    socket: websockets.WebSocket,
    studio: studio_lib.Studio,
    limits: messages.Limits,
  ):
    self._socket = socket
    self._studio = studio
    self._limits = limits
    self._loop = asyncio.get_running_loop()
    self._outbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    # The client's id -> its continuation, until its last message is sent.
    self._open: dict[int, _Continuation] = {}

  async def run(self):
    """Serves the client until it leaves."""
    tasks = [
      asyncio.create_task(work())
      for work in (self._receive_all, self._send_all)
    ]
    try:
      # A sender that fails ends the socket: a client would wait for ever.
      await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
      for continuation in self._open.values():
        continuation.request.cancel()
      for task in tasks:
        task.cancel()
      await asyncio.wait(tasks)
    for task in tasks:
      error = None if task.cancelled() else task.exception()
      # A client that has left is no error.
      if error and not isinstance(error, websockets.WebSocketDisconnect):
        logging.error('A WebSocket fails and is closed', exc_info=error)
        with contextlib.suppress(Exception):
          await self._socket.close(1011)

  async def _receive_all(self):
    while True:
      received = await self._socket.receive()
      if received['type'] == 'websocket.disconnect':
        return
      self._handle(received.get('text') or received.get('bytes') or b'')

  async def _send_all(self):
    while True:
      message = await self._outbox.get()
      await self._socket.send_json(message)
      if 'done' in message or 'error' in message:
        self._open.pop(message['id'], None)

  def _handle(self, text: str | bytes):
    number = None
    try:
      if len(text) > self._limits.message_bytes:
        raise messages.Problem(
          413, f'the message has more than {self._limits.message_bytes} bytes'
        )
      message = messages.parse(text)
      if 'cancel' in message:
        self._cancel(messages.integer(message, 'cancel', 0, messages.MAX_SEED))
        return
      number = messages.integer(message, 'id', 0, messages.MAX_SEED)
      if number in self._open:
        number = None  # The request with this id continues.
        raise messages.Problem(400, 'this id is in use: send another one')
      self._begin(number, message)
    except messages.Problem as problem:
      self._outbox.put_nowait({'id': number, 'error': problem.text})
    except queues.Busy as busy:
      self._outbox.put_nowait(
        {'id': number, 'error': f'busy: {busy}', 'busy': True}
      )

  def _cancel(self, number: int):
    if (continuation := self._open.pop(number, None)) is not None:
      continuation.request.cancel()

  def _begin(self, number: int, message: dict[str, Any]):
    messages.check_fields(
      message,
      ('id', 'model', 'lines', 'count', 'most', 'pen_down', *messages.SAMPLING),
    )
    if len(self._open) >= self._limits.open:
      raise queues.Busy(
        f'{self._limits.open} of your drawings are in progress: cancel some'
      )
    model = messages.find(
      self._studio.sketchers, messages.text(message, 'model')
    )
    size, length = model.model.size, model.model.length
    lines = messages.lines(message, 'lines', size, self._limits)
    pen_down = messages.flag(message, 'pen_down')
    beginning = messages.to_drawing(lines, size, pen_down=pen_down)
    # At least one new point must fit.
    messages.check_length(beginning, length - 1)
    job = sketching.Sample(
      messages.integer(message, 'count', 1, self._limits.count, 1),
      messages.integer(message, 'seed', 0, messages.MAX_SEED, 0),
      messages.sampling(message),
      beginning=beginning,
      max_points=messages.integer(
        message, 'most', 1, self._limits.points, length
      ),
      label=messages.label(model.model.sketcher.classes, message),
      stream=True,
    )
    # Points continue exactly from the pen, or from the centre of the paper.
    last = lines[-1][-1] if lines else np.full(2, size / 2)
    ends = [last] * job.count
    first = [[*map(messages.rounded, last), 0]] if pen_down or not lines else []
    continuation = _Continuation()

    def send(event):
      """Queues the messages of an event; runs in this loop."""
      nonlocal first
      # Cancelled: the id may belong to another drawing by now.
      if self._open.get(number) is not continuation:
        return
      if isinstance(event, queues.Done):
        self._outbox.put_nowait({'id': number, 'done': True})
      elif isinstance(event, queues.Failed):
        text = 'the request failed on the server: see its log'
        self._outbox.put_nowait({'id': number, 'error': text})
      else:
        points = []
        for i, part in enumerate(event):
          ends[i], absolute = _absolute(part, ends[i])
          points.append(first + absolute)
        first = []
        self._outbox.put_nowait({'id': number, 'points': points})

    def report(event):
      """Passes an event on; runs in the model's thread."""
      with contextlib.suppress(RuntimeError):  # The loop is closed.
        self._loop.call_soon_threadsafe(send, event)

    continuation.request = model.worker.submit(job, report)
    self._open[number] = continuation


def _absolute(
  part: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, list[list[float]]]:
  """Offsets f32[N, 3] from a start f64[2] -> the end, [[x, y, pen], ...]."""
  if not len(part):
    return start, []
  points = start + np.cumsum(part[:, :2].astype(np.float64), axis=0)
  return points[-1], [
    [messages.rounded(x), messages.rounded(y), int(lifted)]
    for (x, y), lifted in zip(points, part[:, 2], strict=True)
  ]
