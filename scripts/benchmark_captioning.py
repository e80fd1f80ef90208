"""Times soft attention: a training step and beam search, beside PyTorch.

  python scripts/benchmark_captioning.py --output=runs/benchmark.json

The work: Show, Attend and Tell on cached 14x14x2048 grids, 512 units in the
LSTM, the attention and the embedding, 9,490 words; training on 32 captions of
20 words (loss, gradient, clipping, Adam), and 5 beams for 20 words. Ours is
what the product runs, from float16 grids on the host to the updated state;
PyTorch starts from float32 tensors.

Each side is a process on one core, the same, and they take turns step by step.
A turn is two runs, of which the second counts: of a process that waits the
machine may take the memory back. What counts is the CPU time of the process: on
a machine that does other work too, wall time tells little. Linux.

PyTorch needs an environment of its own, and the yardstick modules:

  python3 -m venv .venv-torch && .venv-torch/bin/pip install torch
"""

import argparse
import os
import sys

import side_by_side

# PyTorch's side runs this file too, in an environment without the rest of the
# product: therefore each side imports its libraries in its own function.

YARDSTICK = 'torch_captioners'

BATCH = 32
LOCATIONS = 14 * 14
CHANNELS = 2048
WORDS = 20
VOCABULARY = 9490
UNITS = 512
BEAMS = 5

TRAIN = 'train step, batch 32'
DECODE = {1: 'beam 5, one picture', 32: 'beam 5, 32 pictures'}

# The sides, and the share of a side's time that ours may take at most.
OURS = side_by_side.OURS
BEST = 'PyTorch at its best'
TUTORIAL = 'PyTorch as in tutorials'
GOALS = {
  (TRAIN, BEST): 0.8,
  (TRAIN, TUTORIAL): 1 / 7,
  (DECODE[1], BEST): 0.5,
  (DECODE[32], BEST): 0.5,
}


def make_ours() -> side_by_side.Side:
  """The product."""
  import jax
  import ml_collections
  import numpy as np

  from captioning import inference
  from captioning import main
  from captioning import model
  from captioning import vocabulary
  from training import optimizers
  from training import parallel

  compilations = side_by_side.count_compilations()
  config = ml_collections.ConfigDict()
  config.model = 'show_attend_tell'
  config.dtype = 'float32'
  config.train_statistics = False
  config.decoder = dict(features=UNITS, embedding=UNITS, attention=UNITS)
  config.loss = dict(
    per='token', attention_penalty=1.0, penalty_reduction='mean'
  )
  config.optimizer = dict(
    learning_rate=4e-4,
    warmup_steps=0,
    schedule='constant',
    b1=0.9,
    b2=0.999,
    epsilon_hat=False,
    weight_decay=0.0,
    clip_norm=0.0,
    clip_value=5.0,
  )
  config.decoding = dict(beam_size=BEAMS, length_penalty=0.0, max_length=WORDS)

  random = np.random.default_rng(0)
  shape = (BATCH, LOCATIONS, CHANNELS)
  grids = random.random(shape, np.float32).astype(np.float16)
  first_word = max(vocabulary.EOS_ID, vocabulary.UNK_ID) + 1
  tokens = random.integers(first_word, VOCABULARY, (BATCH, 1, WORDS), np.int32)
  batch = {'picture': grids, 'tokens': tokens}

  captioner = model.create(config, VOCABULARY, with_encoder=False)
  variables = jax.device_get(
    jax.jit(captioner.init, static_argnames='train')(
      jax.random.key(0), grids[:1], tokens[:1], train=False
    )
  )

  optimizer, _ = optimizers.create(config.optimizer, num_steps=1)
  train_step = parallel.train_step(
    main.make_loss(captioner, config.loss), main.counts, optimizer
  )
  key = parallel.replicate(jax.random.key(1))
  state = parallel.create_state(variables, optimizer)

  def train():
    nonlocal state
    state, update = train_step(state, parallel.shard(batch), key)
    jax.block_until_ready((state, update))

  # Nobody says EOS: all of the 20 steps are taken, as on the other side.
  bias = variables['params']['decoder']['output']['bias'].copy()
  bias[vocabulary.EOS_ID] = -1e9
  variables['params']['decoder']['output']['bias'] = bias
  variables = parallel.replicate(variables)
  describe_step = inference.describe_step(captioner, config.decoding)

  def describe(size):
    found, _ = describe_step(
      variables, parallel.shard({'picture': grids[:size]})
    )
    assert found.shape == (size, WORDS) and (found >= first_word).all()

  cases = {TRAIN: train}
  for size, name in DECODE.items():
    cases[name] = lambda size=size: describe(size)
  return side_by_side.Side(cases, compilations)


