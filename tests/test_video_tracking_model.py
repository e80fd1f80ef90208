"""The tracker: what it carries from frame to frame.

Frames here are noise and parameters random: what is equal is equal for all.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from recurrent import cells
from recurrent import unroll
from video.tracking import baselines
from video.tracking import boxes as boxes_lib
from video.tracking import inference
from video.tracking import model as model_lib
from vision import images

BATCH, TIME, HEIGHT, WIDTH = 2, 8, 20, 24
BOXES = np.array([[5, 6, 7, 5], [3, 2.5, 9, 8]], np.float32)
SMALL = dict(side=8, filters=(3, 4), dense=6, features=5)
MODELS = {
  'lstm': SMALL,
  'late, two layers with peepholes, skips': dict(
    SMALL, fusion='late', cell='peephole', layers=2, skips=(2, 0)
  ),
  'reset': dict(SMALL, reset_every=3),
  'zeroed': dict(SMALL, zero_state=True),
  'frame-wise': dict(SMALL, cell='none', layers=2),
}


def assert_close(actual, expected, tolerance=1e-4):
  np.testing.assert_allclose(
    actual, expected, rtol=tolerance, atol=10 * tolerance
  )


def noise(*shape, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, shape).astype(np.uint8)


FRAMES = noise(BATCH, TIME, HEIGHT, WIDTH, 3)


@functools.partial(jax.jit, static_argnums=0, static_argnames='method')
def apply(model, variables, *args, **kwargs):
  """Compiled once for equal models."""
  return model.apply(variables, *args, **kwargs)


def random_variables(model, seed=0):
  """Of a size with which boxes move, and states differ."""
  search = np.repeat(BOXES[:, None], 2, axis=1)
  shapes = jax.eval_shape(model.init, jax.random.key(0), FRAMES[:, :2], search)
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes
  )


def stepped(model, variables, frames, box):
  """By `start` and `step`, a frame at a time: the last state, f32[B, T, 4]."""
  state = apply(model, variables, frames[:, 0], box, method='start')
  boxes = [box]
  for t in range(1, frames.shape[1]):
    state, found = apply(model, variables, state, frames[:, t], method='step')
    boxes.append(found)
  return state, np.stack(boxes, axis=1)


# The state.


@pytest.mark.parametrize('name', MODELS)
def test_stepped_equals_unrolled(name):
  """And each equals the training's view, of all of time at once."""
  model = model_lib.Tracker(**MODELS[name])
  variables = random_variables(model)
  _, boxes = stepped(model, variables, FRAMES, BOXES)
  assert np.abs(boxes[:, -1] - BOXES).max() > 1
  followed = apply(model, variables, FRAMES, BOXES, method='follow')
  assert_close(followed, boxes)
  search = boxes_lib.search_boxes(boxes)
  codes = apply(model, variables, FRAMES, search)
  seen_at_once = boxes_lib.decode(codes, search[:, 1:])
  seen_at_once = boxes_lib.keep_inside(seen_at_once, HEIGHT, WIDTH)
  assert_close(seen_at_once, boxes[:, 1:])


def test_sequences_of_a_batch_do_not_meet():
  model = model_lib.Tracker(**MODELS['reset'])
  variables = random_variables(model)
  both = apply(model, variables, FRAMES, BOXES, method='follow')
  for i in range(BATCH):
    part = np.s_[i : i + 1]
    alone = apply(model, variables, FRAMES[part], BOXES[part], method='follow')
    assert_close(alone, both[part])


@pytest.mark.parametrize(
  ('name', 'count', 'matters'),
  [
    ('lstm', 3, True),
    ('reset', 2, True),
    ('reset', 3, False),
    ('zeroed', 2, False),
  ],
)
def test_what_of_the_state_is_forgotten(name, count, matters):
  """After `count` frames the carry decides on the next box, or does not."""
  model = model_lib.Tracker(**MODELS[name])
  variables = random_variables(model)
  state, _ = stepped(model, variables, FRAMES[:, : count + 1], BOXES)
  other = state.replace(carry=jax.tree.map(lambda x: x + 1, state.carry))
  _, box = apply(model, variables, state, FRAMES[:, -1], method='step')
  _, changed = apply(model, variables, other, FRAMES[:, -1], method='step')
  assert bool(np.any(box != changed)) == matters


def test_a_reset_goes_back_to_the_first_frame():
  """Not to nothing: what the target looked like is still known."""
  model = model_lib.Tracker(**MODELS['reset'])
  variables = random_variables(model)
  state, _ = stepped(model, variables, FRAMES[:, :4], BOXES)
  started = apply(model, variables, FRAMES[:, 0], BOXES, method='start')
  fresh = started.replace(frame=state.frame, box=state.box)
  _, box = apply(model, variables, state, FRAMES[:, 4], method='step')
  _, expected = apply(model, variables, fresh, FRAMES[:, 4], method='step')
  np.testing.assert_array_equal(box, expected)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (dict(cell='gru'), "cell='gru' is none of lstm, peephole, none"),
    (dict(fusion='no'), "fusion='no' is none of early, late"),
    (dict(skips=(4,)), 'must be empty or have one number for each of'),
    (dict(layers=0), 'layers=0 must be at least 1'),
  ],
)
def test_wrong_fields_are_named(fields, message):
  with pytest.raises(ValueError, match=message):
    random_variables(model_lib.Tracker(**{**SMALL, **fields}))


# The LSTM with peepholes.


