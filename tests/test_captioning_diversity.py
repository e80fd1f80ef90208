import math

import numpy as np
import pytest

from captioning import diversity
from captioning import metrics

_ALIKE = {
  'a': ['a man rides a brown horse'] * 4,
  'b': ['two dogs chase one red ball'] * 4,
}
_DIFFERENT = {
  'a': ['a b c d e', 'f g h i j', 'k l m n o', 'p q r s t'],
  'b': ['a0 b0 c0 d0 e0', 'f0 g0 h0 i0 j0', 'k0 l0 m0 n0 o0', 'p0 q0 r0 s0 t0'],
}


def test_equal_captions_have_no_diversity():
  scores = diversity.score(_ALIKE)
  # 5 or 6 distinct words of 24; 5 distinct pairs in both.
  assert scores['distinct-1'] == pytest.approx((5 + 6) / 2 / 24)
  assert scores['distinct-2'] == pytest.approx(5 / 24)
  assert scores['mBLEU-4'] == pytest.approx(1, abs=1e-6)
  assert scores['self-CIDEr'] == pytest.approx(0, abs=1e-6)


def test_captions_that_share_nothing_have_all_diversity():
  scores = diversity.score(_DIFFERENT)
  assert scores['distinct-1'] == 1
  assert scores['distinct-2'] == 4 / 5
  assert scores['mBLEU-4'] == pytest.approx(0, abs=1e-3)
  assert scores['self-CIDEr'] == pytest.approx(1)


def test_two_captions_by_hand():
  """The eigenvalues of [[1, c], [c, 1]] are 1 + c and 1 - c."""
  captions = {'a': ['a b c d e', 'a b c d f'], 'b': ['v w x y z', 'q r s t u']}
  words = {i: [text.split() for text in captions[i]] for i in captions}
  [_, c], _ = metrics.CiderD.count(words.values()).similarities(words['a'])
  assert 0 < c < 1
  roots = math.sqrt(1 + c), math.sqrt(1 - c)
  of_a = -math.log(roots[0] / sum(roots)) / math.log(2)
  scores = diversity.score(captions)
  assert scores['self-CIDEr'] == pytest.approx((of_a + 1) / 2)
  assert scores['distinct-1'] == (6 / 10 + 1) / 2
  # Of the captions of 'a' and 'b': 4 and 0 of 5 words match, 3 and 0 of 4
  # pairs, 2 and 0 of 3, 1 and 0 of 2; the lengths are equal.
  matches = [4 / 10, 3 / 8, 2 / 6, 1 / 4]
  assert scores['mBLEU-4'] == pytest.approx(np.prod(matches) ** (1 / 4))


def test_references_weigh_the_words():
  rare = diversity.score(
    _ALIKE | {'c': ['x y', 'x y', 'x z', 'x z']},
    references={'a': ['x w'], 'b': ['y w'], 'c': ['z']},
  )
  common = diversity.score(
    _ALIKE | {'c': ['x y', 'x y', 'x z', 'x z']},
    references={'a': ['x y'], 'b': ['x z'], 'c': ['x']},
  )
  # The word that all captions share weighs nothing where all images have it.
  assert rare['self-CIDEr'] < common['self-CIDEr']
  assert rare['mBLEU-4'] == common['mBLEU-4']


def test_captions_without_words_have_no_diversity():
  scores = diversity.score({'a': ['', '...'], 'b': ['', '']})
  assert scores['distinct-1'] == scores['self-CIDEr'] == 0
  assert scores['mBLEU-4'] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
  'captions, message',
  [
    ({'a': ['x'], 'b': ['y']}, r'at least two, not \[1\]'),
    ({'a': ['x', 'y'], 'b': ['x', 'y', 'z']}, r'not \[2, 3\]'),
    ({}, r'not \[\]'),
    ({'a': ['x', 'y']}, 'of at least two images'),
  ],
)
def test_bad_input_is_refused(captions, message):
  with pytest.raises(ValueError, match=message):
    diversity.score(captions)


def test_usage_by_hand():
  captions = {'a': ['A dog runs.', 'a dog on the'], 'b': ['', 'two cats']}
  usage = diversity.usage(captions, ['a dog runs', 'a cat', '.'])
  # Novel are 'a dog on the' and 'two cats'; without words is '.', too.
  assert usage == {'novel': 2 / 4, 'words': 7, 'bad endings': 1 / 4}
  with pytest.raises(ValueError, match='no captions'):
    diversity.usage({}, [])
