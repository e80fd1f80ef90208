"""The demo's page in a browser, before the real server with small models."""

import base64
import contextlib
import io
import json
import math
import re
import socket
import threading
import time
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ET

import browser
import commands
import demo_workdirs
import numpy as np
import pytest
from PIL import Image
from playwright import sync_api

from captioning import figures
from sketch_rnn import svg
from video import frames

DESKTOP = {'width': 1280, 'height': 800}
PHONE = {'width': 360, 'height': 740}
# In shares of the square in the middle of the paper.
CIRCLE = [
  (
    0.4 + 0.2 * math.cos(t / 12 * math.pi),
    0.5 + 0.2 * math.sin(t / 12 * math.pi),
  )
  for t in range(25)
]
WAVE = [(0.2 + t / 40, 0.6 + 0.1 * math.sin(t / 4)) for t in range(25)]
TIMEOUT = 120_000  # Milliseconds, for a machine that is busy.
TILES = '.endings .tile'
ANSWERED = '#draw .room[aria-busy=false]'
DONE = '[aria-busy=false]'


@pytest.fixture(scope='module')
def chromium():
  with browser.start() as chromium:
    yield chromium


@pytest.fixture(scope='module')
def server(tmp_path_factory):
  """The address of a server whose models are ready."""
  directory = tmp_path_factory.mktemp('demo')
  workdirs = [
    demo_workdirs.sketcher(directory / 'faces'),
    demo_workdirs.sketcher(
      directory / 'pets', conditional=False, num_classes=2
    ),
    demo_workdirs.captioner(directory / 'photographs'),
    demo_workdirs.video_captioner(directory / 'films'),
  ]
  shell = commands.Shell(directory)
  try:
    command = shell.start(
      'demo',
      *[f'--workdir={workdir}' for workdir in workdirs],
      '--pretrained=gesture_stream',
      '--pretrained=occlusion_track',
      '--port=0',
      '--no_browser',
    )
    address = wait_until_ready(command)
    yield address
  finally:
    shell.end()


def wait_until_ready(command):
  deadline = time.monotonic() + commands.PATIENCE
  while True:
    said = command.output.read_text()
    assert command.process.poll() is None, said[-5000:]
    assert time.monotonic() < deadline, said[-5000:]
    if found := re.search(r'The page is at (\S+)', said):
      with urllib.request.urlopen(f'{found.group(1)}api/models') as answer:
        models = json.load(answer)
      if models['ready']:
        assert models['progress'] == []
        return found.group(1)
    time.sleep(0.1)


@contextlib.contextmanager
def visit(chromium, server, room='draw', **context):
  context = {'viewport': DESKTOP, 'reduced_motion': 'reduce', **context}
  address = f'{server}#/{room}'
  with browser.visit(chromium, address, **context) as page:
    page.set_default_timeout(TIMEOUT)
    page.locator(f'#{room} > .room').wait_for()
    yield page


def place(page, x, y):
  """The position of a point of the paper on the screen."""
  box = page.locator('#paper').bounding_box()
  side = min(box['width'], box['height'])
  return (
    box['x'] + box['width'] / 2 + (x - 0.5) * side,
    box['y'] + box['height'] / 2 + (y - 0.5) * side,
  )


def draw(page, points):
  page.evaluate('scrollTo(0, 0)')
  page.mouse.move(*place(page, *points[0]))
  page.mouse.down()
  for point in points[1:]:
    page.mouse.move(*place(page, *point))
  page.mouse.up()


def choose(page, model, temperature=None):
  page.get_by_role('combobox', name='Model', exact=True).select_option(model)
  if temperature is not None:
    page.locator('[name=temperature]').fill(str(temperature))


def endings(page):
  """The paths of the model's endings, when it has said all."""
  page.locator(TILES).first.wait_for()
  page.locator(ANSWERED).wait_for()
  return [
    tile.locator('path.model').get_attribute('d')
    for tile in page.locator(TILES).all()
    if tile.locator('path.model').count()
  ]


def save(page, tmp_path):
  """The file that the page gives."""
  with page.expect_download() as download:
    page.get_by_role('button', name='Save SVG').click()
  assert download.value.suggested_filename == 'drawing.svg'
  path = tmp_path / f'{len(list(tmp_path.iterdir()))}.svg'
  download.value.save_as(path)
  return path


def paths(file, name):
  """The paths of a class, as they are written."""
  return [
    path.get('d')
    for path in ET.parse(file).iter('{http://www.w3.org/2000/svg}path')
    if path.get('class') == name
  ]


def points(path):
  """f32[n, 2], of all lines of a path."""
  return np.array(re.findall(r'[-\d.e]+', path), np.float32).reshape(-1, 2)


def spoken(page, text):
  page.locator('#spoken', has_text=text).wait_for(state='attached')


def test_the_model_goes_on_from_where_the_pen_stopped(
  chromium, server, tmp_path
):
  with visit(chromium, server, reduced_motion='no-preference') as page:
    page.get_by_label('Go on with my line').check()
    draw(page, CIRCLE)
    shown = endings(page)
    assert page.locator(TILES).count() == 8
    assert len(set(shown)) > 1
    file = save(page, tmp_path)
    title = ET.parse(file).find('{http://www.w3.org/2000/svg}title')
    assert title.text == 'Begun by a person, continued by faces'

    (drawn,) = paths(file, 'person')
    pixel = 1000 / min(page.locator('#paper').bounding_box()['height'], 1000)
    np.testing.assert_allclose(
      points(drawn)[[0, -1]],
      1000 * np.array(CIRCLE)[[0, -1]],
      atol=2 * pixel,
    )
    assert paths(file, 'ending') == shown
    for ending in shown:
      np.testing.assert_allclose(
        points(ending)[0], points(drawn)[-1], atol=0.01
      )
    # As any reader of SVG finds them: 600 pixels wide.
    lines = svg.read(file)
    *corner, side, _ = map(
      float, ET.parse(file).getroot().get('viewBox').split()
    )
    expected = (points(drawn) - corner) * 600 / side
    np.testing.assert_allclose(lines[0], expected, atol=0.01)
    assert len(lines) == 1 + ''.join(shown).count('M')


