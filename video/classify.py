"""Trains a classifier of clips or gestures, evaluates it, and classifies files.

  python -m video.classify --config=configs/skeletons.py --workdir=runs/gestures
  python -m video.classify --workdir=runs/gestures clip.mp4 frames/ --json
  python -m video.classify --workdir=runs/gestures clip.mp4 --plot=out.png
  python -m video.classify --workdir=runs/gestures clip.mp4 --online
  python -m video.classify --pretrained=gesture_stream stream.mp4 --online
  python -m video.classify --workdir=runs/gestures --online --camera

Files are classified: a line for each with its path, class and probability, or
the gestures of a stream. A file is a video, a directory of images, or frames or
features in a .npy or .npz file. --online reads frame by frame and prints the
frames at which the most probable class changes. Files that cannot be read are
reported on stderr and the rest are classified; the exit status is then 1. With
--camera the lines have the seconds since the beginning, until Ctrl-C.
"""

import itertools
import json
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import flags

from configs import schema
from training import app
from training import batching
from training import compilation
from training import loop
from training import optimizers
from training import parallel
from video import data
from video import figures
from video import frames as frames_lib
from video.classification import evaluation as evaluation_lib
from video.classification import examples as examples_lib
from video.classification import inference
from video.classification import losses
from video.classification import model
from video.sources import camera
from vision import pretrained

_JSON = flags.DEFINE_bool(
  'json', False, 'For files: print JSON instead of lines.'
)
_TOP = flags.DEFINE_integer(
  'top', 1, 'For files: number of classes to print.', lower_bound=1
)
_PLOT = flags.DEFINE_string(
  'plot', None, 'For files: plot the probabilities over time, to OUT.png.'
)
_ONLINE = flags.DEFINE_bool('online', False, 'For files: read frame by frame.')
flags.declare_key_flag('camera')


def initial_variables(
  classifier: model.Classifier,
  example: dict[str, np.ndarray],
  config: ml_collections.ConfigDict,
) -> Any:
  """Returns random variables, with those of `encoder_weights` if it is set."""
  frames = losses.recorded(example)

  def init(key):
    return classifier.init(
      key, jnp.asarray(frames), jnp.asarray(example['length']), train=False
    )

  key = jax.random.key(config.seed)
  if not config.encoder_weights:
    return compilation.run_once(init, key)
  # Before the work: the file may be absent, or of another shape.
  encoder = pretrained.load_encoder(config.encoder_weights, config.encoder)
  return pretrained.put_encoder(compilation.run_once(init, key), encoder)


def train_and_evaluate(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
):
  """Trains from the latest checkpoint in `workdir`, or from scratch.

  Ends by writing the best checkpoint's scores on `data.final_split` to
  `results.json`.
  """
  parallel.local_batch_size(config.batch_size)
  parallel.local_batch_size(config.eval_batch_size, 'eval_batch_size')
  evaluation_lib.check_metric(config)
  name, data_dir = config.data.name, config.data.data_dir
  training = data.open_split(name, config.data.train_split, data_dir)
  validation = data.open_split(name, 'validation', data_dir)
  class_names = data.class_names(name, data_dir)
  examples = examples_lib.Examples(
    config.data, config.augmentation, class_names
  )
  batches = batching.training_batches(
    training,
    examples.training,
    batch_size=config.batch_size,
    seed=config.seed,
  )

  classifier = model.create(config, len(class_names))
  optimizer, learning_rate = optimizers.create(
    config.optimizer, config.num_steps
  )
  frozen = tuple(config.frozen)
  example = examples.evaluation(training[0])
  state = parallel.create_state(
    initial_variables(classifier, example, config),
    optimizer,
    frozen=frozen,
    keep_ema=config.ema_decay > 0,
  )
  train_step = parallel.train_step(
    losses.create(classifier, config.loss),
    losses.counts,
    optimizer,
    frozen=frozen,
    microbatches=config.microbatches,
    ema_decay=config.ema_decay,
  )
  evaluate = evaluation_lib.Evaluator(validation, examples, classifier, config)
  key = parallel.replicate(jax.random.key(config.seed + 1))
  extras = {
    'config': config.to_dict(),
    'classes': list(class_names),
    'frame_shape': losses.recorded(example).shape[2:],
    'rate': data.rate(name, data_dir),
  }

  with loop.start(
    config,
    workdir,
    state,
    batches=batches,
    learning_rate=learning_rate,
    extras=extras,
    fingerprint=data.fingerprint(name, data_dir),
  ) as run:
    for step in run.steps():
      if step.evaluates:
        evaluation = evaluate(run.state.variables)
        run.record_evaluation(evaluation.scores, evaluation.seconds)
        if evaluation.confusion is not None:
          image = figures.confusion_matrix(
            evaluation.confusion, list(class_names)
          )
          run.report.images(step.number, {'validation/confusion': image[None]})
      else:
        run.state, update = train_step(run.state, step.batch, key)
        run.record_update(update)

  evaluation_lib.evaluate_best(workdir, config.data.final_split)


