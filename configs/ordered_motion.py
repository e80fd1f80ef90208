r"""The embedded default of classification: two directions, one after the other.

  python -m video.classify --config=configs/ordered_motion.py --workdir=runs/gru
  python -m video.classify --config=configs/ordered_motion.py:bag \
    --workdir=runs/bag

SYNTHETIC data: 6,000 clips of 16 frames of 32 x 32 pixels, generated at first
use. The frames of a clip, in another order, are a clip of another class. No bag
of frames can therefore be right more than half of the time.

The argument is one of `MODELS`; 'lrcn' is as in Donahue et al. 2015 except for
the size: an LSTM whose loss is that of every frame. Goals: accuracy of the GRU
at least 0.90 on the test split, of a bag at most 0.55; of clips played
backwards, against their new class, at least 0.90; of shuffled clips at most
0.20. Measured, three seeds: GRU 0.996, 0.996 and 0.188; bag 0.408. The others
were not run.
"""

from configs import common

# Pairs of classes that change places when clips are played backwards.
REVERSALS = (
  ('left then up', 'down then right'),
  ('left then down', 'up then right'),
  ('right then up', 'down then left'),
  ('right then down', 'up then left'),
)
_CNN = dict(channels=(16, 32, 64), features=128)
_MAP = dict(channels=(16, 32, 64), features=0)  # Keeps the feature map.
# Name -> arguments of the model, the kind of the loss, and the encoder.
MODELS = {
  'gru': (dict(cell='gru', features=128, pooling='last'), 'clip', _CNN),
  'lstm': (dict(cell='lstm', features=128, pooling='last'), 'clip', _CNN),
  'lrcn': (dict(cell='lstm', features=128, pooling='mean'), 'frames', _CNN),
  'conv_lstm': (
    dict(cell='conv_lstm', features=32, pooling='last'),
    'clip',
    _MAP,
  ),
  'bag': (dict(layers=0, pooling='mean', hidden=128), 'clip', _CNN),
}


def get_config(model='gru'):
  arguments, loss, encoder = common.chosen(MODELS, model)
  config = common.clip_classification()

  config.data = common.labelled_clips(
    name='ordered_motion',
    num_frames=16,
    resize=32,
    crop=32,
    reversals=REVERSALS,
  )
  config.augmentation = common.augmentation(
    flips=('left_right', 'up_down'), permute_channels=True
  )

  config.encoder = encoder
  config.model = arguments

  config.loss = common.classification_loss(kind=loss)
  config.optimizer = common.optimizer(
    learning_rate=2e-3, warmup_steps=50, weight_decay=1e-4, clip_norm=1.0
  )
  config.batch_size = 32
  config.num_steps = 200

  config.eval_batch_size = 100
  config.log_every = 50
  config.eval_every = 100
  config.checkpoint_every = 100
  return config
