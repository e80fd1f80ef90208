"""Samples many drawings of Sketch-RNN at the same time, for the page.

Waiting requests become one wave: a batch of one of a few fixed sizes, which are
compiled at the start. Each drawing of a wave has its own temperature. Waves
advance in alternation, a few points at a time and the newest first, so that a
new request gets its first points at once, whatever else is being sampled.

Axes: B drawings of a wave, with padding; n drawings, N points of a drawing, T
the maximum number of points, Z latent.
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

from configs import schema
from demo import queues
from sketch_rnn import generation
from sketch_rnn import inference
from sketch_rnn import strokes
from training import app

SIZES = (1, 4, 12, 32)
_MAX_WAVES = 8  # More waves would slow each down; further requests wait.
_FIRST_POINTS = 4  # Of the first step of a wave: few, for a low latency.
_POINTS = 8  # Of every other step.
_MAX_ENCODED = 10  # Drawings in one call of `Sketcher.encode`.
_NOTHING = np.zeros((0, 3), np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class Encode:
  """A job: encode drawings.

  The answer is the mean and the standard deviation of z, f32[n, Z] each.

  Attributes:
    drawings: f32[N, 3] each, in pixels; checked.
  """

  drawings: Sequence[np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
  """A job: sample drawings, as `Sketcher.complete` does with the same seed.

  With `stream` each answer is a list of the new points of each drawing since
  the previous answer, f32[N, 3], in pixels, and the last answer is None.
  Otherwise the only answer is the list of whole drawings.

  Attributes:
    count: n, at most the largest of `SIZES`.
    seed: random seed.
    sampling: how points are sampled.
    beginning: f32[N, 3] of all drawings, in pixels, shorter than T.
    max_points: maximum number of new points of each drawing; None: up to T.
    z: f32[n, Z]; None: sampled from the prior, if the model has one.
    sigma: f32[n, Z], the standard deviation of z around these; None for 0.
    label: of all drawings, in a model with classes; else None.
    stream: answer with points as they are sampled.
  """

  count: int
  seed: int
  sampling: generation.Sampling
  beginning: np.ndarray = dataclasses.field(default_factory=_NOTHING.copy)
  max_points: int | None = None
  z: np.ndarray | None = None
  sigma: np.ndarray | None = None
  label: int | None = None
  stream: bool = False


@functools.partial(jax.jit, static_argnames='latent')
def _sample_keys(seeds, indices, latent):
  """u32[B], i32[B] -> z f32[B, Z] (None: no Z), and key[B] of the points."""

  def keys(seed, index):
    return jax.random.split(jax.random.fold_in(jax.random.key(seed), index))

  z_keys, point_keys = jax.vmap(keys, out_axes=1)(seeds, indices)
  if latent is None:
    return None, point_keys
  return jax.vmap(lambda key: jax.random.normal(key, (latent,)))(
    z_keys
  ), point_keys


@jax.jit
def _end(ended, chosen):
  return ended | chosen


class Sampler:
  """The engine of one model; see `queues.Engine`.

  Attributes:
    sketcher: the model.
    size: width and height of a typical drawing, in pixels.
  """

  def __init__(self, sketcher: inference.Sketcher, *, size: int | None = None):
    """Creates the engine of a model.

    Args:
      sketcher: the model.
      size: None: measured in `compile` on drawings that the model samples.
    """
    self.sketcher = sketcher
    self.size = size or strokes.SIZE
    self._knows_size = size is not None
    self._to_encode: list[queues.Request] = []
    self._to_sample: collections.deque[queues.Request] = collections.deque()
    self._waves: list[_Wave] = []

  @property
  def length(self) -> int:
    """T, the maximum number of points."""
    return self.sketcher.examples.length

  def rows(self, drawing: np.ndarray) -> np.ndarray:
    """Converts f32[N, 3] in pixels to f32[T + 1, 5] in the model's units."""
    return strokes.to_stroke5(
      self.sketcher.examples.normalize(drawing), self.length
    )

  def pixels(self, rows: np.ndarray) -> np.ndarray:
    """Converts f32[N, 5] in the model's units to f32[n, 3] in pixels.

    Points after the end of the drawing are removed.
    """
    points = strokes.to_stroke3(rows)
    points[:, :2] *= self.sketcher.examples.scale
    return points

  def compile(self, report: Callable[[int, int], None] = lambda *_: None):
    """Compiles all shapes, before the first request.

    Args:
      report: called with the number of compiled shapes, and that of all.
    """
    sampling = generation.Sampling(0.5, choices='js')
    encodes = (1, 2) if self.sketcher.model.conditional else ()
    total = len(SIZES) + len(encodes)
    label = 0 if self.sketcher.classes else None
    for i, size in enumerate(SIZES):
      report(i, total)
      drawings = self._at_once(Sample(size, 0, sampling, label=label))
      if size == SIZES[-1] and not self._knows_size:
        self.size = strokes.typical_size(drawings)
    for i, count in enumerate(encodes, len(SIZES)):
      report(i, total)
      dot = np.array([[1, 1, 0], [1, 0, 1]], np.float32)
      self.sketcher.encode([dot] * count)
    report(total, total)

  def _at_once(self, job: Sample) -> list[np.ndarray]:
    """Samples the drawings of a job, without the queue."""
    answers = []
    request = queues.Request(job, answers.append, lambda _: None)
    wave = _Wave(self, [request])
    while wave.advance():
      pass
    return answers[0].value

  # The engine.

  def accept(self, requests: list[queues.Request]):
    """See `queues.Engine`."""
    for request in requests:
      if isinstance(request.job, Encode):
        self._to_encode.append(request)
      else:
        self._to_sample.append(request)

  def advance(self) -> bool:
    """See `queues.Engine`."""
    self._encode()
    while self._to_sample and len(self._waves) < _MAX_WAVES:
      if wave := self._next_wave():
        self._waves.insert(0, wave)
    self._waves = [wave for wave in self._waves if wave.advance()]
    return bool(self._to_encode or self._to_sample or self._waves)

  def clear(self):
    """See `queues.Engine`."""
    self._to_encode.clear()
    self._to_sample.clear()
    self._waves.clear()

  def _encode(self):
    """Encodes the first requests, as many as fit into a batch."""
    count, chosen = 0, []
    while self._to_encode:
      more = len(self._to_encode[0].job.drawings)
      if chosen and count + more > _MAX_ENCODED:
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
    """Makes a wave of the first requests that fit into one, in order."""
    chosen, left, count = [], collections.deque(), 0
    while self._to_sample:
      request = self._to_sample.popleft()
      if request.cancelled:
        request.finish()
        continue
      if count + request.job.count <= SIZES[-1]:
        chosen.append(request)
        count += request.job.count
      else:
        left.append(request)
    self._to_sample = left
    return _Wave(self, chosen) if chosen else None


