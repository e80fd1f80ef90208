"""Soft attention on UCM-Captions: 2,100 aerial photographs, frozen ResNet-50.

  python scripts/prepare_captions.py --name=ucm --images=UCM/images \
    --captions=UCM/dataset_ucm.json
  python -m captioning.main --config=configs/ucm.py --workdir=runs/ucm \
    --config.encoder_weights=resnet50.safetensors

Published (Lu et al. 2018, VGG-16, as later papers quote it): soft attention
BLEU-4 0.525, CIDEr 2.61; hard attention 0.618, 2.99. Measured: see README.md.
"""

import ml_collections


def get_config():
  config = ml_collections.ConfigDict()
  config.seed = 0

  config.data = dict(
    name='captioned_images/ucm',
    data_dir=ml_collections.config_dict.placeholder(str),
    vocabulary_threshold=1,
    captions_per_image=5,
    max_length=20,  # 99.7 % of the captions, EOS included.
    resize=224,
    crop=224,
    flip=False,
  )
  config.cache_features = True

  config.model = 'show_attend_tell'
  config.encoder = dict(depth=50, grid_size=7)
  config.encoder_weights = 'hf://timm/resnet50.tv_in1k'
  config.train_statistics = False
  config.decoder = dict(
    features=512, embedding=512, attention=512, dropout_rate=0.5
  )
  config.frozen = ()
  config.dtype = 'float32'

  config.loss = dict(
    per='token', attention_penalty=0.02, penalty_reduction='sum'
  )
  config.optimizer = dict(
    learning_rate=5e-4,
    schedule='cosine',
    warmup_steps=100,
    b1=0.9,
    b2=0.999,
    epsilon_hat=False,
    weight_decay=0.0,
    clip_norm=5.0,
    clip_value=0.0,
  )
  config.average_decay = 0.0
  config.microbatches = 1
  config.batch_size = 16  # Pictures, with five captions each.
  config.num_steps = 1000

  config.decoding = dict(beam_size=5, length_penalty=0.0, max_length=20)
  config.eval_batch_size = 30
  config.best_metric = 'CIDEr'
  config.best_mode = 'max'
  config.log_every = 50
  config.eval_every = 100
  config.checkpoint_every = 100
  return config
