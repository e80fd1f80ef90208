"""Adaptive attention (Lu et al. 2017). Axes: see recurrent/decoder.py."""

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from recurrent import cells
from recurrent import decoder

# Values of `cell` -> the class of the lower layers, and that of the top one.
LAYERS = {
  'lstm': (cells.LSTM, cells.SentinelLSTM),
  'maxout': (cells.MaxoutLSTM, cells.MaxoutSentinelLSTM),
}


@flax.struct.dataclass
class Context:
  """The inputs of every step."""

  annotations: decoder.Annotations
  projected_constant: jax.Array  # [B, 1, G * H], of the mean annotation.


class AdaptiveAttention(decoder.AttendingDecoder):
  """Attention over the locations and a visual sentinel, after the LSTM.

    x = [E w, v_g]                               v_g = relu(W mean a)
    s = sigmoid(W_x x + W_h h_{t-1}) * tanh(c_t)           (equations 9, 10)
    alpha = softmax([w . tanh(W_s s + W_g h), w . tanh(W_v V + W_g h)])  (12)
    p = softmax(W_p tanh(W (alpha . [s, V] + h)))          (equations 11, 13)

  The attended context does not flow back into the LSTM. As in the authors'
  published code, the sentinel and the state pass through a layer (ReLU, tanh)
  each before they attend, there is a tanh layer before the vocabulary, and
  dropout falls on all of these. That code also has `word_relu` and
  `cell_dropout`; its dropout within the attention's tanh is left out.
  `annotation_features` and `embedding` must agree: sentinel, state and
  locations are added.

  Attributes:
    word_relu: words pass through a ReLU, before their dropout.
    cell: 'lstm', or 'maxout' for the candidate of Att2in: the AdaAttMO of Luo's
      published code.
    cell_dropout: dropout falls on s and h before their layers, too.
    layers: number of recurrent layers, with dropout in between; s and h are
      those of the top one.
  """

  annotation_features: int | None = 512
  word_relu: bool = False
  cell: str = 'lstm'
  cell_dropout: bool = False
  layers: int = 1

  def setup(self):
    """Declares the layers; their parameters appear on the first use."""
    super().setup()
    if self.annotation_features != self.embedding:
      raise ValueError(
        f'adaptive attention adds annotations and words: annotation_features='
        f'{self.annotation_features} must equal embedding={self.embedding}'
      )
    self.words = nn.Embed(
      self.vocab_size,
      self.embedding,
      embedding_init=nn.initializers.normal(0.1),
    )
    self.picture = nn.Dense(self.embedding, dtype=self.dtype)
    lower, top = decoder.find_cell(self.cell, LAYERS)
    first = top if self.layers == 1 else lower
    self.first_layer = first(self.features, dtype=self.dtype, name='cell')
    self.upper = decoder.upper_layers(
      self.layers,
      lower,
      top,
      features=self.features,
      dropout_rate=self.dropout_rate,
      dtype=self.dtype,
    )
    self.sentinel = nn.Dense(self.embedding, dtype=self.dtype)
    self.sentinel_key = nn.Dense(self.attention, dtype=self.dtype)
    self.state = nn.Dense(self.embedding, dtype=self.dtype)
    self.output_hidden = nn.Dense(self.embedding, dtype=self.dtype)
    self.output = nn.Dense(self.vocab_size, dtype=self.dtype)

  def prepare(self, annotations, mask, *, train):
    """See `Decoder.prepare`; the mean enters the LSTM, once."""
    image = nn.relu(self.picture(decoder.mean(annotations, mask)))
    image = self.dropout(image, deterministic=not train)
    return Context(
      self.annotate(annotations, mask, train=train),
      self.first_layer.project_constant(image)[:, None],
    )

  def start(self, context, num_sequences, *, train):
    """Zeros: the carries of all layers, leaves f32[B, num_sequences, H]."""
    del train
    shape = (context.projected_constant.shape[0], num_sequences)
    return (self.first_layer.start(shape), *self.upper.start(shape))

  def read(self, tokens, *, train):
    """See `Decoder.read`."""
    word = self.words(tokens)
    if self.word_relu:
      word = nn.relu(word)
    word = self.dropout(word, deterministic=not train)
    return word, self.first_layer.project(word)

  def advance(self, carry, projected, context, *, train=False):
    """See `Decoder.advance`.

    y holds `hidden`, `context` (which is added to it), `attention`, and
    `sentinel` f32[B, K], the weight of the sentinel: with `attention` it sums
    to 1.
    """
    first, *upper = carry
    first, hidden = self.first_layer.step(
      first, projected + context.projected_constant
    )
    upper, hidden = self.upper.step(tuple(upper), hidden, train=train)
    carry = (first, *upper)
    _, _, sentinel = carry[-1]
    if self.cell_dropout:
      sentinel, hidden = (
        self.dropout(x, deterministic=not train) for x in (sentinel, hidden)
      )
    sentinel = nn.relu(self.sentinel(sentinel))
    sentinel = self.dropout(sentinel, deterministic=not train)
    state = jnp.tanh(self.state(hidden))
    state = self.dropout(state, deterministic=not train)
    annotations = context.annotations
    seen, weights, _ = self.attend(
      state,
      annotations.keys,
      annotations.values,
      annotations.mask,
      sentinel=(self.sentinel_key(sentinel), sentinel),
      train=train,
    )
    return carry, {
      'hidden': state,
      'context': seen,
      'attention': weights[..., 1:],
      'sentinel': weights[..., 0],
    }

  def predict(self, word, y, *, train):
    """See `Decoder.predict`."""
    del word
    x = jnp.tanh(self.output_hidden(y['context'] + y['hidden']))
    x = self.dropout(x, deterministic=not train)
    return self.output(x).astype(jnp.float32)