def test_peepholes_by_hand():
  """The equations of Gers and Schmidhuber (2000), in NumPy."""
  cell = cells.PeepholeLSTM(4, forget_bias=0.5)
  rng = np.random.default_rng(0)
  inputs = rng.normal(size=(2, 5, 3)).astype(np.float32)
  shapes = jax.eval_shape(
    cell.init, jax.random.key(0), cell.start((2,)), inputs[:, 0]
  )
  variables = jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(np.float32), shapes
  )
  params = variables['params']

  def sigmoid(x):
    return 1 / (1 + np.exp(-x))

  memory = hidden = np.zeros((2, 4))
  expected = []
  for t in range(5):
    gates = inputs[:, t] @ params['input']['kernel'] + params['input']['bias']
    gates = gates + hidden @ params['recurrent']['kernel']
    i, f, g, o = np.split(gates, 4, axis=-1)
    of_i, of_f, of_o = params['peepholes']
    old = memory
    memory = sigmoid(f + of_f * old + 0.5) * old
    memory += sigmoid(i + of_i * old) * np.tanh(g)
    hidden = sigmoid(o + of_o * memory) * np.tanh(memory)
    expected.append(hidden)
  bound = cell.bind(variables)
  (last_memory, _), outputs = unroll.unroll(bound, jnp.asarray(inputs))
  assert_close(outputs, np.stack(expected, axis=1), 1e-5)
  assert_close(last_memory, memory, 1e-5)


def test_without_peepholes_it_is_the_lstm():
  """With few inputs too, whose scan has a reverse pass of its own."""
  cell, plain = cells.PeepholeLSTM(16), cells.LSTM(16)
  inputs = np.random.default_rng(0).normal(size=(2, 5, 2)).astype(np.float32)
  variables = cell.init(jax.random.key(0), cell.start((2,)), inputs[:, 0])
  assert np.all(variables['params']['peepholes'] == 0)
  rest = {k: v for k, v in variables['params'].items() if k != 'peepholes'}

  def total(cell):
    def of(params):
      bound = cell.bind({'params': params})
      return jnp.sum(jnp.sin(unroll.unroll(bound, jnp.asarray(inputs))[1]))

    return of

  value, gradient = jax.value_and_grad(total(cell))(variables['params'])
  expected, expected_gradient = jax.value_and_grad(total(plain))(rest)
  assert_close(value, expected, 1e-5)
  assert np.all(gradient.pop('peepholes') != 0)
  jax.tree.map(
    lambda x, y: assert_close(x, y, 1e-5), gradient, expected_gradient
  )


# Live.


def live(model, variables, longest_side=100):
  return inference.Tracker(model, variables, longest_side=longest_side)


def test_live_equals_one_pass():
  model = model_lib.Tracker(**MODELS['reset'])
  variables = random_variables(model)
  expected = apply(model, variables, FRAMES[:1], BOXES[:1], method='follow')[0]
  tracker = live(model, variables)
  assert_close(baselines.follow(tracker, FRAMES[0], BOXES[0]), expected)
  # A second thing does not disturb the first: the state is a value.
  first = tracker.start(FRAMES[0, 0], BOXES[0])
  tracker.start(FRAMES[1, 0], BOXES[1])
  assert_close(tracker.step(first, FRAMES[0, 1])[1], expected[1])


def test_large_frames_are_reduced_and_boxes_are_not():
  model = model_lib.Tracker(**MODELS['lstm'])
  variables = random_variables(model)
  small = FRAMES[0]
  large = small.repeat(2, axis=1).repeat(3, axis=2)
  reduced = np.stack(
    [
      np.asarray(
        Image.fromarray(frame).resize((36, 20), Image.Resampling.BILINEAR)
      )
      for frame in large
    ]
  )
  expected = apply(
    model,
    variables,
    reduced[None],
    (BOXES[:1] * (1.5, 1, 1.5, 1)).astype(np.float32),
    method='follow',
  )[0]
  boxes = baselines.follow(
    live(model, variables, longest_side=36), large, BOXES[0] * (3, 2, 3, 2)
  )
  assert_close(boxes, expected * np.array([2, 2, 2, 2]))


def test_what_cannot_be_followed_is_refused():
  model = model_lib.Tracker(**MODELS['lstm'])
  tracker = live(model, random_variables(model))
  with pytest.raises(ValueError, match=r'float32\[20, 24, 3\]: pass uint8'):
    tracker.start(FRAMES[0, 0].astype(np.float32), BOXES[0])
  with pytest.raises(ValueError, match='its centre lies outside'):
    tracker.start(FRAMES[0, 0], BOXES[0] + 90)
  state = tracker.start(FRAMES[0, 0], BOXES[0])
  with pytest.raises(ValueError, match='resize the frames to one size'):
    tracker.step(state, FRAMES[0, 1, :10])
  with pytest.raises(ValueError, match='longest_side=0 must be at least 1'):
    live(model, {}, longest_side=0)


def test_frames_are_normalized_as_everywhere():
  """What is outside of the frame is the mean colour, therefore."""
  model = model_lib.Tracker(**MODELS['lstm'])
  variables = random_variables(model)
  mean = np.round(images.MEAN * 255).astype(np.uint8)
  frame = np.full((1, HEIGHT, WIDTH, 3), mean, np.uint8)
  box = np.array([[9, 8, 4, 4]], np.float32)
  inside = apply(model, variables, frame, frame, box, method='see')
  beyond = apply(model, variables, frame, frame, box + 500, method='see')
  assert_close(inside, beyond, 1e-2)
