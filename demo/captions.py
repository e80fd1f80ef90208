"""Photographs and videos: from a file's bytes to captions.

Bytes are looked at before they are decoded: only a few kinds of files, of a
limited size, are.

Axes: H, W pixels, T words or frames, L locations.
"""

import dataclasses
import io
import math
import os
import pathlib
import tempfile
from typing import Any

import av
import av.error
import jax
import numpy as np
import PIL.Image

from captioning import examples as examples_lib
from captioning import inference
from captioning import vocabulary as vocabulary_lib
from demo import messages
from training import parallel
from video import frames as frames_lib
from video.captioning import inference as caption_inference
from vision import images

# What is taken, as the header Content-Type says it -> Pillow's name.
PHOTOS = {
  'image/bmp': 'BMP',
  'image/gif': 'GIF',
  'image/jpeg': 'JPEG',
  'image/png': 'PNG',
  'image/webp': 'WEBP',
}
# Content-Type -> the ending that such files have.
VIDEOS = {
  'video/mp4': '.mp4',
  'video/quicktime': '.mov',
  'video/webm': '.webm',
  'video/x-matroska': '.mkv',
  'video/x-msvideo': '.avi',
}
_LEAST_BEAMS = 3  # So that there are alternatives.
_MOST_SIDE = 8192  # Of a video's frame.


@dataclasses.dataclass(frozen=True, eq=False)
class Described:
  """What a captioner says of a photograph.

  Attributes:
    captions: the best first.
    attention: f32[T, L], where each word of the best one looked; None of a
      model that does not attend.
  """

  captions: list[vocabulary_lib.Caption]
  attention: np.ndarray | None


class Photographs:
  """A captioner, in batches of two sizes."""

  def __init__(self, workdir: pathlib.Path):
    """Loads the best checkpoint.

    Raises:
      FileNotFoundError: nothing was trained there.
      ValueError: the run captions no photographs.
    """
    self._trained = inference.load(workdir)
    config = self._trained.config
    self._examples = examples_lib.Examples(
      self._trained.vocabulary, config.data
    )
    decoding = config.decoding.copy_and_resolve_references()
    decoding.beam_size = max(decoding.beam_size, _LEAST_BEAMS)
    self._max_length = decoding.max_length
    self._describe = inference.describe_step(
      [self._trained.captioner], decoding, self._trained.vocabulary
    )
    self._attend = inference.attention_step(self._trained.captioner)
    devices = jax.local_device_count()
    self._sizes = (devices, 4 * devices)

  @property
  def attends(self) -> bool:
    """Whether it says where each word looked."""
    return bool(self._trained.captioner.decoder.attends)

  @property
  def most(self) -> int:
    """Pictures of one call."""
    return self._sizes[-1]

  def compile(self):
    """Computes once in all shapes that there are."""
    side = self._trained.config.data.crop
    for size in self._sizes:
      self([np.zeros((side, side, 3), np.uint8)] * size)

  def picture(self, photo: np.ndarray) -> np.ndarray:
    """What the model is to see: uint8[..., ..., 3] -> uint8[H, W, 3]."""
    return self._examples.crop(photo)

  def shown(self, photo: np.ndarray) -> dict[str, float]:
    """Where that is, in shares of the photo's width and height."""
    config = self._trained.config.data
    height, width = photo.shape[:2]
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

  def __call__(self, pictures: list[np.ndarray]) -> list[Described]:
    """At most `most` of uint8[H, W, 3]."""
    size = next(size for size in self._sizes if size >= len(pictures))
    padding = [pictures[-1]] * (size - len(pictures))
    batch = {
      'picture': np.stack([*pictures, *padding]),
      'mask': np.arange(size) < len(pictures),
    }
    found = inference.describe(
      self._describe,
      [self._trained.variables],
      [batch],
      self._trained.vocabulary,
    )
    attention = [None] * len(pictures)
    if self.attends:
      tokens = [
        self._trained.vocabulary.encode(captions[0].text, self._max_length)
        for captions in found
      ]
      tokens += [tokens[-1]] * len(padding)
      batch['tokens'] = np.stack(tokens)[:, None]
      attention = self._attend(self._trained.variables, parallel.shard(batch))
    return [
      Described(captions, weights)
      for captions, weights in zip(found, attention, strict=False)
    ]


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
  """A video, decoded.

  Attributes:
    frames: uint8[T, H, W, 3].
    rate: of them, in frames per second.
    seconds: how long it lasts, as its file says; 0: it does not.
  """

  frames: np.ndarray
  rate: float
  seconds: float


