"""The embedded default: soft attention on `scenes`, SYNTHETIC.

  python -m captioning.main --config=configs/scenes.py --workdir=runs/scenes

SYNTHETIC data: 6,000 images of 64 x 64 pixels, generated at first use; half of
the test images show pairs of colour and shape that training never shows.
The whole captioner, a small ResNet included, is trained from scratch.
"""

from configs import common


def get_config():
  config = common.captioning()

  config.data = common.captioned_images(
    name='scenes',
    vocabulary_threshold=1,
    max_length=21,  # The longest sentence has 20 words.
    resize=64,
    crop=64,
    flip=False,  # 'left of' would become false.
  )

  config.model = 'show_attend_tell'
  config.encoder = dict(depth=18, width=16, small_inputs=True)
  config.encoder_weights = ''
  config.train_batch_stats = True
  config.decoder = dict(
    features=256, embedding=128, attention=128, dropout_rate=0.2
  )

  config.loss = common.captioning_loss()
  config.optimizer = common.optimizer(
    learning_rate=2e-3, warmup_steps=100, weight_decay=1e-4, clip_norm=5.0
  )
  config.batch_size = 32
  config.num_steps = 800

  config.decoding = common.decoding(max_length=21)
  config.eval_batch_size = 50
  config.log_every = 50
  config.eval_every = 400
  config.checkpoint_every = 200
  return config
