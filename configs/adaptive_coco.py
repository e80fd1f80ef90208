"""Adaptive attention (Lu et al. 2017) on COCO, and then its encoder's tuning.

  tfds build coco_captions --file_format=array_record
  python -m captioning.main --config=configs/adaptive_coco.py \
    --workdir=runs/adaptive
  python -m captioning.main --config=configs/adaptive_coco.py \
    --workdir=runs/adaptive_tuned --config.start_from=runs/adaptive \
    --config.frozen="()" --config.encoder.freeze_at=2 \
    --config.optimizer.rates="(('encoder/', 0.025),)" \
    --config.batch_size=16 --config.num_steps=212400

The published code's setting: ResNet-152, 7 x 7 grids, 512 units, Adam at 4e-4
with b1 = 0.8, gradients clipped to 0.1, dropout 0.5, batches of 20 photographs
for 20 epochs with the encoder frozen; then batches of 16 for 30 epochs with the
encoder from its second stage on at 1e-5. Beams of 3.

Paper: BLEU-4 33.2, METEOR 26.6, CIDEr 108.5, with the encoder tuned; without,
re-implementations are reported to reach a CIDEr of 93 to 99. Measured: not run
(needs the 20 GB data set and a GPU).
"""

import ml_collections

_EPOCH = 5_664  # Steps.


def get_config():
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.start_from = ''

  config.data = dict(
    name='coco_captions',
    data_dir=ml_collections.config_dict.placeholder(str),
    vocabulary_threshold=5,
    captions_per_image=5,
    max_length=18,
    resize=256,
    crop=224,
    flip=False,
  )
  config.regions = ''
  config.cache_features = False

  config.model = 'adaptive'
  config.encoder = dict(depth=152, grid_size=7, freeze_at=0)
  config.encoder_weights = 'hf://timm/resnet152.tv_in1k'
  config.train_batch_stats = False
  config.decoder = dict(
    features=512,
    embedding=512,
    attention=512,
    annotation_features=512,
    dropout_rate=0.5,
  )
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
    learning_rate=4e-4,
    schedule='constant',
    warmup_steps=0,
    b1=0.8,
    b2=0.999,
    epsilon_hat=False,
    weight_decay=0.0,
    clip_norm=0.0,
    clip_value=0.1,
    rates=(),
  )
  config.ema_decay = 0.0
  config.microbatches = 1
  config.batch_size = 20  # Pictures, with five captions each.
  config.num_steps = 20 * _EPOCH

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
  config.eval_every = _EPOCH
  config.checkpoint_every = 1_000
  return config
