r"""Show and Tell (Vinyals et al. 2015) on COCO.

  tfds build coco_captions --file_format=array_record
  python -m captioning.main --config=configs/show_and_tell_coco.py \
    --workdir=runs/show_and_tell_coco

The paper's 512 units and words of 512, dropout 0.3 (im2txt), beam search. The
paper trains by SGD and fine-tunes its Inception; here Adam at 5e-4, times 0.8
every 3 epochs, on a frozen ResNet-101, as reproductions do. The FC of Rennie et
al. (2017): --config.decoder.cell=maxout --config.decoder.image_bias=True.

Paper: BLEU-4 27.7, METEOR 23.7, CIDEr 85.5 (a random 4k dev set, ensemble, beam
20). Measured: not run (needs the 20 GB data set and a GPU).
"""

from configs import common


def get_config():
  config = common.captioning()

  config.data = common.captioned_images(
    name='coco_captions', resize=256, crop=224
  )

  config.model = 'show_and_tell'
  config.encoder = dict(depth=101, grid_size=1)
  config.encoder_weights = 'hf://timm/resnet101.tv_in1k'
  config.decoder = dict(
    features=512,
    embedding=512,
    image_bias=False,
    cell='lstm',
    layers=1,
    dropout_rate=0.3,
  )
  config.frozen = ('encoder/',)

  config.loss = common.captioning_loss()
  config.optimizer = common.optimizer(
    learning_rate=5e-4,
    schedule='staircase',
    decay_rate=0.8,
    decay_steps=21_240,  # 3 epochs.
    clip_norm=5.0,
  )
  config.batch_size = 16  # Images, with five captions each.
  config.num_steps = 212_400  # 30 epochs.

  config.decoding = common.decoding()
  config.eval_batch_size = 64
  config.log_every = 100
  config.eval_every = 7_080
  config.checkpoint_every = 1_000
  return config
