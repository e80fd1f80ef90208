"""Released models: small trained ones that the repository ships.

  pretrained/NAME/weights.safetensors  the variables, parameters in float16
                  config.json          the experiment, as in a workdir
                  model.json           what inference needs besides, the origin,
                                       scores, and a list of all tensors
                  card.md              the same for readers
  pretrained/releases.json             texts of the cards

Such a directory is read wherever a workdir is. `scripts/export_pretrained.py`
writes it from a workdir.
"""

import hashlib
import json
import os
import pathlib
from typing import Any

import flax
import jax
import numpy as np
import safetensors
import safetensors.numpy

DIRECTORY = pathlib.Path(__file__).parents[1] / 'pretrained'
WEIGHTS, MODEL = 'weights.safetensors', 'model.json'
# Results of released models go here, from the current directory.
_OUTPUT = pathlib.Path('runs') / 'pretrained'


def names() -> tuple[str, ...]:
  """The names of the released models."""
  return tuple(sorted(x.parent.name for x in DIRECTORY.glob(f'*/{MODEL}')))


def help_text() -> str:
  """Describes a flag that takes a name."""
  return f'name of a released model: {", ".join(names())}'


def path(name: str) -> pathlib.Path:
  """The directory of a released model.

  Raises:
    ValueError: there is none of this name.
  """
  if name not in names():
    raise ValueError(
      f'{name!r} is no released model: there are {", ".join(names()) or "none"}'
    )
  return DIRECTORY / name


def resolve(workdir: str | os.PathLike) -> pathlib.Path:
  """The absolute path of a workdir, or of a released model by its name.

  A text without a slash is a name, unless there is such a directory.

  Raises:
    FileNotFoundError: it is neither a directory nor the name of a model.
  """
  found = pathlib.Path(workdir).expanduser()
  if isinstance(workdir, str) and found.name == workdir and not found.is_dir():
    try:
      found = path(workdir)
    except ValueError as error:
      raise FileNotFoundError(
        f'{workdir!r} is no directory of a trained model, and {error}'
      ) from error
  return found.absolute()


def is_released(directory: pathlib.Path) -> bool:
  """True for the directory of a released model, False for a workdir."""
  return (directory / MODEL).exists()


def output(directory: pathlib.Path) -> pathlib.Path:
  """The directory for the results of a model.

  A workdir itself, but runs/pretrained/NAME for a released model.
  """
  if is_released(directory):
    return (_OUTPUT / directory.name).absolute()
  return directory


def describe(directory: pathlib.Path) -> dict[str, Any]:
  """The contents of `model.json`.

  Raises:
    ValueError: it is not JSON.
  """
  file = directory / MODEL
  try:
    return json.loads(file.read_text())
  except ValueError as error:
    raise ValueError(f'{file} is not JSON: {error}. {_AGAIN}') from error


_AGAIN = 'Get it again: git checkout -- pretrained'


def load(
  directory: pathlib.Path,
) -> tuple[dict[str, Any], dict[str, Any], int]:
  """Loads the variables (f32), extras and step; see `checkpoints.load`.

  Raises:
    ValueError: a file is damaged, or is not the one that was released.
  """
  file = directory / WEIGHTS
  model = describe(directory)
  try:
    contents = file.read_bytes()
    tensors = safetensors.numpy.load(contents)
  except (OSError, safetensors.SafetensorError) as error:
    raise ValueError(f'cannot read {file}: {error}. {_AGAIN}') from error
  found, expected = _list(tensors), model['tensors']
  wrong = [
    f'{name} is {found.get(name, "absent")}, must be '
    f'{expected.get(name, "absent")}'
    for name in sorted(found.keys() | expected.keys())
    if found.get(name) != expected.get(name)
  ]
  if wrong:
    raise ValueError(f'{file}: {"; ".join(wrong)}. {_AGAIN}')
  if hashlib.sha256(contents).hexdigest() != model['sha256']:
    raise ValueError(f'{file} has other numbers than were released. {_AGAIN}')
  single = {
    name: x.astype(np.float32) if x.dtype == np.float16 else x
    for name, x in tensors.items()
  }
  variables = flax.traverse_util.unflatten_dict(single, sep='/')
  return variables, model['extras'], model['step']


def facts(name: str) -> dict[str, str]:
  """The facts of a model that is released, from `releases.json`.

  `module` and `config` train it; `summary`, `licence` (of data and weights),
  `use` (a command) and `limits` are for its card.
  """
  return json.loads((DIRECTORY / 'releases.json').read_text())[name]


