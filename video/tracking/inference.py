"""A trained tracker that follows a target through frames as they arrive.

  tracker = inference.load('runs/track')
  state = tracker.start(frame, box)
  for frame in camera:
    state, box = tracker.step(state, frame)

Axes: H height, W width of a frame; h, w of a window in it.
"""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from configs import schema
from training import app
from training import checkpoints
from training import released
from video.tracking import boxes as boxes_lib
from video.tracking import correlation
from video.tracking import model
from video.tracking import windows

Network = model.Tracker | correlation.Tracker

# Name -> network.
TRACKERS = {'regression': model.Tracker, 'correlation': correlation.Tracker}


@dataclasses.dataclass(frozen=True)
class Trained:
  """The best checkpoint of a run, with its network and its config."""

  config: ml_collections.ConfigDict
  network: Network
  variables: Any
  step: int
  fingerprint: str  # Of the data that it was trained on.


def create(config: ml_collections.ConfigDict) -> Network:
  """The network of a config."""
  fields = {
    # JSON has no tuples.
    name: tuple(value) if isinstance(value, list) else value
    for name, value in config.model.to_dict().items()
  }
  return TRACKERS[config.tracker](**fields)


def restore(workdir: str | os.PathLike) -> Trained:
  """Reads the best checkpoint of a run.

  Args:
    workdir: of the run, or the name of a released model.

  Raises:
    FileNotFoundError: nothing was trained in `workdir`.
    ValueError: `workdir` is not that of a tracker.
  """
  workdir = released.resolve(workdir)
  config = app.read_config(workdir, schema.VIDEO_TRACK)
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


def load(workdir: str | os.PathLike) -> 'Tracker':
  """Loads the tracker of a run's best checkpoint.

  Args:
    workdir: of the run, or the name of a released model, such as
      'occlusion_track'.

  Raises:
    FileNotFoundError: nothing was trained in `workdir`.
    ValueError: `workdir` is not that of a tracker.
  """
  return Tracker.from_trained(restore(workdir))


@dataclasses.dataclass(frozen=True)
class State:
  """State of a `Tracker` after a frame."""

  network: Any  # Its `frame`, where it has one, is the window.
  window: windows.Window  # The part of the reduced frame around the box.
  size: tuple[int, int]  # Height and width of the frames before reduction.

  @property
  def certainty(self) -> float | None:
    """Probability that the box is on the target; None if it is not known."""
    logit = getattr(self.network, 'certainty', None)
    if logit is None:
      return None
    return float(1 / (1 + np.exp(-np.asarray(logit, np.float64)[0])))


class _Regression:
  """The programs of a `model.Tracker`: one for each size of a window."""

  def __init__(self, network: model.Tracker, put: Callable[[Any], Any]):
    def step(variables, state, frame, corner, size):
      state, box = network.apply(
        variables, state, frame, corner=corner, size=size, method='step'
      )
      # The host has the window already: do not copy it back.
      return state.replace(frame=None), box[0]

    self._step = jax.jit(step)
    self._network = network
    self._put = put

  def prepare(self, variables: Any):
    shapes = jax.eval_shape(
      lambda variables: self._network.apply(
        variables,
        jnp.zeros((1, self._network.side, self._network.side, 3), jnp.uint8),
        jnp.ones((1, 4)),
        method='start',
      ),
      variables,
    )
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    self._initial = self._put(zeros.replace(frame=None))

  def compile(self, variables, pixels, size):
    state = self._initial.replace(frame=pixels)
    self._step(variables, state, pixels, np.zeros(2, np.float32), size)

  def start(self, variables, pixels, box, corner, size):
    # Equal to `model.Tracker.start`, by the program of the steps: a step from
    # the initial carry, with the first frame as the frame before too.
    state = self._initial.replace(frame=pixels, box=box)
    first, _ = self._step(variables, state, pixels, corner, size)
    return state.replace(carry=first.carry, first=first.carry)

  def step(self, variables, state, pixels, corner, size):
    return self._step(variables, state, pixels, corner, size)

  def keep(self, state, pixels):
    """The state with the window that the next step reads too."""
    return state.replace(frame=pixels)


class _Correlation:
  """The programs of a `correlation.Tracker`.

  Only the crop depends on the size of the window; the rest is compiled once.
  """

  def __init__(self, network: correlation.Tracker, put: Callable[[Any], Any]):
    del put

    def look(frame, box, corner):
      return network.apply({}, None, frame, box, corner, method='look')

    def advance(variables, state, crop, size):
      state, box = network.apply(variables, state, crop, size, method='advance')
      return state, box[0]

    self._look = jax.jit(look)
    self._begin = jax.jit(functools.partial(network.apply, method='begin'))
    self._advance = jax.jit(advance)
    self._side = network.side

  def prepare(self, variables: Any):
    crop = np.zeros((1, self._side, self._side, 3), np.float32)
    state = self._begin(variables, crop, np.full((1, 4), 9, np.float32))
    self._advance(variables, state, crop, np.full(2, 9, np.int32))

  def compile(self, variables, pixels, size):
    del variables, size
    box = jnp.full((1, 4), 9, jnp.float32)
    self._look(pixels, box, np.zeros(2, np.float32))

  def start(self, variables, pixels, box, corner, size):
    del size
    return self._begin(variables, self._look(pixels, box, corner), box)

  def step(self, variables, state, pixels, corner, size):
    crop = self._look(pixels, state.box, corner)
    return self._advance(variables, state, crop, size)

  def keep(self, state, pixels):
    del pixels
    return state


