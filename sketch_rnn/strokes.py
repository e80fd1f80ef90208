"""Drawings as offsets of a pen: formats, geometry and augmentation.

A drawing is stroke-3, f32[N, 3]: rows (dx, dy, lifted), where `lifted` is 1 if
the pen is lifted AFTER this point. y points down, as on a screen.

stroke-5 is what the network reads: rows (dx, dy, p1, p2, p3), where one of the
three is 1: the pen goes on drawing, is lifted, or the drawing has ended.

A list of lines holds absolute points, one array f32[n, 2] for each time that
the pen is down.

In QuickDraw's files a drawing begins at (0, 0) with the pen down: the first
point has no row, and the first row leads from it to the second. All functions
here assume this by default. In other files of the published code (the short
Kanji) the first row leads to the first point with the pen up; pass
`from_origin=False` for those.

Axes: N points of a drawing, T time (points and padding), n points of a line.
"""

from collections.abc import Iterable
from collections.abc import Sequence

import numpy as np
from simplification import cutil

START = np.array([0, 0, 1, 0, 0], np.float32)  # S0 of the paper.
END = np.array([0, 0, 0, 0, 1], np.float32)

# Of the published QuickDraw data: drawings fill 256 x 256 pixels, and lines are
# simplified with a tolerance of two pixels.
SIZE = 256
EPSILON = 2.0

# Points of a line that are simplified at once: each can be one more recursion
# of the library, whose stack ends at 20,000 or more, and takes time with the
# square of their number.
_MAX_PIECE = 2048
# Points of a resampled line: 400 times across a drawing of 256 pixels.
_MAX_RESAMPLED = 100_000


def check(drawing: np.ndarray):
  """Raises a ValueError that names the problem if `drawing` is malformed."""
  drawing = np.asarray(drawing)
  if drawing.ndim != 2 or drawing.shape[1] != 3:
    raise ValueError(f'shape {list(drawing.shape)} instead of [N, 3]')
  if drawing.dtype.kind not in 'biuf':
    raise ValueError(f'elements of type {drawing.dtype} instead of numbers')
  if not len(drawing):
    raise ValueError('no points')
  if not np.all(np.isfinite(drawing)):
    row = int(np.argmin(np.all(np.isfinite(drawing), axis=1)))
    raise ValueError(f'NaN or infinity in row {row}')
  if len(drawing) == 1 and not np.any(drawing[:, :2]):
    raise ValueError('only one point: a drawing needs a line')
  lifted = drawing[:, 2]
  if not np.all((lifted == 0) | (lifted == 1)):
    row = int(np.argmax((lifted != 0) & (lifted != 1)))
    raise ValueError(f'pen state {lifted[row]} in row {row} is not 0 or 1')
  if not np.any(lifted):
    raise ValueError('the pen is never lifted')


# Formats.


def to_stroke5(drawing: np.ndarray, length: int) -> np.ndarray:
  """Converts to stroke-5 and pads: f32[N, 3] -> f32[length + 1, 5].

  Row 0 is `START`, rows 1 to N are the drawing, all others are `END`. As in the
  published code, a drawing of exactly `length` points has no end row.
  """
  if len(drawing) > length:
    raise ValueError(
      f'a drawing of {len(drawing)} points does not fit into length={length}'
    )
  rows = np.tile(END, (length + 1, 1))
  rows[0] = START
  rows[1 : len(drawing) + 1] = _with_pen_states(drawing)
  return rows


def to_stroke3(rows: np.ndarray) -> np.ndarray:
  """Converts to stroke-3, up to the first end: f32[T, 5] -> f32[N, 3].

  Do not pass the `START` row: it would be taken for a point.
  """
  rows = np.asarray(rows, np.float32)
  ended = np.flatnonzero(rows[:, 4] > 0)
  if len(ended):
    rows = rows[: ended[0]]
  return rows[:, [0, 1, 3]]


def _with_pen_states(drawing: np.ndarray) -> np.ndarray:
  lifted = drawing[:, 2:]
  return np.concatenate(
    [drawing[:, :2], 1 - lifted, lifted, np.zeros_like(lifted)], axis=1
  )


def to_lines(
  drawing: np.ndarray, *, from_origin: bool = True
) -> list[np.ndarray]:
  """Converts to lines: f32[N, 3] -> list of f32[n, 2].

  With `from_origin` the first line begins at (0, 0), otherwise at the first
  row. A line of one point is a dot. The points after the last lift of the pen
  are a line too.
  """
  drawing = np.asarray(drawing, np.float64)
  if from_origin:
    drawing = np.concatenate([np.zeros((1, 3)), drawing])
  points = np.cumsum(drawing[:, :2], axis=0).astype(np.float32)
  ends = np.flatnonzero(drawing[:, 2]) + 1
  return [line for line in np.split(points, ends) if len(line)]


