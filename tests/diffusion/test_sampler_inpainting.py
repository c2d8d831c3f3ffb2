"""A sampler that is given a part of its sample, and takes its steps again."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
from support.gaussian_data import CASES, DEVIATION, MEAN, OBJECTIVES, PROCESS, Exact, sampler_of, standard
from torch import Tensor

from policy_accel.diffusion import Objective
from policy_accel.diffusion.processes import CLEAN, Level


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
