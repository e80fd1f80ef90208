"""Sketch-RNN (Ha and Eck 2017): a sequence VAE, or its decoder alone.

The decoder is written as one step of time, `step`, which sampling calls.
Training projects the points of all time at once, scans the recurrence alone
and computes all mixtures from its outputs at once. The projection of z is the
same at every step and is computed once for a drawing.

A point is stroke-5: (dx, dy, p1 draws, p2 lifts, p3 ends).

Axes: B drawings, T points, Z latent, M mixtures, H units, K classes, W the
width of the decoder's gates (`recurrent.cells`).
"""

import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from recurrent import cells
from recurrent import modulated_cells
from recurrent import unroll

CELLS = {
  'lstm': cells.LSTM,
  'layer_norm': modulated_cells.LayerNormLSTM,
  'hyper': modulated_cells.HyperLSTM,
}
POINT = 5  # Numbers of a point.

_small = nn.initializers.normal(0.001)


def _glorot_bias(key, shape, dtype=jnp.float32):
  """Random bias of the output, as published: sampled like a kernel [n, n]."""
  limit = jnp.sqrt(3.0 / shape[0])
  return jax.random.uniform(key, shape, dtype, -limit, limit)


class SketchRNN(nn.Module):
  """The sequence VAE of section 3.2, or the decoder-only model of 3.4.

  Attributes:
    encoder: a key of `CELLS`; both directions of the encoder are such cells.
    encoder_features: units of each direction.
    decoder: a key of `CELLS`.
    decoder_features: units of the decoder, H.
    latent: size of the latent vector, Z.
    mixtures: components of the distribution of an offset, M.
    recurrent_dropout: the share of candidates that are dropped, in the encoder
      and in the decoder (Semeniuta et al. 2016).
    conditional: use an encoder and a latent vector.
    learned_prior: learn the mean and the deviation of each dimension of the
      prior. z is relative to them, so that its prior is N(0, 1) as without:
      the decoder reads mean + deviation * z. This changes L_KL and nothing
      else; without it, a posterior that is narrow everywhere costs little and
      leaves most of the prior to chance.
    num_classes: K; 0 without labels. The one-hot label is concatenated with z,
      or takes its place where the model is not conditional.
    dtype: type of the products; parameters and the state are float32.
  """

  encoder: str = 'lstm'
  encoder_features: int = 256
  decoder: str = 'lstm'
  decoder_features: int = 512
  latent: int = 128
  mixtures: int = 20
  recurrent_dropout: float = 0.1
  conditional: bool = True
  learned_prior: bool = False
  num_classes: int = 0
  dtype: Any = jnp.float32

  def setup(self):
    """Declares the layers; their parameters appear on the first use.

    Raises:
      ValueError: unknown cell.
    """
    for name, cell in (('encoder', self.encoder), ('decoder', self.decoder)):
      if cell not in CELLS:
        raise ValueError(f'{name}={cell!r} is none of {", ".join(CELLS)}')
    if self.conditional:
      encoder = CELLS[self.encoder]
      self.forward_cell, self.backward_cell = (
        encoder(self.encoder_features, dtype=self.dtype, fan_in=POINT)
        for _ in range(2)
      )
      self.mean, self.presigma = (
        nn.Dense(self.latent, dtype=self.dtype, kernel_init=_small)
        for _ in range(2)
      )
      if self.learned_prior:
        self.prior_mean, self.prior_log_deviation = (
          self.param(name, nn.initializers.zeros, (self.latent,))
          for name in ('prior_mean', 'prior_log_deviation')
        )
    constant = self.num_classes + (self.latent if self.conditional else 0)
    self.decoder_cell = CELLS[self.decoder](
      self.decoder_features, dtype=self.dtype, fan_in=POINT + constant
    )
    if self.conditional:
      state = jax.tree.leaves(self.decoder_cell.start(()))
      self.initial_state = nn.Dense(
        sum(leaf.size for leaf in state), dtype=self.dtype, kernel_init=_small
      )
    self.output = nn.Dense(
      6 * self.mixtures + 3,
      dtype=self.dtype,
      kernel_init=nn.initializers.glorot_uniform(),
      bias_init=_glorot_bias,
    )

  def encode(
    self, strokes: jax.Array, lengths: jax.Array, *, train: bool = False
  ) -> tuple[jax.Array, jax.Array]:
    """The distribution of z for each drawing.

    Args:
      strokes: f32[B, T, 5], without the start row.
      lengths: i32[B], number of points; the encoder does not see the end row.
      train: apply dropout; needs the 'dropout' key.

    Returns:
      Mean and presigma f32[B, Z]: the standard deviation is exp(presigma / 2).
    """
    both = (self.forward_cell, self.backward_cell)
    carries, _ = unroll.bidirectional(
      *both,
      strokes,
      lengths,
      recurrent_masks=tuple(
        self._masks(strokes, cell.features, train=train) for cell in both
      ),
    )
    final = [
      cell.hidden(carry) for cell, carry in zip(both, carries, strict=True)
    ]
    final = jnp.concatenate(final, axis=-1)
    mean, presigma = (
      layer(final).astype(jnp.float32) for layer in (self.mean, self.presigma)
    )
    if self.learned_prior:
      mean = (mean - self.prior_mean) * jnp.exp(-self.prior_log_deviation)
      presigma = presigma - 2 * self.prior_log_deviation
    return mean, presigma

  def start(
    self,
    z: jax.Array | None = None,
    labels: jax.Array | None = None,
    batch_shape: tuple[int, ...] = (),
  ) -> tuple[Any, jax.Array | None]:
    """The decoder's carry before the first point.

    Args:
      z: f32[B, Z] of a conditional model, else None.
      labels: i32[B] of a model with classes, else None.
      batch_shape: shape of the batch where there is neither.

    Returns:
      The carry, and the share of the gates' input that is constant in time:
      [B, W], or None where there is neither.

    Raises:
      ValueError: z or the labels are missing, or the model takes none.
    """
    if (z is not None) != self.conditional:
      raise ValueError(
        f'conditional={self.conditional}: '
        f'{"pass z" if self.conditional else "pass z=None"}'
      )
    if (labels is not None) != (self.num_classes > 0):
      raise ValueError(
        f'num_classes={self.num_classes}: '
        f'{"pass labels" if self.num_classes else "pass labels=None"}'
      )
    if z is not None and self.learned_prior:
      z = self.prior_mean + jnp.exp(self.prior_log_deviation) * z
    constant = [] if z is None else [z]
    if labels is not None:
      constant.append(jax.nn.one_hot(labels, self.num_classes))
    if not constant:
      return self.decoder_cell.start(batch_shape), None
    constant = jnp.concatenate(constant, axis=-1)
    carry = self.decoder_cell.start(constant.shape[:-1])
    if z is not None:
      state = jnp.tanh(self.initial_state(constant).astype(jnp.float32))
      leaves, treedef = jax.tree.flatten(carry)
      ends = list(itertools.accumulate(leaf.shape[-1] for leaf in leaves))
      carry = treedef.unflatten(jnp.split(state, ends[:-1], axis=-1))
    return carry, self.decoder_cell.project_constant(constant)

  def step(
    self, carry: Any, stroke: jax.Array, projected_constant: jax.Array | None
  ) -> tuple[Any, jax.Array]:
    """Computes one step of time.

    Args:
      carry: from `start` or from the previous step.
      stroke: f32[B, 5], the point before the predicted one.
      projected_constant: from `start`.

    Returns:
      The carry, and the next point's mixture f32[B, 6 * M + 3] as
      `mixture.parameters` reads it.
    """
    projected = self.decoder_cell.project(stroke)
    if projected_constant is not None:
      projected = projected + projected_constant
    carry, output = self.decoder_cell.step(carry, projected)
    return carry, self.output(output).astype(jnp.float32)

  def decode(
    self,
    strokes: jax.Array,
    z: jax.Array | None = None,
    labels: jax.Array | None = None,
    *,
    train: bool = False,
  ) -> jax.Array:
    """The mixture of every point given those before it, teacher forced.

    Args:
      strokes: f32[B, T, 5], the start row and the points but for the last.
      z: see `start`.
      labels: see `start`.
      train: apply dropout; needs the 'dropout' key.

    Returns:
      f32[B, T, 6 * M + 3].
    """
    carry, projected_constant = self.start(z, labels, strokes.shape[:1])
    _, outputs = unroll.unroll(
      self.decoder_cell,
      strokes,
      carry,
      projected_constant=projected_constant,
      recurrent_masks=self._masks(strokes, self.decoder_features, train=train),
    )
    return self.output(outputs).astype(jnp.float32)

  def __call__(
    self,
    strokes: jax.Array,
    lengths: jax.Array,
    labels: jax.Array | None = None,
    *,
    train: bool = False,
  ) -> tuple[jax.Array, jax.Array | None, jax.Array | None]:
    """Encodes, samples z and predicts every point from those before it.

    Args:
      strokes: f32[B, T + 1, 5], the start row first.
      lengths: i32[B], number of points of each drawing.
      labels: i32[B] of a model with classes, else None.
      train: apply dropout; needs the 'dropout' key. A conditional model always
        needs the 'latent' key.

    Returns:
      The mixtures f32[B, T, 6 * M + 3], and the mean and presigma f32[B, Z]
      of z, both None where the model is not conditional.
    """
    z = mean = presigma = None
    if self.conditional:
      mean, presigma = self.encode(strokes[:, 1:], lengths, train=train)
      noise = jax.random.normal(self.make_rng('latent'), mean.shape)
      z = mean + jnp.exp(presigma / 2) * noise
    raw = self.decode(strokes[:, :-1], z, labels, train=train)
    return raw, mean, presigma

  def _masks(
    self, strokes: jax.Array, features: int, *, train: bool
  ) -> jax.Array | None:
    """The masks of recurrent dropout of all time: f32[T, B, H]."""
    if not train or not self.recurrent_dropout:
      return None
    return cells.dropout_masks(
      self.make_rng('dropout'),
      self.recurrent_dropout,
      (strokes.shape[1], strokes.shape[0], features),
    )
