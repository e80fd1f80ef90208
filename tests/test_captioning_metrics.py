import json
import math
import random
import shutil
import sys
import time

import pytest

from captioning import java_metrics
from captioning import metrics

_SETS = ['edge', 'coco_fakecap', 'flickr8k_test_human', 'flickr30k_test_human']
_OFFICIAL = {
  'BLEU-1': 'Bleu_1',
  'BLEU-2': 'Bleu_2',
  'BLEU-3': 'Bleu_3',
  'BLEU-4': 'Bleu_4',
  'ROUGE-L': 'ROUGE_L',
  'CIDEr': 'CIDEr',
  'METEOR': 'METEOR',
}
_REFERENCES = {
  'a': ['a man rides a horse .', 'the man is riding a horse'],
  'b': ['two cats', '2 cats on a mat'],
  'c': ['a plane in the sky', 'an airplane flying', 'a jet flies'],
}
_CANDIDATES = {'b': 'the cats', 'c': 'an airplane in the sky', 'a': 'A horse!'}


@pytest.fixture
def golden(golden_file):
  return lambda name: json.loads(
    golden_file(f'captions/{name}.json').read_text()
  )


def _assert_official(ours, official, names):
  for name in names:
    expected = official['corpus'][_OFFICIAL[name]]
    assert ours['corpus'][name] == pytest.approx(expected, abs=1e-6), name
    for i, expected in zip(
      official['keys'], official['per_image'][_OFFICIAL[name]], strict=True
    ):
      assert ours['per_image'][i][name] == pytest.approx(expected, abs=1e-6), i


@pytest.mark.parametrize('name', _SETS)
def test_scores_equal_the_official_ones(golden, name):
  captions = golden(name)
  ours = metrics.score(captions['refs'], captions['cands'])
  official = golden(f'{name}.scores')
  _assert_official(ours, official, set(_OFFICIAL) - {'METEOR'})
  assert set(ours['corpus']) == set(_OFFICIAL) - {'METEOR'}


def test_meteor_equals_the_official_one(golden):
  reason = java_metrics.why_no_meteor()
  if reason:
    pytest.skip(reason)
  captions = golden('edge')
  ours = metrics.score(captions['refs'], captions['cands'], meteor=True)
  _assert_official(ours, golden('edge.scores'), ['METEOR'])
  assert ours['absent'] == {}


def _random_captions(images, seed=0):
  rng = random.Random(seed)
  words = [f'w{n}' for n in range(30)]

  def caption():
    return ' '.join(rng.choices(words, k=rng.randint(0, 12)))

  references = {
    n: [caption() for _ in range(rng.randint(1, 5))] for n in range(images)
  }
  return references, {n: caption() for n in range(images)}


# With one image the logarithm of their number makes every CIDEr zero.
@pytest.mark.parametrize('images', [1, 2, 40])
def test_scores_equal_pycocoevalcap(images):
  bleu = pytest.importorskip('pycocoevalcap.bleu.bleu')
  rouge = pytest.importorskip('pycocoevalcap.rouge.rouge')
  cider = pytest.importorskip('pycocoevalcap.cider.cider')
  references, candidates = _random_captions(images)
  ours = metrics.score(references, candidates)
  guesses = {i: [caption] for i, caption in candidates.items()}
  corpus, each = bleu.Bleu(4).compute_score(references, guesses, verbose=0)
  expected = {f'BLEU-{n + 1}': (corpus[n], each[n]) for n in range(4)}
  expected['ROUGE-L'] = rouge.Rouge().compute_score(references, guesses)
  expected['CIDEr'] = cider.Cider().compute_score(references, guesses)
  for name, (corpus, each) in expected.items():
    assert ours['corpus'][name] == pytest.approx(corpus, abs=1e-9), name
    scores = [ours['per_image'][i][name] for i in references]
    assert scores == pytest.approx(list(each), abs=1e-9), name


def test_small_case_by_hand():
  scores = metrics.score(_REFERENCES, _CANDIDATES)['per_image']
  # 'a horse': both words right, brevity penalty exp(1 - 5 / 2).
  assert scores['a']['BLEU-1'] == pytest.approx(math.exp(-1.5), abs=1e-6)
  # Precision 2 / 2, recall 2 / 5.
  rouge = 2.44 * 1 * 0.4 / (0.4 + 1.44 * 1)
  assert scores['a']['ROUGE-L'] == pytest.approx(rouge, abs=1e-9)
  # 'the cats': precision 1 / 2 of 'two cats', recall 1 / 2 of it.
  assert scores['b']['ROUGE-L'] == pytest.approx(0.5, abs=1e-9)
  assert scores['b']['BLEU-1'] == pytest.approx(0.5, abs=1e-6)
  # All five words; of four pairs all but 'airplane in'.
  assert scores['c']['BLEU-1'] == pytest.approx(1.0, abs=1e-6)
  assert scores['c']['BLEU-2'] == pytest.approx(math.sqrt(3 / 4), abs=1e-6)


