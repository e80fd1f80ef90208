"""The tracker on correlation filters: filters, state, streaming.

The encoder's weights are random; what is equal is equal for all.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from video import metrics
from video.tracking import baselines
from video.tracking import correlation
from video.tracking import inference

SMALL = dict(depth=10, side=64, level_side=16, context=3.0, features=4)
HEIGHT, WIDTH = 90, 120
BOX = np.array([40, 30, 20, 16], np.float32)


def clip(num_frames=8, seed=0, step=(3, 2)):
  """A bright patch moves over a dim background: frames, true boxes."""
  rng = np.random.default_rng(seed)

  def smooth(height, width, low, high):
    coarse = rng.integers(low, high, (height // 6 + 2, width // 6 + 2, 3))
    image = Image.fromarray(coarse.astype(np.uint8))
    return image.resize((width, height), Image.Resampling.BICUBIC)

  background = smooth(HEIGHT, WIDTH, 90, 150)
  patch = smooth(*map(int, BOX[:1:-1]), 0, 256)
  frames, boxes = [], []
  for t in range(num_frames):
    corner = tuple(int(x) for x in BOX[:2] + t * np.array(step))
    frame = background.copy()
    frame.paste(patch, corner)
    frames.append(np.asarray(frame))
    boxes.append((*corner, *BOX[2:]))
  return np.stack(frames), np.array(boxes, np.float32)


@functools.cache
def prepared(**changes):
  """A tracker with random weights, and its variables."""
  tracker = correlation.Tracker(**{**SMALL, **changes})
  frames, boxes = clip(2)
  variables = jax.jit(tracker.init)(
    jax.random.key(0), frames[None], boxes[None, 0]
  )
  return tracker, variables


@functools.partial(jax.jit, static_argnums=0, static_argnames='method')
def apply(tracker, variables, *args, method):
  """Compiled once for equal trackers."""
  return tracker.apply(variables, *args, method=method)


def filtered(tracker, variables, firsts, second, box=BOX):
  """The answer to one map of the filter of several, from zero."""

  def run(tracker, firsts, second):
    targets = tracker._spectrum(firsts)[None]
    filters = tracker._solve(
      jnp.zeros(jnp.moveaxis(second, 3, 1).shape),
      targets,
      jnp.asarray(box)[None],
      tracker.first_iterations,
    )
    return tracker._answer(filters, tracker._spectrum(second))

  return apply(tracker, variables, firsts, second, method=run)


def circulant(maps):
  """All shifts of windowed maps [N, N, C], one a row."""
  side = maps.shape[0]
  window = np.hanning(side + 2)[1:-1]
  window = window[:, None] * window / np.sqrt(maps.shape[2])
  shown = maps * window[..., None]
  shifts = [(i, j) for i in range(side) for j in range(side)]
  return np.stack([np.roll(shown, shift, (0, 1)).ravel() for shift in shifts])


def least_squares(tracker, maps, inside):
  """Weights inside of a mask [N, N, C], by the equations: f64[N * N * C]."""
  side = inside.shape[0]
  distances = (np.arange(side) + side // 2) % side - side // 2
  deviation = tracker.bump * side / tracker.context
  bump = np.exp(-0.5 * (distances / deviation) ** 2)
  data = np.concatenate([circulant(x)[:, inside.ravel()] for x in maps])
  wanted = np.tile(np.outer(bump, bump).ravel(), len(maps))
  weights = np.zeros(inside.size)
  weights[inside.ravel()] = np.linalg.solve(
    data.T @ data / len(maps) + tracker.ridge * np.eye(data.shape[1]),
    data.T @ wanted / len(maps),
  )
  return weights


def answer_of(weights, maps):
  """The answer at every shift: f64[N, N]."""
  side = maps.shape[0]
  answer = (circulant(maps) @ weights).reshape(side, side)
  # Rows are shifts of the map: the answer at a shift is that of its opposite.
  return np.roll(answer[::-1, ::-1], (1, 1), (0, 1))


def test_the_filter_is_the_constrained_ridge_regression_on_all_shifts():
  """Of two frames and three channels; zero outside of the target's box."""
  rng = np.random.default_rng(0)
  firsts = rng.normal(size=(2, 8, 8, 3)).astype(np.float32)
  second = rng.normal(size=(1, 8, 8, 3)).astype(np.float32)
  tracker, variables = prepared(ridge=0.1, first_iterations=60)
  inside = apply(
    tracker,
    variables,
    jnp.asarray(BOX)[None],
    method=lambda tracker, box: tracker._support(8, box),
  )[0]
  assert 4 <= inside.sum() < 32
  mask = np.broadcast_to(np.asarray(inside, bool)[..., None], (8, 8, 3))
  expected = answer_of(least_squares(tracker, firsts, mask), second[0])
  found = filtered(tracker, variables, firsts, second)[0]
  np.testing.assert_allclose(found, expected, atol=1e-4 * abs(expected).max())


