"""Windows: the parts of frames that a live tracker needs.

Axes: H height, W width of a frame; h, w of a window in it.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import PIL.Image

# Sides in pixels; a smaller frame is its own window.
_SIDES = (96, 144, 208, 304, 448, 672, 1008)


@dataclasses.dataclass(frozen=True)
class Window:
  """A rectangle of whole pixels in a frame."""

  top: int
  left: int
  height: int
  width: int


def sizes(height: int, width: int) -> Iterator[Window]:
  """The windows of a frame of this size, from small to large, at its corner.

  They are few, since a step is compiled for each. None is larger than the
  frame.
  """
  for side in _SIDES:
    if side >= max(height, width):
      break
    yield Window(0, 0, min(height, side), min(width, side))
  yield Window(0, 0, height, width)


def around(box: np.ndarray, context: float, height: int, width: int) -> Window:
  """The smallest window that holds all pixels of a crop.

  Its position is a multiple of a stride, so that it rarely changes while the
  target moves little.

  Args:
    box: f32[4], whose centre lies in the frame.
    context: side of the crop as a multiple of the box, see `model.Tracker`.
    height: H, of the frame.
    width: W, of the frame.
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
    stride = size // 16
    if high - low + 2 * stride > size:
      return None
    start = (low + high - size) // 2 // stride * stride
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
  """Height and width of a frame reduced to sides of at most `longest`."""
  ratio = longest / max(height, width)
  if ratio >= 1:
    return height, width
  return max(1, round(height * ratio)), max(1, round(width * ratio))


def cut(frame: np.ndarray, size: tuple[int, int], window: Window) -> np.ndarray:
  """Cuts a window out of the reduced frame.

  Bit for bit the pixels of `PIL.Image.resize` (bilinear) on the whole frame.
  Only the pixels near the window are read, unless the two sizes have no large
  common divisor.

  Args:
    frame: uint8[H, W, 3].
    size: height and width of the reduced frame, see `reduced_size`.
    window: in pixels of the reduced frame.

  Returns:
    uint8[h, w, 3], a copy.
  """
  rows = slice(window.top, window.top + window.height)
  columns = slice(window.left, window.left + window.width)
  if size == frame.shape[:2]:
    return frame[rows, columns].copy()
  if frame.shape[0] >= 2 * frame.shape[1]:
    # Pillow reduces the height of so tall an image first, and rounds.
    whole = PIL.Image.fromarray(frame)
    whole = whole.resize(size[::-1], PIL.Image.Resampling.BILINEAR)
    return np.asarray(whole)[rows, columns].copy()
  top = _source(rows, frame.shape[0], size[0])
  left = _source(columns, frame.shape[1], size[1])
  part = PIL.Image.fromarray(frame[top.read, left.read])
  # It reduces the width of any other image first: so must we.
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
  """The pixels of a line that a part of the reduced line depends on."""

  read: slice  # The pixels with a weight, in the line.
  start: int  # The interval that is resized, in the pixels read.
  stop: int  # Its end, in the pixels read.
  count: int  # Its length in the resized pixels.
  wanted: slice  # The part, in the resized pixels of the interval.


def _source(part: slice, length: int, reduced: int) -> _Source:
  """The source of a part of a line that is reduced from `length` pixels.

  Resizing an interval equals resizing the whole line if both ends of the
  interval lie between pixels of both lines.
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
