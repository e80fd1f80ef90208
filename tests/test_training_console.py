"""What a run writes: a line on a terminal, plain messages, and log.txt."""

import fcntl
import json
import os
import pathlib
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest
import test_training_loop

from training import console

# One line of each kind; a library's in C++ goes to the descriptor.
_MAIN = """
import os, sys, warnings
from absl import logging
import test_training_loop
from training import app
from training import console

def main(config, workdir):
  logging.info('read %d files', 3)
  logging.warning('look at this')
  warnings.warn('an odd number')
  os.write(2, b'from C\\n')
  test_training_loop.train(workdir)
  console.result('score  3.5')
  {end}

app.run(main)
"""
_TIME = r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d '
_WIDTH = 100


def start(tmp_path, end='pass', **streams):
  """Starts the run; the streams are those of `subprocess.Popen`."""
  workdir = tmp_path / 'small'
  workdir.mkdir(exist_ok=True)
  config = json.dumps(test_training_loop.CONFIG)
  (workdir / 'config.json').write_text(config)
  paths = [str(pathlib.Path(__file__).parent), *sys.path]
  process = subprocess.Popen(
    [sys.executable, '-c', _MAIN.format(end=end), f'--workdir={workdir}'],
    env={
      **os.environ,
      'PYTHONPATH': os.pathsep.join(paths),
      'PYTHON_COLORS': '0',
    },
    **streams,
  )
  return process, workdir / 'log.txt'


def on_terminal(tmp_path, end='pass'):
  """The text that a terminal gets, the log, and the exit status."""
  reader, terminal = pty.openpty()
  size = struct.pack('HHHH', 30, _WIDTH, 0, 0)
  fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)
  process, log = start(tmp_path, end, stdout=terminal, stderr=terminal)
  os.close(terminal)
  parts = []
  while True:
    try:
      parts.append(os.read(reader, 2**16))
    except OSError:  # Linux says so when the other end is closed.
      break
  os.close(reader)
  return b''.join(parts).decode(), log.read_text(), process.wait()


def rows(text):
  """The rows of a terminal at the end, by the rules of an old typewriter."""
  found = []
  for line in text.replace('\r\n', '\n').split('\n'):
    row = ''
    for part in line.split('\r'):
      row = part + row[len(part) :]
    found.append(row.rstrip())
  return [row for row in found if row]


def assert_logged(log):
  for message in (
    'read 3 files',
    'warning: look at this',
    r'warning: .*UserWarning: an odd number',
    r'step 2 \| train/total_loss .*',
    r'step 2 of 7 \(29%\) .*',
    r'step 7 \| validation/score 3.5.*',
    'score  3.5',
  ):
    assert re.search(rf'^{_TIME}{message}$', log, re.M), message


def test_a_terminal_has_one_line_that_redraws(tmp_path):
  text, log, status = on_terminal(tmp_path)
  assert status == 0, text
  shown = rows(text)
  assert shown[:2] == ['warning: look at this', shown[1]]
  assert shown[1].startswith('warning: ') and 'UserWarning' in shown[1]
  line, result = shown[2:]
  assert re.fullmatch(
    r'small 7/7 \|█+\| +[\d.]+ steps/s, ETA 00:00, '
    r'loss=[\d.]+, best score=3.5',
    line,
  )
  assert result == 'score  3.5'
  assert all(len(part) <= _WIDTH for part in re.split('[\r\n]', text))
  # It was redrawn: at the start, while it compiled, evaluated and trained.
  for state in ('starting, log in', '0/7 |', 'compiling', 'evaluating'):
    assert f'{state}' in text
  # Without the prefix of absl, and what belongs in the file.
  assert not re.search(r'[IWE]\d{4} ', text)
  assert 'read 3 files' not in text and 'from C' not in text
  assert_logged(log)
  assert '\nfrom C\n' in log and '\r' not in log


def test_without_a_terminal_messages_are_plain(tmp_path):
  process, log = start(
    tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  )
  printed, text = process.communicate()
  assert process.returncode == 0, text
  assert printed == 'score  3.5\n'
  lines = text.splitlines()
  for line in ('read 3 files', 'warning: look at this', 'from C'):
    assert line in lines
  assert any(line.startswith('step 2 | train/total_loss') for line in lines)
  assert any('UserWarning: an odd number' in line for line in lines)
  assert not re.search(r'^[IWE]\d{4} ', text, re.M) and '\r' not in text
  assert 'score  3.5' not in lines
  assert_logged(log.read_text())


def test_a_second_run_appends_and_errors_are_logged(tmp_path):
  _, before, _ = on_terminal(tmp_path)
  text, log, status = on_terminal(tmp_path, "raise RuntimeError('too few')")
  assert status == 1
  assert log.startswith(before) and len(log) > len(before)
  assert 'RuntimeError: too few' in log[len(before) :]
  # Python's traceback comes below the line.
  assert text.count('RuntimeError: too few') == 1
  assert 'Traceback (most recent call last):' in rows(text)


def test_progress_without_a_terminal_is_a_message_a_minute(monkeypatch, caplog):
  seconds = iter([0, 10, 70, 80, 131])
  monkeypatch.setattr(console, '_now', lambda: next(seconds))
  monkeypatch.setattr(console, 'is_terminal', lambda: False)
  with (
    caplog.at_level('INFO'),
    console.progress('Encoding', total=9, unit='records') as update,
  ):
    for _ in range(4):
      update(2)
  assert caplog.messages == [
    'Encoding: 4 of 9 records',
    'Encoding: 8 of 9 records',
  ]


@pytest.mark.parametrize('process', [0, 1])
def test_other_processes_have_their_own_log(tmp_path, process, capsys, caplog):
  with caplog.at_level('INFO'), console.run(tmp_path, process):
    console.notice('here')
    console.result('a table')
  name = 'log.1.txt' if process else 'log.txt'
  assert [path.name for path in tmp_path.iterdir()] == [name]
  log = (tmp_path / name).read_text()
  assert re.fullmatch(f'{_TIME}here\n{_TIME}a table\n', log)
  assert capsys.readouterr().out == ('' if process else 'a table\n')
