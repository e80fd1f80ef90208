"""The video captioners: a recurrent encoder of frames, then a decoder.

  temporal_attention   a decoder attends to what an encoder made of each frame
  s2vt                 two stacked LSTMs first see frames, then write words
  mean_pool            the baseline: one LSTM that is told the mean frame

Axes: B clips, K captions of a clip (or beams), L frames, H x W pixels, C
channels, D features of a frame, W words, V vocabulary, F labels of a frame.
"""

from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from captioning import vocabulary
from recurrent import cells
from recurrent import decoder as decoder_lib
from recurrent import unroll
from video import encoders
from vision import resnet


def inputs(batch: dict[str, jax.Array]) -> tuple[Any, ...]:
  """The arguments of a `Captioner` from a batch: frames, tokens, lengths."""
  return batch['frames'], batch['tokens'], batch['length']


class TemporalAttention(decoder_lib.AttendingDecoder):
  """Temporal attention (Yao et al. 2015) over a recurrent encoder.

    v_1, ..., v_L = LSTM(frames)                    (forwards, or both ways)
    e_i = w . tanh(W h_{t-1} + U v_i + b)
    phi = sum_i softmax(e)_i v_i
    h_t = LSTM([E y_{t-1}, phi], h_{t-1})
    p = softmax(U_p tanh(W_p [h_t, phi, E y_{t-1}] + b_p) + d)

  In the paper v_i are features of frames, and a 3-D CNN tells of motion; here,
  as in later work, an LSTM reads the frames first. The decoder starts from
  what the encoder ends with. Dropout falls on frames, on v and before the
  vocabulary.

  Attributes:
    encoder_features: units of the encoder, of each direction.
    bidirectional: whether the encoder reads the frames backwards, too.
  """

  encoder_features: int = 512
  bidirectional: bool = False

  def setup(self):
    """Declares the layers; their parameters appear on the first use."""
    super().setup()
    self.forward_cell = cells.LSTM(self.encoder_features, dtype=self.dtype)
    if self.bidirectional:
      self.backward_cell = cells.LSTM(self.encoder_features, dtype=self.dtype)
    self.words = nn.Embed(
      self.vocab_size,
      self.embedding,
      embedding_init=nn.initializers.normal(0.1),
    )
    self.init_state = nn.Dense(2 * self.features, dtype=self.dtype)
    self.cell = cells.LSTM(self.features, dtype=self.dtype)
    self.context_gates = nn.Dense(
      4 * self.features, use_bias=False, dtype=self.dtype
    )
    self.output_hidden = nn.Dense(self.embedding, dtype=self.dtype)
    self.output_context = nn.Dense(
      self.embedding, use_bias=False, dtype=self.dtype
    )
    self.output_word = nn.Dense(
      self.embedding, use_bias=False, dtype=self.dtype
    )
    self.output = nn.Dense(self.vocab_size, dtype=self.dtype)

  def prepare(self, annotations, mask, *, train):
    """See `Decoder.prepare`: what is attended to, and the encoder's end."""
    lengths = _lengths(mask)
    frames = self.dropout(annotations, deterministic=not train)
    if self.bidirectional:
      carries, encoded = unroll.bidirectional(
        self.forward_cell, self.backward_cell, frames, lengths
      )
    else:
      carry, encoded = unroll.unroll(self.forward_cell, frames, lengths=lengths)
      carries = (carry,)
    end = jnp.concatenate([hidden for _, hidden in carries], axis=-1)
    encoded = self.dropout(encoded, deterministic=not train)
    return _Encoded(self.annotate(encoded, mask, train=train), end)

  def start(self, context, captions, *, train):
    """From the encoder's end: (c, h), both f32[B, captions, H]."""
    del train
    state = jnp.tanh(self.init_state(context.end)).astype(jnp.float32)
    state = jnp.repeat(state[:, None], captions, axis=1)
    return tuple(jnp.split(state, 2, axis=-1))

  def read(self, tokens, *, train):
    """See `Decoder.read`."""
    del train
    word = self.words(tokens)
    return word, self.cell.project(word)

  def advance(self, carry, drive, context, *, train=False):
    """See `Decoder.advance`; y holds `hidden`, `context` and `attention`."""
    annotations = context.annotations
    seen, weights, _ = self.attend(
      self.cell.hidden(carry),
      annotations.keys,
      annotations.values,
      annotations.mask,
      train=train,
    )
    carry, hidden = self.cell.step(carry, drive + self.context_gates(seen))
    return carry, {'hidden': hidden, 'context': seen, 'attention': weights}

  def predict(self, word, y, *, train):
    """See `Decoder.predict`."""
    hidden = self.dropout(y['hidden'], deterministic=not train)
    x = self.output_hidden(hidden) + self.output_context(y['context'])
    x = self.dropout(
      jnp.tanh(x + self.output_word(word)), deterministic=not train
    )
    return self.output(x).astype(jnp.float32)


