"""The tracker: boxes, crops, what it carries from frame to frame; the others.

Frames here are noise and parameters random: what is equal is equal for all.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from recurrent import cells
from recurrent import unroll
from video import photo_track
from video import tracking
from video import tracking_baselines
from video import tracking_inference
from vision import images

BATCH, TIME, HEIGHT, WIDTH = 2, 8, 20, 24
BOXES = np.array([[5, 6, 7, 5], [3, 2.5, 9, 8]], np.float32)
SMALL = dict(side=8, filters=(3, 4), dense=6, features=5)
MODELS = {
  'lstm': SMALL,
  'two layers with peepholes and skips': dict(
    SMALL, cell='peephole', layers=2, skips=(2, 0)
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


def random_variables(model, seed=0):
  """Of a size with which boxes move, and states differ."""
  search = np.repeat(BOXES[:, None], 2, axis=1)
  shapes = jax.eval_shape(model.init, jax.random.key(0), FRAMES[:, :2], search)
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes
  )


def stepped(model, variables, frames, box):
  """By `begin` and `step`, a frame at a time: the last state, f32[B, T, 4]."""
  step = jax.jit(
    lambda state, frame: model.apply(variables, state, frame, method='step')
  )
  state = model.apply(variables, frames[:, 0], box, method='begin')
  boxes = [box]
  for t in range(1, frames.shape[1]):
    state, found = step(state, frames[:, t])
    boxes.append(found)
  return state, np.stack(boxes, axis=1)


# Boxes.


def test_decode_is_the_inverse_of_encode():
  rng = np.random.default_rng(0)
  boxes = rng.uniform(5, 15, (2, 30, 4)).astype(np.float32)
  code = tracking.encode(*boxes)
  assert np.abs(code).max() < tracking.FARTHEST
  assert_close(tracking.decode(code, boxes[1]), boxes[0], 1e-5)
  # By hand: the centre moves by half a width, the height doubles.
  moved = tracking.encode(np.array([6.0, 8, 4, 20]), np.array([4.0, 13, 4, 10]))
  assert_close(moved, [0.5, 0, 0, np.log(2)], 1e-6)


def test_no_box_goes_farther_than_what_is_learnt():
  search = np.array([10.0, 10, 4, 6], np.float32)
  wild = tracking.decode(np.array([9.0, -9, 9, -9]), search)
  assert_close(tracking.encode(wild, search), [2, -2, 2, -2], 1e-5)


@pytest.mark.parametrize(
  ('box', 'expected'),
  [
    ((3, 4, 5, 6), (3, 4, 5, 6)),
    ((-2, 4, 5, 6), (-2, 4, 5, 6)),  # The centre is inside.
    ((-5, 30, 4, 2), (-2, 19, 4, 2)),
    ((0, 0, 100, 0.1), (12, -0.95, 24, 2)),
  ],
)
def test_a_box_that_leaves_the_frame_is_brought_back(box, expected):
  kept = tracking.keep_inside(np.array(box, np.float32), HEIGHT, WIDTH)
  assert_close(kept, expected, 1e-6)


def test_errors_that_stay_for_a_while():
  boxes = np.tile(np.array([10, 10, 8, 4], np.float32), (4000, 6, 1))
  moved = tracking.jitter(
    jax.random.key(0), boxes, correlation=0.7, centre=0.1, size=0.05
  )
  np.testing.assert_array_equal(moved[:, 0], boxes[:, 0])
  code = np.asarray(tracking.encode(moved, boxes))
  assert_close(
    code[:, 1:].std(0), np.tile([0.1, 0.1, 0.05, 0.05], (5, 1)), 5e-3
  )
  assert np.corrcoef(code[:, 4, 0], code[:, 5, 0])[0, 1] == pytest.approx(
    0.7, abs=0.05
  )
  assert np.corrcoef(code[:, 4, 0], code[:, 4, 1])[0, 1] == pytest.approx(
    0, abs=0.05
  )


def test_each_frame_is_searched_where_the_one_before_was_found():
  boxes = np.arange(24, dtype=np.float32).reshape(1, 6, 4)
  search = tracking.search_boxes(boxes)
  np.testing.assert_array_equal(search[:, 0], boxes[:, 0])
  np.testing.assert_array_equal(search[:, 1:], boxes[:, :-1])


@pytest.mark.parametrize(
  ('box', 'message'),
  [
    ((1, 2, 3), 'pass x, y, width and height in pixels'),
    ((1, 2, 0, 3), 'the last two above zero'),
    ((1, 2, 3, np.nan), 'pass x, y, width and height in pixels'),
    ((30, 2, 3, 3), 'which is 24 wide and 20 high'),
  ],
)
def test_wrong_boxes_are_named(box, message):
  with pytest.raises(ValueError, match=message):
    tracking.check_box(box, HEIGHT, WIDTH)


# Crops.


def crop(frame, box, size, context=1.0):
  frames, boxes = np.asarray(frame, np.float32)[None], np.float32(box)[None]
  return np.asarray(tracking.crop(frames, boxes, size, context))[0]


def test_a_crop_of_whole_pixels_is_that_part_of_the_frame():
  frame = FRAMES[0, 0]
  assert_close(crop(frame, (3, 2, 8, 8), 8), frame[2:10, 3:11], 1e-5)
  # Context grows to all sides.
  assert_close(crop(frame, (5, 4, 4, 4), 8, 2.0), frame[2:10, 3:11], 1e-5)


def test_a_smaller_crop_is_the_mean_of_what_it_covers():
  frame = FRAMES[0, 0].astype(np.float32)
  expected = frame[2:14, 4:16].reshape(4, 3, 4, 3, 3).mean((1, 3))
  assert_close(crop(frame, (4, 2, 12, 12), 4), expected, 1e-5)
  # And of any ratio: a constant stays one.
  assert_close(crop(np.ones((20, 24, 1)), (2, 1.3, 17, 13), 7), 1.0, 1e-6)


def test_a_larger_crop_is_interpolated_bilinearly():
  frame = FRAMES[0, 0].astype(np.float32)
  x, y, width, height = box = (4.3, 3.1, 9.0, 7.0)
  rows = y + (np.arange(16) + 0.5) / 16 * height - 0.5
  columns = x + (np.arange(16) + 0.5) / 16 * width - 0.5
  places = np.meshgrid(rows, columns, indexing='ij')
  expected = np.stack(
    [
      scipy.ndimage.map_coordinates(frame[..., c], places, order=1)
      for c in range(3)
    ],
    axis=-1,
  )
  assert_close(crop(frame, box, 16), expected, 1e-5)


def test_outside_of_the_frame_there_is_nothing():
  found = crop(np.ones((20, 24, 1)), (-4, 14, 8, 8), 8)[..., 0]
  expected = np.zeros((8, 8))
  expected[:6, 4:] = 1
  assert_close(found, expected, 1e-6)
  assert np.all(crop(np.ones((20, 24, 1)), (100, 100, 8, 8), 8) == 0)


# The state.


@pytest.mark.parametrize('name', MODELS)
def test_stepped_equals_unrolled(name):
  """And each equals the training's view, of all of time at once."""
  model = tracking.Tracker(**MODELS[name])
  variables = random_variables(model)
  _, boxes = stepped(model, variables, FRAMES, BOXES)
  assert np.abs(boxes[:, -1] - BOXES).max() > 1
  followed = model.apply(variables, FRAMES, BOXES, method='follow')
  assert_close(followed, boxes)
  search = tracking.search_boxes(boxes)
  codes = model.apply(variables, FRAMES, search)
  seen_at_once = tracking.decode(codes, search[:, 1:])
  seen_at_once = tracking.keep_inside(seen_at_once, HEIGHT, WIDTH)
  assert_close(seen_at_once, boxes[:, 1:])


