"""The scan over time: forward, reverse and bidirectional, with lengths.

Axes: B batch, T time, D inputs, H units.
"""

import math
from collections.abc import Callable
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from recurrent import cells
from recurrent import masking

# Input kernels of at most this size stay in a core's cache: 1 MiB of float32.
_MAX_CACHED = 2**18
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


def _is_large(operand: jax.Array, product: jax.Array) -> bool:
  """Selects the kernels whose gradient is computed after the backward scan.

  They have more entries than their operand and product together: storing these
  two for each step then costs less than adding to a sum in each step.
  """
  entries = operand.shape[-1] * product.shape[-1]
  return operand.size + product.size < entries


def scan(
  body: Callable[..., tuple[Any, Any]],
  module: nn.Module,
  carry: Any,
  inputs: Any,
  *constants: Any,
  time_axis: int = 1,
  remat: bool = True,
  reverse: bool = False,
) -> tuple[Any, Any]:
  """Runs `body` over the time axis of the inputs.

  The gradient is that of a plain scan. For a large kernel, however, it is not a
  sum that every step of the backward pass reads and writes, but one product of
  all steps, after that pass.

  Args:
    body: `(module, carry, x, *constants) -> (carry, y)`, one step of time. It
      must reach arrays and submodules through its arguments: `module.cell`, not
      a `cell` from outside.
    module: all steps share its parameters; their random keys differ.
    carry: the state before the first step.
    inputs: pytree of arrays that have T at `time_axis`.
    *constants: pytrees of arrays that every step reads.
    time_axis: the axis of time, in `inputs` and in the outputs.
    remat: whether to recompute the elementwise part of a step in the backward
      pass, rather than to store it for every step.
    reverse: whether to go from the last step to the first. Outputs stay at the
      position of their inputs.

  Returns:
    The carry after the last executed step, and the outputs with T at
    `time_axis`.
  """

  def run(body, module, carry, inputs, constants, axes):
    if remat:
      # CSE need not be prevented inside a scan.
      body = nn.remat(body, prevent_cse=False, policy=_POLICY)
    loop = nn.scan(
      body,
      variable_broadcast='params',
      split_rngs={'params': False, nn.DenyList('params'): True},
      in_axes=(axes, *[nn.broadcast for _ in constants]),
      out_axes=axes,
      reverse=reverse,
    )
    return loop(module, carry, inputs, *constants)

  def plain(module, carry, inputs, *constants):
    return run(body, module, carry, inputs, constants, time_axis)

  def forward(module, carry, inputs, *constants):
    changes = _zero_changes(body, module, carry, inputs, constants, time_axis)

    def step(module, carry, x, *constants):
      x, changes = x
      changes = {path: iter(parts) for path, parts in changes.items()}
      operands = {path: [] for path in changes}

      def visit(path, operand, product):
        operands[path].append(operand)
        return _change(product, next(changes[path]))

      with _visit_large(module, visit):
        carry, y = body(module, carry, x, *constants)
      return carry, (y, operands)

    def changed(module, carry, inputs, changes, *constants):
      carry, (outputs, operands) = run(
        step, module, carry, (inputs, changes), constants, (time_axis, 0)
      )
      return (carry, outputs), operands

    results, pull_back, operands = nn.vjp(
      changed, module, carry, inputs, changes, *constants, has_aux=True
    )
    return results, (pull_back, operands)

  def backward(residuals, gradients):
    pull_back, operands = residuals
    variables, carry, inputs, products, *constants = pull_back(gradients)
    variables = _replace_kernels(variables, operands, products)
    return variables, carry, inputs, *constants

  if module.is_initializing():
    return plain(module, carry, inputs, *constants)
  run_in_time = nn.custom_vjp(plain, forward, backward)
  return run_in_time(module, carry, inputs, *constants)


_POLICY = jax.checkpoint_policies.save_from_both_policies(
  _is_saved, jax.checkpoint_policies.save_only_these_names(cells.SAVED)
)


def _visit_large(module: nn.Module, visit: Callable[..., jax.Array]):
  """A context in which `visit` replaces the products of large kernels.

  Args:
    module: the one that the step is called with.
    visit: `(path of the layer, operand, product) -> product`.
  """

  def intercept(call, args, options, context):
    product = call(*args, **options)
    layer = context.module
    if not isinstance(layer, nn.Dense):
      return product
    # A loop inside the step has arrays that do not leave it.
    inside_loop = layer.scope.trace_level != module.scope.trace_level
    if inside_loop or not _is_large(*args, product):
      return product
    return visit(layer.path[len(module.path) :], *args, product)

  return nn.intercept_methods(intercept)


