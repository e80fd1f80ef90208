r"""UTD-MHAD (Chen et al. 2015) from depth alone: 27 actions, 48 x 64 pixels.

  python scripts/prepare_clips.py --name=clips/utd_mhad_depth \
    --layout=utd_mhad --input=UTD-MHAD
  python -m video.classify --config=configs/utd_mhad_depth.py \
    --workdir=runs/depth_subject7
  python -m video.classify --config=configs/utd_mhad_depth.py:all_subjects \
    --workdir=runs/depth

The subjects are split as in configs/skeletons.py. A CNN reads each frame and
its difference from the frame before; a bidirectional GRU follows, then
attention over time. Clips are not mirrored: some actions are of one arm.

Published: 66.1 %, from depth motion maps (the data set's paper). Measured:
76.4 % +- 0.4 on the test subjects, over three seeds of 'all_subjects'.
"""

from configs import common

_NUM_STEPS = 1500
PHASES = {
  'held_out': {},
  # Subject 7 has been used to choose, and now is trained on, too. The last step
  # counts: that subject's clips choose no more.
  'all_subjects': {
    'data.train_split': 'train+validation',
    'data.final_split': 'test',
    'eval_every': _NUM_STEPS,
  },
}


def get_config(phase='held_out'):
  config = common.clip_classification()

  config.data = common.labelled_clips(
    name='clips/utd_mhad_depth', final_split='validation', num_frames=32
  )
  config.augmentation = common.augmentation(
    min_span=0.8, shift=4, brightness=20.0, scale=0.1
  )

  config.encoder = dict(channels=(16, 32, 48, 64), features=128)
  config.model = dict(
    cell='gru',
    features=96,
    bidirectional=True,
    pooling='attention',
    attention=64,
    difference=2.0,
    dropout_rate=0.4,
  )

  config.loss = common.classification_loss(label_smoothing=0.1)
  config.optimizer = common.optimizer(
    learning_rate=1e-3, warmup_steps=50, weight_decay=1e-4, clip_norm=1.0
  )
  config.batch_size = 16
  config.num_steps = _NUM_STEPS

  config.eval_batch_size = 32
  config.log_every = 50
  config.eval_every = 250
  config.checkpoint_every = 250
  config.update_from_flattened_dict(common.chosen(PHASES, phase))
  return config
