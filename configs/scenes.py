"""The embedded default: soft attention on `scenes`, small drawn pictures.

  python -m captioning.main --config=configs/scenes.py --workdir=runs/scenes

SYNTHETIC data: 6,000 drawn pictures of 64 x 64 pixels, drawn at first use; half
of the test pictures show pairs of colour and shape that training never shows.
The whole captioner, a small ResNet included, is trained from scratch.
"""

import ml_collections


def get_config():
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.start_from = ''

  config.data = dict(
    name='scenes',
    data_dir=ml_collections.config_dict.placeholder(str),
    vocabulary_threshold=1,
    captions_per_image=5,
    max_length=21,  # The longest sentence has 20 words.
    resize=64,
    crop=64,
    flip=False,  # 'left of' would become false.
  )
  config.regions = ''
  config.cache_features = False

  config.model = 'show_attend_tell'
  config.encoder = dict(depth=18, width=16, small_inputs=True)
  config.encoder_weights = ''
  config.train_batch_stats = True
  config.decoder = dict(
    features=256, embedding=128, attention=128, dropout_rate=0.2
  )
  config.frozen = ()
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
    learning_rate=2e-3,
    schedule='cosine',
    warmup_steps=100,
    b1=0.9,
    b2=0.999,
    epsilon_hat=False,
    weight_decay=1e-4,
    clip_norm=5.0,
    clip_value=0.0,
    rates=(),
  )
  config.ema_decay = 0.0
  config.microbatches = 1
  config.batch_size = 32
  config.num_steps = 800

  config.decoding = dict(
    beam_size=3,
    length_penalty=0.0,
    max_length=21,
    num_groups=1,
    diversity_penalty=0.0,
    min_length=0,
    no_repeat_ngram=0,
    bad_endings=(),
    forbidden_words=(),
    required_words=(),
  )
  config.eval_batch_size = 50
  config.best_metric = 'CIDEr'
  config.best_mode = 'max'
  config.log_every = 50
  config.eval_every = 400
  config.checkpoint_every = 200
  return config
