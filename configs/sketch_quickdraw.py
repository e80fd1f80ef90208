r"""Sketch-RNN on one category of QuickDraw or several, as the published code.

  python -m sketch_rnn.main --config=configs/sketch_quickdraw.py \
    --config.data.categories="('cat', 'pig')" --workdir=runs/cat_pig

Several categories are one data set without labels, as in the paper. With
--config.model.num_classes=2 the category is an input of the decoder.
Drawings that are on disk already (.npz, .ndjson) are prepared by
`python scripts/prepare_sketches.py --name=quickdraw_sketches --input=DIR`.

Sizes, schedules and augmentation are those of configs/sketch_sheep.py, with
the layer-norm decoder. Published: Table 1 has other sizes, see
configs/sketch_cat.py. Measured: not run.
"""

from configs import common


def get_config():
  config = common.sketch_rnn()

  config.data = common.drawings(name='quickdraw_sketches', categories=('cat',))

  config.model = common.sketch_model(decoder='layer_norm')
  config.loss = common.sketch_loss()
  config.optimizer = common.optimizer(
    learning_rate=1e-3,
    schedule='exponential',
    decay_rate=0.9999,
    final_learning_rate=1e-5,
    epsilon_hat=True,
    clip_value=1.0,
  )
  config.num_steps = 200_000

  config.log_every = 100
  config.eval_every = 2000
  config.checkpoint_every = 500
  return config
