"""Pictures of captions: which part of the photograph each word came from.

Axes: H, W pixels, T words, L locations.
"""

import io
import math

import numpy as np
from matplotlib import figure
from PIL import Image

_COLUMNS = 6
_SIDE = 1.7  # Inches of one panel.


def caption(
  picture: np.ndarray,
  text: str,
  attention: np.ndarray | None = None,
  references: tuple[str, ...] = (),
) -> np.ndarray:
  """The picture and its caption; with attention, one panel for each word.

  As figure 5 of Xu et al. 2015: the brighter, the more weight.

  Args:
    picture: uint8[H, W, 3].
    text: the caption; its words are separated by spaces.
    attention: f32[T, L], a row for each word of `text` (more rows, as for
      EOS, are left out), L a square grid in reading order; or None.
    references: human captions, printed below the caption.

  Returns:
    uint8[H', W', 3].
  """
  words = text.split(' ') if attention is not None and text else []
  rows = 1 + math.ceil(len(words) / _COLUMNS)
  sheet = figure.Figure(
    figsize=(_COLUMNS * _SIDE, rows * (_SIDE + 0.25)),
    dpi=100,
    layout='constrained',
  )
  grid = sheet.add_gridspec(rows, _COLUMNS)
  _panel(sheet.add_subplot(grid[0, 0]), picture)
  below = '\n'.join(f'- {reference}' for reference in references)
  title = sheet.add_subplot(grid[0, 1:])
  title.axis('off')
  title.text(0, 0.95, text or '(no words)', fontsize=13, va='top', wrap=True)
  title.text(0, 0.6, below, fontsize=8, va='top', color='0.35', wrap=True)
  for i, word in enumerate(words):
    row, column = divmod(i, _COLUMNS)
    axes = sheet.add_subplot(grid[1 + row, column])
    axes.set_title(word, fontsize=11, pad=3)
    _panel(axes, shade(picture, attention[i]))
  file = io.BytesIO()
  sheet.savefig(file, format='png')
  return np.asarray(Image.open(file).convert('RGB'))


def shade(picture: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Darkens a picture where there is no weight.

  Args:
    picture: uint8[H, W, 3].
    weights: f32[L], L a square.

  Returns:
    uint8[H, W, 3].

  Raises:
    ValueError: L is not a square.
  """
  side = math.isqrt(len(weights))
  if side**2 != len(weights):
    raise ValueError(f'{len(weights)} weights are no square grid')
  height, width, _ = picture.shape
  heat = Image.fromarray(weights.reshape(side, side).astype(np.float32))
  # Bicubic overshoots below zero at sharp peaks.
  heat = np.maximum(heat.resize((width, height), Image.BICUBIC), 0)
  heat = heat / max(heat.max(), 1e-9)
  grey = picture.mean(axis=-1, keepdims=True)
  shaded = 0.25 * grey + 0.75 * heat[..., None] * picture
  return shaded.astype(np.uint8)


def stack(pictures: list[np.ndarray]) -> np.ndarray:
  """Puts pictures below each other on white: list of uint8[H, W, 3]."""
  width = max(picture.shape[1] for picture in pictures)
  return np.concatenate(
    [
      np.pad(
        picture,
        ((0, 0), (0, width - picture.shape[1]), (0, 0)),
        constant_values=255,
      )
      for picture in pictures
    ]
  )


def save(picture: np.ndarray, path):
  """Writes uint8[H, W, 3] to an image file."""
  Image.fromarray(picture).save(path)


def _panel(axes, picture):
  axes.imshow(picture)
  axes.set_xticks([])
  axes.set_yticks([])
  for spine in axes.spines.values():
    spine.set_visible(False)
