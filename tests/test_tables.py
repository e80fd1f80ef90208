"""The tables: their output, their commands, and running them."""

import contextlib
import csv
import json
import os
import pathlib
import signal
import subprocess
import threading
import time

import numpy as np
import pytest
from absl import flags
from PIL import Image

from captioning import data as captions_lib
from captioning import model as captioners
from captioning import scenes
from captioning import sources
from configs import event_captions
from configs import gesture_stream
from configs import hand_gestures
from configs import ordered_motion
from sketch_rnn import model as sketch_model
from tables import __main__
from tables import confusions
from tables import flickr8k
from tables import published as published_lib
from tables import published_otb
from tables import report as report_lib
from tables import requirements
from tables import rescored
from tables import runs as runs_lib
from training import optimizers
from video import builders
from video import caption
from video import classify
from video import data as video_lib
from video import track
from video.captioning import evaluation as caption_evaluation
from video.captioning import model as caption_model
from video.classification import evaluation as classification_evaluation
from video.classification import model as classification_model
from video.sources import fingertips
from video.tracking import evaluation as tracking_evaluation
from video.tracking import inference as tracking_inference

ROOT = pathlib.Path(__file__).parents[1]

# How ml_collections reads a config.
pytestmark = pytest.mark.filterwarnings(
  'ignore:the load_module:DeprecationWarning'
)

TABLES = published_lib.TABLES
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
  return runs_lib.TableRuns(TABLES['ucm'], tmp_path / 'tables')


def write_results(table_runs, row, seed, scores, **changed):
  """Writes the results that a run leaves of its test split."""
  config = runs_lib.load_config(table_runs.arguments(row, seed)).to_dict()
  entry = {
    'scores': scores,
    'seed': seed,
    'step': 600,
    'commit': 'abc',
    'hardware': '2 x cpu',
    'num_images': 210,
    'training_seconds': 60.0 * (20 + seed),
    'config': config,
    **changed,
  }
  workdir = table_runs.workdir(row, seed)
  workdir.mkdir(parents=True)
  (workdir / 'results.json').write_text(json.dumps({'test': entry}))


def line_of(text, label):
  """The cells of the row of a table."""
  (line,) = [x for x in text.splitlines() if x.startswith(f'| {label} |')]
  return [cell.strip() for cell in line.strip('|').split('|')]


def reported(table_runs, seeds=(0, 1, 2), reasons=None):
  measured = [
    report_lib.measure(table_runs, row, seeds) for row in table_runs.table.rows
  ]
  reasons = {
    (table_runs.table.name, row): why for row, why in (reasons or {}).items()
  }
  return report_lib.markdown(table_runs, measured, seeds, reasons)


# The rows.


@pytest.mark.parametrize('name', ROWS)
def test_every_command_makes_a_model(name):
  table, row = ROWS[name]
  table_runs = runs_lib.TableRuns(table, pathlib.Path('runs'))
  config = runs_lib.load_config(table_runs.arguments(row, 3))
  assert config.seed == 3
  optimizers.create(config.optimizer, config.num_steps)
  match table.module:
    case 'captioning.main':
      captioners.create(config, 10, with_encoder=False)
      start = (
        table_runs.workdir(table.row(row.start_from), 3)
        if row.start_from
        else ''
      )
      assert config.start_from == str(start)
      assert bool(config.self_critical.num_samples) == ('critical' in row.name)
    case 'sketch_rnn.main':
      sketch_model.SketchRNN(**config.model)
    case 'video.classify':
      classification_model.create(config, 10)
      classification_evaluation.check_metric(config)
    case 'video.caption':
      caption_model.create(config, 10)
      caption_evaluation.check_metric(config)
    case 'video.track':
      tracker = tracking_inference.create(config)
      framewise = getattr(tracker, 'cell', None) == 'none'
      assert framewise == (row.name == 'framewise')
      tracking_evaluation.check_metric(config.best_metric)


@pytest.mark.parametrize('table', TABLES.values(), ids=TABLES)
def test_rows_are_consistent(table):
  names = [row.name for row in table.rows]
  assert len(set(names)) == len(names)
  assert len({row.label for row in table.rows}) == len(names)
  for i, row in enumerate(table.rows):
    # Before it in the table, and on the same images.
    assert not row.start_from or row.start_from in names[:i]
    assert not row.start_from or table.row(row.start_from).data == row.data
    assert set(row.mean_of) <= set(names[:i])
    assert set(row.aims) <= set(table.columns.values())
    for aim in row.aims.values():
      assert (aim.at_least is None) != (aim.at_most is None)
    if row.trained_as:
      trained = table.row(row.trained_as)
      assert row.trained_as in names[:i] and not trained.trained_as
      for name in ('config', 'data', 'overrides', 'start_from'):
        assert getattr(row, name) == getattr(trained, name)
      assert row.found_at != trained.found_at


