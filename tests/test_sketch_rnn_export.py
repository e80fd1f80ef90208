"""In and out: the authors' JSON files, and checkpoints of their code."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sketch_rnn import export
from sketch_rnn import importing
from sketch_rnn import inference
from sketch_rnn import model as model_lib
from sketch_rnn import published
from sketch_rnn import tensorflow_checkpoints

SMALL = {
  'conditional': True,
  'encoder_features': 6,
  'decoder_features': 8,
  'latent': 4,
  'mixtures': 20,
}


def make(**changes):
  """A small network with random parameters."""
  network = model_lib.SketchRNN(**{**SMALL, **changes})
  strokes = jnp.zeros((1, 5, 5))
  labels = jnp.zeros(1, jnp.int32) if network.num_classes else None
  keys = {'params': jax.random.key(0), 'latent': jax.random.key(1)}
  variables = jax.jit(network.init)(keys, strokes, jnp.array([4]), labels)
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: np.array(x + rng.normal(0, 0.3, x.shape), np.float32),
    variables['params'],
  )
  return network, params


def arguments(network):
  return {name: getattr(network, name) for name in export.ARGUMENTS}


def save(path, network, params, **changes):
  settings = {'name': 'cat', 'scale': 30.0, 'length': 5, **changes}
  return export.save(path, arguments(network), params, **settings)


def outputs(network, params):
  """Of three drawings: z, its deviation, and every mixture."""
  rng = np.random.default_rng(1)
  rows = rng.normal(0, 1, (3, 6, 5)).astype(np.float32)
  z, presigma = network.apply(
    {'params': params}, rows[:, 1:], np.array([5, 3, 4]), method='encode'
  )
  raw = network.apply({'params': params}, rows[:, :-1], z, method='decode')
  return z, presigma, raw


@pytest.mark.parametrize('name', ['dog', 'sheep'])
def test_a_published_file_is_written_as_it_was(shared, tmp_path, name):
  """All of it: the info, the order and the size of every blob, its bytes."""
  original = shared / f'data/weights/sketch_rnn/{name}.gen.json'
  imported = importing.load(original)
  workdir = tmp_path / 'imported'
  importing.write(workdir, imported)
  path = tmp_path / f'{name}.gen.json'
  assert export.save_workdir(workdir, path) == 0
  assert json.loads(path.read_text()) == json.loads(original.read_text())


def test_the_variables_are_those_of_the_authors(golden_file):
  for kind in ('lstm_lstm', 'lstm_uncond'):
    with np.load(golden_file(f'sketch_rnn/tf1_small_{kind}.npz')) as arrays:
      weights = {
        name[2:]: x for name, x in arrays.items() if name.startswith('w/')
      }
    found = export.to_published(*published.from_published(weights))
    assert found.keys() == weights.keys()
    for name, x in weights.items():
      np.testing.assert_array_equal(found[name], x)


def test_a_model_with_an_encoder_comes_back_within_a_quantum(tmp_path):
  network, params = make()
  path = tmp_path / 'cat.vae.json'
  assert save(path, network, params) == 0
  found, again, info = published.load(path)
  assert info == {
    'mode': 1,
    'version': 6,
    'max_seq_len': 5,
    'name': 'cat',
    'scale_factor': 30.0,
  }
  assert found == {
    **SMALL,
    'encoder': 'lstm',
    'decoder': 'lstm',
  }
  assert jax.tree.structure(again) == jax.tree.structure(params)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=10 / 32767 / 2 + 1e-7),
    again,
    params,
  )


def test_a_learned_prior_becomes_a_part_of_the_weights():
  """z, its deviation and every mixture are the same; the prior is N(0, 1)."""
  network, params = make(learned_prior=True)
  weights = export.to_published(arguments(network), params)
  found, plain = published.from_published(weights)
  assert 'prior_mean' not in plain
  expected = outputs(network, params)
  for a, b in zip(
    outputs(model_lib.SketchRNN(**found), plain), expected, strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
  # The prior matters here.
  params['prior_mean'] = np.zeros(4, np.float32)
  assert np.max(np.abs(outputs(network, params)[0] - expected[0])) > 0.1


def test_numbers_beyond_ten_are_clipped_and_counted(tmp_path):
  network, params = make(conditional=False)
  params['output']['bias'][:3] = [20, -20, 10]
  path = tmp_path / 'cat.gen.json'
  assert save(path, network, params) == 2
  _, again, info = published.load(path)
  assert info['mode'] == 2
  np.testing.assert_allclose(again['output']['bias'][:3], [10, -10, 10])


@pytest.mark.parametrize(
  ('changes', 'name', 'message'),
  [
    ({'decoder': 'layer_norm'}, 'a.vae.json', "decoder='layer_norm': the auth"),
    ({'encoder': 'layer_norm'}, 'a.vae.json', "encoder='layer_norm': the auth"),
    ({'num_classes': 2}, 'a.vae.json', 'num_classes=2: the authors have no'),
    ({'mixtures': 3}, 'a.vae.json', "mixtures=3: the authors' page reads 20"),
    ({}, 'a.gen.json', 'must end with .vae.json'),
    ({'conditional': False}, 'a.json', 'must end with .gen.json'),
  ],
)
def test_what_the_page_cannot_read_is_refused(tmp_path, changes, name, message):
  network = model_lib.SketchRNN(**{**SMALL, **changes})
  with pytest.raises(ValueError, match=message):
    save(tmp_path / name, network, {})
  assert not list(tmp_path.iterdir())


# Checkpoints of TensorFlow.


def drawings(path):
  """Two splits, of which one drawing is too long."""
  rng = np.random.default_rng(0)
  made = {
    split: np.array(
      [
        rng.integers(-9, 9, (n, 3)).clip([-9, -9, 0], [9, 9, 1])
        for n in lengths
      ]
      + [None],
      object,
    )[:-1]
    for split, lengths in (
      ('train', (3, 5, 9)),
      ('valid', (4,)),
      ('test', (4,)),
    )
  }
  for split in made.values():
    for drawing in split:
      drawing[-1, 2] = 1
  np.savez(path, **made)
  return made


def test_a_checkpoint_needs_its_drawings(tmp_path):
  with pytest.raises(ValueError, match='pass --drawings=FILE.npz'):
    importing.load(tmp_path / 'vector-10')


def test_the_scale_is_that_of_the_training_drawings(tmp_path, monkeypatch):
  """Those that are not too long, as the authors' code computes it."""
  network, params = make()
  weights = export.to_published(arguments(network), params)
  monkeypatch.setattr(tensorflow_checkpoints, 'read', lambda path: weights)
  path = tmp_path / 'aaron.npz'
  made = drawings(path)
  directory = tmp_path / 'lstm'
  directory.mkdir()
  config = directory / 'model_config.json'
  config.write_text('{"max_seq_len": 6}')
  found = importing.load(directory / 'vector', drawings=str(path))
  offsets = [drawing[:, :2].ravel() for drawing in made['train'][:2]]
  assert found.scale == pytest.approx(np.std(np.concatenate(offsets)))
  assert (found.length, found.name) == (6, 'lstm')
  jax.tree.map(np.testing.assert_array_equal, found.params, params)
  importing.write(tmp_path / 'run', found)
  sketcher = inference.load(tmp_path / 'run')
  assert sketcher.examples.scale == found.scale
  assert sketcher.classes == ()
  config.write_text('{"max_seq_len": "6"}')
  with pytest.raises(ValueError, match="max_seq_len is '6', not a number"):
    importing.load(directory, drawings=str(path))
  config.write_text('{"max_seq_len": 2}')
  with pytest.raises(ValueError, match='no drawing of at most 2 points'):
    importing.load(directory, drawings=str(path))


