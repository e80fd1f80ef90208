import base64
import io
import re
import urllib.parse
import weakref

import browser
import numpy as np
import pytest
from PIL import Image

from captioning import figures
from captioning import page

STRANGE = (
  '</p><script>document.title="owned"</script> & "dogs" \'n\' {{ cats }}'
)
LONG = 'donaudampfschiff' * 20
GREY = np.full((60, 60, 3), 200, np.uint8)
DESKTOP = {'width': 1280, 'height': 900}
PHONE = {'width': 360, 'height': 740}
ENTRIES = '#entries > li:visible'


@pytest.fixture(scope='module')
def chromium():
  with browser.start() as chromium:
    yield chromium


def entry(name, cider, caption='a red dog', **changes):
  return page.Entry(
    **{
      'id': name,
      'image': GREY,
      'caption': caption,
      'words': caption.split(' ') if caption else [],
      'log_prob': -2.5,
      'references': ['a dog runs', 'the dog'],
      'scores': {'BLEU-1': 0.9, 'BLEU-4': 0.25, 'CIDEr': cider},
      'attention': peaks(*[0] * len(caption.split(' '))),
      **changes,
    }
  )


def peaks(*cells):
  """Weights f32[T, 9]; row t has its peak in cell t of the reading order."""
  weights = np.full((len(cells), 9), 0.02, np.float32)
  weights[np.arange(len(cells)), cells] = 0.84
  return weights


def write(path, *entries, title='Captions', scores=None, facts=None):
  """Writes a page; its address."""
  page.write(
    path,
    entries,
    title=title,
    scores={'CIDEr': 0.5} if scores is None else scores,
    facts={'seed': '0'} if facts is None else facts,
  )
  return path.as_uri()


@pytest.fixture
def three(tmp_path):
  """The address of a page of three pictures."""
  return write(
    tmp_path / 'page.html',
    entry('middle', 1.0, 'a red cat', references=['Ein Kätzchen']),
    entry('best', 2.0, 'the dog runs'),
    entry('worst', 0.125, 'a blue bird', references=['it is no DOG']),
  )


def ids(visited):
  # Not the inner text, which is empty for what is scrolled out of sight.
  return visited.locator(f'{ENTRIES} h2').all_text_contents()


def picture(locator):
  """What is seen there, but for the rounded corners: uint8[H, W, 3]."""
  seen = np.asarray(Image.open(io.BytesIO(locator.screenshot())))
  return seen[8:-8, 8:-8, :3]


def inside(address):
  """The text of the page at an address."""
  with open(urllib.parse.urlsplit(address).path, encoding='utf-8') as file:
    return file.read()


def test_bytes_are_the_share_of_the_most_weight_of_each_word():
  rng = np.random.default_rng(0)
  attention = rng.random((4, 9), np.float32)
  attention[2] = 0
  weights = page.quantize(attention, 3)
  assert weights.dtype == np.uint8
  most = np.maximum(attention.max(1, keepdims=True), 1e-9)
  np.testing.assert_allclose(
    weights / 255, (attention / most)[:3], atol=0.5 / 255 + 1e-6
  )


@pytest.mark.parametrize(
  ('attention', 'message'),
  [
    (np.ones((3, 6)), '6 weights are no square grid'),
    (np.ones((2, 9)), '2 rows of attention are too few for 3 words'),
    (np.full((3, 9), np.nan), 'finite'),
    (np.full((3, 9), -1), 'at least 0'),
  ],
)
def test_weights_that_cannot_be_shown_are_an_error(
  tmp_path, attention, message
):
  with pytest.raises(ValueError, match=message):
    write(tmp_path / 'page.html', entry('0', 1.0, attention=attention))


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'scores': {'BLEU-4': 1.0}}, 'no score CIDEr.*only BLEU-4'),
    ({'scores': {}}, 'only none'),
    ({'scores': {'CIDEr': np.nan}}, 'no score CIDEr'),
    ({'image': GREY / 255}, r'uint8\[H, W, 3\], not float64\[60, 60, 3\]'),
    ({'image': GREY[..., 0]}, r'not uint8\[60, 60\]'),
  ],
)
def test_an_entry_that_cannot_be_shown_is_an_error(tmp_path, changes, message):
  with pytest.raises(ValueError, match=message):
    write(tmp_path / 'page.html', entry('0', 1.0, **changes))


