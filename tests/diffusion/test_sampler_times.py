"""A sampler at chosen times, also back up to a noisier one."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from support.gaussian_data import CASES, DEVIATION, MEAN, OBJECTIVES, PROCESS, Exact, of_times, sampler_of, standard
from torch import Tensor

from policy_accel.diffusion import Objective, Sampler
from policy_accel.diffusion.config import SamplingConfig

TIMES = {
    "ddpm": (99, 60, 20),
    "edm": (80.0, 2.0, 0.3),
    "vp": (80.0, 2.0, 0.3),
    "ve": (80.0, 2.0, 0.3),
    "flow": (1.0, 0.6, 0.2),
}


@pytest.mark.parametrize(("name", "kind"), [case for case in CASES if case[0] in TIMES])
def test_times_take_the_place_of_steps_and_spacing(name: str, kind: str) -> None:
    sampler = of_times(name, kind, *TIMES[name])
    denoise = Exact(sampler)
    noise = standard(2, sampler.noise_count, 4)
    result = sampler(denoise, noise)
    asked = [sampler.objective.process.level(t) for t in TIMES[name]]
    seen = [level for _, level in denoise.seen]
    expected = [asked[0], *(level for level in asked[1:] for _ in range(2))] if kind == "heun" else asked
    assert seen == expected
    assert sampler.network_evaluations() == len(seen)
    assert sampler.noise_count == (4 if kind == "ddpm" else 1)
    assert sampler.network_evaluations(0.34) == 1
    same = replace(sampler, config=replace(sampler.config, steps=50, spacing="trailing"))
    assert torch.equal(same(Exact(same), noise), result)


def test_the_times_of_an_even_grid_are_that_grid() -> None:
    even = sampler_of("ddpm", "dpm_solver++", 8)
    own = of_times("ddpm", "dpm_solver++", *even.grid.timesteps)
    assert own.grid == even.grid
    noise = standard(3, 1, 4)
    assert torch.equal(own(Exact(own), noise), even(Exact(even), noise))
    assert own.config.with_steps(8) == even.config


def test_two_evaluations_at_chosen_times_by_hand() -> None:
    """x_99 is noise; x_25 keeps the noise that was seen in it (Song et al. 2021, equation 12)."""
    sampler = Sampler(Objective(PROCESS, "sample"), SamplingConfig("ddim", times=[99, 25], clip_sample=None))
    noise = standard(3, 1, 4)
    at = {t: (float(PROCESS.alphas[t]), float(PROCESS.sigmas[t])) for t in (99, 25)}
    x0 = (2.0 * noise[:, 0]).sin()
    epsilon = (noise[:, 0] - at[99][0] * x0) / at[99][1]
    expected = (2.0 * (at[25][0] * x0 + at[25][1] * epsilon)).sin()
    torch.testing.assert_close(sampler(lambda x, t: (2.0 * x).sin(), noise), expected)


def test_a_restart_adds_noise_anew_to_the_clean_sample() -> None:
    """By hand for 99, 25 and up to 50: what is seen at 50 is alpha x0 + sigma epsilon of the prediction at 25, and the
    step from 25 draws nothing else."""
    sampler = Sampler(Objective(PROCESS, "sample"), SamplingConfig("ddpm", times=[99, 25, 50], clip_sample=None))
    assert sampler.grid.next_timesteps == (25, -1, -1)
    assert sampler.network_evaluations() == 3
    seen: list[Tensor] = []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        seen.append(x)
        return (2.0 * x).sin()

    noise = standard(3, sampler.noise_count, 4)
    result = sampler(denoise, noise)
    x0 = (2.0 * seen[1]).sin()
    torch.testing.assert_close(seen[2], PROCESS.alphas[50] * x0 + PROCESS.sigmas[50] * noise[:, 2])
    torch.testing.assert_close(result, (2.0 * seen[2]).sin())


@pytest.mark.parametrize("name", ["ddpm", "edm", "flow"])
def test_restarts_leave_the_distribution(name: str) -> None:
    """Down to the clean sample, up to a middle level and down again, 100 and 60 steps."""
    first = OBJECTIVES[name].process.grid(100).timesteps
    sampler = of_times(name, "ddpm", *first, *first[40:])
    generator = torch.Generator().manual_seed(0)
    noise = (torch.randn(4000, 1, dtype=torch.float64, generator=generator) for _ in itertools.count())
    drawn = sampler(Exact(sampler), noise)
    assert float(drawn.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(drawn.std()) == pytest.approx(DEVIATION, rel=0.12)


def test_a_result_states_how_many_steps_times_are() -> None:
    config = SamplingConfig("ddpm", times=[99, 25])
    assert config.record() == {
        "sampler": "ddpm",
        "steps": 2,
        "spacing": None,
        "times": [99, 25],
        "clip_sample": 1.0,
    }
    assert SamplingConfig().record() == {
        "sampler": "ddim",
        "steps": 8,
        "spacing": "trailing",
        "times": None,
        "clip_sample": 1.0,
    }
