from __future__ import annotations

import copy
import importlib.util
import logging
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.training_utils import compute_snr
from torch import Tensor

from policy_accel.diffusion import (
    SigmaProcess,
    ddim,
    euler,
    heun,
    karhunen_loeve_process,
    make_noised,
    momentum_process,
    scheduler_base,
    timestep_grid,
    vp_process,
)
from policy_accel.diffusion.momentum import momentum_scale
from policy_accel.diffusion.predictions import predicted_sample
from policy_accel.diffusion.processes import Level
from policy_accel.diffusion.samplers import Predictor, start_scale
from policy_accel.diffusion.schedulers import KarhunenLoeveScheduler, MomentumEDMScheduler, MomentumScheduler
from policy_accel.extras import to_install

hub: Any = diffusers  # typed as placeholders that know no method
T = 50
SHAPE = (3, 8, 2)
TARGET = {"epsilon": "epsilon", "sample": "sample", "v_prediction": "v"}
KL_KINDS: list[dict[str, Any]] = [
    {"modes": 4},
    {"modes": 3, "marginal": "vp_equivalent"},
    {"modes": 2, "marginal": "vp_equivalent", "clock": "variance"},
    {"modes": 3, "marginal": "raw"},
]
MOMENTUM_KINDS: list[dict[str, Any]] = [
    {"kind": "natural"},
    {"kind": "natural", "strength": 2.0},
    {"kind": "sigma"},
    {"kind": "schedule", "strength": 0.5},
    {"kind": "one"},
]
SIGMA_KINDS: list[dict[str, Any]] = [
    {"family": family, "input_scale": scale, "multiplier": 2.0}
    for family in ("edm", "vp", "ve")
    for scale in ("base", "momentum", "one")
]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(x: Tensor, t: Tensor | float) -> Tensor:
    """A smooth stand-in for a denoiser that depends on every input."""
    times = torch.as_tensor(t, device=x.device).float().expand(len(x)).view(-1, 1, 1)
    return torch.tanh(0.7 * x + 0.3 * x.roll(1, dims=1) + torch.sin(times / 17.0))


def diffusers_loop(scheduler: Any, x: Tensor, model: Callable[..., Tensor] = network) -> Tensor:
    for t in scheduler.timesteps:
        x = scheduler.step(model(scheduler.scale_model_input(x, t), t), t, x).prev_sample
    return x


def discrete(options: dict[str, Any], **more: Any) -> tuple[Any, Any]:
    """A scheduler and, built apart from it, its process."""
    common = {"num_train_timesteps": T, "beta_schedule": more.pop("beta_schedule", "squaredcos_cap_v2")}
    base = vp_process(common["beta_schedule"], T)
    if "modes" in options:
        return KarhunenLoeveScheduler(**common, **options, **more), karhunen_loeve_process(base, **options)
    return MomentumScheduler(**common, **options, **more), momentum_process(base, **options)


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
        x = scheduler.init_noise_sigma * randn(*SHAPE)
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
        x = scheduler.init_noise_sigma * randn(*SHAPE)
        predict = Predictor(network, prediction_type or process.targets[0], clip)
        expected = sampler(predict, x, process, grid)
        # The state is a hundred times the data.
        torch.testing.assert_close(diffusers_loop(scheduler, x), expected, rtol=2e-5, atol=1e-4)


@pytest.mark.parametrize("prediction_type", TARGET)
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("options", [{"modes": 4, "marginal": "matched"}, {"modes": 4, "marginal": "vp_equivalent"}])
def test_equals_diffusers_ddim(prediction_type: str, clip: bool, options: dict[str, Any]) -> None:
    for spacing, steps in (("leading", 10), ("trailing", 5)):
        same = {"prediction_type": prediction_type, "clip_sample": clip, "timestep_spacing": spacing}
        scheduler, process = discrete(options, beta_schedule="linear", **same)
        trained = None if options["marginal"] == "matched" else process.betas.numpy()
        reference = hub.DDIMScheduler(num_train_timesteps=T, beta_schedule="linear", trained_betas=trained, **same)
        converted = hub.DDIMScheduler.from_config(scheduler.config)
        for one in (scheduler, reference, converted):
            one.set_timesteps(steps)
        x = randn(*SHAPE)
        expected = diffusers_loop(reference, x)
        # The reference's betas are float32.
        torch.testing.assert_close(diffusers_loop(scheduler, x), expected, rtol=2e-4, atol=2e-4)
        torch.testing.assert_close(diffusers_loop(converted, x), expected)


