r"""Plots validation curves of runs over those of the published code.

  python -m tables.sketch_curves --published=DIR --output=curves.png \
      --runs layer_norm=runs/curve_0 layer_norm=runs/curve_1

The published curves are `curve_DECODER_seedN.json`, each with `valid`: rows of
step, L_R, L_KL and L_R without padding. A run is DECODER=WORKDIR.
"""

import collections
import json
import pathlib

from matplotlib import figure
from matplotlib.backends import backend_agg

from training import errors
from training import paths

_PANELS = {
  'L_R, validation': ('validation/reconstruction', 1),
  'L_KL, validation': ('validation/kl', 2),
  'L_R without padding, validation': ('validation/reconstruction_masked', 3),
}
_OURS, _PUBLISHED = '#d1495b', '#8d95a5'


def read_run(workdir: pathlib.Path) -> list[dict[str, float]]:
  """Reads the evaluations of a run, each with its step and its metrics."""
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  return [row for row in rows if 'validation/reconstruction' in row]


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
    runs[decoder].append(read_run(pathlib.Path(workdir)))

  sheet = figure.Figure(figsize=(4 * len(_PANELS), 3.2 * len(runs)), dpi=100)
  canvas = backend_agg.FigureCanvasAgg(sheet)
  axes = sheet.subplots(len(runs), len(_PANELS), squeeze=False)
  for row, (decoder, ours) in zip(axes, runs.items(), strict=True):
    files = sorted(args.published.glob(f'curve_{decoder}_seed*.json'))
    if not files:
      parser.error(f'{args.published} has no curve_{decoder}_seed*.json')
    published = [json.loads(file.read_text())['valid'] for file in files]
    for axis, (title, (name, column)) in zip(row, _PANELS.items(), strict=True):
      for i, curve in enumerate(published):
        axis.plot(
          [point[0] for point in curve[1:]],
          [point[column] for point in curve[1:]],
          color=_PUBLISHED,
          marker='o',
          label=None if i else 'published code',
        )
      for i, curve in enumerate(ours):
        axis.plot(
          [point['step'] for point in curve],
          [point[name] for point in curve],
          color=_OURS,
          marker='x',
          label=None if i else 'ours',
        )
      axis.set(title=f'{decoder}: {title}', xlabel='step')
      axis.legend()
      last = [f'{curve[-1][name]:.3f}' for curve in ours]
      theirs = [f'{curve[-1][column]:.3f}' for curve in published]
      print(
        f'{decoder}, {title}, step {ours[0][-1]["step"]}: '
        f'ours {" ".join(last)}; published {" ".join(theirs)}'
      )
  sheet.tight_layout()
  canvas.print_png(args.output)


if __name__ == '__main__':
  errors.run(main)
