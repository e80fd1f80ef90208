"""The page's server under slow clients, many requests and damaged bodies."""

import asyncio
import concurrent.futures
import functools
import http.client
import io
import json
import pathlib
import re
import socket
import time
import urllib.parse
from collections.abc import Iterator

import demo_workdirs
import numpy as np
import test_demo_load
import test_readers
from PIL import Image
from wsproto import events

from demo import load
from torture import table

_JSON = 'application/json'
_UNUSED = 1_000_000_007  # No damaged message has this id.
_MAX_GROWTH = 200  # MB of memory, over 2,000 requests.
_LINES = test_demo_load.LINES
_ENCODE = {'model': 'vae', 'lines': _LINES}
# What a client may be answered; never 500.
_STATUSES = (200, 400, 404, 408, 413, 415, 503)


def _post(address, path, body, kind=_JSON, timeout=300):
  """The status and the contents of an answer."""
  parts = urllib.parse.urlsplit(address)
  connection = http.client.HTTPConnection(
    parts.hostname, parts.port, timeout=timeout
  )
  try:
    connection.request('POST', path, body, {'content-type': kind})
    answer = connection.getresponse()
    return answer.status, answer.read()
  finally:
    connection.close()


def _serving(directory):
  return test_demo_load.serving(
    directory,
    demo_workdirs.sketcher(directory / 'vae'),
    demo_workdirs.captioner(directory / 'photos'),
    demo_workdirs.video_captioner(directory / 'clips'),
  )


def _draw(address, messages):
  return asyncio.run(load.draw_all(address, messages))


def slow_clients(
  count: int,
  directory: pathlib.Path,
  shared: pathlib.Path,
  rng: np.random.Generator,
) -> Iterator[table.Outcome]:
  """Clients that send a byte a second are sent away; others are served."""
  del shared, rng
  with _serving(directory) as (_, address):
    parts = urllib.parse.urlsplit(address)
    head = (
      'POST /api/encode HTTP/1.1\r\n'
      f'Host: {parts.netloc}\r\nContent-Type: {_JSON}\r\n'
      'Content-Length: 5000\r\n\r\n'
    )
    slow = []
    for _ in range(count):
      client = socket.create_connection((parts.hostname, parts.port))
      client.sendall(head.encode())
      client.settimeout(120)
      slow.append(client)
    for second in range(5):
      for client in slow:
        client.sendall(b'[')
      time.sleep(1)
      (answer,) = _draw(address, [test_demo_load.request(second)])
      kind = 'right' if answer.error is None else 'wrong'
      check = 'a request beside slow clients'
      yield table.Outcome(check, kind, text=answer.error or '')
    check = 'a slow client is sent away'
    for client in slow:
      try:
        said = client.recv(1000).decode()
      except OSError as error:
        said = repr(error)
      finally:
        client.close()
      kind = 'right' if said.startswith('HTTP/1.1 408') else 'wrong'
      yield table.Outcome(check, kind, text='' if kind == 'right' else said)


def at_once(
  count: int,
  directory: pathlib.Path,
  shared: pathlib.Path,
  rng: np.random.Generator,
) -> Iterator[table.Outcome]:
  """Requests at the same time are all answered, each as it is alone."""
  del shared
  check = f'a request of {count} at once'
  messages = [
    test_demo_load.request(i, seed=int(rng.integers(2**31)))
    for i in range(count)
  ]
  with _serving(directory) as (_, address):
    answers = _draw(address, messages)
    compared = {*rng.choice(count, min(count, 20), replace=False)}
    for i, answer in enumerate(answers):
      kind, text = 'right', answer.error or ''
      if answer.error is not None:
        kind = 'wrong'
      elif i in compared:
        (alone,) = _draw(address, [messages[i]])
        if not _same(answer.endings, alone.endings):
          kind, text = 'silent', f'request {i} is drawn otherwise alone'
      yield table.Outcome(check, kind, text=text)


def _same(endings, others):
  """Whether drawings are equal within the rounding of their points."""
  arrays = [
    [np.array(ending).reshape(-1, 3) for ending in one]
    for one in (endings, others)
  ]
  return [x.shape for x in arrays[0]] == [x.shape for x in arrays[1]] and all(
    np.allclose(a, b, atol=0.01) for a, b in zip(*arrays, strict=True)
  )


def _megabytes(process):
  status = pathlib.Path(f'/proc/{process.pid}/status').read_text()
  return int(re.search(r'VmRSS:\s+(\d+)', status)[1]) / 1024


