"""Tests of SVG files as programs write them, and as nobody should."""

import time

import numpy as np
import pytest

from sketch_rnn import file_formats
from sketch_rnn import svg

CURVES = (
  'M{1},{5}C{1},{1} {5},{9} {9},{5}'
  'M{4},{2}C{4.5},{.5} {5.5},{.5} {6},{2}C{5.5},{3.5} {4.5},{3.5} {4},{2}'
)


def write(tmp_path, body, attributes='viewBox="0 0 100 100"'):
  path = tmp_path / 'a.svg'
  path.write_text(
    f'<svg xmlns="http://www.w3.org/2000/svg" {attributes}>{body}</svg>'
  )
  return path


def scaled(unit, left=0.0, top=0.0):
  """The curves in other units, with their origin elsewhere."""
  d, place = '', [left, top]
  for i, part in enumerate(CURVES.replace('}', '{').split('{')):
    if i % 2:
      place.append(place.pop(0))
      part = repr(place[-1] + unit * float(part))
    d += part
  return f'<path d="{d}"/>'


@pytest.mark.parametrize('unit', [1e-3, 0.1, 1, 100, 1e4])
@pytest.mark.parametrize('origin', [(0, 0), (2506744, 5624642)])
@pytest.mark.parametrize('view', ['', 'viewBox="{} {} {} {}"'])
def test_the_rows_do_not_depend_on_the_unit_or_the_origin(
  tmp_path, unit, origin, view
):
  expected = file_formats.read(write(tmp_path, scaled(10)))[0].strokes
  assert len(expected) > 20
  attributes = view.format(*origin, 10 * unit, 10 * unit)
  path = write(tmp_path, scaled(unit, *origin), attributes)
  strokes = file_formats.read(path)[0].strokes
  if unit < 0.1 and origin[0]:  # Beyond double precision.
    return
  assert len(strokes) == len(expected)
  np.testing.assert_allclose(strokes, expected, atol=0.01)


LINE = '<path d="M0 0L5 5L9 0"/>'


@pytest.mark.parametrize(
  'body',
  [
    '<path visibility="hidden" d="M0 0L90 9"/>',
    '<g visibility="hidden"><path d="M0 0L90 9"/></g>',
    '<g style="visibility: collapse"><g><path d="M0 0L90 9"/></g></g>',
    '<path style="fill:red;display:none" d="M0 0L90 9"/>',
    '<g opacity="0"><path d="M0 0L90 9"/></g>',
    '<style>.a{fill:red}.b,#c{display:none}</style>'
    '<path class="a b" d="M0 0L90 9"/><g id="c"><path d="M0 0L90 9"/></g>',
    '<style>/* {} */ rect { visibility:hidden !important }</style>'
    '<rect width="90" height="9"/>',
    '<flowRoot><flowRegion><rect width="80" height="20"/></flowRegion>'
    '</flowRoot>',
    '<clipPath><path d="M0 0L90 9"/></clipPath>',
    '<mask><path d="M0 0L90 9"/></mask>',
    '<font><glyph d="M0 0L90 9"/></font>',
    '<foreignObject><g><path d="M0 0L90 9"/></g></foreignObject>',
    '<path/><path d=""/><path d="none"/><polyline/><polygon points=" "/>',
    '<rect width="0" height="9"/><circle cx="9" r="0"/><ellipse rx="4"/>',
    '<title>A</title><desc>B</desc><metadata/><script>C</script>',
  ],
)
def test_what_is_not_drawn_is_left_out(tmp_path, body):
  lines = svg.read(write(tmp_path, body + LINE))
  np.testing.assert_array_equal(lines, [[[0, 0], [5, 5], [9, 0]]])


@pytest.mark.parametrize(
  'body',
  [
    '<g visibility="hidden"><path visibility="visible" d="M0 0L90 9"/></g>',
    '<style>path{display:none}.a{display:inline}</style>'
    '<path class="a" d="M0 0L90 9"/>',
    '<switch><foreignObject/><g><path d="M0 0L90 9"/></g></switch>',
    '<a href="x"><path d="M0 0L90 9" unknown="1em"/></a>',
    '<path d="M0 0L90 9"><animate attributeName="d" values="M0 0"/></path>',
  ],
)
def test_what_is_drawn_is_read(tmp_path, body):
  lines = svg.read(write(tmp_path, body))
  np.testing.assert_array_equal(lines, [[[0, 0], [90, 9]]])


