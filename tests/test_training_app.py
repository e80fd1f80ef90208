"""The stored config comes back; flags that lack others say so."""

import logging as python_logging
import os
import pathlib
import signal
import subprocess
import sys

import ml_collections
import pytest

from configs import scenes
from training import app
from training import checkpoints


def test_stored_config_comes_back(tmp_path):
  config = scenes.get_config()
  checkpoints.write_config(tmp_path, config)
  read = app.read_config(tmp_path)
  assert read.to_json(sort_keys=True) == config.to_json(sort_keys=True)
  # And again: a resumed run stores what it has read.
  checkpoints.write_config(tmp_path, read)
  assert app.read_config(tmp_path) == read


def test_config_of_nowhere_says_what_to_pass(tmp_path):
  with pytest.raises(FileNotFoundError, match='pass --config=configs/NAME.py'):
    app.read_config(tmp_path)


def test_config_that_is_not_json_is_named(tmp_path):
  (tmp_path / 'config.json').write_text('{"seed": ')
  with pytest.raises(ValueError, match='config.json is not JSON'):
    app.read_config(tmp_path)


def test_changes_since_the_start_are_logged(tmp_path, caplog):
  config = ml_collections.ConfigDict({'a': {'b': 1, 'c': 2}})
  checkpoints.write_config(tmp_path, config)
  config.a.b = 3
  with caplog.at_level(python_logging.WARNING):
    checkpoints.write_config(tmp_path, config)
  (record,) = caplog.records
  assert 'config.a.b is 3 now, 1 in' in record.getMessage()


@pytest.mark.parametrize('given', [(2, None), (None, 0)])
def test_hosts_need_all_three_flags(given):
  with pytest.raises(
    ValueError, match='needs --num_processes and --process_id'
  ):
    app.start_hosts('localhost:1', *given)


def test_nothing_stops_without_sigterm():
  assert not app.stopping(0)
  app.raise_if_stopping()


# The flags, the handler of SIGTERM and the exit status belong to a process.
_MAIN = """
import os, signal, sys
from training import app

def main(config, workdir):
  print('workdir', workdir, 'a', config.a)
  assert not app.stopping(0)
  app.raise_if_stopping()
  os.kill(os.getpid(), signal.SIGTERM)
  assert app.stopping(1)
  app.raise_if_stopping()
  print('never')

app.run(main)
"""


def test_sigterm_ends_a_main_with_its_status(tmp_path):
  (tmp_path / 'config.json').write_text('{"a": 5}')
  run = subprocess.run(
    [sys.executable, '-c', _MAIN, '--workdir=.'],
    cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert run.returncode == 143, run.stderr
  assert run.stdout == f'workdir {tmp_path} a 5\n'
  assert 'Stopped by SIGTERM' in run.stderr


_USE = """
from training import app

def use(workdir, files):
  print('files', files, 'of', workdir.name)
  return 3

app.run(None, use={use})
"""


@pytest.mark.parametrize(
  ('use', 'options', 'status', 'message'),
  [
    ('use', (), 3, "files ['a', 'b'] of runs"),
    ('use', ('--config=configs/scenes.py',), 2, 'pass one of the two'),
    ('None', (), 2, 'unexpected arguments: a b'),
  ],
)
def test_files_are_for_commands_that_use_them(use, options, status, message):
  run = subprocess.run(
    [
      *(sys.executable, '-c', _USE.format(use=use)),
      *('--workdir=runs', 'a', 'b', *options),
    ],
    cwd=pathlib.Path(__file__).parents[1],
    capture_output=True,
    text=True,
    check=False,
  )
  assert run.returncode == status, run.stderr
  assert message in run.stdout + run.stderr


# As libraries do: one logs while it is imported, one all the time.
_COMMAND = """
from absl import logging
logging.info('before')
from training import app
app.set_up_logging()
app.set_up_logging()
from orbax import noise
logging.info('ours')
"""
_NOISE = """
from absl import logging
logging.info('a file')
logging.warning('another file')
logging.error('a broken file')
"""


def test_libraries_do_not_log_every_file(tmp_path):
  (tmp_path / 'orbax').mkdir()
  (tmp_path / 'orbax' / 'noise.py').write_text(_NOISE)
  run = subprocess.run(
    [sys.executable, '-c', _COMMAND],
    env={
      **os.environ,
      'PYTHONPATH': os.pathsep.join([str(tmp_path), *sys.path]),
    },
    capture_output=True,
    text=True,
    check=True,
  )
  assert run.stderr.splitlines() == ['error: a broken file', 'ours']


# The signals go to the process while it is in its main.
_INTERRUPTED = """
import os, signal, sys, time
from training import app

def main(config, workdir):
  os.kill(os.getpid(), signal.SIGINT)
  assert app.stopping(1)
  if {twice}:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
  app.raise_if_stopping()

app.run(main)
"""


@pytest.mark.parametrize(
  ('twice', 'status'), [(False, 130), (True, -signal.SIGINT)]
)
def test_ctrl_c_stops_as_sigterm_does_and_a_second_one_at_once(
  tmp_path, twice, status
):
  (tmp_path / 'config.json').write_text('{"a": 5}')
  run = subprocess.run(
    [sys.executable, '-c', _INTERRUPTED.format(twice=twice), '--workdir=.'],
    cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert run.returncode == status, run.stderr
  assert 'Stopping after this step' in run.stderr
  assert 'Traceback' not in run.stderr
  assert ('Stopped by Ctrl-C' in run.stderr) == (not twice)
