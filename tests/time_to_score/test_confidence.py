"""The sequential decision: its definition, its error rate by Monte Carlo, and that it does decide."""

from __future__ import annotations

import math

import numpy as np
import pytest

from policy_accel.time_to_score.confidence import decide, interval

ALPHA = 0.1


def capitals(scores: list[float], target: float, alpha: float) -> tuple[float, float]:
    """The largest that K+ and K- ever were, as the equations have them, number by number."""
    plus = minus = largest_plus = largest_minus = 1.0
    total, squares = 0.5, 0.25
    for i, x in enumerate(scores, 1):
        stake = math.sqrt(2 * math.log(2 / alpha) / (squares / i * i * math.log(i + 1)))
        plus *= 1 + min(stake, 0.5 / target) * (x - target)
        minus *= 1 - min(stake, 0.5 / (1 - target)) * (x - target)
        largest_plus, largest_minus = max(largest_plus, plus), max(largest_minus, minus)
        total += x
        squares += (x - total / (i + 1)) ** 2
    return largest_plus, largest_minus


@pytest.mark.parametrize("target", [0.05, 0.4, 0.62, 0.9])
def test_decisions_are_those_of_the_equations(target: float) -> None:
    generator = np.random.default_rng(3)
    for size in (1, 5, 40, 120):
        scores = generator.beta(3, 2, size).tolist()
        plus, minus = capitals(scores, target, ALPHA)
        expected = "passed" if plus >= 2 / ALPHA else "failed" if minus >= 2 / ALPHA else "undecided"
        assert decide(scores, target, ALPHA) == expected


def test_the_interval_is_where_neither_capital_is_large() -> None:
    scores = np.random.default_rng(0).beta(4, 2, 150).tolist()
    low, high = interval(scores, ALPHA)
    assert 0 < low < np.mean(scores) < high < 1
    for off in (1e-6, -1e-6):
        assert (capitals(scores, low + off, ALPHA)[0] >= 2 / ALPHA) == (off < 0)
        assert (capitals(scores, high + off, ALPHA)[1] >= 2 / ALPHA) == (off > 0)
    assert decide(scores, low - 0.01, ALPHA) == "passed"
    assert decide(scores, high + 0.01, ALPHA) == "failed"
    assert decide(scores, np.mean(scores), ALPHA) == "undecided"
    assert interval([], ALPHA) == (0.0, 1.0)


def draws(kind: str, generator: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, float]:
    """Scores and their mean."""
    if kind == "success":
        return (generator.random(shape) < 0.9).astype(float), 0.9
    if kind == "half":
        return (generator.random(shape) < 0.5).astype(float), 0.5
    if kind == "skew":
        return generator.beta(9, 1, shape), 0.9
    return np.where(generator.random(shape) < 0.05, 1.0, 0.2 * generator.random(shape)), 0.05 + 0.95 * 0.1


@pytest.mark.parametrize("kind", ["success", "half", "skew", "rare"])
def test_wrong_at_any_time_no_more_often_than_stated(kind: str) -> None:
    """The target is the mean itself, where every decision is wrong and errors are most likely; one looks after every
    episode of 600. A fixed interval of the same level, looked at so often, is wrong in about half of the cases."""
    scores, mean = draws(kind, np.random.default_rng(7), (500, 600))
    decided = [decide(row, mean, ALPHA) for row in scores]
    wrong = sum(choice != "undecided" for choice in decided) / len(decided)
    assert wrong <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / len(decided))
    counts = np.arange(1, 601)
    means = scores.cumsum(1) / counts
    deviations = np.sqrt(np.maximum((scores**2).cumsum(1) / counts - means**2, 1e-12) / counts)
    fixed = (np.abs(means - mean) > 1.645 * deviations)[:, 20:].any(1).mean()
    assert fixed > 3 * ALPHA, "the test would see a decision that is not valid at all times"


def test_the_interval_covers_at_all_times() -> None:
    scores, mean = draws("skew", np.random.default_rng(1), (100, 200))
    covered = [low <= mean <= high for row in scores for low, high in [interval(row, ALPHA)]]
    assert np.mean(covered) >= 1 - ALPHA


def test_it_decides() -> None:
    """Policies 0.1 away from the target, which 400 episodes of success or failure tell apart."""
    generator = np.random.default_rng(5)
    above = [decide((generator.random(400) < 0.9).astype(float), 0.8, ALPHA) for _ in range(50)]
    below = [decide((generator.random(400) < 0.7).astype(float), 0.8, ALPHA) for _ in range(50)]
    assert above.count("passed") >= 45
    assert below.count("failed") >= 40
    assert decide(np.ones(60), 0.9, ALPHA) == "passed"
    assert decide(np.zeros(20), 0.5, ALPHA) == "failed"


def test_a_decision_stays() -> None:
    """More episodes do not take it back: the capital was once as large."""
    scores = [*np.ones(60), *np.zeros(200)]
    assert decide(scores, 0.9, ALPHA) == "passed"
