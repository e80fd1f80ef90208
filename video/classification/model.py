"""Classifiers of clips and of sequences of features; gestures in streams.

All but the last are a `Classifier`, which reads frames, or their features:

  LRCN (Donahue et al. 2015)      a CNN for each frame, an LSTM, and the mean of
                                  the frames' logits
  ConvLSTM (Shi et al. 2015)      an LSTM with convolutions over the CNN's map
  features                        no CNN: skeletons, fingertips
  bag of frames                   baseline, `layers=0`: the order is lost
  DeepGRU                         see `deep_gru`

`step` reads one frame and returns the logits of the clip up to it, unless the
network is bidirectional. In streams, which have several gestures, the network
labels the frames, and `spoken` turns these labels into gestures (connectionist
temporal classification, Graves et al. 2006).

Axes: B clips, T time, H x W pixels, C channels, D features, F units before
pooling, V classes.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from recurrent import attention
from recurrent import cells
from recurrent import masking
from recurrent import unroll
from training import parallel
from video import encoders
from video.classification import deep_gru
from vision import networks

CELLS = {
  'rnn': cells.RNN,
  'lstm': cells.LSTM,
  'gru': cells.GRU,
  'conv_lstm': cells.ConvLSTM,
}
POOLINGS = ('mean', 'last', 'attention')
# The class of no gesture in a stream.
BLANK = 0


class Classifier(nn.Module):
  """An encoder of frames, recurrent layers, pooling over time, logits.

  Attributes:
    num_classes: V.
    encoder: of single frames; None if the inputs are features.
    cell: a key of `CELLS`. 'conv_lstm' needs an encoder that keeps the map; the
      mean of the map is taken after the last layer.
    features: units of a layer in each direction.
    layers: number of recurrent layers; with 0 the frames are a bag.
    bidirectional: also read backwards.
    pooling: over time: 'mean' (without `hidden` the logits are then the mean of
      the frames' logits), 'last', or 'attention' with weights
      softmax(v . tanh(W x + b)).
    attention: units of that tanh.
    hidden: units of a ReLU layer before the logits; 0 for none.
    distances: dimensions of the points that the features are, whose distances
      from each other are concatenated to each frame, as in Zhang et al. (2017);
      0 leaves them out.
    difference: factor of the difference to the previous frame, which is
      concatenated to each frame; 0 leaves it out.
    dropout_rate: before each layer and before the logits.
    train_batch_stats: update the batch statistics of a `ResNet`; see
      `encoders.create`.
    dtype: of the matrix products; parameters and states are float32.
  """

  num_classes: int
  encoder: encoders.FrameCNN | networks.Network | None = None
  cell: str = 'gru'
  features: int = 128
  layers: int = 1
  bidirectional: bool = False
  pooling: str = 'mean'
  attention: int = 64
  hidden: int = 0
  distances: int = 0
  difference: float = 0.0
  dropout_rate: float = 0.0
  train_batch_stats: bool = False
  dtype: Any = jnp.float32

  @property
  def reads_whole(self) -> bool:
    """True if recordings are not read frame by frame."""
    return self.bidirectional

  def setup(self):
    """Declares the layers; their parameters appear on the first use."""
    if self.cell not in CELLS:
      raise ValueError(f'cell={self.cell!r} is none of {", ".join(CELLS)}')
    if self.pooling not in POOLINGS:
      raise ValueError(
        f'pooling={self.pooling!r} is none of {", ".join(POOLINGS)}'
      )
    cell = functools.partial(CELLS[self.cell], self.features, dtype=self.dtype)
    self.forward_cells = [cell() for _ in range(self.layers)]
    if self.bidirectional:
      self.backward_cells = [cell() for _ in range(self.layers)]
    self.key = nn.Dense(self.attention, dtype=self.dtype)
    self.score = nn.Dense(1, use_bias=False, dtype=self.dtype)
    self.hidden_layer = nn.Dense(self.hidden, dtype=self.dtype)
    self.output = nn.Dense(self.num_classes, dtype=self.dtype)
    self.dropout = nn.Dropout(self.dropout_rate)

  def __call__(
    self, frames: jax.Array, lengths: jax.Array, *, train: bool
  ) -> tuple[jax.Array, jax.Array]:
    """Reads whole clips.

    Args:
      frames: uint8[B, T, H, W, C], or features f32[B, T, D].
      lengths: i32[B], number of real frames, at most T.
      train: apply dropout; needs the key 'dropout'.

    Returns:
      Logits f32[B, V] of the clips and f32[B, T, V] of the frames; those of the
      padding are undefined.
    """
    x = self._seen(frames)
    if self.difference:
      before = encoders.one_before(x)
      x = encoders.with_differences(x, before, self.difference)
    flat = self._encode(x.reshape(-1, *x.shape[2:]), train=train)
    x = flat.reshape(*x.shape[:2], *flat.shape[1:])
    for layer, cell in enumerate(self.forward_cells):
      x = self.dropout(x, deterministic=not train)
      if self.bidirectional:
        backward = self.backward_cells[layer]
        _, x = unroll.bidirectional(cell, backward, x, lengths)
      else:
        _, x = unroll.unroll(cell, x, lengths=lengths)
    x = _mean_over_locations(x, 2)

    mask = masking.lengths_to_mask(lengths, x.shape[1])
    if self.pooling == 'last':
      last = jnp.maximum(lengths - 1, 0)[:, None, None]
      summary = jnp.take_along_axis(x, last, axis=1)[:, 0]
    else:
      weights = attention.masked_softmax(self._score(x), mask)
      # where, not a product: a NaN in the padding must not survive.
      x_real = jnp.where(mask[..., None], x, 0)
      summary = jnp.einsum('bt,btf->bf', weights, x_real)
    return self._classify(summary, train), self._classify(x, train)

  def begin(self, frames: jax.Array) -> Any:
    """Returns the carry before the first frame of each recording.

    Args:
      frames: the first frames, uint8[B, H, W, C], or features f32[B, D]. `step`
        reads them; here they only make the first difference zero.

    Raises:
      ValueError: the classifier is bidirectional.
    """
    if self.bidirectional:
      raise ValueError(
        'a bidirectional classifier needs whole recordings: train one with '
        'model.bidirectional=False to read frame by frame'
      )
    x = self._seen(frames)
    encoded = self._encode(self._with_difference(x, x), train=False)
    states = [cell.start(encoded.shape[:-1]) for cell in self.forward_cells]
    width = self.features if self.layers else encoded.shape[-1]
    rows = len(frames)
    sums = jnp.zeros(rows), jnp.zeros((rows, width))
    return x, states, (jnp.full(rows, -jnp.inf), *sums)

  def step(
    self, carry: Any, frames: jax.Array
  ) -> tuple[Any, tuple[jax.Array, jax.Array]]:
    """Reads one frame of each recording.

    Args:
      carry: of `begin`, or of the previous step.
      frames: uint8[B, H, W, C], or features f32[B, D].

    Returns:
      The new carry, and two logits f32[B, V]: of the recording up to here, and
      of this frame. They equal those of `__call__` on clips that end here.
    """
    before, states, pooled = carry
    seen = self._seen(frames)
    x = self._encode(self._with_difference(seen, before), train=False)
    new_states = []
    for cell, state in zip(self.forward_cells, states, strict=True):
      state, x = cell(state, x)
      new_states.append(state)
    x = _mean_over_locations(x, 1)

    # Online softmax: rescales the sums when a larger score comes.
    largest, total, weighted = pooled
    score = self._score(x)
    peak = jnp.maximum(largest, score)
    old, new = jnp.exp(largest - peak), jnp.exp(score - peak)
    total = total * old + new
    weighted = weighted * old[:, None] + new[:, None] * x
    summary = x if self.pooling == 'last' else weighted / total[:, None]
    logits = self._classify(summary, False), self._classify(x, False)
    return (seen, new_states, (peak, total, weighted)), logits

  def _seen(self, frames):
    """Normalizes frames; concatenates the distances of points."""
    x = encoders.normalize(frames)
    return encoders.with_distances(x, self.distances) if self.distances else x

  def _with_difference(self, x, before):
    """Concatenates the difference to `before`, if there is a factor."""
    if not self.difference:
      return x
    return encoders.with_differences(x, before, self.difference)

  def _encode(self, x, *, train):
    """f32[N, H, W, C] -> f32[N, D] or f32[N, H', W', D]; keeps features."""
    if self.encoder is None:
      return x
    if isinstance(self.encoder, encoders.FrameCNN):
      return self.encoder(x)
    return self.encoder(x, train=train and self.train_batch_stats)[1]

  def _score(self, x):
    """The attention score of a frame: [..., F] -> f32[...]."""
    if self.pooling != 'attention':
      return jnp.zeros(x.shape[:-1])
    return self.score(jnp.tanh(self.key(x)))[..., 0].astype(jnp.float32)

  def _classify(self, x, train):
    """[..., F] -> logits f32[..., V]."""
    x = self.dropout(x, deterministic=not train)
    if self.hidden:
      x = nn.relu(self.hidden_layer(x))
    return self.output(x).astype(jnp.float32)


def _mean_over_locations(x: jax.Array, leading: int) -> jax.Array:
  """Averages maps [..., H', W', D] -> [..., D]; keeps vectors."""
  return x if x.ndim == leading + 1 else jnp.mean(x, axis=(-3, -2))


def create(
  config: ml_collections.ConfigDict, num_classes: int
) -> Classifier | deep_gru.DeepGRU:
  """Creates the classifier of a config.

  Args:
    config: `model` (arguments of `Classifier`, or of `DeepGRU`, which alone has
      `widths`), `encoder` (see `encoders.create`), `train_batch_stats` and
      `dtype`.
    num_classes: V.
  """
  dtype = jnp.dtype(config.dtype)
  if 'widths' in config.model:
    return deep_gru.DeepGRU(
      num_classes,
      norm_axis_name=parallel.AXIS,
      dtype=dtype,
      **{**config.model, 'widths': tuple(config.model.widths)},
    )
  return Classifier(
    num_classes=num_classes,
    encoder=encoders.create(
      config.encoder, train_batch_stats=config.train_batch_stats, dtype=dtype
    ),
    train_batch_stats=config.train_batch_stats,
    dtype=dtype,
    **config.model,
  )


def spoken(frame_labels: np.ndarray) -> list[int]:
  """The gestures of frame labels i32[T].

  Merges equal neighbours, then removes blanks.
  """
  labels = np.asarray(frame_labels)
  first = np.diff(labels, prepend=BLANK) != 0
  return [int(label) for label in labels[first] if label != BLANK]
