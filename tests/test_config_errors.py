"""94 wrong configs: refused before any work, with a sentence, or allowed.

Each refused one is run as its command, on small data sets: at most three lines
on stderr, exit status 2, nothing written. They are forks of one process, which
imports everything once.
"""

import ast
import functools
import importlib
import json
import pathlib
import subprocess
import sys

import captioners
import commands
import jax
import numpy as np
import pytest
import test_video_caption

from configs import schema
from sketch_rnn import builders
from sketch_rnn import file_formats
from video import data as clips
from video.sources import clips as source
from video.sources import fingertips
from vision import pretrained
from vision import resnet

ROOT = commands.ROOT
# Command -> module, config, and flags that shrink it.
COMMANDS = {
  'cap': (
    'captioning.main',
    'configs/scenes.py',
    {
      'data.name': 'captioned_images/few',
      'data.resize': 32,
      'data.crop': 32,
      'encoder.width': 4,
      'decoder.features': 16,
      'decoder.embedding': 16,
      'decoder.attention': 16,
      'best_metric': 'loss',
      'best_mode': 'min',
      'loss.visual_words': 0.0,
      'batch_size': 8,
      'eval_batch_size': 4,
      'num_steps': 2,
    },
  ),
  'sk': (
    'sketch_rnn.main',
    'configs/sketch_sheep.py',
    {'batch_size': 4, 'eval_batch_size': 4, 'num_steps': 2},
  ),
  'vid': (
    'video.classify',
    'configs/hand_gestures.py',
    {
      'data.name': 'skeletons/few',
      'data.space': '',
      'data.reversals': '()',
      'batch_size': 4,
      'eval_batch_size': 4,
      'num_steps': 2,
    },
  ),
}
# Of each command that reads weights of an encoder, one whose encoder has only a
# depth: its width is 64.
_FEW = {'data.resize': 16, 'data.crop': 16, 'batch_size': 4}
ENCODERS = {
  'captioning.main': (
    'configs/flickr8k.py',
    {**_FEW, 'data.name': 'captioned_images/few', 'cache_features': False},
  ),
  'captioning.main, cached': (
    'configs/flickr8k.py',
    {**_FEW, 'data.name': 'captioned_images/few'},
  ),
  'video.classify': (
    'configs/ucf101_lrcn.py',
    {**_FEW, 'data.name': 'clips/few', 'data.num_frames': 2},
  ),
  'video.caption': (
    'configs/msvd_s2vt.py',
    {**_FEW, 'data.name': 'captioned_clips/few', 'cache_features': False},
  ),
  'video.caption, cached': (
    'configs/msvd_s2vt.py',
    {**_FEW, 'data.name': 'captioned_clips/few'},
  ),
}
SCHEMAS = {
  'cap': schema.CAPTIONING,
  'sk': schema.SKETCH_RNN,
  'vid': schema.VIDEO_CLASSIFY,
}
_SC = {'self_critical.num_samples': 2}
# Name -> command, changes, a part of the error. DIR is the data directory.
REFUSED = {
  # captioning.main
  'misspelt field': ('cap', {'batchsize': 8}, 'did you mean batch_size?'),
  'misspelt in a dict': (
    'cap',
    {'optimizer.learningrate': 0.1},
    'config.optimizer.learningrate: no such field; did you mean learning_rate?',
  ),
  'wrong type': ('cap', {'batch_size': 'many'}, 'config.batch_size=many'),
  'wrong type 2': ('cap', {'data.flip': 'maybe'}, 'config.data.flip=maybe'),
  'unknown sub-config': ('cap', {'foo.bar': 1}, 'config.foo: no such field'),
  'batch 0': ('cap', {'batch_size': 0}, 'batch_size=0 must be an integer'),
  'batch -8': ('cap', {'batch_size': -8}, 'batch_size=-8 must be an integer'),
  'eval batch 0': ('cap', {'eval_batch_size': 0}, 'eval_batch_size=0 must be'),
  'eval batch -5': ('cap', {'eval_batch_size': -5}, 'eval_batch_size=-5 must'),
  'steps 0': ('cap', {'num_steps': 0}, 'num_steps=0 must be an integer'),
  'steps -3': ('cap', {'num_steps': -3}, 'num_steps=-3 must be an integer'),
  'beam 0': ('cap', {'decoding.beam_size': 0}, 'decoding.beam_size=0 must be'),
  'beam -1': ('cap', {'decoding.beam_size': -1}, 'beam_size=-1 must be'),
  'beam > vocabulary': (
    'cap',
    {'decoding.beam_size': 5000},
    'decoding.beam_size=5000 must be at most',
  ),
  'dropout 1.5': ('cap', {'decoder.dropout_rate': 1.5}, 'and below 1'),
  'dropout -1': ('cap', {'decoder.dropout_rate': -1.0}, 'of at least 0'),
  'dropout 1.0': ('cap', {'decoder.dropout_rate': 1.0}, 'and below 1'),
  'unknown schedule': (
    'cap',
    {'optimizer.schedule': 'foo'},
    "must be one of 'constant', 'cosine'",
  ),
  'unknown model': ('cap', {'model': 'foo'}, "one of 'show_and_tell', "),
  'missing data set': (
    'cap',
    {'data.name': 'captioned_images/nope'},
    'captioned_images/nope is not in',
  ),
  'bad data name': ('cap', {'data.name': '../../etc'}, 'must be scenes, coco'),
  'missing weights': (
    'cap',
    {'encoder_weights': '/nope.safetensors'},
    '/nope.safetensors',
  ),
  'weights of other depth': (
    'cap',
    {'encoder_weights': 'DIR/r10.safetensors', 'encoder.depth': 18},
    'load it with depth=10',
  ),
  'encoder depth 20': ('cap', {'encoder.depth': 20}, 'one of 10, 16, 18, 19,'),
  'lr -1': ('cap', {'optimizer.learning_rate': -1.0}, 'a number above 0'),
  'lr nan': ('cap', {'optimizer.learning_rate': 'nan'}, 'a number above 0'),
  'log_every 0': ('cap', {'log_every': 0}, 'log_every=0 must be'),
  'eval_every 0': ('cap', {'eval_every': 0}, 'eval_every=0 must be'),
  'checkpoint_every 0': ('cap', {'checkpoint_every': 0}, 'every=0 must be'),
  'checkpoint_every -1': ('cap', {'checkpoint_every': -1}, 'every=-1 must be'),
  'best_metric unknown': ('cap', {'best_metric': 'foo'}, "one of 'BLEU-1', "),
  'best_mode unknown': ('cap', {'best_mode': 'upwards'}, "one of 'max', 'min'"),
  'dtype unknown': ('cap', {'dtype': 'float99'}, "'float32', 'bfloat16'"),
  'dtype int': ('cap', {'dtype': 'int32'}, "'float32', 'bfloat16'"),
  'microbatches 3': ('cap', {'microbatches': 3}, 'a multiple of microbatches'),
  'microbatches 0': ('cap', {'microbatches': 0}, 'microbatches=0 must be'),
  'max_length 0': ('cap', {'data.max_length': 0}, 'data.max_length=0 must be'),
  'decoding.max_length 0': (
    'cap',
    {'decoding.max_length': 0},
    'decoding.max_length=0 must be',
  ),
  'vocabulary_threshold 10**6': (
    'cap',
    {'data.vocabulary_threshold': 10**6},
    'words occurs threshold=1000000 times',
  ),
  'crop > resize': (
    'cap',
    {'data.crop': 64},
    'config.data.crop=64 must be at most resize=32',
  ),
  'features 0': ('cap', {'decoder.features': 0}, 'decoder.features=0 must be'),
  'features -4': ('cap', {'decoder.features': -4}, 'features=-4 must be'),
  'unknown decoder argument': (
    'cap',
    {'decoder.x': 1},
    'config.decoder.x: no such field; there are',
  ),
  'frozen matches nothing': (
    'cap',
    {'frozen': "('nope',)"},
    "frozen='nope' matches no parameter; there are: ",
  ),
  'groups 3 of beam 2': (
    'cap',
    {'decoding.num_groups': 3, 'decoding.beam_size': 2},
    'decoding.beam_size=2 must be a multiple of num_groups=3',
  ),
  'required unknown word': (
    'cap',
    {'decoding.required_words': "('zebrafish',)"},
    'zebrafish is not among the',
  ),
  'start_from missing': ('cap', {'start_from': '/nope'}, "start_from='/nope'"),
  'captions_per_image 0': (
    'cap',
    {'data.captions_per_image': 0},
    'captions_per_image=0 must be',
  ),
  'average_decay 2': ('cap', {'ema_decay': 2.0}, 'ema_decay=2.0 must be'),
  'b1 1.5': ('cap', {'optimizer.b1': 1.5}, 'optimizer.b1=1.5 must be'),
  'clip_norm -1': ('cap', {'optimizer.clip_norm': -1.0}, 'clip_norm=-1.0 must'),
  'rates match nothing': (
    'cap',
    {'optimizer.rates': "(('nope', 2.0),)"},
    "optimizer.rates: 'nope' matches no trained parameter",
  ),
  'regions missing': (
    'cap',
    {'regions': 'nope'},
    'scripts/import_regions.py',
  ),
  'label_smoothing 2': (
    'cap',
    {'loss.label_smoothing': 2.0},
    'label_smoothing=2.0 must be',
  ),
  'loss.per unknown': ('cap', {'loss.per': 'foo'}, "one of 'caption', 'token'"),
  'seed -1': ('cap', {'seed': -1}, 'config.seed=-1 must be an integer from 0'),
  'sc baseline unknown': (
    'cap',
    {**_SC, 'self_critical.baseline': 'foo'},
    "one of 'leave_one_out', 'greedy'",
  ),
  'sc num_samples 1': (
    'cap',
    {'self_critical.num_samples': 1},
    'num_samples=1 must be at least 2',
  ),
  # sketch_rnn.main
  'unknown cell': ('sk', {'model.decoder': 'foo'}, "one of 'lstm', "),
  'mixtures 0': ('sk', {'model.mixtures': 0}, 'model.mixtures=0 must be'),
  'latent 0': ('sk', {'model.latent': 0}, 'model.latent=0 must be'),
  'num_classes 7': (
    'sk',
    {'model.num_classes': 7},
    'model.num_classes=7 must be 0 (no labels) or the number of categories',
  ),
  'recurrent_dropout 1.5': (
    'sk',
    {'model.recurrent_dropout': 1.5},
    'recurrent_dropout=1.5 must be',
  ),
  'max_length 1': ('sk', {'data.max_length': 1}, 'has at most 1 points'),
  'unknown category': (
    'sk',
    {'data.categories': "('zebra',)"},
    'sketches/sheep has no drawing of zebra',
  ),
  'kl_form': ('sk', {'loss.kl_form': 'foo'}, "one of 'paper', 'tf1'"),
  'drop_probability 1.0': ('sk', {'data.drop_probability': 1.0}, 'below 1'),
  'drop_probability 2': ('sk', {'data.drop_probability': 2.0}, 'below 1'),
  'random_scale 5': ('sk', {'data.random_scale': 5.0}, 'below 1'),
  'limit 0': ('sk', {'data.limit': 0.0}, 'a number above 0'),
  'latent_samples 0': ('sk', {'latent_samples': 0}, 'latent_samples=0 must be'),
  'quickdraw without net': (
    'sk',
    {'data.name': 'quickdraw_sketches/cat'},
    'quickdraw_sketches/cat',
  ),
  'missing data set, drawings': (
    'sk',
    {'data.name': 'sketches/nope'},
    'sketches/nope is not in',
  ),
  'final lr > lr': (
    'sk',
    {'optimizer.final_learning_rate': 1.0},
    'final_learning_rate=1.0 must be at most learning_rate=0.001',
  ),
  # video.classify
  'unknown cell of clips': ('vid', {'model.cell': 'foo'}, "one of 'rnn', "),
  'pooling unknown': ('vid', {'model.pooling': 'foo'}, "one of 'mean', "),
  'num_frames 0': ('vid', {'data.num_frames': 0}, 'num_frames=0 must be'),
  'num_frames -2': ('vid', {'data.num_frames': -2}, 'num_frames=-2 must be'),
  'sampling unknown': ('vid', {'data.sampling': 'foo'}, "one of 'spread', "),
  'windows 0': ('vid', {'data.windows': 0}, 'data.windows=0 must be'),
  'stride 0': ('vid', {'data.stride': 0}, 'data.stride=0 must be'),
  'split unknown': (
    'vid',
    {'data.train_split': 'foo'},
    'must be train, validation or test, or several',
  ),
  'space unknown': ('vid', {'data.space': 'foo'}, "one of '', 'skeleton', "),
  'loss.of unknown': ('vid', {'loss.kind': 'foo'}, "one of 'clip', 'frames', "),
  'reversals of no class': (
    'vid',
    {'data.reversals': "(('a', 'b'),)"},
    'data.reversals: a, b is none of the classes rise, sink',
  ),
  'layers -1': ('vid', {'model.layers': -1}, 'config.model.layers'),
  'ctc on clips': (
    'vid',
    {'loss.kind': 'ctc'},
    "best_metric='accuracy' must be one of edit_accuracy, ",
  ),
}
# Name -> command, changes; the reason is the comment.
ALLOWED = {
  # The examples of an epoch follow those of the one before.
  'batch larger than data': ('cap', {'batch_size': 400}),
  # The last batch is padded, and a mask leaves the padding out.
  'eval batch larger than data': ('cap', {'eval_batch_size': 400}),
  # A trial of a few steps, with `--config.num_steps` alone.
  'warmup > steps': ('cap', {'optimizer.warmup_steps': 1000}),
  # A thread of this process scores.
  'sc workers 0': ('cap', {**_SC, 'self_critical.workers': 0}),
  # They are sorted.
  'buckets unsorted': ('sk', {'buckets': '(50, 20, 30)'}),
  # A bucket that no drawing fits stays empty.
  'buckets too short': ('sk', {'buckets': '(2, 3)'}),
  # The logits of the last frame are those of the clip.
  'frames loss of gru last': (
    'vid',
    {'loss.kind': 'frames', 'model.pooling': 'last'},
  ),
}


