r"""Trains a video captioner and evaluates it, or captions clips.

  python -m video.caption --config=configs/event_captions.py --workdir=runs/v
  python -m video.caption --workdir=runs/v

The second line resumes a run. Self-critical training (Rennie et al. 2017)
starts from the best checkpoint of an earlier run:

  python -m video.caption --config=configs/msrvtt_attention.py:self_critical \
    --config.start_from=runs/msrvtt --workdir=runs/msrvtt_self_critical

Clips (video files, directories of the frames of
one clip, .npy or .npz files) are captioned by the best checkpoint:

  python -m video.caption --workdir=runs/v clip.mp4 frames/
  python -m video.caption --workdir=runs/v clip.mp4 --json --n_best=3 \
    --decoding=beam_size=5

  python -m video.caption --pretrained=event_captions clip.mp4

It prints a line for each caption: path, caption, log-probability (natural).
--json also has the words of the best caption with the second of the clip that
each attends to most, if the decoder attends.
Files that cannot be read are reported on stderr and the rest are captioned; the
exit status is then 1.
"""

import contextlib
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import flags

from captioning import earlier
from captioning import self_critical
from captioning import vocabulary as vocabulary_lib
from configs import schema
from training import app
from training import batching
from training import checkpoints
from training import compilation
from training import loop
from training import optimizers
from training import parallel
from video import data
from video import frames as frames_lib
from video.captioning import evaluation as evaluation_lib
from video.captioning import examples as examples_lib
from video.captioning import inference
from video.captioning import losses
from video.captioning import model
from vision import pretrained


def initial_variables(
  captioner: model.Captioner,
  example: dict[str, np.ndarray],
  config: ml_collections.ConfigDict,
  vocabulary: vocabulary_lib.Vocabulary | None = None,
) -> Any:
  """The variables that training starts from.

  Random ones, with published ones of the encoder if `encoder_weights` names
  some; or those of the best checkpoint of the workdir `start_from`.

  Raises:
    ValueError: the captioner labels frames, but the clips have no labels; or
      the run to start from is of another network, or has other words than
      `vocabulary`.
  """
  batch = {
    name: jnp.asarray(x)[None] for name, x in example.items() if name != 'id'
  }
  if captioner.frame_labels and 'frame_labels' not in batch:
    raise ValueError(
      f'frame_labels={config.frame_labels}, but the clips of '
      f'{config.data.name} have no frame labels: pass '
      '--config.frame_labels=0'
    )
  inputs = model.inputs(batch)
  key = jax.random.key(config.seed)

  def init(key):
    return captioner.init(key, *inputs, train=False)

  if config.start_from:
    path = pathlib.Path(config.start_from).absolute()
    trained = inference.load(path)
    checkpoints.check_shapes(trained.variables, jax.eval_shape(init, key), path)
    if vocabulary is not None:
      earlier.check_vocabulary(vocabulary, trained.vocabulary, path)
    return jax.device_get(trained.variables)
  if captioner.encoder is None or not config.encoder_weights:
    return compilation.run_once(init, key)
  # Before the work: the file may be absent, or of another shape.
  encoder = pretrained.load_encoder(config.encoder_weights, config.encoder)
  return pretrained.put_encoder(compilation.run_once(init, key), encoder)


