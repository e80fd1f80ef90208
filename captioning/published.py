"""Published captioners: their tensors in our parameters.

Layouts are those of two repositories, whose weights are in circulation:
self-critical.pytorch of Luo, formerly ImageCaptioning.pytorch (ShowTell, FC,
NewFC, ShowAttendTell, Att2in, Att2in2, UpDown, AdaAtt, AdaAttMO), and
a-PyTorch-Tutorial-to-Image-Captioning of Vinodababu. A mapping
takes `Weights` and returns the parameters of a decoder: transposed kernels,
gates in our order, biases that are added anyway as their sum, less 1 in forget
gates, where ours add it.

In the first repository 0 is padding, the beginning and the end, words count
from 1, and 'UNK' is one of them. In the second all four special words have
numbers of their own. `numbers` are our numbers of theirs.

Letters of the shapes: V their words, E embedding, H units, A attention, D
features.
"""

import dataclasses
import re
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from captioning import vocabulary as vocabulary_lib

PAD, BOS, EOS, UNK = range(4)
FIRST = len(vocabulary_lib.SPECIAL)
IMPOSSIBLE = -1e9  # The logit of words that theirs lack.
_EPSILON = 1e-5  # Of PyTorch's BatchNorm.
_UNKNOWN = ('UNK', '<unk>')


def numbers_of(words: Sequence[str]) -> tuple[np.ndarray, list[str]]:
  """Our numbers of the words 0 (the end), 1, 2, ...; and our vocabulary.

  Args:
    words: those of 1, 2, ...
  """
  numbers, known = [EOS], []
  for word in words:
    if word in _UNKNOWN:
      numbers.append(UNK)
    else:
      numbers.append(FIRST + len(known))
      known.append(word)
  return np.array(numbers), [*vocabulary_lib.SPECIAL, *known]


def our_numbers(size: int) -> np.ndarray:
  """Our numbers of 0 (the end), 1, ..., size - 1, the last of which is UNK."""
  return np.array([EOS, *range(FIRST, FIRST + size - 2), UNK])


def tutorial_numbers(size: int) -> np.ndarray:
  """Our numbers of the tutorial's <pad>, 1, ..., <unk>, <start>, <end>."""
  return np.array([PAD, *range(FIRST, size), UNK, BOS, EOS])


def rows(x: np.ndarray, numbers: np.ndarray, *, others: float) -> np.ndarray:
  """Their rows of words at our numbers, `others` at those that they lack."""
  count = FIRST + np.sum(numbers >= FIRST)
  placed = np.full((count, *x.shape[1:]), others, np.float32)
  placed[numbers] = x
  return placed


