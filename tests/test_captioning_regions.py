"""Region features come in files of two kinds, and are the same from both."""

import base64
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from captioning import data
from captioning import examples
from captioning import feature_cache
from captioning import records
from captioning import regions
from captioning import sources
from captioning import vocabulary
from configs import scenes
from training import batching
from training import parallel
from vision import pretrained
from vision import resnet

ROOT = pathlib.Path(__file__).parents[1]
NAME = 'captioned_images/toy'
D = 3
IDS = {
  'train': [str(i) for i in range(100, 107)],
  'validation': ['20', '21'],
  'test': ['3', '4', '5'],
}
ALL = [i for ids in IDS.values() for i in ids]


def make_regions(ids):
  """One to five regions of each picture; each number is half precision's."""
  rng = np.random.default_rng(0)
  return {
    i: rng.normal(size=(1 + n % 5, D)).astype(np.float16).astype(np.float32)
    for n, i in enumerate(ids)
  }


REGIONS = make_regions(ALL)
MOST = 5


def line(picture_id, rows, num_boxes=None):
  """As the authors write it."""
  boxes = np.zeros((len(rows), 4), np.float32)
  fields = [
    picture_id.encode(),
    b'640',
    b'480',
    str(len(rows) if num_boxes is None else num_boxes).encode(),
    base64.b64encode(boxes.tobytes()),
    base64.b64encode(rows.astype('<f4').tobytes()),
  ]
  return b'\t'.join(fields) + b'\r\n'


def save_lines(directory):
  """Two files, in an order of their own, with a picture of another data set."""
  directory.mkdir()
  lines = [line(i, rows) for i, rows in sorted(REGIONS.items())]
  lines.insert(3, line('999', REGIONS['3'][:, :2] * np.inf))
  paths = [directory / 'regions.tsv.0', directory / 'regions.tsv.1']
  paths[0].write_bytes(b''.join(lines[8:]))
  paths[1].write_bytes(b''.join(lines[:8]))
  return paths


def save_arrays(directory):
  """One file a picture, of either kind."""
  directory.mkdir()
  for n, (i, rows) in enumerate(REGIONS.items()):
    if n % 3:
      np.savez_compressed(directory / i, feat=rows)
    else:
      np.save(directory / i, rows.astype(np.float16))
  np.save(directory / '999', np.zeros(2))
  return [directory]


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  directory = tmp_path_factory.mktemp('data')
  pictures = []
  for split, ids in IDS.items():
    for i in ids:
      path = directory / f'{i}.png'
      PIL.Image.new('RGB', (16, 16), (int(i), 90, 30)).save(path)
      pictures.append(
        sources.CaptionedFile(i, path, split, [f'A cat of {split}.'])
      )
  data.prepare('toy', pictures, directory)
  return directory


@pytest.fixture(scope='module')
def imported(data_dir, tmp_path_factory):
  """The data set's directory, with regions of the name 'lines'."""
  paths = save_lines(tmp_path_factory.mktemp('imported') / 'lines')
  regions.prepare(NAME, 'lines', paths, data_dir)
  return data_dir


def small_config(data_dir, **fields):
  config = scenes.get_config()
  config.data.update(name=NAME, data_dir=str(data_dir), resize=16, crop=16)
  config.data.update(captions_per_image=1, max_length=6)
  config.encoder = dict(depth=18, width=2, stem='whole')
  config.train_batch_stats = False
  config.eval_batch_size = 4
  config.update({'regions': '', 'start_from': '', **fields})
  return config


def contents(directory):
  return {
    str(path.relative_to(directory)): path.read_bytes()
    for path in directory.rglob('*')
    if path.is_file()
  }


def test_records_carry_their_own_regions(imported, tmp_path):
  config = small_config(imported, regions='lines')
  for split, ids in IDS.items():
    source = records.open_split(config, tmp_path / 'run', split)
    read = {record['id']: record for record in source}
    assert sorted(read) == sorted(ids)
    for i, record in read.items():
      assert record['features'].dtype == np.float16
      np.testing.assert_array_equal(record['features'], REGIONS[i])
      assert record['max_locations'] == MOST
      assert record['captions'] == [f'A cat of {split}.']
  # The order is the data set's, which is not that of the files.
  plain = data.open_split(NAME, 'train', imported)
  order = [record['id'] for record in plain]
  assert order != sorted(order)
  features = regions.open_split(NAME, 'lines', 'train', imported)
  assert [len(rows) for rows in features] == [len(REGIONS[i]) for i in order]
  assert features.shape == (None, D) and features.max_locations == MOST
  assert not (tmp_path / 'run').exists(), 'no encoder is needed'


def test_both_kinds_of_files_give_equal_caches(imported, tmp_path):
  directory = regions.prepare(
    NAME, 'arrays', save_arrays(tmp_path / 'arrays'), imported
  )
  lines = directory.with_name('regions-lines')
  assert contents(directory) == contents(lines)
  assert {path.name for path in directory.iterdir()} == {*IDS, 'regions.json'}
  # So one goes on where the other was stopped.
  (directory / 'regions.json').unlink()
  shard = min((directory / 'test').glob('*.array_record'))
  shard.unlink()
  with pytest.raises(ValueError, match='import them with\n.*--regions=arrays'):
    regions.open_split(NAME, 'arrays', 'train', imported)
  regions.prepare(NAME, 'arrays', save_lines(tmp_path / 'lines'), imported)
  assert contents(directory) == contents(lines)


