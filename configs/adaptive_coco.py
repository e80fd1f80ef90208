r"""Adaptive attention (Lu et al. 2017) on COCO, and then its encoder's tuning.

  tfds build coco_captions --file_format=array_record
  python -m captioning.main --config=configs/adaptive_coco.py \
    --workdir=runs/adaptive
  python -m captioning.main --config=configs/adaptive_coco.py \
    --workdir=runs/adaptive_tuned --config.start_from=runs/adaptive \
    --config.frozen="()" --config.encoder.freeze_at=2 \
    --config.optimizer.rates="(('encoder/', 0.025),)" \
    --config.batch_size=16 --config.num_steps=212400

The published code's setting: ResNet-152, 7 x 7 locations, 512 units, Adam at
4e-4 with b1 = 0.8, gradients clipped to 0.1, dropout 0.5, batches of 20 images
for 20 epochs with the encoder frozen; then batches of 16 for 30 epochs with the
encoder from its second stage on at 1e-5. Words pass through a ReLU, and dropout
falls on the LSTM's outputs: the paper has neither. Beams of 3.

Paper: BLEU-4 33.2, METEOR 26.6, CIDEr 108.5, with the encoder tuned; without,
re-implementations are reported to reach a CIDEr of 93 to 99. Measured: not run
(needs the 20 GB data set and a GPU).
"""

from configs import common

_EPOCH = 5_664  # Steps.


def get_config():
  config = common.captioning()

  config.data = common.captioned_images(
    name='coco_captions', max_length=18, resize=256, crop=224
  )

  config.model = 'adaptive'
  config.encoder = dict(depth=152, grid_size=7, freeze_at=0)
  config.encoder_weights = 'hf://timm/resnet152.tv_in1k'
  config.decoder = dict(
    features=512,
    embedding=512,
    attention=512,
    annotation_features=512,
    word_relu=True,
    cell='lstm',
    cell_dropout=True,
    layers=1,
    dropout_rate=0.5,
  )
  config.frozen = ('encoder/',)

  config.loss = common.captioning_loss()
  config.optimizer = common.optimizer(
    learning_rate=4e-4, schedule='constant', b1=0.8, clip_value=0.1
  )
  config.batch_size = 20  # Images, with five captions each.
  config.num_steps = 20 * _EPOCH

  config.decoding = common.decoding()
  config.eval_batch_size = 64
  config.log_every = 100
  config.eval_every = _EPOCH
  config.checkpoint_every = 1_000
  return config
