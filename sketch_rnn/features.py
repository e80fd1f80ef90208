"""Features of drawings, from a small recurrent network trained on real ones.

Measures of generated drawings (quality.py) compare sets of features. The
network reads a drawing in both directions. It learns from real drawings alone,
none of which is generated, by three tasks:

- to tell real drawings from corrupted ones and the kinds of `KINDS` from each
  other, so that what makes a drawing plausible is in the features;
- to predict a coarse image of a real drawing, so that they say what is drawn;
- where there are several categories, to classify.

Training depends on the seed alone. It takes less than a minute of two cores for
5,000 drawings; `load` keeps the result in a file.

Axes: n drawings, B batch, N points of a drawing, T points with padding, D
features, K categories, P pixels of the coarse image (its rows one after the
other).
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from recurrent import cells
from recurrent import masking
from recurrent import unroll
from sketch_rnn import rendering
from sketch_rnn import strokes
from training import app
from training import array_files

KINDS = ('real', 'shuffled', 'moved', 'mixed', 'jittered', 'cut')

# Changes whenever the same settings would give other features.
_VERSION = 1
_INPUTS = 5  # Numbers of a point: offset, lifted, position.
_SIDE = 12  # Of the coarse image.
_HIDDEN = 128  # Units between the features and the coarse image.
_LEARNING_RATE = 3e-3
_EVALUATED = 200  # Drawings at a time.


@dataclasses.dataclass(frozen=True)
class Settings:
  """Size and training of the network.

  Attributes:
    scale: pixels per unit of the network.
    length: points that are read of a drawing, T.
    num_classes: number of categories; 1 or 0 for none.
    units: of each direction.
    size: number of features, D.
    num_steps: number of updates.
    batch_size: number of drawings, of which half are corrupted.
    seed: random seed of the parameters, the batches and the corruptions.
  """

  scale: float
  length: int
  num_classes: int = 0
  units: int = 64
  size: int = 64
  num_steps: int = 500
  batch_size: int = 100
  seed: int = 0


class Network(nn.Module):
  """The network; parameters of all its tasks are trained together."""

  units: int
  size: int
  num_classes: int

  def setup(self):
    """Declares the layers."""
    self.forward_cell = cells.LSTM(self.units)
    self.backward_cell = cells.LSTM(self.units)
    self.features = nn.Dense(self.size)
    self.kind = nn.Dense(len(KINDS))
    self.hidden = nn.Dense(_HIDDEN)
    self.pixels = nn.Dense(_SIDE**2)
    self.category = nn.Dense(max(self.num_classes, 1))

  def embed(self, rows: jax.Array, lengths: jax.Array) -> jax.Array:
    """The features: f32[B, T, 5], i32[B] -> f32[B, D]."""
    _, outputs = unroll.bidirectional(
      self.forward_cell, self.backward_cell, rows, lengths
    )
    mask = masking.lengths_to_mask(lengths, rows.shape[1])[..., None]
    mean = jnp.sum(outputs * mask, 1) / jnp.maximum(lengths[:, None], 1)
    highest = jnp.max(jnp.where(mask, outputs, -1.0), 1)
    pooled = jnp.concatenate([mean, highest], axis=-1)
    return jnp.tanh(self.features(pooled))

  def classify(self, rows: jax.Array, lengths: jax.Array) -> jax.Array:
    """Logits of the categories: f32[B, T, 5], i32[B] -> f32[B, K]."""
    return self.category(self.embed(rows, lengths))

  def __call__(
    self, rows: jax.Array, lengths: jax.Array
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Logits of the kinds, of the pixels and of the categories."""
    features = self.embed(rows, lengths)
    hidden = nn.relu(self.hidden(features))
    return self.kind(features), self.pixels(hidden), self.category(features)


