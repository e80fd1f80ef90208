"""Scores of a captioner on a whole split, sharded over devices and hosts."""

import collections
import dataclasses
import itertools
import json
import pathlib
import time
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from captioning import data
from captioning import diversity
from captioning import examples as examples_lib
from captioning import figures
from captioning import inference
from captioning import metrics
from captioning import model
from captioning import page
from captioning import records
from captioning import vocabulary as vocabulary_lib
from configs import schema
from recurrent import decoder
from recurrent import likelihood
from recurrent import search
from training import app
from training import batching
from training import checkpoints
from training import console
from training import parallel
from training import prediction
from training import released
from training import results

# Scores that rank checkpoints: those that `Evaluator` computes every time.
METRICS = (*metrics.WITHOUT_JAVA, 'loss', 'accuracy', 'perplexity')
# Those of data sets whose captions can be judged; see `data.judge`.
JUDGED_METRICS = ('true', 'complete')


def check_metric(config: ml_collections.ConfigDict):
  """Raises a ValueError unless `best_metric` can rank checkpoints."""
  names = METRICS
  if data.judge(config.data.name) is not None:
    names += JUDGED_METRICS
  if config.best_metric not in names:
    raise ValueError(
      f'best_metric={config.best_metric!r} is none of {", ".join(names)}'
    )


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """The scores and captions of one pass over a split."""

  scores: dict[str, float]  # Corpus scores, `loss` and perplexities.
  captions: dict[str, list[vocabulary_lib.Caption]]  # By image, best first.
  per_image: dict[str, dict[str, float]]  # Scores of the best captions.
  absent: dict[str, str]  # Reasons of the scores that are missing.
  seconds: float


