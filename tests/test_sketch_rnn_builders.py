"""Data sets are prepared once, whole, and from what the files say."""

import functools
import http.server
import pathlib
import subprocess
import sys
import threading
import unicodedata

import ml_collections
import numpy as np
import pytest

from sketch_rnn import builders
from sketch_rnn import examples
from sketch_rnn import file_formats
from sketch_rnn import kanji
from sketch_rnn import strokes

ROOT = pathlib.Path(__file__).parents[1]
COUNTS = {'train': 6, 'valid': 2, 'test': 3}


def drawing(rng):
  rows = rng.integers(-50, 50, size=(rng.integers(3, 9), 3)).astype(np.int16)
  rows[:, 2] = 0
  rows[-1, 2] = 1
  return rows


def save_npz(path, seed=0, extra=()):
  """A small file in the published format; `extra` drawings come last."""
  rng = np.random.default_rng(seed)
  contents = {}
  for name, count in COUNTS.items():
    drawings = [drawing(rng) for _ in range(count)]
    drawings += extra if name == 'train' else ()
    contents[name] = np.empty(len(drawings), object)
    for i, rows in enumerate(drawings):
      contents[name][i] = rows
  np.savez(path, **contents)
  return path


def records(name, split, data_dir):
  split = examples.open_split(name, split, data_dir)
  return {record['id']: record for record in split}


def test_prepared_drawings_are_those_of_the_file(tmp_path):
  path = save_npz(tmp_path / 'cat.npz')
  sketches, report = file_formats.load([path])
  assert not report
  assert builders.prepare('mine', sketches, tmp_path) == ['sketches/mine']
  with np.load(path, allow_pickle=True) as arrays:
    for theirs, split in (
      ('train', 'train'),
      ('valid', 'validation'),
      ('test', 'test'),
    ):
      found = records('sketches/mine', split, tmp_path)
      assert len(found) == COUNTS[theirs]
      for i, rows in enumerate(arrays[theirs]):
        record = found[f'cat-{split}-{i:05d}']
        assert record['category'] == 'cat'
        assert record['strokes'].dtype == np.float32
        np.testing.assert_array_equal(record['strokes'], rows)
  with pytest.raises(FileExistsError, match='delete it, or choose another'):
    builders.prepare('mine', sketches, tmp_path)


def test_the_fingerprint_is_that_of_the_contents(tmp_path):
  for name, seed in (('a', 0), ('b', 0), ('c', 1)):
    directory = tmp_path / name
    directory.mkdir()
    sketches, _ = file_formats.load([save_npz(directory / 'cat.npz', seed)])
    builders.prepare('mine', sketches, directory)
  prints = [builders.fingerprint('sketches/mine', tmp_path / n) for n in 'abc']
  assert prints[0] == prints[1] != prints[2]
  assert len(prints[0]) == 16


def test_splits_by_hash_are_the_same_everywhere():
  """These are what the hash says, once and for all."""
  rows = np.zeros((2, 3), np.float32)
  splits = [
    builders.split_of(file_formats.Sketch(str(i), rows, 'cat'))
    for i in range(10000)
  ]
  first = ['train', 'validation', 'test']
  assert [splits.index(split) for split in first] == [1, 0, 14]
  assert abs(splits.count('validation') - 1000) < 100
  assert abs(splits.count('test') - 1000) < 100
  said = file_formats.Sketch('0', rows, 'cat', 'test')
  assert builders.split_of(said) == 'test'


def test_quickdraws_categories_from_files(tmp_path):
  """Each becomes a data set, whichever file it comes from."""
  directory = tmp_path / 'files'
  directory.mkdir()
  save_npz(directory / 'cat.npz')
  save_npz(directory / 'The Mona Lisa.npz', seed=1)
  sketches, _ = file_formats.load([directory])
  assert builders.prepare('quickdraw_sketches', sketches, tmp_path) == [
    'quickdraw_sketches/The Mona Lisa',
    'quickdraw_sketches/cat',
  ]
  for name in ('The Mona Lisa', 'The_Mona_Lisa'):
    found = records(f'quickdraw_sketches/{name}', 'test', tmp_path)
    assert {r['category'] for r in found.values()} == {'The Mona Lisa'}
  both = examples.open_split(
    'quickdraw_sketches', 'train', tmp_path, ('cat', 'The Mona Lisa')
  )
  assert [r['category'] for r in both] == ['cat'] * 6 + ['The Mona Lisa'] * 6
  config = ml_collections.ConfigDict(
    dict(
      name='quickdraw_sketches',
      data_dir=str(tmp_path),
      categories=('cat', 'The Mona Lisa'),
    )
  )
  prints = {examples.fingerprint(config)}
  for category in config.categories:
    config.categories = (category,)
    prints.add(examples.fingerprint(config))
  assert len(prints) == 3
  sketches = [file_formats.Sketch('1', sketches[0].strokes, 'unicorn')]
  with pytest.raises(ValueError, match="'unicorn' is none of the 345"):
    builders.prepare('quickdraw_sketches', sketches, tmp_path)


class Handler(http.server.SimpleHTTPRequestHandler):
  """Serves a directory, silently."""

  def log_message(self, *unused):
    del unused


