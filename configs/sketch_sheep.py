"""Sketch-RNN on sheep, 7,400 drawings, as the published code trains.

  python scripts/prepare_sketches.py --name=sheep --input=aaron_sheep.npz
  python -m sketch_rnn.main --config=configs/sketch_sheep.py \
    --workdir=runs/sheep

The published code's defaults: LSTM encoder of 256 and decoder of 512 units,
w_KL = 0.5 and its schedules, drawings stretched by up to 15 %, a tenth of the
points dropped. What its authors trained on these drawings besides:

  layer-norm decoder   --config.model.decoder=layer_norm
  decoder-only         --config.model.conditional=False

Less padding is computed with --config.buckets="(64, 96, 128, 160, 200)"; the
pen's loss then leaves the padding out that a batch does not have.

Published: weights alone. Measured: see docs/results.md (1,500 steps).
"""

import ml_collections


def get_config():
  config = ml_collections.ConfigDict()
  config.seed = 0

  config.data = dict(
    name='sketches/sheep',
    categories=(),
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
    decoder='lstm',
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
  config.num_steps = 50_000

  config.eval_batch_size = 100
  config.latent_samples = 1
  config.best_metric = 'loss'
  config.best_mode = 'min'
  config.log_every = 100
  config.eval_every = 500
  config.checkpoint_every = 500
  return config
