"""The tables: what they print of results, the commands, what can be run."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from captioning import data as captions_lib
from captioning import model as captioners
from captioning import scenes
from captioning import sources
from sketch_rnn import model as sketch_model
from training import optimizers

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / 'scripts'))

import published_tables  # noqa: E402
import reproduce_tables  # noqa: E402
import table_runs  # noqa: E402

# How ml_collections reads a config.
pytestmark = pytest.mark.filterwarnings(
  'ignore:the load_module:DeprecationWarning'
)

TABLES = published_tables.TABLES
ROWS = {
  f'{table.name}/{row.name}': (table, row)
  for table in TABLES.values()
  for row in table.rows
}


@pytest.fixture(autouse=True)
def checkout(monkeypatch):
  """Commands name configs as somebody in the checkout does."""
  monkeypatch.chdir(ROOT)


@pytest.fixture
def ucm(tmp_path):
  return table_runs.Place(TABLES['ucm'], tmp_path / 'tables')


def write_results(place, row, seed, scores, **changed):
  """What a run leaves of its test split."""
  config = table_runs.load_config(place.arguments(row, seed)).to_dict()
  entry = {
    'scores': scores,
    'seed': seed,
    'step': 600,
    'commit': 'abc',
    'hardware': '2 x cpu',
    'num_pictures': 210,
    'training_seconds': 60.0 * (20 + seed),
    'config': config,
    **changed,
  }
  workdir = place.workdir(row, seed)
  workdir.mkdir(parents=True)
  (workdir / 'results.json').write_text(json.dumps({'test': entry}))


def line_of(text, label):
  """The cells of the row of a table."""
  (line,) = [x for x in text.splitlines() if x.startswith(f'| {label} |')]
  return [cell.strip() for cell in line.strip('|').split('|')]


def reported(place, seeds=(0, 1, 2), reasons=None):
  measured = [
    reproduce_tables.measure(place, row, seeds) for row in place.table.rows
  ]
  return reproduce_tables.markdown(place, measured, seeds, reasons or {})


# The rows.


@pytest.mark.parametrize('name', ROWS)
def test_every_command_makes_a_model(name):
  table, row = ROWS[name]
  place = table_runs.Place(table, pathlib.Path('runs'))
  config = table_runs.load_config(place.arguments(row, 3))
  assert config.seed == 3
  optimizers.create(config.optimizer, config.num_steps)
  if table.module == 'captioning.main':
    captioners.create(config, 10, with_encoder=False)
    start = (
      place.workdir(table.row(row.start_from), 3) if row.start_from else ''
    )
    assert config.start_from == str(start)
    assert bool(config.self_critical.num_samples) == ('critical' in row.name)
  else:
    sketch_model.SketchRNN(**config.model)


@pytest.mark.parametrize('table', TABLES.values(), ids=TABLES)
def test_rows_are_consistent(table):
  names = [row.name for row in table.rows]
  assert len(set(names)) == len(names)
  assert len({row.label for row in table.rows}) == len(names)
  for i, row in enumerate(table.rows):
    # Before it in the table, and of the same photographs.
    assert not row.start_from or row.start_from in names[:i]
    assert not row.start_from or table.row(row.start_from).data == row.data


@pytest.mark.parametrize('name', ROWS)
def test_published_numbers_are_possible(name):
  table, row = ROWS[name]
  for published in row.published:
    assert published.origin in ('code', 'read', 'memory')
    assert set(published.scores) <= set(table.columns.values())
    assert set(published.recalled) <= set(published.scores)
    for score, value in published.scores.items():
      if table.module == 'captioning.main':
        # CIDEr is at most 10, and in papers 1000.
        assert 0 < value <= (1000 if score == 'CIDEr' else 100)
      else:
        assert (-2 < value < 0) if score == 'reconstruction' else 0 < value < 2
    bleu = [published.scores.get(score) for score in published_tables.BLEU]
    bleu = [value for value in bleu if value is not None]
    assert bleu == sorted(bleu, reverse=True)


def test_a_field_that_is_not_there_is_an_error(ucm):
  place = table_runs.Place(ucm.table, ucm.workdirs, ('decoder.colour=3',))
  with pytest.raises(ValueError, match='decoder.colour=3'):
    table_runs.load_config(place.arguments(ucm.table.rows[0], 0))


# What is printed.


def test_measured_is_the_mean_and_deviation_of_the_results(ucm, tmp_path):
  row = ucm.table.row('soft')
  scores = [
    {'BLEU-4': 0.61, 'CIDEr': 3.1, 'METEOR': 0.4},
    {'BLEU-4': 0.64, 'CIDEr': 3.3},
    {'BLEU-4': 0.66, 'CIDEr': 3.35, 'METEOR': 0.42},
  ]
  for seed, values in enumerate(scores):
    write_results(ucm, row, seed, values)
  text = reproduce_tables.report(ucm, [0, 1, 2], tmp_path / 'out', {})
  cells = dict(
    zip(
      ['', *ucm.table.columns, 'seeds', 'time'],
      line_of(text, f'**{row.label}**'),
      strict=True,
    )
  )
  (found,) = [
    x
    for x in json.loads((tmp_path / 'out/ucm.json').read_text())['rows']
    if x['row']['name'] == 'soft'
  ]
  for name in ('BLEU-4', 'CIDEr'):
    values = 100 * np.array([x[name] for x in scores])
    mean, std = values.mean(), values.std(ddof=1)
    assert cells[name] == f'{mean:.2f} ± {std:.2f}'
    assert found['mean'][name] == pytest.approx(mean, rel=1e-12)
    assert found['std'][name] == pytest.approx(std, rel=1e-12)
  assert cells['METEOR'] == '-'  # One run has none.
  assert (cells['seeds'], cells['time']) == ('3', '20, 21, 22 min')
  assert [run['scores'] for run in found['runs']] == scores
  below = text[text.index(f'**{row.label}**') :].splitlines()[1]
  assert below.startswith('| published: Lu et al. 2018')
  assert '| 52.5† |' in below and 'unconfirmed' in text
  assert found['notes'] == {}
  assert (tmp_path / 'out/ucm.md').read_text() == text
  picture = (tmp_path / 'out/ucm.png').read_bytes()
  assert picture.startswith(b'\x89PNG') and len(picture) > 10_000


def test_one_run_has_no_deviation(ucm):
  row = ucm.table.row('att2in')
  write_results(ucm, row, 1, {'CIDEr': 3.0}, training_seconds=None)
  cells = line_of(reported(ucm), f'**{row.label}**')
  assert cells[-3:] == ['300.00', '1', '-']


def test_what_differs_from_the_row_is_told(ucm):
  row = ucm.table.row('soft')
  shorter = table_runs.Place(ucm.table, ucm.workdirs, ('num_steps=7',))
  write_results(shorter, row, 0, {'CIDEr': 1.0})
  write_results(ucm, row, 1, {'CIDEr': 1.0}, num_pictures=9)
  write_results(ucm, row, 2, {'CIDEr': 1.0}, config=None)
  text = reported(ucm)
  expected = table_runs.load_config(ucm.arguments(row, 0)).num_steps
  label = f'- {row.label}, seed'
  assert f'{label} 0: num_steps=7 instead of {expected}.\n' in text
  assert f'{label} 1: a subset: 9 of the 210 test examples' in text
  assert f'{label} 2: the config of the run is not known.\n' in text
  assert text.count(label) == 3


@pytest.mark.parametrize('name', TABLES)
def test_rows_that_were_not_run_say_so_with_their_commands(name, tmp_path):
  # With what a shell might take apart.
  place = table_runs.Place(
    TABLES[name], tmp_path / "it's here", ('dtype=$A B',)
  )
  text = reported(place, seeds=(0, 4))
  for row in place.table.rows:
    assert line_of(text, f'**{row.label}**')[1] == 'not run'
  script = text.split('```')[1]
  say = 'python() { printf "%s\\n" "$@" END; }\n'
  said = subprocess.run(
    ['bash', '-c', say + script], capture_output=True, text=True, check=True
  )
  assert said.stdout.split('END\n')[:-1] == [
    ''.join(f'{word}\n' for word in place.arguments(row, seed))
    for row in place.table.rows
    for seed in (0, 4)
  ]


def test_only_the_missing_seeds_are_commanded(ucm):
  row = ucm.table.row('up_down')
  write_results(ucm, row, 0, {'CIDEr': 1.0})
  write_results(ucm, row, 2, {'CIDEr': 1.0})
  text = reported(ucm)
  command = f'python {" ".join(ucm.arguments(row, 1))}'
  assert f'# {row.label}\n{command}\n' in text


# What is run.


class Runner:
  """Does what a main does: leaves results, or ends with a status."""

  def __init__(self, place, statuses=None):
    self.place, self.statuses, self.ran = place, statuses or {}, []

  def __call__(self, words):
    row, seed = next(
      (row, seed)
      for row in self.place.table.rows
      for seed in (0, 1)
      if self.place.arguments(row, seed) == words
    )
    self.ran.append((row.name, seed))
    if (row.name, seed) in self.statuses:
      return self.statuses[row.name, seed]
    write_results(self.place, row, seed, {'CIDEr': 1.0})
    return 0


def run(place, names, runner, found=None):
  return table_runs.run_missing(
    place,
    table_runs.select(place.table, names),
    [0, 1],
    run=runner,
    find_obstacles=lambda place, row: list((found or {}).get(row.name, ())),
  )


def test_a_row_runs_after_what_it_starts_from(ucm):
  runner = Runner(ucm)
  reasons = run(ucm, ['hard', 'att2in_self_critical'], runner)
  names = ['hard', 'att2in', 'att2in_self_critical']
  assert runner.ran == [(name, seed) for seed in (0, 1) for name in names]
  assert not any(reasons.values())
  again = Runner(ucm)
  run(ucm, ['hard', 'att2in_self_critical'], again)
  assert again.ran == []


def test_all_rows_run_unless_some_are_named(ucm):
  assert table_runs.select(ucm.table, []) == list(ucm.table.rows)
  with pytest.raises(ValueError, match="no row 'harder'"):
    table_runs.select(ucm.table, ['harder'])


def test_finished_runs_are_skipped(ucm):
  write_results(ucm, ucm.table.row('att2in'), 1, {'CIDEr': 1.0})
  runner = Runner(ucm)
  run(ucm, ['att2in'], runner)
  assert runner.ran == [('att2in', 0)]


def test_what_failed_keeps_only_those_that_start_from_it(ucm):
  runner = Runner(ucm, {('att2in', 0): 1})
  reasons = run(ucm, ['att2in_self_critical', 'up_down'], runner)
  assert runner.ran == [('att2in', 0), ('up_down', 0), ('up_down', 1)]
  assert reasons['att2in'] == ['the run of seed 0 ended with 1']


def test_a_run_that_was_stopped_stops_the_others(ucm):
  runner = Runner(ucm, {('att2in', 0): 0})
  reasons = run(ucm, ['att2in', 'up_down'], runner)
  assert runner.ran == [('att2in', 0)]
  assert 'the same command goes on' in reasons['att2in'][0]


def test_what_cannot_run_here_says_why(ucm):
  runner = Runner(ucm)
  reasons = run(ucm, ['att2in', 'hard'], runner, {'att2in': ['no data\n  a b']})
  assert runner.ran == [('hard', 0), ('hard', 1)]
  text = reported(ucm, (0, 1), reasons)
  label = ucm.table.row('att2in').label
  assert f'# {label}\n# Not here: no data\n#   a b\nfor S in 0 1' in text


def test_a_python_that_ends_says_how():
  code = 'import sys; sys.exit(3)'
  assert table_runs.run_python(['-c', code]) == 3


# What keeps rows from being run here.


def obstacles(name, row, tmp_path, *settings):
  place = table_runs.Place(
    TABLES[name], tmp_path, (f'data.data_dir={tmp_path}', *settings)
  )
  return table_runs.obstacles(place, place.table.row(row))


def test_absent_data_are_named_with_what_to_do(tmp_path):
  weights = f'encoder_weights={__file__}'
  (found,) = obstacles('ucm', 'soft', tmp_path, weights)
  assert 'captioned_images/ucm is not in' in found
  assert 'prepare_captions.py --name=ucm' in found
  found = obstacles('sketch_rnn', 'cat_pig_decoder_only', tmp_path)
  assert 'quickdraw_sketches/cat is not in' in found[-1]
  assert 'prepare_sketches.py' in found[-1]
  if not table_runs.accelerated():
    assert found[0].startswith("QuickDraw's cat, pig needs a GPU")


def test_a_subset_cannot_stand_for_the_whole(tmp_path):
  _, picture, captions = scenes.example('train', 0)
  picture.save(tmp_path / 'one.png')
  pictures = [
    sources.Picture(split, tmp_path / 'one.png', split, captions)
    for split in ('train', 'validation', 'test')
  ]
  captions_lib.prepare('flickr8k', pictures, tmp_path)
  weights = f'encoder_weights={__file__}'
  (found,) = obstacles('show_and_tell', 'flickr8k', tmp_path, weights)
  assert found == (
    'captioned_images/flickr8k is a subset of Flickr8k: 1 of 6,000 training '
    'examples; prepare all of them'
  )
  absent = obstacles(
    'show_and_tell', 'flickr8k', tmp_path, 'encoder_weights=no.safetensors'
  )
  assert absent[0].startswith('encoder_weights=no.safetensors does not exist')
  (absent, _) = obstacles(
    'show_and_tell', 'flickr8k', tmp_path, 'encoder_weights=hf://no/thing'
  )
  assert 'hf download no/thing model.safetensors' in absent
  # Regions need no weights, but an import.
  (absent,) = obstacles('ucm', 'soft', tmp_path, 'regions=x', weights)
  assert 'captioned_images/ucm is not in' in absent
  settings = ('regions=x', 'data.name=captioned_images/flickr8k')
  (absent,) = obstacles('ucm', 'soft', tmp_path, *settings)
  assert 'import_regions.py --name=captioned_images/flickr8k' in absent


def test_the_command_reports_without_running(tmp_path, capsys):
  reproduce_tables.main(
    ['--table=ucm', f'--workdirs={tmp_path}', '--seeds=5', '--set', 'dtype=x']
  )
  text = (tmp_path / 'ucm.md').read_text()
  assert capsys.readouterr().out == f'{text}\n'
  assert '--config.seed=5 --config.dtype=x' in text
  with pytest.raises(SystemExit):
    reproduce_tables.main(
      ['--table=ucm', f'--workdirs={tmp_path}', '--set', 'dtypo=x']
    )
  assert 'dtypo=x' in capsys.readouterr().err