def test_sequences_of_a_batch_do_not_meet():
  model = tracking.Tracker(**MODELS['reset'])
  variables = random_variables(model)
  both = model.apply(variables, FRAMES, BOXES, method='follow')
  for i in range(BATCH):
    part = np.s_[i : i + 1]
    alone = model.apply(variables, FRAMES[part], BOXES[part], method='follow')
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
  model = tracking.Tracker(**MODELS[name])
  variables = random_variables(model)
  state, _ = stepped(model, variables, FRAMES[:, : count + 1], BOXES)
  other = state.replace(carry=jax.tree.map(lambda x: x + 1, state.carry))
  _, box = model.apply(variables, state, FRAMES[:, -1], method='step')
  _, changed = model.apply(variables, other, FRAMES[:, -1], method='step')
  assert bool(np.any(box != changed)) == matters


def test_a_reset_goes_back_to_the_first_frame():
  """Not to nothing: what the target looked like is still known."""
  model = tracking.Tracker(**MODELS['reset'])
  variables = random_variables(model)
  state, _ = stepped(model, variables, FRAMES[:, :4], BOXES)
  begun = model.apply(variables, FRAMES[:, 0], BOXES, method='begin')
  fresh = begun.replace(frame=state.frame, box=state.box)
  _, box = model.apply(variables, state, FRAMES[:, 4], method='step')
  _, expected = model.apply(variables, fresh, FRAMES[:, 4], method='step')
  np.testing.assert_array_equal(box, expected)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (dict(cell='gru'), "cell='gru' is none of lstm, peephole, none"),
    (dict(skips=(4,)), 'must be empty or have one number for each of'),
    (dict(layers=0), 'layers=0 must be at least 1'),
  ],
)
def test_wrong_fields_are_named(fields, message):
  with pytest.raises(ValueError, match=message):
    random_variables(tracking.Tracker(**{**SMALL, **fields}))


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


