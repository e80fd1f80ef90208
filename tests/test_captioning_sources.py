"""Tests of directories of captioned images as others make them."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from captioning import caption
from captioning import sources

NAMES = ('a.jpg', 'b.jpg', 'c.jpg', 'd.jpg')
SPLITS = ('train', 'train', 'validation', 'test')
SHARES = (0.5, 0.25, 0.25)
BOM = b'\xef\xbb\xbf'


def save_images(directory, names=NAMES):
  for i, name in enumerate(names):
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (8, 6), (40 * i, 0, 0)).save(path)
  return directory


def save_lists(directory, names=NAMES, mark=b'', end='\n'):
  directory.mkdir(exist_ok=True)
  for word, some in (
    ('train', names[:2]),
    ('dev', names[2:3]),
    ('test', names[3:]),
  ):
    path = directory / f'My.{word}Images.txt'
    path.write_bytes(mark + end.join([*some, '']).encode())
  return directory


def tokens(names=NAMES):
  return [f'{name}#{k}\tA dog {k} .' for name in names for k in range(2)]


def summary(files):
  return [(f.path.name, f.split, f.captions) for f in files]


def expected(names=NAMES):
  captions = ['A dog 0 .', 'A dog 1 .']
  return [(n, s, captions) for n, s in zip(names, SPLITS, strict=True)]


@pytest.mark.parametrize('mark', [b'', BOM])
@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
def test_text_of_any_system_is_read(tmp_path, mark, end):
  save_images(tmp_path / 'images')
  lists = save_lists(tmp_path / 'lists', mark=mark, end=end)
  path = tmp_path / 'my.token.txt'
  path.write_bytes(mark + end.join([*tokens(), '']).encode())
  files, report = sources.load(tmp_path / 'images', path, splits=lists)
  assert not report and summary(files) == expected()


def test_another_encoding_is_named(tmp_path):
  save_images(tmp_path / 'images')
  path = tmp_path / 'my.token.txt'
  path.write_bytes('a.jpg#0\tA dog\nb.jpg#0\tA café\n'.encode('cp1252'))
  with pytest.raises(ValueError, match=f'{path}: line 2 is not UTF-8'):
    sources.load(tmp_path / 'images', path, splits=SHARES)


def test_names_may_have_blanks(tmp_path):
  names = tuple(f'my photo {name}' for name in NAMES)
  save_images(tmp_path / 'images', names)
  lists = save_lists(tmp_path / 'lists', names)
  path = tmp_path / 'my.token.txt'
  path.write_text('\n'.join(tokens(names)))
  files, _ = sources.load(tmp_path / 'images', path, splits=lists)
  assert summary(files) == expected(names)


def test_files_of_systems_are_ignored(tmp_path):
  images = save_images(tmp_path / 'images')
  for name in ('.DS_Store', '._a.jpg', 'Thumbs.db', 'notes.txt'):
    (images / name).write_bytes(b'\0\5\x16\7')
  lists = save_lists(tmp_path / 'lists')
  (lists / '._My.trainImages.txt').write_bytes(b'\0\5\x16\7')
  path = tmp_path / 'my.token.txt'
  path.write_text('\n'.join(tokens()))
  files, report = sources.load(images, path, splits=lists)
  assert not report and summary(files) == expected()


def test_capitals_of_endings_do_not_matter(tmp_path):
  upper = tuple(name.replace('jpg', 'JPG') for name in NAMES)
  save_images(tmp_path / 'images', upper)
  lists = save_lists(tmp_path / 'lists')
  path = tmp_path / 'my.token.txt'
  path.write_text('\n'.join(tokens()))
  files, report = sources.load(tmp_path / 'images', path, splits=lists)
  assert not report and summary(files) == expected(upper)


def test_a_table_of_kaggle(tmp_path):
  save_images(tmp_path / 'images')
  path = tmp_path / 'captions.txt'
  lines = ['image,caption', 'a.jpg,A dog , running .']
  lines += ['a.jpg,"A ""big"" dog , running ."']
  lines += [f'{name},A cat .' for name in NAMES[1:]]
  path.write_bytes(BOM + '\r\n'.join(lines).encode())
  for splits in (save_lists(tmp_path / 'lists'), SHARES):
    files, report = sources.load(tmp_path / 'images', path, splits=splits)
    assert not report
    assert files[0].captions == ['A dog , running .', 'A "big" dog , running .']
    assert [file.captions for file in files[1:]] == [['A cat .']] * 3


def test_the_table_of_flickr30k(tmp_path):
  """One line of the published file has no second bar."""
  save_images(tmp_path / 'images')
  path = tmp_path / 'results.csv'
  lines = ['image_name| comment_number| comment']
  lines += ['a.jpg| 0| "Two" dogs , running .', 'a.jpg| 4   A dog runs .']
  lines += [f'{name}| 0| A cat .' for name in NAMES[1:]]
  path.write_text('\n'.join(lines) + '\n')
  files, report = sources.load(
    tmp_path / 'images', path, splits=save_lists(tmp_path / 'lists')
  )
  assert not report
  assert files[0].captions == ['"Two" dogs , running .', 'A dog runs .']
  path.write_text('\n'.join([*lines, 'e.jpg']))
  with pytest.raises(ValueError, match="comment|line 7: 'e.jpg'"):
    sources.load(tmp_path / 'images', path, splits=SHARES)


def coco(names=NAMES, **fields):
  return {
    'info': {},
    'images': [
      {'id': 7 + i, 'file_name': name} for i, name in enumerate(names)
    ],
    'annotations': [
      {'id': 9, 'image_id': 7 + i, 'caption': f'A dog {k} .'}
      for k in range(2)
      for i in range(len(names))
    ],
    **fields,
  }


def test_cocos_own_file(tmp_path):
  save_images(tmp_path / 'images')
  path = tmp_path / 'captions_train2017.json'
  path.write_text(json.dumps(coco()))
  lists = save_lists(tmp_path / 'lists')
  files, report = sources.load(tmp_path / 'images', path, splits=lists)
  assert not report and summary(files) == expected()
  assert [file.id for file in files] == ['7', '8', '9', '10']
  files, _ = sources.load(tmp_path / 'images', path, splits=SHARES)
  assert {file.path.name for file in files} == set(NAMES)
  with pytest.raises(ValueError, match='pass the directory of the lists'):
    sources.load(tmp_path / 'images', path)


@pytest.mark.parametrize(
  ('fields', 'problem'),
  [
    ({'annotations': {}}, '`annotations` is not a list'),
    (
      {'annotations': [{'image_id': 99, 'caption': 'x'}]},
      "annotations.0.: '99'",
    ),
    ({'annotations': [{'image_id': 7, 'caption': None}]}, 'caption is None'),
    ({'annotations': [7]}, r'annotations\[0\]: '),
    ({'images': [None]}, r'images\[0\]: '),
    ({'images': [{'id': 7, 'file_name': '/etc/passwd'}]}, 'leads out of'),
    (
      {'images': [{'id': 7, 'file_name': 'a.jpg'}] * 2},
      'that was there before',
    ),
  ],
)
def test_problems_of_cocos_file_are_listed(tmp_path, fields, problem):
  save_images(tmp_path / 'images')
  path = tmp_path / 'captions_train2017.json'
  path.write_text(json.dumps(coco(**fields)))
  with pytest.raises(ValueError, match=problem):
    sources.load(tmp_path / 'images', path, splits=SHARES)


def test_shares_are_by_the_name_alone():
  names = [f'{i}.jpg' for i in range(4000)]
  splits = [sources.split_of(name, (0.8, 0.05, 0.15)) for name in names]
  assert abs(splits.count('train') - 3200) < 100
  assert abs(splits.count('validation') - 200) < 50
  assert splits[:50] == [
    sources.split_of(name, (0.8, 0.05, 0.15)) for name in names[:50]
  ]


@pytest.mark.parametrize(
  ('text', 'parsed'),
  [('0.8,0.1,0.1', (0.8, 0.1, 0.1)), ('1, 0, 0', (1, 0, 0)), ('x/y', 'x/y')],
)
def test_splits_of_the_command_line(text, parsed):
  assert sources.parse_splits(text) == parsed


@pytest.mark.parametrize(
  'text', ['0.8,0.1', '0.8,0.1,0.2', '1', '1,,0', '.,.,.']
)
def test_other_shares_are_refused(text):
  with pytest.raises(ValueError, match='shares|number'):
    sources.parse_splits(text)


def karpathy(path, records):
  common = {'split': 'train', 'sentences': [{'raw': 'A dog .'}]}
  path.write_text(json.dumps({'images': [common | r for r in records]}))
  return path


def test_the_same_name_may_be_in_two_folders(tmp_path):
  images = save_images(tmp_path / 'images', ('x/0.jpg', 'y/0.jpg', 'y/1.jpg'))
  records = [
    {'filepath': 'x', 'filename': '0.jpg'},
    {'filepath': 'y', 'filename': '0.jpg'},
    {'filepath': 'y', 'filename': '1.jpg'},
  ]
  path = karpathy(tmp_path / 'dataset.json', records)
  files, report = sources.load(images, path)
  assert not report
  assert [file.id for file in files] == ['x/0.jpg', 'y/0.jpg', '1.jpg']


def test_ids_may_be_null(tmp_path):
  images = save_images(tmp_path / 'images')
  records = [{'filename': n, 'imgid': None, 'cocoid': None} for n in NAMES]
  path = karpathy(tmp_path / 'dataset.json', records)
  files, report = sources.load(images, path)
  assert not report and [file.id for file in files] == list(NAMES)


@pytest.mark.parametrize(
  'record',
  [
    {'filename': '/etc/hostname'},
    {'filename': '../secret.jpg'},
    {'filepath': '/', 'filename': 'etc/hostname'},
    {'filepath': '..', 'filename': 'secret.jpg'},
    {'filepath': 7, 'filename': 'a.jpg'},
  ],
)
def test_no_file_outside_of_the_directory_is_opened(tmp_path, record):
  images = save_images(tmp_path / 'images')
  save_images(tmp_path, ('secret.jpg',))
  path = karpathy(tmp_path / 'dataset.json', [record, {'filename': 'a.jpg'}])
  with pytest.raises(ValueError, match='not in the directory of the images'):
    sources.load(images, path)
  files, _ = sources.load(images, path, skip_bad=True)
  assert [file.path.name for file in files] == ['a.jpg']


@pytest.mark.parametrize(
  ('fields', 'problem'),
  [
    ({'sentences': [{'raw': None}]}, 'raw is None, not text'),
    ({'sentences': [None]}, 'None is no object'),
    ({'sentences': None}, 'sentences is None, not a list'),
    ({'filename': None}, 'filename is None, not text'),
    ({'split': ['train']}, r'images\[0\], a.jpg: \[.train.\]'),
    ({'imgid': [1]}, r'imgid is \[1\], not a number'),
    ({'sentences': [{'raw': 'x' * 10_001}]}, 'more than 10000 characters'),
  ],
)
def test_problems_of_records_are_in_words(tmp_path, fields, problem):
  images = save_images(tmp_path / 'images')
  path = karpathy(tmp_path / 'dataset.json', [{'filename': 'a.jpg'} | fields])
  with pytest.raises(ValueError, match=problem) as error:
    sources.load(images, path)
  assert 'descriptor' not in str(error.value)


def test_a_narrow_image_is_found_before_training(tmp_path):
  images = save_images(tmp_path / 'images')
  Image.fromarray(np.zeros((1000, 1, 3), np.uint8)).save(images / 'n.png')
  path = karpathy(tmp_path / 'dataset.json', [{'filename': 'n.png'}])
  with pytest.raises(ValueError, match=r'n\.png: its sides of 1 x 1000 pixels'):
    sources.load(images, path)


def test_the_command_captions_what_it_can_read(tmp_path):
  images = save_images(tmp_path / 'images', ('a.jpg', 'b/c.PNG', 'ü 图.webp'))
  for name in ('._a.jpg', 'notes.pdf', 'features.h5', 'clip.mpg', 'a.avif'):
    (images / name).write_bytes(b'x')
  os.makedirs(images / '.thumbs')
  save_images(images / '.thumbs', ('a.jpg',))
  found = [path.relative_to(images) for path in caption.find_files([images])]
  assert [str(path) for path in found] == ['a.jpg', 'b/c.PNG', 'ü 图.webp']
