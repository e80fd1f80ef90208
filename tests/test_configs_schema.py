"""Every config obeys its schema, and the schema says what the code does."""

import dataclasses
import inspect
import json
import pathlib

import ml_collections
import pytest
import test_configs

from captioning import evaluation as captions
from captioning import losses as caption_losses
from captioning import model as captioners
from captioning import self_critical
from configs import coco
from configs import occlusion_track
from configs import rules
from configs import scenes
from configs import schema
from configs import skeletons
from configs import sketch_sheep
from configs import ucm
from recurrent import constraints
from sketch_rnn import evaluation as sketches
from sketch_rnn import losses as sketch_losses
from sketch_rnn import model as sketch_rnn
from training import app
from training import optimizers
from video import encoders
from video.captioning import evaluation as clip_captions
from video.captioning import model as clip_captioners
from video.classification import augmentation
from video.classification import evaluation as classification
from video.classification import examples
from video.classification import losses as classification_losses
from video.classification import model as classifiers
from video.tracking import boxes
from video.tracking import evaluation as tracking
from video.tracking import inference
from video.tracking import losses as tracking_losses
from video.tracking import model as trackers
from vision import resnet
from vision import vgg

SCHEMAS = {
  'captioning.main': schema.CAPTIONING,
  'sketch_rnn.main': schema.SKETCH_RNN,
  'video.classify': schema.VIDEO_CLASSIFY,
  'video.caption': schema.VIDEO_CAPTION,
  'video.track': schema.VIDEO_TRACK,
}
RELEASED = {
  'gesture_stream': 'video.classify',
  'kanji': 'sketch_rnn.main',
  'occlusion_track': 'video.track',
  'scenes': 'captioning.main',
}
# What a main or its `create` passes, and fields of Flax.
NOT_IN_CONFIGS = {
  *('parent', 'name', 'dtype', 'vocab_size', 'bos', 'num_classes'),
  *('encoder', 'train_batch_stats', 'norm_axis_name'),
}


@pytest.mark.parametrize(('name', 'argument'), test_configs.EXPERIMENTS)
def test_every_config_obeys_its_schema(name, argument):
  """So every field has a rule: one without would be refused."""
  main = test_configs.command(name)
  config = test_configs.load(name, argument)
  SCHEMAS[main].check(config)
  # And as it is stored.
  stored = ml_collections.ConfigDict(json.loads(config.to_json()))
  SCHEMAS[main].check(stored)


@pytest.mark.parametrize('name', RELEASED)
def test_released_models_obey_it(name):
  directory = pathlib.Path(test_configs.ROOT / 'pretrained' / name)
  app.read_config(directory, SCHEMAS[RELEASED[name]])


def attributes(module):
  return {field.name for field in dataclasses.fields(module)} - NOT_IN_CONFIGS


def test_the_arguments_are_those_of_the_networks():
  for table, modules in (
    (schema.DECODERS, captioners.DECODERS),
    (schema.CLIP_DECODERS, clip_captioners.DECODERS),
  ):
    assert table.keys() == modules.keys()
    for name, module in modules.items():
      assert table[name].fields.keys() == attributes(module), name
  for group, module in (
    (schema.RESNET, resnet.ResNet),
    (schema.VGG, vgg.VGG),
    (schema.FRAME_CNN, encoders.FrameCNN),
    (schema.CLASSIFIER, classifiers.Classifier),
    *(
      (schema.TRACKERS[name], network)
      for name, network in inference.TRACKERS.items()
    ),
  ):
    assert group.fields.keys() == attributes(module)
  fields = {field.name for field in dataclasses.fields(sketch_rnn.SketchRNN)}
  assert schema.SKETCH_MODEL.fields.keys() == fields - {'parent', 'name'}
  track = schema.VIDEO_TRACK.fields
  for group, function, given in (
    (track['jitter'], boxes.jitter, {'key', 'boxes'}),
    (track['self_feeding'], tracking_losses.self_fed_share, {'step'}),
  ):
    names = inspect.signature(function).parameters.keys() - given
    assert group.keys() == names


def accepted(rule, values):
  return all(map(rule.accepts, values)) and not rule.accepts('another')