def test_other_schedulers_of_diffusers_take_the_config() -> None:
    """The library's own way to change the sampler keeps the table of the truncated path."""
    scheduler, process = discrete({"modes": 4, "marginal": "vp_equivalent"})
    other = hub.DPMSolverMultistepScheduler.from_config(scheduler.config)
    torch.testing.assert_close(other.alphas_cumprod.double(), process.alphas.square(), rtol=2e-4, atol=1e-7)
    baseline = vp_process("squaredcos_cap_v2", T)
    assert float((other.alphas_cumprod.double() - baseline.alphas.square()).abs().max()) > 0.01


def test_edm_euler_equals_diffusers() -> None:
    scheduler = MomentumEDMScheduler(input_scale="base", solver="euler")
    reference = hub.EDMEulerScheduler()
    for one in (scheduler, reference):
        one.set_timesteps(9)
    torch.testing.assert_close(scheduler.sigmas.float(), reference.sigmas)
    torch.testing.assert_close(scheduler.timesteps, reference.timesteps)
    x = 80.0 * randn(*SHAPE)
    torch.testing.assert_close(diffusers_loop(scheduler, x), diffusers_loop(reference, x), rtol=1e-4, atol=1e-4)


def test_heun_goes_through_its_timesteps_as_diffusers_does() -> None:
    """The evaluations and averages of HeunDiscreteScheduler, once it has our sigmas."""
    scheduler = MomentumEDMScheduler(family="vp", input_scale="one", solver="heun")
    scheduler.set_timesteps(6)
    reference = hub.HeunDiscreteScheduler()
    reference.set_timesteps(6)
    assert len(reference.timesteps) == len(scheduler.timesteps)
    assert reference.order == scheduler.order
    reference.sigmas = scheduler.sigmas.float()
    x = expected = 80.0 * randn(*SHAPE)
    for ours, theirs in zip(scheduler.timesteps, reference.timesteps, strict=True):
        # The vp family predicts the noise, as the reference does; both networks are told our time.
        expected = reference.step(network(expected, ours), theirs, expected).prev_sample
        x = scheduler.step(network(scheduler.scale_model_input(x, ours), ours), ours, x).prev_sample
        torch.testing.assert_close(x, expected, rtol=1e-5, atol=1e-4)


def test_momentum_scales_the_input_by_hand() -> None:
    """EDM-FDM at sigma = 40: position 39.998 / 79.998, the network's input is (1 + 2 B) exp(-2 B) x."""
    scheduler = MomentumEDMScheduler(multiplier=2.0)
    x = randn(*SHAPE)
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
    x0, noise = randn(T, 8, 2, seed=1).to(dtype), randn(T, 8, 2, seed=2).to(dtype)
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
    t = scheduler.draw_timesteps((64,), torch.Generator().manual_seed(5))
    drawn = process.draw_times((64,), torch.Generator().manual_seed(5), "cpu")
    sigma = scheduler.sigma_of(t)
    torch.testing.assert_close(sigma, drawn, rtol=1e-5, atol=0.0)
    exact = scheduler.sigma_of(process.c_noise(drawn))
    torch.testing.assert_close(exact, drawn, rtol=1e-11, atol=0.0)
    x0, noise = randn(64, 8, 2, seed=1), randn(64, 8, 2, seed=2)
    noised = make_noised(process, x0, noise, sigma, process.targets[0])
    x_t = scheduler.add_noise(x0, noise, t)
    assert torch.equal(t, noised.t)
    assert torch.equal(x_t, noised.x_t)
    assert torch.equal(x_t, x0 + sigma.float().view(-1, 1, 1) * noise)
    assert torch.equal(scheduler.scale_model_input(x_t, t), noised.model_input)
    assert torch.equal(scheduler.get_target(x0, noise, t), noised.target)


