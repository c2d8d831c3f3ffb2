"""The stochastic sampler of Karras et al. 2022, beside its algorithm 2 written out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from policy_accel.diffusion import FlowProcess, Objective, Sampler, SigmaProcess, vp_process
from policy_accel.diffusion.churn import LARGEST, Churn
from policy_accel.diffusion.config import SamplingConfig
from policy_accel.errors import UserError
from policy_accel.run_sampling import AskedSampling

STEPS = 9
SHAPE = (3, 2, 4)
CASES: list[dict[str, Any]] = [
    {"churn": 4.0},
    {"churn": 40.0, "churn_noise": 1.007},
    {"churn": 2.0, "churn_min": 0.05, "churn_max": 50.0, "churn_noise": 1.003},
]


def network(x: Tensor, t: Tensor) -> Tensor:
    return torch.tanh(0.7 * x + 0.3 * x.roll(1, dims=1) + torch.sin(t.to(x.dtype)).view(-1, 1, 1))


def sampler_of(family: str = "edm", target: str = "edm", sigma_data: float = 0.5, **settings: Any) -> Sampler:
    objective = Objective(SigmaProcess(family, sigma_data=sigma_data), target)
    return Sampler(objective, SamplingConfig("heun", STEPS, clip_sample=None, **settings))


def draws(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(SHAPE[0], count, *SHAPE[1:], generator=generator, dtype=torch.float64)


def denoised(family: str, sigma_data: float) -> Callable[[Tensor, float], Tensor]:
    """D(x; sigma) of the network under the family's preconditioning (table 1)."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        c_skip, c_out, c_in, c_noise = 1.0, sigma, 1.0, math.log(sigma / 2)
        if family == "edm":
            total = sigma**2 + sigma_data**2
            c_skip, c_out, c_in = sigma_data**2 / total, sigma * sigma_data / math.sqrt(total), total**-0.5
            c_noise = math.log(sigma) / 4
        told = torch.full((len(x),), c_noise, dtype=torch.float32)
        return c_skip * x + c_out * network(c_in * x, told)

    return denoise


def algorithm_2(
    denoise: Callable[[Tensor, float], Tensor],
    noise: Iterator[Tensor],
    sigmas: list[float],
    *,
    churn: float,
    churn_min: float = 0.0,
    churn_max: float = math.inf,
    churn_noise: float = 1.0,
) -> Tensor:
    x = sigmas[0] * next(noise)
    for at, to in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        gamma = min(churn / len(sigmas), math.sqrt(2) - 1) if churn_min <= at <= churn_max else 0.0
        raised = at + gamma * at
        if gamma > 0:
            x = x + math.sqrt(raised**2 - at**2) * churn_noise * next(noise)
        slope = (x - denoise(x, raised)) / raised
        moved = x + (to - raised) * slope
        if to > 0:
            moved = x + (to - raised) * 0.5 * (slope + (moved - denoise(moved, to)) / to)
        x = moved
    return x


@pytest.mark.parametrize("settings", CASES)
@pytest.mark.parametrize(
    ("family", "target", "sigma_data"), [("edm", "edm", 0.5), ("edm", "edm", 1.3), ("ve", "", 0.5)]
)
def test_heun_with_churn_is_algorithm_2(family: str, target: str, sigma_data: float, settings: dict[str, Any]) -> None:
    sampler = sampler_of(family, target or "negative_epsilon", sigma_data, **settings)
    sigmas = list(sampler.grid.timesteps)
    between = [s for s in sigmas if settings.get("churn_min", 0.0) <= s <= settings.get("churn_max", math.inf)]
    assert sampler.noise_count == 1 + len(between)
    assert sampler.network_evaluations() == 2 * STEPS - 1
    noise = draws(sampler.noise_count)
    expected = algorithm_2(denoised(family, sigma_data), iter(noise.unbind(1)), sigmas, **settings)
    torch.testing.assert_close(sampler(network, noise), expected, rtol=1e-9, atol=1e-9)


def test_churn_where_no_step_is_leaves_the_bits_alone() -> None:
    noise = draws(1)
    still = sampler_of(churn=5.0, churn_min=81.0)
    assert still.noise_count == 1
    torch.testing.assert_close(still(network, noise), sampler_of()(network, noise), rtol=0, atol=0)


def test_an_edit_adds_as_much_noise_to_a_step_as_a_whole_sample_does() -> None:
    sampler = sampler_of(churn=2.0)
    seen: list[float] = []

    def watch(x: Tensor, t: Tensor) -> Tensor:
        seen.append(math.exp(4 * float(t[0])))
        return network(x, t)

    sampler(watch, draws(9), start=draws(1)[:, 0], strength=3 / STEPS)
    assert seen[::2] == pytest.approx([(1 + 2.0 / STEPS) * sigma for sigma in sampler.grid.timesteps[-3:]], rel=1e-5)


@pytest.mark.parametrize(
    ("process", "settings", "sentence"),
    [
        (SigmaProcess(), {"sampler": "euler", "churn": 1.0}, r"churn=1.0 is of sampling.sampler=heun with .* of euler"),
        (FlowProcess(), {"churn": 1.0}, "churn=1.0 is of sampling.sampler=heun with diffusion.family=edm, vp or ve"),
        (vp_process("linear", 1000), {"churn": 1.0, "steps": 60}, "churn=1.0 is of sampling.sampler=heun"),
        (SigmaProcess(), {"churn": -1.0}, "sampling.churn=-1.0 must not be negative"),
        (SigmaProcess(), {"churn": 1.0, "churn_min": 3.0, "churn_max": 2.0}, "sampling.churn_min=3.0 must lie between"),
        (SigmaProcess(), {"churn": 1.0, "churn_noise": 0.0}, "sampling.churn_noise=0.0 must be positive"),
        (SigmaProcess(), {"churn_noise": 1.1}, "sampling.churn_noise=1.1 has no effect with sampling.churn=0"),
    ],
)
def test_settings_that_make_no_sense(process: Any, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        SamplingConfig(**{"sampler": "heun", **settings}).check(process)


def test_rates_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"rate=0\.5 must lie in"):
        Churn(0.5)
    assert Churn.of(1000.0, 10).rate == LARGEST


def test_another_sampler_leaves_churn_out_and_results_state_it() -> None:
    own = SamplingConfig("heun", 18, churn=40.0, churn_max=50.0, churn_noise=1.003)
    assert AskedSampling("ddim", 10).of_run(own)[0] == SamplingConfig("ddim", 10)
    assert AskedSampling(steps=256).of_run(own)[0].churn == 40.0
    assert own.distilled([80.0, 1.0]).churn == 0.0
    assert own.record()["churn_max"] == 50.0
    assert AskedSampling(churn=(30, 0.1)).of_run(own)[0] == SamplingConfig("heun", 18, churn=30, churn_min=0.1)
    assert AskedSampling(churn=(0,)).of_run(own)[0] == SamplingConfig("heun", 18)
    assert SamplingConfig("heun").record()["churn"] == 0.0
    assert not any("churn" in name for name in SamplingConfig().record())
