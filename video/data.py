"""Data sets of frames, by name, through TensorFlow Datasets.

  'ordered_motion', 'gesture_stream', 'event_captions', 'occlusion_track'
                          embedded and SYNTHETIC, drawn at first use; see there
  'event_captions/pairs'  the same, in half of the clips two shapes move
  'occlusion_track/NAME'  and so for the others: drawn over photographs
  'clips/NAME'            frames with a class
  'skeletons/NAME'        sequences of vectors with a class
  'captioned_clips/NAME'  frames with sentences
  'tracks/NAME'           frames with a box in each
  'ucf101'                UCF101 by TFDS, which does not say whose a clip is: a
                          tenth of the training clips are for validation, of
                          the same groups as the others
  'davis'                 DAVIS 2017 by TFDS, frames with a box in each: see
                          `video.sources.davis`; without test

What is called NAME was prepared by scripts/prepare_clips.py. A record is a dict
of `id` str and, by the kind of the data set,

  frames     uint8[T, H, W, C]; of prepared ones a `frames.Encoded`, which
             decodes those that are asked for
  features   f32[T, D]
  label      int; `class_names` says what it is
  labels     list[int], of what happens one after another (gesture_stream)
  framewise  i32[T] (gesture_stream); frame_labels i32[T] (event_captions)
  captions   list[str]
  boxes      f32[T, 4], x, y of the upper left corner, w, h, in pixels
  hidden     bool[T], of what the box is around
  group      str, who or what was filmed; '' where that is not known

Records are read at random from ArrayRecord files, without TensorFlow (only
`ucf101` and `davis` import it).

Axes: T time, H height, W width, C channels, D features.
"""

import os
import pathlib
import re
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import tensorflow_datasets as tfds

from training import datasets
from video import builders
from video import frames as frames_lib
from video.sources import clips
from video.sources import davis
from video.sources import fingertips
from video.sources import otb

# Of TFDS -> the config, what else to know of it, what to prepare instead.
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
# Of UCF101 by TFDS: our splits -> its own.
_SHARES = {'train': 'train[:90%]', 'validation': 'train[90%:]', 'test': 'test'}
# Drawn at first use too -> how.
_VARIANTS = {'event_captions/pairs': {'pairs': 0.5}}
_PREPARE = (
  'python scripts/prepare_clips.py --name={kind}/{name} --data_dir={data_dir} '
  '--input=...'
)


def prepare(
  name: str,
  items: Sequence[clips.Clip | fingertips.Features | otb.Track],
  data_dir: str | os.PathLike | None = None,
  *,
  resize: int | None = None,
  rate: float | None = None,
):
  """Writes what was read from files as the data set `name`.

  It appears under its name once it is complete, or not at all.

  Args:
    name: 'clips/NAME', 'captioned_clips/NAME', 'skeletons/NAME' or
      'tracks/NAME'.
    items: of the kind that is read for it, with different ids. Classes are
      numbered in the order in which they come.
    data_dir: where TFDS keeps its data sets; None is its own default.
    resize: of clips, the short side of the frames; None stores them as large
      as they are.
    rate: of clips in video files, frames per second, about; None stores all.

  Raises:
    FileExistsError: it is there already.
  """
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


def draw(
  name: str,
  images: str | os.PathLike,
  data_dir: str | os.PathLike | None = None,
):
  """Draws a SYNTHETIC data set with textures from photographs.

  Args:
    name: 'occlusion_track/NAME', and so for the others that are drawn.
    images: directory of pictures.
    data_dir: where TFDS keeps its data sets; None is its own default.

  Raises:
    FileExistsError: it is there already.
  """
  kind, _, config = name.partition('/')
  if kind not in builders.DRAWN or not config or name in _VARIANTS:
    raise ValueError(
      f'name={name!r} must be one of {", ".join(builders.DRAWN)}, a slash and '
      f'a name other than {", ".join(_VARIANTS)}'
    )
  arguments = {'images': os.fspath(images)}
  datasets.prepare_new(_builder(name, data_dir, arguments=arguments))


# Reading.


