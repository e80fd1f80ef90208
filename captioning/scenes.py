"""`scenes`: the embedded SYNTHETIC data set of drawn and captioned images.

There is no photograph and no human sentence in it: images of 64x64 pixels
show one to five shapes on a textured background, and five different sentences
from templates say what is there. It exists so that a captioner can be trained,
tested and shown without a download. Image `index` of a split depends on the
split and the index alone.

The colours and shapes of `HELD_OUT` meet in the second half of the test split
and nowhere else: a captioner that describes those images has put a colour and
a shape together that it has never seen together.
"""

import dataclasses
import hashlib
import io
import itertools
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from captioning import shapes

SPLITS = {'train': 24000, 'validation': 500, 'test': 500}
NUM_CAPTIONS = 5

# Every colour is held out once and every shape at least once: none of them is
# new by itself.
HELD_OUT = tuple(
  (colour, shapes.SHAPES[(5 * i + 2) % len(shapes.SHAPES)])
  for i, colour in enumerate(shapes.COLOURS)
)
SEEN = tuple(
  kind
  for kind in itertools.product(shapes.COLOURS, shapes.SHAPES)
  if kind not in HELD_OUT
)

_SMALL, _LARGE = (7, 8.5), (11.5, 13.5)  # Radii.
MARGIN = 10  # Smaller offsets are not described as a side.

# The share of its radius that a shape covers in all directions: what is drawn
# inside it stays inside.
_HOSTS = {'circle': 0.9, 'square': 0.66, 'ring': 0.62}

# Word -> the size that it means.
SIZES = {'small': 'small', 'little': 'small', 'large': 'large', 'big': 'large'}
NUMBERS = {2: 'two', 3: 'three', 4: 'four', 5: 'five'}
# By thirds of the image, from left to right and from top to bottom.
POSITIONS = {
  (0, 0): ('in the upper left corner', 'at the top left'),
  (1, 0): ('at the top', 'near the upper edge'),
  (2, 0): ('in the upper right corner', 'at the top right'),
  (0, 1): ('on the left', 'near the left edge'),
  (1, 1): ('in the middle', 'at the center'),
  (2, 1): ('on the right', 'near the right edge'),
  (0, 2): ('in the lower left corner', 'at the bottom left'),
  (1, 2): ('at the bottom', 'near the lower edge'),
  (2, 2): ('in the lower right corner', 'at the bottom right'),
}
# By the signs of the offsets to the other shape.
RELATIONS = {
  (-1, 0): ('to the left of', 'left of'),
  (1, 0): ('to the right of', 'right of'),
  (0, -1): ('above', 'over', 'higher than'),
  (0, 1): ('below', 'under', 'lower than'),
  (-1, -1): ('above and to the left of', 'to the upper left of'),
  (1, -1): ('above and to the right of', 'to the upper right of'),
  (-1, 1): ('below and to the left of', 'to the lower left of'),
  (1, 1): ('below and to the right of', 'to the lower right of'),
}


@dataclasses.dataclass(frozen=True)
class Scene:
  """The contents of an image.

  The first of the `things` are of one kind (one colour, one shape); the last
  one is of another kind unless the layout is 'one' or 'several'.
  """

  layout: str
  things: tuple[shapes.Thing, ...]
  tone: str
  pattern: str


def example(split: str, index: int) -> tuple[Scene, Image.Image, list[str]]:
  """The scene, its image, and five sentences about it."""
  rng = _rng(split, index)
  contents = _scene(rng, held_out=is_held_out(split, index))
  # The last thing may hold the others, so it is painted first.
  image = shapes.draw(
    contents.things[::-1],
    tone=contents.tone,
    pattern=contents.pattern,
    rng=rng,
  )
  return contents, image, _captions(rng, contents)


def scene(split: str, index: int) -> Scene:
  """The scene of `example`, without painting it."""
  return _scene(_rng(split, index), held_out=is_held_out(split, index))


def is_held_out(split: str, index: int) -> bool:
  """True if the first thing of this image is one of `HELD_OUT`."""
  return split == 'test' and index >= SPLITS['test'] // 2


def _rng(split: str, index: int) -> np.random.Generator:
  return np.random.default_rng((list(SPLITS).index(split), index))


def record(split: str, index: int) -> dict[str, Any]:
  """The record of an image as `data.open_split` reads it."""
  _, image, captions = example(split, index)
  return {
    'id': f'{split}-{index:05d}',
    'image': _encode(image),
    'captions': captions,
  }


def _encode(image: Image.Image) -> bytes:
  file = io.BytesIO()
  image.save(file, format='png', compress_level=3)
  return file.getvalue()


# The contents of an image.


def _scene(rng: np.random.Generator, *, held_out: bool) -> Scene:
  kinds = [SEEN[i] for i in rng.permutation(len(SEEN))[:2]]
  if held_out:
    kinds[0] = _pick(rng, HELD_OUT)
  layout = rng.choice(list(_LAYOUTS), p=[0.2, 0.35, 0.15, 0.15, 0.15])
  return Scene(
    layout=str(layout),
    things=tuple(_LAYOUTS[layout](rng, *kinds)),
    tone=_pick(rng, shapes.TONES),
    pattern=_pick(rng, shapes.PATTERNS),
  )


