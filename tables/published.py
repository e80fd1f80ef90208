"""The tables: rows, their configs, published scores.

Those of video/ are in published_video.py. Units and origins of the numbers are
explained in rows.py.
"""

from tables import flickr8k
from tables import published_video
from tables import rows as rows_lib

Row, Table, DataSet = rows_lib.Row, rows_lib.Table, rows_lib.DataSet
CODE, MEMORY = rows_lib.CODE, rows_lib.MEMORY
BLEU = rows_lib.BLEU
_published = rows_lib.published

FLICKR8K = flickr8k.DATA
FLICKR30K = DataSet('Flickr30k', 29_000, 1_000, accelerator=True)
COCO = DataSet('COCO', 113_287, 5_000, accelerator=True)
UCM = DataSet('UCM-Captions', 1_680, 210, accelerator=False)

_HARD = {'decoder.hard': 'True'}
_REGIONS = {'regions': 'bottom_up'}
# The FC of Rennie et al. 2017, as a change of configs/show_and_tell_coco.py.
_FC = {'decoder.cell': 'maxout', 'decoder.image_bias': 'True'}
# The changes of configs/att2in_coco.py:self_critical, for other configs.
_SELF_CRITICAL = {
  'self_critical.num_samples': '5',
  'optimizer.learning_rate': '5e-5',
  'optimizer.schedule': 'constant',
  'num_steps': '141600',
}


def _captions(name, title, about, columns, rows, decimals=1) -> Table:
  return Table(
    name,
    title,
    about,
    'captioning.main',
    {column: column for column in columns},
    100,
    decimals,
    tuple(rows),
  )


# Show and Tell.

_QUOTED = 'Show and Tell as quoted by Xu et al. 2015'


def _show_and_tell() -> Table:
  config = 'configs/show_and_tell_coco.py'
  return _captions(
    'show_and_tell',
    'Show and Tell (Vinyals et al. 2015)',
    'Published with an Inception encoder, fine-tuned, an ensemble and beams of '
    '20; measured with a frozen ResNet, one model and beams of 3. On COCO the '
    'paper tested on 4,000 images of its own choice, and measured is '
    "Karpathy's test split.",
    (*BLEU, 'METEOR', 'CIDEr'),
    [
      Row(
        'flickr8k',
        'Flickr8k',
        config,
        FLICKR8K,
        {
          'data.name': 'captioned_images/flickr8k',
          'cache_features': 'True',
          'optimizer.decay_steps': '1125',  # 3 epochs.
          'num_steps': '11250',
          'eval_every': '375',
        },
        published=(
          _published(
            'Vinyals et al. 2015', BLEU[:1], (63,), recalled=('BLEU-1',)
          ),
          _published(_QUOTED, BLEU[:3], (63, 41, 27), MEMORY),
        ),
      ),
      Row(
        'flickr30k',
        'Flickr30k',
        config,
        FLICKR30K,
        {
          'data.name': 'captioned_images/flickr30k',
          'cache_features': 'True',
          'optimizer.decay_steps': '5437',  # 3 epochs.
          'num_steps': '54370',
          'eval_every': '1812',
        },
        published=(
          _published('Vinyals et al. 2015', BLEU[:1], (66,)),
          _published(_QUOTED, BLEU, (66.3, 42.3, 27.7, 18.3), MEMORY),
        ),
      ),
      Row(
        'coco',
        'COCO',
        config,
        COCO,
        published=(
          _published(
            'Vinyals et al. 2015',
            ('BLEU-4', 'METEOR', 'CIDEr'),
            (27.7, 23.7, 85.5),
          ),
          _published(_QUOTED, BLEU, (66.6, 46.1, 32.9, 24.6), MEMORY),
        ),
      ),
    ],
  )


# Show, Attend and Tell.


