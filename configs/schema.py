"""The rules of every field of the configs, by command; see rules.py.

`app.run` and whatever reads a workdir check configs with these, before any
work. What the fields mean is explained in common.py.
"""

from collections.abc import Iterator

import ml_collections

from configs import rules
from configs.rules import Group
from configs.rules import Schema
from configs.rules import arguments
from configs.rules import choice
from configs.rules import flag
from configs.rules import integer
from configs.rules import number
from configs.rules import optional
from configs.rules import sequence
from configs.rules import text

Problems = Iterator[str]

# Rules that several fields share.

_COUNT = integer(1)
_WEIGHT = number(0)
_RATE = number(0, below=1)  # Of dropout; at 1 nothing would be left.
_DECAY = number(0, below=1)  # Of a moving average.
_SHARE = number(0, 1)
_DTYPE = choice('float32', 'bfloat16', 'float16')
_DATA_DIR = optional(text(r'(?!\w+://).*', 'a directory of this machine'))
_NAME = r'[A-Za-z]\w*'
_SPLITS = text(
  r'(train|validation|test)(\+(train|validation|test))*',
  'train, validation or test, or several with + between them',
)
_PATHS = sequence(rules.pattern())

# Every command.

OPTIMIZER = Group(
  dict(
    kind=choice('adam', 'sgd', 'rmsprop', 'rmsprop_graves'),
    learning_rate=number(above=0),
    schedule=choice(
      *('constant', 'cosine', 'staircase', 'exponential', 'published'),
      'plateau',
    ),
    decay_rate=number(above=0, high=1),
    decay_steps=_COUNT,
    decay_evaluations=_COUNT,
    final_learning_rate=_WEIGHT,
    warmup_steps=integer(0),
    b1=_DECAY,
    b2=_DECAY,
    epsilon_hat=flag(),
    momentum=_DECAY,
    nesterov=flag(),
    rms_decay=_DECAY,
    epsilon=number(above=0),
    weight_decay=_WEIGHT,
    clip_norm=_WEIGHT,
    clip_value=_WEIGHT,
    rates=sequence(rules.pair(rules.pattern(), _WEIGHT)),
  ),
  optional=(
    'decay_rate',
    'decay_steps',
    'decay_evaluations',
    'final_learning_rate',
  ),
)
_NEEDED = {
  'staircase': ('decay_rate', 'decay_steps'),
  'exponential': ('decay_rate', 'final_learning_rate'),
  'plateau': ('decay_rate', 'decay_evaluations'),
}
_EVERY = dict(
  seed=integer(0, 2**32 - 1),
  optimizer=OPTIMIZER,
  batch_size=_COUNT,
  num_steps=_COUNT,
  eval_batch_size=_COUNT,
  log_every=_COUNT,
  eval_every=_COUNT,
  checkpoint_every=_COUNT,
  best_mode=choice('max', 'min'),
  patience=integer(0),
)


_OF_TRAINING = frozenset(
  (
    *('optimizer', 'batch_size', 'num_steps', 'log_every', 'eval_every'),
    *('checkpoint_every', 'patience'),
  )
)


def _check_optimizer(config: ml_collections.ConfigDict) -> Problems:
  fields = config.optimizer
  for name in _NEEDED.get(fields.schedule, ()):
    if name not in fields:
      yield (
        f'config.optimizer.schedule={fields.schedule!r} needs '
        f'config.optimizer.{name}'
      )
  if fields.kind == 'adam' and fields.momentum:
    yield (
      f'config.optimizer.momentum={fields.momentum} is for the other kinds: '
      "pass kind='sgd', or Adam's b1"
    )
  if fields.kind != 'adam' and fields.epsilon_hat:
    yield (
      "config.optimizer.epsilon_hat is for kind='adam' alone: leave it False"
    )
  if fields.nesterov and not (fields.kind == 'sgd' and fields.momentum):
    yield (
      "config.optimizer.nesterov is for kind='sgd' with momentum: pass "
      '--config.optimizer.momentum=0.9 too'
    )
  final = fields.get('final_learning_rate', 0)
  if fields.schedule == 'exponential' and final > fields.learning_rate:
    yield (
      f'config.optimizer.final_learning_rate={final} must be at most '
      f'learning_rate={fields.learning_rate}: it is the limit of the decay'
    )


