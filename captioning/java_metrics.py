"""METEOR and SPICE: the official Java programs, run as subprocesses.

Both take captions as `tokenizer.tokenize` leaves them, joined by spaces, and
return the corpus score and the score of each image. Ask `why_no_meteor` and
`why_no_spice` first whether they can run.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np


def why_no_meteor() -> str | None:
  """The reason why METEOR cannot run, or None."""
  if _meteor_jar() is None:
    return (
      'the METEOR 1.5 jar is missing: '
      'pip install "recurrent-vision[meteor]" brings it'
    )
  return _why_no_java()


def why_no_spice(jar: str) -> str | None:
  """The reason why SPICE cannot run, or None."""
  if not os.path.isfile(jar):
    return f'there is no SPICE jar at {jar}: pass the path of spice-1.0.jar'
  return _why_no_java()


def meteor(
  references: Sequence[Sequence[str]],
  candidates: Sequence[str],
  *,
  timeout: float = 600,
) -> tuple[float, list[float]]:
  """Runs METEOR 1.5 for English; the corpus score is not the mean of images.

  Raises:
    RuntimeError: if METEOR dies or needs longer than `timeout` seconds.
  """
  jar = _meteor_jar()
  command = ['java', '-Dfile.encoding=UTF-8', '-jar', '-Xmx2G', jar]
  command += ['-', '-', '-stdio', '-l', 'en', '-norm']
  with _conversation(command, timeout) as say:
    statistics = []
    for texts, candidate in zip(references, candidates, strict=True):
      parts = [_one_line(text) for text in (*texts, candidate)]
      statistics += say(' ||| '.join(['SCORE', *parts]), lines=1)
    scores = say(' ||| '.join(['EVAL', *statistics]), lines=len(candidates) + 1)
  *images, corpus = map(float, scores)
  return corpus, images


def spice(
  jar: str,
  references: Sequence[Sequence[str]],
  candidates: Sequence[str],
  *,
  timeout: float = 3600,
) -> tuple[float, list[float]]:
  """Runs SPICE 1.0 (F-score over all tuples).

  Never run yet: its jar needs the Stanford CoreNLP 3.6.0 models next to it in
  lib/, which come with no Python package.

  Raises:
    RuntimeError: if SPICE fails.
  """
  with tempfile.TemporaryDirectory() as directory:
    source = os.path.join(directory, 'captions.json')
    target = os.path.join(directory, 'scores.json')
    with open(source, 'w', encoding='utf-8') as file:
      items = enumerate(zip(references, candidates, strict=True))
      json.dump(
        [{'image_id': n, 'test': c, 'refs': list(r)} for n, (r, c) in items],
        file,
      )
    command = ['java', '--add-opens', 'java.base/java.lang=ALL-UNNAMED']
    command += ['-Xmx8G', '-jar', jar, source, '-out', target, '-silent']
    run = subprocess.run(
      command, capture_output=True, text=True, timeout=timeout, check=False
    )
    if run.returncode:
      raise RuntimeError(
        f'SPICE failed ({run.returncode}); are the Stanford CoreNLP 3.6.0 jars '
        f'in lib/ beside {jar}? It said: {run.stderr[-2000:]}'
      )
    with open(target, encoding='utf-8') as file:
      results = sorted(json.load(file), key=lambda item: item['image_id'])
  images = [float(item['scores']['All']['f']) for item in results]
  return float(np.mean(images)), images


@contextlib.contextmanager
def _conversation(command: list[str], timeout: float) -> Iterator:
  """Starts a program; yields say(line, lines=n) -> its next n lines."""
  with (
    # A pipe that nobody reads would block the program when it is full.
    tempfile.TemporaryFile() as errors,
    subprocess.Popen(
      command,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=errors,
      encoding='utf-8',
    ) as process,
  ):
    # A killed program ends the read that waits for it.
    watchdog = threading.Timer(timeout, process.kill)
    watchdog.daemon = True
    watchdog.start()

    def say(line: str, *, lines: int) -> list[str]:
      with contextlib.suppress(BrokenPipeError):
        process.stdin.write(line + '\n')
        process.stdin.flush()
      answer = [process.stdout.readline() for _ in range(lines)]
      if not answer[-1]:
        process.kill()
        errors.seek(0)
        said = errors.read()[-2000:].decode(errors='replace')
        raise RuntimeError(
          f'{command[0]} ended early or took more than {timeout} s; raise the '
          f'timeout if it was slow. It said: {said or "nothing"}'
        )
      return [each.strip() for each in answer]

    try:
      yield say
    finally:
      watchdog.cancel()
      process.kill()
      with contextlib.suppress(BrokenPipeError):
        process.stdin.close()


def _meteor_jar() -> str | None:
  package = importlib.util.find_spec('pycocoevalcap')
  if package is None:
    return None
  for directory in package.submodule_search_locations:
    jar = os.path.join(directory, 'meteor', 'meteor-1.5.jar')
    if os.path.isfile(jar):
      return jar
  return None


def _why_no_java() -> str | None:
  if shutil.which('java'):
    return None
  return 'there is no java on the PATH: install a Java runtime, 8 or later'


def _one_line(text: str) -> str:
  """The text without the separators of fields and lines of the protocol."""
  return ' '.join(text.replace('|||', ' ').split())
