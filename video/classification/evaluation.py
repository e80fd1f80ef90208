"""Scores of a classifier on a whole split, and pictures of them.

Axes: B recordings, T time, V classes.
"""

import dataclasses
import pathlib
import time
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging

from training import batching
from training import checkpoints
from training import parallel
from training import prediction
from training import results
from video import data
from video import figures
from video import metrics
from video.classification import examples as examples_lib
from video.classification import inference
from video.classification import model

# By what a checkpoint can be the best: of clips, and of streams.
CLIP_METRICS = ('accuracy', 'mean_class_accuracy', 'top5_accuracy', 'loss')
STREAM_METRICS = ('edit_accuracy', 'exact', 'frame_accuracy', 'loss')
_SHOWN = 4  # Recordings of a split.


def check_metric(config: ml_collections.ConfigDict):
  """Raises a ValueError unless checkpoints can be ranked by `best_metric`."""
  known = STREAM_METRICS if config.loss.kind == 'ctc' else CLIP_METRICS
  if config.best_metric not in known:
    raise ValueError(
      f'best_metric={config.best_metric!r} is none of {", ".join(known)}'
    )


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """What came out.

  Attributes:
    scores: named numbers.
    recordings: of each what it shows and what was recognised, by names.
    confusion: int[V, V], see `metrics.confusion_matrix`; None of streams.
    seconds: how long it took.
  """

  scores: dict[str, float]
  recordings: list[dict[str, Any]]
  confusion: np.ndarray | None
  seconds: float


class Evaluator:
  """Evaluates parameters on one split."""

  def __init__(
    self,
    source: batching.Source,
    examples: examples_lib.Examples,
    classifier: model.Classifier,
    config: ml_collections.ConfigDict,
    *,
    order: str = '',
  ):
    """Compiles on the first call.

    Args:
      source: the records of the split.
      examples: makes examples of them.
      classifier: the model.
      config: `eval_batch_size` and `loss.kind`.
      order: in which the frames are played; see `Examples.evaluation`.
    """
    self._names = tuple(examples.class_names)
    self._streams = config.loss.kind == 'ctc'
    self._source = source
    self._step = parallel.predict_step(inference.predict(classifier))
    self._batches = batching.evaluation_batches(
      source,
      lambda record: examples.evaluation(record, order),
      batch_size=config.eval_batch_size,
    )

  def __call__(self, variables: Any) -> Evaluation:
    """The scores of the whole split.

    Raises:
      Stopped: SIGTERM came.
    """
    since = time.monotonic()
    outputs = list(
      prediction.predict(self._step, variables, batching.read(self._batches))
    )
    ids = [self._source[i]['id'] for i in range(len(self._source))]
    score = self._score_streams if self._streams else self._score_clips
    scores, recordings, confusion = score(ids, outputs)
    return Evaluation(scores, recordings, confusion, time.monotonic() - since)

  def _score_clips(self, ids, outputs):
    """Of those that have a label: backwards, not all have one."""
    pairs = [
      (name, output)
      for name, output in zip(ids, outputs, strict=True)
      if output['label'] >= 0
    ]
    if not pairs:
      raise ValueError('no recording of this split has a label')
    probabilities = np.stack([output['probabilities'] for _, output in pairs])
    labels = np.array([output['label'] for _, output in pairs])
    best = probabilities.argmax(axis=1)
    confusion = metrics.confusion_matrix(labels, best, len(self._names))
    true = probabilities[np.arange(len(labels)), labels]
    per_class = metrics.per_class_accuracy(confusion)
    scores = {
      'accuracy': metrics.top_k_accuracy(probabilities, labels),
      'mean_class_accuracy': float(np.nanmean(per_class)),
      'loss': float(-np.log(np.maximum(true, 1e-30)).mean()),
    }
    if len(self._names) > 5:
      top5 = metrics.top_k_accuracy(probabilities, labels, 5)
      scores['top5_accuracy'] = top5
    recordings = [
      {
        'id': name,
        'class': self._names[label],
        'recognized': self._names[found],
        'probability': round(float(certainty[found]), 6),
      }
      for (name, _), label, found, certainty in zip(
        pairs, labels, best, probabilities, strict=True
      )
    ]
    return scores, recordings, confusion

  def _score_streams(self, ids, outputs):
    """Of gestures in their order, and of what each frame shows."""
    made, recognized, right = [], [], []
    for output in outputs:
      length = output['length']
      labels, frames = output['labels'], output['frame_labels'][:length]
      made.append([int(x) for x in labels[labels >= 0]])
      recognized.append(model.spoken(frames))
      right.append(np.mean(frames == output['framewise'][:length]))
    scores = {
      **metrics.stream_scores(made, recognized),
      'frame_accuracy': float(np.mean(right)),
      'loss': float(np.mean([output['loss'] for output in outputs])),
    }
    recordings = [
      {
        'id': name,
        'gestures': [self._names[label] for label in there],
        'recognized': [self._names[label] for label in found],
      }
      for name, there, found in zip(ids, made, recognized, strict=True)
    ]
    return scores, recordings, None


