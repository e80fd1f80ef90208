"""Draws sheets of drawings, as SVG text or as pixels.

A sheet is a list of sections. A section is a heading, and panels row by row. A
panel is one drawing and its title. `svg` and `image` draw the same sheet.

Coordinates are pixels, x to the right and y downwards. Axes: N points of a
drawing, n points of a line, M mixtures, H, W pixels.
"""

import dataclasses
import math
import os
import pathlib
import warnings
from collections.abc import Callable
from collections.abc import Sequence
from xml.sax import saxutils

import numpy as np
from matplotlib import collections
from matplotlib import colors
from matplotlib import figure
from matplotlib import patches
from matplotlib.backends import backend_agg
from PIL import Image

from sketch_rnn import strokes

INK = '#1d2433'
NEW = '#d1495b'  # Points that a model has added, or its predictions.
FAINT = '#c5cad3'

# Lengths are in pixels of the SVG.
_SIDE = 110  # Of a panel.
_MARGIN = 9  # Inside a panel.
_TITLE = 15  # Above a panel whose row has titles.
_HEADING = 24
_PEN = 1.7
_MAX_SCALE = 8  # A dot must not become a disc.


@dataclasses.dataclass(frozen=True)
class Line:
  """A polyline f32[n, 2]; one of a single point is a dot."""

  points: np.ndarray
  colour: str = INK


@dataclasses.dataclass(frozen=True)
class Ellipse:
  """A filled ellipse of one standard deviation of a Gaussian."""

  x: float
  y: float
  radii: tuple[float, float]
  angle: float  # Direction of the first radius, in degrees, clockwise.
  opacity: float
  colour: str = NEW


@dataclasses.dataclass(frozen=True)
class Panel:
  """One drawing, in its own pixels."""

  lines: Sequence[Line] = ()
  ellipses: Sequence[Ellipse] = ()
  title: str = ''


@dataclasses.dataclass(frozen=True)
class Section:
  """Panels in rows.

  Attributes:
    panels: in reading order.
    columns: number of panels in a row; by default about as many as rows.
    heading: text above the panels.
    same_window: show the same part of the plane in every panel, so that common
      points of the drawings coincide; else each drawing fills its panel.
  """

  panels: Sequence[Panel]
  columns: int | None = None
  heading: str = ''
  same_window: bool = False


def panel(
  drawing: np.ndarray,
  title: str = '',
  *,
  given: int | None = None,
  colours: tuple[str, str] = (INK, NEW),
  from_origin: bool = True,
) -> Panel:
  """The panel of a drawing, with the points after a beginning in colour.

  Args:
    drawing: f32[N, 3], in pixels.
    title: text above it.
    given: number of points of the beginning; by default all. The line from its
      last point to the next is in the second colour.
    colours: colour of the beginning, and of the rest.
    from_origin: the pen is down at (0, 0); see `strokes`.
  """
  given = len(drawing) if given is None else given
  if from_origin and given:
    given += 1  # The origin is a point without a row.
  lines = []
  begin = 0
  for points in strokes.to_lines(drawing, from_origin=from_origin):
    split = max(given - begin, 0)
    if split:
      lines.append(Line(points[:split], colours[0]))
    if split < len(points):
      lines.append(Line(points[max(split - 1, 0) :], colours[1]))
    begin += len(points)
  return Panel(lines, title=title)


def ellipse(
  centre: tuple[float, float],
  sigmas: tuple[float, float],
  rho: float,
  *,
  opacity: float,
) -> Ellipse:
  """The ellipse of one standard deviation of a bivariate Gaussian.

  Args:
    centre: mean.
    sigmas: standard deviations of x and of y.
    rho: their correlation.
    opacity: in [0, 1].
  """
  covariance = rho * sigmas[0] * sigmas[1]
  variances, axes = np.linalg.eigh(
    [[sigmas[0] ** 2, covariance], [covariance, sigmas[1] ** 2]]
  )
  radii = np.sqrt(np.maximum(variances, 0))
  return Ellipse(
    x=float(centre[0]),
    y=float(centre[1]),
    radii=(float(radii[0]), float(radii[1])),
    angle=math.degrees(math.atan2(axes[1, 0], axes[0, 0])),
    opacity=float(np.clip(opacity, 0, 1)),
  )


