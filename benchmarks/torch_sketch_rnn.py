"""A conditional Sketch-RNN in PyTorch at its best, to be timed against ours.

This module runs in an environment with PyTorch and without the rest of the
project. It uses nn.LSTM, therefore it has no recurrent dropout.

Axes: B drawings, T points, M mixtures.
"""

import math

import torch
from torch import nn
from torch.nn import functional


class SketchRNN(nn.Module):
  """Sketch-RNN (Ha and Eck 2017) and its loss."""

  def __init__(
    self,
    encoder_features=256,
    decoder_features=512,
    latent=128,
    mixtures=20,
  ):
    super().__init__()
    self.encoder = nn.LSTM(
      5, encoder_features, batch_first=True, bidirectional=True
    )
    self.mean = nn.Linear(2 * encoder_features, latent)
    self.presigma = nn.Linear(2 * encoder_features, latent)
    self.start = nn.Linear(latent, 2 * decoder_features)
    self.decoder = nn.LSTM(5 + latent, decoder_features, batch_first=True)
    self.output = nn.Linear(decoder_features, 3 + 6 * mixtures)

  def forward(self, strokes):
    """The loss: f32[B, T + 1, 5] -> f32[]; the weight of the KL is 0.5.

    The encoder reads the padding, as other ports do: packing takes ten times
    as long on a CPU.
    """
    inputs, targets = strokes[:, :-1], strokes[:, 1:]
    _, (hidden, _) = self.encoder(targets)
    hidden = hidden.transpose(0, 1).flatten(1)
    mean, presigma = self.mean(hidden), self.presigma(hidden)
    z = mean + torch.exp(presigma / 2) * torch.randn_like(mean)
    kl = -0.5 * (1 + presigma - mean**2 - presigma.exp()).mean()
    hidden, memory = torch.tanh(self.start(z))[None].chunk(2, -1)
    every_z = z[:, None].expand(-1, inputs.shape[1], -1)
    y, _ = self.decoder(
      torch.cat([inputs, every_z], 2),
      (hidden.contiguous(), memory.contiguous()),
    )
    return reconstruction(self.output(y), targets) + 0.5 * kl.clamp(min=0.2)


def reconstruction(y, targets):
  """L_R: f32[B, T, 3 + 6 * M], f32[B, T, 5] -> f32[]."""
  pen, (weight, mean_x, mean_y, log_x, log_y, rho) = (
    y[..., :3],
    y[..., 3:].chunk(6, -1),
  )
  rho = rho.tanh()
  x = (targets[..., :1] - mean_x) * torch.exp(-log_x)
  y = (targets[..., 1:2] - mean_y) * torch.exp(-log_y)
  rest = 1 - rho * rho
  log_probs = (
    functional.log_softmax(weight, -1)
    - (x * x + y * y - 2 * rho * x * y) / (2 * rest)
    - math.log(2 * math.pi)
    - log_x
    - log_y
    - 0.5 * torch.log(rest)
  )
  offset = torch.logsumexp(log_probs, -1)
  offset = -torch.logaddexp(offset, torch.full_like(offset, math.log(1e-6)))
  pen = -(targets[..., 2:] * functional.log_softmax(pen, -1)).sum(-1)
  return (offset * (1 - targets[..., 4]) + pen).mean()
