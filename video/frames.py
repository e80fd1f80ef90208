"""Decodes and encodes clips, as uint8.

A clip is a video file, a folder of images, or an array in a .npy or .npz file.

Axes: T time, H height, W width, C channels (3 or 1), N selected frames.
"""

import dataclasses
import fractions
import io
import itertools
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
from av.sidedata import sidedata

from training import array_files
from training import directories
from vision import images

VIDEOS = ('.avi', '.gif', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg')
VIDEOS += ('.webm',)
ARRAYS = ('.npy', '.npz')
IMAGES = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')

DEFAULT_RATE = 25.0  # Frames per second of a file with an unknown rate.
_MAX_STILL = 600  # Seconds of a frame in a file of a variable rate.
# FFmpeg and its bindings raise these for damaged files.
_ERRORS = (
  av.error.FFmpegError,
  ArithmeticError,
  AttributeError,
  LookupError,
  MemoryError,
  NotImplementedError,
  TypeError,
  ValueError,
)
# Steps between the numbers of frames from here on can be rounded times.
_ROUNDED = 8
_REMEDY = 'Leave it out, or save it again as an MP4'


def stream(
  path: str | os.PathLike, *, rate: float | None = None
) -> Iterator[np.ndarray]:
  """Yields the frames of a video file, upright: uint8[H, W, 3] each.

  Args:
    path: path of the file.
    rate: approximate frames per second; None for all frames. Every k-th frame
      is kept, so that a file of more than 1.5 times `rate` is thinned. If the
      frames of a file are not evenly spaced, those at the times 0, 1 / rate,
      2 / rate and so on are kept, some of them more than once.

  Raises:
    ValueError: the file cannot be decoded, its size changes, or more than a
      twentieth of its frames is missing or damaged. This may be raised after
      good frames.
  """
  try:
    timing = None if rate is None else _timing(path, rate)
    with av.open(os.fspath(path)) as container:
      video = _video_stream(container)
      found = _checked(container, video)
      if timing is None:
        every = 1 if rate is None else _step(_rate(video), rate)
        for frame in itertools.islice(found, 0, None, every):
          yield _upright(frame)
      else:
        yield from _at_times(found, timing, rate)
  except _ERRORS as error:
    raise ValueError(f'cannot decode {path}: {error}. {_REMEDY}') from error


def _checked(container, video) -> Iterator[av.VideoFrame]:
  """Yields the frames of a file.

  Raises:
    ValueError: the size changes, or frames are missing or damaged.
  """
  count = damaged = 0
  shape, last = None, None
  for frame in _decode(container, video):
    if frame is None or frame.is_corrupt:
      damaged += 1
    if frame is None:
      continue
    images.check_sides(frame.height, frame.width)
    if shape not in (None, (frame.height, frame.width)):
      raise ValueError(
        f'its size changes from {shape[1]} x {shape[0]} to {frame.width} x '
        f'{frame.height} pixels'
      )
    shape = frame.height, frame.width
    last = frame.time if frame.time is not None else last
    yield frame
    count += 1
  if not count:
    raise ValueError('it has no frames')
  missing = max(video.frames - count, 0) or _missing(container, video, last)
  # Some files declare a frame or two too many.
  if max(missing, damaged) > 2 + (count + missing) / 20:
    raise ValueError(
      f'of {count + missing} frames {missing} are missing and {damaged} damaged'
    )


def _missing(container, video, last: float | None) -> int:
  """The number of frames after the last one, by the length that is declared.

  Of Matroska and WebM, which do not count their frames. FFmpeg estimates the
  length of other files from what is there.
  """
  if video.frames or last is None or 'matroska' not in container.format.name:
    return 0
  declared = video.metadata.get('DURATION', '')
  match = re.fullmatch(r'(\d+):(\d+):(\d+(?:\.\d*)?)', declared)
  if match:
    hours, minutes, seconds = map(float, match.groups())
    length = 3600 * hours + 60 * minutes + seconds
  elif container.duration and len(container.streams) == 1:
    length = container.duration / av.time_base
  else:
    return 0
  return max(round((length - last) * _rate(video)) - 1, 0)


@dataclasses.dataclass(frozen=True)
class _Timing:
  """The times of a file whose frames are not evenly spaced, in seconds."""

  end: float  # Of the last frame.
  rate: float  # The mean rate.


def _timing(path: str | os.PathLike, rate: float) -> _Timing | None:
  """The times of a file, or None if its frames are evenly spaced.

  They are if the k-th frames that `stream` would keep are nowhere further than
  1 / rate from where they are by the recorded rate.
  """
  with av.open(os.fspath(path)) as container:
    video = _video_stream(container)
    recorded, base = _rate(video), video.time_base
    stamps = [
      packet.dts if packet.pts is None else packet.pts
      for packet in container.demux(video)
      if packet.size
    ]
  # One file behind another has the same times again.
  if len(stamps) < 2 or None in stamps or len(set(stamps)) < len(stamps):
    return None
  times = (np.sort(stamps) - min(stamps)) * float(base)
  gap = times[-1] / (len(times) - 1)
  if np.abs(times - np.arange(len(times)) / recorded).max() <= 1 / rate:
    return None
  if np.diff(times).max() > _MAX_STILL:
    raise ValueError(
      f'a frame stays for {np.diff(times).max():.0f} seconds, more than '
      f'{_MAX_STILL}'
    )
  # The median, since the last frame need not stay as long as the longest.
  return _Timing(times[-1] + np.median(np.diff(times)), 1 / gap)


def _at_times(
  found: Iterator[av.VideoFrame], timing: _Timing, rate: float
) -> Iterator[np.ndarray]:
  """Yields the frame that is shown at each time j / rate."""
  first = shown = pixels = None
  count = 0
  # None: the end of the file.
  for frame in itertools.chain(found, [None]):
    if frame is None:
      until = max(round(timing.end * rate), 1) / rate
    else:
      time = frame.time or 0.0
      first = time if first is None else first
      until = time - first
    # A share of a frame, since 7 / 5 * 5 need not be 7.
    while shown is not None and count < until * rate - 1e-6:
      pixels = _upright(shown) if pixels is None else pixels
      yield pixels
      count += 1
    shown, pixels = frame, None


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
  """The k of `read`, which returns every k-th frame; see `stream`.

  It is 1 for a file whose frames are not evenly spaced: then frames count at
  `rate`.
  """
  if rate is None or not _is_video(path) or _uneven(path, rate):
    return 1
  return _step(frame_rate(path), rate)


def frame_rate(path: str | os.PathLike, *, rate: float | None = None) -> float:
  """Frames per second of a clip as `read` returns it with this `rate`.

  `DEFAULT_RATE` if it is unknown.
  """
  if not _is_video(path):
    return DEFAULT_RATE
  try:
    with av.open(os.fspath(path)) as container:
      recorded = _rate(_video_stream(container))
  except _ERRORS as error:
    raise ValueError(f'cannot decode {path}: {error}. {_REMEDY}') from error
  if rate is None:
    return recorded
  if _uneven(path, rate):
    return rate
  return recorded / _step(recorded, rate)


def _uneven(path: str | os.PathLike, rate: float) -> bool:
  try:
    return _timing(path, rate) is not None
  except _ERRORS as error:
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
  if len(paths) > 2 and all(numbers):
    values = [int(number[1]) for number in numbers]
    steps = [after - before for before, after in itertools.pairwise(values)]
    usual = sorted(steps)[(len(steps) - 1) // 2]
    # Times in milliseconds are rounded: 33, 33, 34.
    slack = 1 if usual >= _ROUNDED else 0
    for at, one in enumerate(steps):
      if abs(one - usual) > slack:
        raise ValueError(
          f'{directory}: frames are missing, or there are too many, between '
          f'{paths[at].name} and {paths[at + 1].name}, since others are '
          f'{usual} apart; number them evenly'
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
  if video.codec_context is None:
    raise ValueError('its codec is unknown')
  if video.width and video.height:
    images.check_sides(video.height, video.width)
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
  """The frame as RGB, turned or mirrored as the file asks: uint8[H, W, 3]."""
  pixels = frame.to_ndarray(format='rgb24')
  matrix = frame.side_data.get(sidedata.Type.DISPLAYMATRIX)
  if matrix is None:
    return np.ascontiguousarray(pixels)
  # x' = a x + c y and y' = b x + d y. Angles are rounded to right ones.
  a, b, _, c, d, *_ = np.frombuffer(bytes(matrix), np.int32).astype(float)
  if abs(b) + abs(c) > abs(a) + abs(d):
    pixels, a, d = pixels.swapaxes(0, 1), c, b
  return np.ascontiguousarray(
    pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
  )


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
  try:
    images.check_sides(*loaded.shape[1:3])
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error
  return loaded


def _stack(decoded: list[np.ndarray], path: pathlib.Path) -> np.ndarray:
  sizes = {frame.shape[:2] for frame in decoded}
  if len(sizes) > 1:
    raise ValueError(
      f'the frames of {path} differ in size: {sorted(sizes)}. Resize them to '
      'one'
    )
  return np.stack(decoded)
