"""Show and Tell (Vinyals et al. 2015). Axes: see recurrent/decoder.py."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from recurrent import cells
from recurrent import decoder


class ShowAndTell(decoder.Decoder):
  """An LSTM that reads the image once.

  The image is the input before BOS, from the zero state (equations 10-12).
  Dropout falls on the LSTM's input and output (the authors' im2txt). The
  paper writes its LSTM without biases and without the tanh on the memory;
  here, as in im2txt, it is the usual one.

  Attributes:
    image_bias: whether the layer of the image has a bias, as in the ShowTell
      and NewFC of Luo's published code.
  """

  image_bias: bool = False

  attends = False

  def setup(self):
    """Declares the layers; their parameters appear on the first use."""
    self.image = nn.Dense(
      self.embedding, use_bias=self.image_bias, dtype=self.dtype
    )
    self.words = nn.Embed(
      self.vocab_size,
      self.embedding,
      embedding_init=decoder.uniform(0.08),
    )
    self.cell = cells.LSTM(self.features, dtype=self.dtype)
    self.output = nn.Dense(self.vocab_size, dtype=self.dtype)
    self.dropout = nn.Dropout(self.dropout_rate)

  def prepare(self, annotations, mask, *, train):
    """f32[B, L, D] -> the mean projected onto the gates, f32[B, 1, 4 * H]."""
    image = self.image(decoder.mean(annotations, mask))
    image = self.dropout(image, deterministic=not train)
    return self.cell.project(image)[:, None]

  def start(self, context, num_sequences, *, train):
    """The state after the image: (c, h), both f32[B, num_sequences, H]."""
    del train
    carry, _ = self.cell.step(self.cell.start(context.shape[:2]), context)
    return jax.tree.map(lambda x: jnp.repeat(x, num_sequences, axis=1), carry)

  def read(self, tokens, *, train):
    """See `Decoder.read`."""
    word = self.dropout(self.words(tokens), deterministic=not train)
    return word, self.cell.project(word)

  def advance(self, carry, projected, context, *, train=False):
    """See `Decoder.advance`; y holds `hidden`."""
    del context, train
    carry, hidden = self.cell.step(carry, projected)
    return carry, {'hidden': hidden}

  def predict(self, word, y, *, train):
    """See `Decoder.predict`."""
    del word
    hidden = self.dropout(y['hidden'], deterministic=not train)
    return self.output(hidden).astype(jnp.float32)
