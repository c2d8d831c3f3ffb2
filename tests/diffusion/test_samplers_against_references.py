"""Samplers against diffusers and against the published algorithms written straight."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from diffusers.schedulers import scheduling_ddpm
from support.tensors import normal
from support.three_modes import PROCESS
from torch import Tensor

from policy_accel.diffusion.continuous import FlowProcess, SigmaProcess
from policy_accel.diffusion.grid import Grid, timestep_grid
from policy_accel.diffusion.processes import DiscreteProcess
from policy_accel.diffusion.samplers import Predictor, ddim, ddpm, dpm_solver_pp, euler, heun

DIFFUSERS_TARGET = {"epsilon": "epsilon", "sample": "sample", "v": "v_prediction"}


SHAPE = (4, 16, 2)


def network(x: Tensor, t: Tensor) -> Tensor:
    """A smooth stand-in for a denoiser that depends on every input."""
    return torch.tanh(0.7 * x + 0.3 * x.roll(1, dims=1) + torch.sin(t.float() / 17.0).view(-1, 1, 1))


def start() -> Tensor:
    return normal(*SHAPE)


def scheduler_of(kind: Any, target: str, steps: int, spacing: str, **options: Any) -> Any:
    """A scheduler of diffusers with the schedule of PROCESS."""
    scheduler = kind(
        num_train_timesteps=100,
        beta_schedule="squaredcos_cap_v2",
        prediction_type=DIFFUSERS_TARGET[target],
        timestep_spacing=spacing,
        **options,
    )
    scheduler.set_timesteps(steps)
    return scheduler


def sampled_by(scheduler: Any) -> Tensor:
    x = start()
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, torch.full((len(x),), int(t))), t, x).prev_sample
    return x


@pytest.mark.parametrize("target", ["epsilon", "sample", "v"])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize(("steps", "spacing"), [(100, "leading"), (10, "leading"), (10, "trailing")])
def test_ddpm_equals_diffusers(
    monkeypatch: pytest.MonkeyPatch, target: str, clip: bool, steps: int, spacing: str
) -> None:
    scheduler = scheduler_of(DDPMScheduler, target, steps, spacing, clip_sample=clip, variance_type="fixed_small")
    noise = normal(steps, *SHAPE, seed=3)
    draws = iter(noise)
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, **__: next(draws))
    predict = Predictor(network, target=target, clip=1.0 if clip else None)
    ours = ddpm(predict, start(), PROCESS, timestep_grid(100, steps, spacing), noise=noise)
    torch.testing.assert_close(ours, sampled_by(scheduler), rtol=1e-4, atol=1e-4 if clip else 2e-3)


@pytest.mark.parametrize("target", ["epsilon", "sample", "v"])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize(("steps", "spacing"), [(8, "leading"), (10, "trailing"), (4, "trailing"), (12, "linspace")])
def test_ddim_equals_diffusers(target: str, clip: bool, steps: int, spacing: str) -> None:
    scheduler = scheduler_of(DDIMScheduler, target, steps, spacing, clip_sample=clip)
    grid = timestep_grid(100, steps, spacing)
    if spacing == "linspace":  # diffusers steps back by T // n, whatever its own next point is
        grid = Grid(grid.timesteps, tuple(max(t - 100 // steps, -1) for t in grid.timesteps))
    ours = ddim(Predictor(network, target=target, clip=1.0 if clip else None), start(), PROCESS, grid)
    torch.testing.assert_close(ours, sampled_by(scheduler), rtol=1e-4, atol=1e-4 if clip else 2e-3)


@pytest.mark.parametrize("target", ["epsilon", "sample", "v"])
@pytest.mark.parametrize(("steps", "spacing"), [(5, "trailing"), (10, "leading"), (14, "linspace"), (20, "trailing")])
def test_dpm_solver_equals_diffusers(target: str, steps: int, spacing: str) -> None:
    scheduler = scheduler_of(
        DPMSolverMultistepScheduler,
        target,
        steps,
        spacing,
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        lower_order_final=True,
        final_sigmas_type="zero",
    )
    grid = Grid.of(scheduler.timesteps.tolist())
    ours = dpm_solver_pp(Predictor(network, target=target, clip=None), start(), PROCESS, grid)
    torch.testing.assert_close(ours, sampled_by(scheduler), rtol=1e-3, atol=2e-3)


def test_ancestral_step_is_the_gaussian_posterior() -> None:
    alphas, sigmas = torch.tensor([0.9, 0.5]).double(), torch.tensor([0.3, 1.2]).double()
    process, x0, seen = DiscreteProcess(alphas, sigmas), 0.4, []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        seen.append(x)
        return torch.full_like(x, x0)

    x, noise = torch.tensor([[1.7]]).double(), torch.ones(2, 1, 1).double()
    for factor in (0.0, 1.0):
        ddpm(Predictor(denoise, target="sample", clip=None), x, process, Grid.of([1, 0]), noise=factor * noise)
    ratio = 0.5 / 0.9  # x_1 = ratio x_0' + fresh noise, given the clean sample: condition the joint Gaussian on x_1
    covariance, variance = ratio * 0.3**2, 1.2**2
    mean = 0.9 * x0 + covariance / variance * (1.7 - 0.5 * x0)
    deviation = math.sqrt(0.3**2 - covariance**2 / variance)
    assert float(seen[1]) == pytest.approx(mean, rel=1e-6)
    assert float(seen[3] - seen[1]) == pytest.approx(deviation, rel=1e-6)


def edm_reference(sigmas: list[float], x: np.ndarray, family: str, denoise: Callable[..., np.ndarray]) -> np.ndarray:
    """Algorithm 1 of Karras et al. 2022, with the preconditioning of its table 1 written out."""

    def D(x: np.ndarray, sigma: float) -> np.ndarray:
        if family == "edm":
            root = math.sqrt(sigma**2 + 0.25)
            return 0.25 / root**2 * x + 0.5 * sigma / root * denoise(x / root, math.log(sigma) / 4)
        if family == "vp":
            time = (math.sqrt(0.01 + 39.8 * math.log(1 + sigma**2)) - 0.1) / 19.9
            return x - sigma * denoise(x / math.sqrt(sigma**2 + 1), 999 * time)
        return x + sigma * denoise(x, math.log(sigma / 2))

    for here, there in pairwise(sigmas):
        slope = (x - D(x, here)) / here
        moved = x + (there - here) * slope
        if there > 0:
            moved = x + (there - here) * (slope + (moved - D(moved, there)) / there) / 2
        x = moved
    return x


@pytest.mark.parametrize("family", ["edm", "vp", "ve"])
@pytest.mark.parametrize("steps", [1, 2, 5, 18])
def test_heun_equals_the_published_algorithm(family: str, steps: int) -> None:
    process = SigmaProcess(family)
    low = 0.02 if family == "ve" else 0.002
    indices = np.arange(steps) / max(1, steps - 1)
    sigmas = [*((80 ** (1 / 7) + indices * (low ** (1 / 7) - 80 ** (1 / 7))) ** 7), 0.0]
    x = 80 * start().double()

    def numpy_network(x: np.ndarray, time: float) -> np.ndarray:
        return np.tanh(0.7 * x + np.sin(np.float64(np.float32(time)) / 17))

    ours = heun(
        Predictor(
            lambda x, t: torch.tanh(0.7 * x + torch.sin(t.double() / 17).view(-1, 1, 1)),
            target=process.targets[0],
            clip=None,
        ),
        x,
        process,
        process.grid(steps),
    )
    np.testing.assert_allclose(ours.numpy(), edm_reference(sigmas, x.numpy(), family, numpy_network), atol=2e-6)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_flow_is_integrated_along_its_own_time(steps: int) -> None:
    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(x) + torch.cos(t.double() / 300).view(-1, 1, 1)

    x = start().double()
    by_euler, by_heun = x, x
    for i in range(steps):
        here, there = 1000 * (1 - torch.tensor([i, i + 1]) / steps)
        by_euler = by_euler - velocity(by_euler, here) / steps
        slope = velocity(by_heun, here)
        if i < steps - 1:
            slope = 0.5 * (slope + velocity(by_heun - slope / steps, there))
        by_heun = by_heun - slope / steps
    process = FlowProcess()
    for solver, expected in [(euler, by_euler), (heun, by_heun)]:
        torch.testing.assert_close(
            solver(Predictor(velocity, target="flow", clip=None), x, process, process.grid(steps)),
            expected,
            rtol=1e-6,
            atol=1e-6,
        )
