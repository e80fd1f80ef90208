"""From a trained workdir, or a running training, to sentences.

Axes: B pictures, T words.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import ml_collections
import numpy as np

from captioning import feature_cache
from captioning import model
from captioning import vocabulary as vocabulary_lib
from recurrent import decoder
from recurrent import search
from training import app
from training import checkpoints
from training import parallel
from training import prediction
from vision import images
from vision import resnet


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
    encoder = feature_cache.load_encoder(config, workdir)
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


def describe_step(
  captioners: Sequence[model.Captioner],
  decoding: ml_collections.ConfigDict,
  vocabulary: vocabulary_lib.Vocabulary,
) -> Callable:
  """A step for `describe`: compiled once, for one shape of batch.

  Args:
    captioners: the model, or those of an ensemble.
    decoding: `beam_size`, `length_penalty`, `max_length`, `groups`,
      `diversity` and what `Vocabulary.constraints` reads.
    vocabulary: of all of them.

  Returns:
    `(variables of each, batch) -> (tokens i32[B, K, T], log_probs f32[B, K])`,
    the beams of each picture, best first, gathered from all hosts.
  """
  constraints = search.Constraints(**vocabulary.constraints(decoding))

  def predict(variables, batch):
    found = decoder.beam_search(
      captioners,
      variables,
      (batch['picture'], batch.get('num_locations')),
      decoding,
      bos=vocabulary_lib.BOS_ID,
      eos=vocabulary_lib.EOS_ID,
      constraints=constraints,
    )
    return found.tokens, found.log_probs

  return parallel.predict_step(predict)


def describe(
  step: Callable,
  variables: Sequence[Any],
  batches: Iterable[dict[str, np.ndarray]],
  vocabulary: vocabulary_lib.Vocabulary,
) -> list[list[vocabulary_lib.Caption]]:
  """The captions of each picture, in the order of the data set, on every host.

  Args:
    step: of `describe_step`.
    variables: of each captioner.
    batches: of `batching.evaluation_batches`: `picture` and `mask`.
    vocabulary: numbers to words.

  Returns:
    For each picture its beams, the best first.
  """
  return [
    vocabulary.read(*beams)
    for beams in prediction.predict(step, tuple(variables), batches)
  ]


def attention_step(captioner: model.Captioner) -> Callable:
  """`(variables, batch) -> f32[B, T, L]`: where each of `tokens` looked."""

  def predict(variables, batch):
    _, y = captioner.apply(variables, *model.inputs(batch), train=False)
    return y['attention'][:, 0]

  return parallel.predict_step(predict)
