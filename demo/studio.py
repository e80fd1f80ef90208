"""Loads and compiles the models of the page, and trains missing ones.

A thread prepares them one after the other; each can be used as soon as it is
ready.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

from absl import logging

from captioning import model as captioner_lib
from demo import captions
from demo import queues
from demo import sketching
from training import app
from video.captioning import model as caption_model

SKETCHER, CAPTIONER, VIDEO_CAPTIONER = 'sketcher', 'captioner', 'video'
_LOAD = {
  SKETCHER: sketching.load,
  CAPTIONER: captions.Images,
  VIDEO_CAPTIONER: captions.Videos,
}


@dataclasses.dataclass(frozen=True)
class Training:
  """The command that trains a missing workdir."""

  module: str
  config: str


@dataclasses.dataclass
class Status:
  """The state of preparing one model.

  Attributes:
    name: name of the model.
    workdir: workdir of the run.
    training: command for a missing run; None if the run must exist.
    phase: 'waiting', 'training', 'loading' or 'compiling'.
    step: number of completed steps of the phase.
    num_steps: number of steps of the phase; 0 if unknown.
    error: error message, or None.
  """

  name: str
  workdir: pathlib.Path
  training: Training | None = None
  phase: str = 'waiting'
  step: int = 0
  num_steps: int = 0
  error: str | None = None

  def to_json(self) -> dict[str, Any]:
    """Converts the state for the page."""
    fields = {
      'name': self.name,
      'what': self.phase,
      'step': self.step,
      'num_steps': self.num_steps,
    }
    return fields if self.error is None else {**fields, 'error': self.error}


@dataclasses.dataclass(frozen=True)
class Model:
  """A model that is ready for requests.

  Attributes:
    model: a `sketching.Sampler`, `captions.Images` or `captions.Videos`.
    worker: computes its requests.
  """

  model: Any
  worker: queues.Worker


class Studio:
  """All models of a server.

  Attributes:
    sketchers: name -> model, of those that are ready.
    captioners: likewise.
    video_captioners: likewise.
    statuses: state of each model, in the order of preparation.
  """

  def __init__(
    self,
    workdirs: Sequence[tuple[pathlib.Path, Training | None]],
    *,
    max_requests: int = queues.MAX_REQUESTS,
  ):
    """Stores the workdirs; reads nothing yet.

    Args:
      workdirs: workdirs, each with the command that trains it if it is missing.
      max_requests: maximum number of requests of one model.
    """
    self.sketchers: dict[str, Model] = {}
    self.captioners: dict[str, Model] = {}
    self.video_captioners: dict[str, Model] = {}
    names = _names([workdir for workdir, _ in workdirs])
    self.statuses = [
      Status(name, workdir.absolute(), training)
      for name, (workdir, training) in zip(names, workdirs, strict=True)
    ]
    self._max_requests = max_requests
    self._stopping = threading.Event()
    self._process: subprocess.Popen | None = None
    self._thread = threading.Thread(
      target=self._prepare_all, name='studio', daemon=True
    )
    self._done: set[str] = set()

  @property
  def ready(self) -> bool:
    """True if every model is ready or has failed."""
    return all(
      status.error is not None or status.name in self._done
      for status in self.statuses
    )

  def start(self):
    """Starts to prepare the models."""
    self._thread.start()

  def wait(self):
    """Waits until every model is ready or has failed."""
    self._thread.join()

  def stop(self):
    """Ends all threads and the training, which can be resumed later."""
    self._stopping.set()
    if (process := self._process) is not None:
      process.terminate()
    if self._thread.is_alive():
      self._thread.join()
    for table in (self.sketchers, self.captioners, self.video_captioners):
      for model in table.values():
        model.worker.stop()

  def progress(self) -> list[dict[str, Any]]:
    """The states of the models that are not ready, for the page."""
    return [
      status.to_json()
      for status in self.statuses
      if status.name not in self._done
    ]

  def _prepare_all(self):
    for status in self.statuses:
      if self._stopping.is_set():
        return
      try:
        if status.training is not None and not _is_trained(status.workdir):
          self._train(status)
        self._load(status)
        self._done.add(status.name)
        logging.info('%s is ready', status.name)
      except Exception as error:  # The other models can still be used.
        if self._stopping.is_set():
          return
        logging.exception('%s cannot be used', status.workdir)
        status.error = str(error)

  def _train(self, status: Status):
    """Trains a model in a process of its own, until it ends."""
    if not pathlib.Path(status.training.config).exists():
      raise FileNotFoundError(
        f'{status.training.config} does not exist: run this in the directory '
        'of the project, or pass --workdir of a trained model'
      )
    status.phase = 'training'
    environment = dict(os.environ)
    environment.setdefault(
      'XLA_FLAGS', '--xla_force_host_platform_device_count=2'
    )
    command = [sys.executable, '-m', status.training.module]
    command += [f'--config={status.training.config}']
    command += [f'--workdir={status.workdir}']
    logging.info('%s', ' '.join(command))
    self._process = subprocess.Popen(command, env=environment)
    if self._stopping.is_set():  # `stop` may have run just before.
      self._process.terminate()
    while True:
      try:
        code = self._process.wait(timeout=1)
        break
      except subprocess.TimeoutExpired:
        status.step, status.num_steps = _training_step(status.workdir)
    self._process = None
    if code or self._stopping.is_set():
      raise RuntimeError(
        f'training ended with status {code}: see the log, or run '
        f'{" ".join(command)}'
      )

  def _load(self, status: Status):
    status.phase, status.step, status.num_steps = 'loading', 0, 0
    kind = model_kind(status.workdir)
    try:
      model = _LOAD[kind](status.workdir)
    except (AttributeError, KeyError, TypeError) as error:
      raise ValueError(
        f'{status.workdir} was written by another version of this code: '
        f'{error}. Train it again'
      ) from error
    status.phase = 'compiling'
    if kind == SKETCHER:

      def report(step, num_steps):
        if self._stopping.is_set():
          raise app.Stopped
        status.step, status.num_steps = step, num_steps

      model.compile(report)
      engine = model
    else:
      model.compile()
      engine = queues.BatchEngine(model, model.max_batch_size)
    table = {
      SKETCHER: self.sketchers,
      CAPTIONER: self.captioners,
      VIDEO_CAPTIONER: self.video_captioners,
    }[kind]
    table[status.name] = Model(
      model,
      queues.Worker(engine, name=status.name, max_requests=self._max_requests),
    )


def model_kind(workdir: pathlib.Path) -> str:
  """Returns the kind of the model of a workdir, from its config.

  Raises:
    FileNotFoundError: the workdir has no config.
    ValueError: the page does not support the model.
  """
  config = app.read_config(workdir)
  model = config.to_dict().get('model')
  if isinstance(model, str):
    if model in captioner_lib.DECODERS:
      return CAPTIONER
    if model in caption_model.DECODERS:
      return VIDEO_CAPTIONER
  elif model is not None and 'mixtures' in model:
    return SKETCHER
  raise ValueError(
    f'{workdir}: config.json is neither of sketch_rnn nor of a captioner: pass '
    'the --workdir of one of these'
  )


def _names(workdirs: Sequence[pathlib.Path]) -> list[str]:
  """The names of the directories; repeated names get a number."""
  names: list[str] = []
  for workdir in workdirs:
    name, count = workdir.absolute().name, 1
    while name in names:
      count += 1
      name = f'{workdir.absolute().name}-{count}'
    names.append(name)
  return names


def _is_trained(workdir: pathlib.Path) -> bool:
  """Returns True if a run has ended."""
  return (workdir / 'results.json').exists()


def _training_step(workdir: pathlib.Path) -> tuple[int, int]:
  """The step and the number of steps of a run, from its files; or (0, 0)."""
  try:
    last = (workdir / 'metrics.jsonl').read_text().splitlines()[-1]
    config = json.loads((workdir / 'config.json').read_text())
    return int(json.loads(last)['step']), int(config['num_steps'])
  except (OSError, ValueError, KeyError, IndexError):
    return 0, 0
