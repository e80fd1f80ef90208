"""Checks the host and origin of each request, and adds security headers.

The server is meant for its own page alone. Pages of other origins in the same
browser must not use it: the origin is checked. They must not reach it by a host
name that resolves to this machine either: the host is checked.
"""

import ipaddress
import json
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

    async def send_with_headers(message):
      if message['type'] == 'http.response.start':
        headers = list(message.get('headers', ()))
        present = {name.lower() for name, _ in headers}
        headers += [
          (name.lower().encode(), value.encode())
          for name, value in HEADERS.items()
          if name.lower().encode() not in present
        ]
        message = {**message, 'headers': headers}
      await send(message)

    if reason is None:
      await self._app(scope, receive, send_with_headers)
    else:
      await _refuse(send_with_headers, reason)

  def _reason(self, scope) -> str | None:
    """Returns the reason to refuse a request, or None."""
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


def _header(scope, name: bytes) -> str | None:
  """The value of a header; None if it is absent or repeated."""
  values = [value for key, value in scope['headers'] if key == name]
  return values[0].decode('latin-1') if len(values) == 1 else None


def _name(host: str) -> str:
  """The host name of a Host header, without port and IPv6 brackets."""
  if host.startswith('['):
    return host[1:].partition(']')[0].lower()
  return host.partition(':')[0].lower()


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
