import math
from statistics import NormalDist

import numpy as np
import pytest

from policy_accel.errors import UserError
from policy_accel.evaluation import EpisodeResult, statistics
from policy_accel.evaluation.statistics import (
    bootstrap_difference,
    bootstrap_interval,
    missing_seeds,
    selection_bias,
    summarize,
    wilson_interval,
)


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (7, 10), (50, 50), (93, 100), (1, 1)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_wilson_solves_its_quadratic(successes, trials, confidence):
    """Its ends are the two rates p with |p_hat - p| = z sqrt(p (1 - p) / n)."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = successes / trials
    for end in wilson_interval(successes, trials, confidence):
        assert abs(rate - end) == pytest.approx(z * math.sqrt(max(end * (1 - end), 0) / trials), abs=1e-7)
    low, high = wilson_interval(successes, trials, confidence)
    assert low <= rate <= high
    assert low < high


def test_wilson_of_newcombes_example():
    """R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3: 81 of 263 gives 0.2553 to 0.3662."""
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_wilson_covers_the_true_rate():
    generator = np.random.default_rng(0)
    successes = generator.binomial(40, 0.9, size=2000)
    intervals = {count: wilson_interval(count, 40) for count in np.unique(successes)}
    covered = np.mean([intervals[count][0] <= 0.9 <= intervals[count][1] for count in successes])
    assert 0.92 < covered < 0.98


def test_bootstrap_of_two_values_is_exact():
    """The mean of a resample of {0, 1} is 0, 1/2 or 1 with probability 1/4, 1/2, 1/4."""
    assert bootstrap_interval([0.0, 1.0], 0.95) == (0.0, 1.0)
    assert bootstrap_interval([0.0, 1.0], 0.4) == (0.5, 0.5)


def test_bootstrap_approaches_the_normal_interval():
    values = np.random.default_rng(1).gamma(2.0, size=400)
    error = values.std() / math.sqrt(len(values))
    low, high = bootstrap_interval(values, 0.9)
    assert low == pytest.approx(values.mean() - 1.645 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + 1.645 * error, abs=0.1 * error)


def test_bootstrap_covers_the_true_mean(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 500)
    generator = np.random.default_rng(2)
    samples = generator.beta(8.0, 1.0, size=(400, 50))
    intervals = [bootstrap_interval(sample) for sample in samples]
    covered = np.mean([low <= 8 / 9 <= high for low, high in intervals])
    assert 0.88 < covered < 0.98


def test_bootstrap_repeats():
    values = np.random.default_rng(3).normal(size=10)
    assert bootstrap_interval(values) == bootstrap_interval(values)


@pytest.mark.parametrize("values", [[0.3], [0.1] * 7])
def test_bootstrap_without_spread(values):
    assert bootstrap_interval(values) == (values[0], values[0])


def test_difference_of_two_values_each_is_exact():
    """Means of resamples: 0, 1/2, 1 with 1/4, 1/2, 1/4, against 0, 2, 4: differences -4 ... 1."""
    outcomes = {}
    for first, p in ((0, 0.25), (0.5, 0.5), (1, 0.25)):
        for second, q in ((0, 0.25), (2, 0.5), (4, 0.25)):
            outcomes[first - second] = outcomes.get(first - second, 0) + p * q
    cumulative = 0.0
    ends = []
    for confidence_end in (0.1, 0.9):
        cumulative = 0.0
        for difference in sorted(outcomes):
            cumulative += outcomes[difference]
            if cumulative >= confidence_end:
                ends.append(difference)
                break
    assert bootstrap_difference([0, 1], [0, 4], 0.8) == tuple(ends)


def test_difference_approaches_the_normal_interval():
    generator = np.random.default_rng(1)
    first, second = generator.normal(0.7, 0.2, 300), generator.normal(0.6, 0.4, 500)
    half = 1.959964 * math.hypot(first.std() / math.sqrt(300), second.std() / math.sqrt(500))
    low, high = bootstrap_difference(first, second)
    assert (low, high) == pytest.approx(
        (first.mean() - second.mean() - half, first.mean() - second.mean() + half), abs=2e-3
    )
    assert bootstrap_difference(first, second) == (low, high)
    assert bootstrap_difference(second, first) == pytest.approx((-high, -low), abs=2e-3)


def test_difference_covers_the_true_one(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 1000)
    generator = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        first, second = generator.random(50) < 0.8, generator.random(40) < 0.6
        low, high = bootstrap_difference(first, second)
        covered += low <= 0.2 <= high
    assert 180 <= covered <= 199


def test_difference_without_spread():
    assert bootstrap_difference([1, 1, 1], [0.25]) == (0.75, 0.75)
    low, high = bootstrap_difference([1, 1, 1], [0, 1, 0, 1])
    assert (low, high) == pytest.approx(tuple(1 - end for end in bootstrap_interval([0, 1, 0, 1])[::-1]), abs=1e-12)


RESULTS = [
    EpisodeResult(4, 0.5, False, 10, metrics={"lids": 1.0}),
    EpisodeResult(5, 1.0, True, 20, metrics={"lids": 2.0, "doors": 3.0}),
    EpisodeResult(6, 0.0, False, 0, error="it fell over"),
]


def test_figures_of_a_set_of_episodes():
    summary = summarize(RESULTS, confidence=0.9)
    assert summary["score"] == 0.5
    assert summary["score_interval"] == list(bootstrap_interval([0.5, 1, 0], 0.9))
    assert summary["success_interval"] == list(wilson_interval(1, 3, 0.9))
    assert summary["mean_length"] == 15, "the episode that could not be run has no length"
    assert summary["metrics"] == {"lids": 1.5, "doors": 3.0}
    assert summary["failed_seeds"] == [6]
    assert summary["episodes"][2] == {"seed": 6, "score": 0.0, "success": False, "length": 0, "error": "it fell over"}
    assert summary["episodes"][0]["metrics"] == {"lids": 1.0}


def test_metrics_only_where_the_environment_has_some():
    summary = summarize([EpisodeResult(1, 0.5, False, 3)])
    assert "metrics" not in summary
    assert summary["episodes"] == [{"seed": 1, "score": 0.5, "success": False, "length": 3}]


def test_no_episode():
    with pytest.raises(UserError, match="no episode"):
        summarize([])


@pytest.mark.parametrize(
    ("asked", "missing"),
    [
        (range(100, 150), range(150, 200)),  # the very seeds that chose
        (range(100, 110), range(150, 160)),  # some of them
        (range(120, 150), range(150, 180)),
        (range(500, 520), range(100, 120)),  # all fresh
        (range(500, 600), range(100, 150)),
        (range(100, 170), range(0)),  # both kinds already
        (range(90, 110), range(0)),
    ],
)
def test_seeds_of_both_kinds(asked, missing):
    chosen = range(100, 150)
    assert missing_seeds(asked, chosen) == missing
    seeds = [*asked, *missing_seeds(asked, chosen)]
    assert len(set(seeds)) == len(seeds), "no seed twice"
    assert set(seeds) & set(chosen)
    assert set(seeds) - set(chosen)


def row(seed, score):
    return {"seed": seed, "score": score, "success": score >= 1, "length": 3}


def test_the_bias_is_the_difference_of_the_means():
    rows = [row(11, 0.5), row(20, 0.0), row(10, 1.0), row(21, 1.0), row(22, 0.2)]
    bias = selection_bias(rows, range(10, 15), confidence=0.9)
    assert bias["chosen"] == {
        "start_seed": 10,
        "episodes": 2,
        "score": 0.75,
        "score_interval": bias["chosen"]["score_interval"],
        "success_rate": 0.5,
    }
    assert bias["fresh"]["score"] == pytest.approx(0.4)
    assert (bias["fresh"]["start_seed"], bias["fresh"]["episodes"]) == (20, 3)
    assert bias["difference"] == pytest.approx(0.35)
    low, high = bias["difference_interval"]
    assert low < 0.35 < high
    assert bias["confidence"] == 0.9


def test_choosing_the_best_of_equal_policies_is_seen():
    """Twenty policies that all succeed half of the time: the best of them on 50 seeds is no better on others."""
    biases, honest = [], []
    for trial in range(20):
        outcomes = np.random.default_rng(trial).random((20, 100)) < 0.5
        best = outcomes[outcomes[:, :50].mean(1).argmax()]
        rows = [row(seed, float(success)) for seed, success in enumerate(best)]
        biases.append(selection_bias(rows, range(50), confidence=0.95)["difference"])
        honest.append(selection_bias([row(s, float(x)) for s, x in enumerate(outcomes[0])], range(50), confidence=0.95))
    assert np.mean(biases) == pytest.approx(1.87 * np.sqrt(0.25 / 50), abs=0.05), (
        "1.87: mean of the largest of 20 normals"
    )
    assert abs(np.mean([bias["difference"] for bias in honest])) < 0.06


def test_bootstrap_interval_holds_the_quantiles_of_resampled_means() -> None:
    """On a skewed sample, where the quantiles lie far from symmetric about the mean."""
    values = np.array([0.0] * 12 + [1.0, 2.0, 9.0])
    means = np.random.default_rng(5).choice(values, size=(40_000, len(values))).mean(axis=1)
    for confidence in (0.8, 0.95):
        tail = (1 - confidence) / 2
        expected = np.quantile(means, [tail, 1 - tail])
        assert bootstrap_interval(values, confidence) == pytest.approx(expected, abs=0.08)
