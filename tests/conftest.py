"""Two virtual devices, a compilation cache, the data beside the checkout."""

import gc
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable

# Before jax is imported anywhere.
os.environ.setdefault('XLA_FLAGS', '--xla_force_host_platform_device_count=2')
# In tests compiling takes longer than computing.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
# Subprocesses that tests start use the cache too.
os.environ.setdefault(
  'JAX_COMPILATION_CACHE_DIR',
  os.path.join(tempfile.gettempdir(), 'recurrent-vision-jax-cache'),
)
# Reading the smallest of programs takes a quarter of compiling it, and all
# files and subprocesses need the same few hundred.
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')

ROOT = pathlib.Path(__file__).parents[1]
# Scripts that tests start are of this checkout, whichever is installed.
os.environ['PYTHONPATH'] = os.pathsep.join(
  [str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
)

import pytest  # noqa: E402

pytest.register_assert_rewrite('commands')

QUICK = os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] == '1'
SHARED = ROOT.parent / 'shared'
GOLDEN = ROOT / 'tests' / 'golden'
# The files that take longest, in this order. Two workers that begin with them
# end at about the same time.
LONGEST = (
  'test_captioning_main.py',
  'test_sketch_rnn_main.py',
  'test_captioning_model.py',
  'test_demo_page.py',
  'test_recurrent_search.py',
  'test_captioning_phases.py',
  'test_captioning_losses.py',
  'test_sketch_rnn_model.py',
  'test_video_classification_model.py',
  'test_video_caption.py',
  'test_video_track.py',
  'test_sketch_rnn_published.py',
  'test_recurrent_unroll.py',
  'test_video_classify.py',
  'test_demo_server.py',
)
# Golden numbers that the repository does not ship: how their paths begin.
NOT_SHIPPED = (
  'captions/coco',
  'captions/flickr',
  'captions/nlg_eval',
  'sketch_rnn/tf1_small_hyper_uncond',
  'sketch_rnn/tf1_utils',
)


@pytest.fixture(scope='session')
def shared() -> pathlib.Path:
  """The folder of real data beside the checkout; skips where it is absent."""
  if not SHARED.is_dir():
    pytest.skip(f'{SHARED} is absent: the real data are there')
  return SHARED


@pytest.fixture(scope='session')
def golden_file() -> Callable[[str], pathlib.Path]:
  """Finds golden numbers by their path, 'sketch_rnn/tf1_utils.npz'.

  Those that are `NOT_SHIPPED` are in ../shared; their tests skip where it is
  absent. All others are in the repository: one that is missing is an error.
  """

  def find(name):
    if not name.startswith(NOT_SHIPPED):
      return GOLDEN / name
    if not SHARED.is_dir():
      pytest.skip(f'{name} is not shipped, and {SHARED} is absent')
    return SHARED / 'golden' / name

  return find


def pytest_collection_modifyitems(items: list[pytest.Item]):
  """Sorts the longest files first, and in each the optimised tests last.

  Turning the optimisations on and off forgets what was compiled.
  """

  def order(item):
    name = item.path.name
    rank = LONGEST.index(name) if name in LONGEST else len(LONGEST)
    return rank, item.path, item.get_closest_marker('optimized') is not None

  items.sort(key=order)


def pytest_collection_finish():
  """Makes the garbage collector pass over the imported modules, and rare."""
  gc.collect()
  gc.freeze()
  gc.set_threshold(50_000)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item):
  """Turns the optimisations on for tests marked `optimized`."""
  if 'jax' not in sys.modules:
    return
  jax = sys.modules['jax']
  quick = item.get_closest_marker('optimized') is None and QUICK
  if jax.config.values['jax_disable_most_optimizations'] != quick:
    jax.clear_caches()
    jax.config.update('jax_disable_most_optimizations', quick)


@pytest.fixture(scope='module', autouse=True)
def forget_what_was_compiled():
  """Frees compiled programs, which fill gigabytes and serve few other files."""
  yield
  if 'jax' in sys.modules:
    sys.modules['jax'].clear_caches()
