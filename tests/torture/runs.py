"""The five mains in small, as runs that are started, stopped and compared."""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import captioners
import commands
import jax
import numpy as np
import test_captioning_main
import test_sketch_rnn_main
import test_video_caption
import test_video_classify
import test_video_track

from sketch_rnn import builders
from training import checkpoints
from training import locks
from video import data as video_data
from vision import pretrained
from vision import resnet

_ENCODER = 'encoder.safetensors'


@dataclasses.dataclass(frozen=True)
class Main:
  """A main in small.

  Attributes:
    module: of the command.
    config: of the experiment.
    fields: of the config that differ.
    prepare: writes the data sets of the run into a directory.
  """

  module: str
  config: str
  fields: Mapping[str, Any]
  prepare: Callable[[pathlib.Path], None]

  @property
  def num_steps(self) -> int:
    return self.fields['num_steps']

  @property
  def eval_every(self) -> int:
    return self.fields['eval_every']


def _prepare_images(directory):
  shell = commands.Shell(directory)
  captioners.prepare_few(shell, train=40, validation=9, test=7)


def _save_encoder(directory, depth, **fields):
  """Writes a ResNet with random parameters."""
  variables = resnet.ResNet(depth, **fields).init(
    jax.random.key(3), np.zeros((1, 32, 32, 3), np.float32), train=False
  )
  pretrained.save(directory / _ENCODER, jax.device_get(variables))


def _prepare_cached_images(directory):
  _prepare_images(directory)
  _save_encoder(directory, 18, width=2, stem='whole')


def _prepare_sketches(directory):
  sketches = list(test_sketch_rnn_main.sketches('sheep', 0))
  builders.prepare('sheep', sketches, directory / 'data')


def _prepare_skeletons(directory):
  video_data.prepare(
    'skeletons/few', test_video_classify.few_arms(), directory / 'data'
  )


def _prepare_clips(directory):
  test_video_caption.prepare_few(directory / 'data')


def _prepare_cached_clips(directory):
  _prepare_clips(directory)
  _save_encoder(directory, 10)  # The config has no other field of it.


def _prepare_nothing(directory):
  """The run does it itself, or needs none."""
  (directory / 'data').mkdir()


# More steps where a run is over at once.
_INTERVALS = {
  'num_steps': 36,
  'eval_every': 12,
  'checkpoint_every': 5,
  'log_every': 2,
}
_CACHED = {
  'cache_features': True,
  'encoder_weights': _ENCODER,  # In the directory of the data sets.
}
MAINS = {
  'captioning.main': Main(
    'captioning.main',
    'configs/scenes.py',
    {**test_captioning_main.SMALL, 'log_every': 2},
    _prepare_images,
  ),
  'sketch_rnn.main': Main(
    'sketch_rnn.main',
    'configs/sketch_sheep.py',
    {**test_sketch_rnn_main.SMALL, 'log_every': 2},
    _prepare_sketches,
  ),
  'video.classify': Main(
    'video.classify',
    'configs/skeletons.py:utd_mhad/ours/held_out',
    {**test_video_classify.SMALL, **_INTERVALS},
    _prepare_skeletons,
  ),
  'video.caption': Main(
    'video.caption',
    'configs/event_captions.py',
    {**test_video_caption.SMALL, **_INTERVALS},
    _prepare_clips,
  ),
  'video.track': Main(
    'video.track',
    'configs/otb_track.py:re3',
    {**test_video_track.SMALL, **test_video_track.SEQUENCES, **_INTERVALS},
    _prepare_nothing,
  ),
  # These cache features, and the last one prepares its data set.
  'captioning.main.cached': Main(
    'captioning.main',
    'configs/scenes.py',
    {
      **test_captioning_main.SMALL,
      **_CACHED,
      'frozen': ('encoder/',),
      'log_every': 2,
      'train_batch_stats': False,
      'encoder.depth': 18,
      'encoder.width': 2,
      'encoder.stem': 'whole',
      'encoder.strides': (1, 2, 2, 2),
    },
    _prepare_cached_images,
  ),
  'video.caption.cached': Main(
    'video.caption',
    'configs/msvd_s2vt.py',
    {
      **_INTERVALS,
      **_CACHED,
      'data.name': 'captioned_clips/few',
      'data.num_frames': 5,
      'data.resize': 16,
      'data.crop': 16,
      'data.vocabulary_threshold': 1,
      'encoder.depth': 10,
      'decoder.features': 8,
      'decoder.embedding': 8,
      'batch_size': 4,
      'eval_batch_size': 4,
      'best_metric': 'CIDEr',
    },
    _prepare_cached_clips,
  ),
  'sketch_rnn.main.kanji': Main(
    'sketch_rnn.main',
    'configs/sketch_kanji.py',
    {
      **test_sketch_rnn_main.SMALL,
      'buckets': (),
      'log_every': 2,
      'eval_every': 30,
      'quality.num_steps': 2,
    },
    _prepare_nothing,
  ),
}


@dataclasses.dataclass
class Run:
  """A run of a main in a directory of its own, with its own data sets."""

  name: str
  directory: pathlib.Path

  @property
  def main(self) -> Main:
    return MAINS[self.name]

  @property
  def workdir(self) -> pathlib.Path:
    return self.directory / 'run'

  @property
  def data_dir(self) -> pathlib.Path:
    return self.directory / 'data'

  def start(
    self,
    *flags: str,
    wrapped_in: Sequence[str] = (),
    devices: int = 2,
    workdir: pathlib.Path | None = None,
  ) -> commands.Command:
    """Starts the run, or goes on with it.

    Args:
      *flags: others of the command.
      wrapped_in: a command that runs this one.
      devices: number of virtual devices.
      workdir: another workdir.
    """
    fields = {**self.main.fields}
    if 'encoder_weights' in fields:
      fields['encoder_weights'] = self.directory / _ENCODER
    fields['data.data_dir'] = self.data_dir
    if self.name == 'video.track':  # It draws its clips.
      del fields['data.data_dir']
    number = len(list(self.directory.glob('output-*')))
    output = self.directory / f'output-{number}.txt'
    with output.open('w') as file:
      process = subprocess.Popen(
        [
          *wrapped_in,
          *(sys.executable, '-m', self.main.module),
          f'--workdir={workdir or self.workdir}',
          f'--config={self.main.config}',
          *(f'--config.{name}={value}' for name, value in fields.items()),
          *flags,
        ],
        cwd=commands.ROOT,
        env={
          **os.environ,
          'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
          # No Java: METEOR takes longer than all else.
          'PATH': '/nowhere',
        },
        stdout=file,
        stderr=subprocess.STDOUT,
      )
    return commands.Command(process, output)


def create(
  name: str, directory: pathlib.Path, shared: pathlib.Path
) -> tuple[Run, Run]:
  """A run that has not begun, and one of the same that was left alone.

  The first case that asks for the latter makes it; the others wait.
  """
  kept = shared / name
  reference = Run(name, kept / 'reference')
  with locks.waiting(kept):
    if not (reference.directory / 'complete').exists():
      for path in (kept / 'data', reference.directory):
        shutil.rmtree(path, ignore_errors=True)
      (kept / 'data').mkdir()
      reference.main.prepare(kept / 'data')
      shutil.copytree(kept / 'data', reference.directory)
      reference.start().finish()
      (reference.directory / 'complete').touch()
  shutil.copytree(kept / 'data', directory, dirs_exist_ok=True)
  return Run(name, directory), reference


def _results(workdir):
  entries = json.loads((workdir / 'results.json').read_text())
  entries = {k: commands.without_times(v) for k, v in entries.items()}
  for entry in entries.values():
    del entry['config']  # The number of processes, and the path of the data.
  files = {
    path.name: json.loads(path.read_text())
    for path in (workdir / 'results').glob('*.json')
  }
  return entries, files


