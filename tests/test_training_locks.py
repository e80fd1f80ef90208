"""A workdir belongs to one process, and to none that has died."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from training import locks

_HOLD = """
import pathlib, sys, time
from training import locks
with locks.alone(pathlib.Path(sys.argv[1])):
  print('held', flush=True)
  time.sleep(600)
"""


def hold(path):
  process = subprocess.Popen(
    [sys.executable, '-c', _HOLD, str(path)], stdout=subprocess.PIPE, text=True
  )
  assert process.stdout.readline() == 'held\n'
  return process


def test_a_second_process_is_refused_and_told_of_the_first(tmp_path):
  path = tmp_path / 'new' / 'run'
  first = hold(path)
  try:
    with pytest.raises(
      ValueError, match=f'{path} is in use by process'
    ) as error:
      with locks.alone(path):
        pass
    assert f'process {first.pid} on ' in str(error.value)
    with locks.alone(tmp_path / 'other'):
      pass
  finally:
    first.send_signal(signal.SIGKILL)
    first.communicate()
  with locks.alone(path):  # The dead hold nothing.
    assert (path / '.lock').read_text().startswith(f'process {os.getpid()} ')
  with locks.alone(path):
    pass


def test_where_locks_are_unknown_it_is_said(tmp_path, monkeypatch, caplog):
  def flock(*_):
    raise OSError(38, 'Function not implemented')

  monkeypatch.setattr(locks.fcntl, 'flock', flock)
  with locks.alone(tmp_path):
    pass
  assert f'Cannot lock {tmp_path}' in caplog.text


def test_one_waits_for_the_other(tmp_path):
  seen = []

  def work():
    with locks.waiting(tmp_path):
      seen.append('second')

  with locks.waiting(tmp_path):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(0.2)
    seen.append('first')
  thread.join()
  assert seen == ['first', 'second']


_MAIN = """
import sys
from training import app

def main(config, workdir):
  print('runs')
  sys.stdout.flush()
  sys.stdin.read()

app.run(main)
"""


def test_two_trainings_do_not_share_a_workdir(tmp_path):
  (tmp_path / 'config.json').write_text('{"a": 5}')
  command = [sys.executable, '-c', _MAIN, f'--workdir={tmp_path}']
  first = subprocess.Popen(
    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
  )
  assert first.stdout.readline() == 'runs\n'
  second = subprocess.run(command, capture_output=True, text=True, check=False)
  first.communicate('')
  assert first.returncode == 0
  assert second.returncode == 2
  assert f'{tmp_path} is in use by process {first.pid} on' in second.stderr
  assert 'Traceback' not in second.stderr


_ADD = """
import pathlib, sys
from training import results
for i in range(20):
  results.add(pathlib.Path(sys.argv[1]), f'{sys.argv[2]}{i}', {'scores': {}})
"""


def test_evaluations_beside_one_another_lose_no_results(tmp_path):
  """Beside a training, too, which holds the workdir."""
  with locks.alone(tmp_path):
    started = [
      subprocess.Popen([sys.executable, '-c', _ADD, str(tmp_path), name])
      for name in 'ab'
    ]
    assert [process.wait() for process in started] == [0, 0]
  entries = json.loads((tmp_path / 'results.json').read_text())
  assert sorted(entries) == sorted(f'{x}{i}' for x in 'ab' for i in range(20))