def test_temperature_is_how_much_endings_differ(chromium, server):
  with visit(chromium, server) as page:
    choose(page, 'pets', 0)
    page.get_by_label('Category').select_option('pig')
    page.locator('[name=count]').fill('3')
    draw(page, CIRCLE)
    first = endings(page)
    assert len(first) == 3
    assert len(set(first)) == 1
    page.get_by_role('button', name='Again').click()
    assert endings(page) == first
    # A higher temperature makes the model continue anew.
    page.locator('[name=temperature]').fill('1.5')
    wild = endings(page)
    assert len(set(wild)) == len(wild) > 1
    page.get_by_role('button', name='Again').click()
    assert endings(page) != wild


def test_taking_turns(chromium, server, tmp_path):
  with visit(chromium, server) as page:
    choose(page, 'pets', 0)
    page.get_by_label('Turns').check()
    page.get_by_label('Go on with my line').check()
    assert page.locator('.endings').is_hidden()
    draw(page, CIRCLE)
    spoken(page, 'Your turn.')
    file = save(page, tmp_path)
    (person,), (model,) = paths(file, 'person'), paths(file, 'model')
    np.testing.assert_allclose(points(model)[0], points(person)[-1], atol=0.01)

    page.get_by_role('button', name='Undo').click()
    assert paths(save(page, tmp_path), 'model') == []
    page.get_by_role('button', name='Redo').click()
    assert paths(save(page, tmp_path), 'model') == [model]
    page.get_by_role('button', name='Clear').click()
    assert page.get_by_role('button', name='Save SVG').is_disabled()
    page.get_by_role('button', name='Undo').click()
    assert save(page, tmp_path).read_text() == file.read_text()

    page.get_by_label('Off').check()
    page.get_by_role('button', name='Clear').click()
    draw(page, WAVE)
    assert page.locator(ANSWERED).count() == 1
    assert paths(save(page, tmp_path), 'model') == []


def test_an_ending_is_kept(chromium, server, tmp_path):
  with visit(chromium, server) as page:
    choose(page, 'pets')
    page.get_by_label('Go on with my line').check()
    draw(page, CIRCLE)
    shown = endings(page)
    page.get_by_label('Keep ending 3 of 8').click()
    file = save(page, tmp_path)
    assert ''.join(paths(file, 'model')) == shown[2]
    assert paths(file, 'ending') == []
    assert page.locator(TILES).count() == 0

    # On the paper it is enough to click at one.
    page.get_by_role('button', name='Undo').click()
    shown = endings(page)
    near = [
      [float(x) / 1000 for x in point]
      for ending in shown
      for point in points(ending)[1:]
      if 50 < point[1] < 950 and 50 < point[0] < 950
    ]
    page.mouse.click(*place(page, *near[0]))
    assert ''.join(paths(save(page, tmp_path), 'model')) in shown


def test_drawing_by_keyboard(chromium, server, tmp_path):
  with visit(chromium, server) as page:
    page.get_by_role('tab', name='Draw').focus()
    page.keyboard.press('ArrowRight')
    assert page.locator('#caption').is_visible()
    assert page.locator('#draw').is_hidden()
    page.keyboard.press('ArrowRight')
    assert page.locator('#watch').is_visible()
    page.keyboard.press('ArrowRight')
    assert page.locator('#draw').is_visible()

    for _ in range(3):  # Past 'Surprise me' and 'Open SVG'.
      page.keyboard.press('Tab')
    focus = page.locator(':focus')
    assert focus.get_attribute('aria-label') == 'Paper to draw on'
    page.keyboard.press('ArrowLeft')
    page.keyboard.press(' ')
    spoken(page, 'Pen down')
    for key in ('ArrowRight', 'ArrowDown', 'Shift+ArrowDown', 'ArrowLeft'):
      page.keyboard.press(key)
    page.keyboard.press(' ')
    endings(page)
    file = save(page, tmp_path)
    assert paths(file, 'person') == ['M480 500L500 500L500 520L500 600L480 600']

    # The last of those that have a line: of some the model says that is all.
    tiles = page.locator(TILES).all()
    drawn = [
      i for i, tile in enumerate(tiles, 1) if tile.locator('path.model').count()
    ]
    page.locator('#paper').focus()
    for _ in range(drawn[-1]):
      page.keyboard.press('Tab')
    kept = focus.locator('path.model').get_attribute('d')
    assert focus.get_attribute('aria-label') == f'Keep ending {drawn[-1]} of 8'
    page.keyboard.press('Enter')
    assert focus.get_attribute('id') == 'paper'
    assert ''.join(paths(save(page, tmp_path), 'model')) == kept
    page.keyboard.press('Control+z')
    assert paths(save(page, tmp_path), 'model') == []
    # A stroke is given up.
    page.locator('#paper').focus()
    for key in (' ', 'ArrowUp', 'Escape', ' ', 'ArrowUp', 'Control+z'):
      page.keyboard.press(key)
    page.keyboard.press('Escape')
    assert page.get_by_role('button', name='Save SVG').is_disabled()


def tile(page, selector):
  return points(page.locator(f'{selector} path').get_attribute('d'))


def decoded(page):
  return tile(page, '.decoded .tile')


def use(page, name):
  """Puts the drawing into a slot, and waits for all that follows."""
  page.get_by_label(f'Use drawing as {name}').click()
  sync_api.expect(page.locator('#between [aria-busy=true]')).to_have_count(
    0, timeout=TIMEOUT
  )


