"""What is due when, and what is saved of a run that is stopped."""

import contextlib
import json

import clu.metrics
import flax
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from training import app
from training import batching
from training import checkpoints
from training import loop
from training import parallel
from training import progress
from training import provenance

CONFIG = dict(
  batch_size=2,
  num_steps=7,
  log_every=2,
  eval_every=3,
  checkpoint_every=5,
  best_metric='score',
  best_mode='max',
)
# Number of completed updates, and whether an evaluation is due.
STEPS = [
  (0, False),
  (1, False),
  (2, False),
  (3, True),
  (3, False),
  (4, False),
  (5, False),
  (6, True),
  (6, False),
  (7, True),
]


@flax.struct.dataclass
class Metrics(clu.metrics.Collection):
  mean: clu.metrics.Average.from_output('mean')


def updated(state, batch):
  """Adds the batch to the parameter, in place of a real training step."""
  mean = np.mean(batch['x'])
  params = {'a': state.params['a'] + mean}
  state = state.replace(step=state.step + 1, params=params)
  number = np.float32(params['a'])
  return state, parallel.Update(
    loss=number,
    gradient_norm=number,
    parameter_norm=number,
    metrics=Metrics.single_from_model_output(mean=mean),
  )


def train(workdir, stop=None, fingerprint='of numbers', **changes):
  """Trains from the latest checkpoint on, until SIGTERM comes in a step."""
  batches = batching.training_batches(
    np.arange(10),
    lambda i, rng: {'id': str(i), 'x': np.float32(i)},
    batch_size=2,
    seed=0,
  )
  steps = []
  with loop.start(
    ml_collections.ConfigDict({**CONFIG, **changes}),
    workdir,
    parallel.create_state({'params': {'a': np.float32(0)}}, optax.sgd(0.1)),
    batches=batches,
    learning_rate=lambda step: step / 10,
    extras={'config': {**CONFIG, **changes}, 'vocabulary': ['a', 'b']},
    fingerprint=fingerprint,
  ) as run:
    for step in run.steps():
      assert step.number == int(run.state.step)
      steps.append((step.number, step.evaluates))
      if stop == steps[-1]:
        raise app.Stopped
      if step.evaluates:
        run.record_evaluation({'score': step.number / 2}, seconds=0.25)
      else:
        run.state, update = updated(run.state, step.batch)
        run.record_update(update, {'reward': step.number})
  return steps, run.state


def lines(workdir, name):
  rows = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
  return {row['step']: row[name] for row in rows if name in row}


def saved(workdir):
  """Step -> whether it carries metrics."""
  with checkpoints.Checkpoints(workdir, best_metric='score') as found:
    steps = (workdir / 'checkpoints').iterdir()
    return {int(p.name): found.evaluated(int(p.name)) for p in steps}


def test_steps_and_what_is_reported(tmp_path):
  steps, state = train(tmp_path)
  assert steps == STEPS and int(state.step) == 7
  assert lines(tmp_path, 'validation/score') == {3: 1.5, 6: 3.0, 7: 3.5}
  assert lines(tmp_path, 'validation/seconds') == {3: 0.25, 6: 0.25, 7: 0.25}
  # Of the updates since the last summary.
  assert lines(tmp_path, 'train/reward') == {
    2: 0.5,
    3: 2.0,
    4: 3.0,
    5: 4.0,
    6: 5.0,
    7: 6.0,
  }
  assert lines(tmp_path, 'train/learning_rate')[5] == 0.5
  assert saved(tmp_path) == {7: True}
  assert train(tmp_path)[0] == []  # All is done.


@pytest.mark.parametrize('stop', STEPS)
def test_stopped_and_resumed_equals_uninterrupted(tmp_path, stop):
  """Nothing is trained or evaluated twice, and no score is another step's."""
  _, expected = train(tmp_path / 'whole')
  parted = tmp_path / 'parted'
  with pytest.raises(app.Stopped):
    train(parted, stop)
  step = stop[0]
  kept = saved(parted)
  assert kept[step] == ((step, True) in STEPS[: STEPS.index(stop)])
  steps, state = train(parted)
  assert steps == STEPS[STEPS.index(stop) :]
  np.testing.assert_array_equal(state.params['a'], expected.params['a'])
  for name in ('validation/score', 'train/reward'):
    told = lines(parted, name)
    assert told.keys() >= lines(tmp_path / 'whole', name).keys()
  assert lines(parted, 'validation/score') == {3: 1.5, 6: 3.0, 7: 3.5}
  assert saved(parted) == saved(tmp_path / 'whole')


