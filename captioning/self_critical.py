"""Self-critical training: a captioner learns from its own captions' rewards.

The gradient of the expected reward is that of the mean over samples of
advantage * cross-entropy, where the advantage is the reward less a baseline
that does not depend on the sample (Rennie et al. 2017, equations 5 to 8). The
loss is teacher forcing as usual; this module makes the samples and advantages,
for captioners of images and of clips.

The gradient is that of the expected reward if all of this holds:

- The cross-entropy is that of the distribution that was sampled. It is the
  model's at temperature 1 without PAD and BOS, which no caption holds (a PAD
  in a sample would be masked); `policy` makes the logits of the one the
  logits of the other. UNK is a word: the published code samples it too, and
  rewards it where the references have a word that the vocabulary lacks.
- The sum over the words of a caption is divided by the number of captions. The
  published code divides by the number of all words.
- There is no dropout. With it, as in the published code, the samples are taken
  with dropout, but here the loss drops out other units than the sampling did.

Axes: B images or clips, b those of a part of a device's, S samples,
R references, T words, V vocabulary.
"""

import contextlib
import math
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from captioning import rewards as rewards_lib
from captioning import vocabulary as vocabulary_lib
from recurrent import search
from training import parallel

BASELINES = ('leave_one_out', 'greedy')
# No sample holds these.
_CONSTRAINTS = search.Constraints(
  forbidden=(vocabulary_lib.PAD_ID, vocabulary_lib.BOS_ID)
)


def policy(logits: jax.Array) -> jax.Array:
  """The model's logits -> those of the samples' distribution: f32[..., V]."""
  forbidden = np.isin(np.arange(logits.shape[-1]), _CONSTRAINTS.forbidden)
  # Finite, since a cross-entropy under the padding may be multiplied by zero.
  return jnp.where(forbidden, -1e9, logits)


def advantages(rewards: np.ndarray, greedy: np.ndarray | None) -> np.ndarray:
  """The rewards less their baselines: f[B, S], f[B] -> f32[B, S].

  Args:
    rewards: of the samples.
    greedy: rewards of the greedy captions, the baseline of Rennie et al. 2017;
      None for that of Luo 2020: the mean reward of the other samples.
  """
  rewards = np.asarray(rewards, np.float64)
  if greedy is not None:
    return (rewards - np.asarray(greedy)[:, None]).astype(np.float32)
  others = rewards.shape[1] - 1
  # A mean of differences, not a difference to a mean: equal rewards, however
  # they are rounded, give exactly zero.
  differences = rewards[:, :, None] - rewards[:, None, :]
  return (differences.sum(-1) / others).astype(np.float32)


def loss(
  costs: jax.Array, log_locations: jax.Array | float, advantage: jax.Array
) -> jax.Array:
  """-(r(w) - b) * log p(w_t) of each word w_t of a sampled caption w.

  Its gradient is equation 7 of Rennie et al. 2017, that of the expected reward.

  Args:
    costs: f32[B, K, T], -log p(w_t) under `policy`.
    log_locations: f32[B, K, T], log-probability of the location that hard
      attention sampled for the word, or 0.
    advantage: f32[B, K], the reward less the baseline, r(w) - b.

  Returns:
    f32[B, K, T].
  """
  return (costs - log_locations) * advantage[..., None]


def create(
  stack: contextlib.ExitStack,
  captioner: Any,
  frequencies: rewards_lib.Frequencies,
  config: ml_collections.ConfigDict,
  *,
  fields: Sequence[str],
  inputs: Callable[[dict[str, jax.Array]], tuple[Any, ...]],
) -> 'SelfCritical':
  """Creates the sampler of a config; its scorers end with the stack.

  Args:
    stack: of the run.
    captioner: see `SelfCritical`.
    frequencies: of the training split.
    config: `self_critical`, `data.max_length` and `seed`.
    fields: see `SelfCritical`.
    inputs: see `SelfCritical`.
  """
  scorer = rewards_lib.Rewards(
    frequencies,
    cider=config.self_critical.cider,
    bleu=config.self_critical.bleu,
    workers=config.self_critical.workers,
  )
  return SelfCritical(
    captioner,
    stack.enter_context(scorer),
    fields=fields,
    inputs=inputs,
    num_samples=config.self_critical.num_samples,
    baseline=config.self_critical.baseline,
    max_length=config.data.max_length,
    key=jax.random.key(config.seed + 2),
  )