class Weights:
  """Their weights by their names, and our forms of their layers."""

  impossible = IMPOSSIBLE

  def __init__(
    self, arrays: Mapping[str, np.ndarray], numbers: np.ndarray | None = None
  ):
    """Takes our numbers of their words; by default the last is UNK."""
    self.arrays = arrays
    self._numbers = numbers

  def numbers(self, default: Callable[[int], np.ndarray], size: int):
    """Our numbers of `size` words."""
    return default(size) if self._numbers is None else self._numbers

  def kernel(self, name: str) -> np.ndarray:
    """The matrix of a layer, for rows from the left."""
    return self.arrays[f'{name}.weight'].T

  def bias(self, *names: str) -> np.ndarray:
    """The sum of the biases of layers."""
    return self.total(*(f'{name}.bias' for name in names))

  def total(self, *names: str) -> np.ndarray:
    """The sum of arrays."""
    first, *others = (self.arrays[name] for name in names)
    for other in others:
      first = first + other
    return first

  def absorb(self, bias: np.ndarray, layers: Sequence[dict[str, np.ndarray]]):
    """Adds to the biases of layers one that is added to all their outputs."""
    for layer in layers:
      layer['bias'] = layer['bias'] + bias

  def dense(self, name: str, *also: str) -> dict[str, np.ndarray]:
    """The layer; its bias includes those of other layers."""
    return {'kernel': self.kernel(name), 'bias': self.bias(name, *also)}

  def words(self, name: str) -> dict[str, np.ndarray]:
    """The vectors of words, which are fed."""
    vectors = self.arrays[f'{name}.weight']
    numbers = self.numbers(our_numbers, len(vectors))
    embedding = rows(vectors, numbers, others=0)
    # They feed 0, which is EOS too.
    embedding[BOS], embedding[EOS] = embedding[EOS], 0
    return {'embedding': embedding}

  def output(self, name: str = 'logit') -> dict[str, np.ndarray]:
    """The layer of the logits."""
    weight, bias = (self.arrays[f'{name}.{x}'] for x in ('weight', 'bias'))
    numbers = self.numbers(our_numbers, len(bias))
    return {
      'kernel': rows(weight, numbers, others=0).T,
      'bias': rows(bias, numbers, others=self.impossible),
    }

  def cell(
    self, inputs: np.ndarray, recurrent: np.ndarray, bias: np.ndarray | None
  ) -> dict[str, Any]:
    """Kernels f32[., G * H], f32[H, G * H], and the bias or None."""
    kernels = {'input': {'kernel': inputs}, 'recurrent': {'kernel': recurrent}}
    bias = self.cell_bias(bias, *recurrent.shape)
    if bias is not None:
      kernels['input']['bias'] = bias
    return kernels

  def cell_bias(
    self, bias: np.ndarray | None, units: int, width: int
  ) -> np.ndarray | None:
    """The bias less 1 in the forget gates, where ours add it."""
    bias = np.zeros(width, np.float32) if bias is None else bias.copy()
    bias[units : 2 * units] -= 1
    return bias


def show_tell(w: Weights) -> dict[str, Any]:
  """ShowTell; its LSTM has no biases."""
  return {
    'words': w.words('embed'),
    'image': w.dense('img_embed'),
    'cell': w.cell(
      w.arrays['core.weight_ih_l0'].T, w.arrays['core.weight_hh_l0'].T, None
    ),
    'output': w.output(),
  }


def newfc(w: Weights, image: str = 'fc_embed', core: str = '_core'):
  """NewFC; FC has other names."""
  return {
    'words': w.words('embed'),
    'image': w.dense(image),
    'cell': w.cell(
      w.kernel(f'{core}.i2h'),
      w.kernel(f'{core}.h2h'),
      w.bias(f'{core}.i2h', f'{core}.h2h'),
    ),
    'output': w.output(),
  }


def fc(w: Weights) -> dict[str, Any]:
  """FC, the earlier form of NewFC."""
  return newfc(w, 'img_embed', 'core')


def show_attend_tell(w: Weights) -> dict[str, Any]:
  """ShowAttendTell; one layer starts memory and state, the LSTM has no bias."""
  words = w.words('embed')
  initial = w.dense('linear')
  inputs = w.arrays['core.rnn.weight_ih_l0'].T
  word, context = np.split(inputs, [words['embedding'].shape[1]])
  return {
    'words': words,
    'init_state': {
      name: np.concatenate([x, x], axis=-1) for name, x in initial.items()
    },
    'attend': {
      'key_layers_0': w.dense('core.ctx2att', 'core.h2att'),
      'query': {'kernel': w.kernel('core.h2att')},
      'score': {'kernel': w.kernel('core.alpha_net')},
    },
    'cell': w.cell(word, w.arrays['core.rnn.weight_hh_l0'].T, None),
    'context_gates': {'kernel': context},
    'output': w.output(),
  }


