"""A tracker and recognisers in PyTorch at its best, to be timed against ours.

This module runs in an environment with PyTorch and without the rest of the
project. The mathematics is that of ours, in eager mode. The tracker processes
only the part of a frame that its crops cover, and keeps boxes on the host.

Axes: N pairs of frames, H height, W width, S side of a crop; V classes.
"""

import math

import torch
import torch_captioners
from torch import nn
from torch.nn import functional

MEAN = torch.tensor([0.485, 0.456, 0.406])
STD = torch.tensor([0.229, 0.224, 0.225])


def strided(channels):
  """Convolutions of 3 x 3 and stride 2, for images with even sides.

  Flax pads below and to the right, PyTorch on all sides. For images mirrored in
  both directions the result is the same, without a padding step.
  """
  return nn.ModuleList(
    nn.Conv2d(before, after, 3, 2, padding=1)
    for before, after in zip(channels, channels[1:], strict=False)
  )


def take_convolution(module, take, name, channels):
  """Copies the parameters `take(name, shape)` in Flax's layout, mirrored."""
  kernel = take(f'{name}/kernel', (*module.kernel_size, *channels))
  module.weight.copy_(kernel.permute(3, 2, 0, 1).flip(2, 3))
  module.bias.copy_(take(f'{name}/bias', channels[1:]))


def take_dense(module, take, name, maps=()):
  """Copies a dense layer; `maps` are the shapes (H, W, C) of its inputs."""
  kernel = take(f'{name}/kernel', module.weight.shape[::-1])
  if maps:
    parts = kernel.split([math.prod(shape) for shape in maps])
    kernel = torch.cat(
      [
        part.reshape(*shape, -1).flip(0, 1).permute(2, 0, 1, 3).flatten(0, 2)
        for part, shape in zip(parts, maps, strict=True)
      ]
    )
  module.weight.copy_(kernel.T)
  if module.bias is not None:
    module.bias.copy_(take(f'{name}/bias', module.bias.shape))


