"""Caption metrics, equal to the official COCO caption evaluation.

BLEU-1 to BLEU-4, ROUGE-L and CIDEr (that is CIDEr-D, as the evaluation's
'CIDEr' is) are computed here; METEOR and SPICE are Java programs, run by
`java_metrics` when asked for. What looks odd is copied so that scores compare
with published ones: the tiny constants in BLEU, a ROUGE-L whose precision and
recall may come from different references, an empty caption that has one word
for ROUGE-L and none for the others.
"""

import collections
import math
from collections.abc import Hashable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from captioning import java_metrics
from captioning import languages

_ORDER = 4  # The longest n-gram, for BLEU and for CIDEr.
# The scores that `score` computes without Java.
WITHOUT_JAVA = (
  *(f'BLEU-{n}' for n in range(1, _ORDER + 1)),
  'ROUGE-L',
  'CIDEr',
)


def score(
  references: Mapping[Hashable, Sequence[str]],
  candidates: Mapping[Hashable, str],
  *,
  meteor: bool = False,
  spice_jar: str | None = None,
  tokenizer: str = 'words',
) -> dict[str, dict]:
  """Scores one candidate caption per image against the image's references.

  Args:
    references: for each image, at least one human caption, as it was written.
    candidates: for each of the same images, one caption.
    meteor: whether to run METEOR, which takes seconds and needs Java.
    spice_jar: where SPICE's jar is; without it SPICE is not run.
    tokenizer: 'words', the official one, or 'characters', for languages that
      put no blanks between words; of `languages.TOKENIZERS`.

  Returns:
    'corpus': each metric's score; 'per_image': for each image its scores;
    'absent': for each metric that was asked for and cannot run, why.
  """
  _check(references, candidates)
  ids = list(references)
  if tokenizer == 'words':
    languages.warn_without_blanks(
      (references[i][0] for i in ids),
      "pass tokenizer='characters', or captions whose words are separated",
    )

  def tokenized(caption):
    # Joined, and split again by each metric: a word such as '1 1/2', with a
    # no-break space, is two words for BLEU and CIDEr and one for ROUGE-L.
    return ' '.join(languages.TOKENIZERS[tokenizer](caption))

  targets = {i: [tokenized(text) for text in references[i]] for i in ids}
  guesses = {i: tokenized(candidates[i]) for i in ids}

  words = {i: [text.split() for text in targets[i]] for i in ids}
  results = bleu([(guesses[i].split(), words[i]) for i in ids])
  rouge = [_rouge_l(targets[i], guesses[i]) for i in ids]
  results['ROUGE-L'] = np.mean(rouge), rouge
  cider_d = CiderD.count(words.values())
  cider = [cider_d.score(guesses[i].split(), words[i]) for i in ids]
  results['CIDEr'] = np.mean(cider), cider

  absent = {}
  captions = list(targets.values()), list(guesses.values())
  if meteor:
    absent['METEOR'] = java_metrics.why_no_meteor()
    if not absent['METEOR']:
      results['METEOR'] = java_metrics.meteor(*captions)
  if spice_jar:
    absent['SPICE'] = java_metrics.why_no_spice(spice_jar)
    if not absent['SPICE']:
      results['SPICE'] = java_metrics.spice(spice_jar, *captions)
  return {
    'corpus': {name: float(corpus) for name, (corpus, _) in results.items()},
    'per_image': {
      i: {name: float(each[n]) for name, (_, each) in results.items()}
      for n, i in enumerate(ids)
    },
    'absent': {name: reason for name, reason in absent.items() if reason},
  }


def of_several(
  references: Mapping[Hashable, Sequence[str]],
  candidates: Mapping[Hashable, Sequence[str]],
  *,
  tokenizer: str = 'words',
) -> dict[str, dict[str, float]]:
  """The oracle scores and the mean scores of several candidates per image.

  Args:
    references: see `score`.
    candidates: for each image at least one caption.
    tokenizer: see `score`.

  Returns:
    'oracle': each metric's mean over the images of the score of the best
    candidate by this metric (Vijayakumar et al. 2018). 'mean': that of the mean
    over the candidates. Both are means of the scores of single images, which
    for BLEU is not the score of the corpus. Empty if no image has several.
  """
  rounds = max(map(len, candidates.values()))
  if rounds == 1:
    return {}
  each = []
  for n in range(rounds):
    texts = {
      i: captions[n % len(captions)] for i, captions in candidates.items()
    }
    each.append(score(references, texts, tokenizer=tokenizer)['per_image'])
  # Where an image has fewer captions, the first ones count once only.
  values = {
    name: [
      [scores[i][name] for scores in each[: len(captions)]]
      for i, captions in candidates.items()
    ]
    for name in WITHOUT_JAVA
  }
  return {
    'oracle': {
      name: float(np.mean([max(image) for image in images]))
      for name, images in values.items()
    },
    'mean': {
      name: float(np.mean([np.mean(image) for image in images]))
      for name, images in values.items()
    },
  }


