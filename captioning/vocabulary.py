"""Words and their ids.

Nothing here may import JAX: the processes that score captions read it too.

Axes: K captions of an image or clip (beams in search), T words of a padded
caption.
"""

import collections
import dataclasses
import itertools
import json
import os
import pathlib
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

import numpy as np

from captioning import languages
from training import text_files

PAD_ID = 0  # Fills a caption up to its fixed length; the loss masks it.
BOS_ID = 1  # The first input of the decoder; never part of a target.
EOS_ID = 2  # The last word of every target.
UNK_ID = 3  # Any word that the vocabulary does not hold.

PAD = '<pad>'
BOS = '<bos>'
EOS = '<eos>'
UNK = '<unk>'

FILE = 'vocabulary.json'  # That of a run, in its workdir.

# The index of a special token is its id.
SPECIAL = (PAD, BOS, EOS, UNK)

# English words that name nothing by themselves, and numbers. They may repeat
# where `decoding.no_repeat_content` says that no other word does.
FUNCTION_WORDS = (
  'a an the this that these those some any each every no all both several many '
  'few other another one two three four five six seven eight nine ten '
  'i you he she it we they me him her us them his its their our my your '
  'who which what where when while as than then there here '
  'and or but nor so if because also not '
  'of in on at to from with by for up down out off over under into onto near '
  'next between behind beside above below around along across through against '
  'about inside outside among during after before toward towards upon without '
  "is are was were be been being am has have had do does did can will would 's"
).split()


@dataclasses.dataclass(frozen=True)
class Caption:
  """A sentence, how probable the model finds it, and its words.

  Attributes:
    text: of the sentence.
    log_prob: natural logarithm of the probability.
    words: of the vocabulary.
  """

  text: str
  log_prob: float
  words: tuple[str, ...]


