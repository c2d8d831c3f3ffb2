"""The three marginals of a path's noise: their schedules, what is refused, and what samplers make of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from support.karhunen_loeve import (
    COS_100,
    LINEAR,
    SCHEDULES,
    SMALL_BETAS,
    at,
    close,
    process_of,
    starting,
    table,
)
from support.tensors import generator
from torch import Tensor

from policy_accel.diffusion import DiscreteProcess, Grid, ddim, timestep_grid, vp_process
from policy_accel.diffusion.karhunen_loeve import (
    KarhunenLoeveProcess,
    karhunen_loeve_process,
)
from policy_accel.diffusion.samplers import Predictor

ALPHA_BAR_LINEAR = {
    None: "0.897018 0.524085 0.0785872 0.00335055 0.000275206 4.03583e-05",
    1: "0.979814 0.734687 0.153366 0.0165006 0.00442545 0.00272662",
    4: "0.936772 0.626743 0.103721 0.00533689 0.000402477 0.000143992",
    16: "0.908849 0.541106 0.0839297 0.00370689 0.000310924 5.31545e-05",
}
ALPHA_BAR_COS_100 = {
    None: "0.972093 0.847012 0.493844 0.144272 0.0240917 2.42857e-07",
    1: "0.994791 0.930074 0.614361 0.285859 0.155564 0.0160372",
    4: "0.983019 0.887500 0.533835 0.178643 0.0340124 0.000336942",
    16: "0.975280 0.853841 0.503597 0.151303 0.0274100 7.66888e-06",
}


@pytest.mark.parametrize(("schedule", "expected"), [(LINEAR, ALPHA_BAR_LINEAR), (COS_100, ALPHA_BAR_COS_100)])
def test_variance_preserving_equivalent(schedule: tuple[str, int], expected: dict[int | None, str]) -> None:
    base = vp_process(*schedule)
    columns = at((0.1, 0.25, 0.5, 0.75, 0.9, 1.0), schedule[1])
    for modes, row in expected.items():
        process = base if modes is None else karhunen_loeve_process(base, modes, "vp_equivalent")
        alpha_bar = process.alphas**2
        torch.testing.assert_close(alpha_bar[columns], table(row)[0], rtol=1e-5, atol=0)
        close(process.sigmas**2, 1.0 - alpha_bar, 1e-15)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("modes", [1, 2, 3, 4, 8, 16, 32])
def test_betas_describe_the_table(schedule: tuple[str, int], modes: int) -> None:
    base = vp_process(*schedule)
    equivalent = karhunen_loeve_process(base, modes, "vp_equivalent")
    raw = karhunen_loeve_process(base, modes, "raw")
    assert bool(((equivalent.betas > 0) & (equivalent.betas < 1)).all())
    assert bool((equivalent.log_snr.diff() < 0).all())
    close(equivalent.log_snr, raw.log_snr, 1e-8)
    torch.testing.assert_close(torch.cumprod(1 - equivalent.betas, 0), equivalent.alphas**2, rtol=1e-9, atol=0)
    matched = karhunen_loeve_process(base, modes)
    torch.testing.assert_close(torch.cumprod(1 - matched.betas, 0), base.alphas**2, rtol=1e-9, atol=0)
    assert torch.equal(matched.alphas, base.alphas)
    assert torch.equal(matched.sigmas, base.sigmas)


def test_the_start_of_a_sampler() -> None:
    base = vp_process(*LINEAR)
    assert [starting(karhunen_loeve_process(base, 4, m)) for m in ("matched", "vp_equivalent")] == [1.0, 1.0]
    assert starting(karhunen_loeve_process(base, 4, "raw")) == pytest.approx(0.529389 * 0.999980, abs=2e-6)


@pytest.mark.parametrize("marginal", ["matched", "vp_equivalent", "raw"])
def test_the_input_scales_of_the_base_are_kept(marginal: str) -> None:
    base = process_of(SMALL_BETAS)
    scaled = DiscreteProcess(base.alphas, base.sigmas, torch.arange(1, 5).double())
    assert karhunen_loeve_process(scaled, 2, marginal).input_scales.tolist() == [1, 2, 3, 4]
    assert karhunen_loeve_process(base, 2, marginal).input_scales.tolist() == [1, 1, 1, 1]


def test_moving_keeps_the_type_and_moves_every_table() -> None:
    process = karhunen_loeve_process(vp_process(*COS_100), 4, "raw")
    moved = process.to("meta")
    assert isinstance(moved, KarhunenLoeveProcess)
    assert (moved.modes, moved.marginal, moved.timesteps) == (4, "raw", 100)
    tables = (moved.alphas, moved.sigmas, moved.input_scales, moved.mode_table, moved.noise_table)
    assert {t.device.type for t in tables} == {"meta"}


def refusals() -> list[tuple[DiscreteProcess, dict[str, object], str]]:
    small, cosine = process_of(SMALL_BETAS), vp_process(*COS_100)
    exploding = DiscreteProcess(torch.ones(4, dtype=torch.float64), torch.arange(1, 5).double())
    resting = process_of(torch.tensor([0.1, 0.0, 0.1], dtype=torch.float64))
    # Two modes: the second increment points away from the first, so a big early beta makes the kept noise shrink.
    shrinking = process_of(torch.tensor([0.5, 1e-4, 1e-4, 0.01], dtype=torch.float64))
    return [
        (small, {"modes": 5}, "^modes=5 must be an integer from 1 to timesteps=4"),
        (small, {"modes": 0}, "^modes=0 must be an integer from 1 to timesteps=4"),
        (small, {"modes": 2.0}, r"^modes=2\.0 must be an integer"),
        (small, {"modes": True}, "^modes=True must be an integer"),
        (cosine, {"modes": 4, "marginal": "mached"}, r"^marginal 'mached'.*did you mean 'matched'"),
        (cosine, {"modes": 4, "clock": "varianc"}, r"^clock 'varianc'.*did you mean 'variance'"),
        (exploding, {"modes": 2}, "^base: it must be a variance-preserving process"),
        (resting, {"modes": 2}, "^base: it must be a variance-preserving process"),
        (shrinking, {"modes": 2, "marginal": "vp_equivalent"}, "^marginal=vp_equivalent with modes=2 .*at 2;"),
        (shrinking, {"modes": 2, "marginal": "raw"}, "^marginal=raw with modes=2 .*at 2;"),
    ]


@pytest.mark.parametrize(("base", "arguments", "sentence"), refusals())
def test_refusals(base: DiscreteProcess, arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        karhunen_loeve_process(base, **arguments)  # type: ignore[arg-type]


def test_raw_has_no_betas() -> None:
    with pytest.raises(ValueError, match=r"^marginal=raw has no betas"):
        _ = karhunen_loeve_process(vp_process(*COS_100), 4, "raw").betas


# --- Sampling --------------------------------------------------------------------------------------------------------

MEAN, STD = 0.3, 0.5


def exact_epsilon(process: DiscreteProcess) -> Callable[[Tensor, Tensor], Tensor]:
    """E[epsilon | x_t] for data N(MEAN, STD^2)."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = process.alphas[t].view(-1, 1), process.sigmas[t].view(-1, 1)
        return sigma * (x - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2)

    return denoise


