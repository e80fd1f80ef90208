"""`--help` of every command lists its flags and keeps its examples' lines."""

import ast
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# Files that end by running.
COMMANDS = sorted(
  str(path.relative_to(ROOT))
  for path in ROOT.glob('[a-z]*/*.py')
  if not path.is_relative_to(ROOT / 'tests')
  and "\nif __name__ == '__main__':\n" in path.read_text()
)
ABSL = [
  'captioning/evaluate.py',
  'captioning/main.py',
  'sketch_rnn/evaluate.py',
  'sketch_rnn/main.py',
  'video/caption.py',
  'video/classify.py',
  'video/track.py',
]
# Those that only train.
TRAINS = ('captioning/main.py', 'sketch_rnn/main.py')
# Of benchmarks: for starting themselves, and for those that have cases.
# It has arguments alone.
WITHOUT_FLAGS = {'training/checkpoints.py'}
HIDDEN = {'--side', '--cases'}

# One process for all, since importing JAX and TensorFlow is what takes time.
# The flags of absl are the process's: each command gets those it defines.
_RUN = """
import contextlib, io, json, pathlib, runpy, sys
from absl import flags

sys.path[:0] = ['.', 'benchmarks']
answers = {}
for command in sys.argv[1:]:
  path = pathlib.Path(command)
  sys.argv = [str(path.absolute()), '--help']
  printed = io.StringIO()
  try:
    with contextlib.redirect_stdout(printed):
      if path.parts[0] in ('benchmarks', 'scripts'):
        runpy.run_path(command, run_name='__main__')
      else:
        module = '.'.join(path.with_suffix('').parts)
        runpy.run_module(module, run_name='__main__', alter_sys=True)
  except SystemExit as end:
    answers[command] = end.code, printed.getvalue()
  for module in (sys.argv[0], 'training.app'):
    for flag in flags.FLAGS.get_flags_for_module(module):
      delattr(flags.FLAGS, flag.name)
print(json.dumps(answers))
"""


@pytest.fixture(scope='module')
def answers():
  """Command -> its exit status, and what it printed."""
  run = subprocess.run(
    [sys.executable, '-c', _RUN, *COMMANDS],
    cwd=ROOT,
    env={**os.environ, 'COLUMNS': '80'},
    capture_output=True,
    text=True,
    check=False,
  )
  assert run.returncode == 0, run.stderr
  return json.loads(run.stdout.splitlines()[-1])


def parsed(name):
  return ast.parse((ROOT / name).read_text())


def defined(name):
  """The flags that a file defines."""
  found = []
  for node in ast.walk(parsed(name)):
    if not isinstance(node, ast.Call) or not node.args:
      continue
    called = node.func.attr if isinstance(node.func, ast.Attribute) else ''
    flag = node.args[0]
    if not isinstance(flag, ast.Constant):
      continue
    if called.startswith('DEFINE_'):
      found.append(f'--{flag.value}')
    elif called == 'add_argument' and flag.value.startswith('--'):
      found.append(flag.value)
  return found


def test_commands_are_found():
  assert {*ABSL, 'captioning/caption.py', 'demo/__main__.py'} <= {*COMMANDS}
  assert len(COMMANDS) > 20


@pytest.mark.parametrize('command', COMMANDS)
def test_help_lists_all_flags_and_keeps_examples(command, answers):
  status, text = answers[command]
  assert status == 0
  flags = defined(command)
  if command in ABSL:
    flags += defined('training/app.py')
    if command in TRAINS:
      flags.remove('--pretrained')
    if command.endswith('/evaluate.py'):
      flags.remove('--allow_change')
    assert {'--config', '--workdir'} <= {*flags}
    assert 'absl' not in text and str(ROOT) not in text
  elif 'side_by_side' in (ROOT / command).read_text():
    flags += defined('benchmarks/side_by_side.py')
  assert flags or command in WITHOUT_FLAGS
  # A flag, and not the beginning of another one.
  listed = {
    f'--{name}' for name in re.findall(r'^\s+--(?:\[no\])?(\w+)', text, re.M)
  }
  assert {*flags} - HIDDEN <= listed

  docstring = ast.get_docstring(parsed(command), clean=False)
  examples = re.findall(r'^(?:  +|(?=python ))(.*)$', docstring, re.M)
  assert examples
  # Python 3.13 removes indentation that all lines have.
  assert {*examples} <= {line.strip() for line in text.split('\n')}


@pytest.mark.parametrize('command', COMMANDS)
def test_every_flag_has_a_help(command):
  """But those that are named by what they are."""
  without = [
    ast.unparse(node)
    for node in ast.walk(parsed(command))
    if isinstance(node, ast.Call)
    and isinstance(node.func, ast.Attribute)
    and node.func.attr == 'add_argument'
    and not any(keyword.arg == 'help' for keyword in node.keywords)
    and node.args[0].value.startswith('--')
  ]
  assert without == []


def test_no_docstring_joins_its_lines():
  """A backslash at the end of a line needs a raw docstring; ruff misses it."""
  joined = []
  files = [path for path in ROOT.glob('[a-z]*/**/*.py') if path.is_file()]
  for path in files:
    text = path.read_text()
    for node in ast.walk(ast.parse(text)):
      if isinstance(
        node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
      ) and ast.get_docstring(node):
        source = ast.get_source_segment(text, node.body[0])
        if '\\' in source and not source.startswith('r'):
          joined.append(f'{path.relative_to(ROOT)}: {source.splitlines()[0]}')
  assert joined == []


def test_make_lists_all_targets_by_default():
  """Nothing is trained or installed by a `make` that asks for nothing."""
  targets = re.search(r'^\.PHONY: (.*)$', (ROOT / 'Makefile').read_text(), re.M)
  make = ['make', '--no-print-directory']
  listed = [
    subprocess.run(
      [*make, *goal], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for goal in ([], ['help'])
  ]
  assert listed[0] == listed[1]
  described = re.findall(r'^make (\S+) +\S', listed[0], re.M)
  assert described == targets[1].split()
