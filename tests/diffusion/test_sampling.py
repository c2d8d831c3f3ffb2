from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from policy_accel.diffusion import DiscreteProcess, FlowProcess, Grid, Objective, SigmaProcess, vp_process
from policy_accel.diffusion.karhunen_loeve import karhunen_loeve_process
from policy_accel.diffusion.momentum import momentum_process
from policy_accel.diffusion.predictions import edm_coefficients
from policy_accel.diffusion.processes import CLEAN, Level
from policy_accel.diffusion.samplers import SAMPLERS
from policy_accel.diffusion.sampling import SamplingConfig, last_part, sample
from policy_accel.errors import UserError

PROCESS = vp_process("squaredcos_cap_v2", 100)
OBJECTIVES = {
    "ddpm": Objective(PROCESS, "v"),
    "ddpm linear, scaled data": Objective(vp_process("linear", 1000), "epsilon", data_scale=2.0),
    "natural": Objective(momentum_process(PROCESS, "natural"), "v"),
    "kl raw": Objective(karhunen_loeve_process(PROCESS, 16, "raw"), "epsilon"),
    "edm": Objective(SigmaProcess("edm"), "edm"),
    "edm, scaled data": Objective(SigmaProcess("edm"), "edm", data_scale=0.5),
    "edm momentum": Objective(SigmaProcess("edm", "momentum"), "edm"),
    "vp": Objective(SigmaProcess("vp"), "epsilon"),
    "ve": Objective(SigmaProcess("ve"), "negative_epsilon"),
    "flow": Objective(FlowProcess(), "flow"),
}
CASES = [(name, sampler) for name in OBJECTIVES for sampler in SAMPLERS]
MEAN, DEVIATION = 0.3, 0.2


def levels(objective: Objective, sampling: SamplingConfig) -> dict[float, Level]:
    """Levels of the grid by the time that the network is told."""
    found = [objective.process.level(t) for t in sampling.grid(objective.process).timesteps]
    return {round(float(level.time), 3): level for level in found}


class Exact:
    """The best denoiser of data N(MEAN, DEVIATION^2), independent entries, and what it was given."""

    def __init__(self, objective: Objective, sampling: SamplingConfig) -> None:
        self.objective, self.levels = objective, levels(objective, sampling)
        self.seen: list[tuple[Tensor, Level]] = []

    def __call__(self, model_input: Tensor, time: Tensor) -> Tensor:
        level = self.levels[round(float(time[0]), 3)]
        x, scale = model_input / level.input_scale, self.objective.data_scale
        self.seen.append((x, level))
        alpha, sigma, variance = level.alpha, level.sigma, (scale * DEVIATION) ** 2
        gain = alpha * variance / (alpha**2 * variance + sigma**2)
        x0 = scale * MEAN + gain * (x - alpha * scale * MEAN)
        epsilon = (x - alpha * x0) / sigma
        if self.objective.target == "edm":
            c_skip, c_out = edm_coefficients(sigma / alpha)
            return (x0 - c_skip / alpha * x) / c_out
        return {
            "epsilon": epsilon,
            "negative_epsilon": -epsilon,
            "v": alpha * epsilon - sigma * x0,
            "flow": epsilon - x0,
        }[self.objective.target]


def config(sampler: str, steps: int) -> SamplingConfig:
    return SamplingConfig(sampler=sampler, steps=steps)


def standard(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("strength", "kept"), [(1.0, 10), (0.96, 10), (0.94, 9), (0.5, 5), (0.1, 1), (0.01, 1), (1e-9, 1)]
)
def test_strength_keeps_the_last_part_of_the_grid(strength: float, kept: int) -> None:
    grid = Grid.of(range(90, -1, -10))
    part = last_part(grid, strength)
    assert part.timesteps == grid.timesteps[10 - kept :]
    assert part.next_timesteps == grid.next_timesteps[10 - kept :]


@pytest.mark.parametrize("strength", [0.0, -0.5, 1.01, math.nan])
def test_impossible_strengths(strength: float) -> None:
    with pytest.raises(UserError, match="strength"):
        last_part(Grid.of([2, 1, 0]), strength)