class _Wave:
  """The drawings of some requests, sampled together point by point."""

  def __init__(self, sampler: Sampler, requests: list[queues.Request]):
    """Prepares the state of the requests; samples nothing yet."""
    self._sampler = sampler
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
      """Repeats the value of each request for its rows, and pads."""
      return np.repeat(np.stack(values), counts, axis=0)[padded]

    self._samplings = [jobs[i].sampling for i in spread(np.arange(len(jobs)))]
    rows = spread([sampler.rows(job.beginning) for job in jobs])
    given = spread([np.int32(len(job.beginning)) for job in jobs])
    max_points = [
      sampler.length if job.max_points is None else job.max_points
      for job in jobs
    ]
    self._given = given[:real]
    self._last = np.minimum(sampler.length, (given + spread(max_points))[:real])
    self._finished = np.zeros(size, bool)
    self._finished[real:] = True
    self._sampled = [[] for _ in range(real)]

    model = sampler.sketcher.model
    z, keys = _sample_keys(
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
          noise = 0 if job.sigma is None else job.sigma * z[own]
          z[own] = job.z + noise
    labels = None
    if model.num_classes:
      labels = spread([np.int32(job.label) for job in jobs])
    self._state = generation.begin(
      model,
      sampler.sketcher.variables,
      keys,
      rows,
      np.where(np.arange(size) < real, given, np.int32(-1)),
      z,
      labels,
    )
    self._time = 0
    self._begun = False

  def advance(self) -> bool:
    """Samples and answers some points; returns False when all have ended."""
    for request, own in zip(self._requests, self._own, strict=True):
      if request.cancelled and not np.all(self._finished[own]):
        self._stop(own)
        request.finish()
    real = len(self._given)
    waiting = self._given[~self._finished[:real]]
    if not len(waiting):
      return False
    before = self._time
    # Up to the end of the shortest beginning nothing is sampled.
    points = max(int(waiting.min()) - before, 0)
    points += _POINTS if self._begun else _FIRST_POINTS
    self._begun = True
    sketcher = self._sampler.sketcher
    self._state = generation.advance(
      sketcher.model, sketcher.variables, self._state, points, self._samplings
    )
    rows = np.asarray(self._state.rows)
    self._time = int(self._state.time)
    for request, own in zip(self._requests, self._own, strict=True):
      if not np.all(self._finished[own]):
        self._answer(request, own, rows, before)
    return not np.all(self._finished)

  def _answer(self, request, own, rows, before):
    """Answers with the points since the time `before`."""
    parts = []
    for i in own:
      first = max(before, self._given[i]) + 1
      last = min(self._time, self._last[i]) + 1
      part = _NOTHING
      if not self._finished[i] and first < last:
        part = self._sampler.pixels(rows[i, first:last])
        ended = len(part) < last - first
        if ended or last > self._last[i]:
          self._stop([i])
        if not request.job.stream:
          self._sampled[i].append(part)
      parts.append(part)
    if request.job.stream and any(len(part) for part in parts):
      request.answer(parts)
    if np.all(self._finished[own]):
      whole = None
      if not request.job.stream:
        beginning = request.job.beginning
        whole = [np.concatenate([beginning, *self._sampled[i]]) for i in own]
      request.finish(whole)

  def _stop(self, chosen):
    """Marks rows as ended."""
    self._finished[chosen] = True
    self._state = self._state.replace(
      ended=_end(self._state.ended, self._finished)
    )


def load(workdir: pathlib.Path) -> Sampler:
  """Loads the best checkpoint of a run, or imported weights; not compiled.

  Raises:
    FileNotFoundError: the workdir has no trained model.
    ValueError: the workdir is not one of Sketch-RNN.
  """
  sketcher = inference.load(workdir)
  config = app.read_config(workdir, schema.SKETCH_RNN)
  return Sampler(sketcher, size=_known_size(config.data))


def _known_size(config: ml_collections.ConfigDict) -> int | None:
  """The size of all drawings of a data set, in pixels; None if unknown.

  That of QuickDraw is unknown: the published models were not trained at the
  size of the published files.
  """
  return strokes.SIZE if config.name == 'kanji' else None
