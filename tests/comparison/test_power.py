"""What can be seen, against tables of the t test and against simulated comparisons."""

from __future__ import annotations

import numpy as np
import pytest

from policy_accel.comparison.power import Design, design_of, detectable, episodes_to_see, least, seeds_to_see
from policy_accel.comparison.statistics import Errors, TwoLevels, holm

DESIGN = Design(training=0.01**2, rest=0.15**2, interaction=2 * 0.05**2)


@pytest.mark.parametrize(("group", "effect"), [(17, 1.0), (26, 0.8), (64, 0.5), (394, 0.2)])
def test_the_sample_sizes_of_cohen(group: int, effect: float) -> None:
    """Cohen (1988), table 2.4.1: two-sided 5 %, power 80 %: subjects in each of two groups."""
    known, fewer = (detectable(Errors((2 / n) ** 0.5, 0.0, 2 * n - 2, 0), 0.05) for n in (group, group - 1))
    assert known <= effect * 1.005
    assert fewer > effect * 0.995


def test_no_error_sees_everything() -> None:
    assert detectable(Errors(0.0, 0.0, 4, 99), 0.05) == 0.0


@pytest.mark.parametrize("level", [0.05, 0.05 / 9, 0.001 / 30])
@pytest.mark.parametrize(("freedom", "episodes"), [(1, 1), (1, 199), (4, 49), (200, 5000)])
def test_two_errors_lie_between_the_larger_one_and_their_sum(level: float, freedom: int, episodes: int) -> None:
    """Each alone as Student's t; together wider than the larger one (5 % for what Satterthwaite's degrees of freedom
    round off), narrower than both added."""
    first, second = (detectable(Errors(*errors, freedom, episodes), level) for errors in ((1.0, 0.0), (0.0, 0.8)))
    both = detectable(Errors(1.0, 0.8, freedom, episodes), level)
    assert 0.95 * max(first, second) < both < 1.05 * (first + second)
    if freedom == 200:
        assert both == pytest.approx(1.64**0.5 * first, rel=0.015)


def test_errors_of_a_design_are_those_of_its_scores() -> None:
    """Variances put in come out of scores that have them, over and over."""
    generator, found = np.random.default_rng(0), []
    for _ in range(300):
        arms = [
            generator.normal(0, 0.01, (3, 1)) + generator.normal(0, 0.05, 100) + generator.normal(0, 0.15, (3, 100))
            for _ in range(2)
        ]
        levels, row = TwoLevels(arms, resamples=1), np.array([-1.0, 1.0])
        errors = levels.errors(row)
        found.append((errors.runs**2, errors.episodes**2))
        again = design_of(levels.spread(row), errors, 100, 2).errors(3, 100)
        if levels.spread(row).run > levels.spread(row).rest / 100:
            assert again == Errors(pytest.approx(errors.runs), pytest.approx(errors.episodes), 4, 99)
    made = DESIGN.errors(3, 100)
    assert np.mean(found, axis=0) == pytest.approx([made.runs**2, made.episodes**2], rel=0.15)


def test_a_detectable_difference_is_found_four_times_in_five() -> None:
    """Six arms, the last one better by what the variances say can be seen after Holm."""
    smallest, times = detectable(DESIGN.errors(5, 60), 0.05 / 5), 0
    for seed in range(200):
        generator = np.random.default_rng(seed)
        difficulty = generator.normal(0, 0.2, 60)
        arms = [
            generator.normal(0, 0.01, (5, 1))
            + difficulty
            + generator.normal(0, 0.05, 60)
            + generator.normal(0, 0.15, (5, 60))
            + (smallest if arm == 5 else 0.0)
            for arm in range(6)
        ]
        levels, unit = TwoLevels(arms, resamples=500, seed=seed), np.eye(6)
        times += holm([levels.estimate(row - unit[0]).p or 0.0 for row in unit[1:]])[-1] < 0.05
    assert times / 200 == pytest.approx(0.8, abs=3.5 * (0.8 * 0.2 / 200) ** 0.5)


def test_what_it_would_take() -> None:
    """The number that does, of which one less does not; and nothing where training luck alone is too much."""
    seeds = seeds_to_see(0.03, DESIGN, 200, 0.01)
    assert seeds is not None
    assert detectable(DESIGN.errors(seeds, 200), 0.01) <= 0.03 < detectable(DESIGN.errors(seeds - 1, 200), 0.01)
    episodes = episodes_to_see(0.05, DESIGN, 4, 0.01)
    assert episodes is not None
    assert detectable(DESIGN.errors(4, episodes), 0.01) <= 0.05 < detectable(DESIGN.errors(4, episodes - 1), 0.01)
    lucky = Design(training=0.05**2, rest=0.15**2, interaction=0.0)
    assert episodes_to_see(0.03, lucky, 3, 0.01) is None
    assert seeds_to_see(0.001, lucky, 200, 0.01) is None


def test_least() -> None:
    assert [least(lambda n, most=most: n >= most, 10) for most in (2, 7, 10, 11)] == [2, 7, 10, None]
