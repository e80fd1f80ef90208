"""Tests of reading text and JSON files."""

import json

import pytest

from training import text_files


@pytest.mark.parametrize('mark', [b'', b'\xef\xbb\xbf'])
@pytest.mark.parametrize('end', [b'\n', b'\r\n', b'\r'])
def test_text_is_read_as_it_was_meant(tmp_path, mark, end):
  path = tmp_path / 'a.txt'
  path.write_bytes(mark + end.join(['é x '.encode(), b'', b' b']) + end)
  assert text_files.lines(path) == [(1, 'é x'), (3, 'b')]


@pytest.mark.parametrize(
  ('encoding', 'named'),
  [
    ('cp1252', 'line 2 is not UTF-8 but perhaps Windows-1252'),
    ('utf-16', 'line 1 is not UTF-8 but UTF-16'),
    ('utf-16-le', 'UTF-16'),
    ('utf-16-be', 'UTF-16'),
    ('utf-32', 'line 1 is not UTF-8 but UTF-32'),
  ],
)
def test_other_encodings_are_named_with_file_and_line(
  tmp_path, encoding, named
):
  path = tmp_path / 'a.txt'
  path.write_bytes('plain\na café\n'.encode(encoding))
  with pytest.raises(ValueError, match=named) as raised:
    text_files.read(path)
  assert str(raised.value).startswith(f'{path}: line')
  assert 'iconv' in str(raised.value)


def test_a_file_that_is_too_large_is_named(tmp_path):
  path = tmp_path / 'a.txt'
  path.write_bytes(b'x' * 11)
  with pytest.raises(ValueError, match=f'{path} is larger than 10 bytes'):
    text_files.read(path, max_bytes=10)


@pytest.mark.parametrize(
  'value', [[], {'a': [1, -2.5, None, True, 'ü []{'], 'b': {}}, 2**63, '😀']
)
def test_json_is_read_as_python_reads_it(tmp_path, value):
  path = tmp_path / 'a.json'
  for ascii_only in (True, False):
    text = json.dumps(value, ensure_ascii=ascii_only)
    path.write_bytes(b'\xef\xbb\xbf' + text.encode())
    assert text_files.read_json(path) == value


def test_brackets_in_strings_are_no_nesting():
  text = json.dumps(['[' * 1000, '\\"{' * 1000]).encode()
  assert text_files.from_json(text, 'a') == json.loads(text)


@pytest.mark.parametrize(
  ('text', 'named'),
  [
    (b'\n[1,', 'a.json is not JSON: line 2, column 4: '),
    (b'', 'a.json is not JSON: line 1, column 1: '),
    (b'[' * 100_000, 'nested more than 50 times'),
    (b'[' * 51 + b']' * 51, 'nested more than 50 times'),
    (b'{"a":' * 60 + b'1' + b'}' * 60, 'nested more than 50 times'),
    (b'[1' + b'0' * 400 + b']', 'does not fit into 64 bits'),
    (b'[1' + b'0' * 5000 + b']', 'does not fit into 64 bits'),
    (b'["\\ud800"]', 'line 1 or later has half of a character'),
    (b'\n["\xe9"]', 'a.json: line 2 is not UTF-8'),
    (b'[' + b'1,' * 12_000_001 + b'1]', 'has more than 12000000 values'),
  ],
)
def test_other_texts_are_one_error_with_file_and_line(tmp_path, text, named):
  path = tmp_path / 'a.json'
  path.write_bytes(text)
  with pytest.raises(ValueError, match=named) as raised:
    text_files.read_json(path)
  assert str(path) in str(raised.value)
  assert len(str(raised.value)) < 500


def test_the_rows_of_a_table_have_the_numbers_of_their_lines(tmp_path):
  path = tmp_path / 'a.csv'
  path.write_bytes(b'\xef\xbb\xbfa,b\r\n\r\n"x, ""y""\r\nz",2\r\nc,d\r\n')
  assert text_files.rows(path) == [
    (1, ['a', 'b']),
    (3, ['x, "y"\nz', '2']),
    (5, ['c', 'd']),
  ]
  path.write_bytes(b'a,b\n"x,1\n')
  with pytest.raises(ValueError, match='line 2: unexpected end of data'):
    text_files.rows(path)


@pytest.mark.parametrize('text', ['1', '-2.5', '.5', '1e3', '+4.'])
def test_numbers(text):
  assert text_files.number(text) == float(text)


@pytest.mark.parametrize('text', ['', 'nan', 'inf', '1_0', '१', '1e999', 'x'])
def test_what_is_no_finite_number_is_shown(text):
  with pytest.raises(ValueError, match='number'):
    text_files.number(text)
