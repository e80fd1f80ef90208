"""Writes metrics to the log, TensorBoard and metrics.jsonl.

Event files are written by tensorboardX: clu's writers would import TensorFlow.
Not by its SummaryWriter, whose thread does not tell its caller that the disk is
full.
"""

import contextlib
import functools
import json
import math
import os
import pathlib
import time
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import grain
import jax
import numpy as np
from absl import logging
from clu import parameter_overview
from tensorboardX import event_file_writer
from tensorboardX import summary
from tensorboardX.proto import event_pb2

from training import parallel

_METRICS = 'metrics.jsonl'


class Report:
  """Writes scalars, texts and images of one run, in process 0 only.

  Use it as a context: its end closes the files.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    *,
    start_step: int,
    num_steps: int,
    batch_size: int,
  ):
    """Opens the files of a run that is at `start_step`.

    Drops the scalars of later steps, which a killed process has written: they
    are written again.
    """
    self._num_steps = num_steps
    self._batch_size = batch_size
    self._mark = (start_step, time.monotonic())
    self._cpu = time.process_time()
    self._jsonl = None
    self._events = None
    if jax.process_index() == 0:
      workdir.mkdir(parents=True, exist_ok=True)
      self._jsonl = _open_from(workdir / _METRICS, start_step)
      directory = workdir / 'tensorboard'
      directory.mkdir(exist_ok=True)
      self._events = event_file_writer.EventsWriter(
        str(directory / 'events'), f'.{start_step}'
      )

  def __enter__(self):
    return self

  def __exit__(self, *_):
    if self._events:
      with self._jsonl:
        self._events.close()

  def scalars(self, step: int, values: dict[str, float]):
    """Writes named numbers to the log, TensorBoard and metrics.jsonl."""
    values = {name: float(value) for name, value in values.items()}
    line = ', '.join(f'{name} {value:.4g}' for name, value in values.items())
    logging.info('step %d | %s', step, line)
    if self._events:
      self._add(step, summary.scalar, values)
      self._jsonl.write(json.dumps({'step': step, **values}) + '\n')
      self._jsonl.flush()

  def texts(self, step: int, texts: dict[str, str]):
    """Writes named texts (Markdown) to TensorBoard."""
    if self._events:
      self._add(step, summary.text, texts)

  def images(self, step: int, images: dict[str, np.ndarray]):
    """Writes named images uint8[N, H, W, 3] to TensorBoard."""
    if self._events:
      make = functools.partial(summary.image, dataformats='NHWC')
      self._add(step, make, images)

  def _add(self, step: int, make: Callable[..., Any], values: dict[str, Any]):
    for name, value in values.items():
      event = event_pb2.Event(
        step=step, wall_time=time.time(), summary=make(name, value)
      )
      self._events.write_event(event)
    self._events.flush()

  def progress(self, step: int) -> dict[str, float]:
    """Logs the progress.

    Returns:
      The speeds since the last call, and the CPU time of this process since
      then, that of evaluations in between included.
    """
    last_step, last_time = self._mark
    now = time.monotonic()
    self._mark = (step, now)
    cpu, self._cpu = self._cpu, time.process_time()
    speed = (step - last_step) / max(now - last_time, 1e-9)
    remaining = (self._num_steps - step) / max(speed, 1e-9)
    logging.info(
      'step %d of %d (%.0f%%) | %.2f steps/s, %.1f examples/s, ETA %s',
      step,
      self._num_steps,
      100 * step / self._num_steps,
      speed,
      speed * self._batch_size,
      f'{remaining // 60:.0f}m{remaining % 60:02.0f}s',
    )
    return {
      'steps_per_second': speed,
      'examples_per_second': speed * self._batch_size,
      'cpu_seconds': self._cpu - cpu,
    }

  @contextlib.contextmanager
  def paused(self):
    """A context whose time does not count for the speeds."""
    since = time.monotonic()
    yield
    step, mark = self._mark
    self._mark = (step, mark + time.monotonic() - since)


def parameters(params: Any):
  """Logs the table of parameters: name, shape, size, mean and deviation."""
  parameter_overview.log_parameter_overview(params)


def summarize(
  updates: list[parallel.Update],
  *,
  first_step: int,
  batches: grain.MapDataset,
  last_good: Callable[[], int | None],
) -> dict[str, float]:
  """Returns the means over the updates since the last summary.

  Args:
    updates: of the steps `first_step`, `first_step` + 1, ...
    first_step: number of the first update's batch.
    batches: `batches[step]` holds the `id` of each example.
    last_good: returns the step of the newest good checkpoint, for the error.

  Raises:
    FloatingPointError: a loss, or the norm of a gradient or of the parameters,
      is not finite. The message names the step, the examples of its batch and
      the last good checkpoint.
  """
  updates = jax.device_get(updates)
  for step, update in enumerate(updates, first_step):
    numbers = {
      'loss': update.loss,
      'gradient norm': update.gradient_norm,
      'parameter norm': update.parameter_norm,
    }
    wrong = [name for name, x in numbers.items() if not math.isfinite(x)]
    if wrong:
      ids = ', '.join(str(i) for i in batches[step]['id'])
      good = last_good()
      raise FloatingPointError(
        f'the {wrong[0]} of step {step} is {numbers[wrong[0]]}. Examples of '
        f'its batch: {ids}. Last good checkpoint: '
        f'{"none" if good is None else f"step {good}"}. Look at '
        'these examples; a lower learning rate or a tighter clip_norm helps '
        'if they are fine'
      )
  total = updates[0].metrics
  for update in updates[1:]:
    total = total.merge(update.metrics)
  return {
    'total_loss': float(np.mean([u.loss for u in updates])),
    'gradient_norm': float(np.mean([u.gradient_norm for u in updates])),
    'parameter_norm': float(updates[-1].parameter_norm),
    **{name: float(x) for name, x in total.compute().items()},
  }


def training_seconds(workdir: pathlib.Path) -> float | None:
  """The time that the steps and the evaluations of a run took.

  It is read from `metrics.jsonl`; None where there is none, as in the workdir
  of imported weights.
  """
  if not (workdir / _METRICS).exists():
    return None
  seconds, last = 0.0, 0
  for values in _lines(workdir):
    if 'train/steps_per_second' in values:
      steps = values['step'] - last
      seconds += steps / max(values['train/steps_per_second'], 1e-9)
      last = values['step']
    seconds += values.get('validation/seconds', 0.0)
  return seconds


def cpu_seconds(workdir: pathlib.Path) -> float | None:
  """The CPU time of the training process of a run.

  That of other processes, which score the samples of self-critical training, is
  not in it, nor that of the last evaluation. None where it was not recorded.
  """
  if not (workdir / _METRICS).exists():
    return None
  known = [
    values['train/cpu_seconds']
    for values in _lines(workdir)
    if 'train/cpu_seconds' in values
  ]
  return sum(known) if known else None


def _lines(workdir: pathlib.Path) -> Iterator[dict[str, float]]:
  """The scalars of each line of `metrics.jsonl`; damaged lines are named."""
  path = workdir / _METRICS
  for number, line in enumerate(path.read_bytes().split(b'\n'), 1):
    if not line:
      continue
    try:
      values = json.loads(line)
      values = {name: float(value) for name, value in values.items()}
      known = 'step' in values
    except (AttributeError, TypeError, ValueError):
      known = False
    if known:
      yield values
    else:
      logging.warning('%s: line %d is damaged, and left out', path, number)


def _open_from(path: pathlib.Path, start_step: int):
  """Opens for appending, after removing the lines of later steps.

  Damaged lines are named and moved to a file beside it.
  """
  kept, damaged = [], []
  if path.exists():
    *lines, _ = path.read_bytes().split(b'\n')  # The last one is not whole.
    for number, line in enumerate(lines, 1):
      try:
        if json.loads(line)['step'] <= start_step:
          kept.append(line + b'\n')
      except (KeyError, TypeError, ValueError):
        damaged.append((number, line + b'\n'))
  if damaged:
    aside = path.with_name('metrics.damaged.jsonl')
    with aside.open('ab') as file:
      file.writelines(line for _, line in damaged)
    numbers = ', '.join(str(number) for number, _ in damaged)
    logging.warning('%s: damaged, moved to %s: line %s', path, aside, numbers)
  beside = path.with_name(path.name + '.tmp')
  beside.write_bytes(b''.join(kept))
  os.replace(beside, path)
  return path.open('a')