@dataclasses.dataclass(frozen=True)
class Features:
  """A trained network.

  Attributes:
    settings: those of the training.
    variables: of the network.
  """

  settings: Settings
  variables: Any

  def __call__(self, drawings: Sequence[np.ndarray]) -> np.ndarray:
    """The features of drawings in pixels: list of f32[N, 3] -> f32[n, D].

    They are between -1 and 1. A drawing may be empty.
    """
    return self._apply(drawings, 'embed')

  def classify(self, drawings: Sequence[np.ndarray]) -> np.ndarray:
    """The most probable category of each drawing: list of f32[N, 3] -> i64[n].

    Raises:
      ValueError: the network was trained on a single category.
    """
    if self.settings.num_classes < 2:
      raise ValueError(
        'the network knows one category: train it on several to classify'
      )
    return np.argmax(self._apply(drawings, 'classify'), axis=-1)

  def _apply(self, drawings: Sequence[np.ndarray], method: str) -> np.ndarray:
    """The outputs of a method of the network: f32[n, ...]."""
    network = _network(self.settings)
    found = []
    for start in range(0, len(drawings), _EVALUATED):
      part = drawings[start : start + _EVALUATED]
      padding = [np.zeros((0, 3), np.float32)] * (_EVALUATED - len(part))
      rows, lengths = _batch([*part, *padding], self.settings)
      outputs = _outputs(network, self.variables, rows, lengths, method)
      found.append(np.asarray(outputs)[: len(part)])
    return np.concatenate(found)


@functools.partial(jax.jit, static_argnames=('network', 'method'))
def _outputs(network, variables, rows, lengths, method):
  return network.apply(variables, rows, lengths, method=method)


def _network(settings: Settings) -> Network:
  return Network(settings.units, settings.size, settings.num_classes)


def _batch(
  drawings: Sequence[np.ndarray], settings: Settings
) -> tuple[np.ndarray, np.ndarray]:
  """The inputs of the network: f32[B, T, 5], i32[B].

  Positions are relative to the centre of the drawing's bounding box. Points
  after the first T are left out.
  """
  rows = np.zeros((len(drawings), settings.length, _INPUTS), np.float32)
  lengths = np.zeros(len(drawings), np.int32)
  for i, drawing in enumerate(drawings):
    drawing = drawing[: settings.length]
    if len(drawing):
      points = np.cumsum(drawing[:, :2], axis=0)
      low = np.minimum(points.min(axis=0), 0)
      high = np.maximum(points.max(axis=0), 0)
      lengths[i] = len(drawing)
      rows[i, : len(drawing), :2] = drawing[:, :2] / settings.scale
      rows[i, : len(drawing), 2] = drawing[:, 2]
      rows[i, : len(drawing), 3:] = (points - (low + high) / 2) / (
        2 * settings.scale
      )
  return rows, lengths


def corrupt(
  drawing: np.ndarray,
  kind: str,
  other: np.ndarray,
  rng: np.random.Generator,
) -> np.ndarray:
  """Makes a drawing implausible: f32[N, 3] -> f32[M, 3].

  Args:
    drawing: a real one.
    kind: of `KINDS`. 'real' changes nothing. 'shuffled' draws the lines in
      random order; 'moved' moves some of them; 'mixed' ends with the last lines
      of another drawing; 'jittered' moves every point; 'cut' leaves out the
      last lines.
    other: another real drawing, of which 'mixed' takes lines.
    rng: random generator.

  Raises:
    ValueError: unknown kind.
  """
  if kind not in KINDS:
    raise ValueError(f'kind={kind!r} is none of {", ".join(KINDS)}')
  if kind == 'real':
    return drawing
  lines = strokes.to_lines(drawing)
  if len(lines) < 2 and kind != 'mixed':
    kind = 'jittered'  # A single line has no order and no neighbour.
  points = np.concatenate(lines)
  extent = float(np.max(np.ptp(points, axis=0)))
  if kind == 'shuffled':
    lines = [lines[i] for i in rng.permutation(len(lines))]
  elif kind == 'moved':
    chosen = rng.random(len(lines)) < 0.3
    chosen[rng.integers(len(lines))] = True
    shifts = rng.normal(0, 0.15 * extent, (len(lines), 2))
    lines = [
      line + shift * moves
      for line, shift, moves in zip(lines, shifts, chosen, strict=True)
    ]
  elif kind == 'mixed':
    others = strokes.to_lines(other)
    share = rng.uniform(0.3, 0.7)
    kept = max(round(share * len(lines)), 1)
    lines = lines[:kept] + others[min(kept, len(others) - 1) :]
  elif kind == 'cut':
    share = rng.uniform(0.3, 0.8)
    lines = lines[: min(max(round(share * len(lines)), 1), len(lines) - 1)]
  else:
    size = rng.uniform(0.02, 0.06) * extent
    lines = [line + rng.normal(0, size, line.shape) for line in lines]
  return strokes.from_lines(lines)