def many_requests(
  count: int,
  directory: pathlib.Path,
  shared: pathlib.Path,
  rng: np.random.Generator,
) -> Iterator[table.Outcome]:
  """All are answered alike, and the memory does not grow."""
  del shared, rng
  body = json.dumps(_ENCODE)
  check = f'a request of {count} in a row'
  with _serving(directory) as (command, address):
    _, expected = _post(address, '/api/encode', body)
    expected = json.loads(expected)

    def ask(_):
      status, contents = _post(address, '/api/encode', body)
      if status != 200:
        return 'wrong', f'status {status}'
      found = json.loads(contents)
      if all(np.allclose(found[k], expected[k], atol=1e-4) for k in expected):
        return 'right', ''
      return 'silent', 'other latent vectors'

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
      warm = [*pool.map(ask, range(count // 4))]
      before = _megabytes(command.process)
      rest = [*pool.map(ask, range(count - count // 4))]
    after = _megabytes(command.process)
    for kind, text in (*warm, *rest):
      yield table.Outcome(check, kind, text=text)
    kind = 'right' if after < before + _MAX_GROWTH else 'wrong'
    text = f'{before:.0f} MB, then {after:.0f} MB'
    yield table.Outcome(f'memory after {count} requests', kind, text=text)


def _good_bodies(directory):
  """(path, contents, type) of requests that are answered with 200."""
  sampling = {'model': 'vae', 'temperature': 0.5, 'seed': 3}
  image = io.BytesIO()
  Image.fromarray(test_readers.PIXELS[0]).save(image, 'PNG')
  bodies = [
    (f'/api/{path}', json.dumps(message).encode(), _JSON)
    for path, message in (
      ('encode', _ENCODE),
      ('decode', {**sampling, 'z': [[0.5, -1, 0, 2]]}),
      (
        'interpolate',
        {**sampling, 'first': _LINES, 'second': _LINES, 'steps': 3},
      ),
      ('analogy', {**sampling, **dict.fromkeys('abc', _LINES)}),
    )
  ]
  bodies.append(('/api/caption?model=photos', image.getvalue(), 'image/png'))
  video = test_readers._video('mp4', directory)
  bodies.append(('/api/caption_video?model=clips', video, 'video/mp4'))
  return bodies


def damaged_bodies(
  count: int,
  directory: pathlib.Path,
  shared: pathlib.Path,
  rng: np.random.Generator,
) -> Iterator[table.Outcome]:
  """Each is answered or refused with a reason, and never a failure."""
  del shared
  check = 'a damaged body'
  with _serving(directory) as (command, address):
    bodies = _good_bodies(directory)
    for path, body, kind_of_body in bodies:
      status, answer = _post(address, path, body, kind_of_body)
      assert status == 200, f'{path}: {status} {answer}'
    for i in range(count):
      path, body, kind_of_body = bodies[i % len(bodies)]
      body = test_readers.mutated(body, rng)
      try:
        status, answer = _post(address, path, body, kind_of_body)
        good = status in _STATUSES
        good &= status == 200 or bool(json.loads(answer)['error'])
        text = '' if good else f'{path}: {status} {answer}, {body[:200]}'
      except (OSError, ValueError, http.client.HTTPException) as error:
        text = f'{path}: {error!r}, {body[:200]}'
      yield table.Outcome(check, 'wrong' if text else 'right', text=text[:500])
    yield from asyncio.run(_damaged_messages(address, count, rng))
    if 'Traceback' in command.output.read_text():
      text = command.output.read_text()[-1000:]
      yield table.Outcome(check, 'wrong', text=text)


async def _damaged_messages(address, count, rng):
  """The outcomes of damaged messages over a WebSocket."""
  check, outcomes = 'a damaged message', []
  good = json.dumps(test_demo_load.request(1, count=1, most=3)).encode()
  async with load.Connection(address) as connection:
    for i in range(count):
      damaged = test_readers.mutated(good, rng)
      text = ''
      try:
        connection._write(events.BytesMessage(damaged))
        # The answer to what is wrong: all before it has been read.
        connection.send({'id': _UNUSED + i})
        async with asyncio.timeout(60):
          while (await connection.receive()).get('id') != _UNUSED + i:
            pass
      except (ConnectionError, TimeoutError, ValueError) as error:
        text = f'{error!r}: {damaged[:200]}'
      outcomes.append(
        table.Outcome(check, 'wrong' if text else 'right', text=text)
      )
      if text:
        break
  (answer,) = await load.draw_all(address, [test_demo_load.request(1)])
  kind = 'right' if answer.error is None else 'wrong'
  outcomes.append(table.Outcome(check, kind, text=answer.error or ''))
  return outcomes


def cases(*, quick: bool) -> list[table.Case]:
  """Slow clients, 500 requests at once, 2,000 in a row, 1,000 bodies."""
  if quick:
    return [table.Case('server/bodies', functools.partial(damaged_bodies, 30))]
  return [
    table.Case(f'server/{name}', functools.partial(run, count))
    for name, run, count in (
      ('slow', slow_clients, 50),
      ('at_once', at_once, 500),
      ('many', many_requests, 2000),
      ('bodies', damaged_bodies, 1000),
    )
  ]