def test_between_two_drawings(chromium, server):
  with visit(chromium, server) as page:
    choose(page, 'faces', 0)
    page.get_by_label('Off').check()
    draw(page, CIRCLE)
    use(page, 'A')
    page.locator('.decoded .tile').wait_for()
    of_circle = decoded(page)
    use(page, 'B')
    steps = page.locator('.strip .tile')
    steps.nth(6).wait_for()
    assert steps.count() == 7
    # From a drawing to itself there is no way.
    for step in steps.all():
      found = points(step.locator('path').get_attribute('d'))
      np.testing.assert_allclose(found, of_circle, atol=0.5)

    draw(page, WAVE)
    use(page, 'C')
    page.locator('.sum .tile').wait_for()
    difference = tile(page, '.sum .tile')
    page.locator('[name=steps]').fill('4')
    page.locator('.strip:not(:has(> :nth-child(5)))').wait_for()
    assert steps.count() == 4

    # A - A + C is C.
    page.locator('.decoded .tile').evaluate('tile => tile.remove()')
    use(page, 'A')
    page.locator('.decoded .tile').wait_for()
    of_both = decoded(page)
    np.testing.assert_allclose(difference, of_both, atol=0.5)
    assert of_both.shape != of_circle.shape or np.any(of_both != of_circle)


def test_dimensions_of_the_latent_space(chromium, server, tmp_path):
  with visit(chromium, server) as page:
    choose(page, 'faces', 0)
    page.get_by_label('Off').check()
    draw(page, CIRCLE)
    use(page, 'A')
    page.locator('.decoded .tile').wait_for()
    before = page.locator('.decoded path').get_attribute('d')
    dimensions = page.locator('#dimensions [type=range]')
    assert dimensions.count() == 4
    dimensions.first.focus()
    page.keyboard.press('End')
    changed = page.locator(f'.decoded path:not([d="{before}"])')
    changed.wait_for()
    page.get_by_role('button', name='Back to A').click()
    page.locator(f'.decoded path[d="{before}"]').wait_for()
    # What was decoded can be drawn on.
    page.get_by_label('Decoded drawing: put on the paper').click()
    file = save(page, tmp_path)
    assert ''.join(paths(file, 'model')) == before
    assert paths(file, 'person') == []
    # A model without latent vectors has none to show.
    choose(page, 'pets')
    assert page.locator('#between').is_hidden()


def suggestions(page, name):
  """The path of each of the drawings that a button brings; '' if empty."""
  page.get_by_role('button', name=name).click()
  page.locator(ANSWERED).wait_for()
  page.locator(f'{TILES} path').first.wait_for()
  tiles = page.locator(TILES)
  assert tiles.count() == 8
  return [
    ''.join(
      path.get_attribute('d') for path in tile.locator('path.model').all()
    )
    for tile in tiles.all()
  ]


@pytest.mark.parametrize('model', ['faces', 'pets'])
def test_drawings_from_nothing(chromium, server, tmp_path, model):
  """In every mode; one is put on the paper, in its middle."""
  with visit(chromium, server) as page:
    choose(page, model)
    page.get_by_label('Off').check()
    assert page.get_by_role('button', name='Mimic').is_visible() == (
      model == 'faces'
    )
    shown = suggestions(page, 'Surprise me')
    assert len(set(shown)) > 1
    spoken(page, '8 drawings of the model')
    assert page.get_by_role('button', name='Save SVG').is_disabled()
    i, taken = next((i, drawn) for i, drawn in enumerate(shown) if drawn)
    page.get_by_label(f'Take drawing {i + 1} of 8').click()
    file = save(page, tmp_path)
    assert ''.join(paths(file, 'model')) == taken
    corners = points(taken)
    np.testing.assert_allclose(
      (corners.min(0) + corners.max(0)) / 2, 500, atol=0.01
    )
    assert page.locator(TILES).count() == 0
    page.get_by_role('button', name='Undo').click()
    assert page.get_by_role('button', name='Save SVG').is_disabled()


def test_a_drawing_is_mimicked_several_times(chromium, server, tmp_path):
  with visit(chromium, server) as page:
    choose(page, 'faces')
    assert page.get_by_role('button', name='Mimic').is_disabled()
    draw(page, CIRCLE)
    endings(page)
    shown = suggestions(page, 'Mimic')
    assert len(set(shown)) > 1
    # The drawing stays until one is taken; the next stroke ends the choice.
    (drawn,) = paths(save(page, tmp_path), 'person')
    i, taken = next((i, drawn) for i, drawn in enumerate(shown) if drawn)
    page.get_by_label(f'Take drawing {i + 1} of 8').click()
    file = save(page, tmp_path)
    assert paths(file, 'person') == []
    assert ''.join(paths(file, 'model')) == taken
    page.get_by_role('button', name='Undo').click()
    endings(page)
    assert paths(save(page, tmp_path), 'person') == [drawn]
    suggestions(page, 'Mimic')
    draw(page, WAVE)
    endings(page)
    assert page.get_by_label('Keep ending 1 of 8').count() == 1
    assert len(paths(save(page, tmp_path), 'person')) == 2


def test_an_svg_is_put_on_the_paper(chromium, server, tmp_path):
  """What was saved comes back, and what is no drawing is an error."""
  with visit(chromium, server) as page:
    choose(page, 'faces')
    page.get_by_label('Off').check()
    draw(page, CIRCLE)
    draw(page, WAVE)
    before = save(page, tmp_path)
    page.get_by_role('button', name='Clear').click()
    page.locator('#open').set_input_files(before)
    spoken(page, 'is on the paper')
    after = save(page, tmp_path)
    assert len(paths(after, 'person')) == 2
    a, b = (
      np.concatenate([points(path) for path in paths(file, 'person')])
      for file in (before, after)
    )
    # The same shape, in the middle of the paper.
    np.testing.assert_allclose((b.min(0) + b.max(0)) / 2, 500, atol=0.01)
    sides = [np.ptp(x, axis=0) for x in (a, b)]
    np.testing.assert_allclose(
      sides[0] / sides[0].max(), sides[1] / sides[1].max(), atol=0.01
    )


def test_an_svg_that_cannot_be_read_is_told(chromium, server, tmp_path):
  wrong = tmp_path / 'wrong.svg'
  wrong.write_text('<svg')
  with (
    complaints('error: Failed to load resource: .* 400 '),
    visit(chromium, server) as page,
  ):
    choose(page, 'faces')
    draw(page, CIRCLE)
    endings(page)
    page.locator('#open').set_input_files(wrong)
    page.get_by_text('wrong.svg: this file is not XML').wait_for()
    assert len(paths(save(page, tmp_path), 'person')) == 1


