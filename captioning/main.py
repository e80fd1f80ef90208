"""Trains an image captioner, evaluates it on the way and on the test split.

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

from captioning import evaluation as evaluation_lib
from captioning import examples as examples_lib
from captioning import inference
from captioning import losses
from captioning import model
from captioning import records
from captioning import rewards as rewards_lib
from captioning import self_critical
from training import app
from training import batching
from training import checkpoints
from training import optimizers
from training import parallel
from training import report as report_lib
from vision import pretrained


def initial_variables(
  captioner: model.Captioner,
  example: dict[str, np.ndarray],
  config: ml_collections.ConfigDict,
) -> Any:
  """What training starts from.

  Random parameters, and the published ones of the encoder if named; or all that
  the best checkpoint of the workdir `start_from` holds.
  """
  inputs = {
    name: jnp.asarray(x)[None]
    for name, x in example.items()
    if name in ('picture', 'tokens', 'locations')
  }

  def init(key):
    return captioner.init(
      key, *model.inputs(inputs), train=False
    ) | losses.statistics(captioner)

  key = jax.random.key(config.seed)
  if config.start_from:
    place = pathlib.Path(config.start_from).absolute()
    trained = inference.load(place, with_encoder=captioner.encoder is not None)
    checkpoints.check_shapes(
      trained.variables, jax.eval_shape(init, key), place
    )
    return jax.device_get(trained.variables)
  variables = jax.jit(init)(key)
  if captioner.encoder is not None and config.encoder_weights:
    encoder = pretrained.load(config.encoder_weights, config.encoder.depth)
    variables = inference.put_encoder(variables, encoder)
  return variables


def make_self_critical(
  stack: contextlib.ExitStack,
  captioner: model.Captioner,
  examples: examples_lib.Examples,
  training: batching.Source,
  config: ml_collections.ConfigDict,
) -> self_critical.SelfCritical:
  """What draws captions and has them scored, until the stack is left."""
  fields = config.self_critical
  scorer = rewards_lib.Rewards(
    records.count_frequencies(config, training, examples.vocabulary),
    cider=fields.cider,
    bleu=fields.bleu,
    workers=fields.workers,
  )
  return self_critical.SelfCritical(
    captioner,
    stack.enter_context(scorer),
    num_samples=fields.num_samples,
    baseline=fields.baseline,
    max_length=config.data.max_length,
    key=jax.random.key(config.seed + 2),
  )


def report_evaluation(
  report: report_lib.Report,
  step: int,
  evaluation: evaluation_lib.Evaluation,
  evaluate: evaluation_lib.Evaluator,
  variables: Sequence[Any],
):
  """Scores, a table of sentences and pictures of where the model looked."""
  report.scalars(
    step,
    {
      **{f'validation/{name}': x for name, x in evaluation.scores.items()},
      'validation/seconds': evaluation.seconds,
    },
  )
  table = evaluation_lib.table(evaluation, evaluate.references)
  report.texts(step, {'validation/captions': table})
  pictures = evaluate.show(variables, evaluation, count=4)
  report.images(step, {f'validation/{i}': x[None] for i, x in pictures.items()})


def train_and_evaluate(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
):
  """Trains from the latest checkpoint in `workdir`, or from scratch.

  Ends with the best checkpoint's scores on the test split in `results.json`.
  """
  parallel.local_batch_size(config.batch_size)
  parallel.local_batch_size(config.eval_batch_size, 'eval_batch_size')
  evaluation_lib.check_metric(config.best_metric)
  training = records.open_split(config, workdir, 'train')
  validation = records.open_split(config, workdir, 'validation')
  examples = records.make_examples(config, workdir, training)
  batches = batching.training_batches(
    training,
    examples.training,
    batch_size=config.batch_size,
    seed=config.seed,
  )

  captioner = model.create(
    config, len(examples.vocabulary), with_encoder=inference.encodes(config)
  )
  optimizer, learning_rate = optimizers.create(
    config.optimizer, config.num_steps
  )
  frozen = tuple(config.frozen)
  if captioner.encoder is None:  # It is not among the parameters then.
    frozen = tuple(path for path in frozen if not path.startswith('encoder'))
  state = parallel.create_state(
    initial_variables(captioner, examples.evaluation(training[0]), config),
    optimizer,
    frozen=frozen,
    average=config.average_decay > 0,
  )
  train_step = parallel.train_step(
    losses.create(captioner, config.loss),
    losses.counts,
    optimizer,
    frozen=frozen,
    microbatches=config.microbatches,
    average_decay=config.average_decay,
  )
  evaluate = evaluation_lib.Evaluator(validation, examples, [captioner], config)
  key = parallel.replicate(jax.random.key(config.seed + 1))
  extras = {
    'config': config.to_dict(),
    'vocabulary': examples.vocabulary.words,
  }

  with contextlib.ExitStack() as stack:
    saved = stack.enter_context(
      checkpoints.Checkpoints(
        workdir, best_metric=config.best_metric, mode=config.best_mode
      )
    )
    state = saved.restore(state)
    start = int(state.step)
    checkpoints.write_config(workdir, config)
    report_lib.parameters(state.params)
    report = stack.enter_context(
      report_lib.Report(
        workdir,
        start_step=start,
        num_steps=config.num_steps,
        batch_size=config.batch_size,
      )
    )
    draw = None
    if config.self_critical.num_samples:
      draw = make_self_critical(stack, captioner, examples, training, config)
    ahead = parallel.prefetch(batching.read(batches, start))
    updates, rewards = [], []
    # At the top of the loop `step` updates have been made.
    for step in range(start, config.num_steps + 1):
      last = step == config.num_steps
      stop = app.stopping(step)
      logs = step % config.log_every == 0
      saves = step > start and step % config.checkpoint_every == 0
      evaluates = (
        step > 0
        and (last or step % config.eval_every == 0)
        and not saved.evaluated(step)
      )
      if updates and (last or stop or logs or saves or evaluates):
        # Before anything is saved: raises where a loss is not finite.
        summary = report_lib.summarize(
          updates,
          first_step=step - len(updates),
          batches=batches,
          last_good=saved.latest_step,
        )
        if rewards:
          summary.update(jax.tree.map(lambda *x: float(np.mean(x)), *rewards))
        summary['learning_rate'] = learning_rate(step)
        summary.update(report.progress(step))
        report.scalars(step, {f'train/{k}': v for k, v in summary.items()})
        updates, rewards = [], []
      scores = None
      if evaluates and not stop:
        with report.paused():
          try:
            variables = [state.variables]
            evaluation = evaluate(variables)
            report_evaluation(report, step, evaluation, evaluate, variables)
            scores = evaluation.scores
          except app.Stopped:
            stop = True
      if stop or saves or evaluates:
        saved.save(state, extras=extras, metrics=scores)
      if stop:
        raise app.Stopped
      if not last:
        host_batch, batch = next(ahead)
        if draw is not None:
          variables = {'params': state.params, **state.statistics}
          batch, reward = draw(variables, host_batch, batch, step)
          rewards.append(reward)
        state, update = train_step(state, batch, key)
        updates.append(update)

  evaluation_lib.evaluate_best(workdir, 'test')


if __name__ == '__main__':
  app.run(train_and_evaluate)