@pytest.mark.parametrize('name', ROWS)
def test_published_numbers_are_possible(name):
  table, row = ROWS[name]
  for published in row.published:
    assert published.origin in ('code', 'read', 'memory')
    assert set(published.scores) <= set(table.columns.values())
    assert set(published.recalled) <= set(published.scores)
    for score, value in published.scores.items():
      if table.module != 'sketch_rnn.main':
        # CIDEr is at most 10, and in papers 1000.
        assert 0 < value <= (1000 if score == 'CIDEr' else 100)
      else:
        assert (-2 < value < 0) if score == 'reconstruction' else 0 < value < 2
    bleu = [published.scores.get(score) for score in published_lib.BLEU]
    bleu = [value for value in bleu if value is not None]
    assert bleu == sorted(bleu, reverse=True)


@pytest.mark.parametrize(
  'config', [event_captions, gesture_stream, hand_gestures, ordered_motion]
)
def test_every_model_of_a_config_is_a_row(config):
  name = pathlib.Path(config.__file__).stem
  trained = [row for row in TABLES[name].rows if not row.trained_as]
  assert {row.name: row.config for row in trained} == {
    model: f'configs/{name}.py:{model}' for model in config.MODELS
  }


def test_a_field_that_is_not_there_is_an_error(ucm):
  table_runs = runs_lib.TableRuns(
    ucm.table, ucm.workdirs, ('decoder.colour=3',)
  )
  with pytest.raises(ValueError, match='decoder.colour=3'):
    runs_lib.load_config(table_runs.arguments(ucm.table.rows[0], 0))


# The output.


def test_measured_is_the_mean_and_deviation_of_the_results(ucm, tmp_path):
  row = ucm.table.row('soft')
  scores = [
    {'BLEU-4': 0.61, 'CIDEr': 3.1, 'METEOR': 0.4},
    {'BLEU-4': 0.64, 'CIDEr': 3.3},
    {'BLEU-4': 0.66, 'CIDEr': 3.35, 'METEOR': 0.42},
  ]
  for seed, values in enumerate(scores):
    write_results(ucm, row, seed, values)
  text = report_lib.report(ucm, [0, 1, 2], tmp_path / 'out', {})
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


def test_each_score_has_its_scale_and_published_rows_their_spread(tmp_path):
  table_runs = runs_lib.TableRuns(TABLES['flickr8k'], tmp_path / 'tables')
  row = table_runs.table.row('merge')
  scores = {'CIDEr': 0.47, 'caption_perplexity': 13.9}
  for seed in (0, 1):
    write_results(
      *(table_runs, row, seed, scores),
      num_images=1000,
      cpu_seconds=90.0 * (seed + 1),
    )
  text = report_lib.report(table_runs, [0, 1], tmp_path / 'out', {})
  cells = line_of(text, f'**{row.label}**')
  assert cells[7:9] == ['47.00 ± 0.00', '13.90 ± 0.00']
  assert cells[-1] == '20, 21 min (CPU 1.5, 3 min)'
  published = line_of(text, 'published: Tanti et al. 2018, merge')
  assert published[7:9] == ['46.9 ± 1.80', '13.96 ± 0.08']
  assert 'scores times 100, not perplexity' in text
  human = line_of(text, 'a human caption against the other four')
  assert text.index('**pre-inject') < text.index('a human caption against')
  assert human[4:6] == ['21.04', '21.92']


def test_the_human_row_is_that_of_the_official_scorer(golden_file):
  path = golden_file('captions/flickr8k_test_human.scores.json')
  corpus = json.loads(path.read_text())['corpus']
  names = [rescored.SCORES[name] for name in (*flickr8k.BLEU, 'METEOR')]
  expected = [corpus[name] for name in (*names, 'ROUGE_L', 'CIDEr')]
  np.testing.assert_allclose(
    flickr8k.HUMAN, 100 * np.array(expected), atol=0.005
  )


def test_the_rows_of_tanti_are_the_means_of_their_runs(shared):
  """And the scores of their captions by our scorer are the published ones."""
  root = shared / 'data' / 'flickr8k_full' / 'published_where_image2'
  if not root.exists():
    pytest.skip(f'{root} is absent')
  with (root / 'results.txt').open(newline='') as file:
    lines = list(csv.DictReader(file, delimiter='\t'))
  for row in TABLES['flickr8k'].rows[-4:]:
    (published,) = row.published
    name = row.name.removesuffix('_inject')
    for score, mean in published.scores.items():
      key = rescored.SCORES.get(score, 'geomean_pplx')
      values = [
        float(line[key]) * (1 if key == 'geomean_pplx' else 100)
        for line in lines
        if (line['dataset_name'], line['architecture']) == ('flickr8k', name)
      ]
      assert mean == pytest.approx(np.mean(values), abs=0.0051)
      assert published.std[score] == pytest.approx(
        np.std(values, ddof=1), abs=0.0051
      )
  references = shared / 'data' / 'flickr8k' / 'Flickr8k.token.txt'
  rows = rescored.score(root, references, runs=[('merge', 3)], meteor=False)
  differences = rescored.differences(rows)
  assert differences.keys() == {*rescored.SCORES} - {'METEOR'}
  assert max(differences.values()) < 0.002


