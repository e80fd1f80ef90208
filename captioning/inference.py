"""Captions images with a trained network.

  captioner = inference.load('runs/demo')  # Or the name of a released model.
  ((best, *others),) = captioner.caption([image])  # uint8[H, W, 3]
  print(best.text, best.log_prob)

Axes: H, W pixels, B images, K beams, T words, L locations, D features of one.
"""

import dataclasses
import itertools
import os
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from captioning import examples as examples_lib
from captioning import feature_cache
from captioning import model
from captioning import vocabulary as vocabulary_lib
from configs import schema
from recurrent import decoder
from recurrent import search
from training import app
from training import batching
from training import checkpoints
from training import parallel
from training import prediction
from training import released
from vision import images as images_lib
from vision import networks
from vision import pretrained


@dataclasses.dataclass(frozen=True)
class Trained:
  """The best checkpoint of a run, and the network that it belongs to.

  Attributes:
    config: of the run.
    vocabulary: of the network.
    network: the Flax module.
    variables: of the network, replicated over the devices.
    step: training step of the checkpoint.
  """

  config: ml_collections.ConfigDict
  vocabulary: vocabulary_lib.Vocabulary
  network: model.Captioner
  variables: Any
  step: int


@dataclasses.dataclass(frozen=True, eq=False)
class CaptionedImage:
  """The captions of an image and the attention of the best one.

  Attributes:
    captions: beams, best first.
    attention: f32[T, L], weights of the locations for each word of the best
      caption, then for its EOS and padding; None if the decoder does not
      attend.
  """

  captions: list[vocabulary_lib.Caption]
  attention: np.ndarray | None


class Captioner:
  """Captions images, alone or as an ensemble, in batches of few sizes.

  Attributes:
    members: the network and its variables, or those of an ensemble.
    config: the run's config; `decoding` holds the settings that are used.
    vocabulary: of the network.
    max_batch_size: images of the largest batch.
  """

  def __init__(
    self,
    members: Sequence[Trained],
    *,
    decoding: ml_collections.ConfigDict | None = None,
    batch_sizes: Sequence[int] = (),
  ):
    """Compiles on the first call.

    Args:
      members: networks of one vocabulary; several are an ensemble.
      decoding: see `decode_step`; by default that of the first member's config.
      batch_sizes: numbers of images that are computed at once: multiples of
        the number of devices. By default that number and `eval_batch_size`.

    Raises:
      ValueError: the members do not form an ensemble, or `decoding` names a
        word that the vocabulary lacks.
    """
    check_ensemble(members)
    self.members = tuple(members)
    self.config = members[0].config.copy_and_resolve_references()
    if decoding is not None:
      self.config.decoding = decoding
    self.vocabulary = members[0].vocabulary
    self._variables = tuple(member.variables for member in members)
    devices, largest = jax.local_device_count(), self.config.eval_batch_size
    if not self.config.data.crop:  # Few whole images have the same shape.
      largest = devices
    self._sizes = sorted(batch_sizes or (devices, largest))
    self.max_batch_size = self._sizes[-1]
    self._examples = examples_lib.Examples(self.vocabulary, self.config.data)
    self._decode = decode_step(
      [member.network for member in members],
      self.config.decoding,
      self.vocabulary,
    )
    self._attend = attention_step(members[0].network)

  @property
  def attends(self) -> bool:
    """True if captions come with attention."""
    return bool(self.members[0].network.decoder.attends)

  def compile(self):
    """Computes once for every batch size."""
    side = self.config.data.crop
    for size in self._sizes if side else ():  # Whole images are of any size.
      images = [np.zeros((side, side, 3), np.uint8)] * size
      self.caption_with_attention(images, preprocessed=True)

  def read(self, path: str | os.PathLike) -> np.ndarray:
    """Decodes an image file: uint8[H, W, 3].

    Raises:
      ValueError: the file is not an image.
      OSError: the file cannot be read.
    """
    return images_lib.decode(path)

  def preprocess(self, image: np.ndarray) -> np.ndarray:
    """Resizes and crops as in evaluation: uint8[..., ..., 3] -> [H, W, 3]."""
    return self._examples.crop(image)

  def caption(
    self, images: Sequence[np.ndarray], *, preprocessed: bool = False
  ) -> list[list[vocabulary_lib.Caption]]:
    """Returns the beams of each image, best first.

    Args:
      images: uint8[H, W, 3] each; H and W may differ.
      preprocessed: the images come from `preprocess`.
    """
    images = self._preprocess_all(images, preprocessed)
    return decode(
      self._decode, self._variables, self._batches(images), self.vocabulary
    )

  def caption_with_attention(
    self, images: Sequence[np.ndarray], *, preprocessed: bool = False
  ) -> list[CaptionedImage]:
    """Captions images and reports which locations each word attends to.

    Args:
      images: as for `caption`.
      preprocessed: as for `caption`.
    """
    images = self._preprocess_all(images, preprocessed)
    captions = self.caption(images, preprocessed=True)
    attention = self._attention(images, [beams[0] for beams in captions])
    return [
      CaptionedImage(beams, weights)
      for beams, weights in zip(captions, attention, strict=True)
    ]

  def attention(
    self,
    image: np.ndarray,
    caption: vocabulary_lib.Caption,
    *,
    preprocessed: bool = False,
  ) -> np.ndarray | None:
    """The weights of the locations for each word of a caption: f32[T, L].

    Args:
      image: as those for `caption`.
      caption: any one of the image.
      preprocessed: as for `caption`.

    Returns:
      Rows as `CaptionedImage.attention`, those of the first member of an
      ensemble; None if its decoder does not attend.
    """
    images = self._preprocess_all([image], preprocessed)
    (weights,) = self._attention(images, [caption])
    return weights

  def _attention(
    self,
    images: Sequence[np.ndarray],
    captions: Sequence[vocabulary_lib.Caption],
  ) -> list[np.ndarray | None]:
    if not self.attends:
      return [None] * len(images)
    return list(
      attend(
        self._attend,
        self._variables[0],
        self._batches(images),
        {str(i): caption.text for i, caption in enumerate(captions)},
        self.vocabulary,
        max_length=self.config.decoding.max_length,
      )
    )

  def _preprocess_all(self, images, preprocessed: bool) -> list[np.ndarray]:
    return list(images) if preprocessed else list(map(self.preprocess, images))

  def _batches(
    self, images: Sequence[np.ndarray]
  ) -> Iterator[dict[str, np.ndarray]]:
    """Yields batches of the smallest size that holds all, or of the largest.

    Images of one shape that follow each other are in one batch.
    """
    first = 0
    for _, group in itertools.groupby(images, key=np.shape):
      group = list(group)
      yield from self._equal_batches(group, first)
      first += len(group)

  def _equal_batches(
    self, images: Sequence[np.ndarray], first: int
  ) -> Iterator[dict[str, np.ndarray]]:
    size = next(
      (size for size in self._sizes if size >= len(images)), self._sizes[-1]
    )
    for start in range(0, len(images), size):
      # The last image fills up the last batch.
      rows = np.minimum(np.arange(start, start + size), len(images) - 1)
      yield {
        'id': (first + rows).astype(str),
        'image': np.stack([images[row] for row in rows]),
        'mask': np.arange(start, start + size) < len(images),
      }


