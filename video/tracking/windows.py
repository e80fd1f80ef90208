"""Which part of a frame a live tracker looks at, and how it is cut out.

Axes: H height, W width of a frame; h, w of a window in it.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import PIL.Image

# Their sides in pixels, where frames are larger; else all of the frame.
_WINDOWS = (96, 144, 208, 304, 448, 672, 1008)


@dataclasses.dataclass(frozen=True)
class Place:
  """A rectangle of whole pixels."""

  top: int
  left: int
  height: int
  width: int


def sizes(height: int, width: int) -> Iterator[Place]:
  """From small to large, in the corner of a frame of this size.

  They are few, as each is compiled, and none is larger than the frame.
  """
  for size in _WINDOWS:
    if size >= max(height, width):
      break
    yield Place(0, 0, min(height, size), min(width, size))
  yield Place(0, 0, height, width)


def around(box: np.ndarray, context: float, height: int, width: int) -> Place:
  """The smallest window that holds all of what a crop of a frame covers.

  Its place changes in leaps, so that a thing that moves little stays in it.

  Args:
    box: f32[4], its centre in the frame.
    context: see `tracking.Tracker`.
    height: H, of the frame.
    width: W.
  """
  x, y, *extent = (float(number) for number in box)

  def covered(start, extent, length):
    centre, half = start + extent / 2, extent * context / 2
    # A sample reaches half a pixel beyond the crop, where it is enlarged.
    low, high = math.floor(centre - half) - 1, math.ceil(centre + half) + 1
    return max(low, 0), min(high, length)

  def fit(low, high, size, length):
    if size == length:
      return 0
    leap = size // 16
    if high - low + 2 * leap > size:
      return None
    start = (low + high - size) // 2 // leap * leap
    return min(max(start, 0), length - size)

  rows = covered(y, extent[1], height)
  columns = covered(x, extent[0], width)
  for window in sizes(height, width):
    top = fit(*rows, window.height, height)
    left = fit(*columns, window.width, width)
    if top is not None and left is not None:
      return dataclasses.replace(window, top=top, left=left)
  raise AssertionError('the whole frame holds any crop of it')


def reduced_size(height: int, width: int, longest: int) -> tuple[int, int]:
  """The size of a frame of which no side is longer than `longest`."""
  ratio = longest / max(height, width)
  if ratio >= 1:
    return height, width
  return max(1, round(height * ratio)), max(1, round(width * ratio))


def cut(frame: np.ndarray, size: tuple[int, int], place: Place) -> np.ndarray:
  """A part of a frame that is reduced as Pillow does; every pixel counts.

  Equal to the part of the whole frame, reduced; but what lies far from the part
  is not read, unless the ratio of the sizes is of large numbers.

  Args:
    frame: uint8[H, W, 3].
    size: to which it is reduced, see `reduced_size`.
    place: the part, in pixels of the reduced frame.

  Returns:
    uint8[h, w, 3], a copy.
  """
  rows = slice(place.top, place.top + place.height)
  columns = slice(place.left, place.left + place.width)
  if size == frame.shape[:2]:
    return frame[rows, columns].copy()
  if frame.shape[0] >= 2 * frame.shape[1]:
    # Of what is as tall as that Pillow reduces the height first, and rounds.
    whole = PIL.Image.fromarray(frame)
    whole = whole.resize(size[::-1], PIL.Image.Resampling.BILINEAR)
    return np.asarray(whole)[rows, columns].copy()
  top = _source(rows, frame.shape[0], size[0])
  left = _source(columns, frame.shape[1], size[1])
  part = PIL.Image.fromarray(frame[top.read, left.read])
  # And of all else the width first; the part, too, must be treated so.
  part = part.resize(
    (left.count, part.height),
    PIL.Image.Resampling.BILINEAR,
    box=(left.start, 0, left.stop, part.height),
  )
  part = part.resize(
    (part.width, top.count),
    PIL.Image.Resampling.BILINEAR,
    box=(0, top.start, part.width, top.stop),
  )
  return np.asarray(part)[top.wanted, left.wanted].copy()


class _Source(NamedTuple):
  """Of what a part of a line is reduced, in pixels."""

  read: slice  # Of the line: those that have a weight.
  start: int  # Of what was read: that of which so many pixels are made.
  stop: int
  count: int
  wanted: slice  # Of these.


def _source(part: slice, length: int, reduced: int) -> _Source:
  """For a part of a line of so many pixels, which are reduced to fewer.

  Equal for all of the line and for a part of it where the part begins and ends
  between pixels of both.
  """
  steps = math.gcd(length, reduced)
  step = reduced // steps
  first, last = part.start // step, -(-part.stop // step)
  start, stop = (i * (length // steps) for i in (first, last))
  reach = -(-length // reduced) + 1
  read = slice(max(start - reach, 0), min(stop + reach, length))
  wanted = slice(part.start - first * step, part.stop - first * step)
  return _Source(
    read,
    start - read.start,
    stop - read.start,
    (last - first) * step,
    wanted,
  )
