"""Captions clips with a trained network.

  captioner = inference.load('runs/msvd')
  ((best, *others),) = captioner.caption([captioner.read('clip.mp4')])
  print(best.text, best.log_prob)

Axes: B clips, T frames of a file, L frames that the network reads (padded), N
of them that are real, K beams, W words.
"""

import dataclasses
import os
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
from configs import schema
from recurrent import decoder
from recurrent import search
from training import app
from training import batching
from training import checkpoints
from training import parallel
from training import prediction
from training import released
from video import frames as frames_lib
from video.captioning import examples as examples_lib
from video.captioning import model


@dataclasses.dataclass(frozen=True, eq=False)
class CaptionedClip:
  """The captions of a clip and the attention of the best one.

  Attributes:
    captions: beams, best first.
    times: f64[N], times of the frames that the network read, in seconds.
    attention: f32[W, N], weights over these frames for each word of the best
      caption, then for its EOS and padding; None if the decoder does not
      attend.
  """

  captions: list[vocabulary_lib.Caption]
  times: np.ndarray
  attention: np.ndarray | None

  def word_times(self) -> list[dict[str, Any]]:
    """The words of the best caption, and when each attends most.

    Raises:
      ValueError: the decoder does not attend.
    """
    if self.attention is None:
      raise ValueError('the decoder does not attend')
    # After the words come EOS and padding.
    pairs = zip(self.captions[0].words, self.attention, strict=False)
    return [
      {
        'word': word,
        'seconds': round(float(self.times[weights.argmax()]), 3),
        'weight': round(float(weights.max()), 4),
      }
      for word, weights in pairs
    ]


class Captioner:
  """Captions clips, in batches of one shape.

  Attributes:
    config: the run's config; `decoding` holds the settings that are used.
    vocabulary: of the network.
    network: the Flax module.
    variables: of the network, replicated over the devices.
    step: training step of the checkpoint.
    rate: frames per second to which video files are thinned; None for all.
  """

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    vocabulary: vocabulary_lib.Vocabulary,
    network: model.Captioner,
    variables: Any,
    *,
    encoder: Any = None,
    step: int = 0,
    rate: float | None = None,
  ):
    """Compiles on the first call.

    Args:
      config: of the run.
      vocabulary: of the network.
      network: the Flax module.
      variables: of the network.
      encoder: variables of the frozen encoder; None unless the network reads
        cached features.
      step: training step of the variables.
      rate: frames per second of the data set; None if nothing was thinned.
    """
    self.config = config
    self.vocabulary = vocabulary
    self.network = network
    self.variables = parallel.replicate(variables)
    self.step = step
    self.rate = rate
    self._examples = examples_lib.Examples(vocabulary, config.data)
    self._decode = decode_step(network, config.decoding, vocabulary)
    self._attend = None
    if network.decoder.attends:
      self._attend = attention_step(network)
    self._encode = None
    if config.cache_features:
      self._encode = examples_lib.encode_step(config, encoder)

  def read(self, path: str | os.PathLike) -> np.ndarray:
    """Reads a clip: uint8[T, H, W, C].

    Args:
      path: see `frames.read`; videos are thinned to `rate`.

    Raises:
      ValueError: the file is not a clip.
      OSError: the file cannot be read.
    """
    return frames_lib.read(path, rate=self.rate)

  def caption(
    self, clips: Sequence[np.ndarray]
  ) -> list[list[vocabulary_lib.Caption]]:
    """Returns the beams of each clip, best first.

    Args:
      clips: uint8[T, H, W, C] each; T, H and W may differ, C is 1 or 3.
    """
    batches = self._batches(clips)
    return decode(self._decode, self.variables, batches, self.vocabulary)

  def caption_with_attention(
    self, clips: Sequence[np.ndarray], rates: Sequence[float]
  ) -> list[CaptionedClip]:
    """Captions clips and reports which frames each word attends to.

    Args:
      clips: as for `caption`.
      rates: frames per second of each clip.
    """
    batches = list(batching.number(self._batches(clips)))
    beams = list(prediction.predict(self._decode, self.variables, batches))
    attention = [None] * len(clips)
    if self._attend is not None:
      best = iter([tokens[0] for tokens, _ in beams])
      forced = [
        {**batch, 'tokens': _pad(best, batch['mask'])[:, np.newaxis]}
        for batch in batches
      ]
      attention = prediction.predict(self._attend, self.variables, forced)
    results = []
    for clip, rate, found, weights in zip(
      clips, rates, beams, attention, strict=True
    ):
      times = self._examples.frame_indices(len(clip)) / rate
      if weights is not None:
        weights = np.asarray(weights)[:, : len(times)]
      captions = self.vocabulary.to_captions(*found)
      results.append(CaptionedClip(captions, times, weights))
    return results

  def _batches(self, clips) -> Iterator[dict[str, np.ndarray]]:
    """Yields batches of one clip per device."""
    size = jax.local_device_count()
    for start in range(0, len(clips), size):
      part = [self._preprocess(clip) for clip in clips[start : start + size]]
      if self._encode is not None:
        part = examples_lib.encode_clips(
          self._encode, self._examples, part, size
        )
      mask = np.arange(size) < len(part)
      fitted = (self._examples.fit(clip) for clip in part)
      yield {**_pad(fitted, mask), 'mask': mask}

  def _preprocess(self, clip: np.ndarray) -> np.ndarray:
    """Samples and crops the frames, in colour: uint8[N, H, W, 3]."""
    frames = self._examples.clip(clip)
    return np.broadcast_to(frames, (*frames.shape[:-1], 3))


