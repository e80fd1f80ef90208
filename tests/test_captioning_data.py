import json
import pathlib
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from captioning import data
from captioning import scenes
from captioning import sources
from captioning import vocabulary

ROOT = pathlib.Path(__file__).parents[1]
SPLITS = {'train': 6, 'validation': 3, 'test': 4}


def save_picture(path, shade=0):
  Image.new('RGB', (9, 7), (shade, 90, 30)).save(path)


def karpathy(directory):
  """Four good pictures and one of each problem; returns the JSON's path."""
  pictures = [
    ('one.png', 'train', 1, ['A dog.', 'Two\ndogs.']),
    ('two.jpg', 'restval', 2, ['A cat.']),
    ('three.png', 'val', 3, ['A bird.']),
    ('four.png', 'test', 4, ['A fish.', ' ']),
    ('missing.png', 'test', 5, ['A cow.']),
    ('broken.png', 'test', 6, ['A horse.']),
    ('silent.png', 'test', 7, []),
    ('wordless.png', 'test', 8, [' . ']),
    ('again.png', 'test', 1, ['A goat.']),
    ('strange.png', 'holdout', 9, ['A frog.']),
  ]
  directory.mkdir(exist_ok=True)
  for i, (name, *_) in enumerate(pictures):
    if name == 'broken.png':
      (directory / name).write_bytes(b'not a picture')
    elif name != 'missing.png':
      save_picture(directory / name, shade=10 * i)
  records = [
    {
      'filename': name,
      'split': split,
      'cocoid': number,
      'sentences': [{'raw': caption} for caption in captions],
    }
    for name, split, number, captions in pictures
  ]
  records.append({'filename': 'nothing.png', 'split': 'test'})
  records.append({**records[0], 'sentences': [{'raw': 5}]})
  path = directory / 'dataset_toy.json'
  path.write_text(json.dumps({'images': records}))
  return path


def flickr8k(directory):
  """Two good pictures and what real copies of Flickr8k suffer from."""
  directory.mkdir(exist_ok=True)
  pictures = directory / 'images'
  pictures.mkdir()
  for name in ('a.jpg', 'b.jpg', 'unlisted.jpg', 'silent.jpg'):
    save_picture(pictures / name, shade=len(name))
  lists = {
    'train': ['a.jpg', 'absent.jpg'],
    'dev': ['b.jpg', 'a.jpg'],
    'test': ['silent.jpg'],
  }
  for word, names in lists.items():
    path = directory / f'Flickr_8k.{word}Images.txt'
    path.write_text('\n'.join(names) + '\n')
  path = directory / 'Flickr8k.token.txt'
  path.write_text(
    'a.jpg#0\tA dog .\n'
    'a.jpg#1\tA brown dog .\n'
    'no tab here\n'
    'b.jpg#0\tA cat .\n'
    'unlisted.jpg#0\tA cow .\n'
    'absent.jpg#0\tA goat .\n'
    'odd.jpg.1#0\tA frog .\n'
  )
  return pictures, path


def test_all_problems_are_in_one_error(tmp_path):
  path = karpathy(tmp_path / 'toy')
  with pytest.raises(ValueError) as error:
    sources.load(path.parent, path)
  text = str(error.value)
  assert '--skip_bad' in text
  for problem in (
    "of another type (2):\n  images[10]: 'sentences'\n  images[11]: ",
    "unknown split (1):\n  images[9], strange.png: 'holdout'",
    'there before (1):\n  again.png (id 1)',
    'without a word (2):\n  four.png (id 4)\n  wordless.png (id 8)',
    'without captions (2):\n  silent.png (id 7)\n  wordless.png (id 8)',
    f'missing image (1):\n  {path.parent / "missing.png"}',
    f'cannot be decoded (1):\n  cannot decode {path.parent / "broken.png"}',
  ):
    assert problem in text


