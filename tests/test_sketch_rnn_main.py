"""Training of Sketch-RNN: what is computed, what can stop it, what is left.

The configs in small, on two virtual devices. One run is left alone, in this
process; another one is killed twice and terminated in processes of its own, and
must end where the first has ended.
"""

import contextlib
import dataclasses
import json
import logging as python_logging
import pathlib
import re
import shutil
import signal

import absl.logging
import commands
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import sketch_cat
from configs import sketch_kanji
from configs import sketch_quickdraw
from configs import sketch_sheep
from sketch_rnn import builders
from sketch_rnn import evaluation
from sketch_rnn import examples as examples_lib
from sketch_rnn import export
from sketch_rnn import file_formats
from sketch_rnn import importing
from sketch_rnn import inference
from sketch_rnn import kanji
from sketch_rnn import losses
from sketch_rnn import main
from sketch_rnn import mixture as mixture_lib
from sketch_rnn import model as model_lib
from training import app
from training import parallel

NUM_STEPS = 60
COUNTS = {'train': 26, 'validation': 7, 'test': 5}
# Every interval divides other steps; no batch size divides a split.
SMALL = {
  'data.max_length': 60,
  'model.encoder_features': 6,
  'model.decoder_features': 8,
  'model.latent': 4,
  'model.mixtures': 3,
  'optimizer.learning_rate': 0.01,
  'batch_size': 4,
  'num_steps': NUM_STEPS,
  'eval_batch_size': 4,
  'quality.num_steps': 3,
  'log_every': 4,
  'checkpoint_every': 5,
  'eval_every': 20,
}


def small(module, data_dir, **fields):
  """The config of a module in small; in names of `fields`, __ is a dot."""
  config = module.get_config()
  fields = {name.replace('__', '.'): value for name, value in fields.items()}
  config.update_from_flattened_dict(
    {**SMALL, 'data.data_dir': str(data_dir), **fields}
  )
  return config


def sketches(category, seed):
  rng = np.random.default_rng(seed)
  for split, count in COUNTS.items():
    for i in range(count):
      strokes = rng.integers(-40, 40, (rng.integers(3, 13), 3))
      strokes[:, 2] = rng.random(len(strokes)) < 0.3
      strokes[-1, 2] = 1
      yield file_formats.Sketch(
        f'{category}-{split}-{i}', strokes.astype(np.float32), category, split
      )


@pytest.fixture(scope='module')
def shell(tmp_path_factory):
  """A directory with data sets for all configs but that of Kanji."""
  shell = commands.Shell(tmp_path_factory.mktemp('main'))
  builders.prepare('sheep', list(sketches('sheep', 0)), shell.data_dir)
  for i, category in enumerate(('cat', 'pig')):
    drawings = list(sketches(category, i + 1))
    builders.prepare('quickdraw_sketches', drawings, shell.data_dir)
  yield shell
  shell.end()


def results(workdir):
  """The entry of the test split, and its drawings."""
  entry = json.loads((workdir / 'results.json').read_text())['test']
  drawings = (workdir / 'results' / 'test.svg').read_text()
  return commands.without_times(entry), drawings


@contextlib.contextmanager
def witness():
  """A list that gets 'compiled' and 'step N' as they happen."""
  events = []

  class Handler(python_logging.Handler):
    def emit(self, record):
      text = record.getMessage()
      if text.startswith('Compiling '):
        events.append('compiled')
      elif step := re.match(r'(step \d+) \| train/', text):
        events.append(step[1])

  handler = Handler()
  verbosity = absl.logging.get_verbosity()
  absl.logging.set_verbosity(absl.logging.INFO)
  python_logging.getLogger().addHandler(handler)
  try:
    with jax.log_compiles():
      yield events
  finally:
    python_logging.getLogger().removeHandler(handler)
    absl.logging.set_verbosity(verbosity)


@dataclasses.dataclass(frozen=True)
class Trained:
  """The run that was left alone."""

  workdir: pathlib.Path
  events: list[str]


@pytest.fixture(scope='module')
def trained(shell):
  workdir = shell.directory / 'here'
  with witness() as events:
    main.train_and_evaluate(small(sketch_sheep, shell.data_dir), workdir)
  # Nothing of a run may depend on where it was.
  return Trained(workdir.rename(shell.directory / 'trained'), events)


