r"""Sketch-RNN on sheep, 7,400 drawings, as the published code trains.

  python scripts/prepare_sketches.py --name=sheep --input=aaron_sheep.npz
  python -m sketch_rnn.main --config=configs/sketch_sheep.py \
    --workdir=runs/sheep

The published code's defaults: LSTM encoder of 256 and decoder of 512 units,
w_KL = 0.5 and its schedules, drawings stretched by up to 15 %, a tenth of the
points dropped. Its authors also trained on these drawings:

  layer-norm decoder   --config.model.decoder=layer_norm
  decoder-only         --config.model.conditional=False

Less padding is computed with --config.buckets="(64, 96, 128, 160, 200)"; the
pen's loss then counts less padding.

Published: weights alone. Measured: see docs/results.md (1,500 steps).
"""

from configs import common


def get_config():
  config = common.sketch_rnn()

  config.data = common.drawings(name='sketches/sheep')

  config.model = common.sketch_model()
  config.loss = common.sketch_loss()
  config.optimizer = common.optimizer(
    learning_rate=1e-3,
    schedule='exponential',
    decay_rate=0.9999,
    final_learning_rate=1e-5,
    epsilon_hat=True,
    clip_value=1.0,
  )
  config.num_steps = 50_000

  config.log_every = 100
  config.eval_every = 500
  config.checkpoint_every = 500
  return config