def att2in(w: Weights, words: str = 'embed') -> dict[str, Any]:
  """Att2in; the bias of the query is one of all keys."""
  return {
    'words': w.words(words),
    'attend': {
      'key_layers_0': w.dense('ctx2att', 'core.attention.h2att'),
      'query': {'kernel': w.kernel('core.attention.h2att')},
      'score': {'kernel': w.kernel('core.attention.alpha_net')},
    },
    'cell': w.cell(
      w.kernel('core.i2h'),
      w.kernel('core.h2h'),
      w.bias('core.i2h', 'core.h2h'),
    ),
    'context_candidate': w.dense('core.a2c'),
    'output': w.output(),
  }


def att2in2(w: Weights) -> dict[str, Any]:
  """Att2in2: with a layer on the features, and a ReLU on the words.

  The layer of the mean feature is there, but its output is not read.
  """
  return {**att2in(w, 'embed.0'), 'annotation': w.dense('att_embed.0')}


def updown(w: Weights) -> dict[str, Any]:
  """UpDown; its first LSTM reads the other's state, the mean, the word."""
  first, second = 'core.att_lstm', 'core.lang_lstm'
  units = w.arrays[f'{second}.weight_hh'].shape[1]

  def cell(name, kernel):
    bias = w.total(f'{name}.bias_ih', f'{name}.bias_hh')
    return w.cell(kernel, w.arrays[f'{name}.weight_hh'].T, bias)

  kernel = w.arrays[f'{first}.weight_ih'].T
  feedback, mean, word = np.split(kernel, [units, 2 * units])
  return {
    'words': w.words('embed.0'),
    'picture': w.dense('fc_embed.0'),
    'annotation': w.dense('att_embed.0'),
    'attend': {
      'key_layers_0': w.dense('ctx2att', 'core.attention.h2att'),
      'query': {'kernel': w.kernel('core.attention.h2att')},
      'score': {'kernel': w.kernel('core.attention.alpha_net')},
    },
    'feedback': {'kernel': feedback},
    'attention_cell': {
      **cell(first, word),
      'constant_input': {'kernel': mean},
    },
    'language_cell': cell(second, w.arrays[f'{second}.weight_ih'].T),
    'output': w.output(),
  }


def adaatt(w: Weights, *, maxout: bool = False) -> dict[str, Any]:
  """AdaAtt; its gates are in the order i, f, o, g, the sentinel's apart."""

  def join(gates, of_sentinel):
    if not maxout:
      i, f, o, g = np.split(gates, 4, axis=-1)
      gates = np.concatenate([i, f, g, o], axis=-1)
    return np.concatenate([gates, of_sentinel], axis=-1)

  def kernel(name, of_sentinel):
    lstm = 'core.lstm'
    return join(w.kernel(f'{lstm}.{name}'), w.kernel(f'{lstm}.{of_sentinel}'))

  bias = join(
    w.bias('core.lstm.w2h', 'core.lstm.v2h', 'core.lstm.h2h.0'),
    w.bias('core.lstm.r_w2h', 'core.lstm.r_v2h', 'core.lstm.r_h2h'),
  )
  attention = 'core.attention'
  # A bias of the query is one of all keys.
  keys = {
    'key_layers_0': w.dense('ctx2att'),
    'sentinel_key': w.dense(f'{attention}.fr_embed'),
  }
  w.absorb(w.bias(f'{attention}.ho_embed'), list(keys.values()))
  return {
    'words': w.words('embed.0'),
    'picture': w.dense('fc_embed.0'),
    'annotation': w.dense('att_embed.0'),
    'cell': {
      **w.cell(kernel('w2h', 'r_w2h'), kernel('h2h.0', 'r_h2h'), bias),
      'constant_input': {'kernel': kernel('v2h', 'r_v2h')},
    },
    'sentinel': w.dense(f'{attention}.fr_linear.0'),
    'sentinel_key': keys['sentinel_key'],
    'state': w.dense(f'{attention}.ho_linear.0'),
    'attend': {
      'key_layers_0': keys['key_layers_0'],
      'query': {'kernel': w.kernel(f'{attention}.ho_embed')},
      'score': {'kernel': w.kernel(f'{attention}.alpha_net')},
    },
    'output_hidden': w.dense(f'{attention}.att2h'),
    'output': w.output(),
  }


