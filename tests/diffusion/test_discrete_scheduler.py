from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from support.tensors import generator, normal
from torch import Tensor

from policy_accel.diffusion.schedulers import KarhunenLoeveScheduler, MomentumScheduler

hub: Any = diffusers  # typed as placeholders that know no method
T = 60
SHAPE = (3, 2, 4, 4)
ZERO_SNR = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}


def network(x: Tensor, t: Any) -> Tensor:
    return 1.5 * torch.tanh(0.7 * x + 0.3 * x.roll(1, dims=1) + torch.sin(torch.as_tensor(t).float() / 17.0))


def loop(scheduler: Any, steps: int = 6, **more: Any) -> Tensor:
    scheduler.set_timesteps(steps)
    x = normal(*SHAPE)
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t), t, x, **more).prev_sample
    return x


@pytest.mark.parametrize(
    ("config", "call"),
    [
        ({"beta_schedule": "scaled_linear", "beta_start": 0.00085}, {}),
        ({"steps_offset": 1, "set_alpha_to_one": False}, {}),
        ({"trained_betas": [0.01 + 0.002 * i for i in range(T)]}, {}),
        ({"thresholding": True, "sample_max_value": 1.5, "dynamic_thresholding_ratio": 0.7}, {}),
        ({"thresholding": True, "sample_max_value": 0.5}, {"use_clipped_model_output": True}),
        ({"clip_sample_range": 0.5}, {"use_clipped_model_output": True}),
        ({}, {"eta": 0.6}),
        ({"set_alpha_to_one": False, "prediction_type": "sample"}, {"eta": 1.0}),
        ({}, {"eta": 1.0, "variance_noise": normal(*SHAPE, seed=3)}),
        (ZERO_SNR, {}),
        (ZERO_SNR, {"eta": 1.0}),
    ],
)
def test_equals_diffusers_ddim(config: dict[str, Any], call: dict[str, Any]) -> None:
    def sampled(make: Callable[..., Any]) -> Tensor:
        drawn = {"generator": generator(1)} if "variance_noise" not in call else {}
        return loop(make(num_train_timesteps=T, beta_end=0.1, **config), **call, **drawn)

    expected = sampled(hub.DDIMScheduler)
    assert float((expected - loop(hub.DDIMScheduler(T, beta_end=0.1))).abs().max()) > 1e-2
    # The reference's table is float32.
    torch.testing.assert_close(sampled(KarhunenLoeveScheduler), expected, rtol=1e-4, atol=1e-4)


def test_a_time_off_the_grid_leads_as_far_as_in_ddim() -> None:
    ours, theirs = KarhunenLoeveScheduler(T), hub.DDIMScheduler(T)
    for one in (ours, theirs):
        one.set_timesteps(6)
    x = normal(*SHAPE)
    for t in (55, 7, 33.0, torch.tensor(1), 50, torch.tensor([40])):
        whole = int(t)
        there = theirs.step(network(x, whole), whole, x)
        torch.testing.assert_close(
            ours.step(network(x, whole), t, x).prev_sample, there.prev_sample, rtol=1e-4, atol=1e-5
        )
    # The loop goes on where it was asked to.
    ours.step(x, 50, x)
    assert ours.step_index == 1
    assert torch.equal(ours.step(x, 7, x).prev_sample, ours.step(x, 7, x).prev_sample)
    assert ours.step_index is None


def test_before_set_timesteps_a_loop_goes_through_those_of_training() -> None:
    fresh, whole = MomentumScheduler(T), MomentumScheduler(T)
    whole.set_timesteps(T)
    x = y = normal(*SHAPE)
    for t in fresh.timesteps:
        batch = t.expand(len(x))
        assert torch.equal(fresh.scale_model_input(x, batch), fresh.scale_model_input(x, t))
        x = fresh.step(network(fresh.scale_model_input(x, t), t), t, x).prev_sample
        y = whole.step(network(whole.scale_model_input(y, t), t), t, y).prev_sample
    assert torch.equal(x, y)


@pytest.mark.parametrize("given", [[50, 31, 30, 4], torch.tensor([50, 31, 30, 4])])
def test_timesteps_of_ones_own(given: Any) -> None:
    """Steps lead from each to the next, as with the library's own list of the same times."""
    ours = KarhunenLoeveScheduler(T, clip_sample=False)
    ours.set_timesteps(timesteps=given)
    assert ours.timesteps.tolist() == [50, 31, 30, 4]
    assert ours.num_inference_steps == 4
    theirs = hub.DDPMScheduler(T, clip_sample=False)
    theirs.set_timesteps(timesteps=[50, 31, 30, 4])
    # The mean of DDPM's step is DDIM's with eta = 1 and no noise.
    x, none = normal(*SHAPE), torch.zeros(SHAPE)
    for t in ours.timesteps[:-1]:
        mean = ours.step(network(x, t), t, x, eta=1.0, variance_noise=none).prev_sample
        draws = theirs.step(network(x, t), t, x, generator=generator(2)).prev_sample
        noise = torch.randn(SHAPE, generator=generator(2))
        following = int(theirs.previous_timestep(t))
        torch.testing.assert_close(
            mean + ours._get_variance(int(t), following).sqrt() * noise, draws, rtol=1e-4, atol=1e-4
        )
        x = mean


