"""The file `results.json` of a workdir: an entry for each evaluation.

An entry has the scores and their origin; `from_run` returns the part that the
entries of all trained models have.
"""

import json
import pathlib
from typing import Any

import jax
import ml_collections

from training import checkpoints
from training import locks
from training import provenance
from training import report


def from_run(
  workdir: pathlib.Path, config: ml_collections.ConfigDict, step: int
) -> dict[str, Any]:
  """The origin of a trained model.

  Args:
    workdir: of the run.
    config: of the run; it has `seed`, and `num_steps` unless the weights were
      imported: then `num_steps` and `training_seconds` are None. So is
      `cpu_seconds`, and that of runs which did not record it.
    step: of the checkpoint that is evaluated.
  """
  return {
    'step': step,
    'num_steps': config.get('num_steps'),
    'training_seconds': report.training_seconds(workdir),
    'cpu_seconds': report.cpu_seconds(workdir),
    'seed': config.seed,
    'config': json.loads(config.to_json()),
    'hardware': provenance.hardware(),
    'commit': provenance.commit(),
  }


def add(workdir: pathlib.Path, name: str, entry: dict[str, Any]):
  """Writes an entry, in place of an earlier one of this name.

  The first of several processes writes it.
  """
  if jax.process_index():
    return
  path = workdir / 'results.json'
  # Evaluations may run beside one another, and beside the training.
  with locks.waiting(workdir, '.results.lock'):
    entries = json.loads(path.read_text()) if path.exists() else {}
    checkpoints.write_json(path, {**entries, name: entry})
