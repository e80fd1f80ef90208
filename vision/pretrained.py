"""Converts published ResNets and VGGs, named as torchvision's, and back.

Files are `.safetensors` or `.npz`, which hold arrays only, or `.pth` and `.pt`
of PyTorch, of which nothing is run (see torch_files.py). Names of tensors are
torchvision's (`layer1.0.conv1.weight`, `features.0.weight`), as in timm's plain
ResNets and VGGs, whose dense layers alone have other names; kernels are
[outputs, inputs, height, width] there and [height, width, inputs, outputs]
here. The last layer, `fc` or `classifier.6`, is not part of the networks and is
read separately.

A source is a path, or a file of the Hugging Face hub, which is downloaded once:
`hf://timm/resnet50.a1_in1k/model.safetensors`, or `timm/resnet50.a1_in1k` for
the `model.safetensors` of a repository.

Axes: D features of the network, K classes.
"""

import collections
import os
import pathlib
import re
import zipfile
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import traverse_util

from vision import images
from vision import networks
from vision import resnet
from vision import torch_files
from vision import vgg

_BATCH_SIZE = 20  # Of images whose accuracy is measured.
_MAX_BYTES = 2**30  # Of an .npz; a VGG-19 has 575 MB.
# Sources with these endings are paths, never repositories of the hub.
_TORCH = ('.pth', '.pt', '.bin', '.tar')
_SUFFIXES = ('.safetensors', '.npz', *_TORCH)
_LEAVES = {
  'kernel': 'weight',
  'scale': 'weight',
  'bias': 'bias',
  'mean': 'running_mean',
  'var': 'running_var',
}
_SHOWN = 5  # Names of an error.
_LAST = {resnet.ResNet: 'fc', vgg.VGG: 'classifier.6'}
# timm's names of the dense layers of a VGG.
_DENSE = {
  'pre_logits.fc1.': 'classifier.0.',
  'pre_logits.fc2.': 'classifier.3.',
  'head.fc.': 'classifier.6.',
}


def load(
  source: str | os.PathLike, depth: int, *, fc7: bool = False
) -> dict[str, Any]:
  """Returns {'params': ..., 'batch_stats': ...} of a network, all f32.

  The width, and the kind of stem of a ResNet, are those of the file. Every
  other tensor must have the name and the shape of a network of this depth.

  Args:
    source: a path, or a name of the hub.
    depth: of a VGG, 16 or 19; else of a ResNet.
    fc7: reads the first two dense layers of a VGG, too.
  """
  return from_tensors(read(source), depth, source, fc7=fc7)


def load_encoder(
  source: str | os.PathLike, arguments: Mapping[str, Any]
) -> dict[str, Any]:
  """The variables of a config's `encoder`; see `load`.

  Raises:
    ValueError: the file is damaged, or of another depth, width or stem.
  """
  network = networks.create(arguments)
  fc7 = isinstance(network, vgg.VGG) and network.fc7
  tensors = read(source)
  variables = from_tensors(tensors, network.depth, source, fc7=fc7)
  _check_fits(source, variables, network, _network(tensors, network.depth))
  return variables


def _check_fits(
  source: str | os.PathLike,
  variables: dict[str, Any],
  network: networks.Network,
  found: networks.Network,
):
  """Raises a ValueError if a network has parameters of other shapes.

  Args:
    source: of the variables, for the error.
    variables: of the file.
    network: that of the config; it may have fewer stages.
    found: that of the file.
  """
  names = ('width', 'stem') if isinstance(found, resnet.ResNet) else ('width',)
  values = {name: getattr(found, name) for name in names}
  if values == {name: getattr(network, name) for name in names}:
    return
  there = traverse_util.flatten_dict(variables['params'], sep='/')
  here = traverse_util.flatten_dict(_shapes(network)['params'], sep='/')
  wrong = [
    f'{name} is {there[name].shape if name in there else "absent"} in the '
    f'file, {x.shape} in the config'
    for name, x in here.items()
    if name not in there or there[name].shape != x.shape
  ]
  # A stem with more convolutions has parameters that the config has not.
  reason = f': {wrong[0]}' if wrong else ''
  reason += f', and {len(wrong) - 1} more differ' if len(wrong) > 1 else ''
  values = ', '.join(f'{k}={v!r}' for k, v in values.items())
  raise ValueError(
    f'{source} does not fit config.encoder{reason}.\n'
    f'The file is a {_title(found.depth)} with {values}: set these in the '
    'config, or take another file'
  )


