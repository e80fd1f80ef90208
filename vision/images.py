"""Decodes, resizes, crops, flips and normalizes images.

Images stay uint8 until `normalize`, which runs on the host or on the device, so
that a batch is sent to the device at a quarter of its size.

Axes: B batch, H height, W width, S side of a square crop.
"""

import io
import os
import pathlib

import jax
import numpy as np
import PIL.ExifTags
import PIL.Image

# Mean and deviation of ImageNet's training images: red, green, blue, in [0, 1].
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)

# By the value of the EXIF tag. `PIL.ImageOps.exif_transpose` also rewrites the
# other tags, and fails on malformed ones.
_ORIENTATIONS = {
  2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
  3: PIL.Image.Transpose.ROTATE_180,
  4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
  5: PIL.Image.Transpose.TRANSPOSE,
  6: PIL.Image.Transpose.ROTATE_270,
  7: PIL.Image.Transpose.TRANSVERSE,
  8: PIL.Image.Transpose.ROTATE_90,
}

# Pillow reads more formats; some (EPS) start other programs.
_FORMATS = ('BMP', 'GIF', 'JPEG', 'PNG', 'PPM', 'TIFF', 'WEBP')


def decode(source: bytes | str | os.PathLike) -> np.ndarray:
  """Decodes an image as RGB: uint8[H, W, 3].

  The orientation of the EXIF tag is applied, transparent pixels become white,
  16 bits are cut to the upper 8, and an animation to its first frame.

  Args:
    source: path, or contents of a file.

  Raises:
    ValueError: the image cannot be decoded.
  """
  if isinstance(source, bytes):
    contents, name = source, f'an image of {len(source)} bytes'
  else:
    contents, name = pathlib.Path(source).read_bytes(), str(source)
  try:
    with PIL.Image.open(io.BytesIO(contents), formats=_FORMATS) as image:
      limit = PIL.Image.MAX_IMAGE_PIXELS
      if limit and image.width * image.height > limit:
        raise ValueError(f'more than {limit} pixels')
      image.load()
      orientation = image.getexif().get(PIL.ExifTags.Base.Orientation)
      rgb = _to_rgb(image)
      if orientation in _ORIENTATIONS:
        rgb = rgb.transpose(_ORIENTATIONS[orientation])
      return np.asarray(rgb)
  # Pillow raises almost anything on a damaged file.
  except Exception as error:
    raise ValueError(
      f'cannot decode {name}: {error}. Leave it out, or save it again as a '
      'JPEG or a PNG'
    ) from error


def _to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
  if image.mode == 'F':
    raise ValueError('its pixels are floating-point numbers of unknown range')
  if image.mode == 'I' or image.mode.startswith('I;16'):
    # Pillow's own conversion would cut off everything above 255.
    values = np.asarray(image).clip(0, 65535) >> 8
    return PIL.Image.fromarray(values.astype(np.uint8)).convert('RGB')
  if image.has_transparency_data:
    image = image.convert('RGBA')
    white = PIL.Image.new('RGBA', image.size, 'white')
    return PIL.Image.alpha_composite(white, image).convert('RGB')
  return image.convert('RGB')


def for_training(
  image: np.ndarray,
  rng: np.random.Generator,
  *,
  resize: int = 256,
  crop: int = 224,
  flip: bool = True,
) -> np.ndarray:
  """A random crop: uint8[H, W, 3] -> uint8[S, S, 3].

  The short side is resized to `resize` first. With `flip` half of the crops are
  mirrored: only for captions without left and right.
  """
  image = random_crop(resize_short_side(image, resize), crop, rng)
  return random_flip(image, rng) if flip else image


def for_evaluation(
  image: np.ndarray, *, resize: int = 256, crop: int = 224
) -> np.ndarray:
  """The central crop: uint8[H, W, 3] -> uint8[S, S, 3]."""
  return center_crop(resize_short_side(image, resize), crop)


def resize_short_side(image: np.ndarray, size: int) -> np.ndarray:
  """Resizes the short side to `size`, keeping the proportions.

  Bilinear as in Pillow: where an image is reduced, every pixel counts.

  Args:
    image: uint8[H, W, 3], or uint8[H, W].
    size: of the short side, in pixels.
  """
  height, width = image.shape[:2]
  short = min(height, width)
  if short == size:
    return image
  resized = PIL.Image.fromarray(image).resize(
    (width * size // short, height * size // short),
    PIL.Image.Resampling.BILINEAR,
  )
  return np.asarray(resized)


def center_crop(image: np.ndarray, size: int) -> np.ndarray:
  """Crops the centre: uint8[H, W, 3] -> uint8[S, S, 3]."""
  rows, columns = _margins(image, size)
  # Rounded as in torchvision, for comparison with published numbers.
  return _crop(image, round(rows / 2), round(columns / 2), size)


def random_crop(
  image: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray:
  """Crops at a random position: uint8[H, W, 3] -> uint8[S, S, 3]."""
  rows, columns = _margins(image, size)
  top, left = rng.integers(rows + 1), rng.integers(columns + 1)
  return _crop(image, top, left, size)


def random_flip(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Mirrors left and right half of the time: uint8[H, W, 3] -> the same."""
  return image[:, ::-1] if rng.random() < 0.5 else image


def normalize(images: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
  """Normalizes by ImageNet's statistics: uint8[..., 3] -> f32[..., 3].

  (x / 255 - mean) / deviation
  """
  if images.dtype != np.uint8:
    raise ValueError(
      f'images are {images.dtype}: pass uint8, and normalize them once only'
    )
  return (images.astype(np.float32) / 255 - MEAN) / STD


def _margins(image: np.ndarray, size: int) -> tuple[int, int]:
  rows, columns = image.shape[0] - size, image.shape[1] - size
  if rows < 0 or columns < 0:
    raise ValueError(
      f'an image of {image.shape[0]} x {image.shape[1]} has no crop of '
      f'{size} x {size}: resize it to at least that first'
    )
  return rows, columns


def _crop(image: np.ndarray, top: int, left: int, size: int) -> np.ndarray:
  return image[top : top + size, left : left + size]
