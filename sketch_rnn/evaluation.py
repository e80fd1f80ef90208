"""Losses of a sketch model on a whole split, sharded over devices and hosts.

Axes: B drawings, T points (the longest drawing's), Z latent, S draws of z.
"""

import dataclasses
import pathlib
import time
import zlib
from collections.abc import Callable
from typing import Any

import clu.metrics
import flax
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging

from sketch_rnn import examples as examples_lib
from sketch_rnn import generation
from sketch_rnn import inference
from sketch_rnn import inputs
from sketch_rnn import losses
from sketch_rnn import model as model_lib
from sketch_rnn import rendering
from sketch_rnn import sheets
from training import app
from training import batching
from training import checkpoints
from training import parallel
from training import results

Batch = dict[str, jax.Array]

_SHOWN = 12  # Drawings of a split.

# By what a checkpoint can be the best.
METRICS = ('loss', 'reconstruction', 'reconstruction_masked', 'kl')


def check_metric(name: str):
  """Raises a ValueError unless checkpoints can be ranked by this metric."""
  if name not in METRICS:
    raise ValueError(f'best_metric={name!r} is none of {", ".join(METRICS)}')


@flax.struct.dataclass
class Metrics(clu.metrics.Collection):
  """Means over drawings, each of them a mean over the longest one's points."""

  offset: clu.metrics.Average.from_output('offset')
  pen: clu.metrics.Average.from_output('pen')
  pen_masked: clu.metrics.Average.from_output('pen_masked')
  kl: clu.metrics.Average.from_output('kl')


def scores(
  metrics: Metrics, config: ml_collections.ConfigDict
) -> dict[str, float]:
  """Named numbers: what a table prints, and the loss at its final weight."""
  means = {name: float(x) for name, x in metrics.compute().items()}
  reconstruction = means['offset'] + means['pen']
  found = {
    'reconstruction': reconstruction,
    'reconstruction_masked': means['offset'] + means['pen_masked'],
    'offset': means['offset'],
    'pen': means['pen'],
    'kl': means['kl'],
  }
  if not config.model.conditional:
    return {**found, 'loss': reconstruction}
  kl = max(means['kl'], config.loss.kl_floor)
  return {**found, 'loss': reconstruction + config.loss.kl_weight * kl}


class Evaluator:
  """Evaluates parameters on one split."""

  def __init__(
    self,
    source: batching.Source,
    examples: examples_lib.Examples,
    model: model_lib.SketchRNN,
    config: ml_collections.ConfigDict,
  ):
    """Compiles on the first call.

    Args:
      source: the records of the split.
      examples: makes examples of them.
      model: the network.
      config: `seed`, `eval_batch_size`, `latent_samples` (S), `loss`.

    Raises:
      ValueError: S is not positive.
    """
    if config.latent_samples < 1:
      raise ValueError(
        f'latent_samples={config.latent_samples} must be at least 1'
      )
    self._config = config
    self._step = parallel.eval_step(
      _metrics_fn(
        model, examples.length, config.latent_samples, config.seed + 2
      )
    )

    def example(record):
      # Which z is drawn depends on the drawing, not on its place.
      seed = np.array(zlib.crc32(record['id'].encode()), np.uint32)
      return {**examples.evaluation(record), 'seed': seed}

    self._batches = batching.evaluation_batches(
      source, example, batch_size=config.eval_batch_size
    )

  def __call__(self, variables: Any) -> dict[str, float]:
    """The scores of the whole split.

    Raises:
      Stopped: SIGTERM came.
    """
    total = Metrics.empty()
    for _, batch in parallel.prefetch(batching.read(self._batches)):
      app.raise_if_stopping()
      total = total.merge(self._step(variables, batch))
    return scores(total, self._config)


