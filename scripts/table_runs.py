"""The runs of a table: their commands, what keeps them from being made here.

A run is one seed of a row, in the workdir WORKDIRS/TABLE/ROW_SEED; it has ended
when its `results.json` has an entry for the test split.
"""

import dataclasses
import functools
import json
import pathlib
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import huggingface_hub
import ml_collections
import published_tables
import tensorflow_datasets as tfds
from absl import flags
from ml_collections import config_flags

from captioning import data as captions_lib
from captioning import regions as regions_lib
from sketch_rnn import data as sketches_lib
from sketch_rnn import sources as sketch_sources
from training import batching

Row, Table = published_tables.Row, published_tables.Table

# Stands for the seed in a command that is printed for several seeds.
_SEED = '@SEED@'


@dataclasses.dataclass(frozen=True)
class Place:
  """Where the runs of a table are, and how they differ from its rows.

  Attributes:
    table: the table.
    workdirs: the directory of all tables.
    settings: arguments NAME=VALUE for the configs of all rows.
  """

  table: Table
  workdirs: pathlib.Path
  settings: tuple[str, ...] = ()

  def workdir(self, row: Row, seed: int | str) -> pathlib.Path:
    """That of a run."""
    return self.workdirs / self.table.name / f'{row.name}_{seed}'

  def arguments(self, row: Row, seed: int | str) -> list[str]:
    """The command of a run, after `python`."""
    changed = [f'{name}={value}' for name, value in row.overrides.items()]
    if row.start_from:
      start = self.workdir(self.table.row(row.start_from), seed)
      changed.append(f'start_from={start}')
    return [
      '-m',
      self.table.module,
      f'--config={row.config}',
      f'--workdir={self.workdir(row, seed)}',
      f'--config.seed={seed}',
      *(f'--config.{change}' for change in (*changed, *self.settings)),
    ]

  def entry(self, row: Row, seed: int) -> dict[str, Any] | None:
    """What `results.json` says of the test split, if the run has ended."""
    path = self.workdir(row, seed) / 'results.json'
    if not path.exists():
      return None
    return json.loads(path.read_text()).get('test')

  def entries(self, row: Row, seeds: Sequence[int]) -> dict[int, dict]:
    """Seed -> entry, of the runs that have ended."""
    found = {seed: self.entry(row, seed) for seed in seeds}
    return {seed: entry for seed, entry in found.items() if entry is not None}

  def command(self, row: Row, seeds: Sequence[int]) -> str:
    """For a shell: the command of a row for these seeds."""
    if len(seeds) == 1:
      return shlex.join(['python', *self.arguments(row, seeds[0])])
    words = [
      '"$S"'.join(shlex.quote(part) if part else '' for part in parts)
      for parts in (
        word.split(_SEED) for word in ['python', *self.arguments(row, _SEED)]
      )
    ]
    numbers = ' '.join(str(seed) for seed in seeds)
    return f'for S in {numbers}; do {" ".join(words)}; done'


def load_config(arguments: Sequence[str]) -> ml_collections.ConfigDict:
  """The config of a command line, read as a `main` reads it.

  Args:
    arguments: those of a command; of them --config and --config.NAME count.

  Raises:
    ValueError: a field that the config does not have, or no such config.
  """
  values = flags.FlagValues()
  known = [word for word in arguments if word.startswith('--config')]
  argv = ['config', *known]
  found = config_flags.DEFINE_config_file(
    'config', None, '', flag_values=values, sys_argv=argv
  )
  try:
    values(argv)
    return found.value
  except (flags.Error, AttributeError, KeyError, OSError) as error:
    raise ValueError(f'{shlex.join(known)}: {error}') from error


# What can be run here.


@functools.cache
def accelerated() -> bool:
  """Whether JAX finds a GPU or a TPU.

  Asked of another process: this one would keep the memory of the device.
  """
  code = 'import jax; print(jax.default_backend())'
  found = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  return found.stdout.split()[-1] != 'cpu'


def obstacles(place: Place, row: Row) -> list[str]:
  """Why a row cannot be run here, and what to do about it."""
  config = load_config(place.arguments(row, 0))
  found = []
  if row.data.accelerator and not accelerated():
    found.append(
      f'{row.data.label} needs a GPU or a TPU, and JAX finds none here'
    )
  try:
    if place.table.module == 'captioning.main':
      found += _caption_obstacles(config)
      size = len(_caption_records(config))
    else:
      size = len(_sketch_records(config))
  except (FileNotFoundError, ValueError) as error:
    return [*found, str(error)]
  if size < row.data.train:
    found.append(
      f'{config.data.name} is a subset of {row.data.label}: {size:,} of '
      f'{row.data.train:,} training examples; prepare all of them'
    )
  return found


