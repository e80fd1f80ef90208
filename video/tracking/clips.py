"""Tracks a target through a clip from a file; writes boxes and a video.

Axes: T frames, H height, W width.
"""

import csv
import itertools
import pathlib
from collections.abc import Iterator
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from training import checkpoints
from video import figures
from video import frames as frames_lib
from video.tracking import evaluation
from video.tracking import inference
from vision import images

_ENLARGED = 160  # Small frames are enlarged to about this height in pixels.


class Followed(NamedTuple):
  """Boxes found in a clip, and their certainty."""

  boxes: np.ndarray  # f32[T, 4]
  certainty: np.ndarray | None  # f64[T], of a box on the target.


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
) -> Iterator[tuple[np.ndarray, np.ndarray, float | None]]:
  """Yields each frame with its box, and the certainty if it is known."""
  first = next(frames)
  state = tracker.start(first, box)
  yield first, box, state.certainty
  for frame in frames:
    state, box = tracker.step(state, frame)
    yield frame, box, state.certainty


def write_boxes(path: pathlib.Path, clip: pathlib.Path, found: Followed):
  """Writes x, y, width, height in pixels, and certainty; frames from 0."""
  rows = [[round(float(x), 2) for x in box] for box in found.boxes]
  known = found.certainty is not None
  certainty = [round(float(x), 4) for x in found.certainty] if known else []
  if path.suffix.lower() == '.json':
    content = {'clip': str(clip), 'boxes': rows}
    if known:
      content['certainty'] = certainty
    checkpoints.write_json(path, content)
    return
  with path.open('w', newline='') as file:
    writer = csv.writer(file, lineterminator='\n')
    names = ['frame', 'x', 'y', 'width', 'height']
    writer.writerow([*names, 'certainty'] if known else names)
    for i, row in enumerate(rows):
      writer.writerow([i, *row, *certainty[i : i + 1]])


def follow(
  tracker: inference.Tracker,
  clip: pathlib.Path,
  box: np.ndarray,
  output: pathlib.Path,
) -> Followed:
  """Follows the target through a clip, and writes the clip with its boxes.

  Args:
    tracker: the tracker.
    clip: a video file, a folder of images, or an array in a file.
    box: f32[4], the target in the first frame.
    output: path of an .mp4, the clip with boxes, or a .png, a strip of frames.

  Returns:
    The boxes and their certainty.

  Raises:
    OSError: a file cannot be read or written.
    ValueError: the clip cannot be decoded; or the box is not in it.
  """
  followed = _followed(tracker, _frames(clip), box)
  # Check the box and the first frame before writing anything.
  followed = itertools.chain([next(followed)], followed)
  if output.suffix.lower() == '.png':
    frames, boxes, certainty = zip(*followed, strict=True)
    found = _collected(boxes, certainty)
    strip = figures.overlay_strip(
      frames, {evaluation.TRACKER: found.boxes}, certainty=found.certainty
    )
    figures.save(strip, output)
    return found
  parts = []

  def drawn():
    for frame, box, certainty in followed:
      parts.append((box, certainty))
      yield figures.draw_boxes(
        frame,
        {evaluation.TRACKER: box},
        scale=max(1, _ENLARGED // len(frame)),
        certainty=certainty,
      )

  frames_lib.write(output, drawn(), rate=frames_lib.frame_rate(clip))
  return _collected(*zip(*parts, strict=True))


def _collected(
  boxes: Sequence[np.ndarray], certainty: Sequence[float | None]
) -> Followed:
  known = certainty[0] is not None
  return Followed(np.stack(boxes), np.array(certainty) if known else None)
