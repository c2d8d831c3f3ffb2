from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from policy_accel.diffusion import FlowProcess, Objective, Sampler, SigmaProcess, vp_process
from policy_accel.diffusion.config import SamplingConfig
from policy_accel.diffusion.grid import timestep_grid
from policy_accel.diffusion.karhunen_loeve import karhunen_loeve_process
from policy_accel.diffusion.momentum import momentum_process
from policy_accel.diffusion.predictions import edm_coefficients
from policy_accel.diffusion.processes import CLEAN, Level
from policy_accel.diffusion.samplers import DETERMINISTIC_SAMPLERS, SAMPLERS, Predictor, ddpm
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
# Heun is refused for so few steps of discrete times.
CASES = [
    (name, kind)
    for name, objective in OBJECTIVES.items()
    for kind in SAMPLERS
    if kind != "heun" or objective.process.timesteps is None
]
MEAN, DEVIATION = 0.3, 0.2


def levels(sampler: Sampler) -> dict[float, Level]:
    """Levels of the grid by the time that the network is told."""
    found = [sampler.objective.process.level(t) for t in sampler.grid.timesteps]
    return {round(float(level.time), 3): level for level in found}


class Exact:
    """The best denoiser of data N(MEAN, DEVIATION^2), independent entries, and what it was given."""

    def __init__(self, sampler: Sampler) -> None:
        self.objective, self.levels = sampler.objective, levels(sampler)
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


def sampler_of(objective: str | Objective, sampler: str, steps: int, spacing: str = "trailing") -> Sampler:
    """A sampler without a bound."""
    objective = OBJECTIVES[objective] if isinstance(objective, str) else objective
    return Sampler(objective, SamplingConfig(sampler, steps, spacing, clip_sample=None))


def standard(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("strength", "kept"), [(1.0, 10), (0.96, 10), (0.94, 9), (0.5, 5), (0.1, 1), (0.01, 1), (1e-9, 1)]
)
def test_strength_keeps_the_last_part_of_the_grid(strength: float, kept: int) -> None:
    sampler = sampler_of("ddpm", "ddim", 10)
    denoise = Exact(sampler)
    sampler(denoise, standard(2, 1, 3), start=standard(2, 3, seed=1), strength=strength)
    assert [level.time for _, level in denoise.seen] == list(sampler.grid.timesteps[10 - kept :])
    assert sampler.network_evaluations(strength) == kept


@pytest.mark.parametrize("strength", [0.0, -0.5, 1.01, math.nan])
def test_impossible_strengths(strength: float) -> None:
    sampler = sampler_of("ddpm", "ddim", 3)
    with pytest.raises(ValueError, match=f"strength={strength} must be above 0"):
        sampler(Exact(sampler), standard(2, 1, 3), start=standard(2, 3), strength=strength)


