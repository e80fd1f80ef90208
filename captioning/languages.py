"""Tokenizers by name, and languages that put no blanks between words.

Nothing here may import JAX: the processes that score captions read it too.
"""

import re
import unicodedata
import warnings
from collections.abc import Iterable

from captioning import tokenizer

# Han, kana, Thai, Lao, Tibetan, Burmese and Khmer.
_NO_BLANKS = (
  '\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff'
  '\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f'
  '\U00020000-\U0003ffff'
)
_LETTER = re.compile(f'[{_NO_BLANKS}]')
# One such letter, or a word of other letters and digits.
_CHARACTER = re.compile(f"[{_NO_BLANKS}]|(?:(?![{_NO_BLANKS}])[\\w'’])+")


class NoBlanks(UserWarning):
  """Captions of a language without blanks are split into words by blanks."""


def characters(caption: str) -> list[str]:
  """Splits a caption into characters, but words of other scripts into words.

  A combining mark belongs to the character before it. Lower case, in Unicode's
  form NFC, without punctuation.
  """
  tokens = []
  end = None
  for match in _CHARACTER.finditer(
    unicodedata.normalize('NFC', caption).lower()
  ):
    token = match[0].strip("'’")
    if (
      tokens
      and end == match.start()
      and unicodedata.category(match[0][0]).startswith('M')
    ):
      tokens[-1] += match[0]
    elif token and token.strip('_'):
      tokens.append(token)
    end = match.end()
  return tokens


# Name -> the tokenizer: a caption -> its words.
TOKENIZERS = {'words': tokenizer.tokenize, 'characters': characters}


def join(words: Iterable[str], tokenizer_name: str = 'words') -> str:
  """Joins the words of a caption; the tokenizer splits it into them again.

  Args:
    words: of the tokenizer.
    tokenizer_name: of `TOKENIZERS`. Between 'characters' there are no blanks,
      but between words of other scripts there are.
  """
  if tokenizer_name == 'words':
    return ' '.join(words)
  text, before = '', None
  for word in words:
    if before is not None and (
      not (_LETTER.match(before) or _LETTER.match(word))
      # A mark would be one of the character before.
      or unicodedata.category(word[0]).startswith('M')
    ):
      text += ' '
    text += word
    before = word
  return text


def warn_without_blanks(captions: Iterable[str], advice: str):
  """Warns if most captions are in a script that puts no blanks between words.

  Each such caption would count as few long words, of which hardly any occurs
  twice.

  Args:
    captions: all, or some of them.
    advice: follows the warning.
  """
  count = total = 0
  for caption in captions:
    total += 1
    letters, pieces = len(_LETTER.findall(caption)), caption.split()
    # Words of these languages that a program has separated are short.
    count += letters > max(3 * len(pieces), len(''.join(pieces)) / 2)
  if 2 * count > total:
    warnings.warn(
      f'{count} of {total} captions are in a language that puts no blanks '
      f'between words: {advice}',
      NoBlanks,
      stacklevel=3,
    )
