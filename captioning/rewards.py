"""Rewards of sampled captions: CIDEr-D and BLEU-4 over token ids.

As in Luo's published code, words are those of the vocabulary (whatever it does
not hold is one and the same word, UNK), EOS is a word, and the document
frequencies of CIDEr-D are those of the training split alone.

Nothing here may import JAX or TensorFlow: processes that score do so too.

Axes: B images, S samples, R references, T words, N n-grams.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import os
import pathlib
import signal
import threading
import time
import uuid
from collections.abc import Iterable
from collections.abc import Sequence

import loky
import numpy as np
from absl import logging

from captioning import metrics
from captioning import vocabulary as vocabulary_lib
from training import array_files

_LONGEST = 4  # Words of an n-gram.
_FILL = -1  # After the words of a shorter one.


@dataclasses.dataclass(frozen=True)
class Frequencies:
  """A file of document frequencies; see `count`.

  Attributes:
    path: of the file.
    key: hash of the captions that were counted.
  """

  path: pathlib.Path
  key: str

  def read(self) -> metrics.CiderD:
    """Reads the scorer with these frequencies.

    Raises:
      ValueError: the file is damaged, or was counted on something else.
    """
    try:
      file = array_files.read_npz(self.path)
      key, ngrams = str(file['key']), file['ngrams']
      counts, num_images = file['counts'], int(file['num_images'])
    except (ValueError, KeyError, TypeError) as error:
      raise ValueError(
        f'{self.path} holds no document frequencies, or is damaged: delete it, '
        f'and they are counted anew ({error!r})'
      ) from error
    if key != self.key:
      raise ValueError(
        f'{self.path} was counted on other data or another vocabulary: delete '
        'it, or choose another path'
      )
    lengths = np.sum(ngrams != _FILL, axis=1)
    frequency = {}
    for n in range(1, _LONGEST + 1):
      chosen = lengths == n
      words = map(tuple, ngrams[chosen, :n].tolist())
      frequency.update(zip(words, counts[chosen].tolist(), strict=True))
    return metrics.CiderD(frequency, num_images)

  def _write(self, cider_d: metrics.CiderD):
    # One that occurs in one image scores like one that is absent, and those
    # are most: without them file and memory are a fraction.
    counts = {n: count for n, count in cider_d.frequency.items() if count > 1}
    ngrams = np.full((len(counts), _LONGEST), _FILL, np.int32)
    for row, ngram in zip(ngrams, counts, strict=True):
      row[: len(ngram)] = ngram
    self.path.parent.mkdir(parents=True, exist_ok=True)
    beside = self.path.with_name(f'{self.path.name}.{uuid.uuid4().hex}.tmp')
    try:
      with beside.open('wb') as file:
        np.savez_compressed(
          file,
          key=np.array(self.key),
          ngrams=ngrams,
          counts=np.array(list(counts.values()), np.int32),
          num_images=np.array(cider_d.num_images, np.int64),
        )
      beside.replace(self.path)
    finally:
      with contextlib.suppress(OSError):
        beside.unlink(missing_ok=True)


def count(
  path: str | os.PathLike,
  captions: Iterable[Sequence[str]],
  *,
  fingerprint: str,
  vocabulary: vocabulary_lib.Vocabulary,
  max_length: int,
  otherwise: str | os.PathLike | None = None,
) -> Frequencies:
  """The number of images in which each n-gram occurs: counted once, then read.

  A file that is damaged, or was counted on something else, is replaced.

  Args:
    path: of the file.
    captions: of each image of the training split; not read if the file
      exists.
    fingerprint: of the data; see `data.fingerprint`.
    vocabulary: words to numbers.
    max_length: T, to which captions are cut in training.
    otherwise: path of the file where `path` cannot be written.
  """
  digest = hashlib.sha256(vocabulary.to_json().encode())
  digest.update(f'{fingerprint} {max_length}'.encode())
  candidates = [
    Frequencies(pathlib.Path(one).absolute(), digest.hexdigest()[:32])
    for one in (path, otherwise)
    if one is not None
  ]
  for frequencies in candidates:
    if frequencies.path.exists():
      try:
        frequencies.read()
        return frequencies
      except ValueError as error:
        logging.warning('Counting again: %s', error)
  counted = metrics.CiderD.count(
    [words(vocabulary.encode(text, max_length)) for text in texts]
    for texts in captions
  )
  for frequencies in candidates[:-1]:
    try:
      frequencies._write(counted)
      return frequencies
    except OSError as error:  # Shared data are often read-only.
      logging.info('%s; writing %s', error, candidates[-1].path)
  candidates[-1]._write(counted)
  return candidates[-1]


def count_split(
  directory: pathlib.Path,
  captions: Iterable[Sequence[str]],
  *,
  fingerprint: str,
  vocabulary: vocabulary_lib.Vocabulary,
  max_length: int,
  workdir: pathlib.Path,
) -> Frequencies:
  """The frequencies of a training split, counted once for all runs.

  Args:
    directory: of the data set, in which the file is written.
    captions: see `count`, as are the others.
    fingerprint: of the data.
    vocabulary: words to numbers.
    max_length: T.
    workdir: for the file where the directory is read-only.
  """
  digest = hashlib.sha256(vocabulary.to_json().encode()).hexdigest()[:16]
  name = f'frequencies-{digest}-{max_length}.npz'
  return count(
    directory / name,
    captions,
    fingerprint=fingerprint,
    vocabulary=vocabulary,
    max_length=max_length,
    otherwise=workdir / name,
  )


def words(tokens: np.ndarray) -> list[int]:
  """The words of a caption, EOS included: i32[T] -> at most T numbers."""
  numbers = tokens.tolist()
  for end, number in enumerate(numbers):
    if number == vocabulary_lib.EOS_ID:
      return numbers[: end + 1]
    if number == vocabulary_lib.PAD_ID:
      return numbers[:end]
  return numbers


@dataclasses.dataclass(frozen=True)
class Pending:
  """Rewards that are being computed."""

  parts: Sequence[concurrent.futures.Future]

  def result(self) -> np.ndarray:
    """Waits for the rewards: f32[B, S]."""
    return np.concatenate([part.result() for part in self.parts])


class Rewards:
  """Scores samples in the background; use it as a context.

  The reward of a caption is `cider` * CIDEr-D (0 to 10) + `bleu` * BLEU-4 (0
  to 1). It does not depend on the number of workers.
  """

  def __init__(
    self,
    frequencies: Frequencies,
    *,
    cider: float = 1.0,
    bleu: float = 0.0,
    workers: int = 0,
  ):
    """Takes the frequencies of `count`, and the weights.

    Args:
      frequencies: of the training split.
      cider: weight of CIDEr-D.
      bleu: weight of BLEU-4.
      workers: number of processes that score; 0 for a thread of this one.
    """
    if workers < 0:
      raise ValueError(f'workers={workers} must not be negative')
    self._score = functools.partial(_score, frequencies, cider, bleu)
    self._num_parts = max(workers, 1)
    if workers:
      # Unlike those of the standard library these processes neither import the
      # main module nor are forked from one that runs threads.
      self._executor = loky.ProcessPoolExecutor(
        workers, initializer=_start_worker, initargs=(os.getpid(),)
      )
    else:
      self._executor = concurrent.futures.ThreadPoolExecutor(1)

  def __enter__(self) -> 'Rewards':
    return self

  def __exit__(self, *_):
    self._executor.shutdown()

  def submit(self, samples: np.ndarray, references: np.ndarray) -> Pending:
    """Starts to score: i32[B, S, T], i32[B, R, T'] -> f32[B, S], later.

    Args:
      samples: captions of each image, PAD after EOS.
      references: human captions, likewise. Rows of PAD alone are none.
    """
    if len(samples) != len(references):
      raise ValueError(
        f'samples of {len(samples)} images cannot be scored against '
        f'references of {len(references)}'
      )
    parts = min(self._num_parts, len(samples))
    return Pending(
      [
        self._executor.submit(self._score, *part)
        for part in zip(
          np.array_split(samples, parts),
          np.array_split(references, parts),
          strict=True,
        )
      ]
    )


def _score(
  frequencies: Frequencies,
  cider: float,
  bleu: float,
  samples: np.ndarray,
  references: np.ndarray,
) -> np.ndarray:
  """See `Rewards.submit`."""
  rewards = np.zeros(samples.shape[:2])
  for b in range(len(samples)):
    candidates = [words(tokens) for tokens in samples[b]]
    targets = [words(tokens) for tokens in references[b]]
    targets = [target for target in targets if target]
    if not targets:
      raise ValueError(f'image {b} of the batch has no reference')
    if cider:
      scores = _cider_d(frequencies).scores(candidates, targets)
      rewards[b] += cider * np.array(scores)
    if bleu:
      rewards[b] += bleu * metrics.sentence_bleu(candidates, targets)
  return rewards.astype(np.float32)


@functools.lru_cache(maxsize=1)
def _cider_d(frequencies: Frequencies) -> metrics.CiderD:
  """Reads the frequencies once in each process."""
  return frequencies.read()


def _start_worker(parent: int):
  """Prepares a worker, which stops when its parent says so or has died."""
  # What a terminal or a scheduler sends to all processes is the parent's to
  # answer: it saves a checkpoint first.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
  threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent: int):
  """Ends this process once the parent has died: nothing else would."""
  while os.getppid() == parent:
    time.sleep(1)
  os._exit(1)
