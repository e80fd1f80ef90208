"""Training through the command line: what can stop a run, and what is left.

One run is left alone; the others are killed, terminated or spread over two
processes, and must end where it ended. All are started at once.
"""

import concurrent.futures
import dataclasses
import functools
import json
import os
import pathlib
import shutil
import signal
import socket
from collections.abc import Callable

import captioners
import commands
import jax
import numpy as np
import pytest

from captioning import caption
from captioning import data
from captioning import main
from configs import scenes
from training import app
from training import batching
from training import hosts

NUM_STEPS = 36
# configs/scenes.py in small; every interval divides other steps.
SMALL = {
  'data.name': 'captioned_images/few',
  'data.resize': 32,
  'data.crop': 32,
  'data.max_length': 12,
  'buckets': (8,),
  'encoder.width': 4,
  'encoder.strides': (2,),  # One stage is compiled, not three.
  'decoder.features': 16,
  'decoder.embedding': 16,
  'decoder.attention': 16,
  # Nobody can judge these captions, and there are too few for concepts.
  'best_metric': 'loss',
  'best_mode': 'min',
  'loss.visual_words': 0.0,
  'optimizer.warmup_steps': 4,
  'batch_size': 8,
  'num_steps': NUM_STEPS,
  'decoding.max_length': 12,
  'eval_batch_size': 4,
  'log_every': 4,
  'checkpoint_every': 5,
  'eval_every': 12,
}


class Shell(commands.Shell):
  """Starts runs of the small experiment."""

  def start(self, *arguments: str, java: bool = False, **kwargs):
    if not java:  # METEOR takes longer than all else; it has its own test.
      kwargs['PATH'] = str(self.directory)
    return super().start(*arguments, **kwargs)

  def train(
    self, workdir: pathlib.Path, *flags: str, **kwargs
  ) -> commands.Command:
    """Starts a run; `flags` come after those of the small experiment."""
    # A tuple that is given twice is the sum of both.
    given = {flag.partition('=')[0] for flag in flags}
    small = [
      f'--config.{name}={value}'
      for name, value in SMALL.items()
      if f'--config.{name}' not in given
    ]
    return self.start(
      'captioning.main',
      f'--workdir={workdir}',
      '--config=configs/scenes.py',
      f'--config.data.data_dir={self.data_dir}',
      *small,
      *flags,
      **kwargs,
    )

  def resume(self, workdir: pathlib.Path, **kwargs) -> commands.Command:
    """Goes on with a run by its workdir alone."""
    return self.start('captioning.main', f'--workdir={workdir}', **kwargs)

  def in_two(
    self, start: Callable[..., commands.Command]
  ) -> list[commands.Command]:
    """Starts the same on two processes with a device each."""
    with socket.socket() as found:
      found.bind(('localhost', 0))
      port = found.getsockname()[1]
    return [
      start(
        f'--coordinator_address=localhost:{port}',
        '--num_processes=2',
        f'--process_id={i}',
        devices=1,
      )
      for i in range(2)
    ]


def results(workdir: pathlib.Path) -> tuple[dict, list]:
  """The entry of the test split, and its captions."""
  entry = json.loads((workdir / 'results.json').read_text())['test']
  entry = commands.without_times(entry)
  del entry['config']['checkpoint_every']  # One run saves only when stopped.
  captions = (workdir / 'results' / 'test.captions.json').read_text()
  return entry, json.loads(captions)


def assert_same_end(workdir: pathlib.Path, other: pathlib.Path):
  """The same state to the last bit, the same captions, the same scores."""
  commands.assert_same_training(workdir, other)
  assert results(workdir) == results(other)


# The runs.


def run_uninterrupted(shell: Shell) -> pathlib.Path:
  workdir = shell.directory / 'here'
  shell.train(workdir).finish()
  # Nothing of a run may depend on where it was.
  return workdir.rename(shell.directory / 'uninterrupted')


def run_killed(shell: Shell) -> pathlib.Path:
  workdir = shell.directory / 'killed'
  run = shell.train(workdir)
  run.stop_when(commands.saving(workdir, 10), signal.SIGKILL)
  run.finish(-signal.SIGKILL)
  assert 5 <= max(commands.saved_steps(workdir)) < 20
  run = shell.train(workdir)
  run.stop_when(commands.reached(workdir, 24), signal.SIGKILL)
  run.finish(-signal.SIGKILL)
  assert max(commands.saved_steps(workdir)) < NUM_STEPS
  shell.resume(workdir).finish()
  return workdir


@dataclasses.dataclass(frozen=True)
class Terminated:
  """A run that received SIGTERM, and what was there after each time."""

  workdir: pathlib.Path
  outputs: list[str]
  saved: list[int]  # The latest step.
  reported: list[list[dict[str, float]]]