def most_frequent_caption(
  captions: Iterable[str],
  references: Mapping[Hashable, Sequence[str]],
  *,
  tokenizer: str = 'words',
) -> dict:
  """The commonest caption, given to every image, and its scores.

  A captioner that never reads the image would reach these.

  Args:
    captions: those of training.
    references: see `score`.
    tokenizer: see `score`.

  Returns:
    `caption`, and `scores` of the corpus.
  """
  ((caption, _),) = collections.Counter(captions).most_common(1)
  same = dict.fromkeys(references, caption)
  scores = score(references, same, tokenizer=tokenizer)
  return {'caption': caption, 'scores': scores['corpus']}


class CiderD:
  """CIDEr-D (Vedantam et al. 2015), with the document frequencies of n-grams.

  Words may be anything hashable: text, or numbers of a vocabulary.

  Attributes:
    frequency: n-gram of one to four words -> number of images in which it
      occurs. One that is absent counts as if it occurred in one image.
    num_images: number of all images.
  """

  def __init__(
    self, frequency: Mapping[tuple[Hashable, ...], int], num_images: int
  ):
    """Takes document frequencies; see `count`."""
    self.frequency = frequency
    self.num_images = num_images
    self._log_images = math.log(num_images)

  @classmethod
  def count(
    cls, references: Iterable[Sequence[Sequence[Hashable]]]
  ) -> 'CiderD':
    """Counts the n-grams of each image's references, given as words."""
    frequency = collections.Counter()
    num_images = 0
    for captions in references:
      frequency.update(set().union(*map(_ngrams, captions)))
      num_images += 1
    return cls(frequency, num_images)

  def score(
    self,
    candidate: Sequence[Hashable],
    references: Sequence[Sequence[Hashable]],
  ) -> float:
    """Scores the words of a caption against those of its image: 0 to 10."""
    return self.scores([candidate], references)[0]

  def scores(
    self,
    candidates: Sequence[Sequence[Hashable]],
    references: Sequence[Sequence[Hashable]],
  ) -> list[float]:
    """Scores several captions of one image, whose references are read once."""
    targets = [self._vectors(reference) for reference in references]
    return [
      self._score(self._vectors(candidate), targets) for candidate in candidates
    ]

  def similarities(self, captions: Sequence[Sequence[Hashable]]) -> np.ndarray:
    """The similarity of every two captions of m, from 0 to 1: f64[m, m].

    The mean over n of the cosines of their vectors of n-grams: a tenth of
    CIDEr, which unlike CIDEr-D is symmetric.
    """
    matrix = np.zeros((len(captions), len(captions)))
    vectors = [self._vectors(caption) for caption in captions]
    for i, (first, first_norms, _) in enumerate(vectors):
      for j, (second, second_norms, _) in enumerate(vectors[: i + 1]):
        for n in range(_ORDER):
          if not first_norms[n] or not second_norms[n]:
            continue
          product = sum(
            weight * second[n].get(ngram, 0)
            for ngram, weight in first[n].items()
          )
          matrix[i, j] += product / (first_norms[n] * second_norms[n])
        matrix[j, i] = matrix[i, j]
    return matrix / _ORDER

  def _score(self, candidate, targets) -> float:
    """The score of a candidate; arguments are results of `_vectors`."""
    vectors, norms, length = candidate
    total = 0.0
    for ref_vectors, ref_norms, ref_length in targets:
      penalty = math.exp(-((length - ref_length) ** 2) / (2 * 6.0**2))
      for n in range(_ORDER):
        if not norms[n] or not ref_norms[n]:
          continue
        ref = ref_vectors[n]
        overlap = sum(
          min(weight, ref[ngram]) * ref[ngram]
          for ngram, weight in vectors[n].items()
          if ngram in ref
        )
        total += penalty * overlap / (norms[n] * ref_norms[n])
    return 10 * total / (_ORDER * len(targets))

  def _vectors(self, caption: Sequence[Hashable]):
    """TF-IDF weights and their norm for each n, and the caption's length."""
    vectors = [{} for _ in range(_ORDER)]
    for ngram, count in _ngrams(caption).items():
      weight = self._log_images - math.log(self.frequency.get(ngram, 1))
      vectors[len(ngram) - 1][ngram] = count * weight
    norms = [math.hypot(*vector.values()) for vector in vectors]
    return vectors, norms, len(caption)


def bleu(
  pairs: Sequence[tuple[Sequence[Hashable], Sequence[Sequence[Hashable]]]],
) -> dict[str, tuple[float, np.ndarray]]:
  """BLEU-1 to BLEU-4 of captions.

  Args:
    pairs: for each image the words of a caption, and those of each reference.

  Returns:
    'BLEU-n' -> the corpus score, and the score of each image, f64[images].
  """
  statistics = np.array(
    [
      row
      for caption, refs in pairs
      for row in _bleu_statistics([caption], refs)
    ]
  )
  images = _bleu_scores(statistics)
  corpus = _bleu_scores(statistics.sum(axis=0, keepdims=True))
  return {f'BLEU-{n + 1}': (corpus[0, n], images[:, n]) for n in range(_ORDER)}


