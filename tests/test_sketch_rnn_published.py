"""Against the authors' published code: the folder tests/golden/sketch_rnn."""

import base64
import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from configs import common
from recurrent import cells
from recurrent import unroll
from sketch_rnn import builders
from sketch_rnn import evaluation
from sketch_rnn import file_formats
from sketch_rnn import losses
from sketch_rnn import mixture as mixture_lib
from sketch_rnn import model
from sketch_rnn import published
from training import app
from training import checkpoints
from training import optimizers

ROOT = pathlib.Path(__file__).parents[1]
CONDITIONAL = ('lstm_lstm', 'layer_norm_lstm', 'hyper_lstm')
UNCONDITIONAL = ('lstm_uncond', 'layer_norm_uncond', 'hyper_uncond')
KL_TOLERANCE = 0.2
KL_WEIGHT = 0.5


def assert_close(actual, expected):
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=2e-5)


def assert_trees_close(actual, expected):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  jax.tree.map(assert_close, actual, expected)


class Golden:
  """One small model of the published code, and all that it computed."""

  def __init__(self, path):
    with np.load(path) as arrays:
      self.arrays = dict(arrays)
    self.meta = json.loads(str(self.arrays['meta']))
    arguments, self.params = self.convert('w/')
    self.network = model.SketchRNN(**arguments)
    self.strokes = self.arrays['input_data']
    self.lengths = self.arrays['lengths']

  def __getitem__(self, name):
    return self.arrays[name]

  def __contains__(self, name):
    return name in self.arrays

  def convert(self, prefix):
    """What the file has under a prefix, as arguments and parameters."""
    return published.from_published(
      {
        name.removeprefix(prefix): x
        for name, x in self.arrays.items()
        if name.startswith(prefix)
      }
    )

  def apply(self, params, *args, **kwargs):
    return self.network.apply({'params': params}, *args, **kwargs)

  def unpack(self, packed):
    return published.unpack_state(
      packed, self.network.decoder, self.network.decoder_features
    )

  def forward(self, params, *, train=False):
    """With the noise that the published code was given."""
    z = kl = mean = presigma = None
    key = {'dropout': jax.random.key(0)}
    if self.network.conditional:
      mean, presigma = self.apply(
        params,
        self.strokes[:, 1:],
        self.lengths,
        train=train,
        method='encode',
        rngs=key,
      )
      z = mean + jnp.exp(presigma / 2) * self['eps']
      kl = jnp.mean(losses.kl_divergence(mean, presigma))
    raw = self.apply(
      params,
      self.strokes[:, :-1],
      z,
      train=train,
      method='decode',
      rngs=key,
    )
    mixture = mixture_lib.parameters(raw)
    targets = self.strokes[:, 1:]
    offset = losses.offset_loss(mixture, targets)
    pen = losses.pen_loss(mixture, targets, masked=False)
    pen_masked = losses.pen_loss(mixture, targets, masked=True)
    return {
      'mean': mean,
      'presig': presigma,
      'z': z,
      'kl_raw': kl,
      'pi': jnp.exp(mixture.log_weights),
      'mu1': mixture.mean_x,
      'mu2': mixture.mean_y,
      'sigma1': jnp.exp(mixture.log_sigma_x),
      'sigma2': jnp.exp(mixture.log_sigma_y),
      'rho': mixture.rho,
      'pen': jax.nn.softmax(mixture.pen_logits),
      'pen_logits': mixture.pen_logits,
      'r_cost_train': jnp.mean(offset + pen),
      'r_cost_eval_masked': jnp.mean(offset + pen_masked),
    }

  def cost(self, params):
    """The loss, and all of `forward`."""
    result = self.forward(params)
    result['cost'] = result['r_cost_train']
    if result['kl_raw'] is not None:
      result['kl_cost'] = jnp.maximum(result['kl_raw'], KL_TOLERANCE)
      result['cost'] += KL_WEIGHT * result['kl_cost']
    return result['cost'], result


@pytest.fixture(scope='module', params=CONDITIONAL + UNCONDITIONAL)
def golden(request, golden_file):
  return Golden(golden_file(f'sketch_rnn/tf1_small_{request.param}.npz'))


