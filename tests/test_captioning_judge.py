import itertools
import re

import pytest

from captioning import judge
from captioning import scenes
from captioning import shapes

# Words of a kind: exchanging one for one of another meaning makes a true
# caption false. A set has words of one meaning.
KINDS = {
  'colour': [{word} for word in shapes.COLOURS],
  'shape': [{word} for word in shapes.SHAPES],
  'shapes': [{scenes.plural(word)} for word in shapes.SHAPES],
  'count': [{word} for word in scenes.NUMBERS.values()],
  'size': [{'small', 'little'}, {'large', 'big'}],
  'tone': [{word} for word in shapes.TONES],
  'pattern': [{word} for word in shapes.PATTERNS],
  'position': [set(words) for words in scenes.POSITIONS.values()],
  'relation': [set(words) for words in scenes.RELATIONS.values()],
}


def exchanges(caption):
  """Captions with one phrase exchanged for one of its kind: kind, caption."""
  for kind, meanings in KINDS.items():
    phrases = sorted(itertools.chain(*meanings), key=len, reverse=True)
    # The longest phrase of a kind: 'at the top left' is not 'at the top'.
    pattern = rf'\b(?:{"|".join(phrases)})(?![a-z])'
    for match in re.finditer(pattern, caption):
      for meaning in meanings:
        if match[0] not in meaning:
          for other in sorted(meaning):
            yield (
              kind,
              caption[: match.start()] + other + caption[match.end() :],
            )


def test_all_references_are_true_and_complete():
  for index in range(2000):
    scene, _, captions = scenes.example('train', index)
    for caption in captions:
      verdict = judge.judge(scene, caption)
      assert verdict == judge.Judgement(true=True, complete=True), (
        caption,
        scene,
      )


def test_one_exchanged_word_makes_a_caption_false():
  exchanged = dict.fromkeys(KINDS, 0)
  for index in range(150):
    scene, _, captions = scenes.example('test', index)
    for caption in captions:
      for kind, other in exchanges(caption):
        assert not judge.truth(scene, other), (caption, other, scene)
        exchanged[kind] += 1
  assert min(exchanged.values()) > 100, exchanged


def test_two_exchanged_things_make_a_relation_false():
  found = 0
  for index in range(200):
    scene, _, _ = scenes.example('test', index)
    if scene.layout == 'pair':
      a, b = (f'a {t.colour} {t.shape}' for t in scene.things)
      x, y = scenes.relation(scene.things[0], scene.things[1:])
      for phrase in scenes.RELATIONS[x, y]:
        a = re.sub(r'^a (?=[aeiou])', 'an ', a)
        b = re.sub(r'^a (?=[aeiou])', 'an ', b)
        assert judge.truth(scene, f'{a} {phrase} {b}')
        assert not judge.truth(scene, f'{b} {phrase} {a}')
        assert not judge.truth(scene, f'{a} {phrase} {a}')
        found += 1
  assert found > 50


def things(*kinds):
  """Equal circles or the like, from left to right in the middle row."""
  return tuple(
    shapes.Thing(*kind, x=12.0 + 20 * i, y=32.0, radius=7.5, angle=0.0)
    for i, kind in enumerate(kinds)
  )


RED, BLUE = ('red', 'circle'), ('blue', 'star')


@pytest.mark.parametrize(
  ('kinds', 'caption', 'true', 'complete'),
  [
    ([RED, BLUE], 'a red circle to the left of a blue star', True, True),
    ([RED, BLUE], 'A red circle to the left of a blue star.', True, True),
    ([RED, BLUE], 'a picture of a red circle', True, False),
    ([RED, BLUE], 'the only shape is a red circle', False, False),
    ([RED], 'the only shape is a red circle', True, True),
    ([RED, RED], 'a picture of a red circle', False, False),
    ([RED, RED, BLUE], 'two red circles', True, False),
    ([RED, RED, BLUE], 'two red circles and nothing else', False, False),
    ([RED, RED, BLUE], 'two red circles left of a blue star', True, True),
    ([RED, RED, BLUE], 'a blue star right of two red circles', True, True),
    (
      [RED, RED, BLUE],
      'two red circles with a blue star right of them',
      True,
      True,
    ),
    ([RED, BLUE], 'a red circle inside a blue star', False, False),
    ([RED, BLUE], 'a red circle a blue star', False, False),
    ([RED, BLUE], 'a red circle and a', False, False),
    ([RED, BLUE], '', False, False),
  ],
)
def test_verdicts(kinds, caption, true, complete):
  scene = scenes.Scene('pair', things(*kinds), 'light', 'plain')
  assert judge.judge(scene, caption) == judge.Judgement(true, complete)


def test_scores_are_shares_of_seen_and_new_pairs():
  captions = {
    f'test-{i:05d}': scenes.example('test', i)[2][0]
    for i in (0, 1, 2, 3, 250, 251)
  }
  perfect = judge.score(captions)
  assert set(perfect) == {
    f'{name}{group}'
    for name in ('true', 'complete')
    for group in ('', '_seen', '_new')
  }
  assert set(perfect.values()) == {1.0}
  captions['test-00000'] = captions['test-00250'] = 'an octopus'
  scores = judge.score(captions)
  assert scores['true_seen'] == 0.75
  assert scores['true_new'] == 0.5
  assert scores['true'] == pytest.approx(4 / 6)
  validation = judge.score({'validation-00000': 'nothing'})
  assert validation == {'true': 0.0, 'complete': 0.0}


def test_a_scene_is_that_of_its_example():
  for split in scenes.SPLITS:
    assert scenes.scene(split, 7) == scenes.example(split, 7)[0]
