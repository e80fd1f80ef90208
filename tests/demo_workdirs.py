"""Workdirs of small models with random parameters, for tests of the demo."""

import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from captioning import main as captioning_main
from captioning import model as captioning_model
from captioning import vocabulary
from configs import event_captions
from configs import scenes
from configs import sketch_kanji
from sketch_rnn import examples
from sketch_rnn import model as sketch_model
from training import checkpoints
from training import parallel
from video.captioning import model as caption_model

WORDS = [*vocabulary.SPECIAL, *'a red blue dog cat ball on left of'.split()]
CATEGORIES = ('cat', 'pig')
LENGTH = 60  # Maximum number of points of a drawing.
SCALE = 30.0
SIDE = 16  # Of what the captioners see.


def sketcher(workdir: pathlib.Path, **changes: Any) -> pathlib.Path:
  """Writes the workdir of a Sketch-RNN that ends its drawings after a while.

  Args:
    workdir: of it.
    **changes: of the model's arguments: `conditional`, `num_classes`.
  """
  arguments = {
    'encoder_features': 6,
    'decoder_features': 8,
    'latent': 4,
    'mixtures': 3,
    'conditional': True,
    'num_classes': 0,
    **changes,
  }
  arguments['learned_prior'] = arguments['conditional']
  model = sketch_model.SketchRNN(**arguments)
  variables = jax.jit(model.init)(
    {'params': jax.random.key(0), 'latent': jax.random.key(1)},
    jnp.zeros((1, 3, 5)),
    jnp.ones((1,), jnp.int32),
    jnp.zeros((1,), jnp.int32) if arguments['num_classes'] else None,
  )
  variables = _shake(variables, 0.4)
  # Lines of some points, drawings of some lines.
  variables['params']['output']['bias'][:3] = [2, 0, -2]
  config = sketch_kanji.get_config()
  config.model.update(decoder='lstm', **arguments)
  config.data.categories = CATEGORIES
  checkpoints.write_config(workdir, config)
  drawings = examples.Examples(SCALE, LENGTH, CATEGORIES).to_dict()
  _save(workdir, variables, 'loss', config=config.to_dict(), drawings=drawings)
  return workdir


def captioner(workdir: pathlib.Path) -> pathlib.Path:
  """Writes that of a captioner with soft attention over 2 x 2 locations."""
  config = scenes.get_config()
  config.data.update(resize=18, crop=SIDE, max_length=7)
  config.encoder = dict(depth=18, width=2, stem='whole')
  config.decoder.update(features=6, embedding=5, attention=4)
  config.decoding.update(beam_size=3, max_length=7, min_length=3)
  config.eval_batch_size = 4
  example = {
    'image': np.zeros((SIDE, SIDE, 3), np.uint8),
    'tokens': np.ones((1, 7), np.int32),
  }
  variables = captioning_main.initial_variables(
    captioning_model.create(config, len(WORDS)), example, config
  )
  variables = jax.tree.map(np.array, variables)
  # Opinionated enough that captions differ.
  variables['params']['decoder'] = _shake(variables['params']['decoder'], 1.0)
  checkpoints.write_config(workdir, config)
  _save_captioner(workdir, variables, config)
  return workdir


def video_captioner(workdir: pathlib.Path) -> pathlib.Path:
  """Writes that of a captioner of clips that attends to their frames."""
  config = event_captions.get_config()
  config.data.update(num_frames=5, resize=SIDE, crop=SIDE, max_length=7)
  config.frame_labels = 0
  config.encoder = dict(channels=(4, 4), features=8)
  config.decoder.update(
    features=8, embedding=8, attention=8, encoder_features=8
  )
  config.decoding.update(beam_size=2, max_length=7, min_length=3)
  model = caption_model.create(config, len(WORDS))
  init = functools.partial(model.init, train=False)
  variables = jax.jit(init)(
    jax.random.key(0),
    jnp.zeros((1, 5, SIDE, SIDE, 3), jnp.uint8),
    jnp.ones((1, 1, 2), jnp.int32),
    jnp.full((1,), 5, jnp.int32),
  )
  checkpoints.write_config(workdir, config)
  _save_captioner(workdir, _shake(variables, 0.5), config)
  return workdir


def _shake(variables: Any, size: float) -> Any:
  """The variables with noise, as arrays that can be written to."""
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: (x + rng.normal(0, size, x.shape)).astype(np.float32),
    jax.device_get(variables),
  )


def _save_captioner(
  workdir: pathlib.Path, variables: Any, config: ml_collections.ConfigDict
):
  _save(
    workdir,
    variables,
    config.best_metric,
    config=config.to_dict(),
    vocabulary=WORDS,
  )


def _save(workdir: pathlib.Path, variables: Any, metric: str, **extras: Any):
  """Writes the only checkpoint."""
  state = parallel.create_state(variables, optax.sgd(0.1))
  mode = 'min' if metric == 'loss' else 'max'
  with checkpoints.Checkpoints(workdir, best_metric=metric, mode=mode) as saved:
    saved.save(state, extras=extras)
