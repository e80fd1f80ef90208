"""Groups of fields that experiments share, with their defaults.

  config.optimizer = common.optimizer(learning_rate=2e-4, clip_norm=5.0)

Each function returns one group. Its arguments replace defaults; a field that
the group does not have raises a ValueError. A config so shows what is
particular to its experiment, and everything else is explained here.
"""

from collections.abc import Mapping
from typing import Any

import ml_collections


def captioning() -> ml_collections.ConfigDict:
  """A new config for captioning.main: the fields that are seldom changed.

  Fields:
    seed: random seed of the parameters, the batches and the dropout.
    start_from: workdir of an earlier run; its best checkpoint replaces the
      random parameters. '' for none.
    regions: name of imported region features (scripts/import_regions.py), used
      instead of an encoder. '' for none.
    cache_features: compute the features of the frozen encoder once and keep
      them on disk.
    train_batch_stats: train with the statistics of the batch in BatchNorm,
      instead of the stored ones.
    frozen: regular expressions for the paths of parameters that are not
      trained, such as 'encoder/'.
    dtype: of the products of matrices; parameters are float32.
    self_critical: see `self_critical`.
    ema_decay: decay of the moving average of the parameters, which is then
      evaluated. 0 for none.
    microbatches: number of parts of a batch whose gradients are accumulated.
    buckets: lengths to which batches of captions of similar lengths are cut, in
      words, EOS included; the longest are as long as `data.max_length`. () pads
      all to that. Not in self-critical training.
    best_metric, best_mode: score that chooses the best checkpoint, and 'max' or
      'min'.
    patience: the run ends after this many evaluations in a row without a better
      `best_metric`; 0 for none.
  """
  return ml_collections.ConfigDict(
    dict(
      seed=0,
      start_from='',
      regions='',
      cache_features=False,
      train_batch_stats=False,
      frozen=(),
      dtype='float32',
      self_critical=self_critical(),
      ema_decay=0.0,
      microbatches=1,
      buckets=(10, 13, 16),
      best_metric='CIDEr',
      best_mode='max',
      patience=0,
    )
  )


def captioned_images(**changes: Any) -> dict[str, Any]:
  """The `data` of captioning.main.

  Fields:
    name: of the data set; see captioning/data.py. Always passed.
    data_dir: root of the prepared data sets; None is TFDS's default.
    tokenizer: 'words', the official one, or 'characters', for languages that
      put no blanks between words.
    vocabulary_threshold: words that occur at least this often in the training
      captions are in the vocabulary.
    captions_per_image: number of captions of an image in a batch.
    max_length: words of a caption, EOS included; longer ones are cut.
    resize, crop: the short side of an image, and the side of the square that is
      cropped from it, in pixels. Always passed. With resize=0 both sides are
      resized to `crop`; with both 0 images stay as they are (for inference).
    flip: mirror half of the training images left to right.
  """
  return _group(
    dict(
      name=...,
      data_dir=ml_collections.config_dict.placeholder(str),
      tokenizer='words',
      vocabulary_threshold=5,
      captions_per_image=5,
      max_length=20,
      resize=...,
      crop=...,
      flip=False,
    ),
    changes,
  )


def captioning_loss(**changes: Any) -> dict[str, Any]:
  """The `loss` of captioning.main; see captioning/losses.py.

  Fields:
    per: the cross-entropy is averaged over the 'token's or the 'caption's.
    label_smoothing: share s of the target that is spread over the vocabulary,
      s / V each.
    attention_penalty: weight of the doubly stochastic regularisation (Xu et al.
      2015, equation 14).
    penalty_reduction: 'sum' (as in the paper) or 'mean' over the locations.
    visual_words: weight of a loss that detects in single locations the words
      on which the captions of an image agree (Fang et al. 2015); 0 for none.
    scheduled_sampling: see `scheduled_sampling`.
    hard_attention: weights of REINFORCE and of the entropy, and the decay of
      the baseline (Xu et al. 2015, equation 12), for models with hard=True.
  """
  return _group(
    dict(
      per='token',
      label_smoothing=0.0,
      attention_penalty=0.0,
      penalty_reduction='sum',
      visual_words=0.0,
      scheduled_sampling=scheduled_sampling(),
      hard_attention=dict(reinforce=1.0, entropy=0.002, baseline_decay=0.9),
    ),
    changes,
  )


