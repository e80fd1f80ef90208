"""What the ways of drawing have in common: each makes sections of a sheet.

The command `sample` writes them to files, training shows them as it goes on.

Axes: n drawings, Z latent.
"""

from collections.abc import Sequence

import jax
import numpy as np

from sketch_rnn import generation
from sketch_rnn import inference
from sketch_rnn import inputs as inputs_lib
from sketch_rnn import latent
from sketch_rnn import rendering

_COLUMNS = 10
# Components below this weight are left out of the picture of a prediction.
_LEAST_WEIGHT = 0.03


class Artist:
  """What the modes have in common: a model, and how it shall draw."""

  def __init__(
    self,
    sketcher: inference.Sketcher,
    samplings: Sequence[generation.Sampling],
    *,
    seed: int = 0,
    category: str | None = None,
  ):
    """Every picture has a section for each sampling.

    Args:
      sketcher: the model.
      samplings: how points are chosen.
      seed: drawing i of a section depends on it, and on i.
      category: of a model with classes; by default that of the input.
    """
    self._sketcher = sketcher
    self._samplings = samplings
    self._key = jax.random.key(seed)
    self._category = category

  def sample(self, count: int) -> list[rendering.Section]:
    """So many drawings, of each class where there is no category."""
    classes = self._sketcher.classes
    names = [self._category] if self._category else [*classes] or ['']
    sections = []
    for name in names:
      labels = self._labels([name] * count)
      for sampling in self._samplings:
        drawings = self._sketcher.draw(
          self._key, sampling, count=count, labels=labels
        )
        sections.append(
          rendering.Section(
            [rendering.panel(drawing) for drawing in drawings],
            columns=min(count, _COLUMNS),
            heading=_heading(name, sampling),
          )
        )
    return sections

  def reconstruct(
    self, given: list[inputs_lib.Input], count: int
  ) -> list[rendering.Section]:
    """A row for each drawing: itself, then `count` draws of it."""
    z, sigma = self._sketcher.encode(_drawings(given))
    z = self._sketcher.posterior(
      np.repeat(z, count, 0), np.repeat(sigma, count, 0), self._key
    )
    return self._beside(given, z, columns=count + 1)

  def denoise(self, given: list[inputs_lib.Input]) -> list[rendering.Section]:
    """Each drawing, and beside it what its mean decodes to."""
    z, _ = self._sketcher.encode(_drawings(given))
    return self._beside(given, z, columns=2 * min(len(given), 4))

  def interpolate(
    self, given: list[inputs_lib.Input], method: str, steps: int
  ) -> list[rendering.Section]:
    """Two: a row. Four: a grid."""
    between = latent.INTERPOLATIONS[method]
    corners = self._latents(given)
    if len(given) == 2:
      path = latent.path(*corners, steps, between)
    elif len(given) == 4:
      path = latent.grid(corners, steps, between).reshape(steps**2, -1)
    else:
      raise ValueError(
        f'interpolate goes between two or four, given were {len(given)}'
      )
    return self._given(given) + self._decoded(path, given[0].category, steps)

  def analogy(
    self, given: list[inputs_lib.Input], count: int
  ) -> list[rendering.Section]:
    """A - B + C, drawn `count` times."""
    if len(given) != 3:
      raise ValueError(f'analogy takes three, A - B + C, given: {len(given)}')
    a, b, c = self._latents(given)
    z = np.repeat((a - b + c)[None], count, 0)
    return self._given(given) + self._decoded(z, given[0].category, _COLUMNS)

  def complete(
    self,
    given: list[inputs_lib.Input],
    count: int,
    points: int | None,
    *,
    pen_down: bool,
  ) -> list[rendering.Section]:
    """Endings of the first `points` of each drawing (of all of them: None)."""
    sections = []
    for one in given:
      beginning = one.require_strokes()[:points].copy()
      z = None
      if self._sketcher.model.conditional:
        # What is there so far, as if it were all.
        whole = beginning.copy()
        whole[-1, 2] = 1
        mean, sigma = self._sketcher.encode([whole])
        z = self._sketcher.posterior(
          np.repeat(mean, count, 0), np.repeat(sigma, count, 0), self._key
        )
      if pen_down:
        beginning[-1, 2] = 0
      for sampling in self._samplings:
        drawings = self._sketcher.draw(
          self._key,
          sampling,
          z=z,
          beginnings=[beginning] * count,
          labels=self._labels([one.category] * count),
        )
        sections.append(
          rendering.Section(
            [
              rendering.panel(drawing, given=len(beginning))
              for drawing in drawings
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
    """What is expected at `count` points of one drawing, and at all points."""
    if len(given) != 1:
      raise ValueError(f'predict takes one drawing, given were {len(given)}')
    (one,) = given
    drawing = one.require_strokes()
    (prediction,) = self._sketcher.predict(
      [drawing], labels=self._labels([one.category])
    )
    chosen = np.linspace(0, len(drawing), min(count, len(drawing) + 1))
    panels = [
      _expectation(drawing, prediction, int(point)) for point in chosen.round()
    ]
    section = rendering.Section(
      panels, columns=min(len(panels), 6), heading=one.id
    )
    return [section], prediction

  def encode(self, given: list[inputs_lib.Input]) -> latent.Latents:
    """The latent vectors of drawings."""
    mean, sigma = self._sketcher.encode(_drawings(given))
    return latent.Latents(
      z=self._sketcher.posterior(mean, sigma, self._key),
      mean=mean,
      sigma=sigma,
      ids=[one.id for one in given],
      categories=[one.category for one in given],
    )

  def decode(self, given: list[inputs_lib.Input]) -> list[rendering.Section]:
    """A drawing of each latent vector."""
    z = np.stack([one.require_z() for one in given])
    labels = self._labels([one.category for one in given])
    titles = [one.id for one in given]
    return self._decoded(z, None, _COLUMNS, labels=labels, titles=titles)

  def _labels(self, names: Sequence[str]) -> np.ndarray | None:
    """The classes of drawings: i32[n], or None of a model without."""
    if not self._sketcher.classes:
      if self._category is not None:
        self._sketcher.label(self._category)  # Says that there are none.
      return None
    return np.array(
      [self._sketcher.label(self._category or name) for name in names], np.int32
    )

  def _latents(self, given: list[inputs_lib.Input]) -> np.ndarray:
    """f32[n, Z]: the vectors given, and the means of drawings."""
    drawings = [one.strokes for one in given if one.z is None]
    means = iter(self._sketcher.encode(drawings)[0] if drawings else ())
    return np.stack([next(means) if one.z is None else one.z for one in given])

  def _given(self, given: list[inputs_lib.Input]) -> list[rendering.Section]:
    """The drawings that are there, to be seen beside what comes of them."""
    panels = [
      rendering.panel(one.strokes, one.id)
      for one in given
      if one.strokes is not None
    ]
    if not panels:
      return []
    return [rendering.Section(panels, len(panels), heading='given')]

  def _beside(
    self, given: list[inputs_lib.Input], z: np.ndarray, columns: int
  ) -> list[rendering.Section]:
    """Each drawing, followed by those of its share of z."""
    count = len(z) // len(given)
    labels = self._labels([one.category for one in given for _ in range(count)])
    sections = []
    for sampling in self._samplings:
      drawings = self._sketcher.draw(self._key, sampling, z=z, labels=labels)
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

  def _decoded(
    self,
    z: np.ndarray,
    category: str | None,
    columns: int,
    *,
    labels: np.ndarray | None = None,
    titles: Sequence[str] | None = None,
  ) -> list[rendering.Section]:
    """The drawings of z, all of one category or with their own labels."""
    if category is not None:
      labels = self._labels([category] * len(z))
    sections = []
    for sampling in self._samplings:
      drawings = self._sketcher.draw(self._key, sampling, z=z, labels=labels)
      panels = [
        rendering.panel(drawing, title)
        for drawing, title in zip(
          drawings, titles or [''] * len(z), strict=True
        )
      ]
      sections.append(
        rendering.Section(
          panels, min(columns, len(panels)), _heading('', sampling)
        )
      )
    return sections


def _drawings(given: Sequence[inputs_lib.Input]) -> list[np.ndarray]:
  return [one.require_strokes() for one in given]


def _heading(name: str, sampling: generation.Sampling) -> str:
  how = 'greedy' if sampling.greedy else f'temperature {sampling.temperature:g}'
  return f'{name}, {how}' if name else how


def _expectation(
  drawing: np.ndarray, prediction: inference.Prediction, point: int
) -> rendering.Panel:
  """A drawing up to a point, and where the next is expected.

  The ellipses are one standard deviation of each component, the more solid the
  more it weighs; what really follows is faint. The title is the pen's likeliest
  state after the next point.
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
    for k in np.flatnonzero(weights >= _LEAST_WEIGHT)
  ]
  pen = int(np.argmax(prediction.pens[point]))
  state = ('draws', 'lifts', 'ends')[pen]
  title = f'{point}: {state} {prediction.pens[point, pen]:.0%}'
  return rendering.Panel(panel.lines, ellipses, title)