def run_terminated(shell: Shell) -> Terminated:
  workdir = shell.directory / 'terminated'
  stopped = Terminated(workdir, [], [], [])
  # What is reported at step 12 is reported before the evaluation, and the
  # first one has to compile.
  for run, step in (
    (shell.train(workdir, '--config.checkpoint_every=1000'), 12),
    (None, 16),
  ):
    run = run or shell.resume(workdir)
    run.stop_when(commands.reached(workdir, step), signal.SIGTERM)
    stopped.outputs.append(run.finish(143))
    stopped.saved.append(max(commands.saved_steps(workdir)))
    stopped.reported.append(commands.lines(workdir))
  shell.resume(workdir).finish()
  return stopped


def run_in_two(shell: Shell) -> Terminated:
  workdir = shell.directory / 'two'
  train = functools.partial(shell.train, workdir)
  processes = shell.in_two(train)
  processes[1].stop_when(commands.reached(workdir, 4), signal.SIGTERM)
  outputs = [process.finish(143) for process in processes]
  stopped = Terminated(
    workdir,
    outputs,
    [max(commands.saved_steps(workdir))],
    [commands.lines(workdir)],
  )
  processes = shell.in_two(train)
  processes[1].stop_when(
    commands.saving(workdir, stopped.saved[0] + 1), signal.SIGKILL
  )
  processes[1].finish(-signal.SIGKILL)
  stopped.outputs.append(processes[0].finish(hosts.LOST))
  for process in shell.in_two(train):
    process.finish()
  return stopped


def run_exploding(shell: Shell) -> tuple[pathlib.Path, str]:
  workdir = shell.directory / 'exploding'
  run = shell.train(
    workdir,
    '--config.optimizer.learning_rate=1e30',
    '--config.checkpoint_every=1',
    '--config.buckets=()',
  )
  return workdir, run.finish(1)


@pytest.fixture(scope='module')
def shell(tmp_path_factory):
  """A directory with a few pictures of `scenes` as a prepared data set."""
  shell = Shell(tmp_path_factory.mktemp('main'))
  captioners.prepare_few(shell, train=40, validation=9, test=7)
  yield shell
  shell.end()


@pytest.fixture(scope='module')
def runs(shell):
  """Name -> the future of a run; as many at once as there are processors."""
  chains = [
    run_in_two,
    run_uninterrupted,
    run_killed,
    run_terminated,
    run_exploding,
  ]
  with concurrent.futures.ThreadPoolExecutor(max(os.cpu_count(), 2)) as pool:
    yield {chain.__name__: pool.submit(chain, shell) for chain in chains}
    shell.end()
    pool.shutdown(cancel_futures=True)


@pytest.fixture
def uninterrupted(runs):
  return runs['run_uninterrupted'].result()


def test_run_ends_with_results(uninterrupted):
  assert commands.saved_steps(uninterrupted)[-1] == NUM_STEPS
  validation = commands.lines(uninterrupted, 'validation/')
  assert [line['step'] for line in validation] == [12, 24, 36]
  best = min(validation, key=lambda line: line['validation/loss'])
  entry, captions = results(uninterrupted)
  assert entry['step'] == best['step']
  ids = {caption['image_id'] for caption in captions}
  assert ids == {f'test-{i}' for i in range(7)}
  # It learns something: from log(83 words) down.
  losses = [line['validation/loss'] for line in validation]
  assert np.log(83) > losses[0] > losses[2]
  assert 'Java' in entry['absent']['METEOR']
  # What the table of Flickr8k shows besides.
  assert 1 < entry['scores']['caption_perplexity'] < 83
  entry = json.loads((uninterrupted / 'results.json').read_text())['test']
  assert entry['cpu_seconds'] > 0


def test_killed_run_equals_the_uninterrupted(runs, uninterrupted):
  workdir = runs['run_killed'].result()
  assert_same_end(workdir, uninterrupted)
  assert commands.lines(workdir) == commands.lines(uninterrupted)


def test_sigterm_during_evaluation_saves_and_ends_well(runs):
  stopped = runs['run_terminated'].result()
  assert 'Stopped by SIGTERM' in stopped.outputs[0]
  assert stopped.saved[0] == 12
  assert [x['step'] for x in stopped.reported[0]] == [4, 8, 12]
  assert 'train/loss' in stopped.reported[0][-1]


def test_sigterm_between_steps_saves_the_step_and_ends_well(runs):
  stopped = runs['run_terminated'].result()
  assert 'Stopped by SIGTERM' in stopped.outputs[1]
  assert 16 <= stopped.saved[1] < NUM_STEPS
  assert stopped.saved[1] == stopped.reported[1][-1]['step']


def test_terminated_run_equals_the_uninterrupted(runs, uninterrupted):
  # Not its means over steps: they begin anew where it was stopped.
  assert_same_end(runs['run_terminated'].result().workdir, uninterrupted)


def test_sigterm_to_one_process_stops_both_at_the_same_step(runs):
  stopped = runs['run_in_two'].result()
  for output in stopped.outputs[:2]:
    assert 'Stopped by SIGTERM' in output
  assert 4 <= stopped.saved[0] < NUM_STEPS
  assert stopped.saved[0] == stopped.reported[0][-1]['step']


def test_a_killed_process_ends_the_other_with_a_sentence(runs):
  output = runs['run_in_two'].result().outputs[2]
  host = socket.gethostname()
  assert f'error: process 1 ({host}) has died: all processes stop' in output
  assert 'Traceback' not in output


