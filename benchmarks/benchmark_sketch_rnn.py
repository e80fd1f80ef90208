"""Times Sketch-RNN: training steps, length buckets and sampling.

  python benchmarks/benchmark_sketch_rnn.py --output=runs/sketch_rnn.json

The work is that of configs/sketch_sheep.py: 100 drawings of 250 points, an LSTM
encoder of 256 units in each direction, a decoder of 512. A training step is
that of sketch_rnn.main, from a batch on the host to the updated state: loss,
gradient, clipping, Adam. It does not include preparing the batch. PyTorch does
the same with nn.LSTM, but without recurrent dropout, and starts from tensors.
Sampling generates 250 points with a decoder alone, of random weights.

Each side is a process; they run in alternation: first on two cores, in wall
time, then on one of them, in CPU time of the process, since wall times depend
on the other work of the machine. A round is two runs of each side. The second
one counts, since the system may reclaim the memory of a waiting process. Linux.

GFLOP/s are those of the published network, which multiplies z by the kernel at
every point. Ours multiplies once per drawing: "GFLOP computed" counts its
products, without those that are recomputed. PyTorch does as published. The peak
is that of products of 2048 x 2048 float32 matrices in JAX, which are timed in
the same alternation.

The published code (TensorFlow 1) does not run here: its figures were measured
elsewhere, on two quiet cores.

PyTorch needs an environment of its own; its module is in torch_sketch_rnn.py.

  python3 -m venv .venv-torch && .venv-torch/bin/pip install torch
"""

import argparse
import os

import side_by_side

# PyTorch's side runs this file too, in an environment without the rest of the
# project: therefore each side imports its libraries in its own function.

OURS = side_by_side.OURS
TORCH = 'PyTorch, nn.LSTM'

BATCH = 100
POINTS = 250
BUCKETS = (64, 96, 128, 160, 200)
MATRIX = 2048
PRODUCTS = 4

PEAK = 'peak'
# Training: changes of the config, GFLOP of the matrix products of the published
# network (three times those of the forward pass), and the width of the gates
# that read z. Then the seconds of a step of the published code.
LSTM = 'lstm'
DECODERS = {
  LSTM: ({}, 287.9, 2048),
  'layer_norm': ({'decoder': 'layer_norm'}, 287.9, 2048),
  'hyper': ({'decoder': 'hyper'}, 470.6, 3072),
  'lstm, decoder-only': ({'conditional': False}, 168.3, 0),
}
PUBLISHED_STEP = {
  LSTM: '1.7-2.0',
  'layer_norm': '2.15',
  'hyper': '3.66',
  'lstm, decoder-only': '1.08',
}
LATENT = 128
BUCKET = {size: f'lstm, bucket {size}' for size in BUCKETS} | {POINTS: LSTM}
SAMPLE = {1: 'sampling, batch 1', 100: 'sampling, batch 100'}
# Milliseconds per point on two quiet cores; it only samples with batch 1.
PUBLISHED_POINT = {1: '0.65', 100: ''}
# The clock that counts -> number of cores.
CLOCKS = {'wall': 2, 'cpu': 1}


def load(config):
  """Loads examples, the training split and a description of the drawings."""
  import dataclasses

  import numpy as np

  from sketch_rnn import examples as examples_lib

  try:
    examples, splits = examples_lib.load(config)
    source, name = splits['train'], config.name
  except FileNotFoundError:
    random = np.random.default_rng(0)
    # Lengths as of sheep: 125 points on average, 250 at most.
    lengths = random.normal(125, 50, 7400).round().clip(20, POINTS)
    lengths = lengths.astype(np.int32)
    records = []
    for i, length in enumerate(lengths):
      strokes = random.normal(size=(length, 3)).astype(np.float32)
      strokes[:, 2] = strokes[:, 2] > 1
      records.append({'id': str(i), 'strokes': strokes, 'category': 'none'})
    source = examples_lib.Selection(records, np.arange(len(records)), lengths)
    examples = examples_lib.Examples(
      scale=1.0, length=POINTS, categories=('none',)
    )
    name = f'SYNTHETIC, as {config.name} is not prepared'
  examples = dataclasses.replace(examples, length=POINTS)
  name = (
    f'{len(source)} drawings ({name}), of {source.lengths.mean():.0f} points '
    f'on average, maximum {source.lengths.max()}'
  )
  return examples, source, name


