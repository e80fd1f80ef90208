"""DAVIS 2017 (Pont-Tuset et al. 2017) of TensorFlow Datasets, as tracks.

Its videos say of each pixel which thing it belongs to; here each thing that is
in the first frame has the box of its pixels.

Axes: T time, H height, W width.
"""

from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np

from video import frames as frames_lib

_NOTHING = (0, 255)  # The background, and what nobody could tell.


class Tracks:
  """Random access to the things of a split; threads may share it."""

  def __init__(self, source: Sequence[dict[str, Any]]):
    """Looks at the first frame of each video.

    Args:
      source: the videos, a data source of TFDS whose pictures are not decoded.
    """
    self._source = source
    self._things = []
    for i in range(len(source)):
      first = _segmentations(source[i]['video'])[0]
      self._things += [
        (i, int(thing)) for thing in np.unique(first) if thing not in _NOTHING
      ]

  def __len__(self) -> int:
    """The number of things."""
    return len(self._things)

  def __getitem__(self, index: int) -> dict[str, Any]:
    """`id`, `frames`, `boxes` and `hidden`; see `video.data`."""
    if not 0 <= index < len(self):
      raise IndexError(index)  # Which ends a loop over all.
    place, thing = self._things[index]
    record = self._source[place]
    boxes = np.stack(
      [box_of(x[..., 0] == thing) for x in _segmentations(record['video'])]
    )
    return {
      'id': f'{record["metadata"]["video_name"].decode()}-{thing}',
      'frames': frames_lib.Encoded(record['video']['frames']),
      'boxes': boxes,
      'hidden': boxes[:, 2] == 0,
    }

  def __iter__(self) -> Iterator[dict[str, Any]]:
    """All records in order."""
    return (self[i] for i in range(len(self)))


def box_of(mask: np.ndarray) -> np.ndarray:
  """The box of the pixels of a thing, zeros where there are none.

  bool[H, W] -> f32[4].
  """
  if not mask.any():
    return np.zeros(4, np.float32)
  rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
  left, top = columns[0], rows[0]
  return np.array(
    [left, top, columns[-1] + 1 - left, rows[-1] + 1 - top], np.float32
  )


def _segmentations(video: dict[str, Any]) -> frames_lib.Encoded:
  """Which thing each pixel belongs to: uint8[T, H, W, 1]."""
  return frames_lib.Encoded(video['segmentations'], channels=1)
