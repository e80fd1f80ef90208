"""Who may import whom: the table of packages, checked on the source."""

import ast
import functools
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# Package -> our packages that it may import, besides itself.
MAY_IMPORT = {
  'recurrent': (),
  'vision': (),
  'training': (),
  'captioning': ('configs', 'recurrent', 'vision', 'training'),
  'sketch_rnn': ('configs', 'recurrent', 'training'),
  'video': ('configs', 'recurrent', 'vision', 'training', 'captioning'),
  'demo': (
    'configs',
    'recurrent',
    'vision',
    'training',
    'captioning',
    'sketch_rnn',
    'video',
  ),
  'configs': (),
}
# These run the rest and are imported by nothing but each itself.
OUTSIDE = ('tests', 'scripts', 'benchmarks', 'tables')
# Subpackages -> those beside them that they may import. Modules at the top of a
# package may import every subpackage, and subpackages may import those modules,
# but for the commands.
SUBPACKAGES = {
  'video.classification': ('video.synthetic',),
  'video.captioning': ('video.synthetic',),
  'video.tracking': ('video.sources', 'video.synthetic'),
  'video.sources': (),
  'video.synthetic': (),
}
# Every task has these modules, under the same names.
TASKS = (
  'captioning',
  'sketch_rnn',
  'video.classification',
  'video.captioning',
  'video.tracking',
)
MODULES = ('model', 'losses', 'examples', 'evaluation', 'inference')
MOST_ENTRIES_OF_VIDEO = 16
MOST_LINES_OF_SCRIPTS = 1000
# Of captioning, what video may use.
OF_CAPTIONING = (
  'captioning.earlier',
  'captioning.feature_cache',
  'captioning.metrics',
  'captioning.rewards',
  'captioning.self_critical',
  'captioning.vocabulary',
)
# What trains, from the command line alone.
MAINS = (
  'captioning.main',
  'sketch_rnn.main',
  'video.classify',
  'video.caption',
  'video.track',
)
# What only one module may name -> those that do.
ONE_PLACE = {
  'jax.pmap': {'training/parallel.py'},
  'tensorboardX': {'training/report.py'},
  'clu.metric_writers': set(),  # They import TensorFlow.
  'tensorflow': {'sketch_rnn/tensorflow_checkpoints.py'},
}


def files(package):
  return sorted((ROOT / package).rglob('*.py'))


@functools.cache
def nodes(path):
  """All of a file's syntax."""
  return list(ast.walk(ast.parse(path.read_text())))


def modules(path):
  """The full names of all that a file imports, wherever in the file."""
  names = []
  for node in nodes(path):
    if isinstance(node, ast.Import):
      names += [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: a relative import'
      names += [f'{node.module}.{alias.name}' for alias in node.names]
  return names


@functools.cache
def attributes(path):
  """The dotted names that a file uses, as they are written."""
  return {
    ast.unparse(node) for node in nodes(path) if isinstance(node, ast.Attribute)
  }


def test_every_package_is_in_the_table():
  """A directory of modules is a package whether or not it says so."""
  packages = {
    path.parent.relative_to(ROOT).parts[0]
    for path in ROOT.glob('[a-z]*/**/*.py')
  }
  assert packages <= {*MAY_IMPORT, *OUTSIDE}
  assert packages >= {'recurrent', 'vision', 'training', 'captioning'}


@pytest.mark.parametrize('package', MAY_IMPORT)
def test_packages_import_what_they_may(package):
  wrong = [
    f'{path.relative_to(ROOT)} imports {module}'
    for path in files(package)
    for module in modules(path)
    if module.split('.')[0] in (*MAY_IMPORT, *OUTSIDE)
    and module.split('.')[0] not in (package, *MAY_IMPORT[package])
  ]
  assert wrong == []


def test_configs_import_the_defaults_alone():
  """An experiment is not built on another one; the schema has its rules."""
  wrong = [
    f'{path.relative_to(ROOT)} imports {module}'
    for path in files('configs')
    for module in modules(path)
    if module.split('.')[0] == 'configs'
    and module != 'configs.common'
    and (path.stem, module[: len('configs.rules')])
    != ('schema', 'configs.rules')
  ]
  assert wrong == []


@pytest.mark.parametrize('package', MAY_IMPORT)
def test_of_the_configs_the_schema_alone_is_imported(package):
  wrong = [
    f'{path.relative_to(ROOT)} imports {module}'
    for path in files(package)
    for module in modules(path)
    if package != 'configs'
    and module.split('.')[0] == 'configs'
    and module != 'configs.schema'
  ]
  assert wrong == []


@pytest.mark.parametrize('subpackage', SUBPACKAGES)
def test_subpackages_import_what_they_may(subpackage):
  wrong = [
    f'{path.relative_to(ROOT)} imports {module}'
    for path in files(subpackage.replace('.', '/'))
    for module in modules(path)
    for other in SUBPACKAGES
    if f'{module}.'.startswith(f'{other}.')
    and other not in (subpackage, *SUBPACKAGES[subpackage])
  ]
  assert wrong == []


def test_every_subpackage_is_in_the_table():
  directories = {path.parent for path in ROOT.glob('[a-z]*/*/*.py')}
  names = {'.'.join(path.relative_to(ROOT).parts) for path in directories}
  assert {name for name in names if not name.startswith('tests.')} == {
    *SUBPACKAGES
  }


@pytest.mark.parametrize('task', TASKS)
def test_the_same_name_means_the_same_thing_in_every_task(task):
  there = {path.stem for path in (ROOT / task.replace('.', '/')).glob('*.py')}
  assert there >= {*MODULES}


def test_packages_are_of_a_readable_size():
  entries = [
    path for path in (ROOT / 'video').iterdir() if path.name != '__pycache__'
  ]
  assert len(entries) <= MOST_ENTRIES_OF_VIDEO
  lines = sum(len(path.read_text().split('\n')) for path in files('scripts'))
  assert lines < MOST_LINES_OF_SCRIPTS


@pytest.mark.parametrize('package', MAY_IMPORT)
def test_no_main_is_imported(package):
  wrong = [
    f'{path.relative_to(ROOT)} imports {module}'
    for path in files(package)
    for module in modules(path)
    if f'{module}.'.startswith(tuple(f'{main}.' for main in MAINS))
  ]
  assert wrong == []


def test_video_uses_only_words_and_scores_of_captioning():
  wrong = [
    f'{path.relative_to(ROOT)} imports {module}'
    for path in files('video')
    for module in modules(path)
    if module.split('.')[0] == 'captioning'
    and not module.startswith(OF_CAPTIONING)
  ]
  assert wrong == []


@pytest.mark.parametrize('name', ONE_PLACE)
def test_one_place_only(name):
  """Tests may name anything."""
  named = {
    str(path.relative_to(ROOT))
    for package in (*MAY_IMPORT, *OUTSIDE[1:])
    for path in files(package)
    for used in (*modules(path), *attributes(path))
    if used == name or used.startswith(f'{name}.')
  }
  assert named <= ONE_PLACE[name]
