"""Sheets of drawings: their contents, in SVG and in pixels alike."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import PIL.Image
import pytest

from sketch_rnn import rendering
from sketch_rnn import strokes

SVG = '{http://www.w3.org/2000/svg}'


def random_drawing(seed, count=12):
  rng = np.random.default_rng(seed)
  drawing = rng.normal(0, 20, (count, 3)).astype(np.float32)
  drawing[:, 2] = rng.random(count) < 0.3
  drawing[-1, 2] = 1
  return drawing


def read_paths(text):
  """(points f64[n, 2], colour) of every path of an SVG document."""
  root = ET.fromstring(text)
  found = []
  for path in root.iter(f'{SVG}path'):
    assert re.fullmatch(r'M[-\d. ]+( L[-\d. ]+)+', path.get('d'))
    numbers = re.findall(r'-?[\d.]+', path.get('d'))
    points = np.array(numbers, np.float64).reshape(-1, 2)
    found.append((points, path.get('stroke')))
  return found


def read_points(text):
  return [points for points, _ in read_paths(text)]


def fit_similarity(source, target):
  """scale and shift of target = scale * source + shift, least squares."""
  ones = np.ones(len(source))
  zeros = np.zeros(len(source))
  rows = np.concatenate(
    [
      np.stack([source[:, 0], ones, zeros], 1),
      np.stack([source[:, 1], zeros, ones], 1),
    ]
  )
  solution, *_ = np.linalg.lstsq(
    rows, np.concatenate([target[:, 0], target[:, 1]]), rcond=None
  )
  return solution[0], solution[1:]


def test_a_panel_is_the_drawing_moved_and_scaled():
  drawing = random_drawing(0)
  text = rendering.svg([rendering.Section([rendering.panel(drawing)])])
  lines = strokes.to_lines(drawing)
  # A dot is a line of two points, or nothing would be seen.
  lines = [line if len(line) > 1 else line.repeat(2, 0) for line in lines]
  found = read_points(text)
  assert [len(points) for points in found] == [len(line) for line in lines]
  source, target = np.concatenate(lines), np.concatenate(found)
  scale, shift = fit_similarity(source.astype(np.float64), target)
  assert scale > 0
  np.testing.assert_allclose(target, scale * source + shift, atol=0.11)
  # It fills its panel, and no more.
  low, high = target.min(0), target.max(0)
  side = float(ET.fromstring(text).get('width'))
  np.testing.assert_allclose(low + high, side, atol=0.05)
  assert 0.7 * side < np.max(high - low) < side


def test_view_box_holds_everything():
  panels = [rendering.panel(random_drawing(i), f'number {i}') for i in (1, 2)]
  text = rendering.svg(
    [
      rendering.Section(panels * 4, columns=3, heading='eight'),
      rendering.Section(panels, columns=1, same_window=True),
    ]
  )
  root = ET.fromstring(text)
  left, top, width, height = map(float, root.get('viewBox').split())
  assert (left, top) == (0, 0)
  assert (root.get('width'), root.get('height')) == tuple(
    root.get('viewBox').split()[2:]
  )
  points = np.concatenate(read_points(text))
  assert np.all(points >= 0)
  assert np.all(points <= (width, height))


def test_panels_do_not_overlap():
  panels = [rendering.panel(random_drawing(i)) for i in range(7)]
  sections = [
    rendering.Section(panels, columns=3),
    rendering.Section(panels[:2]),
  ]
  paths = read_points(rendering.svg(sections))
  boxes = []
  for panel in [*panels, *panels[:2]]:
    part = np.concatenate([paths.pop(0) for _ in panel.lines])
    boxes.append((part.min(0), part.max(0)))
  for i, (low, high) in enumerate(boxes):
    for other_low, other_high in boxes[:i]:
      assert np.any(low > other_high) or np.any(other_low > high)


@pytest.mark.parametrize('from_origin', [True, False])
@pytest.mark.parametrize('given', range(13))
def test_beginning_and_rest_are_the_whole(given, from_origin):
  drawing = random_drawing(3)
  lines = rendering.panel(drawing, given=given, from_origin=from_origin).lines
  old = [line.points for line in lines if line.colour == rendering.INK]
  new = [line.points for line in lines if line.colour == rendering.NEW]
  assert len(old) + len(new) == len(lines)
  beginning = strokes.to_lines(drawing[:given], from_origin=from_origin)
  if not given:
    beginning = []
  assert len(old) == len(beginning)
  for found, expected in zip(old, beginning, strict=True):
    np.testing.assert_array_equal(found, expected)

  def segments(lines):
    pairs = [np.stack([a, b]) for line in lines for a, b in pairwise(line)]
    return sorted(map(bytes, pairs))

  def pairwise(line):
    return zip(line[:-1], line[1:], strict=True)

  whole = strokes.to_lines(drawing, from_origin=from_origin)
  assert segments(old + new) == segments(whole)


def test_the_same_window_puts_a_beginning_at_one_place():
  ends = [
    np.concatenate([random_drawing(4), random_drawing(i)]) for i in (5, 6)
  ]
  panels = [rendering.panel(end, given=12) for end in ends]
  lengths = [len(panel.lines) for panel in panels]
  begins = []
  for same_window in (True, False):
    text = rendering.svg(
      [rendering.Section(panels, columns=2, same_window=same_window)]
    )
    points = read_points(text)
    begins.append(points[0] - points[lengths[0]])
  assert np.ptp(begins[0], axis=0) == pytest.approx([0, 0], abs=0.011)
  assert np.max(np.ptp(begins[1], axis=0)) > 1


def test_the_picture_shows_what_the_svg_says():
  drawing = random_drawing(7, count=30)
  sections = [
    rendering.Section([rendering.panel(drawing, given=15)], heading='')
  ]
  zoom = 4
  image = rendering.image(sections, zoom).astype(np.int32)
  text = rendering.svg(sections)
  root = ET.fromstring(text)
  size = (float(root.get('height')), float(root.get('width')))
  assert image.shape == (zoom * size[0], zoom * size[1], 3)
  near = np.zeros(image.shape[:2], bool)
  rows, columns = np.indices(near.shape) + 0.5
  for points, colour in read_paths(text):
    colour = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    for a, b in zip(points[:-1], points[1:], strict=True):
      for share in np.linspace(0, 1, 40):
        x, y = zoom * ((1 - share) * a + share * b)
        near |= (columns - x) ** 2 + (rows - y) ** 2 < (1.5 * zoom) ** 2
    # Half-way along the last segment, unless another line covers it.
    x, y = zoom * (a + b) / 2
    pixel = image[int(y), int(x)]
    assert np.min(np.abs(pixel - colour)) < 25
    assert pixel.sum() < 700
  assert np.all(image[~near] == 255)
  assert 0.2 < np.mean(image[near].sum(-1) < 600) < 1


def test_a_dot_is_seen():
  drawing = np.array([[30, 0, 1], [0, 30, 1], [3, 3, 1]], np.float32)
  sections = [rendering.Section([rendering.panel(drawing)])]
  points = read_points(rendering.svg(sections))
  assert len(points) == 3
  image = rendering.image(sections, 3).astype(np.int32)
  for dot in points[1:]:
    assert len(dot) == 2  # Round ends of a line without length are a dot.
    x, y = (3 * dot[0]).astype(int)
    assert image[y, x].sum() < 300


@pytest.mark.parametrize('rho', [-0.9, 0.0, 0.5])
def test_an_ellipse_is_one_standard_deviation(rho):
  sigmas = (3.0, 0.5)
  mark = rendering.ellipse((2.0, -1.0), sigmas, rho, opacity=0.5)
  angle = np.linspace(0, 2 * np.pi, 20)
  rotation = np.radians(mark.angle)
  along = mark.radii[0] * np.cos(angle)
  across = mark.radii[1] * np.sin(angle)
  x = along * np.cos(rotation) - across * np.sin(rotation)
  y = along * np.sin(rotation) + across * np.cos(rotation)
  # The exponent of equation 1 of Ha and Eck is -1/2 there.
  x, y = x / sigmas[0], y / sigmas[1]
  square = (x**2 + y**2 - 2 * rho * x * y) / (1 - rho**2)
  np.testing.assert_allclose(square, 1)
  assert (mark.x, mark.y) == (2, -1)


def test_an_ellipse_lies_at_one_place_in_both():
  panel = rendering.Panel(
    ellipses=[
      rendering.ellipse((9, 4), (8, 2), 0.7, opacity=1),
      rendering.Ellipse(0, 0, (1, 1), 0, 0),
    ]
  )
  sections = [rendering.Section([panel])]
  root = ET.fromstring(rendering.svg(sections))
  mark = next(root.iter(f'{SVG}ellipse'))
  x, y, angle = map(
    float,
    re.fullmatch(
      r'translate\(([-\d.]+) ([-\d.]+)\) rotate\(([-\d.]+)\)',
      mark.get('transform'),
    ).groups(),
  )
  image = rendering.image(sections, 4).astype(np.int32)
  rows, columns = (np.indices(image.shape[:2]) + 0.5) / 4
  rotation = np.radians(angle)
  along = (columns - x) * np.cos(rotation) + (rows - y) * np.sin(rotation)
  across = -(columns - x) * np.sin(rotation) + (rows - y) * np.cos(rotation)
  inside = (along / float(mark.get('rx'))) ** 2
  inside += (across / float(mark.get('ry'))) ** 2
  filled = image.sum(-1) < 600
  assert np.all(filled[inside < 0.9])
  assert not np.any(filled[inside > 1.15])


def test_titles_and_headings_are_text():
  words = ['a < b & "c"', '日本']
  panels = [rendering.panel(random_drawing(8), words[0])]
  sections = [rendering.Section(panels, heading=words[1])]
  root = ET.fromstring(rendering.svg(sections))
  assert sorted(t.text for t in root.iter(f'{SVG}text')) == sorted(words)
  with_text = rendering.image(sections)  # Whatever glyphs the font lacks.
  assert with_text.min() < 100


def test_a_sheet_without_drawings_is_blank():
  for sections in ([], [rendering.Section([])]):
    assert not read_paths(rendering.svg(sections))
    assert rendering.image(sections).min() == 255
  empty = rendering.panel(np.zeros((0, 3), np.float32), given=0)
  rendering.image([rendering.Section([empty])])


def test_files_are_whole_or_absent(tmp_path):
  sections = [rendering.Section([rendering.panel(random_drawing(9))])]
  written = rendering.write(tmp_path / 'v1.2', sections)
  assert written == [tmp_path / 'v1.2.svg', tmp_path / 'v1.2.png']
  assert sorted(tmp_path.iterdir()) == sorted(written)
  assert written[0].read_text() == rendering.svg(sections)
  np.testing.assert_array_equal(
    np.asarray(PIL.Image.open(written[1])), rendering.image(sections)
  )

  def fail(file):
    file.write(b'half')
    raise OSError('disk full')

  with pytest.raises(OSError, match='disk full'):
    rendering.write_file(written[0], fail)
  assert written[0].read_text() == rendering.svg(sections)