def _zero_changes(
  body: Callable[..., tuple[Any, Any]],
  module: nn.Module,
  carry: Any,
  inputs: Any,
  constants: tuple[Any, ...],
  time_axis: int,
) -> dict[tuple[str, ...], list[jax.Array]]:
  """Zeros to add to the products of large kernels; see `scan`.

  Their gradients are those of the products.

  Returns:
    Path of the layer -> [T, ..., W] for each call of it in a step.
  """
  found = {}

  def visit(path, operand, product):
    del operand
    found.setdefault(path, []).append((product.shape, product.dtype))
    return product

  def step(module, *args):
    with _visit_large(module, visit):
      body(module, *args)

  def without_time(x):
    shape = x.shape[:time_axis] + x.shape[time_axis + 1 :]
    return jax.ShapeDtypeStruct(shape, x.dtype)

  rngs = {name: jax.random.key(0) for name in module.scope.rngs}
  module, variables = module.unbind()
  jax.eval_shape(
    lambda *args: module.apply(*args, rngs=rngs, method=step),
    variables,
    carry,
    jax.tree.map(without_time, inputs),
    *constants,
  )
  length = jax.tree.leaves(inputs)[0].shape[time_axis]
  return {
    path: [jnp.zeros((length, *shape), dtype) for shape, dtype in calls]
    for path, calls in found.items()
  }


@jax.custom_vjp
def _change(product: jax.Array, change: jax.Array) -> jax.Array:
  """The sum of the two, of which the second is zero and need not be read."""
  del change
  return product


_change.defvjp(lambda product, _: (product, None), lambda _, g: (g, g))


def _replace_kernels(
  variables: dict[str, Any], operands: Any, products: Any
) -> dict[str, Any]:
  """Replaces gradients of large kernels, summed by the scan, by one product.

  The sums are then unused, and the compiler removes them from the scan.

  Args:
    variables: the gradients of a module's variables.
    operands: path of a layer -> [T, ..., D] of each call.
    products: path of a layer -> the gradients of the products, [T, ..., W].
  """
  if not operands:
    return variables
  params = flax.traverse_util.flatten_dict(variables['params'])
  for path, factors in operands.items():
    params[*path, 'kernel'] = sum(
      jnp.einsum(
        '...d,...w->dw',
        operand.astype(product.dtype),
        product,
        preferred_element_type=jnp.float32,
      )
      for operand, product in zip(factors, products[path], strict=True)
    )
  params = flax.traverse_util.unflatten_dict(params)
  return {**variables, 'params': params}


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
  in_step = _projects_in_step(cell, inputs.shape[-1])
  if not in_step:
    inputs = cell.project(inputs)
  if projected_constant is not None:
    # In any case: its gradient is a sum over time.
    projected_constant = projected_constant.astype(jnp.float32)

  def step(cell, carry, x, constant):
    x, recurrent_mask, real = x
    projected = cell.project(x) if in_step else x
    if constant is not None:
      projected = projected + constant
    new_carry, output = cell.step(carry, projected, recurrent_mask)
    return _keep_on_padding(real, carry, new_carry, output)

  carry, outputs = scan(
    step,
    cell,
    carry,
    (inputs, recurrent_masks, mask),
    projected_constant,
    time_axis=0,
    reverse=reverse,
  )
  return carry, outputs.swapaxes(0, 1)


def _projects_in_step(cell: cells.Cell, num_inputs: int) -> bool:
  """Decides whether to project each input in its step, or all at once before.

  A processor need not write and read the projections if they are computed where
  they are used, as long as its cache keeps the kernel. An accelerator is faster
  with few large products.
  """
  if cell.is_initializing() or not cell.has_matrix:
    return False
  fits = num_inputs * cell.width <= _MAX_CACHED
  return jax.default_backend() == 'cpu' and fits


def _keep_on_padding(real, carry, new_carry, output):
  """Keeps the carry and zeroes the output on padding."""
  if real is None:
    return new_carry, output
  zeros = jnp.zeros_like(output)
  return _where(real, new_carry, carry), _where(real, output, zeros)


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
