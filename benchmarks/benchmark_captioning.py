"""Times captioners against PyTorch, and the rewards of self-critical training.

  python benchmarks/benchmark_captioning.py --output=runs/benchmark.json

Soft attention (Show, Attend and Tell), Att2in and Up-Down on cached 14x14x2048
features, with 9,490 words: training on 32 captions of 20 words (loss, gradient,
clipping, Adam), and 5 beams for 20 words. The first two have 512 units in the
LSTM, the attention and the embedding; Up-Down has 1,000 except in the
attention. Ours is the code of captioning.main, from float16 features on the
host to the updated state; PyTorch starts from float32 tensors. The ratio is our
time over PyTorch's.

Each side is a process, all on the same core; they run in alternation. A round
is two runs of each side. The second one counts, since the system may reclaim
the memory of a waiting process. Times are CPU times of the process: wall
times depend on the other work of the machine. Linux.

Self-critical training samples 5 captions for each of 10 images, as published,
scores them, and takes a training step; Att2in, on two cores. It is compared
with the same sampling, all at once, and a step without rewards. Other processes
compute the scores; therefore wall time is measured here.

PyTorch needs an environment of its own; its modules are in torch_captioners.py.

  python3 -m venv .venv-torch && .venv-torch/bin/pip install torch
"""

import argparse
import dataclasses
import functools
import os
import sys

import side_by_side

# PyTorch's side runs this file too, in an environment without the rest of the
# project: therefore each side imports its libraries in its own function.

BATCH = 32
LOCATIONS = 14 * 14
CHANNELS = 2048
WORDS = 20
VOCABULARY = 9490
BEAMS = 5


@dataclasses.dataclass(frozen=True)
class Model:
  """A model to time, as fields of a config."""

  model: str
  decoder: dict[str, int]
  attention_penalty: float = 0.0


SOFT, ATT2IN, UP_DOWN = 'soft attention', 'Att2in', 'Up-Down'
MODELS = {
  SOFT: Model(
    'show_attend_tell',
    dict(features=512, embedding=512, attention=512),
    attention_penalty=1.0,
  ),
  ATT2IN: Model(
    'att2in',
    dict(features=512, embedding=512, attention=512, annotation_features=512),
  ),
  UP_DOWN: Model(
    'up_down',
    dict(
      features=1000, embedding=1000, attention=512, annotation_features=1000
    ),
  ),
}

# The cases of each model, and of self-critical training.
TRAIN = {model: f'{model}: train step, batch {BATCH}' for model in MODELS}
DECODE = {
  (model, size): f'{model}: beam {BEAMS}, {size} image{"s" * (size > 1)}'
  for model in MODELS
  for size in (1, BATCH)
}
BESIDE_TORCH = [
  case
  for model in MODELS
  for case in (TRAIN[model], DECODE[model, 1], DECODE[model, BATCH])
]
IMAGES, SAMPLES = 10, 5
SCST = f'SCST step, {IMAGES} x {SAMPLES} captions'
ALONE = 'SCST: sampling and training alone'
REWARDS = 'SCST: rewards alone, one process'
CORES = 2
DOCUMENTS = 1000  # Images whose captions make the document frequencies.

# The sides, and the maximum ratio of our time to that of a side.
OURS = side_by_side.OURS
SELF_CRITICAL = 'ours, self-critical'
BEST = 'PyTorch at its best'
PLAIN = 'PyTorch as usually written'
GOALS = {
  (TRAIN[SOFT], BEST): 0.8,
  (TRAIN[SOFT], PLAIN): 1 / 7,
  (DECODE[SOFT, 1], BEST): 0.5,
  (DECODE[SOFT, BATCH], BEST): 0.5,
}
GOAL = 1.0  # Of the other cases.
SCST_GOAL = 1.3  # Maximum ratio of a step with rewards to one without.


def make_vocabulary():
  """Makes a vocabulary of the words w4, w5 and so on."""
  from captioning import vocabulary

  first = len(vocabulary.SPECIAL)
  words = [f'w{i}' for i in range(first, VOCABULARY)]
  return vocabulary.Vocabulary([*vocabulary.SPECIAL, *words])


