"""Mean pooling over frames (Venugopalan et al. 2015, NAACL).

Axes: see video/captioning/model.py. H units.
"""

import flax.linen as nn
import jax.numpy as jnp

from recurrent import cells
from recurrent import decoder


class MeanPool(decoder.Decoder):
  """One LSTM that reads the mean frame at every step.

    v = 1/L sum_i v_i
    h_t = LSTM([E y_{t-1}, v], h_{t-1})
    p = softmax(U h_t + d)

  (Venugopalan et al. 2015, NAACL.) The order of the frames is lost. Dropout is
  applied to the mean, to the words and to the output.
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
    """Projects the mean to gates: f32[B, L, D] -> f32[B, 1, 4 * H]."""
    clip = decoder.mean(annotations, mask)
    clip = self.dropout(clip, deterministic=not train)
    return self.cell.project_constant(clip)[:, None]

  def start(self, context, num_sequences, *, train):
    """Zeros: (c, h), both f32[B, num_sequences, H]."""
    del train
    return self.cell.start((len(context), num_sequences))

  def read(self, tokens, *, train):
    """See `Decoder.read`."""
    word = self.dropout(self.words(tokens), deterministic=not train)
    return word, self.cell.project(word)

  def advance(self, carry, projected, context, *, train=False):
    """See `Decoder.advance`; y holds `hidden`."""
    del train
    carry, hidden = self.cell.step(carry, projected + context)
    return carry, {'hidden': hidden}

  def predict(self, word, y, *, train):
    """See `Decoder.predict`."""
    del word
    hidden = self.dropout(y['hidden'], deterministic=not train)
    return self.output(hidden).astype(jnp.float32)
