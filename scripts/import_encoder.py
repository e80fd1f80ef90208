"""Checks published weights of a ResNet or a VGG on images and converts them.

  python scripts/import_encoder.py --weights=vgg16-397923af.pth --check=DIR
  python scripts/import_encoder.py --weights=timm/resnet50.a1_in1k --output=F

The weights are a `.safetensors`, `.npz` or `.pth` file in torchvision's naming,
or such a file of the Hugging Face hub. DIR holds images whose names begin with
the index of their ImageNet class, `0207_golden_retriever.jpg`. The output is a
`.safetensors` file in torchvision's naming, float32.
"""

import pathlib

from training import errors
from training import paths
from vision import images
from vision import pretrained

# Name -> preprocessing of published accuracies; the first is torchvision's.
PREPROCESSING = {
  'short side to 256': images.for_evaluation,
  'both sides to 256': lambda image: images.center_crop(
    images.fit(image, 0, 256), 224
  ),
}


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
  network, variables, classifier = pretrained.load_whole(args.weights)
  title = f'{type(network).__name__}-{network.depth}'
  print(f'{title}, width {network.width}: all tensors found')
  if args.check:
    if classifier is None:
      parser.error(
        '--check needs weights with a classifier: fc.weight, fc.bias, or '
        'classifier.0 to classifier.6 of a VGG'
      )
    for name, preprocess in PREPROCESSING.items():
      top_1, top_5 = pretrained.accuracy(
        network, variables, classifier, args.check, preprocess
      )
      print(f'{name}, central 224: top-1 {top_1:.1%}, top-5 {top_5:.1%}')
  if args.output:
    pretrained.save(args.output, variables, classifier)


if __name__ == '__main__':
  errors.run(main)
