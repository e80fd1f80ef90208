"""S2VT (Venugopalan et al. 2015) on MSVD, frozen ResNet-50.

  python scripts/prepare_clips.py --name=captioned_clips/msvd \
    --input=YouTubeClips --captions AllVideoDescriptions.txt --lists=lists \
    --resize=256 --rate=3
  python -m video.caption --config=configs/msvd_s2vt.py --workdir=runs/msvd \
    --config.encoder_weights=resnet50.safetensors

MSVD (the YouTube corpus) has 1,970 clips with about 40 sentences each: 1,200 to
train, 100 to validate, 670 to test. About every tenth frame is seen, as in the
paper: 3 in a second. Two LSTMs of 1,000 units follow, and frames and words have
500 features each. Frames and words together take 80 steps there: here 60
frames, 20 words. In place of VGG-16's fc7 frames have the pooled features of a
ResNet-50.

Published (VGG-16, RGB alone): METEOR 29.2. Measured: not run (needs the clips
and one GPU).
"""

import ml_collections


def get_config():
  config = ml_collections.ConfigDict()
  config.seed = 0

  config.data = dict(
    name='captioned_clips/msvd',
    data_dir=ml_collections.config_dict.placeholder(str),
    vocabulary_threshold=1,
    captions_per_clip=5,
    max_length=20,
    num_frames=60,
    every=1,
    jitter=False,
    resize=256,
    crop=224,
    flip=False,
    flip_events=False,
  )
  config.cache_features = True

  config.model = 's2vt'
  config.encoder = dict(depth=50)
  config.encoder_weights = 'hf://timm/resnet50.tv_in1k'
  config.train_batch_stats = False
  config.difference = 0.0
  config.frame_labels = 0
  config.decoder = dict(features=1000, embedding=500, dropout_rate=0.5)
  config.dtype = 'float32'

  config.loss = dict(label_smoothing=0.0, frame_labels=0.0)
  config.optimizer = dict(
    learning_rate=4e-4,
    schedule='cosine',
    warmup_steps=200,
    b1=0.9,
    b2=0.999,
    epsilon_hat=False,
    weight_decay=0.0,
    clip_norm=5.0,
    clip_value=0.0,
    rates=(),
  )
  config.batch_size = 32  # Clips, with five captions each.
  config.num_steps = 6000  # Every clip comes 160 times.

  config.decoding = dict(
    beam_size=5,
    length_penalty=0.0,
    max_length=20,
    num_groups=1,
    diversity_penalty=0.0,
    min_length=0,
    no_repeat_ngram=0,
    bad_endings=(),
    forbidden_words=(),
    required_words=(),
  )
  config.eval_batch_size = 10
  config.best_metric = 'CIDEr'
  config.best_mode = 'max'
  config.log_every = 100
  config.eval_every = 500
  config.checkpoint_every = 500
  return config
