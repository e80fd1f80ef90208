"""The command line of every `main`: flags, logging, hosts, and a clean stop.

  python -m captioning.main --config=configs/coco.py --workdir=runs/coco

On several hosts the same command runs on each of them, with
`--coordinator_address=HOST:PORT --num_processes=N --process_id=I`, or with
`--coordinator_address=auto` where the platform knows them (TPU pods, Slurm).
"""

import ast
import contextlib
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from typing import Protocol

import jax
import ml_collections
import numpy as np
from absl import app
from absl import flags
from absl import logging
from jax.experimental import multihost_utils
from ml_collections import config_flags

from training import agreement
from training import compilation
from training import console
from training import errors
from training import hosts
from training import locks
from training import parallel
from training import paths
from training import provenance
from training import released
from training import renamed

_HELP = ('-h', '-?', '--help', '-help', '--helpshort')

# The exit status of what SIGTERM has stopped, as a shell gives it: with 0
# a scheduler would take the run for done.
_TERMINATED = 128 + signal.SIGTERM

_terminated = threading.Event()
_interrupted = threading.Event()
_at_once = threading.Event()  # See `stopping_at_once`.
_together = threading.Event()  # See `stopping_together`.


class Stopped(Exception):
  """SIGTERM or Ctrl-C was received; the last checkpoint is being saved."""


class Schema(Protocol):
  """The rules for a command's configs; those of configs/schema.py."""

  def check(
    self,
    config: ml_collections.ConfigDict,
    origin: str = '',
    *,
    training: bool = True,
  ):
    """Raises a ValueError if a config, of a file, breaks a rule."""

  def unknown_field(
    self, config: ml_collections.ConfigDict, path: str
  ) -> str | None:
    """The problem of a path of fields that is not in a config, or None."""


def run(
  main: Callable[[ml_collections.ConfigDict, pathlib.Path], None],
  *,
  schema: Schema | None = None,
  use: Callable[[pathlib.Path, list[str]], int] | None = None,
  without_files: Callable[[], bool] = lambda: False,
  evaluates: bool = False,
):
  """Parses the flags, starts the hosts and calls `main(config, workdir)`.

  Without `--config` the config stored in the workdir is used, so that a run is
  resumed by its workdir alone. `--help` prints the docstring of the main module
  and the flags of this function and of that module.

  Errors of the input are shown as `errors` does; a training that has one before
  its first step leaves nothing in the workdir.

  Args:
    main: trains.
    schema: rules that configs are checked with before any work.
    use: what the command does with files, on one host: `use(workdir, files)`
      returns the exit status. Without it files are an error.
    without_files: returns True if the flags ask for `use` without files.
    evaluates: main does not train but evaluates a trained model.

  A command with `use`, or that evaluates, takes `--pretrained=NAME` in place of
  the workdir, for a released model.
  """
  config_file = config_flags.DEFINE_config_file(
    'config',
    None,
    'File of the experiment, such as configs/coco.py; default: the config '
    'stored in the workdir. --config.FIELD=VALUE changes a field.',
  )
  workdir = flags.DEFINE_string(
    'workdir', None, 'Directory of checkpoints, metrics and results.'
  )
  pretrained = None
  if use is not None or evaluates:
    pretrained = flags.DEFINE_string(
      'pretrained',
      None,
      f'In place of --workdir: {released.help_text()}',
    )
    flags.register_multi_flags_validator(
      ['workdir', 'pretrained'],
      lambda values: (
        (values['workdir'] is None) != (values['pretrained'] is None)
      ),
      message='pass either --workdir=DIRECTORY or --pretrained=NAME',
    )
  else:
    flags.mark_flag_as_required('workdir')
  coordinator = flags.DEFINE_string(
    'coordinator_address',
    None,
    'For several hosts: HOST:PORT of process 0, or auto to ask the platform.',
  )
  num_processes = flags.DEFINE_integer(
    'num_processes', None, 'For several hosts: number of processes.'
  )
  process_id = flags.DEFINE_integer(
    'process_id', None, 'For several hosts: number of this process, from 0.'
  )
  if not evaluates:
    flags.DEFINE_multi_enum(
      'allow_change',
      [],
      agreement.KINDS,
      'On resuming: may differ from the checkpoint. Give it once for each.',
    )
  keeps_programs = flags.DEFINE_bool(
    'compilation_cache',
    True,
    'Keep compiled programs in the cache folder of the user, at most 1 GiB.',
  )
  flags.DEFINE_bool('debug', False, 'Show the traceback of every error.')
  for flag in flags.FLAGS.get_flags_for_module(__name__):
    # As if the main module had defined them: its flags are those that are
    # listed.
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)

  def start(argv):
    if keeps_programs.value:
      compilation.keep_programs()
    if pretrained is None or pretrained.value is None:
      directory = pathlib.Path(workdir.value).absolute()
    else:
      directory = released.path(pretrained.value)
      if use is not None and len(argv) == 1 and not without_files():
        raise ValueError('--pretrained is for files: pass some')
    if len(argv) > 1 or without_files():
      if use is None:
        raise ValueError(f'unexpected arguments: {" ".join(argv[1:])}')
      if config_file.value is not None:
        files = ' '.join(argv[1:]) or 'other flags'
        raise ValueError(
          f'--config is for training and {files} for a trained model: pass one '
          'of the two'
        )
      set_up_logging()
      try:
        return use(directory, argv[1:])
      except KeyboardInterrupt:
        return errors.INTERRUPTED
    config = config_file.value
    if config is None:
      config = read_config(directory, schema, training=not evaluates)
    else:
      renamed.check_config(config, '--config')
      if schema is not None:
        schema.check(config)
    set_up_logging()
    process = 0
    if coordinator.value is not None:
      try:
        start_hosts(coordinator.value, num_processes.value, process_id.value)
      except ValueError as error:
        raise app.UsageError(str(error)) from error
      process = jax.process_index()
    if coordinator.value is None or jax.process_count() == 1:
      signal.signal(signal.SIGTERM, _terminate)
    else:
      hosts.on_sigterm(_terminate)
    signal.signal(signal.SIGINT, _interrupt)
    with contextlib.ExitStack() as stack:
      if not evaluates and process == 0:
        stack.enter_context(_leaving_nothing(directory))
      stack.enter_context(hosts.watching(lambda: not _together.is_set()))
      _begin(stack, config, directory, trains=not evaluates)
      stack.enter_context(
        console.run(released.output(directory), process, jax.process_count())
      )
      stack.enter_context(hosts.noticing())
      logging.info(
        'Process %d of %d, devices: %s',
        process,
        jax.process_count(),
        jax.local_devices(),
      )
      try:
        main(config, directory)
      except Stopped:
        name, status = 'SIGTERM', _TERMINATED
        if _interrupted.is_set():
          name, status = 'Ctrl-C', errors.INTERRUPTED
        hosts.stop_others(status)
        console.notice(hosts.STOPPED, name)
        return status
    return 0

  def start_or_fail(argv):
    with errors.shown():
      return start(argv)

  app.run(start_or_fail, flags_parser=lambda argv: _parse_flags(argv, schema))


