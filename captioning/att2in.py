"""Att2in (Rennie et al. 2017). Axes: see recurrent/decoder.py."""

import flax.linen as nn
import jax.numpy as jnp

from recurrent import cells
from recurrent import decoder


class Att2in(decoder.AttendingDecoder):
  """Attention that enters the memory alone.

  The LSTM's candidate is the larger of two halves (maxout, section 3 of the
  paper), and the attended context enters only these, none of the gates. The
  state starts at zero.

  With `annotation_features` it is the 'Att2in2' of Luo's published code, which
  reproductions train: annotations and words pass through a ReLU and dropout
  first. Without, words are linear, as in the paper. Dropout falls on the
  output too.
  """

  def setup(self):
    """Declares the layers; their parameters appear on the first use."""
    super().setup()
    self.words = nn.Embed(
      self.vocab_size,
      self.embedding,
      embedding_init=(
        nn.initializers.normal(1.0)
        if self.annotation_features
        else decoder.uniform(0.1)
      ),
    )
    self.cell = cells.MaxoutLSTM(self.features, dtype=self.dtype)
    self.context_candidate = nn.Dense(2 * self.features, dtype=self.dtype)
    self.output = nn.Dense(self.vocab_size, dtype=self.dtype)

  def start(self, context, num_sequences, *, train):
    """Zeros: (c, h), both f32[B, num_sequences, H]."""
    del train
    return self.cell.start((context.values.shape[0], num_sequences))

  def read(self, tokens, *, train):
    """See `Decoder.read`."""
    word = self.words(tokens)
    if self.annotation_features:
      word = self.dropout(nn.relu(word), deterministic=not train)
    return word, self.cell.project(word)

  def advance(self, carry, projected, context, *, train=False):
    """See `Decoder.advance`; y holds `hidden` and `attention`."""
    seen, weights, _ = self.attend(
      self.cell.hidden(carry),
      context.keys,
      context.values,
      context.mask,
      train=train,
    )
    candidate = self.context_candidate(seen)
    gates = jnp.zeros_like(projected[..., : -candidate.shape[-1]])
    projected = projected + jnp.concatenate([gates, candidate], axis=-1)
    carry, hidden = self.cell.step(carry, projected)
    return carry, {'hidden': hidden, 'attention': weights}

  def predict(self, word, y, *, train):
    """See `Decoder.predict`."""
    del word
    hidden = self.dropout(y['hidden'], deterministic=not train)
    return self.output(hidden).astype(jnp.float32)