def make_batch(images: int, captions: int):
  """Makes random features f16[B, L, D] and tokens i32[B, K, T] without EOS."""
  import numpy as np

  from captioning import vocabulary

  random = np.random.default_rng(0)
  shape = (images, LOCATIONS, CHANNELS)
  features = random.random(shape, np.float32).astype(np.float16)
  first = len(vocabulary.SPECIAL)
  shape = (images, captions, WORDS)
  tokens = random.integers(first, VOCABULARY, shape, np.int32)
  return {'features': features, 'tokens': tokens}


def create(config):
  """Creates the model of a config, and variables that never predict EOS.

  A search then takes all of its steps, as on the other side.
  """
  import jax

  from captioning import main
  from captioning import model
  from captioning import vocabulary

  captioner = model.create(config, VOCABULARY, with_encoder=False)
  example = {name: x[0] for name, x in make_batch(1, 1).items()}
  variables = jax.device_get(main.initial_variables(captioner, example, config))
  bias = variables['params']['decoder']['output']['bias'].copy()
  bias[vocabulary.EOS_ID] = -1e9
  variables['params']['decoder']['output']['bias'] = bias
  return captioner, variables


def create_training(config):
  """Creates a captioner, its state and the step `(state, batch) -> state`."""
  import jax

  from captioning import losses
  from training import optimizers
  from training import parallel

  captioner, variables = create(config)
  optimizer, _ = optimizers.create(config.optimizer, config.num_steps)
  train_step = parallel.train_step(
    losses.create(captioner, config.loss), losses.counts, optimizer
  )
  key = parallel.replicate(jax.random.key(1))

  def step(state, batch):
    state, update = train_step(state, batch, key)
    jax.block_until_ready((state, update))
    return state

  return captioner, parallel.create_state(variables, optimizer), step


def make_ours() -> side_by_side.Side:
  """Creates our side."""
  from captioning import inference
  from captioning import vocabulary
  from configs import ucm
  from training import parallel

  compilations = side_by_side.count_compilations()
  batch = make_batch(BATCH, 1)

  def configure(name):
    config = ucm.get_config()
    config.model = MODELS[name].model
    config.decoder = MODELS[name].decoder
    config.loss.attention_penalty = MODELS[name].attention_penalty
    config.loss.penalty_reduction = 'mean'
    config.optimizer.warmup_steps = 0
    config.optimizer.clip_norm = 0.0
    config.optimizer.clip_value = 5.0
    config.decoding.beam_size = BEAMS
    config.decoding.max_length = WORDS
    return config

  def make_train(name):
    _, state, step = create_training(configure(name))

    def train():
      nonlocal state
      state = step(state, parallel.shard(batch))

    return train

  @functools.cache
  def decode_step(name):
    config = configure(name)
    captioner, variables = create(config)
    variables = (parallel.replicate(variables),)
    step = inference.decode_step(
      [captioner], config.decoding, make_vocabulary()
    )
    return functools.partial(step, variables)

  def decode(name, size):
    features = parallel.shard({'features': batch['features'][:size]})
    found, _ = decode_step(name)(features)
    assert found.shape == (size, BEAMS, WORDS)
    assert (found >= len(vocabulary.SPECIAL)).all()

  cases = {}
  for name, case in TRAIN.items():
    cases[case] = side_by_side.on_first_call(
      functools.partial(make_train, name)
    )
  for (name, size), case in DECODE.items():
    cases[case] = functools.partial(decode, name, size)
  return side_by_side.Side(cases, compilations)


