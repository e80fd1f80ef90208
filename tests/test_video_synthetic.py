"""Generated clips are as their modules describe them."""

import itertools
import math
import re

import numpy as np
import pytest
from PIL import Image

from video.classification import augmentation
from video.synthetic import event_captions
from video.synthetic import gesture_stream
from video.synthetic import occlusion_track
from video.synthetic import ordered_motion
from video.synthetic import sprites
from video.synthetic import textures

GENERATORS = (ordered_motion, gesture_stream, event_captions, occlusion_track)
CAPTION = re.compile(
  rf'the ({"|".join(event_captions.COLOURS)}) '
  rf'({"|".join(event_captions.SHAPES)}) moves '
  rf'({"|".join(event_captions.DIRECTIONS)}) then '
  rf'({"|".join(event_captions.DIRECTIONS)})'
)


def same(first, second):
  assert first.keys() == second.keys()
  for key, value in first.items():
    np.testing.assert_array_equal(value, second[key])


# All of them.


@pytest.mark.parametrize('module', GENERATORS)
def test_a_clip_depends_on_its_split_and_index_alone(module):
  record = module.example('test', 7)
  module.example('test', 6)
  same(module.example('test', 7), record)
  assert record['id'] == 'test-00007'
  others = [module.example('test', 9), module.example('train', 7)]
  for other in others:
    assert (other['frames'] != record['frames']).mean() > 0.5


@pytest.mark.parametrize(
  ('module', 'shape'),
  [
    (ordered_motion, (16, 32, 32, 3)),
    (gesture_stream, (48, 24, 24, 1)),
    (event_captions, (16, 32, 32, 3)),
    (occlusion_track, (24, 64, 64, 3)),
  ],
)
def test_frames_are_bytes_of_one_shape(module, shape):
  assert set(module.SIZES) == {'train', 'validation', 'test'}
  for split in module.SIZES:
    frames = module.example(split, 0)['frames']
    assert frames.dtype == np.uint8 and frames.shape == shape
    assert frames.min() < 60 and frames.max() > 120


# Gesture streams.


# Label -> the label after half a turn.
HALF_TURN = augmentation.flipped_labels('half_turn', gesture_stream.CLASSES)


def half_turn(record):
  """A stream turned by half a turn, as training does, with its labels."""
  return {
    **record,
    'frames': augmentation.flip_frames(record['frames'], 'half_turn'),
    'labels': [int(HALF_TURN[label]) for label in record['labels']],
    'framewise': HALF_TURN[record['framewise']],
  }


@pytest.mark.parametrize('label', range(1, len(gesture_stream.CLASSES)))
def test_a_gesture_backwards_and_turned_is_a_gesture(label):
  line = gesture_stream.trace(label, 10)
  other = gesture_stream.trace(gesture_stream.REVERSED[label], 10)
  np.testing.assert_allclose(other, line[::-1])
  assert np.abs(other - line).max() > 0.5
  turned = gesture_stream.trace(HALF_TURN[label], 10)
  if 'clockwise' in gesture_stream.CLASSES[label]:
    # The same circle, started at the other end.
    turned = np.concatenate([turned[5:], turned[1:6]])
  np.testing.assert_allclose(turned, -line, atol=1e-12)


def made(framewise):
  """The labels of the runs that are not 0, and where they are."""
  runs, start = [], 0
  for label, run in itertools.groupby(framewise.tolist()):
    stop = start + len(list(run))
    if label:
      runs.append((label, start, stop))
    start = stop
  return runs