def show(
  recognizer: inference.Recognizer,
  source: batching.Source,
  count: int = _SHOWN,
) -> np.ndarray:
  """The first recordings of a split, and how sure of them one is: uint8."""
  shown = [source[i] for i in range(min(count, len(source)))]
  return np.concatenate([picture(recognizer, record) for record in shown])


def picture(
  recognizer: inference.Recognizer,
  record: dict[str, Any],
  rate: float | None = None,
) -> np.ndarray:
  """Probabilities over the time of one recording: uint8[H, W, 3].

  Args:
    recognizer: what recognises.
    record: of frames or of features.
    rate: frames per second, to count seconds.
  """
  times, probabilities = recognizer.over_time(record)
  frames = None
  if 'frames' in record:
    frames = np.asarray(record['frames'][times])
  return figures.class_probabilities(
    probabilities,
    recognizer.class_names,
    frames=frames,
    seconds=None if rate is None else times / rate,
  )


def evaluate_best(workdir: pathlib.Path, split: str) -> dict[str, Any]:
  """Evaluates the best checkpoint; writes `results.json` and pictures.

  Under `results/` go what was recognised in each recording, the confusion
  matrix as a picture and as JSON, and the first recordings' probabilities.

  Args:
    workdir: of the run; nothing else is needed.
    split: 'validation' or 'test'.

  Returns:
    The entry of `results.json`.
  """
  trained = inference.load(workdir)
  config = trained.config
  name, data_dir = config.data.name, config.data.data_dir
  source = data.open_split(name, split, data_dir)
  variables = parallel.replicate(trained.variables)

  def evaluate(order=''):
    evaluator = Evaluator(
      source, trained.examples, trained.classifier, config, order=order
    )
    return evaluator(variables)

  evaluation = evaluate()
  scores = dict(evaluation.scores)
  if config.data.reversals:
    for order in ('reversed', 'shuffled'):
      scores[f'{order}_accuracy'] = evaluate(order).scores['accuracy']
  entry = {
    'scores': scores,
    'num_recordings': len(source),
    **results.from_run(workdir, config, trained.step),
    'data': {'name': name, 'fingerprint': data.fingerprint(name, data_dir)},
    'evaluation_seconds': round(evaluation.seconds, 1),
  }
  if evaluation.confusion is not None:
    accuracies = metrics.per_class_accuracy(evaluation.confusion)
    entry['class_accuracy'] = {
      name: None if np.isnan(accuracy) else float(accuracy)
      for name, accuracy in zip(trained.class_names, accuracies, strict=True)
    }
  if jax.process_index() == 0:
    _write(workdir, split, trained, source, evaluation)
  results.add(workdir, split, entry)
  lines = [
    f'{split}: {entry["num_recordings"]} recordings, step {entry["step"]}'
  ]
  lines += [f'{name:22} {x:9.4f}' for name, x in scores.items()]
  logging.info('%s', '\n'.join(lines))
  return entry


def _write(workdir, split, trained, source, evaluation):
  """What is under `results/`."""
  place = workdir / 'results'
  place.mkdir(exist_ok=True)
  checkpoints.write_json(
    place / f'{split}.recognized.json', evaluation.recordings
  )
  recognizer = inference.Recognizer(trained)
  figures.save(show(recognizer, source), place / f'{split}.png')
  if evaluation.confusion is None:
    return
  names = list(trained.class_names)
  checkpoints.write_json(
    place / f'{split}.confusion.json',
    {'classes': names, 'rows_are_true': evaluation.confusion.tolist()},
  )
  figures.save(
    figures.confusion_matrix(evaluation.confusion, names),
    place / f'{split}.confusion.png',
  )
