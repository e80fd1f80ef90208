"""Show, Attend and Tell (Xu et al. 2015), soft and hard.

Axes: see recurrent/decoder.py.
"""

from collections.abc import Callable
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from recurrent import attention
from recurrent import decoder


@flax.struct.dataclass
class Context:
  """The inputs of every step."""

  annotations: decoder.Annotations
  expected: jax.Array  # bool[]: average over all locations instead of sampling.


# Values of `gate`: one weight for all of the context, one for each feature, or
# no weight.
GATES = ('scalar', 'vector', 'none')


class _Layer(nn.Module):
  """A dense layer whose width the caller knows: f[..., D] -> [..., width]."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, width: int) -> jax.Array:
    layer = nn.Dense(width, dtype=self.dtype)
    nn.share_scope(self, layer)  # Its parameters are those of this module.
    return layer(x)


class ShowAttendTell(decoder.AttendingDecoder):
  """Show, Attend and Tell.

  The initial state comes from the mean annotation, a scalar gate beta weighs
  the context (section 4.2.1), and a deep output layer predicts the word from
  state, context and previous word (equation 7). As in the authors' published
  code the deep output has a tanh, the initial state a hidden layer as wide as
  the annotations, and dropout falls on these two. BOS has a learned embedding
  where that code feeds zeros.

  With hard attention (section 4.1) training samples one location at every step,
  or in a part of the batches takes the expectation; REINFORCE trains the
  distribution (see losses.py). Decoding takes the likeliest location.

  The PyTorch tutorial of Vinodababu (sgrvinod) has attention_activation='relu',
  gate='vector', init_layers=1, init_tanh=False and deep_output=False. The
  ShowAttendTell of Luo's published code has the last three with gate='none'.

  Attributes:
    init_layers: layers from the mean annotation to the initial state.
    init_tanh: whether the last of these has a tanh.
    gate: 'scalar', 'vector' for a beta of each feature of the context, or
      'none'.
    deep_output: False predicts the word from the state alone.
    cell: a key of `decoder.CELLS`.
    layers: number of recurrent layers, each with an initial state. The first
      one attends, the top one predicts; nothing is dropped in between, as in
      the authors' code.
    hard: hard attention.
    expected: probability that a batch (of one device) takes the expectation of
      hard attention in training.
  """

  init_layers: int = 2
  init_tanh: bool = True
  gate: str = 'scalar'
  deep_output: bool = True
  cell: str = 'lstm'
  layers: int = 1
  hard: bool = False
  expected: float = 0.5

  def setup(self):
    """Declares the layers; their parameters appear on the first use."""
    super().setup()
    if self.gate not in GATES:
      raise ValueError(f'gate={self.gate!r} is none of {", ".join(GATES)}')
    self.words = nn.Embed(
      self.vocab_size,
      self.embedding,
      embedding_init=nn.initializers.normal(0.1),
    )
    cell = decoder.find_cell(self.cell)
    self.first_layer = cell(self.features, dtype=self.dtype, name='cell')
    self.upper = decoder.upper_layers(
      self.layers, cell, features=self.features, dtype=self.dtype
    )
    self.init_hidden = [
      _Layer(dtype=self.dtype) for _ in range(self.init_layers - 1)
    ]
    num_states = len(jax.tree.leaves(self.first_layer.start((1,))))
    self.init_state = nn.Dense(
      self.layers * num_states * self.features, dtype=self.dtype
    )
    if self.gate != 'none':
      self.beta = _Layer(dtype=self.dtype)
    self.context_gates = nn.Dense(
      self.first_layer.width, use_bias=False, dtype=self.dtype
    )
    if self.deep_output:
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
    """From the mean annotation: of all layers, f32[B, num_sequences, H]."""
    x = context.annotations.mean()
    for layer in self.init_hidden:
      x = nn.relu(layer(x, x.shape[-1]))
      x = self.dropout(x, deterministic=not train)
    x = self.init_state(x)
    if self.init_tanh:
      x = jnp.tanh(x)
    x = jnp.repeat(x[:, None].astype(jnp.float32), num_sequences, axis=1)
    zeros = self.first_layer.start((1,)), self.upper.start((1,))
    leaves, tree = jax.tree.flatten(zeros)
    return jax.tree.unflatten(tree, jnp.split(x, len(leaves), axis=-1))

  def read(self, tokens, *, train):
    """See `Decoder.read`."""
    del train
    word = self.words(tokens)
    return word, self.first_layer.project(word)

  def advance(self, carry, projected, context, *, train=False):
    """See `Decoder.advance`; y holds `hidden` and `attention`.

    For the deep output it holds `context` f32[B, K, D], too. With hard
    attention in training it holds `log_chosen`, the log-probability of the
    sampled location, 0 where the expectation was taken, and `entropy` of the
    weights, in nats: both f32[B, K].
    """
    first, upper = carry
    hidden = self.first_layer.hidden(first)
    annotations = context.annotations
    seen, weights, selected = self.attend(
      hidden,
      annotations.keys,
      annotations.values,
      annotations.mask,
      select=self._select(hidden, context, train=train),
      train=train,
    )
    if self.gate != 'none':
      width = seen.shape[-1] if self.gate == 'vector' else 1
      seen = nn.sigmoid(self.beta(hidden, width)) * seen
    first, hidden = self.first_layer.step(
      first, projected + self.context_gates(seen)
    )
    upper, hidden = self.upper.step(upper, hidden, train=train)
    carry = first, upper
    y = {'hidden': hidden, 'attention': weights}
    if self.deep_output:
      y['context'] = seen
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
    if not self.deep_output:
      return self.output(hidden).astype(jnp.float32)
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
