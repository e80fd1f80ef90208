"""What `results.json` of a workdir holds: an entry for each evaluation.

An entry has the scores and how they came about; `from_run` is what all entries
of trained models say.
"""

import json
import pathlib
from typing import Any

import jax
import ml_collections

from training import checkpoints
from training import provenance
from training import report


def from_run(
  workdir: pathlib.Path, config: ml_collections.ConfigDict, step: int
) -> dict[str, Any]:
  """How a run came to what it is.

  Args:
    workdir: of the run.
    config: of the run; it has `seed`, and `num_steps` unless the weights were
      imported: then `num_steps` and `training_seconds` are None.
    step: of the checkpoint that is evaluated.
  """
  return {
    'step': step,
    'num_steps': config.get('num_steps'),
    'training_seconds': report.training_seconds(workdir),
    'seed': config.seed,
    'config': json.loads(config.to_json()),
    'hardware': provenance.hardware(),
    'commit': provenance.commit(),
  }


def add(workdir: pathlib.Path, name: str, entry: dict[str, Any]):
  """Puts an entry in, in place of an earlier one of its name.

  Of several processes the first one does.
  """
  if jax.process_index():
    return
  path = workdir / 'results.json'
  entries = json.loads(path.read_text()) if path.exists() else {}
  checkpoints.write_json(path, {**entries, name: entry})
