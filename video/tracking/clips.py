"""Tracks a target through a clip from a file; writes boxes and a video.

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

_ENLARGED = 160  # Small frames are enlarged to about this height in pixels.


def read_box(text: str) -> np.ndarray:
  """Parses a box: '205,151,17,50' -> f32[4].

  Raises:
    ValueError: the text is not four numbers.
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
  """The path of an output file.

  Raises:
    ValueError: the ending is not one of `endings`, or the folder is missing.
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
  """Yields uint8[H, W, 3]; only arrays are read into memory as a whole."""
  if clip.is_dir():
    yield from map(images.decode, frames_lib.image_paths(clip))
  elif clip.suffix.lower() in frames_lib.ARRAYS:
    for frame in frames_lib.read(clip):
      yield np.repeat(frame, 3, axis=-1) if frame.shape[-1] == 1 else frame
  else:
    yield from frames_lib.stream(clip)


def _followed(
  tracker: inference.Tracker,
  frames: Iterator[np.ndarray],
  box: np.ndarray,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yields each frame with its box."""
  first = next(frames)
  state = tracker.start(first, box)
  yield first, box
  for frame in frames:
    state, box = tracker.step(state, frame)
    yield frame, box


def write_boxes(path: pathlib.Path, clip: pathlib.Path, boxes: np.ndarray):
  """Writes boxes f32[T, 4]: x, y, width, height in pixels; frames from 0."""
  rows = [[round(float(x), 2) for x in box] for box in boxes]
  if path.suffix.lower() == '.json':
    checkpoints.write_json(path, {'clip': str(clip), 'boxes': rows})
    return
  with path.open('w', newline='') as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(['frame', 'x', 'y', 'width', 'height'])
    writer.writerows([i, *row] for i, row in enumerate(rows))


def follow(
  tracker: inference.Tracker,
  clip: pathlib.Path,
  box: np.ndarray,
  output: pathlib.Path,
) -> np.ndarray:
  """Follows the target through a clip, and writes the clip with its boxes.

  Args:
    tracker: the tracker.
    clip: a video file, a folder of images, or an array in a file.
    box: f32[4], the target in the first frame.
    output: path of an .mp4, the clip with boxes, or a .png, a strip of frames.

  Returns:
    f32[T, 4], the boxes.

  Raises:
    OSError: a file cannot be read or written.
    ValueError: the clip cannot be decoded; or the box is not in it.
  """
  followed = _followed(tracker, _frames(clip), box)
  # Check the box and the first frame before writing anything.
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
