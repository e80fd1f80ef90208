"""Connections of the server: requests that do not arrive are closed."""

import asyncio

import h11
from uvicorn.protocols.http import h11_impl

# Seconds for the header of a request, from the start of a connection or from
# the first byte after the previous request.
HEADER_SECONDS = 10.0


class Connection(h11_impl.H11Protocol):
  """uvicorn's connection, with a time limit for headers.

  Without it a client that sends half a header and waits holds a connection for
  ever, and a thousand of them hold the server.
  """

  _header_timer: asyncio.TimerHandle | None = None

  def connection_made(self, transport: asyncio.Transport):
    """Starts to wait for a header."""
    super().connection_made(transport)
    self._start_timer()

  def data_received(self, data: bytes):
    """Reads; from the end of a header on the body has its own time limit."""
    super().data_received(data)
    if self.conn.their_state is not h11.IDLE:
      self._stop_timer()
    elif self._header_timer is None:
      self._start_timer()

  def connection_lost(self, exc: Exception | None):
    """Ends the wait."""
    self._stop_timer()
    super().connection_lost(exc)

  def _start_timer(self):
    self._header_timer = self.loop.call_later(HEADER_SECONDS, self._give_up)

  def _stop_timer(self):
    if self._header_timer is not None:
      self._header_timer.cancel()
      self._header_timer = None

  def _give_up(self):
    if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
      self.transport.abort()
