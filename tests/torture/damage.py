"""Flipped bits in checkpoints, caches of features and data sets."""

import functools
import json
import pathlib
import shutil
import sys
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence

import commands
import jax
import numpy as np
import test_training_features
from absl import logging

from captioning import data as captioning_data
from sketch_rnn import builders
from torture import runs
from torture import table
from training import checkpoints
from training import features
from video import data as video_data

# Main -> how its checkpoints are ranked.
_RANKS = {
  'captioning.main': ('loss', 'min'),
  'sketch_rnn.main': ('loss', 'min'),
  'video.classify': ('accuracy', 'max'),
  'video.caption': ('CIDEr', 'max'),
}


def flip(
  paths: Sequence[pathlib.Path], rng: np.random.Generator
) -> tuple[pathlib.Path, bytes, str]:
  """Flips a bit of one of the files; returns the file as it was, and where.

  Half of the time all bytes are alike, and else all files.
  """
  sizes = np.array([path.stat().st_size for path in paths])
  weights = sizes if rng.random() < 0.5 else sizes > 0
  path = paths[rng.choice(len(paths), p=weights / weights.sum())]
  contents = path.read_bytes()
  at, bit = int(rng.integers(len(contents))), int(rng.integers(8))
  damaged = bytearray(contents)
  damaged[at] ^= 1 << bit
  path.write_bytes(damaged)
  return path, contents, f'{path.name}, byte {at}, bit {bit}'


def _files(directory):
  return sorted(path for path in directory.rglob('*') if path.is_file())


def _bits(tree):
  """All arrays, to the last bit."""
  return jax.tree.map(lambda x: (str(x.dtype), x.shape, x.tobytes()), tree)


def flip_checkpoint(
  name: str,
  count: int,
  directory: pathlib.Path,
  shared: pathlib.Path,
  rng: np.random.Generator,
) -> Iterator[table.Outcome]:
  """Each flip is named, or changes nothing that is read."""
  _, reference = runs.create(name, directory / 'unused', shared)
  step = commands.saved_steps(reference.workdir)[-1]
  saved = directory / 'checkpoints' / str(step)
  shutil.copytree(reference.workdir / 'checkpoints' / str(step), saved)
  metric, mode = _RANKS[name]

  def read():
    loaded = checkpoints.load(directory, best_metric=metric, mode=mode)
    return (
      _bits(commands.saved_state(directory, step)),
      _bits(loaded[0]),
      (loaded[1:]),
    )

  # Threads of Orbax raise after it failed to read a file.
  sys.unraisablehook = lambda _: None
  logging.get_absl_handler().addFilter(lambda record: False)
  expected = read()
  paths, check = _files(saved), 'a bit of a checkpoint'
  for _ in range(count):
    path, contents, where = flip(paths, rng)
    try:
      lines, good = checkpoints.verify(directory)
      if not good:
        named = str(saved) in lines[0] and len(lines) == 1
        kind, text = ('right' if named else 'wrong'), f'{where}: {lines}'
      elif read() == expected:
        kind, text = 'right', ''
      else:
        kind, text = 'silent', f'{where}: other numbers'
    except Exception as error:
      kind, text = 'wrong', f'{where}: {type(error).__name__}: {error}'
    path.write_bytes(contents)
    yield table.Outcome(check, kind, text='' if kind == 'right' else text)


def flip_features(
  count: int,
  directory: pathlib.Path,
  shared: pathlib.Path,
  rng: np.random.Generator,
) -> Iterator[table.Outcome]:
  """Each flip is named and mended, or changes nothing that is read."""
  del shared
  options, source = test_training_features.OPTIONS, test_training_features
  whole = directory / 'whole'

  def write(path):
    features.write(source.Source(), source.encode, path, **options)

  def read(path):
    found = features.open_features(path, fingerprint=options['fingerprint'])
    return [found[i].tobytes() for i in range(len(found))]

  write(whole)
  before, expected = source.contents(whole), read(whole)
  check = 'a bit of a cache of features'
  for number in range(count):
    cache = directory / str(number)
    shutil.copytree(whole, cache)
    path, _, where = flip(_files(cache), rng)
    try:
      kind = 'right' if read(cache) == expected else 'silent'
      text = f'{where}: other numbers'
    except ValueError as error:
      kind, text = 'right', f'{where}: {error}'
      if path.name not in str(error):
        kind, text = 'wrong', f'not named: {text}'
      else:
        kind, text = _mend(cache, write, read, before, expected, text)
    except Exception as error:
      kind, text = 'wrong', f'{where}: {type(error).__name__}: {error}'
    shutil.rmtree(cache)
    yield table.Outcome(check, kind, text='' if kind == 'right' else text)


