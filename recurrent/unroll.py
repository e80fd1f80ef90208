"""The scan over time: forward, reverse and bidirectional, with lengths.

Axes: B batch, T time, D inputs, H units.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from recurrent import cells
from recurrent import masking


def scan(
  body: Callable[[nn.Module, Any, Any], tuple[Any, Any]],
  module: nn.Module,
  carry: Any,
  inputs: Any,
  *,
  time_axis: int = 1,
  remat: bool = True,
  reverse: bool = False,
) -> tuple[Any, Any]:
  """Runs `body` over the time axis of the inputs.

  Args:
    body: `(module, carry, x) -> (carry, y)`, one step of time. It may close
      over arrays that are constant in time, but must reach submodules through
      its own argument: `module.cell`, not a `cell` from outside.
    module: shares its parameters with every step; 'dropout' keys differ.
    carry: the state before the first step.
    inputs: pytree of arrays that have T at `time_axis`.
    time_axis: where time is, in `inputs` and in the outputs.
    remat: whether to compute the elementwise part of a step again in the
      reverse pass, rather than to store it for every step.
    reverse: whether to go from the last step to the first. Outputs stay at the
      position of their inputs.

  Returns:
    The carry after the last step taken, and the outputs with T at `time_axis`.
  """
  if remat:
    # The scan itself keeps the two passes apart, therefore prevent_cse=False.
    # Results of products are few and dear: those are kept.
    body = nn.remat(
      body,
      prevent_cse=False,
      policy=jax.checkpoint_policies.dots_saveable,
    )
  run = nn.scan(
    body,
    variable_broadcast='params',
    split_rngs={'params': False, 'dropout': True},
    in_axes=time_axis,
    out_axes=time_axis,
    reverse=reverse,
  )
  return run(module, carry, inputs)


def _where(mask: jax.Array, tree: Any, other: Any) -> Any:
  """Chooses rows: bool[B], leaves [B, ...], leaves [B, ...]."""

  def choose(x, y):
    return jnp.where(mask.reshape(mask.shape + (1,) * (x.ndim - 1)), x, y)

  return jax.tree.map(choose, tree, other)


def unroll(
  cell: cells.Cell,
  inputs: jax.Array,
  carry: Any = None,
  lengths: jax.Array | None = None,
  *,
  drive: jax.Array | None = None,
  reverse: bool = False,
  recurrent_masks: jax.Array | None = None,
) -> tuple[Any, jax.Array]:
  """Runs a cell over whole sequences.

  Args:
    cell: follows the protocol of `cells`.
    inputs: f32[B, T, D].
    carry: the state before the first step; zeros by default.
    lengths: i32[B]; all T steps are real by default.
    drive: f32[B, width], added to the projected inputs of every step: what is
      constant in time is projected once.
    reverse: whether to read the steps length - 1, ..., 0. The padding is then
      never seen, and outputs stay at the position of their inputs.
    recurrent_masks: f32[B, T, H] of `cells.dropout_masks`, or None.

  Returns:
    The carry after each sequence's last real step (in reverse, after step 0)
    and the outputs f32[B, T, H], zero on the padding.
  """
  if carry is None:
    carry = cell.start(inputs.shape[:1] + inputs.shape[2:-1])
  mask = None
  if lengths is not None:
    mask = masking.lengths_to_mask(lengths, inputs.shape[1])

  def body(cell, carry, x):
    projected, recurrent_mask, real = x
    if drive is not None:
      projected = projected + drive
    new_carry, output = cell.step(carry, projected, recurrent_mask)
    if real is not None:
      new_carry = _where(real, new_carry, carry)
      output = _where(real, output, jnp.zeros_like(output))
    return new_carry, output

  steps = (cell.project(inputs), recurrent_masks, mask)
  return scan(body, cell, carry, steps, reverse=reverse)


def bidirectional(
  forward_cell: cells.Cell,
  backward_cell: cells.Cell,
  inputs: jax.Array,
  lengths: jax.Array | None = None,
) -> tuple[tuple[Any, Any], jax.Array]:
  """Reads sequences in both directions (Schuster and Paliwal 1997).

  Args:
    forward_cell: reads the steps 0, ..., length - 1.
    backward_cell: reads the steps length - 1, ..., 0.
    inputs: f32[B, T, D].
    lengths: i32[B]; all T steps are real by default.

  Returns:
    The two final carries, and the outputs of both side by side:
    f32[B, T, H forward + H backward], zero on the padding.
  """
  forward, outputs = unroll(forward_cell, inputs, lengths=lengths)
  backward, reversed_outputs = unroll(
    backward_cell, inputs, lengths=lengths, reverse=True
  )
  outputs = jnp.concatenate([outputs, reversed_outputs], axis=-1)
  return (forward, backward), outputs
