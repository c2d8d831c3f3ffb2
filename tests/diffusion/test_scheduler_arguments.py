"""Options and calls of schedulers that make no sense are named."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.schedulers import SHAPE, T, discrete
from support.tensors import normal

from policy_accel.diffusion.schedulers import KarhunenLoeveScheduler, MomentumEDMScheduler, MomentumScheduler


@pytest.mark.parametrize(
    ("make", "options", "sentence"),
    [
        (KarhunenLoeveScheduler, {"beta_schedule": "scaled"}, "beta_schedule 'scaled' is unknown; did"),
        (
            KarhunenLoeveScheduler,
            {"prediction_type": "v"},
            "prediction_type 'v' is unknown; known are: epsilon, sample",
        ),
        (KarhunenLoeveScheduler, {"timestep_spacing": "trail"}, "timestep_spacing 'trail' .* did you mean 'trailing'"),
        (KarhunenLoeveScheduler, {"marginal": "match"}, "marginal 'match' is unknown; did you mean 'matched'"),
        (KarhunenLoeveScheduler, {"clock": "tim"}, "clock 'tim' is unknown; did you mean 'time'"),
        (KarhunenLoeveScheduler, {"modes": 0}, "modes=0 must be an integer"),
        (KarhunenLoeveScheduler, {"num_train_timesteps": 0}, "num_train_timesteps=0 must be an integer of at least 1"),
        (KarhunenLoeveScheduler, {"num_train_timesteps": 3.5}, r"num_train_timesteps=3\.5 must be an integer"),
        (KarhunenLoeveScheduler, {"clip_sample_range": 0.0}, r"clip_sample_range=0\.0 must be positive"),
        (
            KarhunenLoeveScheduler,
            {"trained_betas": [0.1] * 1000, "marginal": "vp_equivalent"},
            "trained_betas are not those of the other options",
        ),
        (KarhunenLoeveScheduler, {"trained_betas": [0.1, 1.5]}, "trained_betas: number 1 is 1.5, which must lie"),
        (KarhunenLoeveScheduler, {"trained_betas": [1.0, 0.1]}, "trained_betas: number 0 is 1, which must lie"),
        (KarhunenLoeveScheduler, {"trained_betas": 0.1}, "trained_betas: it must be a list of numbers"),
        (KarhunenLoeveScheduler, {"steps_offset": -1}, "steps_offset=-1 must be an integer of at least 0"),
        (
            MomentumScheduler,
            {"thresholding": True, "dynamic_thresholding_ratio": 1.5},
            "dynamic_thresholding_ratio=1.5",
        ),
        (MomentumScheduler, {"thresholding": True, "sample_max_value": 0.0}, "sample_max_value=0.0 must be positive"),
        (
            MomentumScheduler,
            {"rescale_betas_zero_snr": True, "num_train_timesteps": 1},
            "alpha_bar must have 2 values or more to end at 0, not 1",
        ),
        (MomentumEDMScheduler, {"sigma_min": 90.0}, "sigma_min=90.0 and sigma_max=80.0 must satisfy"),
        (MomentumEDMScheduler, {"rho": 0.0}, "rho=0.0 must be positive"),
        (MomentumScheduler, {"kind": "nat"}, "kind 'nat' is unknown; did you mean 'natural'"),
        (MomentumScheduler, {"strength": -1.0}, r"strength=-1\.0 must be finite and at least 0"),
        (MomentumScheduler, {"beta_end": 2.0}, r"beta_end=2\.0 must satisfy"),
        (MomentumEDMScheduler, {"family": "edn"}, "family 'edn' is unknown; did you mean 'edm'"),
        (MomentumEDMScheduler, {"input_scale": "bas"}, "input_scale 'bas' is unknown; did you mean 'base'"),
        (MomentumEDMScheduler, {"solver": "huen"}, "solver 'huen' is unknown; did you mean 'heun'"),
        (
            MomentumEDMScheduler,
            {"prediction_type": "v"},
            "prediction_type 'v' is unknown; known are: edm, epsilon, neg",
        ),
        (MomentumEDMScheduler, {"num_train_timesteps": 0}, "num_train_timesteps=0 must be"),
        (MomentumEDMScheduler, {"multiplier": math.nan}, "multiplier=nan must be finite and at least 0"),
    ],
)
def test_bad_options(make: Callable[..., Any], options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make(**options)


def test_bad_calls() -> None:
    scheduler, _ = discrete({"modes": 4})
    x = normal(*SHAPE)
    for arguments, sentence in (
        ({"num_inference_steps": 0}, "num_inference_steps=0 must"),
        ({"num_inference_steps": T + 1}, "num_inference_steps=51 is more than"),
        ({}, "num_inference_steps, timesteps: give one of them, not none"),
        ({"num_inference_steps": 2, "timesteps": [3]}, "not num_inference_steps and timesteps"),
        ({"timesteps": []}, "timesteps=.. must be finite numbers"),
        ({"timesteps": [4, 9]}, "timesteps: 9 follows 4; each must be below"),
        ({"timesteps": [T, 9]}, "timesteps: 50 must be an integer from 0 to 49"),
        ({"timesteps": [9.5]}, "timesteps: 9.5 must be an integer"),
    ):
        with pytest.raises(ValueError, match=sentence):
            scheduler.set_timesteps(**arguments)
    with pytest.raises(ValueError, match=r"timesteps: 50 \(steps_offset=1\) must be an integer from 0 to 49"):
        discrete({"modes": 4}, steps_offset=1)[0].set_timesteps(T)
    scheduler.set_timesteps(5)
    for timestep in (T, -1, 3.5, math.nan):
        with pytest.raises(ValueError, match="must be an integer from 0 to 49"):
            scheduler.step(x, timestep, x)
    with pytest.raises(ValueError, match="timestep=None must be a number"):
        scheduler.step(x, None, x)
    with pytest.raises(ValueError, match=r"not a tensor of \(3,\)"):
        scheduler.step(x, torch.tensor([10, 10, 10]), x)
    with pytest.raises(ValueError, match=r"eta=1.5 must lie between 0 and 1"):
        scheduler.step(x, 10, x, eta=1.5)
    with pytest.raises(ValueError, match="generator and variance_noise: give one of them"):
        scheduler.step(x, 10, x, eta=1.0, generator=torch.Generator(), variance_noise=x)
    flat, _ = discrete({"modes": 4}, rescale_betas_zero_snr=True, timestep_spacing="trailing")
    flat.set_timesteps(2)
    with pytest.raises(ValueError, match="prediction_type=epsilon says nothing of a sample of pure noise"):
        flat.step(x, T - 1, x)
    edm = MomentumEDMScheduler()
    for arguments, sentence in (
        ({"sigmas": [1.0], "timesteps": [0.1]}, "not sigmas and timesteps"),
        ({"sigmas": [0.0]}, "sigmas: the last one has sigma=0, which must be above 0"),
        ({"timesteps": [9.0, 0.1]}, "timestep=9 stands for sigma=4.3.* which is not from 0 to 80; pass those"),
    ):
        with pytest.raises(ValueError, match=sentence):
            edm.set_timesteps(**arguments)
    edm.set_timesteps(3)
    edm.set_begin_index(1)
    edm.scale_model_input(x, edm.timesteps[1])
    with pytest.raises(ValueError, match="is the second half of a step of heun"):
        edm.step(x, edm.timesteps[1], x)
