"""The run that training starts from: its vocabulary and its frozen encoder.

`start_from` names its workdir, or the directory of a released model.
"""

import pathlib

import ml_collections

from captioning import feature_cache
from captioning import vocabulary as vocabulary_lib
from training import app
from training import released


def load_vocabulary(
  config: ml_collections.ConfigDict,
) -> vocabulary_lib.Vocabulary:
  """The vocabulary of the model that training starts from."""
  directory = pathlib.Path(config.start_from).absolute()
  if released.is_released(directory):
    extras = released.describe(directory)['extras']
    return vocabulary_lib.Vocabulary(
      extras['vocabulary'], app.read_config(directory).data.tokenizer
    )
  return vocabulary_lib.Vocabulary.load(
    _file(
      config,
      vocabulary_lib.FILE,
      'name the workdir of a trained captioner',
    )
  )


def check_vocabulary(
  vocabulary: vocabulary_lib.Vocabulary,
  trained: vocabulary_lib.Vocabulary,
  path: pathlib.Path,
):
  """Compares the words of a run with those of the model that it starts from.

  Args:
    vocabulary: of the run, from its file.
    trained: of the model, from its checkpoint; of the same length.
    path: that `start_from` names.

  Raises:
    ValueError: they differ.
  """
  pairs = zip(trained.words, vocabulary.words, strict=True)
  for number, (theirs, ours) in enumerate(pairs):
    if theirs != ours:
      raise ValueError(
        f'start_from={str(path)!r}: word {number} of its checkpoint is '
        f'{theirs!r}, that of {vocabulary_lib.FILE} {ours!r}: the file was '
        'changed, there or in --workdir. Restore it, or choose another run'
      )


def save_encoder(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> pathlib.Path:
  """The path of the workdir's own copy of the frozen encoder."""
  earlier = None
  if config.start_from and not (workdir / feature_cache.ENCODER_FILE).exists():
    earlier = _file(
      config,
      feature_cache.ENCODER_FILE,
      'that run did not train on cached features. Name one that did, or '
      'pass --config.cache_features=False',
    )
  return feature_cache.save_encoder(config, workdir, earlier=earlier)


def _file(
  config: ml_collections.ConfigDict, name: str, advice: str
) -> pathlib.Path:
  """The path of a file in the workdir that training starts from."""
  path = pathlib.Path(config.start_from).absolute() / name
  if not path.exists():
    raise FileNotFoundError(
      f'start_from={config.start_from!r}: {path} does not exist: {advice}'
    )
  return path
