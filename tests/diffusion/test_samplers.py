from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from diffusers.schedulers import scheduling_ddpm
from torch import Tensor

from policy_accel.diffusion import Grid, ddim, ddpm, dpm_solver_pp, timestep_grid, vp_process
from policy_accel.errors import UserError

PROCESS = vp_process("squaredcos_cap_v2", 100)
DIFFUSERS_TARGET = {"epsilon": "epsilon", "sample": "sample", "v": "v_prediction"}
SHAPE = (4, 16, 2)


def network(x: Tensor, t: Tensor) -> Tensor:
    """A smooth stand-in for a denoiser that depends on every input."""
    return torch.tanh(0.7 * x + 0.3 * x.roll(1, dims=1) + torch.sin(t.float() / 17.0).view(-1, 1, 1))


def start(seed: int = 0) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def diffusers_loop(scheduler: object, x: Tensor, step: Callable[..., Tensor]) -> Tensor:
    for i, t in enumerate(scheduler.timesteps):  # type: ignore[attr-defined]
        x = step(network(x, torch.full((len(x),), int(t))), t, x, i)
    return x


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 8, 10, 16, 50, 99, 100])
def test_grids_equal_diffusers(spacing: str, steps: int) -> None:
    scheduler = DDIMScheduler(num_train_timesteps=100, timestep_spacing=spacing)
    scheduler.set_timesteps(steps)
    expected = scheduler.timesteps.tolist()
    if spacing == "linspace" and steps == 1:
        expected = [99]  # diffusers evaluates once at t = 0, where the input is nearly clean
    grid = timestep_grid(100, steps, spacing)
    assert list(grid.timesteps) == expected
    assert list(grid.previous) == [*expected[1:], -1]


@pytest.mark.parametrize(("steps", "spacing", "sentence"), [(0, "leading", "steps=0"), (101, "leading", "steps=101")])
def test_impossible_grids(steps: int, spacing: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        timestep_grid(100, steps, spacing)


def test_unknown_spacing() -> None:
    with pytest.raises(UserError, match="did you mean 'trailing'"):
        timestep_grid(100, 4, "trailling")


@pytest.mark.parametrize("target", ["epsilon", "sample", "v"])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize(("steps", "spacing"), [(100, "leading"), (10, "leading"), (10, "trailing")])
def test_ddpm_equals_diffusers(
    monkeypatch: pytest.MonkeyPatch, target: str, clip: bool, steps: int, spacing: str
) -> None:
    scheduler = DDPMScheduler(
        num_train_timesteps=100,
        beta_schedule="squaredcos_cap_v2",
        prediction_type=DIFFUSERS_TARGET[target],
        clip_sample=clip,
        variance_type="fixed_small",
        timestep_spacing=spacing,
    )
    scheduler.set_timesteps(steps)
    noise = torch.randn(steps, *SHAPE, generator=torch.Generator().manual_seed(3))
    draws = iter(noise)
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, **__: next(draws))
    expected = diffusers_loop(
        scheduler, start(), lambda prediction, t, x, i: scheduler.step(prediction, t, x).prev_sample
    )
    ours = ddpm(
        network,
        start(),
        PROCESS,
        timestep_grid(100, steps, spacing),
        target=target,
        clip=1.0 if clip else None,
        noise=noise,
    )
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4 if clip else 2e-3)