class Tracker(nn.Module):
  """A small Re3 (Gordon et al. 2018), for one target in one video.

  A box is a tuple of x, y, width and height. The state is (memory, hidden, both
  after the first frame, the previous frame, its box, the number of frames).
  """

  def __init__(
    self,
    side,
    context,
    filters,
    skips,
    dense,
    features,
    reset_every,
    reduction,
  ):
    super().__init__()
    self.side, self.context = side, context
    self.reset_every, self.reduction = reset_every, reduction
    channels = (6, *filters)  # Of both crops.
    self.convolutions = strided(channels)
    self.projections = nn.ModuleDict()
    self.slopes = nn.ModuleDict()
    self.maps = []
    for i, count in enumerate(filters):
      size = side >> (i + 1)
      if skips and skips[i]:
        self.projections[str(i)] = nn.Conv2d(count, skips[i], 1)
        self.slopes[str(i)] = nn.PReLU()
        self.maps.append((size, size, skips[i]))
    self.maps.append((size, size, count))
    self.pair = nn.Linear(sum(map(math.prod, self.maps)), dense)
    self.gates = nn.Linear(dense + features, 4 * features)
    self.offsets = nn.Linear(features, 4)
    self.register_buffer('scale', (1 / (255 * STD))[:, None, None])
    self.register_buffer('shift', (-MEAN / STD)[:, None, None])
    positions = (torch.arange(side) + 0.5) / side - 0.5
    self.register_buffer('positions', positions.flip(0)[:, None])

  @torch.no_grad()
  def load(self, take):
    """Loads parameters f32 `take(name, shape)`, in Flax's names and layout."""
    for i, module in enumerate(self.convolutions):
      channels = module.in_channels, module.out_channels
      take_convolution(module, take, f'convolutions_{i}', channels)
    for i, module in self.projections.items():
      shape = module.in_channels, module.out_channels
      kernel = take(f'projections_{i}/kernel', shape)
      module.weight.copy_(kernel.T[..., None, None])
      module.bias.copy_(take(f'projections_{i}/bias', shape[1:]))
      self.slopes[i].weight.copy_(take(f'slopes_{i}/negative_slope', ()))
    take_dense(self.pair, take, 'pair', self.maps)
    dense, width = self.pair.out_features, self.gates.out_features
    kernels = [
      take('memory_0/input/kernel', (dense, width)),
      take('memory_0/recurrent/kernel', (width // 4, width)),
    ]
    self.gates.weight.copy_(torch.cat(kernels).T)
    bias = take('memory_0/input/bias', (width,))
    bias[width // 4 : width // 2] += 1  # Of the forget gates.
    self.gates.bias.copy_(bias)
    take_dense(self.offsets, take, 'offsets')
    # Reduces the time of convolutions by a fifth.
    self.convolutions.to(memory_format=torch.channels_last)

  def begin(self, frame, box):
    """Starts at a frame uint8[H, W, 3] and a box; returns the state."""
    box = tuple(x / self.reduction for x in box)
    zeros = frame.new_zeros(
      1, self.offsets.in_features, dtype=self.offsets.weight.dtype
    )
    carry = self.update((zeros, zeros), self.encode(frame, frame, box))
    return *carry, *carry, frame, box, 0

  def step(self, state, frame):
    """Advances by one frame uint8[H, W, 3]; returns the state and the box."""
    *carry, first_memory, first_hidden, before, search, count = state
    if self.reset_every and count and count % self.reset_every == 0:
      carry = first_memory, first_hidden
    seen = self.encode(before, frame, search)
    memory, hidden = self.update(carry, seen)
    dx, dy, dw, dh = (
      min(max(x, -2.0), 2.0) for x in self.offsets(hidden)[0].tolist()
    )
    x, y, width, height = search
    x += width / 2 + dx * width
    y += height / 2 + dy * height
    rows, columns = (n // self.reduction for n in frame.shape[:2])
    width = min(max(width * math.exp(dw), 2.0), columns)
    height = min(max(height * math.exp(dh), 2.0), rows)
    x, y = min(max(x, 0.0), columns), min(max(y, 0.0), rows)
    box = x - width / 2, y - height / 2, width, height
    state = memory, hidden, first_memory, first_hidden, frame, box, count + 1
    return state, tuple(x * self.reduction for x in box)

  def encode(self, before, frame, search):
    """Features of two frames around a box: f32[1, D]."""
    x, y, width, height = search
    rows, columns = (n // self.reduction for n in frame.shape[:2])
    top, bottom, across = self.coverage(y, height, rows)
    left, right, along = self.coverage(x, width, columns)
    parts = torch.stack(
      [self.crop(image, top, bottom, left, right) for image in (before, frame)]
    )
    parts = parts.permute(0, 3, 1, 2).contiguous()
    crops = across @ (parts * self.scale + self.shift) @ along.T
    crops = crops.flatten(0, 1)[None]
    crops = crops.contiguous(memory_format=torch.channels_last)
    return functional.relu(self.pair(self.features(crops)))

  def features(self, x):
    """Features of two mirrored crops: f32[N, 6, S, S] -> inputs of `pair`."""
    parts = []
    for i, convolution in enumerate(self.convolutions):
      x = convolution(x).relu_()
      if str(i) in self.projections:
        part = self.slopes[str(i)](self.projections[str(i)](x))
        parts.append(part.flatten(1))
    parts.append(x.flatten(1))
    return torch.cat(parts, 1)

  def coverage(self, start, extent, length):
    """The range of the pixels of a crop on one axis, and weights f32[S, n]."""
    centre, extent = start + extent / 2, extent * self.context
    first = max(math.floor(centre - extent / 2) - 1, 0)
    last = min(math.ceil(centre + extent / 2) + 1, length)
    width = max(extent / self.side, 1.0)
    positions = self.positions * extent + (centre - first)
    pixels = torch.arange(last - first, dtype=torch.float32)
    weights = torch.minimum(positions + width / 2, pixels + 1)
    weights -= torch.maximum(positions - width / 2, pixels)
    return first, last, weights.clamp_(0).div_(width)

  def crop(self, frame, top, bottom, left, right):
    """Crops a frame, reduced by an integer factor: uint8[h, w, 3]."""
    times = self.reduction
    if times == 1:
      return frame[top:bottom, left:right]
    # One more pixel around it, since the filter reads beyond the crop.
    above, before = min(top, 1), min(left, 1)
    part = frame[
      (top - above) * times : (bottom + 1) * times,
      (left - before) * times : (right + 1) * times,
    ]
    part = functional.interpolate(
      part.permute(2, 0, 1)[None],
      (part.shape[0] // times, part.shape[1] // times),
      mode='bilinear',
      antialias=True,
    )[0].permute(1, 2, 0)
    return part[above : above + bottom - top, before : before + right - left]

  def update(self, carry, seen):
    """One step of the LSTM: (c, h), f32[1, D] -> (c, h)."""
    memory, hidden = carry
    return torch_captioners.lstm(
      memory, self.gates(torch.cat([seen, hidden], -1))
    )


class FrameCNN(nn.Module):
  """A CNN for small mirrored images: f32[N, C, S, S] -> f32[N, D]."""

  def __init__(self, side, channels, features):
    super().__init__()
    self.convolutions = strided(channels)
    size = side >> (len(channels) - 1)
    self.map = size, size, channels[-1]
    self.layer = nn.Linear(math.prod(self.map), features)

  def load(self, take):
    """See `Tracker.load`."""
    for i, module in enumerate(self.convolutions):
      channels = module.in_channels, module.out_channels
      take_convolution(module, take, f'encoder/Conv_{i}', channels)
    take_dense(self.layer, take, 'encoder/Dense_0', [self.map])

  def forward(self, x):
    """f32[N, C, S, S] -> f32[N, D]."""
    for convolution in self.convolutions:
      x = convolution(x).relu_()
    return self.layer(x.flatten(1)).relu_()


def take_gru(module, take, name):
  """Copies one of our GRUs to an `nn.GRUCell`."""
  units = module.hidden_size
  shape = module.input_size, 3 * units
  module.weight_ih.copy_(take(f'{name}/input/kernel', shape).T)
  module.bias_ih.copy_(take(f'{name}/input/bias', shape[1:]))
  kernel = take(f'{name}/recurrent/kernel', (units, 3 * units))
  module.weight_hh.copy_(kernel.T)
  module.bias_hh.zero_()
  candidate = take(f'{name}/candidate_bias', (units,))
  module.bias_hh[2 * units :].copy_(candidate)


class GestureStream(nn.Module):
  """A CNN of each grey frame and a GRU, which classifies every frame."""

  def __init__(self, side, channels, encoded, features, classes):
    super().__init__()
    self.encoder = FrameCNN(side, (1, *channels), encoded)
    self.cell = nn.GRUCell(encoded, features)
    self.output = nn.Linear(features, classes)

  @torch.no_grad()
  def load(self, take):
    """See `Tracker.load`."""
    self.encoder.load(take)
    take_gru(self.cell, take, 'forward_cells_0')
    take_dense(self.output, take, 'output')

  def online(self, frames):
    """Reads frames uint8[H, W, 1]; yields probabilities f32[V] of each."""
    state = None
    for frame in frames:
      image = frame.permute(2, 0, 1)[None].flip(2, 3) / 127.5 - 1
      state = self.cell(self.encoder(image), state)
      yield self.output(state)[0].softmax(0)


class Skeletons(nn.Module):
  """GRUs on joints and their motion, with attention over the past frames."""

  def __init__(self, joints, origin, difference, features, attention, classes):
    super().__init__()
    self.origin, self.difference = origin, difference
    self.cells = nn.ModuleList(
      [nn.GRUCell(6 * joints, features), nn.GRUCell(features, features)]
    )
    self.key = nn.Linear(features, attention)
    self.score = nn.Linear(attention, 1, bias=False)
    self.output = nn.Linear(features, classes)

  @torch.no_grad()
  def load(self, take):
    """See `Tracker.load`."""
    for i, cell in enumerate(self.cells):
      take_gru(cell, take, f'forward_cells_{i}')
    for name in ('key', 'score', 'output'):
      take_dense(getattr(self, name), take, name)

  def online(self, frames):
    """Reads frames f32[D]; yields probabilities f32[V] after each."""
    before, states, largest = None, [None] * len(self.cells), -math.inf
    total = weighted = 0.0
    for frame in frames:
      if before is None:
        origin = frame.view(-1, 3)[self.origin]
      points = (frame.view(-1, 3) - origin).view(1, -1)
      before = points if before is None else before
      x = torch.cat([points, self.difference * (points - before)], 1)
      before = points
      for i, cell in enumerate(self.cells):
        x = states[i] = cell(x, states[i])
      score = self.score(self.key(x).tanh()).item()
      peak = max(largest, score)
      old, new = math.exp(largest - peak), math.exp(score - peak)
      largest, total = peak, total * old + new
      weighted = weighted * old + new * x
      yield self.output(weighted / total)[0].softmax(0)
