"""Evaluation, checkpoints and reports between the steps of a training loop.

  with loop.start(config, workdir, state, ...) as run:
    for step in run.steps():
      if step.evaluates:
        run.record_evaluation(evaluate(run.state.variables))
      else:
        run.state, update = train_step(run.state, step.batch, key)
        run.record_update(update)

The loop and its body belong to each `main`.
"""

import contextlib
import pathlib
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any
from typing import NamedTuple

import grain
import jax
import ml_collections
import numpy as np

from training import agreement
from training import app
from training import batching
from training import checkpoints
from training import console
from training import parallel
from training import progress
from training import provenance
from training import report as report_lib


class Step(NamedTuple):
  """The next step of a run: an evaluation or an update."""

  number: int  # Number of completed updates.
  evaluates: bool
  host_batch: dict[str, np.ndarray] | None = None  # For an update.
  batch: dict[str, jax.Array] | None = None  # The same, on the devices.


class Run:
  """A run that resumes from its latest checkpoint; made by `start`.

  Attributes:
    state: the training state, to which the loop assigns that of each update.
    report: writes the metrics of the run.
  """

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    state: parallel.TrainState,
    *,
    saved: checkpoints.Checkpoints,
    report: report_lib.Report,
    batches: grain.MapDataset,
    learning_rate: Callable[[int], float],
    extras: dict[str, Any],
  ):
    """See `start`."""
    self.state = state
    self.report = report
    self._config = config
    self._saved = saved
    self._batches = batches
    self._learning_rate = learning_rate
    self._extras = extras
    self._step = None  # The step to be recorded.
    self._updates = []
    self._metrics = []
    self._scores = None
    self._loss = None  # That of the last summary.
    self._best = saved.best_score

  def steps(self) -> Iterator[Step]:
    """Yields the updates up to `num_steps` and the evaluations between them.

    Summaries are reported every `log_every` updates and before anything is
    saved. Checkpoints are saved every `checkpoint_every` updates and after each
    evaluation; evaluations are due every `eval_every` updates and at the end.
    The steps end early once `patience` evaluations in a row have not had a
    better `best_metric`. Each step must be recorded before the next one is
    asked for, by `record_update` or `record_evaluation`.

    Raises:
      app.Stopped: SIGTERM was received.
      FloatingPointError: see `report.summarize`.
      RuntimeError: the loop did not record a step.
    """
    config, start = self._config, int(self.state.step)
    if progress.is_over(self.state.progress, config):
      return
    console.steps(start, config.num_steps)
    ahead = parallel.prefetch(batching.read(self._batches, start))
    # At the top of the loop `number` updates are completed.
    for number in range(start, config.num_steps + 1):
      self._scores = None
      last = number == config.num_steps
      stop = app.stopping(number)
      logs = number % config.log_every == 0
      saves = number > start and number % config.checkpoint_every == 0
      evaluates = (
        number > 0
        and (last or number % config.eval_every == 0)
        and not self._saved.evaluated(number)
      )
      if self._updates and (last or stop or logs or saves or evaluates):
        # Before anything is saved: raises if a loss is not finite.
        self._summarize(number)
      if stop:
        raise app.Stopped
      if evaluates:
        with self.report.paused(), console.evaluating():
          yield from self._recorded(Step(number, evaluates=True))
      if saves or evaluates:
        self.save()
      if evaluates and progress.is_over(self.state.progress, config):
        console.notice(
          'Stopping at step %d: %d evaluations without a better %s.',
          number,
          config.patience,
          config.best_metric,
        )
        return
      if not last:
        yield from self._recorded(Step(number, False, *next(ahead)))
        console.advance(number + 1)

  def _recorded(self, step: Step) -> Iterator[Step]:
    """Yields a step and checks that the loop has recorded it."""
    self._step = step
    yield step
    if self._step is not None:
      wanted = 'record_evaluation' if step.evaluates else 'record_update'
      raise RuntimeError(
        f'step {step.number} was not recorded: call run.{wanted}(...) in the '
        'loop over run.steps()'
      )

  def record_update(
    self, update: parallel.Update, metrics: dict[str, Any] | None = None
  ):
    """Records an update whose new state was assigned to `state`.

    Args:
      update: returned by `parallel.train_step`.
      metrics: other numbers, whose means are reported.

    Raises:
      RuntimeError: no update is due.
    """
    self._record(evaluates=False)
    self._updates.append(update)
    if metrics:
      self._metrics.append(metrics)

  def record_evaluation(
    self, scores: dict[str, float], seconds: float | None = None
  ):
    """Records the scores of this step, which rank its checkpoint.

    Args:
      scores: by name.
      seconds: duration of the evaluation, reported with them.

    Raises:
      RuntimeError: no evaluation is due.
    """
    number = self._record(evaluates=True).number
    self._scores = scores
    score = scores[self._config.best_metric]
    self._best = self._better(score)
    if self.state.progress is not None:
      # Processors may round differently: the first host decides for all.
      score = float(parallel.gather_texts(repr(float(score)))[0])
      self.state = _observe(self.state, score, number, self._config)
    self._show()
    reported = dict(scores)
    if seconds is not None:
      reported['seconds'] = seconds
    self.report.scalars(
      number, {f'validation/{k}': v for k, v in reported.items()}
    )

  def _record(self, *, evaluates: bool) -> Step:
    """Marks the step that is due as recorded."""
    step, self._step = self._step, None
    if step is None or step.evaluates != evaluates:
      wanted = 'evaluation' if evaluates else 'update'
      raise RuntimeError(
        f'no {wanted} is due: record each step of run.steps() once'
      )
    return step

  def save(self):
    """Starts writing the state, unless it is saved already."""
    self._saved.save(self.state, extras=self._extras, metrics=self._scores)

  def _summarize(self, step: int):
    """Reports the means over the updates since the last summary."""
    if int(self.state.step) != step:
      raise RuntimeError(
        f'{step} updates were recorded, but run.state is at step '
        f'{int(self.state.step)}: assign the state that train_step returns, '
        'run.state, update = train_step(run.state, step.batch, key)'
      )
    summary = report_lib.summarize(
      self._updates,
      first_step=step - len(self._updates),
      batches=self._batches,
      last_good=self._saved.last_good,
    )
    if self._metrics:
      summary |= jax.tree.map(lambda *x: float(np.mean(x)), *self._metrics)
    summary['learning_rate'] = self._learning_rate(step)
    if self.state.progress is not None:
      summary['learning_rate'] *= float(self.state.progress.scale)
    summary |= self.report.progress(step)
    self.report.scalars(step, {f'train/{k}': v for k, v in summary.items()})
    self._updates, self._metrics = [], []
    self._loss = summary.get('loss', summary['total_loss'])
    self._show()

  def _better(self, score: float) -> float:
    """The best score of the run, with that of a new evaluation."""
    if self._best is None:
      return score
    pick = min if self._config.best_mode == 'min' else max
    return pick(self._best, score)

  def _show(self):
    """Shows the last loss and the best score on a terminal."""
    known = {'loss': self._loss, f'best {self._config.best_metric}': self._best}
    console.numbers({k: v for k, v in known.items() if v is not None})