def from_lines(
  lines: Iterable[np.ndarray], *, from_origin: bool = True
) -> np.ndarray:
  """The inverse of `to_lines`: list of [n, 2] -> f32[N, 3].

  With `from_origin`, QuickDraw's convention, the first point becomes (0, 0) and
  has no row: the position of the drawing is lost. (If the first line is a dot,
  it has a row of its own, so that the pen is lifted after it.) Otherwise the
  first row is the offset of the first point from (0, 0).
  """
  lines = [np.asarray(line, np.float64) for line in lines if len(line)]
  if not lines:
    return np.zeros((0, 3), np.float32)
  points = np.concatenate(lines)
  offsets = np.diff(
    points, axis=0, prepend=points[:1] if from_origin else np.zeros((1, 2))
  )
  lifted = np.zeros(len(points))
  lifted[np.cumsum([len(line) for line in lines]) - 1] = 1
  drawing = np.column_stack([offsets, lifted]).astype(np.float32)
  return drawing[1:] if from_origin and not lifted[0] else drawing


# Geometry of lines.


def simplify(line: np.ndarray, epsilon: float = EPSILON) -> np.ndarray:
  """Ramer-Douglas-Peucker simplification: [n, 2] -> f32[m, 2].

  Both ends stay; points that are left out lie within `epsilon` of the result.
  Very long lines are simplified in pieces.
  """
  line = np.ascontiguousarray(line, np.float64)
  # Neighbouring pieces share a point.
  pieces = [
    line[start : start + _MAX_PIECE + 1]
    for start in range(0, max(len(line) - 1, 1), _MAX_PIECE)
  ]
  pieces = [
    cutil.simplify_coords(piece, epsilon) if len(piece) > 2 else piece
    for piece in pieces
  ]
  line = np.concatenate([pieces[0], *(piece[1:] for piece in pieces[1:])])
  return line.astype(np.float32)


def resample(line: np.ndarray, spacing: float = 1.0) -> np.ndarray:
  """Resamples a line at equal `spacing`, end included: [n, 2] -> f32[m, 2].

  Raises:
    ValueError: the line is too long.
  """
  line = np.asarray(line, np.float64)
  along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
  if not along[-1] <= _MAX_RESAMPLED * spacing:
    raise ValueError(
      f'a line of length {along[-1]:.0f}: at most {_MAX_RESAMPLED} points '
      f'{spacing} apart are read'
    )
  at = np.append(np.arange(0, along[-1], spacing), along[-1])
  return np.column_stack(
    [np.interp(at, along, line[:, 0]), np.interp(at, along, line[:, 1])]
  ).astype(np.float32)


def fit(lines: Sequence[np.ndarray], size: int = SIZE) -> list[np.ndarray]:
  """Moves and scales lines to coordinates from 0 to `size` - 1.

  x and y are scaled alike, so that only the longer side is filled.
  """
  points = np.concatenate(lines).astype(np.float64)
  low = points.min(axis=0)
  extent = np.max(points.max(axis=0) - low)
  scale = (size - 1) / extent if extent > 0 else 1.0
  return [((line - low) * scale).astype(np.float32) for line in lines]


def typical_size(drawings: Iterable[np.ndarray]) -> int:
  """The median of the longer sides of drawings, in pixels."""
  sides = [
    np.max(np.ptp(np.concatenate(lines), axis=0))
    for lines in map(to_lines, drawings)
    if lines
  ]
  side = float(np.median(sides)) if sides else SIZE
  return int(np.clip(side, 16, 4096)) if np.isfinite(side) else SIZE


# Normalisation and augmentation.


def clamp(drawing: np.ndarray, limit: float = 1000.0) -> np.ndarray:
  """Clamps all columns to [-limit, limit], as the published code does."""
  return np.clip(np.asarray(drawing, np.float32), -limit, limit)


def scale_factor(drawings: Iterable[np.ndarray]) -> float:
  """The standard deviation of all dx and dy of a training split, pooled.

  Pass clamped drawings. The offsets of all splits are divided by it.
  """
  offsets = np.concatenate([drawing[:, :2].ravel() for drawing in drawings])
  return float(np.std(offsets, dtype=np.float64))


def random_scale(
  drawing: np.ndarray, rng: np.random.Generator, spread: float
) -> np.ndarray:
  """Scales x and y by random factors from 1 - spread to 1 + spread."""
  factors = np.ones(3, np.float32)
  factors[:2] = rng.uniform(1 - spread, 1 + spread, size=2)
  return drawing * factors


def drop_points(
  drawing: np.ndarray, uniforms: np.ndarray, probability: float
) -> np.ndarray:
  """Drops points at random: f32[N, 3] -> f32[M, 3] with M <= N.

  This is `augment_strokes` of the published code; the paper does not mention
  it. A point may be dropped if the pen neither begins nor ends a line there and
  this holds for at least two points just before. Its offset is added to that of
  the last kept point, so that all other points stay where they are.

  Args:
    drawing: the points.
    uniforms: f64[N], random numbers in [0, 1), one for each point.
    probability: probability of dropping a point that may be dropped.
  """
  kept: list[list[float]] = []
  count, lifted_before = 0, True
  for (x, y, lifted), uniform in zip(
    drawing.tolist(), uniforms.tolist(), strict=True
  ):
    count = 0 if lifted or lifted_before else count + 1
    if count > 2 and uniform < probability:
      kept[-1][0] += x
      kept[-1][1] += y
    else:
      kept.append([x, y, lifted])
      lifted_before = bool(lifted)
  return np.array(kept, np.float32).reshape(-1, 3)