@pytest.mark.parametrize("target", ["epsilon", "sample", "v"])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize(("steps", "spacing"), [(8, "leading"), (10, "trailing"), (4, "trailing"), (12, "linspace")])
def test_ddim_equals_diffusers(target: str, clip: bool, steps: int, spacing: str) -> None:
    scheduler = DDIMScheduler(
        num_train_timesteps=100,
        beta_schedule="squaredcos_cap_v2",
        prediction_type=DIFFUSERS_TARGET[target],
        clip_sample=clip,
        timestep_spacing=spacing,
    )
    scheduler.set_timesteps(steps)
    expected = diffusers_loop(
        scheduler, start(), lambda prediction, t, x, i: scheduler.step(prediction, t, x).prev_sample
    )
    grid = timestep_grid(100, steps, spacing)
    if spacing == "linspace":  # diffusers steps back by T // n, whatever its own next point is
        grid = Grid(grid.timesteps, tuple(max(t - 100 // steps, -1) for t in grid.timesteps))
    ours = ddim(network, start(), PROCESS, grid, target=target, clip=1.0 if clip else None)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4 if clip else 2e-3)


@pytest.mark.parametrize("target", ["epsilon", "sample", "v"])
@pytest.mark.parametrize(("steps", "spacing"), [(5, "trailing"), (10, "leading"), (14, "linspace"), (20, "trailing")])
def test_dpm_solver_equals_diffusers(target: str, steps: int, spacing: str) -> None:
    scheduler = DPMSolverMultistepScheduler(
        num_train_timesteps=100,
        beta_schedule="squaredcos_cap_v2",
        prediction_type=DIFFUSERS_TARGET[target],
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        lower_order_final=True,
        final_sigmas_type="zero",
        timestep_spacing=spacing,
    )
    scheduler.set_timesteps(steps)
    expected = diffusers_loop(
        scheduler, start(), lambda prediction, t, x, i: scheduler.step(prediction, t, x).prev_sample
    )
    ours = dpm_solver_pp(network, start(), PROCESS, Grid.of(scheduler.timesteps.tolist()), target=target, clip=None)
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=2e-3)


def gaussian_denoiser(mean: float, deviation: float) -> Callable[[Tensor, Tensor], Tensor]:
    """The exact epsilon prediction for data N(mean, deviation^2): E[eps | x_t] in closed form."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = PROCESS.alphas[t].view(-1, 1, 1), PROCESS.sigmas[t].view(-1, 1, 1)
        return (sigma * (x - alpha * mean) / (alpha**2 * deviation**2 + sigma**2)).to(x.dtype)

    return denoise


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver++"])
def test_exact_denoiser_gives_the_data_distribution(sampler: str) -> None:
    mean, deviation = 0.3, 0.25
    grid = timestep_grid(100, 100, "leading")
    x = torch.randn(20_000, 1, 1, generator=torch.Generator().manual_seed(0))
    denoise = gaussian_denoiser(mean, deviation)
    if sampler == "ddpm":
        noise = torch.randn(100, 20_000, 1, 1, generator=torch.Generator().manual_seed(1))
        samples = ddpm(denoise, x, PROCESS, grid, clip=None, noise=noise)
    else:
        samples = (ddim if sampler == "ddim" else dpm_solver_pp)(denoise, x, PROCESS, grid, clip=None)
    assert float(samples.mean()) == pytest.approx(mean, abs=0.01)
    assert float(samples.std()) == pytest.approx(deviation, abs=0.02)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver++"])
def test_known_entries_are_given_to_every_evaluation_and_kept(sampler: str) -> None:
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[:, 0] = True
    seen = []

    def watching(x: Tensor, t: Tensor) -> Tensor:
        seen.append(x[:, 0].clone())
        return network(x, t)

    def known(x: Tensor) -> Tensor:
        return torch.where(mask, torch.full_like(x, 0.5), x)

    grid = timestep_grid(100, 4, "trailing")
    if sampler == "ddpm":
        result = ddpm(watching, start(), PROCESS, grid, noise=torch.randn(4, *SHAPE), known=known)
    else:
        result = (ddim if sampler == "ddim" else dpm_solver_pp)(watching, start(), PROCESS, grid, known=known)
    assert len(seen) == 4
    assert all(bool((values == 0.5).all()) for values in [*seen, result[:, 0]])
    assert not bool((result[:, 1:] == 0.5).any())


def test_coefficients_do_not_depend_on_the_dtype_of_the_sample() -> None:
    grid = timestep_grid(100, 4, "trailing")
    exact = ddim(network, start().double(), PROCESS, grid, target="sample")
    torch.testing.assert_close(
        ddim(network, start(), PROCESS, grid, target="sample").double(), exact, rtol=1e-5, atol=1e-5
    )


def test_input_scale_reaches_the_network() -> None:
    scaled = type(PROCESS)(PROCESS.alphas, PROCESS.sigmas, torch.full_like(PROCESS.alphas, 2.0))
    seen: list[Tensor] = []

    def watching(x: Tensor, t: Tensor) -> Tensor:
        seen.append(x)
        return x

    ddim(watching, start(), scaled, timestep_grid(100, 1, "trailing"), target="sample")
    torch.testing.assert_close(seen[0], 2.0 * start())
