"""Losses of a run's best checkpoint; needs its workdir and nothing else.

python -m sketch_rnn.evaluate --workdir=runs/cat --split=test
"""

from absl import flags

from sketch_rnn import evaluation
from training import app

_SPLIT = flags.DEFINE_enum(
  'split', 'test', ['validation', 'test'], 'Which drawings.'
)


def main(config, workdir):
  """Writes `results.json` and prints the losses."""
  del config  # The workdir's own is read with the checkpoint.
  evaluation.evaluate_best(workdir, _SPLIT.value)


if __name__ == '__main__':
  app.run(main)