def scheduled_sampling(**changes: Any) -> dict[str, Any]:
  """Words of the model's own as inputs (Bengio et al. 2015); off by default.

  Fields:
    start: the step of the first increase.
    every: number of steps from one increase to the next.
    increase: growth of the probability at each.
    max_probability: its limit.
  """
  return _group(
    dict(start=0, every=1, increase=0.0, max_probability=0.0), changes
  )


def self_critical(**changes: Any) -> dict[str, Any]:
  """Training on rewards (Rennie et al. 2017); off by default.

  Fields:
    num_samples: captions that are sampled for each image or clip; 0 trains by
      cross-entropy.
    baseline: 'leave_one_out' (the mean reward of the other samples) or
      'greedy' (the reward of the greedy caption).
    cider, bleu: weights of CIDEr-D and BLEU-4 in the reward.
    workers: number of processes that score.
  """
  return _group(
    dict(
      num_samples=0, baseline='leave_one_out', cider=1.0, bleu=0.0, workers=2
    ),
    changes,
  )


def decoding(**changes: Any) -> dict[str, Any]:
  """The `decoding` of captioners of images and clips: beams or samples.

  Fields:
    beam_size: number of beams.
    length_penalty: 0 ranks captions by log-probability, 1 by its mean over the
      words.
    length_penalty_form: 'power' of the number of words, or 'gnmt' (Wu et al.
      2016).
    max_length: words of a caption, EOS included.
    num_groups: groups of beams that differ from each other (Vijayakumar et al.
      2018); 1 for ordinary beam search.
    diversity_penalty: cost of a word for each beam of an earlier group that
      took it.
    group_order: 'paper' or 'staggered', as published codes have it; see
      `search.beam_search`.
    shrink_beam: a caption that ends takes its place of the beam with it.
    temperature: above 0 captions are sampled, and the fields above but
      `max_length` are not read. 0 searches with beams.
    samples: number of captions that are sampled; the likeliest come first.
    top_k: sample among this many likeliest words; 0 for all.
    top_p: sample among the likeliest words with this share of the probability.
    seed: random seed of the samples.
    min_length: minimum number of words.
    no_repeat_ngram: n; no n-gram occurs twice in a caption. 0 allows it.
    ngram_penalty: n-grams may repeat, at this cost in nats. 0 forbids them.
    no_repeat_last: no word twice in a row.
    no_repeat_content: no word twice, but for English function words (Anderson
      et al. 2018).
    bad_endings: words that do not end a caption.
    forbidden_words: words that are never produced.
    required_words: words that must occur; an element is a word or several
      alternatives.
  """
  return _group(
    dict(
      beam_size=3,
      length_penalty=0.0,
      length_penalty_form='power',
      max_length=20,
      num_groups=1,
      diversity_penalty=0.0,
      group_order='paper',
      shrink_beam=False,
      temperature=0.0,
      samples=1,
      top_k=0,
      top_p=1.0,
      seed=0,
      min_length=0,
      no_repeat_ngram=0,
      ngram_penalty=0.0,
      no_repeat_last=False,
      no_repeat_content=False,
      bad_endings=(),
      forbidden_words=(),
      required_words=(),
    ),
    changes,
  )


def optimizer(**changes: Any) -> dict[str, Any]:
  """The `optimizer`; see training/optimizers.py for the equations.

  Fields:
    kind: 'adam', 'sgd', 'rmsprop' (PyTorch's) or 'rmsprop_graves' (Graves
      2013).
    learning_rate: the highest one. Always passed.
    schedule: 'constant', 'cosine' (to zero at the end of the run), 'staircase',
      'exponential', 'published' (by Sketch-RNN's code, exponential to 1e-5 at
      0.9999) or 'plateau' (after evaluations without a better score).
    decay_rate: factor of 'staircase', 'exponential' and 'plateau'.
    decay_steps: steps between two decays of 'staircase'.
    decay_evaluations: evaluations in a row without a better `best_metric`,
      after which 'plateau' decays, and again after as many.
    final_learning_rate: limit of 'exponential'.
    warmup_steps: steps of a linear warm-up from zero.
    b1, b2: decay of Adam's first and second moment.
    epsilon_hat: Adam in TensorFlow's form.
    momentum: of the other kinds; 0 for none.
    nesterov: Nesterov's momentum, for 'sgd'.
    rms_decay: decay of the squares of the gradient in RMSProp.
    epsilon: of Adam and RMSProp, which divide by the root of squares.
    weight_decay: for 'adam' decoupled from the gradient, as in AdamW; for the
      others added to it.
    clip_norm: limit of the gradient's global norm; 0 for none.
    clip_value: limit of each element of the gradient; 0 for none.
    rates: pairs of a regular expression and a factor of the learning rate of
      the parameters whose paths it matches.
  """
  return _group(
    dict(
      kind='adam',
      learning_rate=...,
      schedule='cosine',
      warmup_steps=0,
      b1=0.9,
      b2=0.999,
      epsilon_hat=False,
      momentum=0.0,
      nesterov=False,
      rms_decay=0.99,
      epsilon=1e-8,
      weight_decay=0.0,
      clip_norm=0.0,
      clip_value=0.0,
      rates=(),
    ),
    changes,
    optional=(
      'decay_rate',
      'decay_steps',
      'decay_evaluations',
      'final_learning_rate',
    ),
  )


