"""Processes that the tests of the Karhunen-Loeve paths share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from policy_accel.diffusion import DiscreteProcess, timestep_grid
from policy_accel.diffusion.samplers import start_scale

LINEAR, COS_1000, COS_100 = ("linear", 1000), ("squaredcos_cap_v2", 1000), ("squaredcos_cap_v2", 100)
SCHEDULES = [LINEAR, COS_1000, COS_100]
SMALL_BETAS = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)


def table(text: str) -> Tensor:
    return torch.tensor([[float(x) for x in row.split()] for row in text.strip().splitlines()], dtype=torch.float64)


def process_of(betas: Tensor) -> DiscreteProcess:
    alpha_bar = torch.cumprod(1.0 - betas, 0)
    return DiscreteProcess(alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt())


def at(fractions: Sequence[float], timesteps: int) -> list[int]:
    return [round(f * timesteps) - 1 for f in fractions]


def close(actual: Tensor, expected: Tensor | float, tolerance: float) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=tolerance)


def starting(process: DiscreteProcess) -> float:
    """Where a sampler that takes every step starts."""
    return start_scale(process, timestep_grid(process.timesteps, process.timesteps, "leading"))
