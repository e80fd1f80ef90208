"""Docstrings begin as agreed, and names of earlier versions are gone."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = (
  'recurrent',
  'vision',
  'training',
  'captioning',
  'sketch_rnn',
  'video',
  'demo',
  'configs',
  'tables',
  'benchmarks',
  'scripts',
)
# A docstring states the thing or begins with a verb instead.
FIRST_WORDS = {'What', 'How', 'Of', 'Where', 'Whether', 'As'}
# Earlier names -> those that replaced them.
OLD_NAMES = {
  'Describer': 'Captioner',
  'LiveTracker': 'Tracker',
  'Recognizer': 'Classifier',
  'Rules': 'Constraints',
  'Turn': 'Step',
  'average_decay': 'ema_decay',
  'drive': 'project_constant, projected',
  'forbid': 'forbidden_words',
  'least_span': 'min_span',
  'no_repeat': 'no_repeat_ngram',
  'of_run': 'from_run',
  'tells': 'metrics, outputs',
  'told': 'metrics, outputs',
  'train_statistics': 'train_batch_stats',
}
# These words have other uses: (owner, attribute) -> the new attribute.
OLD_ATTRIBUTES = {
  ('loss', 'of'): 'kind',
  ('state', 'average'): 'ema_params',
  ('state', 'statistics'): 'model_state',
  ('update', 'objective'): 'loss',
}
OLD_FIELDS = {name for _, name in OLD_ATTRIBUTES}
# It refuses the earlier names of config fields.
EXEMPT = 'training/renamed.py'


def sources(package):
  """Path -> syntax of each file of a package."""
  return {
    str(path.relative_to(ROOT)): ast.parse(path.read_text())
    for path in sorted((ROOT / package).rglob('*.py'))
  }


def wrong_docstrings(tree):
  """First lines of docstrings that begin with one of `FIRST_WORDS`."""
  documented = (
    ast.Module,
    ast.ClassDef,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
  )
  texts = [
    ast.get_docstring(node) or ''
    for node in ast.walk(tree)
    if isinstance(node, documented)
  ]
  return [
    text.split('\n')[0]
    for text in texts
    if text.partition(' ')[0].strip('\n') in FIRST_WORDS
  ]


def identifiers(node):
  """The names that a node of the syntax has."""
  match node:
    case ast.Name(id=name) | ast.Attribute(attr=name):
      return [name]
    case ast.arg(arg=name) | ast.keyword(arg=name):
      return [name]
    case ast.alias(name=name, asname=other):
      return [*name.split('.'), other]
    case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
      return [name]
    case ast.AsyncFunctionDef(name=name):
      return [name]
  return []


def old_names(tree):
  """Earlier names that the syntax still has."""
  found = []
  for node in ast.walk(tree):
    found += [name for name in identifiers(node) if name in OLD_NAMES]
    if isinstance(node, ast.Attribute):
      owner = ast.unparse(node.value).split('.')[-1]
      if (owner, node.attr) in OLD_ATTRIBUTES:
        found.append(f'{owner}.{node.attr}')
    elif isinstance(node, ast.ClassDef):
      found += [
        f'{node.name}.{field.target.id}'
        for field in node.body
        if isinstance(field, ast.AnnAssign) and field.target.id in OLD_FIELDS
      ]
  return found


@pytest.mark.parametrize('package', PACKAGES)
def test_docstrings_state_the_thing_or_begin_with_a_verb(package):
  wrong = {path: wrong_docstrings(x) for path, x in sources(package).items()}
  assert {path: lines for path, lines in wrong.items() if lines} == {}


@pytest.mark.parametrize('package', PACKAGES)
def test_earlier_names_are_gone(package):
  wrong = {path: old_names(x) for path, x in sources(package).items()}
  wrong.pop(EXEMPT, None)
  assert {path: names for path, names in wrong.items() if names} == {}


def test_every_package_is_listed():
  packages = {
    path.parent.relative_to(ROOT).parts[0]
    for path in ROOT.glob('[a-z]*/**/*.py')
  }
  assert packages == {*PACKAGES, 'tests'}


@pytest.mark.parametrize(
  ('source', 'lines', 'names'),
  [
    ('"""What it does."""', ['What it does.'], []),
    ('def f():\n  """Of a run.\n\n  More.\n  """', ['Of a run.'], []),
    ('class A:\n  """As before."""', ['As before.'], []),
    ('"""Whatever the model, a table."""', [], []),
    ('told = metrics', [], ['told']),
    ('def f(no_repeat=0): pass', [], ['no_repeat']),
    ('f(drive=1, no_repeat_ngram=2)', [], ['drive']),
    ('from a import Describer as describe', [], ['Describer']),
    ('x = new.state.statistics', [], ['state.statistics']),
    ('class S:\n  statistics: dict', [], ['S.statistics']),
    ('import statistics\nstatistics.median(config.loss.kind)', [], []),
  ],
)
def test_the_checks_find_what_they_should(source, lines, names):
  tree = ast.parse(source)
  assert wrong_docstrings(tree) == lines
  assert old_names(tree) == names
