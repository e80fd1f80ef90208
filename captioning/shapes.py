"""Paints coloured shapes on textured backgrounds: the images of `scenes`.

Coordinates are pixels, x to the right and y downwards.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image
from PIL import ImageDraw

SIDE = 64
COLOURS = {
  'red': (214, 39, 40),
  'orange': (255, 140, 0),
  'yellow': (250, 220, 30),
  'green': (40, 150, 60),
  'turquoise': (40, 205, 200),
  'blue': (35, 75, 205),
  'purple': (130, 50, 170),
  'pink': (255, 125, 190),
}
TONES = ('light', 'dark')
PATTERNS = ('plain', 'striped', 'dotted', 'checked')

_SCALE = 3  # Images are painted this much larger, then reduced: no jaggies.


def _star(points: int, inner: float) -> list[tuple[float, float]]:
  """Corners on two circles in turn, the first one at the top."""
  radii = np.where(np.arange(2 * points) % 2, inner, 1)
  angles = np.pi * np.arange(2 * points) / points
  return list(zip(radii * np.sin(angles), -radii * np.cos(angles), strict=True))


# Polygons in the unit disc around (0, 0).
_OUTLINES = {
  'square': [(0.7, -0.7), (0.7, 0.7), (-0.7, 0.7), (-0.7, -0.7)],
  'triangle': [(0, -1), (0.866, 0.5), (-0.866, 0.5)],
  'star': _star(5, 0.45),
  'cross': [
    (-0.3, -0.95),
    (0.3, -0.95),
    (0.3, -0.3),
    (0.95, -0.3),
    (0.95, 0.3),
    (0.3, 0.3),
    (0.3, 0.95),
    (-0.3, 0.95),
    (-0.3, 0.3),
    (-0.95, 0.3),
    (-0.95, -0.3),
    (-0.3, -0.3),
  ],
}
SHAPES = ('circle', 'ring', *_OUTLINES)


@dataclasses.dataclass(frozen=True)
class Thing:
  """One shape: a circle of `radius` around (x, y) holds all of it."""

  colour: str
  shape: str
  x: float
  y: float
  radius: float
  angle: float  # Radians, clockwise.


def draw(
  things: Sequence[Thing],
  *,
  tone: str,
  pattern: str,
  rng: np.random.Generator,
) -> Image.Image:
  """Paints `things` in their order: RGB, 64x64.

  `rng` samples shades, texture and noise, which no caption names.
  """
  canvas = Image.fromarray(_background(tone, pattern, rng))
  brush = ImageDraw.Draw(canvas)
  for thing in things:
    shade = np.array(COLOURS[thing.colour]) + rng.integers(-10, 11, size=3)
    _paint(brush, thing, tuple(int(v) for v in np.clip(shade, 0, 255)))
  small = np.asarray(canvas.resize((SIDE, SIDE), Image.Resampling.BOX))
  noise = rng.normal(0, rng.uniform(1, 7), size=(SIDE, SIDE, 1))
  return Image.fromarray(np.clip(small + noise, 0, 255).astype(np.uint8))


def _background(tone, pattern, rng) -> np.ndarray:
  """uint8[H, W, 3], greyish: never taken for the colour of a shape."""
  low, high, contrast = (205, 245, -26) if tone == 'light' else (20, 55, 34)
  base = rng.uniform(low, high) + rng.uniform(-9, 9, size=3)
  x = np.arange(SIDE * _SCALE, dtype=np.float32) / _SCALE
  y = x[:, None]
  period = rng.uniform(8, 12)
  u, v = x % period - period / 2, y % period - period / 2
  # The share of the second shade.
  if pattern == 'plain':  # With a gradient: few walls are of one shade.
    share = rng.uniform(0, 0.6) * np.broadcast_to(y / SIDE, (y.size, x.size))
  elif pattern == 'striped':
    angle = rng.uniform(0, math.pi)
    across = x * math.cos(angle) + y * math.sin(angle)
    share = across % period < period / 2
  elif pattern == 'dotted':
    share = u**2 + v**2 < rng.uniform(1.3, 2.0) ** 2
  else:
    share = (u < 0) ^ (v < 0)
  shades = base + np.linspace(0, contrast, 256)[:, None]
  shades = np.clip(shades, 0, 255).astype(np.uint8)
  return shades[(share * 255).astype(np.uint8)]


def _paint(brush: ImageDraw.ImageDraw, thing: Thing, colour):
  x, y, radius = (v * _SCALE for v in (thing.x, thing.y, thing.radius))
  box = (x - radius, y - radius, x + radius, y + radius)
  if thing.shape == 'circle':
    brush.ellipse(box, fill=colour)
  elif thing.shape == 'ring':  # The background shows through its middle.
    brush.ellipse(box, outline=colour, width=round(0.34 * radius))
  else:
    cos, sin = math.cos(thing.angle), math.sin(thing.angle)
    corners = [
      (x + radius * (u * cos - v * sin), y + radius * (u * sin + v * cos))
      for u, v in _OUTLINES[thing.shape]
    ]
    brush.polygon(corners, fill=colour)
