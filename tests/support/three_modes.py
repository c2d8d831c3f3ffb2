"""Data of three modes in one dimension, whose best denoiser is known for every process, and all the processes."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.stats import norm
from support.tensors import normal
from torch import Tensor

from policy_accel.diffusion.continuous import FlowProcess, SigmaProcess
from policy_accel.diffusion.grid import Grid
from policy_accel.diffusion.karhunen_loeve import karhunen_loeve_process
from policy_accel.diffusion.momentum import momentum_input_scale, momentum_process
from policy_accel.diffusion.processes import DiscreteProcess, Process, vp_process
from policy_accel.diffusion.samplers import DETERMINISTIC_SAMPLERS, Predictor, ddpm

PROCESS = vp_process("squaredcos_cap_v2", 100)
WEIGHTS, MEANS, DEVIATION = np.array([0.25, 0.45, 0.3]), np.array([-0.8, 0.0, 0.6]), 0.1
POINTS = (np.arange(2000) + 0.5) / 2000
NORMAL = torch.tensor(norm.ppf(POINTS)).view(-1, 1)
QUANTILES = np.array([brentq(lambda x, p=p: WEIGHTS @ norm.cdf((x - MEANS) / DEVIATION) - p, -3, 3) for p in POINTS])

PROCESSES: dict[str, Process] = {
    "edm": SigmaProcess("edm"),
    "vp": SigmaProcess("vp"),
    "ve": SigmaProcess("ve"),
    "edm momentum": SigmaProcess("edm", "momentum", multiplier=1.0),
    "flow": FlowProcess(),
    "discrete": PROCESS,
    "natural": momentum_process(PROCESS, "natural"),
    "schedule": momentum_process(PROCESS, "schedule"),
    "kl vp_equivalent": karhunen_loeve_process(PROCESS, 16, "vp_equivalent"),
    "kl raw": karhunen_loeve_process(PROCESS, 16, "raw"),
}


def sampled(sampler: str, predict: Predictor, x: Tensor, process: Process, grid: Grid) -> Tensor:
    """What any sampler makes of the start x; ddpm with noise of its own."""
    if sampler == "ddpm":
        noise = normal(len(grid.timesteps), *x.shape, seed=5, dtype=x.dtype)
        return ddpm(predict, x, process, grid, noise=noise)
    return DETERMINISTIC_SAMPLERS[sampler](predict, x, process, grid)


def posterior_mean(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """E[x0 | x] of the three modes for x [N, 1] = alpha x0 + sigma n."""
    means, variance = torch.tensor(MEANS), alpha**2 * DEVIATION**2 + sigma**2
    share = (torch.tensor(WEIGHTS).log() - (x - alpha * means) ** 2 / (2 * variance)).softmax(dim=1)
    return (share * (means + alpha * DEVIATION**2 / variance * (x - alpha * means))).sum(dim=1, keepdim=True)


def told(process: Process, time: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """alpha, sigma and input scale [N, 1] from nothing but the time that the network is told."""
    assert time.dtype == (torch.int64 if isinstance(process, DiscreteProcess) else torch.float32)
    time = time.view(-1, 1)
    if isinstance(process, DiscreteProcess):
        return process.alphas[time], process.sigmas[time], process.input_scales[time]
    time = time.double()
    one = torch.ones_like(time)
    if isinstance(process, FlowProcess):
        return 1 - time / 1000, time / 1000, one
    if process.family == "edm":
        sigma = (4 * time).exp()
        momentum = momentum_input_scale(sigma, family="edm", multiplier=1.0)
        return one, sigma, momentum if process.input_scale == "momentum" else (sigma**2 + 0.25).rsqrt()
    if process.family == "ve":
        return one, 2 * time.exp(), one
    sigma = torch.expm1(0.1 * time / 999 + 9.95 * (time / 999) ** 2).sqrt()
    return one, sigma, (sigma**2 + 1).rsqrt()


def as_prediction(target: str, x0: Tensor, epsilon: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    if target == "edm":
        ratio = sigma / alpha
        c_skip, c_out = 0.25 / (ratio**2 + 0.25), 0.5 * ratio / (ratio**2 + 0.25) ** 0.5
        return (x0 - c_skip * (x0 + ratio * epsilon)) / c_out
    return {
        "epsilon": epsilon,
        "sample": x0,
        "v": alpha * epsilon - sigma * x0,
        "negative_epsilon": -epsilon,
        "flow": epsilon - x0,
    }[target]


def exact(process: Process, *, clip: float | None = None) -> Predictor:
    """The best predictor of the three modes."""
    target = process.targets[0]

    def denoise(model_input: Tensor, time: Tensor) -> Tensor:
        alpha, sigma, scale = told(process, time)
        x = model_input / scale
        x0 = posterior_mean(x, alpha, sigma)
        return as_prediction(target, x0, (x - alpha * x0) / sigma, alpha, sigma)

    return Predictor(denoise, target=target, clip=clip)


def distance(samples: Tensor) -> float:
    """Wasserstein-1 distance of samples [N, 1] to the three modes."""
    return float(np.abs(np.sort(samples.numpy()[:, 0]) - QUANTILES).mean())