class Split:
  """Random access to the records of a split; threads may share it."""

  def __init__(
    self, source: Sequence[dict[str, Any]], *, name: str, channels: int | None
  ):
    """Takes a data source of TFDS.

    Args:
      source: the records; what is an encoded picture is not decoded.
      name: of records that have no id.
      channels: of frames that are encoded pictures; None where there are none.
    """
    self._source = source
    self._name = name
    self._channels = channels

  def __len__(self) -> int:
    """The number of records."""
    return len(self._source)

  def __getitem__(self, index: int) -> dict[str, Any]:
    """Record `index`; see the module for what it holds."""
    if not 0 <= index < len(self):
      raise IndexError(index)  # Which ends a loop over all.
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
  """Opens a split of a data set; what is embedded is drawn at first use.

  Args:
    name: one of those that the module lists.
    split: 'train', 'validation' or 'test'; or a sum, 'train+validation'.
    data_dir: where TFDS keeps its data sets; None is its own default.
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
    # A video of TFDS is a sequence of pictures as well.
    if key in ('frames', 'video') and isinstance(
      feature, tfds.features.Sequence
    ):
      channels = int((builder.info.metadata or {}).get('channels', 3))
      decoders = {key: _AsStored()}
  source = builder.as_data_source(stored, decoders=decoders)
  return Split(source, name=f'{name}-{split}', channels=channels)


def splits(
  name: str, data_dir: str | os.PathLike | None = None
) -> tuple[str, ...]:
  """Those that a data set has, of 'train', 'validation' and 'test'."""
  return tuple(_splits(name, _open(name, data_dir)))


def class_names(
  name: str, data_dir: str | os.PathLike | None = None
) -> tuple[str, ...]:
  """What labels are called, by number; nothing where there are none."""
  builder = _open(name, data_dir)
  if isinstance(builder, builders.Drawn):
    return tuple(getattr(builder.module, 'CLASSES', ()))
  features = builder.info.features
  return tuple(features['label'].names) if 'label' in features else ()


def rate(name: str, data_dir: str | os.PathLike | None = None) -> float | None:
  """Frames per second to which video files were thinned; None for all."""
  return (_open(name, data_dir).info.metadata or {}).get('rate')


def fingerprint(name: str, data_dir: str | os.PathLike | None = None) -> str:
  """Sixteen letters and digits that say which contents a data set has."""
  return datasets.fingerprint(_open(name, data_dir))


def directory(
  name: str, data_dir: str | os.PathLike | None = None
) -> pathlib.Path:
  """Where a prepared data set lies; what is derived from it may lie there."""
  return pathlib.Path(_open(name, data_dir).data_path)


def _kind(name: str) -> str:
  return name.partition('/')[0]


def _splits(name: str, builder: tfds.core.DatasetBuilder) -> dict[str, str]:
  """Those that a data set has -> what of its stored splits they are."""
  if _kind(name) == 'ucf101':
    return _SHARES
  present = builder.info.splits
  return {split: split for split in clips.SPLITS if split in present}


class _AsStored(tfds.decode.SkipDecoding):
  """`SkipDecoding`, for the pictures of a sequence as well."""

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
  """The builder of a data set that may not be there yet."""
  kind, slash, config = name.partition('/')
  if slash and not re.fullmatch(r'[A-Za-z]\w*', config, re.ASCII):
    raise ValueError(
      f'{config!r} must be a letter, then letters, digits or underscores'
    )
  known = builders.DRAWN | builders.PREPARED
  if kind not in known or (kind in builders.PREPARED and not slash):
    raise ValueError(
      f'{name!r} is no data set: pass {", ".join(builders.DRAWN)}, '
      f'{", ".join(f"{kind}/NAME" for kind in builders.PREPARED)}, '
      f'{" or ".join(_PUBLISHED)}'
    )
  if slash:
    kwargs['config'] = tfds.core.BuilderConfig(name=config)
  return known[kind](data_dir=data_dir, **kwargs)


def _open(name: str, data_dir) -> tfds.core.DatasetBuilder:
  """The builder of a data set that is there and complete."""
  kind, _, config = name.partition('/')
  if kind in _PUBLISHED:
    usual, note, _ = _PUBLISHED[kind]
    config = config or usual
    builder = _published(kind, config, data_dir)
    command = f'{_PREPARE_PUBLISHED}\n({note})'
  else:
    builder = _builder(name, data_dir)
    command = _PREPARE
    if kind in builders.DRAWN and (not config or name in _VARIANTS):
      if not builder.data_path.exists():
        arguments = _VARIANTS.get(name, {})
        datasets.prepare(_builder(name, data_dir, arguments=arguments))
        builder = _builder(name, data_dir)
      return builder
    if kind in builders.DRAWN:
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
    return tfds.builder(f'{kind}/{config}', data_dir=data_dir)
  except (ImportError, tfds.core.DatasetNotFoundError) as error:
    raise ImportError(
      f'{kind} of TensorFlow Datasets needs TensorFlow ({error}): install it, '
      'or prepare files of yours with\n'
      f'  python scripts/prepare_clips.py {_PUBLISHED[kind][2]}'
    ) from error