class Evaluator:
  """Evaluates a captioner, or an ensemble, on one split; compiles once."""

  def __init__(
    self,
    source: batching.Source,
    examples: examples_lib.Examples,
    captioners: Sequence[model.Captioner],
    config: ml_collections.ConfigDict,
  ):
    """Prepares the batches and reads the references.

    Args:
      source: the split, with `image` or `features`.
      examples: makes examples of its records.
      captioners: the Flax module, or those of an ensemble.
      config: `decoding` and `eval_batch_size`.
    """
    self.records = source
    self._examples = examples
    self._attends = _shows_attention(captioners[0], config)
    self._max_length = config.decoding.max_length
    self._samples = config.decoding.temperature > 0
    self._judge = data.judge(config.data.name)
    self.references = {}
    for i in range(len(source)):
      record = source[i]
      self.references[record['id']] = record['captions']
    self.batches = batching.evaluation_batches(
      source, examples.evaluation, batch_size=config.eval_batch_size
    )
    self._batch_size = config.eval_batch_size
    self._decode = inference.decode_step(
      captioners, config.decoding, examples.vocabulary
    )

    def measure(variables, batch):
      tokens = batch['tokens']
      logits = search.mean_probability(
        [
          captioner.apply(of_captioner, *model.inputs(batch), train=False)[0]
          for captioner, of_captioner in zip(captioners, variables, strict=True)
        ]
      )
      mask = tokens != vocabulary_lib.PAD_ID
      mask &= batch['mask'][:, None, None]
      costs = likelihood.cross_entropy(logits, tokens)
      return likelihood.token_metrics(
        costs, logits, tokens, mask, likelihood.SequenceMetrics
      )

    self._measure = parallel.eval_step(measure)
    self._attend = inference.attention_step(captioners[0])

  def __call__(
    self,
    variables: Sequence[Any],
    *,
    meteor: bool = False,
    spice_jar: str | None = None,
  ) -> Evaluation:
    """Captions every image and scores the captions.

    Args:
      variables: of each captioner, replicated.
      meteor: compute METEOR too, which takes seconds and needs Java.
      spice_jar: path of SPICE's jar, to compute it too.
    """
    start = time.monotonic()
    tokens = prediction.measure(
      self._measure, tuple(variables), batching.read(self.batches)
    )
    captions = dict(
      zip(
        self.references,
        inference.decode(
          self._decode,
          variables,
          batching.read(self.batches),
          self._examples.vocabulary,
        ),
        strict=True,
      )
    )
    # The geometric mean over captions of their perplexities (Tanti et al. 2018,
    # section 4.3), where `perplexity` is that of all words.
    caption_loss = tokens.pop('sequence_loss')
    texts = {i: found[0].text for i, found in captions.items()}
    result = metrics.score(
      self.references,
      texts,
      meteor=meteor,
      spice_jar=spice_jar,
      tokenizer=self._examples.vocabulary.tokenizer,
    )
    scores = {
      **result['corpus'],
      **self._judged(texts),
      **tokens,
      'perplexity': float(jnp.exp(tokens['loss'])),
      'caption_perplexity': float(np.exp(caption_loss)),
    }
    return Evaluation(
      scores,
      captions,
      result['per_image'],
      result.get('absent', {}),
      time.monotonic() - start,
    )

  def attention(
    self,
    variables: Sequence[Any],
    evaluation: Evaluation,
    batches: Iterable[dict[str, np.ndarray]],
  ) -> Iterator[np.ndarray | None]:
    """The first captioner's attention at each word of each best caption.

    Args:
      variables: of each captioner, replicated.
      evaluation: of these variables.
      batches: the images.

    Yields:
      f32[T, L] in the order of the images.
    """
    yield from inference.attend(
      self._attend,
      variables[0],
      batches,
      {i: beams[0].text for i, beams in evaluation.captions.items()},
      self._examples.vocabulary,
      max_length=self._max_length,
    )

  def entries(
    self,
    variables: Sequence[Any],
    evaluation: Evaluation,
    indices: Sequence[int] | None = None,
  ) -> Iterator[page.Entry]:
    """Yields images with their captions, references, scores and attention.

    Args:
      variables: of each captioner, replicated.
      evaluation: of these variables.
      indices: of the images; None for all of the split.
    """
    batches = self.batches
    if indices is None:
      indices = range(len(self.records))
    else:
      batches = batching.evaluation_batches(
        [self.records[n] for n in indices],
        self._examples.evaluation,
        batch_size=self._batch_size,
      )
    # No attention, or none that can be drawn over an image.
    attention = itertools.repeat(None)
    if self._attends:
      attention = self.attention(variables, evaluation, batching.read(batches))
    # The indices first: once they end, no attention is computed.
    for n, weights in zip(indices, attention, strict=False):
      record = self.records[n]
      caption, *others = evaluation.captions[record['id']]
      yield page.Entry(
        id=record['id'],
        image=self._examples.image(record),
        caption=caption.text,
        words=caption.words,
        log_prob=caption.log_prob,
        others=[other.text for other in others] if self._samples else (),
        references=self.references[record['id']],
        scores=evaluation.per_image[record['id']],
        attention=weights,
      )

  def show(
    self, variables: Sequence[Any], evaluation: Evaluation, *, count: int
  ) -> dict[str, np.ndarray]:
    """Figures of images at equal distances in the split: not chosen.

    Args:
      variables: of each captioner, replicated.
      evaluation: of these variables.
      count: number of images.

    Returns:
      uint8[H, W, 3] by the id of the image.
    """
    size = len(self.records)
    indices = (
      [n * size // count for n in range(count)] if size > count else None
    )
    return {
      entry.id: figures.caption(
        entry.image,
        entry.caption,
        entry.attention,
        entry.references[:1],
        words=entry.words,
        verdict=self._verdict(entry.id, entry.caption),
      )
      for entry in self.entries(variables, evaluation, indices)
    }

  def _verdict(self, image_id: str, caption: str) -> bool | None:
    """True or false where the data set says what is true."""
    if self._judge is None:
      return None
    return self._judge.judge_image(image_id, caption).true

  def most_frequent_caption(self, training: batching.Source) -> dict[str, Any]:
    """The commonest training caption, given to every image, and its scores.

    A captioner that never reads the image would reach these.
    """
    result = metrics.most_frequent_caption(
      (c for i in range(len(training)) for c in training[i]['captions']),
      self.references,
      tokenizer=self._examples.vocabulary.tokenizer,
    )
    same = dict.fromkeys(self.references, result['caption'])
    result['scores'] |= self._judged(same)
    return result

  def _judged(self, texts: dict[str, str]) -> dict[str, float]:
    """Shares of true captions, where the data set says what is true."""
    if self._judge is None:
      return {}
    return self._judge.score(texts)


def _shows_attention(
  captioner: model.Captioner, config: ml_collections.ConfigDict
) -> bool:
  """True if the attention is over a grid, which can be drawn on an image."""
  return captioner.decoder.attends and not config.regions


def table(evaluation: Evaluation, references: dict[str, list[str]]) -> str:
  """A Markdown table of the first captions, each beside a human one."""
  rows = [
    f'| {i} | {found[0].text} | {references[i][0]} |'
    for i, found in itertools.islice(evaluation.captions.items(), 20)
  ]
  head = ['| image | caption | reference |', '|---|---|---|']
  return '\n'.join(head + rows)


def score_records(
  workdir: pathlib.Path, source: batching.Source
) -> dict[str, float]:
  """Scores the best checkpoint of a run on records that are given.

  Args:
    workdir: of the run, or of a released model.
    source: records as those of the run's data set.
  """
  with_encoder = inference.encodes(app.read_config(workdir, schema.CAPTIONING))
  trained = inference.restore(workdir, with_encoder=with_encoder)
  examples = examples_lib.Examples(trained.vocabulary, trained.config.data)
  evaluate = Evaluator(source, examples, [trained.network], trained.config)
  return evaluate([trained.variables]).scores


def evaluate_best(
  workdir: pathlib.Path,
  split: str,
  *,
  name: str | None = None,
  decoding: ml_collections.ConfigDict | None = None,
  others: Sequence[pathlib.Path] = (),
  spice_jar: str | None = None,
  with_diversity: bool = False,
  with_page: bool = False,
) -> dict[str, Any]:
  """Scores the best checkpoint of a run on a split and writes the results.

  `results.json` gets an entry; under `results/` go the captions in the form of
  COCO's results files, and figures of some of them.

  Args:
    workdir: of the run; nothing else is needed.
    split: 'validation' or 'test'.
    name: of the entry and of the files; the split's by default.
    decoding: replaces the config's.
    others: workdirs of the other members of an ensemble.
    spice_jar: path of SPICE's jar, to score by it too.
    with_diversity: score all captions of an image, too: their diversity, the
      best and the mean of them, and the words that they use.
    with_page: write `results/NAME.html`, which shows every image, too.

  Returns:
    The entry of `results.json`.
  """
  name = name or split
  output = released.output(workdir)
  console.state(f'scoring {name}')
  trained = [
    inference.restore(
      path,
      with_encoder=inference.encodes(app.read_config(path, schema.CAPTIONING)),
    )
    for path in (workdir, *others)
  ]
  inference.check_ensemble(trained)
  config = trained[0].config
  if decoding is not None:
    config.decoding = decoding
  source = records.open_split(config, workdir, split)
  evaluate = Evaluator(
    source,
    examples_lib.Examples(trained[0].vocabulary, config.data),
    [member.network for member in trained],
    config,
  )
  variables = [member.variables for member in trained]
  evaluation = evaluate(variables, meteor=True, spice_jar=spice_jar)
  training = records.open_split(config, workdir, 'train')
  entry = {
    'scores': evaluation.scores,
    'absent': evaluation.absent,
    'most_frequent_caption': evaluate.most_frequent_caption(training),
    'num_images': len(source),
    **results.from_run(workdir, config, trained[0].step),
    'data': {
      'name': config.data.name,
      'fingerprint': data.fingerprint(config.data.name, config.data.data_dir),
    },
    'decoding': json.loads(config.decoding.to_json()),
    'evaluation_seconds': round(evaluation.seconds, 1),
  }
  if others:
    entry['ensemble'] = [str(path) for path in (workdir, *others)]
  texts = {
    i: [caption.text for caption in found]
    for i, found in evaluation.captions.items()
  }
  if with_diversity:
    tokenizer = config.data.tokenizer
    entry |= {
      'diversity': diversity.score(
        texts, references=evaluate.references, tokenizer=tokenizer
      ),
      **metrics.of_several(evaluate.references, texts, tokenizer=tokenizer),
      'usage': diversity.usage(
        texts,
        (c for i in range(len(training)) for c in training[i]['captions']),
        tokenizer=tokenizer,
      ),
    }
  sheet = evaluate.show(variables, evaluation, count=6)
  entries = evaluate.entries(variables, evaluation)
  if jax.process_index() == 0:
    checkpoints.write_json(
      output / 'results' / f'{name}.captions.json',
      [
        {
          # COCO's own tools want its ids as numbers.
          'image_id': int(i) if i.isdigit() else i,
          'caption': found[0].text,
          'log_prob': found[0].log_prob,
        }
        for i, found in evaluation.captions.items()
      ],
    )
    if config.decoding.temperature and config.decoding.samples > 1:
      checkpoints.write_json(output / 'results' / f'{name}.samples.json', texts)
    figures.save(
      figures.stack(list(sheet.values())),
      output / 'results' / f'{name}.png',
    )
    if with_page:
      page.write(
        output / 'results' / f'{name}.html',
        entries,
        title=f'{workdir.name}: {name}',
        scores=evaluation.scores,
        facts={
          'model': config.model,
          'data': f'{config.data.name}, {split}, {len(source)} images',
          'step': str(entry['step']),
          'decoding': decoder.describe(config.decoding),
          'seed': str(config.seed),
          'commit': entry['commit'] or 'none',
        },
      )
  elif with_page:
    # Each batch of attention is gathered from all hosts: all must ask for it.
    collections.deque(entries, maxlen=0)
  results.add(output, name, entry)
  print_scores(entry, name)
  if with_page:
    console.result(f'Page of all images: {output}/results/{name}.html')
  return entry


def print_scores(entry: dict[str, Any], split: str):
  """Prints the scores of a split beside those of the most frequent caption."""
  frequent = entry['most_frequent_caption']
  several = [name for name in ('oracle', 'mean') if name in entry]
  lines = [
    f'{split}: {entry["num_images"]} images, step {entry["step"]}',
    f'{"":10} {"captioner":>10} {"most frequent caption":>22}'
    + ''.join(f' {name:>10}' for name in several),
  ]
  for name, value in entry['scores'].items():
    other = frequent['scores'].get(name)
    line = (
      f'{name:10} {value:10.4f} {"" if other is None else f"{other:22.4f}"}'
    )
    for column in several:
      if name in entry[column]:
        line += f' {entry[column][name]:10.4f}'
    lines.append(line)
  lines += [
    f'{metric:10} {value:10.4f} (over the captions of an image)'
    for metric, value in entry.get('diversity', {}).items()
  ]
  lines += [
    f'{name:12} {value:10.4f} (all captions)'
    for name, value in entry.get('usage', {}).items()
  ]
  lines += [f'{name}: absent. {why}' for name, why in entry['absent'].items()]
  lines.append(f'(most frequent caption: "{frequent["caption"]}")')
  console.result('\n'.join(lines))
