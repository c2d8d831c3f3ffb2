"""A sampler by its settings: its grid, its bound, its draws; and the settings that are refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.gaussian_data import OBJECTIVES, PROCESS, Exact, sampler_of, standard
from torch import Tensor

from policy_accel.diffusion import Objective, Sampler
from policy_accel.diffusion.config import SamplingConfig
from policy_accel.diffusion.grid import timestep_grid
from policy_accel.diffusion.samplers import DETERMINISTIC_SAMPLERS, SAMPLERS, Predictor, ddpm
from policy_accel.errors import UserError


@pytest.mark.parametrize("kind", SAMPLERS)
def test_draws_may_come_one_by_one(kind: str) -> None:
    sampler = sampler_of("edm", kind, 4)
    noise = standard(3, sampler.noise_count, 4)
    drawn = []

    def draws() -> object:
        for i in range(sampler.noise_count):
            drawn.append(i)
            yield noise[:, i]

    streamed = sampler(Exact(sampler), draws())
    assert torch.equal(streamed, sampler(Exact(sampler), noise))
    assert len(drawn) == (4 if kind == "ddpm" else 1)  # the last step adds none


@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_sampler_is_its_function_with_the_objective_and_the_settings(kind: str) -> None:
    """Grid, target, bound and scale reach the function; x_T is its start."""
    objective = Objective(PROCESS, "epsilon", data_scale=0.5)
    sampler = Sampler(objective, SamplingConfig(kind, 60, "leading", clip_sample=0.3))
    noise = standard(3, sampler.noise_count, 4)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return (3.0 * x).sin()

    function: Callable[..., Tensor] = {"ddpm": ddpm, **DETERMINISTIC_SAMPLERS}[kind]
    fresh = {"noise": noise.unbind(1)[1:]} if kind == "ddpm" else {}
    grid = timestep_grid(100, 60, "leading")
    expected = function(Predictor(denoise, target="epsilon", clip=0.15), noise[:, 0], PROCESS, grid, **fresh) / 0.5
    result = sampler(denoise, noise)
    assert torch.equal(result, expected)
    free = replace(sampler, config=replace(sampler.config, clip_sample=None))
    assert not torch.equal(free(denoise, noise), result)


@pytest.mark.parametrize(
    ("objective", "settings", "sentence"),
    [
        ("ddpm", {"sampler": "dimm"}, r"sampling.sampler 'dimm' is unknown; did you mean 'ddim'"),
        ("ddpm", {"steps": 101}, r"sampling.steps=101 must lie between 1 and diffusion.timesteps=100"),
        ("ddpm", {"spacing": "even"}, r"sampling.spacing 'even' is unknown"),
        ("ddpm", {"clip_sample": 0.0}, r"sampling.clip_sample=0.0 must be positive, or null"),
        ("ddpm", {"sampler": "heun", "steps": 8}, r"sampling.sampler=heun averages slopes"),
        ("edm", {"steps": 0}, r"sampling.steps=0 must be at least 1"),
        ("flow", {"spacing": "leading"}, r"sampling.spacing=leading has no effect in continuous time"),
        ("ddpm", {"times": []}, r"sampling.times=\[\] must name at least one"),
        ("ddpm", {"times": [100, 25]}, r"sampling.times=\[100, 25\]: 100 must be an integer from 0 to 99"),
        ("ddpm", {"times": [99, 24.5]}, r"sampling.times=.*: 24.5 must be an integer from 0 to 99"),
        ("ddpm", {"times": [99, -1]}, r"sampling.times=.*: -1 must be an integer"),
        ("edm", {"times": [81.0]}, r"sampling.times=.*: 81.0 must be from 0.002 to 80"),
        ("flow", {"times": [1, 0]}, r"sampling.times=.*: 0 must be from above 0 to 1"),
        ("flow", {"times": [math.nan]}, r"sampling.times=.*: nan must be from above 0 to 1"),
        ("ddpm", {"times": [99, 25, 50]}, r"sampling.times=\[99, 25, 50\] goes from 25 to 50, .*ddpm does, not ddim"),
        ("flow", {"times": [1.0, 1.0]}, r"sampling.times=.* goes from 1.0 to 1.0, .*ddpm does, not ddim"),
        ("ddpm", {"times": [99, 25], "sampler": "heun"}, r"at least 50 steps there, not 2; choose ddim"),
    ],
)
def test_wrong_settings_are_refused_when_a_sampler_is_made(
    objective: str, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        Sampler(OBJECTIVES[objective], SamplingConfig(**settings))


def test_a_sampler_keeps_the_settings_that_it_was_made_with() -> None:
    settings = SamplingConfig("ddpm", 4)
    sampler = Sampler(OBJECTIVES["ddpm"], settings)
    settings.steps = 400
    assert len(sampler.grid.timesteps) == 4
    assert sampler.noise_count == 5
    settings = SamplingConfig("ddpm", times=[99, 25])
    sampler = Sampler(OBJECTIVES["ddpm"], settings)
    assert settings.times is not None
    settings.times.append(5)
    assert sampler.grid.timesteps == (99, 25)
