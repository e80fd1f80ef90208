"""Bottom-up and top-down attention (Anderson et al. 2018).

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


class UpDown(decoder.AttendingDecoder):
  """Two LSTMs: the first attends, the second predicts the word.

    h1 = LSTM1([h2, mean v, E w], h1)            (equation 2)
    a = w . tanh(W_v v + W_h h1)                 (equations 3 and 4)
    h2 = LSTM2([sum_l a_l v_l, h1], h2)          (equations 5 and 6)
    p = softmax(W h2 + b)                        (equation 7)

  On the grid of a ResNet, or on regions that a detector proposed. With
  `annotation_features` as in Luo's published code: annotations, their mean and
  words pass through a ReLU and dropout, and dropout falls on h2 before the
  output; without, as in the authors', nothing is dropped but h2.

  Attributes:
    attention_bias: biases of the attention, which Luo's code has; the equations
      have none.
    cell: a key of `decoder.CELLS`: of both.
  """

  attention_bias: bool = False
  cell: str = 'lstm'

  def setup(self):
    """Declares the layers; their parameters appear on the first use."""
    super().setup()
    self.words = nn.Embed(
      self.vocab_size,
      self.embedding,
      embedding_init=nn.initializers.normal(
        1.0 if self.annotation_features else 0.01
      ),
    )
    cell = decoder.find_cell(self.cell)
    self.attention_cell = cell(self.features, dtype=self.dtype)
    self.language_cell = cell(self.features, dtype=self.dtype)
    self.feedback = nn.Dense(
      self.attention_cell.width, use_bias=False, dtype=self.dtype
    )
    if self.annotation_features:
      self.picture = nn.Dense(self.annotation_features, dtype=self.dtype)
    self.output = nn.Dense(self.vocab_size, dtype=self.dtype)

  def prepare(self, annotations, mask, *, train):
    """See `Decoder.prepare`; the mean enters the first LSTM, once."""
    image = decoder.mean(annotations, mask)
    if self.annotation_features:
      image = nn.relu(self.picture(image))
      image = self.dropout(image, deterministic=not train)
    return Context(
      self.annotate(annotations, mask, train=train),
      self.attention_cell.project_constant(image)[:, None],
    )

  def start(self, context, num_sequences, *, train):
    """Zeros: the carries of the two cells, leaves f32[B, num_sequences, H]."""
    del train
    shape = (context.projected_constant.shape[0], num_sequences)
    return self.attention_cell.start(shape), self.language_cell.start(shape)

  def read(self, tokens, *, train):
    """See `Decoder.read`."""
    word = self.words(tokens)
    if self.annotation_features:
      word = self.dropout(nn.relu(word), deterministic=not train)
    return word, self.attention_cell.project(word)

  def advance(self, carry, projected, context, *, train=False):
    """See `Decoder.advance`; y holds `hidden` and `attention`."""
    looking, speaking = carry
    feedback = self.feedback(self.language_cell.hidden(speaking))
    looking, hidden = self.attention_cell.step(
      looking, projected + context.projected_constant + feedback
    )
    annotations = context.annotations
    seen, weights, _ = self.attend(
      hidden,
      annotations.keys,
      annotations.values,
      annotations.mask,
      train=train,
    )
    seen = jnp.concatenate([seen, hidden.astype(seen.dtype)], axis=-1)
    speaking, hidden = self.language_cell.step(
      speaking, self.language_cell.project(seen)
    )
    return (looking, speaking), {'hidden': hidden, 'attention': weights}

  def predict(self, word, y, *, train):
    """See `Decoder.predict`."""
    del word
    hidden = self.dropout(y['hidden'], deterministic=not train)
    return self.output(hidden).astype(jnp.float32)