def _check_crop(config: ml_collections.ConfigDict) -> Problems:
  fields = config.data
  if fields.get('crop', 0) > fields.get('resize', 0):
    yield (
      f'config.data.crop={fields.crop} must be at most '
      f'resize={fields.resize}: images are resized, then cropped'
    )


def _check_microbatches(config: ml_collections.ConfigDict) -> Problems:
  if config.batch_size % config.microbatches:
    yield (
      f'config.batch_size={config.batch_size} must be a multiple of '
      f'microbatches={config.microbatches}'
    )


# Encoders of images.

_IN_BOTH = dict(
  # A VGG's are 16 and 19.
  depth=choice(10, 16, 18, 19, 34, 50, 101, 152),
  width=_COUNT,
  grid_size=optional(_COUNT),
  freeze_at=integer(0, 5),
)
RESNET = Group(
  dict(
    **_IN_BOTH,
    stem=choice('published', 'strided', 'whole'),
    strides=sequence(_COUNT, 1, 4),
    positions=flag(),
    layout=choice('torchvision', 'caffe'),
  ),
  optional=(
    'width',
    'stem',
    'strides',
    'positions',
    'grid_size',
    'freeze_at',
    'layout',
  ),
)
VGG = Group(
  dict(**_IN_BOTH, fc7=flag()),
  optional=('width', 'fc7', 'grid_size', 'freeze_at'),
)
FRAME_CNN = Group(
  dict(channels=sequence(_COUNT, 1), features=integer(0)),
  optional=('features',),
)


def _image_encoder(config: ml_collections.ConfigDict):
  """The rules of `encoder`: a VGG or a ResNet, by the depth."""
  fields = config.get('encoder')
  if isinstance(fields, ml_collections.ConfigDict):
    if fields.get('depth') in (16, 19):
      return VGG
  return RESNET


def _frame_encoder(config: ml_collections.ConfigDict):
  """The rules of `encoder`: as of images, a small CNN, or none for features."""
  fields = config.get('encoder')
  if isinstance(fields, ml_collections.ConfigDict) and not fields:
    return Group({})
  return _image_encoder(config) if fields and 'depth' in fields else FRAME_CNN


def _check_encoder(config: ml_collections.ConfigDict) -> Problems:
  fields = config.encoder
  parts = 1 + len(fields.get('strides', (1, 2, 2, 2)))
  if fields.get('freeze_at', 0) > parts:
    yield (
      f'config.encoder.freeze_at={fields.freeze_at} must be at most {parts}, '
      'the number of its parts'
    )
  if fields.get('fc7') and fields.get('grid_size') is not None:
    yield (
      f'config.encoder.grid_size={fields.grid_size} must be None: fc7 is at '
      'one location'
    )
  if 'depth' not in fields:
    for name in ('encoder_weights', 'cache_features'):
      if config.get(name):
        yield (
          f'config.{name}={config[name]!r} is for a ResNet or a VGG: pass an '
          'encoder with a depth'
        )


# Captioners of images and of clips.

