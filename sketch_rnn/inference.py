"""From a trained workdir, or a running training, to drawings in pixels.

Axes: B drawings (with padding), n drawings, N points of a drawing, T the most
points of a drawing, Z latent, M mixtures.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sketch_rnn import examples as examples_lib
from sketch_rnn import generation
from sketch_rnn import mixture as mixture_lib
from sketch_rnn import model as model_lib
from sketch_rnn import strokes
from training import app
from training import checkpoints

# Batches are padded to one of these: few shapes, few compilations.
_BATCH_SIZES = (1, 10, 100)


@functools.partial(jax.jit, static_argnames='model')
def _encode(model, variables, rows, lengths):
  mean, presigma = model.apply(variables, rows[:, 1:], lengths, method='encode')
  return mean, jnp.exp(presigma / 2)


@functools.partial(jax.jit, static_argnames='model')
def _predict(model, variables, rows, z, labels):
  raw = model.apply(variables, rows, z, labels, method='decode')
  mixture = mixture_lib.parameters(raw)
  return (
    jnp.exp(mixture.log_weights),
    jnp.stack([mixture.mean_x, mixture.mean_y], axis=-1),
    jnp.exp(jnp.stack([mixture.log_sigma_x, mixture.log_sigma_y], axis=-1)),
    mixture.rho,
    jax.nn.softmax(mixture.pen_logits),
  )


@dataclasses.dataclass(frozen=True)
class Prediction:
  """What the model expects before a drawing and after each of its points.

  Attributes:
    weights: f32[N + 1, M], probabilities of the components.
    means: f32[N + 1, M, 2], of the next point's offset, in pixels.
    sigmas: f32[N + 1, M, 2], standard deviations, in pixels.
    rhos: f32[N + 1, M], correlations.
    pens: f32[N + 1, 3], the probabilities that after the next point the pen
      goes on, that it is lifted, and that there is no next point.
  """

  weights: np.ndarray
  means: np.ndarray
  sigmas: np.ndarray
  rhos: np.ndarray
  pens: np.ndarray


def _batch_sizes(count: int) -> list[tuple[int, int]]:
  """(how many are real, the padded size) of each batch for so many."""
  sizes = []
  while count > 0:
    size = next((s for s in _BATCH_SIZES if s >= count), _BATCH_SIZES[-1])
    sizes.append((min(count, size), size))
    count -= size
  return sizes


def _in_batches(function: Callable, *arrays: Any) -> Any:
  """Calls on padded batches of arrays [n, ...] (or None); joins the results.

  Args:
    function: of as many arrays [B, ...] and of bool[B], which are real;
      returns a pytree of arrays [B, ...].
    *arrays: the padding repeats their last row.
  """
  count = next(len(array) for array in arrays if array is not None)
  results, start = [], 0
  for real, size in _batch_sizes(count):
    chosen = start + np.minimum(np.arange(size), real - 1)
    batch = [None if array is None else array[chosen] for array in arrays]
    result = jax.device_get(function(*batch, np.arange(size) < real))
    results.append(jax.tree.map(lambda x, real=real: x[:real], result))
    start += real
  return jax.tree.map(lambda *parts: np.concatenate(parts), *results)


class Sketcher:
  """A trained model that draws. Drawings are stroke-3 f32[N, 3], in pixels.

  Attributes:
    model: the network.
    variables: of the network, on the first device alone.
    examples: what the model was trained on: its scale, length and categories.
  """

  def __init__(
    self,
    model: model_lib.SketchRNN,
    variables: Any,
    examples: examples_lib.Examples,
  ):
    """Puts the variables on the first device alone.

    Args:
      model: the network.
      variables: of it; those of a replicated state will do.
      examples: those that it was trained on.
    """
    self.model = model
    self.examples = examples
    self.variables = jax.device_put(variables, jax.local_devices()[0])

  @property
  def classes(self) -> tuple[str, ...]:
    """The names of the labels; none where the model takes no label."""
    return self.examples.categories[: self.model.num_classes]

  def label(self, category: str) -> int:
    """The label of a category.

    Raises:
      ValueError: the model has no such class.
    """
    if category not in self.classes:
      raise ValueError(
        f'category={category!r} is none of the classes of this model: '
        f'{", ".join(self.classes) or "it has none"} (--category)'
      )
    return self.classes.index(category)

  def encode(
    self, drawings: Sequence[np.ndarray]
  ) -> tuple[np.ndarray, np.ndarray]:
    """The distribution of z: mean and standard deviation, f32[n, Z] each.

    Raises:
      ValueError: the model is not conditional, or a drawing is malformed or
        too long.
    """
    if not self.model.conditional:
      raise ValueError(
        'this model is a decoder alone (conditional=False): it has no latent '
        'vectors. It can sample, complete and predict'
      )
    for i, drawing in enumerate(drawings):
      try:
        strokes.check(drawing)
      except ValueError as error:
        raise ValueError(f'drawing {i}: {error}') from error
    rows, lengths = self._rows(drawings)
    return _in_batches(
      lambda rows, lengths, _: _encode(
        self.model, self.variables, rows, lengths
      ),
      rows,
      lengths,
    )

  def prior(self, count: int, key: jax.Array) -> np.ndarray:
    """Draws z from N(0, 1): f32[count, Z]; vector i depends on (key, i)."""
    shape = (self.model.latent,)
    draw = jax.vmap(lambda key: jax.random.normal(_split(key)[0], shape))
    return np.asarray(draw(_keys(key, count)))

  def posterior(
    self, mean: np.ndarray, sigma: np.ndarray, key: jax.Array
  ) -> np.ndarray:
    """Draws z from what `encode` returned: f32[n, Z]; see `prior`."""
    return mean + sigma * self.prior(len(mean), key)

  def draw(
    self,
    key: jax.Array,
    sampling: generation.Sampling,
    *,
    count: int | None = None,
    z: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    beginnings: Sequence[np.ndarray] | None = None,
  ) -> list[np.ndarray]:
    """Draws, from nothing or from beginnings.

    Args:
      key: drawing i depends on (key, i) and its own arguments alone.
      sampling: how points are chosen.
      count: how many; that of `z` or of `beginnings` where there are any.
      z: f32[n, Z]; by default drawn from the prior, if the model has one.
      labels: i32[n] of a model with classes, else None.
      beginnings: the first points of each, which stay as they are.

    Returns:
      The n drawings, the beginnings included.

    Raises:
      ValueError: a beginning fills a whole drawing, or arguments that do not
        go with each other or with the model.
    """
    counts = {
      len(argument)
      for argument in (z, labels, beginnings)
      if argument is not None
    } | ({count} if count is not None else set())
    if len(counts) != 1:
      raise ValueError(f'how many drawings? Given were {sorted(counts)}')
    (count,) = counts
    if not count:
      return []
    if beginnings is None:
      beginnings = [np.zeros((0, 3), np.float32)] * count
    rows, given = self._rows(beginnings)
    if np.any(given == self.examples.length):
      raise ValueError(
        f'a beginning of {self.examples.length} points leaves nothing to draw: '
        'pass fewer of them'
      )
    if z is None and self.model.conditional:
      z = self.prior(count, key)
    keys = _keys(key, count)
    keys = jax.vmap(lambda key: _split(key)[1])(keys)

    def run(rows, given, keys, z, labels, real):
      given = np.where(real, given, -1)
      state = generation.begin(
        self.model, self.variables, keys, rows, given, z, labels
      )
      return generation.advance(
        self.model, self.variables, state, self.examples.length, sampling
      ).rows

    rows = _in_batches(run, rows, given, keys, z, labels)
    return [
      self._finish(row, beginning)
      for row, beginning in zip(rows, beginnings, strict=True)
    ]

  def predict(
    self,
    drawings: Sequence[np.ndarray],
    *,
    z: np.ndarray | None = None,
    labels: np.ndarray | None = None,
  ) -> list[Prediction]:
    """What the model expects at every point of drawings, as they are.

    Args:
      drawings: whole ones, or beginnings.
      z: f32[n, Z]; by default the mean of the drawing's own, if the model has
        latent vectors.
      labels: see `draw`.
    """
    rows, lengths = self._rows(drawings)
    if z is None and self.model.conditional:
      z, _ = self.encode(drawings)
    found = _in_batches(
      lambda rows, z, labels, _: _predict(
        self.model, self.variables, rows, z, labels
      ),
      rows,
      z,
      labels,
    )
    predictions = []
    for i, length in enumerate(lengths):
      weights, means, sigmas, rhos, pens = (x[i, : length + 1] for x in found)
      predictions.append(
        Prediction(
          weights,
          means * self.examples.scale,
          sigmas * self.examples.scale,
          rhos,
          pens,
        )
      )
    return predictions

  def _rows(
    self, drawings: Sequence[np.ndarray]
  ) -> tuple[np.ndarray, np.ndarray]:
    """Pixels -> stroke-5 f32[n, T + 1, 5] in the model's units, i32[n]."""
    rows, length = [], self.examples.length
    for i, drawing in enumerate(drawings):
      if len(drawing) > length:
        raise ValueError(
          f'drawing {i} has {len(drawing)} points, this model draws at most '
          f'{length}: simplify it'
        )
      rows.append(strokes.to_stroke5(self.examples.normalize(drawing), length))
    return np.stack(rows), np.array([len(d) for d in drawings], np.int32)

  def _finish(self, rows: np.ndarray, beginning: np.ndarray) -> np.ndarray:
    """Rows of a `State`, in the model's units -> a drawing in pixels."""
    drawing = strokes.to_stroke3(rows[1:])
    drawing[:, :2] *= self.examples.scale
    # Exactly, whatever scaling there and back has done.
    drawing[: len(beginning)] = beginning
    return drawing


def _keys(key: jax.Array, count: int) -> jax.Array:
  return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count))


def _split(key: jax.Array) -> jax.Array:
  """The keys of a drawing's z and of its points."""
  return jax.random.split(key)


def load(workdir: pathlib.Path) -> Sketcher:
  """The best checkpoint of a run, or imported weights.

  Raises:
    FileNotFoundError: nothing was trained there.
    ValueError: the workdir is of something else.
  """
  config = app.read_config(workdir)
  try:
    best = {'best_metric': config.best_metric, 'mode': config.best_mode}
    variables, extras, _ = checkpoints.load(workdir, **best)
    return Sketcher(
      model_lib.SketchRNN(**config.model),
      variables,
      examples_lib.Examples.from_dict(extras['drawings']),
    )
  except (AttributeError, KeyError, TypeError) as error:
    raise ValueError(
      f'{workdir} is not the workdir of a sketch_rnn run: {error}'
    ) from error
