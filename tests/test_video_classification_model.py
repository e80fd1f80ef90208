import functools
import importlib
import json

import flax
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from training import parallel
from video import encoders
from video.classification import losses as losses_lib
from video.classification import model as model_lib
from vision import resnet

BATCH, TIME, CLASSES = 4, 6, 5
LENGTHS = np.array([6, 1, 3, 5], np.int32)


def cnn(**kwargs):
  return encoders.FrameCNN(channels=(3, 4), **{'features': 6, **kwargs})


def model(**kwargs):
  return model_lib.Classifier(CLASSES, **{'features': 7, **kwargs})


# Name -> a model and what it reads.
MODELS = {
  'lrcn': (lambda: model(encoder=cnn(), cell='lstm'), (8, 8, 3)),
  'conv_lstm': (
    lambda: model(encoder=cnn(features=0), cell='conv_lstm', pooling='last'),
    (8, 8, 1),
  ),
  'skeletons': (
    lambda: model(layers=2, pooling='attention', difference=3.0, hidden=4),
    (9,),
  ),
  'distances': (
    lambda: model(pooling='attention', distances=3, difference=3.0),
    (9,),
  ),
  'bag': (lambda: model(layers=0, encoder=cnn(), hidden=4), (8, 8, 3)),
  'differences': (
    lambda: model(encoder=cnn(), pooling='attention', difference=0.5),
    (8, 8, 1),
  ),
  'resnet': (
    lambda: model(
      encoder=resnet.ResNet(depth=18, width=2, stem='whole'), cell='rnn'
    ),
    (8, 8, 3),
  ),
}
BACKWARDS = {
  'bidirectional': (
    lambda: model(
      layers=2, pooling='attention', difference=3.0, bidirectional=True
    ),
    (9,),
  ),
}
every = pytest.mark.parametrize('name', MODELS | BACKWARDS)
forwards = pytest.mark.parametrize('name', MODELS)


def recordings(shape, rows=BATCH):
  rng = np.random.default_rng(0)
  if len(shape) == 1:
    return rng.normal(size=(rows, TIME, *shape)).astype(np.float32)
  return rng.integers(256, size=(rows, TIME, *shape), dtype=np.uint8)


@functools.partial(
  jax.jit, static_argnums=0, static_argnames=('method', 'train')
)
def apply(classifier, variables, *args, **kwargs):
  """Compiled once for equal classifiers."""
  return classifier.apply(variables, *args, **kwargs)


@functools.cache
def start(name):
  """A model, its variables and recordings for it."""
  make, shape = (MODELS | BACKWARDS)[name]
  x = recordings(shape)
  classifier = make()
  init = jax.jit(lambda *a: classifier.init(*a, train=False))
  variables = init(jax.random.key(0), x, LENGTHS)
  # Zero biases would hide errors.
  variables = flax.core.copy(
    variables,
    {'params': jax.tree.map(lambda leaf: leaf + 0.02, variables['params'])},
  )
  return classifier, variables, x


def read(classifier, variables, x, lengths):
  return apply(classifier, variables, x, lengths, train=False)


@every
def test_padding_changes_nothing(name):
  """A recording alone, at its length, has the logits of the batch."""
  classifier, variables, x = start(name)
  real = np.arange(TIME) < LENGTHS[:, None]
  other = np.where(real.reshape(BATCH, TIME, *(1,) * (x.ndim - 2)), x, 77)
  logits, frames = read(classifier, variables, other.astype(x.dtype), LENGTHS)
  for row, length in enumerate(LENGTHS):
    alone, of_frames = read(
      classifier, variables, x[row : row + 1, :length], LENGTHS[row : row + 1]
    )
    np.testing.assert_allclose(logits[row], alone[0], atol=1e-5)
    np.testing.assert_allclose(
      frames[row, :length], of_frames[0], atol=1e-5, rtol=1e-5
    )


