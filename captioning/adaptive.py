"""Adaptive attention (Lu et al. 2017). Axes: see recurrent/decoder.py."""

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from recurrent import cells
from recurrent import decoder


@flax.struct.dataclass
class Context:
  """The inputs of every step."""

  annotations: decoder.Annotations
  projected_constant: jax.Array  # [B, 1, 5 * H], of the mean annotation.


class AdaptiveAttention(decoder.AttendingDecoder):
  """Attention over the locations and a visual sentinel, after the LSTM.

    x = [E w, v_g]                               v_g = relu(W mean a)
    s = sigmoid(W_x x + W_h h_{t-1}) * tanh(c_t)           (equations 9, 10)
    alpha = softmax([w . tanh(W_s s + W_g h), w . tanh(W_v V + W_g h)])  (12)
    p = softmax(W_p tanh(W (alpha . [s, V] + h)))          (equations 11, 13)

  The attended context does not flow back into the LSTM. As in the authors'
  published code, the sentinel and the state pass through a layer (ReLU, tanh)
  each before they attend, there is a tanh layer before the vocabulary, and
  dropout falls on all of these; its dropout within the attention's tanh is
  left out. `annotation_features` and `embedding` must agree: sentinel, state
  and locations are added.
  """

  annotation_features: int | None = 512

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
    self.cell = cells.SentinelLSTM(self.features, dtype=self.dtype)
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
      self.cell.project_constant(image)[:, None],
    )

  def start(self, context, num_sequences, *, train):
    """Zeros: (c, h, s), each f32[B, num_sequences, H]."""
    del train
    return self.cell.start((len(context.projected_constant), num_sequences))

  def read(self, tokens, *, train):
    """See `Decoder.read`."""
    word = self.dropout(self.words(tokens), deterministic=not train)
    return word, self.cell.project(word)

  def advance(self, carry, projected, context, *, train=False):
    """See `Decoder.advance`.

    y holds `hidden`, `context` (which is added to it), `attention`, and
    `sentinel` f32[B, K], the weight of the sentinel: with `attention` it sums
    to 1.
    """
    carry, hidden = self.cell.step(
      carry, projected + context.projected_constant
    )
    sentinel = nn.relu(self.sentinel(carry[2]))
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