_SCORES = (
  *('BLEU-1', 'BLEU-2', 'BLEU-3', 'BLEU-4', 'ROUGE-L', 'CIDEr'),
  *('loss', 'accuracy', 'perplexity'),
)
_WORDS = sequence(text())
_TOKENIZER = choice('words', 'characters')
DECODING = dict(
  beam_size=_COUNT,
  length_penalty=number(),
  length_penalty_form=choice('power', 'gnmt'),
  max_length=_COUNT,
  num_groups=_COUNT,
  diversity_penalty=_WEIGHT,
  group_order=choice('paper', 'staggered'),
  shrink_beam=flag(),
  temperature=_WEIGHT,
  samples=_COUNT,
  top_k=integer(0),
  top_p=number(above=0, high=1),
  seed=integer(0, 2**32 - 1),
  min_length=integer(0),
  no_repeat_ngram=integer(0),
  ngram_penalty=_WEIGHT,
  no_repeat_last=flag(),
  no_repeat_content=flag(),
  bad_endings=_WORDS,
  forbidden_words=_WORDS,
  required_words=sequence(rules.either(text(), sequence(text(), 1)), high=6),
)
_DECODER = dict(features=_COUNT, embedding=_COUNT, dropout_rate=_RATE)
_ATTENDS = dict(
  **_DECODER,
  attention=_COUNT,
  attention_layers=_COUNT,
  annotation_features=optional(_COUNT),
  attention_bias=flag(),
  attention_activation=choice('tanh', 'relu'),
)
_SELF_CRITICAL = dict(
  num_samples=integer(0),
  baseline=choice('leave_one_out', 'greedy'),
  cider=_WEIGHT,
  bleu=_WEIGHT,
  workers=integer(0),
)
_LAYERS = dict(
  cell=choice('lstm', 'peephole', 'maxout', 'layer_norm', 'gru', 'rnn'),
  layers=_COUNT,
)
DECODERS = {
  'show_and_tell': arguments(**_DECODER, **_LAYERS, image_bias=flag()),
  'show_attend_tell': arguments(
    **_ATTENDS,
    **_LAYERS,
    init_layers=_COUNT,
    init_tanh=flag(),
    gate=choice('scalar', 'vector', 'none'),
    deep_output=flag(),
    hard=flag(),
    expected=_SHARE,
  ),
  'adaptive': arguments(
    **_ATTENDS,
    cell=choice('lstm', 'maxout'),
    layers=_COUNT,
    word_relu=flag(),
    cell_dropout=flag(),
  ),
  'att2in': arguments(**_ATTENDS),
  'up_down': arguments(**_ATTENDS, cell=_LAYERS['cell']),
  'luong': arguments(**_ATTENDS, **_LAYERS),
  'inject_merge': arguments(
    **_DECODER,
    image_input=choice('init', 'pre', 'par', 'merge'),
    image_dropout_rate=_RATE,
    embedding_dropout_rate=_RATE,
    learned_start=flag(),
    init_limit=number(above=0),
  ),
}
CLIP_DECODERS = {
  'temporal_attention': arguments(
    **_ATTENDS, encoder_features=_COUNT, bidirectional=flag()
  ),
  's2vt': arguments(**_DECODER),
  'mean_pool': arguments(**_DECODER),
}


def _decoding_problems(fields: ml_collections.ConfigDict) -> Problems:
  if fields.beam_size % fields.num_groups:
    yield (
      f'decoding.beam_size={fields.beam_size} must be a multiple of '
      f'num_groups={fields.num_groups}: every group has the same number of '
      'beams'
    )
  if fields.min_length > fields.max_length:
    yield (
      f'decoding.min_length={fields.min_length} must be at most '
      f'max_length={fields.max_length}'
    )
  if fields.temperature and fields.required_words:
    yield (
      f'decoding.required_words={fields.required_words} need beams, but '
      f'temperature={fields.temperature} samples: pass temperature=0.0'
    )
  for name, off in (('samples', 1), ('top_k', 0), ('top_p', 1.0)):
    if not fields.temperature and fields[name] != off:
      yield (
        f'decoding.{name}={fields[name]} is for samples, but temperature=0 '
        'searches with beams: pass temperature=1.0 too'
      )


def _check_self_critical(config: ml_collections.ConfigDict) -> Problems:
  fields = config.self_critical
  if fields.num_samples == 1 and fields.baseline == 'leave_one_out':
    yield (
      'config.self_critical.num_samples=1 must be at least 2 for '
      "baseline='leave_one_out'"
    )


def check_decoding(fields: ml_collections.ConfigDict):
  """Checks the group `decoding` alone; see `rules.Schema.check`."""
  rules.check_group(fields, DECODING, 'decoding', _decoding_problems)


def _check_captioning(config: ml_collections.ConfigDict) -> Problems:
  for problem in _decoding_problems(config.decoding):
    yield f'config.{problem}'
  if config.best_metric in ('true', 'complete') and (
    config.data.name != 'scenes'
  ):
    yield (
      f'config.best_metric={config.best_metric!r} is for scenes alone: pass '
      f'one of {", ".join(_SCORES)}'
    )
  if config.data.resize:  # Without it both sides are resized to the crop.
    yield from _check_crop(config)
  if not config.data.crop and not config.regions:
    yield (
      'config.data.crop=0 keeps whole images, which make no batches: pass '
      '--config.data.crop=224 to train'
    )
  if config.regions and config.cache_features:
    yield (
      f'config.regions={config.regions!r} replace the encoder: pass '
      '--config.cache_features=False with them'
    )
  if config.cache_features and not (
    config.encoder_weights or config.start_from
  ):
    yield (
      'config.cache_features needs a published encoder: pass '
      '--config.encoder_weights=FILE.safetensors, or train the encoder with '
      '--config.cache_features=False'
    )
  if config.start_from and config.loss.visual_words:
    yield (
      'a trained captioner has no visual words: pass '
      '--config.loss.visual_words=0 with start_from'
    )