def make_self_critical() -> side_by_side.Side:
  """Creates our self-critical training, with rewards and without."""
  # One device for each core, as docs/training.md recommends.
  cores = len(os.sched_getaffinity(0))
  os.environ.setdefault(
    'XLA_FLAGS', f'--xla_force_host_platform_device_count={cores}'
  )
  import atexit
  import shutil
  import tempfile

  import jax
  import numpy as np

  from captioning import rewards
  from captioning import self_critical
  from captioning import vocabulary as vocabulary_lib
  from configs import att2in_coco
  from training import parallel

  compilations = side_by_side.count_compilations()
  config = att2in_coco.get_config('self_critical')
  assert config.self_critical.num_samples == SAMPLES
  # Captions of ten words and EOS; some words are frequent.
  vocabulary = make_vocabulary()
  shape = (DOCUMENTS, SAMPLES, WORDS)
  references = np.random.default_rng(1).zipf(1.2, shape)
  references %= VOCABULARY - len(vocabulary_lib.SPECIAL)
  references = (references + len(vocabulary_lib.SPECIAL)).astype(np.int32)
  references[..., 10] = vocabulary_lib.EOS_ID
  references[..., 11:] = vocabulary_lib.PAD_ID
  batch = make_batch(IMAGES, SAMPLES)
  samples = batch['tokens']
  batch['tokens'] = references[:IMAGES]

  directory = tempfile.mkdtemp()
  atexit.register(shutil.rmtree, directory)
  frequencies = rewards.count(
    f'{directory}/frequencies.npz',
    [[vocabulary.decode(ids) for ids in captions] for captions in references],
    fingerprint='',
    vocabulary=vocabulary,
    max_length=WORDS,
  )
  elsewhere = rewards.Rewards(frequencies, workers=config.self_critical.workers)
  here = rewards.Rewards(frequencies)

  class Unscored:
    """Gives all captions the same reward."""

    def submit(self, samples, references):
      del references
      self._rewards = np.zeros(samples.shape[:2], np.float32)
      return self

    def result(self):
      return self._rewards

  def make_train(rewards, **options):
    captioner, state, step = create_training(config)
    sample = self_critical.SelfCritical(
      captioner,
      rewards,
      num_samples=SAMPLES,
      baseline=config.self_critical.baseline,
      max_length=WORDS,
      key=jax.random.key(2),
      **options,
    )

    def train():
      nonlocal state
      sampled, _ = sample(
        state.variables, batch, parallel.shard(batch), int(state.step)
      )
      state = step(state, sampled)

    return train

  cases = {
    SCST: side_by_side.on_first_call(lambda: make_train(elsewhere)),
    ALONE: side_by_side.on_first_call(lambda: make_train(Unscored(), parts=1)),
    REWARDS: lambda: here.submit(samples, references[:IMAGES]).result(),
  }
  return side_by_side.Side(cases, compilations)


def make_torch(side: str) -> side_by_side.Side:
  """Creates a PyTorch side: at its best, or as usually written."""
  import torch
  import torch_captioners

  torch.set_num_threads(1)
  torch.manual_seed(0)
  features = torch.rand(BATCH, LOCATIONS, CHANNELS)
  # BOS first, which is not predicted.
  tokens = torch.randint(0, VOCABULARY - 3, (BATCH, WORDS + 1))

  modules = {
    BEST: {
      SOFT: torch_captioners.SoftAttention,
      ATT2IN: torch_captioners.Att2in,
      UP_DOWN: torch_captioners.UpDown,
    },
    PLAIN: {
      SOFT: torch_captioners.PlainSoftAttention,
      UP_DOWN: torch_captioners.PlainUpDown,
    },
  }[side]

  def create(name):
    decoder = MODELS[name].decoder
    return modules[name](
      CHANNELS, VOCABULARY, decoder['features'], decoder['attention']
    )

  def make_train(name):
    module = create(name)
    adam = torch.optim.Adam(module.parameters(), 5e-4)

    def train():
      adam.zero_grad(set_to_none=True)
      logits, attention = module(features, tokens)
      loss = torch.nn.functional.cross_entropy(
        logits.reshape(-1, VOCABULARY), tokens[:, 1:].reshape(-1)
      )
      penalty = MODELS[name].attention_penalty
      if penalty:
        loss = loss + penalty * ((1 - attention.sum(1)) ** 2).mean()
      loss.backward()
      torch.nn.utils.clip_grad_value_(module.parameters(), 5.0)
      adam.step()

    return train

  @functools.cache
  def decoder(name):
    return create(name).eval()

  cases = {
    TRAIN[name]: side_by_side.on_first_call(functools.partial(make_train, name))
    for name in modules
  }
  if side == BEST:
    for (name, size), case in DECODE.items():
      cases[case] = lambda name=name, size=size: decoder(name).beam(
        features[:size], BEAMS, WORDS
      )
  return side_by_side.Side(cases)


