"""Captioners in PyTorch, to be timed against ours.

This module runs in an environment with PyTorch and without the rest of the
project. The mathematics is that of ours, dropout included, in eager mode as in
the published code. Terms that do not depend on the state are computed before
the loop over time, and the vocabulary layer after it in training. The beams of
an image share its annotations, and a search normalises only the best words.
`PlainSoftAttention` and `PlainUpDown` are as tutorials and published code write
them.

Axes: B images, K captions of an image (or beams), T words, L locations, D
features of a location, H units, V vocabulary.
"""

import torch
from torch import nn
from torch.nn import functional

BOS = 0


class Captioner(nn.Module):
  """The common part: unrolled in training, stepped in beam search.

  `advance` is a step of time: state, projected [B, K, W] and the first outputs
  of `prepare` -> state, a tuple of f32[B, K, H]. The last of these predicts.
  """

  num_states: int

  def __init__(self, channels, vocabulary, units, attention):
    super().__init__()
    self.units = units
    self.words = nn.Embedding(vocabulary, units)
    self.annotation = nn.Linear(channels, units)
    self.keys = nn.Linear(units, attention)
    self.query = nn.Linear(units, attention)
    self.score = nn.Linear(attention, 1)
    self.output = nn.Linear(units, vocabulary)
    self.dropout = nn.Dropout(0.5)

  def prepare(self, features):
    """f32[B, L, D] -> annotations [B, L, H], keys [B, L, A], constant or 0."""
    annotations = self.dropout(functional.relu(self.annotation(features)))
    return annotations, self.keys(annotations), 0.0

  def read(self, tokens):
    """Projects words for the cell: i64[B, T] -> f32[B, T, W]."""
    return self.input(self.dropout(functional.relu(self.words(tokens))))

  def start(self, features):
    """The state before the first word."""
    return (features.new_zeros(len(features), 1, self.units),) * self.num_states

  def attend(self, hidden, annotations, keys):
    """Additive attention: f32[B, K, H] -> f32[B, K, H]."""
    x = keys[:, None] + self.query(hidden)[:, :, None]
    # In-place where the backward pass does not need the input.
    x = x.tanh() if torch.is_grad_enabled() else x.tanh_()
    return self.score(x).squeeze(-1).softmax(-1) @ annotations

  def forward(self, features, captions):
    """f32[B, L, D], i64[B, T + 1] with BOS -> f32[B, T, V], None."""
    *context, constant = self.prepare(features)
    state, outputs = self.start(features), []
    for projected in (self.read(captions[:, :-1]) + constant).split(1, 1):
      state = self.advance(state, projected, *context)
      outputs.append(state[-1])
    return self.output(self.dropout(torch.cat(outputs, 1))), None

  @torch.no_grad()
  def beam(self, features, beams, length):
    """Beam search for captions of exactly `length` words.

    f32[B, L, D] -> i64[B, K, T], the best first, and their log-probabilities
    f32[B, K].
    """
    *context, constant = self.prepare(features)
    state = self.start(features)
    tokens = torch.full((len(features), 1), BOS)
    captions = torch.zeros(len(features), 1, 0, dtype=torch.long)
    scores = torch.zeros(len(features), 1)
    for _ in range(length):
      state = self.advance(state, self.read(tokens) + constant, *context)
      logits = self.output(state[-1])
      values, words = logits.topk(beams)
      values = values - logits.logsumexp(-1, keepdim=True)
      scores, chosen = (scores[..., None] + values).flatten(1).topk(beams)
      tokens = words.flatten(1).gather(1, chosen)
      parents = (chosen // beams)[..., None]
      *state, captions = (
        x.gather(1, parents.expand(-1, -1, x.shape[-1]))
        for x in (*state, captions)
      )
      captions = torch.cat([captions, tokens[..., None]], -1)
    return captions, scores


class Att2in(Captioner):
  """Att2in (Rennie et al. 2017) with ReLU layers: 'Att2in2'."""

  num_states = 2

  def __init__(self, channels, vocabulary, units, attention):
    super().__init__(channels, vocabulary, units, attention)
    self.input = nn.Linear(units, 5 * units)
    self.recurrent = nn.Linear(units, 5 * units, bias=False)
    self.candidate = nn.Linear(units, 2 * units)

  def advance(self, state, projected, annotations, keys):
    """(c, h) -> (c, h); the candidate is the larger of two halves."""
    memory, hidden = state
    seen = self.attend(hidden, annotations, keys)
    gates, candidate = (projected + self.recurrent(hidden)).split(
      [3 * self.units, 2 * self.units], -1
    )
    i, f, o = gates.sigmoid().chunk(3, -1)
    first, second = (candidate + self.candidate(seen)).chunk(2, -1)
    memory = f * memory + i * torch.maximum(first, second)
    return memory, o * memory.tanh()


class UpDown(Captioner):
  """Bottom-up and top-down attention (Anderson et al. 2018)."""

  num_states = 4

  def __init__(self, channels, vocabulary, units, attention):
    super().__init__(channels, vocabulary, units, attention)
    self.image = nn.Linear(channels, units)
    # The gates of the first LSTM, from the constant image and from the states.
    self.constant = nn.Linear(units, 4 * units, bias=False)
    self.input = nn.Linear(units, 4 * units)
    self.looking = nn.Linear(2 * units, 4 * units, bias=False)
    self.speaking = nn.Linear(3 * units, 4 * units)

  def prepare(self, features):
    """See `Captioner.prepare`; the mean is an input of the first LSTM."""
    image = self.dropout(functional.relu(self.image(features.mean(1))))
    return *super().prepare(features)[:2], self.constant(image)[:, None]

  def advance(self, state, projected, annotations, keys):
    """(c1, h1, c2, h2) -> (c1, h1, c2, h2)."""
    memory1, hidden1, memory2, hidden2 = state
    gates = projected + self.looking(torch.cat([hidden2, hidden1], -1))
    memory1, hidden1 = lstm(memory1, gates)
    seen = self.attend(hidden1, annotations, keys)
    gates = self.speaking(torch.cat([seen, hidden1, hidden2], -1))
    return memory1, hidden1, *lstm(memory2, gates)


def lstm(memory, gates):
  """c f32[B, K, H], f32[B, K, 4 * H] -> (c, h)."""
  i, f, g, o = gates.chunk(4, -1)
  memory = f.sigmoid() * memory + i.sigmoid() * g.tanh()
  return memory, o.sigmoid() * memory.tanh()


class PlainSoftAttention(nn.Module):
  """Show, Attend and Tell (Xu et al. 2015) as tutorials write it.

  Every step projects the annotations again and predicts the words.
  """

  def __init__(self, channels, vocabulary, units, attention):
    super().__init__()
    self.keys = nn.Linear(channels, attention)
    self.query = nn.Linear(units, attention)
    self.score = nn.Linear(attention, 1)
    self.words = nn.Embedding(vocabulary, units)
    self.cell = nn.LSTMCell(units + channels, units)
    self.first_hidden = nn.Linear(channels, units)
    self.first_memory = nn.Linear(channels, units)
    self.beta = nn.Linear(units, channels)
    self.output = nn.Linear(units, vocabulary)
    self.dropout = nn.Dropout(0.5)

  def start(self, features):
    """f32[B, L, D] -> (h, c)."""
    mean = features.mean(1)
    return self.first_hidden(mean), self.first_memory(mean)

  def weigh(self, hidden, keys):
    """f32[..., H], keys f32[..., L, A] -> weights f32[..., L]."""
    x = functional.relu(keys + self.query(hidden)[..., None, :])
    return self.score(x).squeeze(-1).softmax(-1)

  def predict(self, hidden):
    """f32[..., H] -> f32[..., V]."""
    return self.output(self.dropout(hidden))

  def advance(self, state, word, seen):
    """(h, c), word f32[B, H], attended features f32[B, D] -> (h, c)."""
    seen = self.beta(state[0]).sigmoid() * seen
    return self.cell(torch.cat([word, seen], 1), state)

  def forward(self, features, captions):
    """f32[B, L, D], i64[B, T + 1] with BOS -> f32[B, T, V], f32[B, T, L]."""
    state = self.start(features)
    words = self.words(captions[:, :-1])
    logits, attention = [], []
    for t in range(words.shape[1]):
      weights = self.weigh(state[0], self.keys(features))
      seen = (features * weights[:, :, None]).sum(1)
      state = self.advance(state, words[:, t], seen)
      logits.append(self.predict(state[0]))
      attention.append(weights)
    return torch.stack(logits, 1), torch.stack(attention, 1)


class SoftAttention(PlainSoftAttention):
  """Show, Attend and Tell at its best: nothing is computed twice."""

  def forward(self, features, captions):
    """See `PlainSoftAttention.forward`."""
    state = self.start(features)
    words = self.words(captions[:, :-1])
    keys = self.keys(features)
    hidden, attention = [], []
    for t in range(words.shape[1]):
      weights = self.weigh(state[0], keys)
      seen = torch.einsum('bl,bld->bd', weights, features)
      state = self.advance(state, words[:, t], seen)
      hidden.append(state[0])
      attention.append(weights)
    return self.predict(torch.stack(hidden, 1)), torch.stack(attention, 1)

  @torch.no_grad()
  def beam(self, features, beams, length):
    """See `Captioner.beam`; here a caption may end earlier."""
    size, (vocabulary, units) = len(features), self.words.weight.shape
    bos, eos = vocabulary - 2, vocabulary - 1
    keys = self.keys(features)[:, None]
    hidden, memory = (
      x[:, None].expand(size, beams, units) for x in self.start(features)
    )
    scores = torch.full((size, beams), -1e9)
    scores[:, 0] = 0
    tokens = torch.full((size, beams), bos)
    captions = torch.zeros(size, beams, length, dtype=torch.long)
    ended = torch.zeros(size, beams, dtype=torch.bool)
    for t in range(length):
      weights = self.weigh(hidden, keys)
      seen = self.beta(hidden).sigmoid() * torch.bmm(weights, features)
      hidden, memory = self.cell(
        torch.cat([self.words(tokens), seen], -1).flatten(0, 1),
        (hidden.reshape(-1, units), memory.reshape(-1, units)),
      )
      log_probs = self.output(hidden).log_softmax(-1)
      log_probs = log_probs.reshape(size, beams, vocabulary)
      only_eos = torch.full_like(log_probs, -1e9)
      only_eos = only_eos.index_fill(2, torch.tensor([eos]), 0.0)
      log_probs = torch.where(ended[:, :, None], only_eos, log_probs)
      scores, chosen = (scores[:, :, None] + log_probs).flatten(1).topk(beams)
      parents, tokens = chosen // vocabulary, chosen % vocabulary
      state_indices = parents[:, :, None].expand(size, beams, units)
      hidden, memory = (
        x.reshape(size, beams, units).gather(1, state_indices)
        for x in (hidden, memory)
      )
      word_indices = parents[:, :, None].expand(size, beams, length)
      captions = captions.gather(1, word_indices)
      captions[:, :, t] = tokens
      ended = ended.gather(1, parents) | (tokens == eos)
    return captions, scores


class PlainUpDown(nn.Module):
  """Up-Down as the published code writes it, step by step."""

  def __init__(self, channels, vocabulary, units, attention):
    super().__init__()
    self.units = units
    self.words = nn.Embedding(vocabulary, units)
    self.image = nn.Linear(channels, units)
    self.annotation = nn.Linear(channels, units)
    self.keys = nn.Linear(units, attention)
    self.query = nn.Linear(units, attention)
    self.score = nn.Linear(attention, 1)
    self.looking = nn.LSTMCell(3 * units, units)
    self.speaking = nn.LSTMCell(2 * units, units)
    self.output = nn.Linear(units, vocabulary)
    self.dropout = nn.Dropout(0.5)

  def forward(self, features, captions):
    """f32[B, L, D], i64[B, T + 1] with BOS -> f32[B, T, V], None."""
    image = self.dropout(functional.relu(self.image(features.mean(1))))
    annotations = self.dropout(functional.relu(self.annotation(features)))
    keys = self.keys(annotations)
    words = self.dropout(functional.relu(self.words(captions[:, :-1])))
    zeros = features.new_zeros(len(features), self.units)
    hidden1 = memory1 = hidden2 = memory2 = zeros
    outputs = []
    for t in range(words.shape[1]):
      hidden1, memory1 = self.looking(
        torch.cat([hidden2, image, words[:, t]], 1), (hidden1, memory1)
      )
      scores = self.score(torch.tanh(keys + self.query(hidden1)[:, None]))
      weights = scores.squeeze(-1).softmax(1)
      seen = torch.bmm(weights[:, None], annotations).squeeze(1)
      hidden2, memory2 = self.speaking(
        torch.cat([seen, hidden1], 1), (hidden2, memory2)
      )
      outputs.append(self.dropout(hidden2))
    return self.output(torch.stack(outputs, 1)), None
