"""Exports a captioner for other programs: numbers and StableHLO.

  weights.safetensors   all variables by path, float32
  config.json           the experiment, with the preprocessing
  vocabulary.json       the words; the number of a word is its index
  begin.stablehlo       images (or features) -> state and context
  step.stablehlo        state, words, context -> state and logits
  export.json           names, types and shapes of the arguments

The two functions are serialized by `jax.export`; they need none of this code:

  from jax import export
  begin = export.deserialize(open('begin.stablehlo', 'rb').read()).call
  carry, context = begin(weights, images)
  carry, logits = step(weights, carry, tokens, context)

`weights` is the dictionary of weights.safetensors; `carry` and `context` are
lists of arrays. The numbers b of images, k of captions of each and l of regions
are free; the first carry has k = 1. Images are uint8, after the preprocessing
of the config.
"""

import importlib.util
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from captioning import inference
from captioning import model
from captioning import vocabulary as vocabulary_lib
from configs import schema
from training import app
from training import checkpoints
from training import released

WEIGHTS = 'weights.safetensors'
PLATFORMS = ('cpu', 'cuda', 'tpu')


def export(
  workdir: str | os.PathLike,
  output: pathlib.Path,
  *,
  platforms: tuple[str, ...] = PLATFORMS,
  sides: tuple[int, int] | None = None,
) -> dict[str, Any]:
  """Writes the files; returns the contents of export.json.

  Args:
    workdir: of the run, or the name of a released model.
    output: directory, which is made.
    platforms: that the functions can run on.
    sides: height and width of the images, where the captioner reads whole ones.

  Raises:
    FileNotFoundError: the workdir has no checkpoint.
    ImportError: a library is not installed.
    ValueError: `sides` are missing, or there is no choice of them.
  """
  if importlib.util.find_spec('flatbuffers') is None:
    raise ImportError("StableHLO needs flatbuffers: pip install -e '.[export]'")
  config = app.read_config(released.resolve(workdir), schema.CAPTIONING)
  trained = inference.restore(workdir, with_encoder=not config.regions)
  weights = {
    name: np.asarray(x, order='C')
    for name, x in flax.traverse_util.flatten_dict(
      jax.device_get(trained.variables), sep='/'
    ).items()
  }
  functions, description = build(
    trained.network, weights, _input(trained, weights, sides), platforms
  )
  output.mkdir(parents=True, exist_ok=True)
  _write(output / WEIGHTS, safetensors.numpy.save(weights))
  for name, contents in functions.items():
    _write(output / f'{name}.stablehlo', contents)
  trained.vocabulary.save(output / 'vocabulary.json')
  checkpoints.write_json(
    output / 'config.json', json.loads(trained.config.to_json())
  )
  description = {
    **description,
    'weights': {name: _text(x) for name, x in weights.items()},
    'words': {
      'padding': vocabulary_lib.PAD_ID,
      'begin': vocabulary_lib.BOS_ID,
      'end': vocabulary_lib.EOS_ID,
      'unknown': vocabulary_lib.UNK_ID,
    },
    'platforms': list(platforms),
  }
  checkpoints.write_json(output / 'export.json', description)
  return description


def build(
  network: model.Captioner,
  weights: dict[str, np.ndarray],
  inputs: tuple[str, Any],
  platforms: tuple[str, ...],
) -> tuple[dict[str, bytes], dict[str, Any]]:
  """The serialized functions, and the description of their arguments.

  Args:
    network: of the captioner.
    weights: its variables by path.
    inputs: shape and type of the images or features; letters are free sizes.
    platforms: see `export`.
  """
  structures = {}

  def begin(weights, images):
    carry, context = network.apply(
      _nested(weights), images, method='begin', train=False
    )
    for name, tree in (('carry', carry), ('context', context)):
      structures[name] = jax.tree.structure(tree)
    return jax.tree.leaves(carry), jax.tree.leaves(context)

  def step(weights, carry, tokens, context):
    carry, logits = network.apply(
      _nested(weights),
      jax.tree.unflatten(structures['carry'], carry),
      tokens,
      jax.tree.unflatten(structures['context'], context),
      method='step',
      train=False,
    )
    return jax.tree.leaves(carry), logits

  scope = jax.export.SymbolicScope()

  def symbolic(shape, dtype):
    shape = jax.export.symbolic_shape(shape, scope=scope)
    return jax.ShapeDtypeStruct(shape, dtype)

  arrays = {
    name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in weights.items()
  }
  images = symbolic(*inputs)
  begun = _export(begin, platforms, arrays, images)
  first, context = jax.tree.unflatten(begun.out_tree, begun.out_avals)
  # The state has one caption of an image at first, then k.
  carry = [
    jax.ShapeDtypeStruct(
      (x.shape[0], *jax.export.symbolic_shape('k', scope=scope), *x.shape[2:]),
      x.dtype,
    )
    for x in first
  ]
  tokens = symbolic('b, k', jnp.int32)
  stepped = _export(step, platforms, arrays, carry, tokens, context)
  description = {
    'begin': {
      'images' if network.encoder else 'features': _text(images),
      'carry': [_text(x) for x in first],
      'context': [_text(x) for x in context],
    },
    'step': {
      'carry': [_text(x) for x in carry],
      'tokens': _text(tokens),
      'logits': _text(stepped.out_avals[-1]),
    },
  }
  functions = {
    'begin': bytes(begun.serialize()),
    'step': bytes(stepped.serialize()),
  }
  return functions, description


def _export(function: Callable, platforms: tuple[str, ...], *arguments: Any):
  return jax.export.export(jax.jit(function), platforms=platforms)(*arguments)


def _input(
  trained: inference.Trained,
  weights: dict[str, np.ndarray],
  sides: tuple[int, int] | None,
) -> tuple[str, Any]:
  """The shape and the type of the images or features."""
  side = trained.config.data.crop
  whole = trained.network.encoder is not None and not side
  if whole != (sides is not None):
    raise ValueError(
      'it reads whole images: pass --sides HEIGHT WIDTH of those to export for'
      if whole
      else 'the size of its inputs is known: leave out --sides'
    )
  if trained.network.encoder is None:
    return f'b, l, {_features(weights)}', jnp.float32
  height, width = sides or (side, side)
  return f'b, {height}, {width}, 3', jnp.uint8


def _features(weights: dict[str, np.ndarray]) -> int:
  """D of a network of features: the inputs of the first layer that reads them.

  Raises:
    ValueError: it is in none of the known layers.
  """
  for layer in ('annotation', 'image', 'attend/key_layers_0'):
    kernel = weights.get(f'params/decoder/{layer}/kernel')
    if kernel is not None:
      return len(kernel)
  raise ValueError('no layer of the decoder reads the features')


def _nested(weights: dict[str, Any]) -> dict[str, Any]:
  return flax.traverse_util.unflatten_dict(weights, sep='/')


def _text(x: Any) -> str:
  """'float32[b, 14]'."""
  return f'{np.dtype(x.dtype)}[{", ".join(map(str, x.shape))}]'


def _write(path: pathlib.Path, contents: bytes):
  """Writes a file, complete or not at all."""
  partial = path.with_name(f'{path.name}.partial')
  partial.write_bytes(contents)
  os.replace(partial, path)
