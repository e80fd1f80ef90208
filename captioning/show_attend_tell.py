"""Show, Attend and Tell (Xu et al. 2015), soft and hard.

Axes: see recurrent/decoder.py.
"""

from collections.abc import Callable

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from recurrent import attention
from recurrent import cells
from recurrent import decoder


@flax.struct.dataclass
class Context:
  """The inputs of every step."""

  annotations: decoder.Annotations
  expected: jax.Array  # bool[]: average over all locations instead of sampling.


class ShowAttendTell(decoder.AttendingDecoder):
  """Show, Attend and Tell.

  The initial state comes from the mean annotation, a scalar gate beta weighs
  the context (section 4.2.1), and a deep output layer predicts the word from
  state, context and previous word (equation 7). As in the authors' published
  code the deep output has a tanh, the initial state a hidden layer, and
  dropout falls on these two. BOS has a learned embedding where that code
  feeds zeros.

  With hard attention (section 4.1) training samples one location at every step,
  or in a part of the batches takes the expectation; REINFORCE trains the
  distribution (see losses.py). Decoding takes the likeliest location.

  Attributes:
    init_layers: layers from the mean annotation to the initial state.
    hard: hard attention.
    expected: probability that a batch (of one device) takes the expectation of
      hard attention in training.
  """

  init_layers: int = 2
  hard: bool = False
  expected: float = 0.5

  def setup(self):
    """Declares the layers; their parameters appear on the first use."""
    super().setup()
    self.words = nn.Embed(
      self.vocab_size,
      self.embedding,
      embedding_init=nn.initializers.normal(0.1),
    )
    self.init_hidden = [
      nn.Dense(self.features, dtype=self.dtype)
      for _ in range(self.init_layers - 1)
    ]
    self.init_state = nn.Dense(2 * self.features, dtype=self.dtype)
    self.beta = nn.Dense(1, dtype=self.dtype)
    self.cell = cells.LSTM(self.features, dtype=self.dtype)
    self.context_gates = nn.Dense(
      4 * self.features, use_bias=False, dtype=self.dtype
    )
    self.output_hidden = nn.Dense(self.embedding, dtype=self.dtype)
    self.output_context = nn.Dense(
      self.embedding, use_bias=False, dtype=self.dtype
    )
    self.output = nn.Dense(self.vocab_size, dtype=self.dtype)

  def prepare(self, annotations, mask, *, train):
    """See `Decoder.prepare`."""
    expected = jnp.array(not self.hard)
    if self.hard and train:
      key = self.make_rng('attention')
      expected = jax.random.bernoulli(key, self.expected)
    return Context(self.annotate(annotations, mask, train=train), expected)

  def start(self, context, num_sequences, *, train):
    """From the mean annotation: (c, h), both f32[B, num_sequences, H]."""
    x = context.annotations.mean()
    for layer in self.init_hidden:
      x = self.dropout(nn.relu(layer(x)), deterministic=not train)
    state = jnp.tanh(self.init_state(x)).astype(jnp.float32)
    state = jnp.repeat(state[:, None], num_sequences, axis=1)
    return tuple(jnp.split(state, 2, axis=-1))

  def read(self, tokens, *, train):
    """See `Decoder.read`."""
    del train
    word = self.words(tokens)
    return word, self.cell.project(word)

  def advance(self, carry, projected, context, *, train=False):
    """See `Decoder.advance`; y holds `hidden`, `context` and `attention`.

    With hard attention in training it holds `log_chosen` too, the
    log-probability of the sampled location, 0 where the expectation was taken,
    and `entropy` of the weights, in nats: both f32[B, K].
    """
    _, hidden = carry
    annotations = context.annotations
    seen, weights, selected = self.attend(
      hidden,
      annotations.keys,
      annotations.values,
      annotations.mask,
      select=self._select(hidden, context, train=train),
      train=train,
    )
    seen = nn.sigmoid(self.beta(hidden)) * seen
    carry, hidden = self.cell.step(carry, projected + self.context_gates(seen))
    y = {'hidden': hidden, 'context': seen, 'attention': weights}
    if self.hard and train:
      y |= _reinforce_outputs(weights, selected, context.expected)
    return carry, y

  def _select(
    self, hidden: jax.Array, context: Context, *, train: bool
  ) -> Callable[[jax.Array], jax.Array] | None:
    """The `select` of `attention.AdditiveAttention` for hard attention."""
    if not self.hard:
      return None
    if not train:
      return attention.likeliest
    uniform = jax.random.uniform(self.make_rng('attention'), hidden.shape[:2])

    def sample(weights):
      sampled = attention.sample(weights, uniform)
      return jnp.where(context.expected, weights, sampled)

    return sample

  def predict(self, word, y, *, train):
    """See `Decoder.predict`."""
    hidden = self.dropout(y['hidden'], deterministic=not train)
    x = word + self.output_hidden(hidden) + self.output_context(y['context'])
    x = self.dropout(jnp.tanh(x), deterministic=not train)
    return self.output(x).astype(jnp.float32)


def _reinforce_outputs(
  weights: jax.Array, selected: jax.Array, expected: jax.Array
) -> dict[str, jax.Array]:
  """The outputs of a step for REINFORCE: f32[B, K, L] twice, bool[]."""
  logs = jnp.log(jnp.maximum(weights, 1e-20))
  chosen = jnp.sum(selected * logs, axis=-1)
  return {
    'log_chosen': jnp.where(expected, 0, chosen),
    'entropy': -jnp.sum(weights * logs, axis=-1),
  }