def write(
  directory: pathlib.Path,
  variables: Any,
  extras: dict[str, Any],
  step: int,
  *,
  config: dict[str, Any],
  entry: dict[str, Any],
  facts: dict[str, str],
  part: dict[str, Any],
):
  """Writes all files of a released model.

  Args:
    directory: of the model; made if it is absent.
    variables: of the network.
    extras: of the checkpoint; see `checkpoints.load`.
    step: of the checkpoint.
    config: of the run.
    entry: of `results.json`, with the `split` that was scored.
    facts: see `facts`, and the `command` that trained the model.
    part: `split`, number of `examples` and `scores` of some test examples.
  """
  directory.mkdir(parents=True, exist_ok=True)
  origin = {
    'commit': entry['commit'],
    'data': entry['data'],
    'devices': entry['hardware'].partition(' on ')[0],
    'seed': entry['seed'],
    'training_seconds': entry['training_seconds'],
  }
  model = {
    **facts,
    **save_weights(directory, variables),
    'extras': {
      name: x
      for name, x in extras.items()
      if name not in ('config', 'fingerprint', 'commit')
    },
    'step': step,
    'origin': origin,
    'scores': {'split': entry['split'], **entry['scores']},
    'slice': part,
  }
  for name, value in (('config.json', config), (MODEL, model)):
    text = json.dumps(value, indent=2, sort_keys=True) + '\n'
    (directory / name).write_text(text)
  (directory / 'card.md').write_text(card(directory))


def save_weights(directory: pathlib.Path, variables: Any) -> dict[str, Any]:
  """Writes the variables; returns `tensors` and `sha256` of `model.json`.

  Parameters are rounded to float16, which changes each by at most 0.05 %. Other
  collections, such as the variances of BatchNorm, stay as they are.

  Raises:
    ValueError: a parameter is too large for float16, or not finite.
  """
  flat = flax.traverse_util.flatten_dict(jax.device_get(variables), sep='/')
  tensors = {}
  for name, x in flat.items():
    x = np.asarray(x, order='C')  # safetensors ignores the strides.
    if name.startswith('params/') and x.dtype == np.float32:
      with np.errstate(over='ignore'):  # Reported below.
        x = x.astype(np.float16)
    if x.dtype.kind == 'f' and not np.isfinite(x).all():
      raise ValueError(f'{name} has numbers that are not finite in {x.dtype}')
    tensors[name] = x
  contents = safetensors.numpy.save(tensors)
  partial = directory / f'{WEIGHTS}.partial'
  partial.write_bytes(contents)
  os.replace(partial, directory / WEIGHTS)
  return {
    'tensors': _list(tensors),
    'sha256': hashlib.sha256(contents).hexdigest(),
  }


def card(directory: pathlib.Path) -> str:
  """The card of a released model, in Markdown, from its `model.json`."""
  model = describe(directory)
  origin, scores = model['origin'], dict(model['scores'])
  split = scores.pop('split')
  size = (directory / WEIGHTS).stat().st_size / 2**20
  rows = {
    'data': f'`{origin["data"]["name"]}`, fingerprint '
    f'{origin["data"]["fingerprint"]}',
    'licence': model['licence'],
    'trained by': f'`{model["command"]}`',
    'at commit': origin['commit'],
    'time': f'step {model["step"]}, {origin["training_seconds"] / 60:.0f} '
    f'minutes on {origin["devices"]}',
    'size': f'{size:.1f} MiB, parameters in float16',
  }
  lines = [
    f'# {directory.name}',
    '',
    model['summary'],
    '',
    '| | |',
    '|---|---|',
  ]
  lines += [f'| {key} | {value} |' for key, value in rows.items()]
  lines += ['', '```', model['use'], '```', '', '## Scores', '']
  lines += [f'On the {split} split, before rounding to float16:', '']
  lines += ['| score | |', '|---|---|']
  lines += [f'| `{key}` | {value:.4g} |' for key, value in scores.items()]
  lines += ['', '## Limits', '', model['limits'], '']
  return '\n'.join(lines)


def _list(tensors: dict[str, np.ndarray]) -> dict[str, str]:
  """Name -> type and shape of each tensor, 'float16[3, 4]'."""
  return {name: f'{x.dtype}{list(x.shape)}' for name, x in tensors.items()}
