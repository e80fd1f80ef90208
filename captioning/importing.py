"""Writes the workdir of a published captioner; see published.py.

The files are PyTorch's, and nothing in them is run (vision/torch_files.py):

- of the tutorial: the checkpoint, which has encoder and decoder, and the JSON
  of its word map;
- of self-critical.pytorch: `model.pth`, `infos_*.pkl` with the words, and the
  Caffe-style ResNet (`resnet101.pth`), or none for a decoder of regions.

The workdir has the preprocessing that they were trained with; `card.md`, which
lists what was mapped; and `train.py`, a config to train the captioner on. Axes:
D features.
"""

import dataclasses
import os
import pathlib
import pprint
import re
import textwrap
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import numpy as np

from captioning import model
from captioning import published
from configs import schema
from training import checkpoints
from training import text_files
from vision import pretrained
from vision import resnet
from vision import torch_files

TUTORIAL = 'https://github.com/sgrvinod/a-PyTorch-Tutorial-to-Image-Captioning'
SELF_CRITICAL = 'https://github.com/ruotianluo/self-critical.pytorch'
# The parts of a ResNet by their numbers in the tutorial's sequence.
_SEQUENCE = {
  '0': 'conv1',
  '1': 'bn1',
  '4': 'layer1',
  '5': 'layer2',
  '6': 'layer3',
  '7': 'layer4',
}
# Their decoders read the mean of all locations, before the map is pooled.
_OF_THE_MEAN = ('show_tell', 'fc', 'newfc')
_OF_REGIONS = ('updown', 'adaatt', 'adaattmo', 'show_attend_tell')
_GRID = 14
_TRAINING = '''"""Trains the captioner of this workdir on.

  python -m captioning.main --config=runs/fc/train.py --workdir=runs/fc_tuned

Its encoder is frozen: pass --config.frozen='()' to fine-tune it.
"""

import pathlib

import ml_collections


def get_config():
  config = ml_collections.ConfigDict(
{fields}
  )
  config.data.data_dir = ml_collections.config_dict.placeholder(str)
  config.start_from = str(pathlib.Path(__file__).parent)
  return config
'''


@dataclasses.dataclass(frozen=True)
class Imported:
  """A captioner, ready to be written.

  Attributes:
    layout: a key of `published.LAYOUTS`.
    config: the experiment, with their preprocessing.
    training: the config of a run that starts from it.
    variables: of the network.
    words: the vocabulary.
    card: what was mapped, in Markdown.
  """

  layout: str
  config: ml_collections.ConfigDict
  training: ml_collections.ConfigDict
  variables: dict[str, Any]
  words: list[str]
  card: str


def load(
  weights: str | os.PathLike,
  words: str | os.PathLike,
  configs: Mapping[str, ml_collections.ConfigDict],
  *,
  encoder: str | os.PathLike | None = None,
  regions: str = '',
  name: str = 'coco_captions',
) -> Imported:
  """Reads and maps a published captioner.

  Args:
    weights: the checkpoint.
    words: the word map of the tutorial, or infos with `vocab`.
    configs: experiments by their `model`, which the workdir begins with.
    encoder: the ResNet's weights, where the checkpoint has none.
    regions: name of imported region features, for a decoder without encoder.
    name: of the data set, for evaluation.

  Raises:
    OSError: a file cannot be opened.
    ValueError: a file is damaged, has another layout, or the files do not
      belong together.
  """
  contents = torch_files.load(weights)
  try:
    decoder, inside = _split(contents)
    arrays, folded = published.fold_norm(pretrained.to_float32(decoder))
    shapes = {name: x.shape for name, x in arrays.items()}
    layout = published.find_layout(shapes)
    sizes = published.check(layout, shapes)
  except ValueError as error:
    raise ValueError(f'{weights}: {error}') from error
  numbers, vocabulary = _read_words(words, layout, sizes['V'])
  params = published.LAYOUTS[layout].params(published.Weights(arrays, numbers))

  config = make_config(configs, layout, sizes, regions=regions, name=name)
  variables = {'params': {'decoder': params}}
  origin = 'none: it reads region features'
  if not regions:
    variables, origin = _add_encoder(
      variables, config, layout, sizes['D'], encoder, inside, weights
    )
  elif encoder:
    raise ValueError(
      f'with regions={regions!r} no encoder is used: leave out --encoder'
    )
  schema.CAPTIONING.check(config, str(weights), training=False)
  training = _make_training_config(config, configs[config.model])
  schema.CAPTIONING.check(training, str(weights))
  _check_shapes(config, len(vocabulary), variables)
  card = _card(
    layout, sizes, config, variables, vocabulary, weights, origin, folded
  )
  return Imported(layout, config, training, variables, vocabulary, card)


