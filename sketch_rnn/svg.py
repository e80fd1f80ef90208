"""Reads the lines of an SVG file: paths and shapes, with curves as short lines.

Fills, widths and colours are ignored; text, embedded images and what is hidden
are left out. `svg_elements` leaves nothing else for the library that parses
paths and shapes, whose time would be without limit otherwise.

Axes: n points of a line.
"""

import io
import os
from xml.etree import ElementTree

import defusedxml
import defusedxml.ElementTree
import numpy as np
import svgelements

from sketch_rnn import svg_elements

_MAX_BYTES = 10_000_000
# Maximum distance of a line from its curve, over the larger side of the
# drawing: a tenth of a pixel of the 256 that it will have.
_SHARE = 0.1 / 256
# Points of a file. Those of a drawing that a model reads are some hundreds.
_MAX_POINTS = 1_000_000
_MAX_POINTS_OF_A_CURVE = 1000


def read(
  path: str | os.PathLike, *, tolerance: float | None = None
) -> list[np.ndarray]:
  """The lines in the order of the file, transformations applied: f64[n, 2].

  Entities are not expanded, and no other files are opened.

  Args:
    path: path of the SVG file.
    tolerance: maximum distance of lines from the curves that they replace, in
      units of the file; by default a share of the size of the drawing.

  Raises:
    ValueError: the file is not SVG, not safe to read, or without lines.
  """
  with open(path, 'rb') as file:
    text = file.read(_MAX_BYTES + 1)
  return parse(text, os.fspath(path), tolerance=tolerance)


def parse(
  text: bytes, name: str, *, tolerance: float | None = None
) -> list[np.ndarray]:
  """The lines of the contents of a file, which errors call `name`; see `read`.

  Raises:
    ValueError: the text is not SVG, not safe to read, or without lines.
  """
  if len(text) > _MAX_BYTES:
    raise ValueError(f'{name} is larger than {_MAX_BYTES} bytes')
  try:
    # Editors write a document type, which is safe; entities are not.
    root = defusedxml.ElementTree.fromstring(text, forbid_dtd=False)
  except defusedxml.DefusedXmlException as error:
    raise ValueError(
      f'{name} is not read because it defines entities: {error!r}. Save it as '
      'plain SVG'
    ) from error
  # The latter for encodings that are unknown.
  except (ElementTree.ParseError, ValueError, LookupError) as error:
    raise ValueError(f'{name} is not XML: {error}') from error
  try:
    drawn = svg_elements.drawn(root)
    document = svgelements.SVG.parse(
      io.BytesIO(ElementTree.tostring(drawn)), reify=True
    )
    paths = [
      svgelements.Path(element)
      for element in document.elements()
      if isinstance(element, svgelements.Shape)
    ]
    lines = _lines(paths, tolerance)
  except svg_elements.Problem as error:
    raise ValueError(f'{name} {error}') from error
  except (
    ArithmeticError,
    AttributeError,
    IndexError,
    RecursionError,
    TypeError,
    ValueError,
  ) as error:
    raise ValueError(f'{name} is not valid SVG: {error!r}') from error
  if not lines:
    raise ValueError(f'{name} has no paths, lines or shapes')
  if not all(np.all(np.isfinite(line)) for line in lines):
    raise ValueError(f'{name} has coordinates that are NaN or infinite')
  return lines


def _lines(
  paths: list[svgelements.Path], tolerance: float | None
) -> list[np.ndarray]:
  if tolerance is None:
    corners = [_corners(segment) for path in paths for segment in path]
    points = np.concatenate([np.zeros((0, 2)), *corners])
    if not np.all(np.isfinite(points)):
      raise svg_elements.Problem('has coordinates that are NaN or infinite')
    extent = np.max(np.ptp(points, axis=0)) if len(points) else 0.0
    tolerance = extent * _SHARE or 1.0
  lines, left = [], _MAX_POINTS
  for path in paths:
    for line in _flatten(path, tolerance):
      left -= len(line)
      if left < 0:
        raise svg_elements.Problem(
          f'has more than {_MAX_POINTS} points: simplify it'
        )
      lines.append(line)
  return lines


