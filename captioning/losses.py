"""What training minimises: cross-entropy, and what papers add to it.

Axes: B images, K captions of an image, T words, L locations, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from captioning import model
from captioning import self_critical
from captioning import vocabulary as vocabulary_lib
from recurrent import likelihood
from recurrent import masking


def counts(batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
  """What the means of the loss divide by."""
  tokens = batch['tokens']
  return {
    'tokens': jnp.sum(tokens != vocabulary_lib.PAD_ID),
    'captions': jnp.asarray(tokens.shape[0] * tokens.shape[1]),
  }


def initial_model_state(captioner: model.Captioner) -> dict[str, Any]:
  """Collections of variables that the loss needs beside the captioner's.

  For hard attention `baseline`: a moving average of the mean cost of a word.
  """
  if not getattr(captioner.decoder, 'hard', False):
    return {}
  return {'baseline': {'cost': jnp.zeros(())}}


def sampling_probability(
  config: ml_collections.ConfigDict, step: jax.Array
) -> jax.Array:
  """How often scheduled sampling feeds what the decoder drew: f32[].

  Args:
    config: at step `start`, and then `every` so many steps, the probability
      grows by `increase`, up to `max_probability`. `every=1` makes a linear
      schedule.
    step: i32[].
  """
  increases = jnp.maximum((step - config.start) // config.every + 1, 0)
  return jnp.minimum(config.increase * increases, config.max_probability)


def create(
  captioner: model.Captioner, config: ml_collections.ConfigDict
) -> Callable:
  """The loss, as `parallel.train_step` wants it.

  The cross-entropy of the captions, teacher forced, and with it

  - where the captioner attends, the doubly stochastic regularisation of Xu et
    al. 2015 (equation 14): every location should be looked at once in the
    course of a caption;
  - for hard attention REINFORCE and the entropy of the weights (equation 12 of
    the same paper);
  In self-critical training the captions are samples, each with an `advantage`
  that weighs its cross-entropy (and -log of the probability of the locations
  drawn for its words): the gradient of the expected reward (Rennie et al. 2017,
  equation 7). Label smoothing, scheduled sampling and hard attention's own
  REINFORCE have no part in it.

  Args:
    captioner: the model.
    config: `per` ('caption' as in the paper, or 'token': what the
      cross-entropy is averaged over), `label_smoothing`, `attention_penalty`
      (lambda) and `penalty_reduction` over locations ('sum' as in the paper,
      or 'mean'), `scheduled_sampling` (see `sampling_probability`) and
      `hard_attention`: the weights `reinforce` and `entropy`, and
      `baseline_decay`. With `per='token'` REINFORCE has the weight of the
      gradient it estimates at reinforce=1, with 'caption' at the length of a
      caption, since its cost is that of a word.

  Raises:
    ValueError: an unknown option.
  """
  if config.per not in ('caption', 'token'):
    raise ValueError(f"loss.per={config.per!r} must be 'caption' or 'token'")
  reductions = {'sum': jnp.sum, 'mean': jnp.mean}
  if config.penalty_reduction not in reductions:
    raise ValueError(
      f'loss.penalty_reduction={config.penalty_reduction!r} is none of '
      f'{", ".join(reductions)}'
    )
  reduce_locations = reductions[config.penalty_reduction]

  def loss_fn(variables, batch, counts, step, key):
    tokens, num_locations = batch['tokens'], batch.get('num_locations')
    mask = tokens != vocabulary_lib.PAD_ID
    collections = [name for name in variables if name != 'params']
    dropout, attention, mixing = jax.random.split(key, 3)
    rngs = {'dropout': dropout, 'attention': attention}
    samples = 'advantage' in batch
    inputs = None
    if config.scheduled_sampling.max_probability and not samples:
      inputs = _mixed_inputs(
        captioner, config.scheduled_sampling, variables, batch, step, mixing
      )
    (logits, y), updated = captioner.apply(
      variables,
      model.image_inputs(batch)[0],
      tokens,
      num_locations,
      inputs=inputs,
      train=True,
      rngs=rngs,
      mutable=collections,
    )
    if samples:
      logits = self_critical.policy(logits)
    costs = likelihood.cross_entropy(logits, tokens)
    if samples:
      losses = costs - y.get('log_chosen', 0)
      losses = losses * batch['advantage'][..., None]
    elif config.label_smoothing:
      losses = likelihood.cross_entropy(
        logits, tokens, smoothing=config.label_smoothing
      )
    else:
      losses = costs
    loss = masking.share_of_mean(losses, mask, counts[f'{config.per}s'])
    if config.attention_penalty and 'attention' in y:
      looked = jnp.sum(y['attention'] * mask[..., None], axis=2)
      real = None
      if num_locations is not None:
        real = masking.lengths_to_mask(num_locations, looked.shape[-1])[:, None]
      penalty = reduce_locations((1 - looked) ** 2, axis=-1, where=real)
      loss += config.attention_penalty * jnp.sum(penalty) / counts['captions']
    if 'log_chosen' in y and not samples:
      share, baseline = _hard_attention(
        y, costs, mask, counts, updated['baseline'], config.hard_attention
      )
      loss += share
      updated = {**updated, 'baseline': baseline}
    return loss, (
      likelihood.token_metrics(costs, logits, tokens, mask),
      updated,
    )

  return loss_fn


def _mixed_inputs(captioner, config, variables, batch, step, key):
  """The words fed under scheduled sampling: i32[B, K, T]."""
  probability = sampling_probability(config, step)
  draws, dropout, attention = jax.random.split(key, 3)
  mixed, _ = captioner.apply(
    jax.lax.stop_gradient(variables),
    model.image_inputs(batch)[0],
    batch['tokens'],
    batch.get('num_locations'),
    probability,
    draws,
    method='mix',
    rngs={'dropout': dropout, 'attention': attention},
    mutable=[name for name in variables if name != 'params'],
  )
  return mixed


def _hard_attention(y, costs, mask, counts, baseline, config):
  """REINFORCE for the locations drawn, and the new baseline.

  Equation 12 of Xu et al. 2015. As in the authors' published code the reward of
  a location is minus the mean cost of its caption's words, and what it is
  compared with is a moving average of that.

  Args:
    y: `log_chosen` and `entropy` f32[B, K, T] of `ShowAttendTell`.
    costs: f32[B, K, T], -log p of each word.
    mask: bool[B, K, T], False on padding.
    counts: of the global batch.
    baseline: `cost` f32[].
    config: `reinforce`, `entropy` and `baseline_decay`.

  Returns:
    The share of the loss and the baseline after this batch.
  """
  costs = jax.lax.stop_gradient(jnp.where(mask, costs, 0))
  cost = jnp.sum(costs, -1) / jnp.maximum(jnp.sum(mask, -1), 1)  # [B, K]
  chosen = jnp.sum(y['log_chosen'] * mask, -1)
  entropy = jnp.sum(y['entropy'] * mask, -1)
  loss = config.reinforce * (cost - baseline['cost']) * chosen
  loss -= config.entropy * entropy
  decay = config.baseline_decay
  moved = decay * baseline['cost'] + (1 - decay) * jnp.mean(cost)
  return jnp.sum(loss) / counts['captions'], {'cost': moved}
