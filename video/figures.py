"""Figures of results: confusions, curves of trackers, boxes, probabilities.

Axes: C classes, T frames, H height, W width in pixels.
"""

import math
import os
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
from matplotlib import figure
from matplotlib.backends import backend_agg
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFont

from video import metrics

# Distinct for colour-blind readers too (Okabe and Ito 2008).
COLOURS = (
  '#d55e00',
  '#0072b2',
  '#009e73',
  '#e69f00',
  '#56b4e9',
  '#cc79a7',
  '#f0e442',
  '#000000',
)
# Lengths are in inches.
_CELL = 0.3  # Side of a cell of a matrix.
_LETTER = 0.075  # Width of a letter of an axis label.
_HEADING = 14  # Pixels above a frame of a strip.
_MAX_WIDTH = 1600  # Of a strip of several frames, in pixels.
_GAP = 3  # Pixels between frames.


def confusion_matrix(matrix: np.ndarray, classes: Sequence[str]) -> np.ndarray:
  """A confusion matrix: true classes in rows, predicted ones in columns.

  A darker cell is a larger share of its row; the numbers are counts.

  Args:
    matrix: int[C, C], from `metrics.confusion_matrix`.
    classes: names of the C classes.

  Returns:
    uint8[H, W, 3].
  """
  count = len(classes)
  if matrix.shape != (count, count):
    raise ValueError(
      f'a matrix of {matrix.shape} does not fit {count} class names'
    )
  shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
  names = 0.6 + _LETTER * max(len(name) for name in classes)
  side = max(_CELL * count, 1.5)
  sheet, canvas = _sheet(names + side + 0.2, names + side + 0.2)
  size = names + side + 0.2
  axes = sheet.add_axes((names / size, names / size, side / size, side / size))
  axes.imshow(shares, cmap='Blues', vmin=0, vmax=1)
  ticks = range(count)
  axes.set_xticks(ticks, classes, rotation=90, fontsize=8, parse_math=False)
  axes.set_yticks(ticks, classes, fontsize=8, parse_math=False)
  axes.set_xlabel('recognised as')
  axes.set_ylabel('true class')
  for row, column in np.argwhere(matrix):
    axes.text(
      column,
      row,
      str(matrix[row, column]),
      ha='center',
      va='center',
      fontsize=7,
      color='white' if shares[row, column] > 0.5 else 'black',
    )
  return _pixels(canvas)


def success_and_precision(
  trackers: Mapping[str, metrics.OnePass],
) -> np.ndarray:
  """The success and the precision plot of OTB, side by side.

  The legend names the best tracker first.

  Returns:
    uint8[H, W, 3].
  """
  sheet, canvas = _sheet(10, 4)
  success, precision = sheet.subplots(1, 2)
  for axes, name, thresholds, curve in (
    (success, 'success_auc', metrics.OVERLAPS, 'success'),
    (precision, 'precision_20px', metrics.DISTANCES, 'precision'),
  ):
    colours = {
      tracker: COLOURS[i % len(COLOURS)] for i, tracker in enumerate(trackers)
    }
    ranked = sorted(trackers, key=lambda t, n=name: -trackers[t].numbers()[n])
    for tracker in ranked:
      number = trackers[tracker].numbers()[name]
      axes.plot(
        thresholds,
        getattr(trackers[tracker], curve),
        color=colours[tracker],
        label=f'{tracker} [{number:.3f}]'.lstrip('_'),
      )
    axes.set_xlim(thresholds[0], thresholds[-1])
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    _legend(axes)
  success.set(
    title='Success [area under the curve]',
    xlabel='overlap (IoU) threshold',
    ylabel='share of frames above it',
  )
  precision.axvline(20, color='0.5', linestyle=':')
  precision.set(
    title='Precision [at 20 pixels]',
    xlabel='threshold of the centre error, pixels',
    ylabel='share of frames within it',
  )
  sheet.tight_layout()
  return _pixels(canvas)