def write(workdir: pathlib.Path, imported: Imported):
  """Writes the workdir: the configs, a checkpoint at step 0 and the card.

  Raises:
    ValueError: there is a checkpoint already.
  """
  config = imported.config
  extras = {'config': config.to_dict(), 'vocabulary': imported.words}
  checkpoints.write_imported(workdir, config, imported.variables, extras)
  published.vocabulary_lib.Vocabulary(imported.words).save(
    workdir / published.vocabulary_lib.FILE
  )
  fields = pprint.pformat(imported.training.to_dict(), indent=1, width=70)
  fields = _TRAINING.format(fields=textwrap.indent(fields, '    '))
  (workdir / 'train.py').write_text(fields, encoding='utf-8')
  (workdir / 'card.md').write_text(imported.card, encoding='utf-8')


def make_config(
  configs: Mapping[str, ml_collections.ConfigDict],
  layout: str,
  sizes: Mapping[str, int],
  *,
  regions: str,
  name: str,
) -> ml_collections.ConfigDict:
  """The experiment, with their preprocessing."""
  tutorial = layout == 'tutorial'
  config = configs[published.LAYOUTS[layout].model]
  config = config.copy_and_resolve_references()
  # The tutorial squashes images to a square; Luo's code takes them whole.
  side = 256 if tutorial else 0
  config.data.update(name=name, resize=0, crop=side)
  config.regions = regions
  config.cache_features = False
  config.encoder = dict(depth=101)
  if layout not in _OF_THE_MEAN:
    config.encoder.grid_size = _GRID
  if not tutorial:
    config.encoder.layout = 'caffe'
  config.encoder_weights = ''
  config.decoder = published.decoder_arguments(layout, sizes)
  config.decoding.update(
    beam_size=5, max_length=52 if tutorial else 20, shrink_beam=tutorial
  )
  if not side and not regions:
    config.eval_batch_size = 1  # Whole images differ in size.
  return config


def _make_training_config(
  config: ml_collections.ConfigDict, base: ml_collections.ConfigDict
) -> ml_collections.ConfigDict:
  """The config to train on with, on crops where theirs are whole images."""
  config = config.copy_and_resolve_references()
  if not config.data.crop:
    config.data.update(resize=base.data.resize, crop=base.data.crop)
    config.eval_batch_size = base.eval_batch_size
  return config


def _split(
  contents: Any,
) -> tuple[dict[str, torch_files.Tensor], dict[str, torch_files.Tensor] | None]:
  """The tensors of the decoder, and those of the encoder beside it."""
  if isinstance(contents, dict) and 'decoder' in contents:
    encoder = contents.get('encoder')
    return (
      torch_files.tensors(contents['decoder']),
      None if encoder is None else torch_files.tensors(encoder),
    )
  return torch_files.tensors(contents), None


