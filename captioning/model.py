"""The captioners: an encoder, then one of the decoders.

Axes: B pictures, K captions of a picture (or beams), T words, H x W pixels,
L locations, D features of a location, V vocabulary.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from captioning import adaptive
from captioning import att2in
from captioning import show_and_tell
from captioning import show_attend_tell
from captioning import up_down
from captioning import vocabulary
from recurrent import attention
from recurrent import decoder as decoder_lib
from training import parallel
from vision import images
from vision import resnet

DECODERS = {
  'show_and_tell': show_and_tell.ShowAndTell,
  'show_attend_tell': show_attend_tell.ShowAttendTell,
  'adaptive': adaptive.AdaptiveAttention,
  'att2in': att2in.Att2in,
  'up_down': up_down.UpDown,
}


def inputs(batch: dict[str, jax.Array]) -> tuple[Any, ...]:
  """The arguments of a `Captioner` from a batch: picture, tokens, locations."""
  return batch['picture'], batch['tokens'], batch.get('num_locations')


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
    encoder: None where features are given in place of pictures.
    train_batch_stats: in training, BatchNorm uses the statistics of the batch
      and updates the running ones: for an encoder trained from scratch. A
      published encoder, frozen or fine-tuned, keeps its own.
  """

  decoder: decoder_lib.Decoder
  encoder: resnet.ResNet | None = None
  train_batch_stats: bool = False

  def annotate(self, pictures: jax.Array, *, train: bool) -> jax.Array:
    """uint8[B, H, W, 3], or features f[B, L, D] -> features f[B, L, D]."""
    if self.encoder is None:
      keeps_half = attention.item_by_item(train=train)
      return pictures if keeps_half else _to_float32(pictures)
    grid, _ = self.encoder(
      images.normalize(pictures), train=train and self.train_batch_stats
    )
    return grid

  def begin(
    self,
    pictures: jax.Array,
    num_locations: jax.Array | None = None,
    *,
    train: bool = False,
  ) -> tuple[Any, Any]:
    """Pictures or features -> (carry, context), for search with `step`."""
    annotations = self.annotate(pictures, train=train)
    return self.decoder.begin(annotations, num_locations, train=train)

  def step(
    self, carry: Any, tokens: jax.Array, context: Any, *, train: bool = False
  ) -> tuple[Any, jax.Array]:
    """See `Decoder.step`."""
    return self.decoder.step(carry, tokens, context, train=train)

  def mix(
    self,
    pictures: jax.Array,
    tokens: jax.Array,
    num_locations: jax.Array | None,
    probability: jax.Array,
    key: jax.Array,
  ) -> jax.Array:
    """See `Decoder.mix`."""
    annotations = self.annotate(pictures, train=True)
    return self.decoder.mix(
      annotations, tokens, num_locations, probability, key
    )

  def __call__(
    self,
    pictures: jax.Array,
    tokens: jax.Array,
    num_locations: jax.Array | None = None,
    *,
    inputs: jax.Array | None = None,
    train: bool,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Pictures or features, i32[B, K, T]; see `Decoder.__call__`."""
    annotations = self.annotate(pictures, train=train)
    return self.decoder(
      annotations, tokens, num_locations, inputs=inputs, train=train
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
      of the two), `train_batch_stats` and `dtype`.
    vocab_size: V.
    with_encoder: False for one that is given features.

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
    train_batch_stats=config.train_batch_stats,
  )
