"""The captions of all rows are shown for the same images."""

import json

import pytest

from tables import captions as captions_lib
from tables import published
from tables import runs as runs_lib

TABLE = published.TABLES['flickr8k']


@pytest.fixture
def table_runs(tmp_path):
  return runs_lib.TableRuns(TABLE, tmp_path)


def write(table_runs, name, captions, seed=0):
  workdir = table_runs.workdir(TABLE.row(name), seed)
  (workdir / 'results').mkdir(parents=True)
  lines = [{'image_id': i, 'caption': text} for i, text in captions.items()]
  path = workdir / 'results' / 'test.captions.json'
  path.write_text(json.dumps(lines))


def test_models_with_the_same_caption_share_a_line(table_runs, capsys):
  images = [f'{n}.jpg' for n in range(10)]
  write(table_runs, 'soft', {i: f'a dog {i}' for i in images})
  write(table_runs, 'hard', {i: 'a dog 5.jpg' for i in images})
  captions_lib.main(
    [f'--workdirs={table_runs.workdirs}', '--table=flickr8k', '--count=2']
  )
  soft, hard = (TABLE.row(name).label for name in ('soft', 'hard'))
  assert capsys.readouterr().out.splitlines() == [
    '| image | caption | by |',
    '|---|---|---|',
    f'| `0.jpg` | a dog 0.jpg | {soft} |',
    f'|  | a dog 5.jpg | {hard} |',
    f'| `5.jpg` | a dog 5.jpg | {soft}; {hard} |',
  ]


def test_other_images_and_no_runs_are_errors(table_runs, capsys):
  arguments = [f'--workdirs={table_runs.workdirs}', '--table=flickr8k']
  write(table_runs, 'soft', {'a': 'x'})
  with pytest.raises(SystemExit):
    captions_lib.main([*arguments, '--seed=1'])
  assert 'was run with seed 1' in capsys.readouterr().err
  write(table_runs, 'hard', {'b': 'x'})
  with pytest.raises(SystemExit):
    captions_lib.main(arguments)
  assert 'captions of other images' in capsys.readouterr().err
  captions_lib.main([*arguments, '--rows=hard', '--count=1'])
  assert '`b`' in capsys.readouterr().out
