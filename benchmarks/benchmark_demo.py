"""Times the server of the demo page: latency of the first and last points.

  python benchmarks/benchmark_demo.py --workdir=runs/dog --workdir=runs/kanji

Each model of sketch_rnn gets requests one after the other, and then many at
once. A request is a circle, as drawn by hand. Latencies are those of a client
on this machine, JSON included. `CPU` is the CPU time of the server for one
request, which does not depend on other programs.
"""

import argparse
import asyncio
import json
import os
import pathlib
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from typing import Any

import numpy as np

from demo import load
from training import paths

_POLL = 0.5  # Seconds.


def request(
  name: str, size: float, number: int, count: int, **others: Any
) -> dict[str, Any]:
  """Makes a request with a circle of 60 points, which depends on the number."""
  rng = np.random.default_rng(number)
  angles = np.linspace(0, 6, 60) + rng.uniform(0, 6)
  radius = size * rng.uniform(0.2, 0.35) * (1 + 0.05 * np.sin(3 * angles))
  circle = size / 2 + radius[:, None] * np.stack(
    [np.cos(angles), np.sin(angles)], axis=1
  )
  return {
    'id': number,
    'model': name,
    'lines': [circle.round(1).tolist()],
    'count': count,
    'temperature': 0.4,
    'seed': number,
    **others,
  }


async def one_by_one(
  address: str, messages: Sequence[dict[str, Any]]
) -> list[load.Answer]:
  """Sends each message after the answer to the previous one."""
  async with load.Connection(address) as connection:
    return [await connection.draw(message) for message in messages]


def wait_until_ready(address: str) -> dict[str, Any]:
  """Waits until all models are ready; returns the answer of /api/models."""
  while True:
    with urllib.request.urlopen(f'{address}api/models') as response:
      models = json.load(response)
    if models['ready']:
      return models
    time.sleep(_POLL)


def processor_seconds(process: subprocess.Popen) -> float | None:
  """The CPU time of a process so far; None except on Linux."""
  try:
    ticks = pathlib.Path(f'/proc/{process.pid}/stat').read_text()
  except OSError:
    return None
  used = ticks.rpartition(')')[2].split()[11:13]
  return sum(map(int, used)) / os.sysconf('SC_CLK_TCK')


def measure(
  address: str,
  process: subprocess.Popen,
  model: dict[str, Any],
  repeats: int,
  together: int,
):
  """Prints the latencies of one model."""

  def messages(number, count, **others):
    return [
      request(model['name'], model['size'], i, count, **others)
      for i in range(number)
    ]

  asyncio.run(one_by_one(address, messages(3, 1)))  # Warm.
  for count in (1, 10):
    before = processor_seconds(process)
    answers = asyncio.run(one_by_one(address, messages(repeats, count, most=4)))
    after = processor_seconds(process)
    used = ''
    if before is not None and after is not None:
      used = f'; CPU {1e3 * (after - before) / repeats:.1f} ms'
    print(
      f'{model["name"]}, {count} endings, first points alone: '
      f'{load.describe(answers)}{used}'
    )
    answers = asyncio.run(one_by_one(address, messages(repeats, count)))
    print(f'{model["name"]}, {count} endings: {load.describe(answers)}')
  answers = asyncio.run(load.draw_all(address, messages(together, 1)))
  print(f'{model["name"]}, all at once: {load.describe(answers)}', flush=True)


def main():
  """Runs the command."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--workdir',
    action='append',
    required=True,
    help='workdir of a trained model; may be repeated',
  )
  parser.add_argument(
    '--repeats',
    type=int,
    default=50,
    help='number of requests, one after the other (default: 50)',
  )
  parser.add_argument(
    '--together',
    type=int,
    default=200,
    help='number of requests at once (default: 200)',
  )
  args = parser.parse_args(paths.arguments(parser))
  command = [sys.executable, '-m', 'demo', '--port=0', '--no_browser']
  command += [f'--workdir={workdir}' for workdir in args.workdir]
  process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
  try:
    said = process.stdout.readline()
    if 'http' not in said:
      parser.exit(1, 'the server did not start\n')
    address = said.split()[-1]
    for model in wait_until_ready(address)['sketchers']:
      measure(address, process, model, args.repeats, args.together)
  finally:
    process.terminate()
    process.wait()


if __name__ == '__main__':
  main()
