"""Files come out as others read them; nothing in them is run or trusted."""

import io
import json
import pathlib
import pickle
import zipfile

import numpy as np
import pytest

from sketch_rnn import arrays
from sketch_rnn import file_formats
from sketch_rnn import strokes
from sketch_rnn import svg

GOOD = np.array([[3, 4, 0], [12, 0, 1], [-20, -8, 0], [2, 0, 1]], np.int16)


POINT = np.array([[0, 0, 1]], np.int16)


def objects(*elements):
  array = np.empty(len(elements), object)
  array[:] = elements
  return array


def save(path, **contents):
  np.savez(path, **contents)
  return path


def save_pickle(path, pickled):
  """An .npz file of which we choose the pickle."""
  header = io.BytesIO()
  np.lib.format.write_array_header_1_0(
    header, {'descr': '|O', 'fortran_order': False, 'shape': (1,)}
  )
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('train.npy', header.getvalue() + pickled)
  return path


# .npz


@pytest.mark.parametrize(
  'name', ['aaron_sheep', 'short_kanji', 'quickdraw_pooled']
)
def test_arrays_equal_numpys(shared, name):
  """Two of them were pickled by Python 2 or protocol 2."""
  path = shared / f'data/sketches/{name}.npz'
  ours = arrays.read_npz(path)
  with np.load(path, allow_pickle=True, encoding='latin1') as theirs:
    assert sorted(ours) == sorted(theirs.files)
    for key in theirs.files:
      if theirs[key].dtype != object:
        np.testing.assert_array_equal(ours[key], theirs[key])
        continue
      for a, b in zip(ours[key], theirs[key], strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_pickles_of_all_protocols_and_orders(tmp_path):
  drawings = objects(
    GOOD, GOOD.astype('>f8'), np.asfortranarray(GOOD), GOOD.astype(np.uint8)
  )
  for protocol in range(2, pickle.HIGHEST_PROTOCOL):
    path = save_pickle(
      tmp_path / 'a.npz', pickle.dumps(drawings, protocol=protocol)
    )
    with pytest.raises(ValueError, match='reshape'):
      arrays.read_npz(path)  # The header speaks of one drawing.
    path = save_pickle(
      tmp_path / 'a.npz', pickle.dumps(drawings[:1], protocol=protocol)
    )
    np.testing.assert_array_equal(arrays.read_npz(path)['train'][0], GOOD)
  read = arrays.read_npz(save(tmp_path / 'b.npz', train=drawings))['train']
  for a, b in zip(read, drawings, strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


def test_a_pickle_of_python_2(tmp_path):
  """Its bytes are strings, as `numpy.save` wrote them then."""
  pickled = (
    b'cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS"b"\ntR'
    b'(I1\n(I1\ntcnumpy\ndtype\n(S"O8"\nI0\nI1\ntR'
    b'(I3\nS"|"\nNNNI-1\nI-1\nI63\ntbI00\n(l'
    b'cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS"b"\ntR'
    b'(I1\n(I2\nI3\ntcnumpy\ndtype\n(S"i2"\nI0\nI1\ntR'
    b'(I3\nS"<"\nNNNI-1\nI-1\nI0\ntbI00\n'
    + f'S{GOOD[:2].tobytes().decode("latin1")!r}\n'.encode('latin1')
    + b'tbatb.'
  )
  expected = pickle.loads(pickled, encoding='latin1')
  np.testing.assert_array_equal(expected[0], GOOD[:2])
  read = arrays.read_npz(save_pickle(tmp_path / 'a.npz', pickled))
  np.testing.assert_array_equal(read['train'][0], expected[0])


class Touch:
  """Unpickled by pickle, it makes a file."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return pathlib.Path.touch, (self.path,)


def test_what_runs_programs_is_refused_and_named(tmp_path):
  target = tmp_path / 'pwned'
  path = save(tmp_path / 'evil.npz', train=objects(GOOD, Touch(target)))
  with pytest.raises(
    ValueError, match=r"evil\.npz: array 'train': .* needs pathlib\."
  ):
    file_formats.read(path)
  assert not target.exists()
  with np.load(path, allow_pickle=True) as theirs:
    theirs['train']
  assert target.exists()  # The file was not harmless.


@pytest.mark.parametrize(
  ('pickled', 'message'),
  [
    (b'cos\nsystem\n(S"true"\ntR.', 'needs os.system'),
    (b'cbuiltins\neval\n.', 'needs builtins.eval'),
    (b'cnumpy\nload\n.', 'needs numpy.load'),
    (b'cnumpy.core.multiarray\nscalar\n.', 'multiarray.scalar'),
    (b'cnumpy\nndarray\n(I9\ntR.', 'not callable'),
    (b'cnumpy\nndarray\n.', 'not an array'),
    (b'(lp0\ng0\na.', 'a pickled list, not an array'),
    (b'not a pickle', "array 'train'"),
    (pickle.dumps(np.array([np.array('x')])), "type 'U1', not numbers"),
    (pickle.dumps(np.zeros(1, 'f4,O')), 'not numbers'),
    (pickle.dumps(objects(objects(objects(1)))), 'within arrays'),
    # Object pointers from the bytes of the file, if it were believed.
    (
      b'cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS"b"\ntR'
      b'(I1\n(I1\ntcnumpy\ndtype\n(S"O8"\nI0\nI1\ntR'
      b'(I3\nS"|"\nNNNI-1\nI-1\nI0\ntbI00\nS"AAAAAAAA"\ntb.',
      'reshape',
    ),
  ],
)
def test_forged_pickles(tmp_path, pickled, message):
  path = save_pickle(tmp_path / 'forged.npz', pickled)
  with pytest.raises(ValueError, match=message) as error:
    arrays.read_npz(path)
  assert 'forged.npz' in str(error.value)


def test_all_malformed_drawings_are_listed(tmp_path):
  bad = GOOD.astype(float)
  bad[2, 1] = np.nan
  path = save(
    tmp_path / 'cat.npz',
    train=objects(GOOD, GOOD[:0], POINT, bad),
    valid=objects(GOOD[:, :2], 'text', GOOD),
    test=objects(GOOD * 0, GOOD),
  )
  with pytest.raises(ValueError, match='6 malformed') as error:
    file_formats.read(path)
  lines = str(error.value).splitlines()[1:]
  for line, expected in zip(
    lines,
    [
      'train[1]: no points',
      'train[2]: only one point',
      'train[3]: NaN or infinity in row 2',
      'valid[0]: shape [4, 2] instead of [N, 3]',
      'valid[1]: str instead of an array',
      'test[0]: the pen is never lifted',
    ],
    strict=True,
  ):
    assert line.startswith(f'{path}: {expected}')
  sketches = file_formats.read(path, skip_bad=True)
  assert [(s.id, s.split, s.category) for s in sketches] == [
    ('cat-train-00000', 'train', 'cat'),
    ('cat-validation-00002', 'validation', 'cat'),
    ('cat-test-00001', 'test', 'cat'),
  ]
  for sketch in sketches:
    assert sketch.strokes.dtype == np.float32
    np.testing.assert_array_equal(sketch.strokes, GOOD)


def test_drawings_of_one_length(tmp_path):
  """numpy makes one array of them, of numbers or of objects."""
  both = np.stack([GOOD, GOOD])
  for train in (both, both.astype(object)):
    sketches = file_formats.read(save(tmp_path / 'a.npz', train=train))
    np.testing.assert_array_equal([s.strokes for s in sketches], both)


def test_words_and_labels(tmp_path):
  path = tmp_path / 'a.npz'
  words = np.array(['cat', 'The Mona Lisa'])
  train = objects(GOOD, GOOD)
  save(path, train=train, words=words, label_train=np.array([1, 0]))
  assert [s.category for s in file_formats.read(path)] == [
    'The Mona Lisa',
    'cat',
  ]
  for labels in ([1, 2], [0], [0.0, 1.0]):
    save(path, train=train, words=words, label_train=np.array(labels))
    with pytest.raises(ValueError, match='label_train'):
      file_formats.read(path)
  save(path, something=np.zeros(3))
  with pytest.raises(ValueError, match='none of the arrays .* only something'):
    file_formats.read(path)


# .ndjson


@pytest.mark.parametrize('word', ['bicycle', 'cat', 'face'])
def test_ndjson_equals_the_published_conversion(shared, word):
  """Google's own .npz files have the same drawings."""
  sketches = file_formats.read(shared / f'data/sketches/ndjson/{word}.ndjson')
  assert len(sketches) == 25
  published = {
    sketch.strokes.tobytes(): sketch.category
    for sketch in file_formats.read(
      shared / 'data/sketches/quickdraw_pooled.npz'
    )
  }
  for sketch in sketches:
    assert published[sketch.strokes.tobytes()] == sketch.category == word
    assert sketch.split is None


def test_raw_drawings_are_brought_to_quickdraws_form(tmp_path):
  """A raw recording of straight lines comes back as their corners."""
  corners = [
    np.array([[0, 0], [255, 0], [255, 200]], float),
    np.array([[50, 100], [90, 150]], float),
  ]
  raw = []
  for line in corners:
    # Finely sampled, elsewhere, of another size.
    fine = strokes.resample(line, 0.3) * 2.5 + 40
    raw.append([*fine.T.tolist(), list(range(len(fine)))])
  path = tmp_path / 'raw.ndjson'
  path.write_text(json.dumps({'word': 'x', 'key_id': '7', 'drawing': raw}))
  (sketch,) = file_formats.read(path)
  assert sketch.id == '7'
  np.testing.assert_allclose(
    sketch.strokes, strokes.from_lines(corners), atol=1.5
  )


def test_bad_lines_are_reported_by_number(tmp_path):
  good = {'word': 'cat', 'drawing': [[[0, 5, 9], [1, 2, 3]]]}
  lines = [
    json.dumps(good),
    '{"word": "cat"',
    '',
    json.dumps({'word': 'cat'}),
    json.dumps({**good, 'drawing': [[[0, 5], [1]]]}),
    json.dumps({**good, 'drawing': []}),
    json.dumps({**good, 'drawing': 7}),
    json.dumps({**good, 'drawing': [[[0, None], [1, 2]]]}),
    '[]',
    '{"word": "cat", "drawing": [[[0, NaN], [1, 2]]]}',
    '{"word": "cat", "drawing": [[[0, 1' + '0' * 400 + '], [1, 2]]]}',
  ]
  path = tmp_path / 'cats.ndjson'
  path.write_text('\n'.join(lines))
  sketches, problems = file_formats.scan(path)
  assert [s.id for s in sketches] == ['cats-000001']
  assert [int(p.split('line ')[1].split(':')[0]) for p in problems] == [
    2,
    4,
    5,
    6,
    7,
    8,
    9,
    10,
    11,
  ]
  assert all(p.count('line ') == 1 or 'column' in p for p in problems)


# .svg and .json


def write_svg(path, body, head=''):
  path.write_text(
    f'{head}<svg xmlns="http://www.w3.org/2000/svg" '
    f'xmlns:xlink="http://www.w3.org/1999/xlink">{body}</svg>'
  )
  return path


def test_paths_shapes_and_transformations(tmp_path):
  path = write_svg(
    tmp_path / 'a.svg',
    '<path d="M1 2L3 4h5v6zl1 1M9 9"/>'
    '<g transform="translate(10 0) scale(2)">'
    '<polyline points="0,0 1,2 3,0"/><line x1="1" y1="1" x2="2" y2="2"/></g>'
    '<rect x="1" y="2" width="3" height="4"/>'
    '<symbol><path d="M0 0 7 7"/></symbol><text>words</text>'
    '<defs><path d="M0 0 8 8"/></defs>'
    '<g style="display:none"><path d="M0 0 9 9"/></g>',
  )
  expected = [
    [[1, 2], [3, 4], [8, 4], [8, 10], [1, 2]],
    [[1, 2], [2, 3]],
    [[10, 0], [12, 4], [16, 0]],
    [[12, 2], [14, 4]],
    [[1, 2], [4, 2], [4, 6], [1, 6], [1, 2]],
  ]
  for line, points in zip(svg.read(path), expected, strict=True):
    np.testing.assert_allclose(line, points, atol=1e-5)


def test_curves_are_followed(tmp_path):
  """A circle, and a cubic curve by its formula."""
  path = write_svg(
    tmp_path / 'a.svg',
    '<circle cx="50" cy="40" r="30"/><path d="M0 0C10 80 90 -60 100 20"/>',
  )
  circle, curve = svg.read(path, tolerance=0.05)
  radii = np.linalg.norm(circle - [50, 40], axis=1)
  np.testing.assert_allclose(radii, 30, atol=0.02)
  middles = (circle[1:] + circle[:-1]) / 2
  radii = np.linalg.norm(middles - [50, 40], axis=1)
  np.testing.assert_allclose(radii, 30, atol=0.07)
  t = np.linspace(0, 1, len(curve))[:, None]
  corners = np.array([[0, 0], [10, 80], [90, -60], [100, 20]])
  expected = (
    (1 - t) ** 3 * corners[0]
    + 3 * (1 - t) ** 2 * t * corners[1]
    + 3 * (1 - t) * t**2 * corners[2]
    + t**3 * corners[3]
  )
  np.testing.assert_allclose(curve, expected, atol=1e-4)


@pytest.mark.parametrize(
  ('body', 'head', 'message'),
  [
    ('&a;', '<!DOCTYPE svg [<!ENTITY a "b">]>', 'defines entities'),
    (
      '&a;',
      '<!DOCTYPE svg [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
      'defines entities',
    ),
    ('<use xlink:href="#a"/>', '', 'copies'),
    ('<g>', '', 'not XML'),
    ('', '', 'no paths'),
    ('<path d="M0 0 1e400 1"/>', '', 'NaN or infinite'),
    ('<path d="L1 1 2 2"/>', '', 'not valid SVG'),
  ],
)
def test_unsafe_or_broken_svg(tmp_path, body, head, message):
  path = write_svg(tmp_path / 'broken.svg', body, head)
  with pytest.raises(ValueError, match=message) as error:
    svg.read(path)
  assert 'broken.svg' in str(error.value)


def test_an_external_document_type_is_not_opened(tmp_path):
  path = write_svg(
    tmp_path / 'a.svg',
    '<path d="M0 0 1 1"/>',
    '<!DOCTYPE svg SYSTEM "file:///does/not/exist">',
  )
  np.testing.assert_array_equal(svg.read(path), [[[0, 0], [1, 1]]])


def test_svg_drawings_fill_256_pixels(tmp_path):
  directory = tmp_path / 'cats'
  directory.mkdir()
  path = write_svg(directory / 'tom.svg', '<path d="M10 10L20 10L61 10v20"/>')
  (sketch,) = file_formats.read(path)
  np.testing.assert_allclose(
    sketch.strokes, [[255, 0, 0], [0, 100, 1]], atol=1e-4
  )
  assert (sketch.id, sketch.category) == ('tom', 'cats')


def test_json_lines_are_taken_as_they_are(tmp_path):
  path = tmp_path / 'a.json'
  path.write_text('[[[5, 5], [8, 9], [20, 9]], [[0, 1], [2, 1]]]')
  (sketch,) = file_formats.read(path)
  np.testing.assert_array_equal(sketch.strokes, GOOD)
  path.write_text('[[[5, 5, 5], [8, 9]]]')
  with pytest.raises(ValueError, match='not a list of lines'):
    file_formats.read(path)
  path.write_text('[]')
  with pytest.raises(ValueError, match='no points'):
    file_formats.read(path)


# Many files.


def test_loading_lists_all_problems(tmp_path):
  save(tmp_path / 'cat.npz', train=objects(GOOD, POINT))
  (tmp_path / 'dog.npz').write_text('no zip')
  line = '{"key_id": "1", "drawing": [[[0, 5, 9], [1, 2, 3]]]}'
  (tmp_path / 'pig.ndjson').write_text(f'{line}\n{line}\n')
  (tmp_path / 'notes.txt').write_text('left alone')
  with pytest.raises(ValueError, match='3 problems') as error:
    file_formats.load([tmp_path])
  for words in (
    'cat.npz: train[1]: only one point',
    'dog.npz is not an .npz file',
    "pig.ndjson: id '1' occurs twice",
  ):
    assert words in str(error.value)
  sketches, report = file_formats.load([tmp_path], skip_bad=True)
  assert [s.id for s in sketches] == ['cat-train-00000', '1']
  assert 'dog.npz is not an .npz file' in report
  assert len(file_formats.load([tmp_path / 'cat.npz'], skip_bad=True)[0]) == 1


def test_what_cannot_be_loaded(tmp_path):
  with pytest.raises(ValueError, match='neither a file nor a directory'):
    file_formats.load([tmp_path / 'absent'])
  with pytest.raises(ValueError, match='no files of drawings'):
    file_formats.load([tmp_path])
  (tmp_path / 'a.txt').write_text('')
  with pytest.raises(
    ValueError, match='not a file of drawings: pass one of .npz'
  ):
    file_formats.read(tmp_path / 'a.txt')


def test_a_forged_index_of_the_memo_takes_no_memory(tmp_path):
  """Pickle's list of memorised objects grows to the largest index: 2 GiB."""
  pickled = b'\x80\x02]r\xff\xff\xff\x07.'
  path = save_pickle(tmp_path / 'memo.npz', pickled)
  with pytest.raises(ValueError, match='forged index: 134217727'):
    arrays.read_npz(path)


def test_one_array_a_million_times_is_refused(tmp_path):
  many = np.empty(100_000, object)
  many[:] = [np.zeros((1000, 3), np.int16)] * len(many)
  path = save(tmp_path / 'many.npz', train=many)
  assert path.stat().st_size < 10**6
  with pytest.raises(ValueError, match='too often'):
    arrays.read_npz(path)


def test_drawings_without_axes_are_not_counted_for_ever(tmp_path):
  path = save(tmp_path / 'a.npz', train=np.zeros((10**9, 0, 3), np.int16))
  with pytest.raises(ValueError, match='empty rows'):
    arrays.read_npz(path)


# Files as others write them.

QUICKDRAW = [[[0, 100, 100, 0], [0, 0, 100, 100]], [[5, 9], [7, 7]]]
LINES = [[[0, 0], [100, 0], [100, 100], [0, 100]], [[5, 7], [9, 7]]]


@pytest.mark.parametrize('name', ['a.json', 'a.JSON'])
def test_json_in_the_manner_of_quickdraw(tmp_path, name):
  path = tmp_path / name
  path.write_text(json.dumps(LINES))
  expected = file_formats.read(path)[0].strokes
  for drawing in (QUICKDRAW, QUICKDRAW[:1]):
    path.write_bytes(b'\xef\xbb\xbf' + json.dumps(drawing).encode())
    (sketch,) = file_formats.read(path)
    rows = len(sketch.strokes)
    np.testing.assert_array_equal(sketch.strokes, expected[:rows])
  raw = [[*line, list(range(len(line[0])))] for line in QUICKDRAW]
  path.write_text(json.dumps(raw))
  (sketch,) = file_formats.read(path)
  np.testing.assert_allclose(
    sketch.strokes[:3], [[255, 0, 0], [0, 255, 0], [-255, 0, 1]]
  )


def test_two_points_a_line_are_points(tmp_path):
  path = tmp_path / 'a.json'
  path.write_text('[[[0, 1], [2, 3]], [[4, 5], [6, 7]]]')
  np.testing.assert_array_equal(
    file_formats.read(path)[0].strokes, [[2, 2, 1], [2, 2, 0], [2, 2, 1]]
  )


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('[[0, 0], [100, 0], [100, 100]]', 'If it is one line of points, put'),
    ('{"lines": []}', 'it is {'),
    ('[[{"x": 0, "y": 0}]]', r'\[0\] is \[{'),
    ('[[[0, 0, 1], [1, 1]]]', 'neither of points'),
    ('[[["0", "1"], ["2", "3"]]]', "'0' instead of a number"),
    ('[[[true, 1], [2, 3]]]', 'True instead of a number'),
    ('[[[1e400, 1], [2, 3]]]', 'infinity'),
    ('[[[1e300, 1], [-1e300, 3]]]', 'beyond 1e'),
    ('[[[1' + '0' * 400 + ', 1], [2, 3]]]', '64 bits'),
    ('[' * 1000 + ']' * 1000, 'nested'),
    ('[[[0, null], [2, 3]]]', 'None instead of a number'),
  ],
)
def test_other_json_is_refused_with_the_reason(tmp_path, text, message):
  path = tmp_path / 'a.json'
  path.write_text(text)
  with pytest.raises(ValueError, match=message) as error:
    file_formats.read(path)
  assert str(path) in str(error.value)
  line = tmp_path / 'a.ndjson'
  line.write_text('{"drawing": ' + text + '}')
  with pytest.raises(ValueError, match='line 1: '):
    file_formats.read(line)


