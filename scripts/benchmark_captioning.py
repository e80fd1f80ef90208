"""Times soft attention: a training step and beam search, beside PyTorch.

  python scripts/benchmark_captioning.py --output=runs/benchmark.json

The work: Show, Attend and Tell on cached 14x14x2048 grids, 512 units in the
LSTM, the attention and the embedding, 9,490 words; training on 32 captions of
20 words (loss, gradient, clipping, Adam), and 5 beams for 20 words. Ours is
what the product runs, from float16 grids on the host to the updated state;
PyTorch starts from float32 tensors.

Each side is a process on one core, the same, and they take turns step by step.
What counts is the CPU time of the process: on a machine that does other work
too, wall time tells little. Linux.

PyTorch needs an environment of its own, and the yardstick modules:

  python3 -m venv .venv-torch && .venv-torch/bin/pip install torch
"""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

# PyTorch's side runs this file too, in an environment without the rest of the
# product: therefore each side imports its libraries in its own function.

ROOT = pathlib.Path(__file__).resolve().parent.parent

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
OURS = 'ours'
BEST = 'PyTorch at its best'
TUTORIAL = 'PyTorch as in tutorials'
GOALS = {
  (TRAIN, BEST): 0.8,
  (TRAIN, TUTORIAL): 1 / 7,
  (DECODE[1], BEST): 0.5,
  (DECODE[32], BEST): 0.5,
}


def make_ours() -> tuple[dict[str, Callable], Callable[[], int]]:
  """Our cases, and how often anything was compiled so far."""
  import jax
  import ml_collections
  import numpy as np

  from captioning import inference
  from captioning import main
  from captioning import model
  from captioning import vocabulary
  from training import optimizers
  from training import parallel

  compilations = []

  def listen(event, duration, **kwargs):
    del kwargs
    if event == '/jax/core/compile/backend_compile_duration':
      compilations.append(duration)

  jax.monitoring.register_event_duration_secs_listener(listen)

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
  return cases, lambda: len(compilations)


def make_torch(
  yardsticks: str, hoist: bool
) -> tuple[dict[str, Callable], Callable[[], int]]:
  """PyTorch's cases; `hoist`: at its best, else as tutorials write it."""
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
  return cases, lambda: 0


def work(side: str, yardsticks: str):
  """Answers the names of cases on stdin with what one run of them took."""
  # Libraries print: only answers may go to the real stdout.
  answers = sys.stdout
  with contextlib.redirect_stdout(sys.stderr):
    if side == OURS:
      cases, count = make_ours()
    else:
      cases, count = make_torch(yardsticks, hoist=side == BEST)
    print(json.dumps(list(cases)), file=answers, flush=True)
    for line in sys.stdin:
      run = cases[line.strip()]
      before = count()
      wall, cpu = time.perf_counter(), time.process_time()
      run()
      answer = {
        'cpu': time.process_time() - cpu,
        'wall': time.perf_counter() - wall,
        'compilations': count() - before,
      }
      print(json.dumps(answer), file=answers, flush=True)


class Worker:
  """One side, alive from the first turn to the last."""

  def __init__(self, python: str, side: str, yardsticks: str, core: int):
    """Starts it on one core: libraries make one thread for each they see."""
    self._process = subprocess.Popen(
      [python, __file__, f'--side={side}', f'--yardsticks={yardsticks}'],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)},
      preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    self.cases = self._answer()

  def _answer(self):
    line = self._process.stdout.readline()
    if not line:
      raise RuntimeError('a worker failed; its own message is above')
    return json.loads(line)

  def run(self, case: str) -> dict:
    """CPU and wall seconds, and compilations, of one run."""
    print(case, file=self._process.stdin, flush=True)
    return self._answer()

  def close(self):
    """Ends the process."""
    self._process.stdin.close()
    self._process.wait()


