"""Fields of before are refused with the name that they have now."""

import importlib
import json
import pathlib

import ml_collections
import pytest

from configs import common
from configs import event_captions
from configs import schema
from configs import sketch_kanji
from training import app
from training import renamed

CONFIGS = [
  path.stem
  for path in (pathlib.Path(__file__).parents[1] / 'configs').glob('*.py')
  if 'def get_config' in path.read_text()
]


@pytest.mark.parametrize(
  'old, advice',
  [
    ({'average_decay': 0.9}, 'config.average_decay is config.ema_decay now'),
    (
      {'decoding': {'groups': 3}},
      'config.decoding.groups is config.decoding.num_groups now',
    ),
    ({'data': {'rate': None}}, 'config.data.rate is gone'),
  ],
)
def test_a_workdir_of_before_is_refused(tmp_path, old, advice):
  (tmp_path / 'config.json').write_text(json.dumps(old))
  with pytest.raises(ValueError, match=advice):
    app.read_config(tmp_path)


def test_a_config_of_today_is_not():
  config = {'loss': {'kind': 'ctc'}, 'data': {'images': ''}, 'decoding': 3}
  renamed.check_config(ml_collections.ConfigDict(config), 'it')


@pytest.mark.parametrize('name', CONFIGS)
def test_our_configs_have_no_fields_of_before(name):
  config = importlib.import_module(f'configs.{name}').get_config()
  renamed.check_config(config, name)


def test_a_workdir_of_before_decodes_as_it_did(tmp_path):
  """Fields that it lacks get the default of a config."""
  before = dict(
    beam_size=7,
    length_penalty=0.0,
    max_length=20,
    num_groups=1,
    diversity_penalty=0.0,
    min_length=0,
    no_repeat_ngram=0,
    bad_endings=(),
    forbidden_words=(),
    required_words=(),
  )
  path = tmp_path / 'config.json'
  path.write_text(json.dumps({'decoding': before}))
  expected = ml_collections.ConfigDict(common.decoding(beam_size=7))
  assert json.loads(app.read_config(tmp_path).decoding.to_json()) == json.loads(
    expected.to_json()
  )


def test_the_optimizer_of_before_is_adam(tmp_path):
  """As the one of a config of today that names no kind."""
  fields = common.optimizer(learning_rate=1.0)
  added = ('kind', 'momentum', 'nesterov', 'rms_decay', 'epsilon')
  before = {name: x for name, x in fields.items() if name not in added}
  path = tmp_path / 'config.json'
  path.write_text(json.dumps({'optimizer': before}))
  assert app.read_config(tmp_path).optimizer.to_dict() == {
    **fields,
    'rates': [],
  }


def test_a_video_captioner_of_before_was_trained_from_scratch(tmp_path):
  """By cross-entropy; the fields get the defaults of a config of today."""
  config = event_captions.get_config()
  expected = json.loads(config.to_json())
  del config.start_from, config.self_critical, config.patience
  path = tmp_path / 'config.json'
  path.write_text(config.to_json())
  found = app.read_config(tmp_path, schema.VIDEO_CAPTION, training=True)
  assert json.loads(found.to_json()) == expected


def test_a_sketcher_of_before_was_trained_from_scratch(tmp_path):
  """An imported model, which has no training, gets no field of it."""
  config = sketch_kanji.get_config()
  expected = json.loads(config.to_json())
  del config.start_from
  path = tmp_path / 'config.json'
  path.write_text(config.to_json())
  found = app.read_config(tmp_path, schema.SKETCH_RNN, training=True)
  assert json.loads(found.to_json()) == expected
  del config.buckets
  path.write_text(config.to_json())
  assert 'start_from' not in app.read_config(tmp_path, schema.SKETCH_RNN)


def test_flags_and_options_of_before_are_refused():
  with pytest.raises(ValueError, match='--config.loss.of=ctc: .*loss.kind now'):
    renamed.check_arguments(['main.py', '--config=x', '--config.loss.of=ctc'])
  renamed.check_arguments(['main.py', '--config.loss.kind=ctc', 'groups=3'])
  fields = ml_collections.ConfigDict({'num_groups': 1})
  with pytest.raises(ValueError, match='decoding.num_groups now'):
    app.change_fields(fields, ['groups=3'], name='decoding')