# Trackers that learn nothing.


def test_the_still_box_stays():
  boxes = tracking_baselines.follow(
    tracking_baselines.StillBox(), FRAMES[0], BOXES[0]
  )
  np.testing.assert_array_equal(boxes, np.tile(BOXES[0], (TIME, 1)))


def test_cross_correlation_is_pearsons_coefficient():
  picture = noise(13, 11, seed=1).astype(np.float32)
  template = noise(4, 5, seed=2).astype(np.float32)
  found = tracking_baselines.correlate(picture, template)
  expected = [
    [
      np.corrcoef(picture[y : y + 4, x : x + 5].ravel(), template.ravel())[0, 1]
      for x in range(7)
    ]
    for y in range(10)
  ]
  assert_close(found, expected, 1e-5)
  picture[:6] = 7  # Flat: like nothing.
  flat = tracking_baselines.correlate(picture, template)
  assert np.all(flat[:3] == 0)
  assert_close(flat[6:], np.array(expected)[6:], 1e-4)


def test_cross_correlation_finds_what_moves():
  """Brighter, over another ground, and through a black frame."""
  ground, thing = noise(40, 50, 3, seed=3), noise(8, 6, 3, seed=4) // 2
  corners = [(10, 12), (13, 10), (17, 9), (17, 9), (22, 8), (27, 3)]
  frames = np.stack([ground] * len(corners))
  for t, (x, y) in enumerate(corners):
    frames[t, y : y + 8, x : x + 6] = thing + 10 * t
  frames[3] = 0
  box = np.array([10.25, 11.75, 6, 8], np.float32)
  boxes = tracking_baselines.follow(
    tracking_baselines.CrossCorrelation(), frames, box
  )
  expected = np.concatenate(
    [np.array(corners) + (0.25, -0.25), np.tile([6, 8], (6, 1))], axis=1
  )
  assert_close(boxes, expected, 1e-6)


def test_cross_correlation_stays_in_the_frame():
  """Whatever the frames: here each is another noise."""
  boxes = tracking_baselines.follow(
    tracking_baselines.CrossCorrelation(),
    FRAMES[0],
    np.array([-3, 15, 9, 8], np.float32),
  )
  assert np.all(np.isfinite(boxes))
  with pytest.raises(ValueError, match='lies outside of the first frame'):
    tracking_baselines.CrossCorrelation().begin(FRAMES[0, 0], BOXES[0] + 90)


# Live.


def live(model, variables, longest_side=100):
  return tracking_inference.LiveTracker(
    model, variables, longest_side=longest_side
  )


def test_live_equals_one_pass():
  model = tracking.Tracker(**MODELS['reset'])
  variables = random_variables(model)
  expected = model.apply(variables, FRAMES[:1], BOXES[:1], method='follow')[0]
  tracker = live(model, variables)
  assert_close(
    tracking_baselines.follow(tracker, FRAMES[0], BOXES[0]), expected
  )
  # A second thing does not disturb the first: the state is a value.
  first = tracker.begin(FRAMES[0, 0], BOXES[0])
  tracker.begin(FRAMES[1, 0], BOXES[1])
  assert_close(tracker.step(first, FRAMES[0, 1])[1], expected[1])


def test_large_frames_are_reduced_and_boxes_are_not():
  model = tracking.Tracker(**MODELS['lstm'])
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
  expected = model.apply(
    variables,
    reduced[None],
    (BOXES[:1] * (1.5, 1, 1.5, 1)).astype(np.float32),
    method='follow',
  )[0]
  boxes = tracking_baselines.follow(
    live(model, variables, longest_side=36), large, BOXES[0] * (3, 2, 3, 2)
  )
  assert_close(boxes, expected * np.array([2, 2, 2, 2]))


def test_what_cannot_be_followed_is_refused():
  model = tracking.Tracker(**MODELS['lstm'])
  tracker = live(model, random_variables(model))
  with pytest.raises(ValueError, match=r'float32\[20, 24, 3\]: pass uint8'):
    tracker.begin(FRAMES[0, 0].astype(np.float32), BOXES[0])
  with pytest.raises(ValueError, match='its centre lies outside'):
    tracker.begin(FRAMES[0, 0], BOXES[0] + 90)
  state = tracker.begin(FRAMES[0, 0], BOXES[0])
  with pytest.raises(ValueError, match='resize the frames to one size'):
    tracker.step(state, FRAMES[0, 1, :10])
  with pytest.raises(ValueError, match='longest_side=0 must be at least 1'):
    live(model, {}, longest_side=0)


# Sequences to learn from.


def sequences(split='train', **fields):
  shape = dict(count=40, num_frames=8, height=48, width=64)
  return photo_track.PhotoTrack(split, **{**shape, **fields})


