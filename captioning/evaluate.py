"""Scores the best checkpoint of a run; needs its workdir and nothing else.

python -m captioning.evaluate --workdir=runs/coco --split=test
"""

from absl import flags

from captioning import evaluation
from training import app

_SPICE_JAR = flags.DEFINE_string(
  'spice_jar', None, "SPICE's jar, to score by it too; takes minutes."
)
_SPLIT = flags.DEFINE_enum(
  'split', 'test', ['validation', 'test'], 'Which pictures to describe.'
)


def main(config, workdir):
  """Writes `results.json` and prints the scores."""
  del config  # The workdir's own is read with the checkpoint.
  evaluation.evaluate_best(workdir, _SPLIT.value, _SPICE_JAR.value)


if __name__ == '__main__':
  app.run(main)
