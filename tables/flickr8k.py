"""The table of Flickr8k: captioners of all kinds beside three papers.

Tanti, Gatt and Camilleri 2018 (Where to put the image in an image caption
generator) published the captions of their runs, too; see rescored.py.
"""

from tables import rows as rows_lib

Row, Table = rows_lib.Row, rows_lib.Table
BLEU = rows_lib.BLEU
_published = rows_lib.published

DATA = rows_lib.DataSet('Flickr8k', 6_000, 1_000, accelerator=False)

_ABOUT = (
  'The official splits. Measured with a frozen ResNet-50, whose weights were '
  'published in a compressed form (float16, BatchNorm folded), on images '
  'squashed to 224 x 224, not cropped; Show and Tell was published with an '
  'Inception encoder, Show, Attend and Tell with VGG-19, Tanti et al. with '
  'VGG-16. Perplexity is the geometric mean over captions of their '
  'perplexities, END included, as Tanti et al. define it: theirs over the '
  'first caption of each image, measured over all five, of which 2.5 % are cut '
  'to 20 words. Label smoothing raises it. The CPU time is that of the '
  'training process.'
)
_TANTI = (*BLEU, 'METEOR', 'ROUGE-L', 'CIDEr', 'caption_perplexity')
# Means and sample standard deviations of three runs, of their results.txt.
_RUNS = {
  'init_inject': (
    (61.11, 42.40, 28.54, 19.12, 19.40, 44.49, 48.13, 13.70),
    (0.26, 0.55, 0.65, 0.52, 0.06, 0.29, 1.19, 0.03),
  ),
  'pre_inject': (
    (60.87, 42.06, 28.48, 19.00, 19.11, 44.37, 46.92, 13.54),
    (0.85, 0.67, 0.50, 0.37, 0.18, 0.42, 1.15, 0.16),
  ),
  'par_inject': (
    (61.14, 42.44, 28.67, 19.14, 19.34, 44.80, 47.54, 13.42),
    (0.15, 0.21, 0.32, 0.34, 0.20, 0.36, 0.53, 0.10),
  ),
  'merge': (
    (60.00, 41.26, 27.29, 17.79, 19.29, 44.35, 46.90, 13.96),
    (0.86, 0.71, 0.63, 0.52, 0.20, 0.43, 1.80, 0.08),
  ),
}
# One human caption of each test image against the other four, by the official
# scorer: tests/golden, flickr8k_test_human.
HUMAN = (59.44, 43.28, 30.17, 21.04, 21.92, 47.63, 77.30)

_XU = 'Xu et al. 2015'
_XU_NAMES = (*BLEU, 'METEOR')
# Name -> label, published row, aims of cross-entropy and self-critically.
_MODELS = {
  'soft': (
    'soft attention',
    _published(f'{_XU}, soft', _XU_NAMES, (67, 44.8, 29.9, 19.5, 18.93)),
    {'BLEU-4': 20, 'METEOR': 19},
  ),
  'show_and_tell': (
    'Show and Tell',
    _published('Vinyals et al. 2015', BLEU[:1], (63,), recalled=('BLEU-1',)),
    {},
  ),
  'att2in': ('Att2in', None, {}),
  'hard': (
    'hard attention',
    _published(f'{_XU}, hard', _XU_NAMES, (67, 45.7, 31.4, 21.3, 20.30)),
    {'BLEU-4': 21.3},
  ),
  'up_down': ('Up-Down', None, {}),
  'adaptive': ('adaptive attention', None, {}),
}
_LABELS = {
  'init_inject': 'init-inject',
  'merge': 'merge',
  'par_inject': 'par-inject',
  'pre_inject': 'pre-inject',
}


def _aims(bounds: dict[str, float]) -> dict[str, rows_lib.Aim]:
  return {name: rows_lib.Aim(at_least=bound) for name, bound in bounds.items()}


def table() -> Table:
  """The table."""
  rows = []
  for name, (label, published, bounds) in _MODELS.items():
    config = f'configs/flickr8k.py:{name}'
    rows += [
      Row(
        name,
        f'{label}, cross-entropy',
        config,
        DATA,
        published=(published,) if published else (),
        aims=_aims(bounds),
      ),
      Row(
        f'{name}_self_critical',
        f'{label}, self-critical',
        f'{config}/self_critical',
        DATA,
        start_from=name,
        aims=_aims({'CIDEr': 58} if name == 'soft' else {}),
      ),
    ]
  for name, label in _LABELS.items():
    means, deviations = _RUNS[name]
    rows.append(
      Row(
        name,
        f'{label}, cross-entropy',
        f'configs/flickr8k.py:{name}',
        DATA,
        published=(
          _published(
            f'Tanti et al. 2018, {label}',
            _TANTI,
            means,
            rows_lib.CODE,
            std=deviations,
          ),
        ),
        # Within their spread, or above it.
        aims=_aims({'CIDEr': round(means[6] - deviations[6], 2)}),
      )
    )
  columns = {name: name for name in _TANTI[:-1]}
  return Table(
    'flickr8k',
    'Flickr8k, 1,000 test images',
    _ABOUT,
    'captioning.main',
    {**columns, 'perplexity': 'caption_perplexity'},
    100,
    2,
    tuple(rows),
    others=(
      _published(
        'a human caption against the other four',
        _TANTI[:-1],
        HUMAN,
        rows_lib.CODE,
      ),
    ),
    unscaled=('caption_perplexity',),
  )
