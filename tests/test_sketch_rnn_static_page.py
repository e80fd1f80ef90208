"""The page without a server: its network, its drawings, and as it is used."""

import base64

import browser
import jax
import numpy as np
import pytest

from sketch_rnn import builders
from sketch_rnn import examples as examples_lib
from sketch_rnn import inference
from sketch_rnn import latent
from sketch_rnn import model as model_lib
from sketch_rnn import static_page
from sketch_rnn import strokes

TOLERANCE = 1e-3
DESKTOP = {'width': 1280, 'height': 900}
PHONE = {'width': 360, 'height': 740}
SMALL = {
  'encoder_features': 10,
  'decoder_features': 12,
  'latent': 4,
  'mixtures': 3,
}


@pytest.fixture(scope='module')
def chromium():
  with browser.start() as chromium:
    yield chromium


def random_sketcher(**changes):
  """A small network with random parameters."""
  network = model_lib.SketchRNN(**{**SMALL, **changes})
  labels = np.zeros(1, np.int32) if network.num_classes else None
  keys = {'params': jax.random.key(0), 'latent': jax.random.key(1)}
  variables = jax.jit(network.init)(
    keys, np.zeros((1, 5, 5), np.float32), np.array([4]), labels
  )
  rng = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda x: np.float32(x + rng.normal(0, 0.4, x.shape)), variables
  )
  categories = ('cat', '<pig>')[: max(network.num_classes, 1)]
  examples = examples_lib.Examples(scale=30.0, length=40, categories=categories)
  return inference.Sketcher(network, variables, examples)


@pytest.fixture(scope='module')
def kanji():
  """The released model, and five characters of the test split."""
  records = builders.generated('kanji', 'test', 5)
  return inference.load('kanji'), [record['strokes'] for record in records]


@pytest.fixture(scope='module')
def page_of_kanji(kanji, tmp_path_factory):
  directory = tmp_path_factory.mktemp('kanji')
  path = static_page.write(directory, kanji[0], size=256, title='Kanji')
  assert [path] == list(directory.iterdir())
  return path.as_uri()


def random_drawings(count):
  rng = np.random.default_rng(2)
  made = []
  for length in rng.integers(3, 30, count):
    rows = rng.normal(0, 30, (length, 3)).astype(np.float32)
    rows[:, 2] = rng.random(length) < 0.3
    rows[-1, 2] = 1
    made.append(rows)
  return made


def in_page(page, sketcher, drawings, z, label):
  """The posterior of each drawing, and the mixtures of its points."""
  rows = [
    strokes.to_stroke5(sketcher.examples.normalize(x), len(x))[1:].tolist()
    for x in drawings
  ]
  return page.evaluate(
    """([drawings, z, label]) => drawings.map((rows, i) => ({
      ...(sketcher.network.conditional ? sketcher.network.encode(rows) : {}),
      points: sketcher.predict(rows, z?.[i], label),
    }))""",
    [rows, None if z is None else z.tolist(), label],
  )


def assert_equal(page, sketcher, drawings, label=None):
  """Of all mixtures: weights, means, deviations, correlations and the pen."""
  z = None
  if sketcher.model.conditional:
    z, sigma = sketcher.encode(drawings)
  labels = None if label is None else np.full(len(drawings), label, np.int32)
  found = in_page(page, sketcher, drawings, z, label)
  expected = sketcher.predict(drawings, z=z, labels=labels)
  scale = sketcher.examples.scale
  for i, (here, there) in enumerate(zip(found, expected, strict=True)):
    if z is not None:
      np.testing.assert_allclose(here['mean'], z[i], atol=TOLERANCE)
      np.testing.assert_allclose(here['sigma'], sigma[i], atol=TOLERANCE)
    for name, values in (
      ('weights', there.weights),
      ('meanX', there.means[..., 0] / scale),
      ('meanY', there.means[..., 1] / scale),
      ('sigmaX', there.sigmas[..., 0] / scale),
      ('sigmaY', there.sigmas[..., 1] / scale),
      ('rho', there.rhos),
      ('pens', there.pens),
    ):
      np.testing.assert_allclose(
        [point[name] for point in here['points']],
        values,
        atol=TOLERANCE,
        err_msg=name,
      )


def test_the_network_equals_pythons_on_kanji(chromium, kanji, page_of_kanji):
  with browser.visit(chromium, page_of_kanji) as page:
    assert_equal(page, *kanji)


