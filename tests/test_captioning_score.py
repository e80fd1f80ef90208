import csv
import json
import subprocess
import sys
import unicodedata
import warnings

import pytest

from captioning import caption_files
from captioning import languages
from captioning import metrics
from captioning import score
from captioning import tokenizer

REFERENCES = {
  '7': ['A man rides a horse.', 'the man is riding a horse'],
  '12': ['two cats', '2 cats, on a "mat"'],
  '3': ['a plane in the sky', 'an airplane flying'],
}
CANDIDATES = {
  '7': ['a horse!'],
  '12': ['the cats, two'],
  '3': ['an airplane in the sky'],
}


def as_csv(captions, *, delimiter=',', columns=('image_id', 'caption')):
  def write(path):
    with open(path, 'w', newline='', encoding='utf-8') as file:
      writer = csv.writer(file, delimiter=delimiter)
      writer.writerow(columns)
      writer.writerows((i, text) for i, x in captions.items() for text in x)

  return write


def as_json(content):
  return lambda path: path.write_text(json.dumps(content), encoding='utf-8')


def as_text(lines):
  return lambda path: path.write_text('\n'.join(lines), encoding='utf-8')


def pairs(captions):
  return [(i, text) for i, texts in captions.items() for text in texts]


# Ending, and what writes REFERENCES in a form with ids.
FORMS = {
  'coco_results.json': as_json(
    [{'image_id': int(i), 'caption': text} for i, text in pairs(REFERENCES)]
  ),
  'coco_annotations.json': as_json(
    {
      'images': [{'id': 7}],
      'annotations': [
        {'id': n, 'image_id': int(i), 'caption': text}
        for n, (i, text) in enumerate(pairs(REFERENCES))
      ],
    }
  ),
  'object.json': as_json(REFERENCES),
  'pycocoevalcap.json': as_json(
    {i: [{'caption': x} for x in texts] for i, texts in REFERENCES.items()}
  ),
  'table.csv': as_csv(REFERENCES),
  'table.tsv': as_csv(REFERENCES, delimiter='\t', columns=('image', 'comment')),
  'flickr.txt': as_text(
    f'{i}#{n}\t{text}'
    for i, texts in REFERENCES.items()
    for n, text in enumerate(texts)
  ),
}


@pytest.mark.parametrize('name', FORMS)
def test_every_form_holds_the_same_captions(tmp_path, name):
  path = tmp_path / name
  FORMS[name](path)
  assert caption_files.read(path) == REFERENCES


@pytest.mark.parametrize(
  'name, write',
  [
    ('lists.json', as_json([*REFERENCES.values()])),
    ('lines.txt', as_text(x[0] for x in REFERENCES.values())),
    ('texts.json', as_json([x[0] for x in REFERENCES.values()])),
  ],
)
def test_images_of_lists_are_their_positions(tmp_path, name, write):
  path = tmp_path / name
  write(path)
  count = 2 if name == 'lists.json' else 1
  assert caption_files.read(path) == {
    str(i): texts[:count] for i, texts in enumerate(REFERENCES.values())
  }


@pytest.mark.parametrize(
  'name, text, expected',
  [
    # Only a line feed ends a line: these are what people paste.
    ('a.txt', 'a\x0cb\u2028c\x85d\n\ne', ['a\x0cb\u2028c\x85d', '', 'e']),
    ('a.txt', 'a\n\n', ['a', '']),
    ('a.csv', '\ufeffImage_ID, Caption\r\n 0 ,a\r\n1,\r\n', ['a', '']),
    ('a.json', '[{"image_id": 0.0, "caption": "a"}]', ['a']),
  ],
)
def test_what_other_programs_write(tmp_path, name, text, expected):
  path = tmp_path / name
  path.write_bytes(text.encode())
  captions = {str(i): [caption] for i, caption in enumerate(expected)}
  assert caption_files.read(path) == captions


@pytest.mark.parametrize(
  'name, text, message',
  [
    ('a.json', '{', 'is not JSON'),
    ('a.json', '3', 'a list or an object'),
    ('a.json', '[[1]]', '1 is no caption'),
    ('a.json', '{"a": 3}', "captions of 'a' are 3"),
    ('a.json', '[{"caption": "x"}]', 'none of the fields image_id'),
    ('a.json', '[]', 'no captions'),
    ('a.json', '{"1": ["a"], "2": []}', "'2' has no captions: leave it out"),
    ('a.csv', 'one,two\n1,a', 'must name the columns'),
    ('a.csv', 'image_id,caption\n1', 'line 2 has 1 columns'),
    ('a.txt', 'a\tb\nc', 'some have none'),
  ],
)
def test_other_forms_are_refused(tmp_path, name, text, message):
  path = tmp_path / name
  path.write_text(text)
  with pytest.raises(ValueError, match=message):
    caption_files.read(path)


def run(capsys, *arguments):
  assert score.main([*map(str, arguments)]) == 0
  return capsys.readouterr()


@pytest.fixture
def files(tmp_path):
  """The paths of the references and of the candidates."""
  paths = tmp_path / 'references.json', tmp_path / 'candidates.csv'
  as_json(REFERENCES)(paths[0])
  as_csv(CANDIDATES)(paths[1])
  return paths


