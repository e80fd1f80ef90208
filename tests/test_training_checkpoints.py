"""What is saved comes back; best and latest stay; strangers are refused."""

import json
import shutil
import sys
import zlib
from logging import StreamHandler

import jax
import numpy as np
import optax
import pytest

from training import checkpoints
from training import parallel
from training import released


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


def forget_digests(path, step):
  """Makes a checkpoint one of an earlier version."""
  directory = path / 'checkpoints' / str(step)
  shutil.rmtree(directory / 'digests')
  listed = directory / '_CHECKPOINT_METADATA'
  content = json.loads(listed.read_text())
  del content['item_handlers']['digests']
  listed.write_text(json.dumps(content))


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


@pytest.mark.parametrize(
  ('mode', 'score', 'kept'),
  [('max', 3.0, [2]), ('max', 1.0, [1, 2]), ('min', 2.0, [2])],
)
def test_metrics_that_come_later_decide_what_is_kept(
  tmp_path, mode, score, kept
):
  save_all(tmp_path, {1: 2.0, 2: None}, mode)
  assert steps(tmp_path) == [1, 2]
  with open_checkpoints(tmp_path, mode) as saved:
    saved.save(make_state(2), extras={}, metrics={'score': score})
  assert steps(tmp_path) == kept


def test_what_a_killed_process_has_not_deleted_is_deleted(tmp_path):
  save_all(tmp_path / 'a', {1: 1.0})
  save_all(tmp_path / 'b', {2: 3.0, 3: 2.0})
  old = tmp_path / 'b' / 'checkpoints' / '1'
  shutil.copytree(tmp_path / 'a' / 'checkpoints' / '1', old)
  with open_checkpoints(tmp_path / 'b') as saved:
    saved.restore(make_state())
  assert steps(tmp_path / 'b') == [2, 3]


def test_half_written_checkpoint_is_not_taken_for_one(tmp_path):
  save_all(tmp_path, {1: 1.0})
  half = tmp_path / 'checkpoints' / '2.orbax-checkpoint-tmp-7'
  half.mkdir()
  with open_checkpoints(tmp_path) as saved:
    assert saved.latest_step == 1


def test_checkpoint_of_another_model_is_refused(tmp_path):
  save_all(tmp_path, {1: 1.0})
  with open_checkpoints(tmp_path) as saved:
    with pytest.raises(
      ValueError,
      match=r'model/params/a is float32\[3\] there, float32\[4\] here',
    ):
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
    'params/a is (3,) there, absent here',
    'params/b is (2, 4) there, (2, 5) here',
    '. d is absent there, () here',
  ):
    assert difference in message
  assert 'params/c' not in message


def test_load_from_nowhere_says_so(tmp_path):
  with pytest.raises(FileNotFoundError, match='train there first'):
    checkpoints.load(tmp_path / 'x', best_metric='score')


def test_unknown_mode(tmp_path):
  with pytest.raises(ValueError, match="best_mode='most'"):
    open_checkpoints(tmp_path, 'most')


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
  forget_digests(tmp_path, 3)
  message = r'checkpoints/3 .*`statistics` and `average` are `model_state` and'
  with pytest.raises(ValueError, match=message):
    checkpoints.load(tmp_path, best_metric='score')
  with checkpoints.Checkpoints(tmp_path, best_metric='score') as saved:
    with pytest.raises(ValueError, match=message):
      saved.restore(make_state(0))


# Damage. When Orbax fails to read an array, its threads find its loop closed.
broken_reads = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)


def contents(tree):
  """All arrays, to the last bit."""
  return jax.tree.map(lambda x: (str(x.dtype), x.shape, x.tobytes()), tree)


@broken_reads
def test_no_flipped_bit_goes_unnoticed(tmp_path):
  """It is an error, or it changes nothing that is read."""
  state = make_state(1, size=400)  # Too large to lie in the index of Orbax.
  noise = np.random.default_rng(1).normal(size=400).astype(np.float32)
  state = state.replace(params={'a': parallel.replicate(noise)})
  with open_checkpoints(tmp_path) as saved:
    saved.save(state, extras={'n': 1}, metrics={'score': 1.0})
  directory = tmp_path / 'checkpoints' / '1'
  expected = checkpoints.load(tmp_path, best_metric='score')
  items, _ = checkpoints._read(directory)
  rng = np.random.default_rng(0)
  noticed, by_digest = {}, 0
  for path in sorted(p for p in directory.rglob('*') if p.is_file()):
    content = path.read_bytes()
    name = str(path.relative_to(directory))
    for position in rng.permutation(len(content))[:8]:
      damaged = bytearray(content)
      damaged[position] ^= 1 << rng.integers(8)
      path.write_bytes(damaged)
      good = True
      try:
        read, _ = checkpoints._read(directory)
        assert contents(read) == contents(items)
      except checkpoints.Damaged as error:
        assert str(directory) in str(error)
        noticed[name] = noticed.get(name, 0) + 1
        by_digest += 'differ from their digests' in str(error)
        good = False
      try:  # Reads less.
        found = checkpoints.load(tmp_path, best_metric='score')
        assert found[1:] == expected[1:]
        assert contents(found[0]) == contents(expected[0])
      except checkpoints.Damaged as error:
        assert 'no checkpoint is good' in str(error) and not good
    path.write_bytes(content)
  for name in ('extras/metadata', 'metrics/metrics', 'digests/metadata'):
    assert noticed[name] == 8
  # Orbax alone notices the others, and some bytes are never read.
  assert by_digest >= 5


