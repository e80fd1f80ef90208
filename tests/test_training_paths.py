"""Paths on the command line are those of this machine."""

import argparse
import os
import pathlib
import re
import subprocess
import sys

import pytest

from training import paths
from training import released


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  return str(tmp_path)


@pytest.mark.parametrize(
  ('argument', 'expected'),
  [
    ('~/x', '{}/x'),
    ('~', '{}'),
    ('--workdir=~/x', '--workdir={}/x'),
    ('-workdir=~/x', '-workdir={}/x'),
    ('--config.data.data_dir=~/x=y', '--config.data.data_dir={}/x=y'),
    ('--workdir=x~', '--workdir=x~'),
    ('--workdir=a/~/x', '--workdir=a/~/x'),
    ('--decoding=beam_size=3', '--decoding=beam_size=3'),
    ('a:0-9', 'a:0-9'),
    ('--coordinator_address=host:80', '--coordinator_address=host:80'),
    ('--greedy', '--greedy'),
    ('--config.encoder_weights=hf://a/b', '--config.encoder_weights=hf://a/b'),
    ('--weights=hf://a/b/c', '--weights=hf://a/b/c'),
    ('a\n=~', 'a\n=~'),
    ('', ''),
  ],
)
def test_a_leading_tilde_is_the_home(argument, expected, home):
  assert paths.expand([argument]) == [expected.replace('{}', home)]


@pytest.mark.parametrize(
  'argument',
  [
    '--workdir=gs://b/x',
    '--config.data.data_dir=s3://b/x',
    'https://x.org/a.jpg',
    '--workdir=GS://b',
    '--workdir=hf://a/b',
    '--config.encoder_weights=gs://a/b',
  ],
)
def test_remote_paths_are_refused(argument, capsys):
  with pytest.raises(ValueError, match='only paths of this machine') as error:
    paths.expand(['a', argument])
  assert str(error.value).startswith(argument)
  with pytest.raises(SystemExit):
    paths.arguments(argparse.ArgumentParser(), [argument])
  assert 'mount the remote directory' in capsys.readouterr().err


def test_weights_of_the_hub_may_follow_their_flag():
  given = ['--weights', 'hf://a/b', '--output=x']
  assert paths.expand(given) == given
  with pytest.raises(ValueError, match='only paths of this machine'):
    paths.expand(['--output', 'hf://a/b'])


def test_arguments_of_the_process(monkeypatch, home):
  monkeypatch.setattr(sys, 'argv', ['x', '--workdir=~'])
  assert paths.arguments(argparse.ArgumentParser()) == [f'--workdir={home}']


def test_a_workdir_in_python(home):
  assert released.resolve('~/x') == pathlib.Path(home, 'x')


def test_every_command_expands_them():
  """Those that name a path: all that parse arguments."""
  root = pathlib.Path(__file__).parents[1]
  wrong = [
    str(path.relative_to(root))
    for path in root.glob('[a-z]*/*.py')
    if not path.is_relative_to(root / 'tests')
    and re.search(r'= (argparse.Argument|errors.)Parser\(', path.read_text())
    and 'paths.arguments(' not in path.read_text()
  ]
  # Starts another Python, that may lack this repository; no path of a user.
  assert wrong == ['benchmarks/side_by_side.py']


_MAIN = """
from training import app
app.run(lambda config, workdir: print(workdir, config.data.data_dir))
"""


def test_a_main_expands_and_refuses(tmp_path):
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'config.json').write_text('{"data": {"data_dir": "/d"}}')

  def run(workdir):
    return subprocess.run(
      [sys.executable, '-c', _MAIN, f'--workdir={workdir}'],
      cwd=tmp_path,
      env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
      capture_output=True,
      text=True,
      check=False,
    )

  good, bad = run('~/run'), run('gs://b/run')
  assert good.stdout == f'{tmp_path}/run /d\n', good.stderr
  assert bad.returncode == 2
  assert '--workdir=gs://b/run: only paths of this machine' in (
    bad.stdout + bad.stderr
  )
  assert [path.name for path in tmp_path.iterdir()] == ['run']
