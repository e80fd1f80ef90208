"""Show and Tell (Vinyals et al. 2015) on COCO.

  tfds build coco_captions --file_format=array_record
  python -m captioning.main --config=configs/show_and_tell_coco.py \
    --workdir=runs/show_and_tell_coco

The paper's 512 units and words of 512, dropout 0.3 (im2txt), beam search. The
paper trains by SGD and fine-tunes its Inception; here Adam at 5e-4, times 0.8
every 3 epochs, on a frozen ResNet-101, as reproductions do.

Paper: BLEU-4 27.7, METEOR 23.7, CIDEr 85.5 (a random 4k dev set, ensemble, beam
20). Measured: not run (needs the 20 GB data set and a GPU).
"""

import ml_collections


def get_config():
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.start_from = ''

  config.data = dict(
    name='coco_captions',
    data_dir=ml_collections.config_dict.placeholder(str),
    vocabulary_threshold=5,
    captions_per_image=5,
    max_length=20,
    resize=256,
    crop=224,
    flip=False,
  )
  config.regions = ''
  config.cache_features = False

  config.model = 'show_and_tell'
  config.encoder = dict(depth=101, grid_size=1)
  config.encoder_weights = 'hf://timm/resnet101.tv_in1k'
  config.train_batch_stats = False
  config.decoder = dict(features=512, embedding=512, dropout_rate=0.3)
  config.frozen = ('encoder/',)
  config.dtype = 'float32'

  config.loss = dict(
    per='token',
    label_smoothing=0.0,
    attention_penalty=0.0,
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
    schedule='staircase',
    decay_rate=0.8,
    decay_steps=21_240,  # 3 epochs.
    warmup_steps=0,
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
  config.num_steps = 212_400  # 30 epochs.

  config.decoding = dict(
    beam_size=3,
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
  config.eval_batch_size = 64
  config.best_metric = 'CIDEr'
  config.best_mode = 'max'
  config.log_every = 100
  config.eval_every = 7_080
  config.checkpoint_every = 1_000
  return config