@dataclasses.dataclass(frozen=True)
class Terminated:
  """A run that was killed twice, and what was there after SIGTERM."""

  workdir: pathlib.Path
  output: str
  saved: int  # The latest step.
  reported: list[dict[str, float]]


@pytest.fixture(scope='module')
def terminated(shell):
  workdir = shell.directory / 'stopped'
  flags = {**SMALL, 'data.data_dir': shell.data_dir}
  run = shell.start(
    'sketch_rnn.main',
    f'--workdir={workdir}',
    '--config=configs/sketch_sheep.py',
    *(f'--config.{name}={value}' for name, value in flags.items()),
  )
  # Every process has to compile its first evaluation: the signals that are
  # sent before it come in time.
  run.stop_when(commands.saving(workdir, 10), signal.SIGKILL)
  run.finish(-signal.SIGKILL)
  assert 5 <= max(commands.saved_steps(workdir)) <= 20
  run = shell.start('sketch_rnn.main', f'--workdir={workdir}')
  run.stop_when(commands.reached(workdir, 24), signal.SIGKILL)
  run.finish(-signal.SIGKILL)
  assert max(commands.saved_steps(workdir)) <= 40
  run = shell.start('sketch_rnn.main', f'--workdir={workdir}')
  run.stop_when(commands.reached(workdir, 44), signal.SIGTERM)
  return Terminated(
    workdir,
    run.finish(143),
    max(commands.saved_steps(workdir)),
    commands.lines(workdir, 'train/'),
  )


# What is computed.


def random_params(model, example):
  """With which the drawings differ, as to their divergence too."""
  variables = main.initial_variables(model, example, seed=0)
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: (x + rng.normal(0, 0.4, x.shape)).astype(np.float32),
    jax.device_get(variables['params']),
  )


def one_computation(model, config, length, params, batches, key, *, flows):
  """Gradient descent over whole batches, with the noise of two devices.

  `flows`: the divergence is above its floor, so that it has a gradient.
  """

  def loss_of(params, batch, step):
    halves = []
    for device in range(2):
      own = jax.random.fold_in(jax.random.fold_in(key, step), device)
      latent_key, dropout_key = jax.random.split(own)
      half = {name: jnp.split(x, 2)[device] for name, x in batch.items()}
      halves.append(
        model.apply(
          {'params': params},
          half['strokes'],
          half['length'],
          half['label'] if model.num_classes else None,
          train=True,
          rngs={'latent': latent_key, 'dropout': dropout_key},
        )
      )
    raw, mean, presigma = jax.tree.map(lambda *x: jnp.concatenate(x), *halves)
    mixture, targets = mixture_lib.parameters(raw), batch['strokes'][:, 1:]
    points = losses.offset_loss(mixture, targets)
    points += losses.pen_loss(mixture, targets, masked=False)
    loss = jnp.sum(points) / (len(points) * length)
    if mean is None:
      return loss
    weight = 0.5 - (0.5 - 0.01) * config.kl_decay**step
    kl = jnp.mean(losses.kl_divergence(mean, presigma))
    return loss + weight * (kl if flows else config.kl_floor)

  step_fn = jax.jit(jax.value_and_grad(loss_of))
  for step, batch in enumerate(batches):
    loss, gradient = step_fn(params, batch, step)
    params = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)
  return params, loss


def sorted_batches(model, params, batches):
  """Drawings of small divergence on the first device; what the devices have."""
  found, divergences = [], []
  apply = jax.jit(model.apply)
  for batch in batches:
    _, mean, presigma = apply(
      {'params': params},
      batch['strokes'],
      batch['length'],
      batch['label'] if model.num_classes else None,
      rngs={'latent': jax.random.key(0)},
    )
    kl = np.asarray(losses.kl_divergence(mean, presigma))
    order = np.argsort(kl)
    found.append({name: x[order] for name, x in batch.items()})
    divergences.append(kl[order].reshape(2, -1).mean(1))
  return found, np.mean(divergences, 0)


