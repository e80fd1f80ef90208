import numpy as np
import pytest
from matplotlib import colors
from PIL import Image

from video import figures
from video import metrics

GREY = np.full((40, 60, 3), 128, np.uint8)


def rgb(index):
  return np.round(255 * np.array(colors.to_rgb(figures.COLOURS[index])))


def is_colour(image, index):
  return (np.abs(image.astype(float) - rgb(index)) < 1).all(axis=-1)


def assert_margins_are_white(image):
  for edge in (image[:2], image[-2:], image[:, :2], image[:, -2:]):
    assert edge.min() == 255


@pytest.mark.parametrize(
  'classes',
  [
    ('left', 'right'),
    tuple(f'class {i}' for i in range(27)),
    ('a very long name of a gesture, as data sets have', 'b', r'$\frac_1$'),
  ],
)
def test_confusions_have_all_their_names(classes):
  matrix = np.eye(len(classes), dtype=int) * 7
  image = figures.confusion_matrix(matrix, classes)
  assert image.dtype == np.uint8
  assert_margins_are_white(image)


def test_rows_of_the_matrix_are_the_true_classes():
  """A class taken for another is dark off the diagonal, in its own row."""
  classes = ('a', 'b', 'c')
  empty = figures.confusion_matrix(np.zeros((3, 3), int), classes)
  y, x, _ = np.nonzero(empty < 255)
  ink = {}
  for cell in (0, 2), (2, 0):
    matrix = np.zeros((3, 3), int)
    matrix[cell] = 1
    image = figures.confusion_matrix(matrix, classes)
    rows, columns = np.nonzero(image.sum(axis=-1) < empty.sum(axis=-1) - 200)
    ink[cell] = rows.mean(), columns.mean()
  assert ink[0, 2][0] < ink[2, 0][0] and ink[0, 2][1] > ink[2, 0][1]
  with pytest.raises(ValueError, match='does not fit 2 class names'):
    figures.confusion_matrix(np.zeros((3, 3), int), ('a', 'b'))


def test_curves_of_every_tracker_are_drawn():
  def scores(level):
    return metrics.OnePass(
      success=level * np.linspace(1, 0, 21),
      precision=level * np.linspace(0, 1, 51),
      mean_overlap=level / 2,
      num_sequences=3,
    )

  image = figures.success_and_precision(
    {r'still $\frac$': scores(0.4), '_ours': scores(0.9), 'b': scores(0.6)}
  )
  half = image.shape[1] // 2
  heights = []
  for index in range(3):
    for part in image[:, :half], image[:, half:]:
      assert is_colour(part, index).sum() > 100
    heights.append(np.nonzero(is_colour(image[:, :half], index))[0].mean())
  # The second is the best: it is highest, and the first keeps its colour.
  assert heights[1] < heights[2] < heights[0]
  assert_margins_are_white(image)


@pytest.mark.parametrize('scale', [1, 3])
def test_boxes_are_drawn_around_their_pixels(scale):
  image = figures.draw_boxes(
    GREY, {'truth': np.array([10, 5, 20, 12.0])}, scale=scale
  )
  assert image.shape == (40 * scale, 60 * scale, 3)
  y, x = np.nonzero((image != 128).any(axis=-1))
  assert (x.min(), y.min()) == (10 * scale, 5 * scale)
  assert (x.max() + 1, y.max() + 1) == (30 * scale, 17 * scale)
  assert is_colour(image, 0)[y, x].all()
  middle = image[11 * scale, 20 * scale]
  np.testing.assert_array_equal(middle, [128] * 3)


def test_a_box_that_is_absent_is_not_drawn_and_keeps_its_colour():
  boxes = {'truth': np.full(4, np.nan), 'ours': np.array([1, 1, 5, 5.0])}
  image = figures.draw_boxes(GREY, boxes)
  assert not is_colour(image, 0).any() and is_colour(image, 1).any()
  np.testing.assert_array_equal(
    figures.draw_boxes(GREY, {'truth': boxes['truth']}), GREY
  )
  # Nor does one that is outside, or of no size, stop anything.
  for box in ([-50, -50, 10, 10], [90, 90, 1, 1], [5, 5, 0, 0], [5, 5, -3, 2]):
    figures.draw_boxes(GREY, {'ours': np.array(box, float)})


