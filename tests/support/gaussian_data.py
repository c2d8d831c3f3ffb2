"""Independent normal data, the best denoiser of them, and samplers of every objective."""

from __future__ import annotations

import torch
from support.tensors import normal
from torch import Tensor

from policy_accel.diffusion import FlowProcess, Objective, Sampler, SigmaProcess, vp_process
from policy_accel.diffusion.config import SamplingConfig
from policy_accel.diffusion.karhunen_loeve import karhunen_loeve_process
from policy_accel.diffusion.momentum import momentum_process
from policy_accel.diffusion.predictions import edm_coefficients
from policy_accel.diffusion.processes import Level
from policy_accel.diffusion.samplers import SAMPLERS

PROCESS = vp_process("squaredcos_cap_v2", 100)
OBJECTIVES = {
    "ddpm": Objective(PROCESS, "v"),
    "ddpm linear, scaled data": Objective(vp_process("linear", 1000), "epsilon", data_scale=2.0),
    "natural": Objective(momentum_process(PROCESS, "natural"), "v"),
    "kl raw": Objective(karhunen_loeve_process(PROCESS, 16, "raw"), "epsilon"),
    "edm": Objective(SigmaProcess("edm"), "edm"),
    "edm, scaled data": Objective(SigmaProcess("edm"), "edm", data_scale=0.5),
    "edm momentum": Objective(SigmaProcess("edm", "momentum"), "edm"),
    "vp": Objective(SigmaProcess("vp"), "epsilon"),
    "ve": Objective(SigmaProcess("ve"), "negative_epsilon"),
    "flow": Objective(FlowProcess(), "flow"),
}
# Heun is refused for so few steps of discrete times.
CASES = [
    (name, kind)
    for name, objective in OBJECTIVES.items()
    for kind in SAMPLERS
    if kind != "heun" or objective.process.timesteps is None
]
MEAN, DEVIATION = 0.3, 0.2


def levels(sampler: Sampler) -> dict[float, Level]:
    """Levels of the grid by the time that the network is told."""
    found = [sampler.objective.process.level(t) for t in sampler.grid.timesteps]
    return {round(float(level.time), 3): level for level in found}


class Exact:
    """The best denoiser of data N(MEAN, DEVIATION^2), independent entries, and what it was given."""

    def __init__(self, sampler: Sampler) -> None:
        self.objective, self.levels = sampler.objective, levels(sampler)
        self.seen: list[tuple[Tensor, Level]] = []

    def __call__(self, model_input: Tensor, time: Tensor) -> Tensor:
        level = self.levels[round(float(time[0]), 3)]
        x, scale = model_input / level.input_scale, self.objective.data_scale
        self.seen.append((x, level))
        alpha, sigma, variance = level.alpha, level.sigma, (scale * DEVIATION) ** 2
        gain = alpha * variance / (alpha**2 * variance + sigma**2)
        x0 = scale * MEAN + gain * (x - alpha * scale * MEAN)
        epsilon = (x - alpha * x0) / sigma
        if self.objective.target == "edm":
            c_skip, c_out = edm_coefficients(sigma / alpha)
            return (x0 - c_skip / alpha * x) / c_out
        return {
            "epsilon": epsilon,
            "negative_epsilon": -epsilon,
            "v": alpha * epsilon - sigma * x0,
            "flow": epsilon - x0,
        }[self.objective.target]


def sampler_of(objective: str | Objective, sampler: str, steps: int, spacing: str = "trailing") -> Sampler:
    """A sampler without a bound."""
    objective = OBJECTIVES[objective] if isinstance(objective, str) else objective
    return Sampler(objective, SamplingConfig(sampler, steps, spacing, clip_sample=None))


def standard(*shape: int, seed: int = 0) -> Tensor:
    return normal(*shape, seed=seed, dtype=torch.float64)


def of_times(objective: str, sampler: str, *times: float) -> Sampler:
    return Sampler(OBJECTIVES[objective], SamplingConfig(sampler, times=list(times), clip_sample=None))
