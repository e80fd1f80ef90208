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
import PIL.ImageOps

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
# The endings of their files.
SUFFIXES = ('.bmp', '.gif', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff')
SUFFIXES += ('.webp',)
# Formats that are not read, by bytes 4 to 12 of a file or its first.
_OTHERS = {
  b'ftypavif': 'AVIF',
  b'ftypavis': 'AVIF',
  b'ftypheic': 'HEIC',
  b'ftypheix': 'HEIC',
  b'ftypmif1': 'HEIC',
  b'jP  \r\n\x87\n': 'JPEG 2000',
  b'%PDF': 'PDF',
  b'\xff\x4f\xff\x51': 'JPEG 2000',
  b'<svg': 'SVG',
}
# The long side over the short side. Resizing the short side of a narrower
# image to 256 takes gigabytes.
MAX_RATIO = 100
_PNG = b'\x89PNG\r\n\x1a\n'
_PNG_TEXTS = (b'tEXt', b'zTXt', b'iTXt')
# Sensors of 10 and 12 bits are stored in 16 without a factor.
_BITS = (8, 10, 12)


def decode(source: bytes | str | os.PathLike) -> np.ndarray:
  """Decodes an image as RGB: uint8[H, W, 3].

  The orientation of the EXIF tag is applied, transparent pixels become white,
  an animation is cut to its first frame, and 16 bits to the upper 8. Where no
  pixel of a 16-bit image has more than 8, 10 or 12 bits, the upper 8 of these.

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
    try:
      return _decode(contents)
    except Exception:
      plain = _without_texts(contents)
      if len(plain) == len(contents):
        raise
    return _decode(plain)
  except (
    _Sides,
    PIL.Image.DecompressionBombError,
    PIL.Image.DecompressionBombWarning,
  ) as error:
    reason = str(error).partition(', could be')[0]
    raise ValueError(
      f'cannot decode {name}: {reason}. Leave it out, or reduce or crop it'
    ) from error
  except PIL.UnidentifiedImageError as error:
    raise ValueError(
      f'cannot decode {name}: {_unknown(contents)}. Leave it out, or save it '
      'again as a JPEG or a PNG'
    ) from error
  # Pillow raises almost anything on a damaged file.
  except Exception as error:
    raise ValueError(
      f'cannot decode {name}: {error}. Leave it out, or save it again as a '
      'JPEG or a PNG'
    ) from error


def check_sides(height: int, width: int):
  """Checks that an image is neither too large nor too narrow.

  Raises:
    ValueError: it is.
  """
  limit = PIL.Image.MAX_IMAGE_PIXELS
  if limit and height * width > limit:
    raise _Sides(
      f'{width} x {height} are {width * height} pixels, which exceeds the '
      f'limit of {limit}'
    )
  if max(height, width) > MAX_RATIO * min(height, width):
    raise _Sides(
      f'its sides of {width} x {height} pixels differ by a factor of more than '
      f'{MAX_RATIO}'
    )


class _Sides(ValueError):
  """The size of an image is beyond the limits."""


def _decode(contents: bytes) -> np.ndarray:
  with PIL.Image.open(io.BytesIO(contents), formats=_FORMATS) as image:
    check_sides(image.height, image.width)
    image.load()
    orientation = image.getexif().get(PIL.ExifTags.Base.Orientation)
    rgb = _to_rgb(image)
    if orientation in _ORIENTATIONS:
      rgb = rgb.transpose(_ORIENTATIONS[orientation])
    return np.asarray(rgb)


def _unknown(contents: bytes) -> str:
  for mark, name in _OTHERS.items():
    if mark in (contents[4 : 4 + len(mark)], contents[: len(mark)]):
      return f'it is {name}, which is not read'
  return f'it is none of {", ".join(_FORMATS)}'


def _without_texts(contents: bytes) -> bytes:
  """A PNG without its texts, whose size Pillow limits."""
  if not contents.startswith(_PNG):
    return contents
  kept, position = [_PNG], len(_PNG)
  while position < len(contents):
    length = int.from_bytes(contents[position : position + 4])
    end = position + 12 + length
    if contents[position + 4 : position + 8] not in _PNG_TEXTS:
      kept.append(contents[position:end])
    position = end
  return b''.join(kept)


def _to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
  if image.mode == 'F':
    raise ValueError('its pixels are floating-point numbers of unknown range')
  if image.mode == 'I' or image.mode.startswith('I;16'):
    # Pillow's own conversion would cut off everything above 255.
    values = np.asarray(image).clip(0, 65535)
    largest = int(values.max())
    bits = next((bits for bits in _BITS if largest < 2**bits), 16)
    values = (values >> (bits - 8)).astype(np.uint8)
    return PIL.Image.fromarray(values).convert('RGB')
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

  The short side is resized to `resize` first; see `fit`. With `flip` half of
  the crops are mirrored: only for captions without left and right.
  """
  image = random_crop(fit(image, resize, crop), crop, rng)
  return random_flip(image, rng) if flip else image


def for_evaluation(
  image: np.ndarray, *, resize: int = 256, crop: int = 224
) -> np.ndarray:
  """The central crop: uint8[H, W, 3] -> uint8[S, S, 3].

  The image is resized first; see `fit`. With crop=0 all of it is kept.
  """
  image = fit(image, resize, crop)
  return center_crop(image, crop) if crop else image


def fit(image: np.ndarray, resize: int, crop: int) -> np.ndarray:
  """Resizes the short side to `resize`; with resize=0, both sides to `crop`.

  With both 0 the image stays as it is.
  """
  if resize:
    return resize_short_side(image, resize)
  check_sides(*image.shape[:2])
  if not crop or image.shape[:2] == (crop, crop):
    return image
  resized = PIL.Image.fromarray(image).resize(
    (crop, crop), PIL.Image.Resampling.BILINEAR
  )
  return np.asarray(resized)


def resize_short_side(image: np.ndarray, size: int) -> np.ndarray:
  """Resizes the short side to `size`, keeping the proportions.

  Bilinear as in Pillow: where an image is reduced, every pixel counts.

  Args:
    image: uint8[H, W, 3], or uint8[H, W].
    size: of the short side, in pixels.

  Raises:
    ValueError: the image is too narrow: the result would take gigabytes.
  """
  height, width = image.shape[:2]
  check_sides(height, width)
  short = min(height, width)
  if short == size:
    return image
  resized = PIL.Image.fromarray(image).resize(
    (width * size // short, height * size // short),
    PIL.Image.Resampling.BILINEAR,
  )
  return np.asarray(resized)


def cover(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """Resizes and crops the sides that stick out: uint8[height, width, C]."""
  grey = image.shape[-1] == 1
  resized = PIL.ImageOps.fit(
    PIL.Image.fromarray(image[..., 0] if grey else image),
    (width, height),
    PIL.Image.Resampling.BILINEAR,
  )
  pixels = np.asarray(resized)
  return pixels[..., np.newaxis] if grey else pixels


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