_PROGRAMS = {
  model.Tracker: _Regression,
  correlation.Tracker: _Correlation,
}


class Tracker:
  """Follows one target, frame by frame, on one device.

  Only the window of a frame that the crops cover goes to the device: pixels
  outside of a crop have no weight in it. Windows have few sizes. The first
  `start` with frames of a new size compiles all of them, so that no `step`
  waits for a compilation.
  """

  def __init__(self, network: Network, variables: Any, *, longest_side: int):
    """Puts the variables on the first device.

    Args:
      network: the network.
      variables: its variables; those of a replicated state can be passed too.
      longest_side: maximum side of a frame, in pixels. Larger frames are
        reduced to it; boxes stay in pixels of the original frames.

    Raises:
      ValueError: `longest_side` is less than 1.
    """
    if longest_side < 1:
      raise ValueError(f'longest_side={longest_side} must be at least 1')
    self._longest_side = longest_side
    self._searched = network.searched
    self._variables = self._put(variables)
    self._programs = _PROGRAMS[type(network)](network, self._put)
    self._programs.prepare(self._variables)
    self._compiled = set()

  @classmethod
  def from_trained(cls, trained: Trained) -> 'Tracker':
    """The tracker of a restored run."""
    return cls(
      trained.network,
      trained.variables,
      longest_side=trained.config.longest_side,
    )

  def start(self, frame: np.ndarray, box: np.ndarray) -> State:
    """The state after the first frame.

    Args:
      frame: uint8[H, W, 3].
      box: f32[4], the target's x, y, width and height in pixels.

    Raises:
      ValueError: `frame` is not uint8[H, W, 3], or `box` is not a box in it.
    """
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
      raise ValueError(
        f'a frame is {frame.dtype}{list(frame.shape)}: pass uint8[H, W, 3]'
      )
    size = frame.shape[:2]
    box = boxes_lib.check_box(box, *size) * self._scale(size)
    self._compile(size)
    window = self._around(box, size)
    pixels = self._cut(frame, window)
    state = self._programs.start(
      self._variables,
      pixels,
      self._put(box[None]),
      *self._position(window, size),
    )
    return State(self._programs.keep(state, pixels), window, size)

  def step(self, state: State, frame: np.ndarray) -> tuple[State, np.ndarray]:
    """Finds the box in the next frame.

    Args:
      state: after the frame before; it is not changed.
      frame: uint8[H, W, 3].

    Returns:
      The state after this frame, and the box f32[4] in its pixels.

    Raises:
      ValueError: the frame has not the size of the first one.
    """
    if frame.shape[:2] != state.size:
      raise ValueError(
        f'a frame of {frame.shape[:2]} pixels follows one of {state.size}: '
        'resize the frames to one size, or start again'
      )
    pixels = self._cut(frame, state.window)
    network, box = self._programs.step(
      self._variables,
      state.network,
      pixels,
      *self._position(state.window, state.size),
    )
    box = np.asarray(box)
    # The next step searches around this box, in this frame and the next one.
    window = self._around(box, state.size)
    if window != state.window:
      pixels = self._cut(frame, window)
    state = State(self._programs.keep(network, pixels), window, state.size)
    return state, box / self._scale(state.size)

  def _put(self, tree: Any) -> Any:
    """Moves arrays to the device of the steps: others compile again."""
    return jax.device_put(tree, jax.local_devices()[0])

  def _reduced(self, size: tuple[int, int]) -> tuple[int, int]:
    return windows.reduced_size(*size, self._longest_side)

  def _scale(self, size: tuple[int, int]) -> np.ndarray:
    """f32[4], the factors from original pixels to reduced ones."""
    (height, width), (rows, columns) = size, self._reduced(size)
    return np.array([columns / width, rows / height] * 2, np.float32)

  def _around(self, box: np.ndarray, size: tuple[int, int]) -> windows.Window:
    return windows.around(*self._searched(box), *self._reduced(size))

  def _cut(self, frame: np.ndarray, window: windows.Window) -> np.ndarray:
    """The pixels of a window: uint8[H, W, 3] -> uint8[1, h, w, 3]."""
    return windows.cut(frame, self._reduced(frame.shape[:2]), window)[None]

  def _position(
    self, window: windows.Window, size: tuple[int, int]
  ) -> tuple[np.ndarray, np.ndarray]:
    """The corner of a window, and the size of the reduced frame."""
    corner = np.array([window.left, window.top], np.float32)
    return corner, np.array(self._reduced(size), np.int32)

  def _compile(self, size: tuple[int, int]):
    """Compiles the steps of all windows in frames of this size."""
    for window in windows.sizes(*self._reduced(size)):
      shape = window.height, window.width
      if shape not in self._compiled:
        self._compiled.add(shape)
        pixels = np.zeros((1, *shape, 3), np.uint8)
        reduced = np.array(self._reduced(size), np.int32)
        self._programs.compile(self._variables, pixels, reduced)