def test_a_png_shows_what_the_svg_holds(chromium, server, tmp_path):
  with visit(chromium, server, color_scheme='dark') as page:
    choose(page, 'faces')
    page.get_by_label('Off').check()
    draw(page, CIRCLE)
    file = save(page, tmp_path)
    with page.expect_download() as download:
      page.get_by_role('button', name='Save PNG').click()
    assert download.value.suggested_filename == 'drawing.png'
    pixels = np.asarray(Image.open(download.value.path()).convert('RGB'), int)
  assert pixels.shape == (1200, 1200, 3)
  assert pixels[0, 0].tolist() == [255, 255, 255]
  *corner, side, _ = map(float, ET.parse(file).getroot().get('viewBox').split())
  (path,) = paths(file, 'person')
  x, y = ((points(path) - corner) * 1200 / side).round().astype(int).T
  ink = np.abs(pixels[y, x] - [0x34, 0x57, 0xD5]).max()
  assert ink < 10  # Its colour, at every point.
  assert np.mean(pixels.min(axis=2) < 128) < 0.05


def test_the_way_between_drawings_is_dragged(chromium, server):
  with visit(chromium, server) as page:
    choose(page, 'faces', 0)
    page.get_by_label('Off').check()
    draw(page, CIRCLE)
    use(page, 'A')
    page.get_by_role('button', name='Clear').click()
    draw(page, WAVE)
    use(page, 'B')
    share = page.get_by_role('slider', name='On the way')
    steps = page.locator('.strip .tile path')

    def wait_for(step):
      """Greedily, the drawing depends on the share alone."""
      wanted = points(steps.nth(step).get_attribute('d'))
      deadline = time.monotonic() + TIMEOUT / 1000
      while True:
        found = points(page.locator('.passing path').get_attribute('d'))
        if found.shape == wanted.shape and np.allclose(found, wanted, atol=0.5):
          return
        assert time.monotonic() < deadline, (found, wanted)
        page.wait_for_timeout(100)

    share.focus()
    page.keyboard.press('Home')
    wait_for(0)
    page.keyboard.press('End')
    wait_for(6)
    # The strip itself, from its left to the middle.
    box = page.locator('.strip').bounding_box()
    y = box['y'] + box['height'] / 2
    page.mouse.move(box['x'] + 5, y)
    page.mouse.down()
    page.mouse.move(box['x'] + box['width'] / 2, y, steps=8)
    page.mouse.up()
    assert float(share.input_value()) == pytest.approx(0.5, abs=0.02)
    share.fill('0.5')
    wait_for(3)
    # A drag is no click: the paper has the wave still.
    assert page.get_by_role('button', name='Undo').is_enabled()
    now = page.locator('.passing path').get_attribute('d')
    page.get_by_label('Drawing on the way: put on the paper').click()
    use(page, 'C')
    assert page.locator('.slots path.model').get_attribute('d') == now


@pytest.mark.parametrize('motion', ['reduce', 'no-preference'])
def test_the_replay_moves_only_where_motion_is_welcome(
  chromium, server, motion
):
  """Half a line is only ever seen in motion."""
  count = """canvas => {
    const {width, height} = canvas;
    const context = new OffscreenCanvas(width, height)
      .getContext('2d', {willReadFrequently: true});
    context.drawImage(canvas, 0, 0);
    return context.getImageData(0, 0, width, height).data
      .filter((value, i) => i % 4 == 3 && value).length;
  }"""
  with visit(chromium, server, reduced_motion=motion) as page:
    page.get_by_label('Off').check()
    ink = page.locator('#paper')
    draw(page, CIRCLE)
    page.evaluate('() => new Promise(requestAnimationFrame)')
    page.evaluate('() => new Promise(requestAnimationFrame)')
    one = ink.evaluate(count)
    draw(page, WAVE)
    page.evaluate('() => new Promise(requestAnimationFrame)')
    page.evaluate('() => new Promise(requestAnimationFrame)')
    both = ink.evaluate(count)
    page.clock.install(time=0)
    page.clock.pause_at(1)  # Else it goes on by itself.
    page.get_by_role('button', name='Replay').click()
    page.clock.run_for(300)
    seen = ink.evaluate(count)
    if motion == 'reduce':
      assert seen == one
    else:
      assert 0 < seen < one
    page.clock.run_for(10_000)
    spoken(page, 'Replayed.')
    page.clock.run_for(100)
    assert ink.evaluate(count) == both


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
  """Two files; the captioner sees what is in a frame of 2 pixels."""
  directory = tmp_path_factory.mktemp('photographs')
  rng = np.random.default_rng(1)
  files = [directory / f'{name}.png' for name in ('first', 'second')]
  for file in files:
    coarse = rng.integers(0, 256, (3, 3, 3), np.uint8)
    Image.fromarray(coarse.repeat(12, 0).repeat(12, 1)).save(file)
  return files


def ask(server, path, file, kind):
  """The answer of the server to a file."""
  request = urllib.request.Request(
    f'{server}api/{path}', file.read_bytes(), {'Content-Type': kind}
  )
  with urllib.request.urlopen(request) as answer:
    return json.load(answer)


def wait_for_caption(page, answer):
  sentence = answer['captions'][0]['text']
  shown = re.compile(rf'^\s*{re.escape(sentence)}\s*$')
  page.locator('.sentence', has_text=shown).wait_for()
  page.locator(f'.result{DONE}').wait_for()


def test_photographs_are_captioned(chromium, server, photographs):
  first, second = (
    ask(server, 'caption?model=photographs', file, 'image/png')
    for file in photographs
  )
  with visit(chromium, server, 'caption') as page:
    page.locator('#photographs').set_input_files(photographs)
    wait_for_caption(page, second)
    page.get_by_label('Show photograph first.png').click()
    wait_for_caption(page, first)
    listed = page.locator('.alternatives li span:first-child')
    assert listed.all_inner_texts() == [
      caption['text'] for caption in first['captions']
    ]
    numbers = page.locator('.alternatives .number').all_inner_texts()
    for number, caption in zip(numbers, first['captions'], strict=True):
      if number != '< 0.01 %':
        percent = float(number.removesuffix(' %'))
        assert percent == pytest.approx(100 * caption['probability'], rel=0.06)
    described = page.locator('.photograph img').get_attribute('alt')
    assert described == first['captions'][0]['text']


