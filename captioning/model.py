"""The captioners: Show and Tell, and Show, Attend and Tell.

A decoder is written as one step of time, in three parts:

  word, drive = read(tokens)             what the input word brings
  carry, y = advance(carry, drive, context)      the recurrence
  logits = predict(word, y)                      the next word

`step` is the three in a row: sampling and beam search drive it. Training calls
`read` and `predict` once for all of time and scans `advance` alone, since the
rest does not depend on the carry.

Axes: B pictures, K captions of a picture (or beams), T words, H x W pixels,
L locations, D features of a location, E word embedding, H units, V vocabulary.
"""

from typing import Any
from typing import ClassVar

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from captioning import vocabulary
from recurrent import attention
from recurrent import cells
from recurrent import unroll
from training import parallel
from vision import images
from vision import resnet


class Decoder(nn.Module):
  """What the decoders share: training unrolls the step that search drives.

  Attributes:
    vocab_size: V.
    features: units of the LSTM, H.
    embedding: size of a word vector, E.
    dropout_rate: see each decoder.
    dtype: of the products; parameters and the state are float32.
  """

  vocab_size: int
  features: int = 512
  embedding: int = 512
  dropout_rate: float = 0.5
  dtype: Any = jnp.float32

  attends: ClassVar[bool]

  def prepare(self, annotations: jax.Array, *, train: bool) -> Any:
    """f32[B, L, D] -> the context: all that every step reads."""
    raise NotImplementedError

  def start(self, context: Any, captions: int, *, train: bool) -> Any:
    """The state before the first word; leaves are f32[B, captions, H]."""
    raise NotImplementedError

  def read(self, tokens: jax.Array, *, train: bool) -> tuple[Any, Any]:
    """i32[...] -> word vectors [..., E] and what they drive [..., 4 * H]."""
    raise NotImplementedError

  def advance(
    self, carry: Any, drive: jax.Array, context: Any, *, train: bool = False
  ) -> tuple[Any, dict[str, jax.Array]]:
    """carry, [B, K, 4 * H], context -> carry, y (a dict of [B, K, ...])."""
    raise NotImplementedError

  def predict(self, word: jax.Array, y: Any, *, train: bool) -> jax.Array:
    """[..., E], y -> f32[..., V]."""
    raise NotImplementedError

  def step(
    self, carry: Any, tokens: jax.Array, context: Any
  ) -> tuple[Any, jax.Array]:
    """One step of time: carry, i32[B, K], context -> carry, f32[B, K, V]."""
    word, drive = self.read(tokens, train=False)
    carry, y = self.advance(carry, drive, context)
    return carry, self.predict(word, y, train=False)

  def begin(self, annotations: jax.Array) -> tuple[Any, Any]:
    """f32[B, L, D] -> (carry of one caption a picture, context), to search."""
    context = self.prepare(annotations, train=False)
    return self.start(context, 1, train=False), context

  def __call__(
    self, annotations: jax.Array, tokens: jax.Array, *, train: bool
  ) -> tuple[jax.Array, jax.Array | None]:
    """The next word at every step, teacher forced.

    Args:
      annotations: f32[B, L, D], the feature grid.
      tokens: i32[B, K, T], the captions without BOS; word t is predicted from
        the words before it.
      train: whether to drop out; needs the 'dropout' key.

    Returns:
      Logits f32[B, K, T, V] and, where the decoder attends, the attention
      weights f32[B, K, T, L].
    """
    first = jnp.full_like(tokens[..., :1], vocabulary.BOS_ID)
    inputs = jnp.concatenate([first, tokens[..., :-1]], axis=-1)
    context = self.prepare(annotations, train=train)
    word, drive = self.read(inputs, train=train)
    _, y = unroll.scan(
      lambda self, carry, drive: self.advance(
        carry, drive, context, train=train
      ),
      self,
      self.start(context, tokens.shape[1], train=train),
      drive,
      time_axis=2,
    )
    return self.predict(word, y, train=train), y.get('attention')


