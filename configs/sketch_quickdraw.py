"""Sketch-RNN on any category of QuickDraw, or on several, as published code.

  python -m sketch_rnn.main --config=configs/sketch_quickdraw.py \
    --config.data.categories="('cat', 'pig')" --workdir=runs/cat_pig

Several categories are one data set without labels, as in the paper. With
--config.model.num_classes=2 the decoder is told the category besides.
Drawings that are on disk already (.npz, .ndjson) are prepared by
`python scripts/prepare_sketches.py --name=quickdraw_sketches --input=DIR`.

Sizes, schedules and augmentation are those of configs/sketch_sheep.py, with
the layer-norm decoder. Published: Table 1 has other sizes, see
configs/sketch_cat.py. Measured: not run.
"""

import ml_collections


def get_config():
  config = ml_collections.ConfigDict()
  config.seed = 0

  config.data = dict(
    name='quickdraw_sketches',
    categories=('cat',),
    data_dir=ml_collections.config_dict.placeholder(str),
    max_length=250,
    limit=1000.0,
    random_scale=0.15,
    drop_probability=0.10,
  )
  config.buckets = ()

  config.model = dict(
    encoder='lstm',
    encoder_features=256,
    decoder='layer_norm',
    decoder_features=512,
    latent=128,
    mixtures=20,
    recurrent_dropout=0.1,
    conditional=True,
    num_classes=0,
    dtype='float32',
  )
  config.loss = dict(
    kl_weight=0.5,
    kl_start=0.01,
    kl_decay=0.99995,
    kl_form='tf1',
    kl_floor=0.2,
  )
  config.optimizer = dict(
    learning_rate=1e-3,
    schedule='exponential',
    decay_rate=0.9999,
    final_learning_rate=1e-5,
    warmup_steps=0,
    b1=0.9,
    b2=0.999,
    epsilon_hat=True,
    weight_decay=0.0,
    clip_norm=0.0,
    clip_value=1.0,
    rates=(),
  )
  config.batch_size = 100
  config.num_steps = 200_000

  config.eval_batch_size = 100
  config.latent_samples = 1
  config.best_metric = 'loss'
  config.best_mode = 'min'
  config.log_every = 100
  config.eval_every = 2000
  config.checkpoint_every = 500
  return config
