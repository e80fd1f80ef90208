import warnings

import numpy as np
import pytest

from captioning import languages
from captioning import vocabulary

CAPTIONS = [
  'A dog runs on the grass.',
  'A dog, a brown one, runs.',
  'The cat sleeps on the grass',
]


def build(threshold=1):
  return vocabulary.Vocabulary.build(CAPTIONS, threshold=threshold)


def test_special_tokens_are_numbered_by_their_place():
  ids = {
    vocabulary.PAD: vocabulary.PAD_ID,
    vocabulary.BOS: vocabulary.BOS_ID,
    vocabulary.EOS: vocabulary.EOS_ID,
    vocabulary.UNK: vocabulary.UNK_ID,
  }
  assert {word: i for i, word in enumerate(build().words[:4])} == ids


def test_words_are_ordered_by_frequency_then_alphabet():
  words = build(threshold=2).words[4:]
  assert words == ['a', 'the', 'dog', 'grass', 'on', 'runs']
  reversed_captions = vocabulary.Vocabulary.build(
    reversed(CAPTIONS), threshold=1
  )
  assert reversed_captions == build()


def test_no_word_reaches_the_threshold():
  with pytest.raises(ValueError, match='threshold=10'):
    build(threshold=10)


def test_decode_inverts_encode():
  ids = build().encode('The brown dog sleeps.', 8)
  assert ids.dtype == np.int32
  assert ids.shape == (8,)
  assert build().decode(ids) == 'the brown dog sleeps'
  assert list(ids[4:]) == [vocabulary.EOS_ID] + [vocabulary.PAD_ID] * 3


@pytest.mark.parametrize('max_length', [1, 2, 3, 4, 5])
def test_a_long_caption_is_cut_before_its_end_token(max_length):
  ids = build().encode('the dog runs on the grass', max_length)
  assert len(ids) == max_length
  assert ids[-1] == vocabulary.EOS_ID
  expected = 'the dog runs on the grass'.split()[: max_length - 1]
  assert build().decode(ids) == ' '.join(expected)


def test_unknown_and_special_words_become_unk():
  ids = build().encode('the zebra runs', 5)
  assert build().decode(ids) == f'the {vocabulary.UNK} runs'
  words = vocabulary.Vocabulary([*vocabulary.SPECIAL, 'eos'])
  assert vocabulary.EOS_ID not in words.encode('<eos> eos', 9)[:1]


def test_an_empty_caption_is_its_end_token():
  assert list(build().encode('', 3)) == [vocabulary.EOS_ID, 0, 0]


def test_load_inverts_save(tmp_path):
  words = vocabulary.Vocabulary.build(['un café', 'Ünïcode'], threshold=1)
  words.save(tmp_path / 'vocabulary.json')
  assert vocabulary.Vocabulary.load(tmp_path / 'vocabulary.json') == words
  assert [path.name for path in tmp_path.iterdir()] == ['vocabulary.json']


@pytest.mark.parametrize(
  ('text', 'problem'),
  [
    ('{"words": [', 'line 1 column'),
    ('["a"]', 'field `words`'),
    ('{"words": "a"}', 'field `words`'),
    ('{"words": ["<pad>", 1]}', 'field `words`'),
    ('{"words": ["a", "b"]}', 'must start with'),
    (
      '{"words": ["<pad>", "<bos>", "<eos>", "<unk>", "a", "a"]}',
      r"repeated: \['a'\]",
    ),
  ],
)
def test_load_names_the_file_and_the_problem(tmp_path, text, problem):
  path = tmp_path / 'vocabulary.json'
  path.write_text(text)
  with pytest.raises(ValueError, match=problem) as error:
    vocabulary.Vocabulary.load(path)
  assert str(path) in str(error.value)


def test_captions_without_blanks_are_warned_of():
  captions = ['一只黑色的狗在跑', '两个人坐在海边', '一只狗']
  with pytest.warns(languages.NoBlanks, match='2 of 3 captions .* separate'):
    vocabulary.Vocabulary.build(iter(captions), threshold=1)
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    of_characters = vocabulary.Vocabulary.build(
      captions, threshold=2, tokenizer='characters'
    )
  assert of_characters.words[len(vocabulary.SPECIAL) :] == sorted('一只狗在')
  spaced = [' '.join(languages.characters(caption)) for caption in captions]
  words = vocabulary.Vocabulary.build(spaced, threshold=2)
  assert words.words[len(vocabulary.SPECIAL) :] == sorted('一只狗在')


def test_a_vocabulary_of_characters(tmp_path):
  """Captions come back without blanks but between words of other scripts."""
  caption = '两只狗和3 cats'
  words = vocabulary.Vocabulary.build(
    [caption], threshold=1, tokenizer='characters'
  )
  ids = words.encode(caption, 12)
  assert np.count_nonzero(ids) == 7  # Six words and EOS.
  assert words.decode(ids) == caption
  (found,) = words.to_captions(ids[np.newaxis], np.zeros(1))
  assert found.words == ('两', '只', '狗', '和', '3', 'cats')
  path = tmp_path / vocabulary.FILE
  words.save(path)
  assert vocabulary.Vocabulary.load(path) == words
  assert vocabulary.Vocabulary(words.words) != words
  for wrong in ('"letters"', '1'):
    path.write_text(words.to_json().replace('"characters"', wrong))
    with pytest.raises(ValueError, match='tokenizer'):
      vocabulary.Vocabulary.load(path)