@forwards
def test_stepped_is_the_batched_scan(name):
  """After each frame, the logits of a clip that ends there."""
  classifier, variables, x = start(name)
  carry = apply(classifier, variables, x[:, 0], method='begin')
  _, frames = read(classifier, variables, x, np.full(BATCH, TIME))
  for t in range(TIME):
    carry, (so_far, of_frame) = apply(
      classifier, variables, carry, x[:, t], method='step'
    )
    logits, _ = read(classifier, variables, x, np.full(BATCH, t + 1))
    np.testing.assert_allclose(so_far, logits, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(of_frame, frames[:, t], atol=1e-5, rtol=1e-5)


def test_a_classifier_that_reads_backwards_does_not_step():
  classifier, variables, x = start('bidirectional')
  with pytest.raises(ValueError, match='model.bidirectional=False'):
    classifier.apply(variables, x[:, 0], method='begin')


def test_backwards_is_forwards_with_the_cells_exchanged():
  classifier = model(bidirectional=True, pooling='attention')
  x = recordings((9,))
  lengths = np.full(BATCH, TIME)
  variables = classifier.init(jax.random.key(0), x, lengths, train=False)
  params = dict(variables['params'])
  logits, frames = read(classifier, variables, x, lengths)
  cells = 'forward_cells_0', 'backward_cells_0'
  one, other = cells
  params[one], params[other] = params[other], params[one]
  for layer in ('key', 'output'):
    kernel = np.roll(params[layer]['kernel'], 7, axis=0)
    params[layer] = {**params[layer], 'kernel': kernel}
  exchanged, of_frames = read(
    classifier, {'params': params}, x[:, ::-1], lengths
  )
  np.testing.assert_allclose(exchanged, logits, atol=1e-5)
  np.testing.assert_allclose(of_frames[:, ::-1], frames, atol=1e-5)


def test_a_bag_knows_no_order_and_the_others_do():
  order = np.array([3, 0, 5, 1, 4, 2])
  for name in ('bag', 'lrcn', 'conv_lstm'):
    classifier, variables, x = start(name)
    lengths = np.full(BATCH, TIME)
    logits, _ = read(classifier, variables, x, lengths)
    shuffled, _ = read(classifier, variables, x[:, order], lengths)
    assert np.allclose(logits, shuffled, atol=1e-5) == (name == 'bag')


def test_lrcn_is_the_mean_of_the_logits_of_its_frames():
  classifier, variables, x = start('lrcn')
  logits, frames = read(classifier, variables, x, LENGTHS)
  for row, length in enumerate(LENGTHS):
    mean = np.mean(frames[row, :length], axis=0)
    np.testing.assert_allclose(logits[row], mean, atol=1e-5)


def test_differences_are_of_neighbours():
  x = recordings((9,))
  classifier = model(layers=0, difference=3.0)
  lengths = np.full(BATCH, TIME)
  variables = classifier.init(jax.random.key(0), x, lengths, train=False)
  moved = np.diff(x, axis=1, prepend=x[:, :1])
  logits, _ = read(classifier, variables, x, lengths)
  expected, _ = model(layers=0).apply(
    variables, np.concatenate([x, 3 * moved], -1), lengths, train=False
  )
  np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_distances_are_of_all_pairs_of_points():
  x = recordings((12,))
  classifier = model(layers=0, distances=3)
  lengths = np.full(BATCH, TIME)
  variables = classifier.init(jax.random.key(0), x, lengths, train=False)
  points = x.reshape(BATCH, TIME, 4, 3)
  pairs = [
    np.linalg.norm(points[:, :, i] - points[:, :, j], axis=-1)
    for i in range(4)
    for j in range(i + 1, 4)
  ]
  logits, _ = read(classifier, variables, x, lengths)
  expected, _ = model(layers=0).apply(
    variables,
    np.concatenate([x, np.stack(pairs, -1)], -1),
    lengths,
    train=False,
  )
  np.testing.assert_allclose(logits, expected, atol=1e-5)
  with pytest.raises(ValueError, match='12 features are no points of 5'):
    model(distances=5).init(jax.random.key(0), x, lengths, train=False)


def test_what_is_unknown_is_refused():
  x = recordings((9,))
  for arguments, message in (
    (dict(cell='gnu'), "cell='gnu' is none of rnn, lstm, gru, conv_lstm"),
    (dict(pooling='max'), "pooling='max' is none of mean, last, attention"),
  ):
    with pytest.raises(ValueError, match=message):
      model(**arguments).init(jax.random.key(0), x, LENGTHS, train=False)


def test_spoken_collapses_runs_and_leaves_out_blanks():
  assert model_lib.spoken(np.array([0, 3, 3, 0, 3, 2, 2, 0])) == [3, 3, 2]
  assert model_lib.spoken(np.zeros(4, int)) == []
  assert model_lib.spoken(np.array([1])) == [1]


# The losses.


def loss_config(**kwargs):
  return ml_collections.ConfigDict(
    {'kind': 'clip', 'label_smoothing': 0.0, 'framewise_steps': 0, **kwargs}
  )


def batch_of(of):
  rng = np.random.default_rng(1)
  batch = {'features': recordings((9,)), 'length': LENGTHS}
  if of != 'ctc':
    return {**batch, 'label': rng.integers(CLASSES, size=BATCH)}
  return {
    **batch,
    'labels': np.array([[1, 2, -1], [3, -1, -1], [2, -1, -1], [4, 4, 1]]),
    'framewise': rng.integers(CLASSES, size=(BATCH, TIME)),
  }


def loss_of(classifier, variables, batch, config, step=0):
  loss_fn = jax.jit(losses_lib.create(classifier, config))
  counts = losses_lib.counts(batch)
  loss, (metrics, _) = loss_fn(
    variables, batch, counts, jnp.asarray(step), jax.random.key(0)
  )
  return float(loss), metrics.compute()


def paths(length, gestures):
  """All labels of so many frames that spell these gestures."""
  grid = np.meshgrid(*[range(CLASSES)] * length, indexing='ij')
  every = np.stack(grid, axis=-1).reshape(-1, length)
  return [path for path in every if model_lib.spoken(path) == gestures]


def test_ctc_is_the_sum_over_all_paths():
  logits = jax.random.normal(jax.random.key(2), (2, 4, CLASSES))
  labels = np.array([[1, 1], [3, -1]])
  losses = losses_lib.ctc(logits, np.array([4, 3]), labels)
  log_probs = np.asarray(jax.nn.log_softmax(logits))
  for row, (length, gestures) in enumerate([(4, [1, 1]), (3, [3])]):
    total = sum(
      np.exp(log_probs[row, np.arange(length), path].sum())
      for path in paths(length, gestures)
    )
    np.testing.assert_allclose(losses[row], -np.log(total), rtol=1e-4)


@pytest.mark.parametrize('of', losses_lib.LOSSES)
def test_losses_are_means_over_what_is_real(of):
  classifier, variables, _ = start('skeletons')
  batch = batch_of(of)
  loss, metrics = loss_of(classifier, variables, batch, loss_config(kind=of))
  logits, frames = read(classifier, variables, batch['features'], LENGTHS)
  if of == 'clip':
    each = optax.softmax_cross_entropy_with_integer_labels(
      logits, batch['label']
    )
    right = np.argmax(logits, -1) == batch['label']
    np.testing.assert_allclose(metrics['accuracy'], right.mean(), rtol=1e-5)
  elif of == 'frames':
    each = np.concatenate(
      [
        optax.softmax_cross_entropy_with_integer_labels(
          frames[row, :length], np.repeat(batch['label'][row], length)
        )
        for row, length in enumerate(LENGTHS)
      ]
    )
  else:
    each = losses_lib.ctc(frames, LENGTHS, batch['labels'])
  np.testing.assert_allclose(loss, np.mean(each), rtol=1e-5)


def test_ctc_begins_with_the_labels_of_frames():
  classifier, variables, _ = start('skeletons')
  batch, config = batch_of('ctc'), loss_config(kind='ctc', framewise_steps=10)
  _, frames = read(classifier, variables, batch['features'], LENGTHS)
  real = np.arange(TIME) < LENGTHS[:, None]
  costs = optax.softmax_cross_entropy_with_integer_labels(
    frames, batch['framewise']
  )
  loss, metrics = loss_of(classifier, variables, batch, config, step=9)
  np.testing.assert_allclose(loss, np.mean(costs[real]), rtol=1e-5)
  right = (np.argmax(frames, -1) == batch['framewise']) & real
  np.testing.assert_allclose(
    metrics['accuracy'], np.mean(right.sum(1) / LENGTHS), rtol=1e-5
  )
  later, _ = loss_of(classifier, variables, batch, config, step=10)
  expected = loss_of(classifier, variables, batch, loss_config(kind='ctc'))[0]
  np.testing.assert_allclose(later, expected, rtol=1e-6)
  assert abs(later - loss) > 1e-3


def test_unknown_losses_are_refused():
  with pytest.raises(
    ValueError, match="loss.kind='video' is none of clip, frame"
  ):
    losses_lib.create(model(), loss_config(kind='video'))


@pytest.mark.parametrize('of', losses_lib.LOSSES)
def test_two_devices_learn_what_one_learns(of):
  """Lengths differ between the devices, and so do the counts."""
  assert jax.device_count() == 2
  classifier, variables, _ = start('skeletons')
  batch, config = batch_of(of), loss_config(kind=of, label_smoothing=0.1)
  loss_fn = losses_lib.create(classifier, config)
  counts = losses_lib.counts(batch)

  def total(params):
    args = {'params': params}, batch, counts, jnp.zeros((), int)
    return loss_fn(*args, jax.random.key(0))[0]

  loss, gradient = jax.jit(jax.value_and_grad(total))(variables['params'])
  optimizer = optax.sgd(1.0)
  state = parallel.create_state(jax.tree.map(np.array, variables), optimizer)
  step = parallel.train_step(loss_fn, losses_lib.counts, optimizer)
  after, update = step(
    state, parallel.shard(batch), parallel.replicate(jax.random.key(1))
  )
  np.testing.assert_allclose(update.loss, loss, rtol=1e-5)
  moved = jax.tree.map(lambda x, g: x - g, variables['params'], gradient)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
    jax.device_get(after.params),
    moved,
  )