class Vocabulary:
  """A list of words; the id of a word is its index in the list.

  Attributes:
    words: in order.
    tokenizer: name of the one that splits captions; of `languages.TOKENIZERS`.
  """

  def __init__(self, words: Iterable[str], tokenizer: str = 'words'):
    """Takes all the words in order, the four special tokens first."""
    if tokenizer not in languages.TOKENIZERS:
      raise ValueError(
        f'tokenizer={tokenizer!r} is none of {", ".join(languages.TOKENIZERS)}'
      )
    self.tokenizer = tokenizer
    self._tokenize = languages.TOKENIZERS[tokenizer]
    self.words = list(words)
    if tuple(self.words[: len(SPECIAL)]) != SPECIAL:
      raise ValueError(
        f'words must start with {", ".join(SPECIAL)}, not with '
        f'{self.words[: len(SPECIAL)]}'
      )
    self._ids = {word: i for i, word in enumerate(self.words)}
    if len(self._ids) != len(self.words):
      counts = collections.Counter(self.words)
      repeated = [word for word, count in counts.items() if count > 1]
      raise ValueError(f'words must differ; repeated: {repeated[:20]}')

  def __len__(self) -> int:
    """The number of words, the special tokens included."""
    return len(self.words)

  def __eq__(self, other: object) -> bool:
    """Equal ones give the same captions the same ids."""
    return (
      isinstance(other, Vocabulary)
      and self.words == other.words
      and self.tokenizer == other.tokenizer
    )

  __hash__ = None

  @classmethod
  def build(
    cls, captions: Iterable[str], *, threshold: int, tokenizer: str = 'words'
  ) -> 'Vocabulary':
    """The words that occur at least `threshold` times in `captions`.

    The most frequent come first, words of one frequency in alphabetical order:
    the same captions in any order give the same ids.
    """
    result = cls(SPECIAL, tokenizer)
    captions = iter(captions)
    first = list(itertools.islice(captions, 100))
    if tokenizer == 'words':
      languages.warn_without_blanks(
        first,
        'pass --config.data.tokenizer=characters, or separate the words with '
        'blanks',
      )
    counts = collections.Counter()
    for caption in itertools.chain(first, captions):
      counts.update(result._tokenize(caption))
    kept = [word for word, count in counts.items() if count >= threshold]
    # A caption that happens to spell out a special token adds no second one.
    kept = [word for word in kept if word not in SPECIAL]
    if not kept:
      raise ValueError(
        f'None of the {len(counts)} words occurs threshold={threshold} '
        'times: lower the threshold or pass more captions.'
      )
    kept.sort(key=lambda word: (-counts[word], word))
    return cls([*SPECIAL, *kept], tokenizer)

  def encode(self, caption: str, max_length: int) -> np.ndarray:
    """The words, then EOS, then padding: str -> int32[T], T = `max_length`.

    A longer caption is cut so that EOS still fits. BOS is not included.
    """
    words = self._tokenize(caption)[: max_length - 1]
    ids = np.full(max_length, PAD_ID, np.int32)
    # A word of a caption is never a special token, whatever its letters.
    ids[: len(words)] = [
      UNK_ID if word in SPECIAL else self._ids.get(word, UNK_ID)
      for word in words
    ]
    ids[len(words)] = EOS_ID
    return ids

  def count_words(self, caption: str) -> int:
    """The number of words that `encode` reads, if nothing is cut."""
    return len(self._tokenize(caption))

  def decode(self, ids: Iterable[int]) -> str:
    """The words up to the first EOS or PAD: int[T] -> str."""
    return languages.join(self._words(ids), self.tokenizer)

  def _words(self, ids: Iterable[int]) -> list[str]:
    words = []
    for i in ids:
      if i in (EOS_ID, PAD_ID):
        break
      words.append(self.words[i])
    return words

  def to_captions(
    self, tokens: np.ndarray, log_probs: np.ndarray
  ) -> list[Caption]:
    """The captions of the beams of a search: i32[K, T], f32[K] -> captions.

    If constraints leave fewer captions than beams, only these are returned;
    the first beam is always kept.
    """
    found = [
      Caption(self.decode(ids), float(log_prob), tuple(self._words(ids)))
      for ids, log_prob in zip(tokens, log_probs, strict=True)
    ]
    real = [caption for caption in found if np.isfinite(caption.log_prob)]
    return real or found[:1]

  def constraints(self, decoding: Any) -> dict[str, Any]:
    """The constraints on captions, with words replaced by their ids.

    Args:
      decoding: of a config: `beam_size`, `min_length`, `no_repeat_ngram`,
        `ngram_penalty`, `no_repeat_last`, `no_repeat_content`, and words:
        `bad_endings`, `forbidden_words` and `required_words`; a required word
        is one word or several alternatives.

    Returns:
      The arguments of `recurrent.search.Constraints`.

    Raises:
      ValueError: a word is not in the vocabulary, there are fewer words than
        beams, or no function word is there where the others may not repeat.
    """
    if decoding.beam_size > len(self):
      raise ValueError(
        f'decoding.beam_size={decoding.beam_size} must be at most {len(self)}, '
        'the words of the vocabulary'
      )
    repeatable = None
    if decoding.no_repeat_content:
      repeatable = tuple(
        self._ids[word] for word in FUNCTION_WORDS if word in self._ids
      )
      if not repeatable:
        raise ValueError(
          'decoding.no_repeat_content is for English captions, but the '
          'vocabulary has none of the function words "a", "the", "of" ...: '
          'pass no_repeat_ngram instead'
        )
    return dict(
      forbidden=(
        PAD_ID,
        BOS_ID,
        UNK_ID,
        *self._find_ids('forbidden_words', decoding.forbidden_words),
      ),
      min_length=decoding.min_length,
      no_repeat_ngram=decoding.no_repeat_ngram,
      ngram_penalty=decoding.ngram_penalty,
      no_repeat_last=decoding.no_repeat_last,
      repeatable=repeatable,
      bad_endings=self._find_ids('bad_endings', decoding.bad_endings),
      required=tuple(
        self._find_ids(
          'required_words', [words] if isinstance(words, str) else words
        )
        for words in decoding.required_words
      ),
    )

  def _find_ids(self, field: str, words: Sequence[str]) -> tuple[int, ...]:
    """The ids of words of `decoding`; an unknown one is an error, not UNK."""
    unknown = [word for word in words if word not in self._ids]
    if unknown:
      raise ValueError(
        f'decoding.{field}: {", ".join(unknown)} is not among the '
        f'{len(self)} words of the vocabulary'
      )
    return tuple(self._ids[word] for word in words)

  def to_json(self) -> str:
    """One JSON object: `words`, and `tokenizer` if it is not 'words'."""
    content = {'words': self.words}
    if self.tokenizer != 'words':
      content['tokenizer'] = self.tokenizer
    return json.dumps(content, ensure_ascii=False, indent=0)

  @classmethod
  def from_json(cls, text: str) -> 'Vocabulary':
    """The inverse of `to_json`; ValueError names the field that is wrong."""
    content = json.loads(text)
    words = content.get('words') if isinstance(content, dict) else None
    if not isinstance(words, list) or not all(
      isinstance(word, str) for word in words
    ):
      raise ValueError('the field `words` must be a list of strings')
    tokenizer = content.get('tokenizer', 'words')
    if not isinstance(tokenizer, str):
      raise ValueError('the field `tokenizer` must be a string')
    return cls(words, tokenizer)

  def save(self, path: str | os.PathLike):
    """Writes beside `path` and renames, so that no half file is ever read."""
    path = pathlib.Path(path)
    beside = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    beside.write_text(self.to_json(), encoding='utf-8')
    beside.replace(path)

  @classmethod
  def load(cls, path: str | os.PathLike) -> 'Vocabulary':
    """Reads the file of `save`; ValueError names the file and the field."""
    try:
      return cls.from_json(text_files.read(path))
    # JSON's own is a ValueError; nested brackets overflow the stack.
    except (ValueError, RecursionError) as error:
      raise ValueError(f'{path} is not a vocabulary: {error}') from error


def check_tokenizer(vocabulary: Vocabulary, tokenizer: str):
  """Raises a ValueError if a vocabulary is of another tokenizer."""
  if vocabulary.tokenizer != tokenizer:
    raise ValueError(
      f'the run to start from has tokenizer={vocabulary.tokenizer!r}, not '
      f'{tokenizer!r}: pass --config.data.tokenizer={vocabulary.tokenizer}'
    )


def caption_tokens(
  record: dict[str, Any],
  vocabulary: Vocabulary,
  *,
  captions_per_image: int,
  max_length: int,
  rng: np.random.Generator,
) -> np.ndarray:
  """Some captions of a record in random order: int32[K, T].

  They all differ if the record has that many, and otherwise each occurs as
  often as any other or once more.
  """
  captions = record['captions']
  rounds = -(-captions_per_image // len(captions))
  order = np.concatenate(
    [rng.permutation(len(captions)) for _ in range(rounds)]
  )
  return np.stack(
    [
      vocabulary.encode(captions[i], max_length)
      for i in order[:captions_per_image]
    ]
  )
