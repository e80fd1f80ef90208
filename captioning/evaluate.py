r"""Scores the best checkpoint of a run.

  python -m captioning.evaluate --workdir=runs/coco --split=test --page
  python -m captioning.evaluate --pretrained=scenes
  python -m captioning.evaluate --workdir=runs/a --ensemble=runs/b,runs/c \
    --name=ensemble
  python -m captioning.evaluate --workdir=runs/coco --name=samples --diversity \
    --decoding=temperature=0.7 --decoding=samples=5 --seed=1
  python -m captioning.evaluate --workdir=runs/coco --name=diverse --diversity \
    --decoding=beam_size=6 --decoding=num_groups=3 \
    --decoding=diversity_penalty=0.5

Results go to the workdir, those of a released model to runs/pretrained/NAME.
"""

import pathlib

from absl import flags

from captioning import evaluation
from captioning import inference
from captioning import java_metrics
from configs import schema
from training import app

_SPICE_JAR = flags.DEFINE_string(
  'spice_jar',
  None,
  'Path of the SPICE jar, to compute SPICE too; takes minutes.',
)
_SPLIT = flags.DEFINE_enum(
  'split', 'test', ['validation', 'test'], 'Split to evaluate.'
)
_NAME = flags.DEFINE_string(
  'name', None, 'Name of the entry in results.json; default: the split.'
)
_DECODING = flags.DEFINE_multi_string(
  'decoding',
  [],
  "FIELD=VALUE changes a field of the config's `decoding` for this evaluation.",
)
_SEED = flags.DEFINE_integer(
  'seed', None, 'Random seed of samples: --decoding=temperature=1.0.'
)
_ENSEMBLE = flags.DEFINE_list(
  'ensemble', [], 'Workdirs of further captioners of an ensemble.'
)
_DIVERSITY = flags.DEFINE_bool(
  'diversity',
  False,
  'Also score all captions of each image: their diversity, the best of them, '
  'and the words that they use.',
)
_PAGE = flags.DEFINE_bool(
  'page', False, 'Write a web page of all images: results/NAME.html.'
)


def main(config, workdir):
  """Writes `results.json` and prints the scores."""
  decoding = app.change_fields(
    config.decoding,
    inference.with_seed(_DECODING.value, _SEED.value),
    name='decoding',
  )
  schema.check_decoding(decoding)
  if (_DECODING.value or _ENSEMBLE.value) and not _NAME.value:
    raise ValueError(
      '--decoding and --ensemble need a --name for their results, which '
      'would otherwise replace those of the run'
    )
  if _SPICE_JAR.value is not None:
    problem = java_metrics.why_no_spice(_SPICE_JAR.value)
    if problem is not None:
      raise ValueError(f'--spice_jar: {problem}')
  evaluation.evaluate_best(
    workdir,
    _SPLIT.value,
    name=_NAME.value,
    decoding=decoding,
    others=[pathlib.Path(path).absolute() for path in _ENSEMBLE.value],
    spice_jar=_SPICE_JAR.value,
    with_diversity=_DIVERSITY.value,
    with_page=_PAGE.value,
  )


if __name__ == '__main__':
  app.run(main, schema=schema.CAPTIONING, evaluates=True)
