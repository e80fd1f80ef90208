"""Captions the images and videos of requests.

Files are checked first: only a few formats of a limited size are decoded.

Axes: H, W pixels, T words or frames, L locations.
"""

import dataclasses
import io
import math
import os
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import av
import av.error
import jax
import numpy as np
import PIL.Image

from captioning import inference
from captioning import vocabulary as vocabulary_lib
from demo import messages
from video import frames as frames_lib
from video.captioning import inference as caption_inference
from vision import images

# Content-Type of a supported image -> Pillow's name.
IMAGE_TYPES = {
  'image/bmp': 'BMP',
  'image/gif': 'GIF',
  'image/jpeg': 'JPEG',
  'image/png': 'PNG',
  'image/webp': 'WEBP',
}
# Content-Type of a supported video -> file extension.
VIDEO_TYPES = {
  'video/mp4': '.mp4',
  'video/quicktime': '.mov',
  'video/webm': '.webm',
  'video/x-matroska': '.mkv',
  'video/x-msvideo': '.avi',
}
_MIN_BEAMS = 3  # The page shows the alternatives.
_MAX_SIDE = 8192  # Of a video frame, in pixels.


class Images:
  """An image captioner, in batches of two sizes."""

  def __init__(self, workdir: pathlib.Path, decoding: Sequence[str] = ()):
    """Loads the best checkpoint.

    Args:
      workdir: of the run.
      decoding: see `inference.load`.

    Raises:
      FileNotFoundError: the workdir has no checkpoint.
      ValueError: the run captions no images.
    """
    devices = jax.local_device_count()
    self._captioner = inference.load(
      workdir,
      decoding=decoding,
      min_beams=_MIN_BEAMS,
      batch_sizes=(devices, 4 * devices),
    )

  @property
  def attends(self) -> bool:
    """True if captions come with attention."""
    return self._captioner.attends

  @property
  def max_batch_size(self) -> int:
    """Maximum number of images of one call."""
    return self._captioner.max_batch_size

  def compile(self):
    """Compiles every batch size."""
    self._captioner.compile()

  def preprocess(self, image: np.ndarray) -> np.ndarray:
    """The crop that the model reads: uint8[..., ..., 3] -> uint8[H, W, 3]."""
    return self._captioner.preprocess(image)

  def crop_box(self, image: np.ndarray) -> dict[str, float]:
    """The box of the crop, as fractions of the image's width and height."""
    config = self._captioner.config.data
    if not config.resize:  # The model reads all of it.
      return {'x': 0, 'y': 0, 'width': 1, 'height': 1}
    height, width = image.shape[:2]
    short = min(height, width)
    height = height * config.resize // short
    width = width * config.resize // short
    # As `images.center_crop` rounds.
    return {
      'x': round((width - config.crop) / 2) / width,
      'y': round((height - config.crop) / 2) / height,
      'width': config.crop / width,
      'height': config.crop / height,
    }

  def __call__(
    self, images: list[np.ndarray]
  ) -> list[inference.CaptionedImage]:
    """Captions up to `max_batch_size` outputs of `preprocess`."""
    return self._captioner.caption_with_attention(images, preprocessed=True)


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
  """A decoded video.

  Attributes:
    frames: uint8[T, H, W, 3].
    rate: frames per second of `frames`.
    seconds: duration according to the file; 0 if unknown.
  """

  frames: np.ndarray
  rate: float
  seconds: float


class Videos:
  """A video captioner, one clip at a time."""

  def __init__(self, workdir: pathlib.Path, decoding: Sequence[str] = ()):
    """Loads the best checkpoint.

    Args:
      workdir: of the run.
      decoding: see `inference.load`.

    Raises:
      FileNotFoundError: the workdir has no trained model.
    """
    self._captioner = caption_inference.load(
      workdir, decoding=decoding, min_beams=_MIN_BEAMS
    )
    self._config = self._captioner.config.data
    self._rate = self._captioner.rate

  @property
  def max_batch_size(self) -> int:
    """Clips of one call: one, so that a failure affects no other request."""
    return 1

  def compile(self):
    """Compiles the only batch size."""
    side = self._config.resize
    self([Clip(np.zeros((2, side, side, 3), np.uint8), 1.0, 2.0)])

  def read(self, path: pathlib.Path, limits: messages.Limits) -> 'Clip':
    """Decodes a file, with frames resized as the model reads them.

    Raises:
      Problem: the file cannot be decoded, or is too large.
    """
    try:
      seconds = _check_video(path)
      rate = frames_lib.frame_rate(path, rate=self._rate)
      frames = []
      for frame in frames_lib.stream(path, rate=self._rate):
        if len(frames) == limits.video_frames:
          raise messages.Problem(
            413,
            f'the video is longer than {limits.video_frames} frames: send a '
            'shorter part of it',
          )
        frames.append(images.resize_short_side(frame, self._config.resize))
    except (ValueError, OSError, av.error.FFmpegError) as error:
      # The temporary path and the error number mean nothing to the user.
      reason = str(error).replace(str(path), 'the video')
      raise messages.Problem(400, reason) from error
    return Clip(np.stack(frames), rate, seconds)

  def __call__(
    self, clips: list['Clip']
  ) -> list[caption_inference.CaptionedClip]:
    """Captions clips; see `Captioner.caption_with_attention`."""
    return self._captioner.caption_with_attention(
      [clip.frames for clip in clips], [clip.rate for clip in clips]
    )