def empty(directory):
  shutil.rmtree(directory)
  directory.mkdir()


def flip(directory):
  """Flips a bit in each file of the optimizer state."""
  for path in (directory / 'training').glob('**/d/*'):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(directory):
  """As by a full disk while it was copied."""
  for path in (directory / 'model').rglob('*'):
    if path.is_file():
      path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def lose_digests(directory):
  shutil.rmtree(directory / 'digests')


def lose_metrics(directory):
  shutil.rmtree(directory / 'metrics')


def change_extras(directory):
  (directory / 'extras' / 'metadata').write_text('{"n": 8}')


def break_metrics(directory):
  (directory / 'metrics' / 'metrics').write_text('{"score": 9.0')


DAMAGES = (
  empty,
  flip,
  truncate,
  lose_digests,
  lose_metrics,
  change_extras,
  break_metrics,
)


@broken_reads
@pytest.mark.parametrize('damage', DAMAGES)
def test_the_newest_good_checkpoint_is_used(tmp_path, damage, caplog):
  save_all(tmp_path, {1: 2.0, 7: 1.0})
  damage(tmp_path / 'checkpoints' / '7')
  with open_checkpoints(tmp_path) as saved:
    restored = saved.restore(make_state())
    assert saved.latest_step == 1 and saved.best_score == 2.0
    # And on from there, to the same step again.
    saved.save(make_state(7, value=9), extras={'n': 9}, metrics={'score': 3.0})
  assert int(restored.step) == restored.params['a'][0] == 1
  assert [path.name for path in (tmp_path / 'damaged').iterdir()] == ['7']
  (warning,) = [r for r in caplog.records if 'is damaged' in r.getMessage()]
  text = warning.getMessage()
  assert text.startswith(f'{tmp_path}/checkpoints/7') and 'moved to' in text
  assert checkpoints.load(tmp_path, best_metric='score')[1:] == ({'n': 9}, 7)


@broken_reads
@pytest.mark.parametrize('damage', (empty, truncate, change_extras))
def test_the_best_good_checkpoint_is_loaded(tmp_path, damage, caplog):
  save_all(tmp_path, {3: 2.0, 5: None})
  save_all(tmp_path, {7: 1.0})
  damage(tmp_path / 'checkpoints' / '3')
  assert checkpoints.load(tmp_path, best_metric='score')[1:] == ({'n': 7}, 7)
  assert f'{tmp_path}/checkpoints/3' in caplog.text
  assert f'loading {tmp_path}/checkpoints/7' in caplog.text
  assert steps(tmp_path) == [3, 7]  # Reading moves nothing.


@broken_reads
@pytest.mark.parametrize('damage', (empty, flip, break_metrics))
def test_without_a_good_checkpoint_it_stops(tmp_path, damage):
  save_all(tmp_path, {3: 2.0, 7: 1.0})
  for step in (3, 7):
    damage(tmp_path / 'checkpoints' / str(step))
  for _ in range(2):  # Nothing is begun anew at the second start either.
    with pytest.raises(checkpoints.Damaged, match='no checkpoint is good'):
      with open_checkpoints(tmp_path) as saved:
        saved.restore(make_state())
  assert steps(tmp_path) == [3, 7]


@broken_reads
def test_a_damaged_checkpoint_is_not_the_last_good_one(tmp_path):
  with open_checkpoints(tmp_path) as saved:
    assert saved.last_good() is None
    saved.save(make_state(3), extras={}, metrics={'score': 2.0})
    saved.save(make_state(7), extras={}, metrics={'score': 1.0})
    assert saved.last_good() == 7
    flip(tmp_path / 'checkpoints' / '7')
    assert saved.last_good() == 3


def test_another_optimizer_is_named(tmp_path):
  save_all(tmp_path, {1: 1.0})
  state = make_state()
  state = state.replace(
    opt_state=optax.sgd(0.1, momentum=0.9).init(state.params)
  )
  with open_checkpoints(tmp_path) as saved:
    with pytest.raises(
      ValueError, match='training/opt_state/0/count is int32.* there, absent'
    ):
      saved.restore(state)
  assert steps(tmp_path) == [1]


