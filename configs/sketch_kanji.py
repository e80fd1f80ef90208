r"""Sketch-RNN on Kanji: small, and everything it needs is installed with it.

  python -m sketch_rnn.main --config=configs/sketch_kanji.py \
    --workdir=runs/kanji

The strokes are those of KanjiVG (CC BY-SA 3.0), 5,161 / 626 / 635 characters.
`make demo-sketch` runs this. The decoder is the layer-norm LSTM, which learns
fastest on so few drawings. The model is small enough for two CPU cores. w_KL
rises within a thousand steps to that of the paper, so that samples of the prior
are characters; the latent vector says little then, and a reconstruction is
another character of a similar build. With w_KL 0.25 it is the other way round.

Published: nothing for these sizes. Measured: see docs/results.md.
"""

from configs import common


def get_config():
  config = common.sketch_rnn()

  config.data = common.drawings(name='kanji')

  config.model = common.sketch_model(
    encoder_features=128, decoder='layer_norm', decoder_features=256, latent=64
  )
  config.loss = common.sketch_loss(kl_weight=0.5, kl_decay=0.998)
  config.optimizer = common.optimizer(
    learning_rate=2e-3, warmup_steps=100, epsilon_hat=True, clip_value=1.0
  )
  config.buckets = (36, 50, 82)
  config.batch_size = 50
  config.num_steps = 1500

  config.log_every = 50
  config.eval_every = 750
  config.checkpoint_every = 750
  return config
