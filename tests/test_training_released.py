"""Released models: each reproduces its score, and damaged ones are refused."""

import json
import os
import pathlib
import runpy
import shlex
import shutil
import subprocess
import sys

import demo_workdirs
import jax
import ml_collections
import numpy as np
import pytest
import safetensors.numpy

from captioning import caption
from captioning import data as image_data
from captioning import inference as captioning
from captioning import main
from captioning import records
from captioning import scenes
from sketch_rnn import builders
from sketch_rnn import examples
from sketch_rnn import inference as sketching
from sketch_rnn import kanji
from sketch_rnn import sample
from tables import runs
from training import app
from training import checkpoints
from training import released
from video import data as video_data
from video.synthetic import gesture_stream

ROOT = pathlib.Path(__file__).parents[1]
MAX_BYTES = 12e6  # Of all of them.
# How ml_collections loads a config.
pytestmark = pytest.mark.filterwarnings(
  'ignore:.*load_module:DeprecationWarning'
)


@pytest.fixture(scope='module')
def script():
  """The names of the script that exports."""
  return runpy.run_path(str(ROOT / 'scripts' / 'export_pretrained.py'))


@pytest.fixture(scope='module')
def exported(script, tmp_path_factory):
  """A workdir, and a released model that was made of it."""
  root = tmp_path_factory.mktemp('released')
  workdir = demo_workdirs.captioner(root / 'workdir')
  entry = {
    'scores': {'CIDEr': 0.5},
    'data': {'name': 'scenes', 'fingerprint': 'f' * 16},
    'commit': 'c' * 40,
    'training_seconds': 120.0,
    'seed': 0,
    'hardware': '2 x cpu on a machine',
  }
  checkpoints.write_json(workdir / 'results.json', {'test': entry})
  (root / 'pretrained').mkdir()
  shutil.copy(released.DIRECTORY / 'releases.json', root / 'pretrained')
  patch = pytest.MonkeyPatch()
  patch.setattr(released, 'DIRECTORY', root / 'pretrained')
  script['export'](workdir, 'scenes', 'test')
  patch.undo()
  return workdir, root / 'pretrained' / 'scenes'


@pytest.fixture
def here(exported, tmp_path, monkeypatch):
  """A copy of the released model, in place of those of the repository."""
  directory = tmp_path / 'pretrained' / 'scenes'
  shutil.copytree(exported[1], directory)
  monkeypatch.setattr(released, 'DIRECTORY', directory.parent)
  return directory


# Those of the repository.


@pytest.mark.parametrize('name', released.names())
def test_a_released_model_reproduces_its_score(script, name):
  """Those of the float32 weights on the same examples.

  Rounding to float16 changes a parameter by at most 0.05 %: the loss stays
  within a hundredth, and at most two examples get another answer.
  """
  score, generate = script['TASKS'][name]
  directory = released.path(name)
  part = released.describe(directory)['slice']
  config = app.read_config(directory)
  chosen = generate(config.data.name, part['split'], part['examples'])
  scores = score(directory, chosen)
  # Scores that were added since are not in it.
  assert scores.keys() >= part['scores'].keys()
  if 'loss' in scores:
    assert scores['loss'] == pytest.approx(part['scores']['loss'], rel=0.01)
  metric = config.best_metric
  if metric != 'loss':
    assert scores[metric] == pytest.approx(
      part['scores'][metric], abs=2 / part['examples']
    )


@pytest.mark.parametrize('name', released.names())
def test_the_command_of_a_card_is_that_of_the_config(name):
  directory = released.path(name)
  model = released.describe(directory)
  words = shlex.split(model['command'])
  config = runs.flat(runs.load_config(words))
  assert config == runs.flat(app.read_config(directory))
  assert (directory / 'card.md').read_text() == released.card(directory)


def test_the_arguments_of_a_config_are_its_changed_fields():
  path = 'configs/scenes.py'
  config = runs.load_config([f'--config={path}'])
  config.update_from_flattened_dict(
    {'num_steps': 3, 'frozen': ('a/', 'b'), 'data.data_dir': '/elsewhere'}
  )
  stored = ml_collections.ConfigDict(json.loads(config.to_json()))
  arguments = runs.config_arguments(path, stored)
  assert sorted(arguments) == [
    "--config.frozen=('a/', 'b')",
    '--config.num_steps=3',
    '--config=configs/scenes.py',
  ]
  config.data.data_dir = None
  assert runs.flat(runs.load_config(arguments)) == runs.flat(config)


def test_released_models_are_small_and_have_a_release(script):
  files = [path for path in released.DIRECTORY.rglob('*') if path.is_file()]
  assert sum(path.stat().st_size for path in files) < MAX_BYTES
  assert {*released.names()} <= {*script['TASKS']}
  assert {path.relative_to(released.DIRECTORY) for path in files} == {
    pathlib.Path('releases.json')
  } | {
    pathlib.Path(name, file)
    for name in released.names()
    for file in ('card.md', 'config.json', 'model.json', 'weights.safetensors')
  }


# Writing and reading.