@pytest.mark.parametrize(
  'changes',
  [
    {'num_classes': 2, 'learned_prior': True},
    {'decoder': 'layer_norm', 'encoder': 'layer_norm'},
    {'conditional': False},
    {'conditional': False, 'num_classes': 2, 'decoder': 'layer_norm'},
  ],
)
def test_every_network_of_the_page_equals_pythons(chromium, tmp_path, changes):
  sketcher = random_sketcher(**changes)
  path = static_page.write(tmp_path, sketcher, size=100, title='<b>')
  with browser.visit(chromium, path.as_uri()) as page:
    assert page.title() == '<b>'
    label = 1 if sketcher.classes else None
    assert_equal(page, sketcher, random_drawings(4), label)
    assert page.is_visible('#category') == bool(sketcher.classes)
    assert page.is_visible('#mimic') == sketcher.model.conditional
    page.click('#surprise')
    page.wait_for_selector('#endings[aria-busy=false]')
    assert page.locator('#endings .tile').count() == 6


def test_a_network_that_is_too_slow_is_refused(tmp_path):
  examples = examples_lib.Examples(scale=1.0, length=9, categories=('cat',))
  network = model_lib.SketchRNN(decoder='hyper')
  sketcher = inference.Sketcher(network, {'params': {}}, examples)
  with pytest.raises(ValueError, match="decoder='hyper': the page computes ls"):
    static_page.write(tmp_path / 'new', sketcher, size=100, title='Cats')
  assert not (tmp_path / 'new').exists()


def test_numbers_are_within_half_a_step_of_their_column():
  rng = np.random.default_rng(0)
  x = np.float32(rng.normal(0, [0.01, 1, 50], (40, 3)))
  x[:, 1] = 0
  found = static_page.quantize(x)
  numbers = np.frombuffer(base64.b64decode(found['numbers']), '<i2')
  numbers = numbers.reshape(x.shape)
  half = np.max(np.abs(x), axis=0) / 32767 / 2
  assert np.all(np.abs(numbers * found['scales'] - x) <= 1.001 * half)


def test_lines_are_read_as_python_reads_them(chromium, page_of_kanji):
  """Simplified, as offsets; with a dot first, in the middle, and at the end."""
  rng = np.random.default_rng(0)
  curve = np.cumsum(rng.normal(0, 4, (60, 2)), axis=0)
  cases = [
    [curve, curve + 50],
    [[[5, 5]], curve],
    [curve, [[5, 5]], curve - 9],
    [[[0, 0], [10, 0], [10, 10], [0, 0]]],
  ]
  with browser.visit(chromium, page_of_kanji) as page:
    for lines in cases:
      lines = [np.asarray(line, np.float64) for line in lines]
      found = page.evaluate(
        """lines => toRows(lines.map((line) => simplify(line)), 10)""",
        [line.tolist() for line in lines],
      )
      expected = strokes.from_lines(map(strokes.simplify, lines))
      expected[:, :2] /= 10
      expected = strokes.to_stroke5(expected, len(expected))[1:]
      np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_path_between_drawings_is_pythons(chromium, page_of_kanji):
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=(2, 8))
  with browser.visit(chromium, page_of_kanji) as page:
    for first, second in ((a, b), (a, a), (a, -a), (a, 0 * a)):
      for share in (0, 0.3, 1):
        found = page.evaluate(
          '([a, b, share]) => slerp(a, b, share)',
          [first.tolist(), second.tolist(), share],
        )
        np.testing.assert_allclose(
          found, latent.slerp(first, second, share), atol=1e-6
        )