def test_lines_with_a_byte_order_mark_and_other_endings(tmp_path):
  path = tmp_path / 'a.ndjson'
  lines = [json.dumps({'drawing': QUICKDRAW})] * 2
  path.write_bytes(b'\xef\xbb\xbf' + '\r\n'.join(lines).encode() + b'\r\n')
  assert len(file_formats.read(path)) == 2
  path.write_bytes('\n'.join([lines[0], '"é"', lines[1]]).encode('cp1252'))
  sketches, (problem,) = file_formats.scan(path)
  assert len(sketches) == 2
  assert 'line 2 is not UTF-8' in problem


@pytest.mark.parametrize('name', ['valid', 'validation', 'val'])
def test_the_validation_split_has_three_names(tmp_path, name):
  path = save(tmp_path / 'a.npz', train=objects(GOOD), **{name: objects(GOOD)})
  splits = [sketch.split for sketch in file_formats.read(path)]
  assert splits == ['train', 'validation']


def test_arrays_that_are_not_read_are_named(tmp_path, caplog):
  path = save(tmp_path / 'a.npz', train=objects(GOOD), dev=objects(GOOD))
  with caplog.at_level('WARNING'):
    file_formats.read(path)
  assert f'{path}: not read, since no split has this name: dev' in caplog.text
  path = save(tmp_path / 'b.npz', valid=objects(GOOD), val=objects(GOOD))
  with pytest.raises(ValueError, match='one split twice: valid, val'):
    file_formats.read(path)


