"""Rewards are the metrics, whoever computes them, on frequencies read back."""

import os
import pathlib
import pickle
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from captioning import metrics
from captioning import rewards
from captioning import vocabulary as vocabulary_lib

T = 8
ROOT = pathlib.Path(__file__).parents[1]


def captions_of(num_images, seed=0):
  """Of some words more than of others, and some that the vocabulary lacks."""
  rng = random.Random(seed)
  words = [f'w{n}' for n in range(12) for _ in range(12 - n)]
  return [
    [' '.join(rng.choices(words, k=rng.randint(1, 9))) for _ in range(3)]
    for _ in range(num_images)
  ]


CAPTIONS = captions_of(30)
VOCABULARY = vocabulary_lib.Vocabulary(
  [*vocabulary_lib.SPECIAL, *(f'w{n}' for n in range(10))]
)


def encode(captions):
  """list[list[str]] -> i32[B, R, T]."""
  return np.array(
    [[VOCABULARY.encode(text, T) for text in texts] for texts in captions]
  )


def count(path, captions=CAPTIONS, **changes):
  arguments = dict(fingerprint='f', vocabulary=VOCABULARY, max_length=T)
  return rewards.count(path, captions, **{**arguments, **changes})


@pytest.fixture
def frequencies(tmp_path):
  return count(tmp_path / 'frequencies.npz')


def test_beside_data_that_are_read_only_the_workdir_has_the_file(tmp_path):
  (tmp_path / 'data').write_text('a file: nothing can be written below it')
  path, otherwise = tmp_path / 'data' / 'f.npz', tmp_path / 'run' / 'f.npz'
  counted = count(path, otherwise=otherwise)
  assert counted.path == otherwise
  again = count(path, None, otherwise=otherwise)  # Not counted again.
  expected = count(tmp_path / 'f.npz')
  assert again.read().frequency == expected.read().frequency


def numbered(captions):
  """The words as the rewards see them, by another way."""
  ids = {word: n for n, word in enumerate(VOCABULARY.words)}
  return [
    [
      [
        *(ids.get(w, vocabulary_lib.UNK_ID) for w in text.split()[: T - 1]),
        vocabulary_lib.EOS_ID,
      ]
      for text in texts
    ]
    for texts in captions
  ]


def test_frequencies_read_back_score_like_those_counted(frequencies):
  references = numbered(CAPTIONS)
  direct, read = metrics.CiderD.count(references), frequencies.read()
  assert read.num_images == direct.num_images == 30
  assert read.frequency == {
    ngram: count for ngram, count in direct.frequency.items() if count > 1
  }
  assert {len(ngram) for ngram in read.frequency} == {1, 2, 3, 4}
  assert read.frequency[(vocabulary_lib.EOS_ID,)] == 30
  for candidates in numbered(captions_of(5, seed=1)):
    for targets in references:
      scores = read.scores(candidates, targets)
      assert scores == direct.scores(candidates, targets)


def test_frequencies_are_counted_once(tmp_path, frequencies):
  path = tmp_path / 'frequencies.npz'
  content = path.read_bytes()
  # Nothing is read of the captions.
  assert count(path, captions=None) == frequencies
  assert path.read_bytes() == content
  assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
  'changes',
  [
    dict(fingerprint='g'),
    dict(max_length=T - 1),
    dict(vocabulary=vocabulary_lib.Vocabulary(VOCABULARY.words[:-1])),
  ],
)
def test_frequencies_of_something_else_are_counted_anew(
  tmp_path, frequencies, changes
):
  before = frequencies.read()
  others = count(tmp_path / 'frequencies.npz', **changes)
  assert others.key != frequencies.key
  if 'fingerprint' not in changes:
    assert others.read().frequency != before.frequency
  with pytest.raises(ValueError, match='other data or another vocabulary'):
    frequencies.read()


def _truncate(path):
  path.write_bytes(path.read_bytes()[:-200])