def test_an_exact_prediction_gives_the_clean_sample() -> None:
    """add_noise, the target and step agree with each other for every family."""
    x0, noise = 0.5 * randn(*SHAPE, seed=1), randn(*SHAPE, seed=2)
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
    t = torch.randint(T, (5, 3), generator=torch.Generator().manual_seed(0))
    ours = process.draw_path_noise((5, 8, 2), t, torch.Generator().manual_seed(1))
    noise = scheduler.path_noise((5, 8, 2), t, torch.Generator().manual_seed(1))
    assert torch.equal(noise, ours)
    same_time = scheduler.path_noise((5, 8, 2), t[:, :1].expand(5, 3), torch.Generator().manual_seed(1))
    torch.testing.assert_close(same_time[:, 0], same_time[:, 1], rtol=0.0, atol=1e-3)
    assert float((noise[:, 0] - noise[:, 1]).abs().max()) > 0.1


def test_signal_to_noise_ratio_for_loss_weights_of_diffusers() -> None:
    t = torch.arange(T)
    for options in (*KL_KINDS, *MOMENTUM_KINDS):
        scheduler, process = discrete(options)
        expected = (process.alphas / process.sigmas).square().float()
        # compute_snr rounds alpha_bar to float32 first.
        torch.testing.assert_close(compute_snr(scheduler, t), expected, rtol=1e-3, atol=1e-9)


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
    x = scheduler.init_noise_sigma * randn(*SHAPE)
    assert torch.equal(diffusers_loop(loaded, x), diffusers_loop(scheduler, x))
    again = type(scheduler).from_config(loaded.config)
    assert public(again.config) == public(scheduler.config)


@pytest.fixture(scope="module")
def unet() -> Any:
    torch.manual_seed(0)
    return hub.UNet2DModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(8,),
        norm_num_groups=4,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    ).eval()


@pytest.mark.parametrize("options", [{"modes": 4}, {"modes": 3, "marginal": "vp_equivalent"}])
def test_in_pipelines_of_diffusers(unet: Any, options: dict[str, Any], tmp_path: Path) -> None:
    scheduler, process = discrete(options)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        by_hand = ddim(Predictor(lambda x, t: unet(x, t).sample), x, process, timestep_grid(T, 5, "leading"))
    expected = (by_hand / 2 + 0.5).clamp(0, 1)
    pipeline = hub.DDPMPipeline(unet, scheduler)
    pipeline.save_pretrained(tmp_path)
    for one in (pipeline, hub.DDIMPipeline(unet, scheduler), hub.DDPMPipeline.from_pretrained(tmp_path)):
        one.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(7)
        images = one(batch_size=2, generator=generator, num_inference_steps=5, output_type="pt").images
        torch.testing.assert_close(images, expected, rtol=1e-4, atol=1e-4)


def test_a_pipeline_that_never_scales_the_input_is_refused(unet: Any) -> None:
    """A step may be anyone's, as it is in diffusers; a loop of them is a mistake."""
    pipeline = hub.DDPMPipeline(unet, MomentumScheduler(T))
    pipeline.set_progress_bar_config(disable=True)
    sentence = "MomentumScheduler scales, but scale_model_input was never called"
    with pytest.warns(UserWarning, match=sentence), pytest.raises(ValueError, match=sentence):
        pipeline(num_inference_steps=3, output_type="pt")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("options", [*KL_KINDS, *MOMENTUM_KINDS, *SIGMA_KINDS])