def measure(
  workers: dict[str, Worker], rounds: int, warmup: int
) -> tuple[dict, int]:
  """Lets the sides take turns: {case: {side: runs}}, compilations of ours."""
  runs, compilations = {}, 0
  for case in [TRAIN, *DECODE.values()]:
    sides = {s: w for s, w in workers.items() if case in w.cases}
    for turn in range(warmup + rounds):
      for side, worker in sides.items():
        run = worker.run(case)
        if turn:
          compilations += run['compilations']
        if turn >= warmup:
          runs.setdefault(case, {}).setdefault(side, []).append(run)
  return runs, compilations


def summarize(runs: list[dict]) -> dict[str, float]:
  """Median, least and most CPU seconds."""
  cpu = [run['cpu'] for run in runs]
  return {
    'median': statistics.median(cpu),
    'min': min(cpu),
    'max': max(cpu),
    'wall_median': statistics.median(run['wall'] for run in runs),
    'runs': len(cpu),
  }


def table(summary: dict) -> str:
  """Markdown: median (least-most), and the ratio to each PyTorch."""
  rows = [
    '| CPU seconds of one core | side | median | min-max | ours / it | goal |',
    '|---|---|---|---|---|---|',
  ]
  for case, sides in summary.items():
    for side, times in sides.items():
      ratio = goal = ''
      if side != OURS:
        ratio = f'{sides[OURS]["median"] / times["median"]:.3f}'
        goal = f'{GOALS[case, side]:.3f}'
      rows.append(
        f'| {case} | {side} | {times["median"]:.3f} | '
        f'{times["min"]:.3f}-{times["max"]:.3f} | {ratio} | {goal} |'
      )
  return '\n'.join(rows)


def compare(args: argparse.Namespace):
  """Runs all sides that are there; prints the table and writes the JSON."""
  pythons = {OURS: sys.executable}
  if not pathlib.Path(args.torch_python).exists():
    print(
      f'Ours alone: there is no PyTorch at {args.torch_python}. To compare:\n'
      '  python3 -m venv .venv-torch && .venv-torch/bin/pip install torch\n'
      'or pass --torch_python=PATH.\n'
    )
  elif not (args.yardsticks / 'torch_captioners.py').exists():
    print(
      f'Ours alone: there is no torch_captioners.py in {args.yardsticks}. '
      'Pass --yardsticks=DIR.\n'
    )
  else:
    pythons[BEST] = pythons[TUTORIAL] = args.torch_python

  core = max(os.sched_getaffinity(0))
  with contextlib.ExitStack() as stack:
    workers = {}
    for side, python in pythons.items():
      workers[side] = Worker(python, side, args.yardsticks, core)
      stack.callback(workers[side].close)
    runs, compilations = measure(workers, args.rounds, args.warmup)

  summary = {
    case: {side: summarize(times) for side, times in sides.items()}
    for case, sides in runs.items()
  }
  print(table(summary))
  print(f'\nCompilations after the first step: {compilations}')
  print(f'Load of the machine: {os.getloadavg()[0]:.1f}')
  if args.output:
    args.output.parent.mkdir(parents=True, exist_ok=True)
    result = {
      'cpu_seconds': summary,
      'compilations_after_first': compilations,
      'machine': platform.machine(),
      'load': os.getloadavg(),
    }
    args.output.write_text(json.dumps(result, indent=2) + '\n')
  if compilations:
    raise SystemExit('Something was compiled again: see above.')


def main():
  """Reads the command line."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  default = os.environ.get('TORCH_PYTHON', ROOT / '.venv-torch/bin/python')
  parser.add_argument('--torch_python', default=default, metavar='PATH')
  parser.add_argument(
    '--yardsticks',
    type=pathlib.Path,
    default=ROOT.parent / 'shared' / 'bench',
    metavar='DIR',
    help='where torch_captioners.py is',
  )
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--warmup', type=int, default=2)
  parser.add_argument('--output', type=pathlib.Path, metavar='F.json')
  parser.add_argument('--side', help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.side:
    work(args.side, str(args.yardsticks))
  else:
    compare(args)


if __name__ == '__main__':
  main()