def _read_words(
  path: str | os.PathLike, layout: str, size: int
) -> tuple[np.ndarray, list[str]]:
  """Our numbers of their words, and our vocabulary.

  Raises:
    ValueError: the file has no words, or not `size`.
  """
  path = pathlib.Path(path)
  read = text_files.read_json if path.suffix == '.json' else torch_files.load
  contents = read(path)
  tutorial = layout == 'tutorial'
  advice = (
    'pass the WORDMAP_*.json of the tutorial'
    if tutorial
    else 'pass the infos_*.pkl of the model'
  )
  try:
    numbers, vocabulary = (_word_map if tutorial else _infos)(contents)
  except (TypeError, ValueError, KeyError) as error:
    raise ValueError(f'{path} has no words ({error}): {advice}') from error
  if len(numbers) != size:
    raise ValueError(
      f'{path} has {len(numbers)} words with the special ones, the weights '
      f'have {size}: {advice}'
    )
  return numbers, vocabulary


def _word_map(contents: Any) -> tuple[np.ndarray, list[str]]:
  """Reads {'a': 1, ..., '<unk>': 7, '<start>': 8, '<end>': 9, '<pad>': 0}."""
  special = {
    '<pad>': published.PAD,
    '<start>': published.BOS,
    '<end>': published.EOS,
    '<unk>': published.UNK,
  }
  words = dict(contents)
  if sorted(words.values()) != list(range(len(words))):
    raise ValueError('the numbers of the words are not 0, 1, 2, ...')
  missing = [word for word in special if word not in words]
  if missing:
    raise ValueError(f'{", ".join(missing)} is missing')
  numbers, vocabulary = [], [*published.vocabulary_lib.SPECIAL]
  for word in sorted(words, key=words.get):
    if word in special:
      numbers.append(special[word])
    else:
      numbers.append(len(vocabulary))
      vocabulary.append(word)
  return np.array(numbers), _distinct(vocabulary)


def _infos(contents: Any) -> tuple[np.ndarray, list[str]]:
  """Reads {'vocab': {'1': 'a', ...}, ...}, or the data set's 'ix_to_word'."""
  vocab = contents.get('vocab', contents.get('ix_to_word'))
  if not isinstance(vocab, dict):
    raise ValueError('it has no field vocab')
  words = {int(key): word for key, word in vocab.items()}
  if sorted(words) != list(range(1, len(words) + 1)):
    raise ValueError('the numbers of the words are not 1, 2, ...')
  ordered = [words[i] for i in sorted(words)]
  if not all(isinstance(word, str) for word in ordered):
    raise ValueError('a word is no text')
  numbers, vocabulary = published.numbers_of(ordered)
  return numbers, _distinct(vocabulary)


def _distinct(words: list[str]) -> list[str]:
  """The words; ValueError if some occur twice."""
  return published.vocabulary_lib.Vocabulary(words).words


def _add_encoder(
  variables, config, layout, features, encoder, inside, weights
) -> tuple[dict[str, Any], str]:
  """Adds the ResNet to the variables, and its depth to the config."""
  if layout in _OF_REGIONS:
    raise ValueError(
      f'{weights} is {layout}, which reads imported features: pass '
      '--regions=NAME of those that scripts/import_regions.py imported'
    )
  if encoder is None and inside is None:
    raise ValueError(
      f'{weights} has no encoder: pass --encoder=resnet101.pth of '
      f'{SELF_CRITICAL}, or --regions=NAME'
    )
  if encoder is None:
    source = weights
    tensors = {_in_sequence(name): x for name, x in inside.items()}
    try:
      tensors = pretrained.to_float32(tensors)
    except ValueError as error:
      raise ValueError(f'{weights}: {error}') from error
  else:
    source, tensors = encoder, pretrained.read(encoder)
  network = pretrained.architecture_of(tensors, source)
  if not isinstance(network, resnet.ResNet):
    raise ValueError(
      f'{source} is a VGG-{network.depth}, the decoder was trained with a '
      'ResNet: pass its weights'
    )
  encoder = pretrained.from_tensors(tensors, network.depth, source)
  last = [x.shape[0] for name, x in tensors.items() if 'layer4.' in name]
  if features not in last:
    raise ValueError(
      f'{source} is a ResNet-{network.depth} of {max(last)} features, the '
      f'decoder reads {features}: pass the encoder that it was trained with'
    )
  config.encoder.depth = network.depth
  if network.width != 64:
    config.encoder.width = network.width
  added = {name: {'encoder': tree} for name, tree in encoder.items()}
  added['params']['decoder'] = variables['params']['decoder']
  return added, f'ResNet-{network.depth} of `{pathlib.Path(source).name}`'