def sketch_rnn() -> ml_collections.ConfigDict:
  """A new config for sketch_rnn.main: the fields that are seldom changed.

  Fields:
    seed: random seed of the parameters, the batches and the dropout.
    start_from: workdir of an earlier run or of imported weights; its best
      checkpoint replaces the random parameters, and its scale that of the
      drawings. '' for none.
    buckets: lengths to which batches are padded; () pads all to
      `data.max_length`.
    batch_size, eval_batch_size: number of drawings.
    latent_samples: samples of z for each drawing in an evaluation.
    quality: see `sketch_quality`.
    best_metric, best_mode: loss that chooses the best checkpoint, and 'max' or
      'min'.
    patience: the run ends after this many evaluations in a row without a better
      `best_metric`; 0 for none.
  """
  return ml_collections.ConfigDict(
    dict(
      seed=0,
      start_from='',
      buckets=(),
      batch_size=100,
      eval_batch_size=100,
      latent_samples=1,
      quality=sketch_quality(),
      best_metric='loss',
      best_mode='min',
      patience=0,
    )
  )


def drawings(**changes: Any) -> dict[str, Any]:
  """The `data` of sketch_rnn.main.

  Fields:
    name: of the data set; see sketch_rnn/builders.py. Always passed.
    categories: drawings of these alone; () for all.
    data_dir: root of the prepared data sets; None is TFDS's default.
    max_length: points of a drawing; longer drawings are left out.
    limit: offsets are clamped to this many units.
    random_scale: training drawings are stretched by up to this share.
    drop_probability: share of the points that training leaves out.
  """
  return _group(
    dict(
      name=...,
      categories=(),
      data_dir=ml_collections.config_dict.placeholder(str),
      max_length=250,
      limit=1000.0,
      random_scale=0.15,
      drop_probability=0.10,
    ),
    changes,
  )


def sketch_model(**changes: Any) -> dict[str, Any]:
  """The arguments of sketch_rnn.model.SketchRNN; the published code's sizes.

  Fields:
    encoder, decoder: 'lstm', 'layer_norm' or 'hyper'.
    encoder_features, decoder_features: number of units.
    latent: size of z.
    mixtures: number of components, M.
    recurrent_dropout: share of the candidates that are dropped.
    conditional: with an encoder and z; False is the decoder alone.
    learned_prior: learn mean and deviation of the prior of z.
    num_classes: number of categories; 0 for no labels.
    dtype: of the products of matrices; parameters are float32.
  """
  return _group(
    dict(
      encoder='lstm',
      encoder_features=256,
      decoder='lstm',
      decoder_features=512,
      latent=128,
      mixtures=20,
      recurrent_dropout=0.1,
      conditional=True,
      learned_prior=False,
      num_classes=0,
      dtype='float32',
    ),
    changes,
  )


def sketch_loss(**changes: Any) -> dict[str, Any]:
  """The `loss` of sketch_rnn.main; the published code's schedule.

  Fields:
    kl_weight: w_KL, the limit of the weight of L_KL.
    kl_start: eta_min, the weight's beginning.
    kl_decay: R, factor of its distance from the limit at each step.
    kl_form: 'paper' (section 3.3) or 'tf1' (the published code).
    kl_floor: KL_min; below it L_KL has no gradient.
  """
  return _group(
    dict(
      kl_weight=0.5,
      kl_start=0.01,
      kl_decay=0.99995,
      kl_form='tf1',
      kl_floor=0.2,
    ),
    changes,
  )


