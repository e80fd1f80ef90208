"""Captions that are sampled: by number of the image, in commands and files."""

import json

import captioners
import commands
import jax
import numpy as np
import pytest
import test_captioning_caption

from captioning import caption
from captioning import caption_files
from captioning import diversity
from captioning import evaluation
from captioning import inference
from captioning import metrics
from recurrent import decoder
from training import batching


def decode(captioner, variables, features, index, **changes):
  """Samples i32[B, K, T] and their log-probabilities f32[B, K]."""
  config = captioners.small_config()
  config.decoding.update(temperature=3.0, samples=3, **changes)
  constraints = captioners.WORDS.constraints(config.decoding)
  found = jax.jit(
    lambda variables: decoder.decode(
      [captioner],
      [variables],
      (features, None),
      config.decoding,
      bos=1,
      eos=2,
      constraints=decoder.search.Constraints(**constraints),
      index=np.asarray(index, np.int32),
    )
  )(variables)
  return np.asarray(found.tokens), np.asarray(found.log_probs)


@pytest.fixture(scope='module')
def model():
  return captioners.create(captioners.small_config())


def test_samples_depend_on_the_number_of_the_image_alone(model):
  features = captioners.make_features()
  tokens, log_probs = decode(*model, features, range(4))
  assert len(np.unique(tokens.reshape(12, -1), axis=0)) > 6
  assert np.all(np.diff(log_probs, axis=1) <= 0)
  order = [2, 0, 3]
  some, _ = decode(*model, features[order], order)
  np.testing.assert_array_equal(some, tokens[order])
  other, _ = decode(*model, features, range(4, 8))
  assert not np.array_equal(other, tokens)
  seeded, _ = decode(*model, features, range(4), seed=1)
  assert not np.array_equal(seeded, tokens)


def test_top_k_of_one_is_greedy(model):
  features = captioners.make_features()
  tokens, _ = decode(*model, features, range(4), top_k=1)
  config = captioners.small_config()
  config.decoding.beam_size = 1
  step = inference.decode_step([model[0]], config.decoding, captioners.WORDS)
  greedy, _ = step(
    (inference.parallel.replicate(model[1]),),
    inference.parallel.shard({'features': features}),
  )
  np.testing.assert_array_equal(tokens, np.repeat(greedy, 3, axis=1))


def test_examples_are_numbered_over_batches():
  batches = [
    {'mask': np.ones(3, bool)},
    {'mask': np.array([True, False, False])},
  ]
  numbers = [batch['index'] for batch in batching.number(batches)]
  assert np.concatenate(numbers).tolist() == [*range(6)]


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """A run on few images, with random parameters."""
  directory = tmp_path_factory.mktemp('run')
  shell = commands.Shell(directory)
  captioners.prepare_few(shell, train=6, test=5)
  config = test_captioning_caption.small_config()
  config.data.update(name='captioned_images/few', data_dir=str(shell.data_dir))
  test_captioning_caption.write_workdir(directory / 'workdir', config)
  return directory / 'workdir'


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
  return test_captioning_caption.save_pictures(
    tmp_path_factory.mktemp('pictures'), 3
  )


def test_the_command_samples(workdir, pictures, capsys):
  def run(*arguments):
    command = [f'--workdir={workdir}', '--n_best=4', '--json', *arguments]
    assert caption.main([*command, *map(str, pictures)]) == 0
    return json.loads(capsys.readouterr().out)

  first = run('--decoding=temperature=2.0', '--seed=1')
  for result in first:
    log_probs = [one['log_prob'] for one in result['n_best']]
    assert len(log_probs) == 4 and log_probs == sorted(log_probs)[::-1]
  assert run('--decoding=temperature=2.0', '--seed=1') == first
  assert run('--decoding=temperature=2.0', '--seed=2') != first
  with pytest.raises(SystemExit):
    run('--seed=1')
  assert 'pass --decoding=temperature=1.0 too' in capsys.readouterr().err


def test_an_evaluation_of_samples(workdir, capsys):
  config = evaluation.app.read_config(workdir)
  decoding = evaluation.app.change_fields(
    config.decoding, ['temperature=1.5', 'samples=3'], name='decoding'
  )
  entry = evaluation.evaluate_best(
    workdir,
    'test',
    name='samples',
    decoding=decoding,
    with_diversity=True,
    with_page=True,
  )
  results = workdir / 'results'
  samples = caption_files.read(results / 'samples.samples.json')
  assert {len(texts) for texts in samples.values()} == {3}
  best = caption_files.read(results / 'samples.captions.json')
  assert best == {i: texts[:1] for i, texts in samples.items()}
  source = evaluation.records.open_split(config, workdir, 'test')
  references = {record['id']: record['captions'] for record in source}
  several = metrics.of_several(references, samples)
  for name in several:  # But for the order of the sums.
    assert entry[name] == pytest.approx(several[name], rel=1e-12)
  assert entry['oracle']['CIDEr'] >= entry['scores']['CIDEr']
  training = evaluation.records.open_split(config, workdir, 'train')
  known = [text for record in training for text in record['captions']]
  assert entry['usage'] == diversity.usage(samples, known)
  page = (results / 'samples.html').read_text()
  assert 'likeliest of 3 samples, temperature 1.5, seed 0' in page
  assert page.count('<h3>Other samples</h3>') == 5
  for texts in samples.values():
    assert all(f'<li dir="auto">{text}</li>' in page for text in texts[1:])
  printed = capsys.readouterr().out
  assert 'oracle' in printed and 'bad endings' in printed
