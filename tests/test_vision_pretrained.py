import functools
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy
import torch_checkpoints
from flax import traverse_util
from huggingface_hub import constants

from vision import pretrained
from vision import resnet

ROOT = pathlib.Path(__file__).parents[1]
DATA = ROOT.parent / 'shared' / 'data'
FIXTURE = pathlib.Path(__file__).parent / 'fixtures' / 'resnet_torch.npz'


def torch_tensors(depth):
  with np.load(FIXTURE) as arrays:
    return {
      name.removeprefix(f'{depth}/'): arrays[name]
      for name in arrays
      if name.startswith(f'{depth}/')
    }


def assert_equal(actual, expected):
  actual = traverse_util.flatten_dict(actual)
  expected = traverse_util.flatten_dict(expected)
  assert set(actual) == set(expected)
  for path in expected:
    np.testing.assert_array_equal(actual[path], expected[path])


@pytest.mark.parametrize('depth', [18, 50])
def test_pytorch_computes_the_same_grid(tmp_path, depth):
  path = tmp_path / 'weights.npz'
  np.savez(path, **torch_tensors(depth))
  network = pretrained.architecture(path)
  variables = pretrained.load(path, depth)
  with np.load(FIXTURE) as arrays:
    images = arrays['images'].astype(np.float32)
    expected_grid = arrays[f'{depth}.grid']
    expected_pooled = arrays[f'{depth}.pooled']
  grid, pooled = jax.jit(lambda x: network.apply(variables, x, train=False))(
    images
  )
  np.testing.assert_allclose(
    grid, expected_grid.reshape(grid.shape), rtol=1e-5, atol=1e-5
  )
  np.testing.assert_allclose(pooled, expected_pooled, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('legacy', [False, True])
def test_torchvisions_own_files_are_read(tmp_path, legacy):
  tensors = torch_tensors(18)
  tensors['bn1.num_batches_tracked'] = np.array(7, np.int64)
  torch_path, path = tmp_path / 'resnet18.pth', tmp_path / 'resnet18.npz'
  torch_checkpoints.save(
    torch_path, torch_checkpoints.state_dict(tensors), legacy=legacy
  )
  np.savez(path, **torch_tensors(18))
  assert pretrained.architecture(torch_path) == pretrained.architecture(path)
  assert_equal(pretrained.load(torch_path, 18), pretrained.load(path, 18))


@pytest.mark.parametrize('stem', ['published', 'strided', 'whole'])
def test_what_is_saved_is_loaded(tmp_path, stem):
  network = resnet.ResNet(34, width=6, stem=stem)
  shapes = jax.eval_shape(
    lambda: network.init(
      jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32), train=False
    )
  )
  rng = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(np.float32), shapes
  )
  classifier = {
    'kernel': rng.normal(size=(48, 5)).astype(np.float32),
    'bias': rng.normal(size=5).astype(np.float32),
  }
  path = tmp_path / 'net.safetensors'
  pretrained.save(path, variables)
  assert pretrained.load_classifier(path) is None
  pretrained.save(path, variables, classifier)
  assert pretrained.architecture(path) == network
  assert_equal(pretrained.load(path, 34), variables)
  assert_equal(pretrained.load_classifier(path), classifier)
  assert [p.name for p in tmp_path.iterdir()] == ['net.safetensors']


@pytest.mark.parametrize('depth', [18, 50])
def test_names_and_layout_are_torchvisions(tmp_path, depth):
  tensors = torch_tensors(depth)
  counters = {
    name.replace('running_mean', 'num_batches_tracked'): np.int64(7)
    for name in tensors
    if name.endswith('running_mean')
  }
  np.savez(tmp_path / 'theirs.npz', **tensors, **counters)
  variables = pretrained.load(tmp_path / 'theirs.npz', depth)
  pretrained.save(tmp_path / 'ours.safetensors', variables)
  saved = safetensors.numpy.load_file(tmp_path / 'ours.safetensors')
  assert_equal(saved, {k: v.astype(np.float32) for k, v in tensors.items()})


