"""Losses that train a classifier, and their metrics.

For clips x_1, ..., x_B of lengths T_b with classes y_b, `loss.kind` is

  clip    -1/B sum_b sum_k q_b(k) log p(k | x_b)
  frames  -1/sum_b T_b sum_b sum_{t <= T_b} sum_k q_b(k) log p_t(k | x_b)

where p is the softmax of the clip's logits and p_t that of a frame's (LRCN,
Donahue et al. 2015). The target is q_b(k) = (1 - s) [k = y_b] + s/V with label
smoothing s. For streams whose gestures z_b have no times it is

  ctc     -1/B sum_b log p(z_b | x_b)
          p(z | x) = sum_{pi: C(pi) = z} prod_t p_t(pi_t | x)

(connectionist temporal classification, Graves et al. 2006, equations 2 and 3):
the sum is over all labellings pi of the frames that C, which merges equal
neighbours and then removes blanks, maps to z.

Axes: B clips, T time, S gestures, V classes.
"""

from collections.abc import Callable

import clu.metrics
import flax
import jax
import jax.numpy as jnp
import ml_collections
import optax

from recurrent import likelihood
from recurrent import masking
from video.classification import examples
from video.classification import model

LOSSES = ('clip', 'frames', 'ctc')


@flax.struct.dataclass
class Metrics(clu.metrics.Collection):
  """Means over the clips of the training batches."""

  loss: clu.metrics.Average.from_output('loss')
  accuracy: clu.metrics.Average.from_output('accuracy')


def counts(batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
  """The denominators of the losses: B and the sum of the lengths."""
  return {
    'clips': jnp.asarray(len(batch['length'])),
    'frames': jnp.sum(batch['length']),
  }


def recorded(batch: dict[str, jax.Array]) -> jax.Array:
  """The frames of a batch, or its features."""
  return batch['frames'] if 'frames' in batch else batch['features']


def ctc(
  frame_logits: jax.Array, lengths: jax.Array, labels: jax.Array
) -> jax.Array:
  """-log p(z | x) of each stream, in nats: f32[B].

  Args:
    frame_logits: f32[B, T, V]; class 0 is the blank.
    lengths: i32[B], number of real frames, at most T.
    labels: i32[B, S], gestures in order, then `PAD`.
  """
  real = masking.lengths_to_mask(lengths, frame_logits.shape[1])
  absent = labels == examples.PAD
  return optax.ctc_loss(
    frame_logits,
    1.0 - real,
    jnp.where(absent, model.BLANK, labels),
    absent.astype(jnp.float32),
    blank_id=model.BLANK,
  )


def create(
  classifier: model.Classifier, config: ml_collections.ConfigDict
) -> Callable:
  """Returns the loss in the form of `parallel.train_step`.

  Args:
    classifier: the network.
    config: `kind`, one of `LOSSES`; `label_smoothing` (s) of the
      cross-entropies; and `framewise_steps`: for 'ctc', number of first steps
      that use the frames' cross-entropy with `framewise` instead. From random
      parameters CTC alone hardly leaves its plateau.

  Raises:
    ValueError: `kind` is unknown.
  """
  if config.kind not in LOSSES:
    raise ValueError(
      f'loss.kind={config.kind!r} is none of {", ".join(LOSSES)}'
    )

  def mean_over_frames(frame_logits, targets, lengths, count):
    """The share of the mean over all frames, and each clip's mean f32[B]."""
    mask = masking.lengths_to_mask(lengths, frame_logits.shape[1])
    costs = likelihood.cross_entropy(
      frame_logits, targets, smoothing=config.label_smoothing
    )
    each = jnp.sum(jnp.where(mask, costs, 0), axis=1)
    each = each / jnp.maximum(lengths, 1)
    return masking.share_of_mean(costs, mask, count), each

  def loss_fn(variables, batch, counts, step, key):
    lengths = batch['length']
    collections = [name for name in variables if name != 'params']
    (logits, frame_logits), updated = classifier.apply(
      variables,
      recorded(batch),
      lengths,
      train=True,
      rngs={'dropout': key},
      mutable=collections,
    )
    every = jnp.ones(len(lengths), bool)
    if config.kind == 'clip':
      each = likelihood.cross_entropy(
        logits, batch['label'], smoothing=config.label_smoothing
      )
      loss = masking.share_of_mean(each, every, counts['clips'])
    elif config.kind == 'frames':
      targets = jnp.broadcast_to(
        batch['label'][:, None], frame_logits.shape[:2]
      )
      loss, each = mean_over_frames(
        frame_logits, targets, lengths, counts['frames']
      )
    else:

      def framewise(frame_logits):
        targets = batch['framewise']
        return mean_over_frames(
          frame_logits, targets, lengths, counts['frames']
        )

      def connectionist(frame_logits):
        each = ctc(frame_logits, lengths, batch['labels'])
        return masking.share_of_mean(each, every, counts['clips']), each

      loss, each = jax.lax.cond(
        step < config.framewise_steps, framewise, connectionist, frame_logits
      )

    if 'label' in batch:
      right = jnp.argmax(logits, -1) == batch['label']
    else:
      mask = masking.lengths_to_mask(lengths, frame_logits.shape[1])
      right = (jnp.argmax(frame_logits, -1) == batch['framewise']) & mask
      right = jnp.sum(right, axis=1) / jnp.maximum(lengths, 1)
    metrics = Metrics.single_from_model_output(loss=each, accuracy=right)
    return loss, (metrics, updated)

  return loss_fn
