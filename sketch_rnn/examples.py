"""Turns the records of a data set into batches of padded drawings.

  examples, splits = examples.load(config.data)
  batches = examples.training_batches(
    splits['train'], examples, batch_size=100, seed=0
  )

Data sets and records are those of builders.py.

Axes: B batch, N points of a drawing, T = `Examples.length`.
"""

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import grain
import ml_collections
import numpy as np

from sketch_rnn import builders
from sketch_rnn import strokes
from training import batching
from training import buckets as buckets_lib


class Split:
  """Random access to the records of a split; threads may share it.

  A record is `id` str, `strokes` f32[N, 3] and `category` str.
  """

  def __init__(self, parts: Sequence[Sequence[dict[str, Any]]]):
    """Joins data sources of TFDS, one after the other."""
    self._parts = parts
    self._ends = np.cumsum([len(part) for part in parts])

  def __len__(self) -> int:
    """The number of drawings."""
    return int(self._ends[-1])

  def __getitem__(self, index: int) -> dict[str, Any]:
    """The record of drawing `index`."""
    if not 0 <= index < len(self):
      raise IndexError(index)  # This ends a loop over all records.
    part = int(np.searchsorted(self._ends, index, side='right'))
    start = self._ends[part - 1] if part else 0
    record = self._parts[part][int(index - start)]
    return {
      'id': record['id'].decode(),
      'strokes': record['strokes'],
      'category': record['category'].decode(),
    }


class Selection:
  """Some records of a source, and their numbers of points."""

  def __init__(
    self, source: batching.Source, indices: np.ndarray, lengths: np.ndarray
  ):
    """Takes one of the `lengths` i32[] for each of the `indices` i64[]."""
    self._source = source
    self._indices = indices
    self.lengths = lengths

  def __len__(self) -> int:
    """The number of drawings."""
    return len(self._indices)

  def __getitem__(self, index: int) -> dict[str, Any]:
    """The record of drawing `index` among those selected."""
    if not 0 <= index < len(self):
      raise IndexError(index)
    return self._source[int(self._indices[index])]


def open_split(
  name: str,
  split: str,
  data_dir: str | os.PathLike | None = None,
  categories: Sequence[str] | None = None,
) -> batching.Source:
  """Opens a split of a data set; prepares it at first use, if possible.

  Args:
    name: 'kanji', 'sketches/NAME', 'quickdraw_sketches/CATEGORY', or
      'quickdraw_sketches' for several categories.
    split: 'train', 'validation' or 'test'.
    data_dir: directory of TFDS; None or '': its default.
    categories: only drawings of these, one category after the other for
      'quickdraw_sketches'; None or (): all.
  """
  if split not in builders.SPLITS:
    raise ValueError(
      f'split={split!r} must be one of {", ".join(builders.SPLITS)}'
    )
  parts = []
  for part in _names(name, categories):
    builder = builders.open_builder(part, data_dir or None)
    if split not in builder.info.splits:
      raise ValueError(
        f'{part} has no split {split!r}, only {", ".join(builder.info.splits)}'
      )
    parts.append(builder.as_data_source(split))
  source = Split(parts)
  if not categories or name == 'quickdraw_sketches':
    return source
  records = [source[i] for i in range(len(source))]
  chosen = [i for i, r in enumerate(records) if r['category'] in categories]
  if not chosen:
    found = sorted({record['category'] for record in records})
    raise ValueError(
      f'{name} has no drawing of {", ".join(categories)} in {split!r}, only '
      f'of {", ".join(found)}'
    )
  lengths = np.array([len(records[i]['strokes']) for i in chosen], np.int32)
  return Selection(source, np.array(chosen), lengths)


def _names(name: str, categories: Sequence[str] | None) -> list[str]:
  """The names of the data sets that a name stands for."""
  if name != 'quickdraw_sketches':
    return [name]
  if not categories:
    raise ValueError(
      "'quickdraw_sketches' needs categories: pass "
      "--config.data.categories=\"('cat', 'pig')\", or name a single one, "
      "'quickdraw_sketches/cat'"
    )
  return [f'{name}/{category}' for category in categories]


