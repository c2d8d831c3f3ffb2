"""Schedulers sample and noise as our own samplers and processes do, and come back from a file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from support.schedulers import (
    KL_KINDS,
    MOMENTUM_KINDS,
    SHAPE,
    SIGMA_KINDS,
    TARGET,
    T,
    diffusers_loop,
    discrete,
    network,
)
from support.tensors import generator, normal

from policy_accel.diffusion import SigmaProcess, ddim, euler, heun, make_noised, timestep_grid, vp_process
from policy_accel.diffusion.momentum import momentum_scale
from policy_accel.diffusion.samplers import Predictor, start_scale
from policy_accel.diffusion.schedulers import KarhunenLoeveScheduler, MomentumEDMScheduler, MomentumScheduler

hub: Any = diffusers  # typed as placeholders that know no method


def public(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if not name.startswith("_")}


@pytest.mark.parametrize("options", [*KL_KINDS, *MOMENTUM_KINDS])
@pytest.mark.parametrize("prediction_type", TARGET)
@pytest.mark.parametrize("clip", [None, 1.0, 0.5])
def test_discrete_loop_equals_our_ddim(options: dict[str, Any], prediction_type: str, clip: float | None) -> None:
    for spacing, steps in (("leading", 7), ("trailing", 10), ("linspace", 6), ("trailing", 1)):
        scheduler, process = discrete(
            options,
            prediction_type=prediction_type,
            clip_sample=clip is not None,
            clip_sample_range=clip or 1.0,
            timestep_spacing=spacing,
        )
        scheduler.set_timesteps(steps)
        grid = timestep_grid(T, steps, spacing)
        assert scheduler.timesteps.tolist() == list(grid.timesteps)
        assert scheduler.init_noise_sigma == start_scale(process, grid)
        x = scheduler.init_noise_sigma * normal(*SHAPE)
        expected = ddim(Predictor(network, target=TARGET[prediction_type], clip=clip), x, process, grid)
        torch.testing.assert_close(diffusers_loop(scheduler, x), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("options", SIGMA_KINDS)
@pytest.mark.parametrize("solver", ["heun", "euler"])
def test_sigma_loop_equals_our_samplers(options: dict[str, Any], solver: str) -> None:
    sampler = heun if solver == "heun" else euler
    process = SigmaProcess(**options)
    for prediction_type, clip, steps in ((None, None, 4), (None, 0.4, 3), ("sample", 0.4, 2), ("epsilon", None, 1)):
        scheduler = MomentumEDMScheduler(
            **options,
            solver=solver,
            prediction_type=prediction_type,
            clip_sample=clip is not None,
            clip_sample_range=clip or 1.0,
        )
        scheduler.set_timesteps(steps)
        grid = process.grid(steps)
        assert len(scheduler.timesteps) == (2 * steps - 1 if solver == "heun" else steps)
        assert scheduler.timesteps.dtype == torch.float32
        assert scheduler.order == (2 if solver == "heun" else 1)
        assert scheduler.init_noise_sigma == pytest.approx(80.0)
        x = scheduler.init_noise_sigma * normal(*SHAPE)
        predict = Predictor(network, prediction_type or process.targets[0], clip)
        expected = sampler(predict, x, process, grid)
        # The state is a hundred times the data.
        torch.testing.assert_close(diffusers_loop(scheduler, x), expected, rtol=2e-5, atol=1e-4)


def test_momentum_scales_the_input_by_hand() -> None:
    """EDM-FDM at sigma = 40: position 39.998 / 79.998, the network's input is (1 + 2 B) exp(-2 B) x."""
    scheduler = MomentumEDMScheduler(multiplier=2.0)
    x = normal(*SHAPE)
    sigma = torch.full((SHAPE[0],), 40.0, dtype=torch.float64)
    position = 39.998 / 79.998
    u = 2.0 * (0.1 * position + 9.95 * position**2)
    told = sigma.log() / 4.0
    torch.testing.assert_close(scheduler.scale_model_input(x, told), (1 + u) * math.exp(-u) * x)

    discrete_scheduler, _ = discrete({"kind": "natural"})
    log_decay = -vp_process("squaredcos_cap_v2", T).alphas[20].square().log()
    scale = momentum_scale(log_decay, 1.0) * (0.5 * log_decay).exp()
    told = torch.full((SHAPE[0],), 20)
    torch.testing.assert_close(discrete_scheduler.scale_model_input(x, told), float(scale) * x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", [*KL_KINDS, *MOMENTUM_KINDS])
@pytest.mark.parametrize("prediction_type", TARGET)
def test_discrete_training_equals_our_noising(
    options: dict[str, Any], prediction_type: str, dtype: torch.dtype
) -> None:
    scheduler, process = discrete(options, prediction_type=prediction_type)
    x0, noise = normal(T, 8, 2, seed=1).to(dtype), normal(T, 8, 2, seed=2).to(dtype)
    t = torch.arange(T)
    noised = make_noised(process, x0, noise, t, TARGET[prediction_type])
    x_t = scheduler.add_noise(x0, noise, t)
    assert torch.equal(x_t, noised.x_t)
    assert torch.equal(scheduler.scale_model_input(x_t, t), noised.model_input)
    target = {"epsilon": noise, "sample": x0, "v_prediction": scheduler.get_velocity(x0, noise, t)}
    assert torch.equal(target[prediction_type], noised.target)


@pytest.mark.parametrize("options", SIGMA_KINDS)
def test_sigma_training_equals_our_noising(options: dict[str, Any]) -> None:
    scheduler, process = MomentumEDMScheduler(**options), SigmaProcess(**options)
    t = scheduler.draw_timesteps((64,), generator(5))
    drawn = process.draw_times((64,), generator(5), "cpu")
    sigma = scheduler.sigma_of(t)
    torch.testing.assert_close(sigma, drawn, rtol=1e-5, atol=0.0)
    exact = scheduler.sigma_of(process.c_noise(drawn))
    torch.testing.assert_close(exact, drawn, rtol=1e-11, atol=0.0)
    x0, noise = normal(64, 8, 2, seed=1), normal(64, 8, 2, seed=2)
    noised = make_noised(process, x0, noise, sigma, process.targets[0])
    x_t = scheduler.add_noise(x0, noise, t)
    assert torch.equal(t, noised.t)
    assert torch.equal(x_t, noised.x_t)
    assert torch.equal(x_t, x0 + sigma.float().view(-1, 1, 1) * noise)
    assert torch.equal(scheduler.scale_model_input(x_t, t), noised.model_input)
    assert torch.equal(scheduler.get_target(x0, noise, t), noised.target)


def test_an_exact_prediction_gives_the_clean_sample() -> None:
    """add_noise, the target and step agree with each other for every family."""
    x0, noise = 0.5 * normal(*SHAPE, seed=1), normal(*SHAPE, seed=2)
    for options in SIGMA_KINDS:
        scheduler = MomentumEDMScheduler(**options, solver="euler")
        scheduler.set_timesteps(4)
        for t in scheduler.timesteps[1:]:
            x_t = scheduler.add_noise(x0, noise, t[None])
            scheduler.scale_model_input(x_t, t)
            output = scheduler.step(scheduler.get_target(x0, noise, t[None]), t, x_t)
            torch.testing.assert_close(output.pred_original_sample, x0, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(output.prev_sample, x0, rtol=1e-4, atol=1e-4)


def test_path_noise_is_that_of_the_process() -> None:
    scheduler, process = discrete({"modes": 4})
    t = torch.randint(T, (5, 3), generator=generator())
    ours = process.draw_path_noise((5, 8, 2), t, generator(1))
    noise = scheduler.path_noise((5, 8, 2), t, generator(1))
    assert torch.equal(noise, ours)
    same_time = scheduler.path_noise((5, 8, 2), t[:, :1].expand(5, 3), generator(1))
    torch.testing.assert_close(same_time[:, 0], same_time[:, 1], rtol=0.0, atol=1e-3)
    assert float((noise[:, 0] - noise[:, 1]).abs().max()) > 0.1


@pytest.mark.parametrize(
    "scheduler",
    [
        KarhunenLoeveScheduler(num_train_timesteps=T),
        KarhunenLoeveScheduler(
            T, beta_schedule="squaredcos_cap_v2", modes=3, marginal="vp_equivalent", timestep_spacing="trailing"
        ),
        KarhunenLoeveScheduler(T, beta_end=0.2, modes=2, marginal="raw", clock="variance", clip_sample=False),
        MomentumScheduler(T, kind="natural", strength=2.0, prediction_type="v_prediction", clip_sample_range=2.0),
        MomentumEDMScheduler("vp", "momentum", 2.0, solver="euler", clip_sample=True),
        MomentumEDMScheduler(),
    ],
)
def test_saved_and_loaded(scheduler: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scheduler.save_pretrained(tmp_path)
    loaded = type(scheduler).from_pretrained(tmp_path)
    assert "ignored" not in caplog.text
    assert public(loaded.config) == public(scheduler.config)
    assert len(loaded) == len(scheduler) == loaded.config.num_train_timesteps
    for one in (scheduler, loaded):
        one.set_timesteps(4)
    x = scheduler.init_noise_sigma * normal(*SHAPE)
    assert torch.equal(diffusers_loop(loaded, x), diffusers_loop(scheduler, x))
    again = type(scheduler).from_config(loaded.config)
    assert public(again.config) == public(scheduler.config)
