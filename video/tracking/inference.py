"""From a trained workdir to a tracker of live frames.

  live = inference.LiveTracker.of(inference.load(workdir))
  state = live.begin(frame, box)
  for frame in camera:
    state, box = live.step(state, frame)

Axes: H height, W width of a frame; h, w of a window in it.
"""

import dataclasses
import pathlib
from typing import Any

import flax
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from training import app
from training import checkpoints
from video.tracking import boxes as boxes_lib
from video.tracking import model
from video.tracking import windows


@dataclasses.dataclass(frozen=True)
class Trained:
  """What a workdir holds: all that tracking needs."""

  config: ml_collections.ConfigDict
  tracker: model.Tracker
  variables: Any
  step: int
  fingerprint: str  # Of the data that it was trained on.


def create(config: ml_collections.ConfigDict) -> model.Tracker:
  """The network of a config."""
  fields = config.model.to_dict()
  # JSON has no tuples.
  for name in ('filters', 'skips'):
    fields[name] = tuple(fields[name])
  return model.Tracker(**fields)


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


@flax.struct.dataclass
class _Window:
  """A frame of which a part alone is there."""

  pixels: jax.Array  # uint8[1, h, w, 3].
  corner: jax.Array  # f32[2], x and y of its first pixel in the frame.
  size: jax.Array  # i32[2], H and W.

  @property
  def shape(self) -> tuple[Any, ...]:
    """Of the frame."""
    return 1, self.size[0], self.size[1], 3


class _OfWindows(model.Tracker):
  """The network, of windows in place of frames."""

  def see(
    self, before: _Window, frame: _Window, search: jax.Array
  ) -> jax.Array:
    """Features of two windows at one place: f32[1, D]."""
    search -= jnp.concatenate([frame.corner, jnp.zeros(2)])
    return super().see(before.pixels, frame.pixels, search)


@dataclasses.dataclass(frozen=True)
class LiveState:
  """What a live tracker carries from frame to frame."""

  state: model.State  # Its frame is a window around its box.
  place: windows.Place  # Of this window.
  size: tuple[int, int]  # Height and width of the frames as they come.


class LiveTracker:
  """Follows one thing, a frame at a time, on one device.

  Of a frame it takes the part alone that the crops cover, since what is outside
  of a crop has no weight in it. The parts are of few sizes, and the first
  `begin` of frames of one size compiles all of these: `step` never waits.
  """

  def __init__(
    self, tracker: model.Tracker, variables: Any, *, longest_side: int
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
    self._context = tracker.context
    self._variables = self._put(variables)
    network = _OfWindows(
      **{
        field.name: getattr(tracker, field.name)
        for field in dataclasses.fields(tracker)
        if field.name not in ('parent', 'name')
      }
    )

    def step(variables, state, window):
      state, box = network.apply(variables, state, window, method='step')
      # The window is on the host, and need not come back.
      return state.replace(frame=None), box[0]

    self._step = jax.jit(step)
    self._compiled = set()
    begun = jax.eval_shape(
      lambda variables: tracker.apply(
        variables,
        jnp.zeros((1, tracker.side, tracker.side, 3), jnp.uint8),
        jnp.ones((1, 4)),
        method='begin',
      ),
      self._variables,
    )
    nothing = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), begun)
    self._nothing = self._put(nothing.replace(frame=None))

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
    size = frame.shape[:2]
    box = boxes_lib.check_box(box, *size) * self._scale(size)
    self._compile(size)
    place = self._around(box, size)
    window = self._look(frame, place)
    # As `Tracker.begin`, by the same program as the steps: a step of a state
    # that knows nothing, with this frame twice.
    state = self._nothing.replace(frame=window, box=self._put(box[None]))
    begun, _ = self._step(self._variables, state, window)
    state = state.replace(carry=begun.carry, first=begun.carry)
    return LiveState(state, place, size)

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
    window = self._look(frame, state.place)
    inner, box = self._step(self._variables, state.state, window)
    box = np.asarray(box)
    # The next frame is searched around this box, and this one beside it.
    place = self._around(box, state.size)
    if place != state.place:
      window = self._look(frame, place)
    state = LiveState(inner.replace(frame=window), place, state.size)
    return state, box / self._scale(state.size)

  def _put(self, tree: Any) -> Any:
    """Where steps leave what they return: elsewhere it is compiled again."""
    return jax.device_put(tree, jax.local_devices()[0])

  def _reduced(self, size: tuple[int, int]) -> tuple[int, int]:
    return windows.reduced_size(*size, self._longest_side)

  def _scale(self, size: tuple[int, int]) -> np.ndarray:
    """f32[4], from pixels of frames to those that are searched."""
    (height, width), (rows, columns) = size, self._reduced(size)
    return np.array([columns / width, rows / height] * 2, np.float32)

  def _around(self, box: np.ndarray, size: tuple[int, int]) -> windows.Place:
    return windows.around(box, self._context, *self._reduced(size))

  def _look(self, frame: np.ndarray, place: windows.Place) -> _Window:
    size = self._reduced(frame.shape[:2])
    return _Window(
      windows.cut(frame, size, place)[None],
      np.array([place.left, place.top], np.float32),
      np.array(size, np.int32),
    )

  def _compile(self, size: tuple[int, int]):
    """What frames of this size may need."""
    for place in windows.sizes(*self._reduced(size)):
      shape = place.height, place.width
      if shape not in self._compiled:
        self._compiled.add(shape)
        window = self._look(np.zeros((*size, 3), np.uint8), place)
        state = self._nothing.replace(frame=window)
        self._step(self._variables, state, window)
