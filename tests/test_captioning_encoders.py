"""Captioners are trained with VGG, and from the weights of others."""

import json

import captioners
import commands
import jax
import ml_collections
import numpy as np
import pytest
import test_captioning_importing as importing_tests
import test_vision_vgg as vgg_tests
import torch_checkpoints
from absl import flags
from ml_collections import config_flags

from captioning import feature_cache
from captioning import importing
from captioning import inference
from captioning import main
from captioning import vocabulary
from configs import coco
from vision import pretrained

SMALL = {
  'data.name': 'captioned_images/few',
  'data.resize': 40,
  'data.crop': 32,
  'data.captions_per_image': 2,
  'data.max_length': 8,
  'data.vocabulary_threshold': 1,
  'best_metric': 'CIDEr',
  'batch_size': 4,
  'eval_batch_size': 4,
  'num_steps': 2,
  'eval_every': 2,
  'checkpoint_every': 2,
  'log_every': 1,
  'decoding.max_length': 6,
  'decoding.beam_size': 2,
  'optimizer.learning_rate': 0.01,
}


@pytest.fixture(scope='module')
def shell(tmp_path_factory):
  shell = commands.Shell(tmp_path_factory.mktemp('encoders'))
  captioners.prepare_few(shell, train=8, validation=4, test=4)
  yield shell
  shell.end()


@pytest.fixture(autouse=True)
def without_java(monkeypatch, tmp_path):
  monkeypatch.setenv('PATH', str(tmp_path))


def small(config, shell, **fields):
  config.update_from_flattened_dict(
    {**SMALL, 'data.data_dir': str(shell.data_dir), **fields}
  )
  return config


def assert_equal(found, expected):
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def assert_moved(found, expected):
  moved = jax.tree.map(lambda x, y: np.any(x != y), found, expected)
  assert all(jax.tree.leaves(moved))


def test_vgg_is_frozen_then_fine_tuned(shell, tmp_path):
  """By its depth and its weights alone, on cached features, then on images."""

  def config(**fields):
    config = coco.get_config()
    config.decoder.update(features=8, embedding=8, attention=8)
    config.encoder = dict(depth=16, width=vgg_tests.WIDTH, grid_size=14)
    return small(config, shell, **fields)

  weights = vgg_tests.save(tmp_path / 'vgg16.pth', 16)
  frozen, tuned = tmp_path / 'frozen', tmp_path / 'tuned'
  first = config(cache_features=True, encoder_weights=str(weights))
  main.train_and_evaluate(first, frozen)
  published = pretrained.load(weights, 16)
  assert_equal(feature_cache.load_encoder(first, frozen), published)
  trained = inference.restore(frozen)
  encoder = trained.variables['params']['encoder']
  assert_equal({'params': jax.device_get(encoder)}, published)

  second = config(start_from=str(frozen), frozen=())
  main.train_and_evaluate(second, tuned)
  found = inference.load(tuned)
  params = inference.restore(tuned).variables['params']
  assert_moved(params['decoder'], trained.variables['params']['decoder'])
  assert_moved(params['encoder']['features']['28'], encoder['features']['28'])
  (image,) = found.caption_with_attention([np.zeros((32, 32, 3), np.uint8)])
  assert image.attention.shape[1] == 14 * 14
  assert json.loads((tuned / 'results.json').read_text())['test']


def read_file(path, *changes):
  """The config as --config=PATH and other flags make it."""
  values = flags.FlagValues()
  argv = ['program', f'--config={path}', *changes]
  holder = config_flags.DEFINE_config_file(
    'config', flag_values=values, sys_argv=argv
  )
  values(argv)
  return holder.value


# ml_collections loads files as Python 3.11 still can.
@pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')
def test_an_imported_captioner_is_trained_on(shell, tmp_path):
  """Its words, encoder and decoder are the beginning of another run."""
  sizes = dict(V=30, E=8, H=8, A=8, D=64, F=64)
  weights, encoder = tmp_path / 'model.pth', tmp_path / 'resnet18.pth'
  torch_checkpoints.save(
    weights,
    torch_checkpoints.state_dict(
      importing_tests.random_weights('att2in2', sizes)
    ),
  )
  tensors, _ = importing_tests.random_resnet(18, 8)
  torch_checkpoints.save(encoder, torch_checkpoints.state_dict(tensors))
  importing_tests.write_infos(tmp_path / 'infos.pkl', 30)
  imported = importing_tests.import_files(
    weights, tmp_path / 'infos.pkl', encoder=encoder
  )
  start, workdir = tmp_path / 'start', tmp_path / 'run'
  importing.write(start, imported)

  data_dir = f'--config.data.data_dir={shell.data_dir}'
  config = small(read_file(start / 'train.py', data_dir), shell)
  assert config.start_from == str(start)
  assert config.encoder.layout == 'caffe'
  main.train_and_evaluate(config, workdir)
  words = vocabulary.Vocabulary.load(workdir / vocabulary.FILE)
  assert words.words == imported.words
  params = inference.restore(workdir).variables['params']
  assert_equal(params['encoder'], imported.variables['params']['encoder'])
  # No word of the captions is in the vocabulary, but the layers are used.
  for name in ('annotation', 'attend'):
    assert_moved(
      params['decoder'][name], imported.variables['params']['decoder'][name]
    )

  other = ml_collections.ConfigDict(config.to_dict())
  del other.encoder.layout
  with pytest.raises(ValueError, match="layout is 'caffe' there, 'torchvision"):
    main.train_and_evaluate(other, tmp_path / 'other')
