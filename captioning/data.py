"""Data sets of captioned images, by name, through TensorFlow Datasets.

  'scenes'                 the embedded synthetic images; see scenes.py
  'captioned_images/NAME'  what scripts/prepare_captions.py prepared as NAME
  'coco_captions'          COCO 2014 with Karpathy's splits

Each has the splits 'train', 'validation' and 'test'. Records are read at random
from ArrayRecord files, without TensorFlow (only `coco_captions` imports it).
"""

import hashlib
import io
import json
import os
import pathlib
import re
import types
from collections.abc import Sequence
from typing import Any

import tensorflow_datasets as tfds

from captioning import judge as judge_lib
from captioning import scenes
from captioning import sources
from training import datasets

# Our name of a split -> the names of its parts in the data sets.
_SPLITS = {
  'train': ('train', 'restval'),
  'validation': ('validation', 'val'),
  'test': ('test',),
}
_PREPARE_COCO = (
  'python -c "import tensorflow_datasets as tfds; tfds.builder('
  "'coco_captions', data_dir={data_dir!r}, file_format='array_record'"
  ').download_and_prepare()"'
)
_PREPARE_IMAGES = (
  'python scripts/prepare_captions.py --name={name} --data_dir={data_dir} '
  '--images=... --captions=...'
)


class CaptionedImages(tfds.core.GeneratorBasedBuilder):
  """Image files of a directory, stored as they are, with their captions."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'Initial release.'}

  def __init__(self, *, files: Sequence[sources.CaptionedFile] = (), **kwargs):
    """Takes the files to prepare; none are needed to read."""
    super().__init__(**kwargs)
    self._files = files

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=__doc__,
      features=tfds.features.FeaturesDict(
        {
          'id': tfds.features.Text(),
          'image': tfds.features.Image(),
          'captions': tfds.features.Sequence(tfds.features.Text()),
        }
      ),
      metadata=tfds.core.MetadataDict(),
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager):
    del dl_manager
    present = {file.split for file in self._files}
    return {
      split: self._generate_examples(split)
      for split in _SPLITS
      if split in present
    }

  def _generate_examples(self, split: str):
    digest = hashlib.sha256()
    for file in self._files:
      if file.split != split:
        continue
      contents = file.path.read_bytes()
      digest.update(contents)
      digest.update(json.dumps([file.id, file.captions]).encode())
      yield (
        file.id,
        {
          'id': file.id,
          'image': io.BytesIO(contents),
          'captions': file.captions,
        },
      )
    self.info.metadata[split] = digest.hexdigest()


def prepare(
  name: str,
  files: Sequence[sources.CaptionedFile],
  data_dir: str | os.PathLike | None = None,
):
  """Writes `files` as the data set 'captioned_images/NAME'.

  It appears under its name once it is complete, or not at all.
  """
  datasets.prepare_new(_images_builder(name, data_dir, files=files))


class Split:
  """Random access to the records of a split; threads may share it.

  A record is `id` str, `image` bytes (an encoded file) and `captions`
  list[str].
  """

  def __init__(self, source: Sequence[dict[str, Any]]):
    """Takes a data source of TFDS whose images are not decoded."""
    self._source = source

  def __len__(self) -> int:
    """The number of images."""
    return len(self._source)

  def __getitem__(self, index: int) -> dict[str, Any]:
    """The record of image `index`."""
    if not 0 <= index < len(self):
      raise IndexError(index)  # Which ends a loop over all.
    record = self._source[index]
    captions = record['captions']
    if 'image/id' in record:  # COCO
      record_id, captions = str(record['image/id']), captions['text']
    else:
      record_id = record['id'].decode()
    return {
      'id': record_id,
      'image': record['image'],
      'captions': [caption.decode() for caption in captions],
    }


def open_split(
  name: str, split: str, data_dir: str | os.PathLike | None = None
) -> Split:
  """Opens a split of a data set; `scenes` are drawn on first use.

  Args:
    name: 'scenes', 'captioned_images/NAME' or 'coco_captions'.
    split: 'train', 'validation' or 'test'.
    data_dir: directory of TFDS's data sets; None is its own default.
  """
  if split not in _SPLITS:
    raise ValueError(f'split={split!r} must be one of {", ".join(_SPLITS)}')
  builder = _open(name, data_dir)
  parts = [part for part in _SPLITS[split] if part in builder.info.splits]
  if not parts:
    raise ValueError(
      f'{name} has no split {split!r}, only {", ".join(builder.info.splits)}'
    )
  return Split(
    builder.as_data_source(
      '+'.join(parts), decoders={'image': tfds.decode.SkipDecoding()}
    )
  )


def generated(name: str, split: str, count: int) -> list[dict[str, Any]]:
  """Some records of an embedded data set, without preparing it.

  Args:
    name: 'scenes'.
    split: 'train', 'validation' or 'test'.
    count: number of records, which are evenly spaced in the split.

  Raises:
    ValueError: the data set is not embedded.
  """
  if name != 'scenes':
    raise ValueError(f'{name} cannot be generated: only scenes can')
  step = scenes.SPLITS[split] // count
  return [scenes.record(split, i * step) for i in range(count)]


def fingerprint(name: str, data_dir: str | os.PathLike | None = None) -> str:
  """A hash of the contents of a data set: sixteen letters and digits."""
  return datasets.fingerprint(_open(name, data_dir))


def directory(
  name: str, data_dir: str | os.PathLike | None = None
) -> pathlib.Path:
  """The directory of a prepared data set, and of files derived from it."""
  return pathlib.Path(_open(name, data_dir).data_path)


def judge(name: str) -> types.ModuleType | None:
  """The module that says which captions of a data set are true, or None."""
  return judge_lib if name == 'scenes' else None


def _images_builder(name: str, data_dir, **kwargs) -> CaptionedImages:
  if not re.fullmatch(r'[A-Za-z]\w*', name, re.ASCII):
    raise ValueError(
      f'name={name!r} must be a letter, then letters, digits or underscores'
    )
  config = tfds.core.BuilderConfig(name=name)
  return CaptionedImages(config=config, data_dir=data_dir, **kwargs)


def _open(name: str, data_dir) -> tfds.core.DatasetBuilder:
  """The builder of a data set that is prepared and complete."""
  kind, _, config = name.partition('/')
  if name == 'scenes':
    builder = scenes.Scenes(data_dir=data_dir)
    if not builder.data_path.exists():
      datasets.prepare(builder)
      builder = scenes.Scenes(data_dir=data_dir)
    return builder
  if name == 'coco_captions':
    builder = datasets.published(name, data_dir)
    command = _PREPARE_COCO
  elif kind == 'captioned_images':
    builder = _images_builder(config, data_dir)
    command = _PREPARE_IMAGES
  else:
    raise ValueError(
      f'{name!r} is no data set: pass scenes, captioned_images/NAME or '
      'coco_captions'
    )
  if not builder.data_path.exists():
    root = os.fspath(builder.data_dir_root)
    raise FileNotFoundError(
      f'{name} is not in {root}: prepare it with\n'
      f'  {command.format(name=config, data_dir=root)}'
    )
  return builder