def _show_attend_and_tell() -> Table:
  names = (*BLEU, 'METEOR')
  flickr30k = {
    'data.name': 'captioned_images/flickr30k',
    'num_steps': '58000',  # 32 epochs.
    'eval_every': '1800',
  }
  data_sets = [
    ('flickr8k', FLICKR8K, 'configs/flickr8k.py', {}),
    ('flickr30k', FLICKR30K, 'configs/flickr8k.py', flickr30k),
    ('coco', COCO, 'configs/coco.py', {}),
  ]
  soft = {
    'flickr8k': (67, 44.8, 29.9, 19.5, 18.93),
    'flickr30k': (66.7, 43.4, 28.8, 19.1, 18.49),
    'coco': (70.7, 49.2, 34.4, 24.3, 23.90),
  }
  hard = {
    'flickr8k': (67, 45.7, 31.4, 21.3, 20.30),
    'flickr30k': (66.9, 43.9, 29.6, 19.9, 18.46),
    'coco': (71.8, 50.4, 35.7, 25.0, 23.04),
  }
  return _captions(
    'show_attend_and_tell',
    'Show, Attend and Tell (Xu et al. 2015), Table 1',
    'Published with VGG-19, measured with a frozen ResNet.',
    names,
    [
      Row(
        f'{name}_{kind}',
        f'{data.label}, {kind} attention',
        config,
        data,
        {**overrides, **changed},
        published=(_published('Xu et al. 2015', names, values[name]),),
      )
      for name, data, config, overrides in data_sets
      for kind, changed, values in (('soft', {}, soft), ('hard', _HARD, hard))
    ],
    decimals=2,
  )


# Self-critical sequence training.


def _scst() -> Table:
  names = ('CIDEr', 'BLEU-4', 'ROUGE-L', 'METEOR')
  paper = 'Rennie et al. 2017'
  zoo = 'self-critical.pytorch, model list'
  spice = ('CIDEr', 'SPICE')
  return _captions(
    'scst',
    'Self-critical sequence training (Rennie et al. 2017)',
    "Karpathy's test split. FC is measured with the maxout cell and the bias "
    'of the image that self-critical.pytorch has. Its scores are those of '
    'beams of 5; for its "new" self-critical rows the baseline is the mean of '
    'the other samples, as it is in the measured ones.',
    (*names, 'SPICE', *BLEU[:3]),
    [
      Row(
        'fc',
        'FC, cross-entropy',
        'configs/show_and_tell_coco.py',
        COCO,
        _FC,
        published=(
          _published(
            f'{paper}, greedy', names, (90.9, 28.6, 52.3, 24.1), MEMORY
          ),
          _published(f'{paper}, beam', names, (94.0, 29.6, 52.6, 25.2), MEMORY),
          _published(zoo, spice, (95.3, 17.87), CODE),
        ),
      ),
      Row(
        'fc_self_critical',
        'FC, self-critical',
        'configs/show_and_tell_coco.py',
        COCO,
        {**_FC, **_SELF_CRITICAL},
        'fc',
        (
          _published(paper, names, (106.3, 31.9, 54.3, 25.5)),
          _published(zoo, spice, (104.5, 18.38), CODE),
          _published(f'{zoo}, new', spice, (105.3, 18.57), CODE),
        ),
      ),
      Row(
        'fc_self_critical_bleu',
        'FC, self-critical on BLEU-4',
        'configs/show_and_tell_coco.py',
        COCO,
        {
          **_FC,
          **_SELF_CRITICAL,
          'self_critical.cider': '0.0',
          'self_critical.bleu': '1.0',
          'best_metric': 'BLEU-4',
        },
        'fc',
        (_published(paper, names, (94.4, 33.2, 53.9, 24.6), MEMORY),),
      ),
      Row(
        'att2in',
        'Att2in, cross-entropy',
        'configs/att2in_coco.py',
        COCO,
        published=(
          _published(paper, names, (101.3, 31.3, 54.3, 26.0)),
          _published(
            'ImageCaptioning.pytorch, issue 10, Att2in2',
            (*BLEU, 'METEOR', 'ROUGE-L', 'CIDEr'),
            (75.2, 58.8, 44.8, 33.9, 26.4, 55.1, 105.8),
            CODE,
          ),
        ),
      ),
      Row(
        'att2in_self_critical',
        'Att2in, self-critical',
        'configs/att2in_coco.py:self_critical',
        COCO,
        start_from='att2in',
        published=(
          _published(paper, names, (111.4, 33.3, 55.3, 26.3), MEMORY),
        ),
      ),
      Row(
        'att2in_regions',
        'Att2in, features of regions, cross-entropy',
        'configs/att2in_coco.py',
        COCO,
        _REGIONS,
        published=(_published(zoo, spice, (108.9, 19.82), CODE),),
      ),
      Row(
        'att2in_regions_self_critical',
        'Att2in, features of regions, self-critical',
        'configs/att2in_coco.py:self_critical',
        COCO,
        _REGIONS,
        'att2in_regions',
        (
          _published(zoo, spice, (117.3, 20.46), CODE),
          _published(f'{zoo}, new', spice, (119.5, 20.66), CODE),
        ),
      ),
    ],
  )


# Up-Down.


