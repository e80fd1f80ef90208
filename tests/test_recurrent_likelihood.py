"""Means over tokens, and over sequences."""

import numpy as np

from recurrent import likelihood


def test_sequences_weigh_the_same_whatever_their_length():
  rng = np.random.default_rng(0)
  lengths = np.array([[3, 1], [0, 5]])  # One is padding alone.
  logits = rng.normal(size=(2, 2, 5, 7)).astype(np.float32)
  tokens = rng.integers(0, 7, (2, 2, 5))
  mask = np.arange(5) < lengths[..., None]
  losses = np.asarray(likelihood.cross_entropy(logits, tokens))
  found = likelihood.token_metrics(
    losses, logits, tokens, mask, likelihood.SequenceMetrics
  ).compute()
  means = [losses[i][: lengths[i]].mean() for i in ((0, 0), (0, 1), (1, 1))]
  np.testing.assert_allclose(found['sequence_loss'], np.mean(means), rtol=1e-6)
  np.testing.assert_allclose(found['loss'], losses[mask].mean(), rtol=1e-6)
  of_tokens = likelihood.token_metrics(losses, logits, tokens, mask).compute()
  assert of_tokens == {x: found[x] for x in ('loss', 'accuracy')}
