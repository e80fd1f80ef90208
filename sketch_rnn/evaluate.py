"""Computes the losses of a run's best checkpoint.

python -m sketch_rnn.evaluate --workdir=runs/cat --split=test
python -m sketch_rnn.evaluate --pretrained=kanji

Results go to the workdir, those of a released model to runs/pretrained/NAME.
"""

from absl import flags

from configs import schema
from sketch_rnn import evaluation
from training import app

_SPLIT = flags.DEFINE_enum(
  'split', 'test', ['validation', 'test'], 'Split to evaluate.'
)


def main(config, workdir):
  """Writes `results.json` and logs the losses."""
  del config  # That of the workdir is read with the checkpoint.
  evaluation.evaluate_best(workdir, _SPLIT.value)


if __name__ == '__main__':
  app.run(main, schema=schema.SKETCH_RNN, evaluates=True)
