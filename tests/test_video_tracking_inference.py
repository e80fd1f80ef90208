"""The live tracker: windows of frames that are larger than the crops.

Frames here are noise and parameters random: what is equal is equal for all.
"""

import functools

import jax
import numpy as np
import pytest
from PIL import Image

from video.tracking import baselines
from video.tracking import boxes as boxes_lib
from video.tracking import inference
from video.tracking import model
from video.tracking import windows

HEIGHT, WIDTH = 180, 240
TRACKER = model.Tracker(side=8, filters=(3, 4), dense=6, features=5)
FRAMES = (
  np.random.default_rng(0)
  .integers(0, 256, (10, HEIGHT, WIDTH, 3))
  .astype(np.uint8)
)
BOX = np.array([150, 100, 16, 20], np.float32)


@pytest.fixture(scope='module')
def variables():
  """With which the box moves, and becomes larger and smaller."""
  search = np.ones((1, 2, 4), np.float32)
  shapes = jax.eval_shape(
    TRACKER.init, jax.random.key(0), FRAMES[None, :2], search
  )
  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda x: rng.normal(0, 0.4, x.shape).astype(np.float32), shapes
  )


def live(variables, longest_side):
  return inference.Tracker(TRACKER, variables, longest_side=longest_side)


def sizes(found):
  return {(window.height, window.width) for window in found}


def reduced(frame, size):
  height, width = size
  image = Image.fromarray(frame)
  return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


# Windows.


def test_a_window_holds_all_that_its_crop_covers():
  """Whatever is outside of it: a crop of the frame stays as it is."""
  rng = np.random.default_rng(1)
  boxes = np.concatenate(
    [rng.uniform(-20, 220, (60, 2)), np.exp(rng.uniform(0, 5, (60, 2)))], axis=1
  )
  boxes = boxes_lib.keep_inside(boxes.astype(np.float32), HEIGHT, WIDTH)
  frames, outside = [], []
  found = [windows.around(np.asarray(box), 2.0, HEIGHT, WIDTH) for box in boxes]
  assert len(sizes(found)) == 4
  for window in found:
    rows = slice(window.top, window.top + window.height)
    columns = slice(window.left, window.left + window.width)
    part = FRAMES[0, rows, columns]
    assert part.shape == (window.height, window.width, 3)
    other = np.full((HEIGHT, WIDTH, 3), 1e3, np.float32)
    other[rows, columns] = part
    frames.append(FRAMES[0].astype(np.float32))
    outside.append(other)
  np.testing.assert_array_equal(
    *(
      boxes_lib.crop(np.stack(part), boxes, 8, 2.0)
      for part in (frames, outside)
    )
  )


def test_the_window_stays_where_a_thing_moves_little():
  found = {
    windows.around(BOX + shift, 2.0, HEIGHT, WIDTH)
    for shift in ((0, 0, 0, 0), (1, 1, 0, 0), (2, 1, 1, 2))
  }
  assert len(found) == 1


@pytest.mark.parametrize(
  'size',
  [(180, 240), (90, 120), (60, 80), (45, 60), (120, 160), (151, 201), (7, 9)],
)
def test_a_part_of_a_reduced_frame(size):
  """Bit for bit, though little more than the part is read."""
  rng = np.random.default_rng(2)
  # Pillow treats what is tall otherwise.
  tall = np.ascontiguousarray(FRAMES[0, :, :80])
  for frame, to in ((FRAMES[0], size), (tall, (size[0], size[1] // 3))):
    whole = reduced(frame, to)
    for _ in range(40):
      (top, bottom), (left, right) = (
        sorted(rng.choice(length + 1, 2, replace=False)) for length in to
      )
      window = windows.Window(top, left, bottom - top, right - left)
      part = windows.cut(frame, to, window)
      np.testing.assert_array_equal(part, whole[top:bottom, left:right])


# Live.


@pytest.mark.parametrize('times', [1, 2])
def test_windows_and_whole_frames_show_the_same(variables, times):
  """At each step, from one state; as they are, and where they are reduced."""
  frames = FRAMES.repeat(times, axis=1).repeat(times, axis=2)
  searched = [reduced(frame, (HEIGHT, WIDTH))[None] for frame in frames]

  def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-3)

  @functools.partial(jax.jit, static_argnames='method')
  def whole(*args, method):
    return TRACKER.apply(variables, *args, method=method)

  tracker = live(variables, WIDTH)
  state = tracker.start(frames[0], BOX * times)
  expected = whole(searched[0], BOX[None], method='start')
  np.testing.assert_array_equal(state.network.box, expected.box)
  for name in ('carry', 'first'):
    jax.tree.map(
      assert_close, getattr(state.network, name), getattr(expected, name)
    )
  found = [state.window]
  for before, frame, now in zip(
    searched[:-1], frames[1:], searched[1:], strict=True
  ):
    _, box = whole(state.network.replace(frame=before), now, method='step')
    state, actual = tracker.step(state, frame)
    assert_close(actual / times, box[0])
    found.append(state.window)
  assert len(sizes(found)) > 1 and len(set(found)) > 2


def test_the_memory_of_a_frame_may_be_used_again(variables):
  """As that of a camera: the next frame overwrites it."""
  tracker = live(variables, WIDTH)
  expected = baselines.follow(tracker, FRAMES, BOX)
  memory = FRAMES[0].copy()

  def frames():
    for frame in FRAMES:
      memory[:] = frame
      yield memory

  boxes = baselines.follow(tracker, frames(), BOX)
  np.testing.assert_array_equal(boxes, expected)


def test_no_step_waits_for_a_compiler(variables):
  """The windows of a target that grows are compiled at the start."""
  tracker = live(variables, WIDTH)
  tracker.start(FRAMES[0], BOX)
  compilations = []

  def listen(event, duration, **kwargs):
    del kwargs
    if event == '/jax/core/compile/backend_compile_duration':
      compilations.append(duration)

  jax.monitoring.register_event_duration_secs_listener(listen)
  seen = set()
  for side in (4.0, 30.0, 60.0, 80.0, 120.0):
    box = np.array([60, 50, side, side], np.float32)
    state = tracker.start(FRAMES[0], box)
    tracker.step(state, FRAMES[1])
    seen.add((state.window.height, state.window.width))
  assert len(seen) == 4
  assert not compilations
