r"""Scores captions that are in files, whoever made them.

  python -m captioning.score references.json candidates.json
  python -m captioning.score captions_val2014.json results.csv --json
  python -m captioning.score references.json samples.json --per_image=each.json
  python -m captioning.score chinese.json results.json --tokenizer=characters

BLEU-1 to BLEU-4, ROUGE-L and CIDEr (that is CIDEr-D) equal the official COCO
caption evaluation and need no Java; METEOR is its own program, which runs where
there is Java. Files are JSON (COCO's annotations and results, objects, lists),
CSV or text. Images without a candidate are an error, unless --common scores
those alone that both files have.

Where images have several candidates, the first of each is scored; the best of
each by every metric (oracle) and the mean over all are shown beside it.
"""

import json
import sys
import warnings

from captioning import caption_files
from captioning import languages
from captioning import metrics
from training import errors
from training import paths


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns the exit status."""
  parser = errors.Parser(description=__doc__)
  parser.add_argument('references', help='file of the human captions')
  parser.add_argument('candidates', help='file of the captions to score')
  parser.add_argument(
    '--tokenizer',
    choices=languages.TOKENIZERS,
    default='words',
    help="'words' is the official one; 'characters' is for languages that put "
    'no blanks between words',
  )
  parser.add_argument(
    '--common',
    action='store_true',
    help='score only the images that both files have',
  )
  parser.add_argument(
    '--without_meteor', action='store_true', help='do not run METEOR'
  )
  parser.add_argument('--spice_jar', help='path of the SPICE jar')
  parser.add_argument(
    '--json', action='store_true', help='print JSON instead of lines'
  )
  parser.add_argument(
    '--per_image', metavar='OUT.json', help='write the scores of each image'
  )
  args = parser.parse_args(paths.arguments(parser, argv))
  try:
    references = caption_files.read(args.references)
    candidates = caption_files.read(args.candidates)
    if args.common:
      references = {i: x for i, x in references.items() if i in candidates}
      candidates = {i: candidates[i] for i in references}
    with warnings.catch_warnings(record=True) as caught:
      warnings.simplefilter('always', languages.NoBlanks)
      result = metrics.score(
        references,
        {i: captions[0] for i, captions in candidates.items()},
        meteor=not args.without_meteor,
        spice_jar=args.spice_jar,
        tokenizer=args.tokenizer,
      )
  except (OSError, ValueError) as error:
    parser.error(str(error))
  for warning in caught:
    print(f'warning: {warning.message}', file=sys.stderr)
  several = metrics.of_several(references, candidates, tokenizer=args.tokenizer)
  if args.per_image:
    with open(args.per_image, 'w', encoding='utf-8') as file:
      json.dump(result['per_image'], file, indent=1, ensure_ascii=False)
  if args.json:
    print(
      json.dumps(
        {
          'num_images': len(references),
          'scores': result['corpus'],
          **several,
          'absent': result['absent'],
        },
        indent=2,
      )
    )
    return 0
  columns = {'': result['corpus'], **several}
  print(f'{len(references)} images')
  if several:
    print(' ' * 10 + ''.join(f'{name:>10}' for name in columns).rstrip())
  for name in result['corpus']:
    values = ''.join(
      f'{column[name]:10.4f}' if name in column else ''
      for column in columns.values()
    )
    print(f'{name:10}{values}')
  for name, why in result['absent'].items():
    print(f'{name}: absent. {why}')
  return 0


if __name__ == '__main__':
  errors.run(main)
