"""The bootstrap's intervals cover, and confidence is set beside scores."""

import json

import numpy as np
import pytest
import scipy.stats

from captioning import compare


def test_interval_is_that_of_the_mean_difference():
  """Of many images the bootstrap equals the normal approximation."""
  rng = np.random.default_rng(0)
  easy = rng.normal(size=400)  # Images differ more than captioners.
  first = easy + 0.1 + 0.3 * rng.normal(size=(2, 400))
  second = easy + 0.3 * rng.normal(size=(3, 400))
  found = compare.paired_bootstrap(first, second, resamples=2000)
  differences = first.mean(0) - second.mean(0)
  mean, error = differences.mean(), differences.std(ddof=1) / 20
  assert found.difference == pytest.approx(mean)
  np.testing.assert_allclose(
    found.interval, [mean - 1.96 * error, mean + 1.96 * error], atol=0.2 * error
  )
  assert found.better == np.sum(differences > 0)
  assert found.better + found.worse == 400
  np.testing.assert_allclose(found.runs[1], second.mean(1))
  backwards = compare.paired_bootstrap(second, first, resamples=2000)
  assert backwards.difference == pytest.approx(-mean)
  assert found.probability < 0.01 < 0.99 < backwards.probability


def test_five_percent_of_equal_captioners_differ():
  rng = np.random.default_rng(1)
  outside = 0
  for trial in range(200):
    first, second = rng.normal(size=(2, 1, 50))
    found = compare.paired_bootstrap(first, second, resamples=200, seed=trial)
    low, high = found.interval
    outside += not low <= 0 <= high
  assert 3 <= outside <= 24  # Of 200.


def test_rank_correlation_is_spearmans():
  rng = np.random.default_rng(2)
  x, y = rng.integers(0, 6, (2, 80))
  expected = scipy.stats.spearmanr(x, y).statistic
  assert compare.rank_correlation(x, y) == pytest.approx(expected)


def test_fifths_are_sorted_by_confidence():
  confidence = np.array([3, 1, 2, 5, 4, 10, 9, 8, 7, 6]) / -10
  scores = np.arange(10)
  assert compare.fifths(confidence, scores) == [5.5, 7.5, 6, 2, 1.5]


def test_command_compares_runs(tmp_path, capsys):
  texts = ['a dog runs on the sand', 'two men sit and talk', 'a red car']
  texts += ['girls jump high', 'snow on a hill']
  references = tmp_path / 'references.json'
  references.write_text(json.dumps({str(i): [x] for i, x in enumerate(texts)}))
  good, bad, other = (tmp_path / f'{x}.json' for x in ('good', 'bad', 'other'))
  good.write_text(
    json.dumps(
      [
        {'image_id': i, 'caption': text, 'log_prob': -i}
        for i, text in enumerate(texts)
      ]
    )
  )
  bad.write_text(json.dumps(dict.fromkeys('01234', 'his cat')))
  other.write_text(json.dumps({'0': 'his cat'}))
  compare.main(
    [str(references), f'--first={good}', f'--second={bad}', '--resamples=50']
  )
  out = capsys.readouterr().out
  assert f'{good}: CIDEr' in out and 'first - second: +' in out
  assert 'not better in 0.0 %; better at 5, worse at 0' in out
  # Only the first has log-probabilities.
  assert out.count('by fifths') == 1
  confidence = compare.log_probs(good)
  assert confidence['1'] == pytest.approx(-1 / 6)
  for second, message in (
    (other, 'captions of other images'),
    (tmp_path / 'none.json', 'none.json'),
  ):
    with pytest.raises(SystemExit):
      compare.main([str(references), f'--first={good}', f'--second={second}'])
    assert message in capsys.readouterr().err
  unknown = tmp_path / 'unknown.json'
  unknown.write_text(json.dumps({'7': 'a cat'}))
  with pytest.raises(SystemExit):
    compare.main([str(references), f'--first={unknown}'])
  assert '7 has no references' in capsys.readouterr().err