def test_skip_bad_skips_what_is_bad_and_nothing_else(tmp_path):
  path = karpathy(tmp_path / 'toy')
  pictures, report = sources.load(path.parent, path, skip_bad=True)
  assert [(p.id, p.split, p.captions) for p in pictures] == [
    ('1', 'train', ['A dog.', 'Two dogs.']),
    ('2', 'train', ['A cat.']),
    ('3', 'validation', ['A bird.']),
    ('4', 'test', ['A fish.']),
  ]
  assert 'broken.png' in report


def test_flickr8k_problems_are_in_one_error(tmp_path):
  images, path = flickr8k(tmp_path / 'toy')
  with pytest.raises(ValueError) as error:
    sources.load(images, path, splits=path.parent)
  for problem in (
    "name.jpg#k<TAB>caption (1):\n  line 3: 'no tab here'",
    'in a split list, but no such image (1):\n  absent.jpg',
    'in no split list (1):\n  unlisted.jpg',
    'captions, but no such image (2):\n  absent.jpg\n  odd.jpg.1',
    'there before (1):\n  a.jpg',
    'image without captions (1):\n  silent.jpg',
  ):
    assert problem in str(error.value)
  pictures, _ = sources.load(images, path, splits=path.parent, skip_bad=True)
  assert [(p.id, p.split, len(p.captions)) for p in pictures] == [
    ('a.jpg', 'train', 2),
    ('b.jpg', 'validation', 1),
  ]


def test_long_lists_of_problems_are_cut(tmp_path):
  path = tmp_path / 'dataset_toy.json'
  record = {'split': 'test', 'sentences': [{'raw': 'A dog.'}]}
  records = [{**record, 'filename': f'{i:02d}.jpg'} for i in range(30)]
  path.write_text(json.dumps({'images': records}))
  with pytest.raises(ValueError, match='missing image') as error:
    sources.load(tmp_path, path)
  assert '19.jpg\n  and 10 more' in str(error.value)
  assert '20.jpg' not in str(error.value)
  with pytest.raises(ValueError, match='nothing is left'):
    sources.load(tmp_path, path, skip_bad=True)


@pytest.mark.parametrize('text', ['{"images": [', '[]', '{"pictures": []}'])
def test_what_is_not_a_data_set_is_refused(tmp_path, text):
  path = tmp_path / 'dataset_toy.json'
  path.write_text(text)
  with pytest.raises(ValueError, match=r'dataset_toy.json is not (a )?JSON'):
    sources.load(tmp_path, path)


def test_missing_arguments_are_named(tmp_path):
  images, path = flickr8k(tmp_path / 'toy')
  with pytest.raises(ValueError, match='not a directory'):
    sources.load(tmp_path / 'nowhere', path)
  with pytest.raises(ValueError, match='directory of the lists'):
    sources.load(images, path)
  (path.parent / 'Flickr_8k.devImages.txt').unlink()
  with pytest.raises(ValueError, match=r'one file \*devImages.txt, not 0'):
    sources.load(images, path, splits=path.parent)


def run_script(*args):
  return subprocess.run(
    [sys.executable, ROOT / 'scripts' / 'prepare_captions.py', *args],
    capture_output=True,
    text=True,
    cwd=ROOT,
  )


def test_the_script_prepares_a_data_set_that_reads_back(tmp_path):
  path = karpathy(tmp_path / 'toy')
  args = [
    '--name=toy',
    f'--images={path.parent}',
    f'--captions={path}',
    f'--data_dir={tmp_path / "tfds"}',
  ]
  name = 'captioned_images/toy'
  refused = run_script(*args)
  assert refused.returncode == 2
  assert 'Traceback' not in refused.stderr
  assert not (tmp_path / 'tfds').exists()
  with pytest.raises(FileNotFoundError, match='prepare_captions.py --name=toy'):
    data.open_split(name, 'train', tmp_path / 'tfds')

  prepared = run_script(*args, '--skip_bad')
  assert prepared.returncode == 0, prepared.stderr
  assert 'broken.png' in prepared.stdout
  assert 'test: 1\ntrain: 2\nvalidation: 1\n' in prepared.stdout
  assert data.fingerprint(name, tmp_path / 'tfds') in prepared.stdout

  train = data.open_split(name, 'train', tmp_path / 'tfds')
  records = sorted((train[i] for i in range(len(train))), key=lambda r: r['id'])
  assert records == [
    {
      'id': '1',
      'image': (path.parent / 'one.png').read_bytes(),
      'captions': ['A dog.', 'Two dogs.'],
    },
    {
      'id': '2',
      'image': (path.parent / 'two.jpg').read_bytes(),
      'captions': ['A cat.'],
    },
  ]
  again = run_script(*args, '--skip_bad')
  assert again.returncode == 2
  assert 'exists already: delete it' in again.stderr