def sampled_law(network: DiscreteProcess, sampler: DiscreteProcess, start: float) -> tuple[float, float]:
    """Mean and std of all-step DDIM from N(0, start^2): the map of an exact Gaussian network is affine."""
    x = torch.tensor([[0.0], [start]], dtype=torch.float64)
    grid = Grid.of(range(sampler.timesteps - 1, -1, -1))
    at_zero, at_one = ddim(Predictor(exact_epsilon(network), clip=None), x, sampler, grid).flatten().tolist()
    return at_zero, abs(at_one - at_zero)


@pytest.mark.parametrize(
    ("schedule", "mean", "std", "wrong_std", "matched"),
    [(LINEAR, 0.297, 0.498, 0.164, (0.298, 0.498)), (COS_100, 0.296, 0.491, 58.0, (0.298, 0.491))],
)
def test_ddim_recovers_a_gaussian(
    schedule: tuple[str, int], mean: float, std: float, wrong_std: float, matched: tuple[float, float]
) -> None:
    base = vp_process(*schedule)
    raw = karhunen_loeve_process(base, 4, "raw")
    equivalent = karhunen_loeve_process(base, 4, "vp_equivalent")
    same = karhunen_loeve_process(base, 4)
    assert sampled_law(raw, raw, starting(raw)) == pytest.approx((mean, std), abs=3e-3)
    assert sampled_law(same, same, starting(same)) == pytest.approx(matched, abs=3e-3)
    assert sampled_law(equivalent, equivalent, starting(equivalent)) == pytest.approx((MEAN, STD), abs=0.02)
    # A network of the raw process must not be run with the baseline's table.
    assert sampled_law(raw, base, 1.0)[1] == pytest.approx(wrong_std, rel=0.01)


def test_raw_is_the_equivalent_sampler_rescaled() -> None:
    base = vp_process(*COS_100)
    raw, equivalent = (karhunen_loeve_process(base, 4, m) for m in ("raw", "vp_equivalent"))
    x = torch.randn((64, 1), generator=generator(22)).double()
    grid = timestep_grid(100, 10, "trailing")
    scale = (raw.alphas[-1] ** 2 + raw.sigmas[-1] ** 2).sqrt()
    close(
        ddim(Predictor(exact_epsilon(raw), clip=None), scale * x, raw, grid),
        ddim(Predictor(exact_epsilon(equivalent), clip=None), x, equivalent, grid),
        1e-12,
    )


@pytest.mark.parametrize("steps", [10, 100])
def test_diffusers_samples_the_same_from_trained_betas(steps: int) -> None:
    process = karhunen_loeve_process(vp_process(*COS_100), 4, "vp_equivalent")
    scheduler: Any = DDIMScheduler(num_train_timesteps=100, trained_betas=process.betas.numpy(), clip_sample=False)
    scheduler.set_timesteps(steps)
    start = torch.randn((256, 1), generator=generator(23)).double()
    denoise = exact_epsilon(process)
    x = start
    for t in scheduler.timesteps:
        x = scheduler.step(denoise(x, torch.full((len(x),), int(t))), t, x).prev_sample
    ours = ddim(Predictor(denoise, clip=None), start, process, timestep_grid(100, steps, "leading"))
    close(x, ours, 1e-4)