def decode_image(contents: bytes, limits: messages.Limits) -> np.ndarray:
  """Decodes an image in its upright orientation: uint8[H, W, 3].

  Raises:
    Problem: the file is not an image, or too large.
  """
  try:
    with PIL.Image.open(
      io.BytesIO(contents), formats=list(IMAGE_TYPES.values())
    ) as image:
      width, height = image.size
  except (
    PIL.Image.DecompressionBombError,
    PIL.Image.DecompressionBombWarning,
  ) as error:
    raise _too_large(limits) from error
  except Exception as error:  # Pillow raises errors of many types.
    raise messages.Problem(
      400,
      'this is not a readable image: send a JPEG, PNG, WebP, GIF or BMP',
    ) from error
  if width * height > limits.image_pixels:
    raise _too_large(limits)
  if not min(width, height) or max(width, height) > limits.image_ratio * min(
    width, height
  ):
    raise messages.Problem(
      400, f'the image of {width} x {height} pixels is too narrow: crop it'
    )
  try:
    return images.decode(contents)
  except ValueError as error:
    raise messages.Problem(400, str(error)) from error


def _too_large(limits: messages.Limits) -> messages.Problem:
  millions = limits.image_pixels / 1e6
  return messages.Problem(
    413, f'the image has more than {millions:g} million pixels: shrink it'
  )


def store_video(contents: bytes, directory: str | os.PathLike) -> pathlib.Path:
  """Writes a video to a file with the extension of its format.

  The format is read from the first bytes. Otherwise the decoder could take a
  text for a playlist, and open the files that it names.

  Raises:
    Problem: the format is not supported.
  """
  if contents[4:8] == b'ftyp':
    ending = '.mp4'
  elif contents[:4] == b'\x1a\x45\xdf\xa3':
    ending = '.webm'
  elif contents[:4] == b'RIFF' and contents[8:12] == b'AVI ':
    ending = '.avi'
  else:
    raise messages.Problem(
      400, 'this is not a readable video: send an MP4, WebM, MKV or AVI'
    )
  with tempfile.NamedTemporaryFile(
    dir=directory, suffix=ending, delete=False
  ) as file:
    file.write(contents)
  return pathlib.Path(file.name)


def _check_video(path: pathlib.Path) -> float:
  """Checks the header before decoding; returns the duration in seconds."""
  with av.open(str(path)) as container:
    if not container.streams.video:
      raise messages.Problem(400, 'the video has no frames')
    codec = container.streams.video[0].codec_context
    if codec is None:
      raise messages.Problem(400, 'the codec of the video is unknown')
    if max(codec.width, codec.height) > _MAX_SIDE:
      raise messages.Problem(
        413,
        f'the frames have {codec.width} x {codec.height} pixels; the maximum '
        f'is {_MAX_SIDE} a side: shrink the video',
      )
    return (container.duration or 0) / av.time_base


def captions_to_json(
  captions: list[vocabulary_lib.Caption],
) -> list[dict[str, Any]]:
  """Converts captions: text, words and probability of each."""
  return [
    {
      'text': caption.text,
      'words': list(caption.words),
      'log_prob': caption.log_prob,
      'probability': math.exp(caption.log_prob),
    }
    for caption in captions
  ]


def attention_to_json(
  captioned: inference.CaptionedImage,
) -> dict[str, Any] | None:
  """Attention weights of the words of the best caption, on a square grid."""
  weights = _weights(captioned)
  if weights is None:
    return None
  side = math.isqrt(weights.shape[1])
  if side**2 != weights.shape[1]:
    return None
  return {'rows': side, 'columns': side, 'weights': _rounded(weights)}


def times_to_json(
  captioned: caption_inference.CaptionedClip,
) -> dict[str, Any] | None:
  """Attention weights of the words of the best caption, and frame times."""
  weights = _weights(captioned)
  if weights is None:
    return None
  return {
    'times': [round(float(time), 4) for time in captioned.times],
    'weights': _rounded(weights),
  }


def _weights(
  captioned: inference.CaptionedImage | caption_inference.CaptionedClip,
) -> np.ndarray | None:
  """Attention weights of the words, without EOS: f32[T, L]."""
  if captioned.attention is None:
    return None
  words = captioned.captions[0].words
  return np.asarray(captioned.attention, np.float32)[: len(words)]


def _rounded(weights: np.ndarray) -> list[list[float]]:
  return [[round(float(x), 6) for x in row] for row in weights]