class Videos:
  """A video captioner, one clip at a time."""

  def __init__(self, workdir: pathlib.Path):
    """Loads the best checkpoint.

    Raises:
      FileNotFoundError: nothing was trained there.
    """
    self._captioner = caption_inference.load(workdir, min_beams=_LEAST_BEAMS)
    self._config = self._captioner.config.data
    self._rate = self._captioner.rate

  @property
  def most(self) -> int:
    """Clips of one call: one that cannot be captioned harms no other."""
    return 1

  def compile(self):
    """Computes once."""
    side = self._config.resize
    self([Clip(np.zeros((2, side, side, 3), np.uint8), 1.0, 2.0)])

  def read(self, path: pathlib.Path, limits: messages.Limits) -> 'Clip':
    """The frames of a file, already as small as the model sees them.

    Raises:
      Problem: it cannot be decoded, or is too large.
    """
    try:
      seconds = _check_video(path)
      rate = frames_lib.frame_rate(path) / frames_lib.step(path, self._rate)
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
      # Neither where it was stored nor a number that means nothing to people.
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


def decode_photo(contents: bytes, limits: messages.Limits) -> np.ndarray:
  """A picture, upright: uint8[H, W, 3].

  Raises:
    Problem: it is none, or too large.
  """
  try:
    with PIL.Image.open(
      io.BytesIO(contents), formats=list(PHOTOS.values())
    ) as image:
      width, height = image.size
  except (
    PIL.Image.DecompressionBombError,
    PIL.Image.DecompressionBombWarning,
  ) as error:
    raise _too_large(limits) from error
  except Exception as error:  # Pillow raises almost anything.
    raise messages.Problem(
      400,
      'this is no picture that can be read: send a JPEG, PNG, WebP, GIF or BMP',
    ) from error
  if width * height > limits.photo_pixels:
    raise _too_large(limits)
  if not min(width, height) or max(width, height) > limits.photo_ratio * min(
    width, height
  ):
    raise messages.Problem(
      400, f'the picture of {width} x {height} pixels is too narrow: crop it'
    )
  try:
    return images.decode(contents)
  except ValueError as error:
    raise messages.Problem(400, str(error)) from error


def _too_large(limits: messages.Limits) -> messages.Problem:
  millions = limits.photo_pixels / 1e6
  return messages.Problem(
    413, f'the picture has more than {millions:g} million pixels: shrink it'
  )


def store_video(contents: bytes, directory: str | os.PathLike) -> pathlib.Path:
  """Writes a video to a file that has the ending of what is in it.

  The decoder could otherwise take a text for a playlist, and open the files
  that it names.

  Raises:
    Problem: it is of no kind that is taken.
  """
  if contents[4:8] == b'ftyp':
    ending = '.mp4'
  elif contents[:4] == b'\x1a\x45\xdf\xa3':
    ending = '.webm'
  elif contents[:4] == b'RIFF' and contents[8:12] == b'AVI ':
    ending = '.avi'
  else:
    raise messages.Problem(
      400, 'this is no video that can be read: send an MP4, WebM, MKV or AVI'
    )
  with tempfile.NamedTemporaryFile(
    dir=directory, suffix=ending, delete=False
  ) as file:
    file.write(contents)
  return pathlib.Path(file.name)


def _check_video(path: pathlib.Path) -> float:
  """Looks at the header before anything is decoded; the seconds it names."""
  with av.open(str(path)) as container:
    if not container.streams.video:
      raise messages.Problem(400, 'there are no pictures in the video')
    codec = container.streams.video[0].codec_context
    if max(codec.width, codec.height) > _MOST_SIDE:
      raise messages.Problem(
        413,
        f'the video is {codec.width} x {codec.height} pixels large, at most '
        f'{_MOST_SIDE} are taken: shrink it',
      )
    return (container.duration or 0) / av.time_base


def captions_to_json(
  captions: list[vocabulary_lib.Caption],
) -> list[dict[str, Any]]:
  """Texts, words and probabilities."""
  return [
    {
      'text': caption.text,
      'words': caption.text.split(' ') if caption.text else [],
      'log_prob': caption.log_prob,
      'probability': math.exp(caption.log_prob),
    }
    for caption in captions
  ]


def attention_to_json(described: Described) -> dict[str, Any] | None:
  """The weights of the words of the best caption, on a square grid."""
  weights = _weights(described)
  if weights is None:
    return None
  side = math.isqrt(weights.shape[1])
  if side**2 != weights.shape[1]:
    return None
  return {'rows': side, 'columns': side, 'weights': _rounded(weights)}


def times_to_json(
  described: caption_inference.CaptionedClip,
) -> dict[str, Any] | None:
  """The weights of the words of the best caption, and seconds."""
  weights = _weights(described)
  if weights is None:
    return None
  return {
    'times': [round(float(time), 4) for time in described.times],
    'weights': _rounded(weights),
  }


def _weights(
  described: Described | caption_inference.CaptionedClip,
) -> np.ndarray | None:
  """Of the words alone: f32[T, L]."""
  if described.attention is None:
    return None
  text = described.captions[0].text
  words = text.split(' ') if text else []
  return np.asarray(described.attention, np.float32)[: len(words)]


def _rounded(weights: np.ndarray) -> list[list[float]]:
  return [[round(float(x), 6) for x in row] for row in weights]
