"""What training a classifier minimises, and what it reports of it.

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
  """What the means of the loss divide by."""
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
  """-log p(gestures), in nats, over all their alignments: f32[B].

  Args:
    frame_logits: f32[B, T, V], class 0 for no gesture.
    lengths: i32[B], how many of the T frames are real.
    labels: i32[B, S], the gestures in their order; the rest is `PAD`.
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
  """The loss, as `parallel.train_step` wants it.

  Args:
    classifier: the model.
    config: `kind`: 'clip', the cross-entropy of each clip's logits; 'frames',
      that of every frame, as published for LRCN; or 'ctc', for streams, with
      the cross-entropy of their frames (`framewise`) for the first
      `framewise_steps`: from random parameters CTC alone hardly leaves its
      plateau. And `label_smoothing` of the cross-entropies.

  Raises:
    ValueError: no such loss.
  """
  if config.kind not in LOSSES:
    raise ValueError(
      f'loss.kind={config.kind!r} is none of {", ".join(LOSSES)}'
    )

  def of_frames(frame_logits, targets, lengths, count):
    """The share of the mean over frames, and of each clip the mean: f32[B]."""
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
      loss, each = of_frames(frame_logits, targets, lengths, counts['frames'])
    else:

      def framewise(frame_logits):
        targets = batch['framewise']
        return of_frames(frame_logits, targets, lengths, counts['frames'])

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
