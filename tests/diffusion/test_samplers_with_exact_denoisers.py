"""Samplers with the best denoiser of known data give the data, for every process."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from support.three_modes import MEANS, NORMAL, PROCESS, PROCESSES, WEIGHTS, distance, exact, posterior_mean, sampled
from torch import Tensor

from policy_accel.diffusion.continuous import SigmaProcess
from policy_accel.diffusion.grid import Grid, timestep_grid
from policy_accel.diffusion.momentum import momentum_input_scale, momentum_process
from policy_accel.diffusion.processes import DiscreteProcess
from policy_accel.diffusion.samplers import (
    ddim,
    dpm_solver_pp,
    euler,
    heun,
    start_scale,
)


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize(
    ("sampler", "steps", "tolerance"),
    [("ddim", 100, 0.011), ("euler", 100, 0.011), ("dpm_solver++", 50, 0.009), ("heun", 50, 0.007)],
)
def test_every_process_and_sampler_gives_the_three_modes(name: str, sampler: str, steps: int, tolerance: float) -> None:
    """The modes are 0.6 to 0.8 apart and 0.1 wide; the start is at the exact quantiles, so nothing is random."""
    process = PROCESSES[name]
    grid = process.grid(steps)
    samples = sampled(sampler, exact(process), start_scale(process, grid) * NORMAL, process, grid)
    assert distance(samples) < tolerance
    nearest = np.abs(samples.numpy() - MEANS).argmin(axis=1)
    for mode in range(3):
        assert np.mean(nearest == mode) == pytest.approx(WEIGHTS[mode], abs=0.015)
        assert float(samples[nearest == mode].mean()) == pytest.approx(MEANS[mode], abs=0.01)


@pytest.mark.parametrize("name", PROCESSES)
def test_ancestral_sampling_of_every_process(name: str) -> None:
    process = PROCESSES[name]
    grid = process.grid(100)
    samples = sampled("ddpm", exact(process), start_scale(process, grid) * NORMAL, process, grid)
    assert distance(samples) < 0.035  # 2000 draws of the modes themselves are 0.013 away on average


@pytest.mark.parametrize("name", PROCESSES)
def test_euler_is_ddim_until_the_sample_is_clipped(name: str) -> None:
    process = PROCESSES[name]
    grid = process.grid(8)
    predict, x = exact(process), start_scale(process, grid) * NORMAL
    torch.testing.assert_close(euler(predict, x, process, grid), ddim(predict, x, process, grid), rtol=1e-9, atol=1e-9)
    # One clipped step, not to the clean sample: the direction is that of the clipped sample.
    first = Grid(grid.timesteps[3:4], grid.next_timesteps[3:4])
    here, there = process.level(first.timesteps[0]), process.level(first.next_timesteps[0])
    predict = exact(process, clip=0.001)
    x = torch.full((5, 1), 2 * here.sigma, dtype=torch.float64)
    clipped = euler(predict, x, process, first)
    x0 = ddim(predict, x, process, Grid(first.timesteps, (-1,)))
    assert float(x0[0]) == 0.001
    torch.testing.assert_close(clipped, there.alpha * x0 + there.sigma * (x - here.alpha * x0) / here.sigma)
    assert float((clipped - ddim(predict, x, process, first)).abs().min()) > 1e-3


@pytest.mark.parametrize("solver", [ddim, dpm_solver_pp, euler, heun])
def test_only_the_signal_to_noise_ratio_matters(solver: Callable[..., Tensor]) -> None:
    """The pairs (alpha, sigma), (1, sigma / alpha) and (s, s sigma / alpha) are one process in three scales."""
    ratio = PROCESS.sigmas / PROCESS.alphas
    # The literal scale falls to 5e-4, where the start would lose its digits; this one stops at 0.04.
    s = momentum_input_scale(torch.linspace(0.01, 55, 100, dtype=torch.float64), family="edm", multiplier=1.0)
    grid = timestep_grid(100, 20, "trailing")
    results = []
    for alphas in (PROCESS.alphas, torch.ones_like(ratio), s):
        process = DiscreteProcess(alphas, alphas * ratio)
        begin = float(alphas[99] / PROCESS.alphas[99]) * NORMAL
        results.append(solver(exact(process), begin, process, grid))
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=1e-10)
    torch.testing.assert_close(results[2], results[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["natural", "sigma", "one"])
@pytest.mark.parametrize("steps", [8, 100])
def test_input_scale_leaves_the_samples_of_an_exact_denoiser(kind: str, steps: int) -> None:
    scaled, grid = momentum_process(PROCESS, kind), timestep_grid(100, steps, "trailing")
    plain = ddim(exact(PROCESS), NORMAL, PROCESS, grid)
    ours = ddim(exact(scaled), NORMAL, scaled, grid)
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-11)
    changed = momentum_process(PROCESS, "schedule")
    other = ddim(exact(changed), NORMAL, changed, grid)
    assert float((other - plain).abs().max()) > 1e-3


def heun_in_the_scaled_state(sigmas: list[float], multiplier: float) -> tuple[Tensor, int]:
    """Heun on the same ODE written for s x, which has the extra term (s' / s) s x; and its evaluations."""

    def scale(sigma: float) -> tuple[float, float]:
        position, reach = (sigma - 0.002) / 79.998, 79.998
        u = multiplier * (0.1 * position + 9.95 * position**2)
        slope = -u * math.exp(-u) * multiplier * (0.1 + 19.9 * position) / reach
        return (1 + u) * math.exp(-u), slope

    def slope(x: Tensor, sigma: float) -> Tensor:
        s, change = scale(sigma)
        at = torch.tensor(sigma, dtype=torch.float64)
        return change / s * x + s * (x / s - posterior_mean(x / s, torch.ones_like(at), at)) / sigma

    x, evaluations = scale(sigmas[0])[0] * sigmas[0] * NORMAL, 0
    for here, there in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        first = slope(x, here)
        evaluations += 1
        moved = x + (there - here) * first
        if there > 0:
            moved = x + (there - here) * (first + slope(moved, there)) / 2
            evaluations += 1
        x = moved
    return x, evaluations


def test_heun_belongs_in_the_unscaled_state() -> None:
    process = PROCESSES["edm momentum"]
    assert isinstance(process, SigmaProcess)
    errors = []
    for evaluations in (13, 17, 25, 35, 49, 79):
        grid = process.grid((evaluations + 1) // 2)
        samples = heun(exact(process), 80 * NORMAL, process, grid)
        errors.append(distance(samples))
        for multiplier in (1.0, 2.0):
            scaled, count = heun_in_the_scaled_state(list(grid.timesteps), multiplier)
            assert count == evaluations
            assert distance(scaled) > (9 if evaluations >= 25 else 1.8) * errors[-1]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.05 * errors[0]
