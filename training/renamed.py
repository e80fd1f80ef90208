"""Config fields that were renamed or added.

Earlier configs, workdirs and commands are refused with an error that states the
new name: an alias would leave two names for one thing. Fields that an earlier
workdir lacks get the value that means what it did.
"""

from collections.abc import Sequence
from typing import Any

import ml_collections

# Earlier field -> new field; None for a field without a successor.
_FIELDS = {
  'augmentation.least_span': 'augmentation.min_span',
  'augmentation.turn': 'augmentation.rotation',
  'average_decay': 'ema_decay',
  'data.photographs': 'data.images',
  'data.rate': None,
  'decoding.diversity': 'decoding.diversity_penalty',
  'decoding.forbid': 'decoding.forbidden_words',
  'decoding.groups': 'decoding.num_groups',
  'decoding.no_repeat': 'decoding.no_repeat_ngram',
  'decoding.required': 'decoding.required_words',
  'encoder.small_inputs': 'encoder.stem',
  'loss.of': 'loss.kind',
  'loss.scheduled_sampling.most': 'loss.scheduled_sampling.max_probability',
  'self_feeding.most': 'self_feeding.max_share',
  'train_statistics': 'train_batch_stats',
}

# A field -> those beside it that were added later, with the value of before.
_ADDED: dict[str, dict[str, Any]] = {
  'decoding.beam_size': {
    'length_penalty_form': 'power',
    'group_order': 'paper',
    'shrink_beam': False,
    'temperature': 0.0,
    'samples': 1,
    'top_k': 0,
    'top_p': 1.0,
    'seed': 0,
    'ngram_penalty': 0.0,
    'no_repeat_last': False,
    'no_repeat_content': False,
  },
  'num_steps': {'patience': 0},
  'augmentation.min_span': {'persons': 0},
  'data.vocabulary_threshold': {'tokenizer': 'words'},
  'buckets': {'start_from': ''},  # Of sketch_rnn.main.
  'regions': {'buckets': ()},  # Of captioning.main alone.
  # Of video.caption alone.
  'frame_labels': {
    'start_from': '',
    'self_critical': {
      'num_samples': 0,
      'baseline': 'leave_one_out',
      'cider': 1.0,
      'bleu': 0.0,
      'workers': 2,
    },
  },
  'optimizer.b1': {
    'kind': 'adam',
    'momentum': 0.0,
    'nesterov': False,
    'rms_decay': 0.99,
    'epsilon': 1e-8,
  },
}


def add_fields(config: ml_collections.ConfigDict):
  """Adds fields that the config of an earlier workdir lacks."""
  for name, fields in _ADDED.items():
    if not _has(config, name):
      continue
    group = config
    for parent in name.split('.')[:-1]:
      group = group[parent]
    for field, value in fields.items():
      if field not in group:
        group[field] = value


def check_config(config: ml_collections.ConfigDict, origin: str):
  """Raises a ValueError if a config has renamed fields.

  Args:
    config: an experiment.
    origin: its file or flag, for the error.
  """
  found = [name for name in _FIELDS if _has(config, name)]
  if found:
    raise ValueError(
      f'{origin} was written by an earlier version: '
      f'{"; ".join(_advice(name) for name in found)}'
    )


def check_arguments(arguments: Sequence[str]):
  """Raises a ValueError if a flag --config.FIELD names a renamed field."""
  for argument in arguments:
    name = argument.lstrip('-').partition('=')[0]
    if name.startswith('config.') and name[len('config.') :] in _FIELDS:
      raise ValueError(f'{argument}: {_advice(name[len("config.") :])}')


def check_option(fields: str, option: str):
  """Raises a ValueError if FIELD=VALUE names a renamed field.

  Args:
    fields: name of the part of the config, such as 'decoding'.
    option: FIELD=VALUE.
  """
  name = f'{fields}.{option.partition("=")[0]}'
  if name in _FIELDS:
    raise ValueError(f'{option!r}: {_advice(name)}')


def _has(config, name):
  *parents, last = name.split('.')
  for parent in parents:
    config = config.get(parent)
    if not isinstance(config, ml_collections.ConfigDict):
      return False
  return last in config


def _advice(name):
  new = _FIELDS[name]
  if new is None:
    return f'config.{name} is gone, since nothing read it: leave it out'
  return f'config.{name} is config.{new} now'
