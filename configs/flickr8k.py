r"""Soft attention on Flickr8k with its official splits, frozen ResNet-50.

  python scripts/prepare_captions.py --name=flickr8k --images=Flickr8k/images \
    --captions=Flickr8k/Flickr8k.token.txt --splits=Flickr8k --skip_bad
  python -m captioning.main --config=configs/flickr8k.py \
    --workdir=runs/flickr8k --config.encoder_weights=resnet50.safetensors

--skip_bad leaves out the images that are in none of the lists.

Paper (Xu et al. 2015, VGG-19, soft attention): BLEU-1..4 67 / 44.8 / 29.9 /
19.5, METEOR 18.93. Measured on the whole data set: not run. On a subset of
991 images: see docs/results.md.
"""

from configs import common


def get_config():
  config = common.captioning()

  config.data = common.captioned_images(
    name='captioned_images/flickr8k',
    max_length=20,  # 97.5 % of the captions, EOS included.
    resize=256,
    crop=224,
  )
  config.cache_features = True

  config.model = 'show_attend_tell'
  config.encoder = dict(depth=50, grid_size=7)
  config.encoder_weights = 'hf://timm/resnet50.tv_in1k'
  config.decoder = dict(
    features=512, embedding=512, attention=512, dropout_rate=0.5, hard=False
  )

  config.loss = common.captioning_loss(attention_penalty=0.02)
  config.optimizer = common.optimizer(
    learning_rate=5e-4, warmup_steps=100, clip_norm=5.0
  )
  config.batch_size = 16  # Images, with five captions each.
  config.num_steps = 12_000  # 32 epochs of 6,000 images.

  config.decoding = common.decoding(beam_size=5)
  config.eval_batch_size = 30
  config.log_every = 50
  config.eval_every = 500
  config.checkpoint_every = 500
  return config