def test_a_sequence_depends_on_its_index_and_split_alone():
  record, again = sequences()[3], sequences(count=7)[3]
  assert record['id'] == again['id'] == 'train-000003'
  for name in ('frames', 'boxes', 'hidden'):
    np.testing.assert_array_equal(record[name], again[name])
  others = (sequences()[4], sequences('test')[3])
  for other in others:
    assert np.any(record['frames'] != other['frames'])
  assert len(list(sequences(count=2))) == 2
  assert photo_track.fingerprint(sequences()) == photo_track.fingerprint(
    sequences()
  )
  assert photo_track.fingerprint(sequences()) != photo_track.fingerprint(
    sequences(num_frames=9)
  )


def test_sequences_keep_their_promises():
  found = [sequences()[i] for i in range(40)]
  for record in found:
    assert record['frames'].dtype == np.uint8
    assert record['frames'].shape == (8, 48, 64, 3)
    assert record['boxes'].dtype == np.float32
    centres = record['boxes'][:, :2] + record['boxes'][:, 2:] / 2
    assert np.all((centres > 0) & (centres < (64, 48)))
    assert np.all(record['boxes'][:, 2:] >= 6)
    # In the first frame all of it can be seen.
    assert np.all(record['boxes'][0, :2] >= -1e-3)
    ends = record['boxes'][0, :2] + record['boxes'][0, 2:]
    assert np.all(ends <= np.array((64, 48)) + 1e-3)
    assert not record['hidden'][:3].any()
  assert any(record['hidden'].any() for record in found)


def test_a_thing_fills_its_box_and_nothing_else():
  boxes = np.array([[10.25, 6.5, 12, 20]], np.float32)
  thing = photo_track.Thing(
    picture=Image.new('RGB', (26, 26), 'white'),
    size=np.array([12.0, 20.0]),
    outline='rectangle',
    boxes=boxes,
    angles=np.zeros(1),
  )
  for angle in (0.0, 0.4):
    turned = dataclasses.replace(thing, angles=np.array([angle]))
    frame = np.zeros((40, 50, 3), np.float32)
    photo_track._paint(frame, turned, 0)
    covered = frame[..., 0] / 255
    assert covered.sum() == pytest.approx(12 * 20, rel=0.01)
    rows, columns = np.nonzero(covered)
    assert (rows.min(), rows.max()) == (6, 26)
    assert (columns.min(), columns.max()) == (10, 22)
  assert photo_track._visible(thing, [], 0, 40, 50) == pytest.approx(1)
  # Half of it hidden, by the end of the frame or by another thing.
  assert photo_track._visible(thing, [], 0, 40, 16) == pytest.approx(
    0.479, abs=0.05
  )
  half = boxes * (1, 1, 0.5, 1)
  above = dataclasses.replace(thing, boxes=half.astype(np.float32))
  assert photo_track._visible(thing, [above], 0, 40, 50) == pytest.approx(
    0.5, abs=0.05
  )
  assert photo_track._visible(thing, [thing], 0, 40, 50) < 0.1


def test_splits_have_their_own_photographs(tmp_path):
  """Each picture has one colour, by which it is known in the frames."""
  for i in range(10):
    picture = Image.new('RGB', (70, 60), (25 * i, 255 - 25 * i, 128))
    picture.save(tmp_path / f'{i}.png')
  seen = {}
  for split in photo_track.SPLITS:
    source = sequences(split, photographs=tmp_path, count=6)
    texture = source._texture
    rng = np.random.default_rng(0)
    seen[split] = {tuple(texture(rng, 8, 8)[4, 4].tolist()) for _ in range(40)}
    assert source[0]['frames'].shape == (8, 48, 64, 3)
  assert len(set.union(*seen.values())) == sum(map(len, seen.values()))


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (dict(split='dev'), "split='dev' must be one of train, validation, test"),
    (dict(height=16), '32 pixels each way at least'),
    (dict(num_frames=3), '4 frames'),
    (dict(count=0), 'pass 1 sequence'),
  ],
)
def test_wrong_sequences_are_named(fields, message):
  with pytest.raises(ValueError, match=message):
    sequences(**fields)


def test_frames_are_normalized_as_everywhere():
  """What is outside of the frame is the mean colour, therefore."""
  model = tracking.Tracker(**MODELS['lstm'])
  variables = random_variables(model)
  mean = np.round(images.MEAN * 255).astype(np.uint8)
  frame = np.full((1, HEIGHT, WIDTH, 3), mean, np.uint8)
  box = np.array([[9, 8, 4, 4]], np.float32)
  inside = model.apply(variables, frame, frame, box, method='see')
  beyond = model.apply(variables, frame, frame, box + 500, method='see')
  assert_close(inside, beyond, 1e-2)
