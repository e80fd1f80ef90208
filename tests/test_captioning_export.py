"""What is exported is loaded without our code, and computes the same."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy
import test_captioning_importing as importing_tests
import torch_checkpoints
from jax import export as jax_export

from captioning import export
from captioning import importing
from captioning import inference
from captioning import vocabulary as vocabulary_lib


def import_random(directory, layout, *, regions=''):
  """A workdir of random weights of a layout."""
  sizes = dict(V=30, E=8, H=8, A=8, D=64, F=64)
  weights, words = directory / 'model.pth', directory / 'infos.pkl'
  torch_checkpoints.save(
    weights,
    torch_checkpoints.state_dict(importing_tests.random_weights(layout, sizes)),
  )
  importing_tests.write_infos(words, 30)
  encoder = None
  if not regions:
    encoder = directory / 'resnet18.pth'
    tensors, _ = importing_tests.random_resnet(18, 8)
    torch_checkpoints.save(encoder, torch_checkpoints.state_dict(tensors))
  imported = importing_tests.import_files(
    weights, words, encoder=encoder, regions=regions
  )
  importing.write(directory / 'run', imported)
  return directory / 'run'


@pytest.mark.parametrize(
  ('layout', 'regions', 'sides'),
  [
    ('att2in2', '', (40, 61)),
    ('fc', '', (40, 61)),
    ('updown', 'bottom_up', None),
  ],
)
def test_the_exported_functions_compute_the_same(
  tmp_path, layout, regions, sides
):
  workdir = import_random(tmp_path, layout, regions=regions)
  output = tmp_path / 'exported'
  written = export.export(workdir, output, sides=sides)

  assert json.loads((output / 'export.json').read_text()) == written
  weights = safetensors.numpy.load_file(output / 'weights.safetensors')
  begin, step = (
    jax_export.deserialize(
      bytearray((output / f'{name}.stablehlo').read_bytes())
    )
    for name in ('begin', 'step')
  )
  assert begin.platforms == step.platforms == ('cpu', 'cuda', 'tpu')
  words = vocabulary_lib.Vocabulary.load(output / 'vocabulary.json')
  trained = inference.restore(workdir, with_encoder=not regions)
  assert words == trained.vocabulary

  rng = np.random.default_rng(0)
  for count, beams in ((2, 3), (3, 1)):
    if regions:
      inputs = rng.normal(size=(count, 5, 64)).astype(np.float32)
    else:
      inputs = rng.integers(0, 256, (count, *sides, 3), np.uint8)
    carry, context = jax.jit(begin.call)(weights, inputs)
    expected, expected_context = trained.network.apply(
      trained.variables, inputs, method='begin'
    )
    assert_trees_close(context, expected_context)
    carry = [np.repeat(x, beams, axis=1) for x in carry]
    expected = jax.tree.map(
      lambda x, beams=beams: np.repeat(x, beams, axis=1), expected
    )
    tokens = np.full((count, beams), written['words']['begin'], np.int32)
    for _ in range(3):
      carry, logits = jax.jit(step.call)(weights, carry, tokens, context)
      expected, expected_logits = trained.network.apply(
        trained.variables, expected, tokens, expected_context, method='step'
      )
      assert_trees_close(carry, expected)
      assert_trees_close(logits, expected_logits)
      tokens = rng.integers(3, len(words), tokens.shape, np.int32)


def assert_trees_close(found, expected):
  for x, y in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


def test_whole_images_need_their_sides(tmp_path):
  workdir = import_random(tmp_path, 'fc')
  with pytest.raises(ValueError, match='pass --sides HEIGHT WIDTH'):
    export.export(workdir, tmp_path / 'exported')