def test_a_strip_shows_the_first_and_the_last_frame():
  frames = [np.full((40, 60, 3), 10 * t + 60, np.uint8) for t in range(10)]
  tracks = {'truth': np.tile([5, 5, 9, 9.0], (10, 1))}
  strip = figures.overlay_strip(frames, tracks, count=4, side=80)
  width = 2 * 60 + 3
  assert strip.shape[1] == 4 * width - 3
  shown = [strip[14 + 60, i * width + 60, 0] for i in range(4)]
  assert shown == [60, 90, 120, 150]
  for i in range(4):
    assert is_colour(strip[:94, i * width : i * width + 120], 0).any()
  assert is_colour(strip[94:], 0).any()  # Whose it is.
  # Where a row would be too wide there are more.
  sheet = figures.overlay_strip(frames, tracks, count=4, side=640)
  height, width = 14 + 16 * 40 + 3, 16 * 60 + 3
  assert sheet.shape == (4 * height + 14, width - 3, 3)
  shown = [sheet[i * height + 14 + 480, 480, 0] for i in range(4)]
  assert shown == [60, 90, 120, 150]
  single = figures.overlay_strip(frames[:1], {})
  assert single.shape == (14 + 160, 240, 3)
  with pytest.raises(ValueError, match='no frames'):
    figures.overlay_strip([], {})


def test_a_strip_has_room_for_long_names():
  names = {f'a tracker of a long name {i}': np.zeros((1, 4)) for i in range(9)}
  strip = figures.overlay_strip([GREY], names, side=40)
  assert strip[-14:, -3:].min() == 255
  for index in range(8):
    assert is_colour(strip[-14:], index).sum() > 40


@pytest.mark.parametrize('channels', [None, 1, 3])
@pytest.mark.parametrize('length', [1, 12])
def test_probabilities_over_time(channels, length):
  classes = (r'$\frac$', '_wave', r'$\alpha$', 'rest')
  sure = np.full((length, 4), 0.1, np.float32)
  sure[:, 1] = 0.7
  frames = None
  if channels:
    frames = np.full((length, 24, 24, channels), 77, np.uint8)
  image = figures.class_probabilities(sure, classes, frames=frames, top=2)
  shown = (image == 77).all(axis=-1).sum()
  assert shown > 500 if channels else shown < 50
  # The surest is the first colour, and it is drawn above the second.
  rows = [np.nonzero(is_colour(image[:, :450], i))[0] for i in (0, 1)]
  assert rows[0].mean() < rows[1].mean()
  assert not is_colour(image, 2).any()
  assert_margins_are_white(image)


def test_probabilities_have_their_seconds_and_their_classes():
  sure = np.full((5, 2), 0.5)
  frames = figures.class_probabilities(sure, ('a', 'b'))
  seconds = figures.class_probabilities(
    sure, ('a', 'b'), seconds=np.arange(5) / 25
  )
  assert (frames != seconds).any()
  with pytest.raises(ValueError, match='2 probabilities a frame do not fit 3'):
    figures.class_probabilities(sure, ('a', 'b', 'c'))


def test_images_are_saved_as_they_are(tmp_path):
  figures.save(GREY, tmp_path / 'grey.png')
  np.testing.assert_array_equal(Image.open(tmp_path / 'grey.png'), GREY)


def test_doubt_breaks_the_box_and_is_written():
  boxes = {'ours': np.array([20.0, 20, 24, 16]), 'truth': np.full(4, 30.0)}
  grey = np.full((80, 100, 3), 128, np.uint8)
  drawn = [
    figures.draw_boxes(grey, boxes, certainty=certainty)
    for certainty in (None, 0.9, 0.3)
  ]
  counts = [is_colour(image, 0).sum() for image in drawn]
  assert counts[0] == counts[1] > counts[2] > counts[0] / 4
  # The other box is whole.
  assert len({is_colour(image, 1).sum() for image in drawn}) == 1
  corners = [image[:12, :30] for image in drawn]
  assert (corners[0] == 128).all()
  assert (corners[1] == 255).any() and (corners[1] != corners[2]).any()
  strips = [
    figures.overlay_strip([grey] * 3, boxes_of(boxes), certainty=certainty)
    for certainty in (None, [1.0, 0.5, 0.1])
  ]
  assert strips[0].shape == strips[1].shape
  assert (strips[0] != strips[1]).any()


def boxes_of(boxes):
  return {name: np.tile(box, (3, 1)) for name, box in boxes.items()}
