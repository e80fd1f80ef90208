"""Of several processes none waits for one that has died."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

from training import hosts

ROOT = pathlib.Path(__file__).parents[1]
# The work of the other process, while the first one fails, dies or is stopped.
_MAIN = """
import contextlib, os, pathlib, sys, time
from training import app, hosts, parallel

hosts._PATIENCE = 3
hosts._EVERY = 0.5

def main(config, workdir):
  index = parallel.jax.process_index()
  (workdir / f'ready{index}').write_text(str(os.getpid()))
  if config.stops == 'preparing' and index == 0:
    with app.stopping_at_once():
      time.sleep(100)
  if config.stops == 'preparing':
    parallel.wait_for_all('prepared')
  if config.stops == 'evaluating':
    with app.stopping_together():
      while True:
        app.raise_if_any_stops()
        app.raise_if_stopping()
        time.sleep(0.01)
  count = 0
  while True:
    parallel.gather_texts('a')
    count += 1
    if config.fails == index and count == 5:
      raise OSError('the disk is full')
    if config.ends == index and count == 5:
      sys.exit(7)
    if config.sleeps:
      time.sleep(100)
    time.sleep(0.01)

app.run(main)
"""
_START = """
from training import app, hosts

hosts.START = 2
app.run(print)
"""


def free_port():
  with socket.socket() as found:
    found.bind(('localhost', 0))
    return found.getsockname()[1]


def start(code, workdir, index, port, **environment):
  return subprocess.Popen(
    [
      *(sys.executable, '-c', code, f'--workdir={workdir}'),
      f'--coordinator_address=localhost:{port}',
      *('--num_processes=2', f'--process_id={index}'),
    ],
    cwd=ROOT,
    env={
      **os.environ,
      'XLA_FLAGS': '--xla_force_host_platform_device_count=1',
      **environment,
    },
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


@pytest.fixture
def start_two(tmp_path):
  """Starts two processes and waits until they work together."""
  started = []

  def start_all(fails=-1, ends=-1, *, sleeps=False, stops=''):
    fields = {'fails': fails, 'ends': ends, 'sleeps': sleeps, 'stops': stops}
    (tmp_path / 'config.json').write_text(json.dumps(fields))
    port = free_port()
    started.extend(start(_MAIN, tmp_path, i, port) for i in range(2))
    for i in range(2):
      ready = tmp_path / f'ready{i}'
      while not ready.exists() or not ready.read_text():
        assert started[i].poll() is None, started[i].communicate()
        time.sleep(0.02)
    return started

  yield start_all
  for process in started:
    process.kill()
    process.communicate()


def sentence(reason):
  return (
    f'error: process {reason}: all processes stop; start the same command on '
    'every host to resume from the last checkpoint'
  )


def own_lines(text):
  """The lines of stderr without those of JAX from before the run."""
  return [
    x for x in text.splitlines() if 'Gloo' not in x and 'devices:' not in x
  ]


def slow(*values):
  return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
  ('victim', 'sleeps'), [(0, False), (1, False), slow(0, True), slow(1, True)]
)
def test_a_process_that_is_killed_ends_the_other(start_two, victim, sleeps):
  """In an operation of both, and outside of any."""
  processes = start_two(sleeps=sleeps)
  time.sleep(0.3)
  processes[victim].kill()
  since = time.monotonic()
  other = processes[1 - victim]
  _, errors = other.communicate(timeout=60)
  assert time.monotonic() - since < 20
  assert other.returncode == hosts.LOST == 75
  host = socket.gethostname()
  assert own_lines(errors) == [sentence(f'{victim} ({host}) has died')]


@pytest.mark.parametrize('victim', [slow(0), 1])
def test_a_process_that_is_silent_ends_the_other(start_two, victim):
  processes = start_two()
  processes[victim].send_signal(signal.SIGSTOP)
  other = processes[1 - victim]
  _, errors = other.communicate(timeout=60)
  assert other.returncode == 75
  host = socket.gethostname()
  silent = sentence(f'{victim} ({host}) has been silent for 3 seconds')
  assert own_lines(errors) == [silent]


@pytest.mark.parametrize('victim', [slow(0), 1])
def test_a_process_that_fails_says_why_in_both(start_two, victim):
  processes = start_two(fails=victim)
  outputs = [process.communicate(timeout=100)[1] for process in processes]
  assert processes[victim].returncode == 2
  assert processes[1 - victim].returncode == 75
  assert outputs[victim].endswith('error: the disk is full\n')
  host = socket.gethostname()
  reason = f'{victim} ({host}) has failed (OSError: the disk is full)'
  assert own_lines(outputs[1 - victim]) == [sentence(reason)]


@pytest.mark.parametrize(
  ('work', 'index'),
  [
    ('preparing', 0),  # While the other one waits for it in JAX.
    ('preparing', 1),  # In JAX, where Python has no handlers.
    ('evaluating', 0),
    slow('evaluating', 1),
  ],
)
def test_a_signal_to_one_stops_both(start_two, work, index):
  processes = start_two(stops=work)
  time.sleep(0.3)
  processes[index].send_signal(signal.SIGTERM)
  since = time.monotonic()
  outputs = [process.communicate(timeout=60)[1] for process in processes]
  assert time.monotonic() - since < 30
  assert [process.returncode for process in processes] == [143, 143], outputs
  said = hosts.STOPPED % 'SIGTERM'
  assert [own_lines(text) for text in outputs] == [[said], [said]]


@pytest.mark.slow
def test_a_process_that_exits_keeps_its_status(start_two):
  processes = start_two(ends=1)
  for process in processes:
    process.communicate(timeout=100)
  assert [process.returncode for process in processes] == [75, 7]


@pytest.mark.parametrize('index', [0, slow(1)])
def test_who_waits_for_the_others_in_vain_says_what_to_do(tmp_path, index):
  (tmp_path / 'config.json').write_text('{}')
  port = free_port()
  process = start(_START, tmp_path, index, port)
  _, errors = process.communicate(timeout=60)
  assert process.returncode == 75
  (line,) = own_lines(errors)
  waited = (
    f'error: waited 2 seconds at localhost:{port} for the other processes'
  )
  assert line.startswith(waited)


def test_a_process_of_a_wrong_number_says_so(tmp_path):
  (tmp_path / 'config.json').write_text('{}')
  process = start(_START, tmp_path, 2, 1)
  output, errors = process.communicate(timeout=60)
  assert process.returncode
  said = '--process_id=2 must be from 0 to 1: one of --num_processes=2'
  assert said in output + errors
  assert 'Traceback' not in errors