def test_parameters_are_all_of_ours(golden):
  ours = jax.eval_shape(
    lambda: golden.network.init(
      {'params': jax.random.key(0), 'latent': jax.random.key(1)},
      golden.strokes,
      golden.lengths,
    )
  )['params']
  shapes = [jax.tree.map(np.shape, tree) for tree in (golden.params, ours)]
  assert shapes[0] == shapes[1]


def test_forward_pass_losses_and_gradients(golden):
  step = jax.jit(jax.value_and_grad(golden.cost, has_aux=True))
  (_, result), gradient = step(golden.params)
  for name, value in result.items():
    if value is not None:
      assert_close(value, golden[name].reshape(value.shape))
  assert golden.network.conditional == (result['mean'] is not None)
  _, expected = golden.convert('grad/')
  assert_trees_close(gradient, expected)


def test_states(golden):
  @jax.jit
  def run(params, z):
    start, projected_constant = golden.apply(
      params, z, None, golden.strokes.shape[:1], method='start'
    )

    def step(carry, stroke):
      return golden.apply(
        params, carry, stroke, projected_constant, method='step'
      )

    inputs = golden.strokes[:, :-1].swapaxes(0, 1)
    return start, *jax.lax.scan(step, start, inputs)

  z = golden['z'] if golden.network.conditional else None
  start, final, raw = run(golden.params, z)
  assert_trees_close(start, golden.unpack(golden['initial_state']))
  assert_trees_close(final, golden.unpack(golden['final_state']))
  mixture = mixture_lib.parameters(raw.swapaxes(0, 1))
  assert_close(mixture.mean_x, golden['mu1'].reshape(mixture.mean_x.shape))


def test_recurrent_dropout_with_the_same_masks(golden, monkeypatch):
  def the_same_at_every_step(key, rate, shape):
    mask = golden[f'dropmask/{shape[-1]}'] / (1 - rate)
    return jnp.broadcast_to(mask, shape)

  monkeypatch.setattr(cells, 'dropout_masks', the_same_at_every_step)
  result = jax.jit(lambda params: golden.forward(params, train=True))(
    golden.params
  )
  assert_close(
    result['mu1'], golden['dropfix/mu1'].reshape(result['mu1'].shape)
  )
  assert_close(result['r_cost_train'], golden['dropfix/r_cost'])
  if golden.network.conditional:
    assert_close(result['mean'], golden['dropfix/mean'])

  def final_state(network):
    strokes = golden.strokes[:, :-1]
    carry, projected_constant = network.start(
      result['z'], None, strokes.shape[:1]
    )
    masks = cells.dropout_masks(
      None, 0.1, (golden.meta['T'], len(strokes), network.decoder_features)
    )
    return unroll.unroll(
      network.decoder_cell,
      strokes,
      carry,
      projected_constant=projected_constant,
      recurrent_masks=masks,
    )[0]

  final = golden.apply(golden.params, method=final_state)
  assert_trees_close(final, golden.unpack(golden['dropfix/final_state']))


def test_three_steps_of_adam(golden):
  assert golden.meta['kl_tolerance'] == KL_TOLERANCE
  assert golden.meta['kl_weight'] == KL_WEIGHT
  optimizer, _ = optimizers.create(
    ml_collections.ConfigDict(
      common.optimizer(
        learning_rate=golden.meta['lr'],
        schedule='constant',
        epsilon_hat=True,
        clip_value=golden.meta['grad_clip'],
      )
    ),
    num_steps=3,
  )
  step = jax.jit(jax.value_and_grad(golden.cost, has_aux=True))
  params = golden.params
  state = optimizer.init(params)
  for count in (1, 2, 3):
    _, gradient = step(params)
    updates, state = optimizer.update(gradient, state, params)
    params = optax.apply_updates(params, updates)
    assert_close(step(params)[0][0], golden[f'cost_after_{count}'])
    if f'adam{count}/vector_rnn/RNN/output_w' in golden:
      assert_trees_close(params, golden.convert(f'adam{count}/')[1])


