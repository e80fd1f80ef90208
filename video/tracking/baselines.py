"""Baselines: trackers that learn nothing.

They run frame by frame, with the interface of the trained tracker:

  state = tracker.start(frame, box)
  state, box = tracker.step(state, frame)

Axes: H height, W width of a frame; h, w of a template.
"""

import dataclasses
from collections.abc import Callable
from typing import Any
from typing import Protocol

import numpy as np

_MIN_DEVIATION = 1.0  # In grey levels; pixels that vary less are flat.


class FollowsFrames(Protocol):
  """A tracker of one target, frame by frame."""

  def start(self, frame: np.ndarray, box: np.ndarray) -> Any:
    """The state after the first frame uint8[H, W, 3] and its box f32[4]."""

  def step(self, state: Any, frame: np.ndarray) -> tuple[Any, np.ndarray]:
    """The state after one more frame, and the box f32[4] in it."""


def follow(tracker: FollowsFrames, frames: Any, box: np.ndarray) -> np.ndarray:
  """Tracks from the box in the first frame: f32[T, 4].

  Args:
    tracker: the tracker.
    frames: uint8[T, H, W, 3], or an iterable of frames.
    box: f32[4], returned as the first of the boxes.
  """
  frames = iter(frames)
  state = tracker.start(next(frames), box)
  boxes = [np.asarray(box, np.float32)]
  for frame in frames:
    state, found = tracker.step(state, frame)
    boxes.append(found)
  return np.stack(boxes)


class StillBox:
  """The box stays where it was."""

  def start(self, frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The state is the box."""
    del frame
    return np.asarray(box, np.float32)

  def step(self, state, frame):
    """See `FollowsFrames`."""
    del frame
    return state, state


@dataclasses.dataclass(frozen=True)
class Template:
  """The template of the target, and its last box.

  Attributes:
    pixels: f32[h, w], grey, from the first frame.
    offset: f32[2], from the corner of the template, a whole pixel, to that of
      the box.
    box: f32[4], in the last frame.
  """

  pixels: np.ndarray
  offset: np.ndarray
  box: np.ndarray


class CrossCorrelation:
  """Searches for the template of the first frame near the last box.

  The box moves to the maximum of the normalised cross-correlation (Lewis 1995),
  computed by the fast Fourier transform. It keeps its size.
  """

  def __init__(self, reach: float = 1.0):
    """Searches within `reach` widths and heights of the box."""
    self._reach = reach

  def start(self, frame: np.ndarray, box: np.ndarray) -> Template:
    """Cuts the template out.

    Raises:
      ValueError: the box lies outside of the frame.
    """
    box = np.asarray(box, np.float32)
    left, top, right, bottom = _within(box, frame.shape)
    if left >= right or top >= bottom:
      raise ValueError(f'box={box.tolist()} lies outside of the first frame')
    pixels = _grey(frame[top:bottom, left:right])
    return Template(pixels, box[:2] - (left, top), box)

  def step(self, state, frame):
    """See `FollowsFrames`."""
    height, width = state.pixels.shape
    corner = state.box[:2] - state.offset
    reach = self._reach * state.box[2:]
    around = (*(corner - reach), *((width, height) + 2 * reach))
    left, top, right, bottom = _within(np.array(around), frame.shape)
    # Room for the template, even if the box has left the frame.
    left = max(min(left, frame.shape[1] - width), 0)
    top = max(min(top, frame.shape[0] - height), 0)
    right, bottom = max(right, left + width), max(bottom, top + height)
    scores = correlate(_grey(frame[top:bottom, left:right]), state.pixels)
    if scores.max() <= 0:  # No match, as in a black frame.
      return state, state.box
    row, column = np.unravel_index(np.argmax(scores), scores.shape)
    found = np.array([left + column, top + row], np.float32) + state.offset
    box = np.concatenate([found, state.box[2:]]).astype(np.float32)
    return dataclasses.replace(state, box=box), box


def correlate(image: np.ndarray, template: np.ndarray) -> np.ndarray:
  """Normalised cross-correlation at all positions: f32[H - h + 1, W - w + 1].

  Pearson's correlation of the template with each window; 0 where that is flat.

  Args:
    image: f32[H, W], grey.
    template: f32[h, w], no larger than the image.
  """
  size = template.size
  centred = template - template.mean(dtype=np.float64)
  # Only differences matter; smaller numbers have smaller rounding errors.
  image = image - image.mean(dtype=np.float64)
  spectrum = np.fft.rfft2(image)
  spectrum *= np.conj(np.fft.rfft2(centred, image.shape))
  rows, columns = (
    np.array(image.shape) - np.array(template.shape) + 1
  ).tolist()
  product = np.fft.irfft2(spectrum, image.shape)[:rows, :columns]
  sums = _window_sums(image, template.shape)
  squares = _window_sums(image**2, template.shape)
  variation = np.maximum(squares - sums**2 / size, 0)
  flat = size * _MIN_DEVIATION**2
  scale = np.sqrt(variation * np.sum(centred**2))
  wanted = (variation > flat) & (np.sum(centred**2) > flat)
  scores = np.divide(product, scale, out=np.zeros_like(product), where=wanted)
  return scores.astype(np.float32)


def _window_sums(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
  """Sums over all windows of a shape, from a summed-area table."""
  table = np.pad(values, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
  height, width = shape
  rows = table[height:] - table[:-height]
  return rows[:, width:] - rows[:, :-width]


def _grey(pixels: np.ndarray) -> np.ndarray:
  """The mean of the channels: uint8[..., C] -> f32[...]."""
  return pixels.mean(axis=-1, dtype=np.float32)


def _within(box: np.ndarray, shape: tuple[int, ...]) -> tuple[int, ...]:
  """The whole pixels of a box in a frame: left, top, right, bottom."""
  size = (shape[1], shape[0])
  low = np.clip(np.rint(box[:2]), 0, size).astype(int)
  high = np.clip(np.rint(box[:2] + box[2:]), 0, size).astype(int)
  return int(low[0]), int(low[1]), int(high[0]), int(high[1])


# Name -> constructor.
BASELINES: dict[str, Callable[[], FollowsFrames]] = {
  'still_box': StillBox,
  'cross_correlation': CrossCorrelation,
}
