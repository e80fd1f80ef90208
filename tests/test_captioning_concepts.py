import itertools

import numpy as np
import pytest

from captioning import concepts
from captioning import scenes
from captioning import shapes
from captioning import vocabulary as vocabulary_lib


def names(found, vocabulary):
  """Concept -> its words."""
  return [
    {vocabulary.words[i] for i in np.flatnonzero(found == concept)}
    for concept in range(found.max() + 1)
  ]


def test_concepts_of_scenes_are_what_images_show():
  captions = [scenes.example('train', i)[2] for i in range(1500)]
  vocabulary = vocabulary_lib.Vocabulary.build(
    itertools.chain(*captions), threshold=1
  )
  found = names(concepts.find(captions, vocabulary), vocabulary)
  for colour in shapes.COLOURS:
    assert {colour} in found
  for shape in shapes.SHAPES:
    assert {shape, scenes.plural(shape)} in found
  words = set.union(*found)
  assert {'three', 'four', 'five'} < words
  assert words.isdisjoint('there picture sits holds on light'.split())


def test_agreement_is_that_of_pairs_of_captions():
  captions = [['a dog', 'the dog', 'it']] * 60 + [['cat', 'cats', 'cat']] * 30
  vocabulary = vocabulary_lib.Vocabulary.build(
    itertools.chain(*captions), threshold=1
  )
  # 'dog': of the 2 other captions of each, 1 has it: 0.5. 'cat' is in two of
  # three captions of an image, 0.5 too.
  with pytest.raises(ValueError, match='agree on no word'):
    concepts.find(captions, vocabulary)
  captions += [['a dog', 'the dog', 'one dog']] * 60
  found = names(concepts.find(captions, vocabulary), vocabulary)
  # 'dog': (60 * 2 * 1 + 60 * 3 * 2) / (60 * 2 * 2 + 60 * 3 * 2) = 0.8.
  assert found == [{'dog'}]