def picture(path, number=0, caption='A dog.'):
  return sources.CaptionedFile(str(number), path, 'train', [caption])


def test_the_fingerprint_follows_the_contents(tmp_path):
  save_picture(tmp_path / 'a.png', shade=1)
  save_picture(tmp_path / 'b.png', shade=2)
  fingerprints = []
  for i, (name, caption) in enumerate(
    [('a', 'A dog.'), ('a', 'A dog.'), ('a', 'A cat.'), ('b', 'A dog.')]
  ):
    prepared = [picture(tmp_path / f'{name}.png', caption=caption)]
    data.prepare('toy', prepared, tmp_path / f'{i}')
    fingerprints.append(
      data.fingerprint('captioned_images/toy', tmp_path / f'{i}')
    )
  assert fingerprints[0] == fingerprints[1]
  assert len(set(fingerprints)) == 3


def test_what_is_half_written_is_not_there(tmp_path):
  save_picture(tmp_path / 'a.png')
  pictures = [picture(tmp_path / 'a.png'), picture(tmp_path / 'gone.png', 1)]
  with pytest.raises(FileNotFoundError, match='gone.png'):
    data.prepare('toy', pictures, tmp_path)
  with pytest.raises(FileNotFoundError, match='is not in'):
    data.open_split('captioned_images/toy', 'train', tmp_path)
  data.prepare('toy', pictures[:1], tmp_path)
  assert len(data.open_split('captioned_images/toy', 'train', tmp_path)) == 1
  with pytest.raises(ValueError, match="no split 'test', only train"):
    data.open_split('captioned_images/toy', 'test', tmp_path)


def test_wrong_names_are_refused(tmp_path):
  with pytest.raises(ValueError, match="'mnist' is no data set"):
    data.open_split('mnist', 'train', tmp_path)
  with pytest.raises(ValueError, match='must be a letter'):
    data.open_split('captioned_images/../x', 'train', tmp_path)


def test_scenes_are_drawn_on_first_use(tmp_path, monkeypatch):
  monkeypatch.setattr(scenes, 'SPLITS', SPLITS)
  for split, count in SPLITS.items():
    source = data.open_split('scenes', split, tmp_path)
    assert len(source) == count
    for record in (source[i] for i in range(count)):
      index = int(record['id'].removeprefix(f'{split}-'))
      _, drawn, captions = scenes.example(split, index)
      assert record['captions'] == captions
      (tmp_path / 'picture.png').write_bytes(record['image'])
      with Image.open(tmp_path / 'picture.png') as read:
        np.testing.assert_array_equal(read, drawn)
  copy = pickle.loads(pickle.dumps(source))
  assert [copy[i] for i in range(count)] == [source[i] for i in range(count)]
  with pytest.raises(ValueError, match='must be one of train, validation'):
    data.open_split('scenes', 'val', tmp_path)


def test_two_processes_may_ask_for_scenes_at_once(tmp_path):
  program = (
    'from captioning import data, scenes\n'
    'from training import console\n'
    'console.set_up()\n'
    f'scenes.SPLITS = {SPLITS}\n'
    f'source = data.open_split("scenes", "train", {str(tmp_path)!r})\n'
    f'print(len(source), data.fingerprint("scenes", {str(tmp_path)!r}))\n'
  )
  processes = [
    subprocess.Popen(
      [sys.executable, '-c', program],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      cwd=ROOT,
    )
    for _ in range(3)
  ]
  results = [process.communicate() for process in processes]
  assert [process.returncode for process in processes] == [0] * 3, results
  last_lines = {output.splitlines()[-1] for output, _ in results}
  assert len(last_lines) == 1
  assert last_lines.pop().startswith('6 ')
  prepared = [e for _, e in results if 'Preparing scenes' in e]
  assert len(prepared) == 1


