"""Sketch-RNN on Kanji: small, and everything it needs is installed with it.

  python -m sketch_rnn.main --config=configs/sketch_kanji.py \
    --workdir=runs/kanji

The strokes are those of KanjiVG (CC BY-SA 3.0), 5,161 / 626 / 635 characters.
`make demo-sketch` runs this. The decoder is the layer-norm LSTM, which on so
few drawings learns most in a short time; weights small enough for two CPU
cores. The latent vector is to be used early, therefore w_KL rises from near
zero and stays low.

Published: nothing for these sizes. Measured: see docs/results.md.
"""

import ml_collections


def get_config():
  config = ml_collections.ConfigDict()
  config.seed = 0

  config.data = dict(
    name='kanji',
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
    encoder_features=128,
    decoder='layer_norm',
    decoder_features=256,
    latent=64,
    mixtures=20,
    recurrent_dropout=0.1,
    conditional=True,
    num_classes=0,
    dtype='float32',
  )
  config.loss = dict(
    kl_weight=0.25,
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
  config.num_steps = 1500

  config.eval_batch_size = 100
  config.latent_samples = 1
  config.best_metric = 'loss'
  config.best_mode = 'min'
  config.log_every = 50
  config.eval_every = 300
  config.checkpoint_every = 300
  return config