def test_published_captions_are_scored_by_the_command(
  tmp_path, capsys, monkeypatch
):
  """Two images, and captions that are equal to one of theirs."""
  monkeypatch.setenv('PATH', '')  # No Java: METEOR takes seconds.
  root = tmp_path / 'published'
  root.mkdir()
  (root / 'imgs_flickr8k.txt').write_text('b.jpg\na.jpg\n')
  human = {'a.jpg': 'a dog runs on the sand', 'b.jpg': 'two men sit and talk'}
  references = tmp_path / 'token.txt'
  references.write_text(
    ''.join(f'{name}#0\t{caption} .\n' for name, caption in human.items())
  )
  keys = ['dataset_name', 'architecture', 'run', *rescored.SCORES.values()]
  lines = ['\t'.join(keys)]
  for name, run in rescored.RUNS:
    path = root / f'{name}_{run}.txt'
    path.write_text(f'{human["b.jpg"]}\n{human["a.jpg"]}\n')
    lines.append('\t'.join(['flickr8k', name, str(run), *(['0.9'] * 7)]))
  arguments = [
    '--table=flickr8k_published',
    f'--workdirs={tmp_path}',
    f'--references={references}',
  ]
  with pytest.raises(SystemExit):
    __main__.main([*arguments, f'--published={root}'])
  assert 'has no results.txt: pass --published' in capsys.readouterr().err
  (root / 'results.txt').write_text('\n'.join(lines) + '\n')
  __main__.main([*arguments, f'--published={root}'])
  text = capsys.readouterr().out
  assert line_of(text, 'par 2')[1] == '1.0000 / 0.9000'
  assert line_of(text, 'largest difference')[1] == '0.1000'
  assert (tmp_path / 'flickr8k_published.md').exists()
  (root / 'init_1.txt').write_text('one\n')
  with pytest.raises(SystemExit):
    __main__.main([*arguments, f'--published={root}'])
  assert 'has 1 captions for 2 images' in capsys.readouterr().err
  with pytest.raises(SystemExit):
    __main__.main(arguments)
  assert 'needs --published and --references' in capsys.readouterr().err


def test_one_run_has_no_deviation(ucm):
  row = ucm.table.row('att2in')
  write_results(ucm, row, 1, {'CIDEr': 3.0}, training_seconds=None)
  cells = line_of(reported(ucm), f'**{row.label}**')
  assert cells[-3:] == ['300.00', '1', '-']


def test_differences_from_the_row_are_noted(ucm):
  row = ucm.table.row('soft')
  shorter = runs_lib.TableRuns(ucm.table, ucm.workdirs, ('num_steps=7',))
  write_results(shorter, row, 0, {'CIDEr': 1.0})
  write_results(ucm, row, 1, {'CIDEr': 1.0}, num_images=9)
  write_results(ucm, row, 2, {'CIDEr': 1.0}, config=None)
  text = reported(ucm)
  expected = runs_lib.load_config(ucm.arguments(row, 0)).num_steps
  label = f'- {row.label}, seed'
  assert f'{label} 0: num_steps=7 instead of {expected}.\n' in text
  assert f'{label} 1: a subset: 9 of the 210 test examples' in text
  assert f'{label} 2: the config of the run is not known.\n' in text
  assert text.count(label) == 3


def test_aims_are_printed_and_judged(tmp_path):
  table_runs = runs_lib.TableRuns(TABLES['ordered_motion'], tmp_path / 'tables')
  gru, bag = table_runs.table.row('gru'), table_runs.table.row('bag')
  for seed, accuracy in enumerate((0.95, 0.84, 0.9)):
    scores = {'accuracy': accuracy, 'reversed_accuracy': 0.9}
    write_results(table_runs, gru, seed, scores)
    write_results(
      table_runs, bag, seed, {'accuracy': 0.55 + (seed == 2) / 1000}
    )
  text = report_lib.report(table_runs, [0, 1, 2], tmp_path / 'out', {})
  lines = text.splitlines()
  at = lines.index(next(x for x in lines if x.startswith('| **GRU**')))
  assert lines[at + 1] == '| aim | >= 90 | >= 90 | <= 20 |  |  |'
  assert lines[-1] == (
    'Aims, by the means over the seeds. Met: GRU, backwards 90.00 (>= 90). '
    'Not met: GRU, accuracy 89.67 (>= 90); bag of frames, accuracy 55.03 '
    '(<= 55). Not measured: GRU, shuffled (<= 20).'
  )
  rows = json.loads((tmp_path / 'out/ordered_motion.json').read_text())['rows']
  assert {row['row']['name']: row['aims_met'] for row in rows} == {
    'gru': {
      'accuracy': False,
      'reversed_accuracy': True,
      'shuffled_accuracy': None,
    },
    'lstm': {},
    'lrcn': {},
    'conv_lstm': {},
    'bag': {'accuracy': False},
  }


