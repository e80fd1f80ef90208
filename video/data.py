"""Data sets of frames, by name, through TensorFlow Datasets.

  'ordered_motion', 'gesture_stream', 'event_captions', 'occlusion_track'
                          SYNTHETIC, generated at first use
  'event_captions/pairs'  the same; in half of the clips two shapes move
  'occlusion_track/NAME'  SYNTHETIC over images of yours; so for the others
  'clips/NAME'            frames with a class
  'skeletons/NAME'        sequences of vectors with a class
  'captioned_clips/NAME'  frames with sentences
  'tracks/NAME'           frames with a box in each
  'ucf101'                UCF101 by TFDS, without groups: a tenth of the
                          training clips are for validation, of the same groups
                          as the others
  'davis'                 DAVIS 2017 by TFDS, frames with a box in each: see
                          `video.sources.davis`; without test

Data sets with a NAME are prepared by scripts/prepare_clips.py. A record is a
dict of `id` str and, depending on the kind of the data set,

  frames     uint8[T, H, W, C]; a `frames.Encoded`, which decodes on access, in
             data sets that were prepared from files
  features   f32[T, D]
  label      int, the index of the class in `class_names`
  labels     list[int], the classes in order of time (gesture_stream)
  framewise  i32[T] (gesture_stream); frame_labels i32[T] (event_captions)
  captions   list[str]
  boxes      f32[T, 4], x, y of the upper left corner, w, h, in pixels
  hidden     bool[T], whether the target is hidden
  group      str, the person or the recording; '' if unknown

Records are read with random access from ArrayRecord files. Only `ucf101` and
`davis` import TensorFlow.

Axes: T time, H height, W width, C channels, D features.
"""

import os
import pathlib
import re
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from training import datasets
from video import builders
from video import frames as frames_lib
from video.sources import clips
from video.sources import davis
from video.sources import fingertips
from video.sources import skeletons
from video.sources import tracks

# Data sets of TFDS -> config, note, arguments to prepare files instead.
_PUBLISHED = {
  'ucf101': (
    'ucf101_1_256',  # The first official split, 256 x 256 pixels.
    '7 GB; it runs a program called ffmpeg',
    '--layout=ucf101 --name=clips/ucf101 --input=UCF-101 '
    '--lists=ucfTrainTestlist',
  ),
  'davis': ('480p', 'less than 1 GB', '--name=tracks/otb --input=OTB100'),
}
_PREPARE_PUBLISHED = (
  'python -c "import tensorflow_datasets as tfds; tfds.builder('
  "'{kind}/{name}', data_dir={data_dir!r}, file_format='array_record'"
  ').download_and_prepare()"'
)
# Splits of UCF101: ours -> those of TFDS.
_SHARES = {'train': 'train[:90%]', 'validation': 'train[90%:]', 'test': 'test'}
# Variants of synthetic data sets -> arguments.
_VARIANTS = {'event_captions/pairs': {'pairs': 0.5}}
_PREPARE = (
  'python scripts/prepare_clips.py --name={kind}/{name} --data_dir={data_dir} '
  '--input=...'
)


def prepare(
  name: str,
  items: Sequence[clips.Clip | fingertips.Features | tracks.Track]
  | Mapping[str, Sequence[fingertips.Features]],
  data_dir: str | os.PathLike | None = None,
  *,
  resize: int | None = None,
  rate: float | None = None,
) -> list[str]:
  """Writes items that were read from files as the data set `name`.

  The data set appears under its name once it is complete, or not at all.

  Args:
    name: 'clips/NAME', 'captioned_clips/NAME', 'skeletons/NAME' or
      'tracks/NAME'.
    items: items of the kind that `name` needs, with unique ids. Classes are
      numbered in order of appearance. Or several data sets, by the ends of
      their names: `name`_fold1 for 'fold1', `name` for ''.
    data_dir: directory of the data sets; None for the default of TFDS.
    resize: short side of the frames of clips; None keeps their size.
    rate: approximate frames per second of clips in video files; None for all.

  Returns:
    The names of the data sets.

  Raises:
    FileExistsError: the data set exists already.
  """
  if isinstance(items, Mapping):
    return [
      written
      for end, part in items.items()
      for written in prepare(f'{name}_{end}' if end else name, part, data_dir)
    ]
  kind = _kind(name)
  if kind not in builders.PREPARED:
    raise ValueError(
      f'name={name!r} must be one of {", ".join(builders.PREPARED)}, a slash '
      'and a name'
    )
  options = {}
  if issubclass(builders.PREPARED[kind], builders.Stills):
    options = {'resize': resize, 'rate': rate}
  elif resize is not None or rate is not None:
    raise ValueError(f'resize and rate are for clips only, not for {name}')
  datasets.prepare_new(_builder(name, data_dir, items=items, **options))
  return [name]


