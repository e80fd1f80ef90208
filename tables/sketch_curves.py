r"""Plots validation curves of runs over those of the published code.

  python -m tables.sketch_curves --published=DIR --output=curves.png \
      --runs layer_norm=runs/curve_0 layer_norm=runs/curve_1

The published curves are `curve_DECODER_seedN.json`, each with `valid`: rows of
step, L_R, L_KL and L_R without padding. A run is DECODER=WORKDIR.
"""

import collections
import pathlib

from sketch_rnn import curves
from training import errors
from training import paths


def main():
  """Writes the plot and prints the last values."""
  parser = errors.Parser(description=__doc__)
  parser.add_argument(
    '--published',
    type=pathlib.Path,
    required=True,
    metavar='DIR',
    help='directory of the published curves',
  )
  parser.add_argument(
    '--runs',
    nargs='+',
    required=True,
    metavar='DECODER=WORKDIR',
    help='runs to plot',
  )
  parser.add_argument(
    '--output',
    type=pathlib.Path,
    required=True,
    metavar='F.png',
    help='file to write',
  )
  args = parser.parse_args(paths.arguments(parser))

  runs = collections.defaultdict(list)
  for run in args.runs:
    decoder, _, workdir = run.partition('=')
    runs[decoder].append(curves.read_run(pathlib.Path(workdir)))
  try:
    published = {x: curves.read_published(args.published, x) for x in runs}
  except FileNotFoundError as error:
    parser.error(str(error))
  for line in curves.plot(args.output, runs, published):
    print(line)


if __name__ == '__main__':
  errors.run(main)
