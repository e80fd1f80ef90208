r"""Writes a web page that draws without a server, from a trained Sketch-RNN.

  python scripts/export_page.py --pretrained=kanji --output=site/
  python scripts/export_page.py --workdir=runs/cat --output=site/

Open site/index.html in a browser, or put it on any web server.
"""

from sketch_rnn import static_page
from training import app
from training import errors
from training import paths
from training import released


def main():
  """Runs the command."""
  parser = errors.Parser(description=__doc__)
  source = parser.add_mutually_exclusive_group(required=True)
  source.add_argument('--workdir', help='workdir of a run')
  source.add_argument('--pretrained', help=released.help_text())
  parser.add_argument('--output', required=True, help='directory to write')
  parser.add_argument('--title', default='', help='title of the page')
  args = parser.parse_args(paths.arguments(parser))
  app.set_up_logging()
  try:
    print(
      static_page.write_workdir(
        args.output, args.workdir or args.pretrained, args.title
      )
    )
  except (ValueError, OSError) as error:
    errors.fail(str(error))


if __name__ == '__main__':
  errors.run(main)