def fingerprint(config: ml_collections.ConfigDict) -> str:
  """A hash of the contents of the data: 16 hexadecimal digits."""
  prints = [
    builders.fingerprint(name, config.data_dir or None)
    for name in _names(config.name, config.categories)
  ]
  if len(prints) == 1:
    return prints[0]
  return hashlib.sha256(' '.join(prints).encode()).hexdigest()[:16]


def load(
  config: ml_collections.ConfigDict,
) -> tuple['Examples', dict[str, Selection]]:
  """Loads the data of a run, all splits; see `Examples.build`.

  Args:
    config: `name`, `data_dir`, `categories`, and the fields of `build`.
  """
  splits = {split: _open(config, split) for split in builders.SPLITS}
  return Examples.build(config, splits)


def load_split(
  config: ml_collections.ConfigDict, split: str, examples: 'Examples'
) -> Selection:
  """Loads one split as `load` does, for the examples of a checkpoint."""
  return examples.select(_open(config, split))


def _open(config: ml_collections.ConfigDict, split: str) -> batching.Source:
  return open_split(
    config.name, split, config.data_dir, tuple(config.categories)
  )


@dataclasses.dataclass(frozen=True)
class Examples:
  """Turns records into examples of one shape; stored in checkpoints.

  Attributes:
    scale: pixels per unit of the network; offsets are divided by it.
    length: number of points of the longest drawing, N_max.
    categories: names of the labels 0, 1, ...
    limit: offsets are clamped to this many pixels.
    random_scale: in training, x and y are scaled by at most this share.
    drop_probability: in training, the probability that a point is dropped.
  """

  scale: float
  length: int
  categories: tuple[str, ...]
  limit: float = 1000.0
  random_scale: float = 0.15
  drop_probability: float = 0.10

  @classmethod
  def build(
    cls,
    config: ml_collections.ConfigDict,
    splits: Mapping[str, batching.Source],
  ) -> tuple['Examples', dict[str, Selection]]:
    """Reads all drawings once; leaves out those that are too long.

    As the published code does it, `length` is that of the longest remaining
    drawing of all splits, and `scale` comes from the training split alone.

    Args:
      config: `categories` (empty: all of the data, sorted),
        `max_length`, `limit`, `random_scale` and `drop_probability`.
      splits: by name, 'train' among them.

    Returns:
      The examples, and the remaining drawings of each split.
    """
    selections, found, longest, scale = {}, set(), 0, 1.0
    for split, source in splits.items():
      lengths, offsets = [], []
      for i in range(len(source)):
        record = source[i]
        drawing = record['strokes']
        lengths.append(len(drawing))
        if len(drawing) <= config.max_length:
          found.add(record['category'])
          if split == 'train':
            offsets.append(strokes.clamp(drawing, config.limit))
      lengths = np.array(lengths, np.int32)
      kept = np.flatnonzero(lengths <= config.max_length)
      if not len(kept):
        raise ValueError(
          f'no drawing of {split!r} has at most {config.max_length} points: '
          'pass a larger --config.data.max_length'
        )
      longest = max(longest, int(lengths[kept].max()))
      selections[split] = Selection(source, kept, lengths[kept])
      if split == 'train':
        scale = strokes.scale_factor(offsets)
    if not scale > 0:
      raise ValueError('no drawing moves the pen: check the data set')
    examples = cls(
      scale=scale,
      length=longest,
      categories=tuple(config.categories) or tuple(sorted(found)),
      limit=float(config.limit),
      random_scale=float(config.random_scale),
      drop_probability=float(config.drop_probability),
    )
    return examples, selections

  @classmethod
  def from_dict(cls, fields: Mapping[str, Any]) -> 'Examples':
    """The inverse of `to_dict`; missing fields have their defaults."""
    fields = dict(fields)
    fields['categories'] = tuple(fields['categories'])
    return cls(**fields)

  def to_dict(self) -> dict[str, Any]:
    """The fields as JSON, for the extras of a checkpoint."""
    fields = dataclasses.asdict(self)
    return {**fields, 'categories': list(self.categories)}

  def select(self, source: batching.Source) -> Selection:
    """The drawings that are not too long."""
    lengths = np.array(
      [len(source[i]['strokes']) for i in range(len(source))], np.int32
    )
    kept = np.flatnonzero(lengths <= self.length)
    return Selection(source, kept, lengths[kept])

  def training(
    self, record: dict[str, Any], rng: np.random.Generator
  ) -> dict[str, Any]:
    """The example of a record, randomly scaled and with points dropped.

    Args:
      record: `id`, `strokes` f32[N, 3] and `category`.
      rng: random generator of this example alone.

    Returns:
      `id`, `strokes` f32[T + 1, 5] (the first row is the start), `length`
      i32[] (the number of points, without padding) and `label` i32[].
    """
    drawing = self.normalize(record['strokes'])
    drawing = strokes.random_scale(drawing, rng, self.random_scale)
    if self.drop_probability:
      drawing = strokes.drop_points(
        drawing, rng.random(len(drawing)), self.drop_probability
      )
    return self._example(record, drawing)

  def evaluation(self, record: dict[str, Any]) -> dict[str, Any]:
    """The example of a record, without augmentation; see `training`."""
    return self._example(record, self.normalize(record['strokes']))

  def normalize(self, drawing: np.ndarray) -> np.ndarray:
    """Converts pixels to units of the network: f32[N, 3] -> f32[N, 3]."""
    drawing = strokes.clamp(drawing, self.limit)
    return drawing / np.array([self.scale, self.scale, 1], np.float32)

  def _example(self, record, drawing):
    if record['category'] not in self.categories:
      raise ValueError(
        f'drawing {record["id"]} is of {record["category"]!r}, which is none '
        f'of the categories {", ".join(self.categories)}'
      )
    return {
      'id': record['id'],
      'strokes': strokes.to_stroke5(drawing, self.length),
      'length': np.int32(len(drawing)),
      'label': np.int32(self.categories.index(record['category'])),
    }