def make_ours() -> side_by_side.Side:
  """Creates our side."""
  # One device for each core, as docs/training.md recommends.
  cores = len(os.sched_getaffinity(0))
  os.environ.setdefault(
    'XLA_FLAGS', f'--xla_force_host_platform_device_count={cores}'
  )
  import collections

  import absl.logging
  import jax
  import jax.numpy as jnp
  import numpy as np

  from configs import sketch_sheep
  from sketch_rnn import examples as examples_lib
  from sketch_rnn import generation
  from sketch_rnn import inference
  from sketch_rnn import losses
  from sketch_rnn import main
  from sketch_rnn import model as model_lib
  from training import buckets
  from training import optimizers
  from training import parallel

  absl.logging.set_verbosity(absl.logging.ERROR)
  compilations = side_by_side.count_compilations()
  config = sketch_sheep.get_config()
  assert config.batch_size == BATCH and config.data.max_length == POINTS
  examples, source, description = load(config.data)
  example = examples.evaluation(source[0])
  key = parallel.replicate(jax.random.key(config.seed + 1))

  def create(changes):
    model = model_lib.SketchRNN(**{**config.model, **changes})
    return model, main.initial_variables(model, example, config.seed)

  def make_step(changes):
    model, variables = create(changes)
    optimizer, _ = optimizers.create(config.optimizer, config.num_steps)
    state = parallel.create_state(variables, optimizer)
    train_step = parallel.train_step(
      losses.create(model, config.loss, examples.length),
      losses.counts,
      optimizer,
    )

    def step(batch):
      nonlocal state
      state, update = train_step(state, parallel.shard(batch), key)
      jax.block_until_ready((state, update))

    return step

  # The first batch of each bucket, and the buckets of an epoch.
  batches = examples_lib.training_batches(
    source, examples, batch_size=BATCH, seed=config.seed, buckets=BUCKETS
  )
  order = buckets.Order(source.lengths, BUCKETS, POINTS, BATCH, config.seed)
  epoch = [order.batch(i)[1] for i in range(len(source) // BATCH)]
  batch = {size: batches[epoch.index(size)] for size in sorted(set(epoch))}
  batch[POINTS] = examples_lib.training_batches(
    source, examples, batch_size=BATCH, seed=config.seed
  )[0]

  random = np.random.default_rng(0)
  matrix = jnp.asarray(random.random((MATRIX, MATRIX), np.float32))
  multiply = jax.jit(jnp.matmul)

  def products():
    for _ in range(PRODUCTS):
      multiply(matrix, matrix).block_until_ready()

  steps = {name: make_step(case[0]) for name, case in DECODERS.items()}
  cases = {PEAK: products}
  for name, step in steps.items():
    cases[name] = lambda step=step: step(batch[POINTS])
  for size in batch:
    if size != POINTS:
      cases[BUCKET[size]] = lambda size=size: steps[LSTM](batch[size])

  # No drawing ends: all of the 250 points are sampled.
  model, variables = create({'conditional': False})
  bias = variables['params']['output']['bias']
  variables['params']['output']['bias'] = bias.at[2].set(-1e9)
  sketcher = inference.Sketcher(model, variables, examples)
  sampling = generation.Sampling(temperature=0.5)

  def sample(count):
    drawings = sketcher.sample(count, key=jax.random.key(2), sampling=sampling)
    assert [len(drawing) for drawing in drawings] == [POINTS] * count

  for count, name in SAMPLE.items():
    cases[name] = lambda count=count: sample(count)
  facts = {
    'devices': jax.local_device_count(),
    'drawings': description,
    'batches': collections.Counter(BUCKET[size] for size in sorted(epoch)),
  }
  return side_by_side.Side(cases, compilations, facts)


def make_torch() -> side_by_side.Side:
  """Creates the PyTorch side, at its best."""
  import torch
  import torch_sketch_rnn

  torch.set_num_threads(len(os.sched_getaffinity(0)))
  torch.manual_seed(0)
  module = torch_sketch_rnn.SketchRNN()
  adam = torch.optim.Adam(module.parameters(), 1e-3)
  lengths = torch.randint(40, POINTS, (BATCH,))
  real = torch.arange(POINTS + 1)[None] <= lengths[:, None]
  strokes = torch.zeros(BATCH, POINTS + 1, 5)
  strokes[..., :2] = torch.randn(BATCH, POINTS + 1, 2) * real[..., None]
  strokes[..., 2], strokes[..., 4] = real, ~real
  strokes[:, 0] = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0])

  def train():
    adam.zero_grad(set_to_none=True)
    module(strokes).backward()
    torch.nn.utils.clip_grad_value_(module.parameters(), 1.0)
    adam.step()

  return side_by_side.Side({LSTM: train})


def gigaflops(name: str) -> tuple[float, float]:
  """GFLOP of a training step: of the published network, and of ours."""
  _, published, width = DECODERS[name]
  # Once per drawing instead of at every point; forwards, and twice backwards.
  saved = 3 * 2 * BATCH * (POINTS - 1) * LATENT * width / 1e9
  return published, published - saved


def peak(summary: dict) -> float:
  """Maximum GFLOP/s of our matrix products."""
  return PRODUCTS * 2 * MATRIX**3 / 1e9 / summary[PEAK][OURS]['min']


