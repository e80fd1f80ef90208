"""Every config loads, and every field of every config is read somewhere."""

import ast
import importlib
import inspect
import itertools
import pathlib

import ml_collections
import pytest
from absl import flags
from ml_collections import config_flags

from captioning import model as captioners
from configs import common
from sketch_rnn import model as sketch_rnn
from video import encoders
from video.captioning import model as clip_captioners
from video.classification import deep_gru
from video.classification import model as classifiers
from video.tracking import boxes
from video.tracking import inference
from video.tracking import losses
from vision import resnet

ROOT = pathlib.Path(__file__).parents[1]
NAMES = sorted(
  path.stem
  for path in (ROOT / 'configs').glob('*.py')
  if path.stem not in ('__init__', 'common', 'rules', 'schema')
)
SHARED = ('recurrent', 'vision', 'training')
# Command -> the code that may read its config, files or directories.
CODE = {
  'captioning.main': ('captioning', *SHARED),
  'sketch_rnn.main': ('sketch_rnn', *SHARED),
  'video.classify': ('video/*.py', 'video/classification', *SHARED),
  'video.caption': (
    'video/*.py',
    'video/captioning',
    'captioning/vocabulary.py',
    'captioning/earlier.py',
    'captioning/metrics.py',
    'captioning/self_critical.py',
    *SHARED,
  ),
  'video.track': ('video/*.py', 'video/tracking', *SHARED),
}
# What holds a config, or a group of one, where its fields are read.
HOLDERS = {'config', '_config', 'fields', 'change', 'decoding'}
ANY = '*'  # A field that a variable names.
# Earlier names, which are refused.
NOT_READ_BY = 'training/renamed.py'


def encoder(config):
  return resnet.ResNet if 'depth' in config.encoder else encoders.FrameCNN


def classifier(config):
  deep = 'widths' in config.model
  return deep_gru.DeepGRU if deep else classifiers.Classifier


# Command -> groups that are arguments of something -> of what.
ARGUMENTS = {
  'captioning.main': {
    'encoder': encoder,
    'decoder': lambda config: captioners.DECODERS[config.model],
  },
  'sketch_rnn.main': {'model': lambda config: sketch_rnn.SketchRNN},
  'video.classify': {
    'encoder': encoder,
    'model': classifier,
  },
  'video.caption': {
    'encoder': encoder,
    'decoder': lambda config: clip_captioners.DECODERS[config.model],
  },
  'video.track': {
    'model': lambda config: inference.TRACKERS[config.tracker],
    'jitter': lambda config: boxes.jitter,
    'self_feeding': lambda config: losses.self_fed_share,
  },
}


def arguments(module):
  """What may follow the name of a config and a colon; '' for nothing."""
  parameters = inspect.signature(module.get_config).parameters
  tables = {
    'model': ['MODELS'],
    'phase': ['PHASES'],
    'setting': ['SETTINGS'],
  }
  tables['model_and_phase'] = ['MODELS', 'PHASES']
  tables['set_model_and_phase'] = ['SETS', 'MODELS', 'PHASES']
  for name in parameters:
    keys = [list(getattr(module, table)) for table in tables[name]]
    return ['', *map('/'.join, itertools.product(*keys))]
  return ['']


EXPERIMENTS = [
  (name, argument)
  for name in NAMES
  for argument in arguments(importlib.import_module(f'configs.{name}'))
]


def load(name, argument=''):
  module = importlib.import_module(f'configs.{name}')
  return module.get_config(*([argument] if argument else []))


def command(name):
  """The command that trains a config: that of its example."""
  text = importlib.import_module(f'configs.{name}').__doc__
  (found,) = {key for key in CODE if f'python -m {key} --config' in text}
  return found


def leaves(config, path=()):
  """The paths of all fields that are no groups."""
  for key, value in config.items():
    if isinstance(value, ml_collections.ConfigDict) and value:
      yield from leaves(value, (*path, key))
    else:
      yield (*path, key)


def files(patterns):
  for pattern in patterns:
    for path in ROOT.glob(pattern):
      yield from [path] if path.is_file() else path.rglob('*.py')


def read_fields(name):
  """(what holds it, the field), for all that the code of a command reads.

  An attribute of a name in HOLDERS, or of a group; or a key in brackets, where
  a variable stands for all fields of a group inside another one.
  """
  found = set()
  for path in files(CODE[name]):
    if str(path.relative_to(ROOT)) == NOT_READ_BY:
      continue
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Attribute):
        holder, field = node.value, node.attr
      elif isinstance(node, ast.Subscript):
        key = node.slice
        holder = node.value
        field = key.value if isinstance(key, ast.Constant) else ANY
      else:
        continue
      # `config.data`, not `data`: that is a module.
      if isinstance(holder, ast.Attribute):
        found.add((holder.attr, field))
      elif isinstance(holder, ast.Name) and holder.id in HOLDERS:
        found.add((holder.id, field))
  return found


def unread(config, name, read):
  """The fields that nothing reads, of the config of a command."""
  missing = []
  for *groups, field in leaves(config):
    if groups and groups[0] in ARGUMENTS[name]:
      callee = ARGUMENTS[name][groups[0]](config)
      if field not in inspect.signature(callee).parameters:
        missing.append('.'.join([*groups, field]))
    elif not any(
      (holder, field) in read for holder in (*HOLDERS, *groups[-1:])
    ) and not (len(groups) > 1 and (groups[-1], ANY) in read):
      missing.append('.'.join([*groups, field]))
  return missing