def adaattmo(w: Weights) -> dict[str, Any]:
  """AdaAttMO, whose gates are in our order: i, f, o, g, g'."""
  return adaatt(w, maxout=True)


def tutorial(w: Weights) -> dict[str, Any]:
  """The tutorial's decoder; all its words have numbers."""
  numbers = w.numbers(tutorial_numbers, len(w.arrays['fc.bias']))
  theirs = np.argsort(numbers)  # Of our numbers.
  words = w.arrays['embedding.weight'][theirs]
  word, context = np.split(
    w.arrays['decode_step.weight_ih'].T, [words.shape[1]]
  )
  memory, hidden = w.dense('init_c'), w.dense('init_h')
  query = 'attention.decoder_att'
  return {
    'words': {'embedding': words},
    'init_state': {
      name: np.concatenate([memory[name], hidden[name]], axis=-1)
      for name in memory
    },
    'attend': {
      'key_layers_0': w.dense('attention.encoder_att', query),
      'query': {'kernel': w.kernel(query)},
      'score': {'kernel': w.kernel('attention.full_att')},
    },
    'beta': w.dense('f_beta'),
    'cell': w.cell(
      word,
      w.arrays['decode_step.weight_hh'].T,
      w.total('decode_step.bias_ih', 'decode_step.bias_hh'),
    ),
    'context_gates': {'kernel': context},
    'output': {name: x[..., theirs] for name, x in w.dense('fc').items()},
  }


@dataclasses.dataclass(frozen=True)
class Layout:
  """A published decoder and the one of ours that equals it.

  Attributes:
    model: key of `model.DECODERS`.
    params: `Weights` -> its parameters.
    shapes: of their tensors. A layer, 'logit', stands for logit.weight and
      logit.bias; a name with 'weight' in it for itself.
    options: arguments of our decoder, but for the sizes.
    unread: layers of theirs whose output is not used.
    ours_alone: parameters that theirs lacks.
  """

  model: str
  params: Callable[[Weights], dict[str, Any]]
  shapes: Mapping[str, str]
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  unread: Mapping[str, str] = dataclasses.field(default_factory=dict)
  ours_alone: tuple[str, ...] = ()


_WORDS = {'embed.weight': 'V E', 'logit': 'V H'}
_RELU_WORDS = {'embed.0.weight': 'V E', 'logit': 'V H', 'att_embed.0': 'H D'}
_ATTENTION = {
  'core.attention.h2att': 'A H',
  'core.attention.alpha_net': '1 A',
}
_ATT2IN = {'core.i2h': '5H E', 'core.h2h': '5H H', **_ATTENTION}
_SQUARE = (
  *('lstm.r_w2h', 'lstm.r_v2h', 'lstm.r_h2h', 'attention.fr_linear.0'),
  *('attention.ho_linear.0', 'attention.att2h'),
)


def _lstm(name: str, inputs: str, suffix: str = '', *, bias: bool = True):
  """The tensors of an LSTM of PyTorch."""
  shapes = {
    f'{name}.weight_ih{suffix}': f'4H {inputs}',
    f'{name}.weight_hh{suffix}': '4H H',
  }
  if bias:
    shapes |= {f'{name}.bias_ih{suffix}': '4H', f'{name}.bias_hh{suffix}': '4H'}
  return shapes


def _adaatt(gates: str) -> dict[str, str]:
  """The tensors of AdaAtt, the LSTM of which has gates of this size."""
  return {
    **_RELU_WORDS,
    'embed.0.weight': 'V H',
    'fc_embed.0': 'H D',
    'ctx2att': 'A H',
    'core.attention.fr_embed': 'A H',
    'core.attention.ho_embed': 'A H',
    'core.attention.alpha_net': '1 A',
    'core.lstm.w2h': f'{gates} H',
    'core.lstm.v2h': f'{gates} H',
    'core.lstm.h2h.0': f'{gates} H',
    **{f'core.{name}': 'H H' for name in _SQUARE},
  }