def training_batches(
  source: Selection,
  examples: Examples,
  *,
  batch_size: int,
  seed: int,
  buckets: Sequence[int] = (),
) -> grain.MapDataset:
  """Endless shuffled batches of training examples.

  Args:
    source: the training split.
    examples: turns records into examples.
    batch_size: over all hosts; a multiple of the number of devices.
    seed: random seed of the order and of the augmentation.
    buckets: lengths to which batches are cut, or none; see
      training/buckets.py. `strokes` is then f32[B, bucket + 1, 5].

  Returns:
    `batches[step]` is this host's share of the global batch `step`, which
    depends on `seed` and `step` alone.
  """
  if not buckets:
    return batching.training_batches(
      source, examples.training, batch_size=batch_size, seed=seed
    )
  # A drawing as long as its bucket would have no end row: it goes to the next
  # one, unless there is none.
  order = buckets_lib.Order(
    lambda epoch: source.lengths + 1,
    buckets,
    examples.length,
    batch_size,
    seed,
  )

  def cut(example, bucket):
    return {**example, 'strokes': example['strokes'][: bucket + 1]}

  return buckets_lib.training_batches(
    _Epochs(source),
    examples.training,
    cut,
    order,
    batch_size=batch_size,
    seed=seed,
  )


class _Epochs:
  """Records that are the same in every epoch: `records[epoch, index]`."""

  def __init__(self, source: Selection):
    """Takes the records."""
    self._source = source

  def __getitem__(self, position: tuple[int, int]) -> Any:
    """The record `index`."""
    return self._source[position[1]]
