"""Show, Attend and Tell (Xu et al. 2015), soft attention, on COCO.

  tfds build coco_captions --file_format=array_record
  python -m captioning.main --config=configs/coco.py --workdir=runs/coco

Karpathy's splits: 113,287 / 5,000 / 5,000 images. The paper's setting: 14 x 14
locations of a frozen encoder (there VGG-19, here ResNet-101), LSTM of 1,800
units, words of 512, the penalty's weight 1 on a loss by caption, batches of 64
captions, dropout 0.5, Adam at 2e-4 (fixed in its published code).

Paper: BLEU-1..4 70.7 / 49.2 / 34.4 / 24.3, METEOR 23.90. Measured: not run
(needs the 20 GB data set and a GPU). Cached features take 0.8 MB an image on
disk: --config.cache_features=True. To fine-tune the encoder afterwards:
--config.frozen='()' with a lower learning rate.
"""

from configs import common


def get_config():
  config = common.captioning()

  config.data = common.captioned_images(
    name='coco_captions', captions_per_image=1, resize=512, crop=448
  )

  config.model = 'show_attend_tell'
  config.encoder = dict(depth=101, grid_size=14)
  config.encoder_weights = 'hf://timm/resnet101.tv_in1k'
  config.decoder = dict(
    features=1800, embedding=512, attention=512, dropout_rate=0.5, hard=False
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
  return config
