r"""Sketch-RNN on Kanji: small, and everything it needs is installed with it.

  python -m sketch_rnn.main --config=configs/sketch_kanji.py \
    --workdir=runs/kanji

The strokes are those of KanjiVG (CC BY-SA 3.0), 5,161 / 626 / 635 characters.
`make demo-sketch` runs this. The decoder is the layer-norm LSTM, which learns
fastest on so few drawings. The model is small enough for two CPU cores. The
prior is learned: with N(0, 1) the posterior was narrow in all dimensions early
on, and one sample in ten of the prior had no line. L_KL then lies at its floor,
which is therefore the amount of information in z, and w_KL hardly matters.

Published: nothing for these sizes. Measured: see docs/results.md.
"""

from configs import common


def get_config():
  config = common.sketch_rnn()

  config.data = common.drawings(name='kanji')

  config.model = common.sketch_model(
    encoder_features=128,
    decoder='layer_norm',
    decoder_features=256,
    latent=64,
    learned_prior=True,
  )
  config.loss = common.sketch_loss(kl_weight=0.25, kl_decay=0.998, kl_floor=0.4)
  config.optimizer = common.optimizer(
    learning_rate=2e-3, warmup_steps=100, epsilon_hat=True, clip_value=1.0
  )
  config.buckets = (36, 50, 82)
  config.batch_size = 50
  config.num_steps = 2500

  config.log_every = 50
  config.eval_every = 1250
  config.checkpoint_every = 1250
  return config