def test_the_page_is_whole_or_absent(tmp_path, monkeypatch):
  path = tmp_path / 'results' / 'page.html'

  def broken(value, digits=3):
    raise RuntimeError('broken')

  monkeypatch.setattr(page, '_number', broken)
  with pytest.raises(RuntimeError, match='broken'):
    write(path, entry('0', 1.0))
  assert not list(path.parent.iterdir())
  monkeypatch.undo()
  write(path, entry('0', 1.0))
  before = path.read_bytes()
  with pytest.raises(ValueError):
    write(path, entry('1', 1.0), entry('2', np.nan))
  assert path.read_bytes() == before
  assert list(path.parent.iterdir()) == [path]


def test_pictures_do_not_pile_up_in_memory(tmp_path):
  made = []

  def entries():
    for i in range(5):
      # The last but one may still be in the hands of the loop.
      assert not any(reference() for reference in made[:-1])
      shown = entry(str(i), 1.0, image=GREY.copy())
      made.append(weakref.ref(shown.image))
      yield shown
      del shown

  page.write(tmp_path / 'page.html', entries(), title='', scores={}, facts={})
  assert len(made) == 5


def test_equal_entries_stay_in_order_and_the_same_page_comes_out(tmp_path):
  shown = [entry(str(i), float(i == 3)) for i in range(5)]
  first = inside(write(tmp_path / 'first.html', *shown))
  assert re.findall('<h2.*>(.*)</h2>', first) == ['3', '0', '1', '2', '4']
  assert first == inside(write(tmp_path / 'second.html', *shown))


def test_large_pictures_are_made_small_and_small_ones_are_kept(tmp_path):
  gradient = np.linspace(0, 255, 640 * 960).reshape(640, 960, 1)
  large = np.repeat(gradient, 3, axis=2).astype(np.uint8)
  text = inside(
    write(
      tmp_path / 'page.html',
      entry('large', 2.0, image=large),
      entry('small', 1.0, image=large[::16, ::16]),
    )
  )
  found = [
    np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
    for encoded in re.findall('data:image/jpeg;base64,([^"]+)"', text)
  ]
  assert [x.shape for x in found] == [(213, 320, 3), (40, 60, 3)]
  np.testing.assert_allclose(found[1], large[::16, ::16], atol=8)


def test_half_a_surrogate_pair_is_no_reason_to_fail(tmp_path):
  text = inside(write(tmp_path / 'page.html', entry('0', 1.0, 'a \ud83d dog')))
  assert re.findall('class="word".*>(.*)</button>', text) == ['a', '?', 'dog']


def test_the_best_come_first_and_the_order_can_be_reversed(chromium, three):
  with browser.visit(chromium, three) as visited:
    assert ids(visited) == ['best', 'middle', 'worst']
    visited.get_by_role('radio', name='worst first').check()
    assert ids(visited) == ['worst', 'middle', 'best']
    visited.get_by_role('radio', name='best first').check()
    assert ids(visited) == ['best', 'middle', 'worst']


def test_the_filter_looks_at_captions_references_and_ids(chromium, three):
  with browser.visit(chromium, three) as visited:
    search = visited.get_by_label('Filter by words')
    for text, expected in [
      ('dog', ['best', 'worst']),
      ('DOG  it', ['worst']),
      ('red cat', ['middle']),
      ('kätzchen', ['middle']),
      ('bes', ['best']),
      ('<script>', []),
      ('cider', []),
      (' ', ['best', 'middle', 'worst']),
    ]:
      search.fill(text)
      assert ids(visited) == expected
      count = visited.get_by_role('status').filter(has_text='images')
      assert count.inner_text() == f'{len(expected)} of 3 images'
    search.fill('dog')
    visited.get_by_label('worst first').check()
    assert ids(visited) == ['worst', 'best']
    # Enter sends nothing anywhere.
    search.press('Enter')
    assert visited.url == three


