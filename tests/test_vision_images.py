import io

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pytest

from vision import images


def picture(height=20, width=30):
  """Smooth, so that JPEG keeps it well, and without symmetry."""
  y, x = np.mgrid[:height, :width]
  return np.stack([5 * y, 6 * x, 2 * x + 3 * y], -1).astype(np.uint8)


def encode(image, encoding='PNG', **options):
  file = io.BytesIO()
  image.save(file, encoding, **options)
  return file.getvalue()


def test_png_decodes_exactly_from_bytes_and_from_a_path(tmp_path):
  contents = encode(PIL.Image.fromarray(picture()))
  (tmp_path / 'a.png').write_bytes(contents)
  np.testing.assert_array_equal(images.decode(contents), picture())
  np.testing.assert_array_equal(images.decode(tmp_path / 'a.png'), picture())
  np.testing.assert_array_equal(
    images.decode(str(tmp_path / 'a.png')), picture()
  )


def test_grey_images_get_three_equal_channels():
  grey = picture()[..., 0]
  expected = np.repeat(grey[..., None], 3, -1)
  eight = encode(PIL.Image.fromarray(grey))
  sixteen = encode(PIL.Image.fromarray(grey.astype(np.uint16) * 257))
  wide = encode(PIL.Image.fromarray(grey.astype(np.int32) * 257), 'TIFF')
  for contents in (eight, sixteen, wide):
    np.testing.assert_array_equal(images.decode(contents), expected)


def test_two_colours_and_palettes():
  bits = picture()[..., 0] > 50
  np.testing.assert_array_equal(
    images.decode(encode(PIL.Image.fromarray(bits))),
    np.repeat(bits[..., None] * np.uint8(255), 3, -1),
  )
  palette = PIL.Image.fromarray(picture()).quantize(16)
  np.testing.assert_array_equal(
    images.decode(encode(palette)), np.asarray(palette.convert('RGB'))
  )


def test_what_is_transparent_becomes_white():
  alpha = np.zeros((20, 30, 1), np.uint8)
  alpha[:, 15:] = 255
  contents = encode(PIL.Image.fromarray(np.concatenate([picture(), alpha], -1)))
  expected = np.where(alpha, picture(), 255)
  np.testing.assert_array_equal(images.decode(contents), expected)


def test_cmyk_decodes_to_nearly_the_same_colours():
  contents = encode(
    PIL.Image.fromarray(picture()).convert('CMYK'), 'JPEG', quality=95
  )
  np.testing.assert_allclose(
    images.decode(contents).astype(int), picture(), atol=12
  )


@pytest.mark.parametrize(
  ('orientation', 'upright'),
  [
    (1, lambda x: x),
    (2, lambda x: x[:, ::-1]),
    (3, lambda x: x[::-1, ::-1]),
    (4, lambda x: x[::-1]),
    (5, lambda x: x.swapaxes(0, 1)),
    (6, lambda x: np.rot90(x, -1)),
    (7, lambda x: np.rot90(x, 2).swapaxes(0, 1)),
    (8, lambda x: np.rot90(x)),
  ],
)
def test_exif_orientation_is_honoured(orientation, upright):
  image = PIL.Image.fromarray(picture())
  exif = PIL.Image.Exif()
  exif[0x0112] = orientation
  np.testing.assert_array_equal(
    images.decode(encode(image, 'JPEG', exif=exif)),
    upright(images.decode(encode(image, 'JPEG'))),
  )