def sketch_quality(**changes: Any) -> dict[str, Any]:
  """The `quality` of sketch_rnn.main: measures of the drawings that it makes.

  Fields:
    temperatures: of the samples; the first is also that of reconstructions and
      interpolations, and of the drawings that are shown.
    num_steps: updates of the network whose features are compared; 0 measures
      nothing.
    max_drawings: drawings of a set.
  """
  return _group(
    dict(
      temperatures=(0.4, 0.2, 1.0),
      num_steps=800,
      max_drawings=1000,
    ),
    changes,
  )


def clip_classification() -> ml_collections.ConfigDict:
  """A new config for video.classify: the fields that are seldom changed.

  Fields:
    seed: random seed of the parameters, the batches and the dropout.
    encoder_weights: pretrained ResNet of the frames; '' for a random start.
    train_batch_stats: train with the statistics of the batch in BatchNorm,
      instead of the stored ones.
    frozen: regular expressions for the paths of parameters that are not
      trained.
    dtype: of the products of matrices; parameters are float32.
    ema_decay: decay of the moving average of the parameters, which is then
      evaluated. 0 for none.
    microbatches: number of parts of a batch whose gradients are accumulated.
    best_metric, best_mode: score that chooses the best checkpoint, and 'max' or
      'min'.
    patience: the run ends after this many evaluations in a row without a better
      `best_metric`; 0 for none.
  """
  return ml_collections.ConfigDict(
    dict(
      seed=0,
      encoder_weights='',
      train_batch_stats=False,
      frozen=(),
      dtype='float32',
      ema_decay=0.0,
      microbatches=1,
      best_metric='accuracy',
      best_mode='max',
      patience=0,
    )
  )


def labelled_clips(**changes: Any) -> dict[str, Any]:
  """The `data` of video.classify; see video/classification/examples.py.

  Fields:
    name: of the data set; see video/data.py. Always passed.
    data_dir: root of the prepared data sets; None is TFDS's default.
    train_split: the split that is trained on, or several joined by '+'.
    final_split: the split that is scored at the end of the run.
    sampling: 'spread' (frames of the whole recording) or 'window' (consecutive
      frames).
    num_frames: maximum number of frames. Always passed.
    stride: distance between two frames of a window.
    windows: windows of a recording that are averaged in an evaluation.
    resize, crop: the short side of a frame, and the side of the square that is
      cropped from it, in pixels; 0 leaves the frames as they are.
    space: 'skeleton' or 'fingertip', for features that are points; '' for
      frames and other features.
    max_gestures: maximum number of gestures in a stream; 0 for clips of one
      class.
    reversals: pairs of classes that are each other's, played backwards.
  """
  return _group(
    dict(
      name=...,
      data_dir=ml_collections.config_dict.placeholder(str),
      train_split='train',
      final_split='test',
      sampling='spread',
      num_frames=...,
      stride=1,
      windows=1,
      resize=0,
      crop=0,
      space='',
      max_gestures=0,
      reversals=(),
    ),
    changes,
  )


def augmentation(**changes: Any) -> dict[str, Any]:
  """Random changes of training clips; none by default.

  Fields:
    flips: flips that half of the clips get, of 'left_right', 'up_down' and
      'half_turn'; the labels follow.
    min_span: smallest share of a recording that an example shows.
    permute_channels: permute red, green and blue.
    shift: in pixels, to all sides.
    brightness: of 255.
    rotation: of points, in degrees.
    scale: share of the size.
    persons: number of persons of a skeleton, whose order is shuffled; 0 keeps
      it.
    noise: standard deviation, of features.
  """
  return _group(
    dict(
      flips=(),
      min_span=1.0,
      permute_channels=False,
      shift=0,
      brightness=0.0,
      rotation=0.0,
      scale=0.0,
      persons=0,
      noise=0.0,
    ),
    changes,
  )


def classification_loss(**changes: Any) -> dict[str, Any]:
  """The `loss` of video.classify; see video/classification/losses.py.

  Fields:
    kind: 'clip' (cross-entropy of the clip's logits), 'frames' (of each
      frame's) or 'ctc' (gestures of a stream).
    label_smoothing: share of the target that is spread over the classes.
    framewise_steps: steps at the start that learn the labels of the frames,
      before 'ctc' learns the order alone.
  """
  return _group(
    dict(kind='clip', label_smoothing=0.0, framewise_steps=0), changes
  )


