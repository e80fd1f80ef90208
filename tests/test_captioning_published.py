"""Against published captioners: the folder tests/golden/captioners."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from captioning import losses
from captioning import model
from captioning import published
from captioning import rewards
from captioning import self_critical
from captioning import show_attend_tell
from captioning import vocabulary as vocabulary_lib
from configs import coco
from configs import common
from configs import ucm
from recurrent import attention
from recurrent import decoder
from recurrent import search

PAD, BOS, EOS, UNK = range(4)
IMPOSSIBLE = published.IMPOSSIBLE  # The logit of PAD and BOS.
our_numbers = published.our_numbers
tutorial_numbers = published.tutorial_numbers


def load(path):
  with np.load(path) as arrays:
    return dict(arrays)


def part(arrays, prefix):
  """The arrays under a prefix."""
  return {
    name.removeprefix(prefix): x
    for name, x in arrays.items()
    if name.startswith(prefix)
  }


def our_tokens(captions, size):
  """Captions that 0 ends -> i32, EOS and then PAD."""
  ended = np.cumsum(captions == 0, axis=-1) - (captions == 0) > 0
  return np.where(ended, PAD, our_numbers(size)[captions]).astype(np.int32)


def rows(x, size, *, others):
  """Their rows of words at our numbers, `others` at PAD and BOS."""
  return published.rows(x, our_numbers(size), others=others)


def assert_close(actual, expected, atol=1e-5):
  np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=atol)


def by_path(tree):
  """The arrays of a tree by their paths, such as 'cell/input/bias'."""
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): x
    for path, x in jax.tree_util.tree_leaves_with_path(tree)
  }


def assert_gradients_close(actual, expected, *, ours_alone=()):
  """Within 1e-5 of the largest entry of each array, or of 0.1."""
  actual, expected = by_path(actual), by_path(expected)
  assert actual.keys() == expected.keys() | {*ours_alone}
  for path, y in expected.items():
    atol = 1e-5 * max(np.abs(y).max(), 0.1)
    np.testing.assert_allclose(actual[path], y, rtol=0, atol=atol, err_msg=path)


def loss_config(**changes):
  """The mean over words of the cross-entropy, unless changed."""
  config = ucm.get_config().loss
  config.attention_penalty = 0.0
  config.update(changes)
  return config


def loss_and_gradient(captioner, config, variables, batch, *, features=False):
  """The loss, the gradient of the parameters, and the other variables.

  With `features` the gradient is {'params': ..., 'features': ...}.
  """
  loss_fn = losses.create(captioner, config)
  counts = losses.counts(batch)
  others = {name: x for name, x in variables.items() if name != 'params'}

  def loss_of(inputs):
    return loss_fn(
      {'params': inputs['params'], **others},
      {**batch, 'features': inputs['features']},
      counts,
      0,
      jax.random.key(0),
    )

  step = jax.jit(jax.value_and_grad(loss_of, has_aux=True))
  (loss, (_, updated)), gradient = step(
    {'params': variables['params'], 'features': batch['features']}
  )
  return loss, gradient if features else gradient['params'], updated


# Case of `beam/` -> our decoding. Groups are theirs one after the other, and in
# ours the best caption first.
DECODING = {
  'plain': {},
  'avg': {'length_penalty': 1.0},
  'wu_0.9': {'length_penalty': 0.9, 'length_penalty_form': 'gnmt'},
  'constraint': {},
  'bad_endings': {},
  'no_unk': {},
  'groups_3_0.5': {'beam_size': 6, 'num_groups': 3, 'diversity_penalty': 0.5},
  'groups_2_0.2': {'beam_size': 4, 'num_groups': 2, 'diversity_penalty': 0.2},
}
CONSTRAINTS = {
  'constraint': {'no_repeat_last': True},
  'bad_endings': {'bad_endings': (7, 11, 13)},
  'no_unk': {'forbidden': (49,)},
}


def assert_beams_equal(captioner, variables, inputs, theirs, case):
  """The captions of `beam/CASE`, their scores and their log-probabilities.

  Args:
    captioner: the Flax module.
    variables: with their weights.
    inputs: the arguments of `begin`.
    theirs: the arrays under `beam/CASE/`.
    case: of `DECODING`.
  """
  size = 50
  words, scores, log_probs = theirs['seq'], theirs['p'], theirs['log_prob']
  if case.startswith('groups'):
    order = np.argsort(-log_probs, axis=1, kind='stable')
    words = np.take_along_axis(words, order[..., None], axis=1)
    scores = log_probs = np.take_along_axis(log_probs, order, axis=1)
  decoding = common.decoding(
    **{
      'beam_size': 5,
      'max_length': words.shape[-1],
      'group_order': 'staggered' if case.startswith('groups') else 'paper',
      **DECODING[case],
    }
  )
  constraints = {
    name: value if value is True else tuple(our_numbers(size)[list(value)])
    for name, value in CONSTRAINTS.get(case, {}).items()
  }
  found = jax.jit(
    lambda variables: decoder.decode(
      [captioner],
      [variables],
      inputs,
      ml_collections.ConfigDict(decoding),
      bos=BOS,
      eos=EOS,
      constraints=search.Constraints(**constraints),
    ),
    # Compiling takes the time.
    compiler_options={'xla_backend_optimization_level': 0},
  )(variables)
  np.testing.assert_array_equal(found.tokens, our_tokens(words, size))
  assert_close(found.log_probs, log_probs)
  assert_close(found.scores, scores)


# self-critical.pytorch.


class Gradients(published.Weights):
  """Gradients of their weights by their names.

  Theirs may have several biases where ours has the sum. Their gradients are
  equal; one is taken.
  """

  impossible = 0

  def total(self, *names):
    first, *others = (self.arrays[name] for name in names)
    for other in others:
      np.testing.assert_allclose(other, first, rtol=1e-5, atol=1e-6)
    return first

  def absorb(self, bias, layers):
    total = sum(layer['bias'] for layer in layers)
    np.testing.assert_allclose(bias, total, rtol=1e-5, atol=1e-6)

  def cell_bias(self, bias, units, width):
    return bias


MODULES = ('show_tell', 'newfc', 'att2in', 'updown', 'adaatt')


class Golden:
  """The captioner with their weights, and what it was given."""

  def __init__(self, arrays, name, *, masked):
    self.layout = published.LAYOUTS[name]
    self.theirs = part(arrays, 'masked/') if masked else arrays
    weights = part(arrays, 'param/')
    params = self.layout.params(published.Weights(weights))
    vocab_size = len(params['words']['embedding'])
    sizes = published.check(name, {k: x.shape for k, x in weights.items()})
    arguments = published.decoder_arguments(name, sizes)
    self.captioner = model.Captioner(
      model.DECODERS[self.layout.model](
        vocab_size=vocab_size, **{**arguments, 'dropout_rate': 0.0}
      )
    )
    self.variables = {'params': {'decoder': params}}
    self.numbers = our_numbers(vocab_size - 2)
    self.targets = arrays['input/seq'][..., 1:]
    self.batch = {
      'features': arrays['input/att_feats'],
      'tokens': our_tokens(self.targets, vocab_size - 2),
    }
    self.mask = np.ones(self.batch['features'].shape[:2], np.float32)
    if masked:
      self.mask = arrays['input/att_masks']
      self.batch['num_locations'] = self.mask.sum(1).astype(np.int32)
    self.real = arrays['input/loss_mask'] > 0
    np.testing.assert_array_equal(self.batch['tokens'] != PAD, self.real)

  def logits(self):
    return self.captioner.apply(
      self.variables, *model.inputs(self.batch), train=False
    )

  def feature_gradient(self):
    """Theirs, of the features, through their mean too."""
    count = self.mask.sum(1)[:, None, None]
    mean = self.theirs['grad_input/fc_feats'][:, None] / count
    return self.theirs['grad_input/att_feats'] + mean * self.mask[..., None]


@pytest.fixture(
  scope='module',
  params=[
    pytest.param((name, masked), id=name + '-masked' * masked)
    for name in MODULES
    for masked in (False, True)
    if not masked or name not in ('show_tell', 'newfc')
  ],
)
def golden(request, golden_file):
  name, masked = request.param
  return Golden(
    load(golden_file(f'captioners/{name}.npz')), name, masked=masked
  )


def test_log_probs_and_attention(golden):
  logits, y = golden.logits()
  log_probs = jax.nn.log_softmax(logits)[..., golden.numbers]
  real = golden.real
  assert_close(log_probs[real], golden.theirs['log_probs'][real])
  if 'attention' in golden.theirs:
    theirs = golden.theirs['attention']
    steps = theirs.shape[2]
    real = real[..., :steps]
    weights = y['attention']
    if 'sentinel' in y:
      weights = jnp.concatenate([y['sentinel'][..., None], weights], axis=-1)
    assert_close(weights[:, :, :steps][real], theirs[real])


def test_step_by_step(golden):
  tokens = golden.batch['tokens']
  apply = golden.captioner.apply
  carry, context = apply(
    golden.variables,
    golden.batch['features'],
    golden.batch.get('num_locations'),
    method='begin',
  )
  carry = jax.tree.map(lambda x: jnp.repeat(x, tokens.shape[1], 1), carry)
  fed = np.full(tokens.shape[:2], BOS)
  for t in range(tokens.shape[-1]):
    carry, logits = apply(golden.variables, carry, fed, context, method='step')
    log_probs = jax.nn.log_softmax(logits)[..., golden.numbers]
    real = golden.real[..., t]
    assert_close(log_probs[real], golden.theirs['log_probs'][:, :, t][real])
    fed = tokens[..., t]


def test_loss_and_gradients(golden):
  """Of the features too: they train the encoder."""
  loss, gradient, _ = loss_and_gradient(
    golden.captioner,
    loss_config(),
    golden.variables,
    golden.batch,
    features=True,
  )
  assert_close(loss, golden.theirs['loss'])
  assert_gradients_close(gradient['features'], golden.feature_gradient())
  weights = Gradients(part(golden.theirs, 'grad/'))
  assert_gradients_close(
    gradient['params']['decoder'],
    golden.layout.params(weights),
    ours_alone=golden.layout.ours_alone,
  )


@pytest.mark.parametrize('smoothing', [0.1, 0.2])
def test_label_smoothing(golden, smoothing):
  """They spread s over the other words: see `smoothed_cross_entropy`.

  Their loss is a divergence: less the entropy of the target.
  """
  logits, _ = golden.logits()
  size = len(golden.numbers)
  costs = losses.smoothed_cross_entropy(
    logits[..., golden.numbers], golden.targets, smoothing * size / (size - 1)
  )
  target = np.full(size, smoothing / (size - 1))
  target[0] = 1 - smoothing
  entropy = -np.sum(target * np.log(target))
  assert_close(
    costs[golden.real].mean() - entropy,
    golden.theirs[f'label_smoothing_{smoothing}'],
  )


@pytest.mark.parametrize(
  'case',
  [
    case if case == 'plain' else pytest.param(case, marks=pytest.mark.slow)
    for case in DECODING
  ],
)
def test_beams(golden, case):
  """Where groups are staggered, their ended beams read BOS again."""
  theirs = part(golden.theirs, f'beam/{case}/')
  if not theirs:
    pytest.skip("its authors' search was not run on this module")
  variables = jax.tree.map(np.copy, golden.variables)
  embedding = variables['params']['decoder']['words']['embedding']
  embedding[EOS] = embedding[BOS]
  assert_beams_equal(
    golden.captioner, variables, model.image_inputs(golden.batch), theirs, case
  )


# Show, Attend and Tell.


def arctic_params(w, *, gradient=False):
  """Weights by their names, or gradients, in our tree: see `Weights`."""
  units = w['decoder_U'].shape[0]

  def gates(x):
    """Theirs are in the order i, f, o, g."""
    i, f, o, g = np.split(x, 4, axis=-1)
    return np.concatenate([i, f, g, o], axis=-1)

  def dense(name):
    return {'kernel': w[f'{name}_W'], 'bias': w[f'{name}_b']}

  bias = gates(w['decoder_b'])
  output_hidden = dense('ff_logit_lstm')
  vocab = len(w['Wemb'])
  embedding = rows(w['Wemb'], vocab, others=0)  # BOS: they feed zeros.
  output_bias = rows(w['ff_logit_b'], vocab, others=0)
  if gradient:
    np.testing.assert_allclose(
      w['ff_logit_lstm_b'], w['ff_logit_ctx_b'], rtol=1e-5, atol=1e-6
    )
  else:
    bias[units : 2 * units] -= 1
    output_hidden['bias'] = w['ff_logit_lstm_b'] + w['ff_logit_ctx_b']
    output_bias[[PAD, BOS]] = IMPOSSIBLE
  return {
    'words': {'embedding': embedding},
    'init_hidden_0': dense('ff_init_1'),
    'init_state': {
      'kernel': np.concatenate([w['ff_memory_W'], w['ff_state_W']], axis=-1),
      'bias': np.concatenate([w['ff_memory_b'], w['ff_state_b']]),
    },
    'attend': {
      'key_layers_0': {
        'kernel': w['decoder_Wc_att'],
        'bias': w['decoder_b_att'],
      },
      'key_layers_1': {
        'kernel': w['decoder_W_att_1'],
        'bias': w['decoder_b_att_1'],
      },
      'query': {'kernel': w['decoder_Wd_att']},
      'score': {'kernel': w['decoder_U_att']},
    },
    'beta': {'kernel': w['decoder_W_sel'], 'bias': w['decoder_b_sel']},
    'cell': {
      'input': {'kernel': gates(w['decoder_W']), 'bias': bias},
      'recurrent': {'kernel': gates(w['decoder_U'])},
    },
    'context_gates': {'kernel': gates(w['decoder_Wc'])},
    'output_hidden': output_hidden,
    'output_context': {'kernel': w['ff_logit_ctx_W']},
    'output': {
      'kernel': rows(w['ff_logit_W'].T, vocab, others=0).T,
      'bias': output_bias,
    },
  }


class Arctic:
  """The captioner with their weights, and what it was given."""

  def __init__(self, arrays, kind):
    self.inputs = part(arrays, 'input/')
    self.theirs = part(arrays, f'{kind}/')
    weights = part(arrays, 'param/')
    self.vocab, embedding = weights['Wemb'].shape
    self.captioner = model.Captioner(
      show_attend_tell.ShowAttendTell(
        vocab_size=self.vocab + 2,
        features=len(weights['decoder_U']),
        embedding=embedding,
        attention=len(weights['decoder_U_att']),
        attention_layers=2,
        init_layers=2,
        dropout_rate=0.0,
        hard=kind == 'hard',
        expected=0.0,
      )
    )
    self.variables = {'params': {'decoder': arctic_params(weights)}}
    captions = self.inputs['x'].T
    self.batch = {
      'features': self.inputs['ctx'],
      'tokens': our_tokens(captions, self.vocab)[:, None],
    }
    self.real = self.inputs['mask'].T > 0
    np.testing.assert_array_equal(self.batch['tokens'][:, 0] != PAD, self.real)

  def assert_outputs_close(self):
    """Of the words: log-probabilities, and attention at each."""
    logits, self.y = self.captioner.apply(
      self.variables,
      *model.inputs(self.batch),
      train=True,
      rngs={'dropout': jax.random.key(0), 'attention': jax.random.key(0)},
    )
    log_probs, expected = (
      jax.nn.log_softmax(x)[self.real]
      for x in (
        logits[:, 0][..., our_numbers(self.vocab)],
        self.theirs['logits'],
      )
    )
    assert_close(log_probs, expected)
    self.assert_output_close('attention', self.theirs['attention'])

  def assert_output_close(self, name, expected):
    assert_close(self.y[name][:, 0][self.real], expected[self.real])

  def assert_gradients_close(self, gradient):
    gradient = jax.device_get(gradient['decoder'])
    embedding = gradient['words']['embedding'].copy()
    embedding[BOS] = 0  # Ours is learned, their zeros are not.
    gradient['words'] = {'embedding': embedding}
    expected = arctic_params(part(self.theirs, 'grad/'), gradient=True)
    assert_gradients_close(gradient, expected)


def test_soft_attention(golden_file):
  golden = Arctic(load(golden_file('captioners/arctic.npz')), 'soft')
  golden.assert_outputs_close()
  cost, _, _ = loss_and_gradient(
    golden.captioner, loss_config(per='caption'), golden.variables, golden.batch
  )
  assert_close(cost, golden.theirs['cost'])
  # Theirs is summed over the captions, and the mean over the locations.
  loss, gradient, _ = loss_and_gradient(
    golden.captioner,
    loss_config(
      per='caption',
      attention_penalty=float(len(golden.real)),
      penalty_reduction='mean',
    ),
    golden.variables,
    golden.batch,
  )
  assert_close(loss, golden.theirs['cost'] + golden.theirs['alpha_reg'])
  golden.assert_gradients_close(gradient)


def test_hard_attention(golden_file, monkeypatch):
  golden = Arctic(load(golden_file('captioners/arctic.npz')), 'hard')
  prefer = golden.inputs['prefer']
  monkeypatch.setattr(
    attention,
    'sample',
    lambda weights, uniform: attention.likeliest(weights * prefer),
  )
  baseline = jnp.float32(golden.theirs['baseline'])
  golden.variables['baseline'] = {'cost': baseline}
  golden.assert_outputs_close()
  chosen = np.log(golden.theirs['attention'])[golden.theirs['drawn'] > 0]
  golden.assert_output_close('log_chosen', chosen.reshape(golden.real.shape))
  # Theirs is summed over the captions, with weights of 0.1 and 0.002.
  captions = len(golden.real)
  _, gradient, updated = loss_and_gradient(
    golden.captioner,
    loss_config(
      per='caption',
      hard_attention=dict(
        reinforce=0.1 * captions, entropy=0.002 * captions, baseline_decay=0.9
      ),
    ),
    golden.variables,
    golden.batch,
  )
  golden.assert_gradients_close(gradient)
  assert_close(updated['baseline']['cost'], golden.theirs['baseline_after'])


# a-PyTorch-Tutorial-to-Image-Captioning.


class Tutorial:
  """The captioner with its weights, and what it was given."""

  def __init__(self, arrays):
    self.theirs = arrays
    params = published.tutorial(published.Weights(part(arrays, 'param/')))
    vocab_size, embedding = params['words']['embedding'].shape
    config = coco.get_config('tutorial')
    config.decoder.update(
      features=params['output']['kernel'].shape[0],
      embedding=embedding,
      attention=len(params['attend']['score']['kernel']),
      dropout_rate=0.0,
    )
    self.captioner = model.create(config, vocab_size, with_encoder=False)
    self.variables = {'params': {'decoder': params}}
    self.numbers = tutorial_numbers(vocab_size)


@pytest.fixture(scope='module')
def golden_tutorial(golden_file):
  return Tutorial(load(golden_file('captioners/sgrvinod.npz')))


def test_tutorial(golden_tutorial):
  golden, arrays = golden_tutorial, golden_tutorial.theirs
  captioner, variables = golden.captioner, golden.variables
  numbers = golden.numbers
  captions = numbers[arrays['input/captions']]
  assert (captions[:, 0] == BOS).all()
  tokens = captions[:, 1:]
  real = tokens != PAD
  np.testing.assert_array_equal(real.sum(1) + 1, arrays['input/lengths'][:, 0])
  batch = {'features': arrays['input/features'], 'tokens': tokens[:, None]}

  logits, y = captioner.apply(variables, *model.inputs(batch), train=False)
  log_probs, expected = (
    jax.nn.log_softmax(x)[real]
    for x in (logits[:, 0][..., numbers], arrays['logits'])
  )
  assert_close(log_probs, expected)
  assert_close(y['attention'][:, 0][real], arrays['attention'][real])

  for penalty, name in ((0.0, 'loss/cross_entropy'), (1.0, 'loss')):
    config = loss_config(attention_penalty=penalty, penalty_reduction='mean')
    loss, gradient, _ = loss_and_gradient(
      captioner, config, variables, batch, features=True
    )
    assert_close(loss, arrays[name])
  assert_gradients_close(gradient['features'], arrays['grad_input/features'])
  weights = Gradients(part(arrays, 'grad/'))
  assert_gradients_close(
    gradient['params']['decoder'], published.tutorial(weights)
  )


@pytest.mark.parametrize('num_beams', [1, 3, 5])
def test_the_shrinking_beam_of_the_tutorial(golden_tutorial, num_beams):
  """The best caption that has ended; theirs fails where there is none."""
  golden = golden_tutorial
  theirs = part(golden.theirs, f'beam/{num_beams}/')
  decoding = common.decoding(
    beam_size=num_beams, max_length=52, shrink_beam=True
  )
  found = jax.jit(
    lambda variables, features: decoder.decode(
      [golden.captioner],
      [variables],
      (features, None),
      ml_collections.ConfigDict(decoding),
      bos=BOS,
      eos=EOS,
      constraints=search.Constraints(),
    )
  )(golden.variables, jnp.asarray(golden.theirs['input/features']))
  num_found = 0
  for b, length in enumerate(theirs['length']):
    tokens = np.asarray(found.tokens[b])
    ended = np.flatnonzero(np.any(tokens == EOS, axis=-1))
    assert bool(length) == bool(len(ended))
    if length:
      best, size = ended[0], int(found.lengths[b, ended[0]])
      expected = golden.numbers[theirs['seq'][b, 1:length]]
      np.testing.assert_array_equal(tokens[best, :size], expected)
      assert_close(found.log_probs[b, best], theirs['log_prob'][b], atol=1e-4)
      num_found += 1
  assert num_found >= 4


# Self-critical training.


class Rewards:
  """Their captions in our numbers, and what they made of them."""

  def __init__(self, arrays):
    self.theirs = arrays
    self.vocab = arrays['logits'].shape[-1]
    self.vocabulary = vocabulary_lib.Vocabulary(
      [*vocabulary_lib.SPECIAL, *map(self.word, range(1, self.vocab - 1))]
    )
    self.tokens = {
      name: our_tokens(captions, self.vocab)
      for name, captions in part(arrays, 'input/').items()
    }

  def word(self, number):
    """Their last number is UNK: a word that the vocabulary lacks."""
    return f'w{number}'

  def train(self):
    """The texts of the training split."""
    for captions in self.theirs['input/train']:
      assert (captions == 0).any(-1).all()  # None is cut.
      yield [
        ' '.join(self.word(n) for n in caption[: list(caption).index(0)])
        for caption in captions
      ]


@pytest.fixture
def golden_rewards(golden_file):
  return Rewards(load(golden_file('captioners/rewards.npz')))


def test_rewards_and_advantages(golden_rewards, tmp_path):
  golden = golden_rewards
  frequencies = rewards.count(
    tmp_path / 'frequencies.npz',
    golden.train(),
    fingerprint='',
    vocabulary=golden.vocabulary,
    max_length=golden.tokens['train'].shape[-1],
  )
  references = golden.tokens['references']
  for name, cider, bleu in (
    ('cider', 1, 0),
    ('bleu', 0, 1),
    ('mixed', 1, 0.5),
  ):
    with rewards.Rewards(frequencies, cider=cider, bleu=bleu) as scorer:
      found = scorer.submit(golden.tokens['samples'], references).result()
      greedy = scorer.submit(golden.tokens['greedy'][:, None], references)
      greedy = greedy.result()[:, 0]
    assert_close(found, golden.theirs[name], atol=1e-6)
    if name == 'cider':
      assert_close(
        self_critical.advantages(found, greedy),
        golden.theirs['scst_advantage'],
        atol=1e-6,
      )
      np.testing.assert_allclose(
        found, golden.theirs['nsc_reward'], rtol=1e-5, atol=1e-6
      )


class Given:
  """A captioner whose parameters are the logits."""

  def apply(self, variables, *args, **kwargs):
    del args, kwargs
    return (variables['params'], {}), {}


@pytest.mark.parametrize('name', ['scst', 'nsc'])
def test_self_critical_loss_and_gradient(golden_rewards, name):
  golden = golden_rewards
  advantage = {
    'scst': golden.theirs['scst_advantage'],
    'nsc': self_critical.advantages(golden.theirs['nsc_reward'], None),
  }[name].astype(np.float32)
  tokens = golden.tokens['samples']
  numbers = our_numbers(golden.vocab)
  # Theirs have no PAD and BOS: any logit will do.
  logits = np.ones((*tokens.shape, golden.vocab + 2), np.float32)
  theirs = golden.theirs['logits'].reshape(*tokens.shape, golden.vocab)
  logits[..., numbers] = theirs
  batch = {'features': None, 'tokens': tokens, 'advantage': advantage}
  loss, gradient, _ = loss_and_gradient(
    Given(), loss_config(), {'params': logits}, batch
  )
  assert_close(loss, golden.theirs[f'{name}_loss'], atol=1e-6)
  np.testing.assert_array_equal(gradient[..., [PAD, BOS]], 0)
  expected = golden.theirs[f'{name}_grad'].reshape(theirs.shape)
  assert_close(gradient[..., numbers], expected, atol=1e-7)