def _in_sequence(name: str) -> str:
  """'resnet.4.0.conv1.weight' -> 'layer1.0.conv1.weight'."""
  found = re.fullmatch(r'resnet\.(\d)\.(.+)', name)
  if found and found[1] in _SEQUENCE:
    return f'{_SEQUENCE[found[1]]}.{found[2]}'
  return name


def _check_shapes(config, vocab_size: int, variables):
  """Compares the variables with those that the network would have."""
  network = model.create(config, vocab_size, with_encoder=not config.regions)
  features = variables['params']['decoder']
  image = np.zeros((1, 64, 64, 3), np.uint8)
  if config.regions:
    image = np.zeros((1, 2, _features(config, features)), np.float32)
  template = jax.eval_shape(
    lambda: network.init(
      jax.random.key(0), image, np.zeros((1, 1, 3), np.int32), train=False
    )
  )
  expected, found = (
    {
      jax.tree_util.keystr(path, simple=True, separator='/'): x.shape
      for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }
    for tree in (template, variables)
  )
  wrong = [
    f'{name} {found.get(name)} instead of {expected.get(name)}'
    for name in sorted(found.keys() | expected.keys())
    if found.get(name) != expected.get(name)
  ]
  if wrong:
    raise AssertionError(f'the mapping is wrong: {"; ".join(wrong)}')


def _features(config, params: Mapping[str, Any]) -> int:
  """D, from the first layer that reads the features."""
  if 'annotation' in params:
    return len(params['annotation']['kernel'])
  if 'image' in params:
    return len(params['image']['kernel'])
  return len(params['attend']['key_layers_0']['kernel'])


def _card(
  layout, sizes, config, variables, words, weights, origin, folded
) -> str:
  """Lists the facts and the tensors in Markdown."""
  entry = published.LAYOUTS[layout]
  tutorial = layout == 'tutorial'
  preprocessing = (
    'both sides resized to 256, no crop'
    if tutorial
    else 'whole images, neither resized nor cropped'
  )
  if config.regions:
    preprocessing = f'none: region features `{config.regions}`'
  count = sum(x.size for x in jax.tree.leaves(variables['params']))
  facts = {
    'layout': f'`{layout}` of {TUTORIAL if tutorial else SELF_CRITICAL}',
    'weights': f'`{pathlib.Path(weights).name}`',
    'our model': f'`{entry.model}`, {dict(config.decoder)}',
    'encoder': origin,
    'images': preprocessing,
    'words': f'{len(words)} with padding, begin, end and unknown',
    'sizes': ', '.join(f'{k} {x}' for k, x in sorted(sizes.items())),
    'parameters': f'{count}',
  }
  if entry.unread:
    facts['not read'] = ', '.join(f'`{name}`' for name in entry.unread)
  if folded:
    facts['folded'] = f'BatchNorm `{folded}` into the layer behind it'
  lines = ['# An imported captioner', '', '| | |', '|---|---|']
  lines += [f'| {key} | {value} |' for key, value in facts.items()]
  lines += [
    '',
    'Its scores have not been measured. Their licence is that of its authors.',
    '`train.py` is a config of `captioning.main` to train it on.',
    '',
    '## Tensors',
    '',
    '| theirs | shape |',
    '|---|---|',
  ]
  lines += [
    f'| `{name}` | {shape} |'
    for name, shape in published.expected(entry.shapes).items()
  ]
  return '\n'.join([*lines, ''])