@contextlib.contextmanager
def _leaving_nothing(workdir: pathlib.Path):
  """Removes what a new run has written if its input is found to be wrong.

  Only before its first step, and never where checkpoints were before.
  """
  there = workdir
  while not there.exists():
    there = there.parent
  before = set(workdir.iterdir()) if there == workdir else set()
  is_new = workdir / 'checkpoints' not in before
  try:
    yield
  except Exception as error:
    if is_new and not console.has_stepped() and errors.sentence(error):
      for path in {*workdir.iterdir()} - before if workdir.exists() else ():
        if path.is_dir() and not path.is_symlink():
          shutil.rmtree(path, ignore_errors=True)
        else:
          path.unlink(missing_ok=True)
      for parent in (workdir, *workdir.parents):
        if parent == there:
          break
        with contextlib.suppress(OSError):
          parent.rmdir()
    raise


def _begin(
  stack: contextlib.ExitStack,
  config: ml_collections.ConfigDict,
  directory: pathlib.Path,
  *,
  trains: bool,
):
  """Locks the workdir of a training and compares the hosts.

  Raises:
    ValueError: another process trains there, or the hosts differ. All hosts
      raise it.
  """
  problem = ''
  if (
    trains and jax.process_index() == 0 and not released.is_released(directory)
  ):
    try:
      stack.enter_context(locks.alone(directory))
    except ValueError as error:
      problem = str(error)
  problem, *_ = parallel.gather_texts(problem)
  if problem:
    raise ValueError(problem)
  if jax.process_count() > 1:
    agreement.check_hosts(
      {
        'config': json.loads(config.to_json()),
        'workdir': str(directory),
        'commit': provenance.commit(),
      }
    )


def allowed_changes() -> list[str]:
  """The kinds of changes that a resumed run may have: `agreement.KINDS`."""
  name = 'allow_change'
  return flags.FLAGS[name].value if name in flags.FLAGS else []


