"""What every sampler does with a denoiser: how often it asks, what it gives it, where it starts."""

from __future__ import annotations

import pytest
import torch
from support.tensors import normal
from support.three_modes import PROCESS, PROCESSES, sampled
from torch import Tensor

from policy_accel.diffusion.continuous import FlowProcess, SigmaProcess
from policy_accel.diffusion.grid import timestep_grid
from policy_accel.diffusion.momentum import momentum_process
from policy_accel.diffusion.processes import DiscreteProcess, Level
from policy_accel.diffusion.samplers import SAMPLERS, Predictor, ddim, network_evaluations, start_scale

SHAPE = (4, 16, 2)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("name", ["discrete", "edm", "flow"])
def test_network_evaluations(sampler: str, steps: int, name: str) -> None:
    process, calls = PROCESSES[name], []

    def counting(x: Tensor, t: Tensor) -> Tensor:
        calls.append(t)
        return 0.1 * x

    sampled(sampler, Predictor(counting, target=process.targets[0]), normal(*SHAPE), process, process.grid(steps))
    assert len(calls) == network_evaluations(sampler, steps)
    assert network_evaluations(sampler, 10) == (19 if sampler == "heun" else 10)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", ["discrete", "edm momentum", "flow", "natural"])
def test_known_entries_reach_every_evaluation_unscaled_and_are_kept(sampler: str, name: str) -> None:
    process, seen = PROCESSES[name], []
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[:, 0] = True

    def watching(x: Tensor, t: Tensor) -> Tensor:
        seen.append(x[:, 0].clone())
        return 0.1 * x

    def known(x: Tensor, level: Level) -> Tensor:
        return torch.where(mask, torch.full_like(x, 0.5), x)

    predict = Predictor(watching, target=process.targets[0], known=known)
    result = sampled(sampler, predict, normal(*SHAPE), process, process.grid(4))
    assert len(seen) == (7 if sampler == "heun" else 4)
    assert all(bool((values == 0.5).all()) for values in [*seen, result[:, 0]])
    assert not bool((result[:, 1:] == 0.5).any())


def test_coefficients_do_not_depend_on_the_dtype_of_the_sample() -> None:
    grid, x = timestep_grid(100, 4, "trailing"), normal(*SHAPE)
    predict = Predictor(lambda x, t: torch.tanh(0.7 * x + torch.sin(t / 17.0).view(-1, 1, 1)), target="sample")
    exact = ddim(predict, x.double(), PROCESS, grid)
    torch.testing.assert_close(ddim(predict, x, PROCESS, grid).double(), exact, rtol=1e-5, atol=1e-5)


def test_input_scale_reaches_the_network() -> None:
    scaled = DiscreteProcess(PROCESS.alphas, PROCESS.sigmas, torch.full_like(PROCESS.alphas, 2.0))
    seen: list[Tensor] = []

    def watching(x: Tensor, t: Tensor) -> Tensor:
        seen.append(x)
        return x

    ddim(Predictor(watching, target="sample"), normal(*SHAPE), scaled, timestep_grid(100, 1, "trailing"))
    torch.testing.assert_close(seen[0], 2.0 * normal(*SHAPE))


def test_start_scale() -> None:
    assert start_scale(PROCESS, timestep_grid(100, 8, "leading")) == 1.0
    assert start_scale(momentum_process(PROCESS, "schedule"), timestep_grid(100, 8, "trailing")) == 1.0
    assert start_scale(FlowProcess(), FlowProcess().grid(3)) == 1.0
    assert start_scale(SigmaProcess(), SigmaProcess().grid(7)) == pytest.approx(80.0)
    less_noise = DiscreteProcess(PROCESS.alphas, 0.9 * PROCESS.sigmas)
    assert start_scale(less_noise, timestep_grid(100, 8, "trailing")) == pytest.approx(0.9, rel=1e-6)
