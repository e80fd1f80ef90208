"""Figures of captions: an image, and the attention of each word.

Axes: H, W pixels, T words, L locations.
"""

import math
import textwrap

import numpy as np
from matplotlib import figure
from matplotlib.backends import backend_agg
from PIL import Image

_COLUMNS = 6
# Lengths are in inches.
_SIDE = 1.6  # Of a panel.
_GAP = 0.1
_TITLE = 0.25  # Above a panel.
_POINT = 1 / 72
_LINE = 1.25  # Line height, in font sizes.


def caption(
  image: np.ndarray,
  text: str,
  attention: np.ndarray | None = None,
  references: tuple[str, ...] = (),
) -> np.ndarray:
  """A figure of an image and its caption; with attention, a panel per word.

  As figure 5 of Xu et al. 2015: the brighter, the more weight.

  Args:
    image: uint8[H, W, 3].
    text: the caption; its words are separated by spaces.
    attention: f32[T, L], a row for each word of `text` (more rows, as for
      EOS, are left out), L a square grid in reading order; or None.
    references: human captions, printed below the caption.

  Returns:
    uint8[H', W', 3].
  """
  words = text.split(' ') if attention is not None and text else []
  # A letter of an average text is 0.55 em wide in DejaVu Sans.
  paragraphs = [(text or '(no words)', 13, 'black')]
  paragraphs += [(f'- {reference}', 9, '0.35') for reference in references]
  room = (_COLUMNS - 1) * (_SIDE + _GAP) - _GAP
  lines = [
    (line, size, color)
    for paragraph, size, color in paragraphs
    for line in textwrap.wrap(paragraph, int(room / (0.6 * size * _POINT)))
  ]
  heading = sum(size for _, size, _ in lines) * _LINE * _POINT + _GAP
  heading = max(heading, _SIDE)

  rows = math.ceil(len(words) / _COLUMNS)
  width = _GAP + _COLUMNS * (_SIDE + _GAP)
  height = _GAP + heading + rows * (_TITLE + _SIDE) + _GAP
  sheet = figure.Figure(figsize=(width, height), dpi=100)
  canvas = backend_agg.FigureCanvasAgg(sheet)

  def panel(left, top, image):
    bottom = height - top - _SIDE
    axes = sheet.add_axes(
      (left / width, bottom / height, _SIDE / width, _SIDE / height)
    )
    axes.imshow(image)
    axes.axis('off')

  def write(left, top, line, **style):
    sheet.text(
      left / width, 1 - top / height, line, va='top', parse_math=False, **style
    )

  panel(_GAP, _GAP, image)
  top = _GAP
  for line, size, color in lines:
    write(2 * _GAP + _SIDE, top, line, fontsize=size, color=color)
    top += size * _LINE * _POINT
  for i, word in enumerate(words):
    row, column = divmod(i, _COLUMNS)
    left = _GAP + column * (_SIDE + _GAP)
    top = _GAP + heading + row * (_TITLE + _SIDE)
    # A long word must not run into its neighbours.
    word = word if len(word) <= 30 else f'{word[:29]}…'
    size = min(11, _SIDE / (0.65 * max(len(word), 1) * _POINT))
    write(left + _SIDE / 2, top + 0.05, word, fontsize=size, ha='center')
    panel(left, top + _TITLE, shade(image, attention[i]))
  canvas.draw()
  return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def shade(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Darkens an image where there is no weight.

  Args:
    image: uint8[H, W, 3].
    weights: f32[L], L a square.

  Returns:
    uint8[H, W, 3].

  Raises:
    ValueError: L is not a square.
  """
  side = math.isqrt(len(weights))
  if side**2 != len(weights):
    raise ValueError(f'{len(weights)} weights are no square grid')
  height, width, _ = image.shape
  heat = Image.fromarray(weights.reshape(side, side).astype(np.float32))
  # Bicubic overshoots below zero at sharp peaks.
  heat = np.maximum(heat.resize((width, height), Image.BICUBIC), 0)
  heat = heat / max(heat.max(), 1e-9)
  grey = image.mean(axis=-1, keepdims=True)
  shaded = 0.35 * grey + 0.65 * heat[..., None] * image
  return shaded.astype(np.uint8)


def stack(images: list[np.ndarray]) -> np.ndarray:
  """Puts images below each other on white: list of uint8[H, W, 3]."""
  width = max(image.shape[1] for image in images)
  return np.concatenate(
    [
      np.pad(
        image,
        ((0, 0), (0, width - image.shape[1]), (0, 0)),
        constant_values=255,
      )
      for image in images
    ]
  )


def save(image: np.ndarray, path):
  """Writes uint8[H, W, 3] to an image file."""
  Image.fromarray(image).save(path)