@pytest.mark.parametrize(
  'attributes',
  [
    'width="1em" height="1em" viewBox="0 0 9 9"',
    'width="10rem" height="2ex" viewBox="0 0 9 9"',
    'width="1cubit" height="auto" viewBox="0 0 9 9"',
    'width="100%" height="100%" viewBox="0 0 9 9"',
    'width="9mm" height="9mm" viewBox="0 0 9 9"',
  ],
)
def test_units_of_the_size_do_not_matter(tmp_path, attributes):
  path = write(tmp_path, '<path d="M0 0L5 5L9 0"/>', attributes)
  strokes = file_formats.read(path)[0].strokes
  expected = file_formats.read(write(tmp_path, LINE))[0].strokes
  np.testing.assert_allclose(strokes, expected, atol=1e-3)


def test_transformations_are_composed(tmp_path):
  path = write(
    tmp_path,
    '<style>.t{transform:translate(5px,0px)}</style>'
    '<g transform="translate(10 0) rotate(90)"><g transform="scale(2,3)">'
    '<path class="t" d="M1 2L3 4"/></g></g>'
    '<svg x="10" width="20" height="20" viewBox="0 0 10 10" >'
    '<g transform="translate(1)"><path d="M0 0L1 2"/></g></svg>',
  )
  first, second = svg.read(path)
  np.testing.assert_allclose(first, [[4, 12], [-2, 16]], atol=1e-9)
  np.testing.assert_allclose(second, [[12, 0], [14, 4]], atol=1e-9)


@pytest.mark.parametrize(
  'transform', ['scale(1,-1)', 'rotate(30)', 'scale(2,1)', 'skewX(30)']
)
@pytest.mark.parametrize('flags', ['0 0', '0 1', '1 0', '1 1'])
def test_arcs_are_followed(tmp_path, transform, flags):
  """They equal the cubic curves of the library, but under skewing."""
  d = f'M10 10A30 20 40 {flags} 40 30'
  plain = svg.read(write(tmp_path, f'<path d="{d}"/>'))[0]
  np.testing.assert_allclose(plain[[0, -1]], [[10, 10], [40, 30]])
  body = f'<path transform="{transform}" d="{d}"/>'
  (line,) = svg.read(write(tmp_path, body))
  matrix = {
    'scale(1,-1)': [[1, 0], [0, -1]],
    'rotate(30)': [[np.cos(np.pi / 6), -0.5], [0.5, np.cos(np.pi / 6)]],
    'scale(2,1)': [[2, 0], [0, 1]],
    'skewX(30)': [[1, np.tan(np.pi / 6)], [0, 1]],
  }[transform]
  fine = svg.read(write(tmp_path, f'<path d="{d}"/>'), tolerance=1e-4)[0]
  expected = fine @ np.transpose(matrix)
  nearest = np.linalg.norm(line[:, None] - expected[None], axis=-1).min(axis=1)
  assert nearest.max() < 0.2
  nearest = np.linalg.norm(line[None] - expected[:, None], axis=-1).min(axis=1)
  assert nearest.max() < np.linalg.norm(np.diff(line, axis=0), axis=1).max()


ARCS = 'a1 1 0 111 1'
SLOW = {
  'arcs': f'<path d="M0 0{ARCS * 33_000}"/>',
  'a sheet': f'<style>{"a{" * 300_000}</style>{LINE}',
  'comments': f'<style>{"/*" * 300_000}</style>{LINE}',
  'a transformation': f'<path transform="{"rotate(" * 100_000}" d="M0 0 1 1"/>',
  'a length': f'<rect width="{"1" * 700_000}" height="9"/>{LINE}',
  'closed parts': f'<path d="M0 0{"zh1" * 33_000}"/>',
  'shapes': '<rect width="9" height="9"/>' * 20_000,
  'groups': f'{"<g>" * 5000}{LINE}{"</g>" * 5000}',
  'documents': f'{"<svg>" * 50}{LINE}{"</svg>" * 50}',
  'a style': f'<path style="{"display:" * 90_000}" d="M0 0 1 1"/>',
  'zigzag': '<polyline points="{}"/>'.format(
    ' '.join(f'{i / 200},{(-1) ** i * (100 - i / 500)}' for i in range(50_000))
  ),
}


@pytest.mark.parametrize('name', SLOW)
def test_nothing_takes_long(tmp_path, name):
  path = write(tmp_path, SLOW[name])
  since = time.process_time()
  try:
    file_formats.read(path)
  except ValueError as error:
    assert str(path) in str(error)
    assert len(str(error)) < 500
  assert time.process_time() - since < 10