def svg(sections: Sequence[Section]) -> str:
  """A sheet as an SVG document, with one path for each line of the pen."""
  sheet = _Sheet(sections)
  lines = [
    '<svg xmlns="http://www.w3.org/2000/svg" version="1.1" '
    f'width="{_number(sheet.width)}" height="{_number(sheet.height)}" '
    f'viewBox="0 0 {_number(sheet.width)} {_number(sheet.height)}" '
    'style="background: white">'
  ]
  for mark in sheet.ellipses:
    lines.append(
      f'<ellipse rx="{_number(mark.radii[0])}" ry="{_number(mark.radii[1])}" '
      f'transform="translate({_number(mark.x)} {_number(mark.y)}) '
      f'rotate({_number(mark.angle)})" '
      f'fill="{mark.colour}" fill-opacity="{mark.opacity:.3g}"/>'
    )
  if sheet.lines:
    lines.append(
      f'<g fill="none" stroke-width="{_PEN}" stroke-linecap="round" '
      'stroke-linejoin="round">'
    )
    for line in sheet.lines:
      points = ' L'.join(f'{_number(x)} {_number(y)}' for x, y in line.points)
      lines.append(f'<path d="M{points}" stroke="{line.colour}"/>')
    lines.append('</g>')
  for text in sheet.texts:
    anchor = ' text-anchor="middle"' if text.centred else ''
    lines.append(
      f'<text x="{_number(text.x)}" y="{_number(text.y)}" '
      f'font-family="sans-serif" font-size="{text.size}"{anchor}>'
      f'{saxutils.escape(text.words)}</text>'
    )
  return '\n'.join([*lines, '</svg>', ''])


def image(sections: Sequence[Section], zoom: float = 2.0) -> np.ndarray:
  """A sheet as pixels, `zoom` times as large as the SVG: uint8[H, W, 3]."""
  sheet = _Sheet(sections)
  inch = 100.0  # Pixels of the SVG.
  point = 72 / inch
  paper = figure.Figure(
    figsize=(sheet.width / inch, sheet.height / inch), dpi=inch * zoom
  )
  canvas = backend_agg.FigureCanvasAgg(paper)
  axes = paper.add_axes((0, 0, 1, 1))
  axes.set(xlim=(0, sheet.width), ylim=(sheet.height, 0))
  axes.axis('off')
  for mark in sheet.ellipses:
    axes.add_patch(
      patches.Ellipse(
        (mark.x, mark.y),
        2 * mark.radii[0],
        2 * mark.radii[1],
        angle=mark.angle,
        color=colors.to_rgba(mark.colour, mark.opacity),
        linewidth=0,
      )
    )
  axes.add_collection(
    collections.LineCollection(
      [line.points for line in sheet.lines],
      colors=[line.colour for line in sheet.lines],
      linewidths=_PEN * point,
      capstyle='round',
      joinstyle='round',
      snap=False,  # Snapping to pixels would shrink a dot to nothing.
    ),
    autolim=False,
  )
  for text in sheet.texts:
    axes.text(
      text.x,
      text.y,
      text.words,
      fontsize=text.size * point,
      ha='center' if text.centred else 'left',
      va='baseline',
      parse_math=False,
    )
  with warnings.catch_warnings():
    # Matplotlib's fonts have no Kanji: such a title becomes empty boxes.
    warnings.filterwarnings('ignore', message='Glyph .* missing from')
    canvas.draw()
  return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def write(
  path: str | os.PathLike, sections: Sequence[Section]
) -> list[pathlib.Path]:
  """Writes `path`.svg and `path`.png; each file is whole or absent.

  Args:
    path: path without a suffix.
    sections: the sheet.

  Returns:
    The paths of the two files.
  """
  path = pathlib.Path(path)
  text = path.with_name(f'{path.name}.svg')
  write_file(text, lambda file: file.write(svg(sections).encode()))
  pixels = path.with_name(f'{path.name}.png')
  sheet = Image.fromarray(image(sections))
  write_file(pixels, lambda file: sheet.save(file, format='PNG'))
  return [text, pixels]