class ShowAndTell(Decoder):
  """Show and Tell (Vinyals et al. 2015): the LSTM sees the picture once.

  The picture is the input before BOS, from the zero state (equations 10-12).
  Dropout falls on the LSTM's input and output (the authors' im2txt). The
  paper writes its LSTM without biases and without the tanh on the memory;
  here, as in im2txt, it is the usual one.
  """

  attends = False

  def setup(self):
    """Declares the layers; their parameters appear on the first use."""
    self.image = nn.Dense(self.embedding, use_bias=False, dtype=self.dtype)
    self.words = nn.Embed(
      self.vocab_size,
      self.embedding,
      embedding_init=nn.initializers.uniform(0.08),
    )
    self.cell = cells.LSTM(self.features, dtype=self.dtype)
    self.output = nn.Dense(self.vocab_size, dtype=self.dtype)
    self.dropout = nn.Dropout(self.dropout_rate)

  def prepare(self, annotations, *, train):
    """f32[B, L, D] -> the gates that the mean drives, f32[B, 1, 4 * H]."""
    image = self.image(annotations.mean(axis=1, dtype=jnp.float32))
    image = self.dropout(image, deterministic=not train)
    return self.cell.project(image)[:, None]

  def start(self, context, captions, *, train):
    """The state after the picture: (c, h), both f32[B, captions, H]."""
    del train
    carry, _ = self.cell.step(self.cell.start(context.shape[:2]), context)
    return jax.tree.map(lambda x: jnp.repeat(x, captions, axis=1), carry)

  def read(self, tokens, *, train):
    """See `Decoder.read`."""
    word = self.dropout(self.words(tokens), deterministic=not train)
    return word, self.cell.project(word)

  def advance(self, carry, drive, context, *, train=False):
    """See `Decoder.advance`; y holds `hidden`."""
    del context, train
    carry, hidden = self.cell.step(carry, drive)
    return carry, {'hidden': hidden}

  def predict(self, word, y, *, train):
    """See `Decoder.predict`."""
    hidden = self.dropout(y['hidden'], deterministic=not train)
    return self.output(hidden).astype(jnp.float32)


@flax.struct.dataclass
class Annotations:
  """What soft attention reads at every step."""

  values: jax.Array  # [B, L, D]
  keys: jax.Array  # [B, L, A]