def test_other_evaluations_of_a_run_are_rows_of_their_own(tmp_path):
  table_runs = runs_lib.TableRuns(TABLES['event_captions'], tmp_path / 'tables')
  row = table_runs.table.row('temporal_attention')
  shuffled = table_runs.table.row('temporal_attention_shuffled')
  write_results(table_runs, row, 0, {'motion_order': 0.95}, num_images=9)
  # Not all that the table wants: its command goes on.
  assert not table_runs.ended(row, 0) and table_runs.entry(shuffled, 0) is None
  path = table_runs.workdir(shuffled, 0) / 'results.json'
  assert path == table_runs.workdir(row, 0) / 'results.json'
  results = json.loads(path.read_text())
  other = {**results['test'], 'scores': {'motion_order': 0.3}}
  path.write_text(json.dumps({**results, 'test_shuffled': other}))
  assert table_runs.ended(row, 0)
  text = reported(table_runs, seeds=(0,))
  assert line_of(text, f'**{row.label}**')[1] == '95.0'
  cells = line_of(text, f'**{shuffled.label}**')
  # Nothing was trained for it, and differences are noted once.
  assert (cells[1], cells[-2], cells[-1]) == ('30.0', '1', '-')
  assert text.count('a subset: 9 of the 600 test examples') == 1
  assert 'temporal attention, of shuffled frames, motion order 30.00' in text


@pytest.mark.parametrize('name', ['skeletons_held_out', 'depth_held_out'])
def test_test_subjects_choose_nothing(name, tmp_path):
  """Rows for choosing settings are scored on the held-out subject."""
  table_runs = runs_lib.TableRuns(TABLES['utd_mhad'], tmp_path)
  row = table_runs.table.row(name)
  write_results(table_runs, row, 0, {'accuracy': 0.9}, num_images=108)
  assert not table_runs.ended(row, 0)  # On the test subjects, as once was done.
  path = table_runs.workdir(row, 0) / 'results.json'
  entry = json.loads(path.read_text())['test']
  path.write_text(json.dumps({'validation': entry}))
  assert table_runs.ended(row, 0)
  found = report_lib.measure(table_runs, row, (0,))
  assert (found.mean, found.notes) == ({'accuracy': 90.0}, {})
  assert 'subject 7' in row.label
  (tested,) = (r for r in TABLES['utd_mhad'].rows if r.found_at[0] == 'test')
  assert tested.data.test == 430


def test_the_mean_of_folds_is_a_row_without_runs(tmp_path):
  table_runs = runs_lib.TableRuns(TABLES['skeletons'], tmp_path)
  table = table_runs.table
  mean = table.row('sbu_ours')
  for index, name in enumerate(mean.mean_of):
    assert table_runs.entry(mean, 0) is None
    scores = {'accuracy': 0.9 + index / 100, 'mean_class_accuracy': 0.8}
    row = table.row(name)
    counts = {'num_images': None, 'num_recordings': row.data.test}
    write_results(table_runs, row, 0, scores, **counts)
  found = report_lib.measure(table_runs, mean, (0, 1))
  assert (found.seeds, found.runs, found.notes) == ((0,), (), {})
  np.testing.assert_allclose(found.mean['accuracy'], 92.0)
  cells = line_of(reported(table_runs), f'**{mean.label}**')
  assert cells[1:] == ['92.0', '80.0', '1', '-']
  # The confusions of the folds are added.
  for index, name in enumerate(mean.mean_of):
    directory = table_runs.workdir(table.row(name), 0) / 'results'
    directory.mkdir()
    confusion = {'classes': ['a', 'b'], 'rows_are_true': [[index, 1], [2, 0]]}
    (directory / 'test.confusion.json').write_text(json.dumps(confusion))
  total, classes = confusions.matrix(table_runs, mean, (0, 1))
  np.testing.assert_array_equal(total, [[10, 5], [10, 0]])
  assert classes == ['a', 'b']
  confusions.write(table_runs, (0, 1), tmp_path)
  assert (tmp_path / 'skeletons_sbu_ours_confusion.png').exists()
  assert not (tmp_path / 'skeletons_msr_ours_confusion.png').exists()
  # Its folds are run for it, and nothing else.
  chosen = runs_lib.select([table_runs], ['sbu_ours'])
  assert [row.name for _, row in chosen] == [*mean.mean_of, 'sbu_ours']
  assert mean not in table.trained
  assert 'skeletons.py:sbu/ours' in reported(table_runs)
  text = json.dumps(report_lib.to_json(table_runs, [found], (0, 1), {}))
  assert json.loads(text)['rows'][0]['commands'] == {}


def test_sequences_are_beside_those_of_the_benchmark(tmp_path):
  """Ranked by the mean over its 14 sequences; without one there is none."""
  scores = published_otb.published()
  assert len(scores) == 34
  names = {*published_otb.SEQUENCES}
  assert all(found.keys() == names for found in scores.values())
  overlaps = {i.replace('-1', '.1'): 0.53 for i in published_otb.SEQUENCES}
  lines = published_otb.by_sequence(
    {'ours': overlaps, 'part': {'Crossing': 0.5, 'Tiger1': 0.9}}
  )
  order = [line.split('|')[1].strip() for line in lines[2:]]
  assert order[:3] == ['MUSTer', '**ours**', 'SCM'] and order[-1] == '**part**'
  assert lines[3].split('|')[2:] == [' 53.0 '] * 15 + ['']
  assert '| 50.0 |' in lines[-1] and '90.0' not in lines[-1]
  table_runs = runs_lib.TableRuns(TABLES['otb'], tmp_path)
  row = table_runs.table.row('tracker')
  write_results(table_runs, row, 0, {})
  path = table_runs.workdir(row, 0) / 'results.json'
  entry = json.loads(path.read_text())['test']
  entry['scores'] = {'tracker': {'success_auc': 0.4}}
  entry['overlap_with_first_frame'] = {'tracker': overlaps}
  path.write_text(json.dumps({'sequences': entry}))
  measured = [report_lib.measure(table_runs, row, (0,))]
  text = report_lib.markdown(table_runs, measured, (0,), {})
  assert '\n| **ours** | 53.0 | 53.0 |' in text