LAYOUTS = {
  'show_tell': Layout(
    'show_and_tell',
    show_tell,
    {**_WORDS, 'img_embed': 'E D', **_lstm('core', 'E', '_l0', bias=False)},
    dict(image_bias=True),
    ours_alone=('cell/input/bias',),
  ),
  'fc': Layout(
    'show_and_tell',
    fc,
    {**_WORDS, 'img_embed': 'E D', 'core.i2h': '5H E', 'core.h2h': '5H H'},
    dict(image_bias=True, cell='maxout'),
  ),
  'newfc': Layout(
    'show_and_tell',
    newfc,
    {**_WORDS, 'fc_embed': 'E D', '_core.i2h': '5H E', '_core.h2h': '5H H'},
    dict(image_bias=True, cell='maxout'),
  ),
  'show_attend_tell': Layout(
    'show_attend_tell',
    show_attend_tell,
    {
      **_WORDS,
      'linear': 'H D',
      'core.ctx2att': 'A D',
      'core.h2att': 'A H',
      'core.alpha_net': '1 A',
      **_lstm('core.rnn', 'E+D', '_l0', bias=False),
    },
    dict(gate='none', init_layers=1, init_tanh=False, deep_output=False),
    ours_alone=('cell/input/bias',),
  ),
  'att2in': Layout(
    'att2in',
    att2in,
    {**_WORDS, **_ATT2IN, 'ctx2att': 'A D', 'core.a2c': '2H D'},
  ),
  'att2in2': Layout(
    'att2in',
    att2in2,
    {**_RELU_WORDS, **_ATT2IN, 'ctx2att': 'A H', 'core.a2c': '2H H'},
    unread={'fc_embed.0': 'H F'},
  ),
  'updown': Layout(
    'up_down',
    updown,
    {
      **_RELU_WORDS,
      'fc_embed.0': 'H D',
      'ctx2att': 'A H',
      **_ATTENTION,
      **_lstm('core.att_lstm', 'E+2H'),
      **_lstm('core.lang_lstm', '2H'),
    },
    dict(attention_bias=True),
  ),
  'adaatt': Layout(
    'adaptive', adaatt, _adaatt('4H'), dict(word_relu=True, cell_dropout=True)
  ),
  'adaattmo': Layout(
    'adaptive',
    adaattmo,
    _adaatt('5H'),
    dict(word_relu=True, cell_dropout=True, cell='maxout'),
  ),
  'tutorial': Layout(
    'show_attend_tell',
    tutorial,
    {
      'embedding.weight': 'V E',
      'attention.encoder_att': 'A D',
      'attention.decoder_att': 'A H',
      'attention.full_att': '1 A',
      'init_h': 'H D',
      'init_c': 'H D',
      'f_beta': 'D H',
      'fc': 'V H',
      **_lstm('decode_step', 'E+D'),
    },
    dict(
      attention_activation='relu',
      gate='vector',
      init_layers=1,
      init_tanh=False,
      deep_output=False,
    ),
  ),
}
_TENSOR = re.compile(r'(weight|bias)(_[ih]h)?(_l0)?$')


