"""What Sketch-RNN does for the page: many drawings go on at the same time.

Requests that wait become one wave, at whatever temperatures: a batch of one of
a few fixed sizes, compiled at the start. Waves take turns, a few points at a
time, the newest first: who has just lifted the pen sees the first points at
once, whatever else is being drawn.

Axes: B drawings of a wave, with padding; n drawings, N points of a drawing, T
the most points of a drawing, Z latent.
"""

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Callable
from collections.abc import Sequence

import jax
import ml_collections
import numpy as np

from demo import queues
from sketch_rnn import generation
from sketch_rnn import inference
from sketch_rnn import strokes
from training import app

SIZES = (1, 4, 12, 32)
_MOST_WAVES = 8  # The rest waits: the more there are, the slower is each.
_FIRST = 4  # New points of a wave's first step, for which somebody waits.
_STEP = 8  # Of the others.
_MOST_ENCODED = 10  # Drawings, a batch of `Sketcher.encode`.
_NOTHING = np.zeros((0, 3), np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class Encode:
  """The job of finding drawings' latent vectors.

  The answer: mean and standard deviation, f32[n, Z] each.

  Attributes:
    drawings: f32[N, 3] each, in pixels; checked.
  """

  drawings: Sequence[np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Draw:
  """The job of drawing; drawing i is that of `Sketcher.draw` with this seed.

  With `stream` the answers are lists of the new points of each drawing since
  the last answer, f32[N, 3], in pixels, and the last is nothing; otherwise it
  is the list of whole drawings.

  Attributes:
    count: n, at most the largest of `SIZES`.
    seed: of the key.
    sampling: how points are chosen.
    beginning: f32[N, 3] of all of them, in pixels, shorter than T.
    most: how many new points each of them may have; None: up to T.
    z: f32[n, Z]; None: drawn from the prior, if the model has one.
    label: of a model with classes, else None.
    stream: whether points are told as they are drawn.
  """

  count: int
  seed: int
  sampling: generation.Sampling
  beginning: np.ndarray = dataclasses.field(default_factory=_NOTHING.copy)
  most: int | None = None
  z: np.ndarray | None = None
  label: int | None = None
  stream: bool = False


@functools.partial(jax.jit, static_argnames='latent')
def _draw_keys(seeds, indices, latent):
  """u32[B], i32[B] -> z f32[B, Z] (None: no Z), and key[B] of the points."""

  def keys(seed, index):
    return jax.random.split(jax.random.fold_in(jax.random.key(seed), index))

  of_z, of_points = jax.vmap(keys, out_axes=1)(seeds, indices)
  if latent is None:
    return None, of_points
  return jax.vmap(lambda key: jax.random.normal(key, (latent,)))(
    of_z
  ), of_points


@jax.jit
def _end(ended, chosen):
  return ended | chosen


class Drawer:
  """The engine of one model; see `queues.Engine`.

  Attributes:
    sketcher: the model.
    size: width and height of a space that a typical drawing fills, in pixels.
  """

  def __init__(self, sketcher: inference.Sketcher, *, size: int | None = None):
    """Takes a model.

    Args:
      sketcher: the model.
      size: None asks the model what it draws, in `compile`.
    """
    self.sketcher = sketcher
    self.size = size or strokes.SIZE
    self._knows_size = size is not None
    self._to_encode: list[queues.Request] = []
    self._to_draw: collections.deque[queues.Request] = collections.deque()
    self._waves: list[_Wave] = []

  @property
  def length(self) -> int:
    """T."""
    return self.sketcher.examples.length

  def rows(self, drawing: np.ndarray) -> np.ndarray:
    """Pixels -> f32[T + 1, 5] in the model's units."""
    return strokes.to_stroke5(
      self.sketcher.examples.normalize(drawing), self.length
    )

  def pixels(self, rows: np.ndarray) -> np.ndarray:
    """f32[N, 5] in the model's units -> f32[N, 3], without what has ended."""
    points = strokes.to_stroke3(rows)
    points[:, :2] *= self.sketcher.examples.scale
    return points

  def compile(self, tell: Callable[[int, int], None] = lambda *_: None):
    """Computes once in all shapes that there are, before anybody waits.

    Args:
      tell: is called with how many are done, and of how many.
    """
    sampling = generation.Sampling(0.5, choices='js')
    encodes = (1, 2) if self.sketcher.model.conditional else ()
    total = len(SIZES) + len(encodes)
    label = 0 if self.sketcher.classes else None
    for i, size in enumerate(SIZES):
      tell(i, total)
      drawn = self._at_once(Draw(size, 0, sampling, label=label))
      if size == SIZES[-1] and not self._knows_size:
        self.size = _typical_size(drawn)
    for i, count in enumerate(encodes, len(SIZES)):
      tell(i, total)
      dot = np.array([[1, 1, 0], [1, 0, 1]], np.float32)
      self.sketcher.encode([dot] * count)
    tell(total, total)

  def _at_once(self, job: Draw) -> list[np.ndarray]:
    """The drawings of a job, without a queue."""
    told = []
    request = queues.Request(job, told.append, lambda _: None)
    wave = _Wave(self, [request])
    while wave.advance():
      pass
    return told[0].value

  # The engine.

  def accept(self, requests: list[queues.Request]):
    """See `queues.Engine`."""
    for request in requests:
      if isinstance(request.job, Encode):
        self._to_encode.append(request)
      else:
        self._to_draw.append(request)

  def advance(self) -> bool:
    """See `queues.Engine`."""
    self._encode()
    while self._to_draw and len(self._waves) < _MOST_WAVES:
      if wave := self._next_wave():
        self._waves.insert(0, wave)
    self._waves = [wave for wave in self._waves if wave.advance()]
    return bool(self._to_encode or self._to_draw or self._waves)

  def clear(self):
    """See `queues.Engine`."""
    self._to_encode.clear()
    self._to_draw.clear()
    self._waves.clear()

  def _encode(self):
    """Those that came first, and as many as go into their batch."""
    count, chosen = 0, []
    while self._to_encode:
      more = len(self._to_encode[0].job.drawings)
      if chosen and count + more > _MOST_ENCODED:
        break
      request = self._to_encode.pop(0)
      if request.cancelled:
        request.finish()
      else:
        chosen.append(request)
        count += more
    if not chosen:
      return
    drawings = [drawing for r in chosen for drawing in r.job.drawings]
    mean, sigma = self.sketcher.encode(drawings)
    start = 0
    for request in chosen:
      end = start + len(request.job.drawings)
      request.finish((mean[start:end], sigma[start:end]))
      start = end

  def _next_wave(self) -> '_Wave | None':
    """The first that waits, and all that go with it, in their order."""
    chosen, left, count = [], collections.deque(), 0
    while self._to_draw:
      request = self._to_draw.popleft()
      if request.cancelled:
        request.finish()
        continue
      if count + request.job.count <= SIZES[-1]:
        chosen.append(request)
        count += request.job.count
      else:
        left.append(request)
    self._to_draw = left
    return _Wave(self, chosen) if chosen else None


class _Wave:
  """Drawings of some requests that go on together, point by point."""

  def __init__(self, drawer: Drawer, requests: list[queues.Request]):
    """Begins them."""
    self._drawer = drawer
    self._requests = requests
    jobs = [request.job for request in requests]
    counts = [job.count for job in jobs]
    ends = np.cumsum(counts)
    # The rows of each request.
    self._own = [
      range(end - count, end) for end, count in zip(ends, counts, strict=True)
    ]
    real = int(ends[-1])
    size = next(size for size in SIZES if size >= real)
    padded = np.minimum(np.arange(size), real - 1)

    def spread(values):
      """One of each request -> one of each row, the padding included."""
      return np.repeat(np.stack(values), counts, axis=0)[padded]

    self._samplings = [jobs[i].sampling for i in spread(np.arange(len(jobs)))]
    rows = spread([drawer.rows(job.beginning) for job in jobs])
    given = spread([np.int32(len(job.beginning)) for job in jobs])
    most = [drawer.length if job.most is None else job.most for job in jobs]
    self._given = given[:real]
    self._last = np.minimum(drawer.length, (given + spread(most))[:real])
    self._finished = np.zeros(size, bool)
    self._finished[real:] = True
    self._drawn = [[] for _ in range(real)]

    model = drawer.sketcher.model
    z, keys = _draw_keys(
      spread([np.uint32(job.seed) for job in jobs]),
      np.concatenate([np.arange(count, dtype=np.int32) for count in counts])[
        padded
      ],
      model.latent if model.conditional else None,
    )
    if z is not None:
      z = np.array(z)
      for job, own in zip(jobs, self._own, strict=True):
        if job.z is not None:
          z[own] = job.z
    labels = None
    if model.num_classes:
      labels = spread([np.int32(job.label) for job in jobs])
    self._state = generation.begin(
      model,
      drawer.sketcher.variables,
      keys,
      rows,
      np.where(np.arange(size) < real, given, np.int32(-1)),
      z,
      labels,
    )
    self._time = 0
    self._begun = False

  def advance(self) -> bool:
    """Draws some points and tells them; whether there is more to draw."""
    for request, own in zip(self._requests, self._own, strict=True):
      if request.cancelled and not np.all(self._finished[own]):
        self._stop(own)
        request.finish()
    real = len(self._given)
    waiting = self._given[~self._finished[:real]]
    if not len(waiting):
      return False
    before = self._time
    # What was given to all of them is read on the way.
    points = max(int(waiting.min()) - before, 0)
    points += _STEP if self._begun else _FIRST
    self._begun = True
    sketcher = self._drawer.sketcher
    self._state = generation.advance(
      sketcher.model, sketcher.variables, self._state, points, self._samplings
    )
    rows = np.asarray(self._state.rows)
    self._time = int(self._state.time)
    for request, own in zip(self._requests, self._own, strict=True):
      if not np.all(self._finished[own]):
        self._tell(request, own, rows, before)
    return not np.all(self._finished)

  def _tell(self, request, own, rows, before):
    """What is new since the time `before`."""
    parts = []
    for i in own:
      first = max(before, self._given[i]) + 1
      last = min(self._time, self._last[i]) + 1
      part = _NOTHING
      if not self._finished[i] and first < last:
        part = self._drawer.pixels(rows[i, first:last])
        ended = len(part) < last - first
        if ended or last > self._last[i]:
          self._stop([i])
        if not request.job.stream:
          self._drawn[i].append(part)
      parts.append(part)
    if request.job.stream and any(len(part) for part in parts):
      request.answer(parts)
    if np.all(self._finished[own]):
      whole = None
      if not request.job.stream:
        beginning = request.job.beginning
        whole = [np.concatenate([beginning, *self._drawn[i]]) for i in own]
      request.finish(whole)

  def _stop(self, chosen):
    """Draws nothing more of these rows."""
    self._finished[chosen] = True
    self._state = self._state.replace(
      ended=_end(self._state.ended, self._finished)
    )


def _typical_size(drawings: Sequence[np.ndarray]) -> int:
  """The median of their longer sides."""
  sides = [
    np.max(np.ptp(np.concatenate(lines), axis=0))
    for lines in map(strokes.to_lines, drawings)
    if lines
  ]
  side = float(np.median(sides)) if sides else strokes.SIZE
  return int(np.clip(side, 16, 4096)) if np.isfinite(side) else strokes.SIZE


def load(workdir: pathlib.Path) -> Drawer:
  """The best checkpoint of a run, or imported weights; not compiled.

  Raises:
    FileNotFoundError: nothing was trained there.
    ValueError: the workdir is of something else.
  """
  sketcher = inference.load(workdir)
  return Drawer(sketcher, size=_known_size(app.read_config(workdir).data))


def _known_size(config: ml_collections.ConfigDict) -> int | None:
  """Of a data set whose drawings are all brought to one size.

  Of QuickDraw it is not known: the published models were not trained at the
  size of the published files.
  """
  return strokes.SIZE if config.name == 'kanji' else None
