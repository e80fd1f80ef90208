"""Scores of a captioner on a whole split, sharded over devices and hosts."""

import collections
import dataclasses
import itertools
import json
import pathlib
import time
from typing import Any

import clu.metrics
import flax
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging

from captioning import data
from captioning import examples as examples_lib
from captioning import figures
from captioning import inference
from captioning import metrics
from captioning import model
from captioning import records
from captioning import vocabulary as vocabulary_lib
from training import app
from training import batching
from training import checkpoints
from training import parallel
from training import provenance


@flax.struct.dataclass
class TokenMetrics(clu.metrics.Collection):
  """Means over the words that are not padding, EOS included."""

  loss: clu.metrics.Average.from_output('loss')
  accuracy: clu.metrics.Average.from_output('correct')


def token_metrics(
  losses: jax.Array, logits: jax.Array, tokens: jax.Array, mask: jax.Array
) -> TokenMetrics:
  """f32[..., T], f32[..., T, V], i32[..., T], bool[..., T] -> metrics."""
  return TokenMetrics.single_from_model_output(
    loss=losses,
    correct=jnp.max(logits, -1) == _score(logits, tokens),
    mask=mask,
  )


def _score(logits: jax.Array, tokens: jax.Array) -> jax.Array:
  return jnp.take_along_axis(logits, tokens[..., None], -1)[..., 0]


def cross_entropy(logits: jax.Array, tokens: jax.Array) -> jax.Array:
  """-log p(token), in nats: f32[..., T, V], i32[..., T] -> f32[..., T]."""
  return jax.nn.logsumexp(logits, -1) - _score(logits, tokens)


# By what a checkpoint can be the best: what `Evaluator` computes every time.
METRICS = (
  *(f'BLEU-{n}' for n in (1, 2, 3, 4)),
  'ROUGE-L',
  'CIDEr',
  'loss',
  'accuracy',
  'perplexity',
)


def check_metric(name: str):
  """Raises a ValueError unless checkpoints can be ranked by this metric."""
  if name not in METRICS:
    raise ValueError(f'best_metric={name!r} is none of {", ".join(METRICS)}')


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """What one pass over a split gives."""

  scores: dict[str, float]  # Corpus scores, `loss` and `perplexity`.
  captions: dict[str, inference.Caption]  # By picture.
  absent: dict[str, str]  # Scores that could not be computed, and why.
  seconds: float


class Evaluator:
  """Evaluates one model on one split, as often as wanted; compiles once."""

  def __init__(
    self,
    source: batching.Source,
    examples: examples_lib.Examples,
    captioner: model.Captioner,
    config: ml_collections.ConfigDict,
  ):
    """Prepares the batches and reads the references.

    Args:
      source: the split, with `image` or `grid`.
      examples: makes examples of them.
      captioner: the model.
      config: `decoding` and `eval_batch_size`.
    """
    self.records = source
    self._examples = examples
    self._captioner = captioner
    self._length = config.decoding.max_length
    self.references = {}
    for i in range(len(source)):
      record = source[i]
      self.references[record['id']] = record['captions']
    self.batches = batching.evaluation_batches(
      source, examples.evaluation, batch_size=config.eval_batch_size
    )
    self._describe = inference.describe_step(captioner, config.decoding)

    def measure(variables, batch):
      tokens = batch['tokens']
      logits, _ = captioner.apply(
        variables, batch['picture'], tokens, train=False
      )
      mask = tokens != vocabulary_lib.PAD_ID
      mask &= batch['mask'][:, None, None]
      return token_metrics(cross_entropy(logits, tokens), logits, tokens, mask)

    self._measure = parallel.eval_step(measure)
    self._attend = inference.attention_step(captioner)

  def __call__(
    self,
    variables: Any,
    *,
    meteor: bool = False,
    spice_jar: str | None = None,
  ) -> Evaluation:
    """Describes every picture and scores the descriptions.

    Args:
      variables: of the captioner, replicated.
      meteor: compute METEOR too, which takes seconds and needs Java.
      spice_jar: where SPICE's jar is, to compute it too.
    """
    start = time.monotonic()
    total = None
    for _, batch in parallel.prefetch(batching.read(self.batches)):
      app.raise_if_stopping()
      part = self._measure(variables, batch)
      total = part if total is None else total.merge(part)
    tokens = {name: float(x) for name, x in total.compute().items()}
    captions = dict(
      zip(
        self.references,
        inference.describe(
          self._describe,
          variables,
          batching.read(self.batches),
          self._examples.vocabulary,
        ),
        strict=True,
      )
    )
    result = metrics.score(
      self.references,
      {i: caption.text for i, caption in captions.items()},
      meteor=meteor,
      spice_jar=spice_jar,
    )
    scores = {
      **result['corpus'],
      **tokens,
      'perplexity': float(jnp.exp(tokens['loss'])),
    }
    return Evaluation(
      scores, captions, result.get('absent', {}), time.monotonic() - start
    )

  def show(
    self, variables: Any, evaluation: Evaluation, *, count: int
  ) -> dict[str, np.ndarray]:
    """Pictures of the first captions, with attention where there is any.

    Args:
      variables: of the captioner, replicated.
      evaluation: what the call with these variables returned.
      count: how many pictures.

    Returns:
      uint8[H, W, 3] by the id of the picture.
    """
    ids = list(self.references)[:count]
    captions = [evaluation.captions[i].text for i in ids]
    attention = [None] * len(ids)
    if self._captioner.decoder.attends:
      batch = self.batches[0]
      tokens = np.zeros((len(batch['mask']), 1, self._length), np.int32)
      for row, i in enumerate(batch['id']):
        text = evaluation.captions[i].text
        tokens[row, 0] = self._examples.vocabulary.encode(text, self._length)
      batch = {'picture': batch['picture'], 'tokens': tokens}
      attention = self._attend(variables, parallel.shard(batch))
    return {
      i: figures.caption(
        self._examples.picture(self.records[n]),
        captions[n],
        attention[n],
        self.references[i],
      )
      for n, i in enumerate(ids[: len(attention)])
    }

  def most_frequent_caption(self, training: batching.Source) -> dict[str, Any]:
    """The commonest training caption, given to every picture, and its scores.

    What a captioner that never looks at the picture would reach.
    """
    counts = collections.Counter(
      caption
      for i in range(len(training))
      for caption in training[i]['captions']
    )
    caption, _ = counts.most_common(1)[0]
    scores = metrics.score(
      self.references, dict.fromkeys(self.references, caption)
    )
    return {'caption': caption, 'scores': scores['corpus']}


