"""Training that goes on from another run: self-critical, and fine-tuning."""

import json
import pathlib
import shutil
import signal

import captioners
import commands
import jax
import numpy as np
import pytest

from captioning import main
from captioning import vocabulary
from configs import scenes

NUM_STEPS = 8
# configs/scenes.py in small.
SMALL = {
  'data.name': 'captioned_images/few',
  'data.resize': 32,
  'data.crop': 32,
  'data.max_length': 8,
  'encoder.width': 4,
  'encoder.strides': (2,),  # One stage is compiled, not three.
  'decoder.features': 16,
  'decoder.embedding': 16,
  'decoder.attention': 16,
  # Nobody can judge these captions, and there are too few for concepts.
  'best_metric': 'CIDEr',
  'loss.visual_words': 0.0,
  'batch_size': 8,
  'num_steps': 4,
  'decoding.max_length': 8,
  'decoding.beam_size': 2,
  'eval_batch_size': 4,
  'log_every': 2,
  'checkpoint_every': 2,
  'eval_every': 4,
}
SELF_CRITICAL = {
  'num_steps': NUM_STEPS,
  'self_critical.num_samples': 3,
  'loss.attention_penalty': 0.0,
  'optimizer.warmup_steps': 0,
}


@pytest.fixture(scope='module')
def shell(tmp_path_factory):
  """A directory with a few pictures of `scenes` as a prepared data set."""
  shell = commands.Shell(tmp_path_factory.mktemp('phases'))
  captioners.prepare_few(shell, train=16, validation=4, test=4)
  yield shell
  shell.end()


def train(shell, workdir: pathlib.Path, fields: dict) -> commands.Command:
  """Starts the small experiment with some other fields."""
  return shell.start(
    'captioning.main',
    f'--workdir={workdir}',
    '--config=configs/scenes.py',
    f'--config.data.data_dir={shell.data_dir}',
    *(f'--config.{name}={value}' for name, value in fields.items()),
    PATH=str(shell.directory),  # Without Java: METEOR takes long.
  )


@pytest.fixture(scope='module')
def start(shell):
  """A run by cross-entropy."""
  workdir = shell.directory / 'start'
  train(shell, workdir, SMALL).finish()
  return workdir


def best_state(workdir):
  return commands.saved_state(workdir, commands.saved_steps(workdir)[-1])


def encoder_and_decoder(workdir):
  params = best_state(workdir)['model']['params']
  return params['encoder'], params['decoder']


def test_killed_self_critical_run_equals_the_uninterrupted(shell, start):
  # What is drawn, and rewarded, depends on the step and the seed alone.
  fields = {**SMALL, **SELF_CRITICAL, 'start_from': start}
  whole, killed = shell.directory / 'whole', shell.directory / 'killed'
  alone = train(shell, whole, fields)
  alone.wait_until(commands.reached(whole, 2))  # What it compiles is cached.
  stopped = train(shell, killed, fields)
  stopped.stop_when(commands.saving(killed, 4), signal.SIGKILL)
  stopped.finish(-signal.SIGKILL)
  assert max(commands.saved_steps(killed)) < NUM_STEPS
  shell.start(
    'captioning.main',
    f'--workdir={killed}',
    PATH=str(shell.directory),
  ).finish()
  alone.finish()
  commands.assert_same_training(killed, whole)
  assert commands.lines(killed) == commands.lines(whole)
  for line in commands.lines(whole, 'train/'):
    assert 0 <= line['train/reward'] <= 10
    assert 1 <= line['train/length'] <= 8
  config = json.loads((whole / 'results.json').read_text())['test']['config']
  assert config['start_from'] == str(start)
  assert (whole / 'vocabulary.json').read_text() == (
    start / 'vocabulary.json'
  ).read_text()


def test_each_part_of_the_network_has_its_own_rate(shell, start):
  workdir = shell.directory / 'tuned'
  fields = {
    **SMALL,
    'start_from': start,
    'num_steps': 2,
    'eval_every': 2,
    'optimizer.warmup_steps': 0,
    # Exact in binary.
    'optimizer.rates': "(('encoder/', 0.0),)",
    'train_batch_stats': False,
  }
  train(shell, workdir, fields).finish()
  before, after = encoder_and_decoder(start), encoder_and_decoder(workdir)
  jax.tree.map(np.testing.assert_array_equal, before[0], after[0])
  moved = jax.tree.map(lambda x, y: np.any(x != y), before[1], after[1])
  assert all(jax.tree.leaves(moved))


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'start_from': 'nowhere'}, "start_from='nowhere'"),
    ({'decoder.features': 8}, 'is of another model'),
  ],
)
def test_wrong_starts_are_clear_errors(fields, message, shell, start, tmp_path):
  config = scenes.get_config()
  config.update_from_flattened_dict(
    {
      **SMALL,
      'data.data_dir': str(shell.data_dir),
      'start_from': str(start),
      **fields,
    }
  )
  with pytest.raises((FileNotFoundError, ValueError), match=message):
    main.train_and_evaluate(config, tmp_path)
  assert not list(tmp_path.rglob('checkpoints'))


def test_words_that_were_shuffled_are_noticed(shell, start, tmp_path):
  """The checkpoint knows them: the file may have been changed since."""
  copy = tmp_path / 'start'
  shutil.copytree(start, copy)
  path = copy / 'vocabulary.json'
  words = vocabulary.Vocabulary.load(path).words
  changed = [*words[:5], *reversed(words[5:])]
  vocabulary.Vocabulary(changed).save(path)
  config = scenes.get_config()
  config.update_from_flattened_dict(
    {
      **SMALL,
      'data.data_dir': str(shell.data_dir),
      'start_from': str(copy),
    }
  )
  message = f"word 5 of its checkpoint is '{words[5]}', that of vocabulary.json"
  with pytest.raises(ValueError, match=message):
    main.train_and_evaluate(config, tmp_path / 'run')
  assert not list(tmp_path.glob('run/checkpoints'))
