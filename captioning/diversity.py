"""Metrics of the diversity of several captions of one image.

'distinct-n' (Div-n; Li et al. 2016, Shetty et al. 2017): distinct n-grams of
all captions of an image over the number of their words; the mean over images.

'mBLEU-4' (Shetty et al. 2017): BLEU-4 of a caption with the other captions of
its image as references. As in the published code it is the corpus score of the
first captions of all images, then of the second ones and so on, and the mean of
these.

'self-CIDEr' (Wang and Chan 2019): with the eigenvalues l of the matrix of CIDEr
between every two of an image's m captions (a tenth of it, so that the diagonal
is 1),

  -log(sqrt(max l) / sum sqrt(l)) / log(m),

0 if the captions are all alike and 1 if they have nothing in common; the mean
over images. As in the paper, and in the published code, it is CIDEr and not
CIDEr-D, whose matrix is not symmetric.

`usage` counts what captions use: 'novel', the share that no training caption
is word for word; 'words', the number of distinct words; 'bad endings', the
share that ends with an article, a preposition or the like, as captions do that
training on CIDEr has cut short.
"""

import math
from collections.abc import Hashable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from captioning import languages
from captioning import metrics

# English words that end no sentence (those of self-critical.pytorch).
BAD_ENDINGS = frozenset(
  'with in on of a at to for an this his her that the'.split()
)


def usage(
  captions: Mapping[Hashable, Sequence[str]],
  training: Iterable[str],
  *,
  tokenizer: str = 'words',
) -> dict[str, float]:
  """Counts novel captions, words and bad endings; see the module's docstring.

  Args:
    captions: for each image, at least one caption.
    training: the captions that the model was trained on.
    tokenizer: see `metrics.score`.
  """
  words = [w for texts in captions.values() for w in _words(texts, tokenizer)]
  if not words:
    raise ValueError('there are no captions: pass those of at least one image')
  known = {tuple(words) for words in _words(training, tokenizer)}
  return {
    'novel': float(np.mean([tuple(caption) not in known for caption in words])),
    'words': float(len({word for caption in words for word in caption})),
    'bad endings': float(
      np.mean(
        [bool(caption) and caption[-1] in BAD_ENDINGS for caption in words]
      )
    ),
  }


def score(
  captions: Mapping[Hashable, Sequence[str]],
  *,
  references: Mapping[Hashable, Sequence[str]] | None = None,
  tokenizer: str = 'words',
) -> dict[str, float]:
  """Scores the diversity of the captions of each image.

  Args:
    captions: for each image, at least two captions, equally many for all.
    references: the human captions of the split. Self-CIDEr
      weighs n-grams by how many images these use them for, as in the published
      code; without, the captions themselves are counted, and the number
      compares with no other.
    tokenizer: see `metrics.score`.

  Returns:
    'distinct-1', 'distinct-2' and 'self-CIDEr', which grow with diversity, and
    'mBLEU-4', which falls. All are from 0 to 1.
  """
  numbers = {len(texts) for texts in captions.values()}
  if len(numbers) != 1 or min(numbers) < 2:
    raise ValueError(
      'diversity needs the same number of captions of each image, at least '
      f'two, not {sorted(numbers)}'
    )
  words = [_words(texts, tokenizer) for texts in captions.values()]
  counted = words
  if references is not None:
    counted = [_words(texts, tokenizer) for texts in references.values()]
  if len(counted) < 2:
    raise ValueError(
      'self-CIDEr weighs n-grams by how rare they are: pass captions, or '
      'references, of at least two images'
    )
  cider_d = metrics.CiderD.count(counted)
  return {
    'distinct-1': float(np.mean([_distinct(image, 1) for image in words])),
    'distinct-2': float(np.mean([_distinct(image, 2) for image in words])),
    'mBLEU-4': _mutual_bleu(words),
    'self-CIDEr': float(
      np.mean([_self_cider(cider_d.similarities(image)) for image in words])
    ),
  }


def _words(texts: Iterable[str], tokenizer: str) -> list[list[str]]:
  return [languages.TOKENIZERS[tokenizer](text) for text in texts]


def _distinct(captions: Sequence[Sequence[str]], n: int) -> float:
  ngrams = {
    tuple(caption[start : start + n])
    for caption in captions
    for start in range(len(caption) - n + 1)
  }
  return len(ngrams) / max(1, sum(map(len, captions)))


def _mutual_bleu(words: Sequence[Sequence[Sequence[str]]]) -> float:
  scores = []
  for i in range(len(words[0])):
    pairs = [(image[i], [*image[:i], *image[i + 1 :]]) for image in words]
    corpus, _ = metrics.bleu(pairs)['BLEU-4']
    scores.append(corpus)
  return float(np.mean(scores))


def _self_cider(similarities: np.ndarray) -> float:
  """f64[m, m] -> 0 to 1."""
  # Rounding makes eigenvalues of zero negative.
  roots = np.sqrt(np.maximum(np.linalg.eigvalsh(similarities), 0))
  if not roots.any():  # Captions that say nothing rare say the same.
    return 0.0
  # Not minus the logarithm of the inverse, which would be -0.
  return math.log(roots.sum() / roots.max()) / math.log(len(roots))
