"""From a record of a data set to an example of fixed shapes.

Axes: H, W pixels, L locations, N locations of one picture where they vary in
number, D features, K captions of a picture, T words.
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
    """A randomly cropped picture, some of its captions in random order.

    Args:
      record: `id`, `captions` and `image`, or `grid` f16[L, D] if it is
        cached; with `max_locations` it is f16[N, D], and L is that number.
      rng: of this example alone.

    Returns:
      `id`, `picture` uint8[H, W, 3] or f16[L, D], `tokens` i32[K, T]; where
      locations vary in number, `num_locations` i32[] says how many of the L are
      real. The others are zeros.
    """
    if 'grid' in record:
      picture = record['grid']
    else:
      picture = images.for_training(
        images.decode(record['image']),
        rng,
        resize=self.config.resize,
        crop=self.config.crop,
        flip=self.config.flip,
      )
    return self._example(record, picture, rng)

  def evaluation(self, record: dict[str, Any]) -> dict[str, np.ndarray]:
    """The central crop and the same captions every time; see `training`."""
    picture = record['grid'] if 'grid' in record else self.picture(record)
    return self._example(record, picture, np.random.default_rng(0))

  def picture(self, record: dict[str, Any]) -> np.ndarray:
    """The central crop of `record['image']`: uint8[H, W, 3]."""
    return self.crop(images.decode(record['image']))

  def crop(self, picture: np.ndarray) -> np.ndarray:
    """The centre of a picture of any size: uint8[..., ..., 3] -> [H, W, 3]."""
    return images.for_evaluation(
      picture, resize=self.config.resize, crop=self.config.crop
    )

  def _example(self, record, picture, rng):
    tokens = vocabulary_lib.caption_tokens(
      record,
      self.vocabulary,
      captions_per_image=self.config.captions_per_image,
      max_length=self.config.max_length,
      rng=rng,
    )
    example = {'id': record['id'], 'picture': picture, 'tokens': tokens}
    if 'max_locations' in record:
      count = len(picture)
      missing = record['max_locations'] - count
      example['picture'] = np.pad(picture, [(0, missing), (0, 0)])
      example['num_locations'] = np.array(count, np.int32)
    return example