def flags(name, changes, directory, workdir):
  """The command of a case."""
  module, config, small = COMMANDS[name]
  return command(module, config, {**small, **changes}, directory, workdir)


def command(module, config, fields, directory, workdir):
  """A training with some fields changed."""
  fields = {'data.data_dir': 'DIR', **fields}
  return [
    module,
    f'--config={config}',
    f'--workdir={workdir}',
    *(
      f'--config.{field}={value}'.replace('DIR', str(directory))
      for field, value in fields.items()
    ),
  ]


def drawings():
  """A few drawings of two categories."""
  rng = np.random.default_rng(0)
  for split in ('train', 'validation', 'test'):
    for i in range(8):
      strokes = rng.integers(-40, 40, (9, 3)).astype(np.float32)
      strokes[:, 2] = np.arange(9) == 8
      yield file_formats.Sketch(
        f'{split}-{i}', strokes, ('sheep', 'pig')[i % 2], split
      )


def skeletons():
  """A few sequences of two classes."""
  rng = np.random.default_rng(0)
  for split in ('train', 'validation', 'test'):
    for i in range(8):
      yield fingertips.Features(
        id=f'{split}-{i}',
        split=split,
        features=rng.normal(size=(9, 3)).astype(np.float32),
        label=('rise', 'sink')[i % 2],
      )


