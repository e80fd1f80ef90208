"""Base classes of decoders: one step of time, and the scan that unrolls it.

A decoder predicts sequences of tokens from a set of features. A step of time
has three parts:

  word, projected = read(tokens)                      embeds the input tokens
  carry, y = advance(carry, projected, context)       the recurrence
  logits = predict(word, y)                           of the next tokens

`step` calls the three in a row, for sampling and beam search. Training calls
`read` and `predict` once for all of time and scans `advance` only, since the
rest does not depend on the carry.

Axes: B items, K sequences of an item (its captions in training, beams in
search), T tokens, L locations (of an image's features, regions, or frames of a
clip), D features of a location, A attention units, E token embedding, H units,
W width of the projected inputs, V vocabulary.
"""

import functools
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import ClassVar

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from recurrent import attention
from recurrent import categorical
from recurrent import cells
from recurrent import masking
from recurrent import modulated_cells
from recurrent import search
from recurrent import unroll

# The `cell` of decoders that can have any.
CELLS = {
  'lstm': cells.LSTM,
  'peephole': cells.PeepholeLSTM,
  'maxout': cells.MaxoutLSTM,
  'layer_norm': modulated_cells.LayerNormLSTM,
  'gru': cells.GRU,
  'rnn': cells.RNN,
}
_ACTIVATIONS = {'tanh': jnp.tanh, 'relu': nn.relu}


