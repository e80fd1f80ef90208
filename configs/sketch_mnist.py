r"""Sketch-RNN on MNIST's digits as pen strokes, conditional on the digit.

  python scripts/prepare_sketches.py --name=mnist_strokes --first_row_moves \
    --input=mnist_strokes.npz
  python -m sketch_rnn.main --config=configs/sketch_mnist.py \
    --workdir=runs/mnist

57,500 / 2,500 / 10,000 drawings, computed from the images (de Jong 2016); the
digit is an input of the decoder. Points are a pixel apart, so that a drawing
has 40 of them on average. As configs/sketch_kanji.py, with a smaller network.
`accuracy` in results.json is the share of samples that a classifier, trained on
real digits, reads as the digit that was asked for.

Published: nothing. Measured: not run. The classifier reads 93.5 % of 2,500 real
digits of the test split (800 steps, seed 0).
"""

from configs import common


def get_config():
  config = common.sketch_rnn()

  config.data = common.drawings(
    name='sketches/mnist_strokes', drop_probability=0.0
  )

  config.model = common.sketch_model(
    encoder_features=64,
    decoder='layer_norm',
    decoder_features=128,
    latent=16,
    learned_prior=True,
    num_classes=10,
  )
  config.loss = common.sketch_loss(kl_weight=0.25, kl_decay=0.998, kl_floor=0.4)
  config.optimizer = common.optimizer(
    learning_rate=2e-3, warmup_steps=100, epsilon_hat=True, clip_value=1.0
  )
  config.buckets = (40, 56)
  config.batch_size = 50
  config.num_steps = 2500

  config.log_every = 50
  config.eval_every = 1250
  config.checkpoint_every = 250
  return config
