"""Att2in and Up-Down in PyTorch at its best, to time ours beside.

For an environment with PyTorch and without the rest of the product. The same
mathematics as ours, dropout included. Eager, as the published code; but what
does not depend on the state is computed before the loop over time, in training
the vocabulary product after it, the beams of a picture share its annotations,
and a search normalises only the best words.

Axes: B pictures, K captions of a picture (or beams), T words, L locations, D
features of a location, H units, V vocabulary.
"""

import torch
from torch import nn
from torch.nn import functional

BOS = 0


class Captioner(nn.Module):
  """What the two share: unrolled in training, stepped in beam search.

  `advance` is a step of time: state, drive [B, K, W] and what `prepare`
  returned -> state, a tuple of f32[B, K, H] of which the last predicts.
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

  def prepare(self, grids):
    """f32[B, L, D] -> annotations [B, L, H], keys [B, L, A], drive or 0."""
    annotations = self.dropout(functional.relu(self.annotation(grids)))
    return annotations, self.keys(annotations), 0.0

  def read(self, tokens):
    """i64[B, T] -> what the words drive, f32[B, T, W]."""
    return self.input(self.dropout(functional.relu(self.words(tokens))))

  def start(self, grids):
    """The state before the first word."""
    return (grids.new_zeros(len(grids), 1, self.units),) * self.num_states

  def attend(self, hidden, annotations, keys):
    """Additive attention: f32[B, K, H] -> f32[B, K, H]."""
    x = keys[:, None] + self.query(hidden)[:, :, None]
    # In place where nothing has to be kept for the reverse pass.
    x = x.tanh() if torch.is_grad_enabled() else x.tanh_()
    return self.score(x).squeeze(-1).softmax(-1) @ annotations

  def forward(self, grids, captions):
    """f32[B, L, D], i64[B, T + 1] with BOS -> f32[B, T, V], None."""
    *context, constant = self.prepare(grids)
    state, outputs = self.start(grids), []
    for drive in (self.read(captions[:, :-1]) + constant).split(1, 1):
      state = self.advance(state, drive, *context)
      outputs.append(state[-1])
    return self.output(self.dropout(torch.cat(outputs, 1))), None

  @torch.no_grad()
  def beam(self, grids, beams, length):
    """The best captions of so many words; none ends before.

    f32[B, L, D] -> i64[B, K, T], the best first, and their log-probabilities
    f32[B, K].
    """
    *context, constant = self.prepare(grids)
    state = self.start(grids)
    tokens = torch.full((len(grids), 1), BOS)
    captions = torch.zeros(len(grids), 1, 0, dtype=torch.long)
    scores = torch.zeros(len(grids), 1)
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

  def advance(self, state, drive, annotations, keys):
    """(c, h) -> (c, h); the candidate is the larger of two halves."""
    memory, hidden = state
    seen = self.attend(hidden, annotations, keys)
    gates, candidate = (drive + self.recurrent(hidden)).split(
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
    self.picture = nn.Linear(channels, units)
    # The gates of the first LSTM, from what is constant and from the states.
    self.constant = nn.Linear(units, 4 * units, bias=False)
    self.input = nn.Linear(units, 4 * units)
    self.looking = nn.Linear(2 * units, 4 * units, bias=False)
    self.speaking = nn.Linear(3 * units, 4 * units)

  def prepare(self, grids):
    """See `Captioner.prepare`; the mean drives the first LSTM."""
    picture = self.dropout(functional.relu(self.picture(grids.mean(1))))
    return *super().prepare(grids)[:2], self.constant(picture)[:, None]

  def advance(self, state, drive, annotations, keys):
    """(c1, h1, c2, h2) -> (c1, h1, c2, h2)."""
    memory1, hidden1, memory2, hidden2 = state
    gates = drive + self.looking(torch.cat([hidden2, hidden1], -1))
    memory1, hidden1 = lstm(memory1, gates)
    seen = self.attend(hidden1, annotations, keys)
    gates = self.speaking(torch.cat([seen, hidden1, hidden2], -1))
    return memory1, hidden1, *lstm(memory2, gates)


def lstm(memory, gates):
  """c f32[B, K, H], f32[B, K, 4 * H] -> (c, h)."""
  i, f, g, o = gates.chunk(4, -1)
  memory = f.sigmoid() * memory + i.sigmoid() * g.tanh()
  return memory, o.sigmoid() * memory.tanh()
