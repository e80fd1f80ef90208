"""Makes an example of fixed shapes from a record of a data set.

Axes: H, W pixels, L locations, N locations of one image where they vary in
number, D features, K captions of an image, T words.
"""

import dataclasses
from typing import Any

import ml_collections
import numpy as np

from captioning import vocabulary as vocabulary_lib
from vision import images


@dataclasses.dataclass(frozen=True)
class Examples:
  """Makes examples for training and for evaluation.

  Attributes:
    vocabulary: words to numbers.
    config: `resize`, `crop`, `flip`, `captions_per_image` and `max_length`.
  """

  vocabulary: vocabulary_lib.Vocabulary
  config: ml_collections.ConfigDict

  def training(
    self, record: dict[str, Any], rng: np.random.Generator
  ) -> dict[str, np.ndarray]:
    """A randomly cropped image, some of its captions in random order.

    Args:
      record: `id`, `captions` and `image` (a file's bytes), or also `features`
        f16[L, D]; with `max_locations` these are f16[N, D], and L is that
        number.
      rng: random generator of this example.

    Returns:
      `id`, `tokens` i32[K, T], and `image` uint8[H, W, 3] or `features`
      f16[L, D]. Where locations vary in number, `num_locations` i32[] is the
      number of real ones; the others are zeros.
    """
    if 'features' in record:
      return self._example(record, _features(record), rng)
    image = images.for_training(
      images.decode(record['image']),
      rng,
      resize=self.config.resize,
      crop=self.config.crop,
      flip=self.config.flip,
    )
    return self._example(record, {'image': image}, rng)

  def evaluation(self, record: dict[str, Any]) -> dict[str, np.ndarray]:
    """The central crop and the same captions every time; see `training`."""
    if 'features' in record:
      fields = _features(record)
    else:
      fields = {'image': self.image(record)}
    return self._example(record, fields, np.random.default_rng(0))

  def image(self, record: dict[str, Any]) -> np.ndarray:
    """The central crop of `record['image']`: uint8[H, W, 3]."""
    return self.crop(images.decode(record['image']))

  def crop(self, image: np.ndarray) -> np.ndarray:
    """The centre of an image of any size: uint8[..., ..., 3] -> [H, W, 3]."""
    return images.for_evaluation(
      image, resize=self.config.resize, crop=self.config.crop
    )

  def _example(self, record, fields, rng):
    tokens = vocabulary_lib.caption_tokens(
      record,
      self.vocabulary,
      captions_per_image=self.config.captions_per_image,
      max_length=self.config.max_length,
      rng=rng,
    )
    return {'id': record['id'], **fields, 'tokens': tokens}


def _features(record: dict[str, Any]) -> dict[str, np.ndarray]:
  """The features of a record, padded if locations vary in number."""
  features = record['features']
  if 'max_locations' not in record:
    return {'features': features}
  count = len(features)
  missing = record['max_locations'] - count
  return {
    'features': np.pad(features, [(0, missing), (0, 0)]),
    'num_locations': np.array(count, np.int32),
  }
