"""LRCN (Donahue et al. 2015) on UCF101's first split, with a ResNet-18.

  python scripts/prepare_clips.py --name=clips/ucf101 --layout=ucf101 \
    --input=UCF-101 --lists=ucfTrainTestlist --resize=256 --rate=12
  python -m video.classify --config=configs/ucf101_lrcn.py --workdir=runs/lrcn \
    --config.encoder_weights=resnet18.safetensors

Paper, three splits, RGB: 67.37 % by single frames, 68.20 % with the LSTM: this
data set hardly asks for memory. As there: windows of 16 frames, an LSTM of 256
units that is to know the class at every frame, and the mean over the windows of
a clip and over their frames. Unlike there the CNN is a ResNet-18 of ImageNet,
and sees 12 frames per second. Not trained yet: the data set has 7 GB.
"""

import ml_collections


def get_config():
  config = ml_collections.ConfigDict()
  config.seed = 0

  config.data = dict(
    name='clips/ucf101',
    data_dir=ml_collections.config_dict.placeholder(str),
    train_split='train',
    final_split='test',
    sampling='window',
    num_frames=16,
    stride=1,
    windows=5,
    resize=256,
    crop=224,
    space='',
    max_gestures=0,
    reversals=(),
  )
  config.augmentation = dict(
    flips=(),
    min_span=1.0,
    permute_channels=False,
    shift=0,
    brightness=0.0,
    rotation=0.0,
    scale=0.0,
    noise=0.0,
  )

  config.encoder = dict(depth=18)
  config.encoder_weights = 'hf://timm/resnet18.tv_in1k'
  config.train_batch_stats = False
  config.model = dict(
    cell='lstm', features=256, pooling='mean', dropout_rate=0.5
  )
  config.frozen = ()
  config.dtype = 'float32'

  config.loss = dict(kind='frames', label_smoothing=0.0, framewise_steps=0)
  config.optimizer = dict(
    learning_rate=1e-4,
    schedule='cosine',
    warmup_steps=500,
    b1=0.9,
    b2=0.999,
    epsilon_hat=False,
    weight_decay=1e-4,
    clip_norm=1.0,
    clip_value=0.0,
    rates=(),
  )
  config.ema_decay = 0.0
  config.microbatches = 1
  config.batch_size = 32
  config.num_steps = 15000

  config.eval_batch_size = 16
  config.best_metric = 'accuracy'
  config.best_mode = 'max'
  config.log_every = 50
  config.eval_every = 1000
  config.checkpoint_every = 1000
  return config
