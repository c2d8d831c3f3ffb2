"""Schedulers of every kind beside the processes that they stand for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from policy_accel.diffusion import karhunen_loeve_process, momentum_process, vp_process
from policy_accel.diffusion.schedulers import KarhunenLoeveScheduler, MomentumScheduler

T = 50
SHAPE = (3, 8, 2)
TARGET = {"epsilon": "epsilon", "sample": "sample", "v_prediction": "v"}
KL_KINDS: list[dict[str, Any]] = [
    {"modes": 4},
    {"modes": 3, "marginal": "vp_equivalent"},
    {"modes": 2, "marginal": "vp_equivalent", "clock": "variance"},
    {"modes": 3, "marginal": "raw"},
]
MOMENTUM_KINDS: list[dict[str, Any]] = [
    {"kind": "natural"},
    {"kind": "natural", "strength": 2.0},
    {"kind": "sigma"},
    {"kind": "schedule", "strength": 0.5},
    {"kind": "one"},
]
SIGMA_KINDS: list[dict[str, Any]] = [
    {"family": family, "input_scale": scale, "multiplier": 2.0}
    for family in ("edm", "vp", "ve")
    for scale in ("base", "momentum", "one")
]


def network(x: Tensor, t: Tensor | float) -> Tensor:
    """A smooth stand-in for a denoiser that depends on every input."""
    times = torch.as_tensor(t, device=x.device).float().expand(len(x)).view(-1, 1, 1)
    return torch.tanh(0.7 * x + 0.3 * x.roll(1, dims=1) + torch.sin(times / 17.0))


def diffusers_loop(scheduler: Any, x: Tensor) -> Tensor:
    """As the pipelines of diffusers sample."""
    for t in scheduler.timesteps:
        x = scheduler.step(network(scheduler.scale_model_input(x, t), t), t, x).prev_sample
    return x


def discrete(options: dict[str, Any], **more: Any) -> tuple[Any, Any]:
    """A scheduler and, built apart from it, its process."""
    common = {"num_train_timesteps": T, "beta_schedule": more.pop("beta_schedule", "squaredcos_cap_v2")}
    base = vp_process(common["beta_schedule"], T)
    if "modes" in options:
        return KarhunenLoeveScheduler(**common, **options, **more), karhunen_loeve_process(base, **options)
    return MomentumScheduler(**common, **options, **more), momentum_process(base, **options)