def test_the_command_prints_the_official_scores(golden_file, tmp_path, capsys):
  captions = json.loads(golden_file('captions/edge.json').read_text())
  as_json(captions['refs'])(tmp_path / 'r.json')
  as_json(captions['cands'])(tmp_path / 'c.json')
  arguments = (tmp_path / 'r.json', tmp_path / 'c.json', '--without_meteor')
  scores = json.loads(run(capsys, *arguments, '--json').out)['scores']
  text = golden_file('captions/edge.scores.json').read_text()
  official = json.loads(text)['corpus']
  for name in scores:
    theirs = official[name.replace('BLEU-', 'Bleu_').replace('-', '_')]
    assert scores[name] == pytest.approx(theirs, abs=1e-6)
  lines = run(capsys, *arguments).out.splitlines()
  assert lines[0] == f'{len(captions["refs"])} images'
  assert lines[-1].split() == ['CIDEr', f'{scores["CIDEr"]:.4f}']


def test_it_starts_without_jax(files):
  code = (
    'import sys\nfrom captioning import score\n'
    'score.main(sys.argv[1:])\n'
    'print(*{name.split(".")[0] for name in sys.modules})'
  )
  result = subprocess.run(
    [sys.executable, '-c', code, *files, '--without_meteor'],
    capture_output=True,
    text=True,
    check=True,
  )
  loaded = result.stdout.splitlines()[-1].split()
  assert 'numpy' in loaded
  assert not {'jax', 'flax', 'absl', 'tensorflow', 'grain'} & {*loaded}


def test_images_that_one_file_lacks(files, tmp_path, capsys):
  as_csv({**CANDIDATES, '9': ['more']})(files[1])
  with pytest.raises(SystemExit):
    run(capsys, *files)
  assert 'must have the same image ids' in capsys.readouterr().err
  out = run(capsys, *files, '--common', '--without_meteor', '--json').out
  assert json.loads(out)['num_images'] == 3


def test_scores_of_each_image(files, tmp_path, capsys):
  path = tmp_path / 'each.json'
  run(capsys, *files, '--without_meteor', f'--per_image={path}')
  expected = metrics.score(REFERENCES, {i: x[0] for i, x in CANDIDATES.items()})
  assert json.loads(path.read_text()) == expected['per_image']


def test_several_candidates(files, capsys):
  """The oracle is at least the mean and the first; by hand for each image."""
  several = {
    '7': ['a dog', 'the man is riding a horse'],
    '12': ['two cats', 'cats'],
    '3': ['nothing'],
  }
  as_csv(several)(files[1])
  found = json.loads(run(capsys, *files, '--without_meteor', '--json').out)
  first = metrics.score(REFERENCES, {i: x[0] for i, x in several.items()})
  last = metrics.score(REFERENCES, {i: x[-1] for i, x in several.items()})
  assert found['scores'] == first['corpus']
  for name in metrics.WITHOUT_JAVA:
    scores = [
      [each['per_image'][i][name] for each in (first, last)] for i in several
    ]
    assert found['oracle'][name] == pytest.approx(
      sum(map(max, scores)) / len(scores)
    )
    assert found['mean'][name] == pytest.approx(
      sum(map(sum, scores)) / 2 / len(scores)
    )
  lines = run(capsys, *files, '--without_meteor').out.splitlines()
  assert lines[1].split() == ['oracle', 'mean']
  assert len(lines[2].split()) == 4
  assert metrics.of_several(REFERENCES, CANDIDATES) == {}


# Tokenizers.


def test_the_two_forms_of_a_letter_are_one_word():
  text = 'un café à côté'
  decomposed = unicodedata.normalize('NFD', text)
  assert decomposed != text
  for split in languages.TOKENIZERS.values():
    assert split(decomposed) == split(text) == text.split()


@pytest.mark.parametrize(
  'caption, tokens',
  [
    ('一只狗。', ['一', '只', '狗']),
    ('两只 cats、3 dogs', ['两', '只', 'cats', '3', 'dogs']),
    ('犬がいる', ['犬', 'が', 'い', 'る']),
    ("A dog's ball, 'red'!", ['a', "dog's", 'ball', 'red']),
    ('ที่นี่', ['ที่', 'นี่']),
    ('', []),
  ],
)
def test_characters(caption, tokens):
  assert languages.characters(caption) == tokens


@pytest.mark.parametrize(
  ('words', 'text'),
  [
    (['一', '只', '狗'], '一只狗'),
    (['两', '只', 'cats', '3', 'dogs'], '两只cats 3 dogs'),
    (['red', '狗', 'ball'], 'red狗ball'),
    (['ที่', 'นี่'], 'ที่นี่'),
    # A mark alone does not become one of the character before.
    (['か', '\u3099'], 'か \u3099'),
    ([], ''),
  ],
)
def test_joined_characters_are_split_into_the_same(words, text):
  assert languages.join(words, 'characters') == text
  assert languages.characters(text) == words
  assert languages.join(words) == ' '.join(words)


def test_captions_without_blanks_are_warned_of(tmp_path, capsys):
  references = {'a': ['一只黑色的狗在跑'], 'b': ['两个人坐在海边'], 'c': ['x']}
  candidates = {'a': '一只白色的狗在跑', 'b': '两个人在海边', 'c': 'x'}
  with pytest.warns(languages.NoBlanks, match="tokenizer='characters'"):
    words = metrics.score(references, candidates)
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    found = metrics.score(references, candidates, tokenizer='characters')
  assert words['per_image']['a']['BLEU-1'] < 1e-6
  assert found['per_image']['a']['BLEU-1'] == pytest.approx(7 / 8)
  as_json(references)(tmp_path / 'r.json')
  as_json(candidates)(tmp_path / 'c.json')
  arguments = (tmp_path / 'r.json', tmp_path / 'c.json', '--without_meteor')
  assert 'warning: 2 of 3 captions' in run(capsys, *arguments).err
  assert not run(capsys, *arguments, '--tokenizer=characters').err


def test_words_are_those_of_the_official_tokenizer():
  assert languages.TOKENIZERS['words'] is tokenizer.tokenize