def test_one_error_names_all_that_is_wrong(tmp_path):
  tensors = torch_tensors(18)
  del tensors['layer2.0.bn1.bias'], tensors['layer4.1.conv2.weight']
  tensors['layer1.0.bn1.weight'] = np.ones(5)
  tensors['head.scale'] = np.ones(5)
  path = tmp_path / 'damaged.npz'
  np.savez(path, **tensors)
  with pytest.raises(ValueError) as error:
    pretrained.load(path, 18)
  assert str(error.value) == (
    f'{path} is not a ResNet-18. Download or export the file again.\n'
    '2 missing: layer2.0.bn1.bias, layer4.1.conv2.weight. '
    '1 unexpected: head.scale. '
    '1 of another shape: layer1.0.bn1.weight (5,) instead of (3,).'
  )


def test_another_depth_is_recognised(tmp_path):
  path = tmp_path / 'weights.npz'
  np.savez(path, **torch_tensors(50))
  with pytest.raises(ValueError, match='a ResNet-50: load it with depth=50'):
    pretrained.load(path, 34)


@pytest.mark.parametrize(
  ('fields', 'reason'),
  [
    (
      {'width': 64},
      ': bn1/bias is (3,) in the file, (64,) in the config, and 59 more differ',
    ),
    (
      {'width': 3, 'stem': 'whole'},
      ': conv1/kernel is (7, 7, 3, 3) in the file, (3, 3, 3, 3) in the config',
    ),
    (
      {'width': 3, 'stem': 'strided'},
      ': bn2/bias is absent in the file, (3,) in the config, and 3 more differ',
    ),
  ],
)
def test_weights_of_another_width_or_stem_are_named(tmp_path, fields, reason):
  path = tmp_path / 'weights.npz'
  np.savez(path, **torch_tensors(18))
  with pytest.raises(ValueError) as error:
    pretrained.load_encoder(path, {'depth': 18, **fields})
  assert str(error.value) == (
    f'{path} does not fit config.encoder{reason}.\nThe file is a ResNet-18 '
    "with width=3, stem='published': set these in the config, or take another "
    'file'
  )


def test_a_stem_of_more_convolutions_is_another(tmp_path):
  network = resnet.ResNet(10, width=2, stem='strided')
  zeros = jax.jit(functools.partial(network.init, train=False))(
    jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32)
  )
  path = tmp_path / 'weights.safetensors'
  pretrained.save(path, zeros)
  fields = {'depth': 10, 'width': 2}
  with pytest.raises(ValueError, match="config.encoder.\nThe .*'strided'"):
    pretrained.load_encoder(path, {**fields, 'stem': 'whole'})
  # A network of its first stages alone reads those.
  fields |= {'stem': 'strided', 'strides': (1, 2)}
  assert_equal(pretrained.load_encoder(path, fields), zeros)


def test_what_is_no_resnet_is_refused(tmp_path):
  path = tmp_path / 'weights.npz'
  np.savez(path, x=np.ones(3))
  with pytest.raises(
    ValueError, match="Use a ResNet or a VGG in torchvision's"
  ):
    pretrained.load(path, 18)
  with pytest.raises(ValueError, match='does not have the blocks of a ResNet'):
    pretrained.architecture(path)


@pytest.mark.parametrize(
  ('name', 'contents'),
  [
    ('a.pth', b'pickled'),
    ('a.npz', b'not a zip archive'),
    ('a.npz', b''),
    ('a.safetensors', b''),
    ('a.safetensors', b'not a header'),
  ],
)
def test_unreadable_files_are_named(tmp_path, name, contents):
  path = tmp_path / name
  path.write_bytes(contents)
  with pytest.raises(ValueError, match=f'cannot read weights from .*{name}'):
    pretrained.load(path, 18)