def test_published_scores_are_those_of_the_file(shared):
  folder = shared / 'data' / 'tracking'
  if not folder.is_dir():
    pytest.skip(f'{folder} is absent: the published scores are there')
  path = folder / 'published_otb_overlap.csv'
  with path.open(newline='') as file:
    rows = {row['tracker']: row for row in csv.DictReader(file)}
  found = published_otb.published()
  assert found.keys() == rows.keys()
  for tracker, scores in found.items():
    for name, score in scores.items():
      expected = 100 * float(rows[tracker][name.replace('-', '.')])
      assert score == pytest.approx(expected, abs=0.0501)


def test_a_tracker_trained_on_no_images_says_so(tmp_path):
  table_runs = runs_lib.TableRuns(TABLES['otb'], tmp_path)
  row = table_runs.table.row('tracker')
  with_images = runs_lib.TableRuns(
    table_runs.table, tmp_path, ('data.images=a', 'sequences=b')
  )
  write_results(table_runs, row, 0, {})
  write_results(with_images, row, 1, {})
  for seed in (0, 1):
    path = table_runs.workdir(row, seed) / 'results.json'
    entry = json.loads(path.read_text())['test']
    entry['scores'] = {'tracker': {'success_auc': 0.4}}
    path.write_text(json.dumps({'sequences': entry}))
  found = report_lib.measure(table_runs, row, (0, 1))
  assert found.mean == {'success_auc': 40.0}
  note = 'trained on SYNTHETIC textures instead of images'
  assert found.notes == {note: ('0',)}


@pytest.mark.parametrize('name', TABLES)
def test_rows_that_were_not_run_say_so_with_their_commands(name, tmp_path):
  # With characters that a shell interprets.
  table_runs = runs_lib.TableRuns(
    TABLES[name], tmp_path / "it's here", ('dtype=$A B',)
  )
  text = reported(table_runs, seeds=(0, 4))
  for row in table_runs.table.rows:
    assert line_of(text, f'**{row.label}**')[1] == 'not run'
  script = text.split('```')[1]
  say = 'python() { printf "%s\\n" "$@" END; }\n'
  said = subprocess.run(
    ['bash', '-c', say + script], capture_output=True, text=True, check=True
  )
  assert said.stdout.split('END\n')[:-1] == [
    ''.join(f'{word}\n' for word in table_runs.arguments(row, seed))
    for row in table_runs.table.trained
    for seed in (0, 4)
  ]


def test_only_the_missing_seeds_are_commanded(ucm):
  row = ucm.table.row('up_down')
  write_results(ucm, row, 0, {'CIDEr': 1.0})
  write_results(ucm, row, 2, {'CIDEr': 1.0})
  text = reported(ucm)
  command = f'python {" ".join(ucm.arguments(row, 1))}'
  assert f'# {row.label}\n{command}\n' in text


# The runs.


class Runner:
  """Does what a main does: leaves results, or ends with a status.

  Attributes:
    ran: the runs, in the order in which they were started.
    most: how many there were at once.
  """

  stopped = False

  def __init__(self, table_runs, statuses=None, met=None):
    self.table_runs, self.statuses, self.ran = table_runs, statuses or {}, []
    self.most, self._now, self._lock = 0, 0, threading.Lock()
    self._met = met or contextlib.nullcontext

  def listening(self):
    return contextlib.nullcontext()

  def __call__(self, words, log=None):
    row, seed = next(
      (row, seed)
      for row in self.table_runs.table.rows
      for seed in (0, 1)
      if self.table_runs.arguments(row, seed) == words
    )
    with self._lock:
      self.ran.append((row.name, seed))
      self._now += 1
      self.most = max(self.most, self._now)
    self._met()
    if row.start_from:
      start = self.table_runs.table.row(row.start_from)
      assert self.table_runs.entry(start, seed) is not None
    status = self.statuses.get((row.name, seed))
    with self._lock:
      if status is None:
        write_results(self.table_runs, row, seed, {'CIDEr': 1.0})
      self._now -= 1
    return status or 0


def run(table_runs, names, runner, found=None, jobs=1):
  reasons = runs_lib.run_missing(
    runs_lib.select([table_runs], names),
    [0, 1],
    jobs=jobs,
    processes=runner,
    missing_requirements=lambda table_runs, row: list(
      (found or {}).get(row.name, ())
    ),
  )
  assert {table for table, _ in reasons} <= {table_runs.table.name}
  return {row: why for (_, row), why in reasons.items()}


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
  every = [(ucm, row) for row in ucm.table.rows]
  assert runs_lib.select([ucm], []) == every
  with pytest.raises(ValueError, match="ucm has no row 'harder'"):
    runs_lib.select([ucm], ['harder'])


