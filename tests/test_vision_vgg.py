"""VGG is compared with PyTorch's arithmetic, written in NumPy."""

import functools
import math
import runpy
import sys

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import PIL.Image
import pytest
import safetensors.numpy
import torch_checkpoints
from numpy.lib import stride_tricks
from test_vision_pretrained import ROOT
from test_vision_pretrained import assert_equal

from video import encoders
from vision import images as images_lib
from vision import networks
from vision import pretrained
from vision import vgg

WIDTH = 2
CLASSES = 5
# torchvision's table: channels of a convolution, or a pooling.
TABLES = {
  16: '1 1 M 2 2 M 4 4 4 M 8 8 8 M 8 8 8 M',
  19: '1 1 M 2 2 M 4 4 4 4 M 8 8 8 8 M 8 8 8 8 M',
}


def layers(depth):
  """The layers of torchvision's `features`, as (kind, channels)."""
  for entry in TABLES[depth].split():
    if entry == 'M':
      yield 'pool', None
    else:
      yield 'convolution', WIDTH * int(entry)
      yield 'relu', None


@functools.cache
def weights(depth):
  """Random tensors by torchvision's names."""
  rng = np.random.default_rng(depth)

  def sample(*shape):
    scale = math.sqrt(2 / math.prod(shape[1:]))
    return rng.normal(0, scale, shape).astype(np.float32)

  tensors, inputs = {}, 3
  for i, (kind, channels) in enumerate(layers(depth)):
    if kind == 'convolution':
      tensors[f'features.{i}.weight'] = sample(channels, inputs, 3, 3)
      tensors[f'features.{i}.bias'] = 0.1 * sample(channels, 1)[:, 0]
      inputs = channels
  sizes = (inputs * 49, 64 * WIDTH, 64 * WIDTH, CLASSES)
  for i, inputs, outputs in zip((0, 3, 6), sizes[:-1], sizes[1:], strict=True):
    tensors[f'classifier.{i}.weight'] = sample(outputs, inputs)
    tensors[f'classifier.{i}.bias'] = 0.1 * sample(outputs, 1)[:, 0]
  return tensors


def convolve(x, weight, bias):
  """f[C, H, W] -> f[O, H, W], padded by one."""
  padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
  windows = stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
  product = np.einsum('chwij,ocij->ohw', windows, weight, optimize=True)
  return product + bias[:, None, None]


def pool(x):
  """f[C, H, W] -> f[C, H // 2, W // 2]; a last odd row is left out."""
  rows, columns = x.shape[1] // 2, x.shape[2] // 2
  x = x[:, : 2 * rows, : 2 * columns]
  return x.reshape(-1, rows, 2, columns, 2).max((2, 4))


