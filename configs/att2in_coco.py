r"""Att2in (Rennie et al. 2017) on COCO: cross-entropy, then self-critical.

  tfds build coco_captions --file_format=array_record
  python -m captioning.main --config=configs/att2in_coco.py \
    --workdir=runs/att2in
  python -m captioning.main --config=configs/att2in_coco.py:self_critical \
    --workdir=runs/att2in_self_critical --config.start_from=runs/att2in

The setting of self-critical.pytorch: ResNet-101 frozen, 14 x 14 locations, 512
units, words that occur more than five times, captions cut to 16 words, Adam at
5e-4, times 0.8 every 3 epochs, gradients clipped to 0.1, every 5 epochs 5 %
more words of the model's own, up to 25 %, 30 epochs; then 20 epochs at 5e-5 on
CIDEr-D, 5 samples an image, the mean of the other four as the baseline. The
paper's baseline is the greedy caption: --config.self_critical.baseline=greedy.
Batches here are of 16 images (there 10), which more numbers of devices divide.

Annotations and words pass through a ReLU layer first, as there; without, as in
the paper: --config.decoder.annotation_features=0. With imported features of
regions: --config.regions=bottom_up.

Paper (recalled but for the first row): cross-entropy CIDEr 101.3, BLEU-4 31.3,
ROUGE-L 54.3, METEOR 26.0; self-critical 111.4 / 33.3 / 55.3 / 26.3. Measured:
not run (needs the 20 GB data set and a GPU).
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
    name='coco_captions',
    vocabulary_threshold=6,
    max_length=17,  # 16 words and EOS.
    resize=512,
    crop=448,
  )

  config.model = 'att2in'
  config.encoder = dict(depth=101, grid_size=14)
  config.encoder_weights = 'hf://timm/resnet101.tv_in1k'
  config.decoder = dict(
    features=512,
    embedding=512,
    attention=512,
    annotation_features=512,
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

  config.decoding = common.decoding()
  config.eval_batch_size = 64
  config.log_every = 100
  config.eval_every = _EPOCH
  config.checkpoint_every = 1_000
  config.update_from_flattened_dict(common.chosen(PHASES, phase))
  return config