def coarse_image(drawing: np.ndarray) -> np.ndarray:
  """The pixels that a drawing, fitted into 12 x 12, has ink in: f32[P]."""
  pixels = np.zeros((_SIDE, _SIDE), np.float32)
  for line in strokes.fit(strokes.to_lines(drawing), _SIDE):
    x, y = np.round(strokes.resample(line, 0.5)).astype(int).T
    pixels[y, x] = 1
  return pixels.ravel()


def train(
  drawings: Sequence[np.ndarray], labels: np.ndarray, settings: Settings
) -> Features:
  """Trains the network; the result depends on the arguments alone.

  Args:
    drawings: real ones, in pixels.
    labels: i32[n], their categories.
    settings: of the training.

  Raises:
    Stopped: SIGTERM came.
  """
  network = _network(settings)
  images = np.stack([coarse_image(drawing) for drawing in drawings])
  variables = network.init(
    jax.random.key(settings.seed), *_batch(drawings[:1], settings)
  )
  optimizer = optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.adam(optax.cosine_decay_schedule(_LEARNING_RATE, settings.num_steps)),
  )
  state = (variables, optimizer.init(variables))
  for step in range(settings.num_steps):
    app.raise_if_stopping()
    rng = np.random.default_rng((settings.seed, step))
    state = _update(
      network,
      optimizer,
      state,
      _sample(drawings, labels, images, settings, rng),
    )
  return Features(settings, jax.device_get(state[0]))


def load_or_train(
  directory: pathlib.Path,
  drawings: Sequence[np.ndarray],
  labels: np.ndarray,
  settings: Settings,
  *,
  fingerprint: str,
) -> Features:
  """Reads a network that was trained before, or trains and writes it.

  Args:
    directory: of the files, one for each fingerprint and settings.
    drawings: see `train`.
    labels: see `train`.
    settings: see `train`.
    fingerprint: identifies the drawings.

  Raises:
    Stopped: SIGTERM came.
  """
  key = json.dumps(
    [_VERSION, fingerprint, dataclasses.asdict(settings)], sort_keys=True
  )
  name = hashlib.sha256(key.encode()).hexdigest()[:16]
  path = directory / f'features_{name}.npz'
  if path.exists():
    flat = array_files.read_npz(path)
    return Features(settings, flax.traverse_util.unflatten_dict(flat, sep='/'))
  features = train(drawings, labels, settings)
  flat = flax.traverse_util.flatten_dict(features.variables, sep='/')
  directory.mkdir(parents=True, exist_ok=True)
  rendering.write_file(path, lambda file: np.savez(file, **flat))
  return features


def _sample(drawings, labels, images, settings, rng) -> dict[str, np.ndarray]:
  """A training batch. All are scaled at random, whatever their kind."""
  chosen = rng.integers(len(drawings), size=settings.batch_size)
  others = rng.integers(len(drawings), size=settings.batch_size)
  kinds = np.zeros(settings.batch_size, np.int32)
  half = settings.batch_size // 2
  kinds[:half] = rng.integers(1, len(KINDS), size=half)
  made = [
    strokes.random_scale(
      corrupt(drawings[i], KINDS[kind], drawings[j], rng), rng, 0.1
    )
    for i, j, kind in zip(chosen, others, kinds, strict=True)
  ]
  rows, lengths = _batch(made, settings)
  return {
    'rows': rows,
    'lengths': lengths,
    'kinds': kinds,
    'images': images[chosen],
    'labels': np.asarray(labels, np.int32)[chosen],
  }


@functools.partial(
  jax.jit, static_argnames=('network', 'optimizer'), donate_argnames='state'
)
def _update(network, optimizer, state, batch):
  variables, opt_state = state

  def loss_fn(variables):
    kinds, pixels, categories = network.apply(
      variables, batch['rows'], batch['lengths']
    )
    real = (batch['kinds'] == 0).astype(jnp.float32)
    loss = jnp.mean(
      optax.softmax_cross_entropy_with_integer_labels(kinds, batch['kinds'])
    )
    every = jnp.mean(
      optax.sigmoid_binary_cross_entropy(pixels, batch['images']), -1
    )
    if network.num_classes > 1:
      every += optax.softmax_cross_entropy_with_integer_labels(
        categories, batch['labels']
      )
    return loss + jnp.sum(real * every) / jnp.maximum(jnp.sum(real), 1)

  gradient = jax.grad(loss_fn)(variables)
  updates, opt_state = optimizer.update(gradient, opt_state)
  return optax.apply_updates(variables, updates), opt_state
