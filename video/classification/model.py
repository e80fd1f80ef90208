"""What clips and sequences show: a class for each, or gestures as they come.

A network reads the frames one by one, or their features:

  LRCN (Donahue et al. 2015)      a CNN for each frame, an LSTM, and the mean of
                                  the frames' logits
  ConvLSTM (Shi et al. 2015)      the LSTM is at every place of the CNN's map
  features                        without a CNN: of skeletons, of fingertips
  bag of frames                   the baseline, `layers=0`: the order is lost

all of them a `Classifier`. It can say after each frame what it would say if the
clip ended there (`step`), unless it reads backwards, too. Of streams, in which
gestures follow each other, it labels the frames, and `spoken` are the gestures
(connectionist temporal classification, Graves et al. 2006).

Axes: B clips, T time, H x W pixels, C channels, D features, F units of what is
pooled, V classes.
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
from video import encoders
from vision import resnet

CELLS = {
  'rnn': cells.RNN,
  'lstm': cells.LSTM,
  'gru': cells.GRU,
  'conv_lstm': cells.ConvLSTM,
}
POOLINGS = ('mean', 'last', 'attention')
# The class that stands for no gesture in a stream.
BLANK = 0


class Classifier(nn.Module):
  """Frames to vectors, a stack of recurrent layers, a summary, logits.

  Attributes:
    num_classes: V.
    encoder: of each frame; None where there are features in place of frames.
    cell: a key of `CELLS`; of 'conv_lstm' the encoder must keep the map, of
      which the mean is taken after the last layer.
    features: units of a layer, in each direction.
    layers: how many; with 0 the frames are a bag.
    bidirectional: whether to read backwards, too.
    pooling: what sums up the frames: their 'mean' (without `hidden` this makes
      the logits the mean of the frames'), the 'last', or 'attention': weights
      softmax(v . tanh(W x + b)) of each.
    attention: units of that tanh.
    hidden: units of a ReLU layer between the summary and the logits; 0 for
      none.
    difference: the factor of what has changed since the frame before, which is
      given beside each frame; 0 leaves it out.
    dropout_rate: before each layer and before the logits.
    train_batch_stats: BatchNorm of a `ResNet` learns, see `encoders.create`.
    dtype: of the products; parameters and states are float32.
  """

  num_classes: int
  encoder: encoders.FrameCNN | resnet.ResNet | None = None
  cell: str = 'gru'
  features: int = 128
  layers: int = 1
  bidirectional: bool = False
  pooling: str = 'mean'
  attention: int = 64
  hidden: int = 0
  difference: float = 0.0
  dropout_rate: float = 0.0
  train_batch_stats: bool = False
  dtype: Any = jnp.float32

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
      lengths: i32[B], how many of the T frames are real.
      train: whether to drop out; needs the key 'dropout'.

    Returns:
      Logits f32[B, V] of the clips and f32[B, T, V] of the frames, those of the
      padding without meaning.
    """
    x = encoders.normalize(frames)
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
    x = _mean_over_places(x, 2)

    mask = masking.lengths_to_mask(lengths, x.shape[1])
    if self.pooling == 'last':
      last = jnp.maximum(lengths - 1, 0)[:, None, None]
      summary = jnp.take_along_axis(x, last, axis=1)[:, 0]
    else:
      weights = attention.masked_softmax(self._score(x), mask)
      # Not a product: whatever the padding holds must not come through.
      x_real = jnp.where(mask[..., None], x, 0)
      summary = jnp.einsum('bt,btf->bf', weights, x_real)
    return self._classify(summary, train), self._classify(x, train)

  def begin(self, frames: jax.Array) -> Any:
    """The carry before the first frames of some streams.

    Args:
      frames: these frames, uint8[B, H, W, C], or features f32[B, D]; they are
        not read yet, but nothing has changed when they are.

    Raises:
      ValueError: the classifier reads backwards.
    """
    if self.bidirectional:
      raise ValueError(
        'a bidirectional classifier knows nothing before the end: train one '
        'with model.bidirectional=False to go frame by frame'
      )
    x = encoders.normalize(frames)
    encoded = self._encode(self._changed(x, x), train=False)
    states = [cell.start(encoded.shape[:-1]) for cell in self.forward_cells]
    width = self.features if self.layers else encoded.shape[-1]
    rows = len(frames)
    nothing = jnp.zeros(rows), jnp.zeros((rows, width))
    return x, states, (jnp.full(rows, -jnp.inf), *nothing)

  def step(
    self, carry: Any, frames: jax.Array
  ) -> tuple[Any, tuple[jax.Array, jax.Array]]:
    """Reads one frame of each stream.

    Args:
      carry: of `begin`, or of the step before.
      frames: uint8[B, H, W, C], or features f32[B, D].

    Returns:
      The new carry, and two logits f32[B, V]: of all that was seen so far, and
      of this frame. They are those of `__call__` on clips that end here.
    """
    before, states, pooled = carry
    pixels = encoders.normalize(frames)
    x = self._encode(self._changed(pixels, before), train=False)
    new_states = []
    for cell, state in zip(self.forward_cells, states, strict=True):
      state, x = cell(state, x)
      new_states.append(state)
    x = _mean_over_places(x, 1)

    # A softmax whose largest score is known only in the end.
    largest, total, weighted = pooled
    score = self._score(x)
    peak = jnp.maximum(largest, score)
    old, new = jnp.exp(largest - peak), jnp.exp(score - peak)
    total = total * old + new
    weighted = weighted * old[:, None] + new[:, None] * x
    summary = x if self.pooling == 'last' else weighted / total[:, None]
    logits = self._classify(summary, False), self._classify(x, False)
    return (pixels, new_states, (peak, total, weighted)), logits

  def _changed(self, x, before):
    """f32[B, ...], with what has changed if that is wanted."""
    if not self.difference:
      return x
    return encoders.with_differences(x, before, self.difference)

  def _encode(self, x, *, train):
    """f32[N, H, W, C] -> f32[N, D] or f32[N, H', W', D]; features stay."""
    if self.encoder is None:
      return x
    if isinstance(self.encoder, resnet.ResNet):
      return self.encoder(x, train=train and self.train_batch_stats)[1]
    return self.encoder(x)

  def _score(self, x):
    """How much a frame counts: [..., F] -> f32[...]."""
    if self.pooling != 'attention':
      return jnp.zeros(x.shape[:-1])
    return self.score(jnp.tanh(self.key(x)))[..., 0].astype(jnp.float32)

  def _classify(self, x, train):
    """[..., F] -> logits f32[..., V]."""
    x = self.dropout(x, deterministic=not train)
    if self.hidden:
      x = nn.relu(self.hidden_layer(x))
    return self.output(x).astype(jnp.float32)


def _mean_over_places(x: jax.Array, leading: int) -> jax.Array:
  """Maps to vectors: [..., H', W', D] -> [..., D]; vectors stay."""
  return x if x.ndim == leading + 1 else jnp.mean(x, axis=(-3, -2))


def create(config: ml_collections.ConfigDict, num_classes: int) -> Classifier:
  """The classifier of a config.

  Args:
    config: `model` (arguments of `Classifier`), `encoder` (see
      `encoders.create`), `train_batch_stats` and `dtype`.
    num_classes: V.
  """
  dtype = jnp.dtype(config.dtype)
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
  """The gestures that labels of frames i32[T] spell.

  Of a run of equal labels there is one gesture, and none of blanks.
  """
  labels = np.asarray(frame_labels)
  first = np.diff(labels, prepend=BLANK) != 0
  return [int(label) for label in labels[first] if label != BLANK]
