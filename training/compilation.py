"""Compiling: the programs that are kept, and the one that runs once."""

import hashlib
import os
import pathlib
import platform
from collections.abc import Callable
from typing import Any

import jax

_MAX_BYTES = 2**30
_MIN_SECONDS = 0.2  # Reading a smaller program is hardly faster.


def keep_programs():
  """Keeps compiled programs in the cache folder of the user.

  The next process reads what this one compiled. At most 1 GiB is kept: what was
  not used for the longest time goes first. JAX_COMPILATION_CACHE_DIR names
  another directory, JAX_ENABLE_COMPILATION_CACHE=0 keeps nothing.
  """
  if jax.config.jax_compilation_cache_dir is not None:
    return
  path = _cache_folder() / 'recurrent-vision' / 'compiled' / _processor()
  try:
    path.mkdir(parents=True, exist_ok=True)
  except (OSError, RuntimeError):  # A user without a home that can be written.
    return
  if not os.access(path, os.W_OK):
    return
  jax.config.update('jax_compilation_cache_dir', str(path))
  jax.config.update('jax_compilation_cache_max_size', _MAX_BYTES)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', _MIN_SECONDS)


def run_once(function: Callable[..., Any], *args: Any) -> Any:
  """Returns `function(*args)`, compiled quickly rather than to run quickly.

  For initialisers: to optimise them takes several times as long as to run them.
  The numbers may differ from those of `jax.jit` in the last digits.
  """
  options = None
  if jax.default_backend() == 'cpu':
    options = {'xla_backend_optimization_level': 0}
  return jax.jit(function, compiler_options=options)(*args)


def _cache_folder() -> pathlib.Path:
  folder = os.environ.get('XDG_CACHE_HOME', '')
  # A relative path is invalid there, and ignored.
  if os.path.isabs(folder):
    return pathlib.Path(folder)
  return pathlib.Path.home() / '.cache'


def _processor() -> str:
  """A name of the kind of processor.

  Computers that share a home may differ in it, and programs are compiled for
  one.
  """
  kind = [platform.system(), platform.machine(), platform.processor()]
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
    kind += sorted({x for x in lines if x.startswith(('flags', 'Features'))})
  except OSError:  # Not Linux.
    pass
  return hashlib.sha256('\n'.join(kind).encode()).hexdigest()[:12]
