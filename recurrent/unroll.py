"""The scan over time: forward, reverse and bidirectional, with lengths.

Axes: B batch, T time, D inputs, H units.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from recurrent import cells
from recurrent import masking

# Inputs are projected inside the scan if there are at least this many times as
# many units.
_UNITS_PER_INPUT = 8
# Contractions of at least this size are worth saving for the backward pass.
_MIN_CONTRACTION = 64


def _is_saved(primitive, *arguments, **options) -> bool:
  """Selects the results that a step saves for its backward pass."""
  if primitive is jax.lax.conv_general_dilated_p:
    return True
  if primitive is not jax.lax.dot_general_p:
    return False
  (contracted, _), _ = options['dimension_numbers']
  shape = arguments[0].shape
  return math.prod(shape[axis] for axis in contracted) >= _MIN_CONTRACTION


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
    module: all steps share its parameters; their random keys differ.
    carry: the state before the first step.
    inputs: pytree of arrays that have T at `time_axis`.
    time_axis: the axis of time, in `inputs` and in the outputs.
    remat: whether to recompute the elementwise part of a step in the backward
      pass, rather than to store it for every step.
    reverse: whether to go from the last step to the first. Outputs stay at the
      position of their inputs.

  Returns:
    The carry after the last executed step, and the outputs with T at
    `time_axis`.
  """
  if remat:
    # CSE need not be prevented inside a scan.
    body = nn.remat(body, prevent_cse=False, policy=_is_saved)
  run = nn.scan(
    body,
    # The statistics of a frozen encoder are read at every step, not updated.
    variable_broadcast=('params', 'batch_stats'),
    split_rngs={'params': False, nn.DenyList('params'): True},
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
  projected_constant: jax.Array | None = None,
  reverse: bool = False,
  recurrent_masks: jax.Array | None = None,
) -> tuple[Any, jax.Array]:
  """Runs a cell over whole sequences.

  Args:
    cell: follows the protocol of `cells`.
    inputs: f32[B, T, D].
    carry: the state before the first step; zeros by default.
    lengths: i32[B]; all T steps are real by default.
    projected_constant: f32[B, width], returned by `Cell.project_constant` and
      added to the projected inputs of every step.
    reverse: whether to read the steps length - 1, ..., 0. The padding is then
      never seen, and outputs stay at the position of their inputs.
    recurrent_masks: f32[T, B, H] of `cells.dropout_masks`, or None.

  Returns:
    The carry after each sequence's last real step (in reverse, after step 0)
    and the outputs f32[B, T, H], zero on the padding.
  """
  if carry is None:
    carry = cell.start(inputs.shape[:1] + inputs.shape[2:-1])
  mask = None
  if lengths is not None:
    mask = masking.lengths_to_mask(lengths, inputs.shape[1]).T

  # Time first: transposes the inputs, which are smaller than the gates that a
  # scan over the second axis would transpose.
  inputs = inputs.swapaxes(0, 1)
  few = inputs.shape[-1] * _UNITS_PER_INPUT <= cell.features
  if few and cell.has_matrix and not cell.is_initializing():
    carry, outputs = _scan_few_inputs(
      cell,
      inputs,
      carry,
      projected_constant,
      recurrent_masks,
      mask,
      reverse=reverse,
    )
  else:
    carry, outputs = scan(
      lambda cell, carry, x: _step(cell, carry, projected_constant, *x),
      cell,
      carry,
      (cell.project(inputs), recurrent_masks, mask),
      time_axis=0,
      reverse=reverse,
    )
  return carry, outputs.swapaxes(0, 1)


def _step(
  cell: cells.Cell,
  carry: Any,
  projected_constant: jax.Array | None,
  projected: jax.Array,
  recurrent_mask: jax.Array | None,
  real: jax.Array | None,
) -> tuple[Any, jax.Array]:
  """One step of `unroll`."""
  if projected_constant is not None:
    projected = projected + projected_constant
  new_carry, output = cell.step(carry, projected, recurrent_mask)
  return _keep_on_padding(real, carry, new_carry, output)


def _keep_on_padding(real, carry, new_carry, output):
  """Keeps the carry and zeroes the output on padding."""
  if real is None:
    return new_carry, output
  zeros = jnp.zeros_like(output)
  return _where(real, new_carry, carry), _where(real, output, zeros)


