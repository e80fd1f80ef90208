"""Recognises classes of recordings, and gestures in streams.

  classifier = inference.load('runs/gestures')
  record = classifier.read('clip.mp4')
  best = classifier.probabilities(record).argmax()
  print(classifier.class_names[best])

Axes: N windows of a recording, T time, D features, V classes.
"""

import functools
import os
import pathlib
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from configs import schema
from training import app
from training import array_files
from training import checkpoints
from training import released
from video import data
from video import frames as frames_lib
from video.classification import examples as examples_lib
from video.classification import losses
from video.classification import model
from vision import images


class Classifier:
  """Classifies recordings, one at a time, on one device.

  Attributes:
    config: of the run.
    class_names: by label.
    frame_shape: (H, W, C) of a frame, or (D,) of its features.
    network: the Flax module.
    variables: of the network, on one device.
    step: training step of the checkpoint.
    rate: frames per second to which video files are thinned; None for all.
    examples: turns records into examples.
    streams: the recordings are streams of gestures.
    stride: every `stride`-th frame of a recording is read.
  """

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    class_names: Iterable[str],
    frame_shape: Iterable[int],
    network: model.Classifier,
    variables: Any,
    *,
    step: int = 0,
    rate: float | None = None,
  ):
    """Compiles on the first calls; see the class for the arguments."""
    self.config = config
    self.class_names = tuple(class_names)
    self.frame_shape = tuple(frame_shape)
    self.network = network
    self.variables = jax.device_put(variables)
    self.step = step
    self.rate = rate
    self.examples = examples_lib.Examples(
      config.data, config.augmentation, self.class_names
    )
    self.streams = config.loss.kind == 'ctc'
    windows = config.data.sampling == 'window'
    self.stride = config.data.stride if windows else 1
    self._apply = jax.jit(functools.partial(network.apply, train=False))
    self._begin = jax.jit(functools.partial(network.apply, method='begin'))

    # One program per frame: in live use, a second call costs about as much as
    # the network.
    def advance(variables, carry, frames):
      carry, logits = network.apply(variables, carry, frames, method='step')
      return carry, jax.nn.softmax(self._choose(*logits)[0])

    self._advance = jax.jit(advance)

  def read(self, path: str | os.PathLike) -> dict[str, Any]:
    """Reads the record of a clip, or of features if the network reads those.

    Raises:
      ValueError: the file is not a clip, or not a .npy or .npz of f32[T, D],
        or a recording of `sources.skeletons`.
      OSError: the file cannot be read.
    """
    name, shape = os.fspath(path), self.frame_shape
    if self.network.encoder is None:
      points = bool(self.config.data.space)
      features = _read_features(pathlib.Path(path), points=points)
      record, seen = {'id': name, 'features': features}, features.shape[1:]
    else:
      frames = frames_lib.read(path, rate=self.rate)
      if shape[-1] == 1 and frames.shape[-1] == 3:
        frames = np.rint(frames.mean(axis=-1, keepdims=True)).astype(np.uint8)
      elif shape[-1] == 3 and frames.shape[-1] == 1:
        frames = frames.repeat(3, axis=-1)
      record = {'id': name, 'frames': frames}
      seen = self.examples.view(frames[:1]).shape[1:]
    if seen != shape:
      raise ValueError(
        f'{name} has frames of {list(seen)}, the classifier was trained on '
        f'{list(shape)}: pass recordings of that size'
      )
    return record

  def from_camera(self, frame: np.ndarray) -> np.ndarray:
    """A frame for `online`: uint8[H, W, 3] of any size -> uint8[H, W, C].

    Raises:
      ValueError: the network reads features, or whole recordings.
    """
    if self.network.encoder is None or self.network.reads_whole:
      what = 'whole recordings' if self.network.encoder else 'features'
      raise ValueError(f'this network reads {what}, not frames of a camera')
    if self.frame_shape[-1] == 1:
      frame = np.rint(frame.mean(axis=-1, keepdims=True)).astype(np.uint8)
    if self.config.data.crop:
      return frame
    # Trained on frames as they were: of their size, then.
    return images.cover(frame, *self.frame_shape[:2])

  def probabilities(self, record: dict[str, Any]) -> np.ndarray:
    """The mean over the windows of evaluation: f32[V]."""
    windows = [
      self.examples.window(record, indices)
      for indices in self.examples.evaluated(record)
    ]
    logits, _ = self._read_windows(windows)
    return np.asarray(jax.nn.softmax(logits)).mean(axis=0)

  def over_time(self, record: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Class probabilities after each frame of a recording.

    For clips: of the recording up to this frame; a network that reads whole
    recordings reads the last T frames each time. For streams: of each frame.

    Returns:
      Indices of the frames i64[M], and probabilities f32[M, V].
    """
    times = self.examples.over_time(record)
    if self.streams:
      times = np.arange(len(record['frames']))
    if self.network.reads_whole:
      return times, self._prefixes(record, times)
    frames = recorded_frames(record, times)
    return times, np.stack(list(self.online(frames)))

  def online(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Reads a recording frame by frame; yields probabilities f32[V] after each.

    Args:
      frames: uint8[H, W, C] each, or features f32[D].

    Raises:
      ValueError: the network reads whole recordings.
    """
    carry = first = None
    for frame in frames:
      first = frame if first is None else first
      seen = self.examples.frame(frame, first)[None]
      if carry is None:
        carry = self._begin(self.variables, seen)
      carry, probabilities = self._advance(self.variables, carry, seen)
      yield np.asarray(probabilities)

  def _choose(self, logits, frame_logits):
    """The logits of the frame for streams, otherwise of the recording."""
    return frame_logits if self.streams else logits

  def _read_windows(self, windows):
    """Logits of windows: f32[N, V] and, by frame, f32[N, T, V]."""
    inputs = {
      name: np.stack([window[name] for window in windows])
      for name in windows[0]
    }
    return self._apply(
      self.variables, losses.recorded(inputs), inputs['length']
    )

  def _prefixes(self, record, times):
    """Probabilities from the T frames up to each of `times`: f32[M, V]."""
    size, found = self.config.data.num_frames, []
    for start in range(0, len(times), size):  # In batches of T windows.
      ends = [min(start + i, len(times) - 1) for i in range(size)]
      windows = [
        self.examples.window(record, times[max(0, end + 1 - size) : end + 1])
        for end in ends
      ]
      logits, frame_logits = self._read_windows(windows)
      if self.streams:
        last = np.array([window['length'] - 1 for window in windows])
        logits = frame_logits[np.arange(size), last]
      found.append(np.asarray(jax.nn.softmax(logits)))
    return np.concatenate(found)[: len(times)]


def load(workdir: str | os.PathLike) -> Classifier:
  """Loads the best checkpoint of a run.

  Args:
    workdir: of the run, or the name of a released model, such as
      'gesture_stream'.

  Raises:
    FileNotFoundError: the workdir has no checkpoint.
    ValueError: the run is of another version.
  """
  workdir = released.resolve(workdir)
  config = app.read_config(workdir, schema.VIDEO_CLASSIFY)
  variables, extras, step = checkpoints.load(
    workdir, best_metric=config.best_metric, mode=config.best_mode
  )
  class_names = extras['classes']
  return Classifier(
    config,
    class_names,
    extras['frame_shape'],
    model.create(config, len(class_names)),
    variables,
    step=step,
    rate=extras.get('rate'),
  )


def predict(
  network: model.Classifier,
) -> Callable[[Any, dict[str, jax.Array]], dict[str, jax.Array]]:
  """Returns the function `(variables, batch) -> outputs` of evaluation.

  The batch is one of `Examples.evaluation`. The outputs of recordings are
  `probabilities` f32[B, V], the mean over the N windows, and `label`. Those of
  streams, which have one window, are `frame_labels` i32[B, T], the CTC `loss`
  f32[B], `labels`, `framewise` and `length`.
  """

  def predict_fn(variables, batch):
    windows, lengths = losses.recorded(batch), batch['length']
    logits, frame_logits = network.apply(
      variables,
      windows.reshape(-1, *windows.shape[2:]),
      lengths.reshape(-1),
      train=False,
    )
    if 'labels' in batch:
      loss = losses.ctc(frame_logits, lengths[:, 0], batch['labels'])
      return {
        'frame_labels': jnp.argmax(frame_logits, axis=-1),
        'loss': loss,
        'labels': batch['labels'],
        'framewise': batch['framewise'],
        'length': lengths[:, 0],
      }
    # The mean of probabilities, not of logits: a window without the action
    # cannot veto the class.
    probabilities = jax.nn.softmax(logits).reshape(*lengths.shape, -1)
    return {
      'probabilities': jnp.mean(probabilities, axis=1),
      'label': batch['label'],
    }

  return predict_fn


def changes(labels: Iterable[int]) -> Iterator[tuple[int, int]]:
  """Yields (index, label) at the start of each run of equal labels.

  Without those of `model.BLANK` they are the gestures of `model.spoken`.
  """
  before = None
  for index, label in enumerate(labels):
    if label != before:
      yield index, label
    before = label


def recorded_frames(
  record: dict[str, Any], times: Iterable[int] | None = None
) -> Iterator[np.ndarray]:
  """Yields the frames of a record, or its features; all by default."""
  recorded = record['frames'] if 'frames' in record else record['features']
  for i in range(len(recorded)) if times is None else times:
    yield recorded[i]


def _read_features(path: pathlib.Path, *, points: bool) -> np.ndarray:
  """Reads f32[T, D] from a .npy file, or `features` of a .npz file.

  Args:
    path: of the file.
    points: the features are points, and may have the forms of recordings that
      are prepared.
  """
  if points and path.suffix.lower() in ('.csv', '.mat'):
    return data.read_points(path)
  if path.suffix.lower() not in frames_lib.ARRAYS:
    raise ValueError(
      f'{path} must be a .npy or .npz file of features f32[T, D]: this '
      'classifier does not read images'
    )
  try:
    features = array_files.read(path, 'features')
  except (ValueError, OSError) as error:
    raise ValueError(
      f'cannot read {path}: {error}. Save f32[T, D] with numpy.save, or as '
      '`features` with numpy.savez'
    ) from error
  if points and features.ndim > 2:
    return data.read_points(path)
  if (
    features.ndim != 2 or features.dtype.kind not in 'fiu' or not len(features)
  ):
    raise ValueError(
      f'{path} holds {features.dtype}{list(features.shape)}: save features '
      'f32[T, D], a vector for each frame'
    )
  if not np.isfinite(features).all():
    raise ValueError(
      f'{path} has features that are not finite: remove these frames'
    )
  return features.astype(np.float32)
