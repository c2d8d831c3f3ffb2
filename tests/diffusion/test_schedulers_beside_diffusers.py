"""Our schedulers beside those of diffusers, and in its pipelines."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers.training_utils import compute_snr
from support.schedulers import KL_KINDS, MOMENTUM_KINDS, SHAPE, TARGET, T, diffusers_loop, discrete, network
from support.tensors import generator, normal

from policy_accel.diffusion import ddim, timestep_grid, vp_process
from policy_accel.diffusion.samplers import Predictor
from policy_accel.diffusion.schedulers import MomentumEDMScheduler, MomentumScheduler

hub: Any = diffusers  # typed as placeholders that know no method


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
        x = normal(*SHAPE)
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


def test_heun_goes_through_its_timesteps_as_diffusers_does() -> None:
    """The evaluations and averages of HeunDiscreteScheduler, once it has our sigmas."""
    scheduler = MomentumEDMScheduler(family="vp", input_scale="one", solver="heun")
    scheduler.set_timesteps(6)
    reference = hub.HeunDiscreteScheduler()
    reference.set_timesteps(6)
    assert len(reference.timesteps) == len(scheduler.timesteps)
    assert reference.order == scheduler.order
    reference.sigmas = scheduler.sigmas.float()
    x = expected = 80.0 * normal(*SHAPE)
    for ours, theirs in zip(scheduler.timesteps, reference.timesteps, strict=True):
        # The vp family predicts the noise, as the reference does; both networks are told our time.
        expected = reference.step(network(expected, ours), theirs, expected).prev_sample
        x = scheduler.step(network(scheduler.scale_model_input(x, ours), ours), ours, x).prev_sample
        torch.testing.assert_close(x, expected, rtol=1e-5, atol=1e-4)


def test_signal_to_noise_ratio_for_loss_weights_of_diffusers() -> None:
    t = torch.arange(T)
    for options in (*KL_KINDS, *MOMENTUM_KINDS):
        scheduler, process = discrete(options)
        expected = (process.alphas / process.sigmas).square().float()
        # compute_snr rounds alpha_bar to float32 first.
        torch.testing.assert_close(compute_snr(scheduler, t), expected, rtol=1e-3, atol=1e-9)


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
    x = normal(2, 3, 8, 8, seed=7)
    with torch.no_grad():
        by_hand = ddim(Predictor(lambda x, t: unet(x, t).sample), x, process, timestep_grid(T, 5, "leading"))
    expected = (by_hand / 2 + 0.5).clamp(0, 1)
    pipeline = hub.DDPMPipeline(unet, scheduler)
    pipeline.save_pretrained(tmp_path)
    for one in (pipeline, hub.DDIMPipeline(unet, scheduler), hub.DDPMPipeline.from_pretrained(tmp_path)):
        one.set_progress_bar_config(disable=True)
        images = one(batch_size=2, generator=generator(7), num_inference_steps=5, output_type="pt").images
        torch.testing.assert_close(images, expected, rtol=1e-4, atol=1e-4)


def test_a_pipeline_that_never_scales_the_input_is_refused(unet: Any) -> None:
    """A step may be anyone's, as it is in diffusers; a loop of them is a mistake."""
    pipeline = hub.DDPMPipeline(unet, MomentumScheduler(T))
    pipeline.set_progress_bar_config(disable=True)
    sentence = "MomentumScheduler scales, but scale_model_input was never called"
    with pytest.warns(UserWarning, match=sentence), pytest.raises(ValueError, match=sentence):
        pipeline(num_inference_steps=3, output_type="pt")


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
