"""Data sets of TensorFlow Datasets, prepared once and known by what they hold.

They are ArrayRecord files, read at random without TensorFlow. A data set is
there under its name once it is complete, or not at all.
"""

import contextlib
import fcntl
import hashlib
import json

import tensorflow_datasets as tfds


def prepare(builder: tfds.core.DatasetBuilder):
  """Prepares the data set of `builder`, unless it is there already.

  Of several processes one does it; the others wait, and find it done.
  """
  with _alone(builder):
    _write(builder)


def prepare_new(*builders: tfds.core.DatasetBuilder):
  """Prepares data sets that are not there yet.

  Raises:
    FileExistsError: one of them is; if it was there before, nothing is written.
  """
  for builder in builders:
    _check_absent(builder)
  for builder in builders:
    with _alone(builder):
      _check_absent(builder)
      _write(builder)


def fingerprint(builder: tfds.core.DatasetBuilder) -> str:
  """Sixteen letters and digits that say which contents a data set has.

  Its metadata count: what a builder writes there, such as a hash of each split.
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
  builder.download_and_prepare(file_format='array_record')


def _check_absent(builder: tfds.core.DatasetBuilder):
  if builder.data_path.exists():
    raise FileExistsError(
      f'{builder.data_path} exists already: delete it, or choose another name'
    )


@contextlib.contextmanager
def _alone(builder: tfds.core.DatasetBuilder):
  """Only one process at a time; the lock of one that dies is released."""
  directory = builder.data_path.parent
  directory.mkdir(parents=True, exist_ok=True)
  with open(directory / '.lock', 'w') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield
