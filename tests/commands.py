"""Commands that tests start, stop and inspect, as a user in a shell would."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

ROOT = pathlib.Path(__file__).parents[1]
PATIENCE = 400  # Seconds, for a machine that is busy with other things.
# Reported numbers that differ from run to run.
TIMES = (
  'train/steps_per_second',
  'train/examples_per_second',
  'train/cpu_seconds',
  'validation/seconds',
)
# Likewise in an entry of results.json.
RESULT_TIMES = (
  *('evaluation_seconds', 'training_seconds', 'cpu_seconds'),
  'frames_per_cpu_second',
)


@dataclasses.dataclass(frozen=True)
class Command:
  """A running command, and the file of its output."""

  process: subprocess.Popen
  output: pathlib.Path

  def finish(self, status: int = 0) -> str:
    """Waits for the end, and returns the output."""
    returned = self.process.wait(PATIENCE)
    text = self.output.read_text()
    assert returned == status, f'{self.process.args}\n{text[-5000:]}'
    return text

  def wait_until(self, happened: Callable[[], bool]):
    """Waits until a condition holds, of a command that runs on."""
    deadline = time.monotonic() + PATIENCE
    while not happened():
      assert self.process.poll() is None, self.output.read_text()[-5000:]
      assert time.monotonic() < deadline, self.output.read_text()[-5000:]
      time.sleep(0.002)

  def stop_when(self, happened: Callable[[], bool], number: signal.Signals):
    """Sends a signal as soon as a condition holds."""
    self.wait_until(happened)
    self.process.send_signal(number)


class Shell:
  """Starts commands in the checkout, and kills those that still run."""

  def __init__(self, directory: pathlib.Path):
    self.directory = directory
    self.data_dir = directory / 'data'
    self._commands = []
    self._lock = threading.Lock()

  def start(self, *arguments: str, devices: int = 2, **others):
    """Starts `python -m arguments` on virtual devices.

    Args:
      *arguments: the module and its flags.
      devices: number of virtual devices.
      **others: variables of the environment.
    """
    count = f'--xla_force_host_platform_device_count={devices}'
    environment = {
      **os.environ,
      'XLA_FLAGS': count,
      **others,
    }
    with self._lock:
      output = self.directory / f'output-{len(self._commands)}.txt'
      with output.open('w') as file:
        process = subprocess.Popen(
          [sys.executable, '-m', *arguments],
          cwd=ROOT,
          env=environment,
          stdout=file,
          stderr=subprocess.STDOUT,
        )
      self._commands.append(Command(process, output))
      return self._commands[-1]

  def end(self):
    """Kills the commands that still run."""
    for command in self._commands:
      command.process.kill()
      command.process.wait()


def lines(workdir: pathlib.Path, kind: str = '') -> list[dict[str, float]]:
  """The complete lines of metrics.jsonl, without the times."""
  path = workdir / 'metrics.jsonl'
  if not path.exists():
    return []
  whole = path.read_text().split('\n')[:-1]
  values = [json.loads(line) for line in whole]
  return [
    {name: x for name, x in line.items() if name not in TIMES}
    for line in values
    if any(name.startswith(kind) for name in line if name != 'step')
  ]


def without_times(entry: dict[str, Any]) -> dict[str, Any]:
  """An entry of results.json, without the times."""
  return {k: v for k, v in entry.items() if k not in RESULT_TIMES}


def reached(workdir: pathlib.Path, step: int) -> Callable[[], bool]:
  """Whether the training has reported this step."""
  return lambda: any(x['step'] >= step for x in lines(workdir, 'train/'))


def saving(workdir: pathlib.Path, step: int) -> Callable[[], bool]:
  """Whether a checkpoint of this step or a later one is being written."""

  def happened():
    directory = workdir / 'checkpoints'
    names = os.listdir(directory) if directory.exists() else []
    return any(
      'tmp' in name and int(name.partition('.')[0]) >= step for name in names
    )

  return happened


def saved_steps(workdir: pathlib.Path) -> list[int]:
  names = (path.name for path in (workdir / 'checkpoints').iterdir())
  return sorted(int(name) for name in names if name.isdigit())


def saved_state(workdir: pathlib.Path, step: int) -> dict:
  directory = workdir / 'checkpoints' / str(step)
  with ocp.StandardCheckpointer() as reader:
    return {
      item: reader.restore(directory / item) for item in ('model', 'training')
    }


def assert_same_training(workdir: pathlib.Path, other: pathlib.Path):
  """The same checkpoints to the last bit, the same evaluations on the way."""
  assert saved_steps(workdir) == saved_steps(other)
  for step in saved_steps(workdir):
    state, expected = saved_state(workdir, step), saved_state(other, step)
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, state, expected)
  assert lines(workdir, 'validation/') == lines(other, 'validation/')
