import itertools
import re

import numpy as np
import pytest

from captioning import scenes
from captioning import shapes

NUMBERS = {'a': 1, 'an': 1, 'two': 2, 'three': 3, 'four': 4, 'five': 5}
THING = re.compile(
  rf'({"|".join(NUMBERS)}) (?:(small|little|large|big) )?'
  rf'({"|".join(shapes.COLOURS)}) ({"|".join(shapes.SHAPES)})(?:e?s)?\b'
)
BACKGROUND = re.compile(
  rf'\ba (?:({"|".join(shapes.TONES)}) ?)?'
  rf'({"|".join(shapes.PATTERNS)})? ?background'
)
# Word -> (axis, sign).
DIRECTIONS = {
  'left': ('x', -1),
  'right': ('x', 1),
  'above': ('y', -1),
  'over': ('y', -1),
  'higher': ('y', -1),
  'upper': ('y', -1),
  'top': ('y', -1),
  'below': ('y', 1),
  'under': ('y', 1),
  'lower': ('y', 1),
  'bottom': ('y', 1),
}
DIRECTION = rf'(?:{"|".join(DIRECTIONS)}|to|the|of|and|than| )+'
INSIDE = r'(?:is |sits )?(?:inside|within|surrounded by)'
OUTSIDE = r'(?:around|holds)'
# What says nothing that could be wrong.
FILLER = set('there is are a picture of on and with sits'.split())


def examples(split, indices):
  return [scenes.example(split, index) for index in indices]


def interior(thing):
  """A point that the shape certainly covers."""
  across = 0.83 * thing.radius if thing.shape == 'ring' else 0
  return thing.x + across, thing.y


def check(scene, caption):
  """Fails unless the caption says only what is true of the scene."""
  text = caption.rstrip('.').replace(',', '').lower()
  named = []

  def collect(match):
    number, size, colour, shape = match.groups()
    found = [t for t in scene.things if (t.colour, t.shape) == (colour, shape)]
    assert len(found) == NUMBERS[number]
    for thing in found:
      assert size not in ('small', 'little') or thing.radius < 9
      assert size not in ('large', 'big') or thing.radius > 11
    named.append(found)
    return f'#{len(named) - 1}'

  def background(match):
    assert match[1] in (None, scene.tone)
    assert match[2] in (None, scene.pattern)
    assert match[1] or match[2]
    return ''

  def relation(match):
    first = named[int(match[1])]
    second = named[0 if match[3] == 'them' else int(match[3][1:])]
    words = [word for word in match[2].split() if word in DIRECTIONS]
    assert words
    for word in words:
      axis, sign = DIRECTIONS[word]
      for a, b in itertools.product(first, second):
        assert sign * (getattr(a, axis) - getattr(b, axis)) >= 10
    return ''

  def inside(inner, outer):
    (inner,), (outer,) = named[int(inner)], named[int(outer)]
    distance = np.hypot(inner.x - outer.x, inner.y - outer.y)
    share = {'circle': 1, 'ring': 0.66, 'square': 0.7}
    assert distance + inner.radius <= share[outer.shape] * outer.radius
    return ''

  text = THING.sub(collect, text)
  assert named
  text = BACKGROUND.sub(background, text)
  text = re.sub(
    r'#(\d) with #(\d) inside it', lambda m: inside(m[2], m[1]), text
  )
  text = re.sub(rf'#(\d) {INSIDE} #(\d)', lambda m: inside(m[1], m[2]), text)
  text = re.sub(rf'#(\d) {OUTSIDE} #(\d)', lambda m: inside(m[2], m[1]), text)
  text = re.sub(
    rf'#(\d) (?:is |sits )?((?!and #){DIRECTION}) (#\d|them)', relation, text
  )
  if match := re.search(r'two shapes', text):
    assert len(scene.things) == 2
    text = text.replace(match[0], '')
  if match := re.search('a single shape|the only shape is', text):
    assert len(scene.things) == 1
    text = text.replace(match[0], '')
  if match := re.search('and nothing else|a group of', text):
    assert len(named) == 1 and len(named[0]) == len(scene.things) > 1
    text = text.replace(match[0], '')
  if match := re.search(
    r'(?:in|at|on|near) the ([a-z ]*?)(?: corner| edge)?(?: of the picture)?$',
    text.strip().removesuffix(' on'),
  ):
    (thing,) = scene.things
    signs = {'x': 0, 'y': 0}
    for word in match[1].split():
      if word not in ('middle', 'center'):
        axis, sign = DIRECTIONS[word]
        signs[axis] = sign
    for axis, sign in signs.items():
      third = int(getattr(thing, axis) / (shapes.SIDE / 3))
      assert third == 1 + sign
    text = text.replace(match[0], '')
  assert set(re.sub(r'#\d', '', text).split()) <= FILLER, text