def test_the_choices_are_those_of_the_code():
  caption, drawing = schema.CAPTIONING.fields, schema.SKETCH_RNN.fields
  clip, track = schema.VIDEO_CLASSIFY.fields, schema.VIDEO_TRACK.fields
  classifier = schema.CLASSIFIER.fields
  for rule, values in (
    (schema.OPTIMIZER.fields['kind'], optimizers.OPTIMIZERS),
    (schema.RESNET.fields['depth'], resnet.LAYOUTS),
    (schema.RESNET.fields['stem'], resnet._STEMS),
    (schema.VGG.fields['depth'], vgg.LAYOUTS),
    (caption['best_metric'], captions.METRICS + captions.JUDGED_METRICS),
    (caption['model'], captioners.DECODERS),
    (
      caption['loss']['penalty_reduction'],
      caption_losses._REDUCTIONS,
    ),
    (caption['self_critical']['baseline'], self_critical.BASELINES),
    (drawing['best_metric'], sketches.METRICS),
    (drawing['model'].fields['decoder'], sketch_rnn.CELLS),
    (drawing['loss']['kl_form'], sketch_losses.KL_WEIGHTS),
    (clip['best_metric'], classification.CLIP_METRICS),
    (clip['best_metric'], classification.STREAM_METRICS),
    (clip['loss']['kind'], classification_losses.LOSSES),
    (clip['data']['sampling'], examples.SAMPLINGS),
    (clip['data']['space'], ('', *examples.SPACES)),
    (classifier['cell'], classifiers.CELLS),
    (classifier['pooling'], classifiers.POOLINGS),
    (
      schema.VIDEO_CAPTION.fields['best_metric'],
      clip_captions.METRICS + clip_captions.EVENT_METRICS,
    ),
    (schema.VIDEO_CAPTION.fields['model'], clip_captioners.DECODERS),
    (track['best_metric'], tracking.RANKING),
    (schema.TRACKER.fields['cell'], trackers.CELLS),
    (schema.TRACKER.fields['fusion'], trackers.FUSIONS),
  ):
    assert accepted(rule, values), rule.text
  assert clip['augmentation']['flips'].accepts([*augmentation.FLIPS])
  words = schema.DECODING['required_words']
  assert words.accepts(['a'] * constraints.MAX_REQUIREMENTS)
  assert not words.accepts(['a'] * (constraints.MAX_REQUIREMENTS + 1))


@pytest.mark.parametrize(
  ('module', 'rule', 'changes', 'message'),
  [
    (coco, 'CAPTIONING', {'batch_size': True}, 'batch_size=True must be an'),
    (coco, 'CAPTIONING', {'decoder': 3}, 'decoder=3 must be a group of fields'),
    (coco, 'CAPTIONING', {'seed': 0.5}, 'seed=0.5 must be an integer'),
    (coco, 'CAPTIONING', {'best_metric': 'true'}, 'is for scenes alone'),
    (coco, 'CAPTIONING', {'frozen': ['(']}, 'each a regular expression'),
    (
      coco,
      'CAPTIONING',
      {'optimizer.schedule': 'staircase'},
      'needs config.optimizer.decay_rate',
    ),
    (coco, 'CAPTIONING', {'optimizer.momentum': 0.9}, "or Adam's b1"),
    (
      coco,
      'CAPTIONING',
      {'optimizer.kind': 'sgd', 'optimizer.epsilon_hat': True},
      "is for kind='adam' alone",
    ),
    (
      coco,
      'CAPTIONING',
      {'optimizer.kind': 'sgd', 'optimizer.nesterov': True},
      'pass --config.optimizer.momentum=0.9 too',
    ),
    (
      coco,
      'CAPTIONING',
      {'decoding.min_length': 30},
      'config.decoding.min_length=30 must be at most max_length=20',
    ),
    (coco, 'CAPTIONING', {'encoder.freeze_at': 4}, None),
    (scenes, 'CAPTIONING', {'encoder.freeze_at': 5}, 'must be at most 3'),
    # VGG has no stems, but the fields of coco's encoder.
    (coco, 'CAPTIONING', {'encoder.depth': 19}, None),
    (
      scenes,
      'CAPTIONING',
      {'encoder.depth': 19},
      'config.encoder.stem: no such field',
    ),
    (
      coco,
      'CAPTIONING',
      {'encoder.depth': 16, 'encoder.fc7': True},
      'config.encoder.grid_size=14 must be None: fc7 is at one location',
    ),
    (ucm, 'CAPTIONING', {'encoder_weights': ''}, 'needs a published encoder'),
    (ucm, 'CAPTIONING', {'regions': 'x'}, 'replace the encoder'),
    (
      ucm,
      'CAPTIONING',
      {'data.data_dir': 'gs://bucket/data'},
      "config.data.data_dir='gs://bucket/data' must be None or a directory",
    ),
    (
      skeletons,
      'VIDEO_CLASSIFY',
      {'encoder_weights': 'resnet18.safetensors'},
      'is for a ResNet or a VGG: pass an encoder with a depth',
    ),
    (
      scenes,
      'CAPTIONING',
      {'start_from': 'runs/x'},
      'pass --config.loss.visual_words=0',
    ),
    (
      sketch_sheep,
      'SKETCH_RNN',
      {'quality.temperatures': ()},
      'a tuple of at least 1, each a number above 0',
    ),
    (
      skeletons,
      'VIDEO_CLASSIFY',
      {'model.cell': 'conv_lstm'},
      'pass an encoder with channels and features=0',
    ),
    (
      skeletons,
      'VIDEO_CLASSIFY',
      {'model': {'widths': (8, 4)}, 'loss.kind': 'frames'},
      'only logits of whole sequences',
    ),
    (
      occlusion_track,
      'VIDEO_TRACK',
      {'model.skips': (1, 2)},
      'must be empty or have one number for each',
    ),
    (
      occlusion_track,
      'VIDEO_TRACK',
      {'data.name': 'photo_track'},
      'config.data.images is missing',
    ),
  ],
)
def test_what_is_refused_beside_the_94(module, rule, changes, message):
  config = module.get_config()
  for path, value in changes.items():
    *groups, field = path.split('.')
    group = config
    for name in groups:
      group = group[name]
    with group.unlocked(), group.ignore_type():
      group[field] = value
  check = getattr(schema, rule).check
  if message is None:
    check(config)
    return
  with pytest.raises(ValueError) as error:
    check(config)
  assert message in str(error.value)


