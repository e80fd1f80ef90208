"""Data sets of drawings, prepared once as ArrayRecord by TensorFlow Datasets.

  'kanji'                        the embedded data set; see kanji.py
  'quickdraw_sketches/CATEGORY'  one of the 345 categories of QuickDraw
  'sketches/NAME'                prepared by scripts/prepare_sketches.py

A record is `id` text, `strokes` f32[N, 3] and `category` text. The splits are
'train', 'validation' and 'test'. Drawings whose file has no splits are split by
the hash of their id: 80 % for training, 10 % for validation, 10 % for testing.
"""

import collections
import hashlib
import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from sketch_rnn import categories as categories_lib
from sketch_rnn import file_formats
from sketch_rnn import kanji
from training import datasets

SPLITS = ('train', 'validation', 'test')
QUICKDRAW_URL = 'https://storage.googleapis.com/quickdraw_dataset/sketchrnn/'
_PREPARE = (
  'python scripts/prepare_sketches.py --name={name} --data_dir={data_dir} '
  '--input=...'
)


class _Drawings(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """The base of the builders: the features, and how they are written."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'Initial release.'}

  def __init__(self, *, sketches: Sequence[file_formats.Sketch] = (), **kwargs):
    """Takes the drawings to prepare; none are needed to read."""
    super().__init__(**kwargs)
    self._sketches = sketches

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=type(self).__doc__,
      features=tfds.features.FeaturesDict(
        {
          'id': tfds.features.Text(),
          'strokes': tfds.features.Tensor(shape=(None, 3), dtype=np.float32),
          'category': tfds.features.Text(),
        }
      ),
      metadata=tfds.core.MetadataDict(),
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager):
    del dl_manager
    return self._by_split(self._sketches)

  def _by_split(self, sketches: Iterable[file_formats.Sketch]):
    parts = collections.defaultdict(list)
    for sketch in sketches:
      parts[split_of(sketch)].append(sketch)
    return {
      split: self._generate_examples(split, parts[split])
      for split in SPLITS
      if parts[split]
    }

  def _generate_examples(self, split: str, sketches: list[file_formats.Sketch]):
    digest = hashlib.sha256()
    for sketch in sketches:
      digest.update(sketch.strokes.tobytes())
      digest.update(json.dumps([sketch.id, sketch.category]).encode())
      yield (
        sketch.id,
        {
          'id': sketch.id,
          'strokes': sketch.strokes,
          'category': sketch.category,
        },
      )
    self.info.metadata[split] = digest.hexdigest()


class Sketches(_Drawings):
  """Drawings from files."""


class QuickdrawSketches(_Drawings):
  """One category of the QuickDraw data, as published for Sketch-RNN.

  70000 drawings to train on, 2500 for validation, 2500 for testing; Google,
  licence CC BY 4.0. They are downloaded unless drawings are passed.
  """

  def _split_generators(self, dl_manager: tfds.download.DownloadManager):
    if self._sketches:
      return self._by_split(self._sketches)
    category = self.builder_config.name.replace('_', ' ')
    url = f'{QUICKDRAW_URL}{urllib.parse.quote(category)}.npz'
    _check_reachable(url)
    path = dl_manager.download(url)
    return self._by_split(
      file_formats.Sketch(
        f'{category}-{sketch.split}-{i:05d}',
        sketch.strokes,
        category,
        sketch.split,
      )
      # A few of the published drawings are malformed.
      for i, sketch in enumerate(file_formats.read(path, skip_bad=True))
    )


class Kanji(_Drawings):
  """Japanese characters, stroke by stroke, one drawing each.

  From KanjiVG, copyright Ulrich Apel, licence CC BY-SA 3.0,
  https://kanjivg.tagaini.net.
  """

  def _split_generators(self, dl_manager: tfds.download.DownloadManager):
    del dl_manager
    return self._by_split(map(kanji.read, kanji.paths()))


def generated(name: str, split: str, count: int) -> list[dict[str, Any]]:
  """Some records of the embedded data set, without preparing it.

  Args:
    name: 'kanji'.
    split: one of `SPLITS`.
    count: number of records, which are evenly spaced in the split.

  Raises:
    ValueError: the data set is not embedded.
  """
  if name != 'kanji':
    raise ValueError(f'{name} cannot be generated: only kanji can')
  paths = [x for x in kanji.paths() if _split_by_hash(kanji.name(x)) == split]
  step = len(paths) // count
  sketches = [kanji.read(paths[i * step]) for i in range(count)]
  return [
    {'id': x.id, 'strokes': x.strokes, 'category': x.category} for x in sketches
  ]


def split_of(sketch: file_formats.Sketch) -> str:
  """The split of a drawing: that of its file, or else by the hash of its id."""
  if sketch.split is not None:
    return sketch.split
  return _split_by_hash(sketch.id)


def _split_by_hash(name: str) -> str:
  digest = hashlib.sha256(name.encode()).digest()
  return {0: 'validation', 1: 'test'}.get(
    int.from_bytes(digest[:8], 'big') % 10, 'train'
  )


def prepare(
  name: str,
  sketches: Sequence[file_formats.Sketch],
  data_dir: str | os.PathLike | None = None,
) -> list[str]:
  """Writes drawings as data sets; returns the names of these.

  Args:
    name: NAME, for the data set 'sketches/NAME'; or 'quickdraw_sketches', for
      one data set 'quickdraw_sketches/CATEGORY' for each of their categories.
    sketches: with different ids.
    data_dir: directory of TFDS; None: its default.

  Raises:
    FileExistsError: one of them exists already.
    ValueError: unknown category, or invalid name.
  """
  if name == 'quickdraw_sketches':
    parts = collections.defaultdict(list)
    for sketch in sketches:
      parts[f'{name}/{sketch.category}'].append(sketch)
  else:
    parts = {f'sketches/{name}': sketches}
  datasets.prepare_new(
    *(
      _builder(part, data_dir, sketches=of_part)
      for part, of_part in parts.items()
    )
  )
  return list(parts)


def open_builder(
  name: str, data_dir: str | os.PathLike | None = None
) -> tfds.core.DatasetBuilder:
  """The builder of a data set, complete.

  Kanji are prepared, and QuickDraw's drawings are downloaded, at first use.
  """
  builder = _builder(name, data_dir)
  if builder.data_path.exists():
    return builder
  root = os.fspath(builder.data_dir_root)
  if isinstance(builder, Sketches):
    command = _PREPARE.format(name=builder.builder_config.name, data_dir=root)
    raise FileNotFoundError(
      f'{name} is not in {root}: prepare it with\n  {command}'
    )
  try:
    datasets.prepare(builder)
  except (OSError, tfds.download.DownloadError) as error:
    if not isinstance(builder, QuickdrawSketches):
      raise
    command = _PREPARE.format(name='quickdraw_sketches', data_dir=root)
    raise FileNotFoundError(
      f'{name} is not in {root} and could not be downloaded ({error}). If '
      'you have its .npz or .ndjson file, prepare it with\n  ' + command
    ) from error
  return _builder(name, data_dir)


def fingerprint(name: str, data_dir: str | os.PathLike | None = None) -> str:
  """A hash of the contents of a data set: 16 hexadecimal digits."""
  return datasets.fingerprint(open_builder(name, data_dir))


def _builder(name: str, data_dir, **kwargs) -> _Drawings:
  """The builder of a data set that may not be prepared yet."""
  kind, _, config = name.partition('/')
  if name == 'kanji':
    return Kanji(data_dir=data_dir, **kwargs)
  if kind == 'sketches':
    if not re.fullmatch(r'[A-Za-z]\w*', config, re.ASCII):
      raise ValueError(
        f'{config!r} must be a letter, then letters, digits or underscores'
      )
    builder_class = Sketches
  elif kind == 'quickdraw_sketches':
    config = config.replace('_', ' ')
    if config not in categories_lib.QUICKDRAW:
      raise ValueError(
        f'{config!r} is none of the 345 categories of QuickDraw, which '
        'sketch_rnn/categories.py lists: cat, pig, The Mona Lisa, ...'
      )
    config = config.replace(' ', '_')
    builder_class = QuickdrawSketches
  else:
    raise ValueError(
      f'{name!r} is not a data set: pass kanji, quickdraw_sketches/CATEGORY or '
      'sketches/NAME'
    )
  return builder_class(
    config=tfds.core.BuilderConfig(name=config), data_dir=data_dir, **kwargs
  )


def _check_reachable(url: str):
  """Fails at once without a network; TFDS would try for minutes."""
  request = urllib.request.Request(url, method='HEAD')
  try:
    urllib.request.urlopen(request, timeout=30).close()
  except urllib.error.HTTPError as error:
    error.close()  # It holds the connection.
    raise
