"""Strokes over a WebSocket: drawings continue, point by point.

A client sends {"id": ..., "model": ..., "lines": ...} and gets new points as
they are drawn, [x, y, pen] in pixels, until {"id": ..., "done": true}.
"""

import asyncio
import contextlib
import dataclasses
from typing import Any

import numpy as np
from starlette import websockets

from demo import messages
from demo import queues
from demo import sketching
from demo import studio as studio_lib


@dataclasses.dataclass(eq=False)
class _Going:
  """A drawing that a conversation continues."""

  request: queues.Request | None = None


class Conversation:
  """One WebSocket."""

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
    # By the client's id, until its last message is sent.
    self._going: dict[int, _Going] = {}

  async def run(self):
    """Serves the client until it leaves."""
    sender = asyncio.create_task(self._send_all())
    try:
      while True:
        received = await self._socket.receive()
        if received['type'] == 'websocket.disconnect':
          break
        self._hear(received.get('text') or received.get('bytes') or b'')
    finally:
      for going in self._going.values():
        going.request.cancel()
      sender.cancel()
      with contextlib.suppress(asyncio.CancelledError, Exception):
        await sender

  async def _send_all(self):
    while True:
      message = await self._outbox.get()
      await self._socket.send_json(message)
      if 'done' in message or 'error' in message:
        self._going.pop(message['id'], None)

  def _hear(self, text: str | bytes):
    number = None
    try:
      if len(text) > self._limits.message_bytes:
        raise messages.Problem(
          413, f'more than {self._limits.message_bytes} bytes in a message'
        )
      message = messages.parse(text)
      if 'cancel' in message:
        self._cancel(messages.integer(message, 'cancel', 0, messages.MOST_SEED))
        return
      number = messages.integer(message, 'id', 0, messages.MOST_SEED)
      if number in self._going:
        number = None  # The other one continues.
        raise messages.Problem(400, 'this id is in use: count on')
      self._begin(number, message)
    except messages.Problem as problem:
      self._outbox.put_nowait({'id': number, 'error': problem.text})
    except queues.Busy as busy:
      self._outbox.put_nowait(
        {'id': number, 'error': f'busy: {busy}', 'busy': True}
      )

  def _cancel(self, number: int):
    if (going := self._going.pop(number, None)) is not None:
      going.request.cancel()

  def _begin(self, number: int, message: dict[str, Any]):
    messages.check_fields(
      message,
      ('id', 'model', 'lines', 'count', 'most', 'pen_down', *messages.DRAWN),
    )
    if len(self._going) >= self._limits.open:
      raise queues.Busy(
        f'{self._limits.open} drawings of yours are under way: cancel some'
      )
    model = messages.find(
      self._studio.sketchers, messages.text(message, 'model')
    )
    size, length = model.model.size, model.model.length
    lines = messages.lines(message, 'lines', size, self._limits)
    pen_down = messages.flag(message, 'pen_down')
    beginning = messages.to_drawing(lines, size, pen_down=pen_down)
    # There must be room for something new.
    messages.check_length(beginning, length - 1)
    job = sketching.Sample(
      messages.integer(message, 'count', 1, self._limits.count, 1),
      messages.integer(message, 'seed', 0, messages.MOST_SEED, 0),
      messages.sampling(message),
      beginning=beginning,
      max_points=messages.integer(
        message, 'most', 1, self._limits.points, length
      ),
      label=messages.label(model.model.sketcher.classes, message),
      stream=True,
    )
    # Exactly where the pen was; from nothing, the middle.
    last = lines[-1][-1] if lines else np.full(2, size / 2)
    ends = [last] * job.count
    first = [[*map(messages.rounded, last), 0]] if pen_down or not lines else []
    going = _Going()

    def send(event):
      """Queues the messages of an event; runs in this loop."""
      nonlocal first
      # Cancelled: the number may mean another drawing by now.
      if self._going.get(number) is not going:
        return
      if isinstance(event, queues.Done):
        self._outbox.put_nowait({'id': number, 'done': True})
      elif isinstance(event, queues.Failed):
        text = 'that failed here: the log of the server says why'
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

    going.request = model.worker.submit(job, report)
    self._going[number] = going


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