def test_three_lines_are_enough():
  config = scenes.get_config()
  config.batch_size = config.num_steps = config.log_every = 0
  with pytest.raises(ValueError) as error:
    schema.CAPTIONING.check(config, 'it')
  assert str(error.value).count('\n') == 2
  config.eval_every = 0
  with pytest.raises(ValueError) as error:
    schema.CAPTIONING.check(config, 'it')
  first, _, last = str(error.value).split('\n')
  assert first.startswith('it: config.') and last == 'and 2 more'


def test_a_group_alone_and_its_fields_together():
  decoding = scenes.get_config().decoding
  schema.check_decoding(decoding)
  decoding.min_length = 30
  with pytest.raises(ValueError, match='decoding.min_length=30 must be at'):
    schema.check_decoding(decoding)
  decoding.beam_size = 0
  with pytest.raises(ValueError, match='decoding.beam_size=0 must be an int'):
    schema.check_decoding(decoding)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'samples': 5}, 'decoding.samples=5 is for samples'),
    ({'top_k': 5}, 'pass temperature=1.0 too'),
    ({'top_p': 0.9}, 'pass temperature=1.0 too'),
    ({'temperature': -1.0}, 'a number of at least 0'),
    ({'temperature': 1.0, 'samples': 0}, 'samples=0 must be an integer'),
    ({'temperature': 1.0, 'top_p': 0.0}, 'above 0 and at most 1'),
    ({'temperature': 1.0, 'required_words': ('a',)}, 'need beams, but'),
  ],
)
def test_samples_and_beams_are_not_mixed(changes, message):
  decoding = scenes.get_config().decoding
  decoding.update(changes)
  with pytest.raises(ValueError, match=message):
    schema.check_decoding(decoding)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('[]', 'config.json is not the config of a run: it has no fields'),
    ('null', 'config.json is not the config of a run: it has no fields'),
    ('"x"', 'config.json is not the config of a run: it has no fields'),
    ('{}', 'config.json is not the config of a .* run: config.seed is missing'),
    ('{"seed": {}}', 'config.seed=.* must be an integer'),
    ('\xff', 'config.json is not JSON'),
  ],
)
def test_stored_configs_are_checked(tmp_path, text, message):
  (tmp_path / 'config.json').write_bytes(text.encode('latin1'))
  for each in SCHEMAS.values():
    with pytest.raises(ValueError, match=message):
      app.read_config(tmp_path, each)


def test_rules_know_what_they_accept():
  for rule, good, bad in (
    (rules.integer(0, 3), (0, 3), (-1, 4, 1.0, True, None)),
    (rules.number(0, below=1), (0, 0.5), (1, -1, float('nan'), 'x', False)),
    (rules.number(), (-5, 2.5), (float('inf'), None)),
    (rules.text('a+'), ('a', 'aa'), ('', 'ab', 1)),
    (rules.choice('', 1), ('', 1), (True, 1.0, None)),
    (rules.optional(rules.flag()), (None, True), (0, 'x')),
    (rules.sequence(rules.integer(1), 2, 2), ((1, 2), [1, 2]), ((1,), 5, 'ab')),
    (rules.pair(rules.text(), rules.flag()), (('a', True),), (('a',), 'ab')),
  ):
    assert all(map(rule.accepts, good)), rule.text
    assert not any(map(rule.accepts, bad)), rule.text