def _terminate(*_):
  """Stops before the next step, or at once where nothing is saved by waiting.

  Raises:
    Stopped: in `stopping_at_once`.
  """
  _terminated.set()
  if _at_once.is_set():
    _at_once.clear()  # Once: what follows cleans up.
    raise Stopped


def _interrupt(*_):
  """Stops as SIGTERM does at the first Ctrl-C, and at once at the second."""
  signal.signal(signal.SIGINT, signal.SIG_DFL)
  _interrupted.set()
  # Not through logging: what is interrupted may hold its lock.
  console.write_at_once(
    '\nStopping after this step; Ctrl-C again stops at once.\n'
  )
  os.kill(os.getpid(), signal.SIGTERM)


def _parse_flags(argv: Sequence[str], schema: Schema | None) -> list[str]:
  """Parses them as absl does, but for --help and for errors.

  Expands `~` in paths.
  """
  if set(_HELP) & set(itertools.takewhile(lambda text: text != '--', argv[1:])):
    print(sys.modules['__main__'].__doc__)
    # Without the heading, which is the module's path.
    listed = flags.FLAGS.main_module_help().lstrip().partition(':\n')[2]
    listed = listed.replace("\n    (default: 'None')", '')
    print(f'Flags (--helpfull lists those of libraries, too):\n{listed}')
    sys.exit(0)
  with errors.shown():
    renamed.check_arguments(argv)
    argv = [*argv[:1], *paths.expand(argv[1:])]
    path = _config_path(argv)
    if path is not None and not os.path.isfile(path.partition(':')[0]):
      raise ValueError(f'--config={path}: there is no such file')
    try:
      return flags.FLAGS(argv)
    except (
      # ml_collections raises all of these.
      *(flags.Error, AttributeError, KeyError, TypeError, ValueError),
    ) as error:
      raise ValueError(_explain(error, argv, path, schema)) from error


def _config_path(argv: Sequence[str]) -> str | None:
  """The value of --config."""
  for argument, following in itertools.zip_longest(argv, argv[1:]):
    name, equals, value = argument.partition('=')
    if name in ('--config', '-config'):
      return value if equals else following
  return None


def _explain(
  error: Exception, argv: Sequence[str], path: str | None, schema: Any
) -> str:
  """The sentence for an error of flags, or of the fields of a config."""
  lines = [line for line in str(error).splitlines() if line.strip()]
  if 'Traceback (most recent call last):' in str(error):  # Of the config.
    return f'--config={path}: {lines[-1].partition(": ")[2] or lines[-1]}'
  if isinstance(error, AttributeError | KeyError) and path is not None:
    config = _load_config(path)
    for argument in argv:
      field = re.match(r'--?(?:no)?config\.([^=]+)', argument)
      if field and config is not None and schema is not None:
        problem = schema.unknown_field(config, field[1])
        if problem is not None:
          return problem
  return ' '.join(line.strip() for line in lines)


def _load_config(path: str) -> ml_collections.ConfigDict | None:
  """The config of a file, without the changes of the other flags."""
  alone = ['', f'--config={path}']
  values = flags.FlagValues()
  holder = config_flags.DEFINE_config_file(
    'config', flag_values=values, sys_argv=alone
  )
  values(alone)
  return holder.value


def set_up_logging():
  """Logs to stderr from INFO up; see `training.console`."""
  if not flags.FLAGS.is_parsed():  # A command that has no flags of absl.
    flags.FLAGS.mark_as_parsed()
  console.set_up()


def start_hosts(
  address: str, num_processes: int | None, process_id: int | None
):
  """Joins the other processes; on CPU they communicate through gloo.

  From here on JAX notifies all of them when one receives SIGTERM.

  Raises:
    ValueError: a flag is missing, or the platform does not know the hosts.
  """
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  known = address, num_processes, process_id
  if address == 'auto':
    known = None, None, None
  elif num_processes is None or process_id is None:
    raise ValueError(
      '--coordinator_address needs --num_processes and --process_id too'
    )
  elif not 0 <= process_id < num_processes:
    raise ValueError(
      f'--process_id={process_id} must be from 0 to {num_processes - 1}: one '
      f'of --num_processes={num_processes}'
    )
  with hosts.starting(address):
    jax.distributed.initialize(
      *known,
      initialization_timeout=hosts.START + 30,
      # Where the hosts cannot watch one another.
      heartbeat_timeout_seconds=50,
    )
  # The first synchronisation, while all are here: gloo gives up after 30
  # seconds, and some hosts may have to compile what others find in a cache.
  multihost_utils.sync_global_devices('start')


