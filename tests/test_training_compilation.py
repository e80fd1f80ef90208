"""Kept programs, and the program that runs once."""

import os
import pathlib
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from training import compilation

ROOT = pathlib.Path(__file__).parents[1]
# Prints the directory of the cache after a compilation.
_COMPILE = """
import jax
from training import compilation
compilation.keep_programs()
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
jax.jit(lambda x: x * 2 + 1)(jax.numpy.ones(3))
print(jax.config.jax_compilation_cache_dir)
print(jax.config.jax_compilation_cache_max_size)
"""


def compile_with(tmp_path, **changes):
  names = ('JAX_COMPILATION_CACHE_DIR', 'XDG_CACHE_HOME')
  environment = {k: v for k, v in os.environ.items() if k not in names}
  environment |= {'HOME': str(tmp_path / 'home')} | changes
  output = subprocess.run(
    [sys.executable, '-c', _COMPILE],
    cwd=ROOT,
    env=environment,
    check=True,
    capture_output=True,
    text=True,
  )
  return output.stdout.split()


@pytest.mark.parametrize(
  'name, folder', [('HOME', 'home/.cache'), ('XDG_CACHE_HOME', 'xdg')]
)
def test_programs_are_kept_in_the_cache_folder_of_the_user(
  tmp_path, name, folder
):
  changes = {name: str(tmp_path / folder.partition('/')[0])}
  path, max_size = compile_with(tmp_path, **changes)
  kept = pathlib.Path(path)
  assert kept.is_relative_to(tmp_path / folder / 'recurrent-vision')
  assert list(kept.glob('*-cache'))
  assert int(max_size) == 2**30


def test_a_directory_that_is_named_stays(tmp_path):
  named = str(tmp_path / 'named')
  path, max_size = compile_with(tmp_path, JAX_COMPILATION_CACHE_DIR=named)
  assert (path, max_size) == (named, '-1')
  assert not (tmp_path / 'home').exists()


def test_without_a_folder_to_write_nothing_is_kept(tmp_path):
  (tmp_path / 'home').write_text('a file')
  assert compile_with(tmp_path) == ['None', '-1']


def test_what_runs_once_is_equal_up_to_rounding():
  """Random parameters of a dense layer, and orthogonal ones."""
  model = nn.Dense(32, kernel_init=nn.initializers.orthogonal())
  key, x = jax.random.key(0), jnp.ones((1, 48))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
    compilation.run_once(model.init, key, x),
    model.init(key, x),
  )
