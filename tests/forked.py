"""Runs commands in forks of one process, which imports everything once.

  python -W ignore tests/forked.py < commands.json

A command is a list: module, flags. The output is a JSON list of the exit
status, stdout, stderr and seconds of each. Before the forks JAX is imported,
but has no devices and no threads.
"""

import json
import os
import runpy
import sys
import tempfile
import time
import traceback

from absl import flags


def call(module, arguments):
  """Runs a command in a fork."""
  start = time.monotonic()
  with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
    child = os.fork()
    if not child:
      status = 1
      try:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name='__main__', alter_sys=True)
        status = 0
      except SystemExit as exit_:
        status = exit_.code or 0
      except BaseException:
        traceback.print_exc()
      finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    _, waited = os.waitpid(child, 0)
    texts = []
    for file in (out, err):
      file.seek(0)
      texts.append(file.read().decode())
  seconds = time.monotonic() - start
  return os.waitstatus_to_exitcode(waited), *texts, seconds


def main():
  """Imports the commands, then runs each."""
  commands = json.load(sys.stdin)
  for module in sorted({module for module, *_ in commands}):
    runpy.run_module(module)
  for name in list(flags.FLAGS):  # The forks define theirs.
    if flags.FLAGS.find_module_defining_flag(name) == 'runpy':
      delattr(flags.FLAGS, name)
  json.dump([call(module, rest) for module, *rest in commands], sys.stdout)


if __name__ == '__main__':
  main()
