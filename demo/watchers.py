"""Models that watch the frames of a camera, one after the other.

A session is a function from the next frame, uint8[H, W, 3], to the answer for
the page.
"""

import pathlib
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np

from video import frames as frames_lib
from video.classification import inference as classification
from video.tracking import inference as tracking

Session = Callable[[np.ndarray], dict[str, Any]]

GESTURES, TARGETS = 'gestures', 'targets'
_MAX_CLASSES = 5
_PIXELS = np.zeros((120, 160, 3), np.uint8)
_DIGITS = 4


class Watcher:
  """A model with sessions; a batch of jobs is answered one by one."""

  kind: str
  max_batch_size = 8
  rate = frames_lib.DEFAULT_RATE

  def compile(self):
    """Compiles all that a session of usual frames needs."""
    session = self.start(_PIXELS, np.array([50, 40, 40, 40], np.float32))
    for _ in range(2):
      session(_PIXELS)

  def start(self, frame: np.ndarray, box: np.ndarray | None) -> Session:
    """Begins a session.

    Args:
      frame: the first frame, which is passed to the session, too.
      box: f32[4], for a tracker: x, y, width and height in its pixels.

    Raises:
      ValueError: the box is not in the frame.
    """
    raise NotImplementedError

  def __call__(
    self, jobs: Sequence[tuple[Session, np.ndarray]]
  ) -> list[dict[str, Any]]:
    """Answers the next frame of each session."""
    return [_answer(session, frame) for session, frame in jobs]


def _answer(session, frame):
  try:
    return session(frame)
  except ValueError as error:  # The session of one client alone is wrong.
    return {'error': str(error)}


class Gestures(Watcher):
  """A classifier that reads frame by frame."""

  kind = GESTURES

  def __init__(self, workdir: pathlib.Path):
    """Loads the best checkpoint.

    Raises:
      FileNotFoundError: the workdir has no checkpoint.
      ValueError: the network does not read frames one by one.
    """
    self._classifier = classification.load(workdir)
    self._classifier.from_camera(_PIXELS)  # Or raises.
    rate = self._classifier.rate or frames_lib.DEFAULT_RATE
    self.rate = rate / self._classifier.stride

  def start(self, frame, box) -> Session:
    """See `Watcher`; the box is not used."""
    del frame, box
    waiting: list[np.ndarray] = []
    found = self._classifier.online(
      map(self._classifier.from_camera, _popped(waiting))
    )
    names = self._classifier.class_names

    def read(frame):
      waiting.append(frame)
      probabilities = next(found)
      best = np.argsort(-probabilities, kind='stable')[:_MAX_CLASSES]
      return {
        'classes': [
          {
            'class': names[i],
            'probability': round(float(probabilities[i]), _DIGITS),
          }
          for i in best
        ]
      }

    return read


class Targets(Watcher):
  """A tracker of what is in a box."""

  kind = TARGETS

  def __init__(self, workdir: pathlib.Path):
    """Loads the best checkpoint; raises as `tracking.load`."""
    self._tracker = tracking.load(workdir)

  def start(self, frame, box) -> Session:
    """See `Watcher`."""
    if box is None:
      raise ValueError('a tracker needs a box: [x, y, width, height]')
    state = self._tracker.start(frame, box)
    seen = False

    def read(frame):
      nonlocal state, seen, box
      if seen:
        state, box = self._tracker.step(state, frame)
      seen = True
      answer = {'box': [round(float(x), 1) for x in box]}
      if state.certainty is not None:
        answer['certainty'] = round(state.certainty, _DIGITS)
      return answer

    return read


def _popped(waiting: list[np.ndarray]) -> Iterator[np.ndarray]:
  """Yields what was appended before each `next`."""
  while True:
    yield waiting.pop()
