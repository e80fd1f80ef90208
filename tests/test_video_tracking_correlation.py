"""The tracker on correlation filters: filters, state, streaming.

The encoder's weights are random; what is equal is equal for all. A small config
is trained for a few steps.
"""

import csv
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from configs import otb_track
from video import metrics
from video import track
from video.tracking import baselines
from video.tracking import correlation
from video.tracking import examples
from video.tracking import inference
from video.tracking import recorded

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


# Training of the certainty.


def write_sequences(directory, count=4, length=9):
  for i in range(count):
    frames, boxes = clip(length, i, (2 - i, 1))
    folder = directory / f'S{i}' / 'img'
    folder.mkdir(parents=True)
    for t, frame in enumerate(frames, 1):
      Image.fromarray(frame).save(folder / f'{t:04d}.png')
    boxes[3] = 0  # Hidden.
    lines = (','.join(map(str, box + (1, 1, 0, 0))) for box in boxes)
    lines = ['0,0,0,0' if t == 3 else line for t, line in enumerate(lines)]
    (folder.parent / 'groundtruth_rect.txt').write_text('\n'.join(lines))
  return directory


def small(directory, **fields):
  config = otb_track.get_config()
  config.update_from_flattened_dict(
    {
      'data.tracks': str(directory),
      'data.recorded': 0.5,
      'data.sequences': dict(train=8, validation=4, test=2),
      'data.num_frames': 5,
      'data.height': 48,
      'data.width': 64,
      'model': SMALL,
      'batch_size': 2,
      'num_steps': 4,
      'eval_batch_size': 4,
      'log_every': 2,
      'checkpoint_every': 2,
      'eval_every': 2,
      'best_metric': 'success_auc',  # All may be on the target.
      **fields,
    }
  )
  return config


def test_recorded_clips_show_what_the_sequences_do(tmp_path):
  """The target is where the boxes say, in a part of the frames, resized."""
  directory = write_sequences(tmp_path)
  shape = dict(num_frames=4, height=60, width=80)
  clips = recorded.RecordedClips(directory, 'train', **shape)
  seen = set()
  for index in range(12):
    record = clips.read(index)
    again = recorded.RecordedClips(directory, 'train', **shape).read(index)
    np.testing.assert_array_equal(record['frames'], again['frames'])
    assert record['frames'].shape == (4, 60, 80, 3)
    name = record['id'].split('-')[-1]
    seen.add(name)
    assert not record['hidden'][0]
    np.testing.assert_array_equal(record['boxes'][record['hidden']], 0)
    # The patch looks the same wherever it is.
    patches = []
    for box, frame in zip(
      record['boxes'][~record['hidden']],
      record['frames'][~record['hidden']],
      strict=True,
    ):
      x, y, width, height = box
      assert -1 <= x and x + width <= 81 and -1 <= y and y + height <= 61
      image = Image.fromarray(frame).resize(
        (8, 8), Image.Resampling.BILINEAR, box=(x, y, x + width, y + height)
      )
      patches.append(np.asarray(image, float))
    for patch in patches[1:]:
      assert np.abs(patch - patches[0]).mean() < 12
  # One of four is held out.
  assert seen == {'S0', 'S1', 'S2'}
  held_out = recorded.RecordedClips(directory, 'validation', **shape)
  assert {held_out.read(i)['id'].split('-')[-1] for i in range(4)} == {'S3'}


def test_some_generated_sequences_are_replaced(tmp_path):
  config = small(write_sequences(tmp_path))
  ids = [record['id'] for record in examples.open_split(config, 'train')]
  assert len(ids) == 8
  assert [i for i, name in enumerate(ids) if name.count('-') > 1] == [
    1,
    3,
    5,
    7,
  ]
  ids = [record['id'] for record in examples.open_split(config, 'test')]
  assert ids == ['test-000000', 'test-000001']


def test_a_tracker_is_trained_scored_and_used(tmp_path, capsys):
  """Only its certainty changes. A clip has its certainty beside its boxes."""
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()
  directory = write_sequences(tmp_path / 'tracks')
  config = small(directory, sequences=str(directory / 'S1'))
  workdir = tmp_path / 'run'
  track.train_and_evaluate(config, workdir)
  entries = json.loads((workdir / 'results.json').read_text())
  assert 'first_frame_kept' in entries['test']['others']
  entry = entries['sequences']
  assert set(entry['certainty']) == {
    *('certainty/auroc', 'certainty/auroc_hidden'),
    *('certainty/calibration_error', 'certainty/brier'),
  }
  saved = (workdir / 'results/sequences/S1.json').read_text()
  assert len(json.loads(saved)['certainty']) == 9
  assert entry['frames_per_cpu_second'] > 0
  trained = inference.restore(workdir)
  example = examples.evaluation(examples.open_split(config, 'train')[0])
  start = track.initial_variables(trained.network, example, config)
  changed = jax.tree.map(
    lambda x, y: not np.array_equal(x, y), start, trained.variables
  )
  assert not any(jax.tree.leaves(changed['params'].pop('encoder')))
  assert not any(jax.tree.leaves(changed['batch_stats']))
  assert all(jax.tree.leaves(changed['params']['certainty']))
  frames, boxes = clip(5, 1, (1, 1))
  np.save(tmp_path / 'clip.npy', frames)
  box = ','.join(str(x) for x in boxes[0])
  with flagsaver.flagsaver(
    (track._BOX, box), (track._OUTPUT, str(tmp_path / 'out.png'))
  ):
    assert track.use(workdir, [str(tmp_path / 'clip.npy')]) == 0
  with (tmp_path / 'out.csv').open() as file:
    rows = list(csv.DictReader(file))
  live = inference.load(workdir)
  state = live.start(frames[0], boxes[0])
  for t, row in enumerate(rows):
    if t:
      state, _ = live.step(state, frames[t])
    assert float(row['certainty']) == pytest.approx(state.certainty, abs=1e-3)
