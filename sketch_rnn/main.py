"""Trains Sketch-RNN (Ha and Eck 2017), evaluates it and shows samples.

python -m sketch_rnn.main --config=configs/sketch_cat.py --workdir=runs/cat
"""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from configs import schema
from sketch_rnn import evaluation as evaluation_lib
from sketch_rnn import examples as examples_lib
from sketch_rnn import inference
from sketch_rnn import losses
from sketch_rnn import model as model_lib
from sketch_rnn import quality
from sketch_rnn import rendering
from training import app
from training import checkpoints
from training import compilation
from training import loop
from training import optimizers
from training import parallel


def initial_variables(
  model: model_lib.SketchRNN,
  example: dict[str, np.ndarray],
  seed: int,
  earlier: inference.Sketcher | None = None,
  path: str = '',
) -> Any:
  """Random parameters of the network, or those of an earlier model.

  Args:
    model: the network.
    example: one of its examples.
    seed: random seed of the parameters.
    earlier: the model to start from.
    path: its workdir, for the error.

  Raises:
    ValueError: the earlier model is another network.
  """
  keys = jax.random.split(jax.random.key(seed))

  def init():
    return model.init(
      {'params': keys[0], 'latent': keys[1]},
      jnp.asarray(example['strokes'])[None],
      jnp.asarray(example['length'])[None],
      jnp.asarray(example['label'])[None] if model.num_classes else None,
    )

  if earlier is None:
    return compilation.run_once(init)
  checkpoints.check_shapes(
    earlier.variables, jax.eval_shape(init), pathlib.Path(path).absolute()
  )
  return jax.device_get(earlier.variables)


def check_classes(
  config: ml_collections.ConfigDict, examples: examples_lib.Examples
):
  """Raises a ValueError if `num_classes` does not fit the categories."""
  if config.num_classes not in (0, len(examples.categories)):
    raise ValueError(
      f'model.num_classes={config.num_classes} must be 0 (no labels) or the '
      f'number of categories, {len(examples.categories)}: '
      f'{", ".join(examples.categories)}'
    )


def train_and_evaluate(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
):
  """Trains from the latest checkpoint in `workdir`, or from scratch.

  Ends with the best checkpoint's losses on the test split and the quality of
  its drawings in `results.json`.
  """
  parallel.local_batch_size(config.batch_size)
  parallel.local_batch_size(config.eval_batch_size, 'eval_batch_size')
  evaluation_lib.check_metric(config.best_metric)
  quality.check(config.quality)
  examples, splits = examples_lib.load(config.data)
  earlier = inference.load(config.start_from) if config.start_from else None
  if earlier is not None:
    # Its weights are for drawings in its own unit.
    examples = dataclasses.replace(examples, scale=earlier.examples.scale)
  check_classes(config.model, examples)
  training, validation = splits['train'], splits['validation']
  batches = examples_lib.training_batches(
    training,
    examples,
    batch_size=config.batch_size,
    seed=config.seed,
    buckets=tuple(config.buckets),
  )

  model = model_lib.SketchRNN(**config.model)
  optimizer, learning_rate = optimizers.create(
    config.optimizer, config.num_steps
  )
  state = parallel.create_state(
    initial_variables(
      model,
      examples.evaluation(training[0]),
      config.seed,
      earlier,
      config.start_from,
    ),
    optimizer,
  )
  train_step = parallel.train_step(
    losses.create(model, config.loss, examples.length),
    losses.counts,
    optimizer,
  )
  evaluate = evaluation_lib.Evaluator(validation, examples, model, config)
  key = parallel.replicate(jax.random.key(config.seed + 1))
  extras = {'config': config.to_dict(), 'drawings': examples.to_dict()}

  with loop.start(
    config,
    workdir,
    state,
    batches=batches,
    learning_rate=learning_rate,
    extras=extras,
    fingerprint=examples_lib.fingerprint(config.data),
  ) as run:
    for step in run.steps():
      if step.evaluates:
        run.record_evaluation(evaluate(run.state.variables))
        sheets = evaluation_lib.show(
          model,
          run.state.variables,
          examples,
          validation,
          seed=config.seed,
          temperature=config.quality.temperatures[0],
        )
        run.report.images(
          step.number,
          {
            f'validation/{name}': rendering.image(sections)[None]
            for name, sections in sheets.items()
          },
        )
      else:
        run.state, update = train_step(run.state, step.batch, key)
        run.record_update(update)

  evaluation_lib.evaluate_best(workdir, 'test')


if __name__ == '__main__':
  app.run(train_and_evaluate, schema=schema.SKETCH_RNN)