def put_encoder(variables: Any, encoder: Any) -> Any:
  """Adds the encoder's collections to the variables of a model with one."""
  result = {name: dict(tree) for name, tree in variables.items()}
  for name, tree in encoder.items():
    result.setdefault(name, {})['encoder'] = tree
  return result


def load_whole(
  source: str | os.PathLike,
) -> tuple[networks.Network, dict[str, Any], dict[str, np.ndarray] | None]:
  """The network of a file, its variables and its last layer, if it has one."""
  tensors = read(source)
  network = architecture_of(tensors, source)
  fc7 = isinstance(network, vgg.VGG) and network.fc7
  variables = from_tensors(tensors, network.depth, source, fc7=fc7)
  return network, variables, _last_layer(tensors)


def from_tensors(
  tensors: Mapping[str, np.ndarray],
  depth: int,
  source: str | os.PathLike,
  *,
  fc7: bool = False,
) -> dict[str, Any]:
  """The variables of tensors by torchvision's names; see `load`.

  Args:
    tensors: f32, of a network of this depth.
    depth: of the network.
    source: of the tensors, for errors.
    fc7: reads the first two dense layers of a VGG, too.
  """
  network = _network(tensors, depth, fc7=fc7)
  template = _shapes(network)
  expected = jax.eval_shape(_to_torchvision, template)
  _check(source, tensors, expected, network)
  flat = {}
  for path in traverse_util.flatten_dict(template):
    flat[path] = _transposed(tensors[_name(path)], (2, 3, 1, 0))
  return traverse_util.unflatten_dict(flat)


def _shapes(network: networks.Network) -> dict[str, Any]:
  """The shapes of a network's variables."""
  return jax.eval_shape(
    lambda: network.init(
      jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False
    )
  )


def load_classifier(source: str | os.PathLike) -> dict[str, np.ndarray] | None:
  """Returns the last layer as parameters of `nn.Dense`; None without one.

  kernel f32[D, K], bias f32[K].
  """
  return _last_layer(read(source))


def _last_layer(
  tensors: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray] | None:
  for name in _LAST.values():
    weight, bias = tensors.get(f'{name}.weight'), tensors.get(f'{name}.bias')
    if weight is not None and bias is not None:
      return {'kernel': weight.T, 'bias': bias}
  return None


def architecture(source: str | os.PathLike) -> networks.Network:
  """Returns the network of a file, inferred from its names and its stem."""
  return architecture_of(read(source), source)


def architecture_of(
  tensors: Mapping[str, np.ndarray], source: str | os.PathLike
) -> networks.Network:
  """The network of tensors by torchvision's names; see `architecture`."""
  depth = _depth(tensors)
  if depth is None:
    raise ValueError(
      f'{source} does not have the blocks of a ResNet-18, -34, -50, -101 or '
      "-152, or of a VGG-16 or -19 without BatchNorm: use one in torchvision's "
      'naming'
    )
  return _network(tensors, depth, fc7='classifier.3.weight' in tensors)


def save(
  path: str | os.PathLike,
  variables: Mapping[str, Any],
  classifier: Mapping[str, Any] | None = None,
) -> None:
  """Writes a network's variables as `.safetensors` in torchvision's naming.

  `classifier` is a result of `load_classifier`. The file appears complete or
  not at all.
  """
  path = pathlib.Path(path)
  if path.suffix != '.safetensors':
    raise ValueError(f'{path}: pass a name that ends in .safetensors')
  tensors = _to_torchvision(jax.device_get(variables))
  if classifier is not None:
    name = _LAST[vgg.VGG if 'features.0.weight' in tensors else resnet.ResNet]
    tensors[f'{name}.weight'] = classifier['kernel'].T
    tensors[f'{name}.bias'] = classifier['bias']
  # safetensors writes the buffer in memory order and ignores the strides.
  tensors = {k: np.ascontiguousarray(v) for k, v in tensors.items()}
  partial = path.with_suffix('.partial')
  partial.write_bytes(safetensors.numpy.save(tensors))
  os.replace(partial, path)