def test_half_precision_is_rounded_once(options: dict[str, Any], dtype: torch.dtype) -> None:
    """Each result is the float64 one, rounded: within half a unit in the last place of the half format."""
    half_unit = torch.finfo(dtype).eps / 2

    def check(result: Tensor, exact: Tensor) -> None:
        assert result.dtype == dtype
        slack = 1e-6 * 100  # float32 arithmetic on intermediate values of up to 100
        error = (result.double() - exact).abs()
        assert bool((error <= 1.01 * half_unit * exact.abs() + slack).all())

    if "family" in options:
        make = lambda: MomentumEDMScheduler(**options)  # noqa: E731
    else:
        make = lambda: discrete(options, clip_sample=False)[0]  # noqa: E731
    low, exact = make(), make()
    for one in (low, exact):
        one.set_timesteps(5)
    x0, noise = randn(*SHAPE, seed=1).to(dtype), randn(*SHAPE, seed=2).to(dtype)
    for t in low.timesteps[2:]:
        x, batch = low.add_noise(x0, noise, t[None]), t.expand(len(x0))
        check(x, exact.add_noise(x0.double(), noise.double(), t[None]))
        check(low.scale_model_input(x, batch), exact.scale_model_input(x.double(), batch))
    low.set_timesteps(5)
    exact.set_timesteps(5)
    x = (low.init_noise_sigma * randn(*SHAPE, seed=3)).to(dtype)
    for t in low.timesteps:
        scaled = low.scale_model_input(x, t)
        check(scaled, exact.scale_model_input(x.double(), t))
        prediction = network(scaled.float(), t).to(dtype)
        here = low.step(prediction, t, x)
        there = exact.step(prediction.double(), t, x.double())
        check(here.prev_sample, there.prev_sample)
        check(here.pred_original_sample, there.pred_original_sample)
        x = here.prev_sample


def test_the_prediction_may_be_coarser_than_the_sample() -> None:
    scheduler, process = discrete({"modes": 4}, clip_sample=False)
    scheduler.set_timesteps(5)
    t = scheduler.timesteps[0]
    x, prediction = randn(*SHAPE), randn(*SHAPE, seed=1).bfloat16()
    output = scheduler.step(prediction, t, x)
    expected = predicted_sample(prediction.float(), x, process.level(int(t)), "epsilon")
    assert output.prev_sample.dtype == torch.float32
    assert torch.equal(output.pred_original_sample, expected)
    pair = scheduler.step(prediction, t, x, return_dict=False)
    assert isinstance(pair, tuple)
    assert torch.equal(pair[0], output.prev_sample)


class OnDevice(torch.Tensor):
    """A timestep that says it is on another device and counts how often it is read."""

    reads = 0

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda")

    def item(self) -> Any:
        OnDevice.reads += 1
        return super().item()

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", "")
        if name in ("eq", "__eq__", "__bool__", "__float__", "__int__", "__index__", "tolist"):
            raise AssertionError(f"{name} waits for the device")
        return super().__torch_function__(function, types, args, kwargs or {})


@pytest.mark.parametrize("begin", [None, 0])
@pytest.mark.parametrize("make", [lambda: MomentumScheduler(T), lambda: MomentumEDMScheduler()])
def test_a_loop_reads_the_device_once(make: Callable[[], Any], begin: int | None) -> None:
    scheduler = make()
    scheduler.set_timesteps(4)
    x = scheduler.init_noise_sigma * randn(*SHAPE)
    expected = diffusers_loop(copy.deepcopy(scheduler), x)
    if begin is not None:
        scheduler.set_begin_index(begin)
    OnDevice.reads = 0
    for value in scheduler.timesteps:
        t = value.clone().as_subclass(OnDevice)
        prediction = network(scheduler.scale_model_input(x, t), value)
        x = scheduler.step(prediction, t, x).prev_sample
    assert OnDevice.reads == (1 if begin is None else 0)
    assert torch.equal(x, expected)
    assert scheduler.step_index is None


