import concurrent.futures
import json
import pickle

import numpy as np
import pytest

from captioning import features

SHAPE = (4, 3)
GRIDS = np.random.default_rng(0).normal(size=(23, *SHAPE)).astype(np.float32)
OPTIONS = dict(batch_size=4, shard_size=6, fingerprint='resnet of scenes')


class Source:
  """Numbers of pictures, stopping at one of them."""

  def __init__(self, stop=None):
    self.stop = stop
    self.read = []

  def __len__(self):
    return len(GRIDS)

  def __getitem__(self, index):
    if index == self.stop:
      raise KeyboardInterrupt
    self.read.append(index)
    return index


def encode(records):
  return GRIDS[records]


def contents(directory):
  return {path.name: path.read_bytes() for path in directory.iterdir()}


def open_features(directory):
  return features.open_features(directory, fingerprint=OPTIONS['fingerprint'])


def test_features_come_back_in_order_as_half_precision(tmp_path):
  features.write(Source(), encode, tmp_path, **OPTIONS)
  cache = open_features(tmp_path)
  assert len(cache) == len(GRIDS)
  assert cache[0].dtype == np.float16
  np.testing.assert_array_equal(
    [cache[i] for i in range(len(cache))], GRIDS.astype(np.float16)
  )


def test_a_resumed_cache_equals_an_uninterrupted_one(tmp_path):
  whole, resumed = tmp_path / 'whole', tmp_path / 'resumed'
  features.write(Source(), encode, whole, **OPTIONS)
  with pytest.raises(KeyboardInterrupt):
    features.write(Source(stop=15), encode, resumed, **OPTIONS)
  with pytest.raises(ValueError, match='not a complete cache'):
    open_features(resumed)
  rest = Source()
  features.write(rest, encode, resumed, **OPTIONS)
  assert rest.read == list(range(12, 23)), 'finished shards are kept'
  assert contents(resumed) == contents(whole)
  nothing = Source()
  features.write(nothing, encode, resumed, **OPTIONS)
  assert nothing.read == []


def test_two_processes_write_what_one_writes(tmp_path):
  one, two = tmp_path / 'one', tmp_path / 'two'
  features.write(Source(), encode, one, **OPTIONS)
  for index in (1, 0):
    with pytest.raises(ValueError, match='not a complete cache'):
      open_features(two)
    features.write(
      Source(), encode, two, process_index=index, process_count=2, **OPTIONS
    )
  assert contents(two) == contents(one)


def test_a_lost_index_is_written_again(tmp_path):
  features.write(Source(), encode, tmp_path, **OPTIONS)
  before = contents(tmp_path)
  (tmp_path / 'features.json').unlink()
  features.write(Source(), encode, tmp_path, **OPTIONS)
  assert contents(tmp_path) == before


@pytest.mark.parametrize('size', [0, 100, -1])
def test_a_truncated_shard_is_refused_and_written_again(tmp_path, size):
  features.write(Source(), encode, tmp_path, **OPTIONS)
  before = contents(tmp_path)
  shard = sorted(tmp_path.glob('*-00001-of-*'))[0]
  shard.write_bytes(shard.read_bytes()[:size])
  with pytest.raises(ValueError, match=f'{shard.name} is missing or not'):
    open_features(tmp_path)
  again = Source()
  features.write(again, encode, tmp_path, **OPTIONS)
  assert again.read == list(range(6, 12))
  assert contents(tmp_path) == before


@pytest.mark.parametrize(
  'other', [{'fingerprint': 'vgg of scenes'}, {'shard_size': 5}]
)
def test_features_of_something_else_are_never_mixed(tmp_path, other):
  features.write(Source(), encode, tmp_path, **OPTIONS)
  with pytest.raises(ValueError, match='holds features of another encoder'):
    features.write(Source(), encode, tmp_path, **{**OPTIONS, **other})
  with pytest.raises(ValueError, match='fingerprint resnet of scenes, not vgg'):
    features.open_features(tmp_path, fingerprint='vgg')


@pytest.mark.parametrize(
  ('wrong', 'problem'),
  [
    (lambda records: GRIDS[records] * 1e6, 'not finite'),
    (lambda records: GRIDS[records] * np.nan, 'not finite'),
    (lambda records: GRIDS[records][:, : 2 + records[0] % 3], 'one size'),
    (lambda records: GRIDS[records][:-1], 'of 4 records'),
    (lambda records: GRIDS[records].reshape(len(records), -1), 'of 4 rec'),
  ],
)
def test_wrong_features_are_refused(tmp_path, wrong, problem):
  with pytest.raises(ValueError, match=problem):
    features.write(Source(), wrong, tmp_path, **OPTIONS)


def test_threads_share_a_cache(tmp_path):
  features.write(Source(), encode, tmp_path, **OPTIONS)
  cache = pickle.loads(pickle.dumps(open_features(tmp_path)))
  order = np.random.default_rng(0).integers(len(GRIDS), size=2000)
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    read = list(pool.map(lambda i: cache[i], order))
  np.testing.assert_array_equal(read, GRIDS.astype(np.float16)[order])


def test_the_index_says_what_is_in_the_shards(tmp_path):
  features.write(Source(), encode, tmp_path, **OPTIONS)
  index = json.loads((tmp_path / 'features.json').read_text())
  assert index['shape'] == list(SHAPE)
  assert index['count'] == len(GRIDS)
  assert index['dtype'] == '<f2'
