"""Batches of captions of similar lengths."""

import jax
import numpy as np
import pytest

from captioning import examples as examples_lib
from captioning import length_buckets
from captioning import losses
from captioning import model
from captioning import vocabulary as vocabulary_lib
from configs import ucm
from training import batching

BUCKETS = (5, 8)
LONGEST = 12
BATCH = 4
WORDS = [f'word{i}' for i in range(20)]


def make_records(count=30, captions=5):
  rng = np.random.default_rng(0)
  return [
    {
      'id': f'{i:03d}',
      'captions': [
        ' '.join(rng.choice(WORDS, rng.integers(2, 14)))
        for _ in range(captions - i % 2)
      ],
      'features': rng.random((3, 6)).astype(np.float16),
    }
    for i in range(count)
  ]


def make_config(**changes):
  config = ucm.get_config()
  config.update(batch_size=BATCH, buckets=BUCKETS, seed=0)
  config.data.update(max_length=LONGEST, captions_per_image=1)
  config.decoder.update(features=8, embedding=8, attention=8)
  config.update_from_flattened_dict(changes)
  return config


def make_examples(config, records):
  captions = (c for record in records for c in record['captions'])
  vocabulary = vocabulary_lib.Vocabulary.build(captions, threshold=1)
  return examples_lib.Examples(vocabulary, config.data)


def make_batches(workdir, records, **changes):
  config = make_config(**changes)
  examples = make_examples(config, records)
  return length_buckets.training_batches(
    config, workdir, records, records, examples
  )


def equal(x, y):
  return all(np.array_equal(x[name], y[name]) for name in x)


def lengths(tokens):
  return np.count_nonzero(tokens != vocabulary_lib.PAD_ID, axis=-1)


def test_batches_depend_on_seed_and_step_alone(tmp_path):
  records = make_records()
  first, second = (make_batches(tmp_path, records) for _ in range(2))
  forward = [first[step] for step in range(20)]
  for step in reversed(range(20)):  # Another order of asking.
    assert equal(forward[step], second[step])
  assert not equal(make_batches(tmp_path, records, seed=1)[0], forward[0])


@pytest.mark.parametrize('shown', [1, 3, 7])
def test_an_epoch_shows_whole_captions_of_every_image(tmp_path, shown):
  """All but those that do not fill a last batch; and few steps are padding."""
  records = make_records()
  changes = {'data.captions_per_image': shown}
  batches = make_batches(tmp_path, records, **changes)
  examples = make_examples(make_config(**changes), records)
  by_id = {record['id']: record for record in records}
  epochs, widths = [], set()
  for epoch in range(3):
    ids, orders = [], {}
    for step in range(7):
      batch = batches[7 * epoch + step]
      width = batch['tokens'].shape[-1]
      widths.add(width)
      for name, tokens in zip(batch['id'], batch['tokens'], strict=True):
        whole = [
          examples.vocabulary.encode(caption, LONGEST)
          for caption in by_id[name]['captions']
        ]
        found = [
          [np.array_equal(row, caption[:width]) for caption in whole].index(
            True
          )
          for row in tokens
        ]
        assert np.all(lengths(tokens) == [lengths(whole[i]) for i in found])
        counts = np.bincount(found, minlength=len(whole))
        assert counts.max() - counts.min() <= 1
        orders[name] = found
      ids += list(batch['id'])
    assert len(ids) == len(set(ids)) == 28
    epochs.append(orders)
  assert widths <= {*BUCKETS, LONGEST}
  assert shown > 1 or widths == {*BUCKETS, LONGEST}
  assert epochs[0] != epochs[1]


def test_most_batches_have_no_longer_bucket_than_they_need(tmp_path):
  batches = make_batches(tmp_path, make_records(200))
  too_long = 0
  for step in range(50):
    tokens = batches[step]['tokens']
    needed = np.searchsorted(BUCKETS, lengths(tokens).max())
    assert lengths(tokens).max() <= tokens.shape[-1]
    too_long += tokens.shape[-1] != [*BUCKETS, LONGEST][needed]
  assert too_long == 0  # The longest of the leftovers fill a longer bucket.
  cost = np.mean([batches[step]['tokens'].shape[-1] for step in range(50)])
  assert cost < 0.8 * LONGEST


def test_hosts_read_their_shares_of_the_same_batches(tmp_path, monkeypatch):
  records = make_records()
  whole = make_batches(tmp_path, records)
  expected = [whole[step] for step in range(12)]
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(jax, 'device_count', lambda: 4)
  for host in range(2):
    monkeypatch.setattr(jax, 'process_index', lambda host=host: host)
    share = make_batches(tmp_path, records)
    for step, batch in enumerate(expected):
      block = {k: v[2 * host : 2 * host + 2] for k, v in batch.items()}
      assert equal(share[step], block)


def test_the_loss_is_that_of_the_padded_batch(tmp_path):
  records = make_records()
  config = make_config(**{'decoder.dropout_rate': 0.0})
  batches = make_batches(tmp_path, records)
  batch = next(
    batches[i] for i in range(9) if batches[i]['tokens'].shape[-1] < LONGEST
  )
  missing = LONGEST - batch['tokens'].shape[-1]
  padded = {
    **batch,
    'tokens': np.pad(batch['tokens'], [(0, 0), (0, 0), (0, missing)]),
  }
  examples = make_examples(config, records)
  captioner = model.create(config, len(examples.vocabulary), with_encoder=False)
  batch, padded = (
    {k: v for k, v in x.items() if k != 'id'} for x in (batch, padded)
  )
  variables = captioner.init(
    jax.random.key(0), *model.inputs(padded), train=False
  )
  loss_fn = losses.create(captioner, config.loss)

  @jax.jit
  def gradient(batch):
    counts = losses.counts(batch)
    return jax.value_and_grad(
      lambda v: loss_fn(v, batch, counts, 0, jax.random.key(1))[0]
    )(variables)

  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    gradient(batch),
    gradient(padded),
  )


@pytest.mark.parametrize(
  'changes',
  [{'buckets': ()}, {'self_critical.num_samples': 2}, {'batch_size': 32}],
)
def test_without_buckets_batches_are_as_ever(tmp_path, changes):
  records = make_records()
  config = make_config(**changes)
  found = make_batches(tmp_path, records, **changes)
  expected = batching.training_batches(
    records,
    make_examples(config, records).training,
    batch_size=config.batch_size,
    seed=config.seed,
  )
  assert all(equal(found[i], expected[i]) for i in range(3))
  assert found[0]['tokens'].shape[-1] == LONGEST
  assert not (tmp_path / length_buckets.FILE).exists()


def test_captions_are_counted_once(tmp_path):
  class Unread(list):
    def __getitem__(self, index):
      raise AssertionError('read again')

  records = make_records()
  expected = make_batches(tmp_path, records)
  config = make_config()
  found = length_buckets.training_batches(
    config,
    tmp_path,
    records,
    Unread(records),
    make_examples(config, records),
  )
  assert equal(found[3], expected[3])
