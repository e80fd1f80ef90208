"""The networks that publish weights for images, chosen by their depth."""

import dataclasses
import os
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from vision import resnet
from vision import vgg

# Attributes that may change when a trained network is trained on.
_FREE = ('parent', 'name', 'dtype', 'norm_axis_name', 'freeze_at', 'grid_size')

Network = resnet.ResNet | vgg.VGG


def create(
  arguments: Mapping[str, Any],
  *,
  dtype: jnp.dtype = jnp.float32,
  norm_axis_name: str | None = None,
) -> Network:
  """The network of a config's `encoder`.

  Args:
    arguments: of a `VGG` if the depth is 16 or 19, else of a `ResNet`.
    dtype: of the computation.
    norm_axis_name: see `ResNet`; a VGG has no BatchNorm.
  """
  if arguments['depth'] in vgg.LAYOUTS:
    return vgg.VGG(**arguments, dtype=dtype)
  return resnet.ResNet(**arguments, dtype=dtype, norm_axis_name=norm_axis_name)


def check_same(network: Network, earlier: Network, source: str | os.PathLike):
  """Raises a ValueError if weights of one mean something else in the other.

  Args:
    network: the one to be trained.
    earlier: the one that the weights were trained in.
    source: of the weights, for the error.
  """
  here, there = _attributes(network), _attributes(earlier)
  wrong = [
    f'{name} is {there.get(name)!r} there, {here.get(name)!r} here'
    for name in sorted(here.keys() | there.keys())
    if here.get(name) != there.get(name)
  ]
  if wrong:
    raise ValueError(
      f'the encoder of {source} is another: {"; ".join(wrong)}. Start with its '
      'own config: config.json there, or train.py of an imported captioner'
    )


def _attributes(network: Network) -> dict[str, Any]:
  """The kind of the network, and what its numbers depend on."""
  fields = {'kind': type(network).__name__}
  for field in dataclasses.fields(network):
    if field.name not in _FREE:
      value = getattr(network, field.name)
      # A list in JSON.
      is_list = isinstance(value, Sequence) and not isinstance(value, str)
      fields[field.name] = tuple(value) if is_list else value
  return fields
