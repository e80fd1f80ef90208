"""Predictions and metrics of a whole split, batch by batch, on all hosts.

Both stop between two batches after SIGTERM to one of the hosts.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from training import app
from training import parallel

Batches = Iterable[dict[str, np.ndarray]]


def predict(step: Callable, variables: Any, batches: Batches) -> Iterator[Any]:
  """Yields the outputs of each example, in order, on every host.

  Args:
    step: returned by `parallel.predict_step`.
    variables: its first argument.
    batches: returned by `batching.evaluation_batches`, with `mask`.

  Yields:
    For each example that is not padding, the pytree of its outputs.

  Raises:
    Stopped: SIGTERM was received.
  """
  for host, batch in parallel.prefetch(batches):
    app.raise_if_any_stops()
    outputs = step(variables, batch)
    for i in np.flatnonzero(parallel.gather(host['mask'])):
      yield jax.tree.map(lambda x, i=i: x[i], outputs)


def measure(
  step: Callable, variables: Any, batches: Batches
) -> dict[str, float]:
  """Computes the metrics over all examples.

  Args:
    step: returned by `parallel.eval_step`.
    variables: its first argument.
    batches: returned by `batching.evaluation_batches`; at least one.

  Returns:
    The values of the metrics of `step`, by name.

  Raises:
    Stopped: SIGTERM was received.
  """
  total = None
  for _, batch in parallel.prefetch(batches):
    app.raise_if_any_stops()
    part = step(variables, batch)
    total = part if total is None else total.merge(part)
  return {name: float(x) for name, x in total.compute().items()}