def _caption_records(config: ml_collections.ConfigDict) -> batching.Source:
  return captions_lib.open_split(
    config.data.name, 'train', config.data.data_dir
  )


def _caption_obstacles(config: ml_collections.ConfigDict) -> list[str]:
  """Of the weights and the imported regions."""
  weights = config.encoder_weights
  advice = 'pass --set encoder_weights=FILE.safetensors'
  if config.regions:
    name, data_dir = config.data.name, config.data.data_dir
    regions_lib.open_split(name, config.regions, 'train', data_dir)
  elif weights.startswith('hf://'):
    owner, name, *file = weights.removeprefix('hf://').split('/', 2)
    repository, (file,) = f'{owner}/{name}', file or ['model.safetensors']
    cached = huggingface_hub.try_to_load_from_cache(repository, file)
    if not isinstance(cached, str):
      return [
        f'{weights} is not in the cache of the Hugging Face hub: {advice}, or '
        f'fetch it with\n  hf download {repository} {file}'
      ]
  elif weights and not pathlib.Path(weights).exists():
    return [f'encoder_weights={weights} does not exist: {advice}']
  return []


def _sketch_records(config: ml_collections.ConfigDict) -> batching.Source:
  """The training split; not downloaded, if it is not there."""
  name, data_dir = config.data.name, config.data.data_dir
  parts = [name]
  if name == 'quickdraw_sketches':
    parts = [f'{name}/{category}' for category in config.data.categories]
  for part in parts:
    builder = sketch_sources.QuickdrawSketches(
      config=tfds.core.BuilderConfig(name=part.partition('/')[2]),
      data_dir=data_dir,
    )
    if not builder.data_path.exists():
      raise FileNotFoundError(
        f'{part} is not in {builder.data_dir_root}: download it with\n'
        '  python -c "from sketch_rnn import sources; '
        f"sources.open_builder('{part}', {data_dir!r})\"\n"
        'or, if you have its file, prepare it with\n'
        '  python scripts/prepare_sketches.py --name=quickdraw_sketches '
        '--input=...'
      )
  return sketches_lib.open_split(
    name, 'train', data_dir, config.data.categories
  )


def select(table: Table, names: Sequence[str]) -> list[Row]:
  """The rows of these names, all if none are given, and what they start from.

  Raises:
    ValueError: the table has no such row.
  """
  rows = {row.name: row for row in table.rows}
  wanted = set()
  for name in names or rows:
    while name:
      if name not in rows:
        raise ValueError(
          f'{table.name} has no row {name!r}, only {", ".join(rows)}'
        )
      wanted.add(name)
      name = rows[name].start_from
  return [row for row in table.rows if row.name in wanted]


def run_python(words: Sequence[str]) -> int:
  """Runs `python` with these arguments, and passes SIGTERM on to it."""
  with subprocess.Popen([sys.executable, *words]) as process:
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
      return process.wait()
    finally:
      signal.signal(signal.SIGTERM, before)


def run_missing(
  place: Place,
  rows: Sequence[Row],
  seeds: Sequence[int],
  *,
  run: Callable[[Sequence[str]], int] = run_python,
  find_obstacles: Callable[[Place, Row], list[str]] = obstacles,
) -> dict[str, list[str]]:
  """Makes the runs that are missing and can be made, one after the other.

  Args:
    place: of the table.
    rows: those that others start from come first.
    seeds: all rows of the first, then all rows of the next.
    run: runs `python` with these arguments and returns its status.
    find_obstacles: why a row cannot be run here.

  Returns:
    Why runs are still missing, by the name of the row.
  """
  reasons = {}
  for seed in seeds:
    for row in rows:
      if place.entry(row, seed) is not None:
        continue
      if row.name not in reasons:
        reasons[row.name] = find_obstacles(place, row)
      start = place.table.row(row.start_from) if row.start_from else None
      waits = start is not None and place.entry(start, seed) is None
      if reasons[row.name] or waits:
        continue
      print(f'{row.label}, seed {seed}', flush=True)
      status = run(place.arguments(row, seed))
      if place.entry(row, seed) is not None:
        continue
      if status == 0:  # After SIGTERM: the machine is wanted by others.
        reasons[row.name].append('stopped; the same command goes on')
        return reasons
      reasons[row.name].append(f'the run of seed {seed} ended with {status}')
  return reasons
