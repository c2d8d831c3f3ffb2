"""Tensors that many tests make and compare."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def generator(seed: int = 0) -> torch.Generator:
    """A generator of its own, on the CPU."""
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal numbers of a shape."""
    return torch.randn(shape, generator=generator(seed), dtype=dtype)


def f64(*values: float) -> Tensor:
    """The values as a float64 vector."""
    return torch.tensor(values, dtype=torch.float64)


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two sets of weights are equal to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
