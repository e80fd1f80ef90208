"""The search of settings: the best is found, and the test split is not read."""

import json
import pathlib

import pytest

from tables import published
from tables import runs as runs_lib
from tables import search as search_lib

ROOT = pathlib.Path(__file__).parents[1]
TABLE = published.TABLES['flickr8k']

# How ml_collections reads a config.
pytestmark = pytest.mark.filterwarnings(
  'ignore:the load_module:DeprecationWarning'
)


class Trained:
  """Leaves the files of a run whose score is a function of its config.

  The best dropout is 0.3, and better the more of the labels is smoothed; on the
  test split it is the other way round.
  """

  def __init__(self, fails_at=None):
    self.calls = []
    self.fails_at = fails_at

  def __call__(self, words):
    self.calls.append(words)
    if len(self.calls) == self.fails_at:
      return 143
    config = runs_lib.load_config(words)
    assert config.num_steps == 7
    score = 1 - abs(config.decoder.dropout_rate - 0.3)
    score += config.loss.label_smoothing
    (workdir,) = [x for x in words if x.startswith('--workdir=')]
    workdir = pathlib.Path(workdir.partition('=')[2])
    workdir.mkdir(parents=True)
    lines = [
      {'step': 2, 'train/cpu_seconds': 3, 'train/loss': 1},
      {'step': 3, 'validation/CIDEr': score},
      {'step': 6, 'validation/CIDEr': score - 0.5},
    ]
    text = ''.join(json.dumps(line) + '\n' for line in lines)
    (workdir / 'metrics.jsonl').write_text(text)
    results = {'test': {'scores': {'CIDEr': -score}}}
    (workdir / 'results.json').write_text(json.dumps(results))
    return 0


@pytest.fixture
def make(tmp_path, monkeypatch):
  monkeypatch.chdir(ROOT)
  return lambda run, row='soft': search_lib.Search(
    *(TABLE, TABLE.row(row), tmp_path),
    fixed={'num_steps': '7'},
    run=run,
  )


TRIES = {
  'decoder.dropout_rate': ['0.1', '0.3', '0.5', '0.7'],
  'loss.label_smoothing': ['0.0', '0.2'],
}


def test_one_field_after_the_other_is_set_to_its_best(make, tmp_path):
  run = Trained()
  best = make(run)(TRIES)
  assert best == {'decoder.dropout_rate': '0.3', 'loss.label_smoothing': '0.2'}
  lines = (tmp_path / 'search.jsonl').read_text().splitlines()
  lines = [json.loads(line) for line in lines]
  # The config as it is, the other values of each field.
  assert len(lines) == len(run.calls) == 1 + 3 + 2
  assert lines[0]['settings'] == {}
  assert lines[0]['CIDEr'] == pytest.approx(1 - 0.2 + 0.1)
  assert lines[-1]['settings'] == best
  assert lines[-1]['CIDEr'] == pytest.approx(1.2)
  assert (lines[-1]['step'], lines[-1]['cpu_seconds']) == (3, 3)
  assert all((tmp_path / line['workdir']).is_dir() for line in lines)
  # Again: nothing is trained, and the log is the same.
  assert make(Trained(fails_at=1))(TRIES) == best
  assert len((tmp_path / 'search.jsonl').read_text().splitlines()) == 6


def test_a_search_that_was_stopped_goes_on(make):
  with pytest.raises(RuntimeError, match='ended with 143; the same command'):
    make(Trained(fails_at=4))(TRIES)
  run = Trained()
  assert make(run)(TRIES)['decoder.dropout_rate'] == '0.3'
  assert len(run.calls) == 6 - 3


def test_mistakes_are_errors_before_any_run(make):
  run = Trained()
  with pytest.raises(ValueError, match='decoder.colour=3'):
    make(run)({**TRIES, 'decoder.colour': ['3']})
  assert not run.calls
  with pytest.raises(ValueError, match='starts from soft: search that'):
    make(run, 'soft_self_critical')


def test_the_command_names_what_there_is(monkeypatch, capsys):
  monkeypatch.chdir(ROOT)
  for arguments, message in (
    (['--table=flickr9k', '--row=soft'], 'there are only'),
    (['--table=flickr8k', '--row=loud'], 'there are only soft, soft_self'),
  ):
    with pytest.raises(SystemExit):
      search_lib.main([*arguments, '--try', 'loss.label_smoothing=0.1'])
    assert message in capsys.readouterr().err