@flax.struct.dataclass
class _Encoded:
  """What every step of `TemporalAttention` reads, and what comes first."""

  annotations: decoder_lib.Annotations
  end: jax.Array  # f32[B, H of the encoder]: h after the last frame.


class S2VT(decoder_lib.Decoder):
  """Sequence to sequence: video to text (Venugopalan et al. 2015).

  Two stacked LSTMs, the same for both phases. At first the lower one sees the
  frames, and the upper one what the lower makes of them beside a zero in place
  of a word. Then the lower one sees zeros in place of frames, and the upper
  one its output beside the word before.

  Frames and words are brought to `embedding` features without an activation.
  Dropout falls on these and on the output. Where the paper unrolls 80 steps
  for every clip, a clip here has as many steps as frames.
  """

  attends = False

  def setup(self):
    """Declares the layers; their parameters appear on the first use."""
    self.frame = nn.Dense(self.embedding, dtype=self.dtype)
    self.words = nn.Embed(
      self.vocab_size,
      self.embedding,
      embedding_init=nn.initializers.uniform(0.08),
    )
    self.frame_cell = cells.LSTM(self.features, dtype=self.dtype)
    self.word_cell = cells.LSTM(
      self.features, dtype=self.dtype, fan_in=self.features + self.embedding
    )
    self.output = nn.Dense(self.vocab_size, dtype=self.dtype)
    self.dropout = nn.Dropout(self.dropout_rate)

  def prepare(self, annotations, mask, *, train):
    """See `Decoder.prepare`: the first phase."""
    lengths = _lengths(mask)
    frames = self.dropout(self.frame(annotations), deterministic=not train)
    lower, outputs = unroll.unroll(self.frame_cell, frames, lengths=lengths)
    # The zero in place of a word: nothing is added to what the frames drive.
    upper, _ = unroll.unroll(self.word_cell, outputs, lengths=lengths)
    zeros = jnp.zeros((len(frames), 1, self.embedding))
    return _Seen(lower, upper, self.frame_cell.project(zeros))

  def start(self, context, captions, *, train):
    """The carries of both LSTMs, leaves f32[B, captions, H]."""
    del train
    return jax.tree.map(
      lambda x: jnp.repeat(x[:, None], captions, axis=1),
      (context.lower, context.upper),
    )

  def read(self, tokens, *, train):
    """See `Decoder.read`: the word's part of what drives the upper LSTM."""
    word = self.dropout(self.words(tokens), deterministic=not train)
    return word, self.word_cell.drive(word)

  def advance(self, carry, drive, context, *, train=False):
    """See `Decoder.advance`; y holds `hidden`."""
    del train
    lower, upper = carry
    lower, hidden = self.frame_cell.step(lower, context.nothing)
    upper, hidden = self.word_cell.step(
      upper, self.word_cell.project(hidden) + drive
    )
    return (lower, upper), {'hidden': hidden}

  def predict(self, word, y, *, train):
    """See `Decoder.predict`."""
    del word
    hidden = self.dropout(y['hidden'], deterministic=not train)
    return self.output(hidden).astype(jnp.float32)


@flax.struct.dataclass
class _Seen:
  """What is left of the first phase of `S2VT`."""

  lower: Any  # The carries after the last frame, leaves f32[B, H].
  upper: Any
  nothing: jax.Array  # [B, 1, 4 * H]: what zeros drive in place of frames.


