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

CONFIG = dict(
  batch_size=2,
  num_steps=7,
  log_every=2,
  eval_every=3,
  checkpoint_every=5,
  best_metric='score',
  best_mode='max',
)
# So many updates have been made, and whether an evaluation is due.
TURNS = [
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
    objective=number,
    gradient_norm=number,
    parameter_norm=number,
    metrics=Metrics.single_from_model_output(mean=mean),
  )


def train(workdir, stop=None):
  """Turns from the latest checkpoint on, until SIGTERM comes in one of them."""
  batches = batching.training_batches(
    np.arange(10),
    lambda i, rng: {'id': str(i), 'x': np.float32(i)},
    batch_size=2,
    seed=0,
  )
  turns = []
  with loop.start(
    ml_collections.ConfigDict(CONFIG),
    workdir,
    parallel.create_state({'params': {'a': np.float32(0)}}, optax.sgd(0.1)),
    batches=batches,
    learning_rate=lambda step: step / 10,
    extras={},
  ) as run:
    for turn in run.turns():
      assert turn.step == int(run.state.step)
      turns.append((turn.step, turn.evaluates))
      if stop == turns[-1]:
        raise app.Stopped
      if turn.evaluates:
        run.evaluated({'score': turn.step / 2}, seconds=0.25)
      else:
        run.update(*updated(run.state, turn.batch), {'reward': turn.step})
  return turns, run.state


def lines(workdir, name):
  rows = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
  return {row['step']: row[name] for row in rows if name in row}


def saved(workdir):
  """Step -> whether it carries metrics."""
  with checkpoints.Checkpoints(workdir, best_metric='score') as found:
    steps = (workdir / 'checkpoints').iterdir()
    return {int(p.name): found.evaluated(int(p.name)) for p in steps}


def test_turns_and_what_is_told(tmp_path):
  turns, state = train(tmp_path)
  assert turns == TURNS and int(state.step) == 7
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


@pytest.mark.parametrize('stop', TURNS)
def test_stopped_and_resumed_equals_uninterrupted(tmp_path, stop):
  """Nothing is trained or evaluated twice, and no score is another step's."""
  _, expected = train(tmp_path / 'whole')
  parted = tmp_path / 'parted'
  with pytest.raises(app.Stopped):
    train(parted, stop)
  step = stop[0]
  kept = saved(parted)
  assert kept[step] == ((step, True) in TURNS[: TURNS.index(stop)])
  turns, state = train(parted)
  assert turns == TURNS[TURNS.index(stop) :]
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
