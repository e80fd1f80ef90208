"""From a trained workdir to what a recording shows, at once or as it comes.

Axes: N windows of a recording, T time, D features, V classes.
"""

import dataclasses
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

from training import app
from training import checkpoints
from video import frames as frames_lib
from video.classification import examples as examples_lib
from video.classification import losses
from video.classification import model


@dataclasses.dataclass(frozen=True)
class Trained:
  """What a workdir holds: all that recognition needs."""

  config: ml_collections.ConfigDict
  class_names: tuple[str, ...]
  frame_shape: tuple[int, ...]  # What is read at once: (H, W, C), or (D,).
  classifier: model.Classifier
  variables: Any
  step: int
  rate: float | None = None  # To which video files are thinned, frames/s.

  @property
  def examples(self) -> examples_lib.Examples:
    """What makes examples of its records."""
    return examples_lib.Examples(
      self.config.data, self.config.augmentation, self.class_names
    )


def load(workdir: pathlib.Path) -> Trained:
  """The best checkpoint of a run.

  Raises:
    FileNotFoundError: nothing was trained there.
  """
  config = app.read_config(workdir)
  variables, extras, step = checkpoints.load(
    workdir, best_metric=config.best_metric, mode=config.best_mode
  )
  names = tuple(extras['classes'])
  classifier = model.create(config, len(names))
  shape = tuple(extras['frame_shape'])
  rate = extras.get('rate')
  return Trained(config, names, shape, classifier, variables, step, rate)


