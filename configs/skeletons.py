r"""Actions from skeletons: UTD-MHAD, SBU Kinect, MSR Action3D, or yours.

  python scripts/prepare_clips.py --name=skeletons/utd_mhad \
    --layout=utd_mhad --input=UTD-MHAD
  python -m video.classify --workdir=runs/subject7 \
    --config=configs/skeletons.py:utd_mhad/ours/held_out
  python -m video.classify --config=configs/skeletons.py:utd_mhad/ours \
    --workdir=runs/gestures

  python scripts/prepare_clips.py --name=skeletons/sbu_kinect \
    --layout=sbu_kinect --input=sbu_kinect.npz
  python -m video.classify --config=configs/skeletons.py:sbu/ours \
    --config.data.name=skeletons/sbu_kinect_fold2 --workdir=runs/sbu_fold2

  python scripts/prepare_clips.py --name=skeletons/mine --input=mine/
  python -m video.classify --config=configs/skeletons.py:yours/ours \
    --config.data.name=skeletons/mine --workdir=runs/mine

The argument is SET/MODEL or SET/MODEL/PHASE. A part of the training split is
held out for validation: subject 7 of UTD-MHAD, subject 9 of MSR Action3D, the
pairs that the next fold of SBU Kinect tests. In the phase 'held_out' it chooses
the best checkpoint, and such a run is scored on it alone; in 'final', the
default, it is trained on, too, nothing is chosen, and the last step is scored
on the test split.

The joints are relative to the third joint of the first frame (of the person
that moves most), and so a rotation about the vertical is about that person.

'ours' reads positions, but for UTD-MHAD also the distances of all pairs of
joints (Zhang et al. 2017), and the differences of both from the frame before.
Training uses random parts of recordings, rotated about the vertical and scaled,
with two persons in random order. Two bidirectional GRU layers, and attention
over time. For points in the plane pass --config.data.space=fingertip and
--config.model.distances=2.

'deepgru' is DeepGRU (Maghoumi and LaViola 2019) with Adam's rate of the
published code. Its batch is 64 (for SBU Kinect; 128 in the paper [memory]), it
normalises each number by its deviation, shifts as well as scales by up to 0.3,
reads two persons in turn, and scores the epoch that is best on the test fold.
Here persons are side by side, and the last step counts. The patented synthesis
of gestures is left out there and here.
"""

from configs import common

# Set -> its data (other folds and action sets by data.name), and of 'ours' the
# augmentation, the dimensions of the distances (0 for none) and the steps.
SETS = {
  'utd_mhad': (
    dict(name='skeletons/utd_mhad', num_frames=64),
    dict(rotation=30.0, scale=0.15, noise=0.005),
    0,
    1000,
  ),
  'sbu': (
    dict(name='skeletons/sbu_kinect_fold1', num_frames=32),
    dict(rotation=180.0, scale=0.25, persons=2, noise=0.01),
    3,
    500,
  ),
  'msr': (
    dict(name='skeletons/msr_action3d_all', num_frames=40),
    dict(rotation=30.0, scale=0.25, noise=0.01),
    3,
    500,
  ),
  'yours': (
    dict(name='skeletons/mine', num_frames=64),
    dict(rotation=30.0, scale=0.15, noise=0.005),
    3,
    1000,
  ),
}
MODELS = ('ours', 'deepgru')
PHASES = ('final', 'held_out')


def _ours(config, augmentation, distances, num_steps):
  config.augmentation = common.augmentation(min_span=0.8, **augmentation)
  config.model = dict(
    cell='gru',
    features=96,
    layers=2,
    bidirectional=True,
    pooling='attention',
    attention=64,
    distances=distances,
    difference=10.0,
    dropout_rate=0.4,
  )
  config.loss = common.classification_loss(label_smoothing=0.1)
  config.optimizer = common.optimizer(
    learning_rate=2e-3, warmup_steps=50, weight_decay=1e-4, clip_norm=1.0
  )
  config.batch_size = 32
  config.num_steps = num_steps


def _deepgru(config):
  config.augmentation = common.augmentation(
    min_span=0.8, rotation=30.0, scale=0.3
  )
  config.model = dict(
    widths=(512, 512, 256, 256, 128), hidden=256, dropout_rate=0.5
  )
  config.loss = common.classification_loss()
  config.optimizer = common.optimizer(learning_rate=1e-3, schedule='constant')
  config.batch_size = 64
  config.num_steps = 600


def get_config(set_model_and_phase='utd_mhad/ours'):
  name, _, rest = set_model_and_phase.partition('/')
  model, _, phase = rest.partition('/')
  data, *ours = common.chosen(SETS, name)
  model = common.chosen({x: x for x in MODELS}, model or 'ours')
  phase = common.chosen({x: x for x in PHASES}, phase or 'final')

  config = common.clip_classification()
  config.data = common.labelled_clips(space='skeleton', **data)
  config.encoder = dict()
  if model == 'ours':
    _ours(config, *ours)
  else:
    _deepgru(config)
  config.eval_batch_size = 64
  config.log_every = 50
  config.eval_every = 100
  config.checkpoint_every = 100
  if phase == 'held_out':
    config.data.final_split = 'validation'
  else:
    config.data.train_split = 'train+validation'
    # The last step counts: recordings that are trained on choose no more.
    config.eval_every = config.num_steps
  return config
