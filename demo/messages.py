"""Parses and checks the JSON messages of clients.

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
from sketch_rnn import svg

# Maximum absolute coordinate, in units of the size of the drawing space.
_MAX_COORDINATE = 20.0
_REQUIRED = object()
# Maximum distance of simplified lines of a file, over the size of the drawing.
_SVG_TOLERANCE = 0.5 / strokes.SIZE
_MAX_OF_A_FILE = 1e15  # Of coordinates, in units of the file.
_DIGITS = 3  # Decimals of coordinates in pixels.
MAX_SEED = 2**31 - 1
# The fields that control sampling.
SAMPLING = ('temperature', 'greedy', 'seed', 'category')


class Problem(Exception):
  """An invalid request; its text is sent to the client.

  Attributes:
    status: HTTP status.
    text: describes the error and what to do.
  """

  def __init__(self, status: int, text: str):
    """Stores the status and the text."""
    super().__init__(text)
    self.status = status
    self.text = text


@dataclasses.dataclass(frozen=True)
class Limits:
  """Upper limits on requests.

  Attributes:
    points: points of a drawing, before simplification.
    lines: lines of a drawing.
    count: drawings of one request.
    open: drawings in progress on one WebSocket.
    message_bytes: size of a JSON message.
    image_bytes: size of an image file.
    image_pixels: pixels of an image.
    image_ratio: ratio of the longer side of an image to the shorter.
    video_bytes: size of a video file.
    video_frames: decoded frames of a video.
    uploads: images and videos received or decoded at the same time.
    seconds: time to receive the body of a request.
  """

  points: int = 10_000
  lines: int = 500
  count: int = 12
  open: int = 16
  message_bytes: int = 1_000_000
  image_bytes: int = 20_000_000
  image_pixels: int = 50_000_000
  image_ratio: float = 20.0
  video_bytes: int = 50_000_000
  video_frames: int = 1_000
  uploads: int = 16
  seconds: float = 30.0


def parse(text: str | bytes) -> dict[str, Any]:
  """Parses a JSON object.

  Raises:
    Problem: the text is not a JSON object, or contains NaN or Infinity.
  """
  try:
    message = json.loads(text, parse_constant=_no_constant)
  except (ValueError, RecursionError) as error:
    raise Problem(400, f'this is not JSON: {error}') from error
  if not isinstance(message, dict):
    raise Problem(400, 'send a JSON object, {"field": value, ...}')
  return message


def _no_constant(name: str):
  raise ValueError(f'{name} is not a JSON number')


def check_fields(message: dict[str, Any], known: Sequence[str]):
  """Raises a Problem if a message has an unknown field."""
  for field in message:
    if field not in known:
      raise Problem(
        400, f'no such field: {_shown(field)}; use {", ".join(known)}'
      )


def integer(
  message: dict[str, Any],
  field: str,
  minimum: int,
  maximum: int,
  default: Any = _REQUIRED,
) -> Any:
  """Reads an integer; `default` if the field is absent or null.

  Raises:
    Problem: the field is missing, of another type, or out of bounds.
  """
  value = _value(message, field, default)
  if value is default:
    return default
  if type(value) is not int or not minimum <= value <= maximum:
    raise Problem(
      400,
      f'{field} must be a whole number from {minimum} to {maximum}, not '
      f'{_shown(value)}',
    )
  return value


def flag(message: dict[str, Any], field: str) -> bool:
  """Reads a boolean; False if the field is absent or null.

  Raises:
    Problem: the field is of another type.
  """
  value = _value(message, field, False)
  if type(value) is not bool:
    raise Problem(400, f'{field} must be true or false, not {_shown(value)}')
  return value


def text(message: dict[str, Any], field: str, default: Any = _REQUIRED) -> Any:
  """Reads a string; `default` if the field is absent or null.

  Raises:
    Problem: the field is missing, or of another type.
  """
  value = _value(message, field, default)
  if value is not default and not isinstance(value, str):
    raise Problem(400, f'{field} must be a string, not {_shown(value)}')
  return value


def sampling(message: dict[str, Any]) -> generation.Sampling:
  """Reads how points are sampled: `temperature` (0: greedily) and `greedy`.

  Sampling is that of the authors' page, where the temperature does not keep the
  pen from lifting.

  Raises:
    Problem: the temperature is missing or out of bounds.
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


def share(message: dict[str, Any], field: str) -> float:
  """Reads a number from 0 to 1.

  Raises:
    Problem: the field is missing, of another type, or out of bounds.
  """
  value = _value(message, field, _REQUIRED)
  if type(value) not in (int, float) or not 0 <= value <= 1:
    raise Problem(400, f'{field} must be from 0 to 1, not {_shown(value)}')
  return float(value)