def read_points(path: str | os.PathLike) -> np.ndarray:
  """Reads a recording of points as it would be prepared: f32[T, D].

  See `skeletons.read_points` for the forms of files, and the errors.
  """
  return skeletons.read_points(path)


def prepare_synthetic(
  name: str,
  images: str | os.PathLike,
  data_dir: str | os.PathLike | None = None,
):
  """Generates a SYNTHETIC data set with textures from images.

  Args:
    name: 'occlusion_track/NAME', or the same for another synthetic data set.
    images: directory of the images.
    data_dir: directory of the data sets; None for the default of TFDS.

  Raises:
    FileExistsError: the data set exists already.
  """
  kind, _, config = name.partition('/')
  if kind not in builders.SYNTHETIC or not config or name in _VARIANTS:
    raise ValueError(
      f'name={name!r} must be one of {", ".join(builders.SYNTHETIC)}, a slash '
      f'and a name other than {", ".join(_VARIANTS)}'
    )
  arguments = {'images': os.fspath(images)}
  datasets.prepare_new(_builder(name, data_dir, arguments=arguments))


# Reading.


class Split:
  """Random access to the records of a split; threads may share it."""

  def __init__(
    self, source: Sequence[dict[str, Any]], *, name: str, channels: int | None
  ):
    """Wraps a data source of TFDS.

    Args:
      source: the records, with encoded images.
      name: prefix of the ids of records that have none.
      channels: channels of encoded frames; None if frames are not encoded.
    """
    self._source = source
    self._name = name
    self._channels = channels

  def __len__(self) -> int:
    """The number of records."""
    return len(self._source)

  def __getitem__(self, index: int) -> dict[str, Any]:
    """Record `index`; see the module for its fields."""
    if not 0 <= index < len(self):
      raise IndexError(index)  # Ends a loop over all records.
    record = dict(self._source[index])
    if 'video' in record:  # UCF101 of TFDS.
      record['frames'] = record.pop('video')
      record['id'] = f'{self._name}-{index:05d}'.encode()
    if self._channels is not None:
      record['frames'] = frames_lib.Encoded(
        record['frames'], channels=self._channels
      )
    return {key: _as_python(key, value) for key, value in record.items()}

  def __iter__(self) -> Iterator[dict[str, Any]]:
    """All records in order."""
    return (self[i] for i in range(len(self)))


def open_split(
  name: str, split: str, data_dir: str | os.PathLike | None = None
) -> Split | davis.Tracks:
  """Opens a split; generates a synthetic data set at first use.

  Args:
    name: name of a data set, see the module.
    split: 'train', 'validation' or 'test'; or a sum, 'train+validation'.
    data_dir: directory of the data sets; None for the default of TFDS.

  Raises:
    ValueError: no such kind of data set, or no such split.
    FileNotFoundError: the data set was not prepared.
  """
  parts = split.split('+')
  if not set(parts) <= set(clips.SPLITS) or len(set(parts)) < len(parts):
    raise ValueError(
      f'split={split!r} must be one of {", ".join(clips.SPLITS)}, or several '
      'with + between them'
    )
  builder = _open(name, data_dir)
  present = _splits(name, builder)
  for part in parts:
    if part not in present:
      raise ValueError(
        f'{name} has no split {part!r}, only {", ".join(present)}'
      )
  stored = '+'.join(present[part] for part in parts)
  if _kind(name) == 'davis':
    decoders = {'frames': _AsStored(), 'segmentations': _AsStored()}
    return davis.Tracks(
      builder.as_data_source(stored, decoders={'video': decoders})
    )
  channels, decoders = None, None
  for key, feature in builder.info.features.items():
    # A video of TFDS is a sequence of images too.
    if key in ('frames', 'video') and isinstance(
      feature, tfds.features.Sequence
    ):
      channels = int((builder.info.metadata or {}).get('channels', 3))
      decoders = {key: _AsStored()}
  source = builder.as_data_source(stored, decoders=decoders)
  return Split(source, name=f'{name}-{split}', channels=channels)


def generated(name: str, split: str, count: int) -> list[dict[str, Any]]:
  """Some records of a SYNTHETIC data set, without preparing it.

  Args:
    name: name of a data set, see the module.
    split: 'train', 'validation' or 'test'.
    count: number of records, which are evenly spaced in the split.

  Raises:
    ValueError: the data set is not generated.
  """
  kind = _kind(name)
  if kind not in builders.SYNTHETIC or (kind != name and name not in _VARIANTS):
    raise ValueError(
      f'{name} cannot be generated: only {", ".join(builders.SYNTHETIC)} can'
    )
  module = builders.SYNTHETIC[kind].module
  arguments = _VARIANTS.get(name, {})
  step = module.SIZES[split] // count
  return [module.example(split, i * step, **arguments) for i in range(count)]


