import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vision import resnet


@pytest.fixture(scope='module')
def small():
  """A network, random variables and images."""
  network = resnet.ResNet(18, width=2, stem='whole')
  images = jax.random.normal(jax.random.key(0), (4, 16, 16, 3))
  rng = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda x: rng.uniform(0.5, 1.5, x.shape).astype(np.float32),
    shapes(network),
  )
  # Kernels of both signs, scaled by the number of inputs.
  variables['params'] = jax.tree.map(
    lambda x: (
      x
      if x.ndim == 1
      else rng.normal(size=x.shape).astype(np.float32)
      / np.sqrt(np.prod(x.shape[:3]), dtype=np.float32)
    ),
    variables['params'],
  )
  return network, variables, images


def shapes(network):
  return jax.eval_shape(
    lambda: network.init(
      jax.random.key(0), jnp.zeros((1, 16, 16, 3)), train=False
    )
  )


@pytest.mark.parametrize(
  ('height', 'width', 'size'), [(7, 7, 14), (10, 7, 4), (3, 8, 3), (5, 6, 1)]
)
def test_adaptive_pooling_equals_a_loop(height, width, size):
  grid = np.random.default_rng(0).normal(size=(2, height, width, 3))
  expected = np.empty((2, size, size, 3))
  for i in range(size):
    for j in range(size):
      rows = slice(i * height // size, int(np.ceil((i + 1) * height / size)))
      columns = slice(j * width // size, int(np.ceil((j + 1) * width / size)))
      expected[:, i, j] = grid[:, rows, columns].mean((1, 2))
  actual = resnet.adaptive_average_pool(jnp.asarray(grid, jnp.float32), size)
  np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_the_grid_pooled_to_one_cell_is_the_mean(small):
  network, variables, images = small
  network = network.clone(grid_size=1)
  grid, pooled = jax.jit(lambda x: network.apply(variables, x, train=False))(
    images
  )
  np.testing.assert_allclose(grid[:, 0], pooled, rtol=1e-5, atol=1e-6)


def test_freezing_cuts_the_gradient_below_and_leaves_it_above(small):
  network, variables, images = small

  def gradient(freeze_at):
    def loss(params):
      grid, _ = network.clone(freeze_at=freeze_at).apply(
        {**variables, 'params': params}, images, train=False
      )
      return jnp.mean(grid**2)

    return jax.jit(jax.grad(loss))(variables['params'])

  whole, partial = gradient(0), gradient(2)
  frozen = {'conv1', 'bn1', 'layer1'}
  for name in whole:
    for x, y in zip(
      jax.tree.leaves(whole[name]), jax.tree.leaves(partial[name]), strict=True
    ):
      assert np.any(x)
      expected = np.zeros_like(x) if name in frozen else x
      np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-6)


def test_frozen_parts_keep_their_statistics(small):
  network, variables, images = small
  _, update = network.clone(freeze_at=2).apply(
    variables, images, train=True, mutable=['batch_stats']
  )
  before = variables['batch_stats']
  assert set(update['batch_stats']) == set(before)
  for name, after in update['batch_stats'].items():
    kept = jax.tree.map(np.array_equal, before[name], after)
    assert all(jax.tree.leaves(kept)) == (name in {'bn1', 'layer1'})
    assert any(jax.tree.leaves(kept)) == (name in {'bn1', 'layer1'})


def test_statistics_over_two_devices_are_those_of_the_whole_batch(small):
  network, variables, images = small
  (grid, _), update = network.apply(
    variables, images, train=True, mutable=['batch_stats']
  )
  halves = images.reshape(2, 2, *images.shape[1:])
  shared = network.clone(norm_axis_name='devices')
  (split_grid, _), split_update = jax.pmap(
    lambda x: shared.apply(variables, x, train=True, mutable=['batch_stats']),
    axis_name='devices',
  )(halves)
  np.testing.assert_allclose(
    split_grid.reshape(grid.shape), grid, rtol=1e-3, atol=1e-4
  )
  for whole, split in zip(
    jax.tree.leaves(update), jax.tree.leaves(split_update), strict=True
  ):
    for device in range(2):
      np.testing.assert_allclose(split[device], whole, rtol=1e-4, atol=1e-5)


def test_bfloat16_computes_nearly_the_same_from_float32_parameters(small):
  network, variables, images = small
  half = network.clone(dtype=jnp.bfloat16)
  for leaf in jax.tree.leaves(shapes(half)):
    assert leaf.dtype == jnp.float32
  exact, grid = jax.jit(
    lambda x: [n.apply(variables, x, train=False)[0] for n in (network, half)]
  )(images)
  assert grid.dtype == jnp.float32
  np.testing.assert_allclose(grid, exact, atol=0.05 * float(exact.max()))


def test_an_unknown_depth_names_the_known_ones():
  with pytest.raises(ValueError, match=r'depth=20: choose one of \[10, 18'):
    resnet.ResNet(20).init(
      jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False
    )


def test_freezing_more_than_there_is_is_refused(small):
  network, variables, images = small
  with pytest.raises(ValueError, match='freeze_at=6: choose 0 to 5'):
    network.clone(freeze_at=6).apply(variables, images, train=False)


def test_fewer_strides_leave_the_last_stages_out(small):
  network, variables, images = small
  (_, _), seen = network.apply(
    variables, images, train=False, capture_intermediates=True
  )
  (expected,) = seen['intermediates']['layer2']['__call__']
  first = {
    kind: {
      name: x for name, x in of_kind.items() if name not in ('layer3', 'layer4')
    }
    for kind, of_kind in variables.items()
  }
  cut = network.clone(strides=(1, 2))
  grid, pooled = cut.apply(first, images, train=False)
  np.testing.assert_allclose(
    grid, expected.reshape(grid.shape), rtol=1e-6, atol=1e-6
  )
  np.testing.assert_allclose(pooled, grid.mean(1), rtol=1e-5, atol=1e-6)
  with pytest.raises(ValueError, match='freeze_at=4: choose 0 to 3'):
    cut.clone(freeze_at=4).apply(first, images, train=False)


def test_positions_are_appended_to_the_map(small):
  network, variables, images = small
  grid, _ = network.apply(variables, images, train=False)
  wider = network.clone(positions=True)
  appended, pooled = wider.apply(variables, images, train=False)
  np.testing.assert_array_equal(appended[..., :-4], grid)
  # 2 x 2 locations in reading order: row, column.
  np.testing.assert_array_equal(
    appended[0, :, -4:],
    [[1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1]],
  )
  np.testing.assert_allclose(pooled[..., -4:], 0.5)


@pytest.mark.parametrize('stem', ['published', 'strided'])
def test_both_stems_divide_the_side_by_four(stem):
  network = resnet.ResNet(10, width=2, stem=stem, strides=(1,))
  (grid, _), _ = jax.eval_shape(
    lambda x: network.init_with_output(jax.random.key(0), x, train=False),
    jnp.zeros((1, 32, 16, 3)),
  )
  assert grid.shape == (1, 8 * 4, 2)


def test_an_unknown_stem_names_the_known_ones(small):
  network, variables, images = small
  with pytest.raises(ValueError, match="stem='x': choose one of published"):
    network.clone(stem='x').apply(variables, images, train=False)


def test_bytes_must_be_normalized_first(small):
  network, variables, images = small
  with pytest.raises(ValueError, match='uint8: normalize them first'):
    network.apply(variables, images.astype(jnp.uint8), train=False)


@pytest.mark.parametrize('sides', [(32, 32), (37, 50), (35, 43)])
def test_the_pooling_of_caffe(sides):
  """Windows begin at the first pixel; the last may be cut off."""
  network = resnet.ResNet(50, width=2, strides=(1,), layout='caffe')
  images = jax.random.normal(jax.random.key(0), (1, *sides, 3))
  variables = network.init(jax.random.key(1), images, train=False)
  _, found = network.apply(
    variables,
    images,
    train=False,
    capture_intermediates=lambda module, _: (
      module.name in ('bn1', 'layer1') and len(module.path) == 1
    ),
    mutable=['intermediates'],
  )
  found = found['intermediates']
  x = np.maximum(found['bn1']['__call__'][0][0], 0)
  # The number of windows is rounded up.
  rows, columns = (math.ceil((n - 3) / 2) + 1 for n in x.shape[:2])
  pooled = [
    [
      x[2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((0, 1))
      for j in range(columns)
    ]
    for i in range(rows)
  ]
  stage = resnet.Stage(
    3,
    2,
    1,
    bottleneck=True,
    norm=functools.partial(
      nn.BatchNorm, use_running_average=True, epsilon=1e-5
    ),
    dtype=jnp.float32,
  )
  layer = {name: tree['layer1'] for name, tree in variables.items()}
  expected = stage.apply(layer, np.array(pooled)[None])
  np.testing.assert_allclose(
    found['layer1']['__call__'][0], expected, rtol=1e-5, atol=1e-6
  )


def test_the_stride_of_caffe_is_in_the_first_convolution():
  """Every second row and column enters the block, which has no stride then."""

  def block(stride):
    return resnet.Block(
      4,
      stride,
      bottleneck=True,
      norm=functools.partial(nn.BatchNorm, use_running_average=True),
      dtype=jnp.float32,
      layout='caffe',
    )

  x = jax.random.normal(jax.random.key(0), (2, 9, 8, 6))
  variables = block(2).init(jax.random.key(1), x)
  np.testing.assert_allclose(
    block(2).apply(variables, x),
    block(1).apply(variables, x[:, ::2, ::2]),
    rtol=1e-6,
    atol=1e-6,
  )


def test_unknown_layouts_are_named():
  with pytest.raises(ValueError, match="layout='keras': choose one of torch"):
    resnet.ResNet(50, layout='keras').init(
      jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False
    )
