import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from training import batching
from video import data
from video import frames
from video import sampling
from video.sources import clips
from video.sources import fingertips
from video.sources import tracks
from video.sources import utd_mhad
from video.synthetic import event_captions
from video.synthetic import gesture_stream
from video.synthetic import occlusion_track
from video.synthetic import ordered_motion

ROOT = pathlib.Path(__file__).parents[1]
SYNTHETIC = {
  'ordered_motion': ordered_motion,
  'gesture_stream': gesture_stream,
  'event_captions': event_captions,
  'occlusion_track': occlusion_track,
}
SIZES = {'train': 3, 'validation': 1, 'test': 2}


def pixels(count, channels=3, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(256, size=(count, 8, 10, channels), dtype=np.uint8)


def assert_equal_records(actual, expected):
  assert actual.keys() == expected.keys()
  for key, value in expected.items():
    if isinstance(value, np.ndarray):
      np.testing.assert_array_equal(actual[key], value)
      assert actual[key].dtype == value.dtype
    else:
      assert actual[key] == value and type(actual[key]) is type(value)


def in_order(split):
  return sorted(split, key=lambda record: record['id'])


@pytest.mark.parametrize('name', SYNTHETIC)
def test_synthetic_data_sets_read_back(name, tmp_path, monkeypatch):
  module = SYNTHETIC[name]
  monkeypatch.setattr(module, 'SIZES', SIZES)
  for split, count in SIZES.items():
    records = data.open_split(name, split, tmp_path)
    assert len(records) == count
    for i, record in enumerate(in_order(records)):
      assert_equal_records(record, module.example(split, i))
  copy = pickle.loads(pickle.dumps(records))
  assert_equal_records(copy[0], records[0])
  assert data.class_names(name, tmp_path) == getattr(module, 'CLASSES', ())
  assert data.splits(name, tmp_path) == clips.SPLITS
  assert data.directory(name, tmp_path).is_relative_to(tmp_path / name)


def test_a_sum_of_splits_has_the_records_of_all(tmp_path, monkeypatch):
  monkeypatch.setattr(ordered_motion, 'SIZES', SIZES)

  def names(split):
    return [r['id'] for r in data.open_split('ordered_motion', split, tmp_path)]

  assert names('train+validation') == names('train') + names('validation')
  for wrong in ('val', 'train+train', '', 'train[:1]'):
    with pytest.raises(ValueError, match='must be one of train, validation'):
      names(wrong)


def test_pairs_of_shapes_are_a_data_set_of_their_own(tmp_path, monkeypatch):
  monkeypatch.setattr(event_captions, 'SIZES', SIZES)
  name = 'event_captions/pairs'
  for i, record in enumerate(
    in_order(data.open_split(name, 'train', tmp_path))
  ):
    expected = event_captions.example('train', i, pairs=0.5)
    assert_equal_records(record, expected)
  assert data.fingerprint(name, tmp_path) != data.fingerprint(
    'event_captions', tmp_path
  )
  assert not data.class_names(name, tmp_path)


def test_synthetic_data_over_images_has_a_name(tmp_path, monkeypatch):
  monkeypatch.setattr(ordered_motion, 'SIZES', SIZES)
  images = tmp_path / 'images'
  images.mkdir()
  for i in range(20):
    Image.fromarray(pixels(1, seed=i)[0]).resize((64, 48)).save(
      images / f'{i}.png'
    )
  name = 'ordered_motion/mine'
  with pytest.raises(FileNotFoundError, match=f'{name} .*--images=...'):
    data.open_split(name, 'train', tmp_path / 'tfds')
  data.prepare_synthetic(name, images, tmp_path / 'tfds')
  for i, record in enumerate(
    in_order(data.open_split(name, 'test', tmp_path / 'tfds'))
  ):
    expected = ordered_motion.example('test', i, images=images)
    assert_equal_records(record, expected)
  with pytest.raises(FileExistsError, match='delete it'):
    data.prepare_synthetic(name, images, tmp_path / 'tfds')
  for wrong in ('ordered_motion', 'clips/mine', 'event_captions/pairs'):
    with pytest.raises(ValueError, match='a slash and a name other'):
      data.prepare_synthetic(wrong, images, tmp_path / 'tfds')


def test_two_processes_may_ask_at_once(tmp_path):
  program = (
    'from video import data\n'
    'from video.synthetic import ordered_motion\n'
    f'ordered_motion.SIZES = {SIZES}\n'
    f'split = data.open_split("ordered_motion", "train", {str(tmp_path)!r})\n'
    f'print(len(split), data.fingerprint("ordered_motion", {str(tmp_path)!r}))'
  )
  processes = [
    subprocess.Popen(
      [sys.executable, '-c', program],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      cwd=ROOT,
    )
    for _ in range(2)
  ]
  results = [process.communicate() for process in processes]
  assert [process.returncode for process in processes] == [0] * 2, results
  last_lines = {output.splitlines()[-1] for output, _ in results}
  assert len(last_lines) == 1 and last_lines.pop().startswith('3 ')


def clip(name, split, content, **kwargs):
  return clips.Clip(name, split, content, **kwargs)


def test_clips_read_back(tmp_path):
  moving = pixels(5)
  for i in range(3):
    folder = tmp_path / 'folder'
    folder.mkdir(exist_ok=True)
    Image.fromarray(moving[i]).save(folder / f'{i}.png')
  np.save(tmp_path / 'file.npy', moving)
  frames.write(tmp_path / 'file.mp4', np.repeat(moving, 4, axis=0), rate=24)
  data.prepare(
    'clips/toy',
    [
      clip('a', 'train', moving, label='run', group='g1'),
      clip('b', 'train', tmp_path / 'folder', label='jump'),
      clip('c', 'train', tmp_path / 'file.npy', label='run'),
      clip('d', 'test', tmp_path / 'file.mp4', label='jump'),
    ],
    tmp_path,
    rate=6,
  )
  assert data.class_names('clips/toy', tmp_path) == ('run', 'jump')
  assert data.rate('clips/toy', tmp_path) == 6
  assert data.splits('clips/toy', tmp_path) == ('train', 'test')
  train = data.open_split('clips/toy', 'train', tmp_path)
  found = {
    r['id']: (np.asarray(r['frames']), r['label'], r['group']) for r in train
  }
  for name, count, label, group in (
    ('a', 5, 0, 'g1'),
    ('b', 3, 1, ''),
    ('c', 5, 0, ''),
  ):
    np.testing.assert_array_equal(found[name][0], moving[:count])
    assert found[name][1:] == (label, group)
  (test,) = data.open_split('clips/toy', 'test', tmp_path)
  assert test['frames'].shape == (5, 8, 10, 3)  # Every fourth.
  expected = frames.read(tmp_path / 'file.mp4', rate=6)
  difference = np.asarray(test['frames']).astype(int) - expected
  assert np.abs(difference).mean() < 30  # Noise is what JPEG keeps worst.
  with pytest.raises(ValueError, match="no split 'validation', only"):
    data.open_split('clips/toy', 'validation', tmp_path)


def test_clips_are_resized_and_may_be_grey(tmp_path):
  depth = pixels(4, channels=1)
  data.prepare(
    'clips/toy', [clip('a', 'train', depth, label='x')], tmp_path, resize=4
  )
  (record,) = data.open_split('clips/toy', 'train', tmp_path)
  np.testing.assert_array_equal(
    record['frames'], sampling.resize_short_side(depth, 4)
  )
  assert record['frames'].shape == (4, 4, 5, 1)
  assert data.rate('clips/toy', tmp_path) is None
  mixed = [
    clip('a', 'train', depth, label='x'),
    clip('b', 'train', pixels(2), label='x'),
  ]
  with pytest.raises(ValueError, match='b has 3 channels, others 1'):
    data.prepare('clips/mixed', mixed, tmp_path)
  with pytest.raises(FileNotFoundError, match='clips/mixed is not in'):
    data.open_split('clips/mixed', 'train', tmp_path)


def test_captioned_clips_read_back(tmp_path):
  captions = ('a man sings', 'çà et là')
  data.prepare(
    'captioned_clips/toy',
    [clip('video0', 'validation', pixels(3), captions=captions)],
    tmp_path,
  )
  (record,) = data.open_split('captioned_clips/toy', 'validation', tmp_path)
  np.testing.assert_array_equal(record.pop('frames')[1:], pixels(3)[1:])
  assert record == {'id': 'video0', 'captions': list(captions), 'group': ''}
  assert data.class_names('captioned_clips/toy', tmp_path) == ()


def test_skeletons_read_back(tmp_path):
  values = np.random.default_rng(0).normal(size=(2, 6, 4)).astype(np.float32)
  items = [
    fingertips.Features('a', 'train', values[0], 'wave', 's1'),
    fingertips.Features('b', 'train', values[1, :3], 'clap', 's3'),
  ]
  data.prepare('skeletons/toy', items, tmp_path)
  records = in_order(data.open_split('skeletons/toy', 'train', tmp_path))
  for record, item, label in zip(records, items, (0, 1), strict=True):
    assert_equal_records(
      record,
      {
        'id': item.id,
        'features': item.features,
        'label': label,
        'group': item.group,
      },
    )
  assert data.class_names('skeletons/toy', tmp_path) == ('wave', 'clap')
  with pytest.raises(ValueError, match='for clips only'):
    data.prepare('skeletons/other', items, tmp_path, resize=4)


def test_tracks_read_back_as_they_were_stored(tmp_path):
  paths = [tmp_path / f'{i}.jpg' for i in range(3)]
  for path, picture in zip(paths, pixels(3), strict=True):
    Image.fromarray(picture).save(path)
  boxes = np.arange(12, dtype=np.float32).reshape(3, 4)
  hidden = np.array([False, False, True])
  item = tracks.Track('skiing', 'test', tuple(paths), boxes, hidden)
  data.prepare('tracks/toy', [item], tmp_path)
  (record,) = data.open_split('tracks/toy', 'test', tmp_path)
  assert record['id'] == 'skiing'
  assert record['frames']._files == [path.read_bytes() for path in paths]
  np.testing.assert_array_equal(record['boxes'], boxes)
  np.testing.assert_array_equal(record['hidden'], hidden)


def test_files_that_end_in_zeros_are_whole(tmp_path):
  """Which fixed-length strings of NumPy would not be."""
  path = tmp_path / 'a.jpg'
  Image.fromarray(pixels(1)[0]).save(path)
  path.write_bytes(path.read_bytes() + bytes(3))
  box = np.ones((2, 4), np.float32)
  item = tracks.Track('a', 'test', (path, path), box, np.zeros(2, bool))
  data.prepare('tracks/toy', [item], tmp_path)
  (record,) = data.open_split('tracks/toy', 'test', tmp_path)
  assert record['frames']._files == [path.read_bytes()] * 2


def test_the_fingerprint_follows_the_contents(tmp_path):
  fingerprints = []
  for i, changes in enumerate(
    ({}, {}, {'label': 'y'}, {'group': 'g'}, {'frames': pixels(2, seed=1)})
  ):
    arguments = {'frames': pixels(2), 'label': 'x', **changes}
    item = clips.Clip('a', 'train', **arguments)
    data.prepare('clips/toy', [item], tmp_path / str(i))
    fingerprints.append(data.fingerprint('clips/toy', tmp_path / str(i)))
  assert fingerprints[0] == fingerprints[1]
  assert len(set(fingerprints)) == 4


def test_batches_are_made_of_records(tmp_path):
  items = [
    clip(str(i), 'train', pixels(6, seed=i), label='x') for i in range(4)
  ]
  data.prepare('clips/toy', items, tmp_path)

  def example(record, rng):
    chosen = record['frames'][sampling.spread(len(record['frames']), 3, rng)]
    return {
      'frames': sampling.for_training(chosen, rng, resize=8, crop=6, flip=True),
      'label': np.int32(record['label']),
    }

  batches = batching.training_batches(
    data.open_split('clips/toy', 'train', tmp_path),
    example,
    batch_size=2,
    seed=0,
  )
  first = batches[0]
  assert first['frames'].shape == (2, 3, 6, 6, 3)
  np.testing.assert_array_equal(first['frames'], batches[0]['frames'])
  read = next(batching.read(batches))
  np.testing.assert_array_equal(first['frames'], read['frames'])


def test_wrong_names_are_refused(tmp_path):
  for wrong in ('kinetics', 'clips', 'clip/x'):
    with pytest.raises(ValueError, match=f"'{wrong}' is no data set: pass ord"):
      data.open_split(wrong, 'train', tmp_path)
  with pytest.raises(ValueError, match='must be a letter'):
    data.open_split('clips/../x', 'train', tmp_path)
  with pytest.raises(ValueError, match='must be one of clips, captioned'):
    data.prepare('ordered_motion', [], tmp_path)
  with pytest.raises(
    FileNotFoundError, match='prepare_clips.py --name=clips/mine --data_dir='
  ):
    data.open_split('clips/mine', 'train', tmp_path)


def test_ucf101_of_tfds(tmp_path):
  pytest.importorskip('tensorflow', reason='TFDS prepares it with TensorFlow')
  with pytest.raises(
    FileNotFoundError, match=r"tfds.builder\('ucf101/ucf101_1_256'"
  ):
    data.open_split('ucf101', 'train', tmp_path)
  base = type(tfds.builder('ucf101', data_dir=tmp_path))
  pictures = [Image.fromarray(picture) for picture in pixels(3)]
  labels = ('Diving', 'Archery', 'Basketball')

  class Ucf101(base, skip_registration=True):
    """The published builder, fed with other frames."""

    def _split_generators(self, dl_manager):
      counts = {'train': 10, 'test': 1}
      return {part: self._generate_examples(n) for part, n in counts.items()}

    def _generate_examples(self, count):
      resized = [np.asarray(p.resize((256, 256))) for p in pictures]
      for i in range(count):
        yield str(i), {'video': resized, 'label': labels[i % 3]}

  Ucf101(config='ucf101_1_256', data_dir=tmp_path).download_and_prepare(
    file_format='array_record'
  )
  names = data.class_names('ucf101', tmp_path)
  assert len(names) == 101
  (record,) = data.open_split('ucf101', 'test', tmp_path)
  assert record['frames'].shape == (3, 256, 256, 3)
  assert names[record['label']] == 'Diving'
  assert record['id'] == 'ucf101-test-00000'
  # A tenth of what is trained on.
  assert data.splits('ucf101', tmp_path) == clips.SPLITS
  parts = [
    [record['label'] for record in data.open_split('ucf101', part, tmp_path)]
    for part in ('train', 'validation', 'train+validation')
  ]
  assert [len(part) for part in parts] == [9, 1, 10]
  assert parts[0] + parts[1] == parts[2]
  assert (
    len(
      {
        record['label']
        for record in data.open_split('ucf101', 'train', tmp_path)
      }
    )
    == 3
  )


def test_davis_of_tfds(tmp_path):
  pytest.importorskip('tensorflow', reason='TFDS prepares it with TensorFlow')
  with pytest.raises(FileNotFoundError, match=r"tfds.builder\('davis/480p'"):
    data.open_split('davis', 'validation', tmp_path)
  base = type(tfds.builder('davis', data_dir=tmp_path))
  pictures = pixels(3)
  # Two things, one of which is not in the second frame; a third one comes.
  things = np.zeros((3, 8, 10, 1), np.uint8)
  things[0, 2:5, 1:4] = things[2, 4:7, 3:6] = 2
  things[:, 0, 8:] = 1
  things[1:, 7, 9] = 3
  things[0, 0, 0] = 255

  class Davis(base, skip_registration=True):
    """The published builder, fed with other frames."""

    def _split_generators(self, dl_manager):
      return {'validation': self._generate_examples()}

    def _generate_examples(self):
      for name, step in (('swan', 1), ('bear', -1)):
        video = {
          'frames': list(pictures[::step]),
          'segmentations': list(things[::step]),
        }
        metadata = {'num_frames': 3, 'video_name': name}
        yield name, {'video': video, 'metadata': metadata}

  Davis(config='480p', data_dir=tmp_path).download_and_prepare(
    file_format='array_record'
  )
  records = in_order(data.open_split('davis', 'validation', tmp_path))
  assert [r['id'] for r in records] == [
    *('bear-1', 'bear-2', 'bear-3'),
    *('swan-1', 'swan-2'),
  ]
  found = records[4]
  np.testing.assert_array_equal(found['frames'], pictures)
  np.testing.assert_array_equal(
    found['boxes'], [[1, 2, 3, 3], [0, 0, 0, 0], [3, 4, 3, 3]]
  )
  np.testing.assert_array_equal(found['hidden'], [False, True, False])
  np.testing.assert_array_equal(records[3]['boxes'], [[8, 0, 2, 1]] * 3)
  np.testing.assert_array_equal(records[1]['boxes'], found['boxes'][::-1])
  with pytest.raises(ValueError, match="no split 'test', only validation"):
    data.open_split('davis', 'test', tmp_path)


def test_ucf101_without_tensorflow_says_what_to_do(tmp_path, monkeypatch):
  def builder(name, **kwargs):
    raise ModuleNotFoundError('No module named tensorflow')

  monkeypatch.setattr(tfds, 'builder', builder)
  with pytest.raises(ImportError, match=r'\[tensorflow\].*\s.*--layout=ucf101'):
    data.open_split('ucf101', 'train', tmp_path)


def run_script(*args):
  return subprocess.run(
    [sys.executable, ROOT / 'scripts' / 'prepare_clips.py', *args],
    capture_output=True,
    text=True,
    cwd=ROOT,
  )


def test_the_script_prepares_a_data_set_that_reads_back(tmp_path):
  videos = tmp_path / 'videos'
  for name in ('train/run/a.mp4', 'test/run/b.mp4'):
    (videos / name).parent.mkdir(parents=True)
    frames.write(videos / name, np.zeros((4, 32, 48, 3), np.uint8))
  (videos / 'train' / 'run' / 'bad.mp4').write_bytes(b'nothing')
  args = [
    '--name=clips/toy',
    f'--input={videos}',
    f'--data_dir={tmp_path / "tfds"}',
    '--resize=16',
  ]
  refused = run_script(*args)
  assert refused.returncode == 2
  assert 'bad.mp4' in refused.stderr and 'Traceback' not in refused.stderr
  assert not (tmp_path / 'tfds').exists()
  prepared = run_script(*args, '--skip_bad')
  assert prepared.returncode == 0, prepared.stderr
  assert 'bad.mp4' in prepared.stdout
  assert 'train: 1\ntest: 1\n' in prepared.stdout
  fingerprint = data.fingerprint('clips/toy', tmp_path / 'tfds')
  assert fingerprint in prepared.stdout
  (record,) = data.open_split('clips/toy', 'train', tmp_path / 'tfds')
  assert record['frames'].shape == (4, 16, 24, 3)
  again = run_script(*args, '--skip_bad')
  assert again.returncode == 2 and 'exists already' in again.stderr


def test_real_sequences_read_back(shared, tmp_path):
  root = shared / 'data'
  skeletons, _ = utd_mhad.skeletons(root / 'utd_mhad')
  data.prepare('skeletons/utd_mhad', skeletons, tmp_path)
  assert data.class_names('skeletons/utd_mhad', tmp_path) == utd_mhad.ACTIONS
  by_id = {skeleton.id: skeleton for skeleton in skeletons}
  split = data.open_split('skeletons/utd_mhad', 'train+validation', tmp_path)
  assert len(split) == 431
  for record in (split[0], split[430]):
    np.testing.assert_array_equal(
      record['features'], by_id[record['id']].features
    )
  found, _ = tracks.read(root / 'otb')
  data.prepare('tracks/otb', found, tmp_path)
  records = in_order(data.open_split('tracks/otb', 'test', tmp_path))
  assert [record['frames'].shape for record in records] == [
    (120, 240, 360, 3),
    (81, 360, 640, 3),
  ]