def labelled_clips():
  """A few clips of noise, of two classes."""
  rng = np.random.default_rng(0)
  for split in ('train', 'validation', 'test'):
    for i in range(8):
      yield source.Clip(
        id=f'{split}-{i}',
        split=split,
        frames=rng.integers(0, 256, (3, 16, 16, 3), np.uint8),
        label=('run', 'jump')[i % 2],
      )


@pytest.fixture(scope='module')
def shell(tmp_path_factory):
  """Data sets of each kind, and weights of a small ResNet-10."""
  shell = commands.Shell(tmp_path_factory.mktemp('errors'))
  captioners.prepare_few(shell, train=10, validation=4, test=4)
  builders.prepare('sheep', list(drawings()), shell.data_dir)
  clips.prepare('skeletons/few', list(skeletons()), shell.data_dir)
  clips.prepare('clips/few', list(labelled_clips()), shell.data_dir)
  test_video_caption.prepare_few(shell.data_dir)
  network = resnet.ResNet(10, width=4)
  shapes = jax.eval_shape(
    functools.partial(network.init, train=False),
    jax.random.key(0),
    np.zeros((1, 32, 32, 3), np.float32),
  )
  zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
  pretrained.save(shell.data_dir / 'r10.safetensors', zeros)
  yield shell
  shell.end()