def test_without_tensorflow_the_extra_is_named(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'tensorflow', None)
  with pytest.raises(ImportError, match=r"pip install -e '\.\[tensorflow\]'"):
    tensorflow_checkpoints.read(tmp_path / 'vector')


@pytest.mark.filterwarnings('default')
def test_a_checkpoint_of_tensorflow(tmp_path, golden_file):
  """Moments, the step and the learning rate are not variables of the model."""
  tensorflow = pytest.importorskip('tensorflow', reason='the extra tensorflow')
  with np.load(golden_file('sketch_rnn/tf1_small_layer_norm_lstm.npz')) as file:
    weights = {name[2:]: x for name, x in file.items() if name[:2] == 'w/'}
  name = 'vector_rnn/RNN/output_w'
  saved = {
    **weights,
    f'{name}/Adam': weights[name],
    f'{name}/Adam_1': weights[name],
    'vector_rnn/Variable': np.float32(1e-3),
    'vector_rnn/global_step': np.int32(7),
  }
  prefix = tmp_path / 'vector-7'
  tensorflow.raw_ops.SaveV2(
    prefix=str(prefix),
    tensor_names=list(saved),
    shape_and_slices=[''] * len(saved),
    tensors=[tensorflow.constant(x) for x in saved.values()],
  )
  (tmp_path / 'checkpoint').write_text('model_checkpoint_path: "vector-7"\n')
  for path in (prefix, tmp_path):
    found = tensorflow_checkpoints.read(path)
    assert found.keys() == weights.keys()
    for key, x in weights.items():
      np.testing.assert_array_equal(found[key], x)
  with pytest.raises(FileNotFoundError, match='has no checkpoint: pass its'):
    tensorflow_checkpoints.read(tmp_path / 'other')
  index = tmp_path / 'vector-7.index'
  index.write_bytes(index.read_bytes()[:40])
  with pytest.raises(ValueError, match='is damaged'):
    tensorflow_checkpoints.read(prefix)
