"""Soft, hard and adaptive attention over a set of features.

Axes: B batch, K sequences that share one set (captions of one image in
training, beams in search), L locations, D features of a location, H units of
the querying state, A attention units.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def masked_softmax(
  scores: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
  """Softmax over the real entries of the last axis, in float32.

  Args:
    scores: f[..., L].
    mask: bool that broadcasts to `scores`, False where there is no location.

  Returns:
    f32[..., L], zero where masked; all zero where nothing is real.
  """
  scores = scores.astype(jnp.float32)
  if mask is None:
    return nn.softmax(scores)
  # A finite floor: with -inf a row without locations would be NaN.
  scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
  return jnp.where(mask, nn.softmax(scores), 0)


def likeliest(weights: jax.Array) -> jax.Array:
  """The first location of largest weight: one-hot f32[..., L]."""
  hit = weights == jnp.max(weights, axis=-1, keepdims=True)
  # Several times as fast on CPU as an argmax.
  first = jnp.cumsum(hit, axis=-1) == 1
  return (hit & first).astype(jnp.float32)


def sample(weights: jax.Array, uniform: jax.Array) -> jax.Array:
  """Samples a location by its weight: one-hot f32[..., L].

  Args:
    weights: f32[..., L], which sum to 1.
    uniform: f32[...] in [0, 1).
  """
  cumulative = jnp.cumsum(weights, axis=-1)
  # Rounding: never past the end, and never a location without weight.
  threshold = uniform[..., None] * cumulative[..., -1:]
  hit = (cumulative > threshold) & (weights > 0)
  return likeliest(hit.astype(jnp.float32))


def item_by_item(*, train: bool) -> bool:
  """Decides whether to process the items of a batch one after the other.

  The data of one item fit into a CPU's cache, those of a batch do not.
  Measured, beam search over 32 images takes 8 % less time, and annotations may
  stay in half precision until they are needed. The backward pass would take
  longer.
  """
  return not train and jax.default_backend() == 'cpu'


def _over_items(method: Callable, module: nn.Module, inputs: Any) -> Any:
  """Applies a method to each item: leaves [B, ...] -> leaves [B, ...]."""
  loop = nn.scan(
    lambda module, carry, item: (carry, method(module, *item)),
    variable_broadcast='params',
    split_rngs={'params': False},
  )
  return loop(module, None, inputs)[1]


class AdditiveAttention(nn.Module):
  """Additive attention (Bahdanau et al. 2015; soft in Xu et al. 2015).

    k_l = W a_l + b
    e_l = v . tanh(k_l + U h)
    alpha = softmax(e)
    z = sum_l alpha_l a_l

  A bias on e would cancel in the softmax, therefore there is none.

  Attributes:
    features: the number of attention units, A.
    layers: number of layers that compute the keys; each one after the first is
      k_l <- tanh(W' k_l + b'), the `n_layers_att` of Xu et al.'s code.
    use_bias: whether these layers have biases.
    activation: of k_l + U h, elementwise.
    dtype: type of the matrix products.
  """

  features: int
  layers: int = 1
  use_bias: bool = True
  activation: Callable[[jax.Array], jax.Array] = jnp.tanh
  dtype: Any = jnp.float32

  def setup(self):
    """Declares the layers; their parameters are created on first use."""
    self.key_layers = [
      nn.Dense(self.features, use_bias=self.use_bias, dtype=self.dtype)
      for _ in range(self.layers)
    ]
    self.query = nn.Dense(self.features, use_bias=False, dtype=self.dtype)
    self.score = nn.Dense(1, use_bias=False, dtype=self.dtype)

  def project(
    self, annotations: jax.Array, *, train: bool = False
  ) -> jax.Array:
    """The keys of the annotations: f[B, L, D] -> [B, L, A].

    They do not depend on the state: compute them once, outside the scan.
    """
    if item_by_item(train=train):
      return _over_items(AdditiveAttention._project, self, (annotations,))
    return self._project(annotations)

  def __call__(
    self,
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: jax.Array | None = None,
    *,
    select: Callable[[jax.Array], jax.Array] | None = None,
    sentinel: tuple[jax.Array, jax.Array] | None = None,
    train: bool = False,
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Attends to one set of locations for each of the K sequences.

    Args:
      query: f[B, K, H], the states of the sequences.
      keys: f[B, L, A], returned by `project`.
      values: f[B, L, D], which are averaged; usually the annotations.
      mask: bool[B, L], False where there is no location, or None.
      select: maps the attention weights to those used for the average,
        f32[..., L] -> f32[..., L]; for hard attention one-hot (`likeliest`,
        `sample`). None: soft attention.
      sentinel: key f[B, K, A] and value f[B, K, D] of an additional location
        for each sequence, placed first: the visual sentinel of Lu et al. 2017.
        Not with `select`.
      train: whether a backward pass follows; the result is the same.

    Returns:
      The context [B, K, D], the attention weights f32[B, K, L] (L + 1 with
      `sentinel`) and those used for the average, of the same shape.
    """
    query = self.query(query)[:, :, None]
    attend = functools.partial(AdditiveAttention._attend, select=select)
    if item_by_item(train=train):
      inputs = (keys, query, values, mask, sentinel)
      return _over_items(attend, self, inputs)
    return attend(self, keys[:, None], query, values, mask, sentinel)

  def _project(self, annotations):
    """[..., L, D] -> [..., L, A]."""
    keys = self.key_layers[0](annotations)
    for layer in self.key_layers[1:]:
      keys = jnp.tanh(layer(keys))
    return keys

  def _attend(self, keys, query, values, mask, sentinel, *, select):
    """[..., L, A], [..., K, 1, A], [..., L, D], [..., L] -> as `__call__`."""
    scores = self.score(self.activation(keys + query))[..., 0]
    if mask is not None:
      mask = mask[..., None, :]
    if sentinel is not None:
      sentinel_key, sentinel_value = sentinel
      first = self.activation(sentinel_key[..., None, :] + query)
      first = self.score(first)[..., 0]
      scores = jnp.concatenate([first, scores], axis=-1)
      if mask is not None:
        mask = jnp.pad(
          mask, [(0, 0)] * (mask.ndim - 1) + [(1, 0)], constant_values=True
        )
    weights = masked_softmax(scores, mask)
    selected = weights if select is None else select(weights)
    averaged = selected.astype(self.dtype)
    if sentinel is not None:
      own, averaged = averaged[..., :1], averaged[..., 1:]
    context = averaged @ values.astype(self.dtype)
    if sentinel is not None:
      context = context + own * sentinel_value.astype(self.dtype)
    return context, weights, selected
