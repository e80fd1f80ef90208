"""The models that the page uses: loaded, compiled, and trained where absent.

A thread prepares them one after the other; each can be used as soon as it is
there.
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
  """How a workdir comes to be, where there is none."""

  module: str
  config: str


@dataclasses.dataclass
class Preparation:
  """How far a workdir is.

  Attributes:
    name: of the model.
    workdir: of the run.
    training: what trains it if need be; None: it must be there.
    what: is being done.
    step: so much of it.
    num_steps: all of it; 0: unknown.
    error: what went wrong, if anything did.
  """

  name: str
  workdir: pathlib.Path
  training: Training | None = None
  what: str = 'waiting'
  step: int = 0
  num_steps: int = 0
  error: str | None = None

  def to_json(self) -> dict[str, Any]:
    """For the page."""
    told = {
      'name': self.name,
      'what': self.what,
      'step': self.step,
      'num_steps': self.num_steps,
    }
    return told if self.error is None else {**told, 'error': self.error}


@dataclasses.dataclass(frozen=True)
class Model:
  """A model that is ready.

  Attributes:
    model: a `sketching.Sampler`, `captions.Images` or `captions.Videos`.
    worker: of its thread.
  """

  model: Any
  worker: queues.Worker


class Studio:
  """All models of a server.

  Attributes:
    sketchers: by name.
    captioners: by name.
    video_captioners: by name.
    preparations: of all of them, in their order.
  """

  def __init__(
    self,
    workdirs: Sequence[tuple[pathlib.Path, Training | None]],
    *,
    most: int = queues.MOST,
  ):
    """Says what there is to be, and touches nothing yet.

    Args:
      workdirs: and how each is trained if it is absent.
      most: requests that may wait for one model.
    """
    self.sketchers: dict[str, Model] = {}
    self.captioners: dict[str, Model] = {}
    self.video_captioners: dict[str, Model] = {}
    names = _names([workdir for workdir, _ in workdirs])
    self.preparations = [
      Preparation(name, workdir.absolute(), training)
      for name, (workdir, training) in zip(names, workdirs, strict=True)
    ]
    self._most = most
    self._stopping = threading.Event()
    self._process: subprocess.Popen | None = None
    self._thread = threading.Thread(
      target=self._prepare_all, name='studio', daemon=True
    )
    self._done: set[str] = set()

  @property
  def ready(self) -> bool:
    """Whether all is there that could be had."""
    return all(
      one.error is not None or one.name in self._done
      for one in self.preparations
    )

  def start(self):
    """Begins to prepare the models."""
    self._thread.start()

  def wait(self):
    """Returns when they are prepared."""
    self._thread.join()

  def stop(self):
    """Ends all threads and what is being trained, which can go on later."""
    self._stopping.set()
    if (process := self._process) is not None:
      process.terminate()
    if self._thread.is_alive():
      self._thread.join()
    for table in (self.sketchers, self.captioners, self.video_captioners):
      for model in table.values():
        model.worker.stop()

  def progress(self) -> list[dict[str, Any]]:
    """What is not ready yet, for the page."""
    return [
      one.to_json() for one in self.preparations if one.name not in self._done
    ]

  def _prepare_all(self):
    for one in self.preparations:
      if self._stopping.is_set():
        return
      try:
        if one.training is not None and not _is_trained(one.workdir):
          self._train(one)
        self._load(one)
        self._done.add(one.name)
        logging.info('%s is ready', one.name)
      except Exception as error:  # The others may still be of use.
        if self._stopping.is_set():
          return
        logging.exception('%s cannot be used', one.workdir)
        one.error = str(error)

  def _train(self, one: Preparation):
    """Runs the main of a package in a process of its own, until it ends."""
    if not pathlib.Path(one.training.config).exists():
      raise FileNotFoundError(
        f'{one.training.config} is not here: start this in the folder of the '
        'project, or pass --workdir of a trained model'
      )
    one.what = 'training'
    environment = dict(os.environ)
    environment.setdefault(
      'XLA_FLAGS', '--xla_force_host_platform_device_count=2'
    )
    command = [sys.executable, '-m', one.training.module]
    command += [f'--config={one.training.config}', f'--workdir={one.workdir}']
    logging.info('%s', ' '.join(command))
    self._process = subprocess.Popen(command, env=environment)
    if self._stopping.is_set():  # `stop` may have come too early to see it.
      self._process.terminate()
    while True:
      try:
        status = self._process.wait(timeout=1)
        break
      except subprocess.TimeoutExpired:
        one.step, one.num_steps = _training_step(one.workdir)
    self._process = None
    if status or self._stopping.is_set():
      raise RuntimeError(
        f'training ended with status {status}: see the log, or run '
        f'{" ".join(command)}'
      )

  def _load(self, one: Preparation):
    one.what, one.step, one.num_steps = 'loading', 0, 0
    kind = kind_of(one.workdir)
    try:
      model = _LOAD[kind](one.workdir)
    except (AttributeError, KeyError, TypeError) as error:
      raise ValueError(
        f'{one.workdir} was written by another version of this code: {error}. '
        'Train it again'
      ) from error
    one.what = 'compiling'
    if kind == SKETCHER:

      def tell(step, num_steps):
        if self._stopping.is_set():
          raise app.Stopped
        one.step, one.num_steps = step, num_steps

      model.compile(tell)
      engine = model
    else:
      model.compile()
      engine = queues.InBatches(model, model.most)
    table = {
      SKETCHER: self.sketchers,
      CAPTIONER: self.captioners,
      VIDEO_CAPTIONER: self.video_captioners,
    }[kind]
    table[one.name] = Model(
      model, queues.Worker(engine, name=one.name, most=self._most)
    )


def kind_of(workdir: pathlib.Path) -> str:
  """What was trained in a workdir, by its config.

  Raises:
    FileNotFoundError: nothing was.
    ValueError: something that the page has no use for.
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
    '--workdir of one of these'
  )


def _names(workdirs: Sequence[pathlib.Path]) -> list[str]:
  """The folders' names; of equal ones all but the first with a number."""
  names: list[str] = []
  for workdir in workdirs:
    name, count = workdir.absolute().name, 1
    while name in names:
      count += 1
      name = f'{workdir.absolute().name}-{count}'
    names.append(name)
  return names


def _is_trained(workdir: pathlib.Path) -> bool:
  """Whether a run has come to its end."""
  return (workdir / 'results.json').exists()


def _training_step(workdir: pathlib.Path) -> tuple[int, int]:
  """How far a run is, as far as its files say."""
  try:
    last = (workdir / 'metrics.jsonl').read_text().splitlines()[-1]
    config = json.loads((workdir / 'config.json').read_text())
    return int(json.loads(last)['step']), int(config['num_steps'])
  except (OSError, ValueError, KeyError, IndexError):
    return 0, 0
