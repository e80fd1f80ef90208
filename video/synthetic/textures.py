"""Textures of the objects and backgrounds of synthetic clips.

They are generated at random, which needs no files, or cropped from the images
of a directory. The splits share no images, so that a model cannot recognise
test textures from training.

Axes: H height, W width.
"""

import functools
import hashlib
import math
import os
import pathlib
from collections.abc import Callable

import numpy as np
from PIL import Image
from PIL import ImageDraw

from training import directories
from vision import images

# rng, H, W -> uint8[H, W, 3]
Texture = Callable[[np.random.Generator, int, int], np.ndarray]

# Range of each split in twenty images.
_SHARES = {'train': (0, 13), 'validation': (13, 15), 'test': (15, 20)}
_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.webp')
_SCALE = 2  # Leaves are painted larger by this factor, against aliasing.


def texture(split: str, images: str | os.PathLike | None) -> Texture:
  """Returns the function that samples textures of a split.

  Args:
    split: 'train', 'validation' or 'test'.
    images: directory of images, searched recursively; None is `dead_leaves`.

  Raises:
    ValueError: there are too few images.
  """
  if images is None:
    return dead_leaves
  paths = _split(_find_images(os.fspath(images)), split)
  if not paths:
    raise ValueError(
      f'images={os.fspath(images)!r} has no image for {split!r}: '
      f'put at least 3 files there ({", ".join(_SUFFIXES)})'
    )
  return functools.partial(_crop, paths)


def dead_leaves(
  rng: np.random.Generator, height: int, width: int
) -> np.ndarray:
  """Samples overlapping discs and rectangles of all sizes: uint8[H, W, 3].

  The sizes follow r^-3, which gives the statistics of natural images at every
  scale (Lee, Mumford and Huang 2001). Smooth changes of light and grain are
  added.
  """
  tall, wide = _SCALE * height, _SCALE * width
  palette = rng.uniform(0, 255, size=(4, 3))
  grey = palette.mean(axis=-1, keepdims=True)
  palette = grey + 0.7 * (palette - grey)  # Natural images are less saturated.
  leaf = palette[0] + rng.normal(0, 12, size=3)
  canvas = Image.new('RGB', (wide, tall), _rgb(leaf))
  brush = ImageDraw.Draw(canvas)
  smallest, largest = 2.0 * _SCALE, 0.45 * max(tall, wide)
  count = 30 + height * width // 40
  radii = smallest / np.sqrt(
    1 - rng.random(count) * (1 - (smallest / largest) ** 2)
  )
  centres = rng.uniform(0, 1, size=(count, 2)) * (wide, tall)
  angles = rng.uniform(0, math.pi, size=count)
  aspects = rng.uniform(0.3, 1, size=count)
  leaves = palette[rng.integers(4, size=count)]
  leaves = leaves + rng.normal(0, 22, size=(count, 3))
  round_share = rng.random()
  is_round = rng.random(count) < round_share
  for i in range(count):
    (x, y), radius = centres[i], radii[i]
    if is_round[i]:
      brush.ellipse(
        (x - radius, y - radius, x + radius, y + radius), fill=_rgb(leaves[i])
      )
    else:
      along = radius * np.array((math.cos(angles[i]), math.sin(angles[i])))
      across = aspects[i] * along[::-1] * (-1, 1)
      corners = centres[i] + (
        along + across,
        along - across,
        -along - across,
        across - along,
      )
      brush.polygon([tuple(corner) for corner in corners], fill=_rgb(leaves[i]))
  painted = np.asarray(canvas.reduce(_SCALE), np.float32)
  light = 1 + 0.25 * _smooth(rng, height, width, 3)
  grain = rng.normal(0, rng.uniform(0, 4), size=(height, width, 1))
  return np.clip(painted * light[..., None] + grain, 0, 255).astype(np.uint8)


def _rgb(values: np.ndarray) -> tuple[int, ...]:
  return tuple(int(v) for v in np.clip(values, 0, 255))


def _smooth(rng, height, width, cells) -> np.ndarray:
  """Samples a smooth f32[H, W] around 0 from a grid of `cells` x `cells`."""
  values = Image.fromarray(rng.normal(size=(cells, cells)).astype(np.float32))
  return np.asarray(values.resize((width, height), Image.Resampling.BICUBIC))


@functools.lru_cache(maxsize=8)
def _find_images(directory: str) -> tuple[pathlib.Path, ...]:
  """Paths of the images below a directory, in a pseudo-random order."""
  root = pathlib.Path(directory)
  if not root.is_dir():
    raise FileNotFoundError(
      f'images={directory!r} is no directory: pass one that has images, '
      'or None for generated textures'
    )
  paths = (p for p in directories.below(root) if p.suffix.lower() in _SUFFIXES)

  def order(path):
    name = path.relative_to(root).as_posix()
    return hashlib.sha256(name.encode()).hexdigest()

  return tuple(sorted(paths, key=order))


def _split(paths, split: str):
  first, last = (share * len(paths) // 20 for share in _SHARES[split])
  return paths[first:last]


def _crop(paths, rng, height: int, width: int) -> np.ndarray:
  """Crops a random part of a random image: uint8[H, W, 3]."""
  image = images.decode(paths[rng.integers(len(paths))])
  tall, wide = image.shape[:2]
  max_scale = min(tall / height, wide / width)
  scale = max_scale * rng.uniform(0.4, 1)
  left = rng.uniform(0, wide - scale * width)
  top = rng.uniform(0, tall - scale * height)
  part = Image.fromarray(image).resize(
    (width, height),
    Image.Resampling.BILINEAR,
    box=(left, top, left + scale * width, top + scale * height),
  )
  return np.asarray(part)
