"""Loads and compiles the models of the page.

A thread prepares them one after the other; each can be used as soon as it is
ready.
"""

import contextlib
import dataclasses
import pathlib
import threading
from collections.abc import Sequence
from typing import Any

from absl import logging

from captioning import model as captioner_lib
from configs import schema
from demo import captions
from demo import queues
from demo import sketching
from demo import watchers
from training import app
from training import released
from video.captioning import model as caption_model

SKETCHER, CAPTIONER, VIDEO_CAPTIONER = 'sketcher', 'captioner', 'video'
GESTURES, TARGETS = watchers.GESTURES, watchers.TARGETS
_LOAD = {
  SKETCHER: sketching.load,
  CAPTIONER: captions.Images,
  VIDEO_CAPTIONER: captions.Videos,
  GESTURES: watchers.Gestures,
  TARGETS: watchers.Targets,
}
_SCHEMAS = {
  SKETCHER: schema.SKETCH_RNN,
  CAPTIONER: schema.CAPTIONING,
  VIDEO_CAPTIONER: schema.VIDEO_CAPTION,
  GESTURES: schema.VIDEO_CLASSIFY,
  TARGETS: schema.VIDEO_TRACK,
}


@dataclasses.dataclass
class Status:
  """The state of preparing one model.

  Attributes:
    name: name of the model.
    workdir: workdir of the run.
    phase: 'waiting', 'loading' or 'compiling'.
    step: number of completed steps of the phase.
    num_steps: number of steps of the phase; 0 if unknown.
    error: error message, or None.
  """

  name: str
  workdir: pathlib.Path
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
    model: a `sketching.Sampler`, `captions.Images`, `captions.Videos` or a
      `watchers.Watcher`.
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
    watchers: likewise, of gestures and of targets.
    statuses: state of each model, in the order of preparation.
  """

  def __init__(
    self,
    workdirs: Sequence[pathlib.Path],
    *,
    decoding: Sequence[str] = (),
    max_requests: int = queues.MAX_REQUESTS,
  ):
    """Stores the workdirs; reads nothing yet.

    Args:
      workdirs: workdirs or directories of released models.
      decoding: FIELD=VALUE changes of the captioners' `decoding`.
      max_requests: maximum number of requests of one model.
    """
    self.sketchers: dict[str, Model] = {}
    self.captioners: dict[str, Model] = {}
    self.video_captioners: dict[str, Model] = {}
    self.watchers: dict[str, Model] = {}
    self.statuses = [
      Status(name, workdir.absolute())
      for name, workdir in zip(_names(workdirs), workdirs, strict=True)
    ]
    self._decoding = decoding
    self._max_requests = max_requests
    self._stopping = threading.Event()
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
    """Ends all threads."""
    self._stopping.set()
    if self._thread.is_alive():
      self._thread.join()
    for table in (
      self.sketchers,
      self.captioners,
      self.video_captioners,
      self.watchers,
    ):
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
        self._load(status)
        self._done.add(status.name)
        logging.info('%s is ready', status.name)
      except Exception as error:  # The other models can still be used.
        if self._stopping.is_set():
          return
        logging.exception('%s cannot be used', status.workdir)
        status.error = str(error)

  def _load(self, status: Status):
    status.phase, status.step, status.num_steps = 'loading', 0, 0
    kind = model_kind(status.workdir)
    try:
      captions = kind in (CAPTIONER, VIDEO_CAPTIONER)
      options = (self._decoding,) if captions else ()
      model = _LOAD[kind](status.workdir, *options)
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
      GESTURES: self.watchers,
      TARGETS: self.watchers,
    }[kind]
    table[status.name] = Model(
      model,
      queues.Worker(engine, name=status.name, max_requests=self._max_requests),
    )


def model_kind(workdir: pathlib.Path, decoding: Sequence[str] = ()) -> str:
  """Returns the kind of the model of a workdir, from its config.

  Args:
    workdir: of the run.
    decoding: changes of a captioner's, which are checked.

  Raises:
    FileNotFoundError: the workdir has no config.
    ValueError: the page does not support the model, or `decoding` is wrong.
  """
  config = app.read_config(workdir)
  model = config.to_dict().get('model')
  if isinstance(model, str) and model in captioner_lib.DECODERS:
    kind = CAPTIONER
  elif isinstance(model, str) and model in caption_model.DECODERS:
    kind = VIDEO_CAPTIONER
  elif isinstance(model, dict) and 'mixtures' in model:
    kind = SKETCHER
  elif isinstance(model, dict) and 'augmentation' in config:
    kind = GESTURES
  elif isinstance(model, dict) and 'longest_side' in config:
    kind = TARGETS
  else:
    raise ValueError(
      f'{workdir}: config.json is neither of sketch_rnn nor of a captioner, a '
      'classifier of clips or a tracker: pass the --workdir of one of these'
    )
  _SCHEMAS[kind].check(config, str(workdir / 'config.json'), training=False)
  if kind in (CAPTIONER, VIDEO_CAPTIONER):
    schema.check_decoding(
      app.change_fields(config.decoding, decoding, name='decoding')
    )
  return kind


def released_models() -> list[pathlib.Path]:
  """The directories of the released models that the page supports.

  Those that draw come first.
  """
  kinds = {}
  for name in released.names():
    directory = released.path(name)
    with contextlib.suppress(ValueError):
      kinds[directory] = list(_LOAD).index(model_kind(directory))
  return sorted(kinds, key=kinds.get)


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
