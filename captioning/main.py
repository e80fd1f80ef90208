r"""Trains an image captioner; evaluates it during training and at the end.

  python -m captioning.main --config=configs/coco.py --workdir=runs/coco

By cross-entropy, or self-critically (Rennie et al. 2017) from the best
checkpoint of an earlier run:

  python -m captioning.main --config=configs/ucm.py:att2in/self_critical \
    --config.start_from=runs/att2in --workdir=runs/att2in_self_critical
"""

import contextlib
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from captioning import data
from captioning import earlier
from captioning import evaluation as evaluation_lib
from captioning import inference
from captioning import length_buckets
from captioning import losses
from captioning import model
from captioning import records
from captioning import self_critical
from captioning import vocabulary as vocabulary_lib
from configs import schema
from training import app
from training import checkpoints
from training import compilation
from training import loop
from training import optimizers
from training import parallel
from training import report as report_lib
from vision import networks
from vision import pretrained


def initial_variables(
  captioner: model.Captioner,
  example: dict[str, np.ndarray],
  config: ml_collections.ConfigDict,
  vocabulary: vocabulary_lib.Vocabulary | None = None,
) -> Any:
  """The variables that training starts from.

  Random parameters, with published ones of the encoder if `encoder_weights`
  names some; or those of the best checkpoint of the workdir `start_from`.

  Raises:
    ValueError: the run to start from is of another network, or has other words
      than `vocabulary`.
  """
  inputs = {
    name: jnp.asarray(x)[None]
    for name, x in example.items()
    if name in (*model.IMAGE_FIELDS, 'tokens')
  }

  def init(key):
    return captioner.init(
      key, *model.inputs(inputs), train=False
    ) | losses.initial_model_state(captioner)

  key = jax.random.key(config.seed)
  if config.start_from:
    if captioner.visual_words is not None:
      raise ValueError(
        'a trained captioner has no visual words: pass '
        '--config.loss.visual_words=0 with start_from'
      )
    path = pathlib.Path(config.start_from).absolute()
    trained = inference.restore(
      path, with_encoder=captioner.encoder is not None
    )
    if captioner.encoder is not None:
      networks.check_same(captioner.encoder, trained.network.encoder, path)
    checkpoints.check_shapes(trained.variables, jax.eval_shape(init, key), path)
    if vocabulary is not None:
      earlier.check_vocabulary(vocabulary, trained.vocabulary, path)
    return jax.device_get(trained.variables)
  if captioner.encoder is None or not config.encoder_weights:
    return compilation.run_once(init, key)
  # Before the work: the file may be absent, or of another shape.
  encoder = pretrained.load_encoder(config.encoder_weights, config.encoder)
  return pretrained.put_encoder(compilation.run_once(init, key), encoder)


def show(
  report: report_lib.Report,
  step: int,
  evaluation: evaluation_lib.Evaluation,
  evaluate: evaluation_lib.Evaluator,
  variables: Sequence[Any],
):
  """Writes a table of captions and figures of their attention."""
  table = evaluation_lib.table(evaluation, evaluate.references)
  report.texts(step, {'validation/captions': table})
  figures = evaluate.show(variables, evaluation, count=4)
  report.images(step, {f'validation/{i}': x[None] for i, x in figures.items()})


def train_and_evaluate(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
):
  """Trains from the latest checkpoint in `workdir`, or from scratch.

  Ends by scoring the best checkpoint on the test split: `results.json`.
  """
  parallel.local_batch_size(config.batch_size)
  parallel.local_batch_size(config.eval_batch_size, 'eval_batch_size')
  evaluation_lib.check_metric(config)
  captions = data.open_split(config.data.name, 'train', config.data.data_dir)
  examples = records.make_examples(config, workdir, captions)
  examples.vocabulary.constraints(config.decoding)  # Before features are made.
  training = records.open_split(config, workdir, 'train')
  validation = records.open_split(config, workdir, 'validation')
  batches = length_buckets.training_batches(
    config, workdir, training, captions, examples
  )

  concepts, num_concepts = None, 0
  if config.loss.visual_words:
    concepts = records.find_concepts(training, examples.vocabulary)
    num_concepts = int(concepts.max()) + 1
  captioner = model.create(
    config,
    len(examples.vocabulary),
    with_encoder=inference.encodes(config),
    num_concepts=num_concepts,
  )
  optimizer, learning_rate = optimizers.create(
    config.optimizer, config.num_steps
  )
  frozen = tuple(config.frozen)
  if captioner.encoder is None:  # The encoder has no parameters then.
    frozen = tuple(path for path in frozen if not path.startswith('encoder'))
  state = parallel.create_state(
    initial_variables(
      captioner,
      examples.evaluation(training[0]),
      config,
      examples.vocabulary,
    ),
    optimizer,
    frozen=frozen,
    keep_ema=config.ema_decay > 0,
  )
  train_step = parallel.train_step(
    losses.create(captioner, config.loss, concepts),
    losses.counts,
    optimizer,
    frozen=frozen,
    microbatches=config.microbatches,
    ema_decay=config.ema_decay,
  )
  evaluate = evaluation_lib.Evaluator(validation, examples, [captioner], config)
  key = parallel.replicate(jax.random.key(config.seed + 1))
  extras = {
    'config': config.to_dict(),
    'vocabulary': examples.vocabulary.words,
  }

  with contextlib.ExitStack() as stack:
    run = stack.enter_context(
      loop.start(
        config,
        workdir,
        state,
        batches=batches,
        learning_rate=learning_rate,
        extras=extras,
        fingerprint=data.fingerprint(config.data.name, config.data.data_dir),
      )
    )
    sample = None
    if config.self_critical.num_samples:
      sample = self_critical.create(
        stack,
        captioner,
        records.count_frequencies(
          config, workdir, training, examples.vocabulary
        ),
        config,
        fields=model.IMAGE_FIELDS,
        inputs=model.image_inputs,
      )
    for step in run.steps():
      if step.evaluates:
        variables = [run.state.variables]
        evaluation = evaluate(variables)
        run.record_evaluation(evaluation.scores, evaluation.seconds)
        show(run.report, step.number, evaluation, evaluate, variables)
      else:
        batch, rewards = step.batch, None
        if sample is not None:
          variables = {'params': run.state.params, **run.state.model_state}
          batch, rewards = sample(
            variables, step.host_batch, batch, step.number
          )
        run.state, update = train_step(run.state, batch, key)
        run.record_update(update, rewards)

  evaluation_lib.evaluate_best(workdir, 'test')


if __name__ == '__main__':
  app.run(train_and_evaluate, schema=schema.CAPTIONING)