@pytest.mark.parametrize('viewport', [DESKTOP, PHONE])
def test_a_word_shows_where_the_model_looked(chromium, tmp_path, viewport):
  """The brightest pixel that is seen is in the cell with the most weight."""
  words = [f'word{i}' for i in range(9)]
  cells = [4, 0, 8, 2, 6, 1, 7, 3, 5]
  address = write(
    tmp_path / 'page.html',
    # The weights of EOS are not shown.
    entry('0', 1.0, ' '.join(words), attention=peaks(*cells, 4)),
  )
  with browser.visit(
    chromium, address, viewport=viewport, reduced_motion='reduce'
  ) as visited:
    panel = visited.locator('.picture')
    plain = picture(panel)
    np.testing.assert_array_equal(plain, 200)
    hovered = []
    for word, cell in zip(words, cells, strict=True):
      visited.get_by_role('button', name=word).hover()
      visited.locator('canvas.shown').wait_for()
      hovered.append(picture(panel))
      brightness = hovered[-1].mean(-1)
      height, width = brightness.shape
      y, x = np.unravel_index(np.argmax(brightness), brightness.shape)
      assert 3 * y // height * 3 + 3 * x // width == cell
      # The peak is yellow, the rest grey.
      assert np.ptp(hovered[-1][y, x]) > 40
      assert np.ptp(hovered[-1], axis=-1).min() < 5
    visited.mouse.move(1, 1)
    np.testing.assert_array_equal(picture(panel), plain)

    # The keyboard: one stop of Tab for a caption, then arrows.
    visited.get_by_label('best first').focus()
    visited.keyboard.press('Tab')
    for i in range(9):
      focus = visited.locator(':focus')
      assert focus.inner_text() == words[i]
      visited.locator('canvas.shown').wait_for()
      np.testing.assert_array_equal(picture(panel), hovered[i])
      row, column = divmod(cells[i], 3)
      told = f'Most weight in row {row + 1} of 3, column {column + 1} of 3'
      assert visited.locator('#spoken').inner_text() == told
      visited.keyboard.press('ArrowRight')
    visited.keyboard.press('Home')
    np.testing.assert_array_equal(picture(panel), hovered[0])
    visited.keyboard.press('End')
    np.testing.assert_array_equal(picture(panel), hovered[8])
    visited.keyboard.press('Escape')
    np.testing.assert_array_equal(picture(panel), plain)
    visited.keyboard.press('ArrowLeft')
    np.testing.assert_array_equal(picture(panel), hovered[7])
    visited.keyboard.press('Tab')
    np.testing.assert_array_equal(picture(panel), plain)


def test_a_touch_shows_it_too(chromium, three):
  with browser.visit(
    chromium, three, viewport=PHONE, has_touch=True, is_mobile=True
  ) as visited:
    visited.get_by_role('button', name='dog').tap()
    visited.locator('canvas.shown').wait_for()
    assert visited.locator('.word.shown').all_inner_texts() == ['dog']


def test_pictures_are_shaded_as_in_the_figures(chromium, tmp_path):
  rng = np.random.default_rng(0)
  coarse = rng.integers(0, 256, (5, 7, 3)).astype(np.uint8)
  colored = coarse.repeat(16, 0).repeat(16, 1)
  attention = rng.random((3, 49), np.float32) ** 4
  address = write(
    tmp_path / 'page.html',
    entry('0', 1.0, image=colored, attention=attention),
  )
  encoded = re.search('jpeg;base64,([^"]+)"', inside(address)).group(1)
  jpeg = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
  with browser.visit(chromium, address) as visited:
    for word, weights in zip(('a', 'red', 'dog'), attention, strict=True):
      visited.get_by_role('button', name=word, exact=True).hover()
      canvas = visited.locator('canvas.shown')
      png = canvas.evaluate('canvas => canvas.toDataURL()')
      found = Image.open(io.BytesIO(base64.b64decode(png.split(',')[1])))
      expected = figures.shade(jpeg, weights)
      np.testing.assert_allclose(
        np.asarray(found)[..., :3].astype(int), expected.astype(int), atol=3
      )


