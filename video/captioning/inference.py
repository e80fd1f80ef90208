"""From a trained workdir, or a running training, to captions of clips.

Axes: B clips, L frames, K beams, W words, N frames of a clip that are seen.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from captioning import feature_cache
from captioning import vocabulary as vocabulary_lib
from recurrent import decoder
from recurrent import search
from training import app
from training import checkpoints
from training import parallel
from training import prediction
from video.captioning import examples
from video.captioning import model


@dataclasses.dataclass(frozen=True)
class Trained:
  """What a workdir holds: all that captioning needs."""

  config: ml_collections.ConfigDict
  vocabulary: vocabulary_lib.Vocabulary
  captioner: model.Captioner
  variables: Any
  step: int
  rate: float | None = None  # To which video files are thinned, frames/s.


def load(workdir: pathlib.Path) -> Trained:
  """The best checkpoint of a run.

  Raises:
    FileNotFoundError: nothing was trained there.
  """
  config = app.read_config(workdir)
  variables, extras, step = checkpoints.load(
    workdir, best_metric=config.best_metric, mode=config.best_mode
  )
  vocabulary = vocabulary_lib.Vocabulary(extras['vocabulary'])
  return Trained(
    config,
    vocabulary,
    model.create(config, len(vocabulary)),
    parallel.replicate(variables),
    step,
    extras.get('rate'),
  )


@dataclasses.dataclass(frozen=True, eq=False)
class Described:
  """What a captioner says of a clip.

  Attributes:
    captions: the best first.
    times: f64[N], when the frames that it saw are shown, in seconds.
    attention: f32[W, N], how much of each of these frames is in each word of
      the best caption, its end and padding included; None of a model that does
      not attend.
  """

  captions: list[vocabulary_lib.Caption]
  times: np.ndarray
  attention: np.ndarray | None


def describe_step(
  captioner: model.Captioner,
  decoding: ml_collections.ConfigDict,
  vocabulary: vocabulary_lib.Vocabulary,
) -> Callable:
  """A step for `describe`: compiled once, for one shape of batch.

  Args:
    captioner: the model.
    decoding: what `decoder.beam_search` and `Vocabulary.constraints` read.
    vocabulary: of the model.

  Returns:
    `(variables, batch) -> (tokens i32[B, K, W], log_probs f32[B, K])`, the
    beams of each clip, best first, gathered from all hosts.
  """
  constraints = search.Constraints(**vocabulary.constraints(decoding))

  def predict(variables, batch):
    found = decoder.beam_search(
      [captioner],
      [variables],
      (batch['frames'], batch['length']),
      decoding,
      bos=vocabulary_lib.BOS_ID,
      eos=vocabulary_lib.EOS_ID,
      constraints=constraints,
    )
    return found.tokens, found.log_probs

  return parallel.predict_step(predict)


def describe(
  step: Callable,
  variables: Any,
  batches: Iterable[dict[str, np.ndarray]],
  vocabulary: vocabulary_lib.Vocabulary,
) -> list[list[vocabulary_lib.Caption]]:
  """The captions of each clip, best first, in order, on every host.

  Args:
    step: of `describe_step`.
    variables: of the captioner.
    batches: of `batching.evaluation_batches`: `frames`, `length`, `mask`.
    vocabulary: numbers to words.
  """
  return [
    vocabulary.read(*beams)
    for beams in prediction.predict(step, variables, batches)
  ]


def attention_step(captioner: model.Captioner) -> Callable:
  """`(variables, batch) -> f32[B, W, L]`: where each of `tokens` looked."""

  def predict(variables, batch):
    _, y = captioner.apply(variables, *model.inputs(batch), train=False)
    return y['attention'][:, 0]

  return parallel.predict_step(predict)


class Describer:
  """Captions a person's own clips, in batches of one shape."""

  def __init__(
    self,
    workdir: pathlib.Path,
    trained: Trained,
    decoding: ml_collections.ConfigDict,
  ):
    """Takes what `load` returned of a workdir, and how to decode."""
    self._trained = trained
    self._examples = examples.Examples(trained.vocabulary, trained.config.data)
    self._describe = describe_step(
      trained.captioner, decoding, trained.vocabulary
    )
    self._attend = None
    if trained.captioner.decoder.attends:
      self._attend = attention_step(trained.captioner)
    self._encode = None
    if trained.config.cache_features:
      self._encode = examples.encode_step(
        trained.config,
        feature_cache.load_encoder(trained.config, workdir),
      )

  def captions(
    self, clips: list[np.ndarray]
  ) -> list[list[vocabulary_lib.Caption]]:
    """The beams for each of uint8[T, H, W, C], the best first."""
    return describe(
      self._describe,
      self._trained.variables,
      self._batches(clips),
      self._trained.vocabulary,
    )

  def describe(
    self, clips: list[np.ndarray], rates: Sequence[float]
  ) -> list[Described]:
    """The beams for each of uint8[T, H, W, C], and where the best one looked.

    Args:
      clips: of any lengths.
      rates: frames per second of each.
    """
    variables = self._trained.variables
    batches = list(self._batches(clips))
    beams = list(prediction.predict(self._describe, variables, batches))
    attention = [None] * len(clips)
    if self._attend is not None:
      best = iter([tokens[0] for tokens, _ in beams])
      told = [
        {**batch, 'tokens': _fill(batch['mask'], best)} for batch in batches
      ]
      attention = prediction.predict(self._attend, variables, told)
    described = []
    for clip, rate, found, weights in zip(
      clips, rates, beams, attention, strict=True
    ):
      times = self._examples.places(len(clip)) / rate
      if weights is not None:
        weights = np.asarray(weights)[:, : len(times)]
      captions = self._trained.vocabulary.read(*found)
      described.append(Described(captions, times, weights))
    return described

  def _batches(self, clips) -> Iterator[dict[str, np.ndarray]]:
    size = jax.local_device_count()
    for start in range(0, len(clips), size):
      part = [self._seen(clip) for clip in clips[start : start + size]]
      if self._encode is not None:
        part = examples.encode_clips(self._encode, self._examples, part, size)
      fitted = [self._examples.fit(clip) for clip in part]
      fitted += [fitted[-1]] * (size - len(part))
      batch = jax.tree.map(lambda *x: np.stack(x), *fitted)
      yield {**batch, 'mask': np.arange(size) < len(part)}

  def _seen(self, clip: np.ndarray) -> np.ndarray:
    """What the model sees of a clip, in colour: uint8[N, H, W, 3]."""
    frames = self._examples.clip(clip)
    return np.broadcast_to(frames, (*frames.shape[:-1], 3))


def _fill(mask: np.ndarray, captions: Iterator[np.ndarray]) -> np.ndarray:
  """The next captions i32[W] where there is a clip: i32[B, 1, W]."""
  some = [next(captions) for _ in range(np.count_nonzero(mask))]
  return np.stack(some + [some[-1]] * (len(mask) - len(some)))[:, np.newaxis]
