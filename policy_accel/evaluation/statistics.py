"""From episodes to the figures that are reported: means, their intervals, and what a choice of checkpoint owes to luck.

Selection bias: the largest of several noisy scores overstates the policy it belongs to (Cawley and Talbot, 2010, "On
Over-fitting in Model Selection"). Episodes from other seeds, which had no part in the choice, do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import scipy  # scipy.stats is loaded at its first use: rollout workers import this package and need none of it

from policy_accel.errors import UserError
from policy_accel.evaluation.episode import EpisodeResult

CONFIDENCE = 0.95
RESAMPLES = 10_000
EXPLANATION = (
    "Selection bias is the luck in the score of a checkpoint that was chosen for that score: the same policy does not "
    "have it on seeds that had no part in the choice."
)


METRICS: dict[str, Callable[[Sequence[EpisodeResult]], float | None]] = {}
"""Numbers of the episodes of an evaluation that others registered, by name; None where one means nothing for them."""


def summarize(results: Sequence[EpisodeResult], *, confidence: float = CONFIDENCE) -> dict[str, Any]:
    """Score and success of a set of episodes, with intervals, as it stands in evaluation.json.

    score: mean over episodes, with a bootstrap interval; success_rate with a Wilson interval; success_from: where the
    environment says so, see `EpisodeResult`; mean_length: environment steps of the episodes that could be run;
    episodes: one row each (seed, score, success, length, and video, error or metrics where there is one). metrics,
    where the environment reports some: by name, the mean over the episodes that have it; and those that were registered
    in METRICS.

    Raises:
        UserError: no episode.
    """
    if not results:
        raise UserError("there is no episode to score; set evaluation.episodes to at least 1.")
    successes = sum(result.success for result in results)
    rows = [
        {key: value for key, value in asdict(result).items() if value is not None and key != "success_from"}
        for result in results
    ]
    sources = sorted({result.success_from for result in results if result.success_from is not None})
    lengths = [result.length for result in results if not result.error]
    metrics: dict[str, list[float]] = {}
    for result in results:
        for name, value in (result.metrics or {}).items():
            metrics.setdefault(name, []).append(value)
    means = {name: sum(values) / len(values) for name, values in metrics.items()}
    registered = {name: metric(results) for name, metric in METRICS.items()}
    means |= {name: float(value) for name, value in registered.items() if value is not None}
    return {
        **_score([result.score for result in results], confidence),
        "success_rate": successes / len(results),
        "success_interval": list(wilson_interval(successes, len(results), confidence)),
        **({"success_from": ", ".join(sources)} if sources else {}),
        "confidence": confidence,
        "mean_length": sum(lengths) / len(lengths) if lengths else 0.0,
        **({"metrics": means} if means else {}),
        "failed_seeds": [result.seed for result in results if result.error],
        "episodes": rows,
    }


def _score(scores: Sequence[float], confidence: float) -> dict[str, Any]:
    mean = sum(scores) / len(scores)
    low, high = bootstrap_interval(scores, confidence)
    return {"score": mean, "score_interval": [min(low, mean), max(high, mean)]}  # rounding may part equal scores


def missing_seeds(asked: range, chosen: range) -> range:
    """The seeds to run beside those that were asked for, so that both kinds are there: seeds that chose and fresh ones.

    Where the asked ones hold both kinds, none. Where they are all fresh, as many of the chosen ones (or all, if there
    are fewer). Where none is fresh, as many seeds beyond both ranges.

    Args:
        asked: consecutive seeds that are scored anyway, at least 1.
        chosen: consecutive seeds on which checkpoints were compared during training, at least 1.
    """
    again = sum(seed in chosen for seed in asked)
    if again == 0:
        return chosen[: len(asked)]
    if again == len(asked):
        start = max(asked.stop, chosen.stop)
        return range(start, start + again)
    return range(0)


def selection_bias(rows: Sequence[dict[str, Any]], chosen: range, *, confidence: float) -> dict[str, Any]:
    """Score and success on the seeds that chose a checkpoint against fresh ones, with intervals.

    Args:
        rows: the episodes of an evaluation (seed, score, success), of both kinds, each seed once.
        chosen: the seeds that chose.
        confidence: of the intervals.

    Returns:
        {"chosen": group, "fresh": group, "difference": score of chosen minus fresh, "difference_interval": (low, high)
        by a two-sample bootstrap, "confidence"}; a group is {"start_seed", "episodes", "score", "score_interval",
        "success_rate"}.
    """
    groups = {
        "chosen": [row for row in rows if row["seed"] in chosen],
        "fresh": [row for row in rows if row["seed"] not in chosen],
    }
    scores = {name: [float(row["score"]) for row in group] for name, group in groups.items()}
    figures: dict[str, dict[str, Any]] = {
        name: {
            "start_seed": min(row["seed"] for row in group),
            "episodes": len(group),
            **_score(scores[name], confidence),
            "success_rate": sum(bool(row["success"]) for row in group) / len(group),
        }
        for name, group in groups.items()
    }
    return {
        **figures,
        "difference": figures["chosen"]["score"] - figures["fresh"]["score"],
        "difference_interval": list(bootstrap_difference(scores["chosen"], scores["fresh"], confidence)),
        "confidence": confidence,
    }


def wilson_interval(successes: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a success rate (E. B. Wilson, 1927), without continuity correction.

    Args:
        successes: number of successes, 0 to `trials`.
        trials: number of independent trials, at least 1.
        confidence: probability that the interval covers the true rate, in (0, 1).

    Returns:
        (low, high) within [0, 1].
    """
    interval = scipy.stats.binomtest(int(successes), int(trials)).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_interval(values: Sequence[float] | np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron, 1979), of `RESAMPLES` seeded resamples.

    Args:
        values: [N] finite numbers, N at least 1. One value, or equal values, give that value twice.
        confidence: probability that the interval is meant to cover the true mean, in (0, 1).

    Returns:
        (low, high) of the mean.
    """
    sample = np.asarray(values, dtype=np.float64)
    if np.all(sample == sample[0]):
        return float(sample[0]), float(sample[0])
    interval = scipy.stats.bootstrap(
        (sample,), np.mean, n_resamples=RESAMPLES, confidence_level=confidence, method="percentile", rng=0
    ).confidence_interval
    return float(interval.low), float(interval.high)


def bootstrap_difference(
    first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Percentile bootstrap interval of mean(first) - mean(second), two independent samples that are resampled apart
    (Efron and Tibshirani, 1993, chapter 8), of `RESAMPLES` seeded resamples.

    Args:
        first: [N] finite numbers, N at least 1.
        second: [M] finite numbers, M at least 1. Two samples without spread give the difference twice.
        confidence: probability that the interval is meant to cover the true difference, in (0, 1).

    Returns:
        (low, high) of the difference of the means.
    """
    generator = np.random.default_rng(0)
    means = []
    for sample in (np.asarray(values, dtype=np.float64) for values in (first, second)):
        if np.all(sample == sample[0]):
            means.append(np.full(RESAMPLES, sample[0]))
        else:
            means.append(sample[generator.integers(len(sample), size=(RESAMPLES, len(sample)))].mean(axis=1))
    tail = (1 - confidence) / 2
    low, high = np.quantile(means[0] - means[1], [tail, 1 - tail])
    return float(low), float(high)