CAPTIONING = Schema(
  'captioning.main',
  dict(
    **_EVERY,
    best_metric=choice(*_SCORES, 'true', 'complete'),
    start_from=text(),
    regions=text(),
    cache_features=flag(),
    train_batch_stats=flag(),
    frozen=_PATHS,
    dtype=_DTYPE,
    ema_decay=_DECAY,
    microbatches=_COUNT,
    buckets=sequence(_COUNT),
    model=choice(*DECODERS),
    encoder=_image_encoder,
    encoder_weights=text(),
    decoder=lambda config: DECODERS.get(config.get('model')),
    decoding=DECODING,
    data=dict(
      name=text(
        f'scenes|coco_captions|captioned_images/{_NAME}',
        'scenes, coco_captions or captioned_images/NAME',
      ),
      data_dir=_DATA_DIR,
      tokenizer=_TOKENIZER,
      vocabulary_threshold=_COUNT,
      captions_per_image=_COUNT,
      max_length=_COUNT,
      resize=integer(0),
      crop=integer(0),
      flip=flag(),
    ),
    loss=dict(
      per=choice('caption', 'token'),
      label_smoothing=_RATE,
      attention_penalty=_WEIGHT,
      penalty_reduction=choice('sum', 'mean'),
      visual_words=_WEIGHT,
      scheduled_sampling=dict(
        start=integer(0),
        every=_COUNT,
        increase=_SHARE,
        max_probability=_SHARE,
      ),
      hard_attention=dict(
        reinforce=_WEIGHT, entropy=_WEIGHT, baseline_decay=_DECAY
      ),
    ),
    self_critical=_SELF_CRITICAL,
  ),
  together=(
    _check_optimizer,
    _check_microbatches,
    _check_encoder,
    _check_captioning,
    _check_self_critical,
  ),
  of_training=_OF_TRAINING | {'buckets'},
)

# Sketch-RNN.

_CELL = choice('lstm', 'layer_norm', 'hyper')
SKETCH_MODEL = arguments(
  encoder=_CELL,
  encoder_features=_COUNT,
  decoder=_CELL,
  decoder_features=_COUNT,
  latent=_COUNT,
  mixtures=_COUNT,
  recurrent_dropout=_RATE,
  conditional=flag(),
  learned_prior=flag(),
  num_classes=integer(0),
  dtype=_DTYPE,
)
SKETCH_RNN = Schema(
  'sketch_rnn.main',
  dict(
    **_EVERY,
    best_metric=choice('loss', 'reconstruction', 'reconstruction_masked', 'kl'),
    start_from=text(),
    buckets=sequence(_COUNT),
    latent_samples=_COUNT,
    model=SKETCH_MODEL,
    data=dict(
      name=text(
        rf'kanji|quickdraw_sketches(/[\w\- ]+)?|sketches/{_NAME}',
        'kanji, quickdraw_sketches, quickdraw_sketches/CATEGORY or '
        'sketches/NAME',
      ),
      categories=sequence(text()),
      data_dir=_DATA_DIR,
      max_length=_COUNT,
      limit=number(above=0),
      random_scale=number(0, below=1),
      drop_probability=_RATE,
    ),
    loss=dict(
      kl_weight=_WEIGHT,
      kl_start=_WEIGHT,
      kl_decay=number(above=0, high=1),
      kl_form=choice('paper', 'tf1'),
      kl_floor=_WEIGHT,
    ),
    quality=dict(
      temperatures=sequence(number(above=0), 1),
      num_steps=integer(0),
      max_drawings=_COUNT,
    ),
  ),
  together=(_check_optimizer,),
  # Those that scripts/import_sketch_rnn.py does not write.
  of_training=_OF_TRAINING
  | {
    *('start_from', 'buckets', 'quality'),
    *('data.random_scale', 'data.drop_probability'),
    *('loss.kl_start', 'loss.kl_decay', 'loss.kl_form'),
  },
)

# Video.

CLASSIFIER = arguments(
  cell=choice('rnn', 'lstm', 'gru', 'conv_lstm'),
  features=_COUNT,
  layers=integer(0),
  bidirectional=flag(),
  pooling=choice('mean', 'last', 'attention'),
  attention=_COUNT,
  hidden=integer(0),
  distances=integer(0),
  difference=number(),
  dropout_rate=_RATE,
)
DEEP_GRU = arguments(
  widths=sequence(_COUNT, 1), hidden=_COUNT, dropout_rate=_RATE
)