def _observe(
  state: parallel.TrainState,
  score: float,
  step: int,
  config: ml_collections.ConfigDict,
) -> parallel.TrainState:
  """The state after an evaluation."""
  observed = progress.observe(state.progress, score, step, config)
  return state.replace(progress=parallel.replicate(observed))


@contextlib.contextmanager
def start(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  state: parallel.TrainState,
  *,
  batches: grain.MapDataset,
  learning_rate: Callable[[int], float],
  extras: dict[str, Any],
  fingerprint: str,
) -> Iterator[Run]:
  """Opens the workdir of a run, and restores its latest checkpoint.

  After SIGTERM the state is saved before the context ends.

  Args:
    config: `num_steps`, `batch_size`, `log_every`, `eval_every`,
      `checkpoint_every`, `best_metric`, `best_mode`, `patience` and the
      schedule in `optimizer`; stored in the workdir.
    workdir: for checkpoints and metrics; absolute.
    state: the state before the first step.
    batches: batches of examples, each with its `id`, by number of the step.
    learning_rate: learning rate by step, for the reports.
    extras: JSON values that inference needs in addition to the model.
    fingerprint: of the data set.

  Raises:
    ValueError: the checkpoint, or another host, is of another run.
  """
  extras = {
    **extras,
    'fingerprint': fingerprint,
    'commit': provenance.commit(),
  }
  agreement.check_hosts(extras)
  if progress.is_kept(config):
    state = state.replace(progress=parallel.replicate(progress.initial(config)))
  with contextlib.ExitStack() as stack:
    stack.enter_context(app.stopping_together())  # Until all is written.
    saved = stack.enter_context(
      checkpoints.Checkpoints(
        workdir, best_metric=config.best_metric, mode=config.best_mode
      )
    )
    restored = saved.restore(
      state,
      lambda found, path: agreement.check_resumed(
        found, extras, path, app.allowed_changes()
      ),
    )
    if restored is not state:  # Both may not fit on a device.
      jax.tree.map(lambda x: x.delete(), state)
    state = restored
    number = int(state.step)
    if state.progress is not None and saved.evaluated(number):
      # Of a checkpoint that got its metrics later than its state.
      if int(state.progress.evaluated) < number:
        state = _observe(state, saved.score(number), number, config)
    checkpoints.write_config(workdir, config)
    report_lib.parameters(state.params)
    report = stack.enter_context(
      report_lib.Report(
        workdir,
        start_step=int(state.step),
        num_steps=config.num_steps,
        batch_size=config.batch_size,
      )
    )
    run = Run(
      config,
      state,
      saved=saved,
      report=report,
      batches=batches,
      learning_rate=learning_rate,
      extras=extras,
    )
    try:
      yield run
    except app.Stopped:
      run.save()
      raise