def clip_captioning() -> ml_collections.ConfigDict:
  """A new config for video.caption: the fields that are seldom changed.

  Fields:
    seed: random seed of the parameters, the batches and the dropout.
    start_from: workdir of an earlier run; its best checkpoint replaces the
      random parameters. '' for none.
    train_batch_stats: train with the statistics of the batch in BatchNorm,
      instead of the stored ones.
    difference: factor of the change since the frame before, which stands
      beside each frame; 0 leaves it out.
    frame_labels: number of classes of a frame, an additional training target; 0
      for none.
    dtype: of the products of matrices; parameters are float32.
    loss: `label_smoothing`, share of the target that is spread over the
      vocabulary; and `frame_labels`, weight of the labels' cross-entropy.
    self_critical: see `self_critical`.
    best_metric, best_mode: score that chooses the best checkpoint, and 'max' or
      'min'.
    patience: the run ends after this many evaluations in a row without a better
      `best_metric`; 0 for none.
  """
  return ml_collections.ConfigDict(
    dict(
      seed=0,
      start_from='',
      train_batch_stats=False,
      difference=0.0,
      frame_labels=0,
      dtype='float32',
      loss=dict(label_smoothing=0.0, frame_labels=0.0),
      self_critical=self_critical(),
      best_metric='CIDEr',
      best_mode='max',
      patience=0,
    )
  )


def captioned_clips(**changes: Any) -> dict[str, Any]:
  """The `data` of video.caption; see video/captioning/examples.py.

  Fields:
    name: of the data set; see video/data.py. Always passed.
    data_dir: root of the prepared data sets; None is TFDS's default.
    tokenizer: 'words', the official one, or 'characters', for languages that
      put no blanks between words.
    vocabulary_threshold: words that occur at least this often in the training
      captions are in the vocabulary.
    captions_per_clip: number of captions of a clip in a batch.
    max_length: words of a caption, EOS included; longer ones are cut.
    num_frames: maximum number of frames. Always passed.
    every: distance between two frames; 0 spreads them over the whole clip.
    jitter: in training, move each frame at random within its part of the clip.
    resize, crop: the short side of a frame, and the side of the square that is
      cropped from it, in pixels. Always passed.
    flip: mirror half of the training clips left to right, but not their words.
    flip_events: for `event_captions`: mirror clips, words and labels together.
  """
  return _group(
    dict(
      name=...,
      data_dir=ml_collections.config_dict.placeholder(str),
      tokenizer='words',
      vocabulary_threshold=1,
      captions_per_clip=5,
      max_length=20,
      num_frames=...,
      every=0,
      jitter=False,
      resize=...,
      crop=...,
      flip=False,
      flip_events=False,
    ),
    changes,
  )


def tracking() -> ml_collections.ConfigDict:
  """A new config for video.track: the fields that are seldom changed.

  Fields:
    seed: random seed of the parameters, the batches and the jitter.
    sequences: directory of real sequences in OTB's layout, scored at the end;
      '' for none.
    longest_side: larger frames are reduced to this many pixels first.
    tracker: 'regression' of the box (tracking/model.py), or 'correlation'
      filters (tracking/correlation.py).
    encoder_weights: pretrained ResNet of a tracker on correlation filters,
      which is not trained further; '' for a random one.
    jitter: for a regression, errors of the boxes around which training
      searches: `correlation` from frame to frame, and the standard deviations
      of `centre` (in widths and heights) and `size` (its logarithm).
    best_metric, best_mode: score that chooses the best checkpoint, and 'max' or
      'min'.
    patience: the run ends after this many evaluations in a row without a better
      `best_metric`; 0 for none.
  """
  return ml_collections.ConfigDict(
    dict(
      seed=0,
      sequences='',
      longest_side=640,
      tracker='regression',
      encoder_weights='',
      jitter=dict(correlation=0.8, centre=0.12, size=0.06),
      best_metric='success_auc',
      best_mode='max',
      patience=0,
    )
  )


def chosen(table: Mapping[str, Any], name: str) -> Any:
  """The entry of a config's argument, as in configs/ucm.py:NAME.

  Raises:
    ValueError: there is none of that name.
  """
  if name not in table:
    raise ValueError(f'{name!r} is none of {", ".join(table)}')
  return table[name]


def _group(defaults, changes, *, optional=()):
  """The defaults with the changes; `...` stands for what must be passed."""
  unknown = set(changes) - {*defaults, *optional}
  if unknown:
    raise ValueError(
      f'{", ".join(sorted(unknown))}: no such field here; the fields are '
      f'{", ".join((*defaults, *optional))}'
    )
  fields = {**defaults, **changes}
  missing = [name for name, value in fields.items() if value is ...]
  if missing:
    raise ValueError(f'pass {", ".join(missing)} too')
  return fields
