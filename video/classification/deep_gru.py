"""DeepGRU (Maghoumi and LaViola 2019), a classifier of skeletons.

GRUs read the whole recording. Their last state is compared with each output,
and what attention finds is read by one more GRU that starts from that state:

  e_t = h_t^T W h_T       a = softmax(e)       c = sum_t a_t h_t
  c' = GRU(c, h_T)        logits = FC(ReLU(FC([c', c])))

with batch normalisation and dropout before both layers. A test compares it with
numbers of the published code. Two things differ: initial values, which are
sampled as for the other cells here, and padding, which that code does not mask
in the softmax.

Axes: B clips, T time, D features, H units of the last GRU, V classes.
"""

from collections.abc import Sequence
from typing import Any
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from recurrent import attention
from recurrent import cells
from recurrent import masking
from recurrent import unroll


class DeepGRU(nn.Module):
  """Stacked GRUs, attention by the last state, two layers.

  Attributes:
    num_classes: V.
    widths: units of each GRU.
    hidden: units of the layer before the logits.
    dropout_rate: before each of the two layers.
    norm_axis_name: pmapped axis over which training averages the statistics of
      a batch.
    dtype: of the matrix products; parameters and states are float32.
  """

  num_classes: int
  widths: Sequence[int] = (512, 512, 256, 256, 128)
  hidden: int = 256
  dropout_rate: float = 0.5
  norm_axis_name: str | None = None
  dtype: Any = jnp.float32

  # As of `model.Classifier`: it reads features, of whole recordings.
  encoder: ClassVar[None] = None
  reads_whole: ClassVar[bool] = True

  @nn.compact
  def __call__(
    self, frames: jax.Array, lengths: jax.Array, *, train: bool
  ) -> tuple[jax.Array, None]:
    """Reads whole recordings.

    Args:
      frames: features f32[B, T, D].
      lengths: i32[B], number of real frames, at most T.
      train: apply dropout, which needs the key 'dropout', and normalise by the
        batch.

    Returns:
      Logits f32[B, V], and None: there are none of single frames.
    """
    x, last = frames.astype(jnp.float32), None
    for index, width in enumerate(self.widths):
      cell = cells.GRU(width, dtype=self.dtype, name=f'gru{index + 1}')
      last, x = unroll.unroll(cell, x, lengths=lengths)
    width = self.widths[-1]
    keys = nn.Dense(width, use_bias=False, dtype=self.dtype, name='key')(x)
    scores = jnp.einsum('bth,bh->bt', keys, last).astype(jnp.float32)
    mask = masking.lengths_to_mask(lengths, x.shape[1])
    weights = attention.masked_softmax(scores, mask)
    context = jnp.einsum('bt,bth->bh', weights, x)
    _, read = cells.GRU(width, dtype=self.dtype, name='context')(last, context)
    y = jnp.concatenate([read, context], axis=-1)
    y = nn.relu(self._layer(y, self.hidden, 'hidden', train))
    logits = self._layer(y, self.num_classes, 'output', train)
    return logits.astype(jnp.float32), None

  def _layer(self, x, width, name, train):
    """A layer after batch normalisation and dropout."""
    x = nn.BatchNorm(
      use_running_average=not train,
      momentum=0.9,
      epsilon=1e-5,
      axis_name=self.norm_axis_name,
      name=f'{name}_norm',
    )(x)
    x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
    return nn.Dense(width, dtype=self.dtype, name=name)(x)