def test_what_others_read_is_the_librarys() -> None:
    for config in ({}, {"set_alpha_to_one": False}, {"rescale_betas_zero_snr": True}):
        ours, theirs = KarhunenLoeveScheduler(T, **config), hub.DDIMScheduler(T, **config)
        for name in ("betas", "alphas", "alphas_cumprod", "final_alpha_cumprod"):
            torch.testing.assert_close(getattr(ours, name).float(), getattr(theirs, name), rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(ours._get_variance(40, 30), theirs._get_variance(40, 30), rtol=1e-3, atol=1e-6)


def test_momentum_takes_the_same_arguments() -> None:
    """Its state is that of the base process, so a network that is given the same input makes the same sample."""
    for config in ({"beta_schedule": "scaled_linear"}, {"trained_betas": [0.02] * T}, {"steps_offset": 3}):
        base, momentum = KarhunenLoeveScheduler(T, **config), MomentumScheduler(T, kind="one", **config)
        for one in (base, momentum):
            one.set_timesteps(5)
        x = y = normal(*SHAPE)
        for t in base.timesteps:
            x = base.step(network(x, t), t, x).prev_sample
            alpha = float(momentum.alphas_cumprod[t].sqrt())
            y = momentum.step(network(alpha * momentum.scale_model_input(y, t), t), t, y).prev_sample
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)
    flat = MomentumScheduler(T, rescale_betas_zero_snr=True)
    assert float(flat.alphas_cumprod[-1]) == pytest.approx(2.0**-24)
    assert bool(flat.scale_model_input(torch.ones(T), torch.arange(T)).isfinite().all())


@pytest.mark.parametrize("make", [KarhunenLoeveScheduler, MomentumScheduler])
def test_given_betas_are_kept(make: Callable[..., Any], tmp_path: Path) -> None:
    betas = torch.linspace(0.1, 0.3, 3).numpy()
    scheduler = make(trained_betas=betas)
    assert len(scheduler) == scheduler.config.num_train_timesteps == 3
    torch.testing.assert_close(scheduler.betas, torch.tensor(betas).double())
    scheduler.save_pretrained(tmp_path)
    for loaded in (make.from_pretrained(tmp_path), make.from_config(scheduler.config)):  # type: ignore[attr-defined]
        assert torch.equal(loaded.betas, scheduler.betas)
        assert len(loaded) == 3


def test_compatibles_are_the_same_process() -> None:
    scheduler = KarhunenLoeveScheduler(T, marginal="vp_equivalent", modes=3, steps_offset=1)
    names = {one.__name__ for one in scheduler.compatibles}
    assert {"KarhunenLoeveScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler"} <= names
    assert "EDMEulerScheduler" not in names
    other = hub.DPMSolverMultistepScheduler.from_config(scheduler.config)
    torch.testing.assert_close(other.alphas_cumprod, scheduler.alphas_cumprod.float(), rtol=2e-4, atol=1e-7)
    back = KarhunenLoeveScheduler.from_config(other.config)
    assert {name: back.config[name] for name in scheduler.config} == dict(scheduler.config)
    assert [one.__name__ for one in MomentumScheduler(T).compatibles] == ["MomentumScheduler"]


def test_in_a_loop_of_stable_diffusion() -> None:
    """Guided, from the middle, with the arguments that it finds in the signatures."""
    scheduler = MomentumScheduler(T, beta_schedule="scaled_linear", set_alpha_to_one=False, steps_offset=1)
    expected = None
    for eta in (0.0, 0.5):
        assert "timesteps" in inspect.signature(scheduler.set_timesteps).parameters
        scheduler.set_timesteps(timesteps=[51, 36, 21, 9, 1], device="cpu")
        times = scheduler.timesteps
        scheduler.set_begin_index(1)
        x = scheduler.add_noise(0.5 * normal(*SHAPE), normal(*SHAPE, seed=1), times[1:2].repeat(3))
        known = inspect.signature(scheduler.step).parameters
        extra = {"eta": eta, "generator": [torch.Generator().manual_seed(i) for i in range(3)]}
        for t in times[1:]:
            twice = scheduler.scale_model_input(torch.cat([x, x]), t)
            plain, guided = network(twice, t).chunk(2)
            given = {name: value for name, value in extra.items() if name in known}
            x = scheduler.step(plain + 2 * (guided - plain), t, x, **given, return_dict=False)[0]
        assert scheduler.step_index is None
        assert x.shape == SHAPE
        assert expected is None or float((x - expected).abs().max()) > 1e-3
        expected = x


def test_a_step_is_compiled_whole() -> None:
    """What diffusers' DDIM can do as well."""
    scheduler = KarhunenLoeveScheduler(T)
    scheduler.set_timesteps(4)
    step = torch.compile(scheduler.step, backend="eager", fullgraph=True)
    x = normal(*SHAPE)
    for t in (45, 30, 7):
        moved, x0 = step(network(x, t), t, x, return_dict=False)
        expected = scheduler.step(network(x, t), t, x)
        torch.testing.assert_close(moved, expected.prev_sample)
        torch.testing.assert_close(x0, expected.pred_original_sample)
