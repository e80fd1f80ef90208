"""Scores of a classifier on a whole split, and their plots.

Axes: B recordings, T time, V classes.
"""

import dataclasses
import pathlib
import time
from typing import Any

import jax
import ml_collections
import numpy as np

from training import batching
from training import checkpoints
from training import console
from training import parallel
from training import prediction
from training import released
from training import results
from video import data
from video import figures
from video import metrics
from video.classification import examples as examples_lib
from video.classification import inference
from video.classification import model

# Scores that can rank checkpoints, for clips and for streams.
CLIP_METRICS = ('accuracy', 'mean_class_accuracy', 'top5_accuracy', 'loss')
STREAM_METRICS = ('edit_accuracy', 'exact', 'frame_accuracy', 'loss')
_NUM_PLOTTED = 4  # Recordings of a split.


def check_metric(config: ml_collections.ConfigDict):
  """Raises a ValueError unless checkpoints can be ranked by `best_metric`."""
  known = STREAM_METRICS if config.loss.kind == 'ctc' else CLIP_METRICS
  if config.best_metric not in known:
    raise ValueError(
      f'best_metric={config.best_metric!r} is none of {", ".join(known)}'
    )


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Results of one pass over a split.

  Attributes:
    scores: name -> value.
    recordings: true and recognised classes of each recording, by name.
    confusion: int[V, V], see `metrics.confusion_matrix`; None for streams.
    seconds: duration of the evaluation.
  """

  scores: dict[str, float]
  recordings: list[dict[str, Any]]
  confusion: np.ndarray | None
  seconds: float


class Evaluator:
  """Evaluates a classifier on one split; compiles once."""

  def __init__(
    self,
    source: batching.Source,
    examples: examples_lib.Examples,
    network: model.Classifier,
    config: ml_collections.ConfigDict,
    *,
    order: str = '',
  ):
    """Compiles on the first call.

    Args:
      source: records of the split.
      examples: turns records into examples.
      network: the Flax module.
      config: `eval_batch_size` and `loss.kind`.
      order: of the frames; see `Examples.evaluation`.
    """
    self._names = tuple(examples.class_names)
    self._streams = config.loss.kind == 'ctc'
    self._source = source
    self._step = parallel.predict_step(inference.predict(network))
    self._batches = batching.evaluation_batches(
      source,
      lambda record: examples.evaluation(record, order),
      batch_size=config.eval_batch_size,
    )

  def __call__(self, variables: Any) -> Evaluation:
    """Scores the whole split.

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
    """Scores the recordings that have a label; reversed ones may have none."""
    pairs = [
      (name, output)
      for name, output in zip(ids, outputs, strict=True)
      if output['label'] >= 0
    ]
    if not pairs:
      raise ValueError(
        'no recording of this split has a label: leave out data.reversals'
      )
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
    """Scores the sequences of gestures and the labels of frames."""
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


def plot_split(
  classifier: inference.Classifier,
  source: batching.Source,
  count: int = _NUM_PLOTTED,
) -> np.ndarray:
  """Plots the probabilities of the first recordings: uint8[H, W, 3]."""
  records = [source[i] for i in range(min(count, len(source)))]
  return np.concatenate([plot(classifier, record) for record in records])


def plot(
  classifier: inference.Classifier,
  record: dict[str, Any],
  rate: float | None = None,
) -> np.ndarray:
  """Plots class probabilities over the time of a recording: uint8[H, W, 3].

  Args:
    classifier: see `inference.load`.
    record: with `frames` or `features`.
    rate: frames per second; None labels the time axis in frames.
  """
  times, probabilities = classifier.over_time(record)
  frames = None
  if 'frames' in record:
    frames = np.asarray(record['frames'][times])
  return figures.class_probabilities(
    probabilities,
    classifier.class_names,
    frames=frames,
    seconds=None if rate is None else times / rate,
  )


def score_records(
  workdir: pathlib.Path, source: batching.Source
) -> dict[str, float]:
  """Scores the best checkpoint of a run on records that are given.

  Args:
    workdir: of the run, or of a released model.
    source: records as those of the run's data set.
  """
  classifier = inference.load(workdir)
  evaluate = Evaluator(
    source, classifier.examples, classifier.network, classifier.config
  )
  return evaluate(parallel.replicate(classifier.variables)).scores


def evaluate_best(workdir: pathlib.Path, split: str) -> dict[str, Any]:
  """Evaluates the best checkpoint; writes `results.json` and plots.

  `results/` gets the recognised classes of each recording, the confusion matrix
  as an image and as JSON, and a plot of the first recordings' probabilities.

  Args:
    workdir: of the run.
    split: 'validation' or 'test'.

  Returns:
    The entry of `results.json`.
  """
  output = released.output(workdir)
  console.state(f'scoring {split}')
  classifier = inference.load(workdir)
  config = classifier.config
  name, data_dir = config.data.name, config.data.data_dir
  source = data.open_split(name, split, data_dir)
  variables = parallel.replicate(classifier.variables)

  def evaluate(order=''):
    evaluator = Evaluator(
      source, classifier.examples, classifier.network, config, order=order
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
    **results.from_run(workdir, config, classifier.step),
    'data': {'name': name, 'fingerprint': data.fingerprint(name, data_dir)},
    'evaluation_seconds': round(evaluation.seconds, 1),
  }
  if evaluation.confusion is not None:
    accuracies = metrics.per_class_accuracy(evaluation.confusion)
    entry['confusion'] = evaluation.confusion.tolist()  # Rows are true.
    entry['class_accuracy'] = {
      name: None if np.isnan(accuracy) else float(accuracy)
      for name, accuracy in zip(classifier.class_names, accuracies, strict=True)
    }
  if jax.process_index() == 0:
    _write(output, split, classifier, source, evaluation)
  results.add(output, split, entry)
  lines = [
    f'{split}: {entry["num_recordings"]} recordings, step {entry["step"]}'
  ]
  lines += [f'{name:22} {x:9.4f}' for name, x in scores.items()]
  console.result('\n'.join(lines))
  return entry


def _write(output, split, classifier, source, evaluation):
  """Writes the files under `results/`."""
  directory = output / 'results'
  directory.mkdir(parents=True, exist_ok=True)
  checkpoints.write_json(
    directory / f'{split}.recognized.json', evaluation.recordings
  )
  figures.save(plot_split(classifier, source), directory / f'{split}.png')
  if evaluation.confusion is None:
    return
  names = list(classifier.class_names)
  checkpoints.write_json(
    directory / f'{split}.confusion.json',
    {'classes': names, 'rows_are_true': evaluation.confusion.tolist()},
  )
  figures.save(
    figures.confusion_matrix(evaluation.confusion, names),
    directory / f'{split}.confusion.png',
  )