@pytest.mark.parametrize('change', [lambda r: r, half_turn])
def test_streams_hold_their_gestures_in_order(change):
  ways = {'left': (-1, 0), 'right': (1, 0), 'up': (0, -1), 'down': (0, 1)}
  checked = set()
  for index in range(60):
    record = change(gesture_stream.example('train', index))
    runs = made(record['framewise'])
    assert [label for label, _, _ in runs] == record['labels']
    assert record['framewise'].dtype == np.int32
    assert all(isinstance(label, int) for label in record['labels'])
    flat = record['frames'].reshape(48, -1).argmax(axis=1)
    tips = np.stack([flat % 24, flat // 24], axis=-1)
    for label, start, stop in runs:
      name = gesture_stream.CLASSES[label]
      if name in ways:
        assert (tips[stop - 1] - tips[start]) @ ways[name] >= 2
        checked.add(name)
  assert checked == set(ways)


def test_a_frame_of_a_stream_shows_the_fingertip_and_no_trace():
  for index in range(20):
    frames = gesture_stream.example('test', index)['frames'][..., 0]
    assert (frames.max(axis=(1, 2)) > 140).all()
    y, x = np.nonzero(frames.max(axis=0) > 140)
    assert max(np.ptp(x), np.ptp(y)) > 5  # It moves
    for frame in frames:  # and is small.
      y, x = np.nonzero(frame > 140)
      assert max(np.ptp(x), np.ptp(y)) <= 5


# Captions.


def parse(record):
  """The directions in a caption, and the motion of its colour.

  Number of pixels of the colour in each frame f64[T], without those of the
  first frame, and their mean position f64[T, 2].
  """
  colour, shape, *ways = CAPTION.fullmatch(record['captions'][0]).groups()
  frames = record['frames'].astype(float)
  near = np.abs(frames - event_captions.COLOURS[colour]).max(axis=-1) < 60
  near &= ~near[0]
  y, x = np.mgrid[: event_captions.SIDE, : event_captions.SIDE]
  counts = near.sum(axis=(1, 2))
  centres = [
    (near * axis).sum(axis=(1, 2)) / np.maximum(counts, 1) for axis in (x, y)
  ]
  return ways, counts, np.stack(centres, axis=-1)


@pytest.mark.parametrize(
  'change',
  [
    lambda record: record,
    event_captions.flip,
    lambda record: event_captions.flip(record, vertical=True),
  ],
  ids=['as it is', 'mirrored', 'upside down'],
)
def test_captions_say_what_the_pixels_show(change):
  for index in range(40):
    record = change(event_captions.example('train', index))
    (caption,) = record['captions']
    ways, counts, centres = parse(record)
    assert event_captions.motions(caption) == tuple(ways)
    seen = [list(run) for _, run in itertools.groupby(counts > 5)]
    assert [run[0] for run in seen] == [False, True, False, True, False]
    assert {len(seen[1]), len(seen[3])} == {6, 7}
    turn = len(seen[1]) + 1
    for way, part in zip(
      ways, (centres[1:turn], centres[turn + 1 : -1]), strict=True
    ):
      moved = part[-1] - part[0]
      along = np.array(event_captions.DIRECTIONS[way])
      assert moved @ along > 4
      assert abs(moved @ along[::-1]) < 2


@pytest.mark.parametrize('pairs', [0.0, 1.0])
def test_no_bag_of_frames_or_changes_has_the_order_of_events(pairs):
  """Nor does it one of frames with those before them."""

  def bag(record):
    frames = record['frames']
    before = np.concatenate([frames[:1], frames[:-1]])
    both = zip(frames, before, strict=True)
    return sorted((x.tobytes(), y.tobytes()) for x, y in both)

  for index in range(0, 40, 2):
    clip = event_captions.example('test', index, pairs=pairs)
    other = event_captions.example('test', index + 1, pairs=pairs)
    assert bag(clip) == bag(other)
    first, second = (
      event_captions.motions(x['captions'][0]) for x in (clip, other)
    )
    assert first == second[::-1] != second
    assert np.bincount(clip['frame_labels']).tolist() == (
      np.bincount(other['frame_labels']).tolist()
    )


@pytest.mark.parametrize('pairs', [0.0, 1.0])
@pytest.mark.parametrize('vertical', [False, True])
def test_frame_labels_agree_with_the_caption(pairs, vertical):
  for index in range(30):
    record = event_captions.example('train', index, pairs=pairs)
    flipped = event_captions.flip(record, vertical=vertical)
    same(event_captions.flip(flipped, vertical=vertical), record)
    for clip in record, flipped:
      labels = clip['frame_labels']
      assert labels.dtype == np.int32
      events = [
        event_captions.FRAME_CLASSES[label]
        for label, _ in itertools.groupby(labels)
      ]
      assert events[::2] == ['nothing moves'] * 3
      assert labels[:2].tolist() == [0, 0] and labels[-1] == 0 < labels[2]
      first, second = events[1::2]
      if not pairs:
        assert second.rpartition(' ')[0] == first.rpartition(' ')[0]
        second = second.rpartition(' ')[2]
      assert clip['captions'] == [f'{first} then {second}']
      ways = event_captions.motions(clip['captions'][0])
      across, along = (np.array(event_captions.DIRECTIONS[w]) for w in ways)
      assert across @ along == 0
      assert sorted(np.bincount(labels[labels > 0]).tolist())[-2:] == [5, 6]


def test_half_of_the_clips_can_be_of_pairs():
  texts = [
    event_captions.example('train', index, pairs=0.5)['captions'][0]
    for index in range(100)
  ]
  assert 30 < sum(text.count(' moves ') == 2 for text in texts) < 70


# Tracks.


def tracks(count=40):
  return [occlusion_track.example('train', index) for index in range(count)]


def test_the_target_is_hidden_once_moves_on_and_is_seen_again():
  blacks = 0
  for record in tracks():
    hidden = np.flatnonzero(record['hidden'])
    first, end = hidden[0], hidden[-1] + 1
    assert record['hidden'].dtype == bool
    assert len(hidden) == end - first and 5 <= len(hidden) <= 9
    assert first >= occlusion_track.VISIBLE_FRAMES and end <= 21
    boxes = record['boxes'].astype(float)
    assert boxes[:, :2].min() >= 0
    assert (boxes[:, :2] + boxes[:, 2:]).max() <= occlusion_track.SIDE
    # No bounce from two frames before to two after: equal steps.
    centres = (
      boxes[first - 2 : end + 2, :2] + boxes[first - 2 : end + 2, 2:] / 2
    )
    steps = np.diff(centres, axis=0)
    np.testing.assert_allclose(
      steps, steps[:1].repeat(len(steps), 0), atol=1e-4
    )
    assert 2 - 1e-4 <= np.linalg.norm(steps[0]) <= 3.2 + 1e-4
    black = record['frames'].mean(axis=(1, 2, 3)) < 10
    if black.any():
      np.testing.assert_array_equal(black, record['hidden'])
    blacks += black.any()
  assert 10 < blacks < 30


def test_boxes_change_their_size_by_the_bounds():
  for record in tracks(20):
    sizes = record['boxes'][:, 2:]
    assert sizes.min() >= 11 * math.exp(-0.25) - 1e-4
    assert sizes.max() <= 16 * math.exp(0.25) + 1e-4
    ratios = sizes[:, 0] / sizes[:, 1]
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-4)


@pytest.mark.parametrize('outline', sprites.SILHOUETTES)
def test_what_is_painted_fills_its_box(outline):
  rng = np.random.default_rng(0)
  frames = np.zeros((24, 64, 64, 3), np.float32)
  boxes = occlusion_track._motion(rng).boxes

  def white(rng, height, width):
    return np.full((height, width, 3), 255, np.uint8)

  occlusion_track._paint(rng, white, frames, outline, boxes)
  for frame, box in zip(frames[..., 0], boxes, strict=True):
    y, x = np.nonzero(frame > 127)
    low = np.array([x.min(), y.min()])
    high = np.array([x.max(), y.max()]) + 1
    np.testing.assert_allclose(low, box[:2], atol=1)
    np.testing.assert_allclose(high, box[:2] + box[2:], atol=1)


def test_frames_show_the_target_in_its_box():
  """The target looks alike a frame later, along its box and not beside it."""
  along, still = [], []
  for record in tracks(10):
    frames = record['frames'].astype(float)
    boxes = record['boxes'].round().astype(int)
    for t in range(3):
      (x, y, w, h), (u, v, *_) = boxes[t], boxes[t + 1]
      w, h = min(w, 64 - max(x, u)), min(h, 64 - max(y, v))
      here = frames[t, y : y + h, x : x + w]
      along.append(np.abs(frames[t + 1, v : v + h, u : u + w] - here).mean())
      still.append(np.abs(frames[t + 1, y : y + h, x : x + w] - here).mean())
  assert np.mean(along) < 0.7 * np.mean(still)


def test_the_ground_glides_steadily():
  def ramp(rng, height, width):
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, 0 * x], axis=-1).astype(np.uint8)

  speeds = []
  for seed in range(20):
    ground = occlusion_track._background(np.random.default_rng(seed), ramp)
    steps = np.diff(ground, axis=0)
    speed = steps[0, 0, 0]
    expected = np.broadcast_to(speed, steps.shape)
    np.testing.assert_allclose(steps, expected, atol=1e-4)
    speeds.append(speed[:2])
  assert np.abs(speeds).max() <= 0.6 + 1e-4
  assert np.std(speeds, axis=0).min() > 0.2


