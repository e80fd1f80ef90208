"""Samples, completes, encodes and reconstructs drawings with a trained model.

  sketcher = inference.load('runs/cat')
  (drawing,) = sketcher.complete([beginning], key=jax.random.key(0))

Drawings are stroke-3 in pixels (strokes.py), as input and as output.

Axes: B drawings (with padding), n drawings, N points of a drawing, T the
maximum number of points, Z latent, M mixtures.
"""

import dataclasses
import functools
import os
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs import schema
from sketch_rnn import examples as examples_lib
from sketch_rnn import generation
from sketch_rnn import latent
from sketch_rnn import mixture as mixture_lib
from sketch_rnn import model as model_lib
from sketch_rnn import strokes
from training import app
from training import checkpoints
from training import released

# Batches are padded to one of these: few shapes, few compilations.
_BATCH_SIZES = (1, 10, 100)
_NOTHING = np.zeros((0, 3), np.float32)


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
  """The predicted distribution of each point of a drawing, and of the next.

  Attributes:
    weights: f32[N + 1, M], probabilities of the components.
    means: f32[N + 1, M, 2], of the point's offset, in pixels.
    sigmas: f32[N + 1, M, 2], standard deviations, in pixels.
    rhos: f32[N + 1, M], correlations.
    pens: f32[N + 1, 3], the probabilities that the pen goes on after the
      point, that it is lifted, and that the drawing has ended before it.
  """

  weights: np.ndarray
  means: np.ndarray
  sigmas: np.ndarray
  rhos: np.ndarray
  pens: np.ndarray


def _batch_sizes(count: int) -> list[tuple[int, int]]:
  """Sizes (without padding, with padding) of the batches of `count` rows."""
  sizes = []
  while count > 0:
    size = next((s for s in _BATCH_SIZES if s >= count), _BATCH_SIZES[-1])
    sizes.append((min(count, size), size))
    count -= size
  return sizes