class Decoder(nn.Module):
  """A decoder whose step serves training and search alike.

  Attributes:
    vocab_size: V.
    features: units of the LSTM, H.
    embedding: size of a token's vector, E.
    dropout_rate: see each decoder.
    dtype: type of the matrix products; parameters and state are float32.
    bos: the token that is fed first, and never part of a sequence.
  """

  vocab_size: int
  features: int = 512
  embedding: int = 512
  dropout_rate: float = 0.5
  dtype: Any = jnp.float32
  bos: int = 1

  attends: ClassVar[bool]

  def prepare(
    self, annotations: jax.Array, mask: jax.Array | None, *, train: bool
  ) -> Any:
    """f32[B, L, D], bool[B, L] -> the context, read by every step."""
    raise NotImplementedError

  def start(self, context: Any, num_sequences: int, *, train: bool) -> Any:
    """The state before the first token; leaves are f32[B, num_sequences, H]."""
    raise NotImplementedError

  def read(self, tokens: jax.Array, *, train: bool) -> tuple[Any, Any]:
    """i32[...] -> embeddings [..., E] and their projections [..., W]."""
    raise NotImplementedError

  def advance(
    self, carry: Any, projected: jax.Array, context: Any, *, train: bool = False
  ) -> tuple[Any, dict[str, jax.Array]]:
    """carry, [B, K, W], context -> carry, y (a dict of [B, K, ...])."""
    raise NotImplementedError

  def predict(self, word: jax.Array, y: Any, *, train: bool) -> jax.Array:
    """[..., E], y -> f32[..., V]."""
    raise NotImplementedError

  def step(
    self, carry: Any, tokens: jax.Array, context: Any, *, train: bool = False
  ) -> tuple[Any, jax.Array]:
    """One step of time: carry, i32[B, K], context -> carry, f32[B, K, V]."""
    word, projected = self.read(tokens, train=train)
    carry, y = self.advance(carry, projected, context, train=train)
    return carry, self.predict(word, y, train=train)

  def begin(
    self,
    annotations: jax.Array,
    num_locations: jax.Array | None = None,
    *,
    num_sequences: int = 1,
    train: bool = False,
  ) -> tuple[Any, Any]:
    """The state and the context before the first token.

    Args:
      annotations: f32[B, L, D].
      num_locations: i32[B], the number of real locations; None for L.
      num_sequences: K.
      train: whether dropout is active.

    Returns:
      The carry, leaves f32[B, K, H], and the context.
    """
    mask = None
    if num_locations is not None:
      mask = masking.lengths_to_mask(num_locations, annotations.shape[1])
    context = self.prepare(annotations, mask, train=train)
    return self.start(context, num_sequences, train=train), context

  def __call__(
    self,
    annotations: jax.Array,
    tokens: jax.Array,
    num_locations: jax.Array | None = None,
    *,
    inputs: jax.Array | None = None,
    train: bool,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Predicts the next token at every step, with teacher forcing.

    Args:
      annotations: f32[B, L, D], the features of the locations.
      tokens: i32[B, K, T], the sequences without BOS; token t is predicted
        from the tokens before it.
      num_locations: see `begin`.
      inputs: i32[B, K, T], the input tokens, BOS first; by default those before
        each of `tokens`.
      train: whether dropout (and sampling, for hard attention) is active; it
        needs the keys 'dropout' and 'attention'.

    Returns:
      Logits f32[B, K, T, V] and the other per-step outputs (f32[B, K, T, ...]),
      such as `attention`, the weights of the locations.
    """
    if inputs is None:
      inputs = shift(tokens, self.bos)
    carry, context = self.begin(
      annotations, num_locations, num_sequences=tokens.shape[1], train=train
    )
    word, projected = self.read(inputs, train=train)
    _, y = unroll.scan(
      lambda self, carry, projected, context: self.advance(
        carry, projected, context, train=train
      ),
      self,
      carry,
      projected,
      context,
      time_axis=2,
    )
    return self.predict(word, y, train=train), y

  def mix(
    self,
    annotations: jax.Array,
    tokens: jax.Array,
    num_locations: jax.Array | None,
    probability: jax.Array,
    key: jax.Array,
  ) -> jax.Array:
    """Inputs of scheduled sampling (Bengio et al. 2015): i32[B, K, T].

    Each token but the first is, with `probability`, replaced by the token that
    the decoder samples at the step before. No gradient flows through a sampled
    token, therefore the result can be fed to `__call__`. Needs the keys
    'dropout' and 'attention', as training does.
    """
    carry, context = self.begin(
      annotations, num_locations, num_sequences=tokens.shape[1], train=True
    )
    coins = jax.random.bernoulli(
      jax.random.fold_in(key, 0), probability, tokens.shape
    )
    inputs = shift(tokens, self.bos)

    def body(self, carry, xs, context, key):
      state, sampled = carry
      given, coin, time = xs
      word = jnp.where(coin & (time > 0), sampled, given)
      state, logits = self.step(state, word, context, train=True)
      probs = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
      sampled = categorical.sample(jax.random.fold_in(key, time + 1), probs)
      return (state, sampled), word

    times = jnp.arange(tokens.shape[-1])
    _, mixed = unroll.scan(
      body,
      self,
      (carry, inputs[..., 0]),
      jax.tree.map(lambda x: jnp.moveaxis(x, -1, 0), (inputs, coins, times)),
      context,
      key,
      time_axis=0,
      remat=False,
    )
    return jnp.moveaxis(mixed, 0, -1)


def uniform(scale: float) -> nn.initializers.Initializer:
  """Samples from [-scale, scale), as Torch does; flax's begins at zero."""
  init = nn.initializers.uniform(2 * scale)
  return lambda key, shape, dtype=jnp.float32: init(key, shape, dtype) - scale


def shift(tokens: jax.Array, bos: int) -> jax.Array:
  """The tokens before each token, BOS first: i32[..., T] -> i32[..., T]."""
  first = jnp.full_like(tokens[..., :1], bos)
  return jnp.concatenate([first, tokens[..., :-1]], axis=-1)


def decode(
  models: Sequence[nn.Module],
  variables: Sequence[Any],
  inputs: tuple[Any, ...],
  decoding: Any,
  *,
  bos: int,
  eos: int,
  constraints: search.Constraints,
  index: jax.Array | None = None,
) -> search.Sequences:
  """Decodes with one model or an ensemble: beam search, or samples.

  Args:
    models: each with `begin` and `step`, as a `Decoder` has them.
    variables: those of each model.
    inputs: the arguments of `begin`.
    decoding: fields with the names of arguments of `search.beam_search`. With
      a `temperature` above 0 those of `search.sample`, the number of `samples`
      and their `seed`.
    bos: the first input token.
    eos: the token that ends a sequence.
    constraints: on the sequences.
    index: i32[B], the number of each item: its samples depend on this, and not
      on the rest of the batch. Not needed for beam search.

  Returns:
    `beam_size` sequences, best score first, or `samples` of them, the likeliest
    first.
  """
  steps, carries = [], []
  for model, model_variables in zip(models, variables, strict=True):
    apply = functools.partial(model.apply, model_variables)
    carry, context = apply(*inputs, method='begin')
    carries.append(carry)
    steps.append(functools.partial(_step, apply, context))
  step, carry = search.ensemble(steps), tuple(carries)
  if decoding.temperature == 0:
    return search.beam_search(
      step,
      carry,
      bos=bos,
      eos=eos,
      beam_size=decoding.beam_size,
      length_penalty=decoding.length_penalty,
      length_penalty_form=decoding.length_penalty_form,
      max_length=decoding.max_length,
      num_groups=decoding.num_groups,
      diversity_penalty=decoding.diversity_penalty,
      group_order=decoding.group_order,
      shrink_beam=decoding.shrink_beam,
      constraints=constraints,
    )
  keys = jax.vmap(jax.random.fold_in, (None, 0))(
    jax.random.key(decoding.seed), index
  )
  found = search.sample(
    step,
    jax.tree.map(lambda x: jnp.repeat(x, decoding.samples, axis=1), carry),
    bos=bos,
    eos=eos,
    max_length=decoding.max_length,
    key=keys,
    temperature=decoding.temperature,
    top_k=decoding.top_k or None,
    top_p=decoding.top_p if decoding.top_p < 1 else None,
    constraints=constraints,
  )
  order = jnp.argsort(-found.log_probs, axis=1)
  items = jnp.arange(len(order))[:, None]
  return jax.tree.map(lambda x: x[items, order], found)


def num_sequences(decoding: Any) -> int:
  """The number of sequences that `decode` returns for an item."""
  return decoding.samples if decoding.temperature else decoding.beam_size


def describe(decoding: Any) -> str:
  """The decoding in words, for readers of its results."""
  if decoding.temperature == 0:
    text = f'{decoding.beam_size} beams'
    if decoding.num_groups > 1:
      text += f' in {decoding.num_groups} groups'
    return text
  parts = [f'likeliest of {decoding.samples} samples']
  parts += [f'temperature {decoding.temperature}']
  if decoding.top_k:
    parts.append(f'top-k {decoding.top_k}')
  if decoding.top_p < 1:
    parts.append(f'top-p {decoding.top_p}')
  return ', '.join([*parts, f'seed {decoding.seed}'])


def _step(apply, context, carry, tokens):
  return apply(carry, tokens, context, method='step')


def find_cell(name: str, known: Mapping[str, Any] = CELLS) -> Any:
  """The value for a decoder's `cell`; a ValueError names those known."""
  if name not in known:
    raise ValueError(f'cell={name!r} is none of {", ".join(known)}')
  return known[name]


class UpperLayers(nn.Module):
  """The recurrent layers above a decoder's first.

  Each reads the output of the layer below, after dropout (Zaremba et al. 2014,
  Recurrent Neural Network Regularization).

  Attributes:
    kinds: their classes, from the bottom; none for a decoder of one layer.
    features: units of each layer, H.
    dropout_rate: of the input of each.
    dtype: type of the matrix products.
  """

  kinds: tuple[type[cells.Cell], ...]
  features: int
  dropout_rate: float = 0.0
  dtype: Any = jnp.float32

  def setup(self):
    """Declares the layers; their parameters are created on first use."""
    self.layers = [kind(self.features, dtype=self.dtype) for kind in self.kinds]
    self.dropout = nn.Dropout(self.dropout_rate)

  def start(self, batch_shape: tuple[int, ...]) -> tuple[cells.Carry, ...]:
    """The zero state of each layer."""
    return tuple(layer.start(batch_shape) for layer in self.layers)

  def step(
    self, carries: tuple[cells.Carry, ...], below: jax.Array, *, train: bool
  ) -> tuple[tuple[cells.Carry, ...], jax.Array]:
    """One step of time: the new carries, and the output f32[B, K, H].

    Args:
      carries: of each layer.
      below: f32[B, K, H], the output of the first layer.
      train: whether dropout is active.
    """
    updated = []
    for layer, carry in zip(self.layers, carries, strict=True):
      below = self.dropout(below, deterministic=not train)
      carry, below = layer.step(carry, layer.project(below))
      updated.append(carry)
    return tuple(updated), below


def upper_layers(
  layers: int, *kinds: type[cells.Cell], **options: Any
) -> UpperLayers:
  """The layers above the first.

  Args:
    layers: their number, the first included; at least 1.
    *kinds: the class of the layers, or of those in between and of the top one.
    **options: see `UpperLayers`.

  Raises:
    ValueError: there is no layer.
  """
  if layers < 1:
    raise ValueError(f'layers={layers} must be at least 1')
  middle, top = kinds[0], kinds[-1]
  kinds = (middle,) * (layers - 2) + (top,) * (layers > 1)
  return UpperLayers(kinds, **options)


@flax.struct.dataclass
class Annotations:
  """The inputs of attention, the same at every step."""

  values: jax.Array  # [B, L, D]
  keys: jax.Array  # [B, L, A]
  mask: jax.Array | None  # bool[B, L], False where there is no location.

  def mean(self) -> jax.Array:
    """The mean of the real locations: f32[B, D]."""
    return mean(self.values, self.mask)


def mean(annotations: jax.Array, mask: jax.Array | None) -> jax.Array:
  """The mean of the real locations: f[B, L, D], bool[B, L] -> f32[B, D]."""
  where = None if mask is None else mask[..., None]
  return jnp.mean(annotations, axis=1, dtype=jnp.float32, where=where)


class AttendingDecoder(Decoder):
  """A decoder with additive attention over the locations.

  Attributes:
    attention: attention units, A.
    attention_layers: see `attention.AdditiveAttention`.
    annotation_features: size of a ReLU layer with dropout that maps the
      annotations before attention; None for no layer.
    attention_bias: whether the keys of attention have biases.
    attention_activation: 'tanh' or 'relu', applied before the scores.
  """

  attention: int = 512
  attention_layers: int = 1
  annotation_features: int | None = None
  attention_bias: bool = True
  attention_activation: str = 'tanh'

  attends = True

  def setup(self):
    """Declares the layers; their parameters are created on first use."""
    if self.attention_activation not in _ACTIVATIONS:
      raise ValueError(
        f'attention_activation={self.attention_activation!r} is none of '
        f'{", ".join(_ACTIVATIONS)}'
      )
    self.attend = attention.AdditiveAttention(
      self.attention,
      layers=self.attention_layers,
      use_bias=self.attention_bias,
      activation=_ACTIVATIONS[self.attention_activation],
      dtype=self.dtype,
    )
    if self.annotation_features:
      self.annotation = nn.Dense(self.annotation_features, dtype=self.dtype)
    self.dropout = nn.Dropout(self.dropout_rate)

  def annotate(
    self, annotations: jax.Array, mask: jax.Array | None, *, train: bool
  ) -> Annotations:
    """f32[B, L, D], bool[B, L] -> the inputs of attention, with their keys."""
    if self.annotation_features:
      annotations = nn.relu(self.annotation(annotations))
      annotations = self.dropout(annotations, deterministic=not train)
    elif not attention.item_by_item(train=train):
      annotations = annotations.astype(self.dtype)
    keys = self.attend.project(annotations, train=train)
    return Annotations(annotations, keys, mask)

  def prepare(self, annotations, mask, *, train):
    """See `Decoder.prepare`."""
    return self.annotate(annotations, mask, train=train)
