"""Intervals around a success rate, around a mean score and around the difference of two."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy  # scipy.stats is loaded at its first use: rollout workers import this package and need none of it

from policy_accel.errors import UserError

CONFIDENCE = 0.95
RESAMPLES = 10_000


def wilson_interval(successes: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a success rate (E. B. Wilson, 1927), without continuity correction.

    Args:
        successes: number of successes, 0 to `trials`.
        trials: number of independent trials, at least 1.
        confidence: probability that the interval covers the true rate, in (0, 1).

    Returns:
        (low, high) within [0, 1].

    Raises:
        UserError: a number is out of its range.
    """
    _check_confidence(confidence)
    if trials < 1:
        raise UserError(f"trials = {trials}: an interval needs at least 1 trial")
    if not 0 <= successes <= trials:
        raise UserError(f"successes = {successes}: must be between 0 and trials = {trials}")
    interval = scipy.stats.binomtest(int(successes), int(trials)).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    confidence: float = CONFIDENCE,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron, 1979); the same seed gives the same interval.

    Args:
        values: [N] finite numbers, N at least 1. One value, or equal values, give that value twice.
        confidence: probability that the interval is meant to cover the true mean, in (0, 1).
        resamples: number of bootstrap samples, at least 1.
        seed: seed of the resampling.

    Returns:
        (low, high) of the mean.

    Raises:
        UserError: no values, a NaN or infinite value, or a number out of its range.
    """
    _check_resampling(confidence, resamples)
    sample = _checked_sample("values", values)
    if np.all(sample == sample[0]):
        return float(sample[0]), float(sample[0])
    interval = scipy.stats.bootstrap(
        (sample,), np.mean, n_resamples=resamples, confidence_level=confidence, method="percentile", rng=seed
    ).confidence_interval
    return float(interval.low), float(interval.high)


def bootstrap_difference(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    confidence: float = CONFIDENCE,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of mean(first) - mean(second), two independent samples that are resampled apart
    (Efron and Tibshirani, 1993, chapter 8); the same seed gives the same interval.

    Args:
        first: [N] finite numbers, N at least 1.
        second: [M] finite numbers, M at least 1. Two samples without spread give the difference twice.
        confidence: probability that the interval is meant to cover the true difference, in (0, 1).
        resamples: number of bootstrap samples, at least 1.
        seed: seed of the resampling.

    Returns:
        (low, high) of the difference of the means.

    Raises:
        UserError: no values, a NaN or infinite value, or a number out of its range.
    """
    _check_resampling(confidence, resamples)
    samples = _checked_sample("first", first), _checked_sample("second", second)
    generator = np.random.default_rng(seed)
    means = []
    for sample in samples:
        if np.all(sample == sample[0]):
            means.append(np.full(resamples, sample[0]))
        else:
            means.append(sample[generator.integers(len(sample), size=(resamples, len(sample)))].mean(axis=1))
    tail = (1 - confidence) / 2
    low, high = np.quantile(means[0] - means[1], [tail, 1 - tail])
    return float(low), float(high)


def _check_resampling(confidence: float, resamples: int) -> None:
    _check_confidence(confidence)
    if resamples < 1:
        raise UserError(f"resamples = {resamples}: must be at least 1")


def _checked_sample(name: str, values: Sequence[float] | np.ndarray) -> np.ndarray:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise UserError(
            f"{name} of shape {list(sample.shape)}: an interval of the mean needs a list of at least 1 number"
        )
    if not np.isfinite(sample).all():
        first = int(np.flatnonzero(~np.isfinite(sample))[0])
        raise UserError(f"{name}[{first}] = {sample[first]}: an interval of the mean needs finite numbers")
    return sample


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise UserError(f"confidence = {confidence}: must lie between 0 and 1, both excluded, for example 0.95")