def difference(run: Run, reference: Run) -> str:
  """The first difference of two runs that have ended, or ''."""
  try:
    commands.assert_same_training(run.workdir, reference.workdir)
    assert _results(run.workdir) == _results(reference.workdir)
    assert _cached(run) == _cached(reference)
  except (AssertionError, OSError, ValueError) as error:
    return f'{type(error).__name__}: {error}'[:1000]
  return ''


def _cached(run):
  """The contents of the features, without what a killed writer has left."""
  return {
    path.relative_to(run.data_dir): path.read_bytes()
    for path in run.data_dir.glob('**/features-*/**/features*')
    if path.is_file() and path.suffix != '.tmp'
  }


def damage(workdir: pathlib.Path) -> str:
  """The lines of the checkpoints that are not whole, or ''."""
  try:
    lines, good = checkpoints.verify(workdir)
  except FileNotFoundError:
    return ''
  return '' if good else '\n'.join(lines)


# Moments.

MOMENTS = ('step', 'save', 'evaluation', 'caching', 'preparation')
# Seconds after the moment has begun, at most.
_DELAYS = {
  'step': 0.2,
  'save': 0.02,
  'evaluation': 1.0,
  'caching': 0.3,
  'preparation': 1.0,
}


def _last(run, kind):
  return max((x['step'] for x in commands.lines(run.workdir, kind)), default=0)


def _caches(run):
  return {*run.data_dir.glob('**/features-*/**/*.tmp')}


def _preparations(run):
  return {*run.data_dir.glob('**/*incomplete*')}


def condition(
  run: Run, moment: str, rng: np.random.Generator
) -> Callable[[], bool]:
  """Whether a random moment of a kind has come, of a run not yet started."""
  before = _last(run, 'train/')
  main = run.main
  if moment == 'caching':
    known = _caches(run)
    return lambda: _caches(run) - known
  if moment == 'preparation':
    known = _preparations(run)
    return lambda: _preparations(run) - known
  if moment == 'save':
    last = max(before + 1, main.num_steps - main.fields['checkpoint_every'])
    return commands.saving(run.workdir, int(rng.integers(before, last) + 1))
  steps = [step for step in range(1, main.num_steps) if step > before]
  if moment == 'evaluation':
    steps = range(main.eval_every, main.num_steps + 1, main.eval_every)
    steps = [step for step in steps if step > before]
  step = int(rng.choice(steps or [main.num_steps]))
  return commands.reached(run.workdir, step)


def send_at(
  run: Run,
  command: commands.Command,
  happened: Callable[[], bool],
  moment: str,
  number: signal.Signals,
  rng: np.random.Generator,
) -> bool:
  """Sends a signal at a moment; False if the command ended before."""
  delay = rng.uniform(0, _DELAYS[moment])
  deadline = time.monotonic() + commands.PATIENCE
  while not happened():
    if command.process.poll() is not None:
      return False
    if time.monotonic() > deadline:
      raise TimeoutError(f'{run.name}: {moment} never came')
    time.sleep(0.002)
  time.sleep(delay)
  if command.process.poll() is not None:
    return False
  command.process.send_signal(number)
  return True


@dataclasses.dataclass
class Witness:
  """Finds what a run was doing when it died, from what it left."""

  run: Run

  def __post_init__(self):
    self._caches = _caches(self.run)
    self._preparations = _preparations(self.run)

  def activity(self) -> str:
    """One of `MOMENTS`, or 'start'."""
    run = self.run
    if _preparations(run) - self._preparations:
      return 'preparation'
    if _caches(run) - self._caches:
      return 'caching'
    saves = run.workdir / 'checkpoints'
    if saves.exists() and any('tmp' in path.name for path in saves.iterdir()):
      return 'save'
    step, evaluated = _last(run, 'train/'), _last(run, 'validation/')
    last = run.main.num_steps
    if step > evaluated and (step % run.main.eval_every == 0 or step == last):
      return 'evaluation'
    if evaluated == last:  # The test split.
      return 'evaluation'
    return 'step' if step else 'start'


@contextlib.contextmanager
def ending(*started: commands.Command):
  """Kills commands that still run."""
  try:
    yield
  finally:
    for command in started:
      command.process.kill()
      command.process.wait()