def train_and_evaluate(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
):
  """Trains from the latest checkpoint in `workdir`, or from scratch.

  Ends by writing the best checkpoint's scores on the test split to
  `results.json`, and its scores on the same clips with shuffled frames.
  """
  parallel.local_batch_size(config.batch_size)
  parallel.local_batch_size(config.eval_batch_size, 'eval_batch_size')
  evaluation_lib.check_metric(config)
  training = examples_lib.open_split(config, workdir, 'train')
  validation = examples_lib.open_split(config, workdir, 'validation')
  examples = examples_lib.make_examples(config, workdir, training)
  examples.vocabulary.constraints(config.decoding)
  batches = batching.training_batches(
    training,
    examples.training,
    batch_size=config.batch_size,
    seed=config.seed,
  )

  captioner = model.create(config, len(examples.vocabulary))
  optimizer, learning_rate = optimizers.create(
    config.optimizer, config.num_steps
  )
  state = parallel.create_state(
    initial_variables(
      captioner,
      examples.evaluation(training[0]),
      config,
      examples.vocabulary,
    ),
    optimizer,
  )
  train_step = parallel.train_step(
    losses.create(captioner, config.loss), losses.counts, optimizer
  )
  evaluate = evaluation_lib.Evaluator(validation, examples, captioner, config)
  key = parallel.replicate(jax.random.key(config.seed + 1))
  extras = {
    'config': config.to_dict(),
    'vocabulary': examples.vocabulary.words,
    'rate': data.rate(config.data.name, config.data.data_dir),
  }

  with contextlib.ExitStack() as stack:
    run = stack.enter_context(
      loop.start(
        config,
        workdir,
        state,
        batches=batches,
        learning_rate=learning_rate,
        extras=extras,
        fingerprint=data.fingerprint(config.data.name, config.data.data_dir),
      )
    )
    sample = None
    if config.self_critical.num_samples:
      sample = self_critical.create(
        stack,
        captioner,
        examples_lib.count_frequencies(
          config, workdir, training, examples.vocabulary
        ),
        config,
        fields=model.CLIP_FIELDS,
        inputs=model.clip_inputs,
      )
    for step in run.steps():
      if step.evaluates:
        evaluation = evaluate(run.state.variables)
        run.record_evaluation(evaluation.scores, evaluation.seconds)
        run.report.texts(
          step.number, {'validation/captions': evaluate.table(evaluation)}
        )
      else:
        batch, rewards = step.batch, None
        if sample is not None:
          variables = {'params': run.state.params, **run.state.model_state}
          batch, rewards = sample(
            variables, step.host_batch, batch, step.number
          )
        run.state, update = train_step(run.state, batch, key)
        run.record_update(update, rewards)

  evaluation_lib.evaluate_best(workdir, 'test')
  evaluation_lib.evaluate_best(workdir, 'test', shuffled=True)


def caption_files(
  workdir: pathlib.Path,
  paths: Sequence[str],
  *,
  n_best: int = 1,
  decoding: Sequence[str] = (),
  as_json: bool = False,
) -> int:
  """Captions files and prints the results; returns the exit status.

  Args:
    workdir: of a trained captioner.
    paths: video files, directories of frames, .npy and .npz files.
    n_best: number of captions for each.
    decoding: FIELD=VALUE changes of the config's `decoding`.
    as_json: print JSON instead of lines.
  """
  captioner = inference.load(workdir, decoding=decoding, min_beams=n_best)

  results = []
  for path in paths:
    result = {'path': path}
    try:
      clip = captioner.read(path)
    except (OSError, ValueError) as error:
      result['error'] = str(error)
    else:
      if as_json and captioner.network.decoder.attends:
        rate = frames_lib.frame_rate(path, rate=captioner.rate)
        (found,) = captioner.caption_with_attention([clip], [rate])
        beams, result['words'] = found.captions, found.word_times()
      else:
        (beams,) = captioner.caption([clip])
      best = [
        {'caption': caption.text, 'log_prob': caption.log_prob}
        for caption in beams[:n_best]
      ]
      result.update(best[0])
      if n_best > 1:
        result['n_best'] = best
    results.append(result)
  if as_json:
    print(json.dumps(results, indent=2, ensure_ascii=False))
  for result in results:
    if 'error' in result:
      print(f'{result["path"]}: error: {result["error"]}', file=sys.stderr)
    elif not as_json:
      for beam in result.get('n_best', [result]):
        print(f'{result["path"]}\t{beam["caption"]}\t{beam["log_prob"]:.2f}')
  return int(any('error' in result for result in results))


def main():
  """Defines the flags and runs the command."""
  n_best = flags.DEFINE_integer(
    'n_best', 1, 'For clips: number of captions of each.', 1
  )
  decoding = flags.DEFINE_multi_string(
    'decoding',
    [],
    "For clips: FIELD=VALUE changes a field of the config's `decoding`.",
  )
  as_json = flags.DEFINE_bool(
    'json', False, 'For clips: print JSON instead of lines.'
  )
  app.run(
    train_and_evaluate,
    schema=schema.VIDEO_CAPTION,
    use=lambda workdir, paths: caption_files(
      workdir,
      paths,
      n_best=n_best.value,
      decoding=decoding.value,
      as_json=as_json.value,
    ),
  )


if __name__ == '__main__':
  main()
