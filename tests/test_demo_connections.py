"""The server over real sockets: slow, large and malformed requests."""

import contextlib
import http.client
import json
import logging as python_logging
import socket
import threading
import time
import types

import pytest
import uvicorn

from demo import connections
from demo import server

JSON = {'Content-Type': 'application/json'}


@pytest.fixture
def port(monkeypatch):
  """The port of a server without models, with a short time for headers."""
  monkeypatch.setattr(connections, 'HEADER_SECONDS', 0.5)
  studio = types.SimpleNamespace(sketchers={}, captioners={})
  listening = socket.create_server(('127.0.0.1', 0))
  running = uvicorn.Server(
    uvicorn.Config(
      server.create(studio),
      http=connections.Connection,
      ws='none',
      lifespan='off',
      limit_concurrency=40,
      log_level='warning',
    )
  )
  thread = threading.Thread(target=running.run, kwargs={'sockets': [listening]})
  thread.start()
  yield listening.getsockname()[1]
  running.should_exit = True
  thread.join()
  listening.close()


def answer(port, method='GET', path='/', body=None, headers=JSON):
  connection = http.client.HTTPConnection('localhost', port, timeout=30)
  with contextlib.closing(connection):
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    return response.status, response.read()


def raw(port, request):
  """The status of the answer to these bytes."""
  with socket.create_connection(('localhost', port), timeout=30) as connection:
    connection.sendall(request)
    return int(connection.recv(4096).split()[1])


def test_half_a_header_does_not_hold_the_server(port):
  halves = []
  for i in range(60):
    half = socket.create_connection(('localhost', port), timeout=30)
    half.sendall(b'GET / HTTP/1.1\r\nHost: localh' if i % 2 else b'')
    halves.append(half)
  for half in halves:
    with contextlib.suppress(ConnectionResetError):
      assert half.recv(100) == b''  # Closed.
    half.close()
  assert answer(port)[0] == 200


def test_a_byte_now_and_then_is_no_header(port):
  """Neither the first header nor one after an answer may take for ever."""
  for before in (b'', b'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n'):
    with socket.create_connection(('localhost', port), timeout=30) as slow:
      slow.sendall(before)
      if before:
        assert slow.recv(100)
      since = time.monotonic()
      with contextlib.suppress(ConnectionError):
        while time.monotonic() < since + 20:
          slow.sendall(b'G')
          time.sleep(0.05)
      assert time.monotonic() - since < 10


@pytest.mark.parametrize('connection', ['close', 'keep-alive'])
@pytest.mark.parametrize('host', ['localhost', 'evil'])
def test_a_file_that_is_too_large_is_refused_and_not_reset(
  port, connection, host
):
  """The client sends all of it before it reads."""
  body = bytes(21_000_000)
  headers = {**JSON, 'Connection': connection, 'Host': host}
  for _ in range(3):
    status, text = answer(port, 'POST', '/api/encode', body, headers)
    if host == 'evil':
      assert status == 403
    else:
      assert status == 413
      assert 'send a smaller file' in json.loads(text)['error']


@pytest.mark.parametrize(
  'header',
  [
    b'Host: localhost:80@evil',
    b'Host: localhost:',
    b'Host: localhost:80:80',
    b'Host: localhost/x',
    b'Host: [::1',
    b'Host: [::1]x',
  ],
)
def test_malformed_hosts_are_refused(port, header):
  assert raw(port, b'GET / HTTP/1.1\r\n' + header + b'\r\n\r\n') == 403


def test_two_lengths_are_refused(port):
  request = (
    b'POST /api/encode HTTP/1.1\r\nHost: localhost\r\n'
    b'Content-Type: application/json\r\nContent-Length: 4\r\n'
    b'Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n'
  )
  assert raw(port, request) in (400, 403)


def test_nothing_of_a_client_is_logged(port, caplog, capfd):
  with caplog.at_level(python_logging.INFO):
    answer(port, path='/?name=secret')
    answer(port, 'POST', '/api/encode', b'{"lines": "secret"}')
    raw(port, b'secret\r\n\r\n')
  text = caplog.text + ''.join(capfd.readouterr())
  assert 'secret' not in text and '127.0.0.1' not in text
