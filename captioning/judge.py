"""Judges captions of `scenes`: is every statement in them true of the scene?

A caption is parsed by the templates that the references are made of. It is
false if no template fits it, and if anything that it says is not so: kinds
(colour and shape), counts, sizes, positions, relations or the background. The
article of a kind counts: 'a red circle' is false of three of them.

A true caption may leave a thing out, as people do; `is_complete` asks for all.
"""

import dataclasses
import functools
import itertools
import re

import numpy as np

from captioning import scenes
from captioning import shapes


@dataclasses.dataclass(frozen=True)
class Judgement:
  """The verdict on a caption.

  Attributes:
    true: every statement of the caption is true of the scene.
    complete: it is, and every kind of thing in the scene is named.
  """

  true: bool
  complete: bool


FALSE = Judgement(true=False, complete=False)


def judge(scene: scenes.Scene, caption: str) -> Judgement:
  """The verdict on one caption; words in any case, with or without its stop."""
  text = _normalize(caption)
  verdicts = [
    _check(scene, parse.groupdict(), template)
    for template, pattern in _patterns()
    if (parse := pattern.fullmatch(text))
  ]
  return max(verdicts, key=lambda v: (v.true, v.complete), default=FALSE)


def truth(scene: scenes.Scene, caption: str) -> bool:
  """True if every statement of the caption is true of the scene."""
  return judge(scene, caption).true


def judge_image(image_id: str, caption: str) -> Judgement:
  """The verdict on a caption of the image of this id, 'test-00012'."""
  split, index = _parse_id(image_id)
  return judge(scenes.scene(split, index), caption)


def _parse_id(image_id: str) -> tuple[str, int]:
  split, index = image_id.rsplit('-', 1)
  return split, int(index)


def score(captions: dict[str, str]) -> dict[str, float]:
  """Shares of true and of complete captions of images of a split.

  Args:
    captions: by the id of the image.

  Returns:
    `true` and `complete`; for the test split, whose second half shows pairs of
    colour and shape that training never shows, `true_seen`, `true_new`,
    `complete_seen` and `complete_new` too.
  """
  judged: dict[bool, list[Judgement]] = {False: [], True: []}
  for image_id, caption in captions.items():
    held_out = scenes.is_held_out(*_parse_id(image_id))
    judged[held_out].append(judge_image(image_id, caption))
  groups = {'': judged[False] + judged[True]}
  if judged[True]:
    groups |= {'_seen': judged[False], '_new': judged[True]}
  return {
    f'{name}{group}': float(np.mean([getattr(v, name) for v in verdicts]))
    for name in ('true', 'complete')
    for group, verdicts in groups.items()
    if verdicts
  }


# Parsing: a template becomes a regular expression with named groups.


def _normalize(caption: str) -> str:
  return ' '.join(re.findall(r'[a-z]+', caption.lower()))


def _any(words) -> str:
  return '|'.join(sorted(map(re.escape, words), key=len, reverse=True))


_COUNTS = {word: count for count, word in scenes.NUMBERS.items()}
_PLURALS = {scenes.plural(shape): shape for shape in shapes.SHAPES}
_POSITIONS = {p: at for at, words in scenes.POSITIONS.items() for p in words}
_RELATIONS = {r: to for to, words in scenes.RELATIONS.items() for r in words}


def _one(name: str) -> str:
  return (
    f'an? (?:(?P<{name}_size>{_any(scenes.SIZES)}) )?'
    f'(?P<{name}_colour>{_any(shapes.COLOURS)}) '
    f'(?P<{name}_shape>{_any(shapes.SHAPES)})'
  )


_FIELDS = {
  'a': _one('a'),
  'b': _one('b'),
  'n': (
    f'(?P<n_count>{_any(_COUNTS)}) (?P<n_colour>{_any(shapes.COLOURS)}) '
    f'(?P<n_shape>{_any(_PLURALS)})'
  ),
  'position': f'(?P<position>{_any(_POSITIONS)})',
  'relation': f'(?P<relation>{_any(_RELATIONS)})',
  'inverse': f'(?P<inverse>{_any(_RELATIONS)})',
  'back': (
    f'an? (?:(?P<tone>{_any(shapes.TONES)}) ?)?'
    f'(?P<pattern>{_any(shapes.PATTERNS)})? ?background'
  ),
}


@functools.cache
def _patterns() -> list[tuple[str, re.Pattern]]:
  templates = sorted(set(itertools.chain(*scenes.TEMPLATES.values())))
  return [
    (t, re.compile(t.replace(' ,', '').format(**_FIELDS))) for t in templates
  ]


# Checking: each phrase finds its things, or is false.


def _check(
  scene: scenes.Scene, parse: dict[str, str | None], template: str
) -> Judgement:
  """The verdict on a parsed caption."""
  found = {}
  for name in ('a', 'b', 'n'):
    if parse.get(f'{name}_colour') is not None:
      things = _find(scene, name, parse)
      if not things:
        return FALSE
      found[name] = things
  named = list(itertools.chain(*found.values()))
  statements = (
    # The two phrases of a pair are of two things.
    len({id(thing) for thing in named}) == len(named),
    _background_is(scene, parse.get('tone'), parse.get('pattern')),
    _is_at(found, parse.get('position')),
    _is_related(found, parse.get('relation'), inverse=False),
    _is_related(found, parse.get('inverse'), inverse=True),
    _is_inside(found, template),
    _is_all(scene, named, template),
  )
  if not all(statements):
    return FALSE
  return Judgement(true=True, complete=len(named) == len(scene.things))


def _find(scene, name, parse) -> list[shapes.Thing]:
  """The things that a phrase names: as many as it says, or none."""
  colour, shape = parse[f'{name}_colour'], parse[f'{name}_shape']
  shape = _PLURALS.get(shape, shape) if name == 'n' else shape
  count = _COUNTS[parse['n_count']] if name == 'n' else 1
  things = [t for t in scene.things if (t.colour, t.shape) == (colour, shape)]
  if len(things) != count:
    return []
  size = scenes.SIZES.get(parse.get(f'{name}_size') or '')
  return things if size in (None, scenes.size(things[0])) else []


def _background_is(scene, tone, pattern) -> bool:
  return tone in (None, scene.tone) and pattern in (None, scene.pattern)


def _is_at(found, phrase) -> bool:
  if phrase is None:
    return True
  return scenes.position(found['a'][0]) == _POSITIONS[phrase]


def _is_related(found, phrase, *, inverse) -> bool:
  """True if b stands in this relation to the others, or they to it."""
  if phrase is None:
    return True
  others = found.get('n') or found['a']
  x, y = scenes.relation(found['b'][0], others)
  return _RELATIONS[phrase] == ((x, y) if inverse else (-x, -y))


def _is_inside(found, template) -> bool:
  if template not in scenes.TEMPLATES['inside']:
    return True
  return scenes.is_inside(found['a'][0], found['b'][0])


def _is_all(scene, named, template) -> bool:
  """Some templates say that there is nothing else."""
  alone = any(words in template for words in scenes.NOTHING_ELSE)
  return not alone or len(named) == len(scene.things)