@pytest.mark.parametrize(
  ('fields', 'floor'),
  [
    ({'model__conditional': False}, None),
    ({'model__num_classes': 2}, 'below all'),
    ({}, 'below the mean'),
    ({}, 'above the mean'),
  ],
)
def test_two_devices_equal_one_computation(shell, fields, floor):
  """With dropout and latent noise, which is that of the two devices.

  Below the floor the divergence has no gradient; the mean over both devices
  decides, not that of each.
  """
  config = small(
    sketch_quickdraw,
    shell.data_dir,
    data__categories=('cat', 'pig'),
    model__decoder='lstm',
    loss__kl_decay=0.9,
    **fields,
  )
  examples, splits = examples_lib.load(config.data)
  made = examples_lib.training_batches(
    splits['train'], examples, batch_size=8, seed=config.seed
  )
  batches = [{k: v for k, v in made[i].items() if k != 'id'} for i in range(2)]
  model = model_lib.SketchRNN(**config.model)
  example = examples.evaluation(splits['train'][0])
  params = random_params(model, example)
  if model.conditional:
    batches, (low, high) = sorted_batches(model, params, batches)
    mean = (low + high) / 2
    assert high > 1.2 * low
    config.loss.kl_floor = {
      'below all': float(low / 2),
      'below the mean': float((low + mean) / 2),
      'above the mean': float((high + mean) / 2),
    }[floor]

  key = jax.random.key(5)
  optimizer = optax.sgd(0.1)
  state = parallel.create_state({'params': params}, optimizer)
  step = parallel.train_step(
    losses.create(model, config.loss, examples.length), losses.counts, optimizer
  )
  for batch in batches:
    state, update = step(state, parallel.shard(batch), parallel.replicate(key))
  expected, loss = one_computation(
    model,
    config.loss,
    examples.length,
    params,
    batches,
    key,
    flows=floor in ('below all', 'below the mean'),
  )
  np.testing.assert_allclose(update.loss, loss, rtol=1e-5)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6),
    state.params,
    expected,
  )


# Sheep with an encoder are the run that was left alone.
CASES = {
  'sheep without an encoder': (sketch_sheep, {'model__conditional': False}),
  'cat': (sketch_cat, {}),
  'kanji': (sketch_kanji, {}),
  'cats and pigs': (
    sketch_quickdraw,
    {'data__categories': ('cat', 'pig'), 'model__num_classes': 2},
  ),
}


@pytest.mark.parametrize('case', CASES)
def test_every_config_trains(shell, case, tmp_path, monkeypatch):
  """What is reported is the loss of section 3.3, and so are results."""
  paths = kanji.paths()[::100]
  monkeypatch.setattr(kanji, 'paths', lambda: paths)
  module, fields = CASES[case]
  config = small(module, shell.data_dir, num_steps=2, log_every=1, **fields)
  main.train_and_evaluate(config, tmp_path)
  loss, conditional = config.loss, config.model.conditional
  lines = commands.lines(tmp_path, 'train/')
  assert [line['step'] for line in lines] == [1, 2]
  for line in lines:
    expected = line['train/reconstruction']
    if conditional:
      kl = max(line['train/kl'], loss.kl_floor)
      expected += line['train/kl_weight'] * kl
    np.testing.assert_allclose(line['train/total_loss'], expected, rtol=1e-5)
  entry, _ = results(tmp_path)
  expected = entry['scores']['offset'] + entry['scores']['pen']
  if conditional:
    expected += loss.kl_weight * max(entry['scores']['kl'], loss.kl_floor)
  else:
    assert entry['scores']['kl'] == 0
  np.testing.assert_allclose(entry['scores']['loss'], expected, rtol=1e-6)
  assert len(entry['quality']) == (6 if conditional else 4)
  for scores in entry['quality'].values():
    assert 0 <= scores['precision'] <= 1
    assert ('accuracy' in scores) == (case == 'cats and pigs')
  _, splits = examples_lib.load(config.data)
  assert entry['num_drawings'] == len(splits['test'])
  if config.model.num_classes:
    assert inference.load(tmp_path).classes == ('cat', 'pig')