@pytest.mark.parametrize('split', scenes.SPLITS)
def test_captions_are_true(split):
  for index in range(0, scenes.SPLITS[split], scenes.SPLITS[split] // 250):
    scene, _, captions = scenes.example(split, index)
    for caption in captions:
      try:
        check(scene, caption)
      except AssertionError as error:
        raise AssertionError(f'{caption}\n{scene}') from error


def test_a_false_caption_is_found():
  scene, _, captions = next(
    example
    for example in examples('train', range(100))
    if example[0].layout == 'pair' and ' above ' in ' '.join(example[2])
  )
  caption = next(caption for caption in captions if ' above ' in caption)
  check(scene, caption)
  for true, false in [
    (' above ', ' below '),
    (r'\b[Aa] ', 'two '),
    (r'\b[Aa] ', 'a tall '),
  ]:
    with pytest.raises(AssertionError):
      check(scene, re.sub(true, false, caption, count=1))


def test_captions_of_a_picture_differ():
  for _, _, captions in examples('train', range(300)):
    assert len(set(captions)) == scenes.NUM_CAPTIONS == 5


def test_shapes_are_painted_where_the_scene_says():
  names = list(shapes.COLOURS)
  palette = np.array(list(shapes.COLOURS.values()))
  for scene, picture, _ in examples('validation', range(300)):
    things = scene.things[: 1 if scene.layout == 'inside' else None]
    for thing in things:
      x, y = (int(v) for v in interior(thing))
      pixels = np.asarray(picture)[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3)
      distances = np.linalg.norm(palette[:, None] - pixels, axis=-1).min(axis=1)
      assert names[distances.argmin()] == thing.colour
    for thing in scene.things:
      assert min(thing.x, thing.y) >= thing.radius
      assert max(thing.x, thing.y) <= shapes.SIDE - thing.radius


def test_shapes_do_not_overlap():
  for scene, _, _ in examples('train', range(300)):
    if scene.layout != 'inside':
      for a, b in itertools.combinations(scene.things, 2):
        assert np.hypot(a.x - b.x, a.y - b.y) >= a.radius + b.radius


def kinds(example):
  return {(thing.colour, thing.shape) for thing in example[0].things}


def test_held_out_kinds_are_only_in_the_second_half_of_the_test_split():
  assert len(set(scenes.HELD_OUT)) == 8
  assert {colour for colour, _ in scenes.HELD_OUT} == set(shapes.COLOURS)
  assert {shape for _, shape in scenes.HELD_OUT} == set(shapes.SHAPES)
  seen = [
    *examples('train', range(500)),
    *examples('validation', range(200)),
    *examples('test', range(250)),
  ]
  for example in seen:
    assert kinds(example).isdisjoint(scenes.HELD_OUT)
    for colour, shape in scenes.HELD_OUT:
      assert f'{colour} {shape}' not in ' '.join(example[2]).lower()
  for example in examples('test', range(250, 500)):
    assert not kinds(example).isdisjoint(scenes.HELD_OUT)
  assert set.union(*map(kinds, seen)) == set(scenes.SEEN)


def test_a_picture_can_be_drawn_alone():
  scene, picture, captions = scenes.example('train', 7)
  scenes.example('train', 6)
  again = scenes.example('train', 7)
  assert (scene, captions) == (again[0], again[2])
  assert picture.tobytes() == again[1].tobytes()
  assert picture.size == (64, 64) and picture.mode == 'RGB'
  drawn = {p.tobytes() for _, p, _ in examples('train', range(200))}
  assert len(drawn) == 200