def _pick(rng, choices):
  return choices[rng.integers(len(choices))]


def _thing(rng, kind, x, y, radius) -> shapes.Thing:
  colour, shape = kind
  # A square turned further would be a diamond.
  turn = np.pi if shape == 'star' else 0.15
  angle = rng.uniform(-turn, turn)
  return shapes.Thing(
    colour, shape, float(x), float(y), float(radius), float(angle)
  )


def _radius(rng) -> float:
  """Clearly small or clearly large."""
  return rng.uniform(*_pick(rng, (_SMALL, _LARGE)))


def _one(rng, kind, unused) -> list[shapes.Thing]:
  del unused
  bands = ((14, 18), (29, 35), (46, 50))
  x, y = rng.uniform(*_pick(rng, bands)), rng.uniform(*_pick(rng, bands))
  return [_thing(rng, kind, x, y, _radius(rng))]


def _pair(rng, *kinds) -> list[shapes.Thing]:
  signs = np.array(_pick(rng, list(RELATIONS)))
  offset = np.where(
    signs, signs * rng.uniform(14, 17, 2), rng.uniform(-4, 4, 2)
  )
  centre = rng.uniform(31, 33, size=2)
  return [
    _thing(rng, kinds[0], *(centre + offset), _radius(rng)),
    _thing(rng, kinds[1], *(centre - offset), _radius(rng)),
  ]


def _inside(rng, kind, unused) -> list[shapes.Thing]:
  """The second thing holds the first."""
  del unused
  host = _pick(rng, [k for k in SEEN if k[1] in _HOSTS and k[0] != kind[0]])
  radius = rng.uniform(19, 24)
  room = _HOSTS[host[1]] * radius
  small = rng.uniform(*_SMALL)
  centre = rng.uniform(28, 36, size=2)
  offset = rng.uniform(-0.6, 0.6, size=2) * (room - small)
  return [
    _thing(rng, kind, *(centre + offset), small),
    _thing(rng, host, *centre, radius),
  ]


def _in_cell(rng, kind, cell) -> shapes.Thing:
  """A shape in one of 3 x 3 cells, counted row by row."""
  row, column = divmod(cell, 3)
  x, y = (12 + 20 * column, 12 + 20 * row) + rng.uniform(-1.5, 1.5, size=2)
  return _thing(rng, kind, x, y, rng.uniform(_SMALL[0], 8))


def _several(rng, kind, unused) -> list[shapes.Thing]:
  del unused
  cells = rng.permutation(9)[: _pick(rng, list(NUMBERS))]
  return [_in_cell(rng, kind, cell) for cell in cells]


def _group(rng, kind, other) -> list[shapes.Thing]:
  """Several of one kind in two rows or columns, one other in the third."""
  cells = [*rng.permutation(6)[: rng.integers(2, 5)], 6 + rng.integers(3)]
  board = np.rot90(np.arange(9).reshape(3, 3), rng.integers(4)).ravel()
  things = [_in_cell(rng, kind, board[cell]) for cell in cells[:-1]]
  return [*things, _in_cell(rng, other, board[cells[-1]])]


_LAYOUTS = {
  'one': _one,
  'pair': _pair,
  'inside': _inside,
  'several': _several,
  'group': _group,
}


# The sentences about it. {a} is the first thing, {b} the last, {n} all the
# things of the first kind, {back} the background.

# Templates with these words say that there is nothing else.
NOTHING_ELSE = (
  'a single shape',
  'the only shape',
  'two shapes',
  'and nothing else',
  'a group of',
)
TEMPLATES = {
  'one': (
    '{a} {position}',
    '{a} {position} of the picture',
    '{a} on {back}',
    '{a} {position} on {back}',
    'there is {a} {position}',
    'a picture of {a}',
    'on {back} there is {a}',
    'a single shape , {a} , {position}',
    'the only shape is {a}',
  ),
  'pair': (
    '{a} {relation} {b}',
    '{b} {inverse} {a}',
    '{a} is {relation} {b}',
    '{b} is {inverse} {a}',
    'there is {a} {relation} {b}',
    '{b} sits {inverse} {a}',
    '{a} and {b} on {back}',
    'two shapes , {a} and {b}',
    'a picture of {b} and {a}',
  ),
  'inside': (
    '{a} inside {b}',
    '{a} is inside {b} on {back}',
    '{b} with {a} inside it',
    '{b} around {a}',
    '{b} holds {a}',
    'there is {a} within {b}',
    'a picture of {a} inside {b}',
    '{a} sits within {b}',
    '{a} surrounded by {b} on {back}',
  ),
  'several': (
    '{n}',
    '{n} on {back}',
    'there are {n}',
    'a picture of {n}',
    'there are {n} on {back}',
    'on {back} there are {n}',
    '{n} and nothing else',
    'a group of {n}',
  ),
  'group': (
    '{n} and {b}',
    '{b} and {n} on {back}',
    'there are {n} and {b}',
    '{n} with {b} {inverse} them',
    '{b} {inverse} {n}',
    '{b} is {inverse} {n}',
    '{n} {relation} {b}',
    'a picture of {n} and {b}',
    '{n} on {back} with {b}',
  ),
}


