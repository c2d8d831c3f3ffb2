"""Embedding of the diffusion time."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from policy_accel.errors import UserError


def angles(t: Tensor, frequencies: Tensor) -> Tensor:
    """t [B] times each of the frequencies [F], [B, F] float32; of t [B, n] each number has every n-th frequency."""
    if t.ndim == 1:
        return t.float()[:, None] * frequencies
    every = torch.arange(len(frequencies), device=t.device).remainder(t.shape[1])
    return t.float()[:, every] * frequencies


class SinusoidalEmbedding(nn.Module):
    """Sines and cosines of t at `dim / 2` frequencies from 1 down to 1/10000: [B] or [B, n] -> [B, dim] float32
    (Vaswani et al. 2017, in the form that Diffusion Policy uses: all sines, then all cosines).

    Args:
        dim: entries of the embedding, even, at least 4.
        shift: 1, or 0 for frequencies that end one step before 1/10000 (diffusers' freq_shift).
    """

    frequencies: Tensor

    def __init__(self, dim: int, shift: int = 1) -> None:
        super().__init__()
        if dim < 4 or dim % 2:
            raise UserError(f"the diffusion time is embedded in {dim} dimensions; choose an even number from 4 on.")
        half = dim // 2
        exponents = torch.arange(half, dtype=torch.float64) * (-math.log(10_000.0) / (half - shift))
        self.register_buffer("frequencies", exponents.exp().float(), persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        """Embed t [B], or [B, n], see `angles`."""
        at = angles(t, self.frequencies)
        return torch.cat([at.sin(), at.cos()], dim=-1)


def step_encoder(dim: int, expansion: int) -> nn.Sequential:
    """Embed the time and mix it with one hidden layer of `expansion * dim`: [B] int64 -> [B, dim]."""
    return nn.Sequential(
        SinusoidalEmbedding(dim), nn.Linear(dim, expansion * dim), nn.Mish(), nn.Linear(expansion * dim, dim)
    )