def stopping(step: int) -> bool:
  """Returns True if any of the hosts has received SIGTERM, before `step`.

  All hosts return the same for the same step, so that all save the same
  checkpoint. Orbax asks JAX with the number of the step, too: another count, of
  the batches of an evaluation for example, would never be reached. There
  `raise_if_any_stops` is for.
  """
  if jax.process_count() > 1:
    return multihost_utils.reached_preemption_sync_point(step)
  return _terminated.is_set()


def raise_if_stopping():
  """Stops long work that each host does by itself; the others stop, too.

  Raises:
    Stopped: SIGTERM was received, outside of `stopping_together`.
  """
  # In this order: commands that only prepare data need no devices.
  if _terminated.is_set() and not (
    _together.is_set() and jax.process_count() > 1
  ):
    raise Stopped


def raise_if_any_stops():
  """Stops all hosts between two batches; each of them calls it for each.

  Raises:
    Stopped: one of them has received SIGTERM; all hosts raise it.
  """
  if parallel.gather(np.array([_terminated.is_set()])).any():
    raise Stopped


@contextlib.contextmanager
def stopping_together() -> Iterator[None]:
  """A context in which no host stops alone: its state could not be saved."""
  _together.set()
  try:
    yield
  finally:
    _together.clear()


@contextlib.contextmanager
def stopping_at_once() -> Iterator[None]:
  """A context that a signal ends in the middle.

  For work that is begun anew in any case, in the main thread.

  Raises:
    Stopped: SIGTERM was received.
  """
  raise_if_stopping()
  _at_once.set()
  try:
    yield
  except Exception:
    raise_if_stopping()  # A library may have raised another error for it.
    raise
  finally:
    _at_once.clear()


def read_config(
  workdir: pathlib.Path,
  schema: Schema | None = None,
  *,
  training: bool = False,
) -> ml_collections.ConfigDict:
  """Reads the config of a run from its workdir.

  Args:
    workdir: of the run.
    schema: rules of the command, that the config is checked with.
    training: whether the run is to be trained on.

  Raises:
    FileNotFoundError: there is no run in the workdir.
    ValueError: the file is not JSON, has fields of an earlier version, or
      breaks a rule.
  """
  path = workdir / 'config.json'
  if not path.exists():
    raise FileNotFoundError(
      f'{path} does not exist: pass --config=configs/NAME.py to start a run '
      'there, or the --workdir of an earlier one'
    )
  try:
    fields = json.loads(path.read_text())
  except ValueError as error:  # Not JSON, or not UTF-8.
    raise ValueError(f'{path} is not JSON: {error}') from error
  if not isinstance(fields, dict):
    raise ValueError(
      f'{path} is not the config of a run: it has no fields, but {fields!r}'
    )
  config = ml_collections.ConfigDict(fields)
  renamed.check_config(config, str(path))
  renamed.add_fields(config)
  if schema is not None:
    schema.check(config, str(path), training=training)
  return config


def change_fields(
  fields: ml_collections.ConfigDict, options: Sequence[str], *, name: str
) -> ml_collections.ConfigDict:
  """Returns a copy of a group of a config with some fields changed.

  Args:
    fields: the group, such as `config.decoding`.
    options: each FIELD=VALUE, the value as a Python literal: `beam_size=3`,
      `required_words=(('dog', 'dogs'), 'ball')`.
    name: of the group, such as 'decoding'.

  Raises:
    ValueError: a field does not exist, or a value has another type.
  """
  changed = ml_collections.ConfigDict(fields.to_dict())
  for option in options:
    renamed.check_option(name, option)
    field, equals, value = option.partition('=')
    if not equals or field not in fields:
      raise ValueError(
        f'{option!r} must be FIELD=VALUE; the fields are {", ".join(fields)}'
      )
    try:
      value = ast.literal_eval(value)
    except (ValueError, SyntaxError) as error:
      raise ValueError(
        f'{option!r}: {value} is not a Python literal; strings need quotes'
      ) from error
    wanted = type(fields[field])
    if isinstance(value, int) and wanted is float:
      value = float(value)
    if wanted is list:  # JSON has stored a tuple as a list.
      value = list(value) if isinstance(value, tuple) else value
    if not isinstance(value, wanted):
      raise ValueError(
        f'{option!r}: {field} must be like {fields[field]!r}, not {value!r}'
      )
    changed[field] = value
  return changed
