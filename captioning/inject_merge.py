"""Four places of the image in a captioner (Tanti et al. 2018).

Axes: see recurrent/decoder.py.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from recurrent import cells
from recurrent import decoder

IMAGE_INPUTS = ('init', 'pre', 'par', 'merge')


def clipped_normal(limit: float) -> nn.initializers.Initializer:
  """Samples N(0, 1), clipped to [-limit, limit]: mostly one of the limits."""
  init = nn.initializers.normal(1.0)

  def sample(key, shape, dtype=jnp.float32):
    return jnp.clip(init(key, shape, dtype), -limit, limit)

  return sample


class InjectMerge(decoder.Decoder):
  """A GRU, and the image as its state, its input or beside its output.

    v = W_v a / |a| + b_v                    a is the mean of the annotations

    init-inject   h_0 = v,          h_t = GRU(E w_t, h_t-1),       o_t = h_t
    pre-inject    h_0 = GRU(v, s),  h_t = GRU(E w_t, h_t-1),       o_t = h_t
    par-inject    h_0 = s,          h_t = GRU([v, E w_t], h_t-1),  o_t = h_t
    merge         h_0 = s,          h_t = GRU(E w_t, h_t-1),  o_t = [v, h_t]

    p = softmax(W o_t + b)

  From Where to put the image in an image caption generator, with the initial
  weights of the authors' published code (where-image2). Its GRU, TensorFlow's,
  applies the reset gate before the recurrent product; here it is `cells.GRU`.

  Attributes:
    image_input: 'init', 'pre', 'par' or 'merge'.
    image_dropout_rate: of a / |a|.
    embedding_dropout_rate: of E w_t. `dropout_rate` is that of h_t.
    learned_start: whether s is a parameter; otherwise it is zero.
    init_limit: see `clipped_normal`, from which all but the biases are sampled.
  """

  image_input: str = 'init'
  image_dropout_rate: float = 0.0
  embedding_dropout_rate: float = 0.0
  learned_start: bool = False
  init_limit: float = 0.1

  attends = False

  def setup(self):
    """Declares the layers; their parameters appear on the first use."""
    if self.image_input not in IMAGE_INPUTS:
      raise ValueError(
        f'image_input={self.image_input!r} is none of {", ".join(IMAGE_INPUTS)}'
      )
    init = clipped_normal(self.init_limit)
    is_input = self.image_input in ('pre', 'par')
    self.image = nn.Dense(
      self.embedding if is_input else self.features,
      kernel_init=init,
      dtype=self.dtype,
    )
    self.words = nn.Embed(self.vocab_size, self.embedding, embedding_init=init)
    self.cell = cells.GRU(
      self.features, kernel_init=init, recurrent_init=init, dtype=self.dtype
    )
    if self.learned_start and self.image_input != 'init':
      self.first_state = self.param('first_state', init, (1, self.features))
    self.output = nn.Dense(self.vocab_size, kernel_init=init, dtype=self.dtype)
    self.image_dropout = nn.Dropout(self.image_dropout_rate)
    self.embedding_dropout = nn.Dropout(self.embedding_dropout_rate)
    self.dropout = nn.Dropout(self.dropout_rate)

  def prepare(self, annotations, mask, *, train):
    """f32[B, L, D] -> v, or with 'par' its projection: f32[B, 1, ...]."""
    mean = decoder.mean(annotations, mask)
    squares = jnp.sum(mean**2, axis=-1, keepdims=True)
    mean = mean * jax.lax.rsqrt(jnp.maximum(squares, 1e-12))
    image = self.image(self.image_dropout(mean, deterministic=not train))
    if self.image_input == 'par':
      image = self.cell.project_constant(image)
    return image[:, None].astype(jnp.float32)

  def start(self, context, num_sequences, *, train):
    """h_0: f32[B, num_sequences, H]."""
    del train
    if self.image_input == 'init':
      return jnp.repeat(context, num_sequences, axis=1)
    carry = self.cell.start((context.shape[0], 1))
    if self.learned_start:
      carry = carry + self.first_state
    if self.image_input == 'pre':
      carry, _ = self.cell.step(carry, self.cell.project(context))
    return jnp.repeat(carry, num_sequences, axis=1)

  def read(self, tokens, *, train):
    """See `Decoder.read`."""
    word = self.embedding_dropout(self.words(tokens), deterministic=not train)
    return word, self.cell.project(word)

  def advance(self, carry, projected, context, *, train=False):
    """See `Decoder.advance`; y holds `hidden`, and with 'merge' `image`."""
    del train
    if self.image_input == 'par':
      projected = projected + context
    carry, hidden = self.cell.step(carry, projected)
    y = {'hidden': hidden}
    if self.image_input == 'merge':
      y['image'] = jnp.broadcast_to(context, hidden.shape)
    return carry, y

  def predict(self, word, y, *, train):
    """See `Decoder.predict`."""
    del word
    hidden = self.dropout(y['hidden'], deterministic=not train)
    if self.image_input == 'merge':
      hidden = jnp.concatenate([y['image'], hidden], axis=-1)
    return self.output(hidden).astype(jnp.float32)