def sentence_bleu(
  candidates: Sequence[Sequence[Hashable]],
  references: Sequence[Sequence[Hashable]],
) -> np.ndarray:
  """BLEU-4 of several captions of one image: f64[candidates], 0 to 1.

  Each is the score that the official evaluation gives the image: the length is
  compared with the closest reference, and nothing is smoothed, so that a
  caption without four words in a row of some reference has almost none.
  """
  statistics = np.array(_bleu_statistics(candidates, references))
  return _bleu_scores(statistics)[:, -1]


def _check(references, candidates):
  """Refuses input that would fail later or be scored as something else."""
  for name, captions in ('references', references), ('candidates', candidates):
    if not isinstance(captions, Mapping):
      raise TypeError(
        f'{name} must map image ids to captions, '
        f'not be a {type(captions).__name__}'
      )
  if not references:
    raise ValueError('there is nothing to score: pass at least one image')
  missing = [i for i in references if i not in candidates]
  extra = [i for i in candidates if i not in references]
  if missing or extra:
    raise ValueError(
      'references and candidates must have the same image ids: add candidates '
      f'for {_some(missing)}, remove those of {_some(extra)}'
    )
  for i, captions in references.items():
    if isinstance(captions, str) or not isinstance(captions, Sequence):
      raise TypeError(
        f'references[{i!r}] must be a list of captions, '
        f'not a {type(captions).__name__}: wrap a single caption in a list'
      )
    if not captions:
      raise ValueError(
        f'references[{i!r}] is empty: give at least one caption or leave the '
        'image out'
      )
    for caption in (*captions, candidates[i]):
      if not isinstance(caption, str):
        raise TypeError(
          f'captions of image {i!r} must be text, not '
          f'{type(caption).__name__}: pass {caption!r} as one string'
        )


def _some(ids: list) -> str:
  shown = ', '.join(repr(i) for i in ids[:5]) or 'none'
  return shown if len(ids) <= 5 else f'{shown} and {len(ids) - 5} more'


def _ngrams(words: Sequence[Hashable]) -> collections.Counter:
  """Counts the n-grams of one to four words."""
  return collections.Counter(
    tuple(words[start : start + n])
    for n in range(1, _ORDER + 1)
    for start in range(len(words) - n + 1)
  )


def _bleu_statistics(candidates, references) -> list[list[int]]:
  """The matches for n = 1..4, n-grams for n = 1..4, length, target of each."""
  most = collections.Counter()
  for reference in references:
    most |= _ngrams(reference)
  statistics = []
  for candidate in candidates:
    matched = [0] * _ORDER
    for ngram, count in (_ngrams(candidate) & most).items():
      matched[len(ngram) - 1] += count
    length = len(candidate)
    guessed = [max(0, length - n) for n in range(_ORDER)]
    target = min(map(len, references), key=lambda n: (abs(n - length), n))
    statistics.append([*matched, *guessed, length, target])
  return statistics


def _bleu_scores(statistics: np.ndarray) -> np.ndarray:
  """int[images, 10] -> f64[images, 4]."""
  small, tiny = 1e-9, 1e-15
  matched, guessed = statistics[:, :_ORDER], statistics[:, _ORDER:-2]
  products = np.cumprod((matched + tiny) / (guessed + small), axis=1)
  scores = products ** (1 / np.arange(1, _ORDER + 1))
  ratio = (statistics[:, -2:-1] + tiny) / (statistics[:, -1:] + small)
  return scores * np.exp(np.minimum(0, 1 - 1 / ratio))


def _rouge_l(references: Sequence[str], candidate: str) -> float:
  beta = 1.2
  words = candidate.split(' ')  # Makes one word of no words.
  precisions, recalls = [], []
  for reference in references:
    target = reference.split(' ')
    common = _common(target, words)
    precisions.append(common / len(words))
    recalls.append(common / len(target))
  precision, recall = max(precisions), max(recalls)
  if not precision:
    return 0.0
  return (1 + beta**2) * precision * recall / (recall + beta**2 * precision)


def _common(first: Sequence[str], second: Sequence[str]) -> int:
  """Length of the longest common subsequence.

  A bit of `row` for each word of `first` holds a row of the usual table at
  once (Hyyrö 2004): it is 0 where the length grows by one.
  """
  positions = collections.defaultdict(int)
  for bit, word in enumerate(first):
    positions[word] |= 1 << bit
  full = row = (1 << len(first)) - 1
  for word in second:
    match = row & positions[word]
    row = (row + match | row - match) & full
  return len(first) - row.bit_count()
