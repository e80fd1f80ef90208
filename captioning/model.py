"""The captioners: an encoder, then one of the decoders.

Axes: B images, K captions of an image (or beams), T words, H x W pixels,
L locations, D features of a location, V vocabulary, C concepts.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from captioning import adaptive
from captioning import att2in
from captioning import inject_merge
from captioning import luong
from captioning import show_and_tell
from captioning import show_attend_tell
from captioning import up_down
from captioning import vocabulary
from recurrent import attention
from recurrent import decoder as decoder_lib
from recurrent import masking
from training import parallel
from vision import images
from vision import networks

DECODERS = {
  'show_and_tell': show_and_tell.ShowAndTell,
  'show_attend_tell': show_attend_tell.ShowAttendTell,
  'adaptive': adaptive.AdaptiveAttention,
  'att2in': att2in.Att2in,
  'up_down': up_down.UpDown,
  'luong': luong.Luong,
  'inject_merge': inject_merge.InjectMerge,
}


# The fields of a batch that describe its images: `image` uint8[B, H, W, 3] or
# `features` f[B, L, D], and perhaps `num_locations` i32[B].
IMAGE_FIELDS = ('image', 'features', 'num_locations')


def image_inputs(
  batch: dict[str, jax.Array],
) -> tuple[jax.Array, jax.Array | None]:
  """The arguments of `Captioner.begin`: images or features, num_locations."""
  images_or_features = batch['features' if 'features' in batch else 'image']
  return images_or_features, batch.get('num_locations')


def inputs(batch: dict[str, jax.Array]) -> tuple[Any, ...]:
  """The arguments of a `Captioner`: images or features, tokens, locations."""
  images_or_features, num_locations = image_inputs(batch)
  return images_or_features, batch['tokens'], num_locations


def _to_float32(features: jax.Array) -> jax.Array:
  """f[B, L, D] -> f32[B, L, D].

  A loop on CPU: XLA cannot fuse it into the operations that read the features,
  each of which would convert, and write, all of them again.
  """
  if jax.default_backend() != 'cpu' or features.dtype == jnp.float32:
    return features.astype(jnp.float32)
  return jax.lax.map(lambda item: item.astype(jnp.float32), features)


class VisualWords(nn.Module):
  """Detects concepts at single locations.

    log(1 - p_c) = sum_l log(1 - sigmoid(u_c . a_l + b_c))

  A concept is in an image if it is at one of its locations: the noisy OR of
  Fang et al. 2015 (From Captions to Visual Concepts and Back, section 3).

  Attributes:
    num_concepts: C; see concepts.py.
  """

  num_concepts: int

  @nn.compact
  def __call__(
    self, annotations: jax.Array, num_locations: jax.Array | None = None
  ) -> jax.Array:
    """f[B, L, D], i32[B] -> f32[B, C], log(1 - p_c)."""
    logits = nn.Dense(
      self.num_concepts,
      # Over many locations each concept would else be likely at the start.
      bias_init=nn.initializers.constant(-5.0),
      name='score',
    )(annotations.astype(jnp.float32))
    real = None
    if num_locations is not None:
      real = masking.lengths_to_mask(num_locations, logits.shape[1])[..., None]
    return -jnp.sum(nn.softplus(logits), axis=1, where=real)


class Captioner(nn.Module):
  """Predicts the next word of a caption: an encoder, then a decoder.

  Every method takes images uint8[B, H, W, 3], or with `encoder=None` their
  features f[B, L, D], under one argument.

  Attributes:
    decoder: one of `DECODERS`.
    encoder: None for a captioner of features.
    train_batch_stats: in training, BatchNorm uses the statistics of the batch
      and updates the running ones: for an encoder trained from scratch. A
      published encoder, frozen or fine-tuned, keeps its own.
    visual_words: for a loss of its own that trains the features, or None.
  """

  decoder: decoder_lib.Decoder
  encoder: networks.Network | None = None
  visual_words: VisualWords | None = None
  train_batch_stats: bool = False

  def annotate(
    self, images_or_features: jax.Array, *, train: bool
  ) -> jax.Array:
    """uint8[B, H, W, 3], or features f[B, L, D] -> features f[B, L, D]."""
    if self.encoder is None:
      keeps_half = attention.item_by_item(train=train)
      return (
        images_or_features if keeps_half else _to_float32(images_or_features)
      )
    features, _ = self.encoder(
      images.normalize(images_or_features),
      train=train and self.train_batch_stats,
    )
    return features

  def begin(
    self,
    images_or_features: jax.Array,
    num_locations: jax.Array | None = None,
    *,
    train: bool = False,
  ) -> tuple[Any, Any]:
    """Images or features -> (carry, context), for search with `step`."""
    annotations = self.annotate(images_or_features, train=train)
    return self.decoder.begin(annotations, num_locations, train=train)

  def step(
    self, carry: Any, tokens: jax.Array, context: Any, *, train: bool = False
  ) -> tuple[Any, jax.Array]:
    """See `Decoder.step`."""
    return self.decoder.step(carry, tokens, context, train=train)

  def mix(
    self,
    images_or_features: jax.Array,
    tokens: jax.Array,
    num_locations: jax.Array | None,
    probability: jax.Array,
    key: jax.Array,
  ) -> jax.Array:
    """See `Decoder.mix`."""
    annotations = self.annotate(images_or_features, train=True)
    return self.decoder.mix(
      annotations, tokens, num_locations, probability, key
    )

  def __call__(
    self,
    images_or_features: jax.Array,
    tokens: jax.Array,
    num_locations: jax.Array | None = None,
    *,
    inputs: jax.Array | None = None,
    train: bool,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Images or features, i32[B, K, T]; see `Decoder.__call__`.

    With `visual_words` the outputs hold `log_absent` f32[B, C], too.
    """
    annotations = self.annotate(images_or_features, train=train)
    logits, y = self.decoder(
      annotations, tokens, num_locations, inputs=inputs, train=train
    )
    if self.visual_words is not None:
      y = {**y, 'log_absent': self.visual_words(annotations, num_locations)}
    return logits, y


def create(
  config: ml_collections.ConfigDict,
  vocab_size: int,
  *,
  with_encoder: bool = True,
  num_concepts: int = 0,
) -> Captioner:
  """The captioner of a config.

  Args:
    config: `model` (a key of `DECODERS`), `decoder` and `encoder` (arguments
      of the two), `train_batch_stats` and `dtype`.
    vocab_size: V.
    with_encoder: False for a captioner of features.
    num_concepts: C, of the visual words; they are part of training alone.

  Raises:
    ValueError: `config.model` is not a key of `DECODERS`.
  """
  if config.model not in DECODERS:
    raise ValueError(f'model={config.model!r} is none of {", ".join(DECODERS)}')
  dtype = jnp.dtype(config.dtype)
  encoder = None
  if with_encoder:
    encoder = networks.create(
      config.encoder,
      dtype=dtype,
      norm_axis_name=parallel.AXIS if config.train_batch_stats else None,
    )
  return Captioner(
    decoder=DECODERS[config.model](
      vocab_size=vocab_size,
      bos=vocabulary.BOS_ID,
      dtype=dtype,
      **config.decoder,
    ),
    encoder=encoder,
    visual_words=VisualWords(num_concepts) if num_concepts else None,
    train_batch_stats=config.train_batch_stats,
  )
