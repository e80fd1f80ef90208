"""Examples of tracking: sequences of frames with a box in each.

Axes: T frames, H height, W width.
"""

from typing import Any

import ml_collections
import numpy as np

from training import batching
from video import data
from video.synthetic import occlusion_track
from video.synthetic import photo_track
from video.tracking import recorded


def open_split(config: ml_collections.ConfigDict, split: str):
  """The sequences of a split, all of one length and size.

  Raises:
    ValueError: no such data set, or one that cannot be generated.
  """
  fields = config.data
  if fields.name == 'photo_track':
    shape = dict(
      num_frames=fields.num_frames, height=fields.height, width=fields.width
    )
    generated = photo_track.PhotoTrack(
      split, count=fields.sequences[split], images=fields.images, **shape
    )
    if fields.tracks is None or split == 'test':
      return generated
    clips = recorded.RecordedClips(fields.tracks, split, **shape)
    return recorded.Mixture(generated, clips, fields.recorded)
  if fields.name.partition('/')[0] == 'occlusion_track':
    return data.open_split(fields.name, split, fields.data_dir)
  raise ValueError(
    f'data.name={fields.name!r} must be occlusion_track, '
    'occlusion_track/NAME or photo_track'
  )


def fingerprint(config: ml_collections.ConfigDict) -> str:
  """Sixteen hexadecimal digits that identify the contents of a data set."""
  if config.data.name == 'photo_track':
    # Recorded clips aside, which change neither the validation's images nor
    # the test.
    generated = config.copy_and_resolve_references()
    generated.data.tracks = None
    return photo_track.fingerprint(
      *(open_split(generated, split) for split in photo_track.SPLITS)
    )
  return data.fingerprint(config.data.name, config.data.data_dir)


def evaluation(record: dict[str, Any]) -> batching.Example:
  """The example of a record, without augmentation.

  Returns:
    `id`, `frames` uint8[T, H, W, 3], `boxes` f32[T, 4] and `hidden` bool[T].
  """
  return {
    'id': record['id'],
    'frames': np.asarray(record['frames']),
    'boxes': np.asarray(record['boxes'], np.float32),
    'hidden': np.asarray(record['hidden'], bool),
  }


def training(
  record: dict[str, Any], rng: np.random.Generator
) -> batching.Example:
  """The example of a record, flipped each way half of the time.

  Its colour channels are permuted too.
  """
  for vertical in (False, True):
    if rng.random() < 0.5:
      record = occlusion_track.flip(record, vertical=vertical)
  frames = np.asarray(record['frames'])[..., rng.permutation(3)]
  return evaluation({**record, 'frames': frames})