def test_rows_of_several_tables_are_named_together(tmp_path):
  all_runs = [
    runs_lib.TableRuns(TABLES[name], tmp_path)
    for name in ('gesture_stream', 'occlusion_track', 'ucm')
  ]
  names = ['framewise', 'state_zeroed', 'hard_self_critical']
  assert [
    (table_runs.table.name, row.name)
    for table_runs, row in runs_lib.select(all_runs, names)
  ] == [
    ('gesture_stream', 'framewise'),
    ('occlusion_track', 'tracker'),
    ('occlusion_track', 'state_zeroed'),
    ('occlusion_track', 'framewise'),
    ('ucm', 'hard'),
    ('ucm', 'hard_self_critical'),
  ]


@pytest.mark.parametrize('jobs', [2, 3, 9])
def test_several_at_once_run_what_one_after_the_other_does(ucm, tmp_path, jobs):
  names = ['soft', 'hard_self_critical', 'att2in_self_critical']
  one = Runner(runs_lib.TableRuns(ucm.table, tmp_path / 'one'))
  reasons = run(one.table_runs, names, one)
  several = Runner(ucm)
  assert run(ucm, names, several, jobs=jobs) == reasons
  assert one.most == 1 and several.most <= jobs
  assert sorted(several.ran) == sorted(one.ran) and len(set(one.ran)) == 10


def test_several_run_at_once(ucm):
  meeting = threading.Barrier(2, timeout=60)
  runner = Runner(ucm, met=meeting.wait)
  run(ucm, ['soft', 'hard', 'up_down'], runner, jobs=2)
  assert len(runner.ran) == 6 and runner.most == 2


def test_what_failed_keeps_only_its_own_from_running_at_once(ucm):
  runner = Runner(ucm, {('att2in', 0): 1, ('att2in', 1): 1})
  reasons = run(ucm, ['att2in_self_critical', 'up_down'], runner, jobs=2)
  assert {name for name, _ in runner.ran} == {'att2in', 'up_down'}
  assert reasons['att2in'][0] == 'the run of seed 0 ended with 1'
  assert reasons['up_down'] == []


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
  runner = Runner(ucm, {('att2in', 0): 143})
  reasons = run(ucm, ['att2in', 'up_down'], runner)
  assert runner.ran == [('att2in', 0)]
  assert 'the same command resumes it' in reasons['att2in'][0]


def test_what_cannot_run_here_says_why(ucm):
  runner = Runner(ucm)
  reasons = run(ucm, ['att2in', 'hard'], runner, {'att2in': ['no data\n  a b']})
  assert runner.ran == [('hard', 0), ('hard', 1)]
  text = reported(ucm, (0, 1), reasons)
  label = ucm.table.row('att2in').label
  assert f'# {label}\n# Not here: no data\n#   a b\nfor S in 0 1' in text


def test_a_python_that_ends_says_how(tmp_path):
  python = runs_lib.Processes()
  assert python(['-c', 'import sys; sys.exit(3)']) == 3
  log = tmp_path / 'new' / 'log'
  code = 'import os, sys; print(os.environ["NPROC"]); sys.exit(4)'
  assert [python(['-c', code], log) for _ in range(2)] == [4, 4]
  assert log.read_text() == '1\n1\n'


# Of the words that follow it, those of a main.
_RUN = """
import json, os, pathlib, signal, sys, time
def stop(*_):
  print('stopped', flush=True)
  sys.exit(143)
signal.signal(signal.SIGTERM, stop)
(workdir,) = [
  pathlib.Path(word.partition('=')[2])
  for word in sys.argv if word.startswith('--workdir=')
]
"""
_ENDS = """
print(json.dumps(sorted(os.sched_getaffinity(0))))
workdir.mkdir()
(workdir / 'results.json').write_text('{"test": {"scores": {}}}')
"""
_STAYS = """
workdir.with_suffix('.ready').touch()
time.sleep(600)
"""


class Scripts(runs_lib.Processes):
  """Runs a script instead of a main, with the arguments of that."""

  def __init__(self, code):
    super().__init__()
    self._code, self.started = code, []

  def __call__(self, words, log=None):
    self.started.append(words)
    return super().__call__(['-c', _RUN + self._code, *words], log)


@pytest.mark.skipif(
  not hasattr(os, 'sched_setaffinity'), reason='cores cannot be chosen here'
)
def test_each_of_several_has_a_core_of_its_own(ucm):
  before = sorted(os.sched_getaffinity(0))
  run(ucm, ['soft', 'hard'], Scripts(_ENDS), jobs=2)
  logs = sorted((ucm.workdirs / 'ucm').glob('*.log'))
  assert [log.name for log in logs] == [
    f'{name}_{seed}.log' for name in ('hard', 'soft') for seed in (0, 1)
  ]
  cores = [json.loads(log.read_text()) for log in logs]
  assert all(core in [[one] for one in before[:2]] for core in cores)
  assert sorted(os.sched_getaffinity(0)) == before


