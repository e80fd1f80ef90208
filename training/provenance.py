"""The hardware and the source code of a result."""

import pathlib
import platform
import shutil
import subprocess

import jax


def hardware() -> str:
  """The devices and the machine, for results files."""
  devices = jax.devices()
  return f'{len(devices)} x {devices[0].device_kind} on {platform.platform()}'


def commit() -> str | None:
  """The commit of the source tree, None outside a git checkout."""
  if shutil.which('git') is None:
    return None
  directory = pathlib.Path(__file__).parent
  found = subprocess.run(
    ['git', '-C', str(directory), 'rev-parse', 'HEAD'],
    capture_output=True,
    text=True,
    check=False,
  )
  return found.stdout.strip() or None
