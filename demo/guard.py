"""Checks the host and origin of each request, and adds security headers.

The server is meant for its own page alone. Pages of other origins in the same
browser must not use it: the origin is checked. They must not reach it by a host
name that resolves to this machine either: the host is checked.
"""

import asyncio
import contextlib
import ipaddress
import json
import re
from collections.abc import Collection
from typing import Any

POLICY = '; '.join(
  (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' blob: data:",
    "media-src 'self' blob:",
    "font-src 'self'",
    "connect-src 'self'",
    "frame-ancestors 'none'",
    "base-uri 'none'",
    "form-action 'none'",
  )
)
HEADERS = {
  'Content-Security-Policy': POLICY,
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Permissions-Policy': (
    'camera=(self), microphone=(), geolocation=(), payment=(), usb=()'
  ),
  'Cache-Control': 'no-store',
}
# A name or an address, and a port: no user names, paths or blanks.
_HOST = re.compile(
  r'(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::[0-9]{1,5})?', re.IGNORECASE
)
# Of the body of a request that is refused.
_DISCARD_BYTES, _DISCARD_SECONDS = 200_000_000, 10.0
LOOPBACK = ('localhost', '127.0.0.1', '::1')


class Guard:
  """ASGI middleware that refuses requests from other hosts and origins."""

  def __init__(self, app: Any, *, hosts: Collection[str], addresses: bool):
    """Wraps an application.

    Args:
      app: ASGI application.
      hosts: allowed host names, without ports.
      addresses: also allow every IP address; an attacker cannot register one as
        a name.
    """
    self._app = app
    self._hosts = {host.lower() for host in hosts}
    self._addresses = addresses

  async def __call__(self, scope, receive, send):
    """Passes a request on, or refuses it with status 403."""
    if scope['type'] not in ('http', 'websocket'):
      await self._app(scope, receive, send)
      return
    reason = self._reason(scope)
    if scope['type'] == 'websocket':
      if reason is None:
        await self._app(scope, receive, send)
      else:
        # Not accepted yet: the handshake is answered with 403.
        await receive()
        await send({'type': 'websocket.close', 'code': 1008, 'reason': reason})
      return

    unread = _Unread(scope, receive)

    async def send_with_headers(message):
      if message['type'] == 'http.response.start':
        unread.refused = message['status'] >= 400
        headers = list(message.get('headers', ()))
        present = {name.lower() for name, _ in headers}
        headers += [
          (name.lower().encode(), value.encode())
          for name, value in HEADERS.items()
          if name.lower().encode() not in present
        ]
        message = {**message, 'headers': headers}
      elif unread.refused and not message.get('more_body', False):
        # Closing the connection now would reset it, and a client that is still
        # sending would not see the answer, which is complete here.
        await send({**message, 'more_body': True})
        await unread.discard()
        message = {'type': 'http.response.body'}
      await send(message)

    if reason is None:
      await self._app(scope, unread.receive, send_with_headers)
    else:
      await _refuse(send_with_headers, reason)

  def _reason(self, scope) -> str | None:
    """Returns the reason to refuse a request, or None."""
    names = [name for name, _ in scope['headers']]
    if b'content-length' in names and b'transfer-encoding' in names:
      # A proxy may read another length than this server.
      return 'send either Content-Length or Transfer-Encoding'
    host = _header(scope, b'host')
    if host is None or not self._knows(_name(host)):
      return (
        'unknown host name: open the address that the server printed, or start '
        'it with --name=NAME'
      )
    origin = _header(scope, b'origin')
    if scope['type'] == 'websocket':
      wanted = {'ws': 'http', 'wss': 'https'}.get(scope['scheme'], 'http')
      if origin != f'{wanted}://{host}':
        return 'the request comes from another origin'
    elif scope['method'] not in ('GET', 'HEAD'):
      # All browsers send the origin with these methods; other clients need not.
      if origin is not None and origin != f'{scope["scheme"]}://{host}':
        return 'the request comes from another origin'
    return None

  def _knows(self, name: str) -> bool:
    if name in self._hosts:
      return True
    if not self._addresses:
      return False
    try:
      ipaddress.ip_address(name)
    except ValueError:
      return False
    return True


class _Unread:
  """The part of a request's body that has not been read."""

  def __init__(self, scope, receive):
    self.refused = False
    self._receive = receive
    # One that waits for '100 Continue' does not send it.
    self._ended = _header(scope, b'expect') is not None

  async def receive(self):
    message = await self._receive()
    if message['type'] != 'http.request' or not message.get('more_body', False):
      self._ended = True
    return message

  async def discard(self):
    with contextlib.suppress(TimeoutError):
      async with asyncio.timeout(_DISCARD_SECONDS):
        size = 0
        while not self._ended and size < _DISCARD_BYTES:
          size += len((await self.receive()).get('body', b''))


def _header(scope, name: bytes) -> str | None:
  """The value of a header; None if it is absent or repeated."""
  values = [value for key, value in scope['headers'] if key == name]
  return values[0].decode('latin-1') if len(values) == 1 else None


def _name(host: str) -> str:
  """The name in a Host header, without port and brackets; '' if malformed."""
  found = _HOST.fullmatch(host)
  return (found[1] or found[2]).lower() if found else ''


async def _refuse(send, reason: str):
  body = json.dumps({'error': reason}).encode()
  await send(
    {
      'type': 'http.response.start',
      'status': 403,
      'headers': [
        (b'content-type', b'application/json'),
        (b'content-length', str(len(body)).encode()),
      ],
    }
  )
  await send({'type': 'http.response.body', 'body': body})