def test_sigterm_is_passed_on_to_all_that_run(ucm):
  scripts = Scripts(_STAYS)
  marks = [
    ucm.workdirs / 'ucm' / f'{name}_0.ready' for name in ('soft', 'hard')
  ]
  ready = []

  def stop():
    deadline = time.monotonic() + 60
    while not ready and time.monotonic() < deadline:
      ready.extend([True] * all(mark.exists() for mark in marks))
      time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)

  before = signal.getsignal(signal.SIGTERM)
  thread = threading.Thread(target=stop)
  thread.start()
  reasons = run(ucm, ['soft', 'hard', 'up_down'], scripts, jobs=2)
  thread.join()
  assert ready and len(scripts.started) == 2
  for mark in marks:
    assert mark.with_suffix('.log').read_text() == 'stopped\n'
  why = ['stopped; the same command resumes it']
  assert reasons == {'soft': why, 'hard': why}
  assert signal.getsignal(signal.SIGTERM) == before


# Missing requirements.


def obstacles(name, row, tmp_path, *settings):
  table_runs = runs_lib.TableRuns(
    TABLES[name], tmp_path, (f'data.data_dir={tmp_path}', *settings)
  )
  return requirements.missing(table_runs, table_runs.table.row(row))


def test_absent_data_are_named_with_what_to_do(tmp_path):
  weights = f'encoder_weights={__file__}'
  (found,) = obstacles('ucm', 'soft', tmp_path, weights)
  assert 'captioned_images/ucm is not in' in found
  assert 'prepare_captions.py --name=ucm' in found
  found = obstacles('sketch_rnn', 'cat_pig_decoder_only', tmp_path)
  assert 'quickdraw_sketches/cat is not in' in found[-1]
  assert 'prepare_sketches.py' in found[-1]
  if not requirements.accelerated():
    assert found[0].startswith("QuickDraw's cat, pig needs a GPU")


def test_synthetic_data_sets_need_nothing_and_are_not_generated_yet(tmp_path):
  for name in ('ordered_motion', 'event_captions', 'occlusion_track'):
    for row in TABLES[name].rows:
      assert obstacles(name, row.name, tmp_path) == []
  assert list(tmp_path.iterdir()) == []


def test_recordings_are_named_with_what_prepares_them(tmp_path):
  skeletons, depth = 'skeletons/utd_mhad', 'clips/utd_mhad_depth'
  for name, row, data, options in (
    ('skeletons', 'utd_mhad_ours', skeletons, '--layout=utd_mhad --input='),
    ('utd_mhad', 'depth', depth, '--layout=utd_mhad --input='),
    ('hand_gestures', 'bag', 'skeletons/hand_gestures', '--input=point_histor'),
    ('msvd', 's2vt', 'captioned_clips/msvd', '--input=YouTubeClips --capt'),
    ('ucf101', 'lrcn', 'clips/ucf101', '--layout=ucf101 --input=UCF-101 --li'),
  ):
    found = obstacles(name, row, tmp_path)[-1]
    assert found.startswith(
      f'{data} is not in {tmp_path}: prepare it with\n'
      f'  python scripts/prepare_clips.py --name={data} '
      f'--data_dir={tmp_path} {options}'
    )


def test_video_needs_weights_where_images_do(tmp_path):
  absent = obstacles('ucf101', 'lrcn', tmp_path, 'encoder_weights=no')
  assert absent[-2].startswith('encoder_weights=no does not exist: pass --set')
  absent = obstacles('msvd', 's2vt', tmp_path, 'encoder_weights=')
  assert absent[-2].startswith('the encoder is frozen and has no weights: pass')


def test_validation_is_lent_by_the_published_training_split(tmp_path):
  items = [
    fingertips.Features(split, split, np.zeros((3, 60), np.float32), 'wave')
    for split in ('train', 'validation', 'test')
  ]
  video_lib.prepare('skeletons/utd_mhad', items, tmp_path)
  for table, row in (
    ('utd_mhad', 'skeletons_held_out'),
    ('skeletons', 'utd_mhad_ours'),
  ):
    (found,) = obstacles(table, row, tmp_path)
    assert found.startswith('skeletons/utd_mhad is a subset of UTD-MHAD: 2 of')


def test_real_sequences_are_asked_for(tmp_path):
  def found(*settings):
    table_runs = runs_lib.TableRuns(TABLES['otb'], tmp_path, settings)
    return requirements.missing(table_runs, table_runs.table.row('tracker'))

  (unnamed,) = found()
  assert unnamed.startswith('no sequences are given: pass --set sequences')
  assert found(f'sequences={tmp_path}') == []
  (absent,) = found(f'sequences={tmp_path}', 'data.images=no')
  assert absent.startswith('data.images=no is no directory')


