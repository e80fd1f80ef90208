r"""The captioners on UCM-Captions: 2,100 aerial images, frozen ResNet-50.

  python scripts/prepare_captions.py --name=ucm --images=UCM/images \
    --captions=UCM/dataset_ucm.json
  python -m captioning.main --config=configs/ucm.py:att2in \
    --workdir=runs/att2in --config.encoder_weights=resnet50.safetensors
  python -m captioning.main --config=configs/ucm.py:att2in/self_critical \
    --config.start_from=runs/att2in --workdir=runs/att2in_self_critical

The argument is one of `MODELS`, and after a slash one of `PHASES`. All models
have 512 units. A ReLU layer reduces a ResNet's 2,048 features to 512, as many
as VGG-16's annotations have.

Published (Lu et al. 2018, VGG-16, as later papers quote it): soft attention
BLEU-4 0.525, CIDEr 2.61; hard attention 0.618, 2.99. Measured: see
docs/results.md. All rows: python -m tables --table=ucm
"""

from configs import common

_ATTENDS = dict(
  features=512,
  embedding=512,
  attention=512,
  annotation_features=512,
  dropout_rate=0.5,
)
# One sampled location is noise enough: with dropout 0.5 as well, CIDEr on
# the validation split was 2.59 instead of 2.94 at step 400 of 1,000, and 3.06
# instead of 3.33 at the end (seed 0).
_HARD = dict(_ATTENDS, hard=True, dropout_rate=0.2)
# Name -> the key of `model.DECODERS`, its arguments, and the number of steps by
# cross-entropy: until the score on the validation split hardly rises.
MODELS = {
  'show_and_tell': (
    'show_and_tell',
    dict(features=512, embedding=512, dropout_rate=0.5),
    1000,
  ),
  'soft': ('show_attend_tell', _ATTENDS, 400),
  'hard': ('show_attend_tell', _HARD, 1000),
  'adaptive': ('adaptive', _ATTENDS, 400),
  'att2in': ('att2in', _ATTENDS, 400),
  'up_down': ('up_down', _ATTENDS, 400),
}
PHASES = {
  'cross_entropy': dict(),
  # Without dropout: with it, the policy that learns is not the policy that is
  # used; it prefers short captions, in which less can go wrong.
  'self_critical': {
    'decoder.dropout_rate': 0.0,
    'loss.attention_penalty': 0.0,
    'self_critical.num_samples': 5,
    'optimizer.learning_rate': 3e-4,
    'optimizer.warmup_steps': 0,
    'num_steps': 400,
  },
}


def get_config(model_and_phase='soft'):
  model, _, phase = model_and_phase.partition('/')
  config = common.captioning()

  config.data = common.captioned_images(
    name='captioned_images/ucm',
    vocabulary_threshold=1,
    max_length=20,  # 99.7 % of the captions, EOS included.
    resize=224,
    crop=224,
  )
  config.cache_features = True

  config.model, decoder, num_steps = common.chosen(MODELS, model)
  config.encoder = dict(depth=50, grid_size=7)
  config.encoder_weights = 'hf://timm/resnet50.tv_in1k'
  config.decoder = decoder

  config.loss = common.captioning_loss(attention_penalty=0.02)
  config.optimizer = common.optimizer(
    learning_rate=1e-3, warmup_steps=100, clip_norm=5.0
  )
  config.batch_size = 16  # Images, with five captions each.
  config.num_steps = num_steps

  config.decoding = common.decoding(beam_size=5)
  config.eval_batch_size = 30
  config.log_every = 50
  config.eval_every = 100
  config.checkpoint_every = 100
  config.update_from_flattened_dict(
    common.chosen(PHASES, phase or 'cross_entropy')
  )
  return config
