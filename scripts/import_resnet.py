"""Checks published ResNet weights on images and converts them.

  python scripts/import_resnet.py --weights=resnet50.safetensors --check=DIR
  python scripts/import_resnet.py --weights=timm/resnet50.a1_in1k --output=F

The weights are a `.safetensors` or `.npz` file in torchvision's naming, or such
a file of the Hugging Face hub. DIR holds images whose names begin with the
index of their ImageNet class, `0207_golden_retriever.jpg`. The output is a
`.safetensors` file in torchvision's naming, float32.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import PIL.Image

from training import errors
from training import paths
from vision import images
from vision import pretrained
from vision import resnet

BATCH_SIZE = 20


def squeeze(image: np.ndarray) -> np.ndarray:
  """Resizes both sides to 256 pixels, and crops the central 224."""
  resized = PIL.Image.fromarray(image).resize(
    (256, 256), PIL.Image.Resampling.BILINEAR
  )
  return images.center_crop(np.asarray(resized), 224)


# Name -> preprocessing of published accuracies; the first is torchvision's.
PREPROCESSING = {
  'short side to 256': images.for_evaluation,
  'both sides to 256': squeeze,
}


def accuracy(
  network: resnet.ResNet,
  variables: dict[str, Any],
  classifier: dict[str, np.ndarray],
  directory: pathlib.Path,
  preprocess: Callable[[np.ndarray], np.ndarray],
) -> tuple[float, float]:
  """Top-1 and top-5 accuracy on the images of a directory."""
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
  for start in range(0, len(paths), BATCH_SIZE):
    batch = paths[start : start + BATCH_SIZE]
    decoded = [preprocess(images.decode(p)) for p in batch]
    guesses.append(predict(np.stack(decoded)))
  hits = np.concatenate(guesses) == labels[:, None]
  return hits[:, 0].mean(), hits.any(1).mean()


def main():
  """Runs the command."""
  parser = errors.Parser(description=__doc__)
  parser.add_argument(
    '--weights',
    required=True,
    help='file, or name of the Hugging Face hub',
  )
  parser.add_argument(
    '--check',
    type=pathlib.Path,
    metavar='DIR',
    help='print the accuracy on these images',
  )
  parser.add_argument(
    '--output',
    type=pathlib.Path,
    metavar='F.safetensors',
    help='file to write',
  )
  args = parser.parse_args(paths.arguments(parser))
  network = pretrained.architecture(args.weights)
  variables = pretrained.load(args.weights, network.depth)
  print(f'ResNet-{network.depth}, width {network.width}: all tensors found')
  classifier = pretrained.load_classifier(args.weights)
  if args.check:
    if classifier is None:
      parser.error(
        '--check needs weights with a classifier: fc.weight, fc.bias'
      )
    for name, preprocess in PREPROCESSING.items():
      top_1, top_5 = accuracy(
        network, variables, classifier, args.check, preprocess
      )
      print(f'{name}, central 224: top-1 {top_1:.1%}, top-5 {top_5:.1%}')
  if args.output:
    pretrained.save(args.output, variables, classifier)


if __name__ == '__main__':
  errors.run(main)
