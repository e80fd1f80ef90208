"""Turns records of recordings into examples of fixed shapes.

Axes: N windows of a recording, T time, H height, W width, C channels, D
features, J joints, S gestures, V classes.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np

from video import sampling
from video.classification import augmentation

SAMPLINGS = ('spread', 'window')
PAD = -1  # Pads the gestures of streams; also stands for no label.


@dataclasses.dataclass(frozen=True)
class Space:
  """The geometry of features that are points.

  Attributes:
    dimensions: of a point.
    origin: index of the point whose first position becomes the origin.
    axes: plane of the random rotations; for skeletons about the vertical.
  """

  dimensions: int
  origin: int
  axes: tuple[int, int]


# UTD-MHAD's third joint is the spine.
SPACES = {'skeleton': Space(3, 2, (0, 2)), 'fingertip': Space(2, 0, (0, 1))}


@dataclasses.dataclass(frozen=True)
class Examples:
  """Makes examples for training and for evaluation.

  Attributes:
    config: `data` of the run's config:
      `num_frames`: T.
      `sampling`: 'spread' samples up to T frames of the whole recording,
        'window' takes T frames at distances of `stride`.
      `windows`: N, windows of evaluation, whose predictions are averaged.
      `resize`, `crop`: see `sampling`; with `crop` 0 frames stay as they are.
      `space`: a key of `SPACES`, or '' for other features and for frames.
      `max_gestures`: S.
      `reversals`: pairs of class names; each class played backwards is the
        other one.
    augmentation: `augmentation` of the run's config:
      `flips`: of `augmentation.FLIPS`, each applied to half of the clips.
      `min_span`: smallest share of a recording.
      `permute_channels`: permute the colour channels.
      `shift`: largest shift, in pixels.
      `brightness`: largest change of brightness, of 255.
      `rotation`: largest rotation of points, in degrees.
      `scale`: largest logarithm of the scale, of points and of pixels.
      `persons`: P, persons of a skeleton, whose order is shuffled; 0 keeps it.
      `noise`: standard deviation of the noise of features.
    class_names: by label.
  """

  config: ml_collections.ConfigDict
  augmentation: ml_collections.ConfigDict
  class_names: Sequence[str]

  def __post_init__(self):
    """Raises a ValueError if a field is wrong."""
    if self.config.sampling not in SAMPLINGS:
      raise ValueError(
        f'data.sampling={self.config.sampling!r} is none of '
        f'{", ".join(SAMPLINGS)}'
      )
    if self.config.space not in ('', *SPACES):
      raise ValueError(
        f"data.space={self.config.space!r} is none of '', {', '.join(SPACES)}"
      )
    for flip in self.augmentation.flips:
      augmentation.flipped_labels(flip, list(self.class_names))
    unknown = {name for pair in self.config.reversals for name in pair} - set(
      self.class_names
    )
    if unknown:
      raise ValueError(
        f'data.reversals: {", ".join(sorted(unknown))} is none of the classes '
        f'{", ".join(self.class_names)}'
      )

  def training(
    self, record: dict[str, Any], rng: np.random.Generator
  ) -> dict[str, np.ndarray]:
    """Returns a random part of a recording, augmented.

    Args:
      record: see `data`.
      rng: random generator of this example.

    Returns:
      `id`, `frames` uint8[T, H, W, C] or `features` f32[T, D], `length` i32[]
      (number of real frames), and `label` i32[]; for streams `labels` i32[S],
      padded with `PAD`, and `framewise` i32[T].
    """
    config, change = self.config, self.augmentation
    if 'labels' in record:  # No gesture may be cut off.
      indices = np.arange(len(record['frames']))[: config.num_frames]
    else:
      total = len(_recorded(record))
      start, stop = augmentation.random_span(total, change.min_span, rng)
      if config.sampling == 'window':
        indices = start + sampling.window(
          stop - start, config.num_frames, stride=config.stride, rng=rng
        )
      else:
        count = min(stop - start, config.num_frames)
        indices = start + sampling.spread(stop - start, count, rng)
    example = self._labels(record, indices)
    if 'frames' not in record:
      features = self._points(record['features'][indices], rng)
      return self._fit(example, {'features': features})
    frames = np.asarray(record['frames'][indices])
    if config.crop:
      frames = sampling.for_training(
        frames, rng, resize=config.resize, crop=config.crop, flip=False
      )
    for flip in change.flips:
      if rng.random() < 0.5:
        frames = augmentation.flip_frames(frames, flip)
        table = augmentation.flipped_labels(flip, list(self.class_names))
        example = _relabel(example, table)
    if change.permute_channels:
      frames = augmentation.permute_channels(frames, rng)
    if change.scale:
      factor = math.exp(rng.uniform(-1, 1) * change.scale)
      frames = augmentation.zoom(frames, factor)
    if change.shift:
      frames = augmentation.shift(frames, change.shift, rng)
    if change.brightness:
      brighter = rng.uniform(-1, 1) * change.brightness
      frames = augmentation.brighten(frames, brighter)
    return self._fit(example, {'frames': frames})

  def evaluation(
    self, record: dict[str, Any], order: str = ''
  ) -> dict[str, np.ndarray]:
    """Returns the fixed windows of a recording, without augmentation.

    Args:
      record: see `data`.
      order: of the frames: '' as recorded; 'reversed' backwards, with the label
        by `reversals`, or `PAD` if there is none; 'shuffled' in a random order
        that depends on the id alone.

    Returns:
      The fields of `training`, with an axis of N windows first: `frames`
      uint8[N, T, H, W, C] or `features` f32[N, T, D], and `length` i32[N].
    """
    indices = self.evaluated(record)
    example = self._labels(record, indices[0])
    if order == 'reversed':
      indices = indices[:, ::-1]
      example['label'] = self._reversed(example['label'])
    elif order == 'shuffled':
      seed = list(record['id'].encode())
      permutation = np.random.default_rng(seed).permutation(indices.shape[1])
      indices = indices[:, permutation]
    windows = [self.window(record, chosen) for chosen in indices]
    return {
      **example,
      **{name: np.stack([w[name] for w in windows]) for name in windows[0]},
    }

  def evaluated(self, record: dict[str, Any]) -> np.ndarray:
    """Indices of the frames of the windows of evaluation: i64[N, <= T]."""
    config, total = self.config, len(_recorded(record))
    if 'labels' in record:
      return np.arange(total)[None, : config.num_frames]
    if config.sampling == 'window':
      return sampling.windows(
        total, config.num_frames, config.windows, stride=config.stride
      )
    return sampling.spread(total, min(total, config.num_frames))[None]

  def window(
    self, record: dict[str, Any], indices: np.ndarray
  ) -> dict[str, np.ndarray]:
    """Returns some frames: `frames` or `features`, and `length`."""
    if 'frames' not in record:
      features = self._points(record['features'][indices], None)
      return self._fit({}, {'features': features})
    frames = self.view(np.asarray(record['frames'][indices]))
    return self._fit({}, {'frames': frames})

  def view(self, frames: np.ndarray) -> np.ndarray:
    """Resizes and crops frames as in evaluation: uint8[T, H, W, C]."""
    if not self.config.crop:
      return frames
    return sampling.for_evaluation(
      frames, resize=self.config.resize, crop=self.config.crop
    )

  def frame(self, frame: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Preprocesses one frame of a window whose first frame is `first`.

    uint8[..., C] -> uint8[H, W, C], or f32[D] -> f32[D].
    """
    if frame.ndim == 1:
      return self._points(np.stack([first, frame]), None)[1]
    return self.view(frame[None])[0]

  def over_time(self, record: dict[str, Any]) -> np.ndarray:
    """Indices of the frames after which to classify: i64[M].

    They have the spacing of the windows and span the whole recording.
    """
    if self.config.sampling == 'window':
      return np.arange(0, len(_recorded(record)), self.config.stride)
    return self.evaluated(record)[0]

  def _labels(self, record, indices):
    """Returns `id` and the labels of the frames at `indices`."""
    example = {'id': record['id']}
    if 'labels' not in record:
      return {**example, 'label': np.int32(record['label'])}
    labels = np.array(record['labels'], np.int32)
    if len(labels) > self.config.max_gestures:
      raise ValueError(
        f'{record["id"]} has {len(labels)} gestures: pass '
        f'--config.data.max_gestures={len(labels)} or more'
      )
    padded = np.full(self.config.max_gestures, PAD, np.int32)
    padded[: len(labels)] = labels
    framewise, _ = sampling.fit(
      np.asarray(record['framewise'], np.int32)[indices], self.config.num_frames
    )
    return {**example, 'labels': padded, 'framewise': framewise}

  def _reversed(self, label):
    """Label -> label of the reversed recording, or `PAD`: i32[]."""
    name = self.class_names[int(label)]
    for one, other in self.config.reversals:
      if name in (one, other):
        return np.int32(self.class_names.index(other if name == one else one))
    return np.int32(PAD)

  def _points(self, features, rng):
    """Moves points to the origin; augments features if `rng` is given."""
    change = self.augmentation
    if self.config.space:
      space = SPACES[self.config.space]
      points = features.reshape(len(features), -1, space.dimensions)
      if rng is not None and change.persons:
        points = augmentation.shuffle_persons(points, change.persons, rng)
      points = augmentation.relative_to(points, space.origin)
      if rng is not None and change.rotation:
        angle = math.radians(rng.uniform(-1, 1) * change.rotation)
        points = augmentation.rotate(points, angle, space.axes)
      features = points.reshape(len(features), -1)
    if rng is not None and change.scale:
      features = features * math.exp(rng.uniform(-1, 1) * change.scale)
    if rng is not None and change.noise:
      features = features + rng.normal(0, change.noise, features.shape)
    return features.astype(np.float32)

  def _fit(self, example, recorded):
    """Pads to T frames."""
    ((name, values),) = recorded.items()
    values, length = sampling.fit(values, self.config.num_frames)
    return {**example, name: values, 'length': np.int32(length)}


def _recorded(record):
  """Returns the frames of a record, or its features."""
  return record['frames'] if 'frames' in record else record['features']


def _relabel(example, table):
  """Maps the labels of an example through a table i32[V]; `PAD` stays."""
  changed = dict(example)
  for name in ('label', 'labels', 'framewise'):
    if name in example:
      labels = np.asarray(example[name])
      changed[name] = np.where(labels == PAD, PAD, table[labels]).astype(
        np.int32
      )
  return changed
