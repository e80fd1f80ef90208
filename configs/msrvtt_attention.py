"""Temporal attention (Yao et al. 2015) on MSR-VTT, frozen ResNet-152.

  python scripts/prepare_clips.py --name=captioned_clips/msrvtt \
    --input=videos --captions train_val_videodatainfo.json \
    test_videodatainfo.json --resize=256 --rate=3
  python -m video.caption --config=configs/msrvtt_attention.py \
    --workdir=runs/msrvtt --config.encoder_weights=resnet152.safetensors

MSR-VTT has 10,000 clips with 20 sentences each, in three splits of 6,513, 497
and 2,990. Sizes are those of an open reproduction (hobincar/SA-LSTM): 28 frames
spread over the clip, words of 468 numbers, 512 units, 256 of attention, dropout
0.5, 30 epochs, the best CIDEr on the validation split. That has no recurrent
encoder; here an LSTM of 512 units reads the frames first.

Published there, ResNet-152: BLEU-4 36.4, METEOR 25.5, CIDEr 41.3, ROUGE-L 57.6.
Measured: not run (needs the clips and one GPU).
"""

import ml_collections


def get_config():
  config = ml_collections.ConfigDict()
  config.seed = 0

  config.data = dict(
    name='captioned_clips/msrvtt',
    data_dir=ml_collections.config_dict.placeholder(str),
    vocabulary_threshold=3,
    captions_per_clip=5,
    max_length=30,
    num_frames=28,
    every=0,
    jitter=False,
    resize=256,
    crop=224,
    flip=False,
    flip_events=False,
  )
  config.cache_features = True

  config.model = 'temporal_attention'
  config.encoder = dict(depth=152)
  config.encoder_weights = 'hf://timm/resnet152.tv_in1k'
  config.train_batch_stats = False
  config.difference = 0.0
  config.frame_labels = 0
  config.decoder = dict(
    features=512,
    embedding=468,
    attention=256,
    encoder_features=512,
    bidirectional=False,
    dropout_rate=0.5,
  )
  config.dtype = 'float32'

  config.loss = dict(label_smoothing=0.0, frame_labels=0.0)
  config.optimizer = dict(
    learning_rate=2e-4,
    schedule='cosine',
    warmup_steps=500,
    b1=0.9,
    b2=0.999,
    epsilon_hat=False,
    weight_decay=1e-5,
    clip_norm=5.0,
    clip_value=0.0,
    rates=(),
  )
  config.batch_size = 64  # Clips, with five captions each.
  # 30 epochs of the clips' 20 sentences; every clip comes 120 times.
  config.num_steps = 12_200

  config.decoding = dict(
    beam_size=5,
    length_penalty=0.0,
    max_length=30,
    num_groups=1,
    diversity_penalty=0.0,
    min_length=0,
    no_repeat_ngram=0,
    bad_endings=(),
    forbidden_words=(),
    required_words=(),
  )
  config.eval_batch_size = 20
  config.best_metric = 'CIDEr'
  config.best_mode = 'max'
  config.log_every = 100
  config.eval_every = 1000
  config.checkpoint_every = 500
  return config