def draw_boxes(
  frame: np.ndarray,
  boxes: Mapping[str, np.ndarray],
  *,
  scale: int = 1,
  certainty: float | None = None,
) -> np.ndarray:
  """Draws boxes on a frame.

  Args:
    frame: uint8[H, W, 3].
    boxes: name -> f32[4], x, y of the upper left corner, width, height in
      pixels of the frame. Name i has colour i of `COLOURS`; boxes with NaN are
      not drawn.
    scale: factor by which the image is enlarged; lines stay thin.
    certainty: probability that the first box is on its target. It is written
      in the corner; below a half that box is broken.

  Returns:
    uint8[scale * H, scale * W, 3].
  """
  large = np.repeat(np.repeat(frame, scale, axis=0), scale, axis=1)
  image = Image.fromarray(large)
  brush = ImageDraw.Draw(image)
  width = max(2, round(min(image.size) / 160))
  for i, box in enumerate(boxes.values()):
    if not np.isfinite(box).all():
      continue
    x, y, box_width, box_height = (scale * float(v) for v in box)
    right, below = x + max(box_width, 1) - 1, y + max(box_height, 1) - 1
    colour = COLOURS[i % len(COLOURS)]
    corners = tuple(round(v) for v in (x, y, right, below))
    if i == 0 and certainty is not None and certainty < 0.5:
      _broken_rectangle(brush, corners, colour, width)
    else:
      brush.rectangle(corners, outline=colour, width=width)
  if certainty is not None:
    text = f'{100 * certainty:.0f} %'
    brush.rectangle((0, 0, _legend_width(text), 12), fill='white')
    brush.text((2, 0), text, fill='black')
  return np.asarray(image)


def _broken_rectangle(brush, corners, colour: str, width: int):
  """Draws a rectangle of dashes, four times as long as wide."""
  left, top, right, below = corners
  dash = 4 * width
  for x in range(left, right + 1, 2 * dash):
    for y in (top, below):
      brush.line((x, y, min(x + dash, right), y), fill=colour, width=width)
  for y in range(top, below + 1, 2 * dash):
    for x in (left, right):
      brush.line((x, y, x, min(y + dash, below)), fill=colour, width=width)


