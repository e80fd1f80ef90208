"""The data sets of frames as builders of TensorFlow Datasets.

Some are drawn, and SYNTHETIC; others are made of what the
readers in `video.sources` have read. `video.data` knows them by
name.

Axes: T time, H height, W width, C channels, D features.
"""

import hashlib
import io
import json
import types
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from video import frames as frames_lib
from video import sampling
from video.sources import clips
from video.sources import fingertips
from video.sources import otb
from video.synthetic import event_captions
from video.synthetic import gesture_stream
from video.synthetic import occlusion_track
from video.synthetic import ordered_motion

# Data sets that are drawn.


class Drawn(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """What is drawn by `module.example(split, index)`."""

  RELEASE_NOTES = {'1.0.0': 'Initial release.'}
  module: types.ModuleType

  def __init__(self, *, arguments: dict[str, Any] | None = None, **kwargs):
    """`arguments` of `example`; they make data sets that differ in config."""
    super().__init__(**kwargs)
    self._arguments = arguments or {}

  def _features(self) -> dict[str, tfds.features.FeatureConnector]:
    raise NotImplementedError

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=type(self).__doc__,
      features=tfds.features.FeaturesDict(
        {'id': tfds.features.Text(), **self._features()}
      ),
      metadata=tfds.core.MetadataDict(),
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager):
    del dl_manager
    return {
      split: self._generate_examples(split) for split in self.module.SIZES
    }

  def _generate_examples(self, split: str):
    digest = hashlib.sha256()
    for index in range(self.module.SIZES[split]):
      record = self.module.example(split, index, **self._arguments)
      _digest(digest, record)
      yield record['id'], record
    self.info.metadata[split] = digest.hexdigest()

  def _over_time(self, dtype, *shape: int) -> tfds.features.Tensor:
    return tfds.features.Tensor(
      shape=(self.module.LENGTH, *shape),
      dtype=dtype,
      encoding=tfds.features.Encoding.ZLIB,
    )

  def _frames(self, channels: int) -> tfds.features.Tensor:
    return self._over_time(
      np.uint8, self.module.SIDE, self.module.SIDE, channels
    )


class OrderedMotion(Drawn):
  """Clips of a digit that moves one way, then another. SYNTHETIC."""

  VERSION = tfds.core.Version(ordered_motion.VERSION)
  module = ordered_motion

  def _features(self):
    names = self.module.CLASSES
    return {
      'frames': self._frames(3),
      'label': tfds.features.ClassLabel(names=names),
    }


class GestureStream(Drawn):
  """Streams of a fingertip that makes three gestures. SYNTHETIC."""

  VERSION = tfds.core.Version(gesture_stream.VERSION)
  module = gesture_stream

  def _features(self):
    return {
      'frames': self._frames(1),
      'labels': tfds.features.Sequence(np.int32),
      'framewise': self._over_time(np.int32),
    }


class EventCaptions(Drawn):
  """Clips of shapes that move, with a sentence of a template. SYNTHETIC."""

  VERSION = tfds.core.Version(event_captions.VERSION)
  module = event_captions

  def _features(self):
    return {
      'frames': self._frames(3),
      'captions': tfds.features.Sequence(tfds.features.Text()),
      'frame_labels': self._over_time(np.int32),
    }


class OcclusionTrack(Drawn):
  """Clips of a thing that is lost to sight, with boxes. SYNTHETIC."""

  VERSION = tfds.core.Version(occlusion_track.VERSION)
  module = occlusion_track

  def _features(self):
    return {
      'frames': self._frames(3),
      'boxes': self._over_time(np.float32, 4),
      'hidden': self._over_time(np.bool_),
    }


DRAWN = {
  'ordered_motion': OrderedMotion,
  'gesture_stream': GestureStream,
  'event_captions': EventCaptions,
  'occlusion_track': OcclusionTrack,
}


# Data sets that are made of files.