def test_greedy_drawing(golden):
  z = golden['z'][:1] if golden.network.conditional else None

  @jax.jit
  def sample(params):
    carry, projected_constant = golden.apply(
      params, z, None, (1,), method='start'
    )

    def step(state, _):
      carry, point = state
      carry, raw = golden.apply(
        params, carry, point, projected_constant, method='step'
      )
      point = mixture_lib.mode(mixture_lib.parameters(raw))
      return (carry, point), point[0]

    first = jnp.array([[0, 0, 1, 0, 0]], jnp.float32)
    return jax.lax.scan(step, (carry, first), length=golden.meta['T'])[1]

  assert_close(sample(golden.params), golden['greedy_strokes'])


@pytest.fixture(scope='module')
def weights(shared):
  return shared / 'data/weights/sketch_rnn'


def follow(path, rows):
  """States and mixture after each row f32[T, 5] of one drawing."""
  arguments, params, _ = published.load(path)
  network = model.SketchRNN(**arguments)

  @jax.jit
  def run(params, rows):
    def step(carry, row):
      carry, raw = network.apply(
        {'params': params}, carry, row[None], None, method='step'
      )
      return carry, (carry, raw)

    carry = network.apply({'params': params}, None, None, (1,), method='start')[
      0
    ]
    return jax.lax.scan(step, carry, rows)[1]

  (c, h), raw = jax.tree.map(lambda x: x[:, 0], run(params, rows))
  mixture = mixture_lib.parameters(raw)
  return {
    'h': h,
    'c': c,
    'pi': jnp.exp(mixture.log_weights),
    'mu1': mixture.mean_x,
    'mu2': mixture.mean_y,
    'sigma1': jnp.exp(mixture.log_sigma_x),
    'sigma2': jnp.exp(mixture.log_sigma_y),
    'rho': mixture.rho,
    'pen': jax.nn.softmax(mixture.pen_logits),
  }


@pytest.mark.parametrize('case', ['square', 'circle', 'two'])
def test_published_sheep_in_javascript_and_tensorflow(shared, weights, case):
  golden = shared / 'golden/sketch_rnn'
  javascript = json.loads((golden / 'js_sheep_prefix.json').read_text())
  steps = javascript['models']['sheep']['cases'][case]['steps']
  rows = np.array([step['x_norm'] for step in steps], np.float32)
  result = follow(weights / 'sheep.gen.json', rows)
  with np.load(golden / 'tf1_sheep_prefix.npz') as tensorflow:
    assert_close(rows, tensorflow[f'sheep/{case}/x'])
    for name, value in result.items():
      assert_close(value, np.array([step[name] for step in steps]))
      assert_close(value, tensorflow[f'sheep/{case}/{name}'])


def test_published_dog_on_a_drawing(shared, weights):
  golden = json.loads(
    (shared / 'golden/sketch_rnn/js_dog_pdf.json').read_text()
  )
  _, _, info = published.load(weights / 'dog.gen.json')
  assert info['scale_factor'] == golden['scale_factor']
  rows = np.array(golden['seq'], np.float32)
  rows[:, :2] /= info['scale_factor']
  # Their page begins a drawing with a row of zeros.
  rows = np.concatenate([np.zeros((1, 5), np.float32), rows])
  result = follow(weights / 'dog.gen.json', rows)
  names = ('pi', 'mu1', 'mu2', 'sigma1', 'sigma2', 'rho', 'pen')
  for name, expected in zip(
    names, zip(*golden['pdf'], strict=True), strict=True
  ):
    assert_close(result[name][1:], np.array(expected))


def test_the_workdir_holds_the_model(tmp_path, weights):
  command = [
    sys.executable,
    ROOT / 'scripts/import_sketch_rnn.py',
    f'--weights={weights / "dog.gen.json"}',
    f'--workdir={tmp_path / "dog"}',
  ]
  done = subprocess.run(command, check=True, capture_output=True, text=True)
  assert 'dog, lstm decoder of 512 units, all tensors found' in done.stdout
  config = app.read_config(tmp_path / 'dog')
  variables, extras, step = checkpoints.load(
    tmp_path / 'dog', best_metric=config.best_metric, mode=config.best_mode
  )
  arguments, params, info = published.load(weights / 'dog.gen.json')
  assert config.model.to_dict() == arguments
  jax.tree.map(
    np.testing.assert_array_equal, variables, {'params': dict(params)}
  )
  assert step == 0
  assert extras['drawings'] == {
    'scale': info['scale_factor'],
    'length': 164,
    'categories': ['dog'],
  }
  again = subprocess.run(command, check=False, capture_output=True, text=True)
  assert again.returncode == 2
  assert 'choose another --workdir' in again.stderr