class SelfCritical:
  """Samples captions for the images of a batch and has them scored."""

  def __init__(
    self,
    captioner: Any,
    rewards: rewards_lib.Rewards,
    *,
    fields: Sequence[str],
    inputs: Callable[[dict[str, jax.Array]], tuple[Any, ...]],
    num_samples: int,
    baseline: str,
    max_length: int,
    key: jax.Array,
    parts: int = 2,
  ):
    """Compiles nothing yet.

    Args:
      captioner: a module with `begin` and `step`, of images or of clips.
      rewards: scores captions on the host.
      fields: of a batch, those that the loss needs beside the samples.
      inputs: returns the arguments of `captioner.begin` for such fields; the
        first has the images or clips along its first axis.
      num_samples: S.
      baseline: one of `BASELINES`; see `advantages`.
      max_length: T of the samples.
      key: the same in every run that continues this one.
      parts: max number of parts of a batch: the host scores one while the
        devices sample the next.
    """
    if baseline not in BASELINES:
      raise ValueError(
        f'self_critical.baseline={baseline!r} is none of {", ".join(BASELINES)}'
      )
    min_samples = 2 if baseline == 'leave_one_out' else 1
    if num_samples < min_samples:
      raise ValueError(
        f'self_critical.num_samples={num_samples} must be at least '
        f'{min_samples} '
        f'for baseline={baseline!r}'
      )
    self._captioner = captioner
    self._fields = fields
    self._inputs = inputs
    self._rewards = rewards
    self._num_samples = num_samples
    self._greedy = baseline == 'greedy'
    self._max_length = max_length
    self._parts = parts
    self._key = parallel.replicate(key)
    self._sample = parallel.sample_step(self._sample_part)

  def __call__(
    self,
    variables: Any,
    host_batch: dict[str, np.ndarray],
    device_batch: dict[str, jax.Array],
    step: int,
  ) -> tuple[dict[str, jax.Array], dict[str, float]]:
    """The batch of samples to train on at this step.

    Args:
      variables: the parameters that are trained (not their average), and the
        other collections.
      host_batch: with `tokens` i32[B, R, T], the references.
      device_batch: the same batch from `parallel.shard`, with some of the
        fields.
      step: number of completed updates.

    Returns:
      The sharded batch: its fields, still on the devices, the samples `tokens`
      i32[B, S, T], and `advantage` f32[B, S]; and means for the log,
      of this host's share: `reward` of the samples, `baseline`, and `length` of
      the samples in words, EOS included.
    """
    images = {
      name: device_batch[name] for name in self._fields if name in device_batch
    }
    references = host_batch['tokens']
    devices = jax.local_device_count()
    references = references.reshape(devices, -1, *references.shape[1:])
    num_parts = self._num_parts(references.shape[1])
    # Nothing of this waits. All parts are sampled with the same parameters, as
    # otherwise a run that was stopped and resumed would differ from others.
    device_parts = [
      self._sample(variables, images, self._key, step, part)
      for part in range(num_parts)
    ]
    host_parts, pending = [], []
    for tokens, targets in zip(
      device_parts, np.split(references, num_parts, axis=1), strict=True
    ):
      tokens = jax.device_get(tokens)  # Waits for this part alone.
      host_parts.append(tokens)
      pending.append(self._rewards.submit(_joined(tokens), _joined(targets)))
    tokens = _joined(np.concatenate(host_parts, axis=1))
    scores = [
      part.result().reshape(part_tokens.shape[:3])
      for part, part_tokens in zip(pending, host_parts, strict=True)
    ]
    scores = _joined(np.concatenate(scores, axis=1))

    samples, rewards = (x[:, : self._num_samples] for x in (tokens, scores))
    greedy = scores[:, -1] if self._greedy else None
    lengths = np.sum(samples != vocabulary_lib.PAD_ID, axis=-1)
    means = {
      'reward': float(np.mean(rewards)),
      'baseline': float(np.mean(rewards if greedy is None else greedy)),
      'length': float(np.mean(lengths)),
    }
    batch = {'tokens': samples, 'advantage': advantages(rewards, greedy)}
    return {**images, **parallel.shard(batch)}, means

  def _num_parts(self, size: int) -> int:
    """The number of equal parts of a device's `size` images."""
    return math.gcd(self._parts, size)

  def _sample_part(self, variables, batch, part, key) -> jax.Array:
    """Samples captions; with the greedy baseline its captions follow them.

    Args:
      variables: of the captioner.
      batch: its fields, all of a device.
      part: i32[], index of the part to sample.
      key: of this part.

    Returns:
      i32[b, S, T] or i32[b, S + 1, T].
    """
    size = len(self._inputs(batch)[0])
    size //= self._num_parts(size)
    batch = jax.tree.map(
      lambda x: jax.lax.dynamic_slice_in_dim(x, part * size, size), batch
    )
    samples = self._search(
      variables, batch, key, captions=self._num_samples, train=True
    )
    if not self._greedy:
      return samples
    likeliest = self._search(variables, batch, key, captions=1, train=False)
    return jnp.concatenate([samples, likeliest], axis=1)

  def _search(
    self, variables, batch, key, *, captions: int, train: bool
  ) -> jax.Array:
    """Samples in training mode, takes the likeliest words otherwise."""
    sample_key, begin_key, step_key = jax.random.split(key, 3)
    # In training mode the encoder may update its statistics: only the loss
    # keeps them.
    (state, context), _ = self._captioner.apply(
      variables,
      *self._inputs(batch),
      train=train,
      rngs=_rngs(begin_key),
      mutable=[name for name in variables if name != 'params'],
      method='begin',
    )
    state = jax.tree.map(lambda x: jnp.repeat(x, captions, axis=1), state)
    shape = jax.tree.leaves(state)[0].shape[:2]

    def step(carry, tokens):
      state, time = carry
      state, logits = self._captioner.apply(
        variables,
        state,
        tokens,
        context,
        train=train,
        # Other units are dropped at every step.
        rngs=_rngs(jax.random.fold_in(step_key, time[0, 0])),
        method='step',
      )
      return (state, time + 1), logits

    return search.sample(
      step,
      (state, jnp.zeros(shape, jnp.int32)),
      bos=vocabulary_lib.BOS_ID,
      eos=vocabulary_lib.EOS_ID,
      max_length=self._max_length,
      key=sample_key,
      temperature=1.0 if train else 0.0,
      pad=vocabulary_lib.PAD_ID,
      constraints=_CONSTRAINTS,
    ).tokens


def _rngs(key: jax.Array) -> dict[str, jax.Array]:
  dropout, attention = jax.random.split(key)
  return {'dropout': dropout, 'attention': attention}


def _joined(x: np.ndarray) -> np.ndarray:
  """[devices, b, ...] -> [devices * b, ...]."""
  return x.reshape(-1, *x.shape[2:])
