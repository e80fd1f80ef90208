"""Temporal attention (Yao et al. 2015).

Axes: see video/captioning/model.py. H units.
"""

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from recurrent import cells
from recurrent import decoder
from recurrent import masking
from recurrent import unroll


@flax.struct.dataclass
class _Encoded:
  """The encoded frames.

  Attributes:
    annotations: of the frames, for attention.
    end: f32[B, H of the encoder], hidden state after the last frame.
  """

  annotations: decoder.Annotations
  end: jax.Array


class TemporalAttention(decoder.AttendingDecoder):
  """Temporal attention (Yao et al. 2015) over a recurrent encoder.

    v_1, ..., v_L = LSTM(frames)                    (forwards, or both ways)
    e_i = w . tanh(W h_{t-1} + U v_i + b)
    phi = sum_i softmax(e)_i v_i
    h_t = LSTM([E y_{t-1}, phi], h_{t-1})
    p = softmax(U_p tanh(W_p [h_t, phi, E y_{t-1}] + b_p) + d)

  In the paper v_i are features of a frame and of a 3-D CNN, which encodes
  motion; here, as in later work, an LSTM reads the frames first. The decoder
  starts from the last state of the encoder. Dropout is applied to the frames,
  to v and before the vocabulary layer.

  Attributes:
    encoder_features: units of the encoder in each direction.
    bidirectional: also read the frames backwards.
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
    """See `Decoder.prepare`; runs the encoder."""
    lengths = masking.mask_to_lengths(mask)
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

  def start(self, context, num_sequences, *, train):
    """(c, h) from the last encoder state, both f32[B, num_sequences, H]."""
    del train
    state = jnp.tanh(self.init_state(context.end)).astype(jnp.float32)
    state = jnp.repeat(state[:, None], num_sequences, axis=1)
    return tuple(jnp.split(state, 2, axis=-1))

  def read(self, tokens, *, train):
    """See `Decoder.read`."""
    del train
    word = self.words(tokens)
    return word, self.cell.project(word)

  def advance(self, carry, projected, context, *, train=False):
    """See `Decoder.advance`; y holds `hidden`, `context` and `attention`."""
    annotations = context.annotations
    seen, weights, _ = self.attend(
      self.cell.hidden(carry),
      annotations.keys,
      annotations.values,
      annotations.mask,
      train=train,
    )
    carry, hidden = self.cell.step(carry, projected + self.context_gates(seen))
    return carry, {'hidden': hidden, 'context': seen, 'attention': weights}

  def predict(self, word, y, *, train):
    """See `Decoder.predict`."""
    hidden = self.dropout(y['hidden'], deterministic=not train)
    x = self.output_hidden(hidden) + self.output_context(y['context'])
    x = self.dropout(
      jnp.tanh(x + self.output_word(word)), deterministic=not train
    )
    return self.output(x).astype(jnp.float32)
