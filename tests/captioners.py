"""Small captioners of every kind, and helpers of their tests.

Axes: B images, K captions, T words, L locations, D features, V vocabulary.
"""

import functools

import commands
import jax
import numpy as np

from captioning import data
from captioning import losses
from captioning import model
from captioning import scenes as scenes_lib
from captioning import sources
from captioning import vocabulary
from configs import scenes

V, L, D, T = 11, 4, 3, 6
WORDS = vocabulary.Vocabulary([*vocabulary.SPECIAL, *'abcdefg'])

# Name -> the key of `model.DECODERS`, and the special arguments of its decoder.
CAPTIONERS = {
  'show_and_tell': ('show_and_tell', {}),
  'show_and_tell_options': (
    'show_and_tell',
    dict(image_bias=True, cell='maxout', layers=3),
  ),
  'soft': ('show_attend_tell', {}),
  'soft_layers': (
    'show_attend_tell',
    dict(attention_layers=2, init_layers=1),
  ),
  'soft_features': ('show_attend_tell', dict(annotation_features=8)),
  'soft_options': (
    'show_attend_tell',
    dict(
      attention_activation='relu',
      gate='vector',
      init_tanh=False,
      deep_output=False,
      cell='gru',
      layers=2,
    ),
  ),
  'hard': ('show_attend_tell', dict(hard=True)),
  'adaptive': ('adaptive', dict(annotation_features=7)),
  'adaptive_options': (
    'adaptive',
    dict(annotation_features=7, word_relu=True, cell='maxout', layers=2),
  ),
  'att2in': ('att2in', {}),
  'att2in_features': ('att2in', dict(annotation_features=8)),
  'up_down': ('up_down', {}),
  'up_down_features': ('up_down', dict(annotation_features=8)),
  'up_down_options': (
    'up_down',
    dict(annotation_features=8, attention_bias=True, cell='maxout'),
  ),
  'luong': ('luong', {}),
  'luong_options': ('luong', dict(cell='gru', layers=2)),
  'init_inject': ('inject_merge', dict(image_input='init')),
  'pre_inject': ('inject_merge', dict(image_input='pre')),
  'par_inject': ('inject_merge', dict(image_input='par', learned_start=True)),
  'merge': ('inject_merge', dict(image_input='merge', learned_start=True)),
}
# With these, captions of images differ, some end and some do not.
SEEDS = dict(
  show_and_tell=13,
  show_attend_tell=40,
  adaptive=10,
  att2in=23,
  up_down=46,
  luong=1,
  inject_merge=11,
)
# One of each model.
MODELS = (
  'show_and_tell',
  'soft',
  'hard',
  'adaptive',
  'att2in',
  'up_down_features',
  'luong',
  'init_inject',
  'pre_inject',
  'par_inject',
  'merge',
)
# Those of other cells, layers and activations.
OPTIONS = tuple(name for name in CAPTIONERS if name.endswith('_options'))
# Hard attention samples in training.
DETERMINISTIC = tuple(name for name in MODELS if name != 'hard')


def small_config(name='soft', **decoder):
  """The config of one of `CAPTIONERS`, its decoder changed by `decoder`."""
  config = scenes.get_config()
  config.model, special = CAPTIONERS[name]
  sizes = dict(features=5, embedding=7, dropout_rate=0.0)
  if model.DECODERS[config.model].attends:
    sizes['attention'] = 6
  with config.unlocked():
    config.decoder = {**sizes, **special, **decoder}
  config.encoder = dict(depth=18, width=2, stem='whole')
  config.loss.attention_penalty = 0.3
  config.decoding.max_length = T
  config.decoding.no_repeat_ngram = 0
  return config


def first_variables(captioner, image_or_features, config):
  """The variables that training would start from."""

  def init(key, tokens):
    return captioner.init(key, image_or_features[None], tokens, train=False)

  tokens = np.ones((1, 1, 2), np.int32)
  variables = jax.jit(init)(jax.random.key(config.seed), tokens)
  return variables | losses.initial_model_state(captioner)


_created = {}


def create(config):
  """A captioner of features, and variables far from their first symmetry."""
  key = config.to_json_best_effort(sort_keys=True)
  if key not in _created:
    captioner = model.create(config, V, with_encoder=False)
    features = np.ones((L, D), np.float32)
    rng = np.random.default_rng(SEEDS[config.model])
    variables = jax.tree.map(
      lambda x: (1.2 * rng.normal(size=x.shape)).astype(np.float32),
      jax.eval_shape(lambda: first_variables(captioner, features, config)),
    )
    _created[key] = captioner, variables
  captioner, variables = _created[key]
  return captioner, jax.tree.map(np.copy, variables)


@functools.partial(
  jax.jit, static_argnums=0, static_argnames=('method', 'train')
)
def apply(captioner, variables, *args, **kwargs):
  """`captioner.apply`, compiled once for all captioners that are equal."""
  return captioner.apply(variables, *args, **kwargs)


def make_features():
  """f32[4, L, D]."""
  shape = (4, L, D)
  return np.random.default_rng(2).normal(size=shape).astype(np.float32)


def make_tokens():
  """i32[4, 2, T]: words, EOS, padding; lengths differ."""
  rng = np.random.default_rng(3)
  ids = rng.integers(len(vocabulary.SPECIAL), V, (4, 2, T)).astype(np.int32)
  ends = np.array([[1, 5], [3, 2], [4, 0], [2, 5]])[..., None]
  ids[np.arange(T) == ends] = vocabulary.EOS_ID
  ids[np.arange(T) > ends] = vocabulary.PAD_ID
  return ids


def assert_trees_close(got, wanted, rtol=1e-4, atol=1e-5):
  """Leaf by leaf; an error names the leaf."""
  jax.tree.map_with_path(
    lambda path, x, y: np.testing.assert_allclose(
      x, y, rtol=rtol, atol=atol, err_msg=jax.tree_util.keystr(path)
    ),
    got,
    wanted,
  )


def prepare_few(shell: commands.Shell, **counts: int):
  """A few images of `scenes` as the data set 'captioned_images/few'.

  Args:
    shell: has the directory of the files, and that of the data sets.
    **counts: number of images by split.
  """
  images = []
  for split, count in counts.items():
    for i in range(count):
      _, image, captions = scenes_lib.example(split, i)
      path = shell.directory / f'{split}-{i}.png'
      image.save(path)
      images.append(sources.CaptionedFile(path.stem, path, split, captions))
  data.prepare('few', images, shell.data_dir)