def test_words_show_where_the_model_looked(chromium, server, photographs):
  answer = ask(server, 'caption?model=photographs', photographs[0], 'image/png')
  attention = answer['attention']
  assert (attention['rows'], attention['columns']) == (2, 2)
  picture = np.asarray(Image.open(photographs[0]))[2:-2, 2:-2]
  with visit(chromium, server, 'caption') as page:
    page.locator('#photographs').set_input_files(photographs[0])
    wait_for_caption(page, answer)
    words = page.locator('.word')
    assert words.all_inner_texts() == answer['captions'][0]['words']

    def overlay():
      png = page.locator('.photograph canvas').evaluate('it => it.toDataURL()')
      found = Image.open(io.BytesIO(base64.b64decode(png.split(',')[1])))
      return np.asarray(found).astype(int)

    # What the model does not see is dark, the rest is as it is.
    plain = overlay()
    assert plain.shape == (36, 36, 4)
    assert np.all(plain[2:-2, 2:-2] == 0)
    assert np.all(plain[:2, :, 3] == round(0.65 * 255))
    words.first.focus()
    for i, weights in enumerate(attention['weights']):
      page.locator('.word.shown').nth(0).wait_for()
      assert words.nth(i).evaluate('it => it === document.activeElement')
      seen = overlay()[2:-2, 2:-2]
      expected = figures.shade(picture, np.array(weights, np.float32))
      np.testing.assert_allclose(seen[..., :3], expected.astype(int), atol=3)
      row, column = divmod(int(np.argmax(weights)), 2)
      spoken(page, f'in row {row + 1} of 2, column {column + 1} of 2')
      page.keyboard.press('ArrowRight')
    page.keyboard.press('Escape')
    np.testing.assert_array_equal(overlay(), plain)
    words.first.hover()
    assert page.locator('.word.shown').all_inner_texts() == [
      words.first.inner_text()
    ]


def drop(page, size, name, kind):
  """Drops a file of so many zeros into the room."""
  page.locator('.stage').evaluate(
    """(stage, [size, name, type]) => {
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(
        new File([new Uint8Array(size)], name, {type}));
      stage.dispatchEvent(
        new DragEvent('drop', {bubbles: true, cancelable: true, dataTransfer}));
    }""",
    [size, name, kind],
  )


@pytest.mark.parametrize(
  ('name', 'kind', 'status', 'message'),
  [
    ('torn.jpg', 'image/jpeg', 400, 'not a readable image'),
    ('notes.txt', 'text/plain', 415, 'Content-Type must be one of'),
  ],
)
def test_files_that_are_no_pictures_are_told(
  chromium, server, photographs, name, kind, status, message
):
  """The browser logs the status of the answer, and nothing else."""
  complaint = (
    r"^\['error: Failed to load resource: the server responded with a status "
    rf"of {status} \([^']*\)'\]$"
  )
  answer = ask(server, 'caption?model=photographs', photographs[0], 'image/png')
  with pytest.raises(AssertionError, match=complaint):
    with visit(chromium, server, 'caption') as page:
      page.locator('#photographs').set_input_files(photographs[0])
      wait_for_caption(page, answer)
      drop(page, 100, name, kind)
      alert = page.locator('#alerts')
      alert.filter(has_text=message).wait_for()
      assert alert.inner_text().startswith(f'{name}: ')
      # What was there before is there still.
      wait_for_caption(page, answer)
      page.get_by_role('button', name='Close').click()
      assert alert.inner_text() == ''


def test_what_is_too_large_is_not_sent(chromium, server):
  with visit(chromium, server, 'caption') as page:
    drop(page, 20_000_001, 'large.png', 'image/png')
    alert = page.locator('#alerts')
    assert 'large.png is larger than 20 MB' in alert.inner_text()


# A camera that sees a changing grey, since there is none here.
CAMERA = """(side) => {
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = side;
  const context = canvas.getContext('2d');
  let grey = 0;
  setInterval(() => {
    context.fillStyle = `rgb(${grey} ${grey++ % 256} 99)`;
    context.fillRect(0, 0, side, side);
  }, 20);
  navigator.mediaDevices.getUserMedia = async () =>
    window.stream = canvas.captureStream();
}"""


def test_the_camera_is_watched_frame_by_frame(chromium, server):
  with visit(chromium, server, 'watch') as page:
    page.evaluate(CAMERA, 120)
    models = page.locator('#watcher')
    assert models.locator('option').all_inner_texts() == [
      'gesture_stream',
      'occlusion_track',
      'photographs',
    ]
    assert page.locator('#watch .watched').is_hidden()
    page.get_by_role('button', name='Start the camera').click()
    classes = page.locator('#watch-classes li')
    classes.nth(4).wait_for()

    # A target, whose box is drawn with the mouse.
    models.select_option('occlusion_track')
    assert classes.count() == 0
    area = page.locator('#watch canvas').bounding_box()
    side = min(area['width'], area['height'])
    x = area['x'] + area['width'] / 2
    y = area['y'] + area['height'] / 2
    page.mouse.move(x - side / 4, y - side / 4)
    page.mouse.down()
    page.mouse.move(x, y)
    page.mouse.move(x + side / 4, y + side / 4)
    page.mouse.up()
    seen = page.locator('#watch-seen')
    seen.filter(has_text='pixels').wait_for()
    # Of the first frame, or one of the next: near what was drawn.
    numbers = [int(n) for n in re.findall(r'-?\d+', seen.inner_text())]
    assert len(numbers) == 4 and all(abs(n) < 120 for n in numbers)

    models.select_option('photographs')
    seen.filter(has_text=re.compile('[a-z]')).wait_for()
    assert 'pixels' not in seen.inner_text()
    page.get_by_role('tab', name='Draw').click()
    assert page.evaluate(
      'stream.getTracks().every(it => it.readyState == "ended")'
    )
    assert page.locator('#alerts').inner_text() == ''


