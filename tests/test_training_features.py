import concurrent.futures
import json
import os
import pickle
import time

import numpy as np
import pytest

from training import features

SHAPE = (4, 3)
GRIDS = np.random.default_rng(0).normal(size=(23, *SHAPE)).astype(np.float32)
OPTIONS = dict(batch_size=4, shard_size=6, fingerprint='resnet of scenes')


# Pictures with one to four locations.
ROWS = [grid[: 1 + n % 4] for n, grid in enumerate(GRIDS)]


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


def encode_rows(records):
  return [ROWS[record] for record in records]


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
    (lambda records: GRIDS[records][:-1], 'for 4 records'),
    (lambda records: GRIDS[records].reshape(len(records), -1), 'for 4 rec'),
  ],
)
def test_wrong_features_are_refused(tmp_path, wrong, problem):
  with pytest.raises(ValueError, match=problem):
    features.write(Source(), wrong, tmp_path, **OPTIONS)


def test_locations_may_vary_in_number(tmp_path):
  whole, resumed = tmp_path / 'whole', tmp_path / 'resumed'
  options = dict(OPTIONS, max_locations=4)
  features.write(Source(), encode_rows, whole, **options)
  cache = pickle.loads(pickle.dumps(open_features(whole)))
  assert (len(cache), cache.shape, cache.max_locations) == (23, (None, 3), 4)
  for rows, expected in zip(cache, ROWS, strict=True):
    assert rows.dtype == np.float16
    np.testing.assert_array_equal(rows, expected.astype(np.float16))
  with pytest.raises(KeyboardInterrupt):
    features.write(Source(stop=15), encode_rows, resumed, **options)
  features.write(Source(), encode_rows, resumed, **options)
  assert contents(resumed) == contents(whole)
  (resumed / 'features.json').unlink()
  features.write(Source(), encode_rows, resumed, **options)
  assert contents(resumed) == contents(whole)


@pytest.mark.parametrize(
  ('wrong', 'problem'),
  [
    (lambda records: [ROWS[i] * np.nan for i in records], 'not finite'),
    (lambda records: [ROWS[i][:, : 2 + i % 2] for i in records], 'one width'),
    (lambda records: [ROWS[i][:, : 2 + i // 4 % 2] for i in records], 'others'),
    (lambda records: [ROWS[i][1:] for i in records], r'\[\(0, 3\),'),
    (lambda records: [ROWS[i][0] for i in records], r'\[\(3,\),'),
    (lambda records: [ROWS[i].repeat(2, 0) for i in records], r'\(8, 3\).*at'),
    (lambda records: [ROWS[i] for i in records[:-1]], 'for 4 records'),
  ],
)
def test_wrong_numbers_of_locations_are_refused(tmp_path, wrong, problem):
  with pytest.raises(ValueError, match=problem):
    features.write(Source(), wrong, tmp_path, max_locations=4, **OPTIONS)


def test_caches_without_max_locations_are_read(tmp_path):
  features.write(Source(), encode, tmp_path, **OPTIONS)
  path = tmp_path / 'features.json'
  index = json.loads(path.read_text())
  assert index.pop('max_locations') is None
  del index['digest']  # As of then.
  path.write_text(json.dumps(index))
  cache = open_features(tmp_path)
  assert cache.shape == SHAPE and cache.max_locations is None
  np.testing.assert_array_equal(list(cache), GRIDS.astype(np.float16))


def test_caches_with_the_earlier_name_of_max_locations_are_read(tmp_path):
  options = dict(OPTIONS, max_locations=4)
  features.write(Source(), encode_rows, tmp_path, **options)
  path = tmp_path / 'features.json'
  index = json.loads(path.read_text())
  index['most_locations'] = index.pop('max_locations')
  del index['digest']  # As of then.
  path.write_text(json.dumps(index))
  cache = open_features(tmp_path)
  assert (len(cache), cache.shape, cache.max_locations) == (23, (None, 3), 4)
  for rows, expected in zip(cache, ROWS, strict=True):
    np.testing.assert_array_equal(rows, expected.astype(np.float16))
  nothing = Source()
  features.write(nothing, encode_rows, tmp_path, **options)
  assert nothing.read == []


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


@pytest.mark.parametrize('at', [70, 100, 200, 65_560])
def test_a_damaged_shard_is_named_and_written_again(tmp_path, at):
  """Its size is right, so that only reading it finds the damage."""
  features.write(Source(), encode, tmp_path, **OPTIONS)
  before = contents(tmp_path)
  shard = sorted(tmp_path.glob('*-00001-of-*'))[0]
  damaged = bytearray(shard.read_bytes())
  damaged[at : at + 200] = bytes(b ^ 0x55 for b in damaged[at : at + 200])
  shard.write_bytes(damaged)
  with pytest.raises(ValueError, match=f'{shard.name} is damaged'):
    found = open_features(tmp_path)
    for index in range(len(found)):
      assert found[index] is not None
  assert shard.with_name(shard.name + '.damaged').exists()
  again = Source()
  features.write(again, encode, tmp_path, **OPTIONS)
  assert again.read == list(range(6, 12))
  for name, whole in before.items():
    assert contents(tmp_path)[name] == whole


def test_what_a_killed_writer_has_left_is_removed(tmp_path):
  old, new = (
    tmp_path / 'a.array_record.1.tmp',
    tmp_path / 'a.array_record.2.tmp',
  )
  for path in (old, new):
    path.write_bytes(b'x')
  os.utime(old, (0, time.time() - 4000))
  features.write(Source(), encode, tmp_path, **OPTIONS)
  # Another process may be about to finish the new one.
  assert [*tmp_path.glob('*.tmp')] == [new]


def test_no_byte_of_the_index_may_change(tmp_path):
  features.write(Source(), encode, tmp_path, **OPTIONS)
  path = tmp_path / 'features.json'
  whole = path.read_bytes()
  # The order of two shards: all files are there.
  swapped = whole.replace(b'-00001-of', b'-0000x-of')
  swapped = swapped.replace(b'-00000-of', b'-00001-of')
  path.write_bytes(swapped.replace(b'-0000x-of', b'-00000-of'))
  with pytest.raises(ValueError, match=r'features\.json is damaged'):
    open_features(tmp_path)
  features.write(Source(), encode, tmp_path, **OPTIONS)
  assert path.read_bytes() == whole


@pytest.mark.parametrize('text', ['', '[]', '{"shape": 7}', '{"shards": {}}'])
def test_a_damaged_index_is_named(tmp_path, text):
  features.write(Source(), encode, tmp_path, **OPTIONS)
  (tmp_path / 'features.json').write_text(text)
  with pytest.raises(ValueError, match=r'features\.json is (damaged|not JSON)'):
    open_features(tmp_path)
  features.write(Source(), encode, tmp_path, **OPTIONS)
  open_features(tmp_path)
