"""What every training loop does between its steps, so that nothing is lost.

  with loop.start(config, workdir, state, ...) as run:
    for turn in run.turns():
      if turn.evaluates:
        run.evaluated(evaluate(run.state.variables))
      else:
        run.update(*train_step(run.state, turn.batch, key))

The loop itself, and what is done in it, belongs to each `main`.
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

from training import app
from training import batching
from training import checkpoints
from training import parallel
from training import report as report_lib


class Turn(NamedTuple):
  """What is to be done next: an evaluation, or else an update."""

  step: int  # So many updates have been made.
  evaluates: bool
  host_batch: dict[str, np.ndarray] | None = None  # Of the update.
  batch: dict[str, jax.Array] | None = None  # The same, on the devices.


class Run:
  """A run from its latest checkpoint on; `start` makes it.

  Attributes:
    state: of the training, as it is now.
    report: where the run is told of.
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
    self._updates = []
    self._more = []
    self._scores = None

  def turns(self) -> Iterator[Turn]:
    """Updates up to `num_steps`, and evaluations between them.

    In between summaries are reported every `log_every` updates, and before
    anything is saved: every `checkpoint_every`, and after each evaluation,
    which is every `eval_every` and at the end. Each turn is to be answered by
    `evaluated` or `update`.

    Raises:
      app.Stopped: SIGTERM came.
      FloatingPointError: see `report.summarize`.
    """
    config, start = self._config, int(self.state.step)
    ahead = parallel.prefetch(batching.read(self._batches, start))
    # At the top of the loop `step` updates have been made.
    for step in range(start, config.num_steps + 1):
      self._scores = None
      last = step == config.num_steps
      stop = app.stopping(step)
      logs = step % config.log_every == 0
      saves = step > start and step % config.checkpoint_every == 0
      evaluates = (
        step > 0
        and (last or step % config.eval_every == 0)
        and not self._saved.evaluated(step)
      )
      if self._updates and (last or stop or logs or saves or evaluates):
        # Before anything is saved: raises where a loss is not finite.
        self._summarize(step)
      if stop:
        raise app.Stopped
      if evaluates:
        with self.report.paused():
          yield Turn(step, evaluates=True)
      if saves or evaluates:
        self.save()
      if not last:
        yield Turn(step, False, *next(ahead))

  def update(
    self,
    state: parallel.TrainState,
    update: parallel.Update,
    more: dict[str, Any] | None = None,
  ):
    """Takes what an update has made.

    Args:
      state: after it.
      update: what it tells.
      more: other numbers, of which the means are reported.
    """
    self.state = state
    self._updates.append(update)
    if more:
      self._more.append(more)

  def evaluated(self, scores: dict[str, float], seconds: float | None = None):
    """Takes the scores of this step, by which the best checkpoint is known."""
    self._scores = scores
    told = dict(scores) if seconds is None else {**scores, 'seconds': seconds}
    self.report.scalars(
      int(self.state.step), {f'validation/{k}': v for k, v in told.items()}
    )

  def save(self):
    """Starts to write the state, unless it is written already."""
    self._saved.save(self.state, extras=self._extras, metrics=self._scores)

  def _summarize(self, step: int):
    """Reports the means over the updates since the last time."""
    summary = report_lib.summarize(
      self._updates,
      first_step=step - len(self._updates),
      batches=self._batches,
      last_good=self._saved.latest_step,
    )
    if self._more:
      summary |= jax.tree.map(lambda *x: float(np.mean(x)), *self._more)
    summary['learning_rate'] = self._learning_rate(step)
    summary |= self.report.progress(step)
    self.report.scalars(step, {f'train/{k}': v for k, v in summary.items()})
    self._updates, self._more = [], []


@contextlib.contextmanager
def start(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  state: parallel.TrainState,
  *,
  batches: grain.MapDataset,
  learning_rate: Callable[[int], float],
  extras: dict[str, Any],
) -> Iterator[Run]:
  """Opens the workdir of a run, and restores what an earlier process saved.

  If SIGTERM comes the state is saved before the context is left.

  Args:
    config: `num_steps`, `batch_size`, `log_every`, `eval_every`,
      `checkpoint_every`, `best_metric` and `best_mode`; stored in the workdir.
    workdir: for checkpoints and metrics; absolute.
    state: before the first step.
    batches: of examples, each with its `id`, by the number of the step.
    learning_rate: of a step, to report it.
    extras: JSON values that make a checkpoint readable by itself.
  """
  with contextlib.ExitStack() as stack:
    saved = stack.enter_context(
      checkpoints.Checkpoints(
        workdir, best_metric=config.best_metric, mode=config.best_mode
      )
    )
    restored = saved.restore(state)
    if restored is not state:  # Both may not fit on a device.
      jax.tree.map(lambda x: x.delete(), state)
    state = restored
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