def _flip(path):
  content = bytearray(path.read_bytes())
  # In the middle of an array, whose checksum is wrong then.
  content[len(content) // 2] ^= 0xFF
  path.write_bytes(content)


@pytest.mark.parametrize(
  'damage',
  [
    _truncate,
    _flip,
    lambda path: path.write_bytes(b''),
    lambda path: path.write_text('a text'),
    lambda path: path.write_bytes(pickle.dumps({'key': 1})),
    lambda path: path.write_bytes(b'\x93NUMPY'),
    lambda path: np.save(path.open('wb'), np.zeros(3)),
    lambda path: np.savez(path.open('wb'), other=np.zeros(3)),
  ],
)
@pytest.mark.filterwarnings('ignore:unclosed file')  # Of the test itself.
def test_a_damaged_file_is_counted_anew(tmp_path, frequencies, damage):
  before = frequencies.read()
  damage(tmp_path / 'frequencies.npz')
  with pytest.raises(ValueError, match='delete it'):
    frequencies.read()
  assert count(tmp_path / 'frequencies.npz') == frequencies
  assert frequencies.read().frequency == before.frequency


@pytest.mark.parametrize('cider, bleu', [(1.0, 0.0), (0.0, 1.0), (0.7, 0.5)])
def test_rewards_are_the_official_metrics(frequencies, cider, bleu):
  """Of numbers as text: CIDEr-D's frequencies are those of all references."""
  official_bleu = pytest.importorskip('pycocoevalcap.bleu.bleu')
  official_cider = pytest.importorskip('pycocoevalcap.cider.cider')
  rng = random.Random(2)
  # Of some picture a caption, of which two words are others.
  samples = []
  for texts in CAPTIONS:
    words = rng.choice(texts).split()
    for _ in range(2):
      words[rng.randrange(len(words))] = 'w0'
    samples.append([' '.join(words), rng.choice(rng.choice(CAPTIONS))])
  tokens, words = encode(samples), numbered(samples)
  # One that was cut has no EOS.
  tokens[3, 1] = tokens[3, 1, 0]
  words[3][1] = [tokens[3, 1, 0]] * T

  def text(words):
    return ' '.join(map(str, words))

  references = {
    b: [text(target) for target in targets]
    for b, targets in enumerate(numbered(CAPTIONS))
  }
  expected = np.zeros((30, 2))
  for s in range(2):
    guesses = {b: [text(words[b][s])] for b in range(30)}
    _, scores = official_cider.Cider().compute_score(references, guesses)
    expected[:, s] = cider * scores
    _, scores = official_bleu.Bleu(4).compute_score(
      references, guesses, verbose=0
    )
    expected[:, s] += bleu * np.array(scores[3])
  with rewards.Rewards(frequencies, cider=cider, bleu=bleu) as scorer:
    scores = scorer.submit(tokens, encode(CAPTIONS)).result()
  assert scores.dtype == np.float32
  assert scores.std() > 0.1 * (cider + bleu)
  np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-7)


def test_any_number_of_workers_gives_the_same(frequencies):
  samples, references = encode(captions_of(30, seed=1)), encode(CAPTIONS)
  scores = []
  for workers in 0, 1, 2:
    with rewards.Rewards(
      frequencies, cider=0.7, bleu=0.5, workers=workers
    ) as scorer:
      pending = [
        scorer.submit(samples[rows], references[rows])
        for rows in (slice(0, 17), slice(17, 18), slice(18, 30))
      ]
      scores.append(np.concatenate([part.result() for part in pending]))
  np.testing.assert_array_equal(scores[1], scores[0])
  np.testing.assert_array_equal(scores[2], scores[0])


def test_rows_of_padding_are_no_references(frequencies):
  samples, references = encode(captions_of(30, seed=1)), encode(CAPTIONS)
  padding = np.full((30, 2, T), vocabulary_lib.PAD_ID, np.int32)
  with rewards.Rewards(frequencies, bleu=1.0) as scorer:
    expected = scorer.submit(samples, references).result()
    padded = np.concatenate([padding, references], axis=1)
    np.testing.assert_array_equal(
      scorer.submit(samples, padded).result(), expected
    )
    with pytest.raises(ValueError, match='image 0 of the batch has no ref'):
      scorer.submit(samples, padding).result()
    with pytest.raises(ValueError, match='30 images cannot be scored'):
      scorer.submit(samples, references[:29])


def test_a_worker_tells_what_is_wrong_with_the_file(tmp_path, frequencies):
  with rewards.Rewards(frequencies, workers=1) as scorer:
    (tmp_path / 'frequencies.npz').write_bytes(b'')
    pending = scorer.submit(encode(CAPTIONS), encode(CAPTIONS))
    with pytest.raises(ValueError, match='delete it'):
      pending.result()


def test_workers_import_neither_jax_nor_tensorflow():
  loaded = subprocess.run(
    [
      sys.executable,
      '-c',
      'import sys, captioning.rewards; print(*sys.modules)',
    ],
    cwd=ROOT,
    check=True,
    capture_output=True,
    text=True,
  ).stdout.split()
  assert 'captioning.metrics' in loaded
  assert not {'jax', 'flax', 'tensorflow', 'grain'} & set(loaded)


_PARENT = """
import os, signal, sys
from captioning import rewards
scorer = rewards.Rewards(None, workers=2)
pids = {scorer._executor.submit(os.getpid).result() for _ in range(20)}
for pid in pids:
  os.kill(pid, signal.SIGTERM)  # The parent's to answer.
  os.kill(pid, signal.SIGINT)
assert scorer._executor.submit(os.getpid).result() in pids
print(*pids, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_outlive_signals_but_not_their_parent(tmp_path):
  # A file, since a pipe would stay open for as long as the workers live.
  with (tmp_path / 'pids').open('w') as file:
    parent = subprocess.run(
      [sys.executable, '-c', _PARENT], cwd=ROOT, stdout=file, check=False
    )
  assert parent.returncode == -signal.SIGKILL
  pids = [int(pid) for pid in (tmp_path / 'pids').read_text().split()]
  assert pids
  deadline = time.monotonic() + 30
  while any(_runs(pid) for pid in pids):
    assert time.monotonic() < deadline
    time.sleep(0.1)


def _runs(pid):
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  # A zombie has ended, whether or not anyone waits for it.
  stat = pathlib.Path(f'/proc/{pid}/stat')
  return not (stat.exists() and stat.read_text().split()[2] == 'Z')


def test_negative_workers_are_refused(frequencies):
  with pytest.raises(ValueError, match='workers=-1 must not be negative'):
    rewards.Rewards(frequencies, workers=-1)
