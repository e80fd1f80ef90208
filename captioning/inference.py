"""From a trained workdir, or a running training, to sentences.

Axes: B pictures, T words.
"""

import ast
import dataclasses
import functools
import pathlib
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import ml_collections
import numpy as np

from captioning import model
from captioning import vocabulary as vocabulary_lib
from recurrent import search
from training import app
from training import checkpoints
from training import parallel
from vision import images
from vision import pretrained
from vision import resnet

# The frozen encoder of a run on cached features, beside its checkpoints.
ENCODER_FILE = 'encoder.safetensors'


@dataclasses.dataclass(frozen=True)
class Caption:
  """A sentence and how probable the model finds it (natural logarithm)."""

  text: str
  log_prob: float


@dataclasses.dataclass(frozen=True)
class Trained:
  """What a workdir holds: all that captioning needs."""

  config: ml_collections.ConfigDict
  vocabulary: vocabulary_lib.Vocabulary
  captioner: model.Captioner
  variables: Any
  step: int


def load(workdir: pathlib.Path, *, with_encoder: bool = True) -> Trained:
  """The best checkpoint of a run.

  Args:
    workdir: of the run.
    with_encoder: False for a captioner that is given the run's features.

  Raises:
    FileNotFoundError: nothing was trained there.
    ValueError: the run has no encoder, since it saw imported regions.
  """
  config = app.read_config(workdir)
  if with_encoder and config.regions:
    raise ValueError(
      f'{workdir} was trained on the region features {config.regions!r}, which '
      'a detector made: of photographs alone it can describe none'
    )
  variables, extras, step = checkpoints.load(
    workdir, best_metric=config.best_metric, mode=config.best_mode
  )
  vocabulary = vocabulary_lib.Vocabulary(extras['vocabulary'])
  captioner = model.create(config, len(vocabulary), with_encoder=with_encoder)
  if with_encoder and config.cache_features:
    encoder = pretrained.load(workdir / ENCODER_FILE, config.encoder.depth)
    variables = put_encoder(variables, encoder)
  return Trained(
    config, vocabulary, captioner, parallel.replicate(variables), step
  )


def check_ensemble(members: Sequence[Trained]):
  """Raises a ValueError unless one batch and one vocabulary suit them all."""
  first = members[0]
  for member in members[1:]:
    if member.vocabulary != first.vocabulary:
      raise ValueError(
        'captioners of an ensemble need the same vocabulary: train them on '
        'the same data, or with start_from'
      )
    for field in ('data', 'encoder', 'cache_features', 'regions'):
      if member.config[field] != first.config[field]:
        raise ValueError(
          f'captioners of an ensemble see the same pictures, but config.{field}'
          f' is {first.config[field]} for one and {member.config[field]} for '
          'another'
        )


def encodes(config: ml_collections.ConfigDict) -> bool:
  """Whether a run's captioner is given pictures, rather than features."""
  return not (config.cache_features or config.regions)


def put_encoder(variables: Any, encoder: Any) -> Any:
  """A captioner's variables with the encoder's collections put in."""
  result = {name: dict(tree) for name, tree in variables.items()}
  for name, tree in encoder.items():
    result.setdefault(name, {})['encoder'] = tree
  return result


def encode_step(config: ml_collections.ConfigDict, encoder: Any) -> Callable:
  """Pictures uint8[B, H, W, 3] -> grids f32[B, L, D], on this host's devices.

  Args:
    config: of the run.
    encoder: the ResNet's variables.
  """
  network = resnet.ResNet(**config.encoder, dtype=jnp.dtype(config.dtype))
  variables = parallel.replicate(encoder)

  def encode(variables, batch):
    pictures = images.normalize(batch['picture'])
    return network.apply(variables, pictures, train=False)[0]

  step = parallel.map_devices(encode)
  return lambda pictures: step(variables, parallel.shard({'picture': pictures}))


def change_decoding(
  decoding: ml_collections.ConfigDict, options: Sequence[str]
) -> ml_collections.ConfigDict:
  """A copy in which some fields are others.

  Args:
    decoding: of a config.
    options: each FIELD=VALUE, the value as Python writes it: `beam_size=3`,
      `required=(('dog', 'dogs'), 'ball')`.

  Raises:
    ValueError: no such field, or no such value.
  """
  changed = ml_collections.ConfigDict(decoding.to_dict())
  for option in options:
    field, equals, value = option.partition('=')
    if not equals or field not in decoding:
      raise ValueError(
        f'{option!r} must be FIELD=VALUE; the fields are {", ".join(decoding)}'
      )
    try:
      value = ast.literal_eval(value)
    except (ValueError, SyntaxError) as error:
      raise ValueError(
        f'{option!r}: {value} is not a value as Python writes it'
      ) from error
    wanted = type(decoding[field])
    if isinstance(value, int) and wanted is float:
      value = float(value)
    if wanted is list:  # A tuple that was stored as JSON.
      value = list(value) if isinstance(value, tuple) else value
    if not isinstance(value, wanted):
      raise ValueError(
        f'{option!r}: {field} must be like {decoding[field]!r}, not {value!r}'
      )
    changed[field] = value
  return changed