CONFIGS = {
  'ordered_motion': ('gru', 'lstm', 'lrcn', 'conv_lstm', 'bag'),
  'gesture_stream': ('gru', 'lstm', 'framewise'),
  'skeletons': (
    'utd_mhad/ours/held_out',
    'utd_mhad/ours/final',
    'sbu/deepgru/final',
    'msr/deepgru/held_out',
  ),
  'utd_mhad_depth': ('held_out', 'all_subjects'),
  'hand_gestures': ('gru', 'lstm', 'bag'),
  'ucf101_lrcn': (),
}


@pytest.mark.parametrize(
  'name, argument',
  [
    (name, a) for name, arguments in CONFIGS.items() for a in arguments or ('',)
  ],
)
def test_configs_make_models(name, argument):
  module = importlib.import_module(f'configs.{name}')
  config = module.get_config(*([argument] if argument else []))
  # As a resumed run reads it.
  config = ml_collections.ConfigDict(json.loads(config.to_json()))
  # Where something is held out to choose by, tests choose nothing.
  held_out = argument.endswith('held_out')
  assert config.data.final_split == ('validation' if held_out else 'test')
  classifier = model_lib.create(config, CLASSES)
  losses_lib.create(classifier, config.loss)
  shape = (config.data.crop or 48, config.data.crop or 64)
  if not config.encoder:
    x = jnp.zeros((1, 2, 6))
  else:
    grey = name in ('gesture_stream', 'utd_mhad_depth')
    x = jnp.zeros((1, 2, *shape, 1 if grey else 3), jnp.uint8)
  logits, frames = jax.eval_shape(
    lambda: classifier.init_with_output(
      jax.random.key(0), x, np.array([2]), train=False
    )[0]
  )
  assert logits.shape == (1, CLASSES)
  assert 'deepgru' in argument or frames.shape == (1, 2, CLASSES)
