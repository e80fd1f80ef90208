"""Decodes and encodes clips, as uint8.

A clip is a video file, a folder of images, or an array in a .npy or .npz file.

Axes: T time, H height, W width, C channels (3 or 1), N selected frames.
"""

import fractions
import io
import os
import pathlib
import re
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence

import av
import av.error
import numpy as np
import PIL.Image

from training import array_files
from training import directories
from vision import images

VIDEOS = ('.avi', '.gif', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg')
VIDEOS += ('.webm',)
ARRAYS = ('.npy', '.npz')
IMAGES = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')

DEFAULT_RATE = 25.0  # Frames per second of a file with an unknown rate.
_REMEDY = 'Leave it out, or save it again as an MP4'


def stream(
  path: str | os.PathLike, *, rate: float | None = None
) -> Iterator[np.ndarray]:
  """Yields the frames of a video file, upright: uint8[H, W, 3] each.

  Args:
    path: path of the file.
    rate: approximate frames per second; None for all frames. Every k-th frame
      is kept, so that a file of more than 1.5 times `rate` is thinned.

  Raises:
    ValueError: the file cannot be decoded, or more than a twentieth of its
      frames is missing or damaged. This may be raised after good frames.
  """
  try:
    with av.open(os.fspath(path)) as container:
      video = _video_stream(container)
      every = 1 if rate is None else _step(_rate(video), rate)
      count = damaged = 0
      for frame in _decode(container, video):
        if frame is None or frame.is_corrupt:
          damaged += 1
        if frame is None:
          continue
        if count % every == 0:
          yield _upright(frame)
        count += 1
      missing = max(video.frames - count, 0)
      if not count:
        raise ValueError('it has no frames')
      # Some files declare a frame or two too many.
      if max(missing, damaged) > 2 + (count + missing) / 20:
        raise ValueError(
          f'of {count + missing} frames {missing} are missing and {damaged} '
          'damaged'
        )
  except (av.error.FFmpegError, ValueError) as error:
    raise ValueError(f'cannot decode {path}: {error}. {_REMEDY}') from error


def read(path: str | os.PathLike, *, rate: float | None = None) -> np.ndarray:
  """Reads all frames of a clip: uint8[T, H, W, C].

  Args:
    path: a video file, a folder of images, or a .npy or .npz file of
      uint8[T, H, W] or uint8[T, H, W, C] (.npz: the only array, or `frames`).
    rate: frames per second of a video file, see `stream`.

  Raises:
    ValueError: the clip cannot be decoded, or its frames differ in size.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    decoded = [images.decode(image) for image in image_paths(path)]
  elif path.suffix.lower() in ARRAYS:
    return _read_array(path)
  else:
    decoded = list(stream(path, rate=rate))
  return _stack(decoded, path)


def step(path: str | os.PathLike, rate: float | None) -> int:
  """The k of `read`, which returns every k-th frame; see `stream`."""
  if rate is None or not _is_video(path):
    return 1
  return _step(frame_rate(path), rate)


def frame_rate(path: str | os.PathLike) -> float:
  """Frames per second of a clip, `DEFAULT_RATE` if it is unknown."""
  if not _is_video(path):
    return DEFAULT_RATE
  try:
    with av.open(os.fspath(path)) as container:
      return _rate(_video_stream(container))
  except (av.error.FFmpegError, ValueError) as error:
    raise ValueError(f'cannot decode {path}: {error}. {_REMEDY}') from error


def write(
  path: str | os.PathLike,
  frames: Iterable[np.ndarray],
  *,
  rate: float = DEFAULT_RATE,
):
  """Writes frames, uint8[H, W, 3] each, as an MP4 (H.264, yuv420p).

  H.264 needs even sizes: the last row or column of an odd one is repeated.
  """
  with av.open(os.fspath(path), 'w', format='mp4') as container:
    video = container.add_stream(
      'libx264', rate=fractions.Fraction(rate).limit_denominator(1001)
    )
    video.pix_fmt = 'yuv420p'
    count = 0
    for pixels in frames:
      odd = [(0, size % 2) for size in pixels.shape[:2]]
      pixels = np.pad(pixels, [*odd, (0, 0)], mode='edge')
      if not count:
        video.height, video.width = pixels.shape[:2]
      frame = av.VideoFrame.from_ndarray(
        np.ascontiguousarray(pixels), format='rgb24'
      )
      container.mux(video.encode(frame))
      count += 1
    if not count:
      raise ValueError(f'no frames to write to {path}: pass at least one')
    container.mux(video.encode())


def image_paths(directory: str | os.PathLike) -> list[pathlib.Path]:
  """The images of a folder in the order of the numbers in their names.

  Raises:
    ValueError: there are no images, or numbers are missing between others.
  """
  paths = sorted(
    (
      path
      for path in directories.entries(directory)
      if path.suffix.lower() in IMAGES
    ),
    key=natural_order,
  )
  if not paths:
    raise ValueError(
      f'{directory} has no images ({", ".join(IMAGES)}): pass a folder '
      'of the frames of one clip'
    )
  numbers = [re.search(r'(\d+)$', path.stem) for path in paths]
  if all(numbers):
    values = [int(number[1]) for number in numbers]
    steps = np.diff(values)
    if len(set(steps)) > 1:
      at = int(np.argmax(steps != min(steps)))
      raise ValueError(
        f'{directory}: frames are missing, or there are too many, between '
        f'{paths[at].name} and {paths[at + 1].name}; number them evenly'
      )
  return paths


def natural_order(path: pathlib.Path) -> tuple:
  """Sort key that puts frame10 after frame9."""
  parts = re.split(r'(\d+)', path.name)
  return tuple(
    (int(part), '') if i % 2 else (-1, part) for i, part in enumerate(parts)
  )


class Encoded:
  """Encoded frames with the interface of an array, decoded on access.

  `frames[i]` is uint8[H, W, C]; `frames[indices]` and `frames[a:b]` are
  uint8[N, H, W, C], where each frame is decoded once; `np.asarray(frames)` is
  uint8[T, H, W, C].
  """

  dtype = np.dtype(np.uint8)
  ndim = 4

  def __init__(self, files: Sequence[bytes], *, channels: int = 3):
    """Keeps the contents of image files, one for each frame."""
    self._files = list(files)
    self._channels = channels

  def __len__(self) -> int:
    """The number of frames."""
    return len(self._files)

  def __getitem__(self, index) -> np.ndarray:
    """One frame, or the frames of a slice or of an array of indices."""
    if isinstance(index, int | np.integer):
      return self._decode(self._files[index])
    indices = np.arange(len(self))[index]
    decoded = {int(i): self._decode(self._files[i]) for i in np.unique(indices)}
    if not decoded:
      return np.zeros((0, *self.shape[1:]), self.dtype)
    return np.stack([decoded[int(i)] for i in indices])

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    del copy  # Decoded frames are new arrays.
    return self[:] if dtype is None else self[:].astype(dtype)

  @property
  def shape(self) -> tuple[int, int, int, int]:
    """T, H, W, C. Prepared frames have one size."""
    return len(self), *self[0].shape

  def _decode(self, file: bytes) -> np.ndarray:
    return images.decode(file)[..., : self._channels]


def encode(frame: np.ndarray, *, lossless: bool) -> bytes:
  """Encodes uint8[H, W, C] as a PNG or as a JPEG file."""
  image = PIL.Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame)
  file = io.BytesIO()
  if lossless:
    image.save(file, format='png', compress_level=3)
  else:
    image.save(file, format='jpeg', quality=95)
  return file.getvalue()


def _video_stream(container: av.container.InputContainer):
  if not container.streams.video:
    raise ValueError('it has no video stream')
  video = container.streams.video[0]
  # FFmpeg's own threads deadlocked with those of a data pipeline.
  video.thread_type = 'SLICE'
  video.codec_context.thread_count = 1
  return video


def _decode(container, video) -> Iterator[av.VideoFrame | None]:
  """Yields the frames of a file; None for a packet that cannot be decoded."""
  for packet in container.demux(video):
    try:
      decoded = packet.decode()
    except av.error.InvalidDataError:
      decoded = [None]
    yield from decoded


def _is_video(path: str | os.PathLike) -> bool:
  return pathlib.Path(path).suffix.lower() in VIDEOS


def _step(recorded: float, wanted: float) -> int:
  return max(1, round(recorded / wanted))


def _rate(video) -> float:
  """The rate of a stream: unknown is None in PyAV 18, 0/0 in PyAV 19."""
  rate = video.average_rate
  return float(rate) if rate else DEFAULT_RATE


def _upright(frame: av.VideoFrame) -> np.ndarray:
  """The frame as RGB, rotated as the file asks: uint8[H, W, 3]."""
  rotated = np.rot90(
    frame.to_ndarray(format='rgb24'), round(frame.rotation / 90)
  )
  return np.ascontiguousarray(rotated)


def _read_array(path: pathlib.Path) -> np.ndarray:
  try:
    loaded = array_files.read(path, 'frames', alone=True)
  except (ValueError, OSError) as error:
    raise ValueError(
      f'cannot read {path}: {error}. Save uint8[T, H, W, C] with numpy.save, '
      'or as `frames` with numpy.savez'
    ) from error
  if loaded.ndim == 3:
    loaded = loaded[..., np.newaxis]
  if (
    loaded.dtype != np.uint8
    or loaded.ndim != 4
    or loaded.shape[-1] not in (1, 3)
    or not loaded.size
  ):
    raise ValueError(
      f'{path} holds {loaded.dtype}{list(loaded.shape)}: frames are '
      'uint8[T, H, W] or uint8[T, H, W, C] of 1 or 3 channels'
    )
  return loaded


def _stack(decoded: list[np.ndarray], path: pathlib.Path) -> np.ndarray:
  sizes = {frame.shape[:2] for frame in decoded}
  if len(sizes) > 1:
    raise ValueError(
      f'the frames of {path} differ in size: {sorted(sizes)}. Resize them to '
      'one'
    )
  return np.stack(decoded)
