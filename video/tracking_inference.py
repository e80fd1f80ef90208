"""From a trained workdir to a tracker of live frames.

  live = tracking_inference.LiveTracker.of(tracking_inference.load(workdir))
  state = live.begin(frame, box)
  for frame in camera:
    state, box = live.step(state, frame)

Axes: H height, W width of a frame.
"""

import dataclasses
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np
import PIL.Image

from training import app
from training import checkpoints
from video import tracking


@dataclasses.dataclass(frozen=True)
class Trained:
  """What a workdir holds: all that tracking needs."""

  config: ml_collections.ConfigDict
  tracker: tracking.Tracker
  variables: Any
  step: int
  fingerprint: str  # Of the data that it was trained on.


def create(config: ml_collections.ConfigDict) -> tracking.Tracker:
  """The network of a config."""
  fields = config.model.to_dict()
  # JSON has no tuples.
  for name in ('filters', 'skips'):
    fields[name] = tuple(fields[name])
  return tracking.Tracker(**fields)


def load(workdir: pathlib.Path) -> Trained:
  """The best checkpoint of a run.

  Raises:
    FileNotFoundError: nothing was trained there.
    ValueError: the workdir is of something else.
  """
  config = app.read_config(workdir)
  try:
    variables, extras, step = checkpoints.load(
      workdir, best_metric=config.best_metric, mode=config.best_mode
    )
    return Trained(
      config, create(config), variables, step, extras['tracks']['fingerprint']
    )
  except (AttributeError, KeyError, TypeError) as error:
    raise ValueError(
      f'{workdir} is not the workdir of a video.track run: {error}'
    ) from error


@dataclasses.dataclass(frozen=True)
class LiveState:
  """What a live tracker carries from frame to frame."""

  state: tracking.State
  size: tuple[int, int]  # Height and width of the frames as they come.
  scale: np.ndarray  # f32[4], from their pixels to those that are searched.


class LiveTracker:
  """Follows one thing, a frame at a time, on one device.

  Each size of frames is compiled once.
  """

  def __init__(
    self, tracker: tracking.Tracker, variables: Any, *, longest_side: int
  ):
    """Puts the variables on the first device alone.

    Args:
      tracker: the network.
      variables: of it; those of a replicated state will do.
      longest_side: larger frames are reduced to it before they are searched;
        boxes are those of the frames as they came.

    Raises:
      ValueError: a side without pixels.
    """
    if longest_side < 1:
      raise ValueError(f'longest_side={longest_side} must be at least 1')
    self._longest_side = longest_side
    self._variables = jax.device_put(variables, jax.local_devices()[0])
    self._begin = jax.jit(
      lambda variables, frame, box: tracker.apply(
        variables, frame[None], box[None], method='begin'
      )
    )

    def step(variables, state, frame):
      state, box = tracker.apply(variables, state, frame[None], method='step')
      return state, box[0]

    self._step = jax.jit(step)

  @classmethod
  def of(cls, trained: Trained) -> 'LiveTracker':
    """With the weights of a run."""
    return cls(
      trained.tracker,
      trained.variables,
      longest_side=trained.config.longest_side,
    )

  def begin(self, frame: np.ndarray, box: np.ndarray) -> LiveState:
    """The state after the first frame uint8[H, W, 3] and its box f32[4].

    Raises:
      ValueError: it is no frame; or no box, or one outside of the frame.
    """
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
      raise ValueError(
        f'a frame is {frame.dtype}{list(frame.shape)}: pass uint8[H, W, 3]'
      )
    height, width = frame.shape[:2]
    box = tracking.check_box(box, height, width)
    frame = self._reduce(frame)
    scale = np.array(frame.shape[1::-1] * 2) / (width, height, width, height)
    scale = scale.astype(np.float32)
    state = self._begin(self._variables, frame, box * scale)
    return LiveState(state, (height, width), scale)

  def step(
    self, state: LiveState, frame: np.ndarray
  ) -> tuple[LiveState, np.ndarray]:
    """One frame later: the state, and the box f32[4] in that frame.

    Raises:
      ValueError: the frame is of another size than the first one.
    """
    if frame.shape[:2] != state.size:
      raise ValueError(
        f'a frame of {frame.shape[:2]} pixels follows one of {state.size}: '
        'resize the frames to one size, or begin anew'
      )
    inner, box = self._step(self._variables, state.state, self._reduce(frame))
    box = np.asarray(box) / state.scale
    return dataclasses.replace(state, state=inner), box

  def _reduce(self, frame: np.ndarray) -> np.ndarray:
    """No side longer than the longest; as Pillow does, every pixel counts."""
    height, width = frame.shape[:2]
    ratio = self._longest_side / max(height, width)
    if ratio >= 1:
      return np.ascontiguousarray(frame)
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    picture = PIL.Image.fromarray(frame)
    return np.asarray(picture.resize(size, PIL.Image.Resampling.BILINEAR))
