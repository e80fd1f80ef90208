"""DAVIS 2017 (Pont-Tuset et al. 2017) of TensorFlow Datasets, as tracks.

Its videos annotate the object of each pixel. Each object of the first frame
makes a track with the box of its pixels.

Axes: T time, H height, W width.
"""

from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np

from video import frames as frames_lib

_IGNORED = (0, 255)  # The background, and pixels without an annotation.


class Tracks:
  """Random access to the objects of a split; threads may share it."""

  def __init__(self, source: Sequence[dict[str, Any]]):
    """Finds the objects in the first frame of each video.

    Args:
      source: the videos, a data source of TFDS with encoded images.
    """
    self._source = source
    self._objects = []
    for i in range(len(source)):
      first = _segmentations(source[i]['video'])[0]
      self._objects += [
        (i, int(label)) for label in np.unique(first) if label not in _IGNORED
      ]

  def __len__(self) -> int:
    """The number of objects."""
    return len(self._objects)

  def __getitem__(self, index: int) -> dict[str, Any]:
    """`id`, `frames`, `boxes` and `hidden`; see `video.data`."""
    if not 0 <= index < len(self):
      raise IndexError(index)  # Ends a loop over all records.
    video, label = self._objects[index]
    record = self._source[video]
    boxes = np.stack(
      [box_of(x[..., 0] == label) for x in _segmentations(record['video'])]
    )
    return {
      'id': f'{record["metadata"]["video_name"].decode()}-{label}',
      'frames': frames_lib.Encoded(record['video']['frames']),
      'boxes': boxes,
      'hidden': boxes[:, 2] == 0,
    }

  def __iter__(self) -> Iterator[dict[str, Any]]:
    """All records in order."""
    return (self[i] for i in range(len(self)))


def box_of(mask: np.ndarray) -> np.ndarray:
  """The bounding box of a mask: bool[H, W] -> f32[4]; zeros if it is empty."""
  if not mask.any():
    return np.zeros(4, np.float32)
  rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
  left, top = columns[0], rows[0]
  return np.array(
    [left, top, columns[-1] + 1 - left, rows[-1] + 1 - top], np.float32
  )


def _segmentations(video: dict[str, Any]) -> frames_lib.Encoded:
  """The object of each pixel: uint8[T, H, W, 1]."""
  return frames_lib.Encoded(video['segmentations'], channels=1)