class ShowAttendTell(Decoder):
  """Show, Attend and Tell (Xu et al. 2015) with soft attention.

  The initial state comes from the mean annotation, a scalar gate beta weighs
  the context (section 4.2.1), and a deep output layer predicts the word from
  state, context and previous word (equation 7). As in the authors' published
  code the deep output has a tanh, the initial state a hidden layer, and
  dropout falls on these two. BOS has a learned embedding where that code
  feeds zeros.

  Attributes:
    attention: attention units, A.
    attention_layers: 2 puts a tanh layer before the attention's projection.
    init_layers: layers from the mean annotation to the initial state.
  """

  attention: int = 512
  attention_layers: int = 1
  init_layers: int = 2

  attends = True

  def setup(self):
    """Declares the layers; their parameters appear on the first use."""
    self.words = nn.Embed(
      self.vocab_size,
      self.embedding,
      embedding_init=nn.initializers.normal(0.1),
    )
    self.attend = attention.AdditiveAttention(
      self.attention, layers=self.attention_layers, dtype=self.dtype
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
    self.dropout = nn.Dropout(self.dropout_rate)

  def prepare(self, annotations, *, train):
    """f32[B, L, D] -> `Annotations`; the keys are projected once."""
    if not attention.item_by_item(train=train):
      annotations = annotations.astype(self.dtype)
    keys = self.attend.project(annotations, train=train)
    return Annotations(annotations, keys)

  def start(self, context, captions, *, train):
    """The state from the mean annotation: (c, h), both f32[B, captions, H]."""
    x = context.values.mean(axis=1, dtype=jnp.float32)
    for layer in self.init_hidden:
      x = self.dropout(nn.relu(layer(x)), deterministic=not train)
    state = jnp.tanh(self.init_state(x)).astype(jnp.float32)
    state = jnp.repeat(state[:, None], captions, axis=1)
    return tuple(jnp.split(state, 2, axis=-1))

  def read(self, tokens, *, train):
    """See `Decoder.read`."""
    del train
    word = self.words(tokens)
    return word, self.cell.project(word)

  def advance(self, carry, drive, context, *, train=False):
    """See `Decoder.advance`; y holds `hidden`, `context` and `attention`."""
    _, hidden = carry
    seen, weights = self.attend(
      hidden, context.keys, context.values, train=train
    )
    seen = nn.sigmoid(self.beta(hidden)) * seen
    carry, hidden = self.cell.step(carry, drive + self.context_gates(seen))
    return carry, {'hidden': hidden, 'context': seen, 'attention': weights}

  def predict(self, word, y, *, train):
    """See `Decoder.predict`."""
    hidden = self.dropout(y['hidden'], deterministic=not train)
    x = word + self.output_hidden(hidden) + self.output_context(y['context'])
    x = self.dropout(jnp.tanh(x), deterministic=not train)
    return self.output(x).astype(jnp.float32)


DECODERS = {
  'show_and_tell': ShowAndTell,
  'show_attend_tell': ShowAttendTell,
}


def _to_float32(grids: jax.Array) -> jax.Array:
  """f[B, L, D] -> f32[B, L, D].

  As a loop on CPU: XLA cannot merge it into those that read the grids, each
  of which would convert, and write, all of them again.
  """
  if jax.default_backend() != 'cpu' or grids.dtype == jnp.float32:
    return grids.astype(jnp.float32)
  return jax.lax.map(lambda grid: grid.astype(jnp.float32), grids)


class Captioner(nn.Module):
  """From pictures to the next word: an encoder, then a decoder.

  Attributes:
    decoder: one of `DECODERS`.
    encoder: None where grids are given in place of pictures.
    train_statistics: in training, BatchNorm uses the statistics of the batch
      and updates the running ones: for an encoder trained from scratch. A
      published encoder, frozen or fine-tuned, keeps its own.
  """

  decoder: Decoder
  encoder: resnet.ResNet | None = None
  train_statistics: bool = False

  def annotate(self, pictures: jax.Array, *, train: bool) -> jax.Array:
    """uint8[B, H, W, 3], or grids f[B, L, D] -> grids f[B, L, D]."""
    if self.encoder is None:
      keeps_half = attention.item_by_item(train=train)
      return pictures if keeps_half else _to_float32(pictures)
    grid, _ = self.encoder(
      images.normalize(pictures), train=train and self.train_statistics
    )
    return grid

  def begin(self, pictures: jax.Array) -> tuple[Any, Any]:
    """Pictures or grids -> (carry, context), for search with `step`."""
    return self.decoder.begin(self.annotate(pictures, train=False))

  def step(self, carry: Any, tokens: jax.Array, context: Any):
    """See `Decoder.step`."""
    return self.decoder.step(carry, tokens, context)

  def __call__(
    self, pictures: jax.Array, tokens: jax.Array, *, train: bool
  ) -> tuple[jax.Array, jax.Array | None]:
    """Pictures or grids, i32[B, K, T]; see `Decoder.__call__`."""
    return self.decoder(
      self.annotate(pictures, train=train), tokens, train=train
    )


def create(
  config: ml_collections.ConfigDict,
  vocab_size: int,
  *,
  with_encoder: bool = True,
) -> Captioner:
  """The captioner of a config.

  Args:
    config: `model` (a key of `DECODERS`), `decoder` and `encoder` (arguments
      of the two), `train_statistics` and `dtype`.
    vocab_size: V.
    with_encoder: False for one that is given grids.

  Raises:
    ValueError: no such model.
  """
  if config.model not in DECODERS:
    raise ValueError(f'model={config.model!r} is none of {", ".join(DECODERS)}')
  dtype = jnp.dtype(config.dtype)
  encoder = None
  if with_encoder:
    encoder = resnet.ResNet(
      **config.encoder,
      dtype=dtype,
      norm_axis_name=parallel.AXIS if config.train_statistics else None,
    )
  return Captioner(
    decoder=DECODERS[config.model](
      vocab_size=vocab_size, dtype=dtype, **config.decoder
    ),
    encoder=encoder,
    train_statistics=config.train_statistics,
  )
