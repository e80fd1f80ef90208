r"""A recurrent tracker on correlation filters of pretrained features.

The state holds spectra of the target: moving averages, at several rates, of the
features f_1 .. f_C of the region around it. A filter h_1 .. h_C answers to each
of them, f^k, with a narrow bump g:

  min_h  1/K sum_k | sum_c h_c * f_c^k - g |^2 + ridge sum_c | h_c |^2,

where * is circular correlation and h is zero outside of the target's box: what
surrounds the target is an example of what not to answer to, and not part of the
template (as in BACF, Galoogahi et al. 2017). The filter is part of the state:
in each frame a few steps of the conjugate gradient method lead it on (as in
ECO, Danelljan et al. 2017). A second filter over a pyramid of sizes finds the
size of the target; its numerator and its denominator are linear recurrences too
(DSST, Danelljan et al. 2014).

At each frame the region around the previous box is cropped, the filter answers
with a map whose peak is the target, and both filters learn the target where it
was found. One pass of the network serves both: the features are shifted to the
centre.

A GRU reads numbers of the answer, such as the height and the sharpness of the
peak, and gives the logit of the probability that the box is on the target. If
the tracker is in doubt, the filters learn less, so that what hides the target
does not replace it.

The encoder is a ResNet trained on ImageNet, not trained further. Without
training of the rest this is a correlation filter with deep features.

Axes: B sequences, T time, H height, W width, S side of a region in pixels, N
side of its map of features, M = N // 2 + 1, C channels, K rates, L levels of
the pyramid.
"""

import math
from typing import Any
from typing import ClassVar

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from recurrent import cells
from video.tracking import boxes as boxes_lib
from vision import images
from vision import resnet

# Numbers that the GRU reads; see `Tracker._evidence`.
_EVIDENCE = 10
_MAX_SHARE = 0.8  # Of a target's longer side in the side of the region.
_MIN_SCALE, _MAX_SCALE = 0.2, 8.0  # Of a target, relative to the first frame.


@flax.struct.dataclass
class Filter:
  """A correlation filter as numerator and denominator, by frequency."""

  numerator: jax.Array  # c64[B, ..., C]
  denominator: jax.Array  # f32[B, ...]

  def learn(self, other: 'Filter', rate: jax.Array) -> 'Filter':
    """The moving average of two filters, `rate` f32[B] of the other."""

    def mix(x, y):
      share = rate.reshape(-1, *([1] * (x.ndim - 1)))
      return x + share * (y - x)

    return jax.tree.map(mix, self, other)


@flax.struct.dataclass
class State:
  """State of a tracker after a frame."""

  carry: Any  # The filters and the state of the GRU.
  first: Any  # The same after the first frame.
  frame: Any  # Not read; see `model.State`.
  box: jax.Array  # f32[B, 4], the box in that frame.
  count: jax.Array  # i32[]: number of frames since the first.
  certainty: jax.Array  # f32[B], logit that the box is on the target.


@flax.struct.dataclass
class Carry:
  """The recurrent part of a state."""

  targets: jax.Array  # c64[B, K, C, N, M], spectra of the target.
  filter: jax.Array  # f32[B, C, N, N].
  size: Filter  # c64[B, L // 2 + 1, D], D features of a level.
  offset: jax.Array  # f32[B, C], subtracted from the features.
  factor: jax.Array  # f32[B, C], multiplies the features.
  aspect: jax.Array  # f32[B, 2], width and height in the first frame.
  height: jax.Array  # f32[B], moving average of the peak.
  memory: Any  # Of the GRU.


