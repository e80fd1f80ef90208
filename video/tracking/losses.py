"""What the tracker is taught: where the thing is, seen from where it looks.

Axes: B sequences, T frames.
"""

import clu.metrics
import flax
import jax
import jax.numpy as jnp
import ml_collections

from recurrent import masking
from video.tracking import boxes as boxes_lib
from video.tracking import model


@flax.struct.dataclass
class Metrics(clu.metrics.Collection):
  """Means over the frames of the training batches, but for the first ones."""

  error: clu.metrics.Average.from_output('error')
  centre: clu.metrics.Average.from_output('centre')
  size: clu.metrics.Average.from_output('size')
  self_fed: clu.metrics.Average.from_output('self_fed')


def counts(batch: dict[str, jax.Array]) -> jax.Array:
  """What the means of the loss divide by: the frames that are searched."""
  sequences, frames = batch['boxes'].shape[:2]
  return jnp.asarray(sequences * (frames - 1))


def self_fed_share(
  step: jax.Array | int, *, start: int, ramp: int, max_share: float
) -> jax.Array:
  """The share of sequences that are searched where the tracker found them.

  None before `start`, then rising for `ramp` steps to `max_share`.
  """
  return max_share * jnp.clip((step - start + 1) / max(ramp, 1), 0.0, 1.0)


def create(tracker: model.Tracker, config: ml_collections.ConfigDict):
  """The absolute error of what is regressed, as `parallel.train_step` wants it.

  Each frame is searched around the true box of the one before, moved by errors
  that stay for a while; or, for a share of the sequences that grows (a
  curriculum), around the box that the tracker itself has found, on its own from
  the first frame on. No gradient flows through that: what the network is taught
  is where the thing is, seen from where it was looked for. So the convolutions
  run over all frames at once in either case.

  An error of more than `boxes.FARTHEST` teaches nothing: the thing is lost.

  Args:
    tracker: the network.
    config: `jitter` of `boxes.jitter`, `self_feeding` of `self_fed_share`.
  """

  def loss_fn(variables, batch, counts, step, key):
    frames, boxes = batch['frames'], batch['boxes']
    jitter_key, choice_key = jax.random.split(key)
    near = boxes_lib.jitter(jitter_key, boxes, **config.jitter)
    share = self_fed_share(step, **config.self_feeding)
    self_fed = jax.random.bernoulli(choice_key, share, (len(boxes),))

    def with_own():
      own = tracker.apply(
        jax.lax.stop_gradient(variables), frames, boxes[:, 0], method='follow'
      )
      return jnp.where(self_fed[:, None, None], own, near)

    found = jax.lax.cond(share > 0, with_own, lambda: near)
    search = jax.lax.stop_gradient(boxes_lib.search_boxes(found))
    codes = tracker.apply(variables, frames, search)
    wanted = boxes_lib.encode(boxes[:, 1:], search[:, 1:])
    errors = jnp.minimum(jnp.abs(codes - wanted), boxes_lib.FARTHEST)
    means = jnp.mean(errors, axis=-1)
    loss = masking.share_of_mean(means, jnp.ones_like(means), counts)
    metrics = Metrics.single_from_model_output(
      error=means,
      centre=jnp.mean(errors[..., :2], axis=-1),
      size=jnp.mean(errors[..., 2:], axis=-1),
      self_fed=self_fed.astype(jnp.float32),
    )
    return loss, (metrics, {})

  return loss_fn
