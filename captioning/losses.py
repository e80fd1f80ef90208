"""The loss of training: one function for each paper, and `create` adds them up.

Axes: B images, K captions of an image, T words, L locations, V vocabulary,
C concepts.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from captioning import model
from captioning import self_critical
from captioning import vocabulary as vocabulary_lib
from recurrent import likelihood
from recurrent import masking

_REDUCTIONS = {'sum': jnp.sum, 'mean': jnp.mean}


def cross_entropy(logits: jax.Array, tokens: jax.Array) -> jax.Array:
  """-log p(S_t | I, S_0, ..., S_{t-1}) of each word S_t of a caption of I.

  Equations 1 and 2 of Vinyals et al. 2015 (Show and Tell) maximise the sum of
  log p over the words: f32[B, K, T, V], i32[B, K, T] -> f32[B, K, T].
  """
  return likelihood.cross_entropy(logits, tokens)


def smoothed_cross_entropy(
  logits: jax.Array, tokens: jax.Array, smoothing: float
) -> jax.Array:
  """(1 - s) * -log p(S_t) + s / V * sum_v -log p(v), with s = `smoothing`.

  Label smoothing, section 7 of Szegedy et al. 2016; shapes as for
  `cross_entropy`. Luo's published code spreads s over the V - 1 other words,
  s / (V - 1) each: the same with s * V / (V - 1) here. It also subtracts the
  entropy of this target, a constant.
  """
  return likelihood.cross_entropy(logits, tokens, smoothing=smoothing)


def doubly_stochastic_penalty(
  attention: jax.Array,
  mask: jax.Array,
  num_locations: jax.Array | None,
  *,
  reduction: str,
) -> jax.Array:
  """sum_i (1 - sum_t alpha_ti)^2 of each caption: f32[B, K].

  Equation 14 of Xu et al. 2015: in the course of a caption every location i
  should receive a weight of 1.

  Args:
    attention: f32[B, K, T, L], alpha.
    mask: bool[B, K, T], False on padding.
    num_locations: i32[B], number of real locations; None if all L are.
    reduction: over the locations: 'sum' as in the paper, or 'mean'.
  """
  totals = jnp.sum(attention * mask[..., None], axis=2)
  real = None
  if num_locations is not None:
    real = masking.lengths_to_mask(num_locations, totals.shape[-1])[:, None]
  return _REDUCTIONS[reduction]((1 - totals) ** 2, axis=-1, where=real)


def hard_attention_loss(
  y: dict[str, jax.Array],
  costs: jax.Array,
  mask: jax.Array,
  baseline: jax.Array,
  config: ml_collections.ConfigDict,
) -> tuple[jax.Array, jax.Array]:
  """lambda_r (c - b) log p(s) - lambda_e H[s] of each caption, and the new b.

  Its gradient is that of equation 12 of Xu et al. 2015: REINFORCE for the
  sampled locations s of a caption, and the entropy H of their distribution. As
  in the authors' published code the cost c is the mean of -log p over the
  words of the caption, and the baseline b is a moving average of c.

  Args:
    y: `log_chosen` (log p(s)) and `entropy` (H) of `ShowAttendTell`, each
      f32[B, K, T].
    costs: f32[B, K, T], -log p of each word.
    mask: bool[B, K, T], False on padding.
    baseline: f32[], b.
    config: `reinforce` (lambda_r), `entropy` (lambda_e) and `baseline_decay`.

  Returns:
    f32[B, K] and the baseline after this batch, f32[].
  """
  costs = jax.lax.stop_gradient(jnp.where(mask, costs, 0))
  cost = jnp.sum(costs, -1) / jnp.maximum(jnp.sum(mask, -1), 1)  # [B, K]
  chosen = jnp.sum(y['log_chosen'] * mask, -1)
  entropy = jnp.sum(y['entropy'] * mask, -1)
  losses = config.reinforce * (cost - baseline) * chosen
  losses -= config.entropy * entropy
  decay = config.baseline_decay
  return losses, decay * baseline + (1 - decay) * jnp.mean(cost)


def visual_words_loss(
  log_absent: jax.Array, tokens: jax.Array, concepts: np.ndarray
) -> jax.Array:
  """-sum_c log p(c is, or is not, in the captions of the image): f32[B].

  It trains the features directly, which through the recurrent network alone
  learn several times as slowly. Section 3 of Fang et al. 2015.

  Args:
    log_absent: f32[B, C], log-probability that a concept is not there.
    tokens: i32[B, K, T], the captions of each image.
    concepts: i32[V], the concept of each word; see concepts.py.
  """
  named = jnp.asarray(concepts)[tokens][..., None]
  present = jnp.any(named == jnp.arange(log_absent.shape[-1]), axis=(1, 2))
  # log(1 - exp(x)) has no gradient at x = 0.
  log_present = jnp.log(-jnp.expm1(jnp.minimum(log_absent, -1e-6)))
  return -jnp.sum(jnp.where(present, log_present, log_absent), axis=-1)


def sampling_probability(
  config: ml_collections.ConfigDict, step: jax.Array
) -> jax.Array:
  """The probability that scheduled sampling feeds a word of the model: f32[].

  Section 2.4 of Bengio et al. 2015, with a probability that grows linearly or
  in stairs:

    min(increase * floor((step - start) / every + 1), max_probability)

  from step `start` on, and 0 before.

  Args:
    config: `start`, `every`, `increase` and `max_probability`. `every=1` makes
      a linear schedule.
    step: i32[].
  """
  increases = jnp.maximum((step - config.start) // config.every + 1, 0)
  return jnp.minimum(config.increase * increases, config.max_probability)


def scheduled_inputs(
  captioner: model.Captioner,
  config: ml_collections.ConfigDict,
  variables: Any,
  batch: dict[str, jax.Array],
  step: jax.Array,
  key: jax.Array,
) -> jax.Array:
  """The words that scheduled sampling feeds the decoder: i32[B, K, T].

  Section 2.4 of Bengio et al. 2015: each is the word before of the caption, or
  with `sampling_probability` one that the model samples in its place.

  Args:
    captioner: the model.
    config: see `sampling_probability`.
    variables: of the captioner.
    batch: see `model.inputs`.
    step: i32[].
    key: of the samples.
  """
  sampling, dropout, attention = jax.random.split(key, 3)
  inputs, _ = captioner.apply(
    jax.lax.stop_gradient(variables),
    *model.inputs(batch),
    sampling_probability(config, step),
    sampling,
    method='mix',
    rngs={'dropout': dropout, 'attention': attention},
    mutable=[name for name in variables if name != 'params'],
  )
  return inputs


def counts(batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
  """The denominators of the means of the loss."""
  tokens = batch['tokens']
  return {
    'tokens': jnp.sum(tokens != vocabulary_lib.PAD_ID),
    'captions': jnp.asarray(tokens.shape[0] * tokens.shape[1]),
    'images': jnp.asarray(tokens.shape[0]),
  }


def initial_model_state(captioner: model.Captioner) -> dict[str, Any]:
  """Collections of variables that the loss needs beside the captioner's.

  For hard attention `baseline`: a moving average of the mean cost of a word.
  """
  if not getattr(captioner.decoder, 'hard', False):
    return {}
  return {'baseline': {'cost': jnp.zeros(())}}


def create(
  captioner: model.Captioner,
  config: ml_collections.ConfigDict,
  concepts: np.ndarray | None = None,
) -> Callable:
  """Returns the loss, as `parallel.train_step` takes it.

  It is the cross-entropy of the captions, teacher forced or with scheduled
  sampling; where the captioner attends, the doubly stochastic penalty; for hard
  attention REINFORCE; and the loss of the visual words.

  A batch with `advantage` holds samples, for self-critical training: label
  smoothing, scheduled sampling, hard attention's own REINFORCE and the visual
  words are left out.

  Args:
    captioner: the model.
    config: `per` ('caption' as in the paper, or 'token': the cross-entropy is
      averaged over these), `label_smoothing`, `attention_penalty` (the weight
      lambda of the doubly stochastic penalty), `penalty_reduction`,
      `visual_words` (the weight of `visual_words_loss`), `scheduled_sampling`
      and `hard_attention`. With `per='token'` REINFORCE
      has the weight of the gradient it estimates at reinforce=1, with 'caption'
      at the length of a caption, since its cost is that of a word.
    concepts: i32[V], if the captioner has `visual_words`.

  Raises:
    ValueError: an unknown option.
  """
  if config.per not in ('caption', 'token'):
    raise ValueError(f"loss.per={config.per!r} must be 'caption' or 'token'")
  if config.penalty_reduction not in _REDUCTIONS:
    raise ValueError(
      f'loss.penalty_reduction={config.penalty_reduction!r} is none of '
      f'{", ".join(_REDUCTIONS)}'
    )

  def loss_fn(variables, batch, counts, step, key):
    images_or_features, tokens, num_locations = model.inputs(batch)
    mask = tokens != vocabulary_lib.PAD_ID
    are_samples = 'advantage' in batch
    dropout, attention, scheduled = jax.random.split(key, 3)

    inputs = None
    if config.scheduled_sampling.max_probability and not are_samples:
      inputs = scheduled_inputs(
        captioner, config.scheduled_sampling, variables, batch, step, scheduled
      )
    (logits, y), updated = captioner.apply(
      variables,
      images_or_features,
      tokens,
      num_locations,
      inputs=inputs,
      train=True,
      rngs={'dropout': dropout, 'attention': attention},
      mutable=[name for name in variables if name != 'params'],
    )

    if are_samples:
      logits = self_critical.policy(logits)
    costs = cross_entropy(logits, tokens)
    losses = costs
    if are_samples:
      losses = self_critical.loss(
        costs, y.get('log_chosen', 0), batch['advantage']
      )
    elif config.label_smoothing:
      losses = smoothed_cross_entropy(logits, tokens, config.label_smoothing)
    loss = masking.share_of_mean(losses, mask, counts[f'{config.per}s'])

    if config.attention_penalty and 'attention' in y:
      penalty = doubly_stochastic_penalty(
        y['attention'], mask, num_locations, reduction=config.penalty_reduction
      )
      loss += config.attention_penalty * jnp.sum(penalty) / counts['captions']

    if 'log_absent' in y and not are_samples:
      words = visual_words_loss(y['log_absent'], tokens, concepts)
      loss += config.visual_words * jnp.sum(words) / counts['images']

    if 'log_chosen' in y and not are_samples:
      reinforce, baseline = hard_attention_loss(
        y, costs, mask, updated['baseline']['cost'], config.hard_attention
      )
      loss += jnp.sum(reinforce) / counts['captions']
      updated = {**updated, 'baseline': {'cost': baseline}}

    metrics = likelihood.token_metrics(costs, logits, tokens, mask)
    return loss, (metrics, updated)

  return loss_fn