class _Prepared(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """What is made of what was read from files."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'Initial release.'}

  def __init__(self, *, items: Sequence[Any] = (), **kwargs):
    """`items` are what is to be prepared; none are needed to read."""
    # In the order in which they come. TFDS asks for the features at once.
    self._names = list(dict.fromkeys(getattr(i, 'label', '') for i in items))
    self._items = items
    super().__init__(**kwargs)

  def _features(self) -> dict[str, tfds.features.FeatureConnector]:
    raise NotImplementedError

  def _contents(self, item: Any) -> dict[str, Any]:
    """All of a record but its `id`, as the features take it."""
    raise NotImplementedError

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=type(self).__doc__,
      features=tfds.features.FeaturesDict(
        {'id': tfds.features.Text(), **self._features()}
      ),
      metadata=tfds.core.MetadataDict(),
    )

  def _class_label(self) -> tfds.features.ClassLabel:
    """Where there are no items, TFDS reads the names from its files."""
    return tfds.features.ClassLabel(names=self._names or None)

  def _split_generators(self, dl_manager: tfds.download.DownloadManager):
    del dl_manager
    present = {item.split for item in self._items}
    return {
      split: self._generate_examples(split)
      for split in clips.SPLITS
      if split in present
    }

  def _generate_examples(self, split: str):
    digest = hashlib.sha256()
    for item in self._items:
      if item.split == split:
        record = {'id': item.id, **self._contents(item)}
        _digest(digest, record)
        if isinstance(record.get('frames'), list):
          record['frames'] = [io.BytesIO(file) for file in record['frames']]
        yield item.id, record
    self.info.metadata[split] = digest.hexdigest()


class Stills(_Prepared, skip_registration=True):
  """Frames are stored as PNG where nothing was lost before, else as JPEG."""

  def __init__(
    self, *, resize: int | None = None, rate: float | None = None, **kwargs
  ):
    """How to store them; see `prepare`."""
    super().__init__(**kwargs)
    self._resize, self._rate = resize, rate
    if rate is not None:
      self.info.metadata['rate'] = rate

  def _encoded(self, clip: clips.Clip) -> list[bytes]:
    lossless = True
    if isinstance(clip.frames, np.ndarray):
      decoded = iter(clip.frames)
    elif clip.frames.suffix.lower() in frames_lib.VIDEOS:
      lossless = False
      decoded = frames_lib.stream(clip.frames, rate=self._rate)
    else:
      lossless = clip.frames.is_file() or all(
        path.suffix.lower() not in ('.jpg', '.jpeg', '.webp')
        for path in frames_lib.image_paths(clip.frames)
      )
      decoded = iter(frames_lib.read(clip.frames))
    files = []
    for frame in decoded:
      channels = self.info.metadata.setdefault('channels', frame.shape[-1])
      if frame.shape[-1] != channels:
        raise ValueError(
          f'{clip.id} has {frame.shape[-1]} channels, others {channels}: '
          'prepare them as two data sets'
        )
      if self._resize is not None:
        frame = sampling.resize_short_side(frame[None], self._resize)[0]
      files.append(frames_lib.encode(frame, lossless=lossless))
    return files


class Clips(Stills):
  """Frames with a class."""

  def _features(self):
    return {
      'frames': _pictures(),
      'label': self._class_label(),
      'group': tfds.features.Text(),
    }

  def _contents(self, item: clips.Clip):
    return {
      'frames': self._encoded(item),
      'label': item.label,
      'group': item.group,
    }


class CaptionedClips(Stills):
  """Frames with what people wrote about them."""

  def _features(self):
    return {
      'frames': _pictures(),
      'captions': tfds.features.Sequence(tfds.features.Text()),
      'group': tfds.features.Text(),
    }

  def _contents(self, item: clips.Clip):
    return {
      'frames': self._encoded(item),
      'captions': list(item.captions),
      'group': item.group,
    }


class Skeletons(_Prepared):
  """Sequences of vectors with a class."""

  def _features(self):
    return {
      'features': tfds.features.Tensor(
        shape=(None, None),
        dtype=np.float32,
        encoding=tfds.features.Encoding.ZLIB,
      ),
      'label': self._class_label(),
      'group': tfds.features.Text(),
    }

  def _contents(self, item: fingertips.Features):
    return {
      'features': item.features,
      'label': item.label,
      'group': item.group,
    }


class Tracks(_Prepared):
  """Pictures, stored as they are, with a box in each."""

  def _features(self):
    return {
      'frames': _pictures(),
      'boxes': tfds.features.Tensor(shape=(None, 4), dtype=np.float32),
      'hidden': tfds.features.Tensor(shape=(None,), dtype=np.bool_),
    }

  def _contents(self, item: otb.Track):
    return {
      'frames': [path.read_bytes() for path in item.paths],
      'boxes': item.boxes,
      'hidden': item.hidden,
    }


PREPARED = {
  'clips': Clips,
  'captioned_clips': CaptionedClips,
  'skeletons': Skeletons,
  'tracks': Tracks,
}


def _pictures() -> tfds.features.Sequence:
  return tfds.features.Sequence(tfds.features.Image(shape=(None, None, None)))


def _digest(digest, record: dict[str, Any]):
  """Adds all of a record, in a way that does not depend on its storage."""
  for key in sorted(record):
    value = record[key]
    digest.update(key.encode())
    if isinstance(value, np.ndarray):
      digest.update(str((value.dtype, value.shape)).encode())
      digest.update(value.tobytes())
    elif key == 'frames':
      for file in value:
        digest.update(file)
    else:
      digest.update(json.dumps(value).encode())