def _up_down() -> Table:
  names = ('BLEU-1', 'BLEU-4', 'METEOR', 'ROUGE-L', 'CIDEr', 'SPICE')
  config = 'configs/up_down_coco.py'
  paper = 'Anderson et al. 2018'
  zoo = 'self-critical.pytorch, model list'
  spice = ('CIDEr', 'SPICE')
  return _captions(
    'up_down',
    'Bottom-up and top-down attention (Anderson et al. 2018), Table 1',
    "Karpathy's test split, beams of 5. Measured is trained by Adam as in "
    'self-critical.pytorch, published by SGD.',
    names,
    [
      Row(
        'grid',
        'ResNet grid, cross-entropy',
        config,
        COCO,
        published=(
          _published(paper, names, (74.5, 33.4, 26.1, 54.4, 105.4, 19.2)),
        ),
      ),
      Row(
        'grid_self_critical',
        'ResNet grid, self-critical',
        f'{config}:self_critical',
        COCO,
        start_from='grid',
        published=(
          _published(
            paper, names, (76.6, 34.0, 26.5, 54.9, 111.1, 20.2), MEMORY
          ),
        ),
      ),
      Row(
        'regions',
        'features of regions, cross-entropy',
        config,
        COCO,
        _REGIONS,
        published=(
          _published(paper, names, (77.2, 36.2, 27.0, 56.4, 113.5, 20.3), CODE),
          _published(zoo, spice, (109.9, 19.99), CODE),
          _published('X-modaler', ('CIDEr',), (113.1,), CODE),
        ),
      ),
      Row(
        'regions_self_critical',
        'features of regions, self-critical',
        f'{config}:self_critical',
        COCO,
        _REGIONS,
        'regions',
        (
          _published(paper, names, (79.8, 36.3, 27.7, 56.9, 120.1, 21.4), CODE),
          _published(zoo, spice, (122.7, 21.45), CODE),
          _published(f'{zoo}, new', spice, (123.9, 21.54), CODE),
          _published('X-modaler', ('CIDEr',), (124.7,), CODE),
        ),
      ),
    ],
  )


# Adaptive attention.


def _adaptive() -> Table:
  names = (*BLEU, 'METEOR', 'CIDEr')
  config = 'configs/adaptive_coco.py'
  paper = 'Lu et al. 2017, adaptive'
  tuning = {
    'frozen': '()',
    'encoder.freeze_at': '2',
    'optimizer.rates': '(("encoder/", 0.025),)',
    'batch_size': '16',
  }
  flickr30k = {'data.name': 'captioned_images/flickr30k', 'eval_every': '1450'}
  return _captions(
    'adaptive',
    'Adaptive attention (Lu et al. 2017), Table 1',
    "Karpathy's test splits, ResNet-152, beams of 3. The paper's numbers are "
    'those with the encoder fine-tuned; without, its authors and others report '
    'CIDEr of 93 to 99 on COCO.',
    names,
    [
      Row(
        'flickr30k',
        'Flickr30k, encoder frozen',
        config,
        FLICKR30K,
        {**flickr30k, 'num_steps': '29000'},  # 20 epochs.
      ),
      Row(
        'flickr30k_tuned',
        'Flickr30k, then fine-tuned',
        config,
        FLICKR30K,
        {**flickr30k, **tuning, 'num_steps': '54360'},  # 30 epochs.
        'flickr30k',
        (
          _published(
            paper, names, (67.7, 49.4, 35.4, 25.1, 20.4, 53.1), MEMORY
          ),
        ),
      ),
      Row('coco', 'COCO, encoder frozen', config, COCO),
      Row(
        'coco_tuned',
        'COCO, then fine-tuned',
        config,
        COCO,
        {**tuning, 'num_steps': '212400'},  # 30 epochs.
        'coco',
        (
          _published(
            paper,
            names,
            (74.2, 58.0, 43.9, 33.2, 26.6, 108.5),
            recalled=BLEU[:3],
          ),
        ),
      ),
    ],
  )


# UCM-Captions.


