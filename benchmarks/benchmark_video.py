"""Times the tracker and online recognition, frame by frame, against PyTorch.

  python benchmarks/benchmark_video.py --output=runs/benchmark_video.json

The tracker of configs/otb_track.py:re3 on frames of 360 x 240 and of 1280 x 720
pixels, that of configs/occlusion_track.py on 64 x 64; the recogniser of
configs/gesture_stream.py, and that of configs/skeletons.py, made to read
forwards alone, on skeletons. One target or stream, frame by frame: from a frame
on the host to a box, or to probabilities, on the host. Frames are noise and
parameters random; the speed does not depend on them.

PyTorch has the same networks with the same parameters. Before the timing, the
outputs for the first frames must agree. The ratio is our time over PyTorch's.

Each side is a process, all on the same core; they run in alternation. A round
is two runs over some frames of each side; the second one counts. Times are
CPU times of the process: wall times depend on the other work of the machine. On
a quiet one both are the same, and frames per second are those of a stream.
Linux.

PyTorch needs an environment of its own; its modules are in torch_video.py.

  python3 -m venv .venv-torch && .venv-torch/bin/pip install torch
"""

import argparse
import dataclasses
import functools
import itertools
import math
import os
import random
from collections.abc import Callable
from typing import Any

import side_by_side

# PyTorch's side runs this file too, in an environment without the rest of the
# project: therefore each side imports its libraries in its own function.

OURS = side_by_side.OURS
TORCH = 'PyTorch'

REAL_TIME = 25  # Frames per second.
FRAMES = 50  # Of a run.
DISTINCT = 8  # Number of different frames, which repeat.
CHECKED = 20  # Frames for which the outputs of all sides must agree.
TOLERANCE = 1e-4  # Of a probability, or of a box relative to its size.


@dataclasses.dataclass(frozen=True)
class Video:
  """A case of the tracker: its config, the frame size and the first box."""

  config: str
  height: int
  width: int
  box: tuple[float, float, float, float]
  reduction: int = 1  # Factor by which frames exceed `longest_side`.


# Configs with an argument.
MODELS = {'otb_track': ('re3',)}
TRACK = {
  'tracker, 64 x 64': Video('occlusion_track', 64, 64, (20, 24, 14, 12)),
  'tracker, 360 x 240': Video('otb_track', 240, 360, (150, 90, 60, 50)),
  'tracker, 1280 x 720': Video(
    'otb_track', 720, 1280, (500, 300, 120, 100), reduction=2
  ),
}
GESTURES = 'gestures, 24 x 24'
SKELETONS = 'skeletons, 20 joints'
CASES = [*TRACK, GESTURES, SKELETONS]
JOINTS, SPINE = 20, 2
CLASSES = {GESTURES: 9, SKELETONS: 27}
# Gains of the last layers, so that boxes move and probabilities differ.
GAINS = {'offsets/kernel': 0.1, 'offsets/bias': 0.0, 'output/kernel': 3.0}


def noise(name: str, size: int) -> bytearray:
  """Random bytes, the same on each side."""
  return bytearray(random.Random(name).randbytes(size))


