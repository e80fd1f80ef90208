"""Att2in (Rennie et al. 2017) on COCO: cross-entropy, then self-critical.

  tfds build coco_captions --file_format=array_record
  python -m captioning.main --config=configs/att2in_coco.py \
    --workdir=runs/att2in
  python -m captioning.main --config=configs/att2in_coco.py:self_critical \
    --workdir=runs/att2in_self_critical --config.start_from=runs/att2in

The setting of self-critical.pytorch: ResNet-101 frozen, 14 x 14 grids, 512
units, words that occur more than five times, captions cut to 16 words, Adam at
5e-4, times 0.8 every 3 epochs, gradients clipped to 0.1, every 5 epochs 5 %
more words of the model's own, up to 25 %, 30 epochs; then 20 epochs at 5e-5 on
CIDEr-D, 5 samples a photograph, the mean of the other four as the baseline.
The paper's baseline is the greedy caption:
--config.self_critical.baseline=greedy. Batches here are of 16 photographs
(there 10), which more numbers of devices divide.

Annotations and words pass through a ReLU layer first, as there; without, as in
the paper: --config.decoder.annotation_features=0. With imported features of
regions: --config.regions=bottom_up.

Paper (recalled but for the first row): cross-entropy CIDEr 101.3, BLEU-4 31.3,
ROUGE-L 54.3, METEOR 26.0; self-critical 111.4 / 33.3 / 55.3 / 26.3. Measured:
not run (needs the 20 GB data set and a GPU).
"""

import ml_collections

_EPOCH = 7_080  # Steps.


def get_config(phase='cross_entropy'):
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.start_from = ''

  config.data = dict(
    name='coco_captions',
    data_dir=ml_collections.config_dict.placeholder(str),
    vocabulary_threshold=6,
    captions_per_image=5,
    max_length=17,  # 16 words and EOS.
    resize=512,
    crop=448,
    flip=False,
  )
  config.regions = ''
  config.cache_features = False

  config.model = 'att2in'
  config.encoder = dict(depth=101, grid_size=14)
  config.encoder_weights = 'hf://timm/resnet101.tv_in1k'
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
      start=5 * _EPOCH, every=5 * _EPOCH, increase=0.05, max_probability=0.25
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
    decay_steps=3 * _EPOCH,
    warmup_steps=0,
    b1=0.9,
    b2=0.999,
    epsilon_hat=False,
    weight_decay=0.0,
    clip_norm=0.0,
    clip_value=0.1,
    rates=(),
  )
  config.ema_decay = 0.0
  config.microbatches = 1
  config.batch_size = 16  # Pictures, with five captions each.
  config.num_steps = 30 * _EPOCH

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

  if phase == 'self_critical':
    config.self_critical.num_samples = 5
    config.loss.scheduled_sampling.max = 0.0
    config.optimizer.learning_rate = 5e-5
    config.optimizer.schedule = 'constant'
    config.num_steps = 20 * _EPOCH
  elif phase != 'cross_entropy':
    raise ValueError(
      f'{phase!r} is no phase: pass configs/att2in_coco.py (cross-entropy) or '
      'configs/att2in_coco.py:self_critical'
    )
  return config