def test_other_regions_need_another_name(imported, tmp_path):
  (directory,) = save_arrays(tmp_path / 'arrays')
  np.savez(directory / '101', feat=REGIONS['101'] + 1)
  before = contents(data.directory(NAME, imported) / 'regions-lines')
  with pytest.raises(ValueError, match='holds other regions'):
    regions.prepare(NAME, 'lines', [directory], imported)
  after = contents(data.directory(NAME, imported) / 'regions-lines')
  assert after == before
  for wrong in ('', '../x', 'a/b'):
    with pytest.raises(ValueError, match='must be letters'):
      regions.prepare(NAME, wrong, [directory], imported)


def test_regions_of_other_pictures_are_refused(imported, tmp_path):
  directory = data.directory(NAME, imported) / 'regions-lines'
  stale = directory.with_name('regions-stale')
  shutil.copytree(directory, stale)
  path = stale / 'regions.json'
  now = data.fingerprint(NAME, imported)
  path.write_text(path.read_text().replace(now, now[::-1]))
  with pytest.raises(ValueError, match='regions of other images'):
    regions.open_split(NAME, 'stale', 'train', imported)
  with pytest.raises(ValueError, match='or those of other images'):
    regions.prepare(NAME, 'stale', save_lines(tmp_path / 'lines'), imported)


def test_all_problems_are_in_one_error(data_dir, tmp_path):
  (directory,) = save_arrays(tmp_path / 'arrays')
  for i in ('20', '21'):
    (directory / f'{i}.npz').unlink(missing_ok=True)
    (directory / f'{i}.npy').unlink(missing_ok=True)
  for i in ALL[:6]:
    (directory / f'{i}.npz').unlink(missing_ok=True)
  np.save(directory / '100.npy', np.array([{}]), allow_pickle=True)
  np.savez(directory / '101', boxes=np.ones(4))
  np.savez(directory / '102', feat=np.ones((2, 2, D)))
  np.savez(directory / '103', feat=REGIONS['103'] * 1e6)
  np.savez(directory / '104', feat=np.ones((2, D + 1)))
  np.savez(directory / '105', feat=np.ones((2, D), np.int32))
  (directory / '106.npz').write_bytes(b'PK\x03\x04 and no more')
  path = tmp_path / 'some.tsv'
  good = line('3', REGIONS['3'])
  path.write_bytes(
    good
    + line('4', REGIONS['4'] + 1)
    + line('888', REGIONS['3'])
    + line('100', REGIONS['100'], num_boxes=7)
    + line('101', REGIONS['101'], num_boxes=0)
    + line('102', REGIONS['102'], num_boxes='two')
    + b'103\t1\t1\t1\t\tAAA\r\n'
    + b'\n'
    + good[:20]
  )
  with pytest.raises(ValueError, match='gets no regions') as error:
    regions.prepare(NAME, 'bad', [directory, path], data_dir)
  said = str(error.value)
  for problem in (
    '100.npy (id 100): ',
    "101.npz (id 101): no array 'feat', only boxes",
    '102.npz (id 102): float64[2, 2, 3] is not float [N, D]',
    '103.npz (id 103): features are not finite in half precision',
    f'not {D} features wide like the first (1):\n  {directory}/104.npz (id '
    f'104): {D + 1}',
    '105.npz (id 105): int32[2, 3] is not float',
    '106.npz (id 106): ',
    f'other features of the same image (1):\n  {path}, line 2 (id 4): first '
    f'in {directory}/4.np',
    'some.tsv, line 4 (id 100): 3 features of 7 regions',
    'some.tsv, line 5 (id 101): 6 features of 0 regions',
    'some.tsv, line 6 (id 102): invalid literal',
    'some.tsv, line 7 (id 103): Incorrect padding',
    f'lines that have not 6 columns (1):\n  {path}, line 9: ',
    'images of validation without features (2):\n  20\n  21\n',
    'There are features of 2 others, such as 999, 888.',
  ):
    assert problem in said, said
  for unfounded in ('of train without', 'of test without', '(id 3)'):
    assert unfounded not in said
  assert not (data.directory(NAME, data_dir) / 'regions-bad').exists()


def test_missing_pictures_are_counted(data_dir, tmp_path, monkeypatch):
  monkeypatch.setattr(regions, '_MAX_LISTED', 3)
  path = tmp_path / 'none.tsv'
  path.write_bytes(line('3', REGIONS['3']))
  with pytest.raises(ValueError, match='gets no regions') as error:
    regions.prepare(NAME, 'none', [path], data_dir)
  listed = str(error.value).split('of train without features (7):\n')[1]
  ids, rest = listed.split('  and 4 more\n')
  assert len(ids.split()) == 3 and set(ids.split()) <= set(IDS['train'])
  assert rest.startswith('images of validation without features (2):')
  with pytest.raises(ValueError, match='does not exist: pass files .tsv'):
    regions.prepare(NAME, 'none', [tmp_path / 'nowhere'], data_dir)


