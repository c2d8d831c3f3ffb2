"""A sampler that starts from an image, by strength."""

from __future__ import annotations

import math

import pytest
import torch
from support.gaussian_data import CASES, DEVIATION, MEAN, OBJECTIVES, Exact, sampler_of, standard

from policy_accel.diffusion import Objective, Sampler, vp_process


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


@pytest.mark.parametrize(("kind", "evaluations"), [("ddim", 4), ("heun", 7), ("ddpm", 4)])
def test_evaluations_are_those_of_the_steps_taken(kind: str, evaluations: int) -> None:
    sampler = sampler_of("edm", kind, 8)
    assert sampler.network_evaluations(0.5) == evaluations
    denoise = Exact(sampler)
    sampler(denoise, standard(2, sampler.noise_count, 2), start=standard(2, 2, seed=1), strength=0.5)
    assert len(denoise.seen) == evaluations