def test_perfect_captions_are_perfect():
  references = {n: [f'w{n} x{n} y{n} z{n}'] for n in range(3)}
  candidates = {n: captions[0] for n, captions in references.items()}
  corpus = metrics.score(references, candidates)['corpus']
  assert set(corpus) == set(metrics.WITHOUT_JAVA)
  assert corpus['CIDEr'] == pytest.approx(10)
  for name in 'BLEU-1', 'BLEU-4', 'ROUGE-L':
    assert corpus[name] == pytest.approx(1, abs=1e-6)


def test_empty_captions():
  scores = metrics.score(
    {'a': ['a dog', ''], 'b': ['...'], 'c': ['x']},
    {'a': '', 'b': '', 'c': 'x'},
  )
  # Nothing equals nothing for ROUGE-L alone.
  for i in 'a', 'b':
    assert scores['per_image'][i]['ROUGE-L'] == 1
    assert scores['per_image'][i]['BLEU-1'] < 1e-3
    assert scores['per_image'][i]['CIDEr'] == 0


def test_cider_d_scores_any_caption_of_its_images():
  references = {
    i: [text.removesuffix(' .') for text in texts]
    for i, texts in _REFERENCES.items()
  }
  caption = 'the man on a horse'
  whole = metrics.score(references, dict.fromkeys(references, caption))
  words = {
    i: [text.split() for text in texts] for i, texts in references.items()
  }
  cider_d = metrics.CiderD.count(words.values())
  for i in 'cabca':
    expected = whole['per_image'][i]['CIDEr']
    assert cider_d.score(caption.split(), words[i]) == expected
  assert whole['per_image']['a']['CIDEr'] > whole['per_image']['b']['CIDEr']


def _words(texts):
  return [text.split() for text in texts]


def _numbers(captions, numbers):
  return [
    [numbers.setdefault(word, len(numbers)) for word in caption]
    for caption in captions
  ]


def test_frequencies_from_elsewhere_and_words_as_numbers_change_nothing():
  references, candidates = _random_captions(40)
  words = {i: _words(texts) for i, texts in references.items()}
  counted = metrics.CiderD.count(words.values())
  # What occurs in one image alone need not be stored.
  stored = {n: count for n, count in counted.frequency.items() if count > 1}
  assert 0 < len(stored) < len(counted.frequency)
  cached = metrics.CiderD(stored, counted.num_images)
  numbers = {}
  numbered = {i: _numbers(captions, numbers) for i, captions in words.items()}
  of_numbers = metrics.CiderD.count(numbered.values())
  expected = metrics.score(references, candidates)['per_image']
  for i, caption in candidates.items():
    others = [candidates[j].split() for j in range(5)]
    score, *rest = counted.scores([caption.split(), *others], words[i])
    assert score == expected[i]['CIDEr']
    assert rest == [counted.score(other, words[i]) for other in others]
    assert cached.score(caption.split(), words[i]) == score
    [caption] = _numbers([caption.split()], numbers)
    assert of_numbers.score(caption, numbered[i]) == pytest.approx(score)


def test_sentence_bleu_is_that_of_the_image():
  references, candidates = _random_captions(40)
  expected = metrics.score(references, candidates)['per_image']
  guesses = _words(candidates.values())
  for i, texts in references.items():
    scores = metrics.sentence_bleu(guesses, _words(texts))
    assert scores[i] == expected[i]['BLEU-4']


def test_similarities_are_cosines():
  rng = random.Random(1)
  # All as long as the references, and no word twice: no penalty, no clipping.
  captions = [rng.sample('abcdefgh', 6) for _ in range(5)]
  others = [[rng.sample('abcdefgh', 6)] for _ in range(8)]
  cider_d = metrics.CiderD.count([captions, *others])
  matrix = cider_d.similarities(captions)
  assert (matrix == matrix.T).all()
  assert matrix.diagonal() == pytest.approx(1)
  for i, caption in enumerate(captions):
    assert 10 * matrix[i] == pytest.approx(cider_d.scores(captions, [caption]))
  empty = cider_d.similarities([[], captions[0][:2]])
  assert empty.tolist() == [[0, 0], [0, pytest.approx(0.5)]]


