"""Costs over training seeds, against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from policy_accel.time_to_score.aggregate import Spend, geometric_mean, median, ratio


def reached(*costs: float) -> list[Spend]:
    return [Spend("reached", cost) for cost in costs]


NOT, UNSURE, BY = Spend("not reached", None), Spend("undecided", None), Spend("reached by", 80.0)


def test_the_mean_is_geometric_with_students_interval() -> None:
    found = geometric_mean(reached(100, 200, 800), 0.9)
    logs = np.log([100, 200, 800])
    low, high = scipy.stats.t.interval(0.9, 2, logs.mean(), scipy.stats.sem(logs))
    assert found.value == pytest.approx(scipy.stats.gmean([100, 200, 800]))
    assert found.interval == pytest.approx((math.exp(low), math.exp(high)))


def test_the_ratio_pairs_training_seeds() -> None:
    found = ratio(reached(10, 40, 90.9), reached(20, 80, 180), 0.95)
    assert found.interval == pytest.approx((0.5, 0.5), abs=0.01), "each is about half of its own"
    unpaired = ratio(reached(40, 10, 90), reached(20, 80, 180), 0.95)
    assert unpaired.interval is not None
    assert unpaired.interval[0] < 0.2 < 0.5 < unpaired.interval[1]


def test_the_interval_covers_a_known_ratio() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        base, own = np.exp(generator.normal(5, 0.3, (2, 3)))
        found = ratio(reached(*(0.7 * own)), reached(*base), 0.9)
        assert found.interval is not None
        covered += found.interval[0] <= 0.7 <= found.interval[1]
    assert covered / 400 == pytest.approx(0.9, abs=0.045)


@pytest.mark.parametrize(
    ("spends", "middle"),
    [
        (reached(1, 5, 100), 5),
        ([*reached(5, 100), NOT], 100),
        ([*reached(5), NOT, NOT], None),
        ([*reached(5, 6), UNSURE], None),
        ([*reached(5, 5), UNSURE], 5),
        ([UNSURE, NOT, NOT], None),
        ([*reached(50, 100, 100), BY, NOT], 100),
    ],
)
def test_the_median_counts_what_was_not_reached_as_dearest(spends: list[Spend], middle: float | None) -> None:
    assert median(spends) == middle


@pytest.mark.parametrize(
    ("spend", "why"),
    [
        (NOT, "it did not reach the target in 1 of 2 runs"),
        (UNSURE, "it is undecided in 1 of 2 runs"),
        (BY, "it has an earlier checkpoint that is undecided in 1 of 2 runs"),
    ],
)
def test_there_is_no_mean_of_what_is_not_there(spend: Spend, why: str) -> None:
    assert geometric_mean([*reached(5), spend], 0.9).value is None
    assert geometric_mean([*reached(5), spend], 0.9).why == why
    assert ratio(reached(5, 5), [*reached(5), spend], 0.9).why == why.replace("it", "the baseline", 1)


def test_costs_that_do_not_vary_have_no_interval() -> None:
    """All runs reach a target at the same checkpoint: how far they vary between two of them is not known."""
    found = geometric_mean(reached(800, 800, 800), 0.95)
    assert (found.value, found.interval, found.why) == (pytest.approx(800), None, "the same in all 3 runs")
    assert ratio(reached(10, 40, 90), reached(20, 80, 180), 0.95).interval is None


def test_one_seed_has_no_interval() -> None:
    found = ratio(reached(30), reached(20), 0.9)
    assert (found.value, found.interval, found.why) == (pytest.approx(1.5), None, "one training seed")
