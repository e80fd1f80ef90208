r"""Show, Attend and Tell (Xu et al. 2015), soft attention, on COCO.

  tfds build coco_captions --file_format=array_record
  python -m captioning.main --config=configs/coco.py --workdir=runs/coco
  python -m captioning.main --config=configs/coco.py:tutorial \
    --workdir=runs/tutorial

Karpathy's splits: 113,287 / 5,000 / 5,000 images. The paper's setting: 14 x 14
locations of a frozen encoder (there VGG-19, here ResNet-101), LSTM of 1,800
units, words of 512, the penalty's weight 1 on a loss by caption, batches of 64
captions, dropout 0.5, Adam at 2e-4 (fixed in its published code).

Paper: BLEU-1..4 70.7 / 49.2 / 34.4 / 24.3, METEOR 23.90. Measured: not run
(needs the 20 GB data set and a GPU). Cached features take 0.8 MB an image on
disk: --config.cache_features=True. To fine-tune the encoder afterwards:
--config.frozen='()' with a lower learning rate.

`tutorial` is the decoder of sgrvinod's a-PyTorch-Tutorial-to-Image-Captioning,
with its loss, batches, learning rate (fixed here) and clipping.
"""

from configs import common

SETTINGS = {
  'paper': {},
  'tutorial': {
    'decoder.features': 512,
    'decoder.attention_activation': 'relu',
    'decoder.gate': 'vector',
    'decoder.init_layers': 1,
    'decoder.init_tanh': False,
    'decoder.deep_output': False,
    'loss.per': 'token',
    'loss.penalty_reduction': 'mean',
    'optimizer.learning_rate': 4e-4,
    'optimizer.clip_norm': 0.0,
    'optimizer.clip_value': 5.0,
    'batch_size': 32,
  },
}


def get_config(setting='paper'):
  config = common.captioning()

  config.data = common.captioned_images(
    name='coco_captions', captions_per_image=1, resize=512, crop=448
  )

  config.model = 'show_attend_tell'
  config.encoder = dict(depth=101, grid_size=14)
  config.encoder_weights = 'hf://timm/resnet101.tv_in1k'
  config.decoder = dict(
    features=1800,
    embedding=512,
    attention=512,
    attention_activation='tanh',
    gate='scalar',
    init_layers=2,
    init_tanh=True,
    deep_output=True,
    cell='lstm',
    layers=1,
    dropout_rate=0.5,
    hard=False,
  )
  config.frozen = ('encoder/',)

  config.loss = common.captioning_loss(per='caption', attention_penalty=1.0)
  config.optimizer = common.optimizer(
    learning_rate=2e-4, schedule='constant', clip_norm=5.0
  )
  config.batch_size = 64
  config.num_steps = 200_000

  config.decoding = common.decoding()
  config.eval_batch_size = 64
  config.best_metric = 'BLEU-4'  # The paper stops early on BLEU.
  config.log_every = 100
  config.eval_every = 5_000
  config.checkpoint_every = 1_000
  config.update_from_flattened_dict(common.chosen(SETTINGS, setting))
  return config