def _changes(
  classifier: inference.Classifier, record: dict[str, Any], step: int
) -> list[dict[str, Any]]:
  """Reads a record frame by frame; returns where the best class changes.

  For streams these are the gestures.

  Args:
    classifier: see `inference.load`.
    record: of a file.
    step: the record has every `step`-th frame of the file.
  """
  frames = itertools.islice(
    inference.recorded_frames(record), 0, None, classifier.stride
  )
  probabilities = list(classifier.online(frames))
  labels = [int(p.argmax()) for p in probabilities]
  return [
    {
      'frame': index * classifier.stride * step,
      'class': classifier.class_names[label],
      'probability': float(probabilities[index][label]),
    }
    for index, label in inference.changes(labels)
    if not (classifier.streams and label == model.BLANK)
  ]


def _classify(
  classifier: inference.Classifier, record: dict[str, Any]
) -> dict[str, Any]:
  """Returns the best classes of a record, or the gestures of a stream."""
  if classifier.streams:
    _, probabilities = classifier.over_time(record)
    gestures = model.spoken(probabilities.argmax(axis=1))
    return {'gestures': [classifier.class_names[label] for label in gestures]}
  probabilities = classifier.probabilities(record)
  order = np.argsort(-probabilities, kind='stable')[: _TOP.value]
  return {
    'classes': [
      {
        'class': classifier.class_names[i],
        'probability': float(probabilities[i]),
      }
      for i in order
    ]
  }


def _print(result: dict[str, Any]):
  """Prints a line for each class, gesture or change."""
  path = result['path']
  if 'gestures' in result:
    print(f'{path}\t{" ".join(result["gestures"]) or "(none)"}')
  for found in result.get('classes', []):
    print(f'{path}\t{found["class"]}\t{found["probability"]:.3f}')
  for found in result.get('changes', []):
    print(
      f'{path}\t{found["frame"]}\t{found["class"]}\t{found["probability"]:.3f}'
    )


def _watch(classifier: inference.Classifier, name: str):
  """Prints the seconds at which the best class of a camera changes."""
  rate = (classifier.rate or frames_lib.DEFAULT_RATE) / classifier.stride
  moment = 0.0

  def frames():
    nonlocal moment
    for seconds, frame in camera.frames(name, rate=rate):
      moment = seconds
      yield classifier.from_camera(frame)

  before = None
  for probabilities in classifier.online(frames()):
    label = int(probabilities.argmax())
    if label == before:
      continue
    before = label
    if classifier.streams and label == model.BLANK:
      continue
    change = {
      'seconds': round(moment, 3),
      'class': classifier.class_names[label],
      'probability': float(probabilities[label]),
    }
    if _JSON.value:
      print(json.dumps(change, ensure_ascii=False), flush=True)
    else:
      seconds, probability = change['seconds'], change['probability']
      print(f'{seconds:.2f}\t{change["class"]}\t{probability:.3f}', flush=True)


def use(workdir: pathlib.Path, files: list[str]) -> int:
  """Classifies files and prints the results; returns the exit status."""
  if _PLOT.value and not _PLOT.value.lower().endswith('.png'):
    raise ValueError(f'--plot={_PLOT.value}: pass a name that ends in .png')
  classifier = inference.load(workdir)
  if _ONLINE.value and classifier.network.reads_whole:
    raise ValueError(
      f'{workdir} has a network that needs whole recordings: leave out '
      '--online, or train with model.bidirectional=False'
    )
  if camera.FLAG.value is not None:
    if files or _PLOT.value or not _ONLINE.value:
      raise ValueError(
        '--camera is for --online alone, without files and --plot'
      )
    _watch(classifier, camera.FLAG.value)
    return 0
  results, plots = [], []
  for file in files:
    result = {'path': file}
    results.append(result)
    try:
      record = classifier.read(file)
      step = frames_lib.step(file, classifier.rate)
      if _ONLINE.value:
        result['changes'] = _changes(classifier, record, step)
      else:
        result.update(_classify(classifier, record))
      if _PLOT.value:
        rate = None
        if 'frames' in record:
          rate = frames_lib.frame_rate(file, rate=classifier.rate)
        plots.append(evaluation_lib.plot(classifier, record, rate))
    except (OSError, ValueError) as error:
      result['error'] = str(error)
      print(f'{file}: error: {error}', file=sys.stderr)
      continue
    if not _JSON.value:
      _print(result)
  if _JSON.value:
    print(json.dumps(results, indent=2, ensure_ascii=False))
  if plots:
    figures.save(np.concatenate(plots), _PLOT.value)
  return int(any('error' in result for result in results))


if __name__ == '__main__':
  app.run(
    train_and_evaluate,
    schema=schema.VIDEO_CLASSIFY,
    use=use,
    without_files=lambda: camera.FLAG.value is not None,
  )
