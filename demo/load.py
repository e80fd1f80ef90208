"""Requests many drawings from a running server at once, and times them."""

import asyncio
import dataclasses
import json
import time
import urllib.parse
from collections.abc import Sequence
from typing import Any

import numpy as np
import wsproto
from wsproto import events


@dataclasses.dataclass(frozen=True)
class Answer:
  """The outcome of one request.

  Attributes:
    first: seconds until the first points.
    last: seconds until the end.
    endings: [x, y, pen] of all points of each ending.
    error: error message of the server; None if there was none.
  """

  first: float
  last: float
  endings: list[list[list[float]]]
  error: str | None = None


class Connection:
  """A WebSocket to /api/draw, used as an asynchronous context manager."""

  def __init__(self, address: str):
    """Stores the address; the context manager connects.

    Args:
      address: address of the page, http://HOST:PORT/.
    """
    self._address = urllib.parse.urlsplit(address)
    self._socket = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    self._received: list[dict[str, Any]] = []
    self._text = ''
    self._accepted = False

  async def __aenter__(self):
    host, port = self._address.hostname, self._address.port
    self._reader, self._writer = await asyncio.open_connection(host, port)
    origin = f'http://{self._address.netloc}'
    self._write(
      events.Request(
        host=self._address.netloc,
        target='/api/draw',
        extra_headers=[(b'origin', origin.encode())],
      )
    )
    while not self._accepted:
      await self._read()
    return self

  async def __aexit__(self, *_):
    self._writer.close()

  def send(self, message: dict[str, Any]):
    """Sends a message as JSON."""
    self._write(events.TextMessage(json.dumps(message)))

  async def receive(self) -> dict[str, Any]:
    """Waits for the next message of the server and returns it.

    Raises:
      ConnectionError: the server has closed the connection.
    """
    while not self._received:
      await self._read()
    return self._received.pop(0)

  async def draw(self, message: dict[str, Any]) -> Answer:
    """Sends a request and waits for its end."""
    start = time.perf_counter()
    first = None
    endings: list[list[list[float]]] = [[] for _ in range(message['count'])]
    self.send(message)
    while True:
      answer = await self.receive()
      seconds = time.perf_counter() - start
      first = seconds if first is None else first
      for ending, points in zip(
        endings, answer.get('points', ()), strict=False
      ):
        ending += points
      if 'done' in answer or 'error' in answer:
        return Answer(first, seconds, endings, answer.get('error'))

  def _write(self, event: events.Event):
    self._writer.write(self._socket.send(event))

  async def _read(self):
    data = await self._reader.read(2**16)
    self._socket.receive_data(data or None)
    for event in self._socket.events():
      if isinstance(event, events.AcceptConnection):
        self._accepted = True
      elif isinstance(event, events.TextMessage):
        self._text += event.data
        if event.message_finished:
          self._received.append(json.loads(self._text))
          self._text = ''
      elif isinstance(event, events.RejectConnection | events.CloseConnection):
        raise ConnectionError(f'the server has closed the connection: {event}')


async def draw_all(
  address: str, messages: Sequence[dict[str, Any]]
) -> list[Answer]:
  """Sends all requests at the same time, each over its own connection."""
  ready = asyncio.Barrier(len(messages))

  async def draw(message):
    async with Connection(address) as connection:
      await ready.wait()
      return await connection.draw(message)

  return await asyncio.gather(*map(draw, messages))


def describe(answers: Sequence[Answer]) -> str:
  """Summarises answers in one line: their number, errors and latencies."""
  lost = sum(answer.error is not None for answer in answers)
  parts = [f'{len(answers)} requests, {lost} lost']
  for name in ('first', 'last'):
    times = [1e3 * getattr(answer, name) for answer in answers]
    p50, p95 = np.percentile(times, (50, 95))
    what = 'first points' if name == 'first' else 'the end'
    parts.append(f'{what} p50 {p50:.1f} ms, p95 {p95:.1f} ms')
  return '; '.join(parts)
