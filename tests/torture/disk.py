"""Disks that become full, and then have room again."""

import functools
import pathlib
import shutil
import subprocess
from collections.abc import Iterator

import numpy as np

from torture import runs
from torture import table

_CHECK = 'a full disk, run again'
# A namespace of its own, where anybody may mount. What is on its disk is gone
# with it: it is copied.
_UNSHARE = ('unshare', '--map-root-user', '--mount')
_SCRIPT = """
size=$1 room=$2 kept=$3; shift 3
PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t tmpfs -o size=$size tmpfs "$room" || exit 77
PATH=/nowhere "$@"; status=$?
cp -a "$room/." "$kept/" || exit 78
exit $status
"""
_MAINS = (
  'captioning.main',
  'sketch_rnn.main',
  'video.classify',
  'video.caption',
  'video.track',
)


def _size(directory):
  """Bytes on a disk whose blocks are pages."""
  files = [path.stat().st_size for path in directory.rglob('*')]
  return sum(4096 * (1 + size // 4096) for size in files)


def fill(
  name: str,
  directory: pathlib.Path,
  shared: pathlib.Path,
  rng: np.random.Generator,
) -> Iterator[table.Outcome]:
  """A run on a disk that is too small ends with a sentence, not a traceback.

  On one with room it goes on, and ends where one ends that was left alone.
  """
  command = [*_UNSHARE, 'mount', '-t', 'tmpfs', 'tmpfs', str(directory)]
  tried = subprocess.run(command, capture_output=True, text=True)
  if tried.returncode:
    reason = f'cannot mount: {tried.stderr}'
    yield table.Outcome(_CHECK, 'missed', text=reason)
    return
  run, reference = runs.create(name, directory, shared)
  room, kept = directory / 'room', directory / 'kept'
  room.mkdir()
  kept.mkdir()
  size = int(_size(reference.workdir) * rng.uniform(0.1, 0.9))
  script = ('/bin/sh', '-c', _SCRIPT, 'sh', str(size), str(room), str(kept))
  command = run.start(
    wrapped_in=[shutil.which('unshare'), *_UNSHARE[1:], *script],
    workdir=room / 'run',
  )
  with runs.ending(command):
    status = command.process.wait()
  text = command.output.read_text()
  where = f'{size} bytes, status {status}: {text[-1000:]}'
  if status == 0:  # There was room enough.
    yield table.Outcome(_CHECK, 'missed')
    return
  lines = [line for line in text.splitlines() if line.startswith('error: ')]
  if (
    status != 2
    or 'Traceback' in text
    or not any('No space left on device' in line for line in lines)
  ):
    yield table.Outcome('a full disk: a sentence', 'wrong', text=where)
  else:
    yield table.Outcome('a full disk: a sentence', 'right')
  if (kept / 'run').exists():
    shutil.copytree(kept / 'run', run.workdir)
  if damaged := runs.damage(run.workdir):
    yield table.Outcome(_CHECK, 'wrong', text=f'{damaged}, {where}')
    return
  command = run.start()
  with runs.ending(command):
    status = command.process.wait()
  if status:
    text = command.output.read_text()[-1000:]
    yield table.Outcome(_CHECK, 'wrong', text=f'status {status}: {text}')
  elif found := runs.difference(run, reference):
    yield table.Outcome(_CHECK, 'silent', text=f'{found}, {where}')
  else:
    yield table.Outcome(_CHECK, 'right')


def cases(*, quick: bool) -> list[table.Case]:
  """Two sizes for each of the five mains."""
  return [
    table.Case(f'disk/{name}/{i}', functools.partial(fill, name))
    for name in (() if quick else _MAINS)
    for i in range(2)
  ]
