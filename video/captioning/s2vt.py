"""Sequence to sequence: video to text (Venugopalan et al. 2015).

Axes: see video/captioning/model.py. H units.
"""

from typing import Any

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
  """The result of the encoding phase of `S2VT`.

  Attributes:
    lower: carry of the lower LSTM after the last frame, leaves f32[B, H].
    upper: carry of the upper LSTM, likewise.
    no_frame: f[B, 1, 4 * H], projection of the zeros that stand for frames in
      the decoding phase.
  """

  lower: Any
  upper: Any
  no_frame: jax.Array


class S2VT(decoder.Decoder):
  """Two stacked LSTMs that first read all frames, then write the words.

    encoding:  a_i = LSTM_1(W x_i, a_{i-1})    b_i = LSTM_2([a_i, 0], b_{i-1})
    decoding:  a_t = LSTM_1(0, a_{t-1})  b_t = LSTM_2([a_t, E y_{t-1}], b_{t-1})
               p = softmax(U b_t + d)

  (Venugopalan et al. 2015.) Both phases share the LSTMs. Frames and words are
  projected to `embedding` features without an activation. Dropout is applied
  to these and to the output. The paper unrolls 80 steps for every clip; here
  the encoding phase has as many steps as the clip has frames.
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
    """See `Decoder.prepare`; runs the encoding phase."""
    lengths = masking.mask_to_lengths(mask)
    frames = self.dropout(self.frame(annotations), deterministic=not train)
    lower, outputs = unroll.unroll(self.frame_cell, frames, lengths=lengths)
    # No word: nothing is added to the projection of the frames.
    upper, _ = unroll.unroll(self.word_cell, outputs, lengths=lengths)
    zeros = jnp.zeros((len(frames), 1, self.embedding))
    return _Encoded(lower, upper, self.frame_cell.project(zeros))

  def start(self, context, num_sequences, *, train):
    """The carries of both LSTMs, leaves f32[B, num_sequences, H]."""
    del train
    return jax.tree.map(
      lambda x: jnp.repeat(x[:, None], num_sequences, axis=1),
      (context.lower, context.upper),
    )

  def read(self, tokens, *, train):
    """See `Decoder.read`; projects the word to gates of the upper LSTM."""
    word = self.dropout(self.words(tokens), deterministic=not train)
    return word, self.word_cell.project_constant(word)

  def advance(self, carry, projected, context, *, train=False):
    """See `Decoder.advance`; y holds `hidden`."""
    del train
    lower, upper = carry
    lower, hidden = self.frame_cell.step(lower, context.no_frame)
    upper, hidden = self.word_cell.step(
      upper, self.word_cell.project(hidden) + projected
    )
    return (lower, upper), {'hidden': hidden}

  def predict(self, word, y, *, train):
    """See `Decoder.predict`."""
    del word
    hidden = self.dropout(y['hidden'], deterministic=not train)
    return self.output(hidden).astype(jnp.float32)