def load(
  workdir: str | os.PathLike,
  *,
  decoding: Sequence[str] = (),
  min_beams: int = 1,
) -> Captioner:
  """Loads the best checkpoint of a run.

  Args:
    workdir: of the run, or the name of a released model, such as
      'event_captions'.
    decoding: FIELD=VALUE changes of the config's `decoding`.
    min_beams: smallest `beam_size` or number of samples, for callers that show
      several captions.

  Raises:
    FileNotFoundError: the workdir has no checkpoint.
    ValueError: `decoding` names no field, or the run is of another version.
  """
  workdir = released.resolve(workdir)
  config = app.read_config(workdir, schema.VIDEO_CAPTION)
  fields = app.change_fields(config.decoding, decoding, name='decoding')
  schema.check_decoding(fields)
  fields.beam_size = max(fields.beam_size, min_beams)
  if fields.temperature:
    fields.samples = max(fields.samples, min_beams)
  schema.check_decoding(fields)
  config.decoding = fields
  variables, extras, step = checkpoints.load(
    workdir, best_metric=config.best_metric, mode=config.best_mode
  )
  encoder = None
  if config.cache_features:
    encoder = feature_cache.load_encoder(config, workdir)
  vocabulary = vocabulary_lib.Vocabulary(
    extras['vocabulary'], config.data.tokenizer
  )
  return Captioner(
    config,
    vocabulary,
    model.create(config, len(vocabulary)),
    variables,
    encoder=encoder,
    step=step,
    rate=extras.get('rate'),
  )


def decode_step(
  network: model.Captioner,
  decoding: ml_collections.ConfigDict,
  vocabulary: vocabulary_lib.Vocabulary,
) -> Callable:
  """Returns the step of `decode`; it compiles once for each batch shape.

  Args:
    network: the Flax module.
    decoding: fields that `decoder.decode` and `Vocabulary.constraints`
      read.
    vocabulary: of the network.

  Returns:
    `(variables, batch) -> (tokens i32[B, K, W], log_probs f32[B, K])`: the
    beams or samples of each clip, best first, gathered from all hosts. For
    samples the batch has `index`; see `batching.number`.
  """
  constraints = search.Constraints(**vocabulary.constraints(decoding))

  def predict(variables, batch):
    found = decoder.decode(
      [network],
      [variables],
      (batch['frames'], batch['length']),
      decoding,
      bos=vocabulary_lib.BOS_ID,
      eos=vocabulary_lib.EOS_ID,
      constraints=constraints,
      index=batch.get('index'),
    )
    return found.tokens, found.log_probs

  return parallel.predict_step(predict)


def decode(
  step: Callable,
  variables: Any,
  batches: Iterable[dict[str, np.ndarray]],
  vocabulary: vocabulary_lib.Vocabulary,
) -> list[list[vocabulary_lib.Caption]]:
  """Returns the captions of each clip, best first, in order, on every host.

  Args:
    step: of `decode_step`.
    variables: of the network, replicated.
    batches: of `batching.evaluation_batches`: `frames`, `length`, `mask`.
    vocabulary: of the network.

  Raises:
    Stopped: SIGTERM came.
  """
  return [
    vocabulary.to_captions(*beams)
    for beams in prediction.predict(step, variables, batching.number(batches))
  ]


def attention_step(network: model.Captioner) -> Callable:
  """`(variables, batch) -> f32[B, W, L]`: attention of each of `tokens`."""

  def predict(variables, batch):
    _, y = network.apply(variables, *model.inputs(batch), train=False)
    return y['attention'][:, 0]

  return parallel.predict_step(predict)


def _pad(examples: Iterable[Any], mask: np.ndarray) -> Any:
  """Stacks the next examples, the last one repeated where `mask` is False."""
  examples = iter(examples)
  real = [next(examples) for _ in range(np.count_nonzero(mask))]
  padded = real + real[-1:] * (len(mask) - len(real))
  return jax.tree.map(lambda *x: np.stack(x), *padded)