def test_without_attention_there_is_nothing_to_point_at(chromium, tmp_path):
  address = write(
    tmp_path / 'page.html',
    entry('0', 1.0, 'two  spaces', attention=None, references=[]),
    entry('1', 0.5, '', attention=peaks(0)),
  )
  with browser.visit(chromium, address) as visited:
    captions = visited.locator('.caption').all_inner_texts()
    assert captions == ['two spaces', '(no words)']
    assert visited.get_by_role('button').count() == 0
    assert visited.locator('.hint').count() == 0


def test_scores_and_facts_are_told(chromium, tmp_path):
  address = write(
    tmp_path / 'page.html',
    entry('0', 1.0),
    scores={'CIDEr': 0.51251, 'loss': 2.0},
    facts={'config': 'configs/scenes.py', 'commit': '0123abc'},
  )

  def pairs(visited, name):
    terms = visited.locator(f'{name} dt').all_inner_texts()
    values = visited.locator(f'{name} dd').all_inner_texts()
    return dict(zip(terms, values, strict=True))

  with browser.visit(chromium, address) as visited:
    assert pairs(visited, '.corpus') == {'CIDEr': '0.513', 'loss': '2.000'}
    assert pairs(visited, '.facts') == {
      'config': 'configs/scenes.py',
      'commit': '0123abc',
    }
    assert pairs(visited, '.scores') == {
      'CIDEr': '1.000',
      'BLEU-4': '0.250',
      'log-probability': '−2.50',
    }
    references = visited.locator('.references li').all_inner_texts()
    assert references == ['a dog runs', 'the dog']


@pytest.mark.parametrize('attends', [True, False])
def test_what_strangers_write_is_text(chromium, tmp_path, attends):
  words = len(STRANGE.split(' '))
  address = write(
    tmp_path / 'page.html',
    entry(
      STRANGE,
      1.0,
      STRANGE,
      references=[STRANGE],
      attention=peaks(*range(words)) if attends else None,
    ),
    title=STRANGE,
    facts={STRANGE: STRANGE},
    scores={STRANGE: 1.0},
  )
  with browser.visit(chromium, address) as visited:
    assert visited.title() == STRANGE
    assert visited.locator('script').count() == 1
    for place in ('h1', '.facts dt', '.facts dd', '.corpus dt', 'h2'):
      assert visited.locator(place).inner_text() == STRANGE
    for place in ('.caption', '.references li'):
      assert visited.locator(place).inner_text() == STRANGE
    alternative = visited.locator('img').get_attribute('alt')
    assert alternative == f'Image {STRANGE}'


@pytest.mark.parametrize(
  ('attack', 'complaint'),
  [
    ('<script>document.title = "owned"</script>', 'inline script'),
    ('<p onclick="document.title = `owned`">x</p>', 'event handler'),
    ('<style>body { display: none }</style>', 'inline style'),
    ('<img src="http://127.0.0.1:9/x">', 'loading the image'),
    ('<img src="other.png">', 'loading the image'),
    ('<iframe src="data:text/html,x"></iframe>', 'Framing'),
    ('<base href="http://127.0.0.1:9/">', 'base'),
  ],
)
def test_the_policy_forbids_what_the_page_does_not_need(
  chromium, three, attack, complaint
):
  """Even where escaping had failed."""
  path = urllib.parse.urlsplit(three).path
  text = inside(three)
  with open(path, 'w', encoding='utf-8') as file:
    file.write(text.replace('<main>', f'<main>{attack}'))
  with pytest.raises(AssertionError, match=f'(?i){complaint}.* violates'):
    with browser.visit(chromium, three) as visited:
      for strange in visited.locator('main > p:not([id])').all():
        strange.click()
      assert visited.title() == 'Captions'
      assert ids(visited) == ['best', 'middle', 'worst']


@pytest.mark.parametrize(
  ('script', 'complaint'),
  [
    ('console.error("oh")', 'error: oh'),
    ('throw Error("oh")', 'raised: oh'),
    ('new Image().src = "http://127.0.0.1:9/x"', 'request for http://127'),
  ],
)
def test_a_visit_notices(chromium, tmp_path, script, complaint):
  path = tmp_path / 'page.html'
  path.write_text(f'<link rel="icon" href="data:,"><script>{script}</script>')
  with pytest.raises(AssertionError, match=complaint):
    with browser.visit(chromium, path.as_uri()) as visited:
      visited.wait_for_load_state('networkidle')


