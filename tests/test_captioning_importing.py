"""Files of published captioners become workdirs with equal captions."""

import argparse
import json
import pathlib
import pickle
import runpy
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_captioning_published as golden_tests
import torch_checkpoints

from captioning import importing
from captioning import inference
from captioning import model
from captioning import published
from captioning import vocabulary as vocabulary_lib
from demo import captions
from recurrent import decoder
from recurrent import search
from vision import images
from vision import resnet
from vision import vgg

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = ROOT / 'scripts' / 'import_captioner.py'
CONFIGS = runpy.run_path(str(SCRIPT))['CONFIGS']


def import_files(weights, words, **options):
  return importing.load(weights, words, CONFIGS, **options)


def write_infos(path, size, *, protocol=2):
  """Infos of words w1, w2, ..., the last of which is UNK."""
  vocab = {str(i): f'w{i}' for i in range(1, size - 1)}
  vocab[str(size - 1)] = 'UNK'
  infos = {
    'vocab': vocab,
    'opt': argparse.Namespace(caption_model='fc', rnn_size=24),
    'iter': 10,
  }
  path.write_bytes(pickle.dumps(infos, protocol))


def write_word_map(path, size):
  """The tutorial's: words, then <unk>, <start>, <end>, and <pad> for 0."""
  words = {f'w{i}': i for i in range(1, size - 3)}
  words |= {'<unk>': size - 3, '<start>': size - 2, '<end>': size - 1}
  path.write_text(json.dumps({**words, '<pad>': 0}))


def restore(workdir):
  return inference.restore(workdir, with_encoder=False)


def random_weights(layout, sizes, seed=0):
  """Weights of a layout, as many as its letters say."""
  rng = np.random.default_rng(seed)
  entry = published.LAYOUTS[layout]
  shapes = published.expected({**entry.shapes, **entry.unread})
  return {
    name: rng.normal(0, 0.4, published._shape(letters, sizes)).astype(
      np.float32
    )
    for name, letters in shapes.items()
  }


def random_resnet(depth, width, seed=0):
  """Tensors by torchvision's names, and the variables."""
  network = resnet.ResNet(depth, width=width)
  template = jax.eval_shape(
    lambda: network.init(
      jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False
    )
  )
  rng = np.random.default_rng(seed)

  def sample(path, x):
    name = path[-1].key
    if name == 'kernel':
      scale = 0.5 / np.sqrt(np.prod(x.shape[:3]))
      return rng.normal(0, scale, x.shape).astype(np.float32)
    low = 0.5 if name in ('scale', 'var') else -0.2
    return rng.uniform(low, low + 1, x.shape).astype(np.float32)

  variables = jax.tree_util.tree_map_with_path(sample, template)
  return importing.pretrained._to_torchvision(variables), variables


# The golden modules, in their own files.


@pytest.mark.parametrize(
  ('name', 'legacy'),
  [(name, i % 2 > 0) for i, name in enumerate(golden_tests.MODULES)],
)
def test_golden_log_probs_and_captions(tmp_path, golden_file, name, legacy):
  arrays = golden_tests.load(golden_file(f'captioners/{name}.npz'))
  weights, infos = tmp_path / 'model.pth', tmp_path / 'infos.pkl'
  torch_checkpoints.save(
    weights,
    torch_checkpoints.state_dict(golden_tests.part(arrays, 'param/')),
    legacy=legacy,
  )
  write_infos(infos, 50)
  imported = import_files(weights, infos, regions='golden')
  assert imported.layout == name
  importing.write(tmp_path / 'run', imported)

  trained = restore(tmp_path / 'run')
  numbers = published.our_numbers(50)
  size = len(trained.vocabulary)
  assert size == 52
  tokens = golden_tests.our_tokens(arrays['input/seq'][..., 1:], 50)
  features = arrays['input/att_feats']
  logits, _ = trained.network.apply(
    trained.variables, features, tokens, None, train=False
  )
  real = arrays['input/loss_mask'] > 0
  log_probs = jax.nn.log_softmax(logits)[..., numbers]
  golden_tests.assert_close(log_probs[real], arrays['log_probs'][real])

  # UNK, which theirs may leave out, is left out by ours.
  theirs = golden_tests.part(arrays, 'beam/no_unk/')
  if not theirs:
    assert name == 'show_tell'  # Its authors' search was not run on it.
    return
  decoding = trained.config.decoding
  decoding.max_length = theirs['seq'].shape[-1]
  step = inference.decode_step([trained.network], decoding, trained.vocabulary)
  batch = {'features': features, 'mask': np.ones(len(features), bool)}
  beams = inference.decode(
    step, [trained.variables], [batch], trained.vocabulary
  )
  texts = [
    [' '.join(f'w{word}' for word in seq[: _end(seq)]) for seq in caption]
    for caption in theirs['seq']
  ]
  for found, expected, log_probs in zip(
    beams, texts, theirs['log_prob'], strict=True
  ):
    assert [caption.text for caption in found] == expected
    golden_tests.assert_close([x.log_prob for x in found], log_probs)


