"""Reads the lines of an SVG file: paths and shapes, with curves as short lines.

Fills, widths and colours are ignored; text and embedded images are left out.

Axes: n points of a line.
"""

import io
import os

import defusedxml
import defusedxml.ElementTree
import numpy as np
import svgelements

_MAX_BYTES = 10_000_000
# Elements that draw nothing where they are written.
_NOT_DRAWN = ('clipPath', 'marker', 'mask', 'pattern', 'symbol', 'text')
_TOLERANCE = 0.1  # Maximum distance of a line from its curve, in file units.


def read(
  path: str | os.PathLike, *, tolerance: float = _TOLERANCE
) -> list[np.ndarray]:
  """The lines in the order of the file, transformations applied: f32[n, 2].

  Entities are not expanded, and no other files are opened.

  Args:
    path: path of the SVG file.
    tolerance: maximum distance of lines from the curves that they replace, in
      units of the file.

  Raises:
    ValueError: the file is not SVG, not safe to read, or without lines.
  """
  name = os.fspath(path)
  with open(path, 'rb') as file:
    text = file.read(_MAX_BYTES + 1)
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
  except defusedxml.ElementTree.ParseError as error:
    raise ValueError(f'{name} is not XML: {error}') from error
  if _tag(root) != 'svg':
    raise ValueError(f'{name} is <{_tag(root)}>, not <svg>')
  for parent in list(root.iter()):
    for child in list(parent):
      if _tag(child) == 'use':  # A few of them can make billions of copies.
        raise ValueError(
          f'{name} has copies (<use>), which are not read: save it as plain '
          'SVG, all objects as paths'
        )
      if _tag(child) in _NOT_DRAWN:
        parent.remove(child)
  try:
    document = svgelements.SVG.parse(
      io.BytesIO(defusedxml.ElementTree.tostring(root)), reify=True
    )
    lines = [
      line
      for element in document.elements()
      if isinstance(element, svgelements.Shape)
      for line in _flatten(svgelements.Path(element), tolerance)
    ]
  except (
    ValueError,
    TypeError,
    AttributeError,
    IndexError,
    RecursionError,
    ZeroDivisionError,
  ) as error:
    raise ValueError(f'{name} is not valid SVG: {error!r}') from error
  if not lines:
    raise ValueError(f'{name} has no paths, lines or shapes')
  if not all(np.all(np.isfinite(line)) for line in lines):
    raise ValueError(f'{name} has coordinates that are NaN or infinite')
  return lines


def _tag(element) -> str:
  """The name of an element without its namespace; '' of a comment."""
  return str(element.tag).rpartition('}')[2]


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
  return [line.astype(np.float32) for line in joined if len(line) > 1]


def _points(segment, tolerance: float) -> np.ndarray:
  """The points of a segment, without its first: f64[n, 2]."""
  if isinstance(segment, svgelements.Arc):
    return np.concatenate(
      [_points(curve, tolerance) for curve in segment.as_cubic_curves()]
      or [np.array([[segment.end.x, segment.end.y]])]
    )
  if isinstance(segment, svgelements.CubicBezier):
    corners = [segment.start, segment.control1, segment.control2, segment.end]
  elif isinstance(segment, svgelements.QuadraticBezier):
    corners = [segment.start, segment.control, segment.end]
  else:
    corners = [segment.start, segment.end]
  return _bezier(np.array([[p.x, p.y] for p in corners], float), tolerance)


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
    count = int(np.clip(np.ceil(np.sqrt(bound)), 1, 1000))
    t = np.linspace(0, 1, count + 1)[1:, None, None]
    points = np.repeat(points, count, axis=0)
  else:
    t = 1.0
  for _ in range(degree):  # De Casteljau.
    points = (1 - t) * points[:, :-1] + t * points[:, 1:]
  return points[:, 0]
