"""Show, Attend and Tell (Xu et al. 2015), soft attention, on COCO.

  tfds build coco_captions --file_format=array_record
  python -m captioning.main --config=configs/coco.py --workdir=runs/coco

Karpathy's splits: 113,287 / 5,000 / 5,000 photographs. The paper's setting: 14
x 14 grids of a frozen encoder (there VGG-19, here ResNet-101), LSTM of 1,800
units, words of 512, the penalty's weight 1 on a loss by caption, batches of 64
captions, dropout 0.5, Adam at 2e-4 (what its published code hard-wires).

Paper: BLEU-1..4 70.7 / 49.2 / 34.4 / 24.3, METEOR 23.90. Measured: not run
(needs the 20 GB data set and a GPU). Encoding once takes 0.8 MB a photograph
on disk: --config.cache_features=True. To fine-tune the encoder afterwards:
--config.frozen='()' with a lower learning rate.
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
    captions_per_image=1,
    max_length=20,
    resize=512,
    crop=448,
    flip=False,
  )
  config.regions = ''
  config.cache_features = False

  config.model = 'show_attend_tell'
  config.encoder = dict(depth=101, grid_size=14)
  config.encoder_weights = 'hf://timm/resnet101.tv_in1k'
  config.train_batch_stats = False
  config.decoder = dict(
    features=1800, embedding=512, attention=512, dropout_rate=0.5, hard=False
  )
  config.frozen = ('encoder/',)
  config.dtype = 'float32'

  config.loss = dict(
    per='caption',
    label_smoothing=0.0,
    attention_penalty=1.0,
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
    learning_rate=2e-4,
    schedule='constant',
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
  config.batch_size = 64
  config.num_steps = 200_000

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
  config.best_metric = 'BLEU-4'  # The paper stops early on BLEU.
  config.best_mode = 'max'
  config.log_every = 100
  config.eval_every = 5_000
  config.checkpoint_every = 1_000
  return config