def test_a_subset_cannot_stand_for_the_whole(tmp_path):
  _, picture, captions = scenes.example('train', 0)
  picture.save(tmp_path / 'one.png')
  pictures = [
    sources.CaptionedFile(split, tmp_path / 'one.png', split, captions)
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
  __main__.main(
    ['--table=ucm', f'--workdirs={tmp_path}', '--seeds=5', '--set', 'dtype=x']
  )
  text = (tmp_path / 'ucm.md').read_text()
  assert capsys.readouterr().out == f'{text}\n'
  assert '--config.seed=5 --config.dtype=x' in text
  with pytest.raises(SystemExit):
    __main__.main(['--table=ucm', f'--workdirs={tmp_path}', '--set', 'dtypo=x'])
  assert 'dtypo=x' in capsys.readouterr().err


# Results of the mains.


class Here:
  """Runs mains in this process."""

  stopped = False

  def listening(self):
    return contextlib.nullcontext()

  def __call__(self, words, log=None):
    mains = {
      'video.classify': classify,
      'video.caption': caption,
      'video.track': track,
    }
    _, module, *arguments = words
    (workdir,) = [
      word.removeprefix('--workdir=')
      for word in arguments
      if word.startswith('--workdir=')
    ]
    config = runs_lib.load_config(arguments)
    mains[module].train_and_evaluate(config, pathlib.Path(workdir))
    return 0


FEW = {
  'num_steps': 2,
  'optimizer.warmup_steps': 1,
  'batch_size': 2,
  'eval_batch_size': 4,
  'log_every': 1,
  'eval_every': 2,
  'checkpoint_every': 2,
}
SMALL_ENCODER = {'encoder.channels': '(2,2)', 'encoder.features': 4}
# Rows that run the code of all others -> their config in small.
SMALL = {
  ('ordered_motion', 'gru'): {**SMALL_ENCODER, 'model.features': 4},
  ('gesture_stream', 'gru'): {
    **SMALL_ENCODER,
    'model.features': 4,
    'loss.framewise_steps': 1,
  },
  ('event_captions', 'temporal_attention'): {
    **SMALL_ENCODER,
    'decoder.features': 4,
    'decoder.embedding': 4,
    'decoder.attention': 4,
    'decoder.encoder_features': 4,
    'decoding.beam_size': 1,
  },
  ('occlusion_track', 'tracker'): {
    'model.side': 8,
    'model.filters': '(2,2)',
    'model.dense': 4,
    'model.features': 4,
    'self_feeding.start': 1,
  },
}
# Tables -> those whose columns they must be able to fill with the same code.
LIKE = {
  'ordered_motion': ('utd_mhad', 'skeletons', 'hand_gestures', 'ucf101'),
  'gesture_stream': (),
  'event_captions': ('msvd', 'msr_vtt'),
  'occlusion_track': ('otb',),
}


def write_sequences(directory):
  """One in the layout of OTB, in which nothing moves."""
  pictures = directory / 'Still' / 'img'
  pictures.mkdir(parents=True)
  noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
  for i in (1, 2, 3):
    Image.fromarray(noise).save(pictures / f'{i:04d}.png')
  (pictures.parent / 'groundtruth_rect.txt').write_text('5,6,9,8\n' * 3)
  return directory


@pytest.mark.parametrize('table, row', SMALL)
def test_a_run_leaves_all_that_its_table_wants(
  table, row, tmp_path, monkeypatch
):
  """By a run of two steps, through the whole of the script."""
  monkeypatch.setenv('PATH', '')  # No Java: METEOR takes seconds.
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()
  sizes = {'train': 4, 'validation': 2, 'test': 3}
  monkeypatch.setattr(builders.SYNTHETIC[table].module, 'SIZES', sizes)
  fields = {**FEW, **SMALL[table, row], 'data.data_dir': tmp_path / 'data'}
  if TABLES[table].module == 'video.track':
    fields['sequences'] = write_sequences(tmp_path / 'otb')
  settings = tuple(f'{name}={value}' for name, value in fields.items())
  table_runs = runs_lib.TableRuns(TABLES[table], tmp_path / 'tables', settings)
  reasons = runs_lib.run_missing(
    runs_lib.select([table_runs], [row]),
    [0],
    processes=Here(),
    missing_requirements=lambda *_: [],
  )
  assert reasons == {(table, row): []}
  for other in table_runs.table.rows:
    if row in (other.name, other.trained_as):
      found = report_lib.measure(table_runs, other, [0])
      assert found.mean.keys() == set(table_runs.table.columns.values())
      assert None not in found.judged().values()
  # Rows scored by the same code find their scores, too.
  results = table_runs.workdir(table_runs.table.row(row), 0) / 'results.json'
  for name in LIKE[table]:
    like = runs_lib.TableRuns(TABLES[name], tmp_path / 'like')
    for other in like.table.rows:
      workdir = like.workdir(other, 0)
      workdir.mkdir(parents=True, exist_ok=True)
      written = json.loads(results.read_text())
      if other.found_at[0] == 'validation':
        # Another split, which the same code scores.
        written['validation'] = written['test']
      (workdir / 'results.json').write_text(json.dumps(written))
      entry = like.entry(other, 0)
      written = {*entry['scores'], *entry.get('absent', {})}
      assert set(like.table.columns.values()) <= written


def test_every_video_table_is_like_one_that_is_run():
  video = {name for name in TABLES if TABLES[name].module.startswith('video.')}
  assert {*LIKE, *(name for names in LIKE.values() for name in names)} == video
  for name, others in LIKE.items():
    for other in others:
      assert TABLES[name].module == TABLES[other].module
