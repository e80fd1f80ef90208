"""Soft attention on Flickr8k with its official splits, frozen ResNet-50.

  python scripts/prepare_captions.py --name=flickr8k --images=Flickr8k/images \
    --captions=Flickr8k/Flickr8k.token.txt --splits=Flickr8k --skip_bad
  python -m captioning.main --config=configs/flickr8k.py \
    --workdir=runs/flickr8k --config.encoder_weights=resnet50.safetensors

--skip_bad leaves out the photographs that none of the lists name.

Paper (Xu et al. 2015, VGG-19, soft attention): BLEU-1..4 67 / 44.8 / 29.9 /
19.5, METEOR 18.93. Measured on the whole data set: not run. On a subset of
991 photographs: see docs/results.md.
"""

import ml_collections


def get_config():
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.start_from = ''

  config.data = dict(
    name='captioned_images/flickr8k',
    data_dir=ml_collections.config_dict.placeholder(str),
    vocabulary_threshold=5,
    captions_per_image=5,
    max_length=20,  # 97.5 % of the captions, EOS included.
    resize=256,
    crop=224,
    flip=False,
  )
  config.regions = ''
  config.cache_features = True

  config.model = 'show_attend_tell'
  config.encoder = dict(depth=50, grid_size=7)
  config.encoder_weights = 'hf://timm/resnet50.tv_in1k'
  config.train_batch_stats = False
  config.decoder = dict(
    features=512, embedding=512, attention=512, dropout_rate=0.5, hard=False
  )
  config.frozen = ()
  config.dtype = 'float32'

  config.loss = dict(
    per='token',
    label_smoothing=0.0,
    attention_penalty=0.02,
    penalty_reduction='sum',
    scheduled_sampling=dict(
      start=0, every=1, increase=0.0, max_probability=0.0
    ),
    hard_attention=dict(reinforce=1.0, entropy=0.002, baseline_decay=0.9),
  )
  config.self_critical = dict(
    num_samples=0, baseline='leave_one_out', cider=1.0, bleu=0.0, workers=2
  )
  config.optimizer = dict(
    learning_rate=5e-4,
    schedule='cosine',
    warmup_steps=100,
    b1=0.9,
    b2=0.999,
    epsilon_hat=False,
    weight_decay=0.0,
    clip_norm=5.0,
    clip_value=0.0,
    rates=(),
  )
  config.ema_decay = 0.0
  config.microbatches = 1
  config.batch_size = 16  # Pictures, with five captions each.
  config.num_steps = 12_000  # 32 epochs of 6,000 photographs.

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
  config.eval_batch_size = 30
  config.best_metric = 'CIDEr'
  config.best_mode = 'max'
  config.log_every = 50
  config.eval_every = 500
  config.checkpoint_every = 500
  return config
