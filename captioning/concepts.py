"""Concepts: the words on which the captions of an image agree.

If one person says 'dog' of an image, others do too; 'there' or 'with' says
nothing of it. What `losses.visual_words_loss` learns to see are the former.
"""

import collections
from collections.abc import Iterable
from collections.abc import Sequence

import numpy as np

from captioning import languages
from captioning import vocabulary as vocabulary_lib

NONE = -1

# A word is a concept if, where one caption of an image has it, at least this
# share of the image's other captions do,
_MIN_AGREEMENT = 0.6
# and if it is in this number of captions.
_MIN_CAPTIONS = 50


def find(
  captions: Iterable[Sequence[str]], vocabulary: vocabulary_lib.Vocabulary
) -> np.ndarray:
  """The concept of each word of the vocabulary.

  A plural has the concept of its singular: one location shows a circle,
  whether there are more or not.

  Args:
    captions: of each training image.
    vocabulary: with V words.

  Returns:
    i32[V], `NONE` or a number below the number of concepts.

  Raises:
    ValueError: there are no concepts.
  """
  tokenize = languages.TOKENIZERS[vocabulary.tokenizer]
  counts = collections.Counter()  # Captions with a word,
  others = collections.Counter()  # other captions of their images,
  agreeing = collections.Counter()  # and those of them that have it, too.
  for of_image in captions:
    used = collections.Counter()
    for caption in of_image:
      used.update(set(tokenize(caption)))
    for word, count in used.items():
      counts[word] += count
      others[word] += count * (len(of_image) - 1)
      agreeing[word] += count * (count - 1)
  numbers: dict[str, int] = {}
  result = np.full(len(vocabulary), NONE, np.int32)
  special = len(vocabulary_lib.SPECIAL)
  for i, word in enumerate(vocabulary.words[special:], special):
    if (
      counts[word] >= _MIN_CAPTIONS
      and agreeing[word] >= _MIN_AGREEMENT * others[word] > 0
    ):
      concept = _singular(word, counts)
      result[i] = numbers.setdefault(concept, len(numbers))
  if not numbers:
    raise ValueError(
      'the captions of an image agree on no word that is in '
      f'{_MIN_CAPTIONS} captions: pass --config.loss.visual_words=0'
    )
  return result


def _singular(word: str, counts: collections.Counter) -> str:
  """The word without 's' or 'es' if that is a word of the captions, too."""
  for ending in ('s', 'es'):
    stem = word.removesuffix(ending)
    if stem != word and counts[stem] >= _MIN_CAPTIONS:
      return stem
  return word
