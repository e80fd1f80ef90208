"""Frames: decode, sample, resize, crop and mirror clips. uint8 throughout.

A clip is a video file, a folder of pictures, or an array in a .npy or .npz
file. What is done to a clip is done to all of its frames alike.

Axes: T time, H height, W width, C channels (3 or 1), S side of a square crop,
N frames that are chosen.
"""

import fractions
import functools
import io
import os
import pathlib
import re
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence

import av
import av.error
import numpy as np
import PIL.Image

from vision import images

VIDEOS = ('.avi', '.gif', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg')
VIDEOS += ('.webm',)
ARRAYS = ('.npy', '.npz')
PICTURES = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')

DEFAULT_RATE = 25.0  # Frames per second, where a file does not say.
_MENDING = 'Leave it out, or save it again as an MP4'


def stream(
  path: str | os.PathLike, *, rate: float | None = None
) -> Iterator[np.ndarray]:
  """The frames of a video file one by one, upright: uint8[H, W, 3] each.

  Args:
    path: of the file.
    rate: frames per second, about; None is all. A whole number of frames is
      left out after each, so what is faster than 1.5 times `rate` is thinned.

  Raises:
    ValueError: it cannot be decoded, or more than a twentieth of the frames
      that it should have is missing or damaged. This may come late, after
      frames that are good.
  """
  try:
    with av.open(os.fspath(path)) as container:
      video = _video_stream(container)
      step = 1 if rate is None else max(1, round(_rate(video) / rate))
      count = damaged = 0
      for frame in _decode(container, video):
        if frame is None or frame.is_corrupt:
          damaged += 1
        if frame is None:
          continue
        if count % step == 0:
          yield _upright(frame)
        count += 1
      missing = max(video.frames - count, 0)
      if not count:
        raise ValueError('it has no frames')
      # Some files count a frame or two too many.
      if max(missing, damaged) > 2 + (count + missing) / 20:
        raise ValueError(
          f'of {count + missing} frames {missing} are missing and {damaged} '
          'damaged'
        )
  except (av.error.FFmpegError, ValueError) as error:
    raise ValueError(f'cannot decode {path}: {error}. {_MENDING}') from error


def read(path: str | os.PathLike, *, rate: float | None = None) -> np.ndarray:
  """All frames of a clip: uint8[T, H, W, C].

  Args:
    path: a video file, a folder of pictures, or a .npy or .npz file of
      uint8[T, H, W] or uint8[T, H, W, C] (.npz: the only array, or `frames`).
    rate: of a video file, as for `stream`.

  Raises:
    ValueError: it cannot be decoded; or its frames differ in size.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    decoded = [images.decode(picture) for picture in pictures(path)]
  elif path.suffix.lower() in ARRAYS:
    return _read_array(path)
  else:
    decoded = list(stream(path, rate=rate))
  return _stack(decoded, path)


def frame_rate(path: str | os.PathLike) -> float:
  """Frames per second of a clip, `DEFAULT_RATE` where nothing says."""
  if pathlib.Path(path).suffix.lower() not in VIDEOS:
    return DEFAULT_RATE
  try:
    with av.open(os.fspath(path)) as container:
      return _rate(_video_stream(container))
  except (av.error.FFmpegError, ValueError) as error:
    raise ValueError(f'cannot decode {path}: {error}. {_MENDING}') from error


def write(
  path: str | os.PathLike,
  frames: Iterable[np.ndarray],
  *,
  rate: float = DEFAULT_RATE,
):
  """Writes frames, uint8[H, W, 3] each, as an MP4 (H.264) for any player.

  An odd last row or column, which such files cannot have, is doubled.
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
      raise ValueError(f'there are no frames to write to {path}')
    container.mux(video.encode())


def pictures(directory: str | os.PathLike) -> list[pathlib.Path]:
  """The pictures of a folder in the order of the numbers in their names.

  Raises:
    ValueError: there is none, or a number is missing between others.
  """
  paths = sorted(
    (
      path
      for path in pathlib.Path(directory).iterdir()
      if path.suffix.lower() in PICTURES and not path.name.startswith('.')
    ),
    key=natural_order,
  )
  if not paths:
    raise ValueError(
      f'{directory} holds no pictures ({", ".join(PICTURES)}): pass a folder '
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
        f'{paths[at].name} and {paths[at + 1].name}'
      )
  return paths


def natural_order(path: pathlib.Path) -> tuple:
  """Sorts frame10 behind frame9."""
  parts = re.split(r'(\d+)', path.name)
  return tuple(
    (int(part), '') if i % 2 else (-1, part) for i, part in enumerate(parts)
  )


class Encoded:
  """Frames that are decoded when they are asked for, like an array of them.

  `frames[i]` is uint8[H, W, C]; `frames[indices]` and `frames[a:b]` are
  uint8[N, H, W, C], of which each frame is decoded once; `np.asarray(frames)`
  is all of them, uint8[T, H, W, C].
  """

  dtype = np.dtype(np.uint8)
  ndim = 4

  def __init__(self, files: Sequence[bytes], *, channels: int = 3):
    """Takes the contents of picture files, one a frame."""
    self._files = list(files)
    self._channels = channels

  def __len__(self) -> int:
    """The number of frames."""
    return len(self._files)

  def __getitem__(self, index) -> np.ndarray:
    """One frame, or those of a slice or of an array of indices."""
    if isinstance(index, int | np.integer):
      return self._decode(self._files[index])
    indices = np.arange(len(self))[index]
    decoded = {int(i): self._decode(self._files[i]) for i in np.unique(indices)}
    if not decoded:
      return np.zeros((0, *self.shape[1:]), self.dtype)
    return np.stack([decoded[int(i)] for i in indices])

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    del copy  # What is decoded is new.
    return self[:] if dtype is None else self[:].astype(dtype)

  @property
  def shape(self) -> tuple[int, int, int, int]:
    """T, H, W, C; of frames of one size, as all prepared ones are."""
    return len(self), *self[0].shape

  @property
  def files(self) -> tuple[bytes, ...]:
    """The contents of the picture files."""
    return tuple(self._files)

  def _decode(self, file: bytes) -> np.ndarray:
    return images.decode(file)[..., : self._channels]


def encode(frame: np.ndarray, *, lossless: bool) -> bytes:
  """uint8[H, W, C] -> the contents of a PNG or of a JPEG file."""
  picture = PIL.Image.fromarray(
    frame[..., 0] if frame.shape[-1] == 1 else frame
  )
  file = io.BytesIO()
  if lossless:
    picture.save(file, format='png', compress_level=3)
  else:
    picture.save(file, format='jpeg', quality=95)
  return file.getvalue()


# Which frames of a clip: indices in time.


def spread(
  length: int, count: int, rng: np.random.Generator | None = None
) -> np.ndarray:
  """One frame of each of `count` equal parts of a clip: i64[N].

  The one in the middle; with `rng` any one (temporal jitter, as in Temporal
  Segment Networks, Wang et al. 2016). A clip of fewer frames than parts has
  some repeatedly.
  """
  _check_counts(length, count)
  offsets = 0.5 if rng is None else rng.random(count)
  places = (np.arange(count) + offsets) * length / count
  return np.minimum(places.astype(np.int64), length - 1)


def window(
  length: int,
  count: int,
  *,
  stride: int = 1,
  rng: np.random.Generator | None = None,
) -> np.ndarray:
  """Every `stride`-th of consecutive frames: i64[N].

  In the middle of the clip; with `rng` anywhere. Of a clip that is too short
  the last frame is repeated.
  """
  _check_counts(length, count, stride)
  room = max(length - _span(count, stride), 0)
  start = room // 2 if rng is None else rng.integers(room + 1)
  return _from(start, length, count, stride)


def windows(
  length: int, count: int, clips: int, *, stride: int = 1
) -> np.ndarray:
  """Evenly placed windows, from the first frame to the last: i64[clips, N].

  For evaluation on several clips of a video, whose predictions are averaged.
  """
  _check_counts(length, count, stride, clips)
  room = max(length - _span(count, stride), 0)
  if clips == 1:
    return window(length, count, stride=stride)[np.newaxis]
  starts = np.linspace(0, room, clips).round().astype(np.int64)
  return np.stack([_from(start, length, count, stride) for start in starts])


def fit(array: np.ndarray, count: int) -> tuple[np.ndarray, int]:
  """Cuts or zero-pads the end: [T, ...] -> [count, ...], and what is real."""
  length = min(len(array), count)
  fitted = np.zeros((count, *array.shape[1:]), array.dtype)
  fitted[:length] = array[:length]
  return fitted, length


# What is done to all frames of a clip alike: uint8[T, H, W, C].


def for_training(
  frames: np.ndarray,
  rng: np.random.Generator,
  *,
  resize: int,
  crop: int,
  flip: bool,
) -> np.ndarray:
  """One random crop for all frames: uint8[T, H, W, C] -> uint8[T, S, S, C].

  The short side is resized to `resize` before. With `flip` half of the clips
  are mirrored; labels and captions that tell left from right forbid it.
  """
  frames = random_crop(resize_short_side(frames, resize), crop, rng)
  return mirror(frames) if flip and rng.random() < 0.5 else frames


def for_evaluation(frames: np.ndarray, *, resize: int, crop: int) -> np.ndarray:
  """The centre, nothing random: uint8[T, H, W, C] -> uint8[T, S, S, C]."""
  return center_crop(resize_short_side(frames, resize), crop)


def resize_short_side(frames: np.ndarray, size: int) -> np.ndarray:
  """Resizes bilinearly, keeping the proportions."""
  if min(frames.shape[1:3]) == size:
    return frames
  if frames.shape[-1] == 1:  # Pillow has no axis for a single channel.
    return np.stack(
      [images.resize_short_side(frame, size) for frame in frames[..., 0]]
    )[..., np.newaxis]
  return np.stack([images.resize_short_side(frame, size) for frame in frames])


def center_crop(frames: np.ndarray, size: int) -> np.ndarray:
  """uint8[T, H, W, C] -> uint8[T, S, S, C]."""
  return _for_all(functools.partial(images.center_crop, size=size), frames)


def random_crop(
  frames: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray:
  """uint8[T, H, W, C] -> uint8[T, S, S, C], from one place."""
  return _for_all(
    functools.partial(images.random_crop, size=size, rng=rng), frames
  )


def mirror(frames: np.ndarray) -> np.ndarray:
  """Left becomes right; labels and words are the caller's to exchange."""
  return frames[:, :, ::-1]


def _for_all(
  function: Callable[[np.ndarray], np.ndarray], frames: np.ndarray
) -> np.ndarray:
  """Applies what is done to the H and W of a picture to those of a clip."""
  return np.moveaxis(function(np.moveaxis(frames, 0, 2)), 2, 0)


def _check_counts(*counts: int):
  if min(counts) < 1:
    raise ValueError(f'lengths, counts and strides {counts} must be at least 1')


def _span(count: int, stride: int) -> int:
  return (count - 1) * stride + 1


def _from(start, length, count, stride) -> np.ndarray:
  return np.minimum(start + stride * np.arange(count), length - 1)


def _video_stream(container: av.container.InputContainer):
  if not container.streams.video:
    raise ValueError('it has no pictures')
  video = container.streams.video[0]
  # Threads of FFmpeg beside those of a data pipeline have hung.
  video.thread_type = 'SLICE'
  video.codec_context.thread_count = 1
  return video


def _decode(container, video) -> Iterator[av.VideoFrame | None]:
  """The frames of a file; None for what cannot be decoded."""
  for packet in container.demux(video):
    try:
      decoded = packet.decode()
    except av.error.InvalidDataError:
      decoded = [None]
    yield from decoded


def _rate(video) -> float:
  """PyAV 18 says None for an unknown rate, PyAV 19 a ratio of 0 to 0."""
  rate = video.average_rate
  return float(rate) if rate else DEFAULT_RATE


def _upright(frame: av.VideoFrame) -> np.ndarray:
  """RGB, turned as telephones ask for: uint8[H, W, 3]."""
  turned = np.rot90(
    frame.to_ndarray(format='rgb24'), round(frame.rotation / 90)
  )
  return np.ascontiguousarray(turned)


def _read_array(path: pathlib.Path) -> np.ndarray:
  try:
    loaded = np.load(path, allow_pickle=False)
    if path.suffix.lower() == '.npz':
      with loaded as file:
        names = list(file)
        name = names[0] if len(names) == 1 else 'frames'
        loaded = file[name]
  # NumPy raises almost anything on a damaged file.
  except Exception as error:
    raise ValueError(
      f'cannot read {path}: {error!r}. Save uint8[T, H, W, C] with numpy.save, '
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