def test_the_camera_is_on_only_when_asked_for(chromium, server):
  with visit(chromium, server, 'caption') as page:
    page.evaluate(CAMERA, 36)
    page.get_by_role('button', name='Camera').click()
    page.get_by_role('button', name='Take the picture').click()
    page.locator('.alternatives li').first.wait_for()
    assert page.evaluate(
      'stream.getTracks().every(it => it.readyState == "ended")'
    )
    size = 'it => [it.naturalWidth, it.naturalHeight]'
    assert page.locator('.photograph img').evaluate(size) == [36, 36]
    page.get_by_role('button', name='Camera').click()
    page.get_by_role('tab', name='Draw').click()
    assert page.evaluate(
      'stream.getTracks().every(it => it.readyState == "ended")'
    )


def test_videos_are_captioned(chromium, server, tmp_path):
  clip = tmp_path / 'clip.mp4'
  rng = np.random.default_rng(0)
  shape = (10, 32, 32, 3)
  frames.write(clip, rng.integers(0, 256, shape, np.uint8), rate=10)
  answer = ask(server, 'caption_video?model=films', clip, 'video/mp4')
  with visit(chromium, server, 'caption') as page:
    page.locator('#videos').set_input_files(clip)
    wait_for_caption(page, answer)
    assert page.locator('#clip').is_visible()
    assert page.locator('.photograph').is_hidden()

    # The weights of a word as bars.
    attention = answer['attention']
    times, weights = attention['times'], np.array(attention['weights'])
    words = page.locator('.word')
    bars = page.locator('.timeline li')
    caption = page.locator('.timeline figcaption')
    assert words.all_inner_texts() == answer['captions'][0]['words']
    assert caption.inner_text() == 'The model saw 5 moments of the video.'

    def heights():
      shares = bars.evaluate_all('all => all.map(it => it.style.blockSize)')
      return [float(share.removesuffix('%')) / 100 for share in shares]

    assert heights() == [0] * 5
    page.wait_for_function('document.getElementById("clip").readyState')
    words.first.focus()
    for i, word in enumerate(answer['captions'][0]['words']):
      most = int(np.argmax(weights[i]))
      percent = round(100 * weights[i, most])
      where = f'at {times[most]:.1f} s, {percent} %'
      assert caption.inner_text() == f'“{word}”: most weight {where}'
      spoken(page, where)
      np.testing.assert_allclose(
        heights(), weights[i] / weights[i].max(), atol=1e-3
      )
      marked = bars.evaluate_all(
        'all => all.map(it => it.classList.contains("most"))'
      )
      assert marked == [place == most for place in range(5)]
      # The video is at that frame.
      shown = page.locator('#clip').evaluate('it => it.currentTime')
      assert times[most] <= shown < times[most] + 0.1
      page.keyboard.press('ArrowRight')
    page.keyboard.press('Escape')
    assert heights() == [0] * 5
    words.nth(1).hover()
    np.testing.assert_allclose(
      heights(), weights[1] / weights[1].max(), atol=1e-3
    )
    page.set_viewport_size(PHONE)
    assert fits(page)
    edge = page.locator('.timeline').bounding_box()
    for bar in bars.all():
      box = bar.bounding_box()
      assert edge['x'] <= box['x']
      assert box['x'] + box['width'] <= edge['x'] + edge['width']


# Fingers and pens.


class Fingers:
  """Touches as a screen reports them, which may scroll and pinch."""

  def __init__(self, page):
    self._page = page
    self._session = page.context.new_cdp_session(page)

  def touch(self, kind, *points):
    """'touchStart', 'touchMove' or 'touchEnd': all that are on the screen."""
    self._session.send(
      'Input.dispatchTouchEvent',
      {
        'type': kind,
        'touchPoints': [
          {'x': x, 'y': y, 'id': i} for i, (x, y) in enumerate(points)
        ],
      },
    )

  def drag(self, points):
    first, *others = points
    self.touch('touchStart', first)
    for point in others:
      self.touch('touchMove', point)
    self.touch('touchEnd')


def moved(page):
  """The scroll position and the scale of the page."""
  return page.evaluate('[scrollY, visualViewport.scale]')


UPWARDS = [(0.5, 0.8 - t / 20) for t in range(13)]
TOUCH = dict(viewport=PHONE, has_touch=True, is_mobile=True)


def test_a_finger_draws_and_the_page_stays(chromium, server, tmp_path):
  with visit(chromium, server, **TOUCH) as page:
    fingers = Fingers(page)
    fingers.drag([place(page, *point) for point in UPWARDS])
    endings(page)
    (drawn,) = paths(save(page, tmp_path), 'person')
    # A pixel of the paper is several units, and a finger's first step is lost.
    ends = points(drawn)[[0, -1]]
    np.testing.assert_allclose(ends, [[500, 800], [500, 200]], atol=15)
    assert moved(page) == [0, 1]
    assert page.locator(TILES).count() == 8
    # Anywhere else a finger does move it.
    x, y = place(page, 0.5, 1)
    fingers.drag([(x, y + 60 - 20 * i) for i in range(12)])
    page.wait_for_function('scrollY > 50')


def test_a_second_finger_does_not_spoil_a_stroke(chromium, server, tmp_path):
  with visit(chromium, server, **TOUCH) as page:
    page.get_by_label('Off').check()
    before = moved(page)
    fingers = Fingers(page)
    first = [place(page, *point) for point in UPWARDS]
    second = [place(page, 0.9, 0.2 + t / 20) for t in range(13)]
    fingers.touch('touchStart', first[0])
    for point in first[1:5]:
      fingers.touch('touchMove', point)
    fingers.touch('touchStart', first[4], second[4])
    for pair in zip(first[5:9], second[5:9], strict=True):
      fingers.touch('touchMove', *pair)
    # It is lifted again.
    for point in first[9:]:
      fingers.touch('touchMove', point)
    fingers.touch('touchEnd')
    assert moved(page) == before
    (drawn,) = paths(save(page, tmp_path), 'person')
    found = points(drawn)
    np.testing.assert_allclose(found[:, 0], 500, atol=15)
    assert found[-1, 1] == pytest.approx(200, abs=15)


