"""Scores of a video captioner on a whole split."""

import dataclasses
import itertools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from captioning import metrics
from captioning import vocabulary as vocabulary_lib
from recurrent import likelihood
from training import batching
from training import checkpoints
from training import console
from training import parallel
from training import prediction
from training import released
from training import results
from video import data
from video.captioning import examples as examples_lib
from video.captioning import inference
from video.captioning import model
from video.synthetic import event_captions

# Further scores for `event_captions`; see `event_scores`.
EVENT_METRICS = ('exact', 'motion_order', 'motion_set')
# Scores that can rank checkpoints: `Evaluator` computes them every time.
METRICS = (*metrics.WITHOUT_JAVA, 'loss', 'accuracy', 'perplexity')


def check_metric(config: ml_collections.ConfigDict):
  """Raises a ValueError unless checkpoints can be ranked by `best_metric`."""
  known = (*METRICS, *(EVENT_METRICS if _has_events(config) else ()))
  if config.best_metric not in known:
    raise ValueError(
      f'best_metric={config.best_metric!r} is none of {", ".join(known)}'
    )


def _has_events(config: ml_collections.ConfigDict) -> bool:
  """True for `event_captions` and its variants."""
  return config.data.name.partition('/')[0] == 'event_captions'


def event_scores(
  references: dict[str, list[str]], candidates: dict[str, str]
) -> dict[str, float]:
  """The shares of captions of `event_captions` that are right.

  N-gram scores hardly separate 'left then up' from 'up then left'.

  Args:
    references: clip id -> captions.
    candidates: clip id -> generated caption.

  Returns:
    `exact`: equal to a reference; `motion_order`: the same directions in the
    same order; `motion_set`: the same directions in any order.
  """

  def share(key: Callable[[str], Any]) -> float:
    right = [
      key(candidates[i]) in [key(text) for text in texts]
      for i, texts in references.items()
    ]
    return float(np.mean(right))

  return {
    'exact': share(str.split),
    'motion_order': share(event_captions.motions),
    'motion_set': share(lambda text: sorted(event_captions.motions(text))),
  }


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Results of one pass over a split."""

  scores: dict[str, float]
  captions: dict[str, list[vocabulary_lib.Caption]]  # By clip, best first.
  absent: dict[str, str]  # Score that could not be computed -> reason.
  seconds: float


class Evaluator:
  """Evaluates a video captioner on one split; compiles once."""

  def __init__(
    self,
    source: batching.Source,
    examples: examples_lib.Examples,
    network: model.Captioner,
    config: ml_collections.ConfigDict,
  ):
    """Prepares the batches and reads the references.

    Args:
      source: records of the split, with `frames` or `features`.
      examples: turns records into examples.
      network: the Flax module.
      config: `data.name`, `decoding` and `eval_batch_size`.
    """
    self._vocabulary = examples.vocabulary
    self._examples = examples
    self._network = network
    self._events = _has_events(config)
    self.references = {}
    for i in range(len(source)):
      record = source[i]
      self.references[record['id']] = record['captions']
    self._batches = batching.evaluation_batches(
      source, examples.evaluation, batch_size=config.eval_batch_size
    )
    self._decode = inference.decode_step(
      network, config.decoding, examples.vocabulary
    )

    def measure(variables, batch):
      tokens = batch['tokens']
      logits, _ = network.apply(variables, *model.inputs(batch), train=False)
      mask = tokens != vocabulary_lib.PAD_ID
      mask &= batch['mask'][:, None, None]
      costs = likelihood.cross_entropy(logits, tokens)
      return likelihood.token_metrics(costs, logits, tokens, mask)

    self._measure = parallel.eval_step(measure)

  def __call__(self, variables: Any, *, meteor: bool = False) -> Evaluation:
    """Captions every clip and scores the captions.

    Args:
      variables: of the network, replicated.
      meteor: compute METEOR too, which takes seconds and needs Java.

    Raises:
      Stopped: SIGTERM came.
    """
    start = time.monotonic()
    tokens = prediction.measure(
      self._measure, variables, batching.read(self._batches)
    )
    beams = inference.decode(
      self._decode,
      variables,
      batching.read(self._batches),
      self._vocabulary,
    )
    captions = dict(zip(self.references, beams, strict=True))
    candidates = {i: found[0].text for i, found in captions.items()}
    result = metrics.score(
      self.references,
      candidates,
      meteor=meteor,
      tokenizer=self._vocabulary.tokenizer,
    )
    scores = {
      **result['corpus'],
      **tokens,
      'perplexity': float(jnp.exp(tokens['loss'])),
    }
    if self._events:
      scores |= event_scores(self.references, candidates)
    return Evaluation(
      scores, captions, result['absent'], time.monotonic() - start
    )

  def word_frames(
    self, variables: Any, evaluation: Evaluation, clips: batching.Source
  ) -> dict[str, list[dict[str, Any]]]:
    """The frame of its clip to which each word of a caption attends most.

    Args:
      variables: of the network, replicated.
      evaluation: of this evaluator.
      clips: records of the split with `frames`.

    Returns:
      Clip id -> `word`, `frame` and `weight` of each word; empty if the decoder
      does not attend.
    """
    if not self._network.decoder.attends:
      return {}
    best = [found[0] for found in evaluation.captions.values()]
    longest = 1 + max(len(caption.words) for caption in best)
    tokens = np.stack(
      [self._vocabulary.encode(caption.text, longest) for caption in best]
    )

    def forced():
      for batch in batching.number(batching.read(self._batches)):
        # Padding repeats the last clip.
        index = np.minimum(batch['index'], len(best) - 1)
        yield {**batch, 'tokens': tokens[index][:, np.newaxis]}

    attention = prediction.predict(
      inference.attention_step(self._network), variables, forced()
    )
    found = {}
    for i, (caption, weights) in enumerate(zip(best, attention, strict=True)):
      record = clips[i]
      indices = self._examples.frame_indices(len(record['frames']))
      weights = np.asarray(weights)[:, : len(indices)]
      found[record['id']] = [
        {
          'word': word,
          'frame': int(indices[row.argmax()]),
          'weight': round(float(row.max()), 4),
        }
        for word, row in zip(caption.words, weights, strict=False)
      ]
    return found

  def table(self, evaluation: Evaluation) -> str:
    """The first captions beside their references, in Markdown."""
    rows = [
      f'| {i} | {found[0].text} | {self.references[i][0]} |'
      for i, found in itertools.islice(evaluation.captions.items(), 20)
    ]
    return '\n'.join(['| clip | caption | reference |', '|---|---|---|', *rows])


def score_records(
  workdir: pathlib.Path, source: batching.Source
) -> dict[str, float]:
  """Scores the best checkpoint of a run on records that are given.

  Args:
    workdir: of the run, or of a released model.
    source: records as those of the run's data set.
  """
  captioner = inference.load(workdir)
  config = captioner.config
  examples = examples_lib.Examples(captioner.vocabulary, config.data)
  evaluate = Evaluator(source, examples, captioner.network, config)
  return evaluate(captioner.variables).scores


def evaluate_best(
  workdir: pathlib.Path, split: str, *, shuffled: bool = False
) -> dict[str, Any]:
  """Scores the best checkpoint of a run on a split and writes the results.

  `results.json` gets an entry; the captions go under `results/`, with the frame
  to which each word attends most.

  Args:
    workdir: of the run.
    split: 'validation' or 'test'.
    shuffled: shuffle the frames of each clip; the entry is then called
      'SPLIT_shuffled'.

  Returns:
    The entry of `results.json`.
  """
  name = f'{split}_shuffled' if shuffled else split
  output = released.output(workdir)
  console.state(f'scoring {name}')
  captioner = inference.load(workdir)
  config = captioner.config
  source = examples_lib.open_split(config, workdir, split)
  evaluate = Evaluator(
    source,
    examples_lib.Examples(captioner.vocabulary, config.data, shuffled=shuffled),
    captioner.network,
    config,
  )
  evaluation = evaluate(captioner.variables, meteor=True)
  training = examples_lib.open_split(config, workdir, 'train')
  entry = {
    'scores': evaluation.scores,
    'absent': evaluation.absent,
    'most_frequent_caption': metrics.most_frequent_caption(
      (c for i in range(len(training)) for c in training[i]['captions']),
      evaluate.references,
      tokenizer=config.data.tokenizer,
    ),
    'num_clips': len(source),
    **results.from_run(workdir, config, captioner.step),
    'data': {
      'name': config.data.name,
      'fingerprint': data.fingerprint(config.data.name, config.data.data_dir),
    },
    'evaluation_seconds': round(evaluation.seconds, 1),
  }
  words = {}
  if not shuffled:
    clips = data.open_split(config.data.name, split, config.data.data_dir)
    words = evaluate.word_frames(captioner.variables, evaluation, clips)
  if jax.process_index() == 0:
    checkpoints.write_json(
      output / 'results' / f'{name}.captions.json',
      [
        {
          'clip_id': i,
          'caption': found[0].text,
          'log_prob': found[0].log_prob,
          'references': evaluate.references[i],
          **({'words': words[i]} if i in words else {}),
        }
        for i, found in evaluation.captions.items()
      ],
    )
  results.add(output, name, entry)
  _print(entry, name)
  return entry


def _print(entry: dict[str, Any], name: str):
  """Prints the scores beside those of the most frequent caption."""
  frequent = entry['most_frequent_caption']
  lines = [f'{name}: {entry["num_clips"]} clips, step {entry["step"]}']
  for metric, value in entry['scores'].items():
    other = frequent['scores'].get(metric)
    lines.append(
      f'{metric:12} {value:10.4f} {"" if other is None else f"{other:12.4f}"}'
    )
  lines += [f'{score}: absent. {why}' for score, why in entry['absent'].items()]
  lines.append(f'(on the right: always "{frequent["caption"]}")')
  console.result('\n'.join(lines))
