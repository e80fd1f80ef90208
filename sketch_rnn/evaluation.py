"""Losses of a sketch model on a whole split, sharded over devices and hosts.

Axes: B drawings, T points (of the longest drawing), Z latent, S samples of z.
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

from configs import schema
from sketch_rnn import examples as examples_lib
from sketch_rnn import generation
from sketch_rnn import inference
from sketch_rnn import inputs
from sketch_rnn import losses
from sketch_rnn import model as model_lib
from sketch_rnn import quality
from sketch_rnn import rendering
from sketch_rnn import sheets
from training import app
from training import batching
from training import checkpoints
from training import console
from training import parallel
from training import released
from training import results

Batch = dict[str, jax.Array]

_NUM_SHOWN = 12  # Drawings of a split.

# Metrics that can rank checkpoints.
METRICS = ('loss', 'reconstruction', 'reconstruction_masked', 'kl')


def check_metric(name: str):
  """Raises a ValueError unless checkpoints can be ranked by this metric."""
  if name not in METRICS:
    raise ValueError(f'best_metric={name!r} is none of {", ".join(METRICS)}')


@flax.struct.dataclass
class Metrics(clu.metrics.Collection):
  """Means over drawings of the parts of `losses.drawing_losses`."""

  offset: clu.metrics.Average.from_output('offset')
  pen: clu.metrics.Average.from_output('pen')
  pen_masked: clu.metrics.Average.from_output('pen_masked')
  kl: clu.metrics.Average.from_output('kl')


def scores(
  metrics: Metrics, config: ml_collections.ConfigDict
) -> dict[str, float]:
  """The scores of a split; `loss` has the final weight of the divergence."""
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
      examples: turns records into examples.
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
      # The noise of z depends on the drawing, not on its index.
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
      app.raise_if_any_stops()
      total = total.merge(self._step(variables, batch))
    return scores(total, self._config)


def _metrics_fn(
  model: model_lib.SketchRNN, length: int, samples: int, seed: int
) -> Callable[[Any, Batch], Metrics]:
  """The function for `parallel.eval_step`: the mean over S samples of z."""

  def metrics_fn(variables, batch):
    strokes, mask = batch['strokes'], batch['mask']
    labels = batch['label'] if model.num_classes else None
    mean = presigma = None
    if model.conditional:
      mean, presigma = model.apply(
        variables, strokes[:, 1:], batch['length'], method='encode'
      )

    def one_sample(index):
      z = None
      if model.conditional:
        key = jax.random.fold_in(jax.random.key(seed), index)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch['seed'])
        noise = jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:]))
        z = mean + jnp.exp(presigma / 2) * noise(keys)
      raw = model.apply(variables, strokes[:, :-1], z, labels, method='decode')
      return losses.drawing_losses(raw, mean, presigma, strokes, length)

    every = jax.lax.map(
      one_sample, jnp.arange(samples if model.conditional else 1)
    )
    parts = jax.tree.map(lambda x: jnp.mean(x, axis=0), every)
    return Metrics.single_from_model_output(**parts, mask=mask)

  return metrics_fn


def show(
  model: model_lib.SketchRNN,
  variables: Any,
  examples: examples_lib.Examples,
  source: batching.Source,
  *,
  seed: int,
  temperature: float,
) -> dict[str, list[rendering.Section]]:
  """Sheets of samples and, of a VAE, of reconstructions and an interpolation.

  The samples are the first ones of the seed, numbered; none is left out.

  Args:
    model: the network.
    variables: its variables.
    examples: those of the run.
    source: the records of a split. The first are reconstructed; an
      interpolation leads from the first to the second, if there are two.
    seed: random seed of the samples.
    temperature: sampling temperature.
  """
  sketcher = inference.Sketcher(model, variables, examples)
  records = [source[i] for i in range(min(len(source), _NUM_SHOWN))]
  given = [
    inputs.Input(record['id'], record['strokes'], record['category'])
    for record in records
  ]
  maker = sheets.SheetMaker(
    sketcher, [generation.Sampling(temperature=temperature)], seed=seed
  )
  found = {'samples': maker.sample(20, numbered=True)}
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


def score_records(
  workdir: pathlib.Path, source: batching.Source
) -> dict[str, float]:
  """Scores the best checkpoint of a run on records that are given.

  Args:
    workdir: of the run, or of a released model.
    source: records as those of the run's data set.
  """
  config = app.read_config(workdir, schema.SKETCH_RNN)
  best = {'best_metric': config.best_metric, 'mode': config.best_mode}
  variables, extras, _ = checkpoints.load(workdir, **best)
  examples = examples_lib.Examples.from_dict(extras['drawings'])
  model = model_lib.SketchRNN(**config.model)
  evaluate = Evaluator(examples.select(source), examples, model, config)
  return evaluate(parallel.replicate(variables))


def evaluate_best(workdir: pathlib.Path, split: str) -> dict[str, Any]:
  """Evaluates the best checkpoint; writes `results.json` and a sheet.

  The entry has the losses and, unless the config has `quality.num_steps` of 0
  or is older than this field, the measures of quality.py.

  Args:
    workdir: workdir of the run; nothing else is needed.
    split: 'validation' or 'test'.

  Returns:
    The entry of `results.json`.
  """
  output = released.output(workdir)
  console.state(f'scoring {split}')
  config = app.read_config(workdir, schema.SKETCH_RNN)
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
  }
  if jax.process_index() == 0:
    temperature = 0.4
    if 'quality' in config:
      temperature = config.quality.temperatures[0]
      if config.quality.num_steps:
        entry['quality'] = quality.measure(
          inference.Sketcher(model, variables, examples),
          config,
          split,
          output / 'quality',
        )
    sections = show(
      model,
      variables,
      examples,
      source,
      seed=config.seed,
      temperature=temperature,
    )
    (output / 'results').mkdir(parents=True, exist_ok=True)
    rendering.write(
      output / 'results' / split,
      [s for part in sections.values() for s in part],
    )
  entry['evaluation_seconds'] = round(time.monotonic() - since, 1)
  results.add(output, split, entry)
  lines = [f'{split}: {entry["num_drawings"]} drawings, step {step}']
  lines += [f'{name:22} {x:9.4f}' for name, x in entry['scores'].items()]
  if entry.get('quality'):
    lines.append(quality.table(entry['quality']))
  console.result('\n'.join(lines))
  return entry