def test_a_pen_draws_though_a_hand_rests_on_the_paper(
  chromium, server, tmp_path
):
  with visit(chromium, server, **TOUCH) as page:
    page.get_by_label('Go on with my line').check()
    page.locator('#paper').evaluate("""it => {
      window.kinds = new Set();
      it.addEventListener('pointermove', (event) =>
        kinds.add(event.pointerType));
    }""")
    session = page.context.new_cdp_session(page)

    def move(kind, point, buttons):
      x, y = place(page, *point)
      session.send(
        'Input.dispatchMouseEvent',
        {
          'type': kind,
          'x': x,
          'y': y,
          'button': 'left' if buttons or kind == 'mouseReleased' else 'none',
          'buttons': buttons,
          'clickCount': 1,
          'pointerType': 'pen',
          'force': 0.5 if buttons else 0,
        },
      )

    def stroke():
      page.evaluate('scrollTo(0, 0)')
      move('mouseMoved', CIRCLE[0], 0)
      move('mousePressed', CIRCLE[0], 1)
      for point in CIRCLE[1:]:
        move('mouseMoved', point, 1)
      move('mouseReleased', CIRCLE[-1], 0)

    stroke()
    shown = endings(page)
    assert page.evaluate('[...kinds]') == ['pen']
    (drawn,) = paths(save(page, tmp_path), 'person')
    np.testing.assert_allclose(
      points(drawn)[[0, -1]], 1000 * np.array(CIRCLE)[[0, -1]], atol=15
    )
    for ending in shown:
      np.testing.assert_allclose(
        points(ending)[0], points(drawn)[-1], atol=0.01
      )
    page.get_by_role('button', name='Clear').click()
    page.get_by_label('Off').check()
    page.evaluate('scrollTo(0, 0)')
    fingers = Fingers(page)
    resting = [place(page, 0.9, 0.9 + t / 50) for t in range(4)]
    fingers.touch('touchStart', resting[0])
    for point in resting[1:]:
      fingers.touch('touchMove', point)
    stroke()
    fingers.touch('touchEnd')
    assert moved(page) == [0, 1]
    assert paths(save(page, tmp_path), 'person') == [drawn]


# A server that is busy, or not there.


class Relay:
  """A way to the server that can be cut, and be there again."""

  def __init__(self, server):
    self._to = urllib.parse.urlsplit(server).port
    self._port = 0
    self._connections = []
    self.open()

  @property
  def address(self):
    return f'http://localhost:{self._port}/'

  def open(self):
    self._listening = socket.create_server(('127.0.0.1', self._port))
    self._port = self._listening.getsockname()[1]
    threading.Thread(target=self._accept, args=(self._listening,)).start()

  def cut(self):
    for connection in (self._listening, *self._connections):
      with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
      connection.close()
    self._connections.clear()

  def _accept(self, listening):
    while True:
      try:
        here, _ = listening.accept()
      except OSError:
        return
      there = socket.create_connection(('localhost', self._to))
      self._connections += [here, there]
      for pair in ((here, there), (there, here)):
        threading.Thread(target=self._pass, args=pair).start()

  def _pass(self, source, sink):
    with contextlib.suppress(OSError):
      while data := source.recv(2**16):
        sink.sendall(data)
      sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def relay(server):
  relay = Relay(server)
  yield relay
  relay.cut()


@contextlib.contextmanager
def complaints(pattern):
  """The browser may log what it could not load, and nothing else."""
  try:
    yield
  except AssertionError as error:
    (logged,) = error.args
    if not isinstance(logged, list):
      raise
    assert all(re.match(pattern, one) for one in logged), logged


LOST = r'error: (Failed to load resource: net::ERR_|WebSocket connection to )'


def test_a_lost_server_is_waited_for(chromium, relay, tmp_path):
  with (
    complaints(LOST),
    visit(chromium, relay.address) as page,
  ):
    alert = page.locator('#alerts')
    draw(page, CIRCLE)
    endings(page)
    relay.cut()
    alert.filter(has_text='The server does not answer').wait_for()
    # One may go on drawing.
    draw(page, WAVE)
    drawn = paths(save(page, tmp_path), 'person')
    assert len(drawn) == 2
    assert 'What you have made here is safe' in alert.inner_text()
    assert page.locator(f'{TILES} path.model').count() == 0

    # It is started again, and has no models yet.
    answer = {'ready': False, 'progress': []}
    lists = ('sketchers', 'captioners', 'video_captioners', 'watchers')
    page.route(
      '**/api/models',
      lambda route: route.fulfill(json={**answer, **dict.fromkeys(lists, [])}),
    )
    relay.open()
    alert.filter(has_text='loads its models').wait_for()
    assert page.locator('#paper').is_visible()
    page.unroute('**/api/models')
    page.locator('#alerts:empty').wait_for(state='attached')
    assert len(endings(page)) > 1
    assert paths(save(page, tmp_path), 'person') == drawn


def test_a_lost_server_is_asked_ever_more_rarely(chromium, relay):
  with complaints(LOST), visit(chromium, relay.address) as page:
    page.evaluate("""() => {
      const {fetch} = window;
      window.asked = window.heard = 0;
      window.fetch = async (...question) => {
        asked++;
        try {
          return await fetch(...question);
        } finally {
          heard++;
        }
      };
    }""")
    page.clock.install()
    page.clock.pause_at(page.evaluate('Date.now()') / 1000 + 1)
    relay.cut()
    page.locator('#alerts p').wait_for()
    for i, wait in enumerate([1000, 2000, 4000, 8000, 16_000, 16_000]):
      page.clock.run_for(wait - 1)
      assert page.evaluate('asked') == i
      page.clock.run_for(1)
      assert page.evaluate('asked') == i + 1
      while page.evaluate('heard') == i:
        time.sleep(0.01)
    relay.open()
    page.clock.run_for(16_000)
    page.locator('#alerts:empty').wait_for(state='attached')