def blob(x):
  """As the published files hold it."""
  numbers = np.round(np.asarray(x) * 32767 / 10).astype('<i2')
  return base64.b64encode(numbers.tobytes()).decode()


def vae_shapes(units=3, encoder=2, latent=4, mixtures=1):
  cell = [(5, 4 * encoder), (encoder, 4 * encoder), (4 * encoder,)]
  output = 6 * mixtures + 3
  return [
    *cell,
    *cell,
    *[(2 * encoder, latent), (latent,)] * 2,
    *[(latent, 2 * units), (2 * units,)],
    *[(units, output), (output,)],
    *[(5 + latent, 4 * units), (units, 4 * units), (4 * units,)],
  ]


def write(path, arrays, **info):
  info = {'name': 'cat', 'scale_factor': 1.0, 'max_seq_len': 9, **info}
  path.write_text(
    json.dumps([info, [x.shape for x in arrays], [blob(x) for x in arrays]])
  )
  return path


def random_arrays(shapes):
  rng = np.random.default_rng(0)
  return [rng.uniform(-1, 1, shape) for shape in shapes]


def test_a_model_with_an_encoder(tmp_path):
  """The files' quantisation apart, it is what the variables' names give."""
  arrays = random_arrays(vae_shapes())
  path = write(tmp_path / 'cat.vae.json', arrays, kl_loss=0.5)
  arguments, params, info = published.load(path)
  assert arguments == {
    'conditional': True,
    'encoder': 'lstm',
    'encoder_features': 2,
    'decoder': 'lstm',
    'decoder_features': 3,
    'latent': 4,
    'mixtures': 1,
  }
  assert info['kl_loss'] == 0.5
  root = 'vector_rnn/'
  cell = ('W_xh', 'W_hh', 'bias')
  names = [
    *(f'ENC_RNN/fw/LSTMCell/{name}' for name in cell),
    *(f'ENC_RNN/bw/LSTMCell/{name}' for name in cell),
    *(
      f'{linear}/super_linear_{part}'
      for linear in ('ENC_RNN_mu', 'ENC_RNN_sigma', 'linear')
      for part in 'wb'
    ),
    *('RNN/output_w', 'RNN/output_b'),
    *(f'RNN/LSTMCell/{name}' for name in cell),
  ]
  _, expected = published.from_published(
    {root + name: x for name, x in zip(names, arrays, strict=True)}
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=10 / 32767 / 2 + 1e-7),
    params,
    expected,
  )


def test_an_imported_model_is_evaluated(tmp_path):
  """Its training is not known, and no number stands for it."""
  workdir = tmp_path / 'cat'
  weights = write(tmp_path / 'cat.vae.json', random_arrays(vae_shapes()))
  command = [
    sys.executable,
    ROOT / 'scripts/import_sketch_rnn.py',
    f'--weights={weights}',
    f'--workdir={workdir}',
  ]
  subprocess.run(command, check=True, capture_output=True)
  drawing = np.array([[5, 0, 0], [0, 5, 1], [-5, 0, 1]], np.float32)
  builders.prepare(
    'quickdraw_sketches',
    [
      file_formats.Sketch(
        f'{i}', drawing * np.float32([i + 1, 1, 1]), 'cat', 'test'
      )
      for i in range(3)
    ],
    tmp_path / 'data',
  )
  config = json.loads((workdir / 'config.json').read_text())
  config['data']['data_dir'] = str(tmp_path / 'data')
  checkpoints.write_json(workdir / 'config.json', config)
  entry = evaluation.evaluate_best(workdir, 'test')
  assert entry == json.loads((workdir / 'results.json').read_text())['test']
  assert entry['num_drawings'] == 3
  assert entry['config'] == config
  assert (entry['step'], entry['latent_samples']) == (0, 1)
  assert entry['num_steps'] is entry['training_seconds'] is None
  assert all(np.isfinite(score) for score in entry['scores'].values())


