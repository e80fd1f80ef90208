r"""A recurrent regression tracker for real sequences, in OTB's layout.

  python -m video.track --config=configs/otb_track.py --workdir=runs/otb_track \
    --config.data.images=images/ --config.sequences=otb/

It is trained on `photo_track`, SYNTHETIC motion over the images of a directory
(SYNTHETIC textures without one). It is scored on the real sequences of another
directory, in one pass from the first box; it is not trained on their frames.

After Re3 (Gordon, Farhadi and Fox 2018), smaller: crops of 64 x 64 instead of
227 x 227; a network trained from scratch instead of from ImageNet, which reads
both crops together (`--config.model.fusion=late`: each crop alone); one LSTM
layer instead of two with peepholes
(`--config.model.cell=peephole --config.model.layers=2`).
As in their published code the state is reset to that after the first frame
every 32 frames.

Published: OTB-100's success AUC of SiamFC 0.582; that of Re3 is unknown here.
Measured, one seed, on two sequences of OTB: see docs/results.md.
"""

import ml_collections

from configs import common


def get_config():
  config = common.tracking()

  config.data = dict(
    name='photo_track',
    images=ml_collections.config_dict.placeholder(str),
    sequences=dict(train=20000, validation=48, test=96),
    num_frames=20,
    height=96,
    width=128,
  )

  config.model = dict(
    side=64,
    context=2.0,
    fusion='early',
    filters=(16, 32, 48, 64),
    skips=(0, 8, 0, 0),
    dense=256,
    cell='lstm',
    features=256,
    layers=1,
    reset_every=32,
  )

  config.self_feeding = dict(start=1500, ramp=500, max_share=0.7)
  config.optimizer = common.optimizer(
    learning_rate=2e-3, warmup_steps=100, weight_decay=1e-4, clip_norm=1.0
  )
  config.batch_size = 16
  config.num_steps = 4000

  config.eval_batch_size = 16
  config.log_every = 50
  config.eval_every = 500
  config.checkpoint_every = 500
  return config