def test_a_photograph_waits_for_a_lost_server(
  chromium, server, relay, photographs
):
  answer = ask(server, 'caption?model=photographs', photographs[0], 'image/png')
  with complaints(LOST), visit(chromium, relay.address, 'caption') as page:
    relay.cut()
    page.locator('#alerts p').wait_for()
    page.locator('#photographs').set_input_files(photographs[0])
    assert page.locator('.photograph').is_visible()
    relay.open()
    wait_for_caption(page, answer)
    page.locator('#alerts:empty').wait_for(state='attached')


def test_a_busy_server_is_asked_again(chromium, server, photographs, tmp_path):
  """The error messages are in the tests of the server."""
  answer = ask(server, 'caption?model=photographs', photographs[0], 'image/png')
  refused = []

  def relay(ours):
    theirs = ours.connect_to_server()

    def hear(text):
      message = json.loads(text)
      if 'lines' in message and len(refused) < 3:
        refused.append(message)
        busy = {'id': message['id'], 'error': 'busy: wait', 'busy': True}
        ours.send(json.dumps(busy))
      else:
        theirs.send(text)

    ours.on_message(hear)

  with (
    complaints('error: Failed to load resource: .* 503 '),
    visit(chromium, server) as page,
  ):
    page.route_web_socket('**/api/draw', relay)
    page.reload()
    alert = page.locator('#alerts')
    draw(page, CIRCLE)
    alert.filter(has_text='The server is busy').wait_for()
    drawn = paths(save(page, tmp_path), 'person')
    endings(page)
    assert len(refused) == 3
    assert refused[0] == refused[1] == refused[2]
    page.locator('#alerts:empty').wait_for(state='attached')
    assert paths(save(page, tmp_path), 'person') == drawn

    page.get_by_role('tab', name='Caption').click()
    page.route(
      '**/api/caption?**',
      lambda route: route.fulfill(status=503, json={'error': 'busy: wait'}),
      times=1,
    )
    page.locator('#photographs').set_input_files(photographs[0])
    alert.filter(has_text='The server is busy').wait_for()
    wait_for_caption(page, answer)
    page.locator('#alerts:empty').wait_for(state='attached')


def fits(page):
  """True if nothing is cut off at the right, except in lists that scroll."""
  return page.evaluate("""() =>
    document.documentElement.scrollWidth <= innerWidth &&
    [...document.querySelectorAll('button, select, input, label, p, canvas')]
      .filter((it) => it.checkVisibility() && !it.matches('.unseen, .tile'))
      .every((it) => it.getBoundingClientRect().right <= innerWidth)""")


def test_a_phone_is_wide_enough(chromium, server, photographs):
  with visit(chromium, server, **TOUCH) as page:
    draw(page, CIRCLE)
    endings(page)
    use(page, 'A')
    use(page, 'B')
    page.locator('.strip .tile').first.wait_for()
    assert fits(page)
    page.get_by_role('tab', name='Caption').click()
    page.locator('#photographs').set_input_files(photographs)
    page.locator('.alternatives li').first.wait_for()
    assert fits(page)


CONTRAST = """() => {
  const context = document.createElement('canvas')
    .getContext('2d', {willReadFrequently: true});
  const rgba = (color) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([r, g, b]) => [r, g, b]
    .map((x) => x / 255)
    .map((x) => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
    .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    const color = rgba(getComputedStyle(element).backgroundColor);
    return color[3] === 255 ? color : ground(element.parentElement);
  };
  return [...document.querySelectorAll('body *')]
    .filter((it) => it.checkVisibility())
    .filter((it) => !it.matches(':disabled, :disabled *'))
    .filter((it) => [...it.childNodes].some((child) =>
      child.nodeType === Node.TEXT_NODE && child.data.trim()))
    .map((it) => {
      const [a, b] = [rgba(getComputedStyle(it).color), ground(it)]
        .map(luminance).sort((a, b) => b - a);
      return [it.textContent.trim().slice(0, 40), (a + 0.05) / (b + 0.05)];
    });
}"""


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_text_has_contrast(chromium, server, photographs, scheme):
  """WCAG 2.2, success criterion 1.4.3."""
  with visit(chromium, server, color_scheme=scheme) as page:
    seen = page.evaluate(CONTRAST)
    page.get_by_role('tab', name='Caption').click()
    page.locator('#photographs').set_input_files(photographs)
    page.locator('.word').first.wait_for()
    page.locator('.word').first.focus()
    seen += page.evaluate(CONTRAST)
    drop(page, 20_000_001, 'large.png', 'image/png')
    seen += page.evaluate(CONTRAST)
    assert len(seen) > 50
    assert [(text, ratio) for text, ratio in seen if ratio < 4.5] == []
    ground = page.locator('body').evaluate(
      'it => getComputedStyle(it).backgroundColor'
    )
    brightness = np.mean([int(x) for x in re.findall(r'\d+', ground)])
    assert (brightness > 128) == (scheme == 'light')


def test_everything_has_a_name(chromium, server):
  with visit(chromium, server) as page:
    for room in ('Draw', 'Caption'):
      page.get_by_role('tab', name=room).click()
      for role in ('button', 'combobox', 'slider', 'radio', 'checkbox', 'tab'):
        every = page.get_by_role(role).count()
        assert page.get_by_role(role, name=re.compile(r'\w')).count() == every


def test_progress_is_told_until_the_models_are_ready(chromium, server):
  with visit(chromium, server) as page:
    answer = page.request.get(f'{server}api/models').json()
    early = {
      **answer,
      'ready': False,
      'sketchers': [],
      'captioners': [],
      'video_captioners': [],
      'watchers': [],
      'progress': [
        {'name': 'kanji', 'what': 'compiling', 'step': 3, 'num_steps': 6},
        {'name': 'scenes', 'what': 'waiting', 'step': 0, 'num_steps': 0},
      ],
    }
    state = {'answer': early}
    page.route(
      '**/api/models', lambda route: route.fulfill(json=state['answer'])
    )
    page.reload()
    page.get_by_text('compiling, step 3 of 6').wait_for()
    assert (
      page.get_by_role('progressbar', name='kanji').get_attribute('value')
      == '3'
    )
    assert page.locator('#draw > .room').is_hidden()
    state['answer'] = answer
    page.locator('#draw > .room').wait_for()
    assert page.locator('#preparing').is_hidden()