def _captions(rng: np.random.Generator, scene: Scene) -> list[str]:
  """Five sentences from five different templates."""
  templates = rng.permutation(TEMPLATES[scene.layout])[:NUM_CAPTIONS]
  captions = []
  for template in templates:
    caption = str(template).format(**_phrases(rng, scene)).replace(' ,', ',')
    captions.append(f'{caption[0].upper()}{caption[1:]}.')
  return captions


def _phrases(rng, scene: Scene) -> dict[str, str]:
  """A phrase for each part of a template."""
  *group, other = scene.things
  first = scene.things[0]
  phrases = {
    'a': _one_phrase(rng, first),
    'b': _one_phrase(rng, other),
    'back': _background_phrase(rng, scene),
    'position': _pick(rng, POSITIONS[position(first)]),
  }
  if scene.layout in ('several', 'group'):
    count = len(scene.things) - (scene.layout == 'group')
    phrases['n'] = f'{NUMBERS[count]} {first.colour} {plural(first.shape)}'
  if scene.layout in ('pair', 'group'):
    x, y = relation(other, group)
    phrases['inverse'] = _pick(rng, RELATIONS[x, y])
    phrases['relation'] = _pick(rng, RELATIONS[-x, -y])
  return phrases


def _one_phrase(rng, thing: shapes.Thing) -> str:
  phrase = f'{thing.colour} {thing.shape}'
  if rng.random() < 0.7:  # People do not always speak of the size.
    words = [word for word, of in SIZES.items() if of == size(thing)]
    phrase = f'{_pick(rng, words)} {phrase}'
  return _with_article(phrase)


def _background_phrase(rng, scene: Scene) -> str:
  tone, pattern = scene.tone, scene.pattern
  words = _pick(rng, (tone, pattern, f'{tone} {pattern}'))
  return _with_article(f'{words} background')


def _with_article(phrase: str) -> str:
  return f'{"an" if phrase[0] in "aeiou" else "a"} {phrase}'


def plural(shape: str) -> str:
  """The plural of the name of a shape."""
  return shape + ('es' if shape.endswith('s') else 's')


def size(thing: shapes.Thing) -> str:
  """'small' or 'large'."""
  return 'small' if thing.radius <= _SMALL[1] else 'large'


def is_inside(thing: shapes.Thing, host: shapes.Thing) -> bool:
  """True if the shape `host` covers all directions of `thing`, and more."""
  distance = np.hypot(thing.x - host.x, thing.y - host.y)
  room = _HOSTS.get(host.shape, 0) * host.radius
  return bool(distance + thing.radius <= room)


def position(thing: shapes.Thing) -> tuple[int, int]:
  """The third of the image, from the left and from the top."""
  return int(3 * thing.x // shapes.SIDE), int(3 * thing.y // shapes.SIDE)


def relation(thing: shapes.Thing, others: list[shapes.Thing]):
  """Signs of the offsets, 0 where `thing` is not clearly to one side of all."""
  signs = []
  for axis in ('x', 'y'):
    offsets = [getattr(thing, axis) - getattr(other, axis) for other in others]
    signs.append((min(offsets) >= MARGIN) - (max(offsets) <= -MARGIN))
  return tuple(signs)


class Scenes(tfds.core.GeneratorBasedBuilder):
  """Drawn shapes, described by templates. SYNTHETIC."""

  VERSION = tfds.core.Version('2.1.0')
  RELEASE_NOTES = {
    '1.0.0': 'Initial release.',
    '2.0.0': 'Six larger shapes, of two sizes; at most 16 words.',
    '2.1.0': 'Four times the training images.',
  }

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=__doc__,
      features=tfds.features.FeaturesDict(
        {
          'id': tfds.features.Text(),
          'image': tfds.features.Image(
            shape=(shapes.SIDE, shapes.SIDE, 3), encoding_format='png'
          ),
          'captions': tfds.features.Sequence(tfds.features.Text()),
        }
      ),
      metadata=tfds.core.MetadataDict(),
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager):
    del dl_manager
    return {split: self._generate_examples(split) for split in SPLITS}

  def _generate_examples(self, split: str):
    digest = hashlib.sha256()
    for index in range(SPLITS[split]):
      _, image, captions = example(split, index)
      # The pixels, not the file: compression differs between versions of zlib.
      digest.update(image.tobytes())
      digest.update('\n'.join(captions).encode())
      name = f'{split}-{index:05d}'
      yield (
        name,
        {
          'id': name,
          'image': io.BytesIO(_encode(image)),
          'captions': captions,
        },
      )
    self.info.metadata[split] = digest.hexdigest()
