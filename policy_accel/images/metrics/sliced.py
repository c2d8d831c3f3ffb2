"""The sliced 2-Wasserstein distance of two sets of feature vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from policy_accel.images.metrics.features import full_precision
from policy_accel.training.randomness import named_generator

BLOCK = 64


def sliced_wasserstein(a: Tensor, b: Tensor, *, projections: int = 256) -> float:
    """Root mean square, over random directions, of the 2-Wasserstein distance of the projected sets (Bonneel et al.
    2015); in units of the features.

    On a line the distance is that of the quantile functions; with unequal counts both are stepped through at the
    breakpoints of either, which is exact. For two point masses at distance d it is d / sqrt(D) in expectation.

    Args:
        a: [N, D] features.
        b: [M, D] features on the same device.
        projections: number of directions, uniform on the sphere; the same in every call and on every device.
    """
    directions = torch.randn(a.shape[1], projections, generator=named_generator(0, "projections"))
    directions = (directions / directions.norm(dim=0)).to(a.device)
    index_a, index_b, weights = (part.to(a.device) for part in _common_steps(len(a), len(b)))
    total = torch.zeros((), dtype=torch.float64, device=a.device)
    with full_precision(a.device):
        for block in directions.split(BLOCK, dim=1):
            sorted_a = (a.float() @ block).sort(dim=0).values
            sorted_b = (b.float() @ block).sort(dim=0).values
            gaps = (sorted_a[index_a] - sorted_b[index_b]).double().square()
            total += (weights[:, None] * gaps).sum()
    return float((total / projections).sqrt())


def _common_steps(n: int, m: int) -> tuple[Tensor, Tensor, Tensor]:
    """Steps of two quantile functions with n and m equal jumps: rank in each [K] int64 and length [K] float64."""
    ends = torch.unique(torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]))  # in units of 1 / (n m)
    begins = torch.cat([ends.new_zeros(1), ends[:-1]])
    return begins // m, begins // n, (ends - begins).double() / (n * m)