def _in_batches(function: Callable, *arrays: Any) -> Any:
  """Calls on padded batches of arrays [n, ...] (or None); joins the results.

  Args:
    function: takes as many arrays [B, ...] and bool[B], False for padding;
      returns a pytree of arrays [B, ...].
    *arrays: arrays or None; the padding repeats the last row.
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
  """A trained model. Drawings are stroke-3 f32[N, 3], in pixels.

  Attributes:
    model: the network.
    variables: its variables, on the first device alone.
    examples: scale, maximum length and categories of the training data.
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
      variables: its variables, replicated or not.
      examples: those of the training data.
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
      ValueError: unknown category.
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
        'this model has no encoder (conditional=False) and no latent vectors: '
        'it can sample, complete and predict'
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

  def sample_prior(self, count: int, key: jax.Array) -> np.ndarray:
    """Samples z from N(0, 1): f32[count, Z]; z[i] depends on (key, i)."""
    shape = (self.model.latent,)
    sample = jax.vmap(lambda key: jax.random.normal(_split(key)[0], shape))
    return np.asarray(sample(_keys(key, count)))

  def sample_posterior(
    self, mean: np.ndarray, sigma: np.ndarray, key: jax.Array
  ) -> np.ndarray:
    """Samples z from the outputs of `encode`: f32[n, Z]; see `sample_prior`."""
    return mean + sigma * self.sample_prior(len(mean), key)

  def sample(
    self,
    count: int,
    *,
    key: jax.Array,
    temperature: float | None = None,
    sampling: generation.Sampling | None = None,
    labels: np.ndarray | None = None,
  ) -> list[np.ndarray]:
    """Samples drawings, with z from the prior if the model has one.

    Args:
      count: number of drawings.
      key: random key; drawing i depends on (key, i) and its own label alone.
      temperature: below 1 less random, above 1 more; by default that of
        `sampling`.
      sampling: how points are sampled; by default at temperature 1.
      labels: i32[count] of a model with classes, else None; see `label`.
    """
    return self._generate(
      [_NOTHING] * count,
      key=key,
      sampling=_sampling(sampling, temperature),
      labels=labels,
    )

  def decode(
    self,
    z: np.ndarray,
    *,
    key: jax.Array,
    temperature: float | None = None,
    sampling: generation.Sampling | None = None,
    labels: np.ndarray | None = None,
  ) -> list[np.ndarray]:
    """Samples a drawing of each latent vector f32[n, Z].

    Args:
      z: latent vectors.
      key: see `sample`, as for the other arguments.
      temperature: see `sample`.
      sampling: see `sample`.
      labels: i32[n]; see `sample`.
    """
    return self._generate(
      [_NOTHING] * len(z),
      key=key,
      sampling=_sampling(sampling, temperature),
      z=z,
      labels=labels,
    )

  def complete(
    self,
    beginnings: Sequence[np.ndarray],
    *,
    key: jax.Array,
    temperature: float | None = None,
    sampling: generation.Sampling | None = None,
    z: np.ndarray | None = None,
    labels: np.ndarray | None = None,
  ) -> list[np.ndarray]:
    """Continues drawings; returns them with their beginnings, unchanged.

    Args:
      beginnings: the first points of each; there may be none.
      key: see `sample`, as for the other arguments.
      temperature: see `sample`.
      sampling: see `sample`.
      z: f32[n, Z]; by default sampled from the prior, if the model has one.
      labels: i32[n]; see `sample`.

    Raises:
      ValueError: a beginning leaves no room for a point, or arguments do not
        fit each other or the model.
    """
    return self._generate(
      beginnings,
      key=key,
      sampling=_sampling(sampling, temperature),
      z=z,
      labels=labels,
    )

  def reconstruct(
    self,
    drawings: Sequence[np.ndarray],
    count: int = 1,
    *,
    key: jax.Array,
    temperature: float | None = None,
    sampling: generation.Sampling | None = None,
    labels: np.ndarray | None = None,
    from_mean: bool = False,
  ) -> list[np.ndarray]:
    """Encodes drawings and decodes them again, `count` times each.

    Args:
      drawings: n whole drawings.
      count: number of reconstructions of each, which stand together in the
        result.
      key: see `sample`, as for the other arguments.
      temperature: see `sample`.
      sampling: see `sample`.
      labels: i32[n * count]; see `sample`.
      from_mean: decode the mean of the posterior, not samples of it.
    """
    mean, sigma = (np.repeat(x, count, 0) for x in self.encode(drawings))
    z = mean if from_mean else self.sample_posterior(mean, sigma, key)
    return self.decode(
      z, key=key, temperature=temperature, sampling=sampling, labels=labels
    )

  def interpolate(
    self,
    corners: np.ndarray,
    steps: int,
    *,
    key: jax.Array,
    temperature: float | None = None,
    sampling: generation.Sampling | None = None,
    label: int | None = None,
    method: str = 'spherical',
  ) -> list[np.ndarray]:
    """Decodes latent vectors between two or four, such as means of `encode`.

    Args:
      corners: f32[2, Z], the ends of a path; or f32[4, Z], the corners of a
        grid in reading order.
      steps: length of the path, or of both sides of the grid.
      key: see `sample`, as for the other arguments.
      temperature: see `sample`.
      sampling: see `sample`.
      label: of all of them, in a model with classes.
      method: a key of `latent.INTERPOLATIONS`.

    Returns:
      `steps` drawings, or the `steps` * `steps` of the grid row by row.

    Raises:
      ValueError: there are neither two nor four latent vectors, or the method
        is unknown.
    """
    if method not in latent.INTERPOLATIONS:
      raise ValueError(
        f'method={method!r} is none of {", ".join(latent.INTERPOLATIONS)}'
      )
    between = latent.INTERPOLATIONS[method]
    if len(corners) == 2:
      z = latent.path(*corners, steps, between)
    elif len(corners) == 4:
      z = latent.grid(corners, steps, between).reshape(steps**2, -1)
    else:
      raise ValueError(
        f'interpolate takes two or four latent vectors, not {len(corners)}'
      )
    return self.decode(
      z,
      key=key,
      temperature=temperature,
      sampling=sampling,
      labels=None if label is None else np.full(len(z), label, np.int32),
    )

  def predict(
    self,
    drawings: Sequence[np.ndarray],
    *,
    z: np.ndarray | None = None,
    labels: np.ndarray | None = None,
  ) -> list[Prediction]:
    """Predicts every point of drawings from the points before it.

    Args:
      drawings: whole drawings or beginnings.
      z: f32[n, Z]; by default the means of `encode`, if the model has latent
        vectors.
      labels: i32[n] of a model with classes, else None.
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

  def _generate(
    self,
    beginnings: Sequence[np.ndarray],
    *,
    key: jax.Array,
    sampling: generation.Sampling,
    z: np.ndarray | None = None,
    labels: np.ndarray | None = None,
  ) -> list[np.ndarray]:
    """The drawings of `sample`, `decode` and `complete`."""
    lengths = {len(x) for x in (z, labels, beginnings) if x is not None}
    if len(lengths) > 1:
      raise ValueError(
        f'z, labels and beginnings differ in length: {sorted(lengths)}'
      )
    if not beginnings:
      return []
    rows, given = self._rows(beginnings)
    if np.any(given == self.examples.length):
      raise ValueError(
        f'a beginning of {self.examples.length} points leaves no room for '
        'more: pass a shorter one'
      )
    if z is None and self.model.conditional:
      z = self.sample_prior(len(beginnings), key)
    keys = _keys(key, len(beginnings))
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

  def _rows(
    self, drawings: Sequence[np.ndarray]
  ) -> tuple[np.ndarray, np.ndarray]:
    """Pixels -> stroke-5 f32[n, T + 1, 5] in the model's units, i32[n]."""
    rows, length = [], self.examples.length
    for i, drawing in enumerate(drawings):
      if len(drawing) > length:
        raise ValueError(
          f'drawing {i} has {len(drawing)} points, this model takes at most '
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


def _sampling(
  sampling: generation.Sampling | None, temperature: float | None
) -> generation.Sampling:
  """The sampling, at the temperature if there is one."""
  sampling = sampling or generation.Sampling()
  if temperature is None:
    return sampling
  return dataclasses.replace(sampling, temperature=temperature)


def _keys(key: jax.Array, count: int) -> jax.Array:
  return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count))


def _split(key: jax.Array) -> jax.Array:
  """The keys of a drawing's z and of its points."""
  return jax.random.split(key)


def load(workdir: str | os.PathLike) -> Sketcher:
  """Loads the best checkpoint of a run, or imported weights.

  Args:
    workdir: of the run, or the name of a released model, such as 'kanji'.

  Raises:
    FileNotFoundError: the workdir has no trained model.
    ValueError: the workdir is not one of Sketch-RNN.
  """
  workdir = released.resolve(workdir)
  config = app.read_config(workdir, schema.SKETCH_RNN)
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