def test_sigterm_between_steps_leaves_no_score_of_another_step(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(app, 'stopping', lambda step: step == 4)
  with pytest.raises(app.Stopped):
    train(tmp_path)
  assert saved(tmp_path) == {3: True, 4: False}


def start(workdir):
  """A run whose loop the test writes."""
  return loop.start(
    ml_collections.ConfigDict(CONFIG),
    workdir,
    parallel.create_state({'params': {'a': np.float32(0)}}, optax.sgd(0.1)),
    batches=batching.training_batches(
      np.arange(10),
      lambda i, rng: {'id': str(i), 'x': np.float32(i)},
      batch_size=2,
      seed=0,
    ),
    learning_rate=lambda step: step / 10,
    extras={},
    fingerprint='of numbers',
  )


def test_an_update_that_is_not_recorded_raises(tmp_path):
  with start(tmp_path) as run:
    with pytest.raises(RuntimeError, match=r'step 0 was not .*record_update'):
      for step in run.steps():
        run.state, _ = updated(run.state, step.batch)
  assert saved(tmp_path) == {}


def test_an_evaluation_that_is_not_recorded_raises(tmp_path):
  with start(tmp_path) as run:
    with pytest.raises(RuntimeError, match=r'step 3 .*record_evaluation'):
      for step in run.steps():
        if not step.evaluates:
          run.state, update = updated(run.state, step.batch)
          run.record_update(update)
  assert saved(tmp_path) == {}


def test_a_state_that_is_not_assigned_raises(tmp_path):
  with start(tmp_path) as run:
    with pytest.raises(
      RuntimeError, match='2 updates .*run.state is at step 0'
    ):
      for step in run.steps():
        _, update = updated(run.state, step.batch)
        run.record_update(update)
  assert saved(tmp_path) == {}


def test_what_is_not_due_cannot_be_recorded(tmp_path):
  with start(tmp_path) as run:
    with pytest.raises(RuntimeError, match='no evaluation is due'):
      run.record_evaluation({'score': 1.0})
    step = next(run.steps())
    run.state, update = updated(run.state, step.batch)
    run.record_update(update)
    with pytest.raises(RuntimeError, match='no update is due'):
      run.record_update(update)


def test_a_run_is_resumed_as_itself(tmp_path, monkeypatch):
  with pytest.raises(app.Stopped):
    train(tmp_path, (4, False))
  with pytest.raises(
    ValueError,
    match=r"checkpoints/4 is of another run: fingerprint is 'of numbers' "
    r"there, 'other' here.* --allow_change=data",
  ):
    train(tmp_path, fingerprint='other')
  with pytest.raises(ValueError, match='config.batch_size is 2 there, 4 here'):
    train(tmp_path, batch_size=4)
  assert json.loads((tmp_path / 'config.json').read_text())['batch_size'] == 2
  monkeypatch.setattr(app, 'allowed_changes', lambda: ['data'])
  steps, _ = train(tmp_path, fingerprint='other', log_every=1)
  assert steps == STEPS[STEPS.index((4, False)) :]
  # It is another run from here on.
  monkeypatch.undo()
  with pytest.raises(ValueError, match="'other' there, 'of numbers' here"):
    train(tmp_path)


def test_the_origin_is_saved(tmp_path):
  train(tmp_path)
  _, extras, _ = checkpoints.load(tmp_path, best_metric='score')
  assert extras['config'] == CONFIG and extras['fingerprint'] == 'of numbers'
  assert extras['commit'] == provenance.commit()


# Early stopping and the plateau schedule.

SCORES = {2: 1.0, 4: 3.0, 6: 2.0, 8: 2.5, 10: 1.0, 12: 0.0, 14: 3.0, 16: 0.0}
WITH_PROGRESS = dict(
  CONFIG,
  num_steps=40,
  eval_every=2,
  checkpoint_every=3,
  patience=5,
  optimizer=dict(
    kind='sgd', schedule='plateau', decay_rate=0.5, decay_evaluations=2
  ),
)


class Killed(Exception):
  """Stands for SIGKILL: nothing is saved."""


@pytest.fixture(scope='module')
def descent():
  """An optimizer and its step, for a loss whose gradient is 1."""
  optimizer = optax.sgd(0.1)

  def loss(variables, batch, counts, step, key):
    total = variables['params']['a'] * jnp.mean(counts) / jax.device_count()
    return total, (Metrics.single_from_model_output(mean=total), {})

  step = parallel.train_step(
    loss, lambda batch: 0 * batch['x'] + 1 / jax.device_count(), optimizer
  )
  return optimizer, step


def descend(descent, workdir, stops=(), **changes):
  """Trains until each of the steps in `stops`, from the latest checkpoint on.

  Returns the steps of the last start, and the state.
  """
  optimizer, train_step = descent
  config = {**WITH_PROGRESS, **changes}
  key = parallel.replicate(jax.random.key(0))
  for stop, error in [*stops, (None, None)]:
    steps = []
    with contextlib.ExitStack() as stack:
      if error is not None:
        stack.enter_context(pytest.raises(error))
      run = stack.enter_context(
        loop.start(
          ml_collections.ConfigDict(config),
          workdir,
          parallel.create_state({'params': {'a': np.float32(0)}}, optimizer),
          batches=batching.training_batches(
            np.arange(10),
            lambda i, rng: {'id': str(i), 'x': np.float32(i)},
            batch_size=2,
            seed=0,
          ),
          learning_rate=lambda step: 0.1,
          extras={'config': config},
          fingerprint='of numbers',
        )
      )
      for step in run.steps():
        steps.append((step.number, step.evaluates))
        if stop == steps[-1]:
          raise error
        if step.evaluates:
          run.record_evaluation({'score': SCORES[step.number]})
        else:
          run.state, update = train_step(run.state, step.batch, key)
          run.record_update(update)
  return steps, run.state


def test_the_rate_decays_and_the_run_ends_without_better_scores(
  tmp_path, descent
):
  steps, state = descend(descent, tmp_path)
  assert steps[-1] == (14, True)  # The fifth that is not above 3.
  # Eight steps at the full rate, four at a half, two at a quarter.
  np.testing.assert_allclose(
    state.params['a'], -0.1 * (8 + 4 / 2 + 2 / 4), rtol=1e-6
  )
  rates = lines(tmp_path, 'train/learning_rate')
  assert rates[8] == 0.1 and rates[10] == 0.05 and rates[14] == 0.025
  assert descend(descent, tmp_path)[0] == []  # It has ended.
  steps, state = descend(descent, tmp_path / 'whole', num_steps=16, patience=0)
  assert steps[-1] == (16, True) and int(state.step) == 16


@pytest.mark.parametrize(
  'stops',
  [
    [((8, True), app.Stopped)],
    [((8, False), app.Stopped)],
    [((11, False), app.Stopped), ((13, False), app.Stopped)],
    [((11, False), Killed), ((14, True), Killed)],
    # The state of step 8 is saved without its score, which comes later; what
    # follows from the score is then to be found again.
    [((8, True), app.Stopped), ((8, False), Killed)],
    [((14, True), app.Stopped)],
  ],
)
def test_stopped_or_killed_equals_uninterrupted_with_progress(
  tmp_path, descent, stops
):
  whole, expected = descend(descent, tmp_path / 'whole')
  steps, state = descend(descent, tmp_path / 'parted', stops)
  assert steps[-1:] == whole[-1:]
  jax.tree.map(np.testing.assert_array_equal, state, expected)
  for name in ('validation/score', 'train/learning_rate'):
    expected_lines = lines(tmp_path / 'whole', name).items()
    assert expected_lines <= lines(tmp_path / 'parted', name).items()


def test_progress_is_restored_where_the_checkpoint_and_the_config_have_it(
  tmp_path, descent, monkeypatch
):
  """With --allow_change=config a run may begin, or cease, to need it."""
  monkeypatch.setattr(app, 'allowed_changes', lambda: ['config'])
  constant = dict(WITH_PROGRESS['optimizer'], schedule='constant')
  without = dict(patience=0, optimizer=constant)
  _, state = descend(descent, tmp_path, num_steps=6, **without)
  assert state.progress is None
  _, state = descend(descent, tmp_path, num_steps=10)
  assert int(state.progress.since_best) == 1  # Since step 8.
  _, state = descend(descent, tmp_path, num_steps=12, **without)
  assert state.progress is None and int(state.step) == 12


def test_the_first_host_decides_for_all(tmp_path, descent, monkeypatch):
  """Scores of this host that differ by rounding change nothing."""
  first = [repr(SCORES[step] + 1e-3 * step) for step in SCORES]
  scores = iter(first)
  own = parallel.gather_texts

  def gather(text):
    return (
      [next(scores), text]
      if text in map(repr, SCORES.values())
      else [*own(text)]
    )

  monkeypatch.setattr(parallel, 'gather_texts', gather)
  steps, state = descend(descent, tmp_path, num_steps=16)
  # Its score of step 14 is above that of step 4, so the run goes on there.
  assert steps[-1] == (16, True)
  assert state.progress.best == np.float32(3.014)


@pytest.mark.parametrize('mode', ['max', 'min'])
def test_only_better_scores_count(mode):
  config = ml_collections.ConfigDict({**WITH_PROGRESS, 'best_mode': mode})
  sign = 1 if mode == 'max' else -1
  state = progress.initial(config)
  found = []
  for step, score in enumerate([2.0, 2.0, float('nan'), 2.5, 1.0, 2.5, 2.6]):
    state = progress.observe(state, sign * score, step, config)
    found.append((float(state.best) * sign, int(state.since_best)))
    assert int(state.evaluated) == step
  assert found == [(2, 0), (2, 1), (2, 2), (2.5, 0), (2.5, 1), (2.5, 2)] + [
    (np.float32(2.6), 0)
  ]
  assert float(state.scale) == 0.25
  assert not progress.is_over(state, config)
