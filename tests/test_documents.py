"""The documents: links, anchors and commands work; names are linked."""

import ast
import functools
import importlib
import pathlib
import re
import shlex

import numpy as np
import PIL.Image
import pytest

from tables import published
from tables import rescored

ROOT = pathlib.Path(__file__).parents[1]
# Folders that are no part of the repository.
NOT_OURS = ('.git', '.venv', '.venv-torch', 'runs', 'data', 'node_modules')
MAX_LINES_OF_README = 150
# Those whose commands are checked: what a user reads.
PAGES = (ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md')))
# Those of released models.
CARDS = tuple(sorted((ROOT / 'pretrained').glob('*/card.md')))
# The first time that a page mentions one of these it is a link.
LINKED = (
  'UCM-Captions',
  'Flickr8k',
  'Flickr30k',
  'COCO',
  'ImageNet',
  'QuickDraw',
  'KanjiVG',
  'UTD-MHAD',
  'UCF101',
  'MSVD',
  'MSR-VTT',
  'OTB',
  'DAVIS',
  'Show and Tell',
  'Show, Attend and Tell',
  'Att2in',
  'Up-Down',
  'Re3',
  'SiamFC',
  'METEOR',
  'SPICE',
  'HyperLSTM',
  'LRCN',
  'S2VT',
  'ConvLSTM',
  'Sketch-RNN',
)

_FENCE = re.compile(r'^```(\w*)\n(.*?)^```$', re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r'`([^`\n]+)`')
_LINK = re.compile(r'(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)')
_IMAGE_TAG = re.compile(r'<img[^>]*\bsrc="([^"]+)"')
_HEADING = re.compile(r'^#{1,6} +(.*?) *#*$', re.MULTILINE)
_OF_CONFIG = re.compile(r'--config\.([a-z0-9_.]*[a-z0-9_])')
_LOCAL = re.compile(
  r'(?<![\w.:/~-])(?:/(?:home|root|work|tmp|mnt|Users|opt|var|usr|etc)\b|'
  r'[A-Z]:\\|file:)'
)


def name_of(path):
  return str(path.relative_to(ROOT))


def documents():
  """All pages of the repository."""
  found = [
    path
    for path in ROOT.rglob('*.md')
    if not {*path.relative_to(ROOT).parts} & {*NOT_OURS}
    and '.egg-info' not in str(path)
  ]
  return sorted(found)


def without_code(text):
  return _INLINE.sub('', _FENCE.sub('', text))


def anchors(text):
  """The anchors of a page's headings, by GitHub's rule."""
  found = set()
  counts = {}
  for heading in _HEADING.findall(_FENCE.sub('', text)):
    heading = _LINK.sub(r'\2', heading).replace('`', '')
    slug = re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')
    count = counts.get(slug, 0)
    counts[slug] = count + 1
    found.add(f'{slug}-{count}' if count else slug)
  return found


def targets(text):
  text = without_code(text)
  return [
    *(target for _, _, target in _LINK.findall(text)),
    # Images inside links.
    *(
      target
      for _, label, _ in _LINK.findall(text)
      for _, _, target in _LINK.findall(label)
    ),
    *_IMAGE_TAG.findall(text),
  ]


def is_external(target):
  return target.startswith(('https://', 'http://', 'mailto:'))


def test_anchors_are_those_of_github():
  text = (
    '# A *b*: `c_d`, e-f?\n## Twice\n## Twice\n```\n# no\n```\n## [x](y) z\n'
  )
  assert anchors(text) == {'a-b-c_d-e-f', 'twice', 'twice-1', 'x-z'}


def test_readme_is_short():
  lines = (ROOT / 'README.md').read_text().splitlines()
  assert len(lines) <= MAX_LINES_OF_README


def test_readme_leads_to_every_page():
  linked = {target.split('#')[0] for target in targets(PAGES[0].read_text())}
  assert {name_of(page) for page in PAGES[1:]} <= linked


@pytest.mark.parametrize('path', documents(), ids=name_of)
def test_links_lead_somewhere(path):
  text = path.read_text()
  broken = []
  for target in targets(text):
    if is_external(target):
      continue
    file, _, anchor = target.partition('#')
    other = (path.parent / file).resolve() if file else path
    if not other.exists() or not other.is_relative_to(ROOT):
      broken.append(target)
    elif anchor and anchor not in anchors(other.read_text()):
      broken.append(target)
  assert broken == []


@pytest.mark.parametrize('path', documents(), ids=name_of)
def test_no_path_of_one_machine(path):
  assert [m.group() for m in _LOCAL.finditer(path.read_text())] == []


def test_every_picture_is_shown():
  used = {
    (page.parent / target).resolve()
    for page in documents()
    for target in targets(page.read_text())
    if not is_external(target)
  }
  assert {*(ROOT / 'docs/images').iterdir()} <= used


# The names in design.md are those of modules.
@pytest.mark.parametrize(
  'path', [p for p in PAGES if p.name != 'design.md'], ids=name_of
)
def test_first_mentions_are_links(path):
  text = _HEADING.sub('', without_code(path.read_text()))
  # Labels of links between marks, pictures left out.
  text = _LINK.sub(lambda link: '' if link[1] else f'\x02{link[2]}\x03', text)
  unlinked = []
  for name in LINKED:
    found = re.search(rf'(?<![\w-]){re.escape(name)}(?!\w)', text)
    if found is None:
      continue
    before = text[: found.start()]
    if before.count('\x02') == before.count('\x03'):  # Outside of a label.
      unlinked.append(name)
  assert unlinked == []


# Commands.


def commands(text):
  """The commands of a page: lines of blocks, and inline code."""
  found = []
  for language, block in _FENCE.findall(text):
    if language in ('', 'sh', 'bash', 'shell', 'console'):
      found += block.replace('\\\n', ' ').splitlines()
  # In a cell of a table a bar is escaped.
  found += [
    c.replace('\\|', '|') for c in _INLINE.findall(_FENCE.sub('', text))
  ]
  return [
    line
    for line in map(str.strip, found)
    if line.startswith(('python ', 'make '))
  ]


def all_commands():
  return [
    pytest.param(command, id=f'{path.parent.name}-{path.name}-{i}')
    for path in (*PAGES, *CARDS)
    for i, command in enumerate(commands(path.read_text()))
  ]


def source_of(program):
  """The file of `-m module`, or of a script."""
  if program.endswith('.py'):
    return ROOT / program
  path = ROOT / program.replace('.', '/')
  return path / '__main__.py' if path.is_dir() else path.with_suffix('.py')


@functools.cache
def tree(path):
  return ast.parse(path.read_text())


def imported(path):
  """Our modules that a file imports, where they parse flags."""
  for node in ast.walk(tree(path)):
    if isinstance(node, ast.ImportFrom) and node.module:
      for alias in node.names:
        folder = ROOT / node.module.replace('.', '/')
        yield folder / f'{alias.name}.py'
    elif isinstance(node, ast.Import):
      for alias in node.names:
        yield path.parent / f'{alias.name}.py'  # Scripts import neighbours.


def defined_in(path):
  """The flags that a file defines itself, with absl or argparse."""
  flags = set()
  for node in ast.walk(tree(path)):
    if not isinstance(node, ast.Call) or not node.args:
      continue
    name = node.func.attr if isinstance(node.func, ast.Attribute) else ''
    for argument in node.args:
      if not isinstance(argument, ast.Constant):
        continue
      value = str(argument.value)
      if name == 'add_argument' and value.startswith('--'):
        flags.add(value[2:])
      elif name.startswith('DEFINE_') or name == 'declare_key_flag':
        flags.add(value)
        break
  return flags


@functools.cache
def flags_of(path):
  """The flags of a command, those of the module that parses for it included."""
  flags = defined_in(path)
  for module in imported(path):
    if module.exists() and module.name in ('app.py', 'side_by_side.py'):
      if module.name == 'app.py' and 'argparse' in path.read_text():
        continue  # It sets up logging alone.
      flags |= defined_in(module)
  return flags


@functools.cache
def load_config(text):
  """The config of `configs/NAME.py`, or of `configs/NAME.py:ARGUMENT`."""
  file, _, argument = text.partition(':')
  assert (ROOT / file).is_file(), f'{file} does not exist'
  module = importlib.import_module(file.removesuffix('.py').replace('/', '.'))
  return module.get_config(*([argument] if argument else []))


@functools.cache
def all_configs():
  return [
    load_config(name_of(path))
    for path in sorted((ROOT / 'configs').glob('[a-z]*.py'))
    if hasattr(importlib.import_module(f'configs.{path.stem}'), 'get_config')
  ]


def has_field(config, field):
  for name in field.split('.'):
    if not hasattr(config, 'keys') or name not in config:
      return False
    config = config[name]
  return True


def is_field(field, config=None):
  """Whether a config has it: the one that is named, or else any."""
  configs = all_configs() if config is None else [config]
  return any(has_field(one, field) for one in configs)


@functools.cache
def make_targets():
  """Target -> the variables of the Makefile that can be set."""
  text = (ROOT / 'Makefile').read_text()
  names = re.findall(r'^([a-z][a-z0-9-]*):', text, re.MULTILINE)
  variables = re.findall(r'^(?:export )?([A-Z0-9_]+) \?=', text, re.MULTILINE)
  return set(names), set(variables)


def check_make(arguments):
  names, variables = make_targets()
  for argument in arguments:
    name, equals, _ = argument.partition('=')
    assert name in (variables if equals else names), argument


def check_python(arguments):
  program, *arguments = arguments[1:] if arguments[0] == '-m' else arguments
  path = source_of(program)
  assert path.is_file(), f'{program} does not exist'
  flags = flags_of(path)
  options = dict(
    argument[2:].partition('=')[::2]
    for argument in arguments
    if argument.startswith('--')
  )
  config = None
  if 'config' in options:
    config = load_config(options['config'])
  for flag in options:
    if flag.startswith('config.'):
      assert 'config' in flags, f'{program} has no --config'
      field = flag.removeprefix('config.')
      assert is_field(field, config), f'--{flag} is no field'
    else:
      assert flag in flags, f'{program} has no --{flag}'
  for argument in arguments:
    if argument.startswith('--decoding='):
      field = argument.split('=')[1]
      assert is_field(f'decoding.{field}'), f'decoding has no {field}'
  if '--set' in arguments:
    field = arguments[arguments.index('--set') + 1].partition('=')[0]
    assert is_field(field), f'--set {field} is no field'
  for table in filter(None, options.get('table', '').split(',')):
    assert table in (*published.TABLES, rescored.NAME)


@pytest.mark.parametrize('command', all_commands())
def test_commands_are_what_the_programs_take(command):
  program, *arguments = shlex.split(command, comments=True)
  check = check_make if program == 'make' else check_python
  check(arguments)


@pytest.mark.parametrize('path', PAGES, ids=name_of)
def test_fields_of_configs_exist(path):
  fields = {*_OF_CONFIG.findall(path.read_text())}
  assert [field for field in fields if not is_field(field)] == []


def test_every_field_of_decoding_is_described():
  text = (ROOT / 'docs/captioning.md').read_text()
  section = text[text.index('## Decoding') : text.index('## Scores')]
  described = set()
  for row in re.findall(r'^\| (`.*?) \|', section, re.MULTILINE):
    described |= {*_INLINE.findall(row)}
  assert described == {*load_config('configs/coco.py').decoding}


def test_commands_are_found():
  """This file does check something."""
  assert len(all_commands()) > 60
  text = (
    '| a | `make x` |\n```\npython a.py \\\n  --b\n```\n```python\nmake y\n```'
  )
  assert commands(text) == ['python a.py    --b', 'make x']


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
  """On the released models that it names."""
  (code,) = (
    text
    for language, text in _FENCE.findall((ROOT / 'README.md').read_text())
    if language == 'python' and 'import' in text
  )
  pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
  PIL.Image.fromarray(pixels).save(tmp_path / 'photo.jpg')
  monkeypatch.chdir(tmp_path)
  names = {}
  exec(compile(code, 'README.md', 'exec'), names)
  caption = names['captions'][0]
  assert capsys.readouterr().out.startswith(f'{caption.text} ')
  drawing, beginning = names['drawing'], names['beginning']
  np.testing.assert_array_equal(drawing[: len(beginning)], beginning)
  assert drawing.shape[1] == 3