def test_batches_are_padded_with_zeros(imported, tmp_path):
  config = small_config(imported, regions='lines')
  training = records.open_split(config, tmp_path, 'train')
  make = records.make_examples(config, tmp_path, training)
  rng = np.random.default_rng(0)
  for record in training:
    for example in (make.training(record, rng), make.evaluation(record)):
      rows = REGIONS[example['id']]
      assert example['features'].dtype == np.float16
      assert example['num_locations'].dtype == np.int32
      assert example['num_locations'] == len(rows)
      padding = np.zeros((MOST - len(rows), D))
      np.testing.assert_array_equal(
        example['features'], np.concatenate([rows, padding])
      )
  batches = batching.training_batches(
    training, make.training, batch_size=4, seed=0
  )
  batch = batches[0]
  assert batch['features'].shape == (4, MOST, D)
  expected = [len(REGIONS[i]) for i in batch['id']]
  np.testing.assert_array_equal(batch['num_locations'], expected)
  assert parallel.shard(batch)['num_locations'].shape == (2, 2)


def test_features_of_one_size_have_no_locations(data_dir):
  features = np.ones((4, D), np.float16)
  words = vocabulary.Vocabulary.build(['A cat.'], threshold=1)
  make = examples.Examples(words, small_config(data_dir).data)
  example = make.evaluation(
    {'id': '1', 'captions': ['A cat.'], 'features': features}
  )
  assert set(example) == {'id', 'features', 'tokens'}
  assert example['features'] is features


def test_regions_and_an_encoder_exclude_each_other(imported, tmp_path):
  config = small_config(imported, regions='lines', cache_features=True)
  with pytest.raises(ValueError, match='--config.cache_features=False'):
    records.open_split(config, tmp_path, 'train')


def save_encoder(path, seed):
  network = resnet.ResNet(18, width=2, stem='whole')
  variables = jax.jit(network.init, static_argnames='train')(
    jax.random.key(seed), jnp.zeros((1, 16, 16, 3)), train=False
  )
  path.parent.mkdir(exist_ok=True)
  pretrained.save(path, variables)
  return path


def test_a_run_goes_on_with_the_encoder_and_the_words_of_another(
  data_dir, tmp_path
):
  first, second = tmp_path / 'first', tmp_path / 'second'
  config = small_config(
    data_dir,
    cache_features=True,
    encoder_weights=str(save_encoder(tmp_path / 'a.safetensors', 1)),
  )
  training = records.open_split(config, first, 'train')
  made = records.make_examples(config, first, training)
  cached = os.listdir(data.directory(NAME, data_dir))

  # Neither what is published nor what would be counted.
  config.encoder_weights = str(save_encoder(tmp_path / 'b.safetensors', 2))
  config.data.vocabulary_threshold = 1000
  config.start_from = os.path.relpath(first)
  again = records.open_split(config, second, 'train')
  assert os.listdir(data.directory(NAME, data_dir)) == cached
  assert [r['id'] for r in again] == [r['id'] for r in training]
  for record, expected in zip(again, training, strict=True):
    np.testing.assert_array_equal(record['features'], expected['features'])
  words = records.make_examples(config, second, again).vocabulary
  assert words == made.vocabulary
  assert contents(second) == contents(first)

  # From here on it needs the other no more.
  shutil.rmtree(first)
  records.open_split(config, second, 'train')
  assert records.make_examples(config, second, again).vocabulary == words


def test_what_a_run_cannot_start_from_is_said(data_dir, tmp_path):
  config = small_config(
    data_dir, cache_features=True, start_from=str(tmp_path / 'nothing')
  )
  path = tmp_path / 'nothing' / feature_cache.ENCODER_FILE
  with pytest.raises(FileNotFoundError, match=f'{path} does not exist: that'):
    records.open_split(config, tmp_path / 'run', 'train')
  with pytest.raises(FileNotFoundError, match='vocabulary.json does not exist'):
    records.make_examples(config, tmp_path / 'run', [])
  assert not (tmp_path / 'run').exists()


def test_the_script_imports_and_says_what(data_dir, tmp_path):
  paths = save_lines(tmp_path / 'lines')
  command = [
    sys.executable,
    ROOT / 'scripts' / 'import_regions.py',
    f'--name={NAME}',
    f'--data_dir={data_dir}',
    '--regions=script',
    '--input',
  ]
  run = dict(capture_output=True, text=True, cwd=ROOT)
  refused = subprocess.run([*command, paths[0]], **run)
  assert refused.returncode == 2
  assert 'Traceback' not in refused.stderr
  assert 'without features' in refused.stderr
  finished = subprocess.run([*command, *paths], **run)
  assert finished.returncode == 0, finished.stderr
  assert finished.stdout.startswith('train: 7\nvalidation: 2\ntest: 3\n')
  assert f'At most {MOST} regions of {D} features: ' in finished.stdout
  assert len(regions.open_split(NAME, 'script', 'test', data_dir)) == 3