def overlay_strip(
  frames: Sequence[np.ndarray],
  boxes: Mapping[str, np.ndarray],
  *,
  count: int = 8,
  side: int = 160,
  certainty: Sequence[float] | None = None,
) -> np.ndarray:
  """A strip of some frames with boxes, their numbers above them.

  Frames that do not fit in one row are set in several.

  Args:
    frames: T frames uint8[H, W, 3].
    boxes: name -> f32[T, 4]; a legend below names the colours.
    count: maximum number of frames, evenly spaced from the first to the last.
    side: small frames are enlarged, by a whole number, to about this height.
    certainty: f64[T], probabilities, written above the frames.

  Returns:
    uint8[H', W', 3].
  """
  if not len(frames):
    raise ValueError('there are no frames to draw: pass at least one')
  chosen = _evenly(len(frames), count)
  scale = max(1, side // frames[0].shape[0])
  images = [
    draw_boxes(
      frames[t], {name: track[t] for name, track in boxes.items()}, scale=scale
    )
    for t in chosen
  ]
  height, width = (side + _GAP for side in images[0].shape[:2])
  height += _HEADING
  rows = math.ceil(len(images) / max(1, _MAX_WIDTH // width))
  columns = math.ceil(len(images) / rows)
  legend = [_legend_width(name) for name in boxes]
  sheet = Image.new(
    'RGB',
    (
      max(columns * width - _GAP, sum(legend)),
      rows * height - _GAP + (_GAP + _HEADING if boxes else 0),
    ),
    'white',
  )
  brush = ImageDraw.Draw(sheet)
  for i, (t, image) in enumerate(zip(chosen, images, strict=True)):
    left, top = i % columns * width, i // columns * height
    text = str(t)
    if certainty is not None:
      text += f': {100 * certainty[t]:.0f} %'
    brush.text((left + 1, top + 1), text, fill='black')
    sheet.paste(Image.fromarray(image), (left, top + _HEADING))
  left, top = 0, rows * height
  for i, name in enumerate(boxes):
    colour = COLOURS[i % len(COLOURS)]
    brush.rectangle((left + 1, top + 2, left + 9, top + 10), fill=colour)
    brush.text((left + 13, top), name, fill='black')
    left += legend[i]
  return np.asarray(sheet)


def class_probabilities(
  probabilities: np.ndarray,
  classes: Sequence[str],
  *,
  frames: Sequence[np.ndarray] | None = None,
  seconds: np.ndarray | None = None,
  top: int = 5,
) -> np.ndarray:
  """A plot of the probability of each class over time.

  Args:
    probabilities: f32[T, C].
    classes: names of the C classes.
    frames: T frames uint8[H, W, 3] or uint8[H, W, 1]; some are shown above.
    seconds: f64[T], the time of each frame; None counts frames.
    top: number of classes in the legend, those of the largest probabilities.

  Returns:
    uint8[H', W', 3].
  """
  length, count = probabilities.shape
  if count != len(classes):
    raise ValueError(
      f'{count} probabilities a frame do not fit {len(classes)} class names'
    )
  times = np.arange(length) if seconds is None else np.asarray(seconds)
  sheet, canvas = _sheet(8, 3.2 if frames is None else 4.2)
  if frames is None:
    axes = sheet.subplots()
  else:
    above, axes = sheet.subplots(2, height_ratios=(1, 3))
    above.imshow(_row(frames, count=8))
    above.axis('off')
  # Ties go to the first class: argsort of the negative is stable.
  order = np.argsort(-probabilities.max(axis=0), kind='stable')
  for rank, i in enumerate(order):
    named = rank < top
    axes.plot(
      times,
      probabilities[:, i],
      color=COLOURS[rank % len(COLOURS)] if named else '0.8',
      marker='.' if length == 1 else None,
      # An underscore at the start would hide the name.
      label=str(classes[i]).lstrip('_') if named else '_',
      zorder=2 if named else 1,
    )
  axes.set(
    xlabel='frame' if seconds is None else 'seconds',
    ylabel='probability',
    ylim=(0, 1.02),
  )
  if length > 1:
    axes.set_xlim(times[0], times[-1])
  axes.grid(alpha=0.3)
  _legend(axes, loc='center left', bbox_to_anchor=(1, 0.5))
  sheet.tight_layout()
  return _pixels(canvas)


def save(image: np.ndarray, path: str | os.PathLike):
  """Writes uint8[H, W, 3] to an image file."""
  Image.fromarray(image).save(path)


def _sheet(width: float, height: float):
  sheet = figure.Figure(figsize=(width, height), dpi=100)
  return sheet, backend_agg.FigureCanvasAgg(sheet)


def _legend(axes, **where):
  for text in axes.legend(fontsize=8, **where).get_texts():
    text.set_parse_math(False)  # A name may have a dollar sign.


def _pixels(canvas) -> np.ndarray:
  canvas.draw()
  return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _evenly(length: int, count: int) -> np.ndarray:
  """At most `count` evenly spaced indices below `length`, with both ends."""
  indices = np.linspace(0, length - 1, min(count, length))
  return np.unique(indices.round().astype(int))


def _row(frames: Sequence[np.ndarray], count: int) -> np.ndarray:
  """Some frames beside each other on white: uint8[H, W', 3]."""
  chosen = [frames[t] for t in _evenly(len(frames), count)]
  chosen = [np.repeat(f, 3, -1) if f.shape[-1] == 1 else f for f in chosen]
  gap = max(1, chosen[0].shape[1] // 16)
  padded = [
    np.pad(f, ((0, 0), (0, gap), (0, 0)), constant_values=255) for f in chosen
  ]
  return np.concatenate(padded, axis=1)[:, :-gap]


def _legend_width(name: str) -> int:
  """Width in pixels of a square of colour, a name and a margin."""
  return 13 + math.ceil(ImageFont.load_default().getlength(name)) + 12
