r"""Writes a released model from the workdir of a trained one.

  python scripts/export_pretrained.py --workdir=runs/kanji --name=kanji

The directory pretrained/NAME gets the weights in float16, the config, the
origin and scores of results.json, the scores of some test examples, which a
test reproduces, and a card with the texts of pretrained/releases.json.
"""

import json
import pathlib
import shlex

from captioning import data as image_data
from captioning import evaluation as image_evaluation
from sketch_rnn import builders
from sketch_rnn import evaluation as sketch_evaluation
from tables import runs
from training import app
from training import checkpoints
from training import errors
from training import paths
from training import released
from video import data as video_data
from video.captioning import evaluation as caption_evaluation
from video.classification import evaluation as class_evaluation
from video.tracking import evaluation as track_evaluation

# Name -> scores of records from a workdir, and the records of a data set.
TASKS = {
  'kanji': (sketch_evaluation.score_records, builders.generated),
  'scenes': (image_evaluation.score_records, image_data.generated),
  'occlusion_track': (track_evaluation.score_records, video_data.generated),
  'gesture_stream': (class_evaluation.score_records, video_data.generated),
  'event_captions': (caption_evaluation.score_records, video_data.generated),
}
_EXAMPLES = 48  # Number of those that the test scores.


def export(workdir: pathlib.Path, name: str, split: str):
  """Writes all files of a released model.

  Args:
    workdir: of the trained model, with its results.json.
    name: a key of `TASKS`.
    split: name of the entry of results.json.

  Raises:
    FileNotFoundError: the workdir has no checkpoint, or no such results.
  """
  score, generate = TASKS[name]
  config = app.read_config(workdir)
  config.data.data_dir = None
  path = workdir / 'results.json'
  entry = json.loads(path.read_text()).get(split)
  if entry is None:
    raise FileNotFoundError(f'{path} has no entry {split!r}: evaluate it first')
  records = generate(config.data.name, split, _EXAMPLES)
  facts = released.facts(name)
  changes = runs.config_arguments(facts['config'], config)
  command = ['python', '-m', facts['module'], *changes]
  command.append(f'--workdir=runs/{name}')
  best = {'best_metric': config.best_metric, 'mode': config.best_mode}
  released.write(
    released.DIRECTORY / name,
    *checkpoints.load(workdir, **best),
    config=json.loads(config.to_json()),
    facts={**facts, 'command': shlex.join(command)},
    entry={**entry, 'split': split},
    part={
      'split': split,
      'examples': _EXAMPLES,
      'scores': score(workdir, records),
    },
  )


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns the exit status."""
  parser = errors.Parser(description=__doc__)
  parser.add_argument(
    '--workdir',
    required=True,
    type=pathlib.Path,
    help='workdir of the trained model',
  )
  parser.add_argument(
    '--name', required=True, choices=TASKS, help='name of the released model'
  )
  parser.add_argument('--split', default='test', help='entry of results.json')
  args = parser.parse_args(paths.arguments(parser, argv))
  app.set_up_logging()
  try:
    export(args.workdir.absolute(), args.name, args.split)
  except (OSError, ValueError) as error:
    parser.error(str(error))
  print(released.DIRECTORY / args.name)
  return 0


if __name__ == '__main__':
  errors.run(main)