def test_coco_has_the_splits_of_karpathy(tmp_path):
  pytest.importorskip('tensorflow', reason='TFDS prepares it with TensorFlow')
  save_picture(tmp_path / 'a.jpg')
  base = type(tfds.builder('coco_captions', data_dir=tmp_path))
  parts = {'train': 3, 'restval': 2, 'val': 1, 'test': 1}

  class CocoCaptions(base, skip_registration=True):
    """The published builder, fed with other pictures."""

    def _split_generators(self, dl_manager):
      return {part: self._generate_examples(part) for part in parts}

    def _generate_examples(self, part):
      for i in range(parts[part]):
        yield (
          f'{part}{i}',
          {
            'image': tmp_path / 'a.jpg',
            'image/filename': 'a.jpg',
            'image/id': 10 * list(parts).index(part) + i,
            'objects': [],
            'captions': [{'id': 0, 'text': 'A dog.'}, {'id': 1, 'text': 'é'}],
          },
        )

  with pytest.raises(FileNotFoundError, match=r"tfds.builder\('coco_captions'"):
    data.open_split('coco_captions', 'train', tmp_path)
  CocoCaptions(data_dir=tmp_path).download_and_prepare(
    file_format='array_record'
  )
  train = data.open_split('coco_captions', 'train', tmp_path)
  records = [train[i] for i in range(len(train))]
  assert {record['id'] for record in records} == {'0', '1', '2', '10', '11'}
  assert records[0]['captions'] == ['A dog.', 'é']
  assert records[0]['image'] == (tmp_path / 'a.jpg').read_bytes()
  validation = data.open_split('coco_captions', 'validation', tmp_path)
  assert [r['id'] for r in validation] == ['20']
  assert len(data.fingerprint('coco_captions', tmp_path)) == 16


def test_captions_differ_while_they_can():
  captions = ['one', 'two', 'three']
  words = vocabulary.Vocabulary.build(captions, threshold=1)
  record = {'captions': captions}

  def draw(count, seed=0):
    tokens = vocabulary.caption_tokens(
      record,
      words,
      captions_per_image=count,
      max_length=4,
      rng=np.random.default_rng(seed),
    )
    assert tokens.shape == (count, 4) and tokens.dtype == np.int32
    return [words.decode(row) for row in tokens]

  for count in (1, 2, 3):
    assert len(set(draw(count))) == count
  assert sorted(draw(7)) in [sorted(captions * 2 + [c]) for c in captions]
  assert draw(3, seed=1) == draw(3, seed=1)
  assert len({tuple(draw(2, seed=seed)) for seed in range(100)}) == 6


def test_ucm_has_its_official_splits(shared, tmp_path):
  root = shared / 'data' / 'ucm_captions'
  pictures, report = sources.load(root / 'images', root / 'dataset_ucm.json')
  assert not report
  counts = {'train': 1680, 'validation': 210, 'test': 210}
  assert {
    split: sum(p.split == split for p in pictures) for split in counts
  } == counts
  data.prepare('ucm', pictures, tmp_path)
  by_id = {p.id: p for p in pictures}
  for split, count in counts.items():
    source = data.open_split('captioned_images/ucm', split, tmp_path)
    assert len(source) == count
    record = source[count // 2]
    assert record['image'] == by_id[record['id']].path.read_bytes()
    assert record['captions'] == by_id[record['id']].captions
  shutil.rmtree(tmp_path / 'captioned_images')


def test_flickr8k_has_its_official_splits(shared):
  root = shared / 'data' / 'flickr8k'
  args = root / 'images', root / 'Flickr8k.token.txt'
  with pytest.raises(ValueError, match=r'in no split list \(9\)'):
    sources.load(*args, splits=root)
  pictures, _ = sources.load(*args, splits=root, skip_bad=True)
  counts = {'train': 753, 'validation': 113, 'test': 125}
  assert {
    split: sum(p.split == split for p in pictures) for split in counts
  } == counts