def _classifier(config: ml_collections.ConfigDict):
  """The rules of `model`: of a DeepGRU, if it has `widths`."""
  return DEEP_GRU if 'widths' in config.get('model', {}) else CLASSIFIER


_CLIP_SCORES = ('accuracy', 'mean_class_accuracy', 'top5_accuracy', 'loss')
_STREAM_SCORES = ('edit_accuracy', 'exact', 'frame_accuracy', 'loss')


def _check_classification(config: ml_collections.ConfigDict) -> Problems:
  kind = config.loss.kind
  known = _STREAM_SCORES if kind == 'ctc' else _CLIP_SCORES
  if config.best_metric not in known:
    yield (
      f'config.best_metric={config.best_metric!r} must be one of '
      f'{", ".join(known)} with loss.kind={kind!r}'
    )
  if 'widths' in config.model and (config.encoder or kind != 'clip'):
    yield (
      "config.model.widths is DeepGRU's, which has only logits of whole "
      "sequences of features: pass encoder={} and loss.kind='clip'"
    )
  if config.model.get('cell') == 'conv_lstm' and (
    config.encoder.get('features', 0) or 'channels' not in config.encoder
  ):
    yield (
      "config.model.cell='conv_lstm' reads a map: pass an encoder with "
      'channels and features=0'
    )


VIDEO_CLASSIFY = Schema(
  'video.classify',
  dict(
    **_EVERY,
    best_metric=choice(*dict.fromkeys((*_CLIP_SCORES, *_STREAM_SCORES))),
    encoder_weights=text(),
    train_batch_stats=flag(),
    frozen=_PATHS,
    dtype=_DTYPE,
    ema_decay=_DECAY,
    microbatches=_COUNT,
    encoder=_frame_encoder,
    model=_classifier,
    data=dict(
      name=text(
        f'ordered_motion|gesture_stream|ucf101|(clips|skeletons)/{_NAME}',
        'ordered_motion, gesture_stream, ucf101, clips/NAME or skeletons/NAME',
      ),
      data_dir=_DATA_DIR,
      train_split=_SPLITS,
      final_split=_SPLITS,
      sampling=choice('spread', 'window'),
      num_frames=_COUNT,
      stride=_COUNT,
      windows=_COUNT,
      resize=integer(0),
      crop=integer(0),
      space=choice('', 'skeleton', 'fingertip'),
      max_gestures=integer(0),
      reversals=sequence(sequence(text(), 2, 2)),
    ),
    augmentation=dict(
      flips=sequence(choice('left_right', 'up_down', 'half_turn')),
      min_span=number(above=0, high=1),
      permute_channels=flag(),
      shift=integer(0),
      brightness=number(0, 255),
      rotation=number(0, 180),
      scale=_WEIGHT,
      persons=integer(0),
      noise=_WEIGHT,
    ),
    loss=dict(
      kind=choice('clip', 'frames', 'ctc'),
      label_smoothing=_RATE,
      framewise_steps=integer(0),
    ),
  ),
  together=(
    _check_optimizer,
    _check_crop,
    _check_microbatches,
    _check_encoder,
    _check_classification,
  ),
  of_training=_OF_TRAINING,
)

_EVENT_SCORES = ('exact', 'motion_order', 'motion_set')


def _check_clip_captioning(config: ml_collections.ConfigDict) -> Problems:
  for problem in _decoding_problems(config.decoding):
    yield f'config.{problem}'
  events = config.data.name.partition('/')[0] == 'event_captions'
  if config.best_metric in _EVENT_SCORES and not events:
    yield (
      f'config.best_metric={config.best_metric!r} is for event_captions alone: '
      f'pass one of {", ".join(_SCORES)}'
    )
  if config.data.flip_events and not events:
    yield 'config.data.flip_events is for event_captions alone: leave it False'
  if config.cache_features and not (
    config.encoder_weights or config.start_from
  ):
    yield (
      'config.cache_features needs a published encoder: pass '
      '--config.encoder_weights=FILE.safetensors, or train the encoder with '
      '--config.cache_features=False'
    )


