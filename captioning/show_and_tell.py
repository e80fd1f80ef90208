"""Show and Tell (Vinyals et al. 2015). Axes: see recurrent/decoder.py."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from recurrent import decoder


class ShowAndTell(decoder.Decoder):
  """An LSTM that reads the image once.

  The image is the input before BOS, from the zero state (equations 10-12).
  Dropout falls on the LSTM's input and output (the authors' im2txt). The
  paper writes its LSTM without biases and without the tanh on the memory;
  here, as in im2txt, it is the usual one.

  Attributes:
    image_bias: whether the layer of the image has a bias, as in the ShowTell
      and NewFC of Luo's published code (which drops nothing but the output).
    cell: a key of `decoder.CELLS`; 'maxout' for the FC of Rennie et al. 2017,
      in Luo's code NewFC.
    layers: number of recurrent layers, with dropout in between.
  """

  image_bias: bool = False
  cell: str = 'lstm'
  layers: int = 1

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
    cell = decoder.find_cell(self.cell)
    self.first_layer = cell(self.features, dtype=self.dtype, name='cell')
    self.upper = decoder.upper_layers(
      self.layers,
      cell,
      features=self.features,
      dropout_rate=self.dropout_rate,
      dtype=self.dtype,
    )
    self.output = nn.Dense(self.vocab_size, dtype=self.dtype)
    self.dropout = nn.Dropout(self.dropout_rate)

  def prepare(self, annotations, mask, *, train):
    """f32[B, L, D] -> the mean projected onto the gates, f32[B, 1, G * H]."""
    image = self.image(decoder.mean(annotations, mask))
    image = self.dropout(image, deterministic=not train)
    return self.first_layer.project(image)[:, None]

  def start(self, context, num_sequences, *, train):
    """The states of all layers after the image, f32[B, num_sequences, H]."""
    shape = context.shape[:2]
    carry = self.first_layer.start(shape), self.upper.start(shape)
    carry, _ = self._step(carry, context, train=train)
    return jax.tree.map(lambda x: jnp.repeat(x, num_sequences, axis=1), carry)

  def read(self, tokens, *, train):
    """See `Decoder.read`."""
    word = self.dropout(self.words(tokens), deterministic=not train)
    return word, self.first_layer.project(word)

  def advance(self, carry, projected, context, *, train=False):
    """See `Decoder.advance`; y holds `hidden`."""
    del context
    carry, hidden = self._step(carry, projected, train=train)
    return carry, {'hidden': hidden}

  def _step(
    self, carry: Any, projected: jax.Array, *, train: bool
  ) -> tuple[Any, jax.Array]:
    """One step of all layers: the new carry, and the output f32[B, K, H]."""
    first, upper = carry
    first, hidden = self.first_layer.step(first, projected)
    upper, hidden = self.upper.step(upper, hidden, train=train)
    return (first, upper), hidden

  def predict(self, word, y, *, train):
    """See `Decoder.predict`."""
    del word
    hidden = self.dropout(y['hidden'], deterministic=not train)
    return self.output(hidden).astype(jnp.float32)