@pytest.fixture
def server(tmp_path, monkeypatch):
  """What stands for the published files, in the directory it returns."""
  directory = tmp_path / 'published'
  directory.mkdir()
  handler = functools.partial(Handler, directory=directory)
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as httpd:
    url = f'http://127.0.0.1:{httpd.server_port}/'
    monkeypatch.setattr(builders, 'QUICKDRAW_URL', url)
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield directory
    httpd.shutdown()
    thread.join()


def test_quickdraws_categories_are_downloaded(server, tmp_path):
  path = save_npz(
    server / 'The Mona Lisa.npz', extra=[np.zeros((1, 3), np.int16)]
  )
  name = 'quickdraw_sketches/The Mona Lisa'
  found = records(name, 'train', tmp_path)
  assert len(found) == 6  # Without the malformed one.
  with np.load(path, allow_pickle=True) as arrays:
    np.testing.assert_array_equal(
      found['The Mona Lisa-train-00003']['strokes'], arrays['train'][3]
    )
  assert {r['category'] for r in found.values()} == {'The Mona Lisa'}
  path.unlink()  # It is not needed again.
  assert len(records(name, 'test', tmp_path)) == 3


@pytest.mark.usefixtures('server')
def test_what_cannot_be_downloaded(tmp_path):
  with pytest.raises(FileNotFoundError, match='prepare_sketches.py') as error:
    examples.open_split('quickdraw_sketches/cat', 'train', tmp_path)
  assert '404' in str(error.value)
  assert f'--data_dir={tmp_path}' in str(error.value)


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('quickdraw_sketches/unicorn', "'unicorn' is none of the 345"),
    ('quickdraw_sketches', 'needs categories'),
    ('sketches/../x', 'must be a letter'),
    ('doodles', "'doodles' is not a data set: pass kanji"),
  ],
)
def test_unknown_names(tmp_path, name, message):
  with pytest.raises(ValueError, match=message):
    examples.open_split(name, 'train', tmp_path)


def test_names_of_what_is_not_there(tmp_path):
  with pytest.raises(FileNotFoundError, match='--name=mine --data_dir='):
    examples.open_split('sketches/mine', 'train', tmp_path)
  with pytest.raises(ValueError, match="split='valid' must be one of train"):
    examples.open_split('sketches/mine', 'valid', tmp_path)


def test_the_script_prepares_and_reports(tmp_path):
  save_npz(tmp_path / 'cat.npz', extra=[np.zeros((1, 3), np.int16)])
  command = [
    sys.executable,
    'scripts/prepare_sketches.py',
    '--name=mine',
    f'--input={tmp_path / "cat.npz"}',
    f'--data_dir={tmp_path / "data"}',
  ]
  run = functools.partial(
    subprocess.run, capture_output=True, text=True, cwd=ROOT
  )
  failed = run(command)
  assert failed.returncode == 2
  assert 'train[6]: only one point' in failed.stderr
  assert not (tmp_path / 'data').exists()
  done = run([*command, '--skip_bad'])
  assert done.returncode == 0, done.stderr
  assert 'train[6]: only one point' in done.stdout
  name = 'sketches/mine: train 6, validation 2, test 3, fingerprint '
  fingerprint = builders.fingerprint('sketches/mine', tmp_path / 'data')
  assert f'{name}{fingerprint}' in done.stdout


# Kanji


def test_kanji_are_written_stroke_by_stroke():
  """The numbers of strokes are those of dictionaries."""
  counts = {'一': 1, '二': 2, '三': 3, '人': 2, '口': 3, '永': 5, '龍': 16}
  found = dict.fromkeys(counts)
  for character in counts:
    path = kanji.directory() / f'{ord(character):05x}.svg'
    sketch = kanji.read(path)
    assert sketch.id == f'U+{ord(character):04X}'
    strokes.check(sketch.strokes)
    lines = strokes.to_lines(sketch.strokes)
    found[character] = len(lines)
    points = np.concatenate(lines)
    assert np.all(np.ptp(points, axis=0) < 256)
  assert found == counts
  # 三: three lines from left to right, one below the other.
  lines = strokes.to_lines(kanji.read(kanji.directory() / '04e09.svg').strokes)
  for line in lines:
    x, y = line[-1] - line[0]
    assert x > 5 * abs(y)
  heights = [line[:, 1].mean() for line in lines]
  assert heights == sorted(heights)


def test_kanji_are_cjk_characters_without_variants():
  paths = kanji.paths()
  assert len(paths) > 6000
  for path in paths:
    character = chr(int(path.stem, 16))
    assert unicodedata.name(character).startswith('CJK UNIFIED IDEOGRAPH')


def test_the_embedded_data_set(tmp_path, monkeypatch):
  """Prepared at first use, by whoever comes first; here only every 50th."""
  paths = kanji.paths()[::50]
  monkeypatch.setattr(kanji, 'paths', lambda: paths)
  found = {}
  for split in builders.SPLITS:
    part = records('kanji', split, tmp_path)
    assert part.keys().isdisjoint(found)
    found |= part
  assert len(found) == len(paths)
  for path in paths:
    sketch = kanji.read(path)
    record = found[sketch.id]
    np.testing.assert_array_equal(record['strokes'], sketch.strokes)
    assert record['category'] == 'kanji'
  monkeypatch.setattr(kanji, 'paths', None)  # It is not made again.
  assert len(records('kanji', 'train', tmp_path)) > 80
