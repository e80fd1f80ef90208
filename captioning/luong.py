"""Attention with input feeding (Luong et al. 2015).

Axes: see recurrent/decoder.py.
"""

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from recurrent import decoder


@flax.struct.dataclass
class Context:
  """The inputs of every step."""

  annotations: decoder.Annotations
  projected_constant: jax.Array  # [B, 1, G * H], of the mean annotation.


class Luong(decoder.AttendingDecoder):
  """An LSTM that attends after it has read the word before.

    h = LSTM([E w, mean a, h~], h)            (h~ of the step before, 3.3)
    alpha = softmax(v . tanh(W_a a + W_h h))
    h~ = tanh(W_c [sum_l alpha_l a_l, h])     (equation 5)
    p = softmax(W_s h~)                       (equation 6)

  From Effective Approaches to Attention-based Neural Machine Translation, with
  the score that this paper calls concat, in Bahdanau's form. Images have no
  sequence of states to start from: the state starts at zero, and the mean
  annotation is an input of every step. Dropout falls on words and on h~ before
  the vocabulary.

  Attributes:
    cell: a key of `decoder.CELLS`.
    layers: number of recurrent layers, with dropout in between; h is that of
      the top one.
  """

  cell: str = 'lstm'
  layers: int = 1

  def setup(self):
    """Declares the layers; their parameters appear on the first use."""
    super().setup()
    self.words = nn.Embed(
      self.vocab_size,
      self.embedding,
      embedding_init=nn.initializers.normal(0.3),
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
    self.feedback = nn.Dense(
      self.first_layer.width, use_bias=False, dtype=self.dtype
    )
    self.combine_hidden = nn.Dense(self.features, dtype=self.dtype)
    self.combine_context = nn.Dense(
      self.features, use_bias=False, dtype=self.dtype
    )
    self.output = nn.Dense(self.vocab_size, dtype=self.dtype)

  def prepare(self, annotations, mask, *, train):
    """See `Decoder.prepare`; the mean is projected once."""
    mean = decoder.mean(annotations, mask)
    return Context(
      self.annotate(annotations, mask, train=train),
      self.first_layer.project_constant(mean)[:, None],
    )

  def start(self, context, num_sequences, *, train):
    """Zeros: the carries of all layers, and h~; f32[B, num_sequences, H]."""
    del train
    shape = (context.projected_constant.shape[0], num_sequences)
    state = self.first_layer.start(shape), self.upper.start(shape)
    return state, jnp.zeros((*shape, self.features))

  def read(self, tokens, *, train):
    """See `Decoder.read`."""
    word = self.dropout(self.words(tokens), deterministic=not train)
    return word, self.first_layer.project(word)

  def advance(self, carry, projected, context, *, train=False):
    """See `Decoder.advance`; y holds `hidden` (h~) and `attention`."""
    (first, upper), attended = carry
    first, hidden = self.first_layer.step(
      first,
      projected + context.projected_constant + self.feedback(attended),
    )
    upper, hidden = self.upper.step(upper, hidden, train=train)
    annotations = context.annotations
    seen, weights, _ = self.attend(
      hidden,
      annotations.keys,
      annotations.values,
      annotations.mask,
      train=train,
    )
    attended = jnp.tanh(
      self.combine_hidden(hidden) + self.combine_context(seen)
    ).astype(jnp.float32)
    state = first, upper
    return (state, attended), {'hidden': attended, 'attention': weights}

  def predict(self, word, y, *, train):
    """See `Decoder.predict`."""
    del word
    attended = self.dropout(y['hidden'], deterministic=not train)
    return self.output(attended).astype(jnp.float32)