def lines(
  message: dict[str, Any], field: str, size: int, limits: Limits
) -> list[np.ndarray]:
  """Reads the lines of a drawing: f64[n, 2] each, with n > 0.

  Args:
    message: message of a client.
    field: name of the field.
    size: width and height of the drawing space.
    limits: upper limits.

  Raises:
    Problem: the lines are missing, malformed or too many.
  """
  value = _value(message, field, _REQUIRED)
  if not isinstance(value, list) or not all(isinstance(x, list) for x in value):
    raise Problem(400, f'{field} must be a list of lines [[[x, y], ...], ...]')
  if len(value) > limits.lines:
    raise Problem(
      400,
      f'{field} has {len(value)} lines, the maximum is {limits.lines}: begin a '
      'new drawing',
    )
  count = sum(map(len, value))
  if count > limits.points:
    raise Problem(
      400,
      f'{field} has {count} points, the maximum is {limits.points}: begin a '
      'new drawing',
    )
  bound = _MAX_COORDINATE * size
  found = []
  for i, line in enumerate(value):
    for point in line:
      if (
        not isinstance(point, list)
        or len(point) != 2
        or not _is_number(point[0], bound)
        or not _is_number(point[1], bound)
      ):
        raise Problem(
          400,
          f'{field}: line {i} has a point {_shown(point)}; it must be two '
          f'numbers between -{bound:g} and {bound:g}',
        )
    if not line:
      raise Problem(400, f'{field}: line {i} has no points')
    found.append(np.array(line, np.float64))
  return found


def vectors(
  message: dict[str, Any], field: str, length: int, limits: Limits
) -> np.ndarray:
  """Reads latent vectors: f32[n, Z], with n > 0.

  Raises:
    Problem: the vectors are missing, malformed or too many.
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
        f'{field}: vector {i} does not fit this model: it must have {length} '
        'numbers between -10000 and 10000',
      )
  return np.array(value, np.float32)


def to_drawing(
  lines: Sequence[np.ndarray], size: int, *, pen_down: bool = False
) -> np.ndarray:
  """Converts lines to the format of the models: f32[N, 3].

  Lines are simplified as in QuickDraw, at the scale of this drawing space; end
  points are kept.

  Args:
    lines: f64[n, 2] each.
    size: width and height of the drawing space.
    pen_down: the last line is not finished.
  """
  epsilon = strokes.EPSILON * size / strokes.SIZE
  drawing = strokes.from_lines(
    [strokes.simplify(line, epsilon) for line in lines]
  )
  if pen_down and len(drawing):
    drawing[-1, 2] = 0
  return drawing


def svg_lines(
  contents: bytes, size: int, limits: Limits
) -> list[list[list[float]]]:
  """The lines of an SVG file, simplified and fitted into the drawing space.

  Raises:
    Problem: the file cannot be read, or has too many lines.
  """
  try:
    found = svg.parse(contents, 'this file')
  except ValueError as error:
    raise Problem(400, f'{error}') from error
  if len(found) > limits.lines:
    raise Problem(
      400,
      f'this file has {len(found)} lines, the maximum is {limits.lines}: '
      'choose a simpler drawing',
    )
  if any(np.max(np.abs(line)) > _MAX_OF_A_FILE for line in found):
    raise Problem(
      400, f'this file has coordinates beyond {_MAX_OF_A_FILE:g}: scale it'
    )
  epsilon = _SVG_TOLERANCE * size
  made = [strokes.simplify(line, epsilon) for line in strokes.fit(found, size)]
  count = sum(map(len, made))
  if count > limits.points:
    raise Problem(
      400,
      f'this file has {count} points, the maximum is {limits.points}: choose a '
      'simpler drawing',
    )
  return [[[rounded(x), rounded(y)] for x, y in line] for line in made]


def check_length(drawing: np.ndarray, length: int, what: str = 'the drawing'):
  """Raises a Problem if a drawing is too long for a model.

  Args:
    drawing: f32[N, 3].
    length: maximum number of points of the model.
    what: name of the drawing in the message.
  """
  if len(drawing) > length:
    raise Problem(
      400,
      f'{what} has {len(drawing)} points, even simplified: this model reads up '
      f'to {length}. Undo some lines, or begin a new drawing',
    )


def check_whole(drawing: np.ndarray, length: int, what: str):
  """Raises a Problem if a drawing cannot be encoded; see `check_length`."""
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


def _is_number(value: Any, maximum: float) -> bool:
  return (
    type(value) in (int, float)
    and abs(value) <= maximum
    and math.isfinite(value)
  )


def _shown(value: Any) -> str:
  """A value as JSON, shortened to 60 characters."""
  shown = json.dumps(value, ensure_ascii=False, default=str)
  # Half of a surrogate pair is JSON, but cannot be sent as UTF-8.
  shown = shown.encode(errors='backslashreplace').decode()
  return shown if len(shown) <= 60 else f'{shown[:57]}...'


def find(table: Mapping[str, Any], name: str | None) -> Any:
  """Returns the model with a name.

  Raises:
    Problem: the name is missing, or no model has it.
  """
  if name is None:
    raise Problem(400, 'model is missing')
  model = table.get(name)
  if model is None:
    raise Problem(
      404,
      f'there is no such model; loaded are: {", ".join(table) or "none"}',
    )
  return model


def label(classes: Sequence[str], message: dict[str, Any]) -> int | None:
  """Reads the label of the category; by default the first one.

  Models without classes have the label None.

  Raises:
    Problem: the model has no such category.
  """
  category = text(message, 'category', None)
  if category is None:
    return 0 if classes else None
  if category not in classes:
    raise Problem(
      400,
      f'category: this model has {", ".join(classes) or "no categories"}',
    )
  return classes.index(category)


def rounded(value: float) -> float:
  """Rounds a number for sending."""
  return round(float(value), _DIGITS)
