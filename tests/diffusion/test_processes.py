from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDPMScheduler

from policy_accel.diffusion import FlowProcess, Process, SigmaProcess, momentum_process, vp_process
from policy_accel.diffusion.processes import CLEAN


@pytest.mark.parametrize("shape", [(6, 16, 2), (6, 3, 8, 8)])
def test_diffuse_equals_diffusers(shape: tuple[int, ...]) -> None:
    process = vp_process("squaredcos_cap_v2", 100)
    scheduler = DDPMScheduler(num_train_timesteps=100, beta_schedule="squaredcos_cap_v2")
    x0, noise = torch.randn(shape), torch.randn(shape)
    t = torch.tensor([0, 1, 30, 62, 98, 99])
    torch.testing.assert_close(process.diffuse(x0, noise, t), scheduler.add_noise(x0, noise, t), rtol=1e-5, atol=2e-6)


def test_variance_is_preserved_and_noise_grows() -> None:
    process = vp_process("linear", 1000)
    torch.testing.assert_close(process.alphas**2 + process.sigmas**2, torch.ones(1000, dtype=torch.float64))
    assert bool((process.log_snr.diff() < 0).all())
    assert process.timesteps == 1000
    assert process.input_scales.unique().tolist() == [1.0]


def test_coefficients_are_not_computed_in_bf16() -> None:
    process = vp_process("squaredcos_cap_v2", 100)
    x0, noise, t = torch.zeros(1, 1).bfloat16(), torch.ones(1, 1).bfloat16(), torch.tensor([50])
    expected = process.sigmas[50].to(torch.bfloat16)
    assert process.diffuse(x0, noise, t)[0, 0] == expected


@pytest.mark.parametrize(("cap", "touched"), [(5.0, 26), (50.0, 8), (500.0, 2)])
def test_capped_weight_of_the_epsilon_loss(cap: float, touched: int) -> None:
    process, times = vp_process("squaredcos_cap_v2", 100), torch.arange(100)
    weight, of_v = (process.loss_weight(times, target, cap) for target in ("epsilon", "v"))
    assert weight is not None
    assert of_v is not None
    assert weight.dtype == torch.float64
    assert [k for k in range(100) if float(weight[k]) < 1] == list(range(touched))
    # The same cap on the squared error of the clean sample: x0's error is sigma / alpha times epsilon's.
    ratio = (process.sigmas / process.alphas).square()
    torch.testing.assert_close(weight / ratio, torch.minimum(1 / ratio, torch.full_like(ratio, cap)))
    # v = (alpha epsilon - sigma x0): its error is x0's over sigma.
    variance = process.sigmas.square()
    torch.testing.assert_close(of_v / variance, torch.minimum(1 / variance, torch.full_like(variance, cap)))
    assert process.loss_weight(times, "epsilon") is None


@pytest.mark.parametrize(
    ("process", "timesteps", "targets", "capped"),
    [
        (vp_process(timesteps=7), 7, ("epsilon", "sample", "v"), ("epsilon", "v")),
        (SigmaProcess("edm"), None, ("edm", "epsilon", "negative_epsilon", "sample"), None),
        (SigmaProcess("vp"), None, ("epsilon", "negative_epsilon", "edm", "sample"), None),
        (SigmaProcess("ve"), None, ("negative_epsilon", "epsilon", "edm", "sample"), None),
        (FlowProcess(), None, ("flow", "sample"), ()),
    ],
    ids=["discrete", "edm", "vp", "ve", "flow"],
)
def test_what_a_process_says_of_itself(
    process: Process, timesteps: int | None, targets: tuple[str, ...], capped: tuple[str, ...] | None
) -> None:
    assert process.timesteps == timesteps
    assert process.targets == targets
    assert process.capped_targets == (targets if capped is None else capped)
    times = process.times()
    assert times.timesteps == timesteps
    drawn = times.draw((500,), torch.Generator().manual_seed(0), 0.0)
    assert drawn.dtype == (torch.int64 if timesteps else torch.float64)
    if timesteps:
        assert drawn.unique().tolist() == list(range(timesteps))
    first = process.level(process.grid(4).timesteps[0])
    median = float(process.log_snr_at(drawn).median())
    assert (first.alpha / first.sigma) ** 2 < math.exp(median)


@pytest.mark.parametrize("t", [0, 1, 99])
def test_a_level_holds_the_coefficients_of_its_time_from_the_first_on(t: int) -> None:
    process = momentum_process(vp_process())
    level, at = process.level(t), process.coefficients(torch.tensor([t]))
    assert (level.alpha, level.sigma, level.input_scale) == (float(at.alpha), float(at.sigma), float(at.input_scale))
    assert level.time == t
    assert level.sigma > 0
    assert process.level(-1) == CLEAN
