"""Clips of recorded sequences, all of one length and size, to train trackers.

Axes: T time, H height, W width.
"""

import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image

from video.sources import tracks
from vision import images

_STRIDES = (1, 1, 1, 2, 3)  # Distances between frames, sampled from these.
_HELD_OUT = 4  # One sequence of this many is for validation.
_MIN_SIDE = 0.12  # Of a target, in heights of the clip; larger ones vary.
_MAX_SIDE = 0.4


class RecordedClips:
  """Random access to clips of sequences; threads may share it.

  Clip `index` depends on the split, the index and the sequences alone.
  """

  def __init__(
    self,
    directory: str | pathlib.Path,
    split: str,
    *,
    num_frames: int,
    height: int,
    width: int,
  ):
    """Reads the boxes of the sequences.

    Args:
      directory: of sequences, see `sources.tracks`.
      split: 'validation' has every fourth sequence, 'train' the others.
      num_frames: T.
      height: H.
      width: W.

    Raises:
      ValueError: a sequence has a problem, or too few of them are long enough.
    """
    found, _ = tracks.read(directory)
    found = [track for track in found if len(track.paths) >= num_frames]
    held_out = split != 'train'
    self._tracks = [
      track
      for i, track in enumerate(found)
      if (i % _HELD_OUT == _HELD_OUT - 1) == held_out
    ]
    if not self._tracks:
      raise ValueError(
        f'{directory} has {len(found)} sequences of at least {num_frames} '
        f'frames: pass at least {_HELD_OUT}, or shorter clips'
      )
    self._split = split
    self._shape = (num_frames, height, width)

  def read(self, index: int) -> dict[str, Any]:
    """`id`, `frames` uint8[T, H, W, 3], `boxes` f32[T, 4], `hidden` bool[T]."""
    rng = np.random.default_rng((self._split == 'train', int(index)))
    track = self._tracks[rng.integers(len(self._tracks))]
    count, height, width = self._shape
    stride = _STRIDES[rng.integers(len(_STRIDES))]
    stride = min(stride, (len(track.paths) - 1) // (count - 1))
    last = len(track.paths) - 1 - stride * (count - 1)
    starts = np.flatnonzero(~track.hidden[: last + 1])
    start = int(starts[rng.integers(len(starts))])
    chosen = np.arange(start, start + stride * count, stride)
    boxes, hidden = track.boxes[chosen], track.hidden[chosen]
    share = math.exp(rng.uniform(math.log(_MIN_SIDE), math.log(_MAX_SIDE)))
    frames = [images.decode(track.paths[i]) for i in chosen]
    part = _part(boxes[~hidden], share, frames[0].shape, height / width, rng)
    left, top, right, bottom = part
    scale = np.array([width / (right - left), height / (bottom - top)] * 2)
    shown = [
      PIL.Image.fromarray(frame).resize(
        (width, height), PIL.Image.Resampling.BILINEAR, box=part
      )
      for frame in frames
    ]
    moved = (boxes - (left, top, 0, 0)) * scale
    return {
      'id': f'{self._split}-{index:06d}-{track.id}',
      'frames': np.stack([np.asarray(image) for image in shown]),
      'boxes': np.where(hidden[:, None], 0, moved).astype(np.float32),
      'hidden': hidden,
    }


def _part(
  boxes: np.ndarray,
  share: float,
  shape: Sequence[int],
  aspect: float,
  rng: np.random.Generator,
) -> tuple[float, float, float, float]:
  """The part of the frames that a clip shows: left, top, right, bottom.

  It holds all boxes and has the aspect of the clip, as far as the frame does.
  """
  low, high = boxes[:, :2].min(0), (boxes[:, :2] + boxes[:, 2:]).max(0)
  size = math.sqrt(boxes[0, 2] * boxes[0, 3])
  tall = max(size / share, high[1] - low[1], (high[0] - low[0]) * aspect)
  extent = np.minimum((tall / aspect, tall), (shape[1], shape[0]))
  # Anywhere around the boxes.
  first = np.maximum(high - extent, 0)
  last = np.minimum(low, (shape[1], shape[0]) - extent)
  corner = rng.uniform(np.minimum(first, last), np.maximum(first, last))
  corner = np.clip(corner, 0, (shape[1], shape[0]) - extent)
  return (*map(float, corner), *map(float, corner + extent))


class Mixture:
  """Generated sequences, some of which are replaced by recorded ones."""

  def __init__(self, generated: Any, recorded: RecordedClips, share: float):
    """Replaces about `share` of the sequences, evenly spread."""
    self._generated, self._recorded = generated, recorded
    self._share = share

  def __len__(self) -> int:
    """The number of sequences."""
    return len(self._generated)

  def __getitem__(self, index: int) -> dict[str, Any]:
    """See `RecordedClips.read`."""
    if not 0 <= index < len(self):
      raise IndexError(index)  # Ends iteration.
    if int((index + 1) * self._share) > int(index * self._share):
      return self._recorded.read(index)
    return self._generated[index]
