"""Sketch-RNN (Ha and Eck 2017) on QuickDraw's cats: Table 1, conditional.

  python -m sketch_rnn.main --config=configs/sketch_cat.py --workdir=runs/cat

The paper's setting: LSTM encoder of 512 units, HyperLSTM decoder of 2048,
M = 20, N_z = 128, w_KL = 1, learning rate 1e-4, drawings stretched by up to
10 %. The paper's other settings:

  w_KL = 0.5, 0.25     --config.loss.kl_weight=0.5
  decoder-only         --config.model.conditional=False
  another category     --config.data.name=quickdraw_sketches/pig
  cat and pig          --config.data.name=quickdraw_sketches
                       --config.data.categories="('cat', 'pig')"

The published code has other defaults (LSTM decoder of 512 and encoder of 256
units, schedules, augmentation): see configs/sketch_sheep.py.

Paper, test set (recalled, not confirmed): L_R -0.98, L_KL 0.29; w_KL = 0.5:
-1.33, 0.70; w_KL = 0.25: -1.46, 1.01; decoder-only: L_R -0.57. Measured: not
run (needs the data set, 70,000 drawings, and a GPU).
"""

from configs import common


def get_config():
  config = common.sketch_rnn()

  config.data = common.drawings(
    name='quickdraw_sketches/cat', random_scale=0.10, drop_probability=0.0
  )

  config.model = common.sketch_model(
    encoder_features=512, decoder='hyper', decoder_features=2048
  )
  config.loss = common.sketch_loss(
    kl_weight=1.0, kl_decay=0.99999, kl_form='paper'
  )
  config.optimizer = common.optimizer(
    learning_rate=1e-4, schedule='constant', epsilon_hat=True, clip_value=1.0
  )
  config.num_steps = 200_000

  config.log_every = 100
  config.eval_every = 2000
  config.checkpoint_every = 500
  return config