VIDEO_CAPTION = Schema(
  'video.caption',
  dict(
    **_EVERY,
    best_metric=choice(*_SCORES, *_EVENT_SCORES),
    start_from=text(),
    train_batch_stats=flag(),
    cache_features=flag(),
    difference=number(),
    frame_labels=integer(0),
    dtype=_DTYPE,
    model=choice(*CLIP_DECODERS),
    encoder=_frame_encoder,
    encoder_weights=text(),
    decoder=lambda config: CLIP_DECODERS.get(config.get('model')),
    decoding=DECODING,
    loss=dict(label_smoothing=_RATE, frame_labels=_WEIGHT),
    self_critical=_SELF_CRITICAL,
    data=dict(
      name=text(
        f'event_captions(/{_NAME})?|captioned_clips/{_NAME}',
        'event_captions, event_captions/pairs or captioned_clips/NAME',
      ),
      data_dir=_DATA_DIR,
      tokenizer=_TOKENIZER,
      vocabulary_threshold=_COUNT,
      captions_per_clip=_COUNT,
      max_length=_COUNT,
      num_frames=_COUNT,
      every=integer(0),
      jitter=flag(),
      resize=_COUNT,
      crop=_COUNT,
      flip=flag(),
      flip_events=flag(),
    ),
  ),
  together=(
    _check_optimizer,
    _check_crop,
    _check_encoder,
    _check_clip_captioning,
    _check_self_critical,
  ),
  of_training=_OF_TRAINING,
)

TRACKER = arguments(
  side=_COUNT,
  context=number(above=0),
  fusion=choice('early', 'late'),
  filters=sequence(_COUNT, 1),
  skips=sequence(integer(0)),
  dense=_COUNT,
  cell=choice('lstm', 'peephole', 'none'),
  features=_COUNT,
  layers=_COUNT,
  reset_every=integer(0),
  zero_state=flag(),
)
CORRELATION_TRACKER = arguments(
  depth=choice(10, 18, 34),
  strides=sequence(_COUNT, 1, 4),
  side=integer(32),
  context=number(above=1),
  bump=number(above=0),
  ridge=number(above=0),
  first_iterations=_COUNT,
  iterations=_COUNT,
  margin=_WEIGHT,
  rates=sequence(_SHARE, 1),
  levels=_COUNT,
  ratio=number(above=1),
  level_side=integer(16),
  size_ridge=number(above=0),
  size_rate=_SHARE,
  features=_COUNT,
)
_GENERATED = dict(
  name=choice('photo_track'),
  images=optional(text()),
  tracks=optional(text()),
  recorded=_SHARE,
  sequences=dict(train=_COUNT, validation=_COUNT, test=_COUNT),
  num_frames=integer(2),
  height=_COUNT,
  width=_COUNT,
)
_STORED = dict(
  name=text(
    f'occlusion_track(/{_NAME})?',
    'occlusion_track, occlusion_track/NAME or photo_track',
  ),
  data_dir=_DATA_DIR,
)


def _tracks(config: ml_collections.ConfigDict):
  """The rules of `data`, by the name of the data set."""
  fields = config.get('data')
  if not isinstance(fields, ml_collections.ConfigDict):
    return _STORED
  return _GENERATED if fields.get('name') == 'photo_track' else _STORED


TRACKERS = {'regression': TRACKER, 'correlation': CORRELATION_TRACKER}


def _check_tracking(config: ml_collections.ConfigDict) -> Problems:
  skips, filters = config.model.get('skips'), config.model.get('filters')
  if skips and filters and len(skips) != len(filters):
    yield (
      f'config.model.skips={skips} must be empty or have one number for each '
      f'of filters={filters}'
    )


VIDEO_TRACK = Schema(
  'video.track',
  dict(
    **_EVERY,
    best_metric=choice(
      *('success_auc', 'mean_overlap', 'success_rate_50', 'precision_20px'),
      'certainty/auroc',
    ),
    sequences=text(),
    longest_side=_COUNT,
    encoder_weights=text(),
    jitter=dict(correlation=_SHARE, centre=_WEIGHT, size=_WEIGHT),
    data=_tracks,
    tracker=choice(*TRACKERS),
    model=lambda config: TRACKERS.get(config.get('tracker')),
    self_feeding=dict(start=integer(0), ramp=integer(0), max_share=_SHARE),
  ),
  together=(_check_optimizer, _check_tracking),
  of_training=_OF_TRAINING,
)
