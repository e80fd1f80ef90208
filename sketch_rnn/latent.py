"""Latent vectors: paths between them, and files that keep them.

Axes: n drawings, Z latent, S steps of a path, R rows and C columns of a grid.
"""

import dataclasses
import os
import pathlib
import zipfile
from collections.abc import Callable

import numpy as np

from sketch_rnn import rendering
from training import array_files

# Below this sine the arc between two directions is a line, numerically.
_MIN_SINE = 1e-7


def lerp(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
  """Linear interpolation, `a` at share 0, `b` at 1: [Z], [Z] -> [Z]."""
  return (1 - share) * a + share * b


def slerp(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
  """Spherical interpolation, `a` at share 0, `b` at 1: [Z], [Z] -> [Z].

  White, "Sampling Generative Networks" (2016), as in the published code: the
  angle is that between the directions, the norms are kept. Parallel, opposite
  and zero vectors have no arc; for them it is `lerp`.
  """
  lengths = np.linalg.norm(a) * np.linalg.norm(b)
  if lengths == 0:
    return lerp(a, b, share)
  angle = np.arccos(np.clip(np.dot(a, b) / lengths, -1, 1))
  sine = np.sin(angle)
  if sine < _MIN_SINE:
    return lerp(a, b, share)
  return (
    np.sin((1 - share) * angle) / sine * a + np.sin(share * angle) / (sine) * b
  )


INTERPOLATIONS = {'spherical': slerp, 'linear': lerp}


def path(
  a: np.ndarray,
  b: np.ndarray,
  steps: int,
  between: Callable[..., np.ndarray] = slerp,
) -> np.ndarray:
  """A path from `a` to `b`, both included: [Z], [Z] -> f32[S, Z]."""
  return np.stack(
    [between(a, b, share) for share in np.linspace(0, 1, steps)]
  ).astype(np.float32)


def grid(
  corners: np.ndarray,
  steps: int,
  between: Callable[..., np.ndarray] = slerp,
) -> np.ndarray:
  """A grid between four corners: f32[4, Z] -> f32[R, C, Z], R = C = `steps`.

  The corners are in reading order: top left, top right, bottom left, bottom
  right. The left and right sides are paths; each row is a path between them.
  """
  left = path(corners[0], corners[2], steps, between)
  right = path(corners[1], corners[3], steps, between)
  return np.stack(
    [path(a, b, steps, between) for a, b in zip(left, right, strict=True)]
  )


@dataclasses.dataclass(frozen=True)
class Latents:
  """Latent vectors of drawings; the contents of a file.

  Attributes:
    z: f32[n, Z], one sample of each posterior.
    mean: f32[n, Z], the means of the posteriors.
    sigma: f32[n, Z], their standard deviations.
    ids: ids of the drawings.
    categories: their categories, '' where there are none.
  """

  z: np.ndarray
  mean: np.ndarray
  sigma: np.ndarray
  ids: list[str]
  categories: list[str]


def save(path: str | os.PathLike, latents: Latents):
  """Writes an .npz of the attributes; it is whole or absent."""
  rendering.write_file(
    pathlib.Path(path),
    lambda file: np.savez(
      file,
      z=latents.z,
      mean=latents.mean,
      sigma=latents.sigma,
      ids=np.array(latents.ids, np.str_),
      categories=np.array(latents.categories, np.str_),
    ),
  )


def load(path: str | os.PathLike) -> Latents:
  """Reads a file of `save`, or any .npz with an array `z`.

  Raises:
    OSError: the file cannot be read.
    ValueError: it holds no latent vectors, or in another form.
  """
  try:
    arrays = array_files.read_npz(path)
  except ValueError as error:
    raise ValueError(f'{path} is not an .npz of numbers: {error}') from error
  if 'z' not in arrays:
    raise ValueError(
      f'{path} has no array `z` of latent vectors, only {", ".join(arrays)}: '
      'write one with `python -m sketch_rnn.sample encode`'
    )
  z = arrays['z']
  if z.ndim != 2 or z.dtype.kind != 'f' or not np.all(np.isfinite(z)):
    raise ValueError(
      f'{path}: `z` is {z.dtype}{list(z.shape)}, it must be finite f32[n, Z]'
    )
  z = z.astype(np.float32)
  mean = arrays.get('mean', z)
  sigma = arrays.get('sigma', np.zeros_like(z))
  ids = arrays.get('ids', np.arange(len(z)))
  categories = arrays.get('categories', np.full(len(z), ''))
  for name, array in (('mean', mean), ('sigma', sigma)):
    if (
      array.shape != z.shape
      or array.dtype.kind != 'f'
      or not np.all(np.isfinite(array))
    ):
      raise ValueError(
        f'{path}: `{name}` is {list(array.shape)} of {array.dtype}, it must be '
        f'finite f32{list(z.shape)} like `z`'
      )
  for name, array in (('ids', ids), ('categories', categories)):
    if array.shape != z.shape[:1]:
      raise ValueError(
        f'{path}: `{name}` is {list(array.shape)}, `z` {list(z.shape)}'
      )
  return Latents(
    z=z,
    mean=mean.astype(np.float32),
    sigma=sigma.astype(np.float32),
    ids=[str(i) for i in ids],
    categories=[str(name) for name in categories],
  )


def is_file(path: str | os.PathLike) -> bool:
  """Returns True for a file of latent vectors, False for one of drawings."""
  try:
    with zipfile.ZipFile(path) as archive:
      return 'z.npy' in archive.namelist()
  # A damaged archive raises almost anything; `load` or the reader of drawings
  # then names it.
  except Exception:
    return False