def training_table(summary: dict, clock: str, cores: int) -> str:
  """Markdown: seconds of a step, and GFLOP/s relative to the peak."""
  rows = []
  for name in DECODERS:
    nominal, computed = gigaflops(name)
    for side, times in summary[name].items():
      speed = nominal / times['median']
      row = [
        name,
        side,
        f'{times["median"]:.3f}',
        '{min:.3f}-{max:.3f}'.format(**times),
        f'{speed:.0f}',
        f'{speed / peak(summary):.0%}',
      ]
      if side == OURS:
        speed = computed / times['median']
        row += [f'{computed:.0f}', f'{speed / peak(summary):.0%}', '']
      else:
        ratio = summary[name][OURS]['median'] / times['median']
        row += [f'{nominal:.0f}', row[-1], f'{ratio:.3f}']
      rows.append(row)
      if clock == 'wall':
        row.append(PUBLISHED_STEP[name] if side == OURS else '')
  head = [
    f'training step, {described(clock, cores)}',
    'side',
    'median',
    'min-max',
    'GFLOP/s',
    'of the peak',
    'GFLOP computed',
    'of the peak',
    'ratio',
  ]
  if clock == 'wall':
    head.append('published code, measured elsewhere')
  return side_by_side.table(head, rows)


def described(clock: str, cores: int) -> str:
  """The unit of the seconds of a table: the clock and the cores."""
  where = 'one core' if cores == 1 else f'{cores} cores'
  return {'wall': 'wall', 'cpu': 'CPU'}[clock] + f' seconds of {where}'


def drawings_per_second(summary: dict, batches: dict[str, int]) -> list[float]:
  """Training speed at full length, and of an epoch in length buckets."""
  full = summary[LSTM][OURS]['median']
  seconds = sum(
    count * summary[name][OURS]['median'] for name, count in batches.items()
  )
  return [BATCH / full, BATCH * sum(batches.values()) / seconds]


def buckets_table(
  summary: dict, batches: dict[str, int], clock: str, cores: int
) -> str:
  """Markdown: drawings per second, at full length and in buckets."""
  full, bucketed = drawings_per_second(summary, batches)
  return side_by_side.table(
    [f'training, {described(clock, cores)}', 'drawings / s', 'ratio'],
    [
      [f'lstm, all of {POINTS} points', f'{full:.1f}', ''],
      [
        f'lstm, buckets {", ".join(map(str, (*BUCKETS, POINTS)))}',
        f'{bucketed:.1f}',
        f'{bucketed / full:.2f}',
      ],
    ],
  )


def sampling_table(summary: dict, clock: str, cores: int) -> str:
  """Markdown: milliseconds per point of each drawing, when sampling."""
  rows = []
  for count, name in SAMPLE.items():
    times = summary[name][OURS]
    row = [
      str(count),
      f'{1e3 * times["median"] / POINTS:.3f}',
      f'{1e3 * times["min"] / POINTS:.3f}-{1e3 * times["max"] / POINTS:.3f}',
      f'{count / times["median"]:.1f}',
    ]
    rows.append(row)
    if clock == 'wall':
      row.append(PUBLISHED_POINT[count])
  head = [
    f'sampling {POINTS} points, {described(clock, cores)}: batch',
    'ms / point of each drawing',
    'min-max',
    'drawings / s',
  ]
  if clock == 'wall':
    head.append('published code, measured elsewhere, ms / point')
  return side_by_side.table(head, rows)


def compare(args: argparse.Namespace):
  """Runs the available sides; prints the tables and writes the JSON."""
  pythons = side_by_side.find_pythons(args, [TORCH])
  figures, compilations = {}, 0
  for clock, count in CLOCKS.items():
    cores = set(sorted(os.sched_getaffinity(0))[-count:])
    with side_by_side.workers(pythons, __file__, cores) as workers:
      cases, facts = workers[OURS].cases, workers[OURS].facts
      runs, compiled = side_by_side.measure(
        workers, [cases], args.rounds, args.warmup, in_a_row=2
      )
    compilations += compiled
    summary = side_by_side.summarize(runs, clock)
    batches = facts['batches']
    full, bucketed = drawings_per_second(summary, batches)
    if not figures:
      sizes = {name: size for size, name in BUCKET.items()}
      print(
        f'{facts["drawings"]}. Batches of an epoch in buckets: '
        + ', '.join(f'{n} of {sizes[name]}' for name, n in batches.items())
      )
    print(
      f'\nPeak, {described(clock, len(cores))}: {peak(summary):.0f} GFLOP/s. '
      f'Devices that JAX sees: {facts["devices"]}.\n'
    )
    print(training_table(summary, clock, len(cores)), end='\n\n')
    print(buckets_table(summary, batches, clock, len(cores)), end='\n\n')
    print(sampling_table(summary, clock, len(cores)))
    figures[clock] = {
      'cores': len(cores),
      'peak_gigaflops_per_second': peak(summary),
      'seconds': summary,
      'drawings_per_second': {'full_length': full, 'buckets': bucketed},
      **facts,
    }
  figures['gigaflops'] = {
    name: dict(zip(('published', 'done'), gigaflops(name), strict=True))
    for name in DECODERS
  }
  side_by_side.finish(args.output, figures, compilations)


def main():
  """Compares the sides, or runs as one of them."""
  args = side_by_side.parse(__doc__)
  if not args.side:
    compare(args)
  elif args.side == OURS:
    side_by_side.work(make_ours)
  else:
    side_by_side.work(make_torch)


if __name__ == '__main__':
  main()