def test_the_filters_are_weighted_sums_of_those_of_all_frames():
  """The recurrence is linear: w_t = (1 - r)^(T - t) r, but for the first."""
  rng = np.random.default_rng(0)
  numerators = rng.normal(size=(5, 1, 4, 3, 2)).astype(np.float32)
  denominators = rng.normal(size=(5, 1, 4, 3)).astype(np.float32)
  parts = [
    correlation.Filter(*pair)
    for pair in zip(numerators, denominators, strict=True)
  ]
  rate = 0.2
  state = parts[0]
  for part in parts[1:]:
    state = state.learn(part, jnp.full(1, rate))
  weights = np.array([(1 - rate) ** (4 - t) * rate for t in range(5)])
  weights[0] /= rate
  np.testing.assert_allclose(weights.sum(), 1)
  for actual, values in (
    (state.numerator, numerators),
    (state.denominator, denominators),
  ):
    np.testing.assert_allclose(
      actual, np.tensordot(weights, values, 1), atol=1e-6
    )


@pytest.mark.parametrize('shift', [(0, 0), (3, -2), (-4, 1)])
def test_the_answer_moves_with_the_target(shift):
  rng = np.random.default_rng(0)
  maps = rng.normal(size=(1, 16, 16, 3)).astype(np.float32)
  maps = (
    maps * np.hanning(16)[:, None, None] ** 4 * np.hanning(16)[:, None] ** 4
  )
  tracker, variables = prepared()
  moved = np.roll(maps, shift[::-1], (1, 2))
  answer = filtered(tracker, variables, maps, moved)
  found, height = correlation._peak(answer)
  np.testing.assert_allclose(found[0], shift, atol=0.1)
  assert height[0] == answer.max()


def test_what_is_shifted_is_in_the_centre():
  maps = np.arange(25, dtype=np.float32).reshape(5, 5, 1)
  moved = correlation._shift(maps, np.array([1, -1]))
  assert moved[2, 2, 0] == maps[1, 3, 0]
  # The edge repeats.
  np.testing.assert_array_equal(moved[:, 4, 0], moved[:, 3, 0])


def test_it_follows_what_moves():
  """Even with random weights."""
  tracker, variables = prepared()
  pairs = zip(clip(8), clip(8, 1, (-2, 1)), strict=True)
  frames, truth = (np.stack(x) for x in pairs)
  boxes, _ = apply(
    tracker, variables, frames, truth[:, 0], method='follow_with_certainty'
  )
  overlaps = metrics.overlap(boxes, truth)
  assert overlaps.min() > 0.8, overlaps


def test_streams_equal_clips():
  """Window by window, as frame by frame, as all frames in one program.

  Targets that are followed together do not depend on one another.
  """
  tracker, variables = prepared()
  frames, truth = (
    np.stack(x) for x in zip(clip(8), clip(8, 1, (-2, 1)), strict=True)
  )
  boxes, logits = apply(
    tracker, variables, frames, truth[:, 0], method='follow_with_certainty'
  )
  state = apply(tracker, variables, frames[:, 0], truth[:, 0], method='start')
  for t in range(1, 8):
    state, box = apply(tracker, variables, state, frames[:, t], method='step')
    np.testing.assert_allclose(box, boxes[:, t], rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(state.certainty, logits[:, t], atol=1e-2)
  live = inference.Tracker(tracker, variables, longest_side=WIDTH)
  for i in range(2):
    stream = live.start(frames[i, 0], truth[i, 0])
    for t in range(1, 8):
      stream, box = live.step(stream, frames[i, t])
      np.testing.assert_allclose(box, boxes[i, t], rtol=1e-4, atol=1e-2)
      expected = 1 / (1 + np.exp(-logits[i, t]))
      assert stream.certainty == pytest.approx(expected, abs=1e-3)


def test_doubt_slows_the_filters_down():
  """Certain, they learn at their rate; in doubt less and less."""
  tracker, variables = prepared()
  frames, truth = clip(2)
  state = apply(
    tracker, variables, frames[None, 0], truth[None, 0], method='start'
  )

  def change(bias):
    params = {**variables['params']}
    params['certainty'] = {
      'kernel': jnp.zeros_like(params['certainty']['kernel']),
      'bias': jnp.full(1, bias),
    }
    new, _ = apply(
      tracker,
      {**variables, 'params': params},
      state,
      frames[None, 1],
      method='step',
    )
    old = state.carry.targets
    return float(jnp.abs(new.carry.targets - old).sum())

  certain = change(5.0)
  assert change(0.0) == pytest.approx(certain, rel=1e-3)
  assert change(-2.0) == pytest.approx(
    certain * 2 / (1 + np.exp(2.0)), rel=1e-2
  )


def test_the_live_tracker_follows_frames_of_any_size():
  tracker, variables = prepared()
  frames, truth = clip(6)
  large = frames.repeat(2, axis=1).repeat(2, axis=2)
  live = inference.Tracker(tracker, variables, longest_side=WIDTH)
  boxes = baselines.follow(live, large, truth[0] * 2)
  expected = baselines.follow(live, frames, truth[0])
  np.testing.assert_allclose(boxes, expected * 2, atol=1.0)
