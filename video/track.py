r"""Trains a tracker, evaluates it, and follows a target in a clip.

  python -m video.track --config=configs/occlusion_track.py --workdir=runs/track

A trained tracker follows the target whose box in the first frame is given (x, y
of the upper left corner, width and height, in pixels):

  python -m video.track --workdir=runs/track --box=205,151,17,50 clip.mp4 \
    --output=followed.mp4
  python -m video.track --workdir=runs/track --box=205,151,17,50 frames/ \
    --output=strip.png --boxes=boxes.json

Without a box it is scored on sequences, of a directory in OTB's layout or of a
data set:

  python -m video.track --workdir=runs/track otb/
  python -m video.track --workdir=runs/track davis

With --camera it follows what is in the box in the first frame of a camera, and
prints a line for each frame: the seconds, x, y, width and height, and the
certainty of a tracker that states one.

  python -m video.track --workdir=runs/track --box=205,151,17,50 --camera

--pretrained=occlusion_track in place of the workdir takes the released tracker,
which has seen SYNTHETIC clips alone.
"""

import collections
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
from absl import flags

from configs import schema
from training import app
from training import batching
from training import compilation
from training import loop
from training import optimizers
from training import parallel
from training import released
from video import figures
from video import frames as frames_lib
from video.sources import camera
from video.tracking import clips
from video.tracking import correlation
from video.tracking import evaluation
from video.tracking import examples
from video.tracking import inference
from video.tracking import losses
from video.tracking import sequences
from vision import pretrained


def initial_variables(
  tracker: inference.Network,
  example: batching.Example,
  config: ml_collections.ConfigDict,
) -> Any:
  """Initial variables, with those of `encoder_weights` if it is set."""
  boxes = example['boxes'][None, :2]
  if isinstance(tracker, correlation.Tracker):
    boxes = boxes[:, 0]
  encoder = {}
  if config.encoder_weights:
    # Before the work: the file may be absent, or of another depth.
    encoder = pretrained.load(config.encoder_weights, tracker.depth)
  variables = compilation.run_once(
    tracker.init,
    jax.random.key(config.seed),
    example['frames'][None, :2],
    boxes,
  )
  return {
    name: {**tree, 'encoder': _part(encoder[name], tree['encoder'])}
    if name in encoder
    else tree
    for name, tree in variables.items()
  }


def _part(tree: Any, like: Any) -> Any:
  """The part of nested variables that another tree has, too."""
  if not isinstance(like, Mapping):
    return tree
  return {name: _part(tree[name], branch) for name, branch in like.items()}


def train_and_evaluate(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
):
  """Trains from the latest checkpoint in `workdir`, or from scratch.

  At the end it writes the best checkpoint's scores on the test split to
  `results.json`, and those on the real sequences `config.sequences` if there
  are any, see `sequences.open_sequences`.
  """
  parallel.local_batch_size(config.batch_size)
  parallel.local_batch_size(config.eval_batch_size, 'eval_batch_size')
  evaluation.check_metric(config.best_metric)
  training = examples.open_split(config, 'train')
  validation = examples.open_split(config, 'validation')
  batches = batching.training_batches(
    training,
    examples.training,
    batch_size=config.batch_size,
    seed=config.seed,
  )

  tracker = inference.create(config)
  optimizer, learning_rate = optimizers.create(
    config.optimizer, config.num_steps
  )
  example = examples.evaluation(training[0])
  state = parallel.create_state(
    initial_variables(tracker, example, config),
    optimizer,
    frozen=tracker.frozen,
  )
  train_step = parallel.train_step(
    losses.create(tracker, config),
    losses.counts,
    optimizer,
    frozen=tracker.frozen,
  )
  evaluate = evaluation.Evaluator(
    validation, tracker, batch_size=config.eval_batch_size
  )
  key = parallel.replicate(jax.random.key(config.seed + 1))
  extras = {
    'config': config.to_dict(),
    'tracks': {'fingerprint': examples.fingerprint(config)},
  }

  with loop.start(
    config,
    workdir,
    state,
    batches=batches,
    learning_rate=learning_rate,
    extras=extras,
    fingerprint=examples.fingerprint(config),
  ) as run:
    for step in run.steps():
      if step.evaluates:
        since = time.monotonic()
        scores, boxes = evaluate(run.state.variables)
        run.record_evaluation(scores, time.monotonic() - since)
        strips = evaluation.show(validation, boxes)
        run.report.images(step.number, {'validation/strips': strips[None]})
      else:
        run.state, update = train_step(run.state, step.batch, key)
        run.record_update(update)

  evaluation.evaluate_best(workdir, 'test')
  if config.sequences:
    sequences.evaluate(workdir, config.sequences)


