r"""LRCN (Donahue et al. 2015) on UCF101's first split, with a ResNet-18.

  python scripts/prepare_clips.py --name=clips/ucf101 --layout=ucf101 \
    --input=UCF-101 --lists=ucfTrainTestlist --resize=256 --rate=12
  python -m video.classify --config=configs/ucf101_lrcn.py --workdir=runs/lrcn \
    --config.encoder_weights=resnet18.safetensors

Paper, three splits, RGB: 67.37 % by single frames, 68.20 % with the LSTM: this
data set hardly needs memory. As there: windows of 16 frames, an LSTM of 256
units, a loss at every frame, and the mean of the predictions over the windows
of a clip and their frames. Unlike there the CNN is a ResNet-18 of ImageNet, and
the clips have 12 frames per second. Not trained yet: the data set has 7 GB.
"""

from configs import common


def get_config():
  config = common.clip_classification()

  config.data = common.labelled_clips(
    name='clips/ucf101',
    sampling='window',
    num_frames=16,
    windows=5,
    resize=256,
    crop=224,
  )
  config.augmentation = common.augmentation()

  config.encoder = dict(depth=18)
  config.encoder_weights = 'hf://timm/resnet18.tv_in1k'
  config.model = dict(
    cell='lstm', features=256, pooling='mean', dropout_rate=0.5
  )

  config.loss = common.classification_loss(kind='frames')
  config.optimizer = common.optimizer(
    learning_rate=1e-4, warmup_steps=500, weight_decay=1e-4, clip_norm=1.0
  )
  config.batch_size = 32
  config.num_steps = 15000

  config.eval_batch_size = 16
  config.log_every = 50
  config.eval_every = 1000
  config.checkpoint_every = 1000
  return config
