"""From a trained workdir, or a running training, to sentences.

Axes: B pictures, T words.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from collections.abc import Iterable
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
    with_encoder: False for a captioner that is given the run's cached grids.

  Raises:
    FileNotFoundError: nothing was trained there.
  """
  config = app.read_config(workdir)
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
  captioner: model.Captioner, decoding: ml_collections.ConfigDict
) -> Callable:
  """A step for `describe`: compiled once, for one shape of batch.

  Args:
    captioner: the model.
    decoding: `beam_size`, `length_penalty` and `max_length`.

  Returns:
    `(variables, batch) -> (tokens i32[B, T], log_probs f32[B])`, the best
    beam of each picture, gathered from all hosts.
  """

  def predict(variables, batch):
    carry, context = captioner.apply(
      variables, batch['picture'], method='begin'
    )
    found = search.beam_search(
      lambda carry, tokens: captioner.apply(
        variables, carry, tokens, context, method='step'
      ),
      carry,
      bos=vocabulary_lib.BOS_ID,
      eos=vocabulary_lib.EOS_ID,
      forbid=(
        vocabulary_lib.PAD_ID,
        vocabulary_lib.BOS_ID,
        vocabulary_lib.UNK_ID,
      ),
      **decoding,
    )
    return found.tokens[:, 0], found.log_probs[:, 0]

  return parallel.predict_step(predict)


def describe(
  step: Callable,
  variables: Any,
  batches: Iterable[dict[str, np.ndarray]],
  vocabulary: vocabulary_lib.Vocabulary,
) -> list[Caption]:
  """One caption a picture, in the order of the data set, on every host.

  Args:
    step: of `describe_step`.
    variables: of the captioner.
    batches: of `batching.evaluation_batches`: `picture` and `mask`.
    vocabulary: numbers to words.
  """
  captions = []
  for host, batch in parallel.prefetch(batches):
    app.raise_if_stopping()
    tokens, log_probs = step(variables, batch)
    mask = parallel.gather(host['mask'])
    for ids, log_prob in zip(tokens[mask], log_probs[mask], strict=True):
      captions.append(Caption(vocabulary.decode(ids), float(log_prob)))
  return captions


def attention_step(captioner: model.Captioner) -> Callable:
  """`(variables, batch) -> f32[B, T, L]`: where each of `tokens` looked."""

  def predict(variables, batch):
    _, weights = captioner.apply(
      variables, batch['picture'], batch['tokens'], train=False
    )
    return weights[:, 0]

  return parallel.predict_step(predict)
