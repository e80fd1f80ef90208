"""Data parallelism: training, evaluation and sampling over all devices.

Every device of every host has the whole state and a share of the batch.
Losses are shares of a global mean (`recurrent.masking.share_of_mean`), so that
the sum over devices and micro-batches is that mean, and the gradient is the
same on one device and on eight.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from clu import metrics as clu_metrics
from jax.experimental import multihost_utils

from training import optimizers
from training import progress as progress_lib

AXIS = 'devices'


@flax.struct.dataclass
class TrainState:
  """The state of training, which is saved and restored."""

  step: jax.Array  # i32[]: number of completed updates.
  params: Any
  model_state: Any  # Collections that are not trained: batch_stats, or {}.
  opt_state: Any
  ema_params: Any = None  # Exponential moving average of params, or None.
  # Of the evaluations, where training depends on them, or None.
  progress: progress_lib.Progress | None = None

  @property
  def variables(self) -> dict[str, Any]:
    """The variables for evaluation, with averaged parameters if kept."""
    params = self.params if self.ema_params is None else self.ema_params
    return {'params': params, **self.model_state}


@flax.struct.dataclass
class Update:
  """The results of one training step, reduced over all devices."""

  loss: jax.Array  # f32[]: the minimised loss, with regularisation.
  gradient_norm: jax.Array  # f32[]: before clipping.
  parameter_norm: jax.Array  # f32[]: after the update.
  metrics: clu_metrics.Collection


def create_state(
  variables: dict[str, Any],
  optimizer: optax.GradientTransformation,
  *,
  frozen: tuple[str, ...] = (),
  keep_ema: bool = False,
) -> TrainState:
  """Creates the state before the first step, on every local device.

  Args:
    variables: `params` and the other collections that `model.init` returns.
    optimizer: of the trained parameters.
    frozen: regular expressions of the paths of parameters that are not trained.
    keep_ema: keep an exponential moving average of the parameters.
  """
  model_state = dict(variables)
  params = model_state.pop('params')
  trained, _ = optimizers.partition(params, frozen)
  return replicate(
    TrainState(
      step=np.zeros((), np.int32),
      params=params,
      model_state=model_state,
      opt_state=optimizer.init(trained),
      ema_params=jax.tree.map(np.array, params) if keep_ema else None,
    )
  )


def _local_mesh() -> jax.sharding.Mesh:
  return jax.sharding.Mesh(jax.local_devices(), (AXIS,))


def replicate(tree: Any) -> Any:
  """Puts a tree on every local device, laid out as `train_step` returns it.

  With a state on one device, or a step that is a Python int, the second step
  would be compiled again.
  """
  sharding = jax.sharding.NamedSharding(_local_mesh(), jax.P())
  return jax.device_put(tree, sharding)


def local_batch_size(batch_size: int, name: str = 'batch_size') -> int:
  """The number of examples of a global batch that this host reads.

  Args:
    batch_size: over all hosts.
    name: name of the config's field, for the error.

  Raises:
    ValueError: the batch does not divide over the devices.
  """
  if batch_size % jax.device_count():
    raise ValueError(
      f'{name}={batch_size} must be a multiple of the '
      f'{jax.device_count()} devices: pass --config.{name}=...'
    )
  return batch_size // jax.process_count()


def shard(batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
  """Spreads a host's batch over its devices: [B, ...] -> [devices, b, ...].

  Text, such as example ids, is left out: devices hold numbers only.
  """
  mesh = _local_mesh()
  sharding = jax.sharding.NamedSharding(mesh, jax.P(AXIS))
  numbers = {k: v for k, v in batch.items() if v.dtype.kind in 'biuf'}
  return jax.device_put(
    {
      k: v.reshape((mesh.size, len(v) // mesh.size) + v.shape[1:])
      for k, v in numbers.items()
    },
    sharding,
  )


def prefetch(
  batches: Iterable[dict[str, np.ndarray]], size: int = 2
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, jax.Array]]]:
  """Yields (host batch, device batch), `size` batches ahead of the device."""
  queue = collections.deque()
  for batch in batches:
    queue.append((batch, shard(batch)))
    if len(queue) > size:
      yield queue.popleft()
  yield from queue


def train_step(
  loss_fn: Callable,
  count_fn: Callable,
  optimizer: optax.GradientTransformation,
  *,
  frozen: tuple[str, ...] = (),
  microbatches: int = 1,
  ema_decay: float = 0.0,
) -> Callable[[TrainState, dict, jax.Array], tuple[TrainState, Update]]:
  """Returns the update of the parameters, over all devices of all hosts.

  Args:
    loss_fn: a pure function `(variables, batch, counts, step, key) -> (loss,
      (metrics, model_state))`. The loss is this batch's share of the global
      mean, step i32[] the number of completed updates (for annealing), metrics
      a `clu.metrics.Collection` of Averages, model_state the updated
      collections except `params` ({} if there are none).
    count_fn: `batch -> counts`, a pytree of the denominators of the means. They
      are summed over devices before `loss_fn` gets any part of the batch.
    optimizer: as in `create_state`.
    frozen: as in `create_state`. No gradient is computed for them.
    microbatches: accumulate the gradient over this many parts of each device's
      batch: the same gradient with less memory.
    ema_decay: decay of the moving average of the parameters; 0 for none.

  Returns:
    `step(state, batch, key) -> (state, update)`. The state's buffers are
    donated. Pass the batch from `shard` and the same key at every step: the key
    that `loss_fn` receives differs by step, device and micro-batch.
  """

  def step(state, batch, key):
    key = jax.random.fold_in(key, state.step)
    key = jax.random.fold_in(key, jax.lax.axis_index(AXIS))
    counts = jax.lax.psum(count_fn(batch), AXIS)
    trained, rest = optimizers.partition(state.params, frozen)

    def loss(trained, model_state, batch, key):
      params = optimizers.merge(trained, rest)
      variables = {'params': params, **model_state}
      return loss_fn(variables, batch, counts, state.step, key)

    def accumulate(carry, inputs):
      total, gradient, model_state = carry
      part, index = inputs
      (share, (metrics, model_state)), part_gradient = jax.value_and_grad(
        loss, has_aux=True
      )(trained, model_state, part, jax.random.fold_in(key, index))
      gradient = jax.tree.map(jnp.add, gradient, part_gradient)
      return (total + share, gradient, model_state), metrics

    if microbatches == 1:
      (total, (metrics, model_state)), gradient = jax.value_and_grad(
        loss, has_aux=True
      )(trained, state.model_state, batch, key)
    else:
      size = len(jax.tree.leaves(batch)[0])
      if size % microbatches:
        raise ValueError(
          f'microbatches={microbatches} do not divide the {size} examples '
          'of a device: change microbatches or batch_size'
        )
      parts = jax.tree.map(
        lambda x: x.reshape((microbatches, -1) + x.shape[1:]), batch
      )
      start = (0.0, jax.tree.map(jnp.zeros_like, trained), state.model_state)
      (total, gradient, model_state), metrics = jax.lax.scan(
        accumulate, start, (parts, jnp.arange(microbatches))
      )
      metrics = jax.tree.map(lambda x: x.sum(0), metrics)

    gradient, total, metrics = jax.lax.psum((gradient, total, metrics), AXIS)
    model_state = jax.lax.pmean(model_state, AXIS)
    updates, opt_state = optimizer.update(gradient, state.opt_state, trained)
    if state.progress is not None:  # They are proportional to the rate.
      updates = optax.tree.scale(state.progress.scale, updates)
    trained = optax.apply_updates(trained, updates)
    params = optimizers.merge(trained, rest)
    ema_params = state.ema_params
    if ema_decay:
      ema_params = optax.incremental_update(params, ema_params, 1 - ema_decay)
    state = TrainState(
      state.step + 1,
      params,
      model_state,
      opt_state,
      ema_params,
      state.progress,
    )
    update = Update(
      loss=total,
      gradient_norm=optax.tree.norm(gradient),
      parameter_norm=optax.tree.norm(trained),
      metrics=metrics,
    )
    return state, update

  return jax.pmap(
    step,
    axis_name=AXIS,
    in_axes=(None, 0, None),
    out_axes=None,
    donate_argnums=0,
  )


def total(share: jax.Array) -> jax.Array:
  """The sum over all devices of all hosts, inside a loss.

  No gradient flows through it: `train_step` sums the gradients of the shares.
  """
  return jax.lax.psum(jax.lax.stop_gradient(share), AXIS)


def eval_step(metrics_fn: Callable) -> Callable:
  """Returns a function that sums the metrics of a sharded batch over devices.

  Args:
    metrics_fn: `(variables, batch) -> metrics`, a Collection of Averages
      without the padding.

  Returns:
    `step(variables, batch) -> metrics`; merge them over batches, then compute.
  """

  def step(variables, batch):
    return jax.lax.psum(metrics_fn(variables, batch), AXIS)

  return jax.pmap(step, axis_name=AXIS, in_axes=(None, 0), out_axes=None)


def map_devices(predict_fn: Callable) -> Callable:
  """Returns a function of per-example outputs, on this host's devices.

  Args:
    predict_fn: `(variables, batch) -> pytree` of [b, ...] arrays.

  Returns:
    `step(variables, batch) -> pytree` of numpy [B, ...] arrays.
  """
  mapped = jax.pmap(
    predict_fn,
    axis_name=AXIS,
    in_axes=(None, 0),
    devices=jax.local_devices(),
  )

  def step(variables, batch):
    outputs = jax.device_get(mapped(variables, batch))
    return jax.tree.map(lambda x: x.reshape((-1,) + x.shape[2:]), outputs)

  return step


def sample_step(sample_fn: Callable) -> Callable:
  """Returns a function of random outputs, on this host's devices.

  Args:
    sample_fn: `(variables, batch, part, key) -> pytree` of [b, ...] arrays;
      part i32[] is the number of the part of the batch.

  Returns:
    `step(variables, batch, key, step, part) -> pytree` of [devices, b, ...]
    arrays on the devices; the host need not wait for them. Pass the same key
    at every step: the key that `sample_fn` receives differs by step,
    device (of all hosts) and part.
  """

  def sample(variables, batch, key, step, part):
    first = jax.process_index() * jax.local_device_count()
    key = jax.random.fold_in(key, step)
    key = jax.random.fold_in(key, first + jax.lax.axis_index(AXIS))
    return sample_fn(variables, batch, part, jax.random.fold_in(key, part))

  mapped = jax.pmap(
    sample,
    axis_name=AXIS,
    in_axes=(None, 0, None, None, None),
    devices=jax.local_devices(),
  )
  return lambda variables, batch, key, step, part: mapped(
    variables, batch, key, np.int32(step), np.int32(part)
  )


def predict_step(predict_fn: Callable) -> Callable:
  """Returns `map_devices` with the outputs of all hosts, on every host.

  The examples are in the order of the global batch: process 0 first.
  """
  step = map_devices(predict_fn)
  return lambda variables, batch: gather(step(variables, batch))


def gather(tree: Any) -> Any:
  """Joins the hosts' numpy arrays along the first axis, in their order."""
  if jax.process_count() == 1:
    return tree
  return multihost_utils.process_allgather(tree, tiled=True)


def gather_texts(text: str) -> list[str]:
  """The texts of all hosts, in their order."""
  if jax.process_count() == 1:
    return [text]
  own = np.frombuffer(text.encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.int32(len(own)))
  padded = np.zeros(max(int(sizes.max()), 1), np.uint8)
  padded[: len(own)] = own
  rows = multihost_utils.process_allgather(padded)
  return [
    row[:size].tobytes().decode() for row, size in zip(rows, sizes, strict=True)
  ]


def wait_for_all(name: str):
  """Waits until every host has reached the point of this name."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)
