"""OTB's own scores of 34 trackers on 14 of its sequences.

The mean overlap of each tracker on each sequence, in one pass from the first
box, that box counted: scores_tb100 of the benchmark (Wu, Lim and Yang 2015),
times 100. Tiger1 is left out: the benchmark scored it five frames shifted.
"""

from collections.abc import Mapping

import numpy as np

SEQUENCES = (
  'Bird2',
  'Car1',
  'Crossing',
  'David',
  'FaceOcc1',
  'Football1',
  'Freeman1',
  'Girl',
  'Human7',
  'Jogging-1',
  'MotorRolling',
  'MountainBike',
  'Skiing',
  'Soccer',
)
_SCORES = """\
MUSTer 80.9 61.9 79.7 75.0 76.0 51.1 54.0 55.9 74.4 70.2 29.9 72.6 5.1 32.6
MEEM   79.0 8.3 71.2 53.0 74.7 67.4 21.9 70.1 48.2 66.9 9.7 59.6 40.5 26.4
STRUCK 56.7 11.1 67.7 23.9 72.9 66.9 33.8 74.6 48.4 17.1 15.4 70.9 3.6 18.5
SCM    75.5 81.4 78.1 72.2 79.4 39.6 61.4 68.2 31.8 17.8 11.1 67.3 7.8 23.6
CXT    23.9 39.8 36.1 64.8 63.4 76.2 33.9 55.4 42.9 76.6 12.9 22.6 9.3 12.7
ASLA   38.3 65.1 78.5 74.8 31.9 49.3 26.5 71.1 29.1 17.9 10.5 72.3 9.2 11.3
TLD    56.9 25.1 40.3 71.8 58.5 36.6 28.0 57.2 65.0 77.0 10.0 20.0 5.1 8.1
CSK    57.8 9.8 47.9 40.2 79.5 46.5 23.5 36.7 34.1 18.1 9.0 71.2 6.0 14.4
LSK    64.3 17.9 12.7 56.0 48.4 32.0 25.0 30.3 39.3 16.7 10.3 65.0 3.4 10.0
VTD    18.4 11.8 31.7 55.8 68.4 57.1 34.8 55.1 28.3 15.4 11.5 69.8 6.6 32.5
OAB    64.8 8.3 66.4 38.8 66.0 27.2 35.4 72.1 41.6 60.0 11.0 63.1 7.8 8.6
VTS    29.5 11.7 28.7 58.6 66.8 43.6 35.8 48.8 20.0 15.5 11.1 69.8 3.2 32.3
LSHT   68.1 9.2 31.6 47.1 64.7 59.1 37.9 13.2 23.5 63.8 10.6 74.1 5.0 9.6
RS     74.2 9.1 66.8 42.2 69.4 55.5 22.2 37.7 27.6 33.0 15.7 67.4 6.8 18.3
L1APG  40.6 17.8 20.6 54.7 74.1 49.6 19.0 72.0 54.1 17.8 9.3 72.4 7.0 16.9
MTT    8.6 15.8 19.6 30.2 68.8 52.2 20.5 65.6 29.8 18.2 9.0 74.1 9.7 18.3
CPF    39.5 14.9 53.4 12.9 52.8 62.1 35.9 43.7 48.9 51.9 11.9 10.7 2.9 20.5
LOT    8.5 14.1 30.3 26.4 40.9 53.6 19.6 41.8 34.6 9.2 12.1 57.9 2.1 20.3
FRAG   43.5 8.2 31.1 16.9 81.6 36.4 37.4 45.4 27.5 51.8 11.8 12.8 3.4 17.4
MIL    55.7 9.3 72.8 42.8 59.6 66.0 34.1 39.8 48.4 18.1 12.2 45.2 5.6 17.1
TM     41.0 7.0 68.5 19.7 79.5 14.5 40.5 61.6 26.9 17.2 6.1 13.6 9.4 13.7
KMS    43.7 7.9 53.6 37.2 72.4 38.1 18.6 10.8 29.4 15.1 11.4 48.8 5.9 18.5
DFT    59.8 9.6 49.6 29.7 68.7 86.7 38.6 28.3 17.8 18.7 8.4 29.8 5.1 17.6
LSS    48.0 23.7 29.9 17.3 76.8 48.0 25.9 15.1 30.6 17.5 9.8 56.7 7.7 17.3
PD     35.9 7.5 63.6 51.4 69.0 64.5 5.0 35.9 26.5 65.5 6.1 17.6 32.1 4.8
IVT    46.1 26.0 29.7 64.5 72.6 55.7 42.6 16.7 23.3 17.6 8.9 72.6 7.8 16.2
VR     55.8 7.5 64.2 15.7 75.7 63.8 4.9 32.0 15.6 72.1 11.1 6.3 7.5 23.5
CT     9.6 6.6 68.3 49.6 63.7 22.7 14.4 30.6 18.8 17.8 10.3 14.3 6.8 16.9
ITDT   66.1 16.4 30.9 34.9 58.7 53.2 6.5 12.8 46.6 16.3 8.9 22.4 7.0 14.5
ORIA   6.2 72.4 16.0 40.0 62.5 8.4 27.6 18.7 24.2 15.9 11.6 51.8 7.0 14.7
SBT    36.3 5.6 68.4 24.3 56.9 12.6 13.3 36.8 20.8 53.0 3.1 22.9 4.3 6.6
SMS    39.1 1.7 31.0 22.4 57.9 32.8 5.3 51.3 9.3 12.7 10.1 10.9 15.8 12.9
MS     5.9 7.8 22.3 18.2 56.2 28.1 13.5 30.0 24.0 10.8 9.8 57.4 5.1 25.5
BSBT   7.3 6.3 5.1 10.1 66.1 27.5 11.2 39.2 14.0 51.0 1.2 17.4 2.2 5.9
"""


def published() -> dict[str, dict[str, float]]:
  """Tracker -> sequence -> mean overlap, times 100."""
  found = {}
  for line in _SCORES.splitlines():
    name, *scores = line.split()
    found[name] = dict(zip(SEQUENCES, map(float, scores), strict=True))
  return found


def by_sequence(measured: Mapping[str, Mapping[str, float]]) -> list[str]:
  """A table in Markdown: trackers in rows, the best mean first.

  Args:
    measured: tracker -> sequence -> mean overlap, from 0 to 1; of those that
      lack one of `SEQUENCES` the mean is left out.
  """
  rows = {
    f'**{name}**': {_known(i): 100 * x for i, x in scores.items()}
    for name, scores in measured.items()
  }
  rows |= published()
  means = {
    name: float(np.mean([scores[i] for i in SEQUENCES]))
    if all(i in scores for i in SEQUENCES)
    else float('nan')
    for name, scores in rows.items()
  }
  ranked = sorted(rows, key=lambda name: -np.nan_to_num(means[name], nan=-1))
  lines = [
    f'| | mean | {" | ".join(SEQUENCES)} |',
    '|---' * (len(SEQUENCES) + 2) + '|',
  ]
  for name in ranked:
    numbers = [means[name], *(rows[name].get(i, np.nan) for i in SEQUENCES)]
    cells = ['-' if np.isnan(x) else f'{x:.1f}' for x in numbers]
    lines.append(f'| {name} | {" | ".join(cells)} |')
  return lines


def _known(name: str) -> str:
  """The name of a sequence with two targets, however it is written."""
  return name.replace('.', '-')