def _end(seq):
  return next((i for i, word in enumerate(seq) if word == 0), len(seq))


def test_the_golden_tutorial(tmp_path, golden_file):
  arrays = golden_tests.load(golden_file('captioners/sgrvinod.npz'))
  weights, words = tmp_path / 'BEST.pth.tar', tmp_path / 'WORDMAP.json'
  torch_checkpoints.save(
    weights,
    {
      'epoch': 11,
      'bleu-4': 0.24,
      'decoder': torch_checkpoints.module(
        golden_tests.part(arrays, 'param/'), 'models DecoderWithAttention'
      ),
      'encoder': None,
      'decoder_optimizer': torch_checkpoints.Call(
        torch_checkpoints.Name('torch.optim.adam Adam'), (), {'state': {}}
      ),
    },
  )
  write_word_map(words, 50)
  imported = import_files(weights, words, regions='golden')
  assert imported.layout == 'tutorial'
  importing.write(tmp_path / 'run', imported)
  trained = restore(tmp_path / 'run')
  numbers = published.tutorial_numbers(50)
  found = decoder.decode(
    [trained.network],
    [trained.variables],
    (jnp.asarray(arrays['input/features']), None),
    trained.config.decoding,
    bos=vocabulary_lib.BOS_ID,
    eos=vocabulary_lib.EOS_ID,
    constraints=search.Constraints(),
  )
  theirs = golden_tests.part(arrays, 'beam/5/')
  count = 0
  for b, length in enumerate(theirs['length']):
    if length:
      ended = np.any(found.tokens[b] == vocabulary_lib.EOS_ID, axis=-1)
      best = np.flatnonzero(ended)[0]
      expected = numbers[theirs['seq'][b, 1:length]]
      size = int(found.lengths[b, best])
      np.testing.assert_array_equal(found.tokens[b, best, :size], expected)
      golden_tests.assert_close(
        found.log_probs[b, best], theirs['log_prob'][b], atol=1e-4
      )
      count += 1
  assert count >= 4


# Modules that no golden file has: their equations, from the authors' code.


class Equations:
  """Layers with the weights of a state dict."""

  def __init__(self, weights):
    self.w = weights

  def linear(self, name, x):
    return x @ self.w[f'{name}.weight'].T + self.w[f'{name}.bias']

  def attend(self, scores, values):
    weights = np.exp(scores) / np.exp(scores).sum()
    return weights @ values

  def additive(self, layer, keys, h):
    """Scores of locations by their keys."""
    hidden = np.tanh(keys + self.linear(f'{layer}h2att', h))
    return self.linear(f'{layer}alpha_net', hidden)[:, 0]


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def maxout_lstm(sums, c, also=0.0):
  """Gates i, f, o, and the halves of the candidate."""
  units = len(c)
  i, f, o = np.split(sigmoid(sums[: 3 * units]), 3)
  halves = sums[3 * units :] + also
  c = f * c + i * np.maximum(halves[:units], halves[units:])
  return c, o * np.tanh(c)


