"""Reads what a client sends: JSON, of which nothing is taken on trust.

Axes: n points of a line, Z latent.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from sketch_rnn import generation
from sketch_rnn import strokes

# A pen may leave the drawing space, but not get lost: in units of its size.
_FARTHEST = 20.0
_REQUIRED = object()
_DIGITS = 3  # Of coordinates: a thousandth of a pixel.
MOST_SEED = 2**31 - 1
# The fields that say how drawings are drawn.
DRAWN = ('temperature', 'greedy', 'seed', 'category')


class Problem(Exception):
  """What is wrong with a request, told to the client.

  Attributes:
    status: the HTTP status that fits.
    text: what is wrong, and what to do.
  """

  def __init__(self, status: int, text: str):
    """Takes the two."""
    super().__init__(text)
    self.status = status
    self.text = text


@dataclasses.dataclass(frozen=True)
class Limits:
  """What one request may ask for.

  Attributes:
    points: of a drawing, as the pen gave them.
    lines: of a drawing.
    count: drawings at once.
    open: drawings under way, of one WebSocket.
    message_bytes: of JSON.
    photo_bytes: of a picture's file.
    photo_pixels: of a picture.
    photo_ratio: of its longer side to the shorter.
    video_bytes: of a video's file.
    video_frames: that are looked at.
    uploads: photographs and videos that arrive or are decoded at a time.
    seconds: that a body may take to arrive.
  """

  points: int = 10_000
  lines: int = 500
  count: int = 12
  open: int = 16
  message_bytes: int = 1_000_000
  photo_bytes: int = 20_000_000
  photo_pixels: int = 50_000_000
  photo_ratio: float = 20.0
  video_bytes: int = 50_000_000
  video_frames: int = 1_000
  uploads: int = 16
  seconds: float = 30.0


def parse(text: str | bytes) -> dict[str, Any]:
  """A JSON object.

  Raises:
    Problem: it is none, or has a NaN.
  """
  try:
    message = json.loads(text, parse_constant=_no_constant)
  except (ValueError, RecursionError) as error:
    raise Problem(400, f'this is not JSON: {error}') from error
  if not isinstance(message, dict):
    raise Problem(400, 'send a JSON object, {"field": value, ...}')
  return message


def _no_constant(name: str):
  raise ValueError(f'{name} is not a number of JSON')


def check_fields(message: dict[str, Any], known: Sequence[str]):
  """Raises a Problem where there is a field that means nothing."""
  for field in message:
    if field not in known:
      raise Problem(
        400, f'no such field: {_shown(field)}; there are {", ".join(known)}'
      )


def integer(
  message: dict[str, Any],
  field: str,
  least: int,
  most: int,
  default: Any = _REQUIRED,
) -> Any:
  """A whole number; `default` where the field is absent or null.

  Raises:
    Problem: it is missing, of another type, or out of bounds.
  """
  value = _value(message, field, default)
  if value is default:
    return default
  if type(value) is not int or not least <= value <= most:
    raise Problem(
      400,
      f'{field} must be a whole number from {least} to {most}, not '
      f'{_shown(value)}',
    )
  return value


def flag(message: dict[str, Any], field: str) -> bool:
  """True or false, which it is where it is absent.

  Raises:
    Problem: it is something else.
  """
  value = _value(message, field, False)
  if type(value) is not bool:
    raise Problem(400, f'{field} must be true or false, not {_shown(value)}')
  return value


def text(message: dict[str, Any], field: str, default: Any = _REQUIRED) -> Any:
  """A string; `default` where the field is absent or null.

  Raises:
    Problem: it is missing, or of another type.
  """
  value = _value(message, field, default)
  if value is not default and not isinstance(value, str):
    raise Problem(400, f'{field} must be a string, not {_shown(value)}')
  return value


def sampling(message: dict[str, Any]) -> generation.Sampling:
  """How points are chosen: `temperature`, at 0 greedily, and `greedy`.

  As on the authors' page: at low temperatures, too, the pen is lifted.

  Raises:
    Problem: there is no such temperature.
  """
  temperature = _value(message, 'temperature', _REQUIRED)
  if type(temperature) not in (int, float) or not 0 <= temperature <= 2:
    raise Problem(
      400, f'temperature must be from 0 to 2, not {_shown(temperature)}'
    )
  greedy = flag(message, 'greedy') or temperature < 0.01
  return generation.Sampling(
    1.0 if greedy else float(temperature), greedy=greedy, choices='js'
  )


def lines(
  message: dict[str, Any], field: str, size: int, limits: Limits
) -> list[np.ndarray]:
  """The lines of a drawing: f64[n, 2] each, n above 0.

  Args:
    message: of a client.
    field: that has them.
    size: of the drawing space.
    limits: how many there may be.

  Raises:
    Problem: they are missing, malformed or too many.
  """
  value = _value(message, field, _REQUIRED)
  if not isinstance(value, list) or not all(isinstance(x, list) for x in value):
    raise Problem(400, f'{field} must be a list of lines [[[x, y], ...], ...]')
  if len(value) > limits.lines:
    raise Problem(
      400,
      f'{field} has {len(value)} lines, at most {limits.lines} are taken: '
      'begin a new drawing',
    )
  count = sum(map(len, value))
  if count > limits.points:
    raise Problem(
      400,
      f'{field} has {count} points, at most {limits.points} are taken: begin '
      'a new drawing',
    )
  found = []
  for i, line in enumerate(value):
    for point in line:
      if (
        not isinstance(point, list)
        or len(point) != 2
        or not _is_number(point[0], _FARTHEST * size)
        or not _is_number(point[1], _FARTHEST * size)
      ):
        raise Problem(
          400,
          f'{field}: line {i} has a point {_shown(point)}; it must be two '
          f'numbers between -{_FARTHEST * size:g} and {_FARTHEST * size:g}',
        )
    if not line:
      raise Problem(400, f'{field}: line {i} has no points')
    found.append(np.array(line, np.float64))
  return found


def vectors(
  message: dict[str, Any], field: str, length: int, limits: Limits
) -> np.ndarray:
  """Some latent vectors: f32[n, Z], n above 0.

  Raises:
    Problem: they are missing, malformed or too many.
  """
  value = _value(message, field, _REQUIRED)
  if not isinstance(value, list) or not 1 <= len(value) <= limits.count:
    raise Problem(
      400, f'{field} must be a list of 1 to {limits.count} latent vectors'
    )
  for i, vector in enumerate(value):
    if (
      not isinstance(vector, list)
      or len(vector) != length
      or not all(_is_number(x, 1e4) for x in vector)
    ):
      raise Problem(
        400,
        f'{field}: vector {i} is not one of this model: {length} numbers '
        'between -10000 and 10000',
      )
  return np.array(value, np.float32)


def to_drawing(
  lines: Sequence[np.ndarray], size: int, *, pen_down: bool = False
) -> np.ndarray:
  """What a person drew, as the models know it: lines -> f32[N, 3].

  Lines are simplified as QuickDraw's are, at the scale of this drawing space;
  their ends stay.

  Args:
    lines: f64[n, 2] each.
    size: of the drawing space.
    pen_down: the last line is not finished.
  """
  epsilon = strokes.EPSILON * size / strokes.SIZE
  drawing = strokes.from_lines(
    [strokes.simplify(line, epsilon) for line in lines]
  )
  if pen_down and len(drawing):
    drawing[-1, 2] = 0
  return drawing


def check_length(drawing: np.ndarray, length: int, what: str = 'the drawing'):
  """Raises a Problem where a model cannot take a drawing in.

  Args:
    drawing: f32[N, 3].
    length: the most points that the model takes.
    what: the drawing is.
  """
  if len(drawing) > length:
    raise Problem(
      400,
      f'{what} has {len(drawing)} points, even simplified: this model has room '
      f'for {length}. Undo some lines, or begin a new drawing',
    )


def check_whole(drawing: np.ndarray, length: int, what: str):
  """Raises a Problem where a drawing cannot be encoded; see `check_length`."""
  try:
    strokes.check(drawing)
  except ValueError as error:
    raise Problem(400, f'{what}: {error}. Draw some more') from error
  check_length(drawing, length, what)


def _value(message: dict[str, Any], field: str, default: Any) -> Any:
  value = message.get(field)
  if value is not None:
    return value
  if default is _REQUIRED:
    raise Problem(400, f'{field} is missing')
  return default


def _is_number(value: Any, most: float) -> bool:
  return (
    type(value) in (int, float) and abs(value) <= most and math.isfinite(value)
  )


def _shown(value: Any) -> str:
  """The beginning of a value that may be of any length."""
  shown = json.dumps(value, ensure_ascii=False, default=str)
  return shown if len(shown) <= 60 else f'{shown[:57]}...'


def find(table: Mapping[str, Any], name: str | None) -> Any:
  """The model of that name.

  Raises:
    Problem: no name is given, or there is no such model.
  """
  if name is None:
    raise Problem(400, 'model is missing')
  model = table.get(name)
  if model is None:
    raise Problem(
      404,
      f'there is no such model here, or not yet; there are: '
      f'{", ".join(table) or "none"}',
    )
  return model


def label(classes: Sequence[str], message: dict[str, Any]) -> int | None:
  """Of the category; the first where none is named, None without classes.

  Raises:
    Problem: the model does not know the category.
  """
  category = text(message, 'category', None)
  if category is None:
    return 0 if classes else None
  if category not in classes:
    raise Problem(
      400,
      f'category: this model knows {", ".join(classes) or "no categories"}',
    )
  return classes.index(category)


def rounded(value: float) -> float:
  """A number as it is sent."""
  return round(float(value), _DIGITS)