def rules(
  decoding: ml_collections.ConfigDict, vocabulary: vocabulary_lib.Vocabulary
) -> search.Rules:
  """What captions must and must not hold, from words to numbers.

  Args:
    decoding: `min_length`, `no_repeat`, and words: `bad_endings`, `forbid`
      and `required`, of which each is one word or several alternatives.
    vocabulary: words to numbers.

  Raises:
    ValueError: a word is not in the vocabulary.
  """

  def numbers(field, words):
    unknown = [word for word in words if word not in vocabulary.words]
    if unknown:
      raise ValueError(
        f'decoding.{field}: {", ".join(unknown)} is not among the '
        f'{len(vocabulary)} words of the vocabulary'
      )
    return tuple(vocabulary.words.index(word) for word in words)

  return search.Rules(
    forbid=(
      vocabulary_lib.PAD_ID,
      vocabulary_lib.BOS_ID,
      vocabulary_lib.UNK_ID,
      *numbers('forbid', decoding.forbid),
    ),
    min_length=decoding.min_length,
    no_repeat=decoding.no_repeat,
    bad_endings=numbers('bad_endings', decoding.bad_endings),
    required=tuple(
      numbers('required', [words] if isinstance(words, str) else words)
      for words in decoding.required
    ),
  )


def describe_step(
  captioners: Sequence[model.Captioner],
  decoding: ml_collections.ConfigDict,
  vocabulary: vocabulary_lib.Vocabulary,
) -> Callable:
  """A step for `describe`: compiled once, for one shape of batch.

  Args:
    captioners: the model, or those of an ensemble.
    decoding: `beam_size`, `length_penalty`, `max_length`, `groups`,
      `diversity` and what `rules` reads.
    vocabulary: of all of them.

  Returns:
    `(variables of each, batch) -> (tokens i32[B, K, T], log_probs f32[B, K])`,
    the beams of each picture, best first, gathered from all hosts.
  """
  constraints = rules(decoding, vocabulary)

  def predict(variables, batch):
    picture, locations = batch['picture'], batch.get('locations')
    steps, carries = [], []
    for captioner, of_captioner in zip(captioners, variables, strict=True):
      apply = functools.partial(captioner.apply, of_captioner)
      carry, context = apply(picture, locations, method='begin')
      carries.append(carry)
      steps.append(functools.partial(_step, apply, context))
    found = search.beam_search(
      search.ensemble(steps),
      tuple(carries),
      bos=vocabulary_lib.BOS_ID,
      eos=vocabulary_lib.EOS_ID,
      beam_size=decoding.beam_size,
      length_penalty=decoding.length_penalty,
      max_length=decoding.max_length,
      groups=decoding.groups,
      diversity=decoding.diversity,
      rules=constraints,
    )
    return found.tokens, found.log_probs

  return parallel.predict_step(predict)


def _step(apply, context, carry, tokens):
  return apply(carry, tokens, context, method='step')


def describe(
  step: Callable,
  variables: Sequence[Any],
  batches: Iterable[dict[str, np.ndarray]],
  vocabulary: vocabulary_lib.Vocabulary,
) -> list[list[Caption]]:
  """The captions of each picture, in the order of the data set, on every host.

  Args:
    step: of `describe_step`.
    variables: of each captioner.
    batches: of `batching.evaluation_batches`: `picture` and `mask`.
    vocabulary: numbers to words.

  Returns:
    For each picture its beams, the best first.
  """
  captions = []
  for host, batch in parallel.prefetch(batches):
    app.raise_if_stopping()
    tokens, log_probs = step(tuple(variables), batch)
    mask = parallel.gather(host['mask'])
    for beams, scores in zip(tokens[mask], log_probs[mask], strict=True):
      found = [
        Caption(vocabulary.decode(ids), float(log_prob))
        for ids, log_prob in zip(beams, scores, strict=True)
      ]
      # Where the rules leave fewer captions than beams, the rest are none; the
      # first is kept in any case.
      real = [caption for caption in found if np.isfinite(caption.log_prob)]
      captions.append(real or found[:1])
  return captions


def attention_step(captioner: model.Captioner) -> Callable:
  """`(variables, batch) -> f32[B, T, L]`: where each of `tokens` looked."""

  def predict(variables, batch):
    _, y = captioner.apply(variables, *model.inputs(batch), train=False)
    return y['attention'][:, 0]

  return parallel.predict_step(predict)
