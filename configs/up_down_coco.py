r"""Up-Down (Anderson et al. 2018) on COCO: cross-entropy, then self-critical.

  tfds build coco_captions --file_format=array_record
  python -m captioning.main --config=configs/up_down_coco.py \
    --workdir=runs/up_down
  python -m captioning.main --config=configs/up_down_coco.py:self_critical \
    --workdir=runs/up_down_self_critical --config.start_from=runs/up_down

As it stands this is the paper's ResNet baseline: 10 x 10 locations of
ResNet-101. The paper's own features of regions are imported once, and read with
--config.regions=bottom_up.

The paper's 1,000 units, words of 1,000, attention of 512, words that occur at
least five times, captions of 20 words, beams of 5. The paper trains by SGD;
here, as in self-critical.pytorch, by Adam at 5e-4, times 0.8 every 3 epochs,
gradients clipped to 0.1, every 5 epochs 5 % more words of the model's own, up
to 25 %, 30 epochs; then 20 epochs at 5e-5 on CIDEr-D. Its attention has biases:
--config.decoder.attention_bias=True.

Paper, CIDEr / BLEU-4 / SPICE: locations 105.4 / 33.4 / 19.2, self-critical
111.1 / 34.0 / 20.2 (recalled); regions 113.5 / 36.2 / 20.3, self-critical 120.1
/ 36.3 / 21.4. Measured: not run (needs the 20 GB data set and a GPU).
"""

from configs import common

_EPOCH = 7_080  # Steps.
PHASES = {
  'cross_entropy': {},
  'self_critical': {
    'self_critical.num_samples': 5,
    'loss.scheduled_sampling.max_probability': 0.0,
    'optimizer.learning_rate': 5e-5,
    'optimizer.schedule': 'constant',
    'num_steps': 20 * _EPOCH,
  },
}


def get_config(phase='cross_entropy'):
  config = common.captioning()

  config.data = common.captioned_images(
    name='coco_captions', resize=512, crop=448
  )

  config.model = 'up_down'
  config.encoder = dict(depth=101, grid_size=10)
  config.encoder_weights = 'hf://timm/resnet101.tv_in1k'
  config.decoder = dict(
    features=1000,
    embedding=1000,
    attention=512,
    annotation_features=1000,
    attention_bias=False,
    cell='lstm',
    dropout_rate=0.5,
  )
  config.frozen = ('encoder/',)

  config.loss = common.captioning_loss(
    scheduled_sampling=common.scheduled_sampling(
      start=5 * _EPOCH, every=5 * _EPOCH, increase=0.05, max_probability=0.25
    )
  )
  config.optimizer = common.optimizer(
    learning_rate=5e-4,
    schedule='staircase',
    decay_rate=0.8,
    decay_steps=3 * _EPOCH,
    clip_value=0.1,
  )
  config.batch_size = 16  # Images, with five captions each.
  config.num_steps = 30 * _EPOCH

  config.decoding = common.decoding(beam_size=5)
  config.eval_batch_size = 64
  config.log_every = 100
  config.eval_every = _EPOCH
  config.checkpoint_every = 1_000
  config.update_from_flattened_dict(common.chosen(PHASES, phase))
  return config