@pytest.mark.parametrize('vertical', [False, True])
def test_boxes_are_flipped_with_the_frames(vertical):
  record = occlusion_track.example('train', 3)
  flipped = occlusion_track.flip(record, vertical=vertical)
  again = occlusion_track.flip(flipped, vertical=vertical)
  np.testing.assert_array_equal(again['frames'], record['frames'])
  np.testing.assert_allclose(again['boxes'], record['boxes'], atol=1e-5)
  x, y, w, h = record['boxes'][0].astype(float)
  box = (x, 64 - y - h, w, h) if vertical else (64 - x - w, y, w, h)
  np.testing.assert_allclose(flipped['boxes'][0], box, atol=1e-5)
  assert flipped['boxes'].dtype == np.float32


# Textures and sprites.


@pytest.fixture
def images(tmp_path):
  """Ten images, each of a different grey."""
  (tmp_path / 'more').mkdir()
  for i in range(10):
    image = Image.new('RGB', (50 + i, 40), (20 * i + 20,) * 3)
    image.save(tmp_path / ('more' if i % 2 else '.') / f'{i}.png')
  (tmp_path / 'list.txt').write_text('no image')
  return tmp_path


def test_each_split_has_images_of_its_own(images):
  rng = np.random.default_rng(0)
  greys = {}
  for split in 'train', 'validation', 'test':
    draw = textures.texture(split, images)
    crops = [draw(rng, 20, 33) for _ in range(60)]
    assert {crop.shape for crop in crops} == {(20, 33, 3)}
    greys[split] = {grey for crop in crops for grey in np.unique(crop)}
  assert {split: len(values) for split, values in greys.items()} == {
    'train': 6,
    'validation': 1,
    'test': 3,
  }
  assert len(set.union(*greys.values())) == 10