@pytest.mark.parametrize(("name", "kind"), CASES)
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_an_edit_starts_from_the_image_at_the_level_of_its_first_step(name: str, kind: str, strength: float) -> None:
    sampler = sampler_of(name, kind, 6)
    image, noise = standard(3, 2, 4, seed=1), standard(3, sampler.noise_count, 2, 4)
    denoise = Exact(sampler)
    sampler(denoise, noise, start=image, strength=strength)
    steps = round(strength * 6)
    assert len(denoise.seen) == (2 * steps - 1 if kind == "heun" else steps)
    x, level = denoise.seen[0]
    assert level == list(denoise.levels.values())[6 - steps]
    expected = level.alpha * sampler.objective.data_scale * image + level.sigma * noise[:, 0]
    torch.testing.assert_close(x, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_denoised_image_is_what_the_flow_makes_of_it(name: str) -> None:
    """For Gaussian data the probability-flow ODE is linear: the deviation from the mean goes like the total spread."""
    sampler = sampler_of(name, "ddim", OBJECTIVES[name].process.timesteps or 300)
    image, noise = 0.3 * standard(3, 2, 4, seed=1), standard(3, 1, 2, 4)
    denoise = Exact(sampler)
    result = sampler(denoise, noise, start=image, strength=0.4)
    level, scale = denoise.seen[0][1], sampler.objective.data_scale
    start = level.alpha * image + level.sigma / scale * noise[:, 0]
    spread = math.sqrt((level.alpha * DEVIATION) ** 2 + (level.sigma / scale) ** 2)
    expected = MEAN + DEVIATION * (start - level.alpha * MEAN) / spread
    torch.testing.assert_close(result, expected, rtol=0, atol=0.03)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_strength_is_how_much_of_the_image_changes(name: str) -> None:
    sampler = sampler_of(name, "ddim", 20)
    image, noise = MEAN + DEVIATION * standard(200, 4, seed=1), standard(200, 1, 4)
    likeness = []
    for strength in (0.05, 0.3, 0.6, 1.0):
        result = sampler(Exact(sampler), noise, start=image, strength=strength)
        likeness.append(float(torch.corrcoef(torch.stack([result.flatten(), image.flatten()]))[0, 1]))
        assert float(result.mean()) == pytest.approx(MEAN, abs=0.05)
    assert likeness == sorted(likeness, reverse=True)
    assert likeness[0] > 0.9
    assert likeness[-1] < 0.15


def test_strength_one_is_generation_but_for_the_image_left_in_the_start() -> None:
    image, noise = standard(3, 4, seed=1), standard(3, 1, 4)

    def difference(sampler: Sampler) -> float:
        drawn = sampler(Exact(sampler), noise)
        edited = sampler(Exact(sampler), noise, start=image)
        return float((drawn - edited).abs().max())

    assert difference(sampler_of("flow", "ddim", 10)) == 0.0
    assert difference(sampler_of("ddpm", "ddim", 10)) < 1e-3
    linear = Objective(vp_process("linear", 1000), "epsilon")
    assert linear.process.level(999).alpha == pytest.approx(0.0064, abs=1e-4)
    assert difference(sampler_of(linear, "ddim", 10)) < 5e-3
    assert difference(sampler_of("edm", "ddim", 10)) < 0.01
    assert difference(sampler_of("ddpm", "ddim", 4, "leading")) > 0.05


@pytest.mark.parametrize("kind", SAMPLERS)
def test_draws_may_come_one_by_one(kind: str) -> None:
    sampler = sampler_of("edm", kind, 4)
    noise = standard(3, sampler.noise_count, 4)
    drawn = []

    def draws() -> object:
        for i in range(sampler.noise_count):
            drawn.append(i)
            yield noise[:, i]

    streamed = sampler(Exact(sampler), draws())
    assert torch.equal(streamed, sampler(Exact(sampler), noise))
    assert len(drawn) == (4 if kind == "ddpm" else 1)  # the last step adds none


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_known_is_told_the_level_of_the_state_in_the_units_of_the_data(name: str, kind: str) -> None:
    """What the network sees of the known entries is the known image with noise of exactly the level of the step."""
    sampler = sampler_of(name, kind, 5)
    image, noise = standard(3, 4, seed=1), standard(3, sampler.noise_count, 4)
    mask = torch.tensor([True, False, True, False])

    def known(x: Tensor, level: Level) -> Tensor:
        return torch.where(mask, level.alpha * image + level.sigma * noise[:, 0], x)

    denoise = Exact(sampler)
    result = sampler(denoise, noise, known=known)
    assert torch.equal(result[:, mask], image[:, mask])
    assert len(denoise.seen) == sampler.network_evaluations()
    for x, level in denoise.seen:
        expected = level.alpha * sampler.objective.data_scale * image + level.sigma * noise[:, 0]
        torch.testing.assert_close(x[:, mask], expected[:, mask], rtol=1e-6, atol=1e-6)
        assert float((x - expected)[:, ~mask].abs().max()) > 1e-3 or level is denoise.seen[0][1]


def test_the_result_is_asked_for_at_the_clean_level() -> None:
    asked: list[Level] = []

    def known(x: Tensor, level: Level) -> Tensor:
        asked.append(level)
        return x

    sampler = sampler_of("edm", "euler", 2)
    sampler(Exact(sampler), standard(1, 1, 2), known=known)
    first, second = (sampler.objective.process.level(sigma) for sigma in (80.0, 0.002))
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


@pytest.mark.parametrize("kind", ["ddpm", "ddim"])
def test_what_is_painted_follows_what_is_known(kind: str) -> None:
    """Putting the known part back is not exact (Lugmayr et al. 2022, section 4.1, on why): it goes from the marginal, 0
    and 1, about half of the way to the conditional mean 0.9 * 1.5 and deviation 0.44."""
    sampler = sampler_of(Objective(PROCESS, "sample"), kind, 100)
    noise = standard(4000, sampler.noise_count, 2)
    mask = torch.tensor([True, False])

    def known(x: Tensor, level: Level) -> Tensor:
        return torch.where(mask, level.alpha * 1.5 + level.sigma * noise[:, 0], x)

    painted = sampler(pair_denoiser(0.9), noise, known=known)[:, 1]
    free = sampler(pair_denoiser(0.9), noise)[:, 1]
    assert float(free.mean()) == pytest.approx(0.0, abs=0.05)
    assert float(free.std()) == pytest.approx(1.0, abs=0.05)
    assert 0.6 < float(painted.mean()) < 1.35
    assert 0.44 < float(painted.std()) < 0.75


def test_taking_steps_again_brings_it_to_the_conditional_distribution() -> None:
    sampler = sampler_of(Objective(PROCESS, "sample"), "ddpm", 20)
    generator = torch.Generator().manual_seed(0)
    drawn: list[Tensor] = []

    def draws() -> Iterator[Tensor]:
        while True:
            drawn.append(torch.randn(4000, 2, dtype=torch.float64, generator=generator))
            yield drawn[-1]

    def known(x: Tensor, level: Level) -> Tensor:
        return torch.where(torch.tensor([True, False]), level.alpha * 1.5 + level.sigma * drawn[0], x)

    painted = sampler(pair_denoiser(0.9), draws(), known=known, resamplings=5)[:, 1]
    assert float(painted.mean()) == pytest.approx(1.35, abs=0.12)
    assert float(painted.std()) == pytest.approx(0.436, abs=0.05)
    # x_T; 20 steps taken 5 times, of which those to the clean sample add nothing; 4 ways back up for each.
    assert len(drawn) == 1 + 19 * 5 + 20 * 4


@pytest.mark.parametrize("name", ["ddpm", "edm", "kl raw", "flow"])
def test_taking_steps_again_leaves_the_distribution(name: str) -> None:
    """Many steps, because the small variance of the ancestral step loses spread at few."""
    steps = OBJECTIVES[name].process.timesteps or 500
    sampler = sampler_of(name, "ddpm", steps)
    generator = torch.Generator().manual_seed(0)
    denoise = Exact(sampler)
    noise = (torch.randn(4000, 1, dtype=torch.float64, generator=generator) for _ in itertools.count())
    drawn = sampler(denoise, noise, resamplings=2)
    assert len(denoise.seen) == 2 * steps
    assert float(drawn.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(drawn.std()) == pytest.approx(DEVIATION, rel=0.12)


@pytest.mark.parametrize(
    ("resamplings", "kind", "sentence"),
    [
        (0, "ddpm", "resamplings=0 must be at least 1"),
        (2, "ddim", "resamplings=2 .*only the sampler ddpm .*ddim"),
    ],
)
def test_resamplings_that_cannot_be_done(resamplings: int, kind: str, sentence: str) -> None:
    sampler = sampler_of("ddpm", kind, 4)
    noise = standard(2, sampler.noise_count, 2)
    with pytest.raises(ValueError, match=sentence):
        sampler(Exact(sampler), noise, resamplings=resamplings)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_sampler_is_its_function_with_the_objective_and_the_settings(kind: str) -> None:
    """Grid, target, bound and scale reach the function; x_T is its start."""
    objective = Objective(PROCESS, "epsilon", data_scale=0.5)
    sampler = Sampler(objective, SamplingConfig(kind, 60, "leading", clip_sample=0.3))
    noise = standard(3, sampler.noise_count, 4)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return (3.0 * x).sin()

    function: Callable[..., Tensor] = {"ddpm": ddpm, **DETERMINISTIC_SAMPLERS}[kind]
    fresh = {"noise": noise.unbind(1)[1:]} if kind == "ddpm" else {}
    grid = timestep_grid(100, 60, "leading")
    expected = function(Predictor(denoise, target="epsilon", clip=0.15), noise[:, 0], PROCESS, grid, **fresh) / 0.5
    result = sampler(denoise, noise)
    assert torch.equal(result, expected)
    free = replace(sampler, config=replace(sampler.config, clip_sample=None))
    assert not torch.equal(free(denoise, noise), result)


@pytest.mark.parametrize(
    ("objective", "settings", "sentence"),
    [
        ("ddpm", {"sampler": "dimm"}, r"sampling.sampler 'dimm' is unknown; did you mean 'ddim'"),
        ("ddpm", {"steps": 101}, r"sampling.steps=101 must lie between 1 and diffusion.timesteps=100"),
        ("ddpm", {"spacing": "even"}, r"sampling.spacing 'even' is unknown"),
        ("ddpm", {"clip_sample": 0.0}, r"sampling.clip_sample=0.0 must be positive, or null"),
        ("ddpm", {"sampler": "heun", "steps": 8}, r"sampling.sampler=heun averages slopes"),
        ("edm", {"steps": 0}, r"sampling.steps=0 must be at least 1"),
        ("flow", {"spacing": "leading"}, r"sampling.spacing=leading has no effect in continuous time"),
        ("ddpm", {"times": []}, r"sampling.times=\[\] must name at least one"),
        ("ddpm", {"times": [100, 25]}, r"sampling.times=\[100, 25\]: 100 must be an integer from 0 to 99"),
        ("ddpm", {"times": [99, 24.5]}, r"sampling.times=.*: 24.5 must be an integer from 0 to 99"),
        ("ddpm", {"times": [99, -1]}, r"sampling.times=.*: -1 must be an integer"),
        ("edm", {"times": [81.0]}, r"sampling.times=.*: 81.0 must be from 0.002 to 80"),
        ("flow", {"times": [1, 0]}, r"sampling.times=.*: 0 must be from above 0 to 1"),
        ("flow", {"times": [math.nan]}, r"sampling.times=.*: nan must be from above 0 to 1"),
        ("ddpm", {"times": [99, 25, 50]}, r"sampling.times=\[99, 25, 50\] goes from 25 to 50, .*ddpm does, not ddim"),
        ("flow", {"times": [1.0, 1.0]}, r"sampling.times=.* goes from 1.0 to 1.0, .*ddpm does, not ddim"),
        ("ddpm", {"times": [99, 25], "sampler": "heun"}, r"at least 50 steps there, not 2; choose ddim"),
    ],
)
def test_wrong_settings_are_refused_when_a_sampler_is_made(
    objective: str, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        Sampler(OBJECTIVES[objective], SamplingConfig(**settings))


def test_a_sampler_keeps_the_settings_that_it_was_made_with() -> None:
    settings = SamplingConfig("ddpm", 4)
    sampler = Sampler(OBJECTIVES["ddpm"], settings)
    settings.steps = 400
    assert len(sampler.grid.timesteps) == 4
    assert sampler.noise_count == 5
    settings = SamplingConfig("ddpm", times=[99, 25])
    sampler = Sampler(OBJECTIVES["ddpm"], settings)
    assert settings.times is not None
    settings.times.append(5)
    assert sampler.grid.timesteps == (99, 25)


@pytest.mark.parametrize(("kind", "evaluations"), [("ddim", 4), ("heun", 7), ("ddpm", 4)])
def test_evaluations_are_those_of_the_steps_taken(kind: str, evaluations: int) -> None:
    sampler = sampler_of("edm", kind, 8)
    assert sampler.network_evaluations(0.5) == evaluations
    denoise = Exact(sampler)
    sampler(denoise, standard(2, sampler.noise_count, 2), start=standard(2, 2, seed=1), strength=0.5)
    assert len(denoise.seen) == evaluations


def of_times(objective: str, sampler: str, *times: float) -> Sampler:
    return Sampler(OBJECTIVES[objective], SamplingConfig(sampler, times=list(times), clip_sample=None))


TIMES = {
    "ddpm": (99, 60, 20),
    "edm": (80.0, 2.0, 0.3),
    "vp": (80.0, 2.0, 0.3),
    "ve": (80.0, 2.0, 0.3),
    "flow": (1.0, 0.6, 0.2),
}


@pytest.mark.parametrize(("name", "kind"), [case for case in CASES if case[0] in TIMES])
def test_times_take_the_place_of_steps_and_spacing(name: str, kind: str) -> None:
    sampler = of_times(name, kind, *TIMES[name])
    denoise = Exact(sampler)
    noise = standard(2, sampler.noise_count, 4)
    result = sampler(denoise, noise)
    asked = [sampler.objective.process.level(t) for t in TIMES[name]]
    seen = [level for _, level in denoise.seen]
    expected = [asked[0], *(level for level in asked[1:] for _ in range(2))] if kind == "heun" else asked
    assert seen == expected
    assert sampler.network_evaluations() == len(seen)
    assert sampler.noise_count == (4 if kind == "ddpm" else 1)
    assert sampler.network_evaluations(0.34) == 1
    same = replace(sampler, config=replace(sampler.config, steps=50, spacing="trailing"))
    assert torch.equal(same(Exact(same), noise), result)


def test_the_times_of_an_even_grid_are_that_grid() -> None:
    even = sampler_of("ddpm", "dpm_solver++", 8)
    own = of_times("ddpm", "dpm_solver++", *even.grid.timesteps)
    assert own.grid == even.grid
    noise = standard(3, 1, 4)
    assert torch.equal(own(Exact(own), noise), even(Exact(even), noise))
    assert own.config.with_steps(8) == even.config


def test_two_evaluations_at_chosen_times_by_hand() -> None:
    """x_99 is noise; x_25 keeps the noise that was seen in it (Song et al. 2021, equation 12)."""
    sampler = Sampler(Objective(PROCESS, "sample"), SamplingConfig("ddim", times=[99, 25], clip_sample=None))
    noise = standard(3, 1, 4)
    at = {t: (float(PROCESS.alphas[t]), float(PROCESS.sigmas[t])) for t in (99, 25)}
    x0 = (2.0 * noise[:, 0]).sin()
    epsilon = (noise[:, 0] - at[99][0] * x0) / at[99][1]
    expected = (2.0 * (at[25][0] * x0 + at[25][1] * epsilon)).sin()
    torch.testing.assert_close(sampler(lambda x, t: (2.0 * x).sin(), noise), expected)


def test_a_restart_adds_noise_anew_to_the_clean_sample() -> None:
    """By hand for 99, 25 and up to 50: what is seen at 50 is alpha x0 + sigma epsilon of the prediction at 25, and the
    step from 25 draws nothing else."""
    sampler = Sampler(Objective(PROCESS, "sample"), SamplingConfig("ddpm", times=[99, 25, 50], clip_sample=None))
    assert sampler.grid.next_timesteps == (25, -1, -1)
    assert sampler.network_evaluations() == 3
    seen: list[Tensor] = []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        seen.append(x)
        return (2.0 * x).sin()

    noise = standard(3, sampler.noise_count, 4)
    result = sampler(denoise, noise)
    x0 = (2.0 * seen[1]).sin()
    torch.testing.assert_close(seen[2], PROCESS.alphas[50] * x0 + PROCESS.sigmas[50] * noise[:, 2])
    torch.testing.assert_close(result, (2.0 * seen[2]).sin())


@pytest.mark.parametrize("name", ["ddpm", "edm", "flow"])
def test_restarts_leave_the_distribution(name: str) -> None:
    """Down to the clean sample, up to a middle level and down again, 100 and 60 steps."""
    first = OBJECTIVES[name].process.grid(100).timesteps
    sampler = of_times(name, "ddpm", *first, *first[40:])
    generator = torch.Generator().manual_seed(0)
    noise = (torch.randn(4000, 1, dtype=torch.float64, generator=generator) for _ in itertools.count())
    drawn = sampler(Exact(sampler), noise)
    assert float(drawn.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(drawn.std()) == pytest.approx(DEVIATION, rel=0.12)


def test_a_result_states_how_many_steps_times_are() -> None:
    config = SamplingConfig("ddpm", times=[99, 25])
    assert config.record() == {
        "sampler": "ddpm",
        "steps": 2,
        "spacing": None,
        "times": [99, 25],
        "clip_sample": 1.0,
    }
    assert SamplingConfig().record() == {
        "sampler": "ddim",
        "steps": 8,
        "spacing": "trailing",
        "times": None,
        "clip_sample": 1.0,
    }
