from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from diffusers.schedulers import scheduling_ddpm
from scipy.optimize import brentq
from scipy.stats import norm
from torch import Tensor

from policy_accel.diffusion.continuous import FlowProcess, SigmaProcess
from policy_accel.diffusion.grid import Grid, timestep_grid
from policy_accel.diffusion.karhunen_loeve import karhunen_loeve_process
from policy_accel.diffusion.momentum import momentum_input_scale, momentum_process
from policy_accel.diffusion.predictions import TARGETS, predicted_sample
from policy_accel.diffusion.processes import DiscreteProcess, Level, Process, vp_process
from policy_accel.diffusion.samplers import (
    DETERMINISTIC_SAMPLERS,
    SAMPLERS,
    Predictor,
    ddim,
    ddpm,
    dpm_solver_pp,
    euler,
    heun,
    network_evaluations,
    start_scale,
)

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
    assert list(grid.next_timesteps) == [*expected[1:], -1]


@pytest.mark.parametrize(("steps", "spacing", "sentence"), [(0, "leading", "steps=0"), (101, "leading", "steps=101")])
def test_impossible_grids(steps: int, spacing: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        timestep_grid(100, steps, spacing)


def test_unknown_spacing() -> None:
    with pytest.raises(ValueError, match="did you mean 'trailing'"):
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
        Predictor(network, target=target, clip=1.0 if clip else None),
        start(),
        PROCESS,
        timestep_grid(100, steps, spacing),
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
    ours = ddim(Predictor(network, target=target, clip=1.0 if clip else None), start(), PROCESS, grid)
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
    ours = dpm_solver_pp(
        Predictor(network, target=target, clip=None), start(), PROCESS, Grid.of(scheduler.timesteps.tolist())
    )
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
        samples = ddpm(Predictor(denoise, clip=None), x, PROCESS, grid, noise=noise)
    else:
        samples = (ddim if sampler == "ddim" else dpm_solver_pp)(Predictor(denoise, clip=None), x, PROCESS, grid)
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

    def known(x: Tensor, level: Level) -> Tensor:
        return torch.where(mask, torch.full_like(x, 0.5), x)

    grid = timestep_grid(100, 4, "trailing")
    if sampler == "ddpm":
        result = ddpm(Predictor(watching, known=known), start(), PROCESS, grid, noise=torch.randn(4, *SHAPE))
    else:
        result = (ddim if sampler == "ddim" else dpm_solver_pp)(
            Predictor(watching, known=known), start(), PROCESS, grid
        )
    assert len(seen) == 4
    assert all(bool((values == 0.5).all()) for values in [*seen, result[:, 0]])
    assert not bool((result[:, 1:] == 0.5).any())


def test_coefficients_do_not_depend_on_the_dtype_of_the_sample() -> None:
    grid = timestep_grid(100, 4, "trailing")
    exact = ddim(Predictor(network, target="sample"), start().double(), PROCESS, grid)
    torch.testing.assert_close(
        ddim(Predictor(network, target="sample"), start(), PROCESS, grid).double(), exact, rtol=1e-5, atol=1e-5
    )


def test_input_scale_reaches_the_network() -> None:
    scaled = type(PROCESS)(PROCESS.alphas, PROCESS.sigmas, torch.full_like(PROCESS.alphas, 2.0))
    seen: list[Tensor] = []

    def watching(x: Tensor, t: Tensor) -> Tensor:
        seen.append(x)
        return x

    ddim(Predictor(watching, target="sample"), start(), scaled, timestep_grid(100, 1, "trailing"))
    torch.testing.assert_close(seen[0], 2.0 * start())


# Three modes in one dimension, with the exact denoiser in closed form.
WEIGHTS, MEANS, DEVIATION = np.array([0.25, 0.45, 0.3]), np.array([-0.8, 0.0, 0.6]), 0.1
POINTS = (np.arange(2000) + 0.5) / 2000
NORMAL = torch.tensor(norm.ppf(POINTS)).view(-1, 1)
QUANTILES = np.array([brentq(lambda x, p=p: WEIGHTS @ norm.cdf((x - MEANS) / DEVIATION) - p, -3, 3) for p in POINTS])

PROCESSES: dict[str, Process] = {
    "edm": SigmaProcess("edm"),
    "vp": SigmaProcess("vp"),
    "ve": SigmaProcess("ve"),
    "edm momentum": SigmaProcess("edm", "momentum", multiplier=1.0),
    "flow": FlowProcess(),
    "discrete": PROCESS,
    "natural": momentum_process(PROCESS, "natural"),
    "schedule": momentum_process(PROCESS, "schedule"),
    "kl vp_equivalent": karhunen_loeve_process(PROCESS, 16, "vp_equivalent"),
    "kl raw": karhunen_loeve_process(PROCESS, 16, "raw"),
}


def posterior_mean(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """E[x0 | x] of the three modes for x [N, 1] = alpha x0 + sigma n."""
    means, variance = torch.tensor(MEANS), alpha**2 * DEVIATION**2 + sigma**2
    share = (torch.tensor(WEIGHTS).log() - (x - alpha * means) ** 2 / (2 * variance)).softmax(dim=1)
    return (share * (means + alpha * DEVIATION**2 / variance * (x - alpha * means))).sum(dim=1, keepdim=True)


def told(process: Process, time: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """alpha, sigma and input scale [N, 1] from nothing but the time that the network is told."""
    assert time.dtype == (torch.int64 if isinstance(process, DiscreteProcess) else torch.float32)
    time = time.view(-1, 1)
    if isinstance(process, DiscreteProcess):
        return process.alphas[time], process.sigmas[time], process.input_scales[time]
    time = time.double()
    one = torch.ones_like(time)
    if isinstance(process, FlowProcess):
        return 1 - time / 1000, time / 1000, one
    if process.family == "edm":
        sigma = (4 * time).exp()
        momentum = momentum_input_scale(sigma, family="edm", multiplier=1.0)
        return one, sigma, momentum if process.input_scale == "momentum" else (sigma**2 + 0.25).rsqrt()
    if process.family == "ve":
        return one, 2 * time.exp(), one
    sigma = torch.expm1(0.1 * time / 999 + 9.95 * (time / 999) ** 2).sqrt()
    return one, sigma, (sigma**2 + 1).rsqrt()


def as_prediction(target: str, x0: Tensor, epsilon: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    if target == "edm":
        ratio = sigma / alpha
        c_skip, c_out = 0.25 / (ratio**2 + 0.25), 0.5 * ratio / (ratio**2 + 0.25) ** 0.5
        return (x0 - c_skip * (x0 + ratio * epsilon)) / c_out
    return {
        "epsilon": epsilon,
        "sample": x0,
        "v": alpha * epsilon - sigma * x0,
        "negative_epsilon": -epsilon,
        "flow": epsilon - x0,
    }[target]


def exact_denoiser(process: Process, target: str) -> Callable[[Tensor, Tensor], Tensor]:
    def denoise(model_input: Tensor, time: Tensor) -> Tensor:
        alpha, sigma, scale = told(process, time)
        x = model_input / scale
        x0 = posterior_mean(x, alpha, sigma)
        return as_prediction(target, x0, (x - alpha * x0) / sigma, alpha, sigma)

    return denoise


def distance(samples: Tensor) -> float:
    """Wasserstein-1 distance of samples [N, 1] to the three modes."""
    return float(np.abs(np.sort(samples.numpy()[:, 0]) - QUANTILES).mean())


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize(
    ("sampler", "steps", "tolerance"),
    [("ddim", 100, 0.011), ("euler", 100, 0.011), ("dpm_solver++", 50, 0.009), ("heun", 50, 0.007)],
)
def test_every_process_and_sampler_gives_the_three_modes(name: str, sampler: str, steps: int, tolerance: float) -> None:
    """The modes are 0.6 to 0.8 apart and 0.1 wide; the start is at the exact quantiles, so nothing is random."""
    process = PROCESSES[name]
    grid, target = process.grid(steps), process.targets[0]
    start_at = start_scale(process, grid) * NORMAL
    sampled = DETERMINISTIC_SAMPLERS[sampler](
        Predictor(exact_denoiser(process, target), target=target, clip=None), start_at, process, grid
    )
    assert distance(sampled) < tolerance
    nearest = np.abs(sampled.numpy() - MEANS).argmin(axis=1)
    for mode in range(3):
        assert np.mean(nearest == mode) == pytest.approx(WEIGHTS[mode], abs=0.015)
        assert float(sampled[nearest == mode].mean()) == pytest.approx(MEANS[mode], abs=0.01)


@pytest.mark.parametrize("name", PROCESSES)
def test_ancestral_sampling_of_every_process(name: str) -> None:
    process = PROCESSES[name]
    grid, target = process.grid(100), process.targets[0]
    noise = torch.randn(100, 2000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    sampled = ddpm(
        Predictor(exact_denoiser(process, target), target=target, clip=None),
        start_scale(process, grid) * NORMAL,
        process,
        grid,
        noise=noise,
    )
    assert distance(sampled) < 0.035  # 2000 draws of the modes themselves are 0.013 away on average


def test_ancestral_step_is_the_gaussian_posterior() -> None:
    alphas, sigmas = torch.tensor([0.9, 0.5]).double(), torch.tensor([0.3, 1.2]).double()
    process, x0, seen = DiscreteProcess(alphas, sigmas), 0.4, []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        seen.append(x)
        return torch.full_like(x, x0)

    x, noise = torch.tensor([[1.7]]).double(), torch.ones(2, 1, 1).double()
    for factor in (0.0, 1.0):
        ddpm(Predictor(denoise, target="sample", clip=None), x, process, Grid.of([1, 0]), noise=factor * noise)
    ratio = 0.5 / 0.9  # x_1 = ratio x_0' + fresh noise, given the clean sample: condition the joint Gaussian on x_1
    covariance, variance = ratio * 0.3**2, 1.2**2
    mean = 0.9 * x0 + covariance / variance * (1.7 - 0.5 * x0)
    deviation = math.sqrt(0.3**2 - covariance**2 / variance)
    assert float(seen[1]) == pytest.approx(mean, rel=1e-6)
    assert float(seen[3] - seen[1]) == pytest.approx(deviation, rel=1e-6)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("alpha", "sigma"), [(0.6, 0.8), (1.0, 3.0), (0.7, 0.3), (0.8, 1.1)])
def test_targets_are_inverted_for_any_alpha_and_sigma(target: str, alpha: float, sigma: float) -> None:
    x0, epsilon = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).unbind(0)
    a, s = torch.tensor([alpha, sigma], dtype=torch.float64).unbind(0)
    prediction, x = as_prediction(target, x0, epsilon, a, s), alpha * x0 + sigma * epsilon
    torch.testing.assert_close(predicted_sample(prediction, x, Level(alpha, sigma, 1.0, 0), target), x0)
    process = DiscreteProcess(torch.stack([a / 2, a]), torch.stack([s / 2, s]))
    for solver in (ddim, euler):
        seen: list[Tensor] = []

        def denoise(x: Tensor, t: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(x)
            return prediction

        solver(Predictor(denoise, target=target, clip=None), x, process, Grid.of([1, 0]))
        torch.testing.assert_close(seen[1], 0.5 * x)


def edm_reference(sigmas: list[float], x: np.ndarray, family: str, denoise: Callable[..., np.ndarray]) -> np.ndarray:
    """Algorithm 1 of Karras et al. 2022, with the preconditioning of its table 1 written out."""

    def D(x: np.ndarray, sigma: float) -> np.ndarray:
        if family == "edm":
            root = math.sqrt(sigma**2 + 0.25)
            return 0.25 / root**2 * x + 0.5 * sigma / root * denoise(x / root, math.log(sigma) / 4)
        if family == "vp":
            time = (math.sqrt(0.01 + 39.8 * math.log(1 + sigma**2)) - 0.1) / 19.9
            return x - sigma * denoise(x / math.sqrt(sigma**2 + 1), 999 * time)
        return x + sigma * denoise(x, math.log(sigma / 2))

    for here, there in pairwise(sigmas):
        slope = (x - D(x, here)) / here
        moved = x + (there - here) * slope
        if there > 0:
            moved = x + (there - here) * (slope + (moved - D(moved, there)) / there) / 2
        x = moved
    return x


@pytest.mark.parametrize("family", ["edm", "vp", "ve"])
@pytest.mark.parametrize("steps", [1, 2, 5, 18])
def test_heun_equals_the_published_algorithm(family: str, steps: int) -> None:
    process = SigmaProcess(family)
    low = 0.02 if family == "ve" else 0.002
    indices = np.arange(steps) / max(1, steps - 1)
    sigmas = [*((80 ** (1 / 7) + indices * (low ** (1 / 7) - 80 ** (1 / 7))) ** 7), 0.0]
    x = 80 * start().double()

    def numpy_network(x: np.ndarray, time: float) -> np.ndarray:
        return np.tanh(0.7 * x + np.sin(np.float64(np.float32(time)) / 17))

    ours = heun(
        Predictor(
            lambda x, t: torch.tanh(0.7 * x + torch.sin(t.double() / 17).view(-1, 1, 1)),
            target=process.targets[0],
            clip=None,
        ),
        x,
        process,
        process.grid(steps),
    )
    np.testing.assert_allclose(ours.numpy(), edm_reference(sigmas, x.numpy(), family, numpy_network), atol=2e-6)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_flow_is_integrated_along_its_own_time(steps: int) -> None:
    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(x) + torch.cos(t.double() / 300).view(-1, 1, 1)

    x = start().double()
    by_euler, by_heun = x, x
    for i in range(steps):
        here, there = 1000 * (1 - torch.tensor([i, i + 1]) / steps)
        by_euler = by_euler - velocity(by_euler, here) / steps
        slope = velocity(by_heun, here)
        if i < steps - 1:
            slope = 0.5 * (slope + velocity(by_heun - slope / steps, there))
        by_heun = by_heun - slope / steps
    process = FlowProcess()
    for solver, expected in [(euler, by_euler), (heun, by_heun)]:
        torch.testing.assert_close(
            solver(Predictor(velocity, target="flow", clip=None), x, process, process.grid(steps)),
            expected,
            rtol=1e-6,
            atol=1e-6,
        )


@pytest.mark.parametrize("name", PROCESSES)
def test_euler_is_ddim_until_the_sample_is_clipped(name: str) -> None:
    process = PROCESSES[name]
    grid, target = process.grid(8), process.targets[0]
    denoise, x = exact_denoiser(process, target), start_scale(process, grid) * NORMAL
    torch.testing.assert_close(
        euler(Predictor(denoise, target=target, clip=None), x, process, grid),
        ddim(Predictor(denoise, target=target, clip=None), x, process, grid),
        rtol=1e-9,
        atol=1e-9,
    )
    # One clipped step, not to the clean sample: the direction is that of the clipped sample.
    first = Grid(grid.timesteps[3:4], grid.next_timesteps[3:4])
    here, there = process.level(first.timesteps[0]), process.level(first.next_timesteps[0])
    x = torch.full((5, 1), 2 * here.sigma, dtype=torch.float64)
    clipped = euler(Predictor(denoise, target=target, clip=0.001), x, process, first)
    x0 = ddim(Predictor(denoise, target=target, clip=0.001), x, process, Grid(first.timesteps, (-1,)))
    assert float(x0[0]) == 0.001
    torch.testing.assert_close(clipped, there.alpha * x0 + there.sigma * (x - here.alpha * x0) / here.sigma)
    assert float((clipped - ddim(Predictor(denoise, target=target, clip=0.001), x, process, first)).abs().min()) > 1e-3


@pytest.mark.parametrize("solver", [ddim, dpm_solver_pp, euler, heun])
def test_only_the_signal_to_noise_ratio_matters(solver: Callable[..., Tensor]) -> None:
    """The pairs (alpha, sigma), (1, sigma / alpha) and (s, s sigma / alpha) are one process in three scales."""
    ratio = PROCESS.sigmas / PROCESS.alphas
    # The literal scale falls to 5e-4, where the start would lose its digits; this one stops at 0.04.
    s = momentum_input_scale(torch.linspace(0.01, 55, 100, dtype=torch.float64), family="edm", multiplier=1.0)
    grid = timestep_grid(100, 20, "trailing")
    results = []
    for alphas in (PROCESS.alphas, torch.ones_like(ratio), s):
        process = DiscreteProcess(alphas, alphas * ratio)
        begin = float(alphas[99] / PROCESS.alphas[99]) * NORMAL
        results.append(solver(Predictor(exact_denoiser(process, "epsilon"), clip=None), begin, process, grid))
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=1e-10)
    torch.testing.assert_close(results[2], results[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["natural", "sigma", "one"])
@pytest.mark.parametrize("steps", [8, 100])
def test_input_scale_leaves_the_samples_of_an_exact_denoiser(kind: str, steps: int) -> None:
    scaled, grid = momentum_process(PROCESS, kind), timestep_grid(100, steps, "trailing")
    plain = ddim(Predictor(exact_denoiser(PROCESS, "epsilon"), clip=None), NORMAL, PROCESS, grid)
    ours = ddim(Predictor(exact_denoiser(scaled, "epsilon"), clip=None), NORMAL, scaled, grid)
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-11)
    changed = momentum_process(PROCESS, "schedule")
    other = ddim(Predictor(exact_denoiser(changed, "epsilon"), clip=None), NORMAL, changed, grid)
    assert float((other - plain).abs().max()) > 1e-3


def heun_in_the_scaled_state(sigmas: list[float], multiplier: float) -> tuple[Tensor, int]:
    """Heun on the same ODE written for s x, which has the extra term (s' / s) s x; and its evaluations."""

    def scale(sigma: float) -> tuple[float, float]:
        position, reach = (sigma - 0.002) / 79.998, 79.998
        u = multiplier * (0.1 * position + 9.95 * position**2)
        slope = -u * math.exp(-u) * multiplier * (0.1 + 19.9 * position) / reach
        return (1 + u) * math.exp(-u), slope

    def slope(x: Tensor, sigma: float) -> Tensor:
        s, change = scale(sigma)
        at = torch.tensor(sigma, dtype=torch.float64)
        return change / s * x + s * (x / s - posterior_mean(x / s, torch.ones_like(at), at)) / sigma

    x, evaluations = scale(sigmas[0])[0] * sigmas[0] * NORMAL, 0
    for here, there in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        first = slope(x, here)
        evaluations += 1
        moved = x + (there - here) * first
        if there > 0:
            moved = x + (there - here) * (first + slope(moved, there)) / 2
            evaluations += 1
        x = moved
    return x, evaluations


def test_heun_belongs_in_the_unscaled_state() -> None:
    process = PROCESSES["edm momentum"]
    assert isinstance(process, SigmaProcess)
    errors = []
    for evaluations in (13, 17, 25, 35, 49, 79):
        grid = process.grid((evaluations + 1) // 2)
        sampled = heun(Predictor(exact_denoiser(process, "edm"), target="edm", clip=None), 80 * NORMAL, process, grid)
        errors.append(distance(sampled))
        for multiplier in (1.0, 2.0):
            scaled, count = heun_in_the_scaled_state(list(grid.timesteps), multiplier)
            assert count == evaluations
            assert distance(scaled) > (9 if evaluations >= 25 else 1.8) * errors[-1]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.05 * errors[0]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("name", ["discrete", "edm", "flow"])
def test_network_evaluations(sampler: str, steps: int, name: str) -> None:
    process, calls = PROCESSES[name], []

    def counting(x: Tensor, t: Tensor) -> Tensor:
        calls.append(t)
        return 0.1 * x

    grid, target = process.grid(steps), process.targets[0]
    if sampler == "ddpm":
        ddpm(Predictor(counting, target=target), start(), process, grid, noise=torch.randn(steps, *SHAPE))
    else:
        DETERMINISTIC_SAMPLERS[sampler](Predictor(counting, target=target), start(), process, grid)
    assert len(calls) == network_evaluations(sampler, steps)
    assert network_evaluations(sampler, 10) == (19 if sampler == "heun" else 10)


def test_start_scale() -> None:
    assert start_scale(PROCESS, timestep_grid(100, 8, "leading")) == 1.0
    assert start_scale(momentum_process(PROCESS, "schedule"), timestep_grid(100, 8, "trailing")) == 1.0
    assert start_scale(FlowProcess(), FlowProcess().grid(3)) == 1.0
    assert start_scale(SigmaProcess(), SigmaProcess().grid(7)) == pytest.approx(80.0)
    less_noise = DiscreteProcess(PROCESS.alphas, 0.9 * PROCESS.sigmas)
    assert start_scale(less_noise, timestep_grid(100, 8, "trailing")) == pytest.approx(0.9, rel=1e-6)


@pytest.mark.parametrize("solver", [euler, heun])
@pytest.mark.parametrize("name", ["discrete", "edm momentum", "flow", "natural"])
def test_known_entries_reach_the_network_unscaled(solver: Callable[..., Tensor], name: str) -> None:
    process, seen = PROCESSES[name], []
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[:, 0] = True

    def watching(x: Tensor, t: Tensor) -> Tensor:
        seen.append(x[:, 0].clone())
        return 0.1 * x

    result = solver(
        Predictor(
            watching, target=process.targets[0], known=lambda x, level: torch.where(mask, torch.full_like(x, 0.5), x)
        ),
        start(),
        process,
        process.grid(4),
    )
    assert len(seen) == (7 if solver is heun else 4)
    assert all(bool((values == 0.5).all()) for values in [*seen, result[:, 0]])
    assert not bool((result[:, 1:] == 0.5).any())


@pytest.mark.parametrize(
    ("process", "target", "sentence"),
    [
        (PROCESS, "epsilom", r"target .*did you mean 'epsilon'"),
        (FlowProcess(), "epsilon", r"target=epsilon .*pure noise"),
        (FlowProcess(), "edm", r"target=edm .*pure noise"),
    ],
)
def test_targets_that_cannot_be_sampled(process: Process, target: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ddim(Predictor(lambda x, t: x, target=target), start(), process, process.grid(2))
