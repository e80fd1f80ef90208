"""Two virtual devices, a compilation cache, the data beside the checkout."""

import os
import pathlib
import sys
import tempfile

# Before jax is imported anywhere.
os.environ.setdefault('XLA_FLAGS', '--xla_force_host_platform_device_count=2')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
# Subprocesses that tests start use the cache too.
os.environ.setdefault(
  'JAX_COMPILATION_CACHE_DIR',
  os.path.join(tempfile.gettempdir(), 'recurrent-vision-jax-cache'),
)
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.1')

ROOT = pathlib.Path(__file__).parents[1]
# Scripts that tests start are of this checkout, whichever is installed.
os.environ['PYTHONPATH'] = os.pathsep.join(
  [str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
)

import pytest  # noqa: E402

pytest.register_assert_rewrite('commands')

SHARED = ROOT.parent / 'shared'


@pytest.fixture(scope='session')
def shared() -> pathlib.Path:
  """The folder of real data and golden numbers; skips where it is absent."""
  if not SHARED.is_dir():
    pytest.skip(f'{SHARED} is absent: real data and golden numbers live there')
  return SHARED


@pytest.fixture(scope='module', autouse=True)
def forget_what_was_compiled():
  """Which other files hardly need, and which fills gigabytes."""
  yield
  if 'jax' in sys.modules:
    sys.modules['jax'].clear_caches()