class Att2in2(Equations):
  """Of AttModel.py."""

  def start(self, features):
    self.annotations = np.maximum(self.linear('att_embed.0', features), 0)
    self.keys = self.linear('ctx2att', self.annotations)
    units = self.w['core.h2h.weight'].shape[1]
    return np.zeros(units), np.zeros(units)

  def step(self, carry, word):
    c, h = carry
    x = np.maximum(self.w['embed.0.weight'][word], 0)
    seen = self.attend(
      self.additive('core.attention.', self.keys, h), self.annotations
    )
    sums = self.linear('core.i2h', x) + self.linear('core.h2h', h)
    c, h = maxout_lstm(sums, c, self.linear('core.a2c', seen))
    return (c, h), h


class FC(Equations):
  """Of FCModel.py: the image, then the words."""

  def start(self, features):
    zeros = np.zeros(self.w['core.h2h.weight'].shape[1])
    image = self.linear('img_embed', features.mean(0))
    return self.read((zeros, zeros), image)

  def read(self, carry, x):
    c, h = carry
    sums = self.linear('core.i2h', x) + self.linear('core.h2h', h)
    return maxout_lstm(sums, c)

  def step(self, carry, word):
    carry = self.read(carry, self.w['embed.weight'][word])
    return carry, carry[1]