def write_file(path: pathlib.Path, save: Callable):
  """Calls `save(file)` on a temporary file, then renames it to `path`."""
  temporary = path.with_name(f'{path.name}.tmp')
  with open(temporary, 'wb') as file:
    save(file)
  os.replace(temporary, path)


@dataclasses.dataclass(frozen=True)
class _Text:
  words: str
  x: float
  y: float  # Of the baseline.
  size: float
  centred: bool


class _Sheet:
  """The layout of a sheet, for `svg` and `image`.

  Attributes:
    width: width of the sheet.
    height: height of the sheet.
    lines: lines in coordinates of the sheet, of at least two points each.
    ellipses: ellipses, likewise.
    texts: texts, likewise.
  """

  def __init__(self, sections: Sequence[Section]):
    self.lines: list[Line] = []
    self.ellipses: list[Ellipse] = []
    self.texts: list[_Text] = []
    self.width = float(_SIDE)
    self.height = 0.0
    for section in sections:
      self._add_section(section)
    self.height = max(self.height, float(_SIDE))

  def _add_section(self, section: Section):
    if section.heading:
      self.height += _HEADING
      self.texts.append(
        _Text(section.heading, _MARGIN, self.height - 8, 13, centred=False)
      )
      # A letter is 0.55 em wide on average.
      needed = 2 * _MARGIN + 0.6 * 13 * len(section.heading)
      self.width = max(self.width, needed)
    panels = section.panels
    columns = section.columns or max(math.ceil(math.sqrt(len(panels))), 1)
    self.width = max(self.width, float(min(columns, len(panels)) * _SIDE))
    window = _window(panels) if section.same_window else None
    for start in range(0, len(panels), columns):
      row = panels[start : start + columns]
      if any(panel.title for panel in row):
        self.height += _TITLE
      for column, panel in enumerate(row):
        self._add_panel(panel, column * _SIDE, self.height, window)
      self.height += _SIDE

  def _add_panel(self, panel, left, top, window):
    low, high = window or _window([panel])
    extent = max(np.max(high - low), 1e-6)
    scale = min((_SIDE - 2 * _MARGIN) / extent, _MAX_SCALE)
    centre = np.array([left, top]) + _SIDE / 2
    shift = centre - scale * (low + high) / 2

    for mark in panel.ellipses:
      x, y = scale * np.array([mark.x, mark.y]) + shift
      radii = (scale * mark.radii[0], scale * mark.radii[1])
      self.ellipses.append(dataclasses.replace(mark, x=x, y=y, radii=radii))
    for line in panel.lines:
      points = scale * np.asarray(line.points, np.float64) + shift
      if len(points) == 1 or not np.any(np.ptp(points, axis=0)):
        # Matplotlib does not draw a line of length zero; SVG does.
        points = points[:1] + np.array([[0, 0], [0.1, 0]])
      self.lines.append(dataclasses.replace(line, points=points))
    if panel.title:
      # A long title must not run into its neighbours.
      size = min(11, _SIDE / (0.6 * len(panel.title)))
      self.texts.append(
        _Text(panel.title, left + _SIDE / 2, top - 2, size, centred=True)
      )


def _window(panels: Sequence[Panel]) -> tuple[np.ndarray, np.ndarray]:
  """The bounding box of the contents of panels: f64[2], f64[2]."""
  points = [line.points for panel in panels for line in panel.lines]
  for panel in panels:
    for mark in panel.ellipses:
      radius = max(mark.radii)
      points.append([[mark.x - radius, mark.y - radius]])
      points.append([[mark.x + radius, mark.y + radius]])
  if not points:
    return np.zeros(2), np.zeros(2)
  points = np.concatenate(points).astype(np.float64)
  return points.min(axis=0), points.max(axis=0)


def _number(x: float) -> str:
  """A number with two decimals at most, without trailing zeros."""
  text = f'{x:.2f}'.rstrip('0').rstrip('.')
  return '0' if text == '-0' else text
