"""Two hundred requests at the same time, over the sockets of a real server."""

import asyncio
import contextlib
import json
import re
import signal
import time
import urllib.request

import commands
import demo_workdirs
import numpy as np
import pytest

from demo import load

LINES = [[[60, 60], [120, 50], [180, 70]], [[60, 120], [180, 130]]]


@contextlib.contextmanager
def serving(directory, *workdirs):
  """The command, running on models; yields it and its address."""
  shell = commands.Shell(directory)
  command = shell.start(
    'demo',
    *(f'--workdir={workdir}' for workdir in workdirs),
    *('--port=0', '--no_browser'),
    devices=1,
  )
  deadline = time.monotonic() + commands.PATIENCE
  try:
    address = None
    while not (address and ready(address)):
      assert command.process.poll() is None, command.output.read_text()
      assert time.monotonic() < deadline, command.output.read_text()
      said = re.search(r'The page is at (\S+)', command.output.read_text())
      address = said and said[1]
      time.sleep(0.1)
    yield command, address
    command.process.send_signal(signal.SIGTERM)
    command.process.wait(commands.PATIENCE)
    assert 'Traceback' not in command.output.read_text()
  finally:
    command.process.kill()


@pytest.fixture(scope='module')
def server(tmp_path_factory):
  """The address of a running server."""
  directory = tmp_path_factory.mktemp('demo')
  workdir = demo_workdirs.sketcher(directory / 'vae')
  with serving(directory, workdir) as (_, address):
    yield address


def ready(address):
  with urllib.request.urlopen(f'{address}api/models') as response:
    return json.load(response)['ready']


def request(number, **others):
  return {
    'id': number,
    'model': 'vae',
    'lines': LINES,
    'count': 1 + number % 3,
    'temperature': 0.25 * (1 + number % 4),
    'seed': number,
    **others,
  }


def test_two_hundred_at_the_same_time_and_none_lost(server):
  """Each is answered as it is alone."""
  messages = [request(number) for number in range(200)]
  answers = asyncio.run(load.draw_all(server, messages))
  print(load.describe(answers))
  assert [answer.error for answer in answers] == [None] * 200
  assert all(
    len(answer.endings) == 1 + i % 3 for i, answer in enumerate(answers)
  )
  for number in (0, 7, 42, 199):
    (alone,) = asyncio.run(load.draw_all(server, [messages[number]]))
    for a, b in zip(answers[number].endings, alone.endings, strict=True):
      np.testing.assert_allclose(
        np.array(a).reshape(-1, 3), np.array(b).reshape(-1, 3), atol=0.01
      )


def test_beyond_the_queue_it_is_busy_and_goes_on(server):
  """A thousand requests from a few sockets: each is answered or refused."""

  async def flood(connection):
    for number in range(100):
      connection.send(request(number))
    ended = {}
    while len(ended) < 100:
      answer = await connection.receive()
      if 'done' in answer or 'error' in answer:
        ended[answer['id']] = answer
    return ended.values()

  async def flood_all():
    async with asyncio.TaskGroup() as group:
      tasks = []
      for _ in range(10):
        tasks.append(group.create_task(one()))
    return [answer for task in tasks for answer in task.result()]

  async def one():
    async with load.Connection(server) as connection:
      return await flood(connection)

  ended = asyncio.run(flood_all())
  assert len(ended) == 1000
  refused = [answer for answer in ended if 'error' in answer]
  assert all(
    answer['busy'] and 'cancel some' in answer['error'] for answer in refused
  )
  assert 0 < len(refused) < 1000
  (answer,) = asyncio.run(load.draw_all(server, [request(1)]))
  assert answer.error is None


def test_a_message_that_is_too_large_ends_the_connection_alone(server):
  async def send():
    async with load.Connection(server) as connection:
      connection.send({'id': 1, 'model': 'x' * 2**21})
      with pytest.raises(ConnectionError):
        while True:
          await connection.receive()

  asyncio.run(send())
  (answer,) = asyncio.run(load.draw_all(server, [request(1)]))
  assert answer.error is None


def test_answers_in_words():
  answers = [load.Answer(0.01 * i, 0.1 * i, []) for i in range(1, 101)]
  answers[3] = load.Answer(1.0, 10.0, [], 'busy')
  words = load.describe(answers)
  assert words.startswith('100 requests, 1 lost; first points p50 5')
  assert 'the end p50 5' in words and 'p95' in words