def with_seed(decoding: Sequence[str], seed: int | None) -> list[str]:
  """The changes of `decoding`, and the seed of the samples.

  Args:
    decoding: each FIELD=VALUE.
    seed: random seed; None for that of the config.

  Raises:
    ValueError: there is a seed, but nothing is sampled.
  """
  if seed is None:
    return [*decoding]
  if not any(option.startswith('temperature=') for option in decoding):
    raise ValueError(
      f'seed={seed} is that of samples: pass --decoding=temperature=1.0 too'
    )
  return [*decoding, f'seed={seed}']


def load(
  workdir: str | os.PathLike,
  *others: str | os.PathLike,
  decoding: Sequence[str] = (),
  min_beams: int = 1,
  batch_sizes: Sequence[int] = (),
) -> Captioner:
  """Loads the best checkpoint of a run, or those of an ensemble.

  Args:
    workdir: of the run, or the name of a released model, such as 'scenes'.
    *others: workdirs of the other members of an ensemble.
    decoding: FIELD=VALUE changes of the config's `decoding`.
    min_beams: smallest `beam_size` or number of samples, for callers that show
      several captions.
    batch_sizes: see `Captioner`.

  Raises:
    FileNotFoundError: a workdir has no checkpoint.
    ValueError: `decoding` names an unknown field, a run has no encoder, or the
      runs do not form an ensemble.
  """
  members = [restore(workdir) for workdir in (workdir, *others)]
  fields = app.change_fields(
    members[0].config.decoding, decoding, name='decoding'
  )
  schema.check_decoding(fields)
  fields.beam_size = max(fields.beam_size, min_beams)
  if fields.temperature:
    fields.samples = max(fields.samples, min_beams)
  schema.check_decoding(fields)
  return Captioner(members, decoding=fields, batch_sizes=batch_sizes)