def accuracy(
  network: networks.Network,
  variables: dict[str, Any],
  classifier: dict[str, np.ndarray],
  directory: pathlib.Path,
  preprocess: Callable[[np.ndarray], np.ndarray],
) -> tuple[float, float]:
  """Top-1 and top-5 accuracy on the images of a directory.

  Their names begin with the number of the class, '0207_golden_retriever.jpg'.
  """
  paths = sorted(p for p in directory.iterdir() if p.name[:1].isdigit())
  if not paths:
    raise ValueError(
      f'{directory} has no images named as 0207_dog.jpg: rename them'
    )
  labels = np.array([int(p.name.split('_')[0]) for p in paths])

  @jax.jit
  def predict(batch):
    pooled = network.apply(variables, images.normalize(batch), train=False)[1]
    logits = pooled @ classifier['kernel'] + classifier['bias']
    return jax.lax.top_k(logits, 5)[1]

  guesses = []
  for start in range(0, len(paths), _BATCH_SIZE):
    batch = paths[start : start + _BATCH_SIZE]
    decoded = [preprocess(images.decode(p)) for p in batch]
    guesses.append(predict(np.stack(decoded)))
  hits = np.concatenate(guesses) == labels[:, None]
  return hits[:, 0].mean(), hits.any(1).mean()


def _name(path: tuple[str, ...]) -> str:
  """('params', 'layer1', '0', 'bn1', 'scale') -> 'layer1.0.bn1.weight'."""
  _, *modules, leaf = path
  return '.'.join([*modules, _LEAVES[leaf]])


def _to_torchvision(variables: Mapping[str, Any]) -> dict[str, Any]:
  flat = traverse_util.flatten_dict(variables)
  return {_name(path): _transposed(x, (3, 2, 0, 1)) for path, x in flat.items()}


def _transposed(x: Any, axes: tuple[int, ...]) -> Any:
  """A kernel of a convolution with these axes, of a dense layer transposed."""
  return x.transpose(axes) if x.ndim == 4 else x.T


def _network(
  tensors: Mapping[str, np.ndarray], depth: int, *, fc7: bool = False
) -> networks.Network:
  """The network of this depth with the width and the stem of the file."""
  is_vgg = depth in vgg.LAYOUTS
  stem = tensors.get('features.0.weight' if is_vgg else 'conv1.weight')
  width = {} if stem is None or stem.ndim != 4 else {'width': stem.shape[0]}
  if is_vgg:
    return vgg.VGG(depth, **width, fc7=fc7)
  if not width:
    return resnet.ResNet(depth)
  kind = 'published' if stem.shape[-1] == 7 else 'whole'
  if 'conv2.weight' in tensors:
    kind = 'strided'
  return resnet.ResNet(depth, **width, stem=kind)


def _depth(tensors: Mapping[str, np.ndarray]) -> int | None:
  """The depth of a network with these blocks, complete or not."""
  convolutions = {
    name
    for name, x in tensors.items()
    if name.startswith('features.') and x.ndim == 4
  }
  for depth, layout in vgg.LAYOUTS.items():
    if convolutions == {f'features.{i}.weight' for i in vgg.numbers(layout)}:
      return depth
  matches = [re.match(r'layer(\d)\.\d+\.', name) for name in tensors]
  blocks = {match[0]: match[1] for match in matches if match}
  counts = collections.Counter(blocks.values())
  bottleneck = any('.conv3.' in name for name in tensors)
  for depth, layout in resnet.LAYOUTS.items():
    if layout == (bottleneck, tuple(counts[stage] for stage in '1234')):
      return depth
  return None


def _title(depth: int) -> str:
  return f'{"VGG" if depth in vgg.LAYOUTS else "ResNet"}-{depth}'