@pytest.fixture(scope='module')
def read_by():
  """Command -> what its code reads."""
  return {name: read_fields(name) for name in CODE}


def test_there_are_configs():
  assert {'coco', 'ucm', 'scenes', 'sketch_kanji', 'skeletons'} <= {*NAMES}
  assert ('ucm', 'att2in/self_critical') in EXPERIMENTS


@pytest.mark.parametrize(('name', 'argument'), EXPERIMENTS)
def test_every_field_is_read(name, argument, read_by):
  config = load(name, argument)
  main = command(name)
  assert unread(config, main, read_by[main]) == []


@pytest.mark.parametrize(
  ('name', 'path'),
  [
    ('msvd_s2vt', 'data.rate'),  # `data.rate` is a function, too.
    ('att2in_coco', 'loss.scheduled_sampling.max'),
    ('scenes', 'decoder.hidden'),
    ('occlusion_track', 'jitter.rotation'),
    ('skeletons', 'loss.framewise'),
    ('coco', 'dampening'),
  ],
)
def test_a_field_that_nothing_reads_is_found(name, path, read_by):
  config = load(name)
  *groups, field = path.split('.')
  group = config
  for key in groups:
    group = group[key]
  with group.unlocked():
    group[field] = 0.0
  main = command(name)
  assert unread(config, main, read_by[main]) == [path]


@pytest.mark.parametrize('name', NAMES)
def test_arguments_change_values_and_no_fields(name):
  """But for the arguments of the networks that they choose."""
  networks = {'encoder', 'decoder', 'model'}
  fields = [
    {path for path in leaves(load(*experiment)) if path[0] not in networks}
    for experiment in EXPERIMENTS
    if experiment[0] == name
  ]
  assert all(found == fields[0] for found in fields)


@pytest.mark.parametrize('name', NAMES)
def test_configs_are_made_anew(name):
  """A field that somebody changes is not changed in the next one."""
  config = load(name)
  config.optimizer.learning_rate = 17.0
  config.data.name = 'other'
  assert load(name).optimizer.learning_rate != 17.0
  assert load(name).data.name != 'other'


# Of ml_collections, which loads files as Python 3.11 still can.
load_module = pytest.mark.filterwarnings(
  'ignore:the load_module:DeprecationWarning'
)


def flag_of(path):
  """The config as --config=PATH makes it."""
  values = flags.FlagValues()
  config = config_flags.DEFINE_config_file('config', flag_values=values)
  values(['program', f'--config={path}'])
  return config.value


@load_module
def test_files_load_by_path_from_anywhere(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for name, argument in (('coco', ''), ('ucm', 'att2in/self_critical')):
    path = f'{ROOT}/configs/{name}.py' + (argument and f':{argument}')
    assert flag_of(path).to_dict() == load(name, argument).to_dict()


@load_module
@pytest.mark.parametrize(
  ('path', 'message'),
  [
    ('ucm.py:att3in', 'att3in'),
    ('ucm.py:soft/both', 'cross_entropy, self_critical'),
    ('up_down_coco.py:both', 'cross_entropy, self_critical'),
    ('utd_mhad_depth.py:all', 'held_out, all_subjects'),
    ('skeletons.py:kth/ours', 'utd_mhad, sbu, msr, yours'),
    ('skeletons.py:sbu/theirs', 'ours, deepgru'),
    ('ordered_motion.py:grus', 'gru, lstm, lrcn, conv_lstm, bag'),
  ],
)
def test_unknown_arguments_name_the_known_ones(path, message):
  with pytest.raises(flags.IllegalFlagValueError, match=message):
    flag_of(f'{ROOT}/configs/{path}')


# The defaults.


def functions():
  return {
    name: function
    for name, function in vars(common).items()
    if inspect.isfunction(function) and not name.startswith('_')
  }


def test_all_defaults_are_used():
  used = {
    node.attr
    for path in (ROOT / 'configs').glob('*.py')
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.Attribute)
    and isinstance(node.value, ast.Name)
    and node.value.id == 'common'
  }
  inside = {
    node.func.id
    for node in ast.walk(ast.parse(inspect.getsource(common)))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
  }
  assert {*functions()} <= used | inside
  assert used <= {*functions()}


def test_unknown_fields_are_refused():
  groups = [
    function
    for function in functions().values()
    if 'changes' in inspect.signature(function).parameters
  ]
  assert len(groups) > 8
  for group in groups:
    with pytest.raises(ValueError, match='lerning_rate: no such field here'):
      group(lerning_rate=1.0)


def test_fields_without_a_default_are_asked_for():
  with pytest.raises(ValueError, match='pass learning_rate too'):
    common.optimizer(schedule='constant')


@pytest.mark.parametrize('name', functions())
def test_docstrings_explain_every_field(name):
  function = functions()[name]
  if name == 'chosen':
    return
  source = ast.parse(inspect.getsource(function))
  fields = {
    keyword.arg
    for node in ast.walk(source)
    if isinstance(node, ast.Call)
    and isinstance(node.func, ast.Name)
    and node.func.id == 'dict'
    for keyword in node.keywords
  }
  explained = set()
  for line in function.__doc__.split('\n'):
    head, colon, _ = line.strip().partition(': ')
    if colon:
      explained |= {*head.split(', ')}
  nested = {
    'captioning_loss': {'reinforce', 'entropy', 'baseline_decay'},
    'clip_captioning': {'label_smoothing'},
    'tracking': {'correlation', 'centre', 'size'},
  }
  assert fields - nested.get(name, set()) <= explained