def table(summary: dict) -> str:
  """Markdown: median, min-max and the ratio to each PyTorch side."""
  rows = []
  for case, sides in summary.items():
    for side, times in sides.items():
      ratio = goal = ''
      if side != OURS:
        ratio = f'{sides[OURS]["median"] / times["median"]:.3f}'
        goal = f'{GOALS.get((case, side), GOAL):.3f}'
      rows.append([case, side, *seconds(times), ratio, goal])
  return side_by_side.table(
    [
      'CPU seconds of one core',
      'side',
      'median',
      'min-max',
      'ratio',
      'goal',
    ],
    rows,
  )


def self_critical_table(summary: dict, cores: int) -> str:
  """Markdown: the times of a step with and without rewards."""
  rows = []
  for case, sides in summary.items():
    times = sides[SELF_CRITICAL]
    ratio = goal = ''
    if case == SCST and ALONE in summary:
      alone = summary[ALONE][SELF_CRITICAL]
      ratio = f'{times["median"] / alone["median"]:.3f}'
      goal = f'{SCST_GOAL:.3f}'
    cpu = f'{times["cpu_median"]:.3f}'
    rows.append([case, *seconds(times), cpu, ratio, goal])
  return side_by_side.table(
    [
      f'wall seconds of {cores} cores',
      'median',
      'min-max',
      'CPU seconds, without other processes',
      'ratio to a step without rewards',
      'goal',
    ],
    rows,
  )


def seconds(times: dict) -> list[str]:
  """Formats the median, and min-max."""
  return [f'{times["median"]:.3f}', '{min:.3f}-{max:.3f}'.format(**times)]


def compare(args: argparse.Namespace):
  """Runs the available sides; prints the tables and writes the JSON."""
  cores = sorted(os.sched_getaffinity(0))
  figures = {}
  pythons = side_by_side.find_pythons(args, (BEST, PLAIN))
  groups = [[case] for case in BESIDE_TORCH]
  runs, compilations = run(args, pythons, cores[-1:], groups)
  if runs:
    figures['cpu_seconds'] = summary = side_by_side.summarize(runs)
    print(table(summary), end='\n\n')

  pythons, cores = {SELF_CRITICAL: sys.executable}, cores[-CORES:]
  runs, compiled = run(args, pythons, cores, [[SCST, ALONE, REWARDS]])
  if runs:
    figures['wall_seconds'] = summary = side_by_side.summarize(runs, 'wall')
    print(self_critical_table(summary, len(cores)))
  side_by_side.finish(args.output, figures, compilations + compiled)


def run(
  args: argparse.Namespace,
  pythons: dict[str, str],
  cores: list[int],
  groups: list[list[str]],
) -> tuple[dict, int]:
  """Measures the chosen cases of the groups; see `side_by_side.measure`."""
  groups = [[case for case in group if case in args.cases] for group in groups]
  if not any(groups):
    return {}, 0
  with side_by_side.workers(pythons, __file__, set(cores)) as workers:
    return side_by_side.measure(
      workers, groups, args.rounds, args.warmup, in_a_row=2
    )


def main():
  """Compares the sides, or runs as one of them."""
  args = side_by_side.parse(__doc__, [*BESIDE_TORCH, SCST, ALONE, REWARDS])
  if not args.side:
    compare(args)
  elif args.side == OURS:
    side_by_side.work(make_ours)
  elif args.side == SELF_CRITICAL:
    side_by_side.work(make_self_critical)
  else:
    side_by_side.work(lambda: make_torch(args.side))


if __name__ == '__main__':
  main()