def predict(
  classifier: model.Classifier,
) -> Callable[[Any, dict[str, jax.Array]], dict[str, jax.Array]]:
  """A function of variables and of a batch of `Examples.evaluation`.

  It returns `probabilities` f32[B, V], the mean over the N windows of each
  recording, beside the `label`; of streams, which have one window, the
  `frame_labels` i32[B, T] and their `loss` f32[B], by CTC, beside `labels`,
  `framewise` and `length`.
  """

  def predict_fn(variables, batch):
    windows, lengths = losses.recorded(batch), batch['length']
    logits, frame_logits = classifier.apply(
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
    # Probabilities are averaged, rather than logits: a window that shows
    # nothing of the class has no veto.
    probabilities = jax.nn.softmax(logits).reshape(*lengths.shape, -1)
    return {
      'probabilities': jnp.mean(probabilities, axis=1),
      'label': batch['label'],
    }

  return predict_fn


class Recognizer:
  """Recognises what recordings show, one at a time, on one device."""

  def __init__(self, trained: Trained):
    """Compiles what it needs when it is needed first."""
    self.class_names = trained.class_names
    self.streams = trained.config.loss.kind == 'ctc'
    # Of how many frames that come one is read.
    windows = trained.config.data.sampling == 'window'
    self.stride = trained.config.data.stride if windows else 1
    self._trained = trained
    self._examples = trained.examples
    self._variables = jax.device_put(trained.variables)
    apply = functools.partial(trained.classifier.apply, train=False)
    self._apply = jax.jit(apply)
    self._begin = jax.jit(
      functools.partial(trained.classifier.apply, method='begin')
    )

    # All that is done for a frame, as one program: of a stream that lives, each
    # call of another one costs about as much as the network.
    def step(variables, carry, frames):
      carry, logits = trained.classifier.apply(
        variables, carry, frames, method='step'
      )
      return carry, jax.nn.softmax(self._says(*logits)[0])

    self._step = jax.jit(step)

  def read(self, path: str | os.PathLike) -> dict[str, Any]:
    """A clip's record, or where the classifier reads features, theirs.

    Raises:
      ValueError: the file is no clip, or no .npy or .npz of f32[T, D].
      OSError: it cannot be read.
    """
    name, shape = os.fspath(path), self._trained.frame_shape
    if self._trained.classifier.encoder is None:
      features = _read_features(pathlib.Path(path))
      record, seen = {'id': name, 'features': features}, features.shape[1:]
    else:
      frames = frames_lib.read(path, rate=self._trained.rate)
      if shape[-1] == 1 and frames.shape[-1] == 3:
        frames = np.rint(frames.mean(axis=-1, keepdims=True)).astype(np.uint8)
      elif shape[-1] == 3 and frames.shape[-1] == 1:
        frames = frames.repeat(3, axis=-1)
      record = {'id': name, 'frames': frames}
      seen = self._examples.view(frames[:1]).shape[1:]
    if seen != shape:
      raise ValueError(
        f'{name} has frames of {list(seen)}, the classifier was trained on '
        f'{list(shape)}: bring it to that size'
      )
    return record

  def probabilities(self, record: dict[str, Any]) -> np.ndarray:
    """As in evaluation, the mean over the windows: f32[V]."""
    windows = [
      self._examples.window(record, indices)
      for indices in self._examples.evaluated(record)
    ]
    logits, _ = self._read_windows(windows)
    return np.asarray(jax.nn.softmax(logits)).mean(axis=0)

  def over_time(self, record: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """What was to be said after each frame, had nothing followed.

    Of streams: what each frame shows, however many there are. A classifier that
    reads backwards sees the last T frames each time.

    Returns:
      Which frames, i64[any number], and f32[that number, V].
    """
    times = self._examples.over_time(record)
    if self.streams:
      times = np.arange(len(record['frames']))
    if self._trained.classifier.bidirectional:
      return times, self._prefixes(record, times)
    found = list(self.online(recorded_frames(record, times)))
    return times, np.stack(found)

  def online(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Reads frame by frame, as they come; yields f32[V] after each.

    Args:
      frames: uint8[H, W, C], or features f32[D], each at its moment.

    Raises:
      ValueError: the classifier reads backwards.
    """
    carry = first = None
    for frame in frames:
      first = frame if first is None else first
      seen = self._examples.frame(frame, first)[None]
      if carry is None:
        carry = self._begin(self._variables, seen)
      carry, probabilities = self._step(self._variables, carry, seen)
      yield np.asarray(probabilities)

  def _says(self, logits, frame_logits):
    """Of streams what the frame shows, otherwise all that was seen."""
    return frame_logits if self.streams else logits

  def _read_windows(self, windows):
    """Examples -> logits f32[N, V] and f32[N, T, V]."""
    inputs = {
      name: np.stack([window[name] for window in windows])
      for name in windows[0]
    }
    return self._apply(
      self._variables, losses.recorded(inputs), inputs['length']
    )

  def _prefixes(self, record, times):
    """f32[len(times), V]: each from the T frames that end there."""
    most, found = self._trained.config.data.num_frames, []
    for start in range(0, len(times), most):  # As many at once, no more.
      ends = [min(start + i, len(times) - 1) for i in range(most)]
      windows = [
        self._examples.window(record, times[max(0, end + 1 - most) : end + 1])
        for end in ends
      ]
      logits, frame_logits = self._read_windows(windows)
      last = np.array([window['length'] - 1 for window in windows])
      says = self._says(logits, frame_logits[np.arange(most), last])
      found.append(np.asarray(jax.nn.softmax(says)))
    return np.concatenate(found)[: len(times)]


def changes(labels: Iterable[int]) -> Iterator[tuple[int, int]]:
  """Where a stream of labels becomes another: yields (place, label).

  Of streams of gestures those that are not `classification.BLANK` are the
  gestures, as `classification.spoken` finds them.
  """
  before = None
  for place, label in enumerate(labels):
    if label != before:
      yield place, label
    before = label


def recorded_frames(
  record: dict[str, Any], times: Iterable[int] | None = None
) -> Iterator[np.ndarray]:
  """The frames of a record, or its features, one by one; all by default."""
  recorded = record['frames'] if 'frames' in record else record['features']
  for i in range(len(recorded)) if times is None else times:
    yield recorded[i]


def _read_features(path: pathlib.Path) -> np.ndarray:
  """f32[T, D] of a .npy file, or of the `features` in a .npz file."""
  if path.suffix.lower() not in frames_lib.ARRAYS:
    raise ValueError(
      f'{path} must be a .npy or .npz file of features f32[T, D]: this '
      'classifier does not read pictures'
    )
  try:
    features = np.load(path, allow_pickle=False)
    if path.suffix.lower() == '.npz':
      with features as file:
        features = file['features']
  # NumPy raises almost anything on a damaged file.
  except Exception as error:
    raise ValueError(
      f'cannot read {path}: {error!r}. Save f32[T, D] with numpy.save, or as '
      '`features` with numpy.savez'
    ) from error
  if (
    features.ndim != 2 or features.dtype.kind not in 'fiu' or not len(features)
  ):
    raise ValueError(
      f'{path} holds {features.dtype}{list(features.shape)}: features are '
      'f32[T, D], a vector for each frame'
    )
  if not np.isfinite(features).all():
    raise ValueError(f'{path} holds numbers that are not finite')
  return features.astype(np.float32)