def test_five_thousand_images_take_seconds():
  references, candidates = _random_captions(5000)
  start = time.process_time()
  metrics.score(references, candidates)
  assert time.process_time() - start < 30


@pytest.mark.parametrize(
  'references, candidates, error, message',
  [
    ({}, {}, ValueError, 'at least one image'),
    ({'a': ['x'], 'b': ['x']}, {'a': 'x'}, ValueError, "for 'b', remove"),
    ({'a': ['x']}, {'a': 'x', 'b': 'x'}, ValueError, "remove those of 'b'"),
    ({'a': []}, {'a': 'x'}, ValueError, r"references\['a'\] is empty"),
    ({'a': 'x'}, {'a': 'x'}, TypeError, 'wrap a single caption in a list'),
    ({'a': ['x']}, {'a': ['x']}, TypeError, 'must be text, not list'),
    ({'a': [None]}, {'a': 'x'}, TypeError, 'must be text, not NoneType'),
    ([['x']], {'a': 'x'}, TypeError, 'references must map'),
    ({'a': ['x']}, ['x'], TypeError, 'candidates must map'),
  ],
)
def test_bad_input_is_refused(references, candidates, error, message):
  with pytest.raises(error, match=message):
    metrics.score(references, candidates)


def test_many_missing_ids_are_abridged():
  with pytest.raises(ValueError, match='0, 1, 2, 3, 4 and 5 more'):
    metrics.score({n: ['x'] for n in range(10)}, {})


def test_without_java_meteor_and_spice_are_absent(monkeypatch, tmp_path):
  monkeypatch.setenv('PATH', str(tmp_path))
  jar = tmp_path / 'spice-1.0.jar'
  jar.touch()
  scores = metrics.score(
    _REFERENCES, _CANDIDATES, meteor=True, spice_jar=str(jar)
  )
  assert set(scores['absent']) == {'METEOR', 'SPICE'}
  assert 'java' in scores['absent']['SPICE']
  assert 'METEOR' not in scores['corpus']


def test_without_the_jars_meteor_and_spice_are_absent(monkeypatch, tmp_path):
  monkeypatch.setattr(sys, 'path', [])
  monkeypatch.delitem(sys.modules, 'pycocoevalcap', raising=False)
  jar = str(tmp_path / 'spice-1.0.jar')
  scores = metrics.score(_REFERENCES, _CANDIDATES, meteor=True, spice_jar=jar)
  assert 'pip install' in scores['absent']['METEOR']
  assert jar in scores['absent']['SPICE']


def _fake_java(monkeypatch, tmp_path, script):
  if java_metrics.why_no_meteor():
    pytest.skip('METEOR is not installed')
  java = tmp_path / 'java'
  java.write_text(f'#!{shutil.which("sh")}\n{script}\n')
  java.chmod(0o755)
  monkeypatch.setenv('PATH', f'{tmp_path}:/usr/bin:/bin')


def test_a_meteor_that_dies_says_why(monkeypatch, tmp_path):
  _fake_java(monkeypatch, tmp_path, 'echo no memory >&2; exit 1')
  with pytest.raises(RuntimeError, match='no memory'):
    java_metrics.meteor([['a']], ['a'])


def test_a_meteor_that_hangs_is_stopped(monkeypatch, tmp_path):
  _fake_java(monkeypatch, tmp_path, 'exec sleep 60')
  start = time.monotonic()
  with pytest.raises(RuntimeError, match='raise the timeout'):
    java_metrics.meteor([['a']], ['a'], timeout=0.5)
  assert time.monotonic() - start < 20


def test_meteor_gets_one_line_per_caption(monkeypatch, tmp_path):
  # Answers each SCORE line with its number, and EVAL with two scores.
  _fake_java(
    monkeypatch,
    tmp_path,
    'while read -r line; do case "$line" in\n'
    '"SCORE ||| a b ||| c d ||| e f") echo 1 ;;\n'
    '"EVAL ||| 1") echo 0.25; echo 0.5 ;;\n'
    '*) echo "unexpected: $line" >&2; exit 1 ;; esac; done',
  )
  scores = java_metrics.meteor([['a\nb', 'c ||| d']], ['e\r\nf'])
  assert scores == (0.5, [0.25])