def test_two_processes_equal_two_devices(runs, uninterrupted):
  # To the last bit: a sum of two numbers does not depend on their order.
  workdir = runs['run_in_two'].result().workdir
  assert_same_end(workdir, uninterrupted)


def test_only_the_first_process_writes(runs):
  stopped = runs['run_in_two'].result()
  # One file of events from each of the three starts, no step told twice.
  assert len(list((stopped.workdir / 'tensorboard').iterdir())) == 3
  for kind in ('train/', 'validation/'):
    steps = [line['step'] for line in commands.lines(stopped.workdir, kind)]
    assert len(steps) == len(set(steps))
  left = {path.name for path in stopped.workdir.iterdir()}
  assert left == {
    '.lock',
    '.results.lock',
    'caption_lengths.npy',
    'checkpoints',
    'config.json',
    'log.1.txt',
    'log.txt',
    'metrics.jsonl',
    'results',
    'results.json',
    'tensorboard',
    'vocabulary.json',
  }


def test_exploding_run_stops_and_keeps_the_good_checkpoint(shell, runs):
  workdir, output = runs['run_exploding'].result()
  # The rate warms up from zero: the second update is the first to explode.
  batches = batching.training_batches(
    data.open_split('captioned_images/few', 'train', shell.data_dir),
    lambda record, rng: {'id': record['id']},
    batch_size=SMALL['batch_size'],
    seed=0,
  )
  ids = ', '.join(batches[1]['id'])
  assert 'error: the parameter norm of step 1 is inf' in output
  assert f'batch: {ids}. Last good checkpoint: step 1.' in output
  assert commands.saved_steps(workdir) == [1]
  state = commands.saved_state(workdir, 1)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))


def test_evaluate_gives_the_scores_that_training_ended_with(
  shell, uninterrupted, tmp_path
):
  workdir = tmp_path / 'moved'
  shutil.copytree(uninterrupted, workdir)
  (workdir / 'results.json').unlink()
  shutil.rmtree(workdir / 'results')
  evaluate = functools.partial(
    shell.start, 'captioning.evaluate', f'--workdir={workdir}'
  )
  evaluate().finish()
  assert results(workdir) == results(uninterrupted)

  # On two hosts, each of which gives its share of the page's attention.
  (workdir / 'results.json').unlink()
  shutil.rmtree(workdir / 'results')
  for process in shell.in_two(functools.partial(evaluate, '--page')):
    process.finish()
  assert results(workdir) == results(uninterrupted)
  assert 'test-6' in (workdir / 'results' / 'test.html').read_text()


def test_caption_describes_as_the_evaluation_did(
  shell, uninterrupted, tmp_path, capsys
):
  _, captions = results(uninterrupted)
  expected = captions[3]
  picture = shell.directory / f'{expected["image_id"]}.png'
  broken = tmp_path / 'broken.png'
  broken.write_bytes(b'not a picture')
  status = caption.main(
    [f'--workdir={uninterrupted}', str(broken), str(picture)]
  )
  assert status == 1
  said = capsys.readouterr()
  assert said.out == (
    f'{picture}\t{expected["caption"]}\t{expected["log_prob"]:.2f}\n'
  )
  assert f'{broken}: error: ' in said.err


def test_wrong_flags_end_at_once_and_say_what_to_do(shell):
  new = shell.directory / 'wrong'
  cases = [
    (
      shell.start('captioning.main', '--config=configs/scenes.py'),
      'Flag --workdir must have a value',
    ),
    (
      shell.start('captioning.main', f'--workdir={new}'),
      f'{new}/config.json does not exist: pass --config=configs/NAME.py',
    ),
    (
      shell.train(new / 'batch', '--config.batch_size=7'),
      'batch_size=7 must be a multiple of the 2 devices: '
      'pass --config.batch_size=',
    ),
  ]
  for command, message in cases:
    assert message in command.finish(2)
  assert not list(new.rglob('config.json'))
  assert not list(new.rglob('checkpoints'))


def test_every_device_gets_its_share_of_an_evaluation(shell, tmp_path):
  config = scenes.get_config()
  config.update_from_flattened_dict(
    {**SMALL, 'data.data_dir': str(shell.data_dir), 'eval_batch_size': 5}
  )
  message = (
    'eval_batch_size=5 must be a multiple of the 2 devices: '
    'pass --config.eval_batch_size='
  )
  with pytest.raises(ValueError, match=message):
    main.train_and_evaluate(config, tmp_path / 'new')
  assert not (tmp_path / 'new' / 'config.json').exists()
  assert not list(tmp_path.rglob('checkpoints'))


def test_another_model_is_not_trained_on(uninterrupted):
  stored = (uninterrupted / 'config.json').read_text()
  config = app.read_config(uninterrupted)
  config.decoder.features = 9
  with pytest.raises(ValueError, match="go on with that run's own config"):
    main.train_and_evaluate(config, uninterrupted)
  assert (uninterrupted / 'config.json').read_text() == stored
