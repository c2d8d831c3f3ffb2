"""Embedding of the diffusion time."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class SinusoidalEmbedding(nn.Module):
    """Sines and cosines of t at `dim / 2` frequencies from 1 down to 1/10000: [B] int64 -> [B, dim] float32
    (Vaswani et al. 2017, in the form that Diffusion Policy uses: all sines, then all cosines)."""

    frequencies: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        half = dim // 2
        exponents = torch.arange(half, dtype=torch.float64) * (-math.log(10_000.0) / (half - 1))
        self.register_buffer("frequencies", exponents.exp().float(), persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        """Embed t [B]."""
        angles = t.float()[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)