def test_a_released_model_is_its_workdir_in_half_precision(exported):
  workdir, directory = exported
  config = app.read_config(workdir)
  best = {'best_metric': config.best_metric, 'mode': config.best_mode}
  variables, extras, step = checkpoints.load(workdir, **best)
  found, found_extras, found_step = checkpoints.load(directory, **best)
  flat = script_flat(variables)
  assert script_flat(found).keys() == flat.keys()
  for name, x in script_flat(found).items():
    expected = np.asarray(flat[name])
    if name.startswith('params'):
      expected = expected.astype(np.float16)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, expected.astype(np.float32))
  assert found_step == step
  assert found_extras == {'vocabulary': extras['vocabulary']}
  assert app.read_config(directory) == config


def script_flat(tree, prefix=''):
  """Path -> array."""
  found = {}
  for name, x in tree.items():
    path = f'{prefix}{name}'
    found |= script_flat(x, f'{path}/') if isinstance(x, dict) else {path: x}
  return found


def test_numbers_that_half_precision_lacks_are_refused(tmp_path):
  with pytest.raises(ValueError, match='params/a .* finite in float16'):
    released.save_weights(tmp_path, {'params': {'a': np.float32([1e6])}})
  listed = released.save_weights(
    tmp_path, {'params': {'a': np.ones((2, 3))}, 'stats': {'b': np.ones(())}}
  )
  assert listed['tensors'] == {
    'params/a': 'float64[2, 3]',
    'stats/b': 'float64[]',
  }


def change(file, make):
  tensors = safetensors.numpy.load_file(file)
  make(tensors)
  safetensors.numpy.save_file(tensors, file)


def _drop(tensors):
  del tensors['params/decoder/output/bias']


def _add(tensors):
  tensors['params/more'] = np.zeros(3, np.float16)


def _reshape(tensors):
  name = 'params/decoder/output/bias'
  tensors[name] = tensors[name][:4]


def _retype(tensors):
  name = 'params/decoder/output/bias'
  tensors[name] = tensors[name].astype(np.float32)


def _shift(tensors):
  tensors['params/decoder/output/bias'] += 1


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (_drop, r'output/bias is absent, must be float16\[13\]'),
    (_add, r'params/more is float16\[3\], must be absent'),
    (_reshape, r'output/bias is float16\[4\], must be float16\[13\]'),
    (_retype, r'output/bias is float32\[13\], must be float16\[13\]'),
    (_shift, 'has other numbers than were released'),
  ],
)
def test_other_tensors_are_refused(here, make, message):
  change(here / 'weights.safetensors', make)
  with pytest.raises(ValueError, match=message) as refused:
    captioning.load('scenes')
  assert str(here / 'weights.safetensors') in str(refused.value)


def test_damaged_files_are_refused(here):
  weights, model = here / 'weights.safetensors', here / 'model.json'
  contents = weights.read_bytes()
  for damaged in (contents[:-3], b'', b'<html>' * 99):
    weights.write_bytes(damaged)
    with pytest.raises(ValueError, match=r'cannot read .*weights\.safetensors'):
      captioning.load('scenes')
  weights.unlink()
  with pytest.raises(ValueError, match=r'cannot read .*weights\.safetensors'):
    captioning.load('scenes')
  model.write_text('{"step": ')
  with pytest.raises(ValueError, match=r'model\.json is not JSON'):
    captioning.load('scenes')


# Names.