def _scan_few_inputs(
  cell: cells.Cell,
  inputs: jax.Array,
  carry: Any,
  projected_constant: jax.Array | None,
  recurrent_masks: jax.Array | None,
  mask: jax.Array | None,
  *,
  reverse: bool,
) -> tuple[Any, jax.Array]:
  """A scan over few inputs f32[T, B, D] with a custom backward pass.

  It is faster than autodiff of the plain scan for two reasons:

  - each step projects its inputs, which costs little, so that the projections
    are not stored for all of time;
  - the gradient of the recurrent kernel is one product after the backward scan,
    rather than a sum that every step reads and writes.

  `Cell.update` is recomputed in the backward pass. No gradient flows to the
  masks.
  """
  cell, variables = cell.unbind()

  def step(params, carry, constant, x, product, recurrent_mask, real):
    """A step after its recurrent product."""
    projected = constant + cell.apply({'params': params}, x, method='project')
    new_carry, output = cell.apply(
      {'params': params},
      carry,
      projected,
      product,
      recurrent_mask,
      method='update',
    )
    return _keep_on_padding(real, carry, new_carry, output)

  def forward(params, inputs, carry, constant, recurrent_masks, mask):
    kernel = params['recurrent']['kernel'].astype(cell.dtype)

    def body(carry, steps):
      x, recurrent_mask, real = steps
      operand = cell.operand(carry, recurrent_mask).astype(cell.dtype)
      product = operand @ kernel
      new_carry, output = step(
        params, carry, constant, x, product, recurrent_mask, real
      )
      return new_carry, (output, (carry, product))

    carry, (outputs, saved) = jax.lax.scan(
      body, carry, (inputs, recurrent_masks, mask), reverse=reverse
    )
    residuals = (params, inputs, constant, recurrent_masks, mask, saved)
    return (carry, outputs), residuals

  def backward(residuals, gradients):
    params, inputs, constant, recurrent_masks, mask, saved = residuals
    params = dict(params)
    recurrent = params.pop('recurrent')
    transposed = recurrent['kernel'].astype(cell.dtype).T

    def body(state, steps):
      d_carry, d_constant, d_params = state
      (carry, product), x, recurrent_mask, real, d_output = steps
      _, pull_back = jax.vjp(
        lambda *args: step(*args, recurrent_mask, real),
        params,
        carry,
        constant,
        x,
        product,
      )
      step_params, step_carry, step_constant, d_x, d_product = pull_back(
        (d_carry, d_output)
      )
      d_product = d_product.astype(cell.dtype)
      _, pull_back = jax.vjp(
        lambda carry: cell.operand(carry, recurrent_mask), carry
      )
      (operand_carry,) = pull_back((d_product @ transposed).astype(jnp.float32))
      state = (
        jax.tree.map(jnp.add, step_carry, operand_carry),
        d_constant + step_constant,
        jax.tree.map(jnp.add, d_params, step_params),
      )
      return state, (d_x, d_product)

    d_carry, d_outputs = gradients
    zeros = (jnp.zeros_like(constant), jax.tree.map(jnp.zeros_like, params))
    (d_carry, d_constant, d_params), (d_inputs, d_products) = jax.lax.scan(
      body,
      (d_carry, *zeros),
      (saved, inputs, recurrent_masks, mask, d_outputs),
      reverse=not reverse,
    )
    operands = cell.operand(saved[0], recurrent_masks)
    d_kernel = jnp.einsum(
      't...h,t...g->hg',
      operands.astype(cell.dtype),
      d_products,
      preferred_element_type=jnp.float32,
    )
    d_params['recurrent'] = {'kernel': d_kernel}
    return d_params, d_inputs, d_carry, d_constant, None, None

  @jax.custom_vjp
  def run(*args):
    return forward(*args)[0]

  run.defvjp(forward, backward)
  # float32 in any case: its gradient is a sum over time.
  constant = jnp.zeros((*inputs.shape[1:-1], cell.width))
  if projected_constant is not None:
    constant = constant + projected_constant
  return run(
    dict(variables['params']), inputs, carry, constant, recurrent_masks, mask
  )


def bidirectional(
  forward_cell: cells.Cell,
  backward_cell: cells.Cell,
  inputs: jax.Array,
  lengths: jax.Array | None = None,
  *,
  recurrent_masks: tuple[jax.Array | None, jax.Array | None] = (None, None),
) -> tuple[tuple[Any, Any], jax.Array]:
  """Reads sequences in both directions (Schuster and Paliwal 1997).

  Args:
    forward_cell: reads the steps 0, ..., length - 1.
    backward_cell: reads the steps length - 1, ..., 0.
    inputs: f32[B, T, D].
    lengths: i32[B]; all T steps are real by default.
    recurrent_masks: those of the two cells; see `unroll`.

  Returns:
    The two final carries, and the outputs of both side by side:
    f32[B, T, H forward + H backward], zero on the padding.
  """
  forward_masks, backward_masks = recurrent_masks
  forward, outputs = unroll(
    forward_cell, inputs, lengths=lengths, recurrent_masks=forward_masks
  )
  backward, reversed_outputs = unroll(
    backward_cell,
    inputs,
    lengths=lengths,
    reverse=True,
    recurrent_masks=backward_masks,
  )
  outputs = jnp.concatenate([outputs, reversed_outputs], axis=-1)
  return (forward, backward), outputs
