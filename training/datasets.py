"""Data sets of TensorFlow Datasets: preparation and fingerprints.

They are ArrayRecord files, read in any order without TensorFlow. A data set
gets its name when it is complete.
"""

import contextlib
import hashlib
import io
import json
import pathlib
import shutil
from collections.abc import Iterator

import tensorflow_datasets as tfds
from absl import logging

from training import app
from training import console
from training import locks


def prepare(builder: tfds.core.DatasetBuilder):
  """Prepares the data set of `builder`, unless it exists already.

  One of several processes prepares it; the others wait. One that exists is only
  read, also where its directory is read-only.

  Raises:
    Stopped: SIGTERM was received; what was written is removed. The other hosts
      are stopped, too.
  """
  if builder.data_path.exists():
    return
  with app.stopping_at_once(), _locked(builder):
    _write(builder)


def prepare_new(*builders: tfds.core.DatasetBuilder):
  """Prepares data sets that do not exist yet.

  Raises:
    FileExistsError: one of them exists; if it did before, nothing is written.
  """
  for builder in builders:
    _check_absent(builder)
  for builder in builders:
    with _locked(builder):
      _check_absent(builder)
      _write(builder)


def published(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
  """The builder of a data set that TFDS publishes, by its name there.

  One that is prepared is read from its files, without the code that made them:
  that of some data sets imports TensorFlow.

  Args:
    name: 'NAME' or 'NAME/CONFIG'.
    data_dir: root of the data sets; None is the default of TFDS.

  Raises:
    ImportError: it is not prepared, and its code needs TensorFlow.
  """
  try:
    return tfds.core.read_only_builder.builder_from_files(
      name, data_dir=data_dir
    )
  except tfds.core.DatasetNotFoundError:
    pass
  try:
    return tfds.builder(name, data_dir=data_dir)
  except (ImportError, tfds.core.DatasetNotFoundError) as error:
    raise ImportError(
      f'{name} of TensorFlow Datasets needs TensorFlow to be prepared '
      f"({error}): pip install -e '.[tensorflow]'"
    ) from error


def fingerprint(builder: tfds.core.DatasetBuilder) -> str:
  """A hash of a data set's contents, of sixteen hexadecimal digits.

  It includes the metadata, where a builder stores a hash of each split.
  """
  info = builder.info
  content = {
    'name': info.full_name,
    'splits': {
      split.name: [split.shard_lengths, int(split.num_bytes)]
      for split in info.splits.values()
    },
    'metadata': info.metadata,
  }
  text = json.dumps(content, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _write(builder: tfds.core.DatasetBuilder):
  """Writes the data set, with two messages in place of those of TFDS.

  Downloads keep the bars of TFDS, on a terminal: they can take hours.
  """
  exists = builder.data_path.exists()
  if not exists:
    name = builder.info.full_name
    logging.info('Preparing %s in %s', name, builder.data_path)
    console.state(f'preparing {name}')
  if not (builder.info.download_size and console.is_terminal()):
    tfds.disable_progress_bar()
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      builder.download_and_prepare(file_format='array_record')
  finally:
    tfds.enable_progress_bar()
  if not exists:
    splits = builder.info.splits.values()
    counts = (f'{split.name} {split.num_examples}' for split in splits)
    console.state('starting')
    logging.info('Prepared %s: %s', name, ', '.join(counts))


def _check_absent(builder: tfds.core.DatasetBuilder):
  if builder.data_path.exists():
    raise FileExistsError(
      f'{builder.data_path} exists already: delete it, or choose another name'
    )


@contextlib.contextmanager
def _locked(builder: tfds.core.DatasetBuilder) -> Iterator[None]:
  """Lets in one process at a time, and removes what killed ones have left."""
  path = pathlib.Path(builder.data_path)
  with locks.waiting(path.parent) as locked:
    if locked:
      for left in path.parent.glob(f'incomplete.??????_{path.name}'):
        logging.info('Removing %s, of a preparation that was killed', left)
        shutil.rmtree(left, ignore_errors=True)
    yield