def table(evaluation: Evaluation, references: dict[str, list[str]]) -> str:
  """The first captions beside a human one, in Markdown."""
  rows = [
    f'| {i} | {caption.text} | {references[i][0]} |'
    for i, caption in itertools.islice(evaluation.captions.items(), 20)
  ]
  head = ['| picture | caption | reference |', '|---|---|---|']
  return '\n'.join(head + rows)


def evaluate_best(
  workdir: pathlib.Path, split: str, spice_jar: str | None = None
) -> dict[str, Any]:
  """Scores the best checkpoint of a run on a split and writes the results.

  `results.json` gets an entry for the split; under `results/` go the captions
  in the form of COCO's results files, and pictures of some of them.

  Args:
    workdir: of the run; nothing else is needed.
    split: 'validation' or 'test'.
    spice_jar: where SPICE's jar is, to score by it too.

  Returns:
    The entry of `results.json`.
  """
  trained = inference.load(
    workdir, with_encoder=not app.read_config(workdir).cache_features
  )
  config = trained.config
  source = records.open_split(config, workdir, split)
  evaluate = Evaluator(
    source,
    examples_lib.Examples(trained.vocabulary, config.data),
    trained.captioner,
    config,
  )
  evaluation = evaluate(trained.variables, meteor=True, spice_jar=spice_jar)
  pictures = evaluate.show(trained.variables, evaluation, count=6)
  training = records.open_split(config, workdir, 'train')
  entry = {
    'scores': evaluation.scores,
    'absent': evaluation.absent,
    'most_frequent_caption': evaluate.most_frequent_caption(training),
    'num_pictures': len(source),
    'step': trained.step,
    'seed': config.seed,
    'data': {
      'name': config.data.name,
      'fingerprint': data.fingerprint(config.data.name, config.data.data_dir),
    },
    'decoding': config.decoding.to_dict(),
    'evaluation_seconds': round(evaluation.seconds, 1),
    'hardware': provenance.hardware(),
    'commit': provenance.commit(),
  }
  if jax.process_index() == 0:
    checkpoints.write_json(
      workdir / 'results' / f'{split}.captions.json',
      [
        {
          # COCO's own tools want its ids as numbers.
          'image_id': int(i) if i.isdigit() else i,
          'caption': caption.text,
          'log_prob': caption.log_prob,
        }
        for i, caption in evaluation.captions.items()
      ],
    )
    figures.save(
      figures.stack(list(pictures.values())),
      workdir / 'results' / f'{split}.png',
    )
    path = workdir / 'results.json'
    results = json.loads(path.read_text()) if path.exists() else {}
    checkpoints.write_json(path, {**results, split: entry})
  log_scores(entry, split)
  return entry


def log_scores(entry: dict[str, Any], split: str):
  """Logs the scores of a split beside those of the most frequent caption."""
  frequent = entry['most_frequent_caption']
  lines = [
    f'{split}: {entry["num_pictures"]} pictures, step {entry["step"]}',
    f'{"":10} {"captioner":>10} {"most frequent caption":>22}',
  ]
  for name, value in entry['scores'].items():
    other = frequent['scores'].get(name)
    lines.append(
      f'{name:10} {value:10.4f} {"" if other is None else f"{other:22.4f}"}'
    )
  lines += [f'{name}: absent. {why}' for name, why in entry['absent'].items()]
  lines.append(f'(most frequent caption: "{frequent["caption"]}")')
  logging.info('%s', '\n'.join(lines))
