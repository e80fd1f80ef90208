"""Losses of the trackers.

Of a `model.Tracker`: the absolute error of the encoded boxes. For a box b and
the search box s around which the frame is searched,

  encode(b, s) = ((cx_b - cx_s) / w_s, (cy_b - cy_s) / h_s,
                  log(w_b / w_s), log(h_b / h_s)),

with the centre (cx, cy), the width w and the height h of a box. With the
outputs c of the network, the loss is the mean over B sequences, T - 1 frames
and the four numbers

  L = mean |c[i, t] - encode(b[i, t], s[i, t])|,  t = 2 .. T,

where an error of more than `boxes.MAX_OFFSET` counts as that much and has no
gradient: the target is lost. Re3 (Gordon, Farhadi and Fox 2018) minimises the
same L1 distance, of the corners of the box in the crop.

Of a `correlation.Tracker`: the cross-entropy of its certainty, as it runs from
the first box, with the truth that the target is visible and its box overlaps
the true one by more than `ON_TARGET`.

Axes: B sequences, T frames.
"""

import clu.metrics
import flax
import jax
import jax.numpy as jnp
import ml_collections
import optax

from recurrent import masking
from video.tracking import boxes as boxes_lib
from video.tracking import correlation
from video.tracking import model

ON_TARGET = 0.3  # A box with a larger overlap is on the target.


@flax.struct.dataclass
class CertaintyMetrics(clu.metrics.Collection):
  """Means over the frames of the training batches, without the first ones."""

  loss: clu.metrics.Average.from_output('loss')
  on_target: clu.metrics.Average.from_output('on_target')
  overlap: clu.metrics.Average.from_output('overlap')
  certainty: clu.metrics.Average.from_output('certainty')


@flax.struct.dataclass
class Metrics(clu.metrics.Collection):
  """Means over the frames of the training batches, without the first ones."""

  error: clu.metrics.Average.from_output('error')
  centre: clu.metrics.Average.from_output('centre')
  size: clu.metrics.Average.from_output('size')
  self_fed: clu.metrics.Average.from_output('self_fed')


def counts(batch: dict[str, jax.Array]) -> jax.Array:
  """The number of frames over which the loss is averaged."""
  sequences, frames = batch['boxes'].shape[:2]
  return jnp.asarray(sequences * (frames - 1))


def self_fed_share(
  step: jax.Array | int, *, start: int, ramp: int, max_share: float
) -> jax.Array:
  """The share of sequences whose search boxes are the tracker's own.

  Zero before `start`, then rising linearly over `ramp` steps to `max_share`.
  """
  return max_share * jnp.clip((step - start + 1) / max(ramp, 1), 0.0, 1.0)


def create(
  tracker: model.Tracker | correlation.Tracker,
  config: ml_collections.ConfigDict,
):
  """The loss function of a tracker, for `parallel.train_step`."""
  if isinstance(tracker, correlation.Tracker):
    return _of_certainty(tracker)
  return _of_boxes(tracker, config)


def on_target(
  boxes: jax.Array, truths: jax.Array, hidden: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Boxes that are on a visible target: bool[...], and overlaps f32[...]."""
  overlaps = boxes_lib.overlap(boxes, truths)
  return (overlaps > ON_TARGET) & ~hidden, overlaps


def _of_certainty(tracker: correlation.Tracker):
  """Cross-entropy of the certainty.

  Where the tracker goes has no gradient; where it goes wrong it learns to say
  so.
  """

  def loss_fn(variables, batch, counts, step, key):
    del step, key
    boxes, logits = tracker.apply(
      variables, batch['frames'], batch['boxes'][:, 0]
    )
    right, overlaps = on_target(boxes, batch['boxes'], batch['hidden'])
    right = right[:, 1:].astype(jnp.float32)
    losses = optax.sigmoid_binary_cross_entropy(logits[:, 1:], right)
    loss = masking.share_of_mean(losses, jnp.ones_like(losses), counts)
    metrics = CertaintyMetrics.single_from_model_output(
      loss=losses,
      on_target=right,
      overlap=overlaps[:, 1:],
      certainty=jax.nn.sigmoid(logits[:, 1:]),
    )
    state = {k: v for k, v in variables.items() if k != 'params'}
    return loss, (metrics, state)

  return loss_fn


def _of_boxes(tracker: model.Tracker, config: ml_collections.ConfigDict):
  """Error of the boxes.

  The search box of a frame is the true box of the previous frame, with errors
  of `boxes.jitter`. For a growing share of the sequences (a curriculum, as in
  Re3) it is the box that the tracker itself has found, from the first frame on.
  No gradient flows through the search boxes, so that the convolutions run over
  all frames at once.

  Args:
    tracker: the network.
    config: `jitter`, arguments of `boxes.jitter`, and `self_feeding`, arguments
      of `self_fed_share`.
  """

  def loss_fn(variables, batch, counts, step, key):
    frames, boxes = batch['frames'], batch['boxes']
    jitter_key, choice_key = jax.random.split(key)
    near = boxes_lib.jitter(jitter_key, boxes, **config.jitter)
    share = self_fed_share(step, **config.self_feeding)
    self_fed = jax.random.bernoulli(choice_key, share, (len(boxes),))

    def with_found():
      found = tracker.apply(
        jax.lax.stop_gradient(variables), frames, boxes[:, 0], method='follow'
      )
      return jnp.where(self_fed[:, None, None], found, near)

    found = jax.lax.cond(share > 0, with_found, lambda: near)
    search = jax.lax.stop_gradient(boxes_lib.search_boxes(found))
    codes = tracker.apply(variables, frames, search)
    wanted = boxes_lib.encode(boxes[:, 1:], search[:, 1:])
    errors = jnp.minimum(jnp.abs(codes - wanted), boxes_lib.MAX_OFFSET)
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