def test_files_of_systems_beside_drawings_are_ignored(tmp_path):
  save(tmp_path / 'cat.npz', train=objects(GOOD))
  (tmp_path / '._cat.npz').write_bytes(b'\0\5\x16\7')
  sketches, report = file_formats.load([tmp_path])
  assert len(sketches) == 1 and not report


@pytest.mark.parametrize(
  ('rows', 'expected'),
  [
    # From the corner to the first point; then two lines.
    (
      [[9, 7, 0], [1, 0, 1], [5, 5, 0], [0, 2, 1]],
      [[1, 0, 1], [5, 5, 0], [0, 2, 1]],
    ),
    # The first line is a dot, which keeps a row of its own.
    ([[9, 7, 1], [5, 5, 0], [0, 2, 1]], [[0, 0, 1], [5, 5, 0], [0, 2, 1]]),
    ([[9, 7, 1]], [[0, 0, 1]]),
  ],
)
def test_a_first_row_without_ink_is_left_out(rows, expected):
  sketch = file_formats.Sketch('a', np.array(rows, np.float32), '7', 'test')
  found = file_formats.without_first_move(sketch)
  np.testing.assert_array_equal(found.strokes, np.array(expected, np.float32))
  assert (found.id, found.category, found.split) == ('a', '7', 'test')