def spread(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
  """The mean of a parameter, and the maximum deviation from it."""
  if name.endswith('slope'):
    return 0.25, 0.0
  gain = GAINS.get(name, 1.0)
  if name.endswith('kernel'):
    return 0.0, gain * math.sqrt(3 / math.prod(shape[:-1]))
  return 0.0, 0.1 * gain


def make_ours() -> side_by_side.Side:
  """Creates our side."""
  import importlib

  import jax
  import numpy as np

  from video.classification import inference as classification_inference
  from video.classification import model as classification_model
  from video.tracking import inference as tracking_inference

  compilations = side_by_side.count_compilations()

  def frames(name, *shape):
    pixels = np.frombuffer(noise(name, math.prod(shape) * DISTINCT), np.uint8)
    return list(pixels.reshape(DISTINCT, *shape))

  def variables(init, *args):
    """Samples parameters with the shapes of those of `init`."""

    def sample(path, x):
      name = '/'.join(key.key for key in path[1:])
      mean, deviation = spread(name, x.shape)
      sampled = np.frombuffer(noise(name, x.size), np.uint8) / 127.5 - 1
      return (mean + deviation * sampled).astype(np.float32).reshape(x.shape)

    shapes = jax.eval_shape(init, jax.random.key(0), *args)
    return jax.tree_util.tree_map_with_path(sample, shapes)

  def load(name):
    module = importlib.import_module(f'configs.{name}')
    return module.get_config(*MODELS.get(name, ()))

  def tracker(name, video):
    config = load(video.config)
    network = tracking_inference.create(config)
    pair = np.zeros((1, 2, 8, 8, 3), np.uint8), np.ones((1, 2, 4), np.float32)
    live = tracking_inference.Tracker(
      network,
      variables(network.init, *pair),
      longest_side=config.longest_side,
    )
    first, *rest = frames(name, video.height, video.width, 3)
    state = live.start(first, np.array(video.box, np.float32))
    return functools.partial(follow, live.step, state, rest)

  def recogniser(name, config, example, frames):
    network = classification_model.create(config, CLASSES[name])
    batch = example[None, None], np.ones(1, np.int32)
    classifier = classification_inference.Classifier(
      config,
      map(str, range(CLASSES[name])),
      example.shape,
      network,
      variables(functools.partial(network.init, train=False), *batch),
    )
    return lambda count: classifier.online(
      itertools.islice(itertools.cycle(frames), count)
    )

  def gestures():
    images = frames(GESTURES, 24, 24, 1)
    config = load('gesture_stream')
    config.augmentation.flips = ()  # They depend on the names of the classes.
    return recogniser(GESTURES, config, images[0], images)

  def skeletons():
    config = load('skeletons')
    config.model.bidirectional = False
    features = [
      (pixels / 127.5 - 1).astype(np.float32)
      for pixels in frames(SKELETONS, 3 * JOINTS)
    ]
    return recogniser(SKELETONS, config, features[0], features)

  makers = {
    name: functools.partial(tracker, name, video)
    for name, video in TRACK.items()
  }
  makers |= {GESTURES: gestures, SKELETONS: skeletons}
  return side({name: make() for name, make in makers.items()}, compilations)


def make_torch() -> side_by_side.Side:
  """Creates the PyTorch side, eager."""
  import torch
  import torch_video

  torch.set_num_threads(1)
  torch.inference_mode().__enter__()

  def frames(name, *shape):
    pixels = noise(name, math.prod(shape) * DISTINCT)
    pixels = torch.frombuffer(pixels, dtype=torch.uint8)
    return list(pixels.reshape(DISTINCT, *shape))

  def take(name, shape):
    mean, deviation = spread(name, shape)
    sampled = noise(name, math.prod(shape))
    sampled = torch.frombuffer(sampled, dtype=torch.uint8).double() / 127.5 - 1
    return (mean + deviation * sampled).float().reshape(shape)

  trackers = {
    'occlusion_track': functools.partial(
      torch_video.Tracker,
      side=32,
      context=2.0,
      filters=(16, 32, 32),
      skips=(),
      dense=128,
      features=128,
      reset_every=0,
    ),
    'otb_track': functools.partial(
      torch_video.Tracker,
      side=64,
      context=2.0,
      filters=(16, 32, 48, 64),
      skips=(0, 8, 0, 0),
      dense=256,
      features=256,
      reset_every=32,
    ),
  }

  def tracker(name, video):
    module = trackers[video.config](reduction=video.reduction)
    module.load(take)
    first, *rest = frames(name, video.height, video.width, 3)
    begun = module.begin(first, video.box)
    return functools.partial(follow, module.step, begun, rest)

  def online(module, frames):
    module.load(take)
    return lambda count: (
      found.tolist()
      for found in module.online(
        itertools.islice(itertools.cycle(frames), count)
      )
    )

  runs = {name: tracker(name, video) for name, video in TRACK.items()}
  runs[GESTURES] = online(
    torch_video.GestureStream(24, (16, 32, 32), 96, 128, CLASSES[GESTURES]),
    frames(GESTURES, 24, 24, 1),
  )
  runs[SKELETONS] = online(
    torch_video.Skeletons(JOINTS, SPINE, 10.0, 96, 64, CLASSES[SKELETONS]),
    [
      (pixels.double() / 127.5 - 1).float()
      for pixels in frames(SKELETONS, 3 * JOINTS)
    ],
  )
  return side(runs)


def follow(step: Callable, state: Any, frames: list, count: int):
  """Yields the boxes in `count` frames; the state of the caller is kept."""
  for frame in itertools.islice(itertools.cycle(frames), count):
    state, box = step(state, frame)
    yield box


def side(runs: dict[str, Callable], compilations=lambda: 0):
  """Creates a side whose facts are its outputs for the first frames.

  Args:
    runs: case -> a function of a count that yields that many outputs.
    compilations: see `side_by_side.Side`.
  """

  def consume(run):
    for _ in run(FRAMES):
      pass

  return side_by_side.Side(
    {name: functools.partial(consume, run) for name, run in runs.items()},
    compilations,
    {
      name: [[float(x) for x in found] for found in run(CHECKED)]
      for name, run in runs.items()
    },
  )


def check(found: dict[str, dict[str, list[list[float]]]]):
  """Raises an error unless the outputs of all sides agree.

  Args:
    found: side -> case -> numbers of each frame.
  """
  for name, expected in found[OURS].items():
    for side, cases in found.items():
      worst = max(
        abs(x - y) / max(1.0, *map(abs, xs))
        for xs, ys in zip(expected, cases[name], strict=True)
        for x, y in zip(xs, ys, strict=True)
      )
      if not worst <= TOLERANCE:
        raise SystemExit(
          f'{name}: the outputs of {side} differ by {worst:.1e}, the tolerance '
          f'is {TOLERANCE:g}: make the networks agree first'
        )


def table(summary: dict) -> str:
  """Markdown: frames per second, and the ratio to PyTorch."""
  rows = []
  for case, sides in summary.items():
    for side, times in sides.items():
      median, minimum, maximum = (
        times[name] / FRAMES for name in ('median', 'min', 'max')
      )
      ratio = sides[OURS]['median'] / times['median']
      rows.append(
        [
          case,
          side,
          f'{1e3 * median:.3f}',
          f'{1e3 * minimum:.3f}-{1e3 * maximum:.3f}',
          f'{1 / median:.0f}',
          f'{1 / median / REAL_TIME:.0f}',
          f'{FRAMES / times["wall_median"]:.0f}',
          '' if side == OURS else f'{ratio:.3f}',
        ]
      )
    if TORCH not in sides:
      rows.append([case, TORCH, 'not installed', *[''] * 5])
  return side_by_side.table(
    [
      'frame by frame, CPU of one core',
      'side',
      'ms / frame',
      'min-max',
      'frames / s',
      f'of {REAL_TIME} / s',
      'frames / s of wall time',
      'ratio',
    ],
    rows,
  )


def compare(args: argparse.Namespace):
  """Runs the available sides; prints the table and writes the JSON."""
  pythons = side_by_side.find_pythons(args, [TORCH])
  core = sorted(os.sched_getaffinity(0))[-1]
  with side_by_side.workers(pythons, __file__, {core}) as workers:
    check({side: worker.facts for side, worker in workers.items()})
    runs, compilations = side_by_side.measure(
      workers,
      [[case] for case in args.cases],
      args.rounds,
      args.warmup,
      in_a_row=2,
    )
  summary = side_by_side.summarize(runs)
  print(table(summary))
  figures = {
    'frames_of_a_run': FRAMES,
    'cpu_seconds': summary,
    'frames_per_second': {
      case: {side: FRAMES / times['median'] for side, times in sides.items()}
      for case, sides in summary.items()
    },
  }
  side_by_side.finish(args.output, figures, compilations)


def main():
  """Compares the sides, or runs as one of them."""
  args = side_by_side.parse(__doc__, CASES)
  if not args.side:
    compare(args)
  elif args.side == OURS:
    side_by_side.work(make_ours)
  else:
    side_by_side.work(make_torch)


if __name__ == '__main__':
  main()
