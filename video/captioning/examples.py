"""Turns records of captioned clips into examples of fixed shapes.

With `cache_features` a published encoder runs once over every frame, and
training reads its features.

Axes: L frames, H, W pixels, D features, K captions of a clip, W words.
"""

import dataclasses
import json
import pathlib
import zlib
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging

from captioning import earlier
from captioning import feature_cache
from captioning import rewards
from captioning import vocabulary as vocabulary_lib
from training import app
from training import batching
from training import checkpoints
from training import features
from training import parallel
from video import data
from video import encoders
from video import sampling
from video.captioning import model
from video.synthetic import event_captions

# The fields of the records that training reads beside the features.
_RECORDS_FILE = 'records.json'
_SHARD_SIZE = 64  # Clips; an interrupted cache loses at most one shard.
NO_LABEL = -1  # Frame without a label.


@dataclasses.dataclass(frozen=True)
class Examples:
  """Makes examples for training and for evaluation.

  Attributes:
    vocabulary: of the captions.
    config:
      `num_frames`: L.
      `every`: stride of the sampled frames, at most L of them; 0 samples one
        frame from each of L equal parts of the clip.
      `jitter`: in training, random instead of fixed frames of these parts.
      `resize`, `crop`, `flip`: see `sampling.for_training`.
      `flip_events`: for `event_captions` alone: mirror half of the training
        clips left to right and half upside down, words and labels included.
      `captions_per_clip`, `max_length`: K, W.
    shuffled: shuffle the frames of each clip, in an order that depends on its
      id alone. Scores on such clips owe nothing to the order of frames.
  """

  vocabulary: vocabulary_lib.Vocabulary | None
  config: ml_collections.ConfigDict
  shuffled: bool = False

  def training(
    self, record: dict[str, Any], rng: np.random.Generator
  ) -> dict[str, np.ndarray]:
    """Returns a randomly cropped clip and K of its captions.

    Args:
      record: `id`, `captions`, optionally `frame_labels`, and either `frames`
        or `features` f16[N, D].
      rng: random generator of this example.

    Returns:
      `id`, `frames` uint8[L, H, W, C] or f16[L, D], `length` i32[], `tokens`
      i32[K, W], and `frame_labels` i32[L] if the record has them.
    """
    if 'features' in record:
      return self._example(record, record['features'], None, rng)
    if self.config.flip_events:
      for vertical in (False, True):
        if rng.random() < 0.5:
          record = event_captions.flip(record, vertical=vertical)
    indices = self.frame_indices(
      len(record['frames']), rng if self.config.jitter else None
    )
    clip = sampling.for_training(
      np.asarray(record['frames'][indices]),
      rng,
      resize=self.config.resize,
      crop=self.config.crop,
      flip=self.config.flip,
    )
    return self._example(record, clip, indices, rng)

  def evaluation(self, record: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns the centre crop and fixed captions; see `training`."""
    rng = np.random.default_rng(0)
    if 'features' in record:
      return self._example(record, record['features'], None, rng)
    indices = self.frame_indices(len(record['frames']))
    clip = self.crop(np.asarray(record['frames'][indices]))
    return self._example(record, clip, indices, rng)

  def clip(self, frames: Any) -> np.ndarray:
    """Samples and crops frames: uint8[T, ...] -> uint8[N, H, W, 3]."""
    return self.crop(np.asarray(frames[self.frame_indices(len(frames))]))

  def frame_indices(
    self, length: int, rng: np.random.Generator | None = None
  ) -> np.ndarray:
    """Indices of the frames that are sampled from a clip: i64[N], N <= L."""
    if not self.config.every:
      return sampling.spread(length, self.config.num_frames, rng)
    first = 0
    if rng is not None:
      first = rng.integers(min(self.config.every, length))
    indices = np.arange(first, length, self.config.every)
    return indices[: self.config.num_frames]

  def fit(self, clip: np.ndarray) -> dict[str, np.ndarray]:
    """Pads a clip to L frames: returns `frames` and `length`."""
    fitted, length = sampling.fit(clip, self.config.num_frames)
    return {'frames': fitted, 'length': np.array(length, np.int32)}

  def crop(self, frames: np.ndarray) -> np.ndarray:
    """Resizes and crops the centre: uint8[T, ..., 3] -> uint8[T, H, W, 3]."""
    return sampling.for_evaluation(
      frames, resize=self.config.resize, crop=self.config.crop
    )

  def _example(self, record, clip, indices, rng):
    tokens = vocabulary_lib.caption_tokens(
      record,
      self.vocabulary,
      captions_per_image=self.config.captions_per_clip,
      max_length=self.config.max_length,
      rng=rng,
    )
    labels = None
    if 'frame_labels' in record and indices is not None:
      labels = np.asarray(record['frame_labels'], np.int32)[indices]
    if self.shuffled:
      order = np.random.default_rng(zlib.crc32(record['id'].encode()))
      order = order.permutation(len(clip))
      clip = clip[order]
      labels = None if labels is None else labels[order]
    example = {'id': record['id'], **self.fit(clip), 'tokens': tokens}
    if labels is not None:
      missing = (0, self.config.num_frames - len(labels))
      example['frame_labels'] = np.pad(
        labels, missing, constant_values=NO_LABEL
      )
    return example


class WithFeatures:
  """Records without frames: `id`, `captions` and `features` f16[N, D]."""

  def __init__(self, records: list[dict[str, Any]], cached: features.Features):
    """Joins ids and captions with features of equal length and order."""
    self._records = records
    self._cached = cached

  def __len__(self) -> int:
    """The number of clips."""
    return len(self._records)

  def __getitem__(self, index: int) -> dict[str, Any]:
    """The record of clip `index`."""
    return {**self._records[index], 'features': self._cached[index]}


def open_split(
  config: ml_collections.ConfigDict, workdir: pathlib.Path, split: str
) -> batching.Source:
  """Opens the records of one split, with `features` if the run reads those.

  With `cache_features` missing features are computed now, once for all runs
  that share the data set, the encoder and the preprocessing.
  """
  records = data.open_split(config.data.name, split, config.data.data_dir)
  if not config.cache_features:
    return records
  key = feature_cache.key(
    config,
    earlier.save_encoder(config, workdir),
    fingerprint=data.fingerprint(config.data.name, config.data.data_dir),
    fields=('num_frames', 'every', 'resize', 'crop'),
  )
  data_directory = data.directory(config.data.name, config.data.data_dir)
  directory = feature_cache.split_directory(data_directory, key, split)
  cached = feature_cache.write(
    records,
    _encode(config, workdir),
    directory,
    key=key,
    batch_size=config.eval_batch_size,
    shard_size=_SHARD_SIZE,
    max_locations=config.data.num_frames,
  )
  path = directory / _RECORDS_FILE
  if jax.process_index() == 0 and not path.exists():
    # Once: every record holds all frames of its clip.
    checkpoints.write_json(
      path,
      [
        {field: record[field] for field in ('id', 'captions')}
        for record in (records[i] for i in range(len(records)))
      ],
    )
  parallel.wait_for_all(f'records of {split}')
  return WithFeatures(json.loads(path.read_text()), cached)


def make_examples(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  training: batching.Source,
) -> Examples:
  """Returns examples with the vocabulary of the workdir.

  A new workdir gets the vocabulary of the run that `start_from` names, or one
  that is built from the captions of `training`.
  """
  path = workdir / vocabulary_lib.FILE
  if path.exists():
    vocabulary = vocabulary_lib.Vocabulary.load(path)
  else:
    if config.start_from:
      vocabulary = earlier.load_vocabulary(config)
    else:
      captions = (
        c for i in range(len(training)) for c in training[i]['captions']
      )
      vocabulary = vocabulary_lib.Vocabulary.build(
        captions,
        threshold=config.data.vocabulary_threshold,
        tokenizer=config.data.tokenizer,
      )
    vocabulary_lib.check_tokenizer(vocabulary, config.data.tokenizer)
    workdir.mkdir(parents=True, exist_ok=True)
    if jax.process_index() == 0:
      vocabulary.save(path)
  logging.info('Vocabulary of %d words.', len(vocabulary))
  return Examples(vocabulary, config.data)


def count_frequencies(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  training: batching.Source,
  vocabulary: vocabulary_lib.Vocabulary,
) -> rewards.Frequencies:
  """Document frequencies of the training split, for self-critical training.

  With `flip_events` they are those of the captions as they are stored.

  Args:
    config: `data`.
    workdir: see `rewards.count_split`.
    training: the training split.
    vocabulary: of the captioner.
  """
  return rewards.count_split(
    data.directory(config.data.name, config.data.data_dir),
    (training[i]['captions'] for i in range(len(training))),
    fingerprint=data.fingerprint(config.data.name, config.data.data_dir),
    vocabulary=vocabulary,
    max_length=config.data.max_length,
    workdir=workdir,
  )


def encode_step(config: ml_collections.ConfigDict, encoder: Any) -> Callable:
  """Returns a function from frames uint8[B, L, H, W, 3] to f32[B, L, D].

  Args:
    config: of the run.
    encoder: variables of the ResNet.
  """
  network = model.create_encoder(config)
  variables = parallel.replicate(encoder)

  def encode(variables, batch):
    frames = batch['frames']
    flat = frames.reshape(-1, *frames.shape[2:])
    _, pooled = network.apply(variables, encoders.normalize(flat), train=False)
    return pooled.reshape(*frames.shape[:2], -1)

  step = parallel.map_devices(encode)
  return lambda frames: step(variables, parallel.shard({'frames': frames}))


def encode_clips(
  step: Callable, examples: Examples, clips: list[np.ndarray], size: int
) -> list[np.ndarray]:
  """Features f32[N, D] of each of at most `size` clips uint8[N, H, W, 3].

  Args:
    step: returned by `encode_step`.
    examples: pads the clips.
    clips: returned by `Examples.clip`.
    size: batch size of the step, a multiple of the devices.
  """
  batch = np.stack([examples.fit(clip)['frames'] for clip in clips])
  padding = [(0, size - len(clips))] + [(0, 0)] * 4
  encoded = step(np.pad(batch, padding))
  return [
    rows[: len(clip)]
    for rows, clip in zip(encoded[: len(clips)], clips, strict=True)
  ]


def _encode(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> Callable[[list[dict[str, Any]]], list[np.ndarray]]:
  """Returns a function from records to a list of features f32[N, D]."""
  variables = feature_cache.load_encoder(config, workdir)
  step = encode_step(config, variables)
  size = parallel.local_batch_size(config.eval_batch_size)
  examples = Examples(None, config.data)

  def encode_records(records):
    app.raise_if_stopping()
    clips = [examples.clip(record['frames']) for record in records]
    return encode_clips(step, examples, clips, size)

  return encode_records
