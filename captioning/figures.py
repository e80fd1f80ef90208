"""Figures of captions: an image, and the attention of each word.

Axes: H, W pixels, T words, L locations.
"""

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import figure
from matplotlib.backends import backend_agg
from PIL import Image

_COLUMNS = 10  # Panels in a row.
# Lengths are in inches.
_SIDE = 1.6  # Of the image.
_PANEL = 1.0  # Of the image under the attention of one word.
_GAP = 0.1
_TITLE = 0.2  # Above a panel.
_POINT = 1 / 72
_LINE = 1.25  # Line height, in font sizes.

# The share of the heat in a shaded image; the rest is the image in greys.
_COLDEST, _HOTTEST = 0.2, 0.6
# matplotlib's 'inferno' at 17 equal distances: lightness grows evenly with the
# weight. The pages have the same table.
_HEAT = np.array(
  [
    (0, 0, 4),
    (11, 7, 36),
    (33, 12, 74),
    (61, 9, 101),
    (87, 16, 110),
    (113, 25, 110),
    (138, 34, 106),
    (163, 44, 97),
    (188, 55, 84),
    (210, 70, 68),
    (228, 90, 49),
    (241, 115, 29),
    (249, 142, 9),
    (252, 172, 17),
    (249, 203, 53),
    (242, 234, 105),
    (252, 255, 164),
  ],
  np.float32,
)

# Verdict -> its mark and its colour, which a colour-blind reader can tell too.
_MARKS = {
  True: ('\N{CHECK MARK} true', '#00695c'),
  False: ('\N{BALLOT X} false', '#b71c1c'),
}


def caption(
  image: np.ndarray,
  text: str,
  attention: np.ndarray | None = None,
  references: Sequence[str] = (),
  *,
  words: Sequence[str] | None = None,
  verdict: bool | None = None,
) -> np.ndarray:
  """A strip: an image, its caption and, with attention, a panel per word.

  As figure 5 of Xu et al. 2015: the brighter, the more weight.

  Args:
    image: uint8[H, W, 3].
    text: the caption.
    attention: f32[T, L], a row for each of `words` (more rows, as for
      EOS, are left out), L a square grid in reading order; or None.
    references: human captions, printed below the caption.
    words: of the caption; None for what is between its spaces.
    verdict: marks the caption as true or false.

  Returns:
    uint8[H', W', 3].
  """
  if words is None:
    words = text.split(' ') if text else []
  words = words if attention is not None else ()
  paragraphs = [] if verdict is None else [(*_MARKS[verdict], 11)]
  paragraphs += [(text or '(no words)', 'black', 13)]
  paragraphs += [(f'- {reference}', '0.35', 9) for reference in references]
  room = _COLUMNS * (_PANEL + _GAP) - _GAP
  # A letter of an average text is 0.55 em wide in DejaVu Sans.
  lines = [
    (line, color, size)
    for paragraph, color, size in paragraphs
    for line in textwrap.wrap(paragraph, int(room / (0.6 * size * _POINT)))
  ]
  heading = sum(size for *_, size in lines) * _LINE * _POINT + _GAP

  rows = math.ceil(len(words) / _COLUMNS)
  width = _GAP + _SIDE + _GAP + room + _GAP
  height = 2 * _GAP + max(heading + rows * (_TITLE + _PANEL), _SIDE)
  sheet = figure.Figure(figsize=(width, height), dpi=100)
  canvas = backend_agg.FigureCanvasAgg(sheet)

  def panel(left, top, side, image):
    bottom = height - top - side
    axes = sheet.add_axes(
      (left / width, bottom / height, side / width, side / height)
    )
    axes.imshow(image)
    axes.axis('off')

  def write(left, top, line, **style):
    sheet.text(
      left / width, 1 - top / height, line, va='top', parse_math=False, **style
    )

  panel(_GAP, _GAP, _SIDE, image)
  top, start = _GAP, 2 * _GAP + _SIDE
  for line, color, size in lines:
    write(start, top, line, fontsize=size, color=color)
    top += size * _LINE * _POINT
  for i, word in enumerate(words):
    row, column = divmod(i, _COLUMNS)
    left = start + column * (_PANEL + _GAP)
    top = _GAP + heading + row * (_TITLE + _PANEL)
    # A long word must not run into its neighbours.
    word = word if len(word) <= 30 else f'{word[:29]}…'
    size = min(10, _PANEL / (0.65 * max(len(word), 1) * _POINT))
    write(left + _PANEL / 2, top + 0.03, word, fontsize=size, ha='center')
    panel(left, top + _TITLE, _PANEL, shade(image, attention[i]))
  canvas.draw()
  return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def shade(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Lays the weights over an image in greys, as colours of heat.

  The largest weight is the brightest, no weight is black.

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
  steps = np.linspace(0, 1, len(_HEAT))
  colours = [np.interp(heat, steps, channel) for channel in _HEAT.T]
  grey = image.mean(axis=-1, keepdims=True)
  share = (_COLDEST + (_HOTTEST - _COLDEST) * heat)[..., None]
  shaded = (1 - share) * grey + share * np.stack(colours, -1)
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