def splits(
  name: str, data_dir: str | os.PathLike | None = None
) -> tuple[str, ...]:
  """The splits of a data set, of 'train', 'validation' and 'test'."""
  return tuple(_splits(name, _open(name, data_dir)))


def class_names(
  name: str, data_dir: str | os.PathLike | None = None
) -> tuple[str, ...]:
  """The names of the classes by label; empty without labels."""
  builder = _open(name, data_dir)
  if isinstance(builder, builders.Synthetic):
    return tuple(getattr(builder.module, 'CLASSES', ()))
  features = builder.info.features
  return tuple(features['label'].names) if 'label' in features else ()


def rate(name: str, data_dir: str | os.PathLike | None = None) -> float | None:
  """Frames per second that were kept of video files; None for all."""
  return (_open(name, data_dir).info.metadata or {}).get('rate')


def fingerprint(name: str, data_dir: str | os.PathLike | None = None) -> str:
  """Sixteen hexadecimal digits that identify the contents of a data set."""
  return datasets.fingerprint(_open(name, data_dir))


def directory(
  name: str, data_dir: str | os.PathLike | None = None
) -> pathlib.Path:
  """The directory of a prepared data set, and of what is derived from it."""
  return pathlib.Path(_open(name, data_dir).data_path)


def _kind(name: str) -> str:
  return name.partition('/')[0]


def _splits(name: str, builder: tfds.core.DatasetBuilder) -> dict[str, str]:
  """The splits of a data set -> the stored splits of TFDS."""
  if _kind(name) == 'ucf101':
    return _SHARES
  present = builder.info.splits
  return {split: split for split in clips.SPLITS if split in present}


class _AsStored(tfds.decode.SkipDecoding):
  """`SkipDecoding`, for the images of a sequence too."""

  def decode_batch_example_np(self, serialized_example):
    return serialized_example


def _as_python(key: str, value: Any) -> Any:
  if key in ('id', 'group'):
    return value.decode()
  if key == 'captions':
    return [caption.decode() for caption in value]
  if key == 'label':
    return int(value)
  if key == 'labels':
    return [int(label) for label in value]
  return value


def _builder(name: str, data_dir, **kwargs) -> tfds.core.DatasetBuilder:
  """The builder of a data set that need not exist."""
  kind, slash, config = name.partition('/')
  if slash and not re.fullmatch(r'[A-Za-z]\w*', config, re.ASCII):
    raise ValueError(
      f'{config!r} must be a letter, then letters, digits or underscores'
    )
  known = builders.SYNTHETIC | builders.PREPARED
  if kind not in known or (kind in builders.PREPARED and not slash):
    raise ValueError(
      f'{name!r} is no data set: pass {", ".join(builders.SYNTHETIC)}, '
      f'{", ".join(f"{kind}/NAME" for kind in builders.PREPARED)}, '
      f'{" or ".join(_PUBLISHED)}'
    )
  if slash:
    kwargs['config'] = tfds.core.BuilderConfig(name=config)
  return known[kind](data_dir=data_dir, **kwargs)


def _open(name: str, data_dir) -> tfds.core.DatasetBuilder:
  """The builder of a data set that exists and is complete."""
  kind, _, config = name.partition('/')
  if kind in _PUBLISHED:
    usual, note, _ = _PUBLISHED[kind]
    config = config or usual
    builder = _published(kind, config, data_dir)
    command = f'{_PREPARE_PUBLISHED}\n({note})'
  else:
    builder = _builder(name, data_dir)
    command = _PREPARE
    if kind in builders.SYNTHETIC and (not config or name in _VARIANTS):
      if not builder.data_path.exists():
        arguments = _VARIANTS.get(name, {})
        datasets.prepare(_builder(name, data_dir, arguments=arguments))
        builder = _builder(name, data_dir)
      return builder
    if kind in builders.SYNTHETIC:
      command = command.replace('--input', '--images')
  if not builder.data_path.exists():
    root = os.fspath(builder.data_dir_root)
    command = command.format(kind=kind, name=config, data_dir=root)
    raise FileNotFoundError(
      f'{name} is not in {root}: prepare it with\n  {command}'
    )
  return builder


def _published(kind: str, config: str, data_dir) -> tfds.core.DatasetBuilder:
  try:
    return datasets.published(f'{kind}/{config}', data_dir)
  except ImportError as error:
    raise ImportError(
      f'{error}, or prepare files of yours with\n'
      f'  python scripts/prepare_clips.py {_PUBLISHED[kind][2]}'
    ) from error
