"""Every drawing counts once, whatever it is evaluated together with."""

import threading
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import sketch_sheep
from sketch_rnn import evaluation
from sketch_rnn import examples as examples_lib
from sketch_rnn import losses
from sketch_rnn import main
from sketch_rnn import mixture as mixture_lib
from sketch_rnn import model as model_lib
from training import app
from training import parallel

LENGTHS = (3, 8, 14, 8, 3)


def make_config(**fields):
  config = sketch_sheep.get_config()
  config.update_from_flattened_dict(
    {
      'seed': 3,
      'model.encoder_features': 6,
      'model.decoder_features': 8,
      'model.latent': 4,
      'model.mixtures': 3,
      'eval_batch_size': 4,
      'latent_samples': 2,
      **{name.replace('__', '.'): value for name, value in fields.items()},
    }
  )
  return config


@pytest.fixture(scope='module')
def records():
  rng = np.random.default_rng(0)
  made = []
  for i, length in enumerate(LENGTHS):
    rows = rng.normal(0, 30, (length, 3)).astype(np.float32)
    rows[:, 2] = rng.random(length) < 0.3
    rows[-1, 2] = 1
    category = ('cat', 'pig')[i % 2]
    made.append({'id': f'{i}', 'strokes': rows, 'category': category})
  return made


def make(records, **fields):
  """Config, examples, model and random variables of it."""
  config = make_config(**fields)
  examples, _ = examples_lib.Examples.build(config.data, {'train': records})
  model = model_lib.SketchRNN(**config.model)
  variables = main.initial_variables(
    model, examples.evaluation(records[0]), seed=0
  )
  rng = np.random.default_rng(1)
  variables = jax.tree.map(
    lambda x: np.array(x + rng.normal(0, 0.4, x.shape), np.float32), variables
  )
  return config, examples, model, variables


def evaluate(records, config, examples, model, variables):
  evaluator = evaluation.Evaluator(records, examples, model, config)
  return evaluator(parallel.replicate(variables))


def one_by_one(records, config, examples, model, variables):
  """The means of drawings that are alone and, but for the pen, not padded."""

  @jax.jit
  def parts(rows, keys, label):
    """f32[T + 1, 5] -> sums over points, and the divergence."""
    length = jnp.sum(rows[1:, 4] == 0)[None]
    labels = label[None] if model.num_classes else None
    found = []
    for key in keys:
      z = None
      if model.conditional:
        mean, presigma = model.apply(
          variables, rows[None, 1:], length, method='encode'
        )
        noise = jax.random.normal(key, mean.shape[1:])
        z = mean + jnp.exp(presigma / 2) * noise
      raw = model.apply(variables, rows[None, :-1], z, labels, method='decode')
      mixture, targets = mixture_lib.parameters(raw), rows[None, 1:]
      found.append(
        [
          jnp.sum(losses.offset_loss(mixture, targets)),
          jnp.sum(losses.pen_loss(mixture, targets, masked=False)),
          losses.kl_divergence(mean, presigma)[0] if model.conditional else 0.0,
        ]
      )
    return jnp.mean(jnp.array(found), axis=0)

  offsets, pens, masked, divergences = [], [], [], []
  for record in records:
    example = examples.evaluation(record)
    rows, label = example['strokes'], example['label']
    keys = [
      jax.random.fold_in(
        jax.random.fold_in(jax.random.key(config.seed + 2), sample),
        zlib.crc32(record['id'].encode()),
      )
      for sample in range(config.latent_samples)
    ]
    offset, pen, kl = parts(rows[: example['length'] + 1], keys, label)
    offsets.append(offset / max(LENGTHS))
    masked.append(pen / max(LENGTHS))
    pens.append(parts(rows, keys, label)[1] / max(LENGTHS))
    divergences.append(kl)
  offset, pen, pen_masked, kl = map(
    np.mean, (offsets, pens, masked, divergences)
  )
  loss = offset + pen
  if model.conditional:
    loss += config.loss.kl_weight * max(kl, config.loss.kl_floor)
  return {
    'reconstruction': offset + pen,
    'reconstruction_masked': offset + pen_masked,
    'offset': offset,
    'pen': pen,
    'kl': kl,
    'loss': loss,
  }


@pytest.mark.parametrize(
  'fields', [{}, {'model__conditional': False}, {'model__num_classes': 2}]
)
def test_scores_are_means_over_drawings(records, fields):
  """Five of them in batches of four, on two devices."""
  made = make(records, **fields)
  assert evaluate(records, *made) == pytest.approx(
    one_by_one(records, *made), rel=1e-5
  )


def test_scores_do_not_depend_on_batches_and_order(records):
  """Each drawing has its own noise."""
  config, *made = make(records)
  expected = evaluate(records, config, *made)
  config.eval_batch_size = 2
  assert evaluate(records[::-1], config, *made) == pytest.approx(
    expected, rel=1e-5
  )
  config.eval_batch_size = 16
  assert evaluate(records, config, *made) == pytest.approx(expected, rel=1e-5)
  config.seed += 1
  other = evaluate(records, config, *made)
  assert other['kl'] == pytest.approx(expected['kl'], rel=1e-5)
  assert other['offset'] != pytest.approx(expected['offset'], rel=1e-4)


@pytest.mark.parametrize(('kl', 'counted'), [(0.1, 0.2), (0.3, 0.3)])
def test_the_floor_counts_in_the_loss(kl, counted):
  config = make_config(loss__kl_weight=0.5, loss__kl_floor=0.2)
  metrics = evaluation.Metrics.single_from_model_output(
    offset=np.array([1.0, 3.0]),
    pen=np.array([0.5, 0.5]),
    pen_masked=np.array([0.2, 0.4]),
    kl=np.array([0.0, 2 * kl]),
  )
  assert evaluation.scores(metrics, config) == pytest.approx(
    {
      'offset': 2,
      'pen': 0.5,
      'reconstruction': 2.5,
      'reconstruction_masked': 2.3,
      'kl': kl,
      'loss': 2.5 + 0.5 * counted,
    }
  )


def test_sigterm_ends_an_evaluation(records, monkeypatch):
  config, *made = make(records)
  terminated = threading.Event()
  monkeypatch.setattr(app, '_terminated', terminated)
  terminated.set()
  with pytest.raises(app.Stopped):
    evaluate(records, config, *made)


@pytest.mark.parametrize('count', [1, 5])
def test_what_is_shown_of_a_split(records, count):
  """An interpolation only where there is something to go to."""
  _, examples, model, variables = make(records)
  sheets = evaluation.show(
    model, variables, examples, records[:count], seed=0, temperature=0.3
  )
  names = ['samples', 'reconstructions', 'interpolation']
  assert list(sheets) == names[: 2 + (count > 1)]
  (samples,) = sheets['samples']
  assert [panel.title for panel in samples.panels] == [*map(str, range(20))]
  assert samples.heading == 'samples, temperature 0.3'
  (reconstructions,) = sheets['reconstructions']
  assert len(reconstructions.panels) == 2 * count
  titles = [panel.title for panel in reconstructions.panels[::2]]
  assert titles == [record['id'] for record in records[:count]]