def test_training_goes_on_from_imported_weights(shell, tmp_path):
  """In their unit, with their loss; another network is refused."""
  config = small(
    sketch_sheep,
    shell.data_dir,
    start_from=str(tmp_path / 'imported'),
    num_steps=1,
    log_every=1,
    # Adam's first step moves every parameter by the rate.
    optimizer__learning_rate=1e-3,
    optimizer__final_learning_rate=1e-3,
  )
  model = model_lib.SketchRNN(**config.model)
  examples, splits = examples_lib.load(config.data)
  example = examples.evaluation(splits['train'][0])
  params = random_params(model, example)
  arguments = {name: getattr(model, name) for name in export.ARGUMENTS}
  imported = importing.Imported(arguments, params, 'dog', 17.0, 40)
  importing.write(tmp_path / 'imported', imported)
  main.train_and_evaluate(config, tmp_path / 'run')
  sketcher = inference.load(tmp_path / 'run')
  assert sketcher.examples.scale == 17.0 != examples.scale
  assert sketcher.examples.length == examples.length
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1.01e-3),
    sketcher.variables['params'],
    params,
  )
  config.model.decoder_features = 9
  with pytest.raises(ValueError, match='imported is of another model'):
    main.train_and_evaluate(config, tmp_path / 'other')
  assert not (tmp_path / 'other').exists()


def test_every_bucket_compiles_once(shell, tmp_path):
  config = small(
    sketch_sheep,
    shell.data_dir,
    buckets=(6, 9),
    num_steps=12,
    log_every=1,
    checkpoint_every=3,
  )
  with witness() as events:
    main.train_and_evaluate(config, tmp_path)
  examples, splits = examples_lib.load(config.data)
  batches = examples_lib.training_batches(
    splits['train'],
    examples,
    batch_size=config.batch_size,
    seed=config.seed,
    buckets=config.buckets,
  )
  widths = [batches[step]['strokes'].shape[1] for step in range(12)]
  assert len(set(widths)) == 3
  compiled = []
  for step in range(12):  # What was before its report.
    end = events.index(f'step {step + 1}')
    if 'compiled' in events[:end]:
      compiled.append(step)
    events = events[end + 1 :]
  assert compiled == sorted(widths.index(width) for width in set(widths))


def test_nothing_compiles_after_the_first_evaluation(trained):
  """And before it, nothing after the first steps."""
  events = trained.events
  steps = [event for event in events if event != 'compiled']
  assert steps == [
    f'step {n}' for n in range(1, 61) if n % 4 == 0 or n % 5 == 0
  ]
  first, evaluated, after, last = (
    events.index(f'step {n}') for n in (4, 20, 24, 60)
  )
  assert 'compiled' in events[:first]
  assert 'compiled' not in events[first:evaluated]
  assert 'compiled' in events[evaluated:after]
  assert 'compiled' not in events[after:last]


# What is left.


def test_run_ends_with_the_best_checkpoints_results(trained):
  validation = commands.lines(trained.workdir, 'validation/')
  assert [line['step'] for line in validation] == [20, 40, 60]
  best = min(validation, key=lambda line: line['validation/loss'])
  entry, _ = results(trained.workdir)
  assert entry['step'] == best['step']
  assert entry['num_drawings'] == COUNTS['test']
  assert entry['num_steps'] == NUM_STEPS
  assert entry['config'] == app.read_config(trained.workdir).to_dict()
  steps = commands.saved_steps(trained.workdir)
  assert steps == sorted({best['step'], NUM_STEPS})
  # It learns something.
  lines = commands.lines(trained.workdir, 'train/')
  assert lines[0]['train/reconstruction'] > lines[-1]['train/reconstruction']


def test_sigterm_saves_and_ends_well(terminated):
  assert 'Stopped by SIGTERM' in terminated.output
  assert terminated.saved >= 44
  assert terminated.saved == terminated.reported[-1]['step']


def test_stopped_run_equals_the_uninterrupted(terminated, trained, tmp_path):
  """To the last bit, and here it goes on by its workdir alone."""
  workdir = tmp_path / 'resumed'
  shutil.copytree(terminated.workdir, workdir)
  main.train_and_evaluate(app.read_config(workdir), workdir)
  commands.assert_same_training(workdir, trained.workdir)
  assert results(workdir) == results(trained.workdir)


