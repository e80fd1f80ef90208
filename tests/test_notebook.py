"""The notebook of docs/: it runs, and it is committed with its outputs."""

import pathlib
import re

import nbclient
import nbformat
import pytest

ROOT = pathlib.Path(__file__).parents[1]
PATH = ROOT / 'docs/from_a_step_to_a_sketch.ipynb'
MAX_BYTES = 600_000
MACHINE = re.compile(r'/(?:home|root|work|tmp|mnt|Users|opt|usr)/|[A-Z]:\\\\')


def read():
  return nbformat.read(PATH, as_version=4)


def code_cells(notebook):
  return [cell for cell in notebook.cells if cell.cell_type == 'code']


def outputs(notebook):
  return [x for cell in code_cells(notebook) for x in cell.outputs]


def is_clean(output):
  """Neither an error nor a warning."""
  return output.output_type != 'error' and output.get('name') != 'stderr'


def test_is_valid():
  nbformat.validate(read())


def test_was_run_from_top_to_bottom():
  cells = code_cells(read())
  assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
  assert all(map(is_clean, outputs(read())))


def test_shows_pictures_and_stays_small():
  pictures = [x for x in outputs(read()) if 'image/png' in x.get('data', {})]
  assert len(pictures) == 5
  assert PATH.stat().st_size < MAX_BYTES


def test_no_path_of_one_machine():
  notebook = read()
  texts = [cell.source for cell in notebook.cells]
  for output in outputs(notebook):
    texts.append(output.get('text', ''))
    texts.append(output.get('data', {}).get('text/plain', ''))
  assert [text for text in texts if MACHINE.search(text)] == []


def test_links_lead_somewhere():
  text = '\n'.join(
    cell.source for cell in read().cells if cell.cell_type == 'markdown'
  )
  targets = re.findall(r'\]\(([^()\s]+)\)', text)
  local = [x for x in targets if not x.startswith('https://')]
  assert len(local) >= 10
  assert [x for x in local if not (PATH.parent / x).exists()] == []


@pytest.mark.slow
def test_runs(monkeypatch):
  # The kernel is a process of its own; the modules are those of this checkout.
  monkeypatch.setenv('PYTHONPATH', str(ROOT))
  notebook = read()
  for cell in code_cells(notebook):
    cell.outputs, cell.execution_count = [], None
  nbclient.NotebookClient(
    notebook,
    timeout=600,
    kernel_name='python3',
    coalesce_streams=True,
    resources={'metadata': {'path': str(PATH.parent)}},
  ).execute()
  assert all(map(is_clean, outputs(notebook)))
  kinds = [x.output_type for x in outputs(notebook)]
  assert kinds == [x.output_type for x in outputs(read())]