@pytest.mark.parametrize(("name", "sampler"), CASES)
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_an_edit_starts_from_the_image_at_the_level_of_its_first_step(name: str, sampler: str, strength: float) -> None:
    objective, sampling = OBJECTIVES[name], config(sampler, 6)
    image, noise = standard(3, 2, 4, seed=1), standard(3, sampling.noise_count, 2, 4)
    denoise = Exact(objective, sampling)
    sample(denoise, noise, objective, sampling, image=image, strength=strength)
    steps = round(strength * 6)
    assert len(denoise.seen) == (2 * steps - 1 if sampler == "heun" else steps)
    x, level = denoise.seen[0]
    assert level == list(denoise.levels.values())[6 - steps]
    expected = level.alpha * objective.data_scale * image + level.sigma * noise[:, 0]
    torch.testing.assert_close(x, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_denoised_image_is_what_the_flow_makes_of_it(name: str) -> None:
    """For Gaussian data the probability-flow ODE is linear: the deviation from the mean goes like the total spread."""
    objective = OBJECTIVES[name]
    process = objective.process
    sampling = config("ddim", process.timesteps if isinstance(process, DiscreteProcess) else 300)
    image, noise = 0.3 * standard(3, 2, 4, seed=1), standard(3, 1, 2, 4)
    denoise = Exact(objective, sampling)
    result = sample(denoise, noise, objective, sampling, image=image, strength=0.4)
    level, scale = denoise.seen[0][1], objective.data_scale
    start = level.alpha * image + level.sigma / scale * noise[:, 0]
    spread = math.sqrt((level.alpha * DEVIATION) ** 2 + (level.sigma / scale) ** 2)
    expected = MEAN + DEVIATION * (start - level.alpha * MEAN) / spread
    torch.testing.assert_close(result, expected, rtol=0, atol=0.03)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_strength_is_how_much_of_the_image_changes(name: str) -> None:
    objective, sampling = OBJECTIVES[name], config("ddim", 20)
    image, noise = MEAN + DEVIATION * standard(200, 4, seed=1), standard(200, 1, 4)
    likeness = []
    for strength in (0.05, 0.3, 0.6, 1.0):
        result = sample(Exact(objective, sampling), noise, objective, sampling, image=image, strength=strength)
        likeness.append(float(torch.corrcoef(torch.stack([result.flatten(), image.flatten()]))[0, 1]))
        assert float(result.mean()) == pytest.approx(MEAN, abs=0.05)
    assert likeness == sorted(likeness, reverse=True)
    assert likeness[0] > 0.9
    assert likeness[-1] < 0.15


def test_strength_one_is_generation_but_for_the_image_left_in_the_start() -> None:
    image, noise = standard(3, 4, seed=1), standard(3, 1, 4)

    def difference(objective: Objective, sampling: SamplingConfig) -> float:
        drawn = sample(Exact(objective, sampling), noise, objective, sampling)
        edited = sample(Exact(objective, sampling), noise, objective, sampling, image=image)
        return float((drawn - edited).abs().max())

    assert difference(OBJECTIVES["flow"], config("ddim", 10)) == 0.0
    assert difference(OBJECTIVES["ddpm"], config("ddim", 10)) < 1e-3
    linear = Objective(vp_process("linear", 1000), "epsilon")
    assert linear.process.level(999).alpha == pytest.approx(0.0064, abs=1e-4)
    assert difference(linear, config("ddim", 10)) < 5e-3
    assert difference(OBJECTIVES["edm"], config("ddim", 10)) < 0.01
    leading = SamplingConfig(steps=4, spacing="leading")
    assert difference(OBJECTIVES["ddpm"], leading) > 0.05


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_draws_may_come_one_by_one(sampler: str) -> None:
    objective, sampling = OBJECTIVES["edm"], config(sampler, 4)
    noise = standard(3, sampling.noise_count, 4)
    drawn = []

    def draws() -> object:
        for i in range(sampling.noise_count):
            drawn.append(i)
            yield noise[:, i]

    streamed = sample(Exact(objective, sampling), draws(), objective, sampling)
    assert torch.equal(streamed, sample(Exact(objective, sampling), noise, objective, sampling))
    assert len(drawn) == (4 if sampler == "ddpm" else 1)  # the last step adds none


@pytest.mark.parametrize(("name", "sampler"), CASES)
def test_known_is_told_the_level_of_the_state_in_the_units_of_the_data(name: str, sampler: str) -> None:
    """What the network sees of the known entries is the known image with noise of exactly the level of the step."""
    objective, sampling = OBJECTIVES[name], config(sampler, 5)
    image, noise = standard(3, 4, seed=1), standard(3, sampling.noise_count, 4)
    mask = torch.tensor([True, False, True, False])

    def known(x: Tensor, level: Level) -> Tensor:
        return torch.where(mask, level.alpha * image + level.sigma * noise[:, 0], x)

    denoise = Exact(objective, sampling)
    result = sample(denoise, noise, objective, sampling, known=known)
    assert torch.equal(result[:, mask], image[:, mask])
    assert len(denoise.seen) == sampling.network_evaluations
    for x, level in denoise.seen:
        expected = level.alpha * objective.data_scale * image + level.sigma * noise[:, 0]
        torch.testing.assert_close(x[:, mask], expected[:, mask], rtol=1e-6, atol=1e-6)
        assert float((x - expected)[:, ~mask].abs().max()) > 1e-3 or level is denoise.seen[0][1]


def test_the_result_is_asked_for_at_the_clean_level() -> None:
    asked: list[Level] = []

    def known(x: Tensor, level: Level) -> Tensor:
        asked.append(level)
        return x

    objective, sampling = OBJECTIVES["edm"], config("euler", 2)
    sample(Exact(objective, sampling), standard(1, 1, 2), objective, sampling, known=known)
    first, second = (objective.process.level(sigma) for sigma in (80.0, 0.002))  # type: ignore[union-attr]
    expected = []
    for level in (first, second):
        scale = level.input_scale
        expected += [(1.0, level.sigma), (scale, scale * level.sigma)]
    assert [(level.alpha, level.sigma) for level in asked] == [
        pytest.approx(pair, rel=1e-9) for pair in [*expected, (CLEAN.alpha, CLEAN.sigma)]
    ]


def pair_denoiser(correlation: float) -> Callable[[Tensor, Tensor], Tensor]:
    """The best sample prediction for two entries of variance 1 with a correlation."""
    covariance = torch.tensor([[1.0, correlation], [correlation, 1.0]], dtype=torch.float64)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = float(PROCESS.alphas[t[0]]), float(PROCESS.sigmas[t[0]])
        total = alpha**2 * covariance + sigma**2 * torch.eye(2, dtype=torch.float64)
        return x @ (alpha * torch.linalg.solve(total, covariance))

    return denoise


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_what_is_painted_follows_what_is_known(sampler: str) -> None:
    """Putting the known part back is not exact (Lugmayr et al. 2022, section 4.1, on why): it goes from the marginal, 0
    and 1, about half of the way to the conditional mean 0.9 * 1.5 and deviation 0.44."""
    objective, sampling = Objective(PROCESS, "sample"), SamplingConfig(sampler=sampler, steps=100)
    noise = standard(4000, sampling.noise_count, 2)
    mask = torch.tensor([True, False])

    def known(x: Tensor, level: Level) -> Tensor:
        return torch.where(mask, level.alpha * 1.5 + level.sigma * noise[:, 0], x)

    painted = sample(pair_denoiser(0.9), noise, objective, sampling, known=known)[:, 1]
    free = sample(pair_denoiser(0.9), noise, objective, sampling)[:, 1]
    assert float(free.mean()) == pytest.approx(0.0, abs=0.05)
    assert float(free.std()) == pytest.approx(1.0, abs=0.05)
    assert 0.6 < float(painted.mean()) < 1.35
    assert 0.44 < float(painted.std()) < 0.75


def test_taking_steps_again_brings_it_to_the_conditional_distribution() -> None:
    objective, sampling = Objective(PROCESS, "sample"), SamplingConfig(sampler="ddpm", steps=20)
    generator = torch.Generator().manual_seed(0)
    drawn: list[Tensor] = []

    def draws() -> Iterator[Tensor]:
        while True:
            drawn.append(torch.randn(4000, 2, dtype=torch.float64, generator=generator))
            yield drawn[-1]

    def known(x: Tensor, level: Level) -> Tensor:
        return torch.where(torch.tensor([True, False]), level.alpha * 1.5 + level.sigma * drawn[0], x)

    painted = sample(pair_denoiser(0.9), draws(), objective, sampling, known=known, resamplings=5)[:, 1]
    assert float(painted.mean()) == pytest.approx(1.35, abs=0.12)
    assert float(painted.std()) == pytest.approx(0.436, abs=0.05)
    # x_T; 20 steps taken 5 times, of which those to the clean sample add nothing; 4 ways back up for each.
    assert len(drawn) == 1 + 19 * 5 + 20 * 4


@pytest.mark.parametrize("name", ["ddpm", "edm", "kl raw", "flow"])
def test_taking_steps_again_leaves_the_distribution(name: str) -> None:
    """Many steps, because the small variance of the ancestral step loses spread at few."""
    steps = 100 if isinstance(OBJECTIVES[name].process, DiscreteProcess) else 500
    objective, sampling = OBJECTIVES[name], config("ddpm", steps)
    generator = torch.Generator().manual_seed(0)
    denoise = Exact(objective, sampling)
    noise = (torch.randn(4000, 1, dtype=torch.float64, generator=generator) for _ in itertools.count())
    drawn = sample(denoise, noise, objective, sampling, resamplings=2)
    assert len(denoise.seen) == 2 * steps
    assert float(drawn.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(drawn.std()) == pytest.approx(DEVIATION, rel=0.12)


@pytest.mark.parametrize(
    ("resamplings", "sampler", "sentence"),
    [(0, "ddpm", "resamplings=0 must be at least 1"), (2, "ddim", "resamplings=2 .*only sampling.sampler=ddpm.*ddim")],
)
def test_resamplings_that_cannot_be_done(resamplings: int, sampler: str, sentence: str) -> None:
    objective, sampling = OBJECTIVES["ddpm"], config(sampler, 4)
    noise = standard(2, sampling.noise_count, 2)
    with pytest.raises(UserError, match=sentence):
        sample(Exact(objective, sampling), noise, objective, sampling, resamplings=resamplings)
