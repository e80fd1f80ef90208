"""Models come to be: named, loaded, trained where absent; and go."""

import pathlib
import re
import textwrap
import time

import demo_workdirs
import pytest

from demo import __main__ as command
from demo import studio as studio_lib

PATIENCE = 300
TRAINING = studio_lib.Training('trains', 'config.py')


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  root = tmp_path_factory.mktemp('trained')
  return {
    'sketcher': demo_workdirs.sketcher(root / 'a' / 'model'),
    'captioner': demo_workdirs.captioner(root / 'b' / 'model'),
    'video': demo_workdirs.video_captioner(root / 'c' / 'clips'),
  }


@pytest.fixture
def trains(tmp_path, monkeypatch, trained):
  """A main that trains step by step; returns what lets it end."""
  (tmp_path / 'trains.py').write_text(
    textwrap.dedent(f"""
      import pathlib, shutil, sys, time
      config, workdir = (a.partition('=')[2] for a in sys.argv[1:])
      here = pathlib.Path(__file__).parent
      workdir = pathlib.Path(workdir)
      assert config == 'config.py'
      workdir.mkdir(parents=True, exist_ok=True)
      (workdir / 'config.json').write_text('{{"num_steps": 40}}')
      (workdir / 'metrics.jsonl').write_text('{{"step": 10}}\\n{{"step": 20}}')
      while not (here / 'go_on').exists():
        time.sleep(0.01)
      if (here / 'go_on').read_text() == 'fail':
        sys.exit(3)
      shutil.copytree({str(trained['sketcher'])!r}, workdir, dirs_exist_ok=True)
      (workdir / 'results.json').write_text('{{}}')
    """)
  )
  (tmp_path / 'config.py').touch()
  monkeypatch.setenv('PYTHONPATH', str(tmp_path))
  monkeypatch.chdir(tmp_path)
  return tmp_path / 'go_on'


def wait_for(happened):
  deadline = time.monotonic() + PATIENCE
  while not happened():
    assert time.monotonic() < deadline
    time.sleep(0.01)


def test_kinds_are_told_apart_and_equal_names_numbered(trained, tmp_path):
  assert {
    name: studio_lib.model_kind(path) for name, path in trained.items()
  } == {
    'sketcher': studio_lib.SKETCHER,
    'captioner': studio_lib.CAPTIONER,
    'video': studio_lib.VIDEO_CAPTIONER,
  }
  studio = studio_lib.Studio([(path, None) for path in trained.values()])
  assert [one['name'] for one in studio.progress()] == [
    'model',
    'model-2',
    'clips',
  ]
  with pytest.raises(FileNotFoundError, match='does not exist'):
    studio_lib.model_kind(tmp_path)
  (tmp_path / 'config.json').write_text('{"model": "unknown"}')
  with pytest.raises(ValueError, match='neither of sketch_rnn nor'):
    studio_lib.model_kind(tmp_path)


def test_what_cannot_be_used_does_not_stop_the_others(trained, tmp_path):
  empty = tmp_path / 'empty'
  old = tmp_path / 'old'
  old.mkdir()
  (old / 'config.json').write_text('{"model": "show_and_tell"}')
  studio = studio_lib.Studio(
    [(empty, None), (old, None), (trained['sketcher'], None)]
  )
  assert not studio.ready
  studio.start()
  studio.wait()
  assert studio.ready
  missing, written = studio.progress()
  assert missing['name'] == 'empty' and 'does not exist' in missing['error']
  assert 'another version' in written['error']
  assert 'Train it again' in written['error']
  assert list(studio.sketchers) == ['model']
  studio.stop()


def test_what_is_absent_is_trained_first(trains, tmp_path):
  workdir = tmp_path / 'runs' / 'new'
  studio = studio_lib.Studio([(workdir, TRAINING)])
  studio.start()
  wait_for(lambda: studio.progress()[0]['step'])
  assert studio.progress() == [
    {'name': 'new', 'what': 'training', 'step': 20, 'num_steps': 40}
  ]
  assert not studio.ready
  trains.write_text('')
  studio.wait()
  assert studio.ready and studio.progress() == []
  assert list(studio.sketchers) == ['new']
  studio.stop()
  # And not again.
  (tmp_path / 'trains.py').unlink()
  studio = studio_lib.Studio([(workdir, TRAINING)])
  studio.start()
  studio.wait()
  assert list(studio.sketchers) == ['new']
  studio.stop()


def test_failed_training_is_reported(trains, tmp_path):
  trains.write_text('fail')
  studio = studio_lib.Studio([(tmp_path / 'new', TRAINING)])
  studio.start()
  studio.wait()
  (state,) = studio.progress()
  assert 'training ended with status 3' in state['error']
  assert studio.ready
  studio.stop()


def test_training_without_the_configs_is_reported(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  studio = studio_lib.Studio([(tmp_path / 'new', TRAINING)])
  studio.start()
  studio.wait()
  assert 'directory of the project' in studio.progress()[0]['error']
  studio.stop()


def test_the_stop_ends_what_is_being_trained(trains, tmp_path):
  studio = studio_lib.Studio(
    [(tmp_path / 'new', TRAINING), (tmp_path / 'other', TRAINING)]
  )
  studio.start()
  wait_for(lambda: studio.progress()[0]['step'])
  studio.stop()
  assert not (tmp_path / 'other').exists()


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--workdir=absent'], r'absent.config\.json does not exist'),
    (['--port=70000', '--workdir={sketcher}'], 'from 0 to 65535'),
    (['--host=no.such.host.example', '--workdir={sketcher}'], 'cannot listen'),
  ],
)
def test_bad_arguments(
  trained, tmp_path, monkeypatch, capsys, arguments, message
):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(SystemExit) as stopped:
    command.main([argument.format(**trained) for argument in arguments])
  assert stopped.value.code == 2
  assert re.search(message, capsys.readouterr().err)


def test_the_defaults_are_what_make_trains():
  """The Makefile and the page agree on what the demos are."""
  root = pathlib.Path(__file__).parents[1]
  makefile = (root / 'Makefile').read_text()
  for workdir, training in command.DEFAULTS:
    assert f'?= {workdir}\n' in makefile
    assert f'-m {training.module} --config={training.config}' in makefile
