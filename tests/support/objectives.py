"""Objectives as settings describe them, and what they draw for one batch."""

from __future__ import annotations

from typing import Any

import torch

from policy_accel.acceleration.config import AccelerationConfig
from policy_accel.diffusion import Batch, Noised, Objective
from policy_accel.diffusion.config import DiffusionConfig


def settings(**changes: Any) -> tuple[DiffusionConfig, AccelerationConfig]:
    """Default settings but for those of the accelerations by name, and `diffusion__target` and the like."""
    diffusion = {name.removeprefix("diffusion__"): value for name, value in changes.items() if "__" in name}
    return DiffusionConfig(**diffusion), AccelerationConfig(**{k: v for k, v in changes.items() if "__" not in k})


FLOW = {"diffusion__family": "flow", "diffusion__target": "flow"}


def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(24, 4, 3, generator=generator)
    return Batch(x0, condition=torch.randn(24, 2, 5, generator=generator), groups=torch.arange(24) // 6)


def drawn(objective: Objective, step: int = 0, progress: float = 0.0) -> Noised:
    time, noise = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    return objective.draw(batch(), time, noise, step=step, progress=progress)