@pytest.mark.parametrize('module', GENERATORS)
def test_images_change_the_ground_and_no_label(module, images):
  generated = module.example('test', 5)
  record = module.example('test', 5, images=images)
  same(module.example('test', 5, images=str(images)), record)
  assert (generated['frames'] != record['frames']).mean() > 0.5
  same(
    {key: value for key, value in record.items() if key != 'frames'},
    {key: value for key, value in generated.items() if key != 'frames'},
  )


def test_too_few_images_are_an_error(tmp_path):
  with pytest.raises(ValueError, match="no image for 'train'.* at least 3"):
    textures.texture('train', tmp_path)
  with pytest.raises(FileNotFoundError, match='no directory: pass one'):
    ordered_motion.example('train', 0, images=tmp_path / 'absent')


def test_dead_leaves_are_of_many_colours():
  rng = np.random.default_rng(0)
  crops = [textures.dead_leaves(rng, 24, 30) for _ in range(20)]
  assert {crop.shape for crop in crops} == {(24, 30, 3)}
  means = np.array([crop.mean(axis=(0, 1)) for crop in crops])
  assert means.std(axis=0).min() > 15
  assert min(crop.std() for crop in crops) > 8


BOX = np.array([7.3, 5.6, 12.5, 9.25])


@pytest.mark.parametrize(
  ('outline', 'share'),
  # Of |x|^4 + |y|^4 <= 1: gamma(5/4)^2 / gamma(3/2).
  [
    ('ellipse', math.pi / 4),
    ('rounded', math.gamma(1.25) ** 2 / math.gamma(1.5)),
    ('rectangle', 1),
  ],
)
def test_silhouettes_cover_their_area(outline, share):
  points = sprites.grid(32, 40)
  covered = sprites.silhouette(points, outline, BOX)
  assert covered.sum() == pytest.approx(share * BOX[2] * BOX[3], rel=0.04)
  moved = sprites.silhouette(points, outline, BOX + (3, 2, 0, 0))
  np.testing.assert_allclose(moved[2:, 3:], covered[:-2, :-3], atol=1e-4)


def test_polygons_and_strokes_cover_their_area():
  points = sprites.grid(32, 40)
  corners = np.array([(10.2, 5.1), (20.7, 5.1), (20.7, 12.4), (10.2, 12.4)])
  covered = sprites.polygon(points, corners)
  assert covered.sum() == pytest.approx(10.5 * 7.3, rel=0.01)
  line = np.array([(8.0, 8.0), (20.0, 8.0), (20.0, 20.0)])
  # Two bars, the quarter of a disc at the corner, and round ends.
  area = 2 * 12 * 4 - 4 + math.pi + math.pi * 4
  covered = sprites.stroke(points, line, 2.0)
  assert covered.sum() == pytest.approx(area, rel=0.02)


def test_textures_are_looked_up_between_pixels():
  texture = np.random.default_rng(0).normal(size=(5, 7, 3)).astype(np.float32)
  x, y = np.arange(7) + 0.5, np.arange(5) + 0.5
  np.testing.assert_allclose(sprites.look_up(texture, x, y), texture)
  between = sprites.look_up(texture, x[:-1] + 0.25, y)
  expected = 0.75 * texture[:, :-1] + 0.25 * texture[:, 1:]
  np.testing.assert_allclose(between, expected, rtol=1e-5, atol=1e-6)
  outside = sprites.look_up(texture, np.array([-3.0, 90.0]), y)
  np.testing.assert_allclose(outside, texture[:, [0, -1]])