def test_evaluation_gives_what_training_ended_with(trained, tmp_path):
  workdir = tmp_path / 'moved'
  shutil.copytree(trained.workdir, workdir)
  (workdir / 'results.json').unlink()
  shutil.rmtree(workdir / 'results')
  evaluation.evaluate_best(workdir, 'test')
  assert results(workdir) == results(trained.workdir)
  # And of validation what the best checkpoint had on the way; both are kept.
  entry = evaluation.evaluate_best(workdir, 'validation')
  (line,) = (
    line
    for line in commands.lines(workdir, 'validation/')
    if line['step'] == entry['step']
  )
  assert {f'validation/{k}': v for k, v in entry['scores'].items()} == {
    name: value for name, value in line.items() if name != 'step'
  }
  written = json.loads((workdir / 'results.json').read_text())
  assert written['validation'] == entry
  assert results(workdir) == results(trained.workdir)


def test_the_command_evaluates_alike_on_one_device(shell, trained, tmp_path):
  workdir = tmp_path / 'moved'
  shutil.copytree(trained.workdir, workdir)
  (workdir / 'results.json').unlink()
  run = shell.start('sketch_rnn.evaluate', f'--workdir={workdir}', devices=1)
  assert f'test: {COUNTS["test"]} drawings' in run.finish()
  entry, sheet = results(workdir)
  expected, expected_sheet = results(trained.workdir)
  assert entry.pop('hardware').startswith('1 x ')
  assert expected.pop('hardware').startswith('2 x ')
  scores, expected_scores = entry.pop('scores'), expected.pop('scores')
  assert scores == pytest.approx(expected_scores, rel=1e-5)
  assert (entry, sheet) == (expected, expected_sheet)


# What goes wrong.


def test_a_loss_that_is_not_finite_is_named(trained, tmp_path, monkeypatch):
  monkeypatch.setattr(app, 'allowed_changes', lambda: ['config'])
  workdir = tmp_path / 'exploding'
  shutil.copytree(trained.workdir, workdir)
  config = app.read_config(workdir)
  config.num_steps = NUM_STEPS + 10
  config.optimizer.learning_rate = 1e30
  config.log_every = 3
  examples, splits = examples_lib.load(config.data)
  batches = examples_lib.training_batches(
    splits['train'], examples, batch_size=4, seed=config.seed
  )
  ids = ', '.join(batches[NUM_STEPS]['id'])
  with pytest.raises(FloatingPointError) as error:
    main.train_and_evaluate(config, workdir)
  assert str(error.value).startswith(
    'the parameter norm of step 60 is inf. Examples of its batch: '
    f'{ids}. Last good checkpoint: step 60.'
  )
  assert commands.saved_steps(workdir) == commands.saved_steps(trained.workdir)


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('batch_size', 3, 'batch_size=3 must be a multiple of the 2 devices'),
    ('eval_batch_size', 3, 'eval_batch_size=3 must be a multiple of the 2'),
    ('quality.temperatures', (), 'quality.temperatures is empty'),
    ('quality.temperatures', (0.4, 0.0), 'temperature=0.0 must be above 0'),
    ('best_metric', 'CIDEr', "best_metric='CIDEr' is none of loss, "),
    ('best_mode', 'up', "best_mode='up' must be 'max' or 'min'"),
    ('data.max_length', 2, 'no drawing of .* has at most 2 points'),
    ('buckets', (6,), '26 records do not fill a batch of 28'),
    ('model.num_classes', 2, 'number of categories, 1: sheep'),
    ('model.decoder', 'gru', "decoder='gru' is none of lstm, "),
    ('loss.kl_form', 'cosine', "form='cosine' is none of paper, tf1"),
  ],
)
def test_wrong_fields_are_named_at_once(shell, tmp_path, field, value, message):
  config = small(sketch_sheep, shell.data_dir, **{field: value})
  if field == 'buckets':
    config.batch_size = 28
  with pytest.raises(ValueError, match=re.compile(message)):
    main.train_and_evaluate(config, tmp_path / 'new')
  assert not (tmp_path / 'new').exists()


def test_another_model_is_not_trained_on(shell, trained):
  stored = (trained.workdir / 'config.json').read_text()
  config = small(sketch_sheep, shell.data_dir, model__decoder_features=9)
  with pytest.raises(ValueError, match='is of another model: go on with that'):
    main.train_and_evaluate(config, trained.workdir)
  assert (trained.workdir / 'config.json').read_text() == stored