def test_pickles_inside_an_npz_are_refused(tmp_path):
  path = tmp_path / 'a.npz'
  np.savez(path, x=np.array([{}], dtype=object))
  with pytest.raises(ValueError, match='a.npz.*allow_pickle'):
    pretrained.load(path, 18)


def test_quantised_tensors_are_refused(tmp_path):
  path = tmp_path / 'a.npz'
  np.savez(path, **{'conv1.weight': np.ones((3, 3, 7, 7), np.int8)})
  with pytest.raises(ValueError, match='conv1.weight is int8: export it'):
    pretrained.load(path, 18)


def test_a_missing_file_is_a_missing_file(tmp_path):
  with pytest.raises(FileNotFoundError, match='absent.safetensors'):
    pretrained.load(tmp_path / 'absent.safetensors', 18)


@pytest.mark.parametrize(
  'source', ['nobody/nothing.v1', 'hf://nobody/nothing.v1/model.safetensors']
)
def test_without_a_network_the_hub_is_named(monkeypatch, tmp_path, source):
  monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
  monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
  with pytest.raises(
    ValueError, match='model.safetensors of nobody/nothing.v1.*pass its path'
  ):
    pretrained.load(source, 50)


# What PyTorch and a plain PIL preprocessing give on the same hundred pictures:
# top-1 and top-5 with the short side at 256, then with both sides at 256.
@pytest.mark.parametrize(
  ('depth', 'shares'),
  [
    (18, [69, 90, 73, 91]),
    pytest.param(50, [81, 96, 79, 96], marks=pytest.mark.slow),
  ],
)
def test_published_weights_classify_as_in_pytorch(tmp_path, depth, shares):
  weights = DATA / 'weights' / f'resnet{depth}_imagenet.safetensors'
  pictures = DATA / 'imagenet_samples'
  if not weights.exists() or not pictures.exists():
    pytest.skip(f'needs {weights} and {pictures}')
  output = tmp_path / 'converted.safetensors'
  printed = subprocess.run(
    [
      sys.executable,
      ROOT / 'scripts' / 'import_encoder.py',
      f'--weights={weights}',
      f'--check={pictures}',
      f'--output={output}',
    ],
    check=True,
    capture_output=True,
    text=True,
  ).stdout
  measured = [float(share) for share in re.findall(r'([0-9.]+)%', printed)]
  # A picture on the edge may fall either way on another processor.
  np.testing.assert_allclose(measured, shares, atol=1.01)
  assert_equal(pretrained.load(output, depth), pretrained.load(weights, depth))
  assert_equal(
    pretrained.load_classifier(output), pretrained.load_classifier(weights)
  )


@pytest.mark.parametrize('value', [np.nan, np.inf, 1e300])
def test_weights_that_are_not_finite_are_named(tmp_path, value):
  path = tmp_path / 'a.npz'
  weights = np.ones((3, 3, 7, 7))
  weights[0, 1] = value
  np.savez(path, **{'conv1.weight': weights})
  with pytest.raises(
    ValueError, match=r'weights from .*a\.npz: conv1.weight has NaN or infinity'
  ):
    pretrained.load(path, 18)


def test_types_that_numpy_lacks_are_named(tmp_path):
  header = b'{"a":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}'
  path = tmp_path / 'a.safetensors'
  path.write_bytes(len(header).to_bytes(8, 'little') + header + b'\0\0')
  with pytest.raises(ValueError, match=r'weights from .*a\.safetensors'):
    pretrained.load(path, 18)


def test_an_npz_that_inflates_without_end_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(pretrained, '_MAX_BYTES', 1000)
  path = tmp_path / 'a.npz'
  np.savez_compressed(path, x=np.zeros(1000))
  with pytest.raises(ValueError, match='inflates to more than 1000 bytes'):
    pretrained.load(path, 18)
