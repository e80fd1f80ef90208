"""Trains an image captioner, evaluates it on the way and on the test split.

python -m captioning.main --config=configs/coco.py --workdir=runs/coco
"""

import contextlib
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from captioning import evaluation as evaluation_lib
from captioning import inference
from captioning import model
from captioning import records
from captioning import vocabulary as vocabulary_lib
from recurrent import masking
from training import app
from training import batching
from training import checkpoints
from training import optimizers
from training import parallel
from training import report as report_lib
from vision import pretrained


def counts(batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
  """What the means of the loss divide by."""
  tokens = batch['tokens']
  return {
    'tokens': jnp.sum(tokens != vocabulary_lib.PAD_ID),
    'captions': jnp.asarray(tokens.shape[0] * tokens.shape[1]),
  }


def make_loss(captioner: model.Captioner, config: ml_collections.ConfigDict):
  """The loss of teacher forcing, as `parallel.train_step` wants it.

  Cross-entropy, and where the captioner attends the doubly stochastic
  regularisation of Xu et al. 2015 (equation 14): every location should be
  looked at once in the course of a caption.

  Args:
    captioner: the model.
    config: `per` ('caption' as in the paper, or 'token': what the
      cross-entropy is averaged over), `attention_penalty` (lambda) and
      `penalty_reduction` over locations ('sum' as in the paper, or 'mean').

  Raises:
    ValueError: an unknown option.
  """
  if config.per not in ('caption', 'token'):
    raise ValueError(f"loss.per={config.per!r} must be 'caption' or 'token'")
  reductions = {'sum': jnp.sum, 'mean': jnp.mean}
  if config.penalty_reduction not in reductions:
    raise ValueError(
      f'loss.penalty_reduction={config.penalty_reduction!r} is none of '
      f'{", ".join(reductions)}'
    )
  reduce_locations = reductions[config.penalty_reduction]

  def loss_fn(variables, batch, counts, step, key):
    del step  # Nothing is annealed.
    tokens = batch['tokens']
    mask = tokens != vocabulary_lib.PAD_ID
    statistics = [name for name in variables if name != 'params']
    (logits, attention), updated = captioner.apply(
      variables,
      batch['picture'],
      tokens,
      train=True,
      rngs={'dropout': key},
      mutable=statistics,
    )
    losses = evaluation_lib.cross_entropy(logits, tokens)
    loss = masking.share_of_mean(losses, mask, counts[f'{config.per}s'])
    if attention is not None and config.attention_penalty:
      looked = jnp.sum(attention * mask[..., None], axis=2)
      penalty = reduce_locations((1 - looked) ** 2, axis=-1)
      loss += config.attention_penalty * jnp.sum(penalty) / counts['captions']
    metrics = evaluation_lib.token_metrics(losses, logits, tokens, mask)
    return loss, (metrics, updated)

  return loss_fn


def initial_variables(
  captioner: model.Captioner,
  example: dict[str, np.ndarray],
  config: ml_collections.ConfigDict,
) -> Any:
  """Random parameters, and the published ones of the encoder if named."""
  variables = jax.jit(captioner.init, static_argnames='train')(
    jax.random.key(config.seed),
    jnp.asarray(example['picture'])[None],
    jnp.asarray(example['tokens'])[None],
    train=False,
  )
  if captioner.encoder is not None and config.encoder_weights:
    encoder = pretrained.load(config.encoder_weights, config.encoder.depth)
    variables = inference.put_encoder(variables, encoder)
  return variables


def report_evaluation(
  report: report_lib.Report,
  step: int,
  evaluation: evaluation_lib.Evaluation,
  evaluate: evaluation_lib.Evaluator,
  variables: Any,
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
    config, len(examples.vocabulary), with_encoder=not config.cache_features
  )
  optimizer, learning_rate = optimizers.create(
    config.optimizer, config.num_steps
  )
  frozen = tuple(config.frozen)
  if config.cache_features:  # The encoder is not among the parameters then.
    frozen = tuple(path for path in frozen if not path.startswith('encoder'))
  state = parallel.create_state(
    initial_variables(captioner, examples.evaluation(training[0]), config),
    optimizer,
    frozen=frozen,
    average=config.average_decay > 0,
  )
  train_step = parallel.train_step(
    make_loss(captioner, config.loss),
    counts,
    optimizer,
    frozen=frozen,
    microbatches=config.microbatches,
    average_decay=config.average_decay,
  )
  evaluate = evaluation_lib.Evaluator(validation, examples, captioner, config)
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
    ahead = parallel.prefetch(batching.read(batches, start))
    updates = []
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
        summary['learning_rate'] = learning_rate(step)
        summary.update(report.progress(step))
        report.scalars(step, {f'train/{k}': v for k, v in summary.items()})
        updates = []
      scores = None
      if evaluates and not stop:
        with report.paused():
          try:
            evaluation = evaluate(state.variables)
            report_evaluation(
              report, step, evaluation, evaluate, state.variables
            )
            scores = evaluation.scores
          except app.Stopped:
            stop = True
      if stop or saves or evaluates:
        saved.save(state, extras=extras, metrics=scores)
      if stop:
        raise app.Stopped
      if not last:
        _, batch = next(ahead)
        state, update = train_step(state, batch, key)
        updates.append(update)

  evaluation_lib.evaluate_best(workdir, 'test')


if __name__ == '__main__':
  app.run(train_and_evaluate)
