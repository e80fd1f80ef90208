"""Paints small objects into frames, at subpixel positions.

Positions are in pixels, x to the right and y downwards; pixel (0, 0) reaches
from (0, 0) to (1, 1). The share of each pixel that an object covers comes from
the distance to the object's edge.

Axes: H height, W width, N points.
"""

import numpy as np

# Outlines of `silhouette`.
SILHOUETTES = ('ellipse', 'rounded', 'rectangle')


def grid(height: int, width: int) -> np.ndarray:
  """The centres of the pixels: f32[H, W, 2], x and y."""
  y, x = np.mgrid[:height, :width].astype(np.float32) + 0.5
  return np.stack([x, y], axis=-1)


def silhouette(points: np.ndarray, outline: str, box: np.ndarray) -> np.ndarray:
  """The share of each pixel that an object in a box covers: f32[H, W].

  Args:
    points: f32[H, W, 2], of `grid`.
    outline: one of `SILHOUETTES`.
    box: f32[4], x, y of the upper left corner, width, height.
  """
  half = box[2:] / 2
  ratios = np.abs(points - (box[:2] + half)) / half
  if outline == 'rectangle':
    radius = ratios.max(axis=-1)
  else:
    power = 2 if outline == 'ellipse' else 4
    radius = (ratios**power).sum(axis=-1) ** (1 / power)
  return _coverage((radius - 1) * half.min())


def polygon(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
  """The share of each pixel that a convex polygon covers: f32[H, W].

  Args:
    points: f32[H, W, 2], of `grid`.
    corners: f32[N, 2], clockwise on the screen.
  """
  along = np.roll(corners, -1, axis=0) - corners
  normals = along[:, ::-1] * (1, -1) / np.linalg.norm(along, axis=1)[:, None]
  distances = np.einsum('hwc,nc->hwn', points, normals)
  return _coverage((distances - (corners * normals).sum(axis=1)).max(axis=-1))


def stroke(
  points: np.ndarray, line: np.ndarray, half_width: float
) -> np.ndarray:
  """The share of each pixel that a round pen covers: f32[H, W].

  Args:
    points: f32[H, W, 2], of `grid`.
    line: f32[N, 2], path of the pen.
    half_width: radius of its tip.
  """
  start, along = line[:-1], np.diff(line, axis=0)
  offsets = points[:, :, None] - start
  squares = np.maximum((along**2).sum(axis=-1), 1e-9)
  share = np.clip((offsets * along).sum(axis=-1) / squares, 0, 1)
  rest = offsets - share[..., None] * along
  distances = np.sqrt((rest**2).sum(axis=-1).min(axis=-1))
  return _coverage(distances - half_width)


def paint(frame: np.ndarray, coverage: np.ndarray, colour: np.ndarray):
  """Paints over f32[H, W, C] in place; colour is f32[C] or f32[H, W, C]."""
  frame += coverage[..., None] * (colour - frame)


def look_up(texture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Interpolates a texture bilinearly on a grid of columns and rows.

  Args:
    texture: f32[H', W', C].
    x: f32[W], in pixels of the texture; its edge is repeated.
    y: f32[H].

  Returns:
    f32[H, W, C].
  """
  return _along(_along(texture, y, 0), x, 1)


def to_pixels(
  frames: np.ndarray, rng: np.random.Generator, noise: float
) -> np.ndarray:
  """Adds independent noise to each frame: f32[..., H, W, C] -> uint8."""
  noisy = frames + noise * rng.standard_normal(frames.shape, np.float32)
  return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def _coverage(distance: np.ndarray) -> np.ndarray:
  """Coverage from the distance to the edge, negative inside."""
  return np.clip(0.5 - distance, 0, 1).astype(np.float32)


def _along(texture: np.ndarray, positions: np.ndarray, axis: int) -> np.ndarray:
  positions = np.clip(positions - 0.5, 0, texture.shape[axis] - 1)
  lower = np.floor(positions).astype(int)
  upper = np.minimum(lower + 1, texture.shape[axis] - 1)
  share = (positions - lower).astype(np.float32)
  share = share[:, None, None] if axis == 0 else share[None, :, None]
  lower, upper = texture.take(lower, axis), texture.take(upper, axis)
  return lower + share * (upper - lower)