def test_one_error_names_all_that_is_wrong(tmp_path):
  arrays = random_arrays(vae_shapes())
  arrays[7] = np.ones(5)
  arrays[15] = np.ones((3, 8))
  with pytest.raises(ValueError) as error:
    published.load(write(tmp_path / 'cat.vae.json', arrays))
  assert str(error.value) == (
    f'{tmp_path / "cat.vae.json"}: 2 of another shape: '
    'vector_rnn/ENC_RNN_mu/super_linear_b (5,) instead of (4,), '
    'vector_rnn/RNN/LSTMCell/W_hh (3, 8) instead of (3, 12)'
  )


def test_missing_and_unexpected_variables_are_named(golden_file):
  path = golden_file('sketch_rnn/tf1_small_hyper_lstm.npz')
  with np.load(path) as arrays:
    weights = {
      name[2:]: x for name, x in arrays.items() if name.startswith('w/')
    }
  cell = 'vector_rnn/RNN/HyperLSTMCell/'
  del weights[cell + 'hyper_ih/zb/super_linear_w'], weights[cell + 'bias']
  weights['vector_rnn/global_step'] = np.zeros(())
  with pytest.raises(ValueError) as error:
    published.from_published(weights)
  assert str(error.value) == (
    f'2 missing: {cell}bias, {cell}hyper_ih/zb/super_linear_w; '
    '1 unexpected: vector_rnn/global_step'
  )


def without(name, weights):
  return {key: x for key, x in weights.items() if key != name}


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda w: {}, 'no variable begins with vector_rnn/RNN/'),
    (
      lambda w: without('vector_rnn/RNN/output_w', w),
      'vector_rnn/RNN/output_w is missing',
    ),
    (
      lambda w: {**w, 'vector_rnn/RNN/output_w': np.ones(9)},
      r'vector_rnn/RNN/output_w \(9,\) is not a matrix',
    ),
    (
      lambda w: {**w, 'vector_rnn/RNN/output_w': np.ones((3, 10))},
      'output_w has 10 columns: not 6 for each',
    ),
    (
      lambda w: {**w, 'vector_rnn/ENC_RNN/fw/LSTMCell/bias': np.ones(8)},
      'vector_rnn/ENC_RNN/fw/LSTMCell/W_hh is missing',
    ),
  ],
)
def test_what_is_no_model_is_refused(change, message):
  weights = {
    'vector_rnn/RNN/output_w': np.ones((3, 9)),
    'vector_rnn/RNN/output_b': np.ones(9),
    'vector_rnn/RNN/LSTMCell/W_xh': np.ones((5, 12)),
    'vector_rnn/RNN/LSTMCell/W_hh': np.ones((3, 12)),
    'vector_rnn/RNN/LSTMCell/bias': np.ones(12),
  }
  published.from_published(weights)
  with pytest.raises(ValueError, match=message):
    published.from_published(change(weights))


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('not JSON', 'is not JSON'),
    ('{}', r'is not \[info, dims, blobs\]'),
    ('[{}, [], []]', "info has no 'name'"),
    (
      '[{"name": "x", "scale_factor": 1, "max_seq_len": 1}, [[1]], ["AAA="]]',
      'has 1 dims and 1 blobs; a decoder has 5 of each',
    ),
    (
      '[{"name": "x", "scale_factor": 1, "max_seq_len": 1}, '
      '[[2], [1], [1], [1], [1]], ["AAA=", "", "", "", ""]]',
      r'blob 0 \(vector_rnn/RNN/output_w\) holds 1 numbers, its dims are \[2\]',
    ),
    (
      '[{"name": "x", "scale_factor": 1, "max_seq_len": 1}, '
      '[[1], [1], [1], [1], [1]], ["AAA=", "?", "", "", ""]]',
      r'blob 1 \(vector_rnn/RNN/output_b\) is not base64 of int16',
    ),
  ],
)
def test_damaged_files_are_named(tmp_path, text, message):
  path = tmp_path / 'cat.gen.json'
  path.write_text(text)
  with pytest.raises(ValueError, match=f'{path}.*{message}'):
    published.load(path)
