"""The loss that trains a video captioner.

For a clip x with captions y_1, ..., y_W, each ending with EOS, the loss is the
negative log-likelihood per word, teacher forced:

  L_words = -1/N sum_{clips, captions, t} sum_w q_t(w) log p(w | y_<t, x)

N counts the words of all captions, each with its EOS. The target is
q_t(w) = (1 - s) [w = y_t] + s/V with label smoothing s; s = 0 gives the
log-likelihood itself. A captioner that also labels the frames (labels
l_1, ..., l_L) adds, with weight lambda,

  L = L_words - lambda/M sum_{clips, i} log p(l_i | x)

where M counts the frames that have a label.

A batch with `advantage` holds K sampled captions of each clip, for
self-critical training: L_words is then the loss of captioning/self_critical.py,
its sum over words divided by the number of captions, and has no smoothing.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections

from captioning import self_critical
from captioning import vocabulary as vocabulary_lib
from recurrent import likelihood
from recurrent import masking
from video.captioning import examples as examples_lib
from video.captioning import model


def counts(batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
  """The denominators of the loss: N, the captions and, with labels, M."""
  tokens = batch['tokens']
  result = {
    'tokens': jnp.sum(tokens != vocabulary_lib.PAD_ID),
    'captions': jnp.asarray(tokens.shape[0] * tokens.shape[1]),
  }
  if 'frame_labels' in batch:
    labelled = batch['frame_labels'] != examples_lib.NO_LABEL
    result['frames'] = jnp.sum(labelled)
  return result


def create(
  captioner: model.Captioner, config: ml_collections.ConfigDict
) -> Callable:
  """Returns the loss in the form of `parallel.train_step`.

  Args:
    captioner: the network.
    config: `label_smoothing` (s) and `frame_labels` (lambda).
  """

  def loss_fn(variables, batch, counts, step, key):
    del step
    tokens = batch['tokens']
    mask = tokens != vocabulary_lib.PAD_ID
    (logits, y), updated = captioner.apply(
      variables,
      *model.inputs(batch),
      train=True,
      rngs={'dropout': key},
      mutable=[name for name in variables if name != 'params'],
    )
    if 'advantage' in batch:
      logits = self_critical.policy(logits)
      costs = likelihood.cross_entropy(logits, tokens)
      losses = self_critical.loss(costs, 0, batch['advantage'])
      loss = masking.share_of_mean(losses, mask, counts['captions'])
    else:
      costs = likelihood.cross_entropy(logits, tokens)
      losses = likelihood.cross_entropy(
        logits, tokens, smoothing=config.label_smoothing
      )
      loss = masking.share_of_mean(losses, mask, counts['tokens'])
    if captioner.frame_labels:
      labels = batch['frame_labels']
      labelled = labels != examples_lib.NO_LABEL
      frame_losses = likelihood.cross_entropy(
        y['frame_logits'], jnp.maximum(labels, 0)
      )
      loss += config.frame_labels * masking.share_of_mean(
        frame_losses, labelled, counts['frames']
      )
    return loss, (
      likelihood.token_metrics(costs, logits, tokens, mask),
      dict(updated),
    )

  return loss_fn