def _mend(cache, write, read, before, expected, text):
  """Runs the command again, as the error says; again where it deletes."""
  try:
    index = cache / 'features.json'
    if 'features.json' in text.partition(': ')[2]:
      index.unlink(missing_ok=True)  # "Delete it."
    write(cache)
    left = {
      path.name: path.read_bytes()
      for path in cache.iterdir()
      if not path.name.endswith('.damaged')
    }
    if read(cache) == expected and left == before:
      return 'right', ''
    return 'silent', f'not mended: {text}'
  except Exception as error:
    return 'wrong', f'not mended: {type(error).__name__}: {error}: {text}'


def _read_images(data_dir):
  return [
    captioning_data.open_split('captioned_images/few', split, data_dir)
    for split in ('train', 'validation', 'test')
  ]


def _read_sketches(data_dir):
  return [
    builders.open_builder('sketches/sheep', data_dir).as_data_source(split)
    for split in builders.SPLITS
  ]


def _read_clips(data_dir):
  return [
    video_data.open_split('captioned_clips/few', split, data_dir)
    for split in ('train', 'validation', 'test')
  ]


def _record(record):
  """All of a record, as bytes."""
  return json.dumps(
    {
      name: np.asarray(value).tobytes().hex()
      if not isinstance(value, (str, list, bytes))
      else repr(value)
      for name, value in record.items()
    },
    sort_keys=True,
  )


def flip_data_set(
  name: str,
  read: Callable[[pathlib.Path], list],
  fingerprint: Callable[[pathlib.Path], str],
  count: int,
  directory: pathlib.Path,
  shared: pathlib.Path,
  rng: np.random.Generator,
) -> Iterator[table.Outcome]:
  """Each flip is an error, or another fingerprint, or changes nothing."""
  del shared
  runs.MAINS[name].prepare(directory)
  data_dir = directory / 'data'

  def read_all():
    return [
      [_record(split[i]) for i in range(len(split))] for split in read(data_dir)
    ]

  expected, identity = read_all(), fingerprint(data_dir)
  paths = [path for path in _files(data_dir) if path.stat().st_size]
  check = 'a bit of a data set'
  for _ in range(count):
    path, contents, where = flip(paths, rng)
    kind = text = ''
    try:
      same = read_all() == expected
      # A run that is resumed compares it.
      if same or fingerprint(data_dir) != identity:
        kind = 'right'
      else:
        kind, text = 'silent', f'{where}: other records'
    except Exception as error:
      kind, text = 'right', f'{where}: {type(error).__name__}: {error}'
    path.write_bytes(contents)
    yield table.Outcome(check, kind, text='' if kind == 'right' else text)


def cases(*, quick: bool) -> list[table.Case]:
  """Two hundred flips of each kind."""
  partial, made = functools.partial, []
  names = ['video.classify'] if quick else list(_RANKS)
  for name in names:
    count = 20 if quick else 200 // len(names)
    made.append(
      table.Case(
        f'damage/checkpoint/{name}', partial(flip_checkpoint, name, count)
      )
    )
  count = 20 if quick else 200
  made.append(table.Case('damage/features', partial(flip_features, count)))
  if quick:
    return made
  for name, read, fingerprint in (
    (
      'captioning.main',
      _read_images,
      partial(captioning_data.fingerprint, 'captioned_images/few'),
    ),
    (
      'sketch_rnn.main',
      _read_sketches,
      partial(builders.fingerprint, 'sketches/sheep'),
    ),
    (
      'video.caption',
      _read_clips,
      partial(video_data.fingerprint, 'captioned_clips/few'),
    ),
  ):
    made.append(
      table.Case(
        f'damage/data/{name}',
        partial(flip_data_set, name, read, fingerprint, 67),
      )
    )
  return made