@pytest.mark.parametrize('viewport', [PHONE, {'width': 320, 'height': 600}])
def test_a_narrow_window_scrolls_one_way_only(chromium, tmp_path, viewport):
  address = write(
    tmp_path / 'page.html',
    entry(LONG, 1.0, f'a {LONG} dog', references=[LONG]),
    entry('1', 0.5, f'a {LONG} dog', attention=None),
    title=LONG,
    facts={'config': LONG, LONG: 'x'},
    scores={f'BLEU-{n}': 123456.0 for n in range(9)},
  )
  with browser.visit(chromium, address, viewport=viewport) as visited:
    wide = visited.evaluate('document.documentElement.scrollWidth')
    assert wide == viewport['width']
    # Nor is anything cut off.
    assert (
      visited.evaluate("""[...document.querySelectorAll('body *')].filter(
      (x) => !x.matches('.unseen') && x.scrollWidth > x.clientWidth + 1 &&
        getComputedStyle(x).display !== 'inline').map((x) => x.className)
      """)
      == []
    )


# The text of a page with its contrast as WCAG 2.2 defines it.
CONTRAST = """
() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => c / 255).map((c) =>
      c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    const color = channels(getComputedStyle(element).backgroundColor);
    return color[3] === 0 ? behind(element.parentElement) : color;
  };
  return [...document.querySelectorAll('body *:not(script)')]
    .filter((element) => [...element.childNodes].some((node) =>
      node.nodeType === Node.TEXT_NODE && node.data.trim()))
    .map((element) => {
      const color = channels(getComputedStyle(element).color);
      const [a, b] = [luminance(color), luminance(behind(element))];
      return [element.textContent.slice(0, 30),
        (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
    });
}
"""


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_text_is_easy_to_read_by_day_and_by_night(chromium, three, scheme):
  with browser.visit(
    chromium, three, color_scheme=scheme, reduced_motion='reduce'
  ) as visited:
    visited.get_by_role('button', name='dog').focus()
    visited.locator('.word.shown').wait_for()
    contrasts = dict(visited.evaluate(CONTRAST))
    assert len(contrasts) > 10
    assert min(contrasts.values()) >= 4.5, contrasts
    corner = visited.screenshot(clip={'x': 0, 'y': 0, 'width': 9, 'height': 9})
    brightness = np.asarray(Image.open(io.BytesIO(corner)))[..., :3].mean()
    assert (brightness > 128) == (scheme == 'light')


@pytest.mark.parametrize(
  ('reduced_motion', 'moves'), [('reduce', False), ('no-preference', True)]
)
def test_nothing_moves_for_who_does_not_want_it(
  chromium, three, reduced_motion, moves
):
  with browser.visit(chromium, three, reduced_motion=reduced_motion) as visited:
    visited.get_by_role('button', name='dog').hover()
    durations = visited.evaluate("""[...document.querySelectorAll('*')].map(
      (x) => getComputedStyle(x).transitionDuration)""")
    assert any(duration != '0s' for duration in durations) == moves


def test_without_scripts_the_page_can_be_read(chromium, three):
  with browser.visit(chromium, three, java_script_enabled=False) as visited:
    assert ids(visited) == ['best', 'middle', 'worst']
    assert visited.locator('.caption').first.inner_text() == 'the dog runs'
    assert not visited.get_by_label('Filter by words').is_visible()


def test_no_browser_is_a_reason_to_skip_but_not_in_ci(monkeypatch):
  monkeypatch.setattr(browser.shutil, 'which', lambda name: None)
  monkeypatch.delenv('CI', raising=False)
  with pytest.raises(pytest.skip.Exception, match='install_chromium.sh'):
    browser.find()
  monkeypatch.setenv('CI', 'true')
  with pytest.raises(pytest.fail.Exception, match='in CI it must be there'):
    browser.find()
