"""A data set is written once, whole, and known by its contents."""

import concurrent.futures
import os
import signal
import threading
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds

from training import app
from training import datasets


class Numbers(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """As many numbers as are asked for, slowly."""

  VERSION = tfds.core.Version('1.0.0')

  def __init__(self, *, count=3, seen=None, **kwargs):
    super().__init__(**kwargs)
    self._count = count
    self._seen = [] if seen is None else seen

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(
        {'number': tfds.features.Scalar(np.int32)}
      ),
      metadata=tfds.core.MetadataDict(),
    )

  def _split_generators(self, dl_manager):
    del dl_manager
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    for i in range(self._count):
      self._seen.append(i)
      time.sleep(0.05)
      yield i, {'number': i}
    if self._count == 0:
      raise ArithmeticError('there is none')
    self.info.metadata['last'] = i


def named(name, data_dir, **kwargs):
  config = tfds.core.BuilderConfig(name=name)
  return Numbers(config=config, data_dir=data_dir, **kwargs)


def numbers(builder):
  source = builder.as_data_source('train')
  return sorted(int(source[i]['number']) for i in range(len(source)))


def test_of_several_that_ask_at_once_one_prepares(tmp_path):
  """A lock of `flock` holds between threads as between processes."""
  seen = []
  together = threading.Barrier(3)

  def ask(_):
    builder = Numbers(data_dir=tmp_path, seen=seen)
    together.wait()
    datasets.prepare(builder)
    return numbers(Numbers(data_dir=tmp_path))

  with concurrent.futures.ThreadPoolExecutor(3) as pool:
    assert list(pool.map(ask, range(3))) == [[0, 1, 2]] * 3
  assert seen == [0, 1, 2]


def test_new_data_sets_replace_nothing(tmp_path):
  datasets.prepare_new(named('b', tmp_path))
  with pytest.raises(FileExistsError, match='b/1.0.0 exists already: delete'):
    datasets.prepare_new(*(named(name, tmp_path, count=2) for name in 'ab'))
  assert not named('a', tmp_path).data_path.exists()
  assert numbers(named('b', tmp_path)) == [0, 1, 2]


def test_what_fails_half_way_is_not_there(tmp_path):
  with pytest.raises(ArithmeticError):
    datasets.prepare(Numbers(data_dir=tmp_path, count=0))
  datasets.prepare_new(Numbers(data_dir=tmp_path, count=1))
  assert numbers(Numbers(data_dir=tmp_path)) == [0]


class Terminating(list):
  """The process receives SIGTERM at each item."""

  def append(self, item):
    super().append(item)
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_stops_a_preparation_at_once(tmp_path, monkeypatch):
  """It can take hours, and nothing of it is of use."""
  monkeypatch.setattr(app, '_terminated', threading.Event())
  before = signal.signal(signal.SIGTERM, app._terminate)
  try:
    seen = Terminating()
    for _ in range(2):  # The second one does not begin.
      with pytest.raises(app.Stopped):
        datasets.prepare(Numbers(data_dir=tmp_path, count=9, seen=seen))
      assert seen == [0]
    assert [p.name for p in (tmp_path / 'numbers').iterdir()] == ['.lock']
    app._terminated.clear()
    datasets.prepare(Numbers(data_dir=tmp_path))
    # Later the signal is for the steps of the training.
    os.kill(os.getpid(), signal.SIGTERM)
    assert app.stopping(0)
  finally:
    signal.signal(signal.SIGTERM, before)
  assert numbers(Numbers(data_dir=tmp_path)) == [0, 1, 2]


def test_what_a_killed_preparation_has_left_is_removed(tmp_path):
  builder = Numbers(data_dir=tmp_path)
  directory = tmp_path / 'numbers'
  for name in ('incomplete.ABC123_1.0.0', 'incomplete.ABC123_2.0.0'):
    (directory / name).mkdir(parents=True)
    (directory / name / 'part').write_text('half')
  datasets.prepare(builder)
  assert sorted(path.name for path in directory.iterdir()) == [
    '.lock',
    '1.0.0',
    'incomplete.ABC123_2.0.0',
  ]


def test_one_that_exists_is_not_locked(tmp_path, monkeypatch):
  """Shared data are often read-only."""
  datasets.prepare(Numbers(data_dir=tmp_path))
  monkeypatch.setattr(datasets.locks, 'waiting', None)
  builder = Numbers(data_dir=tmp_path)
  datasets.prepare(builder)
  assert numbers(builder) == [0, 1, 2]


def test_the_fingerprint_is_that_of_the_contents(tmp_path):
  prints = []
  for directory, count in (('a', 3), ('b', 3), ('c', 2)):
    builder = Numbers(data_dir=tmp_path / directory, count=count)
    datasets.prepare(builder)
    again = Numbers(data_dir=tmp_path / directory)  # As read from disk.
    assert datasets.fingerprint(again) == datasets.fingerprint(builder)
    prints.append(datasets.fingerprint(again))
  assert prints[0] == prints[1] != prints[2]
  assert len(prints[0]) == 16
