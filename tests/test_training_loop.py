"""What is due when, and what is saved of a run that is stopped."""

import json

import clu.metrics
import flax
import ml_collections
import numpy as np
import optax
import pytest

from training import app
from training import batching
from training import checkpoints
from training import loop
from training import parallel
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