def fold_norm(
  arrays: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], str]:
  """Folds the BatchNorm of features (use_bn=1) into the layer behind it.

  Returns:
    The arrays as they are without BatchNorm, and its name or ''.
  """
  arrays = dict(arrays)
  norm, layer = 'att_embed.0', 'att_embed.1'
  names = [f'{norm}.{x}' for x in ('weight', 'bias', 'running_mean')]
  names += [f'{norm}.running_var', f'{layer}.weight', f'{layer}.bias']
  if any(name not in arrays for name in names):
    return arrays, ''
  scale, shift, mean, var, weight, bias = (
    arrays.pop(name).astype(np.float64) for name in names
  )
  scale = scale / np.sqrt(var + _EPSILON)
  if scale.shape != weight.shape[-1:] or shift.shape != mean.shape:
    raise ValueError(f'{norm} and {layer} are of different sizes')
  folded = weight * scale, bias + weight @ (shift - mean * scale)
  for name, x in zip(('weight', 'bias'), folded, strict=True):
    arrays[f'{norm}.{name}'] = x.astype(np.float32)
  return arrays, norm


def expected(shapes: Mapping[str, str]) -> dict[str, str]:
  """The shape of each tensor, in letters."""
  result = {}
  for name, shape in shapes.items():
    if _TENSOR.search(name):
      result[name] = shape
    else:
      result[f'{name}.weight'] = shape
      result[f'{name}.bias'] = shape.split()[0]
  return result


def find_layout(shapes: Mapping[str, tuple[int, ...]]) -> str:
  """The name of the layout that shares the most tensors, by name and shape."""

  def differences(name):
    layout = LAYOUTS[name]
    names = expected({**layout.shapes, **layout.unread}).keys()
    return len(names ^ shapes.keys()), len(_misshapen(name, shapes)[1])

  return min(LAYOUTS, key=differences)


def _misshapen(
  name: str, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, int], list[str]]:
  """The size of each letter, and the tensors of another shape than theirs."""
  layout = LAYOUTS[name]
  needed, unread = expected(layout.shapes), expected(layout.unread)
  sizes = {}
  for tensor, letters in {**unread, **needed}.items():
    shape = shapes.get(tensor, ())
    for letter, size in zip(letters.split(), shape, strict=False):
      if letter.isalpha() and len(letter) == 1:
        sizes.setdefault(letter, size)
  return sizes, [
    f'{tensor} {list(shapes[tensor])} instead of [{letters}]'
    for tensor, letters in needed.items()
    if tensor in shapes and shapes[tensor] != _shape(letters, sizes)
  ]


def check(name: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
  """The size of each letter of a layout.

  Args:
    name: of the layout.
    shapes: of all tensors, by name.

  Raises:
    ValueError: tensors are missing, unknown or of another shape; names them.
  """
  layout = LAYOUTS[name]
  needed, unread = expected(layout.shapes), expected(layout.unread)
  sizes, misshapen = _misshapen(name, shapes)
  problems = {
    'missing': sorted(needed.keys() - shapes.keys()),
    'unknown': sorted(shapes.keys() - needed.keys() - unread.keys()),
    'of another shape': misshapen,
  }
  lines = [
    f'{len(names)} {kind}: {", ".join(names)}.'
    for kind, names in problems.items()
    if names
  ]
  if lines:
    raise ValueError(
      '\n'.join([f'the tensors are not those of {name}.', *lines])
    )
  return sizes


def _shape(letters: str, sizes: Mapping[str, int]) -> tuple[int, ...]:
  """'4H E+2H' -> the numbers."""
  return tuple(
    sum(
      int(count or 1) * sizes.get(letter, 0) if letter else int(count)
      for count, letter in re.findall(r'(\d*)([A-Z]?)', axis)
      if count or letter
    )
    for axis in letters.split()
  )


def decoder_arguments(name: str, sizes: Mapping[str, int]) -> dict[str, Any]:
  """The arguments of our decoder for the sizes of `check`."""
  layout = LAYOUTS[name]
  arguments = dict(features=sizes['H'], embedding=sizes.get('E', sizes['H']))
  if 'A' in sizes:
    arguments['attention'] = sizes['A']
  if 'att_embed.0' in layout.shapes:
    arguments['annotation_features'] = sizes['H']
  return {**arguments, **layout.options, 'dropout_rate': 0.5}