class Tracker(nn.Module):
  """The network: encoder, filters and certainty.

  Attributes:
    depth: of the ResNet.
    strides: of the stages that are kept, as in `resnet.ResNet`.
    side: side of a region in pixels, S.
    context: side of a region, in square roots of the target's area.
    bump: standard deviation of the bump, in square roots of the target's area.
    ridge: of the filter of positions.
    first_iterations: steps of the filter in the first frame.
    iterations: steps of the filter in each other frame.
    margin: the filter's support is larger than the box by this share.
    rates: of the moving averages, when certain; 0 keeps the first frame.
    levels: sizes that are tried, L, an odd number; 1 keeps the size.
    ratio: of two neighbouring sizes.
    level_side: pixels of a level.
    size_ridge: of the filter of sizes.
    size_rate: share of a new frame in the filter of sizes.
    features: units of the GRU.
    dtype: dtype of the encoder's products.
  """

  depth: int = 18
  strides: tuple[int, ...] = (1,)
  side: int = 128
  context: float = 4.0
  bump: float = 0.1
  ridge: float = 1.0
  first_iterations: int = 30
  iterations: int = 2
  margin: float = 0.0
  rates: tuple[float, ...] = (0.0, 0.02, 0.1)
  levels: int = 7
  ratio: float = 1.03
  level_side: int = 32
  size_ridge: float = 1e-2
  size_rate: float = 0.02
  features: int = 32
  dtype: Any = jnp.float32
  frozen: ClassVar[tuple[str, ...]] = ('encoder/',)  # Not trained further.

  def setup(self):
    """Declares the layers."""
    if self.levels % 2 == 0:
      raise ValueError(f'levels={self.levels} must be an odd number')
    self.encoder = resnet.ResNet(
      self.depth, strides=self.strides, dtype=self.dtype
    )
    self.memory = cells.GRU(self.features, fan_in=_EVIDENCE)
    # Certain before training.
    self.certainty = nn.Dense(
      1,
      kernel_init=nn.initializers.normal(1e-2),
      bias_init=nn.initializers.constant(2.0),
    )

  # One frame.

  def searched(self, box: Any) -> tuple[Any, float]:
    """The box whose surroundings a step reads, and the factor of its sides."""
    return self.region(box), 1.0

  def region(self, box: Any) -> Any:
    """The square around a box that is searched: f32[..., 4] -> f32[..., 4]."""
    size = box[..., 2:]
    extent = self.context * (size[..., 0] * size[..., 1]) ** 0.5
    longer = size.max(axis=-1) / _MAX_SHARE
    extent = extent + (longer - extent) * (longer > extent)
    centre = box[..., :2] + size / 2
    parts = [centre[..., i] - extent / 2 for i in range(2)] + [extent, extent]
    stack = np.stack if isinstance(box, np.ndarray) else jnp.stack
    return stack(parts, axis=-1)

  def look(
    self,
    before: Any,
    frame: jax.Array,
    box: jax.Array,
    corner: jax.Array | tuple[float, float] = (0.0, 0.0),
  ) -> jax.Array:
    """Crops the region around a box: f32[B, S, S, 3], 0 to 255.

    Args:
      before: not read; see `model.Tracker.look`.
      frame: uint8[B, H, W, 3], a frame or a window of it.
      box: f32[B, 4], in pixels of the whole frame.
      corner: f32[2], x and y of the window in the whole frame.
    """
    del before
    offset = jnp.concatenate([jnp.asarray(corner), jnp.zeros(2)])
    region = self.region(box - offset)
    return boxes_lib.crop(
      frame.astype(jnp.float32), region, self.side, 1.0, repeat_edge=True
    )

  def begin(self, crop: jax.Array, box: jax.Array) -> State:
    """The state after the first frame, in which the box is given.

    f32[B, S, S, 3] of `look`, f32[B, 4].
    """
    batch = len(box)
    raw = self._features(crop)
    offset = raw.mean((1, 2))
    spread = raw.std((1, 2))
    factor = 1 / (spread + 0.1 * spread.mean(-1, keepdims=True) + 1e-6)
    target = self._spectrum(
      (raw - offset[:, None, None]) * factor[:, None, None]
    )
    targets = jnp.repeat(target[:, None], len(self.rates), axis=1)
    filters = self._solve(
      jnp.zeros(jnp.moveaxis(raw, 3, 1).shape),
      targets,
      box,
      self.first_iterations,
    )
    zero = jnp.zeros((batch, 2))
    levels = self._levels(crop, zero, box)
    carry = Carry(
      targets,
      filters,
      self._size_filter(levels, zero[:, 0]),
      offset,
      factor,
      box[:, 2:],
      jnp.ones(batch),
      self.memory.start((batch,)),
    )
    # The GRU sees the first frame too.
    answer = self._answer(carry.filter, target)
    _, evidence = self._evidence(carry, answer, jnp.zeros(batch))
    memory, logit = self._judge(carry.memory, evidence)
    carry = carry.replace(memory=memory)
    return State(carry, carry, None, box, jnp.zeros((), jnp.int32), logit)

  def advance(
    self, state: State, crop: jax.Array, size: Any
  ) -> tuple[State, jax.Array]:
    """Finds the box in the next frame.

    Args:
      state: after the frame before.
      crop: f32[B, S, S, 3], of `look` around the box of `state`.
      size: i32[2], height and width of the whole frame.

    Returns:
      The state after this frame, and the box f32[B, 4] in it.
    """
    carry = state.carry
    raw = self._features(crop)
    cells_in = raw.shape[1]
    maps = (raw - carry.offset[:, None, None]) * carry.factor[:, None, None]
    answer = self._answer(carry.filter, self._spectrum(maps))
    shift, _ = _peak(answer)  # In cells.
    pixels = shift * (self.side / cells_in)
    levels = self._levels(crop, pixels, state.box)
    level = self._find_level(carry.size, levels)

    # The GRU judges before the filters learn.
    height, evidence = self._evidence(carry, answer, level)
    memory, logit = self._judge(carry.memory, evidence)
    trust = jnp.minimum(1.0, 2 * nn.sigmoid(jax.lax.stop_gradient(logit)))

    # Moved to the centre: by whole cells, and the rest by its phase.
    whole = jnp.round(shift)
    moved = jax.vmap(_shift)(maps, whole.astype(jnp.int32))
    moved = _delay(self._spectrum(moved), whole - shift)
    rates = trust[:, None] * jnp.array(self.rates)
    targets = carry.targets + rates[..., None, None, None] * (
      moved[:, None] - carry.targets
    )
    carry = carry.replace(
      targets=targets,
      filter=self._solve(carry.filter, targets, state.box, self.iterations),
      size=carry.size.learn(
        self._size_filter(levels, level), self.size_rate * trust
      ),
      height=carry.height + self.size_rate * trust * (height - carry.height),
      memory=memory,
    )

    region = self.region(state.box)
    centre = state.box[:, :2] + state.box[:, 2:] / 2
    centre += pixels * region[:, 2:] / self.side
    sides = state.box[:, 2:] * self.ratio ** level[:, None]
    first = state.carry.aspect
    scale = jnp.clip(sides[:, :1] / first[:, :1], _MIN_SCALE, _MAX_SCALE)
    sides = first * scale
    box = jnp.concatenate([centre - sides / 2, sides], axis=-1)
    box = _keep_centre_inside(box, *size)
    return State(carry, state.first, None, box, state.count + 1, logit), box

  def start(self, frame: jax.Array, box: jax.Array) -> State:
    """The state after the first frame: uint8[B, H, W, 3], f32[B, 4]."""
    return self.begin(self.look(None, frame, box), box)

  def step(self, state: State, frame: jax.Array) -> tuple[State, jax.Array]:
    """The state after the next frame, and the box f32[B, 4] in it."""
    crop = self.look(None, frame, state.box)
    return self.advance(state, crop, frame.shape[1:3])

  def follow_with_certainty(
    self, frames: jax.Array, box: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Tracks from the first box.

    Args:
      frames: uint8[B, T, H, W, 3].
      box: f32[B, 4], in the first frame.

    Returns:
      f32[B, T, 4], the boxes, and f32[B, T], the logits of their certainty.
    """

    def body(self, state, frame):
      state, found = self.step(state, frame)
      return state, (found, state.certainty)

    start = self.start(frames[:, 0], box)
    # Not `unroll.scan`: the encoder's statistics are read in each step, and of
    # the state the GRU's alone has a gradient.
    run = nn.scan(
      body,
      variable_broadcast=('params', 'batch_stats'),
      split_rngs={'params': False},
      in_axes=1,
      out_axes=1,
    )
    _, (boxes, logits) = run(self, start, frames[:, 1:])
    return (
      jnp.concatenate([box[:, None], boxes], axis=1),
      jnp.concatenate([start.certainty[:, None], logits], axis=1),
    )

  def follow(self, frames: jax.Array, box: jax.Array) -> jax.Array:
    """The boxes of `follow_with_certainty`: f32[B, T, 4]."""
    return self.follow_with_certainty(frames, box)[0]

  def __call__(self, frames: jax.Array, box: jax.Array):
    """See `follow_with_certainty`."""
    return self.follow_with_certainty(frames, box)

  # Features.

  def _features(self, crop: jax.Array) -> jax.Array:
    """f32[B, S, S, 3], 0 to 255 -> f32[B, N, N, C], without a gradient."""
    normal = (crop / 255 - images.MEAN) / images.STD
    maps, _ = self.encoder(normal, train=False)
    side = math.isqrt(maps.shape[1])
    maps = maps.reshape(len(crop), side, side, -1)
    return jax.lax.stop_gradient(maps)

  def _spectrum(self, maps: jax.Array) -> jax.Array:
    """Windowed and transformed: f32[B, N, N, C] -> c64[B, C, N, M]."""
    window = np.hanning(maps.shape[1] + 2)[1:-1].astype(np.float32)
    window = window[:, None] * window / math.sqrt(maps.shape[3])
    return jnp.fft.rfft2(jnp.moveaxis(maps, 3, 1) * window)

  # The filter of positions.

  def _wanted(self, side: int) -> jax.Array:
    """The spectrum of the wanted answer, a bump: f32[N, M]."""
    deviation = self.bump * side / self.context
    line = _bump(side, jnp.zeros(1), deviation)[0]
    return jnp.fft.rfft2(line[:, None] * line).real

  def _solve(
    self, filters: jax.Array, targets: jax.Array, box: jax.Array, count: int
  ) -> jax.Array:
    """Leads the filter on, by `count` steps of conjugate gradients.

    Args:
      filters: f32[B, C, N, N], from which it starts.
      targets: c64[B, K, C, N, M], spectra of the region around the target.
      box: f32[B, 4], of the target in that region.
      count: number of steps.

    Returns:
      f32[B, C, N, N], zero outside of the box.
    """
    side = filters.shape[-1]
    support = self._support(side, box)[:, None]

    def back(spectrum):
      return support * jnp.fft.irfft2(spectrum, (side, side))

    def normal(filters):
      spectrum = jnp.fft.rfft2(filters)[:, None]
      answers = jnp.sum(jnp.conj(targets) * spectrum, axis=2, keepdims=True)
      return back(jnp.mean(targets * answers, axis=1)) + self.ridge * filters

    def product(x, y):
      return jnp.sum(x * y, axis=(1, 2, 3), keepdims=True)

    def step(_, state):
      filters, rest, direction, size = state
      through = normal(direction)
      length = size / jnp.maximum(product(direction, through), 1e-12)
      filters += length * direction
      rest -= length * through
      new = product(rest, rest)
      direction = rest + new / jnp.maximum(size, 1e-12) * direction
      return filters, rest, direction, new

    # The box may have shrunk.
    filters = support * filters
    wanted = jnp.mean(targets, axis=1) * self._wanted(side)
    rest = back(wanted) - normal(filters)
    state = filters, rest, rest, product(rest, rest)
    return jax.lax.fori_loop(0, count, step, state)[0]

  def _support(self, side: int, box: jax.Array) -> jax.Array:
    """Cells of the region that the target's box touches: f32[B, N, N]."""
    extent = self.region(box)[:, 2:]
    half = (1 + self.margin) * box[:, 2:] / extent * side / 2
    distances = jnp.abs(jnp.arange(side) - (side - 1) / 2)
    inside = distances < half[..., None] + 0.5
    return (inside[:, 1, :, None] & inside[:, 0, None]).astype(jnp.float32)

  def _answer(self, filters: jax.Array, spectrum: jax.Array) -> jax.Array:
    """The filter's answer at every shift: f32[B, N, N], 0 in front.

    f32[B, C, N, N], c64[B, C, N, M].
    """
    product = jnp.conj(jnp.fft.rfft2(filters)) * spectrum
    return jnp.fft.irfft2(product.sum(axis=1), filters.shape[2:])

  # The filter of sizes.

  def _levels(
    self, crop: jax.Array, shift: jax.Array, box: jax.Array
  ) -> jax.Array:
    """Spectrum of the target's pyramid: c64[B, L // 2 + 1, D].

    Args:
      crop: f32[B, S, S, 3].
      shift: f32[B, 2], of the target from the centre, in pixels of the crop.
      box: f32[B, 4], whose region the crop is.
    """
    count, side = self.levels, self.level_side
    sides = box[:, 2:] * (self.side / self.region(box)[:, 2:])
    factors = self.ratio ** (jnp.arange(count) - count // 2)
    sides = sides[:, None] * factors[:, None]  # [B, L, 2]
    centres = jnp.broadcast_to((self.side / 2 + shift)[:, None], sides.shape)
    rectangles = jnp.concatenate([centres - sides / 2, sides], axis=-1)
    pyramids = jax.vmap(
      lambda crop, rectangles: boxes_lib.crop_many(crop, rectangles, side)
    )(crop, rectangles)
    maps = self._features(pyramids.reshape(-1, side, side, 3))
    flat = maps.reshape(len(crop), count, -1)
    flat /= jnp.linalg.norm(flat, axis=-1, keepdims=True) + 1e-6
    window = np.hanning(count + 2)[1:-1].astype(np.float32)
    return jnp.fft.rfft(flat * window[:, None], axis=1)

  def _size_filter(self, spectrum: jax.Array, rest: jax.Array) -> Filter:
    """The filter of one pyramid, with the bump `rest` f32[B] levels aside."""
    wanted = jnp.fft.rfft(_bump(self.levels, rest, 1.0))
    return Filter(
      spectrum * jnp.conj(wanted)[..., None],
      jnp.sum(jnp.abs(spectrum) ** 2, axis=-1),
    )

  def _find_level(self, used: Filter, spectrum: jax.Array) -> jax.Array:
    """The level of the target, 0 in the middle: f32[B]."""
    if self.levels == 1:
      return jnp.zeros(len(spectrum))
    top = jnp.sum(jnp.conj(used.numerator) * spectrum, axis=-1)
    answer = jnp.fft.irfft(
      top / (used.denominator + self.size_ridge), self.levels
    )
    best = jnp.argmax(answer, axis=1)
    rest = _between(*(_at(answer, best + i) for i in (-1, 0, 1)))
    return _signed(best, self.levels) + rest

  # The certainty.

  def _evidence(
    self, carry: Carry, answer: jax.Array, level: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """The peak f32[B], and the numbers that the GRU reads, f32[B, 10]."""
    side = answer.shape[1]
    shift, height = _peak(answer)
    mean, spread = answer.mean((1, 2)), answer.std((1, 2))
    # The highest answer away from the peak.
    axis = jnp.arange(side)
    rows, columns = (
      (axis - jnp.round(shift[:, i, None]) + side // 2) % side - side // 2
      for i in (1, 0)
    )
    near = max(2, round(side / self.context / 4))
    aside = (jnp.abs(rows) > near)[:, :, None] | (jnp.abs(columns) > near)[
      :, None
    ]
    second = jnp.max(jnp.where(aside, answer, -1.0), axis=(1, 2))
    far = jnp.linalg.norm(shift, axis=-1) * (self.context / side)
    evidence = jnp.stack(
      [
        height,
        height / jnp.maximum(carry.height, 1e-3),
        second,
        second / jnp.maximum(height, 1e-3),
        jnp.log(jnp.maximum((height - mean) / (spread + 1e-6), 1e-3)),
        spread * 10,
        far,
        *jnp.moveaxis(shift * (self.context / side), -1, 0),
        level,
      ],
      axis=-1,
    )
    return height, jax.lax.stop_gradient(jnp.clip(evidence, -10.0, 10.0))

  def _judge(self, memory: Any, evidence: jax.Array) -> tuple[Any, jax.Array]:
    """One step of the GRU, and the logit f32[B]."""
    memory, output = self.memory.step(memory, self.memory.project(evidence))
    return memory, self.certainty(output)[:, 0].astype(jnp.float32)


def _keep_centre_inside(box: jax.Array, height: int, width: int) -> jax.Array:
  """Moves a box so that its centre is in the frame: f32[B, 4]."""
  frame = jnp.stack([jnp.asarray(width), jnp.asarray(height)])
  size = box[:, 2:]
  centre = jnp.clip(box[:, :2] + size / 2, 0.0, frame.astype(jnp.float32))
  return jnp.concatenate([centre - size / 2, size], axis=-1)


def _bump(count: int, centre: jax.Array, deviation: float) -> jax.Array:
  """A Gaussian on a circle, about `centre` f32[B]: f32[B, count]."""
  distances = jnp.arange(count) - centre[:, None]
  distances = (distances + count / 2) % count - count / 2
  return jnp.exp(-0.5 * (distances / deviation) ** 2)


def _signed(index: jax.Array, count: int) -> jax.Array:
  """The shift of an index on a circle, from -count / 2 to count / 2."""
  return (index + count // 2) % count - count // 2


def _at(values: jax.Array, index: jax.Array) -> jax.Array:
  """values[b, index[b]] on a circle: f32[B, count], i32[B] -> f32[B]."""
  index = index % values.shape[1]
  return jnp.take_along_axis(values, index[:, None], axis=1)[:, 0]


def _between(left: jax.Array, top: jax.Array, right: jax.Array) -> jax.Array:
  """Position of the maximum of the parabola through three values."""
  bend = left - 2 * top + right
  safe = jnp.where(bend < -1e-9, bend, -1.0)
  rest = jnp.where(bend < -1e-9, 0.5 * (left - right) / safe, 0.0)
  return jnp.clip(rest, -0.5, 0.5)


def _peak(answer: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The shift x, y f32[B, 2] of the maximum in cells, and its height f32[B]."""
  batch, side = answer.shape[:2]
  flat = answer.reshape(batch, -1)
  best = jnp.argmax(flat, axis=1)
  height = _at(flat, best)
  row, column = best // side, best % side
  shifts = []
  for rows, columns in ((0, 1), (1, 0)):
    around = [
      _at(flat, (row + i * rows) % side * side + (column + i * columns) % side)
      for i in (-1, 1)
    ]
    index = column if columns else row
    shifts.append(_signed(index, side) + _between(around[0], height, around[1]))
  return jnp.stack(shifts, axis=-1), height


def _delay(spectrum: jax.Array, shift: jax.Array) -> jax.Array:
  """Moves maps by `shift` f32[B, 2] (x, y) cells on a circle, smoothly."""
  side = spectrum.shape[2]
  rows = np.fft.fftfreq(side)[:, None].astype(np.float32)
  columns = np.fft.rfftfreq(side).astype(np.float32)
  cycles = rows * shift[:, 1, None, None] + columns * shift[:, 0, None, None]
  return spectrum * jnp.exp(-2j * np.pi * cycles)[:, None]


def _shift(maps: jax.Array, shift: jax.Array) -> jax.Array:
  """Moves what is at `shift` i32[2] (x, y) to the centre: f32[N, N, C].

  Cells from outside repeat those of the edge.
  """
  side = maps.shape[0]
  rows, columns = (
    jnp.clip(jnp.arange(side) + shift[i], 0, side - 1) for i in (1, 0)
  )
  return maps[rows][:, columns]
