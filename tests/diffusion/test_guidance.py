from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from policy_accel.diffusion import FlowProcess, Objective, Sampler, SigmaProcess, vp_process
from policy_accel.diffusion.config import SamplingConfig
from policy_accel.diffusion.guidance import Guidance, GuidedPredictor
from policy_accel.diffusion.processes import Level

CORRELATION = 0.8
COVARIANCE = torch.tensor([[1.0, CORRELATION], [CORRELATION, 1.0]])
CASES = {
    "ddpm": (Objective(vp_process("squaredcos_cap_v2", 100), "sample"), "ddim"),
    "ddpm of scaled data": (Objective(vp_process("squaredcos_cap_v2", 100), "sample", data_scale=0.5), "ddim"),
    "flow": (Objective(FlowProcess(), "sample"), "euler"),
    "ve": (Objective(SigmaProcess("ve"), "sample"), "euler"),
}


@pytest.mark.parametrize("case", CASES)
def test_entries_that_are_free_follow_those_that_are_given(case: str) -> None:
    """The best denoiser of two correlated numbers, of which the first is given: the other has its conditional mean."""
    objective, kind = CASES[case]
    sampler = Sampler(objective, SamplingConfig(sampler=kind, steps=40, clip_sample=None))
    scale, levels = objective.data_scale, [objective.process.level(t) for t in sampler.grid.timesteps]

    def denoise(model_input: Tensor, time: Tensor) -> Tensor:
        level = min(levels, key=lambda level: abs(float(level.time) - float(time[0])))
        prior = scale**2 * COVARIANCE
        gain = level.alpha * prior @ torch.linalg.inv(level.alpha**2 * prior + level.sigma**2 * torch.eye(2))
        return model_input / level.input_scale @ gain.T

    noise = torch.randn(400, 1, 2, generator=torch.Generator().manual_seed(0))
    given, weights = torch.tensor([[1.5, -9.0]]).expand(400, 2), torch.tensor([1.0, 0.0])
    guided = sampler(denoise, noise, guidance=Guidance(given, weights, bound=50.0))
    assert guided[:, 0].mean() == pytest.approx(1.5, abs=0.1)
    assert guided[:, 1].mean() == pytest.approx(CORRELATION * 1.5, abs=0.15)
    free = sampler(denoise, noise, guidance=Guidance(given, 0 * weights))
    torch.testing.assert_close(free, sampler(denoise, noise))
    assert free.mean().abs() < 0.1


@pytest.mark.parametrize("tau", [0.0, 0.2, 0.6, 0.9])
def test_the_velocity_of_a_flow_is_that_of_real_time_chunking(tau: float) -> None:
    """Black et al. 2025, equations 2 to 4, with X_0 noise, X_1 data and tau from 0 to 1."""
    bound, weights = 5.0, torch.tensor([1.0, 0.4, 0.0])
    matrix = torch.tensor([[0.3, 0.2, 0.0], [0.1, 0.5, 0.4], [0.0, 0.2, 0.1]])
    x, given = torch.tensor([[0.5, -1.0, 0.2]]), torch.tensor([[0.9, 0.1, -0.7]])
    velocity = x @ matrix.T
    sample = x + (1 - tau) * velocity
    jacobian = torch.eye(3) + (1 - tau) * matrix
    r2 = (1 - tau) ** 2 / (tau**2 + (1 - tau) ** 2)
    weight = min(bound, (1 - tau) / (tau * r2)) if tau else bound
    expected = velocity + weight * (weights * (given - sample)) @ jacobian

    predict = GuidedPredictor(
        lambda x, _: -(x @ matrix.T), "flow", None, guidance=Guidance(given, weights, bound)
    )  # ours is d x / d u with u = 1 - tau
    x0, epsilon = predict(x, Level(tau, 1 - tau, 1.0, 1 - tau))
    torch.testing.assert_close((x0 - x) / (1 - tau), expected)
    torch.testing.assert_close(tau * x0 + (1 - tau) * epsilon, x)
    clipped, _ = replace(predict, clip=0.3)(x, Level(tau, 1 - tau, 1.0, 1 - tau))
    assert clipped.abs().max() <= 0.3