def test_points_are_sampled_from_the_mixture(chromium, tmp_path):
  """The first points of 4,000 drawings: their pen, mean and covariance."""
  sketcher = random_sketcher(conditional=False)
  path = static_page.write(tmp_path, sketcher, size=100, title='Cats')
  with browser.visit(chromium, path.as_uri()) as page:
    points = page.evaluate(
      """() => Array.from({length: 4000}, (_, seed) => {
        const {value} = sketcher.points({seed, temperature: 1}).next();
        return value ? [value.x, value.y, Number(value.lifted)] : null;
      })"""
    )
    again = page.evaluate(
      '() => [...sketcher.points({seed: 7, temperature: 1})]'
    )
    assert again == page.evaluate(
      '() => [...sketcher.points({seed: 7, temperature: 1})]'
    )
  (predicted,) = sketcher.predict([np.zeros((0, 3), np.float32)])
  pens = predicted.pens[0]
  ended = np.mean([point is None for point in points])
  drawn = np.array([point for point in points if point is not None])
  assert ended == pytest.approx(pens[2], abs=0.03)
  assert np.mean(drawn[:, 2]) == pytest.approx(
    pens[1] / pens[:2].sum(), abs=0.03
  )
  weights, means = predicted.weights[0], predicted.means[0]
  deviations, rhos = predicted.sigmas[0], predicted.rhos[0]
  centre = weights @ means
  covariance = np.einsum('k,ki,kj->ij', weights, means - centre, means - centre)
  for weight, (x, y), rho in zip(weights, deviations, rhos, strict=True):
    covariance += weight * np.array(
      [[x * x, rho * x * y], [rho * x * y, y * y]]
    )
  error = np.sqrt(np.diag(covariance) / len(drawn))
  assert np.all(np.abs(drawn[:, :2].mean(0) - centre) < 4 * error)
  np.testing.assert_allclose(
    np.cov(drawn[:, :2].T), covariance, atol=0.15 * np.max(covariance)
  )


def test_it_draws_more_than_sixty_points_a_second(chromium, page_of_kanji):
  with browser.visit(chromium, page_of_kanji) as page:
    count, seconds = page.evaluate(
      """() => {
        let count = 0;
        const begun = performance.now();
        for (let seed = 0; seed < 10; seed++)
          for (const _ of sketcher.points({seed, temperature: 0.4})) count++;
        return [count, (performance.now() - begun) / 1000];
      }"""
    )
  assert count > 100
  assert count / seconds > 60


def stroke(page, *points):
  """Draws a line on the paper; points are shares of its side."""
  box = page.locator('#paper').bounding_box()
  at = [
    (box['x'] + x * box['width'], box['y'] + y * box['height'])
    for x, y in points
  ]
  page.mouse.move(*at[0])
  page.mouse.down()
  for x, y in at[1:]:
    page.mouse.move(x, y, steps=5)
  page.mouse.up()


def done(page):
  page.wait_for_selector('#endings[aria-busy=false]')


def drawn(page, place='#paper'):
  return [
    page.locator(f'{place} path').nth(i).get_attribute('d') for i in range(2)
  ]


@pytest.mark.parametrize('viewport', [DESKTOP, PHONE])
def test_a_visit(chromium, page_of_kanji, viewport):
  """A stroke is continued, kept, mimicked, encoded, and saved."""
  with browser.visit(chromium, page_of_kanji, viewport=viewport) as page:
    assert page.is_disabled('#save')
    assert page.evaluate('document.documentElement.scrollWidth <= innerWidth')
    stroke(page, (0.2, 0.3), (0.8, 0.3))
    done(page)
    person, model = drawn(page)
    assert person.startswith('M') and model == ''
    tiles = page.locator('#endings .tile')
    assert tiles.count() == 6
    for i in range(6):
      # What was drawn is a part of each ending.
      assert tiles.nth(i).locator('path').first.get_attribute('d') == person
    assert int(page.inner_text('#status').split()[0]) > 6
    first = tiles.first.locator('path').nth(1).get_attribute('d')
    tiles.first.click()
    assert drawn(page) == [person, first]
    page.click('#mimic')
    done(page)
    mimicked = {
      tiles.nth(i).locator('path').nth(1).get_attribute('d') for i in range(6)
    }
    assert len(mimicked) == 6  # Several times, and never the same.
    assert drawn(page) == [person, first]
    page.click('#use-A')
    page.click('#clear')
    assert drawn(page) == ['', '']
    page.click('#surprise')
    done(page)
    tiles.nth(1).click()
    page.click('#use-B')
    page.wait_for_selector('#way:not([hidden])')
    strip = page.locator('#strip path:nth-child(2)')
    assert strip.count() == 7
    middle = drawn(page, '#middle')[1]
    page.fill('#share', '0')
    assert drawn(page, '#middle')[1] == strip.first.get_attribute('d') != middle
    with page.expect_download() as download:
      page.click('#save')
    text = download.value.path().read_text()
    assert text.count('<path') == drawn(page)[1].count('M') > 0
    page.click('#undo')
    assert drawn(page) == ['', '']
