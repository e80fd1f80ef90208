"""Sheets of a model's drawings: one method for each mode of the command.

The command `sample` writes them to files; training shows them in TensorBoard.

Axes: n drawings, Z latent.
"""

import functools
from collections.abc import Callable
from collections.abc import Sequence

import jax
import numpy as np

from sketch_rnn import generation
from sketch_rnn import inference
from sketch_rnn import inputs as inputs_lib
from sketch_rnn import latent
from sketch_rnn import rendering

_COLUMNS = 10
# Components below this weight are left out of the figure of a prediction.
_MIN_WEIGHT = 0.03

# Called with `sampling=`; returns drawings.
_Sample = Callable[..., list[np.ndarray]]


class SheetMaker:
  """Makes the sections of a sheet, one for each way of sampling."""

  def __init__(
    self,
    sketcher: inference.Sketcher,
    samplings: Sequence[generation.Sampling],
    *,
    seed: int = 0,
    category: str | None = None,
  ):
    """Takes a model and how to sample from it.

    Args:
      sketcher: the model.
      samplings: ways of sampling points.
      seed: random seed; drawing i of a section depends on (seed, i).
      category: of a model with classes; by default that of the input.
    """
    self._sketcher = sketcher
    self._samplings = samplings
    self._key = jax.random.key(seed)
    self._category = category

  def sample(
    self, count: int, *, numbered: bool = False
  ) -> list[rendering.Section]:
    """Samples `count` drawings, of each class where there is no category.

    Args:
      count: number of drawings.
      numbered: write their numbers above them.
    """
    titles = [str(i) for i in range(count)] if numbered else None
    classes = self._sketcher.classes
    names = [self._category] if self._category else [*classes] or ['']
    sections = []
    for name in names:
      sample = functools.partial(
        self._sketcher.sample,
        count,
        key=self._key,
        labels=self._labels([name] * count),
      )
      sections += self._sections(sample, _COLUMNS, name=name, titles=titles)
    return sections

  def reconstruct(
    self,
    given: list[inputs_lib.Input],
    count: int = 1,
    *,
    from_mean: bool = False,
  ) -> list[rendering.Section]:
    """Each drawing, followed by `count` reconstructions.

    Args:
      given: the drawings.
      count: number of reconstructions of each.
      from_mean: see `Sketcher.reconstruct`; the sheet then has several
        drawings in a row.
    """
    categories = [one.category for one in given for _ in range(count)]
    sample = functools.partial(
      self._sketcher.reconstruct,
      _drawings(given),
      count,
      key=self._key,
      labels=self._labels(categories),
      from_mean=from_mean,
    )
    columns = 2 * min(len(given), 4) if from_mean else count + 1
    sections = []
    for sampling in self._samplings:
      drawings = sample(sampling=sampling)
      panels = []
      for i, one in enumerate(given):
        panels.append(rendering.panel(one.strokes, one.id))
        panels += [
          rendering.panel(drawing, given=0)
          for drawing in drawings[count * i : count * (i + 1)]
        ]
      sections.append(
        rendering.Section(panels, columns, _heading('', sampling))
      )
    return sections

  def interpolate(
    self, given: list[inputs_lib.Input], method: str, steps: int
  ) -> list[rendering.Section]:
    """A row between two inputs, or a grid between four."""
    label = self._labels([given[0].category])
    sample = functools.partial(
      self._sketcher.interpolate,
      self._latents(given),
      steps,
      key=self._key,
      label=None if label is None else label[0],
      method=method,
    )
    return self._given(given) + self._sections(sample, steps)

  def analogy(
    self, given: list[inputs_lib.Input], count: int
  ) -> list[rendering.Section]:
    """Samples A - B + C `count` times."""
    if len(given) != 3:
      raise ValueError(f'analogy takes three inputs, not {len(given)}: A B C')
    a, b, c = self._latents(given)
    sample = functools.partial(
      self._sketcher.decode,
      np.repeat((a - b + c)[None], count, 0),
      key=self._key,
      labels=self._labels([given[0].category] * count),
    )
    return self._given(given) + self._sections(sample, _COLUMNS)

  def complete(
    self,
    given: list[inputs_lib.Input],
    count: int,
    points: int | None,
    *,
    pen_down: bool,
  ) -> list[rendering.Section]:
    """Completes beginnings of drawings, `count` times each.

    Args:
      given: the drawings.
      count: number of completions of each.
      points: length of the beginning; None: the whole drawing.
      pen_down: do not lift the pen after the beginning.
    """
    sections = []
    for one in given:
      beginning = one.require_strokes()[:points].copy()
      z = None
      if self._sketcher.model.conditional:
        # Encoded as if it were a whole drawing.
        whole = beginning.copy()
        whole[-1, 2] = 1
        mean, sigma = self._sketcher.encode([whole])
        z = self._sketcher.sample_posterior(
          np.repeat(mean, count, 0), np.repeat(sigma, count, 0), self._key
        )
      if pen_down:
        beginning[-1, 2] = 0
      sample = functools.partial(
        self._sketcher.complete,
        [beginning] * count,
        key=self._key,
        z=z,
        labels=self._labels([one.category] * count),
      )
      for sampling in self._samplings:
        sections.append(
          rendering.Section(
            [
              rendering.panel(drawing, given=len(beginning))
              for drawing in sample(sampling=sampling)
            ],
            columns=min(count, _COLUMNS),
            heading=_heading(one.id, sampling),
            same_window=True,
          )
        )
    return sections

  def predict(
    self, given: list[inputs_lib.Input], count: int
  ) -> tuple[list[rendering.Section], inference.Prediction]:
    """`count` panels along a drawing, and the prediction of all points."""
    if len(given) != 1:
      raise ValueError(f'predict takes one drawing, not {len(given)}')
    (one,) = given
    drawing = one.require_strokes()
    (prediction,) = self._sketcher.predict(
      [drawing], labels=self._labels([one.category])
    )
    chosen = np.linspace(0, len(drawing), min(count, len(drawing) + 1))
    panels = [
      _prediction_panel(drawing, prediction, int(point))
      for point in chosen.round()
    ]
    section = rendering.Section(
      panels, columns=min(len(panels), 6), heading=one.id
    )
    return [section], prediction

  def encode(self, given: list[inputs_lib.Input]) -> latent.Latents:
    """The latent vectors of drawings."""
    mean, sigma = self._sketcher.encode(_drawings(given))
    return latent.Latents(
      z=self._sketcher.sample_posterior(mean, sigma, self._key),
      mean=mean,
      sigma=sigma,
      ids=[one.id for one in given],
      categories=[one.category for one in given],
    )

  def decode(self, given: list[inputs_lib.Input]) -> list[rendering.Section]:
    """A drawing of each latent vector."""
    sample = functools.partial(
      self._sketcher.decode,
      np.stack([one.require_z() for one in given]),
      key=self._key,
      labels=self._labels([one.category for one in given]),
    )
    return self._sections(sample, _COLUMNS, titles=[one.id for one in given])

  def _labels(self, names: Sequence[str]) -> np.ndarray | None:
    """Labels of drawings: i32[n], or None without classes."""
    if not self._sketcher.classes:
      if self._category is not None:
        self._sketcher.label(self._category)  # Raises: there are no classes.
      return None
    return np.array(
      [self._sketcher.label(self._category or name) for name in names], np.int32
    )

  def _latents(self, given: list[inputs_lib.Input]) -> np.ndarray:
    """f32[n, Z]: latent vectors as they are, drawings encoded (the means)."""
    drawings = [one.strokes for one in given if one.z is None]
    means = iter(self._sketcher.encode(drawings)[0] if drawings else ())
    return np.stack([next(means) if one.z is None else one.z for one in given])

  def _given(self, given: list[inputs_lib.Input]) -> list[rendering.Section]:
    """The input drawings, a section of their own."""
    panels = [
      rendering.panel(one.strokes, one.id)
      for one in given
      if one.strokes is not None
    ]
    if not panels:
      return []
    return [rendering.Section(panels, len(panels), heading='given')]

  def _sections(
    self,
    sample: _Sample,
    columns: int,
    *,
    name: str = '',
    titles: Sequence[str] | None = None,
  ) -> list[rendering.Section]:
    """The drawings that `sample` returns, a section for each sampling."""
    sections = []
    for sampling in self._samplings:
      drawings = sample(sampling=sampling)
      panels = [
        rendering.panel(drawing, title)
        for drawing, title in zip(
          drawings, titles or [''] * len(drawings), strict=True
        )
      ]
      sections.append(
        rendering.Section(
          panels, min(columns, len(panels)), _heading(name, sampling)
        )
      )
    return sections


