r"""Takes the screenshots of the demo that are in docs/images/.

  python scripts/import_sketch_rnn.py --weights=dog.gen.json --workdir=runs/dog
  python scripts/demo_screenshots.py --workdir=runs/dog \
      --workdir=pretrained/kanji --workdir=pretrained/scenes

The first workdir holds the model that completes a circle (a head). The last one
holds a captioner, which captions a test image of `scenes`. It needs Chromium
(scripts/install_chromium.sh).
"""

import argparse
import contextlib
import json
import math
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from collections.abc import Sequence

from playwright import sync_api

from captioning import scenes
from training import errors
from training import paths

ROOT = pathlib.Path(__file__).resolve().parent.parent
SIZES = {
  '': {'width': 1280, 'height': 800},
  '_phone': {'width': 360, 'height': 740},
}
# Centre and radius of the head, which leave space for the rest of the dog.
HEADS = {'': (0.36, 0.42, 0.13), '_phone': (0.27, 0.42, 0.09)}
PATIENCE = 600  # Maximum seconds for compiling the models.


@contextlib.contextmanager
def serve(workdirs: Sequence[str]) -> Iterator[str]:
  """Runs a server and yields its address once its models are ready."""
  command = [sys.executable, '-m', 'demo', '--port=0', '--no_browser']
  command += [f'--workdir={pathlib.Path(path).resolve()}' for path in workdirs]
  with subprocess.Popen(
    command, cwd=ROOT, stdout=subprocess.PIPE, text=True
  ) as process:
    try:
      said = process.stdout.readline()
      found = re.search(r'The page is at (\S+)', said)
      if not found:
        raise SystemExit('the server did not start: see its output')
      start, models = time.monotonic(), {'ready': False}
      while not models['ready']:
        if time.monotonic() - start > PATIENCE:
          raise SystemExit(f'not ready after {PATIENCE} s: {models}')
        time.sleep(0.5)
        with urllib.request.urlopen(f'{found[1]}api/models') as answer:
          models = json.load(answer)
      yield found[1]
    finally:
      process.terminate()


def draw_circle(page: sync_api.Page, x: float, y: float, radius: float):
  """Draws a circle from the top, counterclockwise, as most people do.

  Args:
    page: the page, with its drawing tab open.
    x: centre, as a fraction of the side of the central square of the paper;
      so are `y` and `radius`.
  """
  page.evaluate('scrollTo(0, 0)')
  box = page.locator('#paper').bounding_box()
  side = min(box['width'], box['height'])
  left = box['x'] + (box['width'] - side) / 2
  top = box['y'] + (box['height'] - side) / 2
  for i in range(41):
    angle = -math.pi / 2 - 2 * math.pi * i / 40
    page.mouse.move(
      left + side * (x + radius * math.cos(angle)),
      top + side * (y + radius * math.sin(angle)),
    )
    if not i:
      page.mouse.down()
  page.mouse.up()


def take_all(
  browser: sync_api.Browser,
  address: str,
  image: pathlib.Path,
  arguments: argparse.Namespace,
):
  """Takes both tabs in both colour schemes and both sizes."""
  output = pathlib.Path(arguments.output)
  for (size, viewport), ending in zip(
    SIZES.items(), arguments.ending, strict=True
  ):
    for scheme in ('light', 'dark'):
      context = browser.new_context(
        viewport=viewport, color_scheme=scheme, reduced_motion='reduce'
      )
      # The same samples each time.
      context.add_init_script(
        f'crypto.getRandomValues = (array) => array.fill(2 * {arguments.seed})'
      )
      page = context.new_page()
      page.goto(f'{address}#/draw')
      page.locator('#draw > .room').wait_for()
      page.locator('[name=temperature]').fill(str(arguments.temperature))
      draw_circle(page, *HEADS[size])
      tiles = page.locator('.endings .tile')
      tiles.first.wait_for()
      page.locator('#draw .room[aria-busy=false]').wait_for()
      tiles.nth(ending).hover()
      page.screenshot(path=output / f'demo_draw{size}_{scheme}.png')

      page.get_by_role('tab', name='Caption').click()
      page.locator('#photographs').set_input_files(image)
      words = page.locator('.sentence .word')
      words.first.wait_for()
      words.nth(min(arguments.word, words.count() - 1)).hover()
      page.screenshot(
        path=output / f'demo_caption{size}_{scheme}.png', full_page=True
      )
      context.close()


def main():
  """Runs the command."""
  parser = errors.Parser(description=__doc__)
  parser.add_argument(
    '--workdir',
    action='append',
    required=True,
    help='workdir of a trained model; may be repeated',
  )
  parser.add_argument(
    '--output', default='docs/images', help='directory to write to'
  )
  parser.add_argument('--seed', type=int, default=8, help='random seed')
  parser.add_argument(
    '--temperature', type=float, default=0.2, help='temperature of the sampling'
  )
  parser.add_argument(
    '--ending',
    type=int,
    nargs=2,
    default=(5, 0),
    help='index of the completion that is pointed at: on a desktop, on a phone',
  )
  parser.add_argument(
    '--word', type=int, default=3, help='index of the word that is pointed at'
  )
  parser.add_argument(
    '--image',
    type=int,
    default=12,
    help='index of the image in the test split of scenes',
  )
  arguments = parser.parse_args(paths.arguments(parser))
  with (
    tempfile.TemporaryDirectory() as directory,
    serve(arguments.workdir) as address,
    sync_api.sync_playwright() as playwright,
  ):
    image = pathlib.Path(directory) / 'scene.png'
    scenes.example('test', arguments.image)[1].save(image)
    browser = playwright.chromium.launch(
      executable_path=shutil.which('chromium'),
      args=['--no-sandbox', '--disable-gpu'],
    )
    take_all(browser, address, image, arguments)
    browser.close()


if __name__ == '__main__':
  errors.run(main)
