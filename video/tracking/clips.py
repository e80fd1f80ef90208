"""Following things in people's own clips: what is read and what is written.

Axes: T frames, H height, W width.
"""

import csv
import itertools
import pathlib
from collections.abc import Iterator

import numpy as np

from training import checkpoints
from video import figures
from video import frames as frames_lib
from video.tracking import evaluation
from video.tracking import inference
from vision import images

_ENLARGED = 160  # Pixels, to about which the height of small frames is brought.


def read_box(text: str) -> np.ndarray:
  """f32[4] of '205,151,17,50'.

  Raises:
    ValueError: these are no four numbers.
  """
  try:
    numbers = [float(number) for number in text.split(',')]
  except ValueError:
    numbers = []
  if len(numbers) != 4:
    raise ValueError(
      f'--box={text} must be four numbers x,y,width,height in pixels, such as '
      '--box=205,151,17,50'
    )
  return np.array(numbers, np.float32)


def check_output(
  option: str, name: str, endings: tuple[str, ...]
) -> pathlib.Path:
  """Where something can be written.

  Raises:
    ValueError: it cannot.
  """
  path = pathlib.Path(name)
  if path.suffix.lower() not in endings:
    raise ValueError(
      f'--{option}={name}: pass a name that ends in {" or ".join(endings)}'
    )
  if not path.absolute().parent.is_dir():
    raise ValueError(f'--{option}={name}: its folder does not exist')
  return path


def _frames(clip: pathlib.Path) -> Iterator[np.ndarray]:
  """uint8[H, W, 3] each, of which only an array is in memory whole."""
  if clip.is_dir():
    yield from map(images.decode, frames_lib.pictures(clip))
  elif clip.suffix.lower() in frames_lib.ARRAYS:
    for frame in frames_lib.read(clip):
      yield np.repeat(frame, 3, axis=-1) if frame.shape[-1] == 1 else frame
  else:
    yield from frames_lib.stream(clip)


def _followed(
  live: inference.LiveTracker,
  frames: Iterator[np.ndarray],
  box: np.ndarray,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Each frame with its box, as they come."""
  first = next(frames)
  state = live.begin(first, box)
  yield first, box
  for frame in frames:
    state, box = live.step(state, frame)
    yield frame, box


def write_boxes(path: pathlib.Path, clip: pathlib.Path, boxes: np.ndarray):
  """f32[T, 4]: x, y, width and height in pixels; the first frame is 0."""
  rows = [[round(float(x), 2) for x in box] for box in boxes]
  if path.suffix.lower() == '.json':
    checkpoints.write_json(path, {'clip': str(clip), 'boxes': rows})
    return
  with path.open('w', newline='') as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(['frame', 'x', 'y', 'width', 'height'])
    writer.writerows([i, *row] for i, row in enumerate(rows))


def follow(
  live: inference.LiveTracker,
  clip: pathlib.Path,
  box: np.ndarray,
  output: pathlib.Path,
) -> np.ndarray:
  """Follows what is in the box through a clip and writes it: f32[T, 4].

  Args:
    live: what follows.
    clip: a video file, a folder of pictures, or an array in a file.
    box: f32[4], in the first frame.
    output: .mp4, the clip with boxes, or .png, a strip of its frames.

  Raises:
    OSError: something cannot be read or written.
    ValueError: the clip cannot be decoded; or the box is not in it.
  """
  followed = _followed(live, _frames(clip), box)
  # What is wrong with the box or with the clip is found before the output is.
  followed = itertools.chain([next(followed)], followed)
  boxes = []
  if output.suffix.lower() == '.png':
    pairs = list(followed)
    boxes = np.stack([found for _, found in pairs])
    strip = figures.overlay_strip(
      [frame for frame, _ in pairs], {evaluation.TRACKER: boxes}
    )
    figures.save(strip, output)
    return boxes

  def drawn():
    for frame, found in followed:
      boxes.append(found)
      yield figures.draw_boxes(
        frame,
        {evaluation.TRACKER: found},
        scale=max(1, _ENLARGED // len(frame)),
      )

  frames_lib.write(output, drawn(), rate=frames_lib.frame_rate(clip))
  return np.stack(boxes)
