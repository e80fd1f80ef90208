"""Drawings equal the published ones, those made by hand, in any batch."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import sketch_kanji
from sketch_rnn import examples as examples_lib
from sketch_rnn import generation
from sketch_rnn import inference
from sketch_rnn import mixture
from sketch_rnn import model as model_lib
from sketch_rnn import published
from sketch_rnn import strokes
from training import checkpoints
from training import parallel

GOLDEN = [
  'hyper_lstm',
  'hyper_uncond',
  'layer_norm_lstm',
  'layer_norm_uncond',
  'lstm_lstm',
  'lstm_uncond',
]
TOLERANCE = dict(atol=2e-5, rtol=1e-4)
LENGTH = 14
SCALE = 20.0
CLASSES = ('cat', 'pig', 'yoga')


def examples(length=LENGTH, scale=SCALE, categories=CLASSES):
  return examples_lib.Examples(
    scale=scale, length=length, categories=categories
  )


def random_model(**arguments):
  """A small model that ends its drawings after some points, and its variables.

  The parameters are large, so that drawings differ.
  """
  model = model_lib.SketchRNN(
    **{
      'encoder_features': 6,
      'decoder_features': 8,
      'latent': 4,
      'mixtures': 3,
      **arguments,
    }
  )
  variables = jax.jit(model.init)(
    {'params': jax.random.key(0), 'latent': jax.random.key(1)},
    jnp.zeros((1, 3, 5)),
    jnp.ones((1,), jnp.int32),
    jnp.zeros((1,), jnp.int32) if model.num_classes else None,
  )
  rng = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda x: (x + rng.normal(0, 0.4, x.shape)).astype(np.float32),
    jax.device_get(variables),
  )
  bias = variables['params']['output']['bias']
  bias[:3] = [1, 0, -0.5]
  return model, variables


def sketcher(**arguments):
  return inference.Sketcher(*random_model(**arguments), examples())


@pytest.fixture(scope='module')
def vae():
  return sketcher()


@pytest.fixture(scope='module')
def decoder():
  return sketcher(conditional=False)


def from_latents(sketcher, z, count, **arguments):
  """Drawings of z, or of a decoder alone."""
  if z is None:
    return sketcher.sample(count, **arguments)
  return sketcher.decode(z, **arguments)


def assert_equal_drawings(found, expected, **tolerance):
  assert [len(drawing) for drawing in found] == [len(d) for d in expected]
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_array_equal(a[:, 2], b[:, 2])
    np.testing.assert_allclose(a, b, **(tolerance or dict(atol=1e-3)))


def some_drawings(count, seed=0, max_length=LENGTH):
  rng = np.random.default_rng(seed)
  drawings = []
  for _ in range(count):
    length = int(rng.integers(2, max_length + 1))
    drawing = rng.normal(0, SCALE, (length, 3)).astype(np.float32)
    drawing[:, 2] = rng.random(length) < 0.3
    drawing[-1, 2] = 1
    drawings.append(drawing)
  return drawings


# As published.


def golden_model(golden_file, name):
  golden = np.load(golden_file(f'sketch_rnn/tf1_small_{name}.npz'))
  arguments, params = published.from_published(
    {key[2:]: golden[key] for key in golden if key.startswith('w/')}
  )
  meta = json.loads(str(golden['meta']))
  return golden, inference.Sketcher(
    model_lib.SketchRNN(**arguments),
    {'params': params},
    examples(meta['T'], meta['scale_factor'], ('short_kanji',)),
  )


def golden_drawings(golden, sketcher):
  drawings = []
  for rows, length in zip(golden['input_data'], golden['lengths'], strict=True):
    drawing = strokes.to_stroke3(rows[1 : length + 1])
    drawing[:, :2] *= sketcher.examples.scale
    drawings.append(drawing)
  return drawings


@pytest.mark.parametrize('name', GOLDEN)
def test_greedy_drawings_are_the_published_ones(golden_file, name):
  golden, sketcher = golden_model(golden_file, name)
  z = golden['z'][:1] if sketcher.model.conditional else None
  (drawing,) = from_latents(
    sketcher,
    z,
    1,
    key=jax.random.key(0),
    sampling=generation.Sampling(greedy=True),
  )
  expected = strokes.to_stroke3(golden['greedy_strokes'])
  expected[:, :2] *= sketcher.examples.scale
  assert len(drawing) == len(expected) == 40
  np.testing.assert_allclose(
    drawing, expected, rtol=1e-4, atol=2e-5 * sketcher.examples.scale
  )


@pytest.mark.parametrize('name', [n for n in GOLDEN if n.endswith('_lstm')])
def test_posteriors_are_the_published_ones(golden_file, name):
  golden, sketcher = golden_model(golden_file, name)
  mean, sigma = sketcher.encode(golden_drawings(golden, sketcher))
  np.testing.assert_allclose(mean, golden['mean'], **TOLERANCE)
  np.testing.assert_allclose(sigma, np.exp(golden['presig'] / 2), **TOLERANCE)


@pytest.mark.parametrize('name', GOLDEN)
def test_predictions_are_the_published_ones(golden_file, name):
  golden, sketcher = golden_model(golden_file, name)
  z = golden['z'] if sketcher.model.conditional else None
  found = sketcher.predict(golden_drawings(golden, sketcher), z=z)
  scale = sketcher.examples.scale
  for i, (prediction, length) in enumerate(
    zip(found, golden['lengths'], strict=True)
  ):
    steps = slice(40 * i, 40 * i + min(length + 1, 40))
    count = steps.stop - steps.start
    for ours, theirs in (
      (prediction.weights, golden['pi']),
      (prediction.means[..., 0] / scale, golden['mu1']),
      (prediction.means[..., 1] / scale, golden['mu2']),
      (prediction.sigmas[..., 0] / scale, golden['sigma1']),
      (prediction.sigmas[..., 1] / scale, golden['sigma2']),
      (prediction.rhos, golden['rho']),
      (prediction.pens, golden['pen']),
    ):
      assert len(ours) == length + 1
      np.testing.assert_allclose(ours[:count], theirs[steps], **TOLERANCE)


@pytest.mark.parametrize('case', ['square', 'circle', 'two'])
def test_the_published_sheep_expects_what_the_authors_page_does(shared, case):
  arguments, params, info = published.load(
    shared / 'data' / 'weights' / 'sketch_rnn' / 'sheep.gen.json'
  )
  golden = json.loads(
    (shared / 'golden' / 'sketch_rnn' / 'js_sheep_prefix.json').read_text()
  )
  steps = golden['models']['sheep']['cases'][case]['steps']
  rows = np.array([step['x_pixels'] for step in steps], np.float32)
  np.testing.assert_array_equal(rows[0], strokes.START)
  scale = info['scale_factor']
  sketcher = inference.Sketcher(
    model_lib.SketchRNN(**arguments),
    {'params': params},
    examples(info['max_seq_len'], scale, ('sheep',)),
  )
  (prediction,) = sketcher.predict([rows[1:, [0, 1, 3]]])
  for ours, name in (
    (prediction.weights, 'pi'),
    (prediction.means[..., 0] / scale, 'mu1'),
    (prediction.means[..., 1] / scale, 'mu2'),
    (prediction.sigmas[..., 0] / scale, 'sigma1'),
    (prediction.sigmas[..., 1] / scale, 'sigma2'),
    (prediction.rhos, 'rho'),
    (prediction.pens, 'pen'),
  ):
    theirs = np.array([step[name] for step in steps])
    np.testing.assert_allclose(ours, theirs, **TOLERANCE)


# One step of time.


@pytest.mark.parametrize('sigma', mixture.SIGMAS)
@pytest.mark.parametrize('choices', generation.CHOICES)
def test_the_loop_takes_the_models_steps(vae, choices, sigma):
  """By hand: the mixture, its temperature, the sample, and the next step."""
  sampling = generation.Sampling(0.6, sigma=sigma, choices=choices)
  key = jax.random.key(3)
  z = vae.sample_prior(3, key)
  found = vae.decode(z, key=key, sampling=sampling)

  model, variables = random_model()
  choice = 0.6 if choices == 'paper' else 0.8
  widen = 0.6 if sigma == 'tf1' else np.sqrt(0.6)
  for i in range(3):
    carry, projected_constant = model.apply(
      variables, z[i : i + 1], method='start'
    )
    row = strokes.START[None]
    drawing = []
    point_key = jax.random.split(jax.random.fold_in(key, i))[1]
    for time in range(LENGTH):
      carry, raw = model.apply(
        variables, carry, row, projected_constant, method='step'
      )
      expected = mixture.parameters(raw[0])
      expected = expected.replace(
        log_weights=jax.nn.log_softmax(expected.log_weights / choice),
        pen_logits=expected.pen_logits / choice,
        log_sigma_x=jnp.log(jnp.exp(expected.log_sigma_x) * widen),
        log_sigma_y=jnp.log(jnp.exp(expected.log_sigma_y) * widen),
      )
      row = mixture.sample(expected, jax.random.fold_in(point_key, time))[None]
      if row[0, 4]:
        break
      drawing.append(np.array(row[0]) * [SCALE, SCALE, 1, 1, 1])
    expected = np.array(drawing).reshape(-1, 5)[:, [0, 1, 3]]
    assert_equal_drawings([found[i]], [expected])


def test_both_ways_of_choosing_agree_at_temperature_one(decoder):
  sampled = [
    decoder.sample(
      5,
      key=jax.random.key(0),
      sampling=generation.Sampling(1.0, choices=choices),
    )
    for choices in generation.CHOICES
  ]
  assert_equal_drawings(*sampled)


def test_a_low_temperature_is_nearly_greedy(decoder):
  key = jax.random.key(0)
  cold = decoder.sample(3, key=key, temperature=1e-9)
  greedy = decoder.sample(3, key=key, sampling=generation.Sampling(greedy=True))
  assert_equal_drawings(cold, greedy, atol=0.1)


def test_drawings_end_and_differ(vae):
  drawings = vae.sample(40, key=jax.random.key(0), temperature=1.0)
  lengths = {len(drawing) for drawing in drawings}
  assert len(lengths) > 3
  assert max(lengths) <= LENGTH
  again = vae.sample(40, key=jax.random.key(0), temperature=1.0)
  assert_equal_drawings(again, drawings, atol=0)
  other = vae.sample(40, key=jax.random.key(1), temperature=1.0)
  assert [len(d) for d in other] != [len(d) for d in drawings]


# A drawing depends on its own key alone.


@pytest.mark.parametrize('count', [1, 2, 10, 11, 30, 101])
def test_a_drawing_is_the_same_in_any_company(vae, count):
  key = jax.random.key(5)
  together = vae.sample(101, key=key, temperature=0.7)
  assert len(together) == 101
  few = vae.sample(count, key=key, temperature=0.7)
  assert_equal_drawings(few, together[:count])


def test_pieces_make_the_whole(decoder):
  model, variables = random_model(conditional=False)
  keys = jax.random.split(jax.random.key(2), 4)
  rows = np.tile(strokes.END, (4, LENGTH + 1, 1))
  rows[:, 0] = strokes.START
  beginning = some_drawings(1, max_length=3)[0] / [SCALE, SCALE, 1]
  rows[0] = strokes.to_stroke5(beginning.astype(np.float32), LENGTH)
  given = np.array([len(beginning), 0, 0, 0], np.int32)
  sampling = generation.Sampling(0.9)

  def begin():
    return generation.begin(model, variables, keys, rows, given)

  whole = generation.advance(model, variables, begin(), LENGTH, sampling)
  state = begin()
  for count in (1, 2, 4, 100):
    before = np.array(state.rows)
    state = generation.advance(model, variables, state, count, sampling)
    final = int(state.time)
    np.testing.assert_array_equal(
      state.rows[:, final + 1 :], before[:, final + 1 :]
    )
  np.testing.assert_allclose(state.rows, whole.rows, atol=1e-5)
  assert np.all(np.sum(whole.rows[..., 2:], -1) == 1)
  # Every row after the end is an end.
  ended = np.cumsum(whole.rows[..., 4], axis=1) > 0
  np.testing.assert_array_equal(
    whole.rows[ended], np.tile(strokes.END, (ended.sum(), 1))
  )


def test_temperatures_share_a_compilation(decoder):
  key = jax.random.key(0)
  decoder.sample(3, key=key, temperature=0.5)
  before = generation._advance._cache_size()
  decoder.sample(9, key=key, sampling=generation.Sampling(0.6, choices='js'))
  assert generation._advance._cache_size() == before
  decoder.sample(11, key=key, temperature=0.6)  # Another shape.
  assert generation._advance._cache_size() == before + 1


# Completion.


@pytest.mark.parametrize('conditional', [True, False])
def test_a_beginning_is_kept_and_continued_as_if_drawn(
  conditional, vae, decoder
):
  sketcher = vae if conditional else decoder
  key = jax.random.key(11)
  sampling = generation.Sampling(0.8)
  count = 12
  z = sketcher.sample_prior(count, key) if conditional else None
  whole = from_latents(sketcher, z, count, key=key, sampling=sampling)
  assert max(map(len, whole)) > 4
  for given in (1, 3):
    beginnings = [drawing[:given] for drawing in whole]
    found = sketcher.complete(beginnings, key=key, sampling=sampling, z=z)
    for drawing, beginning in zip(found, beginnings, strict=True):
      np.testing.assert_array_equal(drawing[: len(beginning)], beginning)
    # Those that had ended by then go on now.
    longer = [i for i, drawing in enumerate(whole) if len(drawing) > given]
    assert longer
    assert_equal_drawings(
      [found[i] for i in longer], [whole[i] for i in longer]
    )


def test_many_endings_of_one_beginning(decoder):
  beginning = some_drawings(1, seed=4, max_length=6)[0]
  drawings = decoder.complete(
    [beginning] * 20, key=jax.random.key(0), temperature=1.0
  )
  for drawing in drawings:
    np.testing.assert_array_equal(drawing[: len(beginning)], beginning)
  assert len({drawing.tobytes() for drawing in drawings}) > 10


def test_what_follows_a_beginning_is_what_was_predicted(decoder):
  """Greedily: the mean of the likeliest component at its last point."""
  beginning = some_drawings(1, seed=6, max_length=5)[0]
  (drawing,) = decoder.complete(
    [beginning],
    key=jax.random.key(0),
    sampling=generation.Sampling(greedy=True),
  )
  (prediction,) = decoder.predict([drawing])
  for i in range(len(beginning), len(drawing)):
    chosen = np.argmax(prediction.weights[i])
    np.testing.assert_allclose(
      drawing[i, :2], prediction.means[i, chosen], rtol=1e-4, atol=1e-3
    )
    assert np.argmax(prediction.pens[i]) == drawing[i, 2]
  if len(drawing) < LENGTH:
    assert np.argmax(prediction.pens[-1]) == 2


# Latent vectors and classes.


def test_encoding_is_the_same_in_any_company(vae):
  drawings = some_drawings(13)
  mean, sigma = vae.encode(drawings)
  assert np.all(sigma > 0)
  for i in (0, 12):
    for found, expected in zip(
      vae.encode([drawings[i]]), (mean[i], sigma[i]), strict=True
    ):
      np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-5)


def test_posteriors_are_drawn_from(vae):
  mean, sigma = vae.encode(some_drawings(2))
  z = vae.sample_posterior(
    np.repeat(mean, 4000, 0), np.repeat(sigma, 4000, 0), jax.random.key(0)
  ).reshape(2, 4000, -1)
  np.testing.assert_allclose(z.std(1), sigma, rtol=0.06)
  np.testing.assert_allclose((z.mean(1) - mean) / sigma, 0, atol=0.06)


def test_classes_are_drawn_by_label():
  drawer = sketcher(num_classes=3, conditional=False)
  key = jax.random.key(0)
  sampling = generation.Sampling(0.8)
  labels = np.array([drawer.label(name) for name in ('yoga', 'cat')], np.int32)
  assert labels.tolist() == [2, 0]
  both = drawer.sample(2, key=key, sampling=sampling, labels=labels)
  for i in range(2):
    same = drawer.sample(2, key=key, sampling=sampling, labels=labels[[i, i]])
    assert_equal_drawings([same[i]], [both[i]])
  assert not np.array_equal(same[0], both[0])


# Errors.


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda d: d.encode(some_drawings(1)), 'this model has no encoder'),
    (lambda d: d.label('dog'), "category='dog' is none of .* it has none"),
    (
      lambda d: d.predict([np.zeros((LENGTH + 1, 3), np.float32)]),
      'drawing 0 has 15 points, this model takes at most 14: simplify it',
    ),
    (
      lambda d: d.complete(
        [np.zeros((LENGTH, 3), np.float32)], key=jax.random.key(0)
      ),
      'a beginning of 14 points leaves no room for more',
    ),
    (
      lambda d: d.complete(
        some_drawings(3), key=jax.random.key(0), labels=np.zeros(2, np.int32)
      ),
      r'z, labels and beginnings differ in length: \[2, 3\]',
    ),
    (
      lambda d: d.decode(np.zeros((1, 4)), key=jax.random.key(0)),
      'conditional=False: pass z=None',
    ),
    (
      lambda d: d.interpolate(np.zeros((3, 4)), 5, key=jax.random.key(0)),
      'two or four latent vectors, not 3',
    ),
    (
      lambda d: d.interpolate(
        np.zeros((2, 4)), 5, key=jax.random.key(0), method='cubic'
      ),
      "method='cubic' is none of spherical, linear",
    ),
    (lambda d: generation.Sampling(0.0), 'choose greedy'),
    (lambda d: generation.Sampling(float('nan')), 'must be above 0'),
    (lambda d: generation.Sampling(sigma='js'), "sigma='js' is none of paper"),
    (lambda d: generation.Sampling(choices='tf1'), 'is none of paper, js'),
  ],
)
def test_what_cannot_be_done_is_a_clear_error(decoder, call, message):
  with pytest.raises(ValueError, match=message):
    call(decoder)


def test_a_malformed_drawing_is_named(vae):
  drawings = some_drawings(3)
  drawings[1][0, 0] = np.nan
  with pytest.raises(ValueError, match='drawing 1: NaN or infinity in row 0'):
    vae.encode(drawings)


def write_workdir(workdir, model, variables, examples):
  """What training leaves."""
  config = sketch_kanji.get_config()
  config.model.update(
    {
      field.name: getattr(model, field.name)
      for field in dataclasses.fields(model)
      if field.name not in ('dtype', 'parent', 'name')
    }
  )
  checkpoints.write_config(workdir, config)
  state = parallel.create_state(variables, optax.identity())
  with checkpoints.Checkpoints(
    workdir, best_metric='loss', mode='min'
  ) as saved:
    extras = {'config': config.to_dict(), 'drawings': examples.to_dict()}
    saved.save(state, extras=extras)


def test_a_workdir_draws_what_its_model_does(tmp_path):
  model, variables = random_model(decoder='layer_norm')
  write_workdir(tmp_path, model, variables, examples())
  loaded = inference.load(str(tmp_path))
  assert loaded.examples == examples()
  arguments = {'key': jax.random.key(0), 'temperature': 0.5}
  replicated = inference.Sketcher(
    model, parallel.replicate(variables), examples()
  )
  expected = replicated.sample(4, **arguments)
  assert_equal_drawings(loaded.sample(4, **arguments), expected, atol=0)


def test_the_workdir_of_something_else_is_a_clear_error(tmp_path):
  with pytest.raises(FileNotFoundError, match='config.json does not exist'):
    inference.load(tmp_path)
  checkpoints.write_json(tmp_path / 'config.json', {'decoder': {}})
  with pytest.raises(ValueError, match='the config of a sketch_rnn.main run'):
    inference.load(tmp_path)
