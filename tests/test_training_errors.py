"""Errors of the input end with a sentence, bugs with a traceback."""

import errno
import subprocess
import sys

import jax
import numpy as np
import pytest

from training import batching
from training import errors
from training import released


def raised(function, *arguments):
  with pytest.raises(Exception) as error:
    function(*arguments)
  return error.value


def test_what_our_code_raises_is_a_sentence():
  error = raised(released.path, 'nothing')
  assert errors.sentence(error) == str(error)


@pytest.mark.parametrize(
  'bug',
  [
    lambda: int('x'),
    lambda: np.zeros(3).reshape(2, 2),
    lambda: jax.numpy.zeros(3).reshape(2, 2),
    lambda: {}['x'],
    # Raised in our code, but not by it.
    lambda: batching.evaluation_batches([], None, batch_size='x'),
  ],
)
def test_bugs_have_none(bug):
  assert errors.sentence(raised(bug)) is None


@pytest.mark.parametrize(
  ('error', 'text'),
  [
    (
      FileNotFoundError(errno.ENOENT, 'No such file', '/x'),
      'No such file: /x',
    ),
    (FileNotFoundError('prepare it'), 'prepare it'),
    (
      OSError(errno.ENOSPC, 'No space left on device', '/x'),
      'No space left on device: free some where the workdir and the data sets '
      'are, then run the same command again (/x)',
    ),
    (
      RuntimeError('tensorstore: No space left on device'),
      'No space left on device: free some where the workdir and the data sets '
      'are, then run the same command again',
    ),
    (
      jax.errors.JaxRuntimeError(
        'RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.\nmore'
      ),
      'out of memory: pass smaller batches (--config.batch_size, '
      '--config.eval_batch_size) or smaller inputs (RESOURCE_EXHAUSTED: Out of '
      'memory allocating 8 bytes.)',
    ),
  ],
)
def test_of_the_system(error, text):
  assert errors.sentence(error) == text


def test_a_device_without_memory():
  text = errors.sentence(raised(jax.numpy.zeros, (10**6, 10**7)))
  assert text.startswith('out of memory: pass smaller batches')


def test_a_disk_that_is_full():
  """TensorStore says of it what XLA says of memory."""
  text = 'RESOURCE_EXHAUSTED: Error writing "x": No space left on device'
  assert errors.sentence(ValueError(text)).startswith('No space left on device')


def test_at_most_three_lines_unless_all_are_wanted(capsys):
  text = '\n\n'.join(['first', 'x' * 2000, 'third', 'fourth'])
  with pytest.raises(SystemExit) as exit_:
    errors.fail(text)
  assert exit_.value.code == errors.STATUS == 2
  first, second, third = capsys.readouterr().err.splitlines()
  assert first == 'error: first' and second == f'{"x" * 996} ...'
  assert third == '... and 2 more lines (--debug shows all)'
  with pytest.raises(SystemExit):
    errors.fail(text, max_lines=None)
  assert len(capsys.readouterr().err.splitlines()) == 4


_COMMAND = """
import os, signal
from training import errors, released

def main():
  arguments = errors.Parser(description='It.').parse_args()
  {work}

if __name__ == '__main__':
  errors.run(main)
"""
_INTERRUPT = """signal.signal(signal.SIGINT, signal.default_int_handler)
  os.kill(os.getpid(), signal.SIGINT)"""


@pytest.mark.parametrize(
  ('work', 'arguments', 'status', 'lines', 'last'),
  [
    ('released.path("x")', [], 2, 1, "error: 'x' is no released model"),
    ('released.path("x")', ['--debug'], 2, None, "error: 'x' is no released"),
    ('{}["x"]', [], 1, None, "KeyError: 'x'"),
    ('return 3', [], 3, 0, ''),
    ('return 3', ['--bla'], 2, 1, 'error: unrecognized arguments: --bla'),
    # Which a job in the background of a shell ignores.
    (_INTERRUPT, [], 130, 1, 'Stopped by Ctrl-C.'),
  ],
)
def test_a_command(tmp_path, work, arguments, status, lines, last):
  script = tmp_path / 'script.py'
  script.write_text(_COMMAND.format(work=work))
  run = subprocess.run(
    [sys.executable, script, *arguments],
    capture_output=True,
    text=True,
    check=False,
  )
  assert run.returncode == status, run.stderr
  found = run.stderr.splitlines()
  assert lines is None or len(found) == lines
  assert ('Traceback' in run.stderr) == (lines is None)
  assert not last or found[-1].startswith(last)