def test_a_checkpoint_without_digests_is_taken_with_a_warning(tmp_path, caplog):
  save_all(tmp_path, {1: 1.0})
  forget_digests(tmp_path, 1)
  assert checkpoints.load(tmp_path, best_metric='score')[2] == 1
  with open_checkpoints(tmp_path) as saved:
    assert int(saved.restore(make_state()).step) == 1
    with pytest.raises(ValueError, match='is of another model'):
      saved.restore(make_state(size=4))
  assert 'without digests: damage to it would not be noticed' in caplog.text


def test_a_checkpoint_that_is_replaced_meanwhile_is_no_damage(
  tmp_path, monkeypatch, caplog
):
  """An evaluation reads beside the training."""
  save_all(tmp_path, {1: 1.0})
  read = checkpoints._read_json

  def replace_first(path):
    monkeypatch.undo()
    save_all(tmp_path, {2: 3.0})
    return read(path)

  monkeypatch.setattr(checkpoints, '_read_json', replace_first)
  assert checkpoints.load(tmp_path, best_metric='score')[2] == 2
  assert 'damaged' not in caplog.text
  assert [p.name for p in (tmp_path / 'checkpoints').iterdir()] == ['2']


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'int32'])
def test_the_digest_of_a_large_array_depends_on_every_bit(dtype):
  count = 3 * checkpoints._ROW * checkpoints._ROWS // 4 + 5
  x = np.random.default_rng(0).normal(size=count).astype(np.float32)
  x = x.astype(jax.numpy.dtype(dtype))
  digest = checkpoints._digest(x)
  assert digest == checkpoints._digest(x.copy().reshape(-1, 1))
  data = x.view(np.uint8)
  for position in (0, 1, 8191, 8192, 600_001, len(data) - 9, len(data) - 1):
    for bit in (1, 128):
      data[position] ^= bit
      assert checkpoints._digest(x) != digest
      data[position] ^= bit
  assert checkpoints._digest(x) == digest


def test_digests_of_known_arrays():
  """Those of a file that was written must not change."""
  tree = {'b': (np.float32(1.5), np.arange(6, dtype=np.int32).reshape(2, 3))}
  assert checkpoints._digests(tree) == {
    'b/0': 'float32[] ' + f'{zlib.crc32(bytes([0, 0, 0xC0, 0x3F])):08x}',
    'b/1': 'int32[2, 3] 850cf83d',
  }
  ones = np.ones(2 * checkpoints._ROW * checkpoints._ROWS, np.uint8)
  sums = bytes([64] * checkpoints._ROW)
  assert checkpoints._digest(ones) == zlib.crc32(sums + sums)


@broken_reads
def test_verify_lists_what_is_good(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(sys, 'unraisablehook', sys.unraisablehook)
  monkeypatch.setattr(checkpoints.logging, 'get_absl_handler', StreamHandler)
  with pytest.raises(FileNotFoundError, match='holds no checkpoint'):
    checkpoints.main(['verify', str(tmp_path)])
  save_all(tmp_path, {3: 2.0, 7: None})
  assert checkpoints.main(['verify', str(tmp_path)]) == 0
  lines = capsys.readouterr().out.splitlines()
  # params, ema_params, mu and nu of 3, batch_stats of 2; step and count.
  assert lines == [
    f'{tmp_path}/checkpoints/3: good, 7 arrays, 0.0 MB, score 2',
    f'{tmp_path}/checkpoints/7: good, 7 arrays, 0.0 MB',
  ]
  flip(tmp_path / 'checkpoints' / '7')
  forget_digests(tmp_path, 3)
  assert checkpoints.main(['verify', str(tmp_path)]) == 1
  old, damaged = capsys.readouterr().out.splitlines()
  assert 'checkpoints/3: readable, but without digests, 7 arrays' in old
  assert damaged.startswith(f'{tmp_path}/checkpoints/7 is damaged: ')
  with open_checkpoints(tmp_path) as saved:
    saved.restore(make_state())
  assert checkpoints.main(['verify', str(tmp_path)]) == 0
  assert f'{tmp_path}/damaged/7: moved aside' in capsys.readouterr().out


def test_verify_reads_released_models(capsys, monkeypatch, tmp_path):
  monkeypatch.setattr(sys, 'unraisablehook', sys.unraisablehook)
  monkeypatch.setattr(checkpoints.logging, 'get_absl_handler', StreamHandler)
  name = released.names()[0]
  assert checkpoints.main(['verify', name]) == 0
  assert name in capsys.readouterr().out
  shutil.copytree(released.path(name), tmp_path / 'copy')
  path = tmp_path / 'copy' / released.WEIGHTS
  content = bytearray(path.read_bytes())
  content[-1] ^= 1
  path.write_bytes(content)
  assert checkpoints.main(['verify', str(tmp_path / 'copy')]) == 1
  assert 'has other numbers than were released' in capsys.readouterr().out