def test_a_name_is_a_released_model_unless_there_is_such_a_directory(
  here, exported, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  assert released.resolve('scenes') == here
  assert released.resolve('./scenes') == tmp_path / 'scenes'
  assert released.resolve(pathlib.Path('scenes')) == tmp_path / 'scenes'
  shutil.copytree(exported[0], tmp_path / 'scenes')
  assert released.resolve('scenes') == tmp_path / 'scenes'
  with pytest.raises(FileNotFoundError, match=r"'other' .* there are scenes"):
    sketching.load('other')


def test_results_of_a_released_model_go_elsewhere(here, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert released.output(here) == tmp_path / 'runs' / 'pretrained' / 'scenes'
  assert released.output(tmp_path) == tmp_path


def test_a_released_model_is_not_trained_on(here):
  with pytest.raises(ValueError, match='choose another --workdir'):
    checkpoints.Checkpoints(here, best_metric='loss')


def test_training_starts_from_a_released_model(here, tmp_path):
  config = app.read_config(here)
  config.start_from = str(here)
  made = records.make_examples(config, tmp_path / 'new', [])
  assert made.vocabulary.words == demo_workdirs.WORDS
  network = captioning.restore('scenes').network
  example = {
    'image': np.zeros((demo_workdirs.SIDE, demo_workdirs.SIDE, 3), np.uint8),
    'tokens': np.ones((1, 7), np.int32),
  }
  variables = main.initial_variables(network, example, config)
  expected, _, _ = released.load(here)
  jax.tree.map(np.testing.assert_array_equal, variables, expected)


def test_commands_take_a_name_or_a_workdir(here, tmp_path, capsys):
  image = ROOT / 'docs' / 'images' / 'scenes.png'
  assert caption.main(['--pretrained=scenes', str(image)]) == 0
  text = capsys.readouterr().out
  (found,) = captioning.load('scenes').caption(
    [captioning.load('scenes').read(image)]
  )
  assert text == f'{image}\t{found[0].text}\t{found[0].log_prob:.2f}\n'
  for command in (
    lambda *model: caption.main([*model, str(image)]),
    lambda *model: sample.main(['sample', '--output=x', *model]),
  ):
    for model, message in (
      ((), 'one of the arguments --workdir --pretrained is required'),
      (('--pretrained=other',), "invalid choice: 'other' (choose from scenes"),
      (('--pretrained=scenes', '--workdir=x'), 'not allowed with argument'),
    ):
      with pytest.raises(SystemExit):
        command(*model)
      assert message in capsys.readouterr().err.replace("'scenes'", 'scenes')


_COMMAND = """
import pathlib, sys
from training import released
released.DIRECTORY = pathlib.Path(sys.argv.pop(1))
from training import app

def main(config, workdir):
  print('main', config.model, workdir.name)

def use(workdir, files):
  print('use', workdir.name, files)
  return 0

app.run(main, **{options})
"""


@pytest.mark.parametrize(
  ('options', 'arguments', 'message'),
  [
    ('dict(use=use)', ['--pretrained=scenes', 'a'], "use scenes ['a']"),
    ('dict(use=use)', ['--pretrained=scenes'], 'pass some'),
    ('dict(use=use)', ['a'], 'pass either --workdir=DIRECTORY or --pretrained'),
    ('dict(use=use)', ['--pretrained=x', 'a'], 'there are scenes'),
    (
      'dict(use=use)',
      ['--pretrained=scenes', '--workdir=b', 'a'],
      'pass either --workdir',
    ),
    (
      'dict(evaluates=True)',
      ['--pretrained=scenes'],
      'main luong scenes',
    ),
    (
      'dict()',
      ['--pretrained=scenes'],
      "Unknown command line flag 'pretrained'",
    ),
  ],
)
def test_flags_of_absl(here, tmp_path, options, arguments, message):
  run = subprocess.run(
    [
      *(sys.executable, '-c', _COMMAND.format(options=options)),
      *(str(here.parent), *arguments),
    ],
    cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), *sys.path])},
    capture_output=True,
    text=True,
    check=False,
  )
  assert message in run.stdout + run.stderr
  assert 'Traceback' not in run.stderr
  # Nothing is written beside the released models.
  assert {path.name for path in here.iterdir()} == {
    'card.md',
    'config.json',
    'model.json',
    'weights.safetensors',
  }


# Records without the data set.


def test_generated_images_are_those_of_the_data_set(tmp_path, monkeypatch):
  monkeypatch.setattr(
    scenes, 'SPLITS', {'train': 3, 'validation': 2, 'test': 6}
  )
  split = image_data.open_split('scenes', 'test', tmp_path)
  by_id = {split[i]['id']: split[i] for i in range(len(split))}
  made = image_data.generated('scenes', 'test', 3)
  assert [x['id'] for x in made] == [f'test-{i:05d}' for i in (0, 2, 4)]
  assert all(by_id[x['id']] == x for x in made)
  with pytest.raises(ValueError, match='only scenes can'):
    image_data.generated('captioned_images/a', 'test', 3)


def test_generated_drawings_are_those_of_the_data_set(tmp_path, monkeypatch):
  paths = kanji.paths()[:90]
  monkeypatch.setattr(kanji, 'paths', lambda: paths)
  split = examples.open_split('kanji', 'test', tmp_path)
  by_id = {split[i]['id']: split[i] for i in range(len(split))}
  made = builders.generated('kanji', 'test', 4)
  assert len({x['id'] for x in made}) == 4
  for record in made:
    other = by_id[record['id']]
    np.testing.assert_array_equal(record['strokes'], other['strokes'])
    assert record['category'] == other['category']
  with pytest.raises(ValueError, match='only kanji can'):
    builders.generated('sketches/a', 'test', 3)


def test_generated_clips_are_those_of_the_data_set(tmp_path, monkeypatch):
  sizes = {'train': 3, 'validation': 2, 'test': 6}
  monkeypatch.setattr(gesture_stream, 'SIZES', sizes)
  split = video_data.open_split('gesture_stream', 'test', tmp_path)
  by_id = {record['id']: record for record in split}
  made = video_data.generated('gesture_stream', 'test', 3)
  assert [x['id'] for x in made] == [f'test-{i:05d}' for i in (0, 2, 4)]
  for record in made:
    other = by_id[record['id']]
    assert record.keys() == other.keys()
    for key, x in record.items():
      np.testing.assert_array_equal(x, other[key])
  with pytest.raises(ValueError, match='cannot be generated'):
    video_data.generated('clips/a', 'test', 3)


def test_every_release_has_its_data_in_this_repository(script):
  """So that a clone can reproduce the scores."""
  for name, (_, generate) in script['TASKS'].items():
    facts = released.facts(name)
    config = runs.load_config([f'--config={facts["config"]}'])
    assert len(generate(config.data.name, 'test', 2)) == 2
    assert f'--pretrained={name}' in facts['use'] and facts['limits']