def _ucm() -> Table:
  names = (*BLEU, 'METEOR', 'ROUGE-L', 'CIDEr')
  paper = 'Lu et al. 2018, as later papers quote it'
  soft = (74.54, 65.45, 58.55, 52.50, 38.86, 72.37, 261.24)
  hard = (81.57, 73.12, 67.02, 61.82, 42.63, 76.98, 299.47)
  models = {
    'show_and_tell': ('Show and Tell', ()),
    'soft': (
      'soft attention',
      (_published(f'{paper}, soft', names, soft, MEMORY),),
    ),
    'hard': (
      'hard attention',
      (_published(f'{paper}, hard', names, hard, MEMORY),),
    ),
    'adaptive': ('adaptive attention', ()),
    'att2in': ('Att2in', ()),
    'up_down': ('Up-Down', ()),
  }
  rows = []
  for name, (label, published) in models.items():
    config = f'configs/ucm.py:{name}'
    rows += [
      Row(name, f'{label}, cross-entropy', config, UCM, published=published),
      Row(
        f'{name}_self_critical',
        f'{label}, self-critical',
        f'{config}/self_critical',
        UCM,
        start_from=name,
      ),
    ]
  # The others' steps; its own config has more.
  short = Row(
    'show_and_tell_short',
    'Show and Tell, cross-entropy, 400 steps',
    'configs/ucm.py:show_and_tell',
    UCM,
    {'num_steps': '400'},
  )
  rows.insert(0, short)
  return _captions(
    'ucm',
    'UCM-Captions, 210 test images (Lu et al. 2018)',
    'Published with VGG-16, measured with a frozen ResNet-50.',
    names,
    rows,
    decimals=2,
  )


# Sketch-RNN.

_KL_WEIGHTS = ('1.00', '0.50', '0.25')
# Categories -> L_R and L_KL at each of these weights, L_R of the decoder alone.
_SKETCHES = {
  ('cat',): (-0.98, 0.29, -1.33, 0.70, -1.46, 1.01, -0.57),
  ('pig',): (-1.14, 0.22, -1.37, 0.49, -1.52, 0.80, -0.82),
  ('cat', 'pig'): (-1.02, 0.22, -1.24, 0.49, -1.50, 0.98, -0.75),
  ('crab', 'face', 'pig', 'rabbit'): (
    *(-0.91, 0.22, -1.04, 0.40, -1.47, 1.17),
    -0.67,
  ),
  ('face',): (-1.13, 0.27, -1.55, 0.71, -1.90, 1.44, -0.73),
  ('firetruck',): (-1.24, 0.22, -1.26, 0.24, -1.78, 1.10, -0.90),
  ('garden',): (-0.79, 0.20, -0.81, 0.25, -0.99, 0.54, -0.62),
  ('owl',): (-0.93, 0.20, -1.03, 0.34, -1.29, 0.77, -0.66),
  ('mosquito',): (-0.67, 0.30, -1.02, 0.66, -1.41, 1.54, -0.34),
  ('yoga',): (-0.80, 0.24, -1.07, 0.55, -1.51, 1.33, -0.48),
}


def _sketch_rows(categories: tuple[str, ...], values: tuple[float, ...]):
  name = '_'.join(categories)
  label = ', '.join(categories)
  config = 'configs/sketch_cat.py'
  data = DataSet(
    f"QuickDraw's {label}",
    70_000 * len(categories),
    2_500 * len(categories),
    accelerator=True,
  )
  overrides = {'data.name': f'quickdraw_sketches/{name}'}
  if len(categories) > 1:
    overrides = {
      'data.name': 'quickdraw_sketches',
      'data.categories': '("{}")'.format('", "'.join(categories)),
    }
  names = ('reconstruction', 'kl')
  for i, weight in enumerate(_KL_WEIGHTS):
    yield Row(
      f'{name}_kl_{weight}',
      f'{label}, w_KL = {weight}',
      config,
      data,
      {**overrides, 'loss.kl_weight': weight},
      published=(
        _published('Ha and Eck 2017', names, values[2 * i : 2 * i + 2], MEMORY),
      ),
    )
  yield Row(
    f'{name}_decoder_only',
    f'{label}, decoder-only',
    config,
    data,
    {**overrides, 'model.conditional': 'False'},
    published=(_published('Ha and Eck 2017', names[:1], values[-1:], MEMORY),),
  )


def _sketch_rnn() -> Table:
  return Table(
    'sketch_rnn',
    'Sketch-RNN (Ha and Eck 2017), Table 1, test split',
    'Losses in nats: lower is better.',
    'sketch_rnn.main',
    {'L_R': 'reconstruction', 'L_KL': 'kl'},
    1,
    2,
    tuple(
      row
      for categories, values in _SKETCHES.items()
      for row in _sketch_rows(categories, values)
    ),
  )


TABLES = {
  table.name: table
  for table in (
    _show_attend_and_tell(),
    _show_and_tell(),
    _scst(),
    _up_down(),
    _adaptive(),
    _ucm(),
    flickr8k.table(),
    _sketch_rnn(),
    *published_video.tables(),
  )
}
