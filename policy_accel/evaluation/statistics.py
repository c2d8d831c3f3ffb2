"""Intervals around a success rate and around a mean score."""

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
    _check_confidence(confidence)
    if resamples < 1:
        raise UserError(f"resamples = {resamples}: must be at least 1")
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise UserError(
            f"values of shape {list(sample.shape)}: an interval of the mean needs a list of at least 1 number"
        )
    if not np.isfinite(sample).all():
        first = int(np.flatnonzero(~np.isfinite(sample))[0])
        raise UserError(f"values[{first}] = {sample[first]}: an interval of the mean needs finite numbers")
    if np.all(sample == sample[0]):
        return float(sample[0]), float(sample[0])
    interval = scipy.stats.bootstrap(
        (sample,), np.mean, n_resamples=resamples, confidence_level=confidence, method="percentile", rng=seed
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise UserError(f"confidence = {confidence}: must lie between 0 and 1, both excluded, for example 0.95")
