r"""S2VT (Venugopalan et al. 2015) on MSVD, frozen ResNet-50.

  python scripts/prepare_clips.py --name=captioned_clips/msvd \
    --input=YouTubeClips --captions AllVideoDescriptions.txt --lists=lists \
    --resize=256 --rate=3
  python -m video.caption --config=configs/msvd_s2vt.py --workdir=runs/msvd \
    --config.encoder_weights=resnet50.safetensors

MSVD (the YouTube corpus) has 1,970 clips with about 40 sentences each: 1,200 to
train, 100 to validate, 670 to test. About every tenth frame is read, as in the
paper: 3 per second. Two LSTMs of 1,000 units follow, and frames and words have
500 features each. Frames and words together take 80 steps there: here 60
frames, 20 words. Instead of VGG-16's fc7 features frames have the pooled
features of a ResNet-50; theirs are config.encoder = dict(depth=16, fc7=True).

Published (VGG-16, RGB alone): METEOR 29.2. Measured: not run (needs the clips
and one GPU).
"""

from configs import common


def get_config():
  config = common.clip_captioning()

  config.data = common.captioned_clips(
    name='captioned_clips/msvd',
    num_frames=60,
    every=1,
    resize=256,
    crop=224,
  )
  config.cache_features = True

  config.model = 's2vt'
  config.encoder = dict(depth=50)
  config.encoder_weights = 'hf://timm/resnet50.tv_in1k'
  config.decoder = dict(features=1000, embedding=500, dropout_rate=0.5)

  config.optimizer = common.optimizer(
    learning_rate=4e-4, warmup_steps=200, clip_norm=5.0
  )
  config.batch_size = 32  # Clips, with five captions each.
  config.num_steps = 6000  # Every clip comes 160 times.

  config.decoding = common.decoding(beam_size=5)
  config.eval_batch_size = 10
  config.log_every = 100
  config.eval_every = 500
  config.checkpoint_every = 500
  return config
