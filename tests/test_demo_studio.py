"""Models come to be: named and loaded; and go."""

import re
import shutil

import demo_workdirs
import numpy as np
import pytest

from captioning import inference
from configs import scenes
from demo import __main__ as command
from demo import studio as studio_lib
from training import checkpoints
from training import released


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  root = tmp_path_factory.mktemp('trained')
  return {
    'sketcher': demo_workdirs.sketcher(root / 'a' / 'model'),
    'captioner': demo_workdirs.captioner(root / 'b' / 'model'),
    'video': demo_workdirs.video_captioner(root / 'c' / 'clips'),
  }


def test_kinds_are_told_apart_and_equal_names_numbered(trained, tmp_path):
  assert {
    name: studio_lib.model_kind(path) for name, path in trained.items()
  } == {
    'sketcher': studio_lib.SKETCHER,
    'captioner': studio_lib.CAPTIONER,
    'video': studio_lib.VIDEO_CAPTIONER,
  }
  studio = studio_lib.Studio(list(trained.values()))
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
  checkpoints.write_config(old, scenes.get_config())
  demo_workdirs._save(old, {'params': {'x': np.zeros(2)}}, 'true')
  lacking = tmp_path / 'lacking'
  lacking.mkdir()
  (lacking / 'config.json').write_text('{"model": "show_and_tell"}')
  studio = studio_lib.Studio([empty, old, lacking, trained['sketcher']])
  assert not studio.ready
  studio.start()
  studio.wait()
  assert studio.ready
  missing, written, lacks = studio.progress()
  assert missing['name'] == 'empty' and 'does not exist' in missing['error']
  assert 'another version' in written['error']
  assert 'Train it again' in written['error']
  assert 'captioning.main run: config.seed is missing' in lacks['error']
  assert list(studio.sketchers) == ['model']
  studio.stop()


def test_captioners_may_sample(trained):
  decoding = ['temperature=0.9', 'seed=3']
  studio = studio_lib.Studio([trained['captioner']], decoding=decoding)
  studio.start()
  studio.wait()
  assert not studio.progress()
  image = np.random.default_rng(0).integers(256, size=(20, 20, 3))
  image = image.astype(np.uint8)
  (model,) = studio.captioners.values()
  (found,) = model.model([model.model.preprocess(image)])
  captioner = inference.load(
    trained['captioner'], decoding=[*decoding, 'samples=3']
  )
  (expected,) = captioner.caption([image])
  assert [x.text for x in found.captions] == [x.text for x in expected]
  studio.stop()


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--workdir=absent'], r'absent.config\.json does not exist'),
    (['--port=70000', '--workdir={sketcher}'], 'from 0 to 65535'),
    (
      ['--workdir={captioner}', '--decoding=beams=3'],
      "'beams=3' must be FIELD=VALUE",
    ),
    (['--workdir={captioner}', '--seed=1'], 'pass --decoding=temperature'),
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


def test_the_defaults_are_the_released_models_of_the_page(
  monkeypatch, tmp_path, trained
):
  for name, path in trained.items():
    shutil.copytree(path, tmp_path / name)
    (tmp_path / name / released.MODEL).touch()
  other = tmp_path / 'another'
  other.mkdir()
  (other / 'config.json').write_text('{"model": {"cell": "lstm"}}')
  (other / released.MODEL).touch()
  monkeypatch.setattr(released, 'DIRECTORY', tmp_path)
  assert studio_lib.released_models() == [
    tmp_path / name for name in ('sketcher', 'captioner', 'video')
  ]


def test_without_released_models_a_workdir_must_be_passed(
  monkeypatch, tmp_path, capsys
):
  monkeypatch.setattr(released, 'DIRECTORY', tmp_path)
  with pytest.raises(SystemExit):
    command.main(['--no_browser'])
  assert 'pass a --workdir' in capsys.readouterr().err