def adaptive_pool(x, size):
  """PyTorch's AdaptiveAvgPool2d: f[C, H, W] -> f[C, size, size]."""

  def bounds(i, n):
    return slice(i * n // size, math.ceil((i + 1) * n / size))

  return np.array(
    [
      [
        x[:, bounds(i, x.shape[1]), bounds(j, x.shape[2])].mean((1, 2))
        for j in range(size)
      ]
      for i in range(size)
    ]
  ).transpose(2, 0, 1)


def features(tensors, depth, image):
  """The map after the last ReLU: f[H, W, 3] -> f64[D, H / 16, W / 16]."""
  x = image.astype(np.float64).transpose(2, 0, 1)
  *rest, last = enumerate(layers(depth))
  assert last[1][0] == 'pool'
  for i, (kind, _) in rest:
    if kind == 'convolution':
      name = f'features.{i}'
      x = convolve(x, tensors[f'{name}.weight'], tensors[f'{name}.bias'])
    else:
      x = pool(x) if kind == 'pool' else np.maximum(x, 0)
  return x


def dense(tensors, i, x):
  name = f'classifier.{i}'
  return tensors[f'{name}.weight'] @ x + tensors[f'{name}.bias']


def fc7(tensors, map_):
  """The features of fc7, without dropout."""
  x = adaptive_pool(pool(map_), 7).reshape(-1)
  for i in (0, 3):
    x = np.maximum(dense(tensors, i, x), 0)
  return x


def save(path, depth, *, legacy=False):
  torch_checkpoints.save(
    path, torch_checkpoints.state_dict(weights(depth)), legacy=legacy
  )
  return path


@pytest.fixture(scope='module')
def images():
  """Normalized; the sides are no multiples of 16."""
  return np.random.default_rng(0).normal(size=(2, 37, 70, 3)).astype('f4')


@pytest.mark.parametrize(('depth', 'legacy'), [(16, False), (19, True)])
def test_the_map_is_pytorchs(tmp_path, images, depth, legacy):
  path = save(tmp_path / 'vgg.pth', depth, legacy=legacy)
  network = pretrained.architecture(path)
  assert network == vgg.VGG(depth, width=WIDTH, fc7=True)
  network = network.clone(fc7=False)
  variables = pretrained.load(path, depth)
  found, pooled = jax.jit(lambda x: network.apply(variables, x, train=False))(
    images
  )
  assert found.shape == (2, 2 * 4, 8 * WIDTH)
  for image, ours, mean in zip(images, found, pooled, strict=True):
    expected = features(weights(depth), depth, image)
    assert np.abs(expected).max() > 0.3
    np.testing.assert_allclose(
      ours, expected.reshape(8 * WIDTH, -1).T, rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(
      mean, expected.mean((1, 2)), rtol=1e-5, atol=1e-5
    )


def test_fc7_is_pytorchs(tmp_path, images):
  path = save(tmp_path / 'vgg16.pth', 16)
  network = vgg.VGG(16, width=WIDTH, fc7=True)
  variables = pretrained.load(path, 16, fc7=True)
  found, pooled = network.apply(variables, images, train=False)
  np.testing.assert_array_equal(found[:, 0], pooled)
  for image, ours in zip(images, pooled, strict=True):
    expected = fc7(weights(16), features(weights(16), 16, image))
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


def test_the_sides_at_224_pixels():
  """14 x 14 locations of 512 features, or fc7 of 4,096."""

  def shape(**options):
    network = vgg.VGG(19, **options)
    (found, _), variables = jax.eval_shape(
      lambda: network.init_with_output(
        jax.random.key(0), jnp.zeros((1, 224, 224, 3)), train=False
      )
    )
    count = sum(x.size for x in jax.tree.leaves(variables))
    return found.shape, count

  # torchvision gives 143,667,240 parameters with the 1,000 classes.
  assert shape() == ((1, 196, 512), 20_024_384)
  assert shape(grid_size=7)[0] == (1, 49, 512)
  whole = 143_667_240 - 4097 * 1000
  assert shape(fc7=True) == ((1, 1, 4096), whole)


def timm_names(tensors):
  """The dense layers are convolutions there."""
  result = dict(tensors)
  for ours, theirs, side in (
    ('classifier.0', 'pre_logits.fc1', 7),
    ('classifier.3', 'pre_logits.fc2', 1),
  ):
    weight = result.pop(f'{ours}.weight')
    result[f'{theirs}.weight'] = weight.reshape(len(weight), -1, side, side)
    result[f'{theirs}.bias'] = result.pop(f'{ours}.bias')
  for name in ('weight', 'bias'):
    result[f'head.fc.{name}'] = result.pop(f'classifier.6.{name}')
  return result


def test_timms_files_are_read(tmp_path):
  safetensors.numpy.save_file(
    timm_names(weights(16)), tmp_path / 'model.safetensors'
  )
  theirs = pretrained.load_whole(tmp_path / 'model.safetensors')
  ours = pretrained.load_whole(save(tmp_path / 'vgg16.pth', 16))
  assert theirs[0] == ours[0]
  assert_equal(theirs[1], ours[1])
  assert_equal(theirs[2], ours[2])


def test_a_config_reads_what_its_network_has(tmp_path, images):
  """Without fc7 the dense layers of the file are left out."""
  path = save(tmp_path / 'vgg16.pth', 16)
  for options in ({}, {'fc7': True}):
    network = networks.create(dict(depth=16, width=WIDTH, **options))
    template = jax.eval_shape(
      functools.partial(network.init, train=False), jax.random.key(0), images
    )
    arguments = dict(depth=16, width=WIDTH, **options)
    variables = pretrained.load_encoder(path, arguments)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, template)


def test_frames_are_encoded_by_it():
  """As VGG-16's fc7 features are read by S2VT."""
  encoder = encoders.create(
    ml_collections.ConfigDict(dict(depth=16, width=WIDTH, fc7=True)),
    train_batch_stats=False,
    dtype=jnp.float32,
  )
  assert encoder == vgg.VGG(16, width=WIDTH, fc7=True)


def test_freezing_cuts_the_gradient_below_and_leaves_it_above(images):
  network = vgg.VGG(16, width=WIDTH)
  variables = network.init(jax.random.key(0), images, train=False)

  def gradient(freeze_at):
    def loss(variables):
      found, _ = network.clone(freeze_at=freeze_at).apply(
        variables, images, train=True
      )
      return jnp.mean(found**2)

    return jax.jit(jax.grad(loss))(variables)['params']['features']

  whole, partial = gradient(0), gradient(2)
  for name in map(str, vgg.numbers(vgg.LAYOUTS[16])):
    expected = whole[name]['kernel']
    assert np.any(expected)
    if name in ('0', '2', '5', '7'):  # The first two blocks.
      expected = np.zeros_like(expected)
    np.testing.assert_allclose(
      partial[name]['kernel'], expected, rtol=1e-4, atol=1e-7
    )


def test_the_command_checks_and_converts(tmp_path, monkeypatch, capsys):
  """The accuracy is that of NumPy, and the file is torchvision's again."""
  path, output = save(tmp_path / 'vgg16.pth', 16), tmp_path / 'v.safetensors'
  rng = np.random.default_rng(1)
  tensors, hits = weights(16), []
  directory = tmp_path / 'images'
  directory.mkdir()
  for i in range(4):
    image = rng.integers(0, 256, (32, 32, 3), np.uint8)
    PIL.Image.fromarray(image).save(directory / f'{i}_image.png')
    image = images_lib.normalize(images_lib.for_evaluation(image))
    top = fc7(tensors, features(tensors, 16, np.asarray(image)))
    ranks = np.argsort(-dense(tensors, 6, top))
    hits.append(ranks[0] == i)
  arguments = [f'--weights={path}', f'--check={directory}']
  arguments.append(f'--output={output}')
  monkeypatch.setattr(sys, 'argv', ['import_encoder.py', *arguments])
  script = runpy.run_path(str(ROOT / 'scripts' / 'import_encoder.py'))
  script['main']()
  first, second, *_ = capsys.readouterr().out.splitlines()
  assert first == 'VGG-16, width 2: all tensors found'
  assert second.startswith('short side to 256, central 224: ')
  assert f'top-1 {np.mean(hits):.1%}, top-5 100.0%' in second
  assert_equal(safetensors.numpy.load_file(output), tensors)


def test_errors_name_what_is_wrong(tmp_path, images):
  tensors = dict(weights(16))
  del tensors['features.28.bias']
  path = tmp_path / 'a.npz'
  np.savez(path, **tensors)
  with pytest.raises(
    ValueError, match='VGG-16. .*\n1 missing: features.28.bias'
  ):
    pretrained.load(path, 16)
  with pytest.raises(ValueError, match='a VGG-16: load it with depth=16'):
    pretrained.load(path, 19)
  with pytest.raises(ValueError, match='a VGG-16: load it with depth=16'):
    pretrained.load(path, 50)
  tensors['features.1.weight'] = np.ones(WIDTH, np.float32)  # BatchNorm.
  np.savez(path, **tensors)
  with pytest.raises(ValueError, match='1 unexpected: features.1.weight'):
    pretrained.load(path, 16)

  def apply(**options):
    return vgg.VGG(**{'depth': 16, **options}).init(
      jax.random.key(0), images, train=False
    )

  with pytest.raises(ValueError, match=r'depth=11: choose one of \[16, 19\]'):
    apply(depth=11)
  with pytest.raises(ValueError, match='freeze_at=6: choose 0 to 5'):
    apply(freeze_at=6)
  with pytest.raises(ValueError, match='fc7 is at one location'):
    apply(fc7=True, grid_size=14)
