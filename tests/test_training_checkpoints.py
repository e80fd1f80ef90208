"""What is saved comes back; best and latest stay; strangers are refused."""

import json

import jax
import numpy as np
import optax
import pytest

from training import checkpoints
from training import parallel


def make_state(step=0, value=0.0, size=3):
  state = parallel.create_state(
    {
      'params': {'a': np.full(size, value, np.float32)},
      'batch_stats': {'b': np.full(2, value, np.float32)},
    },
    optax.adam(0.1),
    keep_ema=True,
  )
  return state.replace(step=parallel.replicate(np.int32(step)))


def open_checkpoints(path, mode='max'):
  return checkpoints.Checkpoints(path, best_metric='score', mode=mode)


def save_all(path, scores, mode='max'):
  with open_checkpoints(path, mode) as saved:
    for step, score in scores.items():
      metrics = None if score is None else {'score': score}
      saved.save(
        make_state(step, value=step), extras={'n': step}, metrics=metrics
      )


def steps(path):
  return sorted(int(p.name) for p in (path / 'checkpoints').iterdir())


def test_restored_equals_saved(tmp_path):
  state = make_state(5, value=2.5)
  with open_checkpoints(tmp_path) as saved:
    saved.save(state, extras={})
    saved.wait()
    restored = saved.restore(make_state())
  assert jax.tree.structure(restored) == jax.tree.structure(state)
  jax.tree.map(np.testing.assert_array_equal, restored, state)
  # Laid out alike, or the step would compile again.
  layout = jax.tree.map(lambda x: x.sharding, (restored, state))
  assert layout[0] == layout[1]


def test_restore_of_nothing_is_the_state_itself(tmp_path):
  state = make_state()
  with open_checkpoints(tmp_path) as saved:
    assert saved.restore(state) is state


@pytest.mark.parametrize(('mode', 'best'), [('max', 2), ('min', 3)])
def test_best_and_latest_are_kept(tmp_path, mode, best):
  save_all(tmp_path, {1: 2.0, 2: 3.0, 3: 1.0, 4: 2.0, 5: None}, mode)
  assert steps(tmp_path) == [best, 5]
  variables, extras, step = checkpoints.load(
    tmp_path, best_metric='score', mode=mode
  )
  assert step == extras['n'] == best
  assert variables['params']['a'][0] == best
  np.testing.assert_array_equal(variables['batch_stats']['b'], [best, best])


def test_without_evaluation_the_latest_is_loaded(tmp_path):
  save_all(tmp_path, {1: None, 2: None})
  assert checkpoints.load(tmp_path, best_metric='score')[2] == 2


def test_metrics_can_be_added_to_the_latest(tmp_path):
  save_all(tmp_path, {1: None})
  with open_checkpoints(tmp_path) as saved:
    assert not saved.evaluated(1)
    saved.save(make_state(1), extras={}, metrics={'score': 1.0})
    saved.wait()
    assert saved.evaluated(1)


def test_adding_metrics_leaves_what_is_there_in_place(tmp_path):
  save_all(tmp_path, {1: None})
  directory = tmp_path / 'checkpoints' / '1'
  before = {path.name: path.stat().st_ino for path in directory.iterdir()}
  save_all(tmp_path, {1: 2.0, 2: 1.0, 3: None})
  after = {path.name: path.stat().st_ino for path in directory.iterdir()}
  # A process that is killed meanwhile has not lost its only checkpoint.
  assert before.items() < after.items()
  assert after.keys() - before.keys() == {'metrics'}
  # And it counts: the second was worse.
  assert steps(tmp_path) == [1, 3]
  assert checkpoints.load(tmp_path, best_metric='score')[2] == 1


def test_half_written_checkpoint_is_not_taken_for_one(tmp_path):
  save_all(tmp_path, {1: 1.0})
  half = tmp_path / 'checkpoints' / '2.orbax-checkpoint-tmp-7'
  half.mkdir()
  with open_checkpoints(tmp_path) as saved:
    assert saved.latest_step == 1


def test_checkpoint_of_another_model_is_refused(tmp_path):
  save_all(tmp_path, {1: 1.0})
  with open_checkpoints(tmp_path) as saved:
    with pytest.raises(ValueError, match=r"'a'\] is \(3,\) there, \(4,\) here"):
      saved.restore(make_state(size=4))


def test_all_differences_of_two_models_are_listed(tmp_path):
  saved = {
    'params': {'a': np.zeros(3), 'b': np.zeros((2, 4)), 'c': np.zeros(1)}
  }
  checkpoints.check_shapes(saved, jax.eval_shape(lambda: saved), tmp_path)
  wanted = {
    'params': {'b': np.zeros((2, 5)), 'c': np.zeros(1)},
    'd': np.zeros(()),
  }
  with pytest.raises(ValueError) as error:
    checkpoints.check_shapes(saved, wanted, tmp_path / '7')
  message = str(error.value)
  assert message.startswith(f'{tmp_path}/7 is of another model: ')
  for difference in (
    "['params']['a'] is (3,) there, absent here",
    "['params']['b'] is (2, 4) there, (2, 5) here",
    "['d'] is absent there, () here",
  ):
    assert difference in message
  assert "'c'" not in message


def test_load_from_nowhere_says_so(tmp_path):
  with pytest.raises(FileNotFoundError, match='train there first'):
    checkpoints.load(tmp_path / 'x', best_metric='score')


def test_unknown_mode():
  with pytest.raises(ValueError, match="best_mode='most'"):
    checkpoints.Checkpoints('/nowhere', best_metric='x', mode='most')


def test_write_json_leaves_nothing_beside(tmp_path):
  checkpoints.write_json(tmp_path / 'a' / 'x.json', {'b': 1})
  assert json.loads((tmp_path / 'a' / 'x.json').read_text()) == {'b': 1}
  assert len(list((tmp_path / 'a').iterdir())) == 1


def test_a_checkpoint_of_an_earlier_version_is_refused(tmp_path, monkeypatch):
  """Its arrays had other names."""
  old = {'params': {'w': np.ones(2)}, 'statistics': {}, 'average': None}
  monkeypatch.setattr(checkpoints, '_model', lambda state: old)
  with checkpoints.Checkpoints(tmp_path, best_metric='score') as saved:
    saved.save(make_state(3), extras={}, metrics={'score': 1.0})
  monkeypatch.undo()
  message = r'checkpoints/3 .*`statistics` and `average` are `model_state` and'
  with pytest.raises(ValueError, match=message):
    checkpoints.load(tmp_path, best_metric='score')
  with checkpoints.Checkpoints(tmp_path, best_metric='score') as saved:
    with pytest.raises(ValueError, match=message):
      saved.restore(make_state(0))