def run_all(cases):
  """The exit status, stdout, stderr and seconds of each command."""
  run = subprocess.run(
    [sys.executable, '-W', 'ignore', 'tests/forked.py'],
    cwd=ROOT,
    input=json.dumps(cases),
    capture_output=True,
    text=True,
    check=False,
  )
  assert run.returncode == 0, run.stderr
  return json.loads(run.stdout)


@pytest.fixture(scope='module')
def answers(shell):
  """Name of a refused case, or of `ENCODERS` -> its answer."""
  cases = {
    case: flags(name, changes, shell.data_dir, shell.directory / 'runs' / case)
    for case, (name, changes, _) in REFUSED.items()
  }
  cases |= {
    name: command(
      name.partition(',')[0],
      config,
      {**fields, 'encoder.depth': 10, 'encoder_weights': 'DIR/r10.safetensors'},
      shell.data_dir,
      shell.directory / 'runs' / name,
    )
    for name, (config, fields) in ENCODERS.items()
  }
  return dict(zip(cases, run_all(list(cases.values())), strict=True))


def test_there_are_94():
  assert len(REFUSED) + len(ALLOWED) == 94


@pytest.mark.parametrize('case', REFUSED)
def test_wrong_configs_are_refused(case, answers):
  status, out, err, _ = answers[case]
  assert status == 2, err
  assert REFUSED[case][2] in err
  assert err.startswith('error: ') and 1 <= err.count('\n') <= 3, err
  assert out == ''


def test_nothing_is_written_and_soon(shell, answers):
  assert not (shell.directory / 'runs').exists()
  # Of compiling two small networks; on a machine that does other things.
  assert max(seconds for *_, seconds in answers.values()) < 30


@pytest.mark.parametrize('name', ENCODERS)
def test_weights_of_another_shape_are_named(name, shell, answers):
  """With the file, a parameter and both shapes, in every command."""
  status, out, err, _ = answers[name]
  assert (status, out) == (2, ''), err
  weights = shell.data_dir / 'r10.safetensors'
  assert err.startswith(f'error: {weights} does not fit config.encoder: ')
  shapes = 'bn1/bias is (4,) in the file, (64,) in the config, and 35 more'
  assert shapes in err and err.count('\n') == 2, err


@pytest.mark.parametrize('case', ALLOWED)
def test_the_others_are_allowed(case):
  name, changes = ALLOWED[case]
  _, path, small = COMMANDS[name]
  module = importlib.import_module(f'configs.{pathlib.Path(path).stem}')
  config = module.get_config()
  for field, value in {**small, **changes}.items():
    if isinstance(value, str) and value.startswith('('):
      value = ast.literal_eval(value)
    config.update_from_flattened_dict({field: value})
  SCHEMAS[name].check(config)