# Clips and sequences.

_BOX = flags.DEFINE_string(
  'box',
  None,
  'For a clip: initial box of the target, x,y,width,height in pixels of the '
  'first frame; (x, y) is the upper left corner.',
)
_OUTPUT = flags.DEFINE_string(
  'output', None, 'For a clip: file to write, OUT.mp4, or OUT.png for a strip.'
)
_BOXES = flags.DEFINE_string(
  'boxes',
  None,
  'For a clip: file of the found boxes, OUT.csv or OUT.json; default: beside '
  '--output.',
)


flags.declare_key_flag('camera')


def _watch(workdir: pathlib.Path, name: str, output: pathlib.Path | None):
  """Follows the target before a camera, and prints its boxes."""
  box = clips.read_box(_BOX.value)
  tracker = inference.load(workdir)

  def followed():
    nonlocal box
    state = None
    for moment, frame in camera.frames(name):
      if state is None:
        state = tracker.start(frame, box)
      else:
        state, box = tracker.step(state, frame)
      cells = [f'{moment:.2f}', *(f'{x:.1f}' for x in box)]
      if state.certainty is not None:
        cells.append(f'{state.certainty:.3f}')
      print('\t'.join(cells), flush=True)
      yield figures.draw_boxes(
        frame, {evaluation.TRACKER: box}, certainty=state.certainty
      )

  if output is None:
    collections.deque(followed(), maxlen=0)
  else:
    frames_lib.write(output, followed())


def use(workdir: pathlib.Path, paths: list[str]) -> int:
  """Follows a clip, or scores sequences; returns the exit status."""
  if camera.FLAG.value is not None:
    if paths or _BOX.value is None:
      raise ValueError(
        '--camera follows what is in --box=x,y,width,height, without a clip'
      )
    output = _OUTPUT.value and clips.check_output(
      'output', _OUTPUT.value, ('.mp4',)
    )
    _watch(workdir, camera.FLAG.value, output)
    return 0
  if len(paths) != 1:
    raise ValueError(f'pass one clip or one folder, not {", ".join(paths)}')
  (path,) = map(pathlib.Path, paths)
  if _BOX.value is None:
    if path.is_file():
      raise ValueError(
        f'pass the initial box of the target in {path}: '
        '--box=x,y,width,height in pixels'
      )
    sequences.evaluate(workdir, paths[0])
    print(released.output(workdir) / 'results.json')
    return 0
  if not path.exists():
    raise ValueError(f'{path} does not exist: pass a video or a folder')
  if _OUTPUT.value is None:
    raise ValueError('pass --output=OUT.mp4, or OUT.png for a strip')
  # Check the outputs before the work.
  box = clips.read_box(_BOX.value)
  output = clips.check_output('output', _OUTPUT.value, ('.mp4', '.png'))
  boxes_name = _BOXES.value or str(output.with_suffix('.csv'))
  boxes_path = clips.check_output('boxes', boxes_name, ('.csv', '.json'))
  found = clips.follow(inference.load(workdir), path, box, output)
  clips.write_boxes(boxes_path, path, found)
  print(output)
  print(boxes_path)
  return 0


if __name__ == '__main__':
  app.run(
    train_and_evaluate,
    schema=schema.VIDEO_TRACK,
    use=use,
    without_files=lambda: camera.FLAG.value is not None,
  )
