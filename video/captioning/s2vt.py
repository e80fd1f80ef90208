"""Sequence to sequence (Venugopalan et al. 2015). Axes: see video/captioner.py.

H units.
"""

from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from recurrent import cells
from recurrent import decoder
from recurrent import masking
from recurrent import unroll


@flax.struct.dataclass
class _Seen:
  """What is left of the first phase of `S2VT`."""

  lower: Any  # The carries after the last frame, leaves f32[B, H].
  upper: Any
  nothing: jax.Array  # [B, 1, 4 * H]: what zeros drive in place of frames.


class S2VT(decoder.Decoder):
  """Sequence to sequence: video to text (Venugopalan et al. 2015).

  Two stacked LSTMs, the same for both phases. At first the lower one sees the
  frames, and the upper one what the lower makes of them beside a zero in place
  of a word. Then the lower one sees zeros in place of frames, and the upper
  one its output beside the word before.

  Frames and words are brought to `embedding` features without an activation.
  Dropout falls on these and on the output. Where the paper unrolls 80 steps
  for every clip, a clip here has as many steps as frames.
  """

  attends = False

  def setup(self):
    """Declares the layers; their parameters appear on the first use."""
    self.frame = nn.Dense(self.embedding, dtype=self.dtype)
    self.words = nn.Embed(
      self.vocab_size,
      self.embedding,
      embedding_init=nn.initializers.uniform(0.08),
    )
    self.frame_cell = cells.LSTM(self.features, dtype=self.dtype)
    self.word_cell = cells.LSTM(
      self.features, dtype=self.dtype, fan_in=self.features + self.embedding
    )
    self.output = nn.Dense(self.vocab_size, dtype=self.dtype)
    self.dropout = nn.Dropout(self.dropout_rate)

  def prepare(self, annotations, mask, *, train):
    """See `Decoder.prepare`: the first phase."""
    lengths = masking.mask_to_lengths(mask)
    frames = self.dropout(self.frame(annotations), deterministic=not train)
    lower, outputs = unroll.unroll(self.frame_cell, frames, lengths=lengths)
    # The zero in place of a word: nothing is added to what the frames drive.
    upper, _ = unroll.unroll(self.word_cell, outputs, lengths=lengths)
    zeros = jnp.zeros((len(frames), 1, self.embedding))
    return _Seen(lower, upper, self.frame_cell.project(zeros))

  def start(self, context, num_sequences, *, train):
    """The carries of both LSTMs, leaves f32[B, num_sequences, H]."""
    del train
    return jax.tree.map(
      lambda x: jnp.repeat(x[:, None], num_sequences, axis=1),
      (context.lower, context.upper),
    )

  def read(self, tokens, *, train):
    """See `Decoder.read`: the word's part of what drives the upper LSTM."""
    word = self.dropout(self.words(tokens), deterministic=not train)
    return word, self.word_cell.project_constant(word)

  def advance(self, carry, projected, context, *, train=False):
    """See `Decoder.advance`; y holds `hidden`."""
    del train
    lower, upper = carry
    lower, hidden = self.frame_cell.step(lower, context.nothing)
    upper, hidden = self.word_cell.step(
      upper, self.word_cell.project(hidden) + projected
    )
    return (lower, upper), {'hidden': hidden}

  def predict(self, word, y, *, train):
    """See `Decoder.predict`."""
    del word
    hidden = self.dropout(y['hidden'], deterministic=not train)
    return self.output(hidden).astype(jnp.float32)