def test_timesteps_may_come_out_of_order_and_loops_be_repeated() -> None:
    scheduler, process = discrete({"modes": 4})
    scheduler.set_timesteps(5)
    x = randn(*SHAPE)
    first = diffusers_loop(scheduler, x)
    assert torch.equal(diffusers_loop(scheduler, x), first)
    grid = timestep_grid(T, 5, "leading")
    late = int(grid.timesteps[3])
    level, to = process.level(late), process.level(grid.next_timesteps[3])
    assert isinstance(level, Level)
    x0 = predicted_sample(network(x, late), x, level, "epsilon").clamp(-1, 1)
    expected = to.alpha * x0 + to.sigma * network(x, late)
    torch.testing.assert_close(scheduler.step(network(x, late), late, x).prev_sample, expected)
    assert torch.equal(diffusers_loop(scheduler, x), first)


def test_a_heun_loop_may_start_midway() -> None:
    """As image-to-image pipelines do: from timesteps[order * k], with and without set_begin_index."""
    scheduler = MomentumEDMScheduler(family="vp", multiplier=2.0)
    process = SigmaProcess("vp", "momentum", 2.0)
    grid = process.grid(6)
    rest = type(grid)(grid.timesteps[2:], grid.next_timesteps[2:])
    x = grid.timesteps[2] * randn(*SHAPE)
    expected = heun(Predictor(network, target="epsilon", clip=None), x, process, rest)
    for begin in (None, 4):
        scheduler.set_timesteps(6)
        if begin is not None:
            scheduler.set_begin_index(begin)
        assert scheduler.begin_index == begin
        moved = x
        for t in scheduler.timesteps[4:]:
            moved = scheduler.step(network(scheduler.scale_model_input(moved, t), t), t, moved).prev_sample
        torch.testing.assert_close(moved, expected, rtol=2e-5, atol=1e-4)


def test_the_constructors_timesteps_are_those_of_training() -> None:
    assert discrete({"modes": 4})[0].timesteps.tolist() == list(range(T - 1, -1, -1))
    scheduler = MomentumEDMScheduler(num_train_timesteps=11)
    torch.testing.assert_close(scheduler.timesteps, hub.EDMEulerScheduler(num_train_timesteps=10).timesteps)


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
    x = randn(*SHAPE)
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


@pytest.mark.parametrize("make", [KarhunenLoeveScheduler, MomentumEDMScheduler])
def test_the_config_may_be_changed_afterwards(make: Callable[..., Any]) -> None:
    """As pipelines and training scripts of diffusers do."""
    changes = {"prediction_type": "v_prediction", "clip_sample": True, "clip_sample_range": 0.3}
    changed, made = make(clip_sample=False), make(**changes)
    changed.register_to_config(**changes)
    for one in (changed, made):
        one.set_timesteps(np.int64(3))
    x = made.init_noise_sigma * randn(*SHAPE)
    assert torch.equal(diffusers_loop(changed, x), diffusers_loop(made, x))
    changed.register_to_config(prediction_type="v")
    with pytest.raises(ValueError, match="prediction_type 'v' is unknown"):
        changed.step(x, changed.timesteps[0], x)


@pytest.mark.parametrize(("make", "named"), [(MomentumScheduler, "kind"), (MomentumEDMScheduler, "family")])
def test_what_others_do_not_know_is_not_lost_silently(
    make: Callable[..., Any], named: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DDIMPipeline makes a DDIMScheduler of any config, which would not scale the network's input."""
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    with caplog.at_level("WARNING", "diffusers"):
        hub.DDIMScheduler.from_config(make().config)
    assert f"'{named}'" in caplog.text
    assert "will be ignored" in caplog.text


def import_again() -> None:
    specification = importlib.util.spec_from_file_location("scheduler_base_again", scheduler_base.__file__)
    assert specification is not None
    assert specification.loader is not None
    specification.loader.exec_module(importlib.util.module_from_spec(specification))


def test_without_diffusers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers.configuration_utils", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        import_again()
    assert str(caught.value) == f"policy_accel.diffusion.schedulers needs diffusers; {to_install('diffusers')}"


def test_a_broken_diffusers_says_so_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "diffusers.configuration_utils")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModuleNotFoundError, match="huggingface_hub"):
        import_again()