def _check(
  source: str | os.PathLike,
  tensors: Mapping[str, np.ndarray],
  expected: Mapping[str, jax.ShapeDtypeStruct],
  network: networks.Network,
) -> None:
  """Raises one error that counts unexpected and missing tensors."""
  others = 'classifier.' if isinstance(network, vgg.VGG) else 'fc.'
  missing = sorted(set(expected) - set(tensors))
  unexpected = sorted(
    name for name in set(tensors) - set(expected) if not name.startswith(others)
  )
  misshapen = [
    f'{name} {tensors[name].shape} instead of {expected[name].shape}'
    for name in sorted(set(tensors) & set(expected))
    if tensors[name].shape != expected[name].shape
  ]
  problems = [
    f'{len(names)} {kind}: {", ".join(names[:_SHOWN])}'
    f'{", ..." if len(names) > _SHOWN else ""}.'
    for kind, names in (
      ('missing', missing),
      ('unexpected', unexpected),
      ('of another shape', misshapen),
    )
    if names
  ]
  if not problems:
    return
  found = _depth(tensors)
  if found is None:
    advice = "Use a ResNet or a VGG in torchvision's naming."
  elif found != network.depth:
    advice = f'It looks like a {_title(found)}: load it with depth={found}.'
  else:
    advice = 'Download or export the file again.'
  raise ValueError(
    f'{source} is not a {_title(network.depth)}. {advice}\n{" ".join(problems)}'
  )


def read(source: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads tensors f32 by name, without BatchNorm's counters of batches.

  Names are those of the file, but for timm's VGGs: theirs are torchvision's.
  """
  path = _local_path(source)
  try:
    if path.suffix == '.safetensors':
      tensors = safetensors.numpy.load_file(path)
    elif path.suffix == '.npz':
      tensors = _read_npz(path)
    elif path.suffix in _TORCH:
      tensors = torch_files.tensors(torch_files.load(path))
    else:
      raise ValueError(
        f'only .safetensors, .npz, {", ".join(_TORCH)} are read: convert it '
        'first'
      )
    tensors = _renamed(to_float32(tensors))
  except FileNotFoundError:
    raise
  # A damaged file, or a type that NumPy lacks, raises almost anything.
  except Exception as error:
    raise ValueError(f'cannot read weights from {source}: {error}') from error
  return tensors


def to_float32(
  tensors: Mapping[str, np.ndarray | torch_files.Tensor],
) -> dict[str, np.ndarray]:
  """The tensors without BatchNorm's counters of batches.

  Raises:
    ValueError: a tensor has integers, NaN or infinity.
  """
  result = {}
  for name, tensor in tensors.items():
    if name.rpartition('.')[2] == 'num_batches_tracked':
      continue
    if isinstance(tensor, torch_files.Tensor):
      tensor = tensor.array()
    if not jnp.issubdtype(tensor.dtype, jnp.floating):
      raise ValueError(f'{name} is {tensor.dtype}: export it as float32')
    with np.errstate(over='ignore', invalid='ignore'):  # Checked next.
      result[name] = tensor.astype(np.float32)
    if not np.isfinite(result[name]).all():
      raise ValueError(
        f'{name} has NaN or infinity: download or export the file again'
      )
  return result


def _renamed(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The tensors of timm's VGG by torchvision's names; others as they are."""
  if 'features.0.weight' not in tensors:
    return tensors
  result = {}
  for name, x in tensors.items():
    for theirs, ours in _DENSE.items():
      if name.startswith(theirs):
        name = ours + name.removeprefix(theirs)
        x = x.reshape(len(x), -1) if x.ndim == 4 else x  # As convolutions.
    result[name] = x
  return result


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
  with zipfile.ZipFile(path) as archive:
    # No member inflates to more than is written here.
    size = sum(info.file_size for info in archive.infolist())
  if size > _MAX_BYTES:
    raise ValueError(f'it inflates to more than {_MAX_BYTES} bytes')
  with np.load(path, allow_pickle=False) as arrays:
    return dict(arrays)


def _local_path(source: str | os.PathLike) -> pathlib.Path:
  """Downloads a file of the hub; returns a path as it is."""
  path = pathlib.Path(source)
  named = re.fullmatch(r'hf://([^/]+/[^/]+)(?:/(.+))?', str(source))
  if not named and not path.exists() and path.suffix not in _SUFFIXES:
    named = re.fullmatch(r'([\w-][\w.-]*/[\w.-]+)()', str(source))
  if not named:
    return path
  repository, name = named[1], named[2] or 'model.safetensors'
  try:
    return pathlib.Path(huggingface_hub.hf_hub_download(repository, name))
  except (OSError, ValueError) as error:
    raise ValueError(
      f'cannot download {name} of {repository} from the Hugging Face hub: '
      'check the name and the network, or download the file elsewhere and '
      f'pass its path ({error})'
    ) from error