def restore(
  workdir: str | os.PathLike, *, with_encoder: bool = True
) -> Trained:
  """Restores the network of a run at its best checkpoint.

  Args:
    workdir: of the run, or the name of a released model.
    with_encoder: False for a network of the run's features.

  Raises:
    FileNotFoundError: the workdir has no checkpoint.
    ValueError: the run has no encoder, since it read imported regions.
  """
  workdir = released.resolve(workdir)
  config = app.read_config(workdir, schema.CAPTIONING)
  if with_encoder and config.regions:
    raise ValueError(
      f'{workdir} was trained on the region features {config.regions!r}, which '
      'a detector made: it cannot caption images alone'
    )
  variables, extras, step = checkpoints.load(
    workdir, best_metric=config.best_metric, mode=config.best_mode
  )
  # They are part of training alone.
  variables['params'].pop('visual_words', None)
  vocabulary = vocabulary_lib.Vocabulary(
    extras['vocabulary'], config.data.tokenizer
  )
  network = model.create(config, len(vocabulary), with_encoder=with_encoder)
  if with_encoder and config.cache_features:
    encoder = feature_cache.load_encoder(config, workdir)
    variables = pretrained.put_encoder(variables, encoder)
  return Trained(
    config, vocabulary, network, parallel.replicate(variables), step
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
          f'captioners of an ensemble read the same images, but config.{field}'
          f' is {first.config[field]} for one and {member.config[field]} for '
          'another'
        )


def encodes(config: ml_collections.ConfigDict) -> bool:
  """True if a run's network reads images, False if it reads features."""
  return not (config.cache_features or config.regions)


def encode_step(config: ml_collections.ConfigDict, encoder: Any) -> Callable:
  """Images uint8[B, H, W, 3] -> features f32[B, L, D], on this host's devices.

  Args:
    config: of the run.
    encoder: the network's variables.
  """
  network = networks.create(config.encoder, dtype=jnp.dtype(config.dtype))
  variables = parallel.replicate(encoder)

  def encode(variables, batch):
    images = images_lib.normalize(batch['image'])
    return network.apply(variables, images, train=False)[0]

  step = parallel.map_devices(encode)
  return lambda images: step(variables, parallel.shard({'image': images}))


def decode_step(
  networks: Sequence[model.Captioner],
  decoding: ml_collections.ConfigDict,
  vocabulary: vocabulary_lib.Vocabulary,
) -> Callable:
  """Returns the step of `decode`; it compiles once for each batch shape.

  Args:
    networks: the Flax module, or those of an ensemble.
    decoding: fields that `decoder.decode` and `Vocabulary.constraints`
      read.
    vocabulary: of the networks.

  Returns:
    `(variables of each, batch) -> (tokens i32[B, K, T], log_probs f32[B, K])`:
    the beams or samples of each image, best first, gathered from all hosts.
    For samples the batch has `index`; see `batching.number`.
  """
  constraints = search.Constraints(**vocabulary.constraints(decoding))

  def predict(variables, batch):
    found = decoder.decode(
      networks,
      variables,
      model.image_inputs(batch),
      decoding,
      bos=vocabulary_lib.BOS_ID,
      eos=vocabulary_lib.EOS_ID,
      constraints=constraints,
      index=batch.get('index'),
    )
    return found.tokens, found.log_probs

  return parallel.predict_step(predict)


def decode(
  step: Callable,
  variables: Sequence[Any],
  batches: Iterable[dict[str, np.ndarray]],
  vocabulary: vocabulary_lib.Vocabulary,
) -> list[list[vocabulary_lib.Caption]]:
  """Returns the captions of each image, best first, in order, on every host.

  Args:
    step: of `decode_step`.
    variables: of each network, replicated.
    batches: of `batching.evaluation_batches`: `mask` and what
      `model.image_inputs` reads.
    vocabulary: of the networks.

  Raises:
    Stopped: SIGTERM came.
  """
  return [
    vocabulary.to_captions(*beams)
    for beams in prediction.predict(
      step, tuple(variables), batching.number(batches)
    )
  ]


def attention_step(network: model.Captioner) -> Callable:
  """`(variables, batch) -> f32[B, T, L]`: attention of each of `tokens`."""

  def predict(variables, batch):
    _, y = network.apply(variables, *model.inputs(batch), train=False)
    return y['attention'][:, 0]

  return parallel.predict_step(predict)


def attend(
  step: Callable,
  variables: Any,
  batches: Iterable[dict[str, np.ndarray]],
  captions: Mapping[str, str],
  vocabulary: vocabulary_lib.Vocabulary,
  *,
  max_length: int,
) -> Iterator[np.ndarray]:
  """Yields the attention of the caption of each image, in order, on every host.

  Args:
    step: of `attention_step`.
    variables: of the network, replicated.
    batches: as for `decode`, with `id`.
    captions: the caption of each image by its id.
    vocabulary: of the network.
    max_length: T.

  Yields:
    f32[T, L].
  """
  for batch in batches:
    tokens = np.stack(
      [vocabulary.encode(captions[i], max_length) for i in batch['id']]
    )
    weights = step(
      variables, parallel.shard({**batch, 'tokens': tokens[:, np.newaxis]})
    )
    yield from weights[parallel.gather(batch['mask'])]