def _drawings(given: Sequence[inputs_lib.Input]) -> list[np.ndarray]:
  return [one.require_strokes() for one in given]


def _heading(name: str, sampling: generation.Sampling) -> str:
  how = 'greedy' if sampling.greedy else f'temperature {sampling.temperature:g}'
  return f'{name}, {how}' if name else how


def _prediction_panel(
  drawing: np.ndarray, prediction: inference.Prediction, point: int
) -> rendering.Panel:
  """A drawing up to a point, and the predicted distribution of the next.

  The ellipses are one standard deviation of each component; the larger the
  weight, the more opaque. The rest of the drawing is faint. The title is the
  most probable pen state of the next point.
  """
  panel = rendering.panel(
    drawing, given=point, colours=(rendering.INK, rendering.FAINT)
  )
  here = drawing[:point, :2].sum(axis=0)
  weights = prediction.weights[point]
  ellipses = [
    rendering.ellipse(
      here + prediction.means[point, k],
      prediction.sigmas[point, k],
      prediction.rhos[point, k],
      opacity=0.9 * np.sqrt(weights[k]),
    )
    for k in np.flatnonzero(weights >= _MIN_WEIGHT)
  ]
  pen = int(np.argmax(prediction.pens[point]))
  state = ('draws', 'lifts', 'ends')[pen]
  title = f'{point}: {state} {prediction.pens[point, pen]:.0%}'
  return rendering.Panel(panel.lines, ellipses, title)
