"""The embedded default of online recognition: three gestures in a stream.

  python -m video.classify --config=configs/gesture_stream.py --workdir=runs/ctc

SYNTHETIC data: 3,000 streams of 48 frames of 24 x 24 grey pixels, generated at
first use. A fingertip leaves no trace, and no single frame shows which gesture
it is part of. A GRU reads frame by frame, without looking ahead. The first half
of the steps learns the labels of the frames, the second half by CTC (Graves et
al. 2006) from the order of the gestures alone.

The argument is one of `MODELS`. Goals: edit accuracy at least 0.92 and 0.85 of
the streams exact; the frame-wise model at most 0.10. Measured, three seeds: GRU
0.954 and 0.868, frame-wise 0; the LSTM was not run.
"""

from configs import common

# Name -> arguments of the model.
MODELS = {
  'gru': dict(cell='gru', features=128),
  'lstm': dict(cell='lstm', features=128),
  'framewise': dict(layers=0, hidden=128),
}


def get_config(model='gru'):
  config = common.clip_classification()

  config.data = common.labelled_clips(
    name='gesture_stream',
    sampling='window',
    num_frames=48,
    resize=24,
    crop=24,
    max_gestures=3,
  )
  config.augmentation = common.augmentation(flips=('half_turn',))

  config.encoder = dict(channels=(16, 32, 32), features=96)
  config.model = common.chosen(MODELS, model)

  config.loss = common.classification_loss(kind='ctc', framewise_steps=200)
  config.optimizer = common.optimizer(
    learning_rate=2e-3, warmup_steps=50, weight_decay=1e-4, clip_norm=1.0
  )
  config.batch_size = 32
  config.num_steps = 400

  config.eval_batch_size = 100
  config.best_metric = 'edit_accuracy'
  config.log_every = 50
  config.eval_every = 200
  config.checkpoint_every = 200
  return config