def _metrics_fn(
  model: model_lib.SketchRNN, length: int, samples: int, seed: int
) -> Callable[[Any, Batch], Metrics]:
  """As `parallel.eval_step` wants it; the mean over S draws of z."""

  def metrics_fn(variables, batch):
    strokes, mask = batch['strokes'], batch['mask']
    labels = batch['label'] if model.num_classes else None
    mean = presigma = None
    if model.conditional:
      mean, presigma = model.apply(
        variables, strokes[:, 1:], batch['length'], method='encode'
      )

    def draw(sample):
      z = None
      if model.conditional:
        key = jax.random.fold_in(jax.random.key(seed), sample)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch['seed'])
        noise = jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:]))
        z = mean + jnp.exp(presigma / 2) * noise(keys)
      raw = model.apply(variables, strokes[:, :-1], z, labels, method='decode')
      return losses.drawing_losses(raw, mean, presigma, strokes, length)

    draws = jax.lax.map(draw, jnp.arange(samples if model.conditional else 1))
    parts = jax.tree.map(lambda x: jnp.mean(x, axis=0), draws)
    return Metrics.single_from_model_output(**parts, mask=mask)

  return metrics_fn


def show(
  model: model_lib.SketchRNN,
  variables: Any,
  examples: examples_lib.Examples,
  source: batching.Source,
  *,
  seed: int,
  temperature: float = 0.4,
) -> dict[str, list[rendering.Section]]:
  """Samples, and of a VAE reconstructions and an interpolation, as sheets.

  Args:
    model: the network.
    variables: of the network.
    examples: of the run.
    source: the records of a split, of which the first are reconstructed; the
      first two, if there are two, are interpolated.
    seed: of what is drawn.
    temperature: of the points.
  """
  sketcher = inference.Sketcher(model, variables, examples)
  records = [source[i] for i in range(min(len(source), _SHOWN))]
  given = [
    inputs.Input(record['id'], record['strokes'], record['category'])
    for record in records
  ]
  maker = sheets.SheetMaker(
    sketcher, [generation.Sampling(temperature=temperature)], seed=seed
  )
  found = {'samples': maker.sample(20)}
  if sketcher.model.conditional:
    found['reconstructions'] = maker.reconstruct(given, from_mean=True)
    if len(given) > 1:
      found['interpolation'] = maker.interpolate(given[:2], 'spherical', 10)
  return {
    name: [
      dataclasses.replace(section, heading=f'{name}, {section.heading}')
      for section in sections
    ]
    for name, sections in found.items()
  }


def evaluate_best(workdir: pathlib.Path, split: str) -> dict[str, Any]:
  """Evaluates the best checkpoint; writes `results.json` and a picture.

  Args:
    workdir: of the run; nothing else is needed.
    split: 'validation' or 'test'.

  Returns:
    The entry of `results.json`.
  """
  config = app.read_config(workdir)
  best = {'best_metric': config.best_metric, 'mode': config.best_mode}
  variables, extras, step = checkpoints.load(workdir, **best)
  examples = examples_lib.Examples.from_dict(extras['drawings'])
  model = model_lib.SketchRNN(**config.model)
  source = examples_lib.load_split(config.data, split, examples)
  since = time.monotonic()
  evaluate = Evaluator(source, examples, model, config)
  entry = {
    'scores': evaluate(parallel.replicate(variables)),
    'num_drawings': len(source),
    'latent_samples': config.latent_samples if config.model.conditional else 0,
    **results.from_run(workdir, config, step),
    'data': {
      'name': config.data.name,
      'categories': list(examples.categories),
      'fingerprint': examples_lib.fingerprint(config.data),
    },
    'evaluation_seconds': round(time.monotonic() - since, 1),
  }
  if jax.process_index() == 0:
    sections = show(model, variables, examples, source, seed=config.seed)
    (workdir / 'results').mkdir(exist_ok=True)
    rendering.write(
      workdir / 'results' / split,
      [s for part in sections.values() for s in part],
    )
  results.add(workdir, split, entry)
  lines = [f'{split}: {entry["num_drawings"]} drawings, step {step}']
  lines += [f'{name:22} {x:9.4f}' for name, x in entry['scores'].items()]
  logging.info('%s', '\n'.join(lines))
  return entry
