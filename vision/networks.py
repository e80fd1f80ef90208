"""The networks that publish weights for images, chosen by their depth."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from vision import resnet
from vision import vgg

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
