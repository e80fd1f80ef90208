"""Samples frames of a clip, and crops of the frames.

All frames of a clip get the same crop.

Axes: T time, H height, W width, C channels (3 or 1), S side of a square crop,
N sampled frames.
"""

import functools
from collections.abc import Callable

import numpy as np

from vision import images

# Indices of frames.


def spread(
  length: int, count: int, rng: np.random.Generator | None = None
) -> np.ndarray:
  """Indices of one frame of each of `count` equal parts of a clip: i64[N].

  The middle frame; with `rng` a random one (temporal jitter, as in Temporal
  Segment Networks, Wang et al. 2016). Frames repeat in a clip of fewer frames
  than parts.
  """
  _check_counts(length, count)
  offsets = 0.5 if rng is None else rng.random(count)
  positions = (np.arange(count) + offsets) * length / count
  return np.minimum(positions.astype(np.int64), length - 1)


def window(
  length: int,
  count: int,
  *,
  stride: int = 1,
  rng: np.random.Generator | None = None,
) -> np.ndarray:
  """Indices of every `stride`-th frame of a window: i64[N].

  The window is in the middle of the clip; with `rng` at a random position. The
  last frame of a clip that is too short is repeated.
  """
  _check_counts(length, count, stride)
  room = max(length - _span(count, stride), 0)
  start = room // 2 if rng is None else rng.integers(room + 1)
  return _from(start, length, count, stride)


def windows(
  length: int, count: int, clips: int, *, stride: int = 1
) -> np.ndarray:
  """Indices of evenly spaced windows, from first to last: i64[clips, N].

  For evaluation on several clips of a video, whose predictions are averaged.
  """
  _check_counts(length, count, stride, clips)
  room = max(length - _span(count, stride), 0)
  if clips == 1:
    return window(length, count, stride=stride)[np.newaxis]
  starts = np.linspace(0, room, clips).round().astype(np.int64)
  return np.stack([_from(start, length, count, stride) for start in starts])


def fit(array: np.ndarray, count: int) -> tuple[np.ndarray, int]:
  """Cuts or zero-pads the end: [T, ...] -> [count, ...] and the length."""
  length = min(len(array), count)
  fitted = np.zeros((count, *array.shape[1:]), array.dtype)
  fitted[:length] = array[:length]
  return fitted, length


def _check_counts(*counts: int):
  if min(counts) < 1:
    raise ValueError(f'lengths, counts and strides {counts} must be at least 1')


def _span(count: int, stride: int) -> int:
  return (count - 1) * stride + 1


def _from(start, length, count, stride) -> np.ndarray:
  return np.minimum(start + stride * np.arange(count), length - 1)


# Crops, the same for all frames of a clip: uint8[T, H, W, C].


def for_training(
  frames: np.ndarray,
  rng: np.random.Generator,
  *,
  resize: int,
  crop: int,
  flip: bool,
) -> np.ndarray:
  """One random crop for all frames: uint8[T, H, W, C] -> uint8[T, S, S, C].

  The short side is resized to `resize` first. With `flip` half of the clips are
  mirrored: only for labels and captions without left and right.
  """
  frames = random_crop(resize_short_side(frames, resize), crop, rng)
  return mirror(frames) if flip and rng.random() < 0.5 else frames


def for_evaluation(frames: np.ndarray, *, resize: int, crop: int) -> np.ndarray:
  """The central crop: uint8[T, H, W, C] -> uint8[T, S, S, C]."""
  return center_crop(resize_short_side(frames, resize), crop)


def resize_short_side(frames: np.ndarray, size: int) -> np.ndarray:
  """Resizes the short side bilinearly, keeping the proportions."""
  if min(frames.shape[1:3]) == size:
    return frames
  if frames.shape[-1] == 1:  # Pillow has no axis for a single channel.
    return np.stack(
      [images.resize_short_side(frame, size) for frame in frames[..., 0]]
    )[..., np.newaxis]
  return np.stack([images.resize_short_side(frame, size) for frame in frames])


def center_crop(frames: np.ndarray, size: int) -> np.ndarray:
  """Crops the centre: uint8[T, H, W, C] -> uint8[T, S, S, C]."""
  return _for_all(functools.partial(images.center_crop, size=size), frames)


def random_crop(
  frames: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray:
  """Crops at one random position: uint8[T, H, W, C] -> uint8[T, S, S, C]."""
  return _for_all(
    functools.partial(images.random_crop, size=size, rng=rng), frames
  )


def mirror(frames: np.ndarray) -> np.ndarray:
  """Exchanges left and right; callers must exchange labels and words too."""
  return frames[:, :, ::-1]


def _for_all(
  function: Callable[[np.ndarray], np.ndarray], frames: np.ndarray
) -> np.ndarray:
  """Applies a function of an image [H, W, ...] to all frames of a clip."""
  return np.moveaxis(function(np.moveaxis(frames, 0, 2)), 2, 0)
