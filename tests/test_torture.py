"""The table of the torture, and a slice of it.

That of the readers is in test_readers.py, and the kills of the other mains are
in their own tests.
"""

import json
import os
import signal
import time

import pytest
from torture import kills
from torture import kinds
from torture import processes
from torture import runs
from torture import table


def test_the_table_counts_what_came_out():
  results = [
    table.Result(
      'b/1',
      [
        table.Outcome('kill', 'right', 1200),
        table.Outcome('kill', 'silent', text='other numbers'),
        table.Outcome('flip', 'missed'),
      ],
      1.5,
    ),
    table.Result('b/2', [table.Outcome('kill', 'wrong', 2, 'a trace')], 2),
  ]
  rows = table.rows(results)
  assert rows == [
    dict(check='kill', tried=1203, right=1200, silent=1, wrong=2, missed=0),
    dict(check='flip', tried=0, right=0, silent=0, wrong=0, missed=1),
  ]
  assert table.markdown(rows).splitlines() == [
    '| check | tried | right | silent | wrong |',
    '|---|---|---|---|---|',
    '| kill | 1,203 | 1,200 | 1 | 2 |',
    '| flip | 0 | 0 | 0 | 0 |',
    '| all | 1,203 | 1,200 | 1 | 2 |',
  ]
  found = table.failures(results, 7)
  assert [one['text'] for one in found] == ['other numbers', 'a trace']
  assert found[1]['repeat'] == "make torture TORTURE='--seed=7 --case=b/2'"


def test_the_numbers_of_a_case_are_its_own():
  first, again, other, name = (
    table.generator(seed, name).integers(2**60)
    for seed, name in ((0, 'a'), (0, 'a'), (1, 'a'), (0, 'b'))
  )
  assert first == again
  assert len({first, other, name}) == 3


def count(directory, shared, rng):
  (directory / 'file').write_text('x')
  (shared / 'seen').write_text('x')
  yield table.Outcome('count', 'right', int(rng.integers(1, 100)))


def fail(directory, shared, rng):
  raise ArithmeticError('no number')


def crash(directory, shared, rng):
  os.kill(os.getpid(), signal.SIGTERM)


def hang(directory, shared, rng):
  time.sleep(1000)


# These forks compute nothing; those of `make torture` leave a process in which
# JAX has not started.
@pytest.mark.filterwarnings(
  'ignore:.*use of fork:DeprecationWarning',
  r'ignore:os\.fork\(\) was called:RuntimeWarning',
)
def test_a_case_that_crashes_takes_nobody_with_it(tmp_path, monkeypatch):
  monkeypatch.setattr(processes, 'PATIENCE', 2)
  cases = [table.Case(f.__name__, f) for f in (hang, count, fail, crash)]
  results = {
    one.name: one.outcomes
    for one in processes.run(cases, tmp_path, seed=3, jobs=2)
  }
  expected = int(table.generator(3, 'count').integers(1, 100))
  assert results['count'] == [table.Outcome('count', 'right', expected)]
  assert [results[name][0].kind for name in ('fail', 'crash', 'hang')] == [
    'wrong'
  ] * 3
  assert 'no number' in results['fail'][0].text
  assert 'status -15' in results['crash'][0].text
  assert 'status -9' in results['hang'][0].text
  # What went well is gone, and the rest is there to be looked at.
  assert {path.name for path in tmp_path.iterdir()} == {
    *('shared', 'fail', 'crash', 'hang')
  }
  assert 'no number' in (tmp_path / 'fail' / 'output.txt').read_text()
  assert json.loads((tmp_path / 'fail' / 'outcomes.json').read_text())


def test_a_full_table_has_all_that_is_promised():
  """Sixty kills of five mains, 200 flips of each kind, every reader."""
  cases = kinds.cases(None, quick=False)
  names = [case.name for case in cases]
  assert len({*names}) == len(names)
  killed = [
    case.run.args
    for case in cases
    if case.name.startswith('kills/') and 'SIGKILL' in case.name
  ]
  assert sum(len(moments) for _, _, moments in killed) == 60
  assert {runs.MAINS[name].module for name, _, _ in killed} == {
    *('captioning.main', 'sketch_rnn.main'),
    *('video.classify', 'video.caption', 'video.track'),
  }
  assert {m for _, _, moments in killed for m in moments} == {*runs.MOMENTS}
  flips = {}
  for case in cases:
    if case.name.startswith('damage/'):
      kind = case.name.split('/')[1]
      flips[kind] = flips.get(kind, 0) + case.run.args[-1]
  assert min(flips.values()) >= 200 and len(flips) == 3
  quick = [case.name for case in kinds.cases(None, quick=True)]
  assert len(quick) < len(names)
  with pytest.raises(ValueError, match='none of kills, '):
    kinds.cases('noise', quick=True)


def test_a_run_that_is_killed_twice_ends_as_one_left_alone(tmp_path):
  name = 'video.track'
  run = kills.stop(
    name,
    signal.SIGKILL,
    ('step', 'save'),
    tmp_path / 'run',
    tmp_path / 'shared',
    table.generator(0, name),
  )
  outcomes = list(run)
  # The run may be over before the second moment.
  kinds_of = [outcome.kind for outcome in outcomes if not outcome.text]
  assert kinds_of in (['right'] * 2, ['right', 'missed']), outcomes