def _corners(segment) -> np.ndarray:
  """The points that define a segment, and bound all but arcs: f64[n, 2]."""
  if isinstance(segment, svgelements.Move):
    return np.zeros((0, 2))  # A move alone draws nothing.
  points = [segment.start, segment.end]
  if isinstance(segment, svgelements.Arc):
    points += [segment.prx, segment.pry]
  elif isinstance(segment, svgelements.CubicBezier):
    points += [segment.control1, segment.control2]
  elif isinstance(segment, svgelements.QuadraticBezier):
    points.append(segment.control)
  found = [[p.x, p.y] for p in points if p is not None]
  return np.array(found, float).reshape(-1, 2)


def _flatten(path: svgelements.Path, tolerance: float) -> list[np.ndarray]:
  """One line for each time that the pen is down."""
  lines: list[list[np.ndarray]] = []
  for segment in path:
    if isinstance(segment, svgelements.Move):
      lines.append([np.array([[segment.end.x, segment.end.y]])])
    elif segment.start is not None and segment.end is not None:
      lines[-1].append(_points(segment, tolerance))
      if isinstance(segment, svgelements.Close):
        # A segment without a move begins where this line began.
        lines.append([np.array([[segment.end.x, segment.end.y]])])
  joined = [np.concatenate(line) for line in lines]
  # A move alone draws nothing.
  return [line for line in joined if len(line) > 1]


def _points(segment, tolerance: float) -> np.ndarray:
  """The points of a segment, without its first: f64[n, 2]."""
  if isinstance(segment, svgelements.Arc):
    return _arc(segment, tolerance)
  if isinstance(segment, svgelements.CubicBezier):
    corners = [segment.start, segment.control1, segment.control2, segment.end]
  elif isinstance(segment, svgelements.QuadraticBezier):
    corners = [segment.start, segment.control, segment.end]
  else:
    corners = [segment.start, segment.end]
  return _bezier(np.array([[p.x, p.y] for p in corners], float), tolerance)


def _arc(arc: svgelements.Arc, tolerance: float) -> np.ndarray:
  """Points of an arc at equal steps of its parameter, without the first.

  The distance of a line over the angle a from a circle is at most r a^2 / 8.
  """
  end = np.array([[arc.end.x, arc.end.y]], float)
  center = np.array([arc.center.x, arc.center.y], float)
  radii = np.array([[arc.prx.x, arc.prx.y], [arc.pry.x, arc.pry.y]], float) - (
    center
  )
  size = np.linalg.norm(radii, axis=1)
  if not np.all(np.isfinite(size)) or size.min() <= 0:
    return end
  # The start in the frame of both radii.
  start = np.array([arc.start.x, arc.start.y], float) - center
  (cos, sin), *_ = np.linalg.lstsq(radii.T, start, rcond=None)
  sweep = float(arc.sweep)
  # The sign of the sweep is for radii that turn clockwise on the page.
  if radii[0, 0] * radii[1, 1] - radii[0, 1] * radii[1, 0] < 0:
    sweep = -sweep
  count = np.ceil(abs(sweep) * np.sqrt(size.max() / (8 * tolerance)))
  count = int(np.clip(count, 1, _MAX_POINTS_OF_A_CURVE))
  t = np.arctan2(sin, cos) + sweep * np.arange(1, count)[:, None] / count
  points = center + np.cos(t) * radii[0] + np.sin(t) * radii[1]
  return np.concatenate([points, end])


def _bezier(corners: np.ndarray, tolerance: float) -> np.ndarray:
  """Points of a Bezier curve at equal steps, without the first.

  The distance of n lines from a curve of degree d is at most
  d (d - 1) / (8 n^2) times the largest second difference of the corners
  (Wang's bound).
  """
  degree = len(corners) - 1
  points = corners[None]
  if degree > 1:
    bend = np.max(np.linalg.norm(np.diff(corners, n=2, axis=0), axis=1))
    bound = degree * (degree - 1) / 8 * bend / tolerance
    count = np.clip(np.ceil(np.sqrt(bound)), 1, _MAX_POINTS_OF_A_CURVE)
    t = np.linspace(0, 1, int(count) + 1)[1:, None, None]
    points = np.repeat(points, int(count), axis=0)
  else:
    t = 1.0
  for _ in range(degree):  # De Casteljau.
    points = (1 - t) * points[:, :-1] + t * points[:, 1:]
  return points[:, 0]