class ShowAttendTell(Equations):
  """Of OldModel.py: no gate, and one layer for memory and state."""

  def start(self, features):
    self.annotations = features
    self.keys = self.linear('core.ctx2att', features)
    state = self.linear('linear', features.mean(0))
    return state, state

  def step(self, carry, word):
    c, h = carry
    seen = self.attend(self.additive('core.', self.keys, h), self.annotations)
    x = np.concatenate([self.w['embed.weight'][word], seen])
    sums = self.w['core.rnn.weight_ih_l0'] @ x
    sums += self.w['core.rnn.weight_hh_l0'] @ h
    i, f, g, o = np.split(sums, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return (c, h), h


class AdaAttMO(Equations):
  """Of AttModel.py: the sentinel is the first location."""

  def start(self, features):
    self.image = np.maximum(self.linear('fc_embed.0', features.mean(0)), 0)
    self.annotations = np.maximum(self.linear('att_embed.0', features), 0)
    self.keys = self.linear('ctx2att', self.annotations)
    zeros = np.zeros(len(self.image))
    return zeros, zeros

  def step(self, carry, word):
    c, h = carry
    x = np.maximum(self.w['embed.0.weight'][word], 0)

    def sums(words, image, state):
      return (
        self.linear(f'core.lstm.{words}', x)
        + self.linear(f'core.lstm.{image}', self.image)
        + self.linear(f'core.lstm.{state}', h)
      )

    gate = sigmoid(sums('r_w2h', 'r_v2h', 'r_h2h'))
    c, h = maxout_lstm(sums('w2h', 'v2h', 'h2h.0'), c)
    name = 'core.attention'
    sentinel = np.maximum(
      self.linear(f'{name}.fr_linear.0', gate * np.tanh(c)), 0
    )
    state = np.tanh(self.linear(f'{name}.ho_linear.0', h))
    keys = [self.linear(f'{name}.fr_embed', sentinel), *self.keys]
    hidden = np.tanh(keys + self.linear(f'{name}.ho_embed', state))
    seen = self.attend(
      self.linear(f'{name}.alpha_net', hidden)[:, 0],
      np.array([sentinel, *self.annotations]),
    )
    return (c, h), np.tanh(self.linear(f'{name}.att2h', seen + state))


EQUATIONS = {
  'att2in2': Att2in2,
  'fc': FC,
  'show_attend_tell': ShowAttendTell,
  'adaattmo': AdaAttMO,
}


@pytest.mark.parametrize('name', EQUATIONS)
def test_modules_are_their_equations(tmp_path, name):
  w = random_weights(name, dict(V=12, E=5, H=6, A=4, D=7, F=9))
  weights, infos = tmp_path / 'model.pth', tmp_path / 'infos.pkl'
  torch_checkpoints.save(weights, torch_checkpoints.module(w))
  write_infos(infos, 12)
  imported = import_files(weights, infos, regions='bottom_up')
  assert imported.layout == name
  assert ('not read' in imported.card) == (name == 'att2in2')
  network = model.create(
    imported.config, len(imported.words), with_encoder=False
  )
  features = np.random.default_rng(1).normal(size=(1, 3, 7)).astype(np.float32)
  words = [4, 11, 2, 0]
  numbers = published.our_numbers(12)
  logits, _ = network.apply(
    imported.variables, features, numbers[[words]][None], None, train=False
  )
  equations = EQUATIONS[name](w)
  carry = equations.start(features[0])
  for t, word in enumerate([0, *words[:-1]]):
    carry, hidden = equations.step(carry, word)
    expected = equations.linear('logit', hidden)
    expected -= np.log(np.exp(expected).sum())
    found = jax.nn.log_softmax(logits[0, 0, t])[numbers]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_batch_norm_of_features_is_folded(tmp_path):
  """The layer behind it reads normalized features."""
  w = random_weights('att2in2', dict(V=12, E=5, H=6, A=4, D=7, F=9))
  rng = np.random.default_rng(3)
  norm = {
    name: rng.uniform(0.5, 2, 7).astype(np.float32)
    for name in ('weight', 'bias', 'running_mean', 'running_var')
  }
  layer = w.pop('att_embed.0.weight'), w.pop('att_embed.0.bias')
  w |= {f'att_embed.0.{name}': x for name, x in norm.items()}
  w['att_embed.0.num_batches_tracked'] = np.array(5, np.int64)
  w['att_embed.1.weight'], w['att_embed.1.bias'] = layer
  torch_checkpoints.save(
    tmp_path / 'model.pth', torch_checkpoints.state_dict(w)
  )
  write_infos(tmp_path / 'infos.pkl', 12)
  imported = import_files(
    tmp_path / 'model.pth', tmp_path / 'infos.pkl', regions='bottom_up'
  )
  assert '| folded | BatchNorm `att_embed.0`' in imported.card
  x = rng.normal(size=(4, 7))
  normalized = (x - norm['running_mean']) / np.sqrt(norm['running_var'] + 1e-5)
  normalized = normalized * norm['weight'] + norm['bias']
  found = imported.variables['params']['decoder']['annotation']
  np.testing.assert_allclose(
    x @ found['kernel'] + found['bias'],
    normalized @ layer[0].T + layer[1],
    rtol=1e-5,
    atol=1e-5,
  )


# With an encoder.


def captions_of(network, variables, config, features, vocabulary):
  """The captions of features, from the decoder alone."""
  found = decoder.decode(
    [network],
    [variables],
    (features, None),
    config.decoding,
    bos=vocabulary_lib.BOS_ID,
    eos=vocabulary_lib.EOS_ID,
    constraints=search.Constraints(**vocabulary.constraints(config.decoding)),
  )
  (tokens,), (log_probs,) = found.tokens, found.log_probs
  return vocabulary.to_captions(np.asarray(tokens), np.asarray(log_probs))


@pytest.mark.parametrize('layout', ['tutorial', 'fc', 'att2in2'])
def test_images_are_captioned_as_they_were(tmp_path, layout):
  """The preprocessing and the encoder are theirs, in a workdir."""
  sizes = dict(V=30, E=8, H=8, A=8, D=64, F=64)
  w = random_weights(layout, sizes)
  tensors, variables = random_resnet(18, 8)
  weights = tmp_path / 'model.pth.tar'
  encoder = None
  if layout == 'tutorial':
    numbers = {x: i for i, x in importing._SEQUENCE.items()}
    inside = {}
    for name, x in tensors.items():
      first, _, rest = name.partition('.')
      inside[f'resnet.{numbers[first]}.{rest}'] = x
    torch_checkpoints.save(
      weights,
      {
        'encoder': torch_checkpoints.module(inside, 'models Encoder'),
        'decoder': torch_checkpoints.module(w),
      },
      legacy=True,
    )
    words = tmp_path / 'WORDMAP.json'
    write_word_map(words, 30)
  else:
    torch_checkpoints.save(weights, torch_checkpoints.state_dict(w))
    words = tmp_path / 'infos.pkl'
    write_infos(words, 30)
    encoder = tmp_path / 'resnet18.pth'
    torch_checkpoints.save(encoder, torch_checkpoints.state_dict(tensors))
  imported = import_files(weights, words, encoder=encoder)
  importing.write(tmp_path / 'run', imported)

  captioner = inference.load(tmp_path / 'run', decoding=['max_length=6'])
  rng = np.random.default_rng(2)
  pictures = [
    rng.integers(low, low + 100, (*sides, 3), np.uint8)
    for low, sides in ((0, (40, 61)), (150, (40, 61)), (80, (64, 48)))
  ]
  found = captioner.caption(pictures)
  assert len({beams[0].log_prob for beams in found}) == 3

  network = resnet.ResNet(
    18, width=8, layout='torchvision' if layout == 'tutorial' else 'caffe'
  )
  alone = model.create(
    captioner.config, len(captioner.vocabulary), with_encoder=False
  )
  params = {'params': {'decoder': imported.variables['params']['decoder']}}
  for picture, beams in zip(pictures, found, strict=True):
    if layout == 'tutorial':
      picture = squash(picture)
    grid, pooled = network.apply(
      variables, images.normalize(picture[None]), train=False
    )
    if layout == 'fc':
      features = pooled[:, None]
    else:
      rows = -(-picture.shape[0] // 32), -(-picture.shape[1] // 32)
      features = resnet.adaptive_average_pool(
        grid.reshape(1, *rows, -1), 14
      ).reshape(1, 196, -1)
    expected = captions_of(
      alone, params, captioner.config, features, captioner.vocabulary
    )
    assert [x.text for x in beams] == [x.text for x in expected]
    np.testing.assert_allclose(
      [x.log_prob for x in beams],
      [x.log_prob for x in expected],
      rtol=1e-4,
      atol=1e-4,
    )
  if layout != 'fc':
    one, *_ = captioner.caption_with_attention(pictures[1:])
    assert one.captions[0].text == found[1][0].text
    assert one.attention.shape == (6, 196)

  # The page shows all of an image.
  on_page = captions.Images(tmp_path / 'run', ['max_length=6'])
  (one,) = on_page([on_page.preprocess(pictures[0])])
  assert one.captions[0].text == found[0][0].text
  attention = captions.attention_to_json(one)
  assert (attention is None) == (layout == 'fc')
  assert attention is None or attention['rows'] == attention['columns'] == 14
  whole = {'x': 0, 'y': 0, 'width': 1, 'height': 1}
  assert on_page.crop_box(pictures[0]) == whole


def squash(picture):
  image = images.PIL.Image.fromarray(picture)
  return np.asarray(
    image.resize((256, 256), images.PIL.Image.Resampling.BILINEAR)
  )


# Errors.


@pytest.fixture
def files(tmp_path):
  sizes = dict(V=12, E=5, H=6, A=4, D=64, F=64)
  w = random_weights('att2in2', sizes)
  write_infos(tmp_path / 'infos.pkl', 12)
  return tmp_path, w


def load(files, **options):
  directory, w = files
  path = directory / 'model.pth'
  torch_checkpoints.save(path, torch_checkpoints.state_dict(w))
  return import_files(path, directory / 'infos.pkl', **options)


def test_missing_unknown_and_misshapen_tensors_are_named(files):
  w = files[1]
  del w['core.a2c.bias']
  w['core.extra.weight'] = np.zeros(3, np.float32)
  w['core.h2h.weight'] = w['core.h2h.weight'][:-1]
  with pytest.raises(ValueError, match='not those of att2in2') as error:
    load(files, regions='bottom_up')
  text = str(error.value)
  assert '1 missing: core.a2c.bias.' in text
  assert '1 unknown: core.extra.weight.' in text
  assert 'core.h2h.weight [29, 6] instead of [5H H].' in text


def test_files_that_do_not_belong_together(files, tmp_path):
  with pytest.raises(ValueError, match='no encoder: pass --encoder=resnet101'):
    load(files)
  encoder = tmp_path / 'resnet18.pth'
  tensors, _ = random_resnet(18, 4)
  torch_checkpoints.save(encoder, torch_checkpoints.state_dict(tensors))
  with pytest.raises(ValueError, match='32 features, the decoder reads 64'):
    load(files, encoder=encoder)
  arrays = {
    f'features.{i}.weight': np.ones((8, 8, 3, 3), np.float32)
    for i in vgg.numbers(vgg.LAYOUTS[16])
  }
  np.savez(tmp_path / 'vgg.npz', **arrays)
  with pytest.raises(ValueError, match='a VGG-16, the decoder .* a ResNet'):
    load(files, encoder=tmp_path / 'vgg.npz')
  with pytest.raises(ValueError, match='leave out --encoder'):
    load(files, encoder=encoder, regions='bottom_up')
  write_infos(tmp_path / 'infos.pkl', 11)
  with pytest.raises(ValueError, match='11 words .* the weights have 12'):
    load(files, regions='bottom_up')
  (tmp_path / 'infos.pkl').write_bytes(pickle.dumps({'opt': 1}, 2))
  with pytest.raises(ValueError, match='no field vocab.*infos_'):
    load(files, regions='bottom_up')


def test_numbers_that_are_not_finite_are_named(files):
  files[1]['logit.bias'][3] = np.nan
  with pytest.raises(ValueError, match=r'model\.pth: logit\.bias has NaN'):
    load(files, regions='bottom_up')


def test_up_down_needs_regions(tmp_path):
  w = random_weights('updown', dict(V=12, E=5, H=6, A=4, D=64))
  write_infos(tmp_path / 'infos.pkl', 12)
  with pytest.raises(ValueError, match='updown, which reads imported features'):
    load((tmp_path, w), encoder=tmp_path / 'resnet.pth')


def test_the_command(files, tmp_path, monkeypatch, capsys):
  directory, w = files
  path = directory / 'model.pth'
  torch_checkpoints.save(path, torch_checkpoints.state_dict(w))
  workdir = tmp_path / 'run'
  arguments = [f'--weights={path}', f'--words={directory / "infos.pkl"}']
  arguments += ['--regions=bottom_up', f'--workdir={workdir}']
  main = runpy.run_path(str(SCRIPT))['main']
  monkeypatch.setattr(sys, 'argv', [str(SCRIPT), *arguments])
  monkeypatch.setattr('training.app.set_up_logging', lambda: None)
  main()
  assert capsys.readouterr().out == f'att2in2, 14 words: {workdir}\n'
  assert '| `core.a2c.weight` | 2H H |' in (workdir / 'card.md').read_text()
  with pytest.raises(ValueError, match='has a checkpoint already'):
    main()


def test_the_numbers_of_words():
  """UNK may be absent, or anywhere."""
  numbers, words = published.numbers_of(['a', 'UNK', 'b'])
  assert numbers.tolist() == [2, 4, 3, 5]
  assert words == [*vocabulary_lib.SPECIAL, 'a', 'b']
  numbers, words = published.numbers_of(['a', 'b'])
  assert numbers.tolist() == [2, 4, 5]
  bias = published.rows(np.ones(3), numbers, others=-1)
  assert bias.tolist() == [-1, -1, 1, -1, 1, 1]
