"""Kendall's tau of surrogates, against scipy's, and when it may be trusted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats

from policy_accel.time_to_score.correlation import Point, across, within


def points(noise: float, methods: int = 3, seeds: int = 3, steps: int = 5, seed: int = 0, follow: str = "both"):
    """Scores with an effect of the method and of the step; the surrogate sees one of them, or both, and noise."""
    generator = np.random.default_rng(seed)
    found = []
    for method, run, step in itertools.product(range(methods), range(seeds), range(steps)):
        score = 0.2 * method + step + 0.02 * generator.random()
        seen = {"both": score, "step": step, "method": 0.2 * method}[follow]
        found.append(Point(f"m{method}", run, step, score, -seen + noise * generator.standard_normal()))
    return found


def test_tau_of_one_run_is_scipys() -> None:
    sample = points(1.0, methods=1, seeds=1, steps=30)
    expected = scipy.stats.kendalltau([p.score for p in sample], [-p.surrogate for p in sample]).statistic
    found = within(sample, 0.95)
    assert found.tau == pytest.approx(expected)
    assert found.pairs == 435
    assert found.interval is None
    assert not found.trusted, "one training seed"


def test_tau_across_methods_compares_equal_steps_alone() -> None:
    sample = points(0.3)
    pairs = [(a, b) for a, b in itertools.combinations(sample, 2) if a.step == b.step and a.method != b.method]
    agree = [(a.score - b.score) * (a.surrogate - b.surrogate) < 0 for a, b in pairs]
    found = across(sample, 0.95)
    assert found.pairs == len(pairs) == 5 * 3 * 9
    assert found.tau == pytest.approx(2 * np.mean(agree) - 1)


def test_a_surrogate_that_follows_the_training_does_not_rank_methods() -> None:
    blind = points(0.05, follow="step")
    assert within(blind, 0.95).trusted
    assert not across(blind, 0.95).trusted
    good = points(0.02)
    assert within(good, 0.95).trusted
    assert across(good, 0.95).trusted
    constant = points(0.0, follow="method")
    assert within(constant, 0.95).tau == 0, "ties say nothing"


def test_checkpoints_of_one_score_are_no_pair() -> None:
    equal = [Point("m", 0, step, score, step) for step, score in enumerate((0.0, 0.0, 0.0, 0.5))]
    found = within(equal, 0.95)
    assert (found.tau, found.pairs) == (-1.0, 3)


def test_worse_is_the_other_sign() -> None:
    upside_down = [Point(p.method, p.seed, p.step, p.score, -p.surrogate) for p in points(0.0)]
    assert across(upside_down, 0.95).tau == -1
    assert not across(upside_down, 0.95).trusted


def test_trust_takes_three_seeds() -> None:
    assert within(points(0.0, seeds=3), 0.95).trusted
    two = within(points(0.0, seeds=2), 0.95)
    assert two.interval == (1.0, 1.0)
    assert not two.trusted


def test_the_jackknife_is_that_of_the_formula() -> None:
    sample = points(0.4, seeds=4)
    tau = across(sample, 0.9).tau
    left = [across([p for p in sample if p.seed != seed], 0.9).tau for seed in range(4)]
    pseudo = 4 * tau - 3 * np.array(left)
    low, high = scipy.stats.t.interval(0.9, 3, tau, scipy.stats.sem(pseudo))
    assert across(sample, 0.9).interval == pytest.approx((max(-1, low), min(1, high)))


def test_the_interval_covers_tau_of_many_seeds() -> None:
    large = across(points(0.4, seeds=30, seed=99), 0.9).tau
    covered = 0
    for seed in range(40):
        low, high = across(points(0.4, seeds=4, seed=seed), 0.9).interval
        covered += low <= large <= high
    assert covered / 40 >= 0.78


def test_no_pair_no_tau() -> None:
    assert across(points(0.1, methods=1), 0.95).tau is None
    assert within([], 0.95).pairs == 0
