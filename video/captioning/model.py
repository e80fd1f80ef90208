"""Video captioners: an encoder of frames and a recurrent decoder of words.

  temporal_attention   the decoder attends to the encoded frames
  s2vt                 two stacked LSTMs read the frames, then write words
  mean_pool            baseline: one LSTM that reads the mean of the frames

Axes: B clips, K captions of a clip (or beams), L frames, H x W pixels, C
channels, D features of a frame, W words, V vocabulary, F frame labels.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from captioning import vocabulary
from recurrent import decoder as decoder_lib
from video import encoders
from video.captioning import mean_pool
from video.captioning import s2vt
from video.captioning import temporal_attention
from vision import networks


def inputs(batch: dict[str, jax.Array]) -> tuple[Any, ...]:
  """The arguments of a `Captioner`: frames, tokens, lengths."""
  return batch['frames'], batch['tokens'], batch['length']


# The fields of a batch that describe its clips, and the labels of their frames.
CLIP_FIELDS = ('frames', 'length', 'frame_labels')


def clip_inputs(batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
  """The arguments of `Captioner.begin`: frames, lengths."""
  return batch['frames'], batch['length']


DECODERS = {
  'temporal_attention': temporal_attention.TemporalAttention,
  's2vt': s2vt.S2VT,
  'mean_pool': mean_pool.MeanPool,
}


class Captioner(nn.Module):
  """Predicts the next word of a caption from the frames of a clip.

  Attributes:
    decoder: one of `DECODERS`.
    encoder: of single frames; None if the inputs are features.
    difference: factor of the difference to the previous frame, which is
      concatenated to each frame: to its pixels for a `FrameCNN`, otherwise to
      its features. 0 leaves it out.
    train_batch_stats: update the batch statistics of a `ResNet`; see
      `encoders.create`.
    frame_labels: F, number of labels that are predicted for each frame; 0 for
      none.
  """

  decoder: decoder_lib.Decoder
  encoder: encoders.FrameCNN | networks.Network | None = None
  difference: float = 0.0
  train_batch_stats: bool = False
  frame_labels: int = 0

  def setup(self):
    """Declares the layer of the frame labels."""
    if self.frame_labels:
      self.label = nn.Dense(self.frame_labels)

  def annotate(self, frames: jax.Array, *, train: bool) -> jax.Array:
    """uint8[B, L, H, W, C], or features f[B, L, D] -> features f32[B, L, D]."""
    x = encoders.normalize(frames)
    if isinstance(self.encoder, encoders.FrameCNN):
      x = self._with_differences(x)
      return self.encoder(x.reshape(-1, *x.shape[2:])).reshape(*x.shape[:2], -1)
    if self.encoder is not None:
      _, flat = self.encoder(
        x.reshape(-1, *x.shape[2:]), train=train and self.train_batch_stats
      )
      x = flat.reshape(*x.shape[:2], -1)
    return self._with_differences(x)

  def _with_differences(self, x: jax.Array) -> jax.Array:
    if not self.difference:
      return x
    return encoders.with_differences(x, encoders.one_before(x), self.difference)

  def begin(
    self, frames: jax.Array, lengths: jax.Array, *, train: bool = False
  ) -> tuple[Any, Any]:
    """Returns (carry, context) of `step` for frames or features, i32[B]."""
    annotations = self.annotate(frames, train=train)
    return self.decoder.begin(annotations, lengths, train=train)

  def step(
    self, carry: Any, tokens: jax.Array, context: Any, *, train: bool = False
  ) -> tuple[Any, jax.Array]:
    """See `Decoder.step`."""
    return self.decoder.step(carry, tokens, context, train=train)

  def __call__(
    self,
    frames: jax.Array,
    tokens: jax.Array,
    lengths: jax.Array,
    *,
    train: bool,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Predicts the next word at every step, teacher forced.

    Args:
      frames: uint8[B, L, H, W, 3], or features f[B, L, D].
      tokens: i32[B, K, W], the captions without BOS.
      lengths: i32[B], number of real frames, at most L.
      train: apply dropout; needs the key 'dropout'.

    Returns:
      Logits f32[B, K, W, V] and the other outputs: `attention` f32[B, K, W, L]
      if the decoder attends, `frame_logits` f32[B, L, F] if frames are
      labelled.
    """
    annotations = self.annotate(frames, train=train)
    logits, y = self.decoder(annotations, tokens, lengths, train=train)
    if self.frame_labels:
      y = {**y, 'frame_logits': self.label(annotations)}
    return logits, y


def create(config: ml_collections.ConfigDict, vocab_size: int) -> Captioner:
  """Creates the captioner of a config.

  Args:
    config: `model` (a key of `DECODERS`), `decoder` (its arguments), `encoder`
      (see `encoders.create`), `cache_features`, `difference`,
      `train_batch_stats`, `frame_labels` and `dtype`.
    vocab_size: V.

  Raises:
    ValueError: the model is not in `DECODERS`.
  """
  if config.model not in DECODERS:
    raise ValueError(f'model={config.model!r} is none of {", ".join(DECODERS)}')
  return Captioner(
    decoder=DECODERS[config.model](
      vocab_size=vocab_size,
      bos=vocabulary.BOS_ID,
      dtype=jnp.dtype(config.dtype),
      **config.decoder,
    ),
    encoder=None if config.cache_features else create_encoder(config),
    difference=config.difference,
    train_batch_stats=config.train_batch_stats,
    frame_labels=config.frame_labels,
  )


def create_encoder(
  config: ml_collections.ConfigDict,
) -> encoders.FrameCNN | networks.Network | None:
  """Creates the encoder of frames; see `create`."""
  return encoders.create(
    config.encoder,
    train_batch_stats=config.train_batch_stats,
    dtype=jnp.dtype(config.dtype),
  )