def make_torch(yardsticks: str, hoist: bool) -> side_by_side.Side:
  """PyTorch; `hoist`: at its best, else as tutorials write it."""
  sys.path.insert(0, yardsticks)
  import torch
  import torch_captioners

  torch.set_num_threads(1)
  torch.manual_seed(0)
  module = torch_captioners.SoftAttNaive(hoist=hoist, late_vocab=hoist)
  adam = torch.optim.Adam(module.parameters(), 4e-4)
  grids = torch.rand(BATCH, LOCATIONS, CHANNELS)
  # BOS first, which is not predicted.
  tokens = torch.randint(0, VOCABULARY - 3, (BATCH, WORDS + 1))

  def train():
    adam.zero_grad(set_to_none=True)
    logits, attention = module(grids, tokens)
    loss = torch.nn.functional.cross_entropy(
      logits.reshape(-1, VOCABULARY), tokens[:, 1:].reshape(-1)
    )
    loss = loss + ((1 - attention.sum(1)) ** 2).mean()
    loss.backward()
    torch.nn.utils.clip_grad_value_(module.parameters(), 5.0)
    adam.step()

  cases = {TRAIN: train}
  if hoist:
    decoder = torch_captioners.SoftAttNaive(hoist=True, late_vocab=True).eval()
    for size, name in DECODE.items():
      cases[name] = lambda size=size: decoder.beam(grids[:size], BEAMS, WORDS)
  return side_by_side.Side(cases)


def table(summary: dict) -> str:
  """Markdown: median (least-most), and the ratio to each PyTorch."""
  rows = []
  for case, sides in summary.items():
    for side, times in sides.items():
      ratio = goal = ''
      if side != OURS:
        ratio = f'{sides[OURS]["median"] / times["median"]:.3f}'
        goal = f'{GOALS[case, side]:.3f}'
      median, spread = f'{times["median"]:.3f}', '{min:.3f}-{max:.3f}'
      rows.append([case, side, median, spread.format(**times), ratio, goal])
  return side_by_side.table(
    [
      'CPU seconds of one core',
      'side',
      'median',
      'min-max',
      'ours / it',
      'goal',
    ],
    rows,
  )


def compare(args: argparse.Namespace):
  """Runs all sides that are there; prints the table and writes the JSON."""
  pythons = side_by_side.find_pythons(args, YARDSTICK, (BEST, TUTORIAL))
  core = max(os.sched_getaffinity(0))
  with side_by_side.workers(
    pythons, __file__, args.yardsticks, {core}
  ) as workers:
    groups = [[case] for case in (TRAIN, *DECODE.values())]
    runs, compilations = side_by_side.measure(
      workers, groups, args.rounds, args.warmup, in_a_row=2
    )
  summary = side_by_side.summarize(runs)
  print(table(summary))
  side_by_side.finish(args.output, {'cpu_seconds': summary}, compilations)


def main():
  """Compares, or is one of the sides."""
  args = side_by_side.parse(__doc__, YARDSTICK)
  if not args.side:
    compare(args)
  elif args.side == OURS:
    side_by_side.work(make_ours)
  else:
    side_by_side.work(
      lambda: make_torch(str(args.yardsticks), hoist=args.side == BEST)
    )


if __name__ == '__main__':
  main()
