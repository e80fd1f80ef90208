"""Tests of listing directories."""

import pytest

from training import directories


def _touch(directory, *names):
  for name in names:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_hidden_files_and_those_of_systems_are_left_out(tmp_path):
  _touch(tmp_path, 'b.jpg', 'a.jpg', '.DS_Store', '._a.jpg', 'Thumbs.db')
  _touch(tmp_path, 'c/d.jpg', '__MACOSX/a.jpg', '.git/a.jpg', 'c/desktop.ini')
  names = [path.name for path in directories.entries(tmp_path)]
  assert names == ['a.jpg', 'b.jpg', 'c']
  names = [path.name for path in directories.matching(tmp_path, '*.jpg')]
  assert names == ['a.jpg', 'b.jpg']
  names = [str(p.relative_to(tmp_path)) for p in directories.below(tmp_path)]
  assert names == ['a.jpg', 'b.jpg', 'c/d.jpg']


def test_names_of_files_are_found_inside_a_directory(tmp_path):
  _touch(tmp_path, 'a.JPG', 'x/b.jpg', 'c.jpg', 'c.JPG')
  files = directories.Files(tmp_path)
  assert files.find('a.jpg') == tmp_path / 'a.JPG'
  assert files.find('x', 'b.jpg') == tmp_path / 'x/b.jpg'
  assert files.find('x/b.jpg') == tmp_path / 'x/b.jpg'
  assert files.find('c.jpg') == tmp_path / 'c.jpg'
  assert files.find('d/e.jpg') == tmp_path / 'd/e.jpg'
  with pytest.raises(ValueError, match='is too long'):
    files.find('n' * 1000)


@pytest.mark.parametrize(
  'names',
  [
    ('/etc/passwd',),
    ('../a.jpg',),
    ('x', '../../a.jpg'),
    ('x', '/a.jpg'),
    ('C:\\a.jpg',),
    ('\\\\host\\a.jpg',),
    ('a\0.jpg',),
    (None,),
    (3, 'a.jpg'),
  ],
)
def test_names_that_lead_out_of_a_directory_are_refused(tmp_path, names):
  with pytest.raises(ValueError, match='leads out of|must be text'):
    directories.Files(tmp_path).find(*names)
