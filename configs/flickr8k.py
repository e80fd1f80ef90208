r"""The captioners on Flickr8k with its official splits, frozen ResNet-50.

  python scripts/prepare_captions.py --name=flickr8k --images=Flickr8k/images \
    --captions=Flickr8k/Flickr8k.token.txt --splits=Flickr8k --skip_bad
  python -m captioning.main --config=configs/flickr8k.py:soft \
    --workdir=runs/soft --config.encoder_weights=resnet50.safetensors
  python -m captioning.main --config=configs/flickr8k.py:soft/self_critical \
    --config.start_from=runs/soft --workdir=runs/soft_self_critical

--skip_bad leaves out the images that are in none of the lists. The argument is
one of `MODELS`, and after a slash one of `PHASES`. The last four are those of
Tanti, Gatt and Camilleri 2018 with their published settings, but for the
weight of 1e-8 of the squares of par-inject's weights.

Images are squashed to 224 x 224, not cropped: what is at the edges is in the
captions, too. Steps, dropout and the other settings are estimates; the search
on the validation split (python -m tables.search) was not run.

Published (Xu et al. 2015, VGG-19, soft attention): BLEU-1..4 67 / 44.8 / 29.9 /
19.5, METEOR 18.93. Measured on the test split: not run. All rows:
python -m tables --table=flickr8k
"""

from configs import common

_ATTENDS = dict(
  features=512,
  embedding=512,
  attention=512,
  annotation_features=512,
  dropout_rate=0.5,
)
# One sampled location is noise enough, as in ucm.py.
_HARD = dict(_ATTENDS, hard=True, dropout_rate=0.3)


def _inject_merge(image_input, size, *, images, beams, epochs, **decoder):
  """A captioner of Tanti et al. with the settings of their published search.

  Args:
    image_input: see `inject_merge.InjectMerge`.
    size: of the GRU, the embeddings and the image.
    images: of a batch, each with five captions: a fifth of the captions of a
      batch of theirs, rounded.
    beams: number of beams.
    epochs: the most that a published run took, and two more: they stopped
      after one without a better perplexity, here after two without a better
      CIDEr.
    **decoder: dropout and initial weights.
  """
  epoch = 6000 // images
  arguments = dict(
    image_input=image_input, features=size, embedding=size, dropout_rate=0.5
  )
  changes = {
    'batch_size': images,
    'num_steps': epoch * epochs,
    'eval_every': epoch,
    'patience': 2,
    'decoding.beam_size': beams,
    'loss.label_smoothing': 0.0,
    'optimizer.schedule': 'constant',
    'optimizer.warmup_steps': 0,
    'optimizer.clip_norm': 0.0,
  }
  return 'inject_merge', {**arguments, **decoder}, changes


# Name -> the key of `model.DECODERS`, its arguments, and changes of the config.
MODELS = {
  'show_and_tell': (
    'show_and_tell',
    dict(features=512, embedding=512, dropout_rate=0.5),
    {},
  ),
  'soft': ('show_attend_tell', dict(_ATTENDS, hard=False), {}),
  'hard': ('show_attend_tell', _HARD, {}),
  'adaptive': ('adaptive', _ATTENDS, {}),
  'att2in': ('att2in', _ATTENDS, {}),
  'up_down': ('up_down', _ATTENDS, {}),
  'init_inject': _inject_merge(
    *('init', 512),
    images=26,
    beams=3,
    epochs=12,
    embedding_dropout_rate=0.5,
    init_limit=0.01,
  ),
  'pre_inject': _inject_merge(
    'pre', 512, images=6, beams=3, epochs=8, embedding_dropout_rate=0.5
  ),
  'par_inject': _inject_merge(
    *('par', 256),
    images=13,
    beams=5,
    epochs=14,
    image_dropout_rate=0.5,
    embedding_dropout_rate=0.5,
    learned_start=True,
  ),
  'merge': _inject_merge(
    'merge', 128, images=26, beams=3, epochs=16, learned_start=True
  ),
}
PHASES = {
  'cross_entropy': dict(),
  'self_critical': {
    'batch_size': 16,
    'loss.attention_penalty': 0.0,
    'loss.label_smoothing': 0.0,
    'self_critical.num_samples': 5,
    'optimizer.learning_rate': 2e-4,
    'optimizer.schedule': 'cosine',
    'optimizer.warmup_steps': 0,
    'optimizer.clip_norm': 5.0,
    'num_steps': 1500,  # 4 epochs.
    'eval_every': 375,
  },
}


def get_config(model_and_phase='soft'):
  model, _, phase = model_and_phase.partition('/')
  config = common.captioning()

  config.data = common.captioned_images(
    name='captioned_images/flickr8k',
    max_length=20,  # 97.5 % of the captions, EOS included.
    resize=0,
    crop=224,
  )
  config.cache_features = True

  config.model, decoder, changes = common.chosen(MODELS, model)
  config.encoder = dict(depth=50, grid_size=7)
  config.encoder_weights = 'hf://timm/resnet50.tv_in1k'
  config.decoder = decoder

  config.loss = common.captioning_loss(
    attention_penalty=0.02, label_smoothing=0.1
  )
  config.optimizer = common.optimizer(
    learning_rate=1e-3, warmup_steps=100, clip_norm=5.0
  )
  config.batch_size = 16  # Images, with five captions each.
  config.num_steps = 3000  # 8 epochs of 6,000 images.

  config.decoding = common.decoding(beam_size=5)
  config.eval_batch_size = 50
  config.log_every = 25
  config.eval_every = 375
  config.checkpoint_every = 125
  config.patience = 3
  config.update_from_flattened_dict(changes)
  config.update_from_flattened_dict(
    common.chosen(PHASES, phase or 'cross_entropy')
  )
  if config.self_critical.num_samples:
    # Without dropout: with it, the policy that learns is not the policy that
    # is used.
    rates = [name for name in config.decoder if name.endswith('dropout_rate')]
    config.decoder.update(dict.fromkeys(rates, 0.0))
  return config