@pytest.mark.parametrize('encoding', ['JPEG', 'PNG', 'GIF', 'WEBP', 'TIFF'])
def test_truncated_files_are_named(tmp_path, encoding):
  path = tmp_path / 'half.picture'
  contents = encode(PIL.Image.fromarray(picture(100, 100)), encoding)
  for length in (len(contents) // 2, len(contents) // 20):
    path.write_bytes(contents[:length])
    with pytest.raises(ValueError, match='cannot decode .*half.picture.*again'):
      images.decode(path)


@pytest.mark.parametrize('contents', [b'', b'<html>not found</html>'])
def test_other_bytes_are_refused(contents):
  with pytest.raises(
    ValueError, match=f'cannot decode an image of {len(contents)} bytes'
  ):
    images.decode(contents)


def test_floating_point_images_are_refused():
  contents = encode(PIL.Image.fromarray(np.ones((4, 4), np.float32)), 'TIFF')
  with pytest.raises(ValueError, match='floating-point numbers of unknown'):
    images.decode(contents)


@pytest.mark.parametrize('limit', [250, 500])
def test_decompression_bombs_are_refused(monkeypatch, limit):
  contents = encode(PIL.Image.fromarray(picture()))
  monkeypatch.setattr(PIL.Image, 'MAX_IMAGE_PIXELS', limit)
  with pytest.raises(ValueError, match='cannot decode .*pixels.*exceeds'):
    images.decode(contents)


@pytest.mark.parametrize('shape', [(300, 401), (401, 300), (90, 131)])
def test_evaluation_is_a_plain_computation_in_pil(shape):
  image = PIL.Image.effect_noise(shape[::-1], 80).convert('RGB')
  scale = 256 / min(image.size)
  resized = image.resize(
    (int(image.width * scale), int(image.height * scale)),
    PIL.Image.Resampling.BILINEAR,
  )
  left = round((resized.width - 224) / 2)
  top = round((resized.height - 224) / 2)
  expected = resized.crop((left, top, left + 224, top + 224))
  np.testing.assert_array_equal(
    images.for_evaluation(np.asarray(image)), np.asarray(expected)
  )


def test_training_takes_every_crop_and_flip_equally_often():
  image = picture(5, 4)
  windows = {}
  for top in range(3):
    for left in range(2):
      window = image[top : top + 3, left : left + 3]
      windows[window.tobytes()] = 0
      windows[window[:, ::-1].tobytes()] = 0
  rng = np.random.default_rng(0)
  for _ in range(2400):
    crop = images.for_training(image, rng, resize=4, crop=3)
    windows[crop.tobytes()] += 1
  assert len(windows) == 12
  # 200 expected of each; five standard deviations.
  assert all(130 < count < 270 for count in windows.values())


def test_training_depends_on_the_generator_alone():
  first, second = (
    images.for_training(
      picture(40, 50), np.random.default_rng(3), resize=30, crop=20
    )
    for _ in range(2)
  )
  np.testing.assert_array_equal(first, second)


def test_normalize_is_the_same_on_host_and_device():
  image = picture()
  expected = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
  on_host = images.normalize(image)
  on_device = jax.jit(images.normalize)(jnp.asarray(image))
  for actual in (on_host, on_device):
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_normalizing_twice_is_refused():
  with pytest.raises(ValueError, match='images are float32: pass uint8'):
    images.normalize(images.normalize(picture()))


def test_a_crop_larger_than_the_image_is_refused():
  with pytest.raises(ValueError, match='20 x 30 has no crop of 24 x 24'):
    images.center_crop(picture(), 24)


@pytest.mark.parametrize('bits', [8, 10, 12, 16])
def test_sensors_of_fewer_bits_in_16_are_not_black(bits):
  grey = np.arange(256, dtype=np.uint16).reshape(16, 16)
  expected = np.repeat(grey[..., None].astype(np.uint8), 3, -1)
  wide = grey << (bits - 8)
  for image in (wide, wide.astype(np.int32)):
    kind = 'PNG' if image.dtype == np.uint16 else 'TIFF'
    contents = encode(PIL.Image.fromarray(image), kind)
    np.testing.assert_array_equal(images.decode(contents), expected)


def test_a_long_text_does_not_lose_a_png():
  info = PIL.PngImagePlugin.PngInfo()
  info.add_text('Comment', 'x' * 3_000_000, zip=True)
  contents = encode(PIL.Image.fromarray(picture()), pnginfo=info)
  np.testing.assert_array_equal(images.decode(contents), picture())


@pytest.mark.parametrize('size', [(1, 10_000), (10_000, 1), (201, 2)])
def test_narrow_images_are_refused_before_they_are_resized(size):
  """Resizing 1 x 10,000 pixels to a short side of 256 takes gigabytes."""
  contents = encode(PIL.Image.new('RGB', size))
  with pytest.raises(ValueError, match='differ by a factor of more than 100'):
    images.decode(contents)
  with pytest.raises(ValueError, match='differ by a factor of more than 100'):
    images.resize_short_side(np.zeros((*size, 3), np.uint8), 256)


def test_too_many_pixels_are_not_saved_again(monkeypatch):
  contents = encode(PIL.Image.fromarray(picture()))
  monkeypatch.setattr(PIL.Image, 'MAX_IMAGE_PIXELS', 250)
  with pytest.raises(ValueError, match='exceeds.*, or reduce or crop it'):
    images.decode(contents)


@pytest.mark.parametrize(
  ('contents', 'name'),
  [
    (b'\0\0\0\x1cftypavif', 'AVIF'),
    (b'\0\0\0\x18ftypheic', 'HEIC'),
    (b'\0\0\0\x0cjP  \r\n\x87\n', 'JPEG 2000'),
    (b'%PDF-1.7', 'PDF'),
    (b'plain text', 'none of BMP, GIF, JPEG'),
  ],
)
def test_other_formats_are_named(contents, name):
  with pytest.raises(ValueError, match=f'it is {name}') as error:
    images.decode(contents + bytes(100))
  assert 'BytesIO' not in str(error.value)


def test_both_sides_are_resized_or_none():
  """With resize=0 the proportions change, and nothing is cropped."""
  image = np.random.default_rng(0).integers(0, 256, (30, 47, 3), np.uint8)
  squashed = images.for_evaluation(image, resize=0, crop=20)
  expected = PIL.Image.fromarray(image).resize(
    (20, 20), PIL.Image.Resampling.BILINEAR
  )
  np.testing.assert_array_equal(squashed, expected)
  rng = np.random.default_rng(0)
  np.testing.assert_array_equal(
    images.for_training(image, rng, resize=0, crop=20, flip=False), squashed
  )
  whole = images.for_evaluation(image, resize=0, crop=0)
  np.testing.assert_array_equal(whole, image)
  short = images.for_evaluation(image, resize=15, crop=0)
  assert short.shape == (15, 23, 3)
  with pytest.raises(ValueError, match='differ by a factor'):
    images.for_evaluation(np.zeros((1, 900, 3), np.uint8), resize=0, crop=9)
