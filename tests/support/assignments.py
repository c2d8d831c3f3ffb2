"""Costs of an assignment by hand."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from policy_accel.acceleration.noise_assignment import Assignment


def cost_by_hand(data: Tensor, noise: Tensor, metric: str, mask: Tensor | None = None) -> np.ndarray:
    """The full cost in float64, from the definitions."""
    x, n = data.double().flatten(1).numpy(), noise.double().flatten(1).numpy()
    kept = np.ones_like(x) if mask is None else mask.expand(data.shape).flatten(1).numpy().astype(float)
    if metric == "dot":
        return -np.einsum("id,jd,id->ij", x, n, kept)
    square = np.einsum("ijd,id->ij", (x[:, None] - n[None]) ** 2, kept)
    return square if metric == "l2sq" else np.sqrt(square)


def total(cost: np.ndarray, permutation: Tensor) -> float:
    return float(cost[np.arange(len(cost)), permutation.numpy()].sum())


def assert_is_permutation(found: Assignment, pool: Tensor) -> None:
    assert found.permutation.dtype == torch.int64
    assert sorted(found.permutation.tolist()) == list(range(len(pool)))
    assert torch.equal(found.noise, pool[found.permutation])
    assert found.noise.dtype == pool.dtype
    assert isinstance(found.milliseconds, float)
    assert found.milliseconds >= 0