class MeanPool(decoder_lib.Decoder):
  """The mean of the frames at every step (Venugopalan et al. 2015, NAACL).

  One LSTM, driven by the word before and by the mean: the order of the frames
  is lost. Dropout falls on frames, words and output.
  """

  attends = False

  def setup(self):
    """Declares the layers; their parameters appear on the first use."""
    self.words = nn.Embed(
      self.vocab_size,
      self.embedding,
      embedding_init=nn.initializers.uniform(0.08),
    )
    self.cell = cells.LSTM(self.features, dtype=self.dtype)
    self.output = nn.Dense(self.vocab_size, dtype=self.dtype)
    self.dropout = nn.Dropout(self.dropout_rate)

  def prepare(self, annotations, mask, *, train):
    """f32[B, L, D] -> the gates that the mean drives, f32[B, 1, 4 * H]."""
    clip = decoder_lib.mean(annotations, mask)
    clip = self.dropout(clip, deterministic=not train)
    return self.cell.drive(clip)[:, None]

  def start(self, context, captions, *, train):
    """Zeros: (c, h), both f32[B, captions, H]."""
    del train
    return self.cell.start((len(context), captions))

  def read(self, tokens, *, train):
    """See `Decoder.read`."""
    word = self.dropout(self.words(tokens), deterministic=not train)
    return word, self.cell.project(word)

  def advance(self, carry, drive, context, *, train=False):
    """See `Decoder.advance`; y holds `hidden`."""
    del train
    carry, hidden = self.cell.step(carry, drive + context)
    return carry, {'hidden': hidden}

  def predict(self, word, y, *, train):
    """See `Decoder.predict`."""
    del word
    hidden = self.dropout(y['hidden'], deterministic=not train)
    return self.output(hidden).astype(jnp.float32)


def _lengths(mask: jax.Array | None) -> jax.Array | None:
  """How many frames are real: bool[B, L] -> i32[B]."""
  return None if mask is None else jnp.sum(mask, axis=1)


DECODERS = {
  'temporal_attention': TemporalAttention,
  's2vt': S2VT,
  'mean_pool': MeanPool,
}


class Captioner(nn.Module):
  """From clips to the next word: frames to vectors, then a decoder.

  Attributes:
    decoder: one of `DECODERS`.
    encoder: of each frame; None where features are given in place of frames.
    difference: show what has changed since the frame before, too, times this:
      in the pixels to a `FrameCNN`, otherwise in the features to the decoder;
      0 shows frames alone.
    train_statistics: BatchNorm of a `ResNet` learns, see `encoders.create`.
    frame_labels: F, where each frame is to be labelled besides; 0 for none.
  """

  decoder: decoder_lib.Decoder
  encoder: encoders.FrameCNN | resnet.ResNet | None = None
  difference: float = 0.0
  train_statistics: bool = False
  frame_labels: int = 0

  def setup(self):
    """Declares the layer that labels frames."""
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
        x.reshape(-1, *x.shape[2:]), train=train and self.train_statistics
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
    """Frames or features, i32[B] -> (carry, context); for `step`."""
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
    """The next word at every step, teacher forced.

    Args:
      frames: uint8[B, L, H, W, 3], or features f[B, L, D].
      tokens: i32[B, K, W], the captions without BOS.
      lengths: i32[B], how many of the L frames are real.
      train: whether to drop out; needs the key 'dropout'.

    Returns:
      Logits f32[B, K, W, V], and what the steps tell besides: `attention`
      f32[B, K, W, L] where the decoder attends; and `frame_logits` f32[B, L, F]
      where frames are labelled.
    """
    annotations = self.annotate(frames, train=train)
    logits, y = self.decoder(annotations, tokens, lengths, train=train)
    if self.frame_labels:
      y = {**y, 'frame_logits': self.label(annotations)}
    return logits, y


def create(config: ml_collections.ConfigDict, vocab_size: int) -> Captioner:
  """The captioner of a config.

  Args:
    config: `model` (a key of `DECODERS`), `decoder` (its arguments), `encoder`
      (see `encoders.create`), `cache_features`, `difference`,
      `train_statistics`, `frame_labels` and `dtype`.
    vocab_size: V.

  Raises:
    ValueError: no such model.
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
    train_statistics=config.train_statistics,
    frame_labels=config.frame_labels,
  )


def create_encoder(
  config: ml_collections.ConfigDict,
) -> encoders.FrameCNN | resnet.ResNet | None:
  """What makes vectors of frames; see `create`."""
  return encoders.create(
    config.encoder,
    train_statistics=config.train_statistics,
    dtype=jnp.dtype(config.dtype),
  )
